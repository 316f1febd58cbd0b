package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// child is a server that runs as a process below this one.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once the process has ended
	err  error         // how it ended; valid once done is closed
}

// startChild starts cmd with its output on standard error. Where the system
// can do it, the process gets the signal orphan when this one dies, however
// it dies.
func startChild(cmd *exec.Cmd, orphan syscall.Signal) (*child, error) {
	cmd.Stdout = os.Stderr
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = withOrphanSignal(orphan)
	c := &child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The orphan signal comes when the thread that started the process ends.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		c.err = cmd.Wait()
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return c, nil
}

// escalation is a way to stop a process: signals, each with the time that the
// process has to obey it.
type escalation []struct {
	signal syscall.Signal
	wait   time.Duration
}

// supervise waits until the process ends by itself, which is an error, or ctx
// ends, when it stops the process as how says.
func (c *child) supervise(ctx context.Context, how escalation) error {
	select {
	case <-c.done:
		return c.ended()
	case <-ctx.Done():
	}
	for _, step := range how {
		if err := c.cmd.Process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("signal %s: %w", c.cmd.Path, err)
		}
		select {
		case <-c.done:
			return nil
		case <-time.After(step.wait):
		}
	}
	return fmt.Errorf("process %d (%s) does not end", c.cmd.Process.Pid, c.cmd.Path)
}

func (c *child) ended() error {
	if c.err != nil {
		return fmt.Errorf("%s ended by itself: %w", c.cmd.Path, c.err)
	}
	return fmt.Errorf("%s ended by itself", c.cmd.Path)
}

// serveCommand runs any program that serves in the foreground.
func serveCommand(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: servers run [flags] -- COMMAND ARGUMENT…")
		return errUsage
	}
	c, err := startChild(exec.Command(args[0], args[1:]...), syscall.SIGTERM)
	if err != nil {
		return err
	}
	ready(c.cmd.Process.Pid)
	return c.supervise(ctx, escalation{
		{syscall.SIGTERM, 10 * time.Second},
		{syscall.SIGKILL, 5 * time.Second},
	})
}
