package pgsource

import (
	"context"
	"errors"
	"time"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/pgsource/pgoutput"
)

var errTodo = errors.New("not there yet")

type Config struct{ URL, Password, Tag string }
type DB struct{}

func Connect(ctx context.Context, c Config) (*DB, error) { return nil, errTodo }
func (d *DB) Close()                                     {}
func SlotName(db string, epoch uint32) string            { return "" }
func PublicationNames(db string) []string                { return nil }

type System struct {
	ID       string
	Timeline int32
	Version  int
	Database string
	LSN      change.LSN
}

func (d *DB) System(ctx context.Context) (System, error)                      { return System{}, errTodo }
func (s System) Same(id string, timeline int32) error                         { return errTodo }
func (d *DB) Check(ctx context.Context, patterns []string) ([]Problem, error) { return nil, errTodo }
func (d *DB) Tables(ctx context.Context, patterns []string) ([]*change.Table, []Problem, error) {
	return nil, nil, errTodo
}
func (d *DB) Describe(ctx context.Context, oid uint32) (*change.Table, error) { return nil, errTodo }
func (d *DB) Resolve(ctx context.Context, rel *change.Table) (*change.Table, error) {
	return nil, errTodo
}
func (d *DB) EnsurePublications(ctx context.Context, db string, tables []*change.Table) (published []uint32, problems []Problem, err error) {
	return nil, nil, errTodo
}
func (d *DB) DropPublications(ctx context.Context, db string) (dropped, left []string, err error) {
	return nil, nil, errTodo
}

type Slot struct {
	Name               string
	Confirmed, Restart change.LSN
	Active             bool
	ActivePID          int
	WALStatus          string
	SafeWALSize        int64
	Created            bool
}

func (d *DB) EnsureSlot(ctx context.Context, db string, epoch uint32) (Slot, error) {
	return Slot{}, errTodo
}
func (d *DB) Slot(ctx context.Context, name string) (Slot, error)        { return Slot{}, errTodo }
func (d *DB) SlotNames(ctx context.Context, db string) ([]string, error) { return nil, errTodo }
func (d *DB) DropSlot(ctx context.Context, name string) (dropped bool, err error) {
	return false, errTodo
}

type WAL struct {
	Current, Confirmed, Restart change.LSN
	Held                        int64
	Safe                        int64
	Status                      string
}

func (d *DB) WAL(ctx context.Context, slot string) (WAL, error) { return WAL{}, errTodo }

type StreamConfig struct {
	Slot         string
	Publications []string
	Start        change.LSN
	Tag          string
}
type Stream struct{}

func (d *DB) Stream(ctx context.Context, c StreamConfig) (*Stream, error) { return nil, errTodo }
func (s *Stream) Next(m *pgoutput.Message, wait time.Duration) (got bool, err error) {
	return false, errTodo
}
func (s *Stream) Confirm(lsn change.LSN) error { return errTodo }
func (s *Stream) ServerLSN() change.LSN        { return 0 }
func (s *Stream) Close() error                 { return nil }

type Cut struct {
	LSN      change.LSN
	Snapshot string
	System   System
	Micros   int64
}

func (d *DB) Cut(ctx context.Context) (*Cut, error) { return nil, errTodo }
func (c *Cut) Ping(ctx context.Context) error       { return errTodo }
func (c *Cut) Close() error                         { return nil }

type Chunk struct{ Leaf, From, To, FileNode uint32 }

func (d *DB) Plan(ctx context.Context, snapshot string, t *change.Table, chunkBytes int64) ([]Chunk, error) {
	return nil, errTodo
}
func (d *DB) CopyChunk(ctx context.Context, snapshot string, t *change.Table, c Chunk, textCols []bool, yield func(*change.Tuple) error) (rows int64, err error) {
	return 0, errTodo
}
func (d *DB) ReadTable(ctx context.Context, snapshot string, t *change.Table, yield func(*change.Tuple) error) error {
	return errTodo
}
func (d *DB) EmitMarker(ctx context.Context, prefix, content string) (change.LSN, error) {
	return 0, errTodo
}
func (d *DB) Heartbeat(ctx context.Context) error { return errTodo }
