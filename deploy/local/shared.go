package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
)

// shared holds the servers that the tests of one binary share.
var shared struct {
	mu       sync.Mutex
	postgres once[*Postgres]
	kafka    once[*Kafka]
	temporal once[*Temporal]
	s3       once[*S3]
}

// once remembers the first outcome of a start.
type once[T any] struct {
	tried bool
	value T
	err   error
}

func (o *once[T]) get(start func() (T, error)) (T, error) {
	if !o.tried {
		o.tried = true
		o.value, o.err = start()
	}
	return o.value, o.err
}

// RunTests runs the tests of a binary and then stops the servers that they
// shared:
//
//	func TestMain(m *testing.M) { os.Exit(local.RunTests(m)) }
//
// Servers stop without it as well, a moment after the test binary ended.
func RunTests(m *testing.M) int {
	code := m.Run()
	if err := CloseShared(); err != nil {
		fmt.Fprintln(os.Stderr, "local: stop shared servers:", err)
	}
	return code
}

// Tests are the tests of a binary with the servers that they share, for a
// TestMain that looks for goroutines left behind:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(local.Tests{M: m}) }
type Tests struct{ *testing.M }

// Run is RunTests.
func (t Tests) Run() int { return RunTests(t.M) }

// CloseShared stops the shared servers, for a TestMain that does more than
// RunTests.
func CloseShared() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	var errs []error
	if p := shared.postgres.value; p != nil {
		errs = append(errs, p.Close())
	}
	if k := shared.kafka.value; k != nil {
		errs = append(errs, k.Close())
	}
	if t := shared.temporal.value; t != nil {
		errs = append(errs, t.Close())
	}
	if s := shared.s3.value; s != nil {
		errs = append(errs, s.Close())
	}
	shared.postgres, shared.kafka, shared.temporal = once[*Postgres]{}, once[*Kafka]{}, once[*Temporal]{}
	shared.s3 = once[*S3]{}
	return errors.Join(errs...)
}

// SharedPostgres returns a PostgreSQL server that all tests of this binary
// share, so each makes a database of its own. It skips the test under -short.
func SharedPostgres(t testing.TB) *Postgres {
	t.Helper()
	return share(t, &shared.postgres, func(ctx context.Context) (*Postgres, error) {
		return StartPostgres(ctx, PostgresOptions{})
	})
}

// SharedKafka returns a broker that all tests of this binary share, so each
// makes topics of its own. It skips the test under -short.
func SharedKafka(t testing.TB) *Kafka {
	t.Helper()
	return share(t, &shared.kafka, func(ctx context.Context) (*Kafka, error) {
		return StartKafka(ctx, KafkaOptions{})
	})
}

// SharedTemporal returns a Temporal server that all tests of this binary
// share, so each uses workflow ids and task queues of its own. It skips the
// test under -short.
func SharedTemporal(t testing.TB) *Temporal {
	t.Helper()
	return share(t, &shared.temporal, func(ctx context.Context) (*Temporal, error) {
		return StartTemporal(ctx, TemporalOptions{})
	})
}

// SharedS3 returns an S3 server that all tests of this binary share, so each
// makes a bucket of its own. Its domain is s3.test. It skips the test under
// -short.
func SharedS3(t testing.TB) *S3 {
	t.Helper()
	return share(t, &shared.s3, func(ctx context.Context) (*S3, error) {
		return StartS3(ctx, S3Options{Domain: "s3.test"})
	})
}

func share[T any](t testing.TB, o *once[T], start func(context.Context) (T, error)) T {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a server")
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	server, err := o.get(func() (T, error) { return start(context.Background()) })
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// Shared returns the shared servers asked for as a stack, which the caller
// must not stop. Options choose the servers; the rest of them is ignored.
func Shared(t testing.TB, o Options) *Stack {
	t.Helper()
	all := !o.Postgres && !o.Kafka && !o.Temporal
	s := &Stack{Lake: lakeURI(t.TempDir())}
	if o.Postgres || all {
		s.Postgres = SharedPostgres(t)
	}
	if o.Kafka || all {
		s.Kafka = SharedKafka(t)
	}
	if o.Temporal || all {
		s.Temporal = SharedTemporal(t)
	}
	return s
}
