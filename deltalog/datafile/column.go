// Package datafile holds rows as columns, and reads and writes them as the
// Parquet files of Delta tables.
//
// A [Column] is a vector of one field's values, a [Batch] some rows of many
// columns. [NewWriter] writes batches and gathers the statistics that Delta's
// log carries. [Open] reads the files of any writer: as batches, with
// projection, or single rows by their index. Structs, arrays and maps nest in
// each other to any depth.
//
// The format is that of https://parquet.apache.org/docs/file-format/, with the
// types that Delta's protocol maps to it. The package knows neither Delta's log
// nor its deletion vectors.
package datafile

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/millrace-io/millrace/deltalog/schema"
)

var (
	// ErrUnsupported says that a column's type cannot be held, or that a file
	// stores it in a way that is not read. The error names the column.
	ErrUnsupported = errors.New("unsupported column")
	// ErrMismatch says that columns do not fit each other or their schema.
	ErrMismatch = errors.New("columns do not fit")
	// ErrCorrupt says that a file is not what its footer says.
	ErrCorrupt = errors.New("corrupt data file")
)

// storage is the slice that holds a column's values.
type storage uint8

const (
	unsupported storage = iota
	ints                // Column.I64
	floats              // Column.F64
	bytesOf             // Column.Bytes, between offsets
	wide                // Column.Bytes, 16 each, between offsets
	list                // Column.Elem, between offsets
	mapping             // Column.Key and Column.Value, between offsets
	record              // Column.Fields
	nothing             // no slice: all rows are NULL
)

func storageOf(t schema.Type) storage {
	switch t.Kind {
	case schema.Boolean, schema.Byte, schema.Short, schema.Integer, schema.Long,
		schema.Date, schema.Timestamp, schema.TimestampNTZ:
		return ints
	case schema.Decimal:
		if t.Precision <= 18 {
			return ints
		}
		return wide
	case schema.Float, schema.Double:
		return floats
	case schema.String, schema.Binary:
		return bytesOf
	case schema.Array:
		return list
	case schema.Map:
		return mapping
	case schema.Struct:
		return record
	case schema.Void:
		return nothing
	}
	return unsupported
}

// parts returns the types that values of a type are made of; none of a
// primitive one.
func parts(t schema.Type) []*schema.Type {
	var inner []*schema.Type
	switch t.Kind {
	case schema.Array:
		return append(inner, t.Elem)
	case schema.Map:
		return append(inner, t.Key, t.Value)
	case schema.Struct:
		for i := range t.Fields {
			inner = append(inner, &t.Fields[i].Type)
		}
	}
	return inner
}

// Supported returns an error wrapping ErrUnsupported unless a Column can hold
// values of the type: its parts are there and known.
func Supported(t schema.Type) error {
	if storageOf(t) == unsupported {
		return fmt.Errorf("%w: type %s", ErrUnsupported, t.Kind)
	}
	for _, inner := range parts(t) {
		if inner == nil {
			return fmt.Errorf("%w: %s without its parts", ErrUnsupported, t.Kind)
		}
		if err := Supported(*inner); err != nil {
			return err
		}
	}
	return nil
}

// KeySupported returns an error wrapping ErrUnsupported unless values of the
// type can be a key: there is one encoding for equal ones, which neither maps
// nor values that are always NULL have.
func KeySupported(t schema.Type) error {
	if t.Kind == schema.Map || t.Kind == schema.Void {
		return fmt.Errorf("%w: %s in a key", ErrUnsupported, t.Kind)
	}
	for _, inner := range parts(t) {
		if inner != nil {
			if err := KeySupported(*inner); err != nil {
				return err
			}
		}
	}
	return Supported(t)
}

// maxColumnBytes is the most that Column.Bytes holds.
const maxColumnBytes = math.MaxInt32

// Column is a vector of values of one type. Which of the slices holds them
// follows from the type; the others are nil. NULLs take a place in every slice
// of the vector, with a zero value. Columns are read directly or through At;
// they are written through their methods.
type Column struct {
	Type schema.Type
	// Valid tells which rows are not NULL. Its length is the number of rows.
	Valid []bool
	// I64 holds Boolean (0 or 1), Byte, Short, Integer, Long, Date (days),
	// Timestamp and TimestampNTZ (microseconds), and Decimal of precision 18 or
	// less (unscaled).
	I64 []int64
	// F64 holds Float and Double.
	F64 []float64
	// Off holds, for String, Binary, Decimal of precision above 18, Array and
	// Map, where in Bytes, Elem or Key and Value each row begins and ends: row
	// i is from Off[i] to Off[i+1]. Its length is that of Valid plus one; it
	// begins with 0. A column holds at most 2 GiB: whoever appends stays below.
	Off []int32
	// Bytes holds String and Binary, and Decimal of precision above 18 as 16
	// bytes each (none for NULL): the unscaled value, big-endian, two's
	// complement.
	Bytes []byte
	// Elem holds the elements of an Array.
	Elem *Column
	// Key and Value hold the entries of a Map, in no particular order.
	Key, Value *Column
	// Fields holds the fields of a Struct, in the order of its type, each a
	// vector of as many rows. In a row that is NULL they are NULL.
	Fields []*Column

	kind storage // what NewColumn found out about Type
}

func (c *Column) storage() storage {
	if c.kind != unsupported {
		return c.kind
	}
	return storageOf(c.Type)
}

// NewColumn returns an empty column, which panics at the first append of a
// value if [Supported] does not hold for t.
func NewColumn(t schema.Type) *Column {
	c := &Column{Type: t, kind: storageOf(t)}
	switch c.kind {
	case bytesOf, wide:
		c.Off = append(make([]int32, 0, 64), 0)
	case list:
		c.Off = append(make([]int32, 0, 64), 0)
		c.Elem = NewColumn(*t.Elem)
	case mapping:
		c.Off = append(make([]int32, 0, 64), 0)
		c.Key, c.Value = NewColumn(*t.Key), NewColumn(*t.Value)
	case record:
		c.Fields = make([]*Column, len(t.Fields))
		for i := range t.Fields {
			c.Fields[i] = NewColumn(t.Fields[i].Type)
		}
	}
	return c
}

// children returns the columns that a column is made of; nil for primitive
// types.
func (c *Column) children() []*Column {
	switch {
	case c.Elem != nil:
		return []*Column{c.Elem}
	case c.Key != nil:
		return []*Column{c.Key, c.Value}
	}
	return c.Fields
}

// Len returns the number of rows.
func (c *Column) Len() int { return len(c.Valid) }

// Clone returns a copy that shares no memory.
func (c *Column) Clone() *Column {
	out := *c
	out.Valid, out.I64, out.F64 = slices.Clone(c.Valid), slices.Clone(c.I64), slices.Clone(c.F64)
	out.Off, out.Bytes = slices.Clone(c.Off), slices.Clone(c.Bytes)
	switch {
	case c.Elem != nil:
		out.Elem = c.Elem.Clone()
	case c.Key != nil:
		out.Key, out.Value = c.Key.Clone(), c.Value.Clone()
	}
	out.Fields = slices.Clone(c.Fields)
	for i, f := range c.Fields {
		out.Fields[i] = f.Clone()
	}
	return &out
}

// Reset empties the column and keeps its memory.
func (c *Column) Reset() { c.Truncate(0) }

// Truncate drops all rows but the first n, and what was appended to Bytes or to
// the columns within beyond them. A column that has fewer keeps them all.
func (c *Column) Truncate(n int) {
	n = min(n, len(c.Valid))
	c.Valid = c.Valid[:n]
	switch c.storage() {
	case ints:
		c.I64 = c.I64[:n]
	case floats:
		c.F64 = c.F64[:n]
	case bytesOf, wide:
		c.Off = c.Off[:n+1]
		c.Bytes = c.Bytes[:c.Off[n]]
	case list:
		c.Off = c.Off[:n+1]
		c.Elem.Truncate(int(c.Off[n]))
	case mapping:
		c.Off = c.Off[:n+1]
		c.Key.Truncate(int(c.Off[n]))
		c.Value.Truncate(int(c.Off[n]))
	case record:
		for _, f := range c.Fields {
			f.Truncate(n)
		}
	}
}

// Grow makes room for n more rows, and bytes more of Bytes.
func (c *Column) Grow(n, bytes int) {
	c.Valid = grow(c.Valid, n)
	switch c.storage() {
	case ints:
		c.I64 = grow(c.I64, n)
	case floats:
		c.F64 = grow(c.F64, n)
	case bytesOf, wide:
		c.Off = grow(c.Off, n)
		c.Bytes = grow(c.Bytes, bytes)
	case list, mapping:
		c.Off = grow(c.Off, n)
	case record:
		for _, f := range c.Fields {
			f.Grow(n, 0)
		}
	}
}

func grow[T any](s []T, n int) []T {
	if cap(s)-len(s) >= n {
		return s
	}
	return append(make([]T, 0, max(len(s)+n, 2*cap(s))), s...)
}

// AppendNull appends a NULL.
func (c *Column) AppendNull() {
	switch c.storage() {
	case ints:
		c.I64 = append(c.I64, 0)
	case floats:
		c.F64 = append(c.F64, 0)
	case bytesOf, wide, list, mapping:
		c.Off = append(c.Off, c.Off[len(c.Off)-1])
	case record:
		for _, f := range c.Fields {
			f.AppendNull()
		}
	}
	c.Valid = append(c.Valid, false)
}

// AppendInt appends a value that is held in I64, or, to a Decimal of precision
// above 18, the unscaled value. It is not checked against the type's range.
func (c *Column) AppendInt(v int64) {
	if len(c.Off) > 0 {
		c.AppendDecimal128(v>>63, uint64(v))
		return
	}
	c.I64 = append(c.I64, v)
	c.Valid = append(c.Valid, true)
}

// AppendBool appends a Boolean.
func (c *Column) AppendBool(v bool) {
	var i int64
	if v {
		i = 1
	}
	c.AppendInt(i)
}

// AppendFloat appends a Float or Double. A Float is not rounded: v must be one
// exactly, or NaN.
func (c *Column) AppendFloat(v float64) {
	c.F64 = append(c.F64, v)
	c.Valid = append(c.Valid, true)
}

// AppendBytes appends a String or Binary. It copies b.
func (c *Column) AppendBytes(b []byte) {
	c.Bytes = append(c.Bytes, b...)
	c.endBytes()
}

// AppendString appends a String or Binary.
func (c *Column) AppendString(s string) {
	c.Bytes = append(c.Bytes, s...)
	c.endBytes()
}

// endBytes ends a row whose bytes were appended to Bytes.
func (c *Column) endBytes() {
	if len(c.Bytes) > maxColumnBytes {
		panic("datafile: a column holds at most 2 GiB")
	}
	c.Off = append(c.Off, int32(len(c.Bytes)))
	c.Valid = append(c.Valid, true)
}

// AppendDecimal128 appends the unscaled value hi·2⁶⁴ + lo of a Decimal of
// precision above 18.
func (c *Column) AppendDecimal128(hi int64, lo uint64) {
	var b [16]byte
	putDecimal128(&b, hi, lo)
	c.AppendBytes(b[:])
}

// EndArray appends an Array of the elements that were appended to Elem since
// the last row ended.
func (c *Column) EndArray() {
	if len(c.Elem.Valid) > math.MaxInt32 {
		panic("datafile: a column holds at most 2³¹ elements")
	}
	c.Off = append(c.Off, int32(len(c.Elem.Valid)))
	c.Valid = append(c.Valid, true)
}

// EndMap appends a Map of the entries that were appended to Key and Value since
// the last row ended.
func (c *Column) EndMap() {
	if len(c.Key.Valid) > math.MaxInt32 {
		panic("datafile: a column holds at most 2³¹ elements")
	}
	c.Off = append(c.Off, int32(len(c.Key.Valid)))
	c.Valid = append(c.Valid, true)
}

// EndStruct appends a Struct of the values, or NULLs, that were appended to each
// of Fields since the last row ended.
func (c *Column) EndStruct() { c.Valid = append(c.Valid, true) }

// AppendFrom appends a copy of a row of src, which is of the same type.
func (c *Column) AppendFrom(src *Column, row int) {
	if !src.Valid[row] {
		c.AppendNull()
		return
	}
	switch c.storage() {
	case ints:
		c.I64 = append(c.I64, src.I64[row])
		c.Valid = append(c.Valid, true)
	case floats:
		c.AppendFloat(src.F64[row])
	case bytesOf, wide:
		c.AppendBytes(src.At(row))
	case list:
		for i := src.Off[row]; i < src.Off[row+1]; i++ {
			c.Elem.AppendFrom(src.Elem, int(i))
		}
		c.EndArray()
	case mapping:
		for i := src.Off[row]; i < src.Off[row+1]; i++ {
			c.Key.AppendFrom(src.Key, int(i))
			c.Value.AppendFrom(src.Value, int(i))
		}
		c.EndMap()
	case record:
		for i, f := range c.Fields {
			f.AppendFrom(src.Fields[i], row)
		}
		c.EndStruct()
	}
}

// At returns the bytes of a row whose values are in Bytes; none for NULL. They
// are the column's own, valid until it changes.
func (c *Column) At(row int) []byte {
	from, to := c.Off[row], c.Off[row+1]
	return c.Bytes[from:to:to]
}

// Decimal128 returns the unscaled value hi·2⁶⁴ + lo of a Decimal of any
// precision; 0 for NULL.
func (c *Column) Decimal128(row int) (hi int64, lo uint64) {
	if len(c.Off) == 0 {
		return c.I64[row] >> 63, uint64(c.I64[row])
	}
	if !c.Valid[row] {
		return 0, 0
	}
	return getDecimal128(c.At(row))
}

// SizeBytes estimates the memory that the rows take.
func (c *Column) SizeBytes() int {
	n := len(c.Valid) + 8*len(c.I64) + 8*len(c.F64) + 4*len(c.Off) + len(c.Bytes)
	for _, in := range c.children() {
		n += in.SizeBytes()
	}
	return n
}

// Equal tells whether a row equals a row of another column of the same type.
// NULL equals NULL, NaN equals NaN, and 0.0 differs from -0.0. Maps are equal
// that have the same entries, in whatever order.
func (c *Column) Equal(row int, o *Column, other int) bool {
	if c.Valid[row] != o.Valid[other] {
		return false
	}
	if !c.Valid[row] {
		return true
	}
	switch c.storage() {
	case ints:
		return c.I64[row] == o.I64[other]
	case floats:
		return canonicalBits(c.F64[row]) == canonicalBits(o.F64[other])
	case bytesOf, wide:
		return string(c.At(row)) == string(o.At(other))
	case list:
		from, n := int(c.Off[row]), int(c.Off[row+1]-c.Off[row])
		at := int(o.Off[other])
		if n != int(o.Off[other+1])-at {
			return false
		}
		for i := range n {
			if !c.Elem.Equal(from+i, o.Elem, at+i) {
				return false
			}
		}
		return true
	case mapping:
		return string(appendValue(nil, c, row, false)) == string(appendValue(nil, o, other, false))
	case record:
		for i, f := range c.Fields {
			if !f.Equal(row, o.Fields[i], other) {
				return false
			}
		}
		return true
	}
	return false
}
