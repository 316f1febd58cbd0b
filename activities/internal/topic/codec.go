package topic

import (
	"encoding/binary"
	"fmt"

	"github.com/millrace-io/millrace/activities/change"
)

// Every record begins with a magic byte, the version of the format and the
// kind. Numbers are big-endian. No checksum: Kafka has one for each batch.
//
//	data:      head, flags u8, epoch u32, oid u32, fingerprint u64,
//	           pred LSN u64, pred ordinal u64, last LSN u64, last ordinal u64,
//	           then segments
//	segment:   commit LSN u64, commit micros i64, first ordinal u64, xid u32,
//	           changes u32, bytes u32, then changes
//	change:    op u8, uvarint length of old, uvarint length of new, old, new
//	watermark: head, flags u8 (1 = full), epoch u32, stream id 16, LSN u64,
//	           end LSN u64, micros i64, tables u32,
//	           then per table: oid u32, LSN u64, ordinal u64
//	marker:    head, flags u8, epoch u32, LSN u64, token
//	stream:    head, flags u8, stream id 16
//
// A segment is the changes of one transaction; those of a data record rise in
// commit LSN.
const (
	magic   = 'm'
	version = 1

	headSize      = 4
	dataSize      = headSize + 4 + 4 + 8 + 8 + 8 + 8 + 8
	dataLastAt    = dataSize - 16
	segmentSize   = 8 + 8 + 8 + 4 + 4 + 4
	watermarkSize = headSize + 4 + 16 + 8 + 8 + 8 + 4
	markSize      = 4 + 8 + 8
	markerSize    = headSize + 4 + 8
	streamSize    = headSize + 16
	minChange     = 3

	flagFull = 1
)

// MaxToken is the longest marker, in bytes.
const MaxToken = 1024

var be = binary.BigEndian

// openRecord is a data record being built. It is reused.
type openRecord struct {
	buf     []byte
	segment int // where the last segment's header begins
	lsn     change.LSN
	ordinal uint64 // of the last change
	count   uint32 // changes in the last segment
}

func (o *openRecord) begin(epoch, oid uint32, fp change.Fingerprint, pred change.Position) {
	b := append(o.buf[:0], magic, version, byte(KindData), 0)
	b = be.AppendUint32(b, epoch)
	b = be.AppendUint32(b, oid)
	b = be.AppendUint64(b, uint64(fp))
	b = be.AppendUint64(b, uint64(pred.CommitLSN))
	b = be.AppendUint64(b, pred.Ordinal)
	b = append(b, make([]byte, 16)...)
	*o = openRecord{buf: b}
}

// change appends one change, opening a segment when it is the first of its
// transaction.
func (o *openRecord) change(lsn change.LSN, micros int64, xid uint32, ordinal uint64, op change.Op, oldTuple, newTuple []byte) {
	if lsn != o.lsn {
		o.endSegment()
		o.segment, o.lsn, o.count = len(o.buf), lsn, 0
		b := be.AppendUint64(o.buf, uint64(lsn))
		b = be.AppendUint64(b, uint64(micros))
		b = be.AppendUint64(b, ordinal)
		b = be.AppendUint32(b, xid)
		o.buf = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	b := append(o.buf, byte(op))
	b = binary.AppendUvarint(b, uint64(len(oldTuple)))
	b = binary.AppendUvarint(b, uint64(len(newTuple)))
	b = append(b, oldTuple...)
	o.buf = append(b, newTuple...)
	o.ordinal = ordinal
	o.count++
}

func (o *openRecord) endSegment() {
	if o.count == 0 {
		return
	}
	be.PutUint32(o.buf[o.segment+28:], o.count)
	be.PutUint32(o.buf[o.segment+32:], uint32(len(o.buf)-o.segment-segmentSize))
}

// seal completes the record and returns its bytes, which o goes on owning.
func (o *openRecord) seal() []byte {
	o.endSegment()
	be.PutUint64(o.buf[dataLastAt:], uint64(o.lsn))
	be.PutUint64(o.buf[dataLastAt+8:], o.ordinal)
	return o.buf
}

// changeSize bounds what a change adds to a record that it is the only one of.
func changeSize(oldTuple, newTuple []byte) int {
	return dataSize + segmentSize + 1 + 2*binary.MaxVarintLen32 + len(oldTuple) + len(newTuple)
}

func appendWatermark(b []byte, stream StreamID, w *Watermark) []byte {
	flags := byte(0)
	if w.Full {
		flags = flagFull
	}
	b = append(b, magic, version, byte(KindWatermark), flags)
	b = be.AppendUint32(b, w.Epoch)
	b = append(b, stream[:]...)
	b = be.AppendUint64(b, uint64(w.LSN))
	b = be.AppendUint64(b, uint64(w.EndLSN))
	b = be.AppendUint64(b, uint64(w.Micros))
	b = be.AppendUint32(b, uint32(len(w.Tables)))
	for _, t := range w.Tables {
		b = be.AppendUint32(b, t.OID)
		b = be.AppendUint64(b, uint64(t.Last.CommitLSN))
		b = be.AppendUint64(b, t.Last.Ordinal)
	}
	return b
}

func appendMarker(b []byte, m *Marker) []byte {
	b = append(b, magic, version, byte(KindMarker), 0)
	b = be.AppendUint32(b, m.Position.Epoch)
	b = be.AppendUint64(b, uint64(m.Position.CommitLSN))
	return append(b, m.Token...)
}

func appendStream(b []byte, s StreamID) []byte {
	b = append(b, magic, version, byte(KindStream), 0)
	return append(b, s[:]...)
}

// parse reads the value of one record into r, save its partition and offset.
// Data bodies alias b; the memory of r's table marks is reused.
func (r *Record) parse(b []byte) error {
	r.Kind, r.Data, r.Marker, r.Stream = 0, Data{}, Marker{}, StreamID{}
	r.Watermark = Watermark{Tables: r.Watermark.Tables[:0]}
	if len(b) < headSize || b[0] != magic {
		return fmt.Errorf("%w: it does not begin as ours do", ErrRecord)
	}
	if b[1] != version {
		return fmt.Errorf("%w: format version %d, this release reads %d", ErrRecord, b[1], version)
	}
	r.Kind = Kind(b[2])
	switch r.Kind {
	case KindData:
		return r.Data.parse(b)
	case KindWatermark:
		return r.parseWatermark(b)
	case KindMarker:
		if len(b) < markerSize || len(b) > markerSize+MaxToken {
			return fmt.Errorf("%w: marker of %d bytes", ErrRecord, len(b))
		}
		r.Marker.Position = change.Position{Epoch: be.Uint32(b[4:]), CommitLSN: change.LSN(be.Uint64(b[8:]))}
		r.Marker.Token = string(b[markerSize:])
	case KindStream:
		if len(b) != streamSize {
			return fmt.Errorf("%w: stream id of %d bytes", ErrRecord, len(b))
		}
		r.Stream = StreamID(b[headSize:])
	default:
		return fmt.Errorf("%w: kind %q", ErrRecord, b[2])
	}
	return nil
}

func (r *Record) parseWatermark(b []byte) error {
	if len(b) < watermarkSize {
		return fmt.Errorf("%w: watermark of %d bytes", ErrRecord, len(b))
	}
	w := &r.Watermark
	w.Full = b[3]&flagFull != 0
	w.Epoch = be.Uint32(b[4:])
	r.Stream = StreamID(b[8:24])
	w.LSN = change.LSN(be.Uint64(b[24:]))
	w.EndLSN = change.LSN(be.Uint64(b[32:]))
	w.Micros = int64(be.Uint64(b[40:]))
	n := int(be.Uint32(b[48:]))
	b = b[watermarkSize:]
	if len(b)%markSize != 0 || n != len(b)/markSize {
		return fmt.Errorf("%w: watermark of %d tables has %d bytes for them", ErrRecord, n, len(b))
	}
	for ; len(b) > 0; b = b[markSize:] {
		m := TableMark{OID: be.Uint32(b), Last: change.Position{
			Epoch:     w.Epoch,
			CommitLSN: change.LSN(be.Uint64(b[4:])),
			Ordinal:   be.Uint64(b[12:]),
		}}
		if m.Last.CommitLSN > w.LSN {
			return fmt.Errorf("%w: watermark at %s names %s", ErrRecord, w.LSN, m.Last)
		}
		w.Tables = append(w.Tables, m)
	}
	return nil
}

func (d *Data) parse(b []byte) error {
	if len(b) < dataSize+segmentSize+minChange {
		return fmt.Errorf("%w: data record of %d bytes", ErrRecord, len(b))
	}
	epoch := be.Uint32(b[4:])
	*d = Data{
		OID:         be.Uint32(b[8:]),
		Fingerprint: change.Fingerprint(be.Uint64(b[12:])),
		Pred:        change.Position{Epoch: epoch, CommitLSN: change.LSN(be.Uint64(b[20:])), Ordinal: be.Uint64(b[28:])},
		Last:        change.Position{Epoch: epoch, CommitLSN: change.LSN(be.Uint64(b[36:])), Ordinal: be.Uint64(b[44:])},
		Body:        b[dataSize:],
	}
	var at change.Position
	for rest := d.Body; len(rest) > 0; {
		s, next, err := parseSegment(rest)
		if err != nil {
			return err
		}
		if s.lsn <= at.CommitLSN {
			return fmt.Errorf("%w: commit %s follows %s", ErrRecord, s.lsn, at.CommitLSN)
		}
		if at.CommitLSN == 0 {
			d.First = change.Position{Epoch: epoch, CommitLSN: s.lsn, Ordinal: s.first}
		}
		at = change.Position{Epoch: epoch, CommitLSN: s.lsn, Ordinal: s.first + uint64(s.count) - 1}
		rest = next
	}
	if at != d.Last {
		return fmt.Errorf("%w: it ends at %s and claims %s", ErrRecord, at, d.Last)
	}
	if !d.Pred.Before(d.First) {
		return fmt.Errorf("%w: predecessor %s of %s", ErrRecord, d.Pred, d.First)
	}
	return nil
}

// lastTransaction returns the commit LSN of d's last segment, and the position
// of the last change before it, zero when there is no other segment.
func (d *Data) lastTransaction() (lsn change.LSN, before change.Position) {
	var end change.Position
	for rest := d.Body; len(rest) > 0; {
		s, next, err := parseSegment(rest)
		if err != nil {
			return lsn, before // parse has checked it: it does not happen
		}
		before = end
		lsn = s.lsn
		end = change.Position{Epoch: d.Last.Epoch, CommitLSN: s.lsn, Ordinal: s.first + uint64(s.count) - 1}
		rest = next
	}
	return lsn, before
}

// segment is the changes of one transaction.
type segment struct {
	lsn    change.LSN
	micros int64
	first  uint64
	xid    uint32
	count  uint32
	body   []byte
}

func parseSegment(b []byte) (s segment, rest []byte, err error) {
	if len(b) < segmentSize {
		return s, nil, fmt.Errorf("%w: segment of %d bytes", ErrRecord, len(b))
	}
	s = segment{
		lsn:    change.LSN(be.Uint64(b)),
		micros: int64(be.Uint64(b[8:])),
		first:  be.Uint64(b[16:]),
		xid:    be.Uint32(b[24:]),
		count:  be.Uint32(b[28:]),
	}
	size := uint64(be.Uint32(b[32:]))
	b = b[segmentSize:]
	if size > uint64(len(b)) || uint64(s.count)*minChange > size || s.count == 0 {
		return s, nil, fmt.Errorf("%w: segment of %d changes in %d bytes, %d remain", ErrRecord, s.count, size, len(b))
	}
	if s.first == 0 || s.first+uint64(s.count) < s.first {
		return s, nil, fmt.Errorf("%w: segment begins at ordinal %d", ErrRecord, s.first)
	}
	s.body = b[:size:size]
	return s, b[size:], nil
}

// Cursor walks the changes of a data record. The zero Cursor is ready for
// Reset; it reuses its memory.
type Cursor struct {
	table *change.Table
	after change.Position
	epoch uint32
	rest  []byte  // segments that follow
	seg   segment // what is left of the current one
	err   error
}

// Reset begins at the first change of d after position after. table is the
// shape that d's fingerprint names.
func (c *Cursor) Reset(d *Data, table *change.Table, after change.Position) {
	*c = Cursor{table: table, after: after, epoch: d.Last.Epoch, rest: d.Body}
	if table.Fingerprint != d.Fingerprint || table.OID != d.OID {
		c.err = fmt.Errorf("%w: table %d %s read as %d %s", ErrRecord, d.OID, d.Fingerprint, table.OID, table.Fingerprint)
	}
}

// Next reads the next change into ev, reusing its memory, and returns false at
// the end or at an error. ev's bytes alias the record.
func (c *Cursor) Next(ev *change.Event) bool {
	for c.err == nil {
		if c.seg.count == 0 {
			if len(c.seg.body) != 0 {
				c.err = fmt.Errorf("%w: %d bytes after the last change of a segment", ErrRecord, len(c.seg.body))
				return false
			}
			if len(c.rest) == 0 {
				return false
			}
			if c.seg, c.rest, c.err = parseSegment(c.rest); c.err != nil {
				return false
			}
			last := change.Position{Epoch: c.epoch, CommitLSN: c.seg.lsn, Ordinal: c.seg.first + uint64(c.seg.count) - 1}
			if !c.after.Before(last) {
				c.seg.count, c.seg.body = 0, nil
				continue
			}
		}
		pos := change.Position{Epoch: c.epoch, CommitLSN: c.seg.lsn, Ordinal: c.seg.first}
		op, oldTuple, newTuple, rest, err := parseChange(c.seg.body)
		if err != nil {
			c.err = fmt.Errorf("change %s: %w", pos, err)
			return false
		}
		c.seg.body = rest
		c.seg.first++
		c.seg.count--
		if !c.after.Before(pos) {
			continue
		}
		ev.Table, ev.Position, ev.Op = c.table, pos, op
		ev.CommitMicros, ev.XID = c.seg.micros, c.seg.xid
		if c.err = c.tuple(&ev.Old, oldTuple); c.err == nil {
			c.err = c.tuple(&ev.New, newTuple)
		}
		if c.err != nil {
			c.err = fmt.Errorf("change %s: %w", pos, c.err)
			return false
		}
		return true
	}
	return false
}

func (c *Cursor) tuple(t *change.Tuple, b []byte) error {
	t.Reset()
	if len(b) == 0 {
		return nil
	}
	rest, err := t.Parse(b)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if len(rest) != 0 || t.Len() != len(c.table.Columns) {
		return fmt.Errorf("%w: a row of %d columns with %d bytes after it, the table has %d", ErrRecord, t.Len(), len(rest), len(c.table.Columns))
	}
	return nil
}

// Err returns the error that ended the walk: it is [ErrRecord].
func (c *Cursor) Err() error { return c.err }

func parseChange(b []byte) (op change.Op, oldTuple, newTuple, rest []byte, err error) {
	if len(b) < minChange {
		return 0, nil, nil, nil, fmt.Errorf("%w: %d bytes", ErrRecord, len(b))
	}
	op = change.Op(b[0])
	n, used := binary.Uvarint(b[1:])
	if used <= 0 {
		return op, nil, nil, nil, fmt.Errorf("%w: length of the old row", ErrRecord)
	}
	m, used2 := binary.Uvarint(b[1+used:])
	if used2 <= 0 {
		return op, nil, nil, nil, fmt.Errorf("%w: length of the row", ErrRecord)
	}
	b = b[1+used+used2:]
	if n > uint64(len(b)) || m > uint64(len(b))-n {
		return op, nil, nil, nil, fmt.Errorf("%w: rows of %d and %d bytes, %d remain", ErrRecord, n, m, len(b))
	}
	oldTuple, newTuple, rest = b[:n:n], b[n:n+m:n+m], b[n+m:]
	ok := false
	switch op {
	case change.Create:
		ok = n == 0 && m > 0
	case change.Update:
		ok = m > 0
	case change.Delete:
		ok = n > 0 && m == 0
	case change.Truncate:
		ok = n == 0 && m == 0
	}
	if !ok {
		return op, nil, nil, nil, fmt.Errorf("%w: operation %q with rows of %d and %d bytes", ErrRecord, byte(op), n, m)
	}
	return op, oldTuple, newTuple, rest, nil
}
