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
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/s3"
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
	// ErrConfig tells that no lake can be at the URI as it is configured.
	ErrConfig = errors.New("lake cannot be opened")
	// ErrUnwritable tells that the lake cannot be written.
	ErrUnwritable = errors.New("lake cannot be written")
)

// Config says where a lake is. Root, IndexDir and Database are required.
type Config struct {
	// Root is the lake's URI, such as file:///var/lib/lake or s3://bucket/prefix.
	Root string
	// Bucket says how a lake at s3:// is reached.
	Bucket Bucket
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
	// CompactBytes is the size that small files are merged to. Zero means
	// FileBytes.
	CompactBytes int64
}

// Bucket says how a bucket is reached and written. What is empty is as AWS's own
// settings in the environment have it.
type Bucket struct {
	// Endpoint is the address of the service, as in https://host:port.
	Endpoint string
	// Region is the bucket's.
	Region string
	// Addressing is where requests name the bucket: path or virtual.
	Addressing string
	// KMSKey encrypts new objects with this key of AWS KMS.
	KMSKey string
	// AccessKey and SecretKey sign the requests; both are given or none.
	AccessKey, SecretKey string
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
	// Live: changes go to both. Should a crash have come between the two
	// commits, LatestApplied is before Applied until CatchUp or the next Commit.
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
	// ID names the copy. A second BeginCopy of the same copy changes nothing.
	ID string
	// Table is the table's shape under the snapshot.
	Table *change.Table
	// Cut is the snapshot's LSN: it holds the transactions whose CommitLSN is
	// below. Epoch is the slot's generation.
	Cut   change.LSN
	Epoch uint32
	// Ground is what the stream rested on under the snapshot. Nil means that it
	// is not known.
	Ground *change.Ground
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

// Lake holds the mirrors of one database. It is safe for concurrent use.
type Lake struct {
	cfg  Config
	root store.Store

	mu     sync.Mutex
	tables map[string]*table // by path below the database's folder
	// opening holds the paths of tables that are being opened or closed, until
	// their channel is closed.
	opening map[string]chan struct{}

	indexes indexes

	// sweeps says when tables were swept, by path; guarded by mu. The first sweeps
	// are within spread after the lake was opened.
	sweeps map[string]time.Time
	opened time.Time
	spread time.Duration
	loose  int // looseFiles but in tests

	readRows int // how many rows of history are read at once; 0 goes by their size
}

// Open opens the lake of one database. Nothing is looked at before the first
// use. An error wraps ErrConfig.
func Open(ctx context.Context, cfg Config) (*Lake, error) {
	st, err := openStore(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return open(cfg, st)
}

func openStore(ctx context.Context, cfg Config) (store.Store, error) {
	if !strings.HasPrefix(cfg.Root, "s3://") {
		return store.OpenURI(cfg.Root)
	}
	o, err := s3.ParseURI(cfg.Root)
	if err != nil {
		return nil, err
	}
	b := cfg.Bucket
	o.Endpoint, o.Region, o.Addressing, o.KMSKey = b.Endpoint, b.Region, s3.Addressing(b.Addressing), b.KMSKey
	if b.AccessKey != "" {
		o.Credentials = s3.StaticKeys(b.AccessKey, b.SecretKey)
	}
	return s3.Open(ctx, o)
}

func open(cfg Config, st store.Store) (*Lake, error) {
	if cfg.Database == "" || cfg.IndexDir == "" {
		return nil, errors.New("open lake: no database or no directory for indexes")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.OpenIndexes <= 0 {
		cfg.OpenIndexes = 64
	}
	if cfg.CacheBytes <= 0 {
		cfg.CacheBytes = 4 << 20
	}
	if cfg.FileBytes <= 0 {
		cfg.FileBytes = 256 << 20
	}
	if cfg.CompactBytes <= 0 {
		cfg.CompactBytes = cfg.FileBytes
	}
	l := &Lake{
		cfg: cfg, root: st, tables: map[string]*table{}, opening: map[string]chan struct{}{},
		sweeps: map[string]time.Time{}, opened: time.Now(), spread: sweepSpread, loose: looseFiles,
	}
	l.indexes.limit = cfg.OpenIndexes
	return l, nil
}

// Probe finds out whether the lake can be written, and whether of two writers of
// one name one alone succeeds, on which every commit rests. An error wraps
// ErrUnwritable.
func (l *Lake) Probe(ctx context.Context) error {
	if err := store.Probe(ctx, l.root); err != nil {
		return fmt.Errorf("%w: %w", ErrUnwritable, err)
	}
	return nil
}

// Close closes every key index. No mirror may be used after it.
func (l *Lake) Close() error {
	l.indexes.closeAll()
	return nil
}

// After returns the first position after p.
func After(p change.Position) change.Position {
	p.Ordinal++
	return p
}
