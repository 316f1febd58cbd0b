package deltalog

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// Op is how a [Condition] compares.
type Op uint8

// The comparisons. The zero Op is OpEqual.
const (
	OpEqual Op = iota
	OpNotEqual
	OpLess
	OpLessOrEqual
	OpGreater
	OpGreaterOrEqual
	OpIsNull
	OpIsNotNull
)

// Condition compares a column with a value. As in SQL, a comparison with a NULL
// never holds; as in Spark, NaN equals NaN and is greater than all numbers, and
// 0.0 equals -0.0. Strings and binary compare byte by byte.
type Condition struct {
	// Column is a column's name, or a.b for the field b of a struct a: see
	// [datafile.SplitName]. Its type is a primitive one, but for OpIsNull and
	// OpIsNotNull.
	Column string
	Op     Op
	// Value is written as the log writes partition values: 12.50, 2020-12-31,
	// 2020-12-31T08:09:10.123456Z, true. OpIsNull and OpIsNotNull have none.
	Value string
}

// condition is a Condition that knows its column.
type condition struct {
	op     Op
	column string   // the outermost
	path   []string // by the names in statistics and partition values
	fields []int    // the way from the outermost column to the value
	typ    schema.Type
	value  *datafile.Column // one row; nil for those without value
}

// conditions finds the columns of Where. Errors wrap ErrInvalid.
func conditions(s *schema.Schema, mapping schema.Mapping, where []Condition) ([]condition, error) {
	var out []condition
	for _, w := range where {
		c, err := newCondition(s, mapping, w)
		if err != nil {
			return nil, fmt.Errorf("condition on %s: %w", w.Column, err)
		}
		out = append(out, c)
	}
	return out, nil
}

func newCondition(s *schema.Schema, mapping schema.Mapping, w Condition) (condition, error) {
	c := condition{op: w.Op}
	names := []string{w.Column}
	if s.Field(w.Column) < 0 {
		names = datafile.SplitName(w.Column)
	}
	fields := s.Fields
	for depth, name := range names {
		i := (&schema.Schema{Fields: fields}).Field(name)
		if i < 0 {
			return c, fmt.Errorf("%w: no such column", ErrInvalid)
		}
		stored, _, err := fields[i].Stored(mapping)
		if err != nil {
			return c, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		c.path = append(c.path, stored)
		if depth == 0 {
			c.column = name
		} else {
			c.fields = append(c.fields, i)
		}
		c.typ = fields[i].Type
		fields = c.typ.Fields
	}
	if c.op == OpIsNull || c.op == OpIsNotNull {
		return c, nil
	}
	if c.op > OpIsNotNull {
		return c, fmt.Errorf("%w: comparison %d", ErrInvalid, c.op)
	}
	if !c.typ.Kind.Primitive() || c.typ.Kind == schema.Void {
		return c, fmt.Errorf("%w: a %s is not compared", ErrInvalid, c.typ.Kind)
	}
	c.value = datafile.NewColumn(c.typ)
	if err := appendPartition(c.value, w.Value); err != nil {
		return c, fmt.Errorf("%w: its value: %w", ErrInvalid, err)
	}
	return c, nil
}

// holds tells whether a row of the outermost column meets the condition.
func (c *condition) holds(col *datafile.Column, row int) bool {
	for _, i := range c.fields {
		col = col.Fields[i] // NULL where its struct is
	}
	switch c.op {
	case OpIsNull:
		return !col.Valid[row]
	case OpIsNotNull:
		return col.Valid[row]
	}
	return col.Valid[row] && c.op.allows(compareValues(col, row, c.value, 0))
}

// allows tells whether a comparison holds for the sign of value minus literal.
func (o Op) allows(sign int) bool {
	switch o {
	case OpEqual:
		return sign == 0
	case OpNotEqual:
		return sign != 0
	case OpLess:
		return sign < 0
	case OpLessOrEqual:
		return sign <= 0
	case OpGreater:
		return sign > 0
	}
	return sign >= 0
}

// compareValues compares two values, not NULL, of columns of one primitive type.
func compareValues(a *datafile.Column, i int, b *datafile.Column, j int) int {
	switch {
	case a.I64 != nil:
		return cmp.Compare(a.I64[i], b.I64[j])
	case a.F64 != nil:
		return compareFloats(a.F64[i], b.F64[j])
	case a.Type.Kind == schema.Decimal:
		hi, lo := a.Decimal128(i)
		high, low := b.Decimal128(j)
		return cmp.Or(cmp.Compare(hi, high), cmp.Compare(lo, low))
	}
	return bytes.Compare(a.At(i), b.At(j))
}

// compareFloats orders NaN last, and holds zeros of both signs to be the same.
func compareFloats(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	case a == b:
		return 0
	}
	switch {
	case a != a && b != b:
		return 0
	case a != a:
		return 1
	}
	return -1
}

// whereNames lists the conditions' columns, each once.
func whereNames(where []condition) []string {
	var names []string
	seen := map[string]bool{}
	for i := range where {
		if c := where[i].column; !seen[c] {
			seen[c] = true
			names = append(names, c)
		}
	}
	return names
}

// String writes the comparison as SQL does.
func (o Op) String() string {
	names := [...]string{"=", "<>", "<", "<=", ">", ">=", "IS NULL", "IS NOT NULL"}
	if int(o) < len(names) {
		return names[o]
	}
	return fmt.Sprintf("Op(%d)", uint8(o))
}

// String writes the condition as SQL does.
func (c Condition) String() string {
	if c.Op == OpIsNull || c.Op == OpIsNotNull {
		return c.Column + " " + c.Op.String()
	}
	return c.Column + " " + c.Op.String() + " '" + strings.ReplaceAll(c.Value, "'", "''") + "'"
}
