package deltalog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

// writePeople writes a data file of people and returns it.
func writePeople(t testing.TB, table *Table, o FileOptions, rows ...person) *File {
	t.Helper()
	return writeFile(t, table, o, batchOf(rows...))
}

func mustCompact(t testing.TB, table *Table, o CompactOptions) Compaction {
	t.Helper()
	done, err := table.Compact(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// mustUpsert puts rows and takes ids away, in one commit.
func mustUpsert(t testing.TB, u *Upserter, rows []person, gone ...int64) *Snapshot {
	t.Helper()
	up := u.Begin()
	if err := up.Put(t.Context(), batchOf(rows...), keysOf(idsOf(rows)...)); err != nil {
		t.Fatal(err)
	}
	if err := up.Delete(t.Context(), keysOf(gone...)); err != nil {
		t.Fatal(err)
	}
	s, err := up.Commit(t.Context(), CommitExtras{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func someone(id int) person { return person{int64(id), fmt.Sprintf("number %d", id)} }

func checkPeople(t testing.TB, st store.Store, want people) *Snapshot {
	t.Helper()
	s := mustOpen(t, st).Snapshot()
	got, err := readPeople(s)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("the table holds %v, want %v", got, want)
	}
	return s
}

func TestCompactMakesOneFileOfMany(t *testing.T) {
	memory := store.NewMemory()
	table, u := newUpserter(t, memory, UpserterOptions{Keys: []string{"id"}})
	want := people{}
	for i := range 20 {
		mustUpsert(t, u, []person{someone(i), someone(i + 100)})
		want[someone(i)]++
		want[someone(i+100)]++
	}
	mustUpsert(t, u, nil, 3, 103, 104)
	for _, id := range []int{3, 103, 104} {
		delete(want, someone(id))
	}
	done := mustCompact(t, table, CompactOptions{})
	if done.Commits != 1 || done.Removed != 19 || done.Added != 1 {
		t.Fatalf("it did %+v", done)
	}
	s := checkPeople(t, memory, want)
	var ids []int64
	for b, err := range s.Read(t.Context(), ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, b.Cols[0].I64...)
	}
	if s.NumFiles() != 1 {
		t.Fatalf("there are %d files", s.NumFiles())
	}
	for i, id := range ids {
		if partner := id + 100; id < 100 && id != 4 && ids[i+1] != partner {
			t.Fatalf("row %d does not follow row %d: %v", partner, id, ids)
		}
	}
	if done := mustCompact(t, table, CompactOptions{}); done != (Compaction{}) {
		t.Fatalf("a compact table was compacted: %+v", done)
	}
}

func TestCompactLeavesWhatIsWellMade(t *testing.T) {
	table := newTestTable(t, store.NewMemory())
	f := writePeople(t, table, FileOptions{}, person{1, strings.Repeat("x", 1000)}, person{2, "y"})
	mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}})
	if done := mustCompact(t, table, CompactOptions{TargetBytes: f.Size}); done != (Compaction{}) {
		t.Fatalf("it did %+v", done)
	}
}

// TestIndexFollowsCompaction has the index find rows in compacted files without
// reading any, also by way of several compactions and after it was closed.
func TestIndexFollowsCompaction(t *testing.T) {
	memory := store.NewMemory()
	compactor := newTestTable(t, memory)
	disk := vfs.NewMem()
	st, ops := counted(memory)
	want := people{}
	open := func() *Upserter {
		u, err := OpenUpserter(t.Context(), mustOpen(t, st), "index", UpserterOptions{Keys: []string{"id"}, fs: disk})
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	u := open()
	for round := range 3 {
		for i := range 10 {
			r := someone(10*round + i)
			mustUpsert(t, u, []person{r})
			want[r]++
		}
		mustUpsert(t, u, nil, int64(10*round), int64(10*round+5))
		delete(want, someone(10*round))
		delete(want, someone(10*round+5))
		if _, err := compactor.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if done := mustCompact(t, compactor, CompactOptions{}); done.Added != 1 {
			t.Fatalf("compaction did %+v", done)
		}
		if round == 1 {
			if err := u.Close(); err != nil {
				t.Fatal(err)
			}
			u = open()
		}
		clear(ops)
		changed := person{int64(10*round + 1), "changed"}
		mustUpsert(t, u, []person{changed}, 8)
		want.put(changed, false)
		want.drop(8)
		if ops[storetest.OpenRange] != 0 {
			t.Fatalf("round %d: %d files were opened", round, ops[storetest.OpenRange])
		}
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	checkPeople(t, memory, want)
}

// TestSpilledUpsertSurvivesCompaction has a compaction win against an upsert
// whose changes are in its index already.
func TestSpilledUpsertSurvivesCompaction(t *testing.T) {
	memory := store.NewMemory()
	newTestTable(t, memory)
	var meanwhile func()
	table := mustOpen(t, hooked(memory, func() {
		if f := meanwhile; f != nil {
			meanwhile = nil
			f()
		}
	}))
	u, err := OpenUpserter(t.Context(), table, "index", UpserterOptions{Keys: []string{"id"}, PendingBytes: 1, fs: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	want := people{}
	for i := range 6 {
		mustUpsert(t, u, []person{someone(i)})
		want.put(someone(i), false)
	}
	won := 0
	meanwhile = func() { won = mustCompact(t, mustOpen(t, memory), CompactOptions{}).Commits }
	mustUpsert(t, u, []person{{2, "changed"}}, 4)
	want.put(person{2, "changed"}, false)
	want.drop(4)
	if won != 1 {
		t.Fatal("the compaction did not come between")
	}
	checkPeople(t, memory, want)
	mustUpsert(t, u, nil, 1)
	want.drop(1)
	checkPeople(t, memory, want)
}

func TestCompactKeepsPartitionsApart(t *testing.T) {
	memory := store.NewMemory()
	table, err := Create(t.Context(), memory, CreateOptions{Schema: idName(), PartitionColumns: []string{"name"}})
	if err != nil {
		t.Fatal(err)
	}
	// Values for which there are no folders, and one that is as the folder of NULL.
	a, hive := "a=/b", nullPartition
	long, longer := strings.Repeat("x", 300), strings.Repeat("x", 301)
	want := people{}
	for i := range 4 {
		for _, value := range []*string{&a, nil, &hive, &long, &longer} {
			f := writePeople(t, table, FileOptions{Partition: map[string]*string{"name": value}}, person{id: int64(i)})
			mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}})
		}
		for _, name := range []string{a, "", hive, long, longer} {
			want[person{int64(i), name}]++
		}
	}
	done := mustCompact(t, table, CompactOptions{})
	if done.Commits != 1 || done.Removed != 20 || done.Added != 5 {
		t.Fatalf("it did %+v", done)
	}
	for f := range checkPeople(t, memory, want).Files() {
		if v := f.Partition["name"]; !strings.HasPrefix(f.Path, "name=") && (v == nil || len(*v) < 300) {
			t.Errorf("file %s is in no partition", f.Path)
		}
	}
}

func TestCompactAppendOnlyTable(t *testing.T) {
	memory := store.NewMemory()
	table, err := Create(t.Context(), memory, CreateOptions{Schema: idName(), Properties: map[string]string{PropertyAppendOnly: "true"}})
	if err != nil {
		t.Fatal(err)
	}
	want := people{}
	for i := range 4 {
		f := writePeople(t, table, FileOptions{}, someone(i))
		mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}, BlindAppend: true})
		want[someone(i)]++
	}
	if done := mustCompact(t, table, CompactOptions{}); done.Removed != 4 {
		t.Fatalf("it did %+v", done)
	}
	checkPeople(t, memory, want)
}

func TestCompactReadsNoMoreThanAllowed(t *testing.T) {
	table := newTestTable(t, store.NewMemory())
	for i := range 8 {
		f := writePeople(t, table, FileOptions{}, someone(i))
		mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}})
	}
	size := table.Snapshot().Bytes() / 8
	done := mustCompact(t, table, CompactOptions{TargetBytes: 2*size + size/2, MaxBytes: 3 * size})
	if done.Removed != 3 || table.Snapshot().NumFiles() != 6 {
		t.Fatalf("it did %+v, there are %d files", done, table.Snapshot().NumFiles())
	}
}

func TestCompactClusters(t *testing.T) {
	memory := store.NewMemory()
	table := newTestTable(t, memory)
	for i := range 3 {
		f := writePeople(t, table, FileOptions{}, person{int64(i), "b"}, person{int64(10 - i), "a"}, person{int64(i), "a"})
		mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}})
	}
	mustCompact(t, table, CompactOptions{ClusterBy: []string{"name", "id"}})
	var rows []person
	for b, err := range table.Snapshot().Read(t.Context(), ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		for row := range b.Rows() {
			rows = append(rows, person{b.Cols[0].I64[row], string(b.Cols[1].At(row))})
		}
	}
	want := []person{{0, "a"}, {1, "a"}, {2, "a"}, {8, "a"}, {9, "a"}, {10, "a"}, {0, "b"}, {1, "b"}, {2, "b"}}
	if !slices.Equal(rows, want) {
		t.Fatalf("rows are %v", rows)
	}
}

func TestValuesHaveAnOrder(t *testing.T) {
	b := datafile.NewBatch(idName())
	for _, name := range []string{"a", "aa", "b"} {
		b.Cols[1].AppendString(name)
		b.Cols[0].AppendNull()
	}
	if compareRows(b.Cols[1], 0, 1) >= 0 || compareRows(b.Cols[1], 2, 1) <= 0 || compareRows(b.Cols[0], 0, 1) != 0 {
		t.Fatal("wrong order")
	}
}

func FuzzParseMove(f *testing.F) {
	f.Add([]byte{3, 1, 0, 7, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMove(b)
		if err != nil {
			return
		}
		for row := range uint64(10) {
			m.to(row)
		}
	})
}

func FuzzParseRewrites(f *testing.F) {
	f.Add(`[{"in":[{"path":"a","rows":2}],"out":[{"path":"b","rows":2}]}]`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range parseRewrites(text) {
			hidden, files := make([]*roaring64.Bitmap, len(r.Inputs)), make([]uint32, len(r.Outputs))
			for _, m := range r.moves(hidden, files) {
				m.to(0)
			}
		}
	})
}

func TestCompactMappedColumns(t *testing.T) {
	memory := store.NewMemory()
	table, err := Create(t.Context(), memory, CreateOptions{
		Schema: idName(), PartitionColumns: []string{"name"}, Properties: map[string]string{PropertyColumnMapping: "name"},
	})
	if err != nil {
		t.Fatal(err)
	}
	a, want := "a", people{}
	for i := range 4 {
		f := writePeople(t, table, FileOptions{Partition: map[string]*string{"name": &a}}, person{id: int64(i)})
		mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}})
		want[person{int64(i), a}]++
	}
	if done := mustCompact(t, table, CompactOptions{}); done.Removed != 4 || done.Added != 1 {
		t.Fatalf("it did %+v", done)
	}
	checkPeople(t, memory, want)
	if found := mustFsck(t, memory, FsckOptions{}); countLive(found) > 0 {
		t.Fatalf("found %v", found)
	}
}

func TestClusteringByWhatHasNoOrderIsRefusedAtOnce(t *testing.T) {
	s := idName()
	s.Fields = append(s.Fields, schema.Field{
		Name: "tags", Type: schema.Type{Kind: schema.Array, Elem: &schema.Type{Kind: schema.String}}, Nullable: true,
	})
	table, err := Create(t.Context(), store.NewMemory(), CreateOptions{Schema: s})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.Compact(t.Context(), CompactOptions{ClusterBy: []string{"id", "tags"}}); !errors.Is(err, ErrUnsupported) {
		t.Fatalf("error is %v", err)
	}
}
