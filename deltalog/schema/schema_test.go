package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func genType(depth int) *rapid.Generator[Type] {
	return rapid.Custom(func(t *rapid.T) Type {
		last := int(Void)
		if depth == 0 {
			last = int(TimestampNTZ)
		}
		ty := Type{Kind: Kind(rapid.IntRange(int(Boolean), last).Draw(t, "kind"))}
		nested := func() *Type {
			n := genType(depth-1).Draw(t, "nested")
			return &n
		}
		switch ty.Kind {
		case Decimal:
			ty.Precision = rapid.IntRange(1, MaxPrecision).Draw(t, "precision")
			ty.Scale = rapid.IntRange(0, ty.Precision).Draw(t, "scale")
		case Array:
			ty.Elem, ty.ElemNull = nested(), rapid.Bool().Draw(t, "null")
		case Map:
			ty.Key, ty.Value, ty.ValueNull = nested(), nested(), rapid.Bool().Draw(t, "null")
		case Struct:
			ty.Fields = genFields(t, depth-1)
		}
		return ty
	})
}

func genFields(t *rapid.T, depth int) []Field {
	fields := make([]Field, rapid.IntRange(0, 4).Draw(t, "fields"))
	for i := range fields {
		fields[i] = Field{
			Name:     fmt.Sprintf("%s%d", rapid.StringMatching(`[a-z "\\é<]{0,6}`).Draw(t, "name"), i),
			Type:     genType(depth).Draw(t, "type"),
			Nullable: rapid.Bool().Draw(t, "nullable"),
		}
		if rapid.Bool().Draw(t, "metadata") {
			fields[i].Metadata = json.RawMessage(`{"comment":"a \u003c b","delta.columnMapping.id":5,"x":[1,{"y":null}]}`)
		}
	}
	return fields
}

func TestSchemasComeBackAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &Schema{Fields: genFields(t, 2)}
		b, err := s.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(b) {
			t.Fatalf("no JSON: %s", b)
		}
		got, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Equal(s) {
			t.Fatalf("%s came back as another", b)
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var compact, was any
		if json.Unmarshal(again, &compact) != nil || json.Unmarshal(b, &was) != nil || fmt.Sprint(compact) != fmt.Sprint(was) {
			t.Fatalf("%s, then %s", b, again)
		}
	})
}

func TestSchemaOfSpark(t *testing.T) {
	const text = `{"type":"struct","fields":[` +
		`{"name":"id","type":"long","nullable":true,"metadata":{}},` +
		`{"name":"price","type":"decimal(10,2)","nullable":false,"metadata":{"comment":"in euros"}},` +
		`{"name":"tags","type":{"type":"array","elementType":"string","containsNull":true},"nullable":true,"metadata":{}},` +
		`{"name":"at","type":"timestamp_ntz","nullable":true,"metadata":{}},` +
		`{"name":"m","type":{"type":"map","keyType":"string","valueType":"integer","valueContainsNull":true},"nullable":true,"metadata":{}},` +
		`{"name":"s","type":{"type":"struct","fields":[{"name":"x","type":"short","nullable":true,"metadata":{}}]},"nullable":true,"metadata":{}}]}`
	s, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if string(b) != text {
		t.Fatalf("wrote %s", b)
	}
	want := "id long, price decimal(10,2), tags array<string>, at timestamp_ntz, m map<string,integer>, s struct<x:short>"
	var got []string
	for _, f := range s.Fields {
		got = append(got, f.Name+" "+f.Type.String())
	}
	if strings.Join(got, ", ") != want {
		t.Fatalf("read %s", strings.Join(got, ", "))
	}
}

func TestSchemasThatAreRefused(t *testing.T) {
	field := func(typ string) string {
		return `{"type":"struct","fields":[{"name":"c","type":` + typ + `,"nullable":true,"metadata":{}}]}`
	}
	deep := strings.Repeat(`{"type":"array","containsNull":true,"elementType":`, 100) + `"long"` + strings.Repeat(`}`, 100)
	for _, c := range []struct {
		text string
		want error
		says string
	}{
		{`{`, ErrInvalid, ""},
		{`"long"`, ErrInvalid, "not struct"},
		{`{}`, ErrUnsupported, ""},
		{field(`"interval day"`), ErrUnsupported, `column "c" is of type "interval day"`},
		{field(`"variant"`), ErrUnsupported, "variant"},
		{field(`"decimal(39,2)"`), ErrInvalid, "decimal(39,2)"},
		{field(`"decimal(5,6)"`), ErrInvalid, "decimal(5,6)"},
		{field(`"decimal(5)"`), ErrUnsupported, "decimal(5)"},
		{field(`{"type":"array","containsNull":true}`), ErrInvalid, "no type"},
		{field(`{"type":"udt"}`), ErrUnsupported, "udt"},
		{field(deep), ErrInvalid, "deeper"},
		{`{"type":"struct","fields":[{"name":"","type":"long"}]}`, ErrInvalid, "no name"},
		{`{"type":"struct","fields":[{"name":"a","type":"long"},{"name":"A","type":"long"}]}`, ErrInvalid, "two columns"},
		{`{"type":"struct","fields":[{"name":"a","type":"long","metadata":[1]}]}`, ErrInvalid, "metadata"},
	} {
		_, err := Parse([]byte(c.text))
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%.60s: error is %v, want %v with %q", c.text, err, c.want, c.says)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"type":"struct","fields":[{"name":"a","type":"decimal(10,2)","nullable":true,"metadata":{"x":1}}]}`))
	f.Add([]byte(`{"type":"struct","fields":[{"name":"m","type":{"type":"map","keyType":"string","valueType":{"type":"array","elementType":"date","containsNull":false},"valueContainsNull":true}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			return
		}
		text, err := s.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if !again.Equal(s) {
			t.Fatalf("%s came back as another", text)
		}
	})
}

func ExampleParse() {
	s, err := Parse([]byte(`{"type":"struct","fields":[{"name":"price","type":"decimal(10,2)","nullable":true,"metadata":{}}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Fields[0].Name, s.Fields[0].Type)
	// Output: price decimal(10,2)
}
