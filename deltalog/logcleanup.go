package deltalog

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/deltalog/store"
)

const (
	// PropertyLogRetention is for how long versions can be read again, such as
	// "interval 30 days".
	PropertyLogRetention = "delta.logRetentionDuration"
	// PropertyLogCleanup allows old versions to be deleted, which is the
	// default.
	PropertyLogCleanup = "delta.enableExpiredLogCleanup"

	// logRetention is for how long versions are kept where the table does not
	// say, and leastLogRetention what others rely on in any case.
	logRetention      = 30 * 24 * time.Hour
	leastLogRetention = time.Hour
	// sidecarAge is for how long a sidecar is kept that no checkpoint names: one
	// may be on its way.
	sidecarAge = 24 * time.Hour
)

// CleanLogOptions say what of a log is deleted. The zero value will do.
type CleanLogOptions struct {
	// Retention is for how long versions can be read again. Zero means the
	// table's property delta.logRetentionDuration, or 30 days. Less than an hour
	// is refused: others follow the log.
	Retention time.Duration
	// DryRun deletes nothing.
	DryRun bool
}

// CleanedLog says what was deleted of a log, or would be.
type CleanedLog struct {
	// First is the oldest version that can be read afterwards: it has a
	// checkpoint. Negative, no version is deleted.
	First Version
	// Names are those of the objects, in the order of their deletion.
	Names []string
	// Bytes is their size.
	Bytes int64
}

// CleanLog deletes the log before the newest checkpoint that is older than the
// retention. That checkpoint, its commit and all that follows stay. Before
// anything is deleted it reads the table from what is to remain, and deletes
// nothing unless that is the same table. Where the table's properties forbid it,
// it does nothing.
func (t *Table) CleanLog(ctx context.Context, o CleanLogOptions) (CleanedLog, error) {
	done, err := t.cleanLog(ctx, o)
	if err != nil {
		return done, fmt.Errorf("clean log: %w", err)
	}
	return done, nil
}

func (t *Table) cleanLog(ctx context.Context, o CleanLogOptions) (CleanedLog, error) {
	none := CleanedLog{First: -1}
	s, err := t.Refresh(ctx)
	if err != nil {
		return none, err
	}
	if err := checkWrite(s.protocol, s.metadata); err != nil {
		return none, err
	}
	if strings.EqualFold(s.metadata.Property(PropertyLogCleanup, ""), "false") {
		return none, nil
	}
	keep := o.Retention
	if keep == 0 {
		if keep, err = parseInterval(s.metadata.Property(PropertyLogRetention, "")); err != nil {
			return none, err
		}
	}
	if keep == 0 {
		keep = logRetention
	}
	if keep < leastLogRetention {
		return none, fmt.Errorf("%w: a retention of %v, at least %v is needed", ErrInvalid, keep, leastLogRetention)
	}
	c := &logCleaner{t: t, s: s, now: t.now(), cutoff: t.now().Add(-keep)}
	if err := c.list(ctx); err != nil {
		return none, err
	}
	if err := c.choose(ctx); err != nil || len(c.gone) == 0 {
		return none, err
	}
	if c.first.version >= 0 {
		if err := c.prove(ctx); err != nil {
			return none, err
		}
	}
	return c.delete(ctx, o.DryRun)
}

// logCleaner deletes old parts of a log.
type logCleaner struct {
	t      *Table
	s      *Snapshot
	now    time.Time
	cutoff time.Time
	files  []store.Info
	first  checkpointRef // that stays
	gone   []store.Info
}

func (c *logCleaner) list(ctx context.Context) error {
	for info, err := range c.t.st.List(ctx, logDir, "") {
		if err != nil {
			return fmt.Errorf("list log: %w", err)
		}
		c.files = append(c.files, info)
	}
	return nil
}

// choose finds the checkpoint that stays, and what goes.
func (c *logCleaner) choose(ctx context.Context) error {
	l, err := listLog(ctx, c.t.st, 0)
	if err != nil {
		return err
	}
	old := map[Version]bool{} // versions whose commit is there and old enough
	for _, info := range c.files {
		if f, ok := parseLogName(info.Name); ok && f.commit && !info.ModTime.After(c.cutoff) {
			old[f.version] = true
		}
	}
	c.first = noCheckpoint
	for _, ref := range l.checkpoints {
		if old[ref.version] && ref.version <= c.s.version {
			c.first = ref
		}
	}
	var sidecars []store.Info
	for _, info := range c.files {
		v, ok := logVersion(info.Name)
		switch {
		case strings.HasPrefix(info.Name, sidecarDir):
			if c.now.Sub(info.ModTime) > sidecarAge {
				sidecars = append(sidecars, info)
			}
		case ok && v < c.first.version:
			c.gone = append(c.gone, info)
		}
	}
	// The oldest go first, so that what is there is a log at any moment.
	slices.SortStableFunc(c.gone, func(a, b store.Info) int {
		v, _ := logVersion(a.Name)
		w, _ := logVersion(b.Name)
		return cmp.Compare(v, w)
	})
	if len(sidecars) == 0 {
		return nil
	}
	used, err := c.sidecarsUsed(ctx)
	if err != nil {
		return err
	}
	for _, info := range sidecars {
		if !used[info.Name] {
			c.gone = append(c.gone, info)
		}
	}
	return nil
}

// logVersion returns the version that the name of a file in the log begins
// with.
func logVersion(name string) (Version, bool) {
	name, ok := strings.CutPrefix(name, logDir)
	digits, _, found := strings.Cut(name, ".")
	v, good := digitsOf(digits, 20)
	return Version(v), ok && found && good
}

// sidecarsUsed names the sidecars of the checkpoints that stay.
func (c *logCleaner) sidecarsUsed(ctx context.Context) (map[string]bool, error) {
	gone := map[string]bool{}
	for _, info := range c.gone {
		gone[info.Name] = true
	}
	used := map[string]bool{}
	for _, info := range c.files {
		if _, ok := logVersion(info.Name); !ok || gone[info.Name] || !strings.Contains(info.Name, ".checkpoint.") {
			continue
		}
		err := readPart(ctx, c.t.st, info.Name, []string{"sidecar"}, func(a *actionJSON) error {
			name, err := sidecarName(a.Sidecar.Path)
			used[name] = true
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", info.Name, err)
		}
	}
	return used, nil
}

// prove reads the table from what will remain.
func (c *logCleaner) prove(ctx context.Context) error {
	rest := &without{Store: c.t.st, gone: map[string]bool{}}
	for _, info := range c.gone {
		rest.gone[info.Name] = true
	}
	if _, err := load(ctx, rest, c.first.version); err != nil {
		return fmt.Errorf("version %d could not be read from what would remain: %w", c.first.version, err)
	}
	s, err := load(ctx, rest, c.s.version)
	if err != nil {
		return fmt.Errorf("version %d could not be read from what would remain: %w", c.s.version, err)
	}
	if diff := c.s.differs(s); diff != "" {
		return fmt.Errorf("%w: what would remain of the log is another table at version %d: %s", ErrCorrupt, c.s.version, diff)
	}
	return c.point(ctx)
}

// point makes sure that the hint does not name what goes: some readers go by it
// alone.
func (c *logCleaner) point(ctx context.Context) error {
	if ok, err := c.t.pointsTo(ctx, c.first.version); err != nil || ok {
		return err
	}
	h, err := hintOf(ctx, c.t.st, c.first)
	if err != nil {
		return err
	}
	return c.t.pointAt(ctx, h)
}

func (c *logCleaner) delete(ctx context.Context, dry bool) (CleanedLog, error) {
	done := CleanedLog{First: c.first.version}
	if !dry && c.first.version > c.t.Snapshot().base.version {
		// What was removed before it, it remembers.
		c.t.mu.Lock()
		s := c.t.snap.Load()
		ref := c.first
		ref.logBytes = s.logBytes
		c.t.publish(s.withBase(ref))
		c.t.mu.Unlock()
	}
	for _, info := range c.gone {
		if !dry {
			if err := c.t.st.Delete(ctx, info.Name); err != nil {
				return done, err
			}
		}
		done.Names = append(done.Names, info.Name)
		done.Bytes += info.Size
	}
	return done, nil
}

// differs says in what two snapshots of one version differ; empty if in
// nothing.
func (s *Snapshot) differs(o *Snapshot) string {
	switch {
	case s.version != o.version:
		return fmt.Sprintf("version %d is not %d", s.version, o.version)
	case !s.protocol.equal(o.protocol):
		return "the protocol"
	case !s.metadata.equal(o.metadata):
		return "the metadata"
	case !maps.EqualFunc(s.txns, o.txns, func(a, b Txn) bool { return a.Version == b.Version }):
		return "the progress of applications"
	case !maps.Equal(s.domains, o.domains):
		return "the domains"
	}
	next, stop := iter.Pull(o.Files())
	defer stop()
	for f := range s.Files() {
		g, ok := next()
		if !ok || f.compare(g) < 0 {
			return "file " + f.Path + " is in one alone"
		}
		if f.compare(g) > 0 {
			return "file " + g.Path + " is in one alone"
		}
		if f.Size != g.Size || f.Rows != g.Rows {
			return "what is said of file " + f.Path
		}
	}
	if g, ok := next(); ok {
		return "file " + g.Path + " is in one alone"
	}
	return ""
}

// without is a store in which some objects are not there. It is only read.
type without struct {
	store.Store
	gone map[string]bool
}

func (w *without) missing(name string) error {
	if w.gone[name] {
		return fmt.Errorf("read %s: %w", name, store.ErrNotExist)
	}
	return nil
}

// Get implements [store.Store].
func (w *without) Get(ctx context.Context, name string) ([]byte, error) {
	if err := w.missing(name); err != nil {
		return nil, err
	}
	return w.Store.Get(ctx, name)
}

// OpenRange implements [store.Store].
func (w *without) OpenRange(ctx context.Context, name string) (store.Reader, int64, error) {
	if err := w.missing(name); err != nil {
		return nil, 0, err
	}
	return w.Store.OpenRange(ctx, name)
}

// List implements [store.Store].
func (w *without) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		for info, err := range w.Store.List(ctx, prefix, after) {
			if err == nil && w.gone[info.Name] {
				continue
			}
			if !yield(info, err) || err != nil {
				return
			}
		}
	}
}
