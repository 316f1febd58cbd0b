package workflows_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/workflows"
)

var shop = fleet.Database{
	Name: "shop", Region: "local", Pool: "default", URL: "postgres://m@127.0.0.1/shop?sslmode=disable",
	Tables: []string{"public.*"}, Freshness: time.Second, HeartbeatTimeout: 3 * time.Second, Lake: "file:///lake",
	Topic: fleet.Topic{Name: "millrace.shop", Partitions: 2, Replication: 1, MinInSync: 1, Retention: time.Hour},
}

// world answers for the activities.
type world struct {
	prepare  func(activities.PrepareInput) (activities.PrepareResult, error)
	captures int
	commits  []activities.CommitInput
	dropped  []activities.DropInput
	markers  []string
	onMarker func(token string)
}

// parked is what the interceptor makes of an error that parks.
func parked(code activities.Code, message string) error {
	f := activities.Failure{Park: true, Database: true, Reason: activities.Reason{Code: code, Message: message, Remedy: "mend it"}}
	return temporal.NewApplicationErrorWithOptions(message, string(code), temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{f}})
}

func newWorld(t *testing.T) (*world, *testsuite.TestWorkflowEnvironment) {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(time.Minute)
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: "millrace/local/shop", TaskQueue: workflows.Queue("local", "default", workflows.LaneControl)})
	w := &world{prepare: func(activities.PrepareInput) (activities.PrepareResult, error) {
		return activities.PrepareResult{Epoch: 1, SystemID: "s", Timeline: 1, Tables: []activities.TableInfo{
			{OID: 1, Name: "public.a", Phase: "live", History: "h", Latest: "l"},
		}}, nil
	}}
	env.RegisterWorkflowWithOptions(workflows.Database, workflow.RegisterOptions{Name: workflows.DatabaseWorkflow})
	env.RegisterWorkflowWithOptions(workflows.Copy, workflow.RegisterOptions{Name: workflows.CopyWorkflow})
	var a *activities.Activities
	env.RegisterActivity(a)
	env.OnActivity(a.Prepare, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.PrepareInput) (activities.PrepareResult, error) {
		return w.prepare(in)
	})
	until := func(ctx context.Context) (activities.LaneResult, error) {
		<-ctx.Done()
		return activities.LaneResult{}, ctx.Err()
	}
	env.OnActivity(a.Capture, mock.Anything, mock.Anything).Return(func(ctx context.Context, _ activities.CaptureInput) (activities.LaneResult, error) {
		w.captures++
		return until(ctx)
	})
	env.OnActivity(a.Commit, mock.Anything, mock.Anything).Return(func(ctx context.Context, in activities.CommitInput) (activities.LaneResult, error) {
		w.commits = append(w.commits, in)
		return until(ctx)
	})
	env.OnActivity(a.Scan, mock.Anything, mock.Anything).Return(activities.ScanResult{}, nil).Maybe()
	env.OnActivity(a.Drop, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.DropInput) (activities.DropResult, error) {
		w.dropped = append(w.dropped, in)
		return activities.DropResult{Dropped: []string{"slot millrace_shop_e1"}}, nil
	}).Maybe()
	env.OnActivity(a.EmitMarker, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.MarkerInput) error {
		w.markers = append(w.markers, in.Token)
		if w.onMarker != nil {
			w.onMarker(in.Token)
		}
		return nil
	}).Maybe()
	return w, env
}

func status(t *testing.T, env *testsuite.TestWorkflowEnvironment) workflows.Status {
	t.Helper()
	v, err := env.QueryWorkflow(workflows.StatusQuery)
	if err != nil {
		t.Fatal(err)
	}
	var s workflows.Status
	if err := v.Get(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestABlockedPreparationParksWithItsReasonAndResumesByRequest(t *testing.T) {
	w, env := newWorld(t)
	prepare := w.prepare
	w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
		return activities.PrepareResult{}, parked("WAL_LEVEL", "wal_level is replica")
	}
	env.RegisterDelayedCallback(func() {
		s := status(t, env)
		if s.Phase != workflows.Parked || s.Reason == nil || s.Reason.Code != "WAL_LEVEL" || s.Reason.Remedy != "mend it" || s.Reason.Since == "" {
			t.Errorf("parked status: %+v, reason %+v", s.Phase, s.Reason)
		}
		w.prepare = prepare
		env.SignalWorkflow(workflows.Resume, workflows.ResumeInput{})
	}, 300*time.Millisecond)
	env.RegisterDelayedCallback(func() {
		if s := status(t, env); s.Phase != workflows.Running || s.Reason != nil {
			t.Errorf("after resume: %s, reason %+v", s.Phase, s.Reason)
		}
		env.SignalWorkflow(workflows.Remove, workflows.RemoveInput{})
	}, 900*time.Millisecond)
	env.ExecuteWorkflow(workflows.DatabaseWorkflow, workflows.DatabaseInput{Config: shop})
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
	if len(w.dropped) != 1 {
		t.Fatalf("dropped %d times, want once", len(w.dropped))
	}
}

func TestATemporaryFailureOfThePreparationIsShownAndTriedAgain(t *testing.T) {
	w, env := newWorld(t)
	prepare := w.prepare
	tries := 0
	w.prepare = func(in activities.PrepareInput) (activities.PrepareResult, error) {
		if tries++; tries < 2 {
			return activities.PrepareResult{}, errors.New("connection refused")
		}
		return prepare(in)
	}
	env.RegisterDelayedCallback(func() {
		if s := status(t, env); s.Phase != workflows.Preparing || s.Reason == nil {
			t.Errorf("while it fails: %s, reason %+v", s.Phase, s.Reason)
		}
	}, 300*time.Millisecond)
	env.RegisterDelayedCallback(func() {
		if s := status(t, env); s.Phase != workflows.Running || s.Reason != nil {
			t.Errorf("afterwards: %s, reason %+v", s.Phase, s.Reason)
		}
		env.SignalWorkflow(workflows.Remove, workflows.RemoveInput{})
	}, 2*time.Second)
	env.ExecuteWorkflow(workflows.DatabaseWorkflow, workflows.DatabaseInput{Config: shop})
	if err := env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
}
