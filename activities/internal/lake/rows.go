package lake

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// Rows is the content of a table at one position, on local disk, sorted by key.
// Close removes it.
type Rows struct {
	shape rowShape
	// byKey tells how entries are kept: one entry a key, which later rows
	// replace, or one entry a row, equal rows apart.
	byKey bool
	dir   string
	db    *pebble.DB
	seq   uint64

	count int64
	sum   hashSum

	key, row []byte // memory of the last entry made
}

// rowShape says which columns a row has and which of them are its key.
type rowShape struct {
	fields []schema.Field
	key    []int
}

func (s rowShape) keyFields() []schema.Field {
	fields := make([]schema.Field, len(s.key))
	for i, k := range s.key {
		fields[i] = s.fields[k]
	}
	return fields
}

// columns finds the shape's columns in b, and its key columns among them. Those
// that b lacks are NULL.
func (s rowShape) columns(b *datafile.Batch) (cols, key []*datafile.Column, err error) {
	cols = make([]*datafile.Column, len(s.fields))
	for i := range s.fields {
		c := b.Column(s.fields[i].Name)
		switch {
		case c == nil:
			c = datafile.NewColumn(s.fields[i].Type)
			for range b.Rows() {
				c.AppendNull()
			}
		case !c.Type.Equal(s.fields[i].Type):
			return nil, nil, fmt.Errorf("column %q is %s, not %s", s.fields[i].Name, c.Type, s.fields[i].Type)
		}
		cols[i] = c
	}
	for _, k := range s.key {
		key = append(key, cols[k])
	}
	return cols, key, nil
}

// newRows makes an empty content in a new directory below dir.
func newRows(dir string, shape rowShape, byKey bool) (*Rows, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a place for rows: %w", err)
	}
	own, err := os.MkdirTemp(dir, "rows-")
	if err != nil {
		return nil, fmt.Errorf("make a place for rows: %w", err)
	}
	db, err := pebble.Open(own, &pebble.Options{
		FS:           scratchFS{vfs.Default},
		DisableWAL:   true,
		CacheSize:    8 << 20,
		MemTableSize: 16 << 20,
		Logger:       quiet{},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a store for rows: %w", err), os.RemoveAll(own))
	}
	return &Rows{shape: shape, byKey: byKey, dir: own, db: db}, nil
}

// quiet drops what Pebble has to say, except that it cannot go on.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("pebble: "+format, args...))
}

// Count returns how many rows there are, equal ones included.
func (r *Rows) Count() int64 { return r.count }

// Hash returns an order-independent 128-bit hash of the rows, hexadecimal.
func (r *Rows) Hash() string { return r.sum.String() }

// Close removes the rows from disk.
func (r *Rows) Close() error {
	return errors.Join(r.db.Close(), os.RemoveAll(r.dir))
}

// addAll adds every row of b.
func (r *Rows) addAll(b *datafile.Batch) error {
	cols, key, err := r.shape.columns(b)
	if err != nil {
		return err
	}
	for i := range b.Rows() {
		r.key = appendRow(r.key[:0], key, i)
		r.row = appendRow(r.row[:0], cols, i)
		if err := r.put(r.key, r.row); err != nil {
			return err
		}
	}
	return nil
}

// put adds a row; by key, it replaces the row of that key. It keeps neither
// slice, but r.key may be the memory of key.
func (r *Rows) put(key, row []byte) error {
	if !r.byKey {
		h := hashRow(row)
		key = append(key, h[:]...)
		key = binary.BigEndian.AppendUint64(key, r.seq)
		r.seq++
	}
	if err := r.db.Set(key, row, pebble.NoSync); err != nil {
		return fmt.Errorf("keep row: %w", err)
	}
	return nil
}

// get returns a copy of the row of a key. Only by key.
func (r *Rows) get(key []byte) (row []byte, found bool, err error) {
	v, closer, err := r.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("look up row: %w", err)
	}
	row = bytes.Clone(v)
	return row, true, closer.Close()
}

// remove takes the row of a key away. Only by key.
func (r *Rows) remove(key []byte) error {
	if err := r.db.Delete(key, pebble.NoSync); err != nil {
		return fmt.Errorf("remove row: %w", err)
	}
	return nil
}

// takeOne takes one of the rows that equal row away. Only where rows are kept
// apart and have no key.
func (r *Rows) takeOne(row []byte) (found bool, err error) {
	h := hashRow(row)
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: h[:], UpperBound: bytes.Join([][]byte{h[:], bytes.Repeat([]byte{0xff}, 9)}, nil)})
	if err != nil {
		return false, fmt.Errorf("look up row: %w", err)
	}
	if it.First() {
		found = true
		err = r.db.Delete(bytes.Clone(it.Key()), pebble.NoSync)
	}
	if err := errors.Join(err, it.Close()); err != nil {
		return false, fmt.Errorf("remove row: %w", err)
	}
	return found, nil
}

// clear takes all rows away.
func (r *Rows) clear() error {
	if err := r.db.DeleteRange(nil, bytes.Repeat([]byte{0xff}, 32), pebble.NoSync); err != nil {
		return fmt.Errorf("remove rows: %w", err)
	}
	return nil
}

// finish counts and hashes what is there.
func (r *Rows) finish(ctx context.Context) error {
	r.count, r.sum = 0, hashSum{}
	c, err := r.cursor()
	if err != nil {
		return err
	}
	for n := 0; c.valid; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			break
		}
		r.count++
		r.sum.add(c.hash)
		if err := c.next(); err != nil {
			return errors.Join(err, c.close())
		}
	}
	return errors.Join(ctx.Err(), c.close())
}

// rowCursor walks rows in the order of key and hash.
type rowCursor struct {
	rows  *Rows
	it    *pebble.Iterator
	valid bool
	// key and row are valid until next; hash is row's.
	key, row []byte
	hash     rowHash
}

func (r *Rows) cursor() (*rowCursor, error) {
	it, err := r.db.NewIter(nil)
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	c := &rowCursor{rows: r, it: it}
	it.First()
	if err := c.load(); err != nil {
		return nil, errors.Join(err, it.Close())
	}
	return c, nil
}

func (c *rowCursor) next() error {
	c.it.Next()
	return c.load()
}

func (c *rowCursor) load() error {
	c.valid = c.it.Valid()
	if !c.valid {
		return wrapIf("read rows", c.it.Error())
	}
	row, err := c.it.ValueAndErr()
	if err != nil {
		return fmt.Errorf("read rows: %w", err)
	}
	c.key, c.row = c.it.Key(), row
	if c.rows.byKey {
		c.hash = hashRow(row)
		return nil
	}
	end := len(c.key) - 8
	c.hash = rowHash(c.key[end-len(c.hash) : end])
	c.key = c.key[:end-len(c.hash)]
	return nil
}

func (c *rowCursor) close() error { return c.it.Close() }

// compare orders two cursors by key and hash.
func (c *rowCursor) compare(d *rowCursor) int {
	if n := bytes.Compare(c.key, d.key); n != 0 {
		return n
	}
	return bytes.Compare(c.hash[:], d.hash[:])
}

func wrapIf(act string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", act, err)
}

// Compare compares two contents of one table and names up to limit rows that
// differ.
func Compare(ctx context.Context, a, b *Rows, limit int) (Diff, error) {
	if len(a.shape.fields) != len(b.shape.fields) {
		return Diff{}, fmt.Errorf("compare rows: %d columns with %d", len(a.shape.fields), len(b.shape.fields))
	}
	for i := range a.shape.fields {
		if a.shape.fields[i].Name != b.shape.fields[i].Name {
			return Diff{}, fmt.Errorf("compare rows: column %q with %q", a.shape.fields[i].Name, b.shape.fields[i].Name)
		}
	}
	if a.count == b.count && a.sum == b.sum {
		return Diff{Equal: true}, nil
	}
	d := differ{limit: limit, shape: a.shape}
	if err := d.merge(ctx, a, b); err != nil {
		return Diff{}, fmt.Errorf("compare rows: %w", err)
	}
	d.diff.Equal = d.diff.Missing == 0 && d.diff.Extra == 0 && d.diff.Changed == 0
	return d.diff, nil
}

// differ collects differences. Rows without key are told apart one by one; rows
// of one key that differ on both sides count as changed.
type differ struct {
	diff  Diff
	limit int
	shape rowShape

	key            []byte
	missing, extra int64
}

func (d *differ) merge(ctx context.Context, a, b *Rows) (err error) {
	ca, err := a.cursor()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ca.close()) }()
	cb, err := b.cursor()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cb.close()) }()
	for n := 0; ca.valid || cb.valid; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		order := 0
		switch {
		case !cb.valid:
			order = -1
		case !ca.valid:
			order = 1
		default:
			order = ca.compare(cb)
		}
		if order < 0 {
			d.note(ca, true)
		}
		if order > 0 {
			d.note(cb, false)
		}
		if order <= 0 {
			if err := ca.next(); err != nil {
				return err
			}
		}
		if order >= 0 {
			if err := cb.next(); err != nil {
				return err
			}
		}
	}
	d.flush()
	return nil
}

// note counts a row that is on one side alone.
func (d *differ) note(c *rowCursor, missing bool) {
	if len(d.shape.key) == 0 {
		if missing {
			d.diff.Missing++
			d.name("missing", d.shape.fields, c.row)
		} else {
			d.diff.Extra++
			d.name("extra", d.shape.fields, c.row)
		}
		return
	}
	if !bytes.Equal(d.key, c.key) {
		d.flush()
		d.key = append(d.key[:0], c.key...)
	}
	if missing {
		d.missing++
	} else {
		d.extra++
	}
}

// flush counts the rows of the key before.
func (d *differ) flush() {
	changed := min(d.missing, d.extra)
	d.diff.Changed += changed
	d.diff.Missing += d.missing - changed
	d.diff.Extra += d.extra - changed
	switch {
	case changed > 0:
		d.name("changed", d.shape.keyFields(), d.key)
	case d.missing > 0:
		d.name("missing", d.shape.keyFields(), d.key)
	case d.extra > 0:
		d.name("extra", d.shape.keyFields(), d.key)
	}
	d.missing, d.extra = 0, 0
}

func (d *differ) name(what string, fields []schema.Field, row []byte) {
	if len(d.diff.Keys) < d.limit {
		d.diff.Keys = append(d.diff.Keys, what+" "+describe(fields, row))
	}
}
