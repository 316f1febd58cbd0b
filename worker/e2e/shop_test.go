package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deploy/local/shop"
)

// newShop makes a shop in a database of s.
func newShop(s *site, name string) *source {
	s.t.Helper()
	src := s.add(name)
	src.exec(shop.Schema)
	if err := shop.Fill(s.t.Context(), src.conn, 1); err != nil {
		s.t.Fatal(err)
	}
	return src
}

// traffic puts load on a shop until it is stopped, which reports how many
// transactions there were.
func traffic(src *source, seed uint64, rate int) (stop func() int64) {
	ctx, cancel := context.WithCancel(context.Background())
	load := &shop.Load{URL: src.url, Seed: seed, Rate: rate}
	ended := make(chan error, 1)
	go func() { ended <- load.Run(ctx) }()
	stopped := false
	stop = func() int64 {
		if !stopped {
			stopped = true
			cancel()
			if err := <-ended; err != nil {
				src.t.Errorf("the load on %s: %v", src.name, err)
			}
		}
		return load.Transactions()
	}
	src.t.Cleanup(func() { stop() })
	return stop
}

func TestShopUnderTrafficIsMirrored(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	src := newShop(s, "shop")
	o := newOracle(src)
	s.worker("a")
	stop := traffic(src, 1, 200)
	s.must("apply")
	s.must("wait", src.name, "--until", "live", "--timeout", "120s")
	until(t, 60*time.Second, "some load on live tables", func() bool { return src.number(`SELECT count(*) FROM event_log`) > 4200 })
	if n := stop(); n < 100 {
		t.Fatalf("the load did %d transactions", n)
	}
	s.caughtUp(src.name)
	s.proven(o)
	s.foreign(o)
	if have := len(s.status(src.name).Tables); have != len(shop.Tables) {
		t.Errorf("%d tables are mirrored, want %d", have, len(shop.Tables))
	}
}
