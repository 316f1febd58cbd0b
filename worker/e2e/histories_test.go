package e2e

import (
	"context"
	"fmt"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
)

// everyEvent calls f for every event of this fleet's workflows, and begin before
// those of each.
func (s *site) everyEvent(ctx context.Context, begin func(*workflowpb.WorkflowExecutionInfo), f func(*historypb.HistoryEvent)) error {
	c, err := client.DialContext(ctx, client.Options{HostPort: s.stack.Temporal.Address, Logger: silent{}})
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		Query: fmt.Sprintf("WorkflowId STARTS_WITH 'millrace/%s/'", s.region),
	})
	if err != nil {
		return err
	}
	for _, w := range list.GetExecutions() {
		begin(w)
		id := w.GetExecution()
		events := c.GetWorkflowHistory(ctx, id.GetWorkflowId(), id.GetRunId(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			e, err := events.Next()
			if err != nil {
				return err
			}
			f(e)
		}
	}
	return nil
}

// everything is all that the histories of this fleet's workflows hold.
func (s *site) everything(ctx context.Context) string {
	s.t.Helper()
	var b strings.Builder
	err := s.everyEvent(ctx, func(*workflowpb.WorkflowExecutionInfo) {}, func(e *historypb.HistoryEvent) {
		b.WriteString(e.String())
		b.WriteByte('\n')
	})
	if err != nil {
		s.t.Fatalf("read the histories of workflows: %v", err)
	}
	return b.String()
}

// histories sums up what this fleet's workflows did last, for a test that
// failed.
func (s *site) histories(ctx context.Context) string {
	var b strings.Builder
	var last []string
	end := func() {
		for _, text := range last[max(0, len(last)-60):] {
			b.WriteString("\n  " + text)
		}
		last = nil
	}
	err := s.everyEvent(ctx, func(w *workflowpb.WorkflowExecutionInfo) {
		end()
		fmt.Fprintf(&b, "\n%s %s:", w.GetExecution().GetWorkflowId(), w.GetStatus())
	}, func(e *historypb.HistoryEvent) {
		text := e.GetEventTime().AsTime().Format("05.000 ") + e.GetEventType().String()
		for _, more := range []string{
			e.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName(),
			e.GetWorkflowExecutionSignaledEventAttributes().GetSignalName(),
			e.GetActivityTaskFailedEventAttributes().GetFailure().GetMessage(),
			e.GetWorkflowTaskFailedEventAttributes().GetFailure().GetMessage(),
			e.GetStartChildWorkflowExecutionInitiatedEventAttributes().GetWorkflowId(),
		} {
			if more != "" {
				text += " " + more
			}
		}
		last = append(last, text)
	})
	end()
	if err != nil {
		fmt.Fprintf(&b, "\n%v", err)
	}
	return b.String()
}

// silent is a logger that says nothing.
type silent struct{}

func (silent) Debug(string, ...any) {}
func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}
