package deltalog

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// rowOfVersion is a row, and the version that wrote it.
type rowOfVersion struct {
	person
	version int64
}

// readRowIDs reads the rows of a table by their ids, in the way that the protocol
// has readers do it. That an id is there twice is an error.
func readRowIDs(s *Snapshot) (map[int64]rowOfVersion, error) {
	rows := map[int64]rowOfVersion{}
	m := s.Metadata().Clone()
	for _, property := range []string{propertyRowIDColumn, propertyRowCommitColumn} {
		m.Schema = withHidden(m.Schema, hiddenColumn(m.Configuration[property], schema.Long))
	}
	with := *s
	with.metadata = m
	for f := range s.Files() {
		for live, err := range with.ReadFile(context.Background(), f, ReadOptions{}) {
			if err != nil {
				return nil, err
			}
			for row, at := range live.Index {
				r := rowOfVersion{person{live.Cols[0].I64[row], string(live.Cols[1].At(row))}, *f.tracking().DefaultRowCommitVersion}
				id := *f.tracking().BaseRowID + at
				if c := live.Cols[2]; c.Valid[row] {
					id = c.I64[row]
				}
				if c := live.Cols[3]; c.Valid[row] {
					r.version = c.I64[row]
				}
				if other, there := rows[id]; there {
					return nil, fmt.Errorf("row id %d is of %v and of %v", id, other, r)
				}
				rows[id] = r
			}
		}
	}
	return rows, nil
}

func checkRowIDs(t *testing.T, st store.Store, kept string, want map[int64]rowOfVersion) {
	t.Helper()
	s := mustOpen(t, st).Snapshot()
	got, err := readRowIDs(s)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("row ids %v, want %v", got, want)
	}
	if is := s.info.Tags[tagRowIDsKept]; is != kept {
		t.Errorf("version %d says of its ids: %q, want %q", s.Version(), is, kept)
	}
}

func TestRowsThatMoveOrAreUpdatedKeepTheirIDs(t *testing.T) {
	for _, o := range []UpserterOptions{{Keys: []string{"id"}}, {Keys: []string{"id"}, CopyOnWrite: true}} {
		t.Run(fmt.Sprint("copy on write ", o.CopyOnWrite), func(t *testing.T) {
			memory := store.NewMemory()
			properties := map[string]string{PropertyRowTracking: "true"}
			if !o.CopyOnWrite {
				properties[PropertyDeletionVectors] = "true"
			}
			table := tableWith(t, memory, properties)
			u, err := OpenUpserter(t.Context(), table, t.TempDir(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = u.Close() }()
			mustUpsert(t, u, []person{someone(1), someone(2), someone(3)})
			mustUpsert(t, u, []person{{2, "once"}, someone(4)})
			want := map[int64]rowOfVersion{0: {someone(1), 1}, 1: {person{2, "once"}, 2}, 2: {someone(3), 1}}
			for id, r := range mustRowIDs(t, memory) {
				if r.person == someone(4) && id > 2 {
					want[id] = rowOfVersion{someone(4), 2}
				}
			}
			checkRowIDs(t, memory, "true", want)
			// Twice in one upsert, and of a file that has ids already.
			up := u.Begin()
			for _, name := range []string{"twice", "thrice"} {
				if err := up.Put(t.Context(), batchOf(person{2, name}), keysOf(2)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := up.Commit(t.Context(), CommitExtras{}); err != nil {
				t.Fatal(err)
			}
			want[1] = rowOfVersion{person{2, "thrice"}, 3}
			checkRowIDs(t, memory, "true", want)
			if _, err := table.Compact(t.Context(), CompactOptions{ClusterBy: []string{"name"}}); err != nil {
				t.Fatal(err)
			}
			checkRowIDs(t, memory, "true", want)
			if s := mustOpen(t, memory).Snapshot(); s.NumFiles() != 1 {
				t.Errorf("%d files", s.NumFiles())
			}
			mustUpsert(t, u, []person{{3, "moved"}})
			want[2] = rowOfVersion{person{3, "moved"}, int64(table.Snapshot().Version())}
			checkRowIDs(t, memory, "true", want)
			_, _, err = table.Delete(t.Context(), nil, func(b *datafile.Batch, row int) bool { return b.Cols[0].I64[row] == 2 })
			if err != nil {
				t.Fatal(err)
			}
			delete(want, 1)
			checkRowIDs(t, memory, "true", want)
		})
	}
}

func mustRowIDs(t *testing.T, st store.Store) map[int64]rowOfVersion {
	t.Helper()
	ids, err := readRowIDs(mustOpen(t, st).Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// TestIDsOfManyRowsAreReadAgain has an upsert that is too large for memory put each
// row twice.
func TestIDsOfManyRowsAreReadAgain(t *testing.T) {
	memory := store.NewMemory()
	table := tableWith(t, memory, map[string]string{PropertyRowTracking: "true", PropertyDeletionVectors: "true"})
	_, u := newUpserterOf(t, table, UpserterOptions{Keys: []string{"id"}, PendingBytes: 200, FileBytes: 1})
	mustUpsert(t, u, []person{someone(1), someone(2)})
	want := mustRowIDs(t, memory)
	up := u.Begin()
	for _, name := range []string{"once", "twice"} {
		for id := range int64(20) {
			if err := up.Put(t.Context(), batchOf(person{id, name}), keysOf(id)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, f := range up.files {
		if up.spilled && f.ids != nil {
			t.Fatalf("%d ids of a file that is written are held", len(f.ids))
		}
	}
	if _, err := up.Commit(t.Context(), CommitExtras{}); err != nil {
		t.Fatal(err)
	}
	got := mustRowIDs(t, memory)
	for id, was := range want {
		if is := got[id]; is.person != (person{was.id, "twice"}) {
			t.Errorf("row id %d is of %v, and was of %v", id, is, was)
		}
	}
	if len(got) != 20 {
		t.Errorf("%d rows have ids", len(got))
	}
}

// TestRowsWithoutTheirIDsAreTold has another writer insert the row that an upsert
// takes for new.
func TestRowsWithoutTheirIDsAreTold(t *testing.T) {
	memory := store.NewMemory()
	table := tableWith(t, memory, map[string]string{PropertyRowTracking: "true", PropertyDeletionVectors: "true"})
	u, err := OpenUpserter(t.Context(), table, t.TempDir(), UpserterOptions{Keys: []string{"id"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	mustUpsert(t, u, []person{someone(1)})
	up := u.Begin()
	if err := up.Put(t.Context(), batchOf(someone(2), person{1, "updated"}), keysOf(2, 1)); err != nil {
		t.Fatal(err)
	}
	other := mustOpen(t, memory)
	if _, err := other.Append(t.Context(), batchOf(person{2, "other"})); err != nil {
		t.Fatal(err)
	}
	if _, err := up.Commit(t.Context(), CommitExtras{}); err != nil {
		t.Fatal(err)
	}
	want := map[int64]rowOfVersion{0: {person{1, "updated"}, 3}}
	for id, r := range mustRowIDs(t, memory) {
		if id > 1 {
			want[id] = r
		}
	}
	checkRowIDs(t, memory, "false", want)
	checkPeople(t, memory, people{someone(2): 1, {1, "updated"}: 1})
}
