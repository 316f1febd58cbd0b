package batch

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deltalog/datafile"
)

// ErrNoOldRow means that an update keeps values of a row that, by the changes
// before it, does not exist.
var ErrNoOldRow = errors.New("update of a row that does not exist")

// Net is what a run of changes amounts to. Row numbers count the rows that were
// folded. To apply it: look up what Upserts fill from keys; empty the table if
// Truncated; delete Deletes, Removed and the rows that Upserts replace; put
// Upserts and Inserted.
type Net struct {
	// Truncated tells that every row from before the run is gone.
	Truncated bool
	// Upserts are the rows that exist after the run, by key, in order of Row.
	Upserts []Upsert
	// Deletes are the keys without a row after the run, as
	// [datafile.AppendKey] encodes them, in the order that the run touched
	// them. Not every one of them had a row before it.
	Deletes [][]byte
	// Inserted and Removed are set instead where rows have no key, ascending.
	// Each of Removed takes one equal row from before the run.
	Inserted, Removed []int32
	// First and Last are the positions of the first and last row that counted;
	// both zero when none did.
	First, Last change.Position
}

// Empty tells that the run changes nothing.
func (n *Net) Empty() bool {
	return !n.Truncated && len(n.Upserts)+len(n.Deletes)+len(n.Inserted)+len(n.Removed) == 0
}

// Upsert puts one row.
type Upsert struct {
	// Key is the row's key, as [datafile.AppendKey] encodes it.
	Key []byte
	// Row is where the row is, but for the columns of Fill.
	Row int32
	// Fill lists the columns that Row lacks, for PostgreSQL did not send them.
	Fill []Fill
}

// Fill says where an unchanged value is.
type Fill struct {
	// Column is an index into the source columns.
	Column int
	// FromRow is the folded row that has the value, or -1.
	FromRow int32
	// FromKey is the key of the row that has the value in the table as it was
	// before the run. It is set where FromRow is -1.
	FromKey []byte
}

// Fold returns the net effect of history-shaped rows in order of position, as
// a [Batch] holds them or a history table does. Rows at or below after are
// passed over. Both rows of one position must be in one run.
//
// keyCols names the columns that key the table; with multiset there are none,
// and rows are equal when all of sourceCols are. Rows that break the order are
// [ErrOrder], updates of nothing [ErrNoOldRow], and rows that are no history
// [ErrShape]. The result refers to memory of its own.
func Fold(rows *datafile.Batch, keyCols []string, multiset bool, sourceCols []string, after change.Position) (*Net, error) {
	f, err := newFolder(rows, keyCols, multiset, sourceCols)
	if err != nil {
		return nil, err
	}
	for row := range rows.Rows() {
		at := f.position(row)
		if at.Compare(after) <= 0 {
			continue
		}
		if err := f.step(at, row); err != nil {
			return nil, fmt.Errorf("fold row at %s: %w", at, err)
		}
	}
	if multiset {
		f.finishMultiset()
	} else {
		f.finishKeyed()
	}
	return &f.net, nil
}

// folder is the state of one Fold.
type folder struct {
	op, epoch, commitLSN, ordinal, unchanged *datafile.Column

	key      []*datafile.Column // what rows are found by
	source   map[string]int     // source column indices by name
	multiset bool

	index index
	fills []fill
	next  []int32 // multiset: the row below each row in its stack, or -1

	scratch []byte
	lastOp  change.Op
	old     state // what the delete before an update found, when they are one change
	oldKey  span
	net     Net
}

// span is a piece of the index's key bytes.
type span struct{ from, to int }

// fill is a Fill whose key is a span.
type fill struct {
	column  int
	fromRow int32
	fromKey span
}

// presence is what a run says about a key.
type presence byte

const (
	untouched presence = iota // nothing: the row is as before the run
	absent                    // there is no row
	present                   // there is this row
)

// state is what the run so far made of one key.
type state struct {
	presence presence
	row      int32 // with a multiset, the top of a stack of equal rows, or -1
	fills    span  // into folder.fills
}

func newFolder(rows *datafile.Batch, keyCols []string, multiset bool, sourceCols []string) (*folder, error) {
	f := &folder{
		multiset: multiset,
		source:   make(map[string]int, len(sourceCols)),
		index:    newIndex(rows.Rows()),
	}
	for name, dst := range map[string]**datafile.Column{
		OpColumn: &f.op, EpochColumn: &f.epoch, CommitLSNColumn: &f.commitLSN,
		OrdinalColumn: &f.ordinal, UnchangedColumn: &f.unchanged,
	} {
		if *dst = rows.Column(name); *dst == nil {
			return nil, fmt.Errorf("fold: %w: no column %s", ErrShape, name)
		}
	}
	for i, name := range sourceCols {
		f.source[name] = i
	}
	if multiset {
		keyCols = sourceCols
		f.next = make([]int32, rows.Rows())
	}
	if len(keyCols) == 0 {
		return nil, fmt.Errorf("fold: %w: no key", ErrShape)
	}
	for _, name := range keyCols {
		c := rows.Column(name)
		if c == nil {
			return nil, fmt.Errorf("fold: %w: no column %q", ErrShape, name)
		}
		f.key = append(f.key, c)
	}
	return f, nil
}

func (f *folder) position(row int) change.Position {
	return change.Position{
		Epoch:     uint32(f.epoch.I64[row]),
		CommitLSN: change.LSN(f.commitLSN.I64[row]),
		Ordinal:   uint64(f.ordinal.I64[row]),
	}
}

func (f *folder) step(at change.Position, row int) error {
	text := f.op.At(row)
	if len(text) != 1 {
		return fmt.Errorf("%w: an operation of %d bytes", ErrShape, len(text))
	}
	op := change.Op(text[0])
	pair := at == f.net.Last && f.lastOp == change.Delete && op == change.Update
	if at.Compare(f.net.Last) <= 0 && !pair && !(at == f.net.Last && op == change.Read && f.lastOp == change.Read) {
		return fmt.Errorf("after %s: %w", f.net.Last, ErrOrder)
	}
	if f.net.First.IsZero() {
		f.net.First = at
	}
	f.net.Last, f.lastOp = at, op
	if op == change.Truncate {
		f.truncate()
		return nil
	}
	if f.multiset {
		return f.stepMultiset(op, row)
	}
	return f.stepKeyed(op, row, pair)
}

func (f *folder) truncate() {
	f.net.Truncated = true
	f.net.Removed = nil
	f.index.clear()
	f.fills = f.fills[:0]
}

func (f *folder) stepKeyed(op change.Op, row int, pair bool) error {
	f.scratch = datafile.AppendKey(f.scratch[:0], f.key, row)
	e := f.index.find(f.scratch)
	switch op {
	case change.Delete:
		f.old, f.oldKey = e.state, e.key
		e.state = state{presence: absent}
	case change.Create, change.Read:
		e.state = state{presence: present, row: int32(row)}
	case change.Update:
		old, oldKey := e.state, e.key
		if pair {
			old, oldKey = f.old, f.oldKey
		}
		fills, err := f.fill(row, old, oldKey)
		if err != nil {
			return err
		}
		e.state = state{presence: present, row: int32(row), fills: fills}
	default:
		return fmt.Errorf("%w: operation %q", ErrShape, byte(op))
	}
	return nil
}

// fill finds the values that row lacks in the row that it replaced.
func (f *folder) fill(row int, old state, oldKey span) (span, error) {
	s := span{len(f.fills), len(f.fills)}
	if !f.unchanged.Valid[row] {
		return s, nil
	}
	if old.presence == absent || old.presence == untouched && f.net.Truncated {
		return s, ErrNoOldRow
	}
	for i := int(f.unchanged.Off[row]); i < int(f.unchanged.Off[row+1]); i++ {
		column, ok := f.source[string(f.unchanged.Elem.At(i))]
		if !ok {
			continue // the table has no such column any more
		}
		from := fill{column: column, fromRow: -1, fromKey: oldKey}
		if old.presence == present {
			from = f.trace(old, column)
		}
		f.fills = append(f.fills, from)
	}
	s.to = len(f.fills)
	return s, nil
}

// trace finds a column's value in a row of this run.
func (f *folder) trace(old state, column int) fill {
	for _, earlier := range f.fills[old.fills.from:old.fills.to] {
		if earlier.column == column {
			return earlier
		}
	}
	return fill{column: column, fromRow: old.row}
}

func (f *folder) finishKeyed() {
	puts := 0
	for i := range f.index.entries {
		if f.index.entries[i].presence == present {
			puts++
		}
	}
	f.net.Upserts = make([]Upsert, 0, puts)
	var fills []Fill
	for i := range f.index.entries {
		e := &f.index.entries[i]
		switch e.presence {
		case absent:
			// After a truncate there is nothing left to delete.
			if !f.net.Truncated {
				f.net.Deletes = append(f.net.Deletes, f.index.bytes(e.key))
			}
		case present:
			u := Upsert{Key: f.index.bytes(e.key), Row: e.row}
			from := len(fills)
			for _, l := range f.fills[e.fills.from:e.fills.to] {
				out := Fill{Column: l.column, FromRow: l.fromRow}
				if l.fromRow < 0 {
					out.FromKey = f.index.bytes(l.fromKey)
				}
				fills = append(fills, out)
			}
			if len(fills) > from {
				u.Fill = fills[from:len(fills):len(fills)]
			}
			f.net.Upserts = append(f.net.Upserts, u)
		}
	}
	slices.SortFunc(f.net.Upserts, func(a, b Upsert) int { return cmp.Compare(a.Row, b.Row) })
}

// stepMultiset keeps a stack of the rows that the run inserted for each
// distinct row. A delete takes the top one, or one from before the run.
func (f *folder) stepMultiset(op change.Op, row int) error {
	if f.unchanged.Valid[row] {
		return fmt.Errorf("%w: columns not sent where rows have no key", ErrShape)
	}
	f.scratch = datafile.AppendCanonical(f.scratch[:0], f.key, row)
	e := f.index.find(f.scratch)
	if e.presence == untouched {
		e.state = state{presence: absent, row: -1}
	}
	switch op {
	case change.Create, change.Read, change.Update:
		f.next[row] = e.row
		e.state = state{presence: present, row: int32(row)}
	case change.Delete:
		if e.row < 0 {
			f.net.Removed = append(f.net.Removed, int32(row))
			break
		}
		e.row = f.next[e.row]
	default:
		return fmt.Errorf("%w: operation %q", ErrShape, byte(op))
	}
	return nil
}

func (f *folder) finishMultiset() {
	for i := range f.index.entries {
		for row := f.index.entries[i].row; row >= 0; row = f.next[row] {
			f.net.Inserted = append(f.net.Inserted, row)
		}
	}
	slices.Sort(f.net.Inserted)
}
