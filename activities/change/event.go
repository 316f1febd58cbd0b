// Package change is the vocabulary that all stages share: positions, tables,
// tuples and events. It does no I/O and imports nothing of ours.
//
// Tuples are in the format of pgoutput's TupleData:
// https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
package change

import "time"

// Op is what a change did to its row, spelt as Debezium spells it.
type Op byte

// The operations.
const (
	Create   Op = 'c'
	Update   Op = 'u'
	Delete   Op = 'd'
	Read     Op = 'r' // a copied row
	Truncate Op = 't'
)

// Event is one change of one table. Its byte slices are valid only until the
// producer's next event.
type Event struct {
	Table *Table
	Position
	Op Op
	// CommitMicros is the commit time, in microseconds of Unix time.
	CommitMicros int64
	// XID is the top-level transaction id.
	XID uint32
	// Old is the old row: absent (no columns) unless PostgreSQL sent it. For a
	// key change or a delete under IdentityKey it holds the identity columns,
	// all others null; under IdentityFull the whole row.
	Old Tuple
	// New is the row of a create, update or read.
	New Tuple
}

// Micros converts a time to microseconds of Unix time.
func Micros(t time.Time) int64 { return t.UnixMicro() }

// PostgresEpochMicros is 2000-01-01 UTC, where PostgreSQL's timestamps begin,
// in microseconds of Unix time.
const PostgresEpochMicros int64 = 946684800 * 1e6
