package activities

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// fakeTemporal is a Temporal that answers as the test says.
type fakeTemporal struct {
	client.Client
	mu      sync.Mutex
	answer  error         // to heartbeats
	hangs   bool          // heartbeats get no answer at all
	refused error         // to signals
	beats   []any         // details of heartbeats, nil for none
	at      time.Time     // of the last heartbeat that arrived
	said    []string      // signals
	told    []any         // their arguments
	slow    time.Duration // how long a signal takes
}

func (f *fakeTemporal) RecordActivityHeartbeat(ctx context.Context, _ []byte, details ...any) error {
	f.mu.Lock()
	hangs, answer := f.hangs, f.answer
	f.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = time.Now()
	if len(details) > 0 {
		f.beats = append(f.beats, details[0])
	} else {
		f.beats = append(f.beats, nil)
	}
	return answer
}

func (f *fakeTemporal) SignalWorkflow(ctx context.Context, _, _, signal string, arg any) error {
	f.mu.Lock()
	slow := f.slow
	f.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refused != nil {
		return f.refused
	}
	f.said, f.told = append(f.said, signal), append(f.told, arg)
	return nil
}

func (f *fakeTemporal) set(change func(*fakeTemporal)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeTemporal) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.beats)
}

func (f *fakeTemporal) signals(name string) (args []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, s := range f.said {
		if s == name {
			args = append(args, f.told[i])
		}
	}
	return args
}

// laneSite is a worker with one lane's place.
type laneSite struct {
	t        *testing.T
	a        *Activities
	temporal *fakeTemporal
	stop     func() // the worker stops
	stopping chan struct{}
}

func newLaneSite(t *testing.T) *laneSite {
	s := &laneSite{t: t, temporal: &fakeTemporal{}, stopping: make(chan struct{})}
	s.a = &Activities{
		cfg:     Config{Worker: "w1", Temporal: s.temporal},
		metrics: newMetrics(nil, NewBudget(1)), lanes: lanes{running: map[string]*lane{}},
	}
	s.stop = sync.OnceFunc(func() { close(s.stopping) })
	return s
}

// begin begins the lane's next attempt.
func (s *laneSite) begin(ctx context.Context) (*lane, func(), error) {
	return s.a.occupy(ctx, place{
		kind: "commit", database: "shop", run: workflow.Execution{ID: "wf", RunID: "r"},
		token: []byte("t"), timeout: 4 * time.Second, stopping: s.stopping,
	})
}

// must begins the lane's first attempt.
func (s *laneSite) must() (*lane, func()) {
	s.t.Helper()
	l, end, err := s.begin(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return l, end
}

// within a bubble, every goroutine that a test started must end with it: a lane
// that left one behind would fail it.
func bubble(t *testing.T, f func(*testing.T, *laneSite)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newLaneSite(t)) })
}

func TestHeartbeatsCarryProgressAndStopWithIt(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		l, end := s.must()
		defer end()
		l.report(func() any { return "here" })
		for range 20 {
			l.beat()
			time.Sleep(500 * time.Millisecond)
		}
		if n := s.temporal.count(); n < 9 || n > 11 {
			t.Errorf("%d heartbeats in 10 s", n)
		}
		before := s.temporal.count()
		time.Sleep(time.Minute)
		if n := s.temporal.count(); n > before+1 {
			t.Errorf("%d heartbeats without progress", n-before)
		}
		if s.temporal.beats[0] != "here" {
			t.Errorf("details %v", s.temporal.beats[0])
		}
	})
}

func TestANamedWaitIsProgressUntilItsLimit(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		l, end := s.must()
		defer end()
		began := time.Now()
		waited := l.wait("source", 30*time.Second)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if d := s.temporal.at.Sub(began); d < 28*time.Second || d > 31*time.Second {
			t.Errorf("the last heartbeat came after %s", d)
		}
		if what, since := l.waitsFor(); what != "source" || since != began.UTC().Format(time.RFC3339) {
			t.Errorf("waits for %q since %s", what, since)
		}
		waited()
		if what, _ := l.waitsFor(); what != "" {
			t.Errorf("waits for %q", what)
		}
	})
}

func TestALaneEndsAtABoundaryWhenItIsCancelled(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		l, end := s.must()
		s.temporal.set(func(f *fakeTemporal) { f.answer = temporal.NewCanceledError() })
		l.beat()
		time.Sleep(2 * time.Second)
		if !l.halted() || l.ctx.Err() != nil {
			t.Errorf("halted %t, dropped %v", l.halted(), l.ctx.Err())
		}
		end()
	})
}

func TestALaneEndsWhenItsActivityWasGivenToAnother(t *testing.T) {
	for name, err := range map[string]error{
		"timed out": serviceerror.NewNotFound("no such activity"),
		"paused":    activity.ErrActivityPaused,
		"reset":     activity.ErrActivityReset,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *laneSite) {
				l, end := s.must()
				s.temporal.set(func(f *fakeTemporal) { f.answer = err })
				l.beat()
				time.Sleep(2 * time.Second)
				if !l.halted() {
					t.Error("it goes on")
				}
				end()
			})
		})
	}
}

func TestALaneGoesOnWhileTemporalIsAwayAndLearnsWhatBecameOfIt(t *testing.T) {
	for name, c := range map[string]struct {
		answer error
		halted bool
	}{
		"it is still ours":     {nil, false},
		"another has taken it": {serviceerror.NewNotFound("no such activity"), true},
		"it was cancelled":     {temporal.NewCanceledError(), true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *laneSite) {
				l, end := s.must()
				defer end()
				s.temporal.set(func(f *fakeTemporal) { f.answer = serviceerror.NewUnavailable("connection refused") })
				for range 300 {
					l.beat()
					time.Sleep(time.Second)
				}
				if l.halted() {
					t.Fatalf("halted: %s", l.reason())
				}
				s.temporal.set(func(f *fakeTemporal) { f.answer = c.answer })
				time.Sleep(5 * time.Second) // without progress, even
				if l.halted() != c.halted {
					t.Errorf("halted %t: %s", l.halted(), l.reason())
				}
			})
		})
	}
}

func TestATimeBoxThatEndsWhileTemporalIsAwayIsGivenUpAfterwards(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		l, end := s.must()
		s.temporal.set(func(f *fakeTemporal) { f.answer = serviceerror.NewUnavailable("connection refused") })
		l.beat()
		time.Sleep(3 * TimeBox)
		if l.halted() {
			t.Fatalf("halted: %s", l.reason())
		}
		s.temporal.set(func(f *fakeTemporal) { f.answer = nil })
		time.Sleep(5 * time.Second)
		if l.reason() != whyBox {
			t.Errorf("halted: %q", l.reason())
		}
		end()
	})
}

func TestALaneEndsWhenTemporalIsAwayForTooLong(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		l, end := s.must()
		s.temporal.set(func(f *fakeTemporal) { f.hangs = true })
		l.beat()
		time.Sleep(DetachedMax - time.Minute)
		if l.halted() {
			t.Errorf("halted early: %s", l.reason())
		}
		time.Sleep(2 * time.Minute)
		if l.reason() != whyDetached {
			t.Errorf("halted: %q", l.reason())
		}
		end()
	})
}

func TestAHeartbeatThatHangsHoldsNothingUp(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		l, end := s.must()
		s.temporal.set(func(f *fakeTemporal) { f.hangs = true })
		l.beat()
		time.Sleep(1500 * time.Millisecond) // one is on its way
		began := time.Now()
		l.beat()
		end()
		if d := time.Since(began); d != 0 {
			t.Errorf("the lane's end took %s", d)
		}
	})
}

func TestALaneGivesItsPlaceUpWhenItsTimeBoxEnds(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		l, end := s.must()
		time.Sleep(TimeBox - time.Second)
		if l.halted() {
			t.Error("halted early")
		}
		time.Sleep(2 * time.Second)
		if got := l.result("w1"); got.Why != whyBox || got.Worker != "w1" || got.Stopping {
			t.Errorf("result %+v", got)
		}
		end()
	})
}

func TestAWorkerThatStopsEndsItsLanesAtABoundaryOrDropsThem(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		l, end := s.must()
		s.stop()
		synctest.Wait()
		if got := l.result("w1"); !got.Stopping {
			t.Errorf("result %+v", got)
		}
		time.Sleep(StopGrace - time.Second)
		if l.ctx.Err() != nil {
			t.Error("dropped early")
		}
		if s.temporal.count() == 0 {
			t.Error("no heartbeat on the way to the boundary")
		}
		time.Sleep(2 * time.Second)
		if l.ctx.Err() == nil {
			t.Error("it goes on")
		}
		end()
	})
}

func TestASecondAttemptHereWaitsForTheFirstToEnd(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		first, endFirst := s.must()
		began := time.Now()
		go func() {
			<-first.stop
			time.Sleep(5 * time.Second) // to the boundary
			endFirst()
		}()
		second, endSecond := s.must()
		if d := time.Since(began); d != 5*time.Second || first.reason() != whyReplaced {
			t.Errorf("began after %s; the first: %q", d, first.reason())
		}
		if s.temporal.count() < 8 { // of both
			t.Errorf("%d heartbeats while the second waited", s.temporal.count())
		}
		if second.halted() {
			t.Errorf("halted: %s", second.reason())
		}
		endSecond()
		if n := len(s.a.lanes.running); n != 0 {
			t.Errorf("%d lanes are still listed", n)
		}
	})
}

func TestAnAttemptThatIsReplacedWhileItWaitsNeverBegins(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		first, endFirst := s.must()
		second := make(chan error)
		go func() {
			_, _, err := s.begin(t.Context())
			second <- err
		}()
		synctest.Wait()
		third := make(chan func())
		go func() {
			_, end, err := s.begin(t.Context())
			if err != nil {
				t.Error(err)
			}
			third <- end
		}()
		err := <-second
		if f := Classify(err); err == nil || f.Reason.Code != CodeWorkerLost || f.Park {
			t.Errorf("the second: %v, %+v", err, f)
		}
		if !first.halted() {
			t.Error("the first goes on")
		}
		endFirst()
		(<-third)()
	})
}

func TestAnAttemptDoesNotWaitForEverForTheFirst(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		_, endFirst := s.must()
		began := time.Now()
		_, _, err := s.begin(t.Context())
		if d := time.Since(began); err == nil || d != predecessorWithin {
			t.Errorf("%v after %s", err, d)
		}
		endFirst()
	})
}

func TestALaneThatGetsOnSaysSoOnce(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		l, end := s.must()
		defer end()
		s.temporal.set(func(f *fakeTemporal) { f.refused = serviceerror.NewUnavailable("away") })
		time.Sleep(10 * time.Second)
		l.beat()
		time.Sleep(10 * time.Second)
		s.temporal.set(func(f *fakeTemporal) { f.refused = nil })
		l.beat()
		time.Sleep(10 * time.Second)
		if got := s.temporal.signals(SignalLane); len(got) != 1 || got[0] != (LaneReport{Lane: "commit", Worker: "w1"}) {
			t.Errorf("told %+v", got)
		}
	})
}

func TestALaneThatNeverGetsOnSaysNothing(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		_, end := s.must()
		time.Sleep(time.Minute)
		end()
		if got := s.temporal.signals(SignalLane); len(got) != 0 {
			t.Errorf("told %+v", got)
		}
	})
}

func TestHeartbeatsAreOftenEnoughForTheirTimeout(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		0: 100 * time.Millisecond, 3 * time.Second: 750 * time.Millisecond, time.Minute: slowestBeat,
	} {
		if got := beatEvery(timeout); got != want {
			t.Errorf("every %s under %s", got, timeout)
		}
	}
}

func newTestTeller(t *testing.T, f *fakeTemporal) *teller {
	return newTeller(t.Context(), f, workflow.Execution{ID: "wf", RunID: "r"})
}

func TestTablesAreToldTogetherAtMostOnceASecond(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		told := newTestTeller(t, s.temporal)
		began := time.Now()
		for oid := range uint32(100) {
			told.table(TableChange{OID: oid})
			told.table(TableChange{OID: oid, Phase: "live"})
			time.Sleep(30 * time.Millisecond)
		}
		time.Sleep(time.Second)
		last := map[uint32]string{}
		for _, arg := range s.temporal.signals(SignalTables) {
			for _, c := range arg.(TablesChanged).Tables {
				last[c.OID] = c.Phase
			}
		}
		if n, most := len(s.temporal.signals(SignalTables)), int(time.Since(began)/tellEvery)+1; n > most {
			t.Errorf("%d signals, at most %d are due", n, most)
		}
		for oid := range uint32(100) {
			if last[oid] != "live" {
				t.Errorf("table %d: told %q last", oid, last[oid])
			}
		}
		told.close()
	})
}

func TestMarkersAreToldAtOnceAndInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		told := newTestTeller(t, s.temporal)
		told.marker("a")
		synctest.Wait()
		if got := s.temporal.signals(SignalMarker); len(got) != 1 {
			t.Errorf("told %v", got)
		}
		s.temporal.set(func(f *fakeTemporal) { f.refused = serviceerror.NewUnavailable("away") })
		told.marker("b")
		told.marker("c")
		time.Sleep(time.Minute)
		s.temporal.set(func(f *fakeTemporal) { f.refused = nil })
		time.Sleep(2 * time.Second)
		if got := s.temporal.signals(SignalMarker); !slices.Equal(got, []any{"a", "b", "c"}) {
			t.Errorf("told %v", got)
		}
		told.close()
	})
}

func TestWhatIsLeftIsToldAsTheLaneEndsIfTemporalListens(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		told := newTestTeller(t, s.temporal)
		told.table(TableChange{OID: 1})
		synctest.Wait()
		told.table(TableChange{OID: 2})
		told.marker("m")
		began := time.Now()
		told.close()
		if n, d := len(s.temporal.signals(SignalTables)), time.Since(began); n != 2 || d != 0 {
			t.Errorf("%d signals after %s", n, d)
		}
		if got := s.temporal.signals(SignalMarker); len(got) != 1 {
			t.Errorf("told %v", got)
		}

		told = newTestTeller(t, s.temporal)
		s.temporal.set(func(f *fakeTemporal) { f.slow = time.Hour })
		told.table(TableChange{OID: 3})
		synctest.Wait()
		began = time.Now()
		told.close()
		if d := time.Since(began); d > lastWord {
			t.Errorf("closing took %s while Temporal was silent", d)
		}
	})
}

func TestARunThatHasEndedIsToldNothing(t *testing.T) {
	bubble(t, func(t *testing.T, s *laneSite) {
		told := newTestTeller(t, s.temporal)
		s.temporal.set(func(f *fakeTemporal) { f.refused = serviceerror.NewNotFound("workflow execution already completed") })
		told.marker("m")
		told.table(TableChange{OID: 1})
		time.Sleep(5 * time.Second)
		s.temporal.set(func(f *fakeTemporal) { f.refused = nil })
		time.Sleep(5 * time.Second)
		told.close()
		if n := len(s.temporal.said); n != 0 {
			t.Errorf("%d signals", n)
		}
	})
}

func TestTheBudgetHoldsBackWhoeverWantsMoreThanIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(10)
		if err := b.Take(t.Context(), 6); err != nil {
			t.Fatal(err)
		}
		if b.TryTake(5) || !b.TryTake(4) || !b.Spent() || b.Used() != 10 || b.Total() != 10 {
			t.Errorf("%d of %d are used", b.Used(), b.Total())
		}
		taken := make(chan error)
		go func() { taken <- b.Take(t.Context(), 5) }()
		b.Give(4)
		synctest.Wait()
		select {
		case <-taken:
			t.Error("took what is not free")
		default:
		}
		b.Give(1)
		if err := <-taken; err != nil {
			t.Error(err)
		}
		b.Give(10)
		if b.Used() != 0 {
			t.Errorf("%d are used", b.Used())
		}
	})
}

func TestARequestLargerThanTheBudgetIsServedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(10)
		if err := b.Take(t.Context(), 100); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Take(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("took beside it: %v", err)
		}
		b.Give(100)
		b.Force(20)
		if !b.Spent() || b.TryTake(1) {
			t.Error("something is free")
		}
		b.Give(20)
		b.Give(0)
		if !b.TryTake(100) {
			t.Error("not served")
		}
	})
}
