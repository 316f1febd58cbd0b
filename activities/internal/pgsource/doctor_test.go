package pgsource

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/deploy/local"
)

var update = flag.Bool("update", false, "write the golden files")

// badSource starts a server of a version with everything wrong that the doctor
// knows, and returns it with what its owner and a role without rights do there.
func badSource(t *testing.T, version string) (*local.Postgres, func(sql string)) {
	t.Helper()
	settings := map[string]string{
		"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1", "wal_sender_timeout": "5s",
		"max_slot_wal_keep_size": "64MB", "max_prepared_transactions": "5", "autovacuum": "off",
	}
	if version == "18" {
		settings["idle_replication_slot_timeout"] = "1h"
	}
	server, err := local.StartPostgres(t.Context(), local.PostgresOptions{Version: version, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	exec := func(sql string) {
		t.Helper()
		c := connectRaw(t, server.URL("shop"))
		defer c.Close(context.Background())
		if _, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	root := connectRaw(t, server.URL("postgres"))
	defer root.Close(context.Background())
	for _, sql := range []string{"CREATE ROLE shopkeeper", "CREATE ROLE mirror LOGIN PASSWORD 'mirror'", "CREATE DATABASE shop ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"} {
		if _, err := root.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`GRANT CREATE ON SCHEMA public TO shopkeeper; CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw; GRANT USAGE ON FOREIGN SERVER files TO shopkeeper; GRANT pg_read_server_files TO shopkeeper`)
	exec(`SET ROLE shopkeeper;
		CREATE TABLE orders (id int PRIMARY KEY, note text, total numeric(10,2), doubled int GENERATED ALWAYS AS (id * 2) STORED);
		CREATE TABLE late (id int PRIMARY KEY DEFERRABLE);
		CREATE TABLE log (at timestamptz, line text);
		CREATE TABLE quiet (id int PRIMARY KEY); ALTER TABLE quiet REPLICA IDENTITY NOTHING;
		CREATE TABLE guarded (id int PRIMARY KEY); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; GRANT SELECT ON guarded, late, log, quiet TO mirror;
		CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY);
		CREATE VIEW looks AS SELECT 1 AS a;
		CREATE FOREIGN TABLE outside (a int) SERVER files OPTIONS (filename '/dev/null');
		CREATE TABLE parts (id int) PARTITION BY RANGE (id);
		CREATE FOREIGN TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10) SERVER files OPTIONS (filename '/dev/null'); GRANT SELECT ON parts, parts_1 TO mirror;
		CREATE TABLE "Late" (a int PRIMARY KEY, "A" int); GRANT SELECT ON "Late" TO mirror`)
	exec(`SELECT pg_create_physical_replication_slot('forgotten', true)`)
	exec(`BEGIN; INSERT INTO log VALUES (now(), 'x'); PREPARE TRANSACTION 'half done'`)
	return server, exec
}

// diagnose asks as a role, whose password is its name.
func diagnose(t *testing.T, server *local.Postgres, role string, o DiagnoseOptions) Diagnosis {
	t.Helper()
	url := server.URL("shop")
	if role != server.User {
		url = strings.Replace(url, server.User+":"+server.Password+"@", role+"@", 1)
	}
	c := Config{URL: url, Tag: "millrace/shop/doctor"}
	if role != server.User {
		c.Password = role
	}
	d, err := Connect(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	o.Database = "shop"
	if o.Patterns == nil {
		o.Patterns = []string{"public.*"}
	}
	found, err := d.Diagnose(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var passing = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:]+Z|\d+ MB of WAL`)

// text writes a diagnosis without what differs from run to run.
func (d *Diagnosis) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d tables\n", d.Host, len(d.Tables))
	for _, p := range d.Problems {
		mark := " "
		if p.Blocking {
			mark = "!"
		}
		fmt.Fprintf(&b, "%s %s %s\n    for %s:\n    %s\n", mark, p.Code, p.Sentence, p.By, strings.ReplaceAll(p.Remedy, "\n", "\n    "))
	}
	return passing.ReplaceAllString(b.String(), "…")
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it)\n--- got\n%s\n--- want\n%s", name, got, want)
	}
}

// statements are what psql would send of a remedy, line by line.
func statements(remedy string) (list []string) {
	for line := range strings.Lines(remedy) {
		line, _, _ = strings.Cut(line, " -- ")
		for _, s := range strings.Split(line, ";") {
			if s = strings.TrimSpace(s); s != "" {
				list = append(list, s)
			}
		}
	}
	return list
}

var setting = regexp.MustCompile(`ALTER SYSTEM SET (\w+) =`)

// written is what ALTER SYSTEM noted of a setting.
func written(t *testing.T, server *local.Postgres, name string) (value string) {
	t.Helper()
	c := connectRaw(t, server.URL("shop"))
	defer c.Close(context.Background())
	err := c.QueryRow(t.Context(), `SELECT coalesce(max(setting), '') FROM pg_file_settings WHERE name = $1 AND sourcefile LIKE '%auto.conf'`, name).Scan(&value)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestTheDoctorNamesAllThatIsWrongAndItsRemediesMendIt(t *testing.T) {
	if testing.Short() {
		t.Skip("needs servers")
	}
	for _, version := range []string{"14", "17", "18"} {
		t.Run(version, func(t *testing.T) {
			server, exec := badSource(t, version)
			bad := DiagnoseOptions{Open: time.Nanosecond, Held: 1}
			found := diagnose(t, server, "mirror", bad)
			golden(t, "doctor_"+version+".txt", found.text())

			for _, p := range found.Problems {
				remedy := p.Remedy
				switch p.Code {
				case "IDENTITY_MISSING", "PARTITION_KIND", "SOURCE_VERSION_OLD":
					continue // what columns identify, and what becomes of rows, is for people
				case "NO_FREE_SLOT":
					_, remedy, _ = strings.Cut("\n"+remedy, "or:\n")
					if remedy == "" {
						remedy = p.Remedy
					}
				case "TABLE_KIND":
					if i := strings.Index(remedy, "!"); i >= 0 {
						bad.Patterns = append(bad.Patterns, remedy[i:])
						continue
					}
				}
				if p.By == "" {
					continue
				}
				for _, s := range statements(remedy) {
					exec(s)
				}
			}
			exec(`ALTER TABLE parts DETACH PARTITION parts_1`)
			if err := server.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			bad.Patterns = append([]string{"public.*", "!public.parts_1"}, bad.Patterns...)
			found = diagnose(t, server, "mirror", bad)
			for _, p := range found.Problems {
				switch p.Code {
				case "WAL_LEVEL", "NO_FREE_SLOT", "SOURCE_TIMEOUT", "SLOT_TIMEOUT", "SOURCE_WAL_SMALL":
					// The server's command line prevails here; elsewhere what is written does.
					if set := setting.FindStringSubmatch(p.Remedy); set == nil || written(t, server, set[1]) == "" {
						t.Errorf("after its remedy: %+v", p)
					}
				case "IDENTITY_MISSING", "SOURCE_VERSION_OLD", "SOURCE_ENCODING", "COLUMN_GENERATED", "NAMES_COLLIDE":
					if p.Blocking {
						t.Errorf("in the way: %+v", p)
					}
				default:
					t.Errorf("after its remedy: %+v", p)
				}
			}
		})
	}
}

func TestTheDoctorKnowsWhoRunsTheServer(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server")
	}
	server, exec := badSource(t, "17")
	for _, c := range []struct {
		sql  string
		host Host
	}{
		{"CREATE ROLE azure_pg_admin", Azure},
		{"CREATE ROLE cloudsqlsuperuser", CloudSQL},
		{"CREATE ROLE rds_superuser; CREATE ROLE rds_replication", RDS},
		{"SET allow_system_table_mods = on; CREATE FUNCTION pg_catalog.aurora_version() RETURNS text LANGUAGE sql AS 'SELECT ''17.4.1'''", Aurora},
	} {
		exec(c.sql)
		found := diagnose(t, server, "mirror", DiagnoseOptions{})
		if found.Host != c.host {
			t.Errorf("%s, want %s", found.Host, c.host)
		}
		golden(t, "doctor_"+strings.ReplaceAll(strings.ToLower(string(c.host)), " ", "_")+".txt", found.text())
	}
	exec(`GRANT rds_replication TO mirror`)
	if p := problem(diagnose(t, server, "mirror", DiagnoseOptions{}).Problems, "PERMISSION_DENIED", ""); p == nil || strings.Contains(p.Sentence, "slots") {
		t.Errorf("rds_replication is not taken for the right to replicate: %+v", p)
	}
}

func TestReleasesThatLoseChangesAreRefusedByTheBug(t *testing.T) {
	d := &DB{config: &pgx.ConnConfig{}}
	for _, c := range []struct {
		version  int
		code     string
		blocking bool
		names    string
	}{
		{130020, "SOURCE_VERSION", true, "14 or later"},
		{140018, "SOURCE_VERSION", true, "14.25"},
		{150005, "SOURCE_VERSION", true, "constant default"},
		{150007, "SOURCE_VERSION", true, "middle of a transaction"},
		{150012, "SOURCE_VERSION", true, "ALTER PUBLICATION"},
		{150013, "SOURCE_VERSION", true, "confirmed position"},
		{150014, "SOURCE_VERSION_OLD", false, "checkpoint"},
		{150019, "SOURCE_VERSION_OLD", false, "subtransaction"},
		{160009, "SOURCE_VERSION", true, "16.16"},
		{170005, "SOURCE_VERSION", true, "17.12"},
		{170011, "SOURCE_VERSION_OLD", false, "subtransaction"},
		{180001, "SOURCE_VERSION_OLD", false, "checkpoint"},
		{150020, "", false, ""},
		{160016, "", false, ""},
		{170012, "", false, ""},
		{180006, "", false, ""},
		{190000, "", false, ""},
	} {
		problems := d.judge(&facts{version: c.version, versionText: "X", walLevel: "logical", slotsMax: 10, sendersMax: 10, replication: true, mayPublish: true, keep: "1GB"})
		if c.code == "" {
			if len(problems) > 0 {
				t.Errorf("%d: %+v", c.version, problems)
			}
			continue
		}
		p := problem(problems, c.code, "")
		if p == nil || p.Blocking != c.blocking || !strings.Contains(p.Sentence+p.Remedy, c.names) {
			t.Errorf("%d: %+v", c.version, problems)
		}
	}
}

func TestTheDoctorSeesPublicationsOfOthers(t *testing.T) {
	s := newSource(t)
	s.exec(`CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE log (v text)`)
	look := func(db *DB) []Problem {
		t.Helper()
		found, err := db.Diagnose(t.Context(), DiagnoseOptions{Database: "shop", Patterns: []string{"public.*"}})
		if err != nil {
			t.Fatal(err)
		}
		return found.Problems
	}
	s.exec(`CREATE PUBLICATION millrace_shop FOR ALL TABLES`)
	if p := problem(look(s.db), "PUBLICATION", ""); p == nil || !p.Blocking || !strings.Contains(p.Sentence, "FOR ALL TABLES") {
		t.Error("a publication for all tables is not refused")
	} else {
		for _, q := range statements(p.Remedy) {
			s.exec(q)
		}
	}
	s.exec(`ALTER PUBLICATION millrace_shop SET (publish = 'insert')`)
	if p := problem(look(s.db), "PUBLICATION", ""); p == nil || !p.Blocking {
		t.Error("a publication of inserts alone is not refused")
	} else {
		s.exec(p.Remedy)
	}
	if s.value(`current_setting('server_version_num')::int >= 150000`) == "true" {
		s.exec(`ALTER PUBLICATION millrace_shop ADD TABLE a WHERE (id > 1)`)
		p := problem(look(s.db), "PUBLICATION_FILTERED", "public.a")
		if p == nil || !p.Blocking || p.By == "" {
			t.Errorf("a row filter is not refused: %+v", p)
		} else {
			for _, q := range statements(p.Remedy) {
				s.exec(q)
			}
		}
	}
	for _, p := range look(s.db) {
		if p.Blocking {
			t.Errorf("still: %+v", p)
		}
	}

	// A role that owns nothing is told what its owner has to do, and may use what the
	// owner did.
	role := s.role("REPLICATION")
	s.exec(`GRANT SELECT ON ALL TABLES IN SCHEMA public TO ` + role)
	db := s.connect(role, "")
	p := problem(look(db), "TABLE_NOT_OWNED", "public.log")
	if p == nil || !strings.Contains(p.Remedy, "ALTER PUBLICATION") || p.By == "" {
		t.Fatalf("nobody is told to publish a table: %+v", p)
	}
	_, sql, _ := strings.Cut(p.Remedy, "as a superuser: ")
	s.exec(`CREATE PUBLICATION millrace_shop_inserts WITH (publish = 'insert, truncate', publish_via_partition_root = true)`)
	s.exec(sql)
	if s.value(`current_setting('server_version_num')::int < 150000`) == "true" {
		s.exec(`ALTER PUBLICATION millrace_shop ADD TABLE ONLY a`)
	}
	for _, p := range look(db) {
		if p.Blocking {
			t.Errorf("still: %+v", p)
		}
	}
}

func TestTheDoctorNamesOpenTransactionsAndClocks(t *testing.T) {
	s := newSource(t)
	s.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	other := connectRaw(t, s.server.URL(s.name))
	defer other.Close(context.Background())
	if _, err := other.Exec(t.Context(), `SET application_name = 'careless'; BEGIN; INSERT INTO a VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	found, err := s.db.Diagnose(t.Context(), DiagnoseOptions{
		Database: "shop", Patterns: []string{"public.*"}, Open: time.Nanosecond, Now: func() time.Time { return time.Now().Add(-time.Minute) },
	})
	if err != nil {
		t.Fatal(err)
	}
	pid := fmt.Sprint(other.PgConn().PID())
	if !slices.ContainsFunc(found.Problems, func(p Problem) bool {
		return p.Code == "SOURCE_BLOCKED" && !p.Blocking && strings.Contains(p.Sentence, pid) && strings.Contains(p.Sentence, "careless") && strings.Contains(p.Remedy, pid)
	}) {
		t.Errorf("the open transaction is not named: %v", found.Problems)
	}
	if p := problem(found.Problems, "CLOCK_SKEW", ""); p == nil || !strings.Contains(p.Sentence, "1m0s") {
		t.Errorf("a clock that is a minute away: %+v", p)
	}
}

// poolerOf answers in a server's place as poolers do: with a process id of its own.
func poolerOf(t *testing.T, server *local.Postgres) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = listener.Close(); <-done })
	go func() {
		defer close(done)
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", net.JoinHostPort(server.Host, fmt.Sprint(server.Port)))
			if err != nil {
				_ = in.Close()
				continue
			}
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
			go func() {
				defer in.Close()
				var head [5]byte
				for {
					if _, err := io.ReadFull(out, head[:]); err != nil {
						return
					}
					body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
					if _, err := io.ReadFull(out, body); err != nil {
						return
					}
					if head[0] == 'K' {
						body[0] ^= 1
					}
					if _, err := in.Write(append(head[:], body...)); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

func TestAPoolerIsFoundOut(t *testing.T) {
	s := newSource(t)
	s.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	url := strings.Replace(s.server.URL(s.name), fmt.Sprintf("%s:%d", s.server.Host, s.server.Port), poolerOf(t, s.server), 1)
	db, err := Connect(t.Context(), Config{URL: url, Password: s.server.Password, Tag: "millrace/shop/doctor"})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	found, err := db.Diagnose(t.Context(), DiagnoseOptions{Database: "shop", Patterns: []string{"public.*"}})
	if err != nil {
		t.Fatal(err)
	}
	if p := problem(found.Problems, "SOURCE_POOLER", ""); p == nil || !p.Blocking {
		t.Errorf("found %v", found.Problems)
	}
	// One that knows no such settings refuses them itself.
	refused := (&DB{config: db.config}).connectError(&pgconn.PgError{Code: "08P01", Message: "unsupported startup parameter: row_security"})
	if !errors.Is(refused, ErrConfig) || !strings.Contains(refused.Error(), "pooler") {
		t.Errorf("refused as %v", refused)
	}
}
