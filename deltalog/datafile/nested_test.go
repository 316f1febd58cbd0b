package datafile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/schema"
)

func TestStatisticsOfNestedFields(t *testing.T) {
	long, str, double := schema.Type{Kind: schema.Long}, schema.Type{Kind: schema.String}, schema.Type{Kind: schema.Double}
	mapped := func(name string, id int, t schema.Type) schema.Field {
		return schema.Field{Name: name, Type: t, Nullable: true, Metadata: json.RawMessage(
			fmt.Sprintf(`{"delta.columnMapping.id":%d,"delta.columnMapping.physicalName":"p%d"}`, id, id))}
	}
	s := &schema.Schema{Fields: []schema.Field{
		mapped("id", 1, long),
		mapped("s", 2, schema.Type{Kind: schema.Struct, Fields: []schema.Field{
			mapped("a", 3, double),
			mapped("in.ner", 4, schema.Type{Kind: schema.Struct, Fields: []schema.Field{mapped("b", 5, str), mapped("c", 6, long)}}),
		}}),
		mapped("m", 7, schema.Type{Kind: schema.Map, Key: &str, Value: &long, ValueNull: true}),
		mapped("l", 8, schema.Type{Kind: schema.Array, Elem: &str, ElemNull: true}),
		mapped("last", 9, long),
	}}
	b := NewBatch(s)
	for i := range 3 {
		b.Cols[0].AppendInt(int64(i))
		if i == 2 {
			b.Cols[1].AppendNull()
		} else {
			b.Cols[1].Fields[0].AppendFloat([]float64{1.5, math.NaN()}[i])
			in := b.Cols[1].Fields[1]
			in.Fields[0].AppendString([]string{"x", "y"}[i])
			in.Fields[1].AppendNull()
			in.EndStruct()
			b.Cols[1].EndStruct()
		}
		for range i {
			b.Cols[2].Key.AppendString("k")
			b.Cols[2].Value.AppendNull()
			b.Cols[3].Elem.AppendNull()
		}
		b.Cols[2].EndMap()
		b.Cols[3].EndArray()
		b.Cols[4].AppendNull()
	}
	for _, c := range []struct {
		opts WriterOptions
		want string
	}{
		{WriterOptions{}, `{"numRecords":3,"minValues":{"id":0,"s":{"in.ner":{"b":"x"}}},"maxValues":{"id":2,"s":{"in.ner":{"b":"y"}}},` +
			`"nullCount":{"id":0,"s":{"a":1,"in.ner":{"b":1,"c":3}},"m":0,"l":0,"last":3}}`},
		{WriterOptions{StatsColumns: 3}, `{"numRecords":3,"minValues":{"id":0,"s":{"in.ner":{"b":"x"}}},"maxValues":{"id":2,"s":{"in.ner":{"b":"y"}}},` +
			`"nullCount":{"id":0,"s":{"a":1,"in.ner":{"b":1}}}}`},
		{WriterOptions{StatsColumns: -1}, `{"numRecords":3,"minValues":{},"maxValues":{},"nullCount":{}}`},
		{WriterOptions{StatsNames: []string{"s.`in.ner`.b", "last"}}, `{"numRecords":3,"minValues":{"s":{"in.ner":{"b":"x"}}},"maxValues":{"s":{"in.ner":{"b":"y"}}},` +
			`"nullCount":{"s":{"in.ner":{"b":1}},"last":3}}`},
		{WriterOptions{StatsNames: []string{"s"}}, `{"numRecords":3,"minValues":{"s":{"in.ner":{"b":"x"}}},"maxValues":{"s":{"in.ner":{"b":"y"}}},` +
			`"nullCount":{"s":{"a":1,"in.ner":{"b":1,"c":3}}}}`},
		{WriterOptions{Mapping: schema.ByID, StatsNames: []string{"id", "s.`in.ner`"}}, `{"numRecords":3,"minValues":{"p1":0,"p2":{"p4":{"p5":"x"}}},` +
			`"maxValues":{"p1":2,"p2":{"p4":{"p5":"y"}}},"nullCount":{"p1":0,"p2":{"p4":{"p5":1,"p6":3}}}}`},
	} {
		c.opts.Schema = s
		data, info := write(t, c.opts, b)
		got, err := json.Marshal(info.Stats)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
		f := openBytes(t, data).Mapped(c.opts.Mapping)
		if d := diff(readAll(t, f, s, 0), b); d != "" {
			t.Error(d)
		}
	}
}

func TestFieldsThatTheFileLacksAreNull(t *testing.T) {
	long, str := schema.Type{Kind: schema.Long}, schema.Type{Kind: schema.String}
	point := schema.Type{Kind: schema.Struct, Fields: []schema.Field{{Name: "x", Type: long, Nullable: true}}}
	more := schema.Type{Kind: schema.Struct, Fields: []schema.Field{{Name: "y", Type: str, Nullable: true}, {Name: "v", Type: schema.Type{Kind: schema.Void}, Nullable: true}}}
	of := func(p *schema.Type) *schema.Schema {
		return &schema.Schema{Fields: []schema.Field{
			{Name: "p", Type: *p, Nullable: true},
			{Name: "ps", Type: schema.Type{Kind: schema.Array, Elem: p, ElemNull: true}, Nullable: true},
			{Name: "v", Type: schema.Type{Kind: schema.Void}, Nullable: true},
		}}
	}
	b := NewBatch(of(&point))
	for i := range 3 {
		if i == 1 {
			b.Cols[0].AppendNull()
			b.Cols[1].AppendNull()
		} else {
			for _, c := range []*Column{b.Cols[0], b.Cols[1].Elem} {
				c.Fields[0].AppendInt(int64(i))
				c.EndStruct()
			}
			b.Cols[1].Elem.AppendNull()
			b.Cols[1].EndArray()
		}
		b.Cols[2].AppendNull()
	}
	data, _ := write(t, WriterOptions{Schema: of(&point)}, b)
	f := openBytes(t, data)
	if f.Schema().Field("v") >= 0 {
		t.Error("a void column is in the file")
	}
	got := readAll(t, f, of(&more), 0)
	for i := range 3 {
		if got.Cols[0].Valid[i] != (i != 1) || got.Cols[1].Valid[i] != (i != 1) || got.Cols[2].Valid[i] {
			t.Errorf("row %d is another", i)
		}
	}
	if e := got.Cols[1].Elem; fmt.Sprint(e.Valid) != "[true false true false]" || countNulls(e.Fields[0].Valid) != 4 {
		t.Errorf("elements are %v", e.Valid)
	}
}

func TestTypesWidenExactly(t *testing.T) {
	typ := func(k schema.Kind) schema.Type { return schema.Type{Kind: k} }
	dec := func(p, s int) schema.Type { return schema.Type{Kind: schema.Decimal, Precision: p, Scale: s} }
	for _, c := range []struct {
		have, want schema.Type
		value      int64
		text       string // empty where it is refused
	}{
		{typ(schema.Byte), typ(schema.Short), -7, "-7"},
		{typ(schema.Short), typ(schema.Long), -7, "-7"},
		{typ(schema.Integer), typ(schema.Double), math.MaxInt32, dumpFloat(math.MaxInt32)},
		{typ(schema.Long), typ(schema.Double), 1, ""},
		{typ(schema.Integer), typ(schema.Float), 1, ""},
		{typ(schema.Byte), dec(10, 0), -7, "-7"},
		{typ(schema.Integer), dec(10, 0), math.MinInt32, "-2147483648"},
		{typ(schema.Integer), dec(15, 5), -7, "-700000"},
		{typ(schema.Integer), dec(15, 6), -7, ""},
		{typ(schema.Integer), dec(9, 0), -7, ""},
		{typ(schema.Integer), dec(38, 28), math.MinInt32, "-2147483648" + strings.Repeat("0", 28)},
		{typ(schema.Long), dec(20, 0), math.MinInt64, "-9223372036854775808"},
		{typ(schema.Long), dec(24, 4), math.MaxInt64, "92233720368547758070000"},
		{typ(schema.Long), dec(24, 5), 1, ""},
		{typ(schema.Long), dec(18, 0), 1, ""},
		{dec(5, 2), dec(7, 4), -12345, "-1234500"},
		{dec(5, 2), dec(6, 4), -12345, ""},
		{dec(18, 2), dec(38, 22), -12345, "-12345" + strings.Repeat("0", 20)},
		{dec(5, 2), dec(5, 1), 1, ""},
		{typ(schema.Date), typ(schema.TimestampNTZ), -1, "-86400000000"},
		{typ(schema.Date), typ(schema.TimestampNTZ), math.MaxInt32, ""},
		{typ(schema.Date), typ(schema.Timestamp), 1, ""},
		{typ(schema.Boolean), typ(schema.Integer), 1, ""},
		{typ(schema.Timestamp), typ(schema.Date), 1, ""},
		{typ(schema.Timestamp), typ(schema.Long), 1, ""},
	} {
		one := func(typ schema.Type) *schema.Schema {
			return &schema.Schema{Fields: []schema.Field{{Name: "c", Type: typ, Nullable: true}}}
		}
		b := NewBatch(one(c.have))
		b.Cols[0].AppendInt(c.value)
		data, _ := write(t, WriterOptions{Schema: one(c.have)}, b)
		got := ""
		for r, err := range openBytes(t, data).Read(context.Background(), one(c.want), ReadOptions{}) {
			if err == nil {
				got = dump(r.Cols[0], 0)
			} else if !errors.Is(err, ErrMismatch) {
				t.Errorf("%s as %s: error is %v", c.have, c.want, err)
			}
		}
		if got != c.text {
			t.Errorf("%d of %s as %s: %q, want %q", c.value, c.have, c.want, got, c.text)
		}
	}
}

func dumpFloat(v float64) string { return fmt.Sprintf("%016x", math.Float64bits(v)) }

// TestReadingTakesTheMemoryOfABatch reads 400 MiB of wide rows, nested and not.
func TestReadingTakesTheMemoryOfABatch(t *testing.T) {
	str := schema.Type{Kind: schema.String}
	s := &schema.Schema{Fields: []schema.Field{
		{Name: "wide", Type: str, Nullable: true},
		{Name: "list", Type: schema.Type{Kind: schema.Array, Elem: &str}, Nullable: true},
	}}
	var out bytes.Buffer
	w, err := NewWriter(&out, WriterOptions{Schema: s})
	if err != nil {
		t.Fatal(err)
	}
	const rows, width = 6400, 32 << 10
	b := NewBatch(s)
	for row := range rows {
		b.Cols[0].AppendString(strings.Repeat(fmt.Sprintf("%08d", row), width/8))
		for i := range 4 {
			b.Cols[1].Elem.AppendString(strings.Repeat(fmt.Sprintf("%08d", i), width/32))
		}
		b.Cols[1].EndArray()
		if b.Rows() == 100 {
			if err := w.Write(b); err != nil {
				t.Fatal(err)
			}
			b.Reset()
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f := openBytes(t, out.Bytes())
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most, n := heap(), uint64(0), 0
	for got, err := range f.Read(t.Context(), s, ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		n += got.Rows()
		most = max(most, heap())
	}
	if n != rows {
		t.Fatalf("%d rows", n)
	}
	if took := int64(most) - int64(before); took > 3*batchBytes {
		t.Errorf("took %d MiB", took>>20)
	}
}
