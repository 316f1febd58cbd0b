package datafile

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// Batch is some rows of named columns, all of one length.
type Batch struct {
	// Names are the columns' names, one for each of Cols.
	Names []string
	Cols  []*Column
	// First is the index in its file of the first row, in batches that were
	// read whole from one.
	First int64
}

// NewBatch returns an empty batch of the schema's columns.
func NewBatch(s *schema.Schema) *Batch {
	b := &Batch{Names: s.Names(), Cols: make([]*Column, len(s.Fields))}
	for i := range s.Fields {
		b.Cols[i] = NewColumn(s.Fields[i].Type)
	}
	return b
}

// Rows returns the number of rows.
func (b *Batch) Rows() int {
	if len(b.Cols) == 0 {
		return 0
	}
	return b.Cols[0].Len()
}

// Column returns the column of that name, or nil.
func (b *Batch) Column(name string) *Column {
	for i, n := range b.Names {
		if n == name {
			return b.Cols[i]
		}
	}
	return nil
}

// Columns returns the columns of those names, in their order, or an error
// wrapping ErrMismatch that names the first that is missing.
func (b *Batch) Columns(names []string) ([]*Column, error) {
	cols := make([]*Column, len(names))
	for i, name := range names {
		if cols[i] = b.Column(name); cols[i] == nil {
			return nil, fmt.Errorf("%w: no column %q", ErrMismatch, name)
		}
	}
	return cols, nil
}

// Reset empties all columns and keeps their memory.
func (b *Batch) Reset() {
	for _, c := range b.Cols {
		c.Reset()
	}
	b.First = 0
}

// SizeBytes estimates the memory that the rows take.
func (b *Batch) SizeBytes() int {
	n := 0
	for _, c := range b.Cols {
		n += c.SizeBytes()
	}
	return n
}

// Clone returns a copy that shares no memory.
func (b *Batch) Clone() *Batch {
	out := &Batch{Names: b.Names, Cols: make([]*Column, len(b.Cols)), First: b.First}
	for i, c := range b.Cols {
		out.Cols[i] = c.Clone()
	}
	return out
}

// Gather returns copies of the rows of those indices, in their order.
func (b *Batch) Gather(rows []int32) *Batch {
	out := &Batch{Names: b.Names, Cols: make([]*Column, len(b.Cols))}
	for i, c := range b.Cols {
		out.Cols[i] = c.gather(rows)
	}
	return out
}

func (c *Column) gather(rows []int32) *Column {
	out := NewColumn(c.Type)
	size := 0
	if len(c.Bytes) > 0 {
		for _, r := range rows {
			size += int(c.Off[r+1] - c.Off[r])
		}
	}
	out.Grow(len(rows), size)
	for _, r := range rows {
		out.AppendFrom(c, int(r))
	}
	return out
}

// AppendRow appends a row of src, whose columns are of the same types in the
// same order.
func (b *Batch) AppendRow(src *Batch, row int) {
	for i, c := range b.Cols {
		c.AppendFrom(src.Cols[i], row)
	}
}

// check returns an error wrapping ErrMismatch unless the columns are whole and
// of one length.
func (b *Batch) check() error {
	if len(b.Names) != len(b.Cols) {
		return fmt.Errorf("%w: %d names for %d columns", ErrMismatch, len(b.Names), len(b.Cols))
	}
	for i, c := range b.Cols {
		if c.Len() != b.Cols[0].Len() {
			return fmt.Errorf("%w: column %q has %d rows, column %q %d",
				ErrMismatch, b.Names[i], c.Len(), b.Names[0], b.Cols[0].Len())
		}
		if err := c.check(); err != nil {
			return fmt.Errorf("column %q: %w", b.Names[i], err)
		}
	}
	return nil
}

func (c *Column) check() error {
	n, ok := len(c.Valid), true
	switch c.storage() {
	case ints:
		ok = len(c.I64) == n
	case floats:
		ok = len(c.F64) == n
	case bytesOf, wide:
		ok = len(c.Off) == n+1 && int(c.Off[n]) == len(c.Bytes)
	case list:
		if ok = len(c.Off) == n+1 && c.Elem != nil && int(c.Off[n]) == c.Elem.Len(); ok {
			return c.Elem.check()
		}
	case mapping:
		ok = len(c.Off) == n+1 && c.Key != nil && c.Value != nil && int(c.Off[n]) == c.Key.Len() && c.Value.Len() == c.Key.Len()
		if ok {
			return errors.Join(c.Key.check(), c.Value.check())
		}
	case record:
		if ok = len(c.Fields) == len(c.Type.Fields); ok {
			return c.checkFields()
		}
	case nothing:
		ok = countNulls(c.Valid) == n
	default:
		return Supported(c.Type)
	}
	if !ok {
		return fmt.Errorf("%w: values and NULLs are not of one length", ErrMismatch)
	}
	return nil
}

// checkFields checks the columns of a Struct.
func (c *Column) checkFields() error {
	for i, f := range c.Fields {
		if f.Len() != c.Len() {
			return fmt.Errorf("%w: field %q has %d rows, its struct %d", ErrMismatch, c.Type.Fields[i].Name, f.Len(), c.Len())
		}
		if err := f.check(); err != nil {
			return err
		}
	}
	return nil
}
