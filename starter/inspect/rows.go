package inspect

import (
	"encoding/base64"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// encoder writes rows as JSON, in the order of their columns. Integers and
// decimals are numbers with all their digits, NaN and infinities strings,
// binary is base64, times are ISO 8601; a timestamp ends in Z, one without zone
// does not.
type encoder struct {
	batch *datafile.Batch
	names [][]byte
	buf   []byte
}

// begin takes another batch.
func (e *encoder) begin(b *datafile.Batch) {
	e.batch = b
	e.names = e.names[:0]
	for i, name := range b.Names {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		e.names = append(e.names, append(appendString([]byte(sep), []byte(name)), ':'))
	}
}

// row returns a line, valid until the next call.
func (e *encoder) row(row int) []byte {
	e.buf = e.buf[:0]
	for i, c := range e.batch.Cols {
		e.buf = append(e.buf, e.names[i]...)
		e.buf = appendValue(e.buf, c, row)
	}
	if len(e.batch.Cols) == 0 {
		e.buf = append(e.buf, '{')
	}
	e.buf = append(e.buf, '}', '\n')
	return e.buf
}

func appendValue(dst []byte, c *datafile.Column, row int) []byte {
	if !c.Valid[row] {
		return append(dst, "null"...)
	}
	switch c.Type.Kind {
	case schema.Boolean:
		return strconv.AppendBool(dst, c.I64[row] != 0)
	case schema.Byte, schema.Short, schema.Integer, schema.Long:
		return strconv.AppendInt(dst, c.I64[row], 10)
	case schema.Float:
		return appendFloat(dst, c.F64[row], 32)
	case schema.Double:
		return appendFloat(dst, c.F64[row], 64)
	case schema.Decimal:
		hi, lo := c.Decimal128(row)
		return datafile.AppendDecimal(dst, hi, lo, c.Type.Scale)
	case schema.String:
		return appendString(dst, c.At(row))
	case schema.Binary:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, c.At(row))
		return append(dst, '"')
	case schema.Date:
		return append(datafile.AppendDate(append(dst, '"'), c.I64[row]), '"')
	case schema.Timestamp:
		return append(appendTime(append(dst, '"'), c.I64[row], withZone), '"')
	case schema.TimestampNTZ:
		return append(appendTime(append(dst, '"'), c.I64[row], withoutZone), '"')
	case schema.Array:
		dst = append(dst, '[')
		for i := c.Off[row]; i < c.Off[row+1]; i++ {
			if i > c.Off[row] {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, c.Elem, int(i))
		}
		return append(dst, ']')
	case schema.Map:
		return appendMap(dst, c, row)
	case schema.Struct:
		for i, f := range c.Fields {
			dst = appendString(append(dst, lead(i, '{')), []byte(c.Type.Fields[i].Name))
			dst = appendValue(append(dst, ':'), f, row)
		}
		if len(c.Fields) == 0 {
			dst = append(dst, '{')
		}
		return append(dst, '}')
	}
	return append(dst, "null"...)
}

// lead is what comes before part i of something that begins with a bracket.
func lead(i int, bracket byte) byte {
	if i == 0 {
		return bracket
	}
	return ','
}

// appendMap writes an object where keys are strings, else an array of objects.
func appendMap(dst []byte, c *datafile.Column, row int) []byte {
	from, to := int(c.Off[row]), int(c.Off[row+1])
	text := c.Key.Type.Kind == schema.String
	switch {
	case from == to && text:
		return append(dst, "{}"...)
	case from == to:
		return append(dst, "[]"...)
	}
	for i := from; i < to; i++ {
		if text {
			dst = appendString(append(dst, lead(i-from, '{')), c.Key.At(i))
			dst = appendValue(append(dst, ':'), c.Value, i)
			continue
		}
		dst = appendValue(append(append(dst, lead(i-from, '[')), `{"key":`...), c.Key, i)
		dst = append(appendValue(append(dst, `,"value":`...), c.Value, i), '}')
	}
	if text {
		return append(dst, '}')
	}
	return append(dst, ']')
}

const (
	withZone    = "T15:04:05.999999Z"
	withoutZone = "T15:04:05.999999"
)

// appendTime writes a date and, in a layout of package time, a time of day.
func appendTime(dst []byte, micros int64, clock string) []byte {
	const day = 86_400_000_000
	days := micros / day
	if micros%day < 0 {
		days--
	}
	return time.UnixMicro(micros).UTC().AppendFormat(datafile.AppendDate(dst, days), clock)
}

func appendFloat(dst []byte, v float64, bits int) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(dst, `"-Infinity"`...)
	}
	format := byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, v, format, -1, bits)
}

const hex = "0123456789abcdef"

// appendString writes a JSON string. Bytes that are not UTF-8 become U+FFFD.
func appendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[from:i]...), `\ufffd`...)
				from = i + 1
			}
			i += n
			continue
		}
		if c >= 0x20 && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}
