package inspect

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

func kind(k schema.Kind) schema.Type { return schema.Type{Kind: k} }

func mapOf(key schema.Type) schema.Type {
	return schema.Type{Kind: schema.Map, Key: &key, Value: &schema.Type{Kind: schema.Integer}, ValueNull: true}
}

// TestValuesAsJSON pins how every type is written, with its hard values.
func TestValuesAsJSON(t *testing.T) {
	const micro = 1_000_000
	for _, test := range []struct {
		name   string
		of     schema.Type
		append func(*datafile.Column)
		want   string
	}{
		{"null", kind(schema.Long), func(c *datafile.Column) { c.AppendNull() }, `null`},
		{"true", kind(schema.Boolean), func(c *datafile.Column) { c.AppendBool(true) }, `true`},
		{"false", kind(schema.Boolean), func(c *datafile.Column) { c.AppendBool(false) }, `false`},
		{"byte", kind(schema.Byte), func(c *datafile.Column) { c.AppendInt(-128) }, `-128`},
		{"short", kind(schema.Short), func(c *datafile.Column) { c.AppendInt(32767) }, `32767`},
		{"integer", kind(schema.Integer), func(c *datafile.Column) { c.AppendInt(-2147483648) }, `-2147483648`},
		{"long", kind(schema.Long), func(c *datafile.Column) { c.AppendInt(math.MaxInt64) }, `9223372036854775807`},
		{"float", kind(schema.Float), func(c *datafile.Column) { c.AppendFloat(float64(float32(0.1))) }, `0.1`},
		{"double", kind(schema.Double), func(c *datafile.Column) { c.AppendFloat(0.1) }, `0.1`},
		{"negative zero", kind(schema.Double), func(c *datafile.Column) { c.AppendFloat(math.Copysign(0, -1)) }, `-0`},
		{"large double", kind(schema.Double), func(c *datafile.Column) { c.AppendFloat(1e300) }, `1e+300`},
		{"NaN", kind(schema.Double), func(c *datafile.Column) { c.AppendFloat(math.NaN()) }, `"NaN"`},
		{"infinity", kind(schema.Float), func(c *datafile.Column) { c.AppendFloat(math.Inf(-1)) }, `"-Infinity"`},
		{"decimal", schema.Type{Kind: schema.Decimal, Precision: 10, Scale: 2}, func(c *datafile.Column) { c.AppendInt(-5) }, `-0.05`},
		{"decimal without scale", schema.Type{Kind: schema.Decimal, Precision: 5}, func(c *datafile.Column) { c.AppendInt(120) }, `120`},
		{"wide decimal", schema.Type{Kind: schema.Decimal, Precision: 38, Scale: 18}, func(c *datafile.Column) { c.AppendDecimal128(-1, 0) }, `-18.446744073709551616`},
		{"string", kind(schema.String), func(c *datafile.Column) { c.AppendString("a\"b\\c\n\x00é\u2028") }, "\"a\\\"b\\\\c\\n\\u0000é\u2028\""},
		{"broken string", kind(schema.String), func(c *datafile.Column) { c.AppendString("a\xffb") }, `"a\ufffdb"`},
		{"binary", kind(schema.Binary), func(c *datafile.Column) { c.AppendBytes([]byte{0, 255}) }, `"AP8="`},
		{"date", kind(schema.Date), func(c *datafile.Column) { c.AppendInt(-1) }, `"1969-12-31"`},
		{"first date", kind(schema.Date), func(c *datafile.Column) { c.AppendInt(-719162) }, `"0001-01-01"`},
		{"last date", kind(schema.Date), func(c *datafile.Column) { c.AppendInt(2932896) }, `"9999-12-31"`},
		{"date beyond four digits", kind(schema.Date), func(c *datafile.Column) { c.AppendInt(math.MaxInt32) }, `"+5881580-07-11"`},
		{"date before the calendar", kind(schema.Date), func(c *datafile.Column) { c.AppendInt(math.MinInt32) }, `"-5877641-06-23"`},
		{"last timestamp", kind(schema.Timestamp), func(c *datafile.Column) { c.AppendInt(math.MaxInt64) }, `"+294247-01-10T04:00:54.775807Z"`},
		{"first timestamp", kind(schema.Timestamp), func(c *datafile.Column) { c.AppendInt(math.MinInt64) }, `"-290308-12-21T19:59:05.224192Z"`},
		{"timestamp", kind(schema.Timestamp), func(c *datafile.Column) { c.AppendInt(-1) }, `"1969-12-31T23:59:59.999999Z"`},
		{"whole second", kind(schema.Timestamp), func(c *datafile.Column) { c.AppendInt(5 * micro) }, `"1970-01-01T00:00:05Z"`},
		{"timestamp without zone", kind(schema.TimestampNTZ), func(c *datafile.Column) { c.AppendInt(1) }, `"1970-01-01T00:00:00.000001"`},
		{"array", schema.Type{Kind: schema.Array, Elem: &schema.Type{Kind: schema.Integer}, ElemNull: true}, func(c *datafile.Column) {
			c.Elem.AppendInt(1)
			c.Elem.AppendNull()
			c.EndArray()
		}, `[1,null]`},
		{"empty array", schema.Type{Kind: schema.Array, Elem: &schema.Type{Kind: schema.String}}, func(c *datafile.Column) { c.EndArray() }, `[]`},
		{"map by string", mapOf(kind(schema.String)), func(c *datafile.Column) {
			c.Key.AppendString("a")
			c.Value.AppendInt(1)
			c.Key.AppendString("b")
			c.Value.AppendNull()
			c.EndMap()
		}, `{"a":1,"b":null}`},
		{"map by date", mapOf(kind(schema.Date)), func(c *datafile.Column) {
			c.Key.AppendInt(0)
			c.Value.AppendInt(1)
			c.Key.AppendInt(1)
			c.Value.AppendInt(2)
			c.EndMap()
		}, `[{"key":"1970-01-01","value":1},{"key":"1970-01-02","value":2}]`},
		{"empty map", mapOf(kind(schema.Date)), func(c *datafile.Column) { c.EndMap() }, `[]`},
		{"empty map by string", mapOf(kind(schema.String)), func(c *datafile.Column) { c.EndMap() }, `{}`},
		{"struct", schema.Type{Kind: schema.Struct, Fields: []schema.Field{{Name: "z", Type: kind(schema.Long)}, {Name: "a", Type: kind(schema.Binary)}}}, func(c *datafile.Column) {
			c.Fields[0].AppendInt(1)
			c.Fields[1].AppendNull()
			c.EndStruct()
		}, `{"z":1,"a":null}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := datafile.NewColumn(test.of)
			test.append(c)
			got := string(appendValue(nil, c, 0))
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("%s is not JSON", got)
			}
		})
	}
}

func TestRowKeepsTheOrderOfColumns(t *testing.T) {
	a, b := datafile.NewColumn(kind(schema.Long)), datafile.NewColumn(kind(schema.String))
	for i := range 2 {
		a.AppendInt(int64(i))
		b.AppendString(strings.Repeat("x", i))
	}
	var e encoder
	e.begin(&datafile.Batch{Names: []string{"z", "a\"b"}, Cols: []*datafile.Column{a, b}})
	if got := string(e.row(1)); got != "{\"z\":1,\"a\\\"b\":\"x\"}\n" {
		t.Errorf("got %s", got)
	}
	e.begin(&datafile.Batch{Names: []string{"z"}, Cols: []*datafile.Column{a}})
	if got := string(e.row(0)); got != "{\"z\":0}\n" {
		t.Errorf("got %s", got)
	}
}

func TestRowsAreWrittenWithoutAllocation(t *testing.T) {
	a, b := datafile.NewColumn(kind(schema.Timestamp)), datafile.NewColumn(kind(schema.String))
	a.AppendInt(1)
	b.AppendString("text")
	var e encoder
	e.begin(&datafile.Batch{Names: []string{"a", "b"}, Cols: []*datafile.Column{a, b}})
	e.row(0)
	if n := testing.AllocsPerRun(100, func() { e.row(0) }); n > 0 {
		t.Errorf("%v allocations a row", n)
	}
}

func BenchmarkRow(b *testing.B) {
	id, text := datafile.NewColumn(kind(schema.Long)), datafile.NewColumn(kind(schema.String))
	id.AppendInt(123456)
	text.AppendString("a text of some forty bytes, as names are.")
	var e encoder
	e.begin(&datafile.Batch{Names: []string{"id", "text"}, Cols: []*datafile.Column{id, text}})
	for b.Loop() {
		e.row(0)
	}
}
