package deltalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/rowsum"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deploy/local"
)

// BenchmarkUpserts brings one batch into a table of 10 million rows, at a SCALE
// of 1, as deltalog does it and as others do.
func BenchmarkUpserts(b *testing.B) {
	benchmarkUpserts(b, 10_000_000, deltalogUpsert{}, deltaRSMerge{}, sparkMerge{})
}

// BenchmarkManyUpserts is the same with six times as many rows.
func BenchmarkManyUpserts(b *testing.B) {
	benchmarkUpserts(b, 60_000_000, deltalogUpsert{}, deltaRSMerge{})
}

// contender is a program that brings rows into tables.
type contender interface {
	name() string
	// upsert brings a batch into the table in a folder. What it prepares before is
	// not in what it took.
	upsert(b *testing.B, dir string, o *orders) took
}

// took is what some work took.
type took struct {
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"`
	// Peak is the most memory that was resident meanwhile, in bytes; 0 where the
	// system does not tell.
	Peak int64 `json:"peak"`
}

func (t *took) add(o took) {
	t.Seconds, t.CPU, t.Peak = t.Seconds+o.Seconds, t.CPU+o.CPU, max(t.Peak, o.Peak)
}

// report reports the sum of b.N times.
func (t *took) report(b *testing.B) {
	b.Helper()
	b.ReportMetric(t.Seconds/float64(b.N), "s")
	b.ReportMetric(t.CPU/float64(b.N), "cpu-s")
	b.ReportMetric(float64(t.Peak)/(1<<20), "peak-MiB")
}

// orders are a batch of changes: rows, four in five of them changes of rows all
// over a table, no key twice, which a merge refuses.
type orders struct {
	rows *datafile.Batch
	keys [][]byte
	// ids are the values of id.
	ids map[int64]bool
	// file is the path of a Parquet file with the rows.
	file string
}

// benchmarkUpserts has each contender bring the same batch, one hundredth of the
// rows, into a table of its own that is the same. The rows that come of it have
// to be those that were to come; else its figures are void.
func benchmarkUpserts(b *testing.B, rows int, contenders ...contender) {
	rows = int(float64(rows) * scale(b))
	dir := b.TempDir()
	table := ordersTableIn(b, dir, rows, map[string]string{PropertyDeletionVectors: "true"})
	o := newOrders(b, rows)
	var want rowsum.Sum
	for _, c := range contenders {
		b.Run(c.name(), func(b *testing.B) {
			if want.Rows == 0 {
				want = ordersSum(b, table, o.ids)
				if err := want.AddBatch(rowsum.NewEncoder(ordersSchema()), o.rows); err != nil {
					b.Fatal(err)
				}
			}
			var sum took
			written := int64(0)
			for b.Loop() {
				b.StopTimer()
				place := filepath.Join(b.TempDir(), "table")
				linkFolder(b, dir, place)
				before := sizesIn(b, place)
				b.StartTimer()
				one := c.upsert(b, place, o)
				b.StopTimer()
				sum.add(one)
				written += bytesCome(before, sizesIn(b, place))
				if got := ordersSum(b, openIn(b, place), nil); got != want {
					b.Fatalf("%s made %d rows %v, want %d rows %v", c.name(), got.Rows, got, want.Rows, want)
				}
				if err := os.RemoveAll(place); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			sum.report(b)
			b.ReportMetric(float64(written)/float64(b.N)/1e6, "written-MB")
		})
	}
}

// deltalogUpsert is this package, with an index that is open.
type deltalogUpsert struct{}

func (deltalogUpsert) name() string { return "deltalog" }

func (deltalogUpsert) upsert(b *testing.B, dir string, o *orders) took {
	u := openOrders(b, openIn(b, dir))
	defer func() { _ = u.Close() }()
	forgetPeak(b)
	var cpu stopwatch
	cpu.start()
	start := time.Now()
	upsertOrders(b, u, o.rows, o.keys)
	took := took{Seconds: time.Since(start).Seconds(), Peak: peakBytes()}
	cpu.stop()
	took.CPU = cpu.sum.Seconds()
	return took
}

// deltaRSMerge is the merge of delta-rs, in a process that holds the batch.
type deltaRSMerge struct{}

func (deltaRSMerge) name() string { return "delta-rs" }

func (deltaRSMerge) upsert(b *testing.B, dir string, o *orders) took {
	python, err := local.Python(b.Context())
	if errors.Is(err, local.ErrNoPython) {
		b.Skip(err)
	} else if err != nil {
		b.Fatal(err)
	}
	return mergeBy(b, python, "merge.py", dir, o.file, "id")
}

// sparkMerge is the MERGE of Spark, which writes deletion vectors, in a session
// that has merged before and holds the batch.
type sparkMerge struct{}

func (sparkMerge) name() string { return "Spark" }

func (sparkMerge) upsert(b *testing.B, dir string, o *orders) took {
	spark, err := local.FindSpark(b.Context())
	if errors.Is(err, local.ErrNoJava) || errors.Is(err, local.ErrNoPython) {
		b.Skip(err)
	} else if err != nil {
		b.Fatal(err)
	}
	took := mergeBy(b, spark.Python, "sparkmerge.py", dir, o.file, "id", strings.Join(spark.Jars, ","))
	for f := range openIn(b, dir).Snapshot().Files() {
		if f.Vector != nil {
			return took
		}
	}
	b.Fatal("Spark wrote no deletion vector")
	return took
}

// mergeBy has a program in testdata/readers merge.
func mergeBy(b *testing.B, python, program string, args ...string) took {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), python, append([]string{filepath.Join("testdata", "readers", program)}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("%s: %v", program, err)
	}
	var t took
	if err := json.Unmarshal(out, &t); err != nil || t.Seconds <= 0 {
		b.Fatalf("%s said %q: %v", program, out, err)
	}
	return t
}

// newOrders returns a batch for a table of so many rows.
func newOrders(b *testing.B, rows int) *orders {
	b.Helper()
	size := rows / 100
	r := rand.New(rand.NewPCG(8, 9))
	o := &orders{rows: datafile.NewBatch(ordersSchema()), keys: make([][]byte, size), ids: map[int64]bool{}}
	for i := range o.keys {
		row := rows + i
		if i%5 != 0 {
			for row = r.IntN(rows); o.ids[orderID(row)]; {
				row = r.IntN(rows)
			}
		}
		appendOrder(o.rows, row, r)
		o.ids[orderID(row)] = true
		o.keys[i] = datafile.AppendKey(nil, o.rows.Cols[:1], i)
	}
	dir := b.TempDir()
	st, err := store.NewLocal(dir)
	if err != nil {
		b.Fatal(err)
	}
	t, err := Create(b.Context(), st, CreateOptions{Schema: ordersSchema()})
	if err != nil {
		b.Fatal(err)
	}
	o.file = filepath.Join(dir, filepath.FromSlash(writeFile(b, t, FileOptions{}, o.rows).Path))
	return o
}

// openIn opens the table in a folder.
func openIn(b *testing.B, dir string) *Table {
	b.Helper()
	st, err := store.NewLocal(dir)
	if err != nil {
		b.Fatal(err)
	}
	t, err := Open(b.Context(), st)
	if err != nil {
		b.Fatal(err)
	}
	return t
}

// ordersSum is over the rows of the newest version of a table but for those with
// some ids.
func ordersSum(b *testing.B, t *Table, without map[int64]bool) rowsum.Sum {
	b.Helper()
	s := t.Snapshot()
	var mu sync.Mutex
	var sum rowsum.Sum
	g, ctx := errgroup.WithContext(b.Context())
	g.SetLimit(runtime.GOMAXPROCS(0))
	for f := range s.Files() {
		g.Go(func() error {
			part, err := fileSum(ctx, s, f, without)
			mu.Lock()
			defer mu.Unlock()
			sum.Add(part)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return sum
}

func fileSum(ctx context.Context, s *Snapshot, f *File, without map[int64]bool) (rowsum.Sum, error) {
	var sum rowsum.Sum
	e := rowsum.NewEncoder(s.Metadata().Schema)
	for live, err := range s.ReadFile(ctx, f, ReadOptions{}) {
		if err != nil {
			return sum, err
		}
		for row := range live.Batch.Rows() {
			if without[live.Batch.Cols[0].I64[row]] {
				continue
			}
			line, err := e.Row(live.Batch, row)
			if err != nil {
				return sum, err
			}
			sum.AddRow(line)
		}
	}
	return sum, nil
}

// linkFolder makes a folder of links to another's files. Tables are never
// changed in place, so that it is a copy.
func linkFolder(b *testing.B, from, to string) {
	b.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		return os.Link(path, filepath.Join(to, rel))
	})
	if err != nil {
		b.Fatal(err)
	}
}

// sizesIn returns the sizes of all files below a folder, by path. Hidden files
// are left out: Hadoop's client puts checksums of its own beside each file.
func sizesIn(b *testing.B, dir string) map[string]int64 {
	b.Helper()
	sizes := map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
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

// bytesCome returns the bytes of the files that have come: data, deletion
// vectors and log.
func bytesCome(before, after map[string]int64) int64 {
	var sum int64
	for path, size := range after {
		if _, ok := before[path]; !ok {
			sum += size
		}
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
