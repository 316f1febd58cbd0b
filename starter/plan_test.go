package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/starter/control"
	"github.com/millrace-io/millrace/workflows"
)

func TestPlanAsText(t *testing.T) {
	freshness := []fleet.Change{{Key: "freshness", Old: "5s", New: "10s"}}
	plan := &control.Plan{Region: "eu-1", Databases: []*control.DatabasePlan{
		{
			Name: "crm", Action: control.AddDatabase, Pool: "large", Copied: 2, Rows: 1_200_000, Bytes: 100_000_000, Unestimated: 1,
			Tables: []workflows.PlannedTable{
				{Name: "public.lines", Act: workflows.AddTable, Copied: true, Rows: -1, Bytes: 3 << 20},
				{Name: "public.orders", Act: workflows.AddTable, Copied: true, Rows: 1_200_000, Bytes: 97 << 20},
				{Name: "public.stays", Act: workflows.AddTable},
			},
			Problems: []activities.Problem{{Code: "WAL_LEVEL", Sentence: "wal_level is replica, not logical", Remedy: "ALTER SYSTEM SET wal_level = logical;", Blocking: true}},
		},
		{
			Name: "shop", Action: control.ChangeDatabase, Pool: "large", Phase: workflows.Running, Paused: true, Copied: 1, Rows: 100, Bytes: 8192, NeedsYes: true,
			Changes: []control.PlannedChange{
				{Change: fleet.Change{Key: "pool", Old: "default", New: "large"}, Cost: fleet.CostPause},
				{Change: fleet.Change{Key: "topic", Old: "a.shop", New: "b.shop"}, Cost: fleet.CostPark},
			},
			Tables: []workflows.PlannedTable{
				{Name: "public.a", Act: workflows.ChangeTable, Changes: freshness},
				{Name: "public.audit", Act: workflows.DropTable},
				{Name: "public.b", Act: workflows.ChangeTable, Changes: freshness},
				{Name: "public.c", Act: workflows.ChangeTable, Changes: freshness},
				{Name: "public.d", Act: workflows.ChangeTable, Changes: freshness},
				{Name: "public.prices", Act: workflows.ChangeTable, Copied: true, Rows: 100, Bytes: 8192, Changes: []fleet.Change{{Key: "casts.valid_until", New: "string"}}},
			},
			Notes: []string{"no worker serves pool large yet, and the database stands still until one does: millrace-worker --fleet fleet.yaml --pool large"},
		},
		{Name: "erp", Action: control.KeepDatabase, Phase: workflows.Parked},
		{Name: "fin", Action: control.AddDatabase, Pool: "default", Refused: "it runs in region eu-2; to change the region of a database, first: millrace remove fin --keep-slot --yes, with the file of region eu-2"},
		{Name: "hr", Action: control.UnknownDatabase, Pool: "default", Reason: &control.Reason{Code: "NO_WORKER", Message: "no worker serves task queue q", Remedy: "millrace-worker --fleet fleet.yaml"}},
		{Name: "old", Action: control.OrphanDatabase, Notes: []string{"it is not in fleet.yaml, and goes on; to end its mirror: millrace remove old --yes --fleet fleet.yaml"}},
	}}
	var b bytes.Buffer
	printPlan(&b, plan)
	golden(t, "plan.txt", b.String())
}

func TestExplainSaysWhichLineDecides(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	write(t, file, goodFleet+`    casts: {note: string}
    rules:
      - {tables: public.prices, casts: {valid_until: string}}
defaults: {freshness: 10s}
`)
	code, stdout, stderr := millrace(t, "explain", "shop", "public.prices", "--fleet", file)
	if code != exitOK || stderr != "" {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	golden(t, "explain.txt", stdout)
	if code, stdout, _ = millrace(t, "explain", "shop", "public.audit_log", "--fleet", file); code != exitOK || !strings.Contains(stdout, `not mirrored, by "!public.audit_*" (fleet.yaml:10)`) {
		t.Errorf("exit status %d: %s", code, stdout)
	}
	var e fleet.Explanation
	if _, stdout, _ = millrace(t, "explain", "shop", "sales.x", "--json", "--fleet", file); json.Unmarshal([]byte(stdout), &e) != nil || e.Mirrored || e.Pattern != "" || len(e.Values) == 0 {
		t.Errorf("got %s", stdout)
	}
	for line, want := range map[string]struct {
		code int
		word string
	}{
		"explain shop prices":                   {exitUsage, "schema.table"},
		"explain shop public.*":                 {exitUsage, "schema.table"},
		"explain shpo public.a":                 {exitError, `the nearest in`},
		"explain shop":                          {exitUsage, "<table>"},
		"remove shop public.prices":             {exitUsage, `"!public.prices"`},
		"remove shop --purge":                   {exitUsage, "deletes its topics and its folder in the lake; add --yes"},
		"remove shop --keep-slot":               {exitUsage, "leaves slot and publications"},
		"remove shop --yes --purge --keep-slot": {exitUsage, "choose one"},
	} {
		code, stdout, stderr := millrace(t, append(strings.Fields(line), "--fleet", file)...)
		if code != want.code || !strings.Contains(stderr, want.word) || stdout != "" {
			t.Errorf("%s: exit status %d\n%s%s", line, code, stdout, stderr)
		}
	}
}
