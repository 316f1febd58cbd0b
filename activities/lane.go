package activities

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"
)

// timeBox is how long a long step holds its place before it gives it up
// voluntarily, at a transaction boundary.
const timeBox = 10 * time.Minute

// DetachedMax is how long a lane goes on while Temporal cannot be reached.
// StartToClose of long steps covers the time box and this.
const DetachedMax = 6 * time.Hour

// StopGrace is how long a lane may take to reach a boundary once it was told
// to stop.
const StopGrace = 18 * time.Second

// lane is one run of a long step. It works under a context of its own, so that
// a Temporal outage, which the SDK turns into a cancelled context, does not
// stop the data: Stop says when to end at the next boundary, ctx when to drop
// everything.
type lane struct {
	ctx  context.Context
	stop chan struct{}
	done chan struct{}

	beats    atomic.Int64
	progress atomic.Pointer[func() any]

	mu  sync.Mutex
	why string
}

// lanes holds the running lane of each kind and database in this process, so
// that a second attempt ends the first before it starts.
type lanes struct {
	mu      sync.Mutex
	running map[string]*lane
}

// begin makes the lane called key, after ending the one of that name that may
// still run here. The caller calls end once its work has ended.
func (a *Activities) begin(actx context.Context, key string) (l *lane, end func(), err error) {
	l = &lane{stop: make(chan struct{}), done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.WithoutCancel(actx))
	l.ctx = ctx

	a.lanes.mu.Lock()
	before := a.lanes.running[key]
	a.lanes.running[key] = l
	a.lanes.mu.Unlock()
	if before != nil {
		before.halt("replaced")
		select {
		case <-before.done:
		case <-actx.Done():
			a.lanes.leave(key, l)
			close(l.done)
			cancel()
			return nil, nil, actx.Err()
		}
	}

	var g sync.WaitGroup
	g.Go(func() { l.watch(actx, a.reachable, cancel) })
	g.Go(func() { l.heartbeat(actx, a.cfg.HeartbeatTimeout/4) })
	return l, func() {
		l.halt("returned")
		close(l.done)
		cancel()
		g.Wait()
		a.lanes.leave(key, l)
	}, nil
}

func (s *lanes) leave(key string, l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[key] == l {
		delete(s.running, key)
	}
}

// halt asks the lane to end at its next boundary. The first reason stands.
func (l *lane) halt(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why == "" {
		l.why = why
		close(l.stop)
	}
}

// halted tells whether the lane should end at this boundary.
func (l *lane) halted() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// reason says why the lane was halted; empty while it was not.
func (l *lane) reason() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

// watch halts the lane when the worker stops, the time box ends or the activity
// is no longer ours, and cancels it when it does not reach a boundary in time.
func (l *lane) watch(actx context.Context, reachable func() bool, cancel context.CancelFunc) {
	box := time.NewTimer(timeBox)
	defer box.Stop()
	for !l.halted() {
		select {
		case <-l.done:
			return
		case <-l.stop:
		case <-activity.GetWorkerStopChannel(actx):
			l.halt("worker stops")
		case <-actx.Done():
			l.halt("activity ended: " + context.Cause(actx).Error())
		case <-box.C:
			// A result that cannot be delivered would only stop the data.
			if reachable() {
				l.halt("time box")
			} else {
				box.Reset(time.Second)
			}
		}
	}
	grace := time.NewTimer(StopGrace)
	defer grace.Stop()
	select {
	case <-l.done:
	case <-grace.C:
		cancel()
	}
}

// beat notes progress: a keepalive, bytes, an acknowledgement, a commit or a
// named wait.
func (l *lane) beat() { l.beats.Add(1) }

// report sets what the heartbeats carry. The function is called from another
// goroutine.
func (l *lane) report(f func() any) { l.progress.Store(&f) }

// heartbeat tells Temporal about progress, and stays silent without.
func (l *lane) heartbeat(actx context.Context, every time.Duration) {
	every = min(max(every, 100*time.Millisecond), time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	seen := int64(-1)
	for {
		select {
		case <-l.done:
			return
		case <-tick.C:
		}
		now := l.beats.Load()
		f := l.progress.Load()
		if now == seen || f == nil || actx.Err() != nil {
			continue
		}
		seen = now
		activity.RecordHeartbeat(actx, (*f)())
	}
}
