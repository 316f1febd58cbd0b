package datafile

import (
	"context"
	"fmt"
	"io"
	"iter"
	"math"
	"sort"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// File reads a data file. Its methods may be called concurrently.
type File struct {
	r       io.ReaderAt
	size    int64
	file    *parquet.File
	groups  []format.RowGroup
	first   []int64 // index in the file of each row group's first row
	byName  map[string]*parquet.Column
	schema  *schema.Schema
	mapping schema.Mapping
	hasIDs  bool // whether any column has a field id
}

// Open reads the footer of a file of size bytes. A file that is not Parquet is
// ErrCorrupt.
func Open(r io.ReaderAt, size int64) (*File, error) {
	f, err := open(r, size)
	if err != nil {
		return nil, fmt.Errorf("open data file: %w", err)
	}
	return f, nil
}

func open(r io.ReaderAt, size int64) (out *File, err error) {
	defer guard(&err)
	tail, err := readTail(r, size)
	if err != nil {
		return nil, err
	}
	// All that is read from here on is in memory, so that an error is the file's.
	file, err := parquet.OpenFile(tail, size, &parquet.FileConfig{
		SkipMagicBytes: true, SkipPageIndex: true, SkipBloomFilters: true,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	f := &File{r: r, size: size, file: file, groups: file.Metadata().RowGroups, byName: map[string]*parquet.Column{}, schema: new(schema.Schema)}
	var rows int64
	for i := range f.groups {
		n := f.groups[i].NumRows
		if n < 0 || n > math.MaxInt64-rows {
			return nil, fmt.Errorf("%w: row group of %d rows", ErrCorrupt, n)
		}
		f.first = append(f.first, rows)
		rows += n
	}
	if rows != file.NumRows() {
		return nil, fmt.Errorf("%w: row groups hold %d rows, the footer says %d", ErrCorrupt, rows, file.NumRows())
	}
	for _, c := range file.Root().Columns() {
		f.byName[c.Name()] = c
		f.hasIDs = f.hasIDs || c.ID() != 0
		if t, err := describe(c); err == nil {
			f.schema.Fields = append(f.schema.Fields, schema.Field{Name: c.Name(), Type: t, Nullable: c.Optional()})
		}
	}
	return f, nil
}

// guard makes an error of a panic: the decoder of Parquet is not ours, and
// indexes slices by numbers that the file holds.
func guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", ErrCorrupt, p)
	}
}

// Mapped returns the file with its columns found as a table's column mapping
// says. The file that it is called on stays as it is.
func (f *File) Mapped(m schema.Mapping) *File {
	mapped := *f
	mapped.mapping = m
	return &mapped
}

// Rows returns the number of rows.
func (f *File) Rows() int64 { return f.file.NumRows() }

// Schema returns the columns as the file's footer describes them, by the names
// that they have there. Columns, and fields of structs, that cannot be held are
// left out. It is not to be changed.
func (f *File) Schema() *schema.Schema { return f.schema }

// ReadOptions say how a file is read.
type ReadOptions struct {
	// BatchRows is how many rows a batch has at most. Zero means 8192. Batches
	// of wide rows have fewer, so that they take some 64 MiB, unless single rows
	// are larger than that.
	BatchRows int
}

const (
	defaultBatchRows = 8192
	batchBytes       = 64 << 20
)

// Read yields the columns of want, found by name or as [File.Mapped] says, batch
// by batch in the order of the file. Columns that the file lacks, and fields of
// structs, are NULL. A batch is valid until the
// next iteration. It ends with the first error; ErrMismatch and ErrUnsupported
// tell that the file's column is of a type that cannot become the wanted one.
//
// It holds one page a column at a time, besides the batch.
func (f *File) Read(ctx context.Context, want *schema.Schema, opts ReadOptions) iter.Seq2[*Batch, error] {
	if opts.BatchRows <= 0 {
		opts.BatchRows = defaultBatchRows
	}
	return func(yield func(*Batch, error) bool) {
		shapes, err := f.shapes(want)
		if err != nil {
			yield(nil, fmt.Errorf("read data file: %w", err))
			return
		}
		b := NewBatch(want)
		for i := range f.groups {
			fields, err := f.open(i, want, shapes)
			if err != nil {
				yield(nil, fmt.Errorf("read data file: %w", err))
				return
			}
			more, err := f.readGroup(ctx, b, fields, i, opts.BatchRows, yield)
			if err != nil {
				yield(nil, fmt.Errorf("read data file: %w", err))
				return
			}
			if !more {
				return
			}
		}
	}
}

// readGroup yields one row group's batches; more is false when the caller has
// had enough.
func (f *File) readGroup(ctx context.Context, b *Batch, fields []*fieldReader, group, batchRows int, yield func(*Batch, error) bool) (more bool, err error) {
	rows := f.groups[group].NumRows
	width := f.rowBytes(group, fields)
	for at := int64(0); at < rows; {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if last := int64(b.Rows()); last > 0 {
			width = max(width, int64(b.SizeBytes())/last)
		}
		n := int(min(rows-at, int64(batchRows), max(1, batchBytes/width)))
		b.Reset()
		if err := readColumns(b, fields, n); err != nil {
			return false, err
		}
		b.First = f.first[group] + at
		at += int64(n)
		if !yield(b, nil) {
			return false, nil
		}
	}
	return true, nil
}

// rowBytes guesses how many bytes a row takes, from what the footer says.
func (f *File) rowBytes(group int, fields []*fieldReader) int64 {
	var size int64
	for _, r := range fields {
		if r == nil {
			continue
		}
		for _, l := range r.leaves {
			n := f.groups[group].Columns[l.leaf.Index()].MetaData.TotalUncompressedSize
			size += min(max(n, 0), math.MaxInt64/2-size)
		}
	}
	return max(1, size/max(1, f.groups[group].NumRows))
}

func readColumns(b *Batch, fields []*fieldReader, n int) error {
	for i, c := range fields {
		if c == nil {
			b.Cols[i].Grow(n, 0)
			for range n {
				b.Cols[i].AppendNull()
			}
			continue
		}
		if err := c.read(b.Cols[i], n); err != nil {
			return fmt.Errorf("column %q: %w", b.Names[i], err)
		}
	}
	return nil
}

// ReadRows returns the rows of those indices, which ascend strictly, reading
// only the pages that hold them. The caller owns the batch.
func (f *File) ReadRows(ctx context.Context, want *schema.Schema, rows []int64) (*Batch, error) {
	b := NewBatch(want)
	for i, row := range rows {
		if row < 0 || row >= f.Rows() || i > 0 && row <= rows[i-1] {
			return nil, fmt.Errorf("read rows of data file: %w: row %d of %d", ErrMismatch, row, f.Rows())
		}
	}
	shapes, err := f.shapes(want)
	if err != nil {
		return nil, fmt.Errorf("read rows of data file: %w", err)
	}
	for len(rows) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read rows of data file: %w", err)
		}
		group := sort.Search(len(f.first), func(i int) bool { return f.first[i] > rows[0] }) - 1
		end := f.first[group] + f.groups[group].NumRows
		n := sort.Search(len(rows), func(i int) bool { return rows[i] >= end })
		if err := f.pickRows(b, want, shapes, group, rows[:n]); err != nil {
			return nil, fmt.Errorf("read rows of data file: %w", err)
		}
		rows = rows[n:]
	}
	return b, nil
}

// pickRows appends rows of one row group.
func (f *File) pickRows(b *Batch, want *schema.Schema, shapes []*shape, group int, rows []int64) error {
	fields, err := f.open(group, want, shapes)
	if err != nil {
		return err
	}
	for i, r := range fields {
		if r == nil {
			for range rows {
				b.Cols[i].AppendNull()
			}
			continue
		}
		for _, c := range r.cursors {
			locations, err := f.locations(group, c)
			if err != nil {
				return fmt.Errorf("column %q: %w", b.Names[i], err)
			}
			r.locations = append(r.locations, locations)
		}
		if err := r.pick(b.Cols[i], rows); err != nil {
			return fmt.Errorf("column %q: %w", b.Names[i], err)
		}
	}
	return nil
}

// shapes finds the wanted columns; nil stands for one that the file lacks.
func (f *File) shapes(want *schema.Schema) (shapes []*shape, err error) {
	defer guard(&err)
	if f.mapping == schema.ByID && !f.hasIDs {
		return nil, fmt.Errorf("%w: the table's columns go by ids, and the file has none", ErrMismatch)
	}
	shapes = make([]*shape, len(want.Fields))
	for i := range want.Fields {
		field := &want.Fields[i]
		c, err := f.find(field)
		switch {
		case err != nil:
		case c == nil:
			err = Supported(field.Type)
		default:
			shapes[i], err = shapeOf(f.mapping, &field.Type, c)
		}
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", field.Name, err)
		}
	}
	return shapes, nil
}

// find returns the column of the file that is the wanted one; nil if there is
// none.
func (f *File) find(field *schema.Field) (*parquet.Column, error) {
	if name, id, err := field.Stored(f.mapping); err == nil && id == 0 || f.mapping == schema.ByPhysicalName {
		if c := f.byName[name]; c != nil {
			return c, nil
		}
	}
	return find(f.mapping, f.file.Root(), field)
}

// open begins to read a row group; nil stands for a column that the file lacks.
func (f *File) open(group int, want *schema.Schema, shapes []*shape) (fields []*fieldReader, err error) {
	defer guard(&err)
	fields = make([]*fieldReader, len(shapes))
	g := &f.groups[group]
	for i, s := range shapes {
		if s == nil {
			continue
		}
		fields[i] = &fieldReader{shape: s, cursors: make([]*cursor, len(s.leaves))}
		for j, l := range s.leaves {
			pages, err := newPageReader(f.r, f.size, l, &g.Columns[l.leaf.Index()].MetaData, g.NumRows)
			if err != nil {
				return nil, fmt.Errorf("column %q: %w", want.Fields[i].Name, err)
			}
			fields[i].cursors[j] = &cursor{source: l, pages: pages, rows: g.NumRows, first: f.first[group]}
		}
	}
	return fields, nil
}

// locations reads where the pages of a chunk are; none where the file does not
// say.
func (f *File) locations(group int, c *cursor) ([]pageLocation, error) {
	m := &f.groups[group].Columns[c.leaf.Index()]
	offset, n := m.OffsetIndexOffset, int64(m.OffsetIndexLength)
	if offset <= 0 || n <= 0 {
		return nil, nil
	}
	if n > f.size || offset > f.size-n {
		return nil, fmt.Errorf("%w: offset index beyond the file", ErrCorrupt)
	}
	b := make([]byte, n)
	if read, err := f.r.ReadAt(b, offset); int64(read) < n {
		return nil, fmt.Errorf("read offset index: %w", err)
	}
	return parseOffsetIndex(b, c.pages.start, c.pages.end)
}
