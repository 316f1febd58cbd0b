package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// binaries are the test binaries of the packages that hold benchmarks.
type binaries struct {
	dir      string
	packages []string
	figures  []figure
	// scale is what they multiply sizes by.
	scale float64
}

// build compiles the tests of every package with figures, once for all rounds.
func build(ctx context.Context, scale float64, stderr io.Writer) (*binaries, error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for test binaries: %w", err)
	}
	t := &binaries{dir: dir, figures: figuresAt(scale), scale: scale}
	for _, f := range t.figures {
		name := t.binary(f.pkg)
		if _, err := os.Stat(name); err == nil {
			continue
		}
		t.packages = append(t.packages, f.pkg)
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", name, "./"+f.pkg)
		cmd.Stdout, cmd.Stderr = stderr, stderr
		if err := cmd.Run(); err != nil {
			t.remove()
			return nil, fmt.Errorf("build the tests of %s: %w", f.pkg, err)
		}
	}
	return t, nil
}

// binary is where the test binary of a package lies.
func (t *binaries) binary(pkg string) string {
	return filepath.Join(t.dir, strings.ReplaceAll(pkg, "/", "_")+".test")
}

func (t *binaries) remove() { _ = os.RemoveAll(t.dir) }

// round runs every benchmark once. A package's benchmarks run in the order of
// its file, which puts stages beside their limits. What they print is passed on
// as it comes.
func (t *binaries) round(ctx context.Context, stderr io.Writer) ([]sample, error) {
	var samples []sample
	var errs []error
	for _, pkg := range t.packages {
		var names []string
		for _, f := range t.figures {
			name, _, _ := strings.Cut(f.benchmark, "/")
			if f.pkg == pkg && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		cmd := exec.CommandContext(ctx, t.binary(pkg), "-test.run", "^$", "-test.bench", "^("+strings.Join(names, "|")+")$",
			"-test.v", "-test.benchtime", "1x", "-test.count", "1", "-test.timeout", "0")
		cmd.Dir = pkg
		cmd.Env = append(os.Environ(), "SCALE="+strconv.FormatFloat(t.scale, 'g', -1, 64))
		// Its servers end by themselves once it is gone.
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = 10 * time.Second
		var stdout bytes.Buffer
		cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, stderr), stderr
		failed := cmd.Run()
		got, err := parse(t.figures, stdout.String())
		samples = append(samples, got...)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("run the benchmarks of %s: %w", pkg, failed))
		}
		errs = append(errs, err)
	}
	return samples, errors.Join(errs...)
}
