package rowsum

import (
	"errors"
	"math"
	"testing"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

func kind(k schema.Kind) schema.Type { return schema.Type{Kind: k} }

func decimal(precision, scale int) schema.Type {
	return schema.Type{Kind: schema.Decimal, Precision: precision, Scale: scale}
}

func pairOf(a string, ofA schema.Type, b string, ofB schema.Type) schema.Type {
	return schema.Type{Kind: schema.Struct, Fields: []schema.Field{{Name: a, Type: ofA, Nullable: true}, {Name: b, Type: ofB, Nullable: true}}}
}

func mapOf(key, value schema.Type) schema.Type {
	return schema.Type{Kind: schema.Map, Key: &key, Value: &value, ValueNull: true}
}

// TestValues pins how every type is written, with its hard values.
func TestValues(t *testing.T) {
	for _, test := range []struct {
		name   string
		of     schema.Type
		append func(*datafile.Column)
		want   string
	}{
		{"null", kind(schema.Double), func(c *datafile.Column) { c.AppendNull() }, `null`},
		{"boolean", kind(schema.Boolean), func(c *datafile.Column) { c.AppendBool(true) }, `true`},
		{"least long", kind(schema.Long), func(c *datafile.Column) { c.AppendInt(math.MinInt64) }, `-9223372036854775808`},
		{"float", kind(schema.Float), func(c *datafile.Column) { c.AppendFloat(float64(float32(0.1))) }, `"f:3fb99999a0000000"`},
		{"negative zero", kind(schema.Double), func(c *datafile.Column) { c.AppendFloat(math.Copysign(0, -1)) }, `"f:8000000000000000"`},
		{"NaN", kind(schema.Double), func(c *datafile.Column) { c.AppendFloat(math.NaN()) }, `"f:nan"`},
		{"decimal", decimal(10, 2), func(c *datafile.Column) { c.AppendInt(-5) }, `"d:-0.05"`},
		{"decimal with zeros at its end", decimal(10, 2), func(c *datafile.Column) { c.AppendInt(12340) }, `"d:123.4"`},
		{"decimal that is whole", decimal(10, 2), func(c *datafile.Column) { c.AppendInt(-10000) }, `"d:-100"`},
		{"decimal zero", decimal(10, 2), func(c *datafile.Column) { c.AppendInt(0) }, `"d:0"`},
		{"decimal without scale", decimal(10, 0), func(c *datafile.Column) { c.AppendInt(100) }, `"d:100"`},
		{"decimal of scale alone", decimal(4, 4), func(c *datafile.Column) { c.AppendInt(1200) }, `"d:0.12"`},
		{"wide decimal", decimal(38, 18), func(c *datafile.Column) { c.AppendDecimal128(-1, 0) }, `"d:-18.446744073709551616"`},
		{"small wide decimal", decimal(38, 20), func(c *datafile.Column) { c.AppendInt(-1) }, `"d:-0.00000000000000000001"`},
		{"string", kind(schema.String), func(c *datafile.Column) { c.AppendString("\b\f\n\r\t\x01\x7f\"\\/<é\u2028😀") }, "\"\\b\\f\\n\\r\\t\\u0001\x7f\\\"\\\\/<é\u2028😀\""},
		{"binary", kind(schema.Binary), func(c *datafile.Column) { c.AppendBytes([]byte{0, 255}) }, `"x:00ff"`},
		{"date", kind(schema.Date), func(c *datafile.Column) { c.AppendInt(-1) }, `"D:-1"`},
		{"timestamp", kind(schema.Timestamp), func(c *datafile.Column) { c.AppendInt(-1) }, `"t:-1"`},
		{"timestamp without zone", kind(schema.TimestampNTZ), func(c *datafile.Column) { c.AppendInt(1) }, `"t:1"`},
		{"array", schema.Type{Kind: schema.Array, Elem: &schema.Type{Kind: schema.Integer}, ElemNull: true}, func(c *datafile.Column) {
			c.Elem.AppendInt(1)
			c.Elem.AppendNull()
			c.EndArray()
		}, `[1,null]`},
		{"empty array", schema.Type{Kind: schema.Array, Elem: &schema.Type{Kind: schema.String}}, func(c *datafile.Column) { c.EndArray() }, `[]`},
		{"struct", pairOf("b", kind(schema.Long), "a", kind(schema.String)), func(c *datafile.Column) {
			c.Fields[0].AppendInt(1)
			c.Fields[1].AppendNull()
			c.EndStruct()
		}, `{"a":null,"b":1}`},
		{"map", mapOf(kind(schema.Integer), kind(schema.Date)), func(c *datafile.Column) {
			for _, k := range []int64{20, 3, 100} {
				c.Key.AppendInt(k)
				c.Value.AppendInt(k)
			}
			c.EndMap()
		}, `{"m":[[100,"D:100"],[20,"D:20"],[3,"D:3"]]}`},
		{"empty map", mapOf(kind(schema.String), kind(schema.String)), func(c *datafile.Column) { c.EndMap() }, `{"m":[]}`},
		{"map of maps", mapOf(kind(schema.String), mapOf(kind(schema.String), kind(schema.Boolean))), func(c *datafile.Column) {
			for _, k := range []string{"y", "x"} {
				c.Key.AppendString(k)
				for _, k := range []string{"b", "a"} {
					c.Value.Key.AppendString(k)
					c.Value.Value.AppendNull()
				}
				c.Value.EndMap()
			}
			c.EndMap()
		}, `{"m":[["x",{"m":[["a",null],["b",null]]}],["y",{"m":[["a",null],["b",null]]}]]}`},
		{"what stores a variant", pairOf("value", kind(schema.Binary), "metadata", kind(schema.Binary)), func(c *datafile.Column) {
			c.Fields[0].AppendNull()
			c.Fields[1].AppendNull()
			c.EndStruct()
		}, `"v"`},
		{"void", kind(schema.Void), func(c *datafile.Column) { c.AppendNull() }, `null`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &schema.Schema{Fields: []schema.Field{{Name: "c", Type: test.of}}}
			b := datafile.NewBatch(s)
			test.append(b.Cols[0])
			got, err := NewEncoder(s).Row(b, 0)
			if want := `{"c":` + test.want + `}`; err != nil || string(got) != want {
				t.Errorf("got %s, %v, want %s", got, err, want)
			}
		})
	}
}

func twoColumns() (*schema.Schema, *datafile.Batch) {
	s := &schema.Schema{Fields: []schema.Field{{Name: "é", Type: kind(schema.Long)}, {Name: "Z\"", Type: kind(schema.String)}}}
	b := datafile.NewBatch(s)
	for i, text := range []string{"one", "two", "three"} {
		b.Cols[0].AppendInt(int64(i))
		b.Cols[1].AppendString(text)
	}
	return s, b
}

func TestKeysAreInByteOrder(t *testing.T) {
	s, b := twoColumns()
	got, err := NewEncoder(s).Row(b, 1)
	if want := `{"Z\"":"two","é":1}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	got, err = NewEncoder(&schema.Schema{}).Row(&datafile.Batch{}, 0)
	if err != nil || string(got) != "{}" {
		t.Errorf("no columns: %s, %v", got, err)
	}
}

func TestSumDoesNotDependOnOrder(t *testing.T) {
	s, b := twoColumns()
	e := NewEncoder(s)
	var all, parts Sum
	if err := all.AddBatch(e, b); err != nil {
		t.Fatal(err)
	}
	for _, rows := range [][]int32{{2}, {1, 0}} {
		var part Sum
		if err := part.AddBatch(e, b.Gather(rows)); err != nil {
			t.Fatal(err)
		}
		parts.Add(part)
	}
	if all != parts || all.Rows != 3 {
		t.Errorf("all %v, parts %v", all, parts)
	}
	// What another program made of these rows.
	if got := all.String(); got != "074bac27c38dacba" {
		t.Errorf("got %s", got)
	}
}

func TestStringThatIsNotUTF8IsAnError(t *testing.T) {
	s := &schema.Schema{Fields: []schema.Field{{Name: "c", Type: kind(schema.String)}}}
	b := datafile.NewBatch(s)
	b.Cols[0].AppendString("\xff")
	if err := new(Sum).AddBatch(NewEncoder(s), b); !errors.Is(err, ErrNotUTF8) {
		t.Errorf("got %v", err)
	}
}

func TestRowsAreWrittenWithoutAllocation(t *testing.T) {
	s, b := twoColumns()
	e := NewEncoder(s)
	var sum Sum
	if n := testing.AllocsPerRun(100, func() { _ = sum.AddBatch(e, b) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
