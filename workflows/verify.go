package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
)

// ProofInput starts a Verify workflow.
type ProofInput struct {
	Config fleet.Database `json:"config"`
	Epoch  uint32         `json:"epoch"`
	Parent string         `json:"parent"`
	Tables []CopyTable    `json:"tables"`
}

// cutsPerProof is how many cuts a proof takes before it gives up: a snapshot is
// lost with the worker or the connection that holds it.
const cutsPerProof = 10

// Prove is the Verify workflow: it takes an exact cut, waits until the lake has
// passed it, and compares each table three ways. Tables that a lost snapshot
// left over are proven under the next cut.
func Prove(ctx workflow.Context, in ProofInput) (VerifyReport, error) {
	report := VerifyReport{Database: in.Config.Name}
	left := in.Tables
	var err error
	for cut := 1; cut <= cutsPerProof && len(left) > 0; cut++ {
		if left, err = proveUnderOneCut(ctx, in, left, &report, cut); ctx.Err() != nil {
			return report, ctx.Err()
		}
		if err != nil && failure(ctx, &in.Config, Queue(in.Config.Region, in.Config.Pool, LaneCopy), err).Park {
			return report, err
		}
		if len(left) > 0 && cut < cutsPerProof {
			_ = workflow.Sleep(ctx, time.Second)
		}
	}
	return report, err
}

// proveUnderOneCut proves tables until the snapshot is lost and returns those
// that are left. The last cut reports them as they are.
func proveUnderOneCut(ctx workflow.Context, in ProofInput, tables []CopyTable, report *VerifyReport, cut int) (left []CopyTable, err error) {
	h, err := hold(ctx, &in.Config, fmt.Sprint(cut))
	if err != nil {
		return tables, err
	}
	defer h.release(ctx)
	report.LSN = h.cut.LSN.String()
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:           Queue(in.Config.Region, in.Config.Pool, LaneCopy),
		StartToCloseTimeout: 24 * time.Hour,
		HeartbeatTimeout:    in.Config.HeartbeatTimeout,
		RetryPolicy:         &temporal.RetryPolicy{MaximumAttempts: 3},
	})
	await := activities.AwaitInput{WorkflowID: in.Parent, Timeout: 10 * time.Minute}
	if err := workflow.ExecuteActivity(ctx, steps.AwaitCaughtUp, await).Get(ctx, nil); err != nil {
		return tables, err
	}
	for i, t := range tables {
		var r activities.TableReport
		err := workflow.ExecuteActivity(ctx, steps.VerifyTable, activities.VerifyInput{
			DB: in.Config, Epoch: in.Epoch, Cut: h.cut, OID: t.OID, Name: t.Name,
		}).Get(ctx, &r)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			f := failure(ctx, &in.Config, Queue(in.Config.Region, in.Config.Pool, LaneCopy), err)
			if !f.Park && cut < cutsPerProof {
				return tables[i:], nil
			}
			r = activities.TableReport{Table: t.Name, Source: -1, History: -1, Latest: -1, Reason: &f.Reason}
		}
		r.LSN = h.cut.LSN.String()
		report.Tables = append(report.Tables, r)
	}
	return nil, nil
}
