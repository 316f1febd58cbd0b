package deltalog

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/millrace-io/millrace/deltalog/schema"
)

const (
	// keyTypeChanges, in a field's metadata, lists the types that it had.
	keyTypeChanges = "delta.typeChanges"
	// keyColumnID identifies a field whose name may change.
	keyColumnID = "delta.columnMapping.id"
)

// SetSchema gives the table other columns: next holds all of them, in the order
// wanted. Fields may be added at any depth if they are nullable, moved, and made
// nullable; where the property delta.enableTypeWidening is true, their types may
// be widened as the protocol allows. Fields are told apart by their names.
// Metadata of fields is kept, and what next has is added to it. Anything else,
// such as a field that is missing, is ErrInvalid, and the error names the field.
//
// No data is rewritten: rows that are there have NULL in what is added. SetSchema
// returns ErrConflict where others change the metadata at the same time.
func (t *Table) SetSchema(ctx context.Context, next *schema.Schema) (*Snapshot, error) {
	return t.alter(ctx, "CHANGE COLUMNS", func(m *Metadata) error {
		if err := next.Validate(); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		fields, err := evolveFields(m.Schema.Fields, next.Fields, "", m.enabled(PropertyTypeWidening))
		if err != nil {
			return err
		}
		m.Schema = &schema.Schema{Fields: fields}
		return nil
	})
}

// SetProperties sets properties of the table besides those it has; an empty value
// takes one away. Those that need a feature bring it along, and the table's
// protocol grows by it; a feature that is not supported is ErrUnsupported. A value
// that a property of this package cannot have is ErrInvalid, as is a property about
// the protocol, such as delta.feature.x: see [Protocol.With]. SetProperties returns
// ErrConflict where others change the metadata at the same time.
func (t *Table) SetProperties(ctx context.Context, set map[string]string) (*Snapshot, error) {
	return t.alter(ctx, "SET TBLPROPERTIES", func(m *Metadata) error {
		if m.Configuration == nil {
			m.Configuration = map[string]string{}
		}
		for k, v := range set {
			if v == "" {
				delete(m.Configuration, k)
			} else {
				m.Configuration[k] = v
			}
		}
		return nil
	})
}

// alter commits a change of the metadata, whatever files others add meanwhile.
func (t *Table) alter(ctx context.Context, operation string, change func(*Metadata) error) (*Snapshot, error) {
	read := t.Snapshot()
	for {
		m := read.metadata.Clone()
		if err := change(m); err != nil {
			return nil, fmt.Errorf("alter table: %w", err)
		}
		if err := m.assignIDs(physicalNames(read.metadata.Schema)); err != nil {
			return nil, fmt.Errorf("alter table: %w: %w", ErrInvalid, err)
		}
		if m.equal(read.metadata) {
			return read, nil
		}
		c := &Commit{Read: read, Operation: operation, Metadata: m}
		if p := read.protocol.For(m); p != read.protocol {
			c.Protocol = p
		}
		snap, won, err := t.Commit(ctx, c)
		if err != nil || won {
			return snap, err
		}
		if read, err = t.Refresh(ctx); err != nil {
			return nil, err
		}
		if err := c.Conflict(read); err != nil {
			return nil, fmt.Errorf("alter table: %w", err)
		}
	}
}

// evolveFields returns the fields of next with what those of old say of
// themselves.
func evolveFields(old, next []schema.Field, path string, widen bool) ([]schema.Field, error) {
	was := map[string]*schema.Field{}
	for i := range old {
		was[old[i].Name] = &old[i]
	}
	out := make([]schema.Field, len(next))
	for i, f := range next {
		name := path + f.Name
		o, ok := was[f.Name]
		delete(was, f.Name)
		switch {
		case !ok && !f.Nullable:
			return nil, fmt.Errorf("%w: column %s is added and not nullable: rows that are there have no value", ErrInvalid, name)
		case !ok:
			out[i] = f
			continue
		case o.Nullable && !f.Nullable:
			return nil, fmt.Errorf("%w: column %s cannot become NOT NULL: rows that are there may be", ErrInvalid, name)
		}
		keys, err := fieldKeys(o.Metadata)
		if err != nil {
			return nil, fmt.Errorf("%w: column %s: %w", ErrCorrupt, name, err)
		}
		more, err := fieldKeys(f.Metadata)
		if err != nil {
			return nil, fmt.Errorf("%w: column %s: %w", ErrInvalid, name, err)
		}
		added := false
		for k, v := range more {
			if _, has := keys[k]; !has || !strings.HasPrefix(k, "delta.") { // the protocol's own stay
				keys[k], added = v, added || string(keys[k]) != string(v)
			}
		}
		var changes []typeChange
		if f.Type, err = evolveType(o.Type, f.Type, name, "", widen, &changes); err != nil {
			return nil, err
		}
		f.Metadata = o.Metadata
		if added || len(changes) > 0 {
			if f.Metadata, err = withTypeChanges(keys, changes); err != nil {
				return nil, fmt.Errorf("%w: column %s: %w", ErrCorrupt, name, err)
			}
		}
		out[i] = f
	}
	for _, f := range old {
		if _, missing := was[f.Name]; missing {
			return nil, fmt.Errorf("%w: column %s is missing: columns are not dropped", ErrInvalid, path+f.Name)
		}
	}
	return out, nil
}

// typeChange is an entry of keyTypeChanges.
type typeChange struct {
	From string `json:"fromType"`
	To   string `json:"toType"`
	// Path leads from the field to a part of its type, such as element.
	Path string `json:"fieldPath,omitempty"`
}

// evolveType returns the type next as it follows old. at names the column, inner
// is the way into its type.
func evolveType(old, next schema.Type, at, inner string, widen bool, changes *[]typeChange) (schema.Type, error) {
	step := func(o, n *schema.Type, name string) (*schema.Type, error) {
		t, err := evolveType(*o, *n, at, strings.TrimPrefix(inner+"."+name, "."), widen, changes)
		return &t, err
	}
	var err error
	switch {
	case old.Kind == schema.Struct && next.Kind == schema.Struct:
		prefix := at + "."
		if inner != "" {
			prefix = at + "." + inner + "."
		}
		next.Fields, err = evolveFields(old.Fields, next.Fields, prefix, widen)
	case old.Kind == schema.Array && next.Kind == schema.Array:
		if old.ElemNull && !next.ElemNull {
			return next, fmt.Errorf("%w: elements of column %s cannot become NOT NULL", ErrInvalid, at)
		}
		next.Elem, err = step(old.Elem, next.Elem, "element")
	case old.Kind == schema.Map && next.Kind == schema.Map:
		if old.ValueNull && !next.ValueNull {
			return next, fmt.Errorf("%w: values of column %s cannot become NOT NULL", ErrInvalid, at)
		}
		if next.Key, err = step(old.Key, next.Key, "key"); err == nil {
			next.Value, err = step(old.Value, next.Value, "value")
		}
	case old.Equal(next):
	case !widens(old, next):
		err = fmt.Errorf("%w: column %s of type %s cannot become %s", ErrInvalid, at, old, next)
	case !widen:
		err = fmt.Errorf("%w: column %s of type %s can become %s where property %s is true alone", ErrInvalid, at, old, next, PropertyTypeWidening)
	default:
		*changes = append(*changes, typeChange{old.String(), next.String(), inner})
	}
	return next, err
}

// widens tells whether the protocol lets a type become another in place.
func widens(from, to schema.Type) bool {
	digits := map[schema.Kind]int{schema.Byte: 10, schema.Short: 10, schema.Integer: 10, schema.Long: 20}
	switch to.Kind {
	case schema.Short, schema.Integer, schema.Long:
		return digits[from.Kind] > 0 && from.Kind < to.Kind
	case schema.Double:
		return from.Kind == schema.Float || digits[from.Kind] == 10
	case schema.Decimal:
		if from.Kind == schema.Decimal {
			return to.Scale >= from.Scale && to.Precision-to.Scale >= from.Precision-from.Scale
		}
		return digits[from.Kind] > 0 && to.Precision-to.Scale >= digits[from.Kind]
	case schema.TimestampNTZ:
		return from.Kind == schema.Date
	}
	return false
}

func fieldKeys(b json.RawMessage) (map[string]json.RawMessage, error) {
	keys := map[string]json.RawMessage{}
	if len(b) == 0 {
		return keys, nil
	}
	if err := json.Unmarshal(b, &keys); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return keys, nil
}

// withTypeChanges prints a field's metadata with more changes of its type.
func withTypeChanges(keys map[string]json.RawMessage, changes []typeChange) (json.RawMessage, error) {
	if len(changes) > 0 {
		var all []json.RawMessage
		if b, ok := keys[keyTypeChanges]; ok {
			if err := json.Unmarshal(b, &all); err != nil {
				return nil, fmt.Errorf("%s: %w", keyTypeChanges, err)
			}
		}
		for _, c := range changes {
			b, err := json.Marshal(c)
			if err != nil {
				return nil, err
			}
			all = append(all, b)
		}
		b, err := json.Marshal(all)
		if err != nil {
			return nil, err
		}
		keys = maps.Clone(keys)
		keys[keyTypeChanges] = b
	}
	return json.Marshal(keys)
}

// checkColumns checks that a table that keeps rows keeps what they say: columns stay
// where they are found by their names, keep their types or widen them as the table
// allows, and are NOT NULL only where they were.
func checkColumns(read *Snapshot, next *Metadata) error {
	if read.metadata.Schema == next.Schema {
		return nil
	}
	mapping, err := read.mapping()
	if err != nil {
		return err
	}
	c := columnCheck{widen: next.enabled(PropertyTypeWidening), byName: mapping == schema.ByName}
	return c.fields(read.metadata.Schema.Fields, next.Schema.Fields, "")
}

// columnCheck compares the columns of a table with those that it is to have.
type columnCheck struct {
	widen  bool // types may be widened
	byName bool // fields are found by their names, else by their ids
}

func (c columnCheck) fields(old, next []schema.Field, path string) error {
	was := map[string]*schema.Field{}
	for i := range old {
		was[c.identity(&old[i])] = &old[i]
	}
	for i := range next {
		f := &next[i]
		o, ok := was[c.identity(f)]
		delete(was, c.identity(f))
		if !f.Nullable && (!ok || o.Nullable) {
			return fmt.Errorf("%w: column %s is NOT NULL, and there are rows without it", ErrInvalid, path+f.Name)
		}
		if !ok {
			continue
		}
		keys, err := fieldKeys(f.Metadata)
		if err != nil {
			return fmt.Errorf("%w: column %s: %w", ErrInvalid, path+f.Name, err)
		}
		_, told := keys[keyTypeChanges]
		if err := c.types(&o.Type, &f.Type, path+f.Name, told); err != nil {
			return err
		}
	}
	for i := range old {
		if was[c.identity(&old[i])] != nil && c.byName {
			return fmt.Errorf("%w: column %s is missing: without column mapping, columns are not dropped", ErrInvalid, path+old[i].Name)
		}
	}
	return nil
}

// types compares the types of a column, or of parts of it; told says that its
// metadata has changes of them.
func (c columnCheck) types(old, next *schema.Type, at string, told bool) error {
	switch {
	case old.Kind == schema.Struct && next.Kind == schema.Struct:
		return c.fields(old.Fields, next.Fields, at+".")
	case old.Kind == schema.Array && next.Kind == schema.Array:
		if old.ElemNull && !next.ElemNull {
			return fmt.Errorf("%w: elements of column %s become NOT NULL, and there are rows that have others", ErrInvalid, at)
		}
		return c.types(old.Elem, next.Elem, at, told)
	case old.Kind == schema.Map && next.Kind == schema.Map:
		if old.ValueNull && !next.ValueNull {
			return fmt.Errorf("%w: values of column %s become NOT NULL, and there are rows that have others", ErrInvalid, at)
		}
		if err := c.types(old.Key, next.Key, at, told); err != nil {
			return err
		}
		return c.types(old.Value, next.Value, at, told)
	case old.Equal(*next) || c.widen && told && widens(*old, *next):
		return nil
	}
	return fmt.Errorf("%w: the type of column %s changes from %s to %s", ErrInvalid, at, old, next)
}

// identity tells the fields of a struct apart.
func (c columnCheck) identity(f *schema.Field) string {
	if c.byName || len(f.Metadata) == 0 {
		return f.Name
	}
	if keys, err := fieldKeys(f.Metadata); err == nil && keys[keyColumnID] != nil {
		return "\x00" + string(keys[keyColumnID])
	}
	return f.Name
}
