package deltalog

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
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
		s = strconv.FormatFloat(c.F64[row], 'g', -1, 32)
	case schema.Double:
		s = strconv.FormatFloat(c.F64[row], 'g', -1, 64)
	case schema.Decimal:
		s = decimalText(c, row)
	case schema.String:
		if s = string(c.At(row)); s == "" {
			return nil, nil
		}
	case schema.Date:
		s = time.Unix(c.I64[row]*86400, 0).UTC().Format(time.DateOnly)
	case schema.Timestamp:
		s = time.UnixMicro(c.I64[row]).UTC().Format("2006-01-02T15:04:05.000000Z")
	case schema.TimestampNTZ:
		s = time.UnixMicro(c.I64[row]).UTC().Format("2006-01-02 15:04:05.000000")
	default:
		return nil, fmt.Errorf("%w: partition values of type %s", ErrUnsupported, t)
	}
	return &s, nil
}

// decimalText prints a decimal with all digits of its scale.
func decimalText(c *datafile.Column, row int) string {
	hi, lo := c.Decimal128(row)
	n := new(big.Int).Lsh(big.NewInt(hi), 64)
	n.Or(n, new(big.Int).SetUint64(lo))
	digits, sign := n.String(), ""
	if strings.HasPrefix(digits, "-") {
		digits, sign = digits[1:], "-"
	}
	scale := c.Type.Scale
	if scale == 0 {
		return sign + digits
	}
	if len(digits) <= scale {
		digits = strings.Repeat("0", scale-len(digits)+1) + digits
	}
	return sign + digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
}
