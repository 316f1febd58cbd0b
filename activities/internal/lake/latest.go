package lake

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/batch"
	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// errMoved tells that another writer changed latest: what is to be done must be
// looked at again.
var errMoved = errors.New("latest has moved")

// follow brings latest up to what was just committed to history, if latest is
// live. If it is not, and somebody else is catching it up, that one looks at
// history once more when done.
func (m *Mirror) follow(ctx context.Context, r run, done *Committed) error {
	latest := m.latest.Load()
	hv, err := m.history.view()
	if err != nil {
		return err
	}
	if latest == nil || hv.key == keyNone || hv.state.Phase != Live || hv.state.OID != r.oid {
		return nil
	}
	lv, err := latest.view()
	if err != nil {
		return err
	}
	if lv.follows(hv) {
		m.applying.Lock()
	} else if !m.applying.TryLock() {
		return nil
	} else if lv, err = latest.refresh(ctx); err != nil || !lv.follows(hv) {
		m.applying.Unlock()
		return err
	}
	defer m.applying.Unlock()
	versions := latest.Snapshot().Version()
	err = m.reach(ctx, latest, r)
	if n := int(latest.Snapshot().Version() - versions); n > 0 {
		done.Latest = true
		done.Commits += n
		done.Files++
	}
	return err
}

// reach applies what latest lacks: from memory where r is all, otherwise from
// history. The caller holds applying.
func (m *Mirror) reach(ctx context.Context, latest *side, r run) error {
	for {
		hv, err := m.history.view()
		if err != nil {
			return err
		}
		lv, err := latest.view()
		if err != nil {
			return err
		}
		if !lv.follows(hv) || !lv.position.Before(hv.position) {
			return nil
		}
		if r.rows != nil && !lv.position.Before(r.before) && lv.position.Before(r.to) {
			err = m.apply(ctx, latest, hv, lv, func(up *upsert) (change.Position, Phase, error) {
				return r.to, Live, up.feed(ctx, r.rows)
			})
		} else {
			_, _, err = m.advance(ctx, latest, hv, lv, math.MaxInt)
		}
		if !errors.Is(err, errMoved) {
			return err
		}
		if _, err := m.history.refresh(ctx); err != nil {
			return err
		}
		if _, err := latest.refresh(ctx); err != nil {
			return err
		}
	}
}

// CatchUp applies history to latest, from latest's position on, whole
// transactions, about maxRows rows of them. After a copy it first puts the
// copied rows into latest and builds the key index; once latest has reached
// history it marks the table live. done tells that nothing was left; until
// then it is to be called again. It may run beside Commit, here or on another
// worker. ErrNotCopied while no copy is complete.
func (m *Mirror) CatchUp(ctx context.Context, maxRows int) (done bool, err error) {
	maxRows = max(maxRows, 1)
	for {
		rows, done, err := m.catchUp(ctx, maxRows)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("catch up %s: %w", m.name, err)
		}
		if maxRows -= rows; !done && maxRows <= 0 {
			return false, nil
		}
		if !done {
			continue
		}
		// A commit that found latest not live, or in our hands, left its rows to
		// us: history has them now.
		hv, err := m.history.refresh(ctx)
		if err != nil {
			return false, fmt.Errorf("catch up %s: %w", m.name, err)
		}
		if hv.key == keyNone {
			return true, nil
		}
		lv, err := m.latest.Load().view()
		if err != nil {
			return false, fmt.Errorf("catch up %s: %w", m.name, err)
		}
		if !lv.follows(hv) || !lv.position.Before(hv.position) {
			return true, nil
		}
	}
}

// catchUp does a piece of CatchUp's work.
func (m *Mirror) catchUp(ctx context.Context, maxRows int) (rows int, done bool, err error) {
	m.applying.Lock()
	defer m.applying.Unlock()
	hv, err := m.history.refresh(ctx)
	if err != nil {
		return 0, false, err
	}
	if hv.state.Phase != Live {
		return 0, false, ErrNotCopied
	}
	if hv.key == keyNone {
		return 0, true, nil
	}
	if err := m.openLatest(ctx, hv); err != nil {
		return 0, false, err
	}
	latest := m.latest.Load()
	lv, err := latest.refresh(ctx)
	if err != nil {
		return 0, false, err
	}
	if lv.state.Incarnation != hv.state.Incarnation {
		if lv, err = m.swap(ctx, latest, hv, lv); err != nil {
			return 0, false, err
		}
	}
	defer m.checkpoint(ctx, latest)
	return m.advance(ctx, latest, hv, lv, maxRows)
}

// swap puts the rows of history's newest copy in the place of all that latest
// holds, and its shape in the place of latest's.
func (t *table) swap(ctx context.Context, latest *side, hv, lv *view) (*view, error) {
	inc, ok := hv.state.complete(hv.state.Incarnation)
	if !ok {
		return nil, fmt.Errorf("incarnation %d: %w", hv.state.Incarnation, ErrNotCopied)
	}
	t.closeIndex()
	var files []*deltalog.File
	rows := int64(0)
	for f := range hv.snap.Files() {
		if _, copied := f.Tags[chunkTag]; !copied || f.Tags[incarnationTag] != fmt.Sprint(inc.Number) {
			continue
		}
		linked, err := latest.LinkFile(ctx, t.history.Table, f)
		if err != nil {
			return nil, err
		}
		files = append(files, linked)
		rows += f.Rows
	}
	if hv.copy.Incarnation == inc.Number && rows != hv.copy.Rows {
		return nil, fmt.Errorf("%w: history has %d rows of incarnation %d, %d were copied", ErrDisorder, rows, inc.Number, hv.copy.Rows)
	}
	for {
		c := &deltalog.Commit{
			Read:      lv.snap,
			Operation: "REPLACE TABLE",
			Txns:      []deltalog.Txn{t.txn(inc.start())},
			Domains: []deltalog.Domain{
				{Name: positionDomain, Configuration: encodeDomain(inc.start())},
				{Name: stateDomain, Configuration: encodeDomain(tableState{Phase: CatchingUp, Incarnation: inc.Number, OID: inc.OID})},
			},
			Remove: slices.Collect(lv.snap.Files()),
			Add:    files,
		}
		if want := latestSchema(hv); lv.key != hv.key || !want.Equal(lv.snap.Metadata().Schema) {
			setSchema(c, want)
			c.Metadata.Configuration[keyProperty] = hv.key
		}
		_, won, err := latest.Commit(ctx, c)
		if err != nil {
			return nil, err
		}
		if !won {
			if lv, err = latest.refresh(ctx); err != nil {
				return nil, err
			}
			if lv.state.Incarnation == hv.state.Incarnation {
				return lv, nil
			}
			continue
		}
		if err := os.RemoveAll(t.dir); err != nil {
			return nil, fmt.Errorf("remove old key index: %w", err)
		}
		return latest.view()
	}
}

// emptyLatest takes all rows out of a latest that is there and has lost its use.
// A copy of the table with a key puts rows into it again.
func (t *table) emptyLatest(ctx context.Context) error {
	t.applying.Lock()
	defer t.applying.Unlock()
	t.closeIndex()
	st, err := t.store.Sub("latest")
	if err != nil {
		return err
	}
	latest, err := deltalog.Open(ctx, st)
	if errors.Is(err, deltalog.ErrNotTable) {
		return nil
	}
	for err == nil && latest.Snapshot().NumFiles() > 0 {
		var won bool
		_, won, err = latest.Commit(ctx, &deltalog.Commit{
			Read:      latest.Snapshot(),
			Operation: "TRUNCATE",
			Domains:   []deltalog.Domain{{Name: stateDomain, Configuration: encodeDomain(tableState{Phase: Waiting})}},
			Remove:    slices.Collect(latest.Snapshot().Files()),
		})
		if err == nil && !won {
			_, err = latest.Refresh(ctx)
		}
	}
	return wrapIf("empty "+st.URI(), err)
}

// advance applies changes of history to latest, whole transactions, about
// maxRows rows of them, in one commit. done tells that it reached history's
// position; then latest is live.
func (t *table) advance(ctx context.Context, latest *side, hv, lv *view, maxRows int) (rows int, done bool, err error) {
	if !lv.position.Before(hv.position) && lv.state.Phase == Live {
		return 0, true, nil
	}
	err = t.apply(ctx, latest, hv, lv, func(up *upsert) (change.Position, Phase, error) {
		to := lv.position
		for b, err := range t.changes(ctx, hv, lv.position, up.historyColumns()) {
			if err != nil {
				return to, CatchingUp, err
			}
			at, err := positionsOf(b)
			if err != nil {
				return to, CatchingUp, err
			}
			n, n0 := b.Rows(), 0
			if rows >= maxRows {
				// Only the rest of the transaction is still wanted.
				for n0 < n && sameTransaction(at.at(n0), to) {
					n0++
				}
				if n0 < n {
					b = between(b, 0, n0)
				}
			}
			if b.Rows() > 0 {
				if err := up.feed(ctx, b); err != nil {
					return to, CatchingUp, err
				}
				rows += b.Rows()
				to = at.at(b.Rows() - 1)
			}
			if b.Rows() < n {
				return to, lv.state.Phase, nil
			}
		}
		done = true
		if to.Before(hv.position) {
			to = hv.position
		}
		return to, Live, nil
	})
	return rows, done && err == nil, err
}

// sameTransaction tells whether two changes of one table are of one transaction.
func sameTransaction(a, b change.Position) bool {
	return a.Epoch == b.Epoch && a.CommitLSN == b.CommitLSN
}

// apply runs feed on an upsert of latest and commits it with the position and
// phase that feed returns. The caller holds applying.
func (t *table) apply(ctx context.Context, latest *side, hv, lv *view, feed func(*upsert) (change.Position, Phase, error)) (err error) {
	if lv, err = t.evolveLatest(ctx, latest, hv, lv); err != nil {
		return err
	}
	up, err := t.begin(ctx, latest, lv)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// What the index holds now is not known here: it finds out when it is
			// opened again.
			up.Abort()
			t.closeIndex()
		}
	}()
	to, phase, err := feed(up)
	if err != nil {
		return err
	}
	domains := []deltalog.Domain{{Name: positionDomain, Configuration: encodeDomain(to)}}
	if state := lv.state; state.Phase != phase {
		state.Phase = phase
		domains = append(domains, deltalog.Domain{Name: stateDomain, Configuration: encodeDomain(state)})
	}
	// A commit may change the phase alone.
	var txns []deltalog.Txn
	txn := t.txn(to)
	if was, ok := lv.snap.Txn(txn.AppID); !ok || was != txn.Version {
		txns = append(txns, txn)
	}
	_, err = up.Commit(ctx, deltalog.CommitExtras{
		Operation: "MERGE",
		Txns:      txns,
		Domains:   domains,
		Check: func(s *deltalog.Snapshot) error {
			now, err := newView(s)
			if err == nil && (now.position != lv.position || now.state.Incarnation != lv.state.Incarnation || now.state.Phase != lv.state.Phase) {
				err = errMoved
			}
			return err
		},
	})
	if errors.Is(err, deltalog.ErrConflict) {
		err = fmt.Errorf("%w: %w", errMoved, err)
	}
	return err
}

// evolveLatest adds the columns that history got in this incarnation.
func (t *table) evolveLatest(ctx context.Context, latest *side, hv, lv *view) (*view, error) {
	for {
		fields := lv.fields()
		for _, f := range current(hv.fields()) {
			if !slices.ContainsFunc(fields, func(g schema.Field) bool { return g.Name == f.Name }) {
				fields = extend(fields, f)
			}
		}
		if len(fields) == len(lv.fields()) {
			return lv, nil
		}
		c := &deltalog.Commit{Read: lv.snap, Operation: "ADD COLUMNS"}
		setSchema(c, &schema.Schema{Fields: fields})
		was := lv
		_, won, err := latest.Commit(ctx, c)
		if err != nil {
			return nil, err
		}
		if lv, err = latest.refresh(ctx); err != nil {
			return nil, err
		}
		if !won && (lv.position != was.position || lv.state.Incarnation != was.state.Incarnation || lv.state.Phase != was.state.Phase) {
			return nil, errMoved
		}
	}
}

// upsert is one upsert of latest that is fed with history-shaped rows.
type upsert struct {
	*deltalog.Upsert
	after    change.Position
	key      []string
	multiset bool
	source   []string // source columns of latest
	columns  []schema.Field
}

// begin opens the key index where it is not, and begins an upsert.
func (t *table) begin(ctx context.Context, latest *side, lv *view) (*upsert, error) {
	key, multiset, err := parseKey(lv.key)
	if err != nil {
		return nil, err
	}
	up := &upsert{
		after: lv.position, key: key, multiset: multiset,
		source: fieldNames(current(lv.fields())), columns: lv.fields(),
	}
	// Rows without key are found by all their columns: with more of them, the
	// index is another.
	name := lv.key
	if multiset {
		name += "\x00" + strings.Join(up.source, "\x00")
	}
	dir := filepath.Join(t.dir, shortHash(name, 16))
	if t.index != nil && t.indexDir != dir {
		t.closeIndex()
	}
	if t.index == nil {
		if err := os.MkdirAll(t.dir, 0o700); err != nil {
			return nil, fmt.Errorf("open key index: %w", err)
		}
		t.index, err = deltalog.OpenUpserter(ctx, latest.Table, dir, deltalog.UpserterOptions{
			Keys: key, Multiset: multiset, Columns: up.source,
			CacheBytes: t.lake.cfg.CacheBytes, FileBytes: t.lake.cfg.FileBytes,
		})
		if err != nil {
			t.index = nil
			return nil, fmt.Errorf("open key index: %w", err)
		}
		t.indexDir = dir
	}
	t.lake.indexes.used(t)
	up.Upsert = t.index.Begin()
	return up, nil
}

// closeIndex closes the key index. The caller holds applying.
func (t *table) closeIndex() {
	if t.index == nil {
		return
	}
	if err := t.index.Close(); err != nil {
		t.lake.cfg.Log.Warn("key index not closed", "table", t.name, "error", err)
	}
	t.index = nil
	t.lake.indexes.closed(t)
}

// historyColumns are the columns of history that an upsert needs.
func (up *upsert) historyColumns() []string {
	return append(slices.Clone(up.source),
		batch.OpColumn, batch.EpochColumn, batch.CommitLSNColumn, batch.OrdinalColumn, batch.CommitTSColumn, batch.UnchangedColumn)
}

// feed applies the net effect of history-shaped rows.
func (up *upsert) feed(ctx context.Context, rows *datafile.Batch) error {
	rows = up.complete(rows)
	net, err := batch.Fold(rows, up.key, up.multiset, up.source, up.after)
	if err != nil {
		return classify(err)
	}
	puts := up.project(rows)
	var put *datafile.Batch
	keys := make([][]byte, len(net.Upserts))
	if up.multiset {
		put = puts.Gather(net.Inserted)
	} else {
		picked := make([]int32, len(net.Upserts))
		for i := range net.Upserts {
			picked[i], keys[i] = net.Upserts[i].Row, net.Upserts[i].Key
		}
		put = puts
		if len(picked) < rows.Rows() {
			put = puts.Gather(picked)
		}
		// The values that are kept stand in rows that are about to go.
		if err := up.fill(ctx, puts, put, net); err != nil {
			return classify(err)
		}
	}
	if net.Truncated {
		if err := up.Truncate(ctx); err != nil {
			return err
		}
	}
	if len(net.Deletes) > 0 {
		if err := up.Delete(ctx, net.Deletes); err != nil {
			return err
		}
	}
	if len(net.Removed) > 0 {
		if err := up.TakeOne(ctx, puts.Gather(net.Removed)); err != nil {
			return classify(err)
		}
	}
	if put.Rows() == 0 {
		return nil
	}
	return up.Put(ctx, put, keys)
}

// classify gives the errors of others about rows that are not there our name.
func classify(err error) error {
	switch {
	case errors.Is(err, batch.ErrNoOldRow), errors.Is(err, deltalog.ErrRowNotFound):
		return fmt.Errorf("%w: %w", ErrRowNotFound, err)
	case errors.Is(err, batch.ErrOrder):
		return fmt.Errorf("%w: %w", ErrDisorder, err)
	}
	return err
}

// complete adds the source columns that rows of another shape lack, as NULL.
func (up *upsert) complete(rows *datafile.Batch) *datafile.Batch {
	out := rows
	for i := range up.columns {
		f := &up.columns[i]
		if out.Column(f.Name) != nil {
			continue
		}
		if out == rows {
			out = &datafile.Batch{Names: slices.Clone(rows.Names), Cols: slices.Clone(rows.Cols)}
		}
		c := datafile.NewColumn(f.Type)
		for range rows.Rows() {
			c.AppendNull()
		}
		out.Names, out.Cols = append(out.Names, f.Name), append(out.Cols, c)
	}
	return out
}

// project returns the columns of latest, sharing their memory.
func (up *upsert) project(rows *datafile.Batch) *datafile.Batch {
	out := &datafile.Batch{}
	for i := range up.columns {
		name := up.columns[i].Name
		out.Names, out.Cols = append(out.Names, name), append(out.Cols, rows.Column(name))
	}
	return out
}

// kept is a value that an upsert takes from elsewhere.
type kept struct {
	upsert int // index into the net's upserts
	from   *datafile.Column
	row    int
}

// fill puts the values that PostgreSQL did not send into the rows to put, from
// other rows of the run or from latest. Columns of put that change are replaced.
func (up *upsert) fill(ctx context.Context, rows, put *datafile.Batch, net *batch.Net) error {
	var keys [][]byte
	var columns []string
	place := map[string]int{}
	for i := range net.Upserts {
		for _, f := range net.Upserts[i].Fill {
			if f.FromRow >= 0 {
				continue
			}
			if _, known := place[string(f.FromKey)]; !known {
				place[string(f.FromKey)] = len(keys)
				keys = append(keys, f.FromKey)
			}
			if name := up.source[f.Column]; !slices.Contains(columns, name) {
				columns = append(columns, name)
			}
		}
	}
	var old *datafile.Batch
	if len(keys) > 0 {
		var found []bool
		var err error
		if old, found, err = up.Lookup(ctx, keys, columns); err != nil {
			return err
		}
		if missing := slices.Index(found, false); missing >= 0 {
			return fmt.Errorf("%w: the old row of an update that left values unchanged", ErrRowNotFound)
		}
	}
	values := map[string][]kept{}
	for i := range net.Upserts {
		for _, f := range net.Upserts[i].Fill {
			name := up.source[f.Column]
			k := kept{upsert: i, from: rows.Column(name), row: int(f.FromRow)}
			if f.FromRow < 0 {
				k.from, k.row = old.Column(name), place[string(f.FromKey)]
			}
			values[name] = append(values[name], k)
		}
	}
	for name, kept := range values {
		c := put.Column(name)
		filled := datafile.NewColumn(c.Type)
		next := 0
		for row := range put.Rows() {
			if next < len(kept) && kept[next].upsert == row {
				filled.AppendFrom(kept[next].from, kept[next].row)
				next++
				continue
			}
			filled.AppendFrom(c, row)
		}
		put.Cols[slices.Index(put.Names, name)] = filled
	}
	return nil
}
