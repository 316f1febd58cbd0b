package topic

import (
	"fmt"

	"github.com/millrace-io/millrace/activities/change"
)

// seeds is where an epoch stands in a topic.
type seeds struct {
	lsn, end change.LSN
	micros   int64
	tables   map[uint32]seedTable
}

type seedTable struct {
	partition int
	// last is the last change that is in the topic; complete the last of a
	// transaction that is.
	last, complete change.Position
}

// tail is what the end of one partition says about an epoch. Records are added
// in the order of their offsets, from behind a full watermark or from where
// the epoch began.
type tail struct {
	epoch  uint32
	mark   Watermark
	tables map[uint32]*tailTable
}

type tailTable struct {
	last, named change.Position
	// ends are the last changes of the transactions beyond mark.
	ends []change.Position
}

func newTail(epoch uint32) *tail {
	return &tail{epoch: epoch, tables: make(map[uint32]*tailTable)}
}

func (t *tail) table(oid uint32) *tailTable {
	s := t.tables[oid]
	if s == nil {
		s = &tailTable{}
		t.tables[oid] = s
	}
	return s
}

// add takes a record. [ErrFenced] when it is of a later epoch.
func (t *tail) add(r *Record) error {
	switch r.Kind {
	case KindWatermark:
		return t.watermark(&r.Watermark)
	case KindData:
		if r.Data.Last.Epoch > t.epoch {
			return fenced(r.Data.Last.Epoch, t.epoch)
		}
		if r.Data.Last.Epoch == t.epoch {
			t.data(&r.Data)
		}
	}
	return nil
}

func fenced(later, own uint32) error {
	return fmt.Errorf("%w: epoch %d, and this is of epoch %d", ErrFenced, later, own)
}

func (t *tail) watermark(w *Watermark) error {
	if w.Epoch > t.epoch {
		return fenced(w.Epoch, t.epoch)
	}
	if w.Epoch < t.epoch {
		return nil
	}
	for _, m := range w.Tables {
		s := t.table(m.OID)
		s.named = later(s.named, m.Last)
		s.last = later(s.last, m.Last)
	}
	if w.LSN < t.mark.LSN || w.EndLSN < t.mark.EndLSN {
		return nil
	}
	t.mark = *w
	t.mark.Tables = nil
	for _, s := range t.tables {
		s.prune(w.LSN)
	}
	return nil
}

// prune keeps, of the transactions up to lsn, the last.
func (s *tailTable) prune(lsn change.LSN) {
	n := 0
	for n < len(s.ends) && s.ends[n].CommitLSN <= lsn {
		s.named = later(s.named, s.ends[n])
		n++
	}
	s.ends = s.ends[n:]
}

func (t *tail) data(d *Data) {
	s := t.table(d.OID)
	if !s.last.Before(d.Last) {
		return
	}
	for rest := d.Body; len(rest) > 0; {
		seg, next, err := parseSegment(rest)
		if err != nil {
			break // parse has checked it: it does not happen
		}
		rest = next
		end := change.Position{Epoch: t.epoch, CommitLSN: seg.lsn, Ordinal: seg.first + uint64(seg.count) - 1}
		if !s.last.Before(end) {
			continue
		}
		if n := len(s.ends); n > 0 && s.ends[n-1].CommitLSN == end.CommitLSN {
			s.ends[n-1] = end
		} else {
			s.ends = append(s.ends, end)
		}
	}
	s.last = d.Last
}

// joinTails puts the partitions of a topic together. A watermark in one of
// them speaks for all.
func joinTails(tails []*tail) *seeds {
	all := &seeds{tables: make(map[uint32]seedTable)}
	for _, t := range tails {
		if t.mark.LSN >= all.lsn && t.mark.EndLSN >= all.end {
			all.lsn, all.end, all.micros = t.mark.LSN, t.mark.EndLSN, t.mark.Micros
		}
	}
	for i, t := range tails {
		for oid, s := range t.tables {
			s.prune(all.lsn)
			all.tables[oid] = seedTable{partition: i, last: s.last, complete: s.named}
		}
	}
	return all
}
