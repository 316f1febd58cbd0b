package workflows

import (
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
)

// stickyFor is how long the commit lane is offered to the worker whose key
// index is warm before any other may take it.
const stickyFor = 5 * time.Second

// fetchWithin is how long a step may lie in its queue before that is a reason.
const fetchWithin = time.Minute

// supervise starts the lanes that the phase wants and ends the others, and
// starts a copy when tables wait for one.
func (d *database) supervise(ctx workflow.Context) {
	running := d.s.Phase == Running
	wanted := [3]bool{running || d.s.Phase == Paused && !d.s.PausedCapture, running, running}
	for i := range d.lanes {
		l := &d.lanes[i]
		if l.running && (!wanted[i] || l.generation != d.generation) && l.cancel != nil {
			l.cancel()
			l.cancel = nil
		}
		if !l.running && wanted[i] {
			d.start(ctx, i)
		}
	}
	if running && d.s.Copy == "" && len(d.s.waiting()) > 0 {
		d.copy(ctx)
	}
	if !running && d.s.Copy != "" && d.s.Phase != Preparing {
		id := d.s.Copy
		d.s.Copy = ""
		for i := range d.s.Tables {
			if p := d.s.Tables[i].Phase; p == Copying {
				d.s.Tables[i].Phase = Waiting
			}
		}
		workflow.Go(ctx, func(ctx workflow.Context) {
			_ = workflow.RequestCancelExternalWorkflow(ctx, id, "").Get(ctx, nil)
		})
	}
}

// stopLanes ends all lanes and waits until they have returned.
func (d *database) stopLanes(ctx workflow.Context) {
	for i := range d.lanes {
		if l := &d.lanes[i]; l.cancel != nil {
			l.cancel()
			l.cancel = nil
		}
	}
	d.await(ctx, func() bool {
		for i := range d.lanes {
			if d.lanes[i].running {
				return false
			}
		}
		return true
	})
}

// start runs lane i in a coroutine of its own until it is cancelled or parks
// something.
func (d *database) start(ctx workflow.Context, i int) {
	l := &d.lanes[i]
	ctx, l.cancel = workflow.WithCancel(ctx)
	l.running, l.generation = true, d.generation
	workflow.Go(ctx, func(ctx workflow.Context) {
		defer func() {
			l.running = false
			d.touch()
		}()
		delay := time.Duration(0)
		for ctx.Err() == nil {
			began := workflow.Now(ctx)
			err := d.once(ctx, l.name)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				delay = 0
				d.recovered(l.name)
				continue
			}
			f := failure(ctx, d.s.Config.Name, err)
			if f.Park {
				d.s.Reason, d.s.Phase = &f.Reason, Parked
				return
			}
			if workflow.Now(ctx).Sub(began) > time.Minute {
				delay = 0
			}
			if f.Reason.Code != activities.CodeWorkerLost {
				d.retrying(&f.Reason)
			}
			if delay > 0 {
				_ = workflow.Sleep(ctx, delay)
			}
			delay = min(max(2*delay, time.Second), 30*time.Second)
		}
	})
}

// retrying shows why a lane does not get on while it is tried again.
func (d *database) retrying(r *activities.Reason) {
	if d.s.Reason != nil && d.s.Reason.Code == r.Code {
		r.Since = d.s.Reason.Since
	}
	d.s.Reason = r
	d.touch()
}

// recovered takes back what retrying showed.
func (d *database) recovered(string) {
	if d.s.Phase == Running && d.s.Reason != nil {
		d.s.Reason = nil
		d.touch()
	}
}

// once runs a lane's activity for one time box.
func (d *database) once(ctx workflow.Context, lane string) error {
	switch lane {
	case LaneCapture:
		return d.capture(ctx)
	case LaneCommit:
		return d.commit(ctx)
	default:
		return d.scan(ctx)
	}
}

// long are the options of a long step: no retries by Temporal, for a failure
// is a decision; cancelled steps are waited for.
func (d *database) long(ctx workflow.Context, queue string, fetch time.Duration) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              queue,
		ScheduleToStartTimeout: fetch,
		StartToCloseTimeout:    10*time.Minute + activities.DetachedMax,
		HeartbeatTimeout:       d.s.Config.HeartbeatTimeout,
		WaitForCancellation:    true,
		RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
	})
}

func (d *database) capture(ctx workflow.Context) error {
	queue := Queue(d.s.Config.Region, d.s.Config.Pool, LaneCapture)
	var out activities.LaneResult
	return workflow.ExecuteActivity(d.long(ctx, queue, fetchWithin), steps.Capture, activities.CaptureInput{
		DB: d.s.Config, Epoch: d.s.Epoch, SystemID: d.s.SystemID, Timeline: d.s.Timeline,
	}).Get(ctx, &out)
}

// commit offers the lane to the worker with the warm index first.
func (d *database) commit(ctx workflow.Context) error {
	in := activities.CommitInput{DB: d.s.Config, Epoch: d.s.Epoch, Resume: d.s.Resume, Parked: d.s.parked()}
	region, pool := d.s.Config.Region, d.s.Config.Pool
	if d.s.Worker != "" {
		err := d.commitOn(ctx, WorkerQueue(region, pool, LaneCommit, d.s.Worker), stickyFor, in)
		if !notFetched(err) {
			return err
		}
	}
	return d.commitOn(ctx, Queue(region, pool, LaneCommit), fetchWithin, in)
}

func (d *database) commitOn(ctx workflow.Context, queue string, fetch time.Duration, in activities.CommitInput) error {
	var out activities.LaneResult
	err := workflow.ExecuteActivity(d.long(ctx, queue, fetch), steps.Commit, in).Get(ctx, &out)
	var timeout *temporal.TimeoutError
	switch {
	case err == nil:
		d.s.Worker = out.Worker
		d.s.Resume = out.Resume
	case errors.As(err, &timeout) && timeout.HasLastHeartbeatDetails():
		var p activities.CommitProgress
		if timeout.LastHeartbeatDetails(&p) == nil && p.Resume != nil {
			d.s.Resume = p.Resume
		}
		d.s.Worker = ""
	case err != nil && !notFetched(err):
		d.s.Worker = ""
	}
	return err
}

func notFetched(err error) bool {
	var timeout *temporal.TimeoutError
	return errors.As(err, &timeout) && timeout.TimeoutType() == enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START
}

// scan looks, now and then, for tables that appeared or vanished.
func (d *database) scan(ctx workflow.Context) error {
	every := max(3*d.s.Config.HeartbeatTimeout, 5*time.Second)
	if err := workflow.Sleep(ctx, every); err != nil {
		return err
	}
	in := activities.ScanInput{DB: d.s.Config, Epoch: d.s.Epoch, Copy: d.s.Copy}
	for i := range d.s.Tables {
		if t := &d.s.Tables[i]; t.Phase != Gone {
			in.Known = append(in.Known, t.OID)
		}
	}
	var out activities.ScanResult
	err := workflow.ExecuteActivity(d.options(ctx, LaneControl, time.Minute), steps.Scan, in).Get(ctx, &out)
	if err != nil {
		return err
	}
	for i := range out.Found {
		d.s.found(out.Found[i])
	}
	for _, oid := range out.Gone {
		if t := d.s.table(oid); t != nil {
			t.Phase = Gone
		}
	}
	for _, c := range out.Parked {
		d.s.change(c)
	}
	if out.CopyGone && in.Copy != "" && d.s.Copy == in.Copy {
		d.copied(in.Copy)
	}
	if len(out.Found)+len(out.Gone)+len(out.Parked) > 0 || out.CopyGone {
		d.touch()
	}
	return nil
}

// copy starts one copy of all tables that wait. It is a workflow of its own,
// outlives this run, and reports by signal.
func (d *database) copy(ctx workflow.Context) {
	d.s.Copies++
	id := fmt.Sprintf("%s/copy/%d-%d", DatabaseID(d.s.Config.Region, d.s.Config.Name), d.s.Epoch, d.s.Copies)
	in := CopyInput{Config: d.s.Config, Epoch: d.s.Epoch, ID: id, Parent: workflow.GetInfo(ctx).WorkflowExecution.ID}
	for _, t := range d.s.waiting() {
		in.Tables = append(in.Tables, CopyTable{OID: t.OID, Name: t.Name})
		d.s.table(t.OID).Phase = Copying
	}
	d.s.Copy = id
	child := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:            id,
		TaskQueue:             Queue(d.s.Config.Region, d.s.Config.Pool, LaneControl),
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_ABANDON,
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
	}), CopyWorkflow, in)
	if err := child.GetChildWorkflowExecution().Get(ctx, nil); err != nil {
		d.copied(id)
		return
	}
	workflow.Go(ctx, func(ctx workflow.Context) {
		if child.Get(ctx, nil) != nil {
			d.copied(id)
		}
	})
}

// copied ends a copy: its tables that were not finished wait again.
func (d *database) copied(id string) {
	if d.s.Copy != id {
		return
	}
	d.s.Copy = ""
	for i := range d.s.Tables {
		if d.s.Tables[i].Phase == Copying {
			d.s.Tables[i].Phase = Waiting
		}
	}
	d.touch()
}
