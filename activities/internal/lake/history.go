package lake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/batch"
	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// The tags of history's files. A file without them is read to learn what it
// holds.
const (
	firstTag       = "millrace.first" // position of the first change
	lastTag        = "millrace.last"  // position of the last change
	incarnationTag = "millrace.incarnation"
	chunkTag       = "millrace.chunk" // number of the chunk that copied the rows
)

// staged are data files of history that wait for the commit that makes them
// visible.
type staged struct {
	layouts []*batch.Layout
	writer  *fileWriter
	files   []*deltalog.File
	rows    int64
	last    change.Position
}

// fileWriter fills one data file of changes.
type fileWriter struct {
	*deltalog.FileWriter
	layout      *batch.Layout
	first, last change.Position
}

// drop forgets what was staged. Files that were finished stay behind, for
// vacuum.
func (s *staged) drop() {
	if s.writer != nil {
		s.writer.Abort()
	}
	*s = staged{}
}

// Staged returns how many rows wait for Commit.
func (m *Mirror) Staged() int64 { return m.staged.rows }

// Stage writes the rows of b to a data file that the next Commit makes visible.
// A transaction larger than memory is staged piece by piece. The caller may
// reset b afterwards.
func (m *Mirror) Stage(ctx context.Context, b *batch.Batch) error {
	v, err := m.unmoved()
	if err == nil {
		err = m.stage(ctx, v, b)
	}
	if err != nil {
		m.staged.drop()
		return fmt.Errorf("stage changes of %s: %w", m.name, err)
	}
	return nil
}

// unmoved returns what history says, unless its position is not where this
// handle left it.
func (m *Mirror) unmoved() (*view, error) {
	v, err := m.history.view()
	if err == nil && v.position != m.fence {
		err = fmt.Errorf("%w: at %s, not %s", ErrFenced, v.position, m.fence)
	}
	return v, err
}

func (m *Mirror) stage(ctx context.Context, v *view, b *batch.Batch) error {
	after := v.position
	if after.Before(m.staged.last) {
		after = m.staged.last
	}
	rows, first, err := unapplied(b, after)
	if err != nil || rows == nil {
		return err
	}
	s := &m.staged
	if s.writer != nil && s.writer.layout != b.Layout() {
		if err := m.finishFile(); err != nil {
			return err
		}
	}
	if s.writer == nil {
		fields := b.Layout().HistoryFields()
		w, err := m.history.NewFile(ctx, deltalog.FileOptions{
			Schema:     &schema.Schema{Fields: fields},
			StatsNames: statsNames(b.Layout(), batch.EpochColumn, batch.CommitLSNColumn, batch.OrdinalColumn, batch.CommitTSColumn),
		})
		if err != nil {
			return err
		}
		s.writer = &fileWriter{FileWriter: w, layout: b.Layout(), first: first}
		if !slices.Contains(s.layouts, b.Layout()) {
			s.layouts = append(s.layouts, b.Layout())
		}
	}
	if err := s.writer.Write(rows); err != nil {
		return err
	}
	s.writer.last, s.last = b.Last(), b.Last()
	s.rows += int64(rows.Rows())
	if s.writer.Bytes() >= m.lake.cfg.FileBytes {
		return m.finishFile()
	}
	return nil
}

// finishFile ends the file that is being written.
func (m *Mirror) finishFile() error {
	w := m.staged.writer
	if w == nil {
		return nil
	}
	m.staged.writer = nil
	f, err := w.Close()
	if err != nil {
		return err
	}
	f.Tags = map[string]string{firstTag: encodePosition(w.first), lastTag: encodePosition(w.last)}
	m.staged.files = append(m.staged.files, f)
	return nil
}

// statsColumns is how many columns besides the key have statistics.
const statsColumns = 8

// statsNames names the columns that have statistics: the key, the first ones,
// and more.
func statsNames(l *batch.Layout, more ...string) []string {
	names := l.KeyNames()
	for i := range l.Fields {
		if i < statsColumns && !slices.Contains(names, l.Fields[i].Name) {
			names = append(names, l.Fields[i].Name)
		}
	}
	return append(names, more...)
}

// positions reads the positions of history-shaped rows.
type positions struct{ op, epoch, lsn, ordinal *datafile.Column }

func positionsOf(b *datafile.Batch) (positions, error) {
	cols, err := b.Columns([]string{batch.OpColumn, batch.EpochColumn, batch.CommitLSNColumn, batch.OrdinalColumn})
	if err != nil {
		return positions{}, err
	}
	return positions{cols[0], cols[1], cols[2], cols[3]}, nil
}

func (p positions) at(row int) change.Position {
	return change.Position{
		Epoch:     uint32(p.epoch.I64[row]),
		CommitLSN: change.LSN(p.lsn.I64[row]),
		Ordinal:   uint64(p.ordinal.I64[row]),
	}
}

// is tells whether a row's operation is op.
func (p positions) is(row int, op change.Op) bool {
	b := p.op.At(row)
	return len(b) == 1 && b[0] == byte(op)
}

// firstAfter returns the first row after a position, of rows in order.
func (p positions) firstAfter(after change.Position) int {
	return sort.Search(p.op.Len(), func(row int) bool { return after.Before(p.at(row)) })
}

// unapplied returns the rows of b after a position, and where they begin; nil
// when there are none.
func unapplied(b *batch.Batch, after change.Position) (*datafile.Batch, change.Position, error) {
	if b == nil || b.Rows() == 0 || b.Last().Compare(after) <= 0 {
		return nil, change.Position{}, nil
	}
	rows := b.Columns()
	if after.Before(b.First()) {
		return rows, b.First(), nil
	}
	at, err := positionsOf(rows)
	if err != nil {
		return nil, change.Position{}, err
	}
	from := at.firstAfter(after)
	return between(rows, from, rows.Rows()), at.at(from), nil
}

// between returns copies of some consecutive rows.
func between(b *datafile.Batch, from, to int) *datafile.Batch {
	rows := make([]int32, 0, to-from)
	for i := from; i < to; i++ {
		rows = append(rows, int32(i))
	}
	return b.Gather(rows)
}

// Commit makes what was staged and then the rows of b visible in one commit of
// history, less those at or before Applied, and, where the table is live,
// applies them to latest. The last row must end its transaction. upTo is how far
// the table is known to be complete, at least the last row's position; the zero
// Position means just that. Without rows nothing is written.
//
// After ErrFenced nothing of b or of what was staged is visible, and the handle
// is of no use before Refresh. Any other error leaves that open: Refresh tells
// by Applied. b may be nil.
func (m *Mirror) Commit(ctx context.Context, b *batch.Batch, upTo change.Position) (Committed, error) {
	var done Committed
	run, err := m.commitHistory(ctx, b, upTo, &done)
	if err != nil {
		m.staged.drop()
		return Committed{}, fmt.Errorf("commit changes of %s to history: %w", m.name, err)
	}
	if done.Rows == 0 {
		return done, nil
	}
	if err := m.follow(ctx, run, &done); err != nil {
		return done, fmt.Errorf("apply changes of %s to latest: %w", m.name, err)
	}
	return done, nil
}

// run is a piece of history that was just committed.
type run struct {
	oid uint32
	// before and to are the positions of history before and after it.
	before, to change.Position
	// rows holds all of it, unless some was staged.
	rows *datafile.Batch
}

func (m *Mirror) commitHistory(ctx context.Context, b *batch.Batch, upTo change.Position, done *Committed) (run, error) {
	m.streaming.Lock()
	defer m.streaming.Unlock()
	v, err := m.unmoved()
	if err != nil {
		return run{}, err
	}
	r := run{oid: m.shape.OID, before: v.position}
	s := &m.staged
	if b != nil && b.Rows() > 0 {
		whole := s.rows == 0
		if err := m.stage(ctx, v, b); err != nil {
			return r, err
		}
		if r.oid = b.Layout().Table.OID; whole {
			r.rows = b.Columns()
		}
	}
	if err := m.finishFile(); err != nil {
		return r, err
	}
	if len(s.files) == 0 {
		return r, nil
	}
	if r.to = cmp.Or(upTo, s.last); r.to.Before(s.last) {
		return r, fmt.Errorf("the table is said to be complete up to %s, its last change is at %s", r.to, s.last)
	}
	for won := false; !won; {
		c := &deltalog.Commit{
			Read:        v.snap,
			Operation:   "STREAMING UPDATE",
			Metrics:     metrics(s.files),
			Txns:        []deltalog.Txn{m.txn(r.to)},
			Domains:     []deltalog.Domain{{Name: positionDomain, Configuration: encodeDomain(r.to)}},
			Add:         s.files,
			BlindAppend: true,
		}
		if err := m.evolve(v, c); err != nil {
			return r, err
		}
		if _, won, err = m.history.Commit(ctx, c); err != nil {
			return r, err
		}
		if won {
			break
		}
		// A copy may have committed, or another worker done this work.
		if _, err := m.history.refresh(ctx); err != nil {
			return r, err
		}
		if v, err = m.unmoved(); err != nil {
			return r, err
		}
	}
	m.fence = r.to
	done.Rows, done.Files, done.Commits = s.rows, len(s.files), 1
	for _, f := range s.files {
		done.Bytes += f.Size
	}
	m.staged = staged{}
	return r, nil
}

// metrics says what files add, in the words that other software uses.
func metrics(files []*deltalog.File) map[string]string {
	var rows, bytes int64
	for _, f := range files {
		rows, bytes = rows+f.Rows, bytes+f.Size
	}
	return map[string]string{
		"numFiles":       strconv.Itoa(len(files)),
		"numOutputRows":  strconv.FormatInt(rows, 10),
		"numOutputBytes": strconv.FormatInt(bytes, 10),
	}
}

// txn is the token that a commit up to a position carries.
func (t *table) txn(to change.Position) deltalog.Txn {
	return deltalog.Txn{AppID: t.app + "/e" + strconv.FormatUint(uint64(to.Epoch), 10), Version: int64(to.CommitLSN)}
}

// evolve has the commit add the columns that staged rows need, and checks that
// the columns they were written to are still the right ones.
func (m *Mirror) evolve(v *view, c *deltalog.Commit) error {
	fields := v.fields()
	for _, l := range m.staged.layouts {
		s := m.shaper(v, l.Table.OID)
		s.fields = fields
		sh, err := s.lay(l.Table)
		if err != nil {
			return err
		}
		if sh.stale && !m.staged.last.Before(v.copy.start()) {
			return fmt.Errorf("%s: %w: the shape is from before the copy, the change at %s is not",
				l.Table, ErrSchemaIncompatible, m.staged.last)
		}
		for i := range l.Fields {
			if l.Fields[i].Name != sh.fields[i].Name || !l.Fields[i].Type.Equal(sh.fields[i].Type) {
				return fmt.Errorf("%w: column %q is kept elsewhere now", ErrFenced, l.Table.Columns[i].Name)
			}
		}
		if sh.missing {
			fields = extend(fields, sh.fields...)
			setSchema(c, &schema.Schema{Fields: fields})
		}
	}
	return nil
}

// setSchema has a commit change the schema, and the protocol where it must.
func setSchema(c *deltalog.Commit, s *schema.Schema) {
	if c.Metadata == nil {
		c.Metadata = c.Read.Metadata().Clone()
	}
	c.Metadata.Schema = s
	if p := c.Read.Protocol().For(c.Metadata); p != c.Read.Protocol() {
		c.Protocol = p
	}
}

// checkpoint writes a checkpoint when one is due. The commits are durable
// without: a failure is worth a line, not an error.
func (t *table) checkpoint(ctx context.Context, s *side) {
	if !s.CheckpointDue() {
		return
	}
	if err := s.Checkpoint(ctx); err != nil {
		t.lake.cfg.Log.WarnContext(ctx, "checkpoint not written", "table", s.Store().URI(), "error", err)
	}
}

// encodePosition writes a position as a tag.
func encodePosition(p change.Position) string {
	return fmt.Sprintf("%d/%d/%d", p.Epoch, uint64(p.CommitLSN), p.Ordinal)
}

// decodePosition reads what encodePosition wrote.
func decodePosition(s string) (change.Position, error) {
	epoch, rest, _ := strings.Cut(s, "/")
	lsn, ordinal, _ := strings.Cut(rest, "/")
	var n [3]uint64
	var errs [3]error
	n[0], errs[0] = strconv.ParseUint(epoch, 10, 32)
	n[1], errs[1] = strconv.ParseUint(lsn, 10, 64)
	n[2], errs[2] = strconv.ParseUint(ordinal, 10, 64)
	if err := errors.Join(errs[:]...); err != nil {
		return change.Position{}, fmt.Errorf("read position %q: %w", s, err)
	}
	return change.Position{Epoch: uint32(n[0]), CommitLSN: change.LSN(n[1]), Ordinal: n[2]}, nil
}

// piece is a file of changes and what it spans.
type piece struct {
	file        *deltalog.File
	first, last change.Position
}

// pieces returns the files that hold changes after a position, in order. Files
// that overlap are ErrDisorder.
func (t *table) pieces(ctx context.Context, v *view, after change.Position) ([]piece, error) {
	var out []piece
	for f := range v.snap.Files() {
		p, err := t.span(ctx, v, f)
		if err != nil {
			return nil, err
		}
		if after.Before(p.last) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b piece) int { return a.first.Compare(b.first) })
	for i := 1; i < len(out); i++ {
		if !out[i-1].last.Before(out[i].first) {
			return nil, fmt.Errorf("%w: files %s and %s overlap at %s", ErrDisorder, out[i-1].file.Path, out[i].file.Path, out[i].first)
		}
	}
	return out, nil
}

// span tells which changes a file holds: none leave last zero.
func (t *table) span(ctx context.Context, v *view, f *deltalog.File) (piece, error) {
	p := piece{file: f}
	if _, copied := f.Tags[chunkTag]; copied {
		return p, nil
	}
	first, last := f.Tags[firstTag], f.Tags[lastTag]
	if first != "" && last != "" {
		var errs [2]error
		p.first, errs[0] = decodePosition(first)
		p.last, errs[1] = decodePosition(last)
		return p, errors.Join(errs[:]...)
	}
	// Another writer made this file of ours.
	o := deltalog.ReadOptions{Columns: []string{batch.OpColumn, batch.EpochColumn, batch.CommitLSNColumn, batch.OrdinalColumn}}
	for live, err := range v.snap.ReadFile(ctx, f, o) {
		if err != nil {
			return p, err
		}
		at, err := positionsOf(live.Batch)
		if err != nil {
			return p, err
		}
		for row := range live.Rows() {
			if at.is(row, change.Read) {
				continue
			}
			here := at.at(row)
			if p.first.IsZero() || here.Before(p.first) {
				p.first = here
			}
			if p.last.Before(here) {
				p.last = here
			}
		}
	}
	return p, nil
}

// batchBytes is about how much memory a batch that is read may take.
const batchBytes = 16 << 20

// batchRows is how many rows of a file to read at once. Rows compress to some
// fraction of their size in memory.
func (l *Lake) batchRows(f *deltalog.File) int {
	if l.readRows > 0 {
		return l.readRows
	}
	if f.Rows <= 0 {
		return 1024
	}
	width := max(8*f.Size/f.Rows, 1)
	return int(min(max(batchBytes/width, 16), 16384))
}

// changes yields the changes of a version of history after a position, in
// order, both rows of one position together. The columns are the named ones and
// those that hold positions. A batch is valid until the next iteration. Changes
// out of order are ErrDisorder.
func (t *table) changes(ctx context.Context, v *view, after change.Position, columns []string) iter.Seq2[*datafile.Batch, error] {
	return func(yield func(*datafile.Batch, error) bool) {
		pieces, err := t.pieces(ctx, v, after)
		if err != nil {
			yield(nil, err)
			return
		}
		o := orderly{after: after, before: after}
		for _, p := range pieces {
			options := deltalog.ReadOptions{Columns: columns, BatchRows: t.lake.batchRows(p.file)}
			for live, err := range v.snap.ReadFile(ctx, p.file, options) {
				var rows *datafile.Batch
				if err == nil {
					rows, err = o.next(live.Batch)
				}
				if err != nil {
					yield(nil, fmt.Errorf("read history of %s: %w", t.name, err))
					return
				}
				if rows.Rows() > 0 && !yield(rows, nil) {
					return
				}
			}
			if rows := o.flush(); rows != nil && !yield(rows, nil) {
				return
			}
		}
	}
}

// orderly passes batches of changes on: without rows that are copied or not
// wanted, checked for order, and with the two rows of a changed identity in one
// batch.
type orderly struct {
	after  change.Position // of wanted rows
	before change.Position // of the row before
	delete bool            // the row before was a delete
	held   *datafile.Batch // a delete that may be the first of two rows
}

func (o *orderly) next(b *datafile.Batch) (*datafile.Batch, error) {
	at, err := positionsOf(b)
	if err != nil {
		return nil, err
	}
	keep := make([]int32, 0, b.Rows())
	for row := range b.Rows() {
		here := at.at(row)
		if at.is(row, change.Read) || here.Compare(o.after) <= 0 {
			continue
		}
		pair := o.delete && here == o.before && at.is(row, change.Update)
		if !o.before.Before(here) && !pair {
			return nil, fmt.Errorf("%w: change at %s after %s", ErrDisorder, here, o.before)
		}
		o.before, o.delete = here, at.is(row, change.Delete)
		keep = append(keep, int32(row))
	}
	if len(keep) == 0 {
		return &datafile.Batch{}, nil
	}
	var hold []int32
	if o.delete {
		keep, hold = keep[:len(keep)-1], keep[len(keep)-1:]
	}
	rows := b
	if len(keep) < b.Rows() {
		rows = b.Gather(keep)
	}
	if o.held != nil {
		joined := o.held
		for row := range rows.Rows() {
			joined.AppendRow(rows, row)
		}
		rows, o.held = joined, nil
	}
	if hold != nil {
		o.held = b.Gather(hold)
	}
	return rows, nil
}

// flush returns the row that was held back, if any.
func (o *orderly) flush() *datafile.Batch {
	held := o.held
	o.held = nil
	return held
}

// copied yields the copied rows of a complete incarnation.
func (t *table) copied(ctx context.Context, v *view, number int64, columns []string) iter.Seq2[*datafile.Batch, error] {
	return func(yield func(*datafile.Batch, error) bool) {
		want := strconv.FormatInt(number, 10)
		for f := range v.snap.Files() {
			_, chunk := f.Tags[chunkTag]
			if chunk && f.Tags[incarnationTag] != want || !chunk && f.Tags[firstTag] != "" {
				continue
			}
			options := deltalog.ReadOptions{Columns: append(slices.Clone(columns), batch.OpColumn, batch.IncarnationColumn), BatchRows: t.lake.batchRows(f)}
			for live, err := range v.snap.ReadFile(ctx, f, options) {
				if err != nil {
					yield(nil, fmt.Errorf("read copied rows of %s: %w", t.name, err))
					return
				}
				rows := live.Batch
				if !chunk {
					rows = copiedRows(rows, number)
				}
				if rows.Rows() > 0 && !yield(rows, nil) {
					return
				}
			}
		}
	}
}

// copiedRows returns the copied rows of an incarnation.
func copiedRows(b *datafile.Batch, number int64) *datafile.Batch {
	op, incarnation := b.Column(batch.OpColumn), b.Column(batch.IncarnationColumn)
	var keep []int32
	for row := range b.Rows() {
		if string(op.At(row)) == string(change.Read) && incarnation.I64[row] == number {
			keep = append(keep, int32(row))
		}
	}
	return b.Gather(keep)
}
