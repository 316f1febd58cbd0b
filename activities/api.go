package activities

import (
	"encoding/json"
	"time"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/fleet"
)

// Signals that activities and copies send to workflows.
const (
	// SignalTables carries TablesChanged to a Database workflow.
	SignalTables = "tables"
	// SignalMarker carries a marker's token to a Database workflow: everything
	// before the marker was committed.
	SignalMarker = "marker"
	// SignalLane carries a LaneReport to a Database workflow.
	SignalLane = "lane"
	// SignalCut carries a Cut to the workflow that asked for a holder.
	SignalCut = "cut"
)

// Queries and updates that activities send to workflows.
const (
	// UpdateWait is the read-your-writes barrier of a Database workflow.
	UpdateWait = "wait"
)

// TablesChanged reports tables whose phase, reason or rows changed.
type TablesChanged struct {
	Tables []TableChange `json:"tables,omitempty"`
	// Copy names the copy that reports; empty for the commit lane.
	Copy string `json:"copy,omitempty"`
	// Ended tells that the copy reports nothing more.
	Ended bool `json:"ended,omitempty"`
}

// LaneReport says how a lane gets on. Capture and commit report once they have
// made progress; a copy reports what it waits for, too.
type LaneReport struct {
	Lane string `json:"lane"`
	// Worker serves the lane; empty for a copy, which many workers serve.
	Worker string `json:"worker,omitempty"`
	// Copy names the copy that reports; empty for the other lanes.
	Copy string `json:"copy,omitempty"`
	// Reason is why the lane does not get on; nil when it does.
	Reason *Reason `json:"reason,omitempty"`
	// Park tells that trying again cannot help: the database is to be parked.
	Park bool `json:"park,omitempty"`
}

// TableChange is one table's part of TablesChanged. Empty fields mean that
// nothing changed there.
type TableChange struct {
	OID   uint32 `json:"oid"`
	Phase string `json:"phase,omitempty"`
	// Reason is why the table is parked.
	Reason     *Reason `json:"reason,omitempty"`
	Position   string  `json:"position,omitempty"`
	RowsCopied int64   `json:"rows_copied,omitempty"`
}

// TableInfo is what a scan says about one table.
type TableInfo struct {
	OID     uint32  `json:"oid"`
	Name    string  `json:"name"`
	Phase   string  `json:"phase"`
	Reason  *Reason `json:"reason,omitempty"`
	Latest  string  `json:"latest,omitempty"`
	History string  `json:"history"`
	// Position is the last change that history has; empty where there is none.
	Position string `json:"position,omitempty"`
	// Ground is the fingerprint of what the table's stream rested on when it was
	// looked at; zero where that was not seen.
	Ground change.Fingerprint `json:"ground,omitempty"`
}

// PrepareInput asks for everything that a database needs before its lanes run.
type PrepareInput struct {
	DB fleet.Database `json:"db"`
	// Epoch, SystemID and Timeline are those of the last preparation; zero at
	// the first.
	Epoch    uint32 `json:"epoch,omitempty"`
	SystemID string `json:"system_id,omitempty"`
	Timeline int32  `json:"timeline,omitempty"`
	// Anew begins an epoch after Epoch, on whatever server answers: slots of
	// earlier ones are dropped, and a topic that is gone is made again.
	Anew bool `json:"anew,omitempty"`
}

// PrepareResult says what the lanes start from.
type PrepareResult struct {
	Epoch    uint32      `json:"epoch"`
	SystemID string      `json:"system_id"`
	Timeline int32       `json:"timeline"`
	Tables   []TableInfo `json:"tables"`
	// LSN is where the source's WAL ended meanwhile.
	LSN change.LSN `json:"lsn"`
	// Floor is where an epoch that was begun anew begins in the topic, for
	// CommitInput.
	Floor json.RawMessage `json:"floor,omitempty"`
}

// ScanInput asks which tables match now.
type ScanInput struct {
	DB    fleet.Database `json:"db"`
	Epoch uint32         `json:"epoch"`
	// SystemID and Timeline are those of the last preparation.
	SystemID string `json:"system_id,omitempty"`
	Timeline int32  `json:"timeline,omitempty"`
	// Known are the tables that were found before.
	Known []KnownTable `json:"known,omitempty"`
	// Copy is the id of the copy that should be running; empty where there is
	// none.
	Copy string `json:"copy,omitempty"`
}

// KnownTable is what is known of a table.
type KnownTable struct {
	OID  uint32 `json:"o"`
	Name string `json:"n"`
	// Ground is that of the TableInfo that was taken over last.
	Ground change.Fingerprint `json:"g,omitempty"`
	// Parked tells that it is parked or paused: it waits for a request, and is not
	// judged before.
	Parked bool `json:"p,omitempty"`
}

// ScanResult lists what differs from what was known.
type ScanResult struct {
	// Found are the tables that were not known, and those that rest on other
	// ground than when they were found.
	Found []TableInfo `json:"found,omitempty"`
	// Gone are known OIDs that no longer match or exist.
	Gone []uint32 `json:"gone,omitempty"`
	// CopyGone tells that ScanInput.Copy is not running.
	CopyGone bool `json:"copy_gone,omitempty"`
	// Parked are known tables that must not go on as they are.
	Parked []TableChange `json:"parked,omitempty"`
	// LSN is where the source's WAL ended before tables were looked at; zero where
	// none was found.
	LSN change.LSN `json:"lsn,omitempty"`
}

// CaptureInput starts the capture lane.
type CaptureInput struct {
	DB       fleet.Database `json:"db"`
	Epoch    uint32         `json:"epoch"`
	SystemID string         `json:"system_id"`
	Timeline int32          `json:"timeline"`
}

// LaneResult is how a lane ended voluntarily.
type LaneResult struct {
	Why string `json:"why"`
	// Worker served the lane. Stopping tells that it stops.
	Worker   string `json:"worker"`
	Stopping bool   `json:"stopping,omitempty"`
	// Resume is the commit lane's: where to go on. Only activities read it.
	Resume json.RawMessage `json:"resume,omitempty"`
	// Tables are the commit lane's: those that committed last, at most 500.
	Tables []TablePosition `json:"tables,omitempty"`
}

// CommitInput starts the commit lane.
type CommitInput struct {
	DB    fleet.Database `json:"db"`
	Epoch uint32         `json:"epoch"`
	// Resume is that of the last run: a hint. Without it reading begins at the
	// earliest record that is kept.
	Resume json.RawMessage `json:"resume,omitempty"`
	// Floor is where reading begins without Resume, while the topic goes back as far.
	Floor json.RawMessage `json:"floor,omitempty"`
	// Parked are the tables that must not be committed: parked and paused ones.
	Parked []uint32 `json:"parked,omitempty"`
	// Recopied are the tables that are to be copied again, with a cut that is not
	// before the LSN: changes of theirs that do not fit wait for that.
	Recopied map[uint32]change.LSN `json:"recopied,omitempty"`
}

// HoldInput asks for a cut and for its snapshot to be held until cancelled.
type HoldInput struct {
	DB fleet.Database `json:"db"`
	// Token comes back with the cut, so that a late cut of another holder is not
	// taken for this one's.
	Token string `json:"token"`
}

// Cut is an exact pair: a transaction is in the snapshot exactly when its
// CommitLSN is below LSN.
type Cut struct {
	LSN      change.LSN `json:"lsn"`
	Snapshot string     `json:"snapshot"`
	SystemID string     `json:"system_id"`
	Micros   int64      `json:"micros"`
	// Token is that of HoldInput.
	Token string `json:"token,omitempty"`
}

// PlanInput asks for the chunks of one table under a cut.
type PlanInput struct {
	DB    fleet.Database `json:"db"`
	Epoch uint32         `json:"epoch"`
	Copy  string         `json:"copy"`
	Cut   Cut            `json:"cut"`
	OID   uint32         `json:"oid"`
}

// Chunk is a range of blocks of one table or partition.
type Chunk struct {
	Leaf uint32 `json:"leaf"`
	// From is the first block; To the first after the range, 0 for no end.
	From uint32 `json:"from,omitempty"`
	To   uint32 `json:"to,omitempty"`
	// FileNode is the leaf's file when the cut was made.
	FileNode uint32 `json:"file_node"`
}

// PlanResult lists the chunks that are still to be copied.
type PlanResult struct {
	Chunks []Chunk `json:"chunks"`
}

// ChunkInput asks for one chunk to be copied into the lake.
type ChunkInput struct {
	DB    fleet.Database `json:"db"`
	Epoch uint32         `json:"epoch"`
	Copy  string         `json:"copy"`
	Cut   Cut            `json:"cut"`
	OID   uint32         `json:"oid"`
	Index int            `json:"index"`
	Chunk Chunk          `json:"chunk"`
}

// ChunkResult says what a chunk held.
type ChunkResult struct {
	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes"`
}

// FinishInput ends the copy of one table.
type FinishInput struct {
	DB    fleet.Database `json:"db"`
	Epoch uint32         `json:"epoch"`
	Copy  string         `json:"copy"`
	OID   uint32         `json:"oid"`
}

// FinishResult is the phase that the table enters.
type FinishResult struct {
	Phase string `json:"phase"`
}

// MarkerInput asks for a marker to be written into the source's log.
type MarkerInput struct {
	DB    fleet.Database `json:"db"`
	Token string         `json:"token"`
}

// AwaitInput asks to wait until what is committed now at the source can be
// read from the lake.
type AwaitInput struct {
	WorkflowID string        `json:"workflow_id"`
	Timeout    time.Duration `json:"timeout"`
}

// VerifyInput asks for one table to be proven equal under a cut that the lake
// has passed.
type VerifyInput struct {
	DB    fleet.Database `json:"db"`
	Epoch uint32         `json:"epoch"`
	Cut   Cut            `json:"cut"`
	OID   uint32         `json:"oid"`
	Name  string         `json:"name"`
}

// DropInput asks for what was made at the source to be dropped.
type DropInput struct {
	DB    fleet.Database `json:"db"`
	Epoch uint32         `json:"epoch"`
	Force bool           `json:"force,omitempty"`
}

// DropResult lists what was dropped and what stays behind.
type DropResult struct {
	Dropped []string `json:"dropped,omitempty"`
	Left    []string `json:"left,omitempty"`
}

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
	// WAL is what the source keeps for the slot; nil before the first look.
	WAL *WAL `json:"wal,omitempty"`
	// Rows and Bytes count what was published since the activity began.
	Rows       int64  `json:"rows"`
	Bytes      int64  `json:"bytes"`
	WaitingFor string `json:"waiting_for,omitempty"`
	Since      string `json:"since,omitempty"`
}

// CommitProgress is the heartbeat detail of the Commit activity.
type CommitProgress struct {
	Worker string `json:"worker"`
	// Resume is where to go on after a restart.
	Resume json.RawMessage `json:"resume,omitempty"`
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
	// LSN is the cut under which the table was proven.
	LSN string `json:"lsn"`
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
	// By says who can carry the remedy out, as the doctor knows; empty means
	// whoever keeps the fleet file.
	By       string `json:"by,omitempty"`
	Blocking bool   `json:"blocking"`
}
