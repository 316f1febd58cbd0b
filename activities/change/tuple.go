package change

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Value kinds of a Tuple, as pgoutput's TupleData spells them.
const (
	Null      byte = 'n'
	Unchanged byte = 'u' // a TOASTed value that was not sent
	Text      byte = 't'
	Binary    byte = 'b'
)

// ErrTuple is the class of every error about the bytes of a tuple.
var ErrTuple = errors.New("malformed tuple")

// MaxColumns is the most columns that a PostgreSQL table can have.
const MaxColumns = 1600

// Tuple is one row as PostgreSQL sent it: a kind and the bytes of each column,
// not interpreted. Values of kinds Null and Unchanged are nil.
type Tuple struct {
	Kinds  []byte
	Values [][]byte
}

// Len returns the number of columns; 0 means that there is no row.
func (t *Tuple) Len() int { return len(t.Kinds) }

// Reset empties t and keeps its memory.
func (t *Tuple) Reset() {
	t.Kinds = t.Kinds[:0]
	t.Values = t.Values[:0]
}

// Append adds a column. The tuple keeps v, not a copy.
func (t *Tuple) Append(kind byte, v []byte) {
	t.Kinds = append(t.Kinds, kind)
	t.Values = append(t.Values, v)
}

// Parse reads one TupleData from the front of b and returns what follows it.
// The values alias b. It reuses t's memory and allocates only to grow.
func (t *Tuple) Parse(b []byte) (rest []byte, err error) {
	t.Reset()
	if len(b) < 2 {
		return b, fmt.Errorf("%w: %d bytes where the column count should be", ErrTuple, len(b))
	}
	n := int(binary.BigEndian.Uint16(b))
	if n > MaxColumns {
		return b, fmt.Errorf("%w: %d columns", ErrTuple, n)
	}
	b = b[2:]
	for i := range n {
		if len(b) == 0 {
			return b, fmt.Errorf("%w: ends before column %d of %d", ErrTuple, i+1, n)
		}
		kind := b[0]
		b = b[1:]
		switch kind {
		case Null, Unchanged:
			t.Append(kind, nil)
		case Text, Binary:
			if len(b) < 4 {
				return b, fmt.Errorf("%w: ends in the length of column %d", ErrTuple, i+1)
			}
			size := binary.BigEndian.Uint32(b)
			b = b[4:]
			if uint64(size) > uint64(len(b)) {
				return b, fmt.Errorf("%w: column %d has %d bytes, %d remain", ErrTuple, i+1, size, len(b))
			}
			t.Append(kind, b[:size:size])
			b = b[size:]
		default:
			return b, fmt.Errorf("%w: column %d has kind %q", ErrTuple, i+1, kind)
		}
	}
	return b, nil
}

// SkipTuple returns what follows the TupleData at the front of b, checking its
// bounds alone.
func SkipTuple(b []byte) (rest []byte, err error) {
	if len(b) < 2 {
		return b, fmt.Errorf("%w: %d bytes where the column count should be", ErrTuple, len(b))
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	for i := range n {
		if len(b) == 0 {
			return b, fmt.Errorf("%w: ends before column %d of %d", ErrTuple, i+1, n)
		}
		kind := b[0]
		b = b[1:]
		switch kind {
		case Null, Unchanged:
		case Text, Binary:
			if len(b) < 4 {
				return b, fmt.Errorf("%w: ends in the length of column %d", ErrTuple, i+1)
			}
			size := binary.BigEndian.Uint32(b)
			b = b[4:]
			if uint64(size) > uint64(len(b)) {
				return b, fmt.Errorf("%w: column %d has %d bytes, %d remain", ErrTuple, i+1, size, len(b))
			}
			b = b[size:]
		default:
			return b, fmt.Errorf("%w: column %d has kind %q", ErrTuple, i+1, kind)
		}
	}
	return b, nil
}

// AppendTuple writes t in TupleData's format.
func AppendTuple(dst []byte, t *Tuple) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(t.Kinds)))
	for i, kind := range t.Kinds {
		dst = append(dst, kind)
		if kind == Text || kind == Binary {
			dst = binary.BigEndian.AppendUint32(dst, uint32(len(t.Values[i])))
			dst = append(dst, t.Values[i]...)
		}
	}
	return dst
}
