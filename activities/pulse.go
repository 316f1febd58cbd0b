package activities

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"
)

const (
	// readWithin is how long reading from the source may yield no row before
	// that counts as silence: stretches of a table can hold none.
	readWithin = 2 * time.Minute
	// cutWithin is the same for a cut, which waits for open transactions.
	cutWithin = 3 * time.Minute
	// wholeWithin is the same for work on a whole table in the lake, such as
	// rebuilding its key index, and for a place among those who read.
	wholeWithin = time.Hour
)

// pulse is what the heartbeats of a step that is no lane go by. The step is in
// one phase at a time, which has a limit: without a row and without another
// phase for so long, heartbeats stop, Temporal gives the step to another worker,
// and what hangs here is cancelled.
type pulse struct {
	rows   atomic.Int64
	phases atomic.Int64
	limit  atomic.Int64 // of the phase, in nanoseconds
}

// phase begins the next phase. The limit is how long it may take, or how long
// its rows may stay away.
func (p *pulse) phase(limit time.Duration) {
	p.limit.Store(int64(limit))
	p.phases.Add(1)
}

// row notes that a row moved.
func (p *pulse) row() { p.rows.Add(1) }

// pulse heartbeats for a step until it is stopped. The returned context is that
// of the step's work.
func (a *Activities) pulse(ctx context.Context) (work context.Context, p *pulse, stop func()) {
	return newPulse(ctx, activity.GetInfo(ctx).HeartbeatTimeout, func(rows int64) { activity.RecordHeartbeat(ctx, rows) })
}

// newPulse is pulse for heartbeats under a timeout, which record tells. The
// first phase is that of connecting to the source.
func newPulse(ctx context.Context, timeout time.Duration, record func(rows int64)) (work context.Context, p *pulse, stop func()) {
	work, cancel := context.WithCancel(ctx)
	p = &pulse{}
	p.phase(openWithin)
	var g sync.WaitGroup
	g.Go(func() {
		tick := time.NewTicker(beatEvery(timeout))
		defer tick.Stop()
		seen, since := int64(0), time.Now()
		for {
			select {
			case <-work.Done():
				return
			case <-tick.C:
			}
			rows := p.rows.Load()
			if at := rows + p.phases.Load(); at != seen {
				seen, since = at, time.Now()
			}
			switch silent := time.Since(since) - time.Duration(p.limit.Load()); {
			case silent < 0:
				record(rows)
			case silent > timeout:
				cancel() // the step has another attempt by now
			}
		}
	})
	return work, p, func() {
		cancel()
		g.Wait()
	}
}
