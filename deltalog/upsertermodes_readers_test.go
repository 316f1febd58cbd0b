package deltalog

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deploy/local"
)

// upserterModes are the properties, partitions and options of tables with all that
// upserts keep.
var upserterModes = []struct {
	name       string
	partition  []string
	properties map[string]string
	o          UpserterOptions
}{
	{"partitions", []string{"name"}, map[string]string{PropertyDeletionVectors: "true"}, UpserterOptions{Keys: []string{"id"}}},
	{"row tracking", nil, map[string]string{PropertyDeletionVectors: "true", PropertyRowTracking: "true"}, UpserterOptions{Keys: []string{"id"}}},
	{"change data feed", nil, map[string]string{PropertyDeletionVectors: "true", PropertyChangeDataFeed: "true"}, UpserterOptions{Keys: []string{"id"}}},
	{"all", []string{"name"}, map[string]string{
		PropertyDeletionVectors: "true", PropertyRowTracking: "true", PropertyChangeDataFeed: "true",
	}, UpserterOptions{Keys: []string{"id"}}},
	{"all, copied", []string{"name"}, map[string]string{PropertyRowTracking: "true", PropertyChangeDataFeed: "true"}, UpserterOptions{
		Keys: []string{"id"}, CopyOnWrite: true,
	}},
	// Partition columns under column mapping are all NULL to DuckDB.
	{"all, mapped", nil, map[string]string{
		PropertyRowTracking: "true", PropertyChangeDataFeed: "true", PropertyColumnMapping: "name",
	}, UpserterOptions{Keys: []string{"id"}, CopyOnWrite: true}},
	{"rows without key", []string{"name"}, map[string]string{PropertyDeletionVectors: "true", PropertyChangeDataFeed: "true"}, UpserterOptions{
		Multiset: true, Columns: []string{"id", "name"},
	}},
}

// feedScript prints the changes of a table from a version on, as delta-rs reads
// them.
const feedScript = `
import sys
from deltalake import DeltaTable
import pyarrow as pa
changes = pa.table(DeltaTable(sys.argv[1]).load_cdf(starting_version=int(sys.argv[2])))
for r in changes.select(["_commit_version", "_change_type", "id", "name"]).to_pylist():
    print(r["_commit_version"], r["_change_type"], r["id"], r["name"])
`

func TestOthersReadUpsertsOfEveryMode(t *testing.T) {
	o := otherReaders(t)
	python, err := local.Python(t.Context())
	if err != nil && !errors.Is(err, local.ErrNoPython) {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "feed.py")
	if err := os.WriteFile(script, []byte(feedScript), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range upserterModes {
		t.Run(mode.name, func(t *testing.T) {
			dir := t.TempDir()
			upsertOfMode(t, dir, mode.partition, mode.properties, mode.o)
			st, err := store.NewLocal(dir)
			if err != nil {
				t.Fatal(err)
			}
			table := mustOpen(t, st)
			lines, err := readLines(t.Context(), table.Snapshot())
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range o.names() {
				if err := o.see(name, dir, table.Snapshot().Protocol(), expected{rows: lines}); err != nil {
					t.Error(err)
				}
			}
			if spark := o.readers["spark"]; spark != nil && mode.properties[PropertyRowTracking] != "" {
				want, err := readRowIDs(table.Snapshot())
				if err != nil {
					t.Fatal(err)
				}
				var ids []string
				for id, r := range want {
					ids = append(ids, fmt.Sprintf(`{"id":%d,"name":%q,"rowId":%d,"version":%d}`, r.id, r.name, id, r.version))
				}
				got := sparkSelects(t, spark, dir, "id, name, _metadata.row_id AS rowId, _metadata.row_commit_version AS version FROM {T}")
				if d := differences(got, ids); d != "" {
					t.Errorf("spark reads other row ids: %s", d)
				}
			}
			if mode.properties[PropertyChangeDataFeed] == "" {
				return
			}
			var want []string
			for b, err := range table.Changes(t.Context(), 2, table.Snapshot().Version(), ReadOptions{}) {
				if err != nil {
					t.Fatal(err)
				}
				for row := range b.Rows() {
					want = append(want, fmt.Sprintf("%d %s %d %s", b.Column(ColumnCommitVersion).I64[row],
						b.Column(ColumnChangeType).At(row), b.Column("id").I64[row], b.Column("name").At(row)))
				}
			}
			if spark := o.readers["spark"]; spark != nil {
				got := sparkSelects(t, spark, dir, "concat_ws(' ', _commit_version, _change_type, id, name) AS line FROM table_changes_by_path('"+dir+"', 2)")
				for i, line := range got {
					got[i] = strings.TrimSuffix(strings.TrimPrefix(line, `{"line":"`), `"}`)
				}
				if d := differences(got, want); d != "" {
					t.Errorf("spark reads other changes: %s", d)
				}
			}
			out, err := exec.CommandContext(t.Context(), python, script, dir, "2").CombinedOutput()
			if mode.properties[PropertyColumnMapping] != "" {
				if !strings.Contains(string(out), "Column mapping is not supported") {
					t.Errorf("delta-rs was to refuse the changes: %v: %s", err, out)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if d := differences(strings.Split(strings.TrimSpace(string(out)), "\n"), want); d != "" {
				t.Errorf("delta-rs reads other changes: %s", d)
			}
		})
	}
}

// upsertOfMode makes a table by upserts that insert, update, delete and move rows,
// and by compactions.
func upsertOfMode(t *testing.T, dir string, partition []string, properties map[string]string, o UpserterOptions) {
	t.Helper()
	st, err := store.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Create(t.Context(), st, CreateOptions{Schema: idName(), PartitionColumns: partition, Properties: properties})
	if err != nil {
		t.Fatal(err)
	}
	u, err := OpenUpserter(t.Context(), table, t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	r := rand.New(rand.NewPCG(5, 6))
	want := people{}
	for i := range 12 {
		up := u.Begin()
		var rows []person
		for range 60 {
			rows = append(rows, person{r.Int64N(100 + int64(20*i)), fmt.Sprint("part-", r.IntN(4))})
		}
		if err := up.Put(t.Context(), batchOf(rows...), keysOf(idsOf(rows)...)); err != nil {
			t.Fatal(err)
		}
		for _, p := range rows {
			want.put(p, o.Multiset)
		}
		var gone []person
		for p := range maps.Keys(want) {
			if p.id%7 == int64(i%7) {
				gone = append(gone, p)
			}
		}
		if o.Multiset {
			err = up.TakeOne(t.Context(), batchOf(gone...))
		} else {
			err = up.Delete(t.Context(), keysOf(idsOf(gone)...))
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range gone {
			want.take(p)
		}
		if _, err := up.Commit(t.Context(), CommitExtras{}); err != nil {
			t.Fatal(err)
		}
		if i%5 == 4 {
			if _, err := table.Compact(t.Context(), CompactOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := checkPeople(t, st, want)
	if properties[PropertyRowTracking] != "" {
		if _, err := readRowIDs(s); err != nil {
			t.Fatal(err)
		}
	}
	if n := countLive(mustFsck(t, st, FsckOptions{})); n > 0 {
		t.Errorf("fsck finds %d faults", n)
	}
}

// sparkSelects returns the rows that a query of Spark finds.
func sparkSelects(t *testing.T, spark *program, dir, query string) []string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "selected")
	if got := spark.ask(question{SQL: "CREATE TABLE delta.`" + out + "` USING delta AS SELECT " + query, Path: dir}); got.Error != "" {
		t.Fatal(got.Error)
	}
	st, err := store.NewLocal(out)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := readLines(t.Context(), mustOpen(t, st).Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	return lines
}
