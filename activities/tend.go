package activities

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/millrace-io/millrace/activities/internal/lake"
	"github.com/millrace-io/millrace/deltalog"
)

const (
	// tendEvery is how often a table is looked at, for whether its lake tables
	// need maintenance.
	tendEvery = 10 * time.Second
	// tendRest is how many times as long as it was maintained a table is left
	// alone at least.
	tendRest = 9
	// tendAfter is how long a table is left alone whose maintenance failed, and
	// tendRefused where it has features that forbid it.
	tendAfter, tendRefused = 5 * time.Minute, 6 * time.Hour
	// tendWithin bounds the maintenance of one table.
	tendWithin = time.Hour
	// tendBeside is what maintenance holds in memory beside twice the file that it
	// writes: rows that were read, and parts on their way to the store.
	tendBeside = 48 << 20
	// The size that small files are merged to: a part of the budget between
	// these.
	leastCompact, mostCompact = 16 << 20, 256 << 20
	compactPart               = 8
)

// compactBytes is the size that small files are merged to under a budget.
func compactBytes(memory int64) int64 {
	return min(max(memory/compactPart, leastCompact), mostCompact)
}

// tendBytes is what maintenance takes of a budget: never more than half.
func tendBytes(memory int64) int64 {
	return min(2*compactBytes(memory)+tendBeside, memory/2)
}

// newTending bounds how many tables are maintained at once in this process.
func newTending() chan struct{} { return make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/4)) }

// tender maintains the lake tables of a commit lane, one at a time, beside its
// jobs: they share nothing but the log's next version, and the lane never waits
// for it. What it does is found in the tables themselves, so that nothing is
// lost with it. The lane's goroutine owns it.
type tender struct {
	ctx    context.Context
	cancel context.CancelFunc
	done   chan tended
	busy   bool
}

// tended is how the maintenance of a table ended.
type tended struct {
	m    *mirrored
	did  lake.Upkeep
	took time.Duration
	err  error
}

func newTender(ctx context.Context) tender {
	t := tender{done: make(chan tended, 1)}
	t.ctx, t.cancel = context.WithCancel(ctx)
	return t
}

// tend takes the outcome of a maintenance, and begins the next, of the table
// that was left alone for longest.
func (c *committer) tend(now time.Time) {
	if c.tender.busy {
		select {
		case done := <-c.tender.done:
			c.tender.busy = false
			c.wasTended(&done, now)
		default:
			return
		}
	}
	var next *mirrored
	for _, m := range c.tables {
		if m.mirror == nil || m.busy || m.parked != nil || now.Before(m.tendAt) {
			continue // what runs may be opening the mirror
		}
		if next == nil || m.tendAt.Before(next.tendAt) {
			next = m
		}
	}
	if next == nil || c.a.budget.Spent() {
		return
	}
	select {
	case c.a.tending <- struct{}{}:
	default:
		return
	}
	taken := tendBytes(c.a.budget.Total())
	switch {
	case !next.mirror.UpkeepDue():
		next.tendAt = now.Add(tendEvery)
		<-c.a.tending
		return
	case !c.a.budget.TryTake(taken):
		<-c.a.tending
		return
	}
	c.tender.busy = true
	mirror := next.mirror
	c.jobs.Go(func() {
		ctx, cancel := context.WithTimeout(c.tender.ctx, tendWithin)
		defer cancel()
		done := tended{m: next}
		done.did, done.err = mirror.Maintain(ctx)
		done.took = time.Since(now)
		c.a.budget.Give(taken)
		<-c.a.tending
		c.tender.done <- done
	})
}

// wasTended counts what was done, and says when the table is looked at again.
func (c *committer) wasTended(done *tended, now time.Time) {
	db := c.in.DB.Name
	for what, n := range map[string]int{
		"compaction": done.did.Compactions, "checkpoint": done.did.Checkpoints,
		"vacuum": done.did.Vacuumed, "log": done.did.Cleaned,
	} {
		if n > 0 {
			c.a.metrics.upkeep.WithLabelValues(db, what).Add(float64(n))
		}
	}
	rest := max(tendEvery, tendRest*done.took)
	switch {
	case done.err == nil, c.tender.ctx.Err() != nil:
	case errors.Is(done.err, deltalog.ErrUnsupported):
		rest = tendRefused
	default:
		rest = max(rest, tendAfter)
	}
	done.m.tendAt = now.Add(rest)
	if done.err != nil && c.tender.ctx.Err() == nil {
		c.a.cfg.Log.Warn("lake tables not maintained", "database", db, "table", done.m.name, "error", done.err.Error())
	}
}

// tendNoMore ends the maintenance that runs, and waits for it.
func (c *committer) tendNoMore(now time.Time) {
	c.tender.cancel()
	if c.tender.busy {
		done := <-c.tender.done
		c.tender.busy = false
		c.wasTended(&done, now)
	}
}
