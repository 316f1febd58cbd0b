package pgsource

import "errors"

// The classes of what can go wrong with a source. Where something mends it, the
// error in between is an [Error] that says what.
var (
	// ErrUnreachable: no connection, or a server that does not take queries
	// now. Trying again may help.
	ErrUnreachable = errors.New("source unreachable")
	// ErrConfig: the address cannot be used as it is.
	ErrConfig = errors.New("unusable address")
	// ErrAuth: the server refuses the role or its password.
	ErrAuth = errors.New("authentication refused")
	// ErrNoDatabase: the server has no such database.
	ErrNoDatabase = errors.New("no such database")
	// ErrPrivilege: the role may not do what is needed.
	ErrPrivilege = errors.New("missing privilege")
	// ErrVersion: the server is too old to be trusted.
	ErrVersion = errors.New("unsupported server version")
	// ErrWALLevel: wal_level is not logical.
	ErrWALLevel = errors.New("wal_level is not logical")
	// ErrNoFreeSlot: all replication slots or walsenders are taken.
	ErrNoFreeSlot = errors.New("no free replication slot")
	// ErrSlotMissing: the slot does not exist.
	ErrSlotMissing = errors.New("no such replication slot")
	// ErrSlotLost: the server removed WAL that the slot still needed.
	ErrSlotLost = errors.New("replication slot lost")
	// ErrSlotActive: somebody else reads from the slot.
	ErrSlotActive = errors.New("replication slot in use")
	// ErrSuperseded: a later attempt of ours reads from the slot, so this one
	// ends for good.
	ErrSuperseded = errors.New("superseded by a later attempt")
	// ErrPublicationMissing: a publication did not exist when the WAL was
	// written.
	ErrPublicationMissing = errors.New("no such publication")
	// ErrIdentityChanged: another cluster, or another timeline, answers.
	ErrIdentityChanged = errors.New("another database cluster or timeline answers")
	// ErrBlocked: a slot or cut was not made in time because a transaction
	// stays open.
	ErrBlocked = errors.New("blocked by an open transaction")
	// ErrLocked: a lock was not granted in time. Trying again may help.
	ErrLocked = errors.New("lock not granted in time")
	// ErrSnapshotGone: the exported snapshot no longer exists.
	ErrSnapshotGone = errors.New("snapshot gone")
	// ErrRewritten: a table was rewritten or altered since the cut, so its
	// rows as of the cut cannot be read.
	ErrRewritten = errors.New("table changed since the cut")
	// ErrTableGone: the table does not exist.
	ErrTableGone = errors.New("no such table")
	// ErrNoTables: the patterns choose no table.
	ErrNoTables = errors.New("no table matches")
)

// Problem is something that stands in the way of mirroring, in words.
type Problem struct {
	// Code is stable, such as WAL_LEVEL.
	Code string
	// Sentence says what is wrong. It holds no row values and no secrets.
	Sentence string
	// Remedy is the SQL or setting that mends it.
	Remedy string
	// By says who can carry the remedy out: a superuser, the owner of a table,
	// who keeps the server. Diagnose alone fills it in; empty means whoever keeps
	// the fleet file.
	By string
	// Blocking tells that the object cannot be mirrored as it is: the table, or
	// without one the database.
	Blocking bool
	// Table is schema.name and OID its object id; empty and 0 where the problem
	// is the database's.
	Table string
	OID   uint32
}

// Error is a problem as an error. [errors.Is] finds Class and what is in Err.
type Error struct {
	Problem
	Class error
	// Err is what the server or the network said; nil where it said nothing.
	Err error
}

// Error returns the sentence.
func (e *Error) Error() string { return e.Sentence }

// Unwrap returns the class and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Class}
	}
	return []error{e.Class, e.Err}
}
