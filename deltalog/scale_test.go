package deltalog

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/google/uuid"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

// statistics of a table of some columns, as a writer leaves them.
func manyStats(i int) string {
	return fmt.Sprintf(`{"numRecords":1000,"minValues":{"id":%d,"name":"customer#%09d","at":"2024-01-01T00:00:00.000Z","price":%d.25},`+
		`"maxValues":{"id":%d,"name":"customer#%09d","at":"2024-12-31T23:59:59.999Z","price":%d.75},"nullCount":{"id":0,"name":0,"at":3,"price":17}}`,
		i*1000, i, i, i*1000+999, i+1, i+7)
}

// largeLog makes a log of so many files, in so many commits.
func largeLog(t testing.TB, st store.Store, files, commits int) *Table {
	t.Helper()
	table := newTestTable(t, st)
	n := 0
	for c := range commits {
		var add []*File
		for ; n < files*(c+1)/commits; n++ {
			f := fakeFile("part-00000-"+uuid.NewString()+"-c000.zstd.parquet", 1000)
			f.Stats = manyStats(n)
			add = append(add, f)
		}
		mustCommit(t, table, &Commit{Operation: "WRITE", Add: add})
	}
	return table
}

// liveHeap returns the bytes that are in use after a collection.
func liveHeap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What a table of 300,000 files takes is to stay far below 600 MiB: here a fifth
// of the files is held to a fifth of half of that.
func TestOpenTablesTakeLittleMemory(t *testing.T) {
	const files, limit = 60_000, 60 << 20
	st := store.NewMemory()
	table := largeLog(t, st, files, 200)
	open := func() {
		t.Helper()
		table = nil
		before := liveHeap()
		table = mustOpen(t, st)
		if n := table.Snapshot().NumFiles(); n != files {
			t.Fatalf("%d files", n)
		}
		if n := liveHeap() - before; n > limit {
			t.Fatalf("%d files take %d bytes, want at most %d", files, n, limit)
		}
		runtime.KeepAlive(table)
	}
	open()
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	open()
}

func TestLookingForNewCommitsIsOneRead(t *testing.T) {
	st, ops := counted(store.NewMemory())
	table := newTestTable(t, st)
	mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{fakeFile("a", 1)}})
	reader := mustOpen(t, st)
	clear(ops)
	for range 10 {
		if _, err := reader.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if ops[storetest.Get] != 10 || len(ops) != 1 {
		t.Fatalf("ten looks took %v", ops)
	}
}

// watched notes the live heap while an object is written.
type watched struct {
	store.Store
	most  *int64
	bytes *int64
}

type watchedWriter struct {
	store.Writer
	s      watched
	writes int
}

func (s watched) Create(context.Context, string) (store.Writer, error) {
	return &watchedWriter{s: s}, nil
}

func (w *watchedWriter) Write(b []byte) (int, error) {
	if w.writes++; w.writes%30 == 0 {
		*w.s.most = max(*w.s.most, liveHeap())
	}
	*w.s.bytes += int64(len(b))
	return len(b), nil
}
func (w *watchedWriter) Commit() error { return errKeptNothing }
func (w *watchedWriter) Abort()        {}

var errKeptNothing = errors.New("kept nothing")

func TestCheckpointsAreWrittenInLittleMemory(t *testing.T) {
	for _, policy := range []string{"classic", "v2"} {
		var grown [2]int64
		for i, files := range []int{10_000, 40_000} {
			st := store.NewMemory()
			table := largeLog(t, st, files, 20)
			if _, err := table.SetProperties(t.Context(), map[string]string{PropertyCheckpointPolicy: policy}); err != nil {
				t.Fatal(err)
			}
			var most, bytes int64
			before := liveHeap()
			table.st = watched{st, &most, &bytes}
			if err := table.Checkpoint(t.Context()); !errors.Is(err, errKeptNothing) {
				t.Fatal(err)
			}
			grown[i] = most - before
			t.Logf("%s: %d files, %d bytes written, %d bytes held", policy, files, bytes, grown[i])
			runtime.KeepAlive(table)
		}
		// Four times the files are to take hardly more.
		if grown[1] > 2*max(grown[0], 4<<20) {
			t.Errorf("%s: %d bytes are held for 10,000 files, %d for 40,000", policy, grown[0], grown[1])
		}
	}
}
