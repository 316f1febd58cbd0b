package workflows

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
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

// unknownFor is how long a step may go on failing for reasons that Millrace does
// not know (INTERNAL), before what it is for parks. Outages are known by their
// codes, and tried again for ever.
const unknownFor = time.Hour

// Spending is what a step has spent of unknownFor.
type Spending struct {
	Spent time.Duration `json:"s"`
	Last  time.Time     `json:"l"`
}

// spent counts another failure now, and tells whether nothing is left to spend.
// Of the time between two failures a time box counts at most: for longer, Temporal
// was away. into is where the spending is kept, nil before the first failure.
func (s *Spending) spent(into **Spending, now time.Time) bool {
	if s == nil {
		*into = &Spending{Last: now}
		return false
	}
	s.Spent += min(now.Sub(s.Last), activities.TimeBox)
	s.Last = now
	return s.Spent >= unknownFor
}

// jitter is what a pause is made longer by, up to the half of it, so that those
// whose steps failed together do not all come back together. of names the step.
func jitter(ctx workflow.Context, of string, pause time.Duration) time.Duration {
	h := fnv.New32a()
	fmt.Fprint(h, workflow.GetInfo(ctx).WorkflowExecution.ID, of, workflow.Now(ctx).UnixNano())
	return time.Duration(float64(pause) / 2 * float64(h.Sum32()) / math.MaxUint32)
}

// notFetched tells that no worker took a step within its time.
func notFetched(err error) bool {
	var timeout *temporal.TimeoutError
	return errors.As(err, &timeout) && timeout.TimeoutType() == enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START
}
