package deltalog

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// goldenDir finds tables that other software wrote, which lie beside the
// module's folder and are not part of it.
func goldenDir(t *testing.T) string {
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for ; filepath.Dir(dir) != dir; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
	}
	golden := filepath.Join(dir, "..", "shared", "golden")
	if _, err := os.Stat(golden); err != nil {
		t.Skip("needs the golden tables, in ../shared/golden beside the module")
	}
	return golden
}

func TestTablesOfOtherWriters(t *testing.T) {
	golden := goldenDir(t)
	entries, err := os.ReadDir(golden)
	if err != nil {
		t.Fatal(err)
	}
	// What is refused, and the words that name the reason.
	refused := map[string]string{
		"deltalog-invalid-protocol-version": "protocol (99,7)",
	}
	// The files of tables that are a log alone.
	logs := map[string]string{"checkpoint": "15", "deltalog-commit-info": "abc"}
	// What is in tables that have no expected rows.
	values := map[string][]int64{"table-with-dv-small": {1, 2, 3, 4, 5, 6, 7, 8}}
	// Timestamps of partitions without a zone are read as UTC; these were
	// written seven hours behind it.
	behind := map[string]int64{"data-reader-partition-values": 7 * 3_600_000_000}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		t.Run(e.Name(), func(t *testing.T) {
			st, err := store.NewLocal(filepath.Join(golden, e.Name(), "delta"))
			if err != nil {
				t.Fatal(err)
			}
			table, err := Open(t.Context(), st)
			if want, ok := refused[e.Name()]; ok {
				if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), want) {
					t.Fatalf("got error %v, want one that names %s", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s := table.Snapshot()
			columns := s.Metadata().Schema.Names()
			expected := expectedFiles(t, filepath.Join(golden, e.Name(), "expected"))
			if want, ok := logs[e.Name()]; ok {
				var paths []string
				for f := range s.Files() {
					paths = append(paths, f.Path)
				}
				if got := strings.Join(paths, " "); got != want {
					t.Fatalf("files %s, want %s", got, want)
				}
				return
			}
			if _, ok := values[e.Name()]; !ok && len(expected) == 0 {
				t.Fatal("there are no expected rows")
			}
			got := map[string]int{}
			var rows int64
			var numbers []int64
			for b, err := range s.Read(t.Context(), ReadOptions{}) {
				if err != nil {
					t.Fatal(err)
				}
				rows += int64(b.Rows())
				if c := b.Column("as_timestamp"); c != nil && behind[e.Name()] != 0 {
					for i, valid := range c.Valid {
						if valid {
							c.I64[i] += behind[e.Name()]
						}
					}
				}
				if c := b.Column("value"); c != nil {
					numbers = append(numbers, c.I64...)
				}
				countRows(got, b)
			}
			if want, ok := values[e.Name()]; ok {
				slices.Sort(numbers)
				if !slices.Equal(numbers, want) {
					t.Fatalf("%d, want %d", numbers, want)
				}
				return
			}
			want := map[string]int{}
			held, err := s.Metadata().Schema.Select(columns...)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range expected {
				readExpected(t, path, held, want)
			}
			if !maps.Equal(got, want) {
				t.Fatalf("%d rows of %d columns (%d distinct) are not those expected (%d distinct)", rows, len(columns), len(got), len(want))
			}
			t.Logf("%d rows, %d of %d columns", rows, len(columns), len(s.Metadata().Schema.Fields))
		})
	}
}

func expectedFiles(t *testing.T, dir string) []string {
	var files []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".parquet") {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// countRows counts the rows of a batch by their canonical encoding.
func countRows(n map[string]int, b *datafile.Batch) {
	for row := range b.Rows() {
		n[string(datafile.AppendCanonical(nil, b.Cols, row))]++
	}
}

func readExpected(t *testing.T, path string, want *schema.Schema, n map[string]int) {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	d, err := datafile.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	for b, err := range d.Read(t.Context(), want, datafile.ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		countRows(n, b)
	}
}

func TestOldVersionsOfTablesOfOtherWriters(t *testing.T) {
	golden := goldenDir(t)
	for _, name := range []string{"125-iterator-bug", "basic-with-inserts-deletes-checkpoint", "checkpoint", "multi-part-checkpoint", "snapshot-repartitioned", "time-travel-start-start20-start40"} {
		t.Run(name, func(t *testing.T) {
			st, err := store.NewLocal(filepath.Join(golden, name, "delta"))
			if err != nil {
				t.Fatal(err)
			}
			table, err := Open(t.Context(), st)
			if err != nil {
				t.Fatal(err)
			}
			// Version by version from the first commit, without checkpoints.
			s := &Snapshot{st: st, version: -1, base: noCheckpoint}
			for v := Version(0); v <= table.Snapshot().Version(); v++ {
				if s, err = s.follow(t.Context(), v, -1); err != nil {
					t.Skipf("the log begins later: %v", err)
				}
				at, err := OpenAt(t.Context(), st, v)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := describe(at), describe(s); got != want {
					t.Fatalf("version %d reads as\n%s\nwant\n%s", v, got, want)
				}
			}
		})
	}
}

func TestChecksumOfOtherWriters(t *testing.T) {
	golden := goldenDir(t)
	n := 0
	for _, name := range []string{"multi-part-checkpoint", "v2-checkpoint-json", "checkpoint", "basic-with-inserts-deletes-checkpoint"} {
		b, err := os.ReadFile(filepath.Join(golden, name, "delta", hintName))
		if err != nil {
			t.Fatal(err)
		}
		h, ok := parseHint(b)
		if !ok {
			t.Errorf("%s: the checksum %s does not match", name, h.Checksum)
		}
		if h.Checksum != "" {
			n++
		}
	}
	if n == 0 {
		t.Error("no file has a checksum")
	}
}

func TestChecksumOfTheProtocolsExample(t *testing.T) {
	const example = `{"k0":"'v 0'", "checksum": "adsaskfljadfkjadfkj", "k1":{"k2": 2, "k3": ["v3", [1, 2], {"k4": "v4", "k5": ["v5", "v6", "v7"]}]}}`
	got, err := jsonChecksum([]byte(example))
	if err != nil || !strings.HasPrefix(got, "6a92d155") {
		t.Fatalf("got %s, %v", got, err)
	}
	if _, err := hex.DecodeString(got); err != nil {
		t.Fatal(err)
	}
}

func TestVectorsOfOtherWriters(t *testing.T) {
	// A vector of delta-kernel-rs's tests, inline.
	v := &Vector{StorageType: "i", PathOrInline: "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", SizeInBytes: 44, Cardinality: 6}
	bm, err := v.read(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(bm.ToArray()); got != "[3 4 7 11 18 29]" {
		t.Fatal(got)
	}
	golden := goldenDir(t)
	st, err := store.NewLocal(filepath.Join(golden, "table-with-dv-small", "delta"))
	if err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, st).Snapshot()
	for f := range s.Files() {
		bm, err := s.ReadVector(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(bm.ToArray(), []uint64{0, 9}) {
			t.Fatal(bm.ToArray())
		}
	}
}
