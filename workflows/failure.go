package workflows

import (
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
)

// failure reads what the worker's interceptor made of the error of an activity
// that was offered to a queue.
func failure(ctx workflow.Context, db *fleet.Database, queue string, err error) activities.Failure {
	f := activities.Failure{Reason: activities.Reason{Code: activities.CodeInternal, Message: err.Error()}, Database: true}
	var app *temporal.ApplicationError
	var timeout *temporal.TimeoutError
	switch {
	case errors.As(err, &app):
		var told activities.Failure
		if f.Reason.Message = app.Message(); app.HasDetails() && app.Details(&told) == nil {
			f = told
		}
	case notFetched(err):
		f.Reason = activities.Reason{
			Code:    activities.CodeNoWorker,
			Message: fmt.Sprintf("no worker took a step from task queue %s within %s", queue, fetchWithin),
			Remedy:  "start one: millrace-worker --fleet FILE",
		}
		if db.Pool != "default" {
			f.Reason.Remedy += " --pool " + db.Pool
		}
	case errors.As(err, &timeout):
		f.Reason = activities.Reason{
			Code:    activities.CodeWorkerLost,
			Message: "the worker that ran a step fell silent; another takes over",
		}
	}
	f.Reason.Message = shorten(f.Reason.Message, long)
	f.Reason = f.Reason.For(db.Name)
	f.Reason.Since = workflow.Now(ctx).UTC().Format(time.RFC3339)
	return f
}

// notFetched tells that no worker took a step within its time.
func notFetched(err error) bool {
	var timeout *temporal.TimeoutError
	return errors.As(err, &timeout) && timeout.TimeoutType() == enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START
}
