package topic

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/activities/change"
	"pgregory.net/rapid"
)

// The simulation has a WAL, partitions as lists of records, publishers that
// crash, pause, repeat themselves and read the WAL again with other record
// boundaries, and a reader that restarts anywhere. It runs the same assembler,
// tails, records and tracker as the real publisher and reader do.

// simChange is one change of the WAL; its row says where it is.
type simChange struct {
	oid     uint32
	ordinal uint64
	size    int
}

type simTx struct {
	lsn     change.LSN
	changes []simChange
	marker  string
}

func (tx *simTx) end() change.LSN { return tx.lsn + 3 }

type simWorld struct {
	t          *rapid.T
	epoch      uint32
	wal        map[uint32][]simTx // by epoch
	partitions int
	logs       [][]simRecord
	seeds      map[string]seedRecord
	generation int64
	furthest   map[uint32]change.LSN // that any publisher read
	streams    []StreamID
	lone       bool // one publisher at a time
	publishers []*simPublisher
	ghosts     []simBatch // on their way to a broker, whatever became of the sender
	confirmed  change.LSN // of the current epoch
}

type simRecord struct {
	bytes   []byte
	removed bool
}

type simBatch struct {
	partition int
	records   [][]byte
}

func simTable(oid uint32) *change.Table { return tableOf(oid) }

func simRow(epoch uint32, lsn change.LSN, c simChange) []byte {
	pad := make([]byte, c.size)
	for i := range pad {
		pad[i] = 'x'
	}
	return row(fmt.Sprintf("e%d %s %d", epoch, lsn, c.ordinal), string(pad))
}

func genWAL(t *rapid.T, epoch uint32, tables int) []simTx {
	var wal []simTx
	lsn := change.LSN(rapid.IntRange(1, 50).Draw(t, "first lsn"))
	for i := range rapid.IntRange(1, 14).Draw(t, "transactions") {
		lsn += change.LSN(rapid.IntRange(5, 20).Draw(t, "step"))
		tx := simTx{lsn: lsn}
		ordinals := map[uint32]uint64{}
		most := 6
		if rapid.IntRange(0, 5).Draw(t, "big") == 0 {
			most = 40
		}
		for range rapid.IntRange(0, most).Draw(t, "changes") {
			oid := uint32(rapid.IntRange(1, tables).Draw(t, "table"))
			ordinals[oid]++
			tx.changes = append(tx.changes, simChange{oid: oid, ordinal: ordinals[oid], size: rapid.IntRange(0, 60).Draw(t, "size")})
		}
		if rapid.IntRange(0, 4).Draw(t, "marked") == 0 {
			tx.marker = fmt.Sprintf("m%d-%d", epoch, i)
		}
		wal = append(wal, tx)
	}
	return wal
}

// simPublisher does what Publisher does, one step at a time.
type simPublisher struct {
	w      *simWorld
	epoch  uint32
	a      *assembler
	at     int // the transaction
	inside int // changes of it that were read, -1: not begun
	spare  *round
	due    *watermark
	job    *simJob
	dur    change.LSN

	generation int64
	origin     *origin
}

type simJob struct {
	mark   *watermark
	after  *watermark
	queues [][]simBatch // by partition, in order
	heads  [][]byte
	starts []int64 // where the first record went, -1 while it has not
	round  bool
	torn   bool
}

// start opens a publisher as Client.Publisher does.
func (w *simWorld) start() *simPublisher {
	epoch := w.epoch
	p := &simPublisher{w: w, epoch: epoch, inside: -1, spare: newRound(w.partitions)}
	p.a = newAssembler(epoch, w.partitions, rapid.IntRange(60, 400).Draw(w.t, "max record"), 1<<20)
	w.generation++
	p.generation = w.generation
	known, err := chooseSeeds(w.seeds, epoch, w.partitions)
	if err != nil {
		w.t.Fatal(err)
	}
	tails := make([]*tail, w.partitions)
	var ends []int64
	for i := range tails {
		ends = append(ends, int64(len(w.logs[i])))
		tails[i] = newTail(epoch)
		if known[i] == nil || known[i].Epoch != epoch {
			continue
		}
		var r Record
		if err := errors.Join(r.parse(known[i].Watermark), tails[i].add(&r)); err != nil {
			w.t.Fatal(err)
		}
		for at := int(known[i].From); at < len(w.logs[i]); at++ {
			if w.logs[i][at].removed {
				continue
			}
			if err := r.parse(w.logs[i][at].bytes); err != nil {
				w.t.Fatal(err)
			}
			r.Offset = int64(at)
			if err := tails[i].add(&r); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	at := joinTails(tails)
	p.origin = newOrigin(at, ends)
	p.a.seed(at)
	p.dur = at.end
	if p.dur < w.confirmed {
		w.t.Fatalf("the topic says %s, confirmed was %s", p.dur, w.confirmed)
	}
	for oid := uint32(1); oid <= 4; oid++ {
		p.a.schema(oid, simTable(oid).Fingerprint, assign(oid, w.partitions))
	}
	// PostgreSQL sends what ends behind what was confirmed, or more.
	for p.at < len(w.wal[epoch]) && w.wal[epoch][p.at].end() <= w.confirmed {
		p.at++
	}
	p.at -= rapid.IntRange(0, p.at).Draw(w.t, "read again")
	p.begin(job{mark: p.a.watermark(true)})
	w.publishers = append(w.publishers, p)
	return p
}

// begin queues what a job sends.
func (p *simPublisher) begin(j job) {
	s := &simJob{mark: j.mark, after: j.after, queues: make([][]simBatch, p.w.partitions), heads: make([][]byte, p.w.partitions), round: j.round != nil, torn: j.round != nil && j.round.torn}
	for i := range s.queues {
		s.starts = append(s.starts, -1)
		b := simBatch{partition: i}
		if j.mark != nil {
			s.heads[i] = appendWatermark(nil, p.w.streams[i], j.mark.of(i))
			b.records = append(b.records, s.heads[i])
		}
		if j.round != nil {
			part := &j.round.parts[i]
			for k := range part.ends {
				if len(b.records) >= 3 {
					s.queues[i] = append(s.queues[i], b)
					b = simBatch{partition: i}
				}
				b.records = append(b.records, slices.Clone(part.record(k)))
			}
		}
		if len(b.records) > 0 {
			s.queues[i] = append(s.queues[i], b)
		}
	}
	if j.round != nil {
		j.round.reset()
		p.spare = j.round
	}
	p.job = s
}

// dump prints the partitions.
func (w *simWorld) dump() {
	for i, log := range w.logs {
		for at, rec := range log {
			var r Record
			if err := r.parse(rec.bytes); err != nil {
				w.t.Fatal(err)
			}
			note := ""
			if rec.removed {
				note = " (removed)"
			}
			switch r.Kind {
			case KindData:
				w.t.Logf("%d/%d table %d: %s after %s to %s%s", i, at, r.Data.OID, r.Data.First, r.Data.Pred, r.Data.Last, note)
			case KindWatermark:
				w.t.Logf("%d/%d watermark e%d %s full=%v %v%s", i, at, r.Watermark.Epoch, r.Watermark.LSN, r.Watermark.Full, r.Watermark.Tables, note)
			case KindMarker:
				w.t.Logf("%d/%d marker %v%s", i, at, r.Marker, note)
			}
		}
	}
}

func (w *simWorld) write(b simBatch) int {
	at := len(w.logs[b.partition])
	for _, r := range b.records {
		w.logs[b.partition] = append(w.logs[b.partition], simRecord{bytes: r})
	}
	return at
}

// step does one thing that a publisher may do.
func (p *simPublisher) step() {
	if p.job != nil && rapid.Bool().Draw(p.w.t, "send") {
		p.send()
		return
	}
	if p.job == nil && rapid.IntRange(0, 3).Draw(p.w.t, "take") == 0 {
		p.take()
		return
	}
	p.read()
}

// read takes the next piece of WAL.
func (p *simPublisher) read() {
	wal := p.w.wal[p.epoch]
	if p.at >= len(wal) {
		if p.inside < 0 && len(wal) > 0 {
			p.a.advance(wal[len(wal)-1].end()+2, 0)
		}
		return
	}
	tx := &wal[p.at]
	switch {
	case p.inside < 0:
		p.check(p.a.begin(tx.lsn, int64(tx.lsn), uint32(p.at)))
		if tx.marker != "" {
			p.check(p.a.marker(tx.marker))
		}
		p.inside = 0
	case p.inside < len(tx.changes):
		c := tx.changes[p.inside]
		p.check(p.a.change(c.oid, simTable(c.oid).Fingerprint, change.Create, nil, simRow(p.epoch, tx.lsn, c)))
		p.inside++
	default:
		p.check(p.a.commit(tx.end()))
		p.w.furthest[p.epoch] = max(p.w.furthest[p.epoch], tx.lsn)
		p.at++
		p.inside = -1
	}
}

func (p *simPublisher) check(err error) {
	if err != nil {
		p.w.t.Fatal(err)
	}
}

// take begins a job, as Publisher.next does.
func (p *simPublisher) take() {
	full := rapid.IntRange(0, 5).Draw(p.w.t, "full") == 0
	switch {
	case p.a.round.bytes > 0 && (p.due == nil || rapid.Bool().Draw(p.w.t, "together")):
		j := job{mark: p.due}
		p.due = nil
		j.round = p.a.take(p.spare)
		j.after = p.a.watermark(full)
		p.begin(j)
	case p.due != nil:
		j := job{mark: p.due}
		p.due = nil
		p.begin(j)
	case p.a.round.bytes == 0:
		if w := p.a.watermark(full); w != nil {
			p.begin(job{mark: w})
		}
	}
}

// send writes the next batch of some partition; the broker's answer may be
// lost, and then it is sent again, while the first may arrive once more.
func (p *simPublisher) send() {
	var open []int
	for i, q := range p.job.queues {
		if len(q) > 0 {
			open = append(open, i)
		}
	}
	if len(open) > 0 {
		i := rapid.SampledFrom(open).Draw(p.w.t, "partition")
		b := p.job.queues[i][0]
		switch rapid.IntRange(0, 9).Draw(p.w.t, "answer") {
		case 0: // written, the answer lost
			p.w.write(b)
			return
		case 1: // not written yet, and sent again
			p.w.ghosts = append(p.w.ghosts, b)
			return
		}
		at := p.w.write(b)
		if p.job.starts[i] < 0 {
			p.job.starts[i] = int64(at)
		}
		p.job.queues[i] = p.job.queues[i][1:]
		for _, q := range p.job.queues {
			if len(q) > 0 {
				return
			}
		}
	}
	p.finish()
}

func (p *simPublisher) finish() {
	j := p.job
	p.job = nil
	for i := range j.starts {
		if j.starts[i] < 0 {
			j.starts[i] = int64(len(p.w.logs[i]))
		}
	}
	if j.mark != nil {
		p.dur = max(p.dur, j.mark.EndLSN)
		if p.epoch == p.w.epoch {
			p.w.confirmed = max(p.w.confirmed, p.dur)
		}
		if j.mark.Full {
			ahead := len(p.w.publishers) == 1 && p.w.publishers[0] == p && p.a.mark.LSN >= p.w.furthest[p.epoch]
			for i := range j.heads {
				s := seedRecord{Epoch: p.epoch, Partition: i, Generation: p.generation, From: p.origin.from(i, j.starts[i], j.mark.LSN, ahead), Offset: j.starts[i], Watermark: j.heads[i]}
				p.w.seeds[s.key()] = s
			}
		}
	}
	if j.round {
		p.origin.delivered(j.torn, j.starts)
	}
	if j.after != nil {
		p.due = j.after
	}
}

// drain runs p until everything is sent.
func (p *simPublisher) drain() {
	for p.at < len(p.w.wal[p.epoch]) {
		p.read()
	}
	p.settle()
	p.begin(job{mark: p.a.watermark(true)})
	p.settle()
}

func (p *simPublisher) settle() {
	for p.job != nil || p.due != nil || p.a.round.bytes > 0 || p.a.dirty {
		if p.job != nil {
			for i, q := range p.job.queues {
				for _, b := range q {
					if at := p.w.write(b); p.job.starts[i] < 0 {
						p.job.starts[i] = int64(at)
					}
				}
				p.job.queues[i] = nil
			}
			p.finish()
			continue
		}
		p.take()
	}
}

// simReader is a commit lane over all partitions.
type simReader struct {
	w        *simWorld
	trackers []*Tracker
	next     []int
	buffer   map[uint32][]simApplied // taken, not applied
	lake     map[uint32][]simApplied
	hints    []Resume
	gaps     map[uint32]*Gap
	retried  map[uint32]bool
	reached  []map[string]bool
}

type simApplied struct {
	pos change.Position
	row string
}

func newSimReader(w *simWorld) *simReader {
	r := &simReader{w: w, lake: map[uint32][]simApplied{}, gaps: map[uint32]*Gap{}, retried: map[uint32]bool{}, hints: make([]Resume, w.partitions)}
	for range w.partitions {
		r.reached = append(r.reached, map[string]bool{})
	}
	r.restart(false)
	return r
}

// restart loses everything but the lake and, perhaps, the hints.
func (r *simReader) restart(hints bool) {
	r.trackers, r.next = nil, nil
	r.buffer = map[uint32][]simApplied{}
	for i := range r.w.partitions {
		var h Resume
		if hints {
			h = r.hints[i]
		}
		r.trackers = append(r.trackers, NewTracker(i, h))
		r.next = append(r.next, int(h.Offset))
	}
	for oid := range r.gaps {
		r.trackers[assign(oid, r.w.partitions)].Park(oid)
	}
}

func (r *simReader) applied(oid uint32) change.Position {
	if l := r.lake[oid]; len(l) > 0 {
		return l[len(l)-1].pos
	}
	return change.Position{}
}

// step reads one record of a partition.
func (r *simReader) step(i int) bool {
	log := r.w.logs[i]
	for r.next[i] < len(log) && log[r.next[i]].removed {
		r.next[i]++
	}
	if r.next[i] >= len(log) {
		return false
	}
	tr := r.trackers[i]
	rec := Record{Partition: i, Offset: int64(r.next[i])}
	if err := rec.parse(log[r.next[i]].bytes); err != nil {
		r.w.t.Fatal(err)
	}
	r.next[i]++
	switch rec.Kind {
	case KindStream:
		if err := tr.OnStream(&rec); err != nil {
			r.w.t.Fatal(err)
		}
	case KindMarker:
		tr.OnMarker(&rec)
	case KindData:
		r.data(tr, &rec)
	case KindWatermark:
		r.watermark(i, tr, &rec)
	}
	for _, m := range tr.Reached() {
		r.checkMarker(i, m)
	}
	return true
}

func (r *simReader) data(tr *Tracker, rec *Record) {
	oid := rec.Data.OID
	v, after := tr.Admit(rec)
	if v == Ask {
		tr.Track(oid, r.applied(oid))
		v, after = tr.Admit(rec)
	}
	if v == Ask {
		r.w.t.Fatal("asked twice")
	}
	if v != Take {
		return
	}
	var c Cursor
	var ev change.Event
	c.Reset(&rec.Data, simTable(oid), after)
	for c.Next(&ev) {
		r.buffer[oid] = append(r.buffer[oid], simApplied{ev.Position, string(ev.New.Values[0])})
	}
	if err := c.Err(); err != nil {
		r.w.t.Fatal(err)
	}
}

func (r *simReader) watermark(i int, tr *Tracker, rec *Record) {
	out, err := tr.OnWatermark(rec)
	if err == nil && len(out.Ask) > 0 {
		for _, oid := range out.Ask {
			tr.Track(oid, r.applied(oid))
		}
		out, err = tr.OnWatermark(rec)
	}
	if err != nil || len(out.Ask) > 0 {
		r.w.t.Fatal(err, out)
	}
	for _, oid := range out.Ended {
		upTo, all := tr.Complete(oid)
		if !all {
			r.w.t.Fatalf("table %d: more was taken than %s", oid, upTo)
		}
		r.buffer[oid] = slices.DeleteFunc(r.buffer[oid], func(a simApplied) bool { return upTo.Before(a.pos) })
	}
	for _, g := range out.Gaps {
		oid := g.OID
		if !r.retried[oid] {
			// Reading may have begun too late: once more, from the beginning.
			r.retried[oid] = true
			r.buffer[oid] = nil
			tr.Track(oid, r.applied(oid))
			tr.Rewind(0)
			r.next[i] = 0
			continue
		}
		r.gaps[oid] = g
		r.apply(i, oid)
		tr.Park(oid)
		r.buffer[oid] = nil
	}
	for oid := uint32(1); oid <= 4; oid++ {
		if assign(oid, r.w.partitions) == i && rapid.IntRange(0, 2).Draw(r.w.t, "commit") > 0 {
			r.apply(i, oid)
		}
	}
}

// apply commits what is complete.
func (r *simReader) apply(i int, oid uint32) {
	tr := r.trackers[i]
	upTo, _ := tr.Complete(oid)
	if m := tr.Watermark(); r.applied(oid).Before(upTo) && m.Epoch == upTo.Epoch && m.LSN < upTo.CommitLSN {
		r.w.t.Fatalf("table %d is complete up to %s, beyond the watermark at %s", oid, upTo, m.LSN)
	}
	n := 0
	for _, a := range r.buffer[oid] {
		if upTo.Before(a.pos) {
			break
		}
		n++
	}
	r.lake[oid] = append(r.lake[oid], r.buffer[oid][:n]...)
	r.buffer[oid] = r.buffer[oid][n:]
	if !upTo.IsZero() {
		r.trackers[i].Applied(oid, upTo)
	}
	r.checkTable(oid)
}

func (r *simReader) applyAll() {
	for oid := uint32(1); oid <= 4; oid++ {
		i := assign(oid, r.w.partitions)
		if r.gaps[oid] == nil {
			r.apply(i, oid)
		}
		for _, m := range r.trackers[i].Reached() {
			r.checkMarker(i, m)
		}
	}
}

// want is what the WAL says of a table in one epoch, by transaction.
func (w *simWorld) want(epoch uint32, oid uint32) [][]simApplied {
	var all [][]simApplied
	for _, tx := range w.wal[epoch] {
		var one []simApplied
		for _, c := range tx.changes {
			if c.oid == oid {
				one = append(one, simApplied{
					change.Position{Epoch: epoch, CommitLSN: tx.lsn, Ordinal: c.ordinal},
					fmt.Sprintf("e%d %s %d", epoch, tx.lsn, c.ordinal),
				})
			}
		}
		if one != nil {
			all = append(all, one)
		}
	}
	return all
}

// checkTable holds the lake against the WAL: whole transactions of each epoch,
// from its first, none left out and none twice.
func (r *simReader) checkTable(oid uint32) {
	rest := r.lake[oid]
	for epoch := uint32(1); epoch <= r.w.epoch; epoch++ {
		for _, tx := range r.w.want(epoch, oid) {
			if len(rest) == 0 || rest[0].pos.Epoch > epoch {
				break
			}
			if len(rest) < len(tx) {
				r.w.t.Fatalf("table %d: part of a transaction was applied: %v of %v", oid, rest, tx)
			}
			if !slices.Equal(rest[:len(tx)], tx) {
				r.w.t.Fatalf("table %d: applied %v, the WAL has %v", oid, rest[:len(tx)], tx)
			}
			rest = rest[len(tx):]
		}
	}
	if len(rest) > 0 {
		r.w.t.Fatalf("table %d: applied too much: %v", oid, rest)
	}
}

// checkMarker: everything that was committed before a marker is applied.
func (r *simReader) checkMarker(i int, m Marker) {
	r.reached[i][m.Token] = true
	for oid := uint32(1); oid <= 4; oid++ {
		if assign(oid, r.w.partitions) != i || r.gaps[oid] != nil {
			continue
		}
		for _, tx := range r.w.want(m.Position.Epoch, oid) {
			last := tx[len(tx)-1].pos
			if last.CommitLSN <= m.Position.CommitLSN && r.applied(oid).Before(last) {
				r.w.t.Fatalf("marker %s was reached, and table %d is at %s, before %s", m.Token, oid, r.applied(oid), last)
			}
		}
	}
}

func newSimWorld(t *rapid.T) *simWorld {
	w := &simWorld{t: t, lone: rapid.IntRange(0, 2).Draw(t, "lone") == 0, epoch: 1, partitions: rapid.IntRange(1, 2).Draw(t, "partitions"), wal: map[uint32][]simTx{}, seeds: map[string]seedRecord{}, furthest: map[uint32]change.LSN{}}
	w.wal[1] = genWAL(t, 1, 4)
	for i := range w.partitions {
		s := StreamID{byte(i + 1)}
		w.streams = append(w.streams, s)
		w.logs = append(w.logs, []simRecord{{bytes: appendStream(nil, s)}})
	}
	return w
}

// life lets things happen.
func (w *simWorld) life(r *simReader, steps int) {
	t := w.t
	for range steps {
		switch rapid.IntRange(0, 20).Draw(t, "event") {
		case 0: // the publisher crashes, what it sent may still arrive
			if n := len(w.publishers); n > 0 {
				p := w.publishers[n-1]
				w.publishers = w.publishers[:n-1]
				if p.job != nil {
					for _, q := range p.job.queues {
						if len(q) > 0 && rapid.Bool().Draw(t, "late") {
							w.ghosts = append(w.ghosts, q[0])
						}
					}
				}
			}
		case 1: // another takes over, the one before goes on as it likes
			if !w.lone && len(w.publishers) < 3 {
				w.start()
			}
		case 2:
			if len(w.ghosts) > 0 {
				i := rapid.IntRange(0, len(w.ghosts)-1).Draw(t, "ghost")
				w.write(w.ghosts[i])
				w.ghosts = slices.Delete(w.ghosts, i, i+1)
			}
		case 3:
			r.restart(rapid.Bool().Draw(t, "hints"))
		case 4: // hints are saved now and then
			for i, tr := range r.trackers {
				r.hints[i] = tr.Resume()
			}
		case 5, 6, 7:
			r.step(rapid.IntRange(0, w.partitions-1).Draw(t, "read"))
		default:
			if n := len(w.publishers); n > 0 {
				// Mostly the last; the others are paused.
				i := n - 1
				if rapid.IntRange(0, 3).Draw(t, "zombie") == 0 {
					i = rapid.IntRange(0, n-1).Draw(t, "which")
				}
				w.publishers[i].step()
			} else {
				w.start()
			}
		}
	}
}

// checkHints restarts from the hints: nothing that is needed lies before them.
func (r *simReader) checkHints() {
	before := make([]Watermark, r.w.partitions)
	for i, tr := range r.trackers {
		before[i] = tr.Watermark()
		r.hints[i] = tr.Resume()
	}
	r.restart(true)
	for i := range r.w.partitions {
		for r.step(i) {
		}
	}
	for i, tr := range r.trackers {
		if m := tr.Watermark(); m.Epoch != before[i].Epoch || m.LSN < before[i].LSN {
			r.w.t.Fatalf("partition %d: the watermark was at %s and is at %s after a restart", i, before[i].LSN, m.LSN)
		}
	}
	r.applyAll()
	if len(r.retried) > 0 {
		r.w.t.Fatalf("reading began too late for %v", r.retried)
	}
}

func (r *simReader) readAll() {
	for i := range r.w.partitions {
		for r.step(i) {
		}
	}
	r.applyAll()
}

func TestChangesArriveOnceAndInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newSimWorld(t)
		r := newSimReader(w)
		w.life(r, rapid.IntRange(10, 300).Draw(t, "steps"))
		w.start().drain()
		for i := range w.partitions {
			for r.step(i) {
			}
		}
		r.checkHints()
		if len(r.gaps) > 0 {
			w.dump()
			t.Fatalf("gaps where nothing is missing: %v", r.gaps)
		}
		for oid := uint32(1); oid <= 4; oid++ {
			r.checkTable(oid)
			if n := len(slices.Concat(w.want(1, oid)...)); len(r.lake[oid]) != n {
				t.Fatalf("table %d: %d changes were applied of %d", oid, len(r.lake[oid]), n)
			}
		}
		for i := range w.partitions {
			for _, tx := range w.wal[1] {
				if tx.marker != "" && !r.reached[i][tx.marker] {
					t.Fatalf("marker %s was not reached in partition %d", tx.marker, i)
				}
			}
		}
	})
}

func TestEndedEpochLeavesWholeTransactions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newSimWorld(t)
		r := newSimReader(w)
		w.life(r, rapid.IntRange(5, 150).Draw(t, "steps"))
		w.epoch, w.confirmed = 2, 0
		w.wal[2] = genWAL(t, 2, 4)
		w.start()
		w.life(r, rapid.IntRange(5, 150).Draw(t, "steps"))
		w.start().drain()
		for i := range w.partitions {
			for r.step(i) {
			}
		}
		r.checkHints()
		if len(r.gaps) > 0 {
			w.dump()
			t.Fatalf("gaps where nothing is missing: %v", r.gaps)
		}
		for oid := uint32(1); oid <= 4; oid++ {
			r.checkTable(oid)
			n := 0
			for _, a := range r.lake[oid] {
				if a.pos.Epoch == 2 {
					n++
				}
			}
			if m := len(slices.Concat(w.want(2, oid)...)); n != m {
				t.Fatalf("table %d: %d changes of the second epoch were applied of %d", oid, n, m)
			}
		}
	})
}

func TestWhatAnEndedEpochLostIsProvenMissing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newSimWorld(t)
		r := newSimReader(w)
		w.life(r, rapid.IntRange(5, 150).Draw(t, "steps"))
		w.start().drain()
		for range rapid.IntRange(1, 4).Draw(t, "lost") {
			i := rapid.IntRange(0, w.partitions-1).Draw(t, "of")
			if n := len(w.logs[i]); n > 2 {
				w.logs[i][rapid.IntRange(1, n-2).Draw(t, "offset")].removed = true
			}
		}
		w.epoch, w.confirmed = 2, 0
		w.wal[2] = genWAL(t, 2, 4)
		w.start()
		w.life(r, rapid.IntRange(5, 150).Draw(t, "steps"))
		w.start().drain()
		r.readAll()
		for oid := uint32(1); oid <= 4; oid++ {
			r.checkTable(oid)
			want := append(slices.Concat(w.want(1, oid)...), slices.Concat(w.want(2, oid)...)...)
			if len(r.lake[oid]) != len(want) && r.gaps[oid] == nil {
				w.dump()
				t.Fatalf("table %d: %d changes were applied of %d, and no gap was proven", oid, len(r.lake[oid]), len(want))
			}
		}
	})
}

func TestRemovedRecordIsProvenMissing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newSimWorld(t)
		r := newSimReader(w)
		w.life(r, rapid.IntRange(10, 200).Draw(t, "steps"))
		w.start().drain()
		// Some records are lost, of any kind.
		for range rapid.IntRange(1, 4).Draw(t, "lost") {
			i := rapid.IntRange(0, w.partitions-1).Draw(t, "of")
			if n := len(w.logs[i]); n > 2 {
				w.logs[i][rapid.IntRange(1, n-1).Draw(t, "offset")].removed = true
			}
		}
		// The publisher that comes next says where the tables stand.
		w.start().drain()
		if rapid.Bool().Draw(t, "anew") {
			r.restart(rapid.Bool().Draw(t, "hints"))
		}
		r.readAll()
		for oid := uint32(1); oid <= 4; oid++ {
			r.checkTable(oid)
			n := len(slices.Concat(w.want(1, oid)...))
			if len(r.lake[oid]) != n && r.gaps[oid] == nil {
				t.Fatalf("table %d: %d changes were applied of %d, and no gap was proven", oid, len(r.lake[oid]), n)
			}
			if len(r.lake[oid]) == n && r.gaps[oid] != nil {
				t.Fatalf("table %d: complete, and %v", oid, r.gaps[oid])
			}
			var g *Gap
			if r.gaps[oid] != nil && !errors.As(error(r.gaps[oid]), &g) {
				t.Fatal("a gap is an error")
			}
		}
	})
}
