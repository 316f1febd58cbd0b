// Package workflows holds the decisions of Millrace: what runs next for each
// database. It does no I/O; everything that touches the world is an activity.
//
// One workflow, Database, runs for each database of the fleet file. It is
// addressed by [DatabaseID], asked by the queries and updates named here, and
// told by signals of the same names.
package workflows

import (
	"strings"
	"time"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
)

// The lanes: one kind of work each, one task queue each.
const (
	LaneControl = "control"
	LaneCapture = "capture"
	LaneCopy    = "copy"
	LaneCommit  = "commit"
)

// Lanes lists all lanes, in the order in which they are shown.
var Lanes = []string{LaneControl, LaneCapture, LaneCopy, LaneCommit}

// Queue returns the task queue of a lane: millrace.<region>.<pool>.<lane>.
func Queue(region, pool, lane string) string {
	return "millrace." + region + "." + pool + "." + lane
}

// WorkerQueue returns the task queue that one worker alone serves, so that its
// caches stay warm.
func WorkerQueue(region, pool, lane, worker string) string {
	return Queue(region, pool, lane) + ".@" + worker
}

// DatabaseID returns the id of a database's workflow: millrace/<region>/<database>.
func DatabaseID(region, database string) string {
	return "millrace/" + region + "/" + database
}

// ParseDatabaseID is the inverse of [DatabaseID].
func ParseDatabaseID(id string) (region, database string, ok bool) {
	parts := strings.Split(id, "/")
	if len(parts) != 3 || parts[0] != "millrace" {
		return "", "", false
	}
	return parts[1], parts[2], true
}

// Workflow types.
const (
	DatabaseWorkflow = "Database"
	CopyWorkflow     = "Copy"
	VerifyWorkflow   = "Verify"
	PlanWorkflow     = "Plan"
	DoctorWorkflow   = "Doctor"
)

// Updates, and signals of the same names. Signals carry the same input; their
// outcome is in the status.
const (
	Apply  = "apply"  // input ApplyInput, output Accepted
	Pause  = "pause"  // input PauseInput, output Accepted
	Resume = "resume" // input ResumeInput, output Accepted
	Unpark = "unpark" // input UnparkInput, output Accepted; as a query, output UnparkPlan
	Remove = "remove" // input RemoveInput, output Removed
	Wait   = "wait"   // input WaitInput, output Waited; update alone
	Verify = "verify" // input VerifyInput, output Started; update alone
	Plan   = "plan"   // input PlanInput, output Planned; update alone
)

// Queries.
const (
	// StatusQuery returns a Status.
	StatusQuery = "status"
	// EventsQuery returns the last changes of phase, as Events.
	EventsQuery = "events"
	// ConfigQuery returns the configuration, a fleet.Database.
	ConfigQuery = "config"
)

// Search attributes, registered by the init command.
const (
	AttrDatabase = "MillraceDatabase" // Keyword
	AttrRegion   = "MillraceRegion"   // Keyword
	AttrPhase    = "MillracePhase"    // Keyword
	AttrReason   = "MillraceReason"   // KeywordList
)

// Phase is the state of a database or a table.
type Phase string

// The phases of a database.
const (
	Preparing Phase = "preparing"
	Running   Phase = "running"
	Paused    Phase = "paused"
	Parked    Phase = "parked"
	Removing  Phase = "removing"
)

// The phases of a table, besides Paused and Parked.
const (
	Waiting    Phase = "waiting"
	Copying    Phase = "copying"
	CatchingUp Phase = "catching-up"
	Live       Phase = "live"
	Gone       Phase = "gone"
)

// DatabaseInput starts a Database workflow. It is used with signal-with-start:
// the signal is Apply, with the same configuration.
type DatabaseInput struct {
	Config fleet.Database `json:"config"`
	// State is carried across continue-as-new; nil at the first start.
	State *State `json:"state,omitempty"`
}

// ApplyInput replaces the configuration.
type ApplyInput struct {
	Config fleet.Database `json:"config"`
	// Yes lets tables leave the mirror that the configuration leaves out.
	Yes bool `json:"yes,omitempty"`
	// Revision is the Planned's upon which this was decided: where another
	// configuration was applied since, this one is refused. Empty means any.
	Revision string `json:"revision,omitempty"`
}

// PauseInput stops commit and copy; with Capture, capture too. With Tables
// (schema.table) it stops them for these tables alone.
type PauseInput struct {
	Capture bool     `json:"capture,omitempty"`
	Tables  []string `json:"tables,omitempty"`
}

// ResumeInput continues what was paused or parked: the database and all of its
// tables, or the tables named (schema.table).
type ResumeInput struct {
	Tables []string `json:"tables,omitempty"`
}

// RemoveInput ends the mirror. The topic and the lake stay, unless Purge.
type RemoveInput struct {
	// KeepSlot leaves slot and publications at the source, for a mirror that goes
	// on elsewhere with the same topic and lake. The slot holds WAL until then.
	KeepSlot bool `json:"keep_slot,omitempty"`
	// Purge deletes the database's topics and its folder in the lake, too.
	Purge bool `json:"purge,omitempty"`
	// Force goes on where something cannot be reached, leaving behind what
	// the answer lists.
	Force bool `json:"force,omitempty"`
}

// Removed is the answer to Remove.
type Removed struct {
	// Dropped and Left name slots and publications; Dropped also what was purged,
	// and Left what was to be, of which some may be gone.
	Dropped []string `json:"dropped,omitempty"`
	Left    []string `json:"left,omitempty"`
}

// Accepted is the answer to a request that goes on after the answer.
type Accepted struct {
	Phase Phase `json:"phase"`
}

// Goals of a wait.
const (
	UntilLive     = "live"
	UntilCaughtUp = "caught-up"
)

// WaitInput waits until all tables are live, or until everything committed at
// the source when it was called can be read from the lake.
type WaitInput struct {
	Until string `json:"until"`
	// Timeout is in nanoseconds; 0 means a minute.
	Timeout time.Duration `json:"timeout"`
	// PastParked goes on for the tables that are not parked.
	PastParked bool `json:"past_parked,omitempty"`
}

// Waited is the answer to Wait. Reached is false where time ran out or where
// something that is parked or paused makes the goal impossible; Why then says
// what stands in the way.
type Waited struct {
	Reached bool   `json:"reached"`
	Why     string `json:"why,omitempty"`
	// Again tells that the workflow could not wait to the end, for it continues
	// as new: the request is to be repeated for the time that is left.
	Again bool `json:"again,omitempty"`
}

// VerifyInput names the tables to prove (schema.table); none means all that
// have been copied.
type VerifyInput struct {
	Tables []string `json:"tables,omitempty"`
}

// Started names the workflow that carries out a request; its result is the
// answer (for Verify: VerifyReport).
type Started struct {
	WorkflowID string `json:"workflow_id"`
	RunID      string `json:"run_id"`
}

// VerifyReport is the result of the Verify workflow. LSN is the last cut that
// was taken.
type VerifyReport struct {
	Database string                   `json:"database"`
	LSN      string                   `json:"lsn"`
	Tables   []activities.TableReport `json:"tables"`
}

// Equal tells whether every table was proven equal.
func (r *VerifyReport) Equal() bool {
	for i := range r.Tables {
		if !r.Tables[i].Equal {
			return false
		}
	}
	return len(r.Tables) > 0
}

// Status is the answer to StatusQuery: what the workflow knows. Workers are
// those that serve the lanes. Lag, rows and positions of running lanes are in
// the heartbeat details of the pending activities Capture
// ([activities.CaptureProgress]) and Commit ([activities.CommitProgress]).
type Status struct {
	Name    string             `json:"name"`
	Region  string             `json:"region"`
	Pool    string             `json:"pool"`
	Phase   Phase              `json:"phase"`
	Reason  *activities.Reason `json:"reason"`
	Workers []string           `json:"workers"`
	Epoch   uint32             `json:"epoch"`
	// WAL is what the source was seen to keep for the slot; nil while the slot is
	// read, for capture then tells it.
	WAL      *activities.WAL `json:"wal,omitempty"`
	Tables   []TableStatus   `json:"tables"`
	Requests []Request       `json:"requests,omitempty"`
}

// TableStatus is one table's part of a Status.
type TableStatus struct {
	Name       string             `json:"name"` // schema.table
	OID        uint32             `json:"oid"`
	Phase      Phase              `json:"phase"`
	Reason     *activities.Reason `json:"reason"`
	Latest     string             `json:"latest"`  // URI; empty where the table has history alone
	History    string             `json:"history"` // URI
	RowsCopied int64              `json:"rows_copied"`
	Position   string             `json:"position"` // the last that a commit reported; may be behind
}

// Request is one of the last twenty requests and its outcome.
type Request struct {
	Name    string `json:"name"`
	At      string `json:"at"`
	Outcome string `json:"outcome"`
}

// Events is the answer to EventsQuery: the last hundred changes of phase of a
// database and its tables, the newest last.
type Events struct {
	Events []Event `json:"events"`
}

// Event is one change of phase.
type Event struct {
	// At is when it happened, in RFC 3339.
	At string `json:"at"`
	// Table is schema.table; empty for the database.
	Table string `json:"table,omitempty"`
	// From is empty for what was not there before.
	From Phase `json:"from,omitempty"`
	To   Phase `json:"to"`
	// Code is why something parked.
	Code activities.Code `json:"code,omitempty"`
	// By is what caused it: a request, a lane or a step.
	By string `json:"by"`
	// Note says more where the phase did not change.
	Note string `json:"note,omitempty"`
}
