package activities

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/activities/fleet"
	"github.com/millrace-io/millrace/activities/internal/pgsource"
	"github.com/millrace-io/millrace/activities/internal/pgsource/pgoutput"
	"github.com/millrace-io/millrace/deploy/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(local.Tests{M: m}) }

// benchRows is how many rows a benchmark moves in one run.
const benchRows = 500_000

// mixed is a table of ten mixed columns of about 200 bytes a row.
const mixed = `CREATE TABLE mixed (id bigint PRIMARY KEY, amount numeric(18,2), at timestamptz, token uuid, doc jsonb,
	body text, flag boolean, day date, ratio double precision, n integer)`

// mixedRows selects rows of mixed from FROM_NUMBER to TO_NUMBER.
const mixedRows = `SELECT i, (i % 100000) + 0.25, timestamptz '2024-01-01' + i * interval '1 second', md5(i::text)::uuid,
	jsonb_build_object('i', i, 'tag', 'value ' || i % 100), repeat(md5((i % 1000)::text), 2), i % 2 = 0, date '2020-01-01' + i % 2000,
	i / 3.0, i % 1000000 FROM generate_series(FROM_NUMBER, TO_NUMBER) i`

// between inserts the rows of mixed with the given numbers.
func between(from, to string) string {
	return "INSERT INTO mixed " + strings.NewReplacer("FROM_NUMBER", from, "TO_NUMBER", to).Replace(mixedRows)
}

var benchmarks atomic.Int64

// temporalServer stands for Temporal: it keeps what lanes tell.
type temporalServer struct {
	client.Client
	mu      sync.Mutex
	markers map[string]bool
	parked  map[uint32]*Reason
}

func (s *temporalServer) RecordActivityHeartbeat(context.Context, []byte, ...any) error { return nil }

func (s *temporalServer) CheckHealth(context.Context, *client.CheckHealthRequest) (*client.CheckHealthResponse, error) {
	return nil, nil
}

func (s *temporalServer) SignalWorkflow(_ context.Context, _, _, signal string, arg any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch signal {
	case SignalMarker:
		s.markers[arg.(string)] = true
	case SignalTables:
		for _, t := range arg.(TablesChanged).Tables {
			if t.Reason != nil {
				s.parked[t.OID] = t.Reason
			}
		}
	}
	return nil
}

// reason returns why a table is parked; nil where it is not.
func (s *temporalServer) reason(oid uint32) *Reason {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parked[oid]
}

func (s *temporalServer) passed(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.markers[token]
}

// bench is one source database with a worker's activities.
type bench struct {
	b        testing.TB
	a        *Activities
	temporal *temporalServer
	db       fleet.Database
	sql      *pgsource.DB
	url      string
	in       PrepareResult
	copies   int
}

func newBench(b testing.TB) *bench { return newSite(b, 1<<30) }

// newSite is newBench with a budget of memory bytes.
func newSite(b testing.TB, memory int64) *bench {
	b.Helper()
	pg, kafka := local.SharedPostgres(b), local.SharedKafka(b)
	name := fmt.Sprintf("bench%d_%d", os.Getpid(), benchmarks.Add(1))
	temporal := &temporalServer{markers: map[string]bool{}, parked: map[uint32]*Reason{}}
	a, err := New(Config{
		Worker: "bench", DataDir: b.TempDir(), Memory: memory, Temporal: temporal,
		Brokers: kafka.Brokers, AllowInsecure: true, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := Close(a); err != nil {
			b.Error(err)
		}
	})
	x := &bench{b: b, a: a, temporal: temporal, url: pg.URL(name)}
	execute(b, pg.URL("postgres"), "CREATE DATABASE "+name)
	b.Setenv("BENCH_PASSWORD", pg.Password)
	x.db = fleet.Database{
		Name: name, Region: "bench", Pool: "default", Tables: []string{"public.*"}, Options: fleet.Options{Freshness: new(time.Second)}, HeartbeatTimeout: 30 * time.Second,
		URL:      fmt.Sprintf("postgres://%s@%s:%d/%s?sslmode=disable", pg.User, pg.Host, pg.Port, name),
		Password: "env:BENCH_PASSWORD", Lake: "file://" + b.TempDir(), AllowInsecure: true,
		Topic: fleet.Topic{Name: "bench." + name, Partitions: 6, Replication: 1, MinInSync: 1, Retention: time.Hour},
	}
	return x
}

// exec runs statements on the source, each by itself.
func (x *bench) exec(sql ...string) { execute(x.b, x.url, sql...) }

func execute(tb testing.TB, url string, sql ...string) {
	tb.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, s := range sql {
		if _, err := conn.Exec(context.Background(), s); err != nil {
			tb.Fatal(err)
		}
	}
}

// prepare makes slot, publications, topic and mirrors.
func (x *bench) prepare() {
	x.b.Helper()
	x.step(x.a.Prepare, PrepareInput{DB: x.db}, &x.in)
	sql, err := x.a.source(context.Background(), &x.db, "bench")
	if err != nil {
		x.b.Fatal(err)
	}
	x.sql = sql
	x.b.Cleanup(func() {
		sql.Close()
		var out DropResult
		x.step(x.a.Drop, DropInput{DB: x.db, Epoch: x.in.Epoch}, &out)
	})
}

// step runs a short activity.
func (x *bench) step(activity, in, out any) {
	x.b.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetTestTimeout(10 * time.Minute)
	env.RegisterActivity(activity)
	v, err := env.ExecuteActivity(activity, in)
	if err != nil {
		x.b.Fatal(err)
	}
	if err := v.Get(out); err != nil {
		x.b.Fatal(err)
	}
}

// lane runs a long activity until the returned function is called.
func (x *bench) lane(activity, in any) (stop func()) {
	run := x.run(activity, in)
	return func() {
		if _, err := run.stop(); err != nil {
			x.b.Error(err)
		}
	}
}

// running is a long activity.
type running struct {
	quit  chan struct{}
	once  sync.Once
	ended chan struct{}
	out   LaneResult
	err   error
}

// stop ends the activity as a worker does that stops.
func (r *running) stop() (LaneResult, error) {
	r.once.Do(func() { close(r.quit) })
	<-r.ended
	return r.out, r.err
}

// run starts a long activity.
func (x *bench) run(activity, in any) *running {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	env.SetTestTimeout(10 * time.Minute)
	env.RegisterActivity(activity)
	r := &running{quit: make(chan struct{}), ended: make(chan struct{})}
	env.SetWorkerStopChannel(r.quit)
	go func() {
		defer close(r.ended)
		v, err := env.ExecuteActivity(activity, in)
		if r.err = err; err == nil {
			r.err = v.Get(&r.out)
		}
	}()
	return r
}

func (x *bench) capture() (stop func()) {
	return x.lane(x.a.Capture, CaptureInput{DB: x.db, Epoch: x.in.Epoch, SystemID: x.in.SystemID, Timeline: x.in.Timeline})
}

// copied copies every table and returns when all are live.
func (x *bench) copied() {
	x.b.Helper()
	x.copies++
	id := fmt.Sprintf("bench%d", x.copies)
	cut, err := x.sql.Cut(context.Background())
	if err != nil {
		x.b.Fatal(err)
	}
	defer cut.Close()
	at := Cut{LSN: cut.LSN, Snapshot: cut.Snapshot, Micros: cut.Micros}
	for _, t := range x.in.Tables {
		var plan PlanResult
		x.step(x.a.PlanCopy, PlanInput{DB: x.db, Epoch: x.in.Epoch, Copy: id, Cut: at, OID: t.OID}, &plan)
		for i, chunk := range plan.Chunks {
			var out ChunkResult
			x.step(x.a.CopyChunk, ChunkInput{DB: x.db, Epoch: x.in.Epoch, Copy: id, Cut: at, OID: t.OID, Index: i, Chunk: chunk}, &out)
		}
		var out FinishResult
		x.step(x.a.FinishCopy, FinishInput{DB: x.db, Epoch: x.in.Epoch, Copy: id, OID: t.OID}, &out)
		if out.Phase != "live" {
			x.b.Fatalf("%s is %s after its copy", t.Name, out.Phase)
		}
	}
}

// await waits until a stage has finished n rows.
func (x *bench) await(stage string, n float64) {
	x.b.Helper()
	deadline := time.Now().Add(5 * time.Minute)
	for {
		var m dto.Metric
		if err := x.a.metrics.rows.WithLabelValues(x.db.Name, stage).Write(&m); err != nil {
			x.b.Fatal(err)
		}
		if m.GetCounter().GetValue() >= n {
			return
		}
		if time.Now().After(deadline) {
			x.b.Fatalf("stage %s finished %.0f of %.0f rows in 5 minutes", stage, m.GetCounter().GetValue(), n)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// measure reports rows per second and this process's CPU-seconds per million
// rows over f.
func (x *bench) measure(f func()) {
	before, began := cpu(), time.Now()
	f()
	took, used := time.Since(began).Seconds(), cpu()-before
	b := x.b.(*testing.B)
	b.ReportMetric(benchRows/took, "rows/s")
	b.ReportMetric(used/benchRows*1e6, "cpu-s/Mrow")
	b.ReportMetric(0, "ns/op")
}

// cpu is the CPU time of this process, in seconds.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// BenchmarkCopyToNowhere is the limit of copying: binary COPY over TCP whose
// bytes nobody looks at.
func BenchmarkCopyToNowhere(b *testing.B) {
	for range b.N {
		x := newBench(b)
		x.exec(mixed)
		x.exec(between("1", fmt.Sprint(benchRows)), "VACUUM mixed", "CHECKPOINT")
		conn, err := pgx.Connect(context.Background(), x.url)
		if err != nil {
			b.Fatal(err)
		}
		// CommandComplete and ReadyForQuery, which come last.
		end := fmt.Appendf(nil, "COPY %d\x00Z\x00\x00\x00\x05I", benchRows)
		buf := make([]byte, 256<<10)
		x.measure(func() {
			front := conn.PgConn().Frontend()
			front.SendQuery(&pgproto3.Query{String: "COPY mixed TO STDOUT (FORMAT binary)"})
			if err := front.Flush(); err != nil {
				b.Fatal(err)
			}
			for had := 0; !bytes.HasSuffix(buf[:had], end); {
				// What the end may begin with stays in front.
				had = copy(buf, buf[max(0, had-len(end)):had])
				n, err := conn.PgConn().Conn().Read(buf[had:])
				if err != nil {
					b.Fatal(err)
				}
				had += n
			}
		})
		_ = conn.PgConn().Conn().Close()
	}
}

// BenchmarkCopy copies a table into history and latest until it is live.
func BenchmarkCopy(b *testing.B) {
	for range b.N {
		x := newBench(b)
		x.exec(mixed)
		x.exec(between("1", fmt.Sprint(benchRows)), "VACUUM mixed", "CHECKPOINT")
		x.prepare()
		x.measure(x.copied)
	}
}

// traffic writes benchRows rows in transactions of 100.
func (x *bench) traffic() {
	var script strings.Builder
	script.WriteString("DO $$ BEGIN FOR k IN 0.." + fmt.Sprint(benchRows/100-1) + " LOOP ")
	script.WriteString(between("k * 100 + 1", "k * 100 + 100"))
	script.WriteString("; COMMIT; END LOOP; END $$")
	x.exec("SET synchronous_commit = off", script.String())
}

// BenchmarkDecode is the limit of capture: the slot's stream is decoded and
// nothing is made of it.
func BenchmarkDecode(b *testing.B) {
	for range b.N {
		x := newBench(b)
		x.exec(mixed)
		x.prepare()
		x.traffic()
		slot, err := x.sql.Slot(context.Background(), pgsource.SlotName(x.db.Name, x.in.Epoch))
		if err != nil {
			b.Fatal(err)
		}
		stream, err := x.sql.Stream(context.Background(), pgsource.StreamConfig{
			Slot: slot.Name, Publications: pgsource.PublicationNames(x.db.Name), Start: slot.Confirmed, Tag: tag(x.db.Name, "bench"),
		})
		if err != nil {
			b.Fatal(err)
		}
		x.measure(func() {
			var m pgoutput.Message
			for rows := 0; rows < benchRows; {
				got, err := stream.Next(&m, time.Second)
				if err != nil {
					b.Fatal(err)
				}
				if got && m.Kind == pgoutput.Insert {
					rows++
				}
			}
		})
		_ = stream.Close()
	}
}

// BenchmarkCapture drains a slot into Kafka.
func BenchmarkCapture(b *testing.B) {
	for range b.N {
		x := newBench(b)
		x.exec(mixed)
		x.prepare()
		x.traffic()
		var stop func()
		x.measure(func() {
			stop = x.capture()
			x.await("publish", benchRows)
		})
		stop()
	}
}

// BenchmarkWholeWay drains a slot through Kafka into history and latest.
func BenchmarkWholeWay(b *testing.B) {
	for range b.N {
		x := newBench(b)
		x.exec(mixed)
		x.prepare()
		x.copied()
		x.traffic()
		var stop, end func()
		x.measure(func() {
			stop = x.capture()
			end = x.lane(x.a.Commit, CommitInput{DB: x.db, Epoch: x.in.Epoch})
			x.await("commit", benchRows)
		})
		end()
		stop()
	}
}
