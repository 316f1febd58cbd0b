package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/deploy/local"
)

// relay is an address behind which servers can be exchanged.
type relay struct {
	port int

	mu    sync.Mutex
	to    string
	conns map[net.Conn]bool
}

// newRelay listens on loopback until the test ends.
func newRelay(t *testing.T) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{port: l.Addr().(*net.TCPAddr).Port, conns: map[net.Conn]bool{}}
	t.Cleanup(func() {
		_ = l.Close()
		r.lead("")
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.pass(c)
		}
	}()
	return r
}

// lead has new connections go to an address, and ends those that are open.
func (r *relay) lead(to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = to
	for c := range r.conns {
		_ = c.Close()
	}
	clear(r.conns)
}

func (r *relay) pass(in net.Conn) {
	defer in.Close()
	r.mu.Lock()
	to := r.to
	r.mu.Unlock()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	r.mu.Lock()
	stale := r.to != to
	r.conns[in], r.conns[out] = true, true
	r.mu.Unlock()
	if stale {
		return
	}
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
	r.mu.Lock()
	delete(r.conns, in)
	delete(r.conns, out)
	r.mu.Unlock()
}

// ownPostgres starts a server for one test.
func ownPostgres(t *testing.T) *local.Postgres {
	t.Helper()
	pg, err := local.StartPostgres(t.Context(), local.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pg.Close() })
	return pg
}

// dataOf is the folder of a server's data.
func dataOf(t *testing.T, pg *local.Postgres) (dir string) {
	t.Helper()
	c := connect(t, pg.URL("postgres"))
	defer c.Close(t.Context())
	if err := c.QueryRow(t.Context(), `SHOW data_directory`).Scan(&dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// clone copies a data folder, of a server that is stopped, over another.
func clone(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy the data folder: %v: %s", err, out)
	}
}

// signalFile makes a file in a data folder, for whom the folder belongs to, and
// adds settings.
func signalFile(t *testing.T, data, name, settings string) {
	t.Helper()
	for file, text := range map[string]string{name: "", "postgresql.auto.conf": settings} {
		f, err := os.OpenFile(filepath.Join(data, file), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("chown", "--reference", data, filepath.Join(data, file)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// siteOn makes a fleet of one database on a server of its own, behind a relay.
func siteOn(t *testing.T, pg *local.Postgres, name string) (*site, *source, *relay) {
	t.Helper()
	shared := local.Shared(t, local.Options{Kafka: true, Temporal: true})
	r := newRelay(t)
	r.lead(fmt.Sprintf("127.0.0.1:%d", pg.Port))
	s := newSiteOn(t, &local.Stack{Postgres: pg, Kafka: shared.Kafka, Temporal: shared.Temporal})
	src := s.add(name)
	s.change(src.name, func(d *database) {
		d.url = fmt.Sprintf("postgres://%s@127.0.0.1:%d/%s?sslmode=disable", pg.User, r.port, src.name)
	})
	src.exec(`CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'copied' FROM generate_series(1, 50) i`)
	s.worker("a")
	s.must("apply")
	s.must("wait", src.name, "--until", "live", "--timeout", "60s")
	s.caughtUp(src.name)
	return s, src, r
}

// reads are the rows that latest shows of one value.
func (s *site) reads(src *source, v string) int {
	s.t.Helper()
	out := s.must("table", "cat", s.table(src.name, "public.t").Latest, "--where", "v = '"+v+"'").stdout
	return strings.Count(out, "\n")
}

func TestARestoreToAnEarlierPointIsNotReadOnFrom(t *testing.T) {
	t.Parallel()
	bin(t)
	pg := ownPostgres(t)
	s, src, _ := siteOn(t, pg, "restored")
	data := dataOf(t, pg)
	backup := data + "-backup"

	// A backup, slot included, and a future that is lost.
	must(t, pg.Stop())
	clone(t, data, backup)
	must(t, pg.Start(t.Context()))
	src.reconnect()
	src.exec(`INSERT INTO t SELECT i, 'of the lost future' FROM generate_series(51, 60) i; DELETE FROM t WHERE id = 1`)
	s.caughtUp(src.name)

	must(t, pg.Stop())
	clone(t, backup, data)
	signalFile(t, data, "recovery.signal", "restore_command = 'false'\n")
	must(t, pg.Start(t.Context()))
	src.reconnect()
	until(t, 30*time.Second, "the restored server takes writes", func() bool {
		_, err := src.conn.Exec(t.Context(), `INSERT INTO t SELECT i, 'of the other timeline' FROM generate_series(51, 53) i`)
		return err == nil
	})
	s.parks(src.name, "SOURCE_IDENTITY_CHANGED")
	if n := s.reads(src, "of the other timeline"); n != 0 {
		t.Errorf("%d rows of the other timeline before anybody agreed", n)
	}
	s.remedied(src.name)
	src.exec(`INSERT INTO t VALUES (100, 'of the other timeline')`)
	s.caughtUp(src.name)
	s.verified(src.name)
	if lost, now := s.reads(src, "of the lost future"), s.reads(src, "of the other timeline"); lost != 0 || now != 4 {
		t.Errorf("latest has %d rows of the lost future and %d of the other timeline", lost, now)
	}
}

func TestAFailoverToAServerWithoutTheSlotParks(t *testing.T) {
	t.Parallel()
	bin(t)
	primary, standby := ownPostgres(t), ownPostgres(t)
	s, src, relay := siteOn(t, primary, "failover")
	from, to := dataOf(t, primary), dataOf(t, standby)
	must(t, standby.Stop())
	must(t, primary.Stop())
	clone(t, from, to)
	if err := os.RemoveAll(filepath.Join(to, "pg_replslot")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", `mkdir "$1/pg_replslot" && chown --reference "$1" "$1/pg_replslot" && chmod 700 "$1/pg_replslot"`, "sh", to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	signalFile(t, to, "standby.signal", fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=%s password=%s'\n", primary.Port, primary.User, primary.Password))
	must(t, primary.Start(t.Context()))
	must(t, standby.Start(t.Context()))
	src.reconnect()
	src.exec(`UPDATE t SET v = 'replicated' WHERE id < 10`)
	end := src.end()
	var promoted *pgx.Conn
	until(t, 30*time.Second, "the standby has it", func() bool {
		if promoted == nil {
			if promoted, _ = pgx.Connect(t.Context(), standby.URL(src.name)); promoted == nil {
				return false
			}
			t.Cleanup(func() { _ = promoted.Close(context.Background()) })
		}
		var at string
		if promoted.QueryRow(t.Context(), `SELECT pg_last_wal_replay_lsn()::text`).Scan(&at) != nil {
			return false
		}
		have, err := parseLSN(at)
		return err == nil && have >= end
	})
	s.caughtUp(src.name)

	must(t, primary.Kill())
	execute(t, promoted, `SELECT pg_promote()`)
	relay.lead(fmt.Sprintf("127.0.0.1:%d", standby.Port))
	execute(t, promoted, `UPDATE t SET v = 'after the failover' WHERE id < 5; DELETE FROM t WHERE id = 50`)
	s.parks(src.name, "SOURCE_IDENTITY_CHANGED")
	if n := s.reads(src, "after the failover"); n != 0 {
		t.Errorf("%d rows before anybody agreed", n)
	}
	s.remedied(src.name)
	execute(t, promoted, `INSERT INTO t VALUES (51, 'streamed')`)
	s.caughtUp(src.name)
	s.verified(src.name)
}

func TestAnotherClusterBehindTheNameParks(t *testing.T) {
	t.Parallel()
	bin(t)
	pg, other := ownPostgres(t), ownPostgres(t)
	s, src, relay := siteOn(t, pg, "cluster")
	there := newSource(t, other, src.name)
	there.exec(`CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'of another')`)

	relay.lead(fmt.Sprintf("127.0.0.1:%d", other.Port))
	s.parks(src.name, "SOURCE_IDENTITY_CHANGED")
	for _, sql := range []string{`SELECT count(*) FROM pg_replication_slots`, `SELECT count(*) FROM pg_publication`} {
		if n := there.number(sql); n != 0 {
			t.Errorf("%s at the other cluster: %d", sql, n)
		}
	}
	// The right one is back.
	relay.lead(fmt.Sprintf("127.0.0.1:%d", pg.Port))
	s.must("apply", src.name)
	src.exec(`UPDATE t SET v = 'of the first' WHERE id = 1`)
	s.caughtUp(src.name)
	s.verified(src.name)
	// It was replaced for good.
	relay.lead(fmt.Sprintf("127.0.0.1:%d", other.Port))
	s.parks(src.name, "SOURCE_IDENTITY_CHANGED")
	s.remedied(src.name)
	there.exec(`INSERT INTO t VALUES (2, 'of another')`)
	s.caughtUp(src.name)
	s.verified(src.name)
	if n := s.reads(src, "of another"); n != 2 {
		t.Errorf("latest has %d rows of the other", n)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
