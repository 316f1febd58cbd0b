package deltalog

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deploy/local"
)

// TestChecksumIsWhatAnotherProgramMakesOfWhatOthersRead holds the checksums of tables that others
// wrote against those that canon.py, which lies beside the module's folder, makes
// of what others read of them, and of the rows that they are to have.
func TestChecksumIsWhatAnotherProgramMakesOfWhatOthersRead(t *testing.T) {
	if testing.Short() {
		t.Skip("needs Python")
	}
	golden := goldenDir(t)
	canon := filepath.Join(golden, "..", "local", "canon.py")
	if _, err := os.Stat(canon); err != nil {
		t.Skip("needs ../shared/local/canon.py beside the module")
	}
	p, err := serve(t, "delta-rs", startPython)
	if errors.Is(err, local.ErrNoPython) && !*conformance {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	compare := func(t *testing.T, st store.Store, sources map[string]string) {
		t.Helper()
		sum, err := sumAt(t.Context(), st, mustOpen(t, st).Snapshot().Version())
		if err != nil {
			t.Fatal(err)
		}
		for reader, path := range sources {
			got := p.ask(question{Reader: reader, Path: path, Canon: canon})
			if got.Error != "" || got.Rows != sum.Rows || got.Checksum != sum.String() {
				t.Errorf("%d rows with checksum %s; of %s: %d rows with %s, error %q", sum.Rows, sum, reader, got.Rows, got.Checksum, got.Error)
			}
		}
	}
	folders := func(pattern string) []string {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) < 20 {
			t.Fatalf("%d tables are %s: %v", len(found), pattern, err)
		}
		return found
	}
	for _, dir := range folders(filepath.Join(golden, "*", "delta")) {
		name := filepath.Base(filepath.Dir(dir))
		if slices.Contains([]string{"deltalog-invalid-protocol-version", "checkpoint", "deltalog-commit-info"}, name) {
			continue // it is refused, or has no data files
		}
		t.Run(name, func(t *testing.T) {
			st, err := store.NewLocal(dir)
			if err != nil {
				t.Fatal(err)
			}
			sources := map[string]string{"delta-rs": dir}
			// Timestamps of the rows that it is to have are seven hours ahead: see
			// TestTablesOfOtherWriters.
			rows := filepath.Join(filepath.Dir(dir), "expected")
			if _, err := os.Stat(rows); err == nil && name != "data-reader-partition-values" {
				sources["parquet"] = rows
			}
			compare(t, st, sources)
		})
	}
	for _, path := range folders(filepath.Join("testdata", "spark", "*", "versions.json")) {
		dir := filepath.Dir(path)
		name := filepath.Base(dir)
		if refusedSparkTables[name] != "" {
			continue
		}
		t.Run("spark "+name, func(t *testing.T) {
			st := sparkTable(t, dir)
			reader := "delta-rs"
			if slices.Contains([]string{"type-widening", "all-types"}, name) {
				reader = "duckdb" // the other refuses the first, and wraps INT96 timestamps of far years
			}
			compare(t, st, map[string]string{reader: strings.TrimPrefix(st.URI(), "file://")})
		})
	}
}
