package workflows_test

import (
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/workflows"
)

func TestANewEpochCopiesEveryTableAgain(t *testing.T) {
	w := newWorld(t)
	w.three()
	first := w.prepare
	w.prepare = func(in activities.PrepareInput) (activities.PrepareResult, error) {
		if !in.Anew {
			return first(in)
		}
		if len(w.of("Prepare")) < 3 {
			return activities.PrepareResult{}, parks("NO_FREE_SLOT") // the request stands
		}
		out := prepared(
			activities.TableInfo{OID: 1, Name: "public.a", Phase: "waiting"},
			activities.TableInfo{OID: 2, Name: "public.b", Phase: "waiting"},
			activities.TableInfo{OID: 3, Name: "public.c", Phase: "waiting"},
		)
		out.Epoch, out.SystemID, out.LSN, out.Floor = 2, "t", 99, []byte(`["floor"]`)
		return out, nil
	}
	w.previews(func(activities.PreviewInput) (activities.PreviewResult, error) {
		return activities.PreviewResult{}, nil
	})
	var asked *request[workflows.Accepted]
	w.at(time.Second, func() {
		w.signal(workflows.Pause, workflows.PauseInput{Tables: []string{"public.c"}})
		w.at(time.Second, func() {
			w.end("Commit", activities.LaneResult{Resume: []byte(`[1]`)}, nil)
			w.end("Capture", activities.LaneResult{}, parks("SLOT_LOST"))
		})
	})
	w.at(3*time.Second, func() {
		v, err := w.env.QueryWorkflow(workflows.Unpark, workflows.UnparkInput{NewEpoch: true})
		var p workflows.UnparkPlan
		if err == nil {
			err = v.Get(&p)
		}
		if err != nil || len(p.Steps) != 4 || p.Steps[0].How != workflows.ByNewEpoch || len(p.Recopied()) != 3 {
			t.Errorf("plan %+v, %v", p, err)
		}
		asked = ask[workflows.Accepted](w, workflows.Unpark, "1", workflows.UnparkInput{NewEpoch: true})
	})
	w.at(4*time.Second, func() {
		if asked.rejected == nil || !strings.Contains(asked.rejected.Error(), "recopy: true permits that") {
			t.Errorf("answer %+v", asked)
		}
		w.phase(workflows.Parked, "SLOT_LOST")
		asked = ask[workflows.Accepted](w, workflows.Unpark, "2", workflows.UnparkInput{NewEpoch: true, Recopy: true})
	})
	w.at(6*time.Second, func() {
		if asked.err != nil {
			t.Errorf("answer %+v", asked)
		}
		w.phase(workflows.Parked, "NO_FREE_SLOT")
		w.signal(workflows.Resume, nil)
	})
	w.at(10*time.Second, func() {
		w.phase(workflows.Running, "")
		if in := last[activities.PrepareInput](w); !in.Anew || in.Epoch != 1 {
			t.Errorf("prepares %+v", in)
		}
		if in := last[activities.CaptureInput](w); in.Epoch != 2 || in.SystemID != "t" {
			t.Errorf("captures %+v", in)
		}
		in := last[activities.CommitInput](w)
		if in.Epoch != 2 || len(in.Recopied) != 3 || in.Recopied[2] != 99 || in.Floor != nil {
			t.Errorf("commits %+v", in)
		}
		if len(w.copied) != 1 || w.copied[0].Epoch != 2 || len(w.copied[0].Tables) != 3 {
			t.Errorf("copies %+v", w.copied)
		}
		w.remove()
	})
	w.run()
}

func TestANewEpochIsBegunOnlyWhereItCanBe(t *testing.T) {
	w := newWorld(t)
	answer := retries("SOURCE_UNREACHABLE")
	w.previews(func(in activities.PreviewInput) (activities.PreviewResult, error) {
		if !in.Anew {
			t.Errorf("asks %+v", in)
		}
		return activities.PreviewResult{Problems: []activities.Problem{
			{Code: "NO_FREE_SLOT", Sentence: "all are taken", Remedy: "drop one", Blocking: true},
		}}, answer
	})
	yes := workflows.UnparkInput{NewEpoch: true, Recopy: true}
	var asked [4]*request[workflows.Accepted]
	w.at(time.Second, func() {
		asked[0] = ask[workflows.Accepted](w, workflows.Unpark, "0", yes)
		asked[1] = ask[workflows.Accepted](w, workflows.Unpark, "1", workflows.UnparkInput{NewEpoch: true, Recopy: true, Tables: []string{"public.a"}})
	})
	w.at(3*time.Second, func() {
		if r := asked[0]; r.err == nil || !strings.Contains(r.err.Error(), "SOURCE_UNREACHABLE") {
			t.Errorf("an unreachable source: %+v", r)
		}
		if r := asked[1]; r.rejected == nil || !strings.Contains(r.rejected.Error(), "leave out the tables") {
			t.Errorf("with tables: %+v", r)
		}
		answer = nil
		asked[2] = ask[workflows.Accepted](w, workflows.Unpark, "2", yes)
	})
	w.at(5*time.Second, func() {
		if r := asked[2]; r.err == nil || !strings.Contains(r.err.Error(), "NO_FREE_SLOT: all are taken; drop one") {
			t.Errorf("no slot: %+v", r)
		}
		w.phase(workflows.Running, "")
		if n := len(w.of("Prepare")); n != 1 {
			t.Errorf("%d preparations", n)
		}
		w.signal(workflows.Pause, nil)
		asked[3] = ask[workflows.Accepted](w, workflows.Unpark, "3", yes)
	})
	w.at(7*time.Second, func() {
		if r := asked[3]; r.rejected == nil || !strings.Contains(r.rejected.Error(), "millrace resume shop") {
			t.Errorf("paused: %+v", r)
		}
		w.end("Commit", activities.LaneResult{}, nil)
		w.remove()
	})
	w.run()
}

func TestATopicThatCannotBeReadIsReadFromTheNewEpochOn(t *testing.T) {
	w := newWorld(t)
	first := w.prepare
	w.prepare = func(in activities.PrepareInput) (activities.PrepareResult, error) {
		out, err := first(in)
		if in.Anew {
			out.Epoch, out.Floor = 2, []byte(`["floor"]`)
			out.Tables[0].Phase = "waiting"
		}
		return out, err
	}
	w.at(time.Second, func() { w.end("Commit", activities.LaneResult{Resume: []byte(`[1]`)}, nil) })
	w.at(2*time.Second, func() { w.end("Commit", activities.LaneResult{}, parks("MALFORMED_RECORD")) })
	w.at(3*time.Second, func() { w.end("Capture", activities.LaneResult{}, nil) })
	w.at(4*time.Second, func() {
		w.signal(workflows.Unpark, workflows.UnparkInput{NewEpoch: true, Recopy: true})
	})
	w.at(6*time.Second, func() {
		w.phase(workflows.Running, "")
		if in := last[activities.CommitInput](w); in.Resume != nil || string(in.Floor) != `["floor"]` {
			t.Errorf("commits %+v", in)
		}
		w.remove()
	})
	w.run()
}
