package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// sample is one measurement of one figure.
type sample struct {
	figure string
	// values are by unit, without those that a benchmark could not tell.
	values map[string]float64
}

// parse reads what a test binary printed about the benchmarks of some figures
// (https://go.dev/design/14313-benchmark-format). Lines that are no results are
// passed over: a result may stand below its name, when the benchmark wrote
// something in between. Benchmarks that are no figure are an error, and so are
// results without a unit that is looked for.
func parse(figures []figure, output string) ([]sample, error) {
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
		values, ok := readMetrics(words[1:])
		if !ok {
			continue
		}
		at := slices.IndexFunc(figures, func(f figure) bool { return f.benchmark == pending })
		if at < 0 {
			return nil, fmt.Errorf("%s is no figure", pending)
		}
		s := sample{figure: figures[at].name, values: map[string]float64{}}
		for _, m := range figures[at].metrics {
			v, ok := values[m.unit]
			if !ok {
				return nil, fmt.Errorf("%s reported no %s", pending, m.unit)
			}
			if v > 0 {
				s.values[m.unit] = v
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
