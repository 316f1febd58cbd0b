package deltalog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/store"
)

// namesIn lists the objects below a prefix.
func namesIn(t testing.TB, st store.Store, prefix string) []string {
	t.Helper()
	var names []string
	for info, err := range st.List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.Name)
	}
	return names
}

func TestCheckpointWithSidecars(t *testing.T) {
	st := store.NewMemory()
	table, err := Create(t.Context(), st, CreateOptions{
		Schema:     idName(),
		Properties: map[string]string{PropertyCheckpointPolicy: "v2", PropertyDeletionVectors: "true"},
		Features:   []string{FeatureDomainMetadata},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !table.Snapshot().Protocol().has(FeatureV2Checkpoint) {
		t.Fatal("the property did not bring its feature")
	}
	a, b := fakeFile("a", 5), fakeFile("b", 5)
	mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{a, b}, Txns: []Txn{{AppID: "app", Version: 7}}, Domains: []Domain{{Name: "d", Configuration: "x"}}})
	mustCommit(t, table, &Commit{Operation: "DELETE", Remove: []*File{b}})
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := describe(table.Snapshot())
	for _, v := range []Version{0, 1, 2} { // the checkpoint has to do
		if err := st.Delete(t.Context(), commitName(v)); err != nil {
			t.Fatal(err)
		}
	}
	again := mustOpen(t, st)
	if got := describe(again.Snapshot()); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	if n := len(namesIn(t, st, sidecarDir)); n != 1 {
		t.Fatalf("%d sidecars", n)
	}
	// The files that were removed are carried from checkpoint to checkpoint.
	mustCommit(t, again, &Commit{Operation: "WRITE"})
	if err := again.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	var removed []string
	err = readTombstones(t.Context(), st, again.Snapshot().base, func(r tombstone) error {
		removed = append(removed, r.file.Path)
		return nil
	})
	if err != nil || !slices.Equal(removed, []string{"b"}) {
		t.Fatalf("remembered %v, %v", removed, err)
	}
	// Without a sidecar, the checkpoint before will do.
	newest := namesIn(t, st, sidecarDir)
	for _, name := range newest {
		b, err := st.Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), st)
		if err == nil && s.Snapshot().NumFiles() != 1 {
			t.Fatalf("without %s there are %d files", name, s.Snapshot().NumFiles())
		}
		if err := st.Put(t.Context(), name, b); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range newest {
		if err := st.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(t.Context(), st); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("without sidecars: %v", err)
	}
}

func TestCheckpointOfJSONLines(t *testing.T) {
	const (
		protocol = `{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["v2Checkpoint"],"writerFeatures":["v2Checkpoint"]}}`
		metadata = `{"metaData":{"id":"x","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[]}","partitionColumns":[],"configuration":{}}}`
		self     = `{"checkpointMetadata":{"version":5,"tags":{"a":"b"}}}`
		unknown  = `{"novelty":{"path":"x"}}`
		add      = `{"add":{"path":"f%d","partitionValues":{},"size":1,"modificationTime":1,"dataChange":false,"stats":"{\"numRecords\":3%s}"}}`
	)
	inline := []string{self, protocol, unknown, metadata, fmt.Sprintf(add, 1, ""), fmt.Sprintf(add, 2, strings.Repeat(" ", 200_000)), fmt.Sprintf(add, 3, "")}
	for _, c := range []struct {
		name  string
		lines []string
		files int
		want  string // in the error; empty means none
	}{
		{"files inline", inline, 3, ""},
		{"damaged line", append(slices.Clone(inline), `{"add":`), 0, "95f9e3ee90e5.json: line 8"},
		{"no protocol", []string{self, metadata}, 0, "no protocol"},
		{"sidecar that is not there", []string{self, protocol, metadata, `{"sidecar":{"path":"no.parquet"}}`}, 0, "_sidecars/no.parquet"},
		{"sidecar elsewhere", []string{self, protocol, metadata, `{"sidecar":{"path":"../../secret.parquet"}}`}, 0, "secret.parquet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := store.NewMemory()
			name := checkpointRef{version: 5, unique: "3a0d65cd-4056-49b8-937b-95f9e3ee90e5.json"}.names()[0]
			put(t, st, name, strings.Join(c.lines, "\n"))
			put(t, st, commitName(6), unknown)
			table, err := Open(t.Context(), st)
			if c.want != "" {
				if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if rows, ok := table.Snapshot().Rows(); table.Snapshot().NumFiles() != c.files || !ok || rows != int64(3*c.files) {
				t.Fatalf("%d files, %d rows", table.Snapshot().NumFiles(), rows)
			}
		})
	}
}

func put(t testing.TB, st store.Store, name, text string) {
	t.Helper()
	if err := st.Put(t.Context(), name, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func TestSidecarsStayInTheirFolder(t *testing.T) {
	for path, want := range map[string]string{
		"a.parquet": sidecarDir + "a.parquet",
		"a%20b":     sidecarDir + "a b",
		"s3://other/table/_delta_log/_sidecars/a": sidecarDir + "a",
		"file:/t/_delta_log/_sidecars/a":          sidecarDir + "a",
		"_delta_log/_sidecars/a":                  sidecarDir + "a",
		"../a":                                    "",
		"..":                                      "",
		"%2e%2e":                                  "",
		"%2e%2e%2fa":                              "",
		"/etc/passwd":                             "",
		"file:///etc/passwd":                      "",
		"_sidecars/a":                             "",
		"x_delta_log/_sidecars/a":                 "",
		"a\\b":                                    "",
		"%zz":                                     "",
		"":                                        "",
	} {
		got, err := sidecarName(path)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q is %q, %v", path, got, err)
		}
	}
}

// The hint can be made from a checkpoint as well as when that is written.
func TestTheHintOfACheckpointIsMadeAnew(t *testing.T) {
	for _, policy := range []string{"classic", "v2"} {
		st := store.NewMemory()
		table := largeLog(t, st, 50, 5)
		if _, err := table.SetProperties(t.Context(), map[string]string{PropertyCheckpointPolicy: policy}); err != nil {
			t.Fatal(err)
		}
		if err := table.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		b, err := st.Get(t.Context(), hintName)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := parseHint(b)
		got, err := hintOf(t.Context(), st, want.ref())
		if err != nil {
			t.Fatal(err)
		}
		want.NumAdds, want.Checksum = 0, ""
		if (want.V2 == nil) != (got.V2 == nil) || (policy == "v2") != (got.V2 != nil) {
			t.Fatalf("%s: made %+v, want %+v", policy, got, want)
		}
		if got.V2 != nil {
			if got.V2.Path != want.V2.Path || got.V2.SizeInBytes != want.V2.SizeInBytes || got.V2.ModTime == 0 {
				t.Errorf("%s: made %+v, want %+v", policy, got.V2, want.V2)
			}
			got.V2, want.V2 = nil, nil
		}
		if got != want {
			t.Errorf("%s: made %+v, want %+v", policy, got, want)
		}
	}
}
