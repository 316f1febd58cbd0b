package workflows

import (
	"cmp"
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
)

const (
	// reemit is how long a marker may take before another is written: the lane
	// that saw it may have died before it could say so.
	reemit = 10 * time.Second
	// emitWithin bounds writing one.
	emitWithin = 20 * time.Second
)

func (d *database) mayWait(in WaitInput) error {
	if in.Until != UntilLive && in.Until != UntilCaughtUp {
		return fmt.Errorf("cannot wait until %q: want %s or %s", in.Until, UntilLive, UntilCaughtUp)
	}
	return d.alive()
}

// waiter is one request to wait.
type waiter struct {
	d  *database
	in WaitInput
	// end is when its time is up.
	end time.Time
	// tokens are the markers that were written for it; refused is why the last
	// was not.
	tokens  []string
	refused *activities.Reason
	// looked tells that tables were looked for that are there since it began.
	looked bool
}

// patience is how long a request that names no time may take.
const patience = time.Minute

// wait is the read-your-writes barrier.
func (d *database) wait(ctx workflow.Context, in WaitInput) (Waited, error) {
	if in.Timeout <= 0 {
		in.Timeout = patience
	}
	w := &waiter{d: d, in: in, end: workflow.Now(ctx).Add(in.Timeout)}
	defer w.forget()
	why := "tables are still on their way to live"
	if in.Until == UntilCaughtUp {
		if err := w.await(ctx, in.Timeout, func() bool { return d.s.Phase == Running }); err != nil {
			return Waited{}, err
		}
		if err := w.marker(ctx); err != nil {
			return Waited{}, err
		}
		if why = "the lake has not reached what was committed when the wait began"; w.passed() {
			why = "tables are still being copied"
		}
	}
	reached := func() bool {
		return d.s.Phase == Running && len(d.s.Tables) > 0 && d.s.settled() && (in.Until == UntilLive || w.passed())
	}
	if w.refused == nil {
		if err := w.await(ctx, in.Timeout, reached); err != nil {
			return Waited{}, err
		}
	}
	switch {
	case d.s.blocked(in.PastParked) != "":
		return Waited{Why: d.s.blocked(in.PastParked)}, nil
	case reached():
		return Waited{Reached: true}, nil
	case d.draining:
		return Waited{Again: true, Why: "the workflow continues as new"}, nil
	}
	if r := cmp.Or(d.s.reason(), w.refused); r != nil {
		why += "; " + describe(r)
	}
	return Waited{Why: why}, nil
}

// marker looks for tables that nobody knows of yet, and writes markers until the
// lake has passed one, or nothing is to be waited for any more. Every one has a
// token of its own: that of a single marker is told only when all partitions
// have passed it.
func (w *waiter) marker(ctx workflow.Context) error {
	d := w.d
	for n := 1; !w.over(ctx) && !w.passed(); n++ {
		token := fmt.Sprintf("%s.%d", workflow.GetCurrentUpdateInfo(ctx).ID, n)
		w.tokens = append(w.tokens, token)
		d.awaited[token] = false
		queue := d.queue(LaneControl)
		err := w.look(ctx, queue)
		if err == nil {
			err = workflow.ExecuteActivity(d.options(ctx, queue, emitWithin, emitWithin), steps.EmitMarker,
				activities.MarkerInput{DB: d.s.Config, Token: token}).Get(ctx, nil)
		}
		pause := reemit
		if w.refused = nil; err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			f := failure(ctx, &d.s.Config, queue, err)
			if w.refused = &f.Reason; f.Park {
				return nil
			}
			pause = time.Second
		}
		if err := w.await(ctx, pause, w.passed); err != nil {
			return err
		}
	}
	return nil
}

// look finds the tables that were made before the wait began, which it then
// covers: they are on their way to live.
func (w *waiter) look(ctx workflow.Context, queue string) error {
	if w.looked {
		return nil
	}
	err := w.d.look(ctx, queue, func() bool { return w.d.s.Phase == Running })
	w.looked = err == nil
	return err
}

// over tells that there is nothing to wait for: time is up, somebody has to
// act, or the run ends.
func (w *waiter) over(ctx workflow.Context) bool {
	return !workflow.Now(ctx).Before(w.end) || w.d.draining || w.d.s.blocked(w.in.PastParked) != ""
}

// await waits for a while, but no longer than it makes sense.
func (w *waiter) await(ctx workflow.Context, most time.Duration, until func() bool) error {
	left := w.end.Sub(workflow.Now(ctx))
	if left <= 0 || until() || w.over(ctx) {
		return ctx.Err()
	}
	_, err := workflow.AwaitWithTimeout(ctx, min(left, most), func() bool { return until() || w.over(ctx) })
	return err
}

// passed tells that the lake has passed a marker.
func (w *waiter) passed() bool {
	for _, token := range w.tokens {
		if w.d.awaited[token] {
			return true
		}
	}
	return false
}

// forget forgets the markers.
func (w *waiter) forget() {
	for _, token := range w.tokens {
		delete(w.d.awaited, token)
	}
}
