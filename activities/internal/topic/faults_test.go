package topic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deploy/local"
	"github.com/segmentio/kafka-go"
)

// ownBroker starts a broker that the test may kill.
func ownBroker(t *testing.T) (*local.Kafka, *Client) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a server")
	}
	k, err := local.StartKafka(t.Context(), local.KafkaOptions{})
	must(t, err)
	t.Cleanup(func() { _ = k.Close() })
	c, err := Open(Config{Brokers: k.Brokers, AllowInsecure: true, Timeout: 3 * time.Second})
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return k, c
}

func TestBrokerIsKilledUnderLoad(t *testing.T) {
	k, c := ownBroker(t)
	name := ensure(t, c, 2)
	p := openPublisher(t, c, PublisherConfig{Topic: name, Epoch: 1})
	f := follow(t, c, name)
	var want []string
	fp := tableOf(1).Fingerprint
	if _, err := p.Schema(t.Context(), tableOf(1)); err != nil {
		t.Fatal(err)
	}
	killed := make(chan error, 1)
	const transactions = 6000
	for tx := 1; tx <= transactions; tx++ {
		must(t, p.Begin(change.LSN(tx*100), 0, uint32(tx)))
		for i := range 3 {
			v := fmt.Sprintf("%d.%d", tx, i)
			must(t, p.Change(1, fp, change.Create, nil, row("k", v+strings.Repeat(" ", 200))))
			want = append(want, "c"+v+strings.Repeat(" ", 200))
		}
		if tx == transactions {
			must(t, p.Marker("end"))
		}
		must(t, p.Commit(change.LSN(tx*100+50)))
		if tx%2000 == 1000 {
			go func() { killed <- errors.Join(k.Kill(), k.Start(context.WithoutCancel(t.Context()))) }()
			f.until(func() bool {
				select {
				case err := <-killed:
					must(t, err)
					return true
				default:
					return false
				}
			})
		}
	}
	must(t, p.Flush(t.Context()))
	f.until(func() bool { return f.reached["end"] == 2 })
	if len(f.rows[1]) != len(want) {
		t.Fatalf("read %d changes, published %d", len(f.rows[1]), len(want))
	}
	for i := range want {
		if f.rows[1][i] != want[i] {
			t.Fatalf("change %d is %.20q, want %.20q", i, f.rows[1][i], want[i])
		}
	}
	t.Logf("publisher %+v", p.Stats())
	t.Logf("reader %+v", f.r.Stats())
	closePublisher(t, p)
}

func TestPublisherHoldsBackWhileNoBrokerAnswers(t *testing.T) {
	k, c := ownBroker(t)
	name := ensure(t, c, 1)
	p := openPublisher(t, c, PublisherConfig{Topic: name, Epoch: 1, MaxInFlight: 1 << 20})
	fp := tableOf(1).Fingerprint
	if _, err := p.Schema(t.Context(), tableOf(1)); err != nil {
		t.Fatal(err)
	}
	must(t, k.Stop())
	n := 0
	for ; p.Ready(500 * time.Millisecond); n++ {
		must(t, p.Begin(change.LSN(n+1)*100, 0, 1))
		must(t, p.Change(1, fp, change.Create, nil, row("k", strings.Repeat("v", 1000))))
		must(t, p.Commit(change.LSN(n+1)*100+50))
	}
	if s := p.Stats(); s.Pending > 1<<20 || s.Pending < 1<<18 || s.WaitingSince.IsZero() || s.LastError == "" {
		t.Fatalf("%d transactions: %+v", n, s)
	}
	must(t, k.Start(t.Context()))
	must(t, p.Flush(t.Context()))
	if p.Durable() != change.LSN(n)*100+50 {
		t.Fatalf("durable is %s after %d transactions", p.Durable(), n)
	}
	closePublisher(t, p)
}

func TestReaderSaysWhichOffsetsAreKept(t *testing.T) {
	c := openClient(t)
	name := ensure(t, c, 1)
	p := openPublisher(t, c, PublisherConfig{Topic: name, Epoch: 1})
	if _, err := p.Schema(t.Context(), tableOf(1)); err != nil {
		t.Fatal(err)
	}
	for tx := range 20 {
		must(t, p.Begin(change.LSN(tx+1)*100, 0, 1))
		must(t, p.Change(1, tableOf(1).Fingerprint, change.Create, nil, row("k", "v")))
		must(t, p.Commit(change.LSN(tx+1)*100+50))
		must(t, p.Flush(t.Context()))
	}
	closePublisher(t, p)

	_, err := c.Reader(t.Context(), ReaderConfig{Topic: name, From: map[int]int64{0: 1 << 20}})
	var off *OffsetError
	if !errors.Is(err, ErrOffsetAhead) || !errors.As(err, &off) || off.End == 0 {
		t.Errorf("beyond the end: %v", err)
	}
	r, err := c.Reader(t.Context(), ReaderConfig{Topic: name, From: map[int]int64{0: 10}})
	must(t, err)
	defer func() { _ = r.Close() }()
	first := func() int64 {
		t.Helper()
		for {
			recs, err := r.Next(t.Context(), 5*time.Second)
			must(t, err)
			if len(recs) > 0 {
				return recs[0].Offset
			}
		}
	}
	if at := first(); at != 10 {
		t.Errorf("began at offset %d", at)
	}
	r.Seek(0, 3)
	if at := first(); at != 3 {
		t.Errorf("went on at offset %d", at)
	}

	deleteRecords(t, brokers(t)[0], name, 8)
	_, err = c.Reader(t.Context(), ReaderConfig{Topic: name, From: map[int]int64{0: 2}})
	if !errors.Is(err, ErrOffsetLost) {
		t.Errorf("before the beginning: %v", err)
	}
	r.Seek(0, 2)
	for {
		recs, err := r.Next(t.Context(), 5*time.Second)
		if len(recs) > 0 && recs[0].Offset > 2 {
			continue // fetched before
		}
		if !errors.Is(err, ErrOffsetLost) {
			t.Errorf("before the beginning: %v %v", recs, err)
		}
		break
	}
	r.Seek(0, 12)
	if at := first(); at != 12 {
		t.Errorf("went on at offset %d after an error", at)
	}
}

func TestTopicSettingsAreRefusedTogether(t *testing.T) {
	c := openClient(t)
	name := "settings-" + fmt.Sprint(time.Now().UnixNano())
	_, err := c.kafka.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: name, NumPartitions: 2, ReplicationFactor: 1,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "cleanup.policy", ConfigValue: "compact"}, {ConfigName: "retention.ms", ConfigValue: "1000"}},
	}}})
	must(t, err)
	err = c.Ensure(t.Context(), Topic{Name: name, Partitions: 6, Replication: 1, MinISR: 1, Retention: time.Hour})
	if !errors.Is(err, ErrTopicSettings) {
		t.Fatalf("refused with: %v", err)
	}
	for _, part := range []string{"partitions is 2, want 6", "cleanup.policy is compact, want delete", "retention.ms is 1000", "--add-config retention.ms=3600000"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("it does not say %q:\n%v", part, err)
		}
	}
	var s *SettingError
	if !errors.As(err, &s) || s.Remedy == "" {
		t.Errorf("no remedy: %v", err)
	}
}

func TestEnsureTwiceKeepsTheStream(t *testing.T) {
	c := openClient(t)
	name := ensure(t, c, 2)
	first := streamOf(t, c, name)
	must(t, c.Ensure(t.Context(), Topic{Name: name, Partitions: 2, Replication: 1, MinISR: 1, Retention: time.Hour}))
	if again := streamOf(t, c, name); again != first || first == (StreamID{}) {
		t.Errorf("the stream was %s and is %s", first, again)
	}
}

func streamOf(t *testing.T, c *Client, name string) StreamID {
	t.Helper()
	spans, err := c.spans(t.Context(), name, 1)
	must(t, err)
	id, err := c.firstStream(t.Context(), name, 0, spans[0])
	must(t, err)
	return id
}

func TestUnreachableBrokersAreNamed(t *testing.T) {
	c, err := Open(Config{Brokers: []string{"127.0.0.1:1"}, AllowInsecure: true, Timeout: time.Second})
	must(t, err)
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err = c.Ensure(ctx, Topic{Name: "x", Partitions: 1, Replication: 1, MinISR: 1})
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("no broker: %v", err)
	}
}

func TestInsecureIsForLoopbackAlone(t *testing.T) {
	for _, cfg := range []Config{
		{},
		{Brokers: []string{"127.0.0.1:9092"}},
		{Brokers: []string{"kafka.example.com:9092"}, AllowInsecure: true},
		{Brokers: []string{"127.0.0.1"}, AllowInsecure: true},
	} {
		if _, err := Open(cfg); err == nil {
			t.Errorf("opened %+v", cfg)
		}
	}
}

func TestChangeTooLargeLeavesAGap(t *testing.T) {
	c := openClient(t)
	name := "large-" + fmt.Sprint(time.Now().UnixNano())
	must(t, c.Ensure(t.Context(), Topic{Name: name, Partitions: 1, Replication: 1, MinISR: 1, Retention: time.Hour, MaxMessageBytes: 1 << 17}))
	p := openPublisher(t, c, PublisherConfig{Topic: name, Epoch: 1})
	for _, oid := range []uint32{1, 2} {
		if _, err := p.Schema(t.Context(), tableOf(oid)); err != nil {
			t.Fatal(err)
		}
	}
	must(t, p.Begin(100, 0, 1))
	must(t, p.Change(1, tableOf(1).Fingerprint, change.Create, nil, row("1", strings.Repeat("v", 100_000))))
	if err := p.Change(1, tableOf(1).Fingerprint, change.Create, nil, row("2", strings.Repeat("v", 1<<17))); !errors.Is(err, ErrRecordTooLarge) {
		t.Fatalf("it was taken: %v", err)
	}
	must(t, p.Change(1, tableOf(1).Fingerprint, change.Create, nil, row("3", "c")))
	must(t, p.Change(2, tableOf(2).Fingerprint, change.Create, nil, row("1", "a")))
	must(t, p.Commit(150))
	must(t, p.Flush(t.Context()))
	closePublisher(t, p)

	r, err := c.Reader(t.Context(), ReaderConfig{Topic: name})
	must(t, err)
	defer func() { _ = r.Close() }()
	tr := NewTracker(0, Resume{})
	tr.Track(1, change.Position{})
	tr.Track(2, change.Position{})
	var gaps []*Gap
	deadline := time.Now().Add(20 * time.Second)
	for len(gaps) == 0 && time.Now().Before(deadline) {
		recs, err := r.Next(t.Context(), time.Second)
		must(t, err)
		for i := range recs {
			switch recs[i].Kind {
			case KindData:
				tr.Admit(&recs[i])
			case KindWatermark:
				out, err := tr.OnWatermark(&recs[i])
				must(t, err)
				gaps = append(gaps, out.Gaps...)
			}
		}
	}
	if len(gaps) != 1 || gaps[0].OID != 1 || gaps[0].Want.Ordinal != 3 {
		t.Fatalf("gaps: %v", gaps)
	}
	if upTo, all := tr.Complete(2); !all || upTo.Ordinal != 1 {
		t.Errorf("the other table is complete up to %s", upTo)
	}
}

func TestReplacedTopicIsNoticed(t *testing.T) {
	c := openClient(t)
	name := ensure(t, c, 1)
	p := openPublisher(t, c, PublisherConfig{Topic: name, Epoch: 1})
	closePublisher(t, p)
	_, err := c.kafka.DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{name}})
	must(t, err)
	deadline := time.Now().Add(20 * time.Second)
	for err == nil && time.Now().Before(deadline) {
		_, _, err = c.layout(t.Context(), name)
	}
	if !errors.Is(err, ErrTopicMissing) {
		t.Fatalf("the topic was deleted: %v", err)
	}
	must(t, c.Ensure(t.Context(), Topic{Name: name, Partitions: 1, Replication: 1, MinISR: 1, Retention: time.Hour}))
	if _, err := c.Publisher(t.Context(), PublisherConfig{Topic: name, Epoch: 1}); !errors.Is(err, ErrStreamChanged) {
		t.Errorf("a publisher of the topic before: %v", err)
	}
}

func TestSchemasAreKept(t *testing.T) {
	c := openClient(t)
	name := ensure(t, c, 4)
	p := openPublisher(t, c, PublisherConfig{Topic: name, Epoch: 1})
	s, err := c.LoadSchemas(t.Context(), name)
	must(t, err)
	partition, err := p.Schema(t.Context(), tableOf(7))
	must(t, err)
	got, err := s.Table(t.Context(), 7, tableOf(7).Fingerprint)
	must(t, err)
	if got.String() != "public.t7" || len(got.Columns) != 2 || got.Fingerprint != tableOf(7).Fingerprint {
		t.Errorf("the schema is %+v", got)
	}
	if at, known := s.Partition(7); !known || at != partition {
		t.Errorf("the partition is %d, %t, want %d", at, known, partition)
	}
	if _, err := s.Table(t.Context(), 7, 1); !errors.Is(err, ErrSchemaUnknown) {
		t.Errorf("another shape: %v", err)
	}
	closePublisher(t, p)
}

// deleteRecords drops the records of partition 0 below an offset, as retention
// does.
func deleteRecords(t *testing.T, broker, topic string, below int64) {
	t.Helper()
	b := []byte{0, 0, 0, 0, 0, 21, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 1}
	b = be.AppendUint16(b, uint16(len(topic)))
	b = append(b, topic...)
	b = append(b, 0, 0, 0, 1, 0, 0, 0, 0)
	b = be.AppendUint64(b, uint64(below))
	b = append(b, 0, 0, 0x27, 0x10)
	be.PutUint32(b, uint32(len(b)-4))
	conn, err := net.Dial("tcp", broker)
	must(t, err)
	defer func() { _ = conn.Close() }()
	_, err = conn.Write(b)
	must(t, err)
	answer := make([]byte, 4)
	_, err = io.ReadFull(conn, answer)
	must(t, err)
	answer = make([]byte, be.Uint32(answer))
	_, err = io.ReadFull(conn, answer)
	must(t, err)
	if code := be.Uint16(answer[len(answer)-2:]); code != 0 {
		t.Fatalf("delete records: code %d", code)
	}
}
