package deltalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/store"
)

// readCheckpoint reads the version that a checkpoint holds, without the files
// that were removed before it. One that cannot be decoded is ErrCorrupt. The
// version may be one that is refused.
func readCheckpoint(ctx context.Context, st store.Store, c checkpointRef) (*Snapshot, error) {
	s := &Snapshot{
		st: st, version: c.version, base: c, addedSince: c.version,
		txns: map[string]Txn{}, domains: map[string]Domain{},
	}
	var edits []fileEdit
	err := readActions(ctx, st, c, []string{"protocol", "metaData", "txn", "domainMetadata", "add"}, func(a *actionJSON) error {
		log := commitLog{}
		if err := log.take(a); err != nil {
			return err
		}
		switch {
		case log.protocol != nil:
			s.protocol = log.protocol
		case log.metadata != nil:
			s.metadata = log.metadata
		case len(log.txns) > 0:
			s.txns[log.txns[0].AppID] = log.txns[0]
		case len(log.domains) > 0 && !log.domains[0].Removed:
			s.domains[log.domains[0].Name] = log.domains[0]
		case len(log.adds) > 0:
			edits = append(edits, fileEdit{file: log.adds[0]})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read checkpoint %d: %w", c.version, err)
	}
	s.files = s.files.edit(edits)
	all := &commitLog{protocol: s.protocol, metadata: s.metadata}
	s.sumFiles()
	for f := range s.Files() {
		if f.Vector != nil {
			all.adds = append(all.adds, f)
		}
	}
	if err := s.check(all); err != nil {
		return nil, fmt.Errorf("read checkpoint %d: %w", c.version, err)
	}
	if s.refused != nil {
		s.refused = fmt.Errorf("read checkpoint %d: %w", c.version, s.refused)
	}
	return s, nil
}

// readTombstones calls yield for every removed file that a checkpoint holds.
func readTombstones(ctx context.Context, st store.Store, c checkpointRef, yield func(tombstone) error) error {
	err := readActions(ctx, st, c, []string{"remove"}, func(a *actionJSON) error {
		if a.Remove == nil {
			return nil
		}
		return yield(a.Remove.tombstone())
	})
	if err != nil {
		return fmt.Errorf("read checkpoint %d: %w", c.version, err)
	}
	return nil
}

// readActions calls yield for every action of the given kinds: those in the
// checkpoint's own files, then those in its sidecars.
func readActions(ctx context.Context, st store.Store, c checkpointRef, kinds []string, yield func(*actionJSON) error) error {
	var sidecars []string
	take := func(a *actionJSON) error {
		if a.Sidecar == nil {
			return yield(a)
		}
		name, err := sidecarName(a.Sidecar.Path)
		sidecars = append(sidecars, name)
		return err
	}
	for _, name := range c.names() {
		if err := readPart(ctx, st, name, append([]string{"sidecar"}, kinds...), take); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, name := range sidecars {
		if err := readPart(ctx, st, name, kinds, yield); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// readPart reads one file of a checkpoint, in whichever form it is.
func readPart(ctx context.Context, st store.Store, name string, kinds []string, yield func(*actionJSON) error) error {
	if strings.HasSuffix(name, ".json") {
		return readJSONPart(ctx, st, name, kinds, yield)
	}
	r, size, err := st.OpenRange(ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	src := &source{r: r}
	if err := readGroups(ctx, src, size, kinds, yield); err != nil {
		return src.cause(err)
	}
	return nil
}

func readGroups(ctx context.Context, src *source, size int64, kinds []string, yield func(*actionJSON) error) error {
	f, err := openParquet(src, size)
	if err != nil {
		return err
	}
	for _, g := range f.RowGroups() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := readGroup(f, g, kinds, yield); err != nil {
			return err
		}
	}
	return nil
}

// source tells a store that fails from a file that is damaged: the library makes
// one kind of error of both. It is used by one goroutine.
type source struct {
	r   io.ReaderAt
	err error // the first of the store
}

// ReadAt implements io.ReaderAt.
func (s *source) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.r.ReadAt(p, off)
	if err != nil && err != io.EOF && off >= 0 && s.err == nil {
		s.err = err
	}
	return n, err
}

// cause returns the store's error, where there was one, or else err.
func (s *source) cause(err error) error {
	if s.err != nil {
		return s.err
	}
	return err
}

// openParquet reads a footer. The library panics on some damaged files; that is
// an error here.
func openParquet(src *source, size int64) (f *parquet.File, err error) {
	defer corruptPanic(&err)
	if err := datafile.CheckFooter(src, size); err != nil {
		return nil, src.cause(fmt.Errorf("%w: %w", ErrCorrupt, err))
	}
	f, err = parquet.OpenFile(src, size, parquet.SkipMagicBytes(true), parquet.SkipBloomFilters(true), parquet.SkipPageIndex(true))
	if err != nil {
		return nil, src.cause(fmt.Errorf("%w: %w", ErrCorrupt, err))
	}
	return f, nil
}

func corruptPanic(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", ErrCorrupt, p)
	}
}

// actionReader reads the actions of one kind, row by row; nil where a row has
// another.
type actionReader func() *actionJSON

func readGroup(f *parquet.File, g parquet.RowGroup, kinds []string, yield func(*actionJSON) error) (err error) {
	defer corruptPanic(&err)
	leaves := &groupLeaves{root: f.Root(), group: g}
	defer leaves.close()
	var readers []actionReader
	for _, kind := range kinds {
		n := len(leaves.open)
		if next := actionReaders[kind](leaves); len(leaves.open) > n { // otherwise there are no such columns
			readers = append(readers, next)
		}
	}
	if leaves.err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, leaves.err)
	}
	if len(readers) == 0 {
		return nil
	}
	for range g.NumRows() {
		for _, next := range readers {
			a := next()
			if leaves.err != nil {
				return fmt.Errorf("%w: %w", ErrCorrupt, leaves.err)
			}
			if a == nil {
				continue
			}
			if err := yield(a); err != nil {
				return err
			}
		}
	}
	return nil
}

// actionReaders make a reader of each kind.
var actionReaders = map[string]func(*groupLeaves) actionReader{
	"protocol": func(g *groupLeaves) actionReader {
		reader, writer := g.leaf("protocol", "minReaderVersion"), g.leaf("protocol", "minWriterVersion")
		rf, wf := g.list("protocol", "readerFeatures"), g.list("protocol", "writerFeatures")
		return func() *actionJSON {
			r, ok := reader.int()
			w, _ := writer.int()
			p := &Protocol{MinReader: int(r), MinWriter: int(w), ReaderFeatures: rf.strings(), WriterFeatures: wf.strings()}
			if !ok {
				return nil
			}
			return &actionJSON{Protocol: p}
		}
	},
	"metaData": func(g *groupLeaves) actionReader {
		id, name, desc := g.key("metaData", "id"), g.leaf("metaData", "name"), g.leaf("metaData", "description")
		provider, options := g.leaf("metaData", "format", "provider"), g.pairs("metaData", "format", "options")
		text, columns := g.leaf("metaData", "schemaString"), g.list("metaData", "partitionColumns")
		config, created := g.pairs("metaData", "configuration"), g.leaf("metaData", "createdTime")
		return func() *actionJSON {
			value, there := id.key()
			m := &metadataJSON{
				ID: value, Name: name.string(), Description: desc.string(),
				Format:       formatJSON{Provider: provider.string(), Options: plain(options.strings())},
				SchemaString: text.string(), PartitionColumns: columns.strings(), Configuration: plain(config.strings()),
			}
			m.CreatedTime, _ = created.int()
			if !there {
				return nil
			}
			return &actionJSON{Metadata: m}
		}
	},
	"txn": func(g *groupLeaves) actionReader {
		id, version, updated := g.leaf("txn", "appId"), g.leaf("txn", "version"), g.leaf("txn", "lastUpdated")
		return func() *actionJSON {
			t := &Txn{AppID: id.string()}
			var ok bool
			t.Version, ok = version.int()
			t.LastUpdated, _ = updated.int()
			if !ok {
				return nil
			}
			return &actionJSON{Txn: t}
		}
	},
	"domainMetadata": func(g *groupLeaves) actionReader {
		name, config := g.key("domainMetadata", "domain"), g.leaf("domainMetadata", "configuration")
		removed := g.leaf("domainMetadata", "removed")
		return func() *actionJSON {
			value, there := name.key()
			d := &Domain{Name: value, Configuration: config.string(), Removed: removed.bool()}
			if !there {
				return nil
			}
			return &actionJSON{Domain: d}
		}
	},
	"add": func(g *groupLeaves) actionReader {
		path, size, mod := g.key("add", "path"), g.leaf("add", "size"), g.leaf("add", "modificationTime")
		parts, tags, stats := g.pairs("add", "partitionValues"), g.pairs("add", "tags"), g.leaf("add", "stats")
		parsed, vector := g.parsedStats(), g.vector("add")
		base, version := g.leaf("add", "baseRowId"), g.leaf("add", "defaultRowCommitVersion")
		cluster := g.leaf("add", "clusteringProvider")
		return func() *actionJSON {
			name, there := path.key()
			a := &addJSON{
				Path: name, PartitionValues: parts.strings(), Tags: plain(tags.strings()),
				Stats: stats.string(), DeletionVector: vector(), BaseRowID: base.intOrNil(),
				DefaultRowCommitVersion: version.intOrNil(), ClusteringProvider: cluster.string(),
				DataChange: true, // whatever it was: nobody asks that of a checkpoint
			}
			a.Size, _ = size.int()
			a.ModificationTime, _ = mod.int()
			if parsed != nil {
				if text := parsed(); a.Stats == "" {
					a.Stats = text
				}
			}
			if !there {
				return nil
			}
			return &actionJSON{Add: a}
		}
	},
	"sidecar": func(g *groupLeaves) actionReader {
		path := g.key("sidecar", "path")
		return func() *actionJSON {
			name, there := path.key()
			if !there {
				return nil
			}
			return &actionJSON{Sidecar: &sidecarJSON{Path: name}}
		}
	},
	"remove": func(g *groupLeaves) actionReader {
		path, deleted, change := g.key("remove", "path"), g.leaf("remove", "deletionTimestamp"), g.leaf("remove", "dataChange")
		parts, size, vector := g.pairs("remove", "partitionValues"), g.leaf("remove", "size"), g.vector("remove")
		base, version := g.leaf("remove", "baseRowId"), g.leaf("remove", "defaultRowCommitVersion")
		return func() *actionJSON {
			name, there := path.key()
			r := &removeJSON{
				Path: name, DataChange: change.bool(), PartitionValues: parts.strings(), DeletionVector: vector(),
				BaseRowID: base.intOrNil(), DefaultRowCommitVersion: version.intOrNil(),
			}
			r.DeletionTimestamp, _ = deleted.int()
			r.Size, _ = size.int()
			if !there {
				return nil
			}
			return &actionJSON{Remove: r}
		}
	},
}

// plain turns NULLs into empty strings.
func plain(m map[string]*string) map[string]string {
	if m == nil {
		return nil
	}
	p := make(map[string]string, len(m))
	for k, v := range m {
		if v != nil {
			p[k] = *v
		} else {
			p[k] = ""
		}
	}
	return p
}

// groupLeaves opens the leaf columns of a row group. It keeps the first error of
// any of them.
type groupLeaves struct {
	root  *parquet.Column
	group parquet.RowGroup
	open  []*leaf
	err   error
}

func (g *groupLeaves) close() {
	for _, l := range g.open {
		l.drop()
		if l.pages != nil {
			_ = l.pages.Close()
		}
	}
}

// find returns the column at a path, or nil.
func (g *groupLeaves) find(path []string) *parquet.Column {
	c := g.root
	for _, name := range path {
		if c = c.Column(name); c == nil {
			return nil
		}
	}
	return c
}

// read returns a reader of one leaf; of NULLs if there is no such column.
func (g *groupLeaves) read(c *parquet.Column) *leaf {
	l := &leaf{g: g}
	if c == nil || !c.Leaf() {
		return l
	}
	l.pages = g.group.ColumnChunks()[c.Index()].Pages()
	g.open = append(g.open, l)
	return l
}

func (g *groupLeaves) leaf(path ...string) *leaf { return g.read(g.find(path)) }

// key returns a reader of what every action of a kind has.
func (g *groupLeaves) key(kind, name string) *leaf {
	l := g.leaf(kind, name)
	if l.pages == nil && g.find([]string{kind}) != nil && g.err == nil {
		g.err = fmt.Errorf("no column %s.%s", kind, name)
	}
	return l
}

// list returns a reader of a list of strings, whatever its levels are called.
func (g *groupLeaves) list(path ...string) *leaf {
	c := g.find(path)
	for c != nil && !c.Leaf() {
		if len(c.Columns()) != 1 {
			return g.read(nil)
		}
		c = c.Columns()[0]
	}
	return g.read(c)
}

// pairs returns a reader of a map of strings.
func (g *groupLeaves) pairs(path ...string) *pairs {
	c := g.find(path)
	if c == nil || len(c.Columns()) != 1 || len(c.Columns()[0].Columns()) != 2 {
		return &pairs{g.read(nil), g.read(nil)}
	}
	kv := c.Columns()[0]
	key, value := kv.Column("key"), kv.Column("value")
	if key == nil || value == nil { // writers that call them otherwise keep their order
		key, value = kv.Columns()[0], kv.Columns()[1]
	}
	return &pairs{g.read(key), g.read(value)}
}

// vector returns a reader of the deletion vector of an add or a remove.
func (g *groupLeaves) vector(kind string) func() *Vector {
	col := func(name string) *leaf { return g.leaf(kind, "deletionVector", name) }
	storage, path, offset := col("storageType"), col("pathOrInlineDv"), col("offset")
	size, cardinality := col("sizeInBytes"), col("cardinality")
	return func() *Vector {
		v := Vector{StorageType: storage.string(), PathOrInline: path.string()}
		o, _ := offset.int()
		n, _ := size.int()
		v.Offset, v.SizeInBytes = int32(o), int32(n)
		v.Cardinality, _ = cardinality.int()
		if v.StorageType == "" {
			return nil
		}
		return &v
	}
}

// pairs reads maps.
type pairs struct{ keys, values *leaf }

// strings returns the map of the next row, nil when it is empty or NULL.
func (p *pairs) strings() map[string]*string {
	keys, values := p.keys.row(), p.values.row()
	var m map[string]*string
	for i, k := range keys {
		if k.IsNull() || i >= len(values) {
			continue
		}
		if m == nil {
			m = make(map[string]*string, len(keys))
		}
		var v *string
		if !values[i].IsNull() {
			s := string(values[i].ByteArray())
			v = &s
		}
		m[string(k.ByteArray())] = v
	}
	return m
}

// leaf reads the values of one leaf column, row by row.
type leaf struct {
	g      *groupLeaves
	pages  parquet.Pages // nil: there is no such column
	page   parquet.Page
	values parquet.ValueReader
	buf    [256]parquet.Value
	n, pos int
	out    []parquet.Value
}

// fill makes the next value available and tells whether there is one.
func (l *leaf) fill() bool {
	for l.pos == l.n {
		if l.g.err != nil {
			return false
		}
		if l.values == nil {
			page, err := l.pages.ReadPage()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					l.g.err = err
				}
				return false
			}
			l.page, l.values = page, page.Values()
		}
		n, err := l.values.ReadValues(l.buf[:])
		l.pos, l.n = 0, n
		if err != nil && !errors.Is(err, io.EOF) {
			l.g.err = err
			return false
		}
		if n == 0 {
			l.drop()
		}
	}
	return true
}

// drop gives the page back.
func (l *leaf) drop() {
	if l.page != nil {
		parquet.Release(l.page)
	}
	l.page, l.values = nil, nil
}

// one returns the value of the next row of a column without lists.
func (l *leaf) one() parquet.Value {
	if l.pages == nil {
		return parquet.NullValue()
	}
	if !l.fill() {
		if l.g.err == nil {
			l.g.err = errors.New("a column is shorter than its row group")
		}
		return parquet.NullValue()
	}
	v := l.buf[l.pos]
	l.pos++
	return v
}

// row returns the values of the next row, valid until the next call.
func (l *leaf) row() []parquet.Value {
	if l.pages == nil {
		return nil
	}
	l.out = append(l.out[:0], keepValue(l.one()))
	for l.fill() && l.buf[l.pos].RepetitionLevel() > 0 {
		l.out = append(l.out, keepValue(l.buf[l.pos]))
		l.pos++
	}
	return l.out
}

// keepValue makes a value outlive its page.
func keepValue(v parquet.Value) parquet.Value {
	if v.IsNull() {
		return v
	}
	return v.Clone()
}

// key returns a string that is there if the row has an action of its kind.
func (l *leaf) key() (string, bool) {
	v := l.one()
	switch {
	case v.IsNull() && v.DefinitionLevel() == 0:
		return "", false
	case v.IsNull() || v.Kind() != parquet.ByteArray:
		if l.g.err == nil {
			l.g.err = errors.New("an action without its key")
		}
		return "", false
	}
	return string(v.ByteArray()), true
}

func (l *leaf) string() string {
	v := l.one()
	if v.IsNull() || v.Kind() != parquet.ByteArray {
		return ""
	}
	return string(v.ByteArray())
}

func (l *leaf) int() (int64, bool) {
	v := l.one()
	switch {
	case v.IsNull():
		return 0, false
	case v.Kind() == parquet.Int32:
		return int64(v.Int32()), true
	case v.Kind() == parquet.Int64:
		return v.Int64(), true
	}
	return 0, false
}

func (l *leaf) intOrNil() *int64 {
	n, ok := l.int()
	if !ok {
		return nil
	}
	return &n
}

func (l *leaf) bool() bool {
	v := l.one()
	return !v.IsNull() && v.Kind() == parquet.Boolean && v.Boolean()
}

func (l *leaf) strings() []string {
	var list []string
	for _, v := range l.row() {
		if !v.IsNull() && v.Kind() == parquet.ByteArray {
			list = append(list, string(v.ByteArray()))
		}
	}
	return slices.Clip(list)
}
