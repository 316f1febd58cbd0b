package deltalog

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// randomCommit draws a commit that is valid on s.
func randomCommit(t *rapid.T, s *Snapshot) *Commit {
	c := &Commit{Read: s, Operation: "WRITE", Params: map[string]string{"mode": "Append"}}
	v := s.Version() + 1
	for f := range s.Files() {
		switch rapid.IntRange(0, 5).Draw(t, "fate") {
		case 0:
			c.Remove = append(c.Remove, f)
		case 1:
			hidden := int64(1)
			if f.Vector != nil {
				hidden += f.Vector.Cardinality
			}
			if hidden <= f.Rows {
				c.Remove = append(c.Remove, f)
				c.Add = append(c.Add, f.WithVector(fakeVector(fmt.Sprintf("vector%d/%s", v, f.Path), hidden)))
			}
		}
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "adds") {
		c.Add = append(c.Add, fakeFile(fmt.Sprintf("part-%d-%d.parquet", v, i), rapid.Int64Range(1, 5).Draw(t, "rows")))
	}
	for _, app := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), rapid.ID).Draw(t, "apps") {
		c.Txns = append(c.Txns, Txn{AppID: app, Version: int64(v)})
	}
	for _, name := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"x.y", "z"}), rapid.ID).Draw(t, "domains") {
		c.Domains = append(c.Domains, Domain{Name: name, Configuration: fmt.Sprintf(`{"at":"%d <&> é"}`, v), Removed: rapid.Bool().Draw(t, "removed")})
	}
	if rapid.IntRange(0, 9).Draw(t, "evolve") == 0 {
		m := s.Metadata().Clone()
		grown := *m.Schema
		grown.Fields = append(grown.Fields[:len(grown.Fields):len(grown.Fields)],
			schema.Field{Name: fmt.Sprintf("c%d", v), Type: schema.Type{Kind: schema.TimestampNTZ}, Nullable: true})
		m.Schema = &grown
		c.Metadata = m
		if p := s.Protocol().For(m); p != s.Protocol() {
			c.Protocol = p
		}
	}
	c.Rearrange = rapid.Bool().Draw(t, "rearrange")
	return c
}

func TestReplayEqualsWhatWasCommitted(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		st := store.NewMemory()
		properties := latestProperties()
		properties[PropertyCheckpointPolicy] = rapid.SampledFrom([]string{"classic", "v2"}).Draw(rt, "policy")
		table, err := Create(t.Context(), st, CreateOptions{
			Schema: idName(), Properties: properties, Features: []string{FeatureDomainMetadata},
		})
		if err != nil {
			rt.Fatal(err)
		}
		want := map[Version]string{0: describe(table.Snapshot())}
		for range rapid.IntRange(1, 25).Draw(rt, "commits") {
			s, won, err := table.Commit(t.Context(), randomCommit(rt, table.Snapshot()))
			if err != nil || !won {
				rt.Fatalf("won %v, error %v", won, err)
			}
			want[s.Version()] = describe(s)
			switch rapid.IntRange(0, 7).Draw(rt, "between") {
			case 0:
				if err := table.Checkpoint(t.Context()); err != nil {
					rt.Fatal(err)
				}
			case 1: // another process
				other := mustOpen(t, st)
				if err := other.Checkpoint(t.Context()); err != nil {
					rt.Fatal(err)
				}
			case 2:
				table = mustOpen(t, st)
			case 3:
				damageHint(rt, t, st, s.Version())
			case 4:
				compactLog(rt, t, st, s.Version())
			}
		}
		for v, text := range want {
			s, err := OpenAt(t.Context(), st, v)
			if err != nil {
				rt.Fatal(err)
			}
			if got := describe(s); got != text {
				rt.Fatalf("version %d reads as\n%s\nwant\n%s", v, got, text)
			}
		}
		head := mustOpen(t, st).Snapshot()
		if got := describe(head); got != want[head.Version()] || int(head.Version()) != len(want)-1 {
			rt.Fatalf("the head reads as\n%s\nwant\n%s", got, want[Version(len(want)-1)])
		}
	})
}

// compactLog writes what some writers leave beside their commits: some of them in
// one file, here without the rule that the later of two actions alone is kept.
func compactLog(rt *rapid.T, t *testing.T, st store.Store, v Version) {
	from := Version(rapid.Int64Range(0, int64(v)).Draw(rt, "from"))
	var all []byte
	for at := from; at <= v; at++ {
		b, err := st.Get(t.Context(), commitName(at))
		if err != nil {
			rt.Fatal(err)
		}
		all = append(all, b...)
	}
	if err := st.Put(t.Context(), fmt.Sprintf("%s%020d.%020d.compacted.json", logDir, from, v), all); err != nil {
		rt.Fatal(err)
	}
}

// damageHint removes the hint, or makes it lie.
func damageHint(rt *rapid.T, t *testing.T, st store.Store, v Version) {
	hint := rapid.SampledFrom([]string{
		"", "{", `{"version":0,"size":1}`, `{"version":-4,"size":1}`, fmt.Sprintf(`{"version":%d,"size":1}`, v),
		`{"version":123456,"size":1}`, `{"version":1,"size":1,"checksum":"no"}`,
	}).Draw(rt, "hint")
	err := st.Put(t.Context(), hintName, []byte(hint))
	if hint == "" {
		err = st.Delete(t.Context(), hintName)
	}
	if err != nil {
		rt.Fatal(err)
	}
}

func TestVersionOutsideTheLogIsNotThere(t *testing.T) {
	st := store.NewMemory()
	if _, err := Open(t.Context(), st); !errors.Is(err, ErrNotTable) {
		t.Fatalf("opened an empty store: %v", err)
	}
	newTestTable(t, st)
	for _, v := range []Version{-2, -1, 1, 100} {
		if _, err := OpenAt(t.Context(), st, v); !errors.Is(err, ErrNoVersion) {
			t.Errorf("version %d: %v", v, err)
		}
	}
}

func TestGapInTheLogIsRefused(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	for range 3 {
		mustCommit(t, table, &Commit{Operation: "WRITE"})
	}
	if err := st.Delete(t.Context(), commitName(2)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), st); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "not version 2") {
		t.Fatalf("opened with a gap: %v", err)
	}
}

func TestDamagedCheckpointFallsBack(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	for i := range 6 {
		mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{fakeFile(fmt.Sprint("f", i), 1)}})
		if i%2 == 1 {
			if err := table.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := describe(table.Snapshot())
	for _, v := range []Version{6, 4, 2} {
		name := checkpointRef{version: v}.names()[0]
		b, err := st.Get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, damaged := range [][]byte{b[:len(b)/2], nil, []byte("PAR1"), append([]byte("x"), b[1:len(b)-9]...)} {
			if err := st.Put(t.Context(), name, damaged); err != nil {
				t.Fatal(err)
			}
			if got := describe(mustOpen(t, st).Snapshot()); got != want {
				t.Fatalf("with a damaged checkpoint %d the table reads as\n%s\nwant\n%s", v, got, want)
			}
		}
	}
}

func TestLogWithoutItsBeginningNeedsItsCheckpoint(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	mustCommit(t, table, &Commit{Operation: "WRITE"})
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, table, &Commit{Operation: "WRITE"})
	if err := st.Delete(t.Context(), commitName(0)); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, st)
	if _, err := OpenAt(t.Context(), st, 0); !errors.Is(err, ErrNoVersion) && !errors.Is(err, ErrCorrupt) {
		t.Fatalf("opened a version that is gone: %v", err)
	}
	if err := st.Delete(t.Context(), (checkpointRef{version: 1}).names()[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), st); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("opened without a beginning: %v", err)
	}
}
