package pgsource

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/pgsource/pgoutput"
)

// statusEvery is the longest time between two status updates to the server.
const statusEvery = 10 * time.Second

// StreamConfig says what is streamed.
type StreamConfig struct {
	// Slot is the slot to read from.
	Slot string
	// Publications say which tables. They must have existed when the slot was
	// made, and stay the same for as long as the slot lives.
	Publications []string
	// Start is where to begin: transactions that end at or before it do not
	// come again. It is at least what the slot has confirmed; zero means that.
	Start change.LSN
	// Tag replaces that of the DB: <whose>/<run>/<attempt>. A session that
	// reads from the slot with the same <whose> is ended first.
	Tag string
}

// Stream reads whole transactions from a slot in the order of their commits.
// One goroutine calls Next; Confirm, ServerLSN and Close may be called from
// others. The server is told that the reader lives even while Next is not being
// called.
type Stream struct {
	slot string
	conn *pgconn.PgConn
	wire *wire
	// silence is how long the server may send nothing while Next waits; waited
	// is how long that has been.
	silence, waited time.Duration

	// described are tables whose Relation message came and whose first change
	// since did not. held is a message that waits for some of them to be
	// returned.
	described map[uint32]*change.Table
	held      []byte

	server atomic.Uint64 // LSN

	mu        sync.Mutex // of writes to the server
	confirmed change.LSN
	failed    error

	answer chan struct{} // asks for a status update at once
	stop   chan struct{}
	once   sync.Once
	done   sync.WaitGroup
}

// Stream starts reading from a slot. It ends a session of ours that a former
// attempt left behind; a slot that anybody else reads from is an
// [ErrSlotActive], and one that a later attempt of ours reads from an
// [ErrSuperseded].
func (d *DB) Stream(ctx context.Context, c StreamConfig) (*Stream, error) {
	act := "stream slot " + c.Slot
	if c.Tag == "" {
		c.Tag = d.tag
	}
	slot, err := d.Slot(ctx, c.Slot)
	if err != nil {
		return nil, err
	}
	if err := slot.usable(); err != nil {
		return nil, err
	}
	if slot.Active {
		owner, _, _ := splitTag(applicationName(c.Tag))
		if err := d.release(ctx, &slot, owner+"/", c.Tag); err != nil {
			return nil, err
		}
	}
	if err := d.published(ctx, c.Publications); err != nil {
		return nil, err
	}
	s := &Stream{slot: c.Slot, described: map[uint32]*change.Table{}, answer: make(chan struct{}, 1), stop: make(chan struct{})}
	conn, err := d.session(ctx, sessionOptions{replication: true, long: true, tag: c.Tag, wire: &s.wire})
	if err != nil {
		return nil, err
	}
	s.conn = conn.PgConn()
	every, err := s.pace(ctx, conn)
	if err == nil {
		s.confirmed = max(c.Start, slot.Confirmed)
		err = d.start(ctx, s, c)
	}
	if err != nil {
		closeConn(s.conn)
		return nil, streamFault(act, c.Slot, d.user(), err)
	}
	_ = s.conn.Conn().SetDeadline(time.Time{})
	patient(s.conn.Conn())
	s.done.Go(func() { s.report(every) })
	return s, nil
}

// published checks that the publications exist now. Those that did not exist
// when the WAL was written are found out by the stream.
func (d *DB) published(ctx context.Context, names []string) error {
	return d.query(ctx, "look up publications", func(ctx context.Context, c *pgx.Conn) error {
		var missing []string
		err := c.QueryRow(ctx, `
			SELECT array_agg(n ORDER BY n) FROM unnest($1::text[]) n
			WHERE NOT EXISTS (SELECT FROM pg_publication p WHERE p.pubname = n::name)`, names).Scan(&missing)
		if err != nil || len(missing) == 0 {
			return err
		}
		return publicationMissing(missing...)
	})
}

func publicationMissing(names ...string) error {
	return &Error{Class: ErrPublicationMissing, Problem: Problem{
		Code:     "PUBLICATION_MISSING",
		Sentence: fmt.Sprintf("the publication %s does not exist: somebody dropped it, and what changed since cannot be read", strings.Join(names, ", ")),
		Blocking: true,
	}}
}

// pace asks for the server's patience with silent readers, and returns how
// often to report.
func (s *Stream) pace(ctx context.Context, conn *pgx.Conn) (time.Duration, error) {
	rows, err := conn.PgConn().Exec(ctx, `SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'`).ReadAll()
	if err != nil {
		return 0, err
	}
	timeout := time.Minute
	if len(rows) == 1 && len(rows[0].Rows) == 1 {
		if t, err := time.ParseDuration(string(rows[0].Rows[0][0]) + "ms"); err == nil && t > 0 {
			timeout = t
		}
	}
	s.silence = max(2*timeout, time.Minute)
	return min(statusEvery, max(timeout/4, 100*time.Millisecond)), nil
}

// start sends START_REPLICATION.
func (d *DB) start(ctx context.Context, s *Stream, c StreamConfig) error {
	names := make([]string, len(c.Publications))
	for i, p := range c.Publications {
		names[i] = ident(p)
	}
	return pglogrepl.StartReplication(ctx, s.conn, ident(c.Slot), pglogrepl.LSN(s.confirmed), pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication,
		PluginArgs: []string{
			"proto_version '1'",
			"publication_names " + literal(strings.Join(names, ",")),
			"messages 'true'",
		},
	})
}

// Next reads the next message of the plugin into m, whose slices are valid until
// the next call. It returns false where none comes within wait, which is more than zero: then everything
// committed before ServerLSN was returned, or belongs to the transaction that
// is being returned.
//
// A Relation is returned right before the first change that it describes. So
// those of partitions, whose changes come as those of their root, never are.
func (s *Stream) Next(m *pgoutput.Message, wait time.Duration) (got bool, err error) {
	if s.held != nil {
		body := s.held
		s.held = nil
		return s.decode(m, body)
	}
	timed := false
	for {
		if !timed && !s.wire.buffered() {
			now := time.Now()
			if err := s.conn.Conn().SetReadDeadline(now.Add(wait)); err != nil {
				return false, s.fault(err)
			}
			timed = true
		}
		kind, body, err := s.wire.next()
		if err != nil {
			if isTimeout(err) {
				return false, s.quiet(wait)
			}
			return false, s.fault(err)
		}
		if timed {
			s.waited = 0
		}
		got, err := s.receive(m, kind, body)
		if got || err != nil {
			return got, err
		}
	}
}

// quiet judges a wait in which nothing came.
func (s *Stream) quiet(wait time.Duration) error {
	s.mu.Lock()
	failed := s.failed
	s.mu.Unlock()
	if failed != nil {
		return s.fault(failed)
	}
	if s.waited += wait; s.waited > s.silence {
		return fmt.Errorf("stream slot %s: %w: nothing came for %s", s.slot, ErrUnreachable, s.waited.Round(time.Second))
	}
	return nil
}

// receive takes one message of the server, and tells whether m was filled.
func (s *Stream) receive(m *pgoutput.Message, kind byte, body []byte) (got bool, err error) {
	switch kind {
	case 'd':
		if len(body) == 0 {
			return false, s.fault(fmt.Errorf("%w: empty CopyData", errFrame))
		}
		switch body[0] {
		case pglogrepl.XLogDataByteID:
			const header = 1 + 8 + 8 + 8
			if len(body) < header {
				return false, s.fault(fmt.Errorf("%w: XLogData of %d bytes", errFrame, len(body)))
			}
			s.reached(change.LSN(binary.BigEndian.Uint64(body[9:])))
			return s.decode(m, body[header:])
		case pglogrepl.PrimaryKeepaliveMessageByteID:
			const size = 1 + 8 + 8 + 1
			if len(body) < size {
				return false, s.fault(fmt.Errorf("%w: keepalive of %d bytes", errFrame, len(body)))
			}
			s.reached(change.LSN(binary.BigEndian.Uint64(body[1:])))
			if body[17] != 0 {
				select {
				case s.answer <- struct{}{}:
				default:
				}
			}
			return false, nil
		}
		return false, s.fault(fmt.Errorf("%w: CopyData of kind %q", errFrame, body[0]))
	case 'E':
		return false, s.fault(serverError(body))
	case 'N', 'S', 'A':
		return false, nil
	case 'c', 'C', 'Z':
		return false, fmt.Errorf("stream slot %s: %w: the server ended the stream", s.slot, ErrUnreachable)
	}
	return false, s.fault(fmt.Errorf("%w: kind %q", errFrame, kind))
}

// decode decodes a message of the plugin, or returns a description that has to
// come first and holds the message.
func (s *Stream) decode(m *pgoutput.Message, body []byte) (got bool, err error) {
	if err := m.Decode(body); err != nil {
		return false, s.fault(err)
	}
	if m.Kind == pgoutput.Relation {
		s.described[m.OID] = m.Relation
		return false, nil
	}
	if len(s.described) == 0 {
		return true, nil
	}
	var first *change.Table
	switch m.Kind {
	case pgoutput.Insert, pgoutput.Update, pgoutput.Delete:
		first = s.described[m.OID]
	case pgoutput.Truncate:
		for _, oid := range m.OIDs {
			if t := s.described[oid]; t != nil {
				first = t
			}
		}
	}
	if first == nil {
		return true, nil
	}
	delete(s.described, first.OID)
	s.held = body
	*m = pgoutput.Message{Kind: pgoutput.Relation, OID: first.OID, Relation: first, OIDs: m.OIDs[:0]}
	return true, nil
}

// serverError decodes an ErrorResponse.
func serverError(body []byte) error {
	var r pgproto3.ErrorResponse
	if err := r.Decode(body); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	return pgconn.ErrorResponseToPgError(&r)
}

func (s *Stream) reached(lsn change.LSN) {
	if uint64(lsn) > s.server.Load() {
		s.server.Store(uint64(lsn))
	}
}

// ServerLSN is how far the server has read its WAL for this stream, as of the
// last message. All transactions that committed before it have been sent.
func (s *Stream) ServerLSN() change.LSN { return change.LSN(s.server.Load()) }

// Confirm lets the server forget all transactions that end at or before lsn. It
// never goes back.
func (s *Stream) Confirm(lsn change.LSN) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirmed = max(s.confirmed, lsn)
	return s.status(false)
}

// status sends what is confirmed and may ask for an answer: a server that has
// nothing to say and hears from its reader often enough says nothing at all.
// The caller holds mu.
func (s *Stream) status(ask bool) error {
	if s.failed != nil {
		return s.fault(s.failed)
	}
	if s.confirmed == 0 {
		return nil
	}
	_ = s.conn.Conn().SetWriteDeadline(time.Now().Add(statusEvery))
	// All three are set: what is not written to Kafka is not flushed either.
	at := pglogrepl.LSN(s.confirmed)
	err := pglogrepl.SendStandbyStatusUpdate(context.Background(), s.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: at, WALFlushPosition: at, WALApplyPosition: at, ReplyRequested: ask,
	})
	if err != nil {
		s.failed = err
		return s.fault(err)
	}
	return nil
}

// report tells the server now and then, and when it asks, that we are alive,
// however long the caller of Next is busy.
func (s *Stream) report(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		case <-s.answer:
		}
		s.mu.Lock()
		_ = s.status(true) // Next returns it
		s.mu.Unlock()
	}
}

// Close ends the stream. What was confirmed stays confirmed; the server may
// take a moment to let go of the slot.
func (s *Stream) Close() error {
	s.once.Do(func() {
		close(s.stop)
		_ = s.conn.Conn().SetDeadline(past)
		s.done.Wait()
		_ = s.conn.Conn().SetDeadline(time.Now().Add(time.Second))
		closeConn(s.conn)
	})
	return nil
}

func (s *Stream) fault(err error) error {
	return streamFault("stream slot "+s.slot, s.slot, "", err)
}

// streamFault gives an error of a stream its class.
func streamFault(act, slot, user string, err error) error {
	message := innermostMessage(err)
	switch code := sqlstate(err); {
	case code == "55006":
		return &Error{Class: ErrSlotActive, Err: err, Problem: Problem{
			Code: "SLOT_ACTIVE", Sentence: act + ": " + message, Remedy: "end the session that reads from the slot", Blocking: true,
		}}
	case code == "42704" && strings.Contains(message, "publication"):
		return &Error{Class: ErrPublicationMissing, Err: err, Problem: Problem{
			Code:     "PUBLICATION_MISSING",
			Sentence: act + ": " + message + " at that place of the WAL: it was made after the slot, or dropped",
			Blocking: true,
		}}
	case code == "42704" && strings.Contains(message, "slot"):
		return slotMissing(slot)
	case code == "55000" && (strings.Contains(message, "invalidated") || strings.Contains(message, "can no longer get changes") || strings.Contains(message, "cannot read from")),
		code == "58P01" && strings.Contains(message, "WAL segment"):
		return slotLost(slot, message)
	}
	return slotFault(act, user, err)
}

// innermostMessage is what the server said, else the innermost error.
func innermostMessage(err error) string {
	if pg := pgError(err); pg != nil {
		return pg.Message
	}
	return innermost(err)
}
