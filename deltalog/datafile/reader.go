package datafile

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// File reads a data file. Its methods may be called concurrently.
type File struct{ _ int }

// Open reads the footer of a file of size bytes.
func Open(r io.ReaderAt, size int64) (*File, error) { return nil, errors.ErrUnsupported }

// Rows returns the number of rows.
func (f *File) Rows() int64 { return 0 }

// Schema returns the columns as the file's footer describes them. Columns that
// cannot be held are left out.
func (f *File) Schema() *schema.Schema { return nil }

// ReadOptions say how a file is read.
type ReadOptions struct {
	// BatchRows is how many rows a batch has at most. Zero means 8192.
	BatchRows int
}

// Read yields the columns of want, found by name, batch by batch in the order
// of the file. Columns that the file lacks are NULL. A batch is valid until the
// next iteration. It ends with the first error; one that wraps ErrMismatch
// tells that the file's column is of another type.
func (f *File) Read(ctx context.Context, want *schema.Schema, opts ReadOptions) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) { yield(nil, errors.ErrUnsupported) }
}

// ReadRows returns the rows of those indices, which ascend, reading only the
// pages that hold them. The caller owns the batch.
func (f *File) ReadRows(ctx context.Context, want *schema.Schema, rows []int64) (*Batch, error) {
	return nil, errors.ErrUnsupported
}
