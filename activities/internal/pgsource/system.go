package pgsource

import (
	"context"
	"fmt"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/activities/change"
)

// System is what answers at the source's address.
type System struct {
	// ID names the cluster, for as long as its data directory lives.
	ID string
	// Timeline grows when a standby is promoted or a backup restored.
	Timeline int32
	// Version is server_version_num, such as 170010.
	Version int
	// Database is the database's name.
	Database string
	// LSN is where the WAL ended.
	LSN change.LSN
}

// System asks who answers. It needs the REPLICATION privilege.
func (d *DB) System(ctx context.Context) (System, error) {
	conn, err := d.session(ctx, sessionOptions{replication: true})
	if err != nil {
		return System{}, err
	}
	defer closeConn(conn.PgConn())
	r, err := pglogrepl.IdentifySystem(ctx, conn.PgConn())
	if err != nil {
		return System{}, fault("identify the system", err)
	}
	s := System{ID: r.SystemID, Timeline: r.Timeline, Database: r.DBName, LSN: change.LSN(r.XLogPos)}
	s.Version, err = d.version(ctx)
	return s, err
}

// Same returns an [ErrIdentityChanged] unless s is the cluster and timeline
// given.
func (s System) Same(id string, timeline int32) error {
	if s.ID == id && s.Timeline == timeline {
		return nil
	}
	return &Error{Class: ErrIdentityChanged, Problem: Problem{
		Code:     "SOURCE_IDENTITY_CHANGED",
		Sentence: fmt.Sprintf("system %s on timeline %d answers, where system %s on timeline %d was mirrored", s.ID, s.Timeline, id, timeline),
		Blocking: true,
	}}
}

// version is server_version_num.
func (d *DB) version(ctx context.Context) (v int, err error) {
	err = d.query(ctx, "ask for the version", func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&v)
	})
	return v, err
}

// WAL is how a slot stands in the server's log.
type WAL struct {
	// Current is where the WAL ends.
	Current change.LSN
	// Confirmed is what the slot's reader has confirmed; Restart where decoding
	// would begin again, and from where on WAL is kept.
	Confirmed, Restart change.LSN
	// Held is how much WAL the slot keeps, in bytes.
	Held int64
	// Safe is how many bytes can be written until the slot may be lost; -1
	// where the server sets no limit.
	Safe int64
	// Status is wal_status: reserved, extended, unreserved or lost.
	Status string
}

// Usable returns an [ErrSlotLost] where the slot can no longer be read.
func (w *WAL) Usable(slot string) error {
	return (&Slot{Name: slot, WALStatus: w.Status, Restart: w.Restart}).usable()
}

// WAL tells how the slot stands.
func (d *DB) WAL(ctx context.Context, slot string) (WAL, error) {
	w := WAL{Safe: -1}
	found := false
	err := d.query(ctx, "look at the WAL", func(ctx context.Context, c *pgx.Conn) error {
		var current, confirmed, restart *string
		var status *string
		var safe *int64
		err := c.QueryRow(ctx, `
			SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text,
			       s.slot_name IS NOT NULL, s.confirmed_flush_lsn::text, s.restart_lsn::text, s.wal_status, s.safe_wal_size
			FROM (VALUES (1)) one LEFT JOIN pg_replication_slots s ON s.slot_name = $1::text::name`, slot).
			Scan(&current, &found, &confirmed, &restart, &status, &safe)
		if err != nil {
			return err
		}
		w.Current, w.Confirmed, w.Restart = lsn(current), lsn(confirmed), lsn(restart)
		if safe != nil {
			w.Safe = *safe
		}
		if status != nil {
			w.Status = *status
		}
		return nil
	})
	if err != nil {
		return WAL{}, err
	}
	if !found {
		return w, slotMissing(slot)
	}
	if w.Restart != 0 && w.Current > w.Restart {
		w.Held = int64(w.Current - w.Restart)
	}
	return w, nil
}

// lsn reads what the server printed; nil is none.
func lsn(s *string) change.LSN {
	if s == nil {
		return 0
	}
	v, err := change.ParseLSN(*s)
	if err != nil {
		return 0
	}
	return v
}
