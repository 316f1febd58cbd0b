package datafile

import (
	"fmt"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/format"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// stored is how the values of a leaf are in a file.
type stored struct {
	// typ is the Delta type that holds all of them.
	typ      schema.Type
	physical parquet.Kind
	unit     int64 // of timestamps: nanoseconds; zero for INT96
	unsigned bool
}

// storedAs reads the type of a leaf.
func storedAs(t parquet.Type) (stored, error) {
	s := stored{physical: t.Kind()}
	unsupported := fmt.Errorf("%w: Parquet type %s", ErrUnsupported, t)
	kind := func(k schema.Kind) (stored, error) {
		s.typ.Kind = k
		return s, nil
	}
	var logical format.LogicalTypeValue
	if lt := t.LogicalType(); lt != nil {
		logical = lt.Value
	}
	switch l := logical.(type) {
	case nil:
	case *format.StringType, *format.EnumType, *format.JsonType:
		return kind(schema.String)
	case *format.DateType:
		return kind(schema.Date)
	case *format.UUIDType, *format.BsonType:
		return kind(schema.Binary)
	case *format.DecimalType:
		d := schema.Type{Kind: schema.Decimal, Precision: int(l.Precision), Scale: int(l.Scale)}
		if d.Precision < 1 || d.Precision > schema.MaxPrecision || d.Scale < 0 || d.Scale > d.Precision {
			return s, unsupported
		}
		s.typ = d
		return s, nil
	case *format.TimestampType:
		s.typ.Kind = schema.TimestampNTZ
		if l.IsAdjustedToUTC {
			s.typ.Kind = schema.Timestamp
		}
		switch l.Unit.Value.(type) {
		case *format.MilliSeconds:
			s.unit = 1_000_000
		case *format.MicroSeconds:
			s.unit = 1_000
		case *format.NanoSeconds:
			s.unit = 1
		default:
			return s, unsupported
		}
		return s, nil
	case *format.IntType:
		return s.integer(int(l.BitWidth), l.IsSigned)
	default:
		return s, unsupported
	}
	switch s.physical {
	case parquet.Boolean:
		return kind(schema.Boolean)
	case parquet.Int32:
		return kind(schema.Integer)
	case parquet.Int64:
		return kind(schema.Long)
	case parquet.Int96:
		return kind(schema.Timestamp)
	case parquet.Float:
		return kind(schema.Float)
	case parquet.Double:
		return kind(schema.Double)
	case parquet.ByteArray, parquet.FixedLenByteArray:
		return kind(schema.Binary)
	}
	return s, unsupported
}

// integer returns s as integers of so many bits. Those without sign take the
// next wider type.
func (s stored) integer(bits int, signed bool) (stored, error) {
	s.unsigned = !signed
	if s.unsigned {
		bits *= 2
	}
	switch bits {
	case 8:
		s.typ.Kind = schema.Byte
	case 16:
		s.typ.Kind = schema.Short
	case 32:
		s.typ.Kind = schema.Integer
	case 64:
		s.typ.Kind = schema.Long
	case 128:
		s.typ = schema.Type{Kind: schema.Decimal, Precision: 20}
	default:
		return s, fmt.Errorf("%w: integers of %d bits", ErrUnsupported, bits)
	}
	if s.physical != parquet.Int32 && s.physical != parquet.Int64 {
		return s, fmt.Errorf("%w: integers stored as %s", ErrUnsupported, s.physical)
	}
	return s, nil
}

// alwaysNull tells whether a leaf has no values, as its annotation says: some
// writers have such columns for want of a type.
func alwaysNull(c *parquet.Column) bool {
	if !c.Leaf() {
		return false
	}
	lt := c.Type().LogicalType()
	if lt == nil {
		return false
	}
	_, ok := lt.Value.(*format.NullType)
	return ok
}

// isList tells whether a group is annotated as a LIST, isMap as a MAP. Older
// files have the converted type alone.
func isList(c *parquet.Column) bool {
	if lt := c.Type().LogicalType(); lt != nil {
		_, ok := lt.Value.(*format.ListType)
		return ok
	}
	ct := c.Type().ConvertedType()
	return ct != nil && *ct == deprecated.List
}

func isMap(c *parquet.Column) bool {
	if lt := c.Type().LogicalType(); lt != nil {
		_, ok := lt.Value.(*format.MapType)
		return ok
	}
	ct := c.Type().ConvertedType()
	return ct != nil && (*ct == deprecated.Map || *ct == deprecated.MapKeyValue)
}

// listElement returns what a list of one repeated field holds, and whether that is
// the repeated field itself, as in lists of two levels:
// https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#lists
func listElement(list *parquet.Column) (elem *parquet.Column, repeated bool, ok bool) {
	children := list.Columns()
	if len(children) != 1 || !children[0].Repeated() {
		return nil, false, false
	}
	r := children[0]
	inner := r.Columns()
	if r.Leaf() || len(inner) != 1 || inner[0].Repeated() || isList(r) || isMap(r) ||
		r.Name() == "array" || r.Name() == list.Name()+"_tuple" {
		return r, true, true
	}
	return inner[0], false, true
}

// mapEntries returns the keys and the values of a map, which are in one repeated
// group.
func mapEntries(m *parquet.Column) (key, value *parquet.Column, ok bool) {
	children := m.Columns()
	if len(children) != 1 || !children[0].Repeated() || children[0].Leaf() {
		return nil, nil, false
	}
	inner := children[0].Columns()
	if len(inner) != 2 {
		return nil, nil, false
	}
	if inner[0].Name() == "value" && inner[1].Name() == "key" {
		return inner[1], inner[0], true
	}
	return inner[0], inner[1], true
}

// describe returns the type that a field of a file has by its footer. What
// cannot be held is an error; of structs it is left out.
func describe(c *parquet.Column) (schema.Type, error) {
	if !c.Repeated() {
		return describeOne(c)
	}
	t, err := describeOne(c)
	return schema.Type{Kind: schema.Array, Elem: &t}, err
}

// describeOne describes a field that is not repeated, or one of its
// repetitions.
func describeOne(c *parquet.Column) (schema.Type, error) {
	switch {
	case c.Leaf():
		s, err := storedAs(c.Type())
		return s.typ, err
	case isList(c):
		elem, repeated, ok := listElement(c)
		if !ok {
			return schema.Type{}, fmt.Errorf("%w: a list without elements", ErrUnsupported)
		}
		describeElem := describe
		if repeated {
			describeElem = describeOne
		}
		t, err := describeElem(elem)
		return schema.Type{Kind: schema.Array, Elem: &t, ElemNull: elem.Optional()}, err
	case isMap(c):
		key, value, ok := mapEntries(c)
		if !ok {
			return schema.Type{}, fmt.Errorf("%w: a map without keys and values", ErrUnsupported)
		}
		k, err := describe(key)
		if err != nil {
			return schema.Type{}, err
		}
		v, err := describe(value)
		return schema.Type{Kind: schema.Map, Key: &k, Value: &v, ValueNull: value.Optional()}, err
	}
	t := schema.Type{Kind: schema.Struct}
	for _, in := range c.Columns() {
		if inner, err := describe(in); err == nil {
			t.Fields = append(t.Fields, schema.Field{Name: in.Name(), Type: inner, Nullable: in.Optional()})
		}
	}
	if len(t.Fields) == 0 {
		return t, fmt.Errorf("%w: a struct without fields", ErrUnsupported)
	}
	return t, nil
}
