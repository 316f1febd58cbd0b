package lake

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/batch"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// What the fields of a Delta schema know about their source.
const (
	// columnKey names the column of PostgreSQL that a field holds. Fields
	// without it are metadata, or retired.
	columnKey = "millrace.column"
	// attrKey is that column's attribute number: it tells a column that was
	// dropped and made again, or renamed, from one that stayed.
	attrKey = "millrace.attr"
	// retiredKey names, in place of columnKey, the column that a field held
	// before the current incarnation.
	retiredKey = "millrace.retired"
)

// keyProperty is the table property that says what rows are found by: a JSON
// list of Delta names, or one of the two words below.
const (
	keyProperty = "millrace.key"
	keyNone     = "none"     // no identity: history alone
	keyMultiset = "multiset" // no key: whole rows
)

// keyOf returns the property's value for t whose columns have these names.
func keyOf(t *change.Table, names []string) string {
	switch {
	case t.Identity == change.IdentityNone:
		return keyNone
	case len(t.Key) == 0:
		return keyMultiset
	}
	keys := make([]string, len(t.Key))
	for i, k := range t.Key {
		keys[i] = names[k]
	}
	b, _ := json.Marshal(keys)
	return string(b)
}

// parseKey returns what keyOf wrote.
func parseKey(property string) (keys []string, multiset bool, err error) {
	switch property {
	case keyMultiset:
		return nil, true, nil
	case keyNone, "":
		return nil, false, nil
	}
	if err := json.Unmarshal([]byte(property), &keys); err != nil {
		return nil, false, fmt.Errorf("read property %s: %w", keyProperty, err)
	}
	return keys, false, nil
}

// shape is one shape of the source table laid upon the schema of history.
type shape struct {
	layout *batch.Layout
	// fields are the Delta fields of the table's columns, index by index, with
	// what they know about their source.
	fields []schema.Field
	// missing tells that some of them are not in the schema yet.
	missing bool
	// stale tells that the shape is one from before the current incarnation: it
	// fits changes before the cut alone.
	stale bool
	key   string
}

// fit says what a shape must agree with.
type fit byte

const (
	// free: what does not fit gets fields of its own. So it is for a copy, and
	// for a table that has none yet.
	free fit = iota
	// strict: the rows of the current incarnation must stay true, so that
	// columns may come and go, and no more.
	strict
	// trailing: the stream has not reached the cut, so that the shape may be one
	// from before the incarnation, whose rows go to history alone.
	trailing
)

// shaper lays tables upon one version of history's schema.
type shaper struct {
	fields []schema.Field
	key    string // what history's property says; empty before its creation
	fit    fit
	casts  map[string]string
	number int64 // of the incarnation
}

// lay finds or makes the field of each column of t.
func (s *shaper) lay(t *change.Table) (*shape, error) {
	natural, err := batch.NewLayout(t, nil, s.casts, s.number)
	if err != nil {
		return nil, err
	}
	sh := &shape{fields: make([]schema.Field, len(t.Columns))}
	known := s.fields
	for i := range t.Columns {
		m, err := s.match(&t.Columns[i], natural.Fields[i].Type, known)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		if !m.found {
			sh.missing = true
			known = extend(known, m.field)
		}
		sh.fields[i] = m.field
		sh.stale = sh.stale || m.stale
	}
	names := fieldNames(sh.fields)
	sh.key = keyOf(t, names)
	switch {
	case sh.key == s.key:
	case s.fit == trailing:
		sh.stale = true
	case s.fit == strict:
		return nil, fmt.Errorf("%s: %w: rows were found by %s, now by %s", t, ErrSchemaIncompatible, s.key, sh.key)
	}
	sh.layout, err = batch.NewLayout(t, names, s.casts, s.number)
	return sh, err
}

// match is the field of one column.
type match struct {
	field schema.Field
	found bool // among those that are known
	stale bool // it held the column before the incarnation
}

// match finds the field of a column among the known ones, or makes it.
func (s *shaper) match(c *change.Column, typ schema.Type, known []schema.Field) (match, error) {
	same := func(attr int16) bool { return c.Attr == 0 || attr == 0 || attr == c.Attr }
	var other, twin *schema.Field // what stands in the way, and what does so by its attribute alone
	for i := range known {
		f := &known[i]
		switch o := originOf(f); {
		case o.column == "":
		case o.column == c.Name && f.Type.Equal(typ) && (same(o.attr) || s.fit == free):
			return match{field: *f, found: true}, nil
		case o.column == c.Name && f.Type.Equal(typ):
			other, twin = f, f
		case o.column == c.Name, c.Attr != 0 && o.attr == c.Attr:
			other = f
		}
	}
	if other != nil && s.fit == strict {
		return match{}, incompatible(c, typ, other)
	}
	if c.Fills && s.fit == strict {
		return match{}, fmt.Errorf("%w: column %q may hold values in rows that are older than it, which no change brought",
			ErrSchemaIncompatible, c.Name)
	}
	for i := range known {
		f := known[i]
		o := originOf(&f)
		if o.retired == "" || o.retired != c.Name || !f.Type.Equal(typ) {
			continue
		}
		if s.fit == strict || s.fit == trailing && other == nil && !same(o.attr) {
			// The column is back.
			f.Metadata = withOrigin(f.Metadata, origin{column: c.Name, attr: c.Attr})
			return match{field: f}, nil
		}
		return match{field: f, found: true, stale: s.fit == trailing}, nil
	}
	if twin != nil {
		return match{field: *twin, found: true, stale: true}, nil
	}
	return s.invent(c, typ, known, other), nil
}

// invent makes a field for a column. other stands in the way of its name.
func (s *shaper) invent(c *change.Column, typ schema.Type, known []schema.Field, other *schema.Field) match {
	taken := func(lower string) bool {
		if strings.HasPrefix(lower, "__") {
			for _, f := range batch.MetaFields() {
				if f.Name == lower {
					return true
				}
			}
		}
		return slices.ContainsFunc(known, func(f schema.Field) bool { return strings.ToLower(f.Name) == lower })
	}
	suffix := ""
	if other != nil {
		suffix = strings.ToLower(strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
				return r
			}
			return -1
		}, typ.String()))
	}
	stale := s.fit == trailing && other != nil
	from := origin{column: c.Name, attr: c.Attr}
	if stale {
		from = origin{retired: c.Name, attr: c.Attr}
	}
	return match{stale: stale, field: schema.Field{
		Name: columnName(c.Name, suffix, taken), Type: typ, Nullable: true, Metadata: withOrigin(nil, from),
	}}
}

func incompatible(c *change.Column, typ schema.Type, other *schema.Field) error {
	name := originOf(other).column
	switch {
	case name != c.Name:
		return fmt.Errorf("%w: column %q was renamed to %q", ErrSchemaIncompatible, name, c.Name)
	case !other.Type.Equal(typ):
		return fmt.Errorf("%w: column %q was %s, now %s", ErrSchemaIncompatible, c.Name, other.Type, typ)
	}
	return fmt.Errorf("%w: column %q was dropped and made again", ErrSchemaIncompatible, c.Name)
}

// extend returns fields with more of them, in the place of those of the same
// name.
func extend(fields []schema.Field, more ...schema.Field) []schema.Field {
	out := slices.Clone(fields)
	for _, f := range more {
		i := slices.IndexFunc(out, func(g schema.Field) bool { return g.Name == f.Name })
		if i < 0 {
			out = append(out, f)
		} else {
			out[i] = f
		}
	}
	return out
}

// restart returns the fields of history for an incarnation of t: those of sh
// are current, all other source fields retired.
func restart(fields []schema.Field, t *change.Table, sh *shape) []schema.Field {
	out := extend(fields, sh.fields...)
	for i := range out {
		f := &out[i]
		was := originOf(f)
		if was == (origin{}) {
			continue
		}
		k := slices.IndexFunc(sh.fields, func(g schema.Field) bool { return g.Name == f.Name })
		if k >= 0 {
			c := &t.Columns[k]
			f.Metadata = withOrigin(f.Metadata, origin{column: c.Name, attr: c.Attr})
			continue
		}
		f.Metadata = withOrigin(f.Metadata, origin{retired: cmp.Or(was.column, was.retired), attr: was.attr})
	}
	return out
}

// current returns the fields that hold columns of the current incarnation.
func current(fields []schema.Field) []schema.Field {
	var out []schema.Field
	for i := range fields {
		if originOf(&fields[i]).column != "" {
			out = append(out, fields[i])
		}
	}
	return out
}

// fieldNames returns the names of fields.
func fieldNames(fields []schema.Field) []string {
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].Name
	}
	return names
}

// latestMeta are the columns that follow the source columns in latest.
func latestMeta() []schema.Field {
	var out []schema.Field
	for _, f := range batch.MetaFields() {
		switch f.Name {
		case batch.EpochColumn, batch.CommitLSNColumn, batch.CommitTSColumn:
			out = append(out, f)
		}
	}
	return out
}

// origin is what a field's metadata says about its source.
type origin struct {
	column, retired string
	attr            int16
}

// originOf reads the origin of a field; zero for one that has none.
func originOf(f *schema.Field) origin {
	var o struct {
		Column  string `json:"millrace.column"`
		Retired string `json:"millrace.retired"`
		Attr    int16  `json:"millrace.attr"`
	}
	if len(f.Metadata) > 0 {
		_ = json.Unmarshal(f.Metadata, &o) // another's metadata names no source
	}
	return origin{o.Column, o.Retired, o.Attr}
}

// withOrigin returns a field's metadata with another origin.
func withOrigin(metadata json.RawMessage, o origin) json.RawMessage {
	m := map[string]json.RawMessage{}
	if len(metadata) > 0 {
		_ = json.Unmarshal(metadata, &m)
	}
	set := func(key string, present bool, v any) {
		delete(m, key)
		if present {
			m[key], _ = json.Marshal(v)
		}
	}
	set(columnKey, o.column != "", o.column)
	set(retiredKey, o.retired != "", o.retired)
	set(attrKey, o.attr != 0, o.attr)
	b, _ := json.Marshal(m)
	return b
}
