package datafile

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
)

// Limits of pages and dictionaries. What readers want is pages small enough to
// pick rows from and large enough to compress.
const (
	pageRows       = 20_000
	pageEntries    = 5 * pageRows // of arrays and maps
	pageBytes      = 512 << 10
	stepRows       = 1024    // rows that a page grows by between checks
	dictionaryMax  = 1 << 20 // bytes of a dictionary
	dictionaryTest = 1024    // values after which a dictionary must have shown its worth
)

// Encodings of Parquet.
const (
	encodingPlain           = 0
	encodingPlainDictionary = 2 // what older writers call RLEDictionary
	encodingRLE             = 3
	encodingRLEDictionary   = 8
)

// chunk writes one column of one row group: pages that are done, and the one
// that is being filled.
type chunk struct {
	*leaf
	codec Codec

	// The page that is being filled.
	rows        int
	repetitions []byte // of arrays and maps
	definitions []byte // unless every value is there
	entries     int    // values and what stands for those that are not there
	plain       []byte // values as PLAIN encodes them; Booleans a byte each
	indexes     []uint32

	// dict is nil once it has proved useless in this file. While dictionary
	// is set, values go to indexes, otherwise to plain.
	dict       *dictionary
	dictionary bool

	// The pages that are done.
	out          []byte
	pages        []written
	values       int64 // entries in them
	present      int64 // values in all pages
	nulls        int64 // rows that are NULL, in all pages
	rowCount     int64
	plainPages   int
	dictPages    int
	uncompressed int64
	bounds       bounds

	shred      shredder
	thrift     thriftWriter
	body       []byte
	compressed []byte
}

// written is where a page lies in its chunk.
type written struct {
	offset, size int
	firstRow     int64
}

func newChunk(l *leaf, codec Codec) *chunk {
	c := &chunk{leaf: l, codec: codec}
	if l.physical != parquetBoolean && l.physical != parquetFixed {
		c.dict, c.dictionary = new(dictionary), true
	}
	return c
}

// reset makes the chunk ready for the next row group.
func (c *chunk) reset() {
	c.out, c.pages = c.out[:0], c.pages[:0]
	c.values, c.present, c.nulls, c.rowCount, c.uncompressed = 0, 0, 0, 0, 0
	c.plainPages, c.dictPages = 0, 0
	c.bounds.reset()
	if c.dict != nil {
		c.dict.reset()
		c.dictionary = true
	}
}

// memory estimates the bytes that the chunk holds.
func (c *chunk) memory() int {
	return len(c.out) + len(c.plain) + 4*len(c.indexes) + len(c.definitions) + len(c.repetitions)
}

// write appends rows of col, which is of the leaf's type.
func (c *chunk) write(col *Column, from, end int) error {
	for from < end {
		to := c.stepEnd(col, from, end)
		if err := c.step(col, from, to); err != nil {
			return err
		}
		from = to
		if c.dictionary && len(c.indexes) >= dictionaryTest && c.dictPages == 0 && c.dict.count > len(c.indexes)/4*3 {
			c.abandon()
		}
		if c.rows >= pageRows || c.entries >= pageEntries || len(c.plain)+4*len(c.indexes) >= pageBytes ||
			c.dictionary && len(c.dict.plain) > dictionaryMax {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeNulls appends n rows of NULL.
func (c *chunk) writeNulls(n int) error {
	if !c.optional() {
		return fmt.Errorf("column %q: %w: NULL in a column without", c.name, ErrMismatch)
	}
	for n > 0 {
		k := min(n, pageRows-c.rows)
		c.levels(k, 0)
		if c.repetition > 0 {
			c.repetitions = appendLevel(c.repetitions, k, 0)
		}
		c.rows += k
		c.entries += k
		c.nulls += int64(k)
		n -= k
		if c.rows >= pageRows {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// stepEnd returns how far a page may grow before it is looked at again.
func (c *chunk) stepEnd(col *Column, from, end int) int {
	to := min(from+stepRows, end)
	if !c.flat() && !c.list() {
		return c.nestedEnd(col, from, to)
	}
	if len(col.Off) == 0 {
		return to
	}
	most := int32(pageBytes)
	if col.Elem != nil {
		most = pageRows
	}
	if col.Off[to]-col.Off[from] <= most {
		return to
	}
	last := from + 1
	for last < to && col.Off[last]-col.Off[from] <= most {
		last++
	}
	return last
}

func (c *chunk) step(col *Column, from, to int) error {
	c.rows += to - from
	switch {
	case c.list():
		return c.stepList(col, from, to)
	case !c.flat():
		return c.stepNested(col, from, to)
	}
	valid := col.Valid[from:to]
	nulls := countNulls(valid)
	c.nulls += int64(nulls)
	c.entries += len(valid)
	switch {
	case !c.optional() && nulls > 0:
		return fmt.Errorf("column %q: %w: NULL in a column without", c.name, ErrMismatch)
	case !c.optional():
	case nulls == 0:
		c.levels(len(valid), 1)
	default:
		for _, v := range valid {
			c.definitions = append(c.definitions, level(v))
		}
	}
	c.present += int64(len(valid) - nulls)
	return c.stepValues(col, valid, from)
}

func level(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func countNulls(valid []bool) int {
	n := 0
	for _, v := range valid {
		if !v {
			n++
		}
	}
	return n
}

func (c *chunk) levels(n int, v byte) { c.definitions = appendLevel(c.definitions, n, v) }

func appendLevel(dst []byte, n int, v byte) []byte {
	dst = grow(dst, n)
	at := len(dst)
	dst = dst[:at+n]
	for i := range dst[at:] {
		dst[at+i] = v
	}
	return dst
}

// stepList appends the levels of arrays, then the values of their elements.
func (c *chunk) stepList(col *Column, from, to int) error {
	empty, missing := byte(0), c.definition-1 // the levels of an empty array and of a NULL element
	if c.optional() {
		empty = 1
	}
	for row := from; row < to; row++ {
		first, last := int(col.Off[row]), int(col.Off[row+1])
		switch {
		case !col.Valid[row]:
			if !c.optional() {
				return fmt.Errorf("column %q: %w: NULL in a column without", c.name, ErrMismatch)
			}
			c.nulls++
			c.entry(0, 0)
		case first == last:
			c.entry(0, empty)
		}
		for i := first; i < last; i++ {
			d := c.definition
			if !col.Elem.Valid[i] {
				if !c.steps[1].optional {
					return fmt.Errorf("column %q: %w: NULL in an array without", c.name, ErrMismatch)
				}
				d = missing
			} else {
				c.present++
			}
			c.entry(level(i > first), d)
		}
	}
	first, last := int(col.Off[from]), int(col.Off[to])
	return c.stepValues(col.Elem, col.Elem.Valid[first:last], first)
}

func (c *chunk) entry(repetition, definition byte) {
	c.repetitions = append(c.repetitions, repetition)
	c.definitions = append(c.definitions, definition)
	c.entries++
}

// stepValues appends the values of the rows from from on that valid tells.
func (c *chunk) stepValues(col *Column, valid []bool, from int) error {
	to := from + len(valid)
	switch c.storage {
	case ints:
		c.ints(valid, col.I64[from:to])
		if c.bounds.has && (c.bounds.min < c.min || c.bounds.max > c.max) {
			return fmt.Errorf("column %q: %w: value outside the range of %s", c.name, ErrMismatch, c.typ)
		}
	case floats:
		if c.physical == parquetFloat {
			return c.floats(valid, col.F64[from:to])
		}
		c.doubles(valid, col.F64[from:to])
	case bytesOf:
		c.strings(valid, col, from)
	case wide:
		return c.decimals(valid, col, from)
	}
	return nil
}

func (c *chunk) ints(valid []bool, values []int64) {
	switch {
	case c.dictionary:
		for i, v := range values {
			if !valid[i] {
				continue
			}
			n, added := c.dict.add(uint64(v))
			if added {
				c.bounds.int(v)
				if c.width == 4 {
					c.dict.plain = binary.LittleEndian.AppendUint32(c.dict.plain, uint32(v))
				} else {
					c.dict.plain = binary.LittleEndian.AppendUint64(c.dict.plain, uint64(v))
				}
			}
			c.indexes = append(c.indexes, n)
		}
	case c.physical == parquetInt32:
		c.plain = grow(c.plain, 4*len(values))
		for i, v := range values {
			if valid[i] {
				c.bounds.int(v)
				c.plain = binary.LittleEndian.AppendUint32(c.plain, uint32(v))
			}
		}
	case c.physical == parquetInt64:
		c.plain = grow(c.plain, 8*len(values))
		for i, v := range values {
			if valid[i] {
				c.bounds.int(v)
				c.plain = binary.LittleEndian.AppendUint64(c.plain, uint64(v))
			}
		}
	default:
		for i, v := range values {
			if valid[i] {
				c.bounds.int(v)
				c.plain = append(c.plain, byte(v))
			}
		}
	}
}

func (c *chunk) doubles(valid []bool, values []float64) {
	for i, v := range values {
		if !valid[i] {
			continue
		}
		b := math.Float64bits(v)
		if !c.dictionary {
			c.bounds.float(v)
			c.plain = binary.LittleEndian.AppendUint64(c.plain, b)
			continue
		}
		n, added := c.dict.add(b)
		if added {
			c.bounds.float(v)
			c.dict.plain = binary.LittleEndian.AppendUint64(c.dict.plain, b)
		}
		c.indexes = append(c.indexes, n)
	}
}

func (c *chunk) floats(valid []bool, values []float64) error {
	for i, v := range values {
		if !valid[i] {
			continue
		}
		f := float32(v)
		if float64(f) != v && v == v {
			return fmt.Errorf("column %q: %w: value is no float of 32 bits", c.name, ErrMismatch)
		}
		b := math.Float32bits(f)
		if !c.dictionary {
			c.bounds.float(v)
			c.plain = binary.LittleEndian.AppendUint32(c.plain, b)
			continue
		}
		n, added := c.dict.add(uint64(b))
		if added {
			c.bounds.float(v)
			c.dict.plain = binary.LittleEndian.AppendUint32(c.dict.plain, b)
		}
		c.indexes = append(c.indexes, n)
	}
	return nil
}

func (c *chunk) strings(valid []bool, col *Column, from int) {
	for i := range valid {
		if !valid[i] {
			continue
		}
		v := col.At(from + i)
		if !c.dictionary {
			c.bounds.bytes(v)
			c.plain = binary.LittleEndian.AppendUint32(c.plain, uint32(len(v)))
			c.plain = append(c.plain, v...)
			continue
		}
		if len(v) > dictionaryMax/64 && c.dictPages == 0 {
			// Long values seldom repeat, and hashing them is not free.
			c.abandon()
			c.bounds.bytes(v)
			c.plain = binary.LittleEndian.AppendUint32(c.plain, uint32(len(v)))
			c.plain = append(c.plain, v...)
			continue
		}
		n, added := c.dict.addBytes(v)
		if added {
			c.bounds.bytes(v)
		}
		c.indexes = append(c.indexes, n)
	}
}

func (c *chunk) decimals(valid []bool, col *Column, from int) error {
	for i := range valid {
		if !valid[i] {
			continue
		}
		v := col.At(from + i)
		if len(v) != 16 {
			return fmt.Errorf("column %q: %w: decimal of %d bytes", c.name, ErrMismatch, len(v))
		}
		c.bounds.decimal(v)
		c.plain = append(c.plain, v[16-c.width:]...)
	}
	if c.bounds.has && (compareDecimal(c.bounds.bmin, c.wideMin[:]) < 0 || compareDecimal(c.bounds.bmax, c.wideMax[:]) > 0) {
		return fmt.Errorf("column %q: %w: value outside the range of %s", c.name, ErrMismatch, c.typ)
	}
	return nil
}

// abandon gives up the dictionary, for the rest of the file if no page uses it.
func (c *chunk) abandon() {
	c.dictionary = false
	if c.dictPages > 0 {
		return
	}
	c.plain = c.dict.appendPlain(c.plain, c.indexes, c.width)
	c.indexes, c.dict = nil, nil
}

// flush ends the page.
func (c *chunk) flush() error {
	if c.rows == 0 {
		return nil
	}
	if c.dictionary && c.dictPages == 0 && len(c.indexes) > 64 && c.dict.count > len(c.indexes)/2 {
		c.abandon()
	}
	b := c.body[:0]
	if c.repetition > 0 {
		b = appendLevels(b, c.repetitions, bits.Len8(c.repetition))
	}
	if c.definition > 0 {
		b = appendLevels(b, c.definitions, bits.Len8(c.definition))
	}
	encoding := int32(encodingPlain)
	switch {
	case c.dictionary:
		encoding = encodingRLEDictionary
		width := max(1, bits.Len(uint(max(c.dict.count, 1)-1)))
		b = appendRLE(append(b, byte(width)), c.indexes, width)
		c.dictPages++
	case c.physical == parquetBoolean:
		b = appendBits(b, c.plain)
		c.plainPages++
	default:
		b = append(b, c.plain...)
		c.plainPages++
	}
	c.body = b
	c.pages = append(c.pages, written{offset: len(c.out), firstRow: c.rowCount})
	if err := c.emit(0, encoding, c.entries); err != nil {
		return err
	}
	p := &c.pages[len(c.pages)-1]
	p.size = len(c.out) - p.offset
	c.values += int64(c.entries)
	c.rowCount += int64(c.rows)
	c.rows, c.entries = 0, 0
	c.repetitions, c.definitions = c.repetitions[:0], c.definitions[:0]
	c.plain, c.indexes = c.plain[:0], c.indexes[:0]
	if c.dictionary && len(c.dict.plain) > dictionaryMax {
		c.abandon()
	}
	return nil
}

// appendLevels appends the levels of a V1 page, with their length in front.
func appendLevels(dst, levels []byte, width int) []byte {
	at := len(dst)
	dst = appendRLE(append(dst, 0, 0, 0, 0), levels, width)
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}

// appendBits packs bytes of 0 and 1.
func appendBits(dst, values []byte) []byte {
	for len(values) > 0 {
		n := min(8, len(values))
		var b byte
		for i, v := range values[:n] {
			b |= v << i
		}
		dst = append(dst, b)
		values = values[n:]
	}
	return dst
}

// Types of pages. Index pages, of type 1, are passed over.
const (
	pageData       = 0
	pageDictionary = 2
	pageDataV2     = 3
)

// emit appends the page in c.body to c.out, with its header.
func (c *chunk) emit(kind, encoding int32, entries int) error {
	var err error
	if c.compressed, err = c.codec.compress(c.compressed, c.body); err != nil {
		return fmt.Errorf("compress column %q: %w", c.name, err)
	}
	if len(c.body) > math.MaxInt32 || len(c.compressed) > math.MaxInt32 {
		return fmt.Errorf("column %q: %w: page of %d bytes", c.name, ErrMismatch, len(c.body))
	}
	t := &c.thrift
	t.reset()
	t.i32(1, kind)
	t.i32(2, int32(len(c.body)))
	t.i32(3, int32(len(c.compressed)))
	t.i32(4, int32(crc32.ChecksumIEEE(c.compressed)))
	if kind == pageDictionary {
		t.open(7)
		t.i32(1, int32(entries))
		t.i32(2, encodingPlain)
		t.close()
	} else {
		t.open(5)
		t.i32(1, int32(entries))
		t.i32(2, encoding)
		t.i32(3, encodingRLE)
		t.i32(4, encodingRLE)
		t.close()
	}
	t.b = append(t.b, 0)
	c.out = append(append(c.out, t.b...), c.compressed...)
	c.uncompressed += int64(len(t.b) + len(c.body))
	return nil
}

// finish ends the last page, and returns the dictionary page and the data
// pages, which are the chunk's own until it is reset.
func (c *chunk) finish() (dictionary, data []byte, err error) {
	if err := c.flush(); err != nil {
		return nil, nil, err
	}
	if c.dictPages == 0 {
		return nil, c.out, nil
	}
	end := len(c.out)
	c.body = append(c.body[:0], c.dict.plain...)
	if err := c.emit(pageDictionary, 0, c.dict.count); err != nil {
		return nil, nil, err
	}
	return c.out[end:], c.out[:end], nil
}
