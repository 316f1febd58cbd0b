package datafile

import (
	"bytes"
	"encoding/hex"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/deltalog/schema"
)

func TestEncodingsAreEqualWhenRowsAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSchema().Draw(t, "schema")
		for i := range s.Fields {
			s.Fields[i].Nullable = true
		}
		b := genBatch(t, s, 6)
		for i := range b.Rows() {
			for j := range b.Rows() {
				equal := true
				for _, c := range b.Cols {
					equal = equal && c.Equal(i, c, j)
				}
				same := bytes.Equal(AppendCanonical(nil, b.Cols, i), AppendCanonical(nil, b.Cols, j))
				if same != equal {
					t.Fatalf("rows %d and %d: equal %v, encodings equal %v", i, j, equal, same)
				}
				hi1, lo1 := RowHash(b.Cols, i)
				hi2, lo2 := RowHash(b.Cols, j)
				if (hi1 == hi2 && lo1 == lo2) != equal {
					t.Fatalf("rows %d and %d: hashes do not tell", i, j)
				}
			}
		}
	})
}

// TestEncodingIsStable pins what index files hold.
func TestEncodingIsStable(t *testing.T) {
	str := schema.Type{Kind: schema.String}
	for _, c := range []struct {
		typ    schema.Type
		append func(c *Column)
		want   string
	}{
		{schema.Type{Kind: schema.Long}, func(c *Column) { c.AppendInt(1) }, "038000000000000001"},
		{schema.Type{Kind: schema.Byte}, func(c *Column) { c.AppendInt(-1) }, "037fffffffffffffff"},
		{schema.Type{Kind: schema.Long}, func(c *Column) { c.AppendNull() }, "01"},
		{schema.Type{Kind: schema.Boolean}, func(c *Column) { c.AppendBool(true) }, "0201"},
		{schema.Type{Kind: schema.Double}, func(c *Column) { c.AppendFloat(1.5) }, "04bff8000000000000"},
		{schema.Type{Kind: schema.Double}, func(c *Column) { c.AppendFloat(-1.5) }, "044007ffffffffffff"},
		{schema.Type{Kind: schema.Double}, func(c *Column) { c.AppendFloat(math.Copysign(0, -1)) }, "048000000000000000"},
		{schema.Type{Kind: schema.Float}, func(c *Column) { c.AppendFloat(math.NaN()) }, "04fff8000000000000"},
		{schema.Type{Kind: schema.Decimal, Precision: 5, Scale: 2}, func(c *Column) { c.AppendInt(-1) }, "057fffffffffffffffffffffffffffffff"},
		{schema.Type{Kind: schema.Decimal, Precision: 38}, func(c *Column) { c.AppendInt(7) }, "0580000000000000000000000000000007"},
		{str, func(c *Column) { c.AppendString("ab") }, "06026162"},
		{schema.Type{Kind: schema.Binary}, func(c *Column) { c.AppendString("") }, "0700"},
		{schema.Type{Kind: schema.Date}, func(c *Column) { c.AppendInt(2) }, "088000000000000002"},
		{schema.Type{Kind: schema.Timestamp}, func(c *Column) { c.AppendInt(2) }, "098000000000000002"},
		{schema.Type{Kind: schema.TimestampNTZ}, func(c *Column) { c.AppendInt(2) }, "0a8000000000000002"},
		{schema.Type{Kind: schema.Array, Elem: &str, ElemNull: true}, func(c *Column) {
			c.Elem.AppendString("a")
			c.Elem.AppendNull()
			c.EndArray()
		}, "0b02060161" + "01"},
		{schema.Type{Kind: schema.Struct, Fields: []schema.Field{{Name: "a", Type: str}, {Name: "b", Type: str}}}, func(c *Column) {
			c.Fields[0].AppendString("a")
			c.Fields[1].AppendNull()
			c.EndStruct()
		}, "0c02060161" + "01"},
		{schema.Type{Kind: schema.Map, Key: &str, Value: &str, ValueNull: true}, func(c *Column) {
			c.Key.AppendString("b")
			c.Value.AppendNull()
			c.Key.AppendString("a")
			c.Value.AppendString("")
			c.EndMap()
		}, "0d02" + "060161" + "0600" + "060162" + "01"},
	} {
		col := NewColumn(c.typ)
		c.append(col)
		if got := hex.EncodeToString(AppendKey(nil, []*Column{col}, 0)); got != c.want {
			t.Errorf("%s: %s, want %s", c.typ, got, c.want)
		}
	}
}

func TestNumbersSortAsTheirKeysDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := NewColumn(schema.Type{Kind: schema.Double})
		v := rapid.SliceOfN(rapid.Float64(), 2, 2).Draw(t, "values")
		c.AppendFloat(v[0])
		c.AppendFloat(v[1])
		cmp := bytes.Compare(AppendKey(nil, []*Column{c}, 0), AppendKey(nil, []*Column{c}, 1))
		if (v[0] < v[1]) != (cmp < 0) || (v[0] == v[1]) != (cmp == 0) {
			t.Fatalf("%v and %v compare %d", v[0], v[1], cmp)
		}
	})
}

func TestKeysAndHashesAllocateNothing(t *testing.T) {
	_, b := mixed(10)
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() {
		buf = AppendKey(buf[:0], b.Cols, 3)
		RowHash(b.Cols, 3)
	}); n != 0 {
		t.Fatalf("%v allocations a row", n)
	}
}

func TestWritingAllocatesByThePage(t *testing.T) {
	const rows = 100_000
	s, b := mixed(rows)
	allocs := testing.AllocsPerRun(2, func() { write(t, WriterOptions{Schema: s}, b) })
	if allocs > rows/20 {
		t.Fatalf("%v allocations for %d rows", allocs, rows)
	}
}

func TestTruncateUndoesARow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		typ := genType().Draw(t, "type")
		c := NewColumn(typ)
		for range rapid.IntRange(0, 5).Draw(t, "rows") {
			appendRandom(t, c, true)
		}
		before := c.Clone()
		// A row that is given up on half-way leaves elements without an end.
		if in := c.children(); in != nil {
			appendRandom(t, in[0], true)
		} else {
			appendRandom(t, c, true)
		}
		c.Truncate(before.Len())
		appendRandom(t, before, true)
		c.AppendFrom(before, before.Len()-1)
		if c.Len() != before.Len() {
			t.Fatalf("%d rows, not %d", c.Len(), before.Len())
		}
		if err := c.check(); err != nil {
			t.Fatal(err)
		}
		for row := range c.Len() {
			if !c.Equal(row, before, row) {
				t.Fatalf("row %d differs", row)
			}
		}
	})
}
