package datafile

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// Tags of the canonical encoding. They are stored in index files: none may
// change its meaning.
const (
	tagNull         = 0x01
	tagBoolean      = 0x02 // 1 byte
	tagInteger      = 0x03 // 8 bytes, big-endian, sign bit flipped
	tagFloat        = 0x04 // 8 bytes in the order of the numbers
	tagDecimal      = 0x05 // 16 bytes, big-endian, sign bit flipped
	tagString       = 0x06 // length as uvarint, then the bytes
	tagBinary       = 0x07 // likewise
	tagDate         = 0x08 // as tagInteger
	tagTimestamp    = 0x09 // as tagInteger
	tagTimestampNTZ = 0x0a // as tagInteger
	tagArray        = 0x0b // number of elements as uvarint, then the elements
	tagStruct       = 0x0c // number of fields as uvarint, then the fields
	tagMap          = 0x0d // number of entries as uvarint, then keys and values, sorted
)

// AppendKey appends the canonical encoding of a row of the key columns to dst.
// It delimits itself, column by column; rows of columns of the same types are
// equal exactly when their encodings are; see [KeySupported] for the types that
// a key may have. Integers of any width encode alike,
// NULL equals NULL, NaN equals NaN and 0.0 equals -0.0. Fixed-width values sort
// as their encodings do. The encoding is the same in every release: it is
// stored in index files.
func AppendKey(dst []byte, cols []*Column, row int) []byte {
	for _, c := range cols {
		dst = appendValue(dst, c, row, true)
	}
	return dst
}

// AppendCanonical appends what [AppendKey] does, except that -0.0 stays itself:
// rows have the same encoding exactly when [Column.Equal] says so of all their
// values.
func AppendCanonical(dst []byte, cols []*Column, row int) []byte {
	for _, c := range cols {
		dst = appendValue(dst, c, row, false)
	}
	return dst
}

// RowHash returns 128 bits of the SHA-256 of a row's [AppendCanonical]. It
// keeps nothing and may be called concurrently; it allocates for rows over
// some 500 bytes alone.
func RowHash(cols []*Column, row int) (hi, lo uint64) {
	var buf [512]byte
	sum := sha256.Sum256(AppendCanonical(buf[:0], cols, row))
	return binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])
}

func appendValue(dst []byte, c *Column, row int, foldZero bool) []byte {
	if !c.Valid[row] {
		return append(dst, tagNull)
	}
	switch c.Type.Kind {
	case schema.Boolean:
		return append(dst, tagBoolean, byte(c.I64[row]))
	case schema.Byte, schema.Short, schema.Integer, schema.Long:
		return appendInt(append(dst, tagInteger), c.I64[row])
	case schema.Date:
		return appendInt(append(dst, tagDate), c.I64[row])
	case schema.Timestamp:
		return appendInt(append(dst, tagTimestamp), c.I64[row])
	case schema.TimestampNTZ:
		return appendInt(append(dst, tagTimestampNTZ), c.I64[row])
	case schema.Float, schema.Double:
		v := c.F64[row]
		if foldZero && v == 0 {
			v = 0
		}
		return appendFloat(append(dst, tagFloat), v)
	case schema.Decimal:
		hi, lo := c.Decimal128(row)
		dst = appendInt(append(dst, tagDecimal), hi)
		return binary.BigEndian.AppendUint64(dst, lo)
	case schema.String, schema.Binary:
		tag := byte(tagString)
		if c.Type.Kind == schema.Binary {
			tag = tagBinary
		}
		b := c.At(row)
		dst = binary.AppendUvarint(append(dst, tag), uint64(len(b)))
		return append(dst, b...)
	case schema.Array:
		from, to := int(c.Off[row]), int(c.Off[row+1])
		dst = binary.AppendUvarint(append(dst, tagArray), uint64(to-from))
		for i := from; i < to; i++ {
			dst = appendValue(dst, c.Elem, i, foldZero)
		}
		return dst
	case schema.Struct:
		dst = binary.AppendUvarint(append(dst, tagStruct), uint64(len(c.Fields)))
		for _, f := range c.Fields {
			dst = appendValue(dst, f, row, foldZero)
		}
		return dst
	case schema.Map:
		from, to := int(c.Off[row]), int(c.Off[row+1])
		dst = binary.AppendUvarint(append(dst, tagMap), uint64(to-from))
		start := len(dst)
		ends := make([]int, 0, to-from)
		for i := from; i < to; i++ {
			dst = appendValue(dst, c.Key, i, foldZero)
			dst = appendValue(dst, c.Value, i, foldZero)
			ends = append(ends, len(dst)-start)
		}
		sortPieces(dst[start:], ends)
		return dst
	}
	panic("datafile: " + c.Type.String() + " has no canonical encoding")
}

// sortPieces sorts the parts of b that end there: the order that the entries of
// a map have in their column means nothing.
func sortPieces(b []byte, ends []int) {
	all, at := string(b), 0
	pieces := make([]string, len(ends))
	for i, end := range ends {
		pieces[i] = all[at:end]
		at = end
	}
	slices.Sort(pieces)
	for _, p := range pieces {
		b = b[copy(b, p):]
	}
}

func appendInt(dst []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(v)^1<<63)
}

func appendFloat(dst []byte, v float64) []byte {
	b := canonicalBits(v)
	if b>>63 != 0 {
		b = ^b
	} else {
		b |= 1 << 63
	}
	return binary.BigEndian.AppendUint64(dst, b)
}

// canonicalBits returns the bits of v, one pattern for every NaN.
func canonicalBits(v float64) uint64 {
	if v != v {
		return 0x7ff8000000000000
	}
	return math.Float64bits(v)
}

func putDecimal128(b *[16]byte, hi int64, lo uint64) {
	binary.BigEndian.PutUint64(b[:8], uint64(hi))
	binary.BigEndian.PutUint64(b[8:], lo)
}

func getDecimal128(b []byte) (hi int64, lo uint64) {
	return int64(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint64(b[8:])
}
