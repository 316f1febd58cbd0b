package schema

import (
	"encoding/json"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// withoutMetadata takes the metadata of all fields away.
func withoutMetadata(fields []Field) {
	for i := range fields {
		fields[i].Metadata = nil
		if len(fields[i].Type.Fields) == 0 && fields[i].Type.Elem == nil {
			fields[i].Metadata = json.RawMessage(`{ "comment" : "kept" }`)
		}
		for _, s := range structsOf(&fields[i].Type) {
			withoutMetadata(s.Fields)
		}
	}
}

func TestEveryFieldGetsAnIDOfItsOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &Schema{Fields: genFields(t, 3)}
		withoutMetadata(s.Fields)
		before, err := s.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		last := rapid.Int64Range(0, 1000).Draw(t, "last")
		names := 0
		name := func(*Field) string { names++; return string(rune('a'+names%26)) + string(rune('0'+names/26)) }
		mapped, greatest, err := s.WithMapping(last, name)
		if err != nil {
			t.Fatal(err)
		}
		ids, err := mapped.IDs(ByID)
		if err != nil {
			t.Fatal(err)
		}
		if len(ids) != names || greatest != last+int64(names) {
			t.Fatalf("%d ids up to %d for %d fields after %d", len(ids), greatest, names, last)
		}
		for id := range ids {
			if int64(id) <= last {
				t.Fatalf("id %d is not new", id)
			}
		}
		if after, err := s.MarshalJSON(); err != nil || string(after) != string(before) {
			t.Fatal("the schema itself has changed")
		}
		b, err := mapped.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := Parse(b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		again, same, err := parsed.WithMapping(0, name)
		if err != nil || names > 0 && same != greatest || !again.Equal(parsed) {
			t.Fatalf("a second time: %d, %v", same, err)
		}
	})
}

func TestModesOfMapping(t *testing.T) {
	for mode, want := range map[string]Mapping{"": ByName, "none": ByName, "name": ByPhysicalName, "id": ByID} {
		if got, err := ParseMapping(mode); err != nil || got != want {
			t.Errorf("%q is %d, %v", mode, got, err)
		}
	}
	if _, err := ParseMapping("ID"); !errors.Is(err, ErrInvalid) {
		t.Errorf("error is %v", err)
	}
	for _, metadata := range []string{
		`{}`, `{"delta.columnMapping.id":1}`, `{"delta.columnMapping.physicalName":7,"delta.columnMapping.id":1}`,
		`{"delta.columnMapping.physicalName":"a","delta.columnMapping.id":"1"}`,
		`{"delta.columnMapping.physicalName":"a","delta.columnMapping.id":-1}`,
		`{"delta.columnMapping.physicalName":"a","delta.columnMapping.id":4294967296}`,
		`{"delta.columnMapping.physicalName":"a"}`,
	} {
		s := &Schema{Fields: []Field{{Name: "c", Type: Type{Kind: Long}, Metadata: json.RawMessage(metadata)}}}
		if _, err := s.IDs(ByPhysicalName); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error is %v", metadata, err)
		}
	}
}
