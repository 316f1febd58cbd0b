package workflows

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// detailed is how many bytes of details Temporal's Web UI shows of a workflow at
// most, less some room.
const detailed = 3900

// inLife is the order of a table's phases in which they are counted.
var inLife = []Phase{Waiting, Copying, CatchingUp, Live, Paused, Parked, Gone}

// details says in Markdown how a database is: phase and counts, why it does not
// get on, and a table of its tables: those that are parked, with the command
// that makes them go on, those that are paused, and then the largest as long as
// they fit.
func (s *State) details() string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**", s.Phase)
	for _, p := range inLife {
		if n := s.count(p); n > 0 {
			fmt.Fprintf(&b, " · %d %s", n, p)
		}
	}
	if r := s.reason(); r != nil {
		fmt.Fprintf(&b, "\n\n**%s** %s", r.Code, shorten(r.Message, 1000))
		if r.Remedy != "" {
			fmt.Fprintf(&b, "\n\n```\n%s\n```", shortRemedy(r.Remedy, 600))
		}
	}
	tables := make([]*TableState, 0, len(s.Tables))
	for i := range s.Tables {
		if t := &s.Tables[i]; t.Phase != Gone {
			tables = append(tables, t)
		}
	}
	slices.SortFunc(tables, func(a, b *TableState) int {
		return cmp.Or(urgency(a)-urgency(b), cmp.Compare(b.Rows, a.Rows), cmp.Compare(a.Name, b.Name))
	})
	for i, t := range tables {
		line := t.line()
		if i == 0 {
			line = "\n\n| table | phase | rows copied | |\n|---|---|---|---|" + line
		}
		if more := fmt.Sprintf("\n\n… and %d more", len(tables)-i); b.Len()+len(line)+len(more) > detailed {
			b.WriteString(more)
			break
		}
		b.WriteString(line)
	}
	return b.String()
}

// urgency is where a table stands among others.
func urgency(t *TableState) int {
	switch t.Phase {
	case Parked:
		return 0
	case Paused:
		return 1
	}
	return 2
}

// line is a table's line in the details.
func (t *TableState) line() string {
	why := ""
	if r := t.Reason; r != nil {
		remedy, command := "", r.Remedy
		if i := strings.LastIndexByte(r.Remedy, '\n'); i >= 0 {
			remedy, command = r.Remedy[:i], r.Remedy[i+1:]
		}
		why = cell(string(r.Code) + ": " + shorten(r.Message, 300))
		if remedy != "" {
			why += ". " + cell(shorten(remedy, 200))
		}
		why += " → `" + strings.ReplaceAll(cell(command), "`", "'") + "`"
	}
	return fmt.Sprintf("\n| %s | %s | %d | %s |", cell(t.Name), t.Phase, t.Rows, why)
}

// cell makes a text fit into a cell of a Markdown table.
func cell(text string) string {
	return strings.NewReplacer("\r", "", "\n", " ", "|", `\|`).Replace(text)
}
