package activities

import (
	"context"
	"errors"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
)

// Edge returns the worker interceptor that turns an activity's error into what
// workflows decide by, and counts it. It is the one place where errors are
// classified: the SDK looks at the outermost error alone, so activities return
// plain ones. It is no method, for exported methods are activities.
func Edge(a *Activities) interceptor.WorkerInterceptor { return &edge{metrics: a.metrics} }

type edge struct {
	interceptor.WorkerInterceptorBase
	metrics *metrics
}

// InterceptActivity implements interceptor.WorkerInterceptor.
func (e *edge) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &inbound{ActivityInboundInterceptorBase: interceptor.ActivityInboundInterceptorBase{Next: next}, metrics: e.metrics}
}

type inbound struct {
	interceptor.ActivityInboundInterceptorBase
	metrics *metrics
}

// ExecuteActivity implements interceptor.ActivityInboundInterceptor.
func (e *inbound) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	step, database := activity.GetInfo(ctx).ActivityType.Name, databaseOf(in.Args)
	if step == "Capture" || step == "Commit" {
		e.metrics.parked.WithLabelValues(database).Set(0)
	}
	out, err := e.Next.ExecuteActivity(ctx, in)
	if err == nil || errors.Is(err, activity.ErrResultPending) {
		return out, err
	}
	f, cancelled := judge(ctx, err)
	if cancelled {
		return nil, temporal.NewCanceledError()
	}
	e.metrics.failed(step, database, &f)
	return nil, temporal.NewApplicationErrorWithOptions(f.Reason.Message, string(f.Reason.Code), temporal.ApplicationErrorOptions{
		NonRetryable: f.Park || f.Anew,
		Details:      []any{f},
	})
}

// judge classifies the error of a step. A step whose context ended failed
// because of that: it was cancelled, or the worker stops.
func judge(ctx context.Context, err error) (f Failure, cancelled bool) {
	if ctx.Err() == nil || !errors.Is(err, context.Canceled) && !temporal.IsCanceledError(err) {
		return Classify(err), false
	}
	if temporal.IsCanceledError(context.Cause(ctx)) {
		return f, true
	}
	return Failure{Database: true, Reason: Reason{
		Code: CodeWorkerLost, Message: "the worker that ran a step stopped; another takes over",
	}}, false
}

// databaseOf returns the name of the database that a step is for; empty where
// its input does not tell.
func databaseOf(args []any) string {
	if len(args) == 0 {
		return ""
	}
	switch in := args[0].(type) {
	case PrepareInput:
		return in.DB.Name
	case ScanInput:
		return in.DB.Name
	case CaptureInput:
		return in.DB.Name
	case CommitInput:
		return in.DB.Name
	case HoldInput:
		return in.DB.Name
	case PlanInput:
		return in.DB.Name
	case ChunkInput:
		return in.DB.Name
	case FinishInput:
		return in.DB.Name
	case MarkerInput:
		return in.DB.Name
	case VerifyInput:
		return in.DB.Name
	case DropInput:
		return in.DB.Name
	case DoctorInput:
		return in.DB.Name
	}
	return ""
}

// Reasoned is an error that carries its own reason, such as a remedy made for
// the object at hand.
type Reasoned struct {
	Failure Failure
	Err     error
}

// Error returns the reason's message, or the error's where there is none.
func (r *Reasoned) Error() string {
	if r.Failure.Reason.Message != "" {
		return r.Failure.Reason.Message
	}
	return r.Err.Error()
}

// Unwrap returns the error that the reason explains.
func (r *Reasoned) Unwrap() error { return r.Err }
