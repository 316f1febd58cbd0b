package deltalog

import (
	"bufio"
	"cmp"
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
	"sync"
	"testing"
	"time"

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
	Time    string   `json:"time,omitempty"`
	Where   []equals `json:"where,omitempty"`
	Changes bool     `json:"changes,omitempty"`
	RowIDs  bool     `json:"row_ids,omitempty"`
	Lines   bool     `json:"lines,omitempty"`
	Canon   string   `json:"canon,omitempty"`
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

// programs are those that were started. They serve all tests, and end with this
// process, which their standard input comes from.
var programs = struct {
	sync.Mutex
	started map[string]*program
}{started: map[string]*program{}}

// serve returns a program for a test: the one that runs already, or the one that
// start starts.
func serve(t *testing.T, name string, start func(*testing.T) (*program, error)) (*program, error) {
	programs.Lock()
	defer programs.Unlock()
	p := programs.started[name]
	if p == nil {
		var err error
		if p, err = start(t); err != nil {
			return nil, err
		}
		programs.started[name] = p
	}
	mine := *p
	mine.t = t
	return &mine, nil
}

// startProgram starts a program and waits until it is ready.
func startProgram(t *testing.T, name string, args ...string) (*program, error) {
	cmd := exec.Command(name, args...)
	said, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = said.Close() }()
	cmd.Stderr = said
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
	p := &program{in: in, out: bufio.NewReader(out)}
	var ready struct{ Versions map[string]string }
	line, err := p.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		_, _ = in.Close(), cmd.Wait()
		text, _ := os.ReadFile(said.Name())
		return nil, fmt.Errorf("%s did not start: %w\n%s", filepath.Base(name), err, text)
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

// startKernel has Java compile and run Delta Kernel's program.
func startKernel(t *testing.T) (*program, error) {
	spark, err := local.FindSpark(t.Context())
	if err != nil {
		return nil, err
	}
	return startProgram(t, "java", "-Xmx1g", "-cp", spark.Classpath, filepath.Join("testdata", "readers", "Kernel.java"))
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
		p, err := serve(t, of.names[0], of.start)
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

// limits are the features that readers say they do not know: what their error
// says of a table that has one. Those that are not here read every feature that
// this package writes.
var limits = map[string]map[string]string{
	"delta-rs": {
		FeatureTypeWidening: "TypeWidening",
	},
	"polars": {
		FeatureColumnMapping: "columnMapping",
		FeatureV2Checkpoint:  "v2Checkpoint",
		FeatureTypeWidening:  "typeWidening",
	},
}

// What some readers can be asked for alone. Of a time, delta-rs and Polars find a
// wrong version of a table with in-commit timestamps: they go by the times of files.
var (
	versionReaders = []string{"delta-rs", "polars", "kernel", "spark"}
	timeReaders    = []string{"kernel", "spark"}
	feedReaders    = []string{"delta-rs", "spark"}
	rowIDReaders   = []string{"kernel", "spark"}
)

// expected is what readers have to see of a table.
type expected struct {
	rows    []string // lines of the newest version
	where   []equals // conditions: they find the rows that meet them
	past    []moment // older versions
	changes []string // lines of the change data feed; nil means it is not read
	rowIDs  []string // lines with ids of rows; nil means they are not read
	exceptions
}

// exceptions are what readers do not make of a table that its features are not
// the reason of.
type exceptions struct {
	// refuses is what the error of a reader says, which takes no such table.
	refuses map[string]string
	// refusesChanges is the same for the change data feed alone.
	refusesChanges map[string]string
	// nulls are columns in which a reader is known to see NULL wrongly.
	nulls map[string][]string
	// wrong are readers that are known to read other rows. One that comes to read
	// the right ones fails the test, so that it is held to them from then on.
	wrong []string
}

// moment is what a table held at a version, and then at a time unless that is zero.
type moment struct {
	version Version
	time    time.Time
	rows    []string
}

// equals is a condition: a column of longs or strings has a value.
type equals struct {
	Column string `json:"column"`
	Value  any    `json:"value"`
}

// of returns the lines that meet the condition.
func (e equals) of(lines []string) []string {
	var met []string
	for _, line := range lines {
		if v := lineValues(line)[e.Column]; v != nil && fmt.Sprint(v) == fmt.Sprint(e.Value) {
			met = append(met, line)
		}
	}
	return met
}

// lineValues are the values of a row by column.
func lineValues(line string) map[string]any {
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	values := map[string]any{}
	if err := d.Decode(&values); err != nil {
		panic(err)
	}
	return values
}

// lineWith is a row with other values in some columns.
func lineWith(line string, set map[string]any) string {
	values := lineValues(line)
	maps.Copy(values, set)
	return jsonText(values)
}

// see has a reader read a table in every way that is expected of it.
func (o *others) see(name, path string, p *Protocol, e expected) error {
	refuses := e.refuses[name]
	for _, feature := range p.ReaderFeatures {
		refuses = cmp.Or(limits[name][feature], refuses)
	}
	switch {
	case refuses != "":
		return o.refuse(name, question{Path: path}, refuses)
	case slices.Contains(e.wrong, name):
		if o.compare(name, question{Path: path}, e.rows) == nil {
			return fmt.Errorf("%s reads the right rows: it is no exception any more", name)
		}
		return nil
	}
	rows := slices.Clone(e.rows)
	if len(e.nulls[name]) > 0 {
		null := map[string]any{}
		for _, column := range e.nulls[name] {
			null[column] = nil
		}
		for i := range rows {
			rows[i] = lineWith(rows[i], null)
		}
	}
	errs := []error{o.compare(name, question{Path: path}, rows)}
	var met []string
	var where []equals
	for _, w := range e.where {
		if !slices.Contains(e.nulls[name], w.Column) {
			where, met = append(where, w), append(met, w.of(rows)...)
		}
	}
	if where != nil {
		errs = append(errs, o.compare(name, question{Path: path, Where: where}, met))
	}
	for _, m := range e.past {
		if slices.Contains(versionReaders, name) {
			errs = append(errs, o.compare(name, question{Path: path, Version: &m.version}, m.rows))
		}
		if slices.Contains(timeReaders, name) && !m.time.IsZero() {
			errs = append(errs, o.compare(name, question{Path: path, Time: m.time.UTC().Format(time.RFC3339)}, m.rows))
		}
	}
	if e.changes != nil && slices.Contains(feedReaders, name) {
		if word := e.refusesChanges[name]; word != "" {
			errs = append(errs, o.refuse(name, question{Path: path, Changes: true}, word))
		} else {
			errs = append(errs, o.compare(name, question{Path: path, Changes: true}, e.changes))
		}
	}
	if e.rowIDs != nil && slices.Contains(rowIDReaders, name) {
		errs = append(errs, o.compare(name, question{Path: path, RowIDs: true}, e.rowIDs))
	}
	return errors.Join(errs...)
}

// refuse asks a reader and tells unless it answers with an error that says a word.
func (o *others) refuse(name string, q question, word string) error {
	q.Reader = name
	if got := o.readers[name].ask(q); !strings.Contains(got.Error, word) {
		return fmt.Errorf("%s was to refuse the table for %s: %d rows, error %q", name, word, got.Rows, got.Error)
	}
	return nil
}

// compare asks a reader and tells how its rows differ from those wanted.
func (o *others) compare(name string, q question, want []string) error {
	p := o.readers[name]
	q.Reader = name
	got := p.ask(q)
	sum := lineSum(want)
	if got.Error == "" && got.Rows == sum.Rows && got.Checksum == sum.String() {
		return nil
	}
	asked, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if got.Error != "" {
		return fmt.Errorf("%s cannot answer %s: %s", name, asked, got.Error)
	}
	q.Lines = true
	again := p.ask(q)
	return fmt.Errorf("%s answers %s with checksum %s, want %s: %s", name, asked, got.Checksum, sum, differences(again.Lines, want))
}

// check has deltalog and all readers read a table.
func (o *others) check(t *testing.T, table *Table, path string, e expected) {
	t.Helper()
	s := mustOpen(t, table.Store()).Snapshot()
	got, err := readLines(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if d := differences(got, e.rows); d != "" {
		t.Fatalf("deltalog reads %s", d)
	}
	for _, name := range o.names() {
		if err := o.see(name, path, s.Protocol(), e); err != nil {
			t.Error(err)
		}
	}
}
