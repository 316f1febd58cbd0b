package deltalog

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

// partitionedUpserter returns an upserter of a table that is partitioned by name.
func partitionedUpserter(t *testing.T, st store.Store, o UpserterOptions) *Upserter {
	t.Helper()
	table, err := Create(t.Context(), st, CreateOptions{
		Schema: idName(), PartitionColumns: []string{"name"}, Properties: latestProperties(), Features: []string{FeatureDomainMetadata},
	})
	if err != nil {
		t.Fatal(err)
	}
	u, err := OpenUpserter(t.Context(), table, t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	return u
}

func TestRowsMoveToAnotherPartition(t *testing.T) {
	st := store.NewMemory()
	counting, ops := counted(st)
	u := partitionedUpserter(t, counting, UpserterOptions{Keys: []string{"id"}})
	mustUpsert(t, u, []person{{1, "a b"}, {2, "a b"}, {3, "c/d"}, {4, ""}, {5, "a b"}, {6, "c/d"}})
	clear(ops)
	mustUpsert(t, u, []person{{1, "c/d"}, {3, "e"}, {2, "a b"}})
	// Three data files, one file of vectors and one commit.
	if ops[storetest.Create] != 3 || ops[storetest.PutIfAbsent] != 2 {
		t.Errorf("operations %v", ops)
	}
	s := checkPeople(t, st, people{{1, "c/d"}: 1, {2, "a b"}: 1, {3, "e"}: 1, {4, ""}: 1, {5, "a b"}: 1, {6, "c/d"}: 1})
	folders := map[string]string{"a b": "name=a b", "c/d": "name=c%2Fd", "e": "name=e"}
	vectors := map[string]bool{}
	for f := range s.Files() {
		name, err := f.Name()
		if err != nil {
			t.Fatal(err)
		}
		want := "name=" + nullPartition
		if v := f.Partition["name"]; v != nil {
			want = folders[*v]
		}
		if path.Dir(name) != want {
			t.Errorf("file %s of partition %q", name, want)
		}
		if f.Vector != nil {
			vectors[f.Vector.PathOrInline] = true
		}
	}
	if len(vectors) != 1 {
		t.Errorf("vectors are in files %v", vectors)
	}
}

// TestManyPartitionsAreWrittenWithFewFilesOpen has far more partitions in one
// upsert than files may be open.
func TestManyPartitionsAreWrittenWithFewFilesOpen(t *testing.T) {
	st := store.NewMemory()
	u := partitionedUpserter(t, st, UpserterOptions{Keys: []string{"id"}, RecentBytes: 1})
	want := people{}
	up := u.Begin()
	for batch := range 3 {
		var rows []person
		for i := range 3 * maxOpenFiles {
			rows = append(rows, person{int64(i), fmt.Sprint("part ", (i+batch)%(2*maxOpenFiles))})
		}
		if err := up.Put(t.Context(), batchOf(rows...), keysOf(idsOf(rows)...)); err != nil {
			t.Fatal(err)
		}
		if len(up.writing) > maxOpenFiles {
			t.Fatalf("%d files are open", len(up.writing))
		}
		clear(want)
		for _, r := range rows {
			want[r] = 1
		}
	}
	got, found, err := up.Lookup(t.Context(), keysOf(7, 100), []string{"name"})
	if err != nil || !found[0] || !found[1] || string(got.Cols[0].At(0)) != "part 9" || string(got.Cols[0].At(1)) != "part 102" {
		t.Fatalf("looked up %v, %v", found, err)
	}
	if _, err := up.Commit(t.Context(), CommitExtras{}); err != nil {
		t.Fatal(err)
	}
	checkPeople(t, st, want)
}

// TestChangesAreOfTheirPartitions has partitions without folders.
func TestChangesAreOfTheirPartitions(t *testing.T) {
	properties := latestProperties()
	properties[PropertyChangeDataFeed] = "true"
	table, err := Create(t.Context(), store.NewMemory(), CreateOptions{
		Schema: idName(), PartitionColumns: []string{"name"}, Properties: properties, Features: []string{FeatureDomainMetadata},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, u := newUpserterOf(t, table, UpserterOptions{Keys: []string{"id"}})
	a, b, c := strings.Repeat("a", 300), strings.Repeat("b", 300), strings.Repeat("c", 300)
	mustUpsert(t, u, []person{{1, a}, {2, b}})
	v := mustUpsert(t, u, []person{{2, c}, {3, a}}, 1).Version()
	got := map[string]people{}
	for rows, err := range table.Changes(t.Context(), v, v, ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		for row := range rows.Rows() {
			kind := string(rows.Column(ColumnChangeType).At(row))
			if got[kind] == nil {
				got[kind] = people{}
			}
			got[kind][person{rows.Cols[0].I64[row], string(rows.Cols[1].At(row))}]++
		}
	}
	want := map[string]people{ChangeDelete: {{1, a}: 1}, ChangeUpdateFrom: {{2, b}: 1}, ChangeUpdateTo: {{2, c}: 1}, ChangeInsert: {{3, a}: 1}}
	if !maps.EqualFunc(got, want, maps.Equal) {
		t.Errorf("changes %v, want %v", got, want)
	}
}

func TestKeysThatTheLogCannotTellApartAreRefused(t *testing.T) {
	u := partitionedUpserter(t, store.NewMemory(), UpserterOptions{Multiset: true, Columns: []string{"id", "name"}})
	err := u.Begin().Put(t.Context(), batchOf(person{1, ""}), nil)
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "partition column name") {
		t.Fatalf("error is %v", err)
	}
	b := datafile.NewBatch(idName())
	b.Cols[0].AppendInt(1)
	b.Cols[1].AppendNull()
	up := u.Begin()
	if err := up.Put(t.Context(), b, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := up.Commit(t.Context(), CommitExtras{}); err != nil {
		t.Fatal(err)
	}
	up = u.Begin()
	if err := up.TakeOne(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if s, err := up.Commit(t.Context(), CommitExtras{}); err != nil || s.NumFiles() != 0 {
		t.Fatalf("%d files, %v", s.NumFiles(), err)
	}
}
