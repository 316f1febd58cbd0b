// Package schema is the schema of a Delta table, as the "Schema Serialization
// Format" of the protocol writes it:
// https://github.com/delta-io/delta/blob/master/PROTOCOL.md#schema-serialization-format
//
// Metadata of fields is kept as it was read, known or not. Types that this
// package does not know (variant, geometry, intervals) are refused by
// name with [ErrUnsupported].
package schema

import (
	"encoding/json"
	"errors"
	"fmt"
)

var (
	// ErrUnsupported says that a schema holds a type that this package does not
	// know. The error names it and the column.
	ErrUnsupported = errors.New("type not supported")
	// ErrInvalid says that a schema breaks the protocol.
	ErrInvalid = errors.New("invalid schema")
)

// Kind is the outermost part of a type. The zero Kind is none.
type Kind uint8

// The kinds of Delta types.
const (
	Boolean Kind = iota + 1
	Byte
	Short
	Integer
	Long
	Float
	Double
	// Decimal has a precision from 1 to 38 and a scale from 0 to it.
	Decimal
	String
	Binary
	// Date counts days since 1970-01-01.
	Date
	// Timestamp is a moment, in microseconds since 1970-01-01 UTC.
	Timestamp
	// TimestampNTZ is a date and time without zone, in microseconds since
	// 1970-01-01.
	TimestampNTZ
	Array
	Struct
	Map
	// Void has no value but NULL. Data files do not hold such columns.
	Void
)

var kindNames = [...]string{
	Boolean: "boolean", Byte: "byte", Short: "short", Integer: "integer", Long: "long",
	Float: "float", Double: "double", Decimal: "decimal", String: "string", Binary: "binary",
	Date: "date", Timestamp: "timestamp", TimestampNTZ: "timestamp_ntz",
	Array: "array", Struct: "struct", Map: "map", Void: "void",
}

// String returns the name that Delta gives the kind.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Primitive tells whether values of the kind have no parts.
func (k Kind) Primitive() bool { return k >= Boolean && k <= TimestampNTZ || k == Void }

// MaxPrecision is the most digits that a decimal has.
const MaxPrecision = 38

// Type is the type of a field. Only the parts of its Kind are set.
type Type struct {
	Kind Kind
	// Precision and Scale are of a Decimal: all digits, and those after the
	// point.
	Precision, Scale int
	// Elem is what an Array holds, ElemNull whether elements may be NULL.
	Elem     *Type
	ElemNull bool
	// Fields are those of a Struct.
	Fields []Field
	// Key and Value are those of a Map, ValueNull whether values may be NULL.
	Key, Value *Type
	ValueNull  bool
}

// Equal tells whether two types are the same, the nullability of their parts
// included. Metadata of nested fields is compared byte by byte.
func (t Type) Equal(u Type) bool {
	if t.Kind != u.Kind {
		return false
	}
	switch t.Kind {
	case Decimal:
		return t.Precision == u.Precision && t.Scale == u.Scale
	case Array:
		return t.ElemNull == u.ElemNull && t.Elem.Equal(*u.Elem)
	case Map:
		return t.ValueNull == u.ValueNull && t.Key.Equal(*u.Key) && t.Value.Equal(*u.Value)
	case Struct:
		if len(t.Fields) != len(u.Fields) {
			return false
		}
		for i := range t.Fields {
			if !t.Fields[i].Equal(u.Fields[i]) {
				return false
			}
		}
	}
	return true
}

// String returns the type as SQL writes it, such as decimal(10,2) or
// array<string>.
func (t Type) String() string {
	switch t.Kind {
	case Decimal:
		return fmt.Sprintf("decimal(%d,%d)", t.Precision, t.Scale)
	case Array:
		return "array<" + t.Elem.String() + ">"
	case Map:
		return "map<" + t.Key.String() + "," + t.Value.String() + ">"
	case Struct:
		s := "struct<"
		for i, f := range t.Fields {
			if i > 0 {
				s += ","
			}
			s += f.Name + ":" + f.Type.String()
		}
		return s + ">"
	}
	return t.Kind.String()
}

// Field is a column, or a field of a struct.
type Field struct {
	Name string
	Type Type
	// Nullable tells whether values may be NULL.
	Nullable bool
	// Metadata is a JSON object, kept as it was read; nil means an empty one.
	Metadata json.RawMessage
}

// Equal tells whether two fields are the same. Metadata is compared byte by
// byte.
func (f Field) Equal(g Field) bool {
	return f.Name == g.Name && f.Nullable == g.Nullable && f.Type.Equal(g.Type) &&
		string(f.metadata()) == string(g.metadata())
}

// Schema is the columns of a table, in order. It is not changed once others
// hold it.
type Schema struct {
	Fields []Field
}

// Field returns the index of the column of that very name, or -1. Delta holds
// names that differ in case alone to be the same: see [Schema.Validate].
func (s *Schema) Field(name string) int {
	for i := range s.Fields {
		if s.Fields[i].Name == name {
			return i
		}
	}
	return -1
}

// Names returns the names of the columns.
func (s *Schema) Names() []string {
	names := make([]string, len(s.Fields))
	for i := range s.Fields {
		names[i] = s.Fields[i].Name
	}
	return names
}

// Select returns the columns of those names, in their order. A name that is
// none is an error wrapping ErrInvalid.
func (s *Schema) Select(names ...string) (*Schema, error) {
	out := &Schema{Fields: make([]Field, 0, len(names))}
	for _, name := range names {
		i := s.Field(name)
		if i < 0 {
			return nil, fmt.Errorf("select column %q: %w: no such column", name, ErrInvalid)
		}
		out.Fields = append(out.Fields, s.Fields[i])
	}
	return out, nil
}

// Equal tells whether two schemas have the same fields in the same order.
func (s *Schema) Equal(o *Schema) bool {
	return (Type{Kind: Struct, Fields: s.Fields}).Equal(Type{Kind: Struct, Fields: o.Fields})
}
