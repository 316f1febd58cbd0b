package workflows_test

import (
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/workflows"
)

// unparking asks what unparking would do.
func (w *world) unparking(tables ...string) (workflows.UnparkPlan, error) {
	var p workflows.UnparkPlan
	v, err := w.env.QueryWorkflow(workflows.Unpark, workflows.UnparkInput{Tables: tables})
	if err != nil {
		return p, err
	}
	return p, v.Get(&p)
}

// three prepares three live tables.
func (w *world) three() {
	w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
		return prepared(
			activities.TableInfo{OID: 1, Name: "public.a", Phase: "live", Position: "1/0/1/1"},
			activities.TableInfo{OID: 2, Name: "public.b", Phase: "live"},
			activities.TableInfo{OID: 3, Name: "public.c", Phase: "live", Position: "1/0/1/1"},
		), nil
	}
}

// parkTable has a lane park a table.
func (w *world) parkTable(oid uint32, code activities.Code) {
	w.signal(activities.SignalTables, activities.TablesChanged{Tables: []activities.TableChange{{OID: oid, Reason: &activities.Reason{Code: code, Message: "no"}}}})
}

// judges makes scans find every table live that nobody says is known.
func (w *world) judges() {
	w.scan = func(in activities.ScanInput) (activities.ScanResult, error) {
		out := activities.ScanResult{LSN: 77}
		known := map[uint32]bool{}
		for _, k := range in.Known {
			known[k.OID] = true
		}
		for oid, name := range map[uint32]string{1: "public.a", 2: "public.b", 3: "public.c"} {
			if !known[oid] {
				out.Found = append(out.Found, activities.TableInfo{OID: oid, Name: name, Phase: "live", Position: "1/0/1/1"})
			}
		}
		return out, nil
	}
}

func TestAPausedTableIsLeftOutWhileTheOthersGoOn(t *testing.T) {
	w := newWorld(t)
	w.three()
	w.judges()
	w.at(time.Second, func() {
		w.end("Commit", activities.LaneResult{Resume: []byte(`[1]`)}, nil)
	})
	var asked *request[workflows.Accepted]
	w.at(2*time.Second, func() {
		asked = ask[workflows.Accepted](w, workflows.Pause, "1", workflows.PauseInput{Tables: []string{"public.b", "public.b"}})
	})
	w.at(3*time.Second, func() {
		if asked.err != nil || !asked.done || w.table("public.b").Phase != workflows.Paused {
			t.Errorf("answer %+v, table %+v", asked, w.table("public.b"))
		}
		w.phase(workflows.Running, "")
		w.end("Commit", activities.LaneResult{Resume: []byte(`[2]`)}, nil) // it was asked to
	})
	w.at(4*time.Second, func() {
		if in := last[activities.CommitInput](w); len(in.Parked) != 1 || in.Parked[0] != 2 || string(in.Resume) != "[2]" {
			t.Errorf("commits %+v", in)
		}
		if n := len(w.of("Capture")); n != 1 || len(w.of("Prepare")) != 1 {
			t.Errorf("%d captures, %d preparations", n, len(w.of("Prepare")))
		}
		waited := ask[workflows.Waited](w, workflows.Wait, "2", workflows.WaitInput{Until: workflows.UntilLive, Timeout: time.Second})
		w.at(time.Second, func() {
			if !strings.Contains(waited.out.Why, "millrace resume shop public.b") {
				t.Errorf("waited: %+v", waited)
			}
		})
	})
	w.at(10*time.Second, func() { w.signal(workflows.Resume, workflows.ResumeInput{Tables: []string{"public.b"}}) })
	w.at(11*time.Second, func() {
		if b := w.table("public.b"); b.Phase != workflows.Live {
			t.Errorf("table %+v", b)
		}
		if in := last[activities.CommitInput](w); len(in.Parked) != 0 || in.Resume != nil {
			t.Errorf("commits %+v", in)
		}
		if n := len(w.of("Capture")); n != 1 || len(w.of("Prepare")) != 1 {
			t.Errorf("%d captures, %d preparations", n, len(w.of("Prepare")))
		}
		w.remove()
	})
	w.run()
}

func TestACopyIsToldOfTheTablesThatItIsToGiveUp(t *testing.T) {
	w := newWorld(t)
	started, more := w.copies()
	w.at(time.Second, func() {
		w.signal(workflows.Pause, workflows.PauseInput{Tables: []string{"public.b"}})
	})
	w.at(2*time.Second, func() {
		if len(*started) != 1 || len(*more) != 1 || !(*more)[0].Drop || (*more)[0].OID != 2 {
			t.Errorf("started %+v, told %+v", *started, *more)
		}
		w.scan = func(in activities.ScanInput) (activities.ScanResult, error) {
			if len(in.Known) > 1 {
				return activities.ScanResult{}, nil
			}
			return activities.ScanResult{Found: []activities.TableInfo{{OID: 2, Name: "public.b", Phase: "waiting"}}}, nil
		}
		w.signal(workflows.Resume, workflows.ResumeInput{Tables: []string{"public.b"}})
	})
	w.at(5*time.Second, func() {
		if len(*started) != 1 || len(*more) != 2 || (*more)[1].Drop || (*more)[1].OID != 2 {
			t.Errorf("started %+v, told %+v", *started, *more)
		}
		w.remove()
	})
	w.run()
}

func TestACopyGivesUpATableAndTakesItAgain(t *testing.T) {
	s := copies(t)
	s.chunk = func(in activities.ChunkInput) error {
		if in.OID <= 2 && s.cuts == 1 {
			return errWaits
		}
		return nil
	}
	tell := func(oid uint32, drop bool) {
		s.env.SignalWorkflow("more", []workflows.CopyTable{{OID: oid, Name: "public.t", Drop: drop}})
	}
	s.env.RegisterDelayedCallback(func() { tell(1, true) }, time.Second)
	s.env.RegisterDelayedCallback(func() {
		if tables, _ := s.outcome(); len(tables) != 0 {
			t.Errorf("told %+v", s.told)
		}
		tell(1, false)
	}, 3*time.Second)
	s.env.RegisterDelayedCallback(func() {
		if !s.has("finish 1") || s.has("finish 2") {
			t.Errorf("happened: %v", s.log)
		}
		s.done("2.0")
	}, time.Minute)
	if err := s.copy(1, 2); err != nil {
		t.Fatal(err)
	}
	if tables, ended := s.outcome(); !ended || tables[1].Phase != "live" || tables[2].Phase != "live" {
		t.Errorf("told %+v", s.told)
	}
}

func TestUnparkingSaysHowAndIsRefusedWhereItCostsACopy(t *testing.T) {
	w := newWorld(t)
	w.three()
	w.judges()
	var asked *request[workflows.Accepted]
	w.at(time.Second, func() {
		if _, err := w.unparking(); err == nil || !strings.Contains(err.Error(), "nothing of database shop is parked") {
			t.Errorf("nothing is parked: %v", err)
		}
		w.parkTable(1, "MALFORMED_VALUE")
		w.parkTable(2, "KAFKA_GAP")
		w.signal(workflows.Unpark, nil) // a signal without leave
	})
	w.at(2*time.Second, func() {
		p, err := w.unparking()
		if err != nil || len(p.Steps) != 2 || p.Steps[0].How != workflows.ByCatchingUp || p.Steps[1].How != workflows.ByRecopying ||
			p.Steps[1].Table != "public.b" || p.Steps[1].Reason.Code != "KAFKA_GAP" {
			t.Errorf("plan %+v, %v", p, err)
		}
		for tables, want := range map[string]string{"public.none": "no table", "public.c": "is live, not parked"} {
			if _, err := w.unparking(tables); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", tables, err)
			}
		}
		requests := w.status().Requests
		if r := requests[len(requests)-1]; !strings.HasPrefix(r.Outcome, "refused: public.b would be copied again") {
			t.Errorf("request %+v", r)
		}
		asked = ask[workflows.Accepted](w, workflows.Unpark, "1", workflows.UnparkInput{Tables: []string{"public.b"}})
		if w.table("public.a").Phase != workflows.Parked || w.table("public.b").Phase != workflows.Parked {
			t.Error("a refused request changed something")
		}
	})
	w.at(3*time.Second, func() {
		if asked.rejected == nil {
			t.Errorf("answer %+v", asked)
		}
		asked = ask[workflows.Accepted](w, workflows.Unpark, "2", workflows.UnparkInput{Recopy: true})
	})
	w.at(5*time.Second, func() {
		if asked.err != nil || w.table("public.a").Phase != workflows.Live || w.table("public.b").Phase != workflows.Copying {
			t.Errorf("answer %+v, tables %+v", asked, w.status().Tables)
		}
		if len(w.of("Prepare")) != 1 || len(w.of("Capture")) != 1 {
			t.Error("the others were interrupted")
		}
		w.end("Commit", activities.LaneResult{}, nil)
	})
	w.at(6*time.Second, func() {
		in := last[activities.CommitInput](w)
		if due, is := in.Recopied[2]; len(in.Parked) != 0 || !is || due != 77 {
			t.Errorf("commits %+v", in)
		}
		w.remove()
	})
	w.run()
}

func TestUnparkingAParkedDatabasePreparesIt(t *testing.T) {
	w := newWorld(t)
	w.three()
	w.at(time.Second, func() {
		w.parkTable(1, "MALFORMED_VALUE")
		w.signal(workflows.Pause, workflows.PauseInput{Tables: []string{"public.c"}})
		w.end("Capture", activities.LaneResult{}, parks("SOURCE_AUTH"))
	})
	w.at(2*time.Second, func() {
		p, err := w.unparking()
		if err != nil || len(p.Steps) != 2 || p.Steps[0].Table != "" || p.Steps[0].How != workflows.ByPreparing || p.Steps[0].Reason.Code != "SOURCE_AUTH" {
			t.Errorf("plan %+v, %v", p, err)
		}
		w.signal(workflows.Unpark, nil)
	})
	w.at(3*time.Second, func() {
		w.phase(workflows.Running, "")
		if a, c := w.table("public.a"), w.table("public.c"); a.Phase != workflows.Live || c.Phase != workflows.Paused {
			t.Errorf("tables %+v, %+v", a, c)
		}
		w.remove()
	})
	w.at(4*time.Second, func() {
		if _, err := w.unparking(); err == nil || !strings.Contains(err.Error(), "being removed") {
			t.Errorf("while it is removed: %v", err)
		}
	})
	w.drop = func(activities.DropInput) (activities.DropResult, error) {
		if len(w.of("Drop")) < 4 {
			return activities.DropResult{}, retries("SOURCE_UNREACHABLE")
		}
		return activities.DropResult{}, nil
	}
	w.run()
}

func TestRequestsAboutTablesThatMakeNoSenseAreRefused(t *testing.T) {
	w := newWorld(t)
	w.three()
	refused := map[string]*request[workflows.Accepted]{}
	w.at(time.Second, func() {
		w.parkTable(1, "KAFKA_GAP")
		w.signal(workflows.Pause, map[string]any{"tables": []string{"public.none"}})
		w.signal(workflows.Resume, map[string]any{"tables": []string{"public.b"}})
	})
	w.at(2*time.Second, func() {
		before := w.events()
		for want, in := range map[string]any{
			"no table":                 workflows.PauseInput{Tables: []string{"public.none"}},
			"capture is of the whole":  workflows.PauseInput{Tables: []string{"public.b"}, Capture: true},
			"public.a is parked":       workflows.PauseInput{Tables: []string{"public.b", "public.a"}},
			"no table \"public.gone\"": workflows.ResumeInput{Tables: []string{"public.gone"}},
			"neither paused nor":       workflows.ResumeInput{Tables: []string{"public.b"}},
		} {
			name := workflows.Pause
			if _, is := in.(workflows.ResumeInput); is {
				name = workflows.Resume
			}
			refused[want] = ask[workflows.Accepted](w, name, want, in)
		}
		w.at(time.Second, func() {
			for want, r := range refused {
				if r.rejected == nil || !strings.Contains(r.rejected.Error(), want) {
					t.Errorf("want %q: %+v", want, r)
				}
			}
			if len(w.events()) != len(before) {
				t.Errorf("events %+v", w.events())
			}
			w.remove()
		})
	})
	w.run()
}

func TestAStepThatMillraceDoesNotUnderstandParksAfterAnHour(t *testing.T) {
	w := newWorld(t)
	unknown := func() error {
		return fails(activities.Failure{Database: true, Reason: activities.Reason{Code: activities.CodeInternal, Message: "nil map"}})
	}
	w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
		return activities.PrepareResult{}, unknown()
	}
	w.at(55*time.Minute, func() { w.phase(workflows.Preparing, activities.CodeInternal) })
	w.at(65*time.Minute, func() {
		w.phase(workflows.Parked, activities.CodeInternal)
		w.remove()
	})
	w.run()
}

func TestAnOutageParksNobody(t *testing.T) {
	w := newWorld(t)
	prepare := w.prepare
	w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
		// Now and then the outage looks like something else.
		if len(w.of("Prepare"))%20 == 0 {
			return activities.PrepareResult{}, retries(activities.CodeInternal)
		}
		return activities.PrepareResult{}, retries("SOURCE_UNREACHABLE")
	}
	w.at(5*time.Hour, func() {
		if s := w.status(); s.Phase != workflows.Preparing {
			t.Errorf("phase %s, reason %+v", s.Phase, s.Reason)
		}
		w.prepare = prepare
	})
	w.at(6*time.Hour, func() {
		w.phase(workflows.Running, "")
		w.remove()
	})
	w.run()
}

func TestATableWhoseCopyIsNotUnderstoodParksAloneAfterAnHour(t *testing.T) {
	s := copies(t)
	s.chunk = func(in activities.ChunkInput) error {
		if in.OID == 1 {
			return fails(activities.Failure{Database: true, Reason: activities.Reason{Code: activities.CodeInternal, Message: "nil map"}})
		}
		return nil
	}
	if err := s.copy(1, 2); err != nil {
		t.Fatal(err)
	}
	tables, ended := s.outcome()
	if !ended || tables[1].Reason == nil || tables[1].Reason.Code != activities.CodeInternal || tables[2].Phase != "live" {
		t.Errorf("told %+v", s.told)
	}
}

func TestACopyLaneThatIsNotUnderstoodParksTheDatabase(t *testing.T) {
	s := copies(t)
	s.hold = func(int) error {
		return fails(activities.Failure{Database: true, Reason: activities.Reason{Code: activities.CodeInternal, Message: "nil map"}})
	}
	if err := s.copy(1); err != nil {
		t.Fatal(err)
	}
	if n := len(s.lane); n != 2 || s.lane[0].Park || !s.lane[1].Park {
		t.Errorf("told %+v", s.lane)
	}
}

func TestARemovalThatIsDeniedIsTriedAgainAndSaysHowToForceIt(t *testing.T) {
	w := newWorld(t)
	w.drop = func(activities.DropInput) (activities.DropResult, error) {
		if len(w.of("Drop")) < 5 {
			return activities.DropResult{}, parks("SOURCE_AUTH")
		}
		return activities.DropResult{Dropped: []string{"slot s"}}, nil
	}
	var removed *request[workflows.Removed]
	w.at(time.Second, func() { removed = ask[workflows.Removed](w, workflows.Remove, "1", workflows.RemoveInput{}) })
	w.at(2*time.Second, func() {
		w.phase(workflows.Removing, "SOURCE_AUTH")
		if r := w.status().Reason; !strings.HasSuffix(r.Remedy, "\nmillrace remove shop --yes --force") {
			t.Errorf("reason %+v", r)
		}
	})
	w.run()
	if removed.err != nil || len(removed.out.Dropped) != 1 {
		t.Errorf("answer %+v", removed)
	}
}

// TestDatabasesThatFailTogetherComeBackApart compares when two databases try
// again that failed at the same time.
func TestDatabasesThatFailTogetherComeBackApart(t *testing.T) {
	tries := func(name string) (at []time.Duration) {
		w := newWorld(t)
		var began time.Time
		w.prepare = func(activities.PrepareInput) (activities.PrepareResult, error) {
			if began.IsZero() {
				began = w.env.Now()
			}
			at = append(at, w.env.Now().Sub(began))
			return activities.PrepareResult{}, retries("SOURCE_UNREACHABLE")
		}
		config := shop
		config.Name = name
		w.env.SetStartWorkflowOptions(startOptions(workflows.DatabaseID("local", name)))
		w.env.SetStartTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
		w.at(10*time.Minute, func() { w.env.CancelWorkflow() })
		w.env.ExecuteWorkflow(workflows.DatabaseWorkflow, workflows.DatabaseInput{Config: config})
		return at
	}
	a, b, again := tries("a"), tries("b"), tries("a")
	if len(a) < 10 || len(a) != len(again) {
		t.Fatalf("tries %v, %v", a, again)
	}
	apart := 0
	for i := range a {
		if a[i] != again[i] {
			t.Errorf("the same history at %s, then at %s", a[i], again[i])
		}
		if i > 0 && a[i]-a[i-1] > 31*time.Second {
			t.Errorf("a pause of %s", a[i]-a[i-1])
		}
		if i < len(b) && (a[i]-b[i]).Abs() > 100*time.Millisecond {
			apart++
		}
	}
	if apart < len(a)/2 {
		t.Errorf("tries at\n%v\n%v", a, b)
	}
}

func TestATableThatIsToGoOnIsLeftOutUntilItIsJudged(t *testing.T) {
	w := newWorld(t)
	w.three()
	w.scan = func(activities.ScanInput) (activities.ScanResult, error) {
		return activities.ScanResult{}, retries("SOURCE_UNREACHABLE")
	}
	w.at(time.Second, func() {
		w.parkTable(2, "SCHEMA_INCOMPATIBLE")
		w.signal(workflows.Unpark, workflows.UnparkInput{Recopy: true})
	})
	w.at(2*time.Second, func() {
		w.end("Commit", activities.LaneResult{Resume: []byte(`[1]`)}, nil) // its time box is over
	})
	w.at(5*time.Second, func() {
		if in := last[activities.CommitInput](w); len(w.of("Commit")) != 2 || len(in.Parked) != 1 || in.Parked[0] != 2 {
			t.Errorf("%d commits, the last of %+v", len(w.of("Commit")), in)
		}
		w.judges()
	})
	w.at(time.Minute, func() {
		if in := last[activities.CommitInput](w); len(in.Parked) != 0 || in.Resume != nil || w.table("public.b").Phase != workflows.Copying {
			t.Errorf("commits %+v, table %+v", in, w.table("public.b"))
		}
		w.remove()
	})
	w.run()
}

func TestAnOutageParksNoTableThatIsCopied(t *testing.T) {
	s := copies(t)
	tries := 0
	s.chunk = func(in activities.ChunkInput) error {
		switch tries++; {
		case tries > 100*5: // each is tried some times under one cut
			return nil
		case tries/5%2 == 0: // now and then the outage looks like something else
			return retries(activities.CodeInternal)
		}
		return retries("SOURCE_UNREACHABLE")
	}
	if err := s.copy(1); err != nil {
		t.Fatal(err)
	}
	if tables, ended := s.outcome(); !ended || tables[1].Phase != "live" {
		t.Errorf("told %+v after %d tries", s.told, tries)
	}
}
