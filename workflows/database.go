package workflows

import (
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
)

const (
	// continueAfter is how many events a run may have before it continues as
	// new, and insistAfter how many before requests that wait are sent away for
	// it. Temporal ends a run at 51,200.
	continueAfter = 4000
	insistAfter   = 12000
)

// database is one run of the Database workflow.
type database struct {
	s *State
	// changes counts what the supervisor must look at; generation what makes
	// lanes start anew; reports what was heard of tables.
	changes    int
	generation int
	reports    int
	// heard is the number of the last report of each table.
	heard map[uint32]int
	// hints counts what makes a hint of the commit lane void.
	hints   int
	lanes   [laneCount]lane
	looking workflow.Mutex  // held while the source is looked at for tables
	awaited map[string]bool // markers, and whether the lake has passed them
	removed *Removed
	// draining tells that this run ends: nothing is started any more.
	draining bool
	// watches tells that a slot is watched that nobody reads.
	watches bool
	// stopping is the copy that a coroutine of this run ends.
	stopping string
}

// Database mirrors one database for as long as it is not removed. The requests
// change its phase, the lanes carry it out, and here the one is held against
// the other.
func Database(ctx workflow.Context, in DatabaseInput) error {
	if in.State == nil {
		if err := judge(&in.Config); err != nil {
			return temporal.NewNonRetryableApplicationError("configuration of the database: "+err.Error(), "CONFIG", err)
		}
		in.State = &State{Config: in.Config}
	}
	in.State.now = func() time.Time { return workflow.Now(ctx) }
	if in.State.Phase == "" {
		in.State.enter(applies, nil, Apply)
	}
	d := &database{s: in.State, looking: workflow.NewMutex(ctx), awaited: map[string]bool{}, heard: map[uint32]int{}}
	for i := range d.lanes {
		d.lanes[i].name = names[i]
	}
	if err := d.handle(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		seen := d.changes
		d.draining = d.ends(ctx)
		d.supervise(ctx)
		d.publish(ctx)
		if d.idle() && workflow.AllHandlersFinished(ctx) {
			if d.removed != nil {
				return nil
			}
			if d.draining && d.receive(ctx) == 0 {
				return d.again(ctx)
			}
		}
		_ = workflow.Await(ctx, func() bool {
			return d.changes != seen || d.draining != d.ends(ctx) ||
				(d.draining || d.removed != nil) && d.idle() && workflow.AllHandlersFinished(ctx)
		})
	}
	// Cancelled from outside: the lanes return first.
	last, _ := workflow.NewDisconnectedContext(ctx)
	_ = workflow.Await(last, d.idle)
	return ctx.Err()
}

// touch wakes the supervisor.
func (d *database) touch() { d.changes++ }

// ends tells that this run is to continue as new: its history is long, or the
// database has moved to another pool. Requests that wait are let finish unless
// that takes too long.
func (d *database) ends(ctx workflow.Context) bool {
	info := workflow.GetInfo(ctx)
	switch {
	case d.draining, info.TaskQueueName != d.queue(LaneControl), info.GetCurrentHistoryLength() > insistAfter:
		return true
	case info.GetContinueAsNewSuggested(), info.GetCurrentHistoryLength() > continueAfter:
		return workflow.AllHandlersFinished(ctx)
	}
	return false
}

// again starts the next run, which has the same state.
func (d *database) again(ctx workflow.Context) error {
	ctx = workflow.WithWorkflowTaskQueue(ctx, d.queue(LaneControl))
	return workflow.NewContinueAsNewError(ctx, DatabaseWorkflow, DatabaseInput{Config: d.s.Config, State: d.s})
}

// queue returns the task queue of one of the database's lanes.
func (d *database) queue(lane string) string {
	return Queue(d.s.Config.Region, d.s.Config.Pool, lane)
}

// park stops the database until somebody acts.
func (d *database) park(r *activities.Reason, by string) {
	d.s.enter(fails, r, by)
	d.touch()
}

// trouble shows why a lane does not get on while it is tried again.
func (d *database) trouble(lane string, r *activities.Reason) {
	if before := d.s.Trouble[lane]; before != nil && before.Code == r.Code {
		r.Since = before.Since
	}
	if d.s.Trouble == nil {
		d.s.Trouble = map[string]*activities.Reason{}
	}
	d.s.Trouble[lane] = r
	d.touch()
}

// well takes back what trouble showed.
func (d *database) well(lane string) {
	if d.s.Trouble[lane] != nil {
		delete(d.s.Trouble, lane)
		d.touch()
	}
}

// workers lists the workers that report from the lanes.
func (d *database) workers() []string {
	ids := []string{}
	for i := range d.lanes {
		if w := d.lanes[i].worker; w != "" && !slices.Contains(ids, w) {
			ids = append(ids, w)
		}
	}
	slices.Sort(ids)
	return ids
}

// publish puts phase and reasons where operators look.
func (d *database) publish(ctx workflow.Context) {
	var codes []string
	add := func(r *activities.Reason) {
		if r != nil && len(codes) < 10 && !slices.Contains(codes, string(r.Code)) {
			codes = append(codes, string(r.Code))
		}
	}
	add(d.s.reason())
	for i := range d.s.Tables {
		add(d.s.Tables[i].Reason)
	}
	now := append([]string{d.s.Config.Name, d.s.Config.Region, string(d.s.Phase)}, codes...)
	if !slices.Equal(now, d.s.Published) {
		d.s.Published = now
		list := temporal.NewSearchAttributeKeyKeywordList(AttrReason)
		update := list.ValueUnset()
		if len(codes) > 0 {
			update = list.ValueSet(codes)
		}
		_ = workflow.UpsertTypedSearchAttributes(ctx, update,
			temporal.NewSearchAttributeKeyKeyword(AttrDatabase).ValueSet(d.s.Config.Name),
			temporal.NewSearchAttributeKeyKeyword(AttrRegion).ValueSet(d.s.Config.Region),
			temporal.NewSearchAttributeKeyKeyword(AttrPhase).ValueSet(string(d.s.Phase)))
	}
	workflow.SetCurrentDetails(ctx, d.s.details())
}
