package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/starter/control"
	"github.com/millrace-io/millrace/workflows"
)

// printReport writes the status of a fleet: a line for each database, then what
// is parked; with tables, every table of each.
func printReport(w io.Writer, r *control.Report, tables bool, now time.Time) {
	t := columns(w)
	fmt.Fprintln(t, "DATABASE\tPHASE\tLAG\tWAL BEHIND\tTABLES\tPOOL\tWORKERS")
	for _, db := range r.Databases {
		phase := string(db.Phase)
		if db.AgeSeconds > 0 {
			phase += fmt.Sprintf(" (%s ago)", span(db.AgeSeconds))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", db.Name, phase, lag(db.LagSeconds), wal(db.LagBytes),
			tally(db.Tables), dash(db.Pool), dash(strings.Join(db.Workers, " ")))
	}
	flush(t)
	for _, db := range r.Databases {
		if line := holds(db); line != "" {
			fmt.Fprintf(w, "\n%s: %s\n", db.Name, line)
		}
		if db.Reason != nil {
			printReason(w, db.Name, db.Reason, now)
		}
		for _, table := range db.Tables {
			if table.Reason != nil {
				printReason(w, db.Name+"/"+table.Name, table.Reason, now)
			}
		}
	}
	if !tables {
		return
	}
	for _, db := range r.Databases {
		if len(db.Tables) == 0 {
			continue
		}
		fmt.Fprintln(w)
		t := columns(w)
		fmt.Fprintln(t, "TABLE\tPHASE\tCOPIED\tPOSITION\tLATEST\tHISTORY")
		for _, table := range db.Tables {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", table.Name, table.Phase, thousands(table.RowsCopied),
				dash(table.Position), dash(table.Latest), dash(table.History))
		}
		flush(t)
	}
}

// worthWAL is how much WAL a slot that is read may hold, in bytes, and scarce for
// how many hours there has to be room, before the status speaks of it.
const worthWAL, scarce = 1 << 30, 48

// holds says how much WAL the source keeps for a database, where that matters.
func holds(db *control.Database) string {
	w := db.WAL
	if w == nil {
		return ""
	}
	idle := db.Phase == workflows.Parked || db.Phase == workflows.Paused
	if !idle && w.HeldBytes < worthWAL && (w.HoursLeft == nil || *w.HoursLeft > scarce) {
		return ""
	}
	line := "the source holds " + size(w.HeldBytes) + " of WAL"
	if w.GrowthPerHour != nil && *w.GrowthPerHour > 0 {
		line += ", " + size(*w.GrowthPerHour) + " more an hour"
	}
	switch {
	case w.RoomBytes == nil:
		line += "; nothing limits it"
	case w.HoursLeft != nil:
		line += fmt.Sprintf("; room for %s, which is %s", size(*w.RoomBytes), span(*w.HoursLeft*3600))
	default:
		line += "; room for " + size(*w.RoomBytes)
	}
	return line
}

// printReason writes why something does not go on.
func printReason(w io.Writer, what string, r *control.Reason, now time.Time) {
	since := ""
	if at, err := time.Parse(time.RFC3339, r.Since); err == nil {
		since = fmt.Sprintf(" (for %s)", span(now.Sub(at).Seconds()))
	}
	fmt.Fprintf(w, "\n%s: %s%s\n%s\n", what, r.Code, since, indent(r.Message, "  "))
	if r.Remedy != "" {
		fmt.Fprintf(w, "%s\n", indent(r.Remedy, "  > "))
	}
}

// printProof writes a line for each table and, below it, what differs.
func printProof(w io.Writer, r *workflows.VerifyReport) {
	fmt.Fprintf(w, "%s at %s\n", r.Database, r.LSN)
	t := columns(w)
	fmt.Fprintln(t, "TABLE\tRESULT\tSOURCE\tHISTORY\tLATEST\tHASH")
	equal := 0
	for i := range r.Tables {
		p := &r.Tables[i]
		result := "DIFFERS"
		switch {
		case p.Equal:
			result = "equal"
			equal++
		case p.Reason != nil:
			result = "NOT PROVEN"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Table, result, rows(p.Source), rows(p.History), rows(p.Latest), dash(p.Hash))
	}
	flush(t)
	for i := range r.Tables {
		p := &r.Tables[i]
		if p.Reason != nil {
			fmt.Fprintf(w, "\n%s: %s\n%s\n", p.Table, p.Reason.Code, indent(p.Reason.Message, "  "))
			if p.Reason.Remedy != "" {
				fmt.Fprintf(w, "%s\n", indent(p.Reason.Remedy, "  > "))
			}
		}
		if len(p.Differences) > 0 {
			fmt.Fprintf(w, "\n%s:\n%s\n", p.Table, indent(strings.Join(p.Differences, "\n"), "  "))
		}
	}
	fmt.Fprintln(w)
	switch {
	case len(r.Tables) == 0:
		fmt.Fprintln(w, "no table has been copied yet: nothing is proven")
	case equal == len(r.Tables):
		fmt.Fprintf(w, "all %s equal\n", count(len(r.Tables), "table"))
	default:
		fmt.Fprintf(w, "%d of %s equal\n", equal, count(len(r.Tables), "table"))
	}
}

// tally counts tables by phase, in the order of a table's life.
func tally(tables []*control.Table) string {
	var parts []string
	for _, phase := range []workflows.Phase{
		workflows.Live, workflows.CatchingUp, workflows.Copying, workflows.Waiting, workflows.Paused, workflows.Parked, workflows.Gone,
	} {
		n := 0
		for _, t := range tables {
			if t.Phase == phase {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, phase))
		}
	}
	if len(parts) == 0 {
		return "no tables"
	}
	return strings.Join(parts, ", ")
}

// lag writes seconds; a dash where they are not known.
func lag(seconds *float64) string {
	if seconds == nil {
		return "-"
	}
	return span(*seconds)
}

// wal writes bytes; a dash where they are not known.
func wal(n *int64) string {
	if n == nil {
		return "-"
	}
	return size(*n)
}

// span writes seconds for people.
func span(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 10*time.Second:
		return strconv.FormatFloat(math.Round(d.Seconds()*10)/10, 'f', 1, 64) + "s"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + "d"
}

// size writes bytes for people.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f := float64(n)
	i := 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	if i == 0 {
		return strconv.FormatInt(n, 10) + " B"
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + units[i]
}

// rows writes a row count; a dash where there is no such table.
func rows(n int64) string {
	if n < 0 {
		return "-"
	}
	return thousands(n)
}

// thousands writes a number with separators.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	from := 0
	if n < 0 {
		from = 1
	}
	for i := len(s) - 3; i > from; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// dash stands for what is empty.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// indent begins every line of s with prefix.
func indent(s, prefix string) string {
	return prefix + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n"+prefix)
}

// flush ends a table; a standard output that is gone is noticed elsewhere.
func flush(t interface{ Flush() error }) { _ = t.Flush() }

// printRemoved writes what became of a database that was removed.
func printRemoved(w io.Writer, name string, in *workflows.RemoveInput, r *workflows.Removed) {
	isLeft := func(what string) bool {
		return slices.ContainsFunc(r.Left, func(l string) bool { return strings.HasPrefix(l, what+" ") })
	}
	switch {
	case in.Purge && isLeft("lake"):
		fmt.Fprintf(w, "%s is removed; its topics and its tables could not be deleted, or not all of them\n", name)
	case in.Purge:
		fmt.Fprintf(w, "%s is removed, with its topics and its tables\n", name)
	case in.KeepSlot:
		fmt.Fprintf(w, "%s is removed; its slot, its topic and its tables stay\n", name)
	default:
		fmt.Fprintf(w, "%s is removed; its topic and its tables stay\n", name)
	}
	if len(r.Dropped) > 0 {
		fmt.Fprintf(w, "dropped: %s\n", strings.Join(r.Dropped, ", "))
	}
	if len(r.Left) == 0 {
		return
	}
	holds := ""
	if isLeft("slot") {
		holds = "; the source holds WAL for a slot until it is dropped"
	}
	fmt.Fprintf(w, "left behind%s:\n", holds)
	for _, l := range r.Left {
		fmt.Fprintf(w, "  %s\n", l)
	}
}
