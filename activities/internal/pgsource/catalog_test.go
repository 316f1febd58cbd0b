package pgsource

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/activities/change"
)

func TestIdentityAndKeyAreWhatPostgresSays(t *testing.T) {
	s := newSource(t)
	for _, c := range []struct {
		name, sql string
		identity  change.Identity
		key       string // names of the key's columns
		problem   string
	}{
		{"pk", "CREATE TABLE pk (a int, id int PRIMARY KEY)", change.IdentityKey, "id", ""},
		{"composite", "CREATE TABLE composite (a int, b int, c int, PRIMARY KEY (c, a))", change.IdentityKey, "a c", ""},
		{"including", "CREATE TABLE including (a int, b int, PRIMARY KEY (b) INCLUDE (a))", change.IdentityKey, "b", ""},
		{"later", "CREATE TABLE later (id int PRIMARY KEY DEFERRABLE)", change.IdentityNone, "", "IDENTITY_MISSING"},
		{"deferrable_full", "CREATE TABLE deferrable_full (id int PRIMARY KEY DEFERRABLE); ALTER TABLE deferrable_full REPLICA IDENTITY FULL", change.IdentityFull, "", ""},
		{"bare", "CREATE TABLE bare (a int)", change.IdentityNone, "", "IDENTITY_MISSING"},
		{"unique_only", "CREATE TABLE unique_only (a int NOT NULL UNIQUE)", change.IdentityNone, "", "IDENTITY_MISSING"},
		{"by_index", "CREATE TABLE by_index (a int NOT NULL, b int PRIMARY KEY); CREATE UNIQUE INDEX bi ON by_index (a); ALTER TABLE by_index REPLICA IDENTITY USING INDEX bi", change.IdentityKey, "a", ""},
		{"lost_index", "CREATE TABLE lost_index (a int NOT NULL); CREATE UNIQUE INDEX li ON lost_index (a); ALTER TABLE lost_index REPLICA IDENTITY USING INDEX li; DROP INDEX li", change.IdentityNone, "", "IDENTITY_MISSING"},
		{"nothing", "CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING", change.IdentityNone, "", "IDENTITY_MISSING"},
		{"full", "CREATE TABLE \"full\" (a int, b int); ALTER TABLE \"full\" REPLICA IDENTITY FULL", change.IdentityFull, "", ""},
		{"full_pk", "CREATE TABLE full_pk (a int, id int PRIMARY KEY); ALTER TABLE full_pk REPLICA IDENTITY FULL", change.IdentityFull, "id", ""},
		{"generated_key", "CREATE TABLE generated_key (a int, g int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY)", change.IdentityNone, "", "IDENTITY_MISSING"},
		{"parts", "CREATE TABLE parts (id int PRIMARY KEY, a int) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)", change.IdentityKey, "id", ""},
		{"parts_none", "CREATE TABLE parts_none (id int) PARTITION BY RANGE (id); CREATE TABLE parts_none_1 PARTITION OF parts_none FOR VALUES FROM (0) TO (10)", change.IdentityNone, "", "IDENTITY_MISSING"},
		{"parts_full", "CREATE TABLE parts_full (id int) PARTITION BY RANGE (id); ALTER TABLE parts_full REPLICA IDENTITY FULL", change.IdentityNone, "", "IDENTITY_MISSING"},
		{"parts_odd", "CREATE TABLE parts_odd (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE parts_odd_1 PARTITION OF parts_odd FOR VALUES FROM (0) TO (10); ALTER TABLE parts_odd_1 REPLICA IDENTITY NOTHING", change.IdentityNone, "", "IDENTITY_MISSING"},
		{"parts_leaf_full", "CREATE TABLE parts_leaf_full (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE parts_leaf_full_1 PARTITION OF parts_leaf_full FOR VALUES FROM (0) TO (10); ALTER TABLE parts_leaf_full_1 REPLICA IDENTITY FULL", change.IdentityKey, "id", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.exec(c.sql)
			list, problems, err := s.db.Tables(t.Context(), []string{"public." + c.name})
			if err != nil || len(list) != 1 {
				t.Fatalf("%d tables, %v", len(list), err)
			}
			got := list[0]
			var key []string
			for _, i := range got.Key {
				key = append(key, got.Columns[i].Name)
			}
			if got.Identity != c.identity || strings.Join(key, " ") != c.key {
				t.Errorf("identity %q, key %v; want %q, %s", got.Identity, key, c.identity, c.key)
			}
			if strings.Join(codes(problems), " ") != c.problem {
				t.Errorf("problems %v, want %s", problems, c.problem)
			}
			for _, p := range problems {
				if p.Remedy == "" || p.Blocking {
					t.Errorf("a table without writes is blocked, or has no remedy: %+v", p)
				}
			}
		})
	}
}

func TestWritesWithoutIdentityBlockATable(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE log (a int); INSERT INTO log VALUES (1); UPDATE log SET a = 2")
	eventually(t, "the statistics count the update", func() bool {
		s.exec("SELECT 1") // a session reports what it did when it does something
		_, problems, err := s.db.Tables(t.Context(), []string{"public.*"})
		p := problem(problems, "IDENTITY_MISSING", "public.log")
		return err == nil && p != nil && p.Blocking
	})
}

func TestWhatIsNoTableIsReported(t *testing.T) {
	s := newSource(t)
	s.exec(`CREATE TABLE good (id int PRIMARY KEY); CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
		CREATE VIEW looks AS SELECT 1 AS a; CREATE MATERIALIZED VIEW kept AS SELECT 1 AS a;
		CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
		CREATE FOREIGN TABLE "foreign" (a int) SERVER files OPTIONS (filename '/dev/null');
		CREATE TABLE bare (); CREATE TEMPORARY TABLE passing (id int PRIMARY KEY)`)
	list, problems, err := s.db.Tables(t.Context(), []string{"*.*"})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Name != "good" {
		t.Errorf("tables %v", list)
	}
	for _, name := range []string{"unlogged", "looks", "kept", "foreign"} {
		if p := problem(problems, "TABLE_KIND", "public."+name); p == nil || !p.Blocking || p.Remedy == "" {
			t.Errorf("%s is not reported: %v", name, problems)
		}
	}
	if problem(problems, "TABLE_EMPTY", "public.bare") == nil || len(problems) != 5 {
		t.Errorf("problems %v", problems)
	}
}

func TestTypesAreResolved(t *testing.T) {
	s := newSource(t)
	s.exec(`CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text);
		CREATE DOMAIN cents AS numeric(10,2); CREATE DOMAIN price AS cents CHECK (VALUE >= 0);
		CREATE DOMAIN tags AS varchar(7)[]; CREATE DOMAIN short AS varchar(5);
		CREATE TABLE t (id int PRIMARY KEY, n numeric(12,3), free numeric, v varchar(20), m mood, ms mood[], p pair,
			c cents, d price, cs cents[], ds tags, da tags[], vs varchar(9)[], o oidvector, r int4range, mr int4multirange,
			ts timestamptz(3), sh short, matrix int[][], g int GENERATED ALWAYS AS (id + 1) STORED, dropped int, last text);
		ALTER TABLE t DROP COLUMN dropped`)
	got := s.table("public.t")
	var text []string
	for _, c := range got.Columns {
		array := ""
		if c.Type.Array {
			array = "[]"
		}
		text = append(text, fmt.Sprintf("%s:%s%s:%s:%d", c.Name, c.Type.Name, array, c.Type.Kind, c.Type.Mod))
	}
	want := []string{
		"id:int4:b:-1", "n:numeric:b:786439", "free:numeric:b:-1", "v:varchar:b:24", "m:mood:e:-1", "ms:mood[]:e:-1", "p:pair:c:-1",
		"c:numeric:b:655366", "d:numeric:b:655366", "cs:numeric[]:b:655366", "ds:varchar[]:b:11", "da:_tags:b:-1", "vs:varchar[]:b:13",
		"o:oidvector:b:-1", "r:int4range:r:-1", "mr:int4multirange:m:-1", "ts:timestamptz:b:3", "sh:varchar:b:9", "matrix:int4[]:b:-1", "last:text:b:-1",
	}
	if !slices.Equal(text, want) {
		t.Errorf("got  %v\nwant %v", text, want)
	}
	if last := got.Columns[len(got.Columns)-1]; last.Attr != 22 {
		t.Errorf("attribute number %d after a dropped column", last.Attr)
	}
}

func TestHostileNamesSurvive(t *testing.T) {
	s := newSource(t)
	names := []string{`we"ird; DROP TABLE x --`, `O'Reilly\`, "new\nline", "Ünï.cödé", "UPPER", "select", " ", "%s{role}"}
	for _, n := range names {
		s.exec(fmt.Sprintf("CREATE SCHEMA %s; CREATE TABLE %s (%s int PRIMARY KEY, %s text); INSERT INTO %s VALUES (1, 'x')",
			ident(n), ident(n, n), ident(n), ident(n+"2"), ident(n, n)))
	}
	tables := s.publish("*.*")
	if len(tables) != len(names) {
		t.Fatalf("%d tables of %d", len(tables), len(names))
	}
	cut, err := s.db.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	for _, table := range tables {
		if !slices.Contains(names, table.Name) || table.Schema != table.Name {
			t.Errorf("another name: %q", table)
		}
		if n := copyRows(t, s.db, cut.Snapshot, table, 1<<20); n != 1 {
			t.Errorf("%q: %d rows", table, n)
		}
		n := 0
		err := s.db.ReadTable(t.Context(), cut.Snapshot, table, func(*change.Tuple) error { n++; return nil })
		if err != nil || n != 1 {
			t.Errorf("%q: %d rows, %v", table, n, err)
		}
	}
}

// copyRows copies a whole table in chunks and counts its rows.
func copyRows(t testing.TB, db *DB, snapshot string, table *change.Table, chunkBytes int64) (rows int64) {
	t.Helper()
	chunks, err := db.Plan(t.Context(), snapshot, table, chunkBytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chunks {
		n, err := db.CopyChunk(t.Context(), snapshot, table, c, nil, func(*change.Tuple) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		rows += n
	}
	return rows
}

func TestDescribeOfWhatIsGone(t *testing.T) {
	s := newSource(t)
	if _, err := s.db.Describe(t.Context(), 4_000_000_000); !errors.Is(err, ErrTableGone) {
		t.Errorf("got %v", err)
	}
	s.exec("CREATE TABLE t (id int PRIMARY KEY)")
	want := s.table("public.t")
	got, err := s.db.Describe(t.Context(), want.OID)
	if err != nil || got.Fingerprint != want.Fingerprint || got.String() != "public.t" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestLockedTableDoesNotHoldUpTheCatalog(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
	s.exec("BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
	tables := s.tables("public.*")
	s.exec("ROLLBACK")
	for _, n := range []string{"a", "b"} {
		if tables[n] == nil || tables[n].Identity != change.IdentityKey {
			t.Errorf("%s: %+v", n, tables[n])
		}
	}
}

func TestSystemTablesAreNeverChosen(t *testing.T) {
	s := newSource(t)
	list, problems, err := s.db.Tables(t.Context(), []string{"*.*", "pg_catalog.*", "information_schema.*"})
	if err != nil || len(list) > 0 || len(problems) > 0 {
		t.Errorf("%v %v %v", list, problems, err)
	}
}
