package deltalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

func TestCommitInSteadyStateNeitherListsNorReads(t *testing.T) {
	st, ops := counted(store.NewMemory())
	table := newTestTable(t, st)
	clear(ops)
	for i := range 50 {
		mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{fakeFile(fmt.Sprint("f", i), 1)}})
	}
	if ops[storetest.PutIfAbsent] != 50 || len(ops) != 1 {
		t.Fatalf("50 commits took %v", ops)
	}
	if table.Snapshot().NumFiles() != 50 {
		t.Fatalf("%d files", table.Snapshot().NumFiles())
	}
}

func TestCreateRefusesATable(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	if _, err := Create(t.Context(), st, CreateOptions{Schema: idName()}); !errors.Is(err, ErrExists) {
		t.Fatalf("got %v", err)
	}
	// The beginning of the log may be gone.
	mustCommit(t, table, &Commit{Operation: "WRITE"})
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := st.Delete(t.Context(), commitName(0)); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), st, CreateOptions{Schema: idName()}); !errors.Is(err, ErrExists) {
		t.Fatalf("got %v", err)
	}
}

func TestOfRacingCreatorsOneWins(t *testing.T) {
	st := store.NewMemory()
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			_, err := Create(t.Context(), st, CreateOptions{Schema: idName()})
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, ErrExists):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d creators won", won.Load())
	}
}

func TestProtocolFollowsFromPropertiesAndTypes(t *testing.T) {
	ntz := &schema.Schema{Fields: []schema.Field{{Name: "at", Type: schema.Type{Kind: schema.TimestampNTZ}, Nullable: true}}}
	for _, c := range []struct {
		name string
		o    CreateOptions
		want string
	}{
		{"nothing", CreateOptions{Schema: idName()}, "1 2 [] []"},
		{"append only", CreateOptions{
			Schema: idName(), Features: []string{FeatureDomainMetadata},
			Properties: map[string]string{PropertyAppendOnly: "true", PropertyInCommitTimestamps: "true"},
		}, "1 7 [] [appendOnly domainMetadata inCommitTimestamp]"},
		{"deletion vectors", CreateOptions{Schema: idName(), Properties: latestProperties()}, "3 7 [deletionVectors] [deletionVectors inCommitTimestamp]"},
		{"timestamps without zone", CreateOptions{Schema: ntz}, "3 7 [timestampNtz] [timestampNtz]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			table, err := Create(t.Context(), store.NewMemory(), c.o)
			if err != nil {
				t.Fatal(err)
			}
			p := table.Snapshot().Protocol()
			if got := fmt.Sprint(p.MinReader, p.MinWriter, p.ReaderFeatures, p.WriterFeatures); got != c.want {
				t.Fatalf("protocol %s, want %s", got, c.want)
			}
		})
	}
}

func TestOldProtocolGrowsIntoFeatureLists(t *testing.T) {
	p := (&Protocol{MinReader: 1, MinWriter: 2}).With(FeatureTimestampNTZ)
	if got := fmt.Sprint(*p); got != "{3 7 [timestampNtz] [appendOnly invariants timestampNtz]}" {
		t.Fatal(got)
	}
	if p.With(FeatureTimestampNTZ, FeatureAppendOnly) != p {
		t.Fatal("a protocol that has everything changed")
	}
}

func TestEmptyFeatureListsAreReadAndWritten(t *testing.T) {
	for _, c := range []struct{ foreign, want string }{
		{
			`"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":[],"writerFeatures":["appendOnly"]`,
			`{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":[],"writerFeatures":["appendOnly","domainMetadata"]}`,
		},
		{
			`"minReaderVersion":1,"minWriterVersion":7,"readerFeatures":[],"writerFeatures":[]`,
			`{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["domainMetadata"]}`,
		},
		{
			`"minReaderVersion":1,"minWriterVersion":1,"readerFeatures":[],"writerFeatures":[]`,
			`{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["domainMetadata"]}`,
		},
	} {
		st := store.NewMemory()
		if _, err := Create(t.Context(), st, CreateOptions{Schema: idName()}); err != nil {
			t.Fatal(err)
		}
		b, err := st.Get(t.Context(), commitName(0))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(b), "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, `{"protocol"`) {
				lines[i] = `{"protocol":{` + c.foreign + `}}`
			}
		}
		if err := st.Put(t.Context(), commitName(0), []byte(strings.Join(lines, "\n"))); err != nil {
			t.Fatal(err)
		}
		table, err := Open(t.Context(), st)
		if err != nil {
			t.Errorf("%s: %v", c.foreign, err)
			continue
		}
		mustCommit(t, table, &Commit{Protocol: table.Snapshot().Protocol().With(FeatureDomainMetadata)})
		if b, err = st.Get(t.Context(), commitName(1)); err != nil || !strings.Contains(string(b), `{"protocol":`+c.want+`}`) {
			t.Errorf("%s: committed %s, want %s: %v", c.foreign, b, c.want, err)
		}
		if err := table.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := st.Delete(t.Context(), commitName(0)); err != nil {
			t.Fatal(err)
		}
		p, err := json.Marshal(mustOpen(t, st).Snapshot().Protocol())
		if err != nil || string(p) != c.want {
			t.Errorf("%s: the checkpoint says %s, want %s: %v", c.foreign, p, c.want, err)
		}
	}
}

func TestInvalidCommitsAreNotTried(t *testing.T) {
	base := fakeFile("live", 3)
	ntz := idName()
	ntz.Fields[0].Type.Kind = schema.TimestampNTZ
	for _, c := range []struct {
		name string
		plan func(s *Snapshot) *Commit
		want string
	}{
		{"file that is not there", func(*Snapshot) *Commit { return &Commit{Remove: []*File{fakeFile("no", 1)}} }, "not in version 1"},
		{"wrong vector", func(*Snapshot) *Commit { return &Commit{Remove: []*File{base.WithVector(fakeVector("v", 1))}} }, "not in version 1"},
		{"removed twice", func(*Snapshot) *Commit { return &Commit{Remove: []*File{base, base}} }, "removed twice"},
		{"added again", func(*Snapshot) *Commit { return &Commit{Add: []*File{base}} }, "already"},
		{"added twice", func(*Snapshot) *Commit { return &Commit{Add: []*File{fakeFile("n", 1), fakeFile("n", 1)}} }, "added twice"},
		{"vector beside the file", func(*Snapshot) *Commit { return &Commit{Add: []*File{base.WithVector(fakeVector("v", 1))}} }, "already"},
		{"more hidden than there are", func(*Snapshot) *Commit {
			return &Commit{Remove: []*File{base}, Add: []*File{base.WithVector(fakeVector("v", 4))}}
		}, "no fewer than it hides"},
		{"file outside", func(*Snapshot) *Commit { return &Commit{Add: []*File{fakeFile("s3://b/x", 1)}} }, "outside"},
		{"empty file", func(*Snapshot) *Commit { return &Commit{Add: []*File{{Path: "x"}}} }, "no size"},
		{"partition value", func(*Snapshot) *Commit {
			f := fakeFile("x", 1)
			f.Partition = map[string]*string{"p": nil}
			return &Commit{Add: []*File{f}}
		}, "partition"},
		{"transaction twice", func(*Snapshot) *Commit { return &Commit{Txns: []Txn{{AppID: "a"}, {AppID: "a"}}} }, "twice"},
		{"domain twice", func(*Snapshot) *Commit { return &Commit{Domains: []Domain{{Name: "a"}, {Name: "a"}}} }, "twice"},
		{"domain of the protocol", func(*Snapshot) *Commit { return &Commit{Domains: []Domain{{Name: "delta.clustering"}}} }, "belongs to"},
		{"blind removal", func(*Snapshot) *Commit { return &Commit{BlindAppend: true, Remove: []*File{base}} }, "blind"},
		{"type without feature", func(s *Snapshot) *Commit {
			m := s.Metadata().Clone()
			m.Schema = ntz
			return &Commit{Metadata: m}
		}, FeatureTimestampNTZ},
		{"another id", func(s *Snapshot) *Commit {
			m := s.Metadata().Clone()
			m.ID = "x"
			return &Commit{Metadata: m}
		}, "id has changed"},
		{"feature taken out", func(*Snapshot) *Commit {
			return &Commit{Protocol: &Protocol{MinReader: 3, MinWriter: 7, ReaderFeatures: []string{FeatureDeletionVectors}, WriterFeatures: []string{FeatureDeletionVectors, FeatureDomainMetadata}}}
		}, FeatureInCommitTimestamp},
		{"vectors switched off", func(s *Snapshot) *Commit {
			m := s.Metadata().Clone()
			m.Configuration[PropertyDeletionVectors] = "false"
			return &Commit{Metadata: m}
		}, "switched off"},
		{"partition columns", func(s *Snapshot) *Commit {
			m := s.Metadata().Clone()
			m.PartitionColumns = []string{"id"}
			return &Commit{Metadata: m}
		}, "partition columns have changed"},
		{"feature that is not known", func(s *Snapshot) *Commit { return &Commit{Protocol: s.Protocol().With("novelty")} }, "novelty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := store.NewMemory()
			table := newTestTable(t, st)
			s := mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{base}})
			_, won, err := table.Commit(t.Context(), c.plan(s))
			if won || !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("won %v, error %v, want one with %q", won, err, c.want)
			}
			if _, err := OpenAt(t.Context(), st, 2); !errors.Is(err, ErrNoVersion) {
				t.Fatalf("something was written: %v", err)
			}
		})
	}
}

func TestAppendOnlyTableKeepsItsRows(t *testing.T) {
	table, err := Create(t.Context(), store.NewMemory(), CreateOptions{Schema: idName(), Properties: map[string]string{PropertyAppendOnly: "true"}})
	if err != nil {
		t.Fatal(err)
	}
	f := fakeFile("f", 2)
	mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}})
	if _, _, err := table.Commit(t.Context(), &Commit{Operation: "DELETE", Remove: []*File{f}}); !errors.Is(err, ErrInvalid) {
		t.Fatalf("removed: %v", err)
	}
	mustCommit(t, table, &Commit{Operation: "OPTIMIZE", Remove: []*File{f}, Add: []*File{fakeFile("g", 2)}, Rearrange: true})
}

func TestInCommitTimestampsGrowWhateverTheClockSays(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	last := table.Snapshot().Info().InCommitTimestamp
	start := time.UnixMilli(last)
	for _, d := range []time.Duration{-time.Second, 0, 0, time.Hour, -24 * time.Hour} {
		table.now = func() time.Time { return start.Add(d) }
		s := mustCommit(t, table, &Commit{Operation: "WRITE"})
		if now := s.Info().InCommitTimestamp; now <= last {
			t.Fatalf("version %d: %d after %d", s.Version(), now, last)
		}
		last = s.Info().InCommitTimestamp
		if err := table.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		table = mustOpen(t, st)
		if got := table.Snapshot().Info().InCommitTimestamp; got != last {
			t.Fatalf("read back from the checkpoint as %d, want %d", got, last)
		}
	}
}

func TestCommitWithoutItsInCommitTimestampIsCorrupt(t *testing.T) {
	st := store.NewMemory()
	newTestTable(t, st)
	if err := st.PutIfAbsent(t.Context(), commitName(1), []byte(`{"commitInfo":{"timestamp":1,"operation":"WRITE"}}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), st); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("got %v", err)
	}
}

func TestLostRaceIsAnOutcome(t *testing.T) {
	st := store.NewMemory()
	ours := newTestTable(t, st)
	theirs := mustOpen(t, st)
	mustCommit(t, theirs, &Commit{Operation: "WRITE", Add: []*File{fakeFile("theirs", 1)}})
	snap, won, err := ours.Commit(t.Context(), &Commit{Operation: "WRITE", Add: []*File{fakeFile("ours", 1)}})
	if err != nil || won || snap.Version() != 0 {
		t.Fatalf("version %v, won %v, error %v", snap.Version(), won, err)
	}
	if snap, err = ours.Refresh(t.Context()); err != nil || snap.Version() != 1 {
		t.Fatalf("refreshed to %v: %v", snap.Version(), err)
	}
	stale := &Commit{Read: snap, Operation: "WRITE"}
	mustCommit(t, ours, &Commit{Operation: "WRITE", Add: []*File{fakeFile("ours", 1)}})
	if _, won, err := ours.Commit(t.Context(), stale); won || err != nil {
		t.Fatalf("a plan on an old version: won %v, error %v", won, err)
	}
}

func TestConflictsAreTold(t *testing.T) {
	setup := func(t *testing.T) (st store.Store, table *Table, f *File) {
		st = store.NewMemory()
		table = newTestTable(t, st)
		f = fakeFile("f", 5)
		mustCommit(t, table, &Commit{
			Operation: "WRITE", Add: []*File{f}, Txns: []Txn{{AppID: "a", Version: 1}},
			Domains: []Domain{{Name: "d", Configuration: "1"}},
		})
		return st, table, f
	}
	for _, c := range []struct {
		name         string
		ours, theirs func(s *Snapshot, f *File) *Commit
		want         string // empty: no conflict
	}{
		{"appends pass", add("x"), add("y"), ""},
		{
			"same transaction id", func(*Snapshot, *File) *Commit { return &Commit{Txns: []Txn{{AppID: "a", Version: 2}}} },
			func(*Snapshot, *File) *Commit { return &Commit{Txns: []Txn{{AppID: "a", Version: 3}}} }, "already applied",
		},
		{
			"transaction id that has not come so far", func(*Snapshot, *File) *Commit { return &Commit{Txns: []Txn{{AppID: "a", Version: 4}}} },
			func(*Snapshot, *File) *Commit { return &Commit{Txns: []Txn{{AppID: "a", Version: 3}}} }, "transaction id of a",
		},
		{
			"progress that was read", func(*Snapshot, *File) *Commit { return &Commit{ReadApps: []string{"a"}} },
			func(*Snapshot, *File) *Commit { return &Commit{Txns: []Txn{{AppID: "a", Version: 3}}} }, "which was read",
		},
		{"file that was read is gone", func(_ *Snapshot, f *File) *Commit { return &Commit{ReadFiles: []*File{f}} }, removeFile, "file f, which was read"},
		{"file that was read stays", func(_ *Snapshot, f *File) *Commit { return &Commit{ReadFiles: []*File{f}} }, add("y"), ""},
		{"file that would have been read", reads("y"), add("y"), "file y, which would have been read"},
		{"file that would not have been read", reads("z"), add("y"), ""},
		{"file that would have been read, of a blind append", reads("y"), blind("y"), ""},
		{"file that would have been read, of a blind append, beside metadata", func(s *Snapshot, f *File) *Commit {
			c := reads("y")(s, f)
			c.Metadata = s.Metadata().Clone()
			return c
		}, blind("y"), "file y, which would have been read"},
		{"rearranged file that would have been read", reads("y"), func(_ *Snapshot, f *File) *Commit {
			return &Commit{Remove: []*File{f}, Add: []*File{fakeFile("y", 5)}, Rearrange: true}
		}, ""},
		{"file that a rearrangement would have read", func(s *Snapshot, f *File) *Commit {
			c := reads("y")(s, f)
			c.Rearrange = true
			return c
		}, add("y"), ""},
		{
			"other transaction id", func(*Snapshot, *File) *Commit { return &Commit{Txns: []Txn{{AppID: "a", Version: 2}}} },
			func(*Snapshot, *File) *Commit { return &Commit{Txns: []Txn{{AppID: "b", Version: 3}}} }, "",
		},
		{
			"same domain", func(*Snapshot, *File) *Commit { return &Commit{Domains: []Domain{{Name: "d", Configuration: "2"}}} },
			func(*Snapshot, *File) *Commit { return &Commit{Domains: []Domain{{Name: "d", Removed: true}}} }, "domain d",
		},
		{"metadata", add("x"), func(s *Snapshot, _ *File) *Commit {
			m := s.Metadata().Clone()
			m.Description = "changed"
			return &Commit{Metadata: m}
		}, "metadata"},
		{"protocol", add("x"), func(s *Snapshot, _ *File) *Commit {
			return &Commit{Protocol: s.Protocol().With(FeatureTimestampNTZ)}
		}, "protocol"},
		{"removed file", removeFile, removeFile, "file f"},
		{"file with another vector", removeFile, func(_ *Snapshot, f *File) *Commit {
			return &Commit{Remove: []*File{f}, Add: []*File{f.WithVector(fakeVector("v", 1))}}
		}, "file f"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, table, f := setup(t)
			plan := c.ours(table.Snapshot(), f)
			plan.Read = table.Snapshot()
			other := mustOpen(t, st)
			mustCommit(t, other, c.theirs(other.Snapshot(), f))
			if _, won, err := table.Commit(t.Context(), plan); won || err != nil {
				t.Fatalf("won %v, error %v", won, err)
			}
			now, err := table.Refresh(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			err = plan.Conflict(now)
			if errors.Is(err, ErrApplied) != (c.want == "already applied") {
				t.Fatalf("got %v", err)
			}
			if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func add(path string) func(*Snapshot, *File) *Commit {
	return func(*Snapshot, *File) *Commit { return &Commit{Add: []*File{fakeFile(path, 1)}} }
}

func blind(path string) func(*Snapshot, *File) *Commit {
	return func(*Snapshot, *File) *Commit {
		return &Commit{Add: []*File{fakeFile(path, 1)}, BlindAppend: true}
	}
}

// reads plans on all files of a path.
func reads(path string) func(*Snapshot, *File) *Commit {
	return func(*Snapshot, *File) *Commit {
		return &Commit{Reads: func(f *File) bool { return f.Path == path }}
	}
}

func removeFile(_ *Snapshot, f *File) *Commit { return &Commit{Remove: []*File{f}} }

var errLostReply = errors.New("lost reply")

// racingWriters has many writers commit through a store that loses requests and
// replies, and fails in all else now and then. Nothing may be lost, and nothing
// there twice.
func racingWriters(t *testing.T, st store.Store, writers, each int, chaos *storetest.Chaos) {
	if _, err := Create(t.Context(), st, CreateOptions{Schema: idName(), Properties: map[string]string{PropertyInCommitTimestamps: "true"}}); err != nil {
		t.Fatal(err)
	}
	rare := &storetest.Chaos{Seed: chaos.Seed + 1, Fail: 0.002, Lose: 0.002, Cut: 0.002}
	faulty := chaos.Over(rare.Over(st))
	var lost, uncertain atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			table := openThrough(t, st, faulty)
			app := fmt.Sprint("writer", w)
			for i := int64(1); i <= int64(each); {
				c := &Commit{
					Operation: "WRITE", Add: []*File{fakeFile(fmt.Sprintf("%s-%d-%d.parquet", app, i, rand.Int()), 1)},
					Txns: []Txn{{AppID: app, Version: i}},
				}
				_, err := table.CommitAppend(t.Context(), c, func(*Snapshot) error { lost.Add(1); return nil })
				if err != nil {
					if !errors.Is(err, storetest.ErrFault) {
						t.Errorf("%s: %v", app, err)
						return
					}
					// As a writer that restarts: the log says how far it came.
					uncertain.Add(1)
					table = openThrough(t, st, faulty)
				}
				if w == 0 && table.CheckpointDue() {
					if err := table.Checkpoint(t.Context()); err != nil && !errors.Is(err, storetest.ErrFault) {
						t.Errorf("checkpoint: %v", err)
					}
				}
				done, _ := table.Snapshot().Txn(app)
				if done != i && done != i-1 {
					t.Errorf("%s stands at %d while it commits %d", app, done, i)
					return
				}
				i = done + 1
			}
		})
	}
	wg.Wait()
	s := mustOpen(t, st).Snapshot()
	t.Logf("seed %d: %d versions, %d ambiguous outcomes, %d lost races, %d uncertain",
		chaos.Seed, s.Version(), chaos.Ambiguous(), lost.Load(), uncertain.Load())
	if s.NumFiles() != writers*each || int(s.Version()) != writers*each {
		t.Fatalf("%d files in %d versions, want %d of both", s.NumFiles(), s.Version(), writers*each)
	}
	for w := range writers {
		if v, _ := s.Txn(fmt.Sprint("writer", w)); v != int64(each) {
			t.Errorf("writer %d stands at %d, want %d", w, v, each)
		}
	}
	if lost.Load() == 0 {
		t.Error("nobody ever lost a race")
	}
}

// lossy loses much of what commits.
func lossy() *storetest.Chaos {
	return &storetest.Chaos{
		Seed: uint64(time.Now().UnixNano()), Fail: 0.55, Lose: 0.7, Ops: []storetest.Op{storetest.PutIfAbsent},
	}
}

func TestRacingWritersLoseNothingAndRepeatNothing(t *testing.T) {
	each, want := 220, int64(10_000)
	if testing.Short() {
		each, want = 20, 500
	}
	chaos := lossy()
	racingWriters(t, store.NewMemory(), 16, each, chaos)
	if n := chaos.Ambiguous(); n < want {
		t.Errorf("only %d ambiguous outcomes, want %d", n, want)
	}
}

func TestRacingWritersOnADiskLoseNothingAndRepeatNothing(t *testing.T) {
	each := 10
	if testing.Short() {
		each = 2
	}
	st, err := store.NewLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	racingWriters(t, st, 16, each, lossy())
}

func TestRacingWritersOnS3LoseNothingAndRepeatNothing(t *testing.T) {
	racingWriters(t, onS3(t), 16, 8, lossy())
}

// openThrough opens the table and has it go on through a store with faults.
func openThrough(t *testing.T, st, faulty store.Store) *Table {
	table := mustOpen(t, st)
	table.st = faulty
	table.pause = time.Nanosecond
	s := *table.snap.Load()
	s.st = faulty
	table.snap.Store(&s)
	return table
}

func TestAmbiguousOutcomesAreSettledByTheLog(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after func(n int) error // for the n-th put of a commit
		theirs        bool              // another writer holds the version
		won           bool
		err           error
	}{
		{name: "reply lost", after: func(n int) error { return failFirst(n, errLostReply) }, won: true},
		{name: "request lost", before: func(n int) error { return failFirst(n, errLostReply) }, won: true},
		{name: "reply says taken by us", after: func(n int) error { return failFirst(n, store.ErrExist) }, won: true},
		{name: "request lost, then taken", before: func(n int) error { return failFirst(n, errLostReply) }, theirs: true},
		{name: "never reached", before: func(int) error { return errLostReply }, err: ErrUncertain},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := store.NewMemory()
			newTestTable(t, mem)
			puts := 0
			fault := func(f func(int) error, count bool) func(storetest.Op, string) error {
				return func(op storetest.Op, _ string) error {
					if op != storetest.PutIfAbsent {
						return nil
					}
					if count {
						puts++
					}
					if f == nil {
						return nil
					}
					return f(puts)
				}
			}
			table := mustOpen(t, &storetest.Faulty{Store: mem, Before: fault(c.before, true), After: fault(c.after, false)})
			table.pause = time.Microsecond
			if c.theirs {
				mustCommit(t, mustOpen(t, mem), &Commit{Operation: "WRITE"})
			}
			_, won, err := table.Commit(t.Context(), &Commit{Operation: "WRITE", Add: []*File{fakeFile("f", 1)}})
			if won != c.won || !errors.Is(err, c.err) {
				t.Fatalf("won %v, error %v", won, err)
			}
			head := mustOpen(t, mem).Snapshot()
			if landed := head.File("f") != nil; landed != c.won {
				t.Fatalf("the file is in the log: %v", landed)
			}
		})
	}
}

func failFirst(n int, err error) error {
	if n == 1 {
		return err
	}
	return nil
}

func TestCallerWhoGivesUpDuringACommitLearnsItsOutcome(t *testing.T) {
	mem := store.NewMemory()
	newTestTable(t, mem)
	ctx, cancel := context.WithCancel(t.Context())
	table := mustOpen(t, &storetest.Faulty{Store: mem, After: func(op storetest.Op, _ string) error {
		if op == storetest.PutIfAbsent {
			cancel()
			return ctx.Err()
		}
		return nil
	}})
	if _, won, err := table.Commit(ctx, &Commit{Operation: "WRITE"}); !won || err != nil {
		t.Fatalf("won %v, error %v", won, err)
	}
	if _, won, err := table.Commit(ctx, &Commit{Operation: "WRITE"}); won || !errors.Is(err, context.Canceled) {
		t.Fatalf("won %v, error %v", won, err)
	}
}

func TestSleeperDoesNotCommitIntoACleanedLog(t *testing.T) {
	st := store.NewMemory()
	sleeper := newTestTable(t, st)
	other := mustOpen(t, st)
	for i := range 5 {
		mustCommit(t, other, &Commit{Operation: "WRITE", Add: []*File{fakeFile(fmt.Sprint("f", i), 1)}})
	}
	if err := other.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	for v := range Version(4) {
		if err := st.Delete(t.Context(), commitName(v)); err != nil {
			t.Fatal(err)
		}
	}
	asleep := *sleeper.Snapshot()
	sleeper.now = func() time.Time { return time.Now().Add(staleAfter + time.Minute) }
	_, won, err := sleeper.Commit(t.Context(), &Commit{Read: &asleep, Operation: "WRITE"})
	if won || err != nil {
		t.Fatalf("won %v, error %v", won, err)
	}
	if got, want := describe(sleeper.Snapshot()), describe(other.Snapshot()); got != want {
		t.Fatalf("woke up to\n%s\nwant\n%s", got, want)
	}
	s, err := sleeper.Refresh(t.Context())
	if err != nil || s.Version() != 5 {
		t.Fatalf("version %d, error %v", s.Version(), err)
	}
	mustCommit(t, sleeper, &Commit{Operation: "WRITE"})
}

func TestTableThatWasReplacedIsNoticed(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	if err := st.Delete(t.Context(), commitName(0)); err != nil {
		t.Fatal(err)
	}
	other := newTestTable(t, st)
	for range 3 {
		mustCommit(t, other, &Commit{Operation: "WRITE"})
	}
	if err := other.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := st.Delete(t.Context(), commitName(1)); err != nil {
		t.Fatal(err)
	}
	table.now = func() time.Time { return time.Now().Add(time.Hour) }
	if _, err := table.Refresh(t.Context()); !errors.Is(err, ErrConflict) {
		t.Fatalf("got %v", err)
	}
}

func TestFollowerForgetsWhatACheckpointRemembers(t *testing.T) {
	st := store.NewMemory()
	writer := newTestTable(t, st)
	follower := mustOpen(t, st)
	last := fakeFile("f", 1)
	mustCommit(t, writer, &Commit{Operation: "WRITE", Add: []*File{last}})
	for i := range 350 {
		next := fakeFile(fmt.Sprint("f", i), 1)
		mustCommit(t, writer, &Commit{Operation: "WRITE", Remove: []*File{last}, Add: []*File{next}})
		last = next
		if writer.CheckpointDue() {
			if err := writer.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := follower.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for r := follower.Snapshot().removed; r != nil; r = r.before {
		n++
	}
	if n > 250 {
		t.Fatalf("it keeps what %d commits removed", n)
	}
	if got, want := describe(follower.Snapshot()), describe(writer.Snapshot()); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
}

func TestRacingWritersOfDataLoseNoRows(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) store.Store{
		"on a disk": func(t *testing.T) store.Store {
			st, err := store.NewLocal(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return st
		},
		"on S3": func(t *testing.T) store.Store { return onS3(t) },
	} {
		t.Run(name, func(t *testing.T) {
			const writers, each = 4, 15
			st := open(t)
			newTestTable(t, st)
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					table := mustOpen(t, st)
					for i := range each {
						f := writeFile(t, table, FileOptions{}, idNames(int64(w*each+i), 1))
						if _, err := table.CommitAppend(t.Context(), &Commit{Operation: "WRITE", Add: []*File{f}}, nil); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			table := mustOpen(t, st)
			if err := table.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, st).Snapshot()
			if got := readIDs(t, s, ReadOptions{}); len(got) != writers*each || s.Version() != writers*each {
				t.Fatalf("version %d has ids %v", s.Version(), got)
			}
		})
	}
}

func TestTablesThatNeedMoreAreReadButNotWritten(t *testing.T) {
	const line = `{"metaData":{"id":"t","format":{"provider":"parquet"},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"id\",\"type\":\"long\",\"nullable\":true,\"metadata\":{%s}}]}","partitionColumns":[],"configuration":{%s}}}`
	for _, c := range []struct {
		name, protocol, field, property, want string // want is empty where it can be written
	}{
		{name: "row tracking", protocol: `"minWriterVersion":7,"writerFeatures":["rowTracking"]`, want: "rowTracking"},
		{name: "invariants listed", protocol: `"minWriterVersion":7,"writerFeatures":["invariants"]`},
		{name: "invariants", protocol: `"minWriterVersion":2`, field: `\"delta.invariants\":\"{}\"`, want: "invariants"},
		{name: "constraints", protocol: `"minWriterVersion":3`, property: `"delta.constraints.c":"id > 0"`, want: "checkConstraints"},
		{name: "change data feed", protocol: `"minWriterVersion":4`, property: `"delta.enableChangeDataFeed":"true"`},
		{name: "change data feed off", protocol: `"minWriterVersion":4`},
		{name: "generated columns", protocol: `"minWriterVersion":4`, field: `\"delta.generationExpression\":\"1\"`, want: "generatedColumns"},
		{name: "identity columns", protocol: `"minWriterVersion":6`, field: `\"delta.identity.start\":1`, want: "identityColumns"},
		{name: "oldest", protocol: `"minWriterVersion":1`},
		{name: "unheard of", protocol: `"minWriterVersion":7,"writerFeatures":["timeMachine"]`, want: "timeMachine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := store.NewMemory()
			body := fmt.Sprintf(`{"protocol":{"minReaderVersion":1,%s}}`, c.protocol) + "\n" + fmt.Sprintf(line, c.field, c.property)
			if err := st.PutIfAbsent(t.Context(), commitName(0), []byte(body)); err != nil {
				t.Fatal(err)
			}
			table := mustOpen(t, st)
			_, won, err := table.Commit(t.Context(), &Commit{Operation: "WRITE", Add: []*File{fakeFile("f", 1)}})
			if c.want == "" && (!won || err != nil) {
				t.Fatalf("won %v, error %v", won, err)
			}
			if c.want != "" && (won || !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("won %v, error %v, want one that names %s", won, err, c.want)
			}
		})
	}
}

// Where the log was read anew, who added what is not known, and whatever fits
// counts.
func TestConflictWithWhatWasReadAnew(t *testing.T) {
	st := store.NewMemory()
	table := newTestTable(t, st)
	plan := reads("y")(nil, nil)
	plan.Read = table.Snapshot()
	mustCommit(t, mustOpen(t, st), blind("y")(nil, nil))
	now := mustOpen(t, st).Snapshot()
	if err := plan.Conflict(now); !errors.Is(err, ErrConflict) {
		t.Fatalf("got %v", err)
	}
	plan.Reads = func(f *File) bool { return f.Path == "z" }
	if err := plan.Conflict(now); err != nil {
		t.Fatal(err)
	}
}

// A process that was stopped between its last look at the log and its write may
// write a version that came and went meanwhile.
func TestWriterThatWasStoppedDuringItsWriteIsNotBelieved(t *testing.T) {
	for _, cleaned := range []bool{true, false} {
		memory := store.NewMemory()
		newTestTable(t, memory)
		other := mustOpen(t, memory)
		var asleep time.Duration
		table := mustOpen(t, &storetest.Faulty{Store: memory, Before: func(op storetest.Op, name string) error {
			if op != storetest.PutIfAbsent || asleep > 0 {
				return nil
			}
			asleep = 2 * time.Hour
			if !cleaned {
				return nil
			}
			for i := range 5 {
				mustCommit(t, other, &Commit{Operation: "WRITE", Add: []*File{fakeFile(fmt.Sprint("f", i), 1)}})
			}
			if err := other.Checkpoint(t.Context()); err != nil {
				t.Error(err)
			}
			later(other, 2*time.Hour)
			for v := range Version(5) {
				if err := memory.Delete(t.Context(), commitName(v)); err != nil {
					t.Error(err)
				}
			}
			return nil
		}})
		table.now = func() time.Time { return time.Now().Add(asleep) }
		_, won, err := table.Commit(t.Context(), &Commit{Operation: "WRITE", Add: []*File{fakeFile("late", 1)}})
		if cleaned && (won || !errors.Is(err, ErrUncertain)) || !cleaned && (!won || err != nil) {
			t.Fatalf("cleaned %v: won %v, error %v", cleaned, won, err)
		}
		head := mustOpen(t, memory)
		if won != (head.Snapshot().File("late") != nil) {
			t.Fatalf("cleaned %v: it is in the table: %v", cleaned, !won)
		}
		s, err := table.Refresh(t.Context())
		if err != nil || describe(s) != describe(head.Snapshot()) {
			t.Fatalf("cleaned %v: it goes on from version %d: %v", cleaned, s.Version(), err)
		}
		mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{fakeFile("next", 1)}})
	}
}

// What a store refuses has no effect: there is nothing to find out, and nothing
// that a second attempt would change.
func TestCommitThatTheStoreRefusesIsNotUncertain(t *testing.T) {
	for _, refusal := range []error{store.ErrPermission, store.ErrUnconditional, store.ErrName} {
		memory := store.NewMemory()
		newTestTable(t, memory)
		st, ops := counted(&storetest.Faulty{Store: memory, Before: func(op storetest.Op, _ string) error {
			if op == storetest.PutIfAbsent {
				return fmt.Errorf("put: %w", refusal)
			}
			return nil
		}})
		table := mustOpen(t, st)
		clear(ops)
		_, won, err := table.Commit(t.Context(), &Commit{Operation: "WRITE", Add: []*File{fakeFile("f", 1)}})
		if won || !errors.Is(err, refusal) || errors.Is(err, ErrUncertain) {
			t.Errorf("%v: won %v, error %v", refusal, won, err)
		}
		if ops[storetest.PutIfAbsent] != 1 || len(ops) != 1 {
			t.Errorf("%v: it took %v", refusal, ops)
		}
		_, err = table.Append(t.Context(), idNames(0, 1))
		if !errors.Is(err, refusal) {
			t.Errorf("%v: error %v", refusal, err)
		}
		for name := range objects(t, memory) {
			t.Errorf("%v: %s was left behind", refusal, name)
		}
	}
}
