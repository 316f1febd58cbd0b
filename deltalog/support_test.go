package deltalog

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

// idName is the schema of tables whose columns do not matter.
func idName() *schema.Schema {
	return &schema.Schema{Fields: []schema.Field{
		{Name: "id", Type: schema.Type{Kind: schema.Long}, Nullable: true},
		{Name: "name", Type: schema.Type{Kind: schema.String}, Nullable: true},
	}}
}

// latestProperties are those of a table that is updated in place.
func latestProperties() map[string]string {
	return map[string]string{PropertyDeletionVectors: "true", PropertyInCommitTimestamps: "true"}
}

func newTestTable(t testing.TB, st store.Store) *Table {
	t.Helper()
	table, err := Create(t.Context(), st, CreateOptions{
		Schema: idName(), Properties: latestProperties(), Features: []string{FeatureDomainMetadata},
	})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// othersSet has a table see a property as another writer set it, whatever it says.
func othersSet(table *Table, property, value string) {
	s := *table.snap.Load()
	s.metadata = s.metadata.Clone()
	if s.metadata.Configuration == nil {
		s.metadata.Configuration = map[string]string{}
	}
	s.metadata.Configuration[property] = value
	table.snap.Store(&s)
}

// fakeFile is a file that is in the log alone.
func fakeFile(path string, rows int64) *File {
	return &File{
		Path: path, Size: rows * 10, ModTime: 1700000000000, Rows: rows,
		Stats: fmt.Sprintf(`{"numRecords":%d}`, rows),
	}
}

func fakeVector(id string, n int64) *Vector {
	return &Vector{StorageType: "u", PathOrInline: id, Offset: 1, SizeInBytes: 34, Cardinality: n}
}

func mustCommit(t testing.TB, table *Table, c *Commit) *Snapshot {
	t.Helper()
	s, won, err := table.Commit(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if !won {
		t.Fatal("lost the race against nobody")
	}
	return s
}

func mustOpen(t testing.TB, st store.Store) *Table {
	t.Helper()
	table, err := Open(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// describe prints all that a snapshot holds, for comparison.
func describe(s *Snapshot) string {
	var b strings.Builder
	m := s.Metadata()
	rows, known := s.Rows()
	text, _ := m.Schema.MarshalJSON()
	fmt.Fprintf(&b, "version %d, %d files, %d bytes, %d rows", s.Version(), s.NumFiles(), s.Bytes(), rows)
	if !known {
		b.WriteString(" at least")
	}
	fmt.Fprintf(&b, "\nprotocol %d %d %v %v\n", s.Protocol().MinReader, s.Protocol().MinWriter, s.Protocol().ReaderFeatures, s.Protocol().WriterFeatures)
	fmt.Fprintf(&b, "table %s %q %q partitions %v configuration %v created %d\nschema %s\n",
		m.ID, m.Name, m.Description, m.PartitionColumns, m.Configuration, m.CreatedTime, text)
	for txn := range s.Txns() {
		fmt.Fprintf(&b, "txn %s %d\n", txn.AppID, txn.Version)
	}
	for d := range s.Domains() {
		fmt.Fprintf(&b, "domain %s %s\n", d.Name, d.Configuration)
	}
	for f := range s.Files() {
		fmt.Fprintf(&b, "file %s size %d modified %d rows %d", f.Path, f.Size, f.ModTime, f.Rows)
		for _, c := range m.PartitionColumns {
			if v := f.Partition[c]; v == nil {
				fmt.Fprintf(&b, " %s=NULL", c)
			} else {
				fmt.Fprintf(&b, " %s=%q", c, *v)
			}
		}
		if f.Vector != nil {
			fmt.Fprintf(&b, " vector %s hides %d", f.Vector.uniqueID(), f.Vector.Cardinality)
		}
		if f.Stats != "" {
			fmt.Fprintf(&b, " stats %s", f.Stats)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// counted counts the operations on a store.
func counted(st store.Store) (*storetest.Faulty, map[storetest.Op]int) {
	n := map[storetest.Op]int{}
	var mu sync.Mutex
	return &storetest.Faulty{Store: st, Before: func(op storetest.Op, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		n[op]++
		return nil
	}}, n
}
