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
	// wordy is how many parked tables may have long reasons, and brief the bytes
	// of a message or remedy beyond: 2,000 of them fit into a payload of 2 MB.
	wordy, long, brief = 20, 2000, 100
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
	// PausedCapture tells that the pause stopped capture too.
	PausedCapture bool `json:"paused_capture,omitempty"`
	// Epoch, SystemID and Timeline are of the last preparation; zero before.
	Epoch    uint32 `json:"epoch,omitempty"`
	SystemID string `json:"system_id,omitempty"`
	Timeline int32  `json:"timeline,omitempty"`
	// After is where the source's WAL ended at the last preparation: copies that
	// are due then come later.
	After change.LSN `json:"after,omitempty"`
	// Prepared tells that the lanes may run.
	Prepared bool         `json:"prepared,omitempty"`
	Tables   []TableState `json:"tables,omitempty"`
	// Resume is where the commit lane starts to read: a hint that only
	// activities understand.
	Resume json.RawMessage `json:"resume,omitempty"`
	// Copy is the copy that runs; Copies counts them.
	Copy   *CopyState `json:"copy,omitempty"`
	Copies int        `json:"copies,omitempty"`
	// Worker served the commit lane last: its key index is warm.
	Worker string `json:"worker,omitempty"`
	// Remove is the request that ends the mirror.
	Remove   *RemoveInput `json:"remove,omitempty"`
	Requests []Request    `json:"requests,omitempty"`
	// Published is what the search attributes hold: database, region, phase and
	// reason codes.
	Published []string `json:"published,omitempty"`
}

// CopyState is a running Copy workflow.
type CopyState struct {
	ID string `json:"id"`
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
	// Recopy tells that the table is to be copied, live or not.
	Recopy bool `json:"w,omitempty"`
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

// found takes what an activity saw of a table. It tells whether that takes the
// table out of the phase parked.
func (s *State) found(info *activities.TableInfo) (unparked bool) {
	t := s.table(info.OID)
	if t == nil {
		s.Tables = append(s.Tables, TableState{OID: info.OID})
		t = &s.Tables[len(s.Tables)-1]
	}
	phase := Phase(info.Phase)
	if unparked = t.Phase == Parked && phase != Parked; unparked {
		s.unpark(t)
	}
	if phase == Waiting && (t.Phase == Live || unparked) {
		t.Recopy = true // it does not fit any more
	}
	switch {
	case phase == CatchingUp, phase == Live && t.Recopy:
		// A copy that ended before the table was live, or one that is due.
		phase = Waiting
		fallthrough
	case phase == Waiting:
		if t.Phase == Copying && s.Copy != nil && !s.Copy.Stopping {
			phase = Copying
		}
	}
	if t.Name, t.Phase = info.Name, phase; phase != Copying {
		t.Ground = info.Ground // a copy that runs is judged when it has ended
	}
	t.History, t.Latest = s.relative(info.History), s.relative(info.Latest)
	if latestOf(t.History) == t.Latest {
		t.Latest = beside
	}
	if info.Position != "" {
		t.At = info.Position
	}
	t.Reason = nil
	if phase == Parked {
		s.park(t, info.Reason)
	}
	return unparked
}

// change applies what a lane reports. A parked table leaves that phase by a
// request alone.
func (s *State) change(c *activities.TableChange) {
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
	switch {
	case c.Reason != nil:
		s.park(t, c.Reason)
	case c.Phase != "" && t.Phase != Parked:
		if t.Phase = Phase(c.Phase); t.Phase == Live {
			t.Recopy = false
		}
	}
}

// unpark lets the next preparation decide what becomes of a table. One that
// lost changes is copied again.
func (s *State) unpark(t *TableState) {
	if t.Reason != nil && activities.CopiesAgain(t.Reason.Code) {
		t.Recopy = true
	}
	t.Phase, t.Reason = Waiting, nil
}

// park parks a table. A reason that is known keeps its beginning.
func (s *State) park(t *TableState, r *activities.Reason) {
	if r == nil {
		r = &activities.Reason{Code: activities.CodeInternal, Message: "no reason was given"}
	}
	if t.Phase == Parked && t.Reason != nil && t.Reason.Code == r.Code {
		return
	}
	limit := long
	if len(s.parked()) >= wordy {
		limit = brief
	}
	short := r.For(s.Config.Name)
	short.Message, short.Remedy = shorten(short.Message, limit), shorten(short.Remedy, limit)
	t.Phase, t.Reason = Parked, &short
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
func (s *State) gone(is func(*TableState) bool) (changed bool) {
	n := 0
	for i := range s.Tables {
		t := &s.Tables[i]
		if t.Phase != Gone && is(t) {
			t.Phase, t.Reason, changed = Gone, nil, true
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
		if t := &s.Tables[i]; t.Phase == Waiting {
			ts = append(ts, CopyTable{OID: t.OID, Name: t.Name})
		}
	}
	return ts
}

// copied makes the tables wait that a copy has left over.
func (s *State) copied() {
	for i := range s.Tables {
		if s.Tables[i].Phase == Copying {
			s.Tables[i].Phase = Waiting
		}
	}
}

// recopied lists the OIDs of tables that are to be copied again.
func (s *State) recopied() []uint32 {
	var oids []uint32
	for i := range s.Tables {
		if t := &s.Tables[i]; t.Recopy && (t.Phase == Waiting || t.Phase == Copying) {
			oids = append(oids, t.OID)
		}
	}
	return oids
}

// parked lists the OIDs of parked tables.
func (s *State) parked() []uint32 {
	var oids []uint32
	for i := range s.Tables {
		if s.Tables[i].Phase == Parked {
			oids = append(oids, s.Tables[i].OID)
		}
	}
	return oids
}

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
// nothing does. Parked tables count unless pastParked.
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
		if s.Tables[i].Phase == Parked && !pastParked {
			return "table " + s.Tables[i].Name + " is parked: " + describe(s.Tables[i].Reason)
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
		text += " (" + r.Remedy + ")"
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
		Phase: s.Phase, Reason: s.reason(), Epoch: s.Epoch, Requests: s.Requests,
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
	return same(copied(a), copied(b))
}

// copied is what a copy does not do without.
func copied(db fleet.Database) fleet.Database {
	db.Tables, db.Freshness, db.WALBudget, db.OnWALBudget = nil, nil, 0, ""
	db.Rules = slices.Clone(db.Rules)
	for i := range db.Rules {
		db.Rules[i].Freshness = nil
	}
	db.Rules = slices.DeleteFunc(db.Rules, func(r fleet.Rule) bool { return r.Empty() })
	return db
}
