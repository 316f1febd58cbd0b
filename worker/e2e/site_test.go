package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deploy/local"
)

// heartbeat is the heartbeat timeout of every fleet file here.
const heartbeat = 3 * time.Second

// site is one fleet: its file, its lake, its worker processes, and the command
// line that speaks to them.
type site struct {
	t      testing.TB
	bin    string
	dir    string
	region string
	stack  *local.Stack
	lake   string // URI
	prefix string // of topics; empty means the region
	fleet  string // path of the fleet file
	env    []string

	mu        sync.Mutex
	databases []*database
	workers   []*worker
}

// database is one entry of the fleet file.
type database struct {
	name     string
	url      string // without password; empty means the stack's PostgreSQL
	password string // the value; empty means the superuser's
	tables   string // a YAML list; empty means ["public.*"]
	extra    string // more lines of YAML
}

var sites atomic.Int64

// newSite makes a fleet on the servers that all tests share.
func newSite(t testing.TB) *site {
	t.Helper()
	return newSiteOn(t, local.Shared(t, local.Options{}))
}

// newSiteOn makes a fleet on the servers given.
func newSiteOn(t testing.TB, stack *local.Stack) *site {
	t.Helper()
	s := &site{t: t, bin: bin(t), dir: t.TempDir(), stack: stack}
	s.region = fmt.Sprintf("e2e-%d", sites.Add(1))
	s.lake = "file://" + filepath.Join(s.dir, "lake")
	s.fleet = filepath.Join(s.dir, "fleet.yaml")
	s.env = os.Environ()
	t.Cleanup(s.end)
	return s
}

// end stops the workers, and shows what they said when the test failed.
func (s *site) end() {
	if s.t.Failed() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		out, _ := s.command(ctx, append([]string{"status"}, s.names()...)...).CombinedOutput()
		s.t.Logf("status: %s", shorten(out, 6000))
		s.t.Logf("workflows: %s", s.histories(ctx))
	}
	for _, w := range s.workers {
		w.kill()
		if s.t.Failed() {
			s.t.Logf("worker %s: %s", w.name, shorten(w.said(), 6000))
		}
	}
}

// names are the databases of the fleet file.
func (s *site) names() (names []string) {
	for _, d := range s.databases {
		names = append(names, d.name)
	}
	return names
}

// shorten returns the end of b.
func shorten(b []byte, n int) []byte {
	if len(b) > n {
		return append([]byte("…"), b[len(b)-n:]...)
	}
	return b
}

var unfit = regexp.MustCompile(`[^a-z0-9]+`)

// add makes a database at the source and puts it into the fleet file. Slots
// are the server's, so that the name is unique.
func (s *site) add(name string) *source {
	s.t.Helper()
	name = fmt.Sprintf("%s_%s", unfit.ReplaceAllString(strings.ToLower(name), "_"), strings.ReplaceAll(s.region, "-", "_"))
	src := newSource(s.t, s.stack.Postgres, name)
	s.entry(&database{name: name})
	return src
}

// entry puts a database into the fleet file as it is.
func (s *site) entry(d *database) {
	s.mu.Lock()
	s.databases = append(s.databases, d)
	s.mu.Unlock()
	s.write()
}

// change changes an entry of the fleet file.
func (s *site) change(name string, f func(*database)) {
	s.t.Helper()
	for _, d := range s.databases {
		if d.name == name {
			f(d)
			s.write()
			return
		}
	}
	s.t.Fatalf("no database %s in the fleet file", name)
}

// write writes the fleet file.
func (s *site) write() {
	s.t.Helper()
	if err := os.WriteFile(s.fleet, []byte(s.text()), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// text is the fleet file.
func (s *site) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "region: %s\n", s.region)
	fmt.Fprintf(&b, "temporal: {address: %q, heartbeat_timeout: %s}\n", s.stack.Temporal.Address, heartbeat)
	fmt.Fprintf(&b, "kafka: {brokers: [%q], topic_prefix: %s, partitions: 3}\n", s.stack.Kafka.Brokers[0], cmp.Or(s.prefix, s.region))
	fmt.Fprintf(&b, "allow_insecure: true\nlake: %s\ndefaults: {freshness: 500ms}\ndatabases:\n", s.lake)
	for _, d := range s.databases {
		url, tables, password := d.url, d.tables, d.password
		if url == "" {
			url = fmt.Sprintf("postgres://%s@%s:%d/%s?sslmode=disable", s.stack.Postgres.User, s.stack.Postgres.Host, s.stack.Postgres.Port, d.name)
		}
		if tables == "" {
			tables = `["public.*"]`
		}
		if password == "" {
			password = s.stack.Postgres.Password
		}
		secret := filepath.Join(s.dir, d.name+".password")
		if err := os.WriteFile(secret, []byte(password), 0o600); err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprintf(&b, "  %s:\n    url: %s\n    password: file:%s\n    tables: %s\n", d.name, url, secret, tables)
		for line := range strings.Lines(d.extra) {
			b.WriteString("    " + strings.TrimRight(line, "\n") + "\n")
		}
	}
	return b.String()
}

// result is how a command ended.
type result struct {
	args           []string
	stdout, stderr string
	code           int
	took           time.Duration
}

func (r *result) String() string {
	return fmt.Sprintf("millrace %s: exit status %d after %s\nstdout: %s\nstderr: %s",
		strings.Join(r.args, " "), r.code, r.took.Round(time.Millisecond), r.stdout, r.stderr)
}

func (s *site) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "millrace"), append(args, "--fleet", s.fleet)...)
	cmd.Env = s.env
	return cmd
}

// commandLimit is how long any command may take.
const commandLimit = 3 * time.Minute

// run runs a command to its end, whatever that is.
func (s *site) run(args ...string) *result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), commandLimit)
	defer cancel()
	cmd := s.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	r := &result{args: args, stdout: stdout.String(), stderr: stderr.String(), took: time.Since(began)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		r.code = exit.ExitCode()
	case err != nil:
		s.t.Fatalf("%v: %v", r, err)
	}
	return r
}

// must runs a command that has to succeed.
func (s *site) must(args ...string) *result {
	s.t.Helper()
	r := s.run(args...)
	if r.code != 0 {
		s.t.Fatal(r)
	}
	return r
}

// refused runs a command that has to fail with an exit status within a time,
// saying each of the words on standard error, and no stack trace.
func (s *site) refused(code int, within time.Duration, words []string, args ...string) {
	s.t.Helper()
	r := s.run(args...)
	if r.code != code {
		s.t.Errorf("want exit status %d: %v", code, r)
		return
	}
	if r.took > within {
		s.t.Errorf("want an answer within %s: %v", within, r)
	}
	for _, w := range words {
		if !strings.Contains(r.stderr, w) {
			s.t.Errorf("want %q on standard error: %v", w, r)
		}
	}
	if strings.Contains(r.stderr, "goroutine ") || strings.Contains(r.stderr, ".go:") {
		s.t.Errorf("a stack trace for a user: %v", r)
	}
}

// decode runs a command with --json and reads its answer.
func (s *site) decode(into any, args ...string) *result {
	s.t.Helper()
	r := s.run(append(args, "--json")...)
	if err := json.Unmarshal([]byte(r.stdout), into); err != nil {
		s.t.Fatalf("%v\n%v", err, r)
	}
	return r
}

// statusReport is what `status --json` promises.
type statusReport struct {
	ObservedAt time.Time         `json:"observed_at"`
	Databases  []*databaseStatus `json:"databases"`
}

type databaseStatus struct {
	Name       string   `json:"name"`
	Region     string   `json:"region"`
	Pool       string   `json:"pool"`
	Workers    []string `json:"workers"`
	Phase      string   `json:"phase"`
	Reason     *reason  `json:"reason"`
	LagBytes   *int64   `json:"lag_bytes"`
	LagSeconds *float64 `json:"lag_seconds"`
	// RowsStreamed is null where no commit lane runs.
	RowsStreamed *int64         `json:"rows_streamed"`
	Tables       []*tableStatus `json:"tables"`
}

type tableStatus struct {
	Name       string  `json:"name"`
	Phase      string  `json:"phase"`
	Reason     *reason `json:"reason"`
	Latest     string  `json:"latest"`
	History    string  `json:"history"`
	RowsCopied int64   `json:"rows_copied"`
	Position   string  `json:"position"`
}

type reason struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Remedy  string `json:"remedy"`
}

// status returns the status of one database.
func (s *site) status(name string) *databaseStatus {
	s.t.Helper()
	var r statusReport
	out := s.decode(&r, "status", name)
	if len(r.Databases) != 1 {
		s.t.Fatalf("want one database: %v", out)
	}
	return r.Databases[0]
}

// table returns the status of one table, or nil.
func (s *site) table(name, table string) *tableStatus {
	s.t.Helper()
	for _, t := range s.status(name).Tables {
		if t.Name == table {
			return t
		}
	}
	return nil
}

// caughtUp waits until the lake has all that is committed now.
func (s *site) caughtUp(name string) {
	s.t.Helper()
	s.must("wait", name, "--until", "caught-up", "--timeout", "120s")
}

// verified proves tables equal to their source, by Millrace itself.
func (s *site) verified(name string, tables ...string) {
	s.t.Helper()
	s.must(append([]string{"verify", name, "--timeout", "120s"}, tables...)...)
}

// worker is one process.
type worker struct {
	s    *site
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// worker starts a process that serves the fleet and waits until it does. Its
// data folder is named after it, so that a successor of the same name finds
// warm indexes.
func (s *site) worker(name string, flags ...string) *worker {
	s.t.Helper()
	w := s.launch(name, flags...)
	until(s.t, 30*time.Second, "worker "+name+" serves", func() bool {
		select {
		case <-w.done:
			s.t.Fatalf("worker %s ended: %v\n%s", name, w.err, w.said())
		default:
		}
		return bytes.Contains(w.said(), []byte(`"msg":"serving"`))
	})
	return w
}

// launch starts a process and does not wait.
func (s *site) launch(name string, flags ...string) *worker {
	s.t.Helper()
	s.mu.Lock()
	w := &worker{s: s, name: name, done: make(chan struct{}), log: filepath.Join(s.dir, fmt.Sprintf("worker-%s-%d.log", name, len(s.workers)))}
	s.workers = append(s.workers, w)
	s.mu.Unlock()
	out, err := os.Create(w.log)
	if err != nil {
		s.t.Fatal(err)
	}
	defer out.Close()
	args := append([]string{"--fleet", s.fleet, "--data-dir", filepath.Join(s.dir, "data-"+name)}, flags...)
	w.cmd = exec.Command(filepath.Join(s.bin, "millrace-worker"), args...)
	w.cmd.Env, w.cmd.Stderr, w.cmd.Stdout = s.env, out, out
	if err := w.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		w.err = w.cmd.Wait()
		close(w.done)
	}()
	return w
}

// said is what the worker logged.
func (w *worker) said() []byte {
	b, _ := os.ReadFile(w.log)
	return b
}

// kill ends the worker as a crash would.
func (w *worker) kill() {
	_ = w.cmd.Process.Kill()
	<-w.done
}
