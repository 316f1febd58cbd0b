package workflows_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/workflows"
)

// turn is something that happens to public.a, and the phase that follows.
type turn struct {
	do   func(*world)
	want workflows.Phase
}

// copyTells has the running copy report a phase.
func copyTells(phase workflows.Phase) func(*world) {
	return func(w *world) {
		id := w.copied[len(w.copied)-1].ID
		w.signal(activities.SignalTables, activities.TablesChanged{Copy: id, Tables: []activities.TableChange{{OID: 1, Phase: string(phase)}}})
	}
}

// copyEnds has the running copy end.
func copyEnds(w *world) {
	w.signal(activities.SignalTables, activities.TablesChanged{Copy: w.copied[len(w.copied)-1].ID, Ended: true})
}

// laneFails has the commit lane report that the table cannot go on.
func laneFails(code activities.Code) func(*world) {
	return func(w *world) {
		w.signal(activities.SignalTables, activities.TablesChanged{Tables: []activities.TableChange{{OID: 1, Reason: &activities.Reason{Code: code, Message: "no"}}}})
	}
}

// once makes the next scan answer so, and the others find nothing.
func once(r activities.ScanResult) func(*world) {
	return func(w *world) {
		w.scan = func(activities.ScanInput) (activities.ScanResult, error) {
			out := r
			r = activities.ScanResult{}
			return out, nil
		}
	}
}

// sees makes the next scan find the table so.
func sees(phase workflows.Phase) func(*world) {
	info := activities.TableInfo{OID: 1, Name: "public.a", Phase: string(phase), Position: "1/0/1/1"}
	if phase == workflows.Parked {
		info.Reason = &activities.Reason{Code: "TABLE_PRIVILEGE", Message: "may not read it"}
	}
	return once(activities.ScanResult{Found: []activities.TableInfo{info}})
}

// vanishes makes the next scan miss the table.
func vanishes(w *world) { once(activities.ScanResult{Gone: []uint32{1}})(w) }

// asks sends a request for the table alone.
func asks(name string) func(*world) {
	return func(w *world) { w.signal(name, map[string]any{"tables": []string{"public.a"}}) }
}

// tells sends a request for the database.
func tells(name string) func(*world) { return func(w *world) { w.signal(name, nil) } }

// both does one thing after another.
func both(first, second func(*world)) func(*world) {
	return func(w *world) { first(w); second(w) }
}

// TestATableGoesFromPhaseToPhase takes the arrows that no other test is about.
// Every turn has twenty seconds, in which the source is scanned.
func TestATableGoesFromPhaseToPhase(t *testing.T) {
	const waiting, copying, catchingUp, live, paused, parked, gone = workflows.Waiting, workflows.Copying,
		workflows.CatchingUp, workflows.Live, workflows.Paused, workflows.Parked, workflows.Gone
	for name, story := range map[string]struct {
		begins workflows.Phase
		turns  []turn
	}{
		"a copy that starts over": {waiting, []turn{
			{nil, copying}, {copyTells(catchingUp), catchingUp}, {copyTells(copying), copying}, {copyTells(catchingUp), catchingUp}, {copyTells(live), live},
		}},
		"a copy that ends early":            {waiting, []turn{{copyTells(catchingUp), catchingUp}, {copyEnds, copying}}},
		"a copy whose end was not heard of": {waiting, []turn{{sees(live), live}, {copyTells(copying), live}}},
		"the same while it catches up":      {waiting, []turn{{copyTells(catchingUp), catchingUp}, {sees(live), live}}},
		"a copied table that vanishes":      {waiting, []turn{{vanishes, gone}, {copyTells(live), gone}}},
		"one that catches up and vanishes":  {waiting, []turn{{copyTells(catchingUp), catchingUp}, {vanishes, gone}}},
		"one that catches up and fails":     {waiting, []turn{{copyTells(catchingUp), catchingUp}, {laneFails("RECORD_TOO_LARGE"), parked}, {copyTells(live), parked}}},
		"one that catches up and is paused": {waiting, []turn{
			{copyTells(catchingUp), catchingUp}, {asks(workflows.Pause), paused}, {copyTells(live), paused}, {both(sees(live), asks(workflows.Resume)), live},
		}},
		"a copied table that is paused":  {waiting, []turn{{asks(workflows.Pause), paused}, {copyTells(catchingUp), paused}, {both(sees(waiting), asks(workflows.Resume)), copying}}},
		"a paused table":                 {live, []turn{{asks(workflows.Pause), paused}, {laneFails("KAFKA_GAP"), paused}, {sees(waiting), paused}, {both(sees(live), tells(workflows.Resume)), live}}},
		"a paused table that vanishes":   {live, []turn{{asks(workflows.Pause), paused}, {vanishes, gone}}},
		"a resumed table that vanished":  {live, []turn{{asks(workflows.Pause), paused}, {both(once(activities.ScanResult{}), asks(workflows.Resume)), gone}}},
		"a parked table that vanishes":   {live, []turn{{laneFails("KAFKA_GAP"), parked}, {vanishes, gone}}},
		"a parked table that is resumed": {live, []turn{{laneFails("MALFORMED_VALUE"), parked}, {both(sees(parked), asks(workflows.Resume)), parked}, {both(sees(live), asks(workflows.Unpark)), live}}},
		"one that fails twice":           {live, []turn{{laneFails("KAFKA_GAP"), parked}, {laneFails("TABLE_RENAMED"), parked}}},
		"a table that comes back":        {live, []turn{{vanishes, gone}, {sees(waiting), copying}, {vanishes, gone}, {sees(live), live}, {vanishes, gone}, {sees(parked), parked}}},
		"a table of a paused database": {waiting, []turn{
			{tells(workflows.Pause), waiting}, {asks(workflows.Pause), paused}, {asks(workflows.Resume), waiting}, {laneFails("RECORD_TOO_LARGE"), parked},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
				return prepared(activities.TableInfo{OID: 1, Name: "public.a", Phase: string(story.begins)}), nil
			}
			for i, turn := range story.turns {
				at := time.Duration(i+1) * 20 * time.Second
				w.at(at, func() {
					if turn.do != nil {
						turn.do(w)
					}
				})
				w.at(at+19*time.Second, func() {
					if have := w.table("public.a"); have.Phase != turn.want {
						t.Errorf("turn %d: %s, want %s; reason %+v; events %+v", i+1, have.Phase, turn.want, have.Reason, w.events())
					}
				})
			}
			w.at(time.Duration(len(story.turns)+1)*20*time.Second, w.remove)
			w.run()
		})
	}
}

func TestATableThatWaitsAndVanishesIsGone(t *testing.T) {
	w := newWorld(t)
	w.prepare = func(in activities.PrepareInput) (activities.PrepareResult, error) {
		if in.Epoch == 0 {
			return prepared(activities.TableInfo{OID: 1, Name: "public.a", Phase: "waiting"}), nil
		}
		return prepared(), nil
	}
	w.at(time.Second, func() { w.signal(workflows.Pause, nil) })
	w.at(time.Minute, func() {
		if a := w.table("public.a"); a.Phase != workflows.Waiting {
			t.Errorf("table %+v", a)
		}
		w.signal(workflows.Resume, nil)
	})
	w.at(2*time.Minute, func() {
		if a := w.table("public.a"); a.Phase != workflows.Gone {
			t.Errorf("table %+v", a)
		}
		w.remove()
	})
	w.run()
}

func TestRequestsBeginAPreparationThatFailsAnew(t *testing.T) {
	other := shop
	other.Freshness = new(7 * time.Second)
	for name, ask := range map[string]func(*world){
		"resume": tells(workflows.Resume),
		"apply":  func(w *world) { w.signal(workflows.Apply, workflows.ApplyInput{Config: other}) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			prepare := w.prepare
			w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
				return activities.PrepareResult{}, retries("SOURCE_UNREACHABLE")
			}
			w.at(10*time.Minute, func() {
				w.phase(workflows.Preparing, "SOURCE_UNREACHABLE")
				w.prepare = prepare
				ask(w)
			})
			w.at(10*time.Minute+time.Second, func() { // before its pause would have ended
				w.phase(workflows.Running, "")
				w.remove()
			})
			w.run()
		})
	}
}

func TestAPausedDatabaseParksWhenItsCaptureCannotGoOn(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() { w.signal(workflows.Pause, nil) })
	w.at(2*time.Second, func() { w.end("Capture", activities.LaneResult{}, parks("SLOT_LOST")) })
	w.at(3*time.Second, func() {
		w.phase(workflows.Parked, "SLOT_LOST")
		w.signal(workflows.Apply, workflows.ApplyInput{Config: shop}) // what is parked is tried again
	})
	w.at(4*time.Second, func() {
		w.phase(workflows.Running, "")
		w.remove()
	})
	w.run()
}

func TestEventsSayWhatHappenedWhenAndWhy(t *testing.T) {
	w := newWorld(t)
	w.at(time.Second, func() { laneFails("KAFKA_GAP")(w) })
	w.at(2*time.Second, func() { w.end("Capture", activities.LaneResult{}, parks("SLOT_LOST")) })
	w.at(3*time.Second, func() {
		var have []string
		for _, e := range w.events() {
			if _, err := time.Parse(time.RFC3339, e.At); err != nil {
				t.Error(err)
			}
			have = append(have, strings.Join([]string{e.Table, string(e.From), string(e.To), string(e.Code), e.By}, " "))
		}
		want := []string{
			"  preparing  apply", "public.a  live  prepare", " preparing running  prepare",
			"public.a live parked KAFKA_GAP commit", " running parked SLOT_LOST capture",
		}
		if !slices.Equal(have, want) {
			t.Errorf("events\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
		}
		w.remove()
	})
	w.run()
}
