// Command demo shows Millrace's main job on one machine: a shop under traffic
// arrives in a lake, loses its worker to SIGKILL half-way, and comes out equal.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/deploy/local"
	"github.com/millrace-io/millrace/deploy/local/shop"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := demo{}
	flag.StringVar(&d.bin, "bin", "bin", "folder of millrace and millrace-worker")
	flag.StringVar(&d.dir, "dir", filepath.Join(".local", "demo"), "folder for data and lake")
	flag.DurationVar(&d.traffic, "traffic", 40*time.Second, "how long the shop is under traffic")
	flag.IntVar(&d.rate, "rate", 300, "transactions per second")
	flag.Uint64Var(&d.seed, "seed", 1, "seed of the traffic")
	flag.Parse()
	if err := d.run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

type demo struct {
	bin, dir string
	traffic  time.Duration
	rate     int
	seed     uint64

	fleet  string
	env    []string
	screen screen
	// before and seen are the rows streamed by the workers before this one, and
	// by this one.
	before, seen int64
}

// run tells the story.
func (d *demo) run(ctx context.Context) error {
	var err error
	if d.bin, err = filepath.Abs(d.bin); err != nil {
		return err
	}
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(d.dir, "lake")); err != nil {
		return fmt.Errorf("clear the lake: %w", err)
	}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", d.dir, err)
	}
	say("Starting PostgreSQL, Kafka and Temporal on this machine")
	stack, err := local.Start(ctx, local.Options{UI: true})
	if err != nil {
		return err
	}
	defer stack.Stop()
	say("Temporal's Web UI is at %s while this runs", stack.Temporal.UI)
	if err := d.shop(ctx, stack); err != nil {
		return err
	}
	if err := d.configure(stack); err != nil {
		return err
	}
	if _, err := d.millrace(ctx, "init"); err != nil {
		return err
	}
	say("Starting a worker and applying the fleet file")
	w, err := d.worker(ctx, 1)
	if err != nil {
		return err
	}
	defer func() { w.end(syscall.SIGTERM) }()
	if _, err := d.millrace(ctx, "apply"); err != nil {
		return err
	}

	load := &shop.Load{URL: stack.Postgres.URL("shop"), Seed: d.seed, Rate: d.rate}
	traffic, stopTraffic := context.WithTimeout(ctx, d.traffic)
	defer stopTraffic()
	ended := make(chan error, 1)
	go func() { ended <- load.Run(traffic) }()
	say("The shop is under traffic (seed %d) for %s", d.seed, d.traffic)
	if d.watch(ctx, load, time.After(d.traffic/2)) == nil {
		d.screen.done()
		say("Killing the worker with SIGKILL, pid %d", w.cmd.Process.Pid)
		w.end(syscall.SIGKILL)
		if w, err = d.worker(ctx, 2); err != nil {
			return err
		}
		say("Another worker has started, pid %d", w.cmd.Process.Pid)
	}
	stopped := make(chan time.Time)
	go func() { err = <-ended; close(stopped) }()
	if e := d.watch(ctx, load, stopped); e != nil {
		return e
	}
	d.screen.done()
	if err != nil {
		return err
	}
	say("Traffic has stopped after %d transactions; waiting until everything has arrived", load.Transactions())
	if _, err := d.millrace(ctx, "wait", "shop", "--until", "caught-up", "--timeout", "120s"); err != nil {
		return err
	}
	return d.prove(ctx, stack)
}

// shop makes and fills the source database.
func (d *demo) shop(ctx context.Context, stack *local.Stack) error {
	admin, err := pgx.Connect(ctx, stack.Postgres.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer admin.Close(ctx)
	if _, err := admin.Exec(ctx, `CREATE DATABASE shop`); err != nil {
		return fmt.Errorf("make the shop: %w", err)
	}
	conn, err := pgx.Connect(ctx, stack.Postgres.URL("shop"))
	if err != nil {
		return fmt.Errorf("connect to the shop: %w", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, shop.Schema); err != nil {
		return fmt.Errorf("make the shop's tables: %w", err)
	}
	if err := shop.Fill(ctx, conn, 1); err != nil {
		return err
	}
	say("The shop has %d tables", len(shop.Tables))
	return nil
}

// configure writes the fleet file.
func (d *demo) configure(stack *local.Stack) error {
	d.fleet = filepath.Join(d.dir, "fleet.yaml")
	pg := stack.Postgres
	text := fmt.Sprintf(`region: demo
temporal: {address: %s, heartbeat_timeout: 3s}
kafka: {brokers: [%s]}
allow_insecure: true
lake: file://%s
defaults: {freshness: 2s}
databases:
  shop:
    url: postgres://%s@%s:%d/shop?sslmode=disable
    password: env:SHOP_PASSWORD
    tables: ["public.*"]
`, stack.Temporal.Address, strings.Join(stack.Kafka.Brokers, ", "), filepath.Join(d.dir, "lake"), pg.User, pg.Host, pg.Port)
	d.env = append(os.Environ(), "SHOP_PASSWORD="+pg.Password)
	if err := os.WriteFile(d.fleet, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write the fleet file: %w", err)
	}
	return nil
}

// millrace runs the command line.
func (d *demo) millrace(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "millrace"), append(args, "--fleet", d.fleet)...)
	var stderr strings.Builder
	cmd.Stderr, cmd.Env = &stderr, d.env
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("millrace %s: %w\n%s%s", args[0], err, out, stderr.String())
	}
	return out, nil
}

// worker is a running millrace-worker.
type worker struct {
	cmd *exec.Cmd
	log *os.File
}

func (d *demo) worker(ctx context.Context, n int) (*worker, error) {
	log, err := os.Create(filepath.Join(d.dir, fmt.Sprintf("worker-%d.log", n)))
	if err != nil {
		return nil, fmt.Errorf("open the worker's log: %w", err)
	}
	cmd := exec.Command(filepath.Join(d.bin, "millrace-worker"), "--fleet", d.fleet, "--data-dir", filepath.Join(d.dir, fmt.Sprintf("worker-%d", n)))
	cmd.Stderr, cmd.Env = log, d.env
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the worker: %w", err)
	}
	return &worker{cmd: cmd, log: log}, nil
}

func (w *worker) end(s syscall.Signal) {
	if w.cmd.ProcessState != nil {
		return
	}
	_ = w.cmd.Process.Signal(s)
	_ = w.cmd.Wait()
	_ = w.log.Close()
}

// status is what the screen needs of millrace status --json.
type status struct {
	Databases []struct {
		Phase      string  `json:"phase"`
		LagBytes   int64   `json:"lag_bytes"`
		LagSeconds float64 `json:"lag_seconds"`
		Reason     *struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"reason"`
		Tables []struct {
			Name       string `json:"name"`
			Phase      string `json:"phase"`
			Latest     string `json:"latest"`
			History    string `json:"history"`
			RowsCopied int64  `json:"rows_copied"`
		} `json:"tables"`
		RowsStreamed int64 `json:"rows_streamed"`
	} `json:"databases"`
}

func (d *demo) status(ctx context.Context) (*status, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := d.millrace(ctx, "status", "--json")
	if err != nil && len(out) == 0 {
		return nil, err
	}
	var s status
	if err := json.Unmarshal(out, &s); err != nil {
		return nil, fmt.Errorf("read the status: %w", err)
	}
	if len(s.Databases) == 0 {
		return nil, errors.New("the status names no database")
	}
	return &s, nil
}

// watch shows the status in place until something comes.
func (d *demo) watch(ctx context.Context, load *shop.Load, until <-chan time.Time) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		if s, err := d.status(ctx); err == nil {
			db := &s.Databases[0]
			phases := map[string]int{}
			copied := int64(0)
			for _, t := range db.Tables {
				phases[t.Phase]++
				copied += t.RowsCopied
			}
			if db.RowsStreamed < d.seen {
				d.before += d.seen // another worker counts from zero
			}
			d.seen = db.RowsStreamed
			line := fmt.Sprintf("  %-9s  %d/%d tables live  %d rows copied  %d rows streamed  lag %d B, %.1f s  %d transactions",
				db.Phase, phases["live"], len(db.Tables), copied, d.before+d.seen, db.LagBytes, db.LagSeconds, load.Transactions())
			if db.Reason != nil {
				line += "  " + db.Reason.Code
			}
			d.screen.show(line)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-until:
			return nil
		case <-tick.C:
		}
	}
}

// report is what millrace verify --json says.
type report struct {
	LSN    string `json:"lsn"`
	Tables []struct {
		Table       string   `json:"table"`
		Equal       bool     `json:"equal"`
		Source      int64    `json:"source"`
		History     int64    `json:"history"`
		Latest      int64    `json:"latest"`
		HistoryRows int64    `json:"history_rows"`
		Commits     int64    `json:"commits"`
		Files       int64    `json:"files"`
		Differences []string `json:"differences"`
		Reason      *struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"reason"`
	} `json:"tables"`
}

// prove verifies every table and prints what there is to see.
func (d *demo) prove(ctx context.Context, stack *local.Stack) error {
	out, failed := d.millrace(ctx, "verify", "shop", "--json")
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		return errors.Join(failed, fmt.Errorf("read the proof: %w", err))
	}
	fmt.Printf("\nEvery table against the source at %s: the table rebuilt from history, and latest.\n\n", r.LSN)
	fmt.Printf("  %-20s %8s %8s %8s %8s %7s  %s\n", "table", "source", "latest", "history", "commits", "files", "")
	equal := len(r.Tables) == len(shop.Tables)
	for _, t := range r.Tables {
		verdict := "equal"
		if !t.Equal {
			verdict, equal = "DIFFERS", false
			if t.Reason != nil {
				verdict += " " + t.Reason.Code + ": " + t.Reason.Message
			}
		}
		fmt.Printf("  %-20s %8d %8d %8d %8d %7d  %s\n", t.Table, t.Source, t.Latest, t.HistoryRows, t.Commits, t.Files, verdict)
		for _, line := range t.Differences {
			fmt.Printf("      %s\n", line)
		}
	}
	s, err := d.status(ctx)
	if err != nil {
		return errors.Join(failed, err)
	}
	fmt.Printf("\nTemporal's Web UI was at %s\n", stack.Temporal.UI)
	for _, t := range s.Databases[0].Tables {
		if t.Name != "public.orders" {
			continue
		}
		path := strings.TrimPrefix(t.Latest, "file://")
		fmt.Printf("\nLook at a table:\n  bin/millrace table cat %s\n", t.Latest)
		fmt.Printf("DuckDB:\n  INSTALL delta; LOAD delta; SELECT status, count(*), sum(total) FROM delta_scan('%s') GROUP BY 1;\n", path)
		fmt.Printf("Python:\n  from deltalake import DeltaTable, QueryBuilder\n  QueryBuilder().register(\"t\", DeltaTable(%q)).execute(\"select status, count(*), sum(total) from t group by 1\").read_all()\n", path)
	}
	if failed != nil || !equal {
		return errors.Join(errors.New("not every table was proven equal"), failed)
	}
	fmt.Println("\nNothing lost, nothing twice: every table is equal.")
	return nil
}

// say prints a line of the story.
func say(format string, args ...any) {
	fmt.Printf("• "+format+"\n", args...)
}

// screen is a line that is written over in place; on what is no terminal, a
// line now and then.
type screen struct {
	shown  bool
	last   time.Time
	inited bool
	tty    bool
}

func (s *screen) show(line string) {
	if !s.inited {
		info, err := os.Stdout.Stat()
		s.tty, s.inited = err == nil && info.Mode()&os.ModeCharDevice != 0, true
	}
	switch {
	case s.tty:
		fmt.Printf("\r\x1b[K%s", line)
		s.shown = true
	case time.Since(s.last) > 5*time.Second:
		fmt.Println(line)
		s.last = time.Now()
	}
}

func (s *screen) done() {
	if s.shown {
		fmt.Println()
		s.shown = false
	}
}
