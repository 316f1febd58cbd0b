package datafile

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/parquet-go/parquet-go"
)

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
