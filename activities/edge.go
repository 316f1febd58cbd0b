package activities

import (
	"context"
	"errors"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
)

// Edge is the worker interceptor that turns an activity's error into what
// workflows decide by. It is the one place where errors are classified: the SDK
// looks at the outermost error alone, so activities return plain ones.
type Edge struct {
	interceptor.WorkerInterceptorBase
}

// InterceptActivity implements interceptor.WorkerInterceptor.
func (*Edge) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &edge{ActivityInboundInterceptorBase: interceptor.ActivityInboundInterceptorBase{Next: next}}
}

type edge struct {
	interceptor.ActivityInboundInterceptorBase
}

// ExecuteActivity implements interceptor.ActivityInboundInterceptor.
func (e *edge) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	out, err := e.Next.ExecuteActivity(ctx, in)
	if err == nil || errors.Is(err, activity.ErrResultPending) {
		return out, err
	}
	var canceled *temporal.CanceledError
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.As(err, &canceled)) {
		return nil, temporal.NewCanceledError()
	}
	f := Classify(err)
	return nil, temporal.NewApplicationErrorWithOptions(f.Reason.Message, string(f.Reason.Code), temporal.ApplicationErrorOptions{
		NonRetryable: f.Park || f.Anew,
		Details:      []any{f},
	})
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
