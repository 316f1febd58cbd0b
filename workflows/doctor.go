package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
)

// Examine is the Doctor workflow: a worker of the database's control lane looks at
// its source, topic and lake. It changes nothing.
func Examine(ctx workflow.Context, in activities.DoctorInput) (out activities.DoctorResult, err error) {
	queue := Queue(in.DB.Region, in.DB.Pool, LaneControl)
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: queue, ScheduleToStartTimeout: 10 * time.Second, StartToCloseTimeout: time.Minute,
		HeartbeatTimeout: in.DB.HeartbeatTimeout, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1},
	})
	err = workflow.ExecuteActivity(ctx, steps.Doctor, in).Get(ctx, &out)
	if err != nil && ctx.Err() == nil {
		r := failure(ctx, &in.DB, queue, err).Reason
		return activities.DoctorResult{Problems: []activities.Problem{{Code: r.Code, Sentence: r.Message, Remedy: r.Remedy, Blocking: true}}}, nil
	}
	return out, err
}
