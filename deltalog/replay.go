package deltalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/millrace-io/millrace/deltalog/store"
)

// head asks for the newest version.
const head Version = -1

// listing is what a part of the log's folder holds.
type listing struct {
	from        Version         // the listing is without what is older
	checkpoints []checkpointRef // complete ones, oldest first
	last        Version         // of the commits, or -1
	first       Version         // of the commits, or -1
	whole       Version         // up to it, no commit is missing after first; or -1
}

// newest returns the last version of a commit or a checkpoint, or -1.
func (l *listing) newest() Version {
	if n := len(l.checkpoints); n > 0 {
		return max(l.last, l.checkpoints[n-1].version)
	}
	return l.last
}

// empty tells whether there is no log at all.
func (l *listing) empty() bool { return l.last < 0 && len(l.checkpoints) == 0 }

// listLog lists the log from a version on.
func listLog(ctx context.Context, st store.Store, from Version) (*listing, error) {
	l := &listing{from: from, first: -1, last: -1, whole: -1}
	after := ""
	if from > 0 {
		after = fmt.Sprintf("%s%020d", logDir, from) // sorts before all files of that version
	}
	type set struct {
		version Version
		parts   int
	}
	many := map[set]checkpointRef{} // its parts are those that were seen
	for info, err := range st.List(ctx, logPrefix, after) {
		if err != nil {
			return nil, fmt.Errorf("list log: %w", err)
		}
		f, ok := parseLogName(info.Name)
		switch {
		case !ok:
		case f.commit:
			if l.first < 0 {
				l.first, l.whole = f.version, f.version
			}
			if l.last = f.version; f.version == l.whole+1 {
				l.whole = f.version
			}
		case f.parts == 0:
			l.checkpoints = append(l.checkpoints, checkpointRef{version: f.version, unique: f.unique, bytes: info.Size})
		default:
			c := many[set{f.version, f.parts}]
			c.version, c.parts, c.bytes = f.version, c.parts+1, c.bytes+info.Size
			many[set{f.version, f.parts}] = c
			if c.parts == f.parts {
				l.checkpoints = append(l.checkpoints, c)
			}
		}
	}
	slices.SortStableFunc(l.checkpoints, func(a, b checkpointRef) int { return cmp.Compare(a.version, b.version) })
	return l, nil
}

// load reads a version from the log; head means the newest. Commits can be
// cleaned away between the listing and their reading: then there is a newer
// checkpoint, which a second attempt finds.
func load(ctx context.Context, st store.Store, at Version) (*Snapshot, error) {
	s, err := loadOnce(ctx, st, at)
	if errors.Is(err, ErrCorrupt) && ctx.Err() == nil {
		s, err = loadOnce(ctx, st, at)
	}
	return s, err
}

func loadOnce(ctx context.Context, st store.Store, at Version) (*Snapshot, error) {
	from := Version(0)
	if hint, ok := readHint(ctx, st); ok && (at == head || hint <= at) {
		from = hint
	}
	l, err := listLog(ctx, st, from)
	if err != nil {
		return nil, err
	}
	s, damage, err := base(ctx, st, l, at)
	if s == nil && err == nil && from > 0 {
		// The hint is stale, or what it names cannot be read.
		if l, err = listLog(ctx, st, 0); err != nil {
			return nil, err
		}
		s, damage, err = base(ctx, st, l, at)
	}
	if err != nil {
		return nil, err
	}
	if s == nil {
		if l.empty() {
			return nil, fmt.Errorf("open %s: %w", st.URI(), ErrNotTable)
		}
		switch {
		case l.first == 0:
		case damage != nil:
			return nil, fmt.Errorf("open %s: %w: the log begins at version %d and no checkpoint can be read: %w", st.URI(), ErrCorrupt, max(l.first, 0), damage)
		case at != head && len(l.checkpoints) > 0:
			return nil, fmt.Errorf("open %s: version %d: %w: the oldest that can be read is %d", st.URI(), at, ErrNoVersion, l.checkpoints[0].version)
		default:
			return nil, fmt.Errorf("open %s: %w: the log begins at version %d and has no checkpoint before it", st.URI(), ErrCorrupt, l.first)
		}
		s = &Snapshot{st: st, version: -1, base: noCheckpoint}
	}
	return s.follow(ctx, at, l.last)
}

// base reads the newest readable checkpoint of a listing that is not after at;
// nil when there is none. damage tells what is wrong with the newest that is not
// readable.
func base(ctx context.Context, st store.Store, l *listing, at Version) (s *Snapshot, damage, err error) {
	for _, c := range slices.Backward(l.checkpoints) {
		if at != head && c.version > at {
			continue
		}
		s, err := readCheckpoint(ctx, st, c)
		if err == nil {
			return s, nil, nil
		}
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, store.ErrNotExist) {
			return nil, nil, err
		}
		if damage == nil {
			damage = err
		}
	}
	return nil, damage, nil
}

// fetchAhead is how many commits are read at once while catching up.
const fetchAhead = 16

// follow applies the commits after s: up to a version, or until there is no
// next one. The commits up to known were seen in a listing.
func (s *Snapshot) follow(ctx context.Context, to, known Version) (*Snapshot, error) {
	last := known
	if to != head {
		last = min(known, to)
	}
	if last-s.version > 1 {
		var err error
		if s, err = s.followKnown(ctx, last); err != nil {
			return nil, err
		}
	}
	for to == head || s.version < to {
		logs, err := fetch(ctx, s.st, s.version+1, 1)
		if err == nil {
			next, err := s.apply(logs[0].log, logs[0].size)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", commitName(s.version+1), err)
			}
			s = next
			continue
		}
		if !errors.Is(err, store.ErrNotExist) {
			return nil, err
		}
		if s, err = s.end(to, known); err != nil {
			return nil, err
		}
		break
	}
	if s.refused != nil {
		return nil, s.refused
	}
	return s.withCommitTime(ctx)
}

// bulkEdits is how many changes to the files are gathered before they are made.
const bulkEdits = 1 << 18

// followKnown applies the commits up to a version, all of which were seen in a
// listing. It ends early where one is not there. The set of files is changed not
// for every commit but for many at once.
func (s *Snapshot) followKnown(ctx context.Context, last Version) (*Snapshot, error) {
	var edits []fileEdit
	made := *s
	s = &made
	var failed error
	for failed == nil && s.version < last {
		logs, err := fetch(ctx, s.st, s.version+1, int(min(last-s.version, fetchAhead)))
		if err != nil && !errors.Is(err, store.ErrNotExist) {
			return nil, err
		}
		for _, l := range logs {
			next, err := s.applyAllButFiles(l.log, l.size)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", commitName(s.version+1), err)
			}
			s = next
			for _, r := range l.log.removes {
				edits = append(edits, fileEdit{file: r.file, remove: true})
			}
			for _, f := range l.log.adds {
				edits = append(edits, fileEdit{file: f})
			}
		}
		failed = err
		if len(edits) >= bulkEdits || failed != nil || s.version == last {
			s.files = s.files.edit(edits)
			edits = edits[:0]
		}
	}
	s.sumFiles()
	s.added, s.addedSince = nil, s.version
	return s, nil
}

// end judges a log that has no version after s.
func (s *Snapshot) end(to, known Version) (*Snapshot, error) {
	switch {
	case to != head && known > s.version:
		return nil, fmt.Errorf("version %d: %w: version %d is not in the log, or no longer", to, ErrNoVersion, s.version+1)
	case to != head:
		return nil, fmt.Errorf("version %d: %w: the newest is %d", to, ErrNoVersion, s.version)
	case known > s.version:
		return nil, fmt.Errorf("open %s: %w: the log has version %d, but not version %d: %s is missing",
			s.st.URI(), ErrCorrupt, known, s.version+1, commitName(s.version+1))
	case s.version < 0:
		return nil, fmt.Errorf("open %s: %w", s.st.URI(), ErrNotTable)
	}
	return s, nil
}

// fetched is a commit as it was read.
type fetched struct {
	log  *commitLog
	size int64 // of its file, in bytes
}

// fetch reads n commits from a version on, and returns those before the first
// that failed.
func fetch(ctx context.Context, st store.Store, from Version, n int) ([]fetched, error) {
	logs, errs := make([]fetched, n), make([]error, n)
	var wg sync.WaitGroup
	for i := 1; i < n; i++ {
		wg.Go(func() { logs[i], errs[i] = fetchOne(ctx, st, from+Version(i)) })
	}
	logs[0], errs[0] = fetchOne(ctx, st, from)
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return logs[:i], err
		}
	}
	return logs, nil
}

func fetchOne(ctx context.Context, st store.Store, v Version) (fetched, error) {
	name := commitName(v)
	b, err := st.Get(ctx, name)
	if err != nil {
		return fetched{}, fmt.Errorf("read version %d: %w", v, err)
	}
	c, err := parseCommit(b)
	if err != nil {
		return fetched{}, fmt.Errorf("version %d: %s: %w", v, name, err)
	}
	return fetched{c, int64(len(b))}, nil
}

// withCommitTime finds the time of a version that was read from a checkpoint,
// where the table needs it for the next one. A commit that has been cleaned
// away leaves it unknown.
func (s *Snapshot) withCommitTime(ctx context.Context) (*Snapshot, error) {
	if s.info != nil || s.version < 0 || !s.inCommitTimestamps() {
		return s, nil
	}
	info, err := readCommitInfo(ctx, s.st, s.version)
	if errors.Is(err, ErrNoVersion) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	n := *s
	n.info = info
	return &n, nil
}
