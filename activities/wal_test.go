package activities

import (
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities/internal/pgsource"
)

func TestHowLongASlotMayHoldWAL(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var w *WAL
	look := func(after time.Duration, held, safe, budget int64) {
		at = at.Add(after)
		w = w.next(at, &pgsource.WAL{Held: held, Safe: safe}, budget)
	}
	look(0, 1000, -1, 0)
	if w.Growth != nil || w.Room != nil || w.HoursLeft() != nil {
		t.Errorf("the first look: %+v", w)
	}
	look(time.Hour, 3000, 10_000, 0)
	if *w.Growth != 2000 || *w.Room != 10_000 || *w.HoursLeft() != 5 {
		t.Errorf("the second look: %+v, %v hours", w, *w.HoursLeft())
	}
	look(time.Hour, 5000, 10_000, 9000)
	if *w.Room != 4000 || *w.HoursLeft() != 2 {
		t.Errorf("with a budget: %+v, %v hours", w, *w.HoursLeft())
	}
	look(time.Hour, 5000, -1, 4000)
	if *w.Room != 0 || *w.HoursLeft() != 0 {
		t.Errorf("beyond the budget: %+v", w)
	}
	look(time.Hour, 100, -1, 4000)
	if *w.Growth >= 0 || w.HoursLeft() != nil {
		t.Errorf("where it shrinks: %+v", w)
	}
}
