package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// remedied follows the last line of what a database is parked for, as it is
// printed, and waits until every table is live.
func (s *site) remedied(name string) {
	s.t.Helper()
	r := s.status(name).Reason
	if r == nil {
		s.t.Fatalf("database %s has no reason", name)
	}
	line := r.Remedy[strings.LastIndexByte(r.Remedy, '\n')+1:]
	s.must(strings.Fields(line)[1:]...)
	s.must("wait", name, "--until", "live", "--timeout", "60s")
}

// parks waits until a database is parked for a reason.
func (s *site) parks(name, code string) {
	s.t.Helper()
	until(s.t, 60*time.Second, name+" parks for "+code, func() bool {
		now := s.status(name)
		return now.Phase == "parked" && now.Reason.Code == code
	})
}

// topics reaches the brokers beside Millrace.
func (s *site) topics() *kafka.Client {
	return &kafka.Client{Addr: kafka.TCP(s.stack.Kafka.Brokers...), Timeout: 10 * time.Second}
}

// deleteTopics deletes topics and waits until they are gone.
func (s *site) deleteTopics(names ...string) {
	s.t.Helper()
	k := s.topics()
	if _, err := k.DeleteTopics(s.t.Context(), &kafka.DeleteTopicsRequest{Topics: names}); err != nil {
		s.t.Fatal(err)
	}
	until(s.t, 20*time.Second, "the topics are gone", func() bool {
		m, err := k.Metadata(s.t.Context(), &kafka.MetadataRequest{Topics: names})
		if err != nil {
			return false
		}
		for _, t := range m.Topics {
			if t.Error == nil {
				return false
			}
		}
		return true
	})
}

// dropSlots drops the slots of the source's database, whoever reads from them.
func (s *source) dropSlots() {
	s.t.Helper()
	until(s.t, 20*time.Second, "the slots are dropped", func() bool {
		_, err := s.conn.Exec(s.t.Context(), `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database() AND active;
			SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()`)
		return err == nil
	})
}

func TestWhatIsLostIsMadeUpForByANewEpoch(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	src := s.add("epochs")
	src.exec(`SET synchronous_commit = on`) // a slot is moved as far as the WAL is flushed
	src.exec(`CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'copied' FROM generate_series(1, 100) i;
		CREATE TABLE idle (id int PRIMARY KEY); INSERT INTO idle SELECT generate_series(1, 10)`)
	s.worker("a")
	s.must("apply")
	s.must("wait", src.name, "--until", "live", "--timeout", "60s")
	s.caughtUp(src.name)
	topic := s.region + "." + src.name
	epoch := func() int64 {
		return src.number(`SELECT max(substring(slot_name::text FROM '_e([0-9]+)$')::int) FROM pg_replication_slots WHERE database = current_database()`)
	}
	history := s.table(src.name, "public.t").History

	n := 100
	for _, c := range []struct {
		what, code string
		harm       func()
	}{
		{"a slot that is dropped", "SLOT_LOST", src.dropSlots},
		{"a slot that somebody moves", "SLOT_MOVED", func() {
			s.must("pause", src.name, "--capture")
			until(t, 20*time.Second, "capture ends", func() bool { return !src.busy("capture/") })
			src.exec(`DELETE FROM t WHERE id = 2`)
			src.exec(`SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) FROM pg_replication_slots WHERE database = current_database()`)
			s.run("resume", src.name)
		}},
		{"a publication that is dropped", "PUBLICATION_MISSING", func() { src.exec(`DROP PUBLICATION millrace_` + src.name) }},
		{"a topic that is deleted", "TOPIC_MISSING", func() { s.deleteTopics(topic, topic+".schemas") }},
		{"a topic that is made again", "TOPIC_MISSING", func() {
			s.must("pause", src.name, "--capture")
			until(t, 20*time.Second, "capture ends", func() bool { return !src.busy("capture/") })
			s.deleteTopics(topic) // not that of the shapes
			s.remade(topic)
			s.run("resume", src.name)
		}},
		{"a record of others", "MALFORMED_RECORD", func() {
			_, err := s.topics().Produce(t.Context(), &kafka.ProduceRequest{
				Topic: topic, Partition: 1, RequiredAcks: kafka.RequireAll,
				Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte("not ours"))}),
			})
			if err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			before := epoch()
			c.harm()
			n++
			src.exec(fmt.Sprintf(`INSERT INTO t VALUES (%d, 'meanwhile')`, n))
			src.exec(fmt.Sprintf(`DELETE FROM t WHERE id = %d; DELETE FROM idle WHERE id = %[1]d - 100; UPDATE t SET v = 'changed' WHERE id = 50`, n-90))
			s.parks(src.name, c.code)
			s.refused(2, 10*time.Second, []string{"--yes", "copied again"}, "unpark", src.name, "--new-epoch")
			if s.status(src.name).Phase != "parked" {
				t.Error("a refused request changed something")
			}
			s.remedied(src.name)
			src.exec(`UPDATE t SET v = 'streamed' WHERE id = 60`)
			s.caughtUp(src.name)
			s.verified(src.name)
			if now := epoch(); now <= before {
				t.Errorf("epoch %d, after %d", now, before)
			}
			if k := src.number(`SELECT count(*) FROM pg_replication_slots WHERE database = current_database()`); k != 1 {
				t.Errorf("%d slots", k)
			}
		})
	}
	if now := s.table(src.name, "public.t").History; now != history {
		t.Errorf("history is %s, was %s", now, history)
	}
}

// remade makes a topic as an operator would who deleted it by mistake.
func (s *site) remade(topic string) {
	s.t.Helper()
	set := func(pairs ...string) (entries []kafka.ConfigEntry) {
		for i := 0; i < len(pairs); i += 2 {
			entries = append(entries, kafka.ConfigEntry{ConfigName: pairs[i], ConfigValue: pairs[i+1]})
		}
		return entries
	}
	res, err := s.topics().CreateTopics(s.t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
		{Topic: topic, NumPartitions: 3, ReplicationFactor: 1, ConfigEntries: set("retention.ms", "-1", "unclean.leader.election.enable", "false")},
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	for name, err := range res.Errors {
		if err != nil {
			s.t.Fatalf("%s: %v", name, err)
		}
	}
}
