package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/workflows"
)

// Settle waits until a database has left the phase preparing, for at most limit,
// and returns its last status. The reason of a status that is still preparing
// is why the last attempt came to nothing. It calls notice, which may be nil,
// whenever that reason changes, and when Temporal does not answer, which ends
// the waiting only at the limit.
func (c *Client) Settle(ctx context.Context, name string, limit time.Duration, notice func(*Reason)) (*Database, error) {
	end := time.Now().Add(limit)
	said := ""
	for {
		db, err := c.ask(ctx, name)
		var away *unreachableError
		if err != nil && !errors.As(err, &away) {
			return nil, err
		}
		if err == nil && db.Phase != workflows.Preparing {
			return db, nil
		}
		if time.Now().Add(poll).After(end) {
			return db, err
		}
		var why *Reason
		if err != nil {
			why = &Reason{Code: "TEMPORAL_UNREACHABLE", Message: err.Error()}
		} else {
			why = db.Reason
		}
		if why != nil && notice != nil && why.Code+why.Message != said {
			said = why.Code + why.Message
			notice(why)
		}
		if err := pause(ctx, poll); err != nil {
			return nil, err
		}
	}
}

// Pause stops commit and copy, of the whole database or of tables; with capture,
// capture too.
func (c *Client) Pause(ctx context.Context, name string, in workflows.PauseInput) (workflows.Accepted, error) {
	return request[workflows.Accepted](ctx, c, name, workflows.Pause, in, answerLimit)
}

// Resume continues what was paused or parked: everything, or tables.
func (c *Client) Resume(ctx context.Context, name string, tables []string) (workflows.Accepted, error) {
	return request[workflows.Accepted](ctx, c, name, workflows.Resume, workflows.ResumeInput{Tables: tables}, answerLimit)
}

// Unparking says what a request to unpark would do.
func (c *Client) Unparking(ctx context.Context, name string, in workflows.UnparkInput) (*workflows.UnparkPlan, error) {
	return answer[workflows.UnparkPlan](ctx, c, name, workflows.Unpark, in)
}

// Unpark continues what is parked: everything, or tables. One that would copy a
// table again is refused unless its input permits that; for a new epoch the source
// is asked first, for at most limit.
func (c *Client) Unpark(ctx context.Context, name string, in workflows.UnparkInput, limit time.Duration) (workflows.Accepted, error) {
	if !in.NewEpoch {
		limit = answerLimit
	}
	return request[workflows.Accepted](ctx, c, name, workflows.Unpark, in, limit)
}

// Events returns the last changes of phase of a database and its tables.
func (c *Client) Events(ctx context.Context, name string) ([]workflows.Event, error) {
	e, err := answer[workflows.Events](ctx, c, name, workflows.EventsQuery)
	if err != nil {
		return nil, err
	}
	return e.Events, nil
}

// answer asks a database's workflow a query.
func answer[T any](ctx context.Context, c *Client, name, query string, args ...any) (*T, error) {
	desc, err := c.running(ctx, name)
	if err != nil {
		return nil, err
	}
	var out T
	if err := c.query(ctx, name, desc.GetExecutionConfig().GetTaskQueue().GetName(), &out, query, args...); err != nil {
		return nil, err
	}
	return &out, nil
}

// Remove ends the mirror and waits for that, for at most limit.
func (c *Client) Remove(ctx context.Context, name string, in workflows.RemoveInput, limit time.Duration) (workflows.Removed, error) {
	return request[workflows.Removed](ctx, c, name, workflows.Remove, in, limit)
}

// Wait waits for a goal, for at most limit.
func (c *Client) Wait(ctx context.Context, name, until string, limit time.Duration) (workflows.Waited, error) {
	for end := time.Now().Add(limit); ; {
		left := max(time.Until(end), time.Millisecond)
		waited, err := request[workflows.Waited](ctx, c, name, workflows.Wait,
			workflows.WaitInput{Until: until, Timeout: left}, left+answerLimit)
		if err != nil || !waited.Again || time.Now().After(end) {
			return waited, err
		}
	}
}

// Verify proves tables equal to their source, for at most limit. No tables
// means all.
func (c *Client) Verify(ctx context.Context, name string, tables []string, limit time.Duration) (*workflows.VerifyReport, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	started, err := request[workflows.Started](ctx, c, name, workflows.Verify, workflows.VerifyInput{Tables: tables}, limit)
	if err != nil {
		return nil, err
	}
	var report workflows.VerifyReport
	err = c.sdk.GetWorkflow(ctx, started.WorkflowID, started.RunID).Get(ctx, &report)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("verify %s: not done within %s; it goes on as workflow %s; a longer --timeout waits longer", name, limit, started.WorkflowID)
	case err != nil:
		return nil, fmt.Errorf("verify %s: %w", name, cause(err, c.explain))
	}
	return &report, nil
}

// request sends an update to a database's workflow and waits for the answer,
// for at most limit, once it has seen that a worker is there to give one.
func request[T any](ctx context.Context, c *Client, name, update string, input any, limit time.Duration) (T, error) {
	var answer T
	if _, err := c.ask(ctx, name); err != nil {
		return answer, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	handle, err := c.sdk.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID:   c.id(name),
		UpdateName:   update,
		Args:         []any{input},
		WaitForStage: client.WorkflowUpdateStageAccepted,
	})
	if err == nil {
		err = handle.Get(ctx, &answer)
	}
	var gone *serviceerror.NotFound
	switch {
	case err == nil:
		return answer, nil
	case errors.As(err, &gone):
		return answer, c.notApplied(name)
	case ctx.Err() != nil:
		return answer, c.late(name, update, limit)
	}
	return answer, fmt.Errorf("%s %s: %w", update, name, cause(err, c.explain))
}

// late says what stands in the way of an answer that did not come in time.
func (c *Client) late(name, update string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	db, err := c.ask(ctx, name)
	if err != nil {
		return err
	}
	if db.Reason != nil {
		return fmt.Errorf("%s %s: not done within %s: %s", update, name, limit, db.Reason)
	}
	return fmt.Errorf("%s %s: not done within %s; its phase is %s", update, name, limit, db.Phase)
}

func (c *Client) id(name string) string { return workflows.DatabaseID(c.file.Region, name) }

// notApplied is the error for a database without a workflow.
func (c *Client) notApplied(name string) error {
	if _, err := c.file.Database(name); err != nil {
		return fmt.Errorf("%s has no workflow in region %s: %w", name, c.file.Region, err)
	}
	return fmt.Errorf("database %s is %w; apply it: %s apply --fleet %s %s", name, ErrNotApplied, c.self, activities.ShellWord(c.file.Name), name)
}

// cause finds what a person can act on in an error of a workflow or an update.
func cause(err error, otherwise func(error) error) error {
	if f := failureOf(err); f != nil {
		return errors.New(f.String())
	}
	text := otherwise(err).Error()
	for _, prefix := range []string{"workflow execution error", "activity error"} {
		if strings.HasPrefix(text, prefix) {
			if inner := errors.Unwrap(err); inner != nil {
				return cause(inner, otherwise)
			}
		}
	}
	return errors.New(text)
}
