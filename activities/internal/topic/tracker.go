package topic

import (
	"cmp"
	"fmt"
	"math"
	"slices"

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
	// Stream is the partition's id; zero means not known yet.
	Stream StreamID `json:"stream,omitzero"`
}

// Gap is a proof that changes of a table are missing from what was read. It
// is an error. Where reading began too late, reading from an earlier offset
// mends it; otherwise they are missing from the topic.
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
	// Gaps are the tables whose changes are missing. Each is reported once;
	// its records are dropped, and markers wait for it, until Track or Park is
	// called.
	Gaps []*Gap
	// Ended lists the tables of which changes were taken that no longer count:
	// those beyond Complete. They belong to a transaction of an ended epoch, or
	// before a gap, that never became complete. The caller discards them.
	Ended []uint32
}

// Tracker decides what to do with the records of one partition, in the order
// of their offsets, from what was applied. It does no I/O and knows nothing of
// values. It is for one goroutine.
//
// What it takes of a table is every change exactly once and in order. Changes
// may be applied as far as Complete says: then whole transactions alone become
// visible.
type Tracker struct {
	partition int
	stream    StreamID
	epoch     uint32
	next      int64 // the offset that comes next
	tables    map[uint32]*tracked
	mark      Watermark // the furthest
	markAt    int64     // the offset of the last watermark of this epoch, or -1
	// seen bounds the transactions that are proven complete by watermarks read
	// since the last rewind.
	seen    change.Position
	markers []pendingMarker
}

// tracked is the state of one table.
type tracked struct {
	applied change.Position
	taken   change.Position // ≥ applied
	// complete is what a watermark named, ≥ applied.
	complete change.Position
	// prior is the last change before the transaction of taken: complete too,
	// because another transaction of the table follows it.
	prior   change.Position
	pending []pendingRecord
	// held is the offset of the first record that was held, or -1; heldPred is
	// its predecessor.
	held     int64
	heldPred change.Position
	gapAt    int64 // the offset of the watermark that proved a gap, or -1
	parked   bool
}

type pendingRecord struct {
	offset      int64
	first, last change.Position
}

type pendingMarker struct {
	Marker
	offset int64
}

// NewTracker starts at r. The zero Resume knows nothing.
func NewTracker(partition int, r Resume) *Tracker {
	return &Tracker{
		partition: partition,
		stream:    r.Stream,
		epoch:     r.Epoch,
		next:      r.Offset,
		tables:    make(map[uint32]*tracked),
		markAt:    -1,
	}
}

// endOf is behind every change of the transactions up to lsn.
func endOf(epoch uint32, lsn change.LSN) change.Position {
	return change.Position{Epoch: epoch, CommitLSN: lsn, Ordinal: math.MaxUint64}
}

// Track says what of a table was applied, at the start and again after a
// rewind, a copy or a gap; changes taken but not applied are forgotten.
func (t *Tracker) Track(oid uint32, applied change.Position) {
	t.tables[oid] = &tracked{applied: applied, taken: applied, complete: applied, prior: applied, held: -1, gapAt: -1}
}

// Tracked tells whether Track was called for a table.
func (t *Tracker) Tracked(oid uint32) bool { return t.tables[oid] != nil }

// Park drops a table: its records are passed over, and nothing waits for it,
// until Track is called.
func (t *Tracker) Park(oid uint32) {
	t.tables[oid] = &tracked{parked: true, held: -1, gapAt: -1}
}

// Rewind says that records come again from offset, which is where the
// partition begins or what Resume said. What was taken stays taken.
func (t *Tracker) Rewind(offset int64) {
	if offset >= t.next {
		return
	}
	t.next = offset
	t.epoch = 0 // the first record's
	t.markAt = -1
	t.seen = change.Position{}
	t.markers = slices.DeleteFunc(t.markers, func(m pendingMarker) bool { return m.offset >= offset })
	for _, s := range t.tables {
		if s.held >= offset {
			s.held = -1
		}
	}
}

// Admit judges a data record. On Take, the changes at or before after were
// taken before.
func (t *Tracker) Admit(r *Record) (v Verdict, after change.Position) {
	if r.Offset < t.next {
		return Drop, after
	}
	d := &r.Data
	s := t.tables[d.OID]
	if s == nil && d.Last.Epoch >= t.epoch {
		return Ask, after
	}
	t.next = r.Offset + 1
	if t.epoch == 0 {
		t.epoch = d.Last.Epoch
	}
	switch {
	case s == nil, s.parked, s.gapAt >= 0, d.Last.Epoch < t.epoch, !s.taken.Before(d.Last):
		return Drop, s.takenOrZero()
	case d.Last.Epoch > t.epoch, !s.follows(d):
		if s.held < 0 {
			s.held, s.heldPred = r.Offset, d.Pred
		}
		return Hold, s.taken
	}
	after = s.taken
	lsn, before := d.lastTransaction()
	if lsn != after.CommitLSN || d.Last.Epoch != after.Epoch {
		s.prior = later(after, before)
	}
	s.pending = append(s.pending, pendingRecord{offset: r.Offset, first: d.First, last: d.Last})
	s.taken = d.Last
	return Take, after
}

func (s *tracked) takenOrZero() change.Position {
	if s == nil {
		return change.Position{}
	}
	return s.taken
}

// follows tells whether nothing lies between what was taken and d.
func (s *tracked) follows(d *Data) bool {
	if d.Pred.CommitLSN == 0 {
		// The table's first change of its epoch, which it cannot be if one was
		// taken already: ordinal 0 is a copy's.
		return s.taken.Epoch != d.First.Epoch || s.taken.Ordinal == 0 || !s.taken.Before(d.First)
	}
	return d.Pred.Epoch == s.taken.Epoch && !s.taken.Before(d.Pred)
}

func later(a, b change.Position) change.Position {
	if a.Before(b) {
		return b
	}
	return a
}

// OnStream takes a stream id record. [ErrStreamChanged] when it is not the one
// that was known.
func (t *Tracker) OnStream(r *Record) error {
	if r.Offset < t.next {
		return nil
	}
	t.next = r.Offset + 1
	// Whoever made the topic at the same time wrote a second one, which does
	// not count.
	if r.Offset > 0 {
		return nil
	}
	return t.checkStream(r)
}

func (t *Tracker) checkStream(r *Record) error {
	if t.stream == (StreamID{}) {
		t.stream = r.Stream
	}
	if t.stream != r.Stream {
		return fmt.Errorf("%w: partition %d offset %d is of stream %s, not %s", ErrStreamChanged, t.partition, r.Offset, r.Stream, t.stream)
	}
	return nil
}

// OnMarker takes a marker. That of an ended epoch is passed over: whether
// everything before it was applied cannot be told.
func (t *Tracker) OnMarker(r *Record) {
	if r.Offset < t.next {
		return
	}
	t.next = r.Offset + 1
	if r.Marker.Position.Epoch < t.epoch {
		return
	}
	t.markers = append(t.markers, pendingMarker{Marker: r.Marker, offset: r.Offset})
}

// OnWatermark takes a watermark, and tells what it proves. [ErrStreamChanged]
// when it is of another stream.
func (t *Tracker) OnWatermark(r *Record) (Outcome, error) {
	var out Outcome
	w := &r.Watermark
	if r.Offset < t.next {
		return out, nil
	}
	if err := t.checkStream(r); err != nil {
		return out, err
	}
	if w.Epoch < t.epoch {
		t.next = r.Offset + 1
		return out, nil
	}
	for _, m := range w.Tables {
		if t.tables[m.OID] == nil {
			out.Ask = append(out.Ask, m.OID)
		}
	}
	if len(out.Ask) > 0 {
		return out, nil
	}
	t.next = r.Offset + 1
	if w.Epoch > t.epoch {
		t.endEpoch(w.Epoch, r.Offset, &out)
		t.epoch = w.Epoch
	}
	t.advance(r)
	for _, m := range w.Tables {
		s := t.tables[m.OID]
		switch {
		case s == nil || s.parked || s.gapAt >= 0:
		case s.taken.Before(m.Last):
			t.gap(m.OID, s, m.Last, r.Offset, &out)
		default:
			s.complete = later(s.complete, m.Last)
		}
	}
	return out, nil
}

// advance moves the furthest watermark. One from a publisher that was paused
// may be behind it.
func (t *Tracker) advance(r *Record) {
	w := &r.Watermark
	t.markAt = r.Offset
	t.seen = later(t.seen, endOf(w.Epoch, w.LSN))
	if w.Epoch > t.mark.Epoch || w.Epoch == t.mark.Epoch && w.LSN >= t.mark.LSN && w.EndLSN >= t.mark.EndLSN {
		t.mark = *w
		t.mark.Tables = nil
	}
}

// endEpoch discards what never became complete before epoch next.
func (t *Tracker) endEpoch(next uint32, offset int64, out *Outcome) {
	// Whether everything before these was applied cannot be told any more.
	t.markers = slices.DeleteFunc(t.markers, func(m pendingMarker) bool { return t.seen.Before(m.Position) })
	// The epoch is over: what another transaction of its table follows is
	// complete, even if no watermark came.
	t.seen = endOf(t.epoch, math.MaxUint64)
	for oid, s := range t.tables {
		if s.parked || s.gapAt >= 0 || s.taken.Epoch >= next {
			continue
		}
		if s.held >= 0 {
			t.gap(oid, s, s.heldPred, offset, out)
			continue
		}
		t.discard(oid, s, out)
	}
	slices.SortFunc(out.Gaps, func(a, b *Gap) int { return cmp.Compare(a.OID, b.OID) })
	slices.Sort(out.Ended)
}

func (t *Tracker) gap(oid uint32, s *tracked, want change.Position, offset int64, out *Outcome) {
	out.Gaps = append(out.Gaps, &Gap{Partition: t.partition, OID: oid, Have: s.taken, Want: want})
	s.gapAt = offset
	t.discard(oid, s, out)
}

// discard forgets what was taken beyond what is complete.
func (t *Tracker) discard(oid uint32, s *tracked, out *Outcome) {
	upTo := t.completeOf(s)
	if upTo == s.taken {
		return
	}
	out.Ended = append(out.Ended, oid)
	s.taken, s.complete, s.prior = upTo, upTo, upTo
	s.pending = slices.DeleteFunc(s.pending, func(p pendingRecord) bool { return upTo.Before(p.first) })
	if n := len(s.pending); n > 0 && upTo.Before(s.pending[n-1].last) {
		s.pending[n-1].last = upTo
	}
}

func (t *Tracker) completeOf(s *tracked) change.Position {
	if !t.seen.Before(s.prior) {
		return later(s.complete, s.prior)
	}
	return s.complete
}

// Watermark returns the furthest watermark so far, without its tables.
func (t *Tracker) Watermark() Watermark { return t.mark }

// Taken returns the last change of a table that was taken.
func (t *Tracker) Taken(oid uint32) change.Position { return t.tables[oid].takenOrZero() }

// Complete returns the position up to which the changes taken of a table are
// whole transactions. all tells that nothing was taken beyond it.
func (t *Tracker) Complete(oid uint32) (upTo change.Position, all bool) {
	s := t.tables[oid]
	if s == nil {
		return change.Position{}, true
	}
	upTo = t.completeOf(s)
	return upTo, upTo == s.taken
}

// Applied says that the changes of a table up to pos are durable in the lake.
func (t *Tracker) Applied(oid uint32, pos change.Position) {
	s := t.tables[oid]
	if s == nil || s.parked {
		return
	}
	s.applied = later(s.applied, pos)
	s.taken = later(s.taken, pos)
	s.complete = later(s.complete, pos)
	s.prior = later(s.prior, pos)
	n := 0
	for n < len(s.pending) && !pos.Before(s.pending[n].last) {
		n++
	}
	s.pending = slices.Delete(s.pending, 0, n)
}

// Reached returns, once each, the markers before which everything that was
// committed is applied, save in parked tables.
func (t *Tracker) Reached() []Marker {
	if len(t.markers) == 0 {
		return nil
	}
	bound := t.seen
	for _, s := range t.tables {
		switch {
		case s.parked:
		case s.held >= 0 || s.gapAt >= 0:
			return nil
		case len(s.pending) > 0 && !bound.Before(s.pending[0].first):
			// A marker before this change's transaction does not wait for it.
			bound = change.Position{Epoch: s.pending[0].first.Epoch, CommitLSN: s.pending[0].first.CommitLSN}
			bound.CommitLSN--
			bound.Ordinal = math.MaxUint64
		}
	}
	var reached []Marker
	t.markers = slices.DeleteFunc(t.markers, func(m pendingMarker) bool {
		if bound.Before(m.Position) {
			return false
		}
		reached = append(reached, m.Marker)
		return true
	})
	return reached
}

// Resume returns where to go on after a restart.
func (t *Tracker) Resume() Resume {
	r := Resume{Offset: t.next, Epoch: t.epoch, Stream: t.stream}
	if t.markAt >= 0 {
		r.Offset = min(r.Offset, t.markAt)
	}
	for _, s := range t.tables {
		if s.parked {
			continue
		}
		if len(s.pending) > 0 {
			r.Offset = min(r.Offset, s.pending[0].offset)
		}
		if s.held >= 0 {
			r.Offset = min(r.Offset, s.held)
		}
		if s.gapAt >= 0 {
			r.Offset = min(r.Offset, s.gapAt)
		}
	}
	for _, m := range t.markers {
		r.Offset = min(r.Offset, m.offset)
	}
	return r
}
