package datafile

import (
	"encoding/binary"
	"fmt"
)

var errRLE = fmt.Errorf("%w: run lengths", ErrCorrupt)

// appendRLE appends values in Parquet's hybrid of run lengths and bit packing,
// each value width bits, width from 1 to 32. The last group is padded with
// zeros.
func appendRLE[T uint8 | uint32](dst []byte, values []T, width int) []byte {
	literal := 0 // where the values begin that are to be packed; they end at i
	i := 0
	for i < len(values) {
		n := run(values[i:])
		if n < 8 {
			i = min(i+8, len(values))
			continue
		}
		dst = appendPacked(dst, values[literal:i], width)
		dst = binary.AppendUvarint(dst, uint64(n)<<1)
		for v, w := uint32(values[i]), width; w > 0; w -= 8 {
			dst = append(dst, byte(v))
			v >>= 8
		}
		i += n
		literal = i
	}
	return appendPacked(dst, values[literal:], width)
}

// run returns how many values at the front are equal.
func run[T uint8 | uint32](values []T) int {
	n := 1
	for n < len(values) && values[n] == values[0] {
		n++
	}
	return n
}

// appendPacked appends values as one run of groups of eight.
func appendPacked[T uint8 | uint32](dst []byte, values []T, width int) []byte {
	if len(values) == 0 {
		return dst
	}
	groups := (len(values) + 7) / 8
	dst = binary.AppendUvarint(dst, uint64(groups)<<1|1)
	end := len(dst) + groups*width
	var acc uint64
	bits := 0
	for _, v := range values {
		acc |= uint64(v) << bits
		if bits += width; bits >= 32 {
			dst = binary.LittleEndian.AppendUint32(dst, uint32(acc))
			acc >>= 32
			bits -= 32
		}
	}
	for ; bits > 0; bits -= 8 {
		dst = append(dst, byte(acc))
		acc >>= 8
	}
	for len(dst) < end {
		dst = append(dst, 0)
	}
	return dst
}

// decodeRLE reads n values of width bits, from 0 to 32, into dst's memory and
// returns the rest of b.
func decodeRLE[T uint8 | uint32](dst []T, b []byte, width, n int) (values []T, rest []byte, err error) {
	dst = grow(dst[:0], n)
	for len(dst) < n {
		header, size := binary.Uvarint(b)
		if size <= 0 || header>>1 == 0 {
			return nil, nil, errRLE
		}
		b = b[size:]
		if header&1 == 0 {
			bytes := (width + 7) / 8
			if len(b) < bytes {
				return nil, nil, errRLE
			}
			var v uint32
			for i := range bytes {
				v |= uint32(b[i]) << (8 * i)
			}
			b = b[bytes:]
			count := int(min(header>>1, uint64(n-len(dst))))
			at := len(dst)
			dst = dst[:at+count]
			for i := range dst[at:] {
				dst[at+i] = T(v)
			}
			continue
		}
		groups := header >> 1
		if groups > uint64(n) { // more than are wanted, by far
			return nil, nil, errRLE
		}
		packed := int(groups) * width
		if len(b) < packed {
			// Some writers cut the padding of the last group.
			if packed-len(b) >= width {
				return nil, nil, errRLE
			}
			packed = len(b)
		}
		dst = unpack(dst, b[:packed], width, min(int(groups)*8, n-len(dst)))
		b = b[packed:]
	}
	return dst, b, nil
}

// unpack appends n values of width bits.
func unpack[T uint8 | uint32](dst []T, b []byte, width, n int) []T {
	mask := uint64(1)<<width - 1
	var acc uint64
	bits := 0
	for range n {
		for bits < width {
			if len(b) >= 4 {
				acc |= uint64(binary.LittleEndian.Uint32(b)) << bits
				b = b[4:]
				bits += 32
				continue
			}
			if len(b) == 0 {
				bits = width // what was cut is zero
				break
			}
			acc |= uint64(b[0]) << bits
			b = b[1:]
			bits += 8
		}
		dst = append(dst, T(acc&mask))
		acc >>= width
		bits -= width
	}
	return dst
}
