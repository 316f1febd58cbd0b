package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/lake"
	"github.com/millrace-io/millrace/activities/internal/topic"
)

const (
	// jobsAtOnce is how many tables of one database commit at the same time.
	jobsAtOnce = 2
	// flushBytes seals a batch before its freshness asks for it.
	flushBytes = 64 << 20
	// queueBytes is how much of an incomplete transaction of one table waits as
	// records before it is decoded ahead of its watermark.
	queueBytes = 8 << 20
)

// errRewind ends a run whose hint skipped records that a table needs.
var errRewind = errors.New("read the topic from its beginning")

// Commit is the commit lane of one database: it reads the topic, folds changes
// into batches and commits them to history and latest, as rarely as freshness
// permits.
func (a *Activities) Commit(actx context.Context, in CommitInput) (LaneResult, error) {
	l, end, err := a.begin(actx, "commit", in.DB.Name)
	if err != nil {
		return LaneResult{}, err
	}
	defer end()
	c := &committer{
		a: a, l: l, in: in, tables: map[uint32]*mirrored{}, passed: map[string]map[int]bool{},
		results: make(chan *mirrored, jobsAtOnce),
		told:    a.tell(l, activity.GetInfo(actx).WorkflowExecution),
	}
	defer c.close()
	a.metrics.tablesParked.WithLabelValues(in.DB.Name).Set(float64(len(in.Parked)))
	l.report(func() any { return c.progress() })
	err = c.open()
	if err == nil {
		err = c.run()
	}
	c.settle()
	out := l.result(a.cfg.Worker)
	out.Tables = c.progress().Tables
	switch {
	case errors.Is(err, errRewind):
		a.cfg.Log.Warn("rewinding", "database", in.DB.Name, "lane", "commit")
		out.Why = errRewind.Error()
		return out, nil
	case errors.Is(err, lake.ErrFenced):
		out.Why = err.Error()
		out.Resume = c.resume()
		return out, nil
	case err != nil && l.ctx.Err() != nil && l.halted():
		err = nil
	}
	if c.trackers != nil {
		out.Resume = c.resume()
	}
	return out, err
}

// committer is one run of the commit lane. Its goroutine owns everything but
// the mirrors of tables whose job runs, and the figures below mu.
type committer struct {
	a        *Activities
	l        *lane
	in       CommitInput
	lake     *lake.Lake
	schemas  *topic.Schemas
	reader   *topic.Reader
	trackers []*topic.Tracker
	hinted   bool
	tables   map[uint32]*mirrored
	cursor   topic.Cursor
	event    change.Event
	passed   map[string]map[int]bool // markers: the partitions that reached them
	markers  int                     // markers seen and not reached, over all partitions
	running  int
	results  chan *mirrored
	jobs     sync.WaitGroup
	told     *teller
	failed   error
	read     topic.Watermark // the last that was read
	measured time.Time

	mu     sync.Mutex
	figure CommitProgress
	recent []TablePosition
}

// open connects and finds where to read on.
func (c *committer) open() error {
	ctx := c.l.ctx
	defer c.l.wait("kafka", openWithin)()
	var err error
	if c.lake, err = c.a.lake(ctx, &c.in.DB); err != nil {
		return err
	}
	if c.schemas, err = c.a.kafka.LoadSchemas(ctx, c.in.DB.Topic.Name); err != nil {
		return err
	}
	resume := make([]topic.Resume, c.in.DB.Topic.Partitions)
	if len(c.in.Resume) > 0 {
		if err := json.Unmarshal(c.in.Resume, &resume); err != nil || len(resume) != c.in.DB.Topic.Partitions {
			return errRewind
		}
		c.hinted = true
	}
	from := map[int]int64{}
	for p, r := range resume {
		if r.Offset > 0 {
			from[p] = r.Offset
		}
		c.trackers = append(c.trackers, topic.NewTracker(p, r))
	}
	c.reader, err = c.a.kafka.Reader(ctx, topic.ReaderConfig{Topic: c.in.DB.Topic.Name, From: from})
	if c.hinted && (errors.Is(err, topic.ErrOffsetLost) || errors.Is(err, topic.ErrOffsetAhead)) {
		return errRewind
	}
	if err != nil {
		return err
	}
	// A crash may have left latest behind history: every table is looked at
	// once, whether it changes or not.
	for _, t := range c.schemas.Latest() {
		m, err := c.table(t)
		if err != nil {
			return err
		}
		if m.parked == nil {
			m.push(job{kind: jobOpen})
		}
	}
	return nil
}

// table returns the entry of a table, making it.
func (c *committer) table(t *change.Table) (*mirrored, error) {
	m := c.tables[t.OID]
	if m != nil {
		return m, nil
	}
	p, known := c.schemas.Partition(t.OID)
	if !known || p >= len(c.trackers) {
		return nil, fmt.Errorf("find the partition of %s: %w", t, topic.ErrSchemaUnknown)
	}
	m = &mirrored{oid: t.OID, name: t.String(), tracker: c.trackers[p], table: t}
	c.tables[t.OID] = m
	if slices.Contains(c.in.Parked, t.OID) {
		m.parked = &Reason{}
		m.tracker.Park(t.OID)
	}
	return m, nil
}

// run reads until the lane is halted.
func (c *committer) run() error {
	for !c.l.halted() {
		if c.failed != nil {
			return c.failed
		}
		c.schedule(time.Now())
		if c.starved() {
			c.measure(time.Now())
			select {
			case m := <-c.results:
				c.finished(m)
			case <-c.l.stop:
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		records, err := c.reader.Next(c.l.ctx, c.patience())
		if err != nil {
			if c.l.ctx.Err() != nil {
				return c.failed
			}
			return err
		}
		c.l.beat()
		for i := range records {
			if err := c.record(&records[i]); err != nil {
				return err
			}
		}
		for len(c.results) > 0 {
			c.finished(<-c.results)
		}
		c.reach()
		c.measure(time.Now())
	}
	return c.failed
}

// measure takes the figures that heartbeats carry.
func (c *committer) measure(now time.Time) {
	if now.Sub(c.measured) < 200*time.Millisecond {
		return
	}
	c.measured = now
	lag := time.Duration(0)
	for _, m := range c.tables {
		if m.parked == nil && !m.since.IsZero() {
			lag = max(lag, now.Sub(m.since))
		}
	}
	for _, span := range c.reader.Ends() {
		if span.Next < span.End && c.read.Micros > 0 {
			lag = max(lag, now.Sub(time.UnixMicro(c.read.Micros)))
		}
	}
	resume := c.resume()
	stats := c.reader.Stats()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.figure.Worker = c.a.cfg.Worker
	c.figure.Resume = resume
	c.figure.Read = c.read.EndLSN.String()
	c.figure.LagSeconds = lag.Seconds()
	c.figure.WaitingFor, c.figure.Since = "", ""
	switch {
	case !stats.WaitingSince.IsZero() && now.Sub(stats.WaitingSince) > time.Second:
		c.figure.WaitingFor, c.figure.Since = "kafka", stats.WaitingSince.UTC().Format(time.RFC3339)
	case c.starved():
		c.figure.WaitingFor, c.figure.Since = "memory", now.UTC().Format(time.RFC3339)
	}
	c.a.metrics.lagSeconds.WithLabelValues(c.in.DB.Name, "commit").Set(c.figure.LagSeconds)
}

// progress is what heartbeats carry.
func (c *committer) progress() CommitProgress {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.figure
	p.Tables = slices.Clone(c.recent)
	if p.WaitingFor == "" {
		p.WaitingFor, p.Since = c.l.waitsFor()
	}
	return p
}

// patience is how long a read may wait: less while jobs are on their way.
func (c *committer) patience() time.Duration {
	if c.running > 0 || c.markers > 0 {
		return 5 * time.Millisecond
	}
	return 50 * time.Millisecond
}

// starved tells that the budget is spent: nothing is read until a job ends.
func (c *committer) starved() bool {
	return c.a.budget.Spent() && c.running > 0
}

// record takes one record.
func (c *committer) record(r *topic.Record) error {
	tr := c.trackers[r.Partition]
	switch r.Kind {
	case topic.KindStream:
		return c.stream(tr.OnStream(r))
	case topic.KindMarker:
		c.markers++
		tr.OnMarker(r)
		return nil
	case topic.KindWatermark:
		return c.watermark(tr, r)
	case topic.KindData:
		return c.data(tr, r)
	}
	return nil
}

// stream rewinds when a hint was of another stream than the topic has now.
func (c *committer) stream(err error) error {
	if err != nil && c.hinted && errors.Is(err, topic.ErrStreamChanged) {
		return errRewind
	}
	return err
}

// track tells the tracker what was applied of a table.
func (c *committer) track(oid uint32, shape *change.Table) error {
	if shape == nil {
		i := slices.IndexFunc(c.schemas.Latest(), func(t *change.Table) bool { return t.OID == oid })
		if i < 0 {
			return fmt.Errorf("track table %d: %w", oid, topic.ErrSchemaUnknown)
		}
		shape = c.schemas.Latest()[i]
	}
	m, err := c.table(shape)
	if err != nil {
		return err
	}
	if m.parked != nil {
		m.tracker.Park(oid)
		return nil
	}
	c.await(m)
	if err := m.open(c.l.ctx, c.lake, &c.in.DB); err != nil {
		return c.trouble(m, err)
	}
	m.tracker.Track(oid, m.mirror.Applied())
	return c.failed
}

// await waits until no job of m runs, so that its mirror may be used here.
func (c *committer) await(m *mirrored) {
	for m.busy {
		c.finished(<-c.results)
	}
}

func (c *committer) data(tr *topic.Tracker, r *topic.Record) error {
	verdict, after := tr.Admit(r)
	if verdict == topic.Ask {
		shape, err := c.schemas.Table(c.l.ctx, r.Data.OID, r.Data.Fingerprint)
		if err != nil {
			return err
		}
		if err := c.track(r.Data.OID, shape); err != nil {
			return err
		}
		verdict, after = tr.Admit(r)
	}
	if verdict != topic.Take {
		return nil
	}
	m := c.tables[r.Data.OID]
	m.enqueue(r, after)
	if m.queuedBytes > queueBytes {
		// A transaction that is too large to wait as records.
		return c.decode(m, r.Data.Last)
	}
	return nil
}

func (c *committer) watermark(tr *topic.Tracker, r *topic.Record) error {
	out, err := tr.OnWatermark(r)
	if err := c.stream(err); err != nil {
		return err
	}
	if len(out.Ask) > 0 {
		for _, oid := range out.Ask {
			if err := c.track(oid, nil); err != nil {
				return err
			}
		}
		if out, err = tr.OnWatermark(r); err != nil {
			return err
		}
	}
	for _, gap := range out.Gaps {
		if c.hinted {
			return errRewind
		}
		if m := c.tables[gap.OID]; m != nil {
			if err := c.trouble(m, gap); err != nil {
				return err
			}
		}
	}
	for _, oid := range out.Ended {
		m := c.tables[oid]
		if m == nil {
			continue
		}
		if m.ahead {
			return lake.ErrFenced // staged rows of a transaction that never was: begin anew
		}
		m.drop()
	}
	for i := range r.Watermark.Tables {
		m := c.tables[r.Watermark.Tables[i].OID]
		if m == nil || len(m.queue) == 0 && !m.ahead {
			continue
		}
		upTo, all := tr.Complete(m.oid)
		if err := c.decode(m, upTo); err != nil {
			return err
		}
		if all || !upTo.Before(m.last()) {
			m.ahead = false
		}
	}
	c.read = r.Watermark
	return nil
}

// decode moves the queued changes of m up to a position into its batch.
func (c *committer) decode(m *mirrored, upTo change.Position) error {
	for len(m.queue) > 0 && m.parked == nil {
		q := &m.queue[0]
		shape, err := c.schemas.Table(c.l.ctx, m.oid, q.record.Data.Fingerprint)
		if err != nil {
			return err
		}
		if m.layout == nil || m.layout.Table.Fingerprint != shape.Fingerprint {
			if m.outstanding() > 0 || m.batch != nil && m.batch.Rows() > 0 {
				m.seal()
				m.stuck = true // goes on when the jobs are done
				return nil
			}
			if err := m.shape(c.l.ctx, c.lake, &c.in.DB, shape); err != nil {
				return c.trouble(m, err)
			}
		}
		if upTo.Before(q.record.Data.Last) {
			if complete, _ := m.tracker.Complete(m.oid); complete.Before(upTo) {
				m.ahead = true
			}
		}
		c.cursor.Reset(&q.record.Data, shape, q.after)
		before := m.batch.Size()
		rest := false
		for c.cursor.Next(&c.event) {
			if upTo.Before(c.event.Position) {
				rest = true
				break
			}
			if err := m.batch.Append(&c.event); err != nil {
				return c.trouble(m, err)
			}
			q.after = c.event.Position
		}
		if err := c.cursor.Err(); err != nil {
			return err
		}
		grown := m.batch.Size() - before
		c.a.budget.Force(grown)
		m.taken += grown
		if m.since.IsZero() {
			m.since = time.Now()
		}
		if rest {
			return nil
		}
		m.unqueue()
		if complete, _ := m.tracker.Complete(m.oid); complete.Before(m.batch.Last()) {
			m.ahead = true
			if m.batch.Size() > flushBytes || c.a.budget.Spent() {
				m.stage()
			}
		}
	}
	return nil
}

// schedule seals what is due and starts jobs.
func (c *committer) schedule(now time.Time) {
	due := c.in.DB.Freshness * 6 / 10
	force := c.markers > 0 || c.a.budget.Spent()
	for _, m := range c.tables {
		if m.parked != nil {
			continue
		}
		if m.ready() && (force || now.Sub(m.since) >= due || m.batch.Size() >= flushBytes) {
			m.seal()
		}
		if !m.busy && len(m.jobs) > 0 && c.running < jobsAtOnce {
			c.start(m)
		}
	}
}

// start runs the first job of m in a goroutine of its own.
func (c *committer) start(m *mirrored) {
	m.busy = true
	c.running++
	waited := c.l.wait("lake", jobWithin)
	c.jobs.Go(func() {
		m.result = m.run(c.l.ctx, c.lake, &c.in.DB, m.jobs[0])
		waited()
		c.results <- m
	})
}

// finished takes the outcome of a job.
func (c *committer) finished(m *mirrored) {
	j := m.jobs[0]
	m.jobs = slices.Delete(m.jobs, 0, 1)
	m.busy = false
	c.running--
	c.a.budget.Give(j.taken)
	c.l.beat()
	if m.result.err != nil {
		if err := c.trouble(m, m.result.err); err != nil && c.failed == nil {
			c.failed = err
		}
		return
	}
	m.reuse(j.batch)
	if m.mirror != nil {
		m.tracker.Applied(m.oid, m.mirror.Applied())
		if m.result.again {
			m.push(job{kind: jobCatchUp})
		}
	}
	if w := m.result.wrote; w.Commits > 0 {
		db := c.in.DB.Name
		c.a.metrics.rows.WithLabelValues(db, "commit").Add(float64(w.Rows))
		c.a.metrics.bytes.WithLabelValues(db, "commit").Add(float64(w.Bytes))
		c.a.metrics.commits.WithLabelValues(db).Add(float64(w.Commits))
		c.a.metrics.files.WithLabelValues(db).Add(float64(w.Files))
		m.rows += w.Rows
		c.mu.Lock()
		c.figure.Rows += w.Rows
		c.figure.Commits += int64(w.Commits)
		c.figure.Files += int64(w.Files)
		at := TablePosition{OID: m.oid, Position: m.mirror.Applied().String(), Rows: m.rows}
		c.recent = slices.DeleteFunc(c.recent, func(t TablePosition) bool { return t.OID == m.oid })
		c.recent = slices.Insert(c.recent, 0, at)
		if len(c.recent) > 500 {
			c.recent = c.recent[:500]
		}
		c.mu.Unlock()
	}
	if m.stuck && m.outstanding() == 0 {
		m.stuck = false
		upTo, _ := m.tracker.Complete(m.oid)
		if err := c.decode(m, upTo); err != nil && c.failed == nil {
			c.failed = err
		}
	}
}

// trouble decides what an error of one table means: it parks the table, or
// comes back because the lane cannot go on.
func (c *committer) trouble(m *mirrored, err error) error {
	f := Classify(err)
	if !f.Park || f.Database {
		return err
	}
	f.Reason.Since = time.Now().UTC().Format(time.RFC3339)
	m.parked = &f.Reason
	m.tracker.Park(m.oid)
	c.a.budget.Give(m.taken)
	for i := range m.jobs {
		if i > 0 || !m.busy {
			c.a.budget.Give(m.jobs[i].taken)
		}
	}
	m.abandon()
	c.a.metrics.tablesParked.WithLabelValues(c.in.DB.Name).Inc()
	c.a.metrics.failed("Commit", c.in.DB.Name, &f)
	c.a.cfg.Log.Warn("table parked", "database", c.in.DB.Name, "table", m.name, "code", f.Reason.Code)
	c.told.table(TableChange{OID: m.oid, Reason: &f.Reason})
	return nil
}

// reach tells the workflow about markers that every partition has passed.
func (c *committer) reach() {
	if c.markers == 0 {
		return
	}
	for _, m := range c.tables {
		if m.parked == nil && m.behind() {
			return
		}
	}
	for p, tr := range c.trackers {
		for _, marker := range tr.Reached() {
			c.markers--
			if c.passed[marker.Token] == nil {
				c.passed[marker.Token] = map[int]bool{}
			}
			// What is published twice counts once.
			c.passed[marker.Token][p] = true
			if len(c.passed[marker.Token]) == len(c.trackers) {
				delete(c.passed, marker.Token)
				c.told.marker(marker.Token)
			}
		}
	}
}

// settle waits for the jobs that run and takes their outcome.
func (c *committer) settle() {
	for c.running > 0 {
		c.finished(<-c.results)
	}
	c.jobs.Wait()
}

// resume says where to go on.
func (c *committer) resume() json.RawMessage {
	at := make([]topic.Resume, len(c.trackers))
	for p, tr := range c.trackers {
		at[p] = tr.Resume()
	}
	b, err := json.Marshal(at)
	if err != nil {
		return nil
	}
	return b
}

// close gives everything back.
func (c *committer) close() {
	for _, m := range c.tables {
		c.a.budget.Give(m.taken)
		for i := range m.jobs {
			c.a.budget.Give(m.jobs[i].taken)
		}
		if m.mirror != nil {
			_ = m.mirror.Close()
		}
	}
	if c.reader != nil {
		_ = c.reader.Close()
	}
	c.told.close()
}
