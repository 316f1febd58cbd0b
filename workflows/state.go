package workflows

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
)

// State is what a Database workflow carries across continue-as-new. It is the
// decision's memory, never the ledger: what was applied is known by Delta, what
// PostgreSQL may forget by Kafka.
type State struct {
	Config fleet.Database     `json:"config"`
	Phase  Phase              `json:"phase"`
	Reason *activities.Reason `json:"reason,omitempty"`
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
	// Copy is the id of the running copy; Copies counts them.
	Copy   string `json:"copy,omitempty"`
	Copies int    `json:"copies,omitempty"`
	// Worker served the commit lane last: its key index is warm.
	Worker   string    `json:"worker,omitempty"`
	Requests []Request `json:"requests,omitempty"`
}

// TableState is one table's part of State. URIs are relative to the lake's
// folder of the database, so that 2,000 tables fit into a payload.
type TableState struct {
	OID     uint32             `json:"o"`
	Name    string             `json:"n"`
	Phase   Phase              `json:"p"`
	Reason  *activities.Reason `json:"r,omitempty"`
	Latest  string             `json:"l,omitempty"`
	History string             `json:"h,omitempty"`
	Rows    int64              `json:"c,omitempty"`
	At      string             `json:"a,omitempty"`
}

// table returns the entry of a table, or nil.
func (s *State) table(oid uint32) *TableState {
	i := slices.IndexFunc(s.Tables, func(t TableState) bool { return t.OID == oid })
	if i < 0 {
		return nil
	}
	return &s.Tables[i]
}

// found adds a table or replaces what was known of it.
func (s *State) found(info activities.TableInfo) {
	t := s.table(info.OID)
	if t == nil {
		s.Tables = append(s.Tables, TableState{OID: info.OID})
		t = &s.Tables[len(s.Tables)-1]
	}
	t.Name, t.Phase, t.Reason = info.Name, Phase(info.Phase), info.Reason
	t.Latest, t.History = info.Latest, info.History
}

// change applies what an activity reports. A parked table leaves that phase by
// a request alone.
func (s *State) change(c activities.TableChange) {
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
		t.Phase, t.Reason = Parked, c.Reason
	case c.Phase != "" && t.Phase != Parked:
		t.Phase = Phase(c.Phase)
	}
}

// waiting lists the tables that are to be copied.
func (s *State) waiting() []TableState {
	var ts []TableState
	for i := range s.Tables {
		if s.Tables[i].Phase == Waiting {
			ts = append(ts, s.Tables[i])
		}
	}
	return ts
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

// note keeps the outcome of a request; the last twenty stay.
func (s *State) note(name string, at time.Time, outcome string) {
	s.Requests = append(s.Requests, Request{Name: name, At: at.UTC().Format(time.RFC3339), Outcome: outcome})
	if n := len(s.Requests) - 20; n > 0 {
		s.Requests = slices.Delete(s.Requests, 0, n)
	}
}

// status is the answer to the status query.
func (s *State) status() Status {
	st := Status{
		Name: s.Config.Name, Region: s.Config.Region, Pool: s.Config.Pool,
		Phase: s.Phase, Reason: s.Reason, Epoch: s.Epoch, Requests: s.Requests,
		Workers: []string{}, Tables: make([]TableStatus, 0, len(s.Tables)),
	}
	if s.Worker != "" {
		st.Workers = append(st.Workers, s.Worker)
	}
	for i := range s.Tables {
		t := &s.Tables[i]
		st.Tables = append(st.Tables, TableStatus{
			Name: t.Name, OID: t.OID, Phase: t.Phase, Reason: t.Reason,
			Latest: t.Latest, History: t.History, RowsCopied: t.Rows, Position: t.At,
		})
	}
	slices.SortFunc(st.Tables, func(a, b TableStatus) int {
		if a.Name < b.Name {
			return -1
		}
		if a.Name > b.Name {
			return 1
		}
		return 0
	})
	return st
}

// same tells whether two configurations are equal.
func same(a, b fleet.Database) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
