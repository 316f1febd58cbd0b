package control

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/workflows"
)

// planLimit is how long the source of one database may take to be looked at.
const planLimit = 75 * time.Second

// Plan is what applying a fleet file would do.
type Plan struct {
	Region    string          `json:"region"`
	Databases []*DatabasePlan `json:"databases"`
}

// Action is what applying a file does with a database.
type Action string

// The actions.
const (
	// AddDatabase begins a mirror.
	AddDatabase Action = "add"
	// ChangeDatabase changes one.
	ChangeDatabase Action = "change"
	// KeepDatabase leaves one as it is; what is parked in it is tried again.
	KeepDatabase Action = "keep"
	// OrphanDatabase is one that runs and that the file does not hold: nothing is
	// done with it.
	OrphanDatabase Action = "orphan"
	// UnknownDatabase is one that could not be asked.
	UnknownDatabase Action = "unknown"
)

// DatabasePlan is what applying a file does with one database.
type DatabasePlan struct {
	Name   string `json:"name"`
	Action Action `json:"action"`
	// Pool is where it will be; Phase is that of now, empty where nothing runs.
	Pool  string          `json:"pool"`
	Phase workflows.Phase `json:"phase,omitempty"`
	// Changes are of the database as a whole.
	Changes []PlannedChange `json:"changes"`
	// Tables are those that are added, dropped or changed.
	Tables []workflows.PlannedTable `json:"tables"`
	// Paused tells that its lanes stop for seconds and start again. Copied counts
	// the tables that are copied, Rows and Bytes what the source's catalog
	// estimates for them, and Unestimated those of which it knows no rows.
	Paused      bool  `json:"paused"`
	Copied      int   `json:"copied"`
	Rows        int64 `json:"rows"`
	Bytes       int64 `json:"bytes"`
	Unestimated int   `json:"unestimated"`
	// Problems stand in the way at the source, or are remarks on it.
	Problems []activities.Problem `json:"problems"`
	// Refused is why it will not be applied, with what to do; empty where it will.
	Refused string `json:"refused,omitempty"`
	// NeedsYes tells that it is applied with --yes alone: tables leave the mirror.
	NeedsYes bool `json:"needs_yes,omitempty"`
	// Notes say what else there is to know.
	Notes []string `json:"notes,omitempty"`
	// Reason is why the plan is not whole: a worker or the source did not answer.
	Reason *Reason `json:"reason,omitempty"`

	revision string
}

// PlannedChange is a change of a database as a whole and what it costs.
type PlannedChange struct {
	fleet.Change
	Cost fleet.Cost `json:"cost"`
}

// Survey is which databases run in the namespace, by region and name.
type Survey struct {
	regions map[string][]string // by name
	idle    map[string]error    // queues that were found to be served by nobody
}

// Unserved notes the queue of a [NoWorkerError], so that the next database of it
// is not waited for in vain. Other errors are passed over.
func (s *Survey) Unserved(err error) {
	var none *NoWorkerError
	if errors.As(err, &none) {
		s.idle[none.Queue] = err
	}
}

// Survey asks Temporal which databases run. What was started or ended within the
// last second may be missing from it.
func (c *Client) Survey(ctx context.Context) (*Survey, error) {
	s := &Survey{regions: map[string][]string{}, idle: map[string]error{}}
	var page []byte
	for {
		ctx, cancel := context.WithTimeout(ctx, answerLimit)
		list, err := c.sdk.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Namespace: c.file.Temporal.Namespace, NextPageToken: page,
			Query: fmt.Sprintf("WorkflowType = '%s' AND ExecutionStatus = 'Running'", workflows.DatabaseWorkflow),
		})
		cancel()
		if err != nil {
			return nil, fmt.Errorf("list the databases that run: %w", c.explain(err))
		}
		for _, e := range list.GetExecutions() {
			if region, name, ok := workflows.ParseDatabaseID(e.GetExecution().GetWorkflowId()); ok {
				s.regions[name] = append(s.regions[name], region)
			}
		}
		if page = list.GetNextPageToken(); len(page) == 0 {
			return s, nil
		}
	}
}

// Plan says what applying databases of the file would do, and, where all are
// meant, which run that the file does not hold. It changes nothing. Without a plan
// the error is of Temporal itself; with one it is the first of a database, such as
// a [NoWorkerError] where nobody serves its queue: the plan has all others then.
func (c *Client) Plan(ctx context.Context, chosen []*fleet.Database, all bool) (*Plan, error) {
	if err := c.Initialised(ctx); err != nil {
		return nil, err
	}
	survey, err := c.Survey(ctx)
	if err != nil {
		return nil, err
	}
	plan := &Plan{Region: c.file.Region, Databases: []*DatabasePlan{}}
	var first error
	for _, db := range chosen {
		p, err := c.PlanDatabase(ctx, survey, db, true)
		var away *unreachableError
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.As(err, &away):
			return nil, err
		case p == nil:
			p = newPlan(db.Name, UnknownDatabase)
			p.Pool, p.Refused = db.Pool, err.Error()
		}
		first = cmp.Or(first, err)
		plan.Databases = append(plan.Databases, p)
	}
	if all {
		plan.Databases = append(plan.Databases, c.orphans(survey)...)
	}
	return plan, first
}

// orphans are the databases that run in the region and that the file does not
// hold.
func (c *Client) orphans(s *Survey) []*DatabasePlan {
	var left []*DatabasePlan
	for name, regions := range s.regions {
		if _, err := c.file.Database(name); err == nil || !slices.Contains(regions, c.file.Region) {
			continue
		}
		p := newPlan(name, OrphanDatabase)
		p.Notes = []string{
			fmt.Sprintf("it is not in %s, and goes on; to end its mirror: %s remove %s --yes --fleet %s", c.file.Name, c.self, name, activities.ShellWord(c.file.Name)),
			"to have another region go on with it: remove it with --keep-slot, and apply it there",
		}
		left = append(left, p)
	}
	slices.SortFunc(left, func(a, b *DatabasePlan) int { return strings.Compare(a.Name, b.Name) })
	return left
}

func newPlan(name string, action Action) *DatabasePlan {
	return &DatabasePlan{Name: name, Action: action, Changes: []PlannedChange{}, Tables: []workflows.PlannedTable{}, Problems: []activities.Problem{}}
}

// PlanDatabase says what applying one database would do. Without ask its source
// is left alone: what is added and copied is then not known. Where nobody serves its
// queue, the error is a [NoWorkerError] and the plan says what is known.
func (c *Client) PlanDatabase(ctx context.Context, s *Survey, db *fleet.Database, ask bool) (*DatabasePlan, error) {
	queue := workflows.Queue(db.Region, db.Pool, workflows.LaneControl)
	if err := s.idle[queue]; err != nil {
		p := newPlan(db.Name, AddDatabase)
		if p.Pool = db.Pool; slices.Contains(s.regions[db.Name], db.Region) {
			p.Action = UnknownDatabase
		}
		p.unserved(err)
		return p, err
	}
	planned, err := request[workflows.Planned](ctx, c, db.Name, workflows.Plan, workflows.PlanInput{Config: *db, Unasked: !ask}, planLimit)
	p := newPlan(db.Name, ChangeDatabase)
	p.Pool = db.Pool
	if errors.Is(err, ErrNotApplied) {
		p.Action = AddDatabase
		if err := c.elsewhere(ctx, s, db, p); err != nil {
			return nil, err
		}
		if !ask {
			return p, nil
		}
		planned, err = c.foresee(ctx, db)
	} else if err != nil {
		p.Action = UnknownDatabase
	}
	switch {
	case p.unserved(err):
		s.Unserved(err)
		return p, err
	case err != nil:
		return nil, err
	}
	p.take(&planned)
	for _, change := range p.Changes {
		if change.Key == "pool" {
			if served, err := c.served(ctx, queue); err == nil && !served {
				var none *NoWorkerError
				errors.As(c.noWorker(queue), &none)
				p.Notes = append(p.Notes, "no worker serves pool "+db.Pool+" yet, and the database stands still until one does: "+none.Command)
			}
		}
	}
	return p, nil
}

// unserved notes that nobody serves the database's queue, where an error says so.
func (p *DatabasePlan) unserved(err error) bool {
	var idle *NoWorkerError
	if !errors.As(err, &idle) {
		return false
	}
	p.Reason = &Reason{Code: string(activities.CodeNoWorker), Message: "no worker serves task queue " + idle.Queue, Remedy: idle.Command}
	return true
}

// take carries over what a workflow has planned.
func (p *DatabasePlan) take(planned *workflows.Planned) {
	p.Phase, p.Tables, p.revision = planned.Phase, planned.Tables, planned.Revision
	if p.Tables == nil {
		p.Tables = []workflows.PlannedTable{}
	}
	p.Problems = append(p.Problems, planned.Problems...)
	p.Reason = reasonOf(planned.Unasked)
	for _, change := range planned.Changes {
		p.Changes = append(p.Changes, PlannedChange{change, change.Cost()})
	}
	for i := range p.Tables {
		t := &p.Tables[i]
		p.NeedsYes = p.NeedsYes || t.Act == workflows.DropTable
		if !t.Copied {
			continue
		}
		p.Copied++
		p.Rows += max(t.Rows, 0)
		p.Bytes += t.Bytes
		if t.Rows < 0 {
			p.Unestimated++
		}
	}
	switch {
	case !planned.Running:
	case planned.Changed:
		p.Paused = true
	case len(p.Tables) == 0:
		p.Action = KeepDatabase
	}
}

// foresee asks a workflow of its own about a database that does not run.
func (c *Client) foresee(ctx context.Context, db *fleet.Database) (workflows.Planned, error) {
	var planned workflows.Planned
	queue := workflows.Queue(db.Region, db.Pool, workflows.LaneControl)
	switch served, err := c.served(ctx, queue); {
	case err != nil:
		return planned, c.explain(err)
	case !served:
		return planned, c.noWorker(queue)
	}
	ctx, cancel := context.WithTimeout(ctx, planLimit)
	defer cancel()
	run, err := c.sdk.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                       c.id(db.Name) + "/plan/" + rand.Text(),
		TaskQueue:                queue,
		WorkflowExecutionTimeout: planLimit,
	}, workflows.PlanWorkflow, workflows.PlanInput{Config: *db})
	if err == nil {
		err = run.Get(ctx, &planned)
	}
	switch {
	case err == nil:
		return planned, nil
	case ctx.Err() != nil:
		return planned, c.noWorker(queue)
	}
	return planned, fmt.Errorf("plan %s: %w", db.Name, cause(err, c.explain))
}

// elsewhere looks whether a database that does not run here runs in another
// region: two mirrors of one source would fight over its slot.
func (c *Client) elsewhere(ctx context.Context, s *Survey, db *fleet.Database, p *DatabasePlan) error {
	for _, region := range s.regions[db.Name] {
		if region == db.Region {
			continue
		}
		var there fleet.Database
		ctx, cancel := context.WithTimeout(ctx, idleLimit)
		value, err := c.sdk.QueryWorkflow(ctx, workflows.DatabaseID(region, db.Name), "", workflows.ConfigQuery)
		cancel()
		if err == nil {
			err = value.Get(&there)
		}
		switch {
		case err != nil:
			p.Notes = append(p.Notes, fmt.Sprintf("a database of this name runs in region %s, whose workers do not say which; if it is the same, it has to be removed there first", region))
		case !sameServer(there.URL, db.URL):
		default:
			p.Refused = fmt.Sprintf("it runs in region %s; to change the region of a database, first: %s remove %s --keep-slot --yes, with the file of region %s", region, c.self, db.Name, region)
			if there.Lake != db.Lake || there.Topic.Name != db.Topic.Name {
				p.Notes = append(p.Notes, "its lake or its topic is another here, so that every table is copied anew: remove it there without --keep-slot")
			} else {
				p.Notes = append(p.Notes, "with the same brokers and the same lake its tables go on without a copy")
			}
		}
	}
	return nil
}

// sameServer tells whether two urls lead to the same database by the same
// address.
func sameServer(a, b string) bool {
	x, errX := url.Parse(a)
	y, errY := url.Parse(b)
	return errX == nil && errY == nil && x.Host == y.Host && x.Path == y.Path && x.Query().Get("host") == y.Query().Get("host")
}

// Carry applies one database as it was planned: a database that runs is told by
// an update, and says so if it was given another configuration meanwhile. Where
// nobody serves its queue, the request is kept.
func (c *Client) Carry(ctx context.Context, db *fleet.Database, p *DatabasePlan, yes bool) error {
	in := workflows.ApplyInput{Config: *db, Yes: yes, Revision: p.revision}
	if p.Action == ChangeDatabase || p.Action == KeepDatabase {
		_, err := request[workflows.Accepted](ctx, c, db.Name, workflows.Apply, in, answerLimit)
		return err
	}
	return c.start(ctx, in)
}

// start starts the database's workflow, or tells the one that runs, by
// signal-with-start: the request survives where no worker is there.
func (c *Client) start(ctx context.Context, in workflows.ApplyInput) error {
	db := &in.Config
	id := workflows.DatabaseID(db.Region, db.Name)
	_, err := c.sdk.SignalWithStartWorkflow(ctx, id, workflows.Apply, in,
		client.StartWorkflowOptions{
			ID:                    id,
			TaskQueue:             workflows.Queue(db.Region, db.Pool, workflows.LaneControl),
			WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		}, workflows.DatabaseWorkflow, workflows.DatabaseInput{Config: *db})
	if err != nil {
		return fmt.Errorf("apply %s: %w", db.Name, c.explain(err))
	}
	return nil
}
