package deltalog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/deltalog/store"
)

const (
	// maxFollow is how many commits are looked through for rewritten files. An
	// index that is further behind reads the keys of the files that are there.
	maxFollow = 1000
	// defaultMoves is for how many files the index remembers where their rows
	// went. Beyond that, its entries are made to point there.
	defaultMoves = 1 << 14
)

// resolve returns where a row is that an entry points at. Without ok it is
// nowhere, and the entry means nothing.
func (x *keyIndex) resolve(at location) (location, bool) {
	return resolve(x.files, x.moves, at)
}

func resolve(files map[uint32]*indexFile, moves map[uint32]*move, at location) (location, bool) {
	if files[at.file] != nil {
		return at, true
	}
	m := moves[at.file]
	if m == nil {
		return at, false
	}
	at, ok := m.to(uint64(at.row))
	return at, ok && files[at.file] != nil
}

// followRewrites takes the commits after the index's version up to the
// snapshot's into account as far as they moved rows from files that the index
// knows into others.
func (b *builder) followRewrites(ctx context.Context) error {
	from, to := b.x.state.Version+1, b.snap.version
	if from <= 0 || to-from >= maxFollow || !b.rewritten() {
		return nil
	}
	for ; from <= to; from += fetchAhead {
		texts, err := commitTexts(ctx, b.snap.st, from, min(to, from+fetchAhead-1))
		if err != nil {
			return err
		}
		for _, text := range texts {
			if err := b.followCommit(ctx, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// commitTexts reads the files of some versions at once; those that were cleaned
// away are empty.
func commitTexts(ctx context.Context, st store.Store, from, to Version) ([][]byte, error) {
	texts := make([][]byte, to-from+1)
	g, ctx := errgroup.WithContext(ctx)
	for i := range texts {
		g.Go(func() (err error) {
			texts[i], err = st.Get(ctx, commitName(from+Version(i)))
			if errors.Is(err, store.ErrNotExist) {
				return nil
			}
			return err
		})
	}
	return texts, g.Wait()
}

// rewritten tells whether files went and others came.
func (b *builder) rewritten() bool {
	here := 0
	for _, known := range b.x.files {
		if b.snap.File(known.Path) != nil {
			here++
		}
	}
	return here < len(b.x.files) && here < b.snap.NumFiles()
}

func (b *builder) followCommit(ctx context.Context, text []byte) error {
	if !bytes.Contains(text, []byte(`"`+rewriteParam+`"`)) {
		return nil
	}
	c, err := parseCommit(text)
	if err != nil || c.info == nil {
		return nil // whoever reads the log says so
	}
	for _, r := range parseRewrites(c.info.Parameters[rewriteParam]) {
		if err := b.followRewrite(ctx, &r); err != nil {
			return err
		}
	}
	return nil
}

// followRewrite lets the entries of the inputs mean rows of the outputs, unless
// too little is known of the inputs.
func (b *builder) followRewrite(ctx context.Context, r *rewrite) error {
	ids := make([]uint32, len(r.Inputs))
	hidden, known := make([]*roaring64.Bitmap, len(ids)), make([]*roaring64.Bitmap, len(ids))
	for i, in := range r.Inputs {
		id, ok := b.ids[in.Path]
		if !ok {
			return nil
		}
		ids[i] = id
		var err error
		if hidden[i], err = b.vectorOf(ctx, id, in.Hidden); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return nil
		}
		rows := b.files[id].Rows
		if hidden[i] != nil {
			rows -= int64(hidden[i].GetCardinality())
		}
		if known[i], err = b.knownVector(id); err != nil {
			return err
		}
		if rows != in.Rows || known[i] == nil {
			return nil
		}
	}
	outputs := make([]uint32, len(r.Outputs))
	for i, out := range r.Outputs {
		id := b.next
		b.next++
		outputs[i] = id
		b.files[id], b.ids[out.Path] = &indexFile{Path: out.Path, Rows: out.Rows}, id
		b.known[id] = roaring64.New()
	}
	moves := r.moves(hidden, outputs)
	b.moveOn(ids, moves)
	for i, m := range moves {
		// Rows that were known to be hidden before they moved are hidden where
		// they went, or have come back.
		for it := known[i].Iterator(); it.HasNext(); {
			if at, ok := m.to(it.Next()); ok {
				b.known[at.file].Add(uint64(at.row))
			}
		}
		f := b.files[ids[i]]
		b.stale += max(0, f.Rows-r.Inputs[i].Rows-int64(known[i].GetCardinality()))
		delete(b.files, ids[i])
		delete(b.ids, f.Path)
		delete(b.known, ids[i])
	}
	return nil
}

// moveOn notes where the rows of files went, and those that had come to them.
func (b *builder) moveOn(ids []uint32, moves []*move) {
	on := make(map[uint32]*move, len(ids))
	for i, id := range ids {
		on[id] = moves[i]
	}
	for was, m := range b.moves {
		if passed := m.onto(on); passed != m {
			b.moves[was], b.moved[was] = passed, true
		}
	}
	for id, m := range on {
		b.moves[id], b.moved[id] = m, true
	}
}

// vectorOf returns the bitmap of a vector of a file, nil if there is none.
func (b *builder) vectorOf(ctx context.Context, id uint32, v *Vector) (*roaring64.Bitmap, error) {
	if v == nil {
		return nil, nil
	}
	if bm, err := b.x.vector(id, v.uniqueID()); err != nil || bm != nil {
		return bm, err
	}
	return v.read(ctx, b.snap.st)
}

// knownVector returns the rows of a file of which the index knows that they are
// hidden; nil when it has lost them.
func (b *builder) knownVector(id uint32) (*roaring64.Bitmap, error) {
	if known := b.known[id]; known != nil {
		return known, nil
	}
	if b.files[id].Vector == "" {
		return roaring64.New(), nil
	}
	return b.x.vector(id, b.files[id].Vector)
}

// forgetMoves drops what leads nowhere.
func (b *builder) forgetMoves() {
	for id, m := range b.moves {
		if !slices.ContainsFunc(m.spans, func(s moveSpan) bool { return b.files[s.file] != nil }) {
			delete(b.moves, id)
			delete(b.moved, id)
		}
	}
}

// putMoves records the moves that changed.
func (b *builder) putMoves() error {
	for id := range b.x.moves {
		if b.moves[id] == nil {
			if err := b.batch.Delete(fileName(nameMove, id), nil); err != nil {
				return err
			}
		}
	}
	for id := range b.moved {
		if err := putMove(b.batch, id, b.moves[id]); err != nil {
			return err
		}
	}
	return nil
}

func putMove(b *pebble.Batch, id uint32, m *move) error {
	buf := binary.AppendUvarint(nil, m.live)
	buf = binary.AppendUvarint(buf, uint64(len(m.spans)))
	for _, s := range m.spans {
		buf = binary.AppendUvarint(buf, s.first)
		buf = binary.AppendUvarint(buf, uint64(s.file))
		buf = binary.AppendUvarint(buf, s.base)
	}
	if m.hidden != nil {
		bm, err := m.hidden.MarshalBinary()
		if err != nil {
			return err
		}
		buf = append(buf, bm...)
	}
	return b.Set(fileName(nameMove, id), buf, nil)
}

func parseMove(b []byte) (*move, error) {
	bad := false
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad = true
			return 0
		}
		b = b[n:]
		return v
	}
	m := &move{live: next()}
	n := next()
	if bad || n > uint64(len(b)/3) {
		return nil, fmt.Errorf("%w: a move of the key index", ErrCorrupt)
	}
	last := uint64(0)
	for i := range n {
		s := moveSpan{first: next()}
		file := next()
		s.file, s.base = uint32(file), next()
		if bad || file > 1<<32-1 || s.base > 1<<32-1 || i == 0 && s.first != 0 || i > 0 && s.first <= last || s.first >= m.live {
			return nil, fmt.Errorf("%w: a move of the key index", ErrCorrupt)
		}
		last = s.first
		m.spans = append(m.spans, s)
	}
	if m.live > 0 && n == 0 {
		return nil, fmt.Errorf("%w: a move of the key index", ErrCorrupt)
	}
	if len(b) == 0 {
		return m, nil
	}
	body, err := checkRoaring64(b)
	if err != nil {
		return nil, fmt.Errorf("%w: a move of the key index: %w", ErrCorrupt, err)
	}
	m.hidden = roaring64.New()
	if _, err := m.hidden.ReadFrom(bytes.NewReader(body)); err != nil {
		return nil, fmt.Errorf("%w: a move of the key index: %w", ErrCorrupt, err)
	}
	return m, nil
}

// loadMoves reads where rows went.
func (x *keyIndex) loadMoves() error {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{nameMove}, UpperBound: []byte{nameMove + 1}})
	if err != nil {
		return err
	}
	defer func() { _ = it.Close() }()
	for ok := it.First(); ok; ok = it.Next() {
		m, err := parseMove(it.Value())
		if err != nil || len(it.Key()) != 5 {
			return fmt.Errorf("move: %w: %w", ErrCorrupt, err)
		}
		x.moves[binary.BigEndian.Uint32(it.Key()[1:])] = m
	}
	return it.Error()
}

// tidyMany tidies where more moves are remembered than allowed.
func (x *keyIndex) tidyMany(most int) error {
	if len(x.moves) <= most {
		return nil
	}
	return x.tidy()
}

// tidy makes all entries point at where their rows are, and drops those that
// mean nothing. It reads the index alone. Whatever of it is done after a crash,
// the index says the same.
func (x *keyIndex) tidy() error {
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{nameKey}, UpperBound: []byte{nameHash + 1}})
	if err != nil {
		return fmt.Errorf("tidy key index: %w", err)
	}
	defer func() { _ = it.Close() }()
	batch := x.db.NewBatch()
	defer func() { _ = batch.Close() }()
	var buf []byte
	for ok := it.First(); ok; ok = it.Next() {
		if buf, err = x.tidyEntry(batch, it.Key(), it.Value(), buf); err == nil && batch.Len() >= buildBytes {
			if err = batch.Commit(pebble.NoSync); err == nil {
				batch.Reset()
			}
		}
		if err != nil {
			return fmt.Errorf("tidy key index: %w", err)
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("tidy key index: %w", err)
	}
	state := x.state
	state.Stale = 0
	err = errors.Join(batch.DeleteRange([]byte{nameMove}, []byte{nameMove + 1}, nil), putState(batch, state))
	if err == nil {
		err = batch.Commit(pebble.Sync)
	}
	if err != nil {
		return fmt.Errorf("tidy key index: %w", err)
	}
	x.moves, x.state = map[uint32]*move{}, state
	return nil
}

// tidyEntry puts one entry right. It returns buf, grown.
func (x *keyIndex) tidyEntry(batch *pebble.Batch, name, value, buf []byte) ([]byte, error) {
	was, err := parseEntry(name, value)
	if err != nil {
		return buf, err
	}
	at, ok := x.resolve(was)
	switch {
	case !ok:
		return buf, batch.Delete(name, nil)
	case at == was:
		return buf, nil
	case name[0] == nameKey:
		buf = appendLocation(buf[:0], at)
		return buf, batch.Set(name, buf, nil)
	}
	buf = append(buf[:0], name[:1+hashSize]...)
	buf = binary.BigEndian.AppendUint32(buf, at.file)
	buf = binary.BigEndian.AppendUint32(buf, at.row)
	return buf, errors.Join(batch.Delete(name, nil), batch.Set(buf, nil, nil))
}

// parseEntry returns where an entry points.
func parseEntry(name, value []byte) (location, error) {
	if len(name) > 0 && name[0] == nameHash {
		return parseHashEntry(name)
	}
	return parseLocation(value)
}
