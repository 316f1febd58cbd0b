package deltalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/cockroachdb/pebble/v2"
)

// CommitExtras go into the commit of an Upsert.
type CommitExtras struct {
	// Operation is that of [Commit]. Empty means MERGE.
	Operation string
	// Params and Metrics are those of [Commit].
	Params, Metrics map[string]string
	// Txns and Domains are set with the rows. An application of Txns that has
	// come as far already in the version that the upsert began on is ErrApplied.
	Txns    []Txn
	Domains []Domain
	// Check judges the newest version after a lost race: whether the changes
	// are still to be made. Its error ends the commit as it is. Nil means
	// ErrApplied where an application of Txns has come as far meanwhile, and
	// ErrConflict wherever else others changed what Txns or Domains set.
	Check func(*Snapshot) error
}

// Commit makes the changes visible, all at once, and ends the upsert. Where
// others won the version, it asks c.Check and tries again: after a compaction
// that kept the order of rows, on the rows where they are now; after other
// commits, on those that are found anew in what they made of the table. It
// returns ErrConflict where that cannot be done: where they changed protocol or
// metadata, took rows away that were to be taken here, or where the changes to
// the index, or the rows that were taken, were too many for memory.
//
// An upsert without changes is committed all the same if c sets anything. One
// that finds nothing to change looks for what others committed meanwhile first.
func (b *Upsert) Commit(ctx context.Context, c CommitExtras) (*Snapshot, error) {
	if err := b.start(ctx); err != nil {
		return nil, fmt.Errorf("commit upsert: %w", err)
	}
	snap, err := b.commit(ctx, c)
	if err != nil {
		b.Abort()
		return nil, fmt.Errorf("commit upsert: %w", err)
	}
	return snap, nil
}

func (b *Upsert) commit(ctx context.Context, c CommitExtras) (*Snapshot, error) {
	if err := b.snap.applied(c.Txns); err != nil {
		return nil, err
	}
	if err := b.closeFiles(); err != nil {
		return nil, err
	}
	for {
		p, err := b.plan(ctx, c)
		if err != nil {
			return nil, err
		}
		if p.idle() {
			// There is no race to lose: whether others won one is looked up.
			snap, err := b.u.t.Refresh(ctx)
			if err != nil {
				return nil, err
			}
			if snap.version == b.snap.version {
				b.Abort()
				return snap, nil
			}
			if err := b.rebase(ctx, c, &p.commit); err != nil {
				return nil, err
			}
			continue
		}
		snap, won, err := b.u.t.Commit(ctx, &p.commit)
		if err != nil {
			b.sent = !neverTook(err) // then the files may be in the table now
			if !b.sent {
				p.drop(b.u.t)
			}
			return nil, err
		}
		if won {
			b.settle(p, snap)
			return snap, nil
		}
		p.drop(b.u.t)
		if err := b.rebase(ctx, c, &p.commit); err != nil {
			return nil, err
		}
	}
}

// plan is a commit, and what the index is to know of it.
type upsertPlan struct {
	commit  Commit
	changed map[uint32]*indexFile // files whose vector changes, and new ones
	hidden  map[uint32]*roaring64.Bitmap
	dropped []uint32
	garbage []*File          // written for nothing
	moves   map[uint32]*move // of files that were written anew
	runs    []*rewriteRun    // which did that
}

// drop deletes what was written for a commit that lost.
func (p *upsertPlan) drop(t *Table) {
	for _, r := range p.runs {
		r.drop(t)
	}
	t.deleteVectors(p.commit.Add)
	t.deleteFiles(p.commit.ChangeData)
}

// hole is a file of which rows go.
type hole struct {
	id   uint32
	file *File
	rows *roaring64.Bitmap // all that are hidden then
}

// idle tells that there is nothing to commit.
func (p *upsertPlan) idle() bool {
	c := &p.commit
	return len(c.Add)+len(c.Remove)+len(c.Txns)+len(c.Domains) == 0 && c.Protocol == nil && c.Metadata == nil
}

func (b *Upsert) plan(ctx context.Context, c CommitExtras) (*upsertPlan, error) {
	p := &upsertPlan{
		commit: Commit{
			Read: b.snap, Operation: c.Operation, Params: c.Params, Metrics: c.Metrics,
			Protocol: b.protocol, Metadata: b.metadata, Txns: c.Txns, Domains: c.Domains,
		},
		changed: map[uint32]*indexFile{}, hidden: map[uint32]*roaring64.Bitmap{}, moves: map[uint32]*move{},
	}
	if p.commit.Operation == "" {
		p.commit.Operation = "MERGE"
	}
	var holes []hole
	if b.truncated {
		p.commit.Remove = slices.Collect(b.snap.Files())
		for id := range b.u.index.files {
			p.dropped = append(p.dropped, id)
		}
	} else {
		var err error
		if holes, err = b.planOld(ctx, p); err != nil {
			return nil, err
		}
	}
	for _, f := range b.files {
		if f.lostIDs {
			file := *f.file
			file.rowTracking = nil
			f.file = &file
		}
		switch dead := b.dead[f.id]; {
		case dead == nil:
			p.commit.Add = append(p.commit.Add, f.file)
			p.changed[f.id] = &indexFile{Path: f.file.Path, Rows: f.file.Rows}
		case int64(dead.GetCardinality()) == f.file.Rows:
			p.garbage = append(p.garbage, f.file)
		default:
			holes = append(holes, hole{f.id, f.file, dead.Clone()})
		}
	}
	var err error
	if b.tellsChanges(p) {
		p.commit.ChangeData, err = b.writeChanges(ctx)
	}
	switch {
	case err != nil:
	case b.u.o.CopyOnWrite:
		err = b.copyHoles(ctx, p, holes)
	default:
		err = b.hideHoles(ctx, p, holes)
	}
	if err != nil {
		p.drop(b.u.t)
	}
	return p, err
}

// hideHoles gives files vectors.
func (b *Upsert) hideHoles(ctx context.Context, p *upsertPlan, holes []hole) error {
	vectors := make([]*roaring64.Bitmap, len(holes))
	for i := range holes {
		vectors[i] = holes[i].rows
	}
	written, err := b.u.t.WriteVectors(ctx, vectors)
	if err != nil {
		return err
	}
	for i, h := range holes {
		p.commit.Add = append(p.commit.Add, h.file.WithVector(written[i]))
		p.changed[h.id] = &indexFile{Path: h.file.Path, Rows: h.file.Rows, Vector: written[i].uniqueID(), Hidden: written[i].Cardinality}
		p.hidden[h.id] = h.rows
	}
	return nil
}

// planOld plans what becomes of the files that were there before, and returns
// those of which some rows go.
func (b *Upsert) planOld(ctx context.Context, p *upsertPlan) ([]hole, error) {
	var holes []hole
	for id, k := range b.u.index.files {
		dead := b.dead[id]
		if dead == nil {
			continue
		}
		f := b.snap.File(k.Path)
		if f == nil {
			return nil, fmt.Errorf("%w: file %s is not in version %d", ErrCorrupt, k.Path, b.snap.version)
		}
		all, err := b.vector(ctx, id, f)
		if err != nil {
			return nil, err
		}
		all.Or(dead)
		p.commit.Remove = append(p.commit.Remove, f)
		if int64(all.GetCardinality()) == f.Rows {
			p.dropped = append(p.dropped, id)
			continue
		}
		holes = append(holes, hole{id, f, all})
	}
	return holes, nil
}

// vector returns the rows of a file that are hidden already; the caller owns
// the bitmap.
func (b *Upsert) vector(ctx context.Context, id uint32, f *File) (*roaring64.Bitmap, error) {
	if f.Vector == nil {
		return roaring64.New(), nil
	}
	if bm, err := b.u.index.vector(id, f.Vector.uniqueID()); err != nil || bm != nil {
		return bm, err
	}
	return b.snap.ReadVector(ctx, f)
}

// settle makes the index true for the version that was committed. Where that
// fails, the index is behind, and follows when it is used again.
func (b *Upsert) settle(p *upsertPlan, snap *Snapshot) {
	if err := b.writeIndex(p, snap); err == nil {
		x := b.u.index
		if b.truncated {
			clear(x.moves)
		}
		for _, id := range p.dropped {
			delete(x.ids, x.files[id].Path)
			delete(x.files, id)
		}
		for id, f := range p.changed {
			x.files[id], x.ids[f.Path] = f, id
		}
		for was, m := range x.moves {
			if on := m.onto(p.moves); on != m {
				x.moves[was] = on
			}
		}
		maps.Copy(x.moves, p.moves)
		x.state.Version, x.state.Dirty = snap.version, false
		if b.truncated {
			x.state.Stale = 0
		}
	}
	b.end()
	b.u.t.deleteFiles(p.garbage)
}

func (b *Upsert) writeIndex(p *upsertPlan, snap *Snapshot) error {
	if b.truncated {
		if err := b.batch.DeleteRange([]byte{nameMove}, []byte{nameMove + 1}, nil); err != nil {
			return err
		}
	}
	for _, id := range p.dropped {
		if err := dropFile(b.batch, id); err != nil {
			return err
		}
	}
	for id, f := range p.changed {
		if err := putFile(b.batch, id, f, p.hidden[id]); err != nil {
			return err
		}
	}
	for was, m := range b.u.index.moves {
		if on := m.onto(p.moves); on != m && !b.truncated {
			if err := putMove(b.batch, was, on); err != nil {
				return err
			}
		}
	}
	for id, m := range p.moves {
		if err := putMove(b.batch, id, m); err != nil {
			return err
		}
	}
	state := b.u.index.state
	state.Version, state.Dirty = snap.version, false
	if b.truncated {
		state.Stale = 0
	}
	if err := putState(b.batch, state); err != nil {
		return err
	}
	if b.u.forget {
		return errForget
	}
	return b.batch.Commit(pebble.Sync)
}

var errForget = errors.New("the index misses a commit")

// rebase plans the same changes on what others made of the table: the rows that
// are to go are those that its index now finds.
func (b *Upsert) rebase(ctx context.Context, c CommitExtras, lost *Commit) error {
	snap, err := b.u.t.Refresh(ctx)
	if err != nil {
		return err
	}
	check := c.Check
	if check == nil {
		check = func(s *Snapshot) error {
			return (&Commit{Read: lost.Read, Txns: c.Txns, Domains: c.Domains}).Conflict(s)
		}
	}
	if err := check(snap); err != nil {
		return err
	}
	if err := (&Commit{Read: lost.Read}).Conflict(snap); err != nil {
		return err
	}
	moved, err := b.u.index.followMoves(ctx, snap, b.u.finder)
	if err != nil {
		return err
	}
	if moved {
		b.snap = snap
		b.translate()
		return nil
	}
	if b.spilled {
		return fmt.Errorf("%w: too many changes to find their rows again", ErrConflict)
	}
	mine := map[uint32]*roaring64.Bitmap{}
	for _, f := range b.files {
		if dead := b.dead[f.id]; dead != nil {
			mine[f.id] = dead
		}
	}
	if err := b.u.index.follow(ctx, snap, b.u.finder); err != nil {
		return err
	}
	b.snap, b.dead = snap, mine
	if b.truncated {
		return nil
	}
	if b.u.finder.multiset {
		return b.retake(ctx)
	}
	return b.refind(ctx)
}

// translate buries the rows that are to go where they are now.
func (b *Upsert) translate() {
	x := b.u.index
	for id, dead := range b.dead {
		if b.own(id) || x.files[id] != nil {
			continue
		}
		delete(b.dead, id)
		for it := dead.Iterator(); it.HasNext(); {
			if at, ok := x.resolve(location{id, uint32(it.Next())}); ok {
				b.bury(at)
			}
		}
	}
}

// refind buries the rows of all keys that were fed.
func (b *Upsert) refind(ctx context.Context) error {
	r := b.batch.Reader()
	var places []location // of the rows that were put
	var found []replaced  // by those
	for {
		kind, name, value, ok, err := r.Next()
		if err != nil {
			return fmt.Errorf("read changes to the key index: %w", err)
		}
		if !ok {
			break
		}
		if kind != pebble.InternalKeyKindSet && kind != pebble.InternalKeyKindDelete {
			continue
		}
		at, ok, err := find(b.u.index.db, name)
		if err != nil {
			return err
		}
		if ok {
			if at, ok = b.u.index.resolve(at); ok {
				b.bury(at)
			}
		}
		if b.ids == nil || kind != pebble.InternalKeyKindSet {
			continue
		}
		put, err := parseLocation(value)
		if err != nil {
			return err
		}
		if places = append(places, put); ok {
			found = append(found, replaced{at, len(places) - 1})
		}
	}
	return b.checkIDs(ctx, places, found)
}

// own tells whether this upsert writes a file.
func (b *Upsert) own(file uint32) bool {
	return len(b.files) > 0 && file >= b.files[0].id && b.mine[file] != nil
}
