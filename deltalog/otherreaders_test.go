package deltalog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deploy/local"
)

// conformance has Spark and Delta Kernel read too, and no reader left out.
var conformance = flag.Bool("conformance", false, "hold tables against every reader there is; one that cannot be run is a failure")

// program is a process of testdata/readers, which answers requests.
type program struct {
	t        *testing.T
	in       io.WriteCloser
	out      *bufio.Reader
	versions map[string]string // of the readers that it has
}

// question is a request to a program, as testdata/readers/serve.py and spark.py
// describe it.
type question struct {
	Reader  string   `json:"reader,omitempty"`
	Path    string   `json:"path"`
	Version *Version `json:"version,omitempty"`
	Lines   bool     `json:"lines,omitempty"`
	Do      string   `json:"do,omitempty"`
	IDs     []int64  `json:"ids,omitempty"`
	Name    string   `json:"name,omitempty"`
	SQL     string   `json:"sql,omitempty"`
}

type reply struct {
	Rows     int64
	Checksum string
	Lines    []string
	Error    string
}

// startProgram starts a program that ends with the test.
func startProgram(t *testing.T, name string, args ...string) (*program, error) {
	cmd := exec.Command(name, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	p := &program{t: t, in: in, out: bufio.NewReader(out)}
	var ready struct{ Versions map[string]string }
	line, err := p.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		_, _ = in.Close(), cmd.Wait()
		return nil, fmt.Errorf("%s did not start: %w\n%s", filepath.Base(name), err, said.String())
	}
	p.versions = ready.Versions
	return p, nil
}

// ask asks and waits for the answer.
func (p *program) ask(q question) reply {
	p.t.Helper()
	b, err := json.Marshal(q)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.in.Write(append(b, '\n')); err != nil {
		p.t.Fatalf("ask a reader: %v", err)
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		p.t.Fatalf("a reader ended: %v", err)
	}
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		p.t.Fatalf("read %s: %v", line, err)
	}
	return r
}

// startPython starts delta-rs, DuckDB and Polars.
func startPython(t *testing.T) (*program, error) {
	python, err := local.Python(t.Context())
	if err != nil {
		return nil, err
	}
	return startProgram(t, python, filepath.Join("testdata", "readers", "serve.py"))
}

// startSpark starts Spark.
func startSpark(t *testing.T) (*program, error) {
	spark, err := local.FindSpark(t.Context())
	if err != nil {
		return nil, err
	}
	return startProgram(t, spark.Python, filepath.Join("testdata", "readers", "spark.py"), strings.Join(spark.Jars, ","))
}

// startKernel compiles and starts Delta Kernel.
func startKernel(t *testing.T) (*program, error) {
	spark, err := local.FindSpark(t.Context())
	if err != nil {
		return nil, err
	}
	classes := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "javac", "-cp", spark.Classpath, "-d", classes, filepath.Join("testdata", "readers", "Kernel.java"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile Kernel.java: %w\n%s", err, out)
	}
	return startProgram(t, "java", "-Xmx1g", "-cp", spark.Classpath+string(os.PathListSeparator)+classes, "Kernel")
}

// others are the readers that a test has.
type others struct{ readers map[string]*program }

// otherReaders starts them: three, or five for make conformance, where one that
// cannot be started is a failure.
func otherReaders(t *testing.T) *others {
	t.Helper()
	if testing.Short() {
		t.Skip("needs Python")
	}
	o := &others{readers: map[string]*program{}}
	for _, of := range []struct {
		names    []string
		start    func(*testing.T) (*program, error)
		optional bool // run for make conformance alone
	}{
		{[]string{"delta-rs", "duckdb", "polars"}, startPython, false},
		{[]string{"kernel"}, startKernel, true},
		{[]string{"spark"}, startSpark, true},
	} {
		if of.optional && !*conformance {
			continue
		}
		p, err := of.start(t)
		if errors.Is(err, local.ErrNoPython) && !*conformance {
			t.Skip(err)
		}
		for _, name := range of.names {
			if err != nil {
				t.Errorf("%s: NOT RUN: %v", name, err)
				continue
			}
			o.readers[name] = p
			t.Logf("%s %s", name, p.versions[name])
		}
	}
	return o
}

// names lists the readers.
func (o *others) names() []string { return slices.Sorted(maps.Keys(o.readers)) }

// read has one of them read the newest version of a table, and tells how that
// differs from what it should be. Refusals hold what the error of a reader has to
// say that does not take the table.
func (o *others) read(name, path string, want []string, refusals map[string]string) error {
	p := o.readers[name]
	got := p.ask(question{Reader: name, Path: path})
	if word, ok := refusals[name]; ok {
		if !strings.Contains(got.Error, word) {
			return fmt.Errorf("%s was to refuse the table for %s: %d rows, error %q", name, word, got.Rows, got.Error)
		}
		return nil
	}
	sum := lineSum(want)
	switch {
	case got.Error != "":
		return fmt.Errorf("%s cannot read it: %s", name, got.Error)
	case got.Rows == sum.Rows && got.Checksum == sum.String():
		return nil
	}
	again := p.ask(question{Reader: name, Path: path, Lines: true})
	return fmt.Errorf("%s reads checksum %s, want %s: %s", name, got.Checksum, sum, differences(again.Lines, want))
}

// check has deltalog and all readers read the newest version of a table.
func (o *others) check(ctx context.Context, t *testing.T, table *Table, path string, want []string, refusals map[string]string) {
	t.Helper()
	got, err := readLines(ctx, mustOpen(t, table.Store()).Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	if d := differences(got, want); d != "" {
		t.Fatalf("deltalog reads %s", d)
	}
	for _, name := range o.names() {
		if err := o.read(name, path, want, refusals); err != nil {
			t.Error(err)
		}
	}
}
