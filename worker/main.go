// Command millrace-worker serves the lanes of a fleet: it runs the workflows
// and carries out their steps.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/workflows"
)

// flags are the command line.
type flags struct {
	Fleet   string   `required:"" placeholder:"FILE" help:"Fleet file; region, temporal, kafka and allow_insecure are read from it."`
	Pool    []string `default:"default" help:"Pools to serve; repeatable."`
	Lanes   []string `default:"control,capture,copy,commit" help:"Lanes to serve: control, capture, copy, commit."`
	DataDir string   `name:"data-dir" default:"" placeholder:"DIR" help:"Key indexes, temporary files and the worker's id. Default: millrace in the user's cache folder. No two workers share one."`
	Memory  bytes    `default:"1GiB" help:"Budget for rows in memory."`
	Metrics string   `default:"" placeholder:"HOST:PORT" help:"Serve Prometheus metrics at this address, such as 127.0.0.1:9464."`
}

// bytes is a size on the command line: a number and B, KiB, MiB, GiB or TiB.
type bytes int64

// UnmarshalText reads sizes such as 512MiB.
func (b *bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	unit := int64(1)
	for i, suffix := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if number, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = number, 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(strings.TrimSuffix(s, "B"), 10, 64)
	if err != nil || n <= 0 || n > (1<<62)/unit {
		return fmt.Errorf("bad size %q: want a number and a unit, such as 512MiB", text)
	}
	*b = bytes(n * unit)
	return nil
}

const usage = 2

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	var f flags
	parser := kong.Must(&f, kong.Name("millrace-worker"),
		kong.Description("Serves the lanes of a Millrace fleet. On SIGTERM it returns every lane at a transaction boundary and exits.\n\nExample:\n  millrace-worker --fleet fleet.yaml --memory 2GiB --metrics 127.0.0.1:9464"),
		kong.Exit(os.Exit))
	if _, err := parser.Parse(args); err != nil {
		fmt.Fprintf(os.Stderr, "millrace-worker: %v\nRun millrace-worker --help for usage.\n", err)
		return usage
	}
	for _, lane := range f.Lanes {
		if !slices.Contains(workflows.Lanes, lane) {
			fmt.Fprintf(os.Stderr, "millrace-worker: unknown lane %q: want some of %s\n", lane, strings.Join(workflows.Lanes, ","))
			return usage
		}
	}
	file, err := fleet.Load(f.Fleet)
	if err != nil {
		fmt.Fprintf(os.Stderr, "millrace-worker: %v\n", err)
		return 1
	}
	if f.DataDir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			fmt.Fprintf(os.Stderr, "millrace-worker: find the user's cache folder: %v\nGive --data-dir.\n", err)
			return 1
		}
		f.DataDir = filepath.Join(cache, "millrace", "worker")
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err = serve(ctx, &f, file, log)
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintf(os.Stderr, "millrace-worker: %v\n", err)
		return 1
	}
	return 0
}
