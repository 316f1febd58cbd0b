package datafile

import "encoding/binary"

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
