package pgtype

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deploy/local"
)

// TestPostgresAgrees asks a server for hard and for random values: as text, in
// binary, and for what should come of them in arithmetic of its own.
func TestPostgresAgrees(t *testing.T) {
	server := local.SharedPostgres(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cfg, err := pgconn.ParseConfig(server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{
		"DateStyle": "ISO", "IntervalStyle": "postgres", "TimeZone": "UTC", "extra_float_digits": "1", "bytea_output": "hex", "lc_monetary": "C",
	} {
		cfg.RuntimeParams[k] = v
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec("SELECT setseed(0.42)")
	exec("CREATE TYPE pg_temp.mood AS ENUM ('so so', 'a\"b', 'c,d')")
	exec("CREATE TYPE pg_temp.pair AS (a int, b text)")

	user := func(name, kind string, array bool) change.Column {
		return change.Column{Name: "c", Type: change.Type{OID: 99999, Name: name, Kind: kind, Array: array, Mod: -1}}
	}
	const (
		always = "true"
		// asText expects the text itself, as show prints strings.
		asText = ""
	)
	for _, c := range []struct {
		column change.Column
		values string // a query of one column v
		fits   string // whether Delta can hold v
		want   string // what show prints of v; asText for strings
	}{
		{column("bool", false, -1), "SELECT v FROM unnest('{t,f}'::bool[]) v", always, "v::int"},
		{column("int2", false, -1), "SELECT (random()*65535-32768)::int2 FROM generate_series(1,200)", always, "v"},
		{column("int4", false, -1), "SELECT v FROM unnest('{-2147483648,2147483647,0}'::int4[]) v", always, "v"},
		{column("int8", false, -1), "SELECT v FROM unnest('{-9223372036854775808,9223372036854775807,0}'::int8[]) v", always, "v"},
		{column("float8", true, -1), "SELECT array_agg((random()-0.5)*10^(random()*600-300)) FROM generate_series(1,900) i GROUP BY i%9", always, ""},
		{column("float4", true, -1), "SELECT '{NaN,Infinity,-Infinity,-0,1e-45,3.4028235e38}'::float4[] ", always, ""},

		{column("numeric", false, numericMod(38, 10)), "SELECT ((random()-0.5)*10^(random()*38-10))::numeric(38,10) FROM generate_series(1,500)", always, "trunc(v*1e10)"},
		{column("numeric", false, numericMod(38, 10)), "SELECT v::numeric(38,10) FROM unnest('{0,-0.0000000001,NaN,1234567890123456789012345678.0123456789}'::numeric[]) v", "v<>'NaN'", "trunc(v*1e10)"},
		{column("numeric", false, numericMod(18, 4)), "SELECT ((random()-0.5)*10^(random()*14))::numeric(18,4) FROM generate_series(1,500)", always, "trunc(v*1e4)"},
		{column("numeric", false, numericMod(38, 38)), "SELECT v::numeric(38,38) FROM unnest('{0.99999999999999999999999999999999999999,-0.00000000000000000000000000000000000001,0}'::numeric[]) v", always, "trunc(v*1e38)"},
		{column("numeric", false, -1), "SELECT (random()-0.5)::numeric * (10::numeric ^ (random()*200-100)::int) FROM generate_series(1,500)", always, asText},
		{column("numeric", false, -1), "SELECT v FROM unnest('{NaN,0,0.000,1e300,1e-300,-5.10,10000,9999.9999,100000000}'::numeric[]) v", always, asText},
		{column("numeric", true, numericMod(9, 2)), "SELECT '{1.5,NULL,-0.01}'::numeric(9,2)[]", always, "'[150 null -1]'"},

		{column("date", false, -1), "SELECT '0001-01-01'::date + (random()*3652058)::int FROM generate_series(1,500)", always, "v - date '1970-01-01'"},
		{column("date", false, -1), "SELECT v FROM unnest('{infinity,-infinity,4713-01-01 BC,5874897-12-31,0001-01-01,0001-12-31 BC,9999-12-31,10000-01-01}'::date[]) v", "isfinite(v) AND v BETWEEN '0001-01-01' AND '9999-12-31'", "CASE WHEN isfinite(v) THEN v - date '1970-01-01' END"},
		{column("timestamp", false, -1), "SELECT timestamp '0001-01-01' + random()*3652058 * interval '1 day' FROM generate_series(1,500)", "v < '10000-01-01'", "trunc(extract(epoch from v)*1000000)"},
		{
			column("timestamp", false, -1), "SELECT v FROM unnest('{infinity,-infinity,4713-01-01 00:00:00 BC,294276-12-31 23:59:59.999999,0001-01-01 00:00:00,0001-12-31 23:59:59.999999 BC,9999-12-31 23:59:59.999999,10000-01-01 00:00:00}'::timestamp[]) v",
			"isfinite(v) AND v >= '0001-01-01' AND v < '10000-01-01'", "CASE WHEN isfinite(v) THEN trunc(extract(epoch from v)*1000000) END",
		},
		{column("timestamptz", false, -1), "SELECT timestamptz '0001-01-01' + random()*3652058 * interval '1 day' FROM generate_series(1,500)", "v < '10000-01-01'", "trunc(extract(epoch from v)*1000000)"},
		{
			column("timestamptz", false, -1), "SELECT v FROM unnest('{infinity,4713-01-01 00:00:00 BC,9999-12-31 23:59:59.9+00,10000-01-01 00:00:00+01,0001-01-01 00:00:00+05}'::timestamptz[]) v",
			"isfinite(v) AND v >= '0001-01-01' AND v < '10000-01-01'", "CASE WHEN isfinite(v) THEN trunc(extract(epoch from v)*1000000) END",
		},

		{column("bytea", false, -1), "SELECT v FROM unnest(ARRAY['', '\\x00ff', decode(repeat('ab', 5000), 'hex')]::bytea[]) v", always, "encode(v, 'hex')"},
		{column("text", false, -1), "SELECT v FROM unnest(ARRAY['', 'a''b', 'ünï ☃ 🎉', E'\\\\t\\n']) v", always, asText},
		{column("bpchar", false, 9), "SELECT 'ab'::char(5)", always, asText},
		{column("name", false, -1), "SELECT 'ab'::name", always, asText},
		{column("char", false, -1), `SELECT 'x'::"char"`, always, asText},
		{column("xml", false, -1), "SELECT '<?xml version=\"1.0\"?><a>b</a>'::xml", always, asText},
		{column("uuid", false, -1), "SELECT gen_random_uuid() FROM generate_series(1,50)", always, asText},
		{column("json", false, -1), `SELECT '{"a" : 1.10, "a": "\u2603"}'::json`, always, asText},
		{column("jsonb", false, -1), `SELECT '{"b": 12345678901234567890.123456789, "a": null}'::jsonb`, always, asText},
		{column("money", false, -1), "SELECT '-1234567.89'::money", always, asText},
		{column("time", false, -1), "SELECT '24:00:00'::time", always, asText},
		{column("timetz", false, -1), "SELECT '23:59:59.5+15:59:59'::timetz", always, asText},
		{column("interval", false, -1), "SELECT '1 mon -2 days 03:04:05.678'::interval", always, asText},
		{column("inet", false, -1), "SELECT '::1/64'::inet", always, asText},
		{column("varbit", false, -1), "SELECT B'0101'::varbit", always, asText},
		{column("tsvector", false, -1), "SELECT to_tsvector('english', 'the fat cats')", always, asText},
		{user("int4range", "r", false), "SELECT '[1,5)'::int4range", always, asText},
		{user("mood", "e", false), "SELECT unnest(enum_range(NULL::pg_temp.mood))", always, asText},
		{user("mood", "e", true), "SELECT enum_range(NULL::pg_temp.mood)", always, `'["so so" "a\"b" "c,d"]'`},
		{user("pair", "c", false), `SELECT '(1,"a ""b")'::pg_temp.pair`, always, asText},
		{user("pair", "c", true), `SELECT ARRAY['(1,"a b")','(2,)']::pg_temp.pair[]`, always, `'["(1,\"a b\")" "(2,)"]'`},

		{
			column("int4", true, -1), "SELECT v FROM (VALUES ('{}'::int4[]), ('{1,NULL,3}'), ('[0:1]={1,2}'), ('{{1,2},{3,4}}'), ('{{1}}'), ('[1:1]={5}')) x(v)",
			"coalesce(array_ndims(v),1) = 1 AND coalesce(array_lower(v,1),1) = 1", "replace(replace(replace(replace(v::text,'{','['),'}',']'),',',' '),'NULL','null')",
		},
		{column("text", true, -1), `SELECT ARRAY['', 'NULL', NULL, 'a"b', 'c\d', '{e}', 'f,g', ' h ', 'i']`, always, `'["" "NULL" null "a\"b" "c\\d" "{e}" "f,g" " h " "i"]'`},
		{column("jsonb", true, -1), `SELECT ARRAY['{"a": [1]}', 'null']::jsonb[]`, always, `'["{\"a\": [1]}" "null"]'`},
		{change.Column{Name: "c", Type: change.Type{OID: oidBox, Name: "box", Kind: "b", Array: true, Mod: -1}}, "SELECT ARRAY['(1,2),(0,0)','(3,4),(0,0)']::box[]", always, `'["(1,2),(0,0)" "(3,4),(0,0)"]'`},
	} {
		name := typeName(c.column.Type)
		want := c.want
		if want == asText {
			want = "v"
		}
		sql := fmt.Sprintf("SELECT v, v, %s, %s FROM (%s) x(v)", c.fits, want, c.values)
		m := mapping(t, c.column, "")
		formats := []int16{0, 1, 0, 0}
		if m.Binary == nil {
			formats[1] = 0
		}
		result := conn.ExecParams(ctx, sql, nil, nil, nil, formats).Read()
		if result.Err != nil {
			t.Errorf("%s: %s: %v", name, sql, result.Err)
			continue
		}
		if len(result.Rows) == 0 {
			t.Errorf("%s: no rows", name)
		}
		for _, r := range result.Rows {
			fits, want := string(r[2]) == "t", string(r[3])
			if c.want == asText {
				want = strconv.Quote(want)
			}
			got, err := convert(t, m, m.Text, r[0])
			if (err == nil) != fits || !fits && !errors.Is(err, ErrUnrepresentable) || fits && got != want && !(c.column.Type.Array && c.want == asText) {
				t.Errorf("%s text %q: %s (%v), fits %t, want %s", name, r[0], got, err, fits, want)
			}
			if m.Binary == nil {
				continue
			}
			same, binErr := convert(t, m, m.Binary, r[1])
			if same != got || (binErr == nil) != fits || !fits && !errors.Is(binErr, ErrUnrepresentable) {
				t.Errorf("%s %q: %s (%v) from binary, %s (%v) from text", name, r[0], same, binErr, got, err)
			}
		}
	}
}
