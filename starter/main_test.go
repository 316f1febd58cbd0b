package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// testdata is absolute, for tests that change the working folder.
var testdata = func() string {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		panic(err)
	}
	return dir
}()

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join(testdata, name)
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it)\n--- got\n%s\n--- want\n%s", name, got, want)
	}
}

// millrace runs a command line.
func millrace(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"bin/millrace"}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestHelp(t *testing.T) {
	for _, name := range []string{
		"", "init", "validate", "doctor", "explain", "plan", "apply", "status", "wait", "pause", "resume", "unpark", "events", "remove", "verify",
		"table", "table info", "table cat", "table checksum", "table files", "table log",
		"table history", "table changes", "table compact", "table checkpoint", "table vacuum", "table fsck",
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := millrace(t, append(strings.Fields(name), "--help")...)
			if code != exitOK || stderr != "" {
				t.Errorf("exit status %d, standard error %q", code, stderr)
			}
			golden(t, "help/"+strings.ReplaceAll("millrace "+name, " ", "_")+".txt", stdout)
		})
	}
}

func TestWrongUsage(t *testing.T) {
	for _, line := range []string{
		"wat", "--flet x", "wait", "wait shop --until never", "wait shop --timeout soon", "wait shop --timeout 0s",
		"remove", "remove shop", "apply --timeout -1s", "table", "table cat", "table info /tmp --version x",
		"table info /tmp --version -1", "validate shop", "status --json=maybe", "status --late 5m", "pause a b --capture", "remove a b --yes", "unpark", "events a b",
		"table checksum", "table checksum /tmp --stdin", "table checksum --stdin --timeout 0s",
		"table info /tmp --timestamp noon", "table info /tmp --version 1 --timestamp 2024-01-01", "table cat /tmp --format xml",
		"table cat /tmp --json --format csv", "table cat /tmp --limit -1", "table changes /tmp", "table history /tmp --limit -1",
		"table vacuum /tmp --retention -1h", "table compact /tmp --target-bytes -1",
	} {
		code, stdout, stderr := millrace(t, strings.Fields(line)...)
		if code != exitUsage || stdout != "" || stderr == "" {
			t.Errorf("%q: exit status %d\nstandard output: %s\nstandard error: %s", line, code, stdout, stderr)
		}
	}
}

func TestNoArgumentsShowsHelp(t *testing.T) {
	code, stdout, _ := millrace(t)
	if code != exitOK || !strings.Contains(stdout, "apply") {
		t.Errorf("exit status %d\n%s", code, stdout)
	}
}

func TestValidateSaysAllFaults(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, "fleet.yaml", "regoin: local\nallow_insecure: true\nkafka: {brokers: [127.0.0.1:9092]}\nlake: gs://b/p\n")
	code, stdout, stderr := millrace(t, "validate")
	if code != exitError || stdout != "" {
		t.Errorf("exit status %d, standard output %q", code, stdout)
	}
	golden(t, "validate_faults.txt", stderr)

	code, stdout, stderr = millrace(t, "validate", "--json")
	var got verdict
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if code != exitError || stderr != "" || got.Valid || len(got.Faults) != 2 || got.Faults[0].Line != 1 {
		t.Errorf("exit status %d: %+v\n%s", code, got, stderr)
	}
}

func TestValidateOfAGoodFile(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "fleet.yaml", goodFleet)
	code, stdout, stderr := millrace(t, "validate", "--fleet", "fleet.yaml")
	if code != exitOK || stderr != "" || stdout != "fleet.yaml is valid: 1 database in region local, lake file:///var/lib/lake\n" {
		t.Errorf("exit status %d\n%s%s", code, stdout, stderr)
	}
}

func TestFleetFileThatIsNotThere(t *testing.T) {
	t.Chdir(t.TempDir())
	code, _, stderr := millrace(t, "validate", "--fleet", "none.yaml")
	if code != exitError || !strings.Contains(stderr, "none.yaml") || !strings.Contains(stderr, "--fleet FILE") {
		t.Errorf("exit status %d\n%s", code, stderr)
	}
}

func TestTemporalThatIsNotThere(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "fleet.yaml", strings.Replace(goodFleet, "7233", "1", 1))
	for _, line := range []string{"init", "apply", "status", "wait shop", "pause shop", "resume shop", "unpark shop", "events shop", "remove shop --yes", "verify shop"} {
		code, stdout, stderr := millrace(t, strings.Fields(line)...)
		if code != exitError || stdout != "" || !strings.Contains(stderr, "no Temporal answers at 127.0.0.1:1") ||
			strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit status %d\n%s%s", line, code, stdout, stderr)
		}
	}
}

func TestInterruptedCommandSaysSo(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "fleet.yaml", goodFleet)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"millrace", "status"}, &stdout, &stderr)
	if code != exitError || stderr.String() != "millrace: interrupted\n" {
		t.Errorf("exit status %d\n%s", code, stderr.String())
	}
}

const goodFleet = `region: local
temporal: {address: 127.0.0.1:7233, namespace: default, heartbeat_timeout: 3s}
kafka: {brokers: [127.0.0.1:9092], topic_prefix: millrace}
allow_insecure: true
lake: file:///var/lib/lake
databases:
  shop:
    url: postgres://millrace@127.0.0.1:5432/shop?sslmode=disable
    password: env:SHOP_PASSWORD
    tables: ["public.*", "!public.audit_*"]
`

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
