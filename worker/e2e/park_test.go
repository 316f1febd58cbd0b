package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// unfitting are values that their Delta type cannot hold, and what they become
// under a cast to string.
var unfitting = []struct{ name, pg, in, out string }{
	{"date_infinite", "date", "infinity", "infinity"},
	{"date_bc", "date", "0044-03-15 BC", "0044-03-15 BC"},
	{"date_late", "date", "10000-01-01", "10000-01-01"},
	{"timestamp_infinite", "timestamp", "-infinity", "-infinity"},
	{"timestamp_late", "timestamp", "294276-12-31 23:59:59.999999", "294276-12-31 23:59:59.999999"},
	{"timestamptz_infinite", "timestamptz", "infinity", "infinity"},
	{"timestamptz_bc", "timestamptz", "0001-12-31 23:00:00+00 BC", "0001-12-31 23:00:00+00 BC"},
	{"timestamptz_late", "timestamptz", "9999-12-31 23:59:59-01", "10000-01-01 00:59:59+00"},
	{"decimal_nan", "numeric(10,2)", "NaN", "NaN"},
	{"matrix", "int[]", "{{1,2},{3,4}}", "{{1,2},{3,4}}"},
	{"from_zero", "int[]", "[0:1]={1,2}", "[0:1]={1,2}"},
	{"dates_infinite", "date[]", "{2024-01-01,infinity}", "{2024-01-01,infinity}"},
}

func TestValuesThatDoNotFitParkTheirTableAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	src := s.add("park")
	src.exec(`CREATE TABLE fine (id int PRIMARY KEY, a text)`)
	// Every other table has the value when it is copied; the others get it later.
	copied := func(i int) bool { return i%2 == 0 }
	insert := func(i int) {
		u := unfitting[i]
		src.exec(fmt.Sprintf(`INSERT INTO %s (region, n, v) VALUES ('secretland', 2, $1::text::%s)`, u.name, u.pg), u.in)
	}
	for i, u := range unfitting {
		src.exec(fmt.Sprintf(`CREATE TABLE %s (region text, n int, v %s, PRIMARY KEY (region, n)); INSERT INTO %[1]s VALUES ('secretland', 1, NULL)`, u.name, u.pg))
		if copied(i) {
			insert(i)
		}
	}
	s.worker("a")
	s.must("apply")
	settled := func() bool {
		for _, table := range s.status(src.name).Tables {
			if table.Phase != "live" && table.Phase != "parked" {
				return false
			}
		}
		return true
	}
	until(t, 90*time.Second, "every table is live or parked", settled)
	for i := range unfitting {
		if !copied(i) {
			insert(i)
		}
	}
	src.exec(`INSERT INTO fine VALUES (1, 'goes on')`)
	for _, u := range unfitting {
		name := "public." + u.name
		until(t, 60*time.Second, name+" parks", func() bool { return s.table(src.name, name).Phase == "parked" })
		r := s.table(src.name, name).Reason
		if r.Code != "UNREPRESENTABLE_VALUE" {
			t.Errorf("%s is parked for %s: %s", name, r.Code, r.Message)
		}
		for _, want := range []string{`"v"`, "region", "n", name} {
			if !strings.Contains(r.Message, want) {
				t.Errorf("%s: the reason does not name %s: %s", name, want, r.Message)
			}
		}
		if strings.Contains(r.Message+r.Remedy, "secretland") || len(u.in) > 8 && strings.Contains(r.Message+r.Remedy, u.in) {
			t.Errorf("%s: a value in the reason: %s", name, r.Message)
		}
		if !strings.Contains(r.Remedy, "tables: "+name+", casts: {v: string}") {
			t.Errorf("%s: the remedy does not give the cast: %s", name, r.Remedy)
		}
	}
	// The others go on, and what is parked is named to those who wait for it.
	s.verified(src.name, "public.fine")
	s.refused(1, 30*time.Second, []string{"is parked", "UNREPRESENTABLE_VALUE", ": string"}, "wait", src.name, "--timeout", "20s")

	// The remedies, as they are given: a cast for the most, and for some the value
	// is corrected at the source.
	corrected := func(i int) bool { return i%6 >= 4 }
	var rules strings.Builder
	rules.WriteString("rules:\n")
	for i, u := range unfitting {
		if corrected(i) {
			src.exec(fmt.Sprintf(`UPDATE %s SET v = NULL WHERE n = 2`, u.name))
		} else {
			fmt.Fprintf(&rules, "- {tables: public.%s, casts: {v: string}}\n", u.name)
		}
	}
	s.change(src.name, func(d *database) { d.extra = rules.String() })
	s.must("apply")
	s.must("wait", src.name, "--until", "live", "--timeout", "120s")
	for i, u := range unfitting {
		if !corrected(i) {
			src.exec(fmt.Sprintf(`INSERT INTO %s (region, n, v) VALUES ('secretland', 3, $1::text::%s)`, u.name, u.pg), u.in)
		}
	}
	s.caughtUp(src.name)
	s.verified(src.name)
	for i, u := range unfitting {
		if corrected(i) {
			continue
		}
		table := s.table(src.name, "public."+u.name)
		h := readHistory(t, table.History)
		column := ""
		for i, name := range h.names {
			if name == "v" {
				column = h.columns[i].Name
			}
		}
		seen := 0
		for line := range strings.Lines(s.must("table", "cat", table.Latest).stdout) {
			var row map[string]any
			if err := json.Unmarshal([]byte(line), &row); err != nil {
				t.Fatal(err)
			}
			if row[column] == u.out {
				seen++
			}
		}
		if seen != 2 {
			t.Errorf("%s: latest has %q in %d rows of column %s, want 2", table.Name, u.out, seen, column)
		}
	}
	s.silentAbout("secretland", "0044-03-15", "294276-12-31")
}
