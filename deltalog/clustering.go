package deltalog

import (
	"encoding/json"
	"fmt"
	"strings"
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
