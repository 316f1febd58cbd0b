package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Versions are the PostgreSQL versions that can be started, by major version.
var versions = map[string]string{
	"14": "14.20.0",
	"15": "15.18.0",
	"16": "16.14.0",
	"17": "17.10.0",
	"18": "18.4.0",
}

// DefaultPG is the major version of PostgreSQL used unless another is asked for.
const DefaultPG = "17"

// PostgresOptions says how a PostgreSQL server is started. The zero value is
// good for tests.
type PostgresOptions struct {
	// Dir holds data and log, which are kept (as root, the data lies where
	// the server's user can reach it). Empty means a temporary folder.
	Dir string
	// Version is a major version, "14" to "18". Empty means DefaultPG.
	Version string
	// Port on 127.0.0.1. Zero means a free one.
	Port int
	// Settings beside and above the defaults: wal_level=logical, 200 slots
	// and walsenders, 500 connections.
	Settings map[string]string
	// Durable flushes to the disk at every commit.
	Durable bool
}

// Postgres is a PostgreSQL server with a superuser who has a password.
type Postgres struct {
	*Process
	Version        string // as in "17.10"
	Host           string
	Port           int
	User, Password string
}

// URL returns the address of a database for the superuser, password included.
func (p *Postgres) URL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(p.User, p.Password),
		Host:     p.Host + ":" + strconv.Itoa(p.Port),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// defaultSettings make room for many databases and many tests at once.
func defaultSettings(durable bool) map[string]string {
	s := map[string]string{
		"wal_level":             "logical",
		"max_replication_slots": "200",
		"max_wal_senders":       "200",
		"max_connections":       "500",
		"shared_buffers":        "128MB",
		"max_wal_size":          "4GB",
		"log_min_messages":      "warning",
		// Commands that a replication client sends are not worth a line each.
		"log_replication_commands": "off",
	}
	if !durable {
		s["fsync"] = "off"
		s["synchronous_commit"] = "off"
		s["full_page_writes"] = "off"
	}
	return s
}

// StartPostgres starts a PostgreSQL server and waits until it takes
// connections: some two seconds, and longer the first time that a version is
// fetched.
func StartPostgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	p, err := newPostgres(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("prepare PostgreSQL: %w", err)
	}
	if err := p.Start(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.keepArchive()
	return p.Postgres, nil
}

// postgresServer is a Postgres with what only this package needs of it.
type postgresServer struct {
	*Postgres
	full    string // full version
	archive string // the folder that the archive was downloaded to
	cache   string // the folder that keeps it
}

func newPostgres(ctx context.Context, o PostgresOptions) (*postgresServer, error) {
	if o.Version == "" {
		o.Version = DefaultPG
	}
	full, ok := versions[o.Version]
	if !ok {
		return nil, fmt.Errorf("no PostgreSQL %q here: one of %s", o.Version,
			strings.Join(slices.Sorted(maps.Keys(versions)), ", "))
	}
	place, err := findPlace()
	if err != nil {
		return nil, err
	}
	reach, err := place.reachable()
	if err != nil {
		return nil, err
	}
	program, err := place.serversProgram(ctx)
	if err != nil {
		return nil, err
	}
	if program, err = reach.program(program); err != nil {
		return nil, err
	}
	port, err := choosePort(o.Port)
	if err != nil {
		return nil, err
	}

	p := &Process{name: "PostgreSQL " + o.Version, program: program, user: reach.user}
	s := &postgresServer{
		Postgres: &Postgres{
			Process: p,
			Version: strings.TrimSuffix(full, ".0"),
			Host:    "127.0.0.1", Port: port, User: "postgres", Password: "postgres",
		},
		full:    full,
		archive: filepath.Join(reach.dir, "postgres", "archives"),
		cache:   filepath.Join(place.cache, "postgres", "archives"),
	}
	if o.Dir == "" {
		if p.temp, err = reach.tempDir("pg-"); err != nil {
			return nil, err
		}
		p.cwd = p.temp
		p.log = filepath.Join(p.temp, "postgres.log")
	} else {
		if p.cwd, err = reach.dirFor(o.Dir); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(o.Dir, 0o755); err != nil {
			return nil, fmt.Errorf("make the folder of PostgreSQL: %w", err)
		}
		p.log = filepath.Join(o.Dir, "postgres.log")
	}
	if err := s.bringArchive(reach); err != nil {
		return nil, err
	}
	binaries := filepath.Join(reach.dir, "postgres", full)
	p.announce = func() {
		if _, err := os.Stat(filepath.Join(binaries, "complete")); err == nil {
			return
		}
		if kept, _ := filepath.Glob(filepath.Join(s.archive, "*-"+full+".txz")); kept != nil {
			progress("unpacking PostgreSQL %s, once", s.Version)
			return
		}
		progress("fetching PostgreSQL %s (10 MB), once", s.Version)
	}
	p.args = []string{
		"postgres",
		"--version", full,
		"--binaries", binaries,
		"--cache", s.archive,
		"--run", filepath.Join(p.cwd, "run"),
		"--data", filepath.Join(p.cwd, "data-"+o.Version),
		"--port", strconv.Itoa(port),
		"--user", s.User,
		"--password", s.Password,
	}
	p.probe = s.probe
	settings := defaultSettings(o.Durable)
	maps.Copy(settings, o.Settings)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		p.args = append(p.args, "--set", name+"="+settings[name])
	}
	return s, nil
}

// sslRequest asks PostgreSQL whether it speaks TLS; it answers one byte.
var sslRequest = []byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}

// probe is nil when the server answers.
func (p *Postgres) probe(ctx context.Context) error {
	return exchange(ctx, net.JoinHostPort(p.Host, strconv.Itoa(p.Port)), sslRequest, make([]byte, 1))
}

// exchange sends a request and reads the first bytes of its answer.
func exchange(ctx context.Context, address string, request, answer []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := c.Write(request); err != nil {
		return err
	}
	_, err = io.ReadFull(c, answer)
	return err
}

// bringArchive puts a kept archive where the server's user can read it.
func (s *postgresServer) bringArchive(reach *reach) error {
	if err := reach.mkdir(s.archive); err != nil {
		return err
	}
	if s.archive == s.cache {
		return nil
	}
	kept, _ := filepath.Glob(filepath.Join(s.cache, "*-"+s.full+".txz"))
	for _, path := range kept {
		if err := copyFile(path, filepath.Join(s.archive, filepath.Base(path)), 0o644); err != nil {
			return fmt.Errorf("bring a downloaded PostgreSQL: %w", err)
		}
	}
	return nil
}

// keepArchive keeps a downloaded archive for later. It is a cache: what goes
// wrong here costs a download, nothing else.
func (s *postgresServer) keepArchive() {
	if s.archive == s.cache || os.MkdirAll(s.cache, 0o755) != nil {
		return
	}
	fetched, _ := filepath.Glob(filepath.Join(s.archive, "*-"+s.full+".txz"))
	for _, path := range fetched {
		_ = copyFile(path, filepath.Join(s.cache, filepath.Base(path)), 0o644)
	}
}

// copyFile copies a file whole or not at all, unless one is there already.
func copyFile(from, to string, mode os.FileMode) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".copy-")
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Chmod(mode), out.Close())
	if err == nil {
		err = os.Rename(out.Name(), to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(out.Name()))
	}
	return nil
}
