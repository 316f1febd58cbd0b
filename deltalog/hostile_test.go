package deltalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/deltalog/store"
)

// fenced is a store that notes names which are none.
type fenced struct {
	store.Store
	outside []string
}

func (f *fenced) note(name string) {
	if store.CheckName(name) != nil {
		f.outside = append(f.outside, name)
	}
}

func (f *fenced) Get(ctx context.Context, name string) ([]byte, error) {
	f.note(name)
	return f.Store.Get(ctx, name)
}

func (f *fenced) OpenRange(ctx context.Context, name string) (store.Reader, int64, error) {
	f.note(name)
	return f.Store.OpenRange(ctx, name)
}

func (f *fenced) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return f.Store.List(ctx, prefix, after)
}

// hostilePaths lead out of a table, or nowhere.
var hostilePaths = []string{
	"/etc/passwd", "../secret", "a/../../secret", "%2e%2e/secret", "%2E%2E%2Fsecret", "..", ".", "./a", "a//b", "a/", "%2fetc%2fpasswd",
	"file:///etc/passwd", "s3://bucket/key", "http://169.254.169.254/", "hdfs:x", "C:\\x", "..\\secret", "a%00b", "%zz", "",
}

func TestPathsDoNotLeadOutOfTheTable(t *testing.T) {
	const table = `{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors","changeDataFeed"]}}
{"metaData":{"id":"t","format":{"provider":"parquet"},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"id\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{"delta.enableChangeDataFeed":"true","delta.enableDeletionVectors":"true"}}}
`
	for _, path := range hostilePaths {
		for kind, line := range map[string]string{
			"add":    `{"add":{"path":%q,"partitionValues":{},"size":9,"modificationTime":1,"dataChange":true}}`,
			"remove": `{"remove":{"path":%q,"deletionTimestamp":1,"dataChange":true}}`,
			"cdc":    `{"cdc":{"path":%q,"partitionValues":{},"size":9,"dataChange":false}}`,
			"vector": `{"add":{"path":"f","partitionValues":{},"size":9,"modificationTime":1,"dataChange":true,"deletionVector":{"storageType":"p","pathOrInlineDv":%q,"sizeInBytes":3,"cardinality":1}}}`,
			"prefix": `{"add":{"path":"f","partitionValues":{},"size":9,"modificationTime":1,"dataChange":true,"deletionVector":{"storageType":"u","pathOrInlineDv":%q,"sizeInBytes":3,"cardinality":1}}}`,
		} {
			t.Run(kind+" "+path, func(t *testing.T) {
				value := path
				if kind == "prefix" {
					value += "vBn[lx{q8@P<9BNH/isA"
				}
				if value == "" || kind == "prefix" && (path == "" || !strings.Contains(path, "..") && !strings.HasPrefix(path, "/")) {
					t.Skip("the folder of a vector may have any name")
				}
				if kind == "prefix" && strings.Contains(path, "%") {
					t.Skip("prefixes are not encoded")
				}
				st := &fenced{Store: store.NewMemory()}
				put(t, st, commitName(0), table+fmt.Sprintf(line, value))
				open, err := Open(t.Context(), st)
				if err != nil {
					if !errors.Is(err, ErrCorrupt) {
						t.Fatal(err)
					}
					return
				}
				var readErr, changeErr error
				for _, err := range open.Snapshot().Read(t.Context(), ReadOptions{}) {
					readErr = err
				}
				for _, err := range open.Changes(t.Context(), 0, 0, ReadOptions{}) {
					changeErr = err
				}
				if readErr == nil && changeErr == nil {
					t.Fatal("it was read")
				}
				for _, err := range []error{readErr, changeErr} {
					if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
						t.Fatalf("got %v", err)
					}
				}
				if len(st.outside) > 0 {
					t.Fatalf("asked the store for %q", st.outside)
				}
			})
		}
	}
}

func TestAbsolutePathsWithinTheTable(t *testing.T) {
	for _, c := range []struct{ root, path, want string }{
		{"file:///lake/t", "file:///lake/t/a/b.bin", "a/b.bin"},
		{"file:///lake/t", "file:/lake/t/b.bin", "b.bin"},
		{"file:///lake/t", "/lake/t/b.bin", "b.bin"},
		{"file:///lake%20x/t", "file:/lake%20x/t/b%20c.bin", "b c.bin"},
		{"s3://bucket/t", "s3a://bucket/t/b.bin", "b.bin"},
		{"s3://bucket", "s3://bucket/b.bin", "b.bin"},
		{"file:///lake/t", "file:///lake/t2/b.bin", ""},
		{"file:///lake/t", "file:///lake/t/../u/b.bin", ""},
		{"file:///lake/t", "file:///lake/t/%2e%2e/u/b.bin", ""},
		{"file:///lake/t", "file:///lake/t/", ""},
		{"file:///lake/t", "file:///lake/t", ""},
		{"file:///lake/t", "s3://lake/t/b.bin", ""},
		{"file:///lake/t", "b.bin", ""},
		{"s3://bucket/t", "s3://other/t/b.bin", ""},
	} {
		if got, ok := nameWithin(c.root, c.path); ok != (c.want != "") || ok && got != c.want {
			t.Errorf("%s in %s is %q, %v", c.path, c.root, got, ok)
		}
	}
}

func FuzzPaths(f *testing.F) {
	for _, path := range append(slices.Clone(hostilePaths), "part-1.parquet", "p=a%2520b/c", "_delta_log/_sidecars/x.parquet") {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if name, err := objectName(path); err == nil && store.CheckName(name) != nil {
			t.Fatalf("%q leads to %q", path, name)
		}
		if name, ok := nameWithin("file:///t", path); ok && store.CheckName(name) != nil {
			t.Fatalf("%q leads to %q", path, name)
		}
		if name, err := sidecarName(path); err == nil && (store.CheckName(name) != nil || !strings.HasPrefix(name, sidecarDir)) {
			t.Fatalf("%q leads to %q", path, name)
		}
	})
}

// FuzzReadCheckpoint reads damaged checkpoints: of Parquet where the bytes begin
// as such a file does, else of JSON.
func FuzzReadCheckpoint(f *testing.F) {
	for _, policy := range []string{"classic", "v2"} {
		st := store.NewMemory()
		table, err := Create(f.Context(), st, CreateOptions{
			Schema: idName(), Features: []string{FeatureDomainMetadata}, Txns: []Txn{{AppID: "a", Version: 1}},
			Properties: map[string]string{PropertyCheckpointPolicy: policy, PropertyDeletionVectors: "true"},
			Domains:    []Domain{{Name: "d", Configuration: "x"}},
		})
		if err != nil {
			f.Fatal(err)
		}
		a, b := fakeFile("a", 3), fakeFile("b", 4)
		mustCommit(f, table, &Commit{Operation: "WRITE", Add: []*File{a, b}})
		mustCommit(f, table, &Commit{Operation: "DELETE", Remove: []*File{a, b}, Add: []*File{a.WithVector(fakeVector("v", 1))}})
		if err := table.Checkpoint(f.Context()); err != nil {
			f.Fatal(err)
		}
		for _, name := range namesIn(f, st, logDir) {
			if strings.HasSuffix(name, ".parquet") || name == commitName(2) {
				body, err := st.Get(f.Context(), name)
				if err != nil {
					f.Fatal(err)
				}
				f.Add(body)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		st := &fenced{Store: store.NewMemory()}
		c := checkpointRef{version: 1}
		if !bytes.HasPrefix(b, []byte("PAR1")) {
			c.unique = "x.json"
		}
		put(t, st, c.names()[0], string(b))
		s, err := readCheckpoint(t.Context(), st, c)
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, store.ErrNotExist) {
			t.Fatalf("got %v", err)
		}
		if err == nil {
			_ = describe(s)
		}
		_ = readTombstones(t.Context(), st, c, func(tombstone) error { return nil })
		if len(st.outside) > 0 {
			t.Fatalf("asked the store for %q", st.outside)
		}
	})
}

func TestDamagedCheckpointsEndInErrors(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		st := store.NewMemory()
		table := newTestTable(t, st)
		a, b := fakeFile("a", 3), fakeFile("b", 4)
		mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{a, b}})
		mustCommit(t, table, &Commit{Operation: "DELETE", Remove: []*File{a, b}, Add: []*File{a.WithVector(fakeVector("v", 1))}})
		if err := table.Checkpoint(t.Context()); err != nil {
			rt.Fatal(err)
		}
		c := table.Snapshot().base
		body, err := st.Get(t.Context(), c.names()[0])
		if err != nil {
			rt.Fatal(err)
		}
		for range rapid.IntRange(1, 4).Draw(rt, "damages") {
			body[rapid.IntRange(0, len(body)-1).Draw(rt, "at")] = rapid.Byte().Draw(rt, "byte")
		}
		if err := st.Put(t.Context(), c.names()[0], body); err != nil {
			rt.Fatal(err)
		}
		if _, err := readCheckpoint(t.Context(), st, c); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
			rt.Fatal(err)
		}
		if err := readTombstones(t.Context(), st, c, func(tombstone) error { return nil }); err != nil && !errors.Is(err, ErrCorrupt) {
			rt.Fatal(err)
		}
	})
}
