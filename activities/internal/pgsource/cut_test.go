package pgsource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/pgsource/pgoutput"
)

// TestCutIsExact has writers commit at different durabilities while cuts are
// taken, and compares each snapshot with the transactions that the stream says
// committed below the cut.
func TestCutIsExact(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE t (writer int, n int, PRIMARY KEY (writer, n))")
	table := s.publish("public.*")[0]
	st := s.stream("")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var g sync.WaitGroup
	var commits atomic.Int64
	for w := range 4 {
		conn := connectRaw(t, s.server.URL(s.name))
		g.Go(func() {
			defer conn.Close(context.Background())
			_, _ = conn.Exec(ctx, fmt.Sprintf("SET synchronous_commit = %s", []string{"on", "off"}[w%2]))
			for n := 0; ctx.Err() == nil; n++ {
				// Rolled back writes must be in no snapshot.
				end := "COMMIT"
				if n%7 == 6 {
					end = "ROLLBACK"
				}
				_, _ = conn.Exec(context.Background(), fmt.Sprintf("BEGIN; INSERT INTO t VALUES (%d, %d); %s", w, n, end), pgx.QueryExecModeSimpleProtocol)
				commits.Add(1)
			}
		})
	}
	type cutRows struct {
		at   change.LSN
		rows map[string]bool
	}
	var cuts []cutRows
	for range 12 {
		before := commits.Load()
		cut, err := s.db.Cut(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// What commits between the cut and the reading must not be seen.
		eventually(t, "writers went on", func() bool { return commits.Load() > before+20 })
		rows := map[string]bool{}
		err = s.db.ReadTable(t.Context(), cut.Snapshot, table, func(row *change.Tuple) error {
			rows[string(row.Values[0])+","+string(row.Values[1])] = true
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		cuts = append(cuts, cutRows{cut.LSN, rows})
		if err := cut.Close(); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	g.Wait()
	if _, err := s.db.EmitMarker(t.Context(), "end", ""); err != nil {
		t.Fatal(err)
	}
	below := make([]map[string]bool, len(cuts)) // what committed below each cut
	for i := range below {
		below[i] = map[string]bool{}
	}
	var m pgoutput.Message
	var at change.LSN
	var row change.Tuple
	for m.Kind != pgoutput.Logical {
		if _, err := st.Next(&m, 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		switch m.Kind {
		case pgoutput.Begin:
			at = m.FinalLSN
		case pgoutput.Insert:
			if _, err := row.Parse(m.New); err != nil {
				t.Fatal(err)
			}
			for i := range cuts {
				if at < cuts[i].at {
					below[i][string(row.Values[0])+","+string(row.Values[1])] = true
				}
			}
		}
	}
	for i, c := range cuts {
		var missing, extra int
		for k := range below[i] {
			if !c.rows[k] {
				missing++
			}
		}
		for k := range c.rows {
			if !below[i][k] {
				extra++
			}
		}
		if missing > 0 || extra > 0 {
			t.Errorf("cut %d at %s: of %d rows committed below it %d are not in the snapshot, %d others are", i, c.at, len(below[i]), missing, extra)
		}
	}
	if len(cuts[len(cuts)-1].rows) == 0 {
		t.Error("nothing was written")
	}
}

func TestCutLeavesNoSlotAndOutlivesIt(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10)")
	cut, err := s.db.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if cut.LSN == 0 || cut.Snapshot == "" || cut.System.ID == "" || cut.System.Timeline != 1 || cut.Micros < change.PostgresEpochMicros {
		t.Errorf("cut %+v", cut)
	}
	eventually(t, "the temporary slot is gone", func() bool {
		return s.value("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == "0"
	})
	s.exec("DELETE FROM t WHERE id > 5")
	s.exec("VACUUM t")
	table := s.table("public.t")
	if n := copyRows(t, s.db, cut.Snapshot, table, 1<<20); n != 10 {
		t.Errorf("%d rows", n)
	}
	if err := cut.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := cut.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the snapshot is gone", func() bool {
		_, err := s.db.Plan(t.Context(), cut.Snapshot, table, 1<<20)
		return errors.Is(err, ErrSnapshotGone)
	})
	if err := cut.Ping(t.Context()); !errors.Is(err, ErrSnapshotGone) {
		t.Errorf("ping after close: %v", err)
	}
	for _, name := range []string{"", "00000003-0000001B-1", "'; DROP TABLE t; --"} {
		if _, err := s.db.Plan(t.Context(), name, table, 1<<20); !errors.Is(err, ErrSnapshotGone) {
			t.Errorf("snapshot %q: %v", name, err)
		}
	}
}

func TestHolderThatDiesIsNoticed(t *testing.T) {
	s := newSource(t)
	cut, err := s.db.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	s.exec(fmt.Sprintf("SELECT pg_terminate_backend(%d)", cut.conn.PgConn().PID()))
	eventually(t, "ping fails", func() bool { return errors.Is(cut.Ping(t.Context()), ErrSnapshotGone) })
}

func TestChunksHoldEveryRowOnce(t *testing.T) {
	s := newSource(t)
	s.exec(`CREATE TABLE plain (id int PRIMARY KEY, v text); INSERT INTO plain SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g;
		DELETE FROM plain WHERE id % 3 = 0;
		CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
		CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (3000);
		CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (3000) TO (6000) PARTITION BY RANGE (id);
		CREATE TABLE parts_2a (v text, id int NOT NULL); ALTER TABLE parts_2 ATTACH PARTITION parts_2a FOR VALUES FROM (3000) TO (6000);
		CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (6000) TO (9000);
		INSERT INTO parts SELECT g, 'v' || g FROM generate_series(1, 5000) g;
		CREATE TABLE parent (id int PRIMARY KEY, v text); CREATE TABLE child () INHERITS (parent);
		INSERT INTO parent VALUES (1, 'a'); INSERT INTO child VALUES (2, 'b');
		CREATE TABLE empty (id int PRIMARY KEY, v text); CREATE TABLE toasted (id int PRIMARY KEY, v text);
		ALTER TABLE toasted ALTER v SET STORAGE EXTERNAL; INSERT INTO toasted SELECT g, repeat('y', 20000) FROM generate_series(1, 100) g`)
	tables := s.tables("public.*")
	cut, err := s.db.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	s.exec("INSERT INTO plain SELECT g, 'late' FROM generate_series(30001, 31000) g")
	for _, c := range []struct {
		name           string
		size           int64
		chunks, rows   int
		distinctLeaves int
	}{
		{"plain", 64 << 10, 0, 13334, 1},
		{"plain", 1 << 40, 1, 13334, 1},
		{"parts", 1 << 40, 2, 5000, 2},
		{"parts", 1, 0, 5000, 2},
		{"parent", 1 << 20, 1, 1, 1},
		{"empty", 1 << 20, 1, 0, 1},
		{"toasted", 500_000, 0, 100, 1},
	} {
		table := tables[c.name]
		chunks, err := s.db.Plan(t.Context(), cut.Snapshot, table, c.size)
		if err != nil {
			t.Fatal(err)
		}
		if c.chunks > 0 && len(chunks) != c.chunks || c.chunks == 0 && len(chunks) < 2 && c.name != "toasted" {
			t.Errorf("%s: %d chunks of %d bytes: %v", c.name, len(chunks), c.size, chunks)
		}
		ids := map[string]int{}
		leaves := map[uint32]bool{}
		for _, chunk := range chunks {
			leaves[chunk.Leaf] = true
			_, err := s.db.CopyChunk(t.Context(), cut.Snapshot, table, chunk, []bool{true, false}, func(row *change.Tuple) error {
				if string(row.Kinds) != "tb" {
					return fmt.Errorf("kinds %q", row.Kinds)
				}
				ids[string(row.Values[0])]++
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if len(ids) != c.rows || len(leaves) != c.distinctLeaves {
			t.Errorf("%s: %d rows of %d from %d leaves", c.name, len(ids), c.rows, len(leaves))
		}
		for id, n := range ids {
			if n != 1 {
				t.Fatalf("%s: row %s came %d times", c.name, id, n)
			}
		}
		read := 0
		err = s.db.ReadTable(t.Context(), cut.Snapshot, table, func(*change.Tuple) error { read++; return nil })
		if err != nil || read != c.rows {
			t.Errorf("%s: read %d rows of %d, %v", c.name, read, c.rows, err)
		}
	}
}

func TestChangeUnderACopyIsDetected(t *testing.T) {
	s := newSource(t)
	for name, ddl := range map[string]string{
		"vacuum full":              "VACUUM FULL %s",
		"cluster":                  "CLUSTER %s USING %s_pkey",
		"volatile default":         "ALTER TABLE %s ADD COLUMN r float8 DEFAULT random()",
		"type":                     "ALTER TABLE %s ALTER v TYPE bigint",
		"truncate":                 "TRUNCATE %s",
		"drop":                     "DROP TABLE %s",
		"rename of a column":       "ALTER TABLE %s RENAME v TO w",
		"another column like it":   "ALTER TABLE %s DROP v; ALTER TABLE %s ADD v int",
		"unlogged":                 "ALTER TABLE %s SET UNLOGGED",
		"drop and make":            "DROP TABLE %s; CREATE TABLE %s (id int PRIMARY KEY, v int)",
		"harmless: a column more":  "ALTER TABLE %s ADD w int DEFAULT 5",
		"harmless: rename":         "ALTER TABLE %s RENAME TO %s_renamed",
		"harmless: another schema": "CREATE SCHEMA IF NOT EXISTS x; ALTER TABLE %s SET SCHEMA x",
	} {
		t.Run(name, func(t *testing.T) {
			table := "t_" + suffix()
			s.exec(fmt.Sprintf("CREATE TABLE %s (id int PRIMARY KEY, v int); INSERT INTO %s SELECT g, g FROM generate_series(1, 100) g", table, table))
			shape := s.table("public." + table)
			cut, err := s.db.Cut(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer cut.Close()
			chunks, err := s.db.Plan(t.Context(), cut.Snapshot, shape, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for _, sql := range strings.Split(strings.ReplaceAll(ddl, "%s", table), "; ") {
				s.exec(sql)
			}
			rows, err := s.db.CopyChunk(t.Context(), cut.Snapshot, shape, chunks[0], nil, func(*change.Tuple) error { return nil })
			readErr := s.db.ReadTable(t.Context(), cut.Snapshot, shape, func(*change.Tuple) error { return nil })
			if strings.HasPrefix(name, "harmless") {
				if err != nil || readErr != nil || rows != 100 {
					t.Errorf("%d rows, %v, %v", rows, err, readErr)
				}
				return
			}
			if !errors.Is(err, ErrRewritten) || !errors.Is(readErr, ErrRewritten) {
				t.Errorf("copy: %v; read: %v", err, readErr)
			}
			// A change between the cut and the plan is as bad.
			if !slices.Contains([]string{"rename of a column", "another column like it"}, name) {
				if _, err := s.db.Plan(t.Context(), cut.Snapshot, shape, 1<<20); !errors.Is(err, ErrRewritten) {
					t.Errorf("plan: %v", err)
				}
			}
		})
	}
}

func TestValuesAreCopiedAsTheStreamPrintsThem(t *testing.T) {
	s := newSource(t)
	s.exec(`CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"'); CREATE TYPE pair AS (a int, b text);
		CREATE TABLE t (id int PRIMARY KEY, c char(5), i inet, b bool, f float8, r float4, n numeric, m mood, p pair, e pair,
			x xml, j jsonb, d date, ts timestamptz, iv interval, mo money, bits bit(3), ba bytea, a text[], rg int4range, tv tsvector, s text, z text, k "char");
		ALTER TABLE t REPLICA IDENTITY FULL`)
	table := s.publish("public.*")[0]
	st := s.stream("")
	s.exec(`SET datestyle = 'German'; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Tokyo'; SET extra_float_digits = -5; SET bytea_output = 'escape';
		INSERT INTO t VALUES (1, 'ab', '10.0.0.1', true, 0.1::float8 + 0.2, 1/3.0, 'NaN', 'it''s "ok"', (1, 'x,"y\z'), (NULL, NULL),
		'<a>1</a>', '{"b": 1.10, "a": [null]}', '0044-03-15 BC', '2024-02-29 12:00:00.123456+09', '-1 mon 2 days 03:04:05.6', '1234.50', B'101', '\x00ff5c27',
		ARRAY['a', NULL, '{"', '\'], '[1,5)', 'fat cat', E'tab\tnl\nback\\ \r\b end', '', 'q')`)
	var m pgoutput.Message
	for m.Kind != pgoutput.Insert {
		if _, err := st.Next(&m, 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	var streamed change.Tuple
	if _, err := streamed.Parse(m.New); err != nil {
		t.Fatal(err)
	}
	cut, err := s.db.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	compare := func(how string) func(*change.Tuple) error {
		return func(row *change.Tuple) error {
			for i := range streamed.Kinds {
				if row.Kinds[i] != streamed.Kinds[i] || !bytes.Equal(row.Values[i], streamed.Values[i]) {
					t.Errorf("%s: column %s is %c %q, streamed %c %q", how, table.Columns[i].Name, row.Kinds[i], row.Values[i], streamed.Kinds[i], streamed.Values[i])
				}
			}
			return nil
		}
	}
	if err := s.db.ReadTable(t.Context(), cut.Snapshot, table, compare("text")); err != nil {
		t.Fatal(err)
	}
	chunks, err := s.db.Plan(t.Context(), cut.Snapshot, table, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	all := slices.Repeat([]bool{true}, len(table.Columns))
	if _, err := s.db.CopyChunk(t.Context(), cut.Snapshot, table, chunks[0], all, compare("binary COPY of printed values")); err != nil {
		t.Fatal(err)
	}
	// The binary values, read by pgx, print the same where pgx knows the type.
	known := pgtype.NewMap()
	_, err = s.db.CopyChunk(t.Context(), cut.Snapshot, table, chunks[0], nil, func(row *change.Tuple) error {
		for _, name := range []string{"id", "s", "z", "ba"} {
			i := table.Column(name)
			var binary, text any
			oid := table.Columns[i].TypeOID
			ty, _ := known.TypeForOID(oid)
			binary, err1 := ty.Codec.DecodeValue(known, oid, pgtype.BinaryFormatCode, row.Values[i])
			text, err2 := ty.Codec.DecodeValue(known, oid, pgtype.TextFormatCode, streamed.Values[i])
			if err1 != nil || err2 != nil || fmt.Sprint(binary) != fmt.Sprint(text) {
				t.Errorf("%s: %v and %v, %v %v", name, binary, text, err1, err2)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCopyEndsWithItsContext(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g")
	table := s.table("public.t")
	cut, err := s.db.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	chunks, err := s.db.Plan(t.Context(), cut.Snapshot, table, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = s.db.CopyChunk(ctx, cut.Snapshot, table, chunks[0], nil, func(*change.Tuple) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	stop := errors.New("enough")
	if _, err := s.db.CopyChunk(t.Context(), cut.Snapshot, table, chunks[0], nil, func(*change.Tuple) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
	eventually(t, "no session of a copy is left", func() bool {
		return s.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%' AND state = 'active' AND pid <> pg_backend_pid()") == "0"
	})
}
