package datafile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/millrace-io/millrace/deltalog/schema"
)

func TestWriterRefusesWhatItCannotHold(t *testing.T) {
	typ := func(k schema.Kind) schema.Type { return schema.Type{Kind: k} }
	str := typ(schema.String)
	for _, c := range []struct {
		name     string
		field    schema.Field
		col      schema.Type // of the batch
		fill     func(c *Column)
		nullable bool
	}{
		{"a byte of 300", schema.Field{Type: typ(schema.Byte)}, typ(schema.Byte), func(c *Column) { c.AppendInt(300) }, true},
		{"an integer of 33 bits", schema.Field{Type: typ(schema.Integer)}, typ(schema.Integer), func(c *Column) { c.AppendInt(math.MaxInt32 + 1) }, true},
		{"a boolean of 2", schema.Field{Type: typ(schema.Boolean)}, typ(schema.Boolean), func(c *Column) { c.AppendInt(2) }, true},
		{"a decimal of 3 digits in 2", schema.Field{Type: schema.Type{Kind: schema.Decimal, Precision: 2}}, schema.Type{Kind: schema.Decimal, Precision: 2}, func(c *Column) { c.AppendInt(100) }, true},
		{"a wide decimal of too many digits", schema.Field{Type: schema.Type{Kind: schema.Decimal, Precision: 19}}, schema.Type{Kind: schema.Decimal, Precision: 19}, func(c *Column) { c.AppendDecimal128(1, 0) }, true},
		{"a double in a float", schema.Field{Type: typ(schema.Float)}, typ(schema.Float), func(c *Column) { c.AppendFloat(0.1) }, true},
		{"NULL where there is none", schema.Field{Type: str}, str, func(c *Column) { c.AppendNull() }, false},
		{"a column of another type", schema.Field{Type: str}, typ(schema.Binary), func(c *Column) { c.AppendString("x") }, true},
		{"NULL in an array without", schema.Field{Type: schema.Type{Kind: schema.Array, Elem: &str}}, schema.Type{Kind: schema.Array, Elem: &str}, func(c *Column) {
			c.Elem.AppendNull()
			c.EndArray()
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.field.Name, c.field.Nullable = "c", c.nullable
			w, err := NewWriter(io.Discard, WriterOptions{Schema: &schema.Schema{Fields: []schema.Field{c.field}}})
			if err != nil {
				t.Fatal(err)
			}
			b := &Batch{Names: []string{"c"}, Cols: []*Column{NewColumn(c.col)}}
			c.fill(b.Cols[0])
			if err := w.Write(b); !errors.Is(err, ErrMismatch) {
				t.Fatalf("error is %v", err)
			}
			if _, err := w.Close(); !errors.Is(err, ErrMismatch) {
				t.Fatalf("error of Close is %v", err)
			}
		})
	}
}

func TestTypesThatNoFileHoldsAreUnsupported(t *testing.T) {
	void := schema.Type{Kind: schema.Void}
	for _, typ := range []schema.Type{
		{Kind: schema.Struct},
		{Kind: schema.Struct, Fields: []schema.Field{{Name: "x", Type: void}}},
		{Kind: schema.Array},
		{Kind: schema.Array, Elem: &void},
		{Kind: schema.Map, Key: &void},
	} {
		s := &schema.Schema{Fields: []schema.Field{{Name: "c", Type: typ}}}
		if _, err := NewWriter(io.Discard, WriterOptions{Schema: s}); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: error is %v", typ.Kind, err)
		}
	}
}

func TestReaderRefusesOtherTypes(t *testing.T) {
	long, str := schema.Type{Kind: schema.Long}, schema.Type{Kind: schema.String}
	dec := func(p, s int) schema.Type { return schema.Type{Kind: schema.Decimal, Precision: p, Scale: s} }
	one := func(typ schema.Type) *schema.Schema {
		return &schema.Schema{Fields: []schema.Field{{Name: "c", Type: typ, Nullable: true}}}
	}
	for _, c := range []struct {
		have, want schema.Type
		ok         bool
	}{
		{schema.Type{Kind: schema.Integer}, long, true},
		{long, schema.Type{Kind: schema.Integer}, false},
		{schema.Type{Kind: schema.Float}, schema.Type{Kind: schema.Double}, true},
		{long, str, false},
		{str, schema.Type{Kind: schema.Array, Elem: &str}, false},
		{dec(9, 2), dec(12, 2), true},
		{dec(9, 2), dec(30, 2), true},
		{dec(19, 2), dec(38, 2), true},
		{dec(9, 2), dec(9, 3), false},
		{dec(12, 2), dec(9, 2), false},
		{schema.Type{Kind: schema.Date}, schema.Type{Kind: schema.Timestamp}, false},
		{schema.Type{Kind: schema.Integer}, schema.Type{Kind: schema.Date}, false},
	} {
		b := NewBatch(one(c.have))
		b.Cols[0].AppendNull()
		data, _ := write(t, WriterOptions{Schema: one(c.have)}, b)
		var err error
		for _, e := range openBytes(t, data).Read(context.Background(), one(c.want), ReadOptions{}) {
			err = e
		}
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrMismatch) {
			t.Errorf("%s as %s: error is %v", c.have, c.want, err)
		}
	}
}

func TestWidenedValuesAreTheSame(t *testing.T) {
	have := &schema.Schema{Fields: []schema.Field{
		{Name: "i", Type: schema.Type{Kind: schema.Byte}, Nullable: true},
		{Name: "f", Type: schema.Type{Kind: schema.Float}, Nullable: true},
		{Name: "d", Type: schema.Type{Kind: schema.Decimal, Precision: 5, Scale: 2}, Nullable: true},
	}}
	want := &schema.Schema{Fields: []schema.Field{
		{Name: "i", Type: schema.Type{Kind: schema.Long}, Nullable: true},
		{Name: "f", Type: schema.Type{Kind: schema.Double}, Nullable: true},
		{Name: "d", Type: schema.Type{Kind: schema.Decimal, Precision: 30, Scale: 2}, Nullable: true},
	}}
	b := NewBatch(have)
	b.Cols[0].AppendInt(-7)
	b.Cols[1].AppendFloat(1.25)
	b.Cols[2].AppendInt(-12345)
	data, _ := write(t, WriterOptions{Schema: have}, b)
	got := readAll(t, openBytes(t, data), want, 0)
	hi, lo := got.Cols[2].Decimal128(0)
	if got.Cols[0].I64[0] != -7 || got.Cols[1].F64[0] != 1.25 || hi != -1 || int64(lo) != -12345 {
		t.Fatalf("read %v, %v, %d %d", got.Cols[0].I64, got.Cols[1].F64, hi, int64(lo))
	}
}

func TestReadRowsRefusesRowsThatAreNotThere(t *testing.T) {
	s, b := mixed(10)
	data, _ := write(t, WriterOptions{Schema: s}, b)
	f := openBytes(t, data)
	for _, rows := range [][]int64{{10}, {-1}, {3, 3}, {4, 2}} {
		if _, err := f.ReadRows(context.Background(), s, rows); !errors.Is(err, ErrMismatch) {
			t.Errorf("%v: error is %v", rows, err)
		}
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	s, b := mixed(10)
	data, _ := write(t, WriterOptions{Schema: s}, b)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, err := range openBytes(t, data).Read(ctx, s, ReadOptions{}) {
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("error is %v", err)
		}
	}
}

func TestDamagedFilesAreCorrupt(t *testing.T) {
	s, b := mixed(500)
	data, _ := write(t, WriterOptions{Schema: s}, b)
	for _, damaged := range [][]byte{nil, []byte("PAR1"), data[:len(data)/2], data[:len(data)-1], append([]byte("PAR1\xff\xff\xff\x7f"), "PAR1"...)} {
		if _, err := Open(bytes.NewReader(damaged), int64(len(damaged))); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes: error is %v", len(damaged), err)
		}
	}
	// A flipped bit in a page fails its checksum.
	flipped := bytes.Clone(data)
	flipped[len(data)/3] ^= 0x10
	f := openBytes(t, flipped)
	var err error
	for _, e := range f.Read(context.Background(), s, ReadOptions{}) {
		err = e
	}
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("error is %v", err)
	}
}
