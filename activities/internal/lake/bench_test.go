package lake

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"testing"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/batch"
)

// wide is a table of ten mixed columns, about 200 bytes a row.
func wide() *change.Table {
	t := &change.Table{OID: 16384, Schema: "public", Name: "orders", Identity: change.IdentityKey, Key: []int{0}}
	for i, c := range []struct {
		name, typ string
		oid       uint32
	}{
		{"id", "int8", 20},
		{"customer", "int4", 23},
		{"amount", "int8", 20},
		{"rate", "float8", 701},
		{"paid", "bool", 16},
		{"at", "timestamptz", 1184},
		{"day", "date", 1082},
		{"code", "text", 25},
		{"note", "text", 25},
		{"state", "text", 25},
	} {
		t.Columns = append(t.Columns, change.Column{
			Name: c.name, TypeOID: c.oid, TypeMod: -1, Attr: int16(i + 1), Identity: i == 0,
			Type: change.Type{OID: c.oid, Name: c.typ, Kind: "b", Mod: -1},
		})
	}
	t.Fingerprint = t.ComputeFingerprint()
	return t
}

// wideText is one row of it as pgoutput sends it.
func wideText(id int) change.Tuple {
	return cells(fmt.Sprintf("%d|%d|%d|%g|t|2026-01-02 03:04:05.678+00|2026-01-02|code-%08d|%s-%d|open",
		id, id%10_000, id*7, float64(id)/3, id, "the quick brown fox jumps over the lazy dog and on and on it goes", id))
}

// wideBinary is one row of it as COPY BINARY sends it.
func wideBinary(t *change.Tuple, id int) {
	t.Reset()
	put := func(b []byte) { t.Append(change.Binary, b) }
	put(binary.BigEndian.AppendUint64(nil, uint64(id)))
	put(binary.BigEndian.AppendUint32(nil, uint32(id%10_000)))
	put(binary.BigEndian.AppendUint64(nil, uint64(id*7)))
	put(binary.BigEndian.AppendUint64(nil, math.Float64bits(float64(id)/3)))
	put([]byte{1})
	put(binary.BigEndian.AppendUint64(nil, uint64(id)*1_000_000))
	put(binary.BigEndian.AppendUint32(nil, 9000))
	put([]byte("code-" + strconv.Itoa(id)))
	put([]byte("the quick brown fox jumps over the lazy dog and on and on it goes-" + strconv.Itoa(id)))
	put([]byte("open"))
}

func BenchmarkCommit(b *testing.B) {
	const rows = 50_000
	for _, mode := range []string{"inserts", "updates"} {
		b.Run(mode, func(b *testing.B) {
			s := newBench(b, wide())
			s.copy("one", 10)
			s.catchUp()
			layout, err := s.mirror.Layout(s.table)
			if err != nil {
				b.Fatal(err)
			}
			pending := batch.New(layout)
			lsn := change.LSN(20)
			fill := func(op change.Op, first int) {
				pending.Reset()
				lsn++
				ev := change.Event{Table: s.table, Op: op, Position: change.Position{Epoch: 1, CommitLSN: lsn}}
				for i := range rows {
					ev.Ordinal, ev.New = uint64(i+1), wideText(first+i)
					if err := pending.Append(&ev); err != nil {
						b.Fatal(err)
					}
				}
			}
			commit := func() {
				if _, err := s.mirror.Commit(s.ctx, pending, change.Position{}); err != nil {
					b.Fatal(err)
				}
			}
			if mode == "updates" {
				fill(change.Create, 0)
				commit()
			}
			b.ResetTimer()
			for i := range b.N {
				b.StopTimer()
				if mode == "updates" {
					fill(change.Update, 0)
				} else {
					fill(change.Create, i*rows)
				}
				b.StartTimer()
				commit()
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func BenchmarkWriteChunk(b *testing.B) {
	const rows = 500_000
	s := newBench(b, wide())
	if _, err := s.mirror.BeginCopy(s.ctx, Copy{ID: "one", Table: s.table, Cut: 10, Epoch: 1, Chunks: b.N}); err != nil {
		b.Fatal(err)
	}
	data := make([]change.Tuple, 1000)
	for i := range data {
		wideBinary(&data[i], i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		_, _, err := s.mirror.WriteChunk(s.ctx, "one", i, func(yield func(*change.Tuple) error) error {
			for n := range rows {
				if err := yield(&data[n%len(data)]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkProof(b *testing.B) {
	const rows = 200_000
	s := newBench(b, wide())
	s.beginCopy("one", 10)
	for chunk := range 2 {
		_, _, err := s.mirror.WriteChunk(s.ctx, "one", chunk, func(yield func(*change.Tuple) error) error {
			var t change.Tuple
			for i := range rows / 2 {
				wideBinary(&t, chunk*rows/2+i)
				if err := yield(&t); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := s.mirror.FinishCopy(s.ctx, "one"); err != nil {
		b.Fatal(err)
	}
	s.catchUp()
	b.ResetTimer()
	for range b.N {
		rebuilt, err := s.lake.Rebuild(context.Background(), s.mirror, change.Position{Epoch: 1, CommitLSN: 11}, b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		latest, _, err := s.mirror.LatestRows(s.ctx, b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		if d, err := Compare(s.ctx, rebuilt, latest, 10); err != nil || !d.Equal || latest.Count() != rows {
			b.Fatal(d, err)
		}
		_, _ = rebuilt.Close(), latest.Close()
	}
	b.ReportMetric(2*float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
