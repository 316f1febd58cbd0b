package inspect

import (
	"bytes"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it)\n--- got\n%s\n--- want\n%s", name, got, want)
	}
}

// everything has a column of every primitive type and an array.
var everything = &schema.Schema{Fields: []schema.Field{
	{Name: "id", Type: kind(schema.Long), Nullable: true},
	{Name: "ok", Type: kind(schema.Boolean), Nullable: true},
	{Name: "small", Type: kind(schema.Byte), Nullable: true},
	{Name: "ratio", Type: kind(schema.Float), Nullable: true},
	{Name: "size", Type: kind(schema.Double), Nullable: true},
	{Name: "price", Type: schema.Type{Kind: schema.Decimal, Precision: 9, Scale: 2}, Nullable: true},
	{Name: "wide", Type: schema.Type{Kind: schema.Decimal, Precision: 38, Scale: 10}, Nullable: true},
	{Name: "the name", Type: kind(schema.String), Nullable: true},
	{Name: "raw", Type: kind(schema.Binary), Nullable: true},
	{Name: "day", Type: kind(schema.Date), Nullable: true},
	{Name: "at", Type: kind(schema.Timestamp), Nullable: true},
	{Name: "local", Type: kind(schema.TimestampNTZ), Nullable: true},
	{Name: "tags", Type: schema.Type{Kind: schema.Array, Elem: &schema.Type{Kind: schema.String}, ElemNull: true}, Nullable: true},
}}

// museum makes a table of everything: row 0 has what is ordinary, row 1 what is
// extreme, row 2 is NULL but for its id.
func museum(t *testing.T) *View {
	t.Helper()
	dir := t.TempDir()
	st, err := store.OpenURI(dir)
	if err != nil {
		t.Fatal(err)
	}
	table, err := deltalog.Create(t.Context(), st, deltalog.CreateOptions{Schema: everything})
	if err != nil {
		t.Fatal(err)
	}
	b := datafile.NewBatch(everything)
	c := func(name string) *datafile.Column { return b.Column(name) }
	c("ok").AppendBool(true)
	c("small").AppendInt(-128)
	c("ratio").AppendFloat(float64(float32(0.1)))
	c("size").AppendFloat(2.5)
	c("price").AppendInt(1999)
	c("wide").AppendInt(5)
	c("the name").AppendString("plain")
	c("raw").AppendBytes([]byte{0, 255})
	c("day").AppendInt(19782)
	c("at").AppendInt(1709208000500000)
	c("local").AppendInt(1709208000000000)
	c("tags").Elem.AppendString("a,b")
	c("tags").Elem.AppendNull()
	c("tags").EndArray()

	c("ok").AppendBool(false)
	c("small").AppendInt(127)
	c("ratio").AppendFloat(math.NaN())
	c("size").AppendFloat(math.Inf(-1))
	c("price").AppendInt(-5)
	c("wide").AppendDecimal128(math.MinInt64/2, 1)
	c("the name").AppendString("O\"Hara,\n'é'")
	c("raw").AppendBytes(nil)
	c("day").AppendInt(-719162)
	c("at").AppendInt(-1)
	c("local").AppendInt(253402300799999999)
	c("tags").EndArray()
	for i, col := range b.Cols[1:] {
		col.AppendNull()
		if col.Len() != 3 {
			t.Fatalf("column %s has %d rows", b.Names[i+1], col.Len())
		}
	}
	for i := range 3 {
		c("id").AppendInt(int64(i))
	}
	w, err := table.NewFile(t.Context(), deltalog.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	f, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, won, err := table.Commit(t.Context(), &deltalog.Commit{Operation: "WRITE", Add: []*deltalog.File{f}}); err != nil || !won {
		t.Fatal(won, err)
	}
	v, err := Open(t.Context(), dir, At{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func cat(t *testing.T, v *View, o CatOptions) string {
	t.Helper()
	var out bytes.Buffer
	if err := v.Cat(t.Context(), &out, o); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestEveryTypeInEveryFormat(t *testing.T) {
	v := museum(t)
	lines := cat(t, v, CatOptions{Limit: -1})
	golden(t, "museum.jsonl", lines)
	golden(t, "museum.csv", cat(t, v, CatOptions{Limit: -1, Format: CSV}))

	b := []byte(cat(t, v, CatOptions{Limit: -1, Format: Parquet}))
	f, err := datafile.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	var e encoder
	for b, err := range f.Read(t.Context(), everything, datafile.ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		e.begin(b)
		for row := range b.Rows() {
			again.Write(e.row(row))
		}
	}
	if again.String() != lines {
		t.Errorf("the Parquet file holds\n%s", again.String())
	}
}

func TestCatOfAFormatThatIsNone(t *testing.T) {
	err := museum(t).Cat(t.Context(), &bytes.Buffer{}, CatOptions{Format: "xml"})
	if err == nil || !strings.Contains(err.Error(), "json, csv and parquet") {
		t.Errorf("got %v", err)
	}
}

func TestCatShowsTheColumnsAskedFor(t *testing.T) {
	v := museum(t)
	got := cat(t, v, CatOptions{Columns: []string{"small", "id"}, Where: "size = 2.5", Limit: -1})
	if want := "{\"small\":-128,\"id\":0}\n"; got != want {
		t.Errorf("got %s", got)
	}
	for want, columns := range map[string][]string{`no column "none"; there are id`: {"none"}, `"id" is named twice`: {"id", "id"}, "none is named": {}} {
		err := v.Cat(t.Context(), &bytes.Buffer{}, CatOptions{Columns: columns})
		if !errors.Is(err, ErrColumns) || !strings.Contains(err.Error(), want) {
			t.Errorf("columns %q: %v, want %q", columns, err, want)
		}
	}
}

func TestCatStopsAtItsLimit(t *testing.T) {
	v := museum(t)
	for _, test := range []struct {
		where string
		limit int64
		want  string
	}{
		{"", 0, ""},
		{"", 1, "0"},
		{"", 2, "0 1"},
		{"", 3, "0 1 2"},
		{"", 9, "0 1 2"},
		{"", -1, "0 1 2"},
		{"id > 0", 1, "1"},
		{"id > 0", 2, "1 2"},
		{"id > 9", 1, ""},
	} {
		got := cat(t, v, CatOptions{Columns: []string{"id"}, Where: test.where, Limit: test.limit, Format: CSV})
		if got := strings.Join(strings.Fields(strings.TrimPrefix(got, "id\n")), " "); got != test.want {
			t.Errorf("limit %d where %q: got %q", test.limit, test.where, got)
		}
	}
}

// TestConditions holds comparisons against the rows of the museum.
func TestConditions(t *testing.T) {
	v := museum(t)
	for where, want := range map[string]string{
		"":                                     "0 1 2",
		"id = 1":                               "1",
		"id == 1":                              "1",
		"id<>1":                                "0 2",
		"id != 1":                              "0 2",
		"id < 1.5":                             "0 1",
		"id <= 1.5":                            "0 1",
		"id > 1.5":                             "2",
		"id >= -0.5":                           "0 1 2",
		"id = 1.5":                             "",
		"id != 1.5":                            "0 1 2",
		"id = 1e0":                             "1",
		"id < 99999999999999999999":            "0 1 2",
		"id > -99999999999999999999":           "0 1 2",
		"id < 1e999":                           "0 1 2",
		"id > 0 AND id < 2":                    "1",
		"id > 0 and `the name` IS NULL":        "2",
		"\"the name\" is not null":             "0 1",
		"ok = true":                            "0",
		"ok != TRUE":                           "1",
		"ok < true":                            "1",
		"small = -128":                         "0",
		"ratio = 0.1":                          "0",
		"ratio = 'NaN'":                        "1",
		"ratio > 1e30":                         "1",
		"size < 0":                             "1",
		"size > '-Infinity'":                   "0",
		"price = 19.99":                        "0",
		"price = 19.990":                       "0",
		"price < 19.991":                       "0 1",
		"price >= 19.991":                      "",
		"price = -0.05":                        "1",
		"wide = 0.0000000005":                  "0",
		"wide < -4000000000":                   "1",
		"`the name` = 'plain'":                 "0",
		"`the name` = 'O\"Hara,\n''é'''":       "1",
		"`the name` < 'P'":                     "1",
		"raw = 'AP8='":                         "0",
		"raw = ''":                             "1",
		"day = '2024-02-29'":                   "0",
		"day < '0001-01-02'":                   "1",
		"at = '2024-02-29T12:00:00.5Z'":        "0",
		"at = '2024-02-29 13:00:00.5+01:00'":   "0",
		"at < '1970-01-01'":                    "1",
		"at = '2024-02-29T12:00:00.5000001Z'":  "",
		"at < '2024-02-29T12:00:00.5000001Z'":  "0 1",
		"at >= '2024-02-29T12:00:00.5000001Z'": "",
		"local >= '2024-02-29 12:00:00'":       "0 1",
		"local = '2024-02-29T12:00'":           "0",
		"tags IS NULL":                         "2",
	} {
		got := cat(t, v, CatOptions{Columns: []string{"id"}, Where: where, Limit: -1, Format: CSV})
		if got := strings.Join(strings.Fields(strings.TrimPrefix(got, "id\n")), " "); got != want {
			t.Errorf("%s: got %q, want %q", where, got, want)
		}
	}
}

func TestConditionsThatAreNone(t *testing.T) {
	for where, want := range map[string]string{
		"id":                             "comparison such as",
		"id =":                           "comparison such as",
		"= 7":                            "has to be a column",
		"'id' = 7":                       "has to be a column",
		"id = 7 AND":                     "there has to be AND and a comparison",
		"id = 7 OR id = 8":               "where it says \"OR\"",
		"id = 7 8":                       "where it says \"8\"",
		"none = 7":                       "no column \"none\"; there are id, ok",
		"id = NULL":                      "write id IS NULL",
		"id = seven":                     "id is long: \"seven\" is no number",
		"id = 0x10":                      "is no number",
		"id = 1/2":                       "is no number",
		"id = `small`":                   "has to be followed by a number",
		"id ! 7":                         "no comparison",
		"ok = 1":                         "neither true nor false",
		"day = '2024-02-30'":             "no date",
		"at = 'noon'":                    "no time",
		"local = '2024-02-29T12:00:00Z'": "no time",
		"raw = '***'":                    "not base64",
		"`the name` = plain":             "in quotes",
		"`the name` = 'plain":            "no ' ends",
		"tags = 'a'":                     "have no order",
	} {
		_, err := parseWhere(where, everything)
		if !errors.Is(err, ErrWhere) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", where, err, want)
		}
	}
}

func FuzzConditionsDoNotPanic(f *testing.F) {
	for _, seed := range []string{"id = 1 AND `the name` IS NOT NULL", "price<'", "wide >= 1e-400", "a''b = 'x''y'", "at = '0000-00-00'"} {
		f.Add(seed)
	}
	b := datafile.NewBatch(everything)
	for _, c := range b.Cols {
		c.AppendNull()
	}
	f.Fuzz(func(t *testing.T, text string) {
		w, err := parseWhere(text, everything)
		if err != nil {
			return
		}
		rows := w.choose(nil, b)
		onlyNull := !slices.ContainsFunc(w, func(t term) bool { return t.op != "null" })
		if (len(rows) == 1) != onlyNull {
			t.Errorf("%q finds %v in a row of NULL", text, rows)
		}
	})
}
