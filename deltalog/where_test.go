package deltalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// comparedSchema has a column of every type that is compared, and one in a
// struct.
func comparedSchema() *schema.Schema {
	s := &schema.Schema{}
	for k := schema.Boolean; k <= schema.TimestampNTZ; k++ {
		t := schema.Type{Kind: k}
		if k == schema.Decimal {
			t.Precision, t.Scale = 9, 2
		}
		s.Fields = append(s.Fields, schema.Field{Name: k.String(), Type: t, Nullable: true})
	}
	wide := schema.Field{Name: "wide", Type: schema.Type{Kind: schema.Decimal, Precision: 30, Scale: 3}, Nullable: true}
	s.Fields = append(s.Fields, wide, schema.Field{
		Name: "struct", Type: schema.Type{Kind: schema.Struct, Fields: []schema.Field{wide, s.Fields[schema.String-1]}}, Nullable: true,
	})
	return s
}

// appendNear appends a value not far from base.
func appendNear(t *rapid.T, c *datafile.Column, base int64) {
	n := base*1000 + rapid.Int64Range(-1500, 1500).Draw(t, "near")
	if rapid.IntRange(0, 9).Draw(t, "null") == 0 {
		c.AppendNull()
		return
	}
	switch k := c.Type.Kind; k {
	case schema.Boolean:
		c.AppendBool(n%2 == 0)
	case schema.Byte:
		c.AppendInt(int64(int8(n)))
	case schema.Short:
		c.AppendInt(int64(int16(n)))
	case schema.Float, schema.Double:
		v := float64(n) / 1024
		if k == schema.Double {
			v = float64(n) / 1000
		}
		c.AppendFloat(rapid.SampledFrom([]float64{v, v, v, v, v, 0, math.Copysign(0, -1), math.NaN(), math.Inf(1)}).Draw(t, "float"))
	case schema.String, schema.Binary:
		// Long ones, whose bounds are cut in the middle of what differs.
		c.AppendString(strings.Repeat("é", 29) + strconv.Itoa(int(100_000+n)) + rapid.SampledFrom([]string{"", "\x7f", "\U0001F600", "z"}).Draw(t, "end"))
	case schema.Struct:
		for _, f := range c.Fields {
			appendNear(t, f, base)
		}
		c.EndStruct()
	case schema.Decimal:
		if c.Type.Precision > 18 {
			product := new(big.Int).Mul(big.NewInt(n), big.NewInt(1_000_000_000_000_007))
			appendUnscaled(c, product)
			return
		}
		c.AppendInt(n)
	default:
		c.AppendInt(n)
	}
}

// literal writes a value as conditions have it.
func literal(c *datafile.Column, row int) string {
	switch c.Type.Kind {
	case schema.Boolean:
		return strconv.FormatBool(c.I64[row] == 1)
	case schema.Float, schema.Double:
		return strconv.FormatFloat(c.F64[row], 'g', -1, 64)
	case schema.String, schema.Binary:
		return string(c.At(row))
	case schema.Date:
		return time.Unix(c.I64[row]*86400, 0).UTC().Format(time.DateOnly)
	case schema.Timestamp:
		return time.UnixMicro(c.I64[row]).UTC().Format("2006-01-02T15:04:05.000000Z")
	case schema.TimestampNTZ:
		return time.UnixMicro(c.I64[row]).UTC().Format("2006-01-02 15:04:05.000000")
	case schema.Decimal:
		return new(big.Rat).SetFrac(unscaledAt(c, row), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(c.Type.Scale)), nil)).FloatString(c.Type.Scale)
	}
	return strconv.FormatInt(c.I64[row], 10)
}

func unscaledAt(c *datafile.Column, row int) *big.Int {
	hi, lo := c.Decimal128(row)
	n := new(big.Int).Lsh(big.NewInt(hi), 64)
	return n.Add(n, new(big.Int).SetUint64(lo))
}

// meets judges a row apart from the code under test.
func meets(c *datafile.Column, row int, op Op, v *datafile.Column) bool {
	if op == OpIsNull || op == OpIsNotNull {
		return c.Valid[row] == (op == OpIsNotNull)
	}
	if !c.Valid[row] {
		return false
	}
	var less, equal bool
	switch c.Type.Kind {
	case schema.Float, schema.Double:
		a, b := c.F64[row], v.F64[0]
		equal = a == b || math.IsNaN(a) && math.IsNaN(b)
		less = a < b || !math.IsNaN(a) && math.IsNaN(b)
	case schema.String, schema.Binary:
		a, b := string(c.At(row)), string(v.At(0))
		equal, less = a == b, a < b
	case schema.Decimal:
		sign := unscaledAt(c, row).Cmp(unscaledAt(v, 0))
		equal, less = sign == 0, sign < 0
	default:
		equal, less = c.I64[row] == v.I64[0], c.I64[row] < v.I64[0]
	}
	return map[Op]bool{
		OpEqual: equal, OpNotEqual: !equal, OpLess: less, OpLessOrEqual: less || equal,
		OpGreater: !less && !equal, OpGreaterOrEqual: !less,
	}[op]
}

// asOthersWrite changes statistics to what other writers would have written.
func asOthersWrite(t *rapid.T, stats string) string {
	var parts map[string]any
	d := json.NewDecoder(strings.NewReader(stats))
	d.UseNumber()
	if err := d.Decode(&parts); err != nil {
		t.Fatal(err)
	}
	switch rapid.IntRange(0, 5).Draw(t, "writer") {
	case 0:
		return ""
	case 1:
		delete(parts, rapid.SampledFrom([]string{"minValues", "maxValues", "nullCount"}).Draw(t, "part"))
	case 2: // strings cut without anything greater at the end
		bounds := parts["maxValues"].(map[string]any)
		if s, ok := bounds["string"].(string); ok {
			bounds["string"] = string([]rune(s)[:min(32, len([]rune(s)))])
		}
	case 3: // decimals by way of binary fractions
		for _, side := range []string{"minValues", "maxValues"} {
			bounds := parts[side].(map[string]any)
			if n, ok := bounds["wide"].(json.Number); ok {
				f, err := n.Float64()
				if err != nil {
					t.Fatal(err)
				}
				bounds["wide"] = json.Number(strconv.FormatFloat(f, 'g', -1, 64))
			}
		}
	case 4: // milliseconds cut, and another zone
		bounds := parts["maxValues"].(map[string]any)
		if s, ok := bounds["timestamp"].(string); ok {
			at, err := time.Parse(time.RFC3339Nano, s)
			if err != nil {
				t.Fatal(err)
			}
			bounds["timestamp"] = at.Add(-time.Millisecond).In(time.FixedZone("", -8*3600)).Format("2006-01-02T15:04:05.000Z07:00")
		}
	}
	b, err := json.Marshal(parts)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestConditionsFindExactlyTheRowsThatMeetThem(t *testing.T) {
	skipped := 0
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		st := store.NewMemory()
		s := comparedSchema()
		table, err := Create(ctx, st, CreateOptions{Schema: s, PartitionColumns: []string{"short"}, Properties: latestProperties()})
		if err != nil {
			t.Fatal(err)
		}
		var files []*File
		all := datafile.NewBatch(s)
		for range rapid.IntRange(1, 4).Draw(t, "files") {
			base := rapid.Int64Range(-4, 4).Draw(t, "base")
			b := datafile.NewBatch(s)
			part := strconv.FormatInt(base, 10)
			for range rapid.IntRange(1, 6).Draw(t, "rows") {
				for i, c := range b.Cols {
					if s.Fields[i].Name == "short" {
						c.AppendInt(base)
					} else {
						appendNear(t, c, base)
					}
				}
			}
			for row := range b.Rows() {
				all.AppendRow(b, row)
			}
			w, err := table.NewFile(ctx, FileOptions{Partition: map[string]*string{"short": &part}})
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
			f.Stats = asOthersWrite(t, f.Stats)
			files = append(files, f)
		}
		snap, won, err := table.Commit(ctx, &Commit{Add: files})
		if err != nil || !won {
			t.Fatal(won, err)
		}
		for range 12 {
			var where []Condition
			met := make([]bool, all.Rows())
			for row := range met {
				met[row] = true
			}
			for range rapid.IntRange(1, 2).Draw(t, "conditions") {
				i := rapid.IntRange(0, len(s.Fields)-1).Draw(t, "column")
				c, name := all.Cols[i], s.Fields[i].Name
				if c.Fields != nil {
					c, name = c.Fields[0], "struct.wide"
				}
				w := Condition{Column: name, Op: Op(rapid.IntRange(0, int(OpIsNotNull)).Draw(t, "op"))}
				v := datafile.NewColumn(c.Type)
				if w.Op != OpIsNull && w.Op != OpIsNotNull {
					for v.Len() == 0 || !v.Valid[v.Len()-1] {
						v.Reset()
						if row := rapid.IntRange(-1, all.Rows()-1).Draw(t, "of"); row >= 0 {
							v.AppendFrom(c, row)
						} else {
							appendNear(t, v, rapid.Int64Range(-5, 5).Draw(t, "about"))
						}
					}
					w.Value = literal(v, 0)
				}
				where = append(where, w)
				for row := range met {
					met[row] = met[row] && meets(c, row, w.Op, v)
				}
			}
			want := map[string]int{}
			for row := range met {
				if met[row] {
					want[string(datafile.AppendCanonical(nil, all.Cols[:5], row))]++
				}
			}
			got := map[string]int{}
			for b, err := range snap.Read(ctx, ReadOptions{Where: where, Columns: s.Names()[:5]}) {
				if err != nil {
					t.Fatal(err)
				}
				if len(b.Cols) != 5 {
					t.Fatalf("%d columns", len(b.Cols))
				}
				countRows(got, b)
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%v: got %d distinct rows, want %d", where, len(got), len(want))
			}
			r, err := snap.newReader(ReadOptions{Where: where})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				constants, err := partitionColumns(r.read, snap.metadata, r.mapping, f)
				if err != nil {
					t.Fatal(err)
				}
				if !mayMatch(f, r.where, constants) {
					skipped++
				}
			}
		}
	})
	if skipped < 10 {
		t.Fatalf("%d files were passed over: the test tests nothing", skipped)
	}
}

func TestPartitionsAreToldApartWithoutReadableStatistics(t *testing.T) {
	table, err := Create(t.Context(), store.NewMemory(), CreateOptions{Schema: nestedSchema(), PartitionColumns: []string{"part"}})
	if err != nil {
		t.Fatal(err)
	}
	c := &Commit{}
	for i, part := range []string{"x", "y"} {
		f := writeFile(t, table, FileOptions{Partition: map[string]*string{"part": &part}}, nestedRows(int64(i), 1))
		f.Stats = `{"numRecords":1.0,"maxValues":{"id":-7}}`
		c.Add = append(c.Add, f)
	}
	s := mustCommit(t, table, c)
	got := readIDs(t, s, ReadOptions{Where: []Condition{
		{Column: "id", Op: OpGreaterOrEqual, Value: "0"}, {Column: "part", Value: "y"},
	}})
	if !slices.Equal(got, []int64{1}) {
		t.Fatalf("read %v", got)
	}
}

func TestConditionsThatMakeNoSenseAreRefused(t *testing.T) {
	table, err := Create(t.Context(), store.NewMemory(), CreateOptions{Schema: nestedSchema()})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []Condition{
		{Column: "nobody", Value: "1"},
		{Column: "at.z", Value: "1"},
		{Column: "id", Value: "one"},
		{Column: "id", Value: ""},
		{Column: "at", Value: "1"},
		{Column: "id", Op: 99, Value: "1"},
	} {
		for _, err := range table.Snapshot().Read(t.Context(), ReadOptions{Where: []Condition{w}}) {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: error is %v", w, err)
			}
		}
	}
}

func TestBoundsHoldWhatTheyWereRoundedFrom(t *testing.T) {
	for _, c := range []struct {
		typ         schema.Type
		raw         string
		least, most string // empty where there is no bound
	}{
		{schema.Type{Kind: schema.Long}, `5`, "5", "5"},
		{schema.Type{Kind: schema.Long}, `"5"`, "", ""},
		{schema.Type{Kind: schema.Date}, `"2020-02-30"`, "", ""},
		{schema.Type{Kind: schema.Date}, `"+10000-01-01"`, "10000-01-01", "10000-01-01"},
		{schema.Type{Kind: schema.Timestamp}, `"2020-01-01T00:00:00.000"`, "", ""},
		{schema.Type{Kind: schema.Timestamp}, `"2020-01-01T00:00:00.000-08:00"`, "2020-01-01T07:59:59.999000Z", "2020-01-01T08:00:00.001000Z"},
		{schema.Type{Kind: schema.TimestampNTZ}, `"2020-01-01"`, "2019-12-31 23:59:59.999000", "2020-01-01 00:00:00.001000"},
		{schema.Type{Kind: schema.Decimal, Precision: 5, Scale: 2}, `1.2E1`, "12.00", "12.00"},
		{schema.Type{Kind: schema.Decimal, Precision: 5, Scale: 2}, `1e999999999`, "", ""},
		{schema.Type{Kind: schema.Double}, `"NaN"`, "", ""},
		{schema.Type{Kind: schema.String}, `"a\ud800"`, "", ""},
		{schema.Type{Kind: schema.Binary}, `"a"`, "", ""},
	} {
		for side, want := range map[int]string{-1: c.least, 1: c.most} {
			got := ""
			if b := bound(json.RawMessage(c.raw), c.typ, side); b != nil {
				got = literal(b, 0)
			}
			if got != want {
				t.Errorf("%s of %s, side %d: %q, want %q", c.raw, c.typ, side, got, want)
			}
		}
	}
	// 0.1 as a float is a little more than 0.1 as a double.
	b := bound(json.RawMessage(`0.1`), schema.Type{Kind: schema.Double}, 1)
	if b.F64[0] < float64(float32(0.1)) {
		t.Error("a bound from before the column was widened excludes its own value")
	}
}

func TestPartitionValuesAreReadInAllForms(t *testing.T) {
	for _, c := range []struct {
		typ  schema.Type
		text string
		want string // empty where it is refused
	}{
		{schema.Type{Kind: schema.Boolean}, "TRUE", "true"},
		{schema.Type{Kind: schema.Boolean}, "1", ""},
		{schema.Type{Kind: schema.Byte}, "-128", "-128"},
		{schema.Type{Kind: schema.Byte}, "128", ""},
		{schema.Type{Kind: schema.Double}, "-Infinity", "-Inf"},
		{schema.Type{Kind: schema.Decimal, Precision: 10, Scale: 2}, "-0.50", "-0.50"},
		{schema.Type{Kind: schema.Decimal, Precision: 10, Scale: 2}, "5E-2", "0.05"},
		{schema.Type{Kind: schema.Decimal, Precision: 10, Scale: 2}, "0.005", ""},
		{schema.Type{Kind: schema.Decimal, Precision: 38, Scale: 10}, "1234567890123456789012345678.0123456789", "1234567890123456789012345678.0123456789"},
		{schema.Type{Kind: schema.Date}, "1582-10-15", "1582-10-15"},
		{schema.Type{Kind: schema.Date}, "10000-01-01", ""},
		{schema.Type{Kind: schema.Date}, "2021-02-29", ""},
		{schema.Type{Kind: schema.Date}, "2021-02-28T00:00:00", ""},
		{schema.Type{Kind: schema.Timestamp}, "2021-09-08 11:11:11", "2021-09-08T11:11:11.000000Z"},
		{schema.Type{Kind: schema.Timestamp}, "2021-09-08 11:11:11.123456", "2021-09-08T11:11:11.123456Z"},
		{schema.Type{Kind: schema.Timestamp}, "2021-09-08T11:11:11.123456Z", "2021-09-08T11:11:11.123456Z"},
		{schema.Type{Kind: schema.Timestamp}, "2021-09-08T11:11:11.5+02:00", "2021-09-08T09:11:11.500000Z"},
		{schema.Type{Kind: schema.Timestamp}, "1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"},
		{schema.Type{Kind: schema.Timestamp}, "2021-09-08T11:11:11.1234567Z", ""},
		{schema.Type{Kind: schema.TimestampNTZ}, "2021-09-08 11:11:11", "2021-09-08 11:11:11.000000"},
		{schema.Type{Kind: schema.TimestampNTZ}, "2021-09-08T11:11:11+02:00", ""},
		{schema.Type{Kind: schema.Timestamp}, "yesterday", ""},
		{schema.Type{Kind: schema.String}, "\xff", ""},
		{schema.Type{Kind: schema.Binary}, "\u0001\u0002", "\x01\x02"},
	} {
		col := datafile.NewColumn(c.typ)
		got := ""
		if err := appendPartition(col, c.text); err == nil {
			got = literal(col, 0)
		}
		if got != c.want {
			t.Errorf("%q as %s: %q, want %q", c.text, c.typ, got, c.want)
		}
	}
}

func TestPartitionValuesBeyondFourDigitsOfYearsComeBack(t *testing.T) {
	const day = 86_400_000_000
	for kind, values := range map[schema.Kind][]int64{
		schema.Date:         {math.MinInt32, -719529, -719528, 2932896, 2932897, math.MaxInt32},
		schema.Timestamp:    {math.MinInt64 + 3*day, -719529 * day, 2932897*day - 1, 2932897 * day, math.MaxInt64 - 3*day},
		schema.TimestampNTZ: {math.MinInt64 + 3*day, -719529 * day, 2932897*day - 1, 2932897 * day, math.MaxInt64 - 3*day},
	} {
		c := datafile.NewColumn(schema.Type{Kind: kind})
		for row, v := range values {
			c.AppendInt(v)
			text, err := partitionText(c, row)
			if err != nil {
				t.Fatal(err)
			}
			back := datafile.NewColumn(c.Type)
			if err := appendPartition(back, *text); err != nil || back.I64[0] != v {
				t.Errorf("%s %d is written as %s and read as %v, %v", kind, v, *text, back.I64, err)
			}
		}
	}
}

func TestHostilePartitionValuesComeBack(t *testing.T) {
	table, err := Create(t.Context(), tempStore(t), CreateOptions{
		Schema: nestedSchema(), PartitionColumns: []string{"part"},
	})
	if err != nil {
		t.Fatal(err)
	}
	values := []string{
		"a/b", "..", "../../../etc/passwd", "a=b", "%41", "%", "a%2Fb", " ", "a b", "ü€😀", "\"'\\{}[]^#?*:<>|", "\x01\x1f\x7f\t\n",
		"__HIVE_DEFAULT_PARTITION__x", "null", strings.Repeat("ß", 400), "a+b&c;d,e@f!$()~", ".",
	}
	c := &Commit{}
	for i := range values {
		c.Add = append(c.Add, writeFile(t, table, FileOptions{Partition: map[string]*string{"part": &values[i]}}, nestedRows(int64(i), 1)))
	}
	empty := ""
	for _, v := range []*string{nil, &empty} {
		c.Add = append(c.Add, writeFile(t, table, FileOptions{Partition: map[string]*string{"part": v}}, nestedRows(-1, 1)))
	}
	mustCommit(t, table, c)
	again, err := Open(t.Context(), table.Store())
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for b, err := range again.Snapshot().Read(t.Context(), ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		id, part := b.Column("id"), b.Column("part")
		for row := range b.Rows() {
			seen++
			if i := id.I64[row]; i < 0 && part.Valid[row] || i >= 0 && string(part.At(row)) != values[i] {
				t.Errorf("row %d: %q", i, part.At(row))
			}
		}
	}
	if seen != len(values)+2 {
		t.Fatalf("%d rows", seen)
	}
	for i, v := range values {
		got := readIDs(t, again.Snapshot(), ReadOptions{Where: []Condition{{Column: "part", Value: v}}})
		if !slices.Equal(got, []int64{int64(i)}) {
			t.Errorf("%q: %v", v, got)
		}
	}
	bad := "\xff"
	for _, p := range []map[string]*string{nil, {"part": &bad}, {"part": nil, "id": nil}} {
		if _, err := table.NewFile(t.Context(), FileOptions{Partition: p}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: error is %v", p, err)
		}
	}
}

// FuzzBounds reads whatever text as bounds and as partition values.
func FuzzBounds(f *testing.F) {
	for _, text := range []string{`5`, `-1.25e3`, `"2020-01-01T00:00:00.000-08:00"`, `"+10000-01-01"`, `"a\ud800"`, `1e99999`, `"0001-01-01 00:00:00"`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, field := range comparedSchema().Fields {
			typ := field.Type
			if !typ.Kind.Primitive() {
				continue
			}
			for _, side := range []int{-1, 1} {
				if b := bound(json.RawMessage(text), typ, side); b != nil && b.Len() != 1 {
					t.Fatalf("%d bounds of %s", b.Len(), typ)
				}
			}
			c := datafile.NewColumn(typ)
			if err := appendPartition(c, text); err != nil || typ.Kind == schema.String || typ.Kind == schema.Binary {
				continue
			}
			// What was read is written as something that reads the same.
			again := datafile.NewColumn(typ)
			if err := appendPartition(again, literal(c, 0)); err == nil && !again.Equal(0, c, 0) {
				t.Fatalf("%q reads as %s, which reads as %s", text, literal(c, 0), literal(again, 0))
			}
		}
	})
}

func tempStore(t *testing.T) store.Store {
	st, err := store.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return st
}
