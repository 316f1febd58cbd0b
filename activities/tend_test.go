package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/millrace-io/millrace/activities/internal/lake"
)

// mirrorInfo describes the tables of a mirror as they are now.
func (x *bench) mirrorInfo(name string) lake.Info {
	x.b.Helper()
	ctx := context.Background()
	src, err := x.sql.Describe(ctx, x.table(name).OID)
	if err != nil {
		x.b.Fatal(err)
	}
	m, err := x.a.mirror(ctx, &x.db, src)
	if err != nil {
		x.b.Fatal(err)
	}
	defer m.Close()
	if err := m.Refresh(ctx); err != nil {
		x.b.Fatal(err)
	}
	return m.Info()
}

func TestTablesAreMaintainedBesideTheStreamAndStayEqual(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	x := newTestSite(t, 64<<20,
		"CREATE TABLE keyed (id int PRIMARY KEY, v text, n int)",
		"CREATE TABLE bag (a int, v text); ALTER TABLE bag REPLICA IDENTITY FULL")
	x.db.Freshness = new(50 * time.Millisecond)
	defer x.capture()()
	var ended atomic.Bool
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := 0; !ended.Load(); i++ {
			x.exec(fmt.Sprintf(`BEGIN;
				INSERT INTO keyed SELECT %[1]d * 10 + i, repeat('x', i), %[1]d FROM generate_series(0, 9) i;
				UPDATE keyed SET n = n + 1 WHERE id %% 17 = %[1]d %% 17;
				DELETE FROM keyed WHERE id = %[1]d * 10 + 4;
				INSERT INTO bag VALUES (%[1]d %% 5, 'same'), (%[1]d %% 5, 'same');
				DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag); COMMIT`, i))
			time.Sleep(30 * time.Millisecond) // a steady load
		}
	}()
	compactions := func() float64 {
		var m dto.Metric
		if err := x.a.metrics.upkeep.WithLabelValues(x.db.Name, "compaction").Write(&m); err != nil {
			t.Fatal(err)
		}
		return m.GetCounter().GetValue()
	}
	// Lanes end while tables are maintained, and others find what is left to do.
	var resume json.RawMessage
	for compactions() < 4 {
		lane := x.commitLane(resume)
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond) // the moment is what is tested
		out, err := lane.stop()
		if err != nil {
			t.Fatal(err)
		}
		if used := x.a.budget.Used(); used != 0 {
			t.Fatalf("%d bytes of the budget were not given back", used)
		}
		resume = out.Resume
	}
	lane := x.commitLane(resume)
	ended.Store(true)
	<-written
	x.caughtUp()
	for _, name := range []string{"public.keyed", "public.bag"} {
		x.until(name+" has few files", func() bool { return x.mirrorInfo(name).Files <= 2*(2+16) })
	}
	if _, err := lane.stop(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%v compactions in commits", compactions())
	x.equal()
}
