package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// diagnosis is what `doctor --json` promises.
type diagnosis struct {
	Temporal  []finding `json:"temporal"`
	Databases []struct {
		Name     string    `json:"name"`
		Here     bool      `json:"here"`
		Host     string    `json:"host"`
		Tables   int       `json:"tables"`
		Problems []finding `json:"problems"`
	} `json:"databases"`
}

type finding struct {
	Code     string `json:"code"`
	Table    string `json:"table"`
	Sentence string `json:"sentence"`
	Remedy   string `json:"remedy"`
	By       string `json:"by"`
	Blocking bool   `json:"blocking"`
}

// found returns the problem of a code, or nil.
func found(list []finding, code string) *finding {
	for i := range list {
		if list[i].Code == code {
			return &list[i]
		}
	}
	return nil
}

// with runs f with another fleet file, made of this one.
func (s *site) with(f func(), replace ...string) {
	s.t.Helper()
	was := s.fleet
	defer func() { s.fleet = was }()
	s.fleet = filepath.Join(s.t.TempDir(), "fleet.yaml")
	if err := os.WriteFile(s.fleet, []byte(strings.NewReplacer(replace...).Replace(s.text())), 0o644); err != nil {
		s.t.Fatal(err)
	}
	f()
}

func TestTheDoctorSeesSourceKafkaLakeAndTemporal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	src := newSource(t, s.stack.Postgres, "corner_shop")
	src.exec(`CREATE ROLE shopkeeper; CREATE ROLE mirror LOGIN PASSWORD 'mirror'; GRANT CREATE ON SCHEMA public TO shopkeeper; GRANT CONNECT ON DATABASE corner_shop TO mirror`)
	src.exec(`SET ROLE shopkeeper; CREATE TABLE orders (id int PRIMARY KEY, took interval); CREATE TABLE log (line text); CREATE TABLE staff (id int PRIMARY KEY);
		ALTER TABLE staff ENABLE ROW LEVEL SECURITY; GRANT SELECT ON staff, log TO mirror; RESET ROLE`)
	s.entry(&database{
		name: "shop", password: "mirror",
		url: fmt.Sprintf("postgres://mirror@%s:%d/corner_shop?sslmode=disable", s.stack.Postgres.Host, s.stack.Postgres.Port),
	})
	look := func(code int, args ...string) *diagnosis {
		t.Helper()
		var d diagnosis
		if r := s.decode(&d, append([]string{"doctor"}, args...)...); r.code != code {
			t.Errorf("want exit status %d: %v", code, r)
		}
		return &d
	}

	// Before anything runs it is asked from here.
	d := look(1)
	if shop := d.Databases[0]; !shop.Here || shop.Host != "self-run" || shop.Tables != 3 {
		t.Errorf("asked from here: %+v", shop)
	}
	if p := found(d.Temporal, "NO_WORKER"); p == nil || p.Blocking || !strings.Contains(p.Remedy, "millrace-worker --fleet") || strings.Count(p.Sentence, s.region) != 4 {
		t.Errorf("the queues without a worker: %+v", d.Temporal)
	}
	t.Logf("doctor printed:\n%s", s.run("doctor").stdout)

	// With a worker that one asks, and the remedies mend what they say.
	s.worker("a")
	d = look(1, "shop")
	if d.Databases[0].Here || found(d.Temporal, "NO_WORKER") != nil {
		t.Errorf("no worker was asked: %+v", d)
	}
	for code, by := range map[string]string{
		"PERMISSION_DENIED": "a superuser", "TABLE_PRIVILEGE": "the owner shopkeeper", "ROW_SECURITY": "a superuser", "TABLE_NOT_OWNED": "a superuser",
	} {
		if p := found(d.Databases[0].Problems, code); p == nil || !p.Blocking || !strings.HasPrefix(p.By, by) {
			t.Errorf("%s: %+v", code, p)
		}
	}
	for code, words := range map[string]string{"TYPE_AS_STRING": "took (interval)", "IDENTITY_MISSING": "public.log"} {
		if p := found(d.Databases[0].Problems, code); p == nil || p.Blocking || !strings.Contains(p.Sentence, words) {
			t.Errorf("%s: %+v", code, p)
		}
	}
	comment := regexp.MustCompile(` -- .*`)
	for _, p := range d.Databases[0].Problems {
		if p.Blocking {
			src.exec(comment.ReplaceAllString(p.Remedy, ""))
		}
	}
	look(0)
	s.must("apply")
	s.must("wait", "shop", "--until", "live", "--timeout", "120s")
	look(0, "shop")

	t.Run("a topic that could lose records", func(t *testing.T) {
		c, err := kafka.DialContext(t.Context(), "tcp", s.stack.Kafka.Brokers[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		err = c.CreateTopics(kafka.TopicConfig{
			Topic: "other-" + s.region + ".shop", NumPartitions: 3, ReplicationFactor: 1,
			ConfigEntries: []kafka.ConfigEntry{{ConfigName: "cleanup.policy", ConfigValue: "compact"}, {ConfigName: "max.message.bytes", ConfigValue: "100000"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.with(func() {
			// The worker asks again which topics there are every few seconds.
			until(t, 20*time.Second, "the topic is known", func() bool { return s.run("doctor").code == 1 })
			d := look(1)
			if p := found(d.Databases[0].Problems, "TOPIC_SETTINGS"); p == nil || !p.Blocking || !strings.Contains(p.Sentence, "cleanup.policy") || !strings.Contains(p.Remedy, "kafka-configs.sh") {
				t.Errorf("%+v", d)
			}
			if p := found(d.Databases[0].Problems, "TOPIC_LIMITS"); p == nil || p.Blocking {
				t.Errorf("%+v", d)
			}
		}, "topic_prefix: "+s.region, "topic_prefix: other-"+s.region)
	})
	t.Run("more replicas than brokers", func(t *testing.T) {
		s.with(func() {
			if p := found(look(1).Databases[0].Problems, "TOPIC_SETTINGS"); p == nil || !strings.Contains(p.Remedy, "brokers") {
				t.Errorf("%+v", p)
			}
		}, "topic_prefix: "+s.region, "replication: 3, topic_prefix: none-"+s.region)
	})
	t.Run("no broker, no lake", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		s.with(func() {
			d := look(1, "--here")
			for _, code := range []string{"KAFKA_UNREACHABLE", "LAKE_UNWRITABLE"} {
				if p := found(d.Databases[0].Problems, code); p == nil || !p.Blocking || p.Remedy == "" {
					t.Errorf("%s: %+v", code, d)
				}
			}
		}, s.stack.Kafka.Brokers[0], freeAddress(t), s.lake, "file://"+file+"/lake")
	})
	t.Run("no Temporal, and no secret", func(t *testing.T) {
		s.with(func() {
			d := look(1)
			if p := found(d.Temporal, "TEMPORAL_UNREACHABLE"); p == nil || !p.Blocking || !d.Databases[0].Here {
				t.Errorf("%+v", d)
			}
			if p := found(d.Databases[0].Problems, "SECRET_MISSING"); p == nil || !p.Blocking {
				t.Errorf("%+v", d)
			}
		}, s.stack.Temporal.Address, freeAddress(t), "shop.password", "gone.password")
	})
	s.refused(1, soon, []string{"no such database"}, "doctor", "shopp")
}
