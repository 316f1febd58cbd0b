package deltalog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// Columns that tell of a change, and what the first of them holds.
const (
	// ColumnChangeType is a String: one of the values below.
	ColumnChangeType = "_change_type"
	// ColumnCommitVersion is a Long: the version that made the change.
	ColumnCommitVersion = "_commit_version"
	// ColumnCommitTime is a Timestamp: when that version came to be, as
	// [HistoryEntry] has it.
	ColumnCommitTime = "_commit_timestamp"

	ChangeInsert     = "insert"
	ChangeDelete     = "delete"
	ChangeUpdateFrom = "update_preimage"
	ChangeUpdateTo   = "update_postimage"
)

// changeDir holds files of changed rows.
const changeDir = "_change_data/"

// Changes yields the rows that the versions from one to another, both included,
// inserted and deleted, version by version: the wanted columns of the schema of
// the last version, then ColumnChangeType, ColumnCommitVersion and
// ColumnCommitTime. Versions that only rearranged rows yield nothing. A batch is
// valid until the next iteration. It ends with the first error: ErrUnsupported,
// naming the version, where the table had no change data feed; ErrNoVersion where
// a commit, or a file of rows that are gone, is no longer there.
//
// o.Files is ignored.
func (t *Table) Changes(ctx context.Context, from, to Version, o ReadOptions) iter.Seq2[*datafile.Batch, error] {
	return func(yield func(*datafile.Batch, error) bool) {
		r := &changeReader{ctx: ctx, st: t.st, o: o, yield: yield}
		if err := r.run(from, to); err != nil && !errors.Is(err, errStopped) {
			yield(nil, fmt.Errorf("changes from %d to %d: %w", from, to, err))
		}
	}
}

// errStopped says that the caller wants no more.
var errStopped = errors.New("stopped")

// changeReader reads the changes of versions.
type changeReader struct {
	ctx   context.Context
	st    store.Store
	o     ReadOptions
	yield func(*datafile.Batch, error) bool

	files *Snapshot // to read data files with: of the last version
	feed  *Snapshot // the same with ColumnChangeType
	names []string  // of the columns wanted

	before *Snapshot // a version that is past; nil if none has been needed
}

func (r *changeReader) run(from, to Version) error {
	if from < 0 || to < from {
		return fmt.Errorf("%w: no such range", ErrNoVersion)
	}
	last, err := load(r.ctx, r.st, to)
	if err != nil {
		return err
	}
	if err := r.check(from, to); err != nil {
		return err
	}
	if err := r.prepare(last); err != nil {
		return err
	}
	times, err := last.commitTimes(r.ctx)
	if err != nil {
		return err
	}
	for v := from; v <= to; v++ {
		commit, err := fetchOne(r.ctx, r.st, v)
		if err != nil {
			return goneVersion(v, err)
		}
		at, err := times.with(v, commit.log.info)
		if err != nil {
			return err
		}
		if err := r.version(commit.log, v, at.UnixMicro()); err != nil {
			return fmt.Errorf("version %d: %w", v, err)
		}
	}
	return nil
}

func goneVersion(v Version, err error) error {
	if errors.Is(err, store.ErrNotExist) {
		return fmt.Errorf("version %d: %w: its commit is no longer in the log: %w", v, ErrNoVersion, err)
	}
	return err
}

// check looks whether the table had a feed in all versions of a range.
func (r *changeReader) check(from, to Version) error {
	before, err := load(r.ctx, r.st, from)
	if err != nil {
		return err
	}
	m := before.metadata
	for v := from; v <= to; v++ {
		if v > from {
			commit, err := fetchOne(r.ctx, r.st, v)
			if err != nil {
				return goneVersion(v, err)
			}
			if commit.log.metadata != nil {
				m = commit.log.metadata
			}
		}
		if !m.enabled(PropertyChangeDataFeed) {
			return fmt.Errorf("%w: the change data feed was off in version %d: property %s", ErrUnsupported, v, PropertyChangeDataFeed)
		}
	}
	return nil
}

func (r *changeReader) prepare(last *Snapshot) error {
	if err := checkRead(last.protocol, last.metadata); err != nil {
		return err
	}
	r.files = last
	r.names = r.o.Columns
	if r.names == nil {
		r.names = last.metadata.Schema.Names()
	}
	if _, err := last.metadata.Schema.Select(r.names...); err != nil {
		return err
	}
	withType := *last
	withType.metadata = last.metadata.Clone()
	withType.metadata.Schema = withChangeType(last.metadata.Schema)
	r.feed = &withType
	return nil
}

func withChangeType(s *schema.Schema) *schema.Schema {
	return withHidden(s, hiddenColumn(ColumnChangeType, schema.String))
}

// version yields the changes of one commit.
func (r *changeReader) version(c *commitLog, v Version, at int64) error {
	send := func(b *datafile.Batch) error {
		if !r.yield(withConstant(withConstant(b, ColumnCommitVersion, int64(v)), ColumnCommitTime, at), nil) {
			return errStopped
		}
		return nil
	}
	if len(c.changes) > 0 {
		o := r.o
		o.Columns = append(append([]string{}, r.names...), ColumnChangeType)
		for _, f := range c.changes {
			for live, err := range r.feed.ReadFile(r.ctx, f, o) {
				if err != nil {
					return goneFile(f, err)
				}
				if err := send(live.Batch); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return r.derive(c, v, send)
}

// goneFile names a file that is no longer there.
func goneFile(f *File, err error) error {
	if errors.Is(err, store.ErrNotExist) {
		return fmt.Errorf("file %s: %w: %w", f.Path, ErrNoVersion, err)
	}
	return err
}

// derive yields the changes of a commit that lists none: rows of files that came
// were inserted, rows of files that went were deleted. Of a file that stayed with
// another vector, the vectors tell.
func (r *changeReader) derive(c *commitLog, v Version, send func(*datafile.Batch) error) error {
	rearranged := fileSet{}.edit(editsOf(c.rearranged))
	added := map[string]*File{}
	for _, f := range c.adds {
		if rearranged.get(f) == nil {
			added[f.Path] = f
		}
	}
	for _, gone := range c.removes {
		if !gone.dataChange {
			continue
		}
		old, err := r.removed(gone.file, v)
		if err != nil {
			return err
		}
		next := added[old.Path]
		if next == nil {
			if err := r.rows(old, nil, false, ChangeDelete, send); err != nil {
				return err
			}
			continue
		}
		delete(added, old.Path)
		if err := r.difference(old, next, send); err != nil {
			return err
		}
	}
	for _, f := range c.adds {
		if added[f.Path] != f {
			continue
		}
		if err := r.rows(f, nil, false, ChangeInsert, send); err != nil {
			return err
		}
	}
	return nil
}

// removed returns a file that a version removed with its partition values, which
// the removal need not repeat: the version before has them.
func (r *changeReader) removed(f *File, v Version) (*File, error) {
	if len(r.files.metadata.PartitionColumns) == 0 || len(f.Partition) > 0 || v == 0 {
		return f, nil
	}
	var err error
	if r.before == nil {
		r.before, err = load(r.ctx, r.st, v-1)
	} else {
		r.before, err = r.before.follow(r.ctx, v-1, v-1)
	}
	if err != nil {
		return nil, fmt.Errorf("partition values of file %s: %w", f.Path, err)
	}
	if was := r.before.files.get(f); was != nil {
		return was, nil
	}
	return f, nil
}

// difference yields what another vector of the same file changed.
func (r *changeReader) difference(old, next *File, send func(*datafile.Batch) error) error {
	was, err := readVector(r.ctx, r.st, old)
	if err != nil {
		return goneFile(old, err)
	}
	is, err := readVector(r.ctx, r.st, next)
	if err != nil {
		return goneFile(next, err)
	}
	if gone := roaring64.AndNot(is, was); !gone.IsEmpty() {
		if err := r.rows(old, gone, true, ChangeDelete, send); err != nil {
			return err
		}
	}
	if back := roaring64.AndNot(was, is); !back.IsEmpty() {
		return r.rows(next, back, true, ChangeInsert, send)
	}
	return nil
}

// rows yields live rows of a file as changes of one type: those of a set, or all.
func (r *changeReader) rows(f *File, set *roaring64.Bitmap, in bool, kind string, send func(*datafile.Batch) error) error {
	o := r.o
	o.Columns = r.names
	for b, err := range r.files.selectRows(r.ctx, f, set, in, o) {
		if err != nil {
			return goneFile(f, err)
		}
		if err := send(withConstant(b, ColumnChangeType, kind)); err != nil {
			return err
		}
	}
	return nil
}

// rowsIn yields the live rows of a file that are in a set, or that are not.
func (s *Snapshot) rowsIn(ctx context.Context, f *File, set *roaring64.Bitmap, in bool) iter.Seq2[*datafile.Batch, error] {
	return s.selectRows(ctx, f, set, in, ReadOptions{})
}

func (s *Snapshot) selectRows(ctx context.Context, f *File, set *roaring64.Bitmap, in bool, o ReadOptions) iter.Seq2[*datafile.Batch, error] {
	return func(yield func(*datafile.Batch, error) bool) {
		var keep []int32
		for live, err := range s.ReadFile(ctx, f, o) {
			if err != nil {
				yield(nil, err)
				return
			}
			b := live.Batch
			if set != nil {
				keep = keep[:0]
				for row, at := range live.Index {
					if set.Contains(uint64(at)) == in {
						keep = append(keep, int32(row))
					}
				}
				if len(keep) == 0 {
					continue
				}
				if len(keep) < len(live.Index) {
					b = b.Gather(keep)
				}
			}
			if !yield(b, nil) {
				return
			}
		}
	}
}

// withConstant returns a batch with one more column, which holds one value: a
// string, or an integer, which is a moment where the name says so.
func withConstant[V string | int64](b *datafile.Batch, name string, value V) *datafile.Batch {
	kind := schema.Long
	switch any(value).(type) {
	case string:
		kind = schema.String
	default:
		if name == ColumnCommitTime {
			kind = schema.Timestamp
		}
	}
	c := datafile.NewColumn(schema.Type{Kind: kind})
	for range b.Rows() {
		switch v := any(value).(type) {
		case string:
			c.AppendString(v)
		case int64:
			c.AppendInt(v)
		}
	}
	return withColumn(b, name, c)
}

// withColumn returns a batch with one more column.
func withColumn(b *datafile.Batch, name string, c *datafile.Column) *datafile.Batch {
	n := len(b.Cols)
	return &datafile.Batch{Names: append(b.Names[:n:n], name), Cols: append(b.Cols[:n:n], c), First: b.First}
}

// NewChangeFile begins a file of rows that a commit changes, for
// [Commit.ChangeData]. Its rows have ColumnChangeType besides the table's columns.
func (t *Table) NewChangeFile(ctx context.Context, o FileOptions) (*FileWriter, error) {
	if o.Schema == nil {
		o.Schema = t.Snapshot().metadata.Schema
	}
	o.Schema, o.hidden, o.folder = withChangeType(o.Schema), 1, changeDir
	return t.NewFile(ctx, o)
}

// checkChangeData checks the files of changed rows of a commit.
func (p *planned) checkChangeData(c *Commit) error {
	if len(c.ChangeData) == 0 {
		return nil
	}
	if !p.metadata.enabled(PropertyChangeDataFeed) || !p.protocol.has(FeatureChangeDataFeed) || c.Rearrange {
		return fmt.Errorf("%w: files of changed rows for a table, or a commit, that has no changes to tell", ErrInvalid)
	}
	for _, f := range c.ChangeData {
		name, err := f.Name()
		if err != nil || !strings.HasPrefix(name, changeDir) || f.Size <= 0 {
			return fmt.Errorf("%w: file %s of changed rows is not in %s, or has no size", ErrInvalid, f.Path, changeDir)
		}
	}
	return nil
}
