package pgtype

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	pgx "github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/activities/change"
)

// The oracle is pgx: values go through its encoder, or its decoder reads the
// text that PostgreSQL would print, and ours must come to the same.
var oracle = pgx.NewMap()

func encode(t rapid.TB, oid uint32, format int16, v any) []byte {
	t.Helper()
	b, err := oracle.Encode(oid, format, v, nil)
	if err != nil {
		t.Fatalf("pgx encodes a value of type %d: %v", oid, err)
	}
	return b
}

func scan[T any](t rapid.TB, oid uint32, text string) (v T) {
	t.Helper()
	if err := oracle.Scan(oid, pgx.TextFormatCode, []byte(text), &v); err != nil {
		t.Fatalf("pgx decodes %q of type %d: %v", text, oid, err)
	}
	return v
}

// agree checks that a value's text and, unless nil, binary convert to want.
func agree(t rapid.TB, c change.Column, text string, bin []byte, want string) {
	t.Helper()
	m := mapping(t, c, "")
	if got, err := convert(t, m, m.Text, []byte(text)); err != nil || got != want {
		t.Fatalf("%s from text %q: %s (%v), want %s", typeName(c.Type), text, got, err, want)
	}
	if bin == nil {
		return
	}
	if got, err := convert(t, m, m.Binary, bin); err != nil || got != want {
		t.Fatalf("%s from binary %x: %s (%v), want %s", typeName(c.Type), bin, got, err, want)
	}
}

func TestIntegersAgreeWithPgx(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v2, v4, v8 := rapid.Int16().Draw(t, "int2"), rapid.Int32().Draw(t, "int4"), rapid.Int64().Draw(t, "int8")
		agree(t, column("int2", false, -1), fmt.Sprint(v2), encode(t, pgx.Int2OID, pgx.BinaryFormatCode, v2), fmt.Sprint(v2))
		agree(t, column("int4", false, -1), fmt.Sprint(v4), encode(t, pgx.Int4OID, pgx.BinaryFormatCode, v4), fmt.Sprint(v4))
		agree(t, column("int8", false, -1), fmt.Sprint(v8), encode(t, pgx.Int8OID, pgx.BinaryFormatCode, v8), fmt.Sprint(v8))
	})
}

func TestFloatsAgreeWithPgx(t *testing.T) {
	printed := func(v float64, bits int) string {
		switch {
		case math.IsNaN(v):
			return "NaN"
		case math.IsInf(v, 1):
			return "Infinity"
		case math.IsInf(v, -1):
			return "-Infinity"
		}
		return strconv.FormatFloat(v, 'g', -1, bits)
	}
	shown := func(v float64) string {
		if math.IsNaN(v) {
			return "NaN"
		}
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	rapid.Check(t, func(t *rapid.T) {
		v8 := math.Float64frombits(rapid.Uint64().Draw(t, "float8"))
		agree(t, column("float8", false, -1), printed(v8, 64), encode(t, pgx.Float8OID, pgx.BinaryFormatCode, v8), shown(v8))
		v4 := math.Float32frombits(rapid.Uint32().Draw(t, "float4"))
		agree(t, column("float4", false, -1), printed(float64(v4), 32), encode(t, pgx.Float4OID, pgx.BinaryFormatCode, v4), shown(float64(v4)))
	})
}

// drawNumeric draws the text of a number with the given scale and at most
// precision digits, as numeric_out prints it.
func drawNumeric(t *rapid.T, precision, scale int) (text string, unscaled *big.Int) {
	n := rapid.IntRange(0, precision).Draw(t, "digits")
	digits := rapid.StringOfN(rapid.RuneFrom([]rune("0123456789000999")), n, n, -1).Draw(t, "number")
	unscaled, _ = new(big.Int).SetString("0"+digits, 10)
	if rapid.Bool().Draw(t, "negative") {
		unscaled.Neg(unscaled)
	}
	return placePoint(unscaled, scale), unscaled
}

func placePoint(unscaled *big.Int, scale int) string {
	digits := new(big.Int).Abs(unscaled).String()
	if len(digits) <= scale {
		digits = strings.Repeat("0", scale-len(digits)+1) + digits
	}
	text := digits[:len(digits)-scale]
	if scale > 0 {
		text += "." + digits[len(digits)-scale:]
	}
	if unscaled.Sign() < 0 {
		text = "-" + text
	}
	return text
}

// binaryNumeric is numeric_send by the book: groups of four digits around the
// point, without the zero groups at both ends.
func binaryNumeric(text string) []byte {
	sign := uint16(numericPositive)
	digits, negative := strings.CutPrefix(text, "-")
	if negative {
		sign = numericNegative
	}
	whole, fraction, _ := strings.Cut(digits, ".")
	scale := len(fraction)
	whole = strings.Repeat("0", (4-len(whole)%4)%4) + whole
	fraction += strings.Repeat("0", (4-len(fraction)%4)%4)
	weight := len(whole)/4 - 1
	all := whole + fraction
	for strings.HasPrefix(all, "0000") {
		all, weight = all[4:], weight-1
	}
	for strings.HasSuffix(all, "0000") && len(all)%4 == 0 && all != "" {
		all = all[:len(all)-4]
	}
	if all == "" {
		weight, sign = 0, numericPositive
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(len(all)/4))
	b = binary.BigEndian.AppendUint16(b, uint16(int16(weight)))
	b = binary.BigEndian.AppendUint16(b, sign)
	b = binary.BigEndian.AppendUint16(b, uint16(scale))
	for ; all != ""; all = all[4:] {
		group, _ := strconv.Atoi(all[:4])
		b = binary.BigEndian.AppendUint16(b, uint16(group))
	}
	return b
}

func TestDecimalsAgreeWithPgx(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		precision := rapid.IntRange(1, maxPrecision).Draw(t, "precision")
		scale := rapid.IntRange(0, precision).Draw(t, "scale")
		text, want := drawNumeric(t, precision, scale)
		c := column("numeric", false, numericMod(precision, scale))
		agree(t, c, text, binaryNumeric(text), want.String())

		n := scan[pgx.Numeric](t, pgx.NumericOID, text)
		agree(t, c, text, encode(t, pgx.NumericOID, pgx.BinaryFormatCode, n), want.String())
	})
}

func TestDecimalsBeyondTheColumnAreRefusedInBothFormats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		precision := rapid.IntRange(1, maxPrecision).Draw(t, "precision")
		scale := rapid.IntRange(0, precision).Draw(t, "scale")
		valueScale := rapid.IntRange(0, 60).Draw(t, "value's scale")
		text, value := drawNumeric(t, 90, valueScale)
		// What fits: value × 10^(scale - valueScale) is whole and below 10^precision.
		scaled, rest := new(big.Int), new(big.Int)
		power := func(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }
		scaled.Mul(value, power(scale))
		scaled.QuoRem(scaled, power(valueScale), rest)
		fits := rest.Sign() == 0 && scaled.CmpAbs(power(precision)) < 0

		m := mapping(t, column("numeric", false, numericMod(precision, scale)), "")
		for format, err := range map[string]error{
			"text":   second(convert(t, m, m.Text, []byte(text))),
			"binary": second(convert(t, m, m.Binary, binaryNumeric(text))),
		} {
			if (err == nil) != fits {
				t.Fatalf("numeric(%d,%d) from %s of %s: %v, fits %t", precision, scale, format, text, err, fits)
			}
		}
		if fits {
			agree(t, column("numeric", false, numericMod(precision, scale)), text, binaryNumeric(text), scaled.String())
		}
	})
}

func second(_ string, err error) error { return err }

func TestNumericsWithoutModifierKeepTheirText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text, _ := drawNumeric(t, 200, rapid.IntRange(0, 120).Draw(t, "scale"))
		agree(t, column("numeric", false, -1), text, binaryNumeric(text), strconv.Quote(text))
	})
}

// civilTime draws a time that Delta can hold, to the microsecond.
func civilTime(t *rapid.T) time.Time {
	return time.UnixMicro(rapid.Int64Range(minMicros, maxMicros).Draw(t, "µs")).UTC()
}

func TestDatesAndTimesAgreeWithPgx(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := civilTime(t)
		micros := strconv.FormatInt(v.UnixMicro(), 10)

		day := v.Truncate(24 * time.Hour)
		agree(t, column("date", false, -1), v.Format("2006-01-02"), encode(t, pgx.DateOID, pgx.BinaryFormatCode, day),
			strconv.FormatInt(day.Unix()/86400, 10))

		printed := v.Format("2006-01-02 15:04:05.999999")
		if got := scan[time.Time](t, pgx.TimestampOID, printed); !got.Equal(v) {
			t.Fatalf("pgx reads %q as %v", printed, got)
		}
		agree(t, column("timestamp", false, -1), printed, encode(t, pgx.TimestampOID, pgx.BinaryFormatCode, v), micros)

		zone := time.FixedZone("", rapid.IntRange(-15*3600, 15*3600).Draw(t, "offset"))
		for _, layout := range []string{"2006-01-02 15:04:05.999999-07:00:00", "2006-01-02 15:04:05.999999-07:00", "2006-01-02 15:04:05.999999-07"} {
			local := v.In(zone)
			if local.Year() < 1 || local.Year() > 9999 {
				continue // Go cannot print these as PostgreSQL does
			}
			printed := local.Format(layout)
			if back, err := time.Parse(layout, printed); err != nil || !back.Equal(v) {
				continue // the layout drops a part of the offset
			}
			agree(t, column("timestamptz", false, -1), printed, encode(t, pgx.TimestamptzOID, pgx.BinaryFormatCode, v), micros)
		}
	})
}

func TestEveryDayIsCounted(t *testing.T) {
	for day, v := int64(minDay), time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC); day <= maxDay; day, v = day+1, v.AddDate(0, 0, 1) {
		year, month, dom := v.Date()
		if got := (civil{year, int(month), dom}).days(); got != day {
			t.Fatalf("%s is day %d, want %d", v.Format("2006-01-02"), got, day)
		}
	}
}

func TestTextAndBytesAgreeWithPgx(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		agree(t, column("bytea", false, -1), string(encode(t, pgx.ByteaOID, pgx.TextFormatCode, b)), b, hex.EncodeToString(b))
		s := rapid.String().Draw(t, "text")
		agree(t, column("text", false, -1), s, encode(t, pgx.TextOID, pgx.BinaryFormatCode, s), strconv.Quote(s))
		id := pgx.UUID{Bytes: [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid")), Valid: true}
		text := string(encode(t, pgx.UUIDOID, pgx.TextFormatCode, id))
		agree(t, column("uuid", false, -1), text, encode(t, pgx.UUIDOID, pgx.BinaryFormatCode, id), strconv.Quote(text))
		json := encode(t, pgx.JSONBOID, pgx.TextFormatCode, map[string]string{"k": s})
		agree(t, column("jsonb", false, -1), string(json), encode(t, pgx.JSONBOID, pgx.BinaryFormatCode, map[string]string{"k": s}), strconv.Quote(string(json)))
	})
}

func TestArraysAgreeWithPgx(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOf(rapid.Ptr(rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "NULL", "null", `a"b`, `\`, `{}`, "a,b", " ", "{", `\"`})), true)).Draw(t, "texts")
		want := make([]string, len(texts))
		for i, s := range texts {
			want[i] = "null"
			if s != nil {
				want[i] = strconv.Quote(*s)
			}
		}
		agree(t, column("text", true, -1), string(encode(t, pgx.TextArrayOID, pgx.TextFormatCode, texts)),
			encode(t, pgx.TextArrayOID, pgx.BinaryFormatCode, texts), "["+strings.Join(want, " ")+"]")

		numbers := rapid.SliceOf(rapid.Ptr(rapid.Int32(), true)).Draw(t, "numbers")
		want = make([]string, len(numbers))
		for i, n := range numbers {
			want[i] = "null"
			if n != nil {
				want[i] = fmt.Sprint(*n)
			}
		}
		agree(t, column("int4", true, -1), string(encode(t, pgx.Int4ArrayOID, pgx.TextFormatCode, numbers)),
			encode(t, pgx.Int4ArrayOID, pgx.BinaryFormatCode, numbers), "["+strings.Join(want, " ")+"]")
	})
}

func TestOneDimensionAloneInBothFormats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lower := rapid.Int32Range(-2, 3).Draw(t, "lower bound")
		count := rapid.Int32Range(1, 4).Draw(t, "count")
		dimensions := []pgx.ArrayDimension{{Length: count, LowerBound: lower}}
		if rapid.Bool().Draw(t, "two dimensions") {
			dimensions = append(dimensions, pgx.ArrayDimension{Length: 1, LowerBound: 1})
		}
		elements := make([]int32, count)
		v := pgx.Array[int32]{Elements: elements, Dims: dimensions, Valid: true}
		m := mapping(t, column("int4", true, -1), "")
		for name, err := range map[string]error{
			"text":   second(convert(t, m, m.Text, encode(t, pgx.Int4ArrayOID, pgx.TextFormatCode, v))),
			"binary": second(convert(t, m, m.Binary, encode(t, pgx.Int4ArrayOID, pgx.BinaryFormatCode, v))),
		} {
			if fits := len(dimensions) == 1 && lower == 1; (err == nil) != fits {
				t.Fatalf("%s of an array with %v: %v", name, dimensions, err)
			}
		}
	})
}
