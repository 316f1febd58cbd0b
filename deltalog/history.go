package deltalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/millrace-io/millrace/deltalog/store"
)

// HistoryEntry is one version of a table as its commit tells it.
type HistoryEntry struct {
	// Version is the commit's.
	Version Version
	// Time is when the version came to be, in UTC and whole milliseconds: the
	// in-commit timestamp where the table had them, else the time at which the
	// commit's file was written, moved so that it grows with every version.
	Time time.Time
	// Info is what the commit says of itself; nil means nothing.
	Info *CommitInfo
}

// OpenAtTime reads the version that a table had at a moment: the newest that is
// not younger, by the times of [HistoryEntry]. A moment after the newest version
// gives that one. A moment before the oldest version that can still be read is
// ErrNoVersion, and the error names that version and its time.
func OpenAtTime(ctx context.Context, st store.Store, at time.Time) (*Snapshot, error) {
	s, err := load(ctx, st, head)
	if err != nil {
		return nil, err
	}
	v, err := s.versionAt(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("open at %s: %w", at.UTC().Format(time.RFC3339Nano), err)
	}
	if v == s.version {
		return s, nil
	}
	return load(ctx, st, v)
}

// versionAt finds the version of a moment.
func (s *Snapshot) versionAt(ctx context.Context, at time.Time) (Version, error) {
	times, err := s.commitTimes(ctx)
	if err != nil {
		return 0, err
	}
	if times.oldest > s.version {
		return 0, fmt.Errorf("%w: no commit is in the log", ErrNoVersion)
	}
	lo, hi := times.oldest, s.version // at hi or before, if anywhere
	if in := times.inCommit; lo < in && in <= hi {
		// The times of files and those in commits are of different clocks.
		t, err := times.of(ctx, in)
		if err != nil {
			return 0, err
		}
		if at.Before(t) {
			hi = in - 1
		} else {
			lo = in
		}
	}
	first, err := times.of(ctx, lo)
	if err != nil {
		return 0, err
	}
	if at.Before(first) {
		return 0, fmt.Errorf("%w: the oldest that can be read is %d, of %s", ErrNoVersion, lo, first.Format(time.RFC3339Nano))
	}
	for lo < hi {
		mid := lo + (hi-lo+1)/2
		t, err := times.of(ctx, mid)
		if err != nil {
			return 0, err
		}
		if at.Before(t) {
			hi = mid - 1
		} else {
			lo = mid
		}
	}
	return lo, nil
}

// History yields this version and those before it, the newest first, for as long
// as their commits are in the log. It reads a commit for every step. It ends with
// the first error.
func (s *Snapshot) History(ctx context.Context) iter.Seq2[*HistoryEntry, error] {
	return func(yield func(*HistoryEntry, error) bool) {
		times, err := s.commitTimes(ctx)
		if err != nil {
			yield(nil, fmt.Errorf("history: %w", err))
			return
		}
		for v := s.version; v >= times.first && v >= 0; v-- {
			e := &HistoryEntry{Version: v}
			if e.Info, err = readCommitInfo(ctx, s.st, v); err == nil {
				e.Time, err = times.with(v, e.Info)
			}
			if err != nil {
				yield(nil, fmt.Errorf("history: %w", err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// commitTimes knows when versions came to be.
type commitTimes struct {
	s *Snapshot
	// first is the oldest version whose commit is in the log, with all after
	// it; oldest the first of those that can be read as a table.
	first, oldest Version
	// written is when the files of the commits from first on were written, in
	// milliseconds since 1970, each later than the one before.
	written []int64
	// inCommit is the version from which on commits have their own times.
	inCommit Version
}

// commitTimes lists the log.
func (s *Snapshot) commitTimes(ctx context.Context) (*commitTimes, error) {
	t := &commitTimes{s: s, first: s.version + 1, oldest: s.version + 1, inCommit: s.version + 1}
	var checkpoints []Version
	for info, err := range s.st.List(ctx, logPrefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list log: %w", err)
		}
		f, ok := parseLogName(info.Name)
		switch {
		case !ok || f.version > s.version:
		case f.commit:
			if t.first+Version(len(t.written)) != f.version { // the first, or the one after a gap
				t.first, t.written = f.version, nil
			}
			at := info.ModTime.UnixMilli()
			if n := len(t.written); n > 0 {
				at = max(at, t.written[n-1]+1)
			}
			t.written = append(t.written, at)
		default:
			checkpoints = append(checkpoints, f.version)
		}
	}
	if t.first+Version(len(t.written)) != s.version+1 {
		t.first, t.written = s.version+1, nil // the newest are not there
	}
	switch {
	case t.first == 0:
		t.oldest = 0
	case len(t.written) > 0:
		for _, c := range checkpoints {
			if c >= t.first-1 {
				t.oldest = max(c, t.first)
				break
			}
		}
	}
	if s.inCommitTimestamps() {
		t.inCommit = 0
		if text, ok := s.metadata.Configuration[propertyInCommitVersion]; ok {
			v, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("property %s: %w: %q is no version", propertyInCommitVersion, ErrCorrupt, text)
			}
			t.inCommit = Version(v)
		}
	}
	return t, nil
}

// of returns the time of a version.
func (t *commitTimes) of(ctx context.Context, v Version) (time.Time, error) {
	if v < t.inCommit {
		return t.with(v, nil)
	}
	info, err := readCommitInfo(ctx, t.s.st, v)
	if err != nil {
		return time.Time{}, err
	}
	return t.with(v, info)
}

// with returns the time of a version whose commit tells info.
func (t *commitTimes) with(v Version, info *CommitInfo) (time.Time, error) {
	if v < t.inCommit {
		i := v - t.first
		if i < 0 || i >= Version(len(t.written)) {
			return time.Time{}, fmt.Errorf("version %d: %w: its commit is no longer in the log", v, ErrNoVersion)
		}
		return time.UnixMilli(t.written[i]).UTC(), nil
	}
	if info == nil || info.InCommitTimestamp == 0 {
		return time.Time{}, fmt.Errorf("version %d: %s: %w: it lacks its in-commit timestamp", v, commitName(v), ErrCorrupt)
	}
	return time.UnixMilli(info.InCommitTimestamp).UTC(), nil
}

// readCommitInfo reads what the commit of a version says of itself; nil means
// nothing.
func readCommitInfo(ctx context.Context, st store.Store, v Version) (*CommitInfo, error) {
	b, err := st.Get(ctx, commitName(v))
	if errors.Is(err, store.ErrNotExist) {
		return nil, fmt.Errorf("version %d: %w: %w", v, ErrNoVersion, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read version %d: %w", v, err)
	}
	for line := range bytes.Lines(b) {
		if !bytes.Contains(line, []byte(`"commitInfo"`)) {
			continue
		}
		var a actionJSON
		if err := json.Unmarshal(line, &a); err != nil {
			return nil, fmt.Errorf("version %d: %s: %w: %w", v, commitName(v), ErrCorrupt, err)
		}
		if a.CommitInfo != nil {
			return a.CommitInfo, nil
		}
	}
	return nil, nil
}

// withInCommitTime returns the metadata of a version that switches in-commit
// timestamps on, which tells from when on they are there.
func (m *Metadata) withInCommitTime(v Version, at int64) *Metadata {
	n := m.Clone()
	n.Configuration[propertyInCommitVersion] = strconv.FormatInt(int64(v), 10)
	n.Configuration[propertyInCommitTime] = strconv.FormatInt(at, 10)
	return n
}

// lastTime returns the time of this version in milliseconds since 1970, for one
// without in-commit timestamps.
func (s *Snapshot) lastTime(ctx context.Context) (int64, error) {
	times, err := s.commitTimes(ctx)
	if err != nil {
		return 0, err
	}
	if len(times.written) == 0 {
		return 0, nil
	}
	return slices.Max(times.written), nil
}
