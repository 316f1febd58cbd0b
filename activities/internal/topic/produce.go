package topic

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pierrec/lz4/v4"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
)

// Batches are in version 2 of Kafka's format:
// https://kafka.apache.org/documentation/#recordbatch
const (
	batchHeader   = 61
	attributeLZ4  = 3
	recordFraming = 1 + 1 + 5 + 1 + 5 + 1 + 5 // all but the value, at most
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batchWriter frames records into a batch. It is reused.
type batchWriter struct {
	buf   []byte // header and records
	count int
	lz    *lz4.Writer // nil: not compressed
	out   bytes.Buffer
}

func (w *batchWriter) reset() {
	w.buf = append(w.buf[:0], make([]byte, batchHeader)...)
	w.count = 0
}

// size bounds the batch so far, in bytes.
func (w *batchWriter) size() int { return len(w.buf) }

// add appends a record. A nil key or value is none.
func (w *batchWriter) add(key, value []byte) {
	var framing [1 + 1 + binary.MaxVarintLen64 + binary.MaxVarintLen64]byte
	f := append(framing[:0], 0, 0) // attributes, timestamp delta
	f = binary.AppendVarint(f, int64(w.count))
	f = binary.AppendVarint(f, nullable(key))
	size := len(f) + len(key) + varintSize(nullable(value)) + len(value) + 1
	b := binary.AppendVarint(w.buf, int64(size))
	b = append(b, f...)
	b = append(b, key...)
	b = binary.AppendVarint(b, nullable(value))
	b = append(b, value...)
	w.buf = append(b, 0) // headers
	w.count++
}

// nullable is the length of b as Kafka writes it.
func nullable(b []byte) int64 {
	if b == nil {
		return -1
	}
	return int64(len(b))
}

func varintSize(n int64) int {
	var b [binary.MaxVarintLen64]byte
	return binary.PutVarint(b[:], n)
}

// seal completes the batch and returns its bytes, valid until reset.
func (w *batchWriter) seal(now time.Time) ([]byte, error) {
	b := w.buf
	attributes := uint16(0)
	if w.lz != nil {
		w.out.Reset()
		w.out.Write(b[:batchHeader])
		w.lz.Reset(&w.out)
		if _, err := w.lz.Write(b[batchHeader:]); err != nil {
			return nil, fmt.Errorf("compress a batch: %w", err)
		}
		if err := w.lz.Close(); err != nil {
			return nil, fmt.Errorf("compress a batch: %w", err)
		}
		b, attributes = w.out.Bytes(), attributeLZ4
	}
	be.PutUint64(b[0:], 0)
	be.PutUint32(b[8:], uint32(len(b)-12))
	be.PutUint32(b[12:], ^uint32(0)) // leader epoch
	b[16] = 2
	be.PutUint16(b[21:], attributes)
	be.PutUint32(b[23:], uint32(w.count-1))
	be.PutUint64(b[27:], uint64(now.UnixMilli()))
	be.PutUint64(b[35:], uint64(now.UnixMilli()))
	be.PutUint64(b[43:], ^uint64(0)) // no producer id
	be.PutUint16(b[51:], ^uint16(0))
	be.PutUint32(b[53:], ^uint32(0))
	be.PutUint32(b[57:], uint32(w.count))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b, nil
}

// parcel is one batch on its way to one partition.
type parcel struct {
	partition int
	bytes     []byte
	// offset is where the first record was written; err why it was not.
	offset int64
	err    error
}

// produce sends batches to different partitions of a topic, in one request for
// each broker that leads some of them, and waits until every replica in sync
// has them. The outcome of each is in the parcel. After an error the bytes may
// still be read for a while: they must not be reused.
func (c *Client) produce(ctx context.Context, topic string, parcels []*parcel) {
	leaders, err := c.leaders(ctx, topic)
	if err != nil {
		for _, p := range parcels {
			p.err = err
		}
		return
	}
	groups := make(map[int][]*parcel)
	for _, p := range parcels {
		leader, known := leaders[p.partition]
		if !known {
			p.err = kafka.LeaderNotAvailable
			continue
		}
		groups[leader] = append(groups[leader], p)
	}
	var wg sync.WaitGroup
	for _, g := range groups {
		if len(groups) == 1 {
			c.produceTo(ctx, topic, g)
			return
		}
		wg.Go(func() { c.produceTo(ctx, topic, g) })
	}
	wg.Wait()
}

func (c *Client) produceTo(ctx context.Context, topic string, parcels []*parcel) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	parts := make([]rawproduce.RequestPartition, len(parcels))
	for i, p := range parcels {
		parts[i] = rawproduce.RequestPartition{
			Partition: int32(p.partition),
			RecordSet: protocol.RawRecordSet{Reader: &rawBatch{b: p.bytes}},
		}
		p.err = errNoAnswer
	}
	m, err := c.transport.RoundTrip(ctx, c.addr, &rawproduce.Request{
		Acks:    int16(kafka.RequireAll),
		Timeout: int32(c.timeout.Milliseconds()),
		Topics:  []rawproduce.RequestTopic{{Topic: topic, Partitions: parts}},
	})
	if err != nil {
		for _, p := range parcels {
			p.err = err
		}
		return
	}
	res, _ := m.(*produce.Response)
	if res == nil {
		return
	}
	for i := range res.Topics {
		for j := range res.Topics[i].Partitions {
			r := &res.Topics[i].Partitions[j]
			for _, p := range parcels {
				if p.partition == int(r.Partition) {
					p.offset, p.err = r.BaseOffset, nil
					if r.ErrorCode != 0 {
						p.err = kafka.Error(r.ErrorCode)
					}
				}
			}
		}
	}
}

var errNoAnswer = errors.New("the broker did not answer for the partition")

// rawBatch reads a batch with its length in front, as produce requests have it.
type rawBatch struct {
	b    []byte
	head [4]byte
	n    int // bytes read, the length's included
}

func (r *rawBatch) Read(p []byte) (int, error) {
	if r.n >= 4+len(r.b) {
		return 0, io.EOF
	}
	be.PutUint32(r.head[:], uint32(len(r.b)))
	n := 0
	if r.n < 4 {
		n = copy(p, r.head[r.n:])
		r.n += n
	}
	if r.n >= 4 {
		m := copy(p[n:], r.b[r.n-4:])
		r.n += m
		n += m
	}
	return n, nil
}

// WriteTo saves a copy.
func (r *rawBatch) WriteTo(w io.Writer) (int64, error) {
	be.PutUint32(r.head[:], uint32(len(r.b)))
	n, err := w.Write(r.head[:])
	if err == nil {
		var m int
		m, err = w.Write(r.b)
		n += m
	}
	r.n = 4 + len(r.b)
	return int64(n), err
}

// permanent tells whether an error from a broker will not go away by itself,
// and returns it as one of ours.
func permanent(err error) error {
	switch {
	case errors.Is(err, kafka.TopicAuthorizationFailed), errors.Is(err, kafka.ClusterAuthorizationFailed),
		errors.Is(err, kafka.SASLAuthenticationFailed), errors.Is(err, kafka.GroupAuthorizationFailed):
		return fmt.Errorf("%w: %w", ErrDenied, err)
	case errors.Is(err, kafka.MessageSizeTooLarge), errors.Is(err, kafka.RecordListTooLarge):
		return fmt.Errorf("%w: %w", ErrRecordTooLarge, err)
	case errors.Is(err, kafka.InvalidTopic), errors.Is(err, kafka.InvalidRequiredAcks),
		errors.Is(err, kafka.UnsupportedVersion), errors.Is(err, kafka.UnsupportedForMessageFormat),
		errors.Is(err, kafka.PolicyViolation):
		return err
	}
	return nil
}

// backoff is a wait between tries that doubles, with jitter.
type backoff struct{ tries int }

func (b *backoff) wait(ctx context.Context) error {
	d := min(20*time.Millisecond<<min(b.tries, 10), 2*time.Second)
	b.tries++
	d = d/2 + rand.N(d/2)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
