package deltalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

var (
	// ErrRowNotFound says that a row that was to be taken is not in the table.
	ErrRowNotFound = errors.New("row not found")
	// ErrDuplicateKey says that two rows of a table have the same key, so that
	// no index can say which one is meant.
	ErrDuplicateKey = errors.New("two rows have the same key")
	// ErrSpent says that an Upsert is used after its end, or that another one
	// of its Upserter has not ended.
	ErrSpent = errors.New("upsert has ended")
)

// UpserterOptions say how the rows of a table are found. Either Keys or
// Multiset and Columns are required.
type UpserterOptions struct {
	// Keys are the columns that identify a row, in the order of their encoding.
	Keys []string
	// Multiset says that rows have no key: equal rows may be there many times,
	// and are found by all of Columns.
	Multiset bool
	Columns  []string
	// CopyOnWrite has files of which rows go written anew without them, for
	// readers that do not know deletion vectors. What a batch costs then follows
	// the files that it touches.
	CopyOnWrite bool
	// CacheBytes is the memory for blocks of the index. Zero means 8 MiB.
	CacheBytes int64
	// PendingBytes is how much of an Upsert's changes to the index is held in
	// memory. Beyond that they go to disk, and the index is built anew if the
	// Upsert does not come to its end. Zero means 32 MiB.
	PendingBytes int
	// FileBytes ends a data file, in encoded bytes. Zero means 256 MiB.
	FileBytes int64
	// RecentBytes is how much of the rows that were put is held in memory for
	// Lookup and TakeOne, and how much of those that were taken in case a commit
	// has to be planned anew. Zero means 16 MiB.
	RecentBytes int

	fs    vfs.FS // what the index is on; nil means the disk
	moves int    // defaultMoves but in tests
	// hash is [datafile.RowHash] but in tests
	hash func(cols []*datafile.Column, row int) (hi, lo uint64)
}

const (
	defaultCacheBytes   = 8 << 20
	defaultPendingBytes = 32 << 20
	defaultFileBytes    = 256 << 20
	defaultRecentBytes  = 16 << 20
)

// Upserter replaces and takes away rows of a table in place, by deletion
// vectors: one batch of changes costs data files for the new rows, one file of
// vectors and one commit, whatever the size of the table. Where rows are is said
// by an index on the local disk, which is a cache: it is built anew where it is
// lost, and follows what other writers do.
//
// Where the table has row tracking, a row that is put in the place of another has
// its id. Where rows have no key, all that are put are new.
//
// Where it has a change data feed, a commit that takes rows away lists the changed
// rows, of which those that were put in the place of others are updates; to tell
// them it reads the rows that go, and again those that were put.
//
// One Upsert at a time is under way. It is used by one goroutine.
type Upserter struct {
	t       *Table
	o       UpserterOptions
	finder  *finder
	index   *keyIndex
	current *Upsert
	plain   map[string]bool // see rowIDKeeper

	// forget makes the index miss a commit, as a crash does. It is for tests.
	forget bool
}

// OpenUpserter opens the index in dir, which is made where it is not and which
// nobody else may use, and brings it to the newest version that t knows. It reads
// the keys of what is not in it. Files without numRecords are ErrUnsupported; a
// table in which a key is there twice is ErrDuplicateKey.
func OpenUpserter(ctx context.Context, t *Table, dir string, o UpserterOptions) (*Upserter, error) {
	u, err := openUpserter(ctx, t, dir, o)
	if err != nil {
		return nil, fmt.Errorf("open upserter: %w", err)
	}
	return u, nil
}

func openUpserter(ctx context.Context, t *Table, dir string, o UpserterOptions) (*Upserter, error) {
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCacheBytes
	}
	if o.PendingBytes == 0 {
		o.PendingBytes = defaultPendingBytes
	}
	if o.FileBytes == 0 {
		o.FileBytes = defaultFileBytes
	}
	if o.RecentBytes == 0 {
		o.RecentBytes = defaultRecentBytes
	}
	if o.hash == nil {
		o.hash = datafile.RowHash
	}
	if o.moves == 0 {
		o.moves = defaultMoves
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	f, err := newFinder(o)
	if err != nil {
		return nil, err
	}
	found, err := f.describe(t.Snapshot().metadata.Schema)
	if err != nil {
		return nil, err
	}
	x, err := openKeyIndex(o.fs, dir, t.Snapshot().metadata.ID, found, o.CacheBytes)
	if err != nil {
		return nil, err
	}
	u := &Upserter{t: t, o: o, finder: f, index: x}
	if err := x.follow(ctx, t.Snapshot(), f); err != nil {
		_ = x.db.Close()
		return nil, err
	}
	return u, nil
}

// Close closes the index, which keeps what it knows.
func (u *Upserter) Close() error {
	if u.current != nil {
		u.current.Abort()
	}
	if err := u.index.db.Close(); err != nil {
		return fmt.Errorf("close key index: %w", err)
	}
	return nil
}

// Begin begins an upsert on the newest version that the table knows when it is
// fed for the first time.
func (u *Upserter) Begin() *Upsert { return &Upsert{u: u} }

// finder names the records of rows in the index. Its buffers make it one
// goroutine's.
type finder struct {
	multiset bool
	columns  []string
	hash     func(cols []*datafile.Column, row int) (hi, lo uint64)
	buf      []byte
	value    []byte
}

func newFinder(o UpserterOptions) (*finder, error) {
	f := &finder{multiset: o.Multiset, columns: o.Keys, hash: o.hash}
	if o.Multiset {
		f.columns = o.Columns
	}
	if len(f.columns) == 0 {
		return nil, fmt.Errorf("%w: no columns to find rows by", ErrInvalid)
	}
	return f, nil
}

// describe says what rows are found by, in full.
func (f *finder) describe(s *schema.Schema) (string, error) {
	want, err := s.Select(f.columns...)
	if err != nil {
		return "", err
	}
	supported := datafile.KeySupported
	if f.multiset {
		supported = datafile.Supported
	}
	types := make([]string, len(want.Fields))
	for i := range want.Fields {
		types[i] = want.Fields[i].Type.String()
		if err := supported(want.Fields[i].Type); err != nil {
			return "", fmt.Errorf("column %q: %w", want.Fields[i].Name, err)
		}
	}
	return foundBy(f.columns, types, f.multiset), nil
}

// checkEncoding returns ErrInvalid where the rows of one schema are not found by
// what is fed in another.
func (f *finder) checkEncoding(from, to *schema.Schema) error {
	was, err := from.Select(f.columns...)
	if err != nil {
		return err
	}
	is, err := to.Select(f.columns...)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for i := range was.Fields {
		if a, b := &was.Fields[i], &is.Fields[i]; !encodedAs(a.Type).Equal(encodedAs(b.Type)) {
			return fmt.Errorf("%w: rows are found by column %s: as %s its %s values would not be", ErrInvalid, a.Name, b.Type, a.Type)
		}
	}
	return nil
}

// encodedAs returns the widest type whose values [datafile.AppendKey] encodes as
// it does those of t.
func encodedAs(t schema.Type) schema.Type {
	switch t.Kind {
	case schema.Byte, schema.Short, schema.Integer:
		t.Kind = schema.Long
	case schema.Float:
		t.Kind = schema.Double
	case schema.Decimal:
		t.Precision = 38
	case schema.Array:
		elem := encodedAs(*t.Elem)
		t.Elem, t.ElemNull = &elem, true
	case schema.Map:
		key, value := encodedAs(*t.Key), encodedAs(*t.Value)
		t.Key, t.Value, t.ValueNull = &key, &value, true
	case schema.Struct:
		fields := make([]schema.Field, len(t.Fields))
		for i, f := range t.Fields {
			fields[i] = schema.Field{Name: f.Name, Type: encodedAs(f.Type), Nullable: true}
		}
		t.Fields = fields
	}
	return t
}

// name returns the name of the record of a row of the columns that rows are
// found by. It is valid until the next call.
func (f *finder) name(cols []*datafile.Column, row int, at location) []byte {
	if f.multiset {
		hi, lo := f.hash(cols, row)
		f.buf = appendHashEntry(f.buf[:0], hi, lo, at)
	} else {
		f.buf = datafile.AppendKey(append(f.buf[:0], nameKey), cols, row)
	}
	return f.buf
}

// key returns the name of a key's record. It is valid until the next call.
func (f *finder) key(key []byte) []byte {
	f.buf = append(append(f.buf[:0], nameKey), key...)
	return f.buf
}
