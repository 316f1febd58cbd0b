package workflows_test

import (
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/workflows"
)

func TestABlockedPreparationParksWithItsReasonAndResumesByRequest(t *testing.T) {
	w := newWorld(t)
	prepare := w.prepare
	w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
		return activities.PrepareResult{}, parks("WAL_LEVEL")
	}
	w.at(time.Second, func() {
		w.phase(workflows.Parked, "WAL_LEVEL")
		if r := w.status().Reason; r.Remedy != "mend it\nmillrace resume shop" || r.Since == "" {
			t.Errorf("reason %+v", r)
		}
		w.prepare = prepare
		w.signal(workflows.Resume, workflows.ResumeInput{})
	})
	w.at(2*time.Second, func() {
		w.phase(workflows.Running, "")
		w.remove()
	})
	w.run()
}

func TestATemporaryFailureOfThePreparationIsShownAndTriedAgain(t *testing.T) {
	w := newWorld(t)
	prepare := w.prepare
	w.prepare = func(in activities.PrepareInput) (activities.PrepareResult, error) {
		if len(w.of("Prepare")) < 3 {
			return activities.PrepareResult{}, retries("SOURCE_UNREACHABLE")
		}
		return prepare(in)
	}
	var since string
	w.at(500*time.Millisecond, func() {
		w.phase(workflows.Preparing, "SOURCE_UNREACHABLE")
		since = w.status().Reason.Since
	})
	w.at(2*time.Second, func() {
		w.phase(workflows.Preparing, "SOURCE_UNREACHABLE")
		if now := w.status().Reason.Since; now != since {
			t.Errorf("since %s, was %s", now, since)
		}
	})
	w.at(5*time.Second, func() {
		w.phase(workflows.Running, "")
		w.remove()
	})
	w.run()
}

func TestTheFirstApplyPreparesOnce(t *testing.T) {
	w := newWorld(t)
	w.at(0, func() { w.signal(workflows.Apply, workflows.ApplyInput{Config: shop}) })
	w.at(time.Second, func() {
		if n := len(w.of("Prepare")); n != 1 {
			t.Errorf("prepared %d times", n)
		}
		w.remove()
	})
	w.run()
}

func TestARunningDatabaseHasItsLanesOnTheQueuesOfItsPool(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() {
		c, m := w.of("Capture"), w.of("Commit")
		if len(c) != 1 || len(m) != 1 || c[0].queue != "millrace.local.default.capture" || m[0].queue != "millrace.local.default.commit" {
			t.Fatalf("capture %v, commit %v", c, m)
		}
		if in := last[activities.CaptureInput](w); in.Epoch != 1 || in.SystemID != "s" || in.Timeline != 1 {
			t.Errorf("capture of %+v", in)
		}
		w.remove()
	})
	w.run()
}

func TestTheCommitLaneIsOfferedToTheWorkerThatServedItFirst(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() {
		w.end("Commit", activities.LaneResult{Worker: "w1", Resume: []byte(`[1]`)}, nil)
	})
	w.at(2*time.Second, func() {
		c := w.of("Commit")
		if got := c[len(c)-1].queue; got != "millrace.local.default.commit.@w1" {
			t.Errorf("offered to %s", got)
		}
		if in := last[activities.CommitInput](w); string(in.Resume) != "[1]" {
			t.Errorf("resumes at %s", in.Resume)
		}
		w.fetched = func(queue string) bool { return !strings.Contains(queue, "@") }
		w.end("Commit", activities.LaneResult{Worker: "w1"}, nil)
	})
	w.at(4*time.Second, func() {
		c := w.of("Commit")
		if got := c[len(c)-1].queue; got != "millrace.local.default.commit" {
			t.Errorf("then to %s", got)
		}
		w.end("Commit", activities.LaneResult{Worker: "w2", Stopping: true}, nil)
	})
	w.at(5*time.Second, func() {
		c := w.of("Commit")
		if got := c[len(c)-1].queue; got != "millrace.local.default.commit" {
			t.Errorf("after a worker that stops, to %s", got)
		}
		w.remove()
	})
	w.run()
}

func TestALanesFailureIsShownUntilItGetsOnAgain(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() { w.end("Capture", activities.LaneResult{}, retries("KAFKA_UNREACHABLE")) })
	w.at(1500*time.Millisecond, func() { w.phase(workflows.Running, "KAFKA_UNREACHABLE") })
	w.at(3*time.Second, func() {
		w.phase(workflows.Running, "KAFKA_UNREACHABLE") // it runs, but has not got on
		w.signal(activities.SignalLane, activities.LaneReport{Lane: workflows.LaneCommit, Worker: "w2"})
	})
	w.at(4*time.Second, func() {
		w.phase(workflows.Running, "KAFKA_UNREACHABLE") // another lane's report
		w.signal(activities.SignalLane, activities.LaneReport{Lane: workflows.LaneCapture, Worker: "w1"})
	})
	w.at(5*time.Second, func() {
		w.phase(workflows.Running, "")
		if got := w.status().Workers; len(got) != 2 || got[0] != "w1" || got[1] != "w2" {
			t.Errorf("workers %v", got)
		}
		w.remove()
	})
	w.run()
}

func TestALaneThatFailsForGoodParksTheDatabase(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() { w.end("Capture", activities.LaneResult{}, parks("SLOT_LOST")) })
	w.at(2*time.Second, func() {
		w.phase(workflows.Parked, "SLOT_LOST")
		if w.running["Commit"] == nil {
			t.Error("commit was never started")
		}
		if n := len(w.of("Commit")); n != 1 {
			t.Errorf("commit was started %d times", n)
		}
	})
	w.at(time.Minute, func() {
		if n := len(w.of("Capture")); n != 1 {
			t.Errorf("capture was started %d times", n)
		}
		w.remove()
	})
	w.run()
}

func TestAQueueThatNobodyServesIsNamed(t *testing.T) {
	w := newWorld(t)
	w.fetched = func(queue string) bool { return queue != "millrace.local.default.capture" }
	w.at(time.Second, func() {
		w.phase(workflows.Running, activities.CodeNoWorker)
		if r := w.status().Reason; !strings.Contains(r.Message, "millrace.local.default.capture") || r.Remedy == "" {
			t.Errorf("reason %+v", r)
		}
		w.fetched = func(string) bool { return true }
	})
	w.at(time.Minute, func() {
		w.signal(activities.SignalLane, activities.LaneReport{Lane: workflows.LaneCapture, Worker: "w1"})
	})
	w.at(61*time.Second, func() {
		w.phase(workflows.Running, "")
		w.remove()
	})
	w.run()
}

func TestALostWorkerIsShownOnlyWhenItHappensAgainAndAgain(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() { w.end("Capture", activities.LaneResult{}, lost()) })
	w.at(2*time.Second, func() {
		w.phase(workflows.Running, "")
		w.end("Capture", activities.LaneResult{}, lost())
	})
	w.at(5*time.Second, func() {
		w.phase(workflows.Running, "")
		w.end("Capture", activities.LaneResult{}, lost())
	})
	w.at(6*time.Second, func() {
		w.phase(workflows.Running, activities.CodeWorkerLost)
		w.remove()
	})
	w.run()
}

func TestALaneThatLosesWorkersIsSoonTriedAgain(t *testing.T) {
	w := newWorld(t)
	const losses = 8
	for n := 1; n <= losses; n++ { // a worker is found to be lost after 3 s
		w.at(time.Duration(4*n)*time.Second, func() {
			if started := len(w.of("Capture")); started != n {
				t.Errorf("capture was started %d times, want %d", started, n)
			}
			w.end("Capture", activities.LaneResult{}, lost())
		})
	}
	w.at((4*losses+1)*time.Second, w.remove)
	w.run()
}

func TestAnAppliedConfigurationReachesTheLanes(t *testing.T) {
	w := newWorld(t)
	cast := shop
	cast.Rules = []fleet.Rule{{Tables: []string{"public.a"}, Options: fleet.Options{Casts: map[string]string{"c": "string"}}}}
	var applied *request[workflows.Accepted]
	w.at(time.Second, func() { applied = ask[workflows.Accepted](w, workflows.Apply, "1", workflows.ApplyInput{Config: cast}) })
	w.at(2*time.Second, func() {
		if !applied.done || applied.err != nil || applied.out.Phase != workflows.Preparing {
			t.Errorf("apply: %+v", applied)
		}
		w.phase(workflows.Running, "")
		if n := len(w.of("Prepare")); n != 2 {
			t.Errorf("prepared %d times", n)
		}
		if in := last[activities.CommitInput](w); len(in.DB.Rules) != 1 {
			t.Errorf("commit by %+v", in.DB)
		}
		if in := last[activities.CaptureInput](w); len(in.DB.Rules) != 1 {
			t.Errorf("capture by %+v", in.DB)
		}
		applied = ask[workflows.Accepted](w, workflows.Apply, "2", workflows.ApplyInput{Config: cast})
	})
	w.at(3*time.Second, func() {
		if n := len(w.of("Prepare")); n != 2 || applied.out.Phase != workflows.Running {
			t.Errorf("the same configuration: prepared %d times, %+v", n, applied)
		}
		w.remove()
	})
	w.run()
}

func TestAConfigurationOfAnotherDatabaseIsRefused(t *testing.T) {
	w := newWorld(t)
	other := shop
	other.Name = "other"
	var asked, empty *request[workflows.Accepted]
	w.at(time.Second, func() {
		asked = ask[workflows.Accepted](w, workflows.Apply, "1", workflows.ApplyInput{Config: other})
		empty = ask[workflows.Accepted](w, workflows.Apply, "2", workflows.ApplyInput{})
		w.signal(workflows.Apply, workflows.ApplyInput{Config: other})
		w.signal(workflows.Pause, "not a struct")
	})
	w.at(2*time.Second, func() {
		if asked.rejected == nil || empty.rejected == nil {
			t.Errorf("accepted: %+v, %+v", asked, empty)
		}
		w.phase(workflows.Running, "")
		s := w.status()
		if n := len(s.Requests); n != 2 || !strings.HasPrefix(s.Requests[0].Outcome, "refused: ") || !strings.HasPrefix(s.Requests[1].Outcome, "refused: ") {
			t.Errorf("requests %+v", s.Requests)
		}
		w.remove()
	})
	w.run()
}

func TestAWorkflowWithoutConfigurationFails(t *testing.T) {
	w := newWorld(t)
	w.env.ExecuteWorkflow(workflows.DatabaseWorkflow, workflows.DatabaseInput{})
	if err := w.env.GetWorkflowError(); err == nil || !strings.Contains(err.Error(), "name, region and pool are required") {
		t.Fatalf("ended with %v", err)
	}
}

func TestAPauseStopsAllButCapture(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() { w.signal(workflows.Pause, workflows.PauseInput{}) })
	w.at(2*time.Second, func() {
		w.phase(workflows.Paused, "")
		w.end("Capture", activities.LaneResult{}, nil) // a time box
	})
	w.at(3*time.Second, func() {
		if c, m := len(w.of("Capture")), len(w.of("Commit")); c != 2 || m != 1 {
			t.Errorf("%d captures, %d commits", c, m)
		}
		w.signal(workflows.Pause, workflows.PauseInput{Capture: true})
	})
	w.at(time.Minute, func() {
		if c := len(w.of("Capture")); c != 2 {
			t.Errorf("%d captures", c)
		}
		w.signal(workflows.Resume, workflows.ResumeInput{})
	})
	w.at(61*time.Second, func() {
		w.phase(workflows.Running, "")
		if c, m := len(w.of("Capture")), len(w.of("Commit")); c != 3 || m != 2 {
			t.Errorf("after the resumption %d captures, %d commits", c, m)
		}
		w.remove()
	})
	w.run()
}

func TestAPauseBeforeTheFirstPreparationStartsNothing(t *testing.T) {
	w := newWorld(t)
	prepare := w.prepare
	w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
		return activities.PrepareResult{}, retries("SOURCE_UNREACHABLE")
	}
	w.at(500*time.Millisecond, func() { w.signal(workflows.Pause, workflows.PauseInput{}) })
	w.at(time.Minute, func() {
		w.phase(workflows.Paused, "")
		if n := len(w.of("Prepare")); n != 1 || len(w.of("Capture")) != 0 {
			t.Errorf("prepared %d times, captures %d", n, len(w.of("Capture")))
		}
		w.prepare = prepare
		w.signal(workflows.Resume, workflows.ResumeInput{})
	})
	w.at(61*time.Second, func() {
		w.phase(workflows.Running, "")
		w.remove()
	})
	w.run()
}

func TestANewConfigurationWhilePausedRestartsCaptureAlone(t *testing.T) {
	w := newWorld(t)
	fresh := shop
	fresh.Freshness = new(7 * time.Second)
	w.at(time.Second, func() { w.signal(workflows.Pause, workflows.PauseInput{}) })
	w.at(2*time.Second, func() { w.signal(workflows.Apply, workflows.ApplyInput{Config: fresh}) })
	w.at(3*time.Second, func() {
		w.phase(workflows.Paused, "")
		if in := last[activities.CaptureInput](w); *in.DB.Freshness != *fresh.Freshness || len(w.of("Commit")) != 1 || len(w.of("Prepare")) != 1 {
			t.Errorf("capture by %+v", in.DB)
		}
		w.remove()
	})
	w.run()
}

func TestAPausedDatabaseThatWasParkedRunsNothing(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() { w.end("Capture", activities.LaneResult{}, parks("SLOT_LOST")) })
	w.at(2*time.Second, func() { w.signal(workflows.Pause, workflows.PauseInput{}) })
	w.at(time.Minute, func() {
		w.phase(workflows.Paused, "SLOT_LOST")
		if n := len(w.of("Capture")); n != 1 {
			t.Errorf("%d captures", n)
		}
		w.remove()
	})
	w.run()
}

func TestARemovalEndsTheMirrorInEveryPhase(t *testing.T) {
	for name, reach := range map[string]func(*world){
		"preparing": func(w *world) {
			w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
				return activities.PrepareResult{}, retries("SOURCE_UNREACHABLE")
			}
		},
		"running": func(*world) {},
		"paused":  func(w *world) { w.at(time.Second, func() { w.signal(workflows.Pause, workflows.PauseInput{}) }) },
		"parked": func(w *world) {
			w.at(time.Second, func() { w.end("Capture", activities.LaneResult{}, parks("SLOT_LOST")) })
		},
		"copying": func(w *world) {
			w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
				return prepared(activities.TableInfo{OID: 1, Name: "public.a", Phase: "waiting"}), nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			reach(w)
			var removed *request[workflows.Removed]
			w.at(2*time.Second, func() { removed = ask[workflows.Removed](w, workflows.Remove, "1", workflows.RemoveInput{}) })
			w.run()
			if !removed.done || removed.err != nil || len(removed.out.Dropped) != 1 {
				t.Errorf("answer %+v", removed)
			}
			if n := len(w.of("Drop")); n != 1 {
				t.Errorf("dropped %d times", n)
			}
		})
	}
}

func TestALaneThatParksDoesNotUndoARemoval(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() {
		w.remove()
		w.end("Capture", activities.LaneResult{}, parks("SLOT_LOST"))
	})
	w.run()
	if n := len(w.of("Drop")); n != 1 {
		t.Errorf("dropped %d times", n)
	}
}

func TestARemovalGoesOnUntilTheSourceAnswersUnlessItIsForced(t *testing.T) {
	w := newWorld(t)
	w.drop = func(activities.DropInput) (activities.DropResult, error) {
		return activities.DropResult{}, retries("SOURCE_UNREACHABLE")
	}
	var patient, forced *request[workflows.Removed]
	w.at(time.Second, func() { patient = ask[workflows.Removed](w, workflows.Remove, "1", workflows.RemoveInput{}) })
	w.at(time.Minute, func() {
		w.phase(workflows.Removing, "SOURCE_UNREACHABLE")
		if patient.done {
			t.Errorf("answered: %+v", patient)
		}
		forced = ask[workflows.Removed](w, workflows.Remove, "2", workflows.RemoveInput{Force: true})
	})
	w.run()
	for _, r := range []*request[workflows.Removed]{patient, forced} {
		if !r.done || r.err != nil || len(r.out.Left) != 3 {
			t.Errorf("answer %+v", r)
		}
	}
}

func TestACancelledWorkflowEndsWithoutDropping(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() { w.env.CancelWorkflow() })
	w.env.ExecuteWorkflow(workflows.DatabaseWorkflow, workflows.DatabaseInput{Config: shop})
	if err := w.env.GetWorkflowError(); err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("ended with %v", err)
	}
	if n := len(w.of("Drop")); n != 0 {
		t.Errorf("dropped %d times", n)
	}
}
