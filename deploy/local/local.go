// Package local runs real servers on this machine: PostgreSQL, a Kafka broker
// and Temporal, for tests, the demo and `make up`, and an S3 server for tests.
//
// Every server is a process of its own that listens on 127.0.0.1. Programs
// that this takes are fetched through package registries and built once into
// the user's cache folder, with a line of progress on standard error. Servers
// that Start and the Start functions made end with the process that made
// them, however that ends; those of Up live on until Down.
//
// PostgreSQL refuses to run as root. When the process is root, the server runs
// as uid 65534, and its binaries, data and socket lie in a folder below
// os.TempDir that this user can reach.
//
// It needs a Unix system and the go command, and uses the standard library
// alone.
package local

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Options says which servers a stack has and where.
type Options struct {
	// Dir holds the data, which is kept. Empty means a temporary folder,
	// removed by Stop.
	Dir string
	// PG is PostgreSQL's major version, "14" to "18". Empty means "17".
	PG string
	// Settings are PostgreSQL settings beside and above the defaults.
	Settings map[string]string
	// Postgres, Kafka and Temporal choose the servers. All false means all.
	Postgres, Kafka, Temporal bool
	// Ports on 127.0.0.1. Zero means a free one.
	PostgresPort, KafkaPort, TemporalPort, UIPort int
	// Durable makes PostgreSQL flush to the disk at every commit.
	Durable bool
	// UI serves Temporal's Web UI.
	UI bool
}

// Stack is a set of running servers. Those not asked for are nil.
type Stack struct {
	Postgres *Postgres
	Kafka    *Kafka
	Temporal *Temporal

	// Lake is the URI of a folder for Delta tables. The folder may not exist.
	Lake string

	temp string // removed by Stop; may be empty
}

// Start starts the servers asked for and waits until they serve. When it
// returns an error, nothing is left running.
func Start(ctx context.Context, o Options) (*Stack, error) {
	if !o.Postgres && !o.Kafka && !o.Temporal {
		o.Postgres, o.Kafka, o.Temporal = true, true, true
	}
	s := &Stack{}
	if o.Dir == "" {
		temp, err := os.MkdirTemp("", "millrace-stack-")
		if err != nil {
			return nil, fmt.Errorf("make the stack's folder: %w", err)
		}
		s.temp, o.Dir = temp, temp
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("resolve the stack's folder: %w", err)
	}
	s.Lake = lakeURI(filepath.Join(dir, "lake"))

	// The data of a temporary stack goes with its servers.
	sub := func(name string) string {
		if s.temp != "" {
			return ""
		}
		return filepath.Join(dir, name)
	}
	var postgres, kafka, temporal error
	done := make(chan struct{}, 3)
	start := func(wanted bool, f func()) {
		if !wanted {
			done <- struct{}{}
			return
		}
		go func() { f(); done <- struct{}{} }()
	}
	start(o.Postgres, func() {
		s.Postgres, postgres = StartPostgres(ctx, PostgresOptions{
			Dir: sub("postgres"), Version: o.PG, Port: o.PostgresPort, Settings: o.Settings, Durable: o.Durable,
		})
	})
	start(o.Kafka, func() {
		s.Kafka, kafka = StartKafka(ctx, KafkaOptions{Dir: sub("kafka"), Port: o.KafkaPort})
	})
	start(o.Temporal, func() {
		s.Temporal, temporal = StartTemporal(ctx, TemporalOptions{
			Dir: sub("temporal"), Port: o.TemporalPort, UIPort: o.UIPort, UI: o.UI,
		})
	})
	for range 3 {
		<-done
	}
	if err := errors.Join(postgres, kafka, temporal); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func lakeURI(dir string) string {
	return (&url.URL{Scheme: "file", Path: dir}).String()
}

// Stop stops the servers and removes a temporary folder. It may be called
// more than once.
func (s *Stack) Stop() error {
	var errs []error
	if s.Temporal != nil {
		errs = append(errs, s.Temporal.Close())
	}
	if s.Kafka != nil {
		errs = append(errs, s.Kafka.Close())
	}
	if s.Postgres != nil {
		errs = append(errs, s.Postgres.Close())
	}
	if s.temp != "" {
		errs = append(errs, os.RemoveAll(s.temp))
	}
	return errors.Join(errs...)
}

// Env returns NAME=VALUE pairs that tell programs where the stack is:
// PGHOST, PGPORT, PGUSER, PGPASSWORD, KAFKA_BROKERS, TEMPORAL_ADDRESS,
// TEMPORAL_UI and LAKE, less those of servers that the stack has not.
func (s *Stack) Env() []string {
	var env []string
	if p := s.Postgres; p != nil {
		env = append(env,
			"PGHOST="+p.Host,
			"PGPORT="+strconv.Itoa(p.Port),
			"PGUSER="+p.User,
			"PGPASSWORD="+p.Password)
	}
	if k := s.Kafka; k != nil {
		env = append(env, "KAFKA_BROKERS="+strings.Join(k.Brokers, ","))
	}
	if t := s.Temporal; t != nil {
		env = append(env, "TEMPORAL_ADDRESS="+t.Address)
		if t.UI != "" {
			env = append(env, "TEMPORAL_UI="+t.UI)
		}
	}
	return append(env, "LAKE="+s.Lake)
}
