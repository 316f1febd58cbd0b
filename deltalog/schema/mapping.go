package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// Mapping says by what the columns of a table are found in its data files, in
// statistics and in partition values: see "Column Mapping" in the protocol,
// https://github.com/delta-io/delta/blob/master/PROTOCOL.md#column-mapping
type Mapping uint8

// The mappings. The zero Mapping is that of tables without column mapping.
const (
	// ByName finds columns by their names.
	ByName Mapping = iota
	// ByPhysicalName finds them by the names in their metadata, which stay the
	// same when columns are renamed.
	ByPhysicalName
	// ByID finds them in data files by the ids in their metadata, and elsewhere
	// by their physical names.
	ByID
)

// Keys of the metadata of fields that column mapping goes by.
const (
	keyID           = "delta.columnMapping.id"
	keyPhysicalName = "delta.columnMapping.physicalName"
)

// ParseMapping returns the mapping that the property delta.columnMapping.mode
// names: name, id, or none, which empty means too. Anything else is ErrInvalid.
func ParseMapping(mode string) (Mapping, error) {
	switch mode {
	case "", "none":
		return ByName, nil
	case "name":
		return ByPhysicalName, nil
	case "id":
		return ByID, nil
	}
	return ByName, fmt.Errorf("%w: column mapping by %q", ErrInvalid, mode)
}

// Stored returns the name that the field has in data files, statistics and
// partition values, and its id there; zero without column mapping, and for fields
// that have a physical name alone, as those that no table has: they are found by
// it. A field that lacks what the mapping needs is an error wrapping ErrInvalid.
func (f *Field) Stored(m Mapping) (name string, id int32, err error) {
	if m == ByName {
		return f.Name, 0, nil
	}
	name, number, err := f.mapping()
	switch {
	case err != nil:
		return "", 0, err
	case name == "":
		return "", 0, fmt.Errorf("column %q: %w: it has no physical name", f.Name, ErrInvalid)
	case number < 0 || number > math.MaxInt32:
		return "", 0, fmt.Errorf("column %q: %w: its column mapping id is %d", f.Name, ErrInvalid, number)
	}
	return name, int32(number), nil
}

// mapping returns what the metadata holds of column mapping.
func (f *Field) mapping() (name string, id int64, err error) {
	if len(f.Metadata) == 0 {
		return "", 0, nil
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(f.Metadata, &keys); err != nil {
		return "", 0, fmt.Errorf("column %q: %w: its metadata: %w", f.Name, ErrInvalid, err)
	}
	if v, ok := keys[keyPhysicalName]; ok {
		if err := json.Unmarshal(v, &name); err != nil {
			return "", 0, fmt.Errorf("column %q: %w: its physical name: %w", f.Name, ErrInvalid, err)
		}
	}
	if v, ok := keys[keyID]; ok {
		if id, err = strconv.ParseInt(string(bytes.TrimSpace(v)), 10, 64); err != nil {
			return "", 0, fmt.Errorf("column %q: %w: its column mapping id: %w", f.Name, ErrInvalid, err)
		}
	}
	return name, id, nil
}

// IDs returns the physical names of all fields, nested ones too, by their ids;
// none without column mapping. It is an error wrapping ErrInvalid unless every
// field has what the mapping needs, no id is there twice, and no two fields of
// one struct have the same physical name.
func (s *Schema) IDs(m Mapping) (map[int32]string, error) {
	ids := map[int32]string{}
	if m == ByName {
		return ids, nil
	}
	return ids, addIDs(ids, s.Fields, m)
}

func addIDs(ids map[int32]string, fields []Field, m Mapping) error {
	names := make(map[string]bool, len(fields))
	for i := range fields {
		name, id, err := fields[i].Stored(m)
		if err != nil {
			return err
		}
		if id == 0 {
			return fmt.Errorf("column %q: %w: it has no column mapping id", fields[i].Name, ErrInvalid)
		}
		if _, taken := ids[id]; taken {
			return fmt.Errorf("column %q: %w: its column mapping id %d is another's too", fields[i].Name, ErrInvalid, id)
		}
		if names[name] {
			return fmt.Errorf("column %q: %w: its physical name is another's too", fields[i].Name, ErrInvalid)
		}
		ids[id], names[name] = name, true
		for _, t := range structsOf(&fields[i].Type) {
			if err := addIDs(ids, t.Fields, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// structsOf returns the outermost structs within a type, or the type itself.
func structsOf(t *Type) []*Type {
	switch t.Kind {
	case Struct:
		return []*Type{t}
	case Array:
		return structsOf(t.Elem)
	case Map:
		return append(structsOf(t.Key), structsOf(t.Value)...)
	}
	return nil
}

// WithMapping returns the schema with ids and physical names for the fields,
// nested ones too, that lack them, and the greatest id: no less than last, above
// which new ids are. Physical names of new fields are what name returns.
func (s *Schema) WithMapping(last int64, name func(*Field) string) (*Schema, int64, error) {
	greatest, err := greatestID(s.Fields, last)
	if err != nil {
		return nil, 0, err
	}
	a := assigner{last: greatest, name: name}
	fields, err := a.fields(s.Fields)
	if err != nil {
		return nil, 0, err
	}
	return &Schema{Fields: fields}, a.last, nil
}

func greatestID(fields []Field, last int64) (int64, error) {
	for i := range fields {
		_, id, err := fields[i].mapping()
		if err != nil {
			return 0, err
		}
		last = max(last, id)
		for _, t := range structsOf(&fields[i].Type) {
			if last, err = greatestID(t.Fields, last); err != nil {
				return 0, err
			}
		}
	}
	return last, nil
}

// assigner gives ids and physical names.
type assigner struct {
	last int64
	name func(*Field) string
}

func (a *assigner) fields(fields []Field) ([]Field, error) {
	out := make([]Field, len(fields))
	for i, f := range fields {
		name, id, err := f.mapping()
		if err != nil {
			return nil, err
		}
		if id == 0 {
			a.last++
			f.Metadata = withKey(f.Metadata, keyID, strconv.AppendInt(nil, a.last, 10))
		}
		if name == "" {
			quoted, err := json.Marshal(a.name(&f))
			if err != nil {
				return nil, fmt.Errorf("column %q: %w: its physical name: %w", f.Name, ErrInvalid, err)
			}
			f.Metadata = withKey(f.Metadata, keyPhysicalName, quoted)
		}
		t, err := a.typ(&f.Type)
		if err != nil {
			return nil, err
		}
		f.Type = *t
		out[i] = f
	}
	return out, nil
}

// typ returns a type whose structs have ids; t itself where it has none.
func (a *assigner) typ(t *Type) (*Type, error) {
	if len(structsOf(t)) == 0 {
		return t, nil
	}
	out := *t
	var err error
	switch t.Kind {
	case Struct:
		out.Fields, err = a.fields(t.Fields)
	case Array:
		out.Elem, err = a.typ(t.Elem)
	case Map:
		if out.Key, err = a.typ(t.Key); err == nil {
			out.Value, err = a.typ(t.Value)
		}
	}
	return &out, err
}

// withKey returns metadata with one more key.
func withKey(metadata json.RawMessage, key string, value []byte) json.RawMessage {
	b := bytes.TrimRight(bytes.TrimSpace(metadata), " \t\r\n")
	if len(b) == 0 {
		b = []byte("{}")
	}
	out := append(json.RawMessage(nil), bytes.TrimRight(b[:len(b)-1], " \t\r\n")...)
	if len(out) > 1 {
		out = append(out, ',')
	}
	out = append(strconv.AppendQuote(out, key), ':')
	return append(append(out, value...), '}')
}
