package workflows

import (
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
)

// reemit is how long a marker may take before it is written again: the lane
// that saw it may have died before it could say so.
const reemit = 10 * time.Second

// Errors of requests that the workflow's state does not allow.
var (
	errRemoving = errors.New("the database is being removed")
	errNoTables = errors.New("no table has been found yet; wait until the database runs")
)

// handle registers the query, the updates and their signal twins.
func (d *database) handle(ctx workflow.Context) error {
	if err := workflow.SetQueryHandler(ctx, StatusQuery, func() (Status, error) { return d.s.status(), nil }); err != nil {
		return err
	}
	alive := func() error {
		if d.s.Phase == Removing {
			return errRemoving
		}
		return nil
	}
	accepted := func() (Accepted, error) { return Accepted{Phase: d.s.Phase}, nil }
	return errors.Join(
		workflow.SetUpdateHandlerWithOptions(ctx, Apply, func(ctx workflow.Context, in ApplyInput) (Accepted, error) {
			d.apply(ctx, in)
			return accepted()
		}, workflow.UpdateHandlerOptions{Validator: func(ApplyInput) error { return alive() }}),
		workflow.SetUpdateHandlerWithOptions(ctx, Pause, func(ctx workflow.Context, in PauseInput) (Accepted, error) {
			d.pause(ctx, in)
			return accepted()
		}, workflow.UpdateHandlerOptions{Validator: func(PauseInput) error { return alive() }}),
		workflow.SetUpdateHandlerWithOptions(ctx, Resume, func(ctx workflow.Context, in ResumeInput) (Accepted, error) {
			d.resume(ctx, in)
			return accepted()
		}, workflow.UpdateHandlerOptions{Validator: func(ResumeInput) error { return alive() }}),
		workflow.SetUpdateHandler(ctx, Remove, func(ctx workflow.Context, in RemoveInput) (Removed, error) {
			d.startRemove(ctx, in)
			err := workflow.Await(ctx, func() bool { return d.removed != nil })
			if err != nil {
				return Removed{}, err
			}
			return *d.removed, nil
		}),
		workflow.SetUpdateHandlerWithOptions(ctx, Wait, d.wait, workflow.UpdateHandlerOptions{Validator: func(in WaitInput) error {
			if in.Until != UntilLive && in.Until != UntilCaughtUp {
				return fmt.Errorf("cannot wait until %q: want %s or %s", in.Until, UntilLive, UntilCaughtUp)
			}
			return alive()
		}}),
		workflow.SetUpdateHandlerWithOptions(ctx, Verify, d.verify, workflow.UpdateHandlerOptions{Validator: func(in VerifyInput) error {
			if len(d.s.Tables) == 0 {
				return errNoTables
			}
			for _, name := range in.Tables {
				if !d.has(name) {
					return fmt.Errorf("no table %q is mirrored here", name)
				}
			}
			return alive()
		}}),
		d.listen(ctx),
	)
}

// listen serves the signals in a coroutine.
func (d *database) listen(ctx workflow.Context) error {
	workflow.Go(ctx, func(ctx workflow.Context) {
		for ctx.Err() == nil {
			s := workflow.NewSelector(ctx)
			d.signals(ctx, s)
			s.AddReceive(ctx.Done(), func(workflow.ReceiveChannel, bool) {})
			s.Select(ctx)
		}
	})
	return nil
}

// receive handles all signals that have arrived, so that none is lost when the
// run continues as new.
func (d *database) receive(ctx workflow.Context) {
	s := workflow.NewSelector(ctx)
	d.signals(ctx, s)
	for s.HasPending() {
		s.Select(ctx)
	}
}

// signals adds every signal to a selector.
func (d *database) signals(ctx workflow.Context, s workflow.Selector) {
	on(ctx, s, Apply, func(in ApplyInput) { d.apply(ctx, in) })
	on(ctx, s, Pause, func(in PauseInput) { d.pause(ctx, in) })
	on(ctx, s, Resume, func(in ResumeInput) { d.resume(ctx, in) })
	on(ctx, s, Remove, func(in RemoveInput) { d.startRemove(ctx, in) })
	on(ctx, s, activities.SignalMarker, func(token string) { d.markers[token] = true })
	on(ctx, s, activities.SignalTables, func(in activities.TablesChanged) {
		for i := range in.Tables {
			d.s.change(in.Tables[i])
		}
		if in.Copy != "" {
			d.copied(in.Copy)
		}
		d.touch()
	})
}

// on adds one signal whose input is a T. An input that cannot be read is noted
// as a refused request.
func on[T any](ctx workflow.Context, s workflow.Selector, name string, handle func(T)) {
	s.AddReceive(workflow.GetSignalChannel(ctx, name), func(c workflow.ReceiveChannel, _ bool) {
		var in T
		c.Receive(ctx, &in)
		handle(in)
	})
}

func (d *database) has(name string) bool {
	for i := range d.s.Tables {
		if d.s.Tables[i].Name == name && d.s.Tables[i].Phase != Gone {
			return true
		}
	}
	return false
}

func (d *database) note(ctx workflow.Context, name, outcome string) {
	d.s.note(name, workflow.Now(ctx), outcome)
	d.touch()
}

// apply takes over a configuration and prepares the database with it. What was
// parked is tried again.
func (d *database) apply(ctx workflow.Context, in ApplyInput) {
	if d.s.Phase == Removing {
		d.note(ctx, Apply, "refused: "+errRemoving.Error())
		return
	}
	unchanged := same(d.s.Config, in.Config)
	if unchanged && (d.s.Phase == Running || d.s.Phase == Paused) && len(d.s.parked()) == 0 {
		d.note(ctx, Apply, "unchanged")
		return
	}
	d.s.Config = in.Config
	d.generation++
	if d.s.Phase != Paused {
		d.s.Phase, d.s.Reason = Preparing, nil
		d.unpark()
	}
	d.note(ctx, Apply, "accepted")
}

// unpark lets the next preparation decide what becomes of the parked tables.
// Their changes may lie before the hint, so that it is forgotten.
func (d *database) unpark() {
	if len(d.s.parked()) > 0 {
		d.s.Resume = nil
	}
	for i := range d.s.Tables {
		if t := &d.s.Tables[i]; t.Phase == Parked {
			t.Phase, t.Reason = Waiting, nil
		}
	}
}

func (d *database) pause(ctx workflow.Context, in PauseInput) {
	if d.s.Phase == Removing {
		d.note(ctx, Pause, "refused: "+errRemoving.Error())
		return
	}
	d.s.Phase, d.s.PausedCapture = Paused, in.Capture
	d.note(ctx, Pause, "accepted")
}

func (d *database) resume(ctx workflow.Context, _ ResumeInput) {
	switch d.s.Phase {
	case Removing:
		d.note(ctx, Resume, "refused: "+errRemoving.Error())
		return
	case Preparing:
		d.generation++
		d.note(ctx, Resume, "tried again")
		return
	}
	d.s.PausedCapture = false
	d.s.Phase, d.s.Reason = Preparing, nil
	d.unpark()
	d.generation++
	d.note(ctx, Resume, "accepted")
}

func (d *database) startRemove(ctx workflow.Context, in RemoveInput) {
	if d.remove == nil || in.Force {
		d.remove = &in
	}
	d.s.Phase = Removing
	d.note(ctx, Remove, "accepted")
}

// wait is the read-your-writes barrier.
func (d *database) wait(ctx workflow.Context, in WaitInput) (Waited, error) {
	end := workflow.Now(ctx).Add(in.Timeout)
	left := func() time.Duration { return end.Sub(workflow.Now(ctx)) }
	late := func(why string) (Waited, error) {
		if b := d.s.blocked(in.PastParked); b != "" {
			why = b
		} else if d.s.Reason != nil {
			why += "; " + describe(d.s.Reason)
		}
		return Waited{Why: why}, nil
	}
	ready := func() bool {
		return d.s.blocked(in.PastParked) != "" || d.s.Phase == Running && len(d.s.Tables) > 0 && d.s.settled()
	}
	if in.Until == UntilLive {
		if ok, err := workflow.AwaitWithTimeout(ctx, left(), ready); err != nil {
			return Waited{}, err
		} else if !ok || d.s.blocked(in.PastParked) != "" {
			return late("tables are still on their way to live")
		}
		return Waited{Reached: true}, nil
	}
	token := workflow.GetCurrentUpdateInfo(ctx).ID
	defer delete(d.markers, token)
	passed := func() bool { return d.markers[token] || d.s.blocked(in.PastParked) != "" }
	for !passed() && left() > 0 {
		err := workflow.ExecuteActivity(d.options(ctx, LaneControl, reemit), steps.EmitMarker,
			activities.MarkerInput{DB: d.s.Config, Token: token}).Get(ctx, nil)
		if ctx.Err() != nil {
			return Waited{}, ctx.Err()
		}
		if err != nil {
			if f := failure(ctx, d.s.Config.Name, err); f.Park {
				return Waited{Why: describe(&f.Reason)}, nil
			}
			_, _ = workflow.AwaitWithTimeout(ctx, min(time.Second, max(left(), 0)), passed)
			continue
		}
		if _, err := workflow.AwaitWithTimeout(ctx, min(reemit, max(left(), 0)), passed); err != nil {
			return Waited{}, err
		}
	}
	if !d.markers[token] || d.s.blocked(in.PastParked) != "" {
		return late("the lake has not reached what was committed when the wait began")
	}
	if ok, err := workflow.AwaitWithTimeout(ctx, max(left(), 0), ready); err != nil {
		return Waited{}, err
	} else if !ok || d.s.blocked(in.PastParked) != "" {
		return late("tables are still being copied")
	}
	return Waited{Reached: true}, nil
}

// verify starts the proof as a workflow of its own and answers with its id.
func (d *database) verify(ctx workflow.Context, in VerifyInput) (Started, error) {
	id := DatabaseID(d.s.Config.Region, d.s.Config.Name) + "/verify/" + workflow.GetCurrentUpdateInfo(ctx).ID
	vin := ProofInput{Config: d.s.Config, Epoch: d.s.Epoch, Parent: workflow.GetInfo(ctx).WorkflowExecution.ID}
	for i := range d.s.Tables {
		t := &d.s.Tables[i]
		if t.Phase == Gone || len(in.Tables) > 0 && !contains(in.Tables, t.Name) {
			continue
		}
		vin.Tables = append(vin.Tables, CopyTable{OID: t.OID, Name: t.Name})
	}
	child := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:        id,
		TaskQueue:         Queue(d.s.Config.Region, d.s.Config.Pool, LaneControl),
		ParentClosePolicy: enumspb.PARENT_CLOSE_POLICY_ABANDON,
	}), VerifyWorkflow, vin)
	var run workflow.Execution
	if err := child.GetChildWorkflowExecution().Get(ctx, &run); err != nil {
		return Started{}, err
	}
	return Started{WorkflowID: run.ID, RunID: run.RunID}, nil
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}
