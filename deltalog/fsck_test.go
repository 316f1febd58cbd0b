package deltalog

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

func mustFsck(t testing.TB, st store.Store, o FsckOptions) []Finding {
	t.Helper()
	found, err := Fsck(t.Context(), st, o)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFsckFindsNothingWrongWithASoundTable(t *testing.T) {
	memory, table, _ := usedTable(t)
	if found := mustFsck(t, memory, FsckOptions{}); len(found) > 0 {
		t.Fatalf("found %v", found)
	}
	u, err := OpenUpserter(t.Context(), table, t.TempDir(), UpserterOptions{Keys: []string{"id"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	mustUpsert(t, u, []person{someone(1)}, 2)
	mustCompact(t, table, CompactOptions{})
	if found, err := u.Fsck(t.Context()); err != nil || len(found) > 0 {
		t.Fatalf("found %v, %v", found, err)
	}
}

func TestFsckTakesFilesOfChangesForWhatTheyAre(t *testing.T) {
	st := store.NewMemory()
	table := tableWith(t, st, map[string]string{PropertyChangeDataFeed: "true"})
	if _, err := table.Append(t.Context(), idNames(1, 5)); err != nil {
		t.Fatal(err)
	}
	if _, n, err := table.Delete(t.Context(), nil, odd); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	changes := 0
	for info, err := range st.List(t.Context(), changeDir, "") {
		if err != nil {
			t.Fatal(err)
		}
		if info.Size > 0 {
			changes++
		}
	}
	if found := mustFsck(t, st, FsckOptions{}); changes == 0 || len(found) > 0 {
		t.Fatalf("%d files of changes; found %v", changes, found)
	}
}

// firstFile returns a file of a table, with a vector or without.
func firstFile(s *Snapshot, vector bool) *File {
	for f := range s.Files() {
		if (f.Vector != nil) == vector {
			return f
		}
	}
	return nil
}

// TestFsckNamesWhatIsDamaged damages one thing at a time.
func TestFsckNamesWhatIsDamaged(t *testing.T) {
	whole, table, _ := usedTable(t)
	s := table.Snapshot()
	plain, holed := firstFile(s, false), firstFile(s, true)
	vectorFile, err := holed.Vector.name()
	if err != nil {
		t.Fatal(err)
	}
	checkpoint := checkpointRef{version: s.base.version}.names()[0]
	edit := func(name string, change func([]byte) []byte) func(*store.Memory) string {
		return func(m *store.Memory) string {
			b, err := m.Get(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Put(t.Context(), name, change(b)); err != nil {
				t.Fatal(err)
			}
			return name
		}
	}
	remove := func(name string) func(*store.Memory) string {
		return func(m *store.Memory) string {
			if err := m.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			return name
		}
	}
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[(at+len(b))%len(b)] ^= 0x5a; return b }
	}
	rewritten := func(old, change string) func([]byte) []byte {
		return func(b []byte) []byte {
			if !bytes.Contains(b, []byte(old)) {
				t.Fatalf("there is no %q in %s", old, b)
			}
			return bytes.Replace(b, []byte(old), []byte(change), 1)
		}
	}
	newest := commitName(s.Version())
	for what, test := range map[string]struct {
		damage func(*store.Memory) string
		want   string
	}{
		"a version is missing":    {remove(commitName(3)), "version 3 is missing"},
		"a commit is cut":         {edit(commitName(4), func(b []byte) []byte { return b[:len(b)-20] }), "version 4 cannot be read"},
		"a checkpoint is damaged": {edit(checkpoint, func(b []byte) []byte { return b[:len(b)-5] }), "checkpoint cannot be read"},
		"the hint is damaged":     {edit(hintName, func([]byte) []byte { return []byte("{") }), "damaged"},
		"the hint is stale":       {edit(hintName, func([]byte) []byte { return []byte(`{"version":2,"size":1}`) }), "names checkpoint 2"},
		"a data file is missing":  {remove(plain.Path), "missing"},
		"a data file is cut":      {edit(plain.Path, func(b []byte) []byte { return b[:len(b)-1] }), "bytes, the log says"},
		"a footer is damaged":     {edit(plain.Path, flip(-6)), "cannot be opened"},
		"a vector is missing":     {remove(vectorFile), "cannot be read"},
		"a vector is damaged":     {edit(vectorFile, flip(20)), "checksum"},
		"a file is nobody's": {func(m *store.Memory) string {
			_ = m.Put(t.Context(), "part-x.parquet", []byte("x"))
			return "part-x.parquet"
		}, "no version"},
		"rows are miscounted": {func(m *store.Memory) string {
			edit(newest, rewritten(`{\"numRecords\":2,`, `{\"numRecords\":7,`))(m)
			return ""
		}, "2 rows, the log says 7"},
		"a bound is too high": {func(m *store.Memory) string {
			edit(newest, rewritten(`\"minValues\":{\"id\":11`, `\"minValues\":{\"id\":12`))(m)
			return ""
		}, "column id do not hold: there are values below"},
		"a bound is too low": {func(m *store.Memory) string {
			edit(newest, rewritten(`\"maxValues\":{\"id\":61,\"name\":\"number 61\"`, `\"maxValues\":{\"id\":61,\"name\":\"number 6\"`))(m)
			return ""
		}, "column name do not hold: there are values above"},
		"NULLs are miscounted": {func(m *store.Memory) string {
			edit(newest, rewritten(`\"nullCount\":{\"id\":0`, `\"nullCount\":{\"id\":1`))(m)
			return ""
		}, "number of NULLs"},
		"the cardinality is not that": {func(m *store.Memory) string {
			edit(newest, rewritten(`"cardinality":`, `"cardinality":1`))(m)
			return ""
		}, "the log says 1"},
	} {
		t.Run(what, func(t *testing.T) {
			m := whole.Clone()
			file := test.damage(m)
			found := mustFsck(t, m, FsckOptions{})
			if !slices.ContainsFunc(found, func(f Finding) bool {
				return strings.Contains(f.Problem, test.want) && (file == "" || f.File == file) && f.Remedy != ""
			}) {
				t.Fatalf("found %q, want %q of %s", found, test.want, file)
			}
		})
	}
}

// TestFsckComparesCheckpointsWithTheLog has a checkpoint that can be read say
// what is not so.
func TestFsckComparesCheckpointsWithTheLog(t *testing.T) {
	memory, table, _ := usedTable(t)
	other := newTestTable(t, store.NewMemory())
	for other.Snapshot().Version() < table.Snapshot().base.version {
		mustCommit(t, other, &Commit{Operation: "WRITE", Txns: []Txn{{AppID: "a", Version: 1}}})
	}
	if err := other.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	name := checkpointRef{version: table.Snapshot().base.version}.names()[0]
	b, err := other.st.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := memory.Put(t.Context(), name, b); err != nil {
		t.Fatal(err)
	}
	found := mustFsck(t, memory, FsckOptions{})
	if len(found) == 0 || found[0].File != name || !strings.Contains(found[0].Problem, "not what the commits") {
		t.Fatalf("found %v", found)
	}
}

func TestFsckTellsGapsOfTheLogOnce(t *testing.T) {
	memory, table, _ := usedTable(t)
	newest := table.Snapshot().Version()
	for _, v := range []Version{3, 4, 5, 7} {
		if err := memory.Delete(t.Context(), commitName(v)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, memory, commitName(math.MaxInt64), "{}")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	found, err := Fsck(ctx, memory, FsckOptions{Quick: true})
	if err != nil {
		t.Fatal(err)
	}
	var missing []string
	for _, f := range found {
		if strings.Contains(f.Problem, "missing, and version") {
			missing = append(missing, f.File)
		}
	}
	if want := []string{commitName(3), commitName(7), commitName(newest + 1)}; !slices.Equal(missing, want) {
		t.Fatalf("missing are %q, want %q; found %q", missing, want, found)
	}
}

func TestFsckOfNoTable(t *testing.T) {
	if _, err := Fsck(t.Context(), store.NewMemory(), FsckOptions{}); !errors.Is(err, ErrNotTable) {
		t.Fatalf("error is %v", err)
	}
}

func TestFsckOfTheIndexFindsWhatIsWrong(t *testing.T) {
	for _, o := range []UpserterOptions{{Keys: []string{"id"}}, {Multiset: true, Columns: []string{"id", "name"}}} {
		_, u := newUpserter(t, store.NewMemory(), o)
		up := u.Begin()
		if err := up.Put(t.Context(), batchOf(someone(1), someone(2)), keysOf(1, 2)); err != nil {
			t.Fatal(err)
		}
		if _, err := up.Commit(t.Context(), CommitExtras{}); err != nil {
			t.Fatal(err)
		}
		if found, err := u.Fsck(t.Context()); err != nil || len(found) > 0 {
			t.Fatalf("found %v, %v", found, err)
		}
		it, err := u.index.db.NewIter(&pebble.IterOptions{LowerBound: []byte{nameKey}, UpperBound: []byte{nameHash + 1}})
		if err != nil {
			t.Fatal(err)
		}
		it.First()
		name := bytes.Clone(it.Key())
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
		if err := u.index.db.Delete(name, pebble.Sync); err != nil {
			t.Fatal(err)
		}
		found, err := u.Fsck(t.Context())
		if err != nil || len(found) != 1 || !strings.Contains(found[0].Problem, "1 rows") {
			t.Fatalf("found %v, %v", found, err)
		}
	}
}

// TestStatisticsOfAllTypesHold has Fsck judge what the writer claims.
func TestStatisticsOfAllTypesHold(t *testing.T) {
	kinds := []schema.Type{
		{Kind: schema.Byte},
		{Kind: schema.Long},
		{Kind: schema.Double},
		{Kind: schema.Date},
		{Kind: schema.Timestamp},
		{Kind: schema.TimestampNTZ},
		{Kind: schema.Decimal, Precision: 10, Scale: 2},
		{Kind: schema.Decimal, Precision: 30, Scale: 4},
	}
	s := &schema.Schema{}
	for i, k := range kinds {
		s.Fields = append(s.Fields, schema.Field{Name: string(rune('a' + i)), Type: k, Nullable: true})
	}
	memory := store.NewMemory()
	table, err := Create(t.Context(), memory, CreateOptions{Schema: s})
	if err != nil {
		t.Fatal(err)
	}
	b := datafile.NewBatch(s)
	for _, v := range []int64{-7, 100, 3} {
		for i, c := range b.Cols {
			if kinds[i].Kind == schema.Double {
				c.AppendFloat(float64(v) / 4)
			} else {
				c.AppendInt(v)
			}
		}
	}
	for _, c := range b.Cols {
		c.AppendNull()
	}
	f := writeFile(t, table, FileOptions{}, b)
	mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}})
	if found := mustFsck(t, memory, FsckOptions{}); len(found) > 0 {
		t.Fatalf("found %v", found)
	}
	c := &fsck{st: memory, s: table.Snapshot()}
	claims := c.claims(f)
	for _, cl := range claims {
		if cl.bounds[0] == nil || cl.bounds[1] == nil {
			t.Errorf("column %s has bounds that could not be read: %s", cl.name, f.Stats)
		}
	}
	bad := *f
	bad.Stats = strings.Replace(f.Stats, `"maxValues":{"a":100,"b":100,"c":25,"d":"1970-04-11"`, `"maxValues":{"a":99,"b":99,"c":24,"d":"1970-04-10"`, 1)
	if bad.Stats == f.Stats {
		t.Fatal("statistics look otherwise:", f.Stats)
	}
	if err := c.rows(context.Background(), "f", &bad); err != nil || len(c.found) != 4 {
		t.Fatalf("found %v, %v", c.found, err)
	}
}
