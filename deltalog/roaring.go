package deltalog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// The serialized form that is checked here is specified at
// https://github.com/RoaringBitmap/RoaringFormatSpec
const (
	cookieNoRuns = 12346
	cookieRuns   = 12347
	// arrayMax is the greatest cardinality of a container that is an array.
	arrayMax = 4096
	// noOffsetBelow is the number of containers from which a bitmap with runs
	// has offsets.
	noOffsetBelow = 4
)

var errRoaring = errors.New("bitmap is cut short or inconsistent")

// checkRoaring64 returns an error unless b is exactly one portable 64-bit bitmap
// whose every part is where its headers say: only then is the library, which
// trusts them, given the bytes that are returned. They are without the empty
// buckets that some writers leave, on which the library stumbles.
func checkRoaring64(b []byte) ([]byte, error) {
	if len(b) < 8 {
		return nil, errRoaring
	}
	whole := b
	n := binary.LittleEndian.Uint64(b)
	b = b[8:]
	if n > uint64(len(b)/8) {
		return nil, fmt.Errorf("%w: %d buckets in %d bytes", errRoaring, n, len(b))
	}
	var filled [][]byte
	last := int64(-1)
	for range n {
		if len(b) < 4 {
			return nil, errRoaring
		}
		key := int64(binary.LittleEndian.Uint32(b))
		if key <= last || key > 1<<31-1 {
			return nil, fmt.Errorf("%w: bucket %d after %d", errRoaring, key, last)
		}
		last = key
		size, containers, err := checkRoaring32(b[4:])
		if err != nil {
			return nil, err
		}
		if containers > 0 {
			filled = append(filled, b[:4+size])
		}
		b = b[4+size:]
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes at its end", errRoaring, len(b))
	}
	if uint64(len(filled)) == n {
		return whole, nil
	}
	clean := binary.LittleEndian.AppendUint64(nil, uint64(len(filled)))
	return append(clean, slices.Concat(filled...)...), nil
}

// checkRoaring32 checks the 32-bit bitmap that b begins with and returns its
// length and the number of its containers.
func checkRoaring32(b []byte) (size, containers int, err error) {
	h, err := readRoaringHeader(b)
	if err != nil {
		return 0, 0, err
	}
	pos := h.body
	lastKey := -1
	for i := range h.containers {
		key := int(binary.LittleEndian.Uint16(b[h.keys+4*i:]))
		card := int(binary.LittleEndian.Uint16(b[h.keys+4*i+2:])) + 1
		if key <= lastKey {
			return 0, 0, fmt.Errorf("%w: container %d after %d", errRoaring, key, lastKey)
		}
		lastKey = key
		if h.offsets > 0 && int(binary.LittleEndian.Uint32(b[h.offsets+4*i:])) != pos {
			return 0, 0, fmt.Errorf("%w: offset of container %d", errRoaring, key)
		}
		size, err := checkContainer(b[pos:], card, h.isRun(b, i))
		if err != nil {
			return 0, 0, fmt.Errorf("container %d: %w", key, err)
		}
		pos += size
	}
	return pos, h.containers, nil
}

// roaringHeader says where the parts of a 32-bit bitmap are.
type roaringHeader struct {
	containers int
	runs       int // of the bits that mark containers of runs; 0 means none
	keys       int // of keys and cardinalities
	offsets    int // 0 means none
	body       int
}

func (h *roaringHeader) isRun(b []byte, i int) bool {
	return h.runs > 0 && b[h.runs+i/8]&(1<<(i%8)) != 0
}

func readRoaringHeader(b []byte) (roaringHeader, error) {
	var h roaringHeader
	if len(b) < 4 {
		return h, errRoaring
	}
	cookie := binary.LittleEndian.Uint32(b)
	switch {
	case cookie == cookieNoRuns:
		if len(b) < 8 {
			return h, errRoaring
		}
		n := binary.LittleEndian.Uint32(b[4:])
		if n > 1<<16 {
			return h, fmt.Errorf("%w: %d containers", errRoaring, n)
		}
		h.containers, h.keys = int(n), 8
	case cookie&0xffff == cookieRuns:
		h.containers, h.runs = int(cookie>>16)+1, 4
		h.keys = 4 + (h.containers+7)/8
	default:
		return h, fmt.Errorf("%w: cookie %d", errRoaring, cookie)
	}
	h.body = h.keys + 4*h.containers
	if h.runs == 0 || h.containers >= noOffsetBelow {
		h.offsets = h.body
		h.body += 4 * h.containers
	}
	if h.body > len(b) {
		return h, fmt.Errorf("%w: %d containers in %d bytes", errRoaring, h.containers, len(b))
	}
	return h, nil
}

// checkContainer checks one container of a cardinality and returns its length.
func checkContainer(b []byte, card int, run bool) (int, error) {
	switch {
	case run:
		return checkRuns(b, card)
	case card <= arrayMax:
		return checkArray(b, card)
	}
	return checkBits(b, card)
}

func checkArray(b []byte, card int) (int, error) {
	if len(b) < 2*card {
		return 0, errRoaring
	}
	last := -1
	for i := range card {
		v := int(binary.LittleEndian.Uint16(b[2*i:]))
		if v <= last {
			return 0, fmt.Errorf("%w: %d after %d", errRoaring, v, last)
		}
		last = v
	}
	return 2 * card, nil
}

func checkBits(b []byte, card int) (int, error) {
	const size = 1 << 13
	if len(b) < size {
		return 0, errRoaring
	}
	n := 0
	for i := 0; i < size; i += 8 {
		n += bits.OnesCount64(binary.LittleEndian.Uint64(b[i:]))
	}
	if n != card {
		return 0, fmt.Errorf("%w: %d bits, want %d", errRoaring, n, card)
	}
	return size, nil
}

func checkRuns(b []byte, card int) (int, error) {
	if len(b) < 2 {
		return 0, errRoaring
	}
	n := int(binary.LittleEndian.Uint16(b))
	if n == 0 || len(b) < 2+4*n {
		return 0, errRoaring
	}
	next, sum := 0, 0
	for i := range n {
		start := int(binary.LittleEndian.Uint16(b[2+4*i:]))
		length := int(binary.LittleEndian.Uint16(b[4+4*i:]))
		if start < next || start+length > 1<<16-1 {
			return 0, fmt.Errorf("%w: run at %d", errRoaring, start)
		}
		next = start + length + 1
		sum += length + 1
	}
	if sum != card {
		return 0, fmt.Errorf("%w: runs of %d values, want %d", errRoaring, sum, card)
	}
	return 2 + 4*n, nil
}
