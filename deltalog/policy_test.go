package deltalog

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

// readCost is what it takes to open a table and to read all of it.
type readCost struct {
	files int   // data files and vectors that were opened
	bytes int64 // of those
	log   int64 // bytes of the log
}

func costOfReading(t *testing.T, memory *store.Memory) (c readCost, rows int) {
	t.Helper()
	var mu sync.Mutex // commits are read side by side
	st := &storetest.Faulty{Store: memory, Before: func(op storetest.Op, name string) error {
		mu.Lock()
		defer mu.Unlock()
		if op == storetest.OpenRange || op == storetest.Get {
			r, n, err := memory.OpenRange(context.Background(), name)
			if err != nil {
				return nil
			}
			_ = r.Close()
			if strings.HasPrefix(name, logDir) {
				c.log += n
			} else {
				c.files, c.bytes = c.files+1, c.bytes+n
			}
		}
		return nil
	}}
	for b, err := range mustOpen(t, st).Snapshot().Read(t.Context(), ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		rows += b.Rows()
	}
	return c, rows
}

// timeToRead returns how long it takes to open each table and to read all of it:
// the best of ten turns, so that what else the machine does counts little.
func timeToRead(t *testing.T, stores ...store.Store) []time.Duration {
	t.Helper()
	best := make([]time.Duration, len(stores))
	for turn := range 10 {
		for i, st := range stores {
			start := time.Now()
			for _, err := range mustOpen(t, st).Snapshot().Read(t.Context(), ReadOptions{}) {
				if err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(start); turn == 0 || took < best[i] {
				best[i] = took
			}
		}
	}
	return best
}

// TestSteadyWritesStayFastToRead commits 10,000 times, a few rows each, and
// compares what it costs to read the table with what it costs once it has been
// compacted anew.
func TestSteadyWritesStayFastToRead(t *testing.T) {
	commits := 10_000
	if testing.Short() {
		commits = 1000
	}
	const target = 32 << 10
	o := MaintainOptions{Compact: CompactOptions{TargetBytes: target}}
	memory := store.NewMemory()
	table := newTestTable(t, memory)
	u, err := OpenUpserter(t.Context(), table, "index", UpserterOptions{Keys: []string{"id"}, fs: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	compactions := 0
	for i := range commits {
		var rows []person
		for n := range 12 {
			rows = append(rows, someone(12*i+n))
		}
		for n := range 3 { // and some that were there before
			rows = append(rows, someone((7919*i+n*31)%(12*i+1)))
		}
		mustUpsert(t, u, rows)
		done, err := table.Maintain(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if done.Compact {
			compactions++
		}
		s := table.Snapshot()
		var live int64
		for f := range s.Files() {
			live += liveBytes(f)
		}
		ideal := int((live + target - 1) / target)
		if n := s.NumFiles(); n > max(2*ideal, ideal+compactFiles) {
			t.Fatalf("after %d commits there are %d files, %d would do", i+1, n, ideal)
		}
	}
	fresh := memory.Clone()
	again := mustOpen(t, fresh)
	all := slices.Collect(again.Snapshot().Files())
	run, err := again.rewriteFiles(t.Context(), again.Snapshot(), all, rewriteOptions{cut: target})
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, again, &Commit{Operation: "OPTIMIZE", Remove: all, Add: run.outputs, Rearrange: true})
	if err := again.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	was, rows := costOfReading(t, memory)
	best, rows2 := costOfReading(t, fresh)
	t.Logf("%d compactions; %+v of a table of %d files, %+v once compacted to %d", compactions, was, table.Snapshot().NumFiles(), best, again.Snapshot().NumFiles())
	took := timeToRead(t, memory, fresh)
	t.Logf("read in %v, in %v once compacted", took[0], took[1])
	if took[0] > 2*took[1] && !testing.Short() { // a few files more than needed weigh much in a small table
		t.Errorf("it takes %v to read, %v once compacted", took[0], took[1])
	}
	if rows != rows2 || rows == 0 {
		t.Fatalf("read %d rows, %d once compacted", rows, rows2)
	}
	// What the log has after its checkpoint does not grow with the table.
	tail := int64(checkpointCommits * 4096)
	if was.bytes > 2*best.bytes || was.files > 2*best.files+2*compactFiles || was.log > 2*best.log+tail {
		t.Errorf("%+v are read, %+v once compacted", was, best)
	}
}

func TestUpkeepIsDueInTime(t *testing.T) {
	memory := store.NewMemory()
	table, u := newUpserter(t, memory, UpserterOptions{Keys: []string{"id"}})
	later(table, 0)
	if due := table.Due(MaintainOptions{}); due != (Upkeep{Vacuum: true, CleanLog: true}) {
		t.Fatalf("due is %+v", due)
	}
	done, err := table.Maintain(t.Context(), MaintainOptions{})
	if err != nil || done != (Upkeep{Vacuum: true, CleanLog: true}) {
		t.Fatalf("did %+v, %v", done, err)
	}
	want := people{}
	for i := range 17 {
		mustUpsert(t, u, []person{someone(i)})
		want[someone(i)]++
		if due := table.Due(MaintainOptions{}); due.Any() {
			t.Fatalf("after %d files %+v is due", i+1, due)
		}
	}
	mustUpsert(t, u, []person{someone(17)})
	want[someone(17)]++
	if due := table.Due(MaintainOptions{}); due != (Upkeep{Compact: true}) {
		t.Fatalf("due is %+v", due)
	}
	if done, err := table.Maintain(t.Context(), MaintainOptions{}); err != nil || done != (Upkeep{Compact: true}) {
		t.Fatalf("did %+v, %v", done, err)
	}
	if n := checkPeople(t, memory, want).NumFiles(); n != 1 {
		t.Fatalf("there are %d files", n)
	}
	mustUpsert(t, u, nil, 1, 2, 3, 4, 5, 6)
	if due := table.Due(MaintainOptions{}); due != (Upkeep{Compact: true}) {
		t.Fatalf("of a table a third of whose rows are dead, due is %+v", due)
	}
	later(table, 25*time.Hour)
	if due := table.Due(MaintainOptions{KeepLog: true}); due != (Upkeep{Compact: true, Vacuum: true}) {
		t.Fatalf("a day later, due is %+v", due)
	}
}

// TestMaintenanceBesideWriters has a writer and maintenance race on one table.
func TestMaintenanceBesideWriters(t *testing.T) {
	memory := store.NewMemory()
	newTestTable(t, memory)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		done <- func() error {
			table, err := Open(ctx, memory)
			if err != nil {
				return err
			}
			for ctx.Err() == nil {
				if _, err := table.Refresh(t.Context()); err != nil {
					return err
				}
				if _, err := table.Maintain(t.Context(), MaintainOptions{Compact: CompactOptions{TargetBytes: 20 << 10}}); err != nil {
					return err
				}
				if _, err := table.Compact(t.Context(), CompactOptions{TargetBytes: 10 << 10}); err != nil {
					return err
				}
			}
			return nil
		}()
	}()
	u, err := OpenUpserter(t.Context(), mustOpen(t, memory), "index", UpserterOptions{Keys: []string{"id"}, fs: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	want := people{}
	for i := range 150 {
		r := person{int64(i * i % 97), someone(i).name}
		mustUpsert(t, u, []person{r, someone(i + 100)}, int64(i))
		for _, r := range []person{r, someone(i + 100)} {
			want.put(r, false)
		}
		want.drop(int64(i))
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got, err := readPeople(mustOpen(t, memory).Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Fatal("the table is another")
	}
	if found, err := Fsck(t.Context(), memory, FsckOptions{}); err != nil || countLive(found) > 0 {
		t.Fatalf("found %v, %v", found, err)
	}
	if _, err := u.t.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found, err := u.Fsck(t.Context()); err != nil || len(found) > 0 {
		t.Fatalf("found %v, %v", found, err)
	}
}

// countLive counts findings but for files that are nobody's.
func countLive(found []Finding) (n int) {
	for _, f := range found {
		if f.Remedy != vacuumIt {
			n++
		}
	}
	return n
}
