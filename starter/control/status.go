package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/workflows"
)

// Phases that only this side knows.
const (
	// NotApplied is the phase of a database of the file without a workflow.
	NotApplied workflows.Phase = "not-applied"
	// Removed is the phase of a database whose mirror was ended.
	Removed workflows.Phase = "removed"
	// Stopped is the phase of a database whose workflow was ended from outside.
	Stopped workflows.Phase = "stopped"
	// Unknown is the phase of a workflow that no worker has seen yet.
	Unknown workflows.Phase = "unknown"
)

// Report is the status of a fleet.
type Report struct {
	// ObservedAt is when it was made, in RFC 3339.
	ObservedAt string      `json:"observed_at"`
	Databases  []*Database `json:"databases"`
}

// Database is the status of one database.
type Database struct {
	Name   string `json:"name"`
	Region string `json:"region"`
	Pool   string `json:"pool"`
	// Workers are the ids of the workers that reported progress.
	Workers []string        `json:"workers"`
	Phase   workflows.Phase `json:"phase"`
	Reason  *Reason         `json:"reason"`
	// LagBytes is the WAL that Kafka does not hold yet; LagSeconds the age of
	// the oldest change that is not in the lake yet. Nil where nobody reports.
	LagBytes   *int64   `json:"lag_bytes"`
	LagSeconds *float64 `json:"lag_seconds"`
	// WAL is what the source keeps for the slot; nil where nobody has looked.
	WAL *WAL `json:"wal"`
	// RowsStreamed counts the changes committed since the commit lane's activity
	// began; null where no lane reports.
	RowsStreamed *int64 `json:"rows_streamed"`
	// AgeSeconds is how old this status is. Zero where the workflow answered;
	// where no worker let it, this is what Temporal alone knows.
	AgeSeconds float64  `json:"age_seconds"`
	Tables     []*Table `json:"tables"`
	// Requests are the last requests and their outcomes.
	Requests []workflows.Request `json:"requests,omitempty"`
}

// Table is the status of one table.
type Table struct {
	Name   string          `json:"name"`
	Phase  workflows.Phase `json:"phase"`
	Reason *Reason         `json:"reason"`
	// Latest and History are URIs. Latest is empty where the table has history
	// alone.
	Latest     string `json:"latest"`
	History    string `json:"history"`
	RowsCopied int64  `json:"rows_copied"`
	Position   string `json:"position"`
}

// WAL is how much of its log the source keeps for a database's slot.
type WAL struct {
	HeldBytes int64 `json:"held_bytes"`
	// GrowthPerHour is in bytes; nil at the first look.
	GrowthPerHour *int64 `json:"growth_bytes_per_hour"`
	// RoomBytes may still come, until the server's limit or the database's budget;
	// nil where there is none. HoursLeft is how long that lasts as it grows now.
	RoomBytes *int64   `json:"room_bytes"`
	HoursLeft *float64 `json:"hours_left"`
	// ObservedAt is in RFC 3339.
	ObservedAt string `json:"observed_at"`
}

func walOf(w *activities.WAL) *WAL {
	if w == nil {
		return nil
	}
	return &WAL{
		HeldBytes: w.Held, GrowthPerHour: w.Growth, RoomBytes: w.Room, HoursLeft: w.HoursLeft(), ObservedAt: w.At.Format(time.RFC3339),
	}
}

// Reason says why something does not go on, and what mends it.
type Reason struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Remedy  string `json:"remedy"`
	Since   string `json:"since"`
}

// String returns the reason as one sentence with its remedy.
func (r *Reason) String() string {
	s := r.Code + ": " + r.Message
	if r.Remedy != "" {
		s += "; " + r.Remedy
	}
	return s
}

func reasonOf(r *activities.Reason) *Reason {
	if r == nil {
		return nil
	}
	return &Reason{Code: string(r.Code), Message: r.Message, Remedy: r.Remedy, Since: r.Since}
}

// Status reports on databases, all at once. The error, besides those of
// Temporal itself, is a [NoWorkerError] where some database's queue is served
// by nobody; the report is complete then too.
func (c *Client) Status(ctx context.Context, names []string) (*Report, error) {
	r := &Report{ObservedAt: time.Now().UTC().Format(time.RFC3339), Databases: make([]*Database, len(names))}
	errs := make([]error, len(names))
	var g sync.WaitGroup
	for i, name := range names {
		g.Go(func() { r.Databases[i], errs[i] = c.observe(ctx, name) })
	}
	g.Wait()
	var idle error
	for _, err := range errs {
		var none *NoWorkerError
		switch {
		case errors.As(err, &none):
			idle = cmp.Or(idle, err)
		case err != nil:
			return nil, err
		}
	}
	return r, idle
}

// observe reports on one database as well as can be done now.
func (c *Client) observe(ctx context.Context, name string) (*Database, error) {
	db, err := c.ask(ctx, name)
	if err == nil {
		return db, nil
	}
	var none *NoWorkerError
	switch {
	case errors.Is(err, ErrNotApplied):
		desc, derr := c.describe(ctx, name)
		if derr != nil {
			return c.absent(name, NotApplied), nil
		}
		return c.ended(name, desc), nil
	case errors.As(err, &none):
		desc, derr := c.describe(ctx, name)
		if derr != nil {
			return nil, derr
		}
		return c.remembered(ctx, name, desc, none), err
	}
	return nil, err
}

// absent is the status of a database without a running workflow.
func (c *Client) absent(name string, phase workflows.Phase) *Database {
	db := &Database{Name: name, Region: c.file.Region, Phase: phase, Workers: []string{}, Tables: []*Table{}}
	if f, err := c.file.Database(name); err == nil {
		db.Pool = f.Pool
	}
	if phase != Removed {
		db.Reason = &Reason{Code: "NOT_APPLIED", Message: "database " + name + " is not applied", Remedy: c.self + " apply --fleet " + activities.ShellWord(c.file.Name) + " " + name}
	}
	return db
}

// ended is the status of a database whose workflow no longer runs.
func (c *Client) ended(name string, desc *workflowservice.DescribeWorkflowExecutionResponse) *Database {
	if desc.GetWorkflowExecutionInfo().GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED {
		return c.absent(name, Removed)
	}
	db := c.absent(name, Stopped)
	db.Reason.Code = "STOPPED"
	db.Reason.Message = "its workflow was ended from outside: " + desc.GetWorkflowExecutionInfo().GetStatus().String()
	db.Reason.Since = desc.GetWorkflowExecutionInfo().GetCloseTime().AsTime().UTC().Format(time.RFC3339)
	return db
}

// describe returns what Temporal knows of a database's workflow.
func (c *Client) describe(ctx context.Context, name string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	desc, err := c.sdk.DescribeWorkflowExecution(ctx, c.id(name), "")
	var absent *serviceerror.NotFound
	if errors.As(err, &absent) {
		return nil, c.notApplied(name)
	}
	if err != nil {
		return nil, c.explain(err)
	}
	return desc, nil
}

// ask returns the status that the workflow itself gives, with the progress of
// its activities.
func (c *Client) ask(ctx context.Context, name string) (*Database, error) {
	desc, err := c.running(ctx, name)
	if err != nil {
		return nil, err
	}
	var st workflows.Status
	if err := c.query(ctx, name, desc.GetExecutionConfig().GetTaskQueue().GetName(), &st, workflows.StatusQuery); err != nil {
		return nil, err
	}
	return c.merge(&st, desc, time.Now()), nil
}

// running returns what Temporal knows of a database's workflow, which runs.
func (c *Client) running(ctx context.Context, name string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	desc, err := c.describe(ctx, name)
	if err != nil {
		return nil, err
	}
	if desc.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return nil, c.notApplied(name)
	}
	return desc, nil
}

// query asks the workflow something, as long as a worker may be about to answer.
func (c *Client) query(ctx context.Context, name, queue string, into any, query string, args ...any) error {
	start := time.Now()
	for {
		limit := answerLimit - time.Since(start)
		qctx, cancel := context.WithTimeout(ctx, limit)
		value, err := c.sdk.QueryWorkflow(qctx, c.id(name), "", query, args...)
		cancel()
		var (
			idle     *serviceerror.FailedPrecondition
			notReady *serviceerror.WorkflowNotReady
			absent   *serviceerror.NotFound
			refused  *serviceerror.QueryFailed
			late     *serviceerror.DeadlineExceeded
		)
		switch {
		case err == nil:
			return value.Get(into)
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &absent):
			return c.notApplied(name)
		case errors.As(err, &idle):
			if time.Since(start) > idleLimit {
				return c.noWorker(queue)
			}
		case errors.As(err, &notReady), errors.As(err, &late), errors.Is(err, context.DeadlineExceeded):
			over := time.Since(start)+poll > answerLimit
			if !over && time.Since(start) <= idleLimit {
				break
			}
			served, err := c.served(ctx, queue)
			switch {
			case err != nil && over:
				return c.explain(err)
			case err == nil && (over || !served):
				return c.noWorker(queue)
			}
		case errors.As(err, &refused):
			return fmt.Errorf("%s %s: %s", query, name, refused.Message)
		default:
			return c.explain(err)
		}
		if err := pause(ctx, poll); err != nil {
			return err
		}
	}
}

// served tells whether Temporal has seen a worker at a queue.
func (c *Client) served(ctx context.Context, queue string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, servedLimit)
	defer cancel()
	desc, err := c.sdk.DescribeTaskQueue(ctx, queue, enumspb.TASK_QUEUE_TYPE_WORKFLOW)
	return len(desc.GetPollers()) > 0, err
}

// merge adds the progress of the pending activities to what the workflow says.
func (c *Client) merge(st *workflows.Status, desc *workflowservice.DescribeWorkflowExecutionResponse, now time.Time) *Database {
	db := &Database{
		Name: st.Name, Region: st.Region, Pool: st.Pool, Phase: st.Phase,
		Reason: reasonOf(st.Reason), Workers: slices.Clone(st.Workers), Requests: st.Requests, WAL: walOf(st.WAL),
	}
	tables := make(map[uint32]*Table, len(st.Tables))
	for _, t := range st.Tables {
		tables[t.OID] = &Table{
			Name: t.Name, Phase: t.Phase, Reason: reasonOf(t.Reason),
			Latest: t.Latest, History: t.History, RowsCopied: t.RowsCopied, Position: t.Position,
		}
		db.Tables = append(db.Tables, tables[t.OID])
	}
	p := progressOf(desc)
	for oid, position := range p.positions {
		if t := tables[oid]; t != nil {
			t.Position = position
		}
	}
	p.into(db, c.file.Temporal.HeartbeatTimeout, now)
	if db.Tables == nil {
		db.Tables = []*Table{}
	}
	return db
}

// remembered is the status of a database that no worker serves: what Temporal
// alone knows, with its age.
func (c *Client) remembered(ctx context.Context, name string, desc *workflowservice.DescribeWorkflowExecutionResponse, none *NoWorkerError) *Database {
	db := &Database{Name: name, Region: c.file.Region, Phase: Unknown, Tables: []*Table{}, Pool: poolOf(none.Queue, c.file.Region)}
	fields := desc.GetWorkflowExecutionInfo().GetSearchAttributes().GetIndexedFields()
	if phase := text(fields[workflows.AttrPhase]); phase != "" {
		db.Phase = workflows.Phase(phase)
	}
	p := progressOf(desc)
	now := time.Now()
	seen := p.last
	if at := c.lastEvent(ctx, name); at.After(seen) {
		seen = at
	}
	p.into(db, c.file.Temporal.HeartbeatTimeout, now)
	db.Workers = []string{}
	db.Reason = &Reason{
		Code:    string(activities.CodeNoWorker),
		Message: "no worker serves task queue " + none.Queue,
		Remedy:  none.Command,
	}
	if !seen.IsZero() {
		db.AgeSeconds = max(0, now.Sub(seen).Seconds())
		db.Reason.Since = seen.UTC().Format(time.RFC3339)
	}
	return db
}

// lastEvent returns when the workflow's history last grew.
func (c *Client) lastEvent(ctx context.Context, name string) time.Time {
	h, err := c.service.GetWorkflowExecutionHistoryReverse(ctx, &workflowservice.GetWorkflowExecutionHistoryReverseRequest{
		Namespace:       c.file.Temporal.Namespace,
		Execution:       &commonpb.WorkflowExecution{WorkflowId: c.id(name)},
		MaximumPageSize: 1,
	})
	if err != nil || len(h.GetHistory().GetEvents()) == 0 {
		return time.Time{}
	}
	return h.GetHistory().GetEvents()[0].GetEventTime().AsTime()
}

// progress is what pending activities say of themselves.
type progress struct {
	capture   *activities.CaptureProgress
	commit    *activities.CommitProgress
	captured  time.Time // of the heartbeat
	committed time.Time
	last      time.Time // of any heartbeat
	positions map[uint32]string
	// failing is why the last attempt of an activity came to nothing.
	failing *Reason
}

func progressOf(desc *workflowservice.DescribeWorkflowExecutionResponse) progress {
	var p progress
	for _, a := range desc.GetPendingActivities() {
		at := a.GetLastHeartbeatTime().AsTime()
		if a.GetLastHeartbeatTime() == nil {
			at = time.Time{}
		}
		if at.After(p.last) {
			p.last = at
		}
		switch a.GetActivityType().GetName() {
		case "Capture":
			var d activities.CaptureProgress
			if decode(a.GetHeartbeatDetails(), &d) {
				p.capture, p.captured = &d, at
			}
		case "Commit":
			var d activities.CommitProgress
			if decode(a.GetHeartbeatDetails(), &d) {
				p.commit, p.committed = &d, at
				p.positions = make(map[uint32]string, len(d.Tables))
				for _, t := range d.Tables {
					p.positions[t.OID] = t.Position
				}
			}
		}
		if f := a.GetLastFailure(); f != nil && p.failing == nil {
			if r := failing(f); r != nil {
				p.failing = r
			}
		}
	}
	return p
}

// into fills in lag and workers, and the reason where the workflow gives none.
func (p *progress) into(db *Database, silence time.Duration, now time.Time) {
	lag := func(seconds float64, at time.Time) {
		// A lane that has fallen silent is at least that late.
		if age := now.Sub(at); !at.IsZero() && age > 2*silence {
			seconds = max(seconds, age.Seconds())
		}
		if db.LagSeconds == nil || *db.LagSeconds < seconds {
			db.LagSeconds = &seconds
		}
	}
	if p.capture != nil {
		db.LagBytes = &p.capture.LagBytes
		if p.capture.WAL != nil {
			db.WAL = walOf(p.capture.WAL)
		}
		lag(p.capture.LagSeconds, p.captured)
		db.Workers = append(db.Workers, p.capture.Worker)
	}
	if p.commit != nil {
		lag(p.commit.LagSeconds, p.committed)
		db.RowsStreamed = &p.commit.Rows
		db.Workers = append(db.Workers, p.commit.Worker)
	}
	slices.Sort(db.Workers)
	db.Workers = slices.DeleteFunc(slices.Compact(db.Workers), func(s string) bool { return s == "" })
	if db.Workers == nil {
		db.Workers = []string{}
	}
	if db.Reason == nil && p.failing != nil {
		db.Reason = p.failing
	}
}

// failing makes a reason of an activity's last failure.
func failing(f *failurepb.Failure) *Reason {
	for inner := f; inner != nil; inner = inner.GetCause() {
		info := inner.GetApplicationFailureInfo()
		var d activities.Failure
		if info != nil && decode(info.GetDetails(), &d) && d.Reason.Code != "" {
			return reasonOf(&d.Reason)
		}
	}
	if info := f.GetTimeoutFailureInfo(); info != nil {
		return &Reason{Code: string(activities.CodeWorkerLost), Message: "the worker that did this step fell silent; another attempt follows"}
	}
	return &Reason{Code: string(activities.CodeInternal), Message: f.GetMessage()}
}

// failureOf finds the reason that travelled with an error.
func failureOf(err error) *Reason {
	var app *temporal.ApplicationError
	for errors.As(err, &app) {
		var d activities.Failure
		if app.HasDetails() && app.Details(&d) == nil && d.Reason.Code != "" {
			return reasonOf(&d.Reason)
		}
		err = app.Unwrap()
	}
	return nil
}

// decode reads the first of some payloads.
func decode(payloads *commonpb.Payloads, into any) bool {
	return len(payloads.GetPayloads()) > 0 &&
		converter.GetDefaultDataConverter().FromPayload(payloads.GetPayloads()[0], into) == nil
}

// text reads a search attribute.
func text(p *commonpb.Payload) string {
	var s string
	if p == nil || converter.GetDefaultDataConverter().FromPayload(p, &s) != nil {
		return ""
	}
	return s
}

// Exists tells whether a database of this name has, or had, a workflow.
func (c *Client) Exists(ctx context.Context, name string) bool {
	_, err := c.describe(ctx, name)
	return err == nil
}
