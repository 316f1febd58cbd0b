// Package topic carries the changes of one database through Kafka: it creates
// and checks topics, frames changes into records, publishes them in rounds,
// and reads them back with the proof that none is missing.
//
// A topic has data records (consecutive changes of one table, as PostgreSQL
// sent them), watermarks (how far the whole database has been read and where
// each table stands), markers, and a stream id. Shapes of tables, and what a
// publisher must know when it starts, live in a compacted topic beside it.
//
// The package speaks its own record format alone. It never interprets values,
// joins no consumer group, uses no Kafka transactions and starts no Temporal
// code. It refuses a topic whose settings could lose acknowledged records.
package topic

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"
)

// Errors that callers tell apart with [errors.Is].
var (
	// ErrUnreachable: no broker answered, or not in time.
	ErrUnreachable = errors.New("no Kafka broker answers")
	// ErrTopicMissing: the topic does not exist.
	ErrTopicMissing = errors.New("topic does not exist")
	// ErrTopicSettings: the topic exists with settings that Millrace refuses.
	ErrTopicSettings = errors.New("topic settings")
	// ErrDenied: the broker refused our credentials or rights.
	ErrDenied = errors.New("access to Kafka was refused")
	// ErrRecordTooLarge: one change is larger than the topic's
	// max.message.bytes.
	ErrRecordTooLarge = errors.New("change is too large for the topic")
	// ErrRecord: a record is not in a format that this release reads.
	ErrRecord = errors.New("malformed record")
	// ErrFenced: a publisher with a later epoch has been here.
	ErrFenced = errors.New("a later epoch has begun in the topic")
	// ErrTailLost: records that a publisher needs to know where the tables
	// stand are gone from the topic.
	ErrTailLost = errors.New("the topic's tail is lost")
	// ErrOffsetLost: the offset asked for is before the first that is kept.
	ErrOffsetLost = errors.New("offset is no longer kept")
	// ErrOffsetAhead: the offset asked for is beyond the end of the partition.
	ErrOffsetAhead = errors.New("offset is beyond the end of the partition")
	// ErrStreamChanged: the partition is not the one that was read before: its
	// topic was deleted and made again.
	ErrStreamChanged = errors.New("partition was made again")
	// ErrSchemaUnknown: no schema record has the fingerprint of a data record.
	ErrSchemaUnknown = errors.New("schema is not in the schemas topic")
	// ErrDiverged: the WAL gives other changes than those that the topic has at
	// the same positions.
	ErrDiverged = errors.New("the WAL differs from what the topic holds")
	// ErrClosed: the publisher or reader was closed.
	ErrClosed = errors.New("closed")
)

// Config says how to reach a Kafka cluster.
type Config struct {
	// Brokers are host:port addresses to start from. At least one.
	Brokers []string
	// TLS is required unless AllowInsecure is set.
	TLS *tls.Config
	// ClientID is what brokers print in their logs. Empty means "millrace".
	ClientID string
	// AllowInsecure permits connections without TLS, to loopback addresses
	// alone.
	AllowInsecure bool
	// Timeout bounds one request to a broker. Zero means 10 seconds.
	Timeout time.Duration
}

// Topic is a topic as it ought to be.
type Topic struct {
	// Name is the topic's name; its schemas are in SchemasTopic(Name).
	Name string
	// Partitions, Replication and MinISR must be at least 1. An existing topic
	// must have exactly these partitions, and at least these replicas.
	Partitions, Replication, MinISR int
	// Retention is how long records are kept. An existing topic must keep them
	// at least as long.
	Retention time.Duration
	// MaxMessageBytes is the largest batch of records, and so the largest
	// change, in bytes. Zero means 16 MiB. An existing topic's own value is
	// taken as it is.
	MaxMessageBytes int
}

// SchemasTopic names the compacted topic that holds the schemas of topic name.
func SchemasTopic(name string) string { return name + ".schemas" }

// SettingError is one setting of a topic that Millrace refuses. It is
// [ErrTopicSettings].
type SettingError struct {
	Topic, Setting string
	Have, Want     string
	// Remedy is a command or sentence that mends it.
	Remedy string
}

// Error names the setting, what it is and what it has to be.
func (e *SettingError) Error() string {
	return fmt.Sprintf("topic %q: %s is %s, want %s: %s", e.Topic, e.Setting, e.Have, e.Want, e.Remedy)
}

// Is reports whether target is ErrTopicSettings.
func (e *SettingError) Is(target error) bool { return target == ErrTopicSettings }

// OffsetError says that a partition does not have the offset asked for. It is
// [ErrOffsetLost] or [ErrOffsetAhead].
type OffsetError struct {
	Topic     string
	Partition int
	// Offset was asked for; the partition has Earliest ≤ offset < End.
	Offset, Earliest, End int64
}

// Error names the partition and its bounds.
func (e *OffsetError) Error() string {
	return fmt.Sprintf("read topic %q partition %d: offset %d is not in [%d, %d)", e.Topic, e.Partition, e.Offset, e.Earliest, e.End)
}

// Is reports whether target is the class of e.
func (e *OffsetError) Is(target error) bool {
	if e.Offset < e.Earliest {
		return target == ErrOffsetLost
	}
	return target == ErrOffsetAhead
}
