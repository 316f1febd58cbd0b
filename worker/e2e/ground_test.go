package e2e

import (
	"testing"
	"time"
)

func TestWhatNoChangeTellsOfIsNeverShownAsLive(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	src := s.add("ground")
	src.exec(`CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE idle (id int PRIMARY KEY); CREATE TABLE filled (id int PRIMARY KEY);
		CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
		INSERT INTO t VALUES (0); INSERT INTO idle VALUES (1); INSERT INTO filled VALUES (1); INSERT INTO parts VALUES (1)`)
	s.worker("a")
	s.must("apply")
	live := func() {
		t.Helper()
		s.must("wait", src.name, "--until", "live", "--timeout", "60s")
		s.caughtUp(src.name)
		s.verified(src.name)
	}
	live()
	publication := "millrace_" + src.name

	t.Run("a table that the fleet file leaves out for a while", func(t *testing.T) {
		s.change(src.name, func(d *database) { d.tables = `["public.*", "!public.t"]` })
		s.must("apply", "--yes")
		until(t, 30*time.Second, "the table is gone", func() bool { return s.table(src.name, "public.t").Phase == "gone" })
		src.exec(`INSERT INTO t SELECT generate_series(1, 10)`)
		s.change(src.name, func(d *database) { d.tables = "" })
		s.must("apply")
		live()
	})

	t.Run("a table that somebody takes out of the publication", func(t *testing.T) {
		src.exec(`ALTER PUBLICATION ` + publication + ` DROP TABLE t`)
		src.exec(`INSERT INTO t SELECT generate_series(11, 20)`)
		s.caughtUp(src.name) // which looks first
		s.verified(src.name)
	})

	t.Run("a table that is attached as a partition", func(t *testing.T) {
		src.exec(`CREATE TABLE parts_2 (id int PRIMARY KEY); INSERT INTO parts_2 VALUES (11)`)
		s.caughtUp(src.name)
		src.exec(`ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (10) TO (20)`)
		s.caughtUp(src.name)
		s.verified(src.name)
	})

	t.Run("a publication that somebody alters", func(t *testing.T) {
		src.exec(`ALTER PUBLICATION ` + publication + ` SET (publish = 'insert')`)
		src.exec(`UPDATE t SET id = id + 1000 WHERE id < 5; DELETE FROM t WHERE id = 15`)
		s.caughtUp(src.name) // which looks first
		s.verified(src.name)
		src.exec(`ALTER PUBLICATION ` + publication + ` SET TABLE t WHERE (id > 100)`)
		src.exec(`INSERT INTO t VALUES (50); INSERT INTO idle VALUES (50)`)
		until(t, 30*time.Second, "the table with a filter parks", func() bool {
			now := s.table(src.name, "public.t")
			return now.Phase == "parked" && now.Reason.Code == "PUBLICATION_FILTERED"
		})
		// The remedy as it is given.
		src.exec(`ALTER PUBLICATION ` + publication + ` DROP TABLE ONLY t; ALTER PUBLICATION ` + publication + ` ADD TABLE ONLY t`)
		s.must("unpark", src.name, "public.t")
		live()
	})

	parks := func(table, code, sql string) {
		t.Helper()
		src.exec(sql)
		until(t, 30*time.Second, table+" parks", func() bool {
			now := s.table(src.name, table)
			return now != nil && now.Phase == "parked" && now.Reason.Code == code
		})
		s.refused(1, 30*time.Second, []string{code, "millrace unpark " + src.name + " " + table}, "wait", src.name, "--timeout", "20s")
		s.must("resume", src.name)
		live()
	}
	t.Run("an idle table that is renamed", func(t *testing.T) {
		parks("public.idle", "TABLE_RENAMED", `ALTER TABLE idle RENAME TO renamed; INSERT INTO renamed VALUES (2)`)
	})
	t.Run("a column that filled old rows and has no default any more", func(t *testing.T) {
		parks("public.filled", "SCHEMA_INCOMPATIBLE",
			`ALTER TABLE filled ADD COLUMN g uuid DEFAULT gen_random_uuid(); ALTER TABLE filled ALTER COLUMN g DROP DEFAULT`)
	})

	parked := func(code string) {
		t.Helper()
		until(t, 45*time.Second, "the database parks", func() bool {
			now := s.status(src.name)
			return now.Phase == "parked" && now.Reason.Code == code
		})
	}
	t.Run("another topic", func(t *testing.T) {
		s.must("pause", src.name)
		src.exec(`INSERT INTO t SELECT generate_series(21, 30)`)
		end := src.end()
		until(t, 30*time.Second, "Kafka has them", func() bool { return src.confirmed() > end })
		s.prefix = s.region + "-other"
		s.write()
		s.run("apply")
		s.run("resume", src.name)
		parked("TOPIC_MISSING")
		s.run("resume", src.name)
		parked("TOPIC_MISSING")
		s.prefix = ""
		s.write()
		s.must("apply")
		live()
	})

	t.Run("a publication that somebody drops", func(t *testing.T) {
		src.exec(`DROP PUBLICATION ` + publication)
		src.exec(`INSERT INTO t SELECT generate_series(31, 40)`)
		parked("PUBLICATION_MISSING")
		s.run("resume", src.name)
		parked("PUBLICATION_MISSING")
		s.remedied(src.name)
		live()
	})
}
