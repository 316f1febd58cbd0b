package topic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
)

// fetched is the records of one answer of a broker. It is reused.
type fetched struct {
	arena []byte
	recs  []rawRecord
	// next is the offset behind the last record; high the end of the partition.
	next, high int64
}

// rawRecord is one record within an arena.
type rawRecord struct {
	offset          int64
	key, value, end int // where they begin; value ends at end
}

func (f *fetched) key(i int) []byte   { r := f.recs[i]; return f.arena[r.key:r.value:r.value] }
func (f *fetched) value(i int) []byte { r := f.recs[i]; return f.arena[r.value:r.end:r.end] }

// fetchFrom says what to fetch.
type fetchFrom struct {
	topic              string
	partition          int
	offset             int64
	minBytes, maxBytes int
	maxWait            time.Duration
}

// fetch asks once for the records at an offset and after it; there may be none
// yet. A batch that begins before the offset comes whole: what is before it is
// left out.
func (c *Client) fetch(ctx context.Context, q fetchFrom, f *fetched) error {
	f.arena, f.recs = f.arena[:0], f.recs[:0]
	f.next = q.offset
	ctx, cancel := context.WithTimeout(ctx, c.timeout+q.maxWait)
	defer cancel()
	m, err := c.transport.RoundTrip(ctx, c.addr, &fetch.Request{
		ReplicaID:    -1,
		MaxWaitTime:  int32(q.maxWait.Milliseconds()),
		MinBytes:     int32(q.minBytes),
		MaxBytes:     int32(q.maxBytes),
		SessionID:    -1,
		SessionEpoch: -1,
		Topics: []fetch.RequestTopic{{
			Topic: q.topic,
			Partitions: []fetch.RequestPartition{{
				Partition:          int32(q.partition),
				CurrentLeaderEpoch: -1,
				FetchOffset:        q.offset,
				LogStartOffset:     -1,
				PartitionMaxBytes:  int32(q.maxBytes),
			}},
		}},
	})
	if err != nil {
		return err
	}
	res, ok := m.(*fetch.Response)
	if !ok || len(res.Topics) != 1 || len(res.Topics[0].Partitions) != 1 {
		return errNoAnswer
	}
	if res.ErrorCode != 0 {
		return kafka.Error(res.ErrorCode)
	}
	p := &res.Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		return kafka.Error(p.ErrorCode)
	}
	f.high = p.HighWatermark
	if p.RecordSet.Records == nil {
		return nil
	}
	return f.fill(p.RecordSet.Records, q.offset)
}

func (f *fetched) fill(records protocol.RecordReader, from int64) error {
	var bad error
	for {
		r, err := records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return bad
		}
		if err != nil {
			return err
		}
		if r.Offset < from || bad != nil {
			err = errors.Join(closeBytes(r.Key), closeBytes(r.Value))
		} else {
			raw := rawRecord{offset: r.Offset, key: len(f.arena)}
			err = f.take(r.Key)
			raw.value = len(f.arena)
			err = errors.Join(err, f.take(r.Value))
			raw.end = len(f.arena)
			f.recs = append(f.recs, raw)
			f.next = r.Offset + 1
		}
		if err != nil {
			bad = fmt.Errorf("read the record at offset %d: %w", r.Offset, err)
		}
	}
}

// take copies b to the arena and gives it back.
func (f *fetched) take(b protocol.Bytes) error {
	if b == nil {
		return nil
	}
	at, n := len(f.arena), b.Len()
	if cap(f.arena)-at < n {
		grown := make([]byte, at, max(2*cap(f.arena), at+n, 1<<16))
		copy(grown, f.arena)
		f.arena = grown
	}
	f.arena = f.arena[:at+n]
	_, err := io.ReadFull(b, f.arena[at:])
	return errors.Join(err, b.Close())
}

func closeBytes(b protocol.Bytes) error {
	if b == nil {
		return nil
	}
	return b.Close()
}

// scan reads a partition from an offset to end, trying again where a broker
// does not answer, until ctx ends. f gets each record, whose bytes are its own
// only during the call.
func (c *Client) scan(ctx context.Context, topic string, partition int, from, end int64, f func(offset int64, key, value []byte) error) error {
	var buf fetched
	for from < end {
		err := c.retry(ctx, func(ctx context.Context) error {
			err := c.fetch(ctx, fetchFrom{topic: topic, partition: partition, offset: from, minBytes: 1, maxBytes: 4 << 20, maxWait: 500 * time.Millisecond}, &buf)
			if errors.Is(err, kafka.OffsetOutOfRange) {
				// Retention may have passed over it in between.
				return nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("read topic %q partition %d at offset %d: %w", topic, partition, from, err)
		}
		for i := range buf.recs {
			if buf.recs[i].offset >= end {
				return nil
			}
			if err := f(buf.recs[i].offset, buf.key(i), buf.value(i)); err != nil {
				return fmt.Errorf("read topic %q partition %d at offset %d: %w", topic, partition, buf.recs[i].offset, err)
			}
		}
		if len(buf.recs) > 0 {
			from = buf.next
			continue
		}
		first, err := c.offset(ctx, topic, partition, kafka.FirstOffset)
		if err != nil {
			return err
		}
		last, err := c.offset(ctx, topic, partition, kafka.LastOffset)
		if err != nil {
			return err
		}
		if last < end {
			return &OffsetError{Topic: topic, Partition: partition, Offset: end, Earliest: first, End: last}
		}
		from = max(from, first)
	}
	return nil
}
