package datafile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// mixed returns rows of ten columns, some 200 bytes a row: as they come from an
// orders table.
func mixed(rows int) (*schema.Schema, *Batch) {
	typ := func(k schema.Kind) schema.Type { return schema.Type{Kind: k} }
	s := &schema.Schema{Fields: []schema.Field{
		{Name: "id", Type: typ(schema.Long), Nullable: true},
		{Name: "customer", Type: typ(schema.Integer), Nullable: true},
		{Name: "status", Type: typ(schema.String), Nullable: true},
		{Name: "amount", Type: schema.Type{Kind: schema.Decimal, Precision: 12, Scale: 2}, Nullable: true},
		{Name: "rate", Type: typ(schema.Double), Nullable: true},
		{Name: "paid", Type: typ(schema.Boolean), Nullable: true},
		{Name: "created", Type: typ(schema.Timestamp), Nullable: true},
		{Name: "day", Type: typ(schema.Date), Nullable: true},
		{Name: "email", Type: typ(schema.String), Nullable: true},
		{Name: "note", Type: typ(schema.String), Nullable: true},
	}}
	b := NewBatch(s)
	words := []string{"quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "and", "runs", "away", "shipping", "delayed", "customer", "called", "again"}
	state := uint64(42)
	next := func() uint64 {
		state = state*6364136223846793005 + 1442695040888963407
		return state >> 33
	}
	for i := range rows {
		b.Cols[0].AppendInt(int64(1_000_000 + i))
		b.Cols[1].AppendInt(int64(next() % 50_000))
		b.Cols[2].AppendString([]string{"new", "paid", "shipped", "returned"}[next()%4])
		b.Cols[3].AppendInt(int64(next() % 10_000_000))
		b.Cols[4].AppendFloat(float64(next()%1_000_000) / 1_000_003)
		b.Cols[5].AppendBool(next()%3 == 0)
		b.Cols[6].AppendInt(1_700_000_000_000_000 + int64(i)*1_000 + int64(next()%1000))
		b.Cols[7].AppendInt(19_000 + int64(next()%400))
		b.Cols[8].AppendString(fmt.Sprintf("user%d@example.com", next()%50_000))
		if next()%10 == 0 {
			b.Cols[9].AppendNull()
			continue
		}
		for b.Cols[9].Bytes = append(b.Cols[9].Bytes, words[next()%15]...); len(b.Cols[9].Bytes)-int(b.Cols[9].Off[i]) < 115; {
			b.Cols[9].Bytes = append(append(b.Cols[9].Bytes, ' '), words[next()%15]...)
		}
		b.Cols[9].endBytes()
	}
	return s, b
}

func BenchmarkWrite(b *testing.B) {
	const rows = 200_000
	s, batch := mixed(rows)
	for _, codec := range []struct {
		name string
		Codec
	}{{"zstd", Zstd}, {"snappy", Snappy}, {"none", Uncompressed}} {
		b.Run(codec.name, func(b *testing.B) {
			b.ReportAllocs()
			var size int64
			for b.Loop() {
				w, err := NewWriter(io.Discard, WriterOptions{Schema: s, Codec: codec.Codec})
				if err != nil {
					b.Fatal(err)
				}
				if err := w.Write(batch); err != nil {
					b.Fatal(err)
				}
				info, err := w.Close()
				if err != nil {
					b.Fatal(err)
				}
				size = info.Bytes
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(size)/rows, "B/row")
			b.ReportMetric(float64(batch.SizeBytes())/rows, "mem-B/row")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	const rows = 200_000
	s, batch := mixed(rows)
	data, _ := write(b, WriterOptions{Schema: s}, batch)
	for _, c := range []struct {
		name string
		want *schema.Schema
	}{{"all", s}, {"key", &schema.Schema{Fields: s.Fields[:1]}}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f, err := Open(bytes.NewReader(data), int64(len(data)))
				if err != nil {
					b.Fatal(err)
				}
				n := 0
				for got, err := range f.Read(context.Background(), c.want, ReadOptions{}) {
					if err != nil {
						b.Fatal(err)
					}
					n += got.Rows()
				}
				if n != rows {
					b.Fatalf("read %d rows", n)
				}
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func BenchmarkRowHash(b *testing.B) {
	_, batch := mixed(1000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		RowHash(batch.Cols, i%1000)
		i++
	}
}

func BenchmarkAppendKey(b *testing.B) {
	_, batch := mixed(1000)
	b.ReportAllocs()
	var buf []byte
	i := 0
	for b.Loop() {
		buf = AppendKey(buf[:0], batch.Cols[:1], i%1000)
		i++
	}
}
