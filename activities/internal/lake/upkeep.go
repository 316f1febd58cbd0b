package lake

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/millrace-io/millrace/deltalog"
)

const (
	// sweepPause is the least time between two searches of a table for what can
	// be deleted, and sweepSpread the time after its opening within which a lake
	// begins them, so that a worker's start is not all searching.
	sweepPause  = 24 * time.Hour
	sweepSpread = time.Hour
	// strayRetention is for how long files stay that the log does not know:
	// somebody may be about to commit them.
	strayRetention = 7 * 24 * time.Hour
	// sweepTime ends a search, which goes on with the next: other tables are to be
	// maintained, too.
	sweepTime = 2 * time.Minute
	// compactStep is how many times the target size one call compacts, of each
	// table: the rest is left to the next.
	compactStep = 4
)

// Upkeep says what Maintain did to both tables.
type Upkeep struct {
	// Compactions counts commits that put Added files in the place of Removed
	// ones.
	Compactions, Removed, Added int
	// Checkpoints counts those that were written.
	Checkpoints int
	// Vacuumed counts files that were deleted, and Cleaned those of the logs.
	Vacuumed, Cleaned int
}

// UpkeepDue tells whether Maintain has something to do, as far as the newest
// versions known tell. It reads nothing, and may be called beside anything.
func (m *Mirror) UpkeepDue() bool {
	v, err := m.history.view()
	if err != nil {
		return false
	}
	if m.history.CheckpointDue() || m.loose(v) || m.sweepDue(v, time.Now()) {
		return true
	}
	latest := m.latest.Load()
	return latest != nil && latest.Due(m.maintainOptions()).Any()
}

// Maintain does what is due to the tables: compaction, checkpoints, and once a
// day the deletion of files and of parts of the log that nothing needs any more,
// as the tables' properties say, by default after a week and after 30 days. The
// rows stay the same, and so do the positions. It may run beside anything else
// that is done to the mirror, here or on other workers; nothing waits for it but
// for one write to the log. What it could not finish is due again.
func (m *Mirror) Maintain(ctx context.Context) (Upkeep, error) {
	var done Upkeep
	if err := m.maintain(ctx, &done); err != nil {
		return done, fmt.Errorf("maintain %s: %w", m.name, err)
	}
	return done, nil
}

func (t *table) maintain(ctx context.Context, done *Upkeep) error {
	if err := t.compactHistory(ctx, done); err != nil {
		return err
	}
	if err := checkpointDue(ctx, &t.history, done); err != nil {
		return err
	}
	if latest := t.latest.Load(); latest != nil {
		if latest.Due(t.maintainOptions()).Compact {
			if err := t.compactLatest(ctx, latest, done); err != nil {
				return err
			}
		}
		if err := checkpointDue(ctx, latest, done); err != nil {
			return err
		}
	}
	v, err := t.history.view()
	if err != nil {
		return err
	}
	if !t.sweepDue(v, time.Now()) {
		return nil
	}
	return t.sweep(ctx, done)
}

// maintainOptions are how latest is kept. What can be deleted of it is the
// sweep's.
func (t *table) maintainOptions() deltalog.MaintainOptions {
	return deltalog.MaintainOptions{Compact: t.compactOptions(), KeepFiles: true, KeepLog: true}
}

func (t *table) compactOptions() deltalog.CompactOptions {
	target := t.lake.cfg.CompactBytes
	return deltalog.CompactOptions{TargetBytes: target, MaxBytes: compactStep * target}
}

// compactLatest compacts latest. The key index follows the rows to where they
// are then, without reading them.
func (t *table) compactLatest(ctx context.Context, latest *side, done *Upkeep) error {
	c, err := latest.Compact(ctx, t.compactOptions())
	done.Compactions += c.Commits
	done.Removed += c.Removed
	done.Added += c.Added
	if errors.Is(err, deltalog.ErrConflict) {
		return nil // its columns changed; it is due again
	}
	return err
}

func checkpointDue(ctx context.Context, s *side, done *Upkeep) error {
	if !s.CheckpointDue() {
		return nil
	}
	if err := s.Checkpoint(ctx); err != nil {
		return err
	}
	done.Checkpoints++
	return nil
}

// sweepDue tells whether the tables are to be searched for what can be deleted.
// While a table is copied they are not: files of its latest may be older than
// the commit that is to bring them.
func (t *table) sweepDue(v *view, now time.Time) bool {
	if v.state.Phase != Live || !t.settled(v) {
		return false
	}
	return !now.Before(t.lake.nextSweep(t.path))
}

// settled tells whether latest, where there is one, has the rows of history's
// newest copy.
func (t *table) settled(v *view) bool {
	if v.key == keyNone {
		return true
	}
	latest := t.latest.Load()
	if latest == nil {
		return false
	}
	lv, err := latest.view()
	return err == nil && lv.follows(v)
}

// sweep deletes what nothing needs any more, or a part of it where that takes
// long: then it is due again.
func (t *table) sweep(ctx context.Context, done *Upkeep) error {
	within, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	err := t.sweepAll(within, done)
	switch {
	case err == nil:
		t.lake.swept(t.path, time.Now())
	case within.Err() != nil && ctx.Err() == nil:
		return nil
	}
	return err
}

// sweepAll looks at history first, as it is now: a copy that begins later has no
// files yet that are old enough.
func (t *table) sweepAll(ctx context.Context, done *Upkeep) error {
	v, err := t.history.refresh(ctx)
	if err != nil {
		return err
	}
	if !t.settled(v) || v.state.Phase != Live {
		return nil // a copy has begun elsewhere, and after it comes the next day
	}
	sides := []*side{&t.history}
	if latest := t.latest.Load(); latest != nil && v.key != keyNone {
		sides = append(sides, latest)
	}
	for _, s := range sides {
		n, err := vacuum(ctx, s.Table)
		if done.Vacuumed += n; err != nil {
			return err
		}
		log, err := s.CleanLog(ctx, deltalog.CleanLogOptions{})
		if done.Cleaned += len(log.Names); err != nil {
			return err
		}
	}
	return nil
}

// vacuum deletes what was taken out of a table longer ago than it says, and what
// was never in it and is older than a transaction may take.
func vacuum(ctx context.Context, t *deltalog.Table) (n int, err error) {
	var done deltalog.Vacuumed
	if t.Snapshot().Metadata().Property(deltalog.PropertyDeletedFileRetention, "") != "" {
		done, err = t.Vacuum(ctx, deltalog.VacuumOptions{})
		if n += len(done.Names); err != nil {
			return n, err
		}
	}
	done, err = t.Vacuum(ctx, deltalog.VacuumOptions{Full: true, Retention: strayRetention})
	if errors.Is(err, deltalog.ErrInvalid) { // the table keeps them for longer
		done, err = t.Vacuum(ctx, deltalog.VacuumOptions{Full: true})
	}
	return n + len(done.Names), err
}

// nextSweep returns when a table is to be swept.
func (l *Lake) nextSweep(path string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.sweeps[path]; ok {
		return at.Add(sweepPause)
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(path))
	return l.opened.Add(time.Duration(h.Sum64() % uint64(l.spread)))
}

// swept notes when a table was swept.
func (l *Lake) swept(path string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweeps[path] = at
}
