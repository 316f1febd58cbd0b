package activities

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/workflow"
)

const (
	// tellEvery is the shortest time between two reports of tables.
	tellEvery = time.Second
	// lastWord bounds what a lane that ends has left to say.
	lastWord = 2 * time.Second
)

// signaller is what a teller needs of Temporal's client.
type signaller interface {
	SignalWorkflow(ctx context.Context, workflowID, runID, signal string, arg any) error
}

// teller brings what a lane found to its workflow, by signal: tables at most
// once a second, markers at once. While Temporal cannot be reached it keeps
// what it has to say. A run of the workflow that has ended is told nothing: its
// successor has lanes of its own.
type teller struct {
	to     signaller
	run    workflow.Execution
	wake   chan struct{}
	quit   chan struct{}
	ended  sync.WaitGroup
	closed sync.Once
	cancel context.CancelFunc

	mu      sync.Mutex
	tables  map[uint32]TableChange
	markers []string
}

// tell starts a teller for a lane.
func (a *Activities) tell(l *lane, run workflow.Execution) *teller {
	return newTeller(l.ctx, a.cfg.Temporal, run)
}

func newTeller(ctx context.Context, to signaller, run workflow.Execution) *teller {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &teller{
		to: to, run: run, cancel: cancel,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), tables: map[uint32]TableChange{},
	}
	t.ended.Go(func() { t.serve(ctx) })
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
	t.closed.Do(func() { close(t.quit) })
	late := time.AfterFunc(lastWord, t.cancel)
	t.ended.Wait()
	late.Stop()
	t.cancel()
}

// serve tells what there is to tell until the teller is closed.
func (t *teller) serve(ctx context.Context) {
	var last time.Time // when tables were told
	for {
		select {
		case <-t.quit:
			if t.tellMarkers(ctx) == nil {
				_ = t.tellTables(ctx)
			}
			return
		case <-t.wake:
		}
		err := t.tellMarkers(ctx)
		if err == nil && t.hasTables() {
			t.pause(tellEvery - time.Since(last))
			err = t.tellTables(ctx)
			last = time.Now()
		}
		if err != nil {
			t.pause(tellEvery)
			t.poke()
		}
	}
}

func (t *teller) hasTables() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.tables) > 0
}

// tellMarkers tells the markers in order, and keeps those that it could not.
func (t *teller) tellMarkers(ctx context.Context) error {
	t.mu.Lock()
	markers := t.markers
	t.markers = nil
	t.mu.Unlock()
	for i, token := range markers {
		if err := t.signal(ctx, SignalMarker, token); err != nil {
			t.mu.Lock()
			t.markers = append(slices.Clone(markers[i:]), t.markers...)
			t.mu.Unlock()
			return err
		}
	}
	return nil
}

// tellTables tells of all tables at once. What it could not tell it keeps,
// unless something newer was found of the table since.
func (t *teller) tellTables(ctx context.Context) error {
	t.mu.Lock()
	tables := t.tables
	t.tables = map[uint32]TableChange{}
	t.mu.Unlock()
	if len(tables) == 0 {
		return nil
	}
	var c TablesChanged
	for _, table := range tables {
		c.Tables = append(c.Tables, table)
	}
	err := t.signal(ctx, SignalTables, c)
	if err != nil {
		t.mu.Lock()
		for oid, table := range tables {
			if _, newer := t.tables[oid]; !newer {
				t.tables[oid] = table
			}
		}
		t.mu.Unlock()
	}
	return err
}

// pause waits for a while, or until the teller is closed.
func (t *teller) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.quit:
	}
}

// signal tells the workflow something. A workflow that has ended needs not know.
func (t *teller) signal(ctx context.Context, name string, arg any) error {
	ctx, cancel := context.WithTimeout(ctx, tellWithin)
	defer cancel()
	err := t.to.SignalWorkflow(ctx, t.run.ID, t.run.RunID, name, arg)
	if err != nil && takenAway(err) {
		return nil
	}
	return err
}
