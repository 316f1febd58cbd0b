package deltalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/deltalog/store"
)

const (
	// vacuumCheckpoints is how many checkpoints are searched for removed files.
	vacuumCheckpoints = 16
	// vacuumDeletes is how many files are looked at and deleted at once.
	vacuumDeletes = 16
)

// VacuumOptions say what of a table is deleted. The zero value will do.
type VacuumOptions struct {
	// Retention is for how long files stay that are no longer in the table.
	// Zero means the table's property delta.deletedFileRetentionDuration, or a
	// week. Less than that is refused, unless Force is set: readers of older
	// versions would lose their files, and writers those that they have not
	// committed yet.
	Retention time.Duration
	Force     bool
	// Full lists the whole table and deletes what the log does not know too,
	// such as what writers left that did not come to their end. Otherwise only
	// what the log says was removed is deleted, at no listing, and changed rows,
	// whose folder is listed where the table may have any.
	Full bool
	// DryRun deletes nothing.
	DryRun bool
}

// Vacuumed says what a vacuum deleted, or would delete.
type Vacuumed struct {
	// Names are those of the objects, sorted.
	Names []string
	// Bytes is their size.
	Bytes int64
}

// Vacuum deletes files that have not been in the table for longer than the
// retention: data files, deletion vectors and files of changed rows, and, with
// Full, anything else but the log and what begins with a dot or an underscore.
// Files that the newest version needs stay, and so do those that were removed or
// written lately. Tables whose features bind writers in ways that are not known are
// refused, and so are those with files elsewhere. What was deleted before an error
// is told besides it, and the next vacuum goes on from there.
//
// Without Full it finds what was removed in the log: in commits since the newest
// checkpoint, and in checkpoints. What these have forgotten is left to a full
// one.
func (t *Table) Vacuum(ctx context.Context, o VacuumOptions) (Vacuumed, error) {
	done, err := t.vacuum(ctx, o)
	if err != nil {
		return done, fmt.Errorf("vacuum: %w", err)
	}
	return done, nil
}

func (t *Table) vacuum(ctx context.Context, o VacuumOptions) (Vacuumed, error) {
	s, err := t.Refresh(ctx)
	if err != nil {
		return Vacuumed{}, err
	}
	if err := checkWrite(s.protocol, s.metadata); err != nil {
		return Vacuumed{}, err
	}
	keep, err := s.retention()
	if err != nil {
		return Vacuumed{}, err
	}
	if o.Retention > 0 {
		if o.Retention < keep && !o.Force {
			return Vacuumed{}, fmt.Errorf("%w: files of the last %v may be in use; a retention of %v has to be forced", ErrInvalid, keep, o.Retention)
		}
		keep = o.Retention
	}
	horizon := t.now().Add(-keep)
	var gone map[string]store.Info
	if o.Full {
		gone = map[string]store.Info{}
		err = t.unknownFiles(ctx, "", horizon, gone)
	} else {
		gone, err = t.removedFiles(ctx, horizon)
	}
	if err != nil {
		return Vacuumed{}, err
	}
	// Others may have put files back meanwhile, as RESTORE does.
	if s, err = t.Refresh(ctx); err != nil {
		return Vacuumed{}, err
	}
	needed, unnamed, err := t.neededFiles(ctx, s, horizon)
	if err != nil {
		return Vacuumed{}, err
	}
	if unnamed != nil {
		return Vacuumed{}, fmt.Errorf("a file of the table cannot be told from others: %w", unnamed)
	}
	if err := t.neededChanges(ctx, gone, horizon, needed); err != nil {
		return Vacuumed{}, err
	}
	maps.DeleteFunc(gone, func(name string, _ store.Info) bool { return needed[name] })
	return t.deleteAll(ctx, gone, o.DryRun)
}

// deleteAll deletes objects, some at a time, and tells which were there and are
// not any more; dry, which would be. Each is looked at right before it goes, so
// that what ends early has done some of it.
func (t *Table) deleteAll(ctx context.Context, gone map[string]store.Info, dry bool) (Vacuumed, error) {
	var mu sync.Mutex
	var done Vacuumed
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(vacuumDeletes)
	for _, name := range slices.Sorted(maps.Keys(gone)) {
		g.Go(func() error {
			size := gone[name].Size
			if size == sizeUnknown {
				r, n, err := t.st.OpenRange(ctx, name)
				if errors.Is(err, store.ErrNotExist) {
					return nil
				}
				if err == nil {
					err = r.Close()
				}
				if err != nil {
					return err
				}
				size = n
			}
			if !dry {
				if err := t.st.Delete(ctx, name); err != nil {
					return err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			done.Names, done.Bytes = append(done.Names, name), done.Bytes+size
			return nil
		})
	}
	err := g.Wait()
	slices.Sort(done.Names)
	return done, err
}

// sizeUnknown is the size of an object of which it is not known whether it is
// there.
const sizeUnknown = -1

// retention returns for how long removed files are kept.
func (s *Snapshot) retention() (time.Duration, error) {
	keep, err := parseInterval(s.metadata.Property(PropertyDeletedFileRetention, ""))
	if keep == 0 {
		keep = tombstoneRetention
	}
	return keep, err
}

// tombstones calls yield for the files that were removed before s, as far as
// its commits and the newest checkpoint that it knows remember them. Where that
// has been cleaned away, another one is found, and files can come twice.
func (t *Table) tombstones(ctx context.Context, s *Snapshot, yield func(tombstone) error) error {
	err := t.rememberedBy(ctx, s, yield)
	if !errors.Is(err, store.ErrNotExist) {
		return err
	}
	if s, err = load(ctx, t.st, s.version); err != nil {
		return err
	}
	return t.rememberedBy(ctx, s, yield)
}

// rememberedBy is tombstones of the checkpoint that s is built on.
func (t *Table) rememberedBy(ctx context.Context, s *Snapshot, yield func(tombstone) error) error {
	for chain := s.removed; chain != nil; chain = chain.before {
		for _, r := range chain.files {
			if err := yield(r); err != nil {
				return err
			}
		}
	}
	if s.base.version < 0 {
		return nil
	}
	return readTombstones(ctx, t.st, s.base, yield)
}

// neededFiles names the objects that the table consists of, and those that were
// removed after the horizon. Where the table has a file without a name in its
// store, unnamed says why, and needed lacks it.
func (t *Table) neededFiles(ctx context.Context, s *Snapshot, horizon time.Time) (needed map[string]bool, unnamed, err error) {
	needed = map[string]bool{}
	need := func(name string) { needed[name] = true }
	for f := range s.Files() {
		if err := f.objects(t.st, need); err != nil && unnamed == nil {
			unnamed = err
		}
	}
	err = t.tombstones(ctx, s, func(r tombstone) error {
		if r.deleted > horizon.UnixMilli() {
			_ = r.file.objects(t.st, need) // what is elsewhere is not deleted here
		}
		return nil
	})
	return needed, unnamed, err
}

// objects yields the names in a store of a file and of its vector's file, and
// tells of those that have none.
func (f *File) objects(st store.Store, yield func(name string)) error {
	name, err := f.nameIn(st)
	if err == nil {
		yield(name)
	}
	if f.Vector == nil || f.Vector.StorageType == "i" {
		return err
	}
	name, vectorErr := f.Vector.nameIn(st)
	if vectorErr == nil {
		yield(name)
	}
	return errors.Join(err, vectorErr)
}

// removedFiles returns the objects that were removed before the horizon, of which
// many are no longer there, and those of changed rows that were written before it.
func (t *Table) removedFiles(ctx context.Context, horizon time.Time) (map[string]store.Info, error) {
	gone := map[string]store.Info{}
	yield := func(r tombstone) error {
		// One without a time says nothing of when it was removed.
		if r.deleted > 0 && r.deleted <= horizon.UnixMilli() {
			_ = r.file.objects(t.st, func(name string) { // what is elsewhere is not deleted here
				if store.CheckName(name) == nil {
					gone[name] = store.Info{Name: name, Size: sizeUnknown}
				}
			})
		}
		return nil
	}
	if err := t.tombstones(ctx, t.Snapshot(), yield); err != nil {
		return nil, err
	}
	l, err := listLog(ctx, t.st, 0)
	if err != nil {
		return nil, err
	}
	n := len(l.checkpoints)
	for i := 0; i < n; i += max(1, n/vacuumCheckpoints) {
		err := readTombstones(ctx, t.st, l.checkpoints[i], yield)
		if err != nil && !errors.Is(err, store.ErrNotExist) && !errors.Is(err, ErrCorrupt) {
			return nil, err
		}
	}
	if t.Snapshot().protocol.HasFeature(FeatureChangeDataFeed) {
		return gone, t.unknownFiles(ctx, changeDir, horizon, gone)
	}
	return gone, nil
}

// unknownFiles puts the objects into gone whose names begin with prefix, that were
// written before the horizon and are neither of the log nor hidden.
func (t *Table) unknownFiles(ctx context.Context, prefix string, horizon time.Time, gone map[string]store.Info) error {
	for info, err := range t.st.List(ctx, prefix, "") {
		if err != nil {
			return err
		}
		if !isHidden(info.Name) && !info.ModTime.After(horizon) {
			gone[info.Name] = info
		}
	}
	return nil
}

// changeDelay is how long after a file of changed rows its commit can follow.
const changeDelay = 24 * time.Hour

// neededChanges adds to needed those of the objects that are changed rows of
// versions after the horizon. Nothing but commits names them, so that commits are
// read: those that may name one that was written before the horizon.
func (t *Table) neededChanges(ctx context.Context, gone map[string]store.Info, horizon time.Time, needed map[string]bool) error {
	var newest time.Time
	for name, info := range gone {
		if strings.HasPrefix(name, changeDir) && info.ModTime.After(newest) {
			newest = info.ModTime
		}
	}
	end := newest.Add(changeDelay)
	if newest.IsZero() || end.Before(horizon) {
		return nil
	}
	from, to := Version(-1), Version(-1)
	for info, err := range t.st.List(ctx, logPrefix, "") {
		if err != nil {
			return err
		}
		at, ok := parseLogName(info.Name)
		if !ok || !at.commit || !info.ModTime.After(horizon) || info.ModTime.After(end) {
			continue
		}
		if from < 0 {
			from = at.version
		}
		to = at.version
	}
	for ; from >= 0 && from <= to; from += fetchAhead {
		texts, err := commitTexts(ctx, t.st, from, min(to, from+fetchAhead-1))
		if err != nil {
			return err
		}
		for i, text := range texts {
			if !bytes.Contains(text, []byte(changeDir)) {
				continue
			}
			c, err := parseCommit(text)
			if err != nil {
				return fmt.Errorf("version %d: %w", from+Version(i), err)
			}
			for _, f := range c.changes {
				_ = f.objects(t.st, func(name string) { needed[name] = true }) // what is elsewhere is not deleted here
			}
		}
	}
	return nil
}

// isHidden tells whether an object is none of the table's data, by the names of
// its folders and its own. Folders of partitions are data whatever their name,
// and so are changes.
func isHidden(name string) bool {
	if strings.HasPrefix(name, logDir) {
		return true
	}
	for part := range strings.SplitSeq(name, "/") {
		if part+"/" == changeDir || strings.Contains(part, "=") {
			continue
		}
		if strings.HasPrefix(part, "_") || strings.HasPrefix(part, ".") {
			return true
		}
	}
	return false
}
