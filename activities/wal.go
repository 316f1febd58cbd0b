package activities

import (
	"context"
	"math"
	"time"

	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/activities/internal/pgsource"
)

// WAL is how much of its log a source keeps for a database's slot.
type WAL struct {
	// At is when it was looked at.
	At time.Time `json:"at"`
	// Held is in bytes.
	Held int64 `json:"held"`
	// Growth is by how much Held grows, in bytes an hour, smoothed over some
	// minutes; nil at the first look.
	Growth *int64 `json:"growth,omitempty"`
	// Room is how many bytes may still come: until the server gives the slot up
	// (max_slot_wal_keep_size), or the database's budget is spent, whichever is
	// sooner. Nil where there is no limit; it is never below zero.
	Room *int64 `json:"room,omitempty"`
}

// HoursLeft is when there is no room any more; nil where that is not known, or
// will not be.
func (w *WAL) HoursLeft() *float64 {
	switch {
	case w.Room == nil:
		return nil
	case *w.Room == 0:
		return new(float64)
	case w.Growth == nil || *w.Growth <= 0:
		return nil
	}
	hours := float64(*w.Room) / float64(*w.Growth)
	return &hours
}

// smoothing is how long a look counts for the growth that is told.
const smoothing = 5 * time.Minute

// next is what a look finds after w, which may be nil. A budget of 0 is none.
func (w *WAL) next(at time.Time, found *pgsource.WAL, budget int64) *WAL {
	n := &WAL{At: at.UTC().Truncate(time.Second), Held: found.Held}
	if found.Safe >= 0 {
		n.Room = new(found.Safe)
	}
	if budget > 0 {
		if left := max(0, budget-found.Held); n.Room == nil || left < *n.Room {
			n.Room = &left
		}
	}
	if w == nil {
		return n
	}
	passed := at.Sub(w.At)
	if passed < time.Second {
		n.At, n.Growth = w.At, w.Growth
		return n
	}
	growth := float64(n.Held-w.Held) / passed.Hours()
	if w.Growth != nil {
		weight := 1 - math.Exp(-float64(passed)/float64(smoothing))
		growth = weight*growth + (1-weight)*float64(*w.Growth)
	}
	n.Growth = new(int64(growth))
	return n
}

// WatchInput asks how much WAL the source keeps for a database that nobody reads.
type WatchInput struct {
	DB       fleet.Database `json:"db"`
	Epoch    uint32         `json:"epoch"`
	SystemID string         `json:"system_id"`
	Timeline int32          `json:"timeline"`
	// Before is what the last look found; nil at the first.
	Before *WAL `json:"before,omitempty"`
}

// Watch looks at the slot of a database whose capture does not run: that it is
// there, and how much WAL it holds.
func (a *Activities) Watch(ctx context.Context, in WatchInput) (WAL, error) {
	defer a.alive(ctx)()
	sql, err := a.source(ctx, &in.DB, "control")
	if err != nil {
		return WAL{}, err
	}
	defer sql.Close()
	if err := sameSource(ctx, sql, in.SystemID, in.Timeline); err != nil {
		return WAL{}, err
	}
	found, err := sql.WAL(ctx, pgsource.SlotName(in.DB.Name, in.Epoch))
	if err != nil {
		return WAL{}, err
	}
	a.metrics.walHeld.WithLabelValues(in.DB.Name).Set(float64(found.Held))
	return *in.Before.next(time.Now(), &found, in.DB.WALBudget), found.Usable(pgsource.SlotName(in.DB.Name, in.Epoch))
}
