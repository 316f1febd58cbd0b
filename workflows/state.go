package workflows

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/fleet"
)

const (
	// keptRequests is how many requests a status shows.
	keptRequests = 20
	// keptGone is how many tables stay listed after they vanished.
	keptGone = 50
	// wordy is how many parked tables may have long reasons, and short the bytes
	// of a message or remedy beyond: 2,000 of them fit into a payload of 2 MB.
	wordy, long, short = 20, 2000, 64
)

// State is what a Database workflow carries across continue-as-new. It is the
// decision's memory, never the ledger: what was applied is known by Delta, what
// PostgreSQL may forget by Kafka.
type State struct {
	Config fleet.Database `json:"config"`
	Phase  Phase          `json:"phase"`
	// Reason is why the database is parked.
	Reason *activities.Reason `json:"reason,omitempty"`
	// Trouble is why lanes do not get on that are tried again, by lane.
	Trouble map[string]*activities.Reason `json:"trouble,omitempty"`
	// Unknown is what lanes have spent on errors that Millrace does not know, by
	// lane.
	Unknown map[string]*Spending `json:"unknown,omitempty"`
	// PausedCapture tells that the pause stopped capture too.
	PausedCapture bool `json:"paused_capture,omitempty"`
	// Epoch, SystemID and Timeline are of the last preparation; zero before.
	Epoch    uint32 `json:"epoch,omitempty"`
	SystemID string `json:"system_id,omitempty"`
	Timeline int32  `json:"timeline,omitempty"`
	// Prepared tells that the lanes may run.
	Prepared bool         `json:"prepared,omitempty"`
	Tables   []TableState `json:"tables,omitempty"`
	// Resume is where the commit lane starts to read: a hint that only
	// activities understand.
	Resume json.RawMessage `json:"resume,omitempty"`
	// Floor is where it starts without that hint; nil means where the topic begins.
	Floor json.RawMessage `json:"floor,omitempty"`
	// NewEpoch is the request to begin an epoch, until a preparation has.
	NewEpoch *NewEpoch `json:"new_epoch,omitempty"`
	// Copy is the copy that runs; Copies counts them.
	Copy   *CopyState `json:"copy,omitempty"`
	Copies int        `json:"copies,omitempty"`
	// WAL is what the source was seen to keep for a slot that nobody reads.
	WAL *activities.WAL `json:"wal,omitempty"`
	// Worker served the commit lane last: its key index is warm.
	Worker string `json:"worker,omitempty"`
	// Remove is the request that ends the mirror.
	Remove   *RemoveInput `json:"remove,omitempty"`
	Requests []Request    `json:"requests,omitempty"`
	// Events are the last changes of phase, the newest last.
	Events []Event `json:"events,omitempty"`
	// Published is what the search attributes hold: database, region, phase and
	// reason codes.
	Published []string `json:"published,omitempty"`

	// now is the workflow's clock; nil where there is none.
	now func() time.Time
}

// CopyState is a running Copy workflow.
type CopyState struct {
	ID string `json:"id"`
	// Drop are tables that it is yet to be told to give up.
	Drop []CopyTable `json:"drop,omitempty"`
	// Stopping tells that it was asked to end. Its tables then wait again.
	Stopping bool `json:"stopping,omitempty"`
}

// TableState is one table's part of State. URIs are relative to the lake, so
// that 2,000 tables fit into a payload.
type TableState struct {
	OID     uint32             `json:"o"`
	Name    string             `json:"n"`
	Phase   Phase              `json:"p"`
	Reason  *activities.Reason `json:"r,omitempty"`
	Latest  string             `json:"l,omitempty"`
	History string             `json:"h,omitempty"`
	Rows    int64              `json:"c,omitempty"`
	At      string             `json:"a,omitempty"`
	// Recopy tells that the table is to be copied, live or not, with a cut that is
	// not before After.
	Recopy bool       `json:"w,omitempty"`
	After  change.LSN `json:"f,omitempty"`
	// Whole tells that the table was live: it has had a whole copy.
	Whole bool `json:"k,omitempty"`
	// Judge tells that somebody asked for the table to go on, or to be written
	// otherwise: it waits for a look at the source and the lake to decide how.
	Judge bool `json:"j,omitempty"`
	// Ground is what the table's stream rested on when it was last judged.
	Ground change.Fingerprint `json:"g,omitempty"`
}

// table returns the entry of a table, or nil.
func (s *State) table(oid uint32) *TableState {
	i := slices.IndexFunc(s.Tables, func(t TableState) bool { return t.OID == oid })
	if i < 0 {
		return nil
	}
	return &s.Tables[i]
}

// named returns the entry of the table that has a name now, or nil.
func (s *State) named(name string) *TableState {
	i := slices.IndexFunc(s.Tables, func(t TableState) bool { return t.Name == name && t.Phase != Gone })
	if i < 0 {
		return nil
	}
	return &s.Tables[i]
}

// found takes what a step saw of a table, at the LSN where the WAL ended then. A
// table that is paused or parked stays so. It tells whether somebody had asked
// for the table to go on, and waited for this.
func (s *State) found(info *activities.TableInfo, at change.LSN, by string) (back bool) {
	t := s.table(info.OID)
	if t == nil {
		s.Tables = append(s.Tables, TableState{OID: info.OID})
		t = &s.Tables[len(s.Tables)-1]
	}
	phase := Phase(info.Phase)
	if t.Phase == Paused || t.Phase == Parked && phase != Parked {
		return false
	}
	back, t.Judge = t.Judge, false
	copying := t.copying()
	t.Name, t.History, t.Latest = info.Name, s.relative(info.History), s.relative(info.Latest)
	if latestOf(t.History) == t.Latest {
		t.Latest = beside
	}
	if info.Position != "" {
		t.At = info.Position
	}
	if phase == Waiting && (t.Phase == Live || back) {
		t.Recopy = true // it does not fit any more
	}
	switch whole := phase == Live && !t.Recopy; {
	case phase == Parked:
		s.park(t, info.Reason, by)
	case whole:
		s.move(t, intact, nil, by)
	case copying && s.Copy != nil && !s.Copy.Stopping:
		return back // a copy that runs is judged when it has ended
	case copying:
		s.move(t, leftOver, nil, by)
	default: // without a copy, with one that ended before its end, or one that is due
		s.move(t, uncopied, nil, by)
	}
	t.Ground = info.Ground
	if t.Recopy {
		t.After = at
	}
	return back
}

// change applies what a lane reports. A copy speaks for the tables that it has
// taken over, the other lanes for what else happens.
func (s *State) change(c *activities.TableChange, by string) {
	t := s.table(c.OID)
	if t == nil || t.Phase == Gone {
		return
	}
	if c.Position != "" {
		t.At = c.Position
	}
	if c.RowsCopied > 0 {
		t.Rows = c.RowsCopied
	}
	switch phase := Phase(c.Phase); {
	case c.Reason != nil:
		s.park(t, c.Reason, by)
	case by != LaneCopy:
		if phase == Waiting && t.Phase == Live {
			s.move(t, uncopied, nil, by)
		}
	case !t.copying() || phase == t.Phase:
	case phase == Copying:
		s.move(t, taken, nil, by)
	case phase == CatchingUp:
		s.move(t, copied, nil, by)
	case phase == Live:
		s.move(t, caughtUp, nil, by)
		t.Recopy = false
	case phase == Waiting:
		s.move(t, leftOver, nil, by)
	}
}

// copying tells that a copy has taken the table over.
func (t *TableState) copying() bool { return t.Phase == Copying || t.Phase == CatchingUp }

// retry lets the next look decide what becomes of a table that is paused or
// parked. One that lost changes is copied again.
func (s *State) retry(t *TableState, by string) {
	if t.Phase == Parked && activities.CopiesAgain(t.Reason.Code) {
		t.Recopy = true
	}
	t.Judge = true
	s.move(t, resumes, nil, by)
}

// park parks a table, unless it is paused. A reason that is known keeps its
// beginning.
func (s *State) park(t *TableState, r *activities.Reason, by string) {
	if r == nil {
		r = &activities.Reason{Code: activities.CodeInternal, Message: "no reason was given"}
	}
	if t.Phase != Paused && (t.Phase != Parked || t.Reason.Code != r.Code) {
		s.move(t, fails, r, by)
	}
}

// brief returns a reason for a table as it is kept: cut where many have one, but
// never its last line, which is the command.
func (s *State) brief(r *activities.Reason, table string) *activities.Reason {
	limit := long
	if s.count(Parked) > wordy {
		limit = short
	}
	b := r.Parked(s.Config.Name, table)
	b.Message = shorten(b.Message, limit)
	b.Remedy = shortRemedy(b.Remedy, limit)
	return &b
}

// shortRemedy cuts a remedy, but not the command in its last line.
func shortRemedy(remedy string, limit int) string {
	i := max(strings.LastIndexByte(remedy, '\n'), 0)
	return shorten(remedy[:i], limit) + remedy[i:]
}

// count counts the tables in a phase.
func (s *State) count(p Phase) (n int) {
	for i := range s.Tables {
		if s.Tables[i].Phase == p {
			n++
		}
	}
	return n
}

// shorten cuts a text at a rune's beginning.
func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}

// gone marks tables that no longer match or exist, and forgets those that have
// been gone the longest.
func (s *State) gone(is func(*TableState) bool, by string) (changed bool) {
	n := 0
	for i := range s.Tables {
		t := &s.Tables[i]
		if t.Phase != Gone && is(t) {
			changed = true
			s.move(t, vanishes, nil, by)
		}
		if t.Phase == Gone {
			n++
		}
	}
	s.Tables = slices.DeleteFunc(s.Tables, func(t TableState) bool {
		if t.Phase != Gone || n <= keptGone {
			return false
		}
		n--
		return true
	})
	return changed
}

// waiting lists the tables that are to be copied.
func (s *State) waiting() []CopyTable {
	var ts []CopyTable
	for i := range s.Tables {
		if t := &s.Tables[i]; t.Phase == Waiting && !t.Judge {
			ts = append(ts, CopyTable{OID: t.OID, Name: t.Name})
		}
	}
	return ts
}

// judging tells whether a table waits for a look to decide what becomes of it.
func (s *State) judging() bool {
	return slices.ContainsFunc(s.Tables, func(t TableState) bool { return t.Judge })
}

// leftOver makes the tables wait that a copy has not finished.
func (s *State) leftOver() {
	for i := range s.Tables {
		if t := &s.Tables[i]; t.copying() {
			s.move(t, leftOver, nil, LaneCopy)
		}
	}
}

// recopied are the tables that are to be copied again, with the LSN that their
// cut must not be before.
func (s *State) recopied() map[uint32]change.LSN {
	due := map[uint32]change.LSN{}
	for i := range s.Tables {
		if t := &s.Tables[i]; t.Recopy && (t.Phase == Waiting || t.copying()) {
			due[t.OID] = t.After
		}
	}
	return due
}

// excluded lists the OIDs of the tables that are not to be committed. One that is
// to be judged is not yet: only then is it known what it lacks.
func (s *State) excluded() []uint32 {
	var oids []uint32
	for i := range s.Tables {
		if t := &s.Tables[i]; t.Phase == Parked || t.Phase == Paused || t.Judge {
			oids = append(oids, t.OID)
		}
	}
	return oids
}

// spend counts a failure of a lane that Millrace does not know, and tells whether
// it has failed for too long.
func (s *State) spend(lane string, now time.Time) (over bool) {
	spending := s.Unknown[lane]
	over = spending.spent(&spending, now)
	if s.Unknown == nil {
		s.Unknown = map[string]*Spending{}
	}
	s.Unknown[lane] = spending
	return over
}

// earn gives a lane all its patience back.
func (s *State) earn(lane string) { delete(s.Unknown, lane) }

// settled tells whether no table is on its way to live.
func (s *State) settled() bool {
	for i := range s.Tables {
		switch s.Tables[i].Phase {
		case Waiting, Copying, CatchingUp:
			return false
		}
	}
	return true
}

// reason is why the database does not get on; nil when it does. Where several
// lanes suffer from the same, it began with the first.
func (s *State) reason() *activities.Reason {
	if s.Reason != nil {
		return s.Reason
	}
	var first activities.Reason
	for _, lane := range shown {
		switch r := s.Trouble[lane]; {
		case r == nil:
		case first.Code == "":
			first = *r
		case r.Code == first.Code && r.Since < first.Since:
			first.Since = r.Since
		}
	}
	if first.Code == "" {
		return nil
	}
	return &first
}

// blocked says what makes a goal impossible until somebody acts; empty when
// nothing does. Tables that are parked or paused count unless pastParked.
func (s *State) blocked(pastParked bool) string {
	switch s.Phase {
	case Paused:
		return "database " + s.Config.Name + " is paused: millrace resume " + s.Config.Name
	case Parked:
		return "database " + s.Config.Name + " is parked: " + describe(s.Reason)
	case Removing:
		return "database " + s.Config.Name + " is being removed"
	}
	for i := range s.Tables {
		switch t := &s.Tables[i]; {
		case pastParked:
		case t.Phase == Parked:
			return "table " + t.Name + " is parked: " + describe(t.Reason)
		case t.Phase == Paused:
			return "table " + t.Name + " is paused: millrace resume " + s.Config.Name + " " + activities.ShellWord(t.Name)
		}
	}
	return ""
}

func describe(r *activities.Reason) string {
	if r == nil {
		return "no reason was given"
	}
	text := string(r.Code) + ": " + r.Message
	if r.Remedy != "" {
		text += "; " + r.Remedy
	}
	return text
}

// note keeps the outcome of a request.
func (s *State) note(name string, at time.Time, outcome string) {
	s.Requests = append(s.Requests, Request{Name: name, At: at.UTC().Format(time.RFC3339), Outcome: shorten(outcome, long)})
	if n := len(s.Requests) - keptRequests; n > 0 {
		s.Requests = slices.Delete(s.Requests, 0, n)
	}
}

// status is the answer to the status query. Its workers are those that report.
func (s *State) status(workers []string) Status {
	st := Status{
		Name: s.Config.Name, Region: s.Config.Region, Pool: s.Config.Pool,
		Phase: s.Phase, Reason: s.reason(), Epoch: s.Epoch, Requests: s.Requests, WAL: s.WAL,
		Workers: workers, Tables: make([]TableStatus, 0, len(s.Tables)),
	}
	for i := range s.Tables {
		t := &s.Tables[i]
		st.Tables = append(st.Tables, TableStatus{
			Name: t.Name, OID: t.OID, Phase: t.Phase, Reason: t.Reason,
			Latest: s.latest(t), History: s.absolute(t.History), RowsCopied: t.Rows, Position: t.At,
		})
	}
	slices.SortFunc(st.Tables, func(a, b TableStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.OID, b.OID))
	})
	return st
}

// relative strips the lake's own URI.
func (s *State) relative(uri string) string {
	return strings.TrimPrefix(uri, s.Config.Lake+"/")
}

// absolute puts it back.
func (s *State) absolute(path string) string {
	if path == "" || strings.Contains(path, "://") || strings.HasPrefix(path, "/") {
		return path
	}
	return s.Config.Lake + "/" + path
}

// beside stands for a latest table that is where its history is.
const beside = "="

// latestOf returns the latest table beside a history.
func latestOf(history string) string {
	return strings.TrimSuffix(history, "history") + "latest"
}

// latest returns the URI of a table's latest table; empty where it has none.
func (s *State) latest(t *TableState) string {
	if t.Latest == beside {
		return s.absolute(latestOf(t.History))
	}
	return s.absolute(t.Latest)
}

// same tells whether two configurations are equal.
func same(a, b fleet.Database) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// copiesAlike tells whether a copy that runs under one configuration may go on
// under the other: they differ at most in what is mirrored, how fresh, and how
// much WAL may wait for it.
func copiesAlike(a, b fleet.Database) bool {
	return same(mattering(a), mattering(b))
}

// mattering is what a copy does not do without.
func mattering(db fleet.Database) fleet.Database {
	db.Tables, db.Freshness, db.WALBudget, db.OnWALBudget = nil, nil, 0, ""
	db.Rules = slices.Clone(db.Rules)
	for i := range db.Rules {
		db.Rules[i].Freshness = nil
	}
	db.Rules = slices.DeleteFunc(db.Rules, func(r fleet.Rule) bool { return r.Empty() })
	return db
}
