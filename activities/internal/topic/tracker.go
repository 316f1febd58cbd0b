package topic

import (
	"fmt"

	"github.com/millrace-io/millrace/activities/change"
)

// Verdict is what a reader does with a data record.
type Verdict byte

const (
	// Drop: nothing in it has to be applied.
	Drop Verdict = iota
	// Take: its changes after the position returned come next.
	Take
	// Hold: it does not follow what was taken. It is passed over; if what
	// belongs between is missing, a watermark proves it.
	Hold
	// Ask: nothing is known of the table yet: Track it, then Admit again.
	Ask
)

// String returns the verdict's name.
func (v Verdict) String() string { return [...]string{"drop", "take", "hold", "ask"}[v] }

// Resume is where reading a partition goes on after a restart: small, and
// only a hint, for the chain of positions judges it.
type Resume struct {
	// Offset is the first record that is needed.
	Offset int64 `json:"offset"`
	// Epoch is the latest that was seen; 0 means none yet.
	Epoch uint32 `json:"epoch,omitempty"`
	// LSN bounds what may be skipped: every change of every table in the
	// partition up to this commit, in Epoch, was applied.
	LSN change.LSN `json:"lsn,omitempty"`
	// Stream is the partition's id; zero means not known yet.
	Stream StreamID `json:"stream,omitzero"`
}

// Gap is a proof that changes of a table are missing from the topic. It is an
// error.
type Gap struct {
	Partition int
	OID       uint32
	// Have is the last change that was taken; everything up to Want should be.
	Have, Want change.Position
}

// Error names the table and the positions.
func (g *Gap) Error() string {
	return fmt.Sprintf("topic partition %d: changes of table %d are missing between %s and %s", g.Partition, g.OID, g.Have, g.Want)
}

// Outcome is what a watermark proved.
type Outcome struct {
	// Ask lists tables of which nothing is known: Track them, then call
	// OnWatermark again with the same record. Nothing else is set then.
	Ask []uint32
	// Gaps are the tables whose changes are missing. They are reported once;
	// their records are dropped until Track is called again.
	Gaps []*Gap
	// Ended lists the tables that have taken changes of an older epoch beyond
	// what Complete says. These changes are of a transaction that never became
	// complete: the caller discards them.
	Ended []uint32
}

// Tracker decides what to do with the records of one partition, in the order
// of their offsets, from what was applied. It does no I/O and knows nothing of
// values. It is for one goroutine.
type Tracker struct{}

// NewTracker starts at r. The zero Resume knows nothing.
func NewTracker(partition int, r Resume) *Tracker { return &Tracker{} }

// Track says what of a table was applied, at the start and again after a
// rewind, a copy or a gap; changes taken but not applied are forgotten.
func (t *Tracker) Track(oid uint32, applied change.Position) {}

// Admit judges a data record. On Take, the changes at or before after were
// taken before. [ErrRecord] when the record contradicts itself.
func (t *Tracker) Admit(r *Record) (v Verdict, after change.Position, err error) {
	return Drop, after, nil
}

// OnWatermark takes a watermark, and tells what it proves. [ErrStreamChanged]
// when it is of another stream.
func (t *Tracker) OnWatermark(r *Record) (Outcome, error) { return Outcome{}, nil }

// OnStream takes a stream id record.
func (t *Tracker) OnStream(r *Record) error { return nil }

// OnMarker takes a marker.
func (t *Tracker) OnMarker(r *Record) {}

// Watermark returns the furthest watermark so far, without its tables.
func (t *Tracker) Watermark() Watermark { return Watermark{} }

// Taken returns the last change of a table that was taken.
func (t *Tracker) Taken(oid uint32) change.Position { return change.Position{} }

// Complete returns the position up to which the changes taken of a table are
// whole transactions. all tells that nothing was taken beyond it.
func (t *Tracker) Complete(oid uint32) (upTo change.Position, all bool) {
	return change.Position{}, true
}

// Applied says that the changes of a table up to pos are durable in the lake.
func (t *Tracker) Applied(oid uint32, pos change.Position) {}

// Park drops a table: its records are passed over, and nothing waits for it,
// until Track is called.
func (t *Tracker) Park(oid uint32) {}

// Reached returns, once each, the markers before which everything that was
// committed is applied, save in parked tables.
func (t *Tracker) Reached() []Marker { return nil }

// Resume returns where to go on after a restart.
func (t *Tracker) Resume() Resume { return Resume{} }
