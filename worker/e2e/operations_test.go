package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// shapes are tables of every kind of identity, with a few rows.
const shapes = `
CREATE TABLE plain (id int PRIMARY KEY, a text, b int);
INSERT INTO plain SELECT i, 'row ' || i, i FROM generate_series(1, 500) i;
CREATE TABLE composite (region text, day date, n bigint, amount numeric(14,3), PRIMARY KEY (region, n));
INSERT INTO composite SELECT 'r' || i % 3, date '2024-02-29' + i, i, i * 0.125 FROM generate_series(1, 200) i;
CREATE TABLE key_last (a text, b bytea, id uuid PRIMARY KEY);
INSERT INTO key_last SELECT 'x', '\x00ff', md5(i::text)::uuid FROM generate_series(1, 50) i;
CREATE TABLE full_with_key (id int PRIMARY KEY, a text, big text);
ALTER TABLE full_with_key REPLICA IDENTITY FULL;
ALTER TABLE full_with_key ALTER big SET STORAGE EXTERNAL;
INSERT INTO full_with_key SELECT i, 'a', repeat('z', 5000) FROM generate_series(1, 20) i;
CREATE TABLE twins (kind text, n int, at timestamptz);
ALTER TABLE twins REPLICA IDENTITY FULL;
INSERT INTO twins SELECT 'same', 1, timestamptz '2024-01-01' FROM generate_series(1, 10);
INSERT INTO twins SELECT 'other', i, NULL FROM generate_series(1, 10) i;
CREATE TABLE toasted (id int PRIMARY KEY, small int, large text, larger text);
ALTER TABLE toasted ALTER large SET STORAGE EXTERNAL, ALTER larger SET STORAGE EXTERNAL;
INSERT INTO toasted SELECT i, i, repeat('large ' || i, 1000), repeat('larger ' || i, 1500) FROM generate_series(1, 10) i;
CREATE TABLE by_index (a int NOT NULL, b text NOT NULL, c text, UNIQUE (b));
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_b_key;
INSERT INTO by_index SELECT i, 'b' || i, 'c' FROM generate_series(1, 10) i;
CREATE TABLE emptied (id int PRIMARY KEY, a text);
INSERT INTO emptied SELECT i, 'gone soon' FROM generate_series(1, 100) i;
CREATE TABLE emptied_too (id int PRIMARY KEY, a text);
CREATE TABLE computed (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, b text);
INSERT INTO computed SELECT i, i FROM generate_series(1, 10) i;
CREATE TABLE readings (id bigint, at date NOT NULL, v float8, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE readings_2023 PARTITION OF readings FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
CREATE TABLE readings_2024 PARTITION OF readings FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
INSERT INTO readings SELECT i, date '2023-06-01' + i, i / 3.0 FROM generate_series(1, 400) i;
CREATE TABLE "Odd Näme""s" ("Key Col" int PRIMARY KEY, "select" text, "__op" text, "a.b" int);
INSERT INTO "Odd Näme""s" VALUES (1, 'x', 'y', 2);
CREATE TABLE anonymous (a int, b text);
INSERT INTO anonymous SELECT i, 'before' FROM generate_series(1, 10) i;
CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, a text);
INSERT INTO deferred SELECT i, 'before' FROM generate_series(1, 10) i;
`

// operations are transactions, one each, after all tables are live.
var operations = []string{
	// inserts, updates and deletes
	`INSERT INTO plain SELECT i, NULL, -i FROM generate_series(501, 600) i`,
	`UPDATE plain SET a = a || '!' WHERE id % 7 = 0`,
	`UPDATE plain SET b = NULL WHERE id = 3; UPDATE plain SET b = 4 WHERE id = 3; UPDATE plain SET b = 5 WHERE id = 3`,
	`DELETE FROM plain WHERE id % 11 = 0`,
	`INSERT INTO plain VALUES (11, 'back', 1); DELETE FROM plain WHERE id = 11; INSERT INTO plain VALUES (11, 'back again', 2)`,
	`UPDATE plain SET a = a WHERE id < 20`,
	// key changes: to a new key, through a swap, onto a key that was deleted in the same transaction
	`UPDATE plain SET id = id + 10000 WHERE id BETWEEN 100 AND 120`,
	`UPDATE plain SET id = -1 WHERE id = 1; UPDATE plain SET id = 1 WHERE id = 2; UPDATE plain SET id = 2 WHERE id = -1`,
	`DELETE FROM plain WHERE id = 5; UPDATE plain SET id = 5, a = 'took the place of 5' WHERE id = 6`,
	`UPDATE composite SET region = 'moved', day = day + 1 WHERE n % 5 = 0`,
	`UPDATE composite SET amount = amount * 3 WHERE region = 'r1'; DELETE FROM composite WHERE region = 'r2'`,
	`UPDATE key_last SET id = md5('other' || id::text)::uuid WHERE id < 'a0000000-0000-0000-0000-000000000000'; UPDATE key_last SET b = NULL`,
	`UPDATE by_index SET b = b || 'x', a = 0 WHERE a > 7; UPDATE by_index SET c = NULL; DELETE FROM by_index WHERE a = 1`,
	// identity is the whole row
	`UPDATE full_with_key SET a = 'b' WHERE id < 5; DELETE FROM full_with_key WHERE id = 7; UPDATE full_with_key SET id = 100 WHERE id = 8`,
	`DELETE FROM twins WHERE ctid IN (SELECT ctid FROM twins WHERE kind = 'same' LIMIT 3)`,
	`UPDATE twins SET n = 2 WHERE ctid IN (SELECT ctid FROM twins WHERE kind = 'same' LIMIT 2); INSERT INTO twins VALUES ('same', 1, '2024-01-01'), ('same', 2, '2024-01-01')`,
	`UPDATE twins SET n = n WHERE kind = 'other'; DELETE FROM twins WHERE kind = 'other' AND n > 8`,
	// TOASTed values that PostgreSQL does not send
	`UPDATE toasted SET small = small + 1`,
	`UPDATE toasted SET large = 'short now' WHERE id = 2; UPDATE toasted SET small = 0 WHERE id = 2`,
	`UPDATE toasted SET id = id + 100 WHERE id IN (3, 4)`,
	`UPDATE toasted SET small = 7 WHERE id = 103; UPDATE toasted SET id = 3 WHERE id = 103; UPDATE toasted SET small = 8 WHERE id = 3`,
	`DELETE FROM toasted WHERE id = 5; INSERT INTO toasted SELECT 5, 5, repeat('new', 3000), NULL; UPDATE toasted SET small = 6 WHERE id = 5`,
	// truncates
	`TRUNCATE emptied`,
	`INSERT INTO emptied VALUES (1, 'a'), (2, 'b'); TRUNCATE emptied, emptied_too; INSERT INTO emptied VALUES (2, 'c')`,
	`INSERT INTO emptied_too VALUES (1, 'x'); TRUNCATE emptied_too; INSERT INTO emptied_too VALUES (1, 'y')`,
	`UPDATE computed SET a = a + 1 WHERE id < 4; INSERT INTO computed VALUES (99, 5)`,
	// partitions: rows that move from one to another
	`UPDATE readings SET at = date '2024-06-01' + id::int % 100 WHERE id < 20; DELETE FROM readings WHERE id BETWEEN 30 AND 40`,
	`INSERT INTO readings VALUES (9001, '2023-02-02', 'NaN'), (9002, '2024-02-02', '-Infinity')`,
	`UPDATE "Odd Näme""s" SET "select" = 'z', "Key Col" = 2; INSERT INTO "Odd Näme""s" VALUES (3, NULL, NULL, NULL)`,
	// several tables at once
	`UPDATE plain SET b = 0 WHERE id = 50; DELETE FROM twins WHERE n = 2; INSERT INTO composite VALUES ('multi', '2024-01-01', 1, 1); UPDATE plain SET b = 1 WHERE id = 50`,
	// savepoints, of which some are undone
	`BEGIN; INSERT INTO plain VALUES (20001, 'kept', 1); SAVEPOINT a; INSERT INTO plain VALUES (20002, 'undone', 1); UPDATE plain SET a = 'undone';
	 ROLLBACK TO a; SAVEPOINT b; INSERT INTO plain VALUES (20003, 'kept', 1); SAVEPOINT c; DELETE FROM plain; ROLLBACK TO c; RELEASE b;
	 UPDATE plain SET a = 'kept, too' WHERE id = 20001; COMMIT`,
	// nothing at all, and nothing that stays
	`BEGIN; CREATE TEMP TABLE nothing (a int); DROP TABLE nothing; COMMIT`,
	`BEGIN; DELETE FROM plain; ROLLBACK`,
	`SELECT pg_logical_emit_message(true, 'not ours', 'hello'), pg_logical_emit_message(false, 'not ours', 'hello')`,
	// tables without identity take inserts and truncates
	`INSERT INTO anonymous SELECT i, 'after' FROM generate_series(1, 10) i`,
	`TRUNCATE anonymous; INSERT INTO anonymous VALUES (1, 'last')`,
	`INSERT INTO deferred VALUES (11, 'after')`,
}

func TestEveryOperationArrives(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	src := s.add("operations")
	src.exec(shapes)
	o := newOracle(src)
	o.alias = map[string]string{"public.readings_2023": "public.readings", "public.readings_2024": "public.readings"}
	s.worker("a")
	s.must("apply")
	s.must("wait", src.name, "--until", "live", "--timeout", "120s")
	for _, sql := range operations {
		src.exec(sql)
	}
	s.caughtUp(src.name)
	s.proven(o)
	s.foreign(o)

	t.Run("tables made later", func(t *testing.T) {
		src.exec(`CREATE TABLE later (id int PRIMARY KEY, a text); INSERT INTO later SELECT i, 'at once' FROM generate_series(1, 100) i`)
		s.caughtUp(src.name) // which covers what was there before it, tables too
		if table := s.table(src.name, "public.later"); table == nil || table.Phase != "live" {
			t.Fatalf("the table is %+v", table)
		}
		src.exec(`UPDATE later SET a = 'streamed' WHERE id < 50`)
		src.exec(`DELETE FROM later WHERE id > 90; UPDATE plain SET a = 'beside it' WHERE id = 50`)
		s.caughtUp(src.name)
		s.proven(o)
	})

	t.Run("columns added", func(t *testing.T) {
		src.exec(`UPDATE plain SET a = 'old shape' WHERE id = 51`)
		src.exec(`ALTER TABLE plain ADD COLUMN extra text`)
		src.exec(`UPDATE plain SET extra = 'new shape' WHERE id = 52; INSERT INTO plain VALUES (30000, 'x', 1, 'y')`)
		s.caughtUp(src.name)
		s.proven(o)
	})

	t.Run("the application is never refused", func(t *testing.T) {
		// Without identity an update must work at the source, whatever becomes
		// of the mirror: the table parks and says how to go on.
		src.exec(`UPDATE anonymous SET b = 'changed'; UPDATE deferred SET a = 'changed' WHERE id = 1; DELETE FROM deferred WHERE id = 2`)
		for _, name := range []string{"public.anonymous", "public.deferred"} {
			until(t, 60*time.Second, name+" parks", func() bool {
				table := s.table(src.name, name)
				return table.Phase == "parked" && table.Reason.Code == "IDENTITY_MISSING"
			})
			if r := s.table(src.name, name).Reason; !strings.Contains(r.Remedy, "REPLICA IDENTITY FULL") {
				t.Errorf("%s does not say how to go on: %+v", name, r)
			}
		}
		s.refused(1, 30*time.Second, []string{"public.anonymous", "IDENTITY_MISSING"}, "wait", src.name, "--timeout", "20s")
		// The remedy as it is given.
		src.exec(`ALTER TABLE anonymous REPLICA IDENTITY FULL; ALTER TABLE deferred REPLICA IDENTITY FULL`)
		s.must("resume", src.name)
		s.must("wait", src.name, "--until", "live", "--timeout", "120s")
		src.exec(`UPDATE anonymous SET b = 'once more'; DELETE FROM deferred WHERE id = 3`)
		s.caughtUp(src.name)
		s.verified(src.name)
	})

	t.Run("a column that fills old rows waits for a copy", func(t *testing.T) {
		// No change in the WAL says what old rows hold in it.
		src.exec(`ALTER TABLE composite ADD COLUMN grade int NOT NULL DEFAULT 5; ALTER TABLE composite ALTER COLUMN grade DROP DEFAULT`)
		src.exec(`UPDATE composite SET grade = 6 WHERE n = 1`)
		until(t, 60*time.Second, "the table parks", func() bool {
			table := s.table(src.name, "public.composite")
			return table.Phase == "parked" && table.Reason.Code == "SCHEMA_INCOMPATIBLE"
		})
		s.must("resume", src.name)
		s.must("wait", src.name, "--until", "live", "--timeout", "120s")
		src.exec(`UPDATE composite SET grade = 7 WHERE n = 4`)
		s.caughtUp(src.name)
		s.verified(src.name)
	})
}

// logEntry is a line of `millrace table log --json`.
type logEntry struct {
	Version int64 `json:"version"`
	Rows    int64 `json:"rows"`
	Added   int   `json:"added"`
}

func TestTransactionLargerThanMemoryBecomesVisibleAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	src := s.add("large")
	const rows = 150_000
	src.exec(`CREATE TABLE wide (id int PRIMARY KEY, a text, b text, c bigint); CREATE TABLE beside (id int PRIMARY KEY)`)
	src.exec(`INSERT INTO wide SELECT i, 'before', 'b', 1 FROM generate_series(1, 1000) i`)
	o := newOracle(src)
	s.worker("a", "--memory", "16MiB")
	s.must("apply")
	s.must("wait", src.name, "--until", "live", "--timeout", "60s")

	tx, err := src.conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		fmt.Sprintf(`INSERT INTO wide SELECT i, md5(i::text), md5((-i)::text), i FROM generate_series(1001, %d) i`, rows),
		`INSERT INTO beside SELECT i FROM generate_series(1, 1000) i`,
		`SAVEPOINT a`,
		`DELETE FROM wide WHERE id % 2 = 0`,
		`ROLLBACK TO a`,
		`UPDATE wide SET a = 'within the same transaction' WHERE id % 100 = 0`,
		`DELETE FROM wide WHERE id % 1000 = 1`,
	} {
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	src.exec(`UPDATE wide SET b = 'the next transaction' WHERE id < 10`)
	s.caughtUp(src.name)
	s.proven(o)

	// One commit brought all of it, into history and into latest.
	table := s.table(src.name, "public.wide")
	for _, uri := range []string{table.History, table.Latest} {
		r := s.must("table", "log", uri, "--json")
		var entries []logEntry
		if err := json.Unmarshal([]byte(r.stdout), &entries); err != nil {
			t.Fatalf("%v\n%v", err, r)
		}
		large := 0
		for _, e := range entries {
			if e.Rows > 1000 {
				large++
				if e.Rows < rows-1000 {
					t.Errorf("version %d of %s brought %d rows of a transaction that has more", e.Version, uri, e.Rows)
				}
			}
		}
		if large != 1 {
			t.Errorf("%d commits of %s brought rows of one transaction: %+v", large, uri, entries)
		}
	}
}
