package datafile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// errShort says that a struct goes on beyond the bytes that are there.
var errShort = errors.New("struct is cut short")

// thriftReader reads structs in the compact protocol. It keeps the first error;
// after that everything reads as zero.
type thriftReader struct {
	b    []byte
	pos  int
	last []int16 // the field before, in every struct that is open
	err  error
}

// maxThriftDepth bounds how deep structs nest.
const maxThriftDepth = 16

func (t *thriftReader) reset(b []byte) { *t = thriftReader{b: b, last: append(t.last[:0], 0)} }

func (t *thriftReader) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

func (t *thriftReader) byte() byte {
	if t.err != nil {
		return 0
	}
	if t.pos >= len(t.b) {
		t.fail(errShort)
		return 0
	}
	t.pos++
	return t.b[t.pos-1]
}

func (t *thriftReader) uvarint() uint64 {
	if t.err != nil {
		return 0
	}
	v, n := binary.Uvarint(t.b[t.pos:])
	switch {
	case n == 0:
		t.fail(errShort)
	case n < 0:
		t.fail(fmt.Errorf("%w: number over 64 bits", ErrCorrupt))
	default:
		t.pos += n
	}
	return v
}

func (t *thriftReader) i64() int64 {
	u := t.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (t *thriftReader) i32() int32 {
	v := t.i64()
	if v < math.MinInt32 || v > math.MaxInt32 {
		t.fail(fmt.Errorf("%w: number over 32 bits", ErrCorrupt))
		return 0
	}
	return int32(v)
}

// field returns the next field of the struct; kind is zero at its end.
func (t *thriftReader) field() (id int16, kind byte) {
	b := t.byte()
	at := &t.last[len(t.last)-1]
	if kind = b & 15; kind == 0 {
		return 0, 0
	}
	if d := b >> 4; d > 0 {
		*at += int16(d)
	} else {
		*at = int16(t.i64())
	}
	return *at, kind
}

// open enters a struct, close leaves it.
func (t *thriftReader) open() {
	if len(t.last) > maxThriftDepth {
		t.fail(fmt.Errorf("%w: structs nest deeper than %d", ErrCorrupt, maxThriftDepth))
		return
	}
	t.last = append(t.last, 0)
}

func (t *thriftReader) close() { t.last = t.last[:max(1, len(t.last)-1)] }

// list begins a list, of elements that take a byte at least.
func (t *thriftReader) list() (kind byte, n int) {
	b := t.byte()
	size := uint64(b >> 4)
	if size == 15 {
		size = t.uvarint()
	}
	if size > uint64(len(t.b)-t.pos) {
		t.fail(errShort)
		return 0, 0
	}
	return b & 15, int(size)
}

// skip passes over the value of a field that is not known.
func (t *thriftReader) skip(kind byte) {
	switch kind {
	case thriftTrue, thriftFalse:
	case thriftByte:
		t.byte()
	case thriftI16, thriftI32, thriftI64:
		t.uvarint()
	case 7: // a double
		t.advance(8)
	case thriftBinary:
		t.advance(t.uvarint())
	case thriftList, 10: // or a set
		elem, n := t.list()
		for i := 0; i < n && t.err == nil; i++ {
			t.skipElement(elem)
		}
	case thriftStruct:
		t.open()
		for t.err == nil {
			_, kind := t.field()
			if kind == 0 {
				break
			}
			t.skip(kind)
		}
		t.close()
	default:
		t.fail(fmt.Errorf("%w: field of type %d", ErrCorrupt, kind))
	}
}

// skipElement passes over an element, of which Booleans take a byte.
func (t *thriftReader) skipElement(kind byte) {
	if kind == thriftTrue || kind == thriftFalse {
		t.byte()
		return
	}
	if kind == thriftList || kind == 10 {
		t.open() // lists of lists count as depth
		defer t.close()
		if t.err != nil {
			return
		}
	}
	t.skip(kind)
}

func (t *thriftReader) advance(n uint64) {
	if t.err != nil {
		return
	}
	if n > uint64(len(t.b)-t.pos) {
		t.fail(errShort)
		return
	}
	t.pos += int(n)
}

// pageHeader is what stands before a page.
type pageHeader struct {
	kind         int32
	uncompressed int32
	compressed   int32
	crc          uint32
	hasCRC       bool
	values       int32 // of the page, NULLs too
	encoding     int32

	// Of a V1 page alone: how its levels are encoded.
	definitionEncoding int32
	repetitionEncoding int32

	// Of a V2 page alone.
	definitionBytes int32
	repetitionBytes int32
	plainBytes      bool // the values are not compressed
}

// parsePageHeader reads the header that b begins with, and returns its length.
// The error is errShort if it may go on after b.
func parsePageHeader(t *thriftReader, b []byte) (h pageHeader, n int, err error) {
	t.reset(b)
	for t.err == nil {
		id, kind := t.field()
		if kind == 0 {
			break
		}
		switch {
		case id == 1 && kind == thriftI32:
			h.kind = t.i32()
		case id == 2 && kind == thriftI32:
			h.uncompressed = t.i32()
		case id == 3 && kind == thriftI32:
			h.compressed = t.i32()
		case id == 4 && kind == thriftI32:
			h.crc, h.hasCRC = uint32(t.i32()), true
		case (id == 5 || id == 7 || id == 8) && kind == thriftStruct:
			t.open()
			h.parsePart(t, id)
			t.close()
		default:
			t.skip(kind)
		}
	}
	if t.err == nil && (h.uncompressed < 0 || h.compressed < 0 || h.values < 0 || h.definitionBytes < 0 || h.repetitionBytes < 0) {
		t.fail(fmt.Errorf("%w: negative size in a page header", ErrCorrupt))
	}
	return h, t.pos, t.err
}

// parsePart reads the header of a data page V1 (5), a dictionary (7) or a data
// page V2 (8).
func (h *pageHeader) parsePart(t *thriftReader, part int16) {
	for t.err == nil {
		id, kind := t.field()
		switch {
		case kind == 0:
			return
		case id == 1 && kind == thriftI32:
			h.values = t.i32()
		case (part == 8 && id == 4 || part != 8 && id == 2) && kind == thriftI32:
			h.encoding = t.i32()
		case part == 5 && id == 3 && kind == thriftI32:
			h.definitionEncoding = t.i32()
		case part == 5 && id == 4 && kind == thriftI32:
			h.repetitionEncoding = t.i32()
		case part == 8 && id == 5 && kind == thriftI32:
			h.definitionBytes = t.i32()
		case part == 8 && id == 6 && kind == thriftI32:
			h.repetitionBytes = t.i32()
		case part == 8 && id == 7 && (kind == thriftTrue || kind == thriftFalse):
			h.plainBytes = kind == thriftFalse
		default:
			t.skip(kind)
		}
	}
}

// pageLocation is where a page lies in its file.
type pageLocation struct {
	offset   int64
	size     int32
	firstRow int64
}

// parseOffsetIndex reads an OffsetIndex whose pages lie between two offsets.
func parseOffsetIndex(b []byte, from, to int64) ([]pageLocation, error) {
	var t thriftReader
	t.reset(b)
	var pages []pageLocation
	for t.err == nil {
		id, kind := t.field()
		if kind == 0 {
			break
		}
		if id != 1 || kind != thriftList {
			t.skip(kind)
			continue
		}
		elem, n := t.list()
		if elem != thriftStruct {
			t.fail(fmt.Errorf("%w: offset index", ErrCorrupt))
		}
		pages = make([]pageLocation, 0, n)
		for i := 0; i < n && t.err == nil; i++ {
			pages = append(pages, t.pageLocation())
		}
	}
	if t.err != nil {
		return nil, fmt.Errorf("read offset index: %w: %w", ErrCorrupt, t.err)
	}
	for i, p := range pages {
		if p.offset < from || p.size <= 0 || p.offset > to-int64(p.size) || i == 0 && p.firstRow != 0 ||
			i > 0 && (p.firstRow <= pages[i-1].firstRow || p.offset < pages[i-1].offset+int64(pages[i-1].size)) {
			return nil, fmt.Errorf("read offset index: %w: page %d", ErrCorrupt, i)
		}
	}
	return pages, nil
}

func (t *thriftReader) pageLocation() (p pageLocation) {
	t.open()
	defer t.close()
	for t.err == nil {
		id, kind := t.field()
		switch {
		case kind == 0:
			return p
		case id == 1 && kind == thriftI64:
			p.offset = t.i64()
		case id == 2 && kind == thriftI32:
			p.size = t.i32()
		case id == 3 && kind == thriftI64:
			p.firstRow = t.i64()
		default:
			t.skip(kind)
		}
	}
	return p
}
