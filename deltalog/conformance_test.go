package deltalog

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// written is a table that deltalog wrote and what its writer knows of it.
type written struct {
	dir   string
	table *Table
	rows  map[int64]string // lines, by the id of their row
	rand  *rand.Rand
}

func newWritten(t *testing.T, o CreateOptions) *written {
	t.Helper()
	w := &written{dir: t.TempDir(), rows: map[int64]string{}, rand: rand.New(rand.NewPCG(7, uint64(len(t.Name()))))}
	st, err := store.NewLocal(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	if w.table, err = Create(t.Context(), st, o); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *written) schema() *schema.Schema { return w.table.Snapshot().Metadata().Schema }

// append adds random rows with ids from first on, in one file.
func (w *written) append(t *testing.T, first, n int64) {
	t.Helper()
	s := w.schema()
	b := datafile.NewBatch(s)
	for id := first; id < first+n; id++ {
		row := randomRow(w.rand, s, id)
		appendCells(b, row)
		w.rows[id] = cellLine(s, row)
	}
	f := writeFile(t, w.table, FileOptions{}, b)
	if _, err := w.table.CommitAppend(t.Context(), &Commit{Operation: "WRITE", Add: []*File{f}, BlindAppend: true}, nil); err != nil {
		t.Fatal(err)
	}
}

// upserter opens an upserter by id, which ends with the test.
func (w *written) upserter(t *testing.T) *Upserter {
	t.Helper()
	u, err := OpenUpserter(t.Context(), w.table, t.TempDir(), UpserterOptions{Keys: []string{"id"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	return u
}

// upsert puts random rows with the ids, and takes others away.
func (w *written) upsert(t *testing.T, u *Upserter, put, gone []int64) {
	t.Helper()
	s := w.schema()
	up := u.Begin()
	defer up.Abort()
	b := datafile.NewBatch(s)
	for _, id := range put {
		row := randomRow(w.rand, s, id)
		appendCells(b, row)
		w.rows[id] = cellLine(s, row)
	}
	if err := up.Put(t.Context(), b, keysOf(put...)); err != nil {
		t.Fatal(err)
	}
	for _, id := range gone {
		delete(w.rows, id)
	}
	if err := up.Delete(t.Context(), keysOf(gone...)); err != nil {
		t.Fatal(err)
	}
	if _, err := up.Commit(t.Context(), CommitExtras{}); err != nil {
		t.Fatal(err)
	}
}

func (w *written) lines() []string { return slices.Collect(maps.Values(w.rows)) }

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

// tablesToRead are tables as they are written, with what readers do not take of
// them.
var tablesToRead = []struct {
	name     string
	refusals map[string]string
	write    func(*testing.T) *written
}{
	{name: "empty", write: func(t *testing.T) *written {
		return newWritten(t, CreateOptions{Schema: primitives()})
	}},
	{name: "append", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: primitives()})
		for i := range int64(4) {
			w.append(t, 100*i, 100)
		}
		return w
	}},
	{name: "nested", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: nestedTypes()})
		w.append(t, 0, 200)
		return w
	}},
	{name: "upsert", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: primitives(), Properties: latestProperties(), Features: []string{FeatureDomainMetadata}})
		w.append(t, 0, 300)
		w.append(t, 300, 5)
		w.upsert(t, w.upserter(t), []int64{1, 2, 3, 150, 1000}, []int64{300, 301, 302, 303, 304, 7})
		return w
	}},
	{name: "nested upsert", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: nestedTypes(), Properties: latestProperties()})
		w.append(t, 0, 50)
		w.upsert(t, w.upserter(t), []int64{1, 49, 50}, []int64{0, 3})
		return w
	}},
	{name: "evolve", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: idName(), Properties: latestProperties()})
		w.append(t, 0, 20)
		more := primitives()
		more.Fields = append(idName().Fields, more.Fields[1:]...)
		m := w.table.Snapshot().Metadata().Clone()
		m.Schema = more
		for id, line := range w.rows { // the rows have NULL in what is added
			var have map[string]any
			decodeLine(t, line, &have)
			for _, f := range more.Fields {
				if _, ok := have[f.Name]; !ok {
					have[f.Name] = nil
				}
			}
			w.rows[id] = jsonText(have)
		}
		u := w.upserter(t)
		mustCommit(t, w.table, &Commit{Operation: "ADD COLUMNS", Metadata: m, Protocol: w.table.Snapshot().Protocol().For(m)})
		w.append(t, 20, 20)
		w.upsert(t, u, []int64{5, 25, 40}, []int64{6, 26})
		return w
	}},
	{name: "checkpoint", write: func(t *testing.T) *written {
		w := newWritten(t, CreateOptions{Schema: primitives(), Properties: latestProperties(), Features: []string{FeatureDomainMetadata}})
		u := w.upserter(t)
		for i := range int64(5) {
			w.append(t, 50*i, 50)
			w.upsert(t, u, []int64{50 * i, 50*i + 1}, []int64{50*i + 2})
			if i == 2 || i == 3 {
				if err := w.table.Checkpoint(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		return w
	}},
	{name: "partitioned", write: func(t *testing.T) *written { return newPartitioned(t, "p") }},
	{
		name:     "name of a partition column",
		refusals: map[string]string{"polars": "Hive schema"}, // it takes names from folders as they stand
		write:    func(t *testing.T) *written { return newPartitioned(t, "p/q%é") },
	},
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
}

// newPartitioned writes a file for each of many values of a column, and numbers
// them in another.
func newPartitioned(t *testing.T, column string) *written {
	t.Helper()
	s := &schema.Schema{Fields: []schema.Field{
		nullable("id", kindOf(schema.Long)), nullable(column, kindOf(schema.String)), nullable("day", kindOf(schema.Date)), nullable("n", kindOf(schema.Integer)),
	}}
	w := newWritten(t, CreateOptions{Schema: s, PartitionColumns: []string{column, "n"}})
	var add []*File
	for i, text := range append([]cell{nil}, stringCells(hardTexts)...) {
		if text == "" {
			continue // it is NULL as a value of a partition
		}
		row := randomRow(w.rand, s, int64(i))
		row[1], row[3] = text, int64(i)
		if i == 3 {
			row[3] = nil
		}
		f := writeFile(t, w.table, FileOptions{Partition: map[string]*string{column: partitionCell(text), "n": partitionCell(row[3])}}, cellBatch(s, row))
		add = append(add, f)
		w.rows[int64(i)] = cellLine(s, row)
	}
	mustCommit(t, w.table, &Commit{Operation: "WRITE", Add: add, BlindAppend: true})
	return w
}

func stringCells(texts []string) []cell {
	cells := make([]cell, len(texts))
	for i, text := range texts {
		cells[i] = text
	}
	return cells
}

// TestOthersReadWhatIsWritten has every other reader read tables, and compares
// what they read with what the writer knows.
func TestOthersReadWhatIsWritten(t *testing.T) {
	o := otherReaders(t)
	for _, test := range tablesToRead {
		t.Run(test.name, func(t *testing.T) {
			w := test.write(t)
			o.check(t.Context(), t, w.table, w.dir, w.lines(), test.refusals)
		})
	}
}
