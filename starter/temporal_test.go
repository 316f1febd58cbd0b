package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/deploy/local"
	"github.com/millrace-io/millrace/starter/control"
)

// beMillrace makes the test binary behave as the program.
const beMillrace = "TEST_BE_MILLRACE"

func TestMain(m *testing.M) {
	if os.Getenv(beMillrace) == "1" {
		main()
	}
	// Help is wrapped to this width, whatever the terminal's.
	if err := os.Setenv("COLUMNS", "100"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(local.Tests{M: m})
}

// TestEveryCommandSaysThatNoWorkerIsThere holds commands to ten seconds, the
// queue's name, the command that starts a worker, and exit status 3.
func TestEveryCommandSaysThatNoWorkerIsThere(t *testing.T) {
	server := local.SharedTemporal(t)
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	text := strings.Replace(goodFleet, "127.0.0.1:7233", `"`+server.Address+`"`, 1)
	write(t, file, strings.Replace(text, "region: local", "region: lonely", 1))
	if code, stdout, stderr := millrace(t, "init", "--fleet", file); code != exitOK || !strings.Contains(stdout, "MillraceReason") {
		t.Fatalf("init: exit status %d\n%s%s", code, stdout, stderr)
	}
	if code, _, stderr := millrace(t, "apply", "--fleet", file); code != exitNoWorker || !strings.Contains(stderr, "the request for shop is kept") {
		t.Fatalf("apply: exit status %d\n%s", code, stderr)
	}
	for _, line := range []string{
		"apply --json", "plan", "plan --json", "status", "wait shop", "pause shop", "resume shop", "unpark shop", "events shop",
		"remove shop --yes", "verify shop", "status --check", "status --json",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			code, stdout, stderr := millrace(t, append(strings.Fields(line), "--fleet", file)...)
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			if code != exitNoWorker || !strings.Contains(stderr, "no worker serves task queue millrace.lonely.default.control") ||
				!strings.Contains(stderr, "bin/millrace-worker --fleet "+file) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit status %d\n%s%s", code, stdout, stderr)
			}
			if line != "status --json" {
				return
			}
			var report control.Report
			if err := json.Unmarshal([]byte(stdout), &report); err != nil {
				t.Fatal(err)
			}
			if db := report.Databases[0]; db.Reason == nil || db.Reason.Code != "NO_WORKER" || db.AgeSeconds <= 0 {
				t.Errorf("got %+v", db)
			}
		})
	}
}

func TestCommandsForADatabaseThatIsNotApplied(t *testing.T) {
	server := local.SharedTemporal(t)
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	text := strings.Replace(goodFleet, "127.0.0.1:7233", `"`+server.Address+`"`, 1)
	write(t, file, strings.Replace(text, "region: local", "region: empty", 1))
	for _, line := range []string{"wait shop", "pause shop", "resume shop", "unpark shop", "events shop", "remove shop --yes", "verify shop"} {
		code, stdout, stderr := millrace(t, append(strings.Fields(line), "--fleet", file)...)
		if code != exitError || stdout != "" || !strings.Contains(stderr, "bin/millrace apply --fleet "+file+" shop") {
			t.Errorf("%s: exit status %d\n%s%s", line, code, stdout, stderr)
		}
	}
	for _, line := range []string{"wait shp", "apply shp", "status shp"} {
		code, _, stderr := millrace(t, append(strings.Fields(line), "--fleet", file)...)
		if code != exitError || !strings.Contains(stderr, `the nearest in`) {
			t.Errorf("%s: exit status %d\n%s", line, code, stderr)
		}
	}
	code, stdout, stderr := millrace(t, "status", "--fleet", file)
	if code != exitOK || stderr != "" || !strings.Contains(stdout, "not-applied") {
		t.Errorf("status: exit status %d\n%s%s", code, stdout, stderr)
	}
}
