// Command millrace starts, asks and tells the workflows that mirror databases,
// and looks into the tables that they write, and tends them.
//
// Its exit status is 0 for success, 1 for an error or a goal that was not
// reached, 2 for wrong usage, and 3 where no worker serves the queue that is
// asked.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/starter/control"
)

// Exit statuses.
const (
	exitOK       = 0
	exitError    = 1
	exitUsage    = 2
	exitNoWorker = 3
)

// commands is the command line.
type commands struct {
	Fleet string `default:"fleet.yaml" env:"MILLRACE_FLEET" placeholder:"FILE" help:"Fleet file; fleet.yaml in this folder unless given."`
	JSON  bool   `name:"json" help:"Print JSON where there is something to read."`

	Init     initCommand     `cmd:"" help:"Register Millrace's search attributes with Temporal."`
	Validate validateCommand `cmd:"" help:"Check the fleet file."`
	Doctor   doctorCommand   `cmd:"" help:"Check databases, Kafka, lake and Temporal, and print what mends each fault."`
	Explain  explainCommand  `cmd:"" help:"Show what the fleet file says about a table, and which line says it."`
	Plan     planCommand     `cmd:"" help:"Show what apply would do, and what that costs."`
	Apply    applyCommand    `cmd:"" help:"Start mirroring, or change how: what plan shows."`
	Status   statusCommand   `cmd:"" help:"Show phases, lag, tables and what is parked."`
	Wait     waitCommand     `cmd:"" help:"Wait until tables are live, or until the lake has caught up."`
	Pause    pauseCommand    `cmd:"" help:"Stop writing a database, or some of its tables, to the lake; the source holds no WAL."`
	Resume   resumeCommand   `cmd:"" help:"Go on with what is paused or parked."`
	Unpark   unparkCommand   `cmd:"" help:"Go on with what is parked, and say how first."`
	Events   eventsCommand   `cmd:"" help:"Show the last changes of phase, with their reasons."`
	Remove   removeCommand   `cmd:"" help:"End a mirror; its topic and its tables stay, unless --purge."`
	Verify   verifyCommand   `cmd:"" help:"Prove tables equal to their source."`
	Table    tableCommand    `cmd:"" help:"Look into any Delta table, and tend it."`
}

const description = `Mirrors PostgreSQL databases into Delta tables, through Kafka, as Temporal workflows.

Examples:

  millrace init --fleet fleet.yaml        # once for a Temporal namespace
  millrace doctor --fleet fleet.yaml      # what stands in the way, and what mends it
  millrace plan --fleet fleet.yaml        # what apply would do
  millrace apply --fleet fleet.yaml       # start mirroring every database
  millrace status --fleet fleet.yaml
  millrace wait shop --until caught-up --fleet fleet.yaml
  millrace table cat file:///var/lib/lake/shop/public/orders/latest

Exit status: 0 success, 1 error or goal not reached, 2 wrong usage, 3 no worker.`

// app is what every command works with.
type app struct {
	ctx    context.Context
	stdout io.Writer
	stderr io.Writer
	// self is how the command line was called.
	self string
	// fleet is the path of the fleet file.
	fleet string
	json  bool
}

// status ends a command with an exit status, after what it had to say was said.
type status int

// Error is never printed.
func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError is wrong usage that the parser cannot see.
type usageError string

// Error returns the sentence.
func (e usageError) Error() string { return string(e) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args, os.Stdout, os.Stderr))
}

// run carries out one command line and returns its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var line commands
	helped := false
	parser, err := kong.New(&line,
		kong.Name("millrace"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	)
	if err != nil {
		fmt.Fprintf(stderr, "millrace: %v\n", err)
		return exitError
	}
	words := args[1:]
	if len(words) == 0 {
		words = []string{"--help"}
	}
	parsed, err := parser.Parse(words)
	if helped {
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "millrace: %v\nmillrace --help shows the commands; millrace COMMAND --help shows one with examples\n", err)
		return exitUsage
	}
	a := &app{ctx: ctx, stdout: stdout, stderr: stderr, self: args[0], fleet: line.Fleet, json: line.JSON}
	return a.exit(parsed.Run(a))
}

// exit prints an error, once, and returns its exit status.
func (a *app) exit(err error) int {
	var (
		code  status
		usage usageError
		idle  *control.NoWorkerError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case a.ctx.Err() != nil:
		fmt.Fprintln(a.stderr, "millrace: interrupted")
		return exitError
	}
	fmt.Fprintf(a.stderr, "millrace: %v\n", err)
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &idle):
		return exitNoWorker
	}
	return exitError
}

// printf writes to standard output.
func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.stdout, format, args...) }

// notef writes to standard error.
func (a *app) notef(format string, args ...any) { fmt.Fprintf(a.stderr, format, args...) }

// print writes v as JSON.
func (a *app) print(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// file reads the fleet file. Its faults are counted after they are listed.
func (a *app) file() (*fleet.File, error) {
	f, err := fleet.Load(a.fleet)
	var faults fleet.Faults
	switch {
	case errors.As(err, &faults):
		return nil, fmt.Errorf("%s has %s\n%w", a.fleet, count(len(faults), "fault"), faults)
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%w; name it with --fleet FILE", err)
	case err != nil:
		return nil, err
	}
	return f, nil
}

// connect reads the fleet file and connects to its Temporal. The caller closes
// the client.
func (a *app) connect() (*fleet.File, *control.Client, error) {
	f, err := a.file()
	if err != nil {
		return nil, nil, err
	}
	c, err := control.Open(a.ctx, control.Options{File: f, Self: a.self, Worker: a.worker()})
	if err != nil {
		return nil, nil, err
	}
	return f, c, nil
}

// worker is how the worker beside this program is called.
func (a *app) worker() string {
	beside := filepath.Join(filepath.Dir(a.self), "millrace-worker")
	if filepath.Base(a.self) == a.self {
		return "millrace-worker"
	}
	return beside
}

// names returns the databases that a command is about: those named, or all of
// the file.
func names(f *fleet.File, given []string) []string {
	if len(given) > 0 {
		return given
	}
	all := make([]string, len(f.Databases))
	for i := range f.Databases {
		all[i] = f.Databases[i].Name
	}
	return all
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// positive checks a --timeout.
func positive(d time.Duration) error {
	if d <= 0 {
		return usageError("--timeout needs a duration such as 30s")
	}
	return nil
}
