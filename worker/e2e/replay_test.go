package e2e

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/proxy"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdkworker "go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/proto"

	"github.com/millrace-io/millrace/workflows"
)

// record makes TestWhatWorkflowsDidIsReplayed keep the histories of its
// workflows beside the code that they are replayed with.
var record = flag.Bool("record", false, "write workflow histories to workflows/testdata")

// recorded is where they are kept.
var recorded = filepath.Join("..", "..", "workflows", "testdata")

func TestWhatWorkflowsDidIsReplayed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	src := s.add("replay")
	src.exec(`CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, md5(i::text) FROM generate_series(1, 5000) i`)
	src.exec(`CREATE TABLE b (v text); INSERT INTO b VALUES ('x')`)
	name := src.name
	s.worker("a")
	s.worker("b", "--pool", "large")

	// A source that refuses us is parked, and left as it is.
	s.entry(&database{name: "refused", url: src.plainURL(s), password: "not the password"})
	s.refused(1, 60*time.Second, []string{"SOURCE_AUTH"}, "apply", "refused")
	s.must("remove", "refused", "--yes", "--force")

	s.must("apply", name)
	s.must("wait", name, "--until", "live", "--timeout", "60s")
	src.exec(`INSERT INTO a VALUES (-1, 'streamed')`)
	s.caughtUp(name)
	src.exec(`CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)`)
	until(t, 60*time.Second, "a later table is live", func() bool {
		l := s.table(name, "public.later")
		return l != nil && l.Phase == "live"
	})
	// One table is paused, and another parks and is copied again.
	s.must("pause", name, "public.a")
	src.exec(`INSERT INTO a VALUES (-2, 'while it was paused'); ALTER TABLE b RENAME TO renamed`)
	until(t, 60*time.Second, "the renamed table parks", func() bool {
		b := s.table(name, "public.b")
		return b != nil && b.Phase == "parked"
	})
	s.must("resume", name, "public.a")
	s.must("unpark", name, "--yes")
	s.must("wait", name, "--until", "live", "--timeout", "60s")
	s.must("pause", name)
	src.exec(`DELETE FROM a WHERE id < 10`)
	s.must("pause", name, "--capture")
	s.must("resume", name)
	s.must("wait", name, "--until", "live", "--timeout", "60s")
	// Another pool serves it from now on: the workflow continues as new there.
	s.change(name, func(d *database) { d.extra = "pool: large\n" })
	s.must("apply", name)
	s.must("wait", name, "--until", "caught-up", "--timeout", "60s")
	s.verified(name)
	s.must("remove", name, "--yes")

	histories := s.replayable()
	replayer := sdkworker.NewWorkflowReplayer()
	replayer.RegisterWorkflowWithOptions(workflows.Database, workflow.RegisterOptions{Name: workflows.DatabaseWorkflow})
	replayer.RegisterWorkflowWithOptions(workflows.Copy, workflow.RegisterOptions{Name: workflows.CopyWorkflow})
	replayer.RegisterWorkflowWithOptions(workflows.Prove, workflow.RegisterOptions{Name: workflows.VerifyWorkflow})
	kinds := map[string]int{}
	for _, h := range histories {
		start := h.Events[0].GetWorkflowExecutionStartedEventAttributes()
		kind := strings.ToLower(start.GetWorkflowType().GetName())
		// Replaying alters what it is given.
		if err := replayer.ReplayWorkflowHistory(silent{}, proto.Clone(h).(*historypb.History)); err != nil {
			t.Errorf("%s of %d events: %v", kind, len(h.Events), err)
		}
		if start.GetContinuedExecutionRunId() != "" {
			kind += "_continued"
		}
		if last := h.Events[len(h.Events)-1]; last.GetEventType() == enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW {
			kind += "_continues"
		}
		kinds[kind]++
		if *record && kinds[kind] == 1 {
			s.keep(kind, h)
		}
	}
	if kinds["database"] != 1 || kinds["database_continues"] != 1 || kinds["database_continued"] != 1 || kinds["copy"] < 2 || kinds["verify"] != 1 {
		t.Errorf("replayed %v", kinds)
	}
}

// plainURL is the source's address for the fleet file.
func (src *source) plainURL(s *site) string {
	return strings.Replace(src.url, ":"+s.stack.Postgres.Password+"@", "@", 1)
}

// replayable returns the histories of all workflows of this fleet, without what
// is of this machine.
func (s *site) replayable() []*historypb.History {
	s.t.Helper()
	ctx := s.t.Context()
	c, err := client.DialContext(ctx, client.Options{HostPort: s.stack.Temporal.Address, Logger: silent{}})
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	var list *workflowservice.ListWorkflowExecutionsResponse
	until(s.t, 30*time.Second, "the workflows have ended", func() bool {
		list, err = c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Query: "WorkflowId STARTS_WITH 'millrace/" + s.region + "/' AND ExecutionStatus != 'Running'",
		})
		return err == nil && len(list.GetExecutions()) >= 6
	})
	host, _ := os.Hostname()
	named := regexp.MustCompile(`\b` + regexp.QuoteMeta(host) + `(-[0-9a-f]{12}|@|:[0-9a-f]{8}-)`)
	// The revision that an apply was planned upon is a hash of a configuration with
	// such paths; without one any will do.
	planned := regexp.MustCompile(`"revision":"[0-9a-f]{16}"`)
	local := func(text string) string {
		return named.ReplaceAllString(strings.ReplaceAll(text, s.dir, "/var/lib/millrace"), "host$1")
	}
	var histories []*historypb.History
	for _, w := range list.GetExecutions() {
		h := &historypb.History{}
		id := w.GetExecution()
		events := c.GetWorkflowHistory(ctx, id.GetWorkflowId(), id.GetRunId(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			e, err := events.Next()
			if err != nil {
				s.t.Fatal(err)
			}
			h.Events = append(h.Events, e)
		}
		err := proxy.VisitPayloads(ctx, h, proxy.VisitPayloadsOptions{Visitor: func(_ *proxy.VisitPayloadsContext, ps []*commonpb.Payload) ([]*commonpb.Payload, error) {
			for _, p := range ps {
				p.Data = planned.ReplaceAll([]byte(local(string(p.Data))), []byte(`"revision":""`))
			}
			return ps, nil
		}})
		if err != nil {
			s.t.Fatal(err)
		}
		text, err := temporalproto.CustomJSONMarshalOptions{}.Marshal(h)
		if err != nil {
			s.t.Fatal(err)
		}
		if h, err = client.HistoryFromJSON(strings.NewReader(local(string(text))), client.HistoryJSONOptions{}); err != nil {
			s.t.Fatal(err)
		}
		histories = append(histories, h)
	}
	return histories
}

// keep writes a history to a file.
func (s *site) keep(name string, h *historypb.History) {
	s.t.Helper()
	text, err := temporalproto.CustomJSONMarshalOptions{Indent: " "}.Marshal(h)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.MkdirAll(recorded, 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(recorded, name+".json"), append(text, '\n'), 0o644); err != nil {
		s.t.Fatal(err)
	}
}
