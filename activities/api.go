package activities

// CaptureProgress is the heartbeat detail of the Capture activity.
type CaptureProgress struct {
	Worker string `json:"worker"`
	// Confirmed is what PostgreSQL may forget; Server is where its WAL ends.
	Confirmed string `json:"confirmed"`
	Server    string `json:"server"`
	// LagBytes is Server less Confirmed. LagSeconds is the age of the oldest
	// change that is not yet acknowledged by Kafka, 0 where there is none.
	LagBytes   int64   `json:"lag_bytes"`
	LagSeconds float64 `json:"lag_seconds"`
	// Rows and Bytes count what was published since the activity began.
	Rows       int64  `json:"rows"`
	Bytes      int64  `json:"bytes"`
	WaitingFor string `json:"waiting_for,omitempty"`
	Since      string `json:"since,omitempty"`
}

// CommitProgress is the heartbeat detail of the Commit activity.
type CommitProgress struct {
	Worker string `json:"worker"`
	// Offsets is the next offset to read of each partition after a restart.
	Offsets map[int]int64 `json:"offsets"`
	// Read is the LSN up to which all partitions were read and committed.
	Read string `json:"read"`
	// LagSeconds is the age of the oldest change read but not committed, or the
	// age of the last watermark's commit time where records wait in Kafka.
	LagSeconds float64 `json:"lag_seconds"`
	// Rows, Commits, Files count since the activity began.
	Rows    int64 `json:"rows"`
	Commits int64 `json:"commits"`
	Files   int64 `json:"files"`
	// Tables are the positions of the tables that committed last, newest first,
	// at most 500.
	Tables     []TablePosition `json:"tables,omitempty"`
	WaitingFor string          `json:"waiting_for,omitempty"`
	Since      string          `json:"since,omitempty"`
}

// TablePosition is how far one table was committed.
type TablePosition struct {
	OID      uint32 `json:"oid"`
	Position string `json:"position"`
	Rows     int64  `json:"rows"`
}

// TableReport is the outcome of proving one table.
type TableReport struct {
	Table string `json:"table"`
	Equal bool   `json:"equal"`
	// Source, History and Latest are row counts: at the cut, of the history
	// rebuilt as of it, and of the latest table. -1 where there is none.
	Source  int64 `json:"source"`
	History int64 `json:"history"`
	Latest  int64 `json:"latest"`
	// Hash is the order-independent hash of the source's rows, hexadecimal.
	Hash string `json:"hash"`
	// Differences says in words what differs, with up to ten keys.
	Differences []string `json:"differences,omitempty"`
	Reason      *Reason  `json:"reason,omitempty"`
	// HistoryRows, Commits and Files describe the table's history and latest.
	HistoryRows int64 `json:"history_rows"`
	Commits     int64 `json:"commits"`
	Files       int64 `json:"files"`
}

// Problem is something that stands in the way of mirroring a source.
type Problem struct {
	Code     Code   `json:"code"`
	Table    string `json:"table,omitempty"`
	Sentence string `json:"sentence"`
	Remedy   string `json:"remedy"`
	Blocking bool   `json:"blocking"`
}
