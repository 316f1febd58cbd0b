package deltalog

import (
	"context"
	"fmt"
	"io"

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
