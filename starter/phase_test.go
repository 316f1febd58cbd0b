package main

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/millrace-io/millrace/activities"
	"github.com/millrace-io/millrace/starter/control"
	"github.com/millrace-io/millrace/workflows"
)

func TestACheckFindsWhatIsParkedOrLate(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	at := func(ago time.Duration) string { return now.Add(-ago).Format(time.RFC3339) }
	seconds := func(s float64) *float64 { return &s }
	reason := func(code string, ago time.Duration) *control.Reason {
		return &control.Reason{Code: code, Message: "because", Remedy: "mend it\nmillrace resume x", Since: at(ago)}
	}
	report := &control.Report{Databases: []*control.Database{
		{Name: "well", Phase: workflows.Running, LagSeconds: seconds(59), Tables: []*control.Table{{Name: "public.a", Phase: workflows.Live}, {Name: "public.b", Phase: workflows.Paused}}},
		{Name: "paused", Phase: workflows.Paused, LagSeconds: seconds(9999)},
		{Name: "brief", Phase: workflows.Running, Reason: reason("KAFKA_UNREACHABLE", 30*time.Second)},
		{Name: "begins", Phase: workflows.Preparing},
		{Name: "late", Phase: workflows.Running, LagSeconds: seconds(61)},
		{Name: "stuck", Phase: workflows.Running, LagSeconds: seconds(0), Reason: reason("KAFKA_UNREACHABLE", 2*time.Minute)},
		{Name: "away", Phase: workflows.Running, AgeSeconds: 600, Reason: reason("NO_WORKER", 10*time.Minute)},
		{Name: "parked", Phase: workflows.Parked, Reason: reason("SLOT_LOST", time.Second)},
		{Name: "table", Phase: workflows.Running, LagSeconds: seconds(1), Tables: []*control.Table{{Name: "public.a", Phase: workflows.Parked, Reason: reason("KAFKA_GAP", time.Hour)}}},
		{Name: "absent", Phase: control.NotApplied},
		{Name: "patient", Phase: workflows.Running, LagSeconds: seconds(299)},
	}}
	late := func(name string) time.Duration {
		if name == "patient" {
			return 5 * time.Minute
		}
		return time.Minute
	}
	found := wrong(report, late, now)
	var have []string
	for _, f := range found {
		have = append(have, strings.TrimSuffix(f.Database+"/"+f.Table, "/")+" "+f.What)
	}
	want := []string{"late late", "stuck late", "away late", "parked parked", "table/public.a parked", "absent not-applied"}
	if !slices.Equal(have, want) {
		t.Errorf("found %q, want %q", have, want)
	}
	var b bytes.Buffer
	printFindings(&b, found, now)
	golden(t, "check.txt", b.String())

	a := &app{stdout: io.Discard}
	if err := a.check(report, late, nil); err != status(exitError) {
		t.Errorf("a check that finds something ends with %v", err)
	}
	b.Reset()
	a.stdout = &b
	report.Databases = report.Databases[:2]
	if err := a.check(report, late, nil); err != nil || b.Len() > 0 {
		t.Errorf("a check that finds nothing ends with %v and prints %q", err, &b)
	}
}

func TestHowThingsGoOnAsText(t *testing.T) {
	var b bytes.Buffer
	printUnparking(&b, &workflows.UnparkPlan{Database: "shop", Steps: []workflows.UnparkStep{
		{Reason: &activities.Reason{Code: "SOURCE_AUTH"}, How: workflows.ByPreparing},
		{Table: "public.a", Reason: &activities.Reason{Code: "LAKE_CORRUPT"}, How: workflows.ByCatchingUp},
		{Table: "public.b", Reason: &activities.Reason{Code: "TABLE_PRIVILEGE"}, How: workflows.ByCopying},
		{Table: "public.c", Reason: &activities.Reason{Code: "KAFKA_GAP"}, How: workflows.ByRecopying, Rows: 1234567},
	}})
	printUnparking(&b, &workflows.UnparkPlan{Database: "shop", Steps: []workflows.UnparkStep{
		{Reason: &activities.Reason{Code: "SLOT_LOST"}, How: workflows.ByNewEpoch},
		{Table: "public.a", How: workflows.ByRecopying, Rows: 7},
	}})
	golden(t, "unpark.txt", b.String())
}

func TestEventsAsText(t *testing.T) {
	var b bytes.Buffer
	printEvents(&b, "shop", []workflows.Event{
		{At: "2026-01-01T12:00:00Z", To: workflows.Preparing, By: "apply"},
		{At: "2026-01-01T12:00:01Z", Table: "public.a", To: workflows.Live, By: "prepare"},
		{At: "2026-01-01T12:10:00Z", Table: "public.a", From: workflows.Live, To: workflows.Parked, Code: "KAFKA_GAP", By: "commit"},
		{At: "2026-01-01T12:11:00Z", From: workflows.Running, To: workflows.Running, Code: "INTERNAL", By: "scan", Note: "no arrow"},
	})
	golden(t, "events.txt", b.String())
}

// TestTheCommandLineKnowsTheCommandsOfRemedies parses what remedies end with.
func TestTheCommandLineKnowsTheCommandsOfRemedies(t *testing.T) {
	for _, line := range []string{
		"resume shop", "unpark shop public.a", "unpark shop public.a --yes", "apply shop",
		"unpark shop --new-epoch --yes", "remove shop --yes --force", "resume shop public.a",
	} {
		parser, err := kong.New(&commands{}, kong.Name("millrace"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(strings.Fields(line)); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}
