package workflows_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/workflows"
)

func TestTheDoctorAnswersWhateverItsStepDoes(t *testing.T) {
	for name, c := range map[string]struct {
		result activities.DoctorResult
		err    error
		code   activities.Code
	}{
		"found":  {result: activities.DoctorResult{Problems: []activities.Problem{{Code: "WAL_LEVEL"}}}, code: "WAL_LEVEL"},
		"failed": {err: errors.New("out of order"), code: "INTERNAL"},
	} {
		t.Run(name, func(t *testing.T) {
			var suite testsuite.WorkflowTestSuite
			env := suite.NewTestWorkflowEnvironment()
			env.RegisterWorkflowWithOptions(workflows.Examine, workflow.RegisterOptions{Name: workflows.DoctorWorkflow})
			env.RegisterActivity(&activities.Activities{})
			env.OnActivity("Doctor", mock.Anything, mock.Anything).Return(c.result, c.err)
			env.ExecuteWorkflow(workflows.DoctorWorkflow, activities.DoctorInput{DB: shop})
			var out activities.DoctorResult
			if err := env.GetWorkflowResult(&out); err != nil || len(out.Problems) != 1 || out.Problems[0].Code != c.code {
				t.Errorf("%+v, %v", out, err)
			}
		})
	}
}
