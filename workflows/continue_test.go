package workflows_test

import (
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/workflows"
)

// full makes the history as long as that of a run that should end.
func (w *world) full() { w.env.SetCurrentHistoryLength(5000) }

// overfull makes it so long that nothing is waited for.
func (w *world) overfull() { w.env.SetCurrentHistoryLength(20_000) }

func TestALongRunContinuesAsNewWithItsState(t *testing.T) {
	w := newWorld(t)
	w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
		return prepared(
			activities.TableInfo{OID: 1, Name: "public.a", Phase: "live", History: "file:///lake/shop/public/a/history"},
			activities.TableInfo{OID: 2, Name: "public.b", Phase: "waiting"},
		), nil
	}
	w.at(time.Second, func() {
		w.signal(activities.SignalTables, activities.TablesChanged{Tables: []activities.TableChange{
			{OID: 1, Reason: &activities.Reason{Code: "MALFORMED_VALUE", Message: "no value"}},
		}})
		w.full()
		w.signal(workflows.Apply, workflows.ApplyInput{Config: shop}) // wakes it up, and is not lost
	})
	queue, next := w.again(workflows.DatabaseInput{Config: shop})
	s := next.State
	if queue != "millrace.local.default.control" || s.Phase != workflows.Preparing || s.Epoch != 1 || !s.Prepared || s.SystemID != "s" {
		t.Errorf("queue %s, state %+v", queue, s)
	}
	if len(s.Requests) != 1 || s.Requests[0].Outcome != "accepted" {
		t.Errorf("requests %+v", s.Requests)
	}
	if s.Copy == nil || s.Copy.ID != shopID+"/copy/1-1" || s.Tables[1].Phase != workflows.Copying {
		t.Errorf("copy %+v of %+v", s.Copy, s.Tables)
	}

	w = newWorld(t)
	w.at(time.Second, func() {
		// The copy that the run before had started reports to this one.
		w.signal(activities.SignalTables, activities.TablesChanged{Copy: s.Copy.ID, Tables: []activities.TableChange{{OID: 2, Phase: "live", RowsCopied: 7}}})
		w.signal(activities.SignalTables, activities.TablesChanged{Copy: s.Copy.ID, Ended: true})
	})
	w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
		return prepared(
			activities.TableInfo{OID: 1, Name: "public.a", Phase: "live", History: "file:///lake/shop/public/a/history"},
			activities.TableInfo{OID: 2, Name: "public.b", Phase: "waiting"}, // its copy is not done
		), nil
	}
	w.at(2*time.Second, func() {
		w.phase(workflows.Running, "")
		if b := w.table("public.b"); b.Phase != workflows.Live || b.RowsCopied != 7 {
			t.Errorf("table %+v", b)
		}
		if a := w.table("public.a"); a.Phase != workflows.Live || a.Reason != nil {
			t.Errorf("table %+v", a)
		}
		w.remove()
	})
	w.env.ExecuteWorkflow(workflows.DatabaseWorkflow, next)
	if err := w.env.GetWorkflowError(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatTheCommitLaneCameToReachesTheNextRun(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() {
		w.end("Commit", activities.LaneResult{Worker: "w1", Resume: []byte(`[9]`), Tables: []activities.TablePosition{{OID: 1, Position: "1/0/A/1"}}}, nil)
	})
	w.at(2*time.Second, func() { w.full() })
	_, next := w.again(workflows.DatabaseInput{Config: shop})
	if string(next.State.Resume) != "[9]" || next.State.Worker != "w1" || next.State.Tables[0].At != "1/0/A/1" {
		t.Errorf("state %+v", next.State)
	}
}

func TestARequestThatWaitsPutsTheNewRunOffButNotForEver(t *testing.T) {
	w := newWorld(t)
	var waited *request[workflows.Waited]
	w.at(time.Second, func() {
		waited = ask[workflows.Waited](w, workflows.Wait, "1", workflows.WaitInput{Until: workflows.UntilCaughtUp, Timeout: time.Hour})
	})
	w.at(2*time.Second, func() { w.full() })
	w.at(5*time.Minute, func() {
		if waited.done {
			t.Errorf("answered: %+v", waited)
		}
		w.phase(workflows.Running, "")
		w.overfull()
	})
	w.again(workflows.DatabaseInput{Config: shop})
	if !waited.done || waited.err != nil || !waited.out.Again || waited.out.Reached {
		t.Errorf("answer %+v", waited)
	}
}

func TestAnotherPoolServesTheWorkflowTooOnceItIsApplied(t *testing.T) {
	w := newWorld(t)
	large := shop
	large.Pool = "large"
	w.at(time.Second, func() { w.signal(workflows.Apply, workflows.ApplyInput{Config: large}) })
	queue, next := w.again(workflows.DatabaseInput{Config: shop})
	if queue != "millrace.local.large.control" || next.State.Phase != workflows.Preparing || next.State.Config.Pool != "large" {
		t.Errorf("queue %s, state %+v", queue, next.State)
	}
	if n := len(w.of("Prepare")); n != 1 {
		t.Errorf("prepared %d times on the old queue", n)
	}
}

func TestARemovalThatTakesLongContinuesAsNew(t *testing.T) {
	w := newWorld(t)
	w.drop = func(activities.DropInput) (activities.DropResult, error) {
		return activities.DropResult{}, retries("SOURCE_UNREACHABLE")
	}
	w.at(time.Second, func() { w.remove() })
	w.at(time.Minute, func() { w.full() })
	_, next := w.again(workflows.DatabaseInput{Config: shop})
	if next.State.Phase != workflows.Removing || next.State.Remove == nil {
		t.Fatalf("state %+v", next.State)
	}
	w = newWorld(t)
	w.env.ExecuteWorkflow(workflows.DatabaseWorkflow, next)
	if err := w.env.GetWorkflowError(); err != nil || len(w.of("Drop")) != 1 {
		t.Fatalf("ended with %v after %d attempts", err, len(w.of("Drop")))
	}
}

func TestAPreparationThatFailsForLongContinuesAsNew(t *testing.T) {
	w := newWorld(t)
	w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
		return activities.PrepareResult{}, retries("SOURCE_UNREACHABLE")
	}
	w.at(time.Minute, func() { w.full() })
	_, next := w.again(workflows.DatabaseInput{Config: shop})
	if next.State.Phase != workflows.Preparing {
		t.Errorf("state %+v", next.State)
	}
}

func TestWhatAParkedTableLacksIsReadAgain(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() {
		w.end("Commit", activities.LaneResult{Worker: "", Resume: []byte(`[1]`)}, nil)
		w.signal(activities.SignalTables, activities.TablesChanged{Tables: []activities.TableChange{
			{OID: 1, Reason: &activities.Reason{Code: "MALFORMED_VALUE", Message: "a date", Remedy: "millrace resume {db}"}},
		}})
	})
	w.at(2*time.Second, func() {
		if a := w.table("public.a"); a.Phase != workflows.Parked || a.Reason.Remedy != "millrace resume shop" {
			t.Errorf("table %+v, reason %+v", a, a.Reason)
		}
		if in := last[activities.CommitInput](w); string(in.Resume) != "[1]" {
			t.Errorf("resumes at %s", in.Resume)
		}
		// The lane has gone past what the table lacks, and says so as it ends.
		w.signal(workflows.Resume, workflows.ResumeInput{})
		w.end("Commit", activities.LaneResult{Resume: []byte(`[2]`)}, nil)
	})
	w.at(3*time.Second, func() {
		if in := last[activities.CommitInput](w); in.Resume != nil || len(in.Parked) != 0 {
			t.Errorf("resumes at %s, without %v", in.Resume, in.Parked)
		}
		if a := w.table("public.a"); a.Phase != workflows.Live || a.Reason != nil {
			t.Errorf("table %+v", a)
		}
		w.remove()
	})
	w.run()
}

func TestAParkedTableIsLeftOutByTheNextCommitLane(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() {
		w.signal(activities.SignalTables, activities.TablesChanged{Tables: []activities.TableChange{
			{OID: 1, Reason: &activities.Reason{Code: "KAFKA_GAP", Message: "gone", Since: "then"}},
		}})
		w.signal(activities.SignalTables, activities.TablesChanged{Tables: []activities.TableChange{
			{OID: 1, Reason: &activities.Reason{Code: "KAFKA_GAP", Message: "gone", Since: "now"}},
			{OID: 1, Phase: "live"},
		}})
	})
	w.at(2*time.Second, func() {
		if a := w.table("public.a"); a.Phase != workflows.Parked || a.Reason.Since != "then" {
			t.Errorf("table %+v, reason %+v", a, a.Reason)
		}
		w.phase(workflows.Running, "")
		w.end("Commit", activities.LaneResult{}, nil)
	})
	w.at(3*time.Second, func() {
		if in := last[activities.CommitInput](w); len(in.Parked) != 1 || in.Parked[0] != 1 {
			t.Errorf("parked %v", in.Parked)
		}
		w.remove()
	})
	w.run()
}

func TestTablesThatAppearAndVanishAreFollowed(t *testing.T) {
	w := newWorld(t)
	w.scan = func(in activities.ScanInput) (activities.ScanResult, error) {
		if len(in.Known) == 1 && in.Known[0].OID == 1 {
			return activities.ScanResult{
				Found: []activities.TableInfo{{OID: 2, Name: "public.b", Phase: "live", Position: "1/0/5/1"}},
				Gone:  []uint32{1},
			}, nil
		}
		return activities.ScanResult{}, nil
	}
	w.at(time.Minute, func() {
		if a, b := w.table("public.a"), w.table("public.b"); a.Phase != workflows.Gone || b.Phase != workflows.Live || b.Position != "1/0/5/1" {
			t.Errorf("tables %+v, %+v", a, b)
		}
		if in := last[activities.ScanInput](w); len(in.Known) != 1 || in.Known[0].OID != 2 {
			t.Errorf("known %v", in.Known)
		}
		w.remove()
	})
	w.run()
}

func TestTablesThatTheConfigurationLeavesOutAreGone(t *testing.T) {
	w := newWorld(t)
	less := shop
	less.Tables = []string{"public.b"}
	w.at(time.Second, func() {
		w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
			return prepared(activities.TableInfo{OID: 2, Name: "public.b", Phase: "live"}), nil
		}
		w.signal(workflows.Apply, workflows.ApplyInput{Config: less, Yes: true})
	})
	w.at(2*time.Second, func() {
		if a := w.table("public.a"); a.Phase != workflows.Gone {
			t.Errorf("table %+v", a)
		}
		w.remove()
	})
	w.run()
}
