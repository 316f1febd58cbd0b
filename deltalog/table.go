package deltalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// engineName is what commits and files say of their writer.
const engineName = "Millrace"

// staleAfter is how long the head of a log is believed to be where it was seen.
// After that, versions may have come and their commits have been cleaned away,
// so that the absence of the next commit proves nothing.
const staleAfter = 15 * time.Minute

// Table is a table whose log is followed and written. Its methods may be called
// concurrently; commits of one Table wait for each other.
type Table struct {
	st   store.Store
	now  func() time.Time // by the wall clock
	snap atomic.Pointer[Snapshot]

	mu     sync.Mutex // held while the head moves
	headAt time.Time  // when snap was the head for the last time

	checkpointing sync.Mutex

	upkeep            sync.Mutex // held for the times of the last of these
	vacuumed, cleaned time.Time

	pause time.Duration // settlePause but in tests
}

// CreateOptions say what a table is to be. Schema alone is required.
type CreateOptions struct {
	// Schema holds all columns.
	Schema *schema.Schema
	// PartitionColumns are names of columns of the schema, or nil.
	PartitionColumns []string
	// Name and Description are for people.
	Name        string
	Description string
	// Properties are the table's configuration. Those that need a feature
	// bring it along, as do types.
	Properties map[string]string
	// Features lists features besides those, such as FeatureDomainMetadata.
	// Without any, the protocol is (1,2), which every reader knows.
	Features []string
	// Txns and Domains are part of the first version.
	Txns    []Txn
	Domains []Domain
}

// Create makes a table, whose version is 0. Where there is one already, it
// returns ErrExists.
func Create(ctx context.Context, st store.Store, o CreateOptions) (*Table, error) {
	if o.Schema == nil {
		return nil, fmt.Errorf("create table: %w: no schema", ErrInvalid)
	}
	if err := o.Schema.Validate(); err != nil {
		return nil, fmt.Errorf("create table: %w: %w", ErrInvalid, err)
	}
	l, err := listLog(ctx, st, 0)
	if err != nil {
		return nil, fmt.Errorf("create table: %w", err)
	}
	if !l.empty() {
		return nil, fmt.Errorf("create table in %s: %w", st.URI(), ErrExists)
	}
	t := newTable(st)
	m := &Metadata{
		ID: uuid.NewString(), Name: o.Name, Description: o.Description, Schema: o.Schema,
		PartitionColumns: slices.Clone(o.PartitionColumns), Configuration: maps.Clone(o.Properties),
		CreatedTime: t.now().UnixMilli(),
	}
	if err := m.assignIDs(newPhysicalName); err != nil {
		return nil, fmt.Errorf("create table: %w: %w", ErrInvalid, err)
	}
	p := (&Protocol{MinReader: 1, MinWriter: 2}).withOnly(append(neededFeatures(m), o.Features...))
	t.snap.Store(&Snapshot{st: st, version: -1, base: noCheckpoint, protocol: p, metadata: m})
	_, won, err := t.Commit(ctx, &Commit{
		Operation: "CREATE TABLE", Protocol: p, Metadata: m, Txns: o.Txns, Domains: o.Domains,
	})
	if err != nil {
		return nil, fmt.Errorf("create table: %w", err)
	}
	if !won {
		return nil, fmt.Errorf("create table in %s: %w", st.URI(), ErrExists)
	}
	return t, nil
}

// withOnly returns p when there are no features, and else a protocol of these
// alone: what an old writer version implies is left out.
func (p *Protocol) withOnly(names []string) *Protocol {
	if len(names) == 0 {
		return p
	}
	return (&Protocol{MinReader: 1, MinWriter: 7}).With(names...)
}

// Open opens the newest version of a table, or returns ErrNotTable.
func Open(ctx context.Context, st store.Store) (*Table, error) {
	t := newTable(st)
	s, err := t.load(ctx)
	if err != nil {
		return nil, err
	}
	t.snap.Store(s)
	return t, nil
}

// OpenAt reads one version of a table. One that is not there, or no longer, is
// ErrNoVersion.
func OpenAt(ctx context.Context, st store.Store, v Version) (*Snapshot, error) {
	if v < 0 {
		return nil, fmt.Errorf("version %d: %w", v, ErrNoVersion)
	}
	return load(ctx, st, v)
}

func newTable(st store.Store) *Table {
	return &Table{st: st, now: wallClock, pause: settlePause}
}

// wallClock goes on while the machine sleeps, unlike the monotonic clock.
func wallClock() time.Time { return time.Now().Round(0) }

// load reads the newest version and notes when that was.
func (t *Table) load(ctx context.Context) (*Snapshot, error) {
	at := t.now()
	s, err := load(ctx, t.st, head)
	if err == nil {
		t.headAt = at
	}
	return s, err
}

// Store returns where the table is.
func (t *Table) Store() store.Store { return t.st }

// Snapshot returns the newest version that the Table knows. It reads nothing.
func (t *Table) Snapshot() *Snapshot { return t.snap.Load() }

// Refresh follows the log to its head and returns the newest version.
func (t *Table) Refresh(ctx context.Context) (*Snapshot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refresh(ctx)
}

func (t *Table) refresh(ctx context.Context) (*Snapshot, error) {
	at := t.now()
	if t.stale(at) {
		if err := t.rediscover(ctx); err != nil {
			return nil, err
		}
	}
	old := t.snap.Load()
	s, err := old.follow(ctx, head, -1)
	if err != nil {
		return nil, fmt.Errorf("refresh: %w", err)
	}
	if s.metadata.ID != old.metadata.ID {
		return nil, t.replaced(s)
	}
	t.headAt = at
	return t.publish(t.noticeCheckpoint(ctx, s)), nil
}

// noticeCheckpoint looks, every hundred commits after the newest checkpoint
// known, for one by another writer: what was removed before it need not be kept.
func (t *Table) noticeCheckpoint(ctx context.Context, s *Snapshot) *Snapshot {
	old := t.snap.Load()
	if s.removed == nil || (s.version-s.base.version)/checkpointCommits == (old.version-s.base.version)/checkpointCommits {
		return s
	}
	b, err := t.st.Get(ctx, hintName)
	if err != nil {
		return s
	}
	h, ok := parseHint(b)
	if !ok || h.Version <= s.base.version || h.Version > s.version {
		return s
	}
	c := h.ref()
	c.logBytes = s.logBytes
	return s.withBase(c)
}

func (t *Table) replaced(s *Snapshot) error {
	return fmt.Errorf("table %s: %w: another table, %s, has taken its place", t.snap.Load().metadata.ID, ErrConflict, s.metadata.ID)
}

// stale tells whether the head was seen too long ago to be believed. A clock
// that was set back leaves that open, but for the corrections that are common.
func (t *Table) stale(at time.Time) bool {
	age := at.Sub(t.headAt)
	return age < -time.Minute || age > staleAfter
}

// rediscover lists the log after the newest version known. Where commits were
// cleaned away, the table is read anew.
func (t *Table) rediscover(ctx context.Context) error {
	s := t.snap.Load()
	at := t.now()
	l, err := listLog(ctx, t.st, s.version+1)
	if err != nil {
		return fmt.Errorf("refresh: %w", err)
	}
	// The commits after s need not be those that followed it, unless they go on
	// to the head: see [Table.checkFollows].
	if newest := l.newest(); newest > s.version && (l.first != s.version+1 || l.whole < newest) {
		fresh, err := load(ctx, t.st, head)
		if err != nil {
			return fmt.Errorf("refresh: %w", err)
		}
		if fresh.metadata.ID != s.metadata.ID {
			return t.replaced(fresh)
		}
		t.publish(fresh)
	}
	t.headAt = at
	return nil
}

// publish makes s the newest version known.
func (t *Table) publish(s *Snapshot) *Snapshot {
	if known := t.snap.Load(); known.base.version > s.base.version && known.base.version <= s.version {
		s = s.withBase(known.base)
	}
	t.snap.Store(s)
	return s
}

// withBase returns the snapshot with a newer checkpoint to build on.
func (s *Snapshot) withBase(c checkpointRef) *Snapshot {
	n := *s
	n.base = c
	n.removed = s.removed.since(c.version)
	if n.addedSince < c.version {
		// Who planned on something older has to look at the files.
		n.added, n.addedSince = s.added.since(c.version), c.version
	}
	return &n
}
