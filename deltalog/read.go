package deltalog

import (
	"context"
	"iter"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

// ReadOptions say what of a table is read. The zero value means all columns of
// all files.
type ReadOptions struct {
	// Columns are names of columns, in the order wanted; nil means all. A batch
	// without columns does not tell its rows: name at least one.
	Columns []string
	// BatchRows is how many rows a batch has at most. Zero means 8192.
	BatchRows int
	// Files tells which files to read; nil means all.
	Files func(*File) bool
	// Where are conditions that the rows meet, all of them. Files that have no
	// such row by their partition values or statistics are not read; of the
	// others the rows that do not meet the conditions are left out. Columns of
	// conditions need not be among Columns.
	Where []Condition
}

// Live is some rows of a file that are not hidden.
type Live struct {
	*datafile.Batch
	// Index holds the place of each row in its file, from 0.
	Index []int64
}

// Read yields the live rows of the table that meet the conditions, file by file in
// the order of [Snapshot.Files]. A batch is valid until the next iteration. It ends
// with the first error: ErrCorrupt or ErrUnsupported of a file that cannot be read,
// [store.ErrNotExist] of one that is gone, ErrInvalid of a condition, and
// [schema.ErrInvalid] of a column that is none.
func (s *Snapshot) Read(ctx context.Context, o ReadOptions) iter.Seq2[*datafile.Batch, error] {
	return func(yield func(*datafile.Batch, error) bool) {
		r, err := s.newReader(o)
		if err != nil {
			yield(nil, err)
			return
		}
		for f := range s.Files() {
			if o.Files != nil && !o.Files(f) {
				continue
			}
			more := true
			r.file(ctx, f, func(live Live, err error) bool {
				more = err == nil
				more = yield(live.Batch, err) && more
				return more
			})
			if !more {
				return
			}
		}
	}
}

// ReadFile yields the live rows of one file that meet the conditions, with their
// places in it. Columns that the file lacks are NULL; partition columns have the
// file's values. A batch is valid until the next iteration. It ends with the first
// error.
func (s *Snapshot) ReadFile(ctx context.Context, f *File, o ReadOptions) iter.Seq2[Live, error] {
	return func(yield func(Live, error) bool) {
		r, err := s.newReader(o)
		if err != nil {
			yield(Live{}, err)
			return
		}
		r.file(ctx, f, yield)
	}
}
