package datafile

import (
	"errors"
	"io"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// Codec is how pages are compressed.
type Codec uint8

// The codecs. The zero Codec is Zstd.
const (
	Zstd Codec = iota
	Snappy
	Uncompressed
)

// WriterOptions say how a file is written. Schema alone is required.
type WriterOptions struct {
	// Schema is the columns to write.
	Schema *schema.Schema
	// RowGroupRows ends a row group. Zero means 1 Mi rows; row groups also end
	// at some 128 MiB of values.
	RowGroupRows int
	// Codec compresses pages.
	Codec Codec
	// StatsColumns is for how many of the first columns statistics are
	// gathered. Zero means 32, negative none.
	StatsColumns int
	// StatsNames names the columns to gather statistics for, in place of
	// StatsColumns, unless it is nil.
	StatsNames []string
	// CreatedBy names the software in the file's footer. Empty means millrace.
	CreatedBy string
}

// Info describes a file that was written.
type Info struct {
	// Rows counts rows, Bytes the file's bytes.
	Rows, Bytes int64
	// Stats are the file's statistics.
	Stats Stats
}

// Writer writes a data file. It is used by one goroutine.
type Writer struct{ _ int }

// NewWriter returns a writer to w of the columns of opts.Schema. A type that is
// not held is ErrUnsupported.
func NewWriter(w io.Writer, opts WriterOptions) (*Writer, error) {
	return nil, errors.ErrUnsupported
}

// Write appends the rows of a batch. Columns are found by name: those that the
// batch lacks are NULL, those that the schema lacks are left out, and those of
// another type are ErrMismatch. It keeps nothing of the batch. After an error
// the file is of no use.
func (w *Writer) Write(b *Batch) error { return errors.ErrUnsupported }

// Rows counts the rows written so far.
func (w *Writer) Rows() int64 { return 0 }

// Bytes counts the bytes that went to the underlying writer so far.
func (w *Writer) Bytes() int64 { return 0 }

// Close writes what is pending and the footer. It does not close the underlying
// writer.
func (w *Writer) Close() (Info, error) { return Info{}, errors.ErrUnsupported }

// Stats are the statistics of a file, which marshal to the JSON that Delta's
// log carries in add.stats.
type Stats struct {
	// Rows is numRecords.
	Rows int64
}

// MarshalJSON writes numRecords, minValues, maxValues, nullCount and
// tightBounds.
func (s Stats) MarshalJSON() ([]byte, error) { return nil, errors.ErrUnsupported }
