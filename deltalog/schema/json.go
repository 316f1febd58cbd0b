package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep types nest.
const maxDepth = 64

// Parse reads a schema from JSON and checks it as [Schema.Validate] does. The
// result keeps no reference to b.
func Parse(b []byte) (*Schema, error) {
	var in typeJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("parse schema: %w: %w", ErrInvalid, err)
	}
	t, err := in.build("the schema", 0)
	if err != nil {
		return nil, fmt.Errorf("parse schema: %w", err)
	}
	if t.Kind != Struct {
		return nil, fmt.Errorf("parse schema: %w: it is of type %s, not struct", ErrInvalid, t.Kind)
	}
	s := &Schema{Fields: t.Fields}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("parse schema: %w", err)
	}
	return s, nil
}

// UnmarshalJSON is [Parse].
func (s *Schema) UnmarshalJSON(b []byte) error {
	p, err := Parse(b)
	if err != nil {
		return err
	}
	*s = *p
	return nil
}

// MarshalJSON writes the schema as Delta does, without spaces.
func (s *Schema) MarshalJSON() ([]byte, error) {
	return appendType(nil, Type{Kind: Struct, Fields: s.Fields})
}

// Validate returns an error wrapping ErrInvalid unless types are whole, names
// are Unicode and not empty, and no two of one struct are the same but for their case.
func (s *Schema) Validate() error {
	return validateFields(s.Fields, 0)
}

func validateFields(fields []Field, depth int) error {
	seen := make(map[string]bool, len(fields))
	for i := range fields {
		f := &fields[i]
		folded := strings.ToLower(f.Name)
		switch {
		case f.Name == "":
			return fmt.Errorf("%w: column %d has no name", ErrInvalid, i)
		case !utf8.ValidString(f.Name):
			return fmt.Errorf("%w: the name of column %d is not Unicode", ErrInvalid, i)
		case seen[folded]:
			return fmt.Errorf("%w: two columns are named %q", ErrInvalid, f.Name)
		}
		seen[folded] = true
		if err := f.Type.validate(depth + 1); err != nil {
			return fmt.Errorf("column %q: %w", f.Name, err)
		}
	}
	return nil
}

func (t Type) validate(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: types nest deeper than %d", ErrInvalid, maxDepth)
	}
	switch t.Kind {
	case Decimal:
		if t.Precision < 1 || t.Precision > MaxPrecision || t.Scale < 0 || t.Scale > t.Precision {
			return fmt.Errorf("%w: decimal(%d,%d)", ErrInvalid, t.Precision, t.Scale)
		}
	case Array:
		if t.Elem == nil {
			return fmt.Errorf("%w: array without element type", ErrInvalid)
		}
		return t.Elem.validate(depth + 1)
	case Map:
		if t.Key == nil || t.Value == nil {
			return fmt.Errorf("%w: map without key or value type", ErrInvalid)
		}
		if err := t.Key.validate(depth + 1); err != nil {
			return err
		}
		return t.Value.validate(depth + 1)
	case Struct:
		return validateFields(t.Fields, depth)
	default:
		if !t.Kind.Primitive() {
			return fmt.Errorf("%w: %s", ErrInvalid, t.Kind)
		}
	}
	return nil
}

// typeJSON is a type as it stands in JSON: a name, or an object.
type typeJSON struct {
	name         string
	Type         string      `json:"type"`
	Fields       []fieldJSON `json:"fields"`
	Element      *typeJSON   `json:"elementType"`
	ContainsNull bool        `json:"containsNull"`
	Key          *typeJSON   `json:"keyType"`
	Value        *typeJSON   `json:"valueType"`
	ValueNull    bool        `json:"valueContainsNull"`
}

type fieldJSON struct {
	Name     string          `json:"name"`
	Type     *typeJSON       `json:"type"`
	Nullable bool            `json:"nullable"`
	Metadata json.RawMessage `json:"metadata"`
}

func (t *typeJSON) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &t.name)
	}
	type plain typeJSON
	return json.Unmarshal(b, (*plain)(t))
}

// build makes the type of the thing named by at.
func (t *typeJSON) build(at string, depth int) (Type, error) {
	if t == nil {
		return Type{}, fmt.Errorf("%w: %s has no type", ErrInvalid, at)
	}
	if depth > maxDepth {
		return Type{}, fmt.Errorf("%w: types nest deeper than %d", ErrInvalid, maxDepth)
	}
	if t.name != "" {
		return primitive(t.name, at)
	}
	switch t.Type {
	case "struct":
		return t.buildStruct(depth)
	case "array":
		elem, err := t.Element.build("an element of "+at, depth+1)
		return Type{Kind: Array, Elem: &elem, ElemNull: t.ContainsNull}, err
	case "map":
		key, err := t.Key.build("a key of "+at, depth+1)
		if err != nil {
			return Type{}, err
		}
		value, err := t.Value.build("a value of "+at, depth+1)
		return Type{Kind: Map, Key: &key, Value: &value, ValueNull: t.ValueNull}, err
	}
	return Type{}, fmt.Errorf("%s is of type %q: %w", at, t.Type, ErrUnsupported)
}

func (t *typeJSON) buildStruct(depth int) (Type, error) {
	s := Type{Kind: Struct, Fields: make([]Field, len(t.Fields))}
	for i := range t.Fields {
		in := &t.Fields[i]
		ft, err := in.Type.build(fmt.Sprintf("column %q", in.Name), depth+1)
		if err != nil {
			return Type{}, err
		}
		f := Field{Name: in.Name, Type: ft, Nullable: in.Nullable}
		if m := bytes.TrimSpace(in.Metadata); len(m) > 0 && string(m) != "null" && string(m) != "{}" {
			if m[0] != '{' {
				return Type{}, fmt.Errorf("%w: metadata of column %q is no object", ErrInvalid, in.Name)
			}
			f.Metadata = m
		}
		s.Fields[i] = f
	}
	return s, nil
}

// primitive reads the name of a type without parts.
func primitive(name, at string) (Type, error) {
	for k := Boolean; k <= Void; k++ {
		if k != Decimal && k.Primitive() && kindNames[k] == name {
			return Type{Kind: k}, nil
		}
	}
	if name == "null" { // what Spark 2 calls it
		return Type{Kind: Void}, nil
	}
	if name == "decimal" {
		// Spark's default, which old tables write without its digits.
		return Type{Kind: Decimal, Precision: 10}, nil
	}
	digits, found := strings.CutPrefix(name, "decimal(")
	digits, closed := strings.CutSuffix(digits, ")")
	precision, scale, comma := strings.Cut(digits, ",")
	if found && closed && comma {
		p, err1 := strconv.Atoi(strings.TrimSpace(precision))
		s, err2 := strconv.Atoi(strings.TrimSpace(scale))
		if err1 == nil && err2 == nil {
			return Type{Kind: Decimal, Precision: p, Scale: s}, nil
		}
	}
	return Type{}, fmt.Errorf("%s is of type %q: %w", at, name, ErrUnsupported)
}

func appendType(b []byte, t Type) ([]byte, error) {
	var err error
	switch t.Kind {
	case Struct:
		b = append(b, `{"type":"struct","fields":[`...)
		for i := range t.Fields {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendField(b, &t.Fields[i]); err != nil {
				return nil, err
			}
		}
		return append(b, `]}`...), nil
	case Array:
		b = append(b, `{"type":"array","elementType":`...)
		if b, err = appendType(b, *t.Elem); err != nil {
			return nil, err
		}
		b = append(b, `,"containsNull":`...)
		return append(strconv.AppendBool(b, t.ElemNull), '}'), nil
	case Map:
		b = append(b, `{"type":"map","keyType":`...)
		if b, err = appendType(b, *t.Key); err != nil {
			return nil, err
		}
		b = append(b, `,"valueType":`...)
		if b, err = appendType(b, *t.Value); err != nil {
			return nil, err
		}
		b = append(b, `,"valueContainsNull":`...)
		return append(strconv.AppendBool(b, t.ValueNull), '}'), nil
	}
	if !t.Kind.Primitive() {
		return nil, fmt.Errorf("write schema: %w: %s", ErrInvalid, t.Kind)
	}
	b = append(b, '"')
	b = append(b, t.String()...)
	return append(b, '"'), nil
}

func appendField(b []byte, f *Field) ([]byte, error) {
	name, err := json.Marshal(f.Name)
	if err != nil {
		return nil, err
	}
	b = append(b, `{"name":`...)
	b = append(b, name...)
	b = append(b, `,"type":`...)
	if b, err = appendType(b, f.Type); err != nil {
		return nil, err
	}
	b = append(b, `,"nullable":`...)
	b = strconv.AppendBool(b, f.Nullable)
	b = append(b, `,"metadata":`...)
	b = append(b, f.metadata()...)
	return append(b, '}'), nil
}

func (f *Field) metadata() json.RawMessage {
	if len(f.Metadata) == 0 {
		return json.RawMessage("{}")
	}
	return f.Metadata
}
