package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/deploy/local"
)

// source is a database at the source, with a connection of a superuser.
type source struct {
	t    testing.TB
	name string
	url  string
	pg   *local.Postgres
	conn *pgx.Conn
}

// newSource makes a database.
func newSource(t testing.TB, pg *local.Postgres, name string) *source {
	t.Helper()
	admin := connect(t, pg.URL("postgres"))
	execute(t, admin, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	src := &source{t: t, name: name, url: pg.URL(name), pg: pg}
	src.conn = connect(t, src.url)
	return src
}

// connect opens a connection that ends with the test.
func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connect to PostgreSQL: %v", err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func execute(t testing.TB, c *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", shorten([]byte(sql), 300), err)
	}
}

// exec runs statements. Several in one text are one transaction.
func (s *source) exec(sql string, args ...any) {
	s.t.Helper()
	execute(s.t, s.conn, sql, args...)
}

// number runs a query for one number.
func (s *source) number(sql string, args ...any) int64 {
	s.t.Helper()
	var n int64
	if err := s.conn.QueryRow(s.t.Context(), sql, args...).Scan(&n); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// busy tells whether Millrace has a connection whose step begins so.
func (s *source) busy(step string) bool {
	s.t.Helper()
	return s.number(`SELECT count(*) FROM pg_stat_activity WHERE starts_with(application_name, $1)`, "millrace/"+s.name+"/"+step) > 0
}

// streams returns the process id of the session that streams the slot, 0 where
// none does.
func (s *source) streams() int {
	s.t.Helper()
	return int(s.number(`SELECT coalesce(max(pid), 0) FROM pg_stat_activity
		WHERE starts_with(application_name, $1) AND backend_type = 'walsender'`, "millrace/"+s.name+"/capture/"))
}

// ends tells whether a session ends within a while.
func (s *source) ends(pid int, within time.Duration) bool {
	s.t.Helper()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if s.number(`SELECT count(*) FROM pg_stat_activity WHERE pid = $1`, pid) == 0 {
			return true
		}
	}
	return false
}

// reconnect replaces a connection that the server's restart ended.
func (s *source) reconnect() {
	s.t.Helper()
	until(s.t, 30*time.Second, "PostgreSQL takes connections again", func() bool {
		c, err := pgx.Connect(s.t.Context(), s.url)
		if err != nil {
			return false
		}
		_ = s.conn.Close(s.t.Context())
		s.conn = c
		s.t.Cleanup(func() { _ = c.Close(context.Background()) })
		return true
	})
}

// lsn is a position in the WAL.
type lsn uint64

func parseLSN(s string) (lsn, error) {
	hi, lo, ok := strings.Cut(s, "/")
	a, errA := strconv.ParseUint(hi, 16, 32)
	b, errB := strconv.ParseUint(lo, 16, 32)
	if !ok || errA != nil || errB != nil {
		return 0, fmt.Errorf("bad LSN %q", s)
	}
	return lsn(a<<32 | b), nil
}

func (l lsn) String() string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint32(l)) }
