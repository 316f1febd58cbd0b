package control

import (
	"context"
	"crypto/rand"
	"fmt"
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

// shortHistory is the retention of a namespace below which the doctor remarks on
// it.
const shortHistory = 24 * time.Hour

// DoctorTemporal says what is wrong with the namespace, and which queues of the
// databases nobody serves.
func (c *Client) DoctorTemporal(ctx context.Context, chosen []*fleet.Database) ([]activities.Problem, error) {
	var problems []activities.Problem
	if err := c.Initialised(ctx); err != nil {
		problems = append(problems, activities.Problem{
			Code: "TEMPORAL_ATTRIBUTES", Sentence: err.Error(), Blocking: true,
			Remedy: fmt.Sprintf("%s init --fleet %s", c.self, activities.ShellWord(c.file.Name)),
		})
	}
	ns := c.file.Temporal.Namespace
	desc, err := c.service.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: ns})
	if err != nil {
		return nil, c.explain(err)
	}
	if kept := desc.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration(); kept < shortHistory {
		problems = append(problems, activities.Problem{
			Code:     "TEMPORAL_RETENTION",
			Sentence: fmt.Sprintf("the namespace %q keeps what has ended for %s alone: the history of a database that was removed, and of proofs, is soon gone", ns, kept),
			Remedy:   fmt.Sprintf("temporal operator namespace update --namespace %s --retention 168h --address %s", activities.ShellWord(ns), c.file.Temporal.Address),
		})
	}
	var pools []string
	for _, db := range chosen {
		if !slices.Contains(pools, db.Pool) {
			pools = append(pools, db.Pool)
		}
	}
	for _, pool := range pools {
		idle, err := c.idle(ctx, chosen[0].Region, pool)
		if err != nil {
			return nil, err
		}
		if len(idle) == 0 {
			continue
		}
		problems = append(problems, activities.Problem{
			Code:     activities.CodeNoWorker,
			Sentence: "no worker serves the task queues " + strings.Join(idle, ", ") + "; databases of the pool stand still until one does",
			Remedy:   c.noWorker(idle[0]).(*NoWorkerError).Command,
		})
	}
	return problems, nil
}

// idle lists the queues of a pool that Temporal has seen no worker at.
func (c *Client) idle(ctx context.Context, region, pool string) (queues []string, err error) {
	for _, lane := range workflows.Lanes {
		queue := workflows.Queue(region, pool, lane)
		kind := enumspb.TASK_QUEUE_TYPE_ACTIVITY
		if lane == workflows.LaneControl {
			kind = enumspb.TASK_QUEUE_TYPE_WORKFLOW
		}
		ask, cancel := context.WithTimeout(ctx, servedLimit)
		desc, err := c.sdk.DescribeTaskQueue(ask, queue, kind)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("ask for the workers of task queue %s: %w", queue, c.explain(err))
		}
		if len(desc.GetPollers()) == 0 {
			queues = append(queues, queue)
		}
	}
	return queues, nil
}

// Doctor has a worker look at a database's source, topic and lake. Where nobody
// serves its queue, the error is a [NoWorkerError].
func (c *Client) Doctor(ctx context.Context, db *fleet.Database) (activities.DoctorResult, error) {
	var out activities.DoctorResult
	queue := workflows.Queue(db.Region, db.Pool, workflows.LaneControl)
	switch served, err := c.served(ctx, queue); {
	case err != nil:
		return out, c.explain(err)
	case !served:
		return out, c.noWorker(queue)
	}
	ctx, cancel := context.WithTimeout(ctx, planLimit)
	defer cancel()
	run, err := c.sdk.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID:                       c.id(db.Name) + "/doctor/" + rand.Text(),
		TaskQueue:                queue,
		WorkflowExecutionTimeout: planLimit,
	}, workflows.DoctorWorkflow, activities.DoctorInput{DB: *db})
	if err == nil {
		err = run.Get(ctx, &out)
	}
	switch {
	case err == nil:
		return out, nil
	case ctx.Err() != nil:
		return out, c.noWorker(queue)
	}
	return out, fmt.Errorf("examine %s: %w", db.Name, cause(err, c.explain))
}
