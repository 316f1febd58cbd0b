package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/starter/control"
)

type doctorCommand struct {
	Databases []string `arg:"" optional:"" name:"database" help:"Databases of the file; none means all."`
	Here      bool     `help:"Ask from here, with the secrets of this environment, though workers are there."`
}

// Help shows examples.
func (doctorCommand) Help() string {
	return `Looks at the source, the topic and the lake of every database, side by side, and at Temporal: versions, settings, privileges, publications, identities, slots, open transactions, and what the lake has otherwise than the source. What stands in the way is marked !, and the exit status is then 1; what is a remark alone leaves it 0. Below each stands what mends it, for whom: SQL for a superuser or an owner, settings of the server or of its host. Workers ask, with their secrets; where no worker serves a database, it is asked from here. Nothing is changed, but for an object that is written into the lake and deleted.

Examples:

  millrace doctor --fleet fleet.yaml
  millrace doctor shop --here --fleet fleet.yaml
  millrace doctor --json --fleet fleet.yaml | jq '.databases[] | select(.problems | any(.blocking)) | .name'`
}

// diagnosis is the JSON form of what the doctor found.
type diagnosis struct {
	// Temporal are problems that concern no single database.
	Temporal  []activities.Problem `json:"temporal"`
	Databases []examined           `json:"databases"`
}

// examined is what was found of one database.
type examined struct {
	Name string `json:"name"`
	// Here tells that it was asked from here, not by a worker.
	Here     bool                 `json:"here"`
	Host     string               `json:"host,omitempty"`
	Tables   int                  `json:"tables"`
	Problems []activities.Problem `json:"problems"`
}

// Run examines the databases.
func (d doctorCommand) Run(a *app) error {
	f, err := a.file()
	if err != nil {
		return err
	}
	chosen, err := databases(f, d.Databases)
	if err != nil {
		return err
	}
	if len(chosen) == 0 {
		return fmt.Errorf("%s lists no databases", a.fleet)
	}
	out := diagnosis{Temporal: []activities.Problem{}, Databases: make([]examined, len(chosen))}
	client, err := control.Open(a.ctx, control.Options{File: f, Self: a.self, Worker: a.worker()})
	if err == nil {
		defer client.Close()
		var found []activities.Problem
		found, err = client.DoctorTemporal(a.ctx, chosen)
		out.Temporal = append(out.Temporal, found...)
	}
	if err != nil {
		out.Temporal = append(out.Temporal, activities.Problem{Code: "TEMPORAL_UNREACHABLE", Sentence: err.Error(), Blocking: true})
		client = nil
	}
	var g sync.WaitGroup
	for i, db := range chosen {
		g.Go(func() { out.Databases[i] = d.examine(a, f, client, db) })
	}
	g.Wait()
	if err := a.ctx.Err(); err != nil {
		return err
	}
	if a.json {
		if err := a.print(out); err != nil {
			return err
		}
	} else {
		printDiagnosis(a.stdout, &out)
	}
	if out.blocked() {
		return status(exitError)
	}
	return nil
}

// examine looks at one database: a worker does, or where none is there, this
// process.
func (d doctorCommand) examine(a *app, f *fleet.File, client *control.Client, db *fleet.Database) examined {
	out := examined{Name: db.Name, Here: d.Here || client == nil}
	var found activities.DoctorResult
	var err error
	if !out.Here {
		var idle *control.NoWorkerError
		if found, err = client.Doctor(a.ctx, db); errors.As(err, &idle) {
			out.Here = true
		}
	}
	if out.Here {
		found, err = activities.Examine(a.ctx, f, db)
	}
	if err != nil {
		r := activities.Classify(err).Reason.For(db.Name)
		found.Problems = append(found.Problems, activities.Problem{Code: r.Code, Sentence: r.Message, Remedy: r.Remedy, Blocking: true})
	}
	out.Host, out.Tables = found.Host, found.Tables
	out.Problems = append([]activities.Problem{}, found.Problems...)
	return out
}

// blocked tells whether anything stands in the way.
func (d *diagnosis) blocked() bool {
	if blocks(d.Temporal) > 0 {
		return true
	}
	for i := range d.Databases {
		if blocks(d.Databases[i].Problems) > 0 {
			return true
		}
	}
	return false
}

// blocks counts the problems that stand in the way.
func blocks(problems []activities.Problem) (n int) {
	for i := range problems {
		if problems[i].Blocking {
			n++
		}
	}
	return n
}

// printDiagnosis writes what was found for people.
func printDiagnosis(w io.Writer, d *diagnosis) {
	if len(d.Temporal) > 0 {
		fmt.Fprintf(w, "Temporal: %s\n", verdictOf(d.Temporal))
		printProblems(w, d.Temporal)
	}
	for i := range d.Databases {
		e := &d.Databases[i]
		var about []string
		if e.Host != "" {
			about = append(about, e.Host, count(e.Tables, "table"))
		}
		if e.Here {
			about = append(about, "asked from here")
		}
		text := ""
		if len(about) > 0 {
			text = " (" + strings.Join(about, ", ") + ")"
		}
		fmt.Fprintf(w, "%s%s: %s\n", e.Name, text, verdictOf(e.Problems))
		printProblems(w, e.Problems)
	}
}

// verdictOf counts what was found in words.
func verdictOf(problems []activities.Problem) string {
	blocking := blocks(problems)
	remarks := len(problems) - blocking
	var parts []string
	if blocking > 0 {
		parts = append(parts, fmt.Sprintf("%s in the way (!)", count(blocking, "problem")))
	} else {
		parts = append(parts, "ready")
	}
	if remarks > 0 {
		parts = append(parts, count(remarks, "remark"))
	}
	return strings.Join(parts, ", ")
}

// printProblems writes problems, what blocks first, each with who mends it how.
// Tables with the same trouble share that.
func printProblems(w io.Writer, problems []activities.Problem) {
	sorted := slices.Clone(problems)
	slices.SortStableFunc(sorted, func(a, b activities.Problem) int {
		switch {
		case a.Blocking == b.Blocking:
			return 0
		case a.Blocking:
			return -1
		}
		return 1
	})
	for len(sorted) > 0 {
		n := 1
		for n < len(sorted) && alikeProblems(&sorted[0], &sorted[n]) {
			n++
		}
		var remedies []string
		for i := range sorted[:n] {
			p := &sorted[i]
			mark := " "
			if p.Blocking {
				mark = "!"
			}
			where := ""
			if p.Table != "" && !strings.Contains(p.Sentence, p.Table) {
				where = p.Table + ": "
			}
			fmt.Fprintf(w, " %s %s%s [%s]\n", mark, where, p.Sentence, p.Code)
			if p.Remedy != "" && !slices.Contains(remedies, p.Remedy) {
				remedies = append(remedies, p.Remedy)
			}
		}
		if by := sorted[0].By; by != "" && len(remedies) > 0 {
			fmt.Fprintf(w, "     for %s:\n", by)
		}
		for _, r := range remedies {
			fmt.Fprintf(w, "%s\n", indent(r, "       "))
		}
		sorted = sorted[n:]
	}
}

// alikeProblems tells that two tables have the same trouble, mended by the same.
func alikeProblems(a, b *activities.Problem) bool {
	return a.Table != "" && b.Table != "" && a.Code == b.Code && a.By == b.By && a.Blocking == b.Blocking
}
