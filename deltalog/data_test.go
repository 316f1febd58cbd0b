package deltalog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// idNames returns rows of idName's schema with the ids from first on.
func idNames(first, n int64) *datafile.Batch {
	b := datafile.NewBatch(idName())
	for id := first; id < first+n; id++ {
		b.Cols[0].AppendInt(id)
		b.Cols[1].AppendString(fmt.Sprint("row ", id))
	}
	return b
}

func writeFile(t testing.TB, table *Table, o FileOptions, batches ...*datafile.Batch) *File {
	t.Helper()
	w, err := table.NewFile(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for _, b := range batches {
		if err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	f, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// readIDs returns the values of column id, sorted.
func readIDs(t testing.TB, s *Snapshot, o ReadOptions) []int64 {
	t.Helper()
	ids := []int64{}
	for b, err := range s.Read(t.Context(), o) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, b.Column("id").I64...)
	}
	slices.Sort(ids)
	return ids
}

// hide adds rows to the vectors of files, in one commit.
func hide(t testing.TB, table *Table, rows map[*File]*roaring64.Bitmap) *Snapshot {
	t.Helper()
	c := &Commit{Operation: "DELETE"}
	var bitmaps []*roaring64.Bitmap
	for f, more := range rows {
		bm, err := table.Snapshot().ReadVector(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		bm.Or(more)
		if int64(bm.GetCardinality()) == f.Rows {
			c.Remove = append(c.Remove, f)
			continue
		}
		c.Remove = append(c.Remove, f)
		bitmaps = append(bitmaps, bm)
		c.Add = append(c.Add, f)
	}
	vectors, err := table.WriteVectors(t.Context(), bitmaps)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range vectors {
		c.Add[i] = c.Add[i].WithVector(v)
	}
	return mustCommit(t, table, c)
}

func TestHiddenRowsAreNotRead(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	const perFile, files = 3000, 3
	live := map[int64]bool{}
	c := &Commit{Operation: "WRITE"}
	for i := range int64(files) {
		c.Add = append(c.Add, writeFile(t, table, FileOptions{RowGroupRows: 1000}, idNames(i*perFile, perFile)))
		for id := i * perFile; id < (i+1)*perFile; id++ {
			live[id] = true
		}
	}
	mustCommit(t, table, c)
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 6 {
		rows := map[*File]*roaring64.Bitmap{}
		for f := range table.Snapshot().Files() {
			bm := roaring64.New()
			first := int64(slices.IndexFunc(c.Add, func(g *File) bool { return g.Path == f.Path })) * perFile
			for range []int{1, 10, 500, 2000, 3, 2999}[round] {
				row := rnd.Int64N(perFile)
				bm.Add(uint64(row))
				delete(live, first+row)
			}
			if round == 4 { // a run
				bm.AddRange(100, 900)
				for row := int64(100); row < 900; row++ {
					delete(live, first+row)
				}
			}
			rows[f] = bm
		}
		hide(t, table, rows)
		for _, s := range []*Snapshot{table.Snapshot(), mustOpen(t, st).Snapshot()} {
			got := readIDs(t, s, ReadOptions{Columns: []string{"id"}, BatchRows: []int{0, 1, 7, 1000, 4096, 100000}[round]})
			if n, ok := s.Rows(); !ok || int(n) != len(live) {
				t.Fatalf("round %d: the snapshot counts %d live rows, want %d", round, n, len(live))
			}
			if len(got) != len(live) || slices.ContainsFunc(got, func(id int64) bool { return !live[id] }) {
				t.Fatalf("round %d: read %d rows, want %d", round, len(got), len(live))
			}
		}
		if err := table.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadFileTellsWhereRowsAre(t *testing.T) {
	table := newTestTable(t, store.NewMemory())
	f := writeFile(t, table, FileOptions{RowGroupRows: 50}, idNames(1000, 200))
	mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}})
	s := hide(t, table, map[*File]*roaring64.Bitmap{f: roaring64.BitmapOf(0, 49, 50, 120, 199)})
	n := 0
	for live, err := range s.ReadFile(t.Context(), s.File(f.Path), ReadOptions{BatchRows: 30}) {
		if err != nil {
			t.Fatal(err)
		}
		for i, row := range live.Index {
			if live.Column("id").I64[i] != 1000+row || slices.Contains([]int64{0, 49, 50, 120, 199}, row) {
				t.Fatalf("row %d has id %d", row, live.Column("id").I64[i])
			}
			n++
		}
	}
	if n != 195 {
		t.Fatalf("%d rows, want 195", n)
	}
}

func TestColumnsComeWithTheDataThatHasThem(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{writeFile(t, table, FileOptions{}, idNames(0, 3))}})

	m := table.Snapshot().Metadata().Clone()
	m.Schema = &schema.Schema{Fields: append(slices.Clone(m.Schema.Fields),
		schema.Field{Name: "at", Type: schema.Type{Kind: schema.TimestampNTZ}, Nullable: true})}
	b := datafile.NewBatch(m.Schema)
	b.Cols[0].AppendInt(3)
	b.Cols[1].AppendNull()
	b.Cols[2].AppendInt(42)
	f := writeFile(t, table, FileOptions{Schema: m.Schema}, b)
	mustCommit(t, table, &Commit{
		Operation: "WRITE", Metadata: m, Protocol: table.Snapshot().Protocol().For(m), Add: []*File{f},
	})
	s := mustOpen(t, st).Snapshot()
	at := map[int64]any{}
	for b, err := range s.Read(t.Context(), ReadOptions{Columns: []string{"at", "id"}}) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Rows() {
			at[b.Cols[1].I64[i]] = nil
			if b.Cols[0].Valid[i] {
				at[b.Cols[1].I64[i]] = b.Cols[0].I64[i]
			}
		}
	}
	if got := fmt.Sprint(at); got != "map[0:<nil> 1:<nil> 2:<nil> 3:42]" {
		t.Fatal(got)
	}
	if old, err := OpenAt(t.Context(), st, 1); err != nil || len(old.Metadata().Schema.Fields) != 2 {
		t.Fatalf("version 1 changed: %v", err)
	}
}

func TestPartitionValuesAreColumns(t *testing.T) {
	st := store.NewMemory()
	s := idName()
	s.Fields = append(s.Fields,
		schema.Field{Name: "day", Type: schema.Type{Kind: schema.Date}, Nullable: true},
		schema.Field{Name: "odd name", Type: schema.Type{Kind: schema.String}, Nullable: true})
	table, err := Create(t.Context(), st, CreateOptions{Schema: s, PartitionColumns: []string{"day", "odd name"}})
	if err != nil {
		t.Fatal(err)
	}
	day, odd := "2024-02-29", "a/b=c %25 é"
	c := &Commit{Operation: "WRITE"}
	c.Add = append(c.Add, writeFile(t, table, FileOptions{Partition: map[string]*string{"day": &day, "odd name": &odd}}, idNames(0, 2)))
	c.Add = append(c.Add, writeFile(t, table, FileOptions{Partition: map[string]*string{"day": nil, "odd name": nil}}, idNames(2, 1)))
	mustCommit(t, table, c)
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for b, err := range mustOpen(t, st).Snapshot().Read(t.Context(), ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Rows() {
			row := fmt.Sprint(b.Column("id").I64[i], " ", string(b.Column("name").At(i)))
			if b.Column("day").Valid[i] {
				row += fmt.Sprint(" ", b.Column("day").I64[i], " ", string(b.Column("odd name").At(i)))
			}
			rows = append(rows, row)
		}
	}
	slices.Sort(rows)
	want := []string{"0 row 0 19782 a/b=c %25 é", "1 row 1 19782 a/b=c %25 é", "2 row 2"}
	if !slices.Equal(rows, want) {
		t.Fatalf("got %q", rows)
	}
	if got := readIDs(t, table.Snapshot(), ReadOptions{Files: func(f *File) bool { return f.Partition["day"] == nil }}); !slices.Equal(got, []int64{2}) {
		t.Fatalf("files of no day have ids %v", got)
	}
	n := 0
	for b, err := range table.Snapshot().Read(t.Context(), ReadOptions{Columns: []string{"day"}, BatchRows: 1}) {
		if err != nil || len(b.Cols) != 1 {
			t.Fatal(err)
		}
		n += b.Rows()
	}
	if n != 3 {
		t.Fatalf("%d rows of partition columns alone, want 3", n)
	}
}

func TestFileThatTheLogDescribesWronglyIsRefused(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	f := writeFile(t, table, FileOptions{}, idNames(0, 10))
	for name, g := range map[string]*File{
		"more rows":       {Path: f.Path, Size: f.Size, Rows: 11, Stats: `{"numRecords":11}`},
		"cardinality":     f.WithVector(&Vector{StorageType: "i", PathOrInline: "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", SizeInBytes: 44, Cardinality: 5}),
		"rows beyond":     f.WithVector(&Vector{StorageType: "i", PathOrInline: "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", SizeInBytes: 44, Cardinality: 6}),
		"vector is gone":  f.WithVector(&Vector{StorageType: "u", PathOrInline: encodeZ85(make([]byte, 16)), Offset: 1, SizeInBytes: 34, Cardinality: 1}),
		"kind of storage": f.WithVector(&Vector{StorageType: "x", PathOrInline: "abc", SizeInBytes: 34, Cardinality: 1}),
	} {
		t.Run(name, func(t *testing.T) {
			for _, err := range table.Snapshot().ReadFile(t.Context(), g, ReadOptions{}) {
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, store.ErrNotExist) && !errors.Is(err, ErrUnsupported) {
					t.Fatalf("got %v", err)
				}
			}
		})
	}
}

func TestVectorsRoundTrip(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	full := roaring64.New()
	full.AddRange(0, 200_000)
	scattered := roaring64.New()
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 50_000 {
		scattered.Add(rnd.Uint64N(1 << 34))
	}
	bitmaps := []*roaring64.Bitmap{roaring64.BitmapOf(7), full, scattered, roaring64.BitmapOf(0, 1<<32, 1<<40)}
	vectors, err := table.WriteVectors(t.Context(), bitmaps)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for i, v := range vectors {
		name, err := v.name()
		if err != nil {
			t.Fatal(err)
		}
		names[name] = true
		got, err := v.read(t.Context(), st)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Equals(bitmaps[i]) || v.Cardinality != int64(bitmaps[i].GetCardinality()) {
			t.Fatalf("vector %d came back otherwise", i)
		}
		p := &Vector{StorageType: "p", PathOrInline: name, Offset: v.Offset, SizeInBytes: v.SizeInBytes, Cardinality: v.Cardinality}
		if got, err := p.read(t.Context(), st); err != nil || !got.Equals(bitmaps[i]) {
			t.Fatalf("vector %d by its path: %v", i, err)
		}
	}
	if len(names) != 1 || vectors[0].Offset != 1 || vectors[0].SizeInBytes != 34 {
		t.Fatalf("%d files; the first vector is %+v", len(names), vectors[0])
	}
	if _, err := table.WriteVectors(t.Context(), []*roaring64.Bitmap{roaring64.New()}); !errors.Is(err, ErrInvalid) {
		t.Fatalf("wrote an empty vector: %v", err)
	}
}

func TestDamagedVectorIsRefused(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	vectors, err := table.WriteVectors(t.Context(), []*roaring64.Bitmap{roaring64.BitmapOf(1, 5, 1000, 70000)})
	if err != nil {
		t.Fatal(err)
	}
	name, err := vectors[0].name()
	if err != nil {
		t.Fatal(err)
	}
	good, err := st.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(good); i++ {
		bad := slices.Clone(good)
		bad[i] ^= 0x10
		if err := st.Put(t.Context(), name, bad); err != nil {
			t.Fatal(err)
		}
		if _, err := vectors[0].read(t.Context(), st); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	if err := st.Put(t.Context(), name, good[:len(good)-1]); err != nil {
		t.Fatal(err)
	}
	if _, err := vectors[0].read(t.Context(), st); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("cut short: %v", err)
	}
}

func TestLinkedFileIsTheTablesOwn(t *testing.T) {
	root, err := store.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tables := make([]*Table, 2)
	for i := range tables {
		st, err := root.Sub(fmt.Sprint("t", i))
		if err != nil {
			t.Fatal(err)
		}
		tables[i] = newTestTable(t, st)
	}
	f := writeFile(t, tables[0], FileOptions{}, idNames(0, 5))
	mustCommit(t, tables[0], &Commit{Operation: "WRITE", Add: []*File{f}})
	g, err := tables[1].LinkFile(t.Context(), tables[0], f)
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, tables[1], &Commit{Operation: "WRITE", Add: []*File{g}})
	if err := root.Delete(t.Context(), "t0/"+f.Path); err != nil {
		t.Fatal(err)
	}
	if got := readIDs(t, tables[1].Snapshot(), ReadOptions{}); len(got) != 5 {
		t.Fatalf("read %v", got)
	}
}

func TestAbortedFileLeavesNothing(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	w, err := table.NewFile(t.Context(), FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(idNames(0, 10)); err != nil {
		t.Fatal(err)
	}
	w.Abort()
	for info := range st.List(t.Context(), "part-", "") {
		t.Errorf("left %s", info.Name)
	}
}

func TestStatisticsFollowTheProperties(t *testing.T) {
	for _, c := range []struct{ property, value, want string }{
		{"", "", `"maxValues":{"id":2,"name":"row 2"}`},
		{PropertyStatsColumns, "1", `"maxValues":{"id":2}`},
		{PropertyStatsColumns, "-1", `"maxValues":{"id":2,"name":"row 2"}`},
		{"delta.dataSkippingStatsColumns", "`name`", `"maxValues":{"name":"row 2"}`},
	} {
		o := CreateOptions{Schema: idName(), Properties: map[string]string{}}
		if c.property != "" {
			o.Properties[c.property] = c.value
		}
		table, err := Create(t.Context(), store.NewMemory(), o)
		if err != nil {
			t.Fatal(err)
		}
		f := writeFile(t, table, FileOptions{}, idNames(0, 3))
		if !strings.Contains(f.Stats, c.want) || !strings.Contains(f.Stats, `"numRecords":3`) {
			t.Errorf("%s=%s: %s", c.property, c.value, f.Stats)
		}
		if g := f.WithVector(fakeVector("v", 1)); !strings.Contains(g.Stats, `"tightBounds":false`) || strings.Contains(g.Stats, `"tightBounds":true`) {
			t.Errorf("with a vector: %s", g.Stats)
		}
	}
}
