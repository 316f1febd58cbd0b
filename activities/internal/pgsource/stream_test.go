package pgsource

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/pgsource/pgoutput"
	"github.com/millrace-io/millrace/deploy/local"
)

// stream streams the slot of epoch 1 of the database "shop", which it makes.
func (s *source) stream(tag string) *Stream {
	s.t.Helper()
	st, err := s.tryStream(tag)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = st.Close() })
	return st
}

func (s *source) tryStream(tag string) (*Stream, error) {
	s.t.Helper()
	slot, err := s.db.EnsureSlot(s.t.Context(), "shop", 1)
	if err != nil {
		return nil, err
	}
	return s.db.Stream(s.t.Context(), StreamConfig{Slot: slot.Name, Publications: PublicationNames("shop"), Tag: tag})
}

// describe writes a message in words.
func describe(m *pgoutput.Message) string {
	values := func(b []byte) string {
		var t change.Tuple
		if _, err := t.Parse(b); err != nil {
			return err.Error()
		}
		var list []string
		for i, k := range t.Kinds {
			switch k {
			case change.Null:
				list = append(list, "NULL")
			case change.Unchanged:
				list = append(list, "unchanged")
			default:
				list = append(list, string(t.Values[i]))
			}
		}
		return strings.Join(list, ",")
	}
	switch m.Kind {
	case pgoutput.Begin:
		return "begin"
	case pgoutput.Commit:
		return "commit"
	case pgoutput.Relation:
		return "relation " + m.Relation.String()
	case pgoutput.Insert:
		return "insert " + values(m.New)
	case pgoutput.Update:
		if m.OldKind != 0 {
			return fmt.Sprintf("update %c %s to %s", m.OldKind, values(m.Old), values(m.New))
		}
		return "update " + values(m.New)
	case pgoutput.Delete:
		return fmt.Sprintf("delete %c %s", m.OldKind, values(m.Old))
	case pgoutput.Truncate:
		return fmt.Sprintf("truncate %d", len(m.OIDs))
	case pgoutput.Logical:
		return fmt.Sprintf("message %s %s %t", m.Prefix, m.Content, m.Transactional)
	}
	return fmt.Sprintf("%c", m.Kind)
}

// until reads messages until one is last, and returns all in words.
func until(t testing.TB, st *Stream, last string) (list []string) {
	t.Helper()
	var m pgoutput.Message
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		got, err := st.Next(&m, 20*time.Millisecond)
		if err != nil {
			t.Fatalf("after %v: %v", list, err)
		}
		if got {
			list = append(list, describe(&m))
			if list[len(list)-1] == last {
				return list
			}
		}
	}
	t.Fatalf("%q did not come: %v", last, list)
	return nil
}

func TestStreamCarriesEveryKindOfChange(t *testing.T) {
	s := newSource(t)
	s.exec(`CREATE TABLE keyed (id int PRIMARY KEY, v text, big text); ALTER TABLE keyed ALTER big SET STORAGE EXTERNAL;
		CREATE TABLE whole (a int, b text); ALTER TABLE whole REPLICA IDENTITY FULL;
		CREATE TABLE log (a int);
		CREATE TABLE parts (id int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (id) STORED) PARTITION BY RANGE (id);
		CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10); CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20)`)
	s.publish("public.*")
	st := s.stream("")
	s.exec("BEGIN; INSERT INTO keyed VALUES (1, 'a', NULL), (2, 'b', 'x'); UPDATE keyed SET v = 'A' WHERE id = 1; UPDATE keyed SET id = 3 WHERE id = 2; DELETE FROM keyed WHERE id = 1; COMMIT")
	s.exec("BEGIN; INSERT INTO whole VALUES (1, 'x'); UPDATE whole SET b = 'y'; DELETE FROM whole; COMMIT")
	s.exec("BEGIN; INSERT INTO log VALUES (1); UPDATE log SET a = 2; DELETE FROM log; COMMIT")
	s.exec("BEGIN; INSERT INTO parts VALUES (1, 'x'); UPDATE parts SET id = 11; COMMIT")
	s.exec("BEGIN; SAVEPOINT p; INSERT INTO log VALUES (5); ROLLBACK TO p; INSERT INTO log VALUES (6); COMMIT")
	s.exec("TRUNCATE keyed, whole")
	if _, err := s.db.EmitMarker(t.Context(), "millrace.marker", "done"); err != nil {
		t.Fatal(err)
	}
	got := until(t, st, "message millrace.marker done true")
	want := []string{
		"begin", "insert 1,a,NULL", "insert 2,b,x", "update 1,A,NULL", "update K 2,NULL,NULL to 3,b,x", "delete K 1,NULL,NULL", "commit",
		"begin", "insert 1,x", "update O 1,x to 1,y", "delete O 1,y", "commit",
		"begin", "insert 1", "commit",
		"begin", "insert 1,x", "delete K 1,NULL", "insert 11,x", "commit",
		"begin", "insert 6", "commit",
		"begin", "truncate 2", "commit",
		"begin", "message millrace.marker done true",
	}
	if slices.Contains(got, "relation public.parts_1") || !slices.Contains(got, "relation public.parts") {
		t.Errorf("partitions are described, or their root is not: %v", got)
	}
	// How often relations are repeated is the server's affair.
	changes := slices.DeleteFunc(got, func(m string) bool { return strings.HasPrefix(m, "relation") })
	if strings.Join(changes, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(changes, "\n"), strings.Join(want, "\n"))
	}
}

func TestRelationComesRightBeforeItsFirstChange(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
	s.publish("public.*")
	st := s.stream("")
	s.exec("BEGIN; TRUNCATE a, b; INSERT INTO a VALUES (1); ALTER TABLE a ADD v int; INSERT INTO a VALUES (2, 3); INSERT INTO b VALUES (4); COMMIT")
	got := until(t, st, "commit")
	if got[1] > got[2] {
		got[1], got[2] = got[2], got[1]
	}
	want := []string{"begin", "relation public.a", "relation public.b", "truncate 2", "insert 1", "relation public.a", "insert 2,3", "insert 4", "commit"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestHugeValueStreams(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE t (id int PRIMARY KEY, v bytea)")
	s.publish("public.*")
	st := s.stream("")
	s.exec("INSERT INTO t SELECT g, convert_to(repeat('x', 20000000), 'UTF8') FROM generate_series(1, 2) g; INSERT INTO t VALUES (3, 'y')")
	var m pgoutput.Message
	var sizes []int
	for len(sizes) < 3 {
		if _, err := st.Next(&m, 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if m.Kind == pgoutput.Insert {
			sizes = append(sizes, len(m.New))
			m.Kind = 0
		}
	}
	if sizes[0] != sizes[1] || sizes[0] < 40_000_000 || sizes[2] > 100 {
		t.Errorf("tuples of %v bytes", sizes)
	}
	until(t, st, "commit")
	s.exec("INSERT INTO t VALUES (4, 'y')")
	until(t, st, "commit")
	if len(st.wire.buf) > wireBuffer {
		t.Errorf("the buffer keeps %d bytes", len(st.wire.buf))
	}
}

func TestUnchangedTOASTIsMarked(t *testing.T) {
	s := newSource(t)
	s.exec(`CREATE TABLE t (id int PRIMARY KEY, v int, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
		INSERT INTO t VALUES (1, 1, repeat('x', 9000))`)
	s.publish("public.*")
	st := s.stream("")
	s.exec("UPDATE t SET v = 2")
	until(t, st, "update 1,2,unchanged")
}

func TestRelationOfTheStreamHasTheCatalogsFingerprint(t *testing.T) {
	s := newSource(t)
	s.exec(`CREATE TYPE mood AS ENUM ('ok'); CREATE DOMAIN cents AS numeric(10,2);
		CREATE TABLE a (x int, id bigint PRIMARY KEY, n numeric(8,1), m mood, c cents, g int GENERATED ALWAYS AS (x) STORED);
		CREATE TABLE b (x int, y text); ALTER TABLE b REPLICA IDENTITY FULL;
		CREATE TABLE c (x int, y text PRIMARY KEY); ALTER TABLE c REPLICA IDENTITY FULL;
		CREATE TABLE d (x int);
		CREATE TABLE e (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE e_1 PARTITION OF e DEFAULT; ALTER TABLE e REPLICA IDENTITY FULL`)
	tables := s.publish("public.*")
	st := s.stream("")
	s.exec("INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1); INSERT INTO c VALUES (1, 'k'); INSERT INTO d VALUES (1); INSERT INTO e VALUES (1)")
	seen := 0
	var m pgoutput.Message
	for seen < len(tables) {
		got, err := st.Next(&m, 100*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if !got || m.Kind != pgoutput.Relation {
			continue
		}
		seen++
		resolved, err := s.db.Resolve(t.Context(), m.Relation)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range tables {
			if want.OID != resolved.OID {
				continue
			}
			if fmt.Sprintf("%+v", *resolved) != fmt.Sprintf("%+v", *want) {
				t.Errorf("the stream and the catalog differ:\n%+v\n%+v", *resolved, *want)
			}
		}
	}
}

func TestConfirmedTransactionsDoNotComeAgain(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE t (id int PRIMARY KEY)")
	s.publish("public.*")
	st := s.stream("")
	s.exec("INSERT INTO t VALUES (1)")
	s.exec("INSERT INTO t VALUES (2)")
	var m pgoutput.Message
	var first change.LSN
	for first == 0 {
		if got, err := st.Next(&m, time.Second); err != nil || !got {
			t.Fatalf("%t %v", got, err)
		}
		if m.Kind == pgoutput.Commit {
			first = m.EndLSN
		}
	}
	if err := st.Confirm(first); err != nil {
		t.Fatal(err)
	}
	if err := st.Confirm(first - 1); err != nil { // never goes back
		t.Fatal(err)
	}
	eventually(t, "the slot has moved", func() bool {
		w, err := s.db.WAL(t.Context(), SlotName("shop", 1))
		return err == nil && w.Confirmed >= first
	})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	again := s.stream("")
	got := until(t, again, "commit")
	if strings.Join(got, " ") != "begin relation public.t insert 2 commit" {
		t.Errorf("got %v", got)
	}
}

func TestIdleStreamAdvances(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)")
	s.publish("public.t")
	st := s.stream("")
	begin := st.ServerLSN()
	s.exec("INSERT INTO other SELECT generate_series(1, 1000)")
	if err := s.db.Heartbeat(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.exec("CHECKPOINT") // flushes what the heartbeat wrote
	target := change.LSN(0)
	if _, err := fmt.Sscanf(s.value("pg_current_wal_lsn() - '0/0'"), "%d", &target); err != nil {
		t.Fatal(err)
	}
	var m pgoutput.Message
	eventually(t, "the server's LSN passes the writes of others", func() bool {
		got, err := st.Next(&m, 10*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if got && m.Kind == pgoutput.Insert {
			t.Fatal("a change of a table that is not published")
		}
		return st.ServerLSN() > begin && st.ServerLSN() >= target
	})
	if err := st.Confirm(st.ServerLSN()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the slot holds none of it", func() bool {
		w, err := s.db.WAL(t.Context(), SlotName("shop", 1))
		return err == nil && w.Confirmed >= target
	})
}

func TestOwnStaleReaderIsEnded(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE t (id int PRIMARY KEY)")
	s.publish("public.*")
	owner := "millrace/local/shop/capture/"
	stale := s.stream(owner + "3f0d8a52-7a53-4d6e-9c1b-0e5a5c1f2b3d/1")
	fresh := s.stream(owner + "3f0d8a52-7a53-4d6e-9c1b-0e5a5c1f2b3d/2")
	s.exec("INSERT INTO t VALUES (1)")
	until(t, fresh, "insert 1")
	var m pgoutput.Message
	eventually(t, "the stale stream fails", func() bool {
		_, err := stale.Next(&m, 10*time.Millisecond)
		return errors.Is(err, ErrUnreachable)
	})
	if _, err := s.tryStream(owner + "3f0d8a52-7a53-4d6e-9c1b-0e5a5c1f2b3d/1"); !errors.Is(err, ErrSuperseded) {
		t.Errorf("an earlier attempt: %v", err)
	}
}

func TestReaderOfOthersIsLeftAlone(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE t (id int PRIMARY KEY)")
	s.publish("public.*")
	for _, other := range []string{"pg_recvlogical", "millrace/local/shop2/capture/run/1", "millrace/local/shop/captured/run/1"} {
		st := s.stream(other)
		_, err := s.tryStream("millrace/local/shop/capture/run/1")
		var e *Error
		if !errors.Is(err, ErrSlotActive) || !errors.As(err, &e) || e.Remedy == "" {
			t.Errorf("%s: %v", other, err)
		}
		s.exec("INSERT INTO t VALUES (1); DELETE FROM t")
		until(t, st, "delete K 1")
		_ = st.Close()
		eventually(t, "the slot is free", func() bool {
			slot, err := s.db.Slot(t.Context(), SlotName("shop", 1))
			return err == nil && !slot.Active
		})
	}
}

func TestSlowReaderIsNotDropped(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server")
	}
	server, err := local.StartPostgres(t.Context(), local.PostgresOptions{Settings: map[string]string{"wal_sender_timeout": "1s"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s := newSourceOn(t, server, "")
	s.exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
	s.publish("public.*")
	st := s.stream("")
	// More than the sockets hold, so that the server has to wait for the reader.
	s.exec("INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 40000) g")
	var m pgoutput.Message
	if got, err := st.Next(&m, 5*time.Second); err != nil || !got {
		t.Fatalf("%t %v", got, err)
	}
	pid := s.value("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '" + SlotName("shop", 1) + "'")
	blocked := time.Now()
	eventually(t, "three timeouts of the server have passed", func() bool { return time.Since(blocked) > 3*time.Second })
	rows := 0
	for m.Kind != pgoutput.Commit {
		if _, err := st.Next(&m, time.Second); err != nil {
			t.Fatalf("after %d rows: %v", rows, err)
		}
		if m.Kind == pgoutput.Insert {
			rows++
		}
	}
	if rows != 40000 {
		t.Errorf("%d rows", rows)
	}
	if now := s.value("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '" + SlotName("shop", 1) + "'"); now != pid {
		t.Errorf("another session reads: %s instead of %s", now, pid)
	}
}

func TestEndOfTheServerEndsTheStream(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server")
	}
	server, err := local.StartPostgres(t.Context(), local.PostgresOptions{Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s := newSourceOn(t, server, "")
	s.exec("CREATE TABLE t (id int PRIMARY KEY)")
	s.publish("public.*")
	st := s.stream("")
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	var m pgoutput.Message
	eventually(t, "the stream fails", func() bool {
		_, err := st.Next(&m, 10*time.Millisecond)
		return errors.Is(err, ErrUnreachable)
	})
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.admin = connectRaw(t, server.URL(s.name))
	eventually(t, "queries work again by themselves", func() bool {
		_, err := s.db.Slot(t.Context(), SlotName("shop", 1))
		return err == nil
	})
	again := s.stream("")
	s.exec("INSERT INTO t VALUES (7)")
	until(t, again, "insert 7")
}

func TestMissingSlotAndPublicationAreNamed(t *testing.T) {
	s := newSource(t)
	ctx := t.Context()
	if _, err := s.db.Slot(ctx, "millrace_shop_e9"); !errors.Is(err, ErrSlotMissing) {
		t.Errorf("slot: %v", err)
	}
	if _, err := s.db.WAL(ctx, "millrace_shop_e9"); !errors.Is(err, ErrSlotMissing) {
		t.Errorf("WAL: %v", err)
	}
	if _, err := s.tryStream(""); !errors.Is(err, ErrPublicationMissing) {
		t.Errorf("stream without publications: %v", err)
	}
	// The slot is older than the publication: PostgreSQL never finds it there.
	s.exec("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
	s.publish("public.*")
	st := s.stream("")
	s.exec("INSERT INTO t VALUES (2)")
	var m pgoutput.Message
	eventually(t, "the stream says so, or PostgreSQL forgives it", func() bool {
		got, err := st.Next(&m, 10*time.Millisecond)
		return errors.Is(err, ErrPublicationMissing) || got && m.Kind == pgoutput.Insert
	})
}

func TestSlotsAreMadeOnceAndDropped(t *testing.T) {
	s := newSource(t)
	ctx := t.Context()
	first, err := s.db.EnsureSlot(ctx, "shop", 3)
	if err != nil || !first.Created || first.Name != "millrace_shop_e3" || first.Confirmed == 0 || first.Active {
		t.Fatalf("%+v, %v", first, err)
	}
	second, err := s.db.EnsureSlot(ctx, "shop", 3)
	if err != nil || second.Created || second.Confirmed != first.Confirmed {
		t.Fatalf("%+v, %v", second, err)
	}
	if _, err := s.db.EnsureSlot(ctx, "shop_e3", 1); err != nil {
		t.Fatal(err)
	}
	names, err := s.db.SlotNames(ctx, "shop")
	if err != nil || strings.Join(names, " ") != "millrace_shop_e3" {
		t.Errorf("names %v, %v", names, err)
	}
	if dropped, err := s.db.DropSlot(ctx, first.Name); err != nil || !dropped {
		t.Errorf("drop: %t %v", dropped, err)
	}
	if dropped, err := s.db.DropSlot(ctx, first.Name); err != nil || dropped {
		t.Errorf("drop again: %t %v", dropped, err)
	}
}

func TestDroppingASlotEndsOurReader(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE t (id int PRIMARY KEY)")
	s.publish("public.*")
	s.stream("millrace/test/capture/run/7")
	if dropped, err := s.db.DropSlot(t.Context(), SlotName("shop", 1)); err != nil || !dropped {
		t.Errorf("drop: %t %v", dropped, err)
	}
	s.stream("somebody else")
	if _, err := s.db.DropSlot(t.Context(), SlotName("shop", 1)); !errors.Is(err, ErrSlotActive) {
		t.Errorf("drop of what others read: %v", err)
	}
}

func TestOpenTransactionThatBlocksASlotIsNamed(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE t (id int PRIMARY KEY)")
	s.exec("SET application_name = 'long job'; BEGIN; INSERT INTO t VALUES (1)")
	conn, err := s.db.session(t.Context(), sessionOptions{long: true})
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn.PgConn())
	ctx, cancel := context.WithCancel(t.Context())
	var g sync.WaitGroup
	g.Go(func() {
		_, _ = conn.Exec(ctx, `SELECT pg_create_logical_replication_slot('millrace_shop_e1', 'pgoutput')`)
	})
	var text string
	eventually(t, "the blocking transaction is seen", func() bool {
		text = s.db.blocker(t.Context(), conn.PgConn().PID())
		return text != ""
	})
	if !strings.Contains(text, "long job") || !strings.Contains(text, fmt.Sprint(s.admin.PgConn().PID())) {
		t.Errorf("it is described as %q", text)
	}
	if err := blocked("make the slot x", text, context.DeadlineExceeded); !errors.Is(err, ErrBlocked) || !strings.Contains(err.Error(), "long job") {
		t.Errorf("the error is %v", err)
	}
	cancel()
	g.Wait()
	s.exec("ROLLBACK")
}

func TestSQLASCIIDatabaseStreamsAnyBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server")
	}
	s := newSourceOn(t, sharedServer(t), "ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
	s.exec(`SET client_encoding = 'SQL_ASCII'; CREATE TABLE t (id int PRIMARY KEY, v text)`)
	s.exec(`INSERT INTO t VALUES (1, convert_from('\xff61'::bytea, 'SQL_ASCII'))`)
	table := s.publish("public.*")[0]
	st := s.stream("")
	s.exec(`INSERT INTO t VALUES (2, convert_from('\xff62'::bytea, 'SQL_ASCII'))`)
	until(t, st, "insert 2,\xffb")
	cut, err := s.db.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	var got []string
	err = s.db.ReadTable(t.Context(), cut.Snapshot, table, func(row *change.Tuple) error {
		got = append(got, string(row.Values[1]))
		return nil
	})
	if err != nil || strings.Join(got, " ") != "\xffa \xffb" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestLostSlotIsNamed(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server")
	}
	server, err := local.StartPostgres(t.Context(), local.PostgresOptions{Settings: map[string]string{
		"max_slot_wal_keep_size": "16MB", "max_wal_size": "32MB", "min_wal_size": "32MB",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s := newSourceOn(t, server, "")
	s.exec("CREATE TABLE t (id int, v text)")
	if _, err := s.db.EnsureSlot(t.Context(), "shop", 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the slot is lost", func() bool {
		s.exec("INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g; SELECT pg_switch_wal(); CHECKPOINT")
		_, err := s.db.EnsureSlot(t.Context(), "shop", 1)
		return errors.Is(err, ErrSlotLost)
	})
	var e *Error
	_, err = s.db.Stream(t.Context(), StreamConfig{Slot: SlotName("shop", 1), Publications: PublicationNames("shop")})
	if !errors.As(err, &e) || e.Code != "SLOT_LOST" || e.Remedy == "" {
		t.Errorf("stream: %v", err)
	}
}

func TestPatientReaderSeesEveryByteInTime(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := listener.Accept()
		accepted <- c
	}()
	conn, err := dial(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer := <-accepted
	defer peer.Close()
	patient(conn)

	var g sync.WaitGroup
	defer g.Wait()
	const total = 8 << 20
	g.Go(func() {
		// Much at once, so that the reader becomes patient, and then a trickle.
		b := make([]byte, 1<<16)
		for sent := 0; sent < total; sent += len(b) {
			if _, err := peer.Write(b); err != nil {
				return
			}
		}
	})
	buf := make([]byte, wireBuffer)
	for read := 0; read < total; {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("after %d bytes: %v", read, err)
		}
		read += n
	}
	for range 20 {
		begin := time.Now()
		if _, err := peer.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(buf); n != 1 || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if late := time.Since(begin); late > time.Second {
			t.Errorf("a byte came %s late", late)
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := conn.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read without bytes: %v", err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	_ = peer.Close()
	if _, err := conn.Read(buf); !isEOF(err) {
		t.Errorf("a read after the end: %v", err)
	}
}
