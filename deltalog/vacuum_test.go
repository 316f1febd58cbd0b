package deltalog

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

const day = 24 * time.Hour

// later sets the clock of a table on.
func later(table *Table, d time.Duration) { table.now = func() time.Time { return time.Now().Add(d) } }

// objects returns the names of all objects but those of the log.
func objects(t testing.TB, st store.Store) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for info, err := range st.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(info.Name, logDir) {
			names[info.Name] = true
		}
	}
	return names
}

// needs returns the names of the objects that a snapshot needs.
func needs(s *Snapshot) map[string]bool {
	names := map[string]bool{}
	for f := range s.Files() {
		_ = f.objects(s.st, func(name string) { names[name] = true })
	}
	return names
}

func mustVacuum(t testing.TB, table *Table, o VacuumOptions) Vacuumed {
	t.Helper()
	done, err := table.Vacuum(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// usedTable is a table that has been written, changed, compacted and
// checkpointed.
func usedTable(t *testing.T) (*store.Memory, *Table, people) {
	t.Helper()
	memory := store.NewMemory()
	table, want := usedTableIn(t, memory)
	return memory, table, want
}

func usedTableIn(t *testing.T, st store.Store) (*Table, people) {
	t.Helper()
	table, u := newUpserter(t, st, UpserterOptions{Keys: []string{"id"}})
	want := people{}
	for i := range 12 {
		mustUpsert(t, u, []person{someone(i), someone(i + 50)}, int64(i+49))
		want.put(someone(i), false)
		want.put(someone(i+50), false)
		want.drop(int64(i + 49))
		if i == 5 {
			mustCompact(t, table, CompactOptions{})
			if err := table.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	return table, want
}

func TestVacuumLeavesWhatTheTableNeeds(t *testing.T) {
	memory, table, want := usedTable(t)
	if done := mustVacuum(t, table, VacuumOptions{}); len(done.Names) > 0 {
		t.Fatalf("deleted what was removed just now: %v", done.Names)
	}
	later(table, 8*day)
	before := objects(t, memory)
	dry := mustVacuum(t, table, VacuumOptions{DryRun: true})
	if got := objects(t, memory); !maps.Equal(got, before) {
		t.Fatal("a dry run deleted something")
	}
	done := mustVacuum(t, table, VacuumOptions{})
	if !slices.Equal(dry.Names, done.Names) || dry.Bytes != done.Bytes || done.Bytes == 0 {
		t.Fatalf("deleted %v, the dry run said %v", done, dry)
	}
	if got, want := objects(t, memory), needs(table.Snapshot()); !maps.Equal(got, want) {
		t.Fatalf("objects %v are left, want %v", got, want)
	}
	checkPeople(t, memory, want)
	if done := mustVacuum(t, table, VacuumOptions{}); len(done.Names) > 0 {
		t.Fatalf("deleted twice: %v", done.Names)
	}
}

// TestVacuumFindsWhatACheckpointForgot has the newest checkpoint be made when
// what had been removed was no longer to be remembered.
func TestVacuumFindsWhatACheckpointForgot(t *testing.T) {
	memory, table, want := usedTable(t)
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	later(table, 8*day)
	mustCommit(t, table, &Commit{Operation: "WRITE", Txns: []Txn{{AppID: "a", Version: 1}}})
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh := mustOpen(t, memory)
	later(fresh, 8*day)
	mustVacuum(t, fresh, VacuumOptions{})
	if got, want := objects(t, memory), needs(fresh.Snapshot()); !maps.Equal(got, want) {
		t.Fatalf("objects %v are left, want %v", got, want)
	}
	checkPeople(t, memory, want)
}

func TestVacuumKeepsWhatWasRemovedLately(t *testing.T) {
	memory, table, _ := usedTable(t)
	later(table, 4*day)
	old := table.Snapshot()
	mustCommit(t, table, &Commit{Operation: "DELETE", Remove: slices.Collect(old.Files())})
	later(table, 9*day)
	mustVacuum(t, table, VacuumOptions{})
	if got, want := objects(t, memory), needs(old); !maps.Equal(got, want) {
		t.Fatalf("objects %v are left, want %v", got, want)
	}
}

func TestShortRetentionIsRefusedUnlessForced(t *testing.T) {
	_, table, _ := usedTable(t)
	if _, err := table.Vacuum(t.Context(), VacuumOptions{Retention: time.Hour}); !errors.Is(err, ErrInvalid) {
		t.Fatalf("error is %v", err)
	}
	later(table, 2*time.Hour)
	if done := mustVacuum(t, table, VacuumOptions{Retention: time.Hour, Force: true}); len(done.Names) == 0 {
		t.Fatal("deleted nothing")
	}
}

func TestFullVacuumFindsWhatIsNobodys(t *testing.T) {
	memory, table, want := usedTable(t)
	put := func(name string) {
		if err := memory.Put(t.Context(), name, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	put("part-orphan.parquet")
	put("_other/kept")
	put(".hidden/kept")
	put("_col=1/part-orphan.parquet")
	put("_change_data/cdc-old.parquet")
	before := objects(t, memory)
	if done := mustVacuum(t, table, VacuumOptions{Full: true}); len(done.Names) > 0 {
		t.Fatalf("deleted what may be in flight: %v", done.Names)
	}
	later(table, 8*day)
	mustVacuum(t, table, VacuumOptions{})
	if got := objects(t, memory); !got["part-orphan.parquet"] || len(got) == len(before) {
		t.Fatalf("objects %v are left", got)
	}
	mustVacuum(t, table, VacuumOptions{Full: true})
	left := needs(table.Snapshot())
	left["_other/kept"], left[".hidden/kept"] = true, true
	if got := objects(t, memory); !maps.Equal(got, left) {
		t.Fatalf("objects %v are left, want %v", got, left)
	}
	checkPeople(t, memory, want)
}

// TestVacuumKnowsFilesByAbsolutePaths has the log name a data file and a
// vector's file, both of the table, by where they are.
func TestVacuumKnowsFilesByAbsolutePaths(t *testing.T) {
	memory, err := store.NewMemory().Sub("t")
	if err != nil {
		t.Fatal(err)
	}
	table, want := usedTableIn(t, memory)
	holed := firstFile(table.Snapshot(), true)
	vectorName, err := holed.Vector.name()
	if err != nil {
		t.Fatal(err)
	}
	var moved []*File
	for f := range table.Snapshot().Files() {
		g := *f
		g.Path = memory.URI() + "/" + f.Path
		if f == holed {
			v := *f.Vector
			v.StorageType, v.PathOrInline = "p", memory.URI()+"/"+vectorName
			g.Vector = &v
		}
		moved = append(moved, &g)
	}
	log := &commitLog{info: &CommitInfo{Timestamp: 1, InCommitTimestamp: table.Snapshot().info.InCommitTimestamp + 1}, adds: moved}
	for f := range table.Snapshot().Files() {
		log.removes = append(log.removes, tombstone{file: f, deleted: 1})
	}
	body, err := log.encode(true)
	if err != nil {
		t.Fatal(err)
	}
	put(t, memory, commitName(table.Snapshot().Version()+1), string(body))
	if found := mustFsck(t, memory, FsckOptions{}); len(found) > 0 {
		t.Fatalf("found %v", found)
	}
	later(table, 8*day)
	mustVacuum(t, table, VacuumOptions{})
	mustVacuum(t, table, VacuumOptions{Full: true})
	checkPeople(t, memory, want)
	if found := mustFsck(t, memory, FsckOptions{}); len(found) > 0 {
		t.Fatalf("found %v", found)
	}
}

// TestRemovedFilesAreRememberedWithoutTheirCheckpoint has the checkpoint that a
// table goes by be gone: with a newer one there, and with none.
func TestRemovedFilesAreRememberedWithoutTheirCheckpoint(t *testing.T) {
	for _, newer := range []bool{true, false} {
		memory := store.NewMemory()
		table := newTestTable(t, memory)
		a, b := fakeFile("a", 5), fakeFile("b", 5)
		for _, f := range []*File{a, b} {
			put(t, memory, f.Path, "x")
		}
		mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{a, b}})
		mustCommit(t, table, &Commit{Operation: "DELETE", Remove: []*File{a}})
		if err := table.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		gone := checkpointRef{version: table.Snapshot().Version()}.names()[0]
		mustCommit(t, table, &Commit{Operation: "DELETE", Remove: []*File{b}})
		if newer {
			if err := mustOpen(t, memory).Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			mustCommit(t, table, &Commit{Operation: "WRITE"})
		}
		if err := memory.Delete(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
		// The objects were written long before they were removed.
		horizon := time.Now().Add(-day).UnixMilli()
		needed, _, err := table.neededFiles(t.Context(), table.Snapshot(), time.UnixMilli(horizon))
		if err != nil || !needed["a"] || !needed["b"] {
			t.Errorf("newer %v: needed are %v, %v", newer, needed, err)
		}
		if err := table.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := tombstonesOf(t, memory, table.Snapshot().Version()); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("newer %v: the checkpoint remembers %q", newer, got)
		}
	}
}

func TestVacuumRefusesTablesWithFilesElsewhere(t *testing.T) {
	memory, table, _ := usedTable(t)
	f := fakeFile("s3://elsewhere/part-0.parquet", 1)
	log := &commitLog{info: &CommitInfo{Timestamp: 1, InCommitTimestamp: table.Snapshot().info.InCommitTimestamp + 1}, adds: []*File{f}}
	body, err := log.encode(true)
	if err != nil {
		t.Fatal(err)
	}
	put(t, memory, commitName(table.Snapshot().Version()+1), string(body))
	later(table, 8*day)
	before := objects(t, memory)
	if _, err := table.Vacuum(t.Context(), VacuumOptions{Full: true}); !errors.Is(err, ErrUnsupported) {
		t.Fatalf("error is %v", err)
	}
	if got := objects(t, memory); !maps.Equal(got, before) {
		t.Fatalf("objects %v are left of %v", got, before)
	}
}

func TestVacuumRefusesUnknownWriterFeatures(t *testing.T) {
	memory := store.NewMemory()
	table := newTestTable(t, memory)
	s := table.Snapshot()
	odd := s.Protocol().With("somethingElse")
	log := &commitLog{info: &CommitInfo{Timestamp: 1, InCommitTimestamp: s.info.InCommitTimestamp + 1}, protocol: odd}
	body, err := log.encode(true)
	if err != nil {
		t.Fatal(err)
	}
	if err := memory.PutIfAbsent(t.Context(), commitName(1), body); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Vacuum(t.Context(), VacuumOptions{Full: true}); !errors.Is(err, ErrUnsupported) {
		t.Fatalf("error is %v", err)
	}
	if _, err := table.CleanLog(t.Context(), CleanLogOptions{}); !errors.Is(err, ErrUnsupported) {
		t.Fatalf("error is %v", err)
	}
}

func TestAVacuumThatIsBrokenOffTellsWhatItDeleted(t *testing.T) {
	memory := store.NewMemory()
	var fails string
	table, want := usedTableIn(t, &storetest.Faulty{Store: memory, Before: func(op storetest.Op, name string) error {
		if op == storetest.Delete && name == fails {
			return errors.New("the store is away")
		}
		return nil
	}})
	later(table, 8*day)
	all := mustVacuum(t, table, VacuumOptions{DryRun: true}).Names
	if len(all) < 3 {
		t.Fatalf("%d files are to be deleted", len(all))
	}
	fails = all[1]
	before := objects(t, memory)
	done, err := table.Vacuum(t.Context(), VacuumOptions{})
	if err == nil {
		t.Fatal("no error")
	}
	after := objects(t, memory)
	maps.DeleteFunc(before, func(name string, _ bool) bool { return after[name] })
	if got := slices.Sorted(maps.Keys(before)); !slices.Equal(got, done.Names) {
		t.Errorf("deleted %q, told %q", got, done.Names)
	}
	if !after[fails] {
		t.Error("what could not be deleted is gone")
	}
	fails = ""
	if rest := mustVacuum(t, table, VacuumOptions{}); len(rest.Names)+len(done.Names) != len(all) {
		t.Errorf("%d files and then %d were deleted, of %d", len(done.Names), len(rest.Names), len(all))
	}
	checkPeople(t, memory, want)
}

// TestAVacuumThatIsBrokenOffHasBegunToDelete has the store be away once something
// is deleted: what takes too long goes on the next time.
func TestAVacuumThatIsBrokenOffHasBegunToDelete(t *testing.T) {
	var last string
	deleted := make(chan struct{})
	var once sync.Once
	table, _ := usedTableIn(t, &storetest.Faulty{Store: store.NewMemory(), Before: func(op storetest.Op, name string) error {
		switch {
		case last == "":
		case op == storetest.Delete:
			once.Do(func() { close(deleted) })
		case op == storetest.OpenRange && name == last:
			select {
			case <-deleted:
			case <-time.After(10 * time.Second):
			}
			return errors.New("the store is away")
		}
		return nil
	}})
	later(table, 8*day)
	all := mustVacuum(t, table, VacuumOptions{DryRun: true}).Names
	last = all[len(all)-1]
	done, err := table.Vacuum(t.Context(), VacuumOptions{})
	if err == nil || len(done.Names) == 0 || slices.Contains(done.Names, last) {
		t.Fatalf("deleted %q of %q, %v", done.Names, all, err)
	}
}
