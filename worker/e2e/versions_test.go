package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deploy/local"
)

func TestOldestAndNewestPostgresWithLanesApart(t *testing.T) {
	t.Parallel()
	bin(t)
	shared := local.Shared(t, local.Options{Kafka: true, Temporal: true})
	for _, version := range []string{"14", "18"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			pg, err := local.StartPostgres(t.Context(), local.PostgresOptions{Version: version})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = pg.Close() })
			s := newSiteOn(t, &local.Stack{Postgres: pg, Kafka: shared.Kafka, Temporal: shared.Temporal})
			src := newShop(s, "version")
			o := newOracle(src)
			metrics := freeAddress(t)
			s.worker("control", "--lanes", "control")
			s.worker("source", "--lanes", "capture,copy")
			s.worker("lake", "--lanes", "commit", "--metrics", metrics)
			s.must("apply")
			stop := traffic(src, seed(t), 100)
			s.must("wait", src.name, "--until", "live", "--timeout", "120s")
			streamed := func() bool {
				rows := s.status(src.name).RowsStreamed
				return rows != nil && *rows > 200
			}
			until(t, 60*time.Second, "some changes are streamed", streamed)
			stop()
			s.caughtUp(src.name)
			s.proven(o)

			r, err := http.Get("http://" + metrics + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"rows_total", "bytes_total", "commits_total", "files_total"} {
				line := regexp.MustCompile(fmt.Sprintf(`(?m)^millrace_%s\{database="%s"[^}]*\} [1-9]`, name, src.name))
				if !line.Match(body) {
					t.Errorf("no %s among the metrics:\n%s", name, body)
				}
			}
		})
	}
}

// freeAddress returns an address at which nobody listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// silentAbout checks that neither the workers' logs nor the histories of the
// workflows hold any of the words, which are secrets or values of rows.
func (s *site) silentAbout(words ...string) {
	s.t.Helper()
	said := map[string]string{"the histories of workflows": s.everything(s.t.Context())}
	for _, w := range s.workers {
		said["the log of worker "+w.name] = string(w.said())
	}
	for where, text := range said {
		if text == "" {
			s.t.Errorf("%s: nothing to look through", where)
		}
		for _, word := range words {
			if i := strings.Index(text, word); i >= 0 {
				s.t.Errorf("%q is in %s: %s", word, where, text[max(0, i-100):min(len(text), i+100)])
			}
		}
	}
}
