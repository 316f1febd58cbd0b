package topic

import (
	"context"
	"errors"
	"time"
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

// Reader reads all partitions of a topic. Its methods but Ends are for one
// goroutine. Brokers that go away are tried again for ever.
type Reader struct{}

// Reader opens a reader. [OffsetError] when a partition does not have the
// offset asked for.
func (c *Client) Reader(ctx context.Context, cfg ReaderConfig) (*Reader, error) {
	return nil, errors.ErrUnsupported
}

// Next returns consecutive records of one partition, or none when nothing came
// within wait. They and their bytes are valid until the following Next: Clone
// what has to live longer.
func (r *Reader) Next(ctx context.Context, wait time.Duration) ([]Record, error) {
	return nil, errors.ErrUnsupported
}

// Seek continues partition at offset.
func (r *Reader) Seek(ctx context.Context, partition int, offset int64) error {
	return errors.ErrUnsupported
}

// Partitions returns the number of partitions.
func (r *Reader) Partitions() int { return 0 }

// Span is what a partition holds.
type Span struct {
	// Earliest is the first offset that is kept; End is one past the last.
	Earliest, End int64
	// Next is the offset that the reader fetches next.
	Next int64
}

// Ends returns what each partition held when a broker last answered.
func (r *Reader) Ends() map[int]Span { return nil }

// ReaderStats counts since the opening.
type ReaderStats struct {
	Records, Bytes int64
	// Retries counts fetches that failed and were tried again.
	Retries int64
	// WaitingSince is since when fetches of a partition fail; zero when none.
	WaitingSince time.Time
	LastError    string
}

// Stats returns the counts. It may be called from any goroutine.
func (r *Reader) Stats() ReaderStats { return ReaderStats{} }

// Close stops the reader and waits for its goroutines.
func (r *Reader) Close() error { return nil }
