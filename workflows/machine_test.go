package workflows

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities"
)

var redraw = flag.Bool("update", false, "write what the machines look like to DESIGN.md")

// seen is what the tests of this package looked up in the machines.
var seen = struct {
	sync.Mutex
	taken, missing map[string]bool
}{taken: map[string]bool{}, missing: map[string]bool{}}

// unheard is an event that no machine knows.
const unheard event = "unheard"

func name(m *machine, from Phase, on event) string {
	return fmt.Sprintf("%s %q on %s", m.kind, from, on)
}

// TestMain runs the tests. Where it runs all of them, each arrow of the machines
// must have been taken by one, and none may have been missing.
func TestMain(m *testing.M) {
	watched = func(m *machine, from Phase, on event, ok bool) {
		seen.Lock()
		defer seen.Unlock()
		if ok {
			seen.taken[name(m, from, on)] = true
		} else if on != unheard {
			seen.missing[name(m, from, on)] = true
		}
	}
	code := m.Run()
	for arrow := range seen.missing {
		fmt.Printf("no arrow for a %s\n", arrow)
		code = max(code, 1)
	}
	if code == 0 && all() {
		for _, m := range []*machine{&databases, &relations} {
			for _, a := range m.arrows {
				if !seen.taken[name(m, a.from, a.on)] {
					fmt.Printf("no test takes a %s to %s\n", name(m, a.from, a.on), a.to)
					code = 1
				}
			}
		}
	}
	os.Exit(code)
}

// all tells whether every test of the package is run.
func all() bool {
	for _, f := range []string{"test.run", "test.skip", "test.list", "test.bench", "test.fuzz"} {
		if l := flag.Lookup(f); l != nil && l.Value.String() != "" {
			return false
		}
	}
	return true
}

// TestTheMachinesAreAsDESIGNDrawsThem holds the pictures of DESIGN.md against the
// machines; -update draws them.
func TestTheMachinesAreAsDESIGNDrawsThem(t *testing.T) {
	path := filepath.Join("..", "DESIGN.md")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, m := range []*machine{&databases, &relations} {
		begin, end := "<!-- "+m.kind+": drawn by go test ./workflows -run DESIGN -update -->\n", "<!-- end -->"
		head, rest, ok := strings.Cut(text, begin)
		have, tail, closed := strings.Cut(rest, end)
		if !ok || !closed {
			t.Fatalf("%s has no picture of a %s between %q and %q", path, m.kind, begin, end)
		}
		want := "\n" + m.picture() + "\n"
		if have != want && !*redraw {
			t.Errorf("%s draws another machine than there is (go test ./workflows -run DESIGN -update draws it)\n--- there%s--- here%s", path, have, want)
		}
		text = head + begin + want + end + tail
	}
	if *redraw {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryPhaseCanBeReachedAndLeft(t *testing.T) {
	for _, m := range []*machine{&databases, &relations} {
		known := map[Phase]bool{"": true}
		for _, p := range m.phases {
			known[p] = true
		}
		into, out := map[Phase]bool{}, map[Phase]bool{}
		twice := map[string]bool{}
		for _, a := range m.arrows {
			if !known[a.from] || !known[a.to] || a.to == "" {
				t.Errorf("a %s has an arrow between unknown phases: %+v", m.kind, a)
			}
			if twice[name(m, a.from, a.on)] {
				t.Errorf("a %s has two ways", name(m, a.from, a.on))
			}
			twice[name(m, a.from, a.on)] = true
			into[a.to], out[a.from] = true, true
		}
		for _, p := range m.phases {
			if !into[p] || !out[p] && p != Removing {
				t.Errorf("a %s cannot get into or out of %s", m.kind, p)
			}
		}
	}
}

func TestAnArrowThatIsMissingKeepsThePhaseAndIsNoted(t *testing.T) {
	s := &State{Phase: Running, Tables: []TableState{{OID: 1, Name: "public.a", Phase: Live}}}
	s.enter(unheard, nil, "test")
	s.move(&s.Tables[0], unheard, nil, "test")
	if s.Phase != Running || s.Tables[0].Phase != Live {
		t.Errorf("state %+v", s)
	}
	if len(s.Events) != 2 || s.Events[0].Code != activities.CodeInternal || s.Events[1].Table != "public.a" || s.Events[1].To != Live || s.Events[1].Note == "" {
		t.Errorf("events %+v", s.Events)
	}
}

func TestTheLastHundredChangesOfPhaseAreKept(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := &State{now: func() time.Time { now = now.Add(time.Second); return now }}
	for i := range 2 * keptEvents {
		s.found(&activities.TableInfo{OID: uint32(i), Name: fmt.Sprint("public.t", i), Phase: "live"}, 0, "scan")
	}
	first, last := s.Events[0], s.Events[len(s.Events)-1]
	if len(s.Events) != keptEvents || first.Table != "public.t100" || last.Table != "public.t199" {
		t.Errorf("%d events from %+v to %+v", len(s.Events), first, last)
	}
	if last != (Event{At: "2026-01-01T00:03:20Z", Table: "public.t199", To: Live, By: "scan"}) {
		t.Errorf("event %+v", last)
	}
}
