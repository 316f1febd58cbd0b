package fleet

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// everything reads a file in which every key may be given.
func everything(t *testing.T, name string) *File {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parse(name, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestOptionsOfATable(t *testing.T) {
	f := everything(t, "testdata/explain/options.yaml")
	d, err := f.Database("shop")
	if err != nil {
		t.Fatal(err)
	}
	got := d.Table("public", "events")
	want := TableOptions{
		Columns: []string{"!secret_*"}, Casts: map[string]string{"payload": "string", "valid_until": "string"},
		Key: []string{"region", "id"}, Freshness: time.Minute, History: false, SoftDelete: true, CopyOnWrite: true,
		PartitionBy: []string{"day"}, Where: "day >= '2020-01-01'",
		Values: Values{Infinity: Clamp, NaN: Null, Multidimensional: Text},
		Copy:   CopyLimits{RowsPerSecond: 500, Connections: 2, Window: "22:00-06:00", AloneRows: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for column, in := range map[string]bool{"id": true, "secret_code": false, "secrets": true} {
		if got.Takes(column) != in {
			t.Errorf("%s is taken: %t", column, !in)
		}
	}
	// A narrower rule takes back what wider ones say.
	got = d.Table("public", "events_small")
	want = d.Table("public", "events")
	want.Columns, want.Key, want.PartitionBy, want.Where, want.Casts = nil, nil, nil, "", map[string]string{"valid_until": "string"}
	want.Copy = CopyLimits{Connections: 2, Window: Always, AloneRows: true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestExplanation compares what is said about the tables of
// testdata/explain/options.yaml with the .txt beside.
func TestExplanation(t *testing.T) {
	f := everything(t, "testdata/explain/options.yaml")
	d, err := f.Database("shop")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, table := range []string{"public.events", "public.events_small", "public.audit_log", "sales.orders"} {
		schema, name, err := ParseTable(table)
		if err != nil {
			t.Fatal(err)
		}
		e := d.Explain(schema, name)
		fmt.Fprintf(&b, "%s: mirrored %t by %q, line %d\n", e.Table, e.Mirrored, e.Pattern, e.Line)
		for _, v := range e.Values {
			fmt.Fprintf(&b, "  %-24s %-24s %s %d %s\n", v.Key, v.Value, v.From, v.Line, strings.Join(v.Tables, " "))
		}
	}
	golden(t, "testdata/explain/options.txt", b.String())
}

func TestNamesOfTables(t *testing.T) {
	for s, want := range map[string][2]string{
		"public.orders": {"public", "orders"}, `"odd.schema".t`: {"odd.schema", "t"}, `public."a*b"`: {"public", "a*b"},
	} {
		if schema, table, err := ParseTable(s); err != nil || schema != want[0] || table != want[1] {
			t.Errorf("%s: %s %s %v", s, schema, table, err)
		}
	}
	for _, s := range []string{"", "orders", "a.b.c", "public.*", "!public.a", "public.", `"public.a`} {
		if _, _, err := ParseTable(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func TestEveryKeyCanBeRefused(t *testing.T) {
	known := []string{"wal_budget", "on_wal_budget"}
	for _, k := range keys {
		known = append(known, k.name, inRule+k.name)
	}
	for _, k := range unsupported {
		if !slices.Contains(known, k) {
			t.Errorf("%q is refused, and there is no such key", k)
		}
	}
}

// someOptions draws what a place may say.
func someOptions(t *rapid.T, label string) Options {
	var o Options
	give := func(key string) bool { return rapid.IntRange(0, 2).Draw(t, label+key) == 0 }
	some := func(key string, of []string) []string {
		return append([]string{}, rapid.SliceOfNDistinct(rapid.SampledFrom(of), 0, 2, rapid.ID).Draw(t, label+key)...)
	}
	columns := []string{"a", "b", "c"}
	if give("columns") {
		o.Columns = some("columns=", []string{"*", "!a", "b"})
	}
	for _, c := range columns {
		if give("casts." + c) {
			if o.Casts == nil {
				o.Casts = map[string]string{}
			}
			o.Casts[c] = rapid.SampledFrom([]string{"string", NoCast}).Draw(t, label+"casts="+c)
		}
	}
	if give("key") {
		o.Key = some("key=", columns)
	}
	if give("freshness") {
		o.Freshness = new(time.Duration(rapid.IntRange(1, 9).Draw(t, label+"freshness=")) * time.Second)
	}
	for key, into := range map[string]**bool{"history": &o.History, "soft_delete": &o.SoftDelete, "copy_on_write": &o.CopyOnWrite} {
		if give(key) {
			*into = new(rapid.Bool().Draw(t, label+key+"="))
		}
	}
	if give("partition_by") {
		o.PartitionBy = some("partition_by=", columns)
	}
	if give("where") {
		o.Where = new(rapid.SampledFrom([]string{"", "a > 1"}).Draw(t, label+"where="))
	}
	if give("nan") {
		o.Values.NaN = rapid.SampledFrom([]Treatment{Park, Null}).Draw(t, label+"nan=")
	}
	if give("rows") {
		o.Copy.RowsPerSecond = new(rapid.IntRange(0, 9).Draw(t, label+"rows="))
	}
	if give("window") {
		o.Copy.Window = rapid.SampledFrom([]Window{Always, "22:00-06:00"}).Draw(t, label+"window=")
	}
	return o
}

// TestTheLastPlaceThatSetsAKeyDecides compares the cascade with its definition,
// key by key, also after the configuration has been through JSON.
func TestTheLastPlaceThatSetsAKeyDecides(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Database{Name: "shop", Pool: "default", Tables: []string{"*.*"}, Options: someOptions(t, "base ")}
		patterns := []string{"public.t", "public.*", "*.t", "sales.*", "!public.t", "!sales.*"}
		for i := range rapid.IntRange(0, 4).Draw(t, "rules") {
			label := fmt.Sprintf("rule %d ", i)
			d.Rules = append(d.Rules, Rule{
				Tables:  rapid.SliceOfN(rapid.SampledFrom(patterns), 1, 3).Draw(t, label),
				Options: someOptions(t, label),
			})
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var back Database
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if again, _ := json.Marshal(back); string(again) != string(b) {
			t.Fatalf("JSON does not round-trip:\n%s\n%s", b, again)
		}
		schema := rapid.SampledFrom([]string{"public", "sales"}).Draw(t, "schema")
		name := rapid.SampledFrom([]string{"t", "u"}).Draw(t, "name")
		got := back.Table(schema, name)
		for i := range keys {
			k := &keys[i]
			if k.name == "casts" {
				continue
			}
			want := resolve() // nobody says anything
			for _, o := range saying(&d, schema, name, k.given) {
				want = resolve()
				k.take(&want, o) // the last alone
			}
			if !reflect.DeepEqual(k.value(&got), k.value(&want)) {
				t.Fatalf("%s of %s.%s is %v, want %v\n%s", k.name, schema, name, k.value(&got), k.value(&want), b)
			}
		}
		for _, c := range []string{"a", "b", "c"} {
			want := ""
			for _, o := range saying(&d, schema, name, func(o *Options) bool { return o.Casts[c] != "" }) {
				want = strings.TrimPrefix(o.Casts[c], NoCast)
			}
			if got.Casts[c] != want {
				t.Fatalf("cast of %s is %q, want %q\n%s", c, got.Casts[c], want, b)
			}
		}
		// What is explained is what holds.
		for _, x := range back.Explain(schema, name).Values {
			for i := range keys {
				if keys[i].name == x.Key && format(keys[i].value(&got)) != x.Value {
					t.Fatalf("%s is explained as %q and is %v", x.Key, x.Value, keys[i].value(&got))
				}
			}
		}
		if c := Changes(&got, &got); len(c) > 0 {
			t.Fatalf("differs from itself: %v", c)
		}
	})
}

// saying lists who sets a key of a table, in order, by the definition.
func saying(d *Database, schema, name string, given func(*Options) bool) []*Options {
	var says []*Options
	if given(&d.Options) {
		says = append(says, &d.Options)
	}
	for i := range d.Rules {
		chosen := false
		for _, p := range d.Rules[i].Tables {
			p, out := strings.CutPrefix(p, "!")
			if fits(p, schema, name) {
				chosen = !out
			}
		}
		if chosen && given(&d.Rules[i].Options) {
			says = append(says, &d.Rules[i].Options)
		}
	}
	return says
}

func TestWindows(t *testing.T) {
	at := func(clock string) time.Time {
		tm, err := time.Parse("15:04:05", clock)
		if err != nil {
			t.Fatal(err)
		}
		return tm
	}
	for _, c := range []struct {
		window, now string
		wait        time.Duration
	}{
		{"22:00-06:00", "23:00:00", 0},
		{"22:00-06:00", "05:59:59", 0},
		{"22:00-06:00", "06:00:00", 16 * time.Hour},
		{"22:00-06:00", "21:59:59", time.Second},
		{"02:00-04:00", "01:30:00", 30 * time.Minute},
		{"02:00-04:00", "03:00:00", 0},
		{"02:00-04:00", "04:00:00", 22 * time.Hour},
		{"12:00-24:00", "23:59:59", 0},
		{"always", "12:00:00", 0},
	} {
		w, err := ParseWindow(c.window)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Wait(at(c.now)); got != c.wait {
			t.Errorf("%s at %s: %s, want %s", c.window, c.now, got, c.wait)
		}
	}
	for _, s := range []string{"", "22-06", "22:00-25:00", "24:00-06:00", "06:00-06:00", "22:60-06:00", "2:00-06:000", "-1:00-06:00", "22:00-06:00 "} {
		if _, err := ParseWindow(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{"50GB": 50e9, "20GiB": 20 << 30, "100MB": 100e6, "none": 0, "1536MiB": 1536 << 20} {
		if got := formatSize(want); got != s {
			t.Errorf("%d is written as %s, not %s", want, got, s)
		}
	}
}

func TestWhatChangesOfALakeInABucketIsTold(t *testing.T) {
	before := &Database{Lake: "file:///lake"}
	after := &Database{Lake: "s3://lake", Bucket: &Bucket{Region: "eu-1", AccessKey: "env:A", SecretKey: "env:B"}}
	var keys []string
	for _, c := range before.Changes(after) {
		keys = append(keys, c.Key)
	}
	if want := []string{"lake", "lake.region", "lake.access_key", "lake.secret_key"}; !slices.Equal(keys, want) {
		t.Errorf("told %q, want %q", keys, want)
	}
}
