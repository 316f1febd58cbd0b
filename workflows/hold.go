package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
)

// holdFor is the longest that a snapshot is kept.
const holdFor = 7 * 24 * time.Hour

// holder is a running Hold activity and the cut that it holds.
type holder struct {
	cut    activities.Cut
	ended  workflow.Future
	cancel workflow.CancelFunc
}

// hold starts a holder and waits for its cut. The token is its own among those
// of this run.
func hold(ctx workflow.Context, db *fleet.Database, token string) (*holder, error) {
	hctx, cancel := workflow.WithCancel(ctx)
	hctx = workflow.WithActivityOptions(hctx, workflow.ActivityOptions{
		TaskQueue:              Queue(db.Region, db.Pool, LaneCopy),
		ScheduleToStartTimeout: fetchWithin,
		StartToCloseTimeout:    holdFor,
		HeartbeatTimeout:       db.HeartbeatTimeout,
		WaitForCancellation:    true,
		RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
	})
	h := &holder{cancel: cancel}
	h.ended = workflow.ExecuteActivity(hctx, steps.Hold, activities.HoldInput{DB: *db, Token: token})
	cuts := workflow.GetSignalChannel(ctx, activities.SignalCut)
	var err error
	for got := false; !got && err == nil; {
		s := workflow.NewSelector(ctx)
		s.AddReceive(cuts, func(c workflow.ReceiveChannel, _ bool) {
			var cut activities.Cut
			if c.ReceiveAsync(&cut) && cut.Token == token {
				h.cut, got = cut, true
			}
		})
		s.AddFuture(h.ended, func(f workflow.Future) {
			if err = f.Get(ctx, nil); err == nil {
				err = temporal.NewApplicationError("the holder ended without a cut", string(activities.CodeSnapshotGone))
			}
		})
		s.AddReceive(ctx.Done(), func(workflow.ReceiveChannel, bool) { err = ctx.Err() })
		s.Select(ctx)
	}
	if err != nil {
		h.release(ctx)
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
