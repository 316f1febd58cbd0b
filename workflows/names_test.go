package workflows_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/workflows"
)

// TestNamesAreAContract pins the names that running workflows, command lines and
// operators rely upon. To change one of them strands what runs.
func TestNamesAreAContract(t *testing.T) {
	var steps []string
	for i, a := 0, reflect.TypeFor[*activities.Activities](); i < a.NumMethod(); i++ {
		steps = append(steps, a.Method(i).Name)
	}
	for what, c := range map[string]struct{ have, want []string }{
		"activities": {steps, []string{
			"AwaitCaughtUp", "Capture", "Commit", "CopyChunk", "Doctor", "Drop", "EmitMarker", "FinishCopy", "Hold",
			"PlanCopy", "Prepare", "Preview", "Purge", "Scan", "VerifyTable", "Watch",
		}},
		"workflows": {
			[]string{workflows.DatabaseWorkflow, workflows.CopyWorkflow, workflows.VerifyWorkflow, workflows.PlanWorkflow, workflows.DoctorWorkflow},
			[]string{"Database", "Copy", "Verify", "Plan", "Doctor"},
		},
		"requests": {
			[]string{workflows.Apply, workflows.Pause, workflows.Resume, workflows.Remove, workflows.Wait, workflows.Verify, workflows.Plan, workflows.StatusQuery, workflows.ConfigQuery},
			[]string{"apply", "pause", "resume", "remove", "wait", "verify", "plan", "status", "config"},
		},
		"signals of lanes": {
			[]string{activities.SignalTables, activities.SignalLane, activities.SignalMarker, activities.SignalCut, activities.UpdateWait},
			[]string{"tables", "lane", "marker", "cut", "wait"},
		},
		"search attributes": {
			[]string{workflows.AttrDatabase, workflows.AttrRegion, workflows.AttrPhase, workflows.AttrReason},
			[]string{"MillraceDatabase", "MillraceRegion", "MillracePhase", "MillraceReason"},
		},
		"lanes":  {workflows.Lanes, []string{"control", "capture", "copy", "commit"}},
		"queues": {[]string{workflows.Queue("eu", "large", "copy"), workflows.WorkerQueue("eu", "large", "commit", "w")}, []string{"millrace.eu.large.copy", "millrace.eu.large.commit.@w"}},
		"ids":    {[]string{workflows.DatabaseID("eu", "shop")}, []string{"millrace/eu/shop"}},
	} {
		if !slices.Equal(c.have, c.want) {
			t.Errorf("%s: %q, want %q", what, c.have, c.want)
		}
	}
}
