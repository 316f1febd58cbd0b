package workflows

import (
	"fmt"
	"strings"
	"time"

	"github.com/millrace-io/millrace/activities"
)

// event is what moves a database or a table from one phase to another.
type event string

// The events. Requests have the names of their updates.
const (
	prepared event = "prepared"  // slot, publications, topic and lake are there
	fails    event = "fails"     // what happened cannot be mended by trying again
	resumes  event = "resume"    // somebody asks for what is paused or parked to go on
	pauses   event = Pause       // somebody asks for it to stop
	applies  event = Apply       // a configuration is applied
	removes  event = Remove      // the mirror is to end
	uncopied event = "uncopied"  // a look at the lake finds no copy that could go on
	intact   event = "intact"    // a look at the lake finds a copy that goes on
	vanishes event = "vanishes"  // the table is gone, or no pattern fits it
	taken    event = "copy"      // a copy takes the table over
	copied   event = "copied"    // all of its rows are in history
	caughtUp event = "caught-up" // latest holds what history does
	leftOver event = "left-over" // the copy does not finish the table under this cut
)

// arrow is one change of phase. From is empty for what is new.
type arrow struct {
	from Phase
	on   event
	to   Phase
}

// machine is the state machine of one kind of thing: every change of phase that
// there is.
type machine struct {
	kind   string
	phases []Phase
	arrows []arrow
}

// databases is the state machine of databases. A removed one has no phase: its
// workflow has ended.
var databases = machine{
	kind:   "database",
	phases: []Phase{Preparing, Running, Paused, Parked, Removing},
	arrows: []arrow{
		{"", applies, Preparing},

		{Preparing, prepared, Running},
		{Preparing, applies, Preparing},
		{Preparing, resumes, Preparing},
		{Preparing, pauses, Paused},
		{Preparing, fails, Parked},
		{Preparing, removes, Removing},

		{Running, applies, Preparing},
		{Running, resumes, Preparing},
		{Running, pauses, Paused},
		{Running, fails, Parked},
		{Running, removes, Removing},

		{Paused, resumes, Preparing},
		{Paused, pauses, Paused},
		{Paused, fails, Parked},
		{Paused, removes, Removing},

		{Parked, applies, Preparing},
		{Parked, resumes, Preparing},
		{Parked, pauses, Paused},
		{Parked, removes, Removing},

		{Removing, removes, Removing},
	},
}

// relations is the state machine of tables. What is paused or parked leaves that
// phase by a request alone, or with the table itself.
var relations = machine{
	kind:   "table",
	phases: []Phase{Waiting, Copying, CatchingUp, Live, Paused, Parked, Gone},
	arrows: []arrow{
		{"", uncopied, Waiting},
		{"", intact, Live},
		{"", fails, Parked},

		{Waiting, uncopied, Waiting},
		{Waiting, taken, Copying},
		{Waiting, intact, Live},
		{Waiting, pauses, Paused},
		{Waiting, fails, Parked},
		{Waiting, vanishes, Gone},

		{Copying, leftOver, Waiting},
		{Copying, copied, CatchingUp},
		{Copying, caughtUp, Live},
		{Copying, intact, Live},
		{Copying, pauses, Paused},
		{Copying, fails, Parked},
		{Copying, vanishes, Gone},

		{CatchingUp, leftOver, Waiting},
		{CatchingUp, taken, Copying},
		{CatchingUp, caughtUp, Live},
		{CatchingUp, intact, Live},
		{CatchingUp, pauses, Paused},
		{CatchingUp, fails, Parked},
		{CatchingUp, vanishes, Gone},

		{Live, intact, Live},
		{Live, uncopied, Waiting},
		{Live, pauses, Paused},
		{Live, fails, Parked},
		{Live, vanishes, Gone},

		{Paused, resumes, Waiting},
		{Paused, vanishes, Gone},

		{Parked, resumes, Waiting},
		{Parked, fails, Parked},
		{Parked, vanishes, Gone},

		{Gone, uncopied, Waiting},
		{Gone, intact, Live},
		{Gone, fails, Parked},
	},
}

// next looks an arrow up.
func (m *machine) next(from Phase, on event) (to Phase, ok bool) {
	for _, a := range m.arrows {
		if a.from == from && a.on == on {
			to, ok = a.to, true
			break
		}
	}
	if watched != nil {
		watched(m, from, on, ok)
	}
	return to, ok
}

// watched, where it is set, is told of every arrow that is looked up. Tests set
// it, to know which arrows they took and that none was missing.
var watched func(m *machine, from Phase, on event, ok bool)

// picture draws the machine as a Mermaid state diagram, without the arrows that
// lead back to where they began.
func (m *machine) picture() string {
	var b strings.Builder
	b.WriteString("```mermaid\nstateDiagram-v2\n")
	node := func(p Phase) string {
		if p == "" {
			return "[*]"
		}
		return strings.ReplaceAll(string(p), "-", "_")
	}
	for _, p := range m.phases {
		if node(p) != string(p) {
			fmt.Fprintf(&b, "    state %q as %s\n", string(p), node(p))
		}
	}
	drawn := map[[2]Phase]bool{}
	for _, a := range m.arrows {
		between := [2]Phase{a.from, a.to}
		if drawn[between] || a.from == a.to {
			continue
		}
		drawn[between] = true
		var on []string
		for _, other := range m.arrows {
			if other.from == a.from && other.to == a.to {
				on = append(on, string(other.on))
			}
		}
		fmt.Fprintf(&b, "    %s --> %s: %s\n", node(a.from), node(a.to), strings.Join(on, ", "))
	}
	b.WriteString("```\n")
	return b.String()
}

// keptEvents is how many changes of phase a database keeps, its tables' among
// them.
const keptEvents = 100

// enter moves the database to the phase that follows on an event. The reason,
// nil unless the event is a failure, stays while the database is parked, and
// while it is paused after that. by is what caused it: a request or a lane.
func (s *State) enter(on event, r *activities.Reason, by string) {
	from := s.Phase
	to, ok := databases.next(from, on)
	if !ok {
		s.astray(&databases, from, on, "", by)
		return
	}
	s.Phase = to
	switch to {
	case Parked:
		parked := r.Parked(s.Config.Name, "")
		parked.Message, parked.Remedy = shorten(parked.Message, long), shortRemedy(parked.Remedy, long)
		s.Reason, s.Trouble = &parked, nil
	case Preparing, Running:
		s.Reason = nil
	}
	if from != to {
		s.record(Event{From: from, To: to, By: by}, r)
	}
}

// move moves a table to the phase that follows on an event. by is what caused
// it: a request, a step or a lane.
func (s *State) move(t *TableState, on event, r *activities.Reason, by string) {
	from := t.Phase
	to, ok := relations.next(from, on)
	if !ok {
		s.astray(&relations, from, on, t.Name, by)
		return
	}
	if t.copying() && by != LaneCopy && s.Copy != nil {
		s.Copy.Drop = append(s.Copy.Drop, CopyTable{OID: t.OID, Name: t.Name, Drop: true})
	}
	t.Phase, t.Reason = to, nil
	t.Judge = t.Judge && to == Waiting // what somebody asked for is done, or void
	t.Whole = t.Whole || to == Live
	if to == Parked {
		t.Reason = s.brief(r, t.Name)
	}
	if from != to || to == Parked {
		s.record(Event{Table: t.Name, From: from, To: to, By: by}, r)
	}
}

// astray notes a change of phase that the machine does not have. The phase stays
// as it is: a mistake in a decision must not end the workflow, nor lose what the
// phase protects.
func (s *State) astray(m *machine, from Phase, on event, table, by string) {
	s.record(Event{Table: table, From: from, To: from, By: by}, &activities.Reason{
		Code: activities.CodeInternal, Message: fmt.Sprintf("no arrow leads from %s %q on %s", m.kind, from, on),
	})
}

// record keeps a change of phase.
func (s *State) record(e Event, r *activities.Reason) {
	if s.now != nil {
		e.At = s.now().UTC().Format(time.RFC3339)
	}
	if r != nil {
		e.Code = r.Code
		if e.From == e.To {
			e.Note = shorten(r.Message, 2*short)
		}
	}
	s.Events = append(s.Events, e)
	if n := len(s.Events) - keptEvents; n > 0 {
		s.Events = append(s.Events[:0], s.Events[n:]...)
	}
}
