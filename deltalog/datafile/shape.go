package datafile

import (
	"fmt"
	"math"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// shape is how a wanted field comes out of a file: a tree of what it is made of,
// and the leaves that have to be read.
type shape struct {
	root   *node
	leaves []*source
}

// source is a leaf of a file that is read.
type source struct {
	leaf          *parquet.Column
	stored        stored
	convert       converter // nil where the levels alone are wanted
	maxDefinition byte
	maxRepetition byte
	// shapes: the levels tell how an outer part of the field looks.
	shapes bool
}

// node is a field, or a part of one, in terms of the levels of a leaf in it:
// https://parquet.apache.org/docs/file-format/nestedencoding/
//
// Its parent has a place for it where the definition level is at least slot and
// the repetition level at most slotRepetition. It is there, not NULL, where the
// definition level is at least present.
type node struct {
	kind           storage // list, mapping and record; anything else is a leaf
	slot, present  byte
	slotRepetition byte
	source         int     // of the leaf, or of one within
	children       []*node // of a record, nil for a field that the file lacks
}

// flat tells whether the field is a leaf whose rows are its entries.
func (s *shape) flat() bool { return len(s.root.children) == 0 && s.root.kind != record }

// resolver finds wanted fields in a file.
type resolver struct {
	mapping schema.Mapping
	leaves  []*source
}

// maxLevels is the most definition or repetition levels that a field may have.
const maxLevels = math.MaxUint8

// shapeOf returns how a wanted field comes out of a column. It is nil for a
// field that has no values in any file.
func shapeOf(m schema.Mapping, want *schema.Type, c *parquet.Column) (*shape, error) {
	if err := Supported(*want); err != nil {
		return nil, err
	}
	r := &resolver{mapping: m}
	root, err := r.field(want, c, below{})
	if err != nil || root == nil {
		return nil, err
	}
	return &shape{root: root, leaves: r.leaves}, nil
}

// below are the levels of what a field is in: from which definition level, and
// up to which repetition level, there is a place for the field, and the
// definition level from which what it is in is not NULL.
type below struct{ slot, repetition, present byte }

// field resolves a field.
func (r *resolver) field(want *schema.Type, c *parquet.Column, at below) (*node, error) {
	if !c.Repeated() {
		return r.value(want, c, at)
	}
	// A repeated field that no list holds is a list that is never NULL.
	if want.Kind != schema.Array {
		return nil, mismatch(want, c)
	}
	n := &node{kind: list, slot: at.slot, present: at.present, slotRepetition: at.repetition}
	return r.repeat(n, []*schema.Type{want.Elem}, []*parquet.Column{c}, true)
}

// value resolves a field that is not repeated, or one of its repetitions.
func (r *resolver) value(want *schema.Type, c *parquet.Column, at below) (*node, error) {
	n := &node{kind: storageOf(*want), slot: at.slot, present: at.present, slotRepetition: at.repetition}
	if c.Optional() {
		n.present++
	}
	if c.MaxDefinitionLevel() > maxLevels || c.MaxRepetitionLevel() > maxLevels {
		return nil, fmt.Errorf("%w: it nests too deep", ErrUnsupported)
	}
	switch {
	case n.kind == nothing, alwaysNull(c):
		return nil, nil
	case c.Leaf() != (n.kind != list && n.kind != mapping && n.kind != record):
		return nil, mismatch(want, c)
	case c.Leaf():
		return r.leaf(n, want, c)
	case n.kind == record:
		if isList(c) || isMap(c) {
			return nil, mismatch(want, c)
		}
		return r.record(n, want, c)
	case n.kind == mapping:
		key, value, ok := mapEntries(c)
		if !ok || isList(c) {
			return nil, mismatch(want, c)
		}
		return r.repeat(n, []*schema.Type{want.Key, want.Value}, []*parquet.Column{key, value}, false)
	}
	elem, repeated, ok := listElement(c)
	if !ok || isMap(c) {
		return nil, mismatch(want, c)
	}
	if !repeated && elem.Leaf() && want.Elem.Kind == schema.Struct {
		// A list of two levels, whose elements are structs of one field.
		elem, repeated = c.Columns()[0], true
	}
	return r.repeat(n, []*schema.Type{want.Elem}, []*parquet.Column{elem}, repeated)
}

func (r *resolver) leaf(n *node, want *schema.Type, c *parquet.Column) (*node, error) {
	s, err := storedAs(c.Type())
	if err != nil {
		return nil, err
	}
	convert, err := s.converter(*want)
	if err != nil {
		return nil, err
	}
	n.source = r.add(c, s, convert)
	return n, nil
}

func (r *resolver) add(c *parquet.Column, s stored, convert converter) int {
	r.leaves = append(r.leaves, &source{
		leaf: c, stored: s, convert: convert,
		maxDefinition: byte(c.MaxDefinitionLevel()), maxRepetition: byte(c.MaxRepetitionLevel()),
	})
	return len(r.leaves) - 1
}

// repeat resolves the parts of a list or a map. They are repeated themselves,
// or within a repeated group.
func (r *resolver) repeat(n *node, want []*schema.Type, parts []*parquet.Column, repeated bool) (*node, error) {
	if n.present == maxLevels || n.slotRepetition == maxLevels {
		return nil, fmt.Errorf("%w: it nests too deep", ErrUnsupported)
	}
	resolve := r.field
	if repeated {
		resolve = r.value
	}
	for i, c := range parts {
		in, err := resolve(want[i], c, below{n.present + 1, n.slotRepetition + 1, n.present + 1})
		if err != nil {
			return nil, err
		}
		n.children = append(n.children, in)
	}
	r.refer(n, parts[0])
	return n, nil
}

func (r *resolver) record(n *node, want *schema.Type, c *parquet.Column) (*node, error) {
	n.children = make([]*node, len(want.Fields))
	for i := range want.Fields {
		f := &want.Fields[i]
		in, err := find(r.mapping, c, f)
		if err != nil {
			return nil, err
		}
		if in == nil {
			continue
		}
		if n.children[i], err = r.field(&f.Type, in, below{n.slot, n.slotRepetition, n.present}); err != nil {
			return nil, fmt.Errorf("field %q: %w", f.Name, err)
		}
	}
	r.refer(n, c)
	return n, nil
}

// refer picks the leaf whose levels tell how a group looks: one that is read
// anyway, if there is one.
func (r *resolver) refer(n *node, c *parquet.Column) {
	for _, in := range n.children {
		if in != nil {
			n.source = in.source
			r.leaves[n.source].shapes = true
			return
		}
	}
	for !c.Leaf() {
		c = c.Columns()[0]
	}
	n.source = r.add(c, stored{physical: c.Type().Kind()}, nil)
	r.leaves[n.source].shapes = true
}

// find returns the field of a group, or the column of a file, that is the
// wanted one; nil if it has none. Names that differ in case alone are the same
// to Delta.
func find(m schema.Mapping, group *parquet.Column, f *schema.Field) (*parquet.Column, error) {
	name, id, err := f.Stored(m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	var folded *parquet.Column
	for _, c := range group.Columns() {
		switch {
		case m == schema.ByID && id > 0:
			if c.ID() == int(id) {
				return c, nil
			}
		case c.Name() == name:
			return c, nil
		case strings.EqualFold(c.Name(), name):
			if folded != nil {
				return nil, fmt.Errorf("%w: the file has %q and %q", ErrMismatch, folded.Name(), c.Name())
			}
			folded = c
		}
	}
	return folded, nil
}

func mismatch(want *schema.Type, c *parquet.Column) error {
	have, err := describe(c)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: the file holds %s, not %s", ErrMismatch, have, want)
}
