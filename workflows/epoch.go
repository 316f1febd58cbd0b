package workflows

import (
	"errors"
	"fmt"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
)

// NewEpoch is a request to begin an epoch.
type NewEpoch struct {
	// Skip passes over what the topic holds from before: it cannot be read.
	Skip bool `json:"skip,omitempty"`
}

// beginning says what a new epoch does.
func (s *State) beginning(in UnparkInput) (UnparkPlan, error) {
	p := UnparkPlan{Database: s.Config.Name}
	switch {
	case len(in.Tables) > 0:
		return p, errors.New("a slot, and so an epoch, is of the whole database; leave out the tables")
	case s.Phase == Paused:
		return p, fmt.Errorf("database %s is paused: millrace resume %s", s.Config.Name, s.Config.Name)
	case s.Epoch == 0:
		return p, fmt.Errorf("database %s has no slot yet: millrace resume %s", s.Config.Name, s.Config.Name)
	}
	p.Steps = append(p.Steps, UnparkStep{Reason: s.reason(), How: ByNewEpoch})
	for i := range s.Tables {
		if t := &s.Tables[i]; t.Phase != Gone {
			p.Steps = append(p.Steps, UnparkStep{Table: t.Name, Reason: t.Reason, How: ByRecopying, Rows: t.Rows})
		}
	}
	return p, nil
}

// begin has the next preparation begin an epoch, in which every table is copied
// again. Whatever becomes of the preparation, the request stands until one has.
func (d *database) begin() {
	d.s.NewEpoch = &NewEpoch{Skip: d.s.unreadable()}
	d.s.Prepared = false
	if d.s.Copy != nil {
		d.s.Copy.Stopping = true
	}
	for i := range d.s.Tables {
		if t := &d.s.Tables[i]; t.Phase != Gone {
			t.Recopy = true
		}
	}
	d.anew(resumes, Unpark)
}

// unreadable tells that something is parked because of what the topic holds, so
// that it would park again where the topic is read from before the epoch.
func (s *State) unreadable() bool {
	if s.Reason != nil && activities.Unreadable(s.Reason.Code) {
		return true
	}
	for i := range s.Tables {
		// A copy mends a gap in one table's records.
		if r := s.Tables[i].Reason; r != nil && activities.Unreadable(r.Code) && !activities.CopiesAgain(r.Code) {
			return true
		}
	}
	return false
}

// begun takes over where an epoch begins in the topic.
func (d *database) begun(out *activities.PrepareResult) {
	if d.s.NewEpoch == nil {
		return
	}
	if d.s.NewEpoch.Skip || d.s.Floor != nil {
		d.s.Floor = out.Floor
		d.forget()
	}
	d.s.NewEpoch = nil
}

// mayBeginNow has a worker ask the source whether an epoch could begin there,
// before anything changes.
func (d *database) mayBeginNow(ctx workflow.Context, in UnparkInput) error {
	if !in.NewEpoch {
		return nil
	}
	ask := activities.PreviewInput{DB: d.s.Config, Anew: true}
	var p Planned
	if err := p.ask(ctx, d.queue(LaneControl), ask); err != nil {
		return err
	}
	if p.Unasked != nil {
		return refusal("the source could not be asked: " + describe(p.Unasked))
	}
	for i := range p.Problems {
		if b := &p.Problems[i]; b.Blocking && b.Table == "" {
			return refusal(string(b.Code) + ": " + b.Sentence + "; " + b.Remedy)
		}
	}
	if err := d.mayUnpark(in); err != nil { // it may have changed meanwhile
		return refusal(err.Error())
	}
	return nil
}

// refusal is the answer to an update that is refused after it was accepted.
func refusal(text string) error {
	return temporal.NewNonRetryableApplicationError(text, "REFUSED", nil)
}
