package fleet

import (
	"fmt"
	"time"
)

// Window is a span of every day in UTC, such as 22:00-06:00, from its first
// minute to before its last. The empty Window and [Always] are the whole day.
type Window string

// Always is the whole day.
const Always Window = "always"

// ParseWindow checks that s is a window.
func ParseWindow(s string) (Window, error) {
	w := Window(s)
	if w == Always {
		return w, nil
	}
	from, to, ok := w.bounds()
	if !ok {
		return "", fmt.Errorf("%q is not a span of the day; write hours and minutes in UTC, such as 22:00-06:00, or always", s)
	}
	if from == to {
		return "", fmt.Errorf("the window %q is empty; the whole day is always", s)
	}
	return w, nil
}

// Wait returns how long it is at t until the window is open; zero where it is.
func (w Window) Wait(t time.Time) time.Duration {
	from, to, ok := w.bounds()
	if !ok {
		return 0
	}
	t = t.UTC()
	now := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute +
		time.Duration(t.Second())*time.Second + time.Duration(t.Nanosecond())
	open := now >= from && now < to
	if from > to {
		open = now >= from || now < to
	}
	switch {
	case open:
		return 0
	case now < from:
		return from - now
	}
	return from + 24*time.Hour - now
}

// bounds returns where the window begins and ends, since midnight.
func (w Window) bounds() (from, to time.Duration, ok bool) {
	var h1, m1, h2, m2 int
	const form = "%02d:%02d-%02d:%02d"
	if _, err := fmt.Sscanf(string(w), form, &h1, &m1, &h2, &m2); err != nil || fmt.Sprintf(form, h1, m1, h2, m2) != string(w) {
		return 0, 0, false
	}
	minutes := func(h, m int) (time.Duration, bool) {
		return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute, h >= 0 && m >= 0 && m < 60 && (h < 24 || h == 24 && m == 0)
	}
	from, ok1 := minutes(h1, m1)
	to, ok2 := minutes(h2, m2)
	return from, to, ok1 && ok2 && from < 24*time.Hour
}
