package deltalog

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// partitionText returns a value as the log writes it for a partition column; nil
// is NULL, and so is an empty string, which the log cannot tell from it.
func partitionText(c *datafile.Column, row int) (*string, error) {
	if !c.Valid[row] {
		return nil, nil
	}
	var s string
	switch t := c.Type; t.Kind {
	case schema.Boolean:
		s = strconv.FormatBool(c.I64[row] != 0)
	case schema.Byte, schema.Short, schema.Integer, schema.Long:
		s = strconv.FormatInt(c.I64[row], 10)
	case schema.Float:
		s = floatText(c.F64[row], 32)
	case schema.Double:
		s = floatText(c.F64[row], 64)
	case schema.Decimal:
		hi, lo := c.Decimal128(row)
		s = string(datafile.AppendDecimal(nil, hi, lo, t.Scale))
	case schema.String:
		if s = string(c.At(row)); s == "" {
			return nil, nil
		}
	case schema.Date:
		s = string(datafile.AppendDate(nil, c.I64[row]))
	case schema.Timestamp:
		s = momentText(c.I64[row], "T15:04:05.000000Z")
	case schema.TimestampNTZ:
		s = momentText(c.I64[row], " 15:04:05.000000")
	default:
		return nil, fmt.Errorf("%w: partition values of type %s", ErrUnsupported, t)
	}
	return &s, nil
}

// momentText returns a date and a time of day in a layout of package time.
func momentText(micros int64, clock string) string {
	date := datafile.AppendDate(nil, floorDiv(micros, 86_400_000_000))
	return string(time.UnixMicro(micros).UTC().AppendFormat(date, clock))
}

// floatText prints a number with the fewest digits that tell it apart, and those
// beyond all numbers by the names that Java knows them by, too.
func floatText(v float64, bits int) string {
	switch {
	case math.IsInf(v, 1):
		return "Infinity"
	case math.IsInf(v, -1):
		return "-Infinity"
	}
	return strconv.FormatFloat(v, 'g', -1, bits)
}
