package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/starter/control"
	"github.com/millrace-io/millrace/workflows"
)

type applyCommand struct {
	Databases []string      `arg:"" optional:"" name:"database" help:"Databases of the file; none means all."`
	Timeout   time.Duration `default:"30s" help:"How long to wait until the database is running or parked."`
}

// Help shows examples.
func (applyCommand) Help() string {
	return `Starts the workflow of each database, or gives the running one its new configuration, and waits until it is running or parked. The request is kept where no worker is there yet. What is parked is tried again.

Examples:

  millrace apply --fleet fleet.yaml
  millrace apply shop --timeout 2m --fleet fleet.yaml`
}

// Run applies the file's databases.
func (c applyCommand) Run(a *app) error {
	began := time.Now()
	if err := positive(c.Timeout); err != nil {
		return err
	}
	f, client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	chosen := names(f, c.Databases)
	if len(chosen) == 0 {
		return fmt.Errorf("%s lists no databases", a.fleet)
	}
	for _, name := range chosen {
		if _, err := f.Database(name); err != nil {
			return err
		}
	}
	for _, name := range chosen {
		db, err := f.Database(name)
		if err != nil {
			return err
		}
		if err := client.Apply(a.ctx, db); err != nil {
			return err
		}
	}
	return a.settle(client, chosen, began, c.Timeout)
}

// settle waits for databases, all at once, for as much as is left of the limit
// of a command that began then, and says what became of each.
func (a *app) settle(client *control.Client, chosen []string, began time.Time, limit time.Duration) error {
	report := control.Report{ObservedAt: time.Now().UTC().Format(time.RFC3339), Databases: []*control.Database{}}
	settled := make([]*control.Database, len(chosen))
	errs := make([]error, len(chosen))
	var g sync.WaitGroup
	var notes sync.Mutex
	for i, name := range chosen {
		g.Go(func() {
			settled[i], errs[i] = client.Settle(a.ctx, name, time.Until(began.Add(limit)), func(r *control.Reason) {
				notes.Lock()
				defer notes.Unlock()
				a.notef("millrace: %s is preparing: %s\n", name, r)
			})
		})
	}
	g.Wait()
	if err := a.ctx.Err(); err != nil {
		return err
	}
	code := exitOK
	for i, name := range chosen {
		var idle *control.NoWorkerError
		switch {
		case errors.As(errs[i], &idle):
			a.notef("millrace: %v; the request for %s is kept and carried out once a worker is there\n", errs[i], name)
			code = exitNoWorker
			continue
		case errs[i] != nil:
			a.notef("millrace: %s: %v\n", name, errs[i])
			code = max(code, exitError)
			continue
		}
		report.Databases = append(report.Databases, settled[i])
		if err := outcome(settled[i], limit); err != nil {
			a.notef("millrace: %v\n", err)
			code = max(code, exitError)
		} else if !a.json {
			a.printf("%s\n", describe(settled[i]))
		}
	}
	if a.json {
		if err := a.print(report); err != nil {
			return err
		}
	}
	if code != exitOK {
		return status(code)
	}
	return nil
}

// outcome is the error of a database that did not get going.
func outcome(db *control.Database, limit time.Duration) error {
	switch db.Phase {
	case workflows.Running, workflows.Paused:
		return nil
	case workflows.Preparing:
		if db.Reason != nil {
			return fmt.Errorf("%s is still preparing after %s: %s", db.Name, limit, db.Reason)
		}
		return fmt.Errorf("%s is still preparing after %s; millrace status %s shows how it goes on", db.Name, limit, db.Name)
	}
	if db.Reason != nil {
		return fmt.Errorf("%s is %s: %s", db.Name, db.Phase, db.Reason)
	}
	return fmt.Errorf("%s is %s", db.Name, db.Phase)
}

// describe is the line for a database that got going.
func describe(db *control.Database) string {
	line := fmt.Sprintf("%s is %s: %s", db.Name, db.Phase, tally(db.Tables))
	if db.Phase == workflows.Paused {
		line += fmt.Sprintf("; millrace resume %s goes on", db.Name)
	}
	for _, t := range db.Tables {
		if t.Phase == workflows.Parked && t.Reason != nil {
			line += fmt.Sprintf("\n  %s is parked: %s", t.Name, t.Reason)
		}
	}
	return line
}

type statusCommand struct {
	Databases []string      `arg:"" optional:"" name:"database" help:"Databases to show table by table; none means a summary of all."`
	Check     bool          `help:"Print only what is wrong, and exit with 1 where anything is."`
	Late      time.Duration `help:"How late is wrong, with --check; 3 times the freshness, and at least 60s, unless given."`
}

// Help shows examples.
func (statusCommand) Help() string {
	return `Shows each database's phase, how late the lake is, and for what is parked why, since when and what mends it. With --check it prints what is parked, late, or not mirrored at all, and nothing where all is well. Where no worker answers, it shows what Temporal alone knows, with its age, and exits with 3.

Examples:

  millrace status --fleet fleet.yaml
  millrace status shop --fleet fleet.yaml
  millrace status --check --late 5m --fleet fleet.yaml || page-somebody
  millrace status --json --fleet fleet.yaml | jq '.databases[] | {name, phase, lag_seconds}'`
}

// Run prints the status.
func (c statusCommand) Run(a *app) error {
	if c.Late < 0 || c.Late > 0 && !c.Check {
		return usageError("--late needs --check and a duration such as 5m")
	}
	f, client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	for _, name := range c.Databases {
		// A name that the file does not hold may still have a workflow.
		if _, err := f.Database(name); err != nil && !client.Exists(a.ctx, name) {
			return err
		}
	}
	report, err := client.Status(a.ctx, names(f, c.Databases))
	if report == nil {
		return err
	}
	if c.Check {
		return a.check(report, c.lateness(f), err)
	}
	if a.json {
		if perr := a.print(report); perr != nil {
			return perr
		}
	} else {
		printReport(a.stdout, report, len(c.Databases) > 0, time.Now())
	}
	return err
}

// lateness returns how late each database may be before that is wrong.
func (c statusCommand) lateness(f *fleet.File) func(database string) time.Duration {
	return func(name string) time.Duration {
		db, err := f.Database(name)
		switch {
		case c.Late > 0:
			return c.Late
		case err != nil:
			return time.Minute
		}
		return max(3*db.Defaults().Freshness, time.Minute)
	}
}

type waitCommand struct {
	Database string        `arg:"" help:"Database."`
	Until    string        `default:"caught-up" enum:"live,caught-up" help:"Goal: live (every table copied) or caught-up."`
	Timeout  time.Duration `default:"60s" help:"How long to wait."`
}

// Help shows examples.
func (waitCommand) Help() string {
	return `Until caught-up, everything that was committed at the source when this was called can be read from the lake: after it, you read your own writes. It fails, naming it, when something parked or paused is in the way.

Examples:

  millrace wait shop --until live --timeout 10m --fleet fleet.yaml
  psql shop -c 'update orders ...' && millrace wait shop --fleet fleet.yaml`
}

// Run waits for the goal.
func (c waitCommand) Run(a *app) error {
	if err := positive(c.Timeout); err != nil {
		return err
	}
	_, client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	start := time.Now()
	w, err := client.Wait(a.ctx, c.Database, c.Until, c.Timeout)
	if err != nil {
		return err
	}
	took := time.Since(start).Round(time.Millisecond)
	if a.json {
		if err := a.print(map[string]any{
			"database": c.Database, "until": c.Until, "reached": w.Reached, "why": w.Why, "seconds": took.Seconds(),
		}); err != nil {
			return err
		}
	}
	switch {
	case !w.Reached:
		return fmt.Errorf("%s is not %s: %s", c.Database, c.Until, w.Why)
	case !a.json:
		a.printf("%s is %s, after %s\n", c.Database, c.Until, took)
	}
	return nil
}

type removeCommand struct {
	Database string        `arg:"" help:"Database."`
	Yes      bool          `help:"Really do it."`
	Force    bool          `help:"Go on where the database cannot be reached, and print what stays behind there."`
	Timeout  time.Duration `default:"60s" help:"How long to wait until it is done."`
}

// Help shows examples.
func (removeCommand) Help() string {
	return `Ends a mirror and drops the slot and the publications that Millrace made at the source. The topic and the tables in the lake stay.

Examples:

  millrace remove shop --yes --fleet fleet.yaml
  millrace remove shop --yes --force --fleet fleet.yaml   # the database is gone`
}

// Run removes the database.
func (c removeCommand) Run(a *app) error {
	if err := positive(c.Timeout); err != nil {
		return err
	}
	if !c.Yes {
		return usageError(fmt.Sprintf("remove ends the mirror of %s and drops its slot and publications (topic and lake stay); add --yes to do it", c.Database))
	}
	_, client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	removed, err := client.Remove(a.ctx, c.Database, c.Force, c.Timeout)
	if err != nil {
		if !c.Force && !isUsual(err) {
			return fmt.Errorf("%w; it goes on trying; where the database cannot be reached any more, add --force", err)
		}
		return err
	}
	if a.json {
		return a.print(map[string]any{"database": c.Database, "dropped": nonNil(removed.Dropped), "left": nonNil(removed.Left)})
	}
	printRemoved(a.stdout, c.Database, &removed)
	return nil
}

// isUsual tells whether an error has its advice already.
func isUsual(err error) bool {
	var idle *control.NoWorkerError
	return errors.As(err, &idle) || errors.Is(err, control.ErrNotApplied)
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

type verifyCommand struct {
	Database string        `arg:"" help:"Database."`
	Tables   []string      `arg:"" optional:"" name:"table" help:"Tables (schema.table); none means all."`
	Timeout  time.Duration `default:"1h" help:"How long to wait for the proof."`
}

// Help shows examples.
func (verifyCommand) Help() string {
	return `Reads each table at one exact point of the source and compares it with the table rebuilt from history as of that point, and the latest table with history. Says what differs, with up to ten keys, and exits with 1.

Examples:

  millrace verify shop --fleet fleet.yaml
  millrace verify shop public.orders public.customers --fleet fleet.yaml`
}

// Run proves tables.
func (c verifyCommand) Run(a *app) error {
	if err := positive(c.Timeout); err != nil {
		return err
	}
	_, client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	report, err := client.Verify(a.ctx, c.Database, c.Tables, c.Timeout)
	if err != nil {
		return err
	}
	if a.json {
		err = a.print(struct {
			Equal bool `json:"equal"`
			*workflows.VerifyReport
		}{report.Equal(), report})
		if err != nil {
			return err
		}
	} else {
		printProof(a.stdout, report)
	}
	if !report.Equal() {
		return status(exitError)
	}
	return nil
}
