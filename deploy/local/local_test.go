package local

import (
	"context"
	"net"
	"os"
	"strconv"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(RunTests(m)) }

func dial(t *testing.T, address string) error {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		err = c.Close()
	}
	return err
}

func TestServersServeAndSurviveKill(t *testing.T) {
	s := Shared(t, Options{})
	ctx := context.Background()
	for _, server := range []struct {
		p       *Process
		address string
	}{
		{s.Postgres.Process, net.JoinHostPort(s.Postgres.Host, strconv.Itoa(s.Postgres.Port))},
		{s.Kafka.Process, s.Kafka.Brokers[0]},
		{s.Temporal.Process, s.Temporal.Address},
	} {
		t.Run(server.p.name, func(t *testing.T) {
			if err := dial(t, server.address); err != nil {
				t.Fatal(err)
			}
			before := server.p.Pid()
			started := time.Now()
			if err := server.p.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := dial(t, server.address); err == nil {
				t.Fatal("it serves after it was killed")
			}
			if err := server.p.Start(ctx); err != nil {
				t.Fatal(err)
			}
			t.Logf("killed and started again in %s", time.Since(started))
			if err := dial(t, server.address); err != nil {
				t.Fatal(err)
			}
			if server.p.Pid() == before {
				t.Fatal("the process did not change")
			}
			if err := server.p.Restart(ctx); err != nil {
				t.Fatal(err)
			}
			if err := dial(t, server.address); err != nil {
				t.Fatal(err)
			}
		})
	}
}
