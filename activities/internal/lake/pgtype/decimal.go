package pgtype

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

// maxPrecision is Delta's most decimal digits.
const maxPrecision = 38

var (
	errNotFinite = fmt.Errorf("%w: NaN or infinity in a decimal column", ErrUnrepresentable)
	errPrecision = fmt.Errorf("%w: more digits than the column's precision", ErrUnrepresentable)
	errScale     = fmt.Errorf("%w: more fractional digits than the column's scale", ErrUnrepresentable)
)

// uint128 is the magnitude of an unscaled decimal: below 10^38, so below 2^127.
type uint128 struct{ hi, lo uint64 }

// mulAdd returns u*m + a; ok is false where that exceeds 128 bits.
func (u uint128) mulAdd(m, a uint64) (v uint128, ok bool) {
	carry, lo := bits.Mul64(u.lo, m)
	over, hi := bits.Mul64(u.hi, m)
	var c uint64
	v.lo, c = bits.Add64(lo, a, 0)
	v.hi, c = bits.Add64(hi, carry, c)
	return v, over == 0 && c == 0
}

func (u uint128) less(v uint128) bool {
	return u.hi < v.hi || u.hi == v.hi && u.lo < v.lo
}

func (u uint128) isZero() bool { return u.hi|u.lo == 0 }

// pow10 holds the powers of ten up to 10^38.
var pow10 = func() (p [maxPrecision + 1]uint128) {
	p[0] = uint128{lo: 1}
	for i := 1; i < len(p); i++ {
		p[i], _ = p[i-1].mulAdd(10, 0)
	}
	return p
}()

// scaleUp returns u × 10^n for n ≥ 0.
func (u uint128) scaleUp(n int) (v uint128, ok bool) {
	if u.isZero() {
		return u, true
	}
	if n > maxPrecision {
		return u, false
	}
	for ok = true; n > 0 && ok; {
		step := min(n, 19)
		u, ok = u.mulAdd(pow10[step].lo, 0)
		n -= step
	}
	return u, ok
}

// decimal is the shape of a decimal column.
type decimal struct{ precision, scale int }

// append writes ±u, unscaled, to dst.
func (d decimal) append(dst *datafile.Column, u uint128, negative bool) error {
	if !u.less(pow10[d.precision]) {
		return errPrecision
	}
	if d.precision <= 18 {
		v := int64(u.lo)
		if negative {
			v = -v
		}
		dst.AppendInt(v)
		return nil
	}
	if negative {
		var borrow uint64
		u.lo, borrow = bits.Sub64(0, u.lo, 0)
		u.hi, _ = bits.Sub64(0, u.hi, borrow)
	}
	dst.AppendDecimal128(int64(u.hi), u.lo)
	return nil
}

// parse reads what numeric_out prints: digits with an optional sign and point,
// never an exponent. The value is u / 10^scale.
func (d decimal) parse(b []byte) (u uint128, negative bool, err error) {
	switch string(b) {
	case "NaN", "Infinity", "-Infinity":
		return u, false, errNotFinite
	}
	if len(b) > 0 && b[0] == '-' {
		negative, b = true, b[1:]
	}
	var (
		part     uint64 // digits not yet in u
		pending  int    // how many they are
		digits   int    // all read
		fraction = -1   // those after the point, or -1 before it
		ok       = true
	)
	for _, c := range b {
		if c == '.' {
			if fraction >= 0 {
				return u, false, malformed("number")
			}
			fraction = 0
			continue
		}
		c -= '0'
		if c > 9 {
			return u, false, malformed("number")
		}
		digits++
		if fraction >= 0 {
			if fraction == d.scale {
				if c != 0 {
					return u, false, errScale
				}
				continue
			}
			fraction++
		}
		part = part*10 + uint64(c)
		if pending++; pending == 19 {
			if u, ok = u.mulAdd(pow10[19].lo, part); !ok {
				return u, false, errPrecision
			}
			part, pending = 0, 0
		}
	}
	if digits == 0 {
		return u, false, malformed("number")
	}
	if u, ok = u.mulAdd(pow10[pending].lo, part); ok {
		u, ok = u.scaleUp(d.scale - max(fraction, 0))
	}
	if !ok {
		return u, false, errPrecision
	}
	return u, negative, nil
}

func (d decimal) text(dst *datafile.Column, src []byte) error {
	u, negative, err := d.parse(src)
	if err != nil {
		return err
	}
	return d.append(dst, u, negative)
}

// Signs of a binary numeric.
const (
	numericPositive = 0x0000
	numericNegative = 0x4000
	numericNaN      = 0xC000
	numericPosInf   = 0xD000
	numericNegInf   = 0xF000
)

// numeric is a binary numeric, unpacked: base-10000 digits, the first of which
// counts 10000^weight, and how many decimal digits are shown after the point.
type numeric struct {
	weight int
	sign   uint16
	dscale int
	digits []byte // two bytes each
}

func (n *numeric) len() int         { return len(n.digits) / 2 }
func (n *numeric) digit(i int) uint { return uint(binary.BigEndian.Uint16(n.digits[2*i:])) }

// finite tells that n is a number.
func (n *numeric) finite() bool { return n.sign == numericPositive || n.sign == numericNegative }

func unpackNumeric(b []byte) (n numeric, err error) {
	if len(b) < 8 || len(b) != 8+2*int(binary.BigEndian.Uint16(b)) {
		return n, malformed("binary numeric")
	}
	n = numeric{
		weight: int(int16(binary.BigEndian.Uint16(b[2:]))),
		sign:   binary.BigEndian.Uint16(b[4:]),
		dscale: int(binary.BigEndian.Uint16(b[6:])),
		digits: b[8:],
	}
	switch n.sign {
	case numericPositive, numericNegative, numericNaN, numericPosInf, numericNegInf:
	default:
		return n, malformed("binary numeric")
	}
	for i := range n.len() {
		if n.digit(i) > 9999 {
			return n, malformed("binary numeric")
		}
	}
	if n.dscale > 0x3FFF || n.hidesDigits() {
		return n, malformed("binary numeric")
	}
	return n, nil
}

// hidesDigits tells that n has digits beyond those that it shows, which
// PostgreSQL never sends.
func (n *numeric) hidesDigits() bool {
	for i := n.len() - 1; i >= 0; i-- {
		unshown := -4*(n.weight-i) - n.dscale
		if unshown <= 0 {
			return false
		}
		if d := n.digit(i); unshown >= 4 && d != 0 || unshown < 4 && uint64(d)%pow10[unshown].lo != 0 {
			return true
		}
	}
	return false
}

func (d decimal) binary(dst *datafile.Column, src []byte) error {
	n, err := unpackNumeric(src)
	if err != nil {
		return err
	}
	if !n.finite() {
		return errNotFinite
	}
	count := n.len()
	for count > 0 && n.digit(count-1) == 0 {
		count--
	}
	var (
		u  uint128
		ok = true
	)
	for i := range count {
		digit, base := uint64(n.digit(i)), uint64(10000)
		if i == count-1 {
			// The last digit's unit is 10^exponent of the column's unit.
			exponent := 4*(n.weight-i) + d.scale
			if exponent < 0 {
				if exponent <= -4 {
					return errScale
				}
				unit := pow10[-exponent].lo
				if digit%unit != 0 {
					return errScale
				}
				digit, base = digit/unit, base/unit
				exponent = 0
			}
			if u, ok = u.mulAdd(base, digit); ok {
				u, ok = u.scaleUp(exponent)
			}
		} else {
			u, ok = u.mulAdd(base, digit)
		}
		if !ok {
			return errPrecision
		}
	}
	return d.append(dst, u, n.sign == numericNegative)
}

// appendNumeric appends to dst what numeric_out prints.
func appendNumeric(dst []byte, n *numeric) []byte {
	switch n.sign {
	case numericNaN:
		return append(dst, "NaN"...)
	case numericPosInf:
		return append(dst, "Infinity"...)
	case numericNegInf:
		return append(dst, "-Infinity"...)
	case numericNegative:
		dst = append(dst, '-')
	}
	if n.weight < 0 {
		dst = append(dst, '0')
	}
	for i := 0; i <= n.weight; i++ {
		dst = appendGroup(dst, n.at(i), 4, i == 0)
	}
	if n.dscale == 0 {
		return dst
	}
	dst = append(dst, '.')
	for i, left := n.weight+1, n.dscale; left > 0; i, left = i+1, left-4 {
		dst = appendGroup(dst, n.at(i), min(left, 4), false)
	}
	return dst
}

// at returns the base-10000 digit of 10000^(weight-i), which may lie outside
// those that are written.
func (n *numeric) at(i int) uint {
	if i < 0 || i >= n.len() {
		return 0
	}
	return n.digit(i)
}

// appendGroup appends the first width of a group's four digits; leading
// drops zeros in front, keeping one digit.
func appendGroup(dst []byte, group uint, width int, leading bool) []byte {
	text := [4]byte{byte('0' + group/1000), byte('0' + group/100%10), byte('0' + group/10%10), byte('0' + group%10)}
	first := 0
	if leading {
		for first < 3 && text[first] == '0' {
			first++
		}
	}
	return append(dst, text[first:width]...)
}

// binaryNumericText appends what numeric_out prints, from binary.
func binaryNumericText(dst *datafile.Column, src []byte) error {
	n, err := unpackNumeric(src)
	if err != nil {
		return err
	}
	dst.Bytes = appendNumeric(dst.Bytes, &n)
	dst.AppendBytes(nil) // ends the value
	return nil
}
