package pgtype

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// column makes a change.Column of a built-in type.
func column(name string, array bool, mod int32) change.Column {
	for i := range builtins {
		if builtins[i].name == name {
			return change.Column{Name: "c", Type: change.Type{OID: builtins[i].oid, Name: name, Kind: "b", Array: array, Mod: mod}}
		}
	}
	panic("no type " + name)
}

func mapping(t rapid.TB, c change.Column, cast string) Mapping {
	t.Helper()
	m, err := For(c, cast)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func numericMod(precision, scale int) int32 { return int32(precision<<16|scale&0x7FF) + 4 }

// show prints a value so that a reader can tell it from any other.
func show(c *datafile.Column, row int) string {
	if !c.Valid[row] {
		return "null"
	}
	switch c.Type.Kind {
	case schema.Float, schema.Double:
		if math.IsNaN(c.F64[row]) {
			return "NaN"
		}
		return strconv.FormatFloat(c.F64[row], 'g', -1, 64)
	case schema.Decimal:
		return unscaled(c, row).String()
	case schema.String:
		return strconv.Quote(string(c.At(row)))
	case schema.Binary:
		return hex.EncodeToString(c.At(row))
	case schema.Array:
		var elems []string
		for i := int(c.Off[row]); i < int(c.Off[row+1]); i++ {
			elems = append(elems, show(c.Elem, i))
		}
		return "[" + strings.Join(elems, " ") + "]"
	}
	return strconv.FormatInt(c.I64[row], 10)
}

func unscaled(c *datafile.Column, row int) *big.Int {
	if c.Type.Precision <= 18 {
		return big.NewInt(c.I64[row])
	}
	b := c.At(row)
	v := new(big.Int).SetBytes(b)
	if b[0]&0x80 != 0 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), 128))
	}
	return v
}

// convert runs one value through a converter and shows what came of it. It
// checks that an error leaves the column alone and a success adds one value.
func convert(t rapid.TB, m Mapping, f Convert, src []byte) (string, error) {
	t.Helper()
	c := datafile.NewColumn(m.Type)
	c.AppendNull()
	before := shape(c)
	kept := string(src)
	if err := f(c, src); err != nil {
		if after := shape(c); after != before {
			t.Fatalf("after error %v the column is %s, was %s", err, after, before)
		}
		if !errors.Is(err, ErrUnrepresentable) && !errors.Is(err, ErrMalformed) {
			t.Fatalf("error %v has no class", err)
		}
		return "", err
	}
	if kept != string(src) {
		t.Fatal("the converter wrote into its source")
	}
	if c.Len() != 2 || len(c.Valid) != 2 || !c.Valid[1] {
		t.Fatalf("column holds %d values, want a null and one more", c.Len())
	}
	return show(c, 1), nil
}

func shape(c *datafile.Column) string {
	s := fmt.Sprint(c.Len(), len(c.Valid), len(c.I64), len(c.F64), len(c.Off), len(c.Bytes))
	if c.Elem != nil {
		s += " [" + shape(c.Elem) + "]"
	}
	return s
}

func TestDeltaTypes(t *testing.T) {
	decimal := func(p, s int) schema.Type { return schema.Type{Kind: schema.Decimal, Precision: p, Scale: s} }
	str := schema.Type{Kind: schema.String}
	array := func(e schema.Type) schema.Type { return schema.Type{Kind: schema.Array, Elem: &e, ElemNull: true} }
	user := func(name, kind string, array bool) change.Column {
		return change.Column{Name: "c", Type: change.Type{OID: 17000, Name: name, Kind: kind, Array: array, Mod: -1}}
	}
	for _, c := range []struct {
		column change.Column
		want   schema.Type
		binary bool
	}{
		{column("bool", false, -1), schema.Type{Kind: schema.Boolean}, true},
		{column("int2", false, -1), schema.Type{Kind: schema.Short}, true},
		{column("int4", false, -1), schema.Type{Kind: schema.Integer}, true},
		{column("int8", false, -1), schema.Type{Kind: schema.Long}, true},
		{column("float4", false, -1), schema.Type{Kind: schema.Float}, true},
		{column("float8", false, -1), schema.Type{Kind: schema.Double}, true},
		{column("numeric", false, numericMod(10, 2)), decimal(10, 2), true},
		{column("numeric", false, numericMod(38, 0)), decimal(38, 0), true},
		{column("numeric", false, numericMod(38, 38)), decimal(38, 38), true},
		{column("numeric", false, numericMod(39, 2)), str, true},
		{column("numeric", false, numericMod(5, -2)), str, true},
		{column("numeric", false, numericMod(2, 5)), str, true},
		{column("numeric", false, numericMod(1000, 1000)), str, true},
		{column("numeric", false, -1), str, true},
		{column("numeric", true, numericMod(20, 3)), array(decimal(20, 3)), true},
		{column("numeric", true, -1), array(str), true},
		{column("bytea", false, -1), schema.Type{Kind: schema.Binary}, true},
		{column("date", false, -1), schema.Type{Kind: schema.Date}, true},
		{column("timestamp", false, -1), schema.Type{Kind: schema.TimestampNTZ}, true},
		{column("timestamptz", false, 3), schema.Type{Kind: schema.Timestamp}, true},
		{column("timestamptz", true, -1), array(schema.Type{Kind: schema.Timestamp}), true},
		{column("varchar", false, 36), str, true},
		{column("jsonb", true, -1), array(str), true},
		{column("money", false, -1), str, false},
		{column("interval", true, -1), array(str), false},
		{column("time", false, -1), str, false},
		{user("mood", "e", false), str, true},
		{user("mood", "e", true), array(str), true},
		{user("point3", "c", false), str, false},
		{user("point3", "c", true), array(str), false},
		{user("hstore", "b", false), str, false},
		{user("hstore", "b", true), array(str), false},
		{user("geometry", "b", true), array(str), false},
		{user("int4range", "r", true), array(str), false},
		{user("int4", "b", false), str, false}, // a user's own, not the built-in one
		{user("unheard_of", "b", true), str, false},
	} {
		m := mapping(t, c.column, "")
		if got, want := typeText(m.Type), typeText(c.want); got != want {
			t.Errorf("%s mod %d: Delta type %s, want %s", typeName(c.column.Type), c.column.Type.Mod, got, want)
		}
		if m.Text == nil || (m.Binary != nil) != c.binary {
			t.Errorf("%s mod %d: text %t, binary %t, want binary %t", typeName(c.column.Type), c.column.Type.Mod, m.Text != nil, m.Binary != nil, c.binary)
		}
	}
}

func typeText(t schema.Type) string {
	s := fmt.Sprintf("%v(%d,%d)", t.Kind, t.Precision, t.Scale)
	if t.Elem != nil {
		s += fmt.Sprintf("[%s %t]", typeText(*t.Elem), t.ElemNull)
	}
	return s
}

func TestTextValues(t *testing.T) {
	const (
		bad   = "malformed"
		no    = "not representable"
		dec   = "numeric(5,2)"
		wide  = "numeric(38,10)"
		exact = "numeric"
	)
	columns := map[string]change.Column{
		dec:             column("numeric", false, numericMod(5, 2)),
		wide:            column("numeric", false, numericMod(38, 10)),
		exact:           column("numeric", false, -1),
		"numeric(18,0)": column("numeric", false, numericMod(18, 0)),
		"numeric(38,0)": column("numeric", false, numericMod(38, 0)),
		"enum":          {Name: "c", Type: change.Type{OID: 17000, Name: "mood", Kind: "e", Mod: -1}},
		"geometry[]":    {Name: "c", Type: change.Type{OID: 17000, Name: "geometry", Kind: "b", Array: true, Mod: -1}},
		"box[]":         {Name: "c", Type: change.Type{OID: oidBox, Name: "box", Kind: "b", Array: true, Mod: -1}},
		"mine[]":        {Name: "c", Type: change.Type{OID: 17000, Name: "mine", Kind: "b", Array: true, Mod: -1}},
	}
	for _, c := range []struct{ typ, text, want string }{
		{"bool", "t", "1"},
		{"bool", "f", "0"},
		{"bool", "true", bad},
		{"bool", "", bad},

		{"int2", "32767", "32767"},
		{"int2", "-32768", "-32768"},
		{"int2", "32768", bad},
		{"int2", "-32769", bad},
		{"int4", "2147483647", "2147483647"},
		{"int4", "-2147483648", "-2147483648"},
		{"int4", "2147483648", bad},
		{"int8", "9223372036854775807", "9223372036854775807"},
		{"int8", "-9223372036854775808", "-9223372036854775808"},
		{"int8", "9223372036854775808", bad},
		{"int8", "-9223372036854775809", bad},
		{"int8", "99999999999999999999", bad},
		{"int8", "", bad},
		{"int8", "-", bad},
		{"int8", "+1", bad},
		{"int8", "1 ", bad},
		{"int8", "0", "0"},
		{"int8", "-0", "0"},

		{"float8", "NaN", "NaN"},
		{"float8", "Infinity", "+Inf"},
		{"float8", "-Infinity", "-Inf"},
		{"float8", "-0", "-0"},
		{"float8", "5e-324", "5e-324"},
		{"float8", "1.7976931348623157e+308", "1.7976931348623157e+308"},
		{"float8", "0.1", "0.1"},
		{"float8", "inf", bad},
		{"float8", "0x1p3", bad},
		{"float8", "1_0", bad},
		{"float8", "", bad},
		{"float8", "1e999", bad},
		{"float4", "3.4028235e+38", "3.4028234663852886e+38"},
		{"float4", "1e-45", "1.401298464324817e-45"},
		{"float4", "0.1", "0.10000000149011612"},

		{dec, "123.45", "12345"},
		{dec, "-123.45", "-12345"},
		{dec, "0.00", "0"},
		{dec, "-0.01", "-1"},
		{dec, "7", "700"},
		{dec, "999.99", "99999"},
		{dec, "1000.00", no},
		{dec, "0.001", no},
		{dec, "0.010", "1"},
		{dec, "NaN", no},
		{dec, "Infinity", no},
		{dec, "-Infinity", no},
		{dec, "", bad},
		{dec, "-", bad},
		{dec, ".", bad},
		{dec, "1.2.3", bad},
		{dec, "1e2", bad},
		{dec, "12a", bad},
		{wide, "1234567890123456789012345678.0123456789", "12345678901234567890123456780123456789"},
		{wide, "-9999999999999999999999999999.9999999999", "-99999999999999999999999999999999999999"},
		{wide, "10000000000000000000000000000.0000000000", no},
		{wide, strings.Repeat("9", 60), no},
		{wide, strings.Repeat("0", 60) + "1", "10000000000"},
		{"numeric(18,0)", "-999999999999999999", "-999999999999999999"},
		{"numeric(18,0)", "1000000000000000000", no},
		{"numeric(38,0)", "99999999999999999999999999999999999999", "99999999999999999999999999999999999999"},
		{"numeric(38,0)", "170141183460469231731687303715884105728", no},
		{"numeric(38,0)", "-1", "-1"},
		{"numeric(38,0)", "18446744073709551616", "18446744073709551616"},
		{"numeric(38,0)", "-18446744073709551616", "-18446744073709551616"},
		{exact, "1.10", `"1.10"`},
		{exact, "NaN", `"NaN"`},
		{exact, strings.Repeat("9", 131), strconv.Quote(strings.Repeat("9", 131))},

		{"date", "1970-01-01", "0"},
		{"date", "0001-01-01", "-719162"},
		{"date", "9999-12-31", "2932896"},
		{"date", "2024-02-29", "19782"},
		{"date", "1582-10-10", "-141432"},
		{"date", "0001-12-31 BC", no},
		{"date", "10000-01-01", no},
		{"date", "5874897-12-31", no},
		{"date", "infinity", no},
		{"date", "-infinity", no},
		{"date", "4713-01-01 BC", no},
		{"date", "2023-02-29", bad},
		{"date", "2023-13-01", bad},
		{"date", "2023-0x-01", bad},
		{"date", "2023-00-01", bad},
		{"date", "0000-01-01", bad},
		{"date", "01/02/2024", bad},
		{"date", "2024-01-01 ", bad},
		{"date", "", bad},
		{"timestamp", "1970-01-01 00:00:00", "0"},
		{"timestamp", "1969-12-31 23:59:59.999999", "-1"},
		{"timestamp", "2024-02-29 12:34:56.7", "1709210096700000"},
		{"timestamp", "0001-01-01 00:00:00", "-62135596800000000"},
		{"timestamp", "9999-12-31 23:59:59.999999", "253402300799999999"},
		{"timestamp", "0044-03-15 12:00:00 BC", no},
		{"timestamp", "294276-12-31 23:59:59.999999", no},
		{"timestamp", "infinity", no},
		{"timestamp", "-infinity", no},
		{"timestamp", "2024-01-01 24:00:00", bad},
		{"timestamp", "2024-01-01 00:00:60", bad},
		{"timestamp", "2024-01-01T00:00:00", bad},
		{"timestamp", "2024-01-01 00:00:00+00", bad},
		{"timestamp", "2024-01-01 00:00:00.", bad},
		{"timestamp", "2024-01-01 00:00:00.1234567", bad},
		{"timestamp", "2024-01-01", bad},
		{"timestamptz", "1970-01-01 00:00:00+00", "0"},
		{"timestamptz", "1970-01-01 05:30:00+05:30", "0"},
		{"timestamptz", "1969-12-31 16:00:00-08", "0"},
		{"timestamptz", "1900-01-01 00:19:32.5+00:19:32", "-2208988799500000"},
		{"timestamptz", "0001-01-01 00:00:00+01", no},
		{"timestamptz", "10000-01-01 00:00:00+01", "253402297200000000"},
		{"timestamptz", "9999-12-31 23:00:00-01", no},
		{"timestamptz", "0001-12-31 23:00:00-01 BC", "-62135596800000000"},
		{"timestamptz", "1970-01-01 00:00:00", bad},
		{"timestamptz", "1970-01-01 00:00:00Z", bad},
		{"timestamptz", "1970-01-01 00:00:00+0", bad},
		{"timestamptz", "1970-01-01 00:00:00+00:00:00:00", bad},
		{"timestamptz", "1970-01-01 00:00:00+23", bad},
		{"timestamptz", "1970-01-01 00:00:00 UTC", bad},

		{"bytea", `\x`, ""},
		{"bytea", `\x00ff10`, "00ff10"},
		{"bytea", `\xABcd`, "abcd"},
		{"bytea", `\x0`, bad},
		{"bytea", `\xzz`, bad},
		{"bytea", `abc`, bad},
		{"bytea", ``, bad},

		{"text", "", `""`},
		{"text", "naïve\t\"x\"", `"naïve\t\"x\""`},
		{"text", "\xff", no},
		{"bpchar", "ab   ", `"ab   "`},
		{"jsonb", `{"a": 1.10}`, `"{\"a\": 1.10}"`},
		{"uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`},
		{"time", "24:00:00", `"24:00:00"`},
		{"money", "-$1,234.56", `"-$1,234.56"`},
		{"interval", "-1 mons +2 days -00:00:03.5", `"-1 mons +2 days -00:00:03.5"`},
		{"enum", "so so", `"so so"`},

		{"int4[]", "{}", "[]"},
		{"int4[]", "{1,NULL,-3}", "[1 null -3]"},
		{"int4[]", "{1,2", bad},
		{"int4[]", "{1,,2}", bad},
		{"int4[]", "{1,}", bad},
		{"int4[]", "{,}", bad},
		{"int4[]", "{{1,2},{3,4}}", no},
		{"int4[]", "{{}}", no},
		{"int4[]", "[0:2]={1,2,3}", no},
		{"int4[]", "[-1:0][2:3]={{1,2},{3,4}}", no},
		{"int4[]", "[0:2]", bad},
		{"int4[]", "", bad},
		{"int4[]", "{1,x}", bad},
		{"int4[]", "{}}", bad},
		{"int4[]", `{"1"}`, "[1]"},
		{"int4[]", "1", bad},
		{"text[]", `{a,"b c","",NULL,"NULL","q\"\\",{`, bad},
		{"text[]", `{a,"b c","",NULL,"NULL","q\"\\","a,b","{}"}`, `["a" "b c" "" null "NULL" "q\"\\" "a,b" "{}"]`},
		{"text[]", `{"a\\"}`, `["a\\"]`},
		{"text[]", `{"a}`, bad},
		{"text[]", `{"a\"}`, bad},
		{"text[]", `{"a"b}`, bad},
		{"text[]", `{a"b}`, bad},
		{"text[]", `{a\,b}`, bad},
		{"text[]", "{\"\xff\"}", no},
		{"text[]", `{null}`, `["null"]`},
		{"date[]", "{2024-01-01,infinity}", no},
		{"date[]", "{1970-01-02}", "[1]"},
		{"timestamp[]", `{"1970-01-01 00:00:01"}`, "[1000000]"},
		{"bytea[]", `{"\\x01","\\x"}`, "[01 ]"},
		{"bool[]", "{t,f}", "[1 0]"},
		{"float8[]", "{NaN,-Infinity}", "[NaN -Inf]"},
		{"box[]", "{(1,1),(0,0);(2,2),(0,0)}", `["(1,1),(0,0)" "(2,2),(0,0)"]`},
		{"geometry[]", "{0101:0102}", `["0101" "0102"]`},
		{"mine[]", "{1;2}", `"{1;2}"`},
	} {
		col, ok := columns[c.typ]
		if !ok {
			name, array := strings.CutSuffix(c.typ, "[]")
			col = column(name, array, -1)
		}
		m := mapping(t, col, "")
		got, err := convert(t, m, m.Text, []byte(c.text))
		switch {
		case errors.Is(err, ErrMalformed):
			got = bad
		case errors.Is(err, ErrUnrepresentable):
			got = no
		}
		if got != c.want {
			t.Errorf("%s %q: %s (%v), want %s", c.typ, c.text, got, err, c.want)
		}
		if err != nil && len(c.text) > 4 && strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: the error shows the value: %v", c.typ, err)
		}
	}
}

func TestBinaryValues(t *testing.T) {
	const (
		bad = "malformed"
		no  = "not representable"
	)
	columns := map[string]change.Column{
		"numeric(5,2)":   column("numeric", false, numericMod(5, 2)),
		"numeric(38,38)": column("numeric", false, numericMod(38, 38)),
		"numeric(38,1)":  column("numeric", false, numericMod(38, 1)),
	}
	for _, c := range []struct{ typ, hex, want string }{
		{"bool", "01", "1"},
		{"bool", "00", "0"},
		{"bool", "02", bad},
		{"bool", "", bad},
		{"int2", "8000", "-32768"},
		{"int2", "80", bad},
		{"int4", "80000000", "-2147483648"},
		{"int4", "8000", bad},
		{"int8", "8000000000000000", "-9223372036854775808"},
		{"int8", "80", bad},
		{"float4", "7fc00000", "NaN"},
		{"float4", "80000000", "-0"},
		{"float4", "00", bad},
		{"float8", "fff0000000000000", "-Inf"},
		{"float8", "00", bad},
		{"date", "00000000", "10957"},
		{"date", "7fffffff", no},
		{"date", "80000000", no},
		{"date", "ffffffff", "10956"},
		{"date", "7ffffffe", no},
		{"date", "00", bad},
		{"timestamp", "0000000000000000", "946684800000000"},
		{"timestamp", "7fffffffffffffff", no},
		{"timestamp", "8000000000000000", no},
		{"timestamp", "7ffffffffffffffe", no},
		{"timestamp", "8000000000000001", no},
		{"timestamptz", "ffffffffffffffff", "946684799999999"},
		{"timestamptz", "00", bad},
		{"bytea", "", ""},
		{"bytea", "ff", "ff"},
		{"text", "ff", no},
		{"text", "", `""`},
		{"jsonb", "017b7d", `"{}"`},
		{"jsonb", "027b7d", bad},
		{"jsonb", "", bad},
		{"uuid", "a0eebc999c0b4ef8bb6d6bb9bd380a11", `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`},
		{"uuid", "a0", bad},

		{"numeric", "0000000000000000", `"0"`},
		{"numeric", "0000000000000003", `"0.000"`},
		{"numeric", "00000000c0000000", `"NaN"`},
		{"numeric", "00000000d0000000", `"Infinity"`},
		{"numeric", "00000000f0000000", `"-Infinity"`},
		{"numeric", "00020000400000020001", bad}, // more digits announced than there are
		{"numeric", "00020000400000020001" + "1194", `"-1.45"`},
		{"numeric", "0001fffe0000000800" + "0c", `"0.00000012"`},
		{"numeric", "0001000200000000" + "0001", `"100000000"`},
		{"numeric", "0001000000000000" + "2710", bad},
		{"numeric", "0000000012340000", bad},
		{"numeric", "0000", bad},
		{"numeric", "0000000000004000", bad},
		{"numeric(5,2)", "00020000400000020001" + "1194", "-145"},
		{"numeric(5,2)", "0001000000000000" + "03e8", no},
		{"numeric(5,2)", "0001ffff00000004" + "0001", no},
		{"numeric(5,2)", "0001ffff00000002" + "0001", bad},
		{"numeric", "0001fffe00000004" + "0001", bad},
		{"numeric(5,2)", "0001ffff00000002" + "0064", "1"},
		{"numeric(5,2)", "0001fffe00000008" + "0001", no},
		{"numeric(5,2)", "0002ffff00000008" + "00640000", "1"},
		{"numeric(5,2)", "00000000c0000000", no},
		{"numeric(5,2)", "00000000d0000000", no},
		{"numeric(5,2)", "00017fff00000000" + "0001", no},
		{"numeric(5,2)", "00018000000000000001", bad},
		{"numeric(5,2)", "00017fff000000000000", "0"},
		{"numeric(38,38)", "000affff00000026" + strings.Repeat("270f", 9) + "26ac", strings.Repeat("9", 38)},
		{"numeric(38,38)", "000affff40000026" + strings.Repeat("270f", 9) + "26ac", "-" + strings.Repeat("9", 38)},
		{"numeric(38,1)", "000a000900000000" + strings.Repeat("270f", 10), no},

		{"int4[]", "000000000000000000000017", "[]"},
		{"int4[]", "000000010000000100000017" + "0000000200000001" + "0000000400000007" + "ffffffff", "[7 null]"},
		{"int4[]", "000000010000000000000017" + "0000000200000000" + "0000000400000007" + "0000000400000008", no},
		{"int4[]", "000000020000000000000017" + "0000000100000001" + "0000000100000001" + "0000000400000007", no},
		{"int4[]", "000000010000000000000017" + "7fffffff00000001" + "0000000400000007", bad},
		{"int4[]", "000000010000000000000017" + "0000000100000001" + "7000000400000007", bad},
		{"int4[]", "000000010000000000000017" + "0000000100000001" + "0000000400000007" + "00", bad},
		{"int4[]", "0000000100000000000000170000000100000001", bad},
		{"int4[]", "ffffffff0000000000000017", bad},
		{"int4[]", "00", bad},
		{"text[]", "000000010000000000000019" + "0000000200000001" + "0000000161" + "00000001ff", no},
	} {
		col, ok := columns[c.typ]
		if !ok {
			name, array := strings.CutSuffix(c.typ, "[]")
			col = column(name, array, -1)
		}
		m := mapping(t, col, "")
		src, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatalf("%s %s: %v", c.typ, c.hex, err)
		}
		got, err := convert(t, m, m.Binary, src)
		switch {
		case errors.Is(err, ErrMalformed):
			got = bad
		case errors.Is(err, ErrUnrepresentable):
			got = no
		}
		if got != c.want {
			t.Errorf("%s %s: %s (%v), want %s", c.typ, c.hex, got, err, c.want)
		}
	}
}

func TestCasts(t *testing.T) {
	for _, c := range []struct {
		column change.Column
		cast   string
		text   string
		want   string // "refused" for ErrCast
		binary bool
	}{
		{column("timestamptz", false, -1), CastString, "infinity", `"infinity"`, false},
		{column("numeric", false, numericMod(5, 2)), CastString, "NaN", `"NaN"`, false},
		{column("int4", true, -1), CastString, "{{1,2},{3,4}}", `"{{1,2},{3,4}}"`, false},
		{column("bytea", false, -1), CastString, `\x00ff`, `"\\x00ff"`, false},
		{column("text", false, -1), CastString, "a", `"a"`, true},
		{column("text", false, -1), CastBinary, "\xff", "ff", true},
		{column("jsonb", false, -1), CastBinary, "{}", "7b7d", true},
		{column("xml", false, -1), CastBinary, "<a/>", "3c612f3e", false},
		{column("int4", false, -1), CastBinary, "", "refused", false},
		{column("text", true, -1), CastBinary, "", "refused", false},
		{column("int4", false, -1), "double", "", "refused", false},
	} {
		name := typeName(c.column.Type) + " as " + c.cast
		m, err := For(c.column, c.cast)
		if err != nil {
			if !errors.Is(err, ErrCast) || c.want != "refused" {
				t.Errorf("%s: %v, want %s", name, err, c.want)
			}
			continue
		}
		if got, err := convert(t, m, m.Text, []byte(c.text)); err != nil || got != c.want {
			t.Errorf("%s: %s (%v), want %s", name, got, err, c.want)
		}
		if (m.Binary != nil) != c.binary {
			t.Errorf("%s: binary %t, want %t", name, m.Binary != nil, c.binary)
		}
	}
}
