package deltalog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

// TakeOne takes one row away for each of rows, equal to it in all columns that
// rows are found by. A row that is not there is ErrRowNotFound. Rows with a key
// are taken by Delete.
//
// The index knows rows by a hash; what it finds is read and compared in full.
func (b *Upsert) TakeOne(ctx context.Context, rows *datafile.Batch) error {
	return b.fed(ctx, "take", func() error {
		if !b.u.finder.multiset {
			return fmt.Errorf("%w: rows have a key", ErrInvalid)
		}
		cols, err := b.foundColumns(rows)
		if err != nil {
			return err
		}
		return b.take(ctx, cols, rows.Rows())
	})
}

// takenRows are rows that were taken of what was there before, for as long as
// they are few: they are taken anew where others changed the table meanwhile.
type takenRows struct {
	rows  *datafile.Batch // of the columns that rows are found by
	names [][]byte        // of their entries
	many  bool            // they are no longer held
}

func (t *takenRows) add(cols []*datafile.Column, row int, name []byte, most int) {
	if t.many {
		return
	}
	if t.rows == nil {
		t.rows = &datafile.Batch{}
		for _, c := range cols {
			t.rows.Cols = append(t.rows.Cols, datafile.NewColumn(c.Type))
		}
	}
	for i, c := range cols {
		t.rows.Cols[i].AppendFrom(c, row)
	}
	t.names = append(t.names, bytes.Clone(name))
	if len(t.names)%1024 == 0 && t.rows.SizeBytes() > most {
		*t = takenRows{many: true}
	}
}

type rowHash struct{ hi, lo uint64 }

func (h rowHash) compare(o rowHash) int {
	return cmp.Or(cmp.Compare(h.hi, o.hi), cmp.Compare(h.lo, o.lo))
}

// wantedHash is rows of one hash that are to be taken.
type wantedHash struct {
	hash  rowHash
	rows  []int32 // those that have not been found
	after []byte  // the entry that was looked at last; nil means none
}

// candidate is a row that has the hash of one that is wanted.
type candidate struct {
	want *wantedHash
	name []byte
	at   location
}

// take takes n rows.
func (b *Upsert) take(ctx context.Context, cols []*datafile.Column, n int) error {
	for from := 0; from < n; from += pickRows {
		list := b.hashes(cols, from, min(n, from+pickRows))
		for len(list) > 0 {
			found, err := b.candidates(list)
			if err != nil {
				return err
			}
			if err := b.compare(ctx, cols, found); err != nil {
				return err
			}
			list = slices.DeleteFunc(list, func(w *wantedHash) bool { return len(w.rows) == 0 })
		}
	}
	return nil
}

// hashes returns some rows by their hashes, in the order of the index.
func (b *Upsert) hashes(cols []*datafile.Column, from, to int) []*wantedHash {
	type hashed struct {
		rowHash
		row int32
	}
	all := make([]hashed, 0, to-from)
	for row := from; row < to; row++ {
		hi, lo := b.u.finder.hash(cols, row)
		all = append(all, hashed{rowHash{hi, lo}, int32(row)})
	}
	slices.SortFunc(all, func(a, b hashed) int { return a.compare(b.rowHash) })
	var list []*wantedHash
	for _, h := range all {
		if n := len(list); n == 0 || list[n-1].hash != h.rowHash {
			list = append(list, &wantedHash{hash: h.rowHash})
		}
		w := list[len(list)-1]
		w.rows = append(w.rows, h.row)
	}
	return list
}

// candidates returns as many of the next rows of each hash as are wanted.
func (b *Upsert) candidates(list []*wantedHash) ([]candidate, error) {
	it, err := b.batch.NewIter(&pebble.IterOptions{LowerBound: []byte{nameHash}, UpperBound: []byte{nameHash + 1}})
	if err != nil {
		return nil, fmt.Errorf("read row index: %w", err)
	}
	defer func() { _ = it.Close() }()
	var found []candidate
	for _, w := range list {
		prefix := appendHash(nil, w.hash.hi, w.hash.lo)
		seek := prefix
		if w.after != nil {
			seek = append(slices.Clone(w.after), 0)
		}
		left := len(w.rows)
		for ok := it.SeekGE(seek); ok && left > 0 && bytes.HasPrefix(it.Key(), prefix); ok = it.Next() {
			w.after = append(w.after[:0], it.Key()...)
			at, err := parseHashEntry(it.Key())
			if err != nil {
				return nil, err
			}
			if at, live := b.locate(at); live {
				found = append(found, candidate{w, bytes.Clone(it.Key()), at})
				left--
			}
		}
		if err := it.Error(); err != nil {
			return nil, fmt.Errorf("read row index: %w", err)
		}
		if left > 0 {
			return nil, ErrRowNotFound
		}
	}
	return found, nil
}

// compare reads candidates and takes those that are wanted.
func (b *Upsert) compare(ctx context.Context, cols []*datafile.Column, found []candidate) error {
	want, err := b.schema.Select(b.u.finder.columns...)
	if err != nil {
		return err
	}
	byFile := map[uint32][]wanted{}
	for i, c := range found {
		byFile[c.at.file] = append(byFile[c.at.file], wanted{int64(c.at.row), i})
	}
	rows, place := datafile.NewBatch(want), make([]int32, len(found))
	for file, list := range byFile {
		slices.SortFunc(list, func(a, b wanted) int { return cmp.Compare(a.row, b.row) })
		if err := b.fetch(ctx, rows, want, file, list, place); err != nil {
			return err
		}
	}
	for i, c := range found {
		n := slices.IndexFunc(c.want.rows, func(row int32) bool {
			return equalRows(cols, int(row), rows.Cols, int(place[i]))
		})
		if n < 0 {
			continue
		}
		if !b.own(c.at.file) {
			b.taken.add(cols, int(c.want.rows[n]), c.name, b.u.o.RecentBytes)
		}
		c.want.rows = slices.Delete(c.want.rows, n, n+1)
		b.bury(c.at)
		if err := b.batch.Delete(c.name, nil); err != nil {
			return err
		}
	}
	return nil
}

func equalRows(a []*datafile.Column, row int, b []*datafile.Column, other int) bool {
	for i := range a {
		if !a[i].Equal(row, b[i], other) {
			return false
		}
	}
	return true
}

// retake takes rows anew, one for each that was taken of what was there before:
// where the same rows are still there, those; for the others, equal ones.
func (b *Upsert) retake(ctx context.Context) error {
	t := b.taken
	b.taken = takenRows{}
	if t.many {
		return fmt.Errorf("%w: too many rows were taken to take them again", ErrConflict)
	}
	missing := []int32{}
	for i, name := range t.names {
		_, closer, err := b.u.index.db.Get(name)
		if err == nil {
			_ = closer.Close()
			at, err := parseHashEntry(name)
			if err != nil {
				return err
			}
			if at, ok := b.u.index.resolve(at); ok {
				b.bury(at)
				b.taken.add(t.rows.Cols, i, name, b.u.o.RecentBytes)
				continue
			}
		} else if !errors.Is(err, pebble.ErrNotFound) {
			return fmt.Errorf("read row index: %w", err)
		}
		missing = append(missing, int32(i))
	}
	if len(missing) == 0 {
		return nil
	}
	err := b.take(ctx, t.rows.Gather(missing).Cols, len(missing))
	if errors.Is(err, ErrRowNotFound) {
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return err
}
