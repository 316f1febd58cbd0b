package deltalog

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

// dataObjects names what is in a store besides the log.
func dataObjects(t *testing.T, st store.Store) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for o, err := range st.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(o.Name, "_delta_log/") {
			names[o.Name] = true
		}
	}
	return names
}

// TestLostAttemptsLeaveNothingBehind has another writer commit just before every
// first attempt: a change of the metadata, which ends what was tried, or rows,
// after which it is tried again.
func TestLostAttemptsLeaveNothingBehind(t *testing.T) {
	acts := map[string]func(*Table) error{
		"append":    func(table *Table) error { _, err := table.Append(context.Background(), idNames(100, 3)); return err },
		"overwrite": func(table *Table) error { _, err := table.Overwrite(context.Background(), idNames(100, 3)); return err },
		"delete":    func(table *Table) error { _, _, err := table.Delete(context.Background(), nil, odd); return err },
	}
	for name, properties := range map[string]map[string]string{
		"copies":            {},
		"vectors":           {PropertyDeletionVectors: "true"},
		"vectors and feed":  {PropertyDeletionVectors: "true", PropertyChangeDataFeed: "true"},
		"copies and a feed": {PropertyChangeDataFeed: "true"},
	} {
		for act, run := range acts {
			for _, ends := range []bool{true, false} {
				t.Run(name+"/"+act, func(t *testing.T) {
					memory := store.NewMemory()
					table := tableWith(t, memory, properties)
					if _, err := table.Append(t.Context(), idNames(0, 10)); err != nil {
						t.Fatal(err)
					}
					other := mustOpen(t, memory)
					var before map[string]bool
					mine := mustOpen(t, &storetest.Faulty{Store: memory, Before: func(op storetest.Op, name string) error {
						if op != storetest.PutIfAbsent || !strings.HasSuffix(name, ".json") || before != nil {
							return nil
						}
						before = map[string]bool{}
						if ends {
							_, err := other.SetProperties(context.Background(), map[string]string{"a": "b"})
							return err
						}
						_, err := other.Append(context.Background(), idNames(50, 4))
						return err
					}})
					err := run(mine)
					if errors.Is(err, ErrConflict) != ends || (err != nil) != ends {
						t.Fatalf("error is %v", err)
					}
					if before == nil {
						t.Fatal("nothing was tried")
					}
					want := dataOf(t, memory)
					if got := dataObjects(t, memory); !maps.Equal(got, want) {
						t.Errorf("the store holds %v\nthe log names %v", got, want)
					}
				})
			}
		}
	}
}

// dataOf names what the commits of a log have ever put in.
func dataOf(t *testing.T, st store.Store) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	table := mustOpen(t, st)
	for v := Version(0); v <= table.Snapshot().Version(); v++ {
		b, err := st.Get(t.Context(), commitName(v))
		if err != nil {
			t.Fatal(err)
		}
		for name := range dataObjects(t, st) {
			if !strings.HasSuffix(name, ".bin") && strings.Contains(string(b), `"`+name+`"`) {
				names[name] = true
			}
		}
	}
	for f := range table.Snapshot().Files() {
		if f.Vector == nil {
			continue
		}
		name, err := f.Vector.name()
		if err != nil {
			t.Fatal(err)
		}
		names[name] = true
	}
	return names
}

func TestRefusedRowsLeaveNothingBehind(t *testing.T) {
	memory := store.NewMemory()
	table := tableWith(t, memory, map[string]string{PropertyAppendOnly: "true"})
	if _, err := table.Append(t.Context(), idNames(0, 10)); err != nil {
		t.Fatal(err)
	}
	before := dataObjects(t, memory)
	if _, err := table.Overwrite(t.Context(), idNames(0, 3)); !errors.Is(err, ErrInvalid) {
		t.Fatalf("error is %v", err)
	}
	if got := dataObjects(t, memory); !maps.Equal(got, before) {
		t.Errorf("the store holds %v, before %v", got, before)
	}
}

// TestUncertainRowsStay loses the reply to a commit and all answers after it.
func TestUncertainRowsStay(t *testing.T) {
	memory := store.NewMemory()
	tableWith(t, memory, nil)
	ctx, cancel := context.WithCancel(t.Context())
	lost := errors.New("reply lost")
	sent := false
	st := &storetest.Faulty{Store: memory}
	st.After = func(op storetest.Op, name string) error {
		if op == storetest.PutIfAbsent && strings.HasSuffix(name, ".json") {
			sent = true
			cancel()
			return lost
		}
		return nil
	}
	st.Before = func(op storetest.Op, _ string) error {
		if sent && op == storetest.Get {
			return lost
		}
		return nil
	}
	table := mustOpen(t, st)
	table.pause = 1
	if _, err := table.Append(ctx, []*datafile.Batch{idNames(0, 3)}...); !errors.Is(err, ErrUncertain) {
		t.Fatalf("error is %v", err)
	}
	rows := map[string]int{}
	for b, err := range mustOpen(t, memory).Snapshot().Read(t.Context(), ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		countRows(rows, b)
	}
	if len(rows) != 3 {
		t.Errorf("%d rows can be read", len(rows))
	}
}

// TestRowsWithoutPartitionAreNotRewritten has a file lack the value of the
// partition column.
func TestRowsWithoutPartitionAreNotRewritten(t *testing.T) {
	table, err := Create(t.Context(), store.NewMemory(), CreateOptions{Schema: idName(), PartitionColumns: []string{"name"}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := table.Append(t.Context(), idNames(0, 1))
	if err != nil {
		t.Fatal(err)
	}
	for f := range s.Files() {
		bare := *f
		bare.Partition = nil
		if _, err := table.rewriteFiles(t.Context(), s, []*File{&bare}, rewriteOptions{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("error is %v", err)
		}
		r, err := table.rewriteFiles(t.Context(), s, []*File{f}, rewriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.outputs[0].Partition["name"]; got == nil || *got != *f.Partition["name"] {
			t.Errorf("the rows are in partition %v", got)
		}
	}
}
