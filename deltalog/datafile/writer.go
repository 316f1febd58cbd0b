package datafile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// WriterOptions say how a file is written. Schema alone is required.
type WriterOptions struct {
	// Schema is the columns to write.
	Schema *schema.Schema
	// RowGroupRows ends a row group. Zero means 1 Mi rows; row groups also end
	// at some 128 MiB of encoded bytes, which the writer holds until then.
	RowGroupRows int
	// Codec compresses pages.
	Codec Codec
	// Mapping says under which names, and with which ids, columns are stored.
	Mapping schema.Mapping
	// StatsColumns is for how many of the first columns statistics are
	// gathered, the fields of a struct counting one by one. Zero means 32,
	// negative none.
	StatsColumns int
	// StatsNames names the columns to gather statistics for, in place of
	// StatsColumns, unless it is nil: by their names, or as a.b for the field b
	// of the struct a, with backquotes around names that hold a dot. A struct's
	// name means all its fields.
	StatsNames []string
	// StatsAlso are columns, or fields of structs, to gather statistics for
	// besides, by the path of their names in the file.
	StatsAlso [][]string
	// CreatedBy names the software in the file's footer. Empty means Millrace.
	// A name without a version gets one: without, parquet-mr distrusts bounds.
	CreatedBy string
}

const (
	defaultRowGroupRows = 1 << 20
	rowGroupBytes       = 128 << 20
	defaultStatsColumns = 32
	defaultCreatedBy    = "Millrace"
	createdByVersion    = " version 1.0.0 (build 1)"
	magic               = "PAR1"
)

// Info describes a file that was written.
type Info struct {
	// Rows counts rows, Bytes the file's bytes.
	Rows, Bytes int64
	// Stats are the file's statistics.
	Stats Stats
}

// Writer writes a data file. It is used by one goroutine.
type Writer struct {
	w         io.Writer
	opts      WriterOptions
	codec     int32
	elements  []*element
	chunks    []*chunk // of the leaves
	stats     []ColumnStats
	indexed   []bool // which leaves statistics are gathered of
	groupRows int
	rows      int64
	offset    int64
	groups    []rowGroup
	footer    thriftWriter
	err       error // the first; there is no going on after it
}

var errClosed = errors.New("writer is closed")

// NewWriter returns a writer to w of the columns of opts.Schema. A type that is
// not held is ErrUnsupported. Columns and fields of type void are left out.
func NewWriter(w io.Writer, opts WriterOptions) (*Writer, error) {
	if len(opts.Schema.Fields) == 0 {
		return nil, fmt.Errorf("write data file: %w: schema has no columns", ErrMismatch)
	}
	if opts.RowGroupRows == 0 {
		opts.RowGroupRows = defaultRowGroupRows
	}
	if opts.StatsColumns == 0 {
		opts.StatsColumns = defaultStatsColumns
	}
	if opts.CreatedBy == "" {
		opts.CreatedBy = defaultCreatedBy
	}
	if !strings.Contains(opts.CreatedBy, " version ") {
		opts.CreatedBy += createdByVersion
	}
	codec, err := opts.Codec.parquetCodec()
	if err != nil {
		return nil, fmt.Errorf("write data file: %w", err)
	}
	elements, leaves, err := newTree(opts.Schema, opts.Mapping)
	if err != nil {
		return nil, fmt.Errorf("write data file: %w", err)
	}
	if len(leaves) == 0 {
		return nil, fmt.Errorf("write data file: %w: schema has no columns with values", ErrMismatch)
	}
	out := &Writer{
		w: w, opts: opts, codec: codec, elements: elements,
		chunks: make([]*chunk, len(leaves)), stats: make([]ColumnStats, len(leaves)), indexed: make([]bool, len(leaves)),
	}
	wanted := 0
	for i, l := range leaves {
		out.chunks[i] = newChunk(l, opts.Codec)
		out.stats[i] = ColumnStats{Path: l.stats, leaf: l}
		switch {
		case l.stats == nil:
		case opts.StatsNames != nil:
			out.indexed[i] = slices.ContainsFunc(opts.StatsNames, l.named)
		default:
			out.indexed[i] = wanted < opts.StatsColumns
			wanted++
		}
		out.indexed[i] = out.indexed[i] || slices.ContainsFunc(opts.StatsAlso, l.under)
	}
	return out, nil
}

// Write appends the rows of a batch. Columns are found by name: those that the
// batch lacks are NULL, those that the schema lacks are left out, and those of
// another type are ErrMismatch. Values outside the range of their type are
// ErrMismatch too. It keeps nothing of the batch. After an error the file is of
// no use.
func (w *Writer) Write(b *Batch) error {
	if w.err != nil {
		return w.err
	}
	if err := w.write(b); err != nil {
		w.err = fmt.Errorf("write data file: %w", err)
	}
	return w.err
}

func (w *Writer) write(b *Batch) error {
	if err := b.check(); err != nil {
		return err
	}
	cols := make([]*Column, len(w.opts.Schema.Fields))
	for i := range cols {
		f := &w.opts.Schema.Fields[i]
		if cols[i] = b.Column(f.Name); cols[i] == nil {
			continue
		}
		if have, want := cols[i].Type, f.Type; !sameValues(have, want) {
			return fmt.Errorf("column %q: %w: it is of type %s, not %s", f.Name, ErrMismatch, have, want)
		}
	}
	for from := 0; from < b.Rows(); {
		to := min(b.Rows(), from+w.opts.RowGroupRows-w.groupRows)
		if err := w.writeRows(cols, from, to); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// sameValues tells whether columns of two types hold the same values, NULLs
// aside.
func sameValues(a, b schema.Type) bool {
	if a.Kind != b.Kind || a.Precision != b.Precision || a.Scale != b.Scale || len(a.Fields) != len(b.Fields) {
		return false
	}
	for i := range a.Fields {
		if a.Fields[i].Name != b.Fields[i].Name {
			return false
		}
	}
	inA, inB := parts(a), parts(b)
	for i := range inA {
		if !sameValues(*inA[i], *inB[i]) {
			return false
		}
	}
	return true
}

// named tells whether a name in WriterOptions.StatsNames means the leaf.
func (l *leaf) named(name string) bool {
	if name == l.logical[0] {
		return true
	}
	path := SplitName(name)
	return len(path) > 0 && len(path) <= len(l.logical) && slices.Equal(path, l.logical[:len(path)])
}

// under tells whether statistics of the leaf are of what is at a path.
func (l *leaf) under(path []string) bool {
	return len(path) > 0 && len(path) <= len(l.stats) && slices.Equal(path, l.stats[:len(path)])
}

// SplitName returns the parts of a name such as a.b, of the field b of a column
// a. Parts in backquotes may hold dots, and backquotes that are doubled. Spaces
// around parts are dropped.
func SplitName(name string) []string {
	var path []string
	var part strings.Builder
	quoted := false
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '`' && quoted && i+1 < len(name) && name[i+1] == '`':
			part.WriteByte(c)
			i++
		case c == '`':
			quoted = !quoted
		case c == '.' && !quoted:
			path = append(path, strings.TrimSpace(part.String()))
			part.Reset()
		default:
			part.WriteByte(c)
		}
	}
	return append(path, strings.TrimSpace(part.String()))
}

// writeRows appends rows to the current row group, and ends it when it is full.
func (w *Writer) writeRows(cols []*Column, from, to int) error {
	held := 0
	for _, c := range w.chunks {
		var err error
		if col := cols[c.column]; col == nil {
			err = c.writeNulls(to - from)
		} else {
			err = c.write(col, from, to)
		}
		if err != nil {
			return err
		}
		held += c.memory()
	}
	w.groupRows += to - from
	w.rows += int64(to - from)
	if w.groupRows >= w.opts.RowGroupRows || held >= rowGroupBytes {
		return w.endGroup()
	}
	return nil
}

// Rows counts the rows written so far.
func (w *Writer) Rows() int64 { return w.rows }

// Bytes estimates the bytes of the file so far: those that went to the
// underlying writer, and those that are held, of which the last page of each
// column is not compressed yet.
func (w *Writer) Bytes() int64 {
	n := w.offset
	for _, c := range w.chunks {
		n += int64(c.memory())
	}
	return n
}

// Close writes what is pending and the footer. It does not close the underlying
// writer.
func (w *Writer) Close() (Info, error) {
	if w.err != nil {
		return Info{}, w.err
	}
	if err := w.close(); err != nil {
		w.err = fmt.Errorf("write data file: %w", err)
		return Info{}, w.err
	}
	w.err = errClosed
	stats := Stats{Rows: w.rows}
	for i := range w.stats {
		if w.indexed[i] {
			stats.Columns = append(stats.Columns, w.stats[i])
		}
	}
	return Info{Rows: w.rows, Bytes: w.offset, Stats: stats}, nil
}

func (w *Writer) close() error {
	if err := w.endGroup(); err != nil {
		return err
	}
	if w.offset == 0 {
		if err := w.put([]byte(magic)); err != nil {
			return err
		}
	}
	t := &w.footer
	for i := range w.groups {
		for j := range w.groups[i].chunks {
			m := &w.groups[i].chunks[j]
			t.reset()
			appendOffsetIndex(t, m)
			m.indexOffset, m.indexSize = w.offset, int32(len(t.b))
			if err := w.put(t.b); err != nil {
				return err
			}
		}
	}
	t.reset()
	appendFooter(t, w.elements, len(w.chunks), w.groups, w.codec, w.opts.CreatedBy)
	size := len(t.b)
	return w.put(append(binary.LittleEndian.AppendUint32(t.b, uint32(size)), magic...))
}

// endGroup writes the row group that is held.
func (w *Writer) endGroup() error {
	if w.groupRows == 0 {
		return nil
	}
	if w.offset == 0 {
		if err := w.put([]byte(magic)); err != nil {
			return err
		}
	}
	g := rowGroup{rows: int64(w.groupRows), offset: w.offset, chunks: make([]chunkMeta, len(w.chunks))}
	for i, c := range w.chunks {
		if err := w.endChunk(c, &g.chunks[i]); err != nil {
			return err
		}
		w.stats[i].add(c)
		c.reset()
	}
	w.groups = append(w.groups, g)
	w.groupRows = 0
	return nil
}

func (w *Writer) endChunk(c *chunk, m *chunkMeta) error {
	dictionary, data, err := c.finish()
	if err != nil {
		return err
	}
	*m = chunkMeta{
		leaf: c.leaf, values: c.values, nulls: c.values - c.present,
		uncompressed: c.uncompressed, compressed: int64(len(dictionary) + len(data)),
		pages: slices.Clone(c.pages),
	}
	m.min, m.max, m.minExact, m.maxExact = c.bounds.parquet(c.leaf)
	m.encodings = append(m.encodings, encodingRLE)
	if c.plainPages > 0 || c.dictPages > 0 {
		m.encodings = append(m.encodings, encodingPlain)
	}
	if c.dictPages > 0 {
		m.encodings = append(m.encodings, encodingRLEDictionary)
		m.dictOffset = w.offset
		if err := w.put(dictionary); err != nil {
			return err
		}
	}
	m.dataOffset = w.offset
	return w.put(data)
}

func (w *Writer) put(b []byte) error {
	n, err := w.w.Write(b)
	w.offset += int64(n)
	return err
}
