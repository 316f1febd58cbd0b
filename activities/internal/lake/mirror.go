package lake

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/batch"
	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// view is what one version of a table says about its content.
type view struct {
	snap     *deltalog.Snapshot
	position change.Position
	state    tableState
	copy     copyState
	ground   *change.Ground
	// key is what rows are found by: see keyOf.
	key string
}

func newView(snap *deltalog.Snapshot) (*view, error) {
	v := &view{snap: snap, key: snap.Metadata().Property(keyProperty, "")}
	err := errors.Join(
		decodeDomain(snap.Domain, positionDomain, &v.position),
		decodeDomain(snap.Domain, stateDomain, &v.state),
		decodeDomain(snap.Domain, copyDomain, &v.copy),
		decodeDomain(snap.Domain, groundDomain, &v.ground),
	)
	return v, err
}

// fields returns the columns of the version's schema.
func (v *view) fields() []schema.Field { return v.snap.Metadata().Schema.Fields }

// side is one of the two tables of a mirror.
type side struct {
	*deltalog.Table
	last atomic.Pointer[view]
}

// view returns what the newest version known says.
func (s *side) view() (*view, error) {
	snap := s.Snapshot()
	if v := s.last.Load(); v != nil && v.snap == snap {
		return v, nil
	}
	v, err := newView(snap)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Store().URI(), err)
	}
	s.last.Store(v)
	return v, nil
}

// refresh follows the table to its head.
func (s *side) refresh(ctx context.Context) (*view, error) {
	if _, err := s.Refresh(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Store().URI(), err)
	}
	return s.view()
}

// table is what all handles on one mirrored table share.
type table struct {
	lake *Lake
	path string // below the database's folder
	// name and app are for people and for transaction ids.
	name, app string
	dir       string // of its key indexes
	store     store.Store
	history   side
	// latest's Table is nil where there is none. opening guards its making.
	opening sync.Mutex
	latest  atomic.Pointer[side]

	// streaming is held by a commit of the stream to history.
	streaming sync.Mutex
	// applying is held by whoever writes latest. It also guards index, the open
	// key index, and the folder it is in.
	applying sync.Mutex
	index    *deltalog.Upserter
	indexDir string

	// compacted is the version of history in which nothing was to be merged.
	compacted atomic.Int64

	refs int // guarded by lake.mu
}

// tablePath is where the tables of t are below the database's folder.
func tablePath(t *change.Table) string { return pathPart(t.Schema) + "/" + pathPart(t.Name) }

// openTable opens, or creates, the tables of t.
func (l *Lake) openTable(ctx context.Context, t *change.Table, casts map[string]string) (*table, error) {
	path := tablePath(t)
	database := pathPart(l.cfg.Database)
	st, err := l.root.Sub(database + "/" + path)
	if err != nil {
		return nil, err
	}
	tab := &table{
		lake:  l,
		path:  path,
		name:  t.String(),
		app:   l.cfg.Database + "/" + t.String(),
		dir:   filepath.Join(l.cfg.IndexDir, database, filepath.FromSlash(path)),
		store: st,
	}
	tab.compacted.Store(-1)
	if err := tab.openHistory(ctx, t, casts); err != nil {
		return nil, err
	}
	v, err := tab.history.view()
	if err != nil {
		return nil, err
	}
	if v.key != keyNone {
		err = tab.openLatest(ctx, v)
	}
	return tab, err
}

func (t *table) openHistory(ctx context.Context, src *change.Table, casts map[string]string) error {
	st, err := t.store.Sub("history")
	if err != nil {
		return err
	}
	t.history.Table, err = openOrCreate(ctx, st, func() (deltalog.CreateOptions, error) {
		sh, err := (&shaper{casts: casts}).lay(src)
		if err != nil {
			return deltalog.CreateOptions{}, err
		}
		return deltalog.CreateOptions{
			Schema: &schema.Schema{Fields: append(sh.fields, batch.MetaFields()...)},
			Name:   t.name + " history",
			Properties: map[string]string{
				deltalog.PropertyAppendOnly:         "true",
				deltalog.PropertyInCommitTimestamps: "true",
				keyProperty:                         sh.key,
			},
			Features: []string{deltalog.FeatureDomainMetadata},
		}, nil
	})
	return err
}

// openLatest opens latest, or makes it in the shape of history.
func (t *table) openLatest(ctx context.Context, history *view) error {
	t.opening.Lock()
	defer t.opening.Unlock()
	if t.latest.Load() != nil {
		return nil
	}
	st, err := t.store.Sub("latest")
	if err != nil {
		return err
	}
	latest, err := openOrCreate(ctx, st, func() (deltalog.CreateOptions, error) {
		return deltalog.CreateOptions{
			Schema: latestSchema(history),
			Name:   t.name,
			Properties: map[string]string{
				deltalog.PropertyDeletionVectors:    "true",
				deltalog.PropertyInCommitTimestamps: "true",
				keyProperty:                         history.key,
			},
			Features: []string{deltalog.FeatureDomainMetadata},
		}, nil
	})
	if err == nil {
		t.latest.Store(&side{Table: latest})
	}
	return err
}

// latestSchema is latest's schema when an incarnation begins.
func latestSchema(history *view) *schema.Schema {
	return &schema.Schema{Fields: append(current(history.fields()), latestMeta()...)}
}

// openOrCreate opens the table in st, or creates it. Another worker may be
// doing the same.
func openOrCreate(ctx context.Context, st store.Store, options func() (deltalog.CreateOptions, error)) (*deltalog.Table, error) {
	t, err := deltalog.Open(ctx, st)
	if !errors.Is(err, deltalog.ErrNotTable) {
		return t, wrapIf("open "+st.URI(), err)
	}
	o, err := options()
	if err != nil {
		return nil, err
	}
	t, err = deltalog.Create(ctx, st, o)
	if errors.Is(err, deltalog.ErrExists) {
		t, err = deltalog.Open(ctx, st)
	}
	return t, wrapIf("create "+st.URI(), err)
}

// Mirror is a handle on one table's history and latest. One goroutine at a time
// may use a handle, except for WriteChunk and CatchUp.
type Mirror struct {
	*table
	casts  map[string]string
	shape  *change.Table
	fence  change.Position
	staged staged
	closed bool
}

// Mirror opens the mirror of t, creating what is missing: history, and latest
// unless t has no identity. Each call returns a handle of its own, with its own
// fence; the tables behind it are shared within the process.
func (l *Lake) Mirror(ctx context.Context, t *change.Table, o MirrorOptions) (*Mirror, error) {
	tab, fresh, err := l.acquire(ctx, t, o.Casts)
	if err != nil {
		return nil, fmt.Errorf("open mirror of %s: %w", t, err)
	}
	m := &Mirror{table: tab, casts: o.Casts, shape: t}
	if fresh {
		var v *view
		if v, err = tab.history.view(); err == nil {
			m.fence = v.position
		}
	} else {
		err = m.Refresh(ctx)
	}
	if err != nil {
		l.release(tab)
		return nil, fmt.Errorf("open mirror of %s: %w", t, err)
	}
	return m, nil
}

// Close gives the handle back. Staged rows are dropped.
func (m *Mirror) Close() error {
	if m.closed {
		return nil
	}
	m.closed = true
	m.staged.drop()
	m.lake.release(m.table)
	return nil
}

// Refresh looks at the tables again. A handle that was fenced may be used
// again after it. Staged rows are dropped.
func (m *Mirror) Refresh(ctx context.Context) error {
	m.staged.drop()
	v, err := m.history.refresh(ctx)
	if err != nil {
		return err
	}
	if latest := m.latest.Load(); latest != nil {
		if _, err := latest.refresh(ctx); err != nil {
			return err
		}
	}
	m.fence = v.position
	return nil
}

// shaper lays shapes of the source table upon a version of history. A table of
// another OID, or one that was never copied, is free to differ: its copy has
// yet to come.
func (m *Mirror) shaper(v *view, oid uint32) *shaper {
	s := &shaper{fields: v.fields(), key: v.key, fit: strict, casts: m.casts, number: v.state.Incarnation}
	switch {
	case v.state.Incarnation == 0 || v.state.OID != oid:
		s.fit = free
	case v.position.Before(v.copy.start()):
		s.fit = trailing
	}
	return s
}

// fits lays the table's present shape upon a version of history.
func (m *Mirror) fits(v *view) (*shape, error) {
	sh, err := m.shaper(v, m.shape.OID).lay(m.shape)
	if err == nil && sh.stale {
		err = fmt.Errorf("%s: %w: the shape is from before the copy", m.shape, ErrSchemaIncompatible)
	}
	return sh, err
}

// Layout returns how events of shape t become rows of history. A layout stands
// until the table evolves or a copy begins: Commit tells by ErrFenced when one
// no longer fits. ErrSchemaIncompatible when t cannot be reached by adding
// columns.
func (m *Mirror) Layout(t *change.Table) (*batch.Layout, error) {
	v, err := m.history.view()
	if err != nil {
		return nil, err
	}
	sh, err := m.shaper(v, t.OID).lay(t)
	if err != nil {
		return nil, fmt.Errorf("lay out: %w", err)
	}
	return sh.layout, nil
}

// Evolve makes t the table's shape, for State and WriteChunk and for the proof.
// A column that the tables lack is added, as nullable, by the next commit that
// carries data; one that t lacks stays and is NULL from there. Anything else is
// ErrSchemaIncompatible and changes nothing.
//
// Where rows have no key, one that was there before a column was dropped is no
// longer found by what PostgreSQL sends of it: its delete is ErrRowNotFound.
func (m *Mirror) Evolve(ctx context.Context, t *change.Table) error {
	v, err := m.history.view()
	if err != nil {
		return err
	}
	if _, err := m.shaper(v, t.OID).lay(t); err != nil {
		return fmt.Errorf("evolve: %w", err)
	}
	m.shape = t
	return nil
}

// Applied returns the position that history reached: every change at or before
// it is visible in history. Zero means none.
func (m *Mirror) Applied() change.Position { return m.fence }

// LatestApplied returns the position that latest reached. It may be ahead of
// Applied, at the cut of a copy.
func (m *Mirror) LatestApplied() change.Position {
	if latest := m.latest.Load(); latest != nil {
		if v, err := latest.view(); err == nil {
			return v.position
		}
	}
	return change.Position{}
}

// State returns what the tables said when they were last looked at.
func (m *Mirror) State() State {
	v, err := m.history.view()
	if err != nil {
		return State{Phase: Waiting}
	}
	return State{
		Phase:       m.phase(v),
		Incarnation: v.state.Incarnation,
		Cut:         v.copy.Cut,
		Epoch:       v.copy.Epoch,
		OID:         v.state.OID,
		Copy:        v.copy.ID,
		Chunks:      v.copy.Chunks,
		ChunksDone:  v.copy.done(),
		RowsCopied:  v.copy.Rows,
	}
}

// Ground returns what the stream rested on at the cut of the newest copy; nil
// where that is not known. It must not be changed.
func (m *Mirror) Ground() *change.Ground {
	v, err := m.history.view()
	if err != nil {
		return nil
	}
	return v.ground
}

func (m *Mirror) phase(v *view) Phase {
	switch {
	case v.state.Incarnation == 0 || v.state.OID != m.shape.OID:
		return Waiting
	case v.state.Phase != Live:
		return v.state.Phase
	}
	if _, err := m.fits(v); err != nil {
		return Waiting
	}
	if v.key == keyNone {
		return Live
	}
	latest := m.latest.Load()
	if latest == nil {
		return CatchingUp
	}
	lv, err := latest.view()
	if err != nil || !lv.follows(v) {
		return CatchingUp
	}
	return Live
}

// follows tells whether a latest that says v is live in history's incarnation:
// then it gets every change with history.
func (v *view) follows(history *view) bool {
	return history.state.Phase == Live && v.state.Phase == Live && v.state.Incarnation == history.state.Incarnation
}

// Info describes the tables as they were last looked at.
func (m *Mirror) Info() Info {
	h := m.history.Snapshot()
	rows, _ := h.Rows()
	info := Info{
		History: m.history.Store().URI(), HistoryRows: rows,
		Files: int64(h.NumFiles()), Commits: int64(h.Version()) + 1,
	}
	v, err := m.history.view()
	if latest := m.latest.Load(); latest != nil && err == nil && v.key != keyNone {
		s := latest.Snapshot()
		info.Latest = latest.Store().URI()
		info.LatestRows, _ = s.Rows()
		info.Files += int64(s.NumFiles())
		info.Commits += int64(s.Version()) + 1
	}
	return info
}

// acquire returns the shared table of t. fresh tells that it was opened just
// now.
func (l *Lake) acquire(ctx context.Context, t *change.Table, casts map[string]string) (tab *table, fresh bool, err error) {
	path := tablePath(t)
	for {
		l.mu.Lock()
		if tab := l.tables[path]; tab != nil {
			tab.refs++
			l.mu.Unlock()
			return tab, false, nil
		}
		wait := l.opening[path]
		if wait == nil {
			wait = make(chan struct{})
			l.opening[path] = wait
			l.mu.Unlock()
			tab, err := l.openTable(ctx, t, casts)
			l.mu.Lock()
			delete(l.opening, path)
			close(wait)
			if err == nil {
				tab.refs = 1
				l.tables[path] = tab
			}
			l.mu.Unlock()
			return tab, true, err
		}
		l.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

// release forgets a shared table with its last handle. Whoever wants the table
// meanwhile waits until its index is closed.
func (l *Lake) release(tab *table) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tab.refs--
	if tab.refs > 0 || l.tables[tab.path] != tab {
		return
	}
	delete(l.tables, tab.path)
	wait := make(chan struct{})
	l.opening[tab.path] = wait
	l.mu.Unlock()
	tab.applying.Lock()
	tab.closeIndex()
	tab.applying.Unlock()
	l.mu.Lock()
	delete(l.opening, tab.path)
	close(wait)
}
