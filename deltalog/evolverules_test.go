package deltalog

import (
	"errors"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// What a commit says in its metadata has to be true of the rows that stay.
func TestMetadataFitsTheRowsThatStay(t *testing.T) {
	long := schema.Type{Kind: schema.Long}
	for _, c := range []struct {
		name   string
		change func(m *Metadata)
		want   string // empty: it fits an empty table, or one whose rows go
	}{
		{"a column is dropped", func(m *Metadata) { m.Schema = &schema.Schema{Fields: m.Schema.Fields[:1]} }, "name"},
		{"a column becomes NOT NULL", func(m *Metadata) {
			fields := append([]schema.Field{}, m.Schema.Fields...)
			fields[1].Nullable = false
			m.Schema = &schema.Schema{Fields: fields}
		}, "name"},
		{"a column NOT NULL is added", func(m *Metadata) {
			m.Schema = &schema.Schema{Fields: append(append([]schema.Field{}, m.Schema.Fields...), schema.Field{Name: "more", Type: long})}
		}, "more"},
	} {
		for _, rows := range []bool{true, false} {
			table := newTestTable(t, store.NewMemory())
			var remove []*File
			if _, err := table.Append(t.Context(), idNames(0, 3)); err != nil {
				t.Fatal(err)
			}
			if !rows {
				for f := range table.Snapshot().Files() {
					remove = append(remove, f)
				}
			}
			m := table.Snapshot().Metadata().Clone()
			c.change(m)
			_, won, err := table.Commit(t.Context(), &Commit{Operation: "CHANGE COLUMNS", Metadata: m, Remove: remove})
			if rows && (won || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s: won %v, error %v", c.name, won, err)
			}
			if !rows && !won {
				t.Errorf("%s, and no row stays: %v", c.name, err)
			}
		}
	}
}

// A table is read by these: another value would be of another table.
func TestPropertiesThatFilesDependOnStay(t *testing.T) {
	st := store.NewMemory()
	table, err := Create(t.Context(), st, CreateOptions{
		Schema: idName(), Properties: map[string]string{PropertyRowTracking: "true", PropertyDeletionVectors: "true"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.SetProperties(t.Context(), map[string]string{PropertyInCommitTimestamps: "true"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{propertyRowIDColumn, propertyRowCommitColumn, propertyInCommitVersion, propertyInCommitTime} {
		for _, value := range []string{"7", ""} {
			if _, err := table.SetProperties(t.Context(), map[string]string{name: value}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s=%q: %v", name, value, err)
			}
		}
	}
}

// JSON holds Unicode alone: other bytes would come back as others.
func TestTextThatTheLogCannotHoldIsRefused(t *testing.T) {
	const bad = "a\xff"
	for name, c := range map[string]func(*Metadata) *Commit{
		"application":     func(*Metadata) *Commit { return &Commit{Txns: []Txn{{AppID: bad, Version: 1}}} },
		"domain":          func(*Metadata) *Commit { return &Commit{Domains: []Domain{{Name: bad}}} },
		"its text":        func(*Metadata) *Commit { return &Commit{Domains: []Domain{{Name: "d", Configuration: bad}}} },
		"property":        func(m *Metadata) *Commit { m.Configuration["x"] = bad; return &Commit{Metadata: m} },
		"property's name": func(m *Metadata) *Commit { m.Configuration[bad] = "x"; return &Commit{Metadata: m} },
		"description":     func(m *Metadata) *Commit { m.Description = bad; return &Commit{Metadata: m} },
		"column": func(m *Metadata) *Commit {
			m.Schema = &schema.Schema{Fields: append(append([]schema.Field{}, m.Schema.Fields...), schema.Field{Name: bad, Type: schema.Type{Kind: schema.Long}, Nullable: true})}
			return &Commit{Metadata: m}
		},
		"path": func(*Metadata) *Commit { return &Commit{Add: []*File{fakeFile(bad, 1)}} },
		"stats": func(*Metadata) *Commit {
			f := fakeFile("f", 1)
			f.Stats = `{"numRecords":1,"minValues":{"name":"` + bad + `"}}`
			return &Commit{Add: []*File{f}}
		},
		"tag": func(*Metadata) *Commit {
			f := fakeFile("f", 1)
			f.Tags = map[string]string{"k": bad}
			return &Commit{Add: []*File{f}}
		},
	} {
		table := newTestTable(t, store.NewMemory())
		if _, won, err := table.Commit(t.Context(), c(table.Snapshot().Metadata().Clone())); won || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: won %v, error %v", name, won, err)
		}
	}
	table, err := Create(t.Context(), store.NewMemory(), CreateOptions{Schema: idName(), PartitionColumns: []string{"name"}})
	if err != nil {
		t.Fatal(err)
	}
	f := fakeFile("f", 1)
	text := bad
	f.Partition = map[string]*string{"name": &text}
	if _, won, err := table.Commit(t.Context(), &Commit{Add: []*File{f}}); won || !errors.Is(err, ErrInvalid) {
		t.Errorf("partition value: won %v, error %v", won, err)
	}
}

func TestColumnsThatAreNotNullHaveValues(t *testing.T) {
	s := idName()
	s.Fields[1].Nullable = false
	table, err := Create(t.Context(), store.NewMemory(), CreateOptions{Schema: s})
	if err != nil {
		t.Fatal(err)
	}
	lacking := idNames(0, 1)
	lacking.Names, lacking.Cols = lacking.Names[:1], lacking.Cols[:1]
	null := idNames(0, 1)
	null.Cols[1] = datafile.NewColumn(schema.Type{Kind: schema.String})
	null.Cols[1].AppendNull()
	for name, b := range map[string]*datafile.Batch{"lacking": lacking, "NULL": null} {
		if _, err := table.Append(t.Context(), b); err == nil {
			t.Errorf("%s: it was appended", name)
		}
	}
}
