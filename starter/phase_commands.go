package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/starter/control"
	"github.com/millrace-io/millrace/workflows"
)

type pauseCommand struct {
	Database string   `arg:"" help:"Database."`
	Tables   []string `arg:"" optional:"" name:"table" help:"Tables (schema.table); none means the whole database."`
	Capture  bool     `help:"Stop reading the source too: it then holds its WAL for us."`
}

// Help shows examples.
func (pauseCommand) Help() string {
	return `Stops copying and writing to the lake, for the database or for single tables of it. Changes go on into Kafka, so that the source holds no WAL, and wait there for as long as the topic keeps them.

Examples:
  millrace pause shop --fleet fleet.yaml
  millrace pause shop public.orders --fleet fleet.yaml
  millrace pause shop --capture --fleet fleet.yaml`
}

// Run pauses the database, or tables.
func (c pauseCommand) Run(a *app) error {
	if c.Capture && len(c.Tables) > 0 {
		return usageError("--capture is about the whole database; leave out the tables, or --capture")
	}
	_, client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	accepted, err := client.Pause(a.ctx, c.Database, workflows.PauseInput{Capture: c.Capture, Tables: c.Tables})
	if err != nil {
		return err
	}
	if a.json {
		return a.print(map[string]any{"database": c.Database, "tables": nonNil(c.Tables), "phase": accepted.Phase, "capture": !c.Capture})
	}
	what := "changes still go into Kafka"
	if c.Capture {
		what = "the source holds its WAL until it goes on"
	}
	if len(c.Tables) > 0 {
		words := make([]string, len(c.Tables))
		for i, t := range c.Tables {
			words[i] = activities.ShellWord(t)
		}
		a.printf("%s of %s paused; %s; millrace resume %s %s goes on\n", strings.Join(c.Tables, ", "), c.Database, what, c.Database, strings.Join(words, " "))
		return nil
	}
	a.printf("%s is %s; %s; millrace resume %s goes on\n", c.Database, accepted.Phase, what, c.Database)
	return nil
}

type resumeCommand struct {
	Database string        `arg:"" help:"Database."`
	Tables   []string      `arg:"" optional:"" name:"table" help:"Tables (schema.table); none means the database with all of its tables."`
	Timeout  time.Duration `default:"30s" help:"How long to wait until the database is running or parked."`
}

// Help shows examples.
func (resumeCommand) Help() string {
	return `Goes on with a database that is paused or parked, and with the tables of it that are. With tables it goes on with these alone, and nothing else is interrupted: what a table missed is read from Kafka, and where Kafka has it no longer, it parks with KAFKA_GAP.

Examples:
  millrace resume shop --fleet fleet.yaml
  millrace resume shop public.orders --fleet fleet.yaml`
}

// Run resumes the database, or tables.
func (c resumeCommand) Run(a *app) error {
	began := time.Now()
	if err := positive(c.Timeout); err != nil {
		return err
	}
	_, client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Resume(a.ctx, c.Database, c.Tables); err != nil {
		return err
	}
	return a.settled(client, c.Database, began, c.Timeout)
}

type unparkCommand struct {
	Database string        `arg:"" help:"Database."`
	Tables   []string      `arg:"" optional:"" name:"table" help:"Tables (schema.table); none means everything of the database that is parked."`
	DryRun   bool          `name:"dry-run" help:"Only say what it would do."`
	NewEpoch bool          `name:"new-epoch" help:"Begin with another slot, where the former one's changes are lost: every table is copied again."`
	Yes      bool          `help:"Copy again what has to be copied again."`
	Timeout  time.Duration `default:"30s" help:"How long to wait until the database is running or parked."`
}

// Help shows examples.
func (unparkCommand) Help() string {
	return `Says how each thing that is parked will go on, then lets it: a database is prepared again; a table goes on where it stopped, its latest from history and the rest from Kafka, or is copied again. A copy reads every row at the source, and needs --yes. Nothing else is interrupted.

With --new-epoch the database gets another slot, whether it is parked or not: what the former one, or the topic, has lost is made up for by copying every table again. History stays as it is and goes on; rows that were deleted meanwhile leave latest. Slots of Millrace's own for this database are dropped, and publications and a topic that are gone are made again.

Examples:
  millrace unpark shop --dry-run --fleet fleet.yaml
  millrace unpark shop public.orders --yes --fleet fleet.yaml
  millrace unpark shop --new-epoch --yes --fleet fleet.yaml`
}

// Run says what it will do, and does it.
func (c unparkCommand) Run(a *app) error {
	began := time.Now()
	if err := positive(c.Timeout); err != nil {
		return err
	}
	_, client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	in := workflows.UnparkInput{Tables: c.Tables, NewEpoch: c.NewEpoch, Recopy: c.Yes}
	plan, err := client.Unparking(a.ctx, c.Database, in)
	if err != nil {
		return err
	}
	again := plan.Recopied()
	if refused := !c.DryRun && !c.Yes && len(again) > 0; refused {
		var b strings.Builder
		printUnparking(&b, plan)
		return usageError(fmt.Sprintf("%s would be copied again; add --yes to do it\n%s", count(len(again), "table"), strings.TrimSuffix(b.String(), "\n")))
	}
	switch {
	case a.json && c.DryRun:
		return a.print(plan)
	case !a.json:
		printUnparking(a.stdout, plan)
	}
	if c.DryRun {
		return nil
	}
	if _, err := client.Unpark(a.ctx, c.Database, in, c.Timeout); err != nil {
		return err
	}
	return a.settled(client, c.Database, began, c.Timeout)
}

// ways says in words how something goes on.
var ways = map[string]string{
	workflows.ByPreparing:  "is prepared again, and its tables go on where they stopped",
	workflows.ByCatchingUp: "goes on where it stopped: latest from history, the rest from Kafka",
	workflows.ByCopying:    "is copied, as is due anyway",
	workflows.ByRecopying:  "is copied again, while all others go on",
	workflows.ByNewEpoch:   "gets another slot, in which its tables are copied again",
}

// printUnparking writes how each thing that is parked goes on.
func printUnparking(w io.Writer, plan *workflows.UnparkPlan) {
	for _, s := range plan.Steps {
		what, code := plan.Database, ""
		if s.Table != "" {
			what += "/" + s.Table
		}
		if s.Reason != nil {
			code = " (" + string(s.Reason.Code) + ")"
		}
		rows := ""
		if s.Rows > 0 {
			rows = "; it had " + thousands(s.Rows) + " rows when it was copied last"
		}
		fmt.Fprintf(w, "%s%s %s%s\n", what, code, ways[s.How], rows)
	}
}

type eventsCommand struct {
	Database string `arg:"" help:"Database."`
}

// Help shows examples.
func (eventsCommand) Help() string {
	return `Shows the last hundred changes of phase of a database and its tables, the newest last: when, from what to what, why, and what caused it (a request, a lane or a step).

Examples:
  millrace events shop --fleet fleet.yaml
  millrace events shop --json --fleet fleet.yaml | jq '.events[] | select(.to == "parked")'`
}

// Run prints the events.
func (c eventsCommand) Run(a *app) error {
	_, client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	events, err := client.Events(a.ctx, c.Database)
	if err != nil {
		return err
	}
	if a.json {
		if events == nil {
			events = []workflows.Event{}
		}
		return a.print(map[string]any{"database": c.Database, "events": events})
	}
	printEvents(a.stdout, c.Database, events)
	return nil
}

// printEvents writes a line for each change of phase.
func printEvents(w io.Writer, database string, events []workflows.Event) {
	t := columns(w)
	fmt.Fprintln(t, "TIME\tWHAT\tFROM\tTO\tREASON\tBY")
	for _, e := range events {
		what, why := database, string(e.Code)
		if e.Table != "" {
			what += "/" + e.Table
		}
		if e.Note != "" {
			why += ": " + e.Note
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", e.At, what, dash(string(e.From)), e.To, dash(why), e.By)
	}
	flush(t)
}

// finding is one thing that a check finds wrong.
type finding struct {
	Database string `json:"database"`
	Table    string `json:"table,omitempty"`
	// What is parked, late, or a phase in which nothing is mirrored.
	What       string          `json:"what"`
	LagSeconds *float64        `json:"lag_seconds,omitempty"`
	Reason     *control.Reason `json:"reason,omitempty"`
}

// wrong lists what a report holds that somebody should look at. late is how late
// each database may be.
func wrong(r *control.Report, late func(database string) time.Duration, now time.Time) []finding {
	found := []finding{}
	for _, db := range r.Databases {
		f := finding{Database: db.Name, Reason: db.Reason}
		limit := late(db.Name)
		switch db.Phase {
		case workflows.Parked, control.NotApplied, control.Removed, control.Stopped, control.Unknown:
			f.What = string(db.Phase)
		case workflows.Preparing, workflows.Running:
			since, err := time.Time{}, error(nil)
			if db.Reason != nil {
				since, err = time.Parse(time.RFC3339, db.Reason.Since)
			}
			if behind := db.LagSeconds != nil && *db.LagSeconds > limit.Seconds(); behind {
				f.What, f.LagSeconds = "late", db.LagSeconds
			} else if db.Reason != nil && (err != nil || now.Sub(since) > limit) {
				f.What = "late" // what it waits for keeps it
			}
		}
		if db.AgeSeconds > limit.Seconds() && f.What == "" {
			f.What, f.LagSeconds = "late", &db.AgeSeconds // nobody knows better
		}
		if f.What != "" {
			found = append(found, f)
		}
		for _, t := range db.Tables {
			if t.Phase == workflows.Parked {
				found = append(found, finding{Database: db.Name, Table: t.Name, What: string(t.Phase), Reason: t.Reason})
			}
		}
	}
	return found
}

// check prints what is wrong, and fails where anything is. A worker that is not
// there fails in its own way.
func (a *app) check(r *control.Report, late func(database string) time.Duration, err error) error {
	now := time.Now()
	found := wrong(r, late, now)
	if a.json {
		if err := a.print(map[string]any{"observed_at": r.ObservedAt, "wrong": found}); err != nil {
			return err
		}
	} else {
		printFindings(a.stdout, found, now)
	}
	if err == nil && len(found) > 0 {
		return status(exitError)
	}
	return err
}

// printFindings writes what a check found.
func printFindings(w io.Writer, found []finding, now time.Time) {
	for _, f := range found {
		what := f.Database
		if f.Table != "" {
			what += "/" + f.Table
		}
		by := ""
		if f.LagSeconds != nil {
			by = " by " + span(*f.LagSeconds)
		}
		if f.Reason == nil {
			fmt.Fprintf(w, "%s is %s%s\n", what, f.What, by)
			continue
		}
		since := ""
		if at, err := time.Parse(time.RFC3339, f.Reason.Since); err == nil {
			since = fmt.Sprintf(" for %s", span(now.Sub(at).Seconds()))
		}
		fmt.Fprintf(w, "%s is %s%s: %s%s\n%s\n", what, f.What, by, f.Reason.Code, since, indent(f.Reason.Message, "  "))
		if f.Reason.Remedy != "" {
			fmt.Fprintf(w, "%s\n", indent(f.Reason.Remedy, "  > "))
		}
	}
}
