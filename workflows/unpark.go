package workflows

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
)

// Ways in which what is parked goes on.
const (
	// ByPreparing prepares the database again; its tables go on where they stopped.
	ByPreparing = "prepare"
	// ByCatchingUp brings latest up from history, and reads the rest from Kafka.
	ByCatchingUp = "catch-up"
	// ByCopying copies a table that has no whole copy yet, or whose copy is due.
	ByCopying = "copy"
	// ByRecopying copies a table again: every row is read at the source.
	ByRecopying = "recopy"
	// ByNewEpoch gives the database another slot, in which every table is copied
	// again.
	ByNewEpoch = "new-epoch"
)

// UnparkInput continues what is parked. With Unpark as a query it asks what that
// would do.
type UnparkInput struct {
	// Tables are those to go on (schema.table); none means the database, if it is
	// parked, and all of its tables that are.
	Tables []string `json:"tables,omitempty"`
	// Recopy permits to copy tables again; without it, a request that would is
	// refused.
	Recopy bool `json:"recopy,omitempty"`
	// NewEpoch gives the database another slot, whether it is parked or not, where
	// the changes that the former one held are lost: every table is copied again,
	// and what was deleted meanwhile leaves latest. It goes without Tables.
	NewEpoch bool `json:"new_epoch,omitempty"`
}

// UnparkPlan is what a request to unpark does.
type UnparkPlan struct {
	Database string       `json:"database"`
	Steps    []UnparkStep `json:"steps"`
}

// UnparkStep is how the database or one of its tables goes on.
type UnparkStep struct {
	// Table is schema.table; empty for the database.
	Table string `json:"table,omitempty"`
	// Reason is why it is parked.
	Reason *activities.Reason `json:"reason"`
	// How is one of ByPreparing, ByCatchingUp, ByCopying, ByRecopying, ByNewEpoch.
	How string `json:"how"`
	// Rows are those that the last copy read, where it is to be copied again.
	Rows int64 `json:"rows,omitempty"`
}

// Recopied lists the tables that are copied again.
func (p *UnparkPlan) Recopied() (names []string) {
	for _, s := range p.Steps {
		if s.How == ByRecopying {
			names = append(names, s.Table)
		}
	}
	return names
}

// unparking says what unparking some tables does, or everything of the database.
func (s *State) unparking(in UnparkInput) (UnparkPlan, error) {
	p, names := UnparkPlan{Database: s.Config.Name}, in.Tables
	switch {
	case s.Phase == Removing:
		return p, errRemoving
	case in.NewEpoch:
		return s.beginning(in)
	}
	chosen, err := s.chosen(names)
	if err != nil {
		return p, err
	}
	if len(names) == 0 {
		if s.Phase == Parked {
			p.Steps = append(p.Steps, UnparkStep{Reason: s.Reason, How: ByPreparing})
		}
		chosen = s.in(Parked)
	}
	for _, t := range chosen {
		if t.Phase != Parked {
			return p, fmt.Errorf("table %s is %s, not parked", t.Name, t.Phase)
		}
		step := UnparkStep{Table: t.Name, Reason: t.Reason, How: ByCatchingUp}
		switch again := activities.CopiesAgain(t.Reason.Code); {
		case t.Recopy || !t.Whole && t.At == "":
			step.How = ByCopying
		case again:
			step.How, step.Rows = ByRecopying, t.Rows
		}
		p.Steps = append(p.Steps, step)
	}
	if len(p.Steps) == 0 {
		return p, fmt.Errorf("nothing of database %s is parked", s.Config.Name)
	}
	return p, nil
}

// chosen returns the tables of some names, each once.
func (s *State) chosen(names []string) (chosen []*TableState, err error) {
	for _, name := range names {
		t := s.named(name)
		if t == nil {
			return nil, fmt.Errorf("no table %q is mirrored here", name)
		}
		if !slices.Contains(chosen, t) {
			chosen = append(chosen, t)
		}
	}
	return chosen, nil
}

// in returns the tables in a phase, by name.
func (s *State) in(p Phase) (tables []*TableState) {
	for i := range s.Tables {
		if s.Tables[i].Phase == p {
			tables = append(tables, &s.Tables[i])
		}
	}
	slices.SortFunc(tables, func(a, b *TableState) int { return cmp.Compare(a.Name, b.Name) })
	return tables
}

func (d *database) mayUnpark(in UnparkInput) error {
	p, err := d.s.unparking(in)
	if err != nil {
		return err
	}
	if names := p.Recopied(); len(names) > 0 && !in.Recopy {
		return fmt.Errorf("%s would be copied again; recopy: true permits that", enumerate(names, 20))
	}
	return nil
}

// unpark lets what is parked go on, each in its way.
func (d *database) unpark(ctx workflow.Context, in UnparkInput) {
	if err := d.mayUnpark(in); err != nil {
		d.note(ctx, Unpark, "refused: "+err.Error())
		return
	}
	switch {
	case in.NewEpoch:
		d.begin()
	case len(in.Tables) == 0 && d.s.Phase == Parked:
		d.anew(resumes, Unpark)
	default:
		tables := d.s.in(Parked)
		if len(in.Tables) > 0 {
			tables, _ = d.s.chosen(in.Tables)
		}
		d.goOn(tables, Unpark)
	}
	d.note(ctx, Unpark, "accepted"+about(in.Tables))
}

// goOn has tables that are paused or parked judged by a look that begins now,
// while all others go on.
func (d *database) goOn(tables []*TableState, by string) {
	d.reports++
	for _, t := range tables {
		d.heard[t.OID] = d.reports
		d.s.retry(t, by)
	}
}

func (d *database) mayPause(in PauseInput) error {
	if err := d.alive(); err != nil {
		return err
	}
	tables, err := d.s.chosen(in.Tables)
	if err != nil {
		return err
	}
	if len(tables) > 0 && in.Capture {
		return errors.New("capture is of the whole database; it cannot be paused for single tables")
	}
	for _, t := range tables {
		if t.Phase == Parked {
			return fmt.Errorf("table %s is parked, and so is not written to: %s", t.Name, describe(t.Reason))
		}
	}
	return nil
}

// pauseTables stops writing to some tables: their changes wait in Kafka.
func (d *database) pauseTables(tables []*TableState) {
	for _, t := range tables {
		if t.Phase != Paused {
			d.s.move(t, pauses, nil, Pause)
		}
	}
	d.restart(committing)
}

func (d *database) mayResume(in ResumeInput) error {
	if err := d.alive(); err != nil {
		return err
	}
	tables, err := d.s.chosen(in.Tables)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if t.Phase != Paused && t.Phase != Parked {
			return fmt.Errorf("table %s is %s, neither paused nor parked", t.Name, t.Phase)
		}
	}
	return nil
}

// about names tables in the outcome of a request.
func about(tables []string) string {
	if len(tables) == 0 {
		return ""
	}
	return ": " + strings.Join(tables, ", ")
}
