package datafile

import (
	"fmt"
	"sort"
)

// cursor walks through one column of one row group.
type cursor struct {
	*source
	pages *pageReader
	rows  int64 // of the row group
	row   int64 // the next one
	first int64 // the file's index of the row group's first row

	values      values
	definitions []uint8
	repetitions []uint8
	entries     int // of the page
	entry       int // the next one
	value       int // the next one's place in values

	// The levels of the rows that were read last, where they are wanted.
	readDefinitions []uint8
	readRepetitions []uint8
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

// readFlatRows appends the next n rows to dst, of a column whose rows are its
// entries.
func (c *cursor) readFlatRows(dst *Column, n int) error {
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

// readRows appends to dst what the entries of the next n rows have a place for:
// values, and NULLs where the definition level is at least slot. Without dst it
// keeps the levels alone.
func (c *cursor) readRows(dst *Column, slot byte, n int) error {
	c.readDefinitions, c.readRepetitions = c.readDefinitions[:0], c.readRepetitions[:0]
	for begun, more := 0, true; more; {
		if c.entry == c.entries {
			ok, err := c.next()
			if err != nil {
				return err
			}
			if !ok && begun < n {
				return fmt.Errorf("%w: column ends at row %d of %d", ErrCorrupt, c.row+int64(begun), c.rows)
			}
			if !ok {
				break
			}
		}
		if begun == 0 && c.maxRepetition > 0 && c.repetitions[c.entry] != 0 {
			return fmt.Errorf("%w: row begins within an array", ErrCorrupt)
		}
		var k int
		k, more = c.entriesOf(&begun, n)
		if err := c.readEntries(dst, slot, k); err != nil {
			return err
		}
	}
	c.row += int64(n)
	return nil
}

// entriesOf returns how many entries of the page belong to the n rows that are
// read, of which begun have begun, and whether more may follow in the next page.
func (c *cursor) entriesOf(begun *int, n int) (k int, more bool) {
	if c.maxRepetition == 0 {
		k = min(n-*begun, c.entries-c.entry)
		*begun += k
		return k, *begun < n
	}
	for i, r := range c.repetitions[c.entry:c.entries] {
		if r != 0 {
			continue
		}
		if *begun == n {
			return i, false
		}
		*begun++
	}
	return c.entries - c.entry, true
}

// readEntries appends k entries of the page.
func (c *cursor) readEntries(dst *Column, slot byte, k int) error {
	if c.maxDefinition == 0 {
		if c.shapes {
			c.readDefinitions = appendLevel(c.readDefinitions, k, 0)
		}
		from := c.value
		c.value, c.entry = c.value+k, c.entry+k
		if dst == nil {
			return nil
		}
		return c.convert(dst, &c.values, from, c.value)
	}
	levels := c.definitions[c.entry : c.entry+k]
	if c.shapes {
		c.readDefinitions = append(c.readDefinitions, levels...)
		if c.maxRepetition > 0 {
			c.readRepetitions = append(c.readRepetitions, c.repetitions[c.entry:c.entry+k]...)
		}
	}
	c.entry += k
	if dst == nil {
		c.value += countLevel(levels, c.maxDefinition)
		return nil
	}
	for len(levels) > 0 {
		n := 0
		for n < len(levels) && levels[n] == c.maxDefinition {
			n++
		}
		if n == 0 {
			if levels[0] >= slot {
				dst.AppendNull()
			}
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

func countLevel(levels []uint8, level byte) int {
	n := 0
	for _, l := range levels {
		if l == level {
			n++
		}
	}
	return n
}

// skip passes n rows over.
func (c *cursor) skip(n int64) error {
	for n > 0 {
		if c.maxRepetition == 0 {
			if err := c.ready(); err != nil {
				return err
			}
			k := int(min(n, int64(c.entries-c.entry)))
			c.pass(k)
			c.row += int64(k)
			n -= int64(k)
			continue
		}
		k := int(min(n, 1<<20))
		if err := c.skipNested(k); err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// skipNested passes over n rows that may have more than one entry.
func (c *cursor) skipNested(n int) error {
	for begun, more := 0, true; more; {
		if c.entry == c.entries {
			ok, err := c.next()
			if err != nil {
				return err
			}
			if !ok && begun < n {
				return fmt.Errorf("%w: column ends at row %d of %d", ErrCorrupt, c.row+int64(begun), c.rows)
			}
			if !ok {
				break
			}
		}
		var k int
		k, more = c.entriesOf(&begun, n)
		c.pass(k)
	}
	c.row += int64(n)
	return nil
}

// pass goes over k entries of the page.
func (c *cursor) pass(k int) {
	if c.maxDefinition == 0 {
		c.value += k
	} else {
		c.value += countLevel(c.definitions[c.entry:c.entry+k], c.maxDefinition)
	}
	c.entry += k
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
