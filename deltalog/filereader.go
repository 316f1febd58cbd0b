package deltalog

import (
	"context"
	"fmt"
	"math"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// reader reads files as ReadOptions say.
type reader struct {
	s         *Snapshot
	mapping   schema.Mapping
	want      *schema.Schema // of the batches
	read      *schema.Schema // want, and what the conditions need besides
	stored    *schema.Schema // the part of read that is in files
	where     []condition
	batchRows int
}

func (s *Snapshot) newReader(o ReadOptions) (*reader, error) {
	r, err := s.buildReader(o)
	if err != nil {
		return nil, fmt.Errorf("read table: %w", err)
	}
	return r, nil
}

func (s *Snapshot) buildReader(o ReadOptions) (*reader, error) {
	r := &reader{s: s, want: s.metadata.Schema, batchRows: o.BatchRows}
	var err error
	if r.mapping, err = s.mapping(); err != nil {
		return nil, err
	}
	if o.Columns != nil {
		if r.want, err = r.want.Select(o.Columns...); err != nil {
			return nil, err
		}
	}
	if r.where, err = conditions(s.metadata.Schema, r.mapping, o.Where); err != nil {
		return nil, err
	}
	names := r.want.Names()
	for _, name := range whereNames(r.where) {
		if r.want.Field(name) < 0 {
			names = append(names, name)
		}
	}
	if r.read, err = s.metadata.Schema.Select(names...); err != nil {
		return nil, err
	}
	r.stored, err = withoutColumns(r.read, s.metadata.PartitionColumns)
	return r, err
}

// file yields the rows of a file.
func (r *reader) file(ctx context.Context, f *File, yield func(Live, error) bool) {
	constants, err := partitionColumns(r.read, r.s.metadata, r.mapping, f)
	if err != nil {
		yield(Live{}, fmt.Errorf("read %s: %w", f.Path, err))
		return
	}
	if len(r.where) > 0 && !mayMatch(f, r.where, constants) {
		return
	}
	in := &fileReader{reader: r, f: f, constants: constants}
	if f.Vector != nil {
		if in.hidden, err = r.s.ReadVector(ctx, f); err != nil {
			yield(Live{}, err)
			return
		}
	}
	in.run(ctx, yield)
}

// fileReader reads the live rows of one file.
type fileReader struct {
	*reader
	f         *File
	hidden    *roaring64.Bitmap // nil means none
	constants map[string]*datafile.Column
	index     []int64
	keep      []int32
}

func (r *fileReader) run(ctx context.Context, yield func(Live, error) bool) {
	d, closer, err := r.s.OpenFile(ctx, r.f)
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
	for b, err := range d.Read(ctx, r.stored, datafile.ReadOptions{BatchRows: r.batchRows}) {
		if err != nil {
			yield(Live{}, fmt.Errorf("%s: %w", r.f.Path, ofDataFile(err)))
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
	r.filter(b)
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

// filter drops from index and keep the rows that do not meet the conditions.
// Those on partition columns have been judged for the file.
func (r *fileReader) filter(b *datafile.Batch) {
	for i := range r.where {
		c := &r.where[i]
		col := b.Column(c.column)
		if col == nil {
			continue
		}
		n := 0
		for j, row := range r.keep {
			if c.holds(col, int(row)) {
				r.keep[n], r.index[n] = row, r.index[j]
				n++
			}
		}
		r.keep, r.index = r.keep[:n], r.index[:n]
	}
}

// complete puts the partition columns into their places, and drops what only the
// conditions needed.
func (r *fileReader) complete(b *datafile.Batch) *datafile.Batch {
	if len(r.constants) == 0 && len(r.read.Fields) == len(r.want.Fields) {
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
