package workflows_test

import (
	"testing"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/workflows"
)

// copyID is the first copy of the database under test.
const copyID = shopID + "/copy/1-1"

// copies puts a table that waits beside the one that is live, and records the
// copies that are started and the tables that they are given later.
func (w *world) copies() (started *[]workflows.CopyInput, more *[]workflows.CopyTable) {
	started, more = new([]workflows.CopyInput), new([]workflows.CopyTable)
	w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
		return prepared(
			activities.TableInfo{OID: 1, Name: "public.a", Phase: "live"},
			activities.TableInfo{OID: 2, Name: "public.b", Phase: "waiting"},
		), nil
	}
	w.copy = func(ctx workflow.Context, in workflows.CopyInput) error {
		*started = append(*started, in)
		workflow.Go(ctx, func(ctx workflow.Context) {
			for {
				var tables []workflows.CopyTable
				workflow.GetSignalChannel(ctx, "more").Receive(ctx, &tables)
				*more = append(*more, tables...)
			}
		})
		return workflow.Sleep(ctx, 24*time.Hour)
	}
	return started, more
}

func TestTablesThatWaitAreCopiedByAWorkflowThatReports(t *testing.T) {
	w := newWorld(t)
	started, more := w.copies()
	w.at(time.Second, func() {
		if len(*started) != 1 || (*started)[0].ID != copyID || (*started)[0].Parent != shopID || len((*started)[0].Tables) != 1 {
			t.Fatalf("started %+v", *started)
		}
		w.signal(activities.SignalTables, activities.TablesChanged{Copy: copyID, Tables: []activities.TableChange{{OID: 2, RowsCopied: 5}}})
		w.scan = func(in activities.ScanInput) (activities.ScanResult, error) {
			if in.Copy != copyID || len(in.Known) > 2 {
				return activities.ScanResult{}, nil
			}
			return activities.ScanResult{Found: []activities.TableInfo{{OID: 3, Name: "public.c", Phase: "waiting"}}}, nil
		}
	})
	w.at(time.Minute, func() {
		if b, c := w.table("public.b"), w.table("public.c"); b.Phase != workflows.Copying || b.RowsCopied != 5 || c.Phase != workflows.Copying {
			t.Errorf("tables %+v, %+v", b, c)
		}
		if len(*started) != 1 || len(*more) != 1 || (*more)[0].OID != 3 {
			t.Errorf("%d copies, more %+v", len(*started), *more)
		}
		w.signal(activities.SignalTables, activities.TablesChanged{Copy: copyID, Tables: []activities.TableChange{
			{OID: 2, Phase: "live", RowsCopied: 9}, {OID: 3, Reason: &activities.Reason{Code: "UNREPRESENTABLE_VALUE"}},
		}})
		w.signal(activities.SignalTables, activities.TablesChanged{Copy: copyID, Ended: true})
	})
	w.at(2*time.Minute, func() {
		if b, c := w.table("public.b"), w.table("public.c"); b.Phase != workflows.Live || b.RowsCopied != 9 || c.Phase != workflows.Parked {
			t.Errorf("tables %+v, %+v", b, c)
		}
		if len(*started) != 1 {
			t.Errorf("%d copies", len(*started))
		}
		w.remove()
	})
	w.run()
}

func TestACopyThatEndedEarlyIsFollowedByAnother(t *testing.T) {
	w := newWorld(t)
	started, _ := w.copies()
	w.at(time.Second, func() { w.signal(activities.SignalTables, activities.TablesChanged{Copy: copyID, Ended: true}) })
	w.at(2*time.Second, func() {
		if len(*started) != 2 || (*started)[1].ID != shopID+"/copy/1-2" {
			t.Errorf("started %+v", *started)
		}
		// The first one's last words are void.
		w.signal(activities.SignalTables, activities.TablesChanged{Copy: copyID, Tables: []activities.TableChange{{OID: 2, Phase: "live"}}, Ended: true})
		w.signal(activities.SignalLane, activities.LaneReport{Lane: workflows.LaneCopy, Copy: copyID, Reason: &activities.Reason{Code: "SOURCE_UNREACHABLE"}})
	})
	w.at(3*time.Second, func() {
		if b := w.table("public.b"); b.Phase != workflows.Copying || len(*started) != 2 {
			t.Errorf("table %+v, %d copies", b, len(*started))
		}
		w.phase(workflows.Running, "")
		w.remove()
	})
	w.run()
}

func TestACopyThatVanishedIsFollowedByAnother(t *testing.T) {
	w := newWorld(t)
	started, _ := w.copies()
	w.scan = func(in activities.ScanInput) (activities.ScanResult, error) {
		return activities.ScanResult{CopyGone: in.Copy == copyID}, nil
	}
	w.at(time.Minute, func() {
		if len(*started) != 2 {
			t.Errorf("started %+v", *started)
		}
		w.remove()
	})
	w.run()
}

func TestWhatACopyWaitsForIsShown(t *testing.T) {
	w := newWorld(t)
	w.copies()
	report := func(r *activities.Reason, park bool) {
		w.signal(activities.SignalLane, activities.LaneReport{Lane: workflows.LaneCopy, Copy: copyID, Reason: r, Park: park})
	}
	w.at(time.Second, func() { report(&activities.Reason{Code: "SOURCE_BLOCKED"}, false) })
	w.at(2*time.Second, func() {
		w.phase(workflows.Running, "SOURCE_BLOCKED")
		report(nil, false)
	})
	w.at(3*time.Second, func() {
		w.phase(workflows.Running, "")
		report(&activities.Reason{Code: "SOURCE_AUTH"}, true)
	})
	w.at(4*time.Second, func() {
		w.phase(workflows.Parked, "SOURCE_AUTH")
		w.remove()
	})
	w.run()
}

func TestAPauseEndsTheCopyAndAResumptionStartsAnother(t *testing.T) {
	w := newWorld(t)
	started, _ := w.copies()
	w.at(time.Second, func() { w.signal(workflows.Pause, workflows.PauseInput{}) })
	w.at(2*time.Minute, func() {
		if b := w.table("public.b"); b.Phase != workflows.Waiting || len(*started) != 1 {
			t.Errorf("table %+v, %d copies", b, len(*started))
		}
		w.signal(workflows.Resume, workflows.ResumeInput{})
	})
	w.at(3*time.Minute, func() {
		if b := w.table("public.b"); b.Phase != workflows.Copying || len(*started) != 2 {
			t.Errorf("table %+v, %d copies", b, len(*started))
		}
		w.remove()
	})
	w.run()
}

func TestACopyGoesOnUnderAConfigurationThatDoesNotConcernIt(t *testing.T) {
	w := newWorld(t)
	started, _ := w.copies()
	more, cast := shop, shop
	more.Tables = []string{"public.*", "audit.*"}
	cast.Tables = more.Tables
	cast.Rules = []fleet.Rule{{Tables: []string{"public.b"}, Options: fleet.Options{Casts: map[string]string{"c": "string"}}}}
	w.at(time.Second, func() { w.signal(workflows.Apply, workflows.ApplyInput{Config: more}) })
	w.at(2*time.Second, func() {
		if b := w.table("public.b"); b.Phase != workflows.Copying || len(*started) != 1 {
			t.Errorf("table %+v, %d copies", b, len(*started))
		}
		w.signal(workflows.Apply, workflows.ApplyInput{Config: cast})
		// What it found under the old one is void.
		w.signal(activities.SignalTables, activities.TablesChanged{Copy: copyID, Tables: []activities.TableChange{
			{OID: 2, Reason: &activities.Reason{Code: "UNREPRESENTABLE_VALUE"}},
		}})
	})
	w.at(time.Minute, func() {
		if b := w.table("public.b"); b.Phase != workflows.Copying || len(*started) != 2 || len((*started)[1].Config.Rules) != 1 {
			t.Errorf("table %+v, copies %+v", b, *started)
		}
		w.remove()
	})
	w.run()
}

func TestACopyThatDoesNotEndHoldsNothingUpForLong(t *testing.T) {
	w := newWorld(t)
	w.copies()
	w.copy = func(ctx workflow.Context, _ workflows.CopyInput) error {
		ctx, _ = workflow.NewDisconnectedContext(ctx)
		return workflow.Sleep(ctx, 24*time.Hour)
	}
	w.at(time.Second, func() { w.remove() })
	w.run()
	if n := len(w.of("Drop")); n != 1 {
		t.Errorf("dropped %d times", n)
	}
}

func TestATableThatLostChangesIsCopiedAgainWhenItIsResumed(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() {
		w.signal(activities.SignalTables, activities.TablesChanged{Tables: []activities.TableChange{
			{OID: 1, Reason: &activities.Reason{Code: "KAFKA_GAP", Message: "records are gone"}},
		}})
		w.signal(workflows.Resume, workflows.ResumeInput{})
	})
	w.at(2*time.Second, func() {
		if a := w.table("public.a"); a.Phase != workflows.Copying {
			t.Errorf("table %+v", a)
		}
		// Before the lake knows of the copy, it is interrupted.
		w.signal(workflows.Pause, workflows.PauseInput{})
	})
	w.at(time.Minute, func() { w.signal(workflows.Resume, workflows.ResumeInput{}) })
	w.at(2*time.Minute, func() {
		if a := w.table("public.a"); a.Phase != workflows.Copying {
			t.Errorf("after the pause: table %+v", a)
		}
		w.signal(activities.SignalTables, activities.TablesChanged{Copy: shopID + "/copy/1-2", Tables: []activities.TableChange{{OID: 1, Phase: "live"}}, Ended: true})
		w.signal(workflows.Resume, workflows.ResumeInput{})
	})
	w.at(3*time.Minute, func() {
		if a := w.table("public.a"); a.Phase != workflows.Live {
			t.Errorf("after the copy: table %+v", a)
		}
		w.remove()
	})
	w.run()
}

func TestATableOnOtherGroundIsCopiedAgain(t *testing.T) {
	w := newWorld(t)
	started, _ := w.copies()
	w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
		return prepared(
			activities.TableInfo{OID: 1, Name: "public.a", Phase: "live", Ground: 7},
			activities.TableInfo{OID: 2, Name: "public.b", Phase: "parked", Ground: 5, Reason: &activities.Reason{Code: "TABLE_LOCKED"}},
		), nil
	}
	w.scan = func(in activities.ScanInput) (activities.ScanResult, error) {
		var out activities.ScanResult
		for _, k := range in.Known {
			switch {
			case k.OID == 1 && k.Ground == 7:
				out.Found = append(out.Found, activities.TableInfo{OID: 1, Name: "public.a", Phase: "waiting", Ground: 8})
			case k.OID == 2 && !k.Parked:
				t.Errorf("a parked table is known as %+v", k)
			}
		}
		return out, nil
	}
	w.at(time.Minute, func() {
		if a, b := w.table("public.a"), w.table("public.b"); a.Phase != workflows.Copying || b.Phase != workflows.Parked {
			t.Errorf("tables %+v, %+v", a, b)
		}
		if len(*started) != 1 || len((*started)[0].Tables) != 1 || (*started)[0].Tables[0].OID != 1 {
			t.Errorf("copies %+v", *started)
		}
		w.remove()
	})
	w.run()
}
