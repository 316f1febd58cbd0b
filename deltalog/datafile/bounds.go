package datafile

import (
	"bytes"
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// bounds are the least and the greatest value of a column. Which of the parts
// are used follows from the column's storage.
type bounds struct {
	has      bool // a value was seen, NaN aside
	nan      bool // NaN was seen
	min, max int64
	fmin     float64
	fmax     float64
	bmin     []byte
	bmax     []byte
}

func (b *bounds) reset() {
	*b = bounds{bmin: b.bmin[:0], bmax: b.bmax[:0]}
}

func (b *bounds) int(v int64) {
	if !b.has {
		b.has, b.min, b.max = true, v, v
		return
	}
	b.min, b.max = min(b.min, v), max(b.max, v)
}

func (b *bounds) float(v float64) {
	switch {
	case v != v:
		b.nan = true
		return
	case !b.has:
		b.has, b.fmin, b.fmax = true, v, v
		return
	}
	// The built-in min and max order -0.0 before 0.0.
	b.fmin, b.fmax = min(b.fmin, v), max(b.fmax, v)
}

func (b *bounds) bytes(v []byte) {
	if !b.has {
		b.has, b.bmin, b.bmax = true, append(b.bmin[:0], v...), append(b.bmax[:0], v...)
		return
	}
	if bytes.Compare(v, b.bmin) < 0 {
		b.bmin = append(b.bmin[:0], v...)
	} else if bytes.Compare(v, b.bmax) > 0 {
		b.bmax = append(b.bmax[:0], v...)
	}
}

// decimal takes 16 bytes of an unscaled value.
func (b *bounds) decimal(v []byte) {
	if !b.has {
		b.has, b.bmin, b.bmax = true, append(b.bmin[:0], v...), append(b.bmax[:0], v...)
		return
	}
	if compareDecimal(v, b.bmin) < 0 {
		b.bmin = append(b.bmin[:0], v...)
	} else if compareDecimal(v, b.bmax) > 0 {
		b.bmax = append(b.bmax[:0], v...)
	}
}

func compareDecimal(a, b []byte) int {
	if sa, sb := int8(a[0]), int8(b[0]); (sa < 0) != (sb < 0) {
		if sa < 0 {
			return -1
		}
		return 1
	}
	return bytes.Compare(a, b)
}

// merge widens b to hold o, of the same storage.
func (b *bounds) merge(o *bounds, s storage) {
	b.nan = b.nan || o.nan
	if !o.has {
		return
	}
	switch s {
	case ints:
		b.int(o.min)
		b.int(o.max)
	case floats:
		b.float(o.fmin)
		b.float(o.fmax)
	case bytesOf:
		b.bytes(o.bmin)
		b.bytes(o.bmax)
	case wide:
		b.decimal(o.bmin)
		b.decimal(o.bmax)
	}
}

// maxFooterBound is the longest bound of a string, in bytes, that goes into a
// file's footer.
const maxFooterBound = 64

// parquet returns the bounds as a footer holds them, and whether they are
// values of the column; nil where there are none.
func (b *bounds) parquet(c *leaf) (least, greatest []byte, leastExact, greatestExact bool) {
	if !b.has || b.nan {
		return nil, nil, false, false
	}
	switch c.physical {
	case parquetBoolean:
		return []byte{byte(b.min)}, []byte{byte(b.max)}, true, true
	case parquetInt32:
		return le32(uint32(b.min)), le32(uint32(b.max)), true, true
	case parquetInt64:
		return le64(uint64(b.min)), le64(uint64(b.max)), true, true
	case parquetFloat, parquetDouble:
		lo, hi := b.fmin, b.fmax
		// Zeros have two signs, and readers may compare either way.
		if lo == 0 {
			lo = math.Copysign(0, -1)
		}
		if hi == 0 {
			hi = 0
		}
		if c.physical == parquetFloat {
			return le32(math.Float32bits(float32(lo))), le32(math.Float32bits(float32(hi))), true, true
		}
		return le64(math.Float64bits(lo)), le64(math.Float64bits(hi)), true, true
	case parquetFixed:
		return bytes.Clone(b.bmin[16-c.width:]), bytes.Clone(b.bmax[16-c.width:]), true, true
	}
	text := c.typ.Kind == schema.String
	least, leastExact = bytes.Clone(b.bmin), true
	if len(least) > maxFooterBound {
		least, leastExact = cutBytes(least, maxFooterBound, text), false
	}
	greatest, greatestExact = bytes.Clone(b.bmax), true
	if len(greatest) > maxFooterBound {
		greatest, greatestExact = above(b.bmax, text), false
	}
	if greatest == nil {
		return nil, nil, false, false
	}
	return least, greatest, leastExact, greatestExact
}

func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// cutBytes returns at most n bytes from the front of b, whole characters if it
// is text.
func cutBytes(b []byte, n int, text bool) []byte {
	if text {
		for n > 0 && !utf8.RuneStart(b[n]) {
			n--
		}
	}
	return b[:n]
}

// above returns something short that sorts after b and all that begin with its
// first bytes, or nil.
func above(b []byte, text bool) []byte {
	p := bytes.Clone(cutBytes(b, maxFooterBound, text))
	if !text {
		for i := len(p) - 1; i >= 0; i-- {
			if p[i]++; p[i] != 0 {
				return p[:i+1]
			}
		}
		return nil
	}
	for len(p) > 0 {
		r, size := utf8.DecodeLastRune(p)
		p = p[:len(p)-size]
		switch {
		case r == utf8.RuneError && size <= 1:
			return nil // not text
		case r == 0xd7ff:
			r = 0xe000
		case r < utf8.MaxRune:
			r++
		default:
			continue
		}
		return utf8.AppendRune(p, r)
	}
	return nil
}
