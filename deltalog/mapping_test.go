package deltalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// nestedSchema has a partition column, and a struct in an array.
func nestedSchema() *schema.Schema {
	long, str := schema.Type{Kind: schema.Long}, schema.Type{Kind: schema.String}
	point := schema.Type{Kind: schema.Struct, Fields: []schema.Field{{Name: "x", Type: long, Nullable: true}, {Name: "y", Type: long, Nullable: true}}}
	return &schema.Schema{Fields: []schema.Field{
		{Name: "id", Type: long, Nullable: true},
		{Name: "part", Type: str, Nullable: true},
		{Name: "at", Type: point, Nullable: true},
		{Name: "points", Type: schema.Type{Kind: schema.Array, Elem: &point, ElemNull: true}, Nullable: true},
	}}
}

func nestedRows(first, n int64) *datafile.Batch {
	s := nestedSchema()
	fields := []schema.Field{s.Fields[0], s.Fields[2], s.Fields[3]}
	b := datafile.NewBatch(&schema.Schema{Fields: fields})
	for id := first; id < first+n; id++ {
		b.Cols[0].AppendInt(id)
		for _, at := range []*datafile.Column{b.Cols[1], b.Cols[2].Elem} {
			at.Fields[0].AppendInt(id * 10)
			at.Fields[1].AppendInt(id * 100)
			at.EndStruct()
		}
		b.Cols[2].EndArray()
	}
	return b
}

func TestColumnsAreFoundByWhatTheirMappingSays(t *testing.T) {
	for _, mode := range []string{"name", "id"} {
		t.Run(mode, func(t *testing.T) {
			table, err := Create(t.Context(), store.NewMemory(), CreateOptions{
				Schema: nestedSchema(), PartitionColumns: []string{"part"},
				Properties: map[string]string{PropertyColumnMapping: mode},
			})
			if err != nil {
				t.Fatal(err)
			}
			p := table.Snapshot().Protocol()
			if p.MinReader != 3 || !slices.Contains(p.ReaderFeatures, FeatureColumnMapping) {
				t.Fatalf("protocol is %+v", p)
			}
			ids, err := table.Snapshot().Metadata().Schema.IDs(schema.ByID)
			if err != nil || len(ids) != 8 {
				t.Fatalf("%d ids, %v", len(ids), err)
			}
			a := "a=/%"
			f := writeFile(t, table, FileOptions{Partition: map[string]*string{"part": &a}}, nestedRows(1, 3))
			if _, ok := f.Partition["part"]; ok || strings.Contains(f.Stats, `"id"`) || !strings.Contains(f.Stats, `"col-`) {
				t.Fatalf("the log has names of columns: %v, %s", slices.Collect(maps.Keys(f.Partition)), f.Stats)
			}
			mustCommit(t, table, &Commit{Add: []*File{f}})

			// Renamed, dropped and added columns: no file is touched.
			m := table.Snapshot().Metadata()
			fields := slices.Clone(m.Schema.Fields)
			fields[0].Name = "number"
			at := fields[2]
			at.Name, at.Type.Fields = "place", slices.Clone(at.Type.Fields)
			at.Type.Fields[1].Name = "height"
			at.Type.Fields = append(at.Type.Fields[1:], schema.Field{Name: "x", Type: schema.Type{Kind: schema.String}, Nullable: true})
			next, err := m.WithSchema(&schema.Schema{Fields: []schema.Field{at, fields[0], fields[1], {Name: "id", Type: schema.Type{Kind: schema.Date}, Nullable: true}}})
			if err != nil {
				t.Fatal(err)
			}
			if next.Property(propertyMaxColumnID, "") != "10" {
				t.Fatalf("%s is %s", propertyMaxColumnID, next.Property(propertyMaxColumnID, ""))
			}
			mustCommit(t, table, &Commit{Metadata: next})
			again, err := Open(t.Context(), table.Store())
			if err != nil {
				t.Fatal(err)
			}
			n := int64(0)
			for b, err := range again.Snapshot().Read(t.Context(), ReadOptions{}) {
				if err != nil {
					t.Fatal(err)
				}
				place := b.Column("place")
				for row := range b.Rows() {
					n++
					if b.Column("number").I64[row] != n || string(b.Column("part").At(row)) != a || b.Column("id").Valid[row] ||
						!place.Valid[row] || place.Fields[0].I64[row] != n*100 || place.Fields[1].Valid[row] {
						t.Fatalf("row %d is another", n)
					}
				}
			}
			if n != 3 {
				t.Fatalf("%d rows", n)
			}
		})
	}
}

func TestColumnMappingIsTakenUpByNames(t *testing.T) {
	table := newTestTable(t, store.NewMemory())
	mustCommit(t, table, &Commit{Add: []*File{writeFile(t, table, FileOptions{}, idNames(1, 2))}})
	if _, err := table.SetProperties(t.Context(), map[string]string{PropertyColumnMapping: "name"}); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, table, &Commit{Add: []*File{writeFile(t, table, FileOptions{}, idNames(3, 2))}})
	if ids := readIDs(t, table.Snapshot(), ReadOptions{}); !slices.Equal(ids, []int64{1, 2, 3, 4}) {
		t.Fatal(ids)
	}
}

func TestColumnMappingIsNotTakenUpUnderOtherNames(t *testing.T) {
	inner := schema.Type{Kind: schema.Struct, Fields: []schema.Field{{Name: "z", Type: schema.Type{Kind: schema.Long}, Nullable: true}}}
	for name, typ := range map[string]schema.Type{
		"struct": inner,
		"array":  {Kind: schema.Array, Elem: &inner},
		"map":    {Kind: schema.Map, Key: &schema.Type{Kind: schema.String}, Value: &inner},
	} {
		for physical, want := range map[string]error{"z": nil, "other": ErrInvalid} {
			s := &schema.Schema{Fields: []schema.Field{{Name: "x", Type: typ, Nullable: true}}}
			table, err := Create(t.Context(), store.NewMemory(), CreateOptions{Schema: s})
			if err != nil {
				t.Fatal(err)
			}
			m := table.Snapshot().Metadata().Clone()
			m.Configuration = map[string]string{PropertyColumnMapping: "name", propertyMaxColumnID: "2"}
			mapped, _, err := s.WithMapping(0, func(f *schema.Field) string {
				if f.Name == "z" {
					return physical
				}
				return f.Name
			})
			if err != nil {
				t.Fatal(err)
			}
			m.Schema = mapped
			_, _, err = table.Commit(t.Context(), &Commit{Metadata: m, Protocol: table.Snapshot().Protocol().For(m)})
			if !errors.Is(err, want) {
				t.Errorf("%s, %s: error is %v, want %v", name, physical, err, want)
			}
		}
	}
}

func TestRowsAreUpsertedUnderAMapping(t *testing.T) {
	properties := latestProperties()
	properties[PropertyColumnMapping] = "id"
	table, err := Create(t.Context(), store.NewMemory(), CreateOptions{Schema: idName(), Properties: properties})
	if err != nil {
		t.Fatal(err)
	}
	u, err := OpenUpserter(t.Context(), table, t.TempDir(), UpserterOptions{Keys: []string{"id"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	for _, first := range []int64{1, 3, 5} {
		rows := idNames(first, 4)
		var keys [][]byte
		for i := range rows.Rows() {
			keys = append(keys, datafile.AppendKey(nil, rows.Cols[:1], i))
		}
		up := u.Begin()
		if err := up.Put(t.Context(), rows, keys); err != nil {
			t.Fatal(err)
		}
		if _, err := up.Commit(t.Context(), CommitExtras{}); err != nil {
			t.Fatal(err)
		}
	}
	if ids := readIDs(t, table.Snapshot(), ReadOptions{}); !slices.Equal(ids, []int64{1, 2, 3, 4, 5, 6, 7, 8}) {
		t.Fatal(ids)
	}
	if ids := readIDs(t, table.Snapshot(), ReadOptions{Where: []Condition{{Column: "name", Op: OpGreater, Value: "row 6"}}}); !slices.Equal(ids, []int64{7, 8}) {
		t.Fatal(ids)
	}
}

func TestRowsChangeUnderEveryMapping(t *testing.T) {
	for _, mode := range []string{"name", "id"} {
		for name, properties := range map[string]map[string]string{
			"copies": {}, "deletion vectors": {PropertyDeletionVectors: "true"},
		} {
			t.Run(mode+" "+name, func(t *testing.T) {
				properties = maps.Clone(properties)
				properties[PropertyColumnMapping], properties[PropertyChangeDataFeed] = mode, "true"
				table, err := Create(t.Context(), store.NewMemory(), CreateOptions{
					Schema: nestedSchema(), PartitionColumns: []string{"part"}, Properties: properties,
				})
				if err != nil {
					t.Fatal(err)
				}
				rows := nestedRows(1, 6)
				part := datafile.NewColumn(schema.Type{Kind: schema.String})
				for i := range rows.Rows() {
					part.AppendString([]string{"x", "y/"}[i%2])
				}
				rows.Names, rows.Cols = append(rows.Names, "part"), append(rows.Cols, part)
				if _, err := table.Append(t.Context(), rows); err != nil {
					t.Fatal(err)
				}
				_, n, err := table.Delete(t.Context(), []string{"id"}, func(b *datafile.Batch, row int) bool { return b.Column("id").I64[row] > 4 })
				if err != nil || n != 2 {
					t.Fatal(n, err)
				}
				told := map[string]int{}
				for b, err := range table.Changes(t.Context(), 1, 2, ReadOptions{Columns: []string{"id", "part"}}) {
					if err != nil {
						t.Fatal(err)
					}
					for row := range b.Rows() {
						told[fmt.Sprintf("%s %d %s", b.Column(ColumnChangeType).At(row), b.Column("id").I64[row], b.Column("part").At(row))]++
					}
				}
				if len(told) != 8 || told["delete 5 x"] != 1 || told["delete 6 y/"] != 1 || told["insert 6 y/"] != 1 {
					t.Fatal(told)
				}
				next := &schema.Schema{Fields: slices.Clone(table.Snapshot().Metadata().Schema.Fields)}
				at := next.Fields[2]
				at.Type.Fields = append(slices.Clip(at.Type.Fields), schema.Field{Name: "z", Type: schema.Type{Kind: schema.Date}, Nullable: true})
				next.Fields[2] = at
				if _, err := table.SetSchema(t.Context(), next); err != nil {
					t.Fatal(err)
				}
				if got := table.Snapshot().Metadata().Property(propertyMaxColumnID, ""); got != "9" {
					t.Fatalf("%s is %s", propertyMaxColumnID, got)
				}
				if ids := readIDs(t, table.Snapshot(), ReadOptions{Where: []Condition{{Column: "at.z", Op: OpIsNull}}}); !slices.Equal(ids, []int64{1, 2, 3, 4}) {
					t.Fatal(ids)
				}
			})
		}
	}
}

func TestMappingsThatLoseColumnsAreRefused(t *testing.T) {
	table, err := Create(t.Context(), store.NewMemory(), CreateOptions{
		Schema: idName(), Properties: map[string]string{PropertyColumnMapping: "name"},
	})
	if err != nil {
		t.Fatal(err)
	}
	change := func(edit func(m *Metadata, f []schema.Field)) error {
		m := table.Snapshot().Metadata().Clone()
		m.Schema = &schema.Schema{Fields: slices.Clone(m.Schema.Fields)}
		edit(m, m.Schema.Fields)
		_, _, err := table.Commit(t.Context(), &Commit{Metadata: m})
		return err
	}
	for name, edit := range map[string]func(*Metadata, []schema.Field){
		"a column without id": func(_ *Metadata, f []schema.Field) { f[0].Metadata = nil },
		"an id twice":         func(_ *Metadata, f []schema.Field) { f[0].Metadata = f[1].Metadata },
		"another physical name": func(_ *Metadata, f []schema.Field) {
			f[0].Metadata = json.RawMessage(`{"delta.columnMapping.id":1,"delta.columnMapping.physicalName":"x"}`)
		},
		"an id above the greatest": func(_ *Metadata, f []schema.Field) {
			f[0].Metadata = json.RawMessage(`{"delta.columnMapping.id":9,"delta.columnMapping.physicalName":"x"}`)
		},
		"a greatest id that goes back": func(m *Metadata, f []schema.Field) {
			m.Schema.Fields = f[:1]
			m.Configuration[propertyMaxColumnID] = "1"
		},
		"another mode":             func(m *Metadata, _ []schema.Field) { m.Configuration[PropertyColumnMapping] = "id" },
		"no mode":                  func(m *Metadata, _ []schema.Field) { delete(m.Configuration, PropertyColumnMapping) },
		"a mode that nobody knows": func(m *Metadata, _ []schema.Field) { m.Configuration[PropertyColumnMapping] = "path" },
	} {
		if err := change(edit); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}
