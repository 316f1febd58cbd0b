package deltalog

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// TestOthersReadWhatIsWritten has every other reader read tables, and compares
// what they read with what the writer knows.
func TestOthersReadWhatIsWritten(t *testing.T) {
	o := otherReaders(t)
	for _, test := range tablesToRead {
		t.Run(test.name, func(t *testing.T) {
			w := test.write(t)
			e := w.expected()
			e.exceptions = test.but
			o.check(t, w.table, w.dir, e)
		})
	}
}

// tablesToRead are tables as they are written, with what readers do not make of
// them.
var tablesToRead = []struct {
	name  string
	but   exceptions
	write func(*testing.T) *written
}{
	{name: "empty", write: func(t *testing.T) *written {
		return newWritten(t, CreateOptions{Schema: primitives()})
	}},
	{name: "append", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: primitives()})
		for i := range int64(4) {
			w.append(t, 100*i, 100)
			w.keep(time.Time{})
		}
		w.ask("id", int64(0), int64(250), int64(400))
		return w
	}},
	{name: "nested", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: nestedTypes()})
		w.append(t, 0, 200)
		w.ask("id", int64(199), int64(200))
		return w
	}},
	{name: "upsert", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: primitives(), Properties: latestProperties(), Features: []string{FeatureDomainMetadata}})
		w.append(t, 0, 300)
		w.append(t, 300, 5)
		w.keep(time.Time{})
		w.upsert(t, w.upserter(t), []int64{1, 2, 3, 150, 1000}, []int64{300, 301, 302, 303, 304, 7})
		w.ask("id", int64(1), int64(7), int64(301), int64(1000))
		return w
	}},
	{name: "many upserts", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: idName(), Properties: latestProperties()})
		u := w.upserter(t)
		for i := range int64(30) {
			put, gone := map[int64]bool{}, map[int64]bool{}
			for range 200 {
				put[w.rand.Int64N(100*(i+1))] = true
			}
			for range 40 {
				if id := w.rand.Int64N(100 * (i + 1)); !put[id] {
					gone[id] = true
				}
			}
			w.upsert(t, u, slices.Sorted(maps.Keys(put)), slices.Sorted(maps.Keys(gone)))
			if i == 20 {
				if err := w.table.Checkpoint(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 5 {
			w.ask("id", w.rand.Int64N(3200))
		}
		return w
	}},
	{name: "nested upsert", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: nestedTypes(), Properties: latestProperties()})
		w.append(t, 0, 50)
		w.upsert(t, w.upserter(t), []int64{1, 49, 50}, []int64{0, 3})
		return w
	}},
	{name: "copies", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: primitives()})
		w.append(t, 0, 50)
		w.append(t, 50, 50)
		u := w.upserterWith(t, UpserterOptions{Keys: []string{"id"}, CopyOnWrite: true})
		w.upsert(t, u, []int64{1, 51, 100}, []int64{0, 3})
		w.ask("id", int64(3), int64(51))
		return w
	}},
	{name: "evolve", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: idName(), Properties: latestProperties()})
		w.append(t, 0, 20)
		u := w.upserter(t)
		more := primitives()
		more.Fields = append(idName().Fields, more.Fields[1:]...)
		w.evolve(t, more, nil)
		w.append(t, 20, 20)
		w.upsert(t, u, []int64{5, 25, 40}, []int64{6, 26})
		return w
	}},
	{name: "checkpoint", write: func(t *testing.T) *written {
		return newCheckpointed(t, nil)
	}},
	{name: "checkpoint with sidecars", write: func(t *testing.T) *written {
		return newCheckpointed(t, map[string]string{PropertyCheckpointPolicy: "v2"})
	}},
	{name: "checkpoint with statistics in columns", write: func(t *testing.T) *written {
		return newCheckpointed(t, map[string]string{propertyStatsAsJSON: "false", propertyStatsAsStruct: "true"})
	}},
	{name: "checkpoint with sidecars and statistics in columns", write: func(t *testing.T) *written {
		return newCheckpointed(t, map[string]string{PropertyCheckpointPolicy: "v2", propertyStatsAsJSON: "false", propertyStatsAsStruct: "true"})
	}},
	{name: "partitioned", write: func(t *testing.T) *written { return newPartitioned(t, "p", nil, hardTexts[1:]...) }},
	{
		name:  "name of a partition column",
		but:   exceptions{refuses: map[string]string{"polars": "Hive schema"}}, // it takes names from folders as they stand
		write: func(t *testing.T) *written { return newPartitioned(t, "p/q%é", nil, hardTexts[1:]...) },
	},
	{name: "partitions with deletion vectors and a checkpoint", write: func(t *testing.T) *written {
		return newPartitionedWithVectors(t, "plain", "other", "NULL", "_hidden")
	}},
	{
		name: "partitions of hard values with deletion vectors and a checkpoint",
		// It does not find the vectors of files in folders whose names are encoded,
		// and reads the rows that they hide.
		but:   exceptions{wrong: []string{"polars"}},
		write: func(t *testing.T) *written { return newPartitionedWithVectors(t, hardTexts[1:]...) },
	},
	{name: "partitions of every type", write: newPartitionedByAll},
	{name: "compacted", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: primitives(), Properties: latestProperties()})
		u := w.upserter(t)
		for i := range int64(10) {
			w.append(t, 20*i, 20)
			w.upsert(t, u, []int64{20 * i, 3}, []int64{20*i + 2, 4})
		}
		c, err := w.table.Compact(t.Context(), CompactOptions{})
		if err != nil || c.Removed < 10 {
			t.Fatal(c, err)
		}
		w.upsert(t, u, []int64{1, 21, 3}, []int64{45, 46})
		return w
	}},
	{name: "clustered", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: primitives(), Properties: latestProperties()})
		u := w.upserter(t)
		for i := range int64(5) {
			w.append(t, 20*i, 20)
			w.upsert(t, u, []int64{20 * i, 7}, []int64{20*i + 2})
		}
		if _, err := w.table.Compact(t.Context(), CompactOptions{ClusterBy: []string{"id"}}); err != nil {
			t.Fatal(err)
		}
		w.append(t, 200, 3)
		w.ask("id", int64(7), int64(22), int64(201))
		return w
	}},
	{name: "mapping by name", but: mappedPartitions, write: func(t *testing.T) *written { return newMapped(t, "name") }},
	{name: "mapping by id", but: mappedPartitions, write: func(t *testing.T) *written { return newMapped(t, "id") }},
	{name: "mapping taken up later", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: nestedTypes(), Properties: latestProperties()})
		u := w.upserter(t)
		w.append(t, 0, 20)
		w.property(t, PropertyColumnMapping, "name")
		w.append(t, 20, 20)
		next := clone(w.schema())
		next.Fields[1].Name = "renamed, with ;{}()=\tall"
		m, err := w.table.Snapshot().Metadata().WithSchema(next)
		if err != nil {
			t.Fatal(err)
		}
		mustCommit(t, w.table, &Commit{Operation: "RENAME COLUMN", Metadata: m})
		w.upsert(t, u, []int64{5, 25, 40}, []int64{6, 26})
		w.checkpoint(t)
		w.upsert(t, u, []int64{7, 25, 41}, []int64{8, 27})
		w.ask("id", int64(5), int64(6), int64(25), int64(41))
		return w
	}},
	{name: "types widened", write: newWidened},
	{name: "change data feed", write: func(t *testing.T) *written {
		return newFed(t, false, "a", "b", nil)
	}},
	{name: "change data feed with deletion vectors", write: func(t *testing.T) *written {
		return newFed(t, true, "a", "b", nil)
	}},
	{
		name:  "change data feed in partitions of hard values",
		but:   exceptions{refusesChanges: map[string]string{"delta-rs": "not found"}}, // it does not decode the paths of change files
		write: func(t *testing.T) *written { return newFed(t, false, "a/b", "c=d ü", nil) },
	},
	{name: "row tracking", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: nestedTypes(), Properties: map[string]string{PropertyRowTracking: "true", PropertyDeletionVectors: "true"}})
		u := w.upserter(t)
		w.append(t, 0, 20)
		w.append(t, 20, 5)
		w.upsert(t, u, []int64{3, 22, 30}, []int64{4})
		w.delete(t, 5, 6, 24)
		w.checkpoint(t)
		w.append(t, 40, 5)
		w.upsert(t, u, []int64{3, 41}, []int64{0})
		w.ask("id", int64(3), int64(24))
		return w
	}},
	{name: "in-commit timestamps", write: func(t *testing.T) *written { return newTimed(t, false) }},
	{name: "in-commit timestamps taken up later", write: func(t *testing.T) *written { return newTimed(t, true) }},
}

// partitionCell is how the log writes a value of a partition column.
func partitionCell(v cell) *string {
	var text string
	switch v := v.(type) {
	case nil:
		return nil
	case int64:
		text = strconv.FormatInt(v, 10)
	case string:
		text = v
	}
	return &text
}

// newCheckpointed has files with deletion vectors, domains and applications in a
// checkpoint that follows another one, and changes after it.
func newCheckpointed(t *testing.T, more map[string]string) *written {
	t.Helper()
	properties := latestProperties()
	maps.Copy(properties, more)
	w := newWritten(t, CreateOptions{
		Schema: primitives(), Properties: properties, Features: []string{FeatureDomainMetadata},
		Txns: []Txn{{AppID: "an application", Version: 7}}, Domains: []Domain{{Name: "a.domain", Configuration: `{"at":1}`}},
	})
	u := w.upserter(t)
	for i := range int64(5) {
		w.append(t, 50*i, 50)
		w.upsert(t, u, []int64{50 * i, 50*i + 1}, []int64{50*i + 2})
		if i == 2 {
			if err := w.table.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if i == 3 {
			w.checkpoint(t)
			w.keep(time.Time{})
		}
	}
	w.ask("id", int64(1), int64(2), int64(52), int64(160), int64(249))
	return w
}

// newPartitioned writes a file of four rows for NULL and for each of many values of
// a column, and numbers them in another. An empty text would be NULL.
func newPartitioned(t *testing.T, column string, properties map[string]string, texts ...string) *written {
	t.Helper()
	s := &schema.Schema{Fields: []schema.Field{
		nullable("id", kindOf(schema.Long)), nullable(column, kindOf(schema.String)), nullable("day", kindOf(schema.Date)), nullable("n", kindOf(schema.Integer)),
	}}
	w := newWritten(t, CreateOptions{Schema: s, PartitionColumns: []string{column, "n"}, Properties: properties})
	c := &Commit{Operation: "WRITE", BlindAppend: true}
	var all [][]cell
	for i, text := range append([]cell{nil}, stringCells(texts)...) {
		in := map[string]cell{column: text, "n": int64(i)}
		if i == 3 {
			in["n"] = nil
		}
		rows := w.draw(int64(10*i), 4, in)
		c.Add = append(c.Add, writeFile(t, w.table, FileOptions{Partition: map[string]*string{column: partitionCell(text), "n": partitionCell(in["n"])}}, cellBatch(s, rows...)))
		all = append(all, rows...)
		if text != nil {
			w.ask(column, text)
		}
	}
	mustCommit(t, w.table, c)
	w.came(all...)
	w.ask("n", int64(2), int64(3))
	return w
}

// newPartitionedWithVectors takes rows of some files away, before and after a
// checkpoint.
func newPartitionedWithVectors(t *testing.T, texts ...string) *written {
	t.Helper()
	w := newPartitioned(t, "p", latestProperties(), texts...)
	var gone []int64
	for i := range texts {
		gone = append(gone, int64(10*i), int64(10*i+3))
	}
	w.delete(t, gone...)
	w.delete(t, 11)
	w.checkpoint(t)
	w.appendTo(t, 1000, 3, map[string]cell{"p": texts[0], "n": int64(-1)})
	w.delete(t, 12, 22, 1001)
	w.ask("id", int64(11), int64(12), int64(21), int64(1002))
	return w
}

func stringCells(texts []string) []cell {
	cells := make([]cell, len(texts))
	for i, text := range texts {
		cells[i] = text
	}
	return cells
}

// newPartitionedByAll has a partition column of every type that may be one, with
// values at the ends of their range.
func newPartitionedByAll(t *testing.T) *written {
	t.Helper()
	s := primitives()
	s.Fields = append(s.Fields, nullable("value", kindOf(schema.Long)))
	var columns []string
	for _, f := range s.Fields[1 : len(s.Fields)-1] {
		if f.Type.Kind != schema.Binary {
			columns = append(columns, f.Name)
		}
	}
	w := newWritten(t, CreateOptions{Schema: s, PartitionColumns: columns})
	rows := w.draw(0, 40, nil)
	clear(rows[0][1:]) // NULL everywhere
	for _, row := range rows {
		if at := s.Field("text"); row[at] == "" {
			row[at] = nil // as it is for a partition
		}
	}
	if _, err := w.table.Append(t.Context(), cellBatch(s, rows...)); err != nil {
		t.Fatal(err)
	}
	w.came(rows...)
	for f := range w.table.Snapshot().Files() {
		for _, column := range []string{"f32", "f64"} { // Delta Kernel reads no "Inf"
			if v := f.Partition[column]; v != nil && strings.HasSuffix(*v, "Inf") {
				t.Errorf("a value of %s is written as %s", column, *v)
			}
		}
	}
	return w
}

// mappedPartitions are what DuckDB reads of tables with partitions and column
// mapping: NULL for the values of partition columns.
var mappedPartitions = exceptions{nulls: map[string][]string{"duckdb": {"part"}}}

// newMapped has a table with column mapping whose columns are renamed, dropped
// and added while there are rows, in partitions, in files with deletion vectors and
// in a checkpoint.
func newMapped(t *testing.T, mode string) *written {
	t.Helper()
	s := nestedTypes()
	s.Fields = append(s.Fields, nullable("part", kindOf(schema.String)), nullable("gone", kindOf(schema.Integer)), nullable("old name", kindOf(schema.String)))
	properties := latestProperties()
	properties[PropertyColumnMapping] = mode
	w := newWritten(t, CreateOptions{Schema: s, PartitionColumns: []string{"part"}, Properties: properties})
	texts := []cell{nil, "plain", "a/b", "100%", "c=d", "ü 😀", "x+y&z", "%41", "it's", " "}
	for i, text := range texts {
		w.appendTo(t, int64(10*i), 3, map[string]cell{"part": text})
	}
	next := clone(w.schema())
	gone, name := s.Field("gone"), s.Field("old name")
	next.Fields[name].Name = "name, with ;{}()=\n\tall"
	pair := &next.Fields[s.Field("pair")]
	pair.Type.Fields = append(pair.Type.Fields[:len(pair.Type.Fields):len(pair.Type.Fields)], nullable("more", kindOf(schema.Timestamp)))
	next.Fields = append(next.Fields[:gone], next.Fields[name], nullable("gone", kindOf(schema.Date)))
	m, err := w.table.Snapshot().Metadata().WithSchema(next)
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, w.table, &Commit{Operation: "CHANGE COLUMNS", Metadata: m})
	for id, row := range w.rows {
		w.rows[id] = append(row[:gone:gone], row[name], nil)
	}
	w.appendTo(t, 1000, 5, map[string]cell{"part": "a/b"})
	w.delete(t, 1, 12, 20, 21, 22, 1003)
	w.checkpoint(t)
	w.appendTo(t, 2000, 5, map[string]cell{"part": "it's"})
	w.delete(t, 2001)
	w.ask("id", int64(0), int64(12), int64(1001), int64(2001))
	for _, text := range texts[1:] {
		w.ask("part", text)
	}
	return w
}

// newWidened widens types of columns while there are rows, in files with deletion
// vectors and in a checkpoint.
func newWidened(t *testing.T) *written {
	t.Helper()
	of := func(kinds ...schema.Type) *schema.Schema {
		s := &schema.Schema{Fields: []schema.Field{nullable("id", kindOf(schema.Long))}}
		for i, k := range kinds {
			s.Fields = append(s.Fields, nullable(string(rune('a'+i)), k))
		}
		return s
	}
	pair := func(k schema.Kind) schema.Type {
		return schema.Type{Kind: schema.Struct, Fields: []schema.Field{nullable("v", kindOf(k))}}
	}
	properties := latestProperties()
	properties[PropertyTypeWidening] = "true"
	narrow := of(kindOf(schema.Byte), kindOf(schema.Short), kindOf(schema.Integer), kindOf(schema.Integer), kindOf(schema.Float), decimalOf(5, 2), kindOf(schema.Date),
		kindOf(schema.Byte), kindOf(schema.Long), listOf(pair(schema.Byte)), mapTypeOf(kindOf(schema.Short), kindOf(schema.Short)), pair(schema.Date), decimalOf(9, 2))
	wide := of(kindOf(schema.Short), kindOf(schema.Integer), kindOf(schema.Long), kindOf(schema.Double), kindOf(schema.Double), decimalOf(20, 4), kindOf(schema.TimestampNTZ),
		decimalOf(12, 2), decimalOf(22, 2), listOf(pair(schema.Integer)), mapTypeOf(kindOf(schema.Integer), kindOf(schema.Long)), pair(schema.TimestampNTZ), decimalOf(12, 4))
	w := newWritten(t, CreateOptions{Schema: narrow, Properties: properties})
	u := w.upserter(t)
	w.append(t, 0, 60)
	w.append(t, 60, 20)
	w.upsert(t, u, []int64{1, 2, 80}, []int64{3})
	w.evolve(t, wide, func(row []cell) []cell {
		next := []cell{row[0]}
		for i := range narrow.Fields[1:] {
			next = append(next, widened(row[i+1], &narrow.Fields[i+1].Type, &wide.Fields[i+1].Type))
		}
		return next
	})
	w.append(t, 100, 40)
	w.upsert(t, u, []int64{5, 81, 101}, []int64{6, 82, 102, 62})
	w.checkpoint(t)
	w.upsert(t, u, []int64{5, 82, 103}, []int64{9})
	w.ask("id", int64(1), int64(3), int64(5), int64(70), int64(103))
	return w
}

// newFed has rows inserted, deleted and updated under a change data feed.
func newFed(t *testing.T, vectors bool, partitions ...cell) *written {
	t.Helper()
	properties := map[string]string{PropertyChangeDataFeed: "true"}
	if vectors {
		properties[PropertyDeletionVectors] = "true"
	}
	s := nestedTypes()
	s.Fields = append(s.Fields, nullable("part", kindOf(schema.String)))
	w := newWritten(t, CreateOptions{Schema: s, PartitionColumns: []string{"part"}, Properties: properties})
	for i, text := range partitions {
		w.appendTo(t, int64(10*i), 4, map[string]cell{"part": text})
	}
	w.delete(t, 1, 2, 11)
	w.delete(t, 20, 21, 22, 23) // a whole file
	w.update(t, 12, 13)
	w.delete(t, 13)
	w.ask("id", int64(1), int64(12))
	return w
}

// update changes rows that are in one file, which stays with a deletion vector or
// is copied, and tells of it in the change data feed. It is how a program does it
// that uses this package.
func (w *written) update(t *testing.T, ids ...int64) {
	t.Helper()
	s := w.table.Snapshot()
	columns := w.schema()
	part := columns.Field("part")
	c := &Commit{Read: s, Operation: "UPDATE"}
	told := withChangeType(columns)
	var before, after, changed [][]cell
	for _, id := range ids {
		row := randomRow(w.rand, columns, id)
		row[part] = w.rows[id][part]
		before, after = append(before, w.rows[id]), append(after, row)
		changed = append(changed, append(w.rows[id][:len(row):len(row)], ChangeUpdateFrom), append(row[:len(row):len(row)], ChangeUpdateTo))
	}
	in := map[string]*string{"part": partitionCell(after[0][part])}
	for f := range s.Files() {
		hit := roaring64.New()
		var rest [][]cell
		for live, err := range s.ReadFile(t.Context(), f, ReadOptions{Columns: []string{"id"}}) {
			if err != nil {
				t.Fatal(err)
			}
			for i, at := range live.Index {
				id := live.Cols[0].I64[i]
				if slices.Contains(ids, id) {
					hit.Add(uint64(at))
				} else {
					rest = append(rest, w.rows[id])
				}
			}
		}
		if hit.IsEmpty() {
			continue
		}
		c.Remove = append(c.Remove, f)
		if !s.Metadata().enabled(PropertyDeletionVectors) {
			c.Add = append(c.Add, writeFile(t, w.table, FileOptions{Partition: in}, cellBatch(columns, append(rest, after...)...)))
			continue
		}
		was, err := s.ReadVector(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		was.Or(hit)
		vectors, err := w.table.WriteVectors(t.Context(), []*roaring64.Bitmap{was})
		if err != nil {
			t.Fatal(err)
		}
		c.Add = append(c.Add, f.WithVector(vectors[0]), writeFile(t, w.table, FileOptions{Partition: in}, cellBatch(columns, after...)))
	}
	out, err := w.table.NewChangeFile(t.Context(), FileOptions{Partition: in})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Abort()
	if err := out.Write(cellBatch(told, changed...)); err != nil {
		t.Fatal(err)
	}
	f, err := out.Close()
	if err != nil {
		t.Fatal(err)
	}
	c.ChangeData = []*File{f}
	mustCommit(t, w.table, c)
	for i, id := range ids {
		w.tell(ChangeUpdateFrom, before[i])
		w.tell(ChangeUpdateTo, after[i])
		w.rows[id] = after[i]
	}
}

// newTimed has versions of the years from 2031 on, by a clock of its own, which
// in-commit timestamps follow: the times of files say otherwise. Where they are
// not there from the first version on, they are taken up in 2033.
func newTimed(t *testing.T, later bool) *written {
	t.Helper()
	s := &schema.Schema{Fields: append(idName().Fields, nullable("Z local", kindOf(schema.TimestampNTZ)))}
	properties := map[string]string{}
	if !later {
		properties[PropertyInCommitTimestamps] = "true"
	}
	w := newWritten(t, CreateOptions{Schema: s, Properties: properties})
	for year := 2031; year <= 2036; year++ {
		w.table.now = func() time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
		if later && year == 2033 {
			w.property(t, PropertyInCommitTimestamps, "true")
		}
		w.append(t, int64(10*year), 3)
		switch {
		case later && year < 2033:
			w.keep(time.Time{}) // of the time of its file
		case year < 2036: // the newest version has no end
			w.keep(time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC))
		}
	}
	return w
}
