package deltalog

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// z85Digits are those of ZeroMQ's base 85: https://rfc.zeromq.org/spec/32/
const z85Digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"

// z85UUID is the length of a UUID in base 85.
const z85UUID = 20

var z85Values = func() (values [256]uint8) {
	for i := range values {
		values[i] = 0xff
	}
	for i := range len(z85Digits) {
		values[z85Digits[i]] = uint8(i)
	}
	return values
}()

// encodeZ85 encodes groups of four bytes; the last is padded with zeros.
func encodeZ85(b []byte) string {
	var out strings.Builder
	for len(b) > 0 {
		var group [4]byte
		b = b[copy(group[:], b):]
		n := binary.BigEndian.Uint32(group[:])
		for div := uint32(85 * 85 * 85 * 85); div > 0; div /= 85 {
			out.WriteByte(z85Digits[n/div%85])
		}
	}
	return out.String()
}

// decodeZ85 decodes groups of five digits.
func decodeZ85(s string) ([]byte, error) {
	if len(s)%5 != 0 {
		return nil, fmt.Errorf("%w: %d digits of base 85", ErrCorrupt, len(s))
	}
	out := make([]byte, 0, len(s)/5*4)
	for ; len(s) > 0; s = s[5:] {
		var n uint64
		for i := range 5 {
			d := z85Values[s[i]]
			if d == 0xff {
				return nil, fmt.Errorf("%w: %q is not a digit of base 85", ErrCorrupt, s[i])
			}
			n = n*85 + uint64(d)
		}
		if n > 1<<32-1 {
			return nil, fmt.Errorf("%w: %q is too great in base 85", ErrCorrupt, s[:5])
		}
		out = binary.BigEndian.AppendUint32(out, uint32(n))
	}
	return out, nil
}
