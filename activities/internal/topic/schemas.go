package topic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/segmentio/kafka-go"
)

// The schemas topic is compacted. Its keys are table/<oid>/<fingerprint>, with
// a schemaRecord, and seed/<epoch>/<partition>, with a seedRecord.
const (
	tableKey = "table/"
	seedKey  = "seed/"
)

// schemaRecord is one shape of one table.
type schemaRecord struct {
	Partition int           `json:"partition"`
	Table     *change.Table `json:"table"`
}

// seedRecord says where a full watermark is, so that a publisher need not look
// for it.
type seedRecord struct {
	Epoch     uint32 `json:"epoch"`
	Partition int    `json:"partition"`
	// Offset is the watermark's.
	Offset int64 `json:"offset"`
	// Watermark is the record itself, which outlives the topic's retention.
	Watermark []byte `json:"watermark"`
}

func (s *seedRecord) key() string {
	return seedKey + strconv.FormatUint(uint64(s.Epoch), 10) + "/" + strconv.Itoa(s.Partition)
}

type shapeKey struct {
	oid uint32
	fp  change.Fingerprint
}

// Schemas is what a schemas topic says: the shape of every table by OID and
// fingerprint, and each table's partition. Its methods may be called at the
// same time.
type Schemas struct {
	c     *Client
	topic string

	mu         sync.Mutex
	next       int64
	shapes     map[shapeKey]*change.Table
	latest     map[uint32]*change.Table
	partitions map[uint32]int
	seeds      map[string]seedRecord
}

// LoadSchemas reads the schemas topic of topic to its end.
func (c *Client) LoadSchemas(ctx context.Context, topic string) (*Schemas, error) {
	s := &Schemas{
		c:          c,
		topic:      SchemasTopic(topic),
		shapes:     make(map[shapeKey]*change.Table),
		latest:     make(map[uint32]*change.Table),
		partitions: make(map[uint32]int),
		seeds:      make(map[string]seedRecord),
	}
	if _, _, err := c.layout(ctx, s.topic); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.readOn(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// readOn reads what was written since.
func (s *Schemas) readOn(ctx context.Context) error {
	end, err := s.c.offset(ctx, s.topic, 0, kafka.LastOffset)
	if err != nil {
		return err
	}
	if end < s.next {
		return fmt.Errorf("read topic %q: %w", s.topic, ErrStreamChanged)
	}
	if s.next == 0 {
		if s.next, err = s.c.offset(ctx, s.topic, 0, kafka.FirstOffset); err != nil {
			return err
		}
	}
	err = s.c.scan(ctx, s.topic, 0, s.next, end, s.add)
	if err != nil {
		return err
	}
	s.next = end
	return nil
}

func (s *Schemas) add(_ int64, key, value []byte) error {
	k := string(key)
	switch {
	case strings.HasPrefix(k, tableKey):
		var r schemaRecord
		if err := json.Unmarshal(value, &r); err != nil {
			return fmt.Errorf("%w: schema %s: %w", ErrRecord, k, err)
		}
		if r.Table == nil || r.Partition < 0 {
			return fmt.Errorf("%w: schema %s is not complete", ErrRecord, k)
		}
		s.learn(r)
	case strings.HasPrefix(k, seedKey):
		var r seedRecord
		if err := json.Unmarshal(value, &r); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrRecord, k, err)
		}
		// A publisher that was paused may write an older one late.
		if r.Offset >= s.seeds[k].Offset {
			s.seeds[k] = r
		}
	}
	return nil
}

func (s *Schemas) learn(r schemaRecord) {
	key := shapeKey{r.Table.OID, r.Table.Fingerprint}
	if s.shapes[key] == nil {
		s.shapes[key] = r.Table
	}
	s.latest[r.Table.OID] = s.shapes[key]
	if _, known := s.partitions[r.Table.OID]; !known {
		s.partitions[r.Table.OID] = r.Partition
	}
}

// Table returns the shape named by oid and fp. It reads on when it has not
// seen it; [ErrSchemaUnknown] when the topic does not have it either.
func (s *Schemas) Table(ctx context.Context, oid uint32, fp change.Fingerprint) (*change.Table, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := shapeKey{oid, fp}
	if t := s.shapes[key]; t != nil {
		return t, nil
	}
	if err := s.readOn(ctx); err != nil {
		return nil, err
	}
	if t := s.shapes[key]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("%w: table %d, shape %s, topic %q", ErrSchemaUnknown, oid, fp, s.topic)
}

// Partition returns the partition of a table.
func (s *Schemas) Partition(oid uint32) (partition int, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	partition, known = s.partitions[oid]
	return partition, known
}

// Latest returns, of every table, the shape that was written last, by OID.
func (s *Schemas) Latest() []*change.Table {
	s.mu.Lock()
	defer s.mu.Unlock()
	tables := make([]*change.Table, 0, len(s.latest))
	for _, t := range s.latest {
		tables = append(tables, t)
	}
	slices.SortFunc(tables, func(a, b *change.Table) int { return int(int64(a.OID) - int64(b.OID)) })
	return tables
}

// put registers a shape, writing it unless it is there, and returns the
// table's partition.
func (s *Schemas) put(ctx context.Context, t *change.Table, partitions int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shapes[shapeKey{t.OID, t.Fingerprint}] != nil {
		return s.partitions[t.OID], nil
	}
	partition, known := s.partitions[t.OID]
	if !known {
		partition = assign(t.OID, partitions)
	}
	r := schemaRecord{Partition: partition, Table: t}
	key := tableKey + strconv.FormatUint(uint64(t.OID), 10) + "/" + t.Fingerprint.String()
	if err := s.write(ctx, key, r); err != nil {
		return 0, fmt.Errorf("write the schema of table %s: %w", t, err)
	}
	s.learn(r)
	return partition, nil
}

// assign chooses a table's partition. Every publisher of a topic chooses the
// same.
func assign(oid uint32, partitions int) int {
	h := uint64(oid) * 0x9e3779b97f4a7c15
	return int((h >> 32) % uint64(partitions))
}

func (s *Schemas) write(ctx context.Context, key string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	var w batchWriter
	w.reset()
	w.add([]byte(key), b)
	out, err := w.seal(time.Now())
	if err != nil {
		return err
	}
	return s.c.produceAll(ctx, s.topic, []*parcel{{partition: 0, bytes: out}})
}

// writeSeeds says where full watermarks are.
func (s *Schemas) writeSeeds(ctx context.Context, seeds []seedRecord) error {
	var w batchWriter
	w.reset()
	for i := range seeds {
		b, err := json.Marshal(&seeds[i])
		if err != nil {
			return err
		}
		w.add([]byte(seeds[i].key()), b)
	}
	out, err := w.seal(time.Now())
	if err != nil {
		return err
	}
	return s.c.produceAll(ctx, s.topic, []*parcel{{partition: 0, bytes: out}})
}

// stand reads where an epoch stands in the topic, and the stream id of each
// partition.
func (s *Schemas) stand(ctx context.Context, topic string, epoch uint32, spans []Span) (*seeds, []StreamID, error) {
	s.mu.Lock()
	known := make([]*seedRecord, len(spans))
	older := make([]*seedRecord, len(spans))
	var err error
	for _, r := range s.seeds {
		switch {
		case r.Epoch > epoch:
			err = fenced(r.Epoch, epoch)
		case r.Partition < 0 || r.Partition >= len(spans):
			err = fmt.Errorf("%w: seed of partition %d", ErrRecord, r.Partition)
		case r.Epoch == epoch:
			known[r.Partition] = &r
		case older[r.Partition] == nil || older[r.Partition].Epoch < r.Epoch:
			older[r.Partition] = &r
		}
	}
	s.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	tails := make([]*tail, len(spans))
	streams := make([]StreamID, len(spans))
	errs := make([]error, len(spans))
	var wg sync.WaitGroup
	for p := range spans {
		wg.Go(func() {
			tails[p], streams[p], errs[p] = s.c.readTail(ctx, topic, epoch, p, spans[p], known[p], older[p])
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	return joinTails(tails), streams, nil
}

// readTail reads where an epoch stands in one partition. known is the epoch's
// last seed, or nil when it wrote nothing but, perhaps, its first watermark;
// older is the seed of an earlier epoch.
func (c *Client) readTail(ctx context.Context, topic string, epoch uint32, partition int, span Span, known, older *seedRecord) (*tail, StreamID, error) {
	t := newTail(epoch)
	stream, err := c.firstStream(ctx, topic, partition, span)
	if err != nil {
		return nil, stream, err
	}
	seed := known
	if seed == nil {
		seed = older
	}
	if seed == nil {
		if stream == (StreamID{}) {
			return nil, stream, fmt.Errorf("%w: topic %q partition %d begins at offset %d and nothing says what was before", ErrTailLost, topic, partition, span.Earliest)
		}
		return t, stream, nil
	}
	var r Record
	if err := r.parse(seed.Watermark); err != nil || r.Kind != KindWatermark {
		return nil, stream, fmt.Errorf("read the seed of topic %q partition %d: %w", topic, partition, errors.Join(ErrRecord, err))
	}
	if stream != (StreamID{}) && stream != r.Stream || span.End <= seed.Offset {
		return nil, stream, fmt.Errorf("%w: topic %q partition %d", ErrStreamChanged, topic, partition)
	}
	stream = r.Stream
	if known == nil {
		return t, stream, nil
	}
	if span.Earliest > seed.Offset+1 {
		return nil, stream, fmt.Errorf("%w: topic %q partition %d begins at offset %d, needed is %d", ErrTailLost, topic, partition, span.Earliest, seed.Offset+1)
	}
	if err := t.add(&r); err != nil {
		return nil, stream, err
	}
	err = c.scan(ctx, topic, partition, seed.Offset+1, span.End, func(_ int64, _, value []byte) error {
		if err := r.parse(value); err != nil {
			return err
		}
		return t.add(&r)
	})
	return t, stream, err
}

// firstStream returns the stream id at the beginning of a partition, zero
// when the beginning is no longer kept.
func (c *Client) firstStream(ctx context.Context, topic string, partition int, span Span) (id StreamID, err error) {
	if span.Earliest > 0 {
		return id, nil
	}
	if span.End == 0 {
		return id, fmt.Errorf("%w: topic %q partition %d has no stream id", ErrTopicSettings, topic, partition)
	}
	err = c.scan(ctx, topic, partition, 0, 1, func(_ int64, _, value []byte) error {
		var r Record
		if err := r.parse(value); err != nil {
			return err
		}
		if r.Kind != KindStream {
			return fmt.Errorf("%w: the partition does not begin with a stream id", ErrRecord)
		}
		id = r.Stream
		return nil
	})
	return id, err
}
