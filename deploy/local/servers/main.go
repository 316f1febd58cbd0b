// Program servers runs one server of the local stack in the foreground.
//
//	servers postgres --version 17.10.0 --binaries DIR --cache DIR --run DIR --data DIR --port N [--set NAME=VALUE]…
//	servers kafka --dir DIR --port N
//	servers run -- COMMAND ARGUMENT…
//
// It prints one line, "ready pid=N", on standard output once the server takes
// connections (run: once it was started), N being the process that serves. It
// stops its server on SIGTERM or SIGINT, and with --with-parent also when its
// standard input ends, which a pipe from a parent does however the parent
// died. Exit status 0 means that it was asked to stop.
//
// It has a module of its own so that what serves tests and demos stays out of
// the product's dependencies.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

// errUsage means that the command line is wrong; it was explained already.
var errUsage = errors.New("wrong usage")

// common holds the flags that every server takes.
type common struct {
	withParent bool
	lockFD     int
	remove     string
}

func (c *common) flags(fs *flag.FlagSet) {
	fs.BoolVar(&c.withParent, "with-parent", false, "stop when standard input ends")
	fs.IntVar(&c.lockFD, "lock-fd", -1, "an inherited, locked file: it gets this process's id, and the lock is held until the end")
	fs.StringVar(&c.remove, "remove", "", "a folder to remove when standard input ends")
}

func main() {
	err := run(os.Args[1:])
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "servers:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: servers postgres|kafka|run [flags]")
		return errUsage
	}
	fs := flag.NewFlagSet("servers "+args[0], flag.ContinueOnError)
	var c common
	c.flags(fs)
	var serve func(context.Context) error
	switch args[0] {
	case "postgres":
		p := newPostgres(fs)
		serve = p.serve
	case "kafka":
		k := newKafka(fs)
		serve = k.serve
	case "run":
		serve = func(ctx context.Context) error { return serveCommand(ctx, fs.Args()) }
	default:
		fmt.Fprintf(os.Stderr, "servers: no server is called %q\n", args[0])
		return errUsage
	}
	if err := fs.Parse(args[1:]); err != nil {
		return errUsage
	}
	if c.lockFD >= 0 {
		if err := sign(c.lockFD); err != nil {
			return err
		}
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, orphaned := context.WithCancelCause(ctx)
	defer orphaned(nil)
	if c.withParent {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			orphaned(errOrphaned)
		}()
	}
	err := serve(ctx)
	if errors.Is(context.Cause(ctx), errOrphaned) && c.remove != "" {
		err = errors.Join(err, os.RemoveAll(c.remove))
	}
	return err
}

// sign writes this process's id into the locked file that it inherited, and
// keeps the file from the processes below.
func sign(fd int) error {
	syscall.CloseOnExec(fd)
	if err := syscall.Ftruncate(fd, 0); err != nil {
		return fmt.Errorf("sign the lock: %w", err)
	}
	if _, err := syscall.Pwrite(fd, []byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("sign the lock: %w", err)
	}
	return nil
}

// errOrphaned is the cause of a stop that nobody asked for: the parent ended.
var errOrphaned = errors.New("the parent ended")

// ready tells the parent that the server serves, and in which process.
func ready(pid int) {
	fmt.Printf("ready pid=%d\n", pid)
}

// settings collects NAME=VALUE flags.
type settings map[string]string

func (s settings) String() string { return "" }

func (s settings) Set(v string) error {
	name, value, ok := strings.Cut(v, "=")
	if !ok || name == "" {
		return fmt.Errorf("%q is not NAME=VALUE", v)
	}
	s[name] = value
	return nil
}
