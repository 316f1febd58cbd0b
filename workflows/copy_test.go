package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/workflows"
)

// snapshots answers for the steps of the copy lane: holders keep cuts until
// they are released or the test loses them.
type snapshots struct {
	t   *testing.T
	env *testsuite.TestWorkflowEnvironment
	id  string // of the workflow that asks for cuts

	mu      sync.Mutex
	cuts    int
	holders map[string][]byte // tokens of Hold, by snapshot
	log     []string
	told    []activities.TablesChanged
	lane    []activities.LaneReport
	pending map[string][]byte // tokens of chunks that wait, by table and chunk

	hold   func(n int) error
	chunks func(oid uint32) int
	chunk  func(in activities.ChunkInput) error
	finish func(in activities.FinishInput) error
}

func newSnapshots(t *testing.T, id, queue string) *snapshots {
	s := &snapshots{
		t: t, env: newEnv(t), id: id, holders: map[string][]byte{}, pending: map[string][]byte{},
		hold:   func(int) error { return nil },
		chunks: func(uint32) int { return 1 },
		chunk:  func(activities.ChunkInput) error { return nil },
		finish: func(activities.FinishInput) error { return nil },
	}
	s.env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: id, TaskQueue: queue})
	s.env.RegisterWorkflowWithOptions(workflows.Copy, workflow.RegisterOptions{Name: workflows.CopyWorkflow})
	s.env.RegisterWorkflowWithOptions(workflows.Prove, workflow.RegisterOptions{Name: workflows.VerifyWorkflow})
	name := func(n string) activity.RegisterOptions { return activity.RegisterOptions{Name: n} }
	s.env.RegisterActivityWithOptions(s.Hold, name("Hold"))
	s.env.RegisterActivityWithOptions(s.PlanCopy, name("PlanCopy"))
	s.env.RegisterActivityWithOptions(s.CopyChunk, name("CopyChunk"))
	s.env.RegisterActivityWithOptions(s.FinishCopy, name("FinishCopy"))
	return s
}

func (s *snapshots) note(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

// Hold takes a cut and keeps it.
func (s *snapshots) Hold(ctx context.Context, in activities.HoldInput) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cuts++
	n := s.cuts
	if err := s.hold(n); err != nil {
		return err
	}
	snapshot := fmt.Sprint("s", n)
	s.holders[snapshot] = activity.GetInfo(ctx).TaskToken
	s.note("cut %s", snapshot)
	cut := activities.Cut{LSN: change.LSN(n), Snapshot: snapshot, Token: in.Token}
	if err := s.env.SignalWorkflowByID(s.id, activities.SignalCut, activities.Cut{Snapshot: "late", Token: "of another"}); err != nil {
		s.t.Error(err)
	}
	if err := s.env.SignalWorkflowByID(s.id, activities.SignalCut, cut); err != nil {
		s.t.Error(err)
	}
	return activity.ErrResultPending
}

// lose ends a holder as if its worker had died.
func (s *snapshots) lose(snapshot string) {
	s.mu.Lock()
	token := s.holders[snapshot]
	s.mu.Unlock()
	if err := s.env.CompleteActivity(token, nil, lost()); err != nil {
		s.t.Error(err)
	}
}

func (s *snapshots) PlanCopy(_ context.Context, in activities.PlanInput) (activities.PlanResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("plan %d under %s as %s", in.OID, in.Cut.Snapshot, in.Copy)
	return activities.PlanResult{Chunks: make([]activities.Chunk, s.chunks(in.OID))}, nil
}

// errWaits makes a chunk wait until the test ends it.
var errWaits = errors.New("wait")

func (s *snapshots) CopyChunk(ctx context.Context, in activities.ChunkInput) (activities.ChunkResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("chunk %d.%d under %s", in.OID, in.Index, in.Cut.Snapshot)
	switch err := s.chunk(in); {
	case errors.Is(err, errWaits):
		s.pending[fmt.Sprintf("%d.%d", in.OID, in.Index)] = activity.GetInfo(ctx).TaskToken
		return activities.ChunkResult{}, activity.ErrResultPending
	case err != nil:
		return activities.ChunkResult{}, err
	}
	return activities.ChunkResult{Rows: 10}, nil
}

// done ends a chunk that waits.
func (s *snapshots) done(chunk string) {
	s.mu.Lock()
	token := s.pending[chunk]
	s.mu.Unlock()
	if err := s.env.CompleteActivity(token, activities.ChunkResult{Rows: 10}, nil); err != nil {
		s.t.Error(err)
	}
}

func (s *snapshots) FinishCopy(_ context.Context, in activities.FinishInput) (activities.FinishResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.finish(in); err != nil {
		return activities.FinishResult{}, err
	}
	s.note("finish %d", in.OID)
	return activities.FinishResult{Phase: "live"}, nil
}

// has tells whether something happened.
func (s *snapshots) has(event string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.log, event)
}

// parent takes the reports of a copy.
func (s *snapshots) parent() {
	s.env.OnSignalExternalWorkflow("default-test-namespace", "parent", "", activities.SignalTables, matches(func(t activities.TablesChanged) {
		s.told = append(s.told, t)
	})).Return(nil).Maybe()
	s.env.OnSignalExternalWorkflow("default-test-namespace", "parent", "", activities.SignalLane, matches(func(r activities.LaneReport) {
		s.lane = append(s.lane, r)
	})).Return(nil).Maybe()
}

// copy runs a Copy workflow of some tables.
func (s *snapshots) copy(oids ...uint32) error {
	s.t.Helper()
	in := workflows.CopyInput{Config: shop, Epoch: 1, ID: s.id, Parent: "parent"}
	for _, oid := range oids {
		in.Tables = append(in.Tables, workflows.CopyTable{OID: oid, Name: fmt.Sprint("public.t", oid)})
	}
	s.env.ExecuteWorkflow(workflows.CopyWorkflow, in)
	return s.env.GetWorkflowError()
}

// outcome is what the parent was told of each table, and that the copy ended.
func (s *snapshots) outcome() (tables map[uint32]activities.TableChange, ended bool) {
	tables = map[uint32]activities.TableChange{}
	for _, t := range s.told {
		if ended {
			s.t.Errorf("told after the end: %+v", t)
		}
		for _, c := range t.Tables {
			tables[c.OID] = c
		}
		ended = t.Ended
	}
	return tables, ended
}

func copies(t *testing.T) *snapshots {
	s := newSnapshots(t, "copy", workflows.Queue("local", "default", workflows.LaneControl))
	s.parent()
	return s
}

func TestACopyCopiesItsTablesUnderOneCutAndReports(t *testing.T) {
	s := copies(t)
	s.chunks = func(oid uint32) int { return int(oid) }
	if err := s.copy(1, 2, 3); err != nil {
		t.Fatal(err)
	}
	tables, ended := s.outcome()
	for oid := uint32(1); oid <= 3; oid++ {
		if c := tables[oid]; c.Phase != "live" || c.RowsCopied != int64(10*oid) {
			t.Errorf("table %d: %+v", oid, c)
		}
	}
	if !ended || s.cuts != 1 {
		t.Errorf("ended %t after %d cuts", ended, s.cuts)
	}
}

func TestATableThatWasRewrittenTakesItsOwnCutWhileOthersGoOn(t *testing.T) {
	s := copies(t)
	s.chunk = func(in activities.ChunkInput) error {
		switch {
		case in.OID == 1:
			return errWaits
		case in.Cut.Snapshot == "s1":
			return fails(activities.Failure{Anew: true, Reason: activities.Reason{Code: "TABLE_REWRITTEN"}})
		}
		return nil
	}
	s.env.RegisterDelayedCallback(func() {
		if !s.has("finish 2") || s.cuts != 2 {
			t.Errorf("while table 1 is copied: %v", s.log)
		}
		s.done("1.0")
	}, time.Minute)
	if err := s.copy(1, 2); err != nil {
		t.Fatal(err)
	}
	if tables, ended := s.outcome(); tables[1].Phase != "live" || tables[2].Phase != "live" || !ended {
		t.Errorf("told %+v", s.told)
	}
	if !s.has("plan 2 under s2 as copy#2") {
		t.Errorf("happened: %v", s.log)
	}
	if len(s.lane) != 0 {
		t.Errorf("the lane told %+v", s.lane)
	}
}

func TestTablesWhoseSnapshotIsLostStartOverUnderTheNextCut(t *testing.T) {
	s := copies(t)
	s.chunk = func(in activities.ChunkInput) error {
		if in.Cut.Snapshot == "s1" && in.OID > 1 {
			return errWaits
		}
		return nil
	}
	s.env.RegisterDelayedCallback(func() { s.lose("s1") }, 5*time.Second)
	if err := s.copy(1, 2, 3, 4, 5, 6, 7); err != nil {
		t.Fatal(err)
	}
	tables, ended := s.outcome()
	if len(tables) != 7 || !ended || s.cuts != 2 {
		t.Errorf("told %+v after %d cuts", s.told, s.cuts)
	}
	if s.has("plan 1 under s2 as copy#2") {
		t.Errorf("table 1 was copied twice: %v", s.log)
	}
}

func TestTablesThatFailTogetherPutTheNextCutOffOnce(t *testing.T) {
	s := copies(t)
	var began, next time.Time
	s.hold = func(n int) error {
		switch n {
		case 1:
			began = s.env.Now()
		case 2:
			next = s.env.Now()
		}
		return nil
	}
	s.chunk = func(in activities.ChunkInput) error {
		if in.Cut.Snapshot == "s1" {
			return fails(activities.Failure{Anew: true, Reason: activities.Reason{Code: activities.CodeSnapshotGone}})
		}
		return nil
	}
	s.env.RegisterDelayedCallback(func() { s.lose("s1") }, 3*time.Second)
	if err := s.copy(1, 2, 3, 4, 5, 6, 7); err != nil {
		t.Fatal(err)
	}
	if tables, ended := s.outcome(); len(tables) != 7 || !ended {
		t.Errorf("told %+v", s.told)
	}
	if took := next.Sub(began); took > 5*time.Second {
		t.Errorf("the next cut came after %s", took)
	}
}

func TestATableThatCannotBeCopiedIsParkedAlone(t *testing.T) {
	s := copies(t)
	s.chunk = func(in activities.ChunkInput) error {
		if in.OID == 1 {
			return fails(activities.Failure{Park: true, Reason: activities.Reason{Code: "UNREPRESENTABLE_VALUE"}})
		}
		return nil
	}
	if err := s.copy(1, 2); err != nil {
		t.Fatal(err)
	}
	if tables, _ := s.outcome(); tables[1].Reason == nil || tables[1].Reason.Code != "UNREPRESENTABLE_VALUE" || tables[2].Phase != "live" {
		t.Errorf("told %+v", s.told)
	}
}

func TestACopyThatCannotGoOnParksTheDatabase(t *testing.T) {
	s := copies(t)
	s.hold = func(int) error { return parks("SOURCE_AUTH") }
	if err := s.copy(1); err != nil {
		t.Fatal(err)
	}
	if _, ended := s.outcome(); !ended || len(s.lane) != 1 || !s.lane[0].Park || s.lane[0].Reason.Code != "SOURCE_AUTH" {
		t.Errorf("told %+v, %+v", s.told, s.lane)
	}
}

func TestACopyThatNobodyServesSaysSoUntilSomebodyDoes(t *testing.T) {
	s := copies(t)
	s.hold = func(n int) error {
		if n < 3 {
			return temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil)
		}
		return nil
	}
	if err := s.copy(1); err != nil {
		t.Fatal(err)
	}
	if len(s.lane) != 2 || s.lane[0].Reason.Code != activities.CodeNoWorker || s.lane[1].Reason != nil ||
		!strings.Contains(s.lane[0].Reason.Message, "millrace.local.default.copy") {
		t.Errorf("the lane told %+v", s.lane)
	}
}

func TestTablesThatComeToWaitJoinARunningCopy(t *testing.T) {
	s := copies(t)
	s.chunk = func(in activities.ChunkInput) error {
		if in.OID == 1 {
			return errWaits
		}
		return nil
	}
	s.env.RegisterDelayedCallback(func() {
		s.env.SignalWorkflow("more", []workflows.CopyTable{{OID: 2, Name: "public.t2"}})
	}, time.Second)
	s.env.RegisterDelayedCallback(func() {
		if !s.has("plan 2 under s2 as copy#2") || !s.has("finish 2") {
			t.Errorf("happened: %v", s.log)
		}
		s.done("1.0")
	}, time.Minute)
	if err := s.copy(1); err != nil {
		t.Fatal(err)
	}
	if tables, _ := s.outcome(); len(tables) != 2 {
		t.Errorf("told %+v", s.told)
	}
}

func TestACancelledCopyReportsItsEnd(t *testing.T) {
	s := copies(t)
	s.chunk = func(activities.ChunkInput) error { return errWaits }
	s.env.RegisterDelayedCallback(func() { s.env.CancelWorkflow() }, time.Second)
	if err := s.copy(1, 2); err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Fatalf("ended with %v", err)
	}
	if tables, ended := s.outcome(); len(tables) != 0 || !ended {
		t.Errorf("told %+v", s.told)
	}
}

func TestALongCopyContinuesAsNewWithWhatIsLeft(t *testing.T) {
	s := copies(t)
	s.chunk = func(in activities.ChunkInput) error {
		if in.OID == 4 {
			s.env.SetCurrentHistoryLength(30_000)
		}
		return nil
	}
	var can *workflow.ContinueAsNewError
	if err := s.copy(1, 2, 3, 4, 5, 6, 7, 8, 9); !errors.As(err, &can) {
		t.Fatalf("ended with %v", err)
	}
	var next workflows.CopyInput
	if err := converterOf(can.Input, &next); err != nil {
		t.Fatal(err)
	}
	tables, ended := s.outcome()
	if len(next.Tables) == 0 || len(tables)+len(next.Tables) != 9 || ended || next.Cuts != 1 {
		t.Errorf("left %+v after %d cuts, told %+v", next.Tables, next.Cuts, s.told)
	}
}

func TestACopyWithoutAParentEnds(t *testing.T) {
	s := newSnapshots(t, "copy", "q")
	gone := errors.New("no such workflow")
	s.env.OnSignalExternalWorkflow("default-test-namespace", "parent", "", activities.SignalTables, matches(func(activities.TablesChanged) {})).Return(gone)
	s.chunk = func(in activities.ChunkInput) error {
		if in.OID == 2 {
			return errWaits
		}
		return nil
	}
	if err := s.copy(1, 2); err != nil {
		t.Fatal(err)
	}
}
