package datafile

import (
	"fmt"
	"sort"
)

// cursor walks through one column of one row group.
type cursor struct {
	*source
	convert converter
	pages   *pageReader
	rows    int64 // of the row group
	row     int64 // the next one
	first   int64 // the file's index of the row group's first row

	values      values
	definitions []uint8
	repetitions []uint8
	entries     int // of the page
	entry       int // the next one
	value       int // the next one's place in values
}

// next reads the next page that has entries; ok is false when there is none.
func (c *cursor) next() (ok bool, err error) {
	c.entries, c.entry, c.value = 0, 0, 0
	ok, err = c.pages.next()
	if !ok || err != nil {
		return false, err
	}
	d := &c.pages.page
	c.entries, c.definitions, c.repetitions = d.entries, d.definitions, d.repetitions
	c.values = values{typed: &d.typed, indexes: d.indexes, indexed: d.indexed}
	if d.indexed {
		c.values.typed = &c.pages.dictionary
	}
	return true, nil
}

// ready makes sure that there is an entry for the next row.
func (c *cursor) ready() error {
	if c.entry < c.entries {
		return nil
	}
	ok, err := c.next()
	if err == nil && !ok {
		return fmt.Errorf("%w: column ends at row %d of %d", ErrCorrupt, c.row, c.rows)
	}
	return err
}

// read appends the next n rows to dst.
func (c *cursor) read(dst *Column, n int) (err error) {
	defer guard(&err)
	dst.Grow(n, 0)
	if c.list {
		return c.readLists(dst, n)
	}
	for n > 0 {
		if err := c.ready(); err != nil {
			return err
		}
		k := min(n, c.entries-c.entry)
		if err := c.readFlat(dst, k); err != nil {
			return err
		}
		c.row += int64(k)
		n -= k
	}
	return nil
}

// readFlat appends k entries of the page, by runs of values and of NULLs.
func (c *cursor) readFlat(dst *Column, k int) error {
	if c.maxDefinition == 0 {
		from := c.value
		c.value += k
		c.entry += k
		return c.convert(dst, &c.values, from, c.value)
	}
	levels := c.definitions[c.entry : c.entry+k]
	c.entry += k
	for len(levels) > 0 {
		n := 0
		for n < len(levels) && levels[n] == c.maxDefinition {
			n++
		}
		if n == 0 {
			dst.AppendNull()
			levels = levels[1:]
			continue
		}
		from := c.value
		c.value += n
		if err := c.convert(dst, &c.values, from, c.value); err != nil {
			return err
		}
		levels = levels[n:]
	}
	return nil
}

// readLists appends n rows of arrays, each of which may run on over pages.
func (c *cursor) readLists(dst *Column, n int) error {
	for range n {
		if err := c.ready(); err != nil {
			return err
		}
		if c.repetitions[c.entry] != 0 {
			return fmt.Errorf("%w: row begins within an array", ErrCorrupt)
		}
		null := c.definitions[c.entry] < c.fieldLevel
		for more := true; more; {
			if err := c.element(dst.Elem); err != nil {
				return err
			}
			var err error
			if more, err = c.continues(); err != nil {
				return err
			}
		}
		if null {
			dst.AppendNull()
		} else {
			dst.EndArray()
		}
		c.row++
	}
	return nil
}

// element appends what the next entry stands for: an element, or none.
func (c *cursor) element(dst *Column) error {
	d := c.definitions[c.entry]
	c.entry++
	switch {
	case d == c.maxDefinition:
		c.value++
		if dst == nil {
			return nil
		}
		return c.convert(dst, &c.values, c.value-1, c.value)
	case d >= c.elemLevel && dst != nil:
		dst.AppendNull()
	}
	return nil
}

// continues tells whether the next entry belongs to the same row.
func (c *cursor) continues() (bool, error) {
	if c.entry == c.entries {
		if ok, err := c.next(); !ok || err != nil {
			return false, err
		}
	}
	return c.repetitions[c.entry] != 0, nil
}

// skip passes n rows over.
func (c *cursor) skip(n int64) error {
	for n > 0 {
		if err := c.ready(); err != nil {
			return err
		}
		if c.list {
			for more := true; more; {
				if err := c.element(nil); err != nil {
					return err
				}
				var err error
				if more, err = c.continues(); err != nil {
					return err
				}
			}
			c.row++
			n--
			continue
		}
		k := int(min(n, int64(c.entries-c.entry)))
		if c.maxDefinition == 0 {
			c.value += k
		} else {
			for _, d := range c.definitions[c.entry : c.entry+k] {
				if d == c.maxDefinition {
					c.value++
				}
			}
		}
		c.entry += k
		c.row += int64(k)
		n -= int64(k)
	}
	return nil
}

// pick appends rows, which ascend, by their index in the file. The locations of
// the pages may be missing.
func (c *cursor) pick(dst *Column, rows []int64, locations []pageLocation) (err error) {
	defer guard(&err)
	dst.Grow(len(rows), 0)
	for i := 0; i < len(rows); {
		row := rows[i] - c.first
		if err := c.seek(locations, row); err != nil {
			return err
		}
		if err := c.skip(row - c.row); err != nil {
			return err
		}
		n := 1
		for i+n < len(rows) && rows[i+n] == rows[i]+int64(n) {
			n++
		}
		if err := c.read(dst, n); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// seek goes to the page that holds row, unless reading on comes to it.
func (c *cursor) seek(locations []pageLocation, row int64) error {
	target := sort.Search(len(locations), func(i int) bool { return locations[i].firstRow > row }) - 1
	if target < 0 || locations[target].firstRow <= c.row {
		return nil
	}
	c.entries, c.entry = 0, 0
	l := locations[target]
	if err := c.pages.seek(l.offset, l.size); err != nil {
		return err
	}
	c.row = l.firstRow
	return nil
}
