package deltalog

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// clusteringDomain says which columns files are clustered by.
const clusteringDomain = "delta.clustering"

// clusteringColumns returns the paths of the columns that the table's files are
// clustered by, as they are called in files.
func (s *Snapshot) clusteringColumns() ([][]string, error) {
	d, ok := s.domains[clusteringDomain]
	if !ok {
		return nil, nil
	}
	var c struct {
		Columns [][]string `json:"clusteringColumns"`
	}
	if err := json.Unmarshal([]byte(d.Configuration), &c); err != nil {
		return nil, fmt.Errorf("domain %s: %w: %w", clusteringDomain, ErrCorrupt, err)
	}
	return c.Columns, nil
}

// checkClustering checks that a file has statistics for the columns that the
// table is clustered by.
func (p *planned) checkClustering(f *File) error {
	if len(p.clustered) == 0 {
		return nil
	}
	var stats struct {
		NullCount map[string]json.RawMessage `json:"nullCount"`
	}
	if f.Stats != "" {
		if err := json.Unmarshal([]byte(f.Stats), &stats); err != nil {
			return fmt.Errorf("its statistics are not JSON: %w", err)
		}
	}
	for _, path := range p.clustered {
		if !hasPath(stats.NullCount, path) {
			return fmt.Errorf("it lacks statistics of column %s, by which the table is clustered", strings.Join(path, "."))
		}
	}
	return nil
}

func hasPath(at map[string]json.RawMessage, path []string) bool {
	for i, name := range path {
		v, ok := at[name]
		if !ok || i == len(path)-1 {
			return ok
		}
		at = nil
		if json.Unmarshal(v, &at) != nil {
			return false
		}
	}
	return false
}

// withClustering adds the columns that the table is clustered by to those that
// statistics are gathered for: the first n, or those of names if there are any.
func (s *Snapshot) withClustering(n int, names []string) (int, []string) {
	columns, err := s.clusteringColumns()
	if err != nil || len(columns) == 0 {
		return n, names
	}
	mapping, err := s.mapping()
	if err != nil {
		return n, names
	}
	if names == nil {
		for i := range s.metadata.Schema.Fields {
			if f := &s.metadata.Schema.Fields[i]; !slices.Contains(s.metadata.PartitionColumns, f.Name) {
				names = appendLeaves(names, n, "", f)
			}
		}
	}
	for _, path := range columns {
		if name, ok := nameOfStored(s.metadata.Schema.Fields, mapping, path); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return 0, names
}

// appendLeaves appends the names of a field's parts, as long as there are fewer
// than n.
func appendLeaves(names []string, n int, path string, f *schema.Field) []string {
	path += quoteName(f.Name)
	if f.Type.Kind != schema.Struct {
		if len(names) < n {
			names = append(names, path)
		}
		return names
	}
	for i := range f.Type.Fields {
		names = appendLeaves(names, n, path+".", &f.Type.Fields[i])
	}
	return names
}

// nameOfStored returns the name of a column that files have under a path.
func nameOfStored(fields []schema.Field, mapping schema.Mapping, path []string) (string, bool) {
	var name string
	for i, step := range path {
		at := slices.IndexFunc(fields, func(f schema.Field) bool {
			stored, _, err := f.Stored(mapping)
			return err == nil && stored == step
		})
		if at < 0 {
			return "", false
		}
		if i > 0 {
			name += "."
		}
		name += quoteName(fields[at].Name)
		fields = fields[at].Type.Fields
	}
	return name, name != ""
}

func quoteName(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }
