package workflows

import (
	"errors"
	"fmt"
	"slices"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
)

// Why requests are refused that the workflow's state does not allow.
var (
	errRemoving = errors.New("the database is being removed")
	errNoTables = errors.New("no table has been found yet; wait until the database runs")
)

// handle registers the query, the updates and their signal twins.
func (d *database) handle(ctx workflow.Context) error {
	workflow.Go(ctx, func(ctx workflow.Context) {
		for ctx.Err() == nil {
			s := workflow.NewSelector(ctx)
			d.signals(ctx, s, new(int))
			s.Select(ctx) // it ends with the workflow, which nothing else waits for
		}
	})
	return errors.Join(
		workflow.SetQueryHandler(ctx, StatusQuery, func() (Status, error) { return d.s.status(d.workers()), nil }),
		workflow.SetQueryHandler(ctx, EventsQuery, func() (Events, error) { return Events{Events: d.s.Events}, nil }),
		workflow.SetQueryHandler(ctx, ConfigQuery, func() (fleet.Database, error) { return d.s.Config, nil }),
		update(ctx, Apply, d.mayApplyNow, func(ctx workflow.Context, in ApplyInput) (Accepted, error) {
			d.apply(ctx, in)
			return Accepted{Phase: d.s.Phase}, nil
		}),
		update(ctx, Pause, d.mayPause, func(ctx workflow.Context, in PauseInput) (Accepted, error) {
			d.pause(ctx, in)
			return Accepted{Phase: d.s.Phase}, nil
		}),
		update(ctx, Resume, d.mayResume, func(ctx workflow.Context, in ResumeInput) (Accepted, error) {
			d.resume(ctx, in)
			return Accepted{Phase: d.s.Phase}, nil
		}),
		workflow.SetQueryHandler(ctx, Unpark, func(in UnparkInput) (UnparkPlan, error) { return d.s.unparking(in) }),
		update(ctx, Unpark, d.mayUnpark, func(ctx workflow.Context, in UnparkInput) (Accepted, error) {
			if err := d.mayBeginNow(ctx, in); err != nil {
				return Accepted{}, err
			}
			d.unpark(ctx, in)
			return Accepted{Phase: d.s.Phase}, nil
		}),
		update(ctx, Remove, d.mayRemove, func(ctx workflow.Context, in RemoveInput) (Removed, error) {
			d.remove(ctx, in)
			if err := workflow.Await(ctx, func() bool { return d.removed != nil || d.draining }); err != nil {
				return Removed{}, err
			}
			if d.removed == nil {
				return Removed{}, temporal.NewApplicationError("the database is still being removed; ask again", "AGAIN")
			}
			return *d.removed, nil
		}),
		update(ctx, Wait, d.mayWait, d.wait),
		update(ctx, Verify, d.mayVerify, d.verify),
		update(ctx, Plan, d.mayPlan, d.plan),
	)
}

// update registers an update whose input may be judges.
func update[In, Out any](ctx workflow.Context, name string, may func(In) error, do func(workflow.Context, In) (Out, error)) error {
	return workflow.SetUpdateHandlerWithOptions(ctx, name, do, workflow.UpdateHandlerOptions{Validator: may})
}

// receive handles the signals that have arrived, and counts them, so that none
// is lost when the run continues as new.
func (d *database) receive(ctx workflow.Context) (handled int) {
	s := workflow.NewSelector(ctx)
	d.signals(ctx, s, &handled)
	for s.HasPending() {
		s.Select(ctx)
	}
	return handled
}

// signals adds every signal to a selector, and counts what it handles.
func (d *database) signals(ctx workflow.Context, s workflow.Selector, handled *int) {
	on(ctx, d, s, handled, Apply, func(in ApplyInput) { d.apply(ctx, in) })
	on(ctx, d, s, handled, Pause, func(in PauseInput) { d.pause(ctx, in) })
	on(ctx, d, s, handled, Resume, func(in ResumeInput) { d.resume(ctx, in) })
	on(ctx, d, s, handled, Unpark, func(in UnparkInput) { d.unpark(ctx, in) })
	on(ctx, d, s, handled, Remove, func(in RemoveInput) { d.remove(ctx, in) })
	on(ctx, d, s, handled, activities.SignalTables, func(in activities.TablesChanged) { d.tables(&in) })
	on(ctx, d, s, handled, activities.SignalLane, func(in activities.LaneReport) { d.reported(&in) })
	on(ctx, d, s, handled, activities.SignalMarker, func(token string) {
		if _, awaited := d.awaited[token]; awaited {
			d.awaited[token] = true
		}
	})
}

// on adds one signal whose input is a T. An input that cannot be read is noted
// as a refused request; none at all is the zero T.
func on[T any](ctx workflow.Context, d *database, s workflow.Selector, handled *int, name string, handle func(T)) {
	s.AddReceive(workflow.GetSignalChannel(ctx, name), func(c workflow.ReceiveChannel, _ bool) {
		var raw converter.RawValue
		if !c.ReceiveAsync(&raw) {
			return
		}
		*handled++
		var in T
		if p := raw.Payload(); p != nil && len(p.GetData()) > 0 {
			if err := converter.GetDefaultDataConverter().FromPayload(p, &in); err != nil {
				d.note(ctx, name, "refused: its input cannot be read")
				return
			}
		}
		handle(in)
	})
}

func (d *database) note(ctx workflow.Context, name, outcome string) {
	d.s.note(name, workflow.Now(ctx), outcome)
	d.touch()
}

// alive refuses what comes too late.
func (d *database) alive() error {
	if d.s.Phase == Removing {
		return errRemoving
	}
	return nil
}

// judge refuses a configuration that nothing can run by.
func judge(db *fleet.Database) error {
	switch {
	case db.Name == "", db.Region == "", db.Pool == "":
		return errors.New("name, region and pool are required")
	case db.URL == "", db.Lake == "", len(db.Tables) == 0:
		return errors.New("url, lake and tables are required")
	case db.Topic.Name == "", db.Topic.Partitions <= 0:
		return errors.New("a topic with partitions is required")
	case db.HeartbeatTimeout <= 0:
		return errors.New("a heartbeat timeout is required")
	}
	return nil
}

// apply takes over a configuration and prepares the database with it. What was
// parked is tried again.
func (d *database) apply(ctx workflow.Context, in ApplyInput) {
	if err := d.mayApply(in); err != nil {
		d.note(ctx, Apply, "refused: "+err.Error())
		return
	}
	switch unchanged := same(d.s.Config, in.Config); {
	case !unchanged:
		if d.s.Copy != nil && !copiesAlike(d.s.Config, in.Config) {
			d.s.Copy.Stopping = true
		}
		if d.s.Config.Pool != in.Config.Pool {
			d.s.Worker = "" // it serves the other pool
		}
		d.reconfigure(in.Config)
	case d.s.Phase == Preparing && d.s.reason() == nil:
		d.note(ctx, Apply, "accepted")
		return
	case d.s.Phase == Paused, d.s.Phase == Running && d.s.count(Parked) == 0:
		d.note(ctx, Apply, "unchanged")
		return
	}
	d.anew(applies, Apply)
	d.note(ctx, Apply, "accepted")
}

// anew prepares the database again, unless it is paused, and starts what runs
// with the configuration of now. by is the request that asks for it: to resume
// the database resumes the tables that are paused, too.
func (d *database) anew(on event, by string) {
	d.generation++
	if d.s.Phase == Paused && on != resumes {
		return
	}
	d.s.enter(on, nil, by)
	for i := range d.s.Tables {
		if t := &d.s.Tables[i]; t.Phase == Parked || t.Phase == Paused && by == Resume {
			d.s.retry(t, by)
			d.forget()
		}
	}
}

func (d *database) pause(ctx workflow.Context, in PauseInput) {
	if err := d.mayPause(in); err != nil {
		d.note(ctx, Pause, "refused: "+err.Error())
		return
	}
	if tables, _ := d.s.chosen(in.Tables); len(tables) > 0 {
		d.pauseTables(tables)
		d.note(ctx, Pause, "accepted"+about(in.Tables))
		return
	}
	// Nothing of a parked database runs that could go on.
	d.s.PausedCapture = in.Capture || d.s.Phase == Parked
	d.s.enter(pauses, nil, Pause)
	d.note(ctx, Pause, "accepted")
}

func (d *database) resume(ctx workflow.Context, in ResumeInput) {
	if err := d.mayResume(in); err != nil {
		d.note(ctx, Resume, "refused: "+err.Error())
		return
	}
	if tables, _ := d.s.chosen(in.Tables); len(tables) > 0 {
		d.goOn(tables, Resume)
		d.note(ctx, Resume, "accepted"+about(in.Tables))
		return
	}
	d.s.PausedCapture = false
	d.anew(resumes, Resume)
	d.note(ctx, Resume, "accepted")
}

// remove ends the mirror. Asked again with force, it stops being patient.
func (d *database) remove(ctx workflow.Context, in RemoveInput) {
	if err := d.mayRemove(in); err != nil {
		d.note(ctx, Remove, "refused: "+err.Error())
		return
	}
	if d.s.Remove == nil || in.Force && !d.s.Remove.Force {
		d.s.Remove = &in
		d.generation++
	}
	d.s.enter(removes, nil, Remove)
	d.note(ctx, Remove, "accepted")
}

func (d *database) mayVerify(in VerifyInput) error {
	if len(d.s.Tables) == 0 {
		return errNoTables
	}
	for _, name := range in.Tables {
		if d.s.named(name) == nil {
			return fmt.Errorf("no table %q is mirrored here", name)
		}
	}
	return d.alive()
}

// verify starts the proof as a workflow of its own and answers with its id.
func (d *database) verify(ctx workflow.Context, in VerifyInput) (Started, error) {
	proof := ProofInput{Config: d.s.Config, Epoch: d.s.Epoch, Parent: workflow.GetInfo(ctx).WorkflowExecution.ID}
	for i := range d.s.Tables {
		t := &d.s.Tables[i]
		if t.Phase != Gone && (len(in.Tables) == 0 || slices.Contains(in.Tables, t.Name)) {
			proof.Tables = append(proof.Tables, CopyTable{OID: t.OID, Name: t.Name})
		}
	}
	child := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:        DatabaseID(d.s.Config.Region, d.s.Config.Name) + "/verify/" + workflow.GetCurrentUpdateInfo(ctx).ID,
		TaskQueue:         d.queue(LaneControl),
		ParentClosePolicy: enumspb.PARENT_CLOSE_POLICY_ABANDON,
	}), VerifyWorkflow, proof)
	var run workflow.Execution
	if err := child.GetChildWorkflowExecution().Get(ctx, &run); err != nil {
		return Started{}, err
	}
	return Started{WorkflowID: run.ID, RunID: run.RunID}, nil
}
