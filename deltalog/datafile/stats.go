package datafile

import (
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// Stats are the statistics of a file, which marshal to the JSON that Delta's
// log carries in add.stats:
// https://github.com/delta-io/delta/blob/master/PROTOCOL.md#per-file-statistics
type Stats struct {
	// Rows is numRecords.
	Rows int64
	// Columns are the columns that statistics were gathered for.
	Columns []ColumnStats
}

// ColumnStats are the statistics of one column, or of one field of a struct.
type ColumnStats struct {
	// Path holds the names of the column and of the fields within, as they are
	// in the file. It is not to be changed.
	Path []string
	// Nulls counts the rows that are NULL.
	Nulls int64

	leaf   *leaf
	bounds bounds
}

// add takes over what a row group's chunk gathered.
func (s *ColumnStats) add(c *chunk) {
	s.Nulls += c.nulls
	if c.repetition == 0 {
		s.bounds.merge(&c.bounds, c.storage)
	}
}

// MarshalJSON writes numRecords, minValues, maxValues and nullCount. Bounds are
// of numbers, dates, timestamps and text; strings are cut, the upper bound to
// something greater; timestamps are widened to milliseconds; a column with NaN
// or an infinity has none. Decimals have all their digits.
func (s Stats) MarshalJSON() ([]byte, error) {
	b := append([]byte(nil), `{"numRecords":`...)
	b = strconv.AppendInt(b, s.Rows, 10)
	for _, part := range []struct {
		open  string
		value func([]byte, *ColumnStats) []byte
	}{
		{`,"minValues":`, func(b []byte, c *ColumnStats) []byte { return c.appendMin(b) }},
		{`,"maxValues":`, func(b []byte, c *ColumnStats) []byte { return c.appendMax(b) }},
		{`,"nullCount":`, func(b []byte, c *ColumnStats) []byte { return strconv.AppendInt(b, c.Nulls, 10) }},
	} {
		b = append(b, part.open...)
		b, _ = appendObject(b, s.Columns, 0, part.value)
	}
	return append(b, '}'), nil
}

// appendObject appends one value a column, and an object for the fields of a
// struct, which follow each other. A column for which no value is appended is
// left out; some tells whether any was not.
func appendObject(b []byte, columns []ColumnStats, depth int, value func([]byte, *ColumnStats) []byte) (_ []byte, some bool) {
	b = append(b, '{')
	for len(columns) > 0 {
		n := 1
		name := columns[0].Path[depth]
		for n < len(columns) && columns[n].Path[depth] == name && len(columns[n].Path) > depth+1 {
			n++
		}
		before := len(b)
		if some {
			b = append(b, ',')
		}
		b = append(appendJSONString(b, name), ':')
		at := len(b)
		added := false
		if len(columns[0].Path) > depth+1 {
			b, added = appendObject(b, columns[:n], depth+1, value)
		} else {
			b = value(b, &columns[0])
			added = len(b) > at
		}
		if !added {
			b = b[:before]
		}
		some = some || added
		columns = columns[n:]
	}
	return append(b, '}'), some
}

func appendJSONString(b []byte, s string) []byte {
	quoted, _ := json.Marshal(s) // of a string, never an error
	return append(b, quoted...)
}

// bounded tells whether the column has bounds that Delta can hold.
func (c *ColumnStats) bounded() bool {
	if c.leaf.repetition > 0 || !c.bounds.has || c.bounds.nan {
		return false
	}
	switch c.leaf.typ.Kind {
	case schema.Boolean, schema.Binary:
		return false
	case schema.Float, schema.Double:
		return !math.IsInf(c.bounds.fmin, 0) && !math.IsInf(c.bounds.fmax, 0)
	}
	return true
}

func (c *ColumnStats) appendMin(b []byte) []byte {
	if !c.bounded() {
		return b
	}
	switch t := c.leaf.typ; t.Kind {
	case schema.String:
		return appendLeast(b, c.bounds.bmin)
	case schema.Float, schema.Double:
		return appendFloatJSON(b, c.bounds.fmin, t)
	case schema.Timestamp, schema.TimestampNTZ:
		return appendMillis(b, floorMillis(c.bounds.min), t.Kind)
	default:
		return c.appendExact(b, c.bounds.min, c.bounds.bmin)
	}
}

func (c *ColumnStats) appendMax(b []byte) []byte {
	if !c.bounded() {
		return b
	}
	switch t := c.leaf.typ; t.Kind {
	case schema.String:
		return appendGreatest(b, c.bounds.bmax)
	case schema.Float, schema.Double:
		return appendFloatJSON(b, c.bounds.fmax, t)
	case schema.Timestamp, schema.TimestampNTZ:
		return appendMillis(b, ceilMillis(c.bounds.max), t.Kind)
	default:
		return c.appendExact(b, c.bounds.max, c.bounds.bmax)
	}
}

// appendExact appends a number or a date.
func (c *ColumnStats) appendExact(b []byte, v int64, digits []byte) []byte {
	switch t := c.leaf.typ; t.Kind {
	case schema.Date:
		if v < minDate || v > maxDate {
			return b
		}
		b = append(b, '"')
		b = AppendDate(b, v)
		return append(b, '"')
	case schema.Decimal:
		hi, lo := v>>63, uint64(v)
		if c.leaf.storage != ints {
			hi, lo = getDecimal128(digits)
		}
		return AppendDecimal(b, hi, lo, t.Scale)
	}
	return strconv.AppendInt(b, v, 10)
}

func appendFloatJSON(b []byte, v float64, t schema.Type) []byte {
	size := 64
	if t.Kind == schema.Float {
		size = 32
	}
	return strconv.AppendFloat(b, v, 'g', -1, size)
}

// The days of 0001-01-01 and 9999-12-31, and the milliseconds that begin the
// one and end the other: what readers can parse.
const (
	minDate   = -719162
	maxDate   = 2932896
	minMillis = minDate * 86_400_000
	maxMillis = (maxDate+1)*86_400_000 - 1
)

func floorMillis(micros int64) int64 {
	ms := micros / 1000
	if micros%1000 < 0 {
		ms--
	}
	return ms
}

func ceilMillis(micros int64) int64 {
	ms := micros / 1000
	if micros%1000 > 0 {
		ms++
	}
	return ms
}

func appendMillis(b []byte, ms int64, kind schema.Kind) []byte {
	if ms < minMillis || ms > maxMillis {
		return b
	}
	b = append(b, '"')
	b = time.UnixMilli(ms).UTC().AppendFormat(b, "2006-01-02T15:04:05.000")
	if kind == schema.Timestamp {
		b = append(b, 'Z')
	}
	return append(b, '"')
}

// How many characters of a string a bound has, and at most when it takes more
// to find an upper one.
const (
	boundChars    = 32
	boundCharsMax = 64
)

// prefix returns where the first n characters of v end; ok is false if they are
// not text.
func prefix(v []byte, n int) (end int, ok bool) {
	for ; n > 0 && end < len(v); n-- {
		r, size := utf8.DecodeRune(v[end:])
		if r == utf8.RuneError && size == 1 {
			return 0, false
		}
		end += size
	}
	return end, true
}

func appendLeast(b, v []byte) []byte {
	end, ok := prefix(v, boundChars)
	if !ok {
		return b
	}
	return appendJSONString(b, string(v[:end]))
}

// appendGreatest appends a string's beginning and a character that is greater
// than any that follows there.
func appendGreatest(b, v []byte) []byte {
	end, ok := prefix(v, boundChars)
	for n := boundChars; ok && end < len(v) && n < boundCharsMax; n++ {
		r, size := utf8.DecodeRune(v[end:])
		switch {
		case r == utf8.RuneError && size == 1:
			return b
		case r < 0x7f:
			return appendJSONString(b, string(v[:end])+"\x7f")
		case r < utf8.MaxRune:
			return appendJSONString(b, string(v[:end])+string(utf8.MaxRune))
		}
		end += size
	}
	if !ok || end < len(v) {
		return b
	}
	return appendJSONString(b, string(v))
}
