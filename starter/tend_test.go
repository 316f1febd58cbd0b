package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// ledger makes a table with a change data feed: version 1 to 3 append a row each,
// with ids from 1, and version 4 takes the second away.
func ledger(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	st, err := store.OpenURI(dir)
	if err != nil {
		t.Fatal(err)
	}
	sch := &schema.Schema{Fields: []schema.Field{
		{Name: "id", Type: schema.Type{Kind: schema.Long}, Nullable: true},
		{Name: "name", Type: schema.Type{Kind: schema.String}, Nullable: true},
	}}
	table, err := deltalog.Create(t.Context(), st, deltalog.CreateOptions{Schema: sch, Properties: map[string]string{
		deltalog.PropertyDeletionVectors: "true", "delta.enableChangeDataFeed": "true",
	}})
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"one", "two", "three"} {
		b := datafile.NewBatch(sch)
		b.Cols[0].AppendInt(int64(i + 1))
		b.Cols[1].AppendString(name)
		if _, err := table.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	_, n, err := table.Delete(t.Context(), []string{"id"}, func(b *datafile.Batch, row int) bool { return b.Cols[0].I64[row] == 2 })
	if err != nil || n != 1 {
		t.Fatal(n, err)
	}
	return dir
}

var (
	aTime     = regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	anID      = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	aSize     = regexp.MustCompile(`\d+(\.\d+)? (KiB|B)\b`)
	someBytes = regexp.MustCompile(`(bytes": )\d+`)
)

// steady puts words in the place of what differs from run to run.
func steady(text, dir string) string {
	text = strings.ReplaceAll(text, dir, "DIR")
	text = someBytes.ReplaceAllString(text, "${1}N")
	return aSize.ReplaceAllString(anID.ReplaceAllString(aTime.ReplaceAllString(text, "TIME"), "ID"), "SIZE")
}

// TestTendsATable runs commands one after another on the same table.
func TestTendsATable(t *testing.T) {
	dir := ledger(t)
	var b strings.Builder
	for _, line := range []string{
		"table history %", "table history % --limit 1 --json",
		"table changes % --from 1", "table changes % --from 2 --to 3 --columns name --format csv",
		"table compact %", "table compact %", "table compact % --json", "table checkpoint %", "table checkpoint % --json",
		"table vacuum %", "table vacuum % --retention 1ns --force --dry-run", "table vacuum % --retention 1ns --force --json",
		"table vacuum % --retention 1ns", "table cat % --where id=3", "table cat % --where id=2", "table history % --limit 1",
	} {
		code, stdout, stderr := millrace(t, strings.Fields(strings.ReplaceAll(line, "%", dir))...)
		fmt.Fprintf(&b, "$ millrace %s\n%s%s", strings.ReplaceAll(line, "%", "DIR"), steady(stdout, dir), steady(stderr, dir))
		if code != exitOK {
			fmt.Fprintf(&b, "exit status %d\n", code)
		}
		b.WriteByte('\n')
	}
	golden(t, "tend.txt", b.String())
}

func TestTheFilesOfAHistoryAreMergedByItsWorkerAlone(t *testing.T) {
	dir := ledger(t)
	st, err := store.OpenURI(dir)
	if err != nil {
		t.Fatal(err)
	}
	table, err := deltalog.Open(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.SetProperties(t.Context(), map[string]string{deltalog.PropertyAppendOnly: "true", "millrace.key": `["id"]`}); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := millrace(t, "table", "compact", dir)
	if code != exitError || stdout != "" || !strings.Contains(stderr, "the worker merges them by itself") {
		t.Errorf("exit status %d\n%s%s", code, stdout, stderr)
	}
}

func TestFsckSaysWhatIsWrong(t *testing.T) {
	dir, file := numbers(t, 10)
	for line, want := range map[string]string{"table fsck " + dir: "nothing is wrong\n", "table fsck --json " + dir: "[]\n"} {
		code, stdout, stderr := millrace(t, strings.Fields(line)...)
		if code != exitOK || stderr != "" || stdout != want {
			t.Errorf("%s: exit status %d\n%s%s", line, code, stdout, stderr)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := millrace(t, "table", "fsck", dir)
	if code != exitError || stderr != "" || !strings.Contains(stdout, filepath.Base(file)) {
		t.Errorf("exit status %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = millrace(t, "table", "fsck", t.TempDir())
	if code != exitError || stdout != "" || !strings.Contains(stderr, "_delta_log") {
		t.Errorf("no table: exit status %d\n%s%s", code, stdout, stderr)
	}
}

func TestLooksAtTheVersionOfATime(t *testing.T) {
	dir := ledger(t)
	code, stdout, stderr := millrace(t, "table", "history", dir, "--json")
	var all []struct {
		Version int64
		Time    time.Time
	}
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || code != exitOK || len(all) != 5 {
		t.Fatalf("exit status %d, %v\n%s%s", code, err, stdout, stderr)
	}
	for _, past := range all {
		for _, at := range []time.Time{past.Time, past.Time.Add(time.Microsecond)} {
			code, stdout, stderr := millrace(t, "table", "info", dir, "--timestamp", at.Format(time.RFC3339Nano), "--json")
			var in struct{ Version int64 }
			if err := json.Unmarshal([]byte(stdout), &in); err != nil || code != exitOK || in.Version != past.Version {
				t.Errorf("at %s: exit status %d, version %d, want %d\n%s", at, code, in.Version, past.Version, stderr)
			}
		}
	}
	code, stdout, stderr = millrace(t, "table", "cat", dir, "--timestamp", "2001-01-01")
	if code != exitError || stdout != "" || !strings.Contains(stderr, "no such version") {
		t.Errorf("exit status %d\n%s%s", code, stdout, stderr)
	}
}
