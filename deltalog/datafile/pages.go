package datafile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// pageReader reads the pages of one column chunk. What it holds of a page is
// valid until the next one; its memory serves for all of them.
//
// Sizes and counts are checked against the footer before memory is taken, and
// beyond 64 MiB memory is taken only as a page turns out to fill it. A page of
// more than 2²⁶ entries is refused.
type pageReader struct {
	r             io.ReaderAt
	physical      parquet.Kind
	width         int // of fixed-length byte strings
	maxDefinition byte
	maxRepetition byte
	codec         format.CompressionCodec
	values        int64 // of the chunk
	uncompressed  int64
	start, end    int64 // of the chunk in the file
	at            int64 // where the next page is

	window   []byte
	windowAt int64
	thrift   thriftReader
	body     []byte // of the page, uncompressed

	page       page
	dictionary typed
	dictBody   []byte
	dictCount  int
	hasDict    bool
}

// page is a data page, decoded.
type page struct {
	entries     int // values, and what stands for those that are not there
	definitions []uint8
	repetitions []uint8
	typed       typed
	indexes     []uint32 // into the dictionary
	indexed     bool
}

// Sizes of what is read at once.
const (
	readAhead     = 256 << 10
	headerRead    = 128
	maxPageHeader = 16 << 20
)

// maxPageEntries is the most entries that a page may have: runs of equal levels
// take no bytes worth mentioning, so that a header can claim any number.
const maxPageEntries = 1 << 26

// newPageReader returns a reader of a chunk of a file of size bytes.
func newPageReader(r io.ReaderAt, size int64, s *source, m *format.ColumnMetaData, rows int64) (*pageReader, error) {
	p := &pageReader{
		r: r, physical: s.leaf.Type().Kind(), maxDefinition: s.maxDefinition, maxRepetition: s.maxRepetition,
		codec: m.Codec, values: m.NumValues, uncompressed: m.TotalUncompressedSize, start: m.DataPageOffset,
	}
	if p.physical == parquet.FixedLenByteArray {
		p.width = s.leaf.Type().Length()
	}
	if d := m.DictionaryPageOffset; d > 0 && d < p.start {
		p.start = d
	}
	p.at, p.end = p.start, p.start+m.TotalCompressedSize
	switch {
	case p.start < 0 || m.TotalCompressedSize < 0 || p.end > size:
		return nil, fmt.Errorf("%w: chunk of %d bytes at %d in a file of %d", ErrCorrupt, m.TotalCompressedSize, p.start, size)
	case p.values < 0 || s.maxRepetition == 0 && p.values != rows || p.values < rows:
		return nil, fmt.Errorf("%w: chunk of %d values for %d rows", ErrCorrupt, p.values, rows)
	case p.physical == parquet.FixedLenByteArray && p.width <= 0:
		return nil, fmt.Errorf("%w: byte strings of length %d", ErrCorrupt, p.width)
	}
	return p, nil
}

// seek makes the page at an offset the next one. It is of size bytes.
func (p *pageReader) seek(at int64, size int32) error {
	p.at = at
	_, err := p.fetch(at, int64(size), 0)
	return err
}

// fetch returns n bytes at an offset, within the chunk, and reads some ahead.
// They are valid until the next call.
func (p *pageReader) fetch(at, n, ahead int64) ([]byte, error) {
	if from := at - p.windowAt; from >= 0 && from+n <= int64(len(p.window)) {
		return p.window[from : from+n], nil
	}
	size := min(max(n, ahead), p.end-at)
	if int64(cap(p.window)) < size {
		p.window = make([]byte, size)
	}
	p.window, p.windowAt = p.window[:size], at
	if read, err := p.r.ReadAt(p.window, at); int64(read) < size {
		p.window = p.window[:0]
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read page: %w", err)
	}
	return p.window[:n], nil
}

// next reads the next data page that has entries; ok is false where there is
// none.
func (p *pageReader) next() (ok bool, err error) {
	for p.at < p.end {
		h, body, err := p.header()
		if err != nil {
			return false, err
		}
		p.at = body + int64(h.compressed)
		switch h.kind {
		case pageDictionary:
			if err := p.readDictionary(&h, body); err != nil {
				return false, fmt.Errorf("dictionary: %w", err)
			}
		case pageData, pageDataV2:
			if h.values == 0 {
				continue
			}
			if err := p.readData(&h, body); err != nil {
				return false, fmt.Errorf("page: %w", err)
			}
			return true, nil
		}
	}
	return false, nil
}

// header reads the header of the page at p.at, and returns where the page's
// body begins.
func (p *pageReader) header() (h pageHeader, body int64, err error) {
	for size := int64(headerRead); ; size *= 8 {
		size = min(size, p.end-p.at)
		b, err := p.fetch(p.at, size, readAhead)
		if err != nil {
			return h, 0, err
		}
		var n int
		h, n, err = parsePageHeader(&p.thrift, b)
		if errors.Is(err, errShort) && size < p.end-p.at && size < maxPageHeader {
			continue
		}
		if err != nil {
			return h, 0, fmt.Errorf("page header: %w: %w", ErrCorrupt, err)
		}
		body = p.at + int64(n)
		break
	}
	switch {
	case int64(h.compressed) > p.end-body:
		return h, 0, fmt.Errorf("%w: page of %d bytes, chunk has %d left", ErrCorrupt, h.compressed, p.end-body)
	case int64(h.uncompressed) > max(p.uncompressed, p.end-p.start):
		return h, 0, fmt.Errorf("%w: page of %d bytes in a chunk of %d", ErrCorrupt, h.uncompressed, p.uncompressed)
	case h.kind != pageDictionary && int64(h.values) > p.values:
		return h, 0, fmt.Errorf("%w: page of %d values in a chunk of %d", ErrCorrupt, h.values, p.values)
	case h.kind != pageDictionary && h.values > maxPageEntries:
		return h, 0, fmt.Errorf("%w: page of %d values", ErrUnsupported, h.values)
	}
	return h, body, nil
}

// fetchBody returns a page's body as it is in the file.
func (p *pageReader) fetchBody(h *pageHeader, at int64) ([]byte, error) {
	b, err := p.fetch(at, int64(h.compressed), 0)
	if err != nil {
		return nil, err
	}
	if h.hasCRC && crc32.ChecksumIEEE(b) != h.crc {
		return nil, fmt.Errorf("%w: its checksum is another", ErrCorrupt)
	}
	return b, nil
}

func (p *pageReader) readDictionary(h *pageHeader, at int64) error {
	b, err := p.fetchBody(h, at)
	if err != nil {
		return err
	}
	if p.dictBody, err = p.inflate(p.dictBody, b, int(h.uncompressed)); err != nil {
		return err
	}
	if h.encoding != encodingPlain && h.encoding != encodingPlainDictionary {
		return fmt.Errorf("%w: encoding %d", ErrUnsupported, h.encoding)
	}
	p.dictionary.reset()
	if err := p.dictionary.plain(p.physical, p.width, int(h.values), p.dictBody); err != nil {
		return err
	}
	p.dictCount, p.hasDict = int(h.values), true
	return nil
}

// needDictionary reads the dictionary where a seek went past it.
func (p *pageReader) needDictionary() error {
	if p.hasDict {
		return nil
	}
	at := p.at
	p.at = p.start
	h, body, err := p.header()
	if err == nil && h.kind != pageDictionary {
		err = fmt.Errorf("%w: no dictionary", ErrCorrupt)
	}
	if err == nil {
		err = p.readDictionary(&h, body)
	}
	p.at = at
	return err
}

func (p *pageReader) readData(h *pageHeader, at int64) error {
	d := &p.page
	d.entries, d.indexed = int(h.values), h.encoding == encodingRLEDictionary || h.encoding == encodingPlainDictionary
	d.definitions, d.repetitions = d.definitions[:0], d.repetitions[:0]
	if d.indexed {
		if err := p.needDictionary(); err != nil {
			return fmt.Errorf("dictionary: %w", err)
		}
	}
	b, err := p.fetchBody(h, at)
	if err != nil {
		return err
	}
	if h.kind == pageDataV2 {
		b, err = p.levelsV2(h, b)
	} else if p.body, err = p.inflate(p.body, b, int(h.uncompressed)); err == nil {
		b, err = p.levelsV1(h, p.body)
	}
	if err != nil {
		return err
	}
	present := d.entries
	if p.maxDefinition > 0 {
		present = 0
		for _, l := range d.definitions {
			if l == p.maxDefinition {
				present++
			}
		}
	}
	return p.readValues(h, b, present)
}

// levelsV1 reads the levels that a page of the first version begins with, and
// returns the rest of it.
func (p *pageReader) levelsV1(h *pageHeader, b []byte) (rest []byte, err error) {
	d := &p.page
	if p.maxRepetition > 0 {
		if d.repetitions, b, err = prefixedLevels(d.repetitions, b, h.repetitionEncoding, p.maxRepetition, d.entries); err != nil {
			return nil, err
		}
	}
	if p.maxDefinition > 0 {
		if d.definitions, b, err = prefixedLevels(d.definitions, b, h.definitionEncoding, p.maxDefinition, d.entries); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func prefixedLevels(dst []uint8, b []byte, encoding int32, most byte, n int) (levels []uint8, rest []byte, err error) {
	if encoding != encodingRLE {
		return nil, nil, fmt.Errorf("%w: levels of encoding %d", ErrUnsupported, encoding)
	}
	if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
		return nil, nil, fmt.Errorf("%w: levels", ErrCorrupt)
	}
	end := 4 + int(binary.LittleEndian.Uint32(b))
	levels, err = readLevels(dst, b[4:end], most, n)
	return levels, b[end:], err
}

func readLevels(dst []uint8, b []byte, most byte, n int) ([]uint8, error) {
	levels, _, err := decodeRLE(dst, b, bits.Len8(most), n)
	if err != nil {
		return nil, fmt.Errorf("levels: %w", err)
	}
	for _, l := range levels {
		if l > most {
			return nil, fmt.Errorf("%w: level %d of %d", ErrCorrupt, l, most)
		}
	}
	return levels, nil
}

// levelsV2 reads the levels of a page of the second version, which are not
// compressed, and returns the rest of it, uncompressed.
func (p *pageReader) levelsV2(h *pageHeader, b []byte) (rest []byte, err error) {
	d, r, n := &p.page, int64(h.repetitionBytes), int64(h.definitionBytes)
	if r+n > int64(len(b)) || r+n > int64(h.uncompressed) {
		return nil, fmt.Errorf("%w: levels", ErrCorrupt)
	}
	if p.maxRepetition > 0 {
		if d.repetitions, err = readLevels(d.repetitions, b[:r], p.maxRepetition, d.entries); err != nil {
			return nil, err
		}
	}
	if p.maxDefinition > 0 {
		if d.definitions, err = readLevels(d.definitions, b[r:r+n], p.maxDefinition, d.entries); err != nil {
			return nil, err
		}
	}
	b = b[r+n:]
	if h.plainBytes {
		return b, nil
	}
	p.body, err = p.inflate(p.body, b, int(h.uncompressed)-int(r+n))
	return p.body, err
}

// readValues decodes the values of a page.
func (p *pageReader) readValues(h *pageHeader, b []byte, n int) error {
	d := &p.page
	d.typed.reset()
	switch {
	case n == 0:
		d.indexes = d.indexes[:0]
		return nil
	case d.indexed:
		if len(b) == 0 || b[0] > 32 {
			return fmt.Errorf("%w: indexes of the dictionary", ErrCorrupt)
		}
		var err error
		if d.indexes, _, err = decodeRLE(d.indexes, b[1:], int(b[0]), n); err != nil {
			return err
		}
		for _, i := range d.indexes {
			if int(i) >= p.dictCount {
				return fmt.Errorf("%w: value %d of a dictionary of %d", ErrCorrupt, i, p.dictCount)
			}
		}
		return nil
	case h.encoding == encodingPlain:
		return d.typed.plain(p.physical, p.width, n, b)
	case h.encoding == encodingRLE && p.physical == parquet.Boolean:
		if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
			return fmt.Errorf("%w: Booleans", ErrCorrupt)
		}
		var err error
		d.typed.bools, _, err = decodeRLE(d.typed.bools, b[4:], 1, n)
		return err
	}
	return d.typed.other(h.encoding, p.physical, p.width, n, b)
}

// other decodes values in one of the encodings that are not written here.
func (t *typed) other(encoding int32, physical parquet.Kind, width, n int, b []byte) error {
	switch {
	case encoding == encodingDeltaBinaryPacked && (physical == parquet.Int32 || physical == parquet.Int64):
		var err error
		if t.i64, _, err = decodeDelta(t.i64, b, n); err != nil || physical == parquet.Int64 {
			return err
		}
		t.i32 = grow(t.i32, n)
		for _, v := range t.i64 {
			t.i32 = append(t.i32, int32(v))
		}
		return nil
	case encoding == encodingDeltaLength && physical == parquet.ByteArray:
		return t.deltaLength(n, b)
	case encoding == encodingDeltaByteArray && physical == parquet.ByteArray:
		return t.deltaBytes(n, b)
	case encoding == encodingDeltaByteArray && physical == parquet.FixedLenByteArray:
		if err := t.deltaBytes(n, b); err != nil {
			return err
		}
		for i := range n {
			if int(t.ends[i]-t.starts[i]) != width {
				return fmt.Errorf("%w: string of another length than %d", ErrCorrupt, width)
			}
		}
		t.width = width
		return nil
	case encoding == encodingByteStreamSplit && physical != parquet.Boolean && physical != parquet.ByteArray:
		if physical != parquet.FixedLenByteArray {
			width = int(plainBits(physical, 0) / 8)
		}
		b, err := unsplit(b, width, n)
		if err != nil {
			return err
		}
		return t.plain(physical, width, n, b)
	}
	return fmt.Errorf("%w: %s in encoding %d", ErrUnsupported, physical, encoding)
}
