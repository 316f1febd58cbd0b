package control_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/deploy/local"
	"github.com/millrace-io/millrace/starter/control"
	"github.com/millrace-io/millrace/workflows"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(local.Tests{M: m}) }

var regions atomic.Int64

// world is a region of its own on the shared server.
type world struct {
	t      *testing.T
	file   *fleet.File
	client *control.Client
	sdk    client.Client
}

// newWorld makes a region. Tests of different regions run in parallel: most of
// their time they wait.
func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	server := local.SharedTemporal(t)
	region := fmt.Sprintf("r%d", regions.Add(1))
	path := filepath.Join(t.TempDir(), "fleet.yaml")
	file, err := fleet.Parse(path, []byte(fmt.Sprintf(`
region: %s
temporal: {address: %q, heartbeat_timeout: 3s}
kafka: {brokers: ["127.0.0.1:9092"]}
allow_insecure: true
lake: file:///lake
databases:
  shop: {url: "postgres://m@127.0.0.1/shop?sslmode=disable", tables: ["public.*"]}
  crm: {url: "postgres://m@127.0.0.1/crm?sslmode=disable", tables: ["public.*"], pool: large}
`, region, server.Address)))
	if err != nil {
		t.Fatal(err)
	}
	c, err := control.Open(t.Context(), control.Options{File: file, Self: "bin/millrace", Worker: "bin/millrace-worker"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	sdk, err := client.Dial(client.Options{HostPort: server.Address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sdk.Close)
	return &world{t: t, file: file, client: c, sdk: sdk}
}

// serve runs a worker that knows one Database workflow and activities by name.
// The returned function stops it.
func (w *world) serve(database any, steps map[string]any) (stop func()) {
	w.t.Helper()
	wk := worker.New(w.sdk, workflows.Queue(w.file.Region, "default", workflows.LaneControl), worker.Options{
		WorkerStopTimeout: time.Second, MaxHeartbeatThrottleInterval: 100 * time.Millisecond,
		DefaultHeartbeatThrottleInterval: 100 * time.Millisecond,
	})
	wk.RegisterWorkflowWithOptions(database, workflow.RegisterOptions{Name: workflows.DatabaseWorkflow})
	for name, step := range steps {
		wk.RegisterActivityWithOptions(step, activity.RegisterOptions{Name: name})
	}
	if err := wk.Start(); err != nil {
		w.t.Fatal(err)
	}
	var once atomic.Bool
	stop = func() {
		if once.CompareAndSwap(false, true) {
			wk.Stop()
		}
	}
	w.t.Cleanup(stop)
	return stop
}

func (w *world) apply(name string) {
	w.t.Helper()
	db, err := w.file.Database(name)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.client.Carry(w.t.Context(), db, &control.DatabasePlan{}, false); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = w.sdk.TerminateWorkflow(context.Background(), workflows.DatabaseID(w.file.Region, name), "", "the test is over")
	})
}

// steady is a Database workflow with a status that requests change.
func steady(phase workflows.Phase, reason *activities.Reason) func(workflow.Context, workflows.DatabaseInput) error {
	return func(ctx workflow.Context, in workflows.DatabaseInput) error {
		st := workflows.Status{
			Name: in.Config.Name, Region: in.Config.Region, Pool: in.Config.Pool, Phase: workflows.Preparing,
			Tables: []workflows.TableStatus{{Name: "public.orders", OID: 7, Phase: workflows.Live, RowsCopied: 12, Position: "e1 0/10 #1"}},
		}
		over := false
		err := errors.Join(
			workflow.SetQueryHandler(ctx, workflows.StatusQuery, func() (workflows.Status, error) { return st, nil }),
			workflow.SetUpdateHandler(ctx, workflows.Pause, func(_ workflow.Context, in workflows.PauseInput) (workflows.Accepted, error) {
				st.Phase = workflows.Paused
				return workflows.Accepted{Phase: st.Phase}, nil
			}),
			workflow.SetUpdateHandler(ctx, workflows.Resume, func(workflow.Context, workflows.ResumeInput) (workflows.Accepted, error) {
				st.Phase = workflows.Running
				return workflows.Accepted{Phase: st.Phase}, nil
			}),
			workflow.SetUpdateHandler(ctx, workflows.Remove, func(ctx workflow.Context, in workflows.RemoveInput) (workflows.Removed, error) {
				if !in.Force {
					return workflows.Removed{}, workflow.Await(ctx, func() bool { return over })
				}
				over = true
				return workflows.Removed{Left: []string{"slot millrace_shop_e1"}}, nil
			}),
			workflow.SetUpdateHandlerWithOptions(ctx, workflows.Wait, func(ctx workflow.Context, in workflows.WaitInput) (workflows.Waited, error) {
				return workflows.Waited{Why: "public.orders is parked"}, nil
			}, workflow.UpdateHandlerOptions{Validator: func(in workflows.WaitInput) error {
				if in.Until == "refused" {
					return errors.New("that is no goal")
				}
				return nil
			}}),
		)
		if err != nil {
			return err
		}
		workflow.GetSignalChannel(ctx, workflows.Apply).Receive(ctx, nil)
		st.Phase, st.Reason = phase, reason
		return workflow.Await(ctx, func() bool { return over && workflow.AllHandlersFinished(ctx) })
	}
}

func TestApplySettlesOnceTheWorkflowRuns(t *testing.T) {
	w := newWorld(t)
	w.serve(steady(workflows.Running, nil), nil)
	w.apply("shop")
	db, err := w.client.Settle(t.Context(), "shop", 20*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if db.Phase != workflows.Running || len(db.Tables) != 1 || db.Tables[0].RowsCopied != 12 {
		t.Errorf("got %+v", db)
	}
}

func TestApplyTwiceTellsTheSameWorkflow(t *testing.T) {
	w := newWorld(t)
	w.serve(steady(workflows.Running, nil), nil)
	w.apply("shop")
	w.apply("shop")
	if _, err := w.client.Settle(t.Context(), "shop", 20*time.Second, nil); err != nil {
		t.Fatal(err)
	}
}

func TestADatabaseThatRefusesItsPlanHidesNoOther(t *testing.T) {
	w := newWorld(t)
	w.serve(steady(workflows.Running, nil), nil) // it knows no plans
	w.apply("shop")
	if _, err := w.client.Settle(t.Context(), "shop", 20*time.Second, nil); err != nil {
		t.Fatal(err)
	}
	var chosen []*fleet.Database
	for i := range w.file.Databases {
		chosen = append(chosen, &w.file.Databases[i])
	}
	plan, err := w.client.Plan(t.Context(), chosen, true)
	if err == nil || plan == nil || len(plan.Databases) != 2 {
		t.Fatalf("plan %+v, %v", plan, err)
	}
	shop, crm := plan.Databases[0], plan.Databases[1]
	if shop.Action != control.UnknownDatabase || !strings.HasPrefix(shop.Refused, "plan shop: ") {
		t.Errorf("shop: %+v", shop)
	}
	if crm.Action != control.AddDatabase || crm.Reason == nil || crm.Reason.Code != "NO_WORKER" {
		t.Errorf("crm: %+v", crm)
	}
}

func TestParkedDatabaseGivesItsReason(t *testing.T) {
	w := newWorld(t)
	w.serve(steady(workflows.Parked, &activities.Reason{Code: "WAL_LEVEL", Message: "wal_level is replica", Remedy: "ALTER SYSTEM SET wal_level = logical"}), nil)
	w.apply("shop")
	db, err := w.client.Settle(t.Context(), "shop", 20*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if db.Phase != workflows.Parked || db.Reason == nil || db.Reason.String() != "WAL_LEVEL: wal_level is replica; ALTER SYSTEM SET wal_level = logical" {
		t.Errorf("got %+v", db)
	}
}

func TestNoWorkerIsSaidWithinTenSeconds(t *testing.T) {
	w := newWorld(t)
	db, err := w.file.Database("crm")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	w.apply(db.Name)
	_, err = w.client.Settle(t.Context(), "crm", 30*time.Second, nil)
	var none *control.NoWorkerError
	if !errors.As(err, &none) {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	if want := workflows.Queue(w.file.Region, "large", "control"); none.Queue != want {
		t.Errorf("queue %s, want %s", none.Queue, want)
	}
	if want := "bin/millrace-worker --fleet " + w.file.Name + " --pool large"; none.Command != want {
		t.Errorf("command %s, want %s", none.Command, want)
	}
	r, err := w.client.Status(t.Context(), []string{"crm"})
	if !errors.As(err, &none) || r == nil {
		t.Fatalf("got %v, %v", r, err)
	}
	got := r.Databases[0]
	if got.Phase != control.Unknown || got.Reason == nil || got.Reason.Code != "NO_WORKER" || got.AgeSeconds <= 0 || got.Pool != "large" {
		t.Errorf("got %+v", got)
	}
}

func TestWorkerThatDiedIsSaidWithinTenSeconds(t *testing.T) {
	w := newWorld(t)
	progress := activities.CaptureProgress{Worker: "w1", LagBytes: 42, LagSeconds: 1.5}
	stop := w.serve(capturing, map[string]any{"Capture": heartbeating(progress)})
	w.apply("shop")
	w.until(func() bool { return w.shop().LagBytes != nil })
	stop()
	start := time.Now()
	r, err := w.client.Status(t.Context(), []string{"shop"})
	var none *control.NoWorkerError
	if !errors.As(err, &none) || r == nil {
		t.Fatalf("got %v, %v", r, err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
	db := r.Databases[0]
	if db.Phase != workflows.Running || db.AgeSeconds <= 0 || len(db.Workers) != 0 {
		t.Errorf("got %+v", db)
	}
	for name, ask := range map[string]func() error{
		"pause": func() error { _, err := w.client.Pause(t.Context(), "shop", workflows.PauseInput{}); return err },
		"wait":  func() error { _, err := w.client.Wait(t.Context(), "shop", "live", time.Minute); return err },
	} {
		start := time.Now()
		if err := ask(); !errors.As(err, &none) || time.Since(start) > 10*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(start))
		}
	}
}

// shop returns the status that the workflow gives.
func (w *world) shop() *control.Database {
	w.t.Helper()
	r, err := w.client.Status(w.t.Context(), []string{"shop"})
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Databases[0]
}

// until waits for a condition.
func (w *world) until(ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			w.t.Fatal("it did not come true in 20 seconds")
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-w.t.Context().Done():
			w.t.Fatal(w.t.Context().Err())
		}
	}
}

// capturing is a Database workflow whose capture lane runs.
func capturing(ctx workflow.Context, in workflows.DatabaseInput) error {
	err := workflow.SetQueryHandler(ctx, workflows.StatusQuery, func() (workflows.Status, error) {
		return workflows.Status{
			Name: in.Config.Name, Region: in.Config.Region, Pool: in.Config.Pool, Phase: workflows.Running,
			Tables: []workflows.TableStatus{{Name: "public.orders", OID: 7, Phase: workflows.Live, Position: "old"}},
		}, nil
	})
	if err != nil {
		return err
	}
	err = workflow.UpsertTypedSearchAttributes(ctx, temporal.NewSearchAttributeKeyKeyword(workflows.AttrPhase).ValueSet(string(workflows.Running)))
	if err != nil {
		return err
	}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: time.Hour, HeartbeatTimeout: 3 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, BackoffCoefficient: 1},
	})
	capture := workflow.ExecuteActivity(ctx, "Capture")
	commit := workflow.ExecuteActivity(ctx, "Commit")
	return errors.Join(capture.Get(ctx, nil), commit.Get(ctx, nil))
}

// heartbeating is an activity that reports the same progress until it is told
// to stop.
func heartbeating(details any) func(context.Context) error {
	return func(ctx context.Context) error {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			activity.RecordHeartbeat(ctx, details)
			select {
			case <-tick.C:
			case <-activity.GetWorkerStopChannel(ctx):
				return errors.New("the worker stops")
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

func TestStatusCarriesTheProgressOfItsLanes(t *testing.T) {
	w := newWorld(t)
	w.serve(capturing, map[string]any{
		"Capture": heartbeating(activities.CaptureProgress{Worker: "w1", LagBytes: 42, LagSeconds: 1.5}),
		"Commit": heartbeating(activities.CommitProgress{
			Worker: "w2", LagSeconds: 2.5,
			Tables: []activities.TablePosition{{OID: 7, Position: "new"}, {OID: 8, Position: "elsewhere"}},
		}),
	})
	w.apply("shop")
	w.until(func() bool { db := w.shop(); return db.LagBytes != nil && len(db.Workers) == 2 })
	db := w.shop()
	if *db.LagBytes != 42 || *db.LagSeconds != 2.5 || db.Tables[0].Position != "new" || strings.Join(db.Workers, " ") != "w1 w2" || db.Reason != nil {
		t.Errorf("got %+v", db)
	}
}

func TestStatusSaysWhyAStepKeepsFailing(t *testing.T) {
	w := newWorld(t)
	refuse := func(context.Context) error {
		return temporal.NewApplicationErrorWithOptions("no answer", "UNREACHABLE", temporal.ApplicationErrorOptions{
			Details: []any{activities.Failure{Reason: activities.Reason{Code: "UNREACHABLE", Message: "no answer", Remedy: "start it"}}},
		})
	}
	w.serve(capturing, map[string]any{"Capture": refuse, "Commit": heartbeating(activities.CommitProgress{Worker: "w2"})})
	w.apply("shop")
	w.until(func() bool { return w.shop().Reason != nil })
	if got := w.shop().Reason.String(); got != "UNREACHABLE: no answer; start it" {
		t.Errorf("got %s", got)
	}
}

func TestRequests(t *testing.T) {
	w := newWorld(t)
	w.serve(steady(workflows.Running, nil), nil)
	w.apply("shop")
	ctx := t.Context()
	if a, err := w.client.Pause(ctx, "shop", workflows.PauseInput{Capture: true}); err != nil || a.Phase != workflows.Paused {
		t.Errorf("pause: %v, %v", a, err)
	}
	if a, err := w.client.Resume(ctx, "shop", nil); err != nil || a.Phase != workflows.Running {
		t.Errorf("resume: %v, %v", a, err)
	}
	if a, err := w.client.Wait(ctx, "shop", workflows.UntilLive, 5*time.Second); err != nil || a.Reached || a.Why != "public.orders is parked" {
		t.Errorf("wait: %v, %v", a, err)
	}
	if _, err := w.client.Wait(ctx, "shop", "refused", 5*time.Second); err == nil || err.Error() != "wait shop: that is no goal" {
		t.Errorf("wait for what is refused: %v", err)
	}
	if _, err := w.client.Remove(ctx, "shop", workflows.RemoveInput{}, time.Second); err == nil || !strings.Contains(err.Error(), "not done within 1s") {
		t.Errorf("remove of an unreachable database: %v", err)
	}
	if a, err := w.client.Remove(ctx, "shop", workflows.RemoveInput{Force: true}, 10*time.Second); err != nil || len(a.Left) != 1 {
		t.Errorf("remove with force: %v, %v", a, err)
	}
	w.until(func() bool { return w.shop().Phase == control.Removed })
	if _, err := w.client.Pause(ctx, "shop", workflows.PauseInput{}); !errors.Is(err, control.ErrNotApplied) {
		t.Errorf("pause of what was removed: %v", err)
	}
}

func TestDatabaseThatWasNeverApplied(t *testing.T) {
	w := newWorld(t)
	_, err := w.client.Pause(t.Context(), "shop", workflows.PauseInput{})
	if !errors.Is(err, control.ErrNotApplied) || !strings.Contains(err.Error(), "bin/millrace apply --fleet "+w.file.Name+" shop") {
		t.Errorf("got %v", err)
	}
	if _, err := w.client.Pause(t.Context(), "shp", workflows.PauseInput{}); !errors.Is(err, fleet.ErrUnknownDatabase) || !strings.Contains(err.Error(), `"shop"`) {
		t.Errorf("got %v", err)
	}
	if db := w.shop(); db.Phase != control.NotApplied || db.Reason == nil || len(db.Tables) != 0 || db.Tables == nil {
		t.Errorf("got %+v", db)
	}
}

func TestWorkflowThatWasTerminated(t *testing.T) {
	w := newWorld(t)
	w.apply("shop")
	if err := w.sdk.TerminateWorkflow(t.Context(), workflows.DatabaseID(w.file.Region, "shop"), "", "gone"); err != nil {
		t.Fatal(err)
	}
	if db := w.shop(); db.Phase != control.Stopped || db.Reason.Code != "STOPPED" {
		t.Errorf("got %+v", db)
	}
}

func TestInitRegistersWhatANamespaceLacks(t *testing.T) {
	w := newWorld(t)
	name := "fresh-" + w.file.Region
	_, err := w.sdk.WorkflowService().RegisterNamespace(t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: name, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	file := *w.file
	file.Temporal.Namespace = name
	var c *control.Client
	w.until(func() bool {
		c, err = control.Open(t.Context(), control.Options{File: &file})
		return err == nil
	})
	defer c.Close()
	db, err := file.Database("shop")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Plan(t.Context(), []*fleet.Database{db}, true); err == nil || !strings.Contains(err.Error(), "millrace init --fleet") {
		t.Errorf("plan before init: %v", err)
	}
	for i := range 2 {
		got, err := c.Init(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 4 || got[0].Added != (i == 0) || got[3].Type != "KeywordList" {
			t.Errorf("round %d: %+v", i, got)
		}
	}
	if err := c.Initialised(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNamespaceThatIsNotThere(t *testing.T) {
	w := newWorld(t)
	file := *w.file
	file.Temporal.Namespace = "nowhere"
	_, err := control.Open(t.Context(), control.Options{File: &file})
	if err == nil || !strings.Contains(err.Error(), "temporal operator namespace create --namespace nowhere") {
		t.Errorf("got %v", err)
	}
}

func TestServerThatIsNotThere(t *testing.T) {
	file := &fleet.File{Name: "f.yaml", Temporal: fleet.Temporal{Address: "127.0.0.1:1", Namespace: "default"}}
	start := time.Now()
	_, err := control.Open(t.Context(), control.Options{File: file})
	if err == nil || !strings.HasPrefix(err.Error(), "no Temporal answers at 127.0.0.1:1: ") || !strings.Contains(err.Error(), "temporal.address in f.yaml") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

// network carries connections to a server, until it is cut.
type network struct {
	net.Listener
	server string

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
	ended sync.WaitGroup
}

func newNetwork(t *testing.T, server string) *network {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{Listener: l, server: server, conns: map[net.Conn]bool{}}
	n.ended.Go(n.accept)
	t.Cleanup(func() {
		_ = l.Close()
		n.cut(true)
		n.ended.Wait()
	})
	return n
}

// cut ends all connections and refuses others, or takes them again.
func (n *network) cut(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
	for c := range n.conns {
		_ = c.Close()
	}
}

func (n *network) accept() {
	for {
		c, err := n.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", n.server)
		n.mu.Lock()
		if err != nil || n.down {
			_ = c.Close()
			if err == nil {
				_ = up.Close()
			}
		} else {
			n.conns[c], n.conns[up] = true, true
			n.ended.Go(func() { n.pipe(c, up) })
			n.ended.Go(func() { n.pipe(up, c) })
		}
		n.mu.Unlock()
	}
}

func (n *network) pipe(from, to net.Conn) {
	_, _ = io.Copy(to, from)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range []net.Conn{from, to} {
		_ = c.Close()
		delete(n.conns, c)
	}
}

func TestANetworkThatFailsForAWhileEndsNoWaiting(t *testing.T) {
	w := newWorld(t)
	w.serve(steady(workflows.Running, nil), nil)
	w.apply("shop")
	n := newNetwork(t, w.file.Temporal.Address)
	file := *w.file
	file.Temporal.Address = n.Addr().String()
	c, err := control.Open(t.Context(), control.Options{File: &file})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n.cut(true)
	noticed := 0
	db, err := c.Settle(t.Context(), "shop", time.Minute, func(r *control.Reason) {
		if noticed++; r.Code != "TEMPORAL_UNREACHABLE" {
			t.Errorf("noticed %s", r)
		}
		n.cut(false)
	})
	if err != nil {
		t.Fatal(err)
	}
	if db.Phase != workflows.Running || noticed != 1 {
		t.Errorf("%s after %d notices", db.Phase, noticed)
	}
	n.cut(true)
	start := time.Now()
	if _, err := c.Settle(t.Context(), "shop", time.Second, nil); err == nil || !strings.HasPrefix(err.Error(), "no Temporal answers at ") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}
