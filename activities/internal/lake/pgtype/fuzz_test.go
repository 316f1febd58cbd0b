package pgtype

import (
	"errors"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	pgx "github.com/jackc/pgx/v5/pgtype"
)

func FuzzTextInt(f *testing.F) {
	m := mapping(f, column("int8", false, -1), "")
	f.Fuzz(func(t *testing.T, src []byte) {
		got, err := convert(t, m, m.Text, src)
		want, wantErr := strconv.ParseInt(string(src), 10, 64)
		switch {
		case err == nil && (wantErr != nil || got != strconv.FormatInt(want, 10)):
			t.Fatalf("%q is %s, want %d (%v)", src, got, want, wantErr)
		case err != nil && wantErr == nil && strconv.FormatInt(want, 10) == string(src):
			t.Fatalf("%q is refused: %v", src, err)
		}
	})
}

func FuzzTextFloat(f *testing.F) {
	m := mapping(f, column("float8", false, -1), "")
	f.Fuzz(func(t *testing.T, src []byte) {
		got, err := convert(t, m, m.Text, src)
		if err != nil {
			return
		}
		if want, err := strconv.ParseFloat(string(src), 64); err != nil || !math.IsNaN(want) && got != strconv.FormatFloat(want, 'g', -1, 64) {
			t.Fatalf("%q is %s, want %v (%v)", src, got, want, err)
		}
	})
}

func FuzzTextDecimal(f *testing.F) {
	f.Fuzz(func(t *testing.T, src []byte, precision, scale uint8) {
		p := 1 + int(precision)%maxPrecision
		s := int(scale) % (p + 1)
		m := mapping(t, column("numeric", false, numericMod(p, s)), "")
		got, err := convert(t, m, m.Text, src)
		if err != nil {
			return
		}
		want, ok := new(big.Rat).SetString(string(src))
		if !ok || want.Cmp(rational(got, s)) != 0 {
			t.Fatalf("numeric(%d,%d) %q is %s / 10^%d", p, s, src, got, s)
		}
	})
}

func rational(unscaled string, scale int) *big.Rat {
	n, _ := new(big.Int).SetString(unscaled, 10)
	return new(big.Rat).SetFrac(n, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil))
}

// FuzzBinaryNumeric holds the text of a binary numeric against pgx's reading of
// it, and the decimal columns against that text.
func FuzzBinaryNumeric(f *testing.F) {
	plain := mapping(f, column("numeric", false, -1), "")
	f.Fuzz(func(t *testing.T, src []byte, precision, scale uint8) {
		if len(src) > 8 && (src[2] > 1 && src[2] < 0xFE) {
			return // thousands of digits: slow to check, and no different
		}
		quoted, err := convert(t, plain, plain.Binary, src)
		p := 1 + int(precision)%maxPrecision
		s := int(scale) % (p + 1)
		m := mapping(t, column("numeric", false, numericMod(p, s)), "")
		got, decErr := convert(t, m, m.Binary, src)
		if err != nil {
			if decErr == nil {
				t.Fatalf("decimal %s from what is malformed: %v", got, err)
			}
			return
		}
		text := strings.Trim(quoted, `"`)
		if decErr != nil {
			return
		}
		var n pgx.Numeric
		if err := oracle.Scan(pgx.NumericOID, pgx.BinaryFormatCode, src, &n); err != nil || !n.Valid || n.NaN {
			t.Fatalf("pgx reads %x as %v (%v), ours is %s", src, n, err, text)
		}
		exact := new(big.Rat).SetInt(n.Int)
		power := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(n.Exp, -n.Exp))), nil))
		if n.Exp < 0 {
			exact.Quo(exact, power)
		} else {
			exact.Mul(exact, power)
		}
		if exact.Cmp(rational(got, s)) != 0 {
			t.Fatalf("numeric(%d,%d) %x is %s / 10^%d, pgx reads %s", p, s, src, got, s, exact)
		}
	})
}

func FuzzTextDate(f *testing.F) {
	m := mapping(f, column("date", false, -1), "")
	f.Fuzz(func(t *testing.T, src []byte) {
		got, err := convert(t, m, m.Text, src)
		if err != nil {
			return
		}
		var want pgx.Date
		if err := oracle.Scan(pgx.DateOID, pgx.TextFormatCode, src, &want); err != nil || want.InfinityModifier != pgx.Finite || strconv.FormatInt(want.Time.Unix()/86400, 10) != got {
			t.Fatalf("%q is day %s, pgx reads %v (%v)", src, got, want.Time, err)
		}
	})
}

func FuzzTextTimestamp(f *testing.F) {
	plain, zoned := mapping(f, column("timestamp", false, -1), ""), mapping(f, column("timestamptz", false, -1), "")
	f.Fuzz(func(t *testing.T, src []byte) {
		if got, err := convert(t, plain, plain.Text, src); err == nil {
			var want pgx.Timestamp
			if err := oracle.Scan(pgx.TimestampOID, pgx.TextFormatCode, src, &want); err != nil || want.InfinityModifier != pgx.Finite || strconv.FormatInt(want.Time.UnixMicro(), 10) != got {
				t.Fatalf("timestamp %q is %s, pgx reads %v (%v)", src, got, want.Time, err)
			}
		}
		if got, err := convert(t, zoned, zoned.Text, src); err == nil {
			var want pgx.Timestamptz
			if err := oracle.Scan(pgx.TimestamptzOID, pgx.TextFormatCode, src, &want); err == nil && strconv.FormatInt(want.Time.UnixMicro(), 10) != got {
				t.Fatalf("timestamptz %q is %s, pgx reads %v", src, got, want.Time)
			}
		}
	})
}

func FuzzTextBytea(f *testing.F) {
	m := mapping(f, column("bytea", false, -1), "")
	f.Fuzz(func(t *testing.T, src []byte) {
		got, err := convert(t, m, m.Text, src)
		if err == nil && `\x`+got != strings.ToLower(string(src)) {
			t.Fatalf("%q is %s", src, got)
		}
	})
}

// FuzzTextArray holds literals of one dimension against pgx's reading of them.
func FuzzTextArray(f *testing.F) {
	m := mapping(f, column("text", true, -1), "")
	f.Fuzz(func(t *testing.T, src []byte) {
		got, err := convert(t, m, m.Text, src)
		if err != nil {
			return
		}
		var want []*string
		if err := oracle.Scan(pgx.TextArrayOID, pgx.TextFormatCode, src, &want); err != nil {
			return // pgx refuses spaces in places where PostgreSQL prints none
		}
		if strings.ContainsAny(string(src), " \t\r\n\v\f") || strings.Contains(strings.ToLower(string(src)), "null") {
			return // pgx trims spaces and takes null in any case, which PostgreSQL quotes
		}
		shown := make([]string, len(want))
		for i, s := range want {
			shown[i] = "null"
			if s != nil {
				shown[i] = strconv.Quote(*s)
			}
		}
		if want := "[" + strings.Join(shown, " ") + "]"; got != want {
			t.Fatalf("%q is %s, pgx reads %s", src, got, want)
		}
	})
}

func FuzzBinaryArray(f *testing.F) {
	m := mapping(f, column("int4", true, -1), "")
	f.Fuzz(func(t *testing.T, src []byte) {
		got, err := convert(t, m, m.Binary, src)
		if err != nil {
			return
		}
		var want []*int32
		if err := oracle.Scan(pgx.Int4ArrayOID, pgx.BinaryFormatCode, src, &want); err != nil {
			t.Fatalf("%x is %s, pgx refuses it: %v", src, got, err)
		}
		shown := make([]string, len(want))
		for i, n := range want {
			shown[i] = "null"
			if n != nil {
				shown[i] = strconv.Itoa(int(*n))
			}
		}
		if want := "[" + strings.Join(shown, " ") + "]"; got != want {
			t.Fatalf("%x is %s, pgx reads %s", src, got, want)
		}
	})
}

// FuzzEveryConverter feeds any bytes to every converter, alone and in arrays:
// a column is left alone by an error and strings in it are always UTF-8.
func FuzzEveryConverter(f *testing.F) {
	var mappings []Mapping
	for _, array := range []bool{false, true} {
		for i := range builtins {
			mappings = append(mappings, mapping(f, column(builtins[i].name, array, -1), ""))
		}
		mappings = append(mappings, mapping(f, column("numeric", array, numericMod(12, 3)), ""), mapping(f, column("numeric", array, numericMod(38, 7)), ""))
	}
	f.Fuzz(func(t *testing.T, which uint8, binary bool, src []byte) {
		m := mappings[int(which)%len(mappings)]
		to := m.Text
		if binary {
			if to = m.Binary; to == nil {
				return
			}
		}
		got, err := convert(t, m, to, src)
		if err == nil && !utf8.ValidString(got) {
			t.Fatalf("%x became %q", src, got)
		}
		if err != nil && errors.Is(err, ErrMalformed) == errors.Is(err, ErrUnrepresentable) {
			t.Fatalf("%v is of both classes", err)
		}
	})
}
