package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	embedded "github.com/fergusstrange/embedded-postgres"
	"github.com/lib/pq"
)

// postgres is one PostgreSQL server. Its binaries are unpacked once and
// shared; its data directory is made when it is missing and used as it stands
// otherwise.
type postgres struct {
	version  string
	binaries string
	cache    string
	run      string
	data     string
	port     int
	user     string
	password string
	settings settings
}

func newPostgres(fs *flag.FlagSet) *postgres {
	p := &postgres{settings: settings{}}
	fs.StringVar(&p.version, "version", "17.10.0", "the version of the binaries")
	fs.StringVar(&p.binaries, "binaries", "", "the folder that the binaries are unpacked to")
	fs.StringVar(&p.cache, "cache", "", "the folder of downloaded archives")
	fs.StringVar(&p.run, "run", "", "the folder of the socket, emptied at start")
	fs.StringVar(&p.data, "data", "", "the data directory")
	fs.IntVar(&p.port, "port", 0, "the port on 127.0.0.1")
	fs.StringVar(&p.user, "user", "postgres", "the superuser")
	fs.StringVar(&p.password, "password", "postgres", "the superuser's password")
	fs.Var(p.settings, "set", "a server setting NAME=VALUE (repeatable)")
	return p
}

func (p *postgres) serve(ctx context.Context) error {
	if err := p.prepare(); err != nil {
		return err
	}
	c, err := p.start(ctx)
	if err != nil || c == nil {
		return err
	}
	ready(c.cmd.Process.Pid)
	return c.supervise(ctx, stopPostgres)
}

// stopPostgres is a fast shutdown, then an immediate one: a fast one waits
// for replication clients that may never confirm.
var stopPostgres = escalation{
	{syscall.SIGINT, 5 * time.Second},
	{syscall.SIGQUIT, 5 * time.Second},
	{syscall.SIGKILL, 5 * time.Second},
}

// prepare downloads and unpacks the binaries and makes the data directory,
// whichever is missing. Of several processes one unpacks, the others wait.
func (p *postgres) prepare() error {
	unlock, err := lock(p.binaries + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	unpacked := filepath.Join(p.binaries, "complete")
	if _, err := os.Stat(unpacked); err == nil {
		unlock()
	} else if err := os.RemoveAll(p.binaries); err != nil {
		return fmt.Errorf("remove half unpacked binaries: %w", err)
	}
	if _, err := os.Stat(filepath.Join(p.data, "complete")); err == nil {
		return nil
	}

	started := time.Now()
	config := embedded.DefaultConfig().
		Version(embedded.PostgresVersion(p.version)).
		CachePath(p.cache).BinariesPath(p.binaries).RuntimePath(p.run).DataPath(p.data).
		Port(uint32(p.port)).Username(p.user).Password(p.password).
		Locale("C").Encoding("UTF8").
		StartTimeout(60 * time.Second).
		StartParameters(map[string]string{
			"listen_addresses":        "127.0.0.1",
			"unix_socket_directories": "",
			"fsync":                   "off",
		}).
		Logger(os.Stderr)
	if err := os.RemoveAll(p.data); err != nil {
		return fmt.Errorf("remove a half made data directory: %w", err)
	}
	server := embedded.NewDatabase(config)
	if err := server.Start(); err != nil {
		return fmt.Errorf("make PostgreSQL %s: %w", p.version, err)
	}
	if err := server.Stop(); err != nil {
		return fmt.Errorf("stop PostgreSQL %s after making it: %w", p.version, err)
	}
	for _, marker := range []string{unpacked, filepath.Join(p.data, "complete")} {
		if err := os.WriteFile(marker, nil, 0o644); err != nil {
			return fmt.Errorf("mark as complete: %w", err)
		}
	}
	fmt.Fprintf(os.Stderr, "made a PostgreSQL %s in %s\n", p.version, time.Since(started).Round(time.Millisecond))
	return nil
}

// start runs the server and waits until it takes connections. It returns nil
// when ctx ended first.
func (p *postgres) start(ctx context.Context) (*child, error) {
	if err := os.MkdirAll(p.run, 0o700); err != nil {
		return nil, fmt.Errorf("make the socket's folder: %w", err)
	}
	args := []string{"-D", p.data, "-p", strconv.Itoa(p.port), "-c", "listen_addresses=127.0.0.1"}
	if len(p.run) < 80 { // a socket's path is limited to about 100 bytes
		args = append(args, "-c", "unix_socket_directories="+p.run)
	} else {
		args = append(args, "-c", "unix_socket_directories=")
	}
	for name, value := range p.settings {
		args = append(args, "-c", name+"="+value)
	}
	connector, err := pq.NewConnector(fmt.Sprintf(
		"host=127.0.0.1 port=%d user=%s password=%s dbname=postgres sslmode=disable connect_timeout=5",
		p.port, p.user, p.password))
	if err != nil {
		return nil, fmt.Errorf("read connection settings: %w", err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()

	// After a crash, backends that end slowly make the first attempts fail.
	_, err = os.Stat(filepath.Join(p.data, "postmaster.pid"))
	crashed := err == nil
	deadline := time.Now().Add(60 * time.Second)
	for {
		cmd := exec.Command(filepath.Join(p.binaries, "bin", "postgres"), args...)
		cmd.Dir = p.data
		c, err := startChild(cmd, syscall.SIGQUIT)
		if err != nil {
			return nil, err
		}
		err = c.awaitConnection(ctx, db)
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() != nil:
			return nil, c.supervise(ctx, stopPostgres)
		case !crashed || !errors.Is(err, errEnded) || time.Now().After(deadline):
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// errEnded means that a server ended before it took a connection.
var errEnded = errors.New("it ended before it took a connection")

func (c *child) awaitConnection(ctx context.Context, db *sql.DB) error {
	deadline := time.After(10 * time.Minute) // recovery after a crash may be long
	for {
		err := db.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-c.done:
			return fmt.Errorf("%w: %w", errEnded, c.ended())
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fmt.Errorf("await a connection: %w", err)
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// lock takes a lock between processes. The returned function may be called
// more than once.
func lock(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of a lock: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open a lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}
