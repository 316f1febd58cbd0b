package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// planReport is what `plan --json` promises.
type planReport struct {
	Region    string          `json:"region"`
	Databases []*databasePlan `json:"databases"`
}

type databasePlan struct {
	Name    string `json:"name"`
	Action  string `json:"action"`
	Pool    string `json:"pool"`
	Phase   string `json:"phase"`
	Changes []struct {
		Key  string `json:"key"`
		Old  string `json:"old"`
		New  string `json:"new"`
		Cost string `json:"cost"`
	} `json:"changes"`
	Tables []struct {
		Name   string `json:"name"`
		Act    string `json:"act"`
		Copied bool   `json:"copied"`
		Rows   int64  `json:"rows"`
	} `json:"tables"`
	Paused   bool     `json:"paused"`
	Copied   int      `json:"copied"`
	Rows     int64    `json:"rows"`
	Refused  string   `json:"refused"`
	NeedsYes bool     `json:"needs_yes"`
	Notes    []string `json:"notes"`
	Reason   *reason  `json:"reason"`
}

// planned returns the plan of one database.
func (s *site) planned(name string) *databasePlan {
	s.t.Helper()
	var r planReport
	out := s.decode(&r, "plan")
	for _, d := range r.Databases {
		if d.Name == name {
			return d
		}
	}
	s.t.Fatalf("no database %s: %v", name, out)
	panic("not reached")
}

// tables lists what becomes of tables, in short.
func (p *databasePlan) tables() (short []string) {
	for _, t := range p.Tables {
		line := t.Act + " " + t.Name
		if t.Copied {
			line += fmt.Sprintf(" copy %d", t.Rows)
		}
		short = append(short, line)
	}
	return short
}

// expect compares a plan in short.
func (p *databasePlan) expect(t *testing.T, action string, tables ...string) {
	t.Helper()
	if p.Action != action || !slices.Equal(p.tables(), tables) {
		t.Errorf("%s: %s %q, want %s %q", p.Name, p.Action, p.tables(), action, tables)
	}
}

// incarnation is how often a table was copied.
func (s *site) incarnation(name, table string) (last int64) {
	s.t.Helper()
	for line := range strings.Lines(s.must("table", "cat", s.table(name, table).History, "--columns", "__incarnation").stdout) {
		var n int64
		if _, err := fmt.Sscanf(strings.TrimSpace(line), `{"__incarnation":%d}`, &n); err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		last = max(last, n)
	}
	return last
}

func TestApplyDoesWhatPlanShows(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	src := s.add("plan")
	src.exec(`CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT g, g FROM generate_series(1, 500) g;
		CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b SELECT g, g FROM generate_series(1, 300) g;
		CREATE TABLE part (id int PRIMARY KEY) PARTITION BY RANGE (id);
		CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (1000); INSERT INTO part SELECT generate_series(1, 70)`)
	src.exec(`ANALYZE`)
	other := s.add("other")
	other.exec(`CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10)`)

	// Without a worker the plan says so.
	s.refused(3, 15*time.Second, []string{"millrace." + s.region + ".default.control"}, "plan")
	s.worker("a")

	p := s.planned(src.name)
	p.expect(t, "add", "add public.a copy 500", "add public.b copy 300", "add public.part copy 70")
	if p.Copied != 3 || p.Rows != 870 || p.Paused {
		t.Errorf("the cost of a new database: %+v", p)
	}
	if n := src.number(`SELECT count(*) FROM pg_publication`) + src.number(`SELECT count(*) FROM pg_replication_slots WHERE starts_with(slot_name::text, 'millrace_' || current_database())`); n != 0 {
		t.Error("plan made something at the source")
	}
	if _, err := os.Stat(filepath.Join(s.dir, "lake")); err == nil {
		t.Error("plan made a lake")
	}
	s.must("apply")
	s.must("wait", src.name, "--until", "live", "--timeout", "60s")
	s.must("wait", other.name, "--until", "live", "--timeout", "60s")
	s.planned(src.name).expect(t, "keep")

	t.Run("changes, with what they cost", func(t *testing.T) {
		src.exec(`CREATE TABLE c (id int PRIMARY KEY); INSERT INTO c SELECT generate_series(1, 40); ANALYZE c`)
		until(t, 60*time.Second, "the table is picked up", func() bool {
			table := s.table(src.name, "public.c")
			return table != nil && table.Phase == "live"
		})
		s.change(src.name, func(d *database) {
			d.tables, d.extra = `["public.*", "!public.c"]`, "freshness: 300ms\nrules: [{tables: public.a, casts: {v: string}}, {tables: public.b, casts: {id: string}}]\n"
		})
		p := s.planned(src.name)
		p.expect(t, "change", "change public.a copy 500", "change public.b copy 300", "drop public.c", "change public.part")
		if !p.Paused || !p.NeedsYes || p.Copied != 2 || p.Rows != 800 {
			t.Errorf("the cost: %+v", p)
		}
		if out := s.must("plan", src.name).stdout; !strings.Contains(out, "casts.id: - -> string") || !strings.Contains(out, "freshness: 500ms -> 300ms") || !strings.Contains(out, "--yes") {
			t.Errorf("the plan reads %s", out)
		}
		// Without --yes that database stays as it is, and the others are applied.
		s.change(other.name, func(d *database) { d.extra = "freshness: 200ms\n" })
		s.refused(1, 60*time.Second, []string{"public.c would leave the mirror", "--yes", "1 of 2 databases", src.name}, "apply")
		s.planned(src.name).expect(t, "change", "change public.a copy 500", "change public.b copy 300", "drop public.c", "change public.part")
		s.planned(other.name).expect(t, "keep")

		before := s.incarnation(src.name, "public.b")
		s.must("apply", "--yes")
		s.must("wait", src.name, "--until", "live", "--timeout", "60s")
		s.planned(src.name).expect(t, "keep")
		if table := s.table(src.name, "public.c"); table.Phase != "gone" {
			t.Errorf("the table that left is %s", table.Phase)
		} else {
			s.must("table", "info", table.History)
		}
		if after := s.incarnation(src.name, "public.b"); after != before+1 {
			t.Errorf("a table with another cast was copied %d times", after-before)
		}
		src.exec(`INSERT INTO b VALUES (1000, 'x')`)
		s.caughtUp(src.name)
		s.verified(src.name)
	})

	t.Run("a table that comes back is copied", func(t *testing.T) {
		s.change(src.name, func(d *database) { d.tables = "" })
		s.planned(src.name).expect(t, "change", "add public.c copy 40")
		s.must("apply")
		s.must("wait", src.name, "--until", "live", "--timeout", "60s")
		s.verified(src.name)
	})

	t.Run("a move to a pool that nobody serves", func(t *testing.T) {
		s.change(src.name, func(d *database) { d.extra += "pool: large\n" })
		p := s.planned(src.name)
		p.expect(t, "change")
		if len(p.Changes) != 1 || p.Changes[0].Key != "pool" || !strings.Contains(strings.Join(p.Notes, " "), "--pool large") {
			t.Errorf("the move: %+v", p)
		}
		s.change(src.name, func(d *database) { d.extra = strings.ReplaceAll(d.extra, "pool: large\n", "") })
	})

	t.Run("a source that does not answer", func(t *testing.T) {
		s.change(other.name, func(d *database) { d.password = "wrong" })
		p := s.planned(other.name)
		if p.Reason == nil || p.Reason.Code != "SOURCE_AUTH" {
			t.Errorf("the plan: %+v", p)
		}
		s.change(other.name, func(d *database) { d.password = "" })
	})

	t.Run("a database that fails leaves the rest applied", func(t *testing.T) {
		s.entry(&database{name: "nowhere", url: "postgres://postgres@" + freeAddress(t) + "/x?sslmode=disable"})
		s.change(src.name, func(d *database) { d.extra = "freshness: 250ms\n" })
		s.refused(1, 60*time.Second, []string{"nowhere", "SOURCE_UNREACHABLE", "of 3 databases are as the file says; not: nowhere"}, "apply", "--timeout", "6s")
		s.planned(other.name).expect(t, "keep")
		s.must("remove", "nowhere", "--yes", "--force")
	})

	t.Run("a database that the file does not hold", func(t *testing.T) {
		s.mu.Lock()
		s.databases = slices.DeleteFunc(s.databases, func(d *database) bool { return d.name != src.name })
		s.mu.Unlock()
		s.write()
		until(t, 20*time.Second, "the plan names it", func() bool {
			var r planReport
			s.decode(&r, "plan")
			return slices.ContainsFunc(r.Databases, func(d *databasePlan) bool {
				return d.Name == other.name && d.Action == "orphan" && strings.Contains(d.Notes[0], "remove "+other.name+" --yes")
			})
		})
		s.must("remove", other.name, "--yes")
		s.refused(1, soon, []string{"no such database"}, "plan", other.name)
		s.refused(2, soon, []string{"!public.a", "apply " + src.name + " --yes"}, "remove", src.name, "public.a", "--yes")
	})
}

func TestADatabaseChangesItsRegion(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	src := s.add("region")
	src.exec(`CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, g FROM generate_series(1, 200) g`)
	s.worker("a")
	s.must("apply")
	s.must("wait", src.name, "--until", "live", "--timeout", "60s")
	s.caughtUp(src.name)

	// Another region, with the same lake and the same topics.
	there := newSite(t)
	there.lake, there.prefix = s.lake, s.region
	there.entry(&database{name: src.name})
	there.worker("b")
	until(t, 20*time.Second, "the plan knows where it runs", func() bool {
		return strings.Contains(there.planned(src.name).Refused, "region "+s.region)
	})
	there.refused(1, soon, []string{"runs in region " + s.region, "--keep-slot"}, "apply")

	s.refused(2, soon, []string{"--keep-slot", "--purge"}, "remove", src.name, "--yes", "--keep-slot", "--purge")
	before := s.incarnation(src.name, "public.t")
	r := s.must("remove", src.name, "--yes", "--keep-slot")
	if !strings.Contains(r.stdout, "slot millrace_"+src.name) || src.number(`SELECT count(*) FROM pg_publication`) != 2 {
		t.Errorf("what stays: %v", r)
	}
	src.exec(`INSERT INTO t SELECT g, 'meanwhile' FROM generate_series(1001, 1100) g; DELETE FROM t WHERE id = 7`)
	until(t, 20*time.Second, "the plan has it without a copy", func() bool {
		p := there.planned(src.name)
		return p.Refused == "" && p.Action == "add" && p.Copied == 0 && len(p.Tables) == 1
	})
	there.must("apply")
	there.must("wait", src.name, "--until", "live", "--timeout", "60s")
	there.caughtUp(src.name)
	there.verified(src.name)
	if after := there.incarnation(src.name, "public.t"); after != before {
		t.Errorf("it was copied again, %d times", after-before)
	}

	t.Run("purge leaves nothing", func(t *testing.T) {
		r := there.must("remove", src.name, "--yes", "--purge")
		for _, want := range []string{"slot millrace_" + src.name, "lake " + s.lake + "/" + src.name, "topic " + s.region + "." + src.name, "topic " + s.region + "." + src.name + ".schemas"} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("want %q: %v", want, r)
			}
		}
		left := 0
		_ = filepath.WalkDir(filepath.Join(strings.TrimPrefix(s.lake, "file://"), src.name), func(_ string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				left++
			}
			return nil
		})
		if left > 0 {
			t.Errorf("%d files are left in the lake", left)
		}
		there.must("apply")
		there.must("wait", src.name, "--until", "live", "--timeout", "60s")
		there.verified(src.name)
	})
}
