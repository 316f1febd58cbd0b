package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// Kills of the test below, and those of them that must end a stream: after each
// the lane pauses for longer before it goes on.
const (
	killsInCopy   = 10
	killsInStream = 22
	streamsEnded  = 8
)

// seed returns the seed of a test: that of MILLRACE_SEED, else a new one.
// It is printed, so that a failure can be repeated.
func seed(t testing.TB) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(os.Getenv("MILLRACE_SEED"), 10, 64)
	if err != nil {
		n = rand.Uint64N(1 << 32)
	}
	fmt.Printf("%s: MILLRACE_SEED=%d\n", t.Name(), n)
	return n
}

func TestNothingIsLostOrDoubledByKills(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	n, began := seed(t), time.Now()
	rng := rand.New(rand.NewPCG(n, 0))
	moment := func(most time.Duration) { time.Sleep(time.Duration(rng.Int64N(int64(most)))) }
	src := newShop(s, "kills")
	bulk := func(i int) {
		src.exec(fmt.Sprintf(`CREATE TABLE bulk_%d AS SELECT i AS id, md5(i::text) AS a, i * 0.5::numeric(12,2) AS b, now() AS at FROM generate_series(1, 150000) i`, i))
		src.exec(fmt.Sprintf(`ALTER TABLE bulk_%d ADD PRIMARY KEY (id)`, i))
	}
	bulk(0)
	o := newOracle(src)
	stop := traffic(src, n, 100)
	workers := map[string]*worker{"a": s.worker("a")}
	s.must("apply")

	for kills, tables := 0, 1; kills < killsInCopy; {
		if took := time.Since(began); took > 6*time.Minute {
			t.Fatalf("%d kills while tables were copied, after %s", kills, took.Round(time.Second))
		}
		until(t, time.Minute, "a copy holds its snapshot", func() bool {
			select {
			case <-workers["a"].done:
				t.Fatalf("the worker ended by itself: %v", workers["a"].err)
			default:
			}
			if src.busy("hold/") {
				return true
			}
			if s.live(src.name, fmt.Sprintf("public.bulk_%d", tables-1)) {
				bulk(tables) // all is copied already: another table, for another copy
				tables++
			}
			return false
		})
		moment(700 * time.Millisecond)
		if src.busy("hold/") {
			kills++
		}
		workers["a"].kill()
		workers["a"] = s.launch("a")
	}

	t.Logf("%d kills while tables were copied, %s", killsInCopy, time.Since(began).Round(time.Second))

	// Now two workers, of which one or both die while changes stream.
	workers["b"] = s.launch("b")
	kills, ended := 0, 0
	for start := time.Now(); kills < killsInStream || ended < streamsEnded; {
		if took := time.Since(start); took > 10*time.Minute {
			t.Fatalf("%d kills ended %d streams in %s", kills, ended, took.Round(time.Second))
		}
		if ended < streamsEnded {
			until(t, time.Minute, "changes stream", func() bool { return src.streams() != 0 })
		}
		if rng.IntN(3) == 0 {
			moment(6 * time.Second) // lanes get going
		} else {
			moment(1500 * time.Millisecond)
		}
		session := src.streams()
		victims := [][]string{{"a"}, {"b"}, {"a", "b"}}[rng.IntN(3)]
		for _, name := range victims {
			workers[name].kill()
			kills++
		}
		if session != 0 && src.ends(session, time.Second) {
			ended++ // the one that streamed was among them
		}
		for _, name := range victims {
			workers[name] = s.launch(name)
		}
	}
	t.Logf("%d kills more, which ended %d streams, %s", kills, ended, time.Since(began).Round(time.Second))
	if n := stop(); n < 500 {
		t.Errorf("the load did only %d transactions", n)
	}
	until(t, 60*time.Second, "a worker serves", func() bool { return s.run("status", src.name).code == 0 })
	s.must("wait", src.name, "--until", "live", "--timeout", "120s")
	s.caughtUp(src.name)
	t.Logf("caught up, %s", time.Since(began).Round(time.Second))
	s.proven(o)
}

// live tells whether a table is, where a worker answers.
func (s *site) live(name, table string) bool {
	s.t.Helper()
	var r statusReport
	out := s.run("status", name, "--json")
	if out.code != 0 {
		return false // the worker is starting
	}
	if err := json.Unmarshal([]byte(out.stdout), &r); err != nil {
		s.t.Fatalf("%v\n%v", err, out)
	}
	return slices.ContainsFunc(r.Databases[0].Tables, func(t *tableStatus) bool { return t.Name == table && t.Phase == "live" })
}
