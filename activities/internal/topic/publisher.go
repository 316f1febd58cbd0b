package topic

import (
	"context"
	"errors"
	"time"

	"github.com/millrace-io/millrace/activities/change"
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
}

// Publisher writes the changes of one slot into a topic. Its methods but
// Durable and Stats are for one goroutine. It retries for ever what may
// succeed later; what cannot comes back from every later call.
type Publisher struct{}

// Publisher opens a publisher. It reads what the topic's tail says about the
// position of every table, so that nothing which is already there is written
// again, and writes a full watermark. ctx is for the opening alone.
func (c *Client) Publisher(ctx context.Context, cfg PublisherConfig) (*Publisher, error) {
	return nil, errors.ErrUnsupported
}

// Schema registers a resolved table, and returns the partition that it has for
// ever. A shape not seen before is written and acknowledged before return. It
// must precede the table's first change of this shape.
func (p *Publisher) Schema(ctx context.Context, t *change.Table) (partition int, err error) {
	return 0, errors.ErrUnsupported
}

// Begin starts a transaction. commitLSN must be above that of the last one.
func (p *Publisher) Begin(commitLSN change.LSN, commitMicros int64, xid uint32) error {
	return errors.ErrUnsupported
}

// Change adds an insert, update or delete to the transaction. oldTuple and
// newTuple are TupleData, nil where absent; they are copied. It blocks while
// both buffers are full: see Ready.
//
// A change beyond the topic's max.message.bytes is [ErrRecordTooLarge]: it
// keeps its ordinal and is left out, so that readers find the gap in this
// table; the publisher may go on.
func (p *Publisher) Change(oid uint32, fp change.Fingerprint, op change.Op, oldTuple, newTuple []byte) error {
	return errors.ErrUnsupported
}

// Truncate adds the truncation of registered tables to the transaction, one
// change each.
func (p *Publisher) Truncate(oids ...uint32) error { return errors.ErrUnsupported }

// Marker adds a token, which reaches every partition after all changes of this
// and earlier transactions.
func (p *Publisher) Marker(token string) error { return errors.ErrUnsupported }

// Commit ends the transaction. endLSN is where its commit record ends.
func (p *Publisher) Commit(endLSN change.LSN) error { return errors.ErrUnsupported }

// Advance says that the WAL before lsn has been read and holds nothing more of
// ours. It is for idle times, between transactions.
func (p *Publisher) Advance(lsn change.LSN) error { return errors.ErrUnsupported }

// Ready waits up to wait until a change can be added without blocking.
func (p *Publisher) Ready(wait time.Duration) bool { return false }

// Err returns the error that ended the publisher, if any.
func (p *Publisher) Err() error { return nil }

// Flush waits until everything up to the last commit is durable.
func (p *Publisher) Flush(ctx context.Context) error { return errors.ErrUnsupported }

// Durable returns what may be confirmed to PostgreSQL: the end LSN of the last
// watermark that every partition has acknowledged. At the opening it is what
// the topic says; zero when this epoch has nothing yet. A slot that was
// confirmed beyond it was moved by others.
func (p *Publisher) Durable() change.LSN { return 0 }

// PublisherStats counts since the opening.
type PublisherStats struct {
	// Changes were accepted; Skipped of them were in the topic already.
	Changes, Skipped int64
	Transactions     int64
	// Records and Bytes were acknowledged, watermarks and markers included;
	// Bytes before compression.
	Records, Bytes int64
	Rounds         int64
	// Retries counts produce requests that were sent again.
	Retries int64
	// Pending is the bytes held in memory that are not acknowledged.
	Pending int64
	// WaitingSince is when the oldest unacknowledged request was first sent;
	// zero when nothing is in flight. LastError is why it was sent again.
	WaitingSince time.Time
	LastError    string
	// Durable is as the method.
	Durable change.LSN
}

// Stats returns the counts. It may be called from any goroutine.
func (p *Publisher) Stats() PublisherStats { return PublisherStats{} }

// Close sends what belongs to complete transactions until ctx ends, and stops
// the publisher. What was not acknowledged is read from WAL again.
func (p *Publisher) Close(ctx context.Context) error { return nil }
