package e2e

import (
	"context"
	"fmt"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
)

// histories sums up what this fleet's workflows did last, for a test that
// failed.
func (s *site) histories(ctx context.Context) string {
	c, err := client.DialContext(ctx, client.Options{HostPort: s.stack.Temporal.Address, Logger: silent{}})
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	list, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		Query: fmt.Sprintf("WorkflowId STARTS_WITH 'millrace/%s/'", s.region),
	})
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, w := range list.GetExecutions() {
		id := w.GetExecution()
		fmt.Fprintf(&b, "\n%s %s, %d events:", id.GetWorkflowId(), w.GetStatus(), w.GetHistoryLength())
		var last []string
		events := c.GetWorkflowHistory(ctx, id.GetWorkflowId(), id.GetRunId(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			e, err := events.Next()
			if err != nil {
				break
			}
			text := e.GetEventTime().AsTime().Format("05.000 ") + strings.TrimPrefix(e.GetEventType().String(), "EVENT_TYPE_")
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
		}
		for _, text := range last[max(0, len(last)-60):] {
			b.WriteString("\n  " + text)
		}
	}
	return b.String()
}

// silent is a logger that says nothing.
type silent struct{}

func (silent) Debug(string, ...any) {}
func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}
