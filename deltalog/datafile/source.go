package datafile

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/format"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// source is one field of a file's schema.
type source struct {
	err           error       // why it cannot be read
	field         schema.Type // of the field
	leaf          *parquet.Column
	value         schema.Type // of the leaf
	unit          int64       // of timestamps: nanoseconds; zero for INT96
	list          bool
	maxDefinition byte
	fieldLevel    byte // the definition level from which the field is not NULL
	elemLevel     byte // the one from which there is an element
}

// newSource judges a field. It never fails: what cannot be read is an error
// only to those who want it.
func newSource(c *parquet.Column) *source {
	s := &source{leaf: c}
	if c.Optional() {
		s.fieldLevel = 1
	}
	if !c.Leaf() || c.Repeated() {
		s.err = s.openList(c)
	}
	if s.err != nil {
		return s
	}
	s.maxDefinition = byte(s.leaf.MaxDefinitionLevel())
	if s.value, s.unit, s.err = leafType(s.leaf.Type()); s.err != nil {
		return s
	}
	s.field = s.value
	if s.list {
		s.field = schema.Type{Kind: schema.Array, Elem: &s.value, ElemNull: s.leaf.Optional()}
	}
	return s
}

// openList finds the elements of a LIST, in three levels or in an older form:
// https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#lists
func (s *source) openList(c *parquet.Column) error {
	if c.Repeated() {
		return fmt.Errorf("%w: repeated without a list", ErrUnsupported)
	}
	children := c.Columns()
	if !isList(c) || len(children) != 1 || !children[0].Repeated() {
		return fmt.Errorf("%w: a group", ErrUnsupported)
	}
	s.list = true
	s.elemLevel = s.fieldLevel + 1
	if s.leaf = children[0]; s.leaf.Leaf() {
		return nil // the repeated field is the element
	}
	inner := s.leaf.Columns()
	if len(inner) != 1 || !inner[0].Leaf() || inner[0].Repeated() {
		return fmt.Errorf("%w: a list of groups", ErrUnsupported)
	}
	s.leaf = inner[0]
	return nil
}

func isList(c *parquet.Column) bool {
	lt := c.Type().LogicalType()
	if lt == nil {
		// Older files have the converted type alone.
		ct := c.Type().ConvertedType()
		return ct != nil && *ct == deprecated.List
	}
	_, ok := lt.Value.(*format.ListType)
	return ok
}

// leafType returns the Delta type of a Parquet column, and the unit of its
// timestamps in nanoseconds.
func leafType(t parquet.Type) (schema.Type, int64, error) {
	var logical format.LogicalTypeValue
	if lt := t.LogicalType(); lt != nil {
		logical = lt.Value
	}
	unsupported := fmt.Errorf("%w: Parquet type %s", ErrUnsupported, t)
	kind := func(k schema.Kind) (schema.Type, int64, error) { return schema.Type{Kind: k}, 0, nil }
	switch l := logical.(type) {
	case nil:
	case *format.StringType, *format.EnumType, *format.JsonType:
		return kind(schema.String)
	case *format.DateType:
		return kind(schema.Date)
	case *format.UUIDType, *format.BsonType:
		return kind(schema.Binary)
	case *format.DecimalType:
		d := schema.Type{Kind: schema.Decimal, Precision: int(l.Precision), Scale: int(l.Scale)}
		if d.Precision < 1 || d.Precision > schema.MaxPrecision || d.Scale < 0 || d.Scale > d.Precision {
			return schema.Type{}, 0, unsupported
		}
		return d, 0, nil
	case *format.TimestampType:
		at := schema.Type{Kind: schema.TimestampNTZ}
		if l.IsAdjustedToUTC {
			at.Kind = schema.Timestamp
		}
		switch l.Unit.Value.(type) {
		case *format.MilliSeconds:
			return at, 1_000_000, nil
		case *format.MicroSeconds:
			return at, 1_000, nil
		case *format.NanoSeconds:
			return at, 1, nil
		}
		return schema.Type{}, 0, unsupported
	case *format.IntType:
		if !l.IsSigned {
			return schema.Type{}, 0, unsupported
		}
		switch l.BitWidth {
		case 8:
			return kind(schema.Byte)
		case 16:
			return kind(schema.Short)
		}
	default:
		return schema.Type{}, 0, unsupported
	}
	switch t.Kind() {
	case parquet.Boolean:
		return kind(schema.Boolean)
	case parquet.Int32:
		return kind(schema.Integer)
	case parquet.Int64:
		return kind(schema.Long)
	case parquet.Int96:
		return kind(schema.Timestamp)
	case parquet.Float:
		return kind(schema.Float)
	case parquet.Double:
		return kind(schema.Double)
	case parquet.ByteArray, parquet.FixedLenByteArray:
		return kind(schema.Binary)
	}
	return schema.Type{}, 0, unsupported
}

// typed is one vector of one of Parquet's physical types.
type typed struct {
	bools        []uint8
	i32          []int32
	i64          []int64
	i96          [][3]uint32
	f32          []float32
	f64          []float64
	data         []byte
	starts, ends []uint32 // of byte strings in data
	width        int      // of fixed-length byte strings
}

// reset empties the vector and keeps its memory, but for data, which is
// another's.
func (t *typed) reset() {
	*t = typed{
		bools: t.bools[:0], i32: t.i32[:0], i64: t.i64[:0], i96: t.i96[:0], f32: t.f32[:0], f64: t.f64[:0],
		starts: t.starts[:0], ends: t.ends[:0],
	}
}

// plain decodes n values. Byte strings keep a reference to b.
func (t *typed) plain(physical parquet.Kind, width, n int, b []byte) error {
	if plainBits(physical, width)*uint64(n) > 8*uint64(len(b)) {
		return fmt.Errorf("%w: %d bytes for %d values", ErrCorrupt, len(b), n)
	}
	le := binary.LittleEndian
	switch physical {
	case parquet.Boolean:
		t.bools = unpack(grow(t.bools, n), b, 1, n)
	case parquet.Int32:
		t.i32 = grow(t.i32, n)
		for ; n > 0; n, b = n-1, b[4:] {
			t.i32 = append(t.i32, int32(le.Uint32(b)))
		}
	case parquet.Int64:
		t.i64 = grow(t.i64, n)
		for ; n > 0; n, b = n-1, b[8:] {
			t.i64 = append(t.i64, int64(le.Uint64(b)))
		}
	case parquet.Int96:
		t.i96 = grow(t.i96, n)
		for ; n > 0; n, b = n-1, b[12:] {
			t.i96 = append(t.i96, [3]uint32{le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:])})
		}
	case parquet.Float:
		t.f32 = grow(t.f32, n)
		for ; n > 0; n, b = n-1, b[4:] {
			t.f32 = append(t.f32, math.Float32frombits(le.Uint32(b)))
		}
	case parquet.Double:
		t.f64 = grow(t.f64, n)
		for ; n > 0; n, b = n-1, b[8:] {
			t.f64 = append(t.f64, math.Float64frombits(le.Uint64(b)))
		}
	case parquet.FixedLenByteArray:
		t.data, t.width = b, width
	case parquet.ByteArray:
		return t.plainStrings(n, b)
	default:
		return fmt.Errorf("%w: Parquet type %s", ErrUnsupported, physical)
	}
	return nil
}

// plainBits returns how many bits a value takes at least.
func plainBits(physical parquet.Kind, width int) uint64 {
	switch physical {
	case parquet.Boolean:
		return 1
	case parquet.Int64, parquet.Double:
		return 64
	case parquet.Int96:
		return 96
	case parquet.FixedLenByteArray:
		return 8 * uint64(width)
	}
	return 32 // the length of a byte string, if nothing else
}

func (t *typed) plainStrings(n int, b []byte) error {
	t.data, t.starts, t.ends = b, grow(t.starts, n), grow(t.ends, n)
	at := uint64(0)
	for range n {
		if at+4 > uint64(len(b)) {
			return fmt.Errorf("%w: string beyond its page", ErrCorrupt)
		}
		start := at + 4
		at = start + uint64(binary.LittleEndian.Uint32(b[at:]))
		if at > uint64(len(b)) {
			return fmt.Errorf("%w: string beyond its page", ErrCorrupt)
		}
		t.starts, t.ends = append(t.starts, uint32(start)), append(t.ends, uint32(at))
	}
	return nil
}

// values are those of a page, or of its dictionary by their indexes.
type values struct {
	*typed
	indexes []uint32
	indexed bool
}

// place returns where the value i is.
func (v *values) place(i int) int {
	if v.indexed {
		return int(v.indexes[i])
	}
	return i
}

// bytes returns a byte string of either length.
func (v *values) bytes(i int) []byte {
	i = v.place(i)
	if v.width > 0 {
		return v.data[i*v.width : (i+1)*v.width]
	}
	return v.data[v.starts[i]:v.ends[i]]
}

// converter appends values from..to of a page to dst.
type converter func(dst *Column, v *values, from, to int) error

// converter returns how values of the source become those of type want.
func (s *source) converter(want schema.Type) (converter, error) {
	if err := Supported(want); err != nil {
		return nil, err
	}
	if s.err != nil {
		return nil, s.err
	}
	if s.list != (want.Kind == schema.Array) {
		return nil, s.mismatch(want)
	}
	if s.list {
		want = *want.Elem
	}
	have, physical := s.value, s.leaf.Type().Kind()
	switch want.Kind {
	case schema.Boolean:
		if have.Kind == schema.Boolean {
			return readBooleans, nil
		}
	case schema.Byte, schema.Short, schema.Integer, schema.Long:
		if have.Kind < schema.Byte || have.Kind > want.Kind {
			break
		}
		return readInts(physical)
	case schema.Date:
		if have.Kind == schema.Date && physical == parquet.Int32 {
			return readInts(physical)
		}
	case schema.Float:
		if have.Kind == schema.Float {
			return readFloats, nil
		}
	case schema.Double:
		switch have.Kind {
		case schema.Float:
			return readFloats, nil
		case schema.Double:
			return readDoubles, nil
		}
	case schema.String, schema.Binary:
		if have.Kind == schema.String || have.Kind == schema.Binary {
			return readBytes, nil
		}
	case schema.Timestamp, schema.TimestampNTZ:
		return s.timestamps(want, physical)
	case schema.Decimal:
		if have.Kind == schema.Decimal && have.Scale == want.Scale && have.Precision <= want.Precision {
			return readDecimals(physical, storageOf(want))
		}
	}
	return nil, s.mismatch(want)
}

func (s *source) mismatch(want schema.Type) error {
	return fmt.Errorf("%w: the file holds %s, not %s", ErrMismatch, s.field, want)
}

// valid appends n rows that are not NULL.
func valid(dst *Column, n int) {
	dst.Valid = grow(dst.Valid, n)
	for range n {
		dst.Valid = append(dst.Valid, true)
	}
}

func readBooleans(dst *Column, v *values, from, to int) error {
	for i := from; i < to; i++ {
		dst.I64 = append(dst.I64, int64(v.bools[v.place(i)]))
	}
	valid(dst, to-from)
	return nil
}

func readInts(physical parquet.Kind) (converter, error) {
	switch physical {
	case parquet.Int32:
		return func(dst *Column, v *values, from, to int) error {
			if v.indexed {
				for _, i := range v.indexes[from:to] {
					dst.I64 = append(dst.I64, int64(v.i32[i]))
				}
			} else {
				for _, n := range v.i32[from:to] {
					dst.I64 = append(dst.I64, int64(n))
				}
			}
			valid(dst, to-from)
			return nil
		}, nil
	case parquet.Int64:
		return func(dst *Column, v *values, from, to int) error {
			if v.indexed {
				for _, i := range v.indexes[from:to] {
					dst.I64 = append(dst.I64, v.i64[i])
				}
			} else {
				dst.I64 = append(dst.I64, v.i64[from:to]...)
			}
			valid(dst, to-from)
			return nil
		}, nil
	}
	return nil, fmt.Errorf("%w: integers stored as %s", ErrUnsupported, physical)
}

func readFloats(dst *Column, v *values, from, to int) error {
	for i := from; i < to; i++ {
		dst.F64 = append(dst.F64, float64(v.f32[v.place(i)]))
	}
	valid(dst, to-from)
	return nil
}

func readDoubles(dst *Column, v *values, from, to int) error {
	for i := from; i < to; i++ {
		dst.F64 = append(dst.F64, v.f64[v.place(i)])
	}
	valid(dst, to-from)
	return nil
}

func readBytes(dst *Column, v *values, from, to int) error {
	for i := from; i < to; i++ {
		b := v.bytes(i)
		if len(dst.Bytes)+len(b) > maxColumnBytes {
			return fmt.Errorf("%w: more than 2 GiB in a batch", ErrUnsupported)
		}
		dst.AppendBytes(b)
	}
	return nil
}

// timestamps returns the converter to microseconds, which is exact or fails.
func (s *source) timestamps(want schema.Type, physical parquet.Kind) (converter, error) {
	switch {
	case physical == parquet.Int96:
		return readInt96, nil
	case s.value.Kind != schema.Timestamp && s.value.Kind != schema.TimestampNTZ || physical != parquet.Int64:
		return nil, s.mismatch(want)
	case s.unit == 1000:
		return readInts(physical)
	}
	unit := s.unit
	return func(dst *Column, v *values, from, to int) error {
		for i := from; i < to; i++ {
			t := v.i64[v.place(i)]
			switch {
			case unit == 1 && t%1000 == 0:
				t /= 1000
			case unit == 1_000_000 && t*1000/1000 == t:
				t *= 1000
			default:
				return fmt.Errorf("%w: timestamp is not of microseconds", ErrMismatch)
			}
			dst.I64 = append(dst.I64, t)
		}
		valid(dst, to-from)
		return nil
	}, nil
}

// readInt96 reads the timestamps of old writers: nanoseconds of a day, and a
// Julian day.
func readInt96(dst *Column, v *values, from, to int) error {
	const epoch = 2440588 // the Julian day of 1970-01-01
	for i := from; i < to; i++ {
		t := v.i96[v.place(i)]
		nanos := int64(uint64(t[1])<<32 | uint64(t[0]))
		if nanos%1000 != 0 {
			return fmt.Errorf("%w: timestamp is not of microseconds", ErrMismatch)
		}
		dst.I64 = append(dst.I64, (int64(t[2])-epoch)*86_400_000_000+nanos/1000)
	}
	valid(dst, to-from)
	return nil
}

func readDecimals(physical parquet.Kind, to storage) (converter, error) {
	switch {
	case physical == parquet.Int32 || physical == parquet.Int64:
		narrow, err := readInts(physical)
		if to == ints {
			return narrow, err
		}
		return func(dst *Column, v *values, from, to int) error {
			for i := from; i < to; i++ {
				if at := v.place(i); physical == parquet.Int32 {
					dst.AppendInt(int64(v.i32[at]))
				} else {
					dst.AppendInt(v.i64[at])
				}
			}
			return nil
		}, nil
	case physical != parquet.ByteArray && physical != parquet.FixedLenByteArray:
		return nil, fmt.Errorf("%w: decimals stored as %s", ErrUnsupported, physical)
	}
	return func(dst *Column, v *values, from, until int) error {
		for i := from; i < until; i++ {
			hi, lo, ok := extend(v.bytes(i))
			if to == ints {
				if !ok || hi != int64(lo)>>63 {
					return fmt.Errorf("%w: decimal has more digits than its type", ErrCorrupt)
				}
				dst.AppendInt(int64(lo))
				continue
			}
			if !ok {
				return fmt.Errorf("%w: decimal has more digits than its type", ErrCorrupt)
			}
			dst.AppendDecimal128(hi, lo)
		}
		return nil
	}, nil
}

// extend reads a big-endian number in two's complement of any length; ok is
// false where it exceeds 128 bits.
func extend(b []byte) (hi int64, lo uint64, ok bool) {
	var fill byte
	if len(b) > 0 && b[0]&0x80 != 0 {
		fill = 0xff
	}
	for len(b) > 16 {
		if b[0] != fill || (b[1]^fill)&0x80 != 0 {
			return 0, 0, false
		}
		b = b[1:]
	}
	var buf [16]byte
	for i := range 16 - len(b) {
		buf[i] = fill
	}
	copy(buf[16-len(b):], b)
	return int64(binary.BigEndian.Uint64(buf[:])), binary.BigEndian.Uint64(buf[8:]), true
}
