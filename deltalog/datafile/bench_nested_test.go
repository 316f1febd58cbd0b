package datafile

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// lists returns rows of arrays of numbers and of words.
func lists(rows int) (*schema.Schema, *Batch) {
	long, str := schema.Type{Kind: schema.Long}, schema.Type{Kind: schema.String}
	s := &schema.Schema{Fields: []schema.Field{
		{Name: "longs", Type: schema.Type{Kind: schema.Array, Elem: &long, ElemNull: true}, Nullable: true},
		{Name: "words", Type: schema.Type{Kind: schema.Array, Elem: &str, ElemNull: true}, Nullable: true},
	}}
	b := NewBatch(s)
	for i := range rows {
		for j := range i % 8 {
			b.Cols[0].Elem.AppendInt(int64(i * j))
			b.Cols[1].Elem.AppendString(text(i+j, 6))
		}
		b.Cols[0].EndArray()
		b.Cols[1].EndArray()
	}
	return s, b
}

func BenchmarkLists(b *testing.B) {
	const rows = 100_000
	s, batch := lists(rows)
	data, _ := write(b, WriterOptions{Schema: s, Codec: Uncompressed}, batch)
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			w, err := NewWriter(io.Discard, WriterOptions{Schema: s, Codec: Uncompressed})
			if err != nil {
				b.Fatal(err)
			}
			if err := w.Write(batch); err != nil {
				b.Fatal(err)
			}
			if _, err := w.Close(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			f, err := Open(bytes.NewReader(data), int64(len(data)))
			if err != nil {
				b.Fatal(err)
			}
			for _, err := range f.Read(context.Background(), s, ReadOptions{}) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
}
