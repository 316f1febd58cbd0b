package workflows

import (
	"errors"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/change"
)

const (
	// stickyFor is how long the commit lane is offered to the worker whose key
	// index is warm before any other may take it.
	stickyFor = 5 * time.Second
	// fetchWithin is how long a step may lie in its queue before that is a reason.
	fetchWithin = time.Minute
	// longRun is how long a step has to last to count as a beginning of its own:
	// the next failure is tried again at once.
	longRun = time.Minute
	// slowest is the longest pause between two tries, before its jitter.
	slowest = 20 * time.Second
	// lostInARow is how many steps in a row may lose their worker before that
	// is shown: one is an ordinary restart.
	lostInARow = 3
	// shortStep and forcedStep bound steps that are not lanes of data, and one
	// that is not to take long.
	shortStep  = 30 * time.Minute
	forcedStep = 30 * time.Second
)

// What runs for a database. The first three run side by side, the next two alone.
const (
	capturing = iota
	committing
	scanning
	preparing
	dropping
	watching // beside whatever else runs
	laneCount
)

// names are those of the lanes in reasons and reports.
var names = [laneCount]string{LaneCapture, LaneCommit, "scan", "prepare", "drop", "watch"}

// shown is the order in which the lanes' troubles are shown.
var shown = []string{"prepare", "drop", LaneCapture, LaneCommit, LaneCopy, "scan", "watch"}

// lane is one activity that is run again and again, by a coroutine of its own.
type lane struct {
	name       string
	running    bool
	generation int
	cancel     workflow.CancelFunc
	// worker serves it; empty until it reports.
	worker string
	// lost counts the steps in a row that lost their worker.
	lost int
}

// steps gives activities their names: only its methods' names are used.
var steps *activities.Activities

// wants tells whether a lane should run in this phase.
func (d *database) wants(i int) bool {
	if i == watching {
		return d.watches && d.unread() && !d.draining
	}
	switch d.s.Phase {
	case Preparing:
		return i == preparing && !d.draining
	case Running:
		return i <= scanning && !d.draining
	case Paused:
		return i == capturing && d.s.Prepared && !d.s.PausedCapture && !d.draining
	case Removing:
		return i == dropping && d.removed == nil
	}
	return false
}

// mayStart tells whether lane i may start beside what still runs.
func (d *database) mayStart(i int) bool {
	if d.draining || i == dropping && d.s.Copy != nil {
		return false
	}
	for j := range d.lanes {
		switch {
		case !d.lanes[j].running:
		case i == j, i != watching && j != watching && (i > scanning || j > scanning):
			return false
		}
	}
	return true
}

// idle tells that no lane runs.
func (d *database) idle() bool {
	for i := range d.lanes {
		if d.lanes[i].running {
			return false
		}
	}
	return true
}

// supervise starts the lanes that the phase wants and ends the others.
func (d *database) supervise(ctx workflow.Context) {
	d.unwatched(ctx)
	for i := range d.lanes {
		l := &d.lanes[i]
		if l.running && l.cancel != nil && (!d.wants(i) || l.generation != d.generation) {
			l.cancel()
			l.cancel = nil
		}
		if !l.running && !d.wants(i) && !d.draining {
			d.forgive(l)
		}
	}
	for i := range d.lanes {
		if d.wants(i) && d.mayStart(i) {
			d.start(ctx, i)
		}
	}
	d.superviseCopy(ctx)
}

// start runs lane i until it is cancelled, done, or parks the database.
func (d *database) start(ctx workflow.Context, i int) {
	l := &d.lanes[i]
	ctx, l.cancel = workflow.WithCancel(ctx)
	l.running, l.generation, l.lost = true, d.generation, 0
	workflow.Go(ctx, func(ctx workflow.Context) {
		d.run(ctx, i)
		l.running, l.worker = false, ""
		if !d.draining { // the next run shows it further
			d.forgive(l)
		}
		d.touch()
	})
}

// forgive forgets the failures of a lane that has ended.
func (d *database) forgive(l *lane) {
	delete(d.s.Trouble, l.name)
	d.s.earn(l.name)
}

// current tells that what lane i came to still counts: it was not cancelled,
// and neither phase nor configuration are others than when it began.
func (d *database) current(ctx workflow.Context, i int) bool {
	return ctx.Err() == nil && d.wants(i) && d.lanes[i].generation == d.generation
}

// run repeats lane i's step. A failure that time may mend is tried again with a
// growing pause; any other parks the database.
func (d *database) run(ctx workflow.Context, i int) {
	l := &d.lanes[i]
	for pause := time.Duration(0); ; pause = min(max(2*pause, time.Second), slowest) {
		began := workflow.Now(ctx)
		queue, err := d.step(ctx, i)
		if !d.current(ctx, i) || d.draining {
			return
		}
		took := workflow.Now(ctx).Sub(began)
		if took > longRun || err == nil && took > time.Second {
			pause = 0
		}
		if err == nil || took > longRun {
			d.s.earn(l.name)
		}
		if err == nil {
			l.lost = 0
			d.well(l.name)
		} else {
			f := failure(ctx, &d.s.Config, queue, err)
			switch {
			case i == watching && d.s.Phase == Parked:
				f.Park = false // it is
			case i == dropping:
				f.Park = false // it is asked for already
				f.Reason.Remedy = "mend that, or leave behind what cannot be reached:\n" + d.s.forced()
			case f.Reason.Code == activities.CodeInternal:
				f.Park = d.s.spend(l.name, workflow.Now(ctx))
			default:
				d.s.earn(l.name)
			}
			if f.Park {
				d.park(&f.Reason, l.name)
				return
			}
			l.worker = ""
			if f.Reason.Code == activities.CodeWorkerLost {
				// That it is lost took a heartbeat timeout to find out.
				l.lost++
				pause = min(pause, time.Second)
			} else if l.lost = 0; took <= longRun {
				pause = max(pause, time.Second)
			}
			if l.lost == 0 || l.lost >= lostInARow {
				d.trouble(l.name, &f.Reason)
			}
		}
		if pause > 0 && workflow.Sleep(ctx, pause+jitter(ctx, l.name, pause)) != nil {
			return
		}
	}
}

// step runs lane i's activity once and takes over what it came to.
func (d *database) step(ctx workflow.Context, i int) (queue string, err error) {
	switch i {
	case capturing:
		return d.capture(ctx)
	case committing:
		return d.commit(ctx)
	case scanning:
		return d.scan(ctx)
	case preparing:
		return d.prepare(ctx)
	case watching:
		return d.watch(ctx)
	default:
		return d.drop(ctx)
	}
}

// options are those of a step that is tried again by its lane alone. A step
// that is cancelled is waited for.
func (d *database) options(ctx workflow.Context, queue string, fetch, within time.Duration) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              queue,
		ScheduleToStartTimeout: fetch,
		StartToCloseTimeout:    within,
		HeartbeatTimeout:       d.s.Config.HeartbeatTimeout,
		WaitForCancellation:    true,
		RetryPolicy:            &temporal.RetryPolicy{MaximumAttempts: 1},
	})
}

// boxed is how long a lane of data may take: its time box, and as long as it
// may go on while Temporal is away.
const boxed = activities.TimeBox + activities.DetachedMax + time.Hour

func (d *database) capture(ctx workflow.Context) (queue string, err error) {
	queue = d.queue(LaneCapture)
	return queue, workflow.ExecuteActivity(d.options(ctx, queue, fetchWithin, boxed), steps.Capture, activities.CaptureInput{
		DB: d.s.Config, Epoch: d.s.Epoch, SystemID: d.s.SystemID, Timeline: d.s.Timeline,
	}).Get(ctx, nil)
}

// commit offers the lane to the worker with the warm index first.
func (d *database) commit(ctx workflow.Context) (queue string, err error) {
	in := activities.CommitInput{
		DB: d.s.Config, Epoch: d.s.Epoch, Resume: d.s.Resume, Floor: d.s.Floor, Parked: d.s.excluded(), Recopied: d.s.recopied(),
	}
	if d.s.Worker != "" {
		queue = WorkerQueue(d.s.Config.Region, d.s.Config.Pool, LaneCommit, d.s.Worker)
		if err := d.commitOn(ctx, queue, stickyFor, in); !notFetched(err) {
			return queue, err
		}
		if d.s.Worker = ""; !d.current(ctx, committing) {
			return queue, ctx.Err()
		}
	}
	queue = d.queue(LaneCommit)
	return queue, d.commitOn(ctx, queue, fetchWithin, in)
}

func (d *database) commitOn(ctx workflow.Context, queue string, fetch time.Duration, in activities.CommitInput) error {
	hints, pool := d.hints, d.s.Config.Pool
	var out activities.LaneResult
	err := workflow.ExecuteActivity(d.options(ctx, queue, fetch, boxed), steps.Commit, in).Get(ctx, &out)
	var timeout *temporal.TimeoutError
	switch {
	case err == nil:
		if d.s.Worker = out.Worker; out.Stopping || pool != d.s.Config.Pool {
			d.s.Worker = ""
		}
		d.positions(out.Tables)
		if hints == d.hints {
			d.s.Resume = out.Resume
		}
	case errors.As(err, &timeout) && timeout.HasLastHeartbeatDetails():
		var p activities.CommitProgress
		if d.s.Worker = ""; timeout.LastHeartbeatDetails(&p) == nil {
			d.positions(p.Tables)
			if p.Resume != nil && hints == d.hints {
				d.s.Resume = p.Resume
			}
		}
	}
	return err
}

// positions keeps how far tables were committed.
func (d *database) positions(tables []activities.TablePosition) {
	for _, p := range tables {
		d.s.change(&activities.TableChange{OID: p.OID, Position: p.Position}, LaneCommit)
	}
}

// prepare makes sure that slot, publications, topic and lake are there.
func (d *database) prepare(ctx workflow.Context) (queue string, err error) {
	queue = d.queue(LaneControl)
	heard := d.reports
	var out activities.PrepareResult
	err = workflow.ExecuteActivity(d.options(ctx, queue, fetchWithin, shortStep), steps.Prepare, activities.PrepareInput{
		DB: d.s.Config, Epoch: d.s.Epoch, SystemID: d.s.SystemID, Timeline: d.s.Timeline, Anew: d.s.NewEpoch != nil,
	}).Get(ctx, &out)
	if err != nil || !d.current(ctx, preparing) {
		return queue, err
	}
	d.begun(&out)
	d.s.Epoch, d.s.SystemID, d.s.Timeline = out.Epoch, out.SystemID, out.Timeline
	listed := map[uint32]bool{}
	for i := range out.Tables {
		listed[out.Tables[i].OID] = true
		d.found(&out.Tables[i], out.LSN, heard, names[preparing])
	}
	d.s.gone(func(t *TableState) bool { return !listed[t.OID] }, names[preparing])
	d.s.Prepared, d.s.Trouble = true, nil
	d.s.enter(prepared, nil, names[preparing])
	return queue, nil
}

// found takes what a step saw of a table, unless a lane has reported of it since
// the step began. A live table whose copy is due is then looked at again.
func (d *database) found(info *activities.TableInfo, at change.LSN, heard int, by string) {
	if t := d.s.table(info.OID); t != nil && d.heard[info.OID] > heard {
		t.Judge = t.Judge || t.Phase == Live && t.Recopy
		return
	}
	if d.s.found(info, at, by) {
		d.forget()
		d.restart(committing)
	}
}

// restart begins lane i again, with what the state says now.
func (d *database) restart(i int) {
	if l := &d.lanes[i]; l.running && l.cancel != nil {
		l.cancel()
		l.cancel = nil
	}
}

// forget makes the commit lane read the topic from its beginning: what a table
// lacks that was parked may lie before the hint.
func (d *database) forget() {
	d.s.Resume = nil
	d.hints++
}

// scan looks, now and then, for tables that appeared or vanished.
func (d *database) scan(ctx workflow.Context) (queue string, err error) {
	queue = d.queue(LaneControl)
	if _, err := workflow.AwaitWithTimeout(ctx, max(3*d.s.Config.HeartbeatTimeout, 5*time.Second), d.s.judging); err != nil {
		return queue, err
	}
	return queue, d.look(ctx, queue, func() bool { return d.current(ctx, scanning) })
}

// look looks once for tables that appeared or vanished, and at those that somebody
// asked to go on, and takes over what it came to while that still counts.
func (d *database) look(ctx workflow.Context, queue string, counts func() bool) error {
	if err := d.looking.Lock(ctx); err != nil {
		return err
	}
	defer d.looking.Unlock()
	in := activities.ScanInput{DB: d.s.Config, Epoch: d.s.Epoch, SystemID: d.s.SystemID, Timeline: d.s.Timeline}
	if d.s.Copy != nil {
		in.Copy = d.s.Copy.ID
	}
	judged := map[uint32]bool{}
	for i := range d.s.Tables {
		switch t := &d.s.Tables[i]; {
		case t.Judge:
			judged[t.OID] = true // as if it had just appeared
		case t.Phase != Gone:
			in.Known = append(in.Known, activities.KnownTable{
				OID: t.OID, Name: t.Name, Ground: t.Ground, Parked: t.Phase == Parked || t.Phase == Paused,
			})
		}
	}
	heard := d.reports
	var out activities.ScanResult
	err := workflow.ExecuteActivity(d.options(ctx, queue, fetchWithin, shortStep), steps.Scan, in).Get(ctx, &out)
	if err != nil || !counts() {
		return err
	}
	gone := judged
	for i := range out.Found {
		d.found(&out.Found[i], out.LSN, heard, names[scanning])
		delete(gone, out.Found[i].OID)
	}
	for _, oid := range out.Gone {
		gone[oid] = true
	}
	vanished := d.s.gone(func(t *TableState) bool { return gone[t.OID] }, names[scanning])
	for i := range out.Parked {
		d.s.change(&out.Parked[i], names[scanning])
	}
	if out.CopyGone && in.Copy != "" {
		d.copied(in.Copy)
	}
	if vanished || len(out.Found)+len(out.Parked) > 0 {
		d.touch()
	}
	return nil
}

// drop drops what was made at the source, and purges what was made elsewhere if
// that is asked for. Where it is forced, each ends with its first failure, and the
// answer tells what stays behind.
func (d *database) drop(ctx workflow.Context) (queue string, err error) {
	queue = d.queue(LaneControl)
	within := shortStep
	if d.s.Remove.Force {
		within = forcedStep
	}
	out := activities.DropResult{Left: activities.AtSource(d.s.Config.Name, d.s.Epoch)}
	if !d.s.Remove.KeepSlot {
		var dropped activities.DropResult
		err = workflow.ExecuteActivity(d.options(ctx, queue, fetchWithin, within), steps.Drop, activities.DropInput{
			DB: d.s.Config, Epoch: d.s.Epoch, Force: d.s.Remove.Force,
		}).Get(ctx, &dropped)
		if !d.current(ctx, dropping) {
			return queue, err
		}
		if err == nil {
			out = dropped
		} else if !d.s.Remove.Force {
			return queue, err
		}
	}
	purged, err := d.purge(ctx, queue)
	if err != nil && d.s.Remove.Force && failure(ctx, &d.s.Config, queue, err).Reason.Code != activities.CodeWorkerLost {
		out.Left, err = append(out.Left, activities.Outside(&d.s.Config)...), nil
	}
	if err == nil && d.current(ctx, dropping) {
		d.removed = &Removed{Dropped: append(out.Dropped, purged...), Left: out.Left}
	}
	return queue, err
}
