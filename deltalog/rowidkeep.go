package deltalog

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// A row that moves to another file, or that is updated, keeps its id in a hidden
// column there; one that moves keeps its commit version in another. Where these
// are NULL, id and version follow from the file, as for rows that have not moved.

// hiddenColumn is a column of files that is not in the table's schema. It has its
// name under column mapping too.
func hiddenColumn(name string, kind schema.Kind) schema.Field {
	text, err := json.Marshal(map[string]string{"delta.columnMapping.physicalName": name})
	if err != nil {
		panic(err) // strings always have a form
	}
	return schema.Field{Name: name, Type: schema.Type{Kind: kind}, Nullable: true, Metadata: text}
}

// withHidden returns a schema with hidden columns at its end.
func withHidden(s *schema.Schema, hidden ...schema.Field) *schema.Schema {
	n := len(s.Fields)
	return &schema.Schema{Fields: append(s.Fields[:n:n], hidden...)}
}

// rowIDColumns returns the hidden columns of ids and of commit versions. Without
// ok, rows have no ids to be kept.
func (m *Metadata) rowIDColumns() (columns [2]schema.Field, ok bool, err error) {
	if !m.enabled(PropertyRowTracking) {
		return columns, false, nil
	}
	for i, property := range []string{propertyRowIDColumn, propertyRowCommitColumn} {
		name := m.Configuration[property]
		if name == "" {
			return columns, false, fmt.Errorf("%w: feature %s without property %s", ErrCorrupt, FeatureRowTracking, property)
		}
		columns[i] = hiddenColumn(name, schema.Long)
	}
	return columns, true, nil
}

// withRowIDs returns a snapshot that reads the hidden columns too, at the end, for
// [keepRowIDs] to complete. Where rows have no ids to be kept, ok is false.
func (s *Snapshot) withRowIDs() (with *Snapshot, ok bool, err error) {
	columns, ok, err := s.metadata.rowIDColumns()
	if !ok || err != nil {
		return s, false, err
	}
	n := *s
	n.metadata = s.metadata.Clone()
	n.metadata.Schema = withHidden(s.metadata.Schema, columns[:]...)
	return &n, true, nil
}

// keepRowIDs returns rows, read with their hidden columns, with the ids and the
// commit versions that they have in their file. Rows of a file that is not in the
// table yet have none but those that are written.
func keepRowIDs(live Live, f *File, uncommitted bool) (*datafile.Batch, error) {
	ids := f.tracking()
	if uncommitted {
		return live.Batch, nil
	}
	if ids.BaseRowID == nil || ids.DefaultRowCommitVersion == nil {
		return nil, fmt.Errorf("%w: file %s: its rows have no ids", ErrCorrupt, f.Path)
	}
	n := len(live.Cols) - 2
	b := &datafile.Batch{Names: live.Names, Cols: slices.Clone(live.Cols), First: live.First}
	b.Cols[n] = filled(b.Cols[n], func(row int) int64 { return *ids.BaseRowID + live.Index[row] })
	b.Cols[n+1] = filled(b.Cols[n+1], func(int) int64 { return *ids.DefaultRowCommitVersion })
	return b, nil
}

// filled returns a column of Longs with other values in place of NULL.
func filled(c *datafile.Column, value func(row int) int64) *datafile.Column {
	out := datafile.NewColumn(c.Type)
	out.Grow(c.Len(), 0)
	for row, valid := range c.Valid {
		if valid {
			out.AppendInt(c.I64[row])
		} else {
			out.AppendInt(value(row))
		}
	}
	return out
}

// noRowID stands for the id of a row that has none yet.
const noRowID = -1

// rowIDKeeper has the rows of an upsert keep the ids of those that they replace.
type rowIDKeeper struct {
	column schema.Field
	// plain are the paths of files that are known to lack the column.
	plain map[string]bool
}

// maxPlain is how many files a keeper remembers.
const maxPlain = 1 << 16

// keepIDs sets up that rows keep their ids, where both the version that the upsert
// began on and what it makes of the table ask for it.
func (b *Upsert) keepIDs() error {
	b.ids = nil
	before, ok, err := b.snap.metadata.rowIDColumns()
	if !ok || err != nil || b.u.finder.multiset {
		return err
	}
	after, ok, err := b.reading().metadata.rowIDColumns()
	if !ok || err != nil {
		return err
	}
	if before[0].Name != after[0].Name {
		return fmt.Errorf("%w: property %s has changed", ErrInvalid, propertyRowIDColumn)
	}
	if len(b.u.plain) > maxPlain || b.u.plain == nil {
		b.u.plain = map[string]bool{}
	}
	b.ids = &rowIDKeeper{column: before[0], plain: b.u.plain}
	return nil
}

// replacedIDs returns, by row, the ids of the rows that rows with these keys
// replace.
func (b *Upsert) replacedIDs(ctx context.Context, keys [][]byte) (*datafile.Column, error) {
	var list []replaced
	err := b.find(keys, b.sorted(keys), func(i int32, at location) {
		list = append(list, replaced{at, int(i)})
	})
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(keys))
	for i := range ids {
		ids[i] = noRowID
	}
	if err := b.idsOf(ctx, list, func(i int, id int64) { ids[i] = id }); err != nil {
		return nil, err
	}
	c := datafile.NewColumn(b.ids.column.Type)
	for _, id := range ids {
		if id == noRowID {
			c.AppendNull()
		} else {
			c.AppendInt(id)
		}
	}
	return c, nil
}

// replaced is a row that another takes the place of, and which.
type replaced struct {
	at location
	by int
}

// idsOf tells yield the ids of rows.
func (b *Upsert) idsOf(ctx context.Context, list []replaced, yield func(by int, id int64)) error {
	slices.SortFunc(list, func(a, b replaced) int {
		return cmp.Or(cmp.Compare(a.at.file, b.at.file), cmp.Compare(a.at.row, b.at.row))
	})
	for from, to := 0, 0; from < len(list); from = to {
		for to = from; to < len(list) && list[to].at.file == list[from].at.file; to++ {
		}
		if err := b.idsIn(ctx, list[from:to], yield); err != nil {
			return err
		}
	}
	return nil
}

// idsIn does the same for rows of one file.
func (b *Upsert) idsIn(ctx context.Context, list []replaced, yield func(by int, id int64)) error {
	own := b.mine[list[0].at.file]
	if own != nil && own.ids != nil {
		for _, r := range list {
			yield(r.by, own.ids[r.at.row])
		}
		return nil
	}
	f, err := b.closed(list[0].at.file)
	if err != nil {
		return err
	}
	base := f.tracking().BaseRowID
	if base == nil && own == nil {
		return fmt.Errorf("%w: file %s: its rows have no ids", ErrCorrupt, f.Path)
	}
	var kept *rowPicker
	if !b.ids.plain[f.Path] {
		kept, err = b.snap.pick(ctx, f, &schema.Schema{Fields: []schema.Field{b.ids.column}})
		if err != nil {
			return err
		}
		defer kept.close()
		if kept.d.Schema().Field(b.ids.column.Name) < 0 {
			b.ids.plain[f.Path], kept = true, nil
		}
	}
	for part := range slices.Chunk(list, pickRows) {
		var rows []int64
		for _, r := range part {
			if n := len(rows); n == 0 || rows[n-1] != int64(r.at.row) {
				rows = append(rows, int64(r.at.row))
			}
		}
		var ids *datafile.Column
		if kept != nil {
			got, err := kept.rows(ctx, rows)
			if err != nil {
				return err
			}
			ids = got.Cols[0]
		}
		n := 0
		for _, r := range part {
			if rows[n] != int64(r.at.row) {
				n++
			}
			switch {
			case ids != nil && ids.Valid[n]:
				yield(r.by, ids.I64[n])
			case own != nil:
				yield(r.by, noRowID)
			default:
				yield(r.by, *base+int64(r.at.row))
			}
		}
	}
	return nil
}

// checkIDs makes sure, where others changed the table, that the rows which are
// replaced now are those whose ids the rows of this upsert have. found are those
// that were found, by the places of the rows that replace them.
func (b *Upsert) checkIDs(ctx context.Context, places []location, found []replaced) error {
	ids := make([]int64, len(places))
	for i := range ids {
		ids[i] = noRowID
	}
	if err := b.idsOf(ctx, found, func(by int, id int64) { ids[by] = id }); err != nil {
		return err
	}
	for i, at := range places {
		f := b.mine[at.file]
		switch has := f.ids[at.row]; {
		case has == ids[i]:
		case has == noRowID:
			f.lostIDs = true
		default:
			return fmt.Errorf("%w: a row that was to be updated is another one now", ErrConflict)
		}
	}
	return nil
}
