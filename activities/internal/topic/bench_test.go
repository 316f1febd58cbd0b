package topic

import (
	"fmt"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities/change"
)

// benchRow is about 200 bytes, of ten columns.
func benchRow() []byte {
	return row("1234567", "customer-1234567", "2026-09-20 10:11:12.123456+00", "42.50", "t", "an address somewhere in some street", "98765", "open", "0123456789abcdef0123456789abcdef", "a note that is not very long")
}

// BenchmarkPublish writes rows of ~200 bytes, ten a transaction and a million
// in one.
func BenchmarkPublish(b *testing.B) {
	for _, per := range []int{10, 1_000_000} {
		for _, compression := range []string{"none", "lz4"} {
			b.Run(fmt.Sprintf("rows=%d/%s", per, compression), func(b *testing.B) {
				c := openClient(b)
				name := ensure(b, c, 6)
				p := openPublisher(b, c, PublisherConfig{Topic: name, Epoch: 1, Compression: compression})
				t := tableOf(1)
				if _, err := p.Schema(b.Context(), t); err != nil {
					b.Fatal(err)
				}
				r := benchRow()
				b.SetBytes(int64(len(r)))
				b.ReportAllocs()
				lsn := change.LSN(0)
				b.ResetTimer()
				for i := range b.N {
					if i%per == 0 {
						lsn += 100
						must(b, p.Begin(lsn, 0, 1))
					}
					must(b, p.Change(1, t.Fingerprint, change.Create, nil, r))
					if i%per == per-1 || i == b.N-1 {
						must(b, p.Commit(lsn+50))
					}
				}
				must(b, p.Flush(b.Context()))
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
				closePublisher(b, p)
			})
		}
	}
}

// BenchmarkRead reads rows of ~200 bytes, ten a transaction, as events.
func BenchmarkRead(b *testing.B) {
	for _, compression := range []string{"none", "lz4"} {
		b.Run(compression, func(b *testing.B) {
			c := openClient(b)
			name := ensure(b, c, 6)
			p := openPublisher(b, c, PublisherConfig{Topic: name, Epoch: 1, Compression: compression})
			t := tableOf(1)
			for len(t.Columns) < 10 {
				t.Columns = append(t.Columns, t.Columns[1])
			}
			if _, err := p.Schema(b.Context(), t); err != nil {
				b.Fatal(err)
			}
			row := benchRow()
			for i := range b.N {
				if i%10 == 0 {
					must(b, p.Begin(change.LSN(i+1)*100, 0, 1))
				}
				must(b, p.Change(1, t.Fingerprint, change.Create, nil, row))
				if i%10 == 9 || i == b.N-1 {
					must(b, p.Commit(change.LSN(i+1)*100+50))
				}
			}
			must(b, p.Flush(b.Context()))
			closePublisher(b, p)
			r, err := c.Reader(b.Context(), ReaderConfig{Topic: name})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = r.Close() }()
			b.SetBytes(int64(len(row)))
			b.ReportAllocs()
			b.ResetTimer()
			var cur Cursor
			var ev change.Event
			for n := 0; n < b.N; {
				recs, err := r.Next(b.Context(), time.Second)
				if err != nil {
					b.Fatal(err)
				}
				for i := range recs {
					if recs[i].Kind != KindData {
						continue
					}
					cur.Reset(&recs[i].Data, t, change.Position{})
					for cur.Next(&ev) {
						n++
					}
					if err := cur.Err(); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkAssemble frames rows without sending them: what a change costs
// before a broker is involved.
func BenchmarkAssemble(b *testing.B) {
	a := newAssembler(1, 6, defaultRecord, defaultMessage)
	t := tableOf(1)
	a.schema(1, t.Fingerprint, 0)
	r := benchRow()
	spare := newRound(6)
	b.SetBytes(int64(len(r)))
	b.ReportAllocs()
	for i := range b.N {
		lsn := change.LSN(i+1) * 100
		must(b, a.begin(lsn, 0, 1))
		must(b, a.change(1, t.Fingerprint, change.Create, nil, r))
		must(b, a.commit(lsn+50))
		if a.round.bytes > eagerBytes {
			taken := a.take(spare)
			a.watermark(false)
			taken.reset()
			spare = taken
		}
	}
}
