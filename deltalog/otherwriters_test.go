package deltalog

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/deltalog/store"
)

// sharedTable is a table that another program writes too: it appends and changes
// ids from foreign on, while ours are below.
type sharedTable struct {
	dir   string
	table *Table
	mine  map[int64]string // names by id
	other map[int64]string
	quiet sync.Mutex // while it is held nothing is upserted
	turns chan struct{}
}

const foreign = 1_000_000

func newSharedTable(t *testing.T, properties map[string]string) *sharedTable {
	t.Helper()
	s := &sharedTable{dir: t.TempDir(), mine: map[int64]string{}, other: map[int64]string{}, turns: make(chan struct{}, 1000)}
	st, err := store.NewLocal(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if s.table, err = Create(t.Context(), st, CreateOptions{Schema: idName(), Properties: properties}); err != nil {
		t.Fatal(err)
	}
	return s
}

// allow has so many upserts be made.
func (s *sharedTable) allow(n int) {
	for range n {
		s.turns <- struct{}{}
	}
}

// upsertInTurns upserts and deletes until turns is closed.
func (s *sharedTable) upsertInTurns(t *testing.T) {
	u, err := OpenUpserter(t.Context(), s.table, t.TempDir(), UpserterOptions{Keys: []string{"id"}})
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = u.Close() }()
	r := rand.New(rand.NewPCG(5, 6))
	i := 0
	for range s.turns {
		i++
		var rows []person
		for range 10 {
			id := r.Int64N(200)
			rows = slices.DeleteFunc(rows, func(p person) bool { return p.id == id })
			rows = append(rows, person{id, fmt.Sprint("mine ", i)})
		}
		gone := r.Int64N(200)
		for try := 0; ; try++ {
			err := func() error {
				s.quiet.Lock()
				defer s.quiet.Unlock()
				up := u.Begin()
				defer up.Abort()
				if err := up.Put(t.Context(), batchOf(rows...), keysOf(idsOf(rows)...)); err != nil {
					return err
				}
				if err := up.Delete(t.Context(), keysOf(gone)); err != nil {
					return err
				}
				_, err := up.Commit(t.Context(), CommitExtras{})
				return err
			}()
			if err == nil {
				break
			}
			if _, err2 := s.table.Refresh(t.Context()); err2 != nil || try == 20 {
				t.Errorf("upsert %d: %v, %v", i, err, err2)
				return
			}
		}
		for _, p := range rows {
			s.mine[p.id] = p.name
		}
		delete(s.mine, gone)
	}
}

// lines are the rows that there have to be.
func (s *sharedTable) lines() []string {
	all := maps.Clone(s.mine)
	maps.Copy(all, s.other)
	var lines []string
	for id, name := range all {
		lines = append(lines, cellLine(idName(), []cell{id, name}))
	}
	return lines
}

// TestForeignWritersBesideUpserts has delta-rs append, delete, merge, compact,
// checkpoint and vacuum between the upserts of this package, and amid them, where
// it may be refused for the sake of a commit that came first. What it says it has
// done has to be there.
func TestForeignWritersBesideUpserts(t *testing.T) {
	o := otherReaders(t)
	p, ok := o.readers["delta-rs"]
	if !ok {
		t.Skip("delta-rs did not start")
	}
	s := newSharedTable(t, map[string]string{PropertyDeletionVectors: "true"})
	var wg sync.WaitGroup
	wg.Go(func() { s.upsertInTurns(t) })
	next, refused := int64(foreign), 0
	for i := range 28 {
		amid := i >= 14
		q := question{Path: s.dir, Do: []string{"append", "append", "optimize", "merge", "delete", "checkpoint", "vacuum"}[i%7], Name: fmt.Sprint("delta-rs ", i)}
		if amid && q.Do == "vacuum" {
			continue // without retention it takes files that a commit is about to add
		}
		switch q.Do {
		case "append":
			q.IDs = []int64{next, next + 1, next + 2}
			next += 3
		case "merge":
			q.IDs = []int64{next - 1, next}
			next++
		case "delete":
			q.IDs = []int64{next - 3}
		}
		s.allow(10)
		if !amid {
			s.quiet.Lock()
		}
		got := p.ask(q)
		if !amid {
			s.quiet.Unlock()
		}
		if got.Error != "" {
			if refused++; !amid || !strings.Contains(got.Error, "concurrent") {
				t.Errorf("%s: %.300s", q.Do, got.Error)
			}
			continue
		}
		if q.Do == "vacuum" && got.Rows == 0 {
			t.Error("vacuum deleted no file")
		}
		for _, id := range q.IDs {
			if q.Do == "delete" {
				delete(s.other, id)
			} else {
				s.other[id] = q.Name
			}
		}
	}
	close(s.turns)
	wg.Wait()
	t.Logf("%d of 12 writes amid upserts were refused", refused)
	o.check(t, s.table, s.dir, expected{rows: s.lines()})
}

// TestForeignWritersRefuseWhatTheyDoNotKnow holds delta-rs to leaving a table alone
// whose features it does not write.
func TestForeignWritersRefuseWhatTheyDoNotKnow(t *testing.T) {
	o := otherReaders(t)
	p, ok := o.readers["delta-rs"]
	if !ok {
		t.Skip("delta-rs did not start")
	}
	s := newSharedTable(t, latestProperties()) // with in-commit timestamps
	s.allow(10)
	close(s.turns)
	s.upsertInTurns(t)
	before := s.table.Snapshot().Version()
	for _, do := range []string{"append", "optimize", "merge", "delete"} {
		got := p.ask(question{Path: s.dir, Do: do, IDs: []int64{foreign}, Name: "delta-rs"})
		if !strings.Contains(got.Error, "InCommitTimestamp") && !strings.Contains(got.Error, "inCommitTimestamp") {
			t.Errorf("%s: error %q", do, got.Error)
		}
	}
	if now, err := s.table.Refresh(t.Context()); err != nil || now.Version() != before {
		t.Errorf("version %d, want %d: %v", now.Version(), before, err)
	}
	o.check(t, s.table, s.dir, expected{rows: s.lines()})
}

// TestForeignWritesOfSparkBesideUpserts has Spark insert, merge, delete and
// optimize in the same way, on a table that has in-commit timestamps too.
func TestForeignWritesOfSparkBesideUpserts(t *testing.T) {
	if !*conformance {
		t.Skip("for make conformance: needs Spark")
	}
	o := otherReaders(t)
	p, ok := o.readers["spark"]
	if !ok {
		t.Skip("Spark did not start")
	}
	s := newSharedTable(t, latestProperties())
	var wg sync.WaitGroup
	wg.Go(func() { s.upsertInTurns(t) })
	next, refused := int64(foreign), 0
	for i := range 8 {
		name := fmt.Sprint("spark ", i)
		var sql string
		after := maps.Clone(s.other)
		switch i % 4 {
		case 0:
			sql = fmt.Sprintf("INSERT INTO {T} VALUES (%d, '%s'), (%d, '%s')", next, name, next+1, name)
			after[next], after[next+1] = name, name
		case 1:
			sql = fmt.Sprintf("MERGE INTO {T} t USING (SELECT * FROM VALUES (%dL, '%s'), (%dL, '%s') AS s(id, name)) s ON t.id = s.id "+
				"WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *", next-1, name, next, name)
			after[next-1], after[next] = name, name
		case 2:
			sql = fmt.Sprintf("DELETE FROM {T} WHERE id = %d", next-1)
			delete(after, next-1)
		case 3:
			sql = "OPTIMIZE {T}"
		}
		next += 2
		amid := i >= 4
		s.allow(20)
		if !amid {
			s.quiet.Lock()
		}
		got := p.ask(question{Path: s.dir, SQL: sql})
		if !amid {
			s.quiet.Unlock()
		}
		if got.Error != "" {
			if refused++; !amid || !strings.Contains(got.Error, "oncurrent") {
				t.Errorf("%s: %.500s", sql, got.Error)
			}
			continue
		}
		s.other = after
	}
	close(s.turns)
	wg.Wait()
	t.Logf("%d of 4 statements amid upserts were refused", refused)
	o.check(t, s.table, s.dir, expected{rows: s.lines()})
}
