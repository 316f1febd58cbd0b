package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// terminate asks the worker to stop, as an operator would, and checks that it
// does.
func (w *worker) terminate() {
	w.s.t.Helper()
	began := time.Now()
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		w.s.t.Fatal(err)
	}
	select {
	case <-w.done:
	case <-time.After(25 * time.Second):
		w.s.t.Fatalf("worker %s did not end", w.name)
	}
	if took := time.Since(began); took > 20*time.Second || w.err != nil {
		w.s.t.Errorf("worker %s ended after %s: %v", w.name, took, w.err)
	}
}

// confirmed is how far PostgreSQL may forget its WAL for us.
func (s *source) confirmed() lsn {
	s.t.Helper()
	return s.lsn(`SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE starts_with(slot_name::text, 'millrace_' || current_database())`)
}

// end is the end of the WAL.
func (s *source) end() lsn {
	s.t.Helper()
	return s.lsn(`SELECT pg_current_wal_insert_lsn()::text`)
}

func (s *source) lsn(sql string) lsn {
	s.t.Helper()
	var text string
	if err := s.conn.QueryRow(s.t.Context(), sql).Scan(&text); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	at, err := parseLSN(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return at
}

func TestDatabasesAreControlledByCommands(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	src := newShop(s, "control")
	o := newOracle(src)

	// Without a worker each command says so, and the request is kept.
	queue := "millrace." + s.region + ".default.control"
	for _, args := range [][]string{
		{"apply"},
		{"status", src.name},
		{"wait", src.name},
		{"pause", src.name},
		{"verify", src.name},
	} {
		s.refused(3, 10*time.Second, []string{queue, "millrace-worker --fleet"}, args...)
	}
	if r := s.run("status", "--json"); !strings.Contains(r.stdout, `"NO_WORKER"`) {
		t.Errorf("the status does not say what is missing: %v", r)
	}
	s.refused(1, 10*time.Second, []string{"nobody"}, "status", "nobody")
	s.refused(2, 10*time.Second, []string{"--until"}, "wait", src.name, "--until", "doomsday")

	a := s.worker("a")
	s.must("wait", src.name, "--until", "live", "--timeout", "120s")
	if r := s.must("apply"); !strings.Contains(r.stdout, "running") {
		t.Errorf("apply says nothing: %v", r)
	}
	stop := traffic(src, 7, 100)
	moves := func(what string) {
		t.Helper()
		before := s.commits(src.name)
		until(t, 30*time.Second, what, func() bool { return s.commits(src.name) >= before+5 })
	}
	moves("commits")

	t.Run("SIGTERM hands the lanes over", func(t *testing.T) {
		a.terminate()
		s.worker("b")
		began := time.Now()
		moves("commits by another worker")
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("the lanes went on after %s only", took)
		}
	})

	t.Run("a paused database holds no WAL", func(t *testing.T) {
		s.must("pause", src.name)
		// The commit lane returns at its next boundary.
		before, since := s.commits(src.name), time.Now()
		until(t, 30*time.Second, "no commit for two seconds", func() bool {
			if now := s.commits(src.name); now != before {
				before, since = now, time.Now()
			}
			return time.Since(since) > 2*time.Second
		})
		if phase := s.status(src.name).Phase; phase != "paused" {
			t.Errorf("the database is %s", phase)
		}
		end := src.end()
		until(t, 30*time.Second, "the slot moves on", func() bool { return src.confirmed() > end })
		if after := s.commits(src.name); after != before {
			t.Errorf("%d commits while paused", after-before)
		}
		s.refused(1, 10*time.Second, []string{"paused", "millrace resume"}, "wait", src.name)
		s.must("resume", src.name)
		moves("commits after the pause")
		s.caughtUp(src.name)
	})

	t.Run("capture can be paused too", func(t *testing.T) {
		s.must("pause", src.name, "--capture")
		until(t, 20*time.Second, "capture ends", func() bool { return !src.busy("capture/") })
		before, end := src.confirmed(), src.end()
		until(t, 30*time.Second, "some WAL", func() bool { return src.end() > end+100_000 })
		if after := src.confirmed(); after != before {
			t.Errorf("the slot moved from %s to %s while capture was paused", before, after)
		}
		s.must("resume", src.name)
		s.caughtUp(src.name)
	})

	stop()
	s.caughtUp(src.name)
	s.proven(o)

	t.Run("verify sees one altered row", func(t *testing.T) {
		damage(t, s.table(src.name, "public.documents").Latest, "revision")
		r := s.run("verify", src.name, "--json")
		var report struct {
			Equal  bool `json:"equal"`
			Tables []struct {
				Table       string   `json:"table"`
				Equal       bool     `json:"equal"`
				Differences []string `json:"differences"`
			} `json:"tables"`
		}
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
			t.Fatalf("%v: %v", err, r)
		}
		if r.code != 1 || report.Equal || len(report.Tables) != 7 {
			t.Errorf("want exit status 1 and seven tables: %v", r)
		}
		for _, table := range report.Tables {
			if damaged := table.Table == "public.documents"; table.Equal == damaged {
				t.Errorf("%s: equal is %v", table.Table, table.Equal)
			} else if damaged && !strings.Contains(strings.Join(table.Differences, "\n"), "1 changed") {
				t.Errorf("the difference is not named: %q", table.Differences)
			}
		}
	})

	t.Run("remove keeps the lake and drops the rest", func(t *testing.T) {
		s.refused(2, 10*time.Second, []string{"--yes"}, "remove", src.name)
		latest := s.table(src.name, "public.orders").Latest
		r := s.must("remove", src.name, "--yes")
		if !strings.Contains(r.stdout, "slot millrace_"+src.name) {
			t.Errorf("remove does not say what it dropped: %v", r)
		}
		if n := src.number(`SELECT count(*) FROM pg_replication_slots WHERE starts_with(slot_name::text, 'millrace_' || current_database())`); n != 0 {
			t.Errorf("%d slots are left", n)
		}
		if n := src.number(`SELECT count(*) FROM pg_publication`); n != 0 {
			t.Errorf("%d publications are left", n)
		}
		s.must("table", "info", latest)
		if phase := s.status(src.name).Phase; phase != "removed" {
			t.Errorf("the status is %s", phase)
		}
		s.refused(1, 10*time.Second, []string{"not applied"}, "wait", src.name)
	})

	t.Run("applied again it is copied again", func(t *testing.T) {
		src.exec(`UPDATE orders SET status = 'while nobody looked'; DELETE FROM order_lines WHERE line = 1`)
		s.must("apply")
		s.must("wait", src.name, "--until", "live", "--timeout", "120s")
		src.exec(`UPDATE orders SET status = 'seen again' WHERE total > 100`)
		s.caughtUp(src.name)
		s.verified(src.name)
	})
}

func TestUnreachableDatabaseCanBeRemoved(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	address := freeAddress(t)
	s.entry(&database{name: "lost", url: "postgres://postgres@" + address + "/lost?sslmode=disable"})
	s.worker("a")
	s.refused(1, 10*time.Second, []string{"lost", "SOURCE_UNREACHABLE", address}, "apply", "--timeout", "6s")
	s.refused(1, 10*time.Second, []string{"--force"}, "remove", "lost", "--yes", "--timeout", "5s")
	r := s.must("remove", "lost", "--yes", "--force", "--timeout", "15s")
	if !strings.Contains(r.stdout, "slot millrace_lost_e1") || r.took > 20*time.Second {
		t.Errorf("remove does not say what stays behind: %v", r)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "lake", "lost")); err == nil {
		t.Error("a lake for a database that was never seen")
	}
}
