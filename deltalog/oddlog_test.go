package deltalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/millrace-io/millrace/deltalog/store"
)

// plainTable is the first commit of a table that needs nothing.
const plainTable = `{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}
{"metaData":{"id":"t","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"id\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}},{\"name\":\"p\",\"type\":\"string\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":["p"],"configuration":{}}}
`

const plainAdd = `{"add":{"path":"f1","partitionValues":{"p":"x"},"size":9,"modificationTime":1,"dataChange":true}}
`

func openLog(t *testing.T, commits ...string) (*Table, error) {
	t.Helper()
	st := store.NewMemory()
	for v, text := range commits {
		put(t, st, commitName(Version(v)), text)
	}
	return Open(t.Context(), st)
}

// What a commit tells of itself may be any JSON.
func TestCommitInfoOfAnyShapeIsRead(t *testing.T) {
	for _, info := range []string{
		`null`, `{}`, `"text"`, `[1]`, `{"timestamp":"2024-01-01"}`, `{"timestamp":1.7e12}`, `{"operation":7,"engineInfo":{"name":"x"}}`,
		`{"operationParameters":"mode=Append"}`, `{"operationParameters":[1,2]}`, `{"operationMetrics":{"n":{"a":1}}}`,
		`{"readVersion":"7"}`, `{"isBlindAppend":"true"}`, `{"txnId":5,"isolationLevel":null}`,
	} {
		table, err := openLog(t, `{"commitInfo":`+info+"}\n"+plainTable+plainAdd)
		if err != nil || table.Snapshot().NumFiles() != 1 {
			t.Errorf("%s: %v", info, err)
		}
	}
	table, err := openLog(t, `{"commitInfo":{"timestamp":1.7e12,"operation":"WRITE","operationParameters":5,"engineInfo":["x"]}}`+"\n"+plainTable)
	if err != nil {
		t.Fatal(err)
	}
	if c := table.Snapshot().Info(); c.Operation != "WRITE" || c.Timestamp != 1_700_000_000_000 || c.Engine != "" {
		t.Fatalf("%+v", c)
	}
}

// A commit without any action was cut off.
func TestEmptyCommitIsCorrupt(t *testing.T) {
	for _, text := range []string{"", "\n", " \n\n"} {
		_, err := openLog(t, plainTable, plainAdd, text)
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(fmt.Sprint(err), commitName(2)) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := openLog(t, plainTable, `{"unknownAction":{}}`+"\n"); err != nil {
		t.Errorf("a commit of actions that are not known: %v", err)
	}
}

// A line holds one action; of two, one would be lost.
func TestLineOfTwoActionsIsCorrupt(t *testing.T) {
	two := `{"commitInfo":{},` + strings.TrimPrefix(plainAdd, "{")
	if _, err := openLog(t, plainTable, two); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}

func TestHintsOfImpossibleCheckpointsAreNoHints(t *testing.T) {
	for _, text := range []string{
		`{"version":1,"size":1,"parts":-1}`, `{"version":1,"size":1,"parts":9223372036854775807}`, `{"version":1,"size":1,"parts":4000000000}`,
	} {
		if h, ok := parseHint([]byte(text)); ok {
			_ = h.ref().names()
			t.Errorf("%s is one", text)
		}
	}
}

// A store that fails while a checkpoint is read says nothing of the checkpoint.
func TestFailedReadsOfACheckpointAreNotDamage(t *testing.T) {
	mem := store.NewMemory()
	table := newTestTable(t, mem)
	mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{fakeFile("a", 1)}})
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if _, err := Open(t.Context(), &brokenReads{Store: mem, after: n}); !errors.Is(err, errLostReply) || errors.Is(err, ErrCorrupt) {
			t.Errorf("after %d reads: %v", n, err)
		}
	}
}

// brokenReads is a store whose checkpoints can be read so many times.
type brokenReads struct {
	store.Store
	after int
}

func (b *brokenReads) OpenRange(ctx context.Context, name string) (store.Reader, int64, error) {
	r, size, err := b.Store.OpenRange(ctx, name)
	return brokenReader{r, b}, size, err
}

type brokenReader struct {
	store.Reader
	b *brokenReads
}

func (r brokenReader) ReadAt(p []byte, off int64) (int, error) {
	if r.b.after--; r.b.after < 0 {
		return 0, errLostReply
	}
	return r.Reader.ReadAt(p, off)
}

// A table that was copied has files as young as the copy. That does not keep the
// versions with times of their own from being found.
func TestInCommitTimestampsCountWhateverFilesSay(t *testing.T) {
	table, st, date := datedTable(t, nil, 100, 200)
	m := table.Snapshot().Metadata().Clone()
	m.Configuration = map[string]string{PropertyInCommitTimestamps: "true"}
	s := mustCommit(t, table, &Commit{Operation: "SET TBLPROPERTIES", Metadata: m, Protocol: table.Snapshot().Protocol().For(m)})
	on := time.UnixMilli(s.Info().InCommitTimestamp)
	last := mustCommit(t, table, &Commit{Operation: "WRITE"}).Info().Time()
	for v := range Version(4) {
		date(v, on.Add(time.Hour))
	}
	for at, want := range map[time.Time]Version{on: 2, last: 3, on.Add(2 * time.Hour): 3} {
		got, err := OpenAtTime(t.Context(), st, at)
		if err != nil || got.Version() != want {
			t.Errorf("%s: want %d, got %v", at, want, err)
		}
	}
	if _, err := OpenAtTime(t.Context(), st, on.Add(-time.Minute)); !errors.Is(err, ErrNoVersion) {
		t.Errorf("got %v", err)
	}
}

func TestBoundsAreMarkedAsLoose(t *testing.T) {
	for stats, want := range map[string]string{
		"":                                       "",
		"{}":                                     "{}",
		`{"numRecords":1}`:                       `{"numRecords":1,"tightBounds":false}`,
		`{"numRecords":1,"tightBounds":true}`:    `{"numRecords":1,"tightBounds":false}`,
		`{"numRecords": 1, "tightBounds": true}`: `{"numRecords":1,"tightBounds":false}`,
		`{"numRecords":1,"minValues":{"tightBounds":true}}`:                     `{"minValues":{"tightBounds":true},"numRecords":1,"tightBounds":false}`,
		`{"numRecords":1,"minValues":{"tightBounds":false},"tightBounds":true}`: `{"minValues":{"tightBounds":false},"numRecords":1,"tightBounds":false}`,
	} {
		if got := looseStats(stats); got != want {
			t.Errorf("%s: %s, want %s", stats, got, want)
		}
	}
}

// checkpointOf writes rows as the checkpoint of version 0.
func checkpointOf[T any](t *testing.T, st store.Store, rows []T) {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b)
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, st, checkpointRef{version: 0}.names()[0], b.String())
}

// Maps are what comes first and second; their names differ between writers.
func TestMapsOfCheckpointsAreReadWhateverTheirPartsAreCalled(t *testing.T) {
	type entry struct {
		Keys   string  `parquet:"keys"`
		Values *string `parquet:"values,optional"`
	}
	type entries struct {
		Entries []entry `parquet:"entries"`
	}
	type add struct {
		Path  string   `parquet:"path"`
		Parts *entries `parquet:"partitionValues,optional"`
		Size  int64    `parquet:"size"`
	}
	type row struct {
		Protocol *checkpointProtocol `parquet:"protocol,optional"`
		Metadata *checkpointMetadata `parquet:"metaData,optional"`
		Add      *add                `parquet:"add,optional"`
	}
	x := "x"
	st := store.NewMemory()
	checkpointOf(t, st, []row{
		{Protocol: &checkpointProtocol{MinReader: 1, MinWriter: 2}},
		{Metadata: &checkpointMetadata{ID: "t", Format: checkpointFormat{Provider: "parquet"}, SchemaString: `{"type":"struct","fields":[]}`}},
		{Add: &add{Path: "f", Parts: &entries{[]entry{{"p", &x}, {"q", nil}}}}},
	})
	s := mustOpen(t, st).Snapshot()
	if got := s.File("f").Partition; len(got) != 2 || got["p"] == nil || *got["p"] != "x" || got["q"] != nil {
		t.Fatalf("partition values %v", got)
	}
}

// A file without a path would be rows without a trace.
func TestCheckpointWithFilesWithoutPathsIsCorrupt(t *testing.T) {
	type add struct {
		Path *string `parquet:"path,optional"`
		Size int64   `parquet:"size"`
	}
	type bare struct {
		Size int64 `parquet:"size"`
	}
	type top struct {
		Protocol *checkpointProtocol `parquet:"protocol,optional"`
		Metadata *checkpointMetadata `parquet:"metaData,optional"`
	}
	head := []top{
		{Protocol: &checkpointProtocol{MinReader: 1, MinWriter: 2}},
		{Metadata: &checkpointMetadata{ID: "t", Format: checkpointFormat{Provider: "parquet"}, SchemaString: `{"type":"struct","fields":[]}`}},
	}
	st := store.NewMemory()
	type withNull struct {
		top
		Add *add `parquet:"add,optional"`
	}
	checkpointOf(t, st, []withNull{{top: head[0]}, {top: head[1]}, {Add: &add{Size: 7}}})
	if _, err := Open(t.Context(), st); !errors.Is(err, ErrCorrupt) {
		t.Errorf("path that is NULL: %v", err)
	}
	st = store.NewMemory()
	type withNone struct {
		top
		Add *bare `parquet:"add,optional"`
	}
	checkpointOf(t, st, []withNone{{top: head[0]}, {top: head[1]}, {Add: &bare{Size: 7}}})
	if _, err := Open(t.Context(), st); !errors.Is(err, ErrCorrupt) {
		t.Errorf("no column of paths: %v", err)
	}
}

// Tables of Spark 2 call the type of columns without values null.
func TestColumnOfTypeNull(t *testing.T) {
	table, err := openLog(t, strings.Replace(plainTable, `\"type\":\"long\"`, `\"type\":\"null\"`, 1))
	if err != nil {
		t.Fatal(err)
	}
	if got := table.Snapshot().Metadata().Schema.Fields[0].Type.String(); got != "void" {
		t.Fatalf("it is %s", got)
	}
}

// An empty id is no reason to take metadata for absent.
func TestCheckpointOfATableWithoutID(t *testing.T) {
	dir := t.TempDir()
	st, err := store.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	put(t, st, commitName(0), strings.Replace(plainTable, `"id":"t"`, `"id":""`, 1)+plainAdd)
	table := mustOpen(t, st)
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := describe(table.Snapshot())
	if err := os.Remove(filepath.Join(dir, commitName(0))); err != nil {
		t.Fatal(err)
	}
	if got := describe(mustOpen(t, st).Snapshot()); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
}

// Errors of data files are of this package's kinds.
func TestDamagedDataFilesAreCorrupt(t *testing.T) {
	table := tableWith(t, store.NewMemory(), nil)
	if _, err := table.Append(t.Context(), idNames(0, 10)); err != nil {
		t.Fatal(err)
	}
	var f *File
	for f = range table.Snapshot().Files() {
	}
	whole, err := table.Store().Get(t.Context(), f.Path)
	if err != nil {
		t.Fatal(err)
	}
	middle := bytes.Clone(whole)
	middle[len(middle)/4] ^= 0xff
	for name, b := range map[string][]byte{"cut": whole[:len(whole)/2], "empty": {}, "damaged": middle} {
		if err := table.Store().Put(t.Context(), f.Path, b); err != nil {
			t.Fatal(err)
		}
		var got error
		for _, err := range table.Snapshot().Read(t.Context(), ReadOptions{}) {
			got = err
		}
		if !errors.Is(got, ErrCorrupt) || !strings.Contains(fmt.Sprint(got), f.Path) || strings.Count(fmt.Sprint(got), "open data file") > 1 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// What a table needed once it need not need for ever: the version that is read
// decides, whether it is read from commits or from a checkpoint.
func TestVersionsBeforeDoNotRefuseATable(t *testing.T) {
	const (
		future  = `{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["timeTravelling"],"writerFeatures":["timeTravelling"]}}` + "\n"
		present = `{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}` + "\n"
	)
	protocol, metadata, _ := strings.Cut(plainTable, "\n")
	odd := strings.Replace(metadata, `\"type\":\"long\"`, `\"type\":\"interval day\"`, 1)
	for name, c := range map[string]struct {
		commits []string
		want    string // in the error; empty means none
	}{
		"feature that is gone":     {[]string{future + metadata, plainAdd, present}, ""},
		"feature that comes":       {[]string{present + metadata, plainAdd, future}, "timeTravelling"},
		"feature that stays":       {[]string{future + metadata, plainAdd, metadata}, "timeTravelling"},
		"type that is gone":        {[]string{protocol + "\n" + odd, plainAdd, metadata}, ""},
		"type that stays":          {[]string{protocol + "\n" + odd, plainAdd, present}, "interval day"},
		"version 9":                {[]string{`{"protocol":{"minReaderVersion":9,"minWriterVersion":9}}` + "\n" + metadata, plainAdd, present}, ""},
		"version 9 that stays":     {[]string{`{"protocol":{"minReaderVersion":9,"minWriterVersion":9}}` + "\n" + metadata, plainAdd, metadata}, "(9,9)"},
		"format that is gone":      {[]string{protocol + "\n" + strings.Replace(metadata, `"parquet"`, `"orc"`, 1), plainAdd, metadata}, ""},
		"corrupt though it's gone": {[]string{protocol + "\n" + strings.Replace(metadata, `"name\":`, `"`, 1), plainAdd, metadata}, "corrupt"},
	} {
		t.Run(name, func(t *testing.T) {
			table, err := openLog(t, c.commits...)
			if c.want == "" {
				if err != nil || table.Snapshot().NumFiles() != 1 {
					t.Fatal(err)
				}
				_, err := OpenAt(t.Context(), table.Store(), 1)
				if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), commitName(0)) {
					t.Fatalf("version 1: %v", err)
				}
				return
			}
			if c.want != "corrupt" && !errors.Is(err, ErrUnsupported) || !strings.Contains(fmt.Sprint(err), c.want) {
				t.Fatalf("got %v", err)
			}
		})
	}
}
