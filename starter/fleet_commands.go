package main

import (
	"errors"
	"io"
	"text/tabwriter"

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

type validateCommand struct{}

// Help shows examples.
func (validateCommand) Help() string {
	return `The file alone is checked; nothing is contacted. What stands in the way at the databases, in Kafka, in the lake and in Temporal says millrace doctor.

Examples:

  millrace validate --fleet fleet.yaml
  millrace validate --json --fleet fleet.yaml | jq '.faults[] | {line, message}'`
}

// verdict is the JSON form of a validation.
type verdict struct {
	Valid  bool    `json:"valid"`
	Faults []fault `json:"faults"`
}

type fault struct {
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Path    string `json:"path"`
	Message string `json:"message"`
}

// Run checks the file.
func (v validateCommand) Run(a *app) error {
	f, err := a.file()
	if err != nil {
		return a.invalid(err)
	}
	if a.json {
		return a.print(verdict{Valid: true, Faults: []fault{}})
	}
	a.printf("%s is valid: %s in region %s, lake %s\n", a.fleet, count(len(f.Databases), "database"), f.Region, f.Lake)
	return nil
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

// columns returns a writer that aligns cells ended by tabs.
func columns(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 8, 2, ' ', 0) }
