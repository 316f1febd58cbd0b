package topic

import (
	"encoding/hex"
	"fmt"

	"github.com/millrace-io/millrace/activities/change"
)

// Kind is what a record is.
type Kind byte

// The kinds of records.
const (
	KindData      Kind = 'D'
	KindWatermark Kind = 'W'
	KindMarker    Kind = 'M'
	KindStream    Kind = 'S'
)

// StreamID is the random name of one partition of one topic as it was made.
// Zero means unknown.
type StreamID [16]byte

// String returns 32 hexadecimal digits.
func (s StreamID) String() string { return hex.EncodeToString(s[:]) }

// MarshalText writes 32 hexadecimal digits.
func (s StreamID) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads 32 hexadecimal digits.
func (s *StreamID) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(s)) {
		return fmt.Errorf("parse stream id: %d characters", len(b))
	}
	if _, err := hex.Decode(s[:], b); err != nil {
		return fmt.Errorf("parse stream id: %w", err)
	}
	return nil
}

// Record is one record of a partition. Kind says which of Data, Watermark,
// Marker and Stream is set.
type Record struct {
	Partition int
	Offset    int64
	Kind      Kind
	Data      Data
	Watermark Watermark
	Marker    Marker
	// Stream is the partition's id, in records of KindStream and KindWatermark.
	Stream StreamID
}

// Data is consecutive changes of one table, of one or more transactions.
type Data struct {
	OID         uint32
	Fingerprint change.Fingerprint
	// Pred is the position of the table's change before First. Its CommitLSN is
	// zero when First is the table's first change of the epoch.
	Pred change.Position
	// First and Last are the positions of the first and last change.
	First, Last change.Position
	// Body is the changes, in the record's format. It aliases the record.
	Body []byte
}

// Watermark says how far the database has been read: every change of every
// transaction up to LSN is in the topic, before this record where it is in the
// same partition.
type Watermark struct {
	Epoch uint32
	// LSN is the commit LSN of the last complete transaction, or 0 when the
	// epoch has had none.
	LSN change.LSN
	// EndLSN is where the WAL that has been read ends: every transaction whose
	// CommitLSN is below it is in the topic.
	EndLSN change.LSN
	// Micros is the commit time of that transaction, in microseconds of Unix
	// time, or when the WAL was read so far if it was idle.
	Micros int64
	// Full tells that Tables has every table of this partition that changed in
	// this epoch; otherwise those that moved since the last watermark.
	Full   bool
	Tables []TableMark
}

// TableMark is where a table stood at a watermark: its last change in a
// complete transaction.
type TableMark struct {
	OID  uint32
	Last change.Position
}

// Marker is a token that was written into the source's WAL. It comes after
// every change that was committed before it.
type Marker struct {
	Token string
	// Position is of the transaction that carried it, with ordinal 0.
	Position change.Position
}

// Clone returns a copy of r that shares no memory with it.
func (r *Record) Clone() Record {
	c := *r
	c.Data.Body = append([]byte(nil), r.Data.Body...)
	c.Watermark.Tables = append([]TableMark(nil), r.Watermark.Tables...)
	return c
}
