package datafile

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/parquet-go/parquet-go"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// converter appends values from..to of a page to dst.
type converter func(dst *Column, v *values, from, to int) error

// converter returns how stored values become those of a wanted type: the same
// one, or one that holds them all, as the protocol's table of type widening
// says. Nothing is rounded; what would have to be is ErrMismatch.
func (s *stored) converter(want schema.Type) (converter, error) {
	have := s.typ
	switch want.Kind {
	case schema.Boolean:
		if have.Kind == schema.Boolean {
			return readBooleans, nil
		}
	case schema.Byte, schema.Short, schema.Integer, schema.Long:
		if have.Kind >= schema.Byte && have.Kind <= want.Kind {
			return s.readInts()
		}
	case schema.Date:
		if have.Kind == schema.Date && s.physical == parquet.Int32 {
			return s.readInts()
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
		case schema.Byte, schema.Short, schema.Integer:
			return s.readIntsAsDoubles()
		}
	case schema.String, schema.Binary:
		if have.Kind == schema.String || have.Kind == schema.Binary {
			return readBytes, nil
		}
	case schema.Timestamp, schema.TimestampNTZ:
		if have.Kind == schema.Date && want.Kind == schema.TimestampNTZ && s.physical == parquet.Int32 {
			return readDatesAsTimestamps, nil
		}
		return s.timestamps(want)
	case schema.Decimal:
		return s.decimals(want)
	}
	return nil, s.mismatch(want)
}

func (s *stored) mismatch(want schema.Type) error {
	return fmt.Errorf("%w: the file holds %s, not %s", ErrMismatch, s.typ, want)
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

func (s *stored) readInts() (converter, error) {
	if s.unsigned && s.typ.Kind == schema.Long && s.physical == parquet.Int32 {
		return readUint32s, nil
	}
	return readInts(s.physical)
}

func readUint32s(dst *Column, v *values, from, to int) error {
	for i := from; i < to; i++ {
		dst.I64 = append(dst.I64, int64(uint32(v.i32[v.place(i)])))
	}
	valid(dst, to-from)
	return nil
}

// int returns the integer i of a vector of one of two physical types.
func (v *values) int(physical parquet.Kind, i int) int64 {
	at := v.place(i)
	if physical == parquet.Int32 {
		return int64(v.i32[at])
	}
	return v.i64[at]
}

func (s *stored) readIntsAsDoubles() (converter, error) {
	physical := s.physical
	return func(dst *Column, v *values, from, to int) error {
		for i := from; i < to; i++ {
			dst.F64 = append(dst.F64, float64(v.int(physical, i)))
		}
		valid(dst, to-from)
		return nil
	}, nil
}

func readDatesAsTimestamps(dst *Column, v *values, from, to int) error {
	const day = 86_400_000_000
	for i := from; i < to; i++ {
		d := int64(v.i32[v.place(i)])
		if d > math.MaxInt64/day || d < math.MinInt64/day {
			return fmt.Errorf("%w: date beyond what a timestamp holds", ErrMismatch)
		}
		dst.I64 = append(dst.I64, d*day)
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
func (s *stored) timestamps(want schema.Type) (converter, error) {
	switch {
	case s.physical == parquet.Int96:
		return readInt96, nil
	case s.typ.Kind != schema.Timestamp && s.typ.Kind != schema.TimestampNTZ || s.physical != parquet.Int64:
		return nil, s.mismatch(want)
	case s.unit == 1000:
		return readInts(s.physical)
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

// readInt96 reads the timestamps of old writers.
func readInt96(dst *Column, v *values, from, to int) error {
	for i := from; i < to; i++ {
		t := v.i96[v.place(i)]
		micros, ok := Int96Micros(t)
		if !ok {
			return fmt.Errorf("%w: timestamp of day %d", ErrCorrupt, int32(t[2]))
		}
		dst.I64 = append(dst.I64, micros)
	}
	valid(dst, to-from)
	return nil
}

// decimals returns the converter to a decimal of at least as many digits on
// either side of the point.
func (s *stored) decimals(want schema.Type) (converter, error) {
	have := s.typ
	switch have.Kind {
	case schema.Byte, schema.Short, schema.Integer:
		have = schema.Type{Kind: schema.Decimal, Precision: 10}
	case schema.Long:
		have = schema.Type{Kind: schema.Decimal, Precision: 20}
	case schema.Decimal:
	default:
		return nil, s.mismatch(want)
	}
	digits := want.Scale - have.Scale
	if digits < 0 || want.Precision-have.Precision < digits {
		return nil, s.mismatch(want)
	}
	at, err := s.decimalAt()
	if err != nil {
		return nil, err
	}
	narrow := storageOf(want) == ints
	if narrow && digits == 0 && !s.unsigned && (s.physical == parquet.Int32 || s.physical == parquet.Int64) {
		return readInts(s.physical)
	}
	return func(dst *Column, v *values, from, until int) error {
		for i := from; i < until; i++ {
			hi, lo, ok := at(v, i)
			for d := digits; d > 0 && ok; d-- {
				hi, lo, ok = times10(hi, lo)
			}
			switch {
			case !ok || narrow && hi != int64(lo)>>63:
				return fmt.Errorf("%w: decimal has more digits than its type", ErrCorrupt)
			case narrow:
				dst.AppendInt(int64(lo))
			default:
				dst.AppendDecimal128(hi, lo)
			}
		}
		return nil
	}, nil
}

// decimalAt returns how a number of 128 bits is got at; ok is false where it has
// more.
func (s *stored) decimalAt() (at func(v *values, i int) (hi int64, lo uint64, ok bool), err error) {
	physical := s.physical
	switch {
	case s.unsigned && physical == parquet.Int64:
		return func(v *values, i int) (int64, uint64, bool) { return 0, uint64(v.i64[v.place(i)]), true }, nil
	case s.unsigned && s.typ.Kind == schema.Long:
		return func(v *values, i int) (int64, uint64, bool) { return 0, uint64(uint32(v.i32[v.place(i)])), true }, nil
	case physical == parquet.Int32 || physical == parquet.Int64:
		return func(v *values, i int) (int64, uint64, bool) {
			n := v.int(physical, i)
			return n >> 63, uint64(n), true
		}, nil
	case physical == parquet.ByteArray || physical == parquet.FixedLenByteArray:
		return func(v *values, i int) (int64, uint64, bool) { return extend(v.bytes(i)) }, nil
	}
	return nil, fmt.Errorf("%w: decimals stored as %s", ErrUnsupported, physical)
}

// times10 multiplies by ten; ok is false where the result exceeds 128 bits.
func times10(hi int64, lo uint64) (int64, uint64, bool) {
	carry, low := bits.Mul64(lo, 10)
	high := hi*10 + int64(carry)
	ok := hi <= math.MaxInt64/10-1 && hi >= math.MinInt64/10+1
	return high, low, ok
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
