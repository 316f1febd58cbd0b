package deltalog

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/rowsum"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

var (
	historySeed  = flag.Uint64("history.seed", 0, "repeat the random history of this seed; a fresh one unless given")
	historySteps = flag.Int("history.steps", 0, "steps of every random history; what the test finds right unless given")
)

// TestHistoriesAreReadAsTheirWriterKnows makes random histories of a table:
// appends, upserts, deletes, columns that come, compactions, checkpoints, vacuums,
// crashes, and a second writer. After every step deltalog reads it, now and then
// others do, and a map in memory says what there has to be.
func TestHistoriesAreReadAsTheirWriterKnows(t *testing.T) {
	steps, histories := 60, 4
	var o *others
	if testing.Short() {
		steps, histories = 25, 1
	} else {
		o = otherReaders(t)
	}
	if *historySteps > 0 {
		steps = *historySteps
	}
	for i := range histories {
		seed := *historySeed
		if seed == 0 {
			seed = rand.Uint64()
		} else if i > 0 {
			break
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Logf("-history.seed %d", seed)
			h := newHistory(t, seed)
			for step := range steps {
				h.step()
				if t.Failed() {
					t.Fatalf("at step %d: %s", step, h.did)
				}
				if o != nil && (step%15 == 14 || step == steps-1) {
					h.readByOthers(o, step == steps-1)
				}
			}
			h.finish()
			t.Logf("%d rows at version %d; %v", len(h.rows), h.writers[0].table.Snapshot().Version(), h.count)
		})
	}
}

// history is a table, those who write it, and what it has to hold.
type history struct {
	t       *testing.T
	r       *rand.Rand
	dir     string
	local   store.Store
	writers [2]*historian
	upserts UpserterOptions // of both
	rows    map[int64][]cell
	next    int64 // an id that was never there
	past    map[Version]rowsum.Sum
	did     string
	count   map[string]int
}

// historian is one writer, which a crash ends.
type historian struct {
	index  string // folder of its key index
	dead   atomic.Int64
	faulty *storetest.Faulty
	table  *Table
	upsert *Upserter
}

var errDead = errors.New("the process is dead")

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), dir: t.TempDir(), rows: map[int64][]cell{},
		past: map[Version]rowsum.Sum{}, count: map[string]int{},
	}
	var err error
	if h.local, err = store.NewLocal(h.dir); err != nil {
		t.Fatal(err)
	}
	s := primitives()
	s.Fields = s.Fields[:4+h.r.IntN(len(s.Fields)-4)]
	properties := latestProperties()
	if h.r.IntN(2) == 0 {
		delete(properties, PropertyInCommitTimestamps)
	}
	for _, p := range []struct {
		key    string
		values []string // empty means that it is not set
	}{
		{PropertyChangeDataFeed, []string{"", "", "true"}},
		{PropertyRowTracking, []string{"", "", "true"}},
		{PropertyColumnMapping, []string{"", "", "name", "id"}},
		{PropertyCheckpointPolicy, []string{"", "", "v2"}},
		{propertyStatsAsStruct, []string{"", "true"}},
		{propertyStatsAsJSON, []string{"", "false"}},
	} {
		if v := p.values[h.r.IntN(len(p.values))]; v != "" {
			properties[p.key] = v
		}
	}
	var partition []string
	// Partition columns under column mapping are all NULL to DuckDB.
	if h.r.IntN(3) == 0 && properties[PropertyColumnMapping] == "" {
		partition = []string{s.Fields[1].Name}
	}
	h.upserts = UpserterOptions{Keys: []string{"id"}, CopyOnWrite: h.r.IntN(4) == 0}
	t.Logf("properties %v, partitioned by %q, copy on write %v", properties, partition, h.upserts.CopyOnWrite)
	if _, err := Create(t.Context(), h.local, CreateOptions{Schema: s, PartitionColumns: partition, Properties: properties}); err != nil {
		t.Fatal(err)
	}
	for i := range h.writers {
		h.writers[i] = &historian{index: t.TempDir()}
		h.start(h.writers[i])
	}
	t.Cleanup(func() {
		for _, w := range h.writers {
			_ = w.upsert.Close()
		}
	})
	h.remember()
	return h
}

// start starts a writer, whose store fails from the moment on that dead counts
// down to zero.
func (h *history) start(w *historian) {
	h.t.Helper()
	w.dead.Store(1 << 40)
	fail := func(storetest.Op, string) error {
		if w.dead.Add(-1) < 0 {
			return errDead
		}
		return nil
	}
	w.faulty = &storetest.Faulty{Store: h.local, Before: fail, After: fail}
	var err error
	if w.table, err = Open(h.t.Context(), w.faulty); err != nil {
		h.t.Fatal(err)
	}
	if w.upsert, err = OpenUpserter(h.t.Context(), w.table, w.index, h.upserts); err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) schema() *schema.Schema {
	s, err := Open(h.t.Context(), h.local)
	if err != nil {
		h.t.Fatal(err)
	}
	return s.Snapshot().Metadata().Schema
}

// step does one thing and reads the table.
func (h *history) step() {
	w := h.writers[h.r.IntN(len(h.writers))]
	if h.r.IntN(3) > 0 { // else it finds out by losing a race
		if _, err := w.table.Refresh(h.t.Context()); err != nil {
			h.t.Fatal(err)
		}
	}
	moves := []struct {
		name   string
		weight int
		do     func(*historian)
	}{
		{"upsert", 8, h.change},
		{"append", 4, h.append},
		{"delete", 2, h.delete},
		{"evolve", 1, h.evolve},
		{"compact", 2, h.compact},
		{"checkpoint", 2, func(w *historian) { h.must(w.table.Checkpoint(h.t.Context())) }},
		{"vacuum", 1, h.vacuum},
		{"crash", 3, h.crash},
		{"overwrite", 1, h.overwrite},
	}
	all := 0
	for _, m := range moves {
		all += m.weight
	}
	at := h.r.IntN(all)
	for _, m := range moves {
		if at -= m.weight; at < 0 {
			h.did = m.name
			h.count[m.name]++
			m.do(w)
			break
		}
	}
	h.compare()
	h.remember()
}

func (h *history) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("%s: %v", h.did, err)
	}
}

// again tries until nobody else was in the way.
func (h *history) again(w *historian, try func() error) {
	h.t.Helper()
	for range 10 {
		err := try()
		if !errors.Is(err, ErrConflict) {
			h.must(err)
			return
		}
		_, err = w.table.Refresh(h.t.Context())
		h.must(err)
	}
	h.t.Fatalf("%s: in conflict for ever", h.did)
}

// someIDs draws ids, most of which are there.
func (h *history) someIDs(most int) []int64 {
	have := slices.Sorted(maps.Keys(h.rows))
	chosen := map[int64]bool{}
	for range 1 + h.r.IntN(most) {
		if len(have) > 0 && h.r.IntN(5) > 0 {
			chosen[have[h.r.IntN(len(have))]] = true
			continue
		}
		chosen[h.next] = true
		h.next++
	}
	return slices.Sorted(maps.Keys(chosen))
}

// plan is an upsert, which can be tried again, and what it makes of the rows.
func (h *history) plan() (do func(*historian) error, after map[int64][]cell) {
	s := h.schema()
	after = maps.Clone(h.rows)
	put, gone := h.someIDs(40), h.someIDs(10)
	b := datafile.NewBatch(s)
	for _, id := range put {
		row := randomRow(h.r, s, id)
		appendCells(b, row)
		after[id] = row
	}
	for _, id := range gone {
		delete(after, id)
	}
	return func(w *historian) error {
		up := w.upsert.Begin()
		defer up.Abort()
		if err := up.Put(h.t.Context(), b, keysOf(put...)); err != nil {
			return err
		}
		if err := up.Delete(h.t.Context(), keysOf(gone...)); err != nil {
			return err
		}
		_, err := up.Commit(h.t.Context(), CommitExtras{})
		return err
	}, after
}

func (h *history) change(w *historian) {
	do, after := h.plan()
	h.again(w, func() error { return do(w) })
	h.rows = after
}

func (h *history) append(w *historian) {
	s := h.schema()
	b := datafile.NewBatch(s)
	for range 1 + h.r.IntN(100) {
		row := randomRow(h.r, s, h.next)
		appendCells(b, row)
		h.rows[h.next] = row
		h.next++
	}
	h.again(w, func() error {
		_, err := w.table.Append(h.t.Context(), b)
		return err
	})
}

// delete takes the rows away whose id leaves a remainder.
func (h *history) delete(w *historian) {
	by := 3 + h.r.Int64N(20)
	// Without a row to take there is no race to lose, so it has to look first.
	_, err := w.table.Refresh(h.t.Context())
	h.must(err)
	h.again(w, func() error {
		_, _, err := w.table.Delete(h.t.Context(), []string{"id"}, func(b *datafile.Batch, row int) bool { return b.Cols[0].I64[row]%by == 1 })
		return err
	})
	maps.DeleteFunc(h.rows, func(id int64, _ []cell) bool { return id%by == 1 })
}

func (h *history) overwrite(w *historian) {
	s := h.schema()
	rows := map[int64][]cell{}
	b := datafile.NewBatch(s)
	for range h.r.IntN(60) {
		row := randomRow(h.r, s, h.next)
		appendCells(b, row)
		rows[h.next] = row
		h.next++
	}
	h.again(w, func() error {
		_, err := w.table.Overwrite(h.t.Context(), b)
		return err
	})
	h.rows = rows
}

// evolve adds a column, in which the rows that are there have NULL.
func (h *history) evolve(w *historian) {
	pool := primitives().Fields
	h.again(w, func() error {
		now := w.table.Snapshot().Metadata().Schema
		f := pool[1+h.r.IntN(len(pool)-1)]
		f.Name = fmt.Sprint("added ", len(now.Fields))
		_, err := w.table.SetSchema(h.t.Context(), &schema.Schema{Fields: append(slices.Clone(now.Fields), f)})
		return err
	})
}

func (h *history) compact(w *historian) {
	o := CompactOptions{}
	if h.r.IntN(3) == 0 {
		o.ClusterBy = []string{"id"}
	}
	h.again(w, func() error {
		_, err := w.table.Compact(h.t.Context(), o)
		return err
	})
}

// vacuum deletes files as soon as they are out of the table. After that older
// versions are not read again, and nobody may still be at one.
func (h *history) vacuum(w *historian) {
	h.again(w, func() error {
		_, err := w.table.Vacuum(h.t.Context(), VacuumOptions{Retention: time.Nanosecond, Force: true, Full: h.r.IntN(2) == 0})
		return err
	})
	for _, w := range h.writers {
		_, err := w.table.Refresh(h.t.Context())
		h.must(err)
	}
	clear(h.past)
}

// crash ends a writer amid something, and starts it anew.
func (h *history) crash(w *historian) {
	before := h.rows
	after := before
	var do func(*historian) error
	switch h.r.IntN(4) {
	case 0:
		do = func(w *historian) error { return w.table.Checkpoint(h.t.Context()) }
	case 1:
		do = func(w *historian) error {
			_, err := w.table.Compact(h.t.Context(), CompactOptions{})
			return err
		}
	default:
		do, after = h.plan()
	}
	w.dead.Store(h.r.Int64N(30))
	err := do(w)
	w.dead.Store(-1)
	h.must(w.upsert.Close())
	h.start(w)
	got := h.read()
	if differences(got, h.lines(after)) == "" {
		h.rows = after
		return
	}
	h.did = fmt.Sprintf("crash (%v)", err)
	if err == nil {
		h.t.Errorf("what was committed is not there: %s", differences(got, h.lines(after)))
	}
	h.rows = before // which is compared next
}

func (h *history) lines(rows map[int64][]cell) []string {
	s := h.schema()
	lines := make([]string, 0, len(rows))
	for _, row := range rows {
		lines = append(lines, cellLine(s, row))
	}
	return lines
}

func (h *history) read() []string {
	h.t.Helper()
	table, err := Open(h.t.Context(), h.local)
	h.must(err)
	lines, err := readLines(h.t.Context(), table.Snapshot())
	h.must(err)
	return lines
}

// compare reads the newest version, and now and then an older one.
func (h *history) compare() {
	h.t.Helper()
	if d := differences(h.read(), h.lines(h.rows)); d != "" {
		h.t.Errorf("after %s deltalog reads %s", h.did, d)
		return
	}
	if len(h.past) == 0 || h.r.IntN(4) > 0 {
		return
	}
	versions := slices.Sorted(maps.Keys(h.past))
	v := versions[h.r.IntN(len(versions))]
	got, err := sumAt(h.t.Context(), h.local, v)
	if err != nil || got != h.past[v] {
		h.t.Errorf("after %s version %d is read as %d rows with %s, want %d with %s: %v", h.did, v, got.Rows, got, h.past[v].Rows, h.past[v], err)
	}
}

// remember notes what the newest version holds.
func (h *history) remember() {
	table, err := Open(h.t.Context(), h.local)
	h.must(err)
	h.past[table.Snapshot().Version()] = lineSum(h.lines(h.rows))
}

// readByOthers has others read the table; those that are slow do so only at the
// end.
func (h *history) readByOthers(o *others, end bool) {
	h.t.Helper()
	want := expected{rows: h.lines(h.rows)}
	table, err := Open(h.t.Context(), h.local)
	h.must(err)
	for _, name := range o.names() {
		if !end && (name == "spark" || name == "kernel") {
			continue
		}
		if err := o.see(name, h.dir, table.Snapshot().Protocol(), want); err != nil {
			h.t.Errorf("after %s: %v", h.did, err)
		}
	}
}

// finish deletes what crashes left, and has the table and the indexes looked
// through.
func (h *history) finish() {
	h.t.Helper()
	h.did = "finish"
	w := h.writers[0]
	_, err := w.table.Vacuum(h.t.Context(), VacuumOptions{Retention: time.Nanosecond, Force: true, Full: true})
	h.must(err)
	findings, err := Fsck(h.t.Context(), h.local, FsckOptions{})
	h.must(err)
	for _, f := range findings {
		h.t.Errorf("fsck: %s", f)
	}
	for _, w := range h.writers {
		_, err := w.table.Refresh(h.t.Context())
		h.must(err)
		findings, err := w.upsert.Fsck(h.t.Context())
		h.must(err)
		for _, f := range findings {
			h.t.Errorf("fsck of an index: %s", f)
		}
	}
}
