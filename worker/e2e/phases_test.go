package e2e

import (
	"strings"
	"testing"
	"time"
)

// event is what `events --json` promises of a change of phase.
type event struct {
	At    time.Time `json:"at"`
	Table string    `json:"table"`
	From  string    `json:"from"`
	To    string    `json:"to"`
	Code  string    `json:"code"`
	By    string    `json:"by"`
}

// events returns the last changes of phase of a database.
func (s *site) events(name string) []event {
	s.t.Helper()
	var r struct {
		Database string  `json:"database"`
		Events   []event `json:"events"`
	}
	out := s.decode(&r, "events", name)
	if r.Database != name {
		s.t.Fatalf("events of another: %v", out)
	}
	return r.Events
}

// rows counts the rows of a table in the lake.
func (s *site) rows(uri string) int {
	s.t.Helper()
	return strings.Count(s.must("table", "cat", uri).stdout, "\n")
}

func TestTablesPauseParkAndGoOnWhileOthersDo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	src := s.add("phases")
	for _, name := range []string{"a", "b", "c"} {
		src.exec(`CREATE TABLE ` + name + ` (id int PRIMARY KEY, v text); INSERT INTO ` + name + ` SELECT i, 'copied' FROM generate_series(1, 10) i`)
	}
	s.worker("a")
	s.must("apply")
	s.must("wait", src.name, "--until", "live", "--timeout", "120s")
	uri := map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		uri[name] = s.table(src.name, "public."+name).Latest
	}
	begun := len(s.events(src.name))

	// Nothing is parked, and what is not there cannot be.
	s.refused(1, 10*time.Second, []string{"nothing of database " + src.name + " is parked"}, "unpark", src.name)
	s.refused(1, 10*time.Second, []string{`no table "public.none"`}, "unpark", src.name, "public.none")
	s.refused(1, 10*time.Second, []string{`no table "public.none"`}, "pause", src.name, "public.none")
	s.refused(1, 10*time.Second, []string{"neither paused nor parked"}, "resume", src.name, "public.a")
	if have := len(s.events(src.name)); have != begun {
		t.Errorf("%d events after requests that were refused, %d before", have, begun)
	}

	// A paused table waits, while another goes on.
	s.must("pause", src.name, "public.a")
	until(t, 30*time.Second, "the table is paused", func() bool { return s.table(src.name, "public.a").Phase == "paused" })
	src.exec(`INSERT INTO a SELECT i, 'while paused' FROM generate_series(11, 20) i; INSERT INTO b VALUES (11, 'streamed')`)
	until(t, 60*time.Second, "the other table goes on", func() bool { return s.rows(uri["b"]) == 11 })
	if n := s.rows(uri["a"]); n != 10 {
		t.Errorf("the paused table has %d rows", n)
	}
	s.refused(1, 30*time.Second, []string{"public.a is paused", "millrace resume " + src.name + " public.a"}, "wait", src.name, "--timeout", "20s")
	s.must("status", "--check", "--late", "5m")
	s.must("resume", src.name, "public.a")
	until(t, 60*time.Second, "the table goes on", func() bool { return s.rows(uri["a"]) == 20 })
	s.caughtUp(src.name)

	// A table that parks says how it goes on, and does so by what it says.
	src.exec(`ALTER TABLE c RENAME TO renamed; INSERT INTO renamed VALUES (11, 'renamed')`)
	until(t, 60*time.Second, "the renamed table parks", func() bool {
		c := s.table(src.name, "public.c")
		return c != nil && c.Phase == "parked"
	})
	if r := s.run("status", "--check"); r.code != 1 || !strings.Contains(r.stdout, src.name+"/public.c is parked: TABLE_RENAMED") || strings.Contains(r.stdout, "public.a") {
		t.Errorf("the check says %v", r)
	}
	if r := s.must("unpark", src.name, "--dry-run"); !strings.Contains(r.stdout, src.name+"/public.c (TABLE_RENAMED) is copied again") {
		t.Errorf("the plan says %v", r)
	}
	s.refused(2, 10*time.Second, []string{"--yes", "public.c (TABLE_RENAMED) is copied again"}, "unpark", src.name)
	c := s.table(src.name, "public.c")
	lines := strings.Split(c.Reason.Remedy, "\n")
	s.must(strings.Fields(lines[len(lines)-1])[1:]...)
	until(t, 60*time.Second, "the table is live under its name of now", func() bool {
		now := s.table(src.name, "public.renamed")
		return now != nil && now.Phase == "live"
	})
	s.must("status", "--check", "--late", "5m")
	src.exec(`UPDATE renamed SET v = 'seen' WHERE id = 1; DELETE FROM a WHERE id = 20`)
	s.caughtUp(src.name)
	s.verified(src.name)

	// All of that is kept, and the database was never interrupted.
	var story []string
	for _, e := range s.events(src.name)[begun:] {
		if e.Table == "" {
			t.Errorf("the database went from %s to %s by %s", e.From, e.To, e.By)
		}
		if e.At.IsZero() || e.By == "" {
			t.Errorf("event %+v", e)
		}
		story = append(story, e.Table+" "+e.To+" "+e.Code)
	}
	at := 0
	for _, want := range []string{"public.a paused ", "public.a waiting ", "public.a live ", "public.c parked TABLE_RENAMED", "public.c waiting ", "public.renamed copying ", "public.renamed live "} {
		for at < len(story) && story[at] != want {
			at++
		}
		if at == len(story) {
			t.Errorf("no %q in its turn among\n%s", want, strings.Join(story, "\n"))
		}
	}
}
