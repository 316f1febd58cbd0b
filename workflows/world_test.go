package workflows_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/workflows"
)

// shopID is the id of the workflow under test.
const shopID = "millrace/local/shop"

var shop = fleet.Database{
	Name: "shop", Region: "local", Pool: "default", URL: "postgres://m@127.0.0.1/shop?sslmode=disable",
	Tables: []string{"public.*"}, Options: fleet.Options{Freshness: new(time.Second)}, HeartbeatTimeout: 3 * time.Second, Lake: "file:///lake",
	Topic: fleet.Topic{Name: "millrace.shop", Partitions: 2, Replication: 1, MinInSync: 1, Retention: time.Hour},
}

// world answers for the activities. Lanes run until the test ends them, so that
// time passes only as the test says.
type world struct {
	t   *testing.T
	env *testsuite.TestWorkflowEnvironment

	mu      sync.Mutex
	steps   []step
	running map[string][]byte // the token of the lane that runs, by name
	copied  []workflows.CopyInput

	prepare func(activities.PrepareInput) (activities.PrepareResult, error)
	scan    func(activities.ScanInput) (activities.ScanResult, error)
	drop    func(activities.DropInput) (activities.DropResult, error)
	marker  func(activities.MarkerInput) error
	copy    func(workflow.Context, workflows.CopyInput) error
	fetched func(queue string) bool // whether a worker serves a queue
}

// step is an activity that was started.
type step struct {
	name, queue string
	input       any
}

// newWorld makes a world around a Database workflow with one live table. Copies
// do nothing but wait, unless the test says otherwise.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, running: map[string][]byte{},
		prepare: func(activities.PrepareInput) (activities.PrepareResult, error) {
			return prepared(activities.TableInfo{
				OID: 1, Name: "public.a", Phase: "live",
				History: "file:///lake/shop/public/a/history", Latest: "file:///lake/shop/public/a/latest",
			}), nil
		},
		scan: func(activities.ScanInput) (activities.ScanResult, error) { return activities.ScanResult{}, nil },
		drop: func(activities.DropInput) (activities.DropResult, error) {
			return activities.DropResult{Dropped: []string{"slot millrace_shop_e1"}}, nil
		},
		marker:  func(activities.MarkerInput) error { return nil },
		copy:    func(ctx workflow.Context, _ workflows.CopyInput) error { return workflow.Sleep(ctx, 24*time.Hour) },
		fetched: func(string) bool { return true },
	}
	w.env = newEnv(t)
	w.env.SetStartWorkflowOptions(startOptions(shopID))
	w.env.RegisterWorkflowWithOptions(workflows.Database, workflow.RegisterOptions{Name: workflows.DatabaseWorkflow})
	w.env.RegisterWorkflowWithOptions(func(ctx workflow.Context, in workflows.CopyInput) error {
		w.copied = append(w.copied, in)
		return w.copy(ctx, in)
	},
		workflow.RegisterOptions{Name: workflows.CopyWorkflow})
	w.env.RegisterWorkflowWithOptions(func(workflow.Context, workflows.ProofInput) (workflows.VerifyReport, error) {
		return workflows.VerifyReport{}, nil
	}, workflow.RegisterOptions{Name: workflows.VerifyWorkflow})
	register(w, "Prepare", func(ctx context.Context, in activities.PrepareInput) (activities.PrepareResult, error) {
		return w.prepare(in)
	})
	register(w, "Scan", func(ctx context.Context, in activities.ScanInput) (activities.ScanResult, error) {
		return w.scan(in)
	})
	register(w, "Drop", func(ctx context.Context, in activities.DropInput) (activities.DropResult, error) {
		return w.drop(in)
	})
	register(w, "EmitMarker", func(ctx context.Context, in activities.MarkerInput) (bool, error) {
		return true, w.marker(in)
	})
	register(w, "Capture", func(ctx context.Context, _ activities.CaptureInput) (activities.LaneResult, error) {
		return w.lane(ctx)
	})
	register(w, "Commit", func(ctx context.Context, _ activities.CommitInput) (activities.LaneResult, error) {
		return w.lane(ctx)
	})
	return w
}

// startOptions are those of a Database workflow.
func startOptions(id string) client.StartWorkflowOptions {
	return client.StartWorkflowOptions{ID: id, TaskQueue: workflows.Queue("local", "default", workflows.LaneControl)}
}

func newEnv(t *testing.T) *testsuite.TestWorkflowEnvironment {
	var suite testsuite.WorkflowTestSuite
	var out io.Writer = io.Discard
	if testing.Verbose() {
		out = t.Output()
	}
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.NewTextHandler(out, nil))))
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(time.Minute)
	return env
}

// register makes f the step called name, which no worker takes where none
// serves its queue.
func register[In, Out any](w *world, name string, f func(context.Context, In) (Out, error)) {
	w.env.RegisterActivityWithOptions(func(ctx context.Context, in In) (Out, error) {
		queue := activity.GetInfo(ctx).TaskQueue
		w.mu.Lock()
		w.steps = append(w.steps, step{name: name, queue: queue, input: in})
		w.mu.Unlock()
		if !w.fetched(queue) {
			var none Out
			return none, temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil)
		}
		return f(ctx, in)
	}, activity.RegisterOptions{Name: name})
}

// lane is an activity that runs until the test ends it.
func (w *world) lane(ctx context.Context) (activities.LaneResult, error) {
	info := activity.GetInfo(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running[info.ActivityType.Name] = info.TaskToken
	return activities.LaneResult{}, activity.ErrResultPending
}

// end ends a lane.
func (w *world) end(name string, out activities.LaneResult, err error) {
	w.t.Helper()
	w.mu.Lock()
	token := w.running[name]
	delete(w.running, name)
	w.mu.Unlock()
	if token == nil {
		w.t.Fatalf("lane %s does not run", name)
	}
	if err := w.env.CompleteActivity(token, out, err); err != nil {
		w.t.Fatal(err)
	}
}

// of lists the steps of one name.
func (w *world) of(name string) []step {
	w.mu.Lock()
	defer w.mu.Unlock()
	var steps []step
	for _, s := range w.steps {
		if s.name == name {
			steps = append(steps, s)
		}
	}
	return steps
}

// last returns the input of the last step of a type.
func last[In any](w *world) In {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.steps) - 1; i >= 0; i-- {
		if in, ok := w.steps[i].input.(In); ok {
			return in
		}
	}
	w.t.Fatalf("no step has a %T", *new(In))
	panic("not reached")
}

// at does something at a point of the workflow's time.
func (w *world) at(d time.Duration, f func()) { w.env.RegisterDelayedCallback(f, d) }

// signal sends a signal.
func (w *world) signal(name string, in any) { w.env.SignalWorkflow(name, in) }

// remove ends the workflow.
func (w *world) remove() { w.signal(workflows.Remove, workflows.RemoveInput{}) }

// request sends an update; the answer is there once done is true.
type request[Out any] struct {
	out      Out
	err      error
	done     bool
	rejected error
}

func ask[Out any](w *world, name, id string, in any) *request[Out] {
	r := &request[Out]{}
	w.env.UpdateWorkflow(name, id, &testsuite.TestUpdateCallback{
		OnAccept: func() {},
		OnReject: func(err error) { r.rejected, r.done = err, true },
		OnComplete: func(out any, err error) {
			r.err, r.done = err, true
			if v, ok := out.(Out); ok {
				r.out = v
			}
		},
	}, in)
	return r
}

func (w *world) status() workflows.Status {
	w.t.Helper()
	v, err := w.env.QueryWorkflow(workflows.StatusQuery)
	if err != nil {
		w.t.Fatal(err)
	}
	var s workflows.Status
	if err := v.Get(&s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// events are the changes of phase that were kept.
func (w *world) events() []workflows.Event {
	w.t.Helper()
	v, err := w.env.QueryWorkflow(workflows.EventsQuery)
	if err != nil {
		w.t.Fatal(err)
	}
	var e workflows.Events
	if err := v.Get(&e); err != nil {
		w.t.Fatal(err)
	}
	return e.Events
}

// phase checks the phase of the database and the code of its reason.
func (w *world) phase(p workflows.Phase, code activities.Code) {
	w.t.Helper()
	s := w.status()
	have := activities.Code("")
	if s.Reason != nil {
		have = s.Reason.Code
	}
	if s.Phase != p || have != code {
		w.t.Errorf("phase %s, reason %q; want %s, %q", s.Phase, have, p, code)
	}
}

// table returns the status of a table.
func (w *world) table(name string) workflows.TableStatus {
	w.t.Helper()
	for _, t := range w.status().Tables {
		if t.Name == name {
			return t
		}
	}
	w.t.Fatalf("no table %s", name)
	panic("not reached")
}

// run runs the workflow until it has ended, as it must.
func (w *world) run() {
	w.t.Helper()
	w.env.ExecuteWorkflow(workflows.DatabaseWorkflow, workflows.DatabaseInput{Config: shop})
	if err := w.env.GetWorkflowError(); err != nil {
		w.t.Fatal(err)
	}
}

// again runs the workflow until it continues as new, and returns how.
func (w *world) again(in workflows.DatabaseInput) (queue string, next workflows.DatabaseInput) {
	w.t.Helper()
	w.env.ExecuteWorkflow(workflows.DatabaseWorkflow, in)
	var can *workflow.ContinueAsNewError
	if err := w.env.GetWorkflowError(); !errors.As(err, &can) {
		w.t.Fatalf("ended with %v, want a new run", err)
	}
	if err := converterOf(can.Input, &next); err != nil {
		w.t.Fatal(err)
	}
	return can.TaskQueueName, next
}

// prepared is the result of a preparation.
func prepared(tables ...activities.TableInfo) activities.PrepareResult {
	return activities.PrepareResult{Epoch: 1, SystemID: "s", Timeline: 1, Tables: tables}
}

// parks is what the interceptor makes of an error that parks the database.
func parks(code activities.Code) error {
	return fails(activities.Failure{Park: true, Database: true, Reason: activities.Reason{Code: code, Message: "it cannot go on", Remedy: "mend it"}})
}

// retries is what it makes of one that time may mend.
func retries(code activities.Code) error {
	return fails(activities.Failure{Database: true, Reason: activities.Reason{Code: code, Message: "it does not answer"}})
}

func fails(f activities.Failure) error {
	return temporal.NewApplicationErrorWithOptions(f.Reason.Message, string(f.Reason.Code),
		temporal.ApplicationErrorOptions{NonRetryable: f.Park || f.Anew, Details: []any{f}})
}

// lost is what Temporal makes of a worker that fell silent.
func lost() error { return temporal.NewHeartbeatTimeoutError() }

// converterOf decodes the input of a workflow.
func converterOf(p *commonpb.Payloads, into any) error {
	return converter.GetDefaultDataConverter().FromPayloads(p, into)
}

// matches is an argument of a mock that is a T, which it passes on.
func matches[T any](take func(T)) any {
	return mock.MatchedBy(func(v T) bool {
		take(v)
		return true
	})
}
