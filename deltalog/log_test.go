package deltalog

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

var update = flag.Bool("update", false, "write the expected output of golden tests")

// archive is a text file that holds files, in the format of
// https://pkg.go.dev/golang.org/x/tools/txtar
type archive struct {
	comment string
	names   []string
	files   map[string]string
}

var archiveLine = regexp.MustCompile(`(?m)^-- (.+) --\n`)

func parseArchive(text string) *archive {
	a := &archive{files: map[string]string{}}
	marks := archiveLine.FindAllStringSubmatchIndex(text, -1)
	a.comment = text
	for i, m := range marks {
		end := len(text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		} else {
			a.comment = text[:marks[0][0]]
		}
		name := text[m[2]:m[3]]
		a.names = append(a.names, name)
		a.files[name] = text[m[1]:end]
	}
	return a
}

func (a *archive) set(name, text string) {
	if _, ok := a.files[name]; !ok {
		a.names = append(a.names, name)
	}
	a.files[name] = text
}

func (a *archive) String() string {
	var b strings.Builder
	b.WriteString(a.comment)
	for _, name := range a.names {
		fmt.Fprintf(&b, "-- %s --\n%s", name, a.files[name])
	}
	return b.String()
}

// TestLogsReadAsWritten opens the logs of testdata/log. Each file begins with
// what it shows, holds the files of _delta_log, and ends with the table that
// they make, or the error.
func TestLogsReadAsWritten(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("testdata", "log", "*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			a := parseArchive(string(text))
			st := store.NewMemory()
			for name, body := range a.files {
				if strings.HasPrefix(name, logDir) {
					if err := st.PutIfAbsent(t.Context(), name, []byte(body)); err != nil {
						t.Fatal(err)
					}
				}
			}
			got := ""
			if table, err := Open(t.Context(), st); err != nil {
				got = "error: " + err.Error() + "\n"
			} else {
				got = describe(table.Snapshot())
			}
			wantGolden(t, path, a, "want", got)
		})
	}
}

func wantGolden(t *testing.T, path string, a *archive, name, got string) {
	t.Helper()
	if *update {
		a.set(name, got)
		if err := os.WriteFile(path, []byte(a.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if a.files[name] != got {
		t.Fatalf("got\n%s\nwant\n%s", got, a.files[name])
	}
}

// What differs from run to run.
var (
	randomIDs   = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	createdTime = regexp.MustCompile(`("createdTime"):\d+`)
	commitTime  = regexp.MustCompile(`("timestamp"|"inCommitTimestamp"):\d+`)
)

// TestCommitsAreWrittenAsExpected compares whole commits with testdata/commits.txtar.
func TestCommitsAreWrittenAsExpected(t *testing.T) {
	st := store.NewMemory()
	table, err := Create(t.Context(), st, CreateOptions{
		Schema: idName(), Name: "orders", Description: "a <table> & more", Properties: latestProperties(),
		Features: []string{FeatureDomainMetadata}, Txns: []Txn{{AppID: "shop/orders/e1", Version: 7, LastUpdated: 1}},
		Domains: []Domain{{Name: "millrace.state", Configuration: `{"phase":"copying"}`}},
	})
	if err != nil {
		t.Fatal(err)
	}
	clock := time.UnixMilli(1_800_000_000_000)
	table.now = func() time.Time { return clock }
	table.headAt = clock
	one, two := fakeFile("part-1.parquet", 3), fakeFile("part-2.parquet", 4)
	mustCommit(t, table, &Commit{
		Operation: "WRITE", Params: map[string]string{"mode": "Append"}, Metrics: map[string]string{"numFiles": "2"},
		Add: []*File{one, two}, BlindAppend: true,
	})
	m := table.Snapshot().Metadata().Clone()
	grown := idName()
	grown.Fields = append(grown.Fields, schema.Field{Name: "at", Type: schema.Type{Kind: schema.TimestampNTZ}, Nullable: true})
	m.Schema = grown
	mustCommit(t, table, &Commit{
		Operation: "MERGE", Metadata: m, Protocol: table.Snapshot().Protocol().For(m),
		Txns: []Txn{{AppID: "shop/orders/e1", Version: 8}}, Domains: []Domain{{Name: "millrace.state", Removed: true}},
		Remove: []*File{one, two}, Add: []*File{one.WithVector(fakeVector("vBn[lx{q8@P<9BNH/isA", 1)), fakeFile("part-3.parquet", 1)},
	})
	last := table.Snapshot().File("part-3.parquet")
	mustCommit(t, table, &Commit{Operation: "OPTIMIZE", Remove: []*File{last}, Add: []*File{fakeFile("part-4.parquet", 1)}, Rearrange: true})
	path := filepath.Join("testdata", "commits.txtar")
	text, err := os.ReadFile(path)
	if err != nil && !*update {
		t.Fatal(err)
	}
	a := parseArchive(string(text))
	for v := range Version(4) {
		b, err := st.Get(t.Context(), commitName(v))
		if err != nil {
			t.Fatal(err)
		}
		b = randomIDs.ReplaceAll(b, []byte("UUID"))
		b = createdTime.ReplaceAll(b, []byte("$1:NOW"))
		if v == 0 {
			b = commitTime.ReplaceAll(b, []byte("$1:NOW"))
		}
		wantGolden(t, path, a, commitName(v), string(b))
	}
}

func FuzzParseCommit(f *testing.F) {
	paths, err := filepath.Glob(filepath.Join("testdata", "log", "*.txtar"))
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for name, body := range parseArchive(string(text)).files {
			if strings.HasPrefix(name, logDir) {
				f.Add([]byte(body))
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseCommit(b)
		if err != nil {
			return
		}
		if c.info == nil {
			c.info = &CommitInfo{}
		}
		// What was understood is written so that it is understood again.
		once, err := c.encode(true)
		if err != nil {
			t.Skip(err)
		}
		d, err := parseCommit(once)
		if err != nil {
			t.Fatalf("%v in\n%s", err, once)
		}
		twice, err := d.encode(true)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%v\n%s\n%s", err, once, twice)
		}
	})
}

func FuzzParseHint(f *testing.F) {
	f.Add([]byte(`{"version":1,"size":12,"parts":2,"checksum":"21fd80b88fa17d8aaa03d210bdc5a17d"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseHint(b)
		if !ok {
			return
		}
		out, err := h.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, ok := parseHint(out)
		if !ok || again.Version != h.Version {
			t.Fatalf("%s reads as %+v", out, again)
		}
	})
}
