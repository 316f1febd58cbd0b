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
	// Scale is what sizes were multiplied by.
	Scale float64 `json:"scale"`
	// Rounds is how often was measured.
	Rounds int `json:"rounds"`
}

// Result is one metric of one figure of one run: a line of the file.
type Result struct {
	Run
	Figure    string `json:"figure"`
	Workload  string `json:"workload"`
	Contender string `json:"contender"`
	Unit      string `json:"unit"`
	// Values is nil where nothing was measured.
	Values *Spread `json:"values,omitempty"`
	// Peer is the figure, and PeerContender its contender, whose same metric
	// OfPeer is a share of; empty where there is none.
	Peer          string `json:"peer,omitempty"`
	PeerContender string `json:"peer_contender,omitempty"`
	// OfPeer is the median, over the rounds, of what this was of its peer's in the
	// same round; zero where either was not measured.
	OfPeer float64 `json:"of_peer,omitempty"`
	Marks  []Mark  `json:"marks,omitempty"`
}

// Mark is what was hoped for.
type Mark struct {
	// Words are for people.
	Words string `json:"words"`
	// Reached tells whether the median is that, or OfPeer; nil where that was not
	// measured.
	Reached *bool `json:"reached,omitempty"`
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

// summarize makes a result of each metric of the figures, also of those that were
// not measured.
func summarize(r Run, figures []figure, rounds [][]sample) []Result {
	var results []Result
	for _, f := range figures {
		for _, m := range f.metrics {
			result := Result{Run: r, Figure: f.name, Workload: f.workload, Contender: f.contender, Unit: m.unit, Peer: m.peer}
			var values, shares []float64
			for _, round := range rounds {
				v, ok := find(round, f.name, m.unit)
				if !ok {
					continue
				}
				values = append(values, v)
				if p, ok := find(round, m.peer, m.unit); ok {
					shares = append(shares, v/p)
				}
			}
			if len(values) > 0 {
				all := spread(values)
				result.Values = &all
			}
			if len(shares) > 0 {
				result.OfPeer = median(shares)
			}
			if at := slices.IndexFunc(figures, func(o figure) bool { return o.name == m.peer }); at >= 0 {
				result.PeerContender = figures[at].contender
			}
			for _, mark := range m.marks {
				result.Marks = append(result.Marks, mark.judge(&result))
			}
			results = append(results, result)
		}
	}
	return results
}

// judge says a mark in words and whether a result reaches it.
func (m mark) judge(r *Result) Mark {
	bound, sign := m.least, "≥"
	if m.most > 0 {
		bound, sign = m.most, "≤"
	}
	words, value := fmt.Sprintf("%s %s %s", sign, short(bound), inWords(r.Unit)), 0.0
	if m.ofPeer {
		words, value = fmt.Sprintf("%s %s of %s", sign, percent(bound), r.PeerContender), r.OfPeer
	} else if r.Values != nil {
		value = r.Values.Median
	}
	judged := Mark{Words: words}
	if value > 0 {
		reached := value >= m.least && (m.most == 0 || value <= m.most)
		judged.Reached = &reached
	}
	return judged
}

// find returns a value of a round, if it was measured.
func find(round []sample, figure, unit string) (v float64, ok bool) {
	for _, s := range round {
		if s.figure == figure {
			v, ok = s.values[unit]
			return v, ok
		}
	}
	return 0, false
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
