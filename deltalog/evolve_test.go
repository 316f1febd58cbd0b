package deltalog

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

func structOf(fields ...schema.Field) schema.Type {
	return schema.Type{Kind: schema.Struct, Fields: fields}
}

func field(name string, t schema.Type) schema.Field {
	return schema.Field{Name: name, Type: t, Nullable: true}
}

func notNull(f schema.Field) schema.Field {
	f.Nullable = false
	return f
}

func arrayOf(t schema.Type) schema.Type {
	return schema.Type{Kind: schema.Array, Elem: &t, ElemNull: true}
}

var (
	short  = schema.Type{Kind: schema.Short}
	long   = schema.Type{Kind: schema.Long}
	double = schema.Type{Kind: schema.Double}
	text   = schema.Type{Kind: schema.String}
)

func decimal(p, s int) schema.Type { return schema.Type{Kind: schema.Decimal, Precision: p, Scale: s} }

func TestSchemaEvolves(t *testing.T) {
	noted := field("noted", text)
	noted.Metadata = json.RawMessage(`{"comment":"as it was","delta.x":1}`)
	old := []schema.Field{
		field("a", long), notNull(field("b", text)), noted,
		field("s", structOf(field("x", short), field("list", arrayOf(structOf(field("y", short)))))),
		field("m", schema.Type{Kind: schema.Map, Key: &short, Value: &short, ValueNull: true}),
	}
	with := func(change func(f []schema.Field) []schema.Field) *schema.Schema {
		b, err := (&schema.Schema{Fields: old}).MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		s, err := schema.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		return &schema.Schema{Fields: change(s.Fields)}
	}
	for _, c := range []struct {
		name  string
		next  *schema.Schema
		want  string // in the schema
		wrong string // in the error
	}{
		{"column added", with(func(f []schema.Field) []schema.Field { return append(f, field("z", text)) }), `{"name":"z","type":"string"`, ""},
		{"column added first", with(func(f []schema.Field) []schema.Field { return append([]schema.Field{field("z", text)}, f...) }), `"fields":[{"name":"z"`, ""},
		{"column moved", with(func(f []schema.Field) []schema.Field { f[0], f[1] = f[1], f[0]; return f }), `"fields":[{"name":"b"`, ""},
		{"nullable", with(func(f []schema.Field) []schema.Field { f[1].Nullable = true; return f }), `{"name":"b","type":"string","nullable":true`, ""},
		{"nested field added", with(func(f []schema.Field) []schema.Field {
			e := f[3].Type.Fields[1].Type.Elem
			e.Fields = append(e.Fields, field("new", text))
			return f
		}), `{"name":"new"`, ""},
		{"metadata kept", with(func(f []schema.Field) []schema.Field { f[2].Metadata = nil; return f }), `{"comment":"as it was","delta.x":1}`, ""},
		{"metadata added", with(func(f []schema.Field) []schema.Field {
			f[2].Metadata = json.RawMessage(`{"comment":"else","delta.x":2}`)
			return f
		}), `{"comment":"else","delta.x":1}`, ""},
		{"widened", with(func(f []schema.Field) []schema.Field {
			f[3].Type.Fields[0].Type = long
			f[3].Type.Fields[1].Type.Elem.Fields[0].Type = double
			f[4].Type.Key, f[4].Type.Value = &long, &long
			return f
		}), `"metadata":{"delta.typeChanges":[{"fromType":"short","toType":"long","fieldPath":"key"},{"fromType":"short","toType":"long","fieldPath":"value"}]}`, ""},
		{"column dropped", with(func(f []schema.Field) []schema.Field { return f[1:] }), "", "column a is missing"},
		{"nested field dropped", with(func(f []schema.Field) []schema.Field {
			f[3].Type.Fields[1].Type.Elem.Fields[0].Name = "other"
			return f
		}), "", "s.list.element.y is missing"},
		{"not nullable", with(func(f []schema.Field) []schema.Field { f[0].Nullable = false; return f }), "", "column a cannot become NOT NULL"},
		{"added and not nullable", with(func(f []schema.Field) []schema.Field { return append(f, notNull(field("z", text))) }), "", "column z is added and not nullable"},
		{"narrowed", with(func(f []schema.Field) []schema.Field { f[0].Type = short; return f }), "", "column a of type long cannot become short"},
		{"case", with(func(f []schema.Field) []schema.Field { return append(f, field("A", long)) }), "", "A"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := store.NewMemory()
			table, err := Create(t.Context(), st, CreateOptions{Schema: &schema.Schema{Fields: old}, Properties: map[string]string{PropertyTypeWidening: "true"}})
			if err != nil {
				t.Fatal(err)
			}
			mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{fakeFile("f", 1)}})
			_, err = table.SetSchema(t.Context(), c.next)
			if c.wrong != "" {
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.wrong) {
					t.Fatalf("got %v, want %q", err, c.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := mustOpen(t, st).Snapshot().Metadata().Schema.MarshalJSON()
			if err != nil || !strings.Contains(string(b), c.want) {
				t.Fatalf("schema %s, want %s; %v", b, c.want, err)
			}
		})
	}
}

func TestColumnMappingIsSwitchedOnAndColumnsAreAdded(t *testing.T) {
	st := store.NewMemory()
	table := tableWith(t, st, nil)
	if _, err := table.Append(t.Context(), idNames(1, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := table.SetProperties(t.Context(), map[string]string{PropertyColumnMapping: "name"}); err != nil {
		t.Fatal(err)
	}
	grown := idName()
	grown.Fields = append(grown.Fields, field("more", structOf(field("x", text))))
	s, err := table.SetSchema(t.Context(), grown)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := s.Metadata().Schema.IDs(schema.ByPhysicalName)
	if err != nil || len(ids) != 4 || ids[1] != "id" {
		t.Fatal(ids, err)
	}
	if s, err = table.Append(t.Context(), idNames(3, 1)); err != nil {
		t.Fatal(err)
	}
	if got := readIDs(t, s, ReadOptions{}); len(got) != 3 {
		t.Fatal(got)
	}
}

func TestTypesThatWiden(t *testing.T) {
	kind := func(k schema.Kind) schema.Type { return schema.Type{Kind: k} }
	all := []schema.Type{
		kind(schema.Boolean), kind(schema.Byte), short, kind(schema.Integer), long, kind(schema.Float), double, text,
		kind(schema.Binary), kind(schema.Date), kind(schema.Timestamp), kind(schema.TimestampNTZ),
		decimal(10, 0), decimal(12, 2), decimal(11, 2), decimal(20, 0), decimal(22, 2), decimal(21, 2), decimal(5, 5),
	}
	want := map[string]string{
		"byte":          "short integer long double decimal(10,0) decimal(12,2) decimal(20,0) decimal(22,2) decimal(21,2)",
		"short":         "integer long double decimal(10,0) decimal(12,2) decimal(20,0) decimal(22,2) decimal(21,2)",
		"integer":       "long double decimal(10,0) decimal(12,2) decimal(20,0) decimal(22,2) decimal(21,2)",
		"long":          "decimal(20,0) decimal(22,2)",
		"float":         "double",
		"date":          "timestamp_ntz",
		"decimal(10,0)": "decimal(12,2) decimal(20,0) decimal(22,2) decimal(21,2)",
		"decimal(11,2)": "decimal(12,2) decimal(22,2) decimal(21,2)",
		"decimal(12,2)": "decimal(22,2) decimal(21,2)",
		"decimal(20,0)": "decimal(22,2)",
		"decimal(21,2)": "decimal(22,2)",
	}
	for _, from := range all {
		var got []string
		for _, to := range all {
			if !from.Equal(to) && widens(from, to) {
				got = append(got, to.String())
			}
		}
		if strings.Join(got, " ") != want[from.String()] {
			t.Errorf("%s becomes %q, want %q", from, got, want[from.String()])
		}
	}
}

func TestTypesChangeWithTheirPropertyAlone(t *testing.T) {
	st := store.NewMemory()
	table, err := Create(t.Context(), st, CreateOptions{Schema: &schema.Schema{Fields: []schema.Field{field("n", short)}}})
	if err != nil {
		t.Fatal(err)
	}
	f := fakeFile("f", 1)
	mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}})
	wide := &schema.Schema{Fields: []schema.Field{field("n", long)}}
	if _, err := table.SetSchema(t.Context(), wide); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), PropertyTypeWidening) {
		t.Fatalf("got %v", err)
	}
	m := table.Snapshot().Metadata().Clone()
	m.Schema = wide
	if _, _, err := table.Commit(t.Context(), &Commit{Metadata: m}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "column n") {
		t.Fatalf("got %v", err)
	}
	if _, err := table.SetProperties(t.Context(), map[string]string{PropertyTypeWidening: "true"}); err != nil {
		t.Fatal(err)
	}
	s, err := table.SetSchema(t.Context(), wide)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Protocol().has(FeatureTypeWidening) {
		t.Fatal("the property did not bring its feature")
	}
	// A table whose rows all go may get any types.
	m = s.Metadata().Clone()
	m.Schema = &schema.Schema{Fields: []schema.Field{field("n", text)}}
	mustCommit(t, table, &Commit{Operation: "REPLACE", Metadata: m, Remove: []*File{f}})
}

func TestOthersChangesOfTheSchemaAreAConflict(t *testing.T) {
	st := store.NewMemory()
	table := tableWith(t, st, nil)
	other := mustOpen(t, st)
	if _, err := other.Append(t.Context(), idNames(1, 1)); err != nil {
		t.Fatal(err)
	}
	grown := idName()
	grown.Fields = append(grown.Fields, field("more", text))
	if _, err := table.SetSchema(t.Context(), grown); err != nil { // appends are none
		t.Fatal(err)
	}
	if _, err := other.SetProperties(t.Context(), map[string]string{"a": "b"}); !errors.Is(err, ErrConflict) {
		t.Fatalf("got %v", err)
	}
}
