package deltalog

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

const (
	// buildBytes is how many bytes of changes are written to the index at once.
	buildBytes = 4 << 20
	// pickRows is how many rows are picked out of a file at once.
	pickRows = 16 << 10
)

// builder brings an index from the version that it is true for to another, by
// comparing their files: whoever made the versions between, and whatever became
// of their commits.
type builder struct {
	x      *keyIndex
	snap   *Snapshot
	finder *finder
	batch  *pebble.Batch

	files map[uint32]*indexFile // what the index will know
	ids   map[string]uint32
	next  uint32
	stale int64
	added []uint32
	// dead holds, by file, the rows that have come to be hidden since, until
	// their entries are dealt with.
	dead   map[uint32]*roaring64.Bitmap
	names  rowNames
	hidden map[uint32]*roaring64.Bitmap // the vectors that have changed

	moves map[uint32]*move
	moved map[uint32]bool // those that are not in the index yet
	// known has, for files that rows moved to, those that have no entries.
	known map[uint32]*roaring64.Bitmap
	// lost says that rows have gone with their file.
	lost bool
}

// follow makes the index true for snap. After an error it is what it was, or
// dirty.
func (x *keyIndex) follow(ctx context.Context, snap *Snapshot, f *finder) error {
	if x.state.Version == snap.version && !x.state.Dirty {
		return nil
	}
	if x.state.Dirty {
		if err := x.clear(x.state.Table, x.state.Found); err != nil {
			return fmt.Errorf("clear key index: %w", err)
		}
	}
	b := &builder{x: x, snap: snap, finder: f}
	if err := b.compare(ctx); err != nil {
		return err
	}
	return b.run(ctx)
}

// followMoves does the same for an index that has a part of an upsert's changes
// already, and only where the rows are those that they were, if elsewhere.
// Otherwise moved is false and the index what it was.
func (x *keyIndex) followMoves(ctx context.Context, snap *Snapshot, f *finder) (moved bool, err error) {
	b := &builder{x: x, snap: snap, finder: f}
	if err := b.compare(ctx); err != nil {
		return false, err
	}
	if !b.onlyMoves() {
		return false, nil
	}
	b.batch = x.db.NewBatch()
	defer func() { _ = b.batch.Close() }()
	return true, b.finish(x.state.Dirty)
}

// onlyMoves tells that no row has gone or come.
func (b *builder) onlyMoves() bool {
	if b.lost || len(b.added) > 0 {
		return false
	}
	for _, dead := range b.dead {
		if !dead.IsEmpty() {
			return false
		}
	}
	return true
}

// run does what compare has found out to be done.
func (b *builder) run(ctx context.Context) error {
	x := b.x
	if len(b.files) == len(b.added) || b.stale > b.rows() {
		return b.rebuild(ctx)
	}
	b.batch = x.db.NewIndexedBatch()
	defer func() { _ = b.batch.Close() }()
	if err := b.build(ctx); err != nil {
		return err
	}
	return b.finish(false)
}

// rows counts live rows of all files that the index will know.
func (b *builder) rows() int64 {
	var live int64
	for _, f := range b.files {
		live += f.live()
	}
	return live
}

// rebuild begins anew.
func (b *builder) rebuild(ctx context.Context) error {
	next := b.next
	if err := b.x.clear(b.x.state.Table, b.x.state.Found); err != nil {
		return fmt.Errorf("clear key index: %w", err)
	}
	b.files, b.ids, b.added = map[uint32]*indexFile{}, map[string]uint32{}, nil
	b.dead, b.hidden, b.stale, b.next = nil, map[uint32]*roaring64.Bitmap{}, 0, next
	b.moves, b.moved = map[uint32]*move{}, nil
	for f := range b.snap.Files() {
		if err := b.add(f); err != nil {
			return err
		}
	}
	if err := (&bulk{b: b, hidden: b.hidden}).load(ctx); err != nil {
		return fmt.Errorf("build key index: %w", err)
	}
	b.batch = b.x.db.NewBatch()
	defer func() { _ = b.batch.Close() }()
	return b.finish(false)
}

// compare finds out which files are gone, new or changed.
func (b *builder) compare(ctx context.Context) error {
	x := b.x
	b.files, b.ids, b.next, b.stale = maps.Clone(x.files), maps.Clone(x.ids), x.state.NextFile, x.state.Stale
	b.dead, b.hidden = map[uint32]*roaring64.Bitmap{}, map[uint32]*roaring64.Bitmap{}
	b.moves, b.moved, b.known = maps.Clone(x.moves), map[uint32]bool{}, map[uint32]*roaring64.Bitmap{}
	if err := b.followRewrites(ctx); err != nil {
		return err
	}
	for id, known := range maps.Clone(b.files) {
		f := b.snap.File(known.Path)
		switch {
		case f == nil || f.Rows != known.Rows:
			b.drop(id)
		case f.Vector.uniqueID() != known.Vector || b.known[id] != nil:
			if err := b.change(ctx, id, known, f); err != nil {
				return err
			}
		}
	}
	for f := range b.snap.Files() {
		if _, known := b.ids[f.Path]; !known {
			if err := b.add(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// drop forgets a file. Its entries stay and mean nothing.
func (b *builder) drop(id uint32) {
	f := b.files[id]
	b.stale += f.live()
	b.lost = b.lost || f.live() > 0
	delete(b.files, id)
	delete(b.ids, f.Path)
}

// add takes a file in under a number of its own.
func (b *builder) add(f *File) error {
	if f.Rows < 0 || f.Rows > math.MaxUint32 {
		return fmt.Errorf("index keys of %s: %w: a file of %d rows", f.Path, ErrUnsupported, f.Rows)
	}
	id := b.next
	b.next++
	k := &indexFile{Path: f.Path, Rows: f.Rows, Vector: f.Vector.uniqueID()}
	if f.Vector != nil {
		k.Hidden = f.Vector.Cardinality
	}
	b.files[id], b.ids[f.Path] = k, id
	b.added = append(b.added, id)
	return nil
}

// change notes which rows of a file have come to be hidden. Where rows have
// come back, the file is taken in anew.
func (b *builder) change(ctx context.Context, id uint32, known *indexFile, f *File) error {
	now, err := b.snap.ReadVector(ctx, f)
	if err != nil {
		return err
	}
	before, err := b.knownVector(id)
	if err != nil {
		return err
	}
	if before == nil || before.AndCardinality(now) != before.GetCardinality() {
		b.drop(id)
		return nil // and it is new to those who come next
	}
	dead := now.Clone()
	dead.AndNot(before)
	b.dead[id], b.hidden[id] = dead, now
	changed := *known
	changed.Vector, changed.Hidden = f.Vector.uniqueID(), int64(now.GetCardinality())
	b.files[id] = &changed
	return nil
}

// build writes the entries of what is new, then takes those out that are not
// overwritten and whose rows are hidden.
func (b *builder) build(ctx context.Context) error {
	for _, id := range b.added {
		if err := b.addRows(ctx, id); err != nil {
			return fmt.Errorf("index keys of %s: %w", b.files[id].Path, err)
		}
	}
	for id, dead := range b.dead {
		if err := b.dropRows(ctx, id, dead); err != nil {
			return fmt.Errorf("index keys of %s: %w", b.files[id].Path, err)
		}
	}
	return nil
}

func (b *builder) addRows(ctx context.Context, id uint32) error {
	f := b.snap.File(b.files[id].Path)
	for live, err := range b.snap.ReadFile(ctx, f, ReadOptions{Columns: b.finder.columns}) {
		if err != nil {
			return err
		}
		if err := b.addBatch(live, id); err != nil {
			return err
		}
		if err := b.room(); err != nil {
			return err
		}
	}
	if f.Vector == nil {
		return nil
	}
	hidden, err := b.snap.ReadVector(ctx, f)
	if err != nil {
		return err
	}
	b.hidden[id] = hidden
	return nil
}

// addBatch enters rows of a file.
func (b *builder) addBatch(live Live, id uint32) error {
	if b.finder.multiset {
		for row, at := range live.Index {
			if err := b.batch.Set(b.finder.name(live.Cols, row, location{id, uint32(at)}), nil, nil); err != nil {
				return err
			}
		}
		return nil
	}
	names := b.names.collect(b.finder, live.Batch)
	if err := b.overwrite(names); err != nil {
		return err
	}
	for _, n := range names {
		b.finder.value = appendLocation(b.finder.value[:0], location{id, uint32(live.Index[n.row])})
		if err := b.batch.Set(n.name, b.finder.value, nil); err != nil {
			return err
		}
	}
	return nil
}

// overwrite makes sure that no key is there that is about to be entered, unless
// its row is among the dead, whose entry is dealt with thereby.
func (b *builder) overwrite(names []rowName) error {
	for i := 1; i < len(names); i++ {
		if bytes.Equal(names[i].name, names[i-1].name) {
			return ErrDuplicateKey
		}
	}
	return findSorted(b.batch, len(names), func(i int) []byte { return names[i].name }, func(_ int, old location, ok bool) error {
		if old, ok = b.resolve(old, ok); !ok {
			return nil
		}
		if dead := b.dead[old.file]; dead == nil || !dead.CheckedRemove(uint64(old.row)) {
			return ErrDuplicateKey
		}
		return nil
	})
}

// rowName is the name of a row's record.
type rowName struct {
	name []byte
	row  int32
}

// rowNames holds the names of a batch of rows, in one piece of memory.
type rowNames struct {
	bytes []byte
	list  []rowName
}

// collect returns the names of all rows, sorted. They are valid until the next
// call.
func (r *rowNames) collect(f *finder, rows *datafile.Batch) []rowName {
	r.bytes, r.list = r.bytes[:0], r.list[:0]
	ends := make([]int, rows.Rows())
	for row := range ends {
		r.bytes = append(r.bytes, f.name(rows.Cols, row, location{})...)
		ends[row] = len(r.bytes)
	}
	from := 0
	for row, end := range ends {
		r.list = append(r.list, rowName{r.bytes[from:end:end], int32(row)})
		from = end
	}
	slices.SortFunc(r.list, func(a, b rowName) int { return bytes.Compare(a.name, b.name) })
	return r.list
}

// dropRows takes the entries of hidden rows out.
func (b *builder) dropRows(ctx context.Context, id uint32, dead *roaring64.Bitmap) error {
	if dead.IsEmpty() {
		return nil
	}
	want, err := b.snap.metadata.Schema.Select(b.finder.columns...)
	if err != nil {
		return err
	}
	p, err := b.snap.pick(ctx, b.snap.File(b.files[id].Path), want)
	if err != nil {
		return err
	}
	defer p.close()
	picked := make([]int64, 0, pickRows)
	for it := dead.Iterator(); it.HasNext(); {
		picked = picked[:0]
		for len(picked) < pickRows && it.HasNext() {
			picked = append(picked, int64(it.Next()))
		}
		rows, err := p.rows(ctx, picked)
		if err != nil {
			return err
		}
		if err := b.dropBatch(rows, id, picked); err != nil {
			return err
		}
		if err := b.room(); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) dropBatch(rows *datafile.Batch, id uint32, picked []int64) error {
	if b.finder.multiset {
		for row, at := range picked {
			at := location{id, uint32(at)}
			if err := b.dropHash(b.finder.name(rows.Cols, row, at), at); err != nil {
				return err
			}
		}
		return nil
	}
	names := b.names.collect(b.finder, rows)
	return findSorted(b.batch, len(names), func(i int) []byte { return names[i].name }, func(i int, old location, ok bool) error {
		old, ok = b.resolve(old, ok)
		if at := (location{id, uint32(picked[names[i].row])}); !ok || old != at {
			return nil
		}
		return b.batch.Delete(names[i].name, nil)
	})
}

// resolve returns where the row of an entry is.
func (b *builder) resolve(at location, ok bool) (location, bool) {
	if !ok {
		return at, false
	}
	return resolve(b.files, b.moves, at)
}

// dropHash takes the entry of a row without key out, whichever of the places
// where it has been it names.
func (b *builder) dropHash(name []byte, at location) error {
	entry, err := b.hashEntry(b.batch, name, at)
	if err != nil || entry == nil {
		return err
	}
	return b.batch.Delete(entry, nil)
}

// hashEntry returns the entry of the row at a place, whose hash name begins
// with; nil if there is none.
func (b *builder) hashEntry(r pebble.Reader, name []byte, at location) ([]byte, error) {
	prefix := name[:1+hashSize]
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: hashUpper(prefix)})
	if err != nil {
		return nil, err
	}
	defer func() { _ = it.Close() }()
	for ok := it.First(); ok; ok = it.Next() {
		was, err := parseHashEntry(it.Key())
		if err != nil {
			return nil, err
		}
		if now, ok := b.resolve(was, true); ok && now == at {
			return bytes.Clone(it.Key()), nil
		}
	}
	return nil, it.Error()
}

// room writes what has gathered, once it is much.
func (b *builder) room() error {
	if b.batch.Len() < buildBytes {
		return nil
	}
	if err := b.x.markDirty(); err != nil {
		return err
	}
	return b.flush()
}

// flush writes what has gathered. The index is dirty.
func (b *builder) flush() error {
	if err := b.batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("write key index: %w", err)
	}
	if err := b.batch.Close(); err != nil {
		return fmt.Errorf("write key index: %w", err)
	}
	b.batch = b.x.db.NewIndexedBatch()
	return nil
}

// finish writes the rest and the state that makes it true, or dirty.
func (b *builder) finish(dirty bool) error {
	x := b.x
	b.forgetMoves()
	if err := b.putMoves(); err != nil {
		return fmt.Errorf("write key index: %w", err)
	}
	for id := range x.files {
		if b.files[id] == nil {
			if err := dropFile(b.batch, id); err != nil {
				return fmt.Errorf("write key index: %w", err)
			}
		}
	}
	for id, f := range b.files {
		if x.files[id] == nil || *x.files[id] != *f {
			if err := putFile(b.batch, id, f, b.hidden[id]); err != nil {
				return fmt.Errorf("write key index: %w", err)
			}
		}
	}
	state := x.state
	state.Version, state.NextFile, state.Stale, state.Dirty = b.snap.version, b.next, b.stale, dirty
	if err := putState(b.batch, state); err != nil {
		return fmt.Errorf("write key index: %w", err)
	}
	if err := b.batch.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("write key index: %w", err)
	}
	x.state, x.files, x.ids, x.moves = state, b.files, b.ids, b.moves
	return nil
}
