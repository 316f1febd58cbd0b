package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/starter/control"
	"github.com/millrace-io/millrace/workflows"
)

type applyCommand struct {
	Databases []string      `arg:"" optional:"" name:"database" help:"Databases of the file; none means all."`
	Yes       bool          `help:"Let tables leave the mirror that the file leaves out; the lake keeps them."`
	Timeout   time.Duration `default:"30s" help:"How long to wait until each database is running or parked."`
}

// Help shows examples.
func (applyCommand) Help() string {
	return `Does what plan shows, one database after the other: starts the workflow of each, or gives the running one its new configuration, and waits until it is running or parked. One that fails leaves the others applied; the exit status is then 1. The request is kept where no worker is there yet. What is parked is tried again.

Examples:

  millrace plan && millrace apply --fleet fleet.yaml
  millrace apply shop --timeout 2m --fleet fleet.yaml
  millrace apply shop --yes --fleet fleet.yaml   # tables may leave the mirror`
}

// Run applies the file's databases.
func (c applyCommand) Run(a *app) error {
	if err := positive(c.Timeout); err != nil {
		return err
	}
	f, client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	chosen, err := databases(f, c.Databases)
	if err != nil {
		return err
	}
	if len(chosen) == 0 {
		return fmt.Errorf("%s lists no databases", a.fleet)
	}
	if err := client.Initialised(a.ctx); err != nil {
		return err
	}
	survey, err := client.Survey(a.ctx)
	if err != nil {
		return err
	}
	out := a.outcomes()
	for _, db := range chosen {
		if err := c.apply(a, client, survey, db, out); err != nil {
			return err
		}
	}
	return out.end(len(chosen))
}

// apply applies one database. Its error ends the command; what is the database's
// own goes to the outcomes.
func (c applyCommand) apply(a *app, client *control.Client, survey *control.Survey, db *fleet.Database, out *outcomes) error {
	began := time.Now()
	var idle *control.NoWorkerError
	p, err := client.PlanDatabase(a.ctx, survey, db, false)
	if a.ctx.Err() != nil {
		return a.ctx.Err()
	}
	switch {
	case err != nil && !errors.As(err, &idle):
		out.fail(db.Name, exitError, err)
		return nil
	case p.Refused != "":
		out.fail(db.Name, exitError, errors.New(p.Refused))
		return nil
	case p.NeedsYes && !c.Yes:
		out.fail(db.Name, exitError, fmt.Errorf("not applied: %s; apply it with --yes", leaving(p)))
		return nil
	}
	if err := client.Carry(a.ctx, db, p, c.Yes); err != nil {
		out.fail(db.Name, exitError, err)
		return a.ctx.Err()
	}
	if idle != nil {
		out.fail(db.Name, exitNoWorker, fmt.Errorf("%w; the request for %s is kept and carried out once a worker is there", idle, db.Name))
		return nil
	}
	survey.Unserved(out.settle(client, db.Name, time.Until(began.Add(c.Timeout)), c.Timeout))
	return a.ctx.Err()
}

// leaving says which tables leave a mirror.
func leaving(p *control.DatabasePlan) string {
	var names []string
	for i := range p.Tables {
		if p.Tables[i].Act == workflows.DropTable {
			names = append(names, p.Tables[i].Name)
		}
	}
	text := strings.Join(names[:min(len(names), 5)], ", ")
	if n := len(names) - 5; n > 0 {
		text += fmt.Sprintf(" and %d others", n)
	}
	return text + " would leave the mirror and the publication (the lake keeps what it has)"
}

// outcomes gather what became of databases, one after the other.
type outcomes struct {
	a      *app
	report control.Report
	failed []string
	code   int
}

func (a *app) outcomes() *outcomes {
	return &outcomes{a: a, report: control.Report{ObservedAt: time.Now().UTC().Format(time.RFC3339), Databases: []*control.Database{}}}
}

// fail notes that something went wrong with a database.
func (o *outcomes) fail(name string, code int, err error) {
	o.a.notef("millrace: %s: %v\n", name, err)
	o.failed = append(o.failed, name)
	o.code = max(o.code, code)
}

// settle waits for a database for what is left of a limit, and says what became
// of it. Its error is why that is not known; it has been said.
func (o *outcomes) settle(client *control.Client, name string, left, limit time.Duration) error {
	db, err := client.Settle(o.a.ctx, name, left, func(r *control.Reason) { o.a.notef("millrace: %s is preparing: %s\n", name, r) })
	var idle *control.NoWorkerError
	switch {
	case o.a.ctx.Err() != nil:
		return err
	case errors.As(err, &idle):
		o.fail(name, exitNoWorker, fmt.Errorf("%w; the request for %s is kept and carried out once a worker is there", err, name))
		return err
	case err != nil:
		o.fail(name, exitError, err)
		return err
	}
	o.report.Databases = append(o.report.Databases, db)
	if err := outcome(db, limit); err != nil {
		o.a.notef("millrace: %v\n", err)
		o.failed = append(o.failed, name)
		o.code = max(o.code, exitError)
	} else if !o.a.json {
		o.a.printf("%s\n", describe(db))
	}
	return nil
}

// settled waits for one database, for a limit that began then, and returns the
// command's error.
func (a *app) settled(client *control.Client, name string, began time.Time, limit time.Duration) error {
	out := a.outcomes()
	_ = out.settle(client, name, time.Until(began.Add(limit)), limit)
	if err := a.ctx.Err(); err != nil {
		return err
	}
	return out.end(1)
}

// end says what became of all and returns the command's error.
func (o *outcomes) end(n int) error {
	if o.a.json {
		if err := o.a.print(o.report); err != nil {
			return err
		}
	}
	if len(o.failed) > 0 && n > 1 {
		o.a.notef("millrace: %d of %d databases are as the file says; not: %s\n", n-len(o.failed), n, strings.Join(o.failed, ", "))
	}
	if o.code != exitOK {
		return status(o.code)
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
	Database string        `arg:"" help:"Database, in the file or not."`
	Table    string        `arg:"" optional:"" help:"None: a table leaves a mirror by the patterns of the file."`
	Yes      bool          `help:"Really do it."`
	KeepSlot bool          `help:"Leave slot and publications, for a mirror that goes on in another region with the same topic and lake."`
	Purge    bool          `help:"Delete the database's folder in the lake and its topics, too."`
	Force    bool          `help:"Go on where something cannot be reached, the database or what is to be purged, and print what stays behind."`
	Timeout  time.Duration `default:"60s" help:"How long to wait until it is done."`
}

// Help shows examples.
func (removeCommand) Help() string {
	return `Ends a mirror and drops the slot and the publications that Millrace made at the source. The topic and the tables in the lake stay, unless --purge. With --keep-slot the source keeps its WAL until the mirror goes on elsewhere.

Examples:

  millrace remove shop --yes --fleet fleet.yaml
  millrace remove shop --yes --keep-slot --fleet fleet.yaml   # then: apply, with the file of another region
  millrace remove shop --yes --purge --fleet fleet.yaml       # the lake's tables, too
  millrace remove shop --yes --force --fleet fleet.yaml       # the database is gone`
}

// Run removes the database.
func (c removeCommand) Run(a *app) error {
	if err := positive(c.Timeout); err != nil {
		return err
	}
	switch {
	case c.Table != "":
		return usageError(fmt.Sprintf("a table leaves a mirror by the file: add \"!%s\" to tables of %s, see what that means with plan, then: millrace apply %s --yes", c.Table, c.Database, c.Database))
	case c.KeepSlot && c.Purge:
		return usageError("--keep-slot is for a mirror that goes on elsewhere with the same topic and lake, which --purge would delete; choose one")
	case !c.Yes:
		return usageError(fmt.Sprintf("remove ends the mirror of %s%s; add --yes to do it", c.Database, c.fate()))
	}
	_, client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	in := workflows.RemoveInput{Force: c.Force, KeepSlot: c.KeepSlot, Purge: c.Purge}
	removed, err := client.Remove(a.ctx, c.Database, in, c.Timeout)
	if err != nil {
		if !c.Force && !isUsual(err) {
			return fmt.Errorf("%w; it goes on trying; where the database cannot be reached any more, add --force", err)
		}
		return err
	}
	if a.json {
		return a.print(map[string]any{"database": c.Database, "dropped": nonNil(removed.Dropped), "left": nonNil(removed.Left)})
	}
	printRemoved(a.stdout, c.Database, &in, &removed)
	return nil
}

// fate says what becomes of what the mirror has made.
func (c *removeCommand) fate() string {
	switch {
	case c.KeepSlot:
		return " and leaves slot and publications, topic and lake"
	case c.Purge:
		return ", drops its slot and publications, and deletes its topics and its folder in the lake"
	}
	return " and drops its slot and publications (topic and lake stay)"
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
