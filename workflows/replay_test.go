package workflows_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/workflows"
)

// TestRecordedHistoriesAreReplayed holds today's code against what real
// workflows did: those that run while a worker is replaced go on with it. The
// histories were recorded by
//
//	go test ./worker/e2e -run TestWhatWorkflowsDidIsReplayed -args -record
//
// A change that makes one of them fail needs workflow.GetVersion. Recording
// anew is right only where nothing of the kind can run any more.
func TestRecordedHistoriesAreReplayed(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.json"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%d histories: %v", len(files), err)
	}
	r := worker.NewWorkflowReplayer()
	r.RegisterWorkflowWithOptions(workflows.Database, workflow.RegisterOptions{Name: workflows.DatabaseWorkflow})
	r.RegisterWorkflowWithOptions(workflows.Copy, workflow.RegisterOptions{Name: workflows.CopyWorkflow})
	r.RegisterWorkflowWithOptions(workflows.Prove, workflow.RegisterOptions{Name: workflows.VerifyWorkflow})
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			if err := r.ReplayWorkflowHistoryFromJSONFile(log.NewStructuredLogger(slog.New(slog.DiscardHandler)), file); err != nil {
				t.Error(err)
			}
		})
	}
}
