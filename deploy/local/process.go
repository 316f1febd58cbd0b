package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is one server. It can be stopped, killed and started again any
// number of times; data, port and settings stay. Its methods may be called
// from several goroutines, one at a time does its work.
type Process struct {
	name     string
	program  string   // the program servers, where the process can run it
	args     []string // its arguments
	log      string   // the file that collects output
	cwd      string
	user     *syscall.Credential         // nil: this process's own
	temp     string                      // removed by Close, or by the server when this process dies; may be empty
	probe    func(context.Context) error // nil when the server answers
	lock     *os.File                    // the lock that a server of Up holds; nil for those that end with this process
	announce func()                      // says before a start what will take its time; may be nil

	mu  sync.Mutex
	run *running // nil when it does not run
}

// running is one life of a Process.
type running struct {
	cmd   *exec.Cmd
	stdin io.Closer     // its end stops the server; nil for those of Up
	pid   int           // of the process that serves
	done  chan struct{} // closed once it has ended
	err   error         // how; valid once done is closed
}

// Running a server's stop and start is bounded by these.
const (
	startLimit = 3 * time.Minute
	stopLimit  = 25 * time.Second
)

// process returns a server that runs as this process's user, without its arguments
// and its probe, and the port that it is to have: port, or a free one for 0.
func (p *place) process(ctx context.Context, name, dir string, port int) (*Process, int, error) {
	program, err := p.serversProgram(ctx)
	if err != nil {
		return nil, 0, err
	}
	if port, err = choosePort(port); err != nil {
		return nil, 0, err
	}
	s := &Process{name: name, program: program}
	if s.cwd, s.temp, err = ownDir(dir, strings.ToLower(name)); err != nil {
		return nil, 0, err
	}
	s.log = filepath.Join(s.cwd, strings.ToLower(name)+".log")
	return s, port, nil
}

// ownDir makes the folder of a server that runs as this process's user: dir,
// or a temporary one when dir is empty, returned as temp too.
func ownDir(dir, name string) (cwd, temp string, err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "millrace-"+name+"-"); err != nil {
			return "", "", fmt.Errorf("make a temporary folder: %w", err)
		}
		return dir, dir, nil
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", "", fmt.Errorf("resolve a folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", "", fmt.Errorf("make the folder of %s: %w", name, err)
	}
	return dir, "", nil
}

// Start starts the server, unless it runs, and waits until it serves.
func (p *Process) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.start(ctx)
}

func (p *Process) start(ctx context.Context) error {
	if p.run != nil {
		select {
		case <-p.run.done:
			p.run = nil
		default:
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if p.announce != nil {
		p.announce()
	}
	run, err := p.launch(ctx)
	if err != nil {
		return fmt.Errorf("start %s: %w%s", p.name, err, p.lastWords())
	}
	p.run = run
	for {
		err := p.probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-run.done:
			p.run = nil
			return fmt.Errorf("start %s: %w%s", p.name, run.err, p.lastWords())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("await %s: %w%s", p.name, err, p.lastWords()), p.stop())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// launch starts the program and waits for its ready line.
func (p *Process) launch(ctx context.Context) (*running, error) {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	defer log.Close()

	server, flags := p.args[0], p.args[1:]
	args := []string{server}
	cmd := exec.Command(p.program)
	cmd.Dir = p.cwd
	cmd.Stderr = log
	cmd.Env = os.Environ()
	if os.Getenv("USER") == "" { // Temporal's server insists on it for users that have no name
		cmd.Env = append(cmd.Env, "USER=millrace")
	}
	if p.user != nil {
		cmd.Env = append(cmd.Env, "HOME="+p.cwd, "TMPDIR="+p.cwd)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.user, Setpgid: p.lock == nil, Setsid: p.lock != nil}
	run := &running{cmd: cmd, done: make(chan struct{})}
	if p.lock == nil {
		args = append(args, "--with-parent")
		if p.temp != "" {
			args = append(args, "--remove", p.temp)
		}
		if run.stdin, err = cmd.StdinPipe(); err != nil {
			return nil, fmt.Errorf("open a pipe: %w", err)
		}
	} else {
		args = append(args, "--lock-fd", "3")
		cmd.ExtraFiles = []*os.File{p.lock}
	}
	cmd.Args = append(append(cmd.Args, args...), flags...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("open a pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		ready <- line
		run.err = cmd.Wait()
		if run.err == nil {
			run.err = errors.New("it ended")
		}
		close(run.done)
	}()
	select {
	case line := <-ready:
		pid, ok := strings.CutPrefix(strings.TrimSpace(line), "ready pid=")
		if !ok {
			<-run.done
			return nil, run.err
		}
		if run.pid, err = strconv.Atoi(pid); err != nil {
			run.kill()
			return nil, fmt.Errorf("read the process id: %w", err)
		}
		return run, nil
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-run.done:
		case <-time.After(stopLimit):
			run.kill()
		}
		return nil, ctx.Err()
	}
}

// Stop stops the server as its operator would, and waits for its end. A
// server that does not run is no error.
func (p *Process) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stop()
}

func (p *Process) stop() error {
	run := p.run
	if run == nil {
		return nil
	}
	p.run = nil
	_ = run.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-run.done:
		return nil
	case <-time.After(stopLimit):
		run.kill()
		return fmt.Errorf("stop %s: it did not end within %s and was killed", p.name, stopLimit)
	}
}

// Kill ends the server at once with SIGKILL, as a crash would, and waits for
// its end. A server that does not run is no error.
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run != nil {
		p.run.kill()
		p.run = nil
	}
	return nil
}

func (r *running) kill() {
	if r.pid > 0 {
		_ = syscall.Kill(r.pid, syscall.SIGKILL)
	}
	if r.pid <= 0 || r.pid == r.cmd.Process.Pid {
		_ = r.cmd.Process.Kill()
	}
	select { // the program servers notices the end of what it ran
	case <-r.done:
	case <-time.After(5 * time.Second):
		_ = r.cmd.Process.Kill()
		<-r.done
	}
}

// Restart stops the server and starts it again.
func (p *Process) Restart(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.stop(); err != nil {
		return err
	}
	return p.start(ctx)
}

// Signal sends a signal, such as SIGSTOP, to the process that serves.
func (p *Process) Signal(s syscall.Signal) error {
	pid := p.Pid()
	if pid == 0 {
		return fmt.Errorf("signal %s: it does not run", p.name)
	}
	if err := syscall.Kill(pid, s); err != nil {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// Pid returns the id of the process that serves (PostgreSQL's postmaster), or
// zero when the server does not run.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		return 0
	}
	return p.run.pid
}

// Log returns the path of the file that collects the server's output.
func (p *Process) Log() string { return p.log }

// Close stops the server and removes what was temporary.
func (p *Process) Close() error {
	err := p.Stop()
	if p.temp != "" {
		err = errors.Join(err, os.RemoveAll(p.temp))
	}
	return err
}

// lastWords returns the end of the log, to be put behind an error.
func (p *Process) lastWords() string {
	b, err := os.ReadFile(p.log)
	if err != nil || len(b) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) > 12 {
		lines = lines[len(lines)-12:]
	}
	for i, line := range lines {
		if len(line) > 300 {
			lines[i] = line[:300] + "…"
		}
	}
	return "\n  " + filepath.Base(p.log) + ": " + strings.Join(lines, "\n  "+filepath.Base(p.log)+": ")
}
