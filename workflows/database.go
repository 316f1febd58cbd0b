package workflows

import (
	"errors"
	"fmt"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
)

// steps gives activities their names: only its methods' names are used.
var steps *activities.Activities

// continueAfter is how many events a run may have before it continues as new.
const continueAfter = 4000

// database is one run of the Database workflow.
type database struct {
	s *State
	// changes counts what a supervisor must look at; generation what makes
	// lanes start anew.
	changes    int
	generation int
	lanes      [3]laneState // capture, commit, scan
	markers    map[string]bool
	removed    *Removed
	remove     *RemoveInput
	draining   bool
	// copying is the copy that this run started.
	copying workflow.ChildWorkflowFuture
}

// laneState is one lane as the supervisor sees it.
type laneState struct {
	name       string
	running    bool
	generation int
	cancel     workflow.CancelFunc
}

// Database mirrors one database for as long as it is not removed. It is a
// switch over phases: everything else is a lane that runs while its phase says
// so, or a handler that changes the phase.
func Database(ctx workflow.Context, in DatabaseInput) error {
	d := &database{s: in.State, markers: map[string]bool{}}
	if d.s == nil {
		d.s = &State{Config: in.Config, Phase: Preparing}
	}
	d.lanes[0].name, d.lanes[1].name, d.lanes[2].name = LaneCapture, LaneCommit, "scan"
	if err := d.handle(ctx); err != nil {
		return err
	}
	for {
		d.publish(ctx)
		seen := d.changes
		switch d.s.Phase {
		case Preparing:
			d.stopLanes(ctx)
			d.prepare(ctx)
		case Removing:
			d.stopLanes(ctx)
			return d.finish(ctx)
		default:
			d.supervise(ctx)
			d.await(ctx, func() bool { return d.changes != seen || d.full(ctx) })
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if d.full(ctx) && d.s.Phase != Removing {
			return d.again(ctx, in)
		}
	}
}

func (d *database) await(ctx workflow.Context, until func() bool) {
	_ = workflow.Await(ctx, until)
}

// touch wakes the supervisor.
func (d *database) touch() { d.changes++ }

// full tells whether this run should continue as new.
func (d *database) full(ctx workflow.Context) bool {
	info := workflow.GetInfo(ctx)
	return info.GetContinueAsNewSuggested() || info.GetCurrentHistoryLength() > continueAfter
}

// again ends this run and starts the next with the same state, once lanes and
// handlers have returned.
func (d *database) again(ctx workflow.Context, in DatabaseInput) error {
	d.draining = true
	d.stopLanes(ctx)
	d.await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) })
	d.receive(ctx)
	return workflow.NewContinueAsNewError(ctx, DatabaseWorkflow, DatabaseInput{Config: d.s.Config, State: d.s})
}

// publish puts phase and reasons where operators look.
func (d *database) publish(ctx workflow.Context) {
	var codes []string
	if d.s.Reason != nil {
		codes = append(codes, string(d.s.Reason.Code))
	}
	counts := map[Phase]int{}
	for i := range d.s.Tables {
		t := &d.s.Tables[i]
		counts[t.Phase]++
		if t.Reason != nil && len(codes) < 10 {
			codes = append(codes, string(t.Reason.Code))
		}
	}
	attrs := []temporal.SearchAttributeUpdate{
		temporal.NewSearchAttributeKeyKeyword(AttrDatabase).ValueSet(d.s.Config.Name),
		temporal.NewSearchAttributeKeyKeyword(AttrRegion).ValueSet(d.s.Config.Region),
		temporal.NewSearchAttributeKeyKeyword(AttrPhase).ValueSet(string(d.s.Phase)),
	}
	if len(codes) > 0 {
		attrs = append(attrs, temporal.NewSearchAttributeKeyKeywordList(AttrReason).ValueSet(codes))
	} else {
		attrs = append(attrs, temporal.NewSearchAttributeKeyKeywordList(AttrReason).ValueUnset())
	}
	line := fmt.Sprintf("%s %v", d.s.Phase, codes)
	if line != d.published(ctx) {
		_ = workflow.UpsertTypedSearchAttributes(ctx, attrs...)
		workflow.SetCurrentDetails(ctx, line)
	}
	text := fmt.Sprintf("**%s**", d.s.Phase)
	for _, p := range []Phase{Waiting, Copying, CatchingUp, Live, Paused, Parked, Gone} {
		if counts[p] > 0 {
			text += fmt.Sprintf(" · %d %s", counts[p], p)
		}
	}
	if d.s.Reason != nil {
		text += "\n\n" + describe(d.s.Reason)
	}
	for i := range d.s.Tables {
		if t := &d.s.Tables[i]; t.Phase == Parked && len(text) < 3500 {
			text += "\n\n`" + t.Name + "` " + describe(t.Reason)
		}
	}
	workflow.SetCurrentDetails(ctx, text)
}

// published returns phase and codes as the search attributes hold them.
func (d *database) published(ctx workflow.Context) string {
	attrs := workflow.GetTypedSearchAttributes(ctx)
	phase, _ := attrs.GetKeyword(temporal.NewSearchAttributeKeyKeyword(AttrPhase))
	codes, _ := attrs.GetKeywordList(temporal.NewSearchAttributeKeyKeywordList(AttrReason))
	return fmt.Sprintf("%s %v", phase, codes)
}

// prepare makes sure that slot, publications, topic and lake are there. A
// failure that time may mend is tried again with a growing delay; any other
// parks the database.
func (d *database) prepare(ctx workflow.Context) {
	d.generation++
	generation := d.generation
	for delay := time.Second; ; delay = min(2*delay, 30*time.Second) {
		var out activities.PrepareResult
		err := workflow.ExecuteActivity(d.options(ctx, LaneControl, time.Minute), steps.Prepare, activities.PrepareInput{
			DB: d.s.Config, Epoch: d.s.Epoch, SystemID: d.s.SystemID, Timeline: d.s.Timeline,
		}).Get(ctx, &out)
		if d.s.Phase != Preparing || ctx.Err() != nil {
			return
		}
		if generation != d.generation {
			generation, delay = d.generation, time.Second
			continue
		}
		if err == nil {
			d.s.Epoch, d.s.SystemID, d.s.Timeline = out.Epoch, out.SystemID, out.Timeline
			for i := range out.Tables {
				d.s.found(out.Tables[i])
			}
			d.s.Prepared, d.s.Reason, d.s.Phase = true, nil, Running
			d.touch()
			return
		}
		f := failure(ctx, d.s.Config.Name, err)
		d.s.Reason = &f.Reason
		if f.Park {
			d.s.Phase = Parked
			d.touch()
			return
		}
		d.publish(ctx)
		_, _ = workflow.AwaitWithTimeout(ctx, delay, func() bool {
			return d.s.Phase != Preparing || generation != d.generation
		})
		if d.s.Phase != Preparing {
			return
		}
	}
}

// finish drops what was made at the source and ends the workflow.
func (d *database) finish(ctx workflow.Context) error {
	if d.s.Copy != "" {
		_ = workflow.RequestCancelExternalWorkflow(ctx, d.s.Copy, "").Get(ctx, nil)
	}
	for delay := time.Second; ; delay = min(2*delay, 30*time.Second) {
		var out activities.DropResult
		err := workflow.ExecuteActivity(d.options(ctx, LaneControl, time.Minute), steps.Drop, activities.DropInput{
			DB: d.s.Config, Epoch: d.s.Epoch, Force: d.remove.Force,
		}).Get(ctx, &out)
		if err == nil {
			d.removed = &Removed{Dropped: out.Dropped, Left: out.Left}
			d.await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) })
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f := failure(ctx, d.s.Config.Name, err)
		d.s.Reason = &f.Reason
		d.publish(ctx)
		_, _ = workflow.AwaitWithTimeout(ctx, delay, func() bool { return d.remove.Force })
	}
}

// options are those of a short step on a lane of this database's pool.
func (d *database) options(ctx workflow.Context, lane string, timeout time.Duration) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:           Queue(d.s.Config.Region, d.s.Config.Pool, lane),
		StartToCloseTimeout: timeout,
		RetryPolicy:         &temporal.RetryPolicy{MaximumAttempts: 1},
	})
}

// failure reads what the worker's interceptor made of an activity's error. DB
// in a remedy stands for the database's name.
func failure(ctx workflow.Context, database string, err error) activities.Failure {
	f := activities.Failure{Reason: activities.Reason{Code: activities.CodeInternal, Message: err.Error()}}
	var app *temporal.ApplicationError
	var timeout *temporal.TimeoutError
	switch {
	case errors.As(err, &app) && app.HasDetails():
		if app.Details(&f) != nil {
			f.Reason.Message = app.Message()
		}
	case errors.As(err, &timeout) && timeout.TimeoutType() == enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START:
		f.Reason = activities.Reason{
			Code:    activities.CodeNoWorker,
			Message: "no worker fetched the step within its time",
			Remedy:  "start one: millrace-worker --fleet FILE",
		}
	case errors.As(err, &timeout):
		f.Reason = activities.Reason{Code: activities.CodeWorkerLost, Message: "the worker that ran the step is gone; another takes over"}
	}
	f.Reason.Remedy = strings.ReplaceAll(f.Reason.Remedy, "DB", database)
	f.Reason.Since = workflow.Now(ctx).UTC().Format(time.RFC3339)
	return f
}
