package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// UpOptions says where the stack of `make up` lies.
type UpOptions struct {
	// Dir holds data, logs and the file env. Empty means ".local".
	Dir string
	// PG is PostgreSQL's major version. Empty means DefaultPG.
	PG string
	// PortBase is the first of four ports: PostgreSQL, Kafka, Temporal, its
	// Web UI. Zero means 17400.
	PortBase int
}

// DefaultDir and DefaultPortBase are what UpOptions means by zero values.
const (
	DefaultDir      = ".local"
	DefaultPortBase = 17400
)

func (o *UpOptions) fill() error {
	if o.Dir == "" {
		o.Dir = DefaultDir
	}
	if o.PG == "" {
		o.PG = DefaultPG
	}
	if o.PortBase == 0 {
		o.PortBase = DefaultPortBase
	}
	if o.PortBase < 1 || o.PortBase > 65535-3 {
		return fmt.Errorf("PORT_BASE=%d is no port: four from it on are used, up to 65535", o.PortBase)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("resolve LOCAL_DIR: %w", err)
	}
	o.Dir = dir
	return nil
}

// resident is one server that lives on after the process that started it.
// While it runs it holds the lock on NAME.lock, which has its process id, so
// that a file left behind by a crash, or an id used again, deceives nobody.
type resident struct {
	name    string // of its files: NAME.lock, NAME.json
	ports   []int
	process *Process
	state   residentState
	started bool // by this Up
}

// residentState is what was started, kept in NAME.json.
type residentState struct {
	What    string `json:"what"` // such as "PostgreSQL 17"
	Address string `json:"address"`
}

// Up starts the servers that do not run yet and leaves them running, writes
// their addresses to the file env, and returns them. Those that run already
// are left alone. What an earlier run or a crash left behind is used again.
//
// The servers of the returned stack must not be stopped but by Down.
func Up(ctx context.Context, o UpOptions) (*Stack, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make LOCAL_DIR: %w", err)
	}
	unlock, err := lockFile(ctx, filepath.Join(o.Dir, "up.lock"), "waiting for another make up or down in "+o.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()

	s := &Stack{Lake: lakeURI(filepath.Join(o.Dir, "lake"))}
	if err := os.MkdirAll(filepath.Join(o.Dir, "lake"), 0o755); err != nil {
		return nil, fmt.Errorf("make the lake's folder: %w", err)
	}
	postgres, err := newPostgres(ctx, PostgresOptions{
		Dir: filepath.Join(o.Dir, "postgres"), Version: o.PG, Port: o.PortBase, Durable: true,
	})
	if err != nil {
		return nil, fmt.Errorf("prepare PostgreSQL: %w", err)
	}
	s.Postgres = postgres.Postgres
	s.Kafka, err = newKafka(ctx, KafkaOptions{Dir: filepath.Join(o.Dir, "kafka"), Port: o.PortBase + 1})
	if err != nil {
		return nil, fmt.Errorf("prepare Kafka: %w", err)
	}
	s.Temporal, err = newTemporal(ctx, TemporalOptions{
		Dir: filepath.Join(o.Dir, "temporal"), Port: o.PortBase + 2, UIPort: o.PortBase + 3, UI: true,
	})
	if err != nil {
		return nil, fmt.Errorf("prepare Temporal: %w", err)
	}

	residents := []*resident{
		{
			name: "postgres", process: s.Postgres.Process, ports: []int{o.PortBase},
			state: residentState{Address: net.JoinHostPort(s.Postgres.Host, strconv.Itoa(s.Postgres.Port))},
		},
		{
			name: "kafka", process: s.Kafka.Process, ports: []int{o.PortBase + 1},
			state: residentState{Address: s.Kafka.Brokers[0]},
		},
		{
			name: "temporal", process: s.Temporal.Process, ports: []int{o.PortBase + 2, o.PortBase + 3},
			state: residentState{Address: s.Temporal.Address},
		},
	}
	failures := make(chan error, len(residents))
	for _, r := range residents {
		r.state.What = r.process.name
		go func() { failures <- r.up(ctx, o) }()
	}
	for range residents {
		err = errors.Join(err, <-failures)
	}
	if err != nil {
		for _, r := range residents {
			if r.started {
				err = errors.Join(err, r.process.Stop())
			}
		}
		return nil, err
	}
	postgres.keepArchive()
	return s, writeEnv(o.Dir, s.Env())
}

// up starts one server, unless it runs.
func (r *resident) up(ctx context.Context, o UpOptions) error {
	for {
		lock, err := r.lock(o.Dir)
		if err != nil {
			return err
		}
		if lock != nil {
			defer lock.Close() // the server keeps its own hold on it
			return r.start(ctx, o, lock)
		}
		have, err := r.running(o.Dir)
		if err != nil {
			return err
		}
		if have != r.state {
			return fmt.Errorf("%s runs in %s already, at %s: `make down` stops it, or choose another LOCAL_DIR",
				have.What, o.Dir, have.Address)
		}
		if err := r.serves(ctx); err == nil {
			progress("%s runs already, at %s", have.What, have.Address)
			return nil
		}
		progress("%s runs but does not answer: starting it anew", have.What)
		if _, err := r.down(ctx, o.Dir); err != nil {
			return err
		}
	}
}

func (r *resident) start(ctx context.Context, o UpOptions, lock *os.File) error {
	for _, port := range r.ports {
		if err := awaitPort(ctx, port); err != nil {
			return fmt.Errorf("%s cannot use %w: choose other ports with PORT_BASE, as in `make up PORT_BASE=%d`",
				r.process.name, err, o.PortBase+100)
		}
	}
	b, err := json.Marshal(r.state)
	if err != nil {
		return fmt.Errorf("record %s: %w", r.process.name, err)
	}
	if err := os.WriteFile(filepath.Join(o.Dir, r.name+".json"), append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("record %s: %w", r.process.name, err)
	}
	r.process.lock = lock
	if err := r.process.Start(ctx); err != nil {
		return err
	}
	r.started = true
	progress("started %s at %s", r.process.name, r.state.Address)
	return nil
}

// awaitPort gives what a crash left behind a moment to end.
func awaitPort(ctx context.Context, port int) error {
	var err error
	for range 20 {
		if err = portFree(port); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return err
}

// serves is nil when the server answers within a few seconds.
func (r *resident) serves(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		err := r.process.probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// lock takes the server's lock, or returns nil when a running one holds it.
func (r *resident) lock(dir string) (*os.File, error) {
	path := filepath.Join(dir, r.name+".lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock of %s: %w", r.name, err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// running returns what holds the lock.
func (r *resident) running(dir string) (residentState, error) {
	var s residentState
	path := filepath.Join(dir, r.name+".json")
	b, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("read what runs: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read what runs in %s: %w", path, err)
	}
	return s, nil
}

// pid returns the process that holds the lock.
func (r *resident) pid(dir string) (int, error) {
	path := filepath.Join(dir, r.name+".lock")
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read who runs: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("read who runs: %s names no process", path)
	}
	return pid, nil
}

// down stops the server that holds the lock, if one does, and waits until it
// let go.
func (r *resident) down(ctx context.Context, dir string) (stopped bool, err error) {
	signal, next := syscall.SIGTERM, time.Time{}
	for {
		lock, err := r.lock(dir)
		if err != nil {
			return stopped, err
		}
		if lock != nil {
			return stopped, lock.Close()
		}
		if time.Now().After(next) {
			pid, err := r.pid(dir)
			if err != nil {
				return stopped, err
			}
			if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
				return stopped, fmt.Errorf("stop %s, process %d: %w", r.name, pid, err)
			}
			stopped = true
			signal, next = syscall.SIGKILL, time.Now().Add(stopLimit)
		}
		select {
		case <-ctx.Done():
			return stopped, fmt.Errorf("await the end of %s: %w", r.name, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Down stops what Up started in dir, and nothing else. Data stays.
func Down(ctx context.Context, dir string) error {
	o := UpOptions{Dir: dir}
	if err := o.fill(); err != nil {
		return err
	}
	if _, err := os.Stat(o.Dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := lockFile(ctx, filepath.Join(o.Dir, "up.lock"), "waiting for another make up or down in "+o.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	var errs []error
	for _, name := range []string{"temporal", "kafka", "postgres"} {
		r := &resident{name: name}
		stopped, err := r.down(ctx, o.Dir)
		if stopped {
			progress("stopped %s", name)
		}
		errs = append(errs, err)
	}
	if err := os.Remove(filepath.Join(o.Dir, "env")); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("remove the addresses: %w", err))
	}
	return errors.Join(errs...)
}

// Clean stops what Up started in dir and removes dir, with all data, and the
// folder outside of the repository that PostgreSQL used when root started it.
// The user's cache folder stays.
func Clean(ctx context.Context, dir string) error {
	o := UpOptions{Dir: dir}
	if err := o.fill(); err != nil {
		return err
	}
	if err := Down(ctx, o.Dir); err != nil {
		return err
	}
	place, err := findPlace()
	if err != nil {
		return err
	}
	errs := []error{place.removeOutside(o.Dir)}
	if err := os.RemoveAll(o.Dir); err != nil {
		errs = append(errs, fmt.Errorf("remove LOCAL_DIR: %w", err))
	}
	return errors.Join(errs...)
}

// writeEnv writes the addresses so that a shell can read them with `.`.
func writeEnv(dir string, env []string) error {
	var b strings.Builder
	for _, pair := range env {
		name, value, _ := strings.Cut(pair, "=")
		fmt.Fprintf(&b, "export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	path := filepath.Join(dir, "env")
	if err := os.WriteFile(path+".new", []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write the addresses: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write the addresses: %w", err)
	}
	return nil
}
