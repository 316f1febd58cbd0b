package e2e

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// kind is a PostgreSQL type with values that software gets wrong.
type kind struct {
	pg     string
	delta  string // Delta's type, as `table info` names it
	values []hard
}

// hard is one value: a literal of its type, and what `table cat` prints for it.
type hard struct{ in, out string }

// texts makes values that are printed as the second of each pair.
func texts(pairs ...string) (values []hard) {
	for i := 0; i < len(pairs); i += 2 {
		values = append(values, hard{pairs[i], jsonText(pairs[i+1])})
	}
	return values
}

// same makes values that are printed as they were written.
func same(all ...string) (values []hard) {
	for _, s := range all {
		values = append(values, hard{s, jsonText(s)})
	}
	return values
}

// bare makes values that are JSON as they were written.
func bare(all ...string) (values []hard) {
	for _, s := range all {
		values = append(values, hard{s, s})
	}
	return values
}

func jsonText(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s)
	return strings.TrimSpace(b.String())
}

var nines = strings.Repeat("9", 38)

// kinds are the types.
var kinds = []kind{
	{"bool", "boolean", bare("true", "false")},
	{"smallint", "short", bare("-32768", "32767", "0")},
	{"int", "integer", bare("-2147483648", "2147483647", "0")},
	{"bigint", "long", bare("-9223372036854775808", "9223372036854775807", "0")},
	{"real", "float", []hard{
		{"NaN", `"NaN"`},
		{"Infinity", `"Infinity"`},
		{"-Infinity", `"-Infinity"`},
		{"3.4028235e38", "3.4028235e38"},
		{"1e-45", "1e-45"},
		{"0.1", "0.1"},
		{"16777217", "16777216"},
	}},
	{"double precision", "double", []hard{
		{"NaN", `"NaN"`},
		{"Infinity", `"Infinity"`},
		{"-Infinity", `"-Infinity"`},
		{"1.7976931348623157e308", "1.7976931348623157e308"},
		{"5e-324", "5e-324"},
		{"-0", "-0"},
		{"0.1", "0.1"},
		{"0.30000000000000004", "0.30000000000000004"},
		{"9007199254740993", "9007199254740992"},
	}},
	{"numeric(12,2)", "decimal(12,2)", []hard{{"9999999999.99", "9999999999.99"}, {"-0.01", "-0.01"}, {"0", "0.00"}, {"1.005", "1.01"}}},
	{"numeric(9,0)", "decimal(9,0)", bare("999999999", "-999999999")},
	{"numeric(18,18)", "decimal(18,18)", bare("0.999999999999999999", "-0.000000000000000001")},
	{"numeric(19,4)", "decimal(19,4)", bare("922337203685477.5808", "-999999999999999.9999")},
	{"numeric(38,0)", "decimal(38,0)", bare(nines, "-"+nines, "1")},
	{"numeric(38,38)", "decimal(38,38)", bare("0."+nines, "-0."+strings.Repeat("0", 37)+"1")},
	{"numeric", "string", same("NaN", "Infinity", "-Infinity", "0.00", "1.50", "-0.000000000000000000000000000000000000000001",
		"123456789012345678901234567890123456789012345678901234567890.5", "1"+strings.Repeat("0", 500), "12345678.90")},
	{"numeric(39,1)", "string", same(nines+".9", "NaN")},
	{"numeric(5,-2)", "string", texts("12345", "12300", "-99999", "-100000")},
	{"numeric(2,4)", "string", same("0.0012", "-0.0099")},
	{"text", "string", same("", " ", "NULL", "null", `\N`, "ä€😀𝄞", "tab\tline\nreturn\rquote\"quote'back\\slash", "\u0001\u007f\u00a0\u2028\ufeff", "{1,2}",
		strings.Repeat("long and compressible ", 20_000))},
	{"varchar(10)", "string", same("", "0123456789", "a  ")},
	{"char(5)", "string", texts("ab", "ab   ", "", "     ", "ü", "ü    ")},
	{"citext", "string", same("MiXeD")},
	{"name", "string", same("pg_class")},
	{`"char"`, "string", same("a", "")},
	{"xml", "string", same("<a b=\"c\">&lt;</a>", "text <b/>")},
	{"json", "string", same(`{"a":  1, "a": 2.50, "b": [1e400, null]}`, `"x"`, "null", " [ ] ")},
	{"jsonb", "string", texts(`{"b": 1, "a": 12345678901234567890.12345678901234567890}`, `{"a": 12345678901234567890.12345678901234567890, "b": 1}`,
		"null", "null", `"\u00e4\\"`, `"ä\\"`, "1e3", "1000")},
	{"jsonpath", "string", texts("$.a[*] ? (@ > 1)", `$."a"[*]?(@ > 1)`)},
	{"mood", "string", same("ok", `not so "good"`, "grün, mostly")},
	{"uuid", "string", texts("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")},
	{"inet", "string", texts("192.168.0.1/24", "192.168.0.1/24", "::1", "::1", "10.0.0.1/32", "10.0.0.1")},
	{"cidr", "string", same("10.0.0.0/8", "2001:db8::/32")},
	{"macaddr", "string", texts("08-00-2B-01-02-03", "08:00:2b:01:02:03")},
	{"macaddr8", "string", texts("08:00:2b:01:02:03", "08:00:2b:ff:fe:01:02:03")},
	{"bit(5)", "string", same("10101")},
	{"bit varying", "string", same("", "1")},
	{"money", "string", texts("-1234.56", "-$1,234.56", "92233720368547758.07", "$92,233,720,368,547,758.07")},
	{"interval", "string", texts("1 year 2 mons -3 days 04:05:06.789", "1 year 2 mons -3 days +04:05:06.789", "-178000000 years", "-178000000 years", "0", "00:00:00")},
	{"time", "string", same("24:00:00", "00:00:00", "23:59:59.999999")},
	{"timetz", "string", same("24:00:00-15:59", "12:00:00.5+05:30")},
	{"int4range", "string", texts("[1,5]", "[1,6)", "empty", "empty", "(,)", "(,)")},
	{"tstzrange", "string", texts("[2024-01-01 00:00+02,infinity)", `["2023-12-31 22:00:00+00",infinity)`)},
	{"nummultirange", "string", same("{[1.5,2.5),(3.00,)}")},
	{"tsvector", "string", texts("fat:2A cat", "'cat' 'fat':2A")},
	{"tsquery", "string", texts("fat & !cat", "'fat' & !'cat'")},
	{"hstore", "string", texts(`a=>1, "b c"=>NULL`, `"a"=>"1", "b c"=>NULL`)},
	{"pair", "string", texts(`(1,"x ""y"", z")`, `(1,"x ""y"", z")`, "(,)", "(,)")},
	{"point", "string", same("(1.5,-0.1)")},
	{"polygon", "string", same("((0,0),(1,1),(2,0))")},
	{"oid", "string", same("4294967295")},
	{"pg_lsn", "string", same("16/B374D848")},
	{"bytea", "binary", []hard{{`\x`, `""`}, {`\x00ff10`, `"AP8Q"`}, {`\x5c`, `"XA=="`}}},
	{"date", "date", same("0001-01-01", "9999-12-31", "1582-10-10", "1969-12-31", "2024-02-29")},
	{"timestamp", "timestamp_ntz", texts("0001-01-01 00:00:00", "0001-01-01T00:00:00", "9999-12-31 23:59:59.999999", "9999-12-31T23:59:59.999999",
		"1969-12-31 23:59:59.999999", "1969-12-31T23:59:59.999999", "2024-03-31 02:30:00", "2024-03-31T02:30:00")},
	{"timestamptz", "timestamp", texts("0001-01-01 00:00:00+00", "0001-01-01T00:00:00Z", "9999-12-31 23:59:59.999999+00", "9999-12-31T23:59:59.999999Z",
		"2024-03-31 02:30:00.5+05:30", "2024-03-30T21:00:00.5Z", "1883-11-18 12:03:58-07:52:58", "1883-11-18T19:56:56Z")},
	{"timestamptz(0)", "timestamp", texts("2024-01-01 00:00:00.6+00", "2024-01-01T00:00:01Z")},
	{"year_of_birth", "integer", bare("1900", "2100")},
	{"price", "decimal(10,2)", bare("1.10")},
	{"int[]", "array<integer>", []hard{{"{}", "[]"}, {"{1,NULL,-2147483648}", "[1,null,-2147483648]"}}},
	{"text[]", "array<string>", []hard{{`{"a,b",NULL,"NULL","","q\"q","b\\s","{}"," "}`, `["a,b",null,"NULL","","q\"q","b\\s","{}"," "]`}}},
	{"bool[]", "array<boolean>", []hard{{"{t,f,NULL}", "[true,false,null]"}}},
	{"double precision[]", "array<double>", []hard{{"{NaN,-Infinity,0.1}", `["NaN","-Infinity",0.1]`}}},
	{"numeric(10,2)[]", "array<decimal(10,2)>", []hard{{"{1.1,-99999999.99}", "[1.10,-99999999.99]"}}},
	{"numeric[]", "array<string>", []hard{{"{1.10,NaN}", `["1.10","NaN"]`}}},
	{"date[]", "array<date>", []hard{{"{2024-02-29,0001-01-01}", `["2024-02-29","0001-01-01"]`}}},
	{"timestamptz[]", "array<timestamp>", []hard{{`{"2024-01-01 00:00+01"}`, `["2023-12-31T23:00:00Z"]`}}},
	{"timestamp[]", "array<timestamp_ntz>", []hard{{`{"2024-01-01 00:00"}`, `["2024-01-01T00:00:00"]`}}},
	{"bytea[]", "array<binary>", []hard{{`{"\\x00ff",NULL}`, `["AP8=",null]`}}},
	{"uuid[]", "array<string>", []hard{{"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", `["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]`}}},
	{"mood[]", "array<string>", []hard{{`{ok,"grün, mostly"}`, `["ok","grün, mostly"]`}}},
	{"jsonb[]", "array<string>", []hard{{`{"{\"a\": [1, 2]}"}`, `["{\"a\": [1, 2]}"]`}}},
	{"box[]", "array<string>", []hard{{"{(1,1),(0,0);(3,3),(2,2)}", `["(1,1),(0,0)","(3,3),(2,2)"]`}}},
	{"pair[]", "array<string>", []hard{{`{"(1,x)","(2,\"y z\")"}`, `["(1,x)","(2,\"y z\")"]`}}},
	{"price[]", "array<decimal(10,2)>", []hard{{"{1.5}", "[1.50]"}}},
}

// typesOfOurs are those that the table above takes for granted.
const typesOfOurs = `
CREATE EXTENSION citext; CREATE EXTENSION hstore;
CREATE TYPE mood AS ENUM ('ok', 'not so "good"', 'grün, mostly');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN year_of_birth AS int CHECK (VALUE BETWEEN 1900 AND 2100);
CREATE DOMAIN price AS numeric(10,2);
`

func (k *kind) column(i int) string { return fmt.Sprintf("c%02d", i) }

// keyable are the types that can be primary keys.
func (k *kind) keyable() bool {
	return !slices.Contains([]string{"xml", "json", "jsonpath", "point", "polygon"}, k.pg) && !strings.HasPrefix(k.pg, "box")
}

func TestEveryTypeArrivesExactly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	src := s.add("types")
	src.exec(typesOfOurs)
	most := 0
	var columns []string
	for i := range kinds {
		columns = append(columns, kinds[i].column(i)+" "+kinds[i].pg)
		most = max(most, len(kinds[i].values))
	}
	src.exec("CREATE TABLE types (id int PRIMARY KEY, " + strings.Join(columns, ", ") + ")")
	// fill puts row n of the values into the row id, as they come.
	fill := func(id, n int) {
		names, values, args := []string{"id"}, []string{"$1"}, []any{id}
		for i := range kinds {
			if n < len(kinds[i].values) {
				names = append(names, kinds[i].column(i))
				args = append(args, kinds[i].values[n].in)
				values = append(values, fmt.Sprintf("$%d::text::%s", len(args), kinds[i].pg))
			}
		}
		src.exec("INSERT INTO types ("+strings.Join(names, ", ")+") VALUES ("+strings.Join(values, ", ")+")", args...)
	}
	// One table for each type as a key; half of the rows are copied, half streamed.
	keyed := func(half int) {
		for i := range kinds {
			for n, v := range kinds[i].values {
				if kinds[i].keyable() && n%2 == half && len(v.in) < 1000 {
					src.exec(fmt.Sprintf("INSERT INTO key_%02d VALUES ($1::text::%s, %d)", i, kinds[i].pg, n), v.in)
				}
			}
		}
	}
	for i := range kinds {
		if kinds[i].keyable() {
			src.exec(fmt.Sprintf("CREATE TABLE key_%02d (k %s PRIMARY KEY, v int)", i, kinds[i].pg))
		}
	}
	const streamed = 1000
	for n := range most + 1 { // the last is all NULL
		fill(n, n)
	}
	keyed(0)
	o := newOracle(src)
	s.worker("a")
	s.must("apply", "--timeout", "60s")
	s.must("wait", src.name, "--until", "live", "--timeout", "120s")
	for n := range most + 1 {
		fill(streamed+n, n)
	}
	src.exec("UPDATE types SET id = id + 2000 WHERE id < $1", streamed) // and once more as old rows of another key
	src.exec("UPDATE types SET id = id - 2000 WHERE id >= 2000")
	keyed(1)
	for i := range kinds {
		if kinds[i].keyable() {
			src.exec(fmt.Sprintf("UPDATE key_%02d SET v = v + 100", i))
			src.exec(fmt.Sprintf("DELETE FROM key_%02d WHERE v = 100", i))
		}
	}
	s.caughtUp(src.name)
	s.proven(o)

	table := s.table(src.name, "public.types")
	t.Run("Delta types", func(t *testing.T) {
		fields := openTable(t, table.Latest).Snapshot().Metadata().Schema.Fields
		for i := range kinds {
			at := slices.IndexFunc(fields, func(f schema.Field) bool { return f.Name == kinds[i].column(i) })
			if at < 0 {
				t.Fatalf("no column for %s", kinds[i].pg)
			}
			if have := fields[at].Type.String(); have != kinds[i].delta {
				t.Errorf("%s became %s, want %s", kinds[i].pg, have, kinds[i].delta)
			}
		}
	})
	check := func(t *testing.T, rows map[int][]any) {
		for n := range most + 1 {
			for _, id := range []int{n, streamed + n} {
				row, ok := rows[id]
				if !ok {
					t.Errorf("row %d is missing", id)
					continue
				}
				for i := range kinds {
					want := any(nil)
					if n < len(kinds[i].values) {
						want = cellOf(t, kinds[i].delta, json.RawMessage(kinds[i].values[n].out))
					}
					if have := row[i]; !sameCell(want, have) {
						t.Errorf("row %d, %s %s: want %.200v, have %.200v", id, kinds[i].pg, shorten([]byte(kinds[i].values[min(n, len(kinds[i].values)-1)].in), 60), want, have)
					}
				}
			}
		}
	}
	t.Run("table cat", func(t *testing.T) {
		rows := map[int][]any{}
		lines := bufio.NewScanner(strings.NewReader(s.must("table", "cat", table.Latest).stdout))
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var row map[string]json.RawMessage
			if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
				t.Fatal(err)
			}
			id, err := strconv.Atoi(string(row["id"]))
			if err != nil {
				t.Fatal(err)
			}
			var cells []any
			for i := range kinds {
				cells = append(cells, cellOf(t, kinds[i].delta, row[kinds[i].column(i)]))
			}
			rows[id] = cells
		}
		check(t, rows)
	})
	for _, engine := range []string{"deltalake", "duckdb"} {
		t.Run(engine, func(t *testing.T) {
			r := reading{Name: "types", URI: table.Latest, Columns: []string{"id"}}
			for i := range kinds {
				r.Columns = append(r.Columns, kinds[i].column(i))
			}
			rows := map[int][]any{}
			lines := bufio.NewScanner(bytes.NewReader(readers(t, []reading{r}, "rows", engine)))
			lines.Buffer(nil, 16<<20)
			for lines.Scan() {
				var row []any
				if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
					t.Fatal(err)
				}
				id, err := strconv.Atoi(row[0].(string))
				if err != nil {
					t.Fatal(err)
				}
				rows[id] = row[1:]
			}
			check(t, rows)
		})
	}
}

// cellOf writes a value that `table cat` printed as testdata/readers.py does.
func cellOf(t testing.TB, delta string, v json.RawMessage) any {
	t.Helper()
	if string(v) == "null" || v == nil {
		return nil
	}
	if elem, ok := strings.CutPrefix(delta, "array<"); ok {
		var elements []json.RawMessage
		if err := json.Unmarshal(v, &elements); err != nil {
			t.Fatalf("%s: %v", v, err)
		}
		cells := []any{}
		for _, e := range elements {
			cells = append(cells, cellOf(t, strings.TrimSuffix(elem, ">"), e))
		}
		return cells
	}
	text := string(v)
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(v, &text); err != nil {
			t.Fatalf("%s: %v", v, err)
		}
	}
	at := func(layout string) time.Time {
		when, err := time.Parse(layout, text)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	switch delta {
	case "float", "double":
		bits := 64
		if delta == "float" {
			bits = 32
		}
		f, err := strconv.ParseFloat(text, bits)
		if err != nil {
			t.Fatal(err)
		}
		return foreignCell(schema.Type{Kind: schema.Double}, strconv.FormatFloat(f, 'g', -1, 64))
	case "binary":
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(b)
	case "date":
		return strconv.FormatInt(at("2006-01-02").Unix()/86400, 10)
	case "timestamp":
		return strconv.FormatInt(at("2006-01-02T15:04:05.999999Z").UnixMicro(), 10)
	case "timestamp_ntz":
		return strconv.FormatInt(at("2006-01-02T15:04:05.999999").UnixMicro(), 10)
	}
	return text
}

func sameCell(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
