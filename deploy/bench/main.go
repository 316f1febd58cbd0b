// Command bench measures how fast rows are copied, captured, taken the whole way
// and upserted, beside limits and other programs that are measured in the same
// minutes.
//
// It runs Go benchmarks that stand beside their packages, as child processes,
// in rounds, so that a stage and its limit meet the same machine. It prints one
// table and writes one file of JSON lines, a line for each metric of a figure. It
// holds no measurement of its own.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
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
	readme := flags.String("readme", "", "file in which the table takes the place of the one between the lines that mark it")
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
	scale, err := readScale(os.Getenv("SCALE"))
	switch {
	case err != nil:
	case *show != "":
		err = showFile(*show, *readme, stdout)
	default:
		err = measure(ctx, plan{rounds: *rounds, limit: *limit}, scale, *out, *readme, stdout, stderr)
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return 1
	}
	return 0
}

// readScale reads what sizes are multiplied by, which is 0.02 unless it is said.
func readScale(text string) (float64, error) {
	if text == "" {
		return 0.02, nil
	}
	scale, err := strconv.ParseFloat(text, 64)
	if err != nil || scale <= 0 {
		return 0, fmt.Errorf("SCALE is %q, want a number above 0", text)
	}
	return scale, nil
}

// showFile prints the table of an earlier run, and puts it into a file unless
// readme is empty.
func showFile(name, readme string, w io.Writer) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("open results: %w", err)
	}
	defer f.Close()
	results, err := readResults(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return show(results, readme, w)
}

// show prints the table, and puts it into a file unless readme is empty.
func show(results []Result, readme string, w io.Writer) error {
	var b bytes.Buffer
	if err := printTable(&b, results); err != nil {
		return err
	}
	if _, err := w.Write(b.Bytes()); err != nil || readme == "" {
		return err
	}
	return putTable(readme, b.String())
}

// measure runs all rounds, writes the file and prints the table. What was
// measured before an error is written and printed, too.
func measure(ctx context.Context, p plan, scale float64, dir, readme string, stdout, stderr io.Writer) error {
	began := time.Now()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("resolve --out: %w", err)
	}
	m, err := survey(ctx)
	if err != nil {
		return err
	}
	tests, err := build(ctx, scale, stderr)
	if err != nil {
		return err
	}
	defer tests.remove()
	p.began, p.busy, p.figures = began, busy, tests.figures
	p.round = func(ctx context.Context) ([]sample, error) { return tests.round(ctx, stderr) }
	p.note = func(format string, args ...any) {
		fmt.Fprintf(stderr, "bench: "+format+"\n", args...)
	}
	measured, failed := p.run(ctx)
	if len(measured.samples) == 0 {
		return failed
	}
	results := summarize(Run{
		At: began.UTC().Truncate(time.Second), Machine: m, OtherWork: measured.otherWork, Scale: scale, Rounds: len(measured.samples),
	}, tests.figures, measured.samples)
	name := filepath.Join(dir, began.UTC().Format("20060102T150405Z")+".jsonl")
	if err := writeResults(name, results); err != nil {
		return errors.Join(failed, err)
	}
	if failed != nil {
		readme = "" // that keeps the last whole table
	}
	err = show(results, readme, stdout)
	fmt.Fprintf(stdout, "\nwritten to %s after %s\n", name, time.Since(began).Round(time.Second))
	return errors.Join(failed, err)
}
