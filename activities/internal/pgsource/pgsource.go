// Package pgsource is the source stage: all that Millrace asks of PostgreSQL.
// It reads the catalog, keeps publications and slots, streams a slot, takes
// exact cuts and copies rows under their snapshot.
//
// It needs PostgreSQL 14 or later, a role with REPLICATION and SELECT on the
// tables, and a direct connection (a pooler in transaction mode has no sessions
// to pin). It never publishes a table in a way that would make PostgreSQL
// refuse an application's update, never publishes FOR ALL TABLES, takes locks
// with timeouts, and ends no session but its own.
//
// It is the only importer of pgx and pglogrepl.
package pgsource

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// connectTimeout covers name lookup, TLS and authentication.
	connectTimeout = 8 * time.Second
	// lockTimeout is the longest that a statement of ours waits for a lock, and
	// so makes others queue behind it.
	lockTimeout = 2 * time.Second
	// queryTimeout is the longest that the server works on a query of the
	// catalog.
	queryTimeout = 60 * time.Second
)

// Config says where a source is.
type Config struct {
	// URL is postgres://user@host:port/database?sslmode=…; without an sslmode it
	// is verify-full. Off loopback the server's certificate must be verified:
	// verify-full or verify-ca.
	URL string
	// Password is the role's; empty where the server asks for none, or where
	// URL holds it.
	Password string
	// Tag names the step that connects: millrace/<database>/<step>, and for a
	// step that streams /<run>/<attempt> behind it. It becomes the
	// application_name of its sessions, by which they are told from those of
	// others.
	Tag string
}

// DB is one source database. Its methods can be called from several goroutines;
// queries take turns on one connection, which is made anew when it broke.
// Streams, cuts and copies have connections of their own.
type DB struct {
	tag    string
	config *pgx.ConnConfig

	mu    sync.Mutex
	conn  *pgx.Conn // nil when it broke or was closed
	types typeCache
}

// Connect opens the first connection, so that a wrong address, role or password
// is known at once.
func Connect(ctx context.Context, c Config) (*DB, error) {
	config, err := parse(c)
	if err != nil {
		return nil, err
	}
	d := &DB{tag: c.Tag, config: config}
	if d.conn, err = d.session(ctx, sessionOptions{}); err != nil {
		return nil, err
	}
	return d, nil
}

// Close ends the connection of queries. Streams and cuts live on.
func (d *DB) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		closeConn(d.conn.PgConn())
		d.conn = nil
	}
}

// pinned are the settings of every session. The first of them change how values
// print, which must not depend on who asks.
var pinned = map[string]string{
	"datestyle":                           "ISO, MDY",
	"intervalstyle":                       "postgres",
	"timezone":                            "UTC",
	"extra_float_digits":                  "1",
	"bytea_output":                        "hex",
	"lc_monetary":                         "C",
	"xmloption":                           "content",
	"xmlbinary":                           "base64",
	"quote_all_identifiers":               "off",
	"standard_conforming_strings":         "on",
	"client_encoding":                     "UTF8",
	"search_path":                         "pg_catalog",
	"row_security":                        "off",
	"default_transaction_isolation":       "read committed",
	"default_transaction_read_only":       "off",
	"default_transaction_deferrable":      "off",
	"synchronous_commit":                  "local",
	"idle_in_transaction_session_timeout": "0",
	"idle_session_timeout":                "0",
	"client_min_messages":                 "warning",
	"jit":                                 "off",
}

// parse reads the address, and refuses one that would not verify the server.
func parse(c Config) (*pgx.ConnConfig, error) {
	refuse := func(sentence, remedy string, cause error) error {
		return &Error{Class: ErrConfig, Err: cause, Problem: Problem{Code: "SOURCE_ADDRESS", Sentence: sentence, Remedy: remedy, Blocking: true}}
	}
	address := c.URL
	if !strings.HasPrefix(address, "postgres://") && !strings.HasPrefix(address, "postgresql://") {
		return nil, refuse("the address of the source does not begin with postgres://",
			"write it as postgres://user@host:5432/database", nil)
	}
	before, query, _ := strings.Cut(address, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, refuse("the options of the source's address cannot be read", "write them as ?name=value&name=value", nil)
	}
	if !values.Has("sslmode") {
		values.Set("sslmode", "verify-full")
	}
	config, err := pgx.ParseConfig(before + "?" + values.Encode())
	if err != nil {
		// The error quotes the address, which may hold a secret.
		return nil, refuse("the address of the source cannot be read", "write it as postgres://user@host:5432/database?sslmode=verify-full", nil)
	}
	// What libpq would take from PGPASSWORD or a password file is not ours.
	config.Password = c.Password
	if u, err := url.Parse(before); err == nil && c.Password == "" && u.User != nil {
		config.Password, _ = u.User.Password()
	}
	type end struct {
		host     string
		verified bool
	}
	ends := []end{{config.Host, verifies(&config.Config)}}
	for _, f := range config.Fallbacks {
		ends = append(ends, end{f.Host, verifies(&pgconn.Config{TLSConfig: f.TLSConfig})})
	}
	for _, e := range ends {
		if !e.verified && !loopback(e.host) {
			return nil, refuse(fmt.Sprintf("sslmode=%s does not verify the server %s", values.Get("sslmode"), e.host),
				"use sslmode=verify-full, with sslrootcert=FILE for a private authority", nil)
		}
	}
	config.ConnectTimeout = connectTimeout
	config.RuntimeParams["application_name"] = applicationName(c.Tag)
	for name := range config.RuntimeParams {
		if _, ours := pinned[strings.ToLower(name)]; ours {
			delete(config.RuntimeParams, name)
		}
	}
	for name, value := range pinned {
		config.RuntimeParams[name] = value
	}
	config.DialFunc = dial
	config.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) {}
	return config, nil
}

// verifies tells that a connection is encrypted and its server's certificate
// checked.
func verifies(c *pgconn.Config) bool {
	t := c.TLSConfig
	return t != nil && (!t.InsecureSkipVerify || t.VerifyPeerCertificate != nil || t.VerifyConnection != nil)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.HasPrefix(host, "/") || host == "localhost" || ip != nil && ip.IsLoopback()
}

// sessionOptions say how one session differs from those of queries.
type sessionOptions struct {
	// replication makes it a walsender's.
	replication bool
	// long lifts the limit on how long a statement may run.
	long bool
	// lock replaces lockTimeout. Zero means lockTimeout.
	lock time.Duration
	// tag replaces the DB's.
	tag string
	// wire gets the bytes that the server sends.
	wire **wire
}

// session opens a connection.
func (d *DB) session(ctx context.Context, o sessionOptions) (*pgx.Conn, error) {
	config := d.config.Copy()
	params := config.RuntimeParams
	if o.replication {
		params["replication"] = "database"
	}
	if o.tag != "" {
		params["application_name"] = applicationName(o.tag)
	}
	if o.lock == 0 {
		o.lock = lockTimeout
	}
	params["lock_timeout"] = milliseconds(o.lock)
	params["statement_timeout"] = milliseconds(queryTimeout)
	if o.long {
		params["statement_timeout"] = "0"
	}
	if o.wire != nil {
		config.BuildFrontend = buildWire(o.wire)
	}
	config.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error { return settle(ctx, conn) }
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, d.connectError(err)
	}
	return conn, nil
}

// settle makes the settings that depend on the server.
func settle(ctx context.Context, conn *pgconn.PgConn) error {
	var sql []string
	// A database that does not know its encoding holds any bytes. Read as UTF-8,
	// a single bad one would end the stream of all tables.
	if conn.ParameterStatus("server_encoding") == "SQL_ASCII" {
		sql = append(sql, "SET client_encoding TO 'SQL_ASCII'")
	}
	if major, _, _ := strings.Cut(conn.ParameterStatus("server_version"), "."); len(major) == 2 && major >= "17" {
		sql = append(sql, "SET transaction_timeout TO 0")
	}
	if len(sql) == 0 {
		return nil
	}
	return conn.Exec(ctx, strings.Join(sql, "; ")).Close()
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// query runs f on the connection of queries, connecting anew where it broke.
// The error says what was being done.
func (d *DB) query(ctx context.Context, act string, f func(context.Context, *pgx.Conn) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == nil || d.conn.IsClosed() {
		conn, err := d.session(ctx, sessionOptions{})
		if err != nil {
			return err
		}
		d.conn = conn
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout+5*time.Second)
	defer cancel()
	return fault(act, f(ctx, d.conn))
}

// closeConn says goodbye, without waiting long for a server that is gone.
func closeConn(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// user is the role that connects; database the one that it connects to.
func (d *DB) user() string     { return d.config.User }
func (d *DB) database() string { return d.config.Database }

// connectError says in words why no connection came about.
func (d *DB) connectError(err error) error {
	c := d.config
	where := net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("connect to PostgreSQL at %s: %w", where, err)
	}
	e := &Error{Class: ErrUnreachable, Err: err, Problem: Problem{
		Code:     "SOURCE_UNREACHABLE",
		Sentence: fmt.Sprintf("PostgreSQL at %s cannot be reached: %s", where, innermost(err)),
		Remedy:   "check the host and port of the url, and that the server runs and is reachable from the worker",
		Blocking: true,
	}}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		if errors.Is(err, context.DeadlineExceeded) {
			e.Sentence = fmt.Sprintf("PostgreSQL at %s does not answer within %s", where, connectTimeout)
		}
		return e
	}
	e.Err = pg
	switch pg.Code {
	case "28P01", "28000":
		e.Class, e.Code = ErrAuth, "SOURCE_AUTH"
		e.Sentence = fmt.Sprintf("PostgreSQL at %s refuses the role %s: %s", where, c.User, pg.Message)
		e.Remedy = fmt.Sprintf("check the password that the fleet file refers to, and pg_hba.conf; or: ALTER ROLE %s LOGIN PASSWORD '…';", ident(c.User))
		if strings.Contains(pg.Message, "replication") {
			e.Remedy = fmt.Sprintf("ALTER ROLE %s REPLICATION; -- on RDS and Aurora: GRANT rds_replication TO %s;", ident(c.User), ident(c.User))
		}
	case "3D000":
		e.Class, e.Code = ErrNoDatabase, "NO_DATABASE"
		e.Sentence = fmt.Sprintf("PostgreSQL at %s has no database %s", where, c.Database)
		e.Remedy = "correct the database in the url"
	case "42501":
		e.Class, e.Code = ErrPrivilege, "PERMISSION_DENIED"
		e.Sentence = fmt.Sprintf("the role %s may not connect as it needs to: %s", c.User, pg.Message)
		e.Remedy = fmt.Sprintf("ALTER ROLE %s REPLICATION; GRANT CONNECT ON DATABASE %s TO %s; -- on RDS and Aurora: GRANT rds_replication TO %s;",
			ident(c.User), ident(c.Database), ident(c.User), ident(c.User))
	case "53300":
		e.Sentence = fmt.Sprintf("PostgreSQL at %s has no connection left: %s", where, pg.Message)
		e.Remedy = "raise max_connections (or max_wal_senders), or end what holds the connections"
		if strings.Contains(pg.Message, "max_wal_senders") {
			e.Class, e.Code = ErrNoFreeSlot, "NO_FREE_SLOT"
		}
	case "08P01":
		if strings.Contains(pg.Message, "startup parameter") {
			e.Class, e.Code = ErrConfig, "SOURCE_POOLER"
			e.Sentence = fmt.Sprintf("a pooler answers at %s, which does not keep the settings of sessions: %s", where, pg.Message)
			e.Remedy = "give the server's own host and port in url:"
		}
	case "22023", "42704":
		e.Class, e.Code = ErrVersion, "SOURCE_VERSION"
		e.Sentence = fmt.Sprintf("PostgreSQL at %s does not take a setting: %s", where, pg.Message)
		e.Remedy = "Millrace needs PostgreSQL 14 or later, and no pooler in between"
	default:
		e.Sentence = fmt.Sprintf("PostgreSQL at %s takes no connection: %s", where, pg.Message)
	}
	return e
}

// innermost is the text of the error at the end of err's chain: what happened,
// without who said so.
func innermost(err error) string {
	for {
		next := errors.Unwrap(err)
		if joined, ok := err.(interface{ Unwrap() []error }); ok && len(joined.Unwrap()) > 0 {
			next = joined.Unwrap()[0]
		}
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// fault wraps an error of the server or the network with what was being done
// and its class.
func fault(act string, err error) error {
	if err == nil {
		return nil
	}
	var own *Error
	if errors.As(err, &own) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", act, err)
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		var network net.Error
		if errors.As(err, &network) || pgconn.Timeout(err) || errors.Is(err, pgconn.ErrConnClosed) || isEOF(err) {
			return fmt.Errorf("%s: %w: %w", act, ErrUnreachable, err)
		}
		return fmt.Errorf("%s: %w", act, err)
	}
	if class := classes[pg.Code]; class != nil {
		return fmt.Errorf("%s: %w: %w", act, class, err)
	}
	if strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "57P") {
		return fmt.Errorf("%s: %w: %w", act, ErrUnreachable, err)
	}
	return fmt.Errorf("%s: %w", act, err)
}

// classes are the classes of SQLSTATEs.
var classes = map[string]error{
	"28000": ErrAuth,
	"28P01": ErrAuth,
	"3D000": ErrNoDatabase,
	"42501": ErrPrivilege,
	"42P01": ErrTableGone,
	"53300": ErrUnreachable,
	"53400": ErrNoFreeSlot,
	"55P03": ErrLocked,
}

// sqlstate is the SQLSTATE of an error of the server, else empty.
func sqlstate(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// ident quotes a name for SQL.
func ident(names ...string) string { return pgx.Identifier(names).Sanitize() }

// literal quotes a string for SQL, whatever standard_conforming_strings says.
func literal(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", "''")
	if strings.Contains(s, `\`) {
		return ` E'` + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}

// pgError is the server's error in err's chain, or nil.
func pgError(err error) *pgconn.PgError {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg
	}
	return nil
}
