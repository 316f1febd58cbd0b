package deltalog

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deploy/local"
)

// TestOthersReadOrConformanceFails runs a test of the readers where some of them
// cannot be started, as make conformance runs it.
func TestOthersReadOrConformanceFails(t *testing.T) {
	if testing.Short() {
		t.Skip("needs Python")
	}
	python, err := local.Python(t.Context())
	if errors.Is(err, local.ErrNoPython) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"delta-rs", "duckdb", "polars", "kernel", "spark"}
	for _, test := range []struct {
		name   string
		python string
		notRun []string
	}{
		{"neither Python nor Java", "/does/not/exist/python", all},
		{"no Java", python, []string{"kernel", "spark"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			program, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), program, "-test.v", "-test.run", "^TestOthersReadWhatIsWritten$/^empty$", "-conformance")
			cmd.Env = append(os.Environ(), "PYTHON="+test.python, "PATH="+t.TempDir())
			out, err := cmd.CombinedOutput()
			var failed *exec.ExitError
			if !errors.As(err, &failed) || !strings.Contains(string(out), "--- FAIL: TestOthersReadWhatIsWritten ") {
				t.Errorf("it did not fail: %v", err)
			}
			for _, name := range all {
				if strings.Contains(string(out), name+": NOT RUN: ") != slices.Contains(test.notRun, name) {
					t.Errorf("%s: wrong about whether it ran", name)
				}
			}
			if t.Failed() {
				t.Logf("%s", out)
			}
		})
	}
}
