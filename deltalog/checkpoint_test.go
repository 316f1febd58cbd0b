package deltalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

func TestCheckpointIsDueAfterAHundredCommits(t *testing.T) {
	for _, c := range []struct {
		interval string
		want     Version
	}{{"", 100}, {"10", 10}, {"nonsense", 100}} {
		st, ops := counted(store.NewMemory())
		table := newTestTable(t, st)
		if c.interval != "" {
			othersSet(table, PropertyCheckpointInterval, c.interval)
		}
		for range 2 {
			before := table.Snapshot().base.version
			for !table.CheckpointDue() {
				mustCommit(t, table, &Commit{Operation: "WRITE"})
			}
			if n := table.Snapshot().Version() - before; n != c.want {
				t.Fatalf("interval %q: due after %d commits, want %d", c.interval, n, c.want)
			}
			clear(ops)
			if err := table.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			if table.CheckpointDue() {
				t.Fatal("due again at once")
			}
			if ops[storetest.List] > 0 || ops[storetest.Create] != 1 || ops[storetest.Put] != 1 {
				t.Fatalf("a checkpoint took %v", ops)
			}
		}
	}
}

func TestCheckpointIsDueAfterLargeCommits(t *testing.T) {
	table := newTestTable(t, store.NewMemory())
	large := strings.Repeat("x", checkpointLogBytes/checkpointFewest+1)
	for range checkpointFewest {
		if table.CheckpointDue() {
			t.Fatalf("due after %d commits", table.Snapshot().Version())
		}
		mustCommit(t, table, &Commit{Operation: "WRITE", Domains: []Domain{{Name: "d", Configuration: large}}})
	}
	if !table.CheckpointDue() {
		t.Fatal("not due")
	}
}

// tombstonesOf reads the removed files in a checkpoint.
func tombstonesOf(t *testing.T, st store.Store, v Version) []string {
	t.Helper()
	var got []string
	err := readTombstones(t.Context(), st, checkpointRef{version: v}, func(r tombstone) error {
		got = append(got, strings.TrimSuffix(r.file.Path+"/"+r.file.Vector.uniqueID(), "/"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	return got
}

func TestCheckpointsRememberRemovedFilesForTheirTime(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	clock := time.Now()
	table.now = func() time.Time { return clock }
	checkpoint := func(want ...string) {
		t.Helper()
		mustCommit(t, table, &Commit{Operation: "WRITE"})
		if err := table.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := tombstonesOf(t, st, table.Snapshot().Version()); !slices.Equal(got, want) {
			t.Fatalf("version %d remembers %q, want %q", table.Snapshot().Version(), got, want)
		}
	}
	a, b, c := fakeFile("a", 5), fakeFile("b", 5), fakeFile("c", 5)
	mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{a, b, c}})
	checkpoint()
	a1 := a.WithVector(fakeVector("v1", 1))
	mustCommit(t, table, &Commit{Operation: "MERGE", Remove: []*File{a, b}, Add: []*File{a1}})
	checkpoint("a", "b")
	clock = clock.Add(4 * 24 * time.Hour)
	table = mustOpen(t, st) // forgets nothing
	table.now = func() time.Time { return clock }
	a2 := a.WithVector(fakeVector("v2", 2))
	mustCommit(t, table, &Commit{Operation: "MERGE", Remove: []*File{a1, c}, Add: []*File{a2}})
	mustCommit(t, table, &Commit{Operation: "RESTORE", Add: []*File{b}}) // b lives again
	checkpoint("a", "a/uv1@1", "c")
	mustCommit(t, table, &Commit{Operation: "WRITE", Remove: []*File{b}})
	checkpoint("a", "a/uv1@1", "b", "c")
	clock = clock.Add(4 * 24 * time.Hour)
	checkpoint("a/uv1@1", "b", "c") // a and the first removal of b are past their week
	clock = clock.Add(4 * 24 * time.Hour)
	checkpoint()
	if got, want := describe(mustOpen(t, st).Snapshot()), describe(table.Snapshot()); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
}

func TestCheckpointOfAnotherWriterIsSuccess(t *testing.T) {
	st := store.NewMemory()
	ours := newTestTable(t, st)
	mustCommit(t, ours, &Commit{Operation: "WRITE", Add: []*File{fakeFile("a", 1)}})
	if err := mustOpen(t, st).Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ours.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ours.Snapshot().base.version != 1 {
		t.Fatalf("the newest checkpoint known is %d", ours.Snapshot().base.version)
	}
}

func TestHintNeverGoesBack(t *testing.T) {
	st := store.NewMemory()
	slow := newTestTable(t, st)
	fast := mustOpen(t, st)
	for range 3 {
		mustCommit(t, fast, &Commit{Operation: "WRITE"})
	}
	if err := fast.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := slow.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v, ok := readHint(t.Context(), st); !ok || v != 3 {
		t.Fatalf("the hint names %d", v)
	}
}

func TestFailedCheckpointHarmsNothing(t *testing.T) {
	for _, op := range []storetest.Op{storetest.Create, storetest.Commit, storetest.OpenRange, storetest.Put} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprint(op, " after ", after), func(t *testing.T) {
				st := store.NewMemory()
				fault := func(o storetest.Op, name string) error {
					if o == op && strings.HasPrefix(name, logDir) {
						return errLostReply
					}
					return nil
				}
				faulty := &storetest.Faulty{Store: st, Before: fault}
				if after {
					faulty = &storetest.Faulty{Store: st, After: fault}
				}
				newTestTable(t, st)
				table := mustOpen(t, faulty)
				mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{fakeFile("a", 1)}})
				if err := table.Checkpoint(t.Context()); !errors.Is(err, errLostReply) && !(op == storetest.Create && after) {
					t.Fatalf("got %v", err)
				}
				mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{fakeFile("b", 1)}})
				fresh := mustOpen(t, st)
				if got, want := describe(fresh.Snapshot()), describe(table.Snapshot()); got != want {
					t.Fatalf("got\n%s\nwant\n%s", got, want)
				}
				if err := fresh.Checkpoint(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestOpeningReadsTheCheckpointAndWhatFollows(t *testing.T) {
	mem := store.NewMemory()
	table := newTestTable(t, mem)
	for i := range 30 {
		mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{fakeFile(fmt.Sprint("f", i), 1)}})
		if i == 26 {
			if err := table.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	st := &storetest.Faulty{Store: mem, Before: func(op storetest.Op, name string) error {
		if f, ok := parseLogName(name); ok && f.commit && f.version < 27 {
			return fmt.Errorf("%s of version %d", op, f.version)
		}
		return nil
	}}
	if s := mustOpen(t, st).Snapshot(); s.NumFiles() != 30 {
		t.Fatalf("%d files", s.NumFiles())
	}
}

func TestCheckpointsOfManyPartsCountWhenComplete(t *testing.T) {
	st := store.NewMemory()
	put := func(name string) {
		if err := st.PutIfAbsent(t.Context(), logDir+name, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{
		"00000000000000000004.checkpoint.0000000001.0000000002.parquet",
		"00000000000000000004.checkpoint.0000000001.0000000003.parquet",
		"00000000000000000004.checkpoint.0000000002.0000000002.parquet",
		"00000000000000000004.checkpoint.0000000003.0000000003.parquet",
		"00000000000000000007.checkpoint.0000000001.0000000001.parquet",
		"00000000000000000008.checkpoint.parquet",
		"00000000000000000009.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.parquet",
		"00000000000000000009.00000000000000000011.compacted.json",
		"00000000000000000010.json",
		"00000000000000000010.crc",
		"00000000000000000011.json.tmp",
		"0000000000000000012.json",
		"000000000000000000-3.json",
		"0000000000000000000x.json",
		"_staged_commits/00000000000000000013.json",
	} {
		put(name)
	}
	l, err := listLog(t.Context(), st, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range l.checkpoints {
		got = append(got, fmt.Sprint(c.version, "/", c.parts))
	}
	if !slices.Equal(got, []string{"4/2", "7/1", "8/0", "9/0"}) || l.first != 10 || l.last != 10 {
		t.Fatalf("checkpoints %v, commits from %d to %d", got, l.first, l.last)
	}
}

func TestIntervalsOfProperties(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "interval 1 week": 7 * 24 * time.Hour, "INTERVAL 30 days": 30 * 24 * time.Hour,
		"12 hours 30 minutes": 12*time.Hour + 30*time.Minute, "interval 5 seconds": 5 * time.Second,
	} {
		if got, err := parseInterval(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"interval", "1", "interval 1 month", "interval -1 day", "interval 1.5 days", "interval x days", "interval 9999999999 weeks"} {
		if got, err := parseInterval(text); err == nil && text != "interval" {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestCheckpointStopsWithItsContext(t *testing.T) {
	table := newTestTable(t, store.NewMemory())
	mustCommit(t, table, &Commit{Operation: "WRITE"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := table.Checkpoint(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, files := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprint(files, " files"), func(b *testing.B) {
			table := newTestTable(b, store.NewMemory())
			c := &Commit{Operation: "WRITE"}
			for i := range files {
				c.Add = append(c.Add, fakeFile(fmt.Sprintf("part-%06d-0f0e-4c1d-9b8a-000000000000.parquet", i*7919%files), 100))
			}
			mustCommit(b, table, c)
			old := slices.Collect(table.Snapshot().Files())
			b.ReportAllocs()
			// An upsert that touches ten files.
			for n := 0; b.Loop(); n++ {
				c := &Commit{Operation: "MERGE", Add: []*File{fakeFile(fmt.Sprintf("part-x%d", n), 1)}}
				for i := range 10 {
					k := (n*10 + i) * 31 % len(old)
					f := old[k].WithVector(fakeVector(fmt.Sprint(n), int64(n%90+1)))
					c.Remove, c.Add = append(c.Remove, old[k]), append(c.Add, f)
					old[k] = f
				}
				mustCommit(b, table, c)
				if table.CheckpointDue() {
					b.StopTimer()
					if err := table.Checkpoint(b.Context()); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			}
		})
	}
}

func BenchmarkOpenFromCheckpoint(b *testing.B) {
	st := store.NewMemory()
	table := newTestTable(b, st)
	c := &Commit{Operation: "WRITE"}
	for i := range 100_000 {
		c.Add = append(c.Add, fakeFile(fmt.Sprintf("part-%06d-0f0e-4c1d-9b8a-000000000000.parquet", i), 100))
	}
	mustCommit(b, table, c)
	if err := table.Checkpoint(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		mustOpen(b, st)
	}
}

func TestCheckpointMendsAHintOfOneThatIsNotThere(t *testing.T) {
	for _, policy := range []string{"classic", "v2"} {
		for hint, want := range map[string]Version{
			`{"version":2,"size":1}`: 30, `{"version":35,"size":1}`: 30, `{"version":9223372036854775807,"size":1}`: 30,
			`{"version":31,"size":1}`: 31, // which another writer has made meanwhile
		} {
			memory, table := longLog(t, map[string]string{PropertyCheckpointPolicy: policy})
			other := mustOpen(t, memory)
			mustCommit(t, other, &Commit{Operation: "WRITE", Add: []*File{fakeFile("other", 1)}})
			if err := other.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := memory.Put(t.Context(), hintName, []byte(hint)); err != nil {
				t.Fatal(err)
			}
			if err := table.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			if v, ok := readHint(t.Context(), memory); !ok || v != want {
				t.Errorf("%s: the hint %s is now of %d, want %d", policy, hint, v, want)
			}
		}
	}
}
