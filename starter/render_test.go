package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/starter/control"
	"github.com/millrace-io/millrace/workflows"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// aReport has a database of each kind.
func aReport() *control.Report {
	behind, late, fine := int64(123456789), 754.2, 0.34
	none := int64(0)
	return &control.Report{
		ObservedAt: noon.Format(time.RFC3339),
		Databases: []*control.Database{
			{
				Name: "shop", Region: "local", Pool: "default", Workers: []string{"w-1", "w-2"}, Phase: workflows.Running,
				LagBytes: &none, LagSeconds: &fine, WAL: &control.WAL{HeldBytes: 1 << 20, RoomBytes: new(int64(1 << 40))},
				Tables: []*control.Table{
					{Name: "public.customers", Phase: workflows.Live, Latest: "file:///lake/shop/public/customers/latest", History: "file:///lake/shop/public/customers/history", RowsCopied: 30000, Position: "e1 0/16B3748 #2"},
					{Name: "public.events", Phase: workflows.Live, History: "file:///lake/shop/public/events/history", RowsCopied: 1234567, Position: "e1 0/16B3748 #9"},
					{Name: "public.orders", Phase: workflows.Copying, Latest: "file:///lake/shop/public/orders/latest", History: "file:///lake/shop/public/orders/history"},
					{
						Name: "public.prices", Phase: workflows.Parked, History: "file:///lake/shop/public/prices/history",
						Reason: &control.Reason{
							Code: "UNREPRESENTABLE", Message: "column valid_until holds an infinite date, in the row with key id",
							Remedy: "rules: [{tables: public.prices, casts: {valid_until: string}}]\nmillrace apply shop", Since: noon.Add(-90 * time.Minute).Format(time.RFC3339),
						},
					},
				},
			},
			{
				Name: "crm", Region: "local", Pool: "large", Workers: []string{}, Phase: workflows.Running, LagBytes: &behind, LagSeconds: &late, AgeSeconds: 754.2,
				Tables: []*control.Table{},
				Reason: &control.Reason{
					Code: "NO_WORKER", Message: "no worker serves task queue millrace.local.large.control",
					Remedy: "bin/millrace-worker --fleet fleet.yaml --pool large", Since: noon.Add(-754 * time.Second).Format(time.RFC3339),
				},
			},
			{
				Name: "hr", Region: "local", Pool: "default", Workers: []string{}, Phase: workflows.Parked, Tables: []*control.Table{},
				WAL:    &control.WAL{HeldBytes: 3 << 30, GrowthPerHour: new(int64(1 << 30)), RoomBytes: new(int64(12 << 30)), HoursLeft: new(12.0)},
				Reason: &control.Reason{Code: "SOURCE_AUTH", Message: "the server refuses the password", Remedy: "millrace resume hr"},
			},
			{
				Name: "erp", Region: "local", Pool: "default", Workers: []string{}, Phase: control.NotApplied, Tables: []*control.Table{},
				Reason: &control.Reason{Code: "NOT_APPLIED", Message: "database erp is not applied", Remedy: "bin/millrace apply --fleet fleet.yaml erp"},
			},
		},
	}
}

func TestStatusAsText(t *testing.T) {
	var b bytes.Buffer
	printReport(&b, aReport(), false, noon)
	golden(t, "status.txt", b.String())
	b.Reset()
	printReport(&b, aReport(), true, noon)
	golden(t, "status_tables.txt", b.String())
}

func TestStatusAsJSON(t *testing.T) {
	var b bytes.Buffer
	a := &app{stdout: &b}
	if err := a.print(aReport()); err != nil {
		t.Fatal(err)
	}
	golden(t, "status.json", b.String())
}

func TestWhatStaysBehindHoldsWALOnlyWhereItIsASlot(t *testing.T) {
	const holds = "holds WAL for a slot"
	for _, r := range []workflows.Removed{
		{Dropped: []string{"slot s"}},
		{Dropped: []string{"slot s"}, Left: []string{"publication slot x"}},
	} {
		var b bytes.Buffer
		printRemoved(&b, "shop", &workflows.RemoveInput{}, &r)
		if strings.Contains(b.String(), holds) {
			t.Errorf("%+v: %s", r, &b)
		}
	}
	var b bytes.Buffer
	printRemoved(&b, "shop", &workflows.RemoveInput{}, &workflows.Removed{Left: []string{"publication p", "slot s"}})
	if got := b.String(); !strings.Contains(got, holds) || !strings.Contains(got, "\n  publication p\n  slot s\n") {
		t.Errorf("got %s", got)
	}
}

func TestProofAsText(t *testing.T) {
	var b bytes.Buffer
	r := &workflows.VerifyReport{
		Database: "shop", LSN: "0/16B3748",
		Tables: []activities.TableReport{
			{Table: "public.customers", Equal: true, Source: 30000, History: 30000, Latest: 30000, Hash: "0123456789abcdef0123456789abcdef"},
			{Table: "public.events", Equal: true, Source: 12, History: 12, Latest: -1, Hash: "00000000000000000000000000000001"},
			{
				Table: "public.orders", Source: 10, History: 9, Latest: 9, Hash: "00000000000000000000000000000002",
				Differences: []string{"missing from history: (id=7)", "different in latest: (id=8)"},
			},
			{
				Table: "public.prices", Source: -1, History: -1, Latest: -1,
				Reason: &activities.Reason{Code: "PARKED", Message: "the table is parked", Remedy: "millrace resume shop"},
			},
		},
	}
	printProof(&b, r)
	golden(t, "proof.txt", b.String())
	b.Reset()
	r.Tables = r.Tables[:2]
	printProof(&b, r)
	golden(t, "proof_equal.txt", b.String())
	b.Reset()
	r.Tables = nil
	printProof(&b, r)
	golden(t, "proof_nothing.txt", b.String())
}

func TestDiagnosisAsText(t *testing.T) {
	var b bytes.Buffer
	printDiagnosis(&b, &diagnosis{
		Temporal: []activities.Problem{{Code: "NO_WORKER", Sentence: "no worker serves the task queues millrace.local.default.control; databases of the pool stand still until one does", Remedy: "bin/millrace-worker --fleet fleet.yaml"}},
		Databases: []examined{
			{Name: "shop", Host: "self-run", Tables: 1},
			{Name: "crm", Here: true, Problems: []activities.Problem{{Code: "SOURCE_AUTH", Sentence: "PostgreSQL at 127.0.0.1:5432 refuses the role millrace: password authentication failed", Remedy: "set the variable", Blocking: true}}},
			{Name: "erp", Host: "RDS", Tables: 40, Problems: []activities.Problem{
				{Code: "IDENTITY_MISSING", Table: "public.log", Sentence: "it has no replica identity: it gets history alone", Remedy: "ALTER TABLE public.log REPLICA IDENTITY FULL;", By: "the owner erp, or a member of rds_superuser"},
				{Code: "WAL_LEVEL", Sentence: "wal_level is replica, so the log does not hold what changed", Remedy: "aws rds modify-db-parameter-group …\n# then reboot the instance", By: "an administrator of the AWS account", Blocking: true},
				{Code: "COLUMN_GENERATED", Table: "public.pay", Sentence: "public.pay has generated columns, which are left out of the lake: total"},
			}},
		},
	})
	golden(t, "diagnosis.txt", b.String())
}

func TestNumbersForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", -100: "-100"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 1 << 50: "1024.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
	for s, want := range map[float64]string{0: "0.0s", 0.34: "0.3s", 59: "59s", 600: "10m", 86400: "24h", 604800: "7d"} {
		if got := span(s); got != want {
			t.Errorf("%v: %s", s, got)
		}
	}
}

func TestOutcomeOfApply(t *testing.T) {
	reason := &control.Reason{Code: "AUTH", Message: "wrong password", Remedy: "set SHOP_PASSWORD"}
	for _, test := range []struct {
		phase  workflows.Phase
		reason *control.Reason
		want   string
	}{
		{workflows.Running, nil, ""},
		{workflows.Paused, nil, ""},
		{workflows.Parked, reason, "shop is parked: AUTH: wrong password; set SHOP_PASSWORD"},
		{workflows.Preparing, reason, "shop is still preparing after 30s: AUTH: wrong password; set SHOP_PASSWORD"},
		{workflows.Preparing, nil, "shop is still preparing after 30s; millrace status shop shows how it goes on"},
		{workflows.Removing, nil, "shop is removing"},
	} {
		got := ""
		if err := outcome(&control.Database{Name: "shop", Phase: test.phase, Reason: test.reason}, 30*time.Second); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", test.phase, got, test.want)
		}
	}
}
