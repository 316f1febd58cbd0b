package workflows

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
)

// PlanInput asks what it would mean to apply a configuration.
type PlanInput struct {
	Config fleet.Database `json:"config"`
	// Unasked leaves the source alone: what would be added and copied is then not
	// known.
	Unasked bool `json:"unasked,omitempty"`
}

// Planned is the answer to Plan, and the result of the Plan workflow. It changes
// nothing.
type Planned struct {
	// Running tells that the database is mirrored now; Phase is its phase, and
	// Revision stands for the configuration that it has, for ApplyInput.
	Running  bool   `json:"running"`
	Phase    Phase  `json:"phase,omitempty"`
	Revision string `json:"revision"`
	// Changed tells that to apply the configuration would change what is stored,
	// even where no table feels it.
	Changed bool `json:"changed"`
	// Changes are those of the database as a whole, a move to another pool among
	// them.
	Changes []fleet.Change `json:"changes,omitempty"`
	// Tables are those that are added, dropped or changed, by name. Where the
	// source could not be asked, those that are added are not among them.
	Tables []PlannedTable `json:"tables,omitempty"`
	// Problems are what stands in the way at the source, and remarks.
	Problems []activities.Problem `json:"problems,omitempty"`
	// Unasked is why the source could not be asked.
	Unasked *activities.Reason `json:"unasked,omitempty"`
}

// Dropped lists the tables that would leave the mirror.
func (p *Planned) Dropped() (names []string) {
	for i := range p.Tables {
		if p.Tables[i].Act == DropTable {
			names = append(names, p.Tables[i].Name)
		}
	}
	return names
}

// TableAct is what is to become of a table.
type TableAct string

// The acts.
const (
	AddTable    TableAct = "add"
	DropTable   TableAct = "drop"
	ChangeTable TableAct = "change"
)

// PlannedTable is what is to become of one table.
type PlannedTable struct {
	Name string   `json:"name"`
	Act  TableAct `json:"act"`
	// Changes are those of its options, where it stays.
	Changes []fleet.Change `json:"changes,omitempty"`
	// Copied tells that it will be copied. Rows and Bytes are the catalog's
	// estimates; Rows is -1 where it has none.
	Copied bool  `json:"copied"`
	Rows   int64 `json:"rows"`
	Bytes  int64 `json:"bytes"`
}

// Foresee is the Plan workflow: what it would mean to apply a database that is
// not mirrored yet. One that is answers the update of the same name.
func Foresee(ctx workflow.Context, in PlanInput) (Planned, error) {
	if err := judge(&in.Config); err != nil {
		return Planned{}, temporal.NewNonRetryableApplicationError("configuration of the database: "+err.Error(), "CONFIG", err)
	}
	p := Planned{Revision: revision(&in.Config), Changed: true}
	err := p.ask(ctx, Queue(in.Config.Region, in.Config.Pool, LaneControl), activities.PreviewInput{DB: in.Config})
	return p, err
}

func (d *database) mayPlan(in PlanInput) error { return d.mayBe(&in.Config) }

// plan answers the update Plan.
func (d *database) plan(ctx workflow.Context, in PlanInput) (Planned, error) {
	next := &in.Config
	p := Planned{
		Running: true, Phase: d.s.Phase, Revision: revision(&d.s.Config),
		Changed: !same(d.s.Config, *next), Changes: d.s.Config.Changes(next),
	}
	ask := activities.PreviewInput{DB: *next, Running: true, SystemID: d.s.SystemID, Timeline: d.s.Timeline}
	for i := range d.s.Tables {
		t := &d.s.Tables[i]
		if t.Phase == Gone {
			continue
		}
		known := activities.PreviewKnown{OID: t.OID}
		if schema, name, mirrored := placed(next, t.Name); mirrored {
			before, after := d.s.Config.Table(schema, name), next.Table(schema, name)
			changes := fleet.Changes(&before, &after)
			known.Recopied = d.s.Config.Lake != next.Lake || slices.ContainsFunc(changes, copies)
			if len(changes) > 0 || known.Recopied {
				p.Tables = append(p.Tables, PlannedTable{Name: t.Name, Act: ChangeTable, Changes: changes, Copied: known.Recopied, Rows: -1})
			}
		} else {
			p.Tables = append(p.Tables, PlannedTable{Name: t.Name, Act: DropTable})
		}
		ask.Known = append(ask.Known, known)
	}
	if in.Unasked {
		return p, nil
	}
	err := p.ask(ctx, d.queue(LaneControl), ask)
	return p, err
}

// ask adds what the source and the lake have to do with a configuration. That
// they cannot be asked is part of the answer.
func (p *Planned) ask(ctx workflow.Context, queue string, in activities.PreviewInput) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: queue, ScheduleToStartTimeout: 10 * time.Second, StartToCloseTimeout: time.Minute,
		HeartbeatTimeout: in.DB.HeartbeatTimeout, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1},
	})
	var seen activities.PreviewResult
	if err := workflow.ExecuteActivity(ctx, steps.Preview, in).Get(ctx, &seen); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f := failure(ctx, &in.DB, queue, err)
		p.Unasked = &f.Reason
		return nil
	}
	p.Problems = seen.Problems
	for _, t := range seen.Tables {
		i := slices.IndexFunc(p.Tables, func(have PlannedTable) bool { return have.Name == t.Name && have.Act == ChangeTable })
		if i < 0 {
			p.Tables = append(p.Tables, PlannedTable{Name: t.Name, Act: AddTable, Copied: t.Copied})
			i = len(p.Tables) - 1
		}
		p.Tables[i].Rows, p.Tables[i].Bytes = t.Rows, t.Bytes
	}
	slices.SortStableFunc(p.Tables, func(a, b PlannedTable) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// revision stands for a configuration: two that are equal have the same.
func revision(db *fleet.Database) string {
	b, err := json.Marshal(db)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// placed splits the name of a table that is mirrored at the dot by which a
// configuration mirrors it, else at its first. Schemas can hold dots.
func placed(db *fleet.Database, full string) (schema, name string, mirrored bool) {
	for i := range len(full) {
		if full[i] == '.' && db.Mirrors(full[:i], full[i+1:]) {
			return full[:i], full[i+1:], true
		}
	}
	schema, name, _ = strings.Cut(full, ".")
	return schema, name, false
}

// Why a configuration is not taken over.
var (
	errApplying = errors.New("another configuration is being applied; apply again when millrace status shows that it has ended")
	errReplaced = errors.New("another configuration was applied since this one was planned; plan it again")
)

// mayBe refuses configurations that are not this database's.
func (d *database) mayBe(next *fleet.Database) error {
	if err := d.alive(); err != nil {
		return err
	}
	if err := judge(next); err != nil {
		return err
	}
	if next.Name != d.s.Config.Name || next.Region != d.s.Config.Region {
		return fmt.Errorf("this is database %s of region %s, not %s of %s", d.s.Config.Name, d.s.Config.Region, next.Name, next.Region)
	}
	return nil
}

// mayApply refuses a configuration that was planned upon another one than that
// of now, and one that drops tables without saying so.
func (d *database) mayApply(in ApplyInput) error {
	if err := d.mayBe(&in.Config); err != nil {
		return err
	}
	if same(d.s.Config, in.Config) {
		return nil
	}
	if in.Revision != "" && in.Revision != revision(&d.s.Config) {
		return errReplaced
	}
	var leave []string
	for i := range d.s.Tables {
		if t := &d.s.Tables[i]; t.Phase != Gone {
			if _, _, mirrored := placed(&in.Config, t.Name); !mirrored {
				leave = append(leave, t.Name)
			}
		}
	}
	if len(leave) > 0 && !in.Yes {
		return fmt.Errorf("%s would leave the mirror and the publication (the lake keeps what it has): apply it with --yes, as an input with yes: true", enumerate(leave, 5))
	}
	return nil
}

// mayApplyNow refuses a configuration while another one is being applied and
// nothing is in its way. What is kept until a worker comes is not refused so:
// the last request counts.
func (d *database) mayApplyNow(in ApplyInput) error {
	if err := d.mayApply(in); err != nil {
		return err
	}
	if d.s.Phase == Preparing && d.s.reason() == nil && !same(d.s.Config, in.Config) {
		return errApplying
	}
	return nil
}

// reconfigure takes over a configuration. Tables whose options say now what is
// written otherwise are copied again.
func (d *database) reconfigure(next fleet.Database) {
	for i := range d.s.Tables {
		t := &d.s.Tables[i]
		schema, name, mirrored := placed(&next, t.Name)
		if !mirrored || t.Phase == Gone {
			continue
		}
		before, after := d.s.Config.Table(schema, name), next.Table(schema, name)
		if slices.ContainsFunc(fleet.Changes(&before, &after), copies) {
			t.Recopy = true
		}
	}
	d.s.Config = next
}

// copies tells that a change has a table copied again.
func copies(c fleet.Change) bool { return c.Cost() == fleet.CostCopy }

// enumerate lists the first names of many.
func enumerate(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d others", strings.Join(names[:most], ", "), len(names)-most)
}

// mayRemove refuses a request that contradicts itself, or the removal that has
// begun.
func (d *database) mayRemove(in RemoveInput) error {
	switch begun := d.s.Remove; {
	case in.KeepSlot && in.Purge:
		return errors.New("a slot is kept for a mirror that goes on elsewhere with the same topic and lake, which purge would delete")
	case begun != nil && (begun.KeepSlot != in.KeepSlot || begun.Purge != in.Purge):
		return errors.New("the database is being removed already, with another choice of what stays")
	}
	return nil
}

// forced is the command that ends a removal although something cannot be reached.
func (s *State) forced() string {
	command := "millrace remove " + s.Config.Name + " --yes"
	if s.Remove.Purge {
		command += " --purge"
	}
	return command + " --force"
}

// purge deletes what the mirror made outside the source, once that is dropped.
func (d *database) purge(ctx workflow.Context, queue string) ([]string, error) {
	if !d.s.Remove.Purge {
		return nil, nil
	}
	var out activities.PurgeResult
	err := workflow.ExecuteActivity(d.options(ctx, queue, fetchWithin, boxed), steps.Purge, activities.PurgeInput{DB: d.s.Config}).Get(ctx, &out)
	return out.Deleted, err
}
