package deltalog

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// Upsert is one atomic change of a table. It may be fed many times, in any
// order, and sees what it was fed. It ends with Commit or Abort; any error ends
// it too.
type Upsert struct {
	u     *Upserter
	ended bool

	// Set when it is fed for the first time.
	snap     *Snapshot
	protocol *Protocol
	metadata *Metadata
	schema   *schema.Schema

	batch     *pebble.Batch // changes to the index that are not in it yet
	spilled   bool          // some are
	sent      bool          // a commit may have taken place
	truncated bool          // what was there before is gone
	dead      map[uint32]*roaring64.Bitmap
	taken     takenRows
	parts     *splitter // nil for tables without partitions
	whole     part      // of such tables
	files     []*newFile
	mine      map[uint32]*newFile // files by their numbers
	writing   []*newFile          // those that are open
	recent    []recentRows
	held      int // bytes of recent
	order     []int32
	ids       *rowIDKeeper // nil where there are none to be kept
	places    []location   // of the rows of a batch that has many partitions
}

// newFile is a data file that the upsert writes.
type newFile struct {
	id   uint32
	part *part
	w    *FileWriter // nil once it is closed
	file *File       // nil until then
	// ids are those of its rows, where these are kept; nil where the file has to be
	// read for them: once it is closed, and the upsert is too large to be planned anew.
	ids []int64
	// lostIDs says that some row is to have the id of another, and has not.
	lostIDs bool
}

// maxOpenFiles is how many files an upsert has open at once, each of which is of
// another partition, and maxOpenBytes how many bytes it holds for them.
const (
	maxOpenFiles = 64
	maxOpenBytes = 256 << 20
)

// recentRows are rows that were put into an open file.
type recentRows struct {
	file  uint32
	first int64
	rows  *datafile.Batch
}

// start begins the upsert on the newest version known.
func (b *Upsert) start(ctx context.Context) error {
	switch {
	case b.ended:
		return ErrSpent
	case b.snap != nil:
		return nil
	case b.u.current != nil:
		return fmt.Errorf("%w: no, another one is under way", ErrSpent)
	}
	snap := b.u.t.Snapshot()
	found, err := b.u.finder.describe(snap.metadata.Schema)
	if err != nil {
		return err
	}
	if b.metadata != nil && !b.truncated {
		if err := b.u.finder.checkEncoding(snap.metadata.Schema, b.metadata.Schema); err != nil {
			return err
		}
	}
	if found != b.u.index.state.Found {
		if err := b.u.index.clear(snap.metadata.ID, found); err != nil {
			return fmt.Errorf("clear key index: %w", err)
		}
	}
	if err := b.u.index.follow(ctx, snap, b.u.finder); err != nil {
		return err
	}
	if err := b.u.index.tidyMany(b.u.o.moves); err != nil {
		return err
	}
	b.snap, b.schema = snap, snap.metadata.Schema
	if b.metadata != nil {
		b.schema = b.metadata.Schema
	}
	if len(snap.metadata.PartitionColumns) > 0 {
		b.parts = newSplitter(snap.metadata.PartitionColumns)
	}
	if err := b.keepIDs(); err != nil {
		return err
	}
	b.batch = b.u.index.db.NewIndexedBatch()
	b.dead, b.mine = map[uint32]*roaring64.Bitmap{}, map[uint32]*newFile{}
	b.u.current = b
	return nil
}

// Evolve changes the table's protocol and metadata with the upsert's commit;
// nil keeps them. It comes before anything else is fed. Rows are then written
// with the columns of the new schema. Where the columns that rows are found by
// get types whose values are encoded otherwise, such as a decimal of another
// scale, what is fed first is ErrInvalid, unless that is Truncate: the rows that
// are there would not be found. Integers may become wider.
func (b *Upsert) Evolve(p *Protocol, m *Metadata) error {
	if b.ended || b.snap != nil {
		return fmt.Errorf("evolve table: %w", ErrSpent)
	}
	b.protocol, b.metadata = p, m
	return nil
}

// fed runs one feeding, whose error ends the upsert.
func (b *Upsert) fed(ctx context.Context, what string, feed func() error) error {
	err := b.start(ctx)
	if err == nil {
		err = feed()
	}
	if err == nil {
		err = b.room()
	}
	if err != nil {
		b.Abort()
		return fmt.Errorf("upsert: %s: %w", what, err)
	}
	return nil
}

// room writes pending changes to the index when they are many.
func (b *Upsert) room() error {
	if b.batch.Len() < b.u.o.PendingBytes {
		return nil
	}
	if err := b.u.index.markDirty(); err != nil {
		return err
	}
	b.spilled = true
	for _, f := range b.files {
		if f.w == nil {
			f.ids = nil
		}
	}
	if err := b.batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("write key index: %w", err)
	}
	if err := b.batch.Close(); err != nil {
		return fmt.Errorf("write key index: %w", err)
	}
	b.batch = b.u.index.db.NewIndexedBatch()
	return nil
}

// Truncate takes all rows away, those that were put before it too.
func (b *Upsert) Truncate(ctx context.Context) error {
	if b.snap == nil {
		b.truncated = true // nothing that is there has to be found
	}
	return b.fed(ctx, "truncate", func() error {
		b.truncated = true
		b.dropFiles()
		clear(b.dead)
		b.taken = takenRows{}
		b.batch.Reset()
		return b.batch.DeleteRange([]byte{nameKey}, []byte{nameHash + 1}, nil)
	})
}

// dropFiles deletes the files that were written.
func (b *Upsert) dropFiles() {
	for _, f := range b.files {
		if f.w != nil {
			f.w.Abort()
			f.part.open = nil
			continue
		}
		b.u.t.deleteFiles([]*File{f.file})
	}
	clear(b.mine)
	b.files, b.writing, b.recent, b.held = nil, nil, nil, 0
}

// Delete takes the rows with these keys away, which are encoded as
// [datafile.AppendKey] does. Keys that are not there are passed over. Rows
// without key are taken by TakeOne.
func (b *Upsert) Delete(ctx context.Context, keys [][]byte) error {
	return b.fed(ctx, "delete", func() error {
		if b.u.finder.multiset {
			return fmt.Errorf("%w: rows have no key", ErrInvalid)
		}
		order := b.sorted(keys)
		if err := b.kill(keys, order); err != nil {
			return err
		}
		for _, i := range order {
			// Even where there is no row: another writer may put one there before
			// this upsert is committed.
			if err := b.batch.Delete(b.u.finder.key(keys[i]), nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// sorted returns the indices of keys in the order of the keys: neighbours in
// the index are found faster. Equal keys stay in their order.
func (b *Upsert) sorted(keys [][]byte) []int32 {
	b.order = b.order[:0]
	for i := range keys {
		b.order = append(b.order, int32(i))
	}
	slices.SortStableFunc(b.order, func(i, j int32) int { return bytes.Compare(keys[i], keys[j]) })
	return b.order
}

// kill marks the rows of keys as dead where there are any.
func (b *Upsert) kill(keys [][]byte, order []int32) error {
	return b.find(keys, order, func(_ int32, at location) { b.bury(at) })
}

// find tells visit where the live rows of keys are, in the order of the keys.
func (b *Upsert) find(keys [][]byte, order []int32, visit func(i int32, at location)) error {
	name := func(i int) []byte { return b.u.finder.key(keys[order[i]]) }
	return findSorted(b.batch, len(order), name, func(i int, at location, ok bool) error {
		if !ok {
			return nil
		}
		if at, ok = b.locate(at); ok {
			visit(order[i], at)
		}
		return nil
	})
}

// locate returns where the row of an entry is. Without ok the entry means
// nothing to this upsert.
func (b *Upsert) locate(at location) (location, bool) {
	if b.own(at.file) {
		return at, true
	}
	if b.truncated {
		return at, false
	}
	return b.u.index.resolve(at)
}

func (b *Upsert) bury(at location) {
	d := b.dead[at.file]
	if d == nil {
		d = roaring64.New()
		b.dead[at.file] = d
	}
	d.Add(uint64(at.row))
}

// Put adds rows, and takes those away that had the same keys. keys[i], encoded
// as [datafile.AppendKey] does, is that of row i; of two rows with one key the
// later stays. Where rows have no key, keys is not looked at, and rows are added
// to those that are there. Columns that the rows lack are NULL, those that the
// table lacks are left out. Put keeps nothing of what it is given.
func (b *Upsert) Put(ctx context.Context, rows *datafile.Batch, keys [][]byte) error {
	return b.fed(ctx, "put", func() error {
		n := rows.Rows()
		if !b.u.finder.multiset && len(keys) != n {
			return fmt.Errorf("%w: %d keys for %d rows", ErrInvalid, len(keys), n)
		}
		if n == 0 {
			return nil
		}
		if b.ids != nil {
			ids, err := b.replacedIDs(ctx, keys)
			if err != nil {
				return err
			}
			rows = withColumn(rows, b.ids.column.Name, ids)
		}
		if b.parts != nil {
			return b.putParts(ctx, rows, keys)
		}
		f, first, err := b.write(ctx, &b.whole, rows)
		if err != nil {
			return err
		}
		return b.enter(rows, keys, func(i int32) location { return location{f.id, first + uint32(i)} })
	})
}

// putParts puts rows into files of their partitions.
func (b *Upsert) putParts(ctx context.Context, rows *datafile.Batch, keys [][]byte) error {
	if err := b.checkParts(rows); err != nil {
		return err
	}
	list, err := b.parts.split(rows)
	if err != nil {
		return err
	}
	b.places = slices.Grow(b.places[:0], rows.Rows())[:rows.Rows()]
	for _, p := range list {
		some := rows
		if len(p.rows) < rows.Rows() {
			some = rows.Gather(p.rows)
		}
		f, first, err := b.write(ctx, p, some)
		if err != nil {
			return err
		}
		for i, row := range p.rows {
			b.places[row] = location{f.id, first + uint32(i)}
		}
	}
	return b.enter(rows, keys, func(i int32) location { return b.places[i] })
}

// checkParts returns an error where values of partition columns would not come
// back as they are: the log has them as text, to be read as the table's types, and
// an empty one is NULL there.
func (b *Upsert) checkParts(rows *datafile.Batch) error {
	for _, name := range b.parts.columns {
		c := rows.Column(name)
		if c == nil {
			continue
		}
		if want := b.schema.Fields[b.schema.Field(name)].Type; !c.Type.Equal(want) {
			return fmt.Errorf("column %q: %w: it is of type %s, not %s", name, datafile.ErrMismatch, c.Type, want)
		}
		if c.Type.Kind != schema.String || !slices.Contains(b.u.finder.columns, name) {
			continue
		}
		for row := range c.Len() {
			if c.Valid[row] && len(c.At(row)) == 0 {
				return fmt.Errorf("%w: empty text in partition column %s, by which rows are found: the log cannot tell it from NULL", ErrUnsupported, name)
			}
		}
	}
	return nil
}

// write writes rows to the open file of their partition, and tells which that is
// and the place of the first.
func (b *Upsert) write(ctx context.Context, p *part, rows *datafile.Batch) (*newFile, uint32, error) {
	f, err := b.open(ctx, p)
	if err != nil {
		return nil, 0, err
	}
	first := f.w.Rows()
	if first+int64(rows.Rows()) > math.MaxUint32 {
		return nil, 0, fmt.Errorf("%w: over 2³² rows in one file", ErrUnsupported)
	}
	if err := f.w.Write(rows); err != nil {
		return nil, 0, err
	}
	if b.ids != nil {
		ids := rows.Cols[len(rows.Cols)-1]
		for row, valid := range ids.Valid {
			if valid {
				f.ids = append(f.ids, ids.I64[row])
			} else {
				f.ids = append(f.ids, noRowID)
			}
		}
	}
	b.remember(rows, f.id, first)
	if f.w.Bytes() >= b.u.o.FileBytes {
		return f, uint32(first), b.closeFile(f)
	}
	return f, uint32(first), nil
}

// enter enters rows into the index.
func (b *Upsert) enter(rows *datafile.Batch, keys [][]byte, at func(i int32) location) error {
	if b.u.finder.multiset {
		return b.enterRows(rows, at)
	}
	fi, order := b.u.finder, b.sorted(keys)
	if err := b.kill(keys, order); err != nil {
		return err
	}
	for n, i := range order {
		if n+1 < len(order) && bytes.Equal(keys[i], keys[order[n+1]]) {
			b.bury(at(i)) // a later row has its key
			continue
		}
		fi.value = appendLocation(fi.value[:0], at(i))
		if err := b.batch.Set(fi.key(keys[i]), fi.value, nil); err != nil {
			return err
		}
	}
	return nil
}

// enterRows enters rows without key.
func (b *Upsert) enterRows(rows *datafile.Batch, at func(i int32) location) error {
	cols, err := b.foundColumns(rows)
	if err != nil {
		return err
	}
	for row := range rows.Rows() {
		if err := b.batch.Set(b.u.finder.name(cols, row, at(int32(row))), nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// foundColumns returns the columns that rows are found by; those that are
// missing are NULL.
func (b *Upsert) foundColumns(rows *datafile.Batch) ([]*datafile.Column, error) {
	want, err := b.schema.Select(b.u.finder.columns...)
	if err != nil {
		return nil, err
	}
	cols := make([]*datafile.Column, len(want.Fields))
	for i, f := range want.Fields {
		if cols[i] = rows.Column(f.Name); cols[i] != nil {
			continue
		}
		cols[i] = datafile.NewColumn(f.Type)
		for range rows.Rows() {
			cols[i].AppendNull()
		}
	}
	return cols, nil
}

// open returns the file that rows of a partition go to.
func (b *Upsert) open(ctx context.Context, p *part) (*newFile, error) {
	if p.open != nil {
		return p.open, nil
	}
	if err := b.makeRoom(); err != nil {
		return nil, err
	}
	o := FileOptions{Schema: b.schema, Partition: p.values, keepsIDs: b.u.finder.multiset || b.ids != nil}
	if b.ids != nil {
		o.Schema, o.hidden = withHidden(b.schema, b.ids.column), 1
	}
	w, err := b.u.t.NewFile(ctx, o)
	if err != nil {
		return nil, err
	}
	f := &newFile{id: b.u.index.newFile(), part: p, w: w}
	b.files = append(b.files, f)
	b.mine[f.id], p.open = f, f
	b.writing = append(b.writing, f)
	return f, nil
}

// makeRoom ends the largest open file where there are many, or where they are
// large.
func (b *Upsert) makeRoom() error {
	var largest *newFile
	var bytes int64
	for _, f := range b.writing {
		bytes += f.w.Bytes()
		if largest == nil || f.w.Bytes() > largest.w.Bytes() {
			largest = f
		}
	}
	if len(b.writing) < maxOpenFiles && bytes < maxOpenBytes {
		return nil
	}
	return b.closeFile(largest)
}

// closeFiles ends all files.
func (b *Upsert) closeFiles() error {
	for _, f := range slices.Clone(b.writing) {
		if err := b.closeFile(f); err != nil {
			return err
		}
	}
	return nil
}

// closeFile ends a file, if it is open.
func (b *Upsert) closeFile(f *newFile) error {
	if f.w == nil {
		return nil
	}
	b.recent = slices.DeleteFunc(b.recent, func(r recentRows) bool {
		if r.file == f.id {
			b.held -= r.rows.SizeBytes()
		}
		return r.file == f.id
	})
	f.part.open = nil
	b.writing = slices.DeleteFunc(b.writing, func(o *newFile) bool { return o == f })
	file, err := f.w.Close()
	if err != nil {
		f.w.Abort()
		delete(b.mine, f.id)
		b.files = slices.DeleteFunc(b.files, func(o *newFile) bool { return o == f })
		return err
	}
	f.w, f.file = nil, file
	if b.spilled {
		f.ids = nil
	}
	return nil
}

// remember keeps rows of open files for Lookup and TakeOne, within bounds. Rows that
// are not kept are read after their file has been closed.
func (b *Upsert) remember(rows *datafile.Batch, file uint32, first int64) {
	size := rows.SizeBytes()
	if size > b.u.o.RecentBytes {
		b.recent, b.held = nil, 0
		return
	}
	for len(b.recent) > 0 && b.held+size > b.u.o.RecentBytes {
		b.held -= b.recent[0].rows.SizeBytes()
		b.recent = b.recent[1:]
	}
	b.recent = append(b.recent, recentRows{file, first, rows.Clone()})
	b.held += size
}

// Abort drops the changes. After Commit it does nothing.
func (b *Upsert) Abort() {
	if b.ended {
		return
	}
	b.end()
	if !b.sent {
		b.dropFiles()
	}
}

// end lets others begin.
func (b *Upsert) end() {
	b.ended = true
	if b.u.current == b {
		b.u.current = nil
	}
	if b.batch != nil {
		_ = b.batch.Close()
		b.batch = nil
	}
}
