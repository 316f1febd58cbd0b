package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// files is how many data files a table has.
func (s *site) files(uri string) int {
	s.t.Helper()
	return openTable(s.t, uri).Snapshot().NumFiles()
}

func TestTablesStayCompactAndEqualWhileWorkersDie(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	n := seed(t)
	rng := rand.New(rand.NewPCG(n, 0))
	src := s.add("upkeep")
	s.change(src.name, func(d *database) { d.extra = "freshness: 100ms" })
	src.exec(`CREATE TABLE t (id int PRIMARY KEY, v text, n int); INSERT INTO t SELECT i, md5(i::text), 0 FROM generate_series(1, 1000) i`)
	w := s.worker("a")
	s.must("apply")
	s.must("wait", src.name, "--until", "live", "--timeout", "60s")
	at := s.table(src.name, "public.t")
	commits := func() int64 { return int64(openTable(t, at.History).Snapshot().Version()) }
	load := func(more int64) {
		for end := commits() + more; commits() < end; {
			k := rng.IntN(1000)
			src.exec(fmt.Sprintf(`BEGIN; UPDATE t SET n = n + 1 WHERE id BETWEEN %[1]d AND %[1]d + 20; DELETE FROM t WHERE id = %[2]d; INSERT INTO t VALUES (%[2]d, 'again', 0); COMMIT`, k, k+1))
		}
	}
	load(20)
	w.kill()
	w = s.worker("a") // finds at once what is due
	load(20)
	w.kill()
	s.worker("a")
	load(1)
	for name, uri := range map[string]string{"history": at.History, "latest": at.Latest} {
		until(t, 60*time.Second, name+" has few files", func() bool { return s.files(uri) <= 2+16 })
	}
	s.caughtUp(src.name)
	s.verified(src.name)
}
