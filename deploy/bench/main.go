// Command bench measures how fast rows are copied, captured and taken the whole
// way, beside the limits that are measured in the same minutes.
//
// It runs Go benchmarks that stand beside their packages, as child processes,
// in rounds, so that a stage and its limit meet the same machine. It prints one
// table and writes one file of JSON lines, a line for each figure. It holds no
// measurement of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run carries out one command line and returns its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, "Measures Millrace on this machine: go run ./deploy/bench, from the repository's root.\n\n")
		flags.PrintDefaults()
	}
	rounds := flags.Int("rounds", 3, "how often every figure is measured")
	limit := flags.Duration("limit", 10*time.Minute, "no round begins that would end later than this")
	out := flags.String("out", filepath.Join(".local", "bench"), "folder for the file of results")
	show := flags.String("show", "", "print the table of a file of results; nothing is measured")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0 || *rounds < 1 || *limit <= 0:
		flags.Usage()
		return 2
	}
	var err error
	if *show != "" {
		err = showFile(*show, stdout)
	} else {
		err = measure(ctx, plan{rounds: *rounds, limit: *limit}, *out, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 1
	}
	return 0
}

// showFile prints the table of an earlier run.
func showFile(name string, w io.Writer) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("open results: %w", err)
	}
	defer f.Close()
	results, err := readResults(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return printTable(w, results)
}

// measure runs all rounds, writes the file and prints the table. What was
// measured before an error is written and printed, too.
func measure(ctx context.Context, p plan, dir string, stdout, stderr io.Writer) error {
	began := time.Now()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("resolve --out: %w", err)
	}
	m, err := survey(ctx)
	if err != nil {
		return err
	}
	tests, err := build(ctx, stderr)
	if err != nil {
		return err
	}
	defer tests.remove()
	p.began, p.busy = began, busy
	p.round = func(ctx context.Context) ([]sample, error) { return tests.round(ctx, stderr) }
	p.note = func(format string, args ...any) {
		fmt.Fprintf(stderr, "bench: "+format+"\n", args...)
	}
	measured, failed := p.run(ctx)
	results := summarize(Run{At: began.UTC().Truncate(time.Second), Machine: m, OtherWork: measured.otherWork}, measured.samples)
	if len(results) == 0 {
		return failed
	}
	name := filepath.Join(dir, began.UTC().Format("20060102T150405Z")+".jsonl")
	if err := writeResults(name, results); err != nil {
		return errors.Join(failed, err)
	}
	err = printTable(stdout, results)
	fmt.Fprintf(stdout, "\nwritten to %s after %s\n", name, time.Since(began).Round(time.Second))
	return errors.Join(failed, err)
}
