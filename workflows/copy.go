package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
)

// chunksAtOnce is how many chunks of one copy run at the same time.
const chunksAtOnce = 4

// CopyInput starts a Copy workflow.
type CopyInput struct {
	Config fleet.Database `json:"config"`
	Epoch  uint32         `json:"epoch"`
	// ID names the copy; Parent is the Database workflow that is told.
	ID     string      `json:"id"`
	Parent string      `json:"parent"`
	Tables []CopyTable `json:"tables"`
}

// CopyTable is one table to copy.
type CopyTable struct {
	OID  uint32 `json:"o"`
	Name string `json:"n"`
}

// Copy copies tables under one cut at a time: a holder keeps the snapshot while
// chunks read it, on any worker. When the snapshot dies, the tables that were
// not finished start over under the next cut. It tells its parent about each
// table and about its end.
func Copy(ctx workflow.Context, in CopyInput) error {
	c := &copier{in: in, left: in.Tables}
	defer func() {
		// A cancelled copy reports too: its parent forgets it.
		ctx, _ := workflow.NewDisconnectedContext(ctx)
		c.report(ctx, activities.TablesChanged{Copy: in.ID})
	}()
	for delay := time.Second; len(c.left) > 0; delay = min(2*delay, 30*time.Second) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		before := len(c.left)
		err := c.underOneCut(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if f := failure(ctx, c.in.Config.Name, err); f.Park {
				c.park(ctx, &f.Reason)
				return nil
			}
		}
		if len(c.left) < before {
			delay = time.Second
		}
		if len(c.left) > 0 {
			_ = workflow.Sleep(ctx, delay)
		}
	}
	return nil
}

type copier struct {
	in   CopyInput
	left []CopyTable
	// attempt counts cuts: each makes a copy of its own in the lake.
	attempt int
}

// holder is a running Hold activity and the cut that it holds.
type holder struct {
	cut    activities.Cut
	ended  workflow.Future
	cancel workflow.CancelFunc
}

// hold starts a holder and waits for its cut.
func hold(ctx workflow.Context, db fleet.Database) (*holder, error) {
	hctx, cancel := workflow.WithCancel(ctx)
	hctx = workflow.WithActivityOptions(hctx, workflow.ActivityOptions{
		TaskQueue:              Queue(db.Region, db.Pool, LaneCopy),
		ScheduleToStartTimeout: fetchWithin,
		StartToCloseTimeout:    7 * 24 * time.Hour,
		HeartbeatTimeout:       db.HeartbeatTimeout,
		WaitForCancellation:    true,
		RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
	})
	h := &holder{cancel: cancel}
	h.ended = workflow.ExecuteActivity(hctx, steps.Hold, activities.HoldInput{DB: db})
	cut := workflow.GetSignalChannel(ctx, activities.SignalCut)
	for cut.ReceiveAsync(&h.cut) { // of a holder that died
	}
	var err error
	got := false
	s := workflow.NewSelector(ctx)
	s.AddReceive(cut, func(c workflow.ReceiveChannel, _ bool) { c.Receive(ctx, &h.cut); got = true })
	s.AddFuture(h.ended, func(f workflow.Future) { err = f.Get(ctx, nil) })
	s.AddReceive(ctx.Done(), func(workflow.ReceiveChannel, bool) { err = ctx.Err() })
	s.Select(ctx)
	if !got && err == nil {
		err = temporal.NewApplicationError("the holder ended without a cut", string(activities.CodeSnapshotGone))
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return h, nil
}

// release ends the holder and waits for it.
func (h *holder) release(ctx workflow.Context) {
	h.cancel()
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	_ = h.ended.Get(ctx, nil)
}

// underOneCut copies as many of the tables that are left as one cut allows.
func (c *copier) underOneCut(ctx workflow.Context) error {
	h, err := hold(ctx, c.in.Config)
	if err != nil {
		return err
	}
	defer h.release(ctx)
	c.attempt++
	var failed error
	done := map[uint32]bool{}
	finished := 0
	limit := workflow.NewSemaphore(ctx, chunksAtOnce)
	work, stop := workflow.WithCancel(ctx)
	defer stop()
	tables := append([]CopyTable(nil), c.left...)
	for _, t := range tables {
		workflow.Go(work, func(work workflow.Context) {
			defer func() { finished++ }()
			change, err := c.table(work, h, limit, t)
			if err != nil {
				if f := failure(ctx, c.in.Config.Name, err); f.Park && work.Err() == nil {
					change = &activities.TableChange{OID: t.OID, Reason: &f.Reason}
				} else {
					failed = err
					return
				}
			}
			done[t.OID] = true
			told, _ := workflow.NewDisconnectedContext(work)
			c.report(told, activities.TablesChanged{Tables: []activities.TableChange{*change}})
		})
	}
	_ = workflow.Await(ctx, func() bool { return finished == len(tables) || h.ended.IsReady() })
	if finished < len(tables) {
		// The snapshot is gone: what still runs cannot end well.
		stop()
		_ = workflow.Await(ctx, func() bool { return finished == len(tables) })
	}
	var left []CopyTable
	for _, t := range tables {
		if !done[t.OID] {
			left = append(left, t)
		}
	}
	c.left = left
	return failed
}

// table copies one table.
func (c *copier) table(ctx workflow.Context, h *holder, limit workflow.Semaphore, t CopyTable) (*activities.TableChange, error) {
	id := c.in.ID + "#" + h.cut.LSN.String()
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:           Queue(c.in.Config.Region, c.in.Config.Pool, LaneCopy),
		StartToCloseTimeout: 24 * time.Hour,
		HeartbeatTimeout:    c.in.Config.HeartbeatTimeout,
		WaitForCancellation: true,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, MaximumInterval: 10 * time.Second, MaximumAttempts: 5},
	})
	if err := limit.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	var plan activities.PlanResult
	err := workflow.ExecuteActivity(ctx, steps.PlanCopy, activities.PlanInput{
		DB: c.in.Config, Epoch: c.in.Epoch, Copy: id, Cut: h.cut, OID: t.OID,
	}).Get(ctx, &plan)
	limit.Release(1)
	if err != nil {
		return nil, err
	}
	var rows int64
	var failed error
	finished := 0
	for i, chunk := range plan.Chunks {
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer func() { finished++ }()
			if err := limit.Acquire(ctx, 1); err != nil {
				failed = err
				return
			}
			defer limit.Release(1)
			if failed != nil {
				return
			}
			var out activities.ChunkResult
			err := workflow.ExecuteActivity(ctx, steps.CopyChunk, activities.ChunkInput{
				DB: c.in.Config, Epoch: c.in.Epoch, Copy: id, Cut: h.cut, OID: t.OID, Index: i, Chunk: chunk,
			}).Get(ctx, &out)
			if err != nil {
				failed = err
				return
			}
			rows += out.Rows
		})
	}
	disconnected, _ := workflow.NewDisconnectedContext(ctx)
	_ = workflow.Await(disconnected, func() bool { return finished == len(plan.Chunks) })
	if failed != nil {
		return nil, failed
	}
	var out activities.FinishResult
	err = workflow.ExecuteActivity(ctx, steps.FinishCopy, activities.FinishInput{
		DB: c.in.Config, Epoch: c.in.Epoch, Copy: id, OID: t.OID,
	}).Get(ctx, &out)
	if err != nil {
		return nil, err
	}
	return &activities.TableChange{OID: t.OID, Phase: out.Phase, RowsCopied: rows}, nil
}

// park parks every table that is left.
func (c *copier) park(ctx workflow.Context, r *activities.Reason) {
	var changed activities.TablesChanged
	for _, t := range c.left {
		changed.Tables = append(changed.Tables, activities.TableChange{OID: t.OID, Reason: r})
	}
	c.report(ctx, changed)
}

func (c *copier) report(ctx workflow.Context, t activities.TablesChanged) {
	_ = workflow.SignalExternalWorkflow(ctx, c.in.Parent, "", activities.SignalTables, t).Get(ctx, nil)
}
