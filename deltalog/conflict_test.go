package deltalog

import (
	"errors"
	"testing"

	"github.com/millrace-io/millrace/deltalog/store"
)

// An application that begins at 0 has not come to 0 before its first commit.
func TestProgressThatBeginsAtZeroIsToldFromNone(t *testing.T) {
	for _, first := range []int64{0, -1} {
		st := store.NewMemory()
		ours, theirs := newTestTable(t, st), mustOpen(t, st)
		append1 := func(path string) *Commit {
			return &Commit{Operation: "WRITE", Add: []*File{fakeFile(path, 1)}, Txns: []Txn{{AppID: "a", Version: first}}}
		}
		late := append1("late")
		late.Read = ours.Snapshot()
		reader := &Commit{Read: ours.Snapshot(), ReadApps: []string{"a"}}
		mustCommit(t, theirs, append1("first"))
		if _, err := ours.CommitAppend(t.Context(), late, nil); !errors.Is(err, ErrApplied) {
			t.Errorf("an application at %d appended twice: %v", first, err)
		}
		now := mustOpen(t, st).Snapshot()
		if now.NumFiles() != 1 {
			t.Errorf("%d files of an append that was made twice", now.NumFiles())
		}
		if err := reader.Conflict(now); !errors.Is(err, ErrConflict) {
			t.Errorf("that the application came to %d went unseen: %v", first, err)
		}
	}
}

// A table can ask for more than the default: then blind appends count, too.
func TestSerializableTablesSeeBlindAppends(t *testing.T) {
	st := store.NewMemory()
	table, err := Create(t.Context(), st, CreateOptions{Schema: idName(), Properties: map[string]string{PropertyIsolationLevel: "Serializable"}})
	if err != nil {
		t.Fatal(err)
	}
	plan := reads("y")(nil, nil)
	plan.Read = table.Snapshot()
	s := mustCommit(t, mustOpen(t, st), blind("y")(nil, nil))
	if s.Info().IsolationLevel != "Serializable" {
		t.Errorf("the commit says %s", s.Info().IsolationLevel)
	}
	now, err := table.Refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.Conflict(now); !errors.Is(err, ErrConflict) {
		t.Errorf("a blind append went unseen: %v", err)
	}
	plan.Rearrange = true
	if err := plan.Conflict(now); err != nil {
		t.Errorf("a rearrangement minds what was added: %v", err)
	}
}
