// Package control talks to the workflows of a fleet through Temporal: it starts
// them, asks them and tells them. It needs no other credentials, and it never
// waits in silence: where Temporal or a worker is missing, an error says so
// within ten seconds, with what to do next.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/workflows"
)

// Limits on waiting for others. Together they stay below ten seconds.
const (
	// dialLimit bounds connecting to Temporal.
	dialLimit = 5 * time.Second
	// answerLimit is how long a worker may take to answer a query.
	answerLimit = 8 * time.Second
	// idleLimit is the same where Temporal has seen no worker lately; it leaves
	// time for one that is just starting.
	idleLimit = 4 * time.Second
	// servedLimit bounds asking whether a queue has workers.
	servedLimit = 1500 * time.Millisecond
	// poll is the time between two questions.
	poll = 200 * time.Millisecond
)

// ErrNotApplied is the class of errors about a database that has no workflow.
var ErrNotApplied = errors.New("not applied")

// NoWorkerError says that nobody serves a task queue.
type NoWorkerError struct {
	// Queue is the task queue that nobody serves.
	Queue string
	// Command starts a worker that does.
	Command string
}

// Error names the queue and the command.
func (e *NoWorkerError) Error() string {
	return fmt.Sprintf("no worker serves task queue %s; start one: %s", e.Queue, e.Command)
}

// unreachableError says that Temporal does not answer.
type unreachableError struct{ text string }

func (e *unreachableError) Error() string { return e.text }

// Options say how to reach a fleet's workflows.
type Options struct {
	// File is the fleet file.
	File *fleet.File
	// Self and Worker are the commands of the command line and of the worker,
	// for advice. Empty means millrace and millrace-worker.
	Self, Worker string
}

// Client talks to the workflows of one fleet file.
type Client struct {
	file    *fleet.File
	self    string
	worker  string
	sdk     client.Client
	service workflowservice.WorkflowServiceClient
}

// Open connects to Temporal and checks that the namespace exists.
func Open(ctx context.Context, o Options) (*Client, error) {
	c := &Client{file: o.File, self: o.Self, worker: o.Worker}
	if c.self == "" {
		c.self = "millrace"
	}
	if c.worker == "" {
		c.worker = "millrace-worker"
	}
	t := &o.File.Temporal
	tls, err := t.TLS.Config()
	if err != nil {
		return nil, fmt.Errorf("connect to Temporal: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	c.sdk, err = client.DialContext(ctx, client.Options{
		HostPort:          t.Address,
		Namespace:         t.Namespace,
		Logger:            log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
		ConnectionOptions: client.ConnectionOptions{TLS: tls, GetSystemInfoTimeout: dialLimit},
	})
	if err != nil {
		return nil, c.unreachable(err)
	}
	c.service = c.sdk.WorkflowService()
	if _, err := c.service.DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: t.Namespace}); err != nil {
		c.sdk.Close()
		return nil, c.explain(err)
	}
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() { c.sdk.Close() }

// unreachable says that Temporal is not there.
func (c *Client) unreachable(err error) error {
	hint := ""
	if c.file.Temporal.TLS != nil {
		hint = " (the connection uses TLS; allow_insecure: true turns it off where every address is loopback)"
	}
	return &unreachableError{fmt.Sprintf("no Temporal answers at %s%s: %s; start it (make up starts a local one), or correct temporal.address in %s",
		c.file.Temporal.Address, hint, brief(err), c.file.Name)}
}

// brief returns the last part of a chain of wrapped texts, where the cause is.
func brief(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, "desc = "); i >= 0 {
		text = text[i+len("desc = "):]
	}
	text = strings.TrimPrefix(text, "failed reaching server: ")
	text = strings.TrimPrefix(text, "connection error: ")
	return strings.Trim(text, `"`)
}

// explain turns what Temporal answers into a sentence with advice. Errors of
// our own pass unchanged.
func (c *Client) explain(err error) error {
	if err == nil {
		return nil
	}
	var (
		namespace   *serviceerror.NamespaceNotFound
		unavailable *serviceerror.Unavailable
		late        *serviceerror.DeadlineExceeded
		denied      *serviceerror.PermissionDenied
		application *temporal.ApplicationError
	)
	switch {
	case errors.As(err, &namespace):
		return fmt.Errorf("no namespace %q at Temporal; create it: temporal operator namespace create --namespace %s --address %s",
			c.file.Temporal.Namespace, c.file.Temporal.Namespace, c.file.Temporal.Address)
	case errors.As(err, &denied):
		return fmt.Errorf("refused by Temporal: %s; check the client certificate in temporal.tls", denied.Message)
	case errors.As(err, &unavailable), errors.As(err, &late), errors.Is(err, context.DeadlineExceeded):
		return c.unreachable(err)
	case errors.As(err, &application):
		return errors.New(application.Message())
	}
	return err
}

// Attribute is one search attribute of the namespace.
type Attribute struct {
	Name string `json:"name"`
	Type string `json:"type"`
	// Added tells that it was not there before.
	Added bool `json:"added"`
}

// attributes are the search attributes that workflows set.
var attributes = []struct {
	name string
	kind enumspb.IndexedValueType
}{
	{workflows.AttrDatabase, enumspb.INDEXED_VALUE_TYPE_KEYWORD},
	{workflows.AttrRegion, enumspb.INDEXED_VALUE_TYPE_KEYWORD},
	{workflows.AttrPhase, enumspb.INDEXED_VALUE_TYPE_KEYWORD},
	{workflows.AttrReason, enumspb.INDEXED_VALUE_TYPE_KEYWORD_LIST},
}

// Init registers the search attributes that the namespace lacks and waits until
// they can be used.
func (c *Client) Init(ctx context.Context) ([]Attribute, error) {
	missing, err := c.missing(ctx)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		_, err := c.sdk.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
			Namespace: c.file.Temporal.Namespace, SearchAttributes: missing,
		})
		var exists *serviceerror.AlreadyExists
		if err != nil && !errors.As(err, &exists) {
			return nil, fmt.Errorf("register search attributes: %w", c.explain(err))
		}
	}
	for left := missing; len(left) > 0; {
		if err := pause(ctx, poll); err != nil {
			return nil, fmt.Errorf("wait for the search attributes: %w", err)
		}
		if left, err = c.missing(ctx); err != nil {
			return nil, err
		}
	}
	all := make([]Attribute, len(attributes))
	for i, a := range attributes {
		_, added := missing[a.name]
		all[i] = Attribute{Name: a.name, Type: a.kind.String(), Added: added}
	}
	return all, nil
}

// missing lists the search attributes that the namespace lacks. One that exists
// with another type is an error.
func (c *Client) missing(ctx context.Context) (map[string]enumspb.IndexedValueType, error) {
	have, err := c.sdk.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{
		Namespace: c.file.Temporal.Namespace,
	})
	if err != nil {
		return nil, fmt.Errorf("list search attributes: %w", c.explain(err))
	}
	missing := make(map[string]enumspb.IndexedValueType)
	for _, a := range attributes {
		kind, ok := have.GetCustomAttributes()[a.name]
		switch {
		case !ok:
			missing[a.name] = a.kind
		case kind != a.kind:
			return nil, fmt.Errorf("search attribute %s is a %s and should be a %s; use a namespace of its own for Millrace, or remove the attribute: temporal operator search-attribute remove --name %s",
				a.name, kind, a.kind, a.name)
		}
	}
	return missing, nil
}

// Initialised returns an error with the command to run unless [Client.Init] was
// done: without its search attributes no workflow can make a step.
func (c *Client) Initialised(ctx context.Context) error {
	missing, err := c.missing(ctx)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("namespace %q of Temporal lacks Millrace's search attributes; register them: %s init --fleet %s",
			c.file.Temporal.Namespace, c.self, activities.ShellWord(c.file.Name))
	}
	return nil
}

// noWorker is the error for a task queue that nobody serves.
func (c *Client) noWorker(queue string) error {
	command := c.worker + " --fleet " + activities.ShellWord(c.file.Name)
	if pool := poolOf(queue, c.file.Region); pool != "" && pool != "default" {
		command += " --pool " + activities.ShellWord(pool)
	}
	return &NoWorkerError{Queue: queue, Command: command}
}

// poolOf returns the pool of a task queue of this region.
func poolOf(queue, region string) string {
	rest, ok := strings.CutPrefix(queue, "millrace."+region+".")
	if !ok {
		return ""
	}
	pool, _, _ := strings.Cut(rest, ".")
	return pool
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
