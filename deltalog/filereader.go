package deltalog

import (
	"context"
	"fmt"
	"math"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// fileReader reads the live rows of one file.
type fileReader struct {
	ctx       context.Context
	s         *Snapshot
	f         *File
	want      *schema.Schema // of the batches
	stored    *schema.Schema // the part of want that is in files
	batchRows int
	hidden    *roaring64.Bitmap // nil means none
	constants map[string]*datafile.Column
	index     []int64
	keep      []int32
}

func (s *Snapshot) newFileReader(ctx context.Context, f *File, o ReadOptions) (*fileReader, error) {
	r := &fileReader{ctx: ctx, s: s, f: f, want: s.metadata.Schema, batchRows: o.BatchRows}
	if o.Columns != nil {
		var err error
		if r.want, err = r.want.Select(o.Columns...); err != nil {
			return nil, fmt.Errorf("read table: %w", err)
		}
	}
	mapping, err := s.mapping()
	if err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	r.stored = r.want
	if len(s.metadata.PartitionColumns) > 0 {
		if r.stored, err = withoutColumns(r.want, s.metadata.PartitionColumns); err != nil {
			return nil, fmt.Errorf("read table: %w", err)
		}
		if r.constants, err = partitionColumns(r.want, s.metadata, mapping, f); err != nil {
			return nil, fmt.Errorf("read %s: %w", f.Path, err)
		}
	}
	if f.Vector != nil {
		if r.hidden, err = s.ReadVector(ctx, f); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *fileReader) run(yield func(Live, error) bool) {
	d, closer, err := r.s.OpenFile(r.ctx, r.f)
	if err != nil {
		yield(Live{}, err)
		return
	}
	defer func() { _ = closer.Close() }()
	if r.f.Rows >= 0 && d.Rows() != r.f.Rows {
		yield(Live{}, fmt.Errorf("read %s: %w: it has %d rows, the log says %d", r.f.Path, ErrCorrupt, d.Rows(), r.f.Rows))
		return
	}
	if r.hidden != nil && !r.hidden.IsEmpty() && r.hidden.Maximum() >= uint64(d.Rows()) {
		yield(Live{}, fmt.Errorf("read %s: %w: its vector hides row %d of %d", r.f.Path, ErrCorrupt, r.hidden.Maximum(), d.Rows()))
		return
	}
	if len(r.stored.Fields) == 0 {
		r.runConstants(d.Rows(), yield)
		return
	}
	for b, err := range d.Read(r.ctx, r.stored, datafile.ReadOptions{BatchRows: r.batchRows}) {
		if err != nil {
			yield(Live{}, fmt.Errorf("read %s: %w", r.f.Path, err))
			return
		}
		if live, ok := r.live(b); ok && !yield(live, nil) {
			return
		}
	}
}

// runConstants yields batches of which no column is in the file.
func (r *fileReader) runConstants(rows int64, yield func(Live, error) bool) {
	batch := int64(r.batchRows)
	if batch <= 0 {
		batch = 8192
	}
	for first := int64(0); first < rows; first += batch {
		r.selectRows(first, min(batch, rows-first))
		if len(r.index) == 0 {
			continue
		}
		if !yield(Live{Batch: r.complete(&datafile.Batch{First: first}), Index: r.index}, nil) {
			return
		}
	}
}

// live returns the rows of a batch that are not hidden; without ok there are
// none.
func (r *fileReader) live(b *datafile.Batch) (Live, bool) {
	n := int64(b.Rows())
	r.selectRows(b.First, n)
	if len(r.index) == 0 {
		return Live{}, false
	}
	if int64(len(r.index)) < n {
		first := b.First
		b = b.Gather(r.keep)
		b.First = first
	}
	return Live{Batch: r.complete(b), Index: r.index}, true
}

// selectRows fills index and keep with the live rows of n from first on.
func (r *fileReader) selectRows(first, n int64) {
	r.index, r.keep = r.index[:0], r.keep[:0]
	const end = math.MaxUint64
	next := uint64(end)
	var hidden roaring64.IntPeekable64
	if r.hidden != nil {
		hidden = r.hidden.Iterator()
		hidden.AdvanceIfNeeded(uint64(first))
		if hidden.HasNext() {
			next = hidden.Next()
		}
	}
	for i := range n {
		if uint64(first+i) == next {
			next = end
			if hidden.HasNext() {
				next = hidden.Next()
			}
			continue
		}
		r.index = append(r.index, first+i)
		r.keep = append(r.keep, int32(i))
	}
}

// complete puts the partition columns into their places.
func (r *fileReader) complete(b *datafile.Batch) *datafile.Batch {
	if len(r.constants) == 0 {
		return b
	}
	out := &datafile.Batch{First: b.First}
	for _, f := range r.want.Fields {
		out.Names = append(out.Names, f.Name)
		if c, ok := r.constants[f.Name]; ok {
			out.Cols = append(out.Cols, repeated(c, len(r.index)))
		} else {
			out.Cols = append(out.Cols, b.Column(f.Name))
		}
	}
	return out
}

func repeated(one *datafile.Column, n int) *datafile.Column {
	c := datafile.NewColumn(one.Type)
	for range n {
		c.AppendFrom(one, 0)
	}
	return c
}
