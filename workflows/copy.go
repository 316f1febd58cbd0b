package workflows

import (
	"errors"
	"fmt"
	"slices"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
)

const (
	// cutsAtOnce is how many snapshots one copy holds at the same time: tables
	// that have to start over need not wait for those that go on.
	cutsAtOnce = 2
	// tablesAtOnce is how many tables are copied at the same time under one cut,
	// so that they finish one after another, and chunksAtOnce how many chunks of
	// one copy run at the same time.
	tablesAtOnce = 4
	chunksAtOnce = 4
	// chunkEvents is how many events one chunk adds to the history at most.
	// While those of the tables begun would exceed roomFor, none is begun.
	chunkEvents = 6
	roomFor     = 25_000
	// tellEvery is how often the parent is told of tables, and tellProgress how
	// often of rows alone.
	tellEvery    = time.Second
	tellProgress = 10 * time.Second
	// chunkTries is how often a step of a copy is tried under one cut.
	chunkTries = 5
)

// signalMore gives a running copy more tables, and takes some away from it.
const signalMore = "more"

// CopyInput starts a Copy workflow.
type CopyInput struct {
	Config fleet.Database `json:"config"`
	Epoch  uint32         `json:"epoch"`
	// ID names the copy; Parent is the Database workflow that is told.
	ID     string      `json:"id"`
	Parent string      `json:"parent"`
	Tables []CopyTable `json:"tables"`
	// Cuts counts the cuts that were taken: each makes a copy of its own in the
	// lake.
	Cuts int `json:"cuts,omitempty"`
	// Unknown is what was spent on errors that Millrace does not know.
	Unknown *Spending `json:"unknown,omitempty"`
}

// CopyTable is one table to copy.
type CopyTable struct {
	OID  uint32 `json:"o"`
	Name string `json:"n"`
	// Drop tells a running copy to give the table up.
	Drop bool `json:"d,omitempty"`
	// Unknown is what its copy has spent on errors that Millrace does not know.
	Unknown *Spending `json:"u,omitempty"`
	// turn counts how often a table was given up: an entry of another turn is void.
	turn int
}

// Copy copies tables under cuts: a holder keeps a snapshot while chunks read
// it, on any worker. Tables that cannot finish under their cut, because they
// were rewritten or the snapshot died, start over under the next. It tells its
// parent about each table, about what it waits for, and about its end.
func Copy(ctx workflow.Context, in CopyInput) error {
	c := &copier{
		in: in, queue: in.Tables, limit: workflow.NewSemaphore(ctx, chunksAtOnce),
		turns: map[uint32]int{}, running: map[uint32][]workflow.CancelFunc{},
	}
	return c.run(ctx)
}

// copier is one run of the Copy workflow.
type copier struct {
	in CopyInput
	// queue holds the tables that wait for a cut; cuts counts those that are
	// held, tables those that are being copied, chunks those that are planned.
	queue  []CopyTable
	cuts   int
	tables int
	chunks int
	limit  workflow.Semaphore
	// turns are the turns of the tables that were given up, and running the tables
	// that are being copied, with what ends them.
	turns   map[uint32]int
	running map[uint32][]workflow.CancelFunc
	// changes wakes the main coroutine.
	changes int
	// notBefore is when the next cut may be taken, pause what the next failure
	// adds.
	notBefore time.Time
	pause     time.Duration
	// over tells that nothing more is to be begun: the parent is gone, or the
	// database is to be parked.
	over bool

	// told is what the parent was told of the lane; news what it is to be told
	// of tables, urgent that a table's phase is among it.
	told    activities.Code
	news    []activities.TableChange
	urgent  bool
	telling bool
	last    time.Time
}

// run takes cuts until no table is left.
func (c *copier) run(ctx workflow.Context) error {
	all, _ := workflow.NewDisconnectedContext(ctx)
	workflow.Go(all, c.listen)
	workflow.Go(all, c.tell)
	for {
		seen := c.changes
		stopped := c.over || ctx.Err() != nil
		switch now := workflow.Now(ctx); {
		case c.cuts == 0 && (stopped || len(c.queue) == 0):
			c.flush(all)
			c.receive(ctx)
			if len(c.queue) > 0 && !stopped {
				continue
			}
			c.report(all, activities.TablesChanged{Copy: c.in.ID, Ended: true})
			return ctx.Err()
		case c.cuts == 0 && c.full(ctx):
			c.flush(all)
			c.receive(ctx)
			next := c.in
			next.Tables = c.queue
			return workflow.NewContinueAsNewError(ctx, CopyWorkflow, next)
		case !stopped && len(c.queue) > 0 && c.cuts < cutsAtOnce && !c.full(ctx) && !now.Before(c.notBefore):
			c.take(ctx)
		case !stopped && len(c.queue) > 0 && c.cuts < cutsAtOnce && !c.full(ctx):
			_, _ = workflow.AwaitWithTimeout(ctx, c.notBefore.Sub(now), func() bool { return c.changes != seen })
		default:
			wait := ctx
			if stopped {
				wait = all // what runs is waited for
			}
			_ = workflow.Await(wait, func() bool { return c.changes != seen })
		}
	}
}

// full tells that the history has no room for another table.
func (c *copier) full(ctx workflow.Context) bool {
	info := workflow.GetInfo(ctx)
	return info.GetContinueAsNewSuggested() && c.tables == 0 || info.GetCurrentHistoryLength()+chunkEvents*c.chunks > roomFor
}

// listen takes tables that come to wait while the copy runs.
func (c *copier) listen(ctx workflow.Context) {
	for {
		var tables []CopyTable
		workflow.GetSignalChannel(ctx, signalMore).Receive(ctx, &tables)
		c.more(tables)
	}
}

// receive takes what has arrived.
func (c *copier) receive(ctx workflow.Context) {
	var tables []CopyTable
	for workflow.GetSignalChannel(ctx, signalMore).ReceiveAsync(&tables) {
		c.more(tables)
		tables = nil
	}
}

// more makes tables wait for a cut, and gives up those that are to be dropped.
func (c *copier) more(tables []CopyTable) {
	for _, t := range tables {
		if t.Drop {
			c.turns[t.OID]++
			for _, stop := range c.running[t.OID] {
				stop()
			}
			c.queue = slices.DeleteFunc(c.queue, c.void)
			continue
		}
		t.turn = c.turns[t.OID]
		c.queue = append(c.queue, t)
	}
	c.changes++
}

// void tells that a table was given up since it was queued.
func (c *copier) void(t CopyTable) bool { return t.turn != c.turns[t.OID] }

// requeue makes tables wait for another cut.
func (c *copier) requeue(tables ...CopyTable) {
	c.queue = append(c.queue, tables...)
	c.queue = slices.DeleteFunc(c.queue, c.void)
	c.changes++
}

// later puts the next cut off, longer with each failure in a row. What fails
// while it is put off already is one failure with what went before, and a worker
// that is gone says nothing about the next one.
func (c *copier) later(ctx workflow.Context, err error) {
	now := workflow.Now(ctx)
	var timeout *temporal.TimeoutError
	switch {
	case errors.As(err, &timeout) && timeout.TimeoutType() == enumspb.TIMEOUT_TYPE_HEARTBEAT:
		c.pause = 0
		c.notBefore = now.Add(time.Second)
	case !now.Before(c.notBefore):
		c.pause = min(max(2*c.pause, time.Second), slowest)
		c.notBefore = now.Add(c.pause + jitter(ctx, LaneCopy, c.pause))
	}
}

// take takes a cut and copies the tables that wait under it.
func (c *copier) take(ctx workflow.Context) {
	tables := c.queue
	c.queue = nil
	c.in.Cuts++
	h, err := hold(ctx, &c.in.Config, fmt.Sprint(c.in.Cuts))
	if err != nil {
		c.queue = slices.DeleteFunc(append(tables, c.queue...), c.void)
		if ctx.Err() == nil {
			c.failed(ctx, err)
			c.later(ctx, err)
		}
		return
	}
	c.in.Unknown = nil
	c.lane(ctx, nil, false)
	id := fmt.Sprintf("%s#%d", c.in.ID, c.in.Cuts)
	c.cuts++
	workflow.Go(ctx, func(ctx workflow.Context) {
		c.under(ctx, h, id, tables)
		c.cuts--
		c.changes++
	})
}

// failed shows what an error of the lane means: it is tried again, or the
// database is to be parked.
func (c *copier) failed(ctx workflow.Context, err error) {
	f := failure(ctx, &c.in.Config, Queue(c.in.Config.Region, c.in.Config.Pool, LaneCopy), err)
	if f.Reason.Code == activities.CodeInternal {
		f.Park = c.in.Unknown.spent(&c.in.Unknown, workflow.Now(ctx))
	} else {
		c.in.Unknown = nil
	}
	if f.Park {
		c.over = true
		c.changes++
	}
	if f.Park || !f.Anew && f.Reason.Code != activities.CodeWorkerLost {
		c.lane(ctx, &f.Reason, f.Park)
	}
}

// under copies tables under one cut, a few at a time, and makes those wait again
// that did not finish.
func (c *copier) under(ctx workflow.Context, h *holder, id string, tables []CopyTable) {
	all, _ := workflow.NewDisconnectedContext(ctx)
	work, stop := workflow.WithCancel(ctx)
	defer stop()
	running := 0
	lost := func() bool { return h.ended.IsReady() || work.Err() != nil || c.over }
	next := 0
	for ; next < len(tables); next++ {
		if running >= tablesAtOnce {
			_ = workflow.Await(all, func() bool { return running < tablesAtOnce || lost() })
		}
		if lost() || c.full(ctx) {
			break
		}
		t := tables[next]
		if c.void(t) {
			continue
		}
		running++
		c.tables++
		workflow.Go(work, func(work workflow.Context) {
			work, stop := workflow.WithCancel(work)
			defer stop()
			c.running[t.OID] = append(c.running[t.OID], stop)
			c.table(work, h, id, t)
			if c.running[t.OID] = c.running[t.OID][1:]; len(c.running[t.OID]) == 0 {
				delete(c.running, t.OID)
			}
			running--
			c.tables--
		})
	}
	_ = workflow.Await(all, func() bool { return running == 0 || lost() })
	if h.ended.IsReady() {
		c.later(ctx, h.ended.Get(all, nil)) // all that is left goes under the same next cut
	}
	stop() // what still runs cannot end well
	_ = workflow.Await(all, func() bool { return running == 0 })
	c.requeue(tables[next:]...)
	h.release(ctx)
}

// table copies one table and decides what becomes of it.
func (c *copier) table(ctx workflow.Context, h *holder, id string, t CopyTable) {
	change, err := c.copyTable(ctx, h, id, t)
	if c.void(t) {
		return
	}
	if err == nil {
		c.pause = 0
		c.tellSoon(change)
		c.lane(ctx, nil, false)
		return
	}
	if change.Phase == string(CatchingUp) {
		c.tellSoon(activities.TableChange{OID: t.OID, Phase: string(Copying)})
	}
	if ctx.Err() != nil || h.ended.IsReady() {
		c.requeue(t)
		return
	}
	f := failure(ctx, &c.in.Config, Queue(c.in.Config.Region, c.in.Config.Pool, LaneCopy), err)
	if f.Reason.Code != activities.CodeInternal {
		t.Unknown = nil
	} else if t.Unknown.spent(&t.Unknown, workflow.Now(ctx)) {
		f.Park, f.Database = true, false
	}
	if f.Park && !f.Database {
		c.tellSoon(activities.TableChange{OID: t.OID, Reason: &f.Reason})
		return
	}
	c.failed(ctx, err)
	c.later(ctx, err)
	c.requeue(t)
}

// copyTable copies one table.
func (c *copier) copyTable(ctx workflow.Context, h *holder, id string, t CopyTable) (change activities.TableChange, err error) {
	ctx, stop := workflow.WithCancel(ctx)
	defer stop()
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:           Queue(c.in.Config.Region, c.in.Config.Pool, LaneCopy),
		StartToCloseTimeout: 24 * time.Hour,
		HeartbeatTimeout:    c.in.Config.HeartbeatTimeout,
		WaitForCancellation: true,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, MaximumInterval: 10 * time.Second, MaximumAttempts: chunkTries},
	})
	var plan activities.PlanResult
	err = c.limited(ctx, func() error {
		return workflow.ExecuteActivity(ctx, steps.PlanCopy, activities.PlanInput{
			DB: c.in.Config, Epoch: c.in.Epoch, Copy: id, Cut: h.cut, OID: t.OID,
		}).Get(ctx, &plan)
	})
	if err != nil {
		return change, err
	}
	change.OID = t.OID
	c.chunks += len(plan.Chunks)
	left := len(plan.Chunks)
	for i, chunk := range plan.Chunks {
		workflow.Go(ctx, func(ctx workflow.Context) {
			var out activities.ChunkResult
			failed := c.limited(ctx, func() error {
				return workflow.ExecuteActivity(ctx, steps.CopyChunk, activities.ChunkInput{
					DB: c.in.Config, Epoch: c.in.Epoch, Copy: id, Cut: h.cut, OID: t.OID, Index: i, Chunk: chunk,
				}).Get(ctx, &out)
			})
			c.chunks--
			left--
			if failed != nil {
				if err == nil {
					err = failed
				}
				stop()
				return
			}
			if change.RowsCopied += out.Rows; change.RowsCopied > 0 {
				c.news = merge(c.news, change)
			}
		})
	}
	all, _ := workflow.NewDisconnectedContext(ctx)
	_ = workflow.Await(all, func() bool { return left == 0 })
	if err != nil {
		return change, err
	}
	change.Phase = string(CatchingUp)
	c.tellSoon(change)
	var out activities.FinishResult
	err = workflow.ExecuteActivity(ctx, steps.FinishCopy, activities.FinishInput{
		DB: c.in.Config, Epoch: c.in.Epoch, Copy: id, OID: t.OID,
	}).Get(ctx, &out)
	if err == nil {
		change.Phase = out.Phase
	}
	return change, err
}

// tellSoon has the parent told of a table's phase.
func (c *copier) tellSoon(change activities.TableChange) {
	c.news = merge(c.news, change)
	c.urgent = true
}

// limited runs a step when fewer than chunksAtOnce others run.
func (c *copier) limited(ctx workflow.Context, step func() error) error {
	if err := c.limit.Acquire(ctx, 1); err != nil {
		return err
	}
	defer c.limit.Release(1)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return step()
}

// merge adds a change, in the place of an earlier one of the same table.
func merge(news []activities.TableChange, change activities.TableChange) []activities.TableChange {
	if i := slices.IndexFunc(news, func(t activities.TableChange) bool { return t.OID == change.OID }); i >= 0 {
		news[i] = change
		return news
	}
	return append(news, change)
}

// tell brings the parent what there is to tell, now and then.
func (c *copier) tell(ctx workflow.Context) {
	for {
		_ = workflow.Await(ctx, func() bool {
			return c.urgent || len(c.news) > 0 && workflow.Now(ctx).Sub(c.last) >= tellProgress
		})
		c.flush(ctx)
		_ = workflow.Sleep(ctx, tellEvery)
	}
}

// flush tells the parent everything.
func (c *copier) flush(ctx workflow.Context) {
	_ = workflow.Await(ctx, func() bool { return !c.telling })
	if len(c.news) == 0 {
		return
	}
	c.telling = true
	news := c.news
	c.news, c.urgent, c.last = nil, false, workflow.Now(ctx)
	c.report(ctx, activities.TablesChanged{Copy: c.in.ID, Tables: news})
	c.telling = false
}

// lane tells the parent how the lane gets on, when that has changed.
func (c *copier) lane(ctx workflow.Context, r *activities.Reason, park bool) {
	code := activities.Code("")
	if r != nil {
		code = r.Code
	}
	if code == c.told && !park {
		return
	}
	c.told = code
	all, _ := workflow.NewDisconnectedContext(ctx)
	_ = workflow.SignalExternalWorkflow(all, c.in.Parent, "", activities.SignalLane,
		activities.LaneReport{Lane: LaneCopy, Copy: c.in.ID, Reason: r, Park: park}).Get(all, nil)
}

// report tells the parent of tables. Without a parent there is nothing to copy
// for.
func (c *copier) report(ctx workflow.Context, t activities.TablesChanged) {
	if workflow.SignalExternalWorkflow(ctx, c.in.Parent, "", activities.SignalTables, t).Get(ctx, nil) != nil {
		c.over = true
		c.changes++
	}
}
