package deltalog

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// FileOptions say how a data file is written. The zero value will do for tables
// without partitions.
type FileOptions struct {
	// Schema holds the columns; nil means the table's newest schema. It may
	// have columns that the table is to get with the commit.
	Schema *schema.Schema
	// Partition holds the values of the partition columns of all rows, by the
	// columns' names, as the log writes them; nil pointers are NULL, and so are
	// empty strings. Those columns are not written.
	Partition map[string]*string
	// RowGroupRows and Codec are those of [datafile.WriterOptions].
	RowGroupRows int
	Codec        datafile.Codec
	// StatsNames are the columns to gather statistics for. Nil means what the
	// table's properties say, by default the first 32.
	StatsNames []string

	folder   string // of the file, empty or with a slash at the end
	hidden   int    // how many columns at the end of Schema are not the table's
	keepsIDs bool   // see rowTracking.keeps
}

// FileWriter writes a data file. It is used by one goroutine, and ends with one
// call of Close or any number of Abort.
type FileWriter struct {
	t    *Table
	out  store.Writer
	w    *datafile.Writer
	file *File
}

// NewFile begins a data file under a name that is nobody else's.
func (t *Table) NewFile(ctx context.Context, o FileOptions) (*FileWriter, error) {
	snap := t.Snapshot()
	m := snap.metadata
	s := o.Schema
	if s == nil {
		s = m.Schema
	}
	mapping, err := snap.mapping()
	if err != nil {
		return nil, fmt.Errorf("write data file: %w", err)
	}
	name := "part-" + uuid.NewString() + ".parquet"
	f := &File{Path: escapePath(o.folder + name)}
	if o.keepsIDs && snap.protocol.HasFeature(FeatureRowTracking) {
		f.rowTracking = &rowTracking{keeps: true}
	}
	if len(m.PartitionColumns) > 0 {
		dir := ""
		if f.Partition, dir, err = storedPartition(m, mapping, o.Partition); err != nil {
			return nil, fmt.Errorf("write data file: %w", err)
		}
		if s, err = withoutColumns(s, m.PartitionColumns); err != nil {
			return nil, fmt.Errorf("write data file: %w", err)
		}
		name = dir + name
		f.Path = escapePath(o.folder + name)
	}
	out, err := t.st.Create(ctx, o.folder+name)
	if err != nil {
		return nil, fmt.Errorf("write data file: %w", err)
	}
	n, names := statsColumns(m)
	if o.StatsNames != nil {
		names = o.StatsNames
	}
	if shown := s.Fields[:len(s.Fields)-o.hidden]; names == nil && n >= countLeaves(shown) {
		names = (&schema.Schema{Fields: shown}).Names()
	}
	clustered, err := snap.clusteringColumns()
	if err != nil {
		out.Abort()
		return nil, fmt.Errorf("write data file: %w", err)
	}
	w, err := datafile.NewWriter(out, datafile.WriterOptions{
		Schema: s, Mapping: mapping, RowGroupRows: o.RowGroupRows, Codec: o.Codec,
		StatsColumns: n, StatsNames: names, StatsAlso: clustered, CreatedBy: engineName,
	})
	if err != nil {
		out.Abort()
		return nil, fmt.Errorf("write data file: %w", err)
	}
	return &FileWriter{t: t, out: out, w: w, file: f}, nil
}

// Write appends rows, as [datafile.Writer.Write] does.
func (w *FileWriter) Write(b *datafile.Batch) error { return w.w.Write(b) }

// Rows counts the rows so far.
func (w *FileWriter) Rows() int64 { return w.w.Rows() }

// Bytes counts the bytes that have been encoded so far.
func (w *FileWriter) Bytes() int64 { return w.w.Bytes() }

// Close finishes the file, which is durable then, and describes it for
// [Commit.Add]. Until that is committed, nobody sees its rows.
func (w *FileWriter) Close() (*File, error) {
	defer w.out.Abort()
	info, err := w.w.Close()
	if err != nil {
		return nil, fmt.Errorf("write data file: %w", err)
	}
	if err := w.out.Commit(); err != nil {
		return nil, fmt.Errorf("write data file: %w", err)
	}
	stats, err := json.Marshal(info.Stats)
	if err != nil {
		return nil, fmt.Errorf("write data file: statistics: %w", err)
	}
	f := w.file
	f.Size, f.Rows, f.Stats = info.Bytes, info.Rows, string(stats)
	f.ModTime = w.t.now().UnixMilli()
	return f, nil
}

// Abort drops what was written. After Close it does nothing.
func (w *FileWriter) Abort() { w.out.Abort() }

// LinkFile places a data file of another table into this one, and describes it
// for [Commit.Add]. Its bytes are shared where the stores can; its vector is not
// taken along, so that it has all rows of the file.
func (t *Table) LinkFile(ctx context.Context, from *Table, f *File) (*File, error) {
	src, err := f.nameIn(from.st)
	if err != nil {
		return nil, err
	}
	name := "part-" + uuid.NewString() + ".parquet"
	if len(f.Partition) > 0 || len(t.Snapshot().metadata.PartitionColumns) > 0 {
		return nil, fmt.Errorf("link data file: %w: tables with partitions", ErrUnsupported)
	}
	for _, table := range []*Table{t, from} {
		if mapping, err := table.Snapshot().mapping(); err != nil || mapping != schema.ByName {
			return nil, fmt.Errorf("link data file: %w: tables with column mapping", ErrUnsupported)
		}
	}
	if err := store.Link(ctx, t.st, name, from.st, src); err != nil {
		return nil, fmt.Errorf("link data file: %w", err)
	}
	return &File{Path: escapePath(name), Size: f.Size, ModTime: t.now().UnixMilli(), Stats: f.Stats, Rows: f.Rows}, nil
}

// OpenFile opens a data file of the table, all its rows. The closer ends the
// use of the file.
func (s *Snapshot) OpenFile(ctx context.Context, f *File) (*datafile.File, io.Closer, error) {
	mapping, err := s.mapping()
	if err != nil {
		return nil, nil, fmt.Errorf("open data file: %w", err)
	}
	d, closer, err := openFile(ctx, s.st, f)
	if err != nil {
		return nil, nil, err
	}
	return d.Mapped(mapping), closer, nil
}

func openFile(ctx context.Context, st store.Store, f *File) (*datafile.File, io.Closer, error) {
	name, err := f.nameIn(st)
	if err != nil {
		return nil, nil, err
	}
	r, size, err := st.OpenRange(ctx, name)
	if err != nil {
		return nil, nil, fmt.Errorf("open data file: %w", err)
	}
	d, err := datafile.Open(r, size)
	if err != nil {
		_ = r.Close()
		return nil, nil, fmt.Errorf("%s: %w", name, ofDataFile(err))
	}
	return d, r, nil
}

// statsColumns says for how many columns, or for which, statistics are wanted,
// in the terms of [datafile.WriterOptions].
func statsColumns(m *Metadata) (int, []string) {
	if list := m.Property("delta.dataSkippingStatsColumns", ""); list != "" {
		return 0, splitList(list)
	}
	switch n, err := strconv.Atoi(m.Property(PropertyStatsColumns, "32")); {
	case err != nil:
		return 32, nil
	case n < 0: // all of them
		return math.MaxInt, nil
	case n == 0:
		return -1, nil
	default:
		return n, nil
	}
}

// countLeaves counts the columns that can have statistics, those in structs one by
// one.
func countLeaves(fields []schema.Field) int {
	n := 0
	for i := range fields {
		switch t := &fields[i].Type; t.Kind {
		case schema.Struct:
			n += countLeaves(t.Fields)
		case schema.Array, schema.Map, schema.Void:
		default:
			n++
		}
	}
	return n
}

// splitList splits names at commas that are not in backquotes.
func splitList(list string) []string {
	var names []string
	from, quoted := 0, false
	for i := range len(list) {
		switch {
		case list[i] == '`':
			quoted = !quoted
		case list[i] == ',' && !quoted:
			names = append(names, strings.TrimSpace(list[from:i]))
			from = i + 1
		}
	}
	return append(names, strings.TrimSpace(list[from:]))
}

func withoutColumns(s *schema.Schema, names []string) (*schema.Schema, error) {
	drop := map[string]bool{}
	for _, name := range names {
		drop[name] = true
	}
	var keep []string
	for _, name := range s.Names() {
		if !drop[name] {
			keep = append(keep, name)
		}
	}
	return s.Select(keep...)
}

// nullPartition is the folder that stands for NULL.
const nullPartition = "__HIVE_DEFAULT_PARTITION__"

// maxFolder is the longest name, in bytes, that a folder gets: file systems take
// no more.
const maxFolder = 255

// partitionDir returns the folders of partition values, as Hive names them: some
// readers take the values from there. Where a name would be too long, there are
// none.
func partitionDir(columns []string, values map[string]*string) string {
	var dir strings.Builder
	for _, c := range columns {
		name := escapeHive(c) + "=" + nullPartition
		if v := values[c]; v != nil && *v != "" {
			name = escapeHive(c) + "=" + escapeHive(*v)
		}
		if len(name) > maxFolder {
			return ""
		}
		dir.WriteString(name)
		dir.WriteByte('/')
	}
	return dir.String()
}

// escapeHive encodes what Hive encodes in the name of a folder.
func escapeHive(s string) string {
	return escapeBytes(s, func(c byte) bool {
		return c < ' ' || c == 0x7f || strings.IndexByte("\"#%'*/:=?\\{[]^", c) >= 0
	})
}

// escapePath encodes the name of an object as a relative URI.
func escapePath(name string) string {
	return escapeBytes(name, func(c byte) bool {
		plain := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		return !plain && strings.IndexByte("-_.~/=!$&'()*+,;@", c) < 0
	})
}

func escapeBytes(s string, escape func(byte) bool) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; escape(c) {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
