package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/activities/internal/lake"
	"github.com/millrace-io/millrace/activities/internal/lake/pgtype"
	"github.com/millrace-io/millrace/activities/internal/pgsource"
	"github.com/millrace-io/millrace/activities/internal/topic"
	"github.com/millrace-io/millrace/deltalog/store/s3"
)

func TestAnErrorIsClassifiedHoweverItIsWrapped(t *testing.T) {
	for _, c := range classes {
		for how, err := range map[string]error{
			"itself":  c.class,
			"wrapped": fmt.Errorf("read slot of shop: %w", fmt.Errorf("step: %w", c.class)),
			"joined":  errors.Join(errors.New("close the connection"), fmt.Errorf("read: %w", c.class)),
			"both":    fmt.Errorf("%w: %w", errors.New("io"), c.class),
		} {
			f := Classify(err)
			if f.Reason.Code != c.code || f.Park != (c.act == park) || f.Anew != (c.act == anew) || f.Database != c.database {
				t.Errorf("%v, %s: %+v, want %+v", c.class, how, f, c)
			}
			if f.Reason.Message != err.Error() || strings.Contains(f.Reason.For("shop").Remedy, "{db}") {
				t.Errorf("%v, %s: reason %+v", c.class, how, f.Reason)
			}
		}
	}
}

func TestWhatSomebodyHasToMendSaysHow(t *testing.T) {
	for _, c := range classes {
		if c.act == park && c.remedy == "" && c.class != pgsource.ErrTableGone && c.class != ErrNotCaughtUp {
			t.Errorf("%s has no remedy", c.code)
		}
	}
}

func TestAMorePreciseClassDecidesBeforeAWiderOne(t *testing.T) {
	for want, err := range map[Code]error{
		"DISK_FULL":          fmt.Errorf("open lake: %w: %w", lake.ErrUnwritable, syscall.ENOSPC),
		"LAKE_UNREACHABLE":   fmt.Errorf("probe: %w: %w", lake.ErrUnwritable, s3.ErrUnavailable),
		"LAKE_AUTH":          fmt.Errorf("probe: %w: %w", lake.ErrUnwritable, s3.ErrCredentials),
		"LAKE_CONFIG":        fmt.Errorf("probe: %w: %w", lake.ErrUnwritable, s3.ErrNoBucket),
		"LAKE_UNWRITABLE":    fmt.Errorf("open lake: %w: %w", lake.ErrUnwritable, syscall.EACCES),
		"KAFKA_GAP":          &topic.Gap{OID: 1},
		CodeInternal:         errors.New("something else"),
		"SOURCE_UNREACHABLE": fmt.Errorf("copy: %w", &pgsource.Error{Class: pgsource.ErrUnreachable}),
	} {
		if f := Classify(err); f.Reason.Code != want {
			t.Errorf("%v: %+v, want %s", err, f, want)
		}
	}
}

func TestAnErrorsOwnReasonStands(t *testing.T) {
	own := Failure{Park: true, Database: true, Reason: Reason{Code: "WAL_LEVEL", Message: "wal_level is replica", Remedy: "ALTER SYSTEM"}}
	err := fmt.Errorf("prepare: %w", &Reasoned{Failure: own, Err: pgsource.ErrUnreachable})
	if f := Classify(err); f != own {
		t.Errorf("classified as %+v", f)
	}
	silent := &Reasoned{Failure: Failure{Reason: Reason{Code: "X"}}, Err: errors.New("why")}
	if f := Classify(silent); f.Reason.Message != "why" {
		t.Errorf("classified as %+v", f)
	}
}

func TestARemedyNamesItsObject(t *testing.T) {
	err := &pgsource.Error{Problem: pgsource.Problem{Sentence: "role x lacks REPLICATION", Remedy: "ALTER ROLE x REPLICATION;"}, Class: pgsource.ErrPrivilege}
	if f := Classify(err); f.Reason.Parked("shop", "").Remedy != "ALTER ROLE x REPLICATION;\nmillrace resume shop" {
		t.Errorf("remedy %q", f.Reason.Remedy)
	}
}

// through runs a step behind the edge and returns its error as Temporal gets it.
func through(t *testing.T, a *Activities, name string, step any, in any) error {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{Edge(a)}})
	env.RegisterActivityWithOptions(step, activity.RegisterOptions{Name: name})
	_, err := env.ExecuteActivity(name, in)
	return err
}

// edged is a worker that only counts.
func edged() (*Activities, *figures) {
	r := prometheus.NewRegistry()
	return &Activities{metrics: newMetrics(r, NewBudget(1))}, &figures{r}
}

// figures are what a worker counted.
type figures struct{ *prometheus.Registry }

// of returns the sum of a metric over all series that have some label values.
func (f *figures) of(t *testing.T, name string, labels ...string) (sum float64, series int) {
	t.Helper()
	families, err := f.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "millrace_"+name {
			continue
		}
	series:
		for _, m := range family.GetMetric() {
			var have []string
			for _, l := range m.GetLabel() {
				have = append(have, l.GetValue())
			}
			for _, l := range labels {
				if !slices.Contains(have, l) {
					continue series
				}
			}
			series++
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum, series
}

func TestTheEdgeTellsTemporalWhatToRepeat(t *testing.T) {
	for _, c := range []struct {
		err   error
		code  Code
		final bool
	}{
		{fmt.Errorf("read: %w", pgsource.ErrUnreachable), "SOURCE_UNREACHABLE", false},
		{fmt.Errorf("read: %w", pgsource.ErrAuth), "SOURCE_AUTH", true},
		{fmt.Errorf("read: %w", pgsource.ErrRewritten), "TABLE_REWRITTEN", true},
		{errors.Join(errors.New("also"), pgtype.ErrUnrepresentable), "UNREPRESENTABLE_VALUE", true},
		{errors.New("unknown"), CodeInternal, false},
		{context.Canceled, CodeInternal, false}, // of the step itself: nobody cancelled it
	} {
		in := DropInput{DB: fleet.Database{Name: "shop"}}
		a, _ := edged()
		err := through(t, a, "Drop", func(context.Context, DropInput) error { return c.err }, in)
		var app *temporal.ApplicationError
		var f Failure
		if !errors.As(err, &app) || app.Type() != string(c.code) || app.NonRetryable() != c.final {
			t.Errorf("%v: %v", c.err, err)
			continue
		}
		if app.Details(&f) != nil || f.Reason.Code != c.code {
			t.Errorf("%v: details %+v", c.err, f)
		}
	}
}

func TestAStepWhoseWorkerStopsIsTakenOver(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("worker is shutting down"))
	if f, cancelled := judge(ctx, fmt.Errorf("read: %w", context.Canceled)); cancelled || f.Reason.Code != CodeWorkerLost || f.Park {
		t.Errorf("judged %+v, cancelled %t", f, cancelled)
	}
	if f, cancelled := judge(ctx, pgsource.ErrAuth); cancelled || f.Reason.Code != "SOURCE_AUTH" {
		t.Errorf("judged %+v, cancelled %t", f, cancelled)
	}
	ctx, cancel = context.WithCancelCause(t.Context())
	cancel(temporal.NewCanceledError())
	if _, cancelled := judge(ctx, fmt.Errorf("read: %w", context.Canceled)); !cancelled {
		t.Error("not cancelled")
	}
}

func TestRetriesAndParkingsAreCounted(t *testing.T) {
	a, count := edged()
	db := fleet.Database{Name: "shop"}
	fail := func(name string, in any, err error) {
		switch in := in.(type) {
		case CaptureInput:
			_ = through(t, a, name, func(context.Context, CaptureInput) error { return err }, in)
		case ChunkInput:
			_ = through(t, a, name, func(context.Context, ChunkInput) error { return err }, in)
		case MarkerInput:
			_ = through(t, a, name, func(context.Context, MarkerInput) error { return err }, in)
		case AwaitInput:
			_ = through(t, a, name, func(context.Context, AwaitInput) error { return err }, in)
		}
	}
	check := func(want float64, name string, labels ...string) {
		t.Helper()
		if n, _ := count.of(t, name, append(labels, "shop")...); n != want {
			t.Errorf("%s %v: %g, want %g", name, labels, n, want)
		}
	}
	fail("Capture", CaptureInput{DB: db}, pgsource.ErrUnreachable)
	fail("Capture", CaptureInput{DB: db}, pgsource.ErrUnreachable)
	fail("CopyChunk", ChunkInput{DB: db}, pgsource.ErrRewritten)
	fail("AwaitCaughtUp", AwaitInput{}, errors.New("of no database"))
	check(2, "retries_total", "SOURCE_UNREACHABLE")
	check(3, "retries_total")
	check(0, "parkings_total")
	fail("CopyChunk", ChunkInput{DB: db}, pgtype.ErrUnrepresentable)
	fail("EmitMarker", MarkerInput{DB: db}, pgsource.ErrAuth) // an answer
	check(1, "parkings_total", "table", "UNREPRESENTABLE_VALUE")
	check(1, "parkings_total")
	check(0, "parked")
	fail("Capture", CaptureInput{DB: db}, pgsource.ErrSlotLost)
	check(1, "parkings_total", "database", "SLOT_LOST")
	check(1, "parked")
	fail("Capture", CaptureInput{DB: db}, nil) // it runs again
	check(0, "parked")
}

func TestALaneThatEndedSaysNothingOfNow(t *testing.T) {
	a, count := edged()
	m := a.metrics
	m.lagBytes.WithLabelValues("shop").Set(1)
	m.walHeld.WithLabelValues("shop").Set(1)
	m.lagSeconds.WithLabelValues("shop", "publish").Set(1)
	m.lagSeconds.WithLabelValues("shop", "commit").Set(1)
	m.tablesParked.WithLabelValues("shop").Set(1)
	m.forget("capture", "shop")
	m.forget("commit", "shop")
	for _, name := range []string{"lag_bytes", "wal_held_bytes", "lag_seconds", "parked_tables"} {
		if _, n := count.of(t, name); n != 0 {
			t.Errorf("%s is still told of", name)
		}
	}
}

func TestEveryStepsInputNamesItsDatabase(t *testing.T) {
	db := fleet.Database{Name: "shop"}
	for _, in := range []any{
		PrepareInput{DB: db},
		ScanInput{DB: db},
		CaptureInput{DB: db},
		CommitInput{DB: db},
		HoldInput{DB: db},
		PlanInput{DB: db},
		ChunkInput{DB: db},
		FinishInput{DB: db},
		MarkerInput{DB: db},
		VerifyInput{DB: db},
		DropInput{DB: db},
	} {
		if got := databaseOf([]any{in}); got != "shop" {
			t.Errorf("%T is of %q", in, got)
		}
	}
	if got := databaseOf(nil); got != "" {
		t.Errorf("nothing is of %q", got)
	}
}

func TestARemedyThatResumesNothingIsNotGiven(t *testing.T) {
	missing := &pgsource.Error{Class: pgsource.ErrPublicationMissing, Problem: pgsource.Problem{Code: "PUBLICATION_MISSING", Sentence: "gone"}}
	foreign := &pgsource.Error{Class: pgsource.ErrSlotMissing, Problem: pgsource.Problem{Code: "SLOT_FOREIGN", Sentence: "not ours", Remedy: "SELECT pg_drop_replication_slot('s');"}}
	for _, err := range []error{missing, foreign} {
		r := Classify(err).Reason.Remedy
		if !strings.Contains(r, "\nmillrace unpark {db} --new-epoch --yes") || strings.Contains(r, "resume") {
			t.Errorf("%v: remedy %q", err, r)
		}
	}
	if r := Classify(foreign).Reason.Remedy; !strings.HasPrefix(r, foreign.Remedy) {
		t.Errorf("the slot in the way is not named: %q", r)
	}
}
