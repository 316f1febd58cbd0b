package datafile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/format"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/deltalog/schema"
)

func TestAllCodecsOfOthersAreRead(t *testing.T) {
	const rows = 2000
	plain := openBytes(t, foreignFile(t, rows, parquet.Compression(&parquet.Uncompressed)))
	want := readAll(t, plain, plain.Schema(), 0)
	for _, codec := range []compress.Codec{&parquet.Snappy, &parquet.Gzip, &parquet.Brotli, &parquet.Zstd, &parquet.Lz4Raw} {
		for _, version := range []int{1, 2} {
			f := openBytes(t, foreignFile(t, rows, parquet.Compression(codec), parquet.DataPageVersion(version)))
			if d := diff(readAll(t, f, plain.Schema(), 0), want); d != "" {
				t.Errorf("%s, pages of version %d: %s", codec, version, d)
			}
		}
	}
}

func TestDeltasComeBackAsOthersEncodeThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ints := rapid.SliceOfN(rapid.Int64(), 1, 300).Draw(t, "ints")
		b, err := parquet.DeltaBinaryPacked.EncodeInt64(nil, ints)
		if err != nil {
			t.Fatal(err)
		}
		got, rest, err := decodeDelta(nil, append(b, 7, 7), len(ints))
		if err != nil || !slices.Equal(got, ints) || len(rest) != 2 {
			t.Fatalf("%v came back as %v, %v", ints, got, err)
		}
		words := rapid.SliceOfN(rapid.SliceOfN(rapid.ByteRange('a', 'c'), 0, 8), 1, 200).Draw(t, "strings")
		data, offsets := []byte{}, []uint32{0}
		for _, w := range words {
			data = append(data, w...)
			offsets = append(offsets, uint32(len(data)))
		}
		lengths, err := parquet.DeltaLengthByteArray.EncodeByteArray(nil, data, offsets)
		if err != nil {
			t.Fatal(err)
		}
		prefixed, err := parquet.DeltaByteArray.EncodeByteArray(nil, data, offsets)
		if err != nil {
			t.Fatal(err)
		}
		for encoding, b := range map[int32][]byte{encodingDeltaLength: lengths, encodingDeltaByteArray: prefixed} {
			var v values
			v.typed = new(typed)
			if err := v.other(encoding, parquet.ByteArray, 0, len(words), b); err != nil {
				t.Fatal(err)
			}
			for i, w := range words {
				if !bytes.Equal(v.bytes(i), w) {
					t.Fatalf("encoding %d: string %d is %q, not %q", encoding, i, v.bytes(i), w)
				}
			}
		}
	})
}

func TestSplitBytesComeBackAsOthersEncodeThem(t *testing.T) {
	floats, longs := []float32{1.5, -2, 1e30}, []int64{1, -1, math.MaxInt64}
	b, err := parquet.ByteStreamSplit.EncodeFloat(nil, floats)
	if err != nil {
		t.Fatal(err)
	}
	var v typed
	if err := v.other(encodingByteStreamSplit, parquet.Float, 0, 3, b); err != nil || !slices.Equal(v.f32, floats) {
		t.Errorf("%v, %v", v.f32, err)
	}
	if b, err = parquet.ByteStreamSplit.EncodeInt64(nil, longs); err != nil {
		t.Fatal(err)
	}
	if err := v.other(encodingByteStreamSplit, parquet.Int64, 0, 3, b); err != nil || !slices.Equal(v.i64, longs) {
		t.Errorf("%v, %v", v.i64, err)
	}
}

// TestListsAndMapsOfOlderWriters writes today's forms and puts older schemas over
// the same levels.
func TestListsAndMapsOfOlderWriters(t *testing.T) {
	long := schema.Type{Kind: schema.Long}
	one := schema.Type{Kind: schema.Struct, Fields: []schema.Field{{Name: "x", Type: long}}}
	longs, structs := schema.Type{Kind: schema.Array, Elem: &long}, schema.Type{Kind: schema.Array, Elem: &one}
	nulls := schema.Type{Kind: schema.Array, Elem: &long, ElemNull: true}
	pairs := schema.Type{Kind: schema.Map, Key: &long, Value: &long, ValueNull: true}
	inner := func(e *element) *element { return e.children[0].children[0] }
	for _, c := range []struct {
		name     string
		typ      schema.Type
		required bool
		edit     func(w *Writer, e *element)
	}{
		{"two levels", longs, false, func(w *Writer, e *element) { e.children = []*element{repeated(inner(e), "element")} }},
		{"two levels under array", structs, false, func(w *Writer, e *element) { e.children = []*element{repeated(inner(e), "array")} }},
		{"two levels under c_tuple", structs, false, func(w *Writer, e *element) { e.children = []*element{repeated(inner(e), "c_tuple")} }},
		{"two levels of a name that tells nothing", structs, false, func(w *Writer, e *element) { e.children = []*element{repeated(inner(e), "item")} }},
		{"bag", nulls, false, func(w *Writer, e *element) { e.children[0].name, inner(e).name = "bag", "array_element" }},
		{"no annotation", nulls, false, func(w *Writer, e *element) { e.converted = -1 }},
		{"repeated alone", longs, true, func(w *Writer, e *element) { w.elements[0] = repeated(inner(e), "c") }},
		{"map without annotation", pairs, false, func(w *Writer, e *element) { e.converted = -1 }},
		{"map under map", pairs, false, func(w *Writer, e *element) {
			e.children[0].name, e.children[0].converted = "map", 2
			e.children[0].children[0].name, e.children[0].children[1].name = "k", "v"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &schema.Schema{Fields: []schema.Field{{Name: "c", Type: c.typ, Nullable: !c.required}}}
			b := NewBatch(s)
			for i := range 500 {
				col := b.Cols[0]
				if !c.required && i%5 == 0 {
					col.AppendNull()
					continue
				}
				for j := range i % 4 {
					v := int64(i*10 + j)
					switch {
					case c.typ.Kind == schema.Map:
						col.Key.AppendInt(v)
						col.Value.AppendInt(-v)
					case c.typ.Elem.Kind == schema.Struct:
						col.Elem.Fields[0].AppendInt(v)
						col.Elem.EndStruct()
					case c.typ.ElemNull && j == 1:
						col.Elem.AppendNull()
					default:
						col.Elem.AppendInt(v)
					}
				}
				if c.typ.Kind == schema.Map {
					col.EndMap()
				} else {
					col.EndArray()
				}
			}
			var out bytes.Buffer
			w, err := NewWriter(&out, WriterOptions{Schema: s})
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Write(b); err != nil {
				t.Fatal(err)
			}
			c.edit(w, w.elements[0])
			rename(w.elements, nil)
			if _, err := w.Close(); err != nil {
				t.Fatal(err)
			}
			f := openBytes(t, out.Bytes())
			if d := diff(readAll(t, f, s, 7), b); d != "" {
				t.Fatal(d)
			}
		})
	}
}

// repeated makes an element the repeated field of a list.
func repeated(e *element, name string) *element {
	e.name, e.repetition = name, parquetRepeated
	return e
}

// rename gives leaves the paths that their elements have.
func rename(elements []*element, path []string) {
	for _, e := range elements {
		at := append(slices.Clip(path), e.name)
		if e.leaf != nil {
			e.leaf.path = at
		}
		rename(e.children, at)
	}
}

// TestPagesThatClaimMuchTakeLittleMemory gives headers and chunks whose sizes are
// lies of two gigabytes.
func TestPagesThatClaimMuchTakeLittleMemory(t *testing.T) {
	for _, codec := range []format.CompressionCodec{
		format.Uncompressed, format.Snappy, format.Gzip, format.Brotli, format.Lz4Raw, format.Zstd,
	} {
		for _, values := range []int32{10, math.MaxInt32} {
			t.Run(fmt.Sprint(codec, values), func(t *testing.T) {
				body, err := parquet.LookupCompressionCodec(codec).Encode(nil, make([]byte, 4000))
				if err != nil {
					t.Fatal(err)
				}
				var h thriftWriter
				h.reset()
				h.i32(1, pageData)
				h.i32(2, math.MaxInt32)
				h.i32(3, int32(len(body)))
				h.open(5)
				h.i32(1, values)
				h.i32(2, encodingDeltaBinaryPacked)
				h.i32(3, encodingRLE)
				h.i32(4, encodingRLE)
				h.close()
				data := append(append(h.b, 0), body...)
				p := &pageReader{
					r: bytes.NewReader(data), physical: parquet.Int64, maxDefinition: 1, codec: codec,
					values: math.MaxInt64, uncompressed: math.MaxInt64, end: int64(len(data)),
				}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				_, err = p.next()
				runtime.ReadMemStats(&after)
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
					t.Errorf("error is %v", err)
				}
				if took := after.TotalAlloc - before.TotalAlloc; took > 150<<20 {
					t.Errorf("took %d MiB", took>>20)
				}
			})
		}
	}
}

func TestFootersThatClaimMuchTakeLittleMemory(t *testing.T) {
	for _, list := range []int16{2, 4, 5, 7} { // of the schema, row groups, metadata and orders
		var w thriftWriter
		w.reset()
		w.i32(1, 2)
		w.list(list, thriftStruct, 200_000_000)
		b := append([]byte(magic), w.b...)
		b = append(b, make([]byte, 64)...)
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(b)-4)), magic...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Open(bytes.NewReader(b), int64(len(b)))
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrCorrupt) || took > 1<<20 {
			t.Errorf("list %d: took %d bytes, error is %v", list, took, err)
		}
	}
}

// FuzzDelta decodes whatever bytes in the encodings of others.
func FuzzDelta(f *testing.F) {
	ints, _ := parquet.DeltaBinaryPacked.EncodeInt64(nil, []int64{1, 2, 3, 5, 8, -13})
	f.Add(ints, uint16(6))
	text, _ := parquet.DeltaByteArray.EncodeByteArray(nil, []byte("appapplyapple"), []uint32{0, 3, 8, 13})
	f.Add(text, uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		if got, _, err := decodeDelta(nil, b, int(n)); err == nil && len(got) != int(n) {
			t.Fatalf("%d values, not %d", len(got), n)
		}
		for _, e := range []int32{encodingDeltaLength, encodingDeltaByteArray} {
			v := values{typed: new(typed)}
			if err := v.other(e, parquet.ByteArray, 0, int(n), b); err == nil {
				for i := range int(n) {
					_ = v.bytes(i)
				}
			}
		}
	})
}

// FuzzPage reads whatever bytes as the pages of a chunk.
func FuzzPage(f *testing.F) {
	s, b := everything(40)
	for _, name := range []string{"strings", "map", "decimal5", "few"} {
		field := s.Fields[s.Field(name)]
		data, _ := write(f, WriterOptions{Schema: &schema.Schema{Fields: []schema.Field{field}}, Codec: Uncompressed}, &Batch{Names: []string{name}, Cols: []*Column{b.Column(name)}})
		file := openBytes(f, data)
		m := file.groups[0].Columns[0].MetaData
		start := m.DataPageOffset
		if m.DictionaryPageOffset > 0 {
			start = m.DictionaryPageOffset
		}
		f.Add(data[start:start+m.TotalCompressedSize], uint8(m.Type), uint8(2), uint8(1), uint16(m.NumValues))
	}
	f.Fuzz(func(t *testing.T, data []byte, physical, definition, repetition uint8, values uint16) {
		p := &pageReader{
			r: bytes.NewReader(data), physical: parquet.Kind(physical % 8), width: 5,
			maxDefinition: definition, maxRepetition: repetition,
			values: int64(values), uncompressed: 1 << 20, end: int64(len(data)),
		}
		for range 100 {
			ok, err := func() (ok bool, err error) {
				defer guard(&err)
				return p.next()
			}()
			if err != nil || !ok {
				return
			}
			if p.page.entries > int(values) {
				t.Fatalf("page of %d entries", p.page.entries)
			}
		}
	})
}
