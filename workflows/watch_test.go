package workflows_test

import (
	"context"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/workflows"
)

func TestASlotThatNobodyReadsIsWatched(t *testing.T) {
	w := newWorld(t)
	var err error
	register(w, "Watch", func(_ context.Context, in activities.WatchInput) (activities.WAL, error) {
		held := int64(1000)
		if in.Before != nil {
			held += in.Before.Held
		}
		return activities.WAL{Held: held}, err
	})
	w.at(time.Second, func() { w.end("Capture", activities.LaneResult{}, parks("SOURCE_AUTH")) })
	w.at(3*time.Minute, func() {
		w.phase(workflows.Parked, "SOURCE_AUTH")
		if n := len(w.of("Watch")); n != 3 || w.status().WAL == nil || w.status().WAL.Held != 3000 {
			t.Errorf("%d looks, %+v", n, w.status().WAL)
		}
		w.signal(workflows.Resume, nil)
	})
	w.at(4*time.Minute, func() {
		w.phase(workflows.Running, "")
		if w.status().WAL != nil {
			t.Errorf("while the slot is read: %+v", w.status().WAL)
		}
		w.signal(workflows.Pause, workflows.PauseInput{Capture: true})
		w.at(time.Second, func() {
			w.end("Capture", activities.LaneResult{}, nil)
			w.end("Commit", activities.LaneResult{}, nil)
		})
	})
	w.at(5*time.Minute, func() {
		w.phase(workflows.Paused, "")
		if w.status().WAL == nil {
			t.Error("nobody looks while it is paused")
		}
		err = parks("SLOT_LOST")
	})
	w.at(7*time.Minute, func() {
		w.phase(workflows.Parked, "SLOT_LOST")
		if w.status().WAL != nil {
			t.Errorf("a slot that is lost holds %+v", w.status().WAL)
		}
		w.remove()
	})
	w.run()
}
