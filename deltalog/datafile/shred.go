package datafile

import "fmt"

// shredder turns rows of nested columns into entries with levels, for one leaf.
type shredder struct {
	entries, next []entry
	valid         []bool
}

// entry is a value, or what stands for one that is not there.
type entry struct {
	at                     int32 // the place in the column; negative where there is none
	repetition, definition byte
}

// nestedEnd returns how far a page of a nested column may grow before it is
// looked at again.
func (c *chunk) nestedEnd(col *Column, from, to int) int {
	for to > from+1 {
		in, first, last := c.extent(col, from, to)
		size := 0
		if in.storage() == bytesOf {
			size = int(in.Off[last] - in.Off[first])
		}
		if last-first <= pageRows && size <= pageBytes {
			break
		}
		to = from + (to-from)/2
	}
	return to
}

// extent returns the leaf's column, and which of its places belong to rows of
// the field's.
func (c *chunk) extent(col *Column, from, to int) (in *Column, first, last int) {
	for _, s := range c.steps {
		switch s.kind {
		case record:
			col = col.Fields[s.child]
		case list:
			from, to = int(col.Off[from]), int(col.Off[to])
			col = col.Elem
		case mapping:
			from, to = int(col.Off[from]), int(col.Off[to])
			col = col.children()[s.child]
		}
	}
	return col, from, to
}

// stepNested appends rows of a column, step by step towards the leaf.
func (c *chunk) stepNested(col *Column, from, to int) error {
	s := &c.shred
	s.entries = s.entries[:0]
	for row := from; row < to; row++ {
		s.entries = append(s.entries, entry{at: int32(row)})
	}
	depth := byte(0)
	for _, st := range c.steps {
		nulls, ok := s.define(col, st.optional)
		if !ok {
			return fmt.Errorf("column %q: %w: NULL where the schema allows none", c.name, ErrMismatch)
		}
		if st.counted {
			c.nulls += int64(nulls)
		}
		switch st.kind {
		case record:
			col = col.Fields[st.child]
		case list, mapping:
			depth++
			s.repeat(col, depth)
			col = col.children()[st.child]
		}
	}
	return c.stepEntries(col)
}

// define ends the entries that are NULL, and counts all that have ended; ok is
// false where NULL is not allowed.
func (s *shredder) define(col *Column, optional bool) (ended int, ok bool) {
	for i := range s.entries {
		e := &s.entries[i]
		switch {
		case e.at < 0:
			ended++
		case !col.Valid[e.at]:
			if !optional {
				return 0, false
			}
			e.at = -1
			ended++
		case optional:
			e.definition++
		}
	}
	return ended, true
}

// repeat puts the elements of arrays, or the entries of maps, in their place.
func (s *shredder) repeat(col *Column, depth byte) {
	s.next = s.next[:0]
	for _, e := range s.entries {
		if e.at < 0 {
			s.next = append(s.next, e)
			continue
		}
		first, last := col.Off[e.at], col.Off[e.at+1]
		if first == last {
			e.at = -1
			s.next = append(s.next, e)
			continue
		}
		e.definition++
		for e.at = first; e.at < last; e.at++ {
			s.next = append(s.next, e)
			e.repetition = depth
		}
	}
	s.entries, s.next = s.next, s.entries
}

// stepEntries appends the levels and the values of the shredded entries.
func (c *chunk) stepEntries(col *Column) error {
	first, last := int32(-1), int32(-1)
	for _, e := range c.shred.entries {
		if c.repetition > 0 {
			c.repetitions = append(c.repetitions, e.repetition)
		}
		if c.definition > 0 {
			c.definitions = append(c.definitions, e.definition)
		}
		c.entries++
		if e.at >= 0 {
			if first < 0 {
				first = e.at
			}
			last = e.at + 1
		}
	}
	if first < 0 {
		return nil
	}
	// Values below a NULL have a place in the column, but not in the file.
	valid := grow(c.shred.valid[:0], int(last-first))[:last-first]
	clear(valid)
	for _, e := range c.shred.entries {
		if e.at >= 0 {
			valid[e.at-first] = true
			c.present++
		}
	}
	c.shred.valid = valid
	return c.stepValues(col, valid, int(first))
}
