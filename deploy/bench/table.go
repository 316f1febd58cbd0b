package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// printTable writes where and when was measured, and a line for each figure.
func printTable(w io.Writer, results []Result) error {
	r := &results[0].Run
	commit := r.Commit
	if commit == "" {
		commit = "unknown"
	}
	if r.Changed {
		commit += " with changes"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, commit %s\n", r.At.Format("2006-01-02 15:04 UTC"), commit)
	fmt.Fprintf(&b, "%d cores, %s, %.0f GiB of memory, %s; %s, PostgreSQL %s\n", r.Cores, r.CPUModel, float64(r.MemoryBytes)/(1<<30), r.OS, r.Go, r.PostgreSQL)
	if r.OtherWork >= quiet {
		fmt.Fprintf(&b, "NOT QUIET: something else used up to %.0f %% of the CPUs\n", r.OtherWork*100)
	}
	b.WriteByte('\n')

	rows := [][]string{{"workload", "contender", "unit", "min", "median", "max", "of peer", "mark"}}
	for i := range results {
		rows = append(rows, line(&results[i]))
		// What stands above is not said again.
		if i > 0 && results[i].Workload == results[i-1].Workload {
			rows[i+1][0] = ""
			if results[i].Contender == results[i-1].Contender {
				rows[i+1][1] = ""
			}
		}
	}
	align(&b, rows, 3, 6)
	rounds := "1 round"
	if r.Rounds != 1 {
		rounds = strconv.Itoa(r.Rounds) + " rounds"
	}
	fmt.Fprintf(&b, "\n%s at scale %s; CPU and memory of the measuring process, servers left out; shares are medians of those within a round\n",
		rounds, strconv.FormatFloat(r.Scale, 'g', -1, 64))
	_, err := io.WriteString(w, b.String())
	return err
}

// unitWords are the units of benchmarks as people read them; others stay as they are.
var unitWords = map[string]string{
	"cpu-s": "CPU-s", "cpu-s/Mrow": "CPU-s per M rows", "peak-MiB": "MiB at peak", "written-MB": "MB written",
	"MB/cpu-s": "MB per CPU-s", "rows/cpu-s": "rows per CPU-s", "times": "times as long", "times-cpu": "times the CPU",
}

func inWords(unit string) string { return cmp.Or(unitWords[unit], unit) }

// line is a result's row of the table; of what was not measured cells are blank.
func line(r *Result) []string {
	cells := []string{r.Workload, r.Contender, inWords(r.Unit), "", "", "", "", ""}
	if r.Values != nil {
		cells[3], cells[4], cells[5] = number(r.Values.Min), number(r.Values.Median), number(r.Values.Max)
	}
	if r.OfPeer > 0 {
		cells[6] = percent(r.OfPeer) + " of " + r.PeerContender
	}
	var marks []string
	for _, m := range r.Marks {
		words := m.Words
		if m.Reached != nil && *m.Reached {
			words += ": reached"
		} else if m.Reached != nil {
			words += ": missed"
		}
		marks = append(marks, words)
	}
	cells[7] = strings.Join(marks, "; ")
	return cells
}

// align writes a table as Markdown has it, with columns of one width: those from
// one on and before another hold numbers, which end at the right.
func align(b *strings.Builder, rows [][]string, from, before int) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for n, row := range rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i >= from && i < before {
				cell = pad + cell
			} else {
				cell += pad
			}
			b.WriteString("| " + cell + " ")
		}
		b.WriteString("|\n")
		if n > 0 {
			continue
		}
		for i := range row {
			rule := strings.Repeat("-", width[i]+1)
			if i >= from && i < before {
				b.WriteString("|" + rule + ":")
			} else {
				b.WriteString("|-" + rule)
			}
		}
		b.WriteString("|\n")
	}
}

// thousands writes a whole number in groups of three.
func thousands(v float64) string {
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// number writes a value of any size with three digits or more.
func number(v float64) string {
	switch {
	case v >= 100:
		return thousands(v)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

// percent writes a share.
func percent(share float64) string { return strconv.FormatFloat(share*100, 'f', 0, 64) + " %" }

// short writes a round number.
func short(v float64) string {
	if v >= 1000 {
		return thousands(v)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
