package topic

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/activities/change"
)

// assembler turns changes into records, round by round. It does no I/O.
//
// A round is what is sent while the next one is being assembled. It ends with
// every record closed, so that the watermark that follows it, once it is
// acknowledged, is true.
type assembler struct {
	epoch      uint32
	partitions int
	maxRecord  int // where a record is closed, in bytes
	maxChange  int // the largest record, in bytes

	tables  map[uint32]*table
	last    *table // the table of the last change
	round   *round
	open    []*table // those with a record in the round
	records []*openRecord
	moved   []*table // those that moved since the last watermark

	// The transaction.
	inTx    bool
	skip    bool // it is in the topic already
	lsn     change.LSN
	micros  int64
	xid     uint32
	seq     uint64 // numbers transactions, repeated ones too
	touched []*table
	markers []string
	wrote   bool

	// mark is the last complete transaction; dirty that no watermark says so,
	// urgent that there is something to see behind it.
	mark          Watermark
	dirty, urgent bool

	changes, skipped, transactions int64
}

// table is what a publisher knows of one table.
type table struct {
	oid       uint32
	partition int
	shape     change.Fingerprint
	shapes    map[change.Fingerprint]bool
	// last is the last change that was published, in this epoch.
	last change.Position
	// complete is the last of a complete transaction.
	complete change.Position
	moved    bool
	seq      uint64
	ordinal  uint64
	rec      *openRecord
	recShape change.Fingerprint
}

// batch is records of one partition, one after another.
type batch struct {
	bytes []byte
	ends  []int
}

func (b *batch) add(rec []byte) {
	b.bytes = append(b.bytes, rec...)
	b.ends = append(b.ends, len(b.bytes))
}

func (b *batch) reset() { b.bytes, b.ends = b.bytes[:0], b.ends[:0] }

// record returns the i-th record.
func (b *batch) record(i int) []byte {
	if i == 0 {
		return b.bytes[:b.ends[0]]
	}
	return b.bytes[b.ends[i-1]:b.ends[i]]
}

// round is the records of all partitions.
type round struct {
	parts []batch
	bytes int  // of closed and open records
	torn  bool // it ends within a transaction
}

func newRound(partitions int) *round { return &round{parts: make([]batch, partitions)} }

func (r *round) reset() {
	for i := range r.parts {
		r.parts[i].reset()
	}
	r.bytes, r.torn = 0, false
}

// watermark is a watermark as all partitions get it.
type watermark struct {
	Watermark
	tables [][]TableMark // by partition
}

// of returns what partition i gets.
func (w *watermark) of(i int) *Watermark {
	m := w.Watermark
	m.Tables = w.tables[i]
	return &m
}

func newAssembler(epoch uint32, partitions, maxRecord, maxChange int) *assembler {
	return &assembler{
		epoch:      epoch,
		partitions: partitions,
		maxRecord:  maxRecord,
		maxChange:  maxChange,
		tables:     make(map[uint32]*table),
		round:      newRound(partitions),
		mark:       Watermark{Epoch: epoch},
	}
}

// seed says where the tables stand in the topic.
func (a *assembler) seed(s *seeds) {
	a.mark.LSN, a.mark.EndLSN, a.mark.Micros = s.lsn, s.end, s.micros
	for oid, at := range s.tables {
		a.tables[oid] = &table{
			oid:       oid,
			partition: at.partition,
			shapes:    make(map[change.Fingerprint]bool),
			last:      at.last,
			complete:  at.complete,
		}
	}
}

// schema registers a shape of a table.
func (a *assembler) schema(oid uint32, fp change.Fingerprint, partition int) {
	t := a.tables[oid]
	if t == nil {
		t = &table{oid: oid, shapes: make(map[change.Fingerprint]bool)}
		a.tables[oid] = t
	}
	t.partition = partition
	t.shape = fp
	t.shapes[fp] = true
}

func (a *assembler) begin(lsn change.LSN, micros int64, xid uint32) error {
	if lsn == 0 {
		return fmt.Errorf("begin transaction %d: its commit LSN is zero", xid)
	}
	a.inTx, a.skip = true, lsn <= a.mark.LSN
	a.lsn, a.micros, a.xid = lsn, micros, xid
	a.seq++
	a.touched = a.touched[:0]
	a.markers = a.markers[:0]
	a.wrote = false
	return nil
}

// change adds a change, and returns the bytes it took.
func (a *assembler) change(oid uint32, fp change.Fingerprint, op change.Op, oldTuple, newTuple []byte) error {
	if !a.inTx {
		return errNoTransaction
	}
	t := a.last
	if t == nil || t.oid != oid {
		if t = a.tables[oid]; t == nil {
			return fmt.Errorf("change of table %d: it is not registered", oid)
		}
		a.last = t
	}
	if fp != t.shape && !t.shapes[fp] {
		return fmt.Errorf("change of table %d: its shape %s is not registered", oid, fp)
	}
	if t.seq != a.seq {
		t.seq, t.ordinal = a.seq, 0
		a.touched = append(a.touched, t)
	}
	t.ordinal++
	a.changes++
	if a.skip || a.lsn < t.last.CommitLSN || a.lsn == t.last.CommitLSN && t.ordinal <= t.last.Ordinal {
		a.skipped++
		return nil
	}
	a.wrote = true
	size := len(oldTuple) + len(newTuple)
	pos := change.Position{Epoch: a.epoch, CommitLSN: a.lsn, Ordinal: t.ordinal}
	if full := changeSize(oldTuple, newTuple); full > a.maxChange {
		a.seal(t)
		t.last = pos
		return fmt.Errorf("%w: change %s of table %d makes a record of %d bytes, at most %d fit", ErrRecordTooLarge, pos, oid, full, a.maxChange)
	}
	if rec := t.rec; rec != nil && (t.recShape != fp || len(rec.buf)+size+segmentSize+16 > a.maxRecord) {
		a.seal(t)
	}
	if t.rec == nil {
		a.openRecord(t, fp)
	}
	before := len(t.rec.buf)
	t.rec.change(a.lsn, a.micros, a.xid, t.ordinal, op, oldTuple, newTuple)
	a.round.bytes += len(t.rec.buf) - before
	t.last = pos
	return nil
}

var errNoTransaction = errors.New("change outside of a transaction")

func (a *assembler) truncate(oids []uint32) error {
	for _, oid := range oids {
		t := a.tables[oid]
		if t == nil {
			return fmt.Errorf("truncate table %d: it is not registered", oid)
		}
		if err := a.change(oid, t.shape, change.Truncate, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

func (a *assembler) marker(token string) error {
	if !a.inTx {
		return errNoTransaction
	}
	if len(token) > MaxToken {
		return fmt.Errorf("marker of %d bytes, at most %d fit", len(token), MaxToken)
	}
	a.markers = append(a.markers, token)
	return nil
}

func (a *assembler) commit(end change.LSN) error {
	if !a.inTx {
		return errNoTransaction
	}
	if end < a.lsn {
		return fmt.Errorf("commit transaction at %s: it ends at %s", a.lsn, end)
	}
	a.inTx = false
	a.transactions++
	if a.skip {
		return nil
	}
	for _, t := range a.touched {
		pos := change.Position{Epoch: a.epoch, CommitLSN: a.lsn, Ordinal: t.ordinal}
		if t.last.CommitLSN == a.lsn && pos.Before(t.last) {
			return fmt.Errorf("%w: table %d ends its transaction at %s, the topic has %s", ErrDiverged, t.oid, pos, t.last)
		}
		t.complete = later(t.complete, pos)
		if !t.moved {
			t.moved = true
			a.moved = append(a.moved, t)
		}
	}
	if len(a.markers) > 0 {
		a.addMarkers()
	}
	a.mark.LSN, a.mark.Micros = a.lsn, a.micros
	a.mark.EndLSN = max(a.mark.EndLSN, end)
	a.dirty = true
	a.urgent = a.urgent || a.wrote || len(a.touched) > 0
	return nil
}

// addMarkers puts the transaction's markers into every partition, behind all
// changes so far.
func (a *assembler) addMarkers() {
	a.sealAll()
	for _, token := range a.markers {
		rec := appendMarker(nil, &Marker{Token: token, Position: change.Position{Epoch: a.epoch, CommitLSN: a.lsn}})
		for i := range a.round.parts {
			a.round.parts[i].add(rec)
			a.round.bytes += len(rec)
		}
	}
	a.wrote = true
}

// advance says that the WAL before lsn holds nothing more.
func (a *assembler) advance(lsn change.LSN, micros int64) {
	if a.inTx || lsn <= a.mark.EndLSN {
		return
	}
	a.mark.EndLSN, a.mark.Micros = lsn, micros
	a.dirty = true
}

func (a *assembler) openRecord(t *table, fp change.Fingerprint) {
	if n := len(a.records); n > 0 {
		t.rec, a.records = a.records[n-1], a.records[:n-1]
	} else {
		t.rec = &openRecord{}
	}
	pred := t.last
	pred.Epoch = a.epoch
	t.rec.begin(a.epoch, t.oid, fp, pred)
	t.recShape = fp
	a.round.bytes += len(t.rec.buf)
	a.open = append(a.open, t)
}

// seal closes a table's record.
func (a *assembler) seal(t *table) {
	if t.rec == nil {
		return
	}
	a.round.parts[t.partition].add(t.rec.seal())
	if cap(t.rec.buf) <= 4*a.maxRecord {
		a.records = append(a.records, t.rec)
	}
	t.rec = nil
}

func (a *assembler) sealAll() {
	for _, t := range a.open {
		a.seal(t)
	}
	a.open = a.open[:0]
}

// take ends the round and begins another in spare, which is empty.
func (a *assembler) take(spare *round) *round {
	a.sealAll()
	r := a.round
	r.torn = a.inTx && !a.skip
	a.round = spare
	return r
}

// watermark returns what is true once the rounds taken so far are
// acknowledged, or nil when that was said already. A full one is always said.
func (a *assembler) watermark(full bool) *watermark {
	if !a.dirty && !full {
		return nil
	}
	w := &watermark{Watermark: a.mark, tables: make([][]TableMark, a.partitions)}
	w.Full = full
	add := func(t *table) {
		if t.complete.CommitLSN > 0 {
			w.tables[t.partition] = append(w.tables[t.partition], TableMark{OID: t.oid, Last: t.complete})
		}
	}
	for _, t := range a.moved {
		t.moved = false
		if !full {
			add(t)
		}
	}
	if full {
		for _, t := range a.tables {
			add(t)
		}
	}
	a.moved = a.moved[:0]
	a.dirty, a.urgent = false, false
	return w
}
