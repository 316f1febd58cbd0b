package deltalog

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

func tableWith(t testing.TB, st store.Store, properties map[string]string) *Table {
	t.Helper()
	table, err := Create(t.Context(), st, CreateOptions{Schema: idName(), Properties: properties, Features: []string{FeatureDomainMetadata}})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func odd(b *datafile.Batch, row int) bool { return b.Column("id").I64[row]%2 == 1 }

func TestRowsAreAppendedDeletedAndOverwritten(t *testing.T) {
	for name, properties := range map[string]map[string]string{
		"deletion vectors": {PropertyDeletionVectors: "true"}, "copies": nil,
		"row tracking": {PropertyDeletionVectors: "true", PropertyRowTracking: "true"},
	} {
		t.Run(name, func(t *testing.T) {
			st := store.NewMemory()
			table := tableWith(t, st, properties)
			check := func(s *Snapshot, err error, want ...int64) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				if got := readIDs(t, s, ReadOptions{}); !slices.Equal(got, want) {
					t.Fatalf("ids %v, want %v", got, want)
				}
				if got, want := describe(mustOpen(t, st).Snapshot()), describe(s); got != want {
					t.Fatalf("reads back as\n%s\nwant\n%s", got, want)
				}
			}
			s, err := table.Append(t.Context(), idNames(1, 3), idNames(4, 2))
			check(s, err, 1, 2, 3, 4, 5)
			s, err = table.Append(t.Context())
			check(s, err, 1, 2, 3, 4, 5)
			s, err = table.Append(t.Context(), idNames(7, 1))
			check(s, err, 1, 2, 3, 4, 5, 7)
			s, n, err := table.Delete(t.Context(), []string{"id"}, odd)
			if n != 4 || s.NumFiles() != 1 || s.Version() != 3 {
				t.Fatalf("version %d: %d rows deleted, %d files left", s.Version(), n, s.NumFiles())
			}
			check(s, err, 2, 4)
			s, n, err = table.Delete(t.Context(), nil, odd)
			if n != 0 || s.Version() != 3 {
				t.Fatalf("version %d: %d rows deleted", s.Version(), n)
			}
			check(s, err, 2, 4)
			s, err = table.Overwrite(t.Context(), idNames(10, 2))
			check(s, err, 10, 11)
			s, err = table.Overwrite(t.Context())
			check(s, err)
		})
	}
}

func TestAppendOnlyTablesAreNotOverwritten(t *testing.T) {
	table := tableWith(t, store.NewMemory(), map[string]string{PropertyAppendOnly: "true"})
	if _, err := table.Append(t.Context(), idNames(1, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Overwrite(t.Context(), idNames(1, 2)); !errors.Is(err, ErrInvalid) {
		t.Fatalf("overwritten: %v", err)
	}
	if _, _, err := table.Delete(t.Context(), nil, odd); !errors.Is(err, ErrInvalid) {
		t.Fatalf("deleted: %v", err)
	}
}

// A second writer commits between the look of the first and its commit.
func TestDeleteAndOverwriteSeeWhatOthersDidMeanwhile(t *testing.T) {
	st := store.NewMemory()
	table := tableWith(t, st, map[string]string{PropertyDeletionVectors: "true"})
	if _, err := table.Append(t.Context(), idNames(1, 5)); err != nil {
		t.Fatal(err)
	}
	other := mustOpen(t, st)
	if _, err := other.Append(t.Context(), idNames(11, 2)); err != nil {
		t.Fatal(err)
	}
	if _, n, err := other.Delete(t.Context(), nil, func(b *datafile.Batch, row int) bool { return b.Column("id").I64[row] == 3 }); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	s, n, err := table.Delete(t.Context(), []string{"id"}, odd)
	if err != nil || n != 3 {
		t.Fatalf("deleted %d, %v", n, err)
	}
	if got := readIDs(t, s, ReadOptions{}); !slices.Equal(got, []int64{2, 4, 12}) {
		t.Fatalf("left are %v", got)
	}
	if s, n, err = other.Delete(t.Context(), nil, odd); err != nil || n != 0 || s.Version() != table.Snapshot().Version() {
		t.Fatalf("deleted %d of version %d, %v", n, s.Version(), err)
	}
	if _, err := table.Append(t.Context(), idNames(21, 1)); err != nil {
		t.Fatal(err)
	}
	if _, n, err = other.Delete(t.Context(), nil, odd); err != nil || n != 1 {
		t.Fatalf("of rows that it did not know of yet it deleted %d, %v", n, err)
	}
	if s, err = other.Overwrite(t.Context(), idNames(1, 1)); err != nil {
		t.Fatal(err)
	}
	if got := readIDs(t, s, ReadOptions{}); !slices.Equal(got, []int64{1}) {
		t.Fatalf("left are %v", got)
	}
	if _, err := other.SetProperties(t.Context(), map[string]string{"owner": "me"}); err != nil {
		t.Fatal(err)
	}
	all := func(*datafile.Batch, int) bool { return true }
	if _, _, err := table.Delete(t.Context(), nil, all); !errors.Is(err, ErrConflict) {
		t.Fatalf("deleted under other metadata: %v", err)
	}
}

func TestAppendSortsRowsIntoPartitions(t *testing.T) {
	fields := []schema.Field{{Name: "id", Type: schema.Type{Kind: schema.Long}, Nullable: true}}
	for _, k := range []schema.Type{
		{Kind: schema.String},
		{Kind: schema.Integer},
		{Kind: schema.Date},
		{Kind: schema.Timestamp},
		{Kind: schema.TimestampNTZ},
		{Kind: schema.Boolean},
		{Kind: schema.Double},
		{Kind: schema.Decimal, Precision: 30, Scale: 4},
		{Kind: schema.Decimal, Precision: 5, Scale: 5},
	} {
		t.Run(k.String(), func(t *testing.T) {
			s := &schema.Schema{Fields: append(fields[:1:1], schema.Field{Name: "p", Type: k, Nullable: true})}
			table, err := Create(t.Context(), store.NewMemory(), CreateOptions{Schema: s, PartitionColumns: []string{"p"}})
			if err != nil {
				t.Fatal(err)
			}
			b := datafile.NewBatch(s)
			for i := range 8 {
				b.Cols[0].AppendInt(int64(i))
				c := b.Cols[1]
				switch n := int64(i%4 - 1); {
				case i%4 == 3:
					c.AppendNull()
				case k.Kind == schema.String:
					c.AppendString([]string{"a=b/c", "ü %25", "..\\'\"\n"}[i%4])
				case k.Kind == schema.Double:
					c.AppendFloat(float64(n) * 1.1e-17)
				case k.Kind == schema.Boolean:
					c.AppendBool(i%4 == 0)
				default:
					c.AppendInt(n * 12345)
				}
			}
			snap, err := table.Append(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			got, want := map[string]int{}, map[string]int{}
			for read, err := range snap.Read(t.Context(), ReadOptions{}) {
				if err != nil {
					t.Fatal(err)
				}
				countRows(got, read)
			}
			countRows(want, b)
			if !maps.Equal(got, want) {
				t.Fatal("the rows are others")
			}
			if n := snap.NumFiles(); n > 4 || n < 3 {
				t.Fatalf("%d files", n)
			}
		})
	}
}

func TestRowsOfPartitionsAreDeleted(t *testing.T) {
	for _, mode := range []string{"none", "name", "id"} {
		for _, vectors := range []string{"true", "false"} {
			t.Run(mode+" "+vectors, func(t *testing.T) {
				st := store.NewMemory()
				table, err := Create(t.Context(), st, CreateOptions{
					Schema: idName(), PartitionColumns: []string{"name"},
					Properties: map[string]string{PropertyColumnMapping: mode, PropertyDeletionVectors: vectors, PropertyChangeDataFeed: "true"},
				})
				if err != nil {
					t.Fatal(err)
				}
				b := datafile.NewBatch(idName())
				for id := range int64(6) {
					b.Cols[0].AppendInt(id)
					b.Cols[1].AppendString([]string{"a b", "c"}[id%3%2])
				}
				if _, err := table.Append(t.Context(), b); err != nil {
					t.Fatal(err)
				}
				s, n, err := table.Delete(t.Context(), []string{"id"}, odd)
				if err != nil || n != 3 {
					t.Fatal(n, err)
				}
				read := func(b *datafile.Batch, rows []string) []string {
					for row := range b.Rows() {
						rows = append(rows, fmt.Sprint(b.Column("id").I64[row], " ", string(b.Column("name").At(row))))
					}
					return rows
				}
				var left, gone []string
				for b, err := range s.Read(t.Context(), ReadOptions{}) {
					if err != nil {
						t.Fatal(err)
					}
					left = read(b, left)
				}
				for b, err := range table.Changes(t.Context(), 2, 2, ReadOptions{}) {
					if err != nil {
						t.Fatal(err)
					}
					gone = read(b, gone)
				}
				slices.Sort(left)
				slices.Sort(gone)
				if got := fmt.Sprint(left, gone); got != "[0 a b 2 a b 4 c] [1 c 3 a b 5 a b]" {
					t.Fatal(got)
				}
			})
		}
	}
}

func TestAnApplicationIsAppliedOnce(t *testing.T) {
	st := store.NewMemory()
	table, other := newTestTable(t, st), mustOpen(t, st)
	c := func(path string) *Commit {
		return &Commit{Operation: "WRITE", Add: []*File{fakeFile(path, 1)}, Txns: []Txn{{AppID: "app", Version: 5}}}
	}
	if _, err := other.CommitAppend(t.Context(), c("theirs"), nil); err != nil {
		t.Fatal(err)
	}
	for range 2 { // after a lost race, and after a look
		if _, err := table.CommitAppend(t.Context(), c("ours"), nil); !errors.Is(err, ErrApplied) || !errors.Is(err, ErrConflict) {
			t.Fatalf("got %v", err)
		}
	}
	if n := table.Snapshot().NumFiles(); n != 1 {
		t.Fatalf("%d files", n)
	}
}

func TestChangeDataFeedTellsEveryVersion(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		st := store.NewMemory()
		properties := map[string]string{PropertyChangeDataFeed: "true"}
		if rapid.Bool().Draw(rt, "vectors") {
			properties[PropertyDeletionVectors] = "true"
		}
		if mode := rapid.SampledFrom([]string{"none", "name", "id"}).Draw(rt, "mapping"); mode != "none" {
			properties[PropertyColumnMapping] = mode
		}
		table := tableWith(t, st, properties)
		next := int64(0)
		must := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			s := table.Snapshot()
			var some []*File
			for f := range s.Files() {
				some = append(some, f)
			}
			switch step := rapid.IntRange(0, 4).Draw(rt, "step"); {
			case step == 0 || len(some) == 0:
				_, err := table.Append(t.Context(), idNames(next, 5))
				must(err)
				next += 5
			case step == 1:
				m := rapid.Int64Range(1, 4).Draw(rt, "modulus")
				_, _, err := table.Delete(t.Context(), nil, func(b *datafile.Batch, row int) bool { return b.Column("id").I64[row]%m == 0 })
				must(err)
			case step == 2:
				_, err := table.Overwrite(t.Context(), idNames(next, 3))
				must(err)
				next += 3
			case step == 3: // another's compaction
				var all []*datafile.Batch
				for b, err := range s.Read(t.Context(), ReadOptions{}) {
					must(err)
					all = append(all, b.Clone())
				}
				mustCommit(t, table, &Commit{Operation: "OPTIMIZE", Rearrange: true, Remove: some, Add: []*File{writeFile(t, table, FileOptions{}, all...)}})
			case properties[PropertyDeletionVectors] != "" && some[0].Rows > 0: // a vector of a writer that leaves the rest to readers
				f := some[0]
				bm := roaring64.New()
				if rapid.Bool().Draw(rt, "keep") { // otherwise rows come back
					var err error
					bm, err = table.Snapshot().ReadVector(t.Context(), f)
					must(err)
				}
				bm.Add(uint64(rapid.Int64Range(0, f.Rows-1).Draw(rt, "row")))
				written, err := table.WriteVectors(t.Context(), []*roaring64.Bitmap{bm})
				must(err)
				mustCommit(t, table, &Commit{Operation: "DELETE", Remove: []*File{f}, Add: []*File{f.WithVector(written[0])}})
			}
		}
		last := table.Snapshot().Version()
		rows := map[string]int{}
		for v := Version(0); v <= last; v++ {
			for b, err := range table.Changes(t.Context(), v, v, ReadOptions{}) {
				must(err)
				kind, version := b.Column(ColumnChangeType), b.Column(ColumnCommitVersion)
				data := &datafile.Batch{Names: b.Names[:2], Cols: b.Cols[:2]}
				for row := range b.Rows() {
					if version.I64[row] != int64(v) || !b.Column(ColumnCommitTime).Valid[row] {
						rt.Fatalf("a change of version %d says %d", v, version.I64[row])
					}
					key := string(datafile.AppendCanonical(nil, data.Cols, row))
					switch string(kind.At(row)) {
					case ChangeInsert:
						rows[key]++
					case ChangeDelete:
						if rows[key]--; rows[key] == 0 {
							delete(rows, key)
						}
					}
				}
			}
			at, err := OpenAt(t.Context(), st, v)
			must(err)
			want := map[string]int{}
			for b, err := range at.Read(t.Context(), ReadOptions{}) {
				must(err)
				countRows(want, b)
			}
			if !maps.Equal(rows, want) {
				rt.Fatalf("after version %d of %d the changes make %d rows, the table has %d", v, last, len(rows), len(want))
			}
		}
	})
}

func TestChangesOfRemovalsWithoutPartitionValues(t *testing.T) {
	st := store.NewMemory()
	table, err := Create(t.Context(), st, CreateOptions{
		Schema: idName(), PartitionColumns: []string{"name"},
		Properties: map[string]string{PropertyDeletionVectors: "true", PropertyChangeDataFeed: "true"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var files []*File
	for id, name := range []string{"a", "b", "c"} {
		b := datafile.NewBatch(idName())
		for i := range int64(2) {
			b.Cols[0].AppendInt(int64(id)*10 + i)
			b.Cols[1].AppendString(name)
		}
		s, err := table.Append(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		for f := range s.Files() {
			if *f.Partition["name"] == name {
				files = append(files, f)
			}
		}
	}
	vectors, err := table.WriteVectors(t.Context(), []*roaring64.Bitmap{roaring64.BitmapOf(1)})
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, table, &Commit{Remove: files[:1]})
	mustCommit(t, table, &Commit{Remove: files[1:2]})
	mustCommit(t, table, &Commit{Remove: files[2:], Add: []*File{files[2].WithVector(vectors[0])}})
	values := regexp.MustCompile(`("remove":\{[^\n]*?),"partitionValues":\{[^}]*\}`)
	for v := Version(4); v <= 6; v++ {
		b, err := st.Get(t.Context(), commitName(v))
		if err != nil || !values.Match(b) {
			t.Fatalf("%s: %v", b, err)
		}
		if err := st.Put(t.Context(), commitName(v), values.ReplaceAll(b, []byte("$1"))); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for b, err := range mustOpen(t, st).Changes(t.Context(), 4, 6, ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		for row := range b.Rows() {
			got = append(got, fmt.Sprint(b.Cols[0].I64[row], string(b.Cols[1].At(row)), " ", string(b.Column(ColumnChangeType).At(row))))
		}
	}
	if want := "[0a delete 1a delete 10b delete 11b delete 21c delete]"; fmt.Sprint(got) != want {
		t.Fatalf("changes %v, want %s", got, want)
	}
}

func TestChangesOfVersionsWithoutAFeedAreRefused(t *testing.T) {
	table := tableWith(t, store.NewMemory(), map[string]string{PropertyChangeDataFeed: "true"})
	for _, on := range []string{"false", "true"} { // versions 1 to 2 are off
		if _, err := table.SetProperties(t.Context(), map[string]string{PropertyChangeDataFeed: on}); err != nil {
			t.Fatal(err)
		}
		if _, err := table.Append(t.Context(), idNames(0, 2)); err != nil {
			t.Fatal(err)
		}
	}
	read := func(from, to Version) (n int, err error) {
		for b, err := range table.Changes(t.Context(), from, to, ReadOptions{Columns: []string{"name"}}) {
			if err != nil {
				return n, err
			}
			n += b.Rows()
		}
		return n, nil
	}
	if n, err := read(3, 4); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := read(0, 0); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	for _, r := range []struct{ from, to, off Version }{{0, 4, 1}, {1, 1, 1}, {2, 3, 2}} {
		if _, err := read(r.from, r.to); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), fmt.Sprintf("off in version %d", r.off)) {
			t.Errorf("%d to %d: %v", r.from, r.to, err)
		}
	}
	for _, r := range [][2]Version{{-1, 0}, {2, 1}, {3, 9}} {
		if _, err := read(r[0], r[1]); !errors.Is(err, ErrNoVersion) {
			t.Errorf("%v: %v", r, err)
		}
	}
}

func TestRowsKeepTheirIDs(t *testing.T) {
	st := store.NewMemory()
	table := tableWith(t, st, map[string]string{PropertyDeletionVectors: "true", PropertyRowTracking: "true"})
	if c := table.Snapshot().Metadata().Configuration; c[propertyRowIDColumn] == "" || c[propertyRowCommitColumn] == "" {
		t.Fatalf("properties %v", c)
	}
	other := mustOpen(t, st)
	check := func(s *Snapshot, mark string, want ...string) {
		t.Helper()
		for range 2 { // as committed, as read back
			var got []string
			for f := range s.Files() {
				got = append(got, fmt.Sprint(f.Path, " ", *f.tracking().BaseRowID, " ", *f.tracking().DefaultRowCommitVersion))
			}
			if d, _ := s.Domain(rowIDDomain); !slices.Equal(got, want) || d != mark {
				t.Fatalf("got %q and %s, want %q and %s", got, d, want, mark)
			}
			s = mustOpen(t, st).Snapshot()
		}
	}
	s := mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{fakeFile("a", 10), fakeFile("b", 5)}})
	check(s, `{"rowIdHighWaterMark":14}`, "a 0 1", "b 10 1")
	// Others lose the race and get other ids.
	lost := &Commit{Operation: "WRITE", Add: []*File{fakeFile("c", 3)}}
	s, err := other.CommitAppend(t.Context(), lost, nil)
	if err != nil {
		t.Fatal(err)
	}
	check(s, `{"rowIdHighWaterMark":17}`, "a 0 1", "b 10 1", "c 15 2")
	if _, err := table.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := table.Snapshot().File("a")
	s = mustCommit(t, table, &Commit{Operation: "DELETE", Remove: []*File{a, table.Snapshot().File("b")}, Add: []*File{a.WithVector(fakeVector("v", 2))}})
	check(s, `{"rowIdHighWaterMark":17}`, "a 0 1", "c 15 2")
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	var removed []string
	err = readTombstones(t.Context(), st, table.Snapshot().base, func(r tombstone) error {
		removed = append(removed, fmt.Sprint(r.file.Path, " ", *r.file.tracking().BaseRowID))
		return nil
	})
	if slices.Sort(removed); err != nil || !slices.Equal(removed, []string{"a 0", "b 10"}) {
		t.Fatalf("removed %v, %v", removed, err)
	}
	check(table.Snapshot(), `{"rowIdHighWaterMark":17}`, "a 0 1", "c 15 2")
	c := table.Snapshot().File("c")
	_, _, err = table.Commit(t.Context(), &Commit{Operation: "OPTIMIZE", Remove: []*File{c}, Add: []*File{fakeFile("d", 3)}, Rearrange: true})
	if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), FeatureRowTracking) {
		t.Fatalf("moved rows without their ids: %v", err)
	}
}

func TestRowTrackingIsSwitchedOnWhileTheTableIsEmpty(t *testing.T) {
	table := tableWith(t, store.NewMemory(), nil)
	if _, err := table.Append(t.Context(), idNames(1, 1)); err != nil {
		t.Fatal(err)
	}
	on := map[string]string{PropertyRowTracking: "true"}
	if _, err := table.SetProperties(t.Context(), on); !errors.Is(err, ErrUnsupported) {
		t.Fatalf("got %v", err)
	}
	if _, err := table.Overwrite(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := table.SetProperties(t.Context(), on)
	if err != nil {
		t.Fatal(err)
	}
	if s.Metadata().Configuration[propertyRowIDColumn] == "" || !s.Protocol().has(FeatureRowTracking) {
		t.Fatalf("%v %v", s.Metadata().Configuration, s.Protocol())
	}
}

func TestClusteredTablesKeepTheirStatistics(t *testing.T) {
	st := store.NewMemory()
	const domain = `{"clusteringColumns":[["name"]],"domainName":"delta.clustering"}`
	put(t, st, commitName(0), `{"protocol":{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["clustering","domainMetadata"]}}
{"metaData":{"id":"t","format":{"provider":"parquet"},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"id\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}},{\"name\":\"name\",\"type\":\"string\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{"delta.dataSkippingNumIndexedCols":"1","unknown.key":"kept"}}}
{"domainMetadata":{"domain":"delta.clustering","configuration":"{\"clusteringColumns\":[[\"name\"]],\"domainName\":\"delta.clustering\"}","removed":false}}`)
	table := mustOpen(t, st)
	if _, _, err := table.Commit(t.Context(), &Commit{Operation: "WRITE", Add: []*File{fakeFile("f", 1)}}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "statistics of column name") {
		t.Fatalf("got %v", err)
	}
	s, err := table.Append(t.Context(), idNames(1, 2))
	if err != nil {
		t.Fatal(err)
	}
	for f := range s.Files() {
		if !strings.Contains(f.Stats, `"name":"row 1"`) || !strings.Contains(f.Stats, `"id":1`) {
			t.Fatalf("statistics %s", f.Stats)
		}
	}
	if _, err = table.SetProperties(t.Context(), map[string]string{"a": "b"}); err != nil {
		t.Fatal(err)
	}
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, st).Snapshot()
	if d, _ := s.Domain(clusteringDomain); d != domain || s.Metadata().Configuration["unknown.key"] != "kept" {
		t.Fatalf("domain %s, properties %v", d, s.Metadata().Configuration)
	}
}
