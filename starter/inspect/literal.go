package inspect

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// ordering returns how values of a type compare with a literal, which is
// written as the rows are: below 0 for those that are less.
func ordering(t schema.Type, w word) (func(*datafile.Column, int) int, error) {
	text := w.text
	switch t.Kind {
	case schema.Boolean:
		b, err := strconv.ParseBool(strings.ToLower(text))
		if err != nil || len(text) < 4 {
			return nil, fmt.Errorf("%q is neither true nor false", text)
		}
		return bound{floor: big128(big.NewInt(int64(boolInt(b)))), exact: true}.order, nil
	case schema.Byte, schema.Short, schema.Integer, schema.Long, schema.Decimal:
		b, err := numberBound(text, t.Scale)
		return b.order, err
	case schema.Float, schema.Double:
		return floatOrder(t, text)
	case schema.Date:
		at, err := time.Parse(time.DateOnly, text)
		if err != nil {
			return nil, fmt.Errorf("%q is no date such as '2024-02-29'", text)
		}
		return microsBound(at.Unix() / 86400).order, nil
	case schema.Timestamp, schema.TimestampNTZ:
		at, err := parseMoment(text, t.Kind == schema.Timestamp)
		if err != nil {
			return nil, err
		}
		b := microsBound(at.UnixMicro())
		b.exact = at.Nanosecond()%1000 == 0
		return b.order, nil
	case schema.String:
		if w.quoted == 0 {
			return nil, fmt.Errorf("text is written in quotes: '%s'", text)
		}
		want := []byte(text)
		return func(c *datafile.Column, row int) int { return bytes.Compare(c.At(row), want) }, nil
	case schema.Binary:
		want, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not base64", text)
		}
		return func(c *datafile.Column, row int) int { return bytes.Compare(c.At(row), want) }, nil
	}
	return nil, fmt.Errorf("values of this type have no order")
}

// logValue writes a literal, which ordering took, as the log writes values; without
// ok there is no such value of the type.
func logValue(t schema.Type, text string) (value string, ok bool) {
	switch t.Kind {
	case schema.Byte, schema.Short, schema.Integer, schema.Long:
		bits := map[schema.Kind]int{schema.Byte: 8, schema.Short: 16, schema.Integer: 32, schema.Long: 64}[t.Kind]
		n, err := strconv.ParseInt(text, 10, bits)
		return strconv.FormatInt(n, 10), err == nil
	case schema.Boolean:
		return strings.ToLower(text), true
	case schema.Date:
		return text, true
	case schema.String: // the log has no empty ones
		return text, text != ""
	case schema.Timestamp:
		at, err := parseMoment(text, true)
		return string(appendTime(nil, at.UnixMicro(), withZone)), err == nil && at.Nanosecond()%1000 == 0
	case schema.TimestampNTZ:
		at, err := parseMoment(text, false)
		return string(appendTime(nil, at.UnixMicro(), withoutZone)), err == nil && at.Nanosecond()%1000 == 0
	}
	return "", false
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// int128 is hi·2⁶⁴ + lo.
type int128 struct {
	hi int64
	lo uint64
}

// bound is a number among the values of a column of integers: floor where it is
// exact, else between floor and the next.
type bound struct {
	floor int128
	exact bool
}

func (b bound) order(c *datafile.Column, row int) int {
	hi, lo := c.Decimal128(row)
	o := cmp.Compare(hi, b.floor.hi)
	if o == 0 {
		o = cmp.Compare(lo, b.floor.lo)
	}
	if o == 0 && !b.exact {
		return -1
	}
	return o
}

func microsBound(v int64) bound { return bound{int128{v >> 63, uint64(v)}, true} }

// big128 returns a number as int128, the nearest one if it is too large.
func big128(n *big.Int) int128 {
	limit := new(big.Int).Lsh(big.NewInt(1), 127)
	switch {
	case n.Cmp(limit) >= 0:
		return int128{math.MaxInt64, math.MaxUint64}
	case n.Cmp(new(big.Int).Neg(limit)) < 0:
		return int128{math.MinInt64, 0}
	}
	lo := new(big.Int).And(n, new(big.Int).SetUint64(math.MaxUint64)).Uint64()
	return int128{new(big.Int).Rsh(n, 64).Int64(), lo}
}

// plainNumber is one without the forms that other parsers would take besides,
// and with an exponent that cannot make it huge.
var plainNumber = regexp.MustCompile(`^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$`)

// numberBound returns where a number is among those with scale digits after the
// point, counted in units of the last digit.
func numberBound(text string, scale int) (bound, error) {
	r, ok := new(big.Rat), plainNumber.MatchString(text)
	if ok {
		_, ok = r.SetString(text)
	}
	if !ok {
		return bound{}, fmt.Errorf("%q is no number", text)
	}
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil)))
	floor, rest := new(big.Int).DivMod(r.Num(), r.Denom(), new(big.Int))
	return bound{big128(floor), rest.Sign() == 0}, nil
}

// floatOrder compares as Spark does: NaN equals itself and is above all else.
func floatOrder(t schema.Type, text string) (func(*datafile.Column, int) int, error) {
	bits := 64
	if t.Kind == schema.Float {
		bits = 32
	}
	want, err := strconv.ParseFloat(text, bits)
	if err != nil {
		return nil, fmt.Errorf("%q is no number", text)
	}
	return func(c *datafile.Column, row int) int {
		v := c.F64[row]
		switch {
		case v == want:
			return 0
		case v < want:
			return -1
		case v > want:
			return 1
		}
		return boolInt(v != v) - boolInt(want != want)
	}, nil
}

// ParseTime reads a time as --timestamp takes it: ISO 8601, in UTC unless it has a
// zone.
func ParseTime(text string) (time.Time, error) { return parseMoment(text, true) }

// parseMoment reads a date and time, which has a zone or is in UTC; one that is
// to have none may not have one.
func parseMoment(text string, zone bool) (time.Time, error) {
	layouts := []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly}
	if zone {
		layouts = append(layouts, "2006-01-02T15:04:05Z07:00", "2006-01-02 15:04:05Z07:00")
	}
	for _, layout := range layouts {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	if zone {
		return time.Time{}, fmt.Errorf("%q is no time such as '2024-02-29T12:00:00.5Z'", text)
	}
	return time.Time{}, fmt.Errorf("%q is no time such as '2024-02-29T12:00:00.5'", text)
}
