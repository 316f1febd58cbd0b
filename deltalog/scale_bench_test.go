package deltalog

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// scale is what the sizes of the benchmarks below are multiplied with: SCALE in
// the environment, and 0.02 without. At 1 the table has 10 million rows.
func scale(b *testing.B) float64 {
	text := os.Getenv("SCALE")
	if text == "" {
		return 0.02
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f <= 0 {
		b.Fatalf("SCALE is %q, want a number", text)
	}
	return f
}

// ordersSchema is that of a table of ten mixed columns, of some 100 bytes a row.
func ordersSchema() *schema.Schema {
	s := &schema.Schema{}
	for _, c := range []struct {
		name string
		typ  schema.Type
	}{
		{"id", schema.Type{Kind: schema.Long}},
		{"amount", schema.Type{Kind: schema.Decimal, Precision: 12, Scale: 2}},
		{"at", schema.Type{Kind: schema.Timestamp}},
		{"customer", schema.Type{Kind: schema.String}},
		{"note", schema.Type{Kind: schema.String}},
		{"state", schema.Type{Kind: schema.String}},
		{"paid", schema.Type{Kind: schema.Boolean}},
		{"day", schema.Type{Kind: schema.Date}},
		{"weight", schema.Type{Kind: schema.Double}},
		{"items", schema.Type{Kind: schema.Integer}},
	} {
		s.Fields = append(s.Fields, schema.Field{Name: c.name, Type: c.typ, Nullable: true})
	}
	return s
}

var orderWords = strings.Fields("red green blue amber large small round square heavy light early late north south")

// orderID spreads the rows of a table over all keys, whatever their number.
func orderID(n int) int64 { return int64(uint32(n) * 2654435761) }

// appendOrder appends a row and returns its logical bytes.
func appendOrder(b *datafile.Batch, n int, r *rand.Rand) int {
	x := r.Uint64()
	customer := fmt.Sprintf("%08x-%04x-4%03x", uint32(x), uint16(x>>32), uint16(x>>48)&0xfff)
	note := orderWords[x%14] + " " + orderWords[x>>8%14] + " " + orderWords[x>>16%14] + " and " + orderWords[x>>24%14]
	state := orderWords[x>>40%4]
	b.Cols[0].AppendInt(orderID(n))
	b.Cols[1].AppendInt(int64(x % 10_000_000))
	b.Cols[2].AppendInt(1_700_000_000_000_000 + int64(n)*1_000_003)
	b.Cols[3].AppendString(customer)
	b.Cols[4].AppendString(note)
	b.Cols[5].AppendString(state)
	b.Cols[6].AppendBool(x&1 == 0)
	b.Cols[7].AppendInt(19_000 + int64(x>>20%700))
	b.Cols[8].AppendFloat(float64(x>>11) / 1e6)
	b.Cols[9].AppendInt(int64(x >> 33 % 50))
	return 8 + 8 + 8 + len(customer) + len(note) + len(state) + 1 + 4 + 8 + 4
}

// ordersTable returns a table of rows in ten files.
func ordersTable(b *testing.B, rows int) *Table {
	b.Helper()
	return ordersTableIn(b, b.TempDir(), rows, latestProperties())
}

// ordersTableIn is the same with a folder and properties.
func ordersTableIn(b *testing.B, dir string, rows int, properties map[string]string) *Table {
	b.Helper()
	st, err := store.NewLocal(dir)
	if err != nil {
		b.Fatal(err)
	}
	t, err := Create(b.Context(), st, CreateOptions{Schema: ordersSchema(), Properties: properties})
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	c := &Commit{Operation: "WRITE", BlindAppend: true}
	batch := datafile.NewBatch(ordersSchema())
	for n := 0; n < rows; {
		w, err := t.NewFile(b.Context(), FileOptions{})
		if err != nil {
			b.Fatal(err)
		}
		for end := min(rows, n+(rows+9)/10); n < end; {
			batch.Reset()
			for range min(8192, end-n) {
				appendOrder(batch, n, r)
				n++
			}
			if err := w.Write(batch); err != nil {
				b.Fatal(err)
			}
		}
		f, err := w.Close()
		if err != nil {
			b.Fatal(err)
		}
		c.Add = append(c.Add, f)
	}
	mustCommit(b, t, c)
	return t
}

// ordersBatch returns rows of which four in five are in a table of so many.
func ordersBatch(size, rows int, r *rand.Rand) (*datafile.Batch, [][]byte) {
	batch := datafile.NewBatch(ordersSchema())
	keys := make([][]byte, size)
	for i := range keys {
		n := rows + i
		if i%5 != 0 {
			n = r.IntN(rows)
		}
		appendOrder(batch, n, r)
		keys[i] = datafile.AppendKey(nil, batch.Cols[:1], i)
	}
	return batch, keys
}

func upsertOrders(b *testing.B, u *Upserter, batch *datafile.Batch, keys [][]byte) {
	b.Helper()
	up := u.Begin()
	if err := up.Put(b.Context(), batch, keys); err != nil {
		b.Fatal(err)
	}
	if _, err := up.Commit(b.Context(), CommitExtras{}); err != nil {
		b.Fatal(err)
	}
}

func openOrders(b *testing.B, t *Table) *Upserter {
	b.Helper()
	u, err := OpenUpserter(b.Context(), t, b.TempDir(), UpserterOptions{Keys: []string{"id"}})
	if err != nil {
		b.Fatal(err)
	}
	return u
}

// BenchmarkUpsertIntoTenfold tells how many times as long, and as much CPU, the
// batches of the same size take where the table is ten times as large. They are
// brought into both in turn.
func BenchmarkUpsertIntoTenfold(b *testing.B) {
	large := int(10_000_000 * scale(b))
	small := large / 10
	const batches = 5
	size := small / 100
	sizes := [2]int{small, large}
	var us [2]*Upserter
	for i, rows := range sizes {
		us[i] = openOrders(b, ordersTable(b, rows))
		defer func() { _ = us[i].Close() }()
	}
	var wall, cpu [2]time.Duration
	r := rand.New(rand.NewPCG(5, 6))
	for b.Loop() {
		for n := range 2 * batches {
			b.StopTimer()
			i := n % 2
			batch, keys := ordersBatch(size, sizes[i], r)
			b.StartTimer()
			var used stopwatch
			used.start()
			start := time.Now()
			upsertOrders(b, us[i], batch, keys)
			wall[i] += time.Since(start)
			used.stop()
			cpu[i] += used.sum
		}
	}
	b.ReportMetric(float64(wall[1])/float64(wall[0]), "times")
	b.ReportMetric(float64(cpu[1])/float64(cpu[0]), "times-cpu")
}

// BenchmarkAppendOrders writes a million rows into a data file, on one core.
func BenchmarkAppendOrders(b *testing.B) {
	const rows = 1_000_000
	st, err := store.NewLocal(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	t, err := Create(b.Context(), st, CreateOptions{Schema: ordersSchema()})
	if err != nil {
		b.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	batch, logical := datafile.NewBatch(ordersSchema()), 0
	r := rand.New(rand.NewPCG(6, 7))
	for n := range rows {
		logical += appendOrder(batch, n, r)
	}
	b.SetBytes(int64(logical))
	var cpu stopwatch
	cpu.start()
	for b.Loop() {
		f := writeFile(b, t, FileOptions{}, batch)
		b.ReportMetric(float64(f.Size)/float64(rows), "bytes/row")
	}
	cpu.stop()
	reportRows(b, rows, cpu.sum)
	b.ReportMetric(float64(logical)*float64(b.N)/1e6/cpu.sum.Seconds(), "MB/cpu-s")
}

// BenchmarkIndexOrders builds the index of a table anew.
func BenchmarkIndexOrders(b *testing.B) {
	rows := int(10_000_000 * scale(b))
	t := ordersTable(b, rows)
	forgetPeak(b)
	var cpu stopwatch
	cpu.start()
	for b.Loop() {
		if err := openOrders(b, t).Close(); err != nil {
			b.Fatal(err)
		}
	}
	cpu.stop()
	reportRows(b, rows, cpu.sum)
	b.ReportMetric(float64(peakBytes())/(1<<20), "peak-MiB")
}

// BenchmarkCompactOrders rewrites a table's ten files as one.
func BenchmarkCompactOrders(b *testing.B) {
	rows := int(1_000_000 * scale(b))
	var cpu stopwatch
	for b.Loop() {
		b.StopTimer()
		t := ordersTable(b, rows)
		b.StartTimer()
		cpu.start()
		mustCompact(b, t, CompactOptions{})
		cpu.stop()
	}
	reportRows(b, rows, cpu.sum)
}

// reportRows tells how many rows were dealt with in a second, and in a second of
// CPU, of whichever core: other work on the machine counts in the first alone.
func reportRows(b *testing.B, rows int, cpu time.Duration) {
	b.Helper()
	n := float64(rows) * float64(b.N)
	b.ReportMetric(n/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(n/cpu.Seconds(), "rows/cpu-s")
}

// stopwatch sums the CPU of the process while it runs.
type stopwatch struct{ began, sum time.Duration }

func (w *stopwatch) start() { w.began = cpuTime() }
func (w *stopwatch) stop()  { w.sum += cpuTime() - w.began }

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakBytes returns the most memory that the process has had resident, or 0
// where the system does not tell. What came before forgetPeak does not count.
func peakBytes() int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}
