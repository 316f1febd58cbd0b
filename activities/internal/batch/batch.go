package batch

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deltalog/datafile"
)

var (
	// ErrShape means that an event does not fit its batch's layout: it is of
	// another shape of the table, or lacks what its operation needs.
	ErrShape = errors.New("event does not fit the layout")
	// ErrOrder means that positions do not ascend.
	ErrOrder = errors.New("positions out of order")
	// ErrFull means that the batch cannot address the bytes of another row. It
	// comes at about 2 GiB in one column, far beyond any sensible batch: commit
	// or stage what there is, reset, and append the event again.
	ErrFull = errors.New("batch is full")
)

// ConvertError says which column of an event could not become a Delta value,
// and whose. It holds no values. Its cause is of class
// [pgtype.ErrUnrepresentable] or [pgtype.ErrMalformed].
type ConvertError struct {
	// Table is schema.name.
	Table string
	// Column is the column's name in PostgreSQL, Type its type's.
	Column, Type string
	// Key names the columns that identify the row; none where it has no key.
	Key []string
	// Position finds the row in the stream; zero for a row that is no change.
	Position change.Position
	// Err is the cause.
	Err error
}

// Error names the column, the position unless it is zero, and the key's columns.
func (e *ConvertError) Error() string {
	row := ""
	if !e.Position.IsZero() {
		row = fmt.Sprintf(", row at %s", e.Position)
	}
	key := "without key"
	if len(e.Key) > 0 {
		key = "key (" + strings.Join(e.Key, ", ") + ")"
	}
	return fmt.Sprintf("convert %s column %q of type %s%s, %s: %v", e.Table, e.Column, e.Type, row, key, e.Err)
}

// Unwrap returns the cause.
func (e *ConvertError) Unwrap() error { return e.Err }

// Batch holds consecutive changes of one shape of one table, as columns. It is
// not safe for concurrent use.
type Batch struct {
	layout    *Layout
	rows      datafile.Batch
	meta      []*datafile.Column // the columns of MetaFields
	identity  []int              // source columns whose change is a change of identity
	unchanged [][]byte           // the source columns' Delta names
	version   []byte             // the fingerprint's text
	count     int
	size      int64
	rowSize   int64 // bytes of a row besides its values' own
	first     change.Position
	last      change.Position
}

// New returns an empty batch of layout l.
func New(l *Layout) *Batch {
	b := &Batch{layout: l}
	version, _ := l.Table.Fingerprint.MarshalText()
	b.version = version
	for _, f := range l.HistoryFields() {
		b.rows.Names = append(b.rows.Names, f.Name)
		b.rows.Cols = append(b.rows.Cols, datafile.NewColumn(f.Type))
	}
	for i := range l.Fields {
		b.unchanged = append(b.unchanged, []byte(l.Fields[i].Name))
	}
	b.meta = b.rows.Cols[len(l.Fields):]
	b.identity = l.Table.Key
	if l.Table.Identity == change.IdentityKey {
		b.identity = nil
		for i := range l.Table.Columns {
			if l.Table.Columns[i].Identity {
				b.identity = append(b.identity, i)
			}
		}
	}
	// A validity byte and eight bytes of value or offset a column.
	b.rowSize = 9*int64(len(b.rows.Cols)) + int64(len(version))
	return b
}

// Layout returns what New was given.
func (b *Batch) Layout() *Layout { return b.layout }

// Rows returns how many history rows b holds; some events take two.
func (b *Batch) Rows() int { return b.count }

// Size estimates the memory that b's rows take, in bytes.
func (b *Batch) Size() int64 { return b.size }

// First returns the position of the first event since the last Reset, or the
// zero Position.
func (b *Batch) First() change.Position { return b.first }

// Last returns the position of the last event since the last Reset, or the zero
// Position.
func (b *Batch) Last() change.Position { return b.last }

// Columns returns the history-shaped rows. They are valid until the next Append
// or Reset.
func (b *Batch) Columns() *datafile.Batch { return &b.rows }

// keptBytes is how much memory for long values a column keeps across Reset.
const keptBytes = 16 << 20

// Reset empties b. It keeps b's memory, but for what rows of unusual length
// took.
func (b *Batch) Reset() {
	for i, c := range b.rows.Cols {
		if cap(c.Bytes) > keptBytes || c.Elem != nil && cap(c.Elem.Bytes) > keptBytes {
			b.rows.Cols[i] = datafile.NewColumn(c.Type) // meta is a part of Cols
			continue
		}
		c.Reset()
	}
	b.count, b.size = 0, 0
	b.first, b.last = change.Position{}, change.Position{}
}

// Append adds an event, whose position must be after those before it; copied
// rows may share theirs. It copies what it needs. After an error b is what it
// was before.
//
// An update that changes the identity becomes two rows at one position: a
// delete of the old identity, then an update with the new row. Where rows have
// no key, every update does. Columns that were not sent are taken from the old
// row where that carries them, and are NULL and listed in UnchangedColumn where
// not.
func (b *Batch) Append(ev *change.Event) error {
	if ev.Table != b.layout.Table && (ev.Table == nil || ev.Table.Fingerprint != b.layout.Table.Fingerprint) {
		return fmt.Errorf("append to a batch of %s shape %s: %w", b.layout.Table, b.layout.Table.Fingerprint, ErrShape)
	}
	if b.count > 0 {
		if c := ev.Position.Compare(b.last); c < 0 || c == 0 && ev.Op != change.Read {
			return fmt.Errorf("append %s at %s after %s: %w", b.layout.Table, ev.Position, b.last, ErrOrder)
		}
	}
	before, size := b.count, b.size
	if err := b.append(ev); err != nil {
		b.truncate(before)
		b.size = size
		return err
	}
	if before == 0 {
		b.first = ev.Position
	}
	b.last = ev.Position
	return nil
}

func (b *Batch) append(ev *change.Event) error {
	switch ev.Op {
	case change.Create, change.Read:
		return b.row(ev, ev.Op, &ev.New, nil)
	case change.Delete:
		return b.row(ev, ev.Op, &ev.Old, nil)
	case change.Truncate:
		for _, c := range b.rows.Cols[:len(b.layout.Fields)] {
			c.AppendNull()
		}
		b.end(ev, ev.Op, false)
		return nil
	case change.Update:
		if b.layout.Table.Multiset() || ev.Old.Len() > 0 && b.identityChanged(&ev.Old, &ev.New) {
			if err := b.row(ev, change.Delete, &ev.Old, nil); err != nil {
				return err
			}
		}
		return b.row(ev, ev.Op, &ev.New, &ev.Old)
	}
	return b.misfit(ev, fmt.Sprintf("operation %q", byte(ev.Op)))
}

// identityChanged compares what PostgreSQL sent, byte by byte. Where it finds a
// change that is none, the two rows that follow have one key, which is as true.
func (b *Batch) identityChanged(old, now *change.Tuple) bool {
	n := len(b.layout.Fields)
	if old.Len() != n || now.Len() != n {
		return true // row refuses it
	}
	for _, i := range b.identity {
		if now.Kinds[i] == change.Unchanged {
			continue
		}
		if old.Kinds[i] != now.Kinds[i] || !bytes.Equal(old.Values[i], now.Values[i]) {
			return true
		}
	}
	return false
}

// row appends one history row, of tuple t. Columns of t that were not sent are
// taken from old, which may be nil or absent.
func (b *Batch) row(ev *change.Event, op change.Op, t, old *change.Tuple) error {
	if t.Len() != len(b.layout.Fields) {
		return b.misfit(ev, fmt.Sprintf("a row of %d columns", t.Len()))
	}
	if old != nil && old.Len() != t.Len() {
		if old.Len() > 0 {
			return b.misfit(ev, fmt.Sprintf("an old row of %d columns", old.Len()))
		}
		old = nil
	}
	unchanged := false
	for i, kind := range t.Kinds {
		c, v := b.rows.Cols[i], t.Values[i]
		if kind == change.Unchanged && old != nil && (old.Kinds[i] == change.Text || old.Kinds[i] == change.Binary) {
			kind, v = old.Kinds[i], old.Values[i]
		}
		if len(v) > math.MaxInt32-maxGrowth-held(c) {
			return fmt.Errorf("append %s at %s: %w", b.layout.Table, ev.Position, ErrFull)
		}
		var err error
		switch kind {
		case change.Text:
			err = b.layout.Text[i](c, v)
		case change.Binary:
			if b.layout.Binary[i] == nil {
				return b.misfit(ev, fmt.Sprintf("column %q in binary", b.layout.Table.Columns[i].Name))
			}
			err = b.layout.Binary[i](c, v)
		case change.Null:
			c.AppendNull()
		case change.Unchanged:
			if !b.mayLack(op, i) {
				return b.misfit(ev, fmt.Sprintf("column %q not sent", b.layout.Table.Columns[i].Name))
			}
			c.AppendNull()
			if op == change.Update {
				b.meta[metaUnchanged].Elem.AppendBytes(b.unchanged[i])
				unchanged = true
			}
		default:
			return b.misfit(ev, fmt.Sprintf("a value of kind %q", kind))
		}
		if err != nil {
			return b.convertError(ev, i, err)
		}
		b.size += int64(len(v))
	}
	b.end(ev, op, unchanged)
	return nil
}

// maxGrowth bounds how many bytes longer a value can be in its column than as
// it was sent: a binary numeric prints 131072 digits and 16383 more.
const maxGrowth = 1 << 20

// held returns the greatest length of c that an offset has to reach.
func held(c *datafile.Column) int {
	n := len(c.Bytes)
	if c.Elem != nil {
		n = max(len(c.Elem.Valid), len(c.Elem.Bytes))
	}
	return n
}

// mayLack tells whether a row of operation op can do without column i: updates
// without any but the key, and deletes likewise.
func (b *Batch) mayLack(op change.Op, i int) bool {
	if op != change.Update && op != change.Delete || b.layout.Table.Multiset() {
		return false
	}
	for _, k := range b.layout.Table.Key {
		if k == i {
			return false
		}
	}
	return true
}

var opText = [256][]byte{
	change.Create: {byte(change.Create)}, change.Update: {byte(change.Update)}, change.Delete: {byte(change.Delete)},
	change.Read: {byte(change.Read)}, change.Truncate: {byte(change.Truncate)},
}

// end appends the columns of MetaFields.
func (b *Batch) end(ev *change.Event, op change.Op, unchanged bool) {
	b.meta[metaOp].AppendBytes(opText[op])
	b.meta[metaEpoch].AppendInt(int64(ev.Epoch))
	b.meta[metaCommitLSN].AppendInt(int64(ev.CommitLSN))
	b.meta[metaOrdinal].AppendInt(int64(ev.Ordinal))
	b.meta[metaCommitTS].AppendInt(ev.CommitMicros)
	b.meta[metaXID].AppendInt(int64(ev.XID))
	b.meta[metaSchemaVersion].AppendBytes(b.version)
	if unchanged {
		b.meta[metaUnchanged].EndArray()
	} else {
		b.meta[metaUnchanged].AppendNull()
	}
	b.meta[metaIncarnation].AppendInt(b.layout.Incarnation)
	b.count++
	b.size += b.rowSize
}

func (b *Batch) truncate(rows int) {
	for _, c := range b.rows.Cols {
		c.Truncate(rows)
	}
	b.count = rows
}

func (b *Batch) misfit(ev *change.Event, what string) error {
	return fmt.Errorf("append %s of op %q at %s: %w: %s", b.layout.Table, byte(ev.Op), ev.Position, ErrShape, what)
}

func (b *Batch) convertError(ev *change.Event, column int, err error) error {
	t := b.layout.Table
	c := &t.Columns[column]
	e := &ConvertError{Table: t.String(), Column: c.Name, Type: c.Type.Name, Position: ev.Position, Err: err}
	if c.Type.Array {
		e.Type += "[]"
	}
	for _, k := range b.identity {
		e.Key = append(e.Key, t.Columns[k].Name)
	}
	return e
}
