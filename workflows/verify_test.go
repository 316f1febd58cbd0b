package workflows_test

import (
	"context"
	"strings"
	"testing"

	"go.temporal.io/sdk/activity"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/workflows"
)

// prove runs a Verify workflow of two tables.
func (s *snapshots) prove(await func(activities.AwaitInput) error, verify func(activities.VerifyInput) error) (workflows.VerifyReport, error) {
	s.env.RegisterActivityWithOptions(func(_ context.Context, in activities.AwaitInput) error { return await(in) }, activity.RegisterOptions{Name: "AwaitCaughtUp"})
	s.env.RegisterActivityWithOptions(func(_ context.Context, in activities.VerifyInput) (activities.TableReport, error) {
		if err := verify(in); err != nil {
			return activities.TableReport{}, err
		}
		return activities.TableReport{Table: in.Name, Equal: true}, nil
	}, activity.RegisterOptions{Name: "VerifyTable"})
	s.env.ExecuteWorkflow(workflows.VerifyWorkflow, workflows.ProofInput{
		Config: shop, Epoch: 1, Parent: shopID, Tables: []workflows.CopyTable{{OID: 1, Name: "public.a"}, {OID: 2, Name: "public.b"}},
	})
	var r workflows.VerifyReport
	if err := s.env.GetWorkflowError(); err != nil {
		return r, err
	}
	return r, s.env.GetWorkflowResult(&r)
}

func proofs(t *testing.T) *snapshots { return newSnapshots(t, "verify", "q") }

func TestAProofTakesACutAndWaitsForTheLake(t *testing.T) {
	s := proofs(t)
	r, err := s.prove(func(in activities.AwaitInput) error {
		if in.WorkflowID != shopID {
			t.Errorf("waits for %s", in.WorkflowID)
		}
		return nil
	}, func(in activities.VerifyInput) error {
		if in.Cut.Snapshot != "s1" {
			t.Errorf("table %s under %s", in.Name, in.Cut.Snapshot)
		}
		return nil
	})
	if err != nil || !r.Equal() || len(r.Tables) != 2 || r.LSN != "0/1" || s.cuts != 1 {
		t.Errorf("report %+v, %v", r, err)
	}
}

func TestTablesThatALostSnapshotLeavesOverAreProvenUnderTheNextCut(t *testing.T) {
	s := proofs(t)
	r, err := s.prove(func(activities.AwaitInput) error { return nil }, func(in activities.VerifyInput) error {
		if in.OID == 2 && in.Cut.Snapshot == "s1" {
			return fails(activities.Failure{Anew: true, Reason: activities.Reason{Code: activities.CodeSnapshotGone}})
		}
		return nil
	})
	if err != nil || !r.Equal() || len(r.Tables) != 2 || s.cuts != 2 || r.Tables[0].LSN != "0/1" || r.Tables[1].LSN != "0/2" {
		t.Errorf("report %+v, %v", r, err)
	}
}

func TestAProofEndsWhereTheLakeCannotCatchUp(t *testing.T) {
	s := proofs(t)
	_, err := s.prove(func(activities.AwaitInput) error { return parks("NOT_CAUGHT_UP") }, func(activities.VerifyInput) error {
		t.Error("a table was proven")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "it cannot go on") || s.cuts != 1 {
		t.Errorf("ended with %v after %d cuts", err, s.cuts)
	}
}

func TestATableThatCannotBeProvenIsReportedWithItsReason(t *testing.T) {
	s := proofs(t)
	r, err := s.prove(func(activities.AwaitInput) error { return nil }, func(in activities.VerifyInput) error {
		if in.OID == 1 {
			return fails(activities.Failure{Park: true, Reason: activities.Reason{Code: "TABLE_GONE"}})
		}
		return nil
	})
	if err != nil || r.Equal() || len(r.Tables) != 2 || r.Tables[0].Reason.Code != "TABLE_GONE" || !r.Tables[1].Equal {
		t.Errorf("report %+v, %v", r, err)
	}
}
