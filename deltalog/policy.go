package deltalog

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// compactFiles is by how many more files than it needs a table is read
	// gladly, if that is more than twice as many.
	compactFiles = 16
	// upkeepPause is the least time between two searches for what can be
	// deleted.
	upkeepPause = 24 * time.Hour
)

// MaintainOptions say how a table is kept in order. The zero value will do.
type MaintainOptions struct {
	// Compact is how it is compacted.
	Compact CompactOptions
	// KeepFiles and KeepLog say that others delete what is no longer needed: see
	// [Table.Vacuum] and [Table.CleanLog].
	KeepFiles bool
	KeepLog   bool
}

// Upkeep says what is due to a table, or was done.
type Upkeep struct {
	// Compact: it has more than twice the files that it needs, and more than 16
	// besides; or dead rows are more than a fifth of it.
	Compact bool
	// Checkpoint: see [Table.CheckpointDue].
	Checkpoint bool
	// Vacuum and CleanLog: this Table has done neither for a day.
	Vacuum   bool
	CleanLog bool
}

// Any tells whether anything is due.
func (u Upkeep) Any() bool { return u != Upkeep{} }

// Due tells what is due to the newest version that is known. It reads nothing.
func (t *Table) Due(o MaintainOptions) Upkeep {
	s := t.Snapshot()
	t.upkeep.Lock()
	defer t.upkeep.Unlock()
	return Upkeep{
		Compact:    s.compactDue(o.Compact),
		Checkpoint: t.CheckpointDue(),
		Vacuum:     !o.KeepFiles && t.now().Sub(t.vacuumed) >= upkeepPause,
		CleanLog:   !o.KeepLog && t.now().Sub(t.cleaned) >= upkeepPause,
	}
}

// Maintain does what is due, and tells what it did. Called after every commit,
// or now and then beside them, it keeps a table fast to read and its log short;
// commits do not have to wait for it. Where others got into the way of a
// compaction, that is due again.
func (t *Table) Maintain(ctx context.Context, o MaintainOptions) (Upkeep, error) {
	done := Upkeep{}
	due := t.Due(o)
	// First, since a checkpoint forgets what was removed long ago.
	if due.Vacuum {
		if _, err := t.Vacuum(ctx, VacuumOptions{}); err != nil {
			return done, fmt.Errorf("maintain table: %w", err)
		}
		done.Vacuum = true
		t.upkeep.Lock()
		t.vacuumed = t.now()
		t.upkeep.Unlock()
	}
	if due.Compact {
		c, err := t.Compact(ctx, o.Compact)
		if err != nil && !errors.Is(err, ErrConflict) {
			return done, fmt.Errorf("maintain table: %w", err)
		}
		done.Compact = c.Commits > 0
	}
	if t.CheckpointDue() {
		if err := t.Checkpoint(ctx); err != nil {
			return done, fmt.Errorf("maintain table: %w", err)
		}
		done.Checkpoint = true
	}
	if due.CleanLog {
		if _, err := t.CleanLog(ctx, CleanLogOptions{}); err != nil {
			return done, fmt.Errorf("maintain table: %w", err)
		}
		done.CleanLog = true
		t.upkeep.Lock()
		t.cleaned = t.now()
		t.upkeep.Unlock()
	}
	return done, nil
}

// compactDue tells whether a compaction is worth what it costs.
func (s *Snapshot) compactDue(o CompactOptions) bool {
	if o.TargetBytes <= 0 {
		o.TargetBytes = defaultFileBytes
	}
	type part struct{ files, bytes int64 }
	parts := map[string]part{}
	var live, dead int64
	for f := range s.Files() {
		key := partitionKey(f)
		p := parts[key]
		n := liveBytes(f)
		p.files++
		p.bytes += n
		parts[key] = p
		live += n
		if isSparse(f) {
			dead += f.Size - n
		}
	}
	if float64(dead) > compactDead*float64(live) {
		return true
	}
	for _, p := range parts {
		ideal := (p.bytes + o.TargetBytes - 1) / o.TargetBytes
		if p.files > max(2*ideal, ideal+compactFiles) {
			return len(pickGroups(s, o)) > 0
		}
	}
	return false
}
