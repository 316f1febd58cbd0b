package datafile

import (
	"math/bits"
	"strconv"
	"time"
)

// AppendDecimal appends the decimal (hi·2⁶⁴ + lo)·10^-scale with all digits of its
// scale, such as -0.50, as [Column.Decimal128] returns it. A scale below 0 counts
// as 0.
func AppendDecimal(dst []byte, hi int64, lo uint64, scale int) []byte {
	high := uint64(hi)
	if hi < 0 {
		dst = append(dst, '-')
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		high, _ = bits.Sub64(0, high, borrow)
	}
	var room [40]byte
	digits := appendUint128(room[:0], high, lo)
	whole := len(digits) - max(scale, 0)
	if whole > 0 {
		dst = append(dst, digits[:whole]...)
	} else {
		dst = append(dst, '0')
	}
	if scale <= 0 {
		return dst
	}
	dst = append(dst, '.')
	for ; whole < 0; whole++ {
		dst = append(dst, '0')
	}
	return append(dst, digits[whole:]...)
}

// appendUint128 appends hi·2⁶⁴ + lo.
func appendUint128(dst []byte, hi, lo uint64) []byte {
	const chunk, digits = 1e19, 19
	if hi == 0 {
		return strconv.AppendUint(dst, lo, 10)
	}
	high, rest := hi/chunk, hi%chunk
	low, rest := bits.Div64(rest, lo, chunk)
	dst = appendUint128(dst, high, low)
	for n := uint64(chunk / 10); n > rest && n > 1; n /= 10 {
		dst = append(dst, '0')
	}
	return strconv.AppendUint(dst, rest, 10)
}

// Decimal128 reads the unscaled value of a decimal as Parquet stores it in bytes:
// big-endian, in two's complement, of any length. Without ok it exceeds 128 bits.
func Decimal128(b []byte) (hi int64, lo uint64, ok bool) { return extend(b) }

// AppendDate appends a date, in days since 1970, as ISO 8601 writes it. Years
// beyond 9999 have a sign, as those before 0 have.
func AppendDate(dst []byte, days int64) []byte {
	at := time.Unix(days*86400, 0).UTC()
	if at.Year() > 9999 {
		dst = append(dst, '+')
	}
	return at.AppendFormat(dst, time.DateOnly)
}

// Int96Micros returns the microseconds since 1970 of a timestamp of old writers: a
// Julian day, and nanoseconds in it. What is below a microsecond is dropped, as all
// readers do that know the type. Without ok it is none that a column holds.
func Int96Micros(v [3]uint32) (micros int64, ok bool) {
	const (
		epoch = 2440588 // the Julian day of 1970-01-01
		day   = 86_400_000_000
		limit = 1<<63 - 1
	)
	nanos := int64(uint64(v[1])<<32 | uint64(v[0]))
	days := int64(int32(v[2])) - epoch
	if nanos < 0 || nanos > 1000*day || days > limit/day-1 || days < -limit/day {
		return 0, false
	}
	return days*day + nanos/1000, true
}
