package lake

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// The proof encodes values on its own, apart from the keys that the index
// stores, so that a fault in one does not hide in the other. Each value is a
// tag and a payload that says its own length: equal values have equal bytes,
// and no row's bytes begin another's.
const (
	tagNull byte = iota
	tagInt
	tagFloat
	tagBytes
	tagArray
)

var errEncoding = errors.New("malformed row encoding")

// appendRow appends the values of one row.
func appendRow(dst []byte, cols []*datafile.Column, row int) []byte {
	for _, c := range cols {
		dst = appendValue(dst, c, row)
	}
	return dst
}

func appendValue(dst []byte, c *datafile.Column, row int) []byte {
	if !c.Valid[row] {
		return append(dst, tagNull)
	}
	switch c.Type.Kind {
	case schema.Float, schema.Double:
		bits := math.Float64bits(c.F64[row])
		if c.F64[row] != c.F64[row] {
			bits = math.Float64bits(math.NaN())
		}
		return binary.BigEndian.AppendUint64(append(dst, tagFloat), bits)
	case schema.Array:
		from, to := int(c.Off[row]), int(c.Off[row+1])
		dst = binary.AppendUvarint(append(dst, tagArray), uint64(to-from))
		for i := from; i < to; i++ {
			dst = appendValue(dst, c.Elem, i)
		}
		return dst
	}
	if len(c.I64) > 0 {
		return binary.BigEndian.AppendUint64(append(dst, tagInt), uint64(c.I64[row])^1<<63)
	}
	b := c.At(row)
	dst = binary.AppendUvarint(append(dst, tagBytes), uint64(len(b)))
	return append(dst, b...)
}

// cutValue splits the first value off b.
func cutValue(b []byte) (value, rest []byte, err error) {
	n, err := valueLen(b)
	if err != nil {
		return nil, nil, err
	}
	return b[:n], b[n:], nil
}

func valueLen(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, errEncoding
	}
	switch b[0] {
	case tagNull:
		return 1, nil
	case tagInt, tagFloat:
		if len(b) < 9 {
			return 0, errEncoding
		}
		return 9, nil
	case tagBytes:
		size, n := binary.Uvarint(b[1:])
		if n <= 0 || size > uint64(len(b)-1-n) {
			return 0, errEncoding
		}
		return 1 + n + int(size), nil
	case tagArray:
		count, n := binary.Uvarint(b[1:])
		if n <= 0 || count > uint64(len(b)) {
			return 0, errEncoding
		}
		total := 1 + n
		for range count {
			m, err := valueLen(b[total:])
			if err != nil {
				return 0, err
			}
			total += m
		}
		return total, nil
	}
	return 0, errEncoding
}

// rowHash is a 128-bit hash of an encoded row.
type rowHash [16]byte

func hashRow(row []byte) rowHash {
	sum := sha256.Sum256(row)
	return rowHash(sum[:16])
}

// hashSum adds up hashes, so that their order does not matter.
type hashSum struct{ hi, lo uint64 }

func (s *hashSum) add(h rowHash) {
	lo := s.lo + binary.BigEndian.Uint64(h[8:])
	s.hi += binary.BigEndian.Uint64(h[:8])
	if lo < s.lo {
		s.hi++
	}
	s.lo = lo
}

func (s hashSum) String() string { return fmt.Sprintf("%016x%016x", s.hi, s.lo) }

// maxShown is the longest value, in bytes, that is shown whole to people.
const maxShown = 60

// describe prints encoded values for people: a=1 b="x".
func describe(fields []schema.Field, row []byte) string {
	var b strings.Builder
	for i := range fields {
		value, rest, err := cutValue(row)
		if err != nil {
			break
		}
		row = rest
		if i > 0 {
			b.WriteByte(' ')
		}
		if b.Len() > 8*maxShown {
			b.WriteString("…")
			break
		}
		b.WriteString(fields[i].Name)
		b.WriteByte('=')
		b.WriteString(describeValue(fields[i].Type, value))
	}
	return b.String()
}

func describeValue(t schema.Type, v []byte) string {
	switch v[0] {
	case tagInt:
		return describeInt(t, int64(binary.BigEndian.Uint64(v[1:])^1<<63))
	case tagFloat:
		return strconv.FormatFloat(math.Float64frombits(binary.BigEndian.Uint64(v[1:])), 'g', -1, 64)
	case tagBytes:
		_, n := binary.Uvarint(v[1:])
		return describeBytes(t, v[1+n:])
	case tagArray:
		count, n := binary.Uvarint(v[1:])
		rest := v[1+n:]
		var parts []string
		for range min(count, 8) {
			var elem []byte
			elem, rest, _ = cutValue(rest)
			parts = append(parts, describeValue(*t.Elem, elem))
		}
		if count > 8 {
			parts = append(parts, "…")
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	return "NULL"
}

func describeInt(t schema.Type, v int64) string {
	switch t.Kind {
	case schema.Boolean:
		return strconv.FormatBool(v != 0)
	case schema.Date:
		return string(datafile.AppendDate(nil, v))
	case schema.Timestamp:
		return time.UnixMicro(v).UTC().Format("2006-01-02T15:04:05.999999Z")
	case schema.TimestampNTZ:
		return time.UnixMicro(v).UTC().Format("2006-01-02T15:04:05.999999")
	case schema.Decimal:
		return string(datafile.AppendDecimal(nil, v>>63, uint64(v), t.Scale))
	}
	return strconv.FormatInt(v, 10)
}

func describeBytes(t schema.Type, b []byte) string {
	switch t.Kind {
	case schema.Decimal:
		hi, lo, _ := datafile.Decimal128(b)
		return string(datafile.AppendDecimal(nil, hi, lo, t.Scale))
	case schema.Binary:
		if len(b) > maxShown/2 {
			return `\x` + hex.EncodeToString(b[:maxShown/2]) + "…"
		}
		return `\x` + hex.EncodeToString(b)
	}
	if len(b) > maxShown {
		return strconv.Quote(string(b[:maxShown])) + "…"
	}
	return strconv.Quote(string(b))
}
