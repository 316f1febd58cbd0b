package deltalog

import (
	"context"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/cockroachdb/pebble/v2"
)

// Fsck compares the index with the newest version of the table that is known,
// which it is brought to before, and tells what is wrong with it. It reads the
// columns that rows are found by of all rows.
func (u *Upserter) Fsck(ctx context.Context) ([]Finding, error) {
	found, err := u.fsck(ctx)
	if err != nil {
		return found, fmt.Errorf("fsck key index: %w", err)
	}
	return found, nil
}

const rebuildIt = "close the upserter and delete its folder: it is built anew"

func (u *Upserter) fsck(ctx context.Context) ([]Finding, error) {
	if u.current != nil {
		return nil, fmt.Errorf("%w: no, one is under way", ErrSpent)
	}
	s, x := u.t.Snapshot(), u.index
	if err := x.follow(ctx, s, u.finder); err != nil {
		return nil, err
	}
	var found []Finding
	var rows int64
	for f := range s.Files() {
		id, ok := x.ids[f.Path]
		if !ok {
			found = append(found, Finding{x.dir, "the index does not know file " + f.Path, rebuildIt})
			continue
		}
		wrong, n, err := u.fsckFile(ctx, s, f, id)
		if err != nil {
			return found, err
		}
		if rows += n; wrong > 0 {
			found = append(found, Finding{x.dir, fmt.Sprintf("%d rows of %s are not found where they are", wrong, f.Path), rebuildIt})
		}
	}
	entries, err := u.countEntries(ctx, s)
	if err != nil {
		return found, err
	}
	if len(found) == 0 && entries != rows {
		found = append(found, Finding{x.dir, fmt.Sprintf("the index has %d rows, the table has %d", entries, rows), rebuildIt})
	}
	return found, nil
}

// fsckFile looks the rows of a file up and counts those that are not found.
func (u *Upserter) fsckFile(ctx context.Context, s *Snapshot, f *File, id uint32) (wrong, rows int64, err error) {
	b := &builder{x: u.index, finder: u.finder, files: u.index.files, moves: u.index.moves}
	for live, err := range s.ReadFile(ctx, f, ReadOptions{Columns: u.finder.columns}) {
		if err != nil {
			return wrong, rows, err
		}
		rows += int64(live.Rows())
		if u.finder.multiset {
			for row, at := range live.Index {
				at := location{id, uint32(at)}
				name, err := b.hashEntry(u.index.db, u.finder.name(live.Cols, row, at), at)
				if err != nil {
					return wrong, rows, err
				}
				if name == nil {
					wrong++
				}
			}
			continue
		}
		names := b.names.collect(u.finder, live.Batch)
		err := findSorted(u.index.db, len(names), func(i int) []byte { return names[i].name }, func(i int, at location, ok bool) error {
			at, ok = b.resolve(at, ok)
			if !ok || at != (location{id, uint32(live.Index[names[i].row])}) {
				wrong++
			}
			return nil
		})
		if err != nil {
			return wrong, rows, err
		}
	}
	return wrong, rows, nil
}

// countEntries counts the entries of rows that the table has.
func (u *Upserter) countEntries(ctx context.Context, s *Snapshot) (int64, error) {
	x := u.index
	hidden := map[uint32]*roaring64.Bitmap{}
	for id, k := range x.files {
		f := s.File(k.Path)
		if f == nil {
			continue
		}
		bm, err := s.ReadVector(ctx, f)
		if err != nil {
			return 0, err
		}
		hidden[id] = bm
	}
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{nameKey}, UpperBound: []byte{nameHash + 1}})
	if err != nil {
		return 0, err
	}
	defer func() { _ = it.Close() }()
	var n int64
	for ok := it.First(); ok; ok = it.Next() {
		at, err := parseEntry(it.Key(), it.Value())
		if err != nil {
			return n, err
		}
		if at, ok := x.resolve(at); ok && hidden[at.file] != nil && !hidden[at.file].Contains(uint64(at.row)) {
			n++
		}
	}
	return n, it.Error()
}
