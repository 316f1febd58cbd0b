package deltalog

import (
	"context"
	"errors"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

var (
	// ErrRowNotFound says that a row that was to be taken is not in the table.
	ErrRowNotFound = errors.New("row not found")
	// ErrDuplicateKey says that two rows of a table have the same key.
	ErrDuplicateKey = errors.New("two rows have the same key")
	// ErrSpent says that an Upsert is used after its end.
	ErrSpent = errors.New("upsert has ended")
)

// UpserterOptions say how the rows of a table are found.
type UpserterOptions struct {
	// Keys are the columns that identify a row, unless Multiset is set.
	Keys []string
	// Multiset says that rows have no key: equal rows may be there many times,
	// and are found by all of Columns.
	Multiset bool
	Columns  []string
	// CacheBytes is the memory for blocks of the index. Zero means 8 MiB.
	CacheBytes int64
	// PendingBytes is how much of an Upsert's changes to the index is held in
	// memory. Zero means 32 MiB.
	PendingBytes int
	// FileBytes ends a data file, in encoded bytes. Zero means 256 MiB.
	FileBytes int64
}

// Upserter replaces and deletes rows of a table by key.
type Upserter struct{ _ int }

// OpenUpserter opens the key index in dir.
func OpenUpserter(ctx context.Context, t *Table, dir string, o UpserterOptions) (*Upserter, error) {
	return nil, errors.ErrUnsupported
}

// Close closes the index.
func (u *Upserter) Close() error { return errors.ErrUnsupported }

// Begin begins an upsert.
func (u *Upserter) Begin() *Upsert { return nil }

// Upsert is one atomic change of a table, which may be fed many times.
type Upsert struct{ _ int }

// Truncate takes all rows away.
func (b *Upsert) Truncate(ctx context.Context) error { return errors.ErrUnsupported }

// Delete takes the rows with these keys away.
func (b *Upsert) Delete(ctx context.Context, keys [][]byte) error { return errors.ErrUnsupported }

// Put adds rows in place of those with the same keys.
func (b *Upsert) Put(ctx context.Context, rows *datafile.Batch, keys [][]byte) error {
	return errors.ErrUnsupported
}

// TakeOne takes one row away for each of rows, equal to it.
func (b *Upsert) TakeOne(ctx context.Context, rows *datafile.Batch) error {
	return errors.ErrUnsupported
}

// Lookup returns the rows with these keys.
func (b *Upsert) Lookup(ctx context.Context, keys [][]byte, columns []string) (rows *datafile.Batch, found []bool, err error) {
	return nil, nil, errors.ErrUnsupported
}

// CommitExtras go into the commit of an Upsert.
type CommitExtras struct {
	// Operation is that of [Commit]. Empty means MERGE.
	Operation string
	// Params and Metrics are those of [Commit].
	Params, Metrics map[string]string
	// Txns and Domains are set with the rows.
	Txns    []Txn
	Domains []Domain
	// Check judges the newest version after a lost race. Its error ends the
	// commit as it is.
	Check func(*Snapshot) error
}

// Commit makes the changes visible.
func (b *Upsert) Commit(ctx context.Context, c CommitExtras) (*Snapshot, error) {
	return nil, errors.ErrUnsupported
}

// Abort drops the changes.
func (b *Upsert) Abort() {}
