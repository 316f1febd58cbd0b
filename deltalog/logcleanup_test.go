package deltalog

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

// longLog is a table of 30 commits with checkpoints of some of them.
func longLog(t *testing.T, properties map[string]string) (*store.Memory, *Table) {
	t.Helper()
	memory := store.NewMemory()
	table, err := Create(t.Context(), memory, CreateOptions{Schema: idName(), Properties: properties})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		mustCommit(t, table, &Commit{
			Operation: "WRITE", Add: []*File{fakeFile(fmt.Sprintf("part-%d.parquet", i), 10)},
			Txns: []Txn{{AppID: "a", Version: int64(i)}},
		})
		if i == 9 || i == 19 {
			if err := table.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	return memory, table
}

func mustCleanLog(t *testing.T, table *Table, o CleanLogOptions) CleanedLog {
	t.Helper()
	done, err := table.CleanLog(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func TestCleanLogKeepsWhatCanBeReplayed(t *testing.T) {
	memory, table := longLog(t, nil)
	want := describe(table.Snapshot())
	if done := mustCleanLog(t, table, CleanLogOptions{}); done.First != -1 || done.Names != nil {
		t.Fatalf("deleted %v of a young log", done.Names)
	}
	later(table, 31*day)
	dry := mustCleanLog(t, table, CleanLogOptions{DryRun: true})
	done := mustCleanLog(t, table, CleanLogOptions{})
	if done.First != 20 || len(done.Names) != 21 || len(dry.Names) != 21 {
		t.Fatalf("kept from %d, deleted %v", done.First, done.Names)
	}
	if got := describe(mustOpen(t, memory).Snapshot()); got != want {
		t.Fatalf("the table is now %s, want %s", got, want)
	}
	for v, readable := range map[Version]bool{5: false, 19: false, 20: true, 25: true} {
		_, err := OpenAt(t.Context(), memory, v)
		if readable && err != nil || !readable && !errors.Is(err, ErrNoVersion) && !errors.Is(err, ErrCorrupt) {
			t.Errorf("version %d: error is %v", v, err)
		}
	}
	if _, err := memory.Get(t.Context(), commitName(20)); err != nil {
		t.Error("the commit of the checkpoint is gone:", err)
	}
	// The table goes on, and remembers what was removed.
	mustCommit(t, table, &Commit{Operation: "DELETE", Remove: []*File{fakeFile("part-1.parquet", 10)}})
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestCleanLogDeletesNothingItCannotProve(t *testing.T) {
	memory, table := longLog(t, nil)
	later(table, 31*day)
	name := checkpointRef{version: 20}.names()[0]
	whole, err := memory.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	damage := map[string]func(){
		"damaged checkpoint": func() { _ = memory.Put(t.Context(), name, whole[:len(whole)-9]) },
		"missing commit":     func() { _ = memory.Delete(t.Context(), commitName(25)) },
	}
	for what, do := range damage {
		keep := memory.Clone()
		do()
		before := len(logNames(t, memory))
		if done, err := table.CleanLog(t.Context(), CleanLogOptions{}); err == nil && len(done.Names) > 0 && done.First == 20 {
			t.Errorf("%s: deleted %v", what, done.Names)
		}
		if n := len(logNames(t, memory)); n != before {
			t.Errorf("%s: %d objects of the log are left of %d", what, n, before)
		}
		for info, err := range keep.List(t.Context(), logDir, "") {
			if err != nil {
				t.Fatal(err)
			}
			b, err := keep.Get(t.Context(), info.Name)
			if err != nil {
				t.Fatal(err)
			}
			if err := memory.Put(t.Context(), info.Name, b); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func logNames(t *testing.T, m *store.Memory) []string {
	t.Helper()
	var names []string
	for info, err := range m.List(t.Context(), logDir, "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.Name)
	}
	return names
}

func TestCleanLogHonoursProperties(t *testing.T) {
	_, table := longLog(t, map[string]string{PropertyLogCleanup: "false"})
	later(table, 31*day)
	if done := mustCleanLog(t, table, CleanLogOptions{}); len(done.Names) > 0 {
		t.Errorf("deleted %v where it is forbidden", done.Names)
	}
	_, table = longLog(t, map[string]string{PropertyLogRetention: "interval 60 days"})
	later(table, 31*day)
	if done := mustCleanLog(t, table, CleanLogOptions{}); len(done.Names) > 0 {
		t.Errorf("deleted %v of 60 days", done.Names)
	}
	later(table, 61*day)
	if done := mustCleanLog(t, table, CleanLogOptions{}); done.First != 20 {
		t.Errorf("kept from %d", done.First)
	}
	if _, err := table.CleanLog(t.Context(), CleanLogOptions{Retention: time.Minute}); !errors.Is(err, ErrInvalid) {
		t.Errorf("error is %v", err)
	}
}

func TestCleanLogPutsTheHintRight(t *testing.T) {
	for _, stale := range []string{`{"version":10,"size":13}`, `{"version":25,"size":13}`, `{"version":9223372036854775807,"size":13}`} {
		memory, table := longLog(t, nil)
		later(table, 31*day)
		if err := memory.Put(t.Context(), hintName, []byte(stale)); err != nil {
			t.Fatal(err)
		}
		mustCleanLog(t, table, CleanLogOptions{})
		if v, ok := readHint(t.Context(), memory); !ok || v != 20 {
			t.Errorf("the hint %s is now of %d", stale, v)
		}
	}
}

func TestCleanLogTakesWhatGoesWithOldVersions(t *testing.T) {
	memory, table := longLog(t, nil)
	later(table, 31*day)
	put := func(name, text string) {
		if err := memory.Put(t.Context(), logDir+name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	put("00000000000000000003.crc", "{}")
	put("00000000000000000025.crc", "{}")
	put("00000000000000000003.00000000000000000007.compacted.json", "")
	put("_sidecars/nobodys.parquet", "x")
	done := mustCleanLog(t, table, CleanLogOptions{})
	if len(done.Names) != 24 {
		t.Fatalf("deleted %v", done.Names)
	}
	if _, err := memory.Get(t.Context(), logDir+"00000000000000000025.crc"); err != nil {
		t.Error(err)
	}
}

func TestCleanLogKeepsSidecarsInUse(t *testing.T) {
	memory, table := longLog(t, nil)
	s := table.Snapshot()
	m := s.Metadata().Clone()
	m.Configuration = map[string]string{PropertyCheckpointPolicy: "v2"}
	mustCommit(t, table, &Commit{Operation: "SET TBLPROPERTIES", Protocol: s.Protocol().With(FeatureV2Checkpoint), Metadata: m})
	for range 2 {
		mustCommit(t, table, &Commit{Operation: "WRITE", Txns: []Txn{{AppID: "b", Version: 1}}})
		if err := table.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	later(table, 31*day)
	done := mustCleanLog(t, table, CleanLogOptions{})
	sidecars := 0
	for _, name := range done.Names {
		if strings.HasPrefix(name, sidecarDir) {
			sidecars++
		}
	}
	if done.First != table.Snapshot().Version() || sidecars != 1 {
		t.Fatalf("kept from %d, deleted %v", done.First, done.Names)
	}
	if got, want := describe(mustOpen(t, memory).Snapshot()), describe(table.Snapshot()); got != want {
		t.Fatalf("the table is now %s, want %s", got, want)
	}
}

// TestCleanUpThatIsBrokenOffLeavesATable deletes the log's first n objects for
// every n, as a process does that is killed on its way.
func TestCleanUpThatIsBrokenOffLeavesATable(t *testing.T) {
	for _, properties := range []map[string]string{nil, {PropertyCheckpointPolicy: "v2"}, {PropertyInCommitTimestamps: "true"}} {
		memory, table := longLog(t, properties)
		want := describe(table.Snapshot())
		later(table, 31*day)
		all := mustCleanLog(t, table, CleanLogOptions{DryRun: true}).Names
		if len(all) < 20 {
			t.Fatalf("only %v would go", all)
		}
		for n := range all {
			left := memory.Clone()
			deleted := 0
			broken := mustOpen(t, &storetest.Faulty{Store: left, Before: func(op storetest.Op, _ string) error {
				if op != storetest.Delete {
					return nil
				}
				if deleted++; deleted > n {
					return errLostReply
				}
				return nil
			}})
			later(broken, 31*day)
			if _, err := broken.CleanLog(t.Context(), CleanLogOptions{}); !errors.Is(err, errLostReply) {
				t.Fatalf("after %d deletions: %v", n, err)
			}
			for _, hint := range []bool{true, false} {
				if !hint {
					if err := left.Delete(t.Context(), hintName); err != nil {
						t.Fatal(err)
					}
				}
				next := mustOpen(t, left)
				if got := describe(next.Snapshot()); got != want {
					t.Fatalf("after %d deletions the table is %s, want %s", n, got, want)
				}
			}
			found, err := Fsck(t.Context(), left, FsckOptions{Quick: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				if strings.HasPrefix(f.File, logDir) {
					t.Fatalf("after %d deletions: %v", n, f)
				}
			}
			// Whoever comes next ends it, and goes on.
			next := mustOpen(t, left)
			later(next, 31*day)
			mustCleanLog(t, next, CleanLogOptions{})
			mustCommit(t, next, &Commit{Operation: "WRITE", Add: []*File{fakeFile("more", 1)}})
			if err := next.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}
