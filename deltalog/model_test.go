package deltalog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/rowsum"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// A cell is a value as a test keeps it in memory, apart from any column: nil,
// bool, int64 (dates and timestamps too), float64, *big.Int (the unscaled value
// of a decimal), string, []byte, []cell (an array, or the fields of a struct) or
// entries.
type (
	cell    any
	entries [][2]cell
)

// cellLine writes a row as package rowsum defines it, by other means.
func cellLine(s *schema.Schema, row []cell) string {
	return jsonText(cellObject(s.Fields, row))
}

func jsonText(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func cellObject(fields []schema.Field, values []cell) map[string]any {
	o := map[string]any{}
	for i, f := range fields {
		var v cell
		if i < len(values) { // a column that came later
			v = values[i]
		}
		o[f.Name] = cellJSON(&f.Type, v)
	}
	return o
}

func cellJSON(t *schema.Type, v cell) any {
	switch v := v.(type) {
	case float64:
		if v != v {
			return "f:nan"
		}
		return fmt.Sprintf("f:%016x", math.Float64bits(v))
	case *big.Int:
		text := new(big.Rat).SetFrac(v, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.Scale)), nil)).FloatString(t.Scale)
		if t.Scale > 0 {
			text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
		}
		if text == "-0" {
			text = "0"
		}
		return "d:" + text
	case int64:
		switch t.Kind {
		case schema.Date:
			return fmt.Sprint("D:", v)
		case schema.Timestamp, schema.TimestampNTZ:
			return fmt.Sprint("t:", v)
		}
		return v
	case []byte:
		return "x:" + hex.EncodeToString(v)
	case []cell:
		if t.Kind == schema.Struct {
			return cellObject(t.Fields, v)
		}
		all := []any{}
		for _, e := range v {
			all = append(all, cellJSON(t.Elem, e))
		}
		return all
	case entries:
		pairs := [][2]any{}
		for _, e := range v {
			pairs = append(pairs, [2]any{cellJSON(t.Key, e[0]), cellJSON(t.Value, e[1])})
		}
		slices.SortFunc(pairs, func(a, b [2]any) int { return strings.Compare(jsonText(a[0]), jsonText(b[0])) })
		return map[string]any{"m": pairs}
	}
	return v
}

// appendCells appends a row.
func appendCells(b *datafile.Batch, row []cell) {
	for i, c := range b.Cols {
		var v cell
		if i < len(row) {
			v = row[i]
		}
		appendCell(c, v)
	}
}

func appendCell(c *datafile.Column, v cell) {
	switch v := v.(type) {
	case nil:
		c.AppendNull()
	case bool:
		c.AppendBool(v)
	case int64:
		c.AppendInt(v)
	case float64:
		c.AppendFloat(v)
	case *big.Int:
		if c.Type.Precision <= 18 {
			c.AppendInt(v.Int64())
			return
		}
		lo := new(big.Int).And(v, new(big.Int).SetUint64(math.MaxUint64)).Uint64()
		c.AppendDecimal128(new(big.Int).Rsh(v, 64).Int64(), lo)
	case string:
		c.AppendString(v)
	case []byte:
		c.AppendBytes(v)
	case entries:
		for _, e := range v {
			appendCell(c.Key, e[0])
			appendCell(c.Value, e[1])
		}
		c.EndMap()
	case []cell:
		if c.Type.Kind == schema.Struct {
			for i, f := range c.Fields {
				appendCell(f, v[i])
			}
			c.EndStruct()
			return
		}
		for _, e := range v {
			appendCell(c.Elem, e)
		}
		c.EndArray()
	default:
		panic(fmt.Sprintf("no rule for a cell of %T", v))
	}
}

// cellBatch makes a batch of rows.
func cellBatch(s *schema.Schema, rows ...[]cell) *datafile.Batch {
	b := datafile.NewBatch(s)
	for _, row := range rows {
		appendCells(b, row)
	}
	return b
}

// lineSum is the checksum of rows.
func lineSum(lines []string) rowsum.Sum {
	var s rowsum.Sum
	for _, line := range lines {
		h := sha256.Sum256([]byte(line))
		s.Rows++
		s.Bits += binary.BigEndian.Uint64(h[:8])
	}
	return s
}

// readLines reads a version, row by row.
func readLines(ctx context.Context, s *Snapshot) ([]string, error) {
	var lines []string
	e := rowsum.NewEncoder(s.Metadata().Schema)
	for b, err := range s.Read(ctx, ReadOptions{}) {
		if err != nil {
			return nil, err
		}
		for row := range b.Rows() {
			line, err := e.Row(b, row)
			if err != nil {
				return nil, err
			}
			lines = append(lines, string(line))
		}
	}
	return lines, nil
}

// differences tells what is in one list of rows and not in the other, up to a
// few rows of each; nothing when they hold the same rows.
func differences(got, want []string) string {
	count := map[string]int{}
	for _, line := range got {
		count[line]++
	}
	for _, line := range want {
		count[line]--
	}
	var b strings.Builder
	more, less := 0, 0
	for _, line := range slices.Sorted(maps.Keys(count)) {
		n := count[line]
		switch {
		case n > 0:
			if more++; more <= 3 {
				fmt.Fprintf(&b, "\n%d too many: %s", n, line)
			}
		case n < 0:
			if less++; less <= 3 {
				fmt.Fprintf(&b, "\n%d missing: %s", -n, line)
			}
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("%d rows, want %d; %d are too many, %d missing%s", len(got), len(want), more, less, b.String())
}

func nullable(name string, t schema.Type) schema.Field {
	return schema.Field{Name: name, Type: t, Nullable: true}
}

func kindOf(k schema.Kind) schema.Type { return schema.Type{Kind: k} }

func decimalOf(precision, scale int) schema.Type {
	return schema.Type{Kind: schema.Decimal, Precision: precision, Scale: scale}
}

func listOf(t schema.Type) schema.Type {
	return schema.Type{Kind: schema.Array, Elem: &t, ElemNull: true}
}

func mapTypeOf(k, v schema.Type) schema.Type {
	return schema.Type{Kind: schema.Map, Key: &k, Value: &v, ValueNull: true}
}

// primitives has a column of every primitive type.
func primitives() *schema.Schema {
	return &schema.Schema{Fields: []schema.Field{
		nullable("id", kindOf(schema.Long)),
		nullable("flag", kindOf(schema.Boolean)),
		nullable("i8", kindOf(schema.Byte)),
		nullable("i16", kindOf(schema.Short)),
		nullable("i32", kindOf(schema.Integer)),
		nullable("i64", kindOf(schema.Long)),
		nullable("f32", kindOf(schema.Float)),
		nullable("f64", kindOf(schema.Double)),
		nullable("d9", decimalOf(9, 2)),
		nullable("d18", decimalOf(18, 18)),
		nullable("d38", decimalOf(38, 10)),
		nullable("text", kindOf(schema.String)),
		nullable("raw", kindOf(schema.Binary)),
		nullable("day", kindOf(schema.Date)),
		nullable("at", kindOf(schema.Timestamp)),
		nullable("Z local", kindOf(schema.TimestampNTZ)),
	}}
}

// nestedTypes has structs, arrays and maps in each other.
func nestedTypes() *schema.Schema {
	pair := schema.Type{Kind: schema.Struct, Fields: []schema.Field{
		nullable("b", kindOf(schema.Long)), nullable("a", listOf(kindOf(schema.String))),
	}}
	return &schema.Schema{Fields: []schema.Field{
		nullable("id", kindOf(schema.Long)),
		nullable("list", listOf(kindOf(schema.Timestamp))),
		nullable("pair", pair),
		nullable("pairs", listOf(pair)),
		nullable("names", mapTypeOf(kindOf(schema.String), decimalOf(20, 3))),
		nullable("deep", mapTypeOf(kindOf(schema.Integer), listOf(schema.Type{Kind: schema.Struct, Fields: []schema.Field{
			nullable("m", mapTypeOf(kindOf(schema.Date), kindOf(schema.Binary))),
		}}))),
	}}
}

var hardTexts = []string{
	"", "plain", " lead", "trail ", "a/b", "..", "a=b", "100%", "%2F", "?&#+", "\"'`\\", "{}[]^|<>", "line\nbreak\ttab\r", "\x01\x7f", "é", "e\u0301",
	"中文", "😀 and more than thirty-two characters of text", strings.Repeat("z", 40), strings.Repeat("\U0010FFFF", 40), "NULL", "null", "_hidden", ".dot",
}

// randomCell draws a value, or NULL, and among values those at the ends of their
// range.
func randomCell(r *rand.Rand, t *schema.Type) cell {
	if r.IntN(6) == 0 {
		return nil
	}
	pick := func(values ...cell) cell { return values[r.IntN(len(values))] }
	switch t.Kind {
	case schema.Boolean:
		return r.IntN(2) == 0
	case schema.Byte:
		return int64(int8(r.Uint64()))
	case schema.Short:
		return pick(int64(int16(r.Uint64())), int64(math.MinInt16), int64(math.MaxInt16))
	case schema.Integer:
		return pick(int64(int32(r.Uint64())), int64(math.MinInt32), int64(math.MaxInt32))
	case schema.Long:
		return pick(int64(r.Uint64()), r.Int64N(1000), int64(math.MinInt64), int64(math.MaxInt64))
	case schema.Float:
		return pick(float64(r.Float32()), float64(float32(-1e30)), math.Copysign(0, -1), math.NaN(), math.Inf(1), float64(float32(1e-45)))
	case schema.Double:
		return pick(r.NormFloat64(), -1e300, math.Copysign(0, -1), 0.0, math.NaN(), math.Inf(-1), 5e-324)
	case schema.Decimal:
		n := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(r.IntN(t.Precision)+1)), nil)
		n.Sub(n, big.NewInt(r.Int64N(9)+1))
		if r.IntN(2) == 0 {
			n.Neg(n)
		}
		return n
	case schema.String:
		return pick(hardTexts[r.IntN(len(hardTexts))], fmt.Sprint("text ", r.IntN(1000)))
	case schema.Binary:
		b := make([]byte, r.IntN(20))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	case schema.Date:
		return pick(int64(r.IntN(40000)-10000), int64(-719162), int64(2932896))
	case schema.Timestamp, schema.TimestampNTZ:
		return pick(r.Int64N(4e15)-1e15, int64(-1), int64(-62135510400000000), int64(253402214400000000-1))
	case schema.Array:
		all := []cell{}
		for range r.IntN(4) {
			all = append(all, randomCell(r, t.Elem))
		}
		return all
	case schema.Struct:
		all := []cell{}
		for i := range t.Fields {
			all = append(all, randomCell(r, &t.Fields[i].Type))
		}
		return all
	case schema.Map:
		var all entries
		seen := map[string]bool{}
		for range r.IntN(4) {
			k := randomCell(r, t.Key)
			if name := jsonText(cellJSON(t.Key, k)); k != nil && !seen[name] {
				seen[name] = true
				all = append(all, [2]cell{k, randomCell(r, t.Value)})
			}
		}
		return all
	}
	panic("no rule for " + t.String())
}

// randomRow draws a row whose first column is its id.
func randomRow(r *rand.Rand, s *schema.Schema, id int64) []cell {
	row := []cell{id}
	for i := range s.Fields[1:] {
		row = append(row, randomCell(r, &s.Fields[i+1].Type))
	}
	return row
}

// TestTwoWaysToWriteARowAgree holds package rowsum against what these tests make
// of a row.
func TestTwoWaysToWriteARowAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range []*schema.Schema{primitives(), nestedTypes()} {
		e := rowsum.NewEncoder(s)
		for i := range 2000 {
			row := randomRow(r, s, int64(i))
			got, err := e.Row(cellBatch(s, row), 0)
			if want := cellLine(s, row); err != nil || string(got) != want {
				t.Fatalf("%v\n%s\n%s", err, got, want)
			}
		}
	}
}
