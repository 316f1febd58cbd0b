package deltalog

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/millrace-io/millrace/deltalog/store"
)

const (
	// checkpointCommits is after how many commits a checkpoint is due.
	checkpointCommits = 100
	// checkpointLogBytes is after how many bytes of commits one is due, if that
	// is also as much as the last checkpoint, and checkpointFewest commits.
	checkpointLogBytes = 32 << 20
	checkpointFewest   = 10
	// checkpointGroupRows is the number of actions that are held at once while
	// a checkpoint is written.
	checkpointGroupRows = 5000
	// tombstoneRetention is for how long a removed file is remembered where
	// the table does not say.
	tombstoneRetention = 7 * 24 * time.Hour
)

// The rows of a checkpoint: each has one action.
type (
	checkpointRow struct {
		Txn      *checkpointTxn      `parquet:"txn,optional"`
		Add      *checkpointAdd      `parquet:"add,optional"`
		Remove   *checkpointRemove   `parquet:"remove,optional"`
		Metadata *checkpointMetadata `parquet:"metaData,optional"`
		Protocol *checkpointProtocol `parquet:"protocol,optional"`
		Domain   *checkpointDomain   `parquet:"domainMetadata,optional"`
	}
	checkpointTxn struct {
		AppID       string `parquet:"appId"`
		Version     int64  `parquet:"version"`
		LastUpdated *int64 `parquet:"lastUpdated,optional"`
	}
	checkpointAdd struct {
		Path                    string             `parquet:"path"`
		PartitionValues         map[string]*string `parquet:"partitionValues"`
		Size                    int64              `parquet:"size"`
		ModificationTime        int64              `parquet:"modificationTime"`
		DataChange              bool               `parquet:"dataChange"`
		Stats                   *string            `parquet:"stats,optional"`
		Tags                    map[string]string  `parquet:"tags,optional"`
		DeletionVector          *checkpointVector  `parquet:"deletionVector,optional"`
		BaseRowID               *int64             `parquet:"baseRowId,optional"`
		DefaultRowCommitVersion *int64             `parquet:"defaultRowCommitVersion,optional"`
		ClusteringProvider      *string            `parquet:"clusteringProvider,optional"`
	}
	checkpointRemove struct {
		Path                    string             `parquet:"path"`
		DeletionTimestamp       *int64             `parquet:"deletionTimestamp,optional"`
		DataChange              bool               `parquet:"dataChange"`
		ExtendedFileMetadata    *bool              `parquet:"extendedFileMetadata,optional"`
		PartitionValues         map[string]*string `parquet:"partitionValues,optional"`
		Size                    *int64             `parquet:"size,optional"`
		DeletionVector          *checkpointVector  `parquet:"deletionVector,optional"`
		BaseRowID               *int64             `parquet:"baseRowId,optional"`
		DefaultRowCommitVersion *int64             `parquet:"defaultRowCommitVersion,optional"`
	}
	checkpointVector struct {
		StorageType  string `parquet:"storageType"`
		PathOrInline string `parquet:"pathOrInlineDv"`
		Offset       *int32 `parquet:"offset,optional"`
		SizeInBytes  int32  `parquet:"sizeInBytes"`
		Cardinality  int64  `parquet:"cardinality"`
	}
	checkpointMetadata struct {
		ID               string            `parquet:"id"`
		Name             *string           `parquet:"name,optional"`
		Description      *string           `parquet:"description,optional"`
		Format           checkpointFormat  `parquet:"format"`
		SchemaString     string            `parquet:"schemaString"`
		PartitionColumns []string          `parquet:"partitionColumns,list"`
		Configuration    map[string]string `parquet:"configuration"`
		CreatedTime      *int64            `parquet:"createdTime,optional"`
	}
	checkpointFormat struct {
		Provider string            `parquet:"provider"`
		Options  map[string]string `parquet:"options"`
	}
	checkpointProtocol struct {
		MinReader      int32    `parquet:"minReaderVersion"`
		MinWriter      int32    `parquet:"minWriterVersion"`
		ReaderFeatures []string `parquet:"readerFeatures,list,optional"`
		WriterFeatures []string `parquet:"writerFeatures,list,optional"`
	}
	checkpointDomain struct {
		Domain        string `parquet:"domain"`
		Configuration string `parquet:"configuration"`
		Removed       bool   `parquet:"removed"`
	}
)

// CheckpointDue tells whether the newest version is far enough from the newest
// checkpoint for another one: by default 100 commits, fewer if they are large.
func (t *Table) CheckpointDue() bool {
	s := t.Snapshot()
	every, err := strconv.Atoi(s.metadata.Property(PropertyCheckpointInterval, ""))
	if err != nil || every < 1 {
		every = checkpointCommits
	}
	commits := int64(s.version - s.base.version)
	large := s.logBytes-s.base.logBytes >= max(s.base.bytes, checkpointLogBytes)
	return commits >= int64(every) || large && commits >= checkpointFewest
}

// Checkpoint writes what the newest version holds into one file, so that a
// reader need not replay the log before it. It may run beside commits. When
// another writer has made the same checkpoint, that is success.
func (t *Table) Checkpoint(ctx context.Context) error {
	t.checkpointing.Lock()
	defer t.checkpointing.Unlock()
	s := t.Snapshot()
	if s.version == s.base.version {
		return nil
	}
	if err := checkWrite(s.protocol, s.metadata); err != nil {
		return fmt.Errorf("checkpoint %d: %w", s.version, err)
	}
	hint, err := t.writeCheckpoint(ctx, s)
	if errors.Is(err, store.ErrNotExist) {
		// The checkpoint before was cleaned away. What it remembered of removed
		// files, another one does.
		var fresh *Snapshot
		if fresh, err = load(ctx, t.st, s.version); err == nil {
			hint, err = t.writeCheckpoint(ctx, fresh)
		}
	}
	if err != nil {
		return fmt.Errorf("checkpoint %d: %w", s.version, err)
	}
	t.mu.Lock()
	c := hint.ref()
	c.logBytes = s.logBytes
	t.publish(t.snap.Load().withBase(c))
	t.mu.Unlock()
	if err := t.pointAt(ctx, hint); err != nil {
		return fmt.Errorf("checkpoint %d: %w", s.version, err)
	}
	return nil
}

// pointAt writes the hint, unless it names a later checkpoint already.
func (t *Table) pointAt(ctx context.Context, h hintJSON) error {
	if ok, err := t.pointsTo(ctx, h.Version); err != nil || ok {
		return err
	}
	b, err := h.encode()
	if err != nil {
		return err
	}
	return t.st.Put(ctx, hintName, b)
}

// pointsTo tells whether the hint names a checkpoint that is there, of a version or
// a later one.
func (t *Table) pointsTo(ctx context.Context, least Version) (bool, error) {
	now, ok := readHint(ctx, t.st)
	if !ok || now < least {
		return false, nil
	}
	l, err := listLog(ctx, t.st, now)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(l.checkpoints, func(c checkpointRef) bool { return c.version == now }), nil
}

// writeCheckpoint writes the checkpoint of a version and looks whether it can
// be read.
func (t *Table) writeCheckpoint(ctx context.Context, s *Snapshot) (hintJSON, error) {
	if s.metadata.Property(PropertyCheckpointPolicy, "") == "v2" && s.protocol.has(FeatureV2Checkpoint) {
		return t.writeV2Checkpoint(ctx, s)
	}
	h := hintJSON{Version: s.version, NumAdds: int64(s.NumFiles())}
	f, err := createActions[checkpointRow](ctx, t.st, checkpointRef{version: s.version}.names()[0], newStatsForm(s.metadata))
	if err != nil {
		return h, err
	}
	defer f.out.Abort()
	if err := t.streamActions(ctx, s, &checkpointWriter{put: f.write}); err != nil {
		return h, err
	}
	h.Size, h.SizeInBytes, err = f.close(ctx, t.st)
	return h, err
}

// actionFile is a Parquet file of actions that is being written, in row groups
// of bounded size.
type actionFile[T any] struct {
	name string
	out  store.Writer
	w    *parquet.GenericWriter[T]
	rows int64
	buf  []T
	// made writes rows that have more columns, in place of w; nil if there are
	// none.
	made  *parquet.GenericWriter[any]
	maker *rowMaker
}

func createActions[T any](ctx context.Context, st store.Store, name string, form statsForm) (f *actionFile[T], err error) {
	out, err := st.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	options := []parquet.WriterOption{
		parquet.Compression(&parquet.Snappy), parquet.DataPageVersion(1), parquet.CreatedBy(engineName, "", ""),
		parquet.SkipPageBounds("add", "stats"), parquet.SkipPageBounds("metaData", "schemaString"),
		parquet.SkipPageBounds("domainMetadata", "configuration"),
	}
	f = &actionFile[T]{name: name, out: out}
	if form.parsed == nil {
		f.w = parquet.NewGenericWriter[T](out, options...)
		return f, nil
	}
	defer func() {
		if err != nil {
			out.Abort()
		}
	}()
	defer corruptPanic(&err) // for names that the library takes for more than names
	f.maker = newRowMaker(form, reflect.TypeFor[T]())
	f.made = parquet.NewGenericWriter[any](out, append(options, parquet.SchemaOf(reflect.New(f.maker.row).Interface()))...)
	return f, nil
}

func (f *actionFile[T]) write(r T) error {
	f.rows++
	if f.made != nil {
		row, err := f.maker.make(reflect.ValueOf(r))
		if err != nil {
			return err
		}
		if _, err := f.made.Write([]any{row}); err != nil || f.rows%checkpointGroupRows != 0 {
			return err
		}
		return f.made.Flush()
	}
	f.buf = append(f.buf, r)
	if len(f.buf) < checkpointGroupRows {
		return nil
	}
	return f.flush()
}

func (f *actionFile[T]) flush() error {
	if _, err := f.w.Write(f.buf); err != nil {
		return err
	}
	clear(f.buf)
	f.buf = f.buf[:0]
	return f.w.Flush()
}

// close makes the file visible, unless another writer has done so, looks whether
// it can be read, and returns its size.
func (f *actionFile[T]) close(ctx context.Context, st store.Store) (rows, bytes int64, err error) {
	if len(f.buf) > 0 {
		if err := f.flush(); err != nil {
			return 0, 0, err
		}
	}
	end := f.made.Close
	if f.made == nil {
		end = f.w.Close
	}
	if err := end(); err != nil {
		return 0, 0, err
	}
	written := true
	if err := f.out.Commit(); errors.Is(err, store.ErrExist) {
		written = false
	} else if err != nil {
		return 0, 0, err
	}
	rows, bytes, err = checkpointSize(ctx, st, f.name)
	if err == nil && written && rows != f.rows {
		err = fmt.Errorf("%s: %w: it has %d actions, written were %d", f.name, ErrCorrupt, rows, f.rows)
	}
	return rows, bytes, err
}

// checkpointSize counts the actions and the bytes of a file of a checkpoint.
func checkpointSize(ctx context.Context, st store.Store, name string) (rows, bytes int64, err error) {
	if strings.HasSuffix(name, ".json") {
		b, err := st.Get(ctx, name)
		return int64(strings.Count(strings.TrimSpace(string(b)), "\n") + 1), int64(len(b)), err
	}
	r, size, err := st.OpenRange(ctx, name)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = r.Close() }()
	f, err := openParquet(&source{r: r}, size)
	if err != nil {
		return 0, 0, fmt.Errorf("read %s: %w", name, err)
	}
	return f.NumRows(), size, nil
}

// streamActions writes all actions of a version.
func (t *Table) streamActions(ctx context.Context, s *Snapshot, w *checkpointWriter) error {
	if err := w.protocol(s.protocol); err != nil {
		return err
	}
	if err := w.metadata(s.metadata); err != nil {
		return err
	}
	for txn := range s.Txns() {
		if err := w.txn(txn); err != nil {
			return err
		}
	}
	for d := range s.Domains() {
		if err := w.put(checkpointRow{Domain: &checkpointDomain{d.Name, d.Configuration, false}}); err != nil {
			return err
		}
	}
	if err := t.streamTombstones(ctx, s, w); err != nil {
		return err
	}
	for f := range s.Files() {
		if err := w.add(f); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// streamTombstones writes the files that were removed lately: those of the
// checkpoint before, and those since.
func (t *Table) streamTombstones(ctx context.Context, s *Snapshot, w *checkpointWriter) error {
	keep, err := s.retention()
	if err != nil {
		return err
	}
	horizon := t.now().Add(-keep).UnixMilli()
	type identity struct{ path, vector string }
	seen := map[identity]bool{}
	write := func(r tombstone) error {
		id := identity{r.file.Path, r.file.Vector.uniqueID()}
		if r.deleted <= horizon || seen[id] || s.Has(r.file) {
			return nil
		}
		return w.remove(r)
	}
	for chain := s.removed; chain != nil; chain = chain.before {
		for _, r := range chain.files {
			if err := write(r); err != nil {
				return err
			}
			seen[identity{r.file.Path, r.file.Vector.uniqueID()}] = true
		}
	}
	if s.base.version < 0 {
		return nil
	}
	return readTombstones(ctx, t.st, s.base, write)
}

// checkpointWriter turns what a version holds into rows.
type checkpointWriter struct{ put func(checkpointRow) error }

func (w *checkpointWriter) protocol(p *Protocol) error {
	row := &checkpointProtocol{MinReader: int32(p.MinReader), MinWriter: int32(p.MinWriter)}
	// The lists are there, if empty, exactly for the versions that have them.
	if p.MinReader >= 3 {
		row.ReaderFeatures = append([]string{}, p.ReaderFeatures...)
	}
	if p.MinWriter >= 7 {
		row.WriterFeatures = append([]string{}, p.WriterFeatures...)
	}
	return w.put(checkpointRow{Protocol: row})
}

func (w *checkpointWriter) metadata(m *Metadata) error {
	j, err := m.json()
	if err != nil {
		return err
	}
	return w.put(checkpointRow{Metadata: &checkpointMetadata{
		ID: j.ID, Name: unlessZero(j.Name), Description: unlessZero(j.Description),
		Format:       checkpointFormat{j.Format.Provider, j.Format.Options},
		SchemaString: j.SchemaString, PartitionColumns: j.PartitionColumns, Configuration: j.Configuration,
		CreatedTime: unlessZero(j.CreatedTime),
	}})
}

func (w *checkpointWriter) txn(t Txn) error {
	return w.put(checkpointRow{Txn: &checkpointTxn{t.AppID, t.Version, unlessZero(t.LastUpdated)}})
}

func (w *checkpointWriter) remove(r tombstone) error {
	full := true
	row := &checkpointRemove{
		Path: r.file.Path, DeletionTimestamp: &r.deleted, DataChange: r.dataChange, ExtendedFileMetadata: &full,
		PartitionValues: partitionJSON(r.file.Partition), Size: &r.file.Size, DeletionVector: vectorRow(r.file.Vector),
	}
	if rt := r.file.rowTracking; rt != nil {
		row.BaseRowID, row.DefaultRowCommitVersion = rt.BaseRowID, rt.DefaultRowCommitVersion
	}
	return w.put(checkpointRow{Remove: row})
}

func (w *checkpointWriter) add(f *File) error {
	row := &checkpointAdd{
		Path: f.Path, PartitionValues: partitionJSON(f.Partition), Size: f.Size, ModificationTime: f.ModTime,
		Stats: unlessZero(f.Stats), Tags: f.Tags, DeletionVector: vectorRow(f.Vector),
	}
	if rt := f.rowTracking; rt != nil {
		row.BaseRowID, row.DefaultRowCommitVersion = rt.BaseRowID, rt.DefaultRowCommitVersion
		row.ClusteringProvider = unlessZero(rt.ClusteringProvider)
	}
	return w.put(checkpointRow{Add: row})
}

func vectorRow(v *Vector) *checkpointVector {
	if v == nil {
		return nil
	}
	return &checkpointVector{v.StorageType, v.PathOrInline, unlessZero(v.Offset), v.SizeInBytes, v.Cardinality}
}

// unlessZero returns a pointer to v, or nil.
func unlessZero[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
