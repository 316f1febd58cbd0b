package local

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(Tests{M: m}) }

func needServers(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a server")
	}
}

func TestServersComeBackAfterSIGKILLAndRestart(t *testing.T) {
	s := Shared(t, Options{})
	ctx := t.Context()
	for _, p := range []*Process{s.Postgres.Process, s.Kafka.Process, s.Temporal.Process, SharedS3(t).Process} {
		t.Run(p.name, func(t *testing.T) {
			if err := p.probe(ctx); err != nil {
				t.Fatal(err)
			}
			before := p.Pid()
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			if p.Pid() != 0 || p.probe(ctx) == nil {
				t.Fatal("it serves after it was killed")
			}
			if err := p.Start(ctx); err != nil {
				t.Fatal(err)
			}
			if err := p.probe(ctx); err != nil {
				t.Fatal(err)
			}
			if p.Pid() == before {
				t.Fatal("the process is the one that was killed")
			}
			if err := p.Restart(ctx); err != nil {
				t.Fatal(err)
			}
			if err := p.probe(ctx); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestPostgresTakesSettings(t *testing.T) {
	needServers(t)
	p, err := StartPostgres(t.Context(), PostgresOptions{Settings: map[string]string{"wal_level": "replica", "max_replication_slots": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(p.temp); !os.IsNotExist(err) {
			t.Error("its temporary folder is still there")
		}
	}()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Pid()), "cmdline"))
	if err != nil {
		t.Skip("needs /proc")
	}
	if args := strings.Split(string(b), "\x00"); !slices.Contains(args, "wal_level=replica") || !slices.Contains(args, "max_replication_slots=1") {
		t.Fatalf("it runs as %q", args)
	}
}

func TestEveryPostgresVersionStarts(t *testing.T) {
	needServers(t)
	for major, full := range versions {
		t.Run(major, func(t *testing.T) {
			p, err := StartPostgres(t.Context(), PostgresOptions{Version: major})
			if err != nil {
				t.Fatal(err)
			}
			if p.Version+".0" != full {
				t.Errorf("Version = %q, made from %s", p.Version, full)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStartTellsWhatAServerSaid(t *testing.T) {
	needServers(t)
	_, err := StartPostgres(t.Context(), PostgresOptions{Settings: map[string]string{"wal_level": "nonsense"}})
	if err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Fatalf("error = %v", err)
	}
}

func TestPostgresOfAnUnknownVersionIsRefused(t *testing.T) {
	_, err := StartPostgres(t.Context(), PostgresOptions{Version: "9"})
	if err == nil || !strings.Contains(err.Error(), "14, 15, 16, 17, 18") {
		t.Fatalf("error = %v", err)
	}
}

// fourPorts returns the first of four free ports.
func fourPorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		base, err := choosePort(0)
		if err != nil {
			t.Fatal(err)
		}
		if portFree(base+1) == nil && portFree(base+2) == nil && portFree(base+3) == nil {
			return base
		}
	}
	t.Fatal("no four free ports in a row")
	return 0
}

func up(t *testing.T, o UpOptions) *Stack {
	t.Helper()
	s, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pids(t *testing.T, dir string) (all [3]int) {
	t.Helper()
	for i, name := range []string{"postgres", "kafka", "temporal"} {
		pid, err := (&resident{name: name}).pid(dir)
		if err != nil {
			t.Fatal(err)
		}
		all[i] = pid
	}
	return all
}

// awaitEnd waits until a process that was killed has let go of its lock.
func awaitEnd(t *testing.T, dir, name string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		lock, err := (&resident{name: name}).lock(dir)
		if err != nil {
			t.Fatal(err)
		}
		if lock != nil {
			_ = lock.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s still holds its lock", name)
		}
	}
}

func TestUpIsHarmlessTwiceAndMendsACrash(t *testing.T) {
	needServers(t)
	o := UpOptions{Dir: filepath.Join(t.TempDir(), "it's here"), PortBase: fourPorts(t)}
	t.Cleanup(func() {
		if err := Clean(context.Background(), o.Dir); err != nil {
			t.Error(err)
		}
	})
	up(t, o)
	before := pids(t, o.Dir)
	up(t, o)
	if after := pids(t, o.Dir); after != before {
		t.Fatalf("the second up changed the processes: %v, then %v", before, after)
	}

	env, err := os.ReadFile(filepath.Join(o.Dir, "env"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"export PGHOST='127.0.0.1'\n", "export PGPORT='" + strconv.Itoa(o.PortBase) + "'\n",
		"export PGUSER='postgres'\n", "export PGPASSWORD='postgres'\n",
		"export KAFKA_BROKERS='127.0.0.1:" + strconv.Itoa(o.PortBase+1) + "'\n",
		"export TEMPORAL_ADDRESS='127.0.0.1:" + strconv.Itoa(o.PortBase+2) + "'\n",
		"export TEMPORAL_UI='http://127.0.0.1:" + strconv.Itoa(o.PortBase+3) + "'\n",
		"export LAKE='file:///",
	} {
		if !strings.Contains(string(env), want) {
			t.Errorf("env lacks %q:\n%s", want, env)
		}
	}

	for _, pid := range before[1:] {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"kafka", "temporal"} {
		awaitEnd(t, o.Dir, name)
	}
	s := up(t, o)
	after := pids(t, o.Dir)
	if after[0] != before[0] || after[1] == before[1] || after[2] == before[2] {
		t.Fatalf("processes before the crash of the second and third: %v, after up: %v", before, after)
	}
	for _, probe := range []func(context.Context) error{s.Postgres.probe, s.Kafka.probe, s.Temporal.probe} {
		if err := probe(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	if _, err := Up(t.Context(), UpOptions{Dir: o.Dir, PortBase: o.PortBase, PG: "16"}); err == nil ||
		!strings.Contains(err.Error(), "PostgreSQL 17 runs") {
		t.Errorf("up with another version: error = %v", err)
	}

	if err := Down(t.Context(), o.Dir); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if err := portFree(o.PortBase + i); err != nil {
			t.Errorf("after down: %v", err)
		}
	}
	if err := Down(t.Context(), o.Dir); err != nil {
		t.Errorf("the second down: %v", err)
	}
}

func TestUpNamesAPortInUseAndWhatMovesIt(t *testing.T) {
	needServers(t)
	o := UpOptions{Dir: filepath.Join(t.TempDir(), "stack"), PortBase: fourPorts(t)}
	t.Cleanup(func() {
		if err := Clean(context.Background(), o.Dir); err != nil {
			t.Error(err)
		}
	})
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(o.PortBase+1)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Up(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "Kafka cannot use port "+strconv.Itoa(o.PortBase+1)) ||
		!strings.Contains(err.Error(), "PORT_BASE") {
		t.Fatalf("error = %v", err)
	}
	for _, i := range []int{0, 2, 3} {
		if err := portFree(o.PortBase + i); err != nil {
			t.Errorf("up failed and left a server: %v", err)
		}
	}
}

func TestRootsPostgresLiesWhereItsUserCanReachIt(t *testing.T) {
	needServers(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	home := t.TempDir()
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", home) // which the server's user cannot reach
	p, err := StartPostgres(t.Context(), PostgresOptions{Dir: filepath.Join(home, "pg")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(p.cwd); err != nil {
			t.Error(err)
		}
	}()
	info, err := os.Stat(filepath.Join(p.cwd, "data-"+DefaultPG))
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != serverUser {
		t.Errorf("its data belongs to uid %d", owner)
	}
	if strings.HasPrefix(p.cwd, home) {
		t.Errorf("its data lies in %s", p.cwd)
	}
}

func TestServersEndWithTheirParentAndTakeTheirDataAlong(t *testing.T) {
	needServers(t)
	p, err := StartPostgres(t.Context(), PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	run := p.run
	if err := run.stdin.Close(); err != nil { // what the end of this process does
		t.Fatal(err)
	}
	select {
	case <-run.done:
	case <-time.After(20 * time.Second):
		t.Fatal("it still runs")
	}
	if _, err := os.Stat(p.temp); !os.IsNotExist(err) {
		t.Error("its temporary folder is still there")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
