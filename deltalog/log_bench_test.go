package deltalog

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog/store"
)

// openDir is the environment of a process that opens a table: a folder with it.
const openDir = "DELTALOG_OPEN_DIR"

// largeLogFiles are the files of a large log.
const largeLogFiles = 300_000

// BenchmarkOpenLargeLog opens a table in a process of its own, whose memory
// counts from its start.
func BenchmarkOpenLargeLog(b *testing.B) {
	if dir := os.Getenv(openDir); dir != "" {
		openLargeLog(b, dir)
		return
	}
	for _, c := range []struct {
		name       string
		commits    int
		checkpoint bool
	}{{"json/300-commits", 300, false}, {"json/3000-commits", 3000, false}, {"checkpoint", 300, true}} {
		b.Run(c.name, func(b *testing.B) {
			dir := b.TempDir()
			st, err := store.NewLocal(tableIn(dir))
			if err != nil {
				b.Fatal(err)
			}
			table := largeLog(b, st, largeLogFiles, c.commits)
			if c.checkpoint {
				if err := table.Checkpoint(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			var sum took
			for b.Loop() {
				one := openLargeLogInChild(b, dir)
				sum.add(one)
			}
			sum.report(b)
		})
	}
}

// openLargeLogInChild runs openLargeLog in a process of its own.
func openLargeLogInChild(b *testing.B, dir string) took {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkOpenLargeLog$", "-test.benchtime=1x")
	cmd.Env = append(os.Environ(), openDir+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("open the table in a process: %v\n%s", err, out)
	}
	text, err := os.ReadFile(tookFile(dir))
	if err != nil {
		b.Fatal(err)
	}
	var t took
	if err := json.Unmarshal(text, &t); err != nil {
		b.Fatal(err)
	}
	return t
}

// openLargeLog opens the table and notes beside it what that took.
func openLargeLog(b *testing.B, dir string) {
	st, err := store.NewLocal(tableIn(dir))
	if err != nil {
		b.Fatal(err)
	}
	var cpu stopwatch
	cpu.start()
	start := time.Now()
	table, err := Open(context.Background(), st)
	if err != nil {
		b.Fatal(err)
	}
	t := took{Seconds: time.Since(start).Seconds(), Peak: peakBytes()}
	cpu.stop()
	t.CPU = cpu.sum.Seconds()
	if n := table.Snapshot().NumFiles(); n != largeLogFiles {
		b.Fatalf("%d files", n)
	}
	text, err := json.Marshal(t)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(tookFile(dir), text, 0o600); err != nil {
		b.Fatal(err)
	}
}

func tableIn(dir string) string  { return filepath.Join(dir, "table") }
func tookFile(dir string) string { return filepath.Join(dir, "took.json") }
