package deltalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

// TestUpsertsThatDieAtAnyStepLeaveAWholeTable has a writer die before and after each
// operation of its store, amid upserts and a compaction of a table with partitions,
// row ids and a change data feed; what its index had not synced is lost.
func TestUpsertsThatDieAtAnyStepLeaveAWholeTable(t *testing.T) {
	stride := 1
	if testing.Short() {
		stride = 7
	}
	for _, o := range []UpserterOptions{{Keys: []string{"id"}}, {Keys: []string{"id"}, CopyOnWrite: true}} {
		t.Run(fmt.Sprint("copy on write ", o.CopyOnWrite), func(t *testing.T) {
			for last := 1; ; last += stride {
				survived := dieAt(t, o, last)
				if t.Failed() {
					t.Fatalf("the writer died at step %d", last)
				}
				if survived {
					if last < 40 {
						t.Errorf("only %d steps", last)
					}
					return
				}
			}
		})
	}
}

// dieAt has a writer die at a step, and tells whether it came to its end before.
func dieAt(t *testing.T, o UpserterOptions, last int) (survived bool) {
	t.Helper()
	memory, disk := store.NewMemory(), vfs.NewCrashableMem()
	_, err := Create(t.Context(), memory, CreateOptions{Schema: idName(), PartitionColumns: []string{"name"}, Properties: map[string]string{
		PropertyDeletionVectors: "true", PropertyRowTracking: "true", PropertyChangeDataFeed: "true",
	}})
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	step := func(storetest.Op, string) error {
		if steps++; steps >= last {
			return errDead
		}
		return nil
	}
	// states are what the table holds, acknowledged how many of them it must have had.
	states, acknowledged := []people{{}}, 1
	o.fs = disk
	run := func(ctx context.Context) error {
		table, err := Open(ctx, &storetest.Faulty{Store: memory, Before: step, After: step})
		if err != nil {
			return err
		}
		table.pause = 1
		u, err := OpenUpserter(ctx, table, "index", o)
		if err != nil {
			return err
		}
		defer func() { _ = u.Close() }()
		for i, rows := range [][]person{
			{{1, "a"}, {2, "a"}, {3, "b"}}, {{1, "b"}, {4, "a"}}, {{4, "a"}, {2, "c"}, {5, "b"}},
		} {
			gone := int64(i + 1)
			next := maps.Clone(states[len(states)-1])
			for _, r := range rows {
				next.put(r, false)
			}
			next.drop(gone)
			states = append(states, next)
			up := u.Begin()
			if err := up.Put(ctx, batchOf(rows...), keysOf(idsOf(rows)...)); err != nil {
				return err
			}
			if err := up.Delete(ctx, keysOf(gone)); err != nil {
				return err
			}
			if _, err := up.Commit(ctx, CommitExtras{}); err != nil {
				return err
			}
			acknowledged++
		}
		_, err = table.Compact(ctx, CompactOptions{})
		return err
	}
	survived = run(t.Context()) == nil
	o.fs = disk.CrashClone(vfs.CrashCloneCfg{})
	checkSurvivors(t, memory, o, states[acknowledged-1:min(len(states), acknowledged+1)])
	return survived
}

// checkSurvivors checks a table, which holds one of these states, its changes, and
// the index that a writer left.
func checkSurvivors(t *testing.T, memory *store.Memory, o UpserterOptions, states []people) {
	t.Helper()
	table := mustOpen(t, memory)
	got, err := readPeople(table.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(states, func(p people) bool { return maps.Equal(p, got) }) {
		t.Fatalf("the table holds %v, want one of %v", got, states)
	}
	made := people{}
	for b, err := range table.Changes(t.Context(), 0, table.Snapshot().Version(), ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		for row := range b.Rows() {
			r := person{b.Cols[0].I64[row], string(b.Cols[1].At(row))}
			switch string(b.Column(ColumnChangeType).At(row)) {
			case ChangeInsert, ChangeUpdateTo:
				made[r]++
			default:
				made[r]--
			}
		}
	}
	maps.DeleteFunc(made, func(_ person, n int) bool { return n == 0 })
	if !maps.Equal(made, got) {
		t.Fatalf("the changes make %v, want %v", made, got)
	}
	mustRowIDs(t, memory)
	u, err := OpenUpserter(t.Context(), table, "index", o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	o.fs = vfs.NewMem()
	fresh, err := OpenUpserter(t.Context(), mustOpen(t, memory), "index", o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fresh.Close() }()
	have, err := u.index.entries()
	if err != nil {
		t.Fatal(err)
	}
	want, err := fresh.index.entries()
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(have, want) {
		t.Fatalf("the index holds %q, a new one %q", have, want)
	}
	mustUpsert(t, u, []person{{1, "after"}, {9, "after"}}, 3)
	got.put(person{1, "after"}, false)
	got.put(person{9, "after"}, false)
	got.drop(3)
	checkPeople(t, memory, got)
}
