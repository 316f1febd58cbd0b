package datafile

import (
	"fmt"
	"math"
	"slices"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// element is a node of a file's schema.
type element struct {
	name       string
	id         int32 // of column mapping; zero for none
	repetition int32
	converted  int32 // of groups: convertedList, convertedMap, or -1
	children   []*element
	leaf       *leaf // unless it has children
}

// count returns how many elements there are from this one down.
func (e *element) count() int {
	n := 1
	for _, in := range e.children {
		n += in.count()
	}
	return n
}

// tree builds the schema of a file.
type tree struct {
	mapping schema.Mapping
	leaves  []*leaf
}

// way leads to an element.
type way struct {
	name           string // of the field
	column         int
	path           []string
	steps          []step
	stats, logical []string
	counted        bool // the statistics' field is above
}

func (w way) to(name string) way {
	w.path = append(slices.Clip(w.path), name)
	return w
}

func (w way) by(s step) way {
	w.steps = append(slices.Clip(w.steps), s)
	return w
}

// newTree returns the elements of the columns of a schema, those that have
// values, and their leaves.
func newTree(s *schema.Schema, m schema.Mapping) ([]*element, []*leaf, error) {
	t := &tree{mapping: m}
	var elements []*element
	for i := range s.Fields {
		f := &s.Fields[i]
		if f.Type.Kind == schema.Void {
			continue
		}
		e, err := t.field(f, way{name: f.Name, column: i})
		if err != nil {
			return nil, nil, fmt.Errorf("column %q: %w", f.Name, err)
		}
		elements = append(elements, e)
	}
	return elements, t.leaves, nil
}

func (t *tree) field(f *schema.Field, w way) (*element, error) {
	name, id, err := f.Stored(t.mapping)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if !w.counted {
		w.stats, w.logical = append(slices.Clip(w.stats), name), append(slices.Clip(w.logical), f.Name)
	}
	e, err := t.value(&f.Type, f.Nullable, w.to(name))
	if err != nil {
		return nil, err
	}
	e.name, e.id = name, id
	return e, nil
}

// value returns the element of a value; the caller names it.
func (t *tree) value(typ *schema.Type, null bool, w way) (*element, error) {
	if err := Supported(*typ); err != nil {
		return nil, err
	}
	e := &element{repetition: repetition(null), converted: -1}
	s := step{kind: storageOf(*typ), optional: null}
	s.counted = !w.counted && s.kind != record
	switch s.kind {
	case nothing:
		return nil, fmt.Errorf("%w: void within an array or a map", ErrUnsupported)
	case record:
		return e, t.fields(e, typ, s, w)
	case list:
		e.converted = convertedList
		w = w.by(s).to("list")
		w.counted = true
		elem, err := t.value(typ.Elem, typ.ElemNull, w.to("element"))
		if err != nil {
			return nil, err
		}
		elem.name = "element"
		e.children = []*element{{name: "list", repetition: parquetRepeated, converted: -1, children: []*element{elem}}}
	case mapping:
		e.converted = convertedMap
		return e, t.entries(e, typ, s, w)
	default:
		e.leaf = t.leaf(typ, w.by(s))
	}
	return e, nil
}

func (t *tree) fields(e *element, typ *schema.Type, s step, w way) error {
	for i := range typ.Fields {
		f := &typ.Fields[i]
		if f.Type.Kind == schema.Void {
			continue
		}
		s.child = i
		in, err := t.field(f, w.by(s))
		if err != nil {
			return fmt.Errorf("field %q: %w", f.Name, err)
		}
		e.children = append(e.children, in)
	}
	if len(e.children) == 0 {
		return fmt.Errorf("%w: a struct without fields that have values", ErrUnsupported)
	}
	return nil
}

func (t *tree) entries(e *element, typ *schema.Type, s step, w way) error {
	pairs := &element{name: "key_value", repetition: parquetRepeated, converted: -1}
	e.children = []*element{pairs}
	for i, part := range []struct {
		name string
		typ  *schema.Type
		null bool
	}{{"key", typ.Key, false}, {"value", typ.Value, typ.ValueNull}} {
		s.child = i
		next := w.by(s).to(pairs.name).to(part.name)
		next.counted = true
		in, err := t.value(part.typ, part.null, next)
		if err != nil {
			return err
		}
		in.name = part.name
		pairs.children = append(pairs.children, in)
	}
	return nil
}

func (t *tree) leaf(typ *schema.Type, w way) *leaf {
	l := newLeaf(*typ)
	l.name, l.column, l.path, l.steps = w.name, w.column, w.path, w.steps
	definition, repetition := 0, 0
	for _, s := range w.steps {
		if s.optional {
			definition++
		}
		if s.kind == list || s.kind == mapping {
			definition++
			repetition++
		}
	}
	l.definition, l.repetition = byte(min(definition, math.MaxUint8)), byte(repetition)
	// One leaf of an array or a map counts for all of them: the first.
	if !slices.ContainsFunc(t.leaves, func(o *leaf) bool { return o.column == l.column && slices.Equal(o.stats, w.stats) }) {
		l.stats, l.logical = w.stats, w.logical
	}
	t.leaves = append(t.leaves, l)
	return l
}

// appendElements writes the schema of a file, depth first.
func appendElements(t *thriftWriter, elements []*element) {
	for _, e := range elements {
		if e.leaf != nil {
			appendLeaf(t, e)
			continue
		}
		t.element()
		t.i32(3, e.repetition)
		t.string(4, e.name)
		t.i32(5, int32(len(e.children)))
		if e.converted >= 0 {
			t.i32(6, e.converted)
		}
		if e.id > 0 {
			t.i32(9, e.id)
		}
		switch e.converted {
		case convertedList:
			t.open(10)
			t.empty(3)
			t.close()
		case convertedMap:
			t.open(10)
			t.empty(2)
			t.close()
		}
		t.close()
		appendElements(t, e.children)
	}
}
