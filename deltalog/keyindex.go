package deltalog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// keyIndex says where in a table's files the live rows with given keys are. It
// is a cache of the table, in a folder of its own: lost or damaged, it is built
// anew. What it holds:
//
//	s                   the state: table, version, what rows are found by
//	f file              a data file, as JSON
//	v file              its vector's identity and bitmap
//	k key               → file, row: the live row of that key
//	m hash file row     a live row whose hash that is, where rows have no key
//	a file              where the rows of a file that is gone went
//
// Files are numbered in the order in which the index came to know them; no
// number is used twice. Entries of files whose rows went to others mean those.
// Entries of other files that are no longer in the table mean nothing.
type keyIndex struct {
	db    *pebble.DB
	state indexState
	files map[uint32]*indexFile
	ids   map[string]uint32 // by path
	moves map[uint32]*move

	fs  vfs.FS
	dir string
}

// indexFormat is the version of the layout. Another one is built anew.
const indexFormat = 2

// indexState is the record that makes the others true.
type indexState struct {
	Format  int     `json:"format"`
	Table   string  `json:"table"`
	Version Version `json:"version"`
	// Found is what rows are found by.
	Found string `json:"found"`
	// NextFile is a number that no file has had.
	NextFile uint32 `json:"nextFile"`
	// Stale counts entries of files that are gone, at most.
	Stale int64 `json:"stale"`
	// Dirty says that changes are on their way that are not whole.
	Dirty bool `json:"dirty"`
}

// indexFile is a data file that the index knows.
type indexFile struct {
	Path string `json:"path"`
	Rows int64  `json:"rows"`
	// Vector is the identity of the vector that the entries are true for.
	Vector string `json:"vector"`
	// Hidden counts the rows that it hides.
	Hidden int64 `json:"hidden"`
}

func (f *indexFile) live() int64 { return f.Rows - f.Hidden }

// location is where a row is.
type location struct {
	file uint32
	row  uint32
}

// First bytes of the records' names.
const (
	nameMove   = 'a'
	nameState  = 's'
	nameFile   = 'f'
	nameVector = 'v'
	nameKey    = 'k'
	nameHash   = 'm'
)

var stateName = []byte{nameState}

func fileName(kind byte, id uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kind}, id)
}

func appendLocation(b []byte, l location) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(l.file)), uint64(l.row))
}

func parseLocation(b []byte) (location, error) {
	file, n := binary.Uvarint(b)
	if n > 0 {
		if row, m := binary.Uvarint(b[n:]); m > 0 && n+m == len(b) && file <= 1<<32-1 && row <= 1<<32-1 {
			return location{uint32(file), uint32(row)}, nil
		}
	}
	return location{}, fmt.Errorf("%w: entry of the key index", ErrCorrupt)
}

// hashSize is the length of a row's hash in the index.
const hashSize = 16

func appendHash(b []byte, hi, lo uint64) []byte {
	b = append(b, nameHash)
	b = binary.BigEndian.AppendUint64(b, hi)
	return binary.BigEndian.AppendUint64(b, lo)
}

func appendHashEntry(b []byte, hi, lo uint64, l location) []byte {
	b = appendHash(b, hi, lo)
	b = binary.BigEndian.AppendUint32(b, l.file)
	return binary.BigEndian.AppendUint32(b, l.row)
}

func parseHashEntry(b []byte) (location, error) {
	if len(b) != 1+hashSize+8 {
		return location{}, fmt.Errorf("%w: entry of the row index", ErrCorrupt)
	}
	return location{binary.BigEndian.Uint32(b[1+hashSize:]), binary.BigEndian.Uint32(b[1+hashSize+4:])}, nil
}

// openKeyIndex opens the index in dir, or begins an empty one where it is of
// another table, of another way to find rows, damaged or not whole.
func openKeyIndex(fs vfs.FS, dir, table, found string, cacheBytes int64) (*keyIndex, error) {
	db, err := openPebble(fs, dir, cacheBytes)
	if err != nil && pebble.IsCorruptionError(err) {
		if err = fs.RemoveAll(dir); err == nil {
			db, err = openPebble(fs, dir, cacheBytes)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open key index: %w", err)
	}
	x := &keyIndex{db: db, fs: fs, dir: dir}
	if err := x.load(); err != nil && !errors.Is(err, ErrCorrupt) && !pebble.IsCorruptionError(err) {
		_ = db.Close()
		return nil, fmt.Errorf("open key index: %w", err)
	} else if err != nil || x.state.Dirty || x.state.Format != indexFormat || x.state.Table != table || x.state.Found != found {
		if err := x.clear(table, found); err != nil {
			_ = db.Close()
			return nil, fmt.Errorf("open key index: %w", err)
		}
	}
	return x, nil
}

func openPebble(fs vfs.FS, dir string, cacheBytes int64) (*pebble.DB, error) {
	cache := pebble.NewCache(cacheBytes)
	defer cache.Unref()
	o := &pebble.Options{
		FS:                          fs,
		Cache:                       cache,
		MemTableSize:                8 << 20,
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                200,
		Logger:                      quiet{},
		FormatMajorVersion:          pebble.FormatNewest,
	}
	setBlocks(o)
	return pebble.Open(dir, o)
}

const (
	// indexBlock is the size of the blocks that entries are read in. In a large
	// table hardly two keys of a batch are in one block, and what is read,
	// unpacked and dropped for each of them is a block: small ones keep what a key
	// costs there near to what it costs in a small table.
	indexBlock = 1 << 10
	// indexBlockOfBlocks is the size of the blocks that say where those are, of
	// which there are more, the smaller they are.
	indexBlockOfBlocks = 64 << 10
)

// setBlocks sets the sizes of blocks.
func setBlocks(o *pebble.Options) {
	for i := range o.Levels {
		o.Levels[i].BlockSize, o.Levels[i].IndexBlockSize = indexBlock, indexBlockOfBlocks
	}
}

// quiet drops what the store below would print.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}

// Fatalf is called where the store below cannot go on, and must not return.
func (quiet) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// load reads state and files.
func (x *keyIndex) load() error {
	x.state = indexState{}
	x.files, x.ids, x.moves = map[uint32]*indexFile{}, map[string]uint32{}, map[uint32]*move{}
	b, closer, err := x.db.Get(stateName)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	err = json.Unmarshal(b, &x.state)
	_ = closer.Close()
	if err != nil {
		return fmt.Errorf("state: %w: %w", ErrCorrupt, err)
	}
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{nameFile}, UpperBound: []byte{nameFile + 1}})
	if err != nil {
		return err
	}
	defer func() { _ = it.Close() }()
	for ok := it.First(); ok; ok = it.Next() {
		f := new(indexFile)
		if err := json.Unmarshal(it.Value(), f); err != nil || len(it.Key()) != 5 {
			return fmt.Errorf("file: %w: %w", ErrCorrupt, err)
		}
		id := binary.BigEndian.Uint32(it.Key()[1:])
		x.files[id], x.ids[f.Path] = f, id
	}
	if err := it.Error(); err != nil {
		return err
	}
	return x.loadMoves()
}

// clear begins an empty index.
func (x *keyIndex) clear(table, found string) error {
	b := x.db.NewBatch()
	defer func() { _ = b.Close() }()
	x.files, x.ids, x.moves = map[uint32]*indexFile{}, map[string]uint32{}, map[uint32]*move{}
	state := indexState{Format: indexFormat, Table: table, Version: -1, Found: found}
	if err := b.DeleteRange([]byte{0}, []byte{0xff}, nil); err != nil {
		return err
	}
	if err := putState(b, state); err != nil {
		return err
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return err
	}
	x.state = state
	return nil
}

func putState(b *pebble.Batch, s indexState) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return b.Set(stateName, text, nil)
}

// markDirty makes sure that an index whose changes are not whole is known as
// such.
func (x *keyIndex) markDirty() error {
	if x.state.Dirty {
		return nil
	}
	state := x.state
	state.Dirty = true
	b := x.db.NewBatch()
	defer func() { _ = b.Close() }()
	if err := putState(b, state); err != nil {
		return err
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("mark key index: %w", err)
	}
	x.state = state
	return nil
}

// newFile returns a number for a file.
func (x *keyIndex) newFile() uint32 {
	id := x.state.NextFile
	x.state.NextFile++
	return id
}

// find returns where a key's row is, by its record's name.
func find(r pebble.Reader, name []byte) (l location, ok bool, err error) {
	b, closer, err := r.Get(name)
	if errors.Is(err, pebble.ErrNotFound) {
		return location{}, false, nil
	}
	if err != nil {
		return location{}, false, fmt.Errorf("read key index: %w", err)
	}
	l, err = parseLocation(b)
	_ = closer.Close()
	return l, err == nil, err
}

// findSorted looks n records up, whose names ascend, and tells visit of each in
// that order. What visit writes is not seen. It walks rather than looks each one
// up: a block is read once however many of its keys are wanted. There are no
// filters for keys that are not there, which would have to be in memory to be of
// use.
func findSorted(r pebble.Reader, n int, name func(i int) []byte, visit func(i int, at location, ok bool) error) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte{nameKey}, UpperBound: []byte{nameKey + 1}})
	if err != nil {
		return fmt.Errorf("read key index: %w", err)
	}
	defer func() { _ = it.Close() }()
	valid, order := false, -1
	for i := range n {
		want := name(i)
		if valid {
			order = bytes.Compare(it.Key(), want)
		}
		if order < 0 {
			if valid = it.SeekGE(want); valid {
				order = bytes.Compare(it.Key(), want)
			} else if err := it.Error(); err != nil {
				return fmt.Errorf("read key index: %w", err)
			} else {
				order = 1 // there is nothing at or after it
			}
		}
		var at location
		if order == 0 {
			if at, err = parseLocation(it.Value()); err != nil {
				return err
			}
		}
		if err := visit(i, at, order == 0); err != nil {
			return err
		}
	}
	return nil
}

// putFile records a file and, unless it is nil, the bitmap of its vector.
func putFile(b *pebble.Batch, id uint32, f *indexFile, hidden *roaring64.Bitmap) error {
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := b.Set(fileName(nameFile, id), text, nil); err != nil {
		return err
	}
	if hidden == nil || hidden.IsEmpty() {
		return nil
	}
	var buf bytes.Buffer
	buf.Write(binary.AppendUvarint(nil, uint64(len(f.Vector))))
	buf.WriteString(f.Vector)
	if _, err := hidden.WriteTo(&buf); err != nil {
		return err
	}
	return b.Set(fileName(nameVector, id), buf.Bytes(), nil)
}

func dropFile(b *pebble.Batch, id uint32) error {
	if err := b.Delete(fileName(nameFile, id), nil); err != nil {
		return err
	}
	return b.Delete(fileName(nameVector, id), nil)
}

// vector returns the bitmap of a vector that the index has kept, or nil.
func (x *keyIndex) vector(id uint32, unique string) (*roaring64.Bitmap, error) {
	b, closer, err := x.db.Get(fileName(nameVector, id))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read key index: %w", err)
	}
	defer func() { _ = closer.Close() }()
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) || string(b[size:size+int(n)]) != unique {
		return nil, nil
	}
	bm := roaring64.New()
	if _, err := bm.ReadFrom(bytes.NewReader(b[size+int(n):])); err != nil {
		return nil, nil // the table has it too
	}
	return bm, nil
}

// hashUpper returns the end of the entries that begin with a hash.
func hashUpper(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// foundBy describes what rows are found by: an index of another description is
// of no use.
func foundBy(columns []string, types []string, multiset bool) string {
	var b strings.Builder
	if multiset {
		b.WriteString("rows")
	} else {
		b.WriteString("keys")
	}
	for i, c := range columns {
		fmt.Fprintf(&b, " %q %s", c, types[i])
	}
	return b.String()
}
