package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
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
		samples, err := parse(string(b))
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
	OtherWork: 0.04,
}

func TestTableOfRecordedRounds(t *testing.T) {
	results := summarize(someRun, recorded(t))
	var b bytes.Buffer
	if err := printTable(&b, results); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.txt", b.String())
}

func TestTableOfABusyMachineSaysSo(t *testing.T) {
	r := someRun
	r.OtherWork, r.Changed, r.Commit = 0.35, true, ""
	var b bytes.Buffer
	if err := printTable(&b, summarize(r, recorded(t)[:1])); err != nil {
		t.Fatal(err)
	}
	golden(t, "table_busy.txt", b.String())
}

func TestResultsAreALineEachAndReadBack(t *testing.T) {
	results := summarize(someRun, recorded(t))
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
	got, err := parse("goos: linux\nBenchmarkCopy-2   \tlocal: fetching 10 MB\n12 files were made\n" +
		"       1\t         0.5000 cpu-s/Mrow\t    250000 rows/s\nPASS\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := []sample{{figure: "copy", rows: 250000, cpu: 0.5}}; !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParseTakesFailedBenchmarksForUnmeasured(t *testing.T) {
	got, err := parse("BenchmarkCopy-2   \t--- FAIL: BenchmarkCopy-2\n    bench_test.go:1: no\nFAIL\nexit status 1\n")
	if err != nil || len(got) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestParseRefusesWhatIsNoFigure(t *testing.T) {
	for _, text := range []string{
		"BenchmarkOther-2 1 5 rows/s 5 cpu-s/Mrow\n",
		"BenchmarkCopy-2 1 5 rows/s\n",
		"BenchmarkCopy-2 1 123 ns/op\n",
		"BenchmarkCopy-2 1 0 rows/s 5 cpu-s/Mrow\n",
	} {
		if got, err := parse(text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

func TestEveryFigureHasItsBenchmark(t *testing.T) {
	for _, f := range figures {
		files, err := filepath.Glob(filepath.Join("..", "..", f.pkg, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := slices.ContainsFunc(files, func(name string) bool {
			b, err := os.ReadFile(name)
			return err == nil && strings.Contains(string(b), "func "+f.benchmark+"(b *testing.B)")
		})
		if !found {
			t.Errorf("%s has no %s", f.pkg, f.benchmark)
		}
		if _, ok := figureOf(f.benchmark); !ok {
			t.Errorf("%s is not found", f.benchmark)
		}
		if f.limit != "" && !slices.ContainsFunc(figures, func(o figure) bool { return o.name == f.limit && o.pkg == f.pkg }) {
			t.Errorf("%s has the limit %s, which is not measured beside it", f.name, f.limit)
		}
	}
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
		for _, f := range figures {
			round = append(round, sample{f.name, 1, 1})
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
	n = 0
	broken = nil
	if _, err := p.run(t.Context()); !errors.Is(err, errIncomplete) {
		t.Errorf("a round without every figure: %v", err)
	}
}

func TestMarksAreJudgedByTheMedian(t *testing.T) {
	rounds := [][]sample{
		{{"copy_limit", 1_000_000, 1}, {"copy", 150_000, 1}, {"decode_limit", 400_000, 1}, {"capture", 90_000, 1}},
		{{"copy_limit", 500_000, 1}, {"copy", 110_000, 1}, {"decode_limit", 400_000, 1}, {"capture", 100_000, 1}},
		{{"copy_limit", 1_000_000, 1}, {"copy", 300_000, 1}, {"decode_limit", 400_000, 1}, {"capture", 300_000, 1}},
	}
	results := summarize(someRun, rounds)
	if len(results) != 4 {
		t.Fatalf("%d results", len(results))
	}
	c, k := results[1], results[3]
	if c.OfLimit != 0.22 || !c.Reached || c.Rows.Min != 110_000 || c.Rows.Median != 150_000 || c.Rows.Max != 300_000 {
		t.Errorf("copy: %+v", c)
	}
	if k.OfLimit != 0.25 || !k.Reached || k.Rows.Median != 100_000 {
		t.Errorf("capture: %+v", k)
	}
	if results[0].Mark != "" || results[0].Limit != "" || results[0].OfLimit != 0 {
		t.Errorf("limit: %+v", results[0])
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
