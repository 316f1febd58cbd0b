// Package activities holds the steps of Millrace, one exported method each:
// they join the stages (source, topic, batch, lake) and report to Temporal.
// It is the only code that both does I/O and knows Temporal.
package activities

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"

	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/activities/internal/lake"
	"github.com/millrace-io/millrace/activities/internal/pgsource"
	"github.com/millrace-io/millrace/activities/internal/topic"
)

// Config is what a worker gives its activities. Every field is required unless
// it says otherwise.
type Config struct {
	// Worker is the worker's id.
	Worker string
	// DataDir holds the key indexes and temporary files of this worker alone.
	DataDir string
	// Memory is the budget for rows, in bytes.
	Memory int64
	// Temporal is the service that runs the workflows.
	Temporal client.Client
	// Brokers and KafkaTLS say where Kafka is; KafkaTLS is nil for plain text,
	// which AllowInsecure must permit.
	Brokers       []string
	KafkaTLS      *tls.Config
	AllowInsecure bool
	Log           *slog.Logger
	// Registry receives the metrics; nil for none.
	Registry prometheus.Registerer
}

// Activities are the steps. Each exported method is an activity, and its name
// is part of the contract with running workflows.
type Activities struct {
	cfg     Config
	budget  *Budget
	metrics *metrics
	kafka   *topic.Client
	lanes   lanes
	// reading bounds the chunks and proofs that run at once in this process.
	reading chan struct{}
	// tending bounds the tables that are maintained at once.
	tending chan struct{}

	mu    sync.Mutex
	lakes map[lakeKey]*lake.Lake
}

// New returns the activities of one worker. It connects to nothing yet.
func New(cfg Config) (*Activities, error) {
	kafka, err := topic.Open(topic.Config{
		Brokers: cfg.Brokers, TLS: cfg.KafkaTLS, ClientID: "millrace-" + cfg.Worker, AllowInsecure: cfg.AllowInsecure,
	})
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(filepath.Join(cfg.DataDir, "tmp")); err != nil {
		return nil, fmt.Errorf("clear the temporary folder: %w", err)
	}
	budget := NewBudget(cfg.Memory)
	return &Activities{
		cfg: cfg, budget: budget, metrics: newMetrics(cfg.Registry, budget), kafka: kafka,
		lanes:   lanes{running: map[string]*lane{}},
		reading: make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
		tending: newTending(),
		lakes:   map[lakeKey]*lake.Lake{},
	}, nil
}

// Close gives up connections and key indexes. No activity may run any more. It
// is no method, for exported methods are activities.
func Close(a *Activities) error {
	err := a.kafka.Close()
	for _, l := range a.lakes {
		err = errors.Join(err, l.Close())
	}
	return err
}

// lake returns the lake of a database, opening it once. Keys that have changed
// where they are referred to make it another.
func (a *Activities) lake(ctx context.Context, db *fleet.Database) (*lake.Lake, error) {
	cfg := lake.Config{
		Root: db.Lake, Database: db.Name, IndexDir: filepath.Join(a.cfg.DataDir, "index", db.Name), Log: a.cfg.Log,
		CompactBytes: compactBytes(a.cfg.Memory),
	}
	if db.Bucket != nil {
		var err error
		if cfg.Bucket, err = bucket(db.Bucket); err != nil {
			return nil, err
		}
	}
	key := lakeKey{cfg.Root, cfg.Database, cfg.Bucket}
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.lakes[key]; l != nil {
		return l, nil
	}
	l, err := lake.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	a.lakes[key] = l
	return l, nil
}

// lakeKey is what one lake differs from another by.
type lakeKey struct {
	root, database string
	bucket         lake.Bucket
}

// bucket resolves what a fleet file says of a bucket.
func bucket(b *fleet.Bucket) (out lake.Bucket, err error) {
	out = lake.Bucket{Endpoint: b.Endpoint, Region: b.Region, Addressing: b.Addressing, KMSKey: b.KMSKey}
	if out.AccessKey, err = b.AccessKey.Resolve(); err != nil {
		return out, err
	}
	out.SecretKey, err = b.SecretKey.Resolve()
	return out, err
}

// temporary makes a folder for one step. The caller removes it.
func (a *Activities) temporary(step string) (string, error) {
	root := filepath.Join(a.cfg.DataDir, "tmp")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", fmt.Errorf("make the temporary folder: %w", err)
	}
	dir, err := os.MkdirTemp(root, step+"-")
	if err != nil {
		return "", fmt.Errorf("make a temporary folder: %w", err)
	}
	return dir, nil
}

// source connects to a database for one step. The step names the connections,
// so that a replacement can end what its predecessor left behind.
func (a *Activities) source(ctx context.Context, db *fleet.Database, step string) (*pgsource.DB, error) {
	password, err := db.Password.Resolve()
	if err != nil {
		return nil, err
	}
	return pgsource.Connect(ctx, pgsource.Config{URL: db.URL, Password: password, Tag: tag(db.Name, step)})
}

// tag is the application name of a step's connections.
func tag(database, step string) string { return "millrace/" + database + "/" + step }
