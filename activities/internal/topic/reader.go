package topic

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	defaultMinBytes = 64 << 10
	defaultMaxWait  = 100 * time.Millisecond
	defaultMaxBytes = 4 << 20
	// A partition that had nothing is waited on for longer: the first record
	// ends the wait.
	idleWait = time.Second
)

// ReaderConfig says what to read.
type ReaderConfig struct {
	Topic string
	// From has the offset to start from of each partition; those missing start
	// at the earliest that is kept.
	From map[int]int64
	// MinBytes and MaxWait are how long a broker may wait for more before it
	// answers. Zero means 64 KiB and 100 ms.
	MinBytes int
	MaxWait  time.Duration
	// MaxBytes bounds one answer for one partition. Zero means 4 MiB. A larger
	// batch comes all the same, alone.
	MaxBytes int
}

// Reader reads all partitions of a topic. Its methods but Ends and Stats are
// for one goroutine. Brokers that go away are tried again for ever.
//
// Each partition is fetched by a goroutine of its own, which is at most one
// answer ahead.
type Reader struct {
	c       *Client
	cfg     ReaderConfig
	parts   []*partReader
	out     chan *answer
	current *answer
	cancel  context.CancelFunc
	done    sync.WaitGroup

	mu    sync.Mutex // guards the following
	spans map[int]Span
	stats ReaderStats
	fails map[int]time.Time
}

// partReader is one partition's side of a Reader.
type partReader struct {
	partition int
	free      chan *answer // two answers go round
	seek      chan int64
	turn      uint64 // counts seeks; the caller's
	idle      bool   // the last answer was empty; the fetching goroutine's
}

// answer is the records of one fetch, or what went wrong.
type answer struct {
	from *partReader
	turn uint64
	raw  fetched
	recs []Record
	err  error
}

// Reader opens a reader. [OffsetError] when a partition does not have the
// offset asked for.
func (c *Client) Reader(ctx context.Context, cfg ReaderConfig) (*Reader, error) {
	if cfg.MinBytes == 0 {
		cfg.MinBytes = defaultMinBytes
	}
	if cfg.MaxWait == 0 {
		cfg.MaxWait = defaultMaxWait
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	partitions, _, err := c.layout(ctx, cfg.Topic)
	if err != nil {
		return nil, err
	}
	spans, err := c.spans(ctx, cfg.Topic, partitions)
	if err != nil {
		return nil, err
	}
	r := &Reader{
		c:     c,
		cfg:   cfg,
		out:   make(chan *answer),
		spans: make(map[int]Span),
		fails: make(map[int]time.Time),
	}
	for i, s := range spans {
		s.Next = s.Earliest
		if at, given := cfg.From[i]; given {
			s.Next = at
		}
		if s.Next < s.Earliest || s.Next > s.End {
			return nil, &OffsetError{Topic: cfg.Topic, Partition: i, Offset: s.Next, Earliest: s.Earliest, End: s.End}
		}
		r.spans[i] = s
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel = cancel
	for i := range spans {
		p := &partReader{partition: i, free: make(chan *answer, 2), seek: make(chan int64, 1)}
		p.free <- &answer{from: p}
		p.free <- &answer{from: p}
		r.parts = append(r.parts, p)
		next := r.spans[i].Next
		r.done.Go(func() { r.run(run, p, next) })
	}
	return r, nil
}

// run fetches one partition. After an error that will not go away it waits for
// a Seek.
func (r *Reader) run(ctx context.Context, p *partReader, next int64) {
	var b backoff
	var turn uint64
	stopped := false
	for {
		var a *answer
		for a == nil || stopped {
			free := p.free
			if a != nil {
				free = nil
			}
			select {
			case next = <-p.seek:
				turn++
				stopped = false
			case x := <-free:
				a = x
			case <-ctx.Done():
				return
			}
		}
		select {
		case next = <-p.seek:
			turn++
		default:
		}
		err := r.fetch(ctx, p.partition, next, a)
		for err != nil && !final(err) {
			r.failing(p.partition, err)
			if b.wait(ctx) != nil {
				return
			}
			select {
			case next = <-p.seek:
				turn++
			default:
			}
			err = r.fetch(ctx, p.partition, next, a)
		}
		b = backoff{}
		a.turn, a.err = turn, err
		if err == nil {
			next = a.raw.next
		}
		r.fetched(p.partition, next, a)
		if err == nil && len(a.recs) == 0 {
			p.free <- a
			continue
		}
		stopped = err != nil
		for sent := false; !sent; {
			select {
			case r.out <- a:
				sent = true
			case next = <-p.seek:
				// The answer is of a place that is no longer wanted; Next sees
				// by its turn.
				turn++
				stopped = false
			case <-ctx.Done():
				return
			}
		}
	}
}

// final tells whether an error is for the caller, not for another try.
func final(err error) bool {
	return errors.Is(err, ErrRecord) || errors.Is(err, ErrOffsetLost) || errors.Is(err, ErrOffsetAhead) ||
		errors.Is(err, ErrDenied) || errors.Is(err, ErrTopicMissing)
}

// fetch gets the records at an offset and reads them.
func (r *Reader) fetch(ctx context.Context, partition int, offset int64, a *answer) error {
	a.recs = a.recs[:0]
	q := fetchFrom{
		topic: r.cfg.Topic, partition: partition, offset: offset,
		minBytes: r.cfg.MinBytes, maxBytes: r.cfg.MaxBytes, maxWait: r.cfg.MaxWait,
	}
	if a.from.idle {
		q.minBytes, q.maxWait = 1, max(idleWait, q.maxWait)
	}
	if err := r.c.fetch(ctx, q, &a.raw); err != nil {
		a.from.idle = false
		return r.judge(ctx, partition, offset, err)
	}
	a.from.idle = len(a.raw.recs) == 0
	for i, raw := range a.raw.recs {
		if i < cap(a.recs) {
			a.recs = a.recs[:i+1] // with the memory of its table marks
		} else {
			a.recs = append(a.recs, Record{})
		}
		rec := &a.recs[i]
		rec.Partition, rec.Offset = partition, raw.offset
		if err := rec.parse(a.raw.value(i)); err != nil {
			if i > 0 {
				// What is before it comes first.
				a.recs = a.recs[:i]
				a.raw.next = raw.offset
				return nil
			}
			return fmt.Errorf("read topic %q partition %d offset %d: %w", r.cfg.Topic, partition, raw.offset, err)
		}
	}
	return nil
}

// judge turns an error of a fetch into one of ours.
func (r *Reader) judge(ctx context.Context, partition int, offset int64, err error) error {
	if p := permanent(err); p != nil {
		return fmt.Errorf("read topic %q partition %d: %w", r.cfg.Topic, partition, p)
	}
	if !errors.Is(err, kafka.OffsetOutOfRange) {
		return r.missing(partition, err)
	}
	ctx, cancel := context.WithTimeout(ctx, r.c.timeout)
	defer cancel()
	first, err := r.c.offset(ctx, r.cfg.Topic, partition, kafka.FirstOffset)
	if err != nil {
		return err
	}
	end, err := r.c.offset(ctx, r.cfg.Topic, partition, kafka.LastOffset)
	if err != nil {
		return err
	}
	if offset >= first && offset <= end {
		return kafka.OffsetOutOfRange // it was, for a moment
	}
	return &OffsetError{Topic: r.cfg.Topic, Partition: partition, Offset: offset, Earliest: first, End: end}
}

// missing is ErrTopicMissing when the topic has been missing for a while.
func (r *Reader) missing(partition int, err error) error {
	if !errors.Is(err, kafka.UnknownTopicOrPartition) {
		return err
	}
	r.mu.Lock()
	since := r.fails[partition]
	r.mu.Unlock()
	if !since.IsZero() && time.Since(since) > missingPatience {
		return fmt.Errorf("%w: %q", ErrTopicMissing, r.cfg.Topic)
	}
	return err
}

func (r *Reader) failing(partition int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fails[partition].IsZero() {
		r.fails[partition] = time.Now()
	}
	r.stats.Retries++
	r.stats.LastError = err.Error()
}

func (r *Reader) fetched(partition int, next int64, a *answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.fails, partition)
	s := r.spans[partition]
	s.Next = next
	if a.err == nil {
		s.End = max(s.End, a.raw.high)
		r.stats.Records += int64(len(a.recs))
		r.stats.Bytes += int64(len(a.raw.arena))
	}
	r.spans[partition] = s
}

// Next returns consecutive records of one partition, or none when nothing came
// within wait. They and their bytes are valid until the following Next: Clone
// what has to live longer.
//
// After an error about one partition the others can be read on; that one
// continues with a Seek.
func (r *Reader) Next(ctx context.Context, wait time.Duration) ([]Record, error) {
	if r.current != nil {
		r.current.from.free <- r.current
		r.current = nil
	}
	if r.cancel == nil {
		return nil, ErrClosed
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case a := <-r.out:
			if a.turn != a.from.turn {
				a.from.free <- a
				continue
			}
			if a.err != nil {
				err := a.err
				a.from.free <- a
				return nil, err
			}
			r.current = a
			return a.recs, nil
		case <-t.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Seek continues partition at offset.
func (r *Reader) Seek(partition int, offset int64) {
	p := r.parts[partition]
	p.turn++
	p.seek <- offset
}

// Partitions returns the number of partitions.
func (r *Reader) Partitions() int { return len(r.parts) }

// Span is what a partition holds.
type Span struct {
	// Earliest is the first offset that is kept, as of the opening; End is one
	// past the last.
	Earliest, End int64
	// Next is the offset that the reader fetches next.
	Next int64
}

// Ends returns what each partition held when a broker last answered.
func (r *Reader) Ends() map[int]Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	ends := make(map[int]Span, len(r.spans))
	for p, s := range r.spans {
		ends[p] = s
	}
	return ends
}

// ReaderStats counts since the opening.
type ReaderStats struct {
	// Records and Bytes were fetched, whether or not Next returned them yet.
	Records, Bytes int64
	// Retries counts fetches that failed and were tried again.
	Retries int64
	// WaitingSince is since when fetches of a partition fail; zero when none.
	WaitingSince time.Time
	LastError    string
}

// Stats returns the counts. It may be called from any goroutine.
func (r *Reader) Stats() ReaderStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	for _, since := range r.fails {
		if s.WaitingSince.IsZero() || since.Before(s.WaitingSince) {
			s.WaitingSince = since
		}
	}
	return s
}

// Close stops the reader and waits for its goroutines.
func (r *Reader) Close() error {
	if r.cancel != nil {
		r.cancel()
		r.done.Wait()
		r.cancel = nil
	}
	return nil
}
