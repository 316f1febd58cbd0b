package lake

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/batch"
	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
)

// rowShape returns the shape of m's table laid upon a version of history.
func (m *Mirror) rowShape(v *view) (rowShape, *batch.Layout, error) {
	sh, err := m.fits(v)
	if err != nil {
		return rowShape{}, nil, err
	}
	return rowShape{fields: sh.fields, key: m.shape.Key}, sh.layout, nil
}

// SourceRows collects the rows that each yields to it, in text or binary, of
// m's table in its present shape, into a temporary directory below dir.
func (l *Lake) SourceRows(ctx context.Context, m *Mirror, dir string, each func(yield func(*change.Tuple) error) error) (*Rows, error) {
	v, err := m.history.view()
	if err != nil {
		return nil, err
	}
	s, layout, err := m.rowShape(v)
	if err != nil {
		return nil, fmt.Errorf("collect source rows of %s: %w", m.name, err)
	}
	return collect(ctx, dir, s, false, "collect source rows of "+m.name, func(r *Rows) error {
		b := batch.New(layout)
		ev := change.Event{Table: m.shape, Op: change.Read}
		n := 0
		err := each(func(t *change.Tuple) error {
			if n++; n%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			ev.New = *t
			if err := b.Append(&ev); err != nil {
				return err
			}
			if b.Rows() < 1024 && b.Size() < chunkBytes {
				return nil
			}
			defer b.Reset()
			return r.addAll(b.Columns())
		})
		if err != nil {
			return err
		}
		return r.addAll(b.Columns())
	})
}

// LatestRows collects the current rows of latest and the position they stand
// for, into a temporary directory below dir. ErrNotCopied while latest holds
// none of the current incarnation.
func (m *Mirror) LatestRows(ctx context.Context, dir string) (*Rows, change.Position, error) {
	act := "collect rows of latest of " + m.name
	latest := m.latest.Load()
	if latest == nil {
		return nil, change.Position{}, fmt.Errorf("%s: %w", act, ErrNotCopied)
	}
	hv, err := m.history.refresh(ctx)
	if err != nil {
		return nil, change.Position{}, err
	}
	lv, err := latest.refresh(ctx)
	if err != nil {
		return nil, change.Position{}, err
	}
	if lv.state.Incarnation == 0 || lv.state.Incarnation != hv.state.Incarnation {
		return nil, change.Position{}, fmt.Errorf("%s: %w", act, ErrNotCopied)
	}
	s, _, err := m.rowShape(hv)
	if err != nil {
		return nil, change.Position{}, fmt.Errorf("%s: %w", act, err)
	}
	r, err := collect(ctx, dir, s, false, act, func(r *Rows) error {
		return addBatches(r, lv.snap.Read(ctx, deltalog.ReadOptions{Columns: present(lv, s)}))
	})
	return r, lv.position, err
}

// Rebuild computes m's table from its history: the newest complete incarnation
// and the changes before asOf. The rows as of an LSN are those before ordinal 0
// of it; the rows up to and including a position p are those before After(p).
// Memory is bounded; dir is a directory on local disk.
//
// Every change must follow from those before it: an insert of a row that is
// there, or a delete of one that is not, is ErrDisorder. ErrNotCopied when no
// complete copy reaches back to asOf.
func (l *Lake) Rebuild(ctx context.Context, m *Mirror, asOf change.Position, dir string) (*Rows, error) {
	act := "rebuild " + m.name
	v, err := m.history.refresh(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", act, err)
	}
	inc, ok := v.state.newest(asOf)
	if !ok || inc.OID != m.shape.OID {
		return nil, fmt.Errorf("%s as of %s: %w", act, asOf, ErrNotCopied)
	}
	s, _, err := m.rowShape(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", act, err)
	}
	return collect(ctx, dir, s, len(s.key) > 0, act, func(r *Rows) error {
		b := rebuild{rows: r, asOf: asOf}
		if err := b.copied(ctx, m.copied(ctx, v, inc.Number, present(v, s))); err != nil {
			return err
		}
		columns := append(present(v, s),
			batch.OpColumn, batch.EpochColumn, batch.CommitLSNColumn, batch.OrdinalColumn, batch.UnchangedColumn)
		for rows, err := range m.changes(ctx, v, inc.start(), columns) {
			if err == nil {
				err = b.apply(rows)
			}
			if err != nil || b.done {
				return err
			}
		}
		return nil
	})
}

// rebuild applies changes one by one, knowing nothing of how batches fold.
type rebuild struct {
	rows *Rows
	asOf change.Position
	done bool // asOf was reached

	gone   []byte // the row that the last change, a delete, took away
	goneAt change.Position
}

// copied adds the rows of a copy, and makes sure that each key came once.
func (b *rebuild) copied(ctx context.Context, batches iter.Seq2[*datafile.Batch, error]) error {
	n := int64(0)
	for rows, err := range batches {
		if err != nil {
			return err
		}
		n += int64(rows.Rows())
		if err := b.rows.addAll(rows); err != nil {
			return err
		}
	}
	if !b.rows.byKey {
		return nil
	}
	if err := b.rows.finish(ctx); err != nil {
		return err
	}
	if b.rows.count != n {
		return fmt.Errorf("%w: %d copied rows have %d keys", ErrDisorder, n, b.rows.count)
	}
	return nil
}

func (b *rebuild) apply(rows *datafile.Batch) error {
	at, err := positionsOf(rows)
	if err != nil {
		return err
	}
	cols, key, err := b.rows.shape.columns(rows)
	if err != nil {
		return err
	}
	unchanged := rows.Column(batch.UnchangedColumn)
	r := b.rows
	for row := range rows.Rows() {
		here := at.at(row)
		if !here.Before(b.asOf) {
			b.done = true
			return nil
		}
		r.key = appendRow(r.key[:0], key, row)
		r.row = appendRow(r.row[:0], cols, row)
		var op change.Op
		if text := at.op.At(row); len(text) == 1 {
			op = change.Op(text[0])
		}
		if err := b.change(here, op, unchanged, row); err != nil {
			return fmt.Errorf("change at %s: %w", here, err)
		}
	}
	return nil
}

// change applies one change, whose key and row the rows hold.
func (b *rebuild) change(here change.Position, op change.Op, unchanged *datafile.Column, row int) error {
	r := b.rows
	base := b.gone
	pair := op == change.Update && base != nil && here == b.goneAt
	b.gone = nil
	if op == change.Truncate {
		return r.clear()
	}
	if !r.byKey {
		return b.changeUnkeyed(here, op, pair)
	}
	old, found, err := r.get(r.key)
	if err != nil {
		return err
	}
	switch op {
	case change.Create:
		if found {
			return fmt.Errorf("%w: insert of a row that is there", ErrDisorder)
		}
	case change.Update:
		if found == pair {
			return fmt.Errorf("%w: update to a row that is there, or of one that is not", ErrDisorder)
		}
		if !pair {
			base = old
		}
		if r.row, err = keep(r.row, base, r.shape, unchanged, row); err != nil {
			return err
		}
	case change.Delete:
		if !found {
			return fmt.Errorf("%w: delete of a row that is not there", ErrDisorder)
		}
		b.gone, b.goneAt = old, here
		return r.remove(r.key)
	default:
		return fmt.Errorf("%w: operation %q", ErrDisorder, byte(op))
	}
	return r.put(r.key, r.row)
}

// changeUnkeyed applies a change to rows without key: an update is the delete of
// the old row before it and the insert of the new one.
func (b *rebuild) changeUnkeyed(here change.Position, op change.Op, pair bool) error {
	r := b.rows
	switch {
	case op == change.Create, pair:
		return r.put(r.key, r.row)
	case op == change.Delete:
		found, err := r.takeOne(r.row)
		if err == nil && !found {
			err = fmt.Errorf("%w: delete of a row that is not there", ErrDisorder)
		}
		b.gone, b.goneAt = r.row, here
		return err
	}
	return fmt.Errorf("%w: operation %q", ErrDisorder, byte(op))
}

// keep returns a row with the values that PostgreSQL did not send taken from
// the row before.
func keep(row, before []byte, s rowShape, unchanged *datafile.Column, at int) ([]byte, error) {
	if !unchanged.Valid[at] {
		return row, nil
	}
	names := map[string]bool{}
	for i := unchanged.Off[at]; i < unchanged.Off[at+1]; i++ {
		names[string(unchanged.Elem.At(int(i)))] = true
	}
	out := make([]byte, 0, len(row)+len(before))
	for i := range s.fields {
		var value, old []byte
		var errs [2]error
		value, row, errs[0] = cutValue(row)
		old, before, errs[1] = cutValue(before)
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
		if names[s.fields[i].Name] {
			value = old
		}
		out = append(out, value...)
	}
	return out, nil
}

// present returns the names of the shape's columns that a version has. Those
// that it lacks were never set: they are NULL.
func present(v *view, s rowShape) []string {
	var names []string
	for i := range s.fields {
		if v.snap.Metadata().Schema.Field(s.fields[i].Name) >= 0 {
			names = append(names, s.fields[i].Name)
		}
	}
	return names
}

// collect makes rows, has fill add them, and counts them.
func collect(ctx context.Context, dir string, s rowShape, byKey bool, act string, fill func(*Rows) error) (*Rows, error) {
	r, err := newRows(dir, s, byKey)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", act, err)
	}
	if err = fill(r); err == nil {
		err = r.finish(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", act, err), r.Close())
	}
	return r, nil
}

func addBatches(r *Rows, batches iter.Seq2[*datafile.Batch, error]) error {
	for b, err := range batches {
		if err == nil {
			err = r.addAll(b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
