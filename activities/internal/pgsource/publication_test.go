package pgsource

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/activities/change"
)

// members lists what is published, as publication:table.
func (s *source) members() string {
	return s.value(`SELECT coalesce(string_agg(pubname || ':' || tablename, ' ' ORDER BY pubname, tablename), '') FROM pg_publication_tables`)
}

func TestTablesGoWhereTheyHurtNobody(t *testing.T) {
	s := newSource(t)
	s.exec(`CREATE TABLE keyed (id int PRIMARY KEY); CREATE TABLE log (a int); CREATE TABLE later (id int PRIMARY KEY DEFERRABLE);
		CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent);
		CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
		INSERT INTO log VALUES (1); INSERT INTO later VALUES (1); INSERT INTO child VALUES (1)`)
	s.publish("public.*")
	want := "millrace_shop:keyed millrace_shop:parent millrace_shop:parts millrace_shop_inserts:child millrace_shop_inserts:later millrace_shop_inserts:log"
	if got := s.members(); got != want {
		t.Errorf("published %s", got)
	}
	// Every application's update still works.
	for _, table := range []string{"keyed", "log", "later", "parent", "child", "parts"} {
		s.exec("UPDATE " + table + " SET " + map[bool]string{true: "a = a", false: "id = id"}[table == "log"] + "; DELETE FROM " + table)
	}
	// Running again changes nothing.
	s.publish("public.*")
	if got := s.members(); got != want {
		t.Errorf("published the second time %s", got)
	}
	// A table that gets a key, and one that loses it, move.
	s.exec("ALTER TABLE log ADD PRIMARY KEY (a); ALTER TABLE keyed DROP CONSTRAINT keyed_pkey")
	s.publish("public.*")
	if got := s.members(); !strings.Contains(got, "millrace_shop:log") || !strings.Contains(got, "millrace_shop_inserts:keyed") {
		t.Errorf("published after a change of keys %s", got)
	}
	s.exec("UPDATE keyed SET id = 1")
	// Tables that are not wanted any more leave.
	s.publish("public.keyed", "public.parts")
	if got := s.members(); got != "millrace_shop:parts millrace_shop_inserts:keyed" {
		t.Errorf("published of fewer %s", got)
	}
}

func TestIdentityIsCheckedUnderTheLock(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
	tables, _, err := s.db.Tables(t.Context(), []string{"public.*"})
	if err != nil {
		t.Fatal(err)
	}
	s.exec("ALTER TABLE a DROP CONSTRAINT a_pkey") // after it was looked at
	published, problems, err := s.db.EnsurePublications(t.Context(), "shop", tables, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(published) != 1 || problem(problems, "TABLE_CHANGED", "public.a") == nil {
		t.Errorf("published %v, problems %v", published, problems)
	}
	s.exec("INSERT INTO a VALUES (1); UPDATE a SET id = 2")
}

func TestTablesOfOthersComeWithTheSQLForTheirOwner(t *testing.T) {
	s := newSource(t)
	role := s.role("REPLICATION")
	s.exec(fmt.Sprintf(`GRANT CREATE ON DATABASE %s TO %s; CREATE TABLE foreign_to_us (id int PRIMARY KEY); CREATE TABLE own (id int PRIMARY KEY);
		ALTER TABLE own OWNER TO %s; GRANT SELECT ON foreign_to_us TO %s`, s.name, role, role, role))
	db := s.connect(role, "")
	tables, _, err := db.Tables(t.Context(), []string{"public.*"})
	if err != nil || len(tables) != 2 {
		t.Fatalf("%v %v", tables, err)
	}
	published, problems, err := db.EnsurePublications(t.Context(), "shop", tables, true)
	if err != nil {
		t.Fatal(err)
	}
	p := problem(problems, "TABLE_NOT_OWNED", "public.foreign_to_us")
	if len(published) != 1 || p == nil || !p.Blocking {
		t.Fatalf("published %v, problems %v", published, problems)
	}
	// The SQL works as it is printed, for a superuser.
	_, sql, _ := strings.Cut(p.Remedy, "superuser: ")
	s.exec(sql)
	published, problems, err = db.EnsurePublications(t.Context(), "shop", tables, true)
	if err != nil || len(published) != 2 || len(problems) > 0 {
		t.Errorf("published %v, problems %v, %v", published, problems, err)
	}
	if dropped, left, err := db.DropPublications(t.Context(), "shop"); err != nil || len(dropped) != 2 || len(left) > 0 {
		t.Errorf("dropped %v, left %v, %v", dropped, left, err)
	}
}

func TestRoleThatMayNotPublishGetsTheSQL(t *testing.T) {
	s := newSource(t)
	role := s.role("REPLICATION")
	s.exec("CREATE TABLE t (id int PRIMARY KEY)")
	db := s.connect(role, "")
	published, problems, err := db.EnsurePublications(t.Context(), "shop", []*change.Table{s.table("public.t")}, true)
	if err != nil || len(published) > 0 || len(problems) != 2 {
		t.Fatalf("published %v, problems %v, %v", published, problems, err)
	}
	for _, p := range problems {
		if !p.Blocking || p.Table != "" || !strings.Contains(p.Remedy, "GRANT CREATE ON DATABASE") {
			t.Errorf("problem %+v", p)
		}
		s.exec(p.Remedy)
	}
	if err := AsError(problems); err == nil {
		t.Error("no error of a problem that blocks the database")
	}
}

func TestPublicationsOfOperatorsAreAcceptedAndChecked(t *testing.T) {
	s := newSource(t)
	role := s.role("REPLICATION")
	s.exec("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE log (a int); GRANT SELECT ON t, log TO " + role)
	db := s.connect(role, "")
	tables, _, err := db.Tables(t.Context(), []string{"public.*"})
	if err != nil {
		t.Fatal(err)
	}
	ensure := func() ([]uint32, []Problem) {
		t.Helper()
		published, problems, err := db.EnsurePublications(t.Context(), "shop", tables, true)
		if err != nil {
			t.Fatal(err)
		}
		return published, problems
	}
	s.exec(`CREATE PUBLICATION millrace_shop FOR TABLE t; CREATE PUBLICATION millrace_shop_inserts FOR TABLE log WITH (publish = 'insert, truncate', publish_via_partition_root = true)`)
	if published, problems := ensure(); len(published) > 0 || len(problems) != 1 || !strings.HasPrefix(problems[0].Remedy, "ALTER PUBLICATION") {
		t.Errorf("without via root: published %v, problems %v", published, problems)
	} else {
		s.exec(problems[0].Remedy)
	}
	if published, problems := ensure(); len(published) != 2 || len(problems) > 0 {
		t.Errorf("as it should be: published %v, problems %v", published, problems)
	}
	if s.value("current_setting('server_version_num')") < "150000" {
		t.Skip("row filters and publications of schemas came with PostgreSQL 15")
	}
	s.exec(`ALTER PUBLICATION millrace_shop SET TABLE t WHERE (id > 5)`)
	if published, problems := ensure(); len(published) != 1 || problem(problems, "PUBLICATION_FILTERED", "public.t") == nil {
		t.Errorf("with a row filter: published %v, problems %v", published, problems)
	} else {
		s.exec(problems[0].Remedy)
	}
	if published, problems := ensure(); len(published) != 2 || len(problems) > 0 {
		t.Errorf("after the remedy: published %v, problems %v", published, problems)
	}
	if _, left, err := db.DropPublications(t.Context(), "shop"); err != nil || len(left) != 2 {
		t.Errorf("left %v, %v", left, err)
	}
	for _, how := range []string{"FOR ALL TABLES", "FOR TABLES IN SCHEMA public"} {
		s.exec(`DROP PUBLICATION millrace_shop; CREATE PUBLICATION millrace_shop ` + how)
		if published, problems := ensure(); len(published) > 0 || len(problems) != 1 || !problems[0].Blocking {
			t.Errorf("%s: published %v, problems %v", how, published, problems)
		}
	}
}

func TestTablesThatAnOperatorPublishedStay(t *testing.T) {
	s := newSource(t)
	s.exec(`CREATE TABLE x (id int PRIMARY KEY); CREATE TABLE y (id int PRIMARY KEY);
		CREATE PUBLICATION millrace_shop FOR TABLE x, y WITH (publish_via_partition_root = true)`)
	published, problems, err := s.db.EnsurePublications(t.Context(), "shop", []*change.Table{s.table("public.x")}, true)
	if err != nil || len(published) != 1 || problem(problems, "PUBLICATION_EXTRA", "") == nil {
		t.Errorf("published %v, problems %v, %v", published, problems, err)
	}
	if got := s.members(); got != "millrace_shop:x millrace_shop:y" {
		t.Errorf("published %s", got)
	}
}

func TestAPublicationThatIsGoneIsNotMadeAgainUnderAStream(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE t (id int PRIMARY KEY)")
	tables := s.publish("public.*")
	s.exec("DROP PUBLICATION millrace_shop")
	if _, _, err := s.db.EnsurePublications(t.Context(), "shop", tables, false); !errors.Is(err, ErrPublicationMissing) {
		t.Errorf("%v", err)
	}
	if got := s.members(); got != "" {
		t.Errorf("published %s", got)
	}
}

func TestGroundTellsWhatHappenedToATable(t *testing.T) {
	s := newSource(t)
	s.exec(`CREATE TABLE t (id int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (1) STORED);
		CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
		CREATE TABLE outer_part (id int PRIMARY KEY) PARTITION BY RANGE (id)`)
	tables := s.publish("public.t", "public.parts")
	look := func() (table, parts change.Ground) {
		t.Helper()
		for i := range tables {
			tables[i] = s.table(tables[i].String())
		}
		g, err := s.db.Grounds(t.Context(), "shop", tables)
		if err != nil || len(g) != 2 {
			t.Fatalf("%v, %v", g, err)
		}
		return *g[s.table("public.t").OID], *g[s.table("public.parts").OID]
	}
	table, parts := look()
	if table.Member == 0 || table.Partitioned || len(table.Files) != 1 || !slices.Equal(table.Hidden, []int16{3}) || table.Shape == 0 {
		t.Errorf("table %+v", table)
	}
	if parts.Member == 0 || !parts.Partitioned || len(parts.Files) != 1 || parts.Files[0].Attached {
		t.Errorf("parts %+v", parts)
	}
	for _, c := range []struct {
		sql                     string
		streamed, filled, parts bool // told: of t, and of parts
	}{
		{"INSERT INTO t VALUES (1, 'a')", false, false, false},
		{"VACUUM FULL t", false, false, false},
		{"ALTER TABLE t ADD COLUMN w text", false, true, false}, // for it was rewritten before, in whatever shape
		{"CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20)", false, true, false},
		{"ALTER TABLE outer_part ADD CONSTRAINT c CHECK (id > 0)", false, true, false},
		{"CREATE TABLE parts_3 (id int PRIMARY KEY)", false, true, false},
		{"ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM (20) TO (30)", false, true, true},
		{"ALTER TABLE parts DETACH PARTITION parts_3", false, true, false},
		{"TRUNCATE parts_1", false, true, true},
		{"ALTER PUBLICATION millrace_shop SET (publish = 'insert')", true, true, true},
		{"ALTER PUBLICATION millrace_shop DROP TABLE t; ALTER PUBLICATION millrace_shop ADD TABLE t", true, true, true},
	} {
		s.exec(c.sql)
		now, nowParts := look()
		if got := table.Streamed(&now); (got != "") != c.streamed {
			t.Errorf("%s: %q", c.sql, got)
		}
		if got := table.Filled(&now, s.table("public.t")); (got != "") != c.filled {
			t.Errorf("%s: filled %q", c.sql, got)
		}
		if got := parts.Streamed(&nowParts); (got != "") != c.parts {
			t.Errorf("%s: parts %q", c.sql, got)
		}
	}
	// As of a snapshot, what came later is not there.
	cut, err := s.db.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	before, _ := look()
	s.exec("ALTER PUBLICATION millrace_shop DROP TABLE t")
	at, err := s.db.GroundAt(t.Context(), cut.Snapshot, "shop", s.table("public.t"))
	if err != nil || at.Fingerprint() != before.Fingerprint() {
		t.Errorf("at the cut %+v, want %+v: %v", at, before, err)
	}
	later, err := s.db.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	if _, err := s.db.GroundAt(t.Context(), later.Snapshot, "shop", s.table("public.t")); !errors.Is(err, ErrRewritten) {
		t.Errorf("of a table that is in no publication: %v", err)
	}
}

func TestLockedTableDoesNotHoldUpOthers(t *testing.T) {
	s := newSource(t)
	s.exec("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
	tables, _, err := s.db.Tables(t.Context(), []string{"public.*"})
	if err != nil {
		t.Fatal(err)
	}
	s.exec("BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
	published, problems, err := s.db.EnsurePublications(t.Context(), "shop", tables, true)
	s.exec("ROLLBACK")
	if err != nil || len(published) != 1 || problem(problems, "TABLE_LOCKED", "public.a") == nil {
		t.Errorf("published %v, problems %v, %v", published, problems, err)
	}
	s.publish("public.*")
}

func TestNames(t *testing.T) {
	for db, want := range map[string]string{
		"shop":                  "millrace_shop_e7",
		"shop_2":                "millrace_shop_2_e7",
		"Shop":                  "millrace_shop_4cdcf1ce_e7",
		"a-b":                   "millrace_a_b_ac1f94cd_e7",
		strings.Repeat("x", 90): "millrace_" + strings.Repeat("x", 31) + "_",
		"":                      "millrace__",
	} {
		got := SlotName(db, 7)
		if !strings.HasPrefix(got, want[:min(len(want), 9)]) || len(got) > nameMax || strings.Trim(got, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			t.Errorf("%s: %s", db, got)
		}
		for _, p := range PublicationNames(db) {
			if len(p) > nameMax {
				t.Errorf("%s: %s", db, p)
			}
		}
	}
	if SlotName("a-b", 1) == SlotName("a.b", 1) || SlotName("A", 1) == SlotName("a", 1) {
		t.Error("two databases share a slot")
	}
	if SlotName("shop", 1) != "millrace_shop_e1" || !slices.Equal(PublicationNames("shop"), []string{"millrace_shop", "millrace_shop_inserts"}) {
		t.Error("plain names changed")
	}
}

func TestTagsFitAndStayTellable(t *testing.T) {
	run := "3f0d8a52-7a53-4d6e-9c1b-0e5a5c1f2b3d"
	for _, owner := range []string{"millrace/local/shop/capture", "millrace/eu-central-1/a-very-long-name-of-a-database-indeed/capture"} {
		tag := owner + "/" + run + "/12"
		name := applicationName(tag)
		if len(name) > nameMax {
			t.Errorf("%s is %d bytes long", name, len(name))
		}
		other := applicationName(owner + "x/" + run + "/12")
		o1, _, attempt := splitTag(name)
		o2, _, _ := splitTag(other)
		if o1 == o2 || attempt != "12" {
			t.Errorf("%s and %s", name, other)
		}
		if !later(applicationName(owner+"/"+run+"/13"), tag) || later(name, tag) || later(applicationName(owner+"/4"+run[1:]+"/13"), tag) {
			t.Errorf("%s: attempts are not told apart", name)
		}
	}
}
