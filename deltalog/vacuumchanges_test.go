package deltalog

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/store"
)

// TestVacuumDeletesChangedRowsOfVersionsThatAreOld has changed rows of two
// versions, both written before the retention; one version came after it began.
func TestVacuumDeletesChangedRowsOfVersionsThatAreOld(t *testing.T) {
	for _, full := range []bool{false, true} {
		dir := t.TempDir()
		st, err := store.NewLocal(dir)
		if err != nil {
			t.Fatal(err)
		}
		table := tableWith(t, st, map[string]string{PropertyChangeDataFeed: "true", PropertyDeletionVectors: "true"})
		if _, err := table.Append(t.Context(), idNames(0, 10)); err != nil {
			t.Fatal(err)
		}
		age := func(name string, by time.Duration) {
			t.Helper()
			at := time.Now().Add(-by)
			if err := os.Chtimes(filepath.Join(dir, filepath.FromSlash(name)), at, at); err != nil {
				t.Fatal(err)
			}
		}
		var changed []string
		for id := range int64(3) {
			s, _, err := table.Delete(t.Context(), nil, func(b *datafile.Batch, row int) bool { return b.Cols[0].I64[row] == id })
			if err != nil {
				t.Fatal(err)
			}
			c, err := fetchOne(t.Context(), st, s.Version())
			if err != nil || len(c.log.changes) != 1 {
				t.Fatal(c, err)
			}
			changed = append(changed, c.log.changes[0].Path)
		}
		age(changed[0], 10*day)
		age(commitName(2), 10*day)
		age(changed[1], 7*day+time.Hour)
		age(commitName(3), 7*day-time.Hour)
		var changes []string
		for _, name := range mustVacuum(t, table, VacuumOptions{Full: full}).Names {
			if slices.Contains(changed, name) {
				changes = append(changes, name)
			}
		}
		if !slices.Equal(changes, changed[:1]) {
			t.Errorf("full %v: deleted %v of %v", full, changes, changed)
		}
		n := 0
		for b, err := range table.Changes(t.Context(), 3, 4, ReadOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			n += b.Rows()
		}
		if n != 2 {
			t.Errorf("full %v: %d changes are left", full, n)
		}
		later(table, day)
		mustVacuum(t, table, VacuumOptions{Full: full})
		if got := objects(t, st); got[changed[1]] || !got[changed[2]] {
			t.Errorf("full %v: a day later %v are left", full, got)
		}
	}
}
