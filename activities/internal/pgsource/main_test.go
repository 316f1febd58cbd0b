package pgsource

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deploy/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(tests{m}) }

// tests also stops the server of another version.
type tests struct{ *testing.M }

func (t tests) Run() int {
	code := local.RunTests(t.M)
	if other.server != nil {
		_ = other.server.Close()
	}
	return code
}

// other is the server that tests share where PG names its version.
var other struct {
	sync.Once
	server *local.Postgres
	err    error
}

// sharedServer returns the server that tests share: of the version that the
// environment variable PG names, else of the usual one.
func sharedServer(t testing.TB) *local.Postgres {
	t.Helper()
	version := os.Getenv("PG")
	if version == "" || testing.Short() {
		return local.SharedPostgres(t)
	}
	other.Do(func() {
		other.server, other.err = local.StartPostgres(context.Background(), local.PostgresOptions{Version: version})
	})
	if other.err != nil {
		t.Fatal(other.err)
	}
	return other.server
}

// source is a database of its own on the shared server, and its superuser.
type source struct {
	t      testing.TB
	server *local.Postgres
	name   string
	admin  *pgx.Conn
	db     *DB // as the superuser
}

// newSource makes a database. Its slots are dropped with it.
func newSource(t testing.TB) *source {
	t.Helper()
	return newSourceOn(t, sharedServer(t), "")
}

func newSourceOn(t testing.TB, server *local.Postgres, options string) *source {
	t.Helper()
	ctx := t.Context()
	s := &source{t: t, server: server, name: "t_" + suffix()}
	root := connectRaw(t, server.URL("postgres"))
	if _, err := root.Exec(ctx, "CREATE DATABASE "+s.name+" "+options); err != nil {
		t.Fatal(err)
	}
	_ = root.Close(ctx)
	s.admin = connectRaw(t, server.URL(s.name))
	s.db = s.connect("", "")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = s.admin.Close(ctx)
		s.db.Close()
		root := connectRaw(t, server.URL("postgres")) // the server may have been restarted
		_, _ = root.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, s.name)
		eventually(t, "the slots of the database are free", func() bool {
			_, err := root.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1`, s.name)
			return err == nil
		})
		if _, err := root.Exec(ctx, "DROP DATABASE "+s.name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop database: %v", err)
		}
		_ = root.Close(ctx)
	})
	return s
}

func suffix() string {
	var b [5]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func connectRaw(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// connect connects as a role; empty is the superuser. The role's password is
// its name.
func (s *source) connect(role, tag string) *DB {
	s.t.Helper()
	url := s.server.URL(s.name)
	password := s.server.Password
	if role != "" {
		url = strings.Replace(url, s.server.User+":"+s.server.Password+"@", role+"@", 1)
		password = role
	}
	if tag == "" {
		tag = "millrace/test/" + s.name + "/step/run/1"
	}
	db, err := Connect(s.t.Context(), Config{URL: url, Password: password, Tag: tag})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(db.Close)
	return db
}

// role makes a login role, dropped after the test.
func (s *source) role(options string) string {
	s.t.Helper()
	name := "r_" + suffix()
	s.exec("CREATE ROLE " + name + " LOGIN PASSWORD '" + name + "' " + options)
	admin := s.server.URL(s.name)
	s.t.Cleanup(func() {
		root := connectRaw(s.t, admin)
		defer root.Close(context.Background())
		if _, err := root.Exec(context.Background(), "DROP OWNED BY "+name+"; DROP ROLE "+name); err != nil {
			s.t.Errorf("drop role: %v", err)
		}
	})
	return name
}

func (s *source) exec(sql string) {
	s.t.Helper()
	if _, err := s.admin.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

func (s *source) value(sql string) (v string) {
	s.t.Helper()
	if err := s.admin.QueryRow(context.Background(), "SELECT ("+sql+")::text").Scan(&v); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// tables lists the tables that patterns choose, by name.
func (s *source) tables(patterns ...string) map[string]*change.Table {
	s.t.Helper()
	list, _, err := s.db.Tables(s.t.Context(), patterns)
	if err != nil {
		s.t.Fatal(err)
	}
	byName := map[string]*change.Table{}
	for _, t := range list {
		byName[t.Name] = t
	}
	return byName
}

// table is the one table that a pattern chooses.
func (s *source) table(pattern string) *change.Table {
	s.t.Helper()
	list, problems, err := s.db.Tables(s.t.Context(), []string{pattern})
	if err != nil || len(list) != 1 {
		s.t.Fatalf("%s chooses %d tables: %v %v", pattern, len(list), problems, err)
	}
	return list[0]
}

// publish publishes the tables that patterns choose for the database "shop".
func (s *source) publish(patterns ...string) []*change.Table {
	s.t.Helper()
	list, _, err := s.db.Tables(s.t.Context(), patterns)
	if err != nil {
		s.t.Fatal(err)
	}
	published, problems, err := s.db.EnsurePublications(s.t.Context(), "shop", list, true)
	if err != nil || len(problems) > 0 || len(published) != len(list) {
		s.t.Fatalf("published %d of %d: %v %v", len(published), len(list), problems, err)
	}
	return list
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func codes(problems []Problem) []string {
	var list []string
	for _, p := range problems {
		list = append(list, p.Code)
	}
	slices.Sort(list)
	return list
}

func problem(problems []Problem, code, table string) *Problem {
	for i := range problems {
		if problems[i].Code == code && (table == "" || problems[i].Table == table) {
			return &problems[i]
		}
	}
	return nil
}
