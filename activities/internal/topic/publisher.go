package topic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/pierrec/lz4/v4"
)

const (
	defaultRecord   = 16 << 10
	defaultInFlight = 16 << 20
	defaultLinger   = 5 * time.Millisecond
	defaultAdvance  = time.Second

	// A round of this size is sent without waiting for more.
	eagerBytes = 1 << 20
	// Requests are filled up to this, which keeps the memory of brokers and
	// readers small.
	batchBytes = 1 << 20
	// A full watermark is due after so much, so that a publisher which starts
	// need not read more.
	fullEveryBytes = 64 << 20
	fullEvery      = time.Hour

	// An older publisher that was paused may still write up to what it held in
	// memory, watermarks included; beyond twice that, this one is ahead of it.
	aheadFactor = 2

	batchSlack = batchHeader + recordFraming + 64
)

// PublisherConfig says what to publish where.
type PublisherConfig struct {
	Topic string
	// Epoch is the generation of the slot, from 1.
	Epoch uint32
	// MaxRecordBytes is where a record of several changes is closed. Zero means
	// 16 KiB.
	MaxRecordBytes int
	// MaxInFlight bounds the changes held in memory, in bytes. Zero means
	// 16 MiB.
	MaxInFlight int
	// Linger is how long a round waits for more before it is sent, and how long
	// a watermark waits for a round to travel with. Zero means 5 ms.
	Linger time.Duration
	// AdvanceEvery bounds how often a watermark is written for WAL that holds
	// no change of ours. Zero means 1 s.
	AdvanceEvery time.Duration
	// Compression of batches: "none" or "lz4". Empty means "none".
	Compression string

	begins bool // see [Client.Begin]
}

// Publisher writes the changes of one slot into a topic. Its methods but
// Durable, Stats and Err are for one goroutine. It retries for ever what may
// succeed later; what cannot comes back from every later call.
//
// Changes go out in rounds: one request is in flight for a partition, and while
// it is, the next round is assembled. When a round is acknowledged everywhere,
// the watermark that says so goes to every partition at the head of the next
// round, or alone.
type Publisher struct {
	c          *Client
	cfg        PublisherConfig
	schemas    *Schemas
	partitions int
	maxBatch   int
	streams    []StreamID
	generation int64

	mu sync.Mutex // guards what follows
	a  *assembler
	// began is when the first record of the round being assembled came.
	began time.Time
	// waiting tells that the sender waits for the end of the transaction.
	waiting bool
	flush   bool
	closing bool // a full watermark is due, the last one
	// idle tells that the sender has nothing to send; dozing that all it has
	// can wait.
	idle, dozing bool
	err          error
	stats        PublisherStats

	wake chan struct{} // for the sender: look again
	room chan struct{} // for the caller: look again

	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup

	durable atomic.Uint64

	// The sender's own.
	spare     *round
	due       *watermark // true, and not yet sent
	dueAt     time.Time
	markedAt  time.Time // when the last watermark was sent
	writers   []*batchWriter
	heads     [][]byte // the watermark's records, by partition
	acked     []int64  // the last offset acknowledged, by partition
	starts    []int64  // where the first record of the job was written, by partition
	origin    *origin
	sent      int // bytes of rounds
	sinceFull int
	seeded    bool
	lastFull  time.Time
	moved     bool // the topic has more than the last full watermark; guarded by mu
}

// Publisher opens a publisher. It reads what the topic's tail says about the
// position of every table, so that nothing which is already there is written
// again, and writes a full watermark. ctx is for the opening alone.
func (c *Client) Publisher(ctx context.Context, cfg PublisherConfig) (*Publisher, error) {
	p, err := c.newPublisher(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open a publisher of topic %q: %w", cfg.Topic, err)
	}
	return p, nil
}

func (c *Client) newPublisher(ctx context.Context, cfg PublisherConfig) (*Publisher, error) {
	if cfg.Epoch == 0 {
		return nil, errors.New("the epoch is zero")
	}
	if cfg.Compression != "" && cfg.Compression != "none" && cfg.Compression != "lz4" {
		return nil, fmt.Errorf("compression %q: want none or lz4", cfg.Compression)
	}
	if cfg.MaxRecordBytes == 0 {
		cfg.MaxRecordBytes = defaultRecord
	}
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = defaultInFlight
	}
	if cfg.Linger == 0 {
		cfg.Linger = defaultLinger
	}
	if cfg.AdvanceEvery == 0 {
		cfg.AdvanceEvery = defaultAdvance
	}
	partitions, _, err := c.layout(ctx, cfg.Topic)
	if err != nil {
		return nil, err
	}
	settings, err := c.settings(ctx, cfg.Topic)
	if err != nil {
		return nil, err
	}
	maxBatch, err := strconv.Atoi(settings["max.message.bytes"])
	if err != nil || maxBatch < 1<<16 {
		maxBatch = 1 << 20 // Kafka's default, less a little
	}
	p := &Publisher{
		c:          c,
		cfg:        cfg,
		partitions: partitions,
		maxBatch:   maxBatch - batchSlack,
		a:          newAssembler(cfg.Epoch, partitions, cfg.MaxRecordBytes, maxBatch-2*batchSlack),
		wake:       make(chan struct{}, 1),
		room:       make(chan struct{}, 1),
		spare:      newRound(partitions),
		heads:      make([][]byte, partitions),
		acked:      make([]int64, partitions),
		starts:     make([]int64, partitions),
	}
	for range partitions {
		w := &batchWriter{}
		if cfg.Compression == "lz4" {
			w.lz = lz4.NewWriter(io.Discard)
			if err := w.lz.Apply(lz4.BlockSizeOption(lz4.Block256Kb), lz4.ChecksumOption(false)); err != nil {
				return nil, fmt.Errorf("set up lz4: %w", err)
			}
		}
		p.writers = append(p.writers, w)
	}
	if p.schemas, err = c.LoadSchemas(ctx, cfg.Topic); err != nil {
		return nil, err
	}
	if p.generation, err = p.schemas.claim(ctx); err != nil {
		return nil, err
	}
	spans, err := c.spans(ctx, cfg.Topic, partitions)
	if err != nil {
		return nil, err
	}
	at, streams, err := p.schemas.stand(ctx, cfg.Topic, cfg.Epoch, cfg.begins, spans)
	if err != nil {
		return nil, err
	}
	p.streams = streams
	ends := make([]int64, partitions)
	for i, s := range spans {
		ends[i] = s.End
		p.acked[i] = s.End - 1
	}
	p.origin = newOrigin(at, ends)
	p.a.seed(at)
	p.ctx, p.cancel = context.WithCancel(ctx)
	p.lastFull = time.Now()
	err = p.send(job{mark: p.a.watermark(true)})
	p.cancel()
	if err != nil {
		return nil, err
	}
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	p.done.Go(p.run)
	return p, nil
}

// Schema registers a resolved table, and returns the partition that it has for
// ever. A shape not seen before is written and acknowledged before return. It
// must precede the table's first change of this shape.
func (p *Publisher) Schema(ctx context.Context, t *change.Table) (partition int, err error) {
	if partition, err = p.schemas.put(ctx, t, p.partitions); err != nil {
		return 0, err
	}
	if partition >= p.partitions {
		return 0, fmt.Errorf("%w: table %s is in partition %d of %d", ErrTopicSettings, t, partition, p.partitions)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.a.schema(t.OID, t.Fingerprint, partition)
	return partition, p.err
}

// Begin starts a transaction. A transaction that was not committed is begun
// again, from its first change; one that is in the topic already is skipped.
func (p *Publisher) Begin(commitLSN change.LSN, commitMicros int64, xid uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	return p.a.begin(commitLSN, commitMicros, xid)
}

// Change adds an insert, update or delete to the transaction. oldTuple and
// newTuple are TupleData, nil where absent; they are copied. It blocks while
// both buffers are full: see Ready.
//
// A change beyond the topic's max.message.bytes is [ErrRecordTooLarge]: it
// keeps its ordinal and is left out, so that readers find the gap in this
// table; the publisher may go on.
func (p *Publisher) Change(oid uint32, fp change.Fingerprint, op change.Op, oldTuple, newTuple []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.makeRoom(len(oldTuple) + len(newTuple)); err != nil {
		return err
	}
	before := p.a.round.bytes
	err := p.a.change(oid, fp, op, oldTuple, newTuple)
	p.grown(before)
	return err
}

// makeRoom waits until n bytes fit into the round.
func (p *Publisher) makeRoom(n int) error {
	for p.err == nil && p.a.round.bytes > 0 && p.a.round.bytes+n > p.cfg.MaxInFlight/2 {
		p.signal(p.wake)
		p.mu.Unlock()
		<-p.room
		p.mu.Lock()
	}
	return p.err
}

// grown tells the sender what it has to know.
func (p *Publisher) grown(before int) {
	now := p.a.round.bytes
	if before == 0 && now > 0 {
		p.began = time.Now()
		p.idle = false
		p.signal(p.wake)
	} else if before < eagerBytes && now >= eagerBytes {
		p.signal(p.wake)
	}
}

func (p *Publisher) signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Truncate adds the truncation of registered tables to the transaction, one
// change each.
func (p *Publisher) Truncate(oids ...uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.makeRoom(0); err != nil {
		return err
	}
	before := p.a.round.bytes
	err := p.a.truncate(oids)
	p.grown(before)
	return err
}

// Marker adds a token, which reaches every partition after all changes of this
// and earlier transactions.
func (p *Publisher) Marker(token string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	return p.a.marker(token)
}

// Commit ends the transaction. endLSN is where its commit record ends.
func (p *Publisher) Commit(endLSN change.LSN) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	before := p.a.round.bytes
	if err := p.a.commit(endLSN); err != nil {
		return err
	}
	p.grown(before)
	p.news()
	return nil
}

// news wakes the sender if it sleeps and there is a watermark to write.
func (p *Publisher) news() {
	if p.waiting || p.idle && p.a.dirty || p.dozing && p.a.urgent {
		p.waiting, p.idle, p.dozing = false, false, false
		p.signal(p.wake)
	}
}

// Advance says that the WAL before lsn has been read and holds nothing more of
// ours. It is for idle times, between transactions.
func (p *Publisher) Advance(lsn change.LSN) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	p.a.advance(lsn, time.Now().UnixMicro())
	p.news()
	return nil
}

// Ready waits up to wait until a change of up to a quarter of MaxInFlight can
// be added without blocking, or the publisher has failed. A caller that has
// other things to do while brokers are away asks it before each change.
func (p *Publisher) Ready(wait time.Duration) bool {
	if p.ready() {
		return true
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	for !p.ready() {
		p.signal(p.wake)
		select {
		case <-p.room:
		case <-t.C:
			return false
		}
	}
	return true
}

func (p *Publisher) ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err != nil || p.a.round.bytes <= p.cfg.MaxInFlight/4
}

// Err returns the error that ended the publisher, if any.
func (p *Publisher) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Flush waits until everything up to the last commit is durable.
func (p *Publisher) Flush(ctx context.Context) error {
	for {
		p.mu.Lock()
		err, end, closing := p.err, p.a.mark.EndLSN, p.closing
		p.flush = true
		p.mu.Unlock()
		if err != nil {
			return err
		}
		if p.Durable() >= end && !closing {
			return nil
		}
		p.signal(p.wake)
		select {
		case <-p.room:
		case <-ctx.Done():
			return fmt.Errorf("flush: %w", ctx.Err())
		}
	}
}

// Durable returns what may be confirmed to PostgreSQL: the end LSN of the last
// watermark that every partition has acknowledged. At the opening it is what
// the topic says; zero when this epoch has nothing yet. A slot that was
// confirmed beyond it was moved by others.
func (p *Publisher) Durable() change.LSN { return change.LSN(p.durable.Load()) }

// PublisherStats counts since the opening.
type PublisherStats struct {
	// Changes were accepted; Skipped of them were in the topic already.
	Changes, Skipped int64
	Transactions     int64
	// Records and Bytes were acknowledged, watermarks and markers included;
	// Bytes before compression.
	Records, Bytes int64
	Rounds         int64
	// Retries counts batches that were sent again.
	Retries int64
	// Pending is the bytes held in memory that are not acknowledged.
	Pending int64
	// WaitingSince is when the round that is in flight was first sent; zero
	// when nothing is. LastError is why a batch was last sent again.
	WaitingSince time.Time
	LastError    string
	// Durable is as the method.
	Durable change.LSN
}

// Stats returns the counts. It may be called from any goroutine.
func (p *Publisher) Stats() PublisherStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Changes, s.Skipped, s.Transactions = p.a.changes, p.a.skipped, p.a.transactions
	s.Pending += int64(p.a.round.bytes)
	s.Durable = p.Durable()
	return s
}

// Close sends what belongs to complete transactions until ctx ends, and stops
// the publisher. What was not acknowledged is read from WAL again.
func (p *Publisher) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closing = p.moved // so that the next publisher has nothing to read
	p.mu.Unlock()
	err := p.Flush(ctx)
	p.mu.Lock()
	if p.err == nil {
		p.err = ErrClosed
	}
	p.mu.Unlock()
	p.cancel()
	p.done.Wait()
	p.signal(p.room)
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}
