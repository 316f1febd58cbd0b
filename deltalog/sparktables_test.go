package deltalog

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/rowsum"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deploy/local"
)

var updateSpark = flag.Bool("update-spark", false, "have Spark make the tables in testdata/spark anew")

// refusedSparkTables are tables of testdata/spark that are not read, with the
// word that the error names.
var refusedSparkTables = map[string]string{
	"variant": "variant",
}

func TestTablesThatSparkWrote(t *testing.T) {
	root := filepath.Join("testdata", "spark")
	if *updateSpark {
		makeSparkTables(t, root)
	}
	tables, err := filepath.Glob(filepath.Join(root, "*", "versions.json"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables in %s: %v", root, err)
	}
	for _, path := range tables {
		dir := filepath.Dir(path)
		name := filepath.Base(dir)
		t.Run(name, func(t *testing.T) {
			st := sparkTable(t, dir)
			table, err := Open(t.Context(), st)
			if want, ok := refusedSparkTables[name]; ok {
				if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), want) {
					t.Fatalf("got error %v, want one that names %s", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := readLines(t.Context(), table.Snapshot())
			if err != nil {
				t.Fatal(err)
			}
			if d := differences(got, readJSONLines(t, filepath.Join(dir, "rows.jsonl"))); d != "" {
				t.Error(d)
			}
			compareVersions(t, st, path, table.Snapshot().Version())
		})
	}
}

// sparkTable opens the table in a folder, which may be packed.
func sparkTable(t *testing.T, dir string) store.Store {
	t.Helper()
	packed, err := os.ReadFile(filepath.Join(dir, "table.tar.gz"))
	if err == nil {
		dir = t.TempDir()
		unpack(t, dir, packed)
	}
	st, err := store.NewLocal(filepath.Join(dir, "table"))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func unpack(t *testing.T, dir string, packed []byte) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err == nil && h.Typeflag == tar.TypeDir {
			err = root.MkdirAll(strings.TrimSuffix(h.Name, "/"), 0o755)
		} else if err == nil {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = root.WriteFile(h.Name, b, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// compareVersions holds the checksums of all versions against a file of them.
func compareVersions(t *testing.T, st store.Store, path string, newest Version) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var versions map[string]struct {
		Rows     int64
		Checksum string
	}
	if err := json.Unmarshal(b, &versions); err != nil {
		t.Fatal(err)
	}
	if int(newest) != len(versions)-1 {
		t.Errorf("the newest version is %d, want %d", newest, len(versions)-1)
	}
	for text, want := range versions {
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		got, err := sumAt(t.Context(), st, Version(v))
		if err != nil {
			t.Errorf("version %d: %v", v, err)
			continue
		}
		if got.Rows != want.Rows || got.String() != want.Checksum {
			t.Errorf("version %d: %d rows with checksum %s, want %d with %s", v, got.Rows, got, want.Rows, want.Checksum)
		}
	}
}

func sumAt(ctx context.Context, st store.Store, v Version) (rowsum.Sum, error) {
	s, err := OpenAt(ctx, st, v)
	if err != nil {
		return rowsum.Sum{}, err
	}
	return rowsum.Of(ctx, s.Metadata().Schema, s.Read(ctx, ReadOptions{}))
}

func readJSONLines(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range bytes.Lines(b) {
		lines = append(lines, string(bytes.TrimSuffix(line, []byte("\n"))))
	}
	return lines
}

func makeSparkTables(t *testing.T, root string) {
	t.Helper()
	spark, err := local.FindSpark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), spark.Python, filepath.Join(root, "make.py"), root, strings.Join(spark.Jars, ","))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}

func TestChangesOfATableThatSparkWrote(t *testing.T) {
	dir := filepath.Join("testdata", "spark", "change-data-feed")
	st, err := store.NewLocal(filepath.Join(dir, "table"))
	if err != nil {
		t.Fatal(err)
	}
	table := mustOpen(t, st)
	s := table.Snapshot().Metadata().Schema
	var got []string
	for b, err := range table.Changes(t.Context(), 0, table.Snapshot().Version(), ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		columns := b.Names
		for row := range b.Rows() {
			line := map[string]any{}
			for i, name := range columns {
				if name == ColumnCommitTime {
					continue
				}
				switch c := b.Cols[i]; {
				case !c.Valid[row]:
					line[name] = nil
				case len(c.I64) > 0:
					line[name] = c.I64[row]
				default:
					line[name] = string(c.At(row))
				}
			}
			got = append(got, jsonText(line))
		}
	}
	if len(s.Fields) != 3 {
		t.Fatalf("the table has columns %v", s.Names())
	}
	if d := differences(got, readJSONLines(t, filepath.Join(dir, "changes.jsonl"))); d != "" {
		t.Error(d)
	}
}
