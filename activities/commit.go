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
	"github.com/millrace-io/millrace/activities/internal/batch"
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
	// lookEvery is how often a table that waits for its copy looks for it.
	lookEvery = 500 * time.Millisecond
	// worthBytes is the least that is written for the sake of memory alone.
	worthBytes = 256 << 10
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
		a: a, l: l, in: in, tables: map[uint32]*mirrored{}, names: map[[2]string][]*mirrored{}, passed: map[string]map[int]bool{},
		results: make(chan *mirrored, jobsAtOnce),
		tender:  newTender(l.ctx),
		told:    a.tell(l, activity.GetInfo(actx).WorkflowExecution),
	}
	defer c.close()
	a.metrics.tablesParked.WithLabelValues(in.DB.Name).Set(float64(len(in.Parked)))
	l.report(func() any { return c.progress() })
	err = c.open()
	if err == nil {
		err = c.run()
	}
	cut := l.halted() && l.ctx.Err() != nil
	if err != nil {
		l.halt("failed") // what still runs has a moment to end
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
	case err != nil && cut:
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
	names    map[[2]string][]*mirrored // by schema and name: one, or twins
	cursor   topic.Cursor
	event    change.Event
	passed   map[string]map[int]bool // markers: the partitions that reached them
	marker   change.Position         // the furthest: what is before it is committed at once
	held     int64                   // what the lane has of the budget
	sought   bool                    // a partition is read again: the records at hand are void
	running  int
	results  chan *mirrored
	jobs     sync.WaitGroup
	tender   tender
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
	if err := c.begin(); err != nil {
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

// begin starts the reader and its trackers at the hint, else at the floor, else
// where the topic begins.
func (c *committer) begin() (err error) {
	n := c.in.DB.Topic.Partitions
	c.hinted = len(c.in.Resume) > 0
	start := c.in.Resume
	if !c.hinted {
		start = c.in.Floor
	}
	resume := make([]topic.Resume, n)
	if len(start) > 0 {
		if err := json.Unmarshal(start, &resume); err != nil || len(resume) != n {
			if c.hinted {
				return errRewind
			}
			resume = make([]topic.Resume, n)
		}
	}
	from := map[int]int64{}
	c.trackers = c.trackers[:0]
	for p, r := range resume {
		if r.Offset > 0 {
			from[p] = r.Offset
		}
		c.trackers = append(c.trackers, topic.NewTracker(p, r))
	}
	c.reader, err = c.a.kafka.Reader(c.l.ctx, topic.ReaderConfig{Topic: c.in.DB.Topic.Name, From: from})
	if lost := errors.Is(err, topic.ErrOffsetLost) || errors.Is(err, topic.ErrOffsetAhead); lost && len(start) > 0 {
		if c.hinted {
			return errRewind
		}
		c.in.Floor = nil // the topic has come past it, or is another
		return c.begin()
	}
	return err
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
	m = &mirrored{oid: t.OID, name: t.String(), partition: p, tracker: c.trackers[p], table: t}
	c.tables[t.OID] = m
	name := [2]string{t.Schema, t.Name}
	m.twins = slices.Clone(c.names[name])
	for _, twin := range m.twins {
		twin.twins = append(twin.twins, m)
	}
	c.names[name] = append(c.names[name], m)
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
		if err := c.schedule(time.Now()); err != nil {
			return err
		}
		c.tend(time.Now())
		if c.starved() {
			if c.running == 0 {
				c.l.beat() // others have the memory, and get on
			}
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
			switch {
			case c.l.ctx.Err() != nil:
				return c.failed
			case errors.Is(err, topic.ErrOffsetLost), errors.Is(err, topic.ErrOffsetAhead):
				return errRewind
			}
			return err
		}
		if len(records) > 0 || c.running == 0 {
			c.l.beat() // a job that runs is a wait with a limit of its own
		}
		c.sought = false
		for i := range records {
			if err := c.record(&records[i]); err != nil {
				return err
			}
			if c.sought {
				break
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
		if since := m.oldestSince(); m.parked == nil && !since.IsZero() {
			lag = max(lag, now.Sub(since))
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
	c.figure.Read = c.readTo().String()
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
	if c.running > 0 {
		return 5 * time.Millisecond
	}
	return 50 * time.Millisecond
}

// readTo is how far all partitions were read.
func (c *committer) readTo() change.LSN {
	read := c.trackers[0].Watermark()
	for _, tr := range c.trackers[1:] {
		if w := tr.Watermark(); w.Epoch < read.Epoch || w.Epoch == read.Epoch && w.EndLSN < read.EndLSN {
			read = w
		}
	}
	return read.EndLSN
}

// starved tells that the budget is spent: nothing is read until a job ends, or
// until others give back. Whoever holds something that no job can bring home
// reads on, for the rest of its transaction.
func (c *committer) starved() bool {
	return c.a.budget.Spent() && (c.running > 0 || c.held == 0)
}

// take takes of the budget what is in memory already.
func (c *committer) take(n int64) {
	c.held += n
	c.a.budget.Force(n)
}

// give gives back to the budget.
func (c *committer) give(n int64) {
	c.held -= n
	c.a.budget.Give(n)
}

// record takes one record.
func (c *committer) record(r *topic.Record) error {
	tr := c.trackers[r.Partition]
	switch r.Kind {
	case topic.KindStream:
		return c.stream(tr.OnStream(r))
	case topic.KindMarker:
		if c.marker.Before(r.Marker.Position) {
			c.marker = r.Marker.Position
		}
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

// track tells the tracker what was applied of a table. first is the record that
// asked, nil for a watermark.
func (c *committer) track(m *mirrored, first *topic.Data) error {
	if m.parked != nil {
		m.tracker.Park(m.oid)
		return nil
	}
	c.await(m)
	if err := m.open(c.l.ctx, c.lake, &c.in.DB); err != nil {
		return c.trouble(m, err)
	}
	c.l.beat()
	applied := m.mirror.Applied()
	if others := len(m.twins) > 0 || m.mirror.State().OID != m.oid; others && first != nil &&
		first.Pred.CommitLSN == 0 && applied.Epoch == first.First.Epoch && applied.Before(first.First) {
		// The table's first change follows what was applied, which so is another
		// table's that had the name before.
		applied.Ordinal = 0
	}
	m.tracker.Track(m.oid, applied)
	return c.failed
}

// latest returns the entry of a table by its OID alone.
func (c *committer) latest(oid uint32) (*mirrored, error) {
	if m := c.tables[oid]; m != nil {
		return m, nil
	}
	for range 2 {
		for _, t := range c.schemas.Latest() {
			if t.OID == oid {
				return c.table(t)
			}
		}
		// Reads on: no shape is called zero.
		if _, err := c.schemas.Table(c.l.ctx, oid, 0); !errors.Is(err, topic.ErrSchemaUnknown) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("track table %d: %w", oid, topic.ErrSchemaUnknown)
}

// unknown parks a table whose shape is not to be found: no other needs wait.
func (c *committer) unknown(tr *topic.Tracker, oid uint32, err error) error {
	if !errors.Is(err, topic.ErrSchemaUnknown) {
		return err
	}
	m := c.tables[oid]
	if m == nil {
		m = &mirrored{oid: oid, name: fmt.Sprintf("table %d", oid), tracker: tr}
		c.tables[oid] = m
	}
	return c.trouble(m, &Reasoned{Err: err, Failure: Failure{Park: true, Reason: Reason{
		Code: CodeSchemaUnknown, Message: err.Error(), Remedy: "the shape of the table's rows is gone from the schemas topic: " + again,
	}}})
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
		var m *mirrored
		if err == nil {
			m, err = c.table(shape)
		}
		if err == nil {
			err = c.track(m, &r.Data)
		}
		if err != nil {
			err = c.unknown(tr, r.Data.OID, err)
		}
		if err != nil {
			return err
		}
		verdict, after = tr.Admit(r)
	}
	if verdict != topic.Take {
		return nil
	}
	m := c.tables[r.Data.OID]
	c.take(m.enqueue(r, after))
	if m.queuedBytes > queueBytes && m.dead < r.Data.Last.Epoch {
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
			m, err := c.latest(oid)
			if err == nil {
				err = c.track(m, nil)
			}
			if err != nil {
				err = c.unknown(tr, oid, err)
			}
			if err != nil {
				return err
			}
		}
		if out, err = tr.OnWatermark(r); err != nil {
			return err
		}
	}
	c.read = r.Watermark
	for _, gap := range out.Gaps {
		if c.hinted {
			return errRewind
		}
		if err := c.gap(c.tables[gap.OID], gap); err != nil {
			return err
		}
	}
	for _, oid := range out.Ended {
		if m := c.tables[oid]; m != nil && m.parked == nil {
			if err := c.ended(m); err != nil {
				return err
			}
		}
	}
	for i := range r.Watermark.Tables {
		m := c.tables[r.Watermark.Tables[i].OID]
		if m == nil || len(m.queue) == 0 {
			continue
		}
		if err := c.decode(m, m.complete()); err != nil {
			return err
		}
	}
	return nil
}

// ended discards changes of a transaction that never became complete.
func (c *committer) ended(m *mirrored) error {
	upTo := m.complete()
	if !upTo.Before(m.decoded) {
		c.give(m.trim(upTo))
		return c.decode(m, upTo)
	}
	// Some was decoded ahead. It is read again, and waits for its watermark.
	m.dead = m.decoded.Epoch
	return c.redo(m, change.Position{})
}

// gap decides what changes mean that are missing from the topic. A copy whose
// cut comes after them does not need them; otherwise the table parks.
func (c *committer) gap(m *mirrored, gap *topic.Gap) error {
	if m.parked != nil {
		return nil
	}
	offset := m.tracker.Resume().Offset
	if err := c.drain(m); err != nil || m.parked != nil {
		return err
	}
	if err := m.mirror.Refresh(c.l.ctx); err != nil {
		return c.trouble(m, err)
	}
	state := m.mirror.State()
	cut := change.Position{Epoch: state.Epoch, CommitLSN: state.Cut}
	if state.Phase == lake.Waiting || state.OID != m.oid || !gap.Have.Before(cut) {
		return c.trouble(m, gap)
	}
	c.a.cfg.Log.Warn("changes before the table's copy are missing from the topic", "database", c.in.DB.Name, "table", m.name,
		"have", gap.Have.String(), "cut", cut.String())
	return c.redoFrom(m, cut, offset)
}

// redo takes again what is not committed of a table, from a position or from
// what was applied.
func (c *committer) redo(m *mirrored, from change.Position) error {
	return c.redoFrom(m, from, m.tracker.Resume().Offset)
}

func (c *committer) redoFrom(m *mirrored, from change.Position, offset int64) error {
	c.await(m)
	if m.parked != nil || c.failed != nil {
		return c.failed
	}
	c.give(m.abandon())
	if m.mirror != nil {
		if err := m.mirror.Refresh(c.l.ctx); err != nil { // drops what was staged
			return c.trouble(m, err)
		}
		if applied := m.mirror.Applied(); from.Before(applied) {
			from = applied
		}
	}
	m.tracker.Track(m.oid, from)
	m.tracker.Rewind(offset)
	c.reader.Seek(m.partition, offset)
	c.sought = true
	return nil
}

// drain commits all of a table that is complete, and waits for it.
func (c *committer) drain(m *mirrored) error {
	for m.parked == nil && c.failed == nil {
		m.stuck = false
		if err := c.decode(m, m.complete()); err != nil {
			return err
		}
		m.seal()
		if len(m.jobs) == 0 {
			break
		}
		for len(m.jobs) > 0 && m.parked == nil && c.failed == nil {
			if !m.busy {
				c.start(m)
			}
			c.finished(<-c.results)
		}
	}
	return c.failed
}

// decode moves the queued changes of m up to a position into its batch.
func (c *committer) decode(m *mirrored, upTo change.Position) error {
	for len(m.queue) > 0 && m.parked == nil && !m.waits() {
		q := &m.queue[0]
		end := q.end
		if upTo.Before(end) {
			end = upTo
		}
		if upTo.Before(q.record.Data.First) || !q.after.Before(end) && upTo.Before(q.end) {
			return nil
		}
		shape, err := c.schemas.Table(c.l.ctx, m.oid, q.record.Data.Fingerprint)
		if err != nil {
			return c.unknown(m.tracker, m.oid, err)
		}
		if m.layout == nil || m.layout.Table.Fingerprint != shape.Fingerprint {
			if !m.first().IsZero() {
				if m.seal(); m.ahead() && m.batch.Rows() > 0 {
					m.stage() // the shape changed within a transaction
				}
			}
			if len(m.jobs) > 0 || m.batch != nil && m.batch.Rows() > 0 {
				m.stuck = true // goes on when the jobs are done
				return nil
			}
			if err := c.reshape(m, shape); err != nil || m.parked != nil {
				return err
			}
		}
		c.cursor.Reset(&q.record.Data, shape, q.after)
		before, rest := m.batch.Size(), false
		for c.cursor.Next(&c.event) {
			if rest = end.Before(c.event.Position); rest {
				break
			}
			if err := m.batch.Append(&c.event); err != nil {
				return c.trouble(m, err)
			}
			q.after = c.event.Position
		}
		if err := c.cursor.Err(); err != nil {
			return c.trouble(m, &Reasoned{Err: err, Failure: Failure{Park: true, Reason: Reason{
				Code: CodeKafkaCorrupt, Message: err.Error(), Remedy: "report this: a record of the topic cannot be read",
			}}})
		}
		grown := m.batch.Size() - before
		c.take(grown)
		m.taken += grown
		if m.used = time.Now(); m.since.IsZero() {
			m.since = m.used
		}
		if m.decoded.Before(q.after) {
			m.decoded = q.after
		}
		if rest && upTo.Before(q.end) {
			return nil
		}
		c.give(m.unqueue())
		if m.ahead() && m.batch.Rows() > 0 && c.large(m) {
			m.stage()
		}
	}
	return nil
}

// large tells that a batch that cannot be committed yet is to be written.
func (c *committer) large(m *mirrored) bool {
	size := m.batch.Size()
	return size > flushBytes || c.a.budget.Spent() && (size > worthBytes || len(m.jobs) == 0)
}

// reshape makes shape the table's from the next change on.
func (c *committer) reshape(m *mirrored, shape *change.Table) error {
	if err := m.open(c.l.ctx, c.lake, &c.in.DB); err != nil {
		return c.trouble(m, err)
	}
	if shape.Schema != m.table.Schema || shape.Name != m.table.Name {
		if err := c.renamed(m, shape); err != nil || m.parked != nil {
			return err
		}
	}
	if err := m.shape(c.l.ctx, c.lake, &c.in.DB, shape); err != nil {
		return c.trouble(m, err)
	}
	return nil
}

// renamed decides what becomes of a table whose name is another now: it is
// mirrored anew under that one.
func (c *committer) renamed(m *mirrored, shape *change.Table) error {
	state := m.mirror.State()
	cut := change.Position{Epoch: state.Epoch, CommitLSN: state.Cut}
	switch {
	case state.Phase == lake.Waiting:
		// The mirror is that of the name it has now, and has no copy.
		if !m.renamed {
			m.renamed = true
			c.told.table(TableChange{OID: m.oid, Phase: string(lake.Waiting)})
		}
		return nil
	case !cut.Before(m.queue[0].end):
		return nil // before the copy under this name
	}
	r := renamed(m.table.String(), shape)
	return c.trouble(m, &Reasoned{Err: errors.New(r.Message), Failure: Failure{Park: true, Reason: *r}})
}

// renamed is the reason of a table that has another name now.
func renamed(was string, now *change.Table) *Reason {
	return &Reason{
		Code: CodeTableRenamed, Message: fmt.Sprintf("table %s is called %s now", was, now), Since: time.Now().UTC().Format(time.RFC3339),
		Remedy: "it is copied under its name of now; the tables of its former name stay as they are",
	}
}

// schedule seals what is due and starts jobs.
func (c *committer) schedule(now time.Time) error {
	due := c.in.DB.Defaults().Freshness * 6 / 10
	for _, m := range c.tables {
		if m.parked != nil {
			continue
		}
		if m.waits() && now.Sub(m.hold.looked) > lookEvery {
			if err := c.look(m, now); err != nil {
				return err
			}
		}
		if m.stuck && len(m.jobs) == 0 {
			m.stuck = false
			if err := c.decode(m, m.complete()); err != nil {
				return err
			}
		}
		if first := m.first(); !first.IsZero() &&
			(!c.marker.Before(first) || now.Sub(m.since) >= due || m.batch.Size() >= flushBytes) {
			m.seal()
		}
		if !m.busy && len(m.jobs) > 0 && c.running < jobsAtOnce {
			c.start(m)
		}
		m.rest(now)
	}
	if c.running == 0 && c.held > 0 && c.a.budget.Spent() {
		return c.relieve()
	}
	return nil
}

// relieve has written what holds the most memory: what can be committed first.
func (c *committer) relieve() error {
	var ready, waits *mirrored
	for _, m := range c.tables {
		switch {
		case m.parked != nil:
		case m.ready() && m.mayCommit():
			if ready == nil || ready.owed() < m.owed() {
				ready = m
			}
		case m.owed() > worthBytes && m.dead < m.last().Epoch:
			if waits == nil || waits.owed() < m.owed() {
				waits = m
			}
		}
	}
	switch {
	case ready != nil:
		ready.seal()
		c.start(ready)
	case waits != nil:
		if err := c.decode(waits, waits.last()); err != nil || waits.parked != nil {
			return err
		}
		if waits.batch != nil && waits.batch.Rows() > 0 && waits.ahead() {
			waits.stage()
		}
		if len(waits.jobs) > 0 {
			c.start(waits)
		}
	}
	return nil
}

// start runs the first job of m in a goroutine of its own.
func (c *committer) start(m *mirrored) {
	j := m.jobs[0]
	j.fresh = len(m.twins) > 0
	m.busy = true
	c.running++
	waited := c.l.wait("lake", jobWithin)
	c.jobs.Go(func() {
		m.result = m.run(c.l.ctx, c.lake, &c.in.DB, j)
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
	c.give(j.taken)
	c.l.beat()
	if m.result.err != nil {
		if err := c.trouble(m, m.result.err); err != nil && c.failed == nil {
			c.failed = err
		}
		return
	}
	if m.parked != nil {
		return
	}
	if !c.a.budget.Spent() {
		m.reuse(j.batch)
	}
	if j.kind == jobCommit {
		m.tracker.Applied(m.oid, m.mirror.Applied())
	}
	if m.result.again {
		m.push(job{kind: jobCatchUp})
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
}

// trouble decides what an error of one table means: it parks the table, or
// comes back because the lane cannot go on.
func (c *committer) trouble(m *mirrored, err error) error {
	f := Classify(err)
	if !f.Park || f.Database {
		return err
	}
	if m.parked != nil {
		return nil
	}
	if errors.Is(err, lake.ErrSchemaIncompatible) && !m.busy && m.outgrown(c.l.ctx) {
		return fmt.Errorf("commit %s: a copy began under another shape: %w", m.name, lake.ErrFenced)
	}
	if CopiesAgain(f.Reason.Code) && m.mirror != nil {
		if held, err := c.hold(m, f, err); held || err != nil {
			return err
		}
	}
	c.park(m, f)
	return nil
}

// park gives a table up until somebody acts.
func (c *committer) park(m *mirrored, f Failure) {
	f.Reason.Since = time.Now().UTC().Format(time.RFC3339)
	m.parked = &f.Reason
	m.tracker.Park(m.oid)
	c.give(m.abandon())
	c.a.metrics.tablesParked.WithLabelValues(c.in.DB.Name).Inc()
	c.a.metrics.failed("Commit", c.in.DB.Name, &f)
	c.a.cfg.Log.Warn("table parked", "database", c.in.DB.Name, "table", m.name, "code", f.Reason.Code)
	c.told.table(TableChange{OID: m.oid, Reason: &f.Reason})
}

// hold keeps a table whose changes do not fit until the copy begins that is
// due, for under it they may. Then they are tried again. Those before the cut of
// the table's copy that do not fit even then are given up, for the copy holds
// what came of them: by later runs, too, which read them once more.
func (c *committer) hold(m *mirrored, f Failure, cause error) (held bool, err error) {
	c.await(m)
	if err := m.mirror.Refresh(c.l.ctx); err != nil {
		return false, err
	}
	state := m.mirror.State()
	if m.hold == nil {
		m.hold = &holding{}
	}
	h := m.hold
	h.failure = f
	cut := change.Position{Epoch: state.Epoch, CommitLSN: state.Cut}
	at := m.mirror.Applied()
	var value *batch.ConvertError
	if errors.As(cause, &value) {
		at = value.Position
	}
	_, due := c.in.Recopied[m.oid]
	switch {
	case due && !c.recopied(m, &state):
		h.waits = true
		return true, c.redo(m, change.Position{})
	case due && !h.again:
		h.again = true
		return true, c.redo(m, change.Position{})
	case !h.skipped && at.Before(cut):
		h.skipped = true
		c.a.cfg.Log.Warn("changes before the table's copy do not fit, and stay away from history", "database", c.in.DB.Name,
			"table", m.name, "code", f.Reason.Code, "after", m.mirror.Applied().String(), "cut", cut.String())
		return true, c.redo(m, cut)
	}
	return false, nil
}

// recopied tells that the copy that was due has begun.
func (c *committer) recopied(m *mirrored, state *lake.State) bool {
	return state.Epoch == c.in.Epoch && state.Cut >= c.in.Recopied[m.oid]
}

// look sees whether the copy has begun that a table waits for.
func (c *committer) look(m *mirrored, now time.Time) error {
	h := m.hold
	h.looked = now
	if err := m.mirror.Refresh(c.l.ctx); err != nil {
		return c.trouble(m, err)
	}
	if state := m.mirror.State(); c.recopied(m, &state) {
		h.waits, h.again = false, true
		return c.decode(m, m.complete())
	}
	if m.queuedBytes > flushBytes || c.a.budget.Spent() {
		c.park(m, h.failure) // others need the memory
	}
	return nil
}

// reach tells the workflow about markers that every partition has passed.
func (c *committer) reach() {
	for _, m := range c.tables {
		if m.parked == nil && m.behind() {
			return
		}
	}
	for p, tr := range c.trackers {
		for _, marker := range tr.Reached() {
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

// settle waits for the jobs that run and takes their outcome. Maintenance is
// broken off.
func (c *committer) settle() {
	c.tender.cancel()
	for c.running > 0 {
		c.finished(<-c.results)
	}
	c.jobs.Wait()
	c.tendNoMore(time.Now())
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
		c.give(m.owed())
		if m.mirror != nil {
			_ = m.mirror.Close()
		}
	}
	if c.reader != nil {
		_ = c.reader.Close()
	}
	c.told.close()
}
