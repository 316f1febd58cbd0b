package e2e

import (
	"testing"
	"time"

	"github.com/millrace-io/millrace/deploy/local"
)

func TestServersComeAndGoUnderLoad(t *testing.T) {
	t.Parallel()
	bin(t) // skips where there are no servers
	ctx := t.Context()
	stack, err := local.Start(ctx, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stack.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := newSiteOn(t, stack)
	src := newShop(s, "outages")
	o := newOracle(src)
	s.worker("a")
	s.must("apply")
	s.must("wait", src.name, "--until", "live", "--timeout", "120s")
	stop := traffic(src, seed(t), 100)

	// grows waits until the lake has more commits than it had.
	grows := func(what string) {
		t.Helper()
		before := s.commits(src.name)
		until(t, 60*time.Second, "commits "+what, func() bool { return s.commits(src.name) >= before+10 })
	}
	grows("before anything happens")

	began := time.Now()
	if err := stack.Temporal.Kill(); err != nil {
		t.Fatal(err)
	}
	s.refused(1, 10*time.Second, []string{"Temporal", stack.Temporal.Address}, "status", src.name)
	for n := 1; n <= 3; n++ {
		until(t, heartbeat*2, "a heartbeat timeout goes by", func() bool { return time.Since(began) > time.Duration(n)*heartbeat })
		grows("while Temporal is away")
	}
	if err := stack.Temporal.Start(ctx); err != nil {
		t.Fatal(err)
	}
	grows("after Temporal has come back")
	until(t, 60*time.Second, "the worker speaks to Temporal again", func() bool { return s.run("status", src.name).code == 0 })
	s.caughtUp(src.name)

	for _, server := range []struct {
		name string
		*local.Process
	}{
		{"PostgreSQL", stack.Postgres.Process}, {"Kafka", stack.Kafka.Process}, {"Temporal", stack.Temporal.Process},
	} {
		if err := server.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		grows("after " + server.name + " was restarted")
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Start(ctx); err != nil {
			t.Fatal(err)
		}
		grows("after " + server.name + " was killed")
	}
	stop()
	src.reconnect()
	until(t, 60*time.Second, "the worker speaks to Temporal again", func() bool { return s.run("status", src.name).code == 0 })
	s.caughtUp(src.name)
	s.proven(o)
	if st := s.status(src.name); st.Phase != "running" || st.Reason != nil {
		t.Errorf("the database is %s: %+v", st.Phase, st.Reason)
	}
}
