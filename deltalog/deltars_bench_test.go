package deltalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/rowsum"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deploy/local"
)

// mergeSizes are the rows of the table that is merged into, and those of the
// batch, by scale: 100,000 into 10 million at 1.
func mergeSizes(b *testing.B) (rows, size int) {
	rows = int(10_000_000 * scale(b))
	return rows, rows / 100
}

// mergeBatch returns the batch of the n-th merge, in which no key is twice,
// which a merge refuses.
func mergeBatch(b *testing.B, n int) (*datafile.Batch, [][]byte) {
	rows, size := mergeSizes(b)
	r := rand.New(rand.NewPCG(8, uint64(n)))
	batch, keys := datafile.NewBatch(ordersSchema()), make([][]byte, size)
	taken := map[int]bool{}
	for i := range keys {
		row := rows + n*size + i
		if i%5 != 0 {
			for row = r.IntN(rows); taken[row]; {
				row = r.IntN(rows)
			}
			taken[row] = true
		}
		appendOrder(batch, row, r)
		keys[i] = datafile.AppendKey(nil, batch.Cols[:1], i)
	}
	return batch, keys
}

// BenchmarkMergeOfDeltaRS has delta-rs merge the batches that BenchmarkUpsertOfMerge
// upserts, into an equal table, in a process of its own whose time, CPU and
// memory count from when it holds the batch. Then it holds the rows that came of
// it against those that upserts make of the same table.
func BenchmarkMergeOfDeltaRS(b *testing.B) {
	python, err := local.Python(b.Context())
	if errors.Is(err, local.ErrNoPython) {
		b.Skip(err)
	} else if err != nil {
		b.Fatal(err)
	}
	rows, _ := mergeSizes(b)
	theirs, dir := mergeTable(b, rows)
	ours, _ := mergeTable(b, rows)
	u := openOrders(b, ours)
	defer func() { _ = u.Close() }()
	var sum merged
	n := 0
	for b.Loop() {
		b.StopTimer()
		batch, keys := mergeBatch(b, n)
		source := ordersFile(b, batch)
		before := sizesIn(b, dir)
		b.StartTimer()
		got := mergeByDeltaRS(b, python, dir, source)
		b.StopTimer()
		upsertOrders(b, u, batch, keys)
		got.bytes = bytesCome(before, sizesIn(b, dir))
		sum.add(got)
		n++
		b.StartTimer()
	}
	if _, err := theirs.Refresh(b.Context()); err != nil {
		b.Fatal(err)
	}
	if got, want := ordersSum(b, theirs), ordersSum(b, ours); got != want {
		b.Fatalf("the merges of delta-rs made rows %v, upserts %v", got, want)
	}
	sum.report(b, n)
}

// BenchmarkUpsertOfMerge upserts the same batches, whose index is open.
func BenchmarkUpsertOfMerge(b *testing.B) {
	rows, _ := mergeSizes(b)
	t, dir := mergeTable(b, rows)
	u := openOrders(b, t)
	defer func() { _ = u.Close() }()
	var sum merged
	n := 0
	for b.Loop() {
		b.StopTimer()
		batch, keys := mergeBatch(b, n)
		before := sizesIn(b, dir)
		forgetPeak(b)
		b.StartTimer()
		var cpu stopwatch
		cpu.start()
		start := time.Now()
		upsertOrders(b, u, batch, keys)
		got := merged{Seconds: time.Since(start).Seconds()}
		b.StopTimer()
		cpu.stop()
		got.CPU, got.Peak = cpu.sum.Seconds(), peakBytes()
		got.bytes = bytesCome(before, sizesIn(b, dir))
		sum.add(got)
		n++
		b.StartTimer()
	}
	sum.report(b, n)
}

// merged is what merges took.
type merged struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"`
	// Peak is the most memory that was resident, in bytes.
	Peak  int64 `json:"peak"`
	bytes int64
}

func (m *merged) add(o merged) {
	m.Seconds, m.CPU, m.bytes = m.Seconds+o.Seconds, m.CPU+o.CPU, m.bytes+o.bytes
	m.Peak = max(m.Peak, o.Peak)
}

func (m *merged) report(b *testing.B, merges int) {
	b.Helper()
	_, size := mergeSizes(b)
	rows := float64(size * merges)
	b.ReportMetric(rows/m.Seconds, "rows/s")
	b.ReportMetric(m.CPU/rows*1e6, "cpu-s/Mrow")
	b.ReportMetric(float64(m.Peak)/(1<<20), "peak-MiB")
	b.ReportMetric(float64(m.bytes)/rows, "written-bytes/row")
}

// mergeTable returns a table that delta-rs can merge into, and its folder.
func mergeTable(b *testing.B, rows int) (*Table, string) {
	b.Helper()
	dir := b.TempDir()
	return ordersTableIn(b, dir, rows, map[string]string{PropertyDeletionVectors: "true"}), dir
}

// ordersFile returns the path of a Parquet file with rows.
func ordersFile(b *testing.B, rows *datafile.Batch) string {
	b.Helper()
	dir := b.TempDir()
	st, err := store.NewLocal(dir)
	if err != nil {
		b.Fatal(err)
	}
	t, err := Create(b.Context(), st, CreateOptions{Schema: ordersSchema()})
	if err != nil {
		b.Fatal(err)
	}
	return filepath.Join(dir, filepath.FromSlash(writeFile(b, t, FileOptions{}, rows).Path))
}

// mergeByDeltaRS merges the rows of a file into the table in a folder.
func mergeByDeltaRS(b *testing.B, python, dir, source string) merged {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), python, filepath.Join("testdata", "readers", "merge.py"), dir, source, "id")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("merge by delta-rs: %v", err)
	}
	var m merged
	if err := json.Unmarshal(out, &m); err != nil || m.Seconds <= 0 {
		b.Fatalf("merge by delta-rs: it said %q: %v", out, err)
	}
	return m
}

// ordersSum is over the rows of the newest version of a table.
func ordersSum(b *testing.B, t *Table) rowsum.Sum {
	b.Helper()
	s := t.Snapshot()
	e := rowsum.NewEncoder(s.Metadata().Schema)
	var sum rowsum.Sum
	for f := range s.Files() {
		for live, err := range s.ReadFile(b.Context(), f, ReadOptions{}) {
			if err == nil {
				err = sum.AddBatch(e, live.Batch)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	return sum
}

// sizesIn returns the sizes of all files below a folder, by path.
func sizesIn(b *testing.B, dir string) map[string]int64 {
	b.Helper()
	sizes := map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sizes[path] = info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return sizes
}

// bytesCome returns the bytes of the files that have come.
func bytesCome(before, after map[string]int64) int64 {
	come := maps.Clone(after)
	maps.DeleteFunc(come, func(path string, _ int64) bool { _, ok := before[path]; return ok })
	var sum int64
	for _, size := range come {
		sum += size
	}
	return sum
}

// forgetPeak has peakBytes tell of what comes from here on, where the system can
// do that (proc_pid_clear_refs(5)).
func forgetPeak(b *testing.B) {
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o200); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.Log(fmt.Errorf("the peak counts what came before: %w", err))
	}
}
