package deltalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/deltalog/store"
)

// Finding is one thing that is wrong with a table.
type Finding struct {
	// File is the name of the object that is meant, in the table's store.
	File string
	// Problem says what is wrong, and Remedy what can be done, in words.
	Problem, Remedy string
}

// String returns the finding as one sentence.
func (f Finding) String() string { return f.File + ": " + f.Problem + "; " + f.Remedy }

// FsckOptions say how closely a table is looked at.
type FsckOptions struct {
	// Quick opens data files without reading their rows, so that statistics are
	// not compared with them.
	Quick bool
}

// Fsck reads a table back and tells what is wrong with it: versions that are
// missing or cannot be read, checkpoints that are not what the log before them
// makes, files that are missing, of another size, or nobody's, deletion vectors
// that are damaged, and statistics that do not hold. Without findings the table
// is whole. A table that cannot be read is a finding; an error is about the store,
// or wraps ErrUnsupported where there is something that this package cannot judge.
// It lists the store and changes nothing.
func Fsck(ctx context.Context, st store.Store, o FsckOptions) ([]Finding, error) {
	c := &fsck{st: st, o: o, now: wallClock()}
	if err := c.run(ctx); err != nil {
		return c.found, fmt.Errorf("fsck: %w", err)
	}
	return c.found, nil
}

// fsck looks at one table.
type fsck struct {
	st      store.Store
	o       FsckOptions
	now     time.Time
	objects map[string]store.Info
	found   []Finding
	s       *Snapshot
	unread  error // what could not be judged
}

func (c *fsck) say(file, remedy, problem string, args ...any) {
	c.found = append(c.found, Finding{File: file, Problem: fmt.Sprintf(problem, args...), Remedy: remedy})
}

const (
	restoreFile = "put the file back from a backup"
	dropRows    = "put the file back from a backup, or take it out of the table and load its rows again"
	rewriteIt   = "write its rows anew, by a compaction that takes it in"
	vacuumIt    = "a full vacuum deletes it once it is older than the retention"
)

func (c *fsck) run(ctx context.Context) error {
	c.objects = map[string]store.Info{}
	for info, err := range c.st.List(ctx, "", "") {
		if err != nil {
			return err
		}
		c.objects[info.Name] = info
	}
	l, err := listLog(ctx, c.st, 0)
	if err != nil {
		return err
	}
	if l.empty() {
		return fmt.Errorf("%s: %w", c.st.URI(), ErrNotTable)
	}
	if err := c.commits(ctx, l); err != nil {
		return err
	}
	if err := c.checkpoints(ctx, l); err != nil {
		return err
	}
	c.hint(ctx, l)
	if c.s, err = load(ctx, c.st, head); err != nil {
		if ctx.Err() != nil || errors.Is(err, ErrUnsupported) {
			return err
		}
		c.say(logDir, "mend what is said of the log", "the newest version cannot be read: %v", err)
		return nil
	}
	for f := range c.s.Files() {
		if err := c.file(ctx, f); err != nil {
			return err
		}
	}
	if err := c.orphans(ctx); err != nil {
		return err
	}
	return c.unread
}

// versions returns those whose commits are there, in their order.
func (c *fsck) versions() []Version {
	var versions []Version
	for name := range c.objects {
		if f, ok := parseLogName(name); ok && f.commit {
			versions = append(versions, f.version)
		}
	}
	slices.Sort(versions)
	return versions
}

// gap tells of the versions from next on that are missing before v.
func (c *fsck) gap(next, v Version) {
	switch {
	case next == v-1:
		c.say(commitName(next), restoreFile, "version %d is missing, and version %d is there", next, v)
	case next < v:
		c.say(commitName(next), restoreFile, "versions %d to %d are missing, and version %d is there", next, v-1, v)
	}
}

// commits reads all commits.
func (c *fsck) commits(ctx context.Context, l *listing) error {
	if l.first < 0 {
		return nil
	}
	var clock int64
	next := l.first
	for _, v := range c.versions() {
		c.gap(next, v)
		next = v + 1
		name := commitName(v)
		b, err := c.st.Get(ctx, name)
		if err != nil {
			return err
		}
		log, err := parseCommit(b)
		if errors.Is(err, ErrUnsupported) {
			c.unread = errors.Join(c.unread, fmt.Errorf("version %d: %w", v, err))
			continue
		}
		if err != nil {
			c.say(name, restoreFile, "version %d cannot be read: %v", v, err)
			continue
		}
		if log.info == nil || log.info.InCommitTimestamp == 0 {
			continue
		}
		if log.info.InCommitTimestamp <= clock {
			c.say(name, "read the versions around it by number, not by time", "the in-commit timestamp is not after that of the version before")
		}
		clock = log.info.InCommitTimestamp
	}
	newest := Version(-1)
	if n := len(l.checkpoints); n > 0 {
		newest = l.checkpoints[n-1].version
	}
	if l.first > 0 && newest < l.first-1 {
		c.say(commitName(l.first), restoreFile, "the log begins at version %d, and no checkpoint stands for those before it", l.first)
	}
	return nil
}

// checkpoints reads all checkpoints and compares each with what the log makes
// without it.
func (c *fsck) checkpoints(ctx context.Context, l *listing) error {
	for _, ref := range l.checkpoints {
		rest := &without{Store: c.st, gone: map[string]bool{hintName: true}}
		for _, name := range ref.names() {
			rest.gone[name] = true
		}
		replayed, replayErr := load(ctx, rest, ref.version)
		s, err := readCheckpoint(ctx, c.st, ref)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		name := ref.names()[0]
		remedy := restoreFile
		if replayErr == nil {
			remedy = "delete it: the log is whole without it"
		}
		if err == nil {
			err = s.refused
		}
		if errors.Is(err, ErrUnsupported) {
			c.unread = errors.Join(c.unread, err)
			continue
		}
		if err != nil {
			c.say(name, remedy, "the checkpoint cannot be read: %v", err)
			continue
		}
		if replayErr != nil {
			continue // there is nothing to compare it with
		}
		if diff := replayed.differs(s); diff != "" {
			c.say(name, remedy, "the checkpoint is not what the commits before it make: %s", diff)
		}
	}
	return nil
}

// hint looks at the file that points at the newest checkpoint.
func (c *fsck) hint(ctx context.Context, l *listing) {
	const remedy = "write a checkpoint, or delete the file: it only saves a listing"
	if _, there := c.objects[hintName]; !there {
		return
	}
	b, err := c.st.Get(ctx, hintName)
	if err != nil {
		c.say(hintName, remedy, "it cannot be read: %v", err)
		return
	}
	h, ok := parseHint(b)
	switch {
	case !ok:
		c.say(hintName, remedy, "it is damaged")
	case !slices.ContainsFunc(l.checkpoints, func(ref checkpointRef) bool { return ref.version == h.Version }):
		c.say(hintName, remedy, "it names checkpoint %d, which is not there", h.Version)
	}
}

// file looks at a data file and its vector.
func (c *fsck) file(ctx context.Context, f *File) error {
	name, err := f.nameIn(c.st)
	if err != nil {
		c.say(f.Path, "take the file out of the table", "%v", err)
		return nil
	}
	info, there := c.objects[name]
	switch {
	case !there:
		c.say(name, dropRows, "the data file is missing, and with it %s", rowsOf(f))
		return c.vector(ctx, f, math.MaxInt64)
	case info.Size != f.Size:
		c.say(name, dropRows, "the data file has %d bytes, the log says %d", info.Size, f.Size)
	}
	d, closer, err := c.s.OpenFile(ctx, f)
	if err != nil {
		c.say(name, dropRows, "the data file cannot be opened: %v", err)
		return ctx.Err()
	}
	rows := d.Rows()
	if err := closer.Close(); err != nil {
		return err
	}
	switch {
	case f.Rows < 0 && f.Vector != nil:
		c.say(name, rewriteIt, "the log does not say how many rows the data file has, which its deletion vector needs")
	case f.Rows >= 0 && rows != f.Rows:
		c.say(name, dropRows, "the data file has %d rows, the log says %d", rows, f.Rows)
		return c.vector(ctx, f, rows)
	}
	before := len(c.found)
	if err := c.vector(ctx, f, rows); err != nil || len(c.found) > before || c.o.Quick {
		return err
	}
	return c.rows(ctx, name, f)
}

func rowsOf(f *File) string {
	if n := f.LiveRows(); n >= 0 {
		return fmt.Sprintf("%d rows", n)
	}
	return "its rows"
}

// vector looks at the vector of a file of so many rows.
func (c *fsck) vector(ctx context.Context, f *File, rows int64) error {
	if f.Vector == nil {
		return nil
	}
	name := f.Path
	if n, err := f.Vector.nameIn(c.st); err == nil && f.Vector.StorageType != "i" {
		name = n
	}
	bm, err := f.Vector.read(ctx, c.st)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		c.say(name, restoreFile+"; without it the rows that it hides would come back", "the deletion vector of %s cannot be read: %v", f.Path, err)
	case !bm.IsEmpty() && bm.Maximum() >= uint64(rows):
		c.say(name, restoreFile, "the deletion vector of %s hides row %d of %d", f.Path, bm.Maximum(), rows)
	}
	return nil
}

// orphans looks for objects that belong to no version.
func (c *fsck) orphans(ctx context.Context) error {
	t := &Table{st: c.st, now: func() time.Time { return c.now }}
	needed, _, err := t.neededFiles(ctx, c.s, time.UnixMilli(0))
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(c.objects)) {
		if isHidden(name) || needed[name] || strings.HasPrefix(name, changeDir) { // changes are named by commits alone
			continue
		}
		info := c.objects[name]
		c.say(name, vacuumIt, "no version that the log remembers has this file, which has %d bytes and was written at %s",
			info.Size, info.ModTime.UTC().Format(time.RFC3339))
	}
	return nil
}
