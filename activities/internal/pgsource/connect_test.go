package pgsource

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deploy/local"
)

func TestBadAddressesAreOneSentenceWithARemedy(t *testing.T) {
	secret := "s3cr3t-canary"
	for _, c := range []struct {
		url  string
		want string
	}{
		{"mysql://u@h/d", "does not begin with postgres://"},
		{"postgres://u:" + secret + "@h:port/d", "cannot be read"},
		{"postgres://u:" + secret + "@db.example.com/d?sslmode=disable", "sslmode=disable does not verify"},
		{"postgres://u@db.example.com/d?sslmode=require", "sslmode=require does not verify"},
		{"postgres://u@db.example.com/d?sslmode=prefer", "sslmode=prefer does not verify"},
		{"postgres://u@127.0.0.1,db.example.com/d?sslmode=prefer", "does not verify the server db.example.com"},
		{"postgres://u@h/d?sslmode=often", "cannot be read"},
	} {
		_, err := Connect(t.Context(), Config{URL: c.url, Password: secret})
		var e *Error
		if !errors.Is(err, ErrConfig) || !errors.As(err, &e) || e.Remedy == "" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.url, err)
		}
		if strings.Contains(fmt.Sprintf("%+v %v", err, e), secret) {
			t.Errorf("%s: the error holds the secret", c.want)
		}
	}
	for _, good := range []string{
		"postgres://u@db.example.com/d", "postgres://u@db.example.com/d?sslmode=verify-full", "postgres://u@db.example.com/d?sslmode=verify-ca&application_name=x",
		"postgres://u@[::1]/d?sslmode=disable", "postgres://u@localhost/d?sslmode=prefer",
	} {
		config, err := parse(Config{URL: good, Tag: "tag"})
		if err != nil {
			t.Errorf("%s: %v", good, err)
		} else if config.RuntimeParams["application_name"] != "tag" || config.RuntimeParams["datestyle"] != "ISO, MDY" {
			t.Errorf("%s: settings %v", good, config.RuntimeParams)
		}
	}
}

func TestServerThatIsNotThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	_, err = Connect(t.Context(), Config{URL: "postgres://u@" + address + "/d?sslmode=disable"})
	if !errors.Is(err, ErrUnreachable) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), address) {
		t.Errorf("got %v", err)
	}
}

func TestServerThatDoesNotAnswer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = Connect(ctx, Config{URL: "postgres://u@" + listener.Addr().String() + "/d?sslmode=disable"})
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}

func TestRefusedRolesAndDatabases(t *testing.T) {
	server := sharedServer(t)
	good := server.URL("postgres")
	for _, c := range []struct {
		name, url, password string
		class               error
	}{
		{"wrong password", good, "wrong", ErrAuth},
		{"no such role", strings.Replace(good, "//"+server.User+":", "//nobody:", 1), "x", ErrAuth},
		{"no such database", server.URL("nowhere"), "", ErrNoDatabase},
	} {
		_, err := Connect(t.Context(), Config{URL: c.url, Password: c.password})
		var e *Error
		if !errors.Is(err, c.class) || !errors.As(err, &e) || e.Remedy == "" || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestSettingsOfTheRoleDoNotPrevail(t *testing.T) {
	s := newSource(t)
	role := s.role("REPLICATION")
	s.exec(fmt.Sprintf(`ALTER ROLE %s SET datestyle = 'German'; ALTER ROLE %s SET statement_timeout = '1ms'; ALTER ROLE %s SET row_security = on;
		ALTER DATABASE %s SET timezone = 'Asia/Tokyo'; ALTER DATABASE %s SET search_path = 'public'`, role, role, role, s.name, s.name))
	db := s.connect(role, "")
	for _, replication := range []bool{false, true} {
		conn, err := db.session(t.Context(), sessionOptions{replication: replication})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"datestyle": "ISO, MDY", "timezone": "UTC", "search_path": "pg_catalog", "row_security": "off", "statement_timeout": "1min", "lock_timeout": "2s"} {
			r, err := conn.PgConn().Exec(t.Context(), "SHOW "+name).ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			if got := string(r[0].Rows[0][0]); got != want {
				t.Errorf("replication %t: %s is %s", replication, name, got)
			}
		}
		closeConn(conn.PgConn())
	}
}

func TestCheckNamesWhatIsMissing(t *testing.T) {
	s := newSource(t)
	role := s.role("")
	s.exec(`CREATE TABLE open (id int PRIMARY KEY); CREATE TABLE closed (id int PRIMARY KEY); CREATE TABLE guarded (id int PRIMARY KEY);
		ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; GRANT SELECT ON open, guarded TO ` + role)
	db := s.connect(role, "")
	problems, err := db.Check(t.Context(), []string{"public.*"})
	if err != nil {
		t.Fatal(err)
	}
	for code, table := range map[string]string{"PERMISSION_DENIED": "", "TABLE_PRIVILEGE": "public.closed", "ROW_SECURITY": "public.guarded"} {
		p := problem(problems, code, table)
		if p == nil || !p.Blocking || p.Remedy == "" {
			t.Errorf("%s: %v", code, problems)
		}
	}
	if err := AsError(problems); !errors.Is(err, ErrPrivilege) {
		t.Errorf("as an error: %v", err)
	}
	// The remedies do what they say.
	for _, p := range problems {
		if p.Blocking {
			s.exec(strings.Replace(p.Remedy, "-- or", ";-- or", 1))
		}
	}
	db.Close()
	if problems, err = db.Check(t.Context(), []string{"public.*"}); err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if p.Blocking {
			t.Errorf("still: %+v", p)
		}
	}
	if AsError(problems) != nil {
		t.Error("still an error")
	}
}

func TestPatternsThatMatchNothing(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW v AS SELECT 1 AS a")
	for _, patterns := range [][]string{{"sales.*"}, {"public.*", "!public.*"}, {"public.v"}} {
		problems, err := s.db.Check(t.Context(), patterns)
		if err != nil {
			t.Fatal(err)
		}
		p := problem(problems, "SOURCE_NO_TABLES", "")
		if p == nil || !p.Blocking || !strings.Contains(p.Sentence, patterns[0]) {
			t.Errorf("%v: %v", patterns, problems)
		}
		if err := AsError(problems); !errors.Is(err, ErrNoTables) {
			t.Errorf("%v: %v", patterns, err)
		}
	}
}

func TestRoleWithoutReplication(t *testing.T) {
	s := newSource(t)
	db := s.connect(s.role(""), "")
	if _, err := db.System(t.Context()); !errors.Is(err, ErrPrivilege) {
		t.Errorf("system: %v", err)
	}
	var e *Error
	if _, err := db.EnsureSlot(t.Context(), "shop", 1); !errors.Is(err, ErrPrivilege) || !errors.As(err, &e) || !strings.Contains(e.Remedy, "REPLICATION") {
		t.Errorf("slot: %v", err)
	}
}

func TestServerThatCannotBeMirrored(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server")
	}
	server, err := local.StartPostgres(t.Context(), local.PostgresOptions{Version: "15", Settings: map[string]string{
		"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "2",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s := newSourceOn(t, server, "")
	s.exec("CREATE TABLE t (id int PRIMARY KEY); SELECT pg_create_physical_replication_slot('taken')")
	problems, err := s.db.Check(t.Context(), []string{"public.*"})
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []string{"WAL_LEVEL", "NO_FREE_SLOT"} {
		if p := problem(problems, code, ""); p == nil || !p.Blocking || p.Remedy == "" {
			t.Errorf("%s is not named: %v", code, problems)
		}
	}
	if err := AsError(problems); !errors.Is(err, ErrWALLevel) {
		t.Errorf("as an error: %v", err)
	}
	if _, err := s.db.EnsureSlot(t.Context(), "shop", 1); !errors.Is(err, ErrWALLevel) {
		t.Errorf("slot: %v", err)
	}
	s.exec("ALTER SYSTEM SET wal_level = 'logical'")
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestNoFreeSlot(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server")
	}
	server, err := local.StartPostgres(t.Context(), local.PostgresOptions{Version: "15", Settings: map[string]string{"max_replication_slots": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s := newSourceOn(t, server, "")
	if _, err := s.db.EnsureSlot(t.Context(), "shop", 1); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err := s.db.EnsureSlot(t.Context(), "shop", 2); !errors.Is(err, ErrNoFreeSlot) || !errors.As(err, &e) || e.Remedy == "" {
		t.Errorf("slot: %v", err)
	}
	if _, err := s.db.Cut(t.Context()); !errors.Is(err, ErrNoFreeSlot) {
		t.Errorf("cut: %v", err)
	}
}

func TestIdentityOfTheSystem(t *testing.T) {
	s := newSource(t)
	system, err := s.db.System(t.Context())
	if err != nil || system.ID == "" || system.Timeline != 1 || system.Version < 140000 || system.Database != s.name || system.LSN == 0 {
		t.Fatalf("%+v, %v", system, err)
	}
	if err := system.Same(system.ID, 1); err != nil {
		t.Error(err)
	}
	if err := system.Same(system.ID, 2); !errors.Is(err, ErrIdentityChanged) {
		t.Errorf("another timeline: %v", err)
	}
	if err := system.Same("7", 1); !errors.Is(err, ErrIdentityChanged) {
		t.Errorf("another system: %v", err)
	}
}
