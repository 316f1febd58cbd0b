package deltalog

import (
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// rowPicker reads rows of one file by their places, those that are hidden too.
type rowPicker struct {
	f         *File
	d         *datafile.File
	closer    io.Closer
	want      *schema.Schema
	stored    *schema.Schema // the part of want that is in files
	constants map[string]*datafile.Column
}

// pick opens a file to pick rows of the wanted columns. Whoever opened it closes it.
func (s *Snapshot) pick(ctx context.Context, f *File, want *schema.Schema) (*rowPicker, error) {
	mapping, err := s.mapping()
	if err != nil {
		return nil, err
	}
	p := &rowPicker{f: f, want: want}
	if p.stored, err = withoutColumns(want, s.metadata.PartitionColumns); err != nil {
		return nil, err
	}
	if p.constants, err = partitionColumns(want, s.metadata, mapping, f); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Path, err)
	}
	if p.d, p.closer, err = s.OpenFile(ctx, f); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *rowPicker) close() { _ = p.closer.Close() }

// rows returns the rows at places, which ascend strictly. The caller owns the batch.
func (p *rowPicker) rows(ctx context.Context, places []int64) (*datafile.Batch, error) {
	b, err := p.d.ReadRows(ctx, p.stored, places)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.f.Path, err)
	}
	if len(p.constants) == 0 {
		return b, nil
	}
	out := &datafile.Batch{Names: p.want.Names()}
	for _, name := range out.Names {
		if c, ok := p.constants[name]; ok {
			out.Cols = append(out.Cols, repeated(c, len(places)))
		} else {
			out.Cols = append(out.Cols, b.Column(name))
		}
	}
	return out, nil
}

// pickBytes is about how many bytes of rows are picked at once.
const pickBytes = 8 << 20

// pickRows yields rows of a file, none of which is hidden, at places of a set that
// is not empty: of few rows it reads their pages, of many the file. A batch is valid
// until the next iteration.
func (s *Snapshot) pickRows(ctx context.Context, f *File, set *roaring64.Bitmap) iter.Seq2[*datafile.Batch, error] {
	if f.Rows <= 0 || set.GetCardinality() >= uint64(f.Rows)/pickShare {
		return s.rowsIn(ctx, f, set, true)
	}
	return func(yield func(*datafile.Batch, error) bool) {
		p, err := s.pick(ctx, f, s.metadata.Schema)
		if err != nil {
			yield(nil, err)
			return
		}
		defer p.close()
		width := 4 * f.Size / f.Rows // files are smaller than their rows
		for it := set.Iterator(); it.HasNext(); {
			places := make([]int64, 0, min(pickRows, max(1, pickBytes/max(1, width))))
			for it.HasNext() && len(places) < cap(places) {
				places = append(places, int64(it.Next()))
			}
			b, err := p.rows(ctx, places)
			if !yield(b, err) || err != nil {
				return
			}
			width = max(width, int64(b.SizeBytes())/int64(len(places)))
		}
	}
}

// pickShare is the share of a file's rows, as one of so many, from which on the
// file is read from end to end.
const pickShare = 4

func textColumn(texts []string) *datafile.Column {
	c := datafile.NewColumn(schema.Type{Kind: schema.String})
	for _, text := range texts {
		c.AppendString(text)
	}
	return c
}
