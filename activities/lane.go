package activities

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

const (
	// TimeBox is how long a long step holds its place before it gives it up
	// voluntarily, at a transaction boundary.
	TimeBox = 10 * time.Minute
	// DetachedMax is how long a lane goes on while Temporal cannot be reached.
	// StartToClose of long steps covers the time box and this.
	DetachedMax = 6 * time.Hour
	// StopGrace is how long a lane may take to reach a boundary once it was told
	// to stop.
	StopGrace = 18 * time.Second
	// predecessorWithin is how long an earlier attempt in this process may take
	// to end: its grace, and what it then gives back.
	predecessorWithin = StopGrace + 12*time.Second
	// openWithin is how long a lane may take to connect, and jobWithin one step
	// at the lake, before its silence counts as such.
	openWithin = 2 * time.Minute
	jobWithin  = 10 * time.Minute
	// slowestBeat is the longest pause between two heartbeats, and so how late a
	// lane may learn that it is to end.
	slowestBeat = 5 * time.Second
	// tellWithin bounds one call that tells Temporal something.
	tellWithin = 5 * time.Second
)

// Why lanes end that nobody cancelled.
const (
	whyBox      = "time box"
	whyStopping = "worker stops"
	whyReplaced = "replaced by a later attempt here"
	whyDetached = "Temporal was away for too long"
)

// lane is one run of a long step. It works under a context of its own, so that
// a Temporal outage does not stop the data: stop says when to end at the next
// boundary, ctx when to drop everything.
//
// Heartbeats are sent by the lane itself, not through the SDK, which cancels an
// activity whose heartbeats fail without saying whether the activity was taken
// away or Temporal is.
type lane struct {
	ctx  context.Context
	stop chan struct{}
	done chan struct{}

	beats    atomic.Int64
	progress atomic.Pointer[func() any]
	detached atomic.Bool // Temporal did not answer the last heartbeat
	first    sync.Once
	working  chan struct{} // closed by the first beat

	mu       sync.Mutex
	why      string
	haltedAt time.Time
	waits    map[int]waiting
	waited   int
}

// waiting is a named wait, which has a limit.
type waiting struct {
	what         string
	since, until time.Time
}

// lanes holds the running lane of each kind and database in this process, so
// that a second attempt ends the first before it starts.
type lanes struct {
	mu      sync.Mutex
	running map[string]*lane
}

// beater is what a lane needs of Temporal's client to stay alive.
type beater interface {
	RecordActivityHeartbeat(ctx context.Context, token []byte, details ...any) error
}

// place is where a lane runs: its kind and database, and the activity that it is.
type place struct {
	kind, database string
	run            workflow.Execution
	token          []byte
	timeout        time.Duration   // of heartbeats
	stopping       <-chan struct{} // closed when the worker stops
}

// begin makes the lane of a kind and a database, after ending the one of that
// name that may still run here. The caller calls end once its work has ended.
func (a *Activities) begin(actx context.Context, kind, database string) (l *lane, end func(), err error) {
	info := activity.GetInfo(actx)
	return a.occupy(actx, place{
		kind: kind, database: database, run: info.WorkflowExecution, token: info.TaskToken,
		timeout: info.HeartbeatTimeout, stopping: activity.GetWorkerStopChannel(actx),
	})
}

func (a *Activities) occupy(actx context.Context, p place) (l *lane, end func(), err error) {
	key := p.kind + "/" + p.database
	ctx, cancel := context.WithCancel(context.WithoutCancel(actx))
	l = &lane{ctx: ctx, stop: make(chan struct{}), done: make(chan struct{}), working: make(chan struct{}), waits: map[int]waiting{}}
	before := a.lanes.enter(key, l)

	var g sync.WaitGroup
	g.Go(func() { l.watch(actx, p.stopping, cancel) })
	g.Go(func() { l.heartbeat(a.cfg.Temporal, p.token, beatEvery(p.timeout)) })
	g.Go(func() { a.announce(l, p.run, p.kind) })
	end = func() {
		l.halt("returned")
		close(l.done)
		cancel()
		g.Wait()
		if a.lanes.leave(key, l) {
			a.metrics.forget(p.kind, p.database)
		}
	}
	if before == nil {
		return l, end, nil
	}
	before.halt(whyReplaced)
	waited := l.wait("its predecessor here", predecessorWithin)
	late := time.NewTimer(predecessorWithin)
	defer late.Stop()
	select {
	case <-before.done:
	case <-l.stop:
	case <-late.C:
		l.halt("its predecessor here does not end")
	}
	waited()
	if l.halted() {
		why := l.reason()
		end()
		return nil, nil, &Reasoned{
			Failure: Failure{Reason: Reason{Code: CodeWorkerLost, Message: "the step ended before it began: " + why}, Database: true},
			Err:     context.Canceled,
		}
	}
	return l, end, nil
}

// beatEvery is the pause between heartbeats under a timeout.
func beatEvery(timeout time.Duration) time.Duration {
	return min(max(timeout/4, 100*time.Millisecond), slowestBeat)
}

// enter puts l in the place of the lane that runs now, which it returns.
func (s *lanes) enter(key string, l *lane) (before *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.running[key]
	s.running[key] = l
	return before
}

// leave takes l out, unless another is in its place already.
func (s *lanes) leave(key string, l *lane) (left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if left = s.running[key] == l; left {
		delete(s.running, key)
	}
	return left
}

// halt asks the lane to end at its next boundary. The first reason stands.
func (l *lane) halt(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why == "" {
		l.why, l.haltedAt = why, time.Now()
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

// result is that of a lane that ended voluntarily.
func (l *lane) result(worker string) LaneResult {
	why := l.reason()
	return LaneResult{Why: why, Worker: worker, Stopping: why == whyStopping}
}

// watch halts the lane when the worker stops or the time box ends, and cancels
// it when it does not reach a boundary in time.
func (l *lane) watch(actx context.Context, stopping <-chan struct{}, cancel context.CancelFunc) {
	box := time.NewTimer(TimeBox)
	defer box.Stop()
	for !l.halted() {
		select {
		case <-l.done:
			return
		case <-l.stop:
		case <-stopping:
			l.halt(whyStopping)
		case <-actx.Done():
			l.halt("activity ended: " + context.Cause(actx).Error())
		case <-box.C:
			// A result that cannot be delivered would only stop the data.
			if !l.detached.Load() {
				l.halt(whyBox)
			}
			box.Reset(time.Second)
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

// beat notes progress: a keepalive, bytes, an acknowledgement or a commit.
func (l *lane) beat() {
	l.beats.Add(1)
	l.first.Do(func() { close(l.working) })
}

// wait begins a named wait, such as for a connection, which counts as progress
// for as long as its limit. The caller ends it.
func (l *lane) wait(what string, limit time.Duration) (end func()) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waited++
	id := l.waited
	l.waits[id] = waiting{what: what, since: now, until: now.Add(limit)}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.waits, id)
	}
}

// waitsFor says what the lane has waited for the longest, and since when in RFC
// 3339; empty where that is not worth telling.
func (l *lane) waitsFor() (what, since string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := time.Now().Add(-time.Second)
	for _, w := range l.waits {
		if w.since.Before(first) {
			what, first = w.what, w.since
		}
	}
	if what == "" {
		return "", ""
	}
	return what, first.UTC().Format(time.RFC3339)
}

// patient tells whether silence is in order: during a wait that has not reached
// its limit, and on the way to the boundary.
func (l *lane) patient(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why != "" {
		return now.Sub(l.haltedAt) < StopGrace
	}
	for _, w := range l.waits {
		if now.Before(w.until) {
			return true
		}
	}
	return false
}

// report sets what the heartbeats carry. The function is called from another
// goroutine.
func (l *lane) report(f func() any) { l.progress.Store(&f) }

// heartbeat tells Temporal about progress, and stays silent without. It halts
// the lane when the server says that the activity is not ours any more, or when
// no server has answered for too long.
func (l *lane) heartbeat(server beater, token []byte, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	seen := int64(0)
	answered := time.Now()
	for {
		select {
		case <-l.done:
			return
		case <-tick.C:
		}
		beats := l.beats.Load()
		if beats == seen && !l.patient(time.Now()) && !l.detached.Load() {
			continue
		}
		seen = beats
		var details []any
		if f := l.progress.Load(); f != nil {
			details = append(details, (*f)())
		}
		ctx, cancel := context.WithTimeout(l.ctx, max(every, time.Second))
		err := server.RecordActivityHeartbeat(ctx, token, details...)
		cancel()
		switch {
		case err == nil:
			answered = time.Now()
			l.detached.Store(false)
		case l.ctx.Err() != nil:
			return
		case cancelled(err):
			answered = time.Now()
			l.detached.Store(false)
			l.halt("cancelled")
		case takenAway(err):
			l.halt("activity ended: " + err.Error())
			return
		default:
			l.detached.Store(true)
			if time.Since(answered) > DetachedMax {
				l.halt(whyDetached)
			}
		}
	}
}

// cancelled tells that Temporal asks the activity to end.
func cancelled(err error) bool {
	return temporal.IsCanceledError(err) || errors.Is(err, activity.ErrActivityPaused) || errors.Is(err, activity.ErrActivityReset)
}

// takenAway tells that Temporal has given the activity up: it timed out, or its
// workflow has ended.
func takenAway(err error) bool {
	var gone *serviceerror.NotFound
	var namespace *serviceerror.NamespaceNotFound
	var inactive *serviceerror.NamespaceNotActive
	var invalid *serviceerror.InvalidArgument
	return errors.As(err, &gone) || errors.As(err, &namespace) || errors.As(err, &inactive) || errors.As(err, &invalid)
}

// alive heartbeats for a step whose waits have limits of their own, until it is
// stopped. The step is cancelled where its activity is.
func (a *Activities) alive(ctx context.Context) (stop func()) {
	beats, cancel := context.WithCancel(ctx)
	var g sync.WaitGroup
	g.Go(func() {
		tick := time.NewTicker(beatEvery(activity.GetInfo(ctx).HeartbeatTimeout))
		defer tick.Stop()
		for {
			select {
			case <-beats.Done():
				return
			case <-tick.C:
				activity.RecordHeartbeat(beats)
			}
		}
	})
	return func() {
		cancel()
		g.Wait()
	}
}

// announce tells the workflow that the lane gets on, once it does: the status
// then drops what it showed of earlier failures.
func (a *Activities) announce(l *lane, run workflow.Execution, kind string) {
	select {
	case <-l.working:
	case <-l.done:
		return
	}
	for {
		ctx, cancel := context.WithTimeout(l.ctx, tellWithin)
		err := a.cfg.Temporal.SignalWorkflow(ctx, run.ID, run.RunID, SignalLane, LaneReport{Lane: kind, Worker: a.cfg.Worker})
		cancel()
		if err == nil || takenAway(err) {
			return
		}
		select {
		case <-l.done:
			return
		case <-time.After(time.Second):
		}
	}
}
