package main

import "fmt"

// figure is work that a contender does: a Go benchmark, and what it reports.
type figure struct {
	// name is the figure's, in results.
	name string
	// workload is what is done and contender what does it, for people.
	workload, contender string
	// benchmark is the Go benchmark in pkg, a folder below the repository.
	pkg, benchmark string
	metrics        []metric
}

// metric is one thing that a benchmark reports.
type metric struct {
	unit string
	// peer is the figure whose same metric this one is held against: one that it
	// cannot pass, or what another program makes of the same work. It is empty
	// where there is none.
	peer string
	// marks are what is hoped for on two cores. They are shown, never enforced:
	// machines differ.
	marks []mark
}

// mark bounds a metric, or with ofPeer what it is of its peer's, from below or
// from above. Zero is no bound.
type mark struct {
	least, most float64
	ofPeer      bool
}

// figuresAt returns the figures in the order of the table. A scale multiplies the
// sizes of tables, and with them marks of seconds; marks of memory are those of the
// full size.
func figuresAt(scale float64) []figure {
	memory := func(mib float64) []mark {
		if scale < 1 {
			return nil
		}
		return []mark{{most: mib}}
	}
	const copied, slot = "copy of 500,000 rows", "slot of 500,000 rows"
	upserts := fmt.Sprintf("%s upserts into %s rows", thousands(100_000*scale), thousands(10_000_000*scale))
	many := fmt.Sprintf("%s upserts into %s rows", thousands(600_000*scale), thousands(60_000_000*scale))
	tenfold := fmt.Sprintf("%s upserts into %s rows", thousands(10_000*scale), thousands(10_000_000*scale))
	index := fmt.Sprintf("index of %s rows", thousands(10_000_000*scale))
	const log = "log of 300,000 files"
	peers := []metric{{unit: "s"}, {unit: "cpu-s"}, {unit: "peak-MiB"}, {unit: "written-MB"}}
	return []figure{
		{"copy_limit", copied, "COPY to nowhere", "activities", "BenchmarkCopyToNowhere", []metric{
			{unit: "rows/s"}, {unit: "cpu-s/Mrow"},
		}},
		{"copy", copied, "into Delta", "activities", "BenchmarkCopy", []metric{
			{unit: "rows/s", peer: "copy_limit", marks: []mark{{least: 0.20, ofPeer: true}}}, {unit: "cpu-s/Mrow"},
		}},
		{"decode_limit", slot, "decoded alone", "activities", "BenchmarkDecode", []metric{
			{unit: "rows/s"}, {unit: "cpu-s/Mrow"},
		}},
		{"capture", slot, "into Kafka", "activities", "BenchmarkCapture", []metric{
			{unit: "rows/s", peer: "decode_limit", marks: []mark{{least: 100_000}}}, {unit: "cpu-s/Mrow"},
		}},
		{"whole_way", slot, "the whole way", "activities", "BenchmarkWholeWay", []metric{
			{unit: "rows/s", peer: "decode_limit", marks: []mark{{least: 30_000}}}, {unit: "cpu-s/Mrow"},
		}},
		{"upsert", upserts, "deltalog", "deltalog", "BenchmarkUpserts/deltalog", []metric{
			{unit: "s", peer: "upsert_delta_rs", marks: []mark{{most: 3 * scale}, {most: 0.20, ofPeer: true}}},
			{unit: "cpu-s", peer: "upsert_delta_rs"},
			{unit: "peak-MiB", peer: "upsert_delta_rs", marks: memory(700)},
			{unit: "written-MB", peer: "upsert_spark", marks: []mark{{most: 1.5, ofPeer: true}}},
		}},
		{"upsert_delta_rs", upserts, "delta-rs", "deltalog", "BenchmarkUpserts/delta-rs", peers},
		{"upsert_spark", upserts, "Spark", "deltalog", "BenchmarkUpserts/Spark", peers},
		{"upsert_many", many, "deltalog", "deltalog", "BenchmarkManyUpserts/deltalog", []metric{
			{unit: "s", peer: "upsert_many_delta_rs", marks: []mark{{most: 15 * scale}, {most: 0.20, ofPeer: true}}},
			{unit: "cpu-s", peer: "upsert_many_delta_rs"},
			{unit: "peak-MiB", peer: "upsert_many_delta_rs", marks: memory(1024)},
			{unit: "written-MB", peer: "upsert_many_delta_rs"},
		}},
		{"upsert_many_delta_rs", many, "delta-rs", "deltalog", "BenchmarkManyUpserts/delta-rs", peers},
		{"tenfold", tenfold, "beside a tenth of the rows", "deltalog", "BenchmarkUpsertIntoTenfold", []metric{
			{unit: "times", marks: []mark{{most: 1.5}}}, {unit: "times-cpu"},
		}},
		{"append", "append of 1,000,000 rows", "on one core", "deltalog", "BenchmarkAppendOrders", []metric{
			{unit: "MB/cpu-s", marks: []mark{{least: 100}}}, {unit: "MB/s"},
		}},
		{"index", index, "built anew", "deltalog", "BenchmarkIndexOrders", []metric{
			{unit: "rows/s", marks: []mark{{least: 2_000_000}}}, {unit: "rows/cpu-s"}, {unit: "peak-MiB"},
		}},
		{"log", log, "300 commits", "deltalog", "BenchmarkOpenLargeLog/json/300-commits", openingLog},
		{"log_many_commits", log, "3,000 commits", "deltalog", "BenchmarkOpenLargeLog/json/3000-commits", openingLog},
		{"log_checkpoint", log, "checkpoint", "deltalog", "BenchmarkOpenLargeLog/checkpoint", openingLog},
	}
}

var openingLog = []metric{
	{unit: "s", marks: []mark{{most: 5}}}, {unit: "cpu-s"}, {unit: "peak-MiB", marks: []mark{{most: 600}}},
}
