package datafile

import (
	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// decimalText returns the unscaled value.
func decimalText(c *Column, row int) string {
	hi, lo := c.Decimal128(row)
	return string(AppendDecimal(nil, hi, lo, 0))
}

func TestDecimalsPrintAllTheirDigits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		hi := rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{0, -1, 1, math.MinInt64, math.MaxInt64})).Draw(rt, "hi")
		lo := rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1, 9, 10, math.MaxUint64})).Draw(rt, "lo")
		scale := rapid.IntRange(0, 38).Draw(rt, "scale")
		n := new(big.Int).Lsh(big.NewInt(hi), 64)
		n.Add(n, new(big.Int).SetUint64(lo))
		digits := new(big.Int).Abs(n).String()
		digits = strings.Repeat("0", max(0, scale+1-len(digits))) + digits
		want := digits[:len(digits)-scale]
		if scale > 0 {
			want += "." + digits[len(digits)-scale:]
		}
		if n.Sign() < 0 {
			want = "-" + want
		}
		if got := string(AppendDecimal([]byte("x"), hi, lo, scale)); got != "x"+want {
			rt.Fatalf("%s at scale %d prints %s, want x%s", n, scale, got, want)
		}
	})
}

func TestDatesPrintWithASignBeyondFourDigits(t *testing.T) {
	for days, want := range map[int64]string{
		0: "1970-01-01", -1: "1969-12-31", maxDate: "9999-12-31", maxDate + 1: "+10000-01-01", minDate: "0001-01-01",
		minDate - 1: "0000-12-31", minDate - 367: "-0001-12-31", math.MaxInt32: "+5881580-07-11", math.MinInt32: "-5877641-06-23",
	} {
		if got := string(AppendDate(nil, days)); got != want {
			t.Errorf("day %d is %s, want %s", days, got, want)
		}
	}
}
