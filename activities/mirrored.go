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

// mirrored is one table in the commit lane. The lane's goroutine owns it, save
// mirror and result while a job runs.
type mirrored struct {
	oid     uint32
	name    string
	tracker *topic.Tracker
	table   *change.Table // some shape of it
	mirror  *lake.Mirror
	layout  *batch.Layout

	// queue holds records that no watermark covers yet.
	queue       []queued
	queuedBytes int
	// batch holds decoded changes, since when, and what they took of the budget.
	batch *batch.Batch
	spare *batch.Batch
	since time.Time
	taken int64
	// ahead tells that batch or staged rows hold part of a transaction that no
	// watermark covers yet; staged is the last position handed over for staging.
	ahead  bool
	staged change.Position
	// stuck tells that the queue waits for jobs, to go on in another shape.
	stuck bool

	jobs   []job // the first may be running
	busy   bool
	result outcome
	parked *Reason
	rows   int64
}

// queued is a record and the position up to which its changes were taken.
type queued struct {
	record topic.Record
	after  change.Position
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
}

// outcome is what a job came to. again asks for a catch-up.
type outcome struct {
	wrote lake.Committed
	again bool
	err   error
}

func (m *mirrored) push(j job)       { m.jobs = append(m.jobs, j) }
func (m *mirrored) outstanding() int { return len(m.jobs) }

// behind tells that latest may not have what history has.
func (m *mirrored) behind() bool {
	return slices.ContainsFunc(m.jobs, func(j job) bool { return j.kind == jobOpen || j.kind == jobCatchUp })
}

// open opens the mirror unless it is open.
func (m *mirrored) open(ctx context.Context, l *lake.Lake, db *fleet.Database) error {
	if m.mirror != nil {
		return nil
	}
	mirror, err := l.Mirror(ctx, m.table, lake.MirrorOptions{Casts: db.Casts(m.table.Schema, m.table.Name)})
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
	return nil
}

// enqueue keeps a record until a watermark covers it.
func (m *mirrored) enqueue(r *topic.Record, after change.Position) {
	m.queue = append(m.queue, queued{record: r.Clone(), after: after})
	m.queuedBytes += len(r.Data.Body)
}

// unqueue forgets the first record.
func (m *mirrored) unqueue() {
	m.queuedBytes -= len(m.queue[0].record.Data.Body)
	m.queue[0] = queued{}
	m.queue = m.queue[1:]
	if len(m.queue) == 0 {
		m.queue = nil
	}
}

// drop forgets the queue: its transaction never became complete.
func (m *mirrored) drop() { m.queue, m.queuedBytes = nil, 0 }

// last is the last change that was taken.
func (m *mirrored) last() change.Position { return m.tracker.Taken(m.oid) }

// ready tells that the batch has changes, all of whole transactions.
func (m *mirrored) ready() bool {
	if m.batch == nil || m.batch.Rows() == 0 && m.staged.IsZero() {
		return false
	}
	last := m.staged
	if m.batch.Rows() > 0 {
		last = m.batch.Last()
	}
	complete, _ := m.tracker.Complete(m.oid)
	return !complete.Before(last)
}

// seal turns the batch into a commit.
func (m *mirrored) seal() {
	if m.ready() {
		m.push(job{kind: jobCommit, batch: m.take(), taken: m.give()})
		m.since, m.staged = time.Time{}, change.Position{}
	}
}

// stage hands the batch over to be written and made visible later.
func (m *mirrored) stage() {
	m.staged = m.batch.Last()
	m.push(job{kind: jobStage, batch: m.take(), taken: m.give()})
}

// take hands the batch out and puts an empty one in its place.
func (m *mirrored) take() *batch.Batch {
	b := m.batch
	if m.spare != nil {
		m.batch, m.spare = m.spare, nil
	} else {
		m.batch = batch.New(m.layout)
	}
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

// abandon forgets all that is not committed.
func (m *mirrored) abandon() {
	m.drop()
	m.batch, m.spare, m.layout = nil, nil, nil
	m.taken, m.since, m.ahead, m.stuck = 0, time.Time{}, false, false
	m.staged = change.Position{}
	if m.busy {
		m.jobs = m.jobs[:1]
	} else {
		m.jobs = nil
	}
}

// run carries out a job. It runs beside the lane's goroutine.
func (m *mirrored) run(ctx context.Context, l *lake.Lake, db *fleet.Database, j job) (out outcome) {
	if out.err = m.open(ctx, l, db); out.err != nil {
		return out
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
