package main

// figure is one thing that is measured: a Go benchmark that reports rows/s and
// cpu-s/Mrow.
type figure struct {
	// name is the figure's, in results.
	name string
	// title is for people.
	title string
	// benchmark is the Go benchmark in pkg, a folder below the repository.
	pkg, benchmark string
	// limit is the figure that this one is held against: one that it cannot pass,
	// or what another program makes of the same work. It is empty for a limit.
	limit string
	mark  mark
}

// mark is what a figure is hoped to reach on two cores. The zero value is no
// mark. It is shown, never enforced: machines differ.
type mark struct {
	// rows is rows per second; zero means none.
	rows float64
	// ofLimit is a share of the limit, above 1 where that is another program's;
	// zero means none.
	ofLimit float64
}

// figures are in the order of the table.
var figures = []figure{
	{name: "copy_limit", title: "COPY to nowhere", pkg: "activities", benchmark: "BenchmarkCopyToNowhere"},
	{name: "copy", title: "copy into Delta", pkg: "activities", benchmark: "BenchmarkCopy", limit: "copy_limit", mark: mark{ofLimit: 0.20}},
	{name: "decode_limit", title: "decode alone", pkg: "activities", benchmark: "BenchmarkDecode"},
	{name: "capture", title: "capture into Kafka", pkg: "activities", benchmark: "BenchmarkCapture", limit: "decode_limit", mark: mark{rows: 100_000}},
	{name: "whole_way", title: "the whole way", pkg: "activities", benchmark: "BenchmarkWholeWay", limit: "decode_limit", mark: mark{rows: 30_000}},
	{name: "merge_delta_rs", title: "merge by delta-rs", pkg: "deltalog", benchmark: "BenchmarkMergeOfDeltaRS"},
	{name: "upsert", title: "the same upserted", pkg: "deltalog", benchmark: "BenchmarkUpsertOfMerge", limit: "merge_delta_rs", mark: mark{ofLimit: 5}},
}

// figureOf returns the figure that a benchmark measures.
func figureOf(benchmark string) (*figure, bool) {
	for i := range figures {
		if figures[i].benchmark == benchmark {
			return &figures[i], true
		}
	}
	return nil, false
}
