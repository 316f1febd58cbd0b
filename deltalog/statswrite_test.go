package deltalog

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// statsTable has columns of all types that have bounds.
func statsTable(t *testing.T, st store.Store, properties map[string]string) *Table {
	t.Helper()
	kind := func(k schema.Kind) schema.Type { return schema.Type{Kind: k} }
	s := &schema.Schema{Fields: []schema.Field{
		field("p", kind(schema.Date)), field("byte", kind(schema.Byte)), field("short", short), field("int", kind(schema.Integer)),
		field("long", long), field("float", kind(schema.Float)), field("double", double), field("dec", decimal(7, 2)),
		field("dec18", decimal(18, 6)), field(`te"x\t (1)`, text), field("day", kind(schema.Date)), field("at", kind(schema.Timestamp)),
		field("ntz", kind(schema.TimestampNTZ)), field("bool", kind(schema.Boolean)), field("bin", kind(schema.Binary)), field("list", arrayOf(long)),
	}}
	table, err := Create(t.Context(), st, CreateOptions{Schema: s, Properties: properties, PartitionColumns: []string{"p"}})
	if err != nil {
		t.Fatal(err)
	}
	b := datafile.NewBatch(s)
	for row := range 6 {
		for i, c := range b.Cols {
			switch n := int64((row*7+i)%11 - 5); {
			case row == 5 || i == 0 && row == 4:
				c.AppendNull()
			case i == 0:
				c.AppendInt(int64(row % 2))
			case c.F64 != nil || c.Type.Kind == schema.Float || c.Type.Kind == schema.Double:
				c.AppendFloat(float64(n) / 4)
			case c.Type.Kind == schema.String || c.Type.Kind == schema.Binary:
				c.AppendString(fmt.Sprint("<é\"", n))
			case c.Type.Kind == schema.Boolean:
				c.AppendBool(n > 0)
			case c.Type.Kind == schema.Array:
				c.EndArray()
			case c.Type.Kind == schema.Timestamp || c.Type.Kind == schema.TimestampNTZ:
				c.AppendInt(n * 1000)
			default:
				c.AppendInt(n)
			}
		}
	}
	if _, err := table.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{
		{Path: "none", Size: 1, Rows: -1, Partition: map[string]*string{"p": nil}},
		{Path: "odd", Size: 1, Rows: -1, Stats: "no JSON", Partition: map[string]*string{"p": nil}},
	}})
	return table
}

var statsMillis = regexp.MustCompile(`\.(\d{3})(000)?Z?"`)

// statsOf returns the statistics of all files, with one form for times.
func statsOf(t *testing.T, s *Snapshot) map[string]any {
	t.Helper()
	all := map[string]any{}
	for f := range s.Files() {
		var v any
		if json.Unmarshal([]byte(statsMillis.ReplaceAllString(f.Stats, `.$1"`)), &v) != nil {
			v = f.Stats
		}
		all[f.Path] = v
	}
	return all
}

func TestCheckpointsKeepStatisticsAsTheTableAsks(t *testing.T) {
	for _, policy := range []string{"classic", "v2"} {
		for _, c := range []struct{ text, columns string }{{"", ""}, {"true", "false"}, {"true", "true"}, {"false", "true"}, {"false", "false"}} {
			t.Run(fmt.Sprint(policy, " ", c), func(t *testing.T) {
				st := store.NewMemory()
				properties := map[string]string{PropertyCheckpointPolicy: policy, propertyStatsAsJSON: c.text, propertyStatsAsStruct: c.columns}
				maps.DeleteFunc(properties, func(_, v string) bool { return v == "" })
				table := statsTable(t, st, properties)
				want := statsOf(t, table.Snapshot())
				if err := table.Checkpoint(t.Context()); err != nil {
					t.Fatal(err)
				}
				for v := range table.Snapshot().Version() + 1 {
					if err := st.Delete(t.Context(), commitName(v)); err != nil {
						t.Fatal(err)
					}
				}
				s := mustOpen(t, st).Snapshot()
				got := statsOf(t, s)
				for path := range want {
					if !reflect.DeepEqual(got[path], want[path]) {
						t.Errorf("%s has\n%v, want\n%v", path, got[path], want[path])
					}
				}
				name := s.base.names()[0]
				if policy == "v2" {
					name = namesIn(t, st, sidecarDir)[0]
				}
				r, size, err := st.OpenRange(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = r.Close() }()
				f, err := parquet.OpenFile(r, size)
				if err != nil {
					t.Fatal(err)
				}
				add := f.Root().Column("add")
				if has := add.Column("stats_parsed") != nil; has != (c.columns == "true") || has != (add.Column("partitionValues_parsed") != nil) {
					t.Fatalf("statistics in columns: %v", has)
				}
			})
		}
	}
}

func TestBoundsThatColumnsCannotHoldStayText(t *testing.T) {
	kind := func(k schema.Kind) schema.Type { return schema.Type{Kind: k} }
	for _, c := range []struct {
		typ   schema.Type
		bound string
	}{
		{decimal(10, 2), `12.340000000000002`},
		{decimal(4, 2), `123456789012.5`},
		{kind(schema.Date), `"2020-01-01T00:00:00"`},
		{kind(schema.Timestamp), `"2020-01-01 00:00:00"`},
		{kind(schema.Timestamp), `"2020-01-01T00:00:00.000000001Z"`},
		{kind(schema.TimestampNTZ), `"2020-01-01T00:00:00+01:00"`},
		{kind(schema.Byte), `300`},
		{kind(schema.Integer), `7.0`},
		{kind(schema.Float), `1e300`},
		{kind(schema.Double), `"NaN"`},
		{kind(schema.String), `"a\ud800"`},
		{kind(schema.String), `7`},
	} {
		t.Run(c.typ.String()+" "+c.bound, func(t *testing.T) {
			st := store.NewMemory()
			table, err := Create(t.Context(), st, CreateOptions{
				Schema:     &schema.Schema{Fields: []schema.Field{field("x", c.typ)}},
				Properties: map[string]string{propertyStatsAsJSON: "false", propertyStatsAsStruct: "true"},
			})
			if err != nil {
				t.Fatal(err)
			}
			stats := fmt.Sprintf(`{"numRecords":1,"minValues":{"x":%s},"maxValues":{"x":%[1]s},"nullCount":{"x":0}}`, c.bound)
			mustCommit(t, table, &Commit{Add: []*File{{Path: "f", Size: 1, Rows: 1, Stats: stats}}})
			if err := table.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, st).Snapshot()
			if s.base.version != s.version {
				t.Fatal("the checkpoint is not read")
			}
			for f := range s.Files() {
				if f.Stats != stats {
					t.Errorf("statistics are now %s", f.Stats)
				}
			}
			if got := parsedBound(t, st, s); !got.IsNull() {
				t.Errorf("the column has the bound %v", got)
			}
		})
	}
}

// parsedBound returns the least value of the only column that the checkpoint of a
// version holds for its only file.
func parsedBound(t *testing.T, st store.Store, s *Snapshot) parquet.Value {
	t.Helper()
	r, size, err := st.OpenRange(t.Context(), s.base.names()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	f, err := parquet.OpenFile(r, size)
	if err != nil {
		t.Fatal(err)
	}
	column := f.Root().Column("add").Column("stats_parsed").Column("minValues").Column("x")
	var least parquet.Value
	for _, g := range f.RowGroups() {
		pages := g.ColumnChunks()[column.Index()].Pages()
		for {
			page, err := pages.ReadPage()
			if err != nil {
				break
			}
			values := make([]parquet.Value, page.NumValues())
			_, _ = page.Values().ReadValues(values)
			for _, v := range values {
				if !v.IsNull() {
					least = v.Clone()
				}
			}
		}
		if err := pages.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return least
}
