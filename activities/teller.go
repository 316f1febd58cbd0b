package activities

import (
	"context"
	"sync"
	"time"
)

// teller brings what a lane found to its workflow, by signal: tables at most
// once a second, markers at once. While Temporal cannot be reached it keeps
// what it has to say.
type teller struct {
	a        *Activities
	workflow string
	wake     chan struct{}
	quit     chan struct{}
	ended    sync.WaitGroup

	mu      sync.Mutex
	tables  map[uint32]TableChange
	markers []string
}

// tell starts a teller for a lane.
func (a *Activities) tell(l *lane, workflow string) *teller {
	t := &teller{a: a, workflow: workflow, wake: make(chan struct{}, 1), quit: make(chan struct{}), tables: map[uint32]TableChange{}}
	t.ended.Go(func() { t.run(l.ctx) })
	return t
}

// table reports a change of one table.
func (t *teller) table(c TableChange) {
	t.mu.Lock()
	t.tables[c.OID] = c
	t.mu.Unlock()
	t.poke()
}

// marker reports that everything before a marker is committed.
func (t *teller) marker(token string) {
	t.mu.Lock()
	t.markers = append(t.markers, token)
	t.mu.Unlock()
	t.poke()
}

func (t *teller) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// close says what is left to say, if Temporal listens, and stops.
func (t *teller) close() {
	close(t.quit)
	t.ended.Wait()
}

func (t *teller) run(ctx context.Context) {
	var last time.Time
	for {
		stop := false
		select {
		case <-t.quit:
			stop = true
		case <-t.wake:
		}
		t.mu.Lock()
		markers, tables := t.markers, t.tables
		t.markers, t.tables = nil, map[uint32]TableChange{}
		t.mu.Unlock()

		for i, token := range markers {
			if err := t.signal(ctx, SignalMarker, token); err != nil {
				t.again(markers[i:], nil)
				break
			}
		}
		if len(tables) > 0 {
			if wait := time.Second - time.Since(last); wait > 0 && !stop {
				pause(ctx, t.quit, wait)
			}
			var c TablesChanged
			for _, table := range tables {
				c.Tables = append(c.Tables, table)
			}
			if err := t.signal(ctx, SignalTables, c); err != nil {
				t.again(nil, tables)
			}
			last = time.Now()
		}
		if stop {
			return
		}
		t.mu.Lock()
		left := len(t.markers)+len(t.tables) > 0
		t.mu.Unlock()
		if left {
			pause(ctx, t.quit, time.Second)
			t.poke()
		}
	}
}

// pause waits for a while, or until it should end.
func pause(ctx context.Context, quit <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-quit:
	case <-ctx.Done():
	}
}

// again keeps what could not be said; what was found since is newer.
func (t *teller) again(markers []string, tables map[uint32]TableChange) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.markers = append(append([]string(nil), markers...), t.markers...)
	for oid, c := range tables {
		if _, newer := t.tables[oid]; !newer {
			t.tables[oid] = c
		}
	}
}

func (t *teller) signal(ctx context.Context, name string, arg any) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return t.a.cfg.Temporal.SignalWorkflow(ctx, t.workflow, "", name, arg)
}
