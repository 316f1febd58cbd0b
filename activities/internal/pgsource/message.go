package pgsource

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/activities/change"
)

// EmitMarker writes a message into the log as a transaction of its own, and
// returns where it stands. Streams return it at its place among the
// transactions; find it there by its content, for not every server's LSN here
// compares with those of streams.
func (d *DB) EmitMarker(ctx context.Context, prefix, content string) (at change.LSN, err error) {
	return d.emit(ctx, "emit a marker", true, prefix, content)
}

// Heartbeat writes a message into the log that belongs to no transaction, so
// that the slot of an idle database can move past the log of others.
func (d *DB) Heartbeat(ctx context.Context) error {
	_, err := d.emit(ctx, "emit a heartbeat", false, "millrace.heartbeat", "")
	return err
}

func (d *DB) emit(ctx context.Context, act string, transactional bool, prefix, content string) (at change.LSN, err error) {
	err = d.query(ctx, act, func(ctx context.Context, c *pgx.Conn) error {
		var s string
		err := c.QueryRow(ctx, `SELECT pg_logical_emit_message($1, $2, $3::text)::text`, transactional, prefix, content).Scan(&s)
		at = lsn(&s)
		return err
	})
	return at, err
}
