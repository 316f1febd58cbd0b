package datafile

import (
	"bytes"
	"context"
	"io"
	"slices"
	"testing"

	"github.com/parquet-go/parquet-go"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/deltalog/schema"
)

func write(t rapid.TB, opts WriterOptions, batches ...*Batch) ([]byte, Info) {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		if err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	info, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if int64(out.Len()) != info.Bytes {
		t.Fatalf("Close says %d bytes of %d", info.Bytes, out.Len())
	}
	return out.Bytes(), info
}

func openBytes(t rapid.TB, b []byte) *File {
	t.Helper()
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func readAll(t rapid.TB, f *File, want *schema.Schema, batchRows int) *Batch {
	t.Helper()
	all := NewBatch(want)
	for b, err := range f.Read(context.Background(), want, ReadOptions{BatchRows: batchRows}) {
		if err != nil {
			t.Fatal(err)
		}
		if b.First != int64(all.Rows()) {
			t.Fatalf("batch begins at row %d, not %d", b.First, all.Rows())
		}
		for row := range b.Rows() {
			all.AppendRow(b, row)
		}
	}
	return all
}

func TestRowsComeBackAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSchema().Draw(t, "schema")
		b := genBatch(t, s, 60)
		opts := WriterOptions{
			Schema:       s,
			RowGroupRows: rapid.SampledFrom([]int{0, 1, 7}).Draw(t, "groupRows"),
			Codec:        Codec(rapid.IntRange(0, 2).Draw(t, "codec")),
		}
		cut := rapid.IntRange(0, b.Rows()).Draw(t, "cut")
		data, info := write(t, opts, b.Gather(count(0, cut)), b.Gather(count(cut, b.Rows())))
		if info.Rows != int64(b.Rows()) || info.Stats.Rows != info.Rows {
			t.Fatalf("Close says %d rows of %d", info.Rows, b.Rows())
		}
		f := openBytes(t, data)
		if f.Rows() != int64(b.Rows()) {
			t.Fatalf("file says %d rows of %d", f.Rows(), b.Rows())
		}
		if !f.Schema().Equal(s) {
			t.Fatalf("file's schema is %v, not %v", f.Schema().Fields, s.Fields)
		}
		if d := diff(readAll(t, f, s, rapid.IntRange(1, 20).Draw(t, "batchRows")), b); d != "" {
			t.Fatal(d)
		}
		var rows []int64
		var picked []int32
		for row := range b.Rows() {
			if rapid.Bool().Draw(t, "pick") {
				rows, picked = append(rows, int64(row)), append(picked, int32(row))
			}
		}
		got, err := f.ReadRows(context.Background(), s, rows)
		if err != nil {
			t.Fatal(err)
		}
		if d := diff(got, b.Gather(picked)); d != "" {
			t.Fatal("picked rows:", d)
		}
	})
}

func count(from, to int) []int32 {
	rows := make([]int32, 0, to-from)
	for i := from; i < to; i++ {
		rows = append(rows, int32(i))
	}
	return rows
}

func TestManyPagesComeBackAsWritten(t *testing.T) {
	str := schema.Type{Kind: schema.String}
	s := &schema.Schema{Fields: []schema.Field{
		{Name: "serial", Type: schema.Type{Kind: schema.Long}, Nullable: true},
		{Name: "few", Type: str, Nullable: true},
		{Name: "growing", Type: str, Nullable: true}, // a dictionary that is given up on the way
		{Name: "unique", Type: str},
		{Name: "nulls", Type: schema.Type{Kind: schema.Integer}, Nullable: true},
		{Name: "list", Type: schema.Type{Kind: schema.Array, Elem: &str, ElemNull: true}, Nullable: true},
		{Name: "flag", Type: schema.Type{Kind: schema.Boolean}, Nullable: true},
	}}
	b := NewBatch(s)
	const rows = 90_000
	for i := range rows {
		b.Cols[0].AppendInt(int64(i))
		b.Cols[1].AppendString([]string{"red", "green", "blue"}[i%3])
		if i%2 == 0 && i < 30_000 {
			b.Cols[2].AppendString("always the same")
		} else {
			b.Cols[2].AppendString(text(i, 90))
		}
		b.Cols[3].AppendString(text(i, 20))
		b.Cols[4].AppendNull()
		switch i % 4 {
		case 0:
			b.Cols[5].AppendNull()
		default:
			for j := range i % 4 {
				if j == 2 {
					b.Cols[5].Elem.AppendNull()
				} else {
					b.Cols[5].Elem.AppendString(text(i+j, 5))
				}
			}
			b.Cols[5].EndArray()
		}
		b.Cols[6].AppendBool(i%7 == 0)
	}
	data, _ := write(t, WriterOptions{Schema: s, RowGroupRows: 70_000}, b)
	f := openBytes(t, data)
	if d := diff(readAll(t, f, s, 0), b); d != "" {
		t.Fatal(d)
	}
	picked := []int32{0, 1, 19_999, 20_000, 20_001, 45_678, 69_999, 70_000, 89_999}
	var at []int64
	for _, p := range picked {
		at = append(at, int64(p))
	}
	got, err := f.ReadRows(context.Background(), s, at)
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(got, b.Gather(picked)); d != "" {
		t.Fatal("picked rows:", d)
	}
}

func text(i, size int) string {
	b := make([]byte, size)
	for j := range b {
		b[j] = 'a' + byte((i>>(j%20)+j*i)%26)
	}
	return string(b) + string(rune('0'+i%10))
}

// countingReader counts the bytes that are read.
type countingReader struct {
	io.ReaderAt
	n int64
}

func (c *countingReader) ReadAt(p []byte, off int64) (int, error) {
	c.n += int64(len(p))
	return c.ReaderAt.ReadAt(p, off)
}

func TestPickingARowReadsItsPageAlone(t *testing.T) {
	s := &schema.Schema{Fields: []schema.Field{{Name: "v", Type: schema.Type{Kind: schema.Binary}}}}
	b := NewBatch(s)
	random := make([]byte, 300)
	state := uint64(1)
	for range 100_000 {
		for j := range random {
			state = state*6364136223846793005 + 1442695040888963407
			random[j] = byte(state >> 56)
		}
		b.Cols[0].AppendBytes(random)
	}
	data, _ := write(t, WriterOptions{Schema: s}, b)
	r := &countingReader{ReaderAt: bytes.NewReader(data)}
	f, err := Open(r, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	r.n = 0
	if _, err := f.ReadRows(context.Background(), s, []int64{50_000}); err != nil {
		t.Fatal(err)
	}
	if r.n > 2<<20 {
		t.Fatalf("read %d bytes of %d for one row", r.n, len(data))
	}
}

// TestOthersReadOurFiles reads with another implementation's row reader.
func TestOthersReadOurFiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSchema().Draw(t, "schema")
		b := genBatch(t, s, 40)
		data, _ := write(t, WriterOptions{Schema: s, RowGroupRows: 9}, b)
		f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		rows := 0
		for _, g := range f.RowGroups() {
			r := g.Rows()
			buf := make([]parquet.Row, 4)
			for {
				n, err := r.ReadRows(buf)
				rows += n
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			for i, chunk := range g.ColumnChunks() {
				nulls := 0
				pages := chunk.Pages()
				for {
					p, err := pages.ReadPage()
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					nulls += int(p.NumNulls())
				}
				if said := chunk.(*parquet.FileColumnChunk).NullCount(); int(said) != nulls {
					t.Fatalf("chunk %d says %d nulls of %d", i, said, nulls)
				}
			}
		}
		if rows != b.Rows() {
			t.Fatalf("read %d rows of %d", rows, b.Rows())
		}
	})
}

func TestMissingColumnsAreNull(t *testing.T) {
	s := &schema.Schema{Fields: []schema.Field{{Name: "a", Type: schema.Type{Kind: schema.Long}, Nullable: true}}}
	b := NewBatch(s)
	b.Cols[0].AppendInt(7)
	more := &schema.Schema{Fields: append(slices.Clone(s.Fields), schema.Field{Name: "b", Type: schema.Type{Kind: schema.String}, Nullable: true})}
	data, info := write(t, WriterOptions{Schema: more}, b)
	for _, name := range []string{"b", "absent"} {
		want := &schema.Schema{Fields: []schema.Field{{Name: name, Type: schema.Type{Kind: schema.String}, Nullable: true}}}
		got := readAll(t, openBytes(t, data), want, 0)
		if got.Rows() != 1 || got.Cols[0].Valid[0] {
			t.Fatalf("column %s is not NULL", name)
		}
	}
	if got := info.Stats.Columns[1].Nulls; got != 1 {
		t.Fatalf("counted %d nulls, not 1", got)
	}
}
