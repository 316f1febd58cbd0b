package pgsource

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/activities/change"
)

// Cut is an exact pair of a place in the log and a snapshot: a transaction is
// in the snapshot exactly when its CommitLSN is below LSN. The snapshot lives
// until Close, and while Ping succeeds.
type Cut struct {
	LSN change.LSN
	// Snapshot is the name under which other sessions of the same database
	// import it.
	Snapshot string
	System   System
	// Micros is the server's time shortly after the cut, in microseconds of
	// Unix time.
	Micros int64

	mu   sync.Mutex
	conn *pgx.Conn
}

// Cut takes a cut. It serves tables that were in a publication, committed,
// before the call. It waits for the transactions that are open, a minute at
// most: then it returns an [ErrBlocked] that names the one it waited for.
//
// The cut is that of a temporary slot, which no other way of reading an LSN and
// a snapshot equals. The slot is dropped before Cut returns: it would hold WAL
// for as long as the snapshot is used.
func (d *DB) Cut(ctx context.Context) (*Cut, error) {
	system, err := d.System(ctx)
	if err != nil {
		return nil, err
	}
	slotConn, err := d.session(ctx, sessionOptions{replication: true, long: true})
	if err != nil {
		return nil, err
	}
	defer closeConn(slotConn.PgConn())
	var made pglogrepl.CreateReplicationSlotResult
	err = d.unblocked(ctx, "take a cut", slotConn.PgConn().PID(), func(ctx context.Context) (err error) {
		made, err = pglogrepl.CreateReplicationSlot(ctx, slotConn.PgConn(), temporaryName(), "pgoutput",
			pglogrepl.CreateReplicationSlotOptions{Temporary: true, SnapshotAction: "EXPORT_SNAPSHOT", Mode: pglogrepl.LogicalReplication})
		return err
	})
	if err != nil {
		return nil, err
	}
	at, err := change.ParseLSN(made.ConsistentPoint)
	if err != nil {
		return nil, fmt.Errorf("take a cut: %w", err)
	}
	c := &Cut{LSN: at, System: system}
	if c.conn, err = d.session(ctx, sessionOptions{long: true}); err != nil {
		return nil, err
	}
	if err := c.hold(ctx, made.SnapshotName); err != nil {
		closeConn(c.conn.PgConn())
		return nil, err
	}
	return c, nil
}

func temporaryName() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return "millrace_cut_" + hex.EncodeToString(b[:])
}

// hold imports the slot's snapshot and exports it again.
func (c *Cut) hold(ctx context.Context, snapshot string) error {
	if err := importSnapshot(ctx, c.conn.PgConn(), snapshot); err != nil {
		return err
	}
	err := c.conn.QueryRow(ctx, `SELECT pg_export_snapshot(), (extract(epoch FROM clock_timestamp()) * 1e6)::int8`).
		Scan(&c.Snapshot, &c.Micros)
	return fault("export the snapshot", err)
}

// importSnapshot begins a transaction that sees what the snapshot sees.
func importSnapshot(ctx context.Context, conn *pgconn.PgConn, snapshot string) error {
	if strings.Trim(snapshot, "0123456789ABCDEFabcdef-") != "" || snapshot == "" {
		return fmt.Errorf("import snapshot %q: %w: not a snapshot's name", snapshot, ErrSnapshotGone)
	}
	act := "import snapshot " + snapshot
	if err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").Close(); err != nil {
		return fault(act, err)
	}
	err := conn.Exec(ctx, "SET TRANSACTION SNAPSHOT "+literal(snapshot)).Close()
	switch sqlstate(err) {
	case "22023", "42704", "55000": // no such file; its session has ended
		return fmt.Errorf("%s: %w: %w", act, ErrSnapshotGone, err)
	}
	return fault(act, err)
}

// Ping keeps the session that holds the snapshot from looking idle, and returns
// an [ErrSnapshotGone] where it has ended.
func (c *Cut) Ping(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return fmt.Errorf("hold snapshot %s: %w: closed", c.Snapshot, ErrSnapshotGone)
	}
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := c.conn.PgConn().Exec(limited, "SELECT 1").Close(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("hold snapshot %s: %w", c.Snapshot, ctx.Err())
		}
		return fmt.Errorf("hold snapshot %s: %w: %w", c.Snapshot, ErrSnapshotGone, err)
	}
	return nil
}

// Close lets the snapshot go.
func (c *Cut) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		closeConn(c.conn.PgConn())
		c.conn = nil
	}
	return nil
}
