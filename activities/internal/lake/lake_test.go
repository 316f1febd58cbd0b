package lake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/batch"
	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

// bench is a lake on the local disk and what tests do with it.
type bench struct {
	t      testing.TB
	ctx    context.Context
	root   string
	lake   *Lake
	mirror *Mirror
	table  *change.Table
}

func newBench(t testing.TB, table *change.Table) *bench {
	b := &bench{t: t, ctx: context.Background(), root: memoryDir(t), table: table}
	b.open(Config{})
	return b
}

// open opens the lake, as a worker that has just started does.
func (b *bench) open(cfg Config) {
	b.t.Helper()
	cfg.Root, cfg.IndexDir, cfg.Database = filepath.Join(b.root, "lake"), filepath.Join(b.root, "index"), "shop"
	l, err := Open(b.ctx, cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = l.Close() })
	b.lake = l
	b.mirror = b.handle(b.table)
}

func (b *bench) reopen() {
	b.t.Helper()
	_ = b.lake.Close()
	b.open(Config{})
}

func (b *bench) handle(t *change.Table) *Mirror {
	b.t.Helper()
	m, err := b.lake.Mirror(b.ctx, t, MirrorOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

// events makes one transaction of the mirror's table: each is an operation and
// a row.
func (b *bench) events(lsn change.LSN, changes ...string) []*change.Event {
	var out []*change.Event
	for i, c := range changes {
		op, rest, _ := strings.Cut(c, " ")
		ev := &change.Event{
			Table: b.table, Op: change.Op(op[0]), CommitMicros: int64(lsn),
			Position: change.Position{Epoch: 1, CommitLSN: lsn, Ordinal: uint64(i + 1)},
		}
		switch ev.Op {
		case change.Create, change.Update:
			ev.New = cells(rest)
		case change.Delete:
			ev.Old = cells(rest)
		}
		out = append(out, ev)
	}
	return out
}

// cells makes a tuple of values between bars, where ~ is NULL and ^ unchanged.
func cells(s string) change.Tuple {
	var t change.Tuple
	for v := range strings.SplitSeq(s, "|") {
		switch v {
		case "~":
			t.Append(change.Null, nil)
		case "^":
			t.Append(change.Unchanged, nil)
		default:
			t.Append(change.Text, []byte(v))
		}
	}
	return t
}

func (b *bench) batch(m *Mirror, events ...*change.Event) *batch.Batch {
	b.t.Helper()
	layout, err := m.Layout(b.table)
	if err != nil {
		b.t.Fatal(err)
	}
	out := batch.New(layout)
	for _, ev := range events {
		if err := out.Append(ev); err != nil {
			b.t.Fatal(err)
		}
	}
	return out
}

// commit commits one transaction.
func (b *bench) commit(lsn change.LSN, changes ...string) Committed {
	b.t.Helper()
	done, err := b.mirror.Commit(b.ctx, b.batch(b.mirror, b.events(lsn, changes...)...), change.Position{})
	if err != nil {
		b.t.Fatal(err)
	}
	return done
}

// copy copies rows as one copy of two chunks.
func (b *bench) copy(id string, cut change.LSN, rows ...string) {
	b.t.Helper()
	b.beginCopy(id, cut)
	b.endCopy(id, rows...)
}

func (b *bench) beginCopy(id string, cut change.LSN) {
	b.t.Helper()
	if _, err := b.mirror.BeginCopy(b.ctx, Copy{ID: id, Table: b.table, Cut: cut, Epoch: 1, Chunks: 2}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) endCopy(id string, rows ...string) {
	b.t.Helper()
	for chunk := range 2 {
		_, _, err := b.mirror.WriteChunk(b.ctx, id, chunk, func(yield func(*change.Tuple) error) error {
			for i, r := range rows {
				if i%2 == chunk {
					t := cells(r)
					if err := yield(&t); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	if err := b.mirror.FinishCopy(b.ctx, id); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) catchUp() {
	b.t.Helper()
	for {
		done, err := b.mirror.CatchUp(b.ctx, 100)
		if err != nil {
			b.t.Fatal(err)
		}
		if done {
			return
		}
	}
}

func (b *bench) snapshot(name string) *deltalog.Snapshot {
	b.t.Helper()
	st, err := store.OpenURI(filepath.Join(b.root, "lake", "shop", "public", "orders", name))
	if err != nil {
		b.t.Fatal(err)
	}
	t, err := deltalog.Open(b.ctx, st)
	if err != nil {
		b.t.Fatal(err)
	}
	return t.Snapshot()
}

// latest returns the rows of latest as a stranger reads them, sorted.
func (b *bench) latest(columns ...string) []string {
	b.t.Helper()
	if columns == nil {
		columns = []string{"id", "part", "note", "big"}
	}
	var out []string
	for rows, err := range b.snapshot("latest").Read(b.ctx, deltalog.ReadOptions{Columns: columns}) {
		if err != nil {
			b.t.Fatal(err)
		}
		for i := range rows.Rows() {
			out = append(out, strings.ReplaceAll(readRow(rows, i), null, "~"))
		}
	}
	slices.Sort(out)
	return out
}

func (b *bench) wantLatest(rows ...string) {
	b.t.Helper()
	if got := b.latest(); !slices.Equal(got, rows) {
		b.t.Fatalf("latest holds %q, want %q", got, rows)
	}
}

func keyed() *change.Table { return kinds[0].table(16384) }

func TestChangesBelowTheCutStayInHistoryAndOthersReachLatest(t *testing.T) {
	b := newBench(t, keyed())
	b.commit(10, "c 1|1|a|x")
	b.beginCopy("one", 20)
	b.commit(15, "c 2|1|b|x") // in the snapshot
	b.commit(20, "u 1|1|at the cut|^")
	b.commit(25, "c 3|1|c|x", "d 2|~|~|~")
	if s := b.mirror.State(); s.Phase != Copying || s.Incarnation != 1 || s.Cut != 20 || s.OID != 16384 || s.Copy != "one" || s.Chunks != 2 {
		t.Fatalf("while copying: %+v", s)
	}
	if _, err := b.mirror.CatchUp(b.ctx, 10); !errors.Is(err, ErrNotCopied) {
		t.Fatalf("catching up while copying: %v", err)
	}
	b.endCopy("one", "1|1|a|x", "2|1|b|x")
	if s := b.mirror.State(); s.Phase != CatchingUp || s.RowsCopied != 2 || s.ChunksDone != 2 {
		t.Fatalf("after the copy: %+v", s)
	}
	b.catchUp()
	if s := b.mirror.State(); s.Phase != Live {
		t.Fatalf("caught up: %+v", s)
	}
	b.wantLatest("1|1|at the cut|x", "3|1|c|x")
	b.commit(30, "u 3|2|c2|^")
	b.wantLatest("1|1|at the cut|x", "3|2|c2|x")
	if got, want := b.snapshot("history").Metadata().Schema.Names(), append([]string{"id", "part", "note", "big"}, metaNames()...); !slices.Equal(got, want) {
		t.Fatalf("history has columns %q", got)
	}
	if got, want := b.snapshot("latest").Metadata().Schema.Names(), []string{"id", "part", "note", "big", "__epoch", "__commit_lsn", "__commit_ts"}; !slices.Equal(got, want) {
		t.Fatalf("latest has columns %q", got)
	}
	want := []string{
		"e1 0/A #1 c", "e1 0/F #1 c", "e1 0/14 #1 u", "e1 0/19 #1 c", "e1 0/19 #2 d", "e1 0/1E #1 u",
	}
	if got := readHistory(t, b.ctx, b.snapshot("history")); !slices.Equal(got, want) {
		t.Fatalf("history holds %q", got)
	}
	if got, want := b.mirror.LatestApplied(), b.mirror.Applied(); got != want {
		t.Fatalf("latest is at %s, history at %s", got, want)
	}
}

func metaNames() []string { return fieldNames(batch.MetaFields()) }

func TestACutAheadOfTheStreamIsLiveAtOnce(t *testing.T) {
	b := newBench(t, keyed())
	b.commit(10, "c 1|1|a|x")
	b.copy("one", 100, "1|1|z|x", "2|1|y|x")
	b.catchUp()
	if b.mirror.State().Phase != Live {
		t.Fatalf("%+v", b.mirror.State())
	}
	before := b.snapshot("latest").Version()
	if done := b.commit(50, "u 1|1|z|^", "c 2|1|y|x"); done.Latest {
		t.Fatal("a change below the cut reached latest")
	}
	if after := b.snapshot("latest").Version(); after != before {
		t.Fatalf("latest went from version %d to %d", before, after)
	}
	b.wantLatest("1|1|z|x", "2|1|y|x")
	b.commit(100, "d 1|~|~|~")
	b.wantLatest("2|1|y|x")
}

func TestATableWithoutIdentityIsLiveWithHistoryAlone(t *testing.T) {
	b := newBench(t, kinds[4].table(16384))
	b.copy("one", 10, "1|1|a|x")
	if s := b.mirror.State(); s.Phase != Live {
		t.Fatalf("%+v", s)
	}
	if done := b.commit(20, "c 1|1|a|x"); done.Latest || done.Rows != 1 || done.Commits != 1 {
		t.Fatalf("%+v", done)
	}
	if _, err := os.Stat(filepath.Join(b.root, "lake", "shop", "public", "orders", "latest")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("latest is there: %v", err)
	}
	if info := b.mirror.Info(); info.Latest != "" || info.HistoryRows != 2 {
		t.Fatalf("%+v", info)
	}
	done, err := b.mirror.CatchUp(b.ctx, 1)
	if !done || err != nil {
		t.Fatal(done, err)
	}
}

func TestATableThatLosesItsKeyShowsNoOldRows(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|x", "2|1|b|x")
	b.catchUp()
	b.table = keyed()
	b.table.Identity, b.table.Key = change.IdentityNone, nil
	b.table.Fingerprint = b.table.ComputeFingerprint()
	b.copy("two", 20, "1|1|a|x", "3|1|c|x")
	b.catchUp()
	b.wantLatest()
	if info := b.mirror.Info(); info.Latest != "" || info.LatestRows != 0 {
		t.Errorf("%+v", info)
	}
	b.commit(30, "c 4|1|d|x")
	b.reopen()
	if info := b.mirror.Info(); info.Latest != "" {
		t.Errorf("opened again: %+v", info)
	}
	// And it has a key again.
	b.table = keyed()
	b.copy("three", 40, "1|1|a|x", "4|1|d|x")
	b.catchUp()
	b.wantLatest("1|1|a|x", "4|1|d|x")
	b.commit(50, "u 4|1|e|x")
	b.wantLatest("1|1|a|x", "4|1|e|x")
	if info := b.mirror.Info(); info.Latest == "" || info.LatestRows != 2 {
		t.Errorf("%+v", info)
	}
}

func TestNothingIsCommittedForNothing(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|x")
	b.catchUp()
	b.commit(20, "c 2|1|a|x")
	history, latest := b.snapshot("history").Version(), b.snapshot("latest").Version()
	b.reopen()
	b.catchUp()
	b.commit(20, "c 2|1|a|x") // was applied
	if _, err := b.mirror.Commit(b.ctx, nil, change.Position{Epoch: 1, CommitLSN: 99}); err != nil {
		t.Fatal(err)
	}
	if err := b.mirror.FinishCopy(b.ctx, "one"); err != nil {
		t.Fatal(err)
	}
	b.copy("one", 10)
	if err := b.mirror.Evolve(b.ctx, kinds[0].table(16384, "extra")); err != nil {
		t.Fatal(err)
	}
	if h, l := b.snapshot("history").Version(), b.snapshot("latest").Version(); h != history || l != latest {
		t.Fatalf("history went from %d to %d, latest from %d to %d", history, h, latest, l)
	}
}

func TestACrashBetweenTheTwoCommitsIsMadeUp(t *testing.T) {
	for _, how := range []string{"by the next commit", "by catching up"} {
		t.Run(how, func(t *testing.T) {
			b := newBench(t, keyed())
			b.copy("one", 10, "1|1|a|x")
			b.catchUp()
			// What is committed to history alone is what such a crash leaves.
			var done Committed
			if _, err := b.mirror.commitHistory(b.ctx, b.batch(b.mirror, b.events(20, "u 1|1|b|^", "c 2|1|c|y")...), change.Position{}, &done); err != nil {
				t.Fatal(err)
			}
			b.reopen()
			if s := b.mirror.State(); s.Phase != Live || !b.mirror.LatestApplied().Before(b.mirror.Applied()) {
				t.Fatalf("%+v at %s", s, b.mirror.LatestApplied())
			}
			if how == "by catching up" {
				b.catchUp()
				b.wantLatest("1|1|b|x", "2|1|c|y")
			}
			b.commit(30, "u 2|2|d|^")
			b.wantLatest("1|1|b|x", "2|2|d|y")
		})
	}
}

func TestAHandleIsFencedOnceAnotherMovedThePosition(t *testing.T) {
	b := newBench(t, keyed())
	other := b.handle(b.table)
	b.commit(10, "c 1|1|a|x")
	stale := b.batch(other, b.events(10, "c 1|1|a|x")...)
	if err := other.Stage(b.ctx, stale); !errors.Is(err, ErrFenced) {
		t.Fatalf("stage: %v", err)
	}
	if _, err := other.Commit(b.ctx, stale, change.Position{}); !errors.Is(err, ErrFenced) {
		t.Fatalf("commit: %v", err)
	}
	if err := other.Refresh(b.ctx); err != nil {
		t.Fatal(err)
	}
	if done, err := other.Commit(b.ctx, stale, change.Position{}); err != nil || done.Rows != 0 {
		t.Fatal(done, err)
	}
	if got := readHistory(t, b.ctx, b.snapshot("history")); len(got) != 1 {
		t.Fatalf("history holds %q", got)
	}
}

func TestAChunkThatWinsTheVersionDoesNotFenceTheStream(t *testing.T) {
	b := newBench(t, keyed())
	b.beginCopy("one", 10)
	changes := b.batch(b.mirror, b.events(20, "c 3|1|a|x")...)
	// The other worker has a log of its own to follow.
	elsewhere, err := Open(b.ctx, Config{Root: filepath.Join(b.root, "lake"), IndexDir: filepath.Join(b.root, "index2"), Database: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	m, err := elsewhere.Mirror(b.ctx, b.table, MirrorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for chunk := range 2 {
		n, bytes, err := m.WriteChunk(b.ctx, "one", chunk, func(yield func(*change.Tuple) error) error {
			row := cells(strconv.Itoa(chunk) + "|1|a|x")
			return yield(&row)
		})
		if err != nil || n != 1 || bytes == 0 {
			t.Fatal(n, bytes, err)
		}
	}
	if _, err := b.mirror.Commit(b.ctx, changes, change.Position{}); err != nil {
		t.Fatal(err)
	}
	if err := m.FinishCopy(b.ctx, "one"); err != nil {
		t.Fatal(err)
	}
	b.catchUp()
	b.wantLatest("0|1|a|x", "1|1|a|x", "3|1|a|x")
}

func TestAChunkIsWrittenOnce(t *testing.T) {
	b := newBench(t, keyed())
	b.beginCopy("one", 10)
	write := func(id string, chunk int) (int64, error) {
		n, _, err := b.mirror.WriteChunk(b.ctx, id, chunk, func(yield func(*change.Tuple) error) error {
			row := cells(strconv.Itoa(chunk) + "|1|a|x")
			return yield(&row)
		})
		return n, err
	}
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			if n, err := write("one", 0); err != nil || n != 1 {
				t.Errorf("%d rows, %v", n, err)
			}
		})
	}
	workers.Wait()
	if s := b.mirror.State(); s.RowsCopied != 1 || !b.mirror.ChunkDone(0) || b.mirror.ChunkDone(1) {
		t.Fatalf("%+v", s)
	}
	if n := b.snapshot("history").NumFiles(); n != 1 {
		t.Fatalf("%d files", n)
	}
	if err := b.mirror.FinishCopy(b.ctx, "one"); !errors.Is(err, ErrCopyIncomplete) {
		t.Fatalf("finishing early: %v", err)
	}
	if _, err := write("one", 2); err == nil {
		t.Fatal("a chunk beyond the last was written")
	}
	b.beginCopy("two", 20)
	if _, err := write("one", 1); !errors.Is(err, ErrCopyGone) {
		t.Fatalf("chunk of a copy that was replaced: %v", err)
	}
	if err := b.mirror.FinishCopy(b.ctx, "one"); !errors.Is(err, ErrCopyGone) {
		t.Fatalf("finishing it: %v", err)
	}
	// Chunks of the copy before are void.
	b.endCopy("two", "7|1|a|x")
	b.catchUp()
	b.wantLatest("7|1|a|x")
	if _, err := b.mirror.BeginCopy(b.ctx, Copy{Table: b.table, Cut: 30, Epoch: 1}); err == nil {
		t.Fatal("a copy without a name began")
	}
}

func TestACopyReplacesALiveTableAndKeepsItReadableMeanwhile(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|x", "2|1|a|x")
	b.catchUp()
	b.commit(20, "c 3|1|a|x")
	b.beginCopy("two", 30)
	b.wantLatest("1|1|a|x", "2|1|a|x", "3|1|a|x")
	b.commit(35, "c 9|1|a|x")
	b.wantLatest("1|1|a|x", "2|1|a|x", "3|1|a|x")
	b.endCopy("two", "5|1|a|x")
	b.catchUp()
	b.wantLatest("5|1|a|x", "9|1|a|x")
	// Both incarnations can be rebuilt.
	for asOf, want := range map[change.LSN]int64{25: 3, 31: 1, 36: 2} {
		rows, err := b.lake.Rebuild(b.ctx, b.mirror, change.Position{Epoch: 1, CommitLSN: asOf}, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if rows.Count() != want {
			t.Fatalf("as of %s: %d rows", asOf, rows.Count())
		}
		_ = rows.Close()
	}
	if _, err := b.lake.Rebuild(b.ctx, b.mirror, change.Position{Epoch: 1, CommitLSN: 9}, t.TempDir()); !errors.Is(err, ErrNotCopied) {
		t.Fatalf("before the first copy: %v", err)
	}
}

func TestATransactionLargerThanMemoryBecomesVisibleAtOnce(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|x")
	b.catchUp()
	history, latest := b.snapshot("history"), b.snapshot("latest")
	var all []string
	for i := range 300 {
		all = append(all, fmt.Sprintf("c %d|1|a|x", i+100))
	}
	all = append(all, "u 1|1|b|^", "d 100|~|~|~")
	events := b.events(20, all...)
	for len(events) > 100 {
		if err := b.mirror.Stage(b.ctx, b.batch(b.mirror, events[:100]...)); err != nil {
			t.Fatal(err)
		}
		events = events[100:]
	}
	if b.mirror.Staged() != 300 || b.snapshot("history").Version() != history.Version() {
		t.Fatal("staged rows are visible")
	}
	done, err := b.mirror.Commit(b.ctx, b.batch(b.mirror, events...), change.Position{})
	if err != nil || done.Rows != 302 || !done.Latest {
		t.Fatal(done, err)
	}
	if n := b.snapshot("history").Version() - history.Version(); n != 1 {
		t.Fatalf("%d commits of history", n)
	}
	if n := b.snapshot("latest").Version() - latest.Version(); n != 1 {
		t.Fatalf("%d commits of latest", n)
	}
	if got := b.latest(); len(got) != 300 || !slices.Contains(got, "1|1|b|x") {
		t.Fatalf("latest holds %d rows", len(got))
	}
}

func TestTruncateEmptiesLatestAndIsOneRowOfHistory(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|x", "2|1|a|x")
	b.catchUp()
	b.commit(20, "c 3|1|a|x", "t", "c 1|1|after|x")
	b.wantLatest("1|1|after|x")
	if got := readHistory(t, b.ctx, b.snapshot("history")); !slices.Equal(got, []string{"e1 0/14 #1 c", "e1 0/14 #2 t", "e1 0/14 #3 c"}) {
		t.Fatalf("history holds %q", got)
	}
}

func TestAnUnchangedValueFollowsItsRowThroughAChangeOfKey(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|large")
	b.catchUp()
	events := b.events(20, "u 2|1|moved|^", "u 3|1|moved again|^")
	events[0].Old, events[1].Old = cells("1|~|~|~"), cells("2|~|~|~")
	if _, err := b.mirror.Commit(b.ctx, b.batch(b.mirror, events...), change.Position{}); err != nil {
		t.Fatal(err)
	}
	b.wantLatest("3|1|moved again|large")
	b.commit(30, "u 3|2|stays|^")
	b.wantLatest("3|2|stays|large")
	// Read back from history, the same.
	rebuilt, err := b.lake.Rebuild(b.ctx, b.mirror, After(b.mirror.Applied()), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer rebuilt.Close()
	latest, _, err := b.mirror.LatestRows(b.ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer latest.Close()
	if d, err := Compare(b.ctx, rebuilt, latest, 10); err != nil || !d.Equal {
		t.Fatal(d, err)
	}
}

func TestAMultisetLosesOneOfEqualRowsAndParksWhereThereIsNone(t *testing.T) {
	b := newBench(t, kinds[3].table(16384))
	b.copy("one", 10, "1|1|a|x", "1|1|a|x", "1|1|a|x")
	b.catchUp()
	b.commit(20, "d 1|1|a|x")
	b.wantLatest("1|1|a|x", "1|1|a|x")
	m := b.mirror
	_, err := m.Commit(b.ctx, b.batch(m, b.events(30, "d 9|9|no|such")...), change.Position{})
	if !errors.Is(err, ErrRowNotFound) {
		t.Fatalf("deleting what is not there: %v", err)
	}
	if m.Applied().CommitLSN != 30 {
		t.Fatalf("history is at %s", m.Applied())
	}
	// It stays so until the table is copied again.
	if _, err := m.CatchUp(b.ctx, 10); !errors.Is(err, ErrRowNotFound) {
		t.Fatalf("trying again: %v", err)
	}
	b.copy("two", 40, "5|1|a|x")
	b.catchUp()
	b.wantLatest("5|1|a|x")
}

func TestColumnsAreAddedWithTheDataThatNeedsThem(t *testing.T) {
	for _, k := range []kind{kinds[0], kinds[3]} {
		t.Run(k.name, func(t *testing.T) {
			b := newBench(t, k.table(16384))
			b.copy("one", 10, "1|1|a|x")
			b.catchUp()
			old := b.table
			b.table = k.table(16384, "extra")
			before := b.snapshot("history").Version()
			if err := b.mirror.Evolve(b.ctx, b.table); err != nil {
				t.Fatal(err)
			}
			b.commit(20, "c 2|1|b|y|new")
			if n := b.snapshot("history").Version() - before; n != 1 {
				t.Fatalf("%d commits of history", n)
			}
			if got, want := b.latest("id", "extra"), []string{"1|~", "2|new"}; !slices.Equal(got, want) {
				t.Fatalf("latest holds %q", got)
			}
			// A shape from before still has its layout.
			if _, err := b.mirror.Layout(old); err != nil {
				t.Fatal(err)
			}
			// A column that is gone stays, and is NULL from there.
			b.table = k.table(16384, "extra")
			b.table.Columns = slices.Delete(b.table.Columns, 3, 4)
			b.table.Fingerprint = b.table.ComputeFingerprint()
			if err := b.mirror.Evolve(b.ctx, b.table); err != nil {
				t.Fatal(err)
			}
			b.commit(30, "c 3|1|c|newer")
			if got, want := b.latest("id", "big", "extra"), []string{"1|x|~", "2|y|new", "3|~|newer"}; !slices.Equal(got, want) {
				t.Fatalf("latest holds %q", got)
			}
		})
	}
}

func TestWhatIsNotAdditiveWaitsForACopy(t *testing.T) {
	base := func() *change.Table { return kinds[0].table(16384) }
	tests := map[string]func(*change.Table){
		"another type": func(t *change.Table) { t.Columns[2].Type = change.Type{OID: 20, Name: "int8", Kind: "b", Mod: -1} },
		"renamed":      func(t *change.Table) { t.Columns[2].Name = "remark" },
		"made again":   func(t *change.Table) { t.Columns[2].Attr = 9 },
		"another key":  func(t *change.Table) { t.Key = []int{0, 1} },
		"no identity":  func(t *change.Table) { t.Identity, t.Key = change.IdentityNone, nil },
		"filled":       func(t *change.Table) { t.Columns[3].Name, t.Columns[3].Attr, t.Columns[3].Fills = "filled", 9, true },
	}
	for name, alter := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, base())
			b.copy("one", 10, "1|1|7|x")
			b.catchUp()
			b.commit(15, "c 2|1|8|x")
			b.table = base()
			alter(b.table)
			b.table.Fingerprint = b.table.ComputeFingerprint()
			if err := b.mirror.Evolve(b.ctx, b.table); !errors.Is(err, ErrSchemaIncompatible) {
				t.Fatalf("evolve: %v", err)
			}
			if _, err := b.mirror.Layout(b.table); !errors.Is(err, ErrSchemaIncompatible) {
				t.Fatalf("layout: %v", err)
			}
			b.reopen()
			if s := b.mirror.State(); s.Phase != Waiting {
				t.Fatalf("%+v", s)
			}
			b.copy("two", 20, "1|1|7|x", "3|1|9|x")
			b.catchUp()
			if s := b.mirror.State(); s.Phase != Live || s.Incarnation != 2 {
				t.Fatalf("%+v", s)
			}
			b.commit(30, "c 4|1|10|x")
			rebuilt, err := b.lake.Rebuild(b.ctx, b.mirror, After(b.mirror.Applied()), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer rebuilt.Close()
			if rebuilt.Count() != 3 {
				t.Fatalf("%d rows", rebuilt.Count())
			}
			if b.table.Identity == change.IdentityNone {
				return
			}
			latest, _, err := b.mirror.LatestRows(b.ctx, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer latest.Close()
			if d, err := Compare(b.ctx, rebuilt, latest, 10); err != nil || !d.Equal || latest.Count() != 3 {
				t.Fatal(d, err)
			}
		})
	}
}

func TestATypeThatChangedGetsAColumnOfItsOwn(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|x")
	b.catchUp()
	b.table = keyed()
	b.table.Columns[2].Type = change.Type{OID: 20, Name: "int8", Kind: "b", Mod: -1}
	b.table.Fingerprint = b.table.ComputeFingerprint()
	b.copy("two", 20, "1|1|7|x")
	b.catchUp()
	if got := b.latest("id", "note_long"); !slices.Equal(got, []string{"1|7"}) {
		t.Fatalf("latest holds %q", got)
	}
	if i := b.snapshot("latest").Metadata().Schema.Field("note"); i >= 0 {
		t.Fatal("latest still has the column before")
	}
	// And back: the first one is of use again.
	b.table = keyed()
	b.copy("three", 30, "1|1|again|x")
	b.catchUp()
	b.wantLatest("1|1|again|x")
}

func TestACastBeforeAnyRowKeepsTheColumnsName(t *testing.T) {
	b := newBench(t, keyed())
	m, err := b.lake.Mirror(b.ctx, b.table, MirrorOptions{Casts: map[string]string{"part": "string"}})
	if err != nil {
		t.Fatal(err)
	}
	b.mirror = m
	b.copy("one", 10, "1|1|a|x")
	b.catchUp()
	i := b.snapshot("latest").Metadata().Schema.Field("part")
	if i < 0 || b.snapshot("latest").Metadata().Schema.Fields[i].Type.Kind != schema.String {
		t.Fatalf("%+v", b.snapshot("latest").Metadata().Schema.Fields)
	}
	b.wantLatest("1|1|a|x")
}

func TestATableMadeAgainGetsAnIncarnationOfItsOwn(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|x")
	b.catchUp()
	b.table = kinds[1].table(20000) // another OID, and another key
	b.table.Columns[3].Type = change.Type{OID: 17, Name: "bytea", Kind: "b", Mod: -1}
	b.table.Fingerprint = b.table.ComputeFingerprint()
	b.mirror = b.handle(b.table)
	if s := b.mirror.State(); s.Phase != Waiting || s.OID != 16384 {
		t.Fatalf("%+v", s)
	}
	if done := b.commit(20, `c 1|1|new|\xff`); done.Latest {
		t.Fatal("a change of the table made again reached the rows of the one before")
	}
	b.wantLatest("1|1|a|x")
	b.beginCopy("two", 30)
	b.commit(40, `c 1|2|new|\xaa`)
	b.endCopy("two", `1|1|new|\xff`)
	b.catchUp()
	if got := b.latest("id", "part", "note"); !slices.Equal(got, []string{"1|1|new", "1|2|new"}) {
		t.Fatalf("latest holds %q", got)
	}
	if s := b.mirror.State(); s.Phase != Live || s.OID != 20000 || s.Incarnation != 2 {
		t.Fatalf("%+v", s)
	}
}

func TestANewEpochGoesOnAfterTheOneBefore(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|x")
	b.catchUp()
	b.commit(500, "c 2|1|a|x")
	if _, err := b.mirror.BeginCopy(b.ctx, Copy{ID: "two", Table: b.table, Cut: 100, Epoch: 2, Chunks: 2}); err != nil {
		t.Fatal(err)
	}
	events := b.events(120, "c 3|1|a|x")
	events[0].Epoch = 2
	late := b.events(600, "c 9|1|late|x")
	if _, err := b.mirror.Commit(b.ctx, b.batch(b.mirror, events...), change.Position{}); err != nil {
		t.Fatal(err)
	}
	// What is left of the epoch before is passed over.
	if done, err := b.mirror.Commit(b.ctx, b.batch(b.mirror, late...), change.Position{}); err != nil || done.Rows != 0 {
		t.Fatal(done, err)
	}
	b.endCopy("two", "7|1|a|x")
	b.catchUp()
	b.wantLatest("3|1|a|x", "7|1|a|x")
	if v, ok := b.snapshot("history").Txn("shop/public.orders/e2"); !ok || v != 120 {
		t.Fatal(v, ok)
	}
}

func TestCompareFindsARowThatWasAltered(t *testing.T) {
	for _, k := range kinds[:4] {
		t.Run(k.name, func(t *testing.T) {
			b := newBench(t, k.table(16384))
			content := func(rows ...string) *Rows {
				r, err := b.lake.SourceRows(b.ctx, b.mirror, t.TempDir(), func(yield func(*change.Tuple) error) error {
					for _, s := range rows {
						row := cells(s)
						if err := yield(&row); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = r.Close() })
				return r
			}
			a := content("1|1|a|x", "2|1|a|x", "3|1|~|x", "4|1|a|x")
			if d, err := Compare(b.ctx, a, content("4|1|a|x", "2|1|a|x", "1|1|a|x", "3|1|~|x"), 10); err != nil || !d.Equal {
				t.Fatalf("in another order: %+v %v", d, err)
			}
			d, err := Compare(b.ctx, a, content("1|1|a|x", "2|1|A|x", "3|1||x", "5|1|a|x"), 10)
			if err != nil || d.Equal {
				t.Fatalf("%+v %v", d, err)
			}
			if len(k.key) == 0 {
				if d.Missing != 3 || d.Extra != 3 || len(d.Keys) != 6 {
					t.Fatalf("%+v", d)
				}
				return
			}
			if d.Missing != 1 || d.Extra != 1 || d.Changed != 2 || len(d.Keys) != 4 {
				t.Fatalf("%+v", d)
			}
			if !slices.ContainsFunc(d.Keys, func(s string) bool { return strings.HasPrefix(s, "changed id=2") }) {
				t.Fatalf("%q", d.Keys)
			}
			if d, _ := Compare(b.ctx, a, content("1|1|a|x", "1|1|a|x", "2|1|a|x", "3|1|~|x", "4|1|a|x"), 1); d.Equal || d.Extra != 1 || len(d.Keys) != 1 {
				t.Fatalf("a row that is there twice: %+v", d)
			}
		})
	}
}

func TestARowAlteredInTheLakeIsFound(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|x", "2|1|b|y")
	b.catchUp()
	// Somebody else rewrites a row.
	latest := b.mirror.latest.Load()
	up, err := deltalog.OpenUpserter(b.ctx, latest.Table, t.TempDir(), deltalog.UpserterOptions{Keys: []string{"id"}})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	rows := b.batch(b.mirror, b.events(10, "c 2|1|B|y")...).Columns()
	net, err := batch.Fold(rows, []string{"id"}, false, []string{"id", "part", "note", "big"}, change.Position{})
	if err != nil {
		t.Fatal(err)
	}
	u := up.Begin()
	if err := u.Put(b.ctx, (&upsert{columns: latest.Snapshot().Metadata().Schema.Fields}).project(rows), [][]byte{net.Upserts[0].Key}); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Commit(b.ctx, deltalog.CommitExtras{Operation: "VANDALISM"}); err != nil {
		t.Fatal(err)
	}
	got, at, err := b.mirror.LatestRows(b.ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	want, err := b.lake.Rebuild(b.ctx, b.mirror, After(at), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	if d, err := Compare(b.ctx, want, got, 10); err != nil || d.Equal || !slices.Equal(d.Keys, []string{"changed id=2"}) {
		t.Fatalf("%+v %v", d, err)
	}
}

func TestStreamCopyAndCatchUpRunSideBySide(t *testing.T) {
	b := newBench(t, keyed())
	const transactions, cut = 60, 1000
	b.beginCopy("one", cut)
	var g sync.WaitGroup
	g.Go(func() {
		m := b.handle(b.table)
		defer m.Close()
		for i := range transactions {
			events := b.events(change.LSN(cut+i), fmt.Sprintf("c %d|1|streamed|x", 10_000+i))
			if _, err := m.Commit(b.ctx, b.batch(m, events...), change.Position{}); err != nil {
				t.Errorf("commit %d: %v", i, err)
				return
			}
		}
	})
	g.Go(func() {
		var chunks sync.WaitGroup
		for chunk := range 2 {
			chunks.Go(func() {
				m := b.handle(b.table)
				defer m.Close()
				_, _, err := m.WriteChunk(b.ctx, "one", chunk, func(yield func(*change.Tuple) error) error {
					for i := range 50 {
						row := cells(fmt.Sprintf("%d|1|copied|x", 100*chunk+i))
						if err := yield(&row); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Errorf("chunk %d: %v", chunk, err)
				}
			})
		}
		chunks.Wait()
		m := b.handle(b.table)
		defer m.Close()
		if err := m.FinishCopy(b.ctx, "one"); err != nil {
			t.Errorf("finish: %v", err)
			return
		}
		for done := false; !done; {
			var err error
			if done, err = m.CatchUp(b.ctx, 5); err != nil {
				t.Errorf("catch up: %v", err)
				return
			}
		}
	})
	g.Wait()
	if got := b.latest(); len(got) != transactions+100 {
		t.Fatalf("latest holds %d rows", len(got))
	}
	if err := b.mirror.Refresh(b.ctx); err != nil {
		t.Fatal(err)
	}
	if b.mirror.State().Phase != Live || b.mirror.LatestApplied() != b.mirror.Applied() {
		t.Fatalf("%+v: latest at %s, history at %s", b.mirror.State(), b.mirror.LatestApplied(), b.mirror.Applied())
	}
}

func TestFewKeyIndexesAreOpenAtOnce(t *testing.T) {
	b := newBench(t, keyed())
	_ = b.lake.Close()
	b.open(Config{OpenIndexes: 2})
	var mirrors []*Mirror
	for i := range 5 {
		b.table = keyed()
		b.table.Name, b.table.OID = fmt.Sprint("t", i), uint32(100+i)
		b.table.Fingerprint = b.table.ComputeFingerprint()
		b.mirror = b.handle(b.table)
		b.copy("one", 10, "1|1|a|x")
		b.catchUp()
		mirrors = append(mirrors, b.mirror)
	}
	open := func() (n int) {
		for _, m := range mirrors {
			m.applying.Lock()
			if m.index != nil {
				n++
			}
			m.applying.Unlock()
		}
		return n
	}
	if n := open(); n != 2 {
		t.Fatalf("%d indexes are open", n)
	}
	for _, m := range mirrors {
		b.mirror, b.table = m, m.shape
		b.commit(20, "c 2|1|a|x")
	}
	if n := open(); n != 2 {
		t.Fatalf("%d indexes are open", n)
	}
	for _, m := range mirrors {
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := open(); n != 0 {
		t.Fatalf("%d indexes are open", n)
	}
}

func TestALakeThatCannotBeWrittenIsRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), Config{Root: filepath.Join(file, "lake"), IndexDir: dir, Database: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Probe(t.Context()); !errors.Is(err, ErrUnwritable) {
		t.Fatalf("%v", err)
	}
	if l, err = open(Config{IndexDir: dir, Database: "shop"}, overwriting{store.NewMemory()}); err != nil {
		t.Fatal(err)
	}
	if err := l.Probe(t.Context()); !errors.Is(err, ErrUnwritable) || !errors.Is(err, store.ErrUnconditional) {
		t.Fatalf("a store that overwrites: %v", err)
	}
	for _, root := range []string{"gs://bucket/lake", "s3://", "s3://bucket/a//b"} {
		if _, err := Open(t.Context(), Config{Root: root, IndexDir: dir, Database: "shop"}); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", root, err)
		}
	}
	if _, err := Open(t.Context(), Config{Root: dir}); err == nil {
		t.Fatal("opened without a database")
	}
}

// overwriting is a store that ignores that a name is taken.
type overwriting struct{ store.Store }

func (o overwriting) PutIfAbsent(ctx context.Context, name string, b []byte) error {
	return o.Put(ctx, name, b)
}

func TestCheckpointsAreWrittenWhenDue(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|x")
	b.catchUp()
	for i := range 120 {
		b.commit(change.LSN(20+i), fmt.Sprintf("u 1|1|%d|^", i))
		b.maintain()
		if i >= 80 && i < 110 {
			b.reopen() // also where the newest version has a checkpoint
		}
	}
	for _, name := range []string{"history", "latest"} {
		found, err := filepath.Glob(filepath.Join(b.root, "lake", "shop", "public", "orders", name, "_delta_log", "*.checkpoint.parquet"))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s has no checkpoint: %v", name, err)
		}
	}
	b.reopen()
	b.wantLatest("1|1|119|x")
}

func TestHistoryThatDoesNotFollowFromItselfIsNoProof(t *testing.T) {
	for name, second := range map[string]string{
		"inserted twice": "c 1|1|a|x", "deleted without being there": "d 2|~|~|~", "updated without being there": "u 2|1|a|^",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, keyed())
			b.copy("one", 10, "1|1|a|x")
			var done Committed
			if _, err := b.mirror.commitHistory(b.ctx, b.batch(b.mirror, b.events(20, second)...), change.Position{}, &done); err != nil {
				t.Fatal(err)
			}
			if _, err := b.lake.Rebuild(b.ctx, b.mirror, After(b.mirror.Applied()), t.TempDir()); !errors.Is(err, ErrDisorder) {
				t.Fatalf("%v", err)
			}
		})
	}
}

func TestACopySurvivesACheckpointOfTheLog(t *testing.T) {
	b := newBench(t, keyed())
	b.beginCopy("one", 10)
	_, _, err := b.mirror.WriteChunk(b.ctx, "one", 0, func(yield func(*change.Tuple) error) error {
		row := cells("1|1|a|x")
		return yield(&row)
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 120 {
		b.commit(change.LSN(20+i), fmt.Sprintf("u 1|1|%d|^", i))
	}
	b.reopen()
	b.endCopy("one", "1|1|a|x")
	b.catchUp()
	b.wantLatest("1|1|119|x")
}

func TestRowsWithoutKeyAreToldApartByColumnsAddedSince(t *testing.T) {
	k := kinds[3]
	b := newBench(t, k.table(16384))
	b.copy("one", 10, "1|1|a|x", "1|1|a|x")
	b.catchUp()
	b.commit(15, "d 1|1|a|x")
	b.table = k.table(16384, "extra")
	all := []string{"p", "q", "~"}
	b.commit(20, "c 1|1|a|x|p", "c 1|1|a|x|q")
	for i, gone := range []string{"p", "~", "q", "~", "p"} {
		b.commit(change.LSN(30+10*i), "d 1|1|a|x|"+gone)
		want := slices.DeleteFunc(slices.Clone(all), func(v string) bool { return v == gone })
		if got := b.latest("extra"); !slices.Equal(got, want) {
			t.Fatalf("latest holds %q, want %q", got, want)
		}
		b.commit(change.LSN(35+10*i), "c 1|1|a|x|"+gone)
	}
}

func TestCatchingUpInPiecesIsNotLiveBeforeTheLast(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|x")
	for i := range 5 {
		b.commit(change.LSN(20+i), fmt.Sprintf("u 1|1|%d|^", i))
	}
	for i := range 4 {
		done, err := b.mirror.CatchUp(b.ctx, 1)
		if err != nil || done {
			t.Fatal(done, err)
		}
		if got := b.mirror.LatestApplied().CommitLSN; got != change.LSN(20+i) {
			t.Fatalf("latest is at %s", got)
		}
		if s := b.mirror.State(); s.Phase != CatchingUp {
			t.Fatalf("%+v", s)
		}
		b.wantLatest(fmt.Sprintf("1|1|%d|x", i))
	}
	b.catchUp()
	if s := b.mirror.State(); s.Phase != Live {
		t.Fatalf("%+v", s)
	}
}

func TestBothRowsOfAChangedIdentityAreReadBackTogether(t *testing.T) {
	b := newBench(t, keyed())
	var rows []string
	for i := range 200 {
		rows = append(rows, fmt.Sprintf("%d|1|a|large %d", i, i))
	}
	b.copy("one", 10, rows...)
	b.catchUp()
	events := b.events(20)
	for i := range 200 {
		ev := b.events(20, fmt.Sprintf("u %d|1|moved|^", 1000+i))[0]
		ev.Ordinal, ev.Old = uint64(i+1), cells(fmt.Sprintf("%d|~|~|~", i))
		events = append(events, ev)
	}
	// An odd number of rows before them puts some pair astride any batch.
	events = append(b.events(15, "u 0|1|first|^"), events...)
	if err := b.mirror.Stage(b.ctx, b.batch(b.mirror, events...)); err != nil {
		t.Fatal(err)
	}
	b.lake.readRows = 10
	if _, err := b.mirror.Commit(b.ctx, nil, change.Position{}); err != nil {
		t.Fatal(err)
	}
	got := b.latest()
	if len(got) != 200 {
		t.Fatalf("latest holds %d rows", len(got))
	}
	for i, row := range got {
		if want := fmt.Sprintf("%d|1|moved|large %d", 1000+i, i); row != want {
			t.Fatalf("latest holds %q, want %q", row, want)
		}
	}
}

func TestChangesFromBeforeACopyKeepTheirShape(t *testing.T) {
	number := func(t *change.Table) { t.Columns[2].Type = change.Type{OID: 20, Name: "int8", Kind: "b", Mod: -1} }
	tests := map[string]struct {
		alter  func(*change.Table)
		fenced bool // where the column was of no use yet, its name is another's now
	}{
		"another type":             {alter: number},
		"another type, and no row": {alter: number, fenced: true},
		"renamed":                  {alter: func(t *change.Table) { t.Columns[2].Name = "remark" }},
		"made again":               {alter: func(t *change.Table) { t.Columns[2].Attr = 9 }},
		"another key":              {alter: func(t *change.Table) { t.Key = []int{0, 1} }},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, keyed())
			if !c.fenced {
				b.copy("one", 10, "1|1|7|x")
				b.catchUp()
			}
			before := b.events(20, "c 2|1|8|x")
			pending := b.batch(b.mirror, before...)
			now := keyed()
			c.alter(now)
			now.Fingerprint = now.ComputeFingerprint()
			other := b.handle(now)
			if _, err := other.BeginCopy(b.ctx, Copy{ID: "two", Table: now, Cut: 30, Epoch: 1, Chunks: 2}); err != nil {
				t.Fatal(err)
			}
			_, err := b.mirror.Commit(b.ctx, pending, change.Position{})
			if errors.Is(err, ErrFenced) != c.fenced || !c.fenced && err != nil {
				t.Fatalf("commit of what was pending: %v", err)
			}
			// The stream begins again, with shapes from before the copy.
			if err := b.mirror.Refresh(b.ctx); err != nil {
				t.Fatal(err)
			}
			if err := b.mirror.Evolve(b.ctx, b.table); err != nil {
				t.Fatal(err)
			}
			for _, lsn := range []change.LSN{20, 25} {
				b.commit(lsn, fmt.Sprintf("c %d|1|9|x", lsn))
			}
			// At the cut or after it, they cannot be.
			late := b.batch(b.mirror, b.events(35, "c 9|1|9|x")...)
			if _, err := b.mirror.Commit(b.ctx, late, change.Position{}); !errors.Is(err, ErrSchemaIncompatible) {
				t.Fatalf("commit after the cut: %v", err)
			}
			b.table, b.mirror = now, other
			if err := b.mirror.Refresh(b.ctx); err != nil {
				t.Fatal(err)
			}
			b.commit(40, "c 4|1|10|x")
			b.endCopy("two", "1|1|7|x", "2|1|8|x")
			b.catchUp()
			rebuilt, err := b.lake.Rebuild(b.ctx, b.mirror, After(b.mirror.Applied()), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer rebuilt.Close()
			latest, _, err := b.mirror.LatestRows(b.ctx, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer latest.Close()
			if d, err := Compare(b.ctx, rebuilt, latest, 10); err != nil || !d.Equal || latest.Count() != 3 {
				t.Fatal(d, err)
			}
		})
	}
}

func TestRebuildEndsBeforeThePositionItIsGiven(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|x")
	b.commit(20, "c 2|1|a|x", "c 3|1|a|x", "d 1|~|~|~")
	for ordinal, want := range map[uint64]int64{0: 1, 1: 1, 2: 2, 3: 3, 4: 2} {
		rows, err := b.lake.Rebuild(b.ctx, b.mirror, change.Position{Epoch: 1, CommitLSN: 20, Ordinal: ordinal}, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if rows.Count() != want {
			t.Errorf("before change %d: %d rows, want %d", ordinal, rows.Count(), want)
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLatestIsNotChangedTwiceByTwoWorkers(t *testing.T) {
	ctx, memory := context.Background(), store.NewMemory()
	b := &bench{t: t, ctx: ctx, table: kinds[3].table(16384)}
	var meanwhile func()
	worker := func(faulty bool) *Mirror {
		var st store.Store = memory
		if faulty {
			st = &storetest.Faulty{Store: memory, Before: func(op storetest.Op, object string) error {
				// Latest alone is written with vectors or replaced by such commits.
				if do := meanwhile; do != nil && op == storetest.PutIfAbsent && strings.HasPrefix(object, "_delta_log/") {
					meanwhile = nil
					do()
				}
				return nil
			}}
		}
		l, err := open(Config{IndexDir: t.TempDir(), Database: "shop"}, st)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		b.lake = l
		return b.handle(b.table)
	}
	lane, other := worker(true), worker(false)
	b.mirror = lane
	b.copy("one", 10, "1|1|a|x")
	b.catchUp()
	if err := other.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	// History first, then latest, while another worker does the same to latest.
	var done Committed
	r, err := lane.commitHistory(ctx, b.batch(lane, b.events(20, "c 2|1|a|x", "d 1|1|a|x", "c 1|1|a|x")...), change.Position{}, &done)
	if err != nil {
		t.Fatal(err)
	}
	meanwhile = func() {
		if done, err := other.CatchUp(ctx, 100); err != nil || !done {
			t.Error(done, err)
		}
	}
	if err := lane.follow(ctx, r, &done); err != nil {
		t.Fatal(err)
	}
	if meanwhile != nil {
		t.Fatal("nothing came between")
	}
	rows, _, err := lane.LatestRows(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	if rows.Count() != 2 {
		t.Fatalf("latest holds %d rows", rows.Count())
	}
}

func TestAnUpdateNeverFillsInWhatIsNotThere(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|x")
	b.catchUp()
	_, err := b.mirror.Commit(b.ctx, b.batch(b.mirror, b.events(20, "u 5|1|a|^")...), change.Position{})
	if !errors.Is(err, ErrRowNotFound) {
		t.Fatalf("an unchanged value of a row that is not there: %v", err)
	}
	b.wantLatest("1|1|a|x")
}
