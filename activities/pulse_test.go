package activities

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// pulseSite is a step with heartbeats under a timeout of 4 s.
type pulseSite struct {
	work  context.Context
	pulse *pulse
	last  time.Time // heartbeat
	rows  int64     // that it carried
}

func withPulse(t *testing.T, f func(*pulseSite)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &pulseSite{}
		var stop func()
		s.work, s.pulse, stop = newPulse(t.Context(), 4*time.Second, func(rows int64) { s.last, s.rows = time.Now(), rows })
		defer stop()
		f(s)
	})
}

// beats tells whether heartbeats are sent now.
func (s *pulseSite) beats() bool {
	synctest.Wait()
	return time.Since(s.last) <= beatEvery(4*time.Second)
}

func TestAStepThatMovesRowsBeats(t *testing.T) {
	withPulse(t, func(s *pulseSite) {
		s.pulse.phase(readWithin)
		for range 100 {
			s.pulse.row()
			time.Sleep(readWithin / 2)
			if !s.beats() {
				t.Fatal("no heartbeat while rows move")
			}
		}
		if s.rows != 100 || s.work.Err() != nil {
			t.Errorf("told of %d rows; %v", s.rows, s.work.Err())
		}
	})
}

func TestAStepWithoutProgressFallsSilentAndEnds(t *testing.T) {
	withPulse(t, func(s *pulseSite) {
		s.pulse.phase(readWithin)
		s.pulse.row()
		time.Sleep(readWithin + 3*time.Second)
		if s.beats() {
			t.Error("it beats without progress")
		}
		if s.work.Err() != nil {
			t.Error("it was cancelled while Temporal may still wait for it")
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if s.work.Err() == nil {
			t.Error("what hangs goes on for ever")
		}
	})
}

func TestAPhaseMayTakeItsLimit(t *testing.T) {
	withPulse(t, func(s *pulseSite) {
		s.pulse.phase(wholeWithin)
		time.Sleep(wholeWithin - time.Minute)
		if !s.beats() {
			t.Error("no heartbeat within the limit")
		}
		s.pulse.phase(readWithin)
		time.Sleep(readWithin - 10*time.Second)
		if !s.beats() {
			t.Error("no heartbeat in the next phase")
		}
		time.Sleep(time.Minute)
		if s.beats() {
			t.Error("the limit of the phase before counts")
		}
	})
}
