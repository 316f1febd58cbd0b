package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Run is one run of this program: the same in every result of a file.
type Run struct {
	At time.Time `json:"at"`
	Machine
	// OtherWork is the largest share of the CPUs, from 0 to 1, that something
	// else used just before a round; negative where that is not known.
	OtherWork float64 `json:"other_work"`
}

// Result is one figure of one run: a line of the file.
type Result struct {
	Run
	Figure string `json:"figure"`
	Title  string `json:"title"`
	// Rows is rows per second.
	Rows Spread `json:"rows_per_second"`
	// CPU is seconds of CPU of the measuring process, servers left out, for a
	// million rows.
	CPU Spread `json:"cpu_seconds_per_million_rows"`
	// Limit is the figure that OfLimit is a share of; empty for a limit.
	Limit string `json:"limit,omitempty"`
	// OfLimit is the median, over the rounds, of what the figure was of its
	// limit's rows per second in the same round.
	OfLimit float64 `json:"of_limit,omitempty"`
	// Mark is what was hoped for, for people; empty where nothing was.
	Mark string `json:"mark,omitempty"`
	// Reached tells whether the median reached the mark; false where there is none.
	Reached bool `json:"reached"`
}

// Spread is what repeated measurements gave.
type Spread struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
	// Samples are in the order in which they were taken.
	Samples []float64 `json:"samples"`
}

func spread(samples []float64) Spread {
	return Spread{Min: slices.Min(samples), Median: median(samples), Max: slices.Max(samples), Samples: samples}
}

// median of at least one number: of an even count, the mean of the middle two.
func median(samples []float64) float64 {
	s := slices.Sorted(slices.Values(samples))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// summarize makes a result of each figure that was measured at all.
func summarize(r Run, rounds [][]sample) []Result {
	var results []Result
	for i := range figures {
		f := &figures[i]
		var rows, cpu, shares []float64
		for _, round := range rounds {
			s, ok := find(round, f.name)
			if !ok {
				continue
			}
			rows, cpu = append(rows, s.rows), append(cpu, s.cpu)
			if limit, ok := find(round, f.limit); ok {
				shares = append(shares, s.rows/limit.rows)
			}
		}
		if len(rows) == 0 {
			continue
		}
		result := Result{Run: r, Figure: f.name, Title: f.title, Rows: spread(rows), CPU: spread(cpu), Limit: f.limit}
		if len(shares) > 0 {
			result.OfLimit = median(shares)
		}
		result.Mark, result.Reached = f.mark.judge(&result)
		results = append(results, result)
	}
	return results
}

// judge says a mark in words and whether a result reaches it.
func (m mark) judge(r *Result) (words string, reached bool) {
	switch {
	case m.rows > 0:
		return "≥ " + thousands(m.rows) + " rows/s", r.Rows.Median >= m.rows
	case m.ofLimit > 0:
		return fmt.Sprintf("≥ %.0f %% of the limit", m.ofLimit*100), r.OfLimit >= m.ofLimit
	}
	return "", false
}

func find(round []sample, figure string) (sample, bool) {
	for _, s := range round {
		if s.figure == figure {
			return s, true
		}
	}
	return sample{}, false
}

// writeResults makes a file of results, a line each.
func writeResults(name string, results []Result) error {
	var b bytes.Buffer
	for i := range results {
		line, err := json.Marshal(&results[i])
		if err != nil {
			return fmt.Errorf("write results: %w", err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("make the folder of results: %w", err)
	}
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}

// readResults reads a file of results.
func readResults(r io.Reader) ([]Result, error) {
	var results []Result
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var one Result
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		results = append(results, one)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(results) == 0 {
		return nil, errors.New("no results in it")
	}
	return results, nil
}
