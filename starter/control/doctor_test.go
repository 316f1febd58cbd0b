package control_test

import (
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/starter/control"
)

func TestTheDoctorLooksAtTheNamespace(t *testing.T) {
	w := newWorld(t)
	name := "doctor-" + w.file.Region
	_, err := w.sdk.WorkflowService().RegisterNamespace(t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: name, WorkflowExecutionRetentionPeriod: durationpb.New(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	file := *w.file
	file.Temporal.Namespace = name
	var c *control.Client
	w.until(func() bool {
		c, err = control.Open(t.Context(), control.Options{File: &file})
		return err == nil
	})
	defer c.Close()
	look := func() map[activities.Code]activities.Problem {
		t.Helper()
		var chosen []*fleet.Database
		for i := range file.Databases {
			chosen = append(chosen, &file.Databases[i])
		}
		problems, err := c.DoctorTemporal(t.Context(), chosen)
		if err != nil {
			t.Fatal(err)
		}
		byCode := map[activities.Code]activities.Problem{}
		for _, p := range problems {
			byCode[p.Code] = p
		}
		return byCode
	}
	found := look()
	if p := found["TEMPORAL_ATTRIBUTES"]; !p.Blocking || !strings.Contains(p.Remedy, "millrace init --fleet") {
		t.Errorf("a namespace without search attributes: %+v", found)
	}
	if p := found["TEMPORAL_RETENTION"]; p.Blocking || !strings.Contains(p.Sentence, "1h0m0s") || !strings.Contains(p.Remedy, "--namespace "+name) {
		t.Errorf("a namespace that keeps little: %+v", found)
	}
	if p := found[activities.CodeNoWorker]; p.Blocking || !strings.Contains(p.Remedy, "--pool large") {
		t.Errorf("a pool without workers: %+v", found)
	}
	if _, err := c.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p, still := look()["TEMPORAL_ATTRIBUTES"]; still {
		t.Errorf("after its remedy: %+v", p)
	}
}
