// Package inspect looks into a Delta table: what it is, its files, its commits
// and its rows. It writes nothing.
package inspect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/stores"
)

// View is one version of one table.
type View struct {
	uri      string
	store    store.Store
	snapshot *deltalog.Snapshot
}

// At says which version of a table is looked at. The zero value means the
// newest.
type At struct {
	// Version is a version, unless it is nil.
	Version *deltalog.Version
	// Time asks for the version that the table had then, unless it is zero.
	Time time.Time
}

// Open opens a version of a table by the table's URI or path.
func Open(ctx context.Context, uri string, at At) (*View, error) {
	st, err := stores.OpenURI(ctx, uri)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", uri, err)
	}
	v := &View{uri: uri, store: st}
	switch {
	case at.Version != nil:
		v.snapshot, err = deltalog.OpenAt(ctx, st, *at.Version)
	case !at.Time.IsZero():
		v.snapshot, err = deltalog.OpenAtTime(ctx, st, at.Time)
	default:
		var t *deltalog.Table
		if t, err = deltalog.Open(ctx, st); err == nil {
			v.snapshot = t.Snapshot()
		}
	}
	if err != nil {
		return nil, opening(ctx, st, uri, err)
	}
	return v, nil
}

// OpenStore returns the store of the table at a URI or path, which may be too
// damaged to be opened, but is there.
func OpenStore(ctx context.Context, uri string) (store.Store, error) {
	st, err := stores.OpenURI(ctx, uri)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", uri, err)
	}
	for _, err := range st.List(ctx, "_delta_log/", "") {
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", uri, err)
		}
		return st, nil
	}
	return nil, opening(ctx, st, uri, deltalog.ErrNotTable)
}

// OpenTable opens a table by its URI or path.
func OpenTable(ctx context.Context, uri string) (*deltalog.Table, error) {
	st, err := stores.OpenURI(ctx, uri)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", uri, err)
	}
	t, err := deltalog.Open(ctx, st)
	if err != nil {
		return nil, opening(ctx, st, uri, err)
	}
	return t, nil
}

// opening adds to an error what a person may have meant, or can do.
func opening(ctx context.Context, st store.Store, uri string, err error) error {
	err = fmt.Errorf("open %s: %w", uri, err)
	if !errors.Is(err, deltalog.ErrNotTable) {
		return advise(uri, err)
	}
	place, query, found := strings.Cut(uri, "?")
	place = strings.TrimRight(place, "/")
	if query != "" && found {
		query = "?" + query
	}
	for _, sub := range []string{"latest", "history"} {
		for range st.List(ctx, sub+"/_delta_log/", "") {
			return fmt.Errorf("%w; a table lies in %s/%s%s", err, place, sub, query)
		}
	}
	return fmt.Errorf("%w; the folder of a table holds one called _delta_log", err)
}

// advise adds to an error what there is to do.
func advise(uri string, err error) error {
	switch {
	case errors.Is(err, deltalog.ErrNoVersion):
		return fmt.Errorf("%w; versions are listed by: millrace table history %s", err, shellWord(uri))
	case errors.Is(err, deltalog.ErrCorrupt), errors.Is(err, store.ErrNotExist):
		return fmt.Errorf("%w; all that is wrong, and what to do, is told by: millrace table fsck %s", err, shellWord(uri))
	}
	return err
}

// shellWord quotes what a shell would not take as one word.
func shellWord(s string) string {
	if !strings.ContainsAny(s, " \t\n?&;|<>()$`\"'\\*[]#~!") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// ErrColumns says that columns that are asked for cannot be shown.
var ErrColumns = errors.New("columns")

// SelectColumns returns the columns of those names; nil means all.
func SelectColumns(all *schema.Schema, names []string) (*schema.Schema, error) {
	if names == nil {
		return all, nil
	}
	seen := map[string]bool{}
	for _, name := range names {
		switch {
		case all.Field(name) < 0:
			return nil, fmt.Errorf("%w: no column %q; there are %s", ErrColumns, name, strings.Join(all.Names(), ", "))
		case seen[name]:
			return nil, fmt.Errorf("%w: %q is named twice", ErrColumns, name)
		}
		seen[name] = true
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: none is named; there are %s", ErrColumns, strings.Join(all.Names(), ", "))
	}
	return all.Select(names...)
}

// Info is what a table is.
type Info struct {
	URI              string            `json:"uri"`
	ID               string            `json:"id"`
	Name             string            `json:"name,omitempty"`
	Description      string            `json:"description,omitempty"`
	Version          deltalog.Version  `json:"version"`
	Time             string            `json:"time,omitempty"`
	Operation        string            `json:"operation,omitempty"`
	Rows             *int64            `json:"rows"` // nil where a file does not tell
	Files            int               `json:"files"`
	Bytes            int64             `json:"bytes"`
	MinReader        int               `json:"min_reader_version"`
	MinWriter        int               `json:"min_writer_version"`
	Features         []string          `json:"features"`
	PartitionColumns []string          `json:"partition_columns"`
	Columns          []Column          `json:"columns"`
	Properties       map[string]string `json:"properties"`
	Txns             map[string]int64  `json:"txns"`
	Domains          map[string]string `json:"domains"`
}

// Column is a column of a table.
type Column struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Nullable bool   `json:"nullable"`
}

// Info describes the table.
func (v *View) Info() *Info {
	s := v.snapshot
	m, p := s.Metadata(), s.Protocol()
	in := &Info{
		URI: v.store.URI(), ID: m.ID, Name: m.Name, Description: m.Description,
		Version: s.Version(), Files: s.NumFiles(), Bytes: s.Bytes(),
		MinReader: p.MinReader, MinWriter: p.MinWriter,
		Features: []string{}, PartitionColumns: []string{}, Columns: []Column{},
		Properties: m.Configuration, Txns: map[string]int64{}, Domains: map[string]string{},
	}
	if c := s.Info(); c != nil {
		in.Time, in.Operation = stamp(c.Time()), c.Operation
	}
	if rows, ok := s.Rows(); ok {
		in.Rows = &rows
	}
	in.Features = append(in.Features, p.WriterFeatures...)
	for _, f := range p.ReaderFeatures {
		if !slices.Contains(in.Features, f) {
			in.Features = append(in.Features, f)
		}
	}
	slices.Sort(in.Features)
	in.PartitionColumns = append(in.PartitionColumns, m.PartitionColumns...)
	for _, f := range m.Schema.Fields {
		in.Columns = append(in.Columns, Column{Name: f.Name, Type: f.Type.String(), Nullable: f.Nullable})
	}
	if in.Properties == nil {
		in.Properties = map[string]string{}
	}
	for t := range s.Txns() {
		in.Txns[t.AppID] = t.Version
	}
	for d := range s.Domains() {
		in.Domains[d.Name] = d.Configuration
	}
	return in
}

// File is a data file of a table.
type File struct {
	Path string `json:"path"`
	// Rows counts the rows of the file, Deleted those of them that a deletion
	// vector hides. Rows is nil where the log does not tell.
	Rows      *int64             `json:"rows"`
	Deleted   int64              `json:"deleted"`
	Bytes     int64              `json:"bytes"`
	Time      string             `json:"time"`
	Partition map[string]*string `json:"partition,omitempty"`
}

// Files lists the data files in the order of their paths.
func (v *View) Files() []File {
	files := make([]File, 0, v.snapshot.NumFiles())
	for f := range v.snapshot.Files() {
		e := File{Path: f.Path, Bytes: f.Size, Time: stamp(time.UnixMilli(f.ModTime)), Partition: f.Partition}
		if f.Rows >= 0 {
			e.Rows = &f.Rows
		}
		if f.Vector != nil {
			e.Deleted = f.Vector.Cardinality
		}
		files = append(files, e)
	}
	return files
}

// stamp writes a time for people and programs.
func stamp(t time.Time) string {
	if t.IsZero() || t.UnixMilli() == 0 {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}
