package deltalog

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

// statsNode reads statistics that a checkpoint holds in columns, for which there
// is no text.
type statsNode struct {
	key   string // in quotes
	kids  []statsNode
	leaf  *leaf // nil for structs
	print func([]byte, parquet.Value) []byte
}

// parsedStats returns a reader of the statistics of the next row as JSON, empty
// for none; nil where there are no such columns, or where all files have the text
// too.
func (g *groupLeaves) parsedStats() func() string {
	c := g.find([]string{"add", "stats_parsed"})
	if c == nil || c.Leaf() || g.values("add", "stats") >= g.values("add", "path") {
		return nil
	}
	root := g.statsNode(c)
	return func() string {
		b, any := root.append(nil)
		if !any {
			return ""
		}
		return string(b)
	}
}

// values counts the values of a column that are not NULL, as far as the footer
// tells.
func (g *groupLeaves) values(path ...string) int64 {
	c := g.find(path)
	if c == nil || !c.Leaf() {
		return 0
	}
	chunk, ok := g.group.ColumnChunks()[c.Index()].(*parquet.FileColumnChunk)
	if !ok {
		return 0
	}
	return chunk.NumValues() - chunk.NullCount()
}

func (g *groupLeaves) statsNode(c *parquet.Column) statsNode {
	key, _ := json.Marshal(c.Name())
	n := statsNode{key: string(key)}
	if c.Leaf() {
		if c.Repeated() {
			return n // statistics have no lists
		}
		n.leaf, n.print = g.read(c), statsPrinter(c.Type())
		return n
	}
	for _, k := range c.Columns() {
		n.kids = append(n.kids, g.statsNode(k))
	}
	return n
}

// append appends the value of the next row, and tells whether there is one.
func (n *statsNode) append(b []byte) ([]byte, bool) {
	if n.leaf != nil {
		v := n.leaf.one()
		if v.IsNull() || n.print == nil {
			return b, false
		}
		was := len(b)
		b = n.print(b, v)
		return b, len(b) > was
	}
	b = append(b, '{')
	some := false
	for i := range n.kids {
		was := len(b)
		if some {
			b = append(b, ',')
		}
		b = append(append(b, n.kids[i].key...), ':')
		var ok bool
		if b, ok = n.kids[i].append(b); ok {
			some = true
		} else {
			b = b[:was]
		}
	}
	return append(b, '}'), some
}

// statsPrinter returns what appends a value of a type as JSON, and nothing for a
// value that has no form there; nil for types without statistics.
func statsPrinter(t parquet.Type) func([]byte, parquet.Value) []byte {
	var logical format.LogicalTypeValue
	if l := t.LogicalType(); l != nil {
		logical = l.Value
	}
	switch l := logical.(type) {
	case *format.DecimalType:
		return func(b []byte, v parquet.Value) []byte { return appendUnscaledValue(b, v, int(l.Scale)) }
	case *format.DateType:
		return func(b []byte, v parquet.Value) []byte {
			return time.Unix(int64(v.Int32())*86400, 0).UTC().AppendFormat(b, `"2006-01-02"`)
		}
	case *format.TimestampType:
		utc, unit := l.IsAdjustedToUTC, time.Microsecond
		if l.Unit.Value != nil {
			unit = l.Unit.Value.Duration()
		}
		perSecond := int64(time.Second / unit)
		return func(b []byte, v parquet.Value) []byte {
			n := v.Int64()
			second := floorDiv(n, perSecond)
			return appendStatsTime(b, time.Unix(second, (n-second*perSecond)*int64(unit)).UTC(), utc)
		}
	}
	switch t.Kind() {
	case parquet.Boolean:
		return func(b []byte, v parquet.Value) []byte { return strconv.AppendBool(b, v.Boolean()) }
	case parquet.Int32:
		return func(b []byte, v parquet.Value) []byte { return strconv.AppendInt(b, int64(v.Int32()), 10) }
	case parquet.Int64:
		return func(b []byte, v parquet.Value) []byte { return strconv.AppendInt(b, v.Int64(), 10) }
	case parquet.Float:
		return func(b []byte, v parquet.Value) []byte { return appendFinite(b, float64(v.Float()), 32) }
	case parquet.Double:
		return func(b []byte, v parquet.Value) []byte { return appendFinite(b, v.Double(), 64) }
	case parquet.Int96:
		return func(b []byte, v parquet.Value) []byte {
			micros, ok := datafile.Int96Micros(v.Int96())
			if !ok {
				return b
			}
			return appendStatsTime(b, time.UnixMicro(micros).UTC(), true)
		}
	case parquet.ByteArray:
		return func(b []byte, v parquet.Value) []byte {
			var buf bytes.Buffer
			enc := json.NewEncoder(&buf)
			enc.SetEscapeHTML(false)
			if enc.Encode(string(v.ByteArray())) != nil {
				return b
			}
			return append(b, bytes.TrimRight(buf.Bytes(), "\n")...)
		}
	}
	return nil
}

// appendStatsTime appends a moment as the text of statistics has it: in
// milliseconds, unless it has more digits.
func appendStatsTime(b []byte, t time.Time, utc bool) []byte {
	form := "2006-01-02T15:04:05.000"
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		form += "000"
	}
	b = t.AppendFormat(append(b, '"'), form)
	if utc {
		b = append(b, 'Z')
	}
	return append(b, '"')
}

func appendFinite(b []byte, x float64, bits int) []byte {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return b
	}
	return strconv.AppendFloat(b, x, 'g', -1, bits)
}

// appendUnscaledValue appends a decimal of any form that Parquet has for it.
func appendUnscaledValue(b []byte, v parquet.Value, scale int) []byte {
	switch v.Kind() {
	case parquet.Int32:
		return datafile.AppendDecimal(b, int64(v.Int32())>>63, uint64(int64(v.Int32())), scale)
	case parquet.Int64:
		return datafile.AppendDecimal(b, v.Int64()>>63, uint64(v.Int64()), scale)
	case parquet.ByteArray, parquet.FixedLenByteArray:
		if hi, lo, ok := datafile.Decimal128(v.ByteArray()); ok {
			return datafile.AppendDecimal(b, hi, lo, scale)
		}
	}
	return b
}
