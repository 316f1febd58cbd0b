package main

import (
	"fmt"
	"strconv"
	"strings"
)

// Units that benchmarks report.
const (
	unitRows = "rows/s"
	unitCPU  = "cpu-s/Mrow"
)

// sample is one measurement of one figure.
type sample struct {
	figure string
	// rows per second.
	rows float64
	// cpu is seconds of CPU for a million rows.
	cpu float64
}

// parse reads what a test binary printed about its benchmarks
// (https://go.dev/design/14313-benchmark-format). Lines that are no results are
// passed over: a result may stand below its name, when the benchmark wrote
// something in between. Benchmarks that are no figure are an error, and so are
// results that lack a unit.
func parse(output string) ([]sample, error) {
	var samples []sample
	pending := ""
	for line := range strings.Lines(output) {
		words := strings.Fields(line)
		if len(words) > 0 && strings.HasPrefix(words[0], "Benchmark") {
			pending, words = benchmarkName(words[0]), words[1:]
		}
		if pending == "" || len(words) < 3 {
			continue
		}
		if _, err := strconv.Atoi(words[0]); err != nil {
			continue
		}
		metrics, ok := readMetrics(words[1:])
		if !ok {
			continue
		}
		f, ok := figureOf(pending)
		if !ok {
			return nil, fmt.Errorf("%s is no figure", pending)
		}
		s := sample{figure: f.name, rows: metrics[unitRows], cpu: metrics[unitCPU]}
		for unit, v := range map[string]float64{unitRows: s.rows, unitCPU: s.cpu} {
			if v <= 0 {
				return nil, fmt.Errorf("%s reported no %s", pending, unit)
			}
		}
		samples = append(samples, s)
		pending = ""
	}
	return samples, nil
}

// benchmarkName takes the number of processors from a name such as
// BenchmarkCopy-2.
func benchmarkName(s string) string {
	if i := strings.LastIndexByte(s, '-'); i > 0 {
		if _, err := strconv.Atoi(s[i+1:]); err == nil {
			return s[:i]
		}
	}
	return s
}

// readMetrics reads pairs of a value and its unit.
func readMetrics(words []string) (metrics map[string]float64, ok bool) {
	if len(words)%2 != 0 {
		return nil, false
	}
	metrics = make(map[string]float64)
	for i := 0; i < len(words); i += 2 {
		v, err := strconv.ParseFloat(words[i], 64)
		if err != nil {
			return nil, false
		}
		metrics[words[i+1]] = v
	}
	return metrics, true
}
