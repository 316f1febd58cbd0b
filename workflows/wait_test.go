package workflows_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/workflows"
)

// caughtUp asks to wait until the lake has caught up.
func (w *world) caughtUp(id string, timeout time.Duration) *request[workflows.Waited] {
	return ask[workflows.Waited](w, workflows.Wait, id, workflows.WaitInput{Until: workflows.UntilCaughtUp, Timeout: timeout})
}

// tokens lists the markers that were written.
func (w *world) tokens() []string {
	var tokens []string
	for _, s := range w.of("EmitMarker") {
		tokens = append(tokens, s.input.(activities.MarkerInput).Token)
	}
	return tokens
}

func TestAWaitIsReachedOnceTheLakeHasPassedItsMarker(t *testing.T) {
	w := newWorld(t)
	var waited *request[workflows.Waited]
	w.at(time.Second, func() { waited = w.caughtUp("u", time.Minute) })
	w.at(2*time.Second, func() {
		if waited.done || len(w.tokens()) != 1 {
			t.Errorf("markers %v, answer %+v", w.tokens(), waited)
		}
		w.signal(activities.SignalMarker, "of somebody else")
		w.signal(activities.SignalMarker, w.tokens()[0])
	})
	w.at(3*time.Second, func() {
		if !waited.done || waited.err != nil || !waited.out.Reached {
			t.Errorf("answer %+v", waited)
		}
		w.remove()
	})
	w.run()
}

func TestAMarkerThatIsNotHeardOfIsWrittenAgainUnderAnotherToken(t *testing.T) {
	w := newWorld(t)
	var waited *request[workflows.Waited]
	w.at(time.Second, func() { waited = w.caughtUp("u", time.Hour) })
	w.at(35*time.Second, func() {
		tokens := w.tokens()
		if len(tokens) < 3 || tokens[0] == tokens[1] || tokens[1] == tokens[2] {
			t.Errorf("markers %v", tokens)
		}
		w.signal(activities.SignalMarker, tokens[0]) // the first counts too
	})
	w.at(36*time.Second, func() {
		if !waited.out.Reached {
			t.Errorf("answer %+v", waited)
		}
		w.remove()
	})
	w.run()
}

func TestAWaitBeginsWhenTheDatabaseRuns(t *testing.T) {
	w := newWorld(t)
	prepare := w.prepare
	w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
		return activities.PrepareResult{}, retries("SOURCE_UNREACHABLE")
	}
	var waited *request[workflows.Waited]
	w.at(500*time.Millisecond, func() { waited = w.caughtUp("u", time.Hour) })
	w.at(20*time.Second, func() {
		if len(w.tokens()) != 0 {
			t.Errorf("markers %v", w.tokens())
		}
		w.prepare = prepare
	})
	w.at(time.Minute, func() { w.signal(activities.SignalMarker, w.tokens()[0]) })
	w.at(2*time.Minute, func() {
		if !waited.out.Reached {
			t.Errorf("answer %+v", waited)
		}
		w.remove()
	})
	w.run()
}

func TestAWaitSaysWhatStandsInItsWay(t *testing.T) {
	for name, c := range map[string]struct {
		reach func(*world)
		want  string
	}{
		"paused": {func(w *world) { w.signal(workflows.Pause, workflows.PauseInput{}) }, "database shop is paused: millrace resume shop"},
		"parked": {func(w *world) { w.end("Capture", activities.LaneResult{}, parks("SLOT_LOST")) }, "database shop is parked: SLOT_LOST"},
		"being removed": {func(w *world) {
			w.drop = func(activities.DropInput) (activities.DropResult, error) {
				return activities.DropResult{}, retries("SOURCE_UNREACHABLE")
			}
			w.remove()
		}, "database shop is being removed"},
		"a parked table": {func(w *world) {
			w.signal(activities.SignalTables, activities.TablesChanged{Tables: []activities.TableChange{
				{OID: 1, Reason: &activities.Reason{Code: "KAFKA_GAP", Message: "records are gone"}},
			}})
		}, "table public.a is parked: KAFKA_GAP: records are gone"},
		"a marker that cannot be written": {func(w *world) {
			w.marker = func(activities.MarkerInput) error { return parks("SOURCE_AUTH") }
		}, "SOURCE_AUTH: it cannot go on"},
		"nothing": {func(*world) {}, "the lake has not reached what was committed"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var waited *request[workflows.Waited]
			if name == "a marker that cannot be written" {
				c.reach(w)
			} else {
				w.at(2*time.Second, func() { c.reach(w) })
			}
			w.at(time.Second, func() { waited = w.caughtUp("u", 5*time.Second) })
			w.at(10*time.Second, func() {
				if !waited.done || waited.err != nil || waited.out.Reached || !strings.Contains(waited.out.Why, c.want) {
					t.Errorf("answer %+v, want %q", waited, c.want)
				}
				w.signal(workflows.Remove, workflows.RemoveInput{Force: true})
			})
			w.run()
		})
	}
}

func TestAWaitPastParkedTablesGoesOnForTheOthers(t *testing.T) {
	w := newWorld(t)
	w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
		return prepared(
			activities.TableInfo{OID: 1, Name: "public.a", Phase: "live"},
			activities.TableInfo{OID: 2, Name: "public.b", Phase: "parked", Reason: &activities.Reason{Code: "IDENTITY_MISSING"}},
		), nil
	}
	var waited *request[workflows.Waited]
	w.at(time.Second, func() {
		waited = ask[workflows.Waited](w, workflows.Wait, "u", workflows.WaitInput{Until: workflows.UntilLive, PastParked: true})
	})
	w.at(2*time.Second, func() {
		if !waited.out.Reached {
			t.Errorf("answer %+v", waited)
		}
		w.remove()
	})
	w.run()
}

func TestAWaitWaitsForTablesThatAreBeingCopied(t *testing.T) {
	w := newWorld(t)
	w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
		return prepared(activities.TableInfo{OID: 1, Name: "public.a", Phase: "waiting"}), nil
	}
	var live, caughtUp, late *request[workflows.Waited]
	w.at(time.Second, func() {
		live = ask[workflows.Waited](w, workflows.Wait, "1", workflows.WaitInput{Until: workflows.UntilLive, Timeout: time.Hour})
		late = ask[workflows.Waited](w, workflows.Wait, "3", workflows.WaitInput{Until: workflows.UntilLive, Timeout: time.Second})
		caughtUp = w.caughtUp("2", time.Hour)
	})
	w.at(3*time.Second, func() { w.signal(activities.SignalMarker, w.tokens()[0]) })
	w.at(4*time.Second, func() {
		if live.done || caughtUp.done || !late.done || late.out.Reached || late.out.Why == "" {
			t.Errorf("answers %+v, %+v, %+v", live, caughtUp, late)
		}
		w.signal(activities.SignalTables, activities.TablesChanged{Copy: shopID + "/copy/1-1", Tables: []activities.TableChange{{OID: 1, Phase: "live"}}})
	})
	w.at(5*time.Second, func() {
		if !live.out.Reached || !caughtUp.out.Reached {
			t.Errorf("answers %+v, %+v", live, caughtUp)
		}
		w.remove()
	})
	w.run()
}

func TestAGoalThatIsUnknownIsRefused(t *testing.T) {
	w := newWorld(t)
	var waited *request[workflows.Waited]
	w.at(time.Second, func() {
		waited = ask[workflows.Waited](w, workflows.Wait, "1", workflows.WaitInput{Until: "done"})
	})
	w.at(2*time.Second, func() {
		if waited.rejected == nil || !strings.Contains(waited.rejected.Error(), "caught-up") {
			t.Errorf("answer %+v", waited)
		}
		w.remove()
	})
	w.run()
}

func TestAProofIsAWorkflowOfItsOwn(t *testing.T) {
	w := newWorld(t)
	var all, none *request[workflows.Started]
	w.at(time.Second, func() {
		none = ask[workflows.Started](w, workflows.Verify, "1", workflows.VerifyInput{Tables: []string{"public.none"}})
		all = ask[workflows.Started](w, workflows.Verify, "2", workflows.VerifyInput{})
	})
	w.at(2*time.Second, func() {
		if none.rejected == nil || !all.done || all.err != nil || all.out.WorkflowID != shopID+"/verify/2" {
			t.Errorf("answers %+v, %+v", none, all)
		}
		w.remove()
	})
	w.run()
}

func TestAWaitCoversTablesThatWereMadeBeforeIt(t *testing.T) {
	w := newWorld(t)
	w.scan = func(in activities.ScanInput) (activities.ScanResult, error) {
		if slices.ContainsFunc(in.Known, func(k activities.KnownTable) bool { return k.OID == 9 }) {
			return activities.ScanResult{}, nil
		}
		return activities.ScanResult{Found: []activities.TableInfo{{OID: 9, Name: "public.made", Phase: "waiting"}}}, nil
	}
	var waited *request[workflows.Waited]
	w.at(time.Second, func() { waited = w.caughtUp("u", time.Minute) })
	w.at(2*time.Second, func() {
		w.signal(activities.SignalMarker, w.tokens()[0])
	})
	w.at(3*time.Second, func() {
		if waited.done {
			t.Errorf("the wait ended before the table was live: %+v", waited)
		}
		w.signal(activities.SignalTables, activities.TablesChanged{Copy: shopID + "/copy/1-1", Tables: []activities.TableChange{{OID: 9, Phase: "live"}}})
	})
	w.at(4*time.Second, func() {
		if !waited.done || !waited.out.Reached {
			t.Errorf("answer %+v", waited)
		}
		w.remove()
	})
	w.run()
}
