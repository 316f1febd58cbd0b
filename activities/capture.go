package activities

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/pgsource"
	"github.com/millrace-io/millrace/activities/internal/pgsource/pgoutput"
	"github.com/millrace-io/millrace/activities/internal/topic"
)

const (
	// confirmEvery is how often PostgreSQL is told what it may forget.
	confirmEvery = time.Second
	// nudgeEvery is how often an idle database gets a message of ours, so that
	// its slot advances past the WAL of others.
	nudgeEvery = time.Minute
)

// Capture is the capture lane of one database: it decodes the WAL of its slot,
// publishes the changes to Kafka, and confirms what Kafka has acknowledged.
// Values are not interpreted, so that none can stop it.
func (a *Activities) Capture(actx context.Context, in CaptureInput) (LaneResult, error) {
	l, end, err := a.begin(actx, "capture", in.DB.Name)
	if err != nil {
		return LaneResult{}, err
	}
	defer end()
	info := activity.GetInfo(actx)
	c := &capturer{a: a, l: l, in: in, shapes: map[uint32]change.Fingerprint{}}
	c.figure.Worker = a.cfg.Worker
	c.told = a.tell(l, info.WorkflowExecution)
	defer c.told.close()
	l.report(func() any { return c.progress() })
	err = c.open(fmt.Sprintf("%s/%d", info.WorkflowExecution.RunID, info.Attempt))
	if err == nil {
		// A change that waits for room waits no longer.
		stop := context.AfterFunc(l.ctx, func() { _ = c.publisher.Close(l.ctx) })
		err = c.run()
		stop()
	}
	c.close()
	if err != nil && l.halted() && errors.Is(err, context.Canceled) {
		err = nil
	}
	return l.result(a.cfg.Worker), err
}

// capturer is one run of the capture lane, for one goroutine but for figure.
type capturer struct {
	a         *Activities
	l         *lane
	in        CaptureInput
	sql       *pgsource.DB
	stream    *pgsource.Stream
	publisher *topic.Publisher
	told      *teller
	// shapes is the fingerprint that each table's rows have now.
	shapes map[uint32]change.Fingerprint
	inTx   bool

	began     time.Time // of the oldest change that is not durable
	confirmed change.LSN
	said      time.Time // when it was last confirmed
	nudged    time.Time
	moved     time.Time // when the server's WAL last held something of ours
	walHeld   time.Time

	mu     sync.Mutex
	figure CaptureProgress
}

// open checks that the source is the one that was prepared, and starts the
// stream where Kafka ends.
func (c *capturer) open(run string) error {
	ctx := c.l.ctx
	defer c.l.wait("source", openWithin)()
	var err error
	if c.sql, err = c.a.source(ctx, &c.in.DB, "capture/"+run); err != nil {
		return err
	}
	if err := sameSource(ctx, c.sql, c.in.SystemID, c.in.Timeline); err != nil {
		return err
	}
	name := pgsource.SlotName(c.in.DB.Name, c.in.Epoch)
	slot, err := c.sql.Slot(ctx, name)
	if err != nil {
		return err
	}
	// Opening a publisher begins the epoch, so that it is looked for before.
	if err := c.a.kafka.Began(ctx, c.in.DB.Topic.Name, c.in.Epoch); err != nil {
		return err
	}
	c.publisher, err = c.a.kafka.Publisher(ctx, topic.PublisherConfig{Topic: c.in.DB.Topic.Name, Epoch: c.in.Epoch})
	if err != nil {
		return err
	}
	if durable := c.publisher.Durable(); durable > 0 && slot.Confirmed > durable {
		return fmt.Errorf("slot %s stands at %s, Kafka acknowledged %s: %w", name, slot.Confirmed, durable, ErrSlotMoved)
	}
	c.confirmed = slot.Confirmed
	c.stream, err = c.sql.Stream(ctx, pgsource.StreamConfig{
		Slot: name, Publications: pgsource.PublicationNames(c.in.DB.Name), Start: slot.Confirmed, Tag: tag(c.in.DB.Name, "capture/"+run),
	})
	return err
}

// run decodes and publishes until the lane is halted at a boundary.
func (c *capturer) run() error {
	var m pgoutput.Message
	check := time.Now()
	for {
		// What Kafka does not take is read from the slot again: no boundary is
		// worth waiting for then.
		if c.l.halted() && (!c.inTx || !c.publisher.Ready(0)) || c.l.ctx.Err() != nil {
			return c.l.ctx.Err()
		}
		got, room := false, c.publisher.Ready(100*time.Millisecond)
		if room {
			var err error
			if got, err = c.stream.Next(&m, 10*time.Millisecond); err != nil {
				return fmt.Errorf("read slot of %s: %w", c.in.DB.Name, err)
			}
		}
		if got {
			if err := c.message(&m); err != nil {
				return err
			}
		}
		if now := time.Now(); !got || now.Sub(check) > 100*time.Millisecond {
			check = now
			if err := c.upkeep(now, room && !got); err != nil {
				return err
			}
		}
	}
}

// message publishes one message of the stream.
func (c *capturer) message(m *pgoutput.Message) error {
	switch m.Kind {
	case pgoutput.Begin:
		c.inTx = true
		if c.began.IsZero() {
			c.began = time.Now()
		}
		return c.publisher.Begin(m.FinalLSN, m.CommitMicros, m.XID)
	case pgoutput.Insert:
		return c.change(m, change.Create)
	case pgoutput.Update:
		return c.change(m, change.Update)
	case pgoutput.Delete:
		return c.change(m, change.Delete)
	case pgoutput.Truncate:
		return c.publisher.Truncate(m.OIDs...)
	case pgoutput.Relation:
		return c.relation(m.Relation)
	case pgoutput.Logical:
		if m.Prefix != markerPrefix || !m.Transactional {
			return nil
		}
		if token := string(m.Content); checkMarker(token) == nil {
			return c.publisher.Marker(token)
		}
	case pgoutput.Commit:
		c.inTx = false
		c.moved = time.Now()
		return c.publisher.Commit(m.EndLSN)
	}
	return nil
}

func (c *capturer) change(m *pgoutput.Message, op change.Op) error {
	fp, known := c.shapes[m.OID]
	if !known {
		return fmt.Errorf("publish a change of table %d: %w", m.OID, pgoutput.ErrNoRelation)
	}
	old := m.Old
	if m.OldKind == 0 {
		old = nil
	}
	err := c.publisher.Change(m.OID, fp, op, old, m.New)
	if errors.Is(err, topic.ErrRecordTooLarge) {
		// The change keeps its place: readers find it missing in this table, and
		// all others go on.
		f := Classify(err)
		f.Reason.Since = time.Now().UTC().Format(time.RFC3339)
		c.told.table(TableChange{OID: m.OID, Reason: &f.Reason})
		return nil
	}
	return err
}

// relation registers the shape of the rows that follow. Its types are looked up
// in the catalog; what the Relation says itself stays as it is.
func (c *capturer) relation(r *change.Table) error {
	if fp, known := c.shapes[r.OID]; known && fp == r.Fingerprint {
		return nil
	}
	t, err := c.sql.Resolve(c.l.ctx, r)
	if err != nil {
		return fmt.Errorf("resolve the types of %s: %w", r, err)
	}
	if _, err := c.publisher.Schema(c.l.ctx, t); err != nil {
		return fmt.Errorf("register the shape of %s: %w", r, err)
	}
	c.shapes[r.OID] = r.Fingerprint
	return nil
}

// upkeep does what is due now and then: it lets an idle slot advance, confirms,
// and takes the figures.
func (c *capturer) upkeep(now time.Time, idle bool) error {
	if err := c.publisher.Err(); err != nil {
		return err
	}
	server := c.stream.ServerLSN()
	if idle && !c.inTx {
		if err := c.publisher.Advance(server); err != nil {
			return err
		}
	}
	durable := c.publisher.Durable()
	if durable > c.confirmed || now.Sub(c.said) >= confirmEvery {
		if durable > c.confirmed {
			c.confirmed = durable
			c.l.beat()
		}
		if now.Sub(c.said) >= confirmEvery/10 {
			if err := c.stream.Confirm(c.confirmed); err != nil {
				return fmt.Errorf("confirm %s: %w", c.confirmed, err)
			}
			c.said = now
			if idle {
				c.l.beat() // a wait for the source, which the stream itself limits
			}
		}
	}
	stats := c.publisher.Stats()
	if !c.inTx && stats.Pending == 0 {
		c.began = time.Time{}
	}
	c.mu.Lock()
	if c.figure.Rows != stats.Changes || server.String() != c.figure.Server {
		c.l.beat()
	}
	metrics := c.a.metrics
	db := c.in.DB.Name
	metrics.rows.WithLabelValues(db, "publish").Add(float64(stats.Changes - c.figure.Rows))
	metrics.bytes.WithLabelValues(db, "publish").Add(float64(stats.Bytes - c.figure.Bytes))
	c.figure.Confirmed, c.figure.Server = c.confirmed.String(), server.String()
	c.figure.LagBytes = int64(server) - int64(min(c.confirmed, server))
	c.figure.LagSeconds = 0
	if !c.began.IsZero() {
		c.figure.LagSeconds = now.Sub(c.began).Seconds()
	}
	c.figure.Rows, c.figure.Bytes = stats.Changes, stats.Bytes
	c.figure.WaitingFor, c.figure.Since = "", ""
	if !stats.WaitingSince.IsZero() && now.Sub(stats.WaitingSince) > time.Second {
		c.figure.WaitingFor, c.figure.Since = "kafka", stats.WaitingSince.UTC().Format(time.RFC3339)
		c.l.beat() // a named wait
	}
	metrics.lagBytes.WithLabelValues(db).Set(float64(c.figure.LagBytes))
	metrics.lagSeconds.WithLabelValues(db, "publish").Set(c.figure.LagSeconds)
	c.mu.Unlock()

	if now.Sub(c.walHeld) > 10*time.Second {
		c.walHeld = now
		c.l.beat() // the connection answered: keepalives come every few seconds
		wal, err := c.sql.WAL(c.l.ctx, pgsource.SlotName(db, c.in.Epoch))
		if err != nil {
			return err
		}
		metrics.walHeld.WithLabelValues(db).Set(float64(wal.Held))
		c.mu.Lock()
		c.figure.WAL = c.figure.WAL.next(now, &wal, c.in.DB.WALBudget)
		c.mu.Unlock()
		if idle && now.Sub(c.moved) > nudgeEvery && now.Sub(c.nudged) > nudgeEvery && wal.Held > 16<<20 {
			c.nudged = now
			return c.sql.Heartbeat(c.l.ctx)
		}
	}
	return nil
}

func (c *capturer) progress() CaptureProgress {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.figure
	if p.WaitingFor == "" {
		p.WaitingFor, p.Since = c.l.waitsFor()
	}
	return p
}

// close ends the stream, confirming what became durable.
func (c *capturer) close() {
	if c.publisher != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.l.ctx), 5*time.Second)
		_ = c.publisher.Close(ctx)
		cancel()
		if c.stream != nil {
			if durable := c.publisher.Durable(); durable > c.confirmed {
				_ = c.stream.Confirm(durable)
			}
		}
	}
	if c.stream != nil {
		_ = c.stream.Close()
	}
	if c.sql != nil {
		c.sql.Close()
	}
}
