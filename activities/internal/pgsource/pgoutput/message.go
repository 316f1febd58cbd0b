// Package pgoutput decodes the messages of PostgreSQL's logical replication
// plugin of that name, protocol version 1, with the tuples as text or binary:
// https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
//
// It checks every length against what is there, allocates for Relation messages
// alone, and opens no connection. Messages of streamed and prepared
// transactions, which begin with version 2, are refused.
package pgoutput

import (
	"errors"

	"github.com/millrace-io/millrace/activities/change"
)

var (
	// ErrMessage is the class of every error about a message's bytes.
	ErrMessage = errors.New("malformed pgoutput message")
	// ErrNoRelation means a change of a table whose Relation message did not
	// come before it.
	ErrNoRelation = errors.New("no Relation message came before")
)

// Kind is the first byte of a message.
type Kind byte

// The kinds of messages. Type and Origin carry nothing that Millrace uses.
const (
	Begin    Kind = 'B'
	Commit   Kind = 'C'
	Relation Kind = 'R'
	Insert   Kind = 'I'
	Update   Kind = 'U'
	Delete   Kind = 'D'
	Truncate Kind = 'T'
	Logical  Kind = 'M'
	Type     Kind = 'Y'
	Origin   Kind = 'O'
)

// What OldKind can be; 0 means that no old tuple was sent.
const (
	OldKey  byte = 'K'
	OldFull byte = 'O'
)

// Message is one decoded message: the fields of its Kind are set, all others
// are zero. Old, New and Content alias the decoded bytes; OIDs is reused by the
// next Decode.
type Message struct {
	Kind Kind

	// FinalLSN is where the commit record begins: in Begin and Commit.
	FinalLSN change.LSN
	// EndLSN is where the commit record ends: in Commit.
	EndLSN change.LSN
	// CommitMicros is the commit time, in microseconds of Unix time: in Begin
	// and Commit.
	CommitMicros int64
	// XID is the top-level transaction: in Begin.
	XID uint32

	// OID is the table: in Insert, Update, Delete and Relation.
	OID uint32
	// OldKind says what Old is: 0, OldKey or OldFull.
	OldKind byte
	// Old and New are TupleData with checked bounds, as [change.Tuple.Parse]
	// reads it.
	Old, New []byte

	// Relation describes a table. Its types and attribute numbers are not
	// resolved; its fingerprint is set.
	Relation *change.Table

	// OIDs are the tables that were truncated together.
	OIDs []uint32
	// Cascade and RestartIdentity are the options of a Truncate.
	Cascade, RestartIdentity bool

	// Prefix and Content are those of a Logical message, LSN its place in the
	// log; Transactional tells that it belongs to the transaction around it.
	Prefix        string
	Content       []byte
	LSN           change.LSN
	Transactional bool
}
