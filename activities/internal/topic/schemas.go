package topic

import (
	"context"
	"crypto/rand"
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

// The schemas topic is compacted. Its keys are
//
//	table/<oid>/<fingerprint>              a schemaRecord
//	publisher                              a publisher's claim: its offset is
//	                                       the publisher's generation
//	seed/<epoch>/<partition>/<generation>  a seedRecord
const (
	tableKey = "table/"
	claimKey = "publisher"
	seedKey  = "seed/"
)

// schemaRecord is one shape of one table.
type schemaRecord struct {
	Partition int           `json:"partition"`
	Table     *change.Table `json:"table"`
}

// seedRecord is a full watermark as a publisher wrote it, and from where a
// later publisher has to read on. That of the latest generation counts: an
// older publisher that was paused may write records, watermarks and seeds at
// any time.
type seedRecord struct {
	Epoch      uint32 `json:"epoch"`
	Partition  int    `json:"partition"`
	Generation int64  `json:"generation"`
	// From is an offset before which the partition has neither a watermark that
	// is further than this one nor a change beyond it.
	From int64 `json:"from"`
	// Offset is the watermark's.
	Offset int64 `json:"offset"`
	// Watermark is the record itself, which outlives the topic's retention.
	Watermark []byte `json:"watermark"`
}

func (s *seedRecord) key() string {
	return fmt.Sprintf("%s%d/%d/%d", seedKey, s.Epoch, s.Partition, s.Generation)
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
	case strings.HasPrefix(k, seedKey) && len(value) == 0:
		delete(s.seeds, k)
	case strings.HasPrefix(k, seedKey):
		var r seedRecord
		if err := json.Unmarshal(value, &r); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrRecord, k, err)
		}
		s.seeds[k] = r
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

// claim writes that a publisher begins, and returns its generation, which is
// above that of every one before it. What it says is read afterwards.
func (s *Schemas) claim(ctx context.Context) (generation int64, err error) {
	var w batchWriter
	w.reset()
	w.add([]byte(claimKey), []byte(time.Now().UTC().Format(time.RFC3339)))
	out, err := w.seal(time.Now())
	if err != nil {
		return 0, err
	}
	x := &parcel{partition: 0, bytes: out}
	if err := s.c.produceAll(ctx, s.topic, []*parcel{x}); err != nil {
		return 0, fmt.Errorf("claim the topic: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return x.offset, s.readOn(ctx)
}

// writeSeeds replaces this publisher's seeds, and at its first time those of
// the publishers before it.
func (s *Schemas) writeSeeds(ctx context.Context, seeds []seedRecord, first bool) error {
	var w batchWriter
	w.reset()
	for i := range seeds {
		b, err := json.Marshal(&seeds[i])
		if err != nil {
			return err
		}
		w.add([]byte(seeds[i].key()), b)
	}
	if first {
		s.mu.Lock()
		for k, r := range s.seeds {
			// Those of older epochs tell that the epochs were, and the streams.
			if r.Generation < seeds[0].Generation && r.Epoch == seeds[0].Epoch {
				w.add([]byte(k), nil)
				delete(s.seeds, k)
			}
		}
		s.mu.Unlock()
	}
	out, err := w.seal(time.Now())
	if err != nil {
		return err
	}
	return s.c.produceAll(ctx, s.topic, []*parcel{{partition: 0, bytes: out}})
}

// stand reads where an epoch stands in the topic, and the stream id of each
// partition. One that begins stands nowhere, whatever has become of what was
// written before it.
func (s *Schemas) stand(ctx context.Context, topic string, epoch uint32, begins bool, spans []Span) (*seeds, []StreamID, error) {
	s.mu.Lock()
	known, err := chooseSeeds(s.seeds, epoch, len(spans))
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
			if begins && (known[p] == nil || known[p].Epoch < epoch) {
				tails[p] = newTail(epoch)
				streams[p], errs[p] = s.c.beginsIn(ctx, topic, p, spans[p], known[p])
				return
			}
			tails[p], streams[p], errs[p] = s.c.readTail(ctx, topic, epoch, p, spans[p], known[p])
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	return joinTails(tails), streams, nil
}

// chooseSeeds returns for each partition the seed of the latest epoch and
// generation, nil where there is none. [ErrFenced] when an epoch beyond epoch
// has begun.
func chooseSeeds(all map[string]seedRecord, epoch uint32, partitions int) ([]*seedRecord, error) {
	chosen := make([]*seedRecord, partitions)
	for _, r := range all {
		if r.Epoch > epoch {
			return nil, fenced(r.Epoch, epoch)
		}
		if r.Partition < 0 || r.Partition >= partitions {
			return nil, fmt.Errorf("%w: seed of partition %d", ErrRecord, r.Partition)
		}
		c := chosen[r.Partition]
		if c == nil || c.Epoch < r.Epoch || c.Epoch == r.Epoch && c.Generation < r.Generation {
			chosen[r.Partition] = &r
		}
	}
	return chosen, nil
}

// beginsIn is the stream id of a partition in which an epoch begins: that with
// which the partition begins, else the one that is known from an earlier epoch,
// else another.
func (c *Client) beginsIn(ctx context.Context, topic string, partition int, span Span, seed *seedRecord) (StreamID, error) {
	id, err := c.firstStream(ctx, topic, partition, span)
	if err != nil {
		return id, err
	}
	var r Record
	if id == (StreamID{}) && seed != nil && seed.Offset < span.End && r.parse(seed.Watermark) == nil {
		id = r.Stream
	}
	if id == (StreamID{}) {
		if _, err := rand.Read(id[:]); err != nil {
			return id, fmt.Errorf("make a stream id: %w", err)
		}
	}
	return id, nil
}

// readTail reads where an epoch stands in one partition. seed is what is known
// of it, or of an older epoch; then this one wrote nothing but, perhaps, its
// first watermark.
func (c *Client) readTail(ctx context.Context, topic string, epoch uint32, partition int, span Span, seed *seedRecord) (*tail, StreamID, error) {
	t := newTail(epoch)
	stream, err := c.firstStream(ctx, topic, partition, span)
	if err != nil {
		return nil, stream, err
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
	if seed.Epoch != epoch {
		return t, stream, nil
	}
	if span.Earliest > max(seed.From, seed.Offset+1) {
		return nil, stream, fmt.Errorf("%w: topic %q partition %d begins at offset %d, needed is %d", ErrTailLost, topic, partition, span.Earliest, seed.Offset+1)
	}
	if err := t.add(&r); err != nil {
		return nil, stream, err
	}
	err = c.scan(ctx, topic, partition, max(seed.From, span.Earliest), span.End, func(offset int64, _, value []byte) error {
		if err := r.parse(value); err != nil {
			return err
		}
		r.Offset = offset
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
