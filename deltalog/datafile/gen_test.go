package datafile

import (
	"fmt"
	"math"
	"math/big"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// genPrimitive draws any primitive type.
func genPrimitive() *rapid.Generator[schema.Type] {
	return rapid.Custom(func(t *rapid.T) schema.Type {
		k := schema.Kind(rapid.IntRange(int(schema.Boolean), int(schema.TimestampNTZ)).Draw(t, "kind"))
		ty := schema.Type{Kind: k}
		if k == schema.Decimal {
			ty.Precision = rapid.IntRange(1, 38).Draw(t, "precision")
			ty.Scale = rapid.IntRange(0, ty.Precision).Draw(t, "scale")
		}
		return ty
	})
}

// genType draws any type that a column can hold, nested up to three deep.
func genType() *rapid.Generator[schema.Type] { return genNested(3) }

func genNested(depth int) *rapid.Generator[schema.Type] {
	return rapid.Custom(func(t *rapid.T) schema.Type {
		inner := func() *schema.Type {
			ty := genNested(depth-1).Draw(t, "inner")
			return &ty
		}
		shape := 9
		if depth > 0 {
			shape = rapid.IntRange(0, 9).Draw(t, "shape")
		}
		switch shape {
		case 0, 1:
			return schema.Type{Kind: schema.Array, Elem: inner(), ElemNull: rapid.Bool().Draw(t, "elemNull")}
		case 2:
			return schema.Type{Kind: schema.Map, Key: inner(), Value: inner(), ValueNull: rapid.Bool().Draw(t, "valueNull")}
		case 3, 4:
			ty := schema.Type{Kind: schema.Struct}
			for i := range rapid.IntRange(1, 3).Draw(t, "fields") {
				ty.Fields = append(ty.Fields, schema.Field{Name: fmt.Sprintf("f%d", i), Type: *inner(), Nullable: rapid.Bool().Draw(t, "nullable")})
			}
			return ty
		}
		return genPrimitive().Draw(t, "type")
	})
}

// genSchema draws a schema of a few columns.
func genSchema() *rapid.Generator[*schema.Schema] {
	return rapid.Custom(func(t *rapid.T) *schema.Schema {
		s := &schema.Schema{}
		for i := range rapid.IntRange(1, 5).Draw(t, "columns") {
			s.Fields = append(s.Fields, schema.Field{
				Name:     fmt.Sprintf("c%d", i),
				Type:     genType().Draw(t, "type"),
				Nullable: rapid.Bool().Draw(t, "nullable"),
			})
		}
		return s
	})
}

// appendRandom appends a value of c's type.
func appendRandom(t *rapid.T, c *Column, nullable bool) {
	if nullable && rapid.IntRange(0, 4).Draw(t, "null") == 0 {
		c.AppendNull()
		return
	}
	switch storageOf(c.Type) {
	case ints:
		lo, hi := rangeOf(c.Type)
		if rapid.Bool().Draw(t, "small") {
			lo, hi = max(lo, -3), min(hi, 3)
		}
		c.AppendInt(rapid.Int64Range(lo, hi).Draw(t, "int"))
	case floats:
		v := rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{0, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.Inf(-1), 1.5})).Draw(t, "float")
		if c.Type.Kind == schema.Float {
			v = float64(float32(v))
		}
		c.AppendFloat(v)
	case wide:
		limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(c.Type.Precision)), nil)
		n := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 16).Draw(t, "decimal"))
		n.Mod(n, limit)
		if rapid.Bool().Draw(t, "negative") {
			n.Neg(n)
		}
		appendBig(c, n)
	case bytesOf:
		if c.Type.Kind == schema.String {
			c.AppendString(rapid.String().Draw(t, "string"))
		} else {
			c.AppendBytes(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes"))
		}
	case list:
		for range rapid.IntRange(0, 4).Draw(t, "elements") {
			appendRandom(t, c.Elem, c.Type.ElemNull)
		}
		c.EndArray()
	case mapping:
		for range rapid.IntRange(0, 3).Draw(t, "entries") {
			appendRandom(t, c.Key, false)
			appendRandom(t, c.Value, c.Type.ValueNull)
		}
		c.EndMap()
	case record:
		for i, f := range c.Fields {
			appendRandom(t, f, c.Type.Fields[i].Nullable)
		}
		c.EndStruct()
	}
}

// appendBig appends an unscaled decimal of 128 bits.
func appendBig(c *Column, n *big.Int) {
	m := new(big.Int).And(n, new(big.Int).SetUint64(math.MaxUint64))
	c.AppendDecimal128(new(big.Int).Rsh(n, 64).Int64(), m.Uint64())
}

// genBatch draws rows of a schema.
func genBatch(t *rapid.T, s *schema.Schema, most int) *Batch {
	b := NewBatch(s)
	rows := rapid.IntRange(0, most).Draw(t, "rows")
	for i, f := range s.Fields {
		repeat := rapid.IntRange(0, 3).Draw(t, "repeat") == 0
		for row := range rows {
			if repeat && row > 0 {
				b.Cols[i].AppendFrom(b.Cols[i], 0)
				continue
			}
			appendRandom(t, b.Cols[i], f.Nullable)
		}
	}
	return b
}

// diff says where two batches differ, or nothing.
func diff(a, b *Batch) string {
	if a.Rows() != b.Rows() {
		return fmt.Sprintf("%d rows, not %d", a.Rows(), b.Rows())
	}
	for i, c := range a.Cols {
		for row := range a.Rows() {
			if !c.Equal(row, b.Cols[i], row) {
				return fmt.Sprintf("column %s of type %s differs in row %d", a.Names[i], c.Type, row)
			}
		}
	}
	return ""
}
