package deltalog

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

func TestCopyOnWriteNeedsNoVectors(t *testing.T) {
	memory := store.NewMemory()
	table, err := Create(t.Context(), memory, CreateOptions{Schema: idName()})
	if err != nil {
		t.Fatal(err)
	}
	u, err := OpenUpserter(t.Context(), table, t.TempDir(), UpserterOptions{Keys: []string{"id"}, CopyOnWrite: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	want := people{}
	for i := range 4 {
		mustUpsert(t, u, []person{someone(i), someone(i + 10)}, int64(i+9))
		want.put(someone(i), false)
		want.put(someone(i+10), false)
		want.drop(int64(i + 9))
	}
	mustUpsert(t, u, []person{{0, "changed"}})
	want.put(person{0, "changed"}, false)
	s := checkPeople(t, memory, want)
	for f := range s.Files() {
		if f.Vector != nil {
			t.Errorf("file %s has a vector", f.Path)
		}
	}
	if p := s.Protocol(); p.MinReader != 1 {
		t.Errorf("readers need version %d", p.MinReader)
	}
}

// TestIndexFollowsCopies has the index of another writer find the rows that
// were copied without reading them.
func TestIndexFollowsCopies(t *testing.T) {
	memory := store.NewMemory()
	_, writer := newUpserter(t, memory, UpserterOptions{Keys: []string{"id"}, CopyOnWrite: true})
	mustUpsert(t, writer, []person{someone(1), someone(2), someone(3)})
	st, ops := counted(memory)
	other, err := OpenUpserter(t.Context(), mustOpen(t, st), "index", UpserterOptions{Keys: []string{"id"}, fs: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	mustUpsert(t, writer, nil, 2)
	if _, err := other.t.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	clear(ops)
	mustUpsert(t, other, nil, 1)
	if n := ops[storetest.OpenRange]; n != 0 {
		t.Errorf("%d files were opened", n)
	}
	checkPeople(t, memory, people{someone(3): 1})
}
