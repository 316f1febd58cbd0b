package main

import (
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

	rows := [][]string{
		{"figure", "rows/s: min", "median", "max", "CPU-s per M rows: min", "median", "max", "of limit", "mark"},
	}
	for i := range results {
		x := &results[i]
		share, verdict := "", x.Mark
		if x.OfLimit > 0 {
			share = fmt.Sprintf("%.0f %%", x.OfLimit*100)
		}
		if x.Mark != "" {
			verdict += ": missed"
			if x.Reached {
				verdict = x.Mark + ": reached"
			}
		}
		rows = append(rows, []string{
			x.Title, thousands(x.Rows.Min), thousands(x.Rows.Median), thousands(x.Rows.Max),
			seconds(x.CPU.Min), seconds(x.CPU.Median), seconds(x.CPU.Max), share, verdict,
		})
	}
	align(&b, rows)
	rounds := "1 round"
	if n := len(results[0].Rows.Samples); n > 1 {
		rounds = strconv.Itoa(n) + " rounds"
	}
	fmt.Fprintf(&b, "\n%s; CPU of the measuring process, servers left out; shares are medians of those within a round\n", rounds)
	_, err := io.WriteString(w, b.String())
	return err
}

// align writes a table as Markdown has it, with columns of one width: the first
// and the last begin at the left, numbers end at the right.
func align(b *strings.Builder, rows [][]string) {
	last := len(rows[0]) - 1
	width := make([]int, last+1)
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for n, row := range rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i > 0 && i < last {
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
			if i > 0 && i < last {
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

// seconds writes seconds of CPU with two decimals.
func seconds(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }
