package topic

import (
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/activities/change"
)

// seeds is where an epoch stands in a topic.
type seeds struct {
	lsn, end change.LSN
	micros   int64
	tables   map[uint32]seedTable
	// from is, by partition, the offset of the first change beyond lsn, or -1;
	// until is the last commit of such a change.
	from  []int64
	until change.LSN
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
	beyond []beyond
}

// beyond is a data record that ends beyond the watermarks so far.
type beyond struct {
	offset int64
	lsn    change.LSN
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
			t.data(r.Offset, &r.Data)
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
	t.prune(w.LSN)
	return nil
}

// prune forgets what only matters beyond lsn.
func (t *tail) prune(lsn change.LSN) {
	for _, s := range t.tables {
		s.prune(lsn)
	}
	t.beyond = slices.DeleteFunc(t.beyond, func(b beyond) bool { return b.lsn <= lsn })
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

func (t *tail) data(offset int64, d *Data) {
	if d.Last.CommitLSN > t.mark.LSN {
		t.beyond = append(t.beyond, beyond{offset, d.Last.CommitLSN})
	}
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
		t.prune(all.lsn)
		all.from = append(all.from, -1)
		if len(t.beyond) > 0 {
			all.from[i] = t.beyond[0].offset
		}
		for _, b := range t.beyond {
			all.until = max(all.until, b.lsn)
		}
		for oid, s := range t.tables {
			all.tables[oid] = seedTable{partition: i, last: s.last, complete: s.named}
		}
	}
	return all
}

// origin knows from where a later publisher has to read: before it, there is
// neither a change beyond this publisher's last watermark nor a watermark that
// is further.
type origin struct {
	// opening is where this publisher began, by partition. It holds for as long
	// as an older one may be ahead.
	opening []int64
	// until is the last commit of the changes that were there already.
	until change.LSN
	// open is where the records of a transaction that is not complete begin, or
	// -1.
	open []int64
}

// newOrigin takes what a publisher found, and the ends of its partitions.
func newOrigin(found *seeds, ends []int64) *origin {
	o := &origin{until: found.until}
	for i, end := range ends {
		if found.from[i] >= 0 {
			end = found.from[i]
		}
		o.opening = append(o.opening, end)
		o.open = append(o.open, -1)
	}
	return o
}

// delivered follows a round; starts has the offset of its first record in each
// partition, or where that would have been.
func (o *origin) delivered(torn bool, starts []int64) {
	for i := range o.open {
		switch {
		case !torn:
			o.open[i] = -1
		case o.open[i] < 0:
			o.open[i] = starts[i]
		}
	}
}

// from returns where to read on behind a watermark at lsn, in partition i at
// offset head, which covers the rounds delivered. ahead tells that this
// publisher is ahead of all others.
func (o *origin) from(i int, head int64, lsn change.LSN, ahead bool) int64 {
	switch {
	case !ahead || lsn < o.until:
		return o.opening[i]
	case o.open[i] >= 0:
		return o.open[i]
	}
	return head
}
