package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/millrace-io/millrace/activities/fleet"
)

type explainCommand struct {
	Database string `arg:"" help:"Database of the file."`
	Table    string `arg:"" help:"Table, as schema.table."`
}

// Help shows examples.
func (explainCommand) Help() string {
	return `Prints what the fleet file says about a table, key by key, and which place of it decides: a rule, the database, the defaults, or Millrace's own default. Nothing is contacted: whether there is such a table, the source knows.

Examples:

  millrace explain shop public.prices --fleet fleet.yaml
  millrace explain shop public.prices --json --fleet fleet.yaml | jq '.values[] | select(.from != "default")'`
}

// Run explains one table.
func (c explainCommand) Run(a *app) error {
	schema, table, err := fleet.ParseTable(c.Table)
	if err != nil {
		return usageError(err.Error())
	}
	f, err := a.file()
	if err != nil {
		return err
	}
	db, err := f.Database(c.Database)
	if err != nil {
		return err
	}
	e := db.Explain(schema, table)
	if a.json {
		return a.print(e)
	}
	printExplanation(a.stdout, filepath.Base(a.fleet), e)
	return nil
}

// printExplanation writes what holds for a table, and why.
func printExplanation(w io.Writer, file string, e *fleet.Explanation) {
	place := func(line int) string {
		if line == 0 {
			return ""
		}
		return fmt.Sprintf(" (%s:%d)", file, line)
	}
	switch {
	case e.Mirrored:
		fmt.Fprintf(w, "%s of %s is mirrored, by %q%s\n\n", e.Table, e.Database, e.Pattern, place(e.Line))
	case e.Pattern != "":
		fmt.Fprintf(w, "%s of %s is not mirrored, by %q%s; if it were:\n\n", e.Table, e.Database, e.Pattern, place(e.Line))
	default:
		fmt.Fprintf(w, "%s of %s is not mirrored: no pattern of its tables fits; if it were:\n\n", e.Table, e.Database)
	}
	t := columns(w)
	fmt.Fprintln(t, "KEY\tVALUE\tFROM")
	for _, v := range e.Values {
		from := string(v.From)
		if len(v.Tables) > 0 {
			from += " for " + strings.Join(v.Tables, ", ")
		}
		fmt.Fprintf(t, "%s\t%s\t%s%s\n", v.Key, dash(v.Value), from, place(v.Line))
	}
	flush(t)
}
