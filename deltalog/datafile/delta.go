package datafile

import (
	"encoding/binary"
	"fmt"
)

// Encodings that other writers use, which are read alone:
// https://parquet.apache.org/docs/file-format/data-pages/encodings/
const (
	encodingDeltaBinaryPacked = 5
	encodingDeltaLength       = 6
	encodingDeltaByteArray    = 7
	encodingByteStreamSplit   = 9
)

// maxPageStrings is the most bytes that a page of shared prefixes may unfold to.
const maxPageStrings = 256 << 20

var errDelta = fmt.Errorf("%w: deltas", ErrCorrupt)

// decodeDelta reads n integers of DELTA_BINARY_PACKED into dst's memory, and
// returns the rest of b. Sums wrap around at 64 bits.
func decodeDelta(dst []int64, b []byte, n int) (values []int64, rest []byte, err error) {
	var header [3]uint64 // values of a block, miniblocks in it, values in all
	for i := range header {
		v, size := binary.Uvarint(b)
		if size <= 0 {
			return nil, nil, errDelta
		}
		header[i], b = v, b[size:]
	}
	v, size := binary.Varint(b)
	if size <= 0 || header[2] != uint64(n) {
		return nil, nil, errDelta
	}
	b = b[size:]
	const mostBlock = 1 << 20
	if header[0] == 0 || header[0] > mostBlock || header[1] == 0 || header[0]%header[1] != 0 || header[0]/header[1]%8 != 0 {
		return nil, nil, errDelta
	}
	miniblocks, perMini := int(header[1]), int(header[0]/header[1])
	// Every block has a byte a miniblock, so that n is no more than b can tell.
	if n > 1 && uint64(n-1)/header[0] > uint64(len(b)) {
		return nil, nil, errDelta
	}
	dst = grow(dst[:0], n)
	if n > 0 {
		dst = append(dst, v)
	}
	for len(dst) < n {
		least, size := binary.Varint(b)
		if size <= 0 || len(b)-size < miniblocks {
			return nil, nil, errDelta
		}
		widths := b[size : size+miniblocks]
		b = b[size+miniblocks:]
		for _, w := range widths {
			if len(dst) == n {
				break // what is not needed has no bytes
			}
			bytes := int(w) * perMini / 8
			if w > 64 || len(b) < bytes {
				return nil, nil, errDelta
			}
			for i := 0; i < perMini && len(dst) < n; i++ {
				v += least + int64(bitsAt(b[:bytes], i*int(w), int(w)))
				dst = append(dst, v)
			}
			b = b[bytes:]
		}
	}
	return dst, b, nil
}

// bitsAt returns width bits, up to 64, from a bit on.
func bitsAt(b []byte, at, width int) uint64 {
	if width == 0 {
		return 0
	}
	b = b[at/8:]
	if len(b) < 9 {
		b = append(make([]byte, 0, 9), b...)[:9]
	}
	shift := at % 8
	v := binary.LittleEndian.Uint64(b)>>shift | uint64(b[8])<<(64-shift)
	return v & (1<<width - 1)
}

// decodeLengths reads n lengths, whose bytes follow, and returns them with the
// bytes.
func decodeLengths(b []byte, n int) (lengths []int64, data []byte, err error) {
	lengths, data, err = decodeDelta(nil, b, n)
	if err != nil {
		return nil, nil, err
	}
	left := int64(len(data))
	for _, l := range lengths {
		if l < 0 || l > left {
			return nil, nil, fmt.Errorf("%w: string beyond its page", ErrCorrupt)
		}
		left -= l
	}
	return lengths, data, nil
}

// deltaLength decodes n byte strings of DELTA_LENGTH_BYTE_ARRAY.
func (t *typed) deltaLength(n int, b []byte) error {
	lengths, data, err := decodeLengths(b, n)
	if err != nil {
		return err
	}
	t.data, t.starts, t.ends = data, grow(t.starts, n), grow(t.ends, n)
	at := uint32(0)
	for _, l := range lengths {
		t.starts = append(t.starts, at)
		at += uint32(l)
		t.ends = append(t.ends, at)
	}
	return nil
}

// deltaBytes decodes n byte strings of DELTA_BYTE_ARRAY: each begins as the one
// before does.
func (t *typed) deltaBytes(n int, b []byte) error {
	prefixes, b, err := decodeDelta(nil, b, n)
	if err != nil {
		return err
	}
	lengths, suffixes, err := decodeLengths(b, n)
	if err != nil {
		return err
	}
	size, before := int64(0), int64(0)
	for i, p := range prefixes {
		if p < 0 || p > before {
			return fmt.Errorf("%w: string with a longer prefix than the one before has", ErrCorrupt)
		}
		before = p + lengths[i]
		if size += before; size > maxPageStrings {
			return fmt.Errorf("%w: page of more than %d bytes of strings", ErrUnsupported, maxPageStrings)
		}
	}
	t.starts, t.ends = grow(t.starts, n), grow(t.ends, n)
	data, last := make([]byte, 0, size), 0
	for i, p := range prefixes {
		start := len(data)
		data = append(data, data[last:last+int(p)]...)
		data = append(data, suffixes[:lengths[i]]...)
		suffixes = suffixes[lengths[i]:]
		t.starts, t.ends = append(t.starts, uint32(start)), append(t.ends, uint32(len(data)))
		last = start
	}
	t.data = data
	return nil
}

// unsplit puts the bytes of n values of BYTE_STREAM_SPLIT together again, so
// that they are as PLAIN encodes them.
func unsplit(b []byte, width, n int) ([]byte, error) {
	if width <= 0 || len(b) != width*n {
		return nil, fmt.Errorf("%w: %d bytes for %d values", ErrCorrupt, len(b), n)
	}
	out := make([]byte, len(b))
	for k := range width {
		for i, v := range b[k*n : (k+1)*n] {
			out[i*width+k] = v
		}
	}
	return out, nil
}
