package inspect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// Format is how rows are written.
type Format string

// The formats.
const (
	JSON    Format = "json"
	CSV     Format = "csv"
	Parquet Format = "parquet"
)

// CatOptions say which rows are written, and how. The zero value means all, as
// JSON lines.
type CatOptions struct {
	Format Format
	// Columns are names of columns, in the order wanted; nil means all.
	Columns []string
	// Where is comparisons of columns with literals, joined by AND, such as
	// id >= 7 AND name = 'x' AND at IS NOT NULL. Empty means all rows.
	Where string
	// Limit is the most rows that are written; negative means all.
	Limit int64
}

// rowWriter writes batches of the same columns.
type rowWriter interface {
	write(*datafile.Batch) error
	close() error
}

// Cat writes rows in the order of [deltalog.Snapshot.Read].
func (v *View) Cat(ctx context.Context, w io.Writer, o CatOptions) error {
	all := v.snapshot.Metadata().Schema
	filter, err := parseWhere(o.Where, all)
	if err != nil {
		return err
	}
	shown, err := SelectColumns(all, o.Columns)
	if err != nil {
		return err
	}
	read := shown.Names()
	for _, name := range filter.columns() {
		if !slices.Contains(read, name) {
			read = append(read, name)
		}
	}
	out := bufio.NewWriterSize(w, 1<<16)
	rows, err := newRowWriter(out, o.Format, shown)
	if err != nil {
		return err
	}
	if err := v.copyRows(ctx, rows, read, len(shown.Fields), filter, o.Limit); err != nil {
		return errors.Join(err, out.Flush())
	}
	if err := rows.close(); err != nil {
		return err
	}
	return out.Flush()
}

func newRowWriter(w *bufio.Writer, f Format, s *schema.Schema) (rowWriter, error) {
	switch f {
	case JSON, "":
		return &jsonWriter{w: w}, nil
	case CSV:
		return newCSVWriter(w, s)
	case Parquet:
		p, err := datafile.NewWriter(w, datafile.WriterOptions{Schema: s, StatsColumns: -1})
		return parquetWriter{p}, err
	}
	return nil, fmt.Errorf("no format %q; there are json, csv and parquet", f)
}

// WriteRows writes all rows of batches whose columns are those of a schema.
func WriteRows(w *bufio.Writer, f Format, s *schema.Schema, batches iter.Seq2[*datafile.Batch, error]) error {
	rows, err := newRowWriter(w, f, s)
	if err != nil {
		return err
	}
	for b, err := range batches {
		if err == nil {
			err = rows.write(b)
		}
		if err != nil {
			return err
		}
	}
	return rows.close()
}

// copyRows writes the first columns of those that are read.
func (v *View) copyRows(ctx context.Context, to rowWriter, read []string, shown int, filter where, limit int64) error {
	if limit == 0 {
		return nil
	}
	var chosen []int32
	for b, err := range v.snapshot.Read(ctx, deltalog.ReadOptions{Columns: read, Where: filter.conditions()}) {
		if err != nil {
			return advise(v.uri, fmt.Errorf("read rows: %w", err))
		}
		n := int64(b.Rows())
		if len(filter) > 0 {
			chosen = filter.choose(chosen[:0], b)
			n = int64(len(chosen))
		}
		part := &datafile.Batch{Names: b.Names[:shown], Cols: b.Cols[:shown]}
		full := limit >= 0 && n >= limit
		if full {
			n = limit
		}
		if n < int64(b.Rows()) {
			if len(filter) == 0 {
				chosen = upTo(chosen[:0], n)
			}
			part = part.Gather(chosen[:n])
		}
		if n > 0 {
			if err := to.write(part); err != nil {
				return err
			}
		}
		if full {
			return nil
		}
		if limit > 0 {
			limit -= n
		}
	}
	return nil
}

func upTo(rows []int32, n int64) []int32 {
	for i := range n {
		rows = append(rows, int32(i))
	}
	return rows
}

// jsonWriter writes a line of JSON for each row.
type jsonWriter struct {
	w *bufio.Writer
	e encoder
}

func (j *jsonWriter) write(b *datafile.Batch) error {
	j.e.begin(b)
	for row := range b.Rows() {
		if _, err := j.w.Write(j.e.row(row)); err != nil {
			return err
		}
	}
	return nil
}

func (*jsonWriter) close() error { return nil }

// csvWriter writes RFC 4180 with plain line ends, names in the first line. NULL is empty, and
// an empty string is "".
type csvWriter struct {
	w    *bufio.Writer
	line []byte
	cell []byte
}

func newCSVWriter(w *bufio.Writer, s *schema.Schema) (*csvWriter, error) {
	c := &csvWriter{w: w}
	for i := range s.Fields {
		c.field(i, []byte(s.Fields[i].Name), true)
	}
	return c, c.end()
}

func (c *csvWriter) write(b *datafile.Batch) error {
	for row := range b.Rows() {
		for i, col := range b.Cols {
			switch {
			case !col.Valid[row]:
				c.field(i, nil, false)
			case col.Type.Kind == schema.String:
				c.field(i, col.At(row), true)
			default:
				c.cell = appendValue(c.cell[:0], col, row)
				if n := len(c.cell); n > 1 && c.cell[0] == '"' { // neither quote nor escape is in these
					c.field(i, c.cell[1:n-1], true)
				} else {
					c.field(i, c.cell, true)
				}
			}
		}
		if err := c.end(); err != nil {
			return err
		}
	}
	return nil
}

// field appends a field; one that is not a value is NULL.
func (c *csvWriter) field(i int, text []byte, value bool) {
	if i > 0 {
		c.line = append(c.line, ',')
	}
	quote := value && len(text) == 0
	for _, b := range text {
		quote = quote || b == '"' || b == ',' || b == '\n' || b == '\r'
	}
	if !quote {
		c.line = append(c.line, text...)
		return
	}
	c.line = append(c.line, '"')
	for _, b := range text {
		if b == '"' {
			c.line = append(c.line, '"')
		}
		c.line = append(c.line, b)
	}
	c.line = append(c.line, '"')
}

func (c *csvWriter) end() error {
	_, err := c.w.Write(append(c.line, '\n'))
	c.line = c.line[:0]
	return err
}

func (*csvWriter) close() error { return nil }

// parquetWriter writes a Parquet file.
type parquetWriter struct{ w *datafile.Writer }

func (p parquetWriter) write(b *datafile.Batch) error { return p.w.Write(b) }

func (p parquetWriter) close() error {
	_, err := p.w.Close()
	return err
}
