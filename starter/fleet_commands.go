package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
)

type initCommand struct{}

// Help shows examples.
func (initCommand) Help() string {
	return `Workflows note phase and reasons in search attributes, so that Temporal's own tools find them. Each namespace needs this once; doing it again is harmless.

Examples:

  millrace init --fleet fleet.yaml
  temporal workflow list --query 'MillracePhase="parked"'`
}

// Run registers the search attributes.
func (initCommand) Run(a *app) error {
	f, c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	attributes, err := c.Init(a.ctx)
	if err != nil {
		return err
	}
	if a.json {
		return a.print(map[string]any{"namespace": f.Temporal.Namespace, "search_attributes": attributes})
	}
	for _, at := range attributes {
		state := "present"
		if at.Added {
			state = "added"
		}
		a.printf("%-17s %-12s %s\n", at.Name, at.Type, state)
	}
	a.printf("namespace %q is ready; next: %s apply --fleet %s\n", f.Temporal.Namespace, a.self, a.fleet)
	return nil
}

type validateCommand struct {
	Databases []string `arg:"" optional:"" name:"database" help:"Databases to connect to; none means all."`
	Connect   bool     `help:"Connect to the databases and print the SQL for what is missing."`
}

// Help shows examples.
func (validateCommand) Help() string {
	return `Without --connect nothing is contacted: the file alone is checked. With it, each database is asked from here, with the secrets of this environment; nothing there is changed.

Examples:

  millrace validate --fleet fleet.yaml
  SHOP_PASSWORD=... millrace validate shop --connect --fleet fleet.yaml`
}

// verdict is the JSON form of an offline validation.
type verdict struct {
	Valid  bool    `json:"valid"`
	Faults []fault `json:"faults"`
	// Databases are set with --connect.
	Databases []checked `json:"databases,omitempty"`
}

type fault struct {
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Path    string `json:"path"`
	Message string `json:"message"`
}

// checked is what connecting to one database showed.
type checked struct {
	Name     string               `json:"name"`
	Problems []activities.Problem `json:"problems"`
}

// blocking tells whether the database cannot be mirrored as it is.
func (c *checked) blocking() bool {
	for i := range c.Problems {
		if c.Problems[i].Blocking {
			return true
		}
	}
	return false
}

// Run checks the file and, when asked, the databases.
func (v validateCommand) Run(a *app) error {
	if len(v.Databases) > 0 && !v.Connect {
		return usageError("validate reads the whole file; databases are named for --connect alone")
	}
	f, err := a.file()
	if err != nil {
		return a.invalid(err)
	}
	if !v.Connect {
		if a.json {
			return a.print(verdict{Valid: true, Faults: []fault{}})
		}
		a.printf("%s is valid: %s in region %s, lake %s\n", a.fleet, count(len(f.Databases), "database"), f.Region, f.Lake)
		return nil
	}
	chosen := names(f, v.Databases)
	out := verdict{Valid: true, Faults: []fault{}, Databases: make([]checked, len(chosen))}
	var g sync.WaitGroup
	for i, name := range chosen {
		db, err := f.Database(name)
		if err != nil {
			return err
		}
		g.Go(func() { out.Databases[i] = check(a.ctx, db) })
	}
	g.Wait()
	if err := a.ctx.Err(); err != nil {
		return err
	}
	code := exitOK
	for i := range out.Databases {
		if out.Databases[i].blocking() {
			code = exitError
		}
		if !a.json {
			printChecked(a.stdout, &out.Databases[i])
		}
	}
	if a.json {
		if err := a.print(out); err != nil {
			return err
		}
	}
	if code != exitOK {
		return status(code)
	}
	return nil
}

// connectLimit is how long a source may take to answer.
const connectLimit = 9 * time.Second

// check connects to one database.
func check(ctx context.Context, db *fleet.Database) checked {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	c := checked{Name: db.Name, Problems: []activities.Problem{}}
	problems, err := activities.CheckSource(ctx, *db)
	if err != nil {
		r := activities.Classify(err).Reason.For(db.Name)
		problems = []activities.Problem{{Code: r.Code, Sentence: r.Message, Remedy: r.Remedy, Blocking: true}}
	}
	c.Problems = append(c.Problems, problems...)
	return c
}

// invalid reports a file that could not be read or has faults.
func (a *app) invalid(err error) error {
	var faults fleet.Faults
	if !a.json || !errors.As(err, &faults) {
		return err
	}
	out := verdict{Faults: []fault{}}
	for _, f := range faults {
		out.Faults = append(out.Faults, fault{Line: f.Line, Column: f.Column, Path: f.Path, Message: f.Message})
	}
	if err := a.print(out); err != nil {
		return err
	}
	return status(exitError)
}

// printChecked writes what connecting to one database showed.
func printChecked(w io.Writer, c *checked) {
	switch {
	case len(c.Problems) == 0:
		fmt.Fprintf(w, "%s: ready\n", c.Name)
		return
	case c.blocking():
		fmt.Fprintf(w, "%s: %s; mirroring cannot begin before those marked ! are mended\n", c.Name, count(len(c.Problems), "problem"))
	default:
		fmt.Fprintf(w, "%s: ready, with %s\n", c.Name, count(len(c.Problems), "remark"))
	}
	for i := range c.Problems {
		p := &c.Problems[i]
		mark := " "
		if p.Blocking {
			mark = "!"
		}
		where := ""
		if p.Table != "" && !strings.Contains(p.Sentence, p.Table) {
			where = p.Table + ": "
		}
		fmt.Fprintf(w, " %s %s%s [%s]\n", mark, where, p.Sentence, p.Code)
		if p.Remedy != "" {
			fmt.Fprintf(w, "%s\n", indent(p.Remedy, "       "))
		}
	}
}

// columns returns a writer that aligns cells ended by tabs.
func columns(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 8, 2, ' ', 0) }
