package deltalog

import (
	"context"
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// Lookup returns the rows with these keys as this upsert has made them: row i
// is that of keys[i], and all NULL where found[i] is false. Only columns of those
// names are read. The caller owns the result.
func (b *Upsert) Lookup(ctx context.Context, keys [][]byte, columns []string) (rows *datafile.Batch, found []bool, err error) {
	err = b.fed(ctx, "look up rows", func() error {
		rows, found, err = b.lookup(ctx, keys, columns)
		return err
	})
	return rows, found, err
}

// wanted is a row to be read, and for which key.
type wanted struct {
	row int64
	key int
}

func (b *Upsert) lookup(ctx context.Context, keys [][]byte, columns []string) (*datafile.Batch, []bool, error) {
	if b.u.finder.multiset {
		return nil, nil, fmt.Errorf("%w: rows have no key", ErrInvalid)
	}
	want, err := b.schema.Select(columns...)
	if err != nil {
		return nil, nil, err
	}
	found := make([]bool, len(keys))
	byFile := map[uint32][]wanted{}
	err = b.find(keys, b.sorted(keys), func(i int32, at location) {
		found[i] = true
		byFile[at.file] = append(byFile[at.file], wanted{int64(at.row), int(i)})
	})
	if err != nil {
		return nil, nil, err
	}
	// The rows come file by file; place says where each key's is.
	all := datafile.NewBatch(want)
	place := make([]int32, len(keys))
	for file, list := range byFile {
		slices.SortFunc(list, func(a, b wanted) int { return int(a.row - b.row) })
		if err := b.fetch(ctx, all, want, file, list, place); err != nil {
			return nil, nil, err
		}
	}
	none := int32(all.Rows())
	for _, c := range all.Cols {
		c.AppendNull()
	}
	for i := range keys {
		if !found[i] {
			place[i] = none
		}
	}
	return all.Gather(place), found, nil
}

// fetch appends rows of one file to all, and notes their places.
func (b *Upsert) fetch(ctx context.Context, all *datafile.Batch, want *schema.Schema, file uint32, list []wanted, place []int32) error {
	rest := list[:0]
	for _, w := range list {
		if rows, i := b.recall(file, w.row); rows != nil {
			place[w.key] = int32(all.Rows())
			appendNamed(all, rows, i)
			continue
		}
		rest = append(rest, w)
	}
	if len(rest) == 0 {
		return nil
	}
	f, err := b.closed(file)
	if err != nil {
		return err
	}
	p, err := b.reading().pick(ctx, f, want)
	if err != nil {
		return err
	}
	defer p.close()
	rows := make([]int64, 0, len(rest))
	for _, w := range rest {
		if n := len(rows); n == 0 || rows[n-1] != w.row {
			rows = append(rows, w.row)
		}
		place[w.key] = int32(all.Rows() + len(rows) - 1)
	}
	got, err := p.rows(ctx, rows)
	if err != nil {
		return err
	}
	for row := range got.Rows() {
		all.AppendRow(got, row)
	}
	return nil
}

// reading returns what files are read with: the version that the upsert began on,
// and what it makes of the table.
func (b *Upsert) reading() *Snapshot {
	s := *b.snap
	if b.protocol != nil {
		s.protocol = b.protocol
	}
	if b.metadata != nil {
		s.metadata = b.metadata
	}
	return &s
}

// recall returns a row of an open file that is still in memory.
func (b *Upsert) recall(file uint32, row int64) (*datafile.Batch, int) {
	for i := len(b.recent) - 1; i >= 0; i-- {
		r := &b.recent[i]
		if r.file == file && row >= r.first && row < r.first+int64(r.rows.Rows()) {
			return r.rows, int(row - r.first)
		}
	}
	return nil, 0
}

// appendNamed appends a row of src, whose columns are found by name.
func appendNamed(dst, src *datafile.Batch, row int) {
	for i, name := range dst.Names {
		if c := src.Column(name); c != nil {
			dst.Cols[i].AppendFrom(c, row)
		} else {
			dst.Cols[i].AppendNull()
		}
	}
}

// closed returns a file that can be read, ending it if it is open.
func (b *Upsert) closed(file uint32) (*File, error) {
	if f := b.mine[file]; f != nil {
		if err := b.closeFile(f); err != nil {
			return nil, err
		}
		return f.file, nil
	}
	k := b.u.index.files[file]
	if f := b.snap.File(k.Path); f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("%w: file %s is not in version %d", ErrCorrupt, k.Path, b.snap.version)
}
