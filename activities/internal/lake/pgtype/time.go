package pgtype

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deltalog/datafile"
)

const (
	minDay         = -719162 // 0001-01-01
	maxDay         = 2932896 // 9999-12-31
	microsPerDay   = 86400 * 1e6
	minMicros      = minDay * int64(microsPerDay)
	maxMicros      = (maxDay+1)*int64(microsPerDay) - 1
	epochDays2000  = 10957 // 2000-01-01, where PostgreSQL's dates begin
	errDateText    = "date as DateStyle ISO prints it"
	errTimeText    = "timestamp as DateStyle ISO prints it"
	maxOffsetHours = 16 // PostgreSQL allows less than this
)

var (
	errInfinite = fmt.Errorf("%w: infinite date or time", ErrUnrepresentable)
	errYear     = fmt.Errorf("%w: year before 1 or after 9999", ErrUnrepresentable)
)

// civil is a calendar date in the proleptic Gregorian calendar. Year 0 is 1 BC.
type civil struct{ year, month, day int }

// days counts from 1970-01-01. Years are grouped by 400, which repeat exactly,
// and begin in March, so that a leap day ends them.
func (c civil) days() int64 {
	y, m := c.year, c.month-3
	if m < 0 {
		y, m = y-1, m+12
	}
	cycle := y / 400
	if y%400 < 0 {
		cycle--
	}
	y -= cycle * 400
	dayOfYear := (153*m+2)/5 + c.day - 1
	return int64(cycle)*146097 + int64(y*365+y/4-y/100+dayOfYear) - 719468
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// two reads two digits at the front of b, or returns -1.
func two(b []byte) int {
	if len(b) < 2 || b[0]-'0' > 9 || b[1]-'0' > 9 {
		return -1
	}
	return int(b[0]-'0')*10 + int(b[1]-'0')
}

func isInfinite(b []byte) bool {
	return len(b) >= 8 && (string(b) == "infinity" || string(b) == "-infinity")
}

// cutEra removes " BC" from the end of b.
func cutEra(b []byte) (rest []byte, bc bool) {
	if n := len(b) - 3; n > 0 && string(b[n:]) == " BC" {
		return b[:n], true
	}
	return b, false
}

// scanDate reads YYYY-MM-DD, with up to seven digits of year, from the front
// of b.
func scanDate(b []byte, bc bool) (days int64, rest []byte, ok bool) {
	n, year := 0, 0
	for n < len(b) && b[n]-'0' <= 9 {
		if n == 7 {
			return 0, b, false
		}
		year = year*10 + int(b[n]-'0')
		n++
	}
	if n < 4 || len(b) < n+6 || b[n] != '-' || b[n+3] != '-' || year == 0 {
		return 0, b, false
	}
	if bc {
		year = 1 - year
	}
	month, day := two(b[n+1:]), two(b[n+4:])
	if month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return 0, b, false
	}
	return civil{year, month, day}.days(), b[n+6:], true
}

// scanClock reads HH:MM:SS and up to six digits of fraction from the front of
// b, in microseconds.
func scanClock(b []byte) (micros int64, rest []byte, ok bool) {
	if len(b) < 8 || b[2] != ':' || b[5] != ':' {
		return 0, b, false
	}
	h, m, s := two(b), two(b[3:]), two(b[6:])
	if h < 0 || h > 23 || m < 0 || m > 59 || s < 0 || s > 59 {
		return 0, b, false
	}
	micros = int64(h*3600+m*60+s) * 1e6
	b = b[8:]
	if len(b) == 0 || b[0] != '.' {
		return micros, b, true
	}
	b = b[1:]
	n := 0
	for unit := int64(100000); n < len(b) && b[n]-'0' <= 9; unit /= 10 {
		if n == 6 {
			return 0, b, false
		}
		micros += int64(b[n]-'0') * unit
		n++
	}
	return micros, b[n:], n > 0
}

// scanOffset reads what follows the clock of a timestamptz: ±HH, ±HH:MM or
// ±HH:MM:SS, which must be all of b. East is positive.
func scanOffset(b []byte) (micros int64, ok bool) {
	if len(b) < 3 || b[0] != '+' && b[0] != '-' {
		return 0, false
	}
	west := b[0] == '-'
	unit := int64(3600 * 1e6)
	for b = b[1:]; ; b = b[1:] {
		v := two(b)
		if v < 0 || v > 59 || unit == 0 {
			return 0, false
		}
		micros += int64(v) * unit
		if b = b[2:]; len(b) == 0 {
			break
		}
		if b[0] != ':' {
			return 0, false
		}
		switch unit {
		case 3600 * 1e6:
			unit = 60 * 1e6
		case 60 * 1e6:
			unit = 1e6
		default:
			unit = 0
		}
	}
	if micros >= maxOffsetHours*3600*1e6 {
		return 0, false
	}
	if west {
		micros = -micros
	}
	return micros, true
}

// parseDate returns days from 1970-01-01.
func parseDate(b []byte) (int64, error) {
	if isInfinite(b) {
		return 0, errInfinite
	}
	b, bc := cutEra(b)
	days, rest, ok := scanDate(b, bc)
	if !ok || len(rest) > 0 {
		return 0, malformed(errDateText)
	}
	if days < minDay || days > maxDay {
		return 0, errYear
	}
	return days, nil
}

// parseTimestamp returns microseconds from 1970-01-01 00:00:00; in UTC where
// the text carries an offset, as it must if zoned and must not if not.
func parseTimestamp(b []byte, zoned bool) (int64, error) {
	if isInfinite(b) {
		return 0, errInfinite
	}
	b, bc := cutEra(b)
	days, b, ok := scanDate(b, bc)
	if !ok || len(b) == 0 || b[0] != ' ' {
		return 0, malformed(errTimeText)
	}
	clock, b, ok := scanClock(b[1:])
	if !ok {
		return 0, malformed(errTimeText)
	}
	var offset int64
	if zoned {
		if offset, ok = scanOffset(b); !ok {
			return 0, malformed(errTimeText + ", with its offset")
		}
	} else if len(b) > 0 {
		return 0, malformed(errTimeText)
	}
	// An offset moves a time by less than a day: days beyond are out of range
	// whatever it is, and would overflow.
	if days < minDay-1 || days > maxDay+1 {
		return 0, errYear
	}
	micros := days*microsPerDay + clock - offset
	if micros < minMicros || micros > maxMicros {
		return 0, errYear
	}
	return micros, nil
}

func textDate(dst *datafile.Column, src []byte) error {
	v, err := parseDate(src)
	if err != nil {
		return err
	}
	dst.AppendInt(v)
	return nil
}

func textTimestamp(dst *datafile.Column, src []byte) error {
	v, err := parseTimestamp(src, false)
	if err != nil {
		return err
	}
	dst.AppendInt(v)
	return nil
}

func textTimestampTZ(dst *datafile.Column, src []byte) error {
	v, err := parseTimestamp(src, true)
	if err != nil {
		return err
	}
	dst.AppendInt(v)
	return nil
}

func binaryDate(dst *datafile.Column, src []byte) error {
	if len(src) != 4 {
		return malformed("4-byte date")
	}
	v := int32(binary.BigEndian.Uint32(src))
	if v == math.MaxInt32 || v == math.MinInt32 {
		return errInfinite
	}
	days := int64(v) + epochDays2000
	if days < minDay || days > maxDay {
		return errYear
	}
	dst.AppendInt(days)
	return nil
}

// binaryTimestamp reads timestamp and timestamptz alike: microseconds from
// 2000-01-01 00:00:00, the latter's in UTC.
func binaryTimestamp(dst *datafile.Column, src []byte) error {
	if len(src) != 8 {
		return malformed("8-byte timestamp")
	}
	v := int64(binary.BigEndian.Uint64(src))
	if v == math.MaxInt64 || v == math.MinInt64 {
		return errInfinite
	}
	if v < minMicros-change.PostgresEpochMicros || v > maxMicros-change.PostgresEpochMicros {
		return errYear
	}
	dst.AppendInt(v + change.PostgresEpochMicros)
	return nil
}
