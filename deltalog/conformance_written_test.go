package deltalog

import (
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// written is a table that deltalog wrote and what its writer knows of it.
type written struct {
	dir   string
	table *Table
	rand  *rand.Rand
	rows  map[int64][]cell // by id
	where []equals
	past  []moment
	feed  []string        // what the change data feed has to tell, where the table has one
	given map[int64]rowID // where the table has row tracking
	next  int64           // id of the next row that comes
}

// rowID is what row tracking gives a row.
type rowID struct {
	id      int64
	version Version
}

func newWritten(t *testing.T, o CreateOptions) *written {
	t.Helper()
	w := &written{
		dir: t.TempDir(), rand: rand.New(rand.NewPCG(7, uint64(len(t.Name())))),
		rows: map[int64][]cell{}, given: map[int64]rowID{},
	}
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

// expected is what others have to see, but for exceptions.
func (w *written) expected() expected {
	e := expected{rows: w.lines(), where: w.where, past: w.past}
	m := w.table.Snapshot().Metadata()
	if m.enabled(PropertyChangeDataFeed) {
		e.changes = w.feed
	}
	if m.enabled(PropertyRowTracking) {
		for id, row := range w.rows {
			g := w.given[id]
			e.rowIDs = append(e.rowIDs, lineWith(cellLine(w.schema(), row), map[string]any{"_row_id": g.id, "_row_commit_version": int64(g.version)}))
		}
	}
	return e
}

func (w *written) lines() []string {
	var lines []string
	for _, row := range w.rows {
		lines = append(lines, cellLine(w.schema(), row))
	}
	return lines
}

// ask adds conditions that readers are asked for.
func (w *written) ask(column string, values ...any) {
	for _, v := range values {
		w.where = append(w.where, equals{column, v})
	}
}

// keep has readers look at what is now the newest version, when there are others.
func (w *written) keep(at time.Time) {
	w.past = append(w.past, moment{w.table.Snapshot().Version(), at, w.lines()})
}

// tell notes a row of the change data feed at the newest version.
func (w *written) tell(kind string, row []cell) {
	line := cellLine(w.schema(), row)
	w.feed = append(w.feed, lineWith(line, map[string]any{ColumnChangeType: kind, ColumnCommitVersion: int64(w.table.Snapshot().Version())}))
}

// came notes rows that the newest version added, in the order of their file. One
// in the place of another keeps its id, though its file has one for it, too.
func (w *written) came(rows ...[]cell) {
	for _, row := range rows {
		id := row[0].(int64)
		given := rowID{w.next, w.table.Snapshot().Version()}
		if w.rows[id] != nil {
			given.id = w.given[id].id
		}
		w.rows[id], w.given[id] = row, given
		w.next++
	}
}

// draw makes random rows, whose columns of partitions hold what it is given.
func (w *written) draw(first, n int64, partitions map[string]cell) [][]cell {
	s := w.schema()
	var rows [][]cell
	for id := first; id < first+n; id++ {
		row := randomRow(w.rand, s, id)
		for name, v := range partitions {
			row[s.Field(name)] = v
		}
		rows = append(rows, row)
	}
	return rows
}

// append adds random rows with ids from first on, in one file.
func (w *written) append(t *testing.T, first, n int64) {
	t.Helper()
	w.appendRows(t, nil, w.draw(first, n, nil))
}

// appendTo adds random rows to one partition.
func (w *written) appendTo(t *testing.T, first, n int64, partitions map[string]cell) {
	t.Helper()
	w.appendRows(t, partitions, w.draw(first, n, partitions))
}

func (w *written) appendRows(t *testing.T, partitions map[string]cell, rows [][]cell) {
	t.Helper()
	var values map[string]*string
	for name, v := range partitions {
		if values == nil {
			values = map[string]*string{}
		}
		values[name] = partitionCell(v)
	}
	f := writeFile(t, w.table, FileOptions{Partition: values}, cellBatch(w.schema(), rows...))
	if _, err := w.table.CommitAppend(t.Context(), &Commit{Operation: "WRITE", Add: []*File{f}, BlindAppend: true}, nil); err != nil {
		t.Fatal(err)
	}
	w.came(rows...)
	for _, row := range rows {
		w.tell(ChangeInsert, row)
	}
}

// delete takes rows away by their ids.
func (w *written) delete(t *testing.T, ids ...int64) {
	t.Helper()
	_, n, err := w.table.Delete(t.Context(), []string{"id"}, func(b *datafile.Batch, row int) bool { return slices.Contains(ids, b.Cols[0].I64[row]) })
	if err != nil || int(n) != len(ids) {
		t.Fatal(n, err)
	}
	for _, id := range ids {
		w.tell(ChangeDelete, w.rows[id])
		delete(w.rows, id)
	}
}

// upserter opens an upserter by id, which ends with the test.
func (w *written) upserter(t *testing.T) *Upserter {
	t.Helper()
	return w.upserterWith(t, UpserterOptions{Keys: []string{"id"}})
}

func (w *written) upserterWith(t *testing.T, o UpserterOptions) *Upserter {
	t.Helper()
	u, err := OpenUpserter(t.Context(), w.table, t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	return u
}

// upsert puts random rows with the ids, and takes others away.
func (w *written) upsert(t *testing.T, u *Upserter, put, gone []int64) {
	t.Helper()
	up := u.Begin()
	defer up.Abort()
	var rows [][]cell
	for _, id := range put {
		rows = append(rows, randomRow(w.rand, w.schema(), id))
	}
	if err := up.Put(t.Context(), cellBatch(w.schema(), rows...), keysOf(put...)); err != nil {
		t.Fatal(err)
	}
	if err := up.Delete(t.Context(), keysOf(gone...)); err != nil {
		t.Fatal(err)
	}
	if _, err := up.Commit(t.Context(), CommitExtras{}); err != nil {
		t.Fatal(err)
	}
	w.came(rows...)
	for _, id := range gone {
		delete(w.rows, id)
	}
}

// checkpoint writes a checkpoint and deletes all commits that it makes needless,
// so that there is nothing else to read. The commit of its own version stays:
// Delta Kernel refuses a table without.
func (w *written) checkpoint(t *testing.T) {
	t.Helper()
	if err := w.table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	for v := range w.table.Snapshot().Version() {
		if err := w.table.Store().Delete(t.Context(), commitName(v)); err != nil {
			t.Fatal(err)
		}
	}
	w.past = nil
}

// evolve gives the table other columns. change makes of each row what it is in
// them; nil means that rows stay, with NULL in columns that were added at the end.
func (w *written) evolve(t *testing.T, next *schema.Schema, change func(row []cell) []cell) {
	t.Helper()
	was := w.table.Snapshot().Metadata()
	if _, err := w.table.SetSchema(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if w.table.Snapshot().Metadata() == was {
		t.Fatal("the table has these columns already")
	}
	if change != nil {
		for id, row := range w.rows {
			w.rows[id] = change(row)
		}
	}
}

// property sets a property.
func (w *written) property(t *testing.T, key, value string) {
	t.Helper()
	if _, err := w.table.SetProperties(t.Context(), map[string]string{key: value}); err != nil {
		t.Fatal(err)
	}
}

// clone copies a schema, so that its fields can be changed.
func clone(s *schema.Schema) *schema.Schema {
	return &schema.Schema{Fields: slices.Clone(s.Fields)}
}

// widened is a value of one type as it is in another that the first was widened
// to.
func widened(v cell, from, to *schema.Type) cell {
	power := func(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }
	switch v := v.(type) {
	case int64:
		switch {
		case to.Kind == schema.Decimal:
			return new(big.Int).Mul(big.NewInt(v), power(to.Scale))
		case to.Kind == schema.Double:
			return float64(v)
		case from.Kind == schema.Date && to.Kind == schema.TimestampNTZ:
			return v * 86_400_000_000
		}
	case *big.Int:
		return new(big.Int).Mul(v, power(to.Scale-from.Scale))
	case []cell:
		all := []cell{}
		for i, e := range v {
			if from.Kind == schema.Struct {
				all = append(all, widened(e, &from.Fields[i].Type, &to.Fields[i].Type))
			} else {
				all = append(all, widened(e, from.Elem, to.Elem))
			}
		}
		return all
	case entries:
		var all entries
		for _, e := range v {
			all = append(all, [2]cell{widened(e[0], from.Key, to.Key), widened(e[1], from.Value, to.Value)})
		}
		return all
	}
	return v
}
