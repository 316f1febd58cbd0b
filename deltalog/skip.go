package deltalog

import (
	"bytes"
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// fileStats are statistics of a file as far as they are needed to tell whether
// it has rows that meet a condition. What cannot be read is as if it were not
// there.
type fileStats struct {
	NumRecords *int64          `json:"numRecords"`
	MinValues  json.RawMessage `json:"minValues"`
	MaxValues  json.RawMessage `json:"maxValues"`
	NullCount  json.RawMessage `json:"nullCount"`
}

// mayMatch tells whether a file can have a row that meets all conditions. It
// says no only where the partition values or the statistics rule it out.
// partition holds the partition columns, of one row.
func mayMatch(f *File, where []condition, partition map[string]*datafile.Column) bool {
	var stats *fileStats
	for i := range where {
		c := &where[i]
		if value, ok := partition[c.column]; ok {
			if !c.holds(value, 0) {
				return false
			}
			continue
		}
		if f.Stats == "" {
			continue
		}
		if stats == nil {
			stats = new(fileStats)
			if json.Unmarshal([]byte(f.Stats), stats) != nil {
				*stats = fileStats{} // conditions on partition columns are still to be judged
			}
		}
		if stats.excludes(c) {
			return false
		}
	}
	return true
}

// excludes tells whether no row of the file meets the condition. Bounds that are
// not tight, because rows have been deleted, still are bounds.
func (s *fileStats) excludes(c *condition) bool {
	n, err := strconv.ParseInt(string(at(s.NullCount, c.path)), 10, 64)
	known := err == nil && n >= 0
	switch {
	case c.op == OpIsNull:
		return known && n == 0
	case known && n > 0 && s.NumRecords != nil && n >= *s.NumRecords:
		return true
	}
	if c.value == nil || c.op == OpNotEqual {
		return false
	}
	// Writers leave NaN out of the bounds, and it is greater than all numbers.
	floats := c.value.F64 != nil
	if c.op == OpLess || c.op == OpLessOrEqual || c.op == OpEqual {
		if least := bound(at(s.MinValues, c.path), c.typ, -1); least != nil && !isNaN(c.value) {
			if sign := compareValues(least, 0, c.value, 0); sign > 0 || sign == 0 && c.op == OpLess {
				return true
			}
		}
	}
	if c.op == OpGreater || c.op == OpGreaterOrEqual || c.op == OpEqual {
		if floats && (c.op != OpEqual || isNaN(c.value)) {
			return false
		}
		greatest := bound(at(s.MaxValues, c.path), c.typ, +1)
		if greatest == nil || cutShort(greatest, c.value) {
			return false
		}
		sign := compareValues(greatest, 0, c.value, 0)
		return sign < 0 || sign == 0 && c.op == OpGreater
	}
	return false
}

func isNaN(c *datafile.Column) bool { return c.F64 != nil && c.F64[0] != c.F64[0] }

// cutShort tells whether an upper bound may be the beginning of a longer value
// that is no less than the literal: writers cut strings, and not all of them
// put something greater at the end.
func cutShort(greatest, literal *datafile.Column) bool {
	if greatest.Type.Kind != schema.String {
		return false
	}
	return bytes.HasPrefix(literal.At(0), greatest.At(0))
}

// at returns the part of a JSON object that a path leads to; nil where there is
// none.
func at(object json.RawMessage, path []string) json.RawMessage {
	for _, name := range path {
		var parts map[string]json.RawMessage
		if len(object) == 0 || json.Unmarshal(object, &parts) != nil {
			return nil
		}
		object = parts[name]
	}
	return bytes.TrimSpace(object)
}

// bound reads a least (side -1) or greatest (+1) value as something that no value
// of the column is beyond, however the writer rounded it; nil where that is not
// sure.
func bound(raw json.RawMessage, t schema.Type, side int) *datafile.Column {
	if len(raw) == 0 {
		return nil
	}
	c := datafile.NewColumn(t)
	text := string(raw)
	quoted := raw[0] == '"'
	if quoted && json.Unmarshal(raw, &text) != nil {
		return nil
	}
	switch t.Kind {
	case schema.Byte, schema.Short, schema.Integer, schema.Long:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || quoted {
			return nil
		}
		c.AppendInt(n)
	case schema.Float, schema.Double:
		return floatBound(c, text, quoted, side)
	case schema.Decimal:
		return decimalBound(c, text, side)
	case schema.String:
		// What JSON cannot hold, such as half a character, reads as this one.
		if !quoted || strings.ContainsRune(text, utf8.RuneError) {
			return nil
		}
		c.AppendString(text)
	case schema.Date:
		days, rest, ok := cutDate(text)
		if !ok || rest != "" {
			return nil
		}
		c.AppendInt(days)
	case schema.Timestamp, schema.TimestampNTZ:
		return timeBound(c, text, side)
	default:
		return nil
	}
	return c
}

// floatBound takes a value of 32 bits for what it prints as too, since the file
// may have been written before the column was widened.
func floatBound(c *datafile.Column, text string, quoted bool, side int) *datafile.Column {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || quoted || math.IsInf(v, 0) || v != v {
		return nil
	}
	narrow := math.Nextafter32(float32(v), float32(math.Inf(side)))
	switch wide := math.Nextafter(v, math.Inf(side)); {
	case side < 0:
		c.AppendFloat(min(wide, float64(narrow)))
	default:
		c.AppendFloat(max(wide, float64(narrow)))
	}
	return c
}

// decimalBound allows for writers whose decimals have been binary fractions of
// some 15 digits.
func decimalBound(c *datafile.Column, text string, side int) *datafile.Column {
	n, ok := unscaled(text, c.Type.Scale)
	if !ok {
		return nil
	}
	if digits := len(new(big.Int).Abs(n).String()); digits > 15 {
		slack := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits-15)), nil)
		n.Add(n, slack.Mul(slack, big.NewInt(int64(side))))
	}
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(c.Type.Precision)), nil)
	if n.CmpAbs(limit) >= 0 {
		return nil
	}
	appendUnscaled(c, n)
	return c
}

// timeBound allows for milliseconds that were cut instead of rounded away.
func timeBound(c *datafile.Column, text string, side int) *datafile.Column {
	us, zoned, ok := parseTimestamp(text, c.Type.Kind)
	if !ok || c.Type.Kind == schema.Timestamp && !zoned {
		return nil // in whose zone is not known
	}
	c.AppendInt(us + int64(side)*1000)
	return c
}
