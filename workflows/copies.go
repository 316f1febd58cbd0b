package workflows

import (
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
)

// stopPatience is how long a copy that was asked to end may take. What it does
// afterwards is void: the lake knows the copy that replaced it.
const stopPatience = 30 * time.Second

// superviseCopy starts a copy when tables wait for one, tells a running one what
// has come to wait since and what is to wait no longer, and ends it when it
// should not go on.
func (d *database) superviseCopy(ctx workflow.Context) {
	running := d.s.Phase == Running && !d.draining
	switch c := d.s.Copy; {
	case c != nil && (c.Stopping || d.s.Phase != Running && d.s.Phase != Preparing):
		if c.Stopping = true; d.stopping != c.ID && !d.draining {
			d.stopping = c.ID
			workflow.Go(ctx, func(ctx workflow.Context) { d.stopCopy(ctx, c.ID) })
		}
	case running && c == nil:
		if tables := d.s.waiting(); len(tables) > 0 {
			d.copy(ctx, tables)
		}
	case running:
		tables := d.s.waiting()
		if drop := c.Drop; len(drop)+len(tables) > 0 {
			c.Drop = nil
			d.copying(tables)
			d.tellCopy(ctx, c.ID, append(drop, tables...))
		}
	}
}

// copying marks tables as taken over by a copy.
func (d *database) copying(tables []CopyTable) {
	for _, t := range tables {
		d.s.move(d.s.table(t.OID), taken, nil, LaneCopy)
	}
	d.touch()
}

// copy starts a copy. It is a workflow of its own, outlives this run, and
// reports by signal.
func (d *database) copy(ctx workflow.Context, tables []CopyTable) {
	d.s.Copies++
	id := fmt.Sprintf("%s/copy/%d-%d", DatabaseID(d.s.Config.Region, d.s.Config.Name), d.s.Epoch, d.s.Copies)
	d.s.Copy = &CopyState{ID: id}
	d.copying(tables)
	child := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:            id,
		TaskQueue:             d.queue(LaneControl),
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_ABANDON,
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
	}), CopyWorkflow, CopyInput{
		Config: d.s.Config, Epoch: d.s.Epoch, ID: id, Parent: workflow.GetInfo(ctx).WorkflowExecution.ID, Tables: tables,
	})
	workflow.Go(ctx, func(ctx workflow.Context) {
		if child.GetChildWorkflowExecution().Get(ctx, nil) != nil {
			// One of a database that was removed may still end.
			_ = workflow.Sleep(ctx, time.Second)
			d.copied(id)
			return
		}
		if child.Get(ctx, nil) != nil {
			d.copied(id)
		}
	})
}

// tellCopy gives tables to the copy that runs, and takes away those to drop.
func (d *database) tellCopy(ctx workflow.Context, id string, tables []CopyTable) {
	sent := workflow.SignalExternalWorkflow(ctx, id, "", signalMore, tables)
	workflow.Go(ctx, func(ctx workflow.Context) {
		if sent.Get(ctx, nil) != nil {
			d.copied(id) // it has ended
		}
	})
}

// stopCopy ends a copy.
func (d *database) stopCopy(ctx workflow.Context, id string) {
	ended := func() bool { return d.s.Copy == nil || d.s.Copy.ID != id }
	if workflow.RequestCancelExternalWorkflow(ctx, id, "").Get(ctx, nil) == nil {
		_, _ = workflow.AwaitWithTimeout(ctx, stopPatience, ended)
	}
	d.copied(id)
}

// copied ends a copy: its tables that were not finished wait again.
func (d *database) copied(id string) {
	if d.s.Copy == nil || d.s.Copy.ID != id {
		return
	}
	d.s.Copy = nil
	d.s.leftOver()
	d.well(LaneCopy)
	d.touch()
}

// tables takes a report of tables.
func (d *database) tables(in *activities.TablesChanged) {
	if in.Copy != "" && (d.s.Copy == nil || d.s.Copy.ID != in.Copy) {
		return // a copy that was given up
	}
	d.reports++
	by := LaneCommit
	if in.Copy != "" {
		by = LaneCopy
	}
	for i := range in.Tables {
		c := &in.Tables[i]
		if in.Copy != "" && d.s.Copy.Stopping {
			continue // under a configuration that has been replaced
		}
		d.heard[c.OID] = d.reports
		d.s.change(c, by)
	}
	if in.Copy != "" && in.Ended {
		d.copied(in.Copy)
	}
	d.touch()
}

// reported takes a report of how a lane gets on.
func (d *database) reported(r *activities.LaneReport) {
	if r.Copy != "" {
		switch {
		case d.s.Copy == nil || d.s.Copy.ID != r.Copy || d.s.Copy.Stopping:
		case r.Reason == nil:
			d.well(LaneCopy)
		case r.Park && d.s.Phase == Running:
			d.park(r.Reason, LaneCopy)
		default:
			d.trouble(LaneCopy, r.Reason)
		}
		return
	}
	for i := range d.lanes {
		l := &d.lanes[i]
		if l.name != r.Lane || !l.running {
			continue
		}
		if l.worker, l.lost = r.Worker, 0; i == committing {
			d.s.Worker = r.Worker
		}
		d.well(l.name)
	}
}
