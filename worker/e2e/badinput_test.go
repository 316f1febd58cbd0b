package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/millrace-io/millrace/deploy/local"
)

// soon is how long a bad input may take to be refused.
const soon = 10 * time.Second

func TestBadInputIsRefusedInOneSentence(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	pg := s.stack.Postgres
	healthy := s.add("healthy")
	healthy.exec(`CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)`)
	s.worker("a")
	s.must("apply")
	s.must("wait", healthy.name, "--until", "live")

	with := func(user, database string) string {
		return fmt.Sprintf("postgres://%s@%s:%d/%s?sslmode=disable", user, pg.Host, pg.Port, database)
	}
	// role makes a role that may log in, with its own password.
	role := func(name, options string) string {
		name += strings.ReplaceAll(s.region, "-", "_")
		healthy.exec(fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'right' %s`, name, options))
		return name
	}
	plain := func(name string) *source {
		src := newSource(t, pg, name+strings.ReplaceAll(s.region, "-", "_"))
		src.exec(`CREATE TABLE t (id int PRIMARY KEY)`)
		return src
	}

	t.Run("wrong password", func(t *testing.T) {
		src := plain("password")
		user := role("knocker", "REPLICATION")
		src.exec("GRANT CREATE ON DATABASE " + src.name + " TO " + user + "; GRANT CREATE ON SCHEMA public TO " + user + "; ALTER TABLE t OWNER TO " + user)
		s.entry(&database{name: "wrong_password", url: with(user, src.name), password: "wrong-and-secret"})
		s.refused(1, soon, []string{"wrong_password is parked", "password", "millrace resume"}, "apply", "wrong_password")
		if r := s.run("status", "wrong_password"); strings.Contains(r.stdout+r.stderr, "wrong-and-secret") {
			t.Errorf("the password is shown: %v", r)
		}
		// The remedy: the right password, then resume.
		s.change("wrong_password", func(d *database) { d.password = "right" })
		s.must("resume", "wrong_password")
		s.must("wait", "wrong_password", "--until", "live")
	})

	t.Run("missing privilege", func(t *testing.T) {
		src := plain("privilege")
		user := role("weak", "")
		src.exec("GRANT CREATE ON DATABASE " + src.name + " TO " + user + "; GRANT SELECT ON t TO " + user)
		s.entry(&database{name: "no_privilege", url: with(user, src.name), password: "right"})
		s.refused(1, soon, []string{"no_privilege is parked", user, "REPLICATION"}, "apply", "no_privilege")
		if n := src.number(`SELECT count(*) FROM pg_publication`); n != 0 {
			t.Error("something was left at the source")
		}
		if r := s.run("doctor", "no_privilege"); r.code != 1 || !strings.Contains(r.stdout, "ALTER ROLE") || strings.Contains(r.stdout, "from here") {
			t.Errorf("the doctor does not print the SQL: %v", r)
		}
		// The remedy, as it is given. The role does not own the table, so that its
		// owner is given the SQL that publishes it.
		src.exec("ALTER ROLE " + user + " REPLICATION")
		if r := s.must("resume", "no_privilege"); !strings.Contains(r.stdout, "ALTER PUBLICATION") {
			t.Errorf("the owner is not told what to do: %v", r)
		}
		src.exec(`ALTER PUBLICATION millrace_no_privilege ADD TABLE ONLY t`)
		s.must("resume", "no_privilege")
		s.must("wait", "no_privilege", "--until", "live")
	})

	t.Run("one table that cannot be read", func(t *testing.T) {
		src := plain("unreadable")
		user := role("reader", "REPLICATION")
		src.exec("GRANT CREATE ON DATABASE " + src.name + " TO " + user)
		src.exec("GRANT CREATE, USAGE ON SCHEMA public TO " + user)
		src.exec("ALTER TABLE t OWNER TO " + user)
		src.exec("CREATE TABLE hidden (id int PRIMARY KEY)")
		s.entry(&database{name: "unreadable", url: with(user, src.name), password: "right"})
		s.must("apply", "unreadable")
		until(t, 60*time.Second, "the other table is live", func() bool {
			table := s.table("unreadable", "public.t")
			return table != nil && table.Phase == "live"
		})
		hidden := s.table("unreadable", "public.hidden")
		if hidden == nil || hidden.Phase != "parked" || !strings.Contains(hidden.Reason.Remedy, "GRANT") {
			t.Errorf("the table that cannot be read: %+v", hidden)
		}
	})

	t.Run("patterns that match nothing", func(t *testing.T) {
		src := plain("nothing")
		s.entry(&database{name: "nothing", url: with(pg.User, src.name), tables: `["sales.*"]`})
		s.refused(1, soon, []string{"nothing is parked", "sales.*"}, "apply", "nothing")
	})

	t.Run("no such database", func(t *testing.T) {
		s.entry(&database{name: "missing", url: with(pg.User, "not_there")})
		s.refused(1, soon, []string{"missing is parked", "not_there"}, "apply", "missing")
	})

	t.Run("a topic with other settings", func(t *testing.T) {
		src := plain("topic")
		c, err := kafka.DialContext(t.Context(), "tcp", s.stack.Kafka.Brokers[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		topic := s.region + ".topic"
		err = c.CreateTopics(kafka.TopicConfig{
			Topic: topic, NumPartitions: 3, ReplicationFactor: 1,
			ConfigEntries: []kafka.ConfigEntry{{ConfigName: "cleanup.policy", ConfigValue: "compact"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.entry(&database{name: "topic", url: with(pg.User, src.name)})
		s.refused(1, soon, []string{"topic is parked", topic, "cleanup.policy", "compact", "delete"}, "apply", "topic")
		if n := src.number(`SELECT count(*) FROM pg_publication`); n != 0 {
			t.Error("something was left at the source")
		}
	})

	t.Run("faults in the fleet file", func(t *testing.T) {
		bad := filepath.Join(t.TempDir(), "bad.yaml")
		text := strings.Replace(s.text(), "defaults:", "default:", 1)
		text = strings.Replace(text, "heartbeat_timeout: 3s", "heartbeat_timeout: soon", 1)
		if err := os.WriteFile(bad, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		was := s.fleet
		s.fleet = bad
		defer func() { s.fleet = was }()
		for _, command := range []string{"validate", "apply", "status"} {
			s.refused(1, soon, []string{"2 faults", "default", "defaults", "soon"}, command)
		}
	})

	// None of it harmed what was mirrored before.
	healthy.exec(`INSERT INTO t SELECT generate_series(1001, 1100)`)
	s.caughtUp(healthy.name)
	s.verified(healthy.name)
	s.silentAbout("wrong-and-secret")
}

func TestServersThatCannotBeMirrored(t *testing.T) {
	t.Parallel()
	bin(t)
	shared := local.Shared(t, local.Options{Kafka: true, Temporal: true})
	for name, c := range map[string]struct {
		settings map[string]string
		before   string
		words    []string
	}{
		"wal_level": {map[string]string{"wal_level": "replica"}, "", []string{"wal_level", "logical"}},
		"slots": {
			map[string]string{"max_replication_slots": "1"},
			`SELECT pg_create_logical_replication_slot('taken', 'test_decoding')`,
			[]string{"slot", "max_replication_slots"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pg, err := local.StartPostgres(t.Context(), local.PostgresOptions{Settings: c.settings})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = pg.Close() })
			s := newSiteOn(t, &local.Stack{Postgres: pg, Kafka: shared.Kafka, Temporal: shared.Temporal})
			src := s.add("server")
			src.exec(`CREATE TABLE t (id int PRIMARY KEY)`)
			if c.before != "" {
				src.exec(c.before)
			}
			s.worker("a")
			s.refused(1, soon, append(c.words, src.name+" is parked", "millrace resume"), "apply")
			if n := src.number(`SELECT count(*) FROM pg_publication`); n != 0 {
				t.Error("something was left at the source")
			}
		})
	}
}

func TestLakeThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	src := s.add("unwritable")
	src.exec(`CREATE TABLE t (id int PRIMARY KEY)`)
	file := filepath.Join(s.dir, "file") // nobody, not even root, can make a folder in it
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.lake = "file://" + filepath.Join(file, "lake")
	s.write()
	s.worker("a")
	s.refused(1, soon, []string{src.name + " is parked", file, "millrace resume"}, "apply")
	if n := src.number(`SELECT count(*) FROM pg_publication`) + src.number(`SELECT count(*) FROM pg_replication_slots WHERE starts_with(slot_name::text, 'millrace_' || current_database())`); n != 0 {
		t.Error("something was left at the source")
	}
	// The remedy.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s.must("resume", src.name)
	s.must("wait", src.name, "--until", "live")
}

func TestTemporalThatIsNotThere(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	address := freeAddress(t)
	stack := *s.stack
	stack.Temporal = &local.Temporal{Address: address}
	s.stack = &stack
	s.entry(&database{name: "shop"})
	for _, args := range [][]string{{"init"}, {"apply"}, {"status"}, {"wait", "shop"}, {"verify", "shop"}} {
		s.refused(1, soon, []string{"Temporal", address}, args...)
	}
	w := s.launch("early")
	until(t, soon, "the worker says what it waits for", func() bool {
		return strings.Contains(string(w.said()), "Temporal cannot be reached") && strings.Contains(string(w.said()), address)
	})
	w.terminate()
}
