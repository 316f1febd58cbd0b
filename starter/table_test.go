package main

import (
	"strings"
	"testing"
)

// TestLooksIntoATable runs every look at testdata/orders, whose data files are
// not there: only cat reads them.
func TestLooksIntoATable(t *testing.T) {
	table := testdata + "/orders"
	for name, line := range map[string]string{
		"info":           "table info %",
		"info_version_0": "table info % --version 0",
		"info_json":      "table info % --json",
		"files":          "table files %",
		"files_json":     "table files % --json",
		"log":            "table log %",
		"log_limit":      "table log file://% --limit 1",
		"log_version":    "table log % --version 1",
		"log_json":       "table log % --json",
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := millrace(t, strings.Fields(strings.ReplaceAll(line, "%", table))...)
			if code != exitOK || stderr != "" {
				t.Fatalf("exit status %d\n%s", code, stderr)
			}
			golden(t, "table_"+name+".txt", strings.ReplaceAll(stdout, testdata, "/testdata"))
		})
	}
}

func TestTableThatCannotBeRead(t *testing.T) {
	for name, test := range map[string]struct{ line, want string }{
		"not a table":     {"table info " + testdata, "_delta_log"},
		"no such folder":  {"table info /does/not/exist", "/does/not/exist"},
		"no such version": {"table info " + testdata + "/orders --version 9", "no such version"},
		"data is missing": {"table cat " + testdata + "/orders", "millrace table fsck " + testdata + "/orders"},
		"object store":    {"table info gs://bucket/prefix", "not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := millrace(t, strings.Fields(test.line)...)
			if code != exitError || stdout != "" || !strings.Contains(stderr, test.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit status %d\n%s%s", code, stdout, stderr)
			}
		})
	}
}
