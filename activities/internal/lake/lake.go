// Package lake keeps the mirror of source tables as pairs of Delta tables:
//
//	<root>/<database>/<schema>/<table>/history   every change, in order
//	<root>/<database>/<schema>/<table>/latest    the current rows
//
// Data and the position they reach land in one commit, so that whoever applies
// the same changes again drops them. History commits first; latest is a
// materialization of it, and is caught up from it wherever it is behind. What
// was applied, which chunks of a copy are done and whether readers may trust a
// table is all in the tables themselves, in the domains millrace.position,
// millrace.copy and millrace.state.
//
// The package decides nothing about what runs when, and knows neither the
// source nor Kafka.
package lake

import (
	"context"
	"errors"
	"log/slog"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/batch"
)

var (
	// ErrFenced tells that another writer moved the position of a table: the
	// attempt that holds this mirror was replaced and must end. Nothing of the
	// failed call is visible.
	ErrFenced = errors.New("another writer moved the table's position")
	// ErrSchemaIncompatible tells that a table's shape cannot be reached by
	// adding columns. Copying the table again mends it.
	ErrSchemaIncompatible = errors.New("schema change is not additive")
	// ErrCopyGone tells that a copy is not the table's current one.
	ErrCopyGone = errors.New("copy is not current")
	// ErrCopyIncomplete tells that chunks of a copy are missing.
	ErrCopyIncomplete = errors.New("copy has chunks left")
	// ErrNotCopied tells that the table has no complete copy that reaches to
	// the position asked for.
	ErrNotCopied = errors.New("table has no complete copy")
	// ErrRowNotFound tells that latest lacks a row that a change needs: a row of
	// a table without key that was deleted, or the old row whose unchanged
	// values an update keeps. Latest and the source have parted; copying the
	// table again mends it.
	ErrRowNotFound = errors.New("row not found in latest")
	// ErrDisorder tells that history holds changes out of order or twice.
	ErrDisorder = errors.New("history is out of order")
	// ErrUnwritable tells that the lake cannot be written.
	ErrUnwritable = errors.New("lake cannot be written")
)

// Config says where a lake is. Root, IndexDir and Database are required.
type Config struct {
	// Root is the lake's URI, such as file:///var/lib/lake.
	Root string
	// IndexDir is a local directory for key indexes, which are caches: they may
	// be lost. No two processes may share it.
	IndexDir string
	// Database is the name that the tables are filed under.
	Database string
	// Log receives what is worth knowing but fails nothing. Nil means none.
	Log *slog.Logger
	// OpenIndexes bounds how many key indexes are open at once. Zero means 64.
	OpenIndexes int
	// CacheBytes is the memory of one open key index for blocks. Zero means
	// 4 MiB.
	CacheBytes int64
	// FileBytes ends a data file, in encoded bytes. Zero means 256 MiB.
	FileBytes int64
}

// MirrorOptions are the wishes of the fleet file for one table.
type MirrorOptions struct {
	// Casts maps source columns to the names of casts that package pgtype knows.
	Casts map[string]string
}

// Phase is how far a table's mirror has come.
type Phase string

// The phases of a mirror.
const (
	// Waiting: no copy has begun, or the source table is another one than the
	// tables were copied from. Changes go to history alone.
	Waiting Phase = "waiting"
	// Copying: chunks are being written. Changes go to history alone.
	Copying Phase = "copying"
	// CatchingUp: the copy is complete, latest is behind history. CatchUp ends
	// it.
	CatchingUp Phase = "catching-up"
	// Live: latest equals history. Changes go to both.
	Live Phase = "live"
)

// State is what the tables say about themselves.
type State struct {
	Phase Phase
	// Incarnation counts full copies, from 1. Zero means that none has begun.
	Incarnation int64
	// Cut is where the incarnation's snapshot was taken and Epoch the slot's
	// generation then.
	Cut   change.LSN
	Epoch uint32
	// OID is the source table that the incarnation was copied from.
	OID uint32
	// Copy is the id of the incarnation's copy.
	Copy string
	// Chunks and ChunksDone count the copy's chunks; RowsCopied its rows so far.
	Chunks, ChunksDone int
	RowsCopied         int64
}

// Copy is one full copy of a table.
type Copy struct {
	// ID names the copy. A second BeginCopy of the same ID changes nothing.
	ID string
	// Table is the table's shape under the snapshot.
	Table *change.Table
	// Cut is the snapshot's LSN: it holds the transactions whose CommitLSN is
	// below. Epoch is the slot's generation.
	Cut   change.LSN
	Epoch uint32
	// FileNode is the table's file under the snapshot, for the record.
	FileNode uint32
	// Chunks is how many chunks the copy has; zero for an empty plan.
	Chunks int
	// CutMicros is when the snapshot was taken, in microseconds of Unix time.
	CutMicros int64
}

// Committed says what one Commit wrote.
type Committed struct {
	// Rows and Bytes went into history; rows that had been applied before are
	// not counted. Latest tells that latest was written as well.
	Rows, Bytes int64
	Latest      bool
	// Commits and Files count both tables.
	Commits, Files int
}

// Info describes a mirror's tables.
type Info struct {
	// History and Latest are the tables' URIs; Latest is empty where the source
	// table has no identity.
	History, Latest string
	// HistoryRows and LatestRows count live rows; Files and Commits both
	// tables.
	HistoryRows, LatestRows int64
	Files, Commits          int64
}

// Diff says how two contents differ.
type Diff struct {
	// Equal tells that both have the same rows, each as often.
	Equal bool
	// Missing rows are in the first alone, Extra in the second alone, Changed in
	// both with other values; a row that is there more often counts as missing
	// or extra.
	Missing, Extra, Changed int64
	// Keys names up to the limit of differing rows by their key columns, for
	// people, such as "changed id=7". They hold row values: they must not reach
	// a log.
	Keys []string
}

// Open opens the lake of one database and probes that it can be written.
func Open(ctx context.Context, cfg Config) (*Lake, error) { return nil, errors.ErrUnsupported }

// Lake holds the mirrors of one database. It is safe for concurrent use.
type Lake struct{}

// Close closes every key index. No mirror may be used after it.
func (l *Lake) Close() error { return nil }

// Mirror opens the mirror of t, creating what is missing: history, and latest
// unless t has no identity. Each call returns a handle of its own, with its own
// fence; the tables behind it are shared within the process.
func (l *Lake) Mirror(ctx context.Context, t *change.Table, o MirrorOptions) (*Mirror, error) {
	return nil, errors.ErrUnsupported
}

// SourceRows collects the rows that each yields to it, in text or binary, as
// the shape t of m's table, into a temporary directory below dir.
func (l *Lake) SourceRows(ctx context.Context, m *Mirror, dir string, each func(yield func(*change.Tuple) error) error) (*Rows, error) {
	return nil, errors.ErrUnsupported
}

// Rebuild computes m's table from its history: the newest complete incarnation
// and the changes before asOf. The rows as of an LSN are those before ordinal 0
// of it; the rows up to and including a position p are those before After(p).
// Memory is bounded; dir is a directory on local disk.
func (l *Lake) Rebuild(ctx context.Context, m *Mirror, asOf change.Position, dir string) (*Rows, error) {
	return nil, errors.ErrUnsupported
}

// After returns the first position after p.
func After(p change.Position) change.Position {
	p.Ordinal++
	return p
}

// Mirror is a handle on one table's history and latest. One goroutine at a time
// may use a handle, except for WriteChunk.
type Mirror struct{}

// Evolve makes t the table's shape: the following Layout, Stage, Commit and
// WriteChunk know its columns. A column that the tables lack is added, as
// nullable, by the next commit that carries data; one that t lacks stays and is
// NULL from there. Anything else is ErrSchemaIncompatible and changes nothing.
func (m *Mirror) Evolve(ctx context.Context, t *change.Table) error { return errors.ErrUnsupported }

// Layout returns how events of shape t become rows of history. A layout stands
// until the table evolves or a copy begins: Commit tells by ErrFenced when one
// no longer fits. ErrSchemaIncompatible when t cannot be reached by adding
// columns.
func (m *Mirror) Layout(t *change.Table) (*batch.Layout, error) { return nil, errors.ErrUnsupported }

// Stage writes the rows of b to a data file that the next Commit makes visible.
// A transaction larger than memory is staged piece by piece. The caller may
// reset b afterwards.
func (m *Mirror) Stage(ctx context.Context, b *batch.Batch) error { return errors.ErrUnsupported }

// Staged returns how many rows wait for Commit.
func (m *Mirror) Staged() int64 { return 0 }

// Commit makes what was staged and then the rows of b visible in one commit of
// history, less those at or before Applied, and, where the table is live,
// applies them to latest. The last row must end its transaction. upTo is how far
// the table is known to be complete, at least the last row's position; the zero
// Position means just that. Without rows nothing is written.
//
// After ErrFenced nothing of b or of what was staged is visible, and the handle
// is of no use before Refresh. Any other error leaves that open: Refresh tells
// by Applied. b may be nil.
func (m *Mirror) Commit(ctx context.Context, b *batch.Batch, upTo change.Position) (Committed, error) {
	return Committed{}, errors.ErrUnsupported
}

// Applied returns the position that history reached: every change at or before
// it is visible in history. Zero means none.
func (m *Mirror) Applied() change.Position { return change.Position{} }

// LatestApplied returns the position that latest reached. It may be ahead of
// Applied, at the cut of a copy.
func (m *Mirror) LatestApplied() change.Position { return change.Position{} }

// State returns what the tables said when they were last looked at.
func (m *Mirror) State() State { return State{} }

// Refresh looks at the tables again. A handle that was fenced may be used
// again after it.
func (m *Mirror) Refresh(ctx context.Context) error { return errors.ErrUnsupported }

// Info describes the tables as they were last looked at.
func (m *Mirror) Info() Info { return Info{} }

// CatchUp applies history to latest, from latest's position on, whole
// transactions, about maxRows rows of them. After a copy it first puts the
// copied rows into latest and builds the key index; once latest has reached
// history it marks the table live. done tells that nothing was left; until
// then it is to be called again. It may run beside Commit, here or on another
// worker. ErrNotCopied while no copy is complete.
func (m *Mirror) CatchUp(ctx context.Context, maxRows int) (done bool, err error) {
	return false, errors.ErrUnsupported
}

// BeginCopy opens an incarnation for c and returns its number. Changes go to
// history alone until the copy is caught up; latest keeps its rows until then.
// Columns that cannot hold c.Table's values are replaced by others of another
// name. A second call with the same ID changes nothing.
func (m *Mirror) BeginCopy(ctx context.Context, c Copy) (incarnation int64, err error) {
	return 0, errors.ErrUnsupported
}

// WriteChunk writes the rows of one chunk, from 0, of the current copy, in one
// commit. It may be called from many goroutines and workers; a chunk that is
// done already is not written again, and then rows is not called. ErrCopyGone
// when copyID is not the current copy.
func (m *Mirror) WriteChunk(ctx context.Context, copyID string, chunk int, rows func(yield func(*change.Tuple) error) error) (n, bytes int64, err error) {
	return 0, 0, errors.ErrUnsupported
}

// ChunkDone tells which chunks of the current copy are done.
func (m *Mirror) ChunkDone(chunk int) bool { return false }

// FinishCopy ends the copy once all its chunks are done: the table is catching
// up then, or live where it has no latest. ErrCopyIncomplete when chunks are
// left. A second call changes nothing.
func (m *Mirror) FinishCopy(ctx context.Context, copyID string) error { return errors.ErrUnsupported }

// LatestRows collects the current rows of latest and the position they stand
// for, into a temporary directory below dir.
func (m *Mirror) LatestRows(ctx context.Context, dir string) (*Rows, change.Position, error) {
	return nil, change.Position{}, errors.ErrUnsupported
}

// Close gives the handle back. Staged rows are dropped.
func (m *Mirror) Close() error { return nil }
