package topic

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/segmentio/kafka-go"
)

// job is what the sender does at once: a watermark that became true goes to
// every partition, before the records of a round. Either may be nil.
type job struct {
	mark  *watermark
	round *round
	// after becomes true when the round is acknowledged.
	after *watermark
}

// run is the sender: it owns what is in flight.
func (p *Publisher) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for p.ctx.Err() == nil {
		j, wait := p.next()
		if wait > 0 {
			timer.Reset(wait)
			select {
			case <-p.wake:
			case <-timer.C:
			case <-p.ctx.Done():
			}
			continue
		}
		if err := p.send(j); err != nil {
			p.fail(err)
			return
		}
		p.signal(p.room)
	}
}

// fail ends the publisher.
func (p *Publisher) fail(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = fmt.Errorf("publish to topic %q: %w", p.cfg.Topic, err)
	}
	p.mu.Unlock()
	p.signal(p.room)
}

// next decides what to send now, or to wait so long unless woken.
func (p *Publisher) next() (j job, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.waiting, p.idle, p.dozing = false, false, false
	wait = fullEvery
	if bytes := p.a.round.bytes; bytes > 0 {
		waited := now.Sub(p.began)
		boundary := !p.a.inTx
		switch {
		case p.flush, bytes >= p.cfg.MaxInFlight/4,
			boundary && (waited >= p.cfg.Linger || bytes >= eagerBytes),
			waited >= patience*p.cfg.Linger:
			return p.takeRound(now), 0
		case waited < p.cfg.Linger:
			wait = p.cfg.Linger - waited
		default:
			p.waiting = true // for Commit
			wait = patience*p.cfg.Linger - waited
		}
	}
	if p.due != nil {
		if left := p.dueAt.Add(p.cfg.Linger).Sub(now); left > 0 && !p.flush {
			return j, min(wait, left)
		}
		j.mark, p.due = p.due, nil
		return j, 0
	}
	if p.a.round.bytes > 0 {
		return j, wait
	}
	// Everything before is acknowledged, so what the assembler says is true.
	full := p.fullDue(now)
	if !full && !p.a.dirty {
		p.flush = false
		p.idle = true
		return j, max(p.lastFull.Add(fullEvery).Sub(now), time.Second)
	}
	if left := p.markedAt.Add(p.cfg.AdvanceEvery).Sub(now); left > 0 && !full && !p.flush && !p.a.urgent {
		p.dozing = true
		return j, left
	}
	j.mark = p.watermark(full, now)
	return j, 0
}

// patience is how many lingers a round waits for the end of a transaction, so
// that rounds end between transactions where they can: a reader then has whole
// transactions at every watermark.
const patience = 20

func (p *Publisher) takeRound(now time.Time) job {
	j := job{mark: p.due}
	p.due = nil
	spare := p.spare
	if spare == nil {
		spare = newRound(p.partitions)
	}
	p.spare = nil
	j.round = p.a.take(spare)
	p.sinceFull += j.round.bytes
	p.sent += j.round.bytes
	if full := p.fullDue(now); full || p.a.dirty {
		j.after = p.watermark(full, now)
	}
	p.signal(p.room)
	return j
}

func (p *Publisher) fullDue(now time.Time) bool {
	return p.closing || p.sinceFull >= fullEveryBytes || now.Sub(p.lastFull) >= fullEvery
}

func (p *Publisher) watermark(full bool, now time.Time) *watermark {
	if full {
		p.sinceFull, p.lastFull = 0, now
	}
	return p.a.watermark(full)
}

// send does a job and returns when every partition has acknowledged it.
func (p *Publisher) send(j job) error {
	now := time.Now()
	p.mu.Lock()
	p.stats.WaitingSince = now
	if j.round != nil {
		p.stats.Pending = int64(j.round.bytes)
	}
	p.mu.Unlock()
	for i := range p.heads {
		p.heads[i] = p.heads[i][:0]
		if j.mark != nil {
			p.heads[i] = appendWatermark(p.heads[i], p.streams[i], j.mark.of(i))
		}
	}
	if err := p.deliver(j.round); err != nil {
		return err
	}
	if j.mark != nil {
		p.durable.Store(uint64(max(j.mark.EndLSN, change.LSN(p.durable.Load()))))
		p.markedAt = now
		if j.mark.Full {
			if err := p.writeSeeds(j.mark.LSN); err != nil {
				return err
			}
		}
	}
	if j.round != nil {
		p.origin.delivered(j.round.torn, p.starts)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.WaitingSince = time.Time{}
	p.moved = p.moved || j.round != nil || j.mark != nil
	if j.mark != nil && j.mark.Full && j.round == nil {
		p.moved, p.closing = false, false
	}
	if j.round != nil {
		p.stats.Pending = 0
		p.stats.Rounds++
		j.round.reset()
		p.spare = j.round
	}
	if j.after != nil {
		p.due, p.dueAt = j.after, time.Now()
	}
	return nil
}

// writeSeeds tells publishers to come where the full watermark at lsn is.
func (p *Publisher) writeSeeds(lsn change.LSN) error {
	seeds := make([]seedRecord, p.partitions)
	for i := range seeds {
		seeds[i] = seedRecord{
			Epoch:      p.cfg.Epoch,
			Partition:  i,
			Generation: p.generation,
			From:       p.origin.from(i, p.starts[i], lsn, p.sent > aheadFactor*p.cfg.MaxInFlight),
			Offset:     p.starts[i],
			Watermark:  p.heads[i],
		}
	}
	first := !p.seeded
	p.seeded = true
	return p.schemas.writeSeeds(p.ctx, seeds, first)
}

// deliver sends the heads and a round, which may be nil, in as many requests
// as it takes, one after another for each partition.
func (p *Publisher) deliver(r *round) error {
	sent := make([]int, p.partitions) // records of the round
	for i, at := range p.acked {
		p.starts[i] = at + 1
	}
	for first := true; ; first = false {
		var parcels []*parcel
		var counts []int
		for i, w := range p.writers {
			n := p.fill(w, i, r, sent[i], first)
			if w.count == 0 {
				continue
			}
			sent[i] += n
			b, err := w.seal(time.Now())
			if err != nil {
				return err
			}
			parcels = append(parcels, &parcel{partition: i, bytes: b})
			counts = append(counts, w.count)
		}
		if len(parcels) == 0 {
			return nil
		}
		if err := p.produce(parcels); err != nil {
			return err
		}
		if err := p.acknowledged(parcels, counts, first); err != nil {
			return err
		}
	}
}

// fill frames the next records of partition i, and returns how many are the
// round's.
func (p *Publisher) fill(w *batchWriter, i int, r *round, from int, first bool) (n int) {
	w.reset()
	if first && len(p.heads[i]) > 0 {
		w.add(nil, p.heads[i])
	}
	if r == nil {
		return 0
	}
	part := &r.parts[i]
	for ; from+n < len(part.ends); n++ {
		rec := part.record(from + n)
		if w.count > 0 && w.size()+len(rec)+recordFraming > min(batchBytes, p.maxBatch) {
			break
		}
		w.add(nil, rec)
	}
	return n
}

// produce sends parcels until all are acknowledged.
func (p *Publisher) produce(parcels []*parcel) error {
	var b backoff
	var missing time.Time
	for {
		p.c.produce(p.ctx, p.cfg.Topic, parcels)
		var failed []*parcel
		var last error
		for _, x := range parcels {
			if x.err == nil {
				continue
			}
			if err := permanent(x.err); err != nil {
				return fmt.Errorf("partition %d: %w", x.partition, err)
			}
			// A request that failed may still be on its way out of this
			// process, with the memory of the batch.
			p.writers[x.partition] = &batchWriter{lz: p.writers[x.partition].lz}
			failed = append(failed, x)
			last = x.err
		}
		if len(failed) == 0 {
			return nil
		}
		if p.ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ErrClosed, last)
		}
		if !errors.Is(last, kafka.UnknownTopicOrPartition) {
			missing = time.Time{}
		} else if missing.IsZero() {
			missing = time.Now()
		} else if time.Since(missing) > missingPatience {
			return fmt.Errorf("%w: %q", ErrTopicMissing, p.cfg.Topic)
		}
		p.mu.Lock()
		p.stats.Retries += int64(len(failed))
		p.stats.LastError = last.Error()
		p.mu.Unlock()
		if b.wait(p.ctx) != nil {
			return fmt.Errorf("%w: %w", ErrClosed, last)
		}
		parcels = failed
	}
}

func (p *Publisher) acknowledged(parcels []*parcel, counts []int, first bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, x := range parcels {
		if x.offset <= p.acked[x.partition] {
			return fmt.Errorf("%w: partition %d wrote at offset %d after %d", ErrStreamChanged, x.partition, x.offset, p.acked[x.partition])
		}
		p.acked[x.partition] = x.offset + int64(counts[k]) - 1
		if first {
			p.starts[x.partition] = x.offset
		}
		p.stats.Records += int64(counts[k])
		p.stats.Bytes += int64(len(x.bytes))
	}
	return nil
}
