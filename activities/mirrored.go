package activities

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/activities/internal/batch"
	"github.com/millrace-io/millrace/activities/internal/lake"
	"github.com/millrace-io/millrace/activities/internal/topic"
)

// catchUpRows is about how many history rows one job applies to latest, so that
// a table that catches up does not hold its own commits up for long.
const catchUpRows = 200_000

// restAfter is how long a table keeps the memory of its batches for the next
// change.
const restAfter = 10 * time.Second

// mirrored is one table in the commit lane. The lane's goroutine owns it, save
// mirror and result while a job runs.
type mirrored struct {
	oid       uint32
	name      string
	partition int
	tracker   *topic.Tracker
	table     *change.Table // some shape of it
	mirror    *lake.Mirror
	layout    *batch.Layout
	// incarnation is the mirror\'s when layout was made.
	incarnation int64

	// twins are other tables that have the same mirror: the table of that name
	// was dropped and made again.
	twins []*mirrored

	// queue holds records that no watermark covers yet, and queuedBytes what they
	// took of the budget.
	queue       []queued
	queuedBytes int64
	// batch holds decoded changes, since when, and what they took of the budget.
	batch *batch.Batch
	spare *batch.Batch
	since time.Time
	taken int64
	used  time.Time // when the batch was last sealed or added to
	// decoded is the last change that was decoded, staged the last that was
	// handed over for staging; stagedFirst is the first of those.
	decoded, staged, stagedFirst change.Position
	// stuck tells that the queue waits for jobs, to go on in another shape.
	stuck bool
	// dead is an epoch whose last transaction never became complete: nothing of
	// it is decoded before a watermark covers it.
	dead uint32
	// renamed tells that the workflow was told of another name.
	renamed bool
	// hold is set once changes did not fit while a copy was due.
	hold *holding

	jobs   []job // the first may be running
	busy   bool
	result outcome
	parked *Reason
	rows   int64
	// tendAt is when to look whether the tables need maintenance.
	tendAt time.Time
}

// holding is a table whose changes do not fit as it is, and may under the copy
// that is due.
type holding struct {
	failure Failure
	// waits tells that the copy has not begun; looked is when that was found out.
	waits  bool
	looked time.Time
	// again and skipped tell that the changes were tried again since it began, and
	// that those before its cut were given up.
	again, skipped bool
}

// queued is a record, of whose changes those after one position and up to
// another are wanted.
type queued struct {
	record     topic.Record
	after, end change.Position
}

type jobKind byte

const (
	jobOpen    jobKind = iota // open the mirror and see whether latest is behind
	jobCommit                 // commit a batch
	jobStage                  // write rows that a later commit makes visible
	jobCatchUp                // apply history to latest
)

// job is one step on one table's mirror.
type job struct {
	kind  jobKind
	batch *batch.Batch
	taken int64
	since time.Time // when the oldest of its changes came
	fresh bool      // twins may have committed since the last
}

// outcome is what a job came to. again asks for a catch-up.
type outcome struct {
	wrote lake.Committed
	again bool
	err   error
}

func (m *mirrored) push(j job) { m.jobs = append(m.jobs, j) }

// behind tells that latest may not have what history has.
func (m *mirrored) behind() bool {
	return slices.ContainsFunc(m.jobs, func(j job) bool { return j.kind == jobOpen || j.kind == jobCatchUp })
}

// open opens the mirror unless it is open.
func (m *mirrored) open(ctx context.Context, l *lake.Lake, db *fleet.Database) error {
	if m.mirror != nil {
		return nil
	}
	mirror, err := l.Mirror(ctx, m.table, lake.MirrorOptions{Casts: db.Table(m.table.Schema, m.table.Name).Casts})
	if err != nil {
		return err
	}
	m.mirror = mirror
	return nil
}

// shape makes t the table's shape from the next change on.
func (m *mirrored) shape(ctx context.Context, l *lake.Lake, db *fleet.Database, t *change.Table) error {
	if err := m.open(ctx, l, db); err != nil {
		return err
	}
	if err := m.mirror.Evolve(ctx, t); err != nil {
		return err
	}
	layout, err := m.mirror.Layout(t)
	if err != nil {
		return err
	}
	m.table, m.layout, m.spare = t, layout, nil
	m.batch = batch.New(layout)
	m.incarnation = m.mirror.State().Incarnation
	return nil
}

// outgrown tells that a copy has begun since the layout was made, and may have
// given the columns other types: what was decoded has to be decoded again.
func (m *mirrored) outgrown(ctx context.Context) bool {
	return m.mirror != nil && m.layout != nil && m.mirror.Refresh(ctx) == nil && m.mirror.State().Incarnation != m.incarnation
}

// enqueue keeps a record until a watermark covers it, and returns what it takes
// of the budget.
func (m *mirrored) enqueue(r *topic.Record, after change.Position) (taken int64) {
	m.queue = append(m.queue, queued{record: r.Clone(), after: after, end: r.Data.Last})
	taken = cost(r)
	m.queuedBytes += taken
	return taken
}

// cost is about what a record takes in memory.
func cost(r *topic.Record) int64 { return int64(len(r.Data.Body)) + 256 }

// unqueue forgets the first record, and returns what it took.
func (m *mirrored) unqueue() (taken int64) {
	taken = cost(&m.queue[0].record)
	m.queuedBytes -= taken
	m.queue[0] = queued{}
	if m.queue = m.queue[1:]; len(m.queue) == 0 {
		m.queue = nil
	}
	return taken
}

// trim forgets the queued changes beyond a position: their transaction never
// became complete. It returns what they took.
func (m *mirrored) trim(upTo change.Position) (taken int64) {
	for n := len(m.queue); n > 0; n = len(m.queue) {
		q := &m.queue[n-1]
		if !upTo.Before(q.record.Data.First) {
			if upTo.Before(q.end) {
				q.end = upTo
			}
			break
		}
		taken += cost(&q.record)
		*q = queued{}
		m.queue = m.queue[:n-1]
	}
	m.queuedBytes -= taken
	return taken
}

// last is the last change that was taken.
func (m *mirrored) last() change.Position { return m.tracker.Taken(m.oid) }

// complete is how far the changes that were taken are whole transactions.
func (m *mirrored) complete() change.Position {
	upTo, _ := m.tracker.Complete(m.oid)
	return upTo
}

// ahead tells that part of a transaction was decoded that no watermark covers
// yet.
func (m *mirrored) ahead() bool { return m.complete().Before(m.decoded) }

// first is the first change that was decoded and not handed over for a commit;
// zero where there is none.
func (m *mirrored) first() change.Position {
	switch {
	case !m.staged.IsZero():
		return m.stagedFirst
	case m.batch != nil && m.batch.Rows() > 0:
		return m.batch.First()
	}
	return change.Position{}
}

// oldest is the first change that is not committed; zero where there is none.
func (m *mirrored) oldest() change.Position {
	for i := range m.jobs {
		if b := m.jobs[i].batch; b != nil && b.Rows() > 0 {
			return b.First()
		}
	}
	if first := m.first(); !first.IsZero() {
		return first
	}
	if len(m.queue) > 0 {
		return m.queue[0].record.Data.First
	}
	return change.Position{}
}

// ready tells that there are changes, all of whole transactions.
func (m *mirrored) ready() bool {
	if m.first().IsZero() {
		return false
	}
	last := m.staged
	if m.batch.Rows() > 0 {
		last = m.batch.Last()
	}
	return !m.complete().Before(last)
}

// mayCommit tells that everything that the table's twins changed before it is
// committed: one history holds the changes of all, in order.
func (m *mirrored) mayCommit() bool {
	first := m.first()
	for _, t := range m.twins {
		if t.parked != nil {
			continue
		}
		if oldest := t.oldest(); !oldest.IsZero() && oldest.Before(first) {
			return false
		}
		read := t.tracker.Watermark()
		if read.Epoch < first.Epoch || read.Epoch == first.Epoch && read.EndLSN <= first.CommitLSN {
			return false
		}
	}
	return true
}

// seal turns what is ready into a commit, if it may be committed.
func (m *mirrored) seal() {
	if m.ready() && m.mayCommit() {
		m.push(job{kind: jobCommit, since: m.since, batch: m.take(), taken: m.give()})
		m.since, m.staged = time.Time{}, change.Position{}
	}
}

// stage hands the batch over to be written and made visible later.
func (m *mirrored) stage() {
	if m.staged.IsZero() {
		m.stagedFirst = m.batch.First()
	}
	m.staged = m.batch.Last()
	m.push(job{kind: jobStage, since: m.since, batch: m.take(), taken: m.give()})
}

// take hands the batch out and puts an empty one in its place.
func (m *mirrored) take() *batch.Batch {
	b := m.batch
	if m.spare != nil {
		m.batch, m.spare = m.spare, nil
	} else {
		m.batch = batch.New(m.layout)
	}
	m.used = time.Now()
	return b
}

// give hands out what the batch took of the budget.
func (m *mirrored) give() int64 {
	n := m.taken
	m.taken = 0
	return n
}

// reuse keeps a batch's memory for the next.
func (m *mirrored) reuse(b *batch.Batch) {
	if b != nil && b.Layout() == m.layout && m.spare == nil && b.Size() < flushBytes {
		b.Reset()
		m.spare = b
	}
}

// rest gives up the memory of a table that does not change.
func (m *mirrored) rest(now time.Time) {
	if m.batch != nil && m.first().IsZero() && len(m.jobs) == 0 && now.Sub(m.used) > restAfter {
		m.batch, m.spare, m.layout = nil, nil, nil
	}
}

// oldestSince is when the oldest change came that is not committed.
func (m *mirrored) oldestSince() time.Time {
	for i := range m.jobs {
		if !m.jobs[i].since.IsZero() {
			return m.jobs[i].since
		}
	}
	return m.since
}

// owed is what the table has of the budget, less the job that runs.
func (m *mirrored) owed() int64 {
	n := m.taken + m.queuedBytes
	for i := range m.jobs {
		if i > 0 || !m.busy {
			n += m.jobs[i].taken
		}
	}
	return n
}

// waits tells that changes are kept until a copy begins.
func (m *mirrored) waits() bool { return m.hold != nil && m.hold.waits }

// abandon forgets all that is not committed, save the job that runs, and
// returns what it had of the budget.
func (m *mirrored) abandon() (taken int64) {
	taken = m.owed()
	m.queue, m.queuedBytes = nil, 0
	m.batch, m.spare, m.layout = nil, nil, nil
	m.taken, m.since, m.stuck = 0, time.Time{}, false
	m.decoded, m.staged = change.Position{}, change.Position{}
	if m.busy {
		m.jobs = m.jobs[:1]
	} else {
		m.jobs = nil
	}
	return taken
}

// run carries out a job. It runs beside the lane's goroutine.
func (m *mirrored) run(ctx context.Context, l *lake.Lake, db *fleet.Database, j job) (out outcome) {
	if out.err = m.open(ctx, l, db); out.err != nil {
		return out
	}
	if j.fresh && (j.kind == jobCommit || j.kind == jobStage) && m.mirror.Staged() == 0 {
		if out.err = m.mirror.Refresh(ctx); out.err != nil {
			return out
		}
	}
	switch j.kind {
	case jobOpen:
		out.again = m.lags()
	case jobStage:
		out.err = m.mirror.Stage(ctx, j.batch)
	case jobCatchUp:
		var done bool
		done, out.err = m.mirror.CatchUp(ctx, catchUpRows)
		if errors.Is(out.err, lake.ErrNotCopied) {
			out.err, done = nil, true
		}
		out.again = !done && out.err == nil
	case jobCommit:
		if out.wrote, out.err = m.mirror.Commit(ctx, j.batch, change.Position{}); out.err != nil {
			return out
		}
		if out.wrote.Latest || m.table.Identity == change.IdentityNone {
			return out
		}
		// A copy may have gone live beside us: then what was committed to
		// history alone is caught up.
		if out.err = m.mirror.Refresh(ctx); out.err == nil {
			out.again = m.lags()
		}
	}
	return out
}

// lags tells that a catch-up has something to do here: latest is behind and the
// copy lane has left it to us.
func (m *mirrored) lags() bool {
	return m.mirror.State().Phase == lake.Live && m.table.Identity != change.IdentityNone &&
		m.mirror.LatestApplied().Before(m.mirror.Applied())
}
