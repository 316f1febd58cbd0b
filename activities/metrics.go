package activities

import "github.com/prometheus/client_golang/prometheus"

// metrics are what a worker counts, each by database.
type metrics struct {
	rows, bytes             *prometheus.CounterVec // by stage: copy, publish, commit
	commits, files, retries *prometheus.CounterVec
	lagBytes, lagSeconds    *prometheus.GaugeVec // lagSeconds by stage
	walHeld, parked         *prometheus.GaugeVec
	memory                  prometheus.GaugeFunc
}

func newMetrics(r prometheus.Registerer, budget *Budget) *metrics {
	db := []string{"database"}
	stage := []string{"database", "stage"}
	counter := func(name, help string, labels []string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "millrace", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels []string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "millrace", Name: name, Help: help}, labels)
	}
	m := &metrics{
		rows:       counter("rows_total", "Rows that a stage finished: copy, publish or commit.", stage),
		bytes:      counter("bytes_total", "Bytes that a stage finished: copy, publish or commit.", stage),
		commits:    counter("commits_total", "Commits to Delta tables.", db),
		files:      counter("files_total", "Data files written.", db),
		retries:    counter("retries_total", "Steps that ended with an error that is tried again.", db),
		lagBytes:   gauge("lag_bytes", "WAL that Kafka has not acknowledged.", db),
		lagSeconds: gauge("lag_seconds", "Age of the oldest change that a stage has not finished: publish or commit.", stage),
		walHeld:    gauge("wal_held_bytes", "WAL that the slot keeps at the source.", db),
		parked:     gauge("parked_tables", "Tables that this worker's commit lane holds parked.", db),
		memory: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "millrace", Name: "memory_used_bytes", Help: "Part of the row budget that is in use.",
		}, func() float64 { return float64(budget.Used()) }),
	}
	if r != nil {
		r.MustRegister(m.rows, m.bytes, m.commits, m.files, m.retries, m.lagBytes, m.lagSeconds, m.walHeld, m.parked, m.memory)
	}
	return m
}
