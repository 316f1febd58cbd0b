package topic

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

const (
	defaultTimeout  = 10 * time.Second
	defaultMessage  = 16 << 20
	metadataTTL     = 3 * time.Second
	missingPatience = 15 * time.Second // how long a topic may be missing at a restart of brokers
)

// Client is a connection to one Kafka cluster. It may be shared by any number
// of publishers and readers.
type Client struct {
	addr      net.Addr
	timeout   time.Duration
	transport *kafka.Transport
	kafka     *kafka.Client
}

// Open checks cfg. It does not connect: the first request does.
func Open(cfg Config) (*Client, error) {
	if len(cfg.Brokers) == 0 {
		return nil, errors.New("open Kafka: no brokers are given")
	}
	if cfg.TLS == nil {
		for _, b := range cfg.Brokers {
			if err := mayBeInsecure(b, cfg.AllowInsecure); err != nil {
				return nil, fmt.Errorf("open Kafka: %w", err)
			}
		}
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "millrace"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	c := &Client{addr: kafka.TCP(cfg.Brokers...), timeout: cfg.Timeout}
	c.transport = &kafka.Transport{
		ClientID:    cfg.ClientID,
		TLS:         cfg.TLS,
		DialTimeout: min(cfg.Timeout, 5*time.Second),
		MetadataTTL: metadataTTL,
	}
	c.kafka = &kafka.Client{Addr: c.addr, Timeout: cfg.Timeout, Transport: c.transport}
	return c, nil
}

func mayBeInsecure(broker string, allowed bool) error {
	host, _, err := net.SplitHostPort(broker)
	if err != nil {
		return fmt.Errorf("broker %q: want host:port", broker)
	}
	if !allowed {
		return fmt.Errorf("broker %s: TLS is required; allow_insecure permits loopback addresses without", broker)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("broker %s: TLS is required, for it is not a loopback address", broker)
	}
	return nil
}

// Close gives up all connections that are not in use.
func (c *Client) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

// metadata returns what the cluster says about topics, from a cache of a few
// seconds.
func (c *Client) metadata(ctx context.Context, topics ...string) (*metadata.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	m, err := c.transport.RoundTrip(ctx, c.addr, &metadata.Request{TopicNames: topics})
	if err != nil {
		return nil, c.unreachable(err)
	}
	res, ok := m.(*metadata.Response)
	if !ok {
		return nil, c.unreachable(errNoAnswer)
	}
	return res, nil
}

func (c *Client) unreachable(err error) error {
	if denied := permanent(err); denied != nil {
		return denied
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.addr, err)
}

// leaders returns the broker that leads each partition of a topic; partitions
// without one are left out.
func (c *Client) leaders(ctx context.Context, topic string) (map[int]int, error) {
	res, err := c.metadata(ctx, topic)
	if err != nil {
		return nil, err
	}
	leaders := make(map[int]int)
	for i := range res.Topics {
		t := &res.Topics[i]
		if t.ErrorCode != 0 {
			return nil, fmt.Errorf("topic %q: %w", topic, kafka.Error(t.ErrorCode))
		}
		for j := range t.Partitions {
			if p := &t.Partitions[j]; p.LeaderID >= 0 {
				leaders[int(p.PartitionIndex)] = int(p.LeaderID)
			}
		}
	}
	return leaders, nil
}

// layout returns how many partitions a topic has, and the fewest replicas of
// one. [ErrTopicMissing] when there is no such topic.
func (c *Client) layout(ctx context.Context, topic string) (partitions, replicas int, err error) {
	res, err := c.metadata(ctx, topic)
	if err != nil {
		return 0, 0, err
	}
	if len(res.Topics) == 0 || res.Topics[0].ErrorCode == int16(kafka.UnknownTopicOrPartition) {
		return 0, 0, fmt.Errorf("%w: %q", ErrTopicMissing, topic)
	}
	t := &res.Topics[0]
	if t.ErrorCode != 0 {
		err := error(kafka.Error(t.ErrorCode))
		if p := permanent(err); p != nil {
			err = p
		}
		return 0, 0, fmt.Errorf("topic %q: %w", topic, err)
	}
	for j := range t.Partitions {
		if n := len(t.Partitions[j].ReplicaNodes); j == 0 || n < replicas {
			replicas = n
		}
	}
	return len(t.Partitions), replicas, nil
}

// spans returns the bounds of each partition of a topic.
func (c *Client) spans(ctx context.Context, topic string, partitions int) ([]Span, error) {
	spans := make([]Span, partitions)
	for p := range spans {
		for _, at := range []int64{kafka.FirstOffset, kafka.LastOffset} {
			off, err := c.offset(ctx, topic, p, at)
			if err != nil {
				return nil, err
			}
			if at == kafka.FirstOffset {
				spans[p].Earliest = off
			} else {
				spans[p].End = off
			}
		}
	}
	return spans, nil
}

// offset returns the first or last offset of a partition.
func (c *Client) offset(ctx context.Context, topic string, partition int, at int64) (int64, error) {
	var off int64
	err := c.retry(ctx, func(ctx context.Context) error {
		m, err := c.transport.RoundTrip(ctx, c.addr, &listoffsets.Request{
			ReplicaID: -1,
			Topics: []listoffsets.RequestTopic{{
				Topic: topic,
				Partitions: []listoffsets.RequestPartition{{
					Partition:          int32(partition),
					CurrentLeaderEpoch: -1,
					Timestamp:          at,
				}},
			}},
		})
		if err != nil {
			return err
		}
		res, ok := m.(*listoffsets.Response)
		if !ok || len(res.Topics) != 1 || len(res.Topics[0].Partitions) != 1 {
			return errNoAnswer
		}
		p := &res.Topics[0].Partitions[0]
		if p.ErrorCode != 0 {
			return kafka.Error(p.ErrorCode)
		}
		off = p.Offset
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("list offsets of topic %q partition %d: %w", topic, partition, err)
	}
	return off, nil
}

// retry calls f until it succeeds, fails for good, or ctx ends; then it
// returns f's last error.
func (c *Client) retry(ctx context.Context, f func(context.Context) error) error {
	var b backoff
	for {
		try, cancel := context.WithTimeout(ctx, c.timeout)
		err := f(try)
		cancel()
		if err == nil {
			return nil
		}
		if p := permanent(err); p != nil {
			return p
		}
		if b.wait(ctx) != nil {
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
	}
}

// Ensure creates t and its schemas topic, or checks those that exist: all
// settings that are refused come back joined, each a [SettingError]. It waits
// until the topic can be written, and begins each empty partition with a
// stream id.
func (c *Client) Ensure(ctx context.Context, t Topic) error { return c.ensure(ctx, t, true) }

// Check checks t as Ensure does, and creates nothing: one that is not there, or
// was made again and has nothing in it, is [ErrTopicMissing].
func (c *Client) Check(ctx context.Context, t Topic) error { return c.ensure(ctx, t, false) }

func (c *Client) ensure(ctx context.Context, t Topic, create bool) error {
	if t.Partitions < 1 || t.Replication < 1 || t.MinISR < 1 || t.MinISR > t.Replication {
		return fmt.Errorf("topic %q: %d partitions, %d replicas and min.insync.replicas %d are not possible", t.Name, t.Partitions, t.Replication, t.MinISR)
	}
	if t.MaxMessageBytes == 0 {
		t.MaxMessageBytes = defaultMessage
	}
	if err := c.ensureOne(ctx, t.Name, t.Partitions, t.Replication, t.rules(), create); err != nil {
		return err
	}
	if err := c.ensureOne(ctx, SchemasTopic(t.Name), 1, t.Replication, t.schemasRules(), create); err != nil {
		return err
	}
	if create {
		return c.beginStreams(ctx, t.Name, t.Partitions)
	}
	spans, err := c.spans(ctx, t.Name, t.Partitions)
	for p, s := range spans {
		if err == nil && s.End == 0 {
			err = fmt.Errorf("topic %q was made again, partition %d has nothing in it: %w", t.Name, p, ErrTopicMissing)
		}
	}
	return err
}

// rule is what a setting of a topic has to be.
type rule struct {
	name string
	// set is the value given at creation; empty leaves the broker's default.
	set string
	// want says what is accepted; ok judges a value.
	want string
	ok   func(have string) bool
}

func is(value string) func(string) bool { return func(have string) bool { return have == value } }

func atLeast(n int64) func(string) bool {
	return func(have string) bool {
		v, err := strconv.ParseInt(have, 10, 64)
		return err == nil && v >= n
	}
}

func (t *Topic) rules() []rule {
	retention := t.Retention.Milliseconds()
	kept := strconv.FormatInt(retention, 10)
	if retention <= 0 {
		kept = "-1"
	}
	return []rule{
		{"cleanup.policy", "delete", "delete", is("delete")},
		{"min.insync.replicas", strconv.Itoa(t.MinISR), "at least " + strconv.Itoa(t.MinISR), atLeast(int64(t.MinISR))},
		{"retention.ms", kept, "at least " + kept + " or -1", func(have string) bool {
			return have == "-1" || retention > 0 && atLeast(retention)(have)
		}},
		{"retention.bytes", "-1", "-1", is("-1")},
		{"unclean.leader.election.enable", "false", "false", is("false")},
		{"max.message.bytes", strconv.Itoa(t.MaxMessageBytes), "at least 65536", atLeast(1 << 16)},
	}
}

func (t *Topic) schemasRules() []rule {
	return []rule{
		{"cleanup.policy", "compact", "compact", is("compact")},
		{"min.insync.replicas", strconv.Itoa(t.MinISR), "at least " + strconv.Itoa(t.MinISR), atLeast(int64(t.MinISR))},
		{"unclean.leader.election.enable", "false", "false", is("false")},
		{"max.message.bytes", strconv.Itoa(t.MaxMessageBytes), "at least 65536", atLeast(1 << 16)},
	}
}

func (c *Client) ensureOne(ctx context.Context, name string, partitions, replication int, rules []rule, create bool) error {
	have, replicas, err := c.layout(ctx, name)
	if errors.Is(err, ErrTopicMissing) && create {
		if err = c.create(ctx, name, partitions, replication, rules); err == nil {
			have, replicas, err = c.layout(ctx, name)
		}
	}
	if err != nil {
		return err
	}
	var faults []error
	if have != partitions {
		faults = append(faults, &SettingError{name, "partitions", strconv.Itoa(have), strconv.Itoa(partitions), "set partitions in the fleet file to what the topic has; a table stays in its partition"})
	}
	if replicas < replication {
		faults = append(faults, &SettingError{name, "replication", strconv.Itoa(replicas), "at least " + strconv.Itoa(replication), "add replicas with kafka-reassign-partitions.sh, or lower replication in the fleet file"})
	}
	settings, err := c.settings(ctx, name)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if value, known := settings[r.name]; known && !r.ok(value) {
			faults = append(faults, &SettingError{
				name, r.name, value, r.want,
				fmt.Sprintf("kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config %s=%s", name, r.name, r.set),
			})
		}
	}
	return errors.Join(faults...)
}

// create creates a topic and waits until brokers know it.
func (c *Client) create(ctx context.Context, name string, partitions, replication int, rules []rule) error {
	entries := make([]kafka.ConfigEntry, 0, len(rules))
	for _, r := range rules {
		entries = append(entries, kafka.ConfigEntry{ConfigName: r.name, ConfigValue: r.set})
	}
	res, err := c.kafka.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: name, NumPartitions: partitions, ReplicationFactor: replication, ConfigEntries: entries,
	}}})
	if err != nil {
		return fmt.Errorf("create topic %q: %w", name, c.unreachable(err))
	}
	switch err := res.Errors[name]; {
	case err == nil, errors.Is(err, kafka.TopicAlreadyExists):
	case errors.Is(err, kafka.InvalidReplicationFactor):
		return &SettingError{name, "replication", "more than there are brokers", strconv.Itoa(replication), "lower replication in the fleet file, or add brokers"}
	case permanent(err) != nil:
		return fmt.Errorf("create topic %q: %w", name, permanent(err))
	default:
		return fmt.Errorf("create topic %q: %w", name, err)
	}
	var b backoff
	for {
		n, _, err := c.layout(ctx, name)
		if err == nil && n > 0 {
			return nil
		}
		if werr := b.wait(ctx); werr != nil {
			return fmt.Errorf("wait for topic %q: %w", name, werr)
		}
	}
}

// settings returns a topic's settings.
func (c *Client) settings(ctx context.Context, name string) (map[string]string, error) {
	settings := make(map[string]string)
	res, err := c.kafka.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: name,
	}}})
	if err != nil {
		return nil, fmt.Errorf("read the settings of topic %q: %w", name, c.unreachable(err))
	}
	for _, r := range res.Resources {
		if r.Error != nil {
			return nil, fmt.Errorf("read the settings of topic %q: %w", name, c.unreachable(r.Error))
		}
		for _, e := range r.ConfigEntries {
			settings[e.ConfigName] = strings.TrimSpace(e.ConfigValue)
		}
	}
	return settings, nil
}

// beginStreams writes a stream id into every empty partition.
func (c *Client) beginStreams(ctx context.Context, name string, partitions int) error {
	spans, err := c.spans(ctx, name, partitions)
	if err != nil {
		return err
	}
	var parcels []*parcel
	for p, s := range spans {
		if s.End > 0 {
			continue
		}
		var id StreamID
		if _, err := rand.Read(id[:]); err != nil {
			return fmt.Errorf("make a stream id: %w", err)
		}
		var w batchWriter
		w.reset()
		w.add(nil, appendStream(nil, id))
		b, err := w.seal(time.Now())
		if err != nil {
			return err
		}
		parcels = append(parcels, &parcel{partition: p, bytes: b})
	}
	if err := c.produceAll(ctx, name, parcels); err != nil {
		return fmt.Errorf("begin topic %q: %w", name, err)
	}
	return nil
}

// produceAll sends parcels to different partitions until all are there.
func (c *Client) produceAll(ctx context.Context, topic string, parcels []*parcel) error {
	if len(parcels) == 0 {
		return nil
	}
	return c.retry(ctx, func(ctx context.Context) error {
		c.produce(ctx, topic, parcels)
		var failed []*parcel
		var errs []error
		for _, p := range parcels {
			if p.err != nil {
				failed = append(failed, p)
				errs = append(errs, p.err)
			}
		}
		parcels = failed
		return errors.Join(errs...)
	})
}
