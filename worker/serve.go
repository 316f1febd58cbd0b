package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"golang.org/x/sys/unix"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/workflows"
)

// stopWithin is how long lanes may take to reach a boundary on SIGTERM.
const stopWithin = 20 * time.Second

// serve runs the workers until ctx ends, then returns every lane.
func serve(ctx context.Context, f *flags, file *fleet.File, logger *slog.Logger) (err error) {
	id, unlock, err := claim(f.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	registry := prometheus.NewRegistry()
	if f.Metrics != "" {
		shut, err := expose(f.Metrics, registry, logger)
		if err != nil {
			return err
		}
		defer shut()
	}
	c, err := dial(ctx, file, logger)
	if err != nil {
		return err
	}
	defer c.Close()
	kafkaTLS, err := file.Kafka.TLS.Config()
	if err != nil {
		return err
	}
	acts, err := activities.New(activities.Config{
		Worker: id, DataDir: f.DataDir, Memory: int64(f.Memory), Temporal: c,
		Brokers: file.Kafka.Brokers, KafkaTLS: kafkaTLS,
		AllowInsecure: file.AllowInsecure, Log: logger, Registry: registry,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, activities.Close(acts)) }()

	var workers []worker.Worker
	for _, pool := range f.Pool {
		for _, lane := range f.Lanes {
			queues := []string{workflows.Queue(file.Region, pool, lane)}
			if lane == workflows.LaneCommit {
				queues = append(queues, workflows.WorkerQueue(file.Region, pool, lane, id))
			}
			for _, queue := range queues {
				workers = append(workers, newWorker(c, queue, lane, file, id, acts))
			}
		}
	}
	for i, w := range workers {
		if err := w.Start(); err != nil {
			stopAll(workers[:i])
			return fmt.Errorf("start a worker: %w", err)
		}
	}
	logger.Info("serving", "worker", id, "region", file.Region, "pools", f.Pool, "lanes", f.Lanes)
	<-ctx.Done()
	logger.Info("stopping", "worker", id)
	stopAll(workers)
	return nil
}

// stopAll stops the workers side by side: each waits for its lanes.
func stopAll(workers []worker.Worker) {
	done := make(chan struct{})
	for _, w := range workers {
		go func() {
			w.Stop()
			done <- struct{}{}
		}()
	}
	for range workers {
		<-done
	}
}

// newWorker serves one queue. Workflows run on the control lane.
func newWorker(c client.Client, queue, lane string, file *fleet.File, id string, acts *activities.Activities) worker.Worker {
	throttle := file.Temporal.HeartbeatTimeout / 4 // lanes send theirs themselves
	w := worker.New(c, queue, worker.Options{
		Identity:                           id,
		WorkerStopTimeout:                  stopWithin,
		MaxConcurrentActivityExecutionSize: 1000,
		MaxHeartbeatThrottleInterval:       throttle,
		DefaultHeartbeatThrottleInterval:   throttle,
		StickyScheduleToStartTimeout:       time.Second,
		DisableWorkflowWorker:              lane != workflows.LaneControl,
		Interceptors:                       []interceptor.WorkerInterceptor{activities.Edge(acts)},
	})
	w.RegisterActivity(acts)
	if lane == workflows.LaneControl {
		w.RegisterWorkflowWithOptions(workflows.Database, workflow.RegisterOptions{Name: workflows.DatabaseWorkflow})
		w.RegisterWorkflowWithOptions(workflows.Copy, workflow.RegisterOptions{Name: workflows.CopyWorkflow})
		w.RegisterWorkflowWithOptions(workflows.Prove, workflow.RegisterOptions{Name: workflows.VerifyWorkflow})
		w.RegisterWorkflowWithOptions(workflows.Foresee, workflow.RegisterOptions{Name: workflows.PlanWorkflow})
		w.RegisterWorkflowWithOptions(workflows.Examine, workflow.RegisterOptions{Name: workflows.DoctorWorkflow})
	}
	return w
}

// dial connects to Temporal, and goes on trying: a worker may start before its
// server.
func dial(ctx context.Context, file *fleet.File, logger *slog.Logger) (client.Client, error) {
	tls, err := file.Temporal.TLS.Config()
	if err != nil {
		return nil, err
	}
	options := client.Options{
		HostPort: file.Temporal.Address, Namespace: file.Temporal.Namespace,
		Logger:            log.NewStructuredLogger(slog.New(quiet{logger.Handler()})),
		ConnectionOptions: client.ConnectionOptions{TLS: tls},
	}
	for told := false; ; {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		c, err := client.DialContext(attempt, options)
		cancel()
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !told {
			told = true
			logger.Warn("Temporal cannot be reached; trying on", "address", file.Temporal.Address, "error", err.Error())
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// quiet lets only warnings and worse of the SDK through.
type quiet struct{ slog.Handler }

// Enabled drops what is below a warning.
func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && q.Handler.Enabled(ctx, level)
}

// claim makes the data folder this process's own and returns the worker's id,
// which stays with the folder.
func claim(dir string) (id string, unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("make the data folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", nil, fmt.Errorf("lock the data folder: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return "", nil, fmt.Errorf("data folder %s is in use by another worker: give each its own --data-dir", dir)
	}
	path := filepath.Join(dir, "id")
	b, err := os.ReadFile(path)
	if id = strings.TrimSpace(string(b)); err != nil || id == "" {
		random := make([]byte, 6)
		_, _ = rand.Read(random)
		host, _ := os.Hostname()
		id = host + "-" + hex.EncodeToString(random)
		if err := os.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
			lock.Close()
			return "", nil, fmt.Errorf("keep the worker's id: %w", err)
		}
	}
	return id, func() { lock.Close() }, nil
}

// expose serves the metrics.
func expose(address string, registry *prometheus.Registry, logger *slog.Logger) (shut func(), err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve metrics at %s: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("metrics are not served any more", "error", err.Error())
		}
	}()
	return func() { server.Close(); <-ended }, nil
}
