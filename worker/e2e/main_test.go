package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deploy/local"
)

func TestMain(m *testing.M) {
	flag.Parse()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "test.parallel" })
	if !set { // tests wait more than they work
		_ = flag.Set("test.parallel", "4")
	}
	code := local.RunTests(m)
	if programs.dir != "" {
		_ = os.RemoveAll(programs.dir)
	}
	os.Exit(code)
}

// programs are the built programs, in a folder that goes with the test binary.
var programs struct {
	once sync.Once
	dir  string
	err  error
}

// bin returns the folder of millrace and millrace-worker, built once.
func bin(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a server")
	}
	programs.once.Do(func() {
		programs.dir, programs.err = os.MkdirTemp("", "millrace-e2e-")
		if programs.err != nil {
			return
		}
		for name, pkg := range map[string]string{"millrace": "starter", "millrace-worker": "worker"} {
			cmd := exec.Command("go", "build", "-o", filepath.Join(programs.dir, name), "github.com/millrace-io/millrace/"+pkg)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				programs.err = errors.Join(programs.err, fmt.Errorf("build %s: %w\n%s", name, err, out))
			}
		}
	})
	if programs.err != nil {
		t.Fatal(programs.err)
	}
	return programs.dir
}

// until waits for a condition, and says which it was when it does not come.
func until(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain: %s", limit, what)
		}
		time.Sleep(25 * time.Millisecond)
	}
}
