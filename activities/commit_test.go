package activities

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/lake"
	"github.com/millrace-io/millrace/activities/internal/topic"
)

// patience is how long a test waits for what has to happen.
const patience = time.Minute

// newTestSite is a prepared source of some tables, all of them live.
func newTestSite(t *testing.T, memory int64, ddl ...string) *bench {
	t.Helper()
	x := newSite(t, memory)
	x.db.Freshness = new(200 * time.Millisecond)
	x.exec(ddl...)
	x.prepare()
	x.copied()
	return x
}

// table returns what the preparation or scan said of a table.
func (x *bench) table(name string) TableInfo {
	x.b.Helper()
	for _, t := range x.in.Tables {
		if t.Name == name {
			return t
		}
	}
	x.b.Fatalf("no table %s", name)
	return TableInfo{}
}

func (x *bench) commitLane(resume json.RawMessage, parked ...uint32) *running {
	return x.run(x.a.Commit, CommitInput{DB: x.db, Epoch: x.in.Epoch, Resume: resume, Parked: parked})
}

// until waits for a condition.
func (x *bench) until(what string, done func() bool) {
	x.b.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			x.b.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// caughtUp waits until the lake has what is committed now.
func (x *bench) caughtUp() {
	x.b.Helper()
	token := fmt.Sprintf("test.%d", rand.Int64())
	if _, err := x.sql.EmitMarker(context.Background(), markerPrefix, token); err != nil {
		x.b.Fatal(err)
	}
	x.until("a marker is told", func() bool { return x.temporal.passed(token) })
}

// equal proves that source, history and latest are equal. The lake is caught
// up, and nobody writes.
func (x *bench) equal() {
	x.b.Helper()
	cut, err := x.sql.Cut(context.Background())
	if err != nil {
		x.b.Fatal(err)
	}
	defer cut.Close()
	for _, t := range x.in.Tables {
		var out TableReport
		x.step(x.a.VerifyTable, VerifyInput{
			DB: x.db, Epoch: x.in.Epoch, OID: t.OID, Name: t.Name, Cut: Cut{LSN: cut.LSN, Snapshot: cut.Snapshot},
		}, &out)
		if !out.Equal {
			x.b.Errorf("%s differs: %q", t.Name, out.Differences)
		}
	}
}

// commits is how many versions a table's history has.
func (x *bench) commits(name string) int64 {
	x.b.Helper()
	ctx := context.Background()
	src, err := x.sql.Describe(ctx, x.table(name).OID)
	if err != nil {
		x.b.Fatal(err)
	}
	m, err := x.a.mirror(ctx, &x.db, src)
	if err != nil {
		x.b.Fatal(err)
	}
	defer m.Close()
	if err := m.Refresh(ctx); err != nil {
		x.b.Fatal(err)
	}
	return m.Info().Commits
}

// ends is a hint to read from the end of the topic.
func (x *bench) ends() json.RawMessage {
	x.b.Helper()
	r, err := x.a.kafka.Reader(context.Background(), topic.ReaderConfig{Topic: x.db.Topic.Name})
	if err != nil {
		x.b.Fatal(err)
	}
	defer r.Close()
	at := make([]topic.Resume, x.db.Topic.Partitions)
	for p, span := range r.Ends() {
		at[p].Offset = span.End
	}
	b, err := json.Marshal(at)
	if err != nil {
		x.b.Fatal(err)
	}
	return b
}

func TestATransactionLargerThanMemoryBecomesVisibleInOneCommit(t *testing.T) {
	tables := []string{
		mixed, "CREATE TABLE one (id int PRIMARY KEY, v text)", "CREATE TABLE two (id int PRIMARY KEY, v text)",
		"CREATE TABLE three (a int, v text); ALTER TABLE three REPLICA IDENTITY FULL",
	}
	x := newTestSite(t, 2<<20, tables...)
	x.db.Freshness = new(50 * time.Millisecond)
	defer x.capture()()
	lane := x.commitLane(nil)
	x.caughtUp()
	before := x.commits("public.mixed")
	var tx strings.Builder
	tx.WriteString("BEGIN;" + between("1", "15000"))
	for _, table := range []string{"one", "two", "three"} {
		fmt.Fprintf(&tx, "; INSERT INTO %s SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 3000) i", table)
	}
	// The shape changes within the transaction.
	tx.WriteString("; ALTER TABLE mixed ADD COLUMN more text;" + strings.Replace(between("15001", "30000"), "FROM generate", ", 'more' FROM generate", 1))
	tx.WriteString("; UPDATE mixed SET amount = amount + 1 WHERE id % 7 = 0; DELETE FROM mixed WHERE id % 11 = 0; DELETE FROM three WHERE a % 2 = 0; COMMIT")
	x.exec(tx.String())
	x.caughtUp()
	// One commit of history and one of latest, which is given the column in one
	// more.
	if got := x.commits("public.mixed") - before; got > 3 {
		t.Errorf("the transaction took %d commits", got)
	}
	out, err := lane.stop()
	if err != nil {
		t.Fatal(err)
	}
	if out.Why != whyStopping {
		t.Errorf("the lane ended: %s", out.Why)
	}
	x.equal()
	if used := x.a.budget.Used(); used != 0 {
		t.Errorf("%d bytes of the budget were not given back", used)
	}
}

func TestALaneStoppedAtAnyPointAppliesEveryChangeOnce(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	x := newTestSite(t, 32<<20,
		"CREATE TABLE keyed (id int PRIMARY KEY, v text, n int)",
		"CREATE TABLE bag (a int, v text); ALTER TABLE bag REPLICA IDENTITY FULL",
		"CREATE TABLE log (a int, v text)")
	x.db.Freshness = new(20 * time.Millisecond)
	defer x.capture()()
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range 150 {
			x.exec(fmt.Sprintf(`BEGIN;
				INSERT INTO keyed SELECT %[1]d * 100 + i, repeat('x', i), %[1]d FROM generate_series(0, 40) i;
				UPDATE keyed SET n = n + 1 WHERE id %% 17 = %[1]d %% 17;
				UPDATE keyed SET id = -id WHERE id = %[1]d * 100 + 3;
				DELETE FROM keyed WHERE id = %[1]d * 100 + 4;
				INSERT INTO bag VALUES (%[1]d %% 5, 'same'), (%[1]d %% 5, 'same');
				INSERT INTO log VALUES (%[1]d, 'line');
				DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag); COMMIT`, i))
		}
	}()
	var resume json.RawMessage
	for range 12 {
		lane := x.commitLane(resume)
		time.Sleep(time.Duration(rng.IntN(250)) * time.Millisecond) // the moment is what is tested
		out, err := lane.stop()
		if err != nil {
			t.Fatal(err)
		}
		if resume = out.Resume; rng.IntN(3) == 0 {
			resume = nil
		}
	}
	<-written
	lane := x.commitLane(resume)
	x.caughtUp()
	if _, err := lane.stop(); err != nil {
		t.Fatal(err)
	}
	x.equal()
}

func TestATableThatParksDoesNotHoldUpOthers(t *testing.T) {
	x := newTestSite(t, 32<<20, "CREATE TABLE bad (id int PRIMARY KEY, d date)", "CREATE TABLE good (id int PRIMARY KEY, v text)")
	defer x.capture()()
	lane := x.commitLane(nil)
	x.exec("BEGIN; INSERT INTO bad VALUES (1, 'today'), (2, 'infinity'); INSERT INTO good VALUES (1, 'a'); COMMIT", "INSERT INTO good VALUES (2, 'b')")
	x.caughtUp()
	bad := x.table("public.bad").OID
	x.until("the table parks", func() bool { return x.temporal.reason(bad) != nil })
	if r := x.temporal.reason(bad); r.Code != "UNREPRESENTABLE_VALUE" {
		t.Errorf("parked as %s: %s", r.Code, r.Message)
	}
	out, err := lane.stop()
	if err != nil {
		t.Fatal(err)
	}
	x.exec("INSERT INTO bad VALUES (3, 'today')", "INSERT INTO good VALUES (3, 'c')")
	lane = x.commitLane(out.Resume, bad)
	x.caughtUp()
	if _, err := lane.stop(); err != nil {
		t.Fatal(err)
	}
	x.in.Tables = []TableInfo{x.table("public.good")}
	x.equal()
	if used := x.a.budget.Used(); used != 0 {
		t.Errorf("%d bytes of the budget were not given back", used)
	}
}

func TestAHintThatIsTooFarAheadRewinds(t *testing.T) {
	x := newTestSite(t, 32<<20, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	stop := x.capture()
	x.exec("INSERT INTO t VALUES (1, 'a')")
	x.await("publish", 1)
	stop()
	hint := x.ends()
	defer x.capture()()
	lane := x.commitLane(hint)
	x.exec("INSERT INTO t VALUES (2, 'b')")
	<-lane.ended
	if lane.err != nil || lane.out.Why != errRewind.Error() || len(lane.out.Resume) > 0 {
		t.Fatalf("the lane ended with %+v, %v", lane.out, lane.err)
	}
	lane = x.commitLane(lane.out.Resume)
	x.caughtUp()
	if _, err := lane.stop(); err != nil {
		t.Fatal(err)
	}
	x.equal()
}

func TestARecordThatIsMissingParksTheTableUntilItIsCopiedAgain(t *testing.T) {
	x := newSite(t, 32<<20)
	x.db.Freshness = new(50 * time.Millisecond)
	small := x.a.topic(&x.db)
	small.MaxMessageBytes = 1 << 17
	if err := x.a.kafka.Ensure(context.Background(), small); err != nil {
		t.Fatal(err)
	}
	x.exec("CREATE TABLE t (id int PRIMARY KEY, v text)", "CREATE TABLE other (id int PRIMARY KEY, v text)")
	x.prepare()
	x.copied()
	defer x.capture()()
	lane := x.commitLane(nil)
	x.exec("INSERT INTO t VALUES (1, 'a')",
		"INSERT INTO t SELECT 2, string_agg(md5(i::text), '') FROM generate_series(1, 8000) i", // does not fit: left out
		"INSERT INTO t VALUES (3, 'c')", "INSERT INTO other VALUES (1, 'a')")
	x.caughtUp()
	oid := x.table("public.t").OID
	x.until("the table parks", func() bool { r := x.temporal.reason(oid); return r != nil && r.Code == "KAFKA_GAP" })
	out, err := lane.stop()
	if err != nil {
		t.Fatal(err)
	}
	all := x.in.Tables
	x.in.Tables = []TableInfo{x.table("public.other")}
	x.equal()
	x.in.Tables = all

	// The gap lies before the cut now.
	x.exec("UPDATE t SET v = 'b' WHERE id = 2")
	x.copied()
	lane = x.commitLane(nil)
	x.exec("INSERT INTO t VALUES (4, 'd')")
	x.caughtUp()
	if lane.out, lane.err = lane.stop(); lane.err != nil {
		t.Fatal(lane.err)
	}
	_ = out
	x.equal()
}

func TestAValueThatACopySupersededParksNoLaterRun(t *testing.T) {
	x := newTestSite(t, 32<<20, "CREATE TABLE t (id int PRIMARY KEY, d date)")
	defer x.capture()()
	lane := x.commitLane(nil)
	x.exec("INSERT INTO t VALUES (1, 'infinity')")
	oid := x.table("public.t").OID
	x.until("the table parks", func() bool { return x.temporal.reason(oid) != nil })
	if _, err := lane.stop(); err != nil {
		t.Fatal(err)
	}
	x.exec("UPDATE t SET d = '2020-01-01'")
	x.copied()
	x.temporal.mu.Lock()
	delete(x.temporal.parked, oid)
	x.temporal.mu.Unlock()
	for i := range 2 { // from the beginning, each time
		lane = x.commitLane(nil)
		if i > 0 {
			x.exec("INSERT INTO t VALUES (2, '2020-01-02')")
		}
		x.caughtUp()
		if _, err := lane.stop(); err != nil {
			t.Fatal(err)
		}
		if r := x.temporal.reason(oid); r != nil {
			t.Fatalf("parked: %+v", r)
		}
		x.equal()
	}
}

func TestMarkersAreToldOnlyWhenEverythingBeforeIsReadable(t *testing.T) {
	x := newTestSite(t, 32<<20, "CREATE TABLE a (id int PRIMARY KEY, v text)", "CREATE TABLE b (id int PRIMARY KEY, v text)")
	x.db.Freshness = new(time.Hour) // nothing but markers brings changes home
	defer x.capture()()
	lane := x.commitLane(nil)
	for i := range 5 {
		x.exec(fmt.Sprintf("INSERT INTO a SELECT i, 'a' FROM generate_series(%d, %d) i", i*1000, i*1000+999),
			fmt.Sprintf("INSERT INTO b VALUES (%d, 'b')", i))
		x.caughtUp()
		x.equal()
	}
	if _, err := lane.stop(); err != nil {
		t.Fatal(err)
	}
}

func TestMessagesOfOthersUnderOurPrefixStopNothing(t *testing.T) {
	x := newTestSite(t, 32<<20, "CREATE TABLE a (id int PRIMARY KEY)")
	capture := x.run(x.a.Capture, CaptureInput{DB: x.db, Epoch: x.in.Epoch, SystemID: x.in.SystemID, Timeline: x.in.Timeline})
	lane := x.commitLane(nil)
	x.exec("SELECT pg_logical_emit_message(true, 'millrace.marker', repeat('x', 5000))",
		"SELECT pg_logical_emit_message(true, 'millrace.marker', repeat('x', 5000) || '.1')",
		"SELECT pg_logical_emit_message(true, 'millrace.marker', '')",
		"SELECT pg_logical_emit_message(true, 'millrace.marker', 'hello')",
		"INSERT INTO a VALUES (1)")
	x.caughtUp()
	x.equal()
	if x.temporal.passed("hello") {
		t.Error("the message of somebody else was told as a marker")
	}
	if _, err := lane.stop(); err != nil {
		t.Error(err)
	}
	if _, err := capture.stop(); err != nil {
		t.Error(err)
	}
}

func TestOnlyTokensOfRequestsAreMarkers(t *testing.T) {
	for _, token := range []string{"0b3c7f6e-6d0e-4f0e-9a3e-2f1d5c7b8a90.1", "test.9223372036854775807"} {
		if err := checkMarker(token); err != nil {
			t.Error(err)
		}
	}
	for _, token := range []string{
		"", "hello", ".1", "a.", "a.x", "a b.1", "a.1\n", "\x00.1", "ä.1", strings.Repeat("x", topic.MaxToken) + ".1",
	} {
		if checkMarker(token) == nil {
			t.Errorf("%.40q is taken for a marker", token)
		}
	}
}

func TestATableDroppedAndMadeAgainGoesOnUnderItsName(t *testing.T) {
	x := newTestSite(t, 32<<20, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	stop := x.capture()
	lane := x.commitLane(nil)
	x.exec("INSERT INTO t SELECT i, 'old' FROM generate_series(1, 10) i")
	x.caughtUp()
	out, err := lane.stop()
	if err != nil {
		t.Fatal(err)
	}
	old := x.table("public.t")
	// The commit lane is behind all this.
	x.exec("INSERT INTO t SELECT i, 'old' FROM generate_series(11, 20) i")
	x.exec("DROP TABLE t", "CREATE TABLE t (id int PRIMARY KEY, v text)")
	var scan ScanResult
	x.step(x.a.Scan, ScanInput{DB: x.db, Epoch: x.in.Epoch, Known: []KnownTable{{OID: old.OID, Name: old.Name, Ground: old.Ground}}}, &scan)
	if len(scan.Found) != 1 || len(scan.Gone) != 1 {
		t.Fatalf("the scan found %+v", scan)
	}
	x.in.Tables = scan.Found
	x.exec("INSERT INTO t SELECT i, 'new' FROM generate_series(1, 5) i", "UPDATE t SET v = 'newer' WHERE id = 1")
	for _, hint := range []json.RawMessage{out.Resume, nil} {
		lane = x.commitLane(hint)
		x.caughtUp()
		if _, err := lane.stop(); err != nil {
			t.Fatal(err)
		}
	}
	for _, oid := range []uint32{old.OID, scan.Found[0].OID} {
		if r := x.temporal.reason(oid); r != nil {
			t.Fatalf("table %d is parked: %+v", oid, r)
		}
	}
	x.copied()
	lane = x.commitLane(nil)
	x.exec("DELETE FROM t WHERE id = 2")
	x.caughtUp()
	if _, err := lane.stop(); err != nil {
		t.Fatal(err)
	}
	stop()
	x.equal()
	// 20 of the first table; of the second 5, an update, 5 copied and a delete.
	if rows := x.historyRows("public.t"); rows != 20+6+5+1 {
		t.Errorf("history has %d rows", rows)
	}
}

// historyRows counts the rows of a table's history.
func (x *bench) historyRows(name string) int64 {
	x.b.Helper()
	ctx := context.Background()
	src, err := x.sql.Describe(ctx, x.table(name).OID)
	if err != nil {
		x.b.Fatal(err)
	}
	m, err := x.a.mirror(ctx, &x.db, src)
	if err != nil {
		x.b.Fatal(err)
	}
	defer m.Close()
	return m.Info().HistoryRows
}

func TestARenamedTableParksAndIsCopiedUnderItsName(t *testing.T) {
	x := newTestSite(t, 32<<20, "CREATE TABLE t (id int PRIMARY KEY, v text)", "CREATE TABLE other (id int PRIMARY KEY, v text)")
	defer x.capture()()
	lane := x.commitLane(nil)
	x.exec("INSERT INTO t VALUES (1, 'a')")
	x.caughtUp()
	x.exec("ALTER TABLE t RENAME TO u", "INSERT INTO u VALUES (2, 'b')", "INSERT INTO other VALUES (1, 'a')")
	x.caughtUp()
	oid := x.table("public.t").OID
	x.until("the table parks", func() bool { return x.temporal.reason(oid) != nil })
	if r := x.temporal.reason(oid); r.Code != "TABLE_RENAMED" {
		t.Fatalf("parked as %s: %s", r.Code, r.Message)
	}
	if _, err := lane.stop(); err != nil {
		t.Fatal(err)
	}
	x.step(x.a.Prepare, PrepareInput{DB: x.db, Epoch: x.in.Epoch, SystemID: x.in.SystemID, Timeline: x.in.Timeline}, &x.in)
	if u := x.table("public.u"); u.OID != oid || u.Phase != string(lake.Waiting) {
		t.Fatalf("the table is %+v", u)
	}
	x.copied()
	lane = x.commitLane(nil)
	x.exec("INSERT INTO u VALUES (3, 'c')")
	x.caughtUp()
	if _, err := lane.stop(); err != nil {
		t.Fatal(err)
	}
	x.equal()
}

func TestTheQueueForgetsWhatNeverBecameComplete(t *testing.T) {
	at := func(lsn change.LSN, ordinal uint64) change.Position {
		return change.Position{Epoch: 1, CommitLSN: lsn, Ordinal: ordinal}
	}
	m := &mirrored{}
	var taken int64
	for lsn := change.LSN(1); lsn <= 4; lsn++ {
		taken += m.enqueue(&topic.Record{Data: topic.Data{First: at(lsn, 1), Last: at(lsn, 9), Body: make([]byte, 100)}}, change.Position{})
	}
	taken -= m.trim(at(2, 5))
	if len(m.queue) != 2 || m.queue[0].end != at(1, 9) || m.queue[1].end != at(2, 5) {
		t.Errorf("left: %+v", m.queue)
	}
	for len(m.queue) > 0 {
		taken -= m.unqueue()
	}
	if taken != 0 || m.queuedBytes != 0 {
		t.Errorf("%d bytes taken, %d counted", taken, m.queuedBytes)
	}
}

func TestWhatAnEndedEpochLeftIncompleteIsDiscarded(t *testing.T) {
	x := newTestSite(t, 32<<20, "CREATE TABLE t (id int PRIMARY KEY, v text)")
	ctx := context.Background()
	src, err := x.sql.Describe(ctx, x.table("public.t").OID)
	if err != nil {
		t.Fatal(err)
	}
	system, err := x.sql.System(ctx)
	if err != nil {
		t.Fatal(err)
	}
	publish := func(epoch uint32) *topic.Publisher {
		p, err := x.a.kafka.Publisher(ctx, topic.PublisherConfig{Topic: x.db.Topic.Name, Epoch: epoch})
		if err == nil {
			_, err = p.Schema(ctx, src)
		}
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	try := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	insert := func(p *topic.Publisher, id int, v string) error {
		tuple := []byte{0, 2}
		for _, s := range []string{fmt.Sprint(id), v} {
			tuple = append(binary.BigEndian.AppendUint32(append(tuple, 't'), uint32(len(s))), s...)
		}
		return p.Change(src.OID, src.Fingerprint, change.Create, nil, tuple)
	}
	lsn := system.LSN + 1<<20
	first := publish(1)
	try(first.Begin(lsn, 1, 1), insert(first, 1, "a"), first.Commit(lsn+8))
	try(first.Begin(lsn+16, 1, 2), insert(first, 2, "b"), first.Commit(lsn+24))
	// A transaction that is too large to wait as records, and never ends.
	try(first.Begin(lsn+100, 1, 3))
	for i := range 24 {
		try(insert(first, 100+i, strings.Repeat("x", 1<<19)))
	}
	x.until("the transaction is in the topic", func() bool { return first.Stats().Pending == 0 })
	try(first.Close(ctx))
	second := publish(2)
	lane := x.commitLane(nil)
	try(second.Begin(lsn, 1, 4), insert(second, 3, "c"), second.Marker("end"), second.Commit(lsn+8))
	x.until("the marker is told", func() bool { return x.temporal.passed("end") })
	out, err := lane.stop()
	try(err, second.Close(ctx))
	if out.Why != whyStopping {
		t.Errorf("the lane ended: %s", out.Why)
	}
	if r := x.temporal.reason(src.OID); r != nil {
		t.Errorf("the table is parked: %+v", r)
	}
	if rows := x.historyRows("public.t"); rows != 3 {
		t.Errorf("history has %d rows, want 3", rows)
	}
	if used := x.a.budget.Used(); used != 0 {
		t.Errorf("%d bytes of the budget were not given back", used)
	}
}
