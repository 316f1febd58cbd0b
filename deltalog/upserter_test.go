package deltalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

// person is a row of the tables of these tests.
type person struct {
	id   int64
	name string
}

// people is what a table should hold: how often each row is there. With a key,
// no id is there twice.
type people map[person]int

func (p people) byID(id int64) (person, bool) {
	for r := range p {
		if r.id == id {
			return r, true
		}
	}
	return person{}, false
}

func (p people) put(r person, multiset bool) {
	if !multiset {
		p.drop(r.id)
	}
	p[r]++
}

func (p people) drop(id int64) {
	if r, ok := p.byID(id); ok {
		delete(p, r)
	}
}

func (p people) take(r person) bool {
	if p[r] == 0 {
		return false
	}
	if p[r]--; p[r] == 0 {
		delete(p, r)
	}
	return true
}

func batchOf(rows ...person) *datafile.Batch {
	b := datafile.NewBatch(idName())
	for _, r := range rows {
		b.Cols[0].AppendInt(r.id)
		b.Cols[1].AppendString(r.name)
	}
	return b
}

func keysOf(ids ...int64) [][]byte {
	rows := make([]person, len(ids))
	for i, id := range ids {
		rows[i].id = id
	}
	b := batchOf(rows...)
	keys := make([][]byte, len(ids))
	for i := range ids {
		keys[i] = datafile.AppendKey(nil, b.Cols[:1], i)
	}
	return keys
}

func idsOf(rows []person) []int64 {
	ids := make([]int64, len(rows))
	for i := range rows {
		ids[i] = rows[i].id
	}
	return ids
}

func readPeople(s *Snapshot) (people, error) {
	p := people{}
	for b, err := range s.Read(context.Background(), ReadOptions{}) {
		if err != nil {
			return nil, err
		}
		for row := range b.Rows() {
			p[person{b.Cols[0].I64[row], string(b.Cols[1].At(row))}]++
		}
	}
	return p, nil
}

// entries returns what an index says, in terms of paths.
func (x *keyIndex) entries() (map[string]string, error) {
	all := map[string]string{}
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{nameKey}, UpperBound: []byte{nameHash + 1}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = it.Close() }()
	for ok := it.First(); ok; ok = it.Next() {
		name, at := string(it.Key()), location{}
		if it.Key()[0] == nameHash {
			at, err = parseHashEntry(it.Key())
			name = name[:1+hashSize]
		} else {
			at, err = parseLocation(it.Value())
		}
		if err != nil {
			return nil, err
		}
		if at, live := x.resolve(at); live {
			f := x.files[at.file]
			where := fmt.Sprintf("%s %d", f.Path, at.row)
			if it.Key()[0] == nameHash {
				name, where = name+where, ""
			}
			all[name] = where
		}
	}
	return all, it.Error()
}

// world is a table with everything that may happen to it.
type world struct {
	*rapid.T
	ctx   context.Context
	st    *store.Memory
	disk  *vfs.MemFS
	o     UpserterOptions
	table *Table
	u     *Upserter
	want  people
	names []string
	// partition has the partition columns; nil means none.
	partition []string
	// tracks says that rows have ids. renewed are the keys of rows that may get
	// another one.
	tracks  bool
	renewed map[int64]bool
	// changes says that the table tells its changes, told which have been looked at.
	changes bool
	told    Version
	// meanwhile is done once, before the next commit of the table.
	meanwhile func()
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) open() {
	var err error
	w.table, err = Open(w.ctx, hooked(w.st, func() {
		if f := w.meanwhile; f != nil {
			w.meanwhile = nil
			f()
		}
	}))
	w.must(err)
	w.u, err = OpenUpserter(w.ctx, w.table, "index", w.o)
	w.must(err)
}

func (w *world) drawRow() person {
	return person{rapid.Int64Range(0, 30).Draw(w.T, "id"), rapid.SampledFrom(w.names).Draw(w.T, "name")}
}

func (w *world) drawRows() []person {
	rows := make([]person, rapid.IntRange(1, 8).Draw(w.T, "rows"))
	for i := range rows {
		rows[i] = w.drawRow()
	}
	return rows
}

// feed changes up and p in the same way.
func (w *world) feed(up *Upsert, p people) {
	for range rapid.IntRange(1, 4).Draw(w.T, "steps") {
		switch step := rapid.IntRange(0, 9).Draw(w.T, "step"); {
		case step == 0:
			w.must(up.Truncate(w.ctx))
			for r := range p {
				w.renewed[r.id] = true
			}
			clear(p)
		case step <= 3:
			w.takeAway(up, p)
		case step <= 5 && !w.o.Multiset:
			w.look(up, p)
		default:
			rows := w.drawRows()
			w.must(up.Put(w.ctx, batchOf(rows...), keysOf(idsOf(rows)...)))
			for _, r := range rows {
				p.put(r, w.o.Multiset)
			}
		}
	}
}

func (w *world) takeAway(up *Upsert, p people) {
	var rows []person
	for _, r := range w.drawRows() {
		w.renewed[r.id] = true
		if !w.o.Multiset {
			p.drop(r.id)
		} else if !p.take(r) {
			continue
		}
		rows = append(rows, r)
	}
	if w.o.Multiset {
		w.must(up.TakeOne(w.ctx, batchOf(rows...)))
	} else {
		w.must(up.Delete(w.ctx, keysOf(idsOf(rows)...)))
	}
}

func (w *world) look(up *Upsert, p people) {
	ids := idsOf(w.drawRows())
	got, found, err := up.Lookup(w.ctx, keysOf(ids...), []string{"name", "id"})
	w.must(err)
	for i, id := range ids {
		r, ok := p.byID(id)
		if found[i] != ok {
			w.Fatalf("found %v of id %d, want %v", found[i], id, ok)
		}
		if ok && (got.Cols[1].I64[i] != id || string(got.Cols[0].At(i)) != r.name) || !ok && got.Cols[0].Valid[i] {
			w.Fatalf("looked up another row for id %d", id)
		}
	}
}

// other returns another writer of the same table.
func (w *world) other() (*Upserter, func()) {
	t, err := Open(w.ctx, w.st)
	w.must(err)
	o := w.o
	o.fs = vfs.NewMem()
	u, err := OpenUpserter(w.ctx, t, "index", o)
	w.must(err)
	return u, func() { w.must(u.Close()) }
}

func (w *world) othersUpsert() {
	u, done := w.other()
	defer done()
	up := u.Begin()
	w.feed(up, w.want)
	_, err := up.Commit(w.ctx, CommitExtras{})
	w.must(err)
}

// compact rewrites some files as one, as others do.
func (w *world) compact() {
	t, err := Open(w.ctx, w.st)
	w.must(err)
	c := &Commit{Operation: "OPTIMIZE", Rearrange: true}
	var f *FileWriter
	for file := range t.Snapshot().Files() {
		if !rapid.Bool().Draw(w.T, "compact") || len(c.Remove) > 0 && partitionKey(file) != partitionKey(c.Remove[0]) {
			continue
		}
		if f == nil {
			values, err := t.Snapshot().partitionOf(file)
			w.must(err)
			f, err = t.NewFile(w.ctx, FileOptions{Partition: values})
			w.must(err)
			defer f.Abort()
		}
		c.Remove = append(c.Remove, file)
		for live, err := range t.Snapshot().ReadFile(w.ctx, file, ReadOptions{}) {
			w.must(err)
			w.must(f.Write(live.Batch))
		}
	}
	if len(c.Remove) == 0 {
		return
	}
	file, err := f.Close()
	w.must(err)
	c.Add = []*File{file}
	_, won, err := t.Commit(w.ctx, c)
	w.must(err)
	if !won {
		w.Fatal("lost a race against nobody")
	}
}

// hooked returns a store that calls f before every attempt to commit.
func hooked(st store.Store, f func()) store.Store {
	return &storetest.Faulty{Store: st, Before: func(op storetest.Op, name string) error {
		if at, ok := parseLogName(name); ok && at.commit && op == storetest.PutIfAbsent {
			f()
		}
		return nil
	}}
}

// compactOurs compacts the table, while others may write.
func (w *world) compactOurs(meanwhile func()) {
	t, err := Open(w.ctx, hooked(w.st, func() {
		if f := meanwhile; f != nil {
			meanwhile = nil
			f()
		}
	}))
	w.must(err)
	o := CompactOptions{TargetBytes: rapid.SampledFrom([]int64{1000, 3000, 1 << 20}).Draw(w.T, "targetBytes")}
	if rapid.IntRange(0, 3).Draw(w.T, "cluster") == 0 && w.partition == nil {
		o.ClusterBy = []string{"name", "id"}
	}
	_, err = t.Compact(w.ctx, o)
	w.must(err)
}

// tidyUp checkpoints the table and deletes what a month later is not needed.
func (w *world) tidyUp() {
	t, err := Open(w.ctx, w.st)
	w.must(err)
	if rapid.Bool().Draw(w.T, "checkpoint") {
		w.must(t.Checkpoint(w.ctx))
	}
	later(t, 32*day)
	w.table.headAt = time.Time{} // a month is long for the other one, too
	_, err = w.table.Refresh(w.ctx)
	w.must(err)
	_, err = t.Vacuum(w.ctx, VacuumOptions{Full: rapid.Bool().Draw(w.T, "full")})
	w.must(err)
	_, err = t.CleanLog(w.ctx, CleanLogOptions{})
	w.must(err)
	found, err := Fsck(w.ctx, w.st, FsckOptions{})
	w.must(err)
	if n := countLive(found); n > 0 {
		w.Fatal("the table is damaged:", found)
	}
}

// restore brings hidden rows of one file back, as RESTORE does.
func (w *world) restore() {
	t, err := Open(w.ctx, w.st)
	w.must(err)
	for f := range t.Snapshot().Files() {
		hidden, err := t.Snapshot().ReadVector(w.ctx, f)
		w.must(err)
		p, err := t.Snapshot().pick(w.ctx, f, idName())
		w.must(err)
		rows, err := p.rows(w.ctx, asRows(hidden))
		w.must(err)
		p.close()
		back := roaring64.New()
		for i, row := range asRows(hidden) {
			r := person{rows.Cols[0].I64[i], string(rows.Cols[1].At(i))}
			if _, there := w.want.byID(r.id); there && !w.o.Multiset {
				continue
			}
			w.want.put(r, w.o.Multiset)
			back.Add(uint64(row))
		}
		if back.IsEmpty() {
			continue
		}
		hidden.AndNot(back)
		c := &Commit{Operation: "RESTORE", Remove: []*File{f}}
		if hidden.IsEmpty() {
			c.Add = []*File{f.WithVector(nil)}
		} else {
			v, err := t.WriteVectors(w.ctx, []*roaring64.Bitmap{hidden})
			w.must(err)
			c.Add = []*File{f.WithVector(v[0])}
		}
		_, _, err = t.Commit(w.ctx, c)
		w.must(err)
		return
	}
}

func asRows(b *roaring64.Bitmap) []int64 {
	rows := []int64{}
	for it := b.Iterator(); it.HasNext(); {
		rows = append(rows, int64(it.Next()))
	}
	return rows
}

// upsert feeds and ends one upsert, in one of many ways.
func (w *world) upsert() {
	// Others' commits are seen at once or when a race is lost, and both must do.
	if rapid.Bool().Draw(w.T, "refresh") {
		_, err := w.table.Refresh(w.ctx)
		w.must(err)
	}
	behind := w.table.Snapshot()
	base, err := readPeople(behind)
	w.must(err)
	up := w.u.Begin()
	plan := maps.Clone(base)
	seed := maps.Clone(base)
	w.feed(up, plan)
	compacted := false
	head, openErr := Open(w.ctx, w.st)
	w.must(openErr)
	if alone := head.Snapshot().Version() == behind.Version(); alone && rapid.IntRange(0, 2).Draw(w.T, "race") == 0 {
		w.meanwhile = func() { w.compactOurs(nil); compacted = true }
	}
	switch rapid.IntRange(0, 9).Draw(w.T, "end") {
	case 0:
		up.Abort()
		return
	case 1:
		w.u.forget = true
	}
	_, err = up.Commit(w.ctx, CommitExtras{Txns: []Txn{{AppID: "test", Version: int64(behind.Version())}}, Check: func(*Snapshot) error { return nil }})
	w.meanwhile = nil
	head, openErr = Open(w.ctx, w.st)
	w.must(openErr)
	switch {
	case errors.Is(err, ErrConflict):
		if compacted && up.spilled == false {
			w.Fatal("a compaction made an upsert fail:", err)
		}
		if head.Snapshot().Version() == behind.Version() {
			w.Fatal("a conflict without others:", err)
		}
	case err != nil:
		w.Fatal(err)
	case compacted || head.Snapshot().Version() == behind.Version()+1:
		w.want = plan
	default:
		// Others came between: what the upsert made of the rows that it saw, it
		// makes of theirs.
		w.want, err = readPeople(head.Snapshot())
		w.must(err)
		w.checkRebased(seed, plan)
		for r := range plan {
			w.renewed[r.id] = true
		}
	}
	if w.u.forget {
		w.crash()
	}
}

// checkRebased makes sure that the rows which an upsert put are there.
func (w *world) checkRebased(seed, plan people) {
	for r, n := range plan {
		if n > seed[r] && w.want[r] < n-seed[r] {
			w.Fatalf("row %v is there %d times after a lost race, want %d more than %d", r, w.want[r], n, seed[r])
		}
	}
	if w.o.Multiset {
		return
	}
	ids := map[int64]bool{}
	for r, n := range w.want {
		if n > 1 || ids[r.id] {
			w.Fatalf("id %d is there twice after a lost race", r.id)
		}
		ids[r.id] = true
	}
	for r := range seed {
		if _, kept := plan.byID(r.id); !kept && ids[r.id] {
			w.Fatalf("id %d is back after a lost race", r.id)
		}
	}
}

// crash loses what was not synced.
func (w *world) crash() {
	disk := w.disk.CrashClone(vfs.CrashCloneCfg{})
	w.u.forget = false
	w.must(w.u.Close())
	w.disk, w.o.fs = disk, disk
	w.open()
}

func (w *world) check() {
	t, err := Open(w.ctx, w.st)
	w.must(err)
	got, err := readPeople(t.Snapshot())
	w.must(err)
	if !maps.Equal(got, w.want) {
		w.Fatalf("the table holds %v, want %v", got, w.want)
	}
	_, err = w.table.Refresh(w.ctx)
	w.must(err)
	up := w.u.Begin()
	w.must(up.start(w.ctx))
	up.Abort()
	have, err := w.u.index.entries()
	w.must(err)
	fresh, done := w.other()
	defer done()
	want, err := fresh.index.entries()
	w.must(err)
	if !maps.Equal(have, want) {
		w.Fatalf("the index holds %q, a new one %q", have, want)
	}
}

func TestUpsertsMakeTheTableAMap(t *testing.T) { testUpserts(t, UpserterOptions{Keys: []string{"id"}}) }

func TestUpsertsWithoutKeyMakeTheTableAMultiset(t *testing.T) {
	testUpserts(t, UpserterOptions{Multiset: true, Columns: []string{"id", "name"}})
}

// TestRowsOfOneHashAreToldApart has many different rows share their hashes.
func TestRowsOfOneHashAreToldApart(t *testing.T) {
	testUpserts(t, UpserterOptions{
		Multiset: true, Columns: []string{"id", "name"},
		hash: func(cols []*datafile.Column, row int) (hi, lo uint64) {
			hi, lo = datafile.RowHash(cols, row)
			return hi % 2, lo % 2
		},
	})
}

func testUpserts(t *testing.T, o UpserterOptions) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{T: t, ctx: context.Background(), st: store.NewMemory(), disk: vfs.NewCrashableMem(), o: o, want: people{}}
		w.names = []string{"ada", "grace", strings.Repeat("barbara ", 33), strings.Repeat("barbara ", 40), ""}
		w.o.fs = w.disk
		w.o.PendingBytes = rapid.SampledFrom([]int{0, 200}).Draw(t, "pendingBytes")
		w.o.FileBytes = rapid.SampledFrom([]int64{0, 100}).Draw(t, "fileBytes")
		w.o.CopyOnWrite = rapid.IntRange(0, 3).Draw(t, "copyOnWrite") == 0
		w.o.moves = rapid.SampledFrom([]int{0, 1, 5}).Draw(t, "moves")
		w.o.RecentBytes = rapid.SampledFrom([]int{0, 1, 300}).Draw(t, "recentBytes")
		w.partition = rapid.SampledFrom([][]string{nil, nil, {"name"}, {"id"}}).Draw(t, "partition")
		if w.partition != nil && slices.Contains(append(o.Keys, o.Columns...), w.partition[0]) {
			w.names = w.names[:4] // an empty one would be NULL
		}
		properties := latestProperties()
		if w.tracks = rapid.IntRange(0, 2).Draw(t, "row tracking") == 0; w.tracks {
			properties[PropertyRowTracking] = "true"
		}
		if w.changes = rapid.IntRange(0, 2).Draw(t, "change data feed") == 0; w.changes {
			properties[PropertyChangeDataFeed] = "true"
		}
		_, err := Create(w.ctx, w.st, CreateOptions{
			Schema: idName(), PartitionColumns: w.partition, Properties: properties, Features: []string{FeatureDomainMetadata},
		})
		w.must(err)
		w.open()
		defer func() { _ = w.u.Close() }()
		for range rapid.IntRange(1, 12).Draw(t, "events") {
			ids := w.rowIDs()
			w.renewed = map[int64]bool{}
			event := rapid.IntRange(0, 15).Draw(t, "event")
			switch event {
			case 0:
				w.othersUpsert()
			case 1:
				if !w.tracks { // others that do not keep ids are refused
					w.compact()
				}
			case 2:
				// A hidden row may be elsewhere, and would be there twice.
				if !w.tracks || !w.o.Multiset {
					w.restore()
				}
			case 3:
				w.must(w.u.Close())
				w.open()
			case 4:
				w.crash()
			case 5:
				w.must(w.u.Close())
				w.disk = vfs.NewCrashableMem()
				w.o.fs = w.disk
				w.open()
			case 6:
				w.check()
			case 7, 8:
				w.compactOurs(w.othersUpsert)
			case 9:
				w.compactOurs(nil)
			case 10:
				w.tidyUp()
			default:
				w.upsert()
			}
			w.checkRowIDs(ids, event)
			w.checkChanges()
		}
		w.check()
	})
}

// checkChanges makes sure that the changes of each version make it of the one
// before, and that they tell updates from rows that come and go.
func (w *world) checkChanges() {
	if !w.changes {
		return
	}
	t, err := Open(w.ctx, w.st)
	w.must(err)
	for ; w.told < t.Snapshot().Version(); w.told++ {
		v := w.told + 1
		before, after := w.at(w.told), w.at(v)
		c, err := fetchOne(w.ctx, w.st, v)
		w.must(err)
		merged := c.log.info.Operation == "MERGE" && len(c.log.changes) > 0 && !w.o.Multiset
		made := maps.Clone(before)
		var gone, came []person
		for b, err := range t.Changes(w.ctx, v, v, ReadOptions{}) {
			w.must(err)
			for row := range b.Rows() {
				r := person{b.Cols[0].I64[row], string(b.Cols[1].At(row))}
				_, was := before.byID(r.id)
				_, is := after.byID(r.id)
				kind := string(b.Column(ColumnChangeType).At(row))
				switch kind {
				case ChangeDelete, ChangeUpdateFrom:
					gone = append(gone, r)
				default:
					came = append(came, r)
				}
				if updated := kind == ChangeUpdateFrom || kind == ChangeUpdateTo; merged && updated != (was && is) {
					w.Fatalf("version %d says %s of %v, before %v, after %v", v, kind, r, before, after)
				}
			}
		}
		for _, r := range gone {
			if !made.take(r) {
				w.Fatalf("version %d took %v away, which was not there: %v", v, r, before)
			}
		}
		for _, r := range came {
			made[r]++
		}
		if !maps.Equal(made, after) {
			w.Fatalf("the changes of version %d, %v and %v, make %v of %v, want %v", v, gone, came, made, before, after)
		}
	}
}

func (w *world) at(v Version) people {
	s, err := OpenAt(w.ctx, w.st, v)
	w.must(err)
	p, err := readPeople(s)
	w.must(err)
	return p
}

// rowIDs returns the rows by their ids, with the versions that they are of.
func (w *world) rowIDs() map[int64]rowOfVersion {
	if !w.tracks {
		return nil
	}
	t, err := Open(w.ctx, w.st)
	w.must(err)
	ids, err := readRowIDs(t.Snapshot())
	w.must(err)
	return ids
}

// checkRowIDs makes sure that rows have the ids which they had before something
// happened, and that rows which nobody changed are of the same version.
func (w *world) checkRowIDs(before map[int64]rowOfVersion, event int) {
	if !w.tracks {
		return
	}
	after := w.rowIDs()
	keys := map[int64]int64{}
	for id, r := range after {
		keys[r.id] = id
	}
	for id, was := range before {
		is, there := after[id]
		quiet := event == 1 || event >= 3 && event <= 6 || event == 9 || event == 10
		if quiet && was != is {
			w.Fatalf("row id %d is of %v after event %d, and was of %v", id, is, event, was)
		}
		now, kept := keys[was.id]
		if w.o.Multiset || w.renewed[was.id] || !kept {
			continue
		}
		if !there || is.id != was.id {
			w.Fatalf("after event %d key %d has row id %d, and had %d", event, was.id, now, id)
		}
	}
}

func newUpserter(t *testing.T, st store.Store, o UpserterOptions) (*Table, *Upserter) {
	t.Helper()
	return newUpserterOf(t, newTestTable(t, st), o)
}

func newUpserterOf(t *testing.T, table *Table, o UpserterOptions) (*Table, *Upserter) {
	t.Helper()
	u, err := OpenUpserter(t.Context(), table, t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return table, u
}

func TestUpsertCostsThreeObjects(t *testing.T) {
	st, ops := counted(store.NewMemory())
	_, u := newUpserter(t, st, UpserterOptions{Keys: []string{"id"}})
	upsert := func(rows ...person) {
		t.Helper()
		up := u.Begin()
		if err := up.Put(t.Context(), batchOf(rows...), keysOf(idsOf(rows)...)); err != nil {
			t.Fatal(err)
		}
		if _, err := up.Commit(t.Context(), CommitExtras{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		upsert(person{int64(i), "x"}, person{int64(i + 100), "y"})
	}
	clear(ops)
	upsert(person{0, "new"}, person{1, "new"}, person{104, "new"})
	want := map[storetest.Op]int{storetest.Create: 1, storetest.Commit: 1, storetest.PutIfAbsent: 2}
	for op, n := range ops {
		if n != want[op] {
			t.Errorf("%d operations %v, want %d", n, op, want[op])
		}
	}
}

func TestTakingARowThatIsNotThere(t *testing.T) {
	_, u := newUpserter(t, store.NewMemory(), UpserterOptions{Multiset: true, Columns: []string{"id", "name"}})
	up := u.Begin()
	rows := batchOf(person{1, "a"})
	if err := up.Put(t.Context(), rows, nil); err != nil {
		t.Fatal(err)
	}
	if err := up.TakeOne(t.Context(), batchOf(person{1, "a"}, person{1, "a"})); !errors.Is(err, ErrRowNotFound) {
		t.Fatalf("error is %v", err)
	}
	if _, err := up.Commit(t.Context(), CommitExtras{}); !errors.Is(err, ErrSpent) {
		t.Fatalf("error after the end is %v", err)
	}
}

func TestTwoRowsOfOneKeyAreRefused(t *testing.T) {
	table := newTestTable(t, store.NewMemory())
	for range 2 {
		w, err := table.NewFile(t.Context(), FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(batchOf(person{7, "twice"})); err != nil {
			t.Fatal(err)
		}
		f, err := w.Close()
		if err != nil {
			t.Fatal(err)
		}
		mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}})
	}
	if _, err := OpenUpserter(t.Context(), table, t.TempDir(), UpserterOptions{Keys: []string{"id"}}); !errors.Is(err, ErrDuplicateKey) {
		t.Fatalf("error is %v", err)
	}
}

// TestAnUpsertThatFindsNothingLooksAtWhatOthersCommitted has rows come from
// another writer that this one has not seen, and deletes them.
func TestAnUpsertThatFindsNothingLooksAtWhatOthersCommitted(t *testing.T) {
	memory := store.NewMemory()
	_, u := newUpserter(t, memory, UpserterOptions{Keys: []string{"id"}})
	if _, err := mustOpen(t, memory).Append(t.Context(), batchOf(person{1, "a"}, person{2, "b"})); err != nil {
		t.Fatal(err)
	}
	up := u.Begin()
	if err := up.Put(t.Context(), batchOf(person{3, "c"}), keysOf(3)); err != nil {
		t.Fatal(err)
	}
	if err := up.Delete(t.Context(), keysOf(1, 3)); err != nil {
		t.Fatal(err)
	}
	snap, err := up.Commit(t.Context(), CommitExtras{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readPeople(snap); err != nil || len(got) != 1 {
		t.Errorf("the table has %v, want 2 alone: %v", got, err)
	}
	st, ops := counted(memory)
	_, u = newUpserterOf(t, mustOpen(t, st), UpserterOptions{Keys: []string{"id"}})
	clear(ops)
	if _, err := u.Begin().Commit(t.Context(), CommitExtras{}); err != nil {
		t.Fatal(err)
	}
	if len(ops) != 1 || ops[storetest.Get] != 1 {
		t.Errorf("an upsert without changes took operations %v, want one Get", ops)
	}
}

func TestOneUpsertAtATime(t *testing.T) {
	_, u := newUpserter(t, store.NewMemory(), UpserterOptions{Keys: []string{"id"}})
	first, second := u.Begin(), u.Begin()
	if err := first.Delete(t.Context(), keysOf(1)); err != nil {
		t.Fatal(err)
	}
	if err := second.Delete(t.Context(), keysOf(1)); !errors.Is(err, ErrSpent) {
		t.Fatalf("error is %v", err)
	}
	first.Abort()
	if err := u.Begin().Delete(t.Context(), keysOf(1)); err != nil {
		t.Fatal(err)
	}
}

// TestLostReplyKeepsTheFiles has the reply of a commit get lost for good: its
// files may be in the table and must stay.
func TestLostReplyKeepsTheFiles(t *testing.T) {
	memory := store.NewMemory()
	lost := errors.New("reply lost")
	var faulty bool
	st := &storetest.Faulty{Store: memory}
	st.After = func(op storetest.Op, name string) error {
		if faulty && strings.HasSuffix(name, ".json") {
			return lost
		}
		return nil
	}
	st.Before = func(op storetest.Op, name string) error {
		if faulty && op == storetest.Get {
			return lost
		}
		return nil
	}
	_, u := newUpserter(t, st, UpserterOptions{Keys: []string{"id"}})
	up := u.Begin()
	if err := up.Put(t.Context(), batchOf(person{1, "a"}), keysOf(1)); err != nil {
		t.Fatal(err)
	}
	faulty = true
	_, err := up.Commit(t.Context(), CommitExtras{})
	faulty = false
	if !errors.Is(err, ErrUncertain) {
		t.Fatalf("error is %v", err)
	}
	got, err := readPeople(mustOpen(t, memory).Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, people{{1, "a"}: 1}) {
		t.Fatalf("the table holds %v", got)
	}
}

func TestEvolveWritesNewColumns(t *testing.T) {
	table, u := newUpserter(t, store.NewMemory(), UpserterOptions{Keys: []string{"id"}})
	m := table.Snapshot().Metadata().Clone()
	s := idName()
	extra := s.Fields[1]
	extra.Name = "city"
	s.Fields = append(s.Fields, extra)
	m.Schema = s
	up := u.Begin()
	if err := up.Evolve(nil, m); err != nil {
		t.Fatal(err)
	}
	rows := datafile.NewBatch(s)
	rows.Cols[0].AppendInt(1)
	rows.Cols[1].AppendString("ada")
	rows.Cols[2].AppendString("london")
	if err := up.Put(t.Context(), rows, keysOf(1)); err != nil {
		t.Fatal(err)
	}
	snap, err := up.Commit(t.Context(), CommitExtras{})
	if err != nil {
		t.Fatal(err)
	}
	for b, err := range snap.Read(t.Context(), ReadOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(b.Names, []string{"id", "name", "city"}) || string(b.Cols[2].At(0)) != "london" {
			t.Fatalf("read %v", b.Names)
		}
	}
}
