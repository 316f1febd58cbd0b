package datafile

import (
	"bytes"
	"encoding/json"
	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// statsOf writes one column and returns its statistics as Delta has them.
func statsOf(t rapid.TB, typ schema.Type, fill func(c *Column)) string {
	t.Helper()
	s := &schema.Schema{Fields: []schema.Field{{Name: "c", Type: typ, Nullable: true}}}
	b := NewBatch(s)
	fill(b.Cols[0])
	_, info := write(t, WriterOptions{Schema: s, RowGroupRows: 2}, b)
	text, err := json.Marshal(info.Stats)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestStatistics(t *testing.T) {
	typ := func(k schema.Kind) schema.Type { return schema.Type{Kind: k} }
	intsOf := func(v ...int64) func(*Column) {
		return func(c *Column) {
			for _, x := range v {
				c.AppendInt(x)
			}
		}
	}
	floatsOf := func(v ...float64) func(*Column) {
		return func(c *Column) {
			for _, x := range v {
				c.AppendFloat(x)
			}
		}
	}
	textOf := func(v ...string) func(*Column) {
		return func(c *Column) {
			for _, x := range v {
				c.AppendString(x)
			}
		}
	}
	bigOf := func(v ...string) func(*Column) {
		return func(c *Column) {
			for _, x := range v {
				n, _ := new(big.Int).SetString(x, 10)
				appendBig(c, n)
			}
		}
	}
	dec := func(p, s int) schema.Type { return schema.Type{Kind: schema.Decimal, Precision: p, Scale: s} }
	a := strings.Repeat("a", 31)
	str := typ(schema.String)
	for _, c := range []struct {
		name string
		typ  schema.Type
		fill func(*Column)
		min  string
		max  string // both empty: no bounds
	}{
		{"integers", typ(schema.Integer), intsOf(3, -7, 5), `-7`, `5`},
		{"longs", typ(schema.Long), intsOf(math.MaxInt64, math.MinInt64), `-9223372036854775808`, `9223372036854775807`},
		{"nulls alone", typ(schema.Long), func(c *Column) { c.AppendNull() }, ``, ``},
		{"booleans", typ(schema.Boolean), intsOf(0, 1), ``, ``},
		{"binary", typ(schema.Binary), textOf("a", "b"), ``, ``},
		{"decimals of few digits", dec(9, 2), intsOf(-5, 5, 12345), `-0.05`, `123.45`},
		{"decimals without scale", dec(9, 0), intsOf(-5, 5), `-5`, `5`},
		{"decimals of 18 digits", dec(18, 18), intsOf(-999999999999999999, 1), `-0.999999999999999999`, `0.000000000000000001`},
		{"decimals of 38 digits", dec(38, 10), bigOf("-99999999999999999999999999999999999999", "12345678901234567890123456789012345678"), `-9999999999999999999999999999.9999999999`, `1234567890123456789012345678.9012345678`},
		{"decimals around zero", dec(30, 2), bigOf("-5", "5"), `-0.05`, `0.05`},
		{"doubles", typ(schema.Double), floatsOf(1.5, -2.25, 1e300), `-2.25`, `1e+300`},
		{"floats", typ(schema.Float), floatsOf(float64(float32(0.1)), float64(float32(0.7))), `0.1`, `0.7`},
		{"NaN", typ(schema.Double), floatsOf(1, math.NaN(), 2), ``, ``},
		{"NaN in an earlier row group", typ(schema.Double), floatsOf(math.NaN(), 1, 2, 3), ``, ``},
		{"infinity", typ(schema.Double), floatsOf(1, math.Inf(1)), ``, ``},
		{"dates", typ(schema.Date), intsOf(0, -1, 19000), `"1969-12-31"`, `"2022-01-08"`},
		{"dates that nobody parses", typ(schema.Date), intsOf(maxDate + 1), ``, ``},
		{"timestamps", typ(schema.Timestamp), intsOf(1580544549010001, 1580544549010999), `"2020-02-01T08:09:09.010Z"`, `"2020-02-01T08:09:09.011Z"`},
		{"timestamps before 1970", typ(schema.Timestamp), intsOf(-1, -1999), `"1969-12-31T23:59:59.998Z"`, `"1970-01-01T00:00:00.000Z"`},
		{"timestamps on the millisecond", typ(schema.TimestampNTZ), intsOf(-1000, 1000), `"1969-12-31T23:59:59.999"`, `"1970-01-01T00:00:00.001"`},
		{"strings", str, textOf("pear", "apple", "fig"), `"apple"`, `"pear"`},
		{"empty strings", str, textOf("", ""), `""`, `""`},
		{"strings of 32", str, textOf(a + "b"), `"` + a + `b"`, `"` + a + `b"`},
		{"a cut string", str, textOf(a + "bc"), `"` + a + `b"`, `"` + a + "b\x7f" + `"`},
		{"cut before another alphabet", str, textOf(a + "bé"), `"` + a + `b"`, `"` + a + "b\U0010ffff" + `"`},
		{"cut before the last character", str, textOf(a + "b\U0010ffffc"), `"` + a + `b"`, `"` + a + "b\U0010ffff\x7f" + `"`},
		{"characters, not bytes", str, textOf(strings.Repeat("é", 33)), `"` + strings.Repeat("é", 32) + `"`, `"` + strings.Repeat("é", 32) + "\U0010ffff" + `"`},
		{"no text", str, textOf("\xff"), ``, ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got struct {
				NumRecords int64
				MinValues  map[string]json.RawMessage
				MaxValues  map[string]json.RawMessage
				NullCount  map[string]int64
			}
			text := statsOf(t, c.typ, c.fill)
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatal(err)
			}
			if string(got.MinValues["c"]) != c.min || string(got.MaxValues["c"]) != c.max {
				t.Errorf("bounds are %s and %s, want %s and %s", got.MinValues["c"], got.MaxValues["c"], c.min, c.max)
			}
			if _, ok := got.NullCount["c"]; !ok {
				t.Error("no nullCount")
			}
		})
	}
}

func TestTheLastStringHasNoUpperBound(t *testing.T) {
	last := strings.Repeat("\U0010ffff", 100)
	text := statsOf(t, schema.Type{Kind: schema.String}, func(c *Column) { c.AppendString(last) })
	if !strings.Contains(text, `"maxValues":{}`) || strings.Contains(text, `"minValues":{}`) {
		t.Fatal(text)
	}
}

func TestStatisticsOfChosenColumns(t *testing.T) {
	s := &schema.Schema{}
	for _, name := range []string{"a", "b", "c"} {
		s.Fields = append(s.Fields, schema.Field{Name: name, Type: schema.Type{Kind: schema.Long}, Nullable: true})
	}
	b := NewBatch(s)
	for _, c := range b.Cols {
		c.AppendInt(1)
	}
	for _, c := range []struct {
		opts WriterOptions
		want string
	}{
		{WriterOptions{}, `{"a":0,"b":0,"c":0}`},
		{WriterOptions{StatsColumns: 2}, `{"a":0,"b":0}`},
		{WriterOptions{StatsColumns: -1}, `{}`},
		{WriterOptions{StatsColumns: 2, StatsNames: []string{"c"}}, `{"c":0}`},
		{WriterOptions{StatsNames: []string{}}, `{}`},
	} {
		c.opts.Schema = s
		_, info := write(t, c.opts, b)
		text, err := json.Marshal(info.Stats)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(string(text), `"nullCount":`+c.want+`}`) {
			t.Errorf("%+v: %s, want nullCount %s", c.opts, text, c.want)
		}
	}
}

// TestBoundsHoldEveryValue checks the bounds in the log and in the footer.
func TestBoundsHoldEveryValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		typ := schema.Type{Kind: rapid.SampledFrom([]schema.Kind{schema.String, schema.Binary}).Draw(t, "kind")}
		s := &schema.Schema{Fields: []schema.Field{{Name: "c", Type: typ, Nullable: true}}}
		b := NewBatch(s)
		prefix := strings.Repeat(rapid.SampledFrom([]string{"", "a", "é", "\U0010ffff", "\uffff"}).Draw(t, "rune"), rapid.IntRange(0, 80).Draw(t, "times"))
		for range rapid.IntRange(1, 6).Draw(t, "rows") {
			b.Cols[0].AppendString(prefix + rapid.String().Draw(t, "value"))
		}
		data, info := write(t, WriterOptions{Schema: s}, b)
		var stats struct{ MinValues, MaxValues map[string]string }
		text, _ := json.Marshal(info.Stats)
		if err := json.Unmarshal(text, &stats); err != nil {
			t.Fatal(err)
		}
		footer := openBytes(t, data).file.Metadata().RowGroups[0].Columns[0].MetaData.Statistics
		for row := range b.Rows() {
			v := b.Cols[0].At(row)
			if least, ok := stats.MinValues["c"]; ok && least > string(v) {
				t.Fatalf("%q is below %q", v, least)
			}
			if most, ok := stats.MaxValues["c"]; ok && most < string(v) {
				t.Fatalf("%q is above %q", v, most)
			}
			if footer.MaxValue != nil && (bytes.Compare(footer.MinValue, v) > 0 || bytes.Compare(footer.MaxValue, v) < 0) {
				t.Fatalf("%q is outside %q to %q", v, footer.MinValue, footer.MaxValue)
			}
		}
		if len(footer.MaxValue) > maxFooterBound+4 || len(footer.MinValue) > maxFooterBound {
			t.Fatalf("bounds of %d and %d bytes", len(footer.MinValue), len(footer.MaxValue))
		}
	})
}
