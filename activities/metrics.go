package activities

import "github.com/prometheus/client_golang/prometheus"

// metrics are what a worker counts, each by database.
type metrics struct {
	rows, bytes          *prometheus.CounterVec // by stage: copy, publish, commit
	commits, files       *prometheus.CounterVec
	upkeep               *prometheus.CounterVec // by what: compaction, checkpoint, vacuum, log
	retries              *prometheus.CounterVec // by code
	parkings             *prometheus.CounterVec // by what and code
	lagBytes, lagSeconds *prometheus.GaugeVec   // lagSeconds by stage
	walHeld              *prometheus.GaugeVec
	tablesParked, parked *prometheus.GaugeVec
	memory               prometheus.GaugeFunc
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
		upkeep:     counter("upkeep_total", "Maintenance of Delta tables: compaction and checkpoint in commits, vacuum and log in deleted files.", []string{"database", "what"}),
		retries:    counter("retries_total", "Steps that ended with an error that is tried again.", []string{"database", "code"}),
		parkings:   counter("parkings_total", "How often a table or the database was parked.", []string{"database", "what", "code"}),
		lagBytes:   gauge("lag_bytes", "WAL that Kafka has not acknowledged.", db),
		lagSeconds: gauge("lag_seconds", "Age of the oldest change that a stage has not finished: publish or commit.", stage),
		walHeld:    gauge("wal_held_bytes", "WAL that the slot keeps at the source.", db),

		tablesParked: gauge("parked_tables", "Tables that are parked, as the database's commit lane knows; it begins anew every ten minutes.", db),
		parked:       gauge("parked", "1 where a step on this worker parked the database, until one runs here again.", db),
		memory: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "millrace", Name: "memory_used_bytes", Help: "Part of the row budget that is in use.",
		}, func() float64 { return float64(budget.Used()) }),
	}
	if r != nil {
		r.MustRegister(m.rows, m.bytes, m.commits, m.files, m.upkeep, m.retries, m.parkings,
			m.lagBytes, m.lagSeconds, m.walHeld, m.tablesParked, m.parked, m.memory)
	}
	return m
}

// forget takes back what a lane of a database said of now: another worker may
// say it next.
func (m *metrics) forget(kind, database string) {
	switch kind {
	case "capture":
		m.lagBytes.DeleteLabelValues(database)
		m.walHeld.DeleteLabelValues(database)
		m.lagSeconds.DeleteLabelValues(database, "publish")
	case "commit":
		m.tablesParked.DeleteLabelValues(database)
		m.lagSeconds.DeleteLabelValues(database, "commit")
	}
}

// failed counts a step's failure.
func (m *metrics) failed(step, database string, f *Failure) {
	switch {
	case database == "":
	case !f.Park:
		m.retries.WithLabelValues(database, string(f.Reason.Code)).Inc()
	case !f.Database:
		m.parkings.WithLabelValues(database, "table", string(f.Reason.Code)).Inc()
	case parks(step):
		m.parkings.WithLabelValues(database, "database", string(f.Reason.Code)).Inc()
		m.parked.WithLabelValues(database).Set(1)
	}
}

// parks tells whether a step's failure can park its database: those of requests
// are answers.
func parks(step string) bool {
	switch step {
	case "EmitMarker", "AwaitCaughtUp", "VerifyTable", "Drop":
		return false
	}
	return true
}
