package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it)\n--- got\n%s\n--- want\n%s", name, got, want)
	}
}

// recorded reads rounds as test binaries printed them.
func recorded(t *testing.T) [][]sample {
	t.Helper()
	names, err := filepath.Glob("testdata/round*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("recorded rounds: %v, %v", names, err)
	}
	var rounds [][]sample
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		samples, err := parse(figuresAt(0.1), string(b))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		rounds = append(rounds, samples)
	}
	return rounds
}

var someRun = Run{
	At: time.Date(2026, 11, 23, 20, 15, 0, 0, time.UTC),
	Machine: Machine{
		Cores: 2, CPUModel: "Some CPU @ 2.0GHz", MemoryBytes: 24 << 30, OS: "linux/amd64",
		Go: "go1.26.8", PostgreSQL: "17.10", Commit: "0123456789",
	},
	OtherWork: 0.04, Scale: 0.1, Rounds: 2,
}

// results are those of the recorded rounds.
func results(t *testing.T) []Result { return summarize(someRun, figuresAt(0.1), recorded(t)) }

func TestTableOfRecordedRounds(t *testing.T) {
	var b bytes.Buffer
	if err := printTable(&b, results(t)); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.txt", b.String())
}

func TestTableOfABusyMachineSaysSo(t *testing.T) {
	r := someRun
	r.OtherWork, r.Changed, r.Commit, r.Rounds, r.Scale = 0.35, true, "", 1, 1
	var b bytes.Buffer
	if err := printTable(&b, summarize(r, figuresAt(1), recorded(t)[:1])); err != nil {
		t.Fatal(err)
	}
	golden(t, "table_busy.txt", b.String())
}

func TestResultsAreALineEachAndReadBack(t *testing.T) {
	results := results(t)
	name := filepath.Join(t.TempDir(), "made", "results.jsonl")
	if err := writeResults(name, results); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "results.jsonl", string(b))
	back, err := readResults(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, results) {
		t.Errorf("read back %+v, want %+v", back, results)
	}
}

func TestShowPrintsTheTableOfAFile(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--show", "testdata/results.jsonl"}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit status %d: %s", code, stderr.String())
	}
	golden(t, "table.txt", stdout.String())
}

func TestBadFilesOfResultsAreErrors(t *testing.T) {
	for _, text := range []string{"", "{", "{}\n[]\n"} {
		if got, err := readResults(strings.NewReader(text)); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{"--wat"}, {"wat"}, {"--rounds", "0"}, {"--limit", "-1s"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != 2 || stderr.Len() == 0 || stdout.Len() > 0 {
			t.Errorf("%v: exit status %d, %q, %q", args, code, stdout.String(), stderr.String())
		}
	}
}

func TestParseFindsResultsBelowOtherOutput(t *testing.T) {
	got, err := parse(figuresAt(1), "goos: linux\nBenchmarkCopy-2   \tlocal: fetching 10 MB\n12 files were made\n"+
		"       1\t         0.5000 cpu-s/Mrow\t    250000 rows/s\nPASS\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := []sample{of("copy", 250000, 0.5)}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParseTakesFailedBenchmarksForUnmeasured(t *testing.T) {
	got, err := parse(figuresAt(1), "BenchmarkCopy-2   \t--- FAIL: BenchmarkCopy-2\n    bench_test.go:1: no\nFAIL\nexit status 1\n")
	if err != nil || len(got) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestParseRefusesWhatIsNoFigure(t *testing.T) {
	for _, text := range []string{
		"BenchmarkOther-2 1 5 rows/s 5 cpu-s/Mrow\n",
		"BenchmarkCopy-2 1 5 rows/s\n",
		"BenchmarkCopy-2 1 123 ns/op\n",
	} {
		if got, err := parse(figuresAt(1), text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

func TestParseLeavesOutWhatASystemCannotTell(t *testing.T) {
	got, err := parse(figuresAt(1), "BenchmarkOpenLargeLog/json/300-commits-2 1 99 ns/op 1.2 cpu-s 0 peak-MiB 1.5 s\n")
	if want := []sample{{"log", map[string]float64{"s": 1.5, "cpu-s": 1.2}}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestEveryFigureHasItsBenchmark(t *testing.T) {
	figures := figuresAt(1)
	for _, f := range figures {
		files, err := filepath.Glob(filepath.Join("..", "..", f.pkg, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		benchmark, _, _ := strings.Cut(f.benchmark, "/")
		found := slices.ContainsFunc(files, func(name string) bool {
			b, err := os.ReadFile(name)
			return err == nil && strings.Contains(string(b), "func "+benchmark+"(b *testing.B)")
		})
		if !found {
			t.Errorf("%s has no %s", f.pkg, benchmark)
		}
		for _, m := range f.metrics {
			if m.peer != "" && !slices.ContainsFunc(figures, func(o figure) bool {
				return o.name == m.peer && o.pkg == f.pkg && slices.ContainsFunc(o.metrics, func(p metric) bool { return p.unit == m.unit })
			}) {
				t.Errorf("%s of %s has the peer %s, which is not measured beside it", m.unit, f.name, m.peer)
			}
		}
	}
}

// of is a sample of a stage.
func of(figure string, rows, cpu float64) sample {
	return sample{figure, map[string]float64{"rows/s": rows, "cpu-s/Mrow": cpu}}
}

// every measures all figures, after a time.
func every(took time.Duration) func(context.Context) ([]sample, error) {
	return func(ctx context.Context) ([]sample, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(took):
		}
		var round []sample
		for _, f := range figuresAt(1) {
			round = append(round, sample{figure: f.name})
		}
		return round, nil
	}
}

func TestRoundsEndWhereAnotherWouldPassTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var notes []string
		p := plan{
			rounds: 6, limit: 10 * time.Minute, began: time.Now(), round: every(3 * time.Minute),
			busy: func(context.Context) float64 { return 0.25 },
			note: func(format string, _ ...any) { notes = append(notes, format) },
		}
		m, err := p.run(t.Context())
		if err != nil || len(m.samples) != 3 || m.otherWork != 0.25 {
			t.Errorf("%d rounds, other work %v, %v", len(m.samples), m.otherWork, err)
		}
		if len(notes) != 4 || !strings.Contains(notes[3], "another one would take longer") {
			t.Errorf("notes %q", notes)
		}
	})
}

func TestARoundThatPassesTheLimitIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := plan{
			rounds: 2, limit: time.Minute, began: time.Now(), round: every(time.Hour),
			busy: func(context.Context) float64 { return -1 }, note: func(string, ...any) {},
		}
		m, err := p.run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "1m0s are over") || len(m.samples) != 0 {
			t.Errorf("%d rounds, %v", len(m.samples), err)
		}
	})
}

func TestAFailedRoundKeepsWhatWasMeasured(t *testing.T) {
	broken := errors.New("broken")
	n := 0
	p := plan{
		rounds: 3, limit: time.Hour, began: time.Now(),
		busy: func(context.Context) float64 { return 0 }, note: func(string, ...any) {},
		round: func(ctx context.Context) ([]sample, error) {
			all, err := every(0)(ctx)
			if n++; n == 2 {
				return all[:1], broken
			}
			return all, err
		},
	}
	m, err := p.run(t.Context())
	if !errors.Is(err, broken) || len(m.samples) != 2 || len(m.samples[1]) != 1 {
		t.Errorf("%d rounds, %v", len(m.samples), err)
	}
}

func TestFiguresThatWereNotRunAreBlank(t *testing.T) {
	var notes []string
	p := plan{
		rounds: 1, limit: time.Hour, began: time.Now(), figures: figuresAt(1),
		busy:  func(context.Context) float64 { return 0 },
		round: func(context.Context) ([]sample, error) { return []sample{of("copy", 200_000, 1)}, nil },
		note:  func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) },
	}
	m, err := p.run(t.Context())
	if err != nil || !slices.Contains(notes, "not run: 100,000 upserts into 10,000,000 rows, Spark") {
		t.Errorf("notes %q, %v", notes, err)
	}
	all := summarize(someRun, p.figures, m.samples)
	if r := result(t, all, "upsert_spark", "s"); r.Values != nil {
		t.Errorf("Spark: %+v", r)
	}
	r := result(t, all, "copy", "rows/s")
	if r.OfPeer != 0 || len(r.Marks) != 1 || r.Marks[0].Reached != nil {
		t.Errorf("copy without its limit: %+v", r)
	}
	p.round = func(context.Context) ([]sample, error) { return nil, nil }
	if _, err := p.run(t.Context()); !errors.Is(err, errNothing) {
		t.Errorf("a round without a figure: %v", err)
	}
}

// result returns one of some results.
func result(t *testing.T, all []Result, figure, unit string) *Result {
	t.Helper()
	for i := range all {
		if all[i].Figure == figure && all[i].Unit == unit {
			return &all[i]
		}
	}
	t.Fatalf("no %s of %s", unit, figure)
	return nil
}

// reached tells whether each mark of a result is reached.
func reached(r *Result) []bool {
	var all []bool
	for _, m := range r.Marks {
		all = append(all, m.Reached != nil && *m.Reached)
	}
	return all
}

func TestMarksAreJudgedByTheMedian(t *testing.T) {
	upserts := func(ours, theirs, written, sparks float64) []sample {
		return []sample{
			{"upsert", map[string]float64{"s": ours, "written-MB": written}},
			{"upsert_delta_rs", map[string]float64{"s": theirs}},
			{"upsert_spark", map[string]float64{"written-MB": sparks}},
		}
	}
	rounds := [][]sample{
		append(upserts(2, 9, 15, 10), of("copy_limit", 1_000_000, 1), of("copy", 150_000, 1), of("decode_limit", 400_000, 1), of("capture", 90_000, 1)),
		append(upserts(1, 9, 20, 10), of("copy_limit", 500_000, 1), of("copy", 110_000, 1), of("decode_limit", 400_000, 1), of("capture", 100_000, 1)),
		append(upserts(4, 9, 14, 10), of("copy_limit", 1_000_000, 1), of("copy", 300_000, 1), of("decode_limit", 400_000, 1), of("capture", 300_000, 1)),
	}
	all := summarize(someRun, figuresAt(1), rounds)
	for _, c := range []struct {
		figure, unit string
		want         Spread
		ofPeer       float64
		reached      []bool
	}{
		{"copy", "rows/s", Spread{110_000, 150_000, 300_000, []float64{150_000, 110_000, 300_000}}, 0.22, []bool{true}},
		{"capture", "rows/s", Spread{90_000, 100_000, 300_000, []float64{90_000, 100_000, 300_000}}, 0.25, []bool{true}},
		{"copy_limit", "rows/s", Spread{500_000, 1_000_000, 1_000_000, []float64{1_000_000, 500_000, 1_000_000}}, 0, nil},
		{"upsert", "s", Spread{1, 2, 4, []float64{2, 1, 4}}, 2.0 / 9, []bool{true, false}},
		{"upsert", "written-MB", Spread{14, 15, 20, []float64{15, 20, 14}}, 1.5, []bool{true}},
	} {
		r := result(t, all, c.figure, c.unit)
		if !reflect.DeepEqual(*r.Values, c.want) || r.OfPeer != c.ofPeer || !slices.Equal(reached(r), c.reached) {
			t.Errorf("%s of %s: %+v of %v, %v", c.unit, c.figure, *r.Values, r.OfPeer, reached(r))
		}
	}
}

func TestTablesTakeTheirPlaceInAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "README.md")
	if err := os.WriteFile(name, []byte("above\n<!-- table -->\nold\n<!-- end of table -->\nbelow\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // once more changes nothing
		if code := run(t.Context(), []string{"--show", "testdata/results.jsonl", "--readme", name}, io.Discard, io.Discard); code != 0 {
			t.Fatalf("exit status %d", code)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "readme.md", string(b))
	}
	if err := putTable("testdata/table.txt", "x"); err == nil {
		t.Error("a file without a place for it took a table")
	}
}

func TestTheReadmeHasAPlaceForTheTable(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil || strings.Count(string(b), tableBegins) != 1 || strings.Count(string(b), tableEnds) != 1 {
		t.Errorf("README.md has no place for the table: %v", err)
	}
}

func TestScales(t *testing.T) {
	for text, want := range map[string]float64{"": 0.02, "1": 1, "0.5": 0.5, "0": 0, "-1": 0, "x": 0} {
		if got, err := readScale(text); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestTicksOfProcStat(t *testing.T) {
	idle, all, ok := readTicks("cpu  100 5 20 800 30 1 2 3 0 0\ncpu0 1\n")
	if !ok || idle != 830 || all != 961 {
		t.Errorf("idle %v of %v, %v", idle, all, ok)
	}
	for _, text := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8", "cpu a b c d e f g h"} {
		if _, _, ok := readTicks(text); ok {
			t.Errorf("%q was read", text)
		}
	}
}
