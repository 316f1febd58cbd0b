package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"

	"github.com/millrace-io/millrace/activities/internal/lake"
	"github.com/millrace-io/millrace/activities/internal/pgsource"
	"github.com/millrace-io/millrace/activities/internal/topic"
)

// try runs a short activity that may fail.
func (x *bench) try(activity, in, out any) error {
	x.b.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetTestTimeout(time.Minute)
	env.RegisterActivity(activity)
	v, err := env.ExecuteActivity(activity, in)
	if err != nil {
		return err
	}
	return v.Get(out)
}

// again prepares the database once more, in its epoch.
func (x *bench) again() {
	x.b.Helper()
	in := PrepareInput{DB: x.db, Epoch: x.in.Epoch, SystemID: x.in.SystemID, Timeline: x.in.Timeline}
	x.in = PrepareResult{}
	x.step(x.a.Prepare, in, &x.in)
}

// scan scans with what the last preparation or scan found, and takes over what
// this one does.
func (x *bench) scan() ScanResult {
	x.b.Helper()
	in := ScanInput{DB: x.db, Epoch: x.in.Epoch}
	for _, t := range x.in.Tables {
		in.Known = append(in.Known, KnownTable{OID: t.OID, Name: t.Name, Ground: t.Ground})
	}
	var out ScanResult
	x.step(x.a.Scan, in, &out)
	for _, f := range out.Found {
		for i := range x.in.Tables {
			if x.in.Tables[i].OID == f.OID {
				x.in.Tables[i] = f
			}
		}
	}
	return out
}

// lanes runs capture and commit until the lake has what is committed now.
func (x *bench) lanes() {
	x.b.Helper()
	stop := x.capture()
	lane := x.commitLane(nil)
	x.caughtUp()
	if _, err := lane.stop(); err != nil {
		x.b.Fatal(err)
	}
	stop()
}

func TestATableThatLeftThePublicationForAWhileWaitsForACopy(t *testing.T) {
	x := newTestSite(t, 32<<20, "CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (id int PRIMARY KEY)")
	patterns := x.db.Tables
	away := map[string]func(){
		"the fleet file left it out": func() {
			x.db.Tables = []string{"public.*", "!public.t"}
			x.again()
			x.exec("INSERT INTO t SELECT generate_series(1, 10)")
			x.db.Tables = patterns
			x.again()
		},
		"somebody took it out": func() {
			x.exec(fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE t", pgsource.PublicationNames(x.db.Name)[0]))
			x.exec("INSERT INTO t SELECT generate_series(11, 20)")
			x.scan()
		},
		"somebody took it out and put it back": func() {
			name := pgsource.PublicationNames(x.db.Name)[0]
			x.exec(fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE t", name), "INSERT INTO t SELECT generate_series(21, 30)",
				fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE t", name))
			x.scan()
		},
		"it was published with a filter": func() {
			name := pgsource.PublicationNames(x.db.Name)[0]
			x.exec(fmt.Sprintf("ALTER PUBLICATION %s SET TABLE t WHERE (id < 0), other", name), "INSERT INTO t SELECT generate_series(41, 50)")
			oid := x.table("public.t").OID
			out := x.scan()
			if len(out.Found) != 1 || out.Found[0].Reason == nil || out.Found[0].Reason.Code != "PUBLICATION_FILTERED" {
				t.Fatalf("the scan found %+v", out)
			}
			x.exec(strings.Split(out.Found[0].Reason.Remedy, "; ")...)
			if x.again(); x.table("public.t").OID != oid {
				t.Fatal("another table")
			}
		},
		"it was published otherwise": func() {
			x.exec(fmt.Sprintf("ALTER PUBLICATION %s SET (publish = 'update')", pgsource.PublicationNames(x.db.Name)[0]))
			x.exec("INSERT INTO t SELECT generate_series(31, 40)")
			x.scan()
		},
	}
	x.again() // what is known from here on is from after the first copies
	for how, leave := range away {
		leave()
		if got := x.table("public.t").Phase; got != string(lake.Waiting) {
			t.Errorf("%s: the table is %s", how, got)
		}
		if got := x.table("public.other").Phase; got != string(lake.Live) && !strings.Contains(how, "otherwise") {
			t.Errorf("%s: the other table is %s", how, got)
		}
		x.copied()
		x.lanes()
		x.equal()
		x.again()
		if got := x.table("public.t").Phase; got != string(lake.Live) {
			t.Errorf("%s: after its copy the table is %s", how, got)
		}
	}
}

func TestAPublicationThatIsGoneParksTheDatabase(t *testing.T) {
	x := newTestSite(t, 32<<20, "CREATE TABLE t (id int PRIMARY KEY)")
	x.exec("DROP PUBLICATION " + pgsource.PublicationNames(x.db.Name)[0])
	err := errors.Join(
		x.try(x.a.Scan, ScanInput{DB: x.db, Epoch: x.in.Epoch}, &ScanResult{}),
		x.try(x.a.Prepare, PrepareInput{DB: x.db, Epoch: x.in.Epoch, SystemID: x.in.SystemID, Timeline: x.in.Timeline}, &PrepareResult{}),
	)
	if n := strings.Count(fmt.Sprint(err), "does not exist: somebody dropped it"); n != 2 {
		t.Errorf("%d steps say so: %v", n, err)
	}
	if f := Classify(fmt.Errorf("%w", pgsource.ErrPublicationMissing)); !f.Park || !f.Database || !strings.Contains(f.Reason.Remedy, "millrace unpark {db} --new-epoch") {
		t.Errorf("%+v", f)
	}
}

func TestWhatNoChangeTellsOfIsFoundByAScan(t *testing.T) {
	x := newTestSite(t, 32<<20,
		"CREATE TABLE idle (id int PRIMARY KEY); INSERT INTO idle VALUES (1)",
		"CREATE TABLE filled (id int PRIMARY KEY); INSERT INTO filled VALUES (1)",
		"CREATE TABLE shown (id int PRIMARY KEY, g int GENERATED ALWAYS AS (7) STORED); INSERT INTO shown VALUES (1)",
		"CREATE TABLE upped (id int PRIMARY KEY, v varchar(10)); INSERT INTO upped VALUES (1, 'a')",
		"CREATE TABLE packed (id int PRIMARY KEY); INSERT INTO packed VALUES (1)",
		"CREATE TABLE grown (id int PRIMARY KEY); INSERT INTO grown VALUES (1)",
		"CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
		"CREATE TABLE fewer (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE fewer_1 PARTITION OF fewer FOR VALUES FROM (0) TO (10); INSERT INTO fewer VALUES (1)",
		"CREATE TABLE more (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE more_1 PARTITION OF more FOR VALUES FROM (0) TO (10); INSERT INTO more VALUES (1)",
	)
	if out := x.scan(); len(out.Found)+len(out.Parked)+len(out.Gone) > 0 {
		t.Fatalf("nothing happened, and the scan says %+v", out)
	}
	x.exec("ALTER TABLE idle RENAME TO renamed; INSERT INTO renamed VALUES (2)",
		"ALTER TABLE filled ADD COLUMN g uuid DEFAULT gen_random_uuid(); ALTER TABLE filled ALTER COLUMN g DROP DEFAULT",
		"ALTER TABLE shown ALTER COLUMN g DROP EXPRESSION",
		"ALTER TABLE upped ALTER v TYPE varchar(20) USING upper(v)",
		"VACUUM FULL packed",
		"ALTER TABLE grown ADD COLUMN v text",
		"CREATE TABLE parts_2 (id int PRIMARY KEY); INSERT INTO parts_2 VALUES (11)",
		"ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (10) TO (20)",
		"DROP TABLE fewer_1",
		"CREATE TABLE more_2 PARTITION OF more FOR VALUES FROM (10) TO (20); INSERT INTO more VALUES (11)",
	)
	old := x.in.Tables
	out := x.scan()
	want := map[string]string{
		"public.idle": "TABLE_RENAMED", "public.filled": "SCHEMA_INCOMPATIBLE", "public.shown": "SCHEMA_INCOMPATIBLE", "public.upped": "SCHEMA_INCOMPATIBLE",
		"public.packed": "live", "public.grown": "live", "public.parts": "waiting", "public.fewer": "waiting", "public.more": "live",
	}
	for _, table := range old {
		got := table.Phase
		for _, f := range out.Found {
			if f.OID == table.OID {
				if got = f.Phase; f.Reason != nil {
					got = string(f.Reason.Code)
				}
			}
		}
		for _, p := range out.Parked {
			if p.OID == table.OID {
				got = string(p.Reason.Code)
			}
		}
		if got != want[table.Name] {
			t.Errorf("%s is %s, want %s", table.Name, got, want[table.Name])
		}
	}
	// Who asks for it gets the copies.
	x.again()
	want = map[string]string{
		"public.renamed": "waiting", "public.filled": "waiting", "public.shown": "waiting", "public.upped": "waiting",
		"public.packed": "live", "public.grown": "live", "public.parts": "waiting", "public.fewer": "waiting", "public.more": "live",
	}
	for _, table := range x.in.Tables {
		if table.Phase != want[table.Name] {
			t.Errorf("%s is %s, want %s", table.Name, table.Phase, want[table.Name])
		}
	}
	x.copied()
	x.lanes()
	x.equal()
}

func TestACopyOfATableThatLeftThePublicationBeginsAgain(t *testing.T) {
	x := newTestSite(t, 32<<20, "CREATE TABLE t (id int PRIMARY KEY)")
	cut, err := x.sql.Cut(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	at := Cut{LSN: cut.LSN, Snapshot: cut.Snapshot, Micros: cut.Micros}
	oid := x.table("public.t").OID
	var plan PlanResult
	x.step(x.a.PlanCopy, PlanInput{DB: x.db, Epoch: x.in.Epoch, Copy: "c", Cut: at, OID: oid}, &plan)
	for i, chunk := range plan.Chunks {
		x.step(x.a.CopyChunk, ChunkInput{DB: x.db, Epoch: x.in.Epoch, Copy: "c", Cut: at, OID: oid, Index: i, Chunk: chunk}, &ChunkResult{})
	}
	name := pgsource.PublicationNames(x.db.Name)[0]
	x.exec(fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE t", name), "INSERT INTO t VALUES (1)", fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE t", name))
	if err := x.try(x.a.FinishCopy, FinishInput{DB: x.db, Epoch: x.in.Epoch, Copy: "c", OID: oid}, &FinishResult{}); err == nil || !strings.Contains(err.Error(), "publication") {
		t.Errorf("the copy ended: %v", err)
	}
}

func TestATopicMadeAnewLosesNothingInSilence(t *testing.T) {
	x := newTestSite(t, 32<<20, "CREATE TABLE t (id int PRIMARY KEY)")
	stop := x.capture()
	x.exec("INSERT INTO t SELECT generate_series(1, 10)") // acknowledged by Kafka, and not in the lake
	x.await("publish", 10)
	stop()
	again := PrepareInput{DB: x.db, Epoch: x.in.Epoch, SystemID: x.in.SystemID, Timeline: x.in.Timeline}
	again.DB.Topic.Name += ".other"
	for range 2 {
		if err := x.try(x.a.Prepare, again, &PrepareResult{}); err == nil || !strings.Contains(err.Error(), topic.ErrTopicMissing.Error()) {
			t.Errorf("without the topic: %v", err)
		}
	}
	// Somebody makes it.
	if err := x.a.kafka.Ensure(context.Background(), x.a.topic(&again.DB)); err != nil {
		t.Fatal(err)
	}
	changed := topic.ErrStreamChanged.Error()
	for range 2 {
		if err := x.try(x.a.Prepare, again, &PrepareResult{}); err == nil || !strings.Contains(err.Error(), changed) {
			t.Errorf("with another topic: %v", err)
		}
		run := x.run(x.a.Capture, CaptureInput{DB: again.DB, Epoch: x.in.Epoch, SystemID: x.in.SystemID, Timeline: x.in.Timeline})
		if <-run.ended; run.err == nil || !strings.Contains(run.err.Error(), changed) {
			t.Errorf("capture into another topic: %v", run.err)
		}
		// Nor does a first preparation take the slot over.
		if err := x.try(x.a.Prepare, PrepareInput{DB: again.DB}, &PrepareResult{}); err == nil || !strings.Contains(err.Error(), changed) {
			t.Errorf("adopted a slot that was read into another topic: %v", err)
		}
	}
	// The topic of before goes on.
	x.again()
	x.lanes()
	x.equal()
}

func TestLatestIsNamedWhereTheTableHasAnIdentityNow(t *testing.T) {
	x := newTestSite(t, 32<<20, "CREATE TABLE lost (id int, CONSTRAINT k PRIMARY KEY (id))", "CREATE TABLE found (id int)")
	lost, found := x.table("public.lost"), x.table("public.found")
	if lost.Latest == "" || found.Latest != "" {
		t.Fatalf("%+v, %+v", lost, found)
	}
	x.exec("ALTER TABLE lost DROP CONSTRAINT k", "ALTER TABLE found ADD PRIMARY KEY (id)")
	x.scan()
	lost, found = x.table("public.lost"), x.table("public.found")
	if lost.Latest != "" || found.Latest == "" || lost.Phase != string(lake.Waiting) || found.Phase != string(lake.Waiting) {
		t.Errorf("%+v, %+v", lost, found)
	}
	x.exec("INSERT INTO lost VALUES (1)", "INSERT INTO found VALUES (1)")
	x.copied()
	x.lanes()
	x.equal()
	x.again()
	if found := x.table("public.found"); found.Latest == "" || found.Phase != string(lake.Live) || x.table("public.lost").Latest != "" {
		t.Errorf("%+v", x.in.Tables)
	}
}
