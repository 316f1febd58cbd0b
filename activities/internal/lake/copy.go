package lake

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/batch"
	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// BeginCopy opens an incarnation for c and returns its number. Changes go to
// history alone until the copy is caught up; latest keeps its rows until then.
// Columns that cannot hold c.Table's values are replaced by others of another
// name. A second call for the same copy changes nothing; one of the same ID with
// another cut, table or number of chunks opens an incarnation of its own.
func (m *Mirror) BeginCopy(ctx context.Context, c Copy) (incarnation int64, err error) {
	v, err := m.history.refresh(ctx)
	for ; err == nil; v, err = m.history.refresh(ctx) {
		if v.copy.is(c.ID) && v.copy.start() == c.start() && v.copy.OID == c.Table.OID && v.copy.Chunks == c.Chunks {
			break
		}
		if c.ID == "" || c.Chunks < 0 {
			err = fmt.Errorf("copy %q of %d chunks: it needs a name, and chunks or none", c.ID, c.Chunks)
			break
		}
		var won bool
		if won, err = m.beginCopy(ctx, v, c); err != nil {
			break
		}
		if won {
			v, err = m.history.view()
			break
		}
	}
	if err == nil && v.key != keyNone {
		err = m.openLatest(ctx, v)
	}
	if err != nil {
		return 0, fmt.Errorf("begin copy %s of %s: %w", c.ID, m.name, err)
	}
	m.shape = c.Table
	return v.copy.Incarnation, nil
}

// start is the position of the copied rows.
func (c *Copy) start() change.Position {
	return change.Position{Epoch: c.Epoch, CommitLSN: c.Cut}
}

func (m *Mirror) beginCopy(ctx context.Context, v *view, c Copy) (won bool, err error) {
	s := m.shaper(v, c.Table.OID)
	s.fit = free
	empty := v.snap.NumFiles() == 0
	if empty {
		s.fields = nil // nothing binds us to the columns before
	}
	sh, err := s.lay(c.Table)
	if err != nil {
		return false, err
	}
	fields := restart(s.fields, c.Table, sh)
	if empty {
		fields = append(fields, batch.MetaFields()...)
	}
	number := v.state.Incarnation + 1
	commit := &deltalog.Commit{
		Read:      v.snap,
		Operation: "BEGIN COPY",
		Domains: []deltalog.Domain{
			{Name: copyDomain, Configuration: encodeDomain(copyState{
				ID: c.ID, Incarnation: number, Epoch: c.Epoch, Cut: c.Cut, CutMicros: c.CutMicros,
				OID: c.Table.OID, Chunks: c.Chunks,
			})},
			{Name: stateDomain, Configuration: encodeDomain(tableState{
				Phase: Copying, Incarnation: number, OID: c.Table.OID, Complete: v.state.Complete,
			})},
			{Name: groundDomain, Configuration: encodeDomain(c.Ground)},
		},
	}
	if want := (&schema.Schema{Fields: fields}); sh.key != v.key || !want.Equal(v.snap.Metadata().Schema) {
		setSchema(commit, want)
		commit.Metadata.Configuration[keyProperty] = sh.key
	}
	_, won, err = m.history.Commit(ctx, commit)
	return won, err
}

// ChunkDone tells whether a chunk of the current copy is done.
func (m *Mirror) ChunkDone(chunk int) bool {
	v, err := m.history.view()
	return err == nil && (v.copy.Finished || v.copy.Done.has(chunk))
}

// WriteChunk writes the rows of one chunk, from 0, of the current copy, in one
// commit. It may be called from many goroutines and workers; a chunk that is
// done already is not written again, and then rows is not called. ErrCopyGone
// when copyID is not the current copy.
func (m *Mirror) WriteChunk(ctx context.Context, copyID string, chunk int, rows func(yield func(*change.Tuple) error) error) (n, bytes int64, err error) {
	n, bytes, err = m.writeChunk(ctx, copyID, chunk, rows)
	if err != nil {
		return 0, 0, fmt.Errorf("copy chunk %d of %s: %w", chunk, m.name, err)
	}
	m.checkpoint(ctx, &m.history)
	return n, bytes, nil
}

func (m *Mirror) writeChunk(ctx context.Context, copyID string, chunk int, rows func(yield func(*change.Tuple) error) error) (n, bytes int64, err error) {
	v, err := m.history.refresh(ctx)
	if err != nil {
		return 0, 0, err
	}
	if done, err := m.chunkState(v, copyID, chunk); done || err != nil {
		n, bytes := chunkSize(v, chunk)
		return n, bytes, err
	}
	w, err := m.newChunk(ctx, v, chunk)
	if err != nil {
		return 0, 0, err
	}
	defer w.drop()
	if err := rows(w.add); err != nil {
		return 0, 0, err
	}
	if err := w.finish(); err != nil {
		return 0, 0, err
	}
	for {
		won, err := w.commit(ctx, v)
		if err != nil {
			return 0, 0, err
		}
		if won {
			w.files = nil // they belong to the table
			return w.rows, w.bytes, nil
		}
		if v, err = m.history.refresh(ctx); err != nil {
			return 0, 0, err
		}
		if done, err := m.chunkState(v, copyID, chunk); done || err != nil {
			n, bytes := chunkSize(v, chunk)
			return n, bytes, err
		}
	}
}

// chunkState tells whether a chunk is done already, or must not be.
func (m *Mirror) chunkState(v *view, copyID string, chunk int) (done bool, err error) {
	switch {
	case !v.copy.is(copyID):
		return false, fmt.Errorf("copy %s: %w: it is %s", copyID, ErrCopyGone, v.copy.ID)
	case v.copy.OID != m.shape.OID:
		return false, fmt.Errorf("copy %s: %w: it is of another table of that name", copyID, ErrCopyGone)
	case chunk < 0 || chunk >= v.copy.Chunks:
		return false, fmt.Errorf("copy %s has %d chunks", copyID, v.copy.Chunks)
	}
	return v.copy.Finished || v.copy.Done.has(chunk), nil
}

// chunkSize returns what a chunk that is done holds.
func chunkSize(v *view, chunk int) (rows, bytes int64) {
	incarnation, number := fmt.Sprint(v.copy.Incarnation), strconv.Itoa(chunk)
	for f := range v.snap.Files() {
		if f.Tags[chunkTag] == number && f.Tags[incarnationTag] == incarnation {
			rows += f.Rows
			bytes += f.Size
		}
	}
	return rows, bytes
}

// chunkBytes is how much of a chunk is held as columns before it is written.
const chunkBytes = 4 << 20

// chunkWriter writes the rows of one chunk to files.
type chunkWriter struct {
	m       *Mirror
	ctx     context.Context
	chunk   int
	copy    copyState
	pending *batch.Batch
	event   change.Event
	writer  *deltalog.FileWriter
	files   []*deltalog.File

	rows, bytes int64
}

func (m *Mirror) newChunk(ctx context.Context, v *view, chunk int) (*chunkWriter, error) {
	sh, err := m.fits(v)
	if err != nil {
		return nil, err
	}
	return &chunkWriter{
		m: m, ctx: ctx, chunk: chunk, copy: v.copy, pending: batch.New(sh.layout),
		event: change.Event{Table: m.shape, Position: v.copy.start(), Op: change.Read, CommitMicros: v.copy.CutMicros},
	}, nil
}

// add converts one row.
func (w *chunkWriter) add(t *change.Tuple) error {
	w.event.New = *t
	err := w.pending.Append(&w.event)
	if errors.Is(err, batch.ErrFull) {
		if err = w.flush(); err == nil {
			err = w.pending.Append(&w.event)
		}
	}
	if err != nil {
		return err
	}
	w.rows++
	if w.pending.Size() >= chunkBytes {
		return w.flush()
	}
	return nil
}

// flush writes the pending rows.
func (w *chunkWriter) flush() (err error) {
	if w.pending.Rows() == 0 {
		return nil
	}
	if w.writer == nil {
		l := w.pending.Layout()
		w.writer, err = w.m.history.NewFile(w.ctx, deltalog.FileOptions{
			Schema: &schema.Schema{Fields: l.HistoryFields()},
			// The file will stand in latest too: these columns are in both.
			StatsNames: statsNames(l, batch.EpochColumn, batch.CommitLSNColumn, batch.CommitTSColumn),
		})
		if err != nil {
			return err
		}
	}
	if err := w.writer.Write(w.pending.Columns()); err != nil {
		return err
	}
	w.pending.Reset()
	if w.writer.Bytes() >= w.m.lake.cfg.FileBytes {
		return w.finishFile()
	}
	return nil
}

func (w *chunkWriter) finishFile() error {
	if w.writer == nil {
		return nil
	}
	f, err := w.writer.Close()
	if err != nil {
		return err
	}
	w.writer = nil
	f.Tags = map[string]string{
		incarnationTag: strconv.FormatInt(w.copy.Incarnation, 10),
		chunkTag:       strconv.Itoa(w.chunk),
	}
	w.files = append(w.files, f)
	w.bytes += f.Size
	return nil
}

func (w *chunkWriter) finish() error {
	if err := w.flush(); err != nil {
		return err
	}
	return w.finishFile()
}

// commit makes the chunk visible in history.
func (w *chunkWriter) commit(ctx context.Context, v *view) (won bool, err error) {
	state := v.copy
	state.Done = state.Done.with(w.chunk)
	state.Rows += w.rows
	state.Bytes += w.bytes
	c := &deltalog.Commit{
		Read:      v.snap,
		Operation: "COPY",
		Params:    map[string]string{"chunk": strconv.Itoa(w.chunk)},
		Metrics:   metrics(w.files),
		Domains:   []deltalog.Domain{{Name: copyDomain, Configuration: encodeDomain(state)}},
		Add:       w.files,
	}
	// The columns may have come meanwhile, or some may have to come with this.
	staged := &Mirror{table: w.m.table, casts: w.m.casts, shape: w.m.shape}
	if w.rows > 0 {
		staged.staged.layouts = []*batch.Layout{w.pending.Layout()}
	}
	if err := staged.evolve(v, c); err != nil {
		return false, err
	}
	_, won, err = w.m.history.Commit(ctx, c)
	if errors.Is(err, deltalog.ErrUncertain) {
		w.files = nil // they may belong to the table
	}
	return won, err
}

// drop removes what was written in vain.
func (w *chunkWriter) drop() {
	if w.writer != nil {
		w.writer.Abort()
	}
	for _, f := range w.files {
		if name, err := f.Name(); err == nil {
			// What cannot be removed is left for vacuum.
			_ = w.m.history.Store().Delete(context.WithoutCancel(w.ctx), name)
		}
	}
}

// FinishCopy ends the copy once all its chunks are done: the table is catching
// up then, or live where it has no latest. One that it had while its rows had a
// key is emptied, for nothing brings it up to date any more. ErrCopyIncomplete
// when chunks are left. A second call changes nothing.
func (m *Mirror) FinishCopy(ctx context.Context, copyID string) error {
	v, err := m.history.refresh(ctx)
	for ; err == nil; v, err = m.history.refresh(ctx) {
		var done bool
		if done, err = m.finishCopy(ctx, v, copyID); done || err != nil {
			break
		}
	}
	if err == nil && v.key == keyNone {
		err = m.emptyLatest(ctx)
	}
	if err != nil {
		return fmt.Errorf("finish copy %s of %s: %w", copyID, m.name, err)
	}
	return nil
}

func (m *Mirror) finishCopy(ctx context.Context, v *view, copyID string) (done bool, err error) {
	c := v.copy
	switch {
	case !c.is(copyID):
		return false, fmt.Errorf("%w: it is %s", ErrCopyGone, c.ID)
	case c.Finished:
		return true, nil
	case c.done() < c.Chunks:
		return false, fmt.Errorf("%w: %d of %d", ErrCopyIncomplete, c.Chunks-c.done(), c.Chunks)
	}
	c.Finished, c.Done = true, nil
	state := v.state
	state.Phase = Live
	state.Complete = append(state.Complete[:len(state.Complete):len(state.Complete)],
		incarnation{Number: c.Incarnation, Epoch: c.Epoch, Cut: c.Cut, OID: c.OID})
	if over := len(state.Complete) - maxComplete; over > 0 {
		state.Complete = state.Complete[over:]
	}
	_, won, err := m.history.Commit(ctx, &deltalog.Commit{
		Read:      v.snap,
		Operation: "END COPY",
		Domains: []deltalog.Domain{
			{Name: copyDomain, Configuration: encodeDomain(c)},
			{Name: stateDomain, Configuration: encodeDomain(state)},
		},
	})
	return won, err
}
