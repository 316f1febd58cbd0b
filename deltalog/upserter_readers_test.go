package deltalog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deploy/local"
)

// deltaScript prints the rows of a table as delta-rs and as DuckDB's delta
// extension read them, and what filters find, which go by statistics.
const deltaScript = `
import sys
import duckdb, duckdb_ext
from deltalake import DeltaTable, QueryBuilder
path, ids = sys.argv[1], [int(a) for a in sys.argv[2:]]
con = duckdb.connect(config={"allow_unsigned_extensions": "true"})
duckdb_ext.init(con)
con.execute("load delta")
qb = QueryBuilder().register("t", DeltaTable(path))
def both(where):
    a = con.execute(f"select id, name from delta_scan('{path}') {where}").fetchall()
    rows = qb.execute(f"select id, name from t {where}").read_all()
    b = list(zip(rows.column("id").to_pylist(), rows.column("name").to_pylist()))
    assert sorted(a) == sorted(b), (where, len(a), len(b))
    return sorted(a)
for id, name in both(""):
    print(id, name)
for id in ids:
    print("?", *(f"{i} {n}" for i, n in both(f"where id = {id}")))
`

func TestOtherReadersSeeUpserts(t *testing.T) {
	if testing.Short() {
		t.Skip("needs Python")
	}
	python, err := local.Python(t.Context())
	if errors.Is(err, local.ErrNoPython) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	st, err := store.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	table, u := newUpserter(t, st, UpserterOptions{Keys: []string{"id"}})
	rng := rand.New(rand.NewPCG(3, 4))
	want := people{}
	for i := range 30 {
		up := u.Begin()
		rows := make([]person, 200)
		for j := range rows {
			rows[j] = person{rng.Int64N(int64(100 * (i + 1))), fmt.Sprintf("name-%d-%d", i, j)}
		}
		if err := up.Put(t.Context(), batchOf(rows...), keysOf(idsOf(rows)...)); err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			want.put(r, false)
		}
		gone := make([]int64, 40)
		for j := range gone {
			gone[j] = rng.Int64N(int64(100 * (i + 1)))
			want.drop(gone[j])
		}
		if err := up.Delete(t.Context(), keysOf(gone...)); err != nil {
			t.Fatal(err)
		}
		if _, err := up.Commit(t.Context(), CommitExtras{}); err != nil {
			t.Fatal(err)
		}
		if i == 20 {
			if err := table.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	var lines []string
	sorted := make([]person, 0, len(want))
	for r := range want {
		sorted = append(sorted, r)
	}
	slices.SortFunc(sorted, func(a, b person) int { return int(a.id - b.id) })
	for _, r := range sorted {
		lines = append(lines, fmt.Sprintf("%d %s", r.id, r.name))
	}
	script := filepath.Join(t.TempDir(), "delta.py")
	if err := os.WriteFile(script, []byte(deltaScript), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{script, dir}
	for range 10 {
		id := rng.Int64N(3200)
		args = append(args, fmt.Sprint(id))
		line := "?"
		if r, ok := want.byID(id); ok {
			line = fmt.Sprintf("? %d %s", r.id, r.name)
		}
		lines = append(lines, line)
	}
	cmd := exec.CommandContext(t.Context(), python, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	if got := strings.Split(strings.TrimSpace(string(out)), "\n"); !slices.Equal(got, lines) {
		t.Fatalf("others read %d lines, want %d; the first are %q and %q", len(got), len(lines), got[0], lines[0])
	}
}
