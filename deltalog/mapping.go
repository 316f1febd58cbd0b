package deltalog

import (
	"fmt"
	"maps"
	"strconv"

	"github.com/google/uuid"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// Properties of column mapping.
const (
	// PropertyColumnMapping is by what columns are found in data files: name,
	// id, or none. Set at creation, or later from none to name, it lets columns
	// be renamed and dropped without any file being written anew.
	PropertyColumnMapping = "delta.columnMapping.mode"
	// propertyMaxColumnID is the greatest id that any column has had.
	propertyMaxColumnID = "delta.columnMapping.maxColumnId"
)

// mapping returns by what the columns of the version are found in its files. The
// property has no meaning under a protocol without the feature.
func (s *Snapshot) mapping() (schema.Mapping, error) {
	return mappingOf(s.protocol, s.metadata)
}

func mappingOf(p *Protocol, m *Metadata) (schema.Mapping, error) {
	if p == nil || !p.has(FeatureColumnMapping) {
		return schema.ByName, nil
	}
	mapping, err := schema.ParseMapping(m.Property(PropertyColumnMapping, ""))
	if err != nil {
		return mapping, fmt.Errorf("property %s: %w: %w", PropertyColumnMapping, ErrUnsupported, err)
	}
	return mapping, nil
}

// checkMapping tells what is wrong with the column mapping of a version.
func (s *Snapshot) checkMapping() error {
	mapping, err := s.mapping()
	if err != nil {
		return err
	}
	if _, err := s.metadata.Schema.IDs(mapping); err != nil {
		return fmt.Errorf("column mapping: %w: %w", ErrCorrupt, err)
	}
	return nil
}

// WithSchema returns a copy of the metadata with another schema. In a table with
// column mapping, fields that have no id yet get one, and a name in data files;
// start from the fields of the table's own schema, to add, rename or drop some.
func (m *Metadata) WithSchema(s *schema.Schema) (*Metadata, error) {
	c := m.Clone()
	c.Schema = s
	return c, c.assignIDs(physicalNames(m.Schema))
}

// physicalNames returns how fields are named in files that come after those of a
// schema.
func physicalNames(was *schema.Schema) func(*schema.Field) string {
	for i := range was.Fields {
		if _, _, err := was.Fields[i].Stored(schema.ByPhysicalName); err != nil {
			// The table is about to get its column mapping: its files have the
			// names that there are.
			return func(f *schema.Field) string { return f.Name }
		}
	}
	return newPhysicalName
}

func newPhysicalName(*schema.Field) string { return "col-" + uuid.NewString() }

// assignIDs gives ids to the fields that lack them, if the table has column
// mapping.
func (m *Metadata) assignIDs(name func(*schema.Field) string) error {
	mapping, err := schema.ParseMapping(m.Property(PropertyColumnMapping, ""))
	if err != nil {
		return fmt.Errorf("property %s: %w", PropertyColumnMapping, err)
	}
	if mapping == schema.ByName {
		return nil
	}
	last, err := m.maxColumnID()
	if err != nil {
		return err
	}
	s, last, err := m.Schema.WithMapping(last, name)
	if err != nil {
		return err
	}
	if !s.Equal(m.Schema) {
		m.Schema = s
	}
	m.Configuration = maps.Clone(m.Configuration)
	m.Configuration[propertyMaxColumnID] = strconv.FormatInt(last, 10)
	return nil
}

func (m *Metadata) maxColumnID() (int64, error) {
	n, err := strconv.ParseInt(m.Property(propertyMaxColumnID, "0"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("property %s: %w", propertyMaxColumnID, err)
	}
	return n, nil
}

// checkMapping checks the column mapping of a commit's metadata against what
// there was. Errors wrap ErrInvalid or ErrUnsupported.
func (p *planned) checkMapping(read *Snapshot, first bool) error {
	mapping, err := mappingOf(p.protocol, p.metadata)
	if err != nil {
		return err
	}
	ids, err := p.metadata.Schema.IDs(mapping)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	last, err := p.metadata.maxColumnID()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for id := range ids {
		if int64(id) > last {
			return fmt.Errorf("%w: column id %d is above %s", ErrInvalid, id, propertyMaxColumnID)
		}
	}
	if first {
		return nil
	}
	was, err := read.mapping()
	switch {
	case err != nil:
		return err
	case was == mapping && was == schema.ByName:
		return nil
	case was == schema.ByName && mapping == schema.ByPhysicalName:
		return checkAdopted(read.metadata.Schema, p.metadata.Schema)
	case was != mapping:
		return fmt.Errorf("%w: column mapping changes otherwise than from none to name", ErrUnsupported)
	}
	old, err := read.metadata.Schema.IDs(was)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	for id, name := range old {
		if now, ok := ids[id]; ok && now != name {
			return fmt.Errorf("%w: the physical name of column id %d has changed", ErrInvalid, id)
		}
	}
	if before, err := read.metadata.maxColumnID(); err == nil && last < before {
		return fmt.Errorf("%w: %s goes back from %d to %d", ErrInvalid, propertyMaxColumnID, before, last)
	}
	return nil
}

// checkAdopted checks that the columns of a table that gets column mapping, and
// the fields within them, keep the names that its files have.
func checkAdopted(was, now *schema.Schema) error {
	for i := range now.Fields {
		f := &now.Fields[i]
		name, _, err := f.Stored(schema.ByPhysicalName)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		at := was.Field(f.Name)
		if at < 0 {
			continue
		}
		if name != f.Name {
			return fmt.Errorf("%w: column %q is another in the files that there are", ErrInvalid, f.Name)
		}
		if err := checkAdoptedType(&was.Fields[at].Type, &f.Type); err != nil {
			return fmt.Errorf("column %q: %w", f.Name, err)
		}
	}
	return nil
}

func checkAdoptedType(was, now *schema.Type) error {
	if err := checkAdopted(&schema.Schema{Fields: was.Fields}, &schema.Schema{Fields: now.Fields}); err != nil {
		return err
	}
	for _, inner := range [][2]*schema.Type{{was.Elem, now.Elem}, {was.Key, now.Key}, {was.Value, now.Value}} {
		if inner[0] == nil || inner[1] == nil {
			continue
		}
		if err := checkAdoptedType(inner[0], inner[1]); err != nil {
			return err
		}
	}
	return nil
}

// storedName returns the name that a column has in partition values and
// statistics.
func storedName(s *schema.Schema, mapping schema.Mapping, column string) (string, error) {
	i := s.Field(column)
	if i < 0 {
		return "", fmt.Errorf("%w: no column %s", ErrCorrupt, column)
	}
	name, _, err := s.Fields[i].Stored(mapping)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return name, nil
}
