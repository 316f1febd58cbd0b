package pgsource

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/activities/change"
)

// slotTimeout is how long making a slot may wait for the transactions that were
// open before it.
const slotTimeout = 60 * time.Second

// Slot is a logical replication slot.
type Slot struct {
	Name string
	// Confirmed is what its reader has confirmed: the stream goes on with the
	// first transaction that commits after it. Restart is where decoding begins
	// again.
	Confirmed, Restart change.LSN
	// Active tells that a session, ActivePID, reads from it.
	Active    bool
	ActivePID int
	// WALStatus is reserved, extended, unreserved or lost.
	WALStatus string
	// SafeWALSize is how many bytes can be written until the slot may be lost;
	// -1 where the server sets no limit.
	SafeWALSize int64
	// Created tells that EnsureSlot made it.
	Created bool
}

func slotMissing(name string) error {
	return &Error{Class: ErrSlotMissing, Problem: Problem{
		Code:     "SLOT_MISSING",
		Sentence: fmt.Sprintf("the replication slot %s does not exist", name),
		Remedy:   "somebody dropped it, or a failover lost it: copy the tables again, in a new epoch",
		Blocking: true,
	}}
}

func slotLost(name, why string) error {
	return &Error{Class: ErrSlotLost, Problem: Problem{
		Code:     "SLOT_LOST",
		Sentence: fmt.Sprintf("the replication slot %s is lost: %s", name, why),
		Remedy:   "raise max_slot_wal_keep_size, then copy the tables again, in a new epoch",
		Blocking: true,
	}}
}

// Slot looks a slot up. It returns an [ErrSlotMissing] where there is none.
func (d *DB) Slot(ctx context.Context, name string) (Slot, error) {
	s := Slot{Name: name, SafeWALSize: -1}
	err := d.query(ctx, "look up slot "+name, func(ctx context.Context, c *pgx.Conn) error {
		var plugin, database, confirmed, restart, status *string
		var pid *int32
		var safe *int64
		var kind string
		err := c.QueryRow(ctx, `
			SELECT plugin::text, slot_type, database::text, confirmed_flush_lsn::text, restart_lsn::text, active, active_pid, wal_status, safe_wal_size
			FROM pg_replication_slots WHERE slot_name = $1::text::name`, name).
			Scan(&plugin, &kind, &database, &confirmed, &restart, &s.Active, &pid, &status, &safe)
		if errors.Is(err, pgx.ErrNoRows) {
			return slotMissing(name)
		}
		if err != nil {
			return err
		}
		s.Confirmed, s.Restart = lsn(confirmed), lsn(restart)
		if pid != nil {
			s.ActivePID = int(*pid)
		}
		if status != nil {
			s.WALStatus = *status
		}
		if safe != nil {
			s.SafeWALSize = *safe
		}
		if kind != "logical" || plugin == nil || *plugin != "pgoutput" || database == nil || *database != d.database() {
			return &Error{Class: ErrSlotMissing, Problem: Problem{
				Code:     "SLOT_FOREIGN",
				Sentence: fmt.Sprintf("the replication slot %s is not one of pgoutput in the database %s", name, d.database()),
				Remedy:   fmt.Sprintf("SELECT pg_drop_replication_slot(%s); -- if nobody needs it", literal(name)),
				Blocking: true,
			}}
		}
		return nil
	})
	if err != nil {
		return Slot{}, err
	}
	return s, nil
}

// usable returns an [ErrSlotLost] where the slot can no longer be read.
func (s *Slot) usable() error {
	if s.WALStatus == "lost" || s.Restart == 0 {
		return slotLost(s.Name, "the server removed WAL that it had not read")
	}
	return nil
}

// EnsureSlot makes the slot of a database of the fleet at an epoch unless it
// exists. Publications must exist before it. Making one waits for the
// transactions that are open, a minute at most: then it returns an
// [ErrBlocked] that names the oldest.
func (d *DB) EnsureSlot(ctx context.Context, db string, epoch uint32) (Slot, error) {
	name := SlotName(db, epoch)
	s, err := d.Slot(ctx, name)
	if err == nil {
		return s, s.usable()
	}
	var own *Error
	if !errors.Is(err, ErrSlotMissing) || errors.As(err, &own) && own.Code != "SLOT_MISSING" {
		return Slot{}, err
	}
	conn, err := d.session(ctx, sessionOptions{long: true})
	if err != nil {
		return Slot{}, err
	}
	defer closeConn(conn.PgConn())
	err = d.unblocked(ctx, "make the slot "+name, conn.PgConn().PID(), func(ctx context.Context) error {
		_, err := conn.Exec(ctx, `SELECT pg_create_logical_replication_slot($1::text::name, 'pgoutput')`, name)
		return err
	})
	if err != nil && sqlstate(err) != "42710" { // another worker made it meanwhile
		return Slot{}, err
	}
	s, err = d.Slot(ctx, name)
	if err != nil {
		return Slot{}, err
	}
	s.Created = true
	return s, s.usable()
}

// unblocked runs f, which makes a slot on the session pid, and says what it
// waits for when it takes too long.
func (d *DB) unblocked(ctx context.Context, act string, pid uint32, f func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, slotTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(limited) }()
	look := time.NewTicker(slotTimeout / 20)
	defer look.Stop()
	blocker := ""
	for {
		select {
		case err := <-done:
			if err != nil && limited.Err() != nil && ctx.Err() == nil {
				return blocked(act, blocker, err)
			}
			return slotFault(act, d.user(), err)
		case <-look.C:
			if b := d.blocker(limited, pid); b != "" {
				blocker = b
			}
		}
	}
}

func blocked(act, blocker string, err error) error {
	if blocker == "" {
		blocker = "a transaction that this role may not see"
	}
	return &Error{Class: ErrBlocked, Err: err, Problem: Problem{
		Code:     "SOURCE_BLOCKED",
		Sentence: fmt.Sprintf("%s: PostgreSQL has waited for %s to end for %s", act, blocker, slotTimeout),
		Remedy:   "end that transaction: COMMIT or ROLLBACK in its session, pg_terminate_backend(pid), or ROLLBACK PREPARED 'gid'",
		Blocking: true,
	}}
}

// blocker describes the transaction that the session pid waits for; empty where
// it waits for none.
func (d *DB) blocker(ctx context.Context, pid uint32) (text string) {
	_ = d.query(ctx, "look for the blocking transaction", func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `
			SELECT concat('transaction ', w.transactionid,
			              ' of session ' || h.pid,
			              ' (' || nullif(a.application_name, '') || ')',
			              ', prepared as ' || p.gid)
			FROM pg_locks w
			LEFT JOIN pg_locks h ON h.locktype = 'transactionid' AND h.transactionid = w.transactionid AND h.granted
			LEFT JOIN pg_stat_activity a ON a.pid = h.pid
			LEFT JOIN pg_prepared_xacts p ON p.transaction = w.transactionid
			WHERE w.pid = $1 AND w.locktype = 'transactionid' AND NOT w.granted
			LIMIT 1`, int32(pid)).Scan(&text)
	})
	return text
}

// slotFault wraps an error of making a slot or starting to read from one.
func slotFault(act, user string, err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Err: err, Problem: Problem{Blocking: true}}
	message := innermostMessage(err)
	switch code := sqlstate(err); {
	case code == "53400":
		e.Class, e.Code = ErrNoFreeSlot, "NO_FREE_SLOT"
		e.Remedy = "drop slots that nobody needs (SELECT slot_name, active FROM pg_replication_slots; SELECT pg_drop_replication_slot('…');), or raise max_replication_slots and restart"
	case code == "55000" && strings.Contains(message, "wal_level"):
		e.Class, e.Code = ErrWALLevel, "WAL_LEVEL"
		e.Remedy = walLevelRemedy
	case code == "42501":
		e.Class, e.Code = ErrPrivilege, "PERMISSION_DENIED"
		e.Remedy = fmt.Sprintf("ALTER ROLE %s REPLICATION; -- on RDS and Aurora: GRANT rds_replication TO %s;", ident(user), ident(user))
	default:
		return fault(act, err)
	}
	e.Sentence = act + ": " + message
	return e
}

const walLevelRemedy = "ALTER SYSTEM SET wal_level = 'logical'; -- then restart the server; on RDS and Aurora set rds.logical_replication = 1 in the parameter group"

// SlotNames lists the slots of a database of the fleet, of all epochs.
func (d *DB) SlotNames(ctx context.Context, db string) (names []string, err error) {
	err = d.query(ctx, "list slots", func(ctx context.Context, c *pgx.Conn) error {
		rows, _ := c.Query(ctx, `
			SELECT slot_name::text FROM pg_replication_slots
			WHERE database = current_database() AND slot_type = 'logical'
			  AND starts_with(slot_name::text, $1) AND substr(slot_name::text, length($1) + 1) ~ '^[0-9]+$'
			ORDER BY 1`, slotPrefix(db))
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return names, err
}

// DropSlot drops a slot, after ending the session of ours that reads from it. A
// slot that does not exist was not dropped, and is no error. One that somebody
// else reads from is an [ErrSlotActive].
func (d *DB) DropSlot(ctx context.Context, name string) (dropped bool, err error) {
	s, err := d.Slot(ctx, name)
	if errors.Is(err, ErrSlotMissing) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if s.Active {
		// The session that reads has a step of its own in the same database.
		if err := d.release(ctx, &s, databaseOf(applicationName(d.tag))+"/", ""); err != nil {
			return false, err
		}
	}
	err = d.query(ctx, "drop slot "+name, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `SELECT pg_drop_replication_slot($1::text::name)`, name)
		return err
	})
	if sqlstate(err) == "42704" {
		return false, nil
	}
	return err == nil, err
}

// release ends the session that reads from s if its application_name begins
// with owner, and waits until the slot is free. Any other session, and one of a
// later attempt of the same run as tag, is left alone.
func (d *DB) release(ctx context.Context, s *Slot, owner, tag string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	ended := 0
	for {
		application, found, err := d.reader(ctx, s.ActivePID)
		if err != nil {
			return err
		}
		if found && ended != s.ActivePID {
			if strings.HasPrefix(owner, "/") || !strings.HasPrefix(application, owner) {
				return &Error{Class: ErrSlotActive, Problem: Problem{
					Code:     "SLOT_ACTIVE",
					Sentence: fmt.Sprintf("the replication slot %s is being read by session %d, which is not ours (application_name %q)", s.Name, s.ActivePID, application),
					Remedy:   fmt.Sprintf("end that reader; or: SELECT pg_terminate_backend(%d);", s.ActivePID),
					Blocking: true,
				}}
			}
			if later(application, tag) {
				return fmt.Errorf("read slot %s: session %d: %w", s.Name, s.ActivePID, ErrSuperseded)
			}
			if err := d.terminate(ctx, s.ActivePID, application); err != nil {
				return err
			}
			ended = s.ActivePID
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for slot %s to be free of session %d: %w: %w", s.Name, s.ActivePID, ErrSlotActive, ctx.Err())
		case <-poll.C:
		}
		now, err := d.Slot(ctx, s.Name)
		if err != nil {
			return err
		}
		if *s = now; !s.Active {
			return nil
		}
	}
}

// later tells that a session belongs to a later attempt of the same run as tag.
func later(application, tag string) bool {
	_, run, attempt := splitTag(application)
	_, ownRun, ownAttempt := splitTag(applicationName(tag))
	if run == "" || run != ownRun {
		return false
	}
	var a, own int
	if _, err := fmt.Sscanf(attempt+" "+ownAttempt, "%d %d", &a, &own); err != nil {
		return false
	}
	return a > own
}

// reader is the application_name of a session of our role.
func (d *DB) reader(ctx context.Context, pid int) (application string, found bool, err error) {
	err = d.query(ctx, "look at the slot's reader", func(ctx context.Context, c *pgx.Conn) error {
		err := c.QueryRow(ctx, `SELECT coalesce(application_name, '') FROM pg_stat_activity WHERE pid = $1`, pid).Scan(&application)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		found = err == nil
		return err
	})
	return application, found, err
}

// terminate ends a session if it still is the one that was looked at.
func (d *DB) terminate(ctx context.Context, pid int, application string) error {
	return d.query(ctx, fmt.Sprintf("end our session %d", pid), func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `
			SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE pid = $1 AND application_name = $2 AND usename = current_user`, pid, application)
		return err
	})
}
