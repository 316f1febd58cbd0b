package workflows

import (
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

// Prove is the Verify workflow: it takes an exact cut, waits until the lake has
// passed it, and compares each table three ways.
func Prove(ctx workflow.Context, in ProofInput) (VerifyReport, error) {
	report := VerifyReport{Database: in.Config.Name}
	h, err := hold(ctx, in.Config)
	if err != nil {
		return report, err
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
		return report, err
	}
	for _, t := range in.Tables {
		var r activities.TableReport
		err := workflow.ExecuteActivity(ctx, steps.VerifyTable, activities.VerifyInput{
			DB: in.Config, Epoch: in.Epoch, Cut: h.cut, OID: t.OID, Name: t.Name,
		}).Get(ctx, &r)
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
		if err != nil {
			f := failure(ctx, err)
			r = activities.TableReport{Table: t.Name, Source: -1, History: -1, Latest: -1, Reason: &f.Reason}
		}
		report.Tables = append(report.Tables, r)
	}
	return report, nil
}
