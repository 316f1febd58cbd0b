package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/starter/control"
	"github.com/millrace-io/millrace/workflows"
)

type planCommand struct {
	Databases []string `arg:"" optional:"" name:"database" help:"Databases of the file; none means all, and those that run and are not in it."`
}

// Help shows examples.
func (planCommand) Help() string {
	return `Shows what apply would do, as a difference to what runs, and what that costs: copies, with the rows that the source's catalog estimates, and pauses of seconds. Workers ask the sources; nothing is changed anywhere.

Examples:

  millrace plan --fleet fleet.yaml
  millrace plan shop --json --fleet fleet.yaml | jq '.databases[] | {name, action, copied, rows}'`
}

// Run prints the plan.
func (c planCommand) Run(a *app) error {
	f, client, err := a.connect()
	if err != nil {
		return err
	}
	defer client.Close()
	chosen, err := databases(f, c.Databases)
	if err != nil {
		return err
	}
	plan, err := client.Plan(a.ctx, chosen, len(c.Databases) == 0)
	if plan == nil {
		return err
	}
	if a.json {
		if perr := a.print(plan); perr != nil {
			return perr
		}
	} else {
		printPlan(a.stdout, plan)
	}
	return err
}

// databases returns the databases that a command is about: those named, or all
// of the file.
func databases(f *fleet.File, given []string) ([]*fleet.Database, error) {
	var chosen []*fleet.Database
	for _, name := range names(f, given) {
		db, err := f.Database(name)
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, db)
	}
	return chosen, nil
}

// marks are the signs of a difference.
var marks = map[control.Action]string{
	control.AddDatabase: "+", control.ChangeDatabase: "~", control.KeepDatabase: " ", control.OrphanDatabase: "-", control.UnknownDatabase: "?",
}

// printPlan writes a plan for people.
func printPlan(w io.Writer, plan *control.Plan) {
	counts := map[control.Action]int{}
	for _, p := range plan.Databases {
		printDatabasePlan(w, p)
		counts[p.Action]++
	}
	var parts []string
	for _, c := range []struct {
		action control.Action
		text   string
	}{
		{control.AddDatabase, "to add"},
		{control.ChangeDatabase, "to change"},
		{control.KeepDatabase, "unchanged"},
		{control.UnknownDatabase, "not known"},
		{control.OrphanDatabase, "not in the file"},
	} {
		if n := counts[c.action]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, c.text))
		}
	}
	if len(parts) == 0 {
		parts = []string{"no databases"}
	}
	fmt.Fprintf(w, "region %s: %s\n", plan.Region, strings.Join(parts, ", "))
}

// printDatabasePlan writes the difference of one database.
func printDatabasePlan(w io.Writer, p *control.DatabasePlan) {
	fmt.Fprintf(w, "%s %s: %s\n", marks[p.Action], p.Name, summary(p))
	line := func(format string, args ...any) { fmt.Fprintf(w, "    "+format+"\n", args...) }
	if p.Refused != "" {
		line("refused: %s", p.Refused)
	}
	for _, c := range p.Changes {
		note := ""
		switch {
		case c.Key == "pool":
			note = "   moves to other workers"
		case c.Cost == fleet.CostCopy:
			note = "   every table is copied"
		case c.Cost == fleet.CostPark:
			note = "   parks the database unless the topic is like that, too"
		}
		line("~ %s%s", difference(&c.Change), note)
	}
	for _, g := range alike(p.Tables) {
		line("%s", g)
	}
	for _, problem := range p.Problems {
		mark := "note"
		if problem.Blocking {
			mark = "in the way"
		}
		line("%s: %s [%s]", mark, problem.Sentence, problem.Code)
		if problem.Remedy != "" {
			fmt.Fprintln(w, indent(problem.Remedy, "      "))
		}
	}
	for _, n := range p.Notes {
		line("%s", n)
	}
	if p.Reason != nil {
		line("not asked: %s", p.Reason)
	}
	if p.NeedsYes {
		line("tables leave the mirror and the publication; the lake keeps what it has: millrace apply %s --yes", p.Name)
	}
}

// summary says in a few words what becomes of a database and what it costs.
func summary(p *control.DatabasePlan) string {
	switch p.Action {
	case control.OrphanDatabase:
		return "runs, and is not in the file"
	case control.UnknownDatabase:
		return "runs, and could not be asked"
	case control.KeepDatabase:
		return fmt.Sprintf("%s, unchanged", p.Phase)
	}
	var parts []string
	if p.Action == control.AddDatabase {
		parts = append(parts, "is added in pool "+p.Pool)
	} else {
		parts = append(parts, string(p.Phase))
	}
	if p.Paused {
		parts = append(parts, "a pause of seconds")
	}
	switch {
	case p.Copied > 0:
		parts = append(parts, fmt.Sprintf("a copy of %s, %s", count(p.Copied, "table"), estimate(p.Rows, p.Bytes, p.Unestimated)))
	case p.Reason == nil && len(p.Tables) > 0:
		parts = append(parts, "no copy")
	}
	return strings.Join(parts, ", ")
}

// estimate writes how much is to be copied.
func estimate(rows, bytes int64, unknown int) string {
	if rows == 0 && unknown > 0 {
		return size(bytes) + ", rows not known"
	}
	text := fmt.Sprintf("about %s, %s", countOf(rows, "row"), size(bytes))
	if unknown > 0 {
		text += fmt.Sprintf(", %s of them not analysed", thousands(int64(unknown)))
	}
	return text
}

// countOf writes a large number with its noun.
func countOf(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return thousands(n) + " " + noun + "s"
}

// difference writes a change.
func difference(c *fleet.Change) string {
	return fmt.Sprintf("%s: %s -> %s", c.Key, dash(c.Old), dash(c.New))
}

// shownTables is how many tables of a kind are named.
const shownTables = 20

// alike writes what becomes of tables, a line each; those that change in the
// same way without a copy share one.
func alike(tables []workflows.PlannedTable) []string {
	var lines []string
	same := map[string]int{} // the line of those that change alike
	names := map[string][]string{}
	hidden := map[workflows.TableAct]int{}
	seen := map[workflows.TableAct]int{}
	for i := range tables {
		t := &tables[i]
		if t.Act == workflows.ChangeTable && !t.Copied {
			key := differences(t.Changes)
			if _, ok := same[key]; !ok {
				same[key] = len(lines)
				lines = append(lines, "")
			}
			names[key] = append(names[key], t.Name)
			continue
		}
		if seen[t.Act]++; seen[t.Act] > shownTables {
			hidden[t.Act]++
			continue
		}
		switch {
		case t.Act == workflows.DropTable:
			lines = append(lines, "- "+t.Name+"   leaves the mirror")
		case t.Act == workflows.AddTable && t.Copied:
			lines = append(lines, "+ "+t.Name+"   copy of "+estimateOf(t))
		case t.Act == workflows.AddTable:
			lines = append(lines, "+ "+t.Name+"   goes on where the lake stands")
		default:
			lines = append(lines, "~ "+t.Name+"   "+differences(t.Changes)+"   copy of "+estimateOf(t))
		}
	}
	for key, at := range same {
		who := strings.Join(names[key], ", ")
		if n := len(names[key]); n > 3 {
			who = fmt.Sprintf("%s and %d others", names[key][0], n-1)
		}
		lines[at] = "~ " + who + "   " + key
	}
	for _, act := range []workflows.TableAct{workflows.AddTable, workflows.ChangeTable, workflows.DropTable} {
		if n := hidden[act]; n > 0 {
			lines = append(lines, fmt.Sprintf("… and %s to %s; --json lists all", count(n, "other table"), act))
		}
	}
	return lines
}

// estimateOf writes how much of one table is to be copied.
func estimateOf(t *workflows.PlannedTable) string {
	unknown := 0
	if t.Rows < 0 {
		unknown = 1
	}
	return estimate(max(t.Rows, 0), t.Bytes, unknown)
}

// differences writes changes in a line.
func differences(changes []fleet.Change) string {
	parts := make([]string, len(changes))
	for i := range changes {
		parts[i] = difference(&changes[i])
	}
	return strings.Join(parts, ", ")
}
