package datafile

import (
	"fmt"
	"math"
)

// fieldReader reads one wanted field of one row group.
type fieldReader struct {
	*shape
	cursors   []*cursor // of the shape's leaves
	locations [][]pageLocation
}

// read appends the next n rows to dst.
func (f *fieldReader) read(dst *Column, n int) (err error) {
	defer guard(&err)
	dst.Grow(n, 0)
	if f.flat() {
		return f.cursors[0].readFlatRows(dst, n)
	}
	if err := f.readLeaves(f.root, dst, n); err != nil {
		return err
	}
	for _, c := range f.cursors {
		if c.convert == nil {
			if err := c.readRows(nil, 0, n); err != nil {
				return err
			}
		}
	}
	return f.build(f.root, dst)
}

// readLeaves appends to the columns of the leaves.
func (f *fieldReader) readLeaves(n *node, dst *Column, rows int) error {
	if len(n.children) == 0 && f.leaves[n.source].convert != nil {
		return f.cursors[n.source].readRows(dst, n.slot, rows)
	}
	for i, in := range dst.children() {
		if n.children[i] == nil {
			continue
		}
		if err := f.readLeaves(n.children[i], in, rows); err != nil {
			return err
		}
	}
	return nil
}

// build appends to the columns of groups what the levels tell of them.
func (f *fieldReader) build(n *node, dst *Column) error {
	switch n.kind {
	case record:
		f.buildRecord(n, dst)
	case list, mapping:
		if err := f.buildList(n, dst); err != nil {
			return err
		}
	default:
		return nil
	}
	rows := dst.Len()
	if n.kind != record {
		rows = int(dst.Off[rows])
	}
	for i, in := range dst.children() {
		if n.children[i] == nil {
			for in.Len() < rows {
				in.AppendNull()
			}
			continue
		}
		if err := f.build(n.children[i], in); err != nil {
			return err
		}
		if in.Len() != rows {
			return fmt.Errorf("%w: parts of one %s differ in length", ErrCorrupt, dst.Type.Kind)
		}
	}
	if n.kind == mapping && countNulls(dst.Key.Valid) > 0 {
		return fmt.Errorf("%w: the key of a map is NULL", ErrCorrupt)
	}
	return nil
}

// levels returns those of the leaf that tells how a group looks; there are no
// repetition levels where nothing is repeated.
func (f *fieldReader) levels(n *node) (definitions, repetitions []uint8) {
	c := f.cursors[n.source]
	return c.readDefinitions, c.readRepetitions
}

func (f *fieldReader) buildRecord(n *node, dst *Column) {
	definitions, repetitions := f.levels(n)
	dst.Valid = grow(dst.Valid, len(definitions))
	for i, d := range definitions {
		if d >= n.slot && (repetitions == nil || repetitions[i] <= n.slotRepetition) {
			dst.Valid = append(dst.Valid, d >= n.present)
		}
	}
}

// buildList appends where lists, or maps, begin and end.
func (f *fieldReader) buildList(n *node, dst *Column) error {
	definitions, repetitions := f.levels(n)
	end := int(dst.Off[len(dst.Off)-1])
	if end+len(definitions) > math.MaxInt32 {
		return fmt.Errorf("%w: more than 2³¹ elements in a batch", ErrUnsupported)
	}
	open := false // whether the last list has elements and may have more
	for i, d := range definitions {
		switch r := repetitions[i]; {
		case r > n.slotRepetition+1:
		case r == n.slotRepetition+1:
			if !open || d <= n.present {
				return fmt.Errorf("%w: an array without elements goes on", ErrCorrupt)
			}
			end++
			dst.Off[len(dst.Off)-1] = int32(end)
		case d < n.slot:
			open = false
		default:
			if open = d > n.present; open {
				end++
			}
			dst.Valid = append(dst.Valid, d >= n.present)
			dst.Off = append(dst.Off, int32(end))
		}
	}
	return nil
}

// pick appends rows, which ascend, by their index in the file.
func (f *fieldReader) pick(dst *Column, rows []int64) (err error) {
	defer guard(&err)
	dst.Grow(len(rows), 0)
	for i := 0; i < len(rows); {
		for j, c := range f.cursors {
			row := rows[i] - c.first
			if err := c.seek(f.locations[j], row); err != nil {
				return err
			}
			if err := c.skip(row - c.row); err != nil {
				return err
			}
		}
		n := 1
		for i+n < len(rows) && rows[i+n] == rows[i]+int64(n) {
			n++
		}
		if err := f.read(dst, n); err != nil {
			return err
		}
		i += n
	}
	return nil
}
