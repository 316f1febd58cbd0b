package copybinary

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/activities/change"
)

var header = append([]byte(signature), 0, 0, 0, 0, 0, 0, 0, 0)

func appendRow(b []byte, values ...[]byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(values)))
	for _, v := range values {
		if v == nil {
			b = binary.BigEndian.AppendUint32(b, 0xffffffff)
			continue
		}
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
	}
	return b
}

func appendTrailer(b []byte) []byte { return append(b, 0xff, 0xff) }

// parse feeds a stream in pieces and returns what was yielded, as tuples.
func parse(columns int, pieces ...[]byte) (rows [][]byte, err error) {
	kinds := bytes.Repeat([]byte{change.Binary}, columns)
	p := New(kinds, func(t *change.Tuple) error {
		rows = append(rows, change.AppendTuple(nil, t))
		return nil
	})
	for _, piece := range pieces {
		// A copy that is spoilt afterwards shows what was kept.
		own := bytes.Clone(piece)
		_, err := p.Write(own)
		for i := range own {
			own[i] = 0xEE
		}
		if err != nil {
			return rows, err
		}
	}
	if p.Rows() != int64(len(rows)) {
		return rows, fmt.Errorf("counted %d rows of %d", p.Rows(), len(rows))
	}
	return rows, p.Close()
}

func TestRowsSurviveAnyDivisionIntoWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		columns := rapid.IntRange(0, 6).Draw(t, "columns")
		stream := bytes.Clone(header)
		if n := rapid.IntRange(0, 9).Draw(t, "extension"); n > 0 {
			stream[len(stream)-1] = byte(n)
			stream = append(stream, make([]byte, n)...)
		}
		var want [][]byte
		for range rapid.IntRange(0, 12).Draw(t, "rows") {
			var row change.Tuple
			values := make([][]byte, columns)
			for i := range values {
				if rapid.Bool().Draw(t, "null") {
					row.Append(change.Null, nil)
					continue
				}
				values[i] = rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "value")
				if values[i] == nil {
					values[i] = []byte{}
				}
				row.Append(change.Binary, values[i])
			}
			want = append(want, change.AppendTuple(nil, &row))
			stream = appendRow(stream, values...)
		}
		stream = appendTrailer(stream)
		var pieces [][]byte
		for rest := stream; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		got, err := parse(columns, pieces...)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestColumnsSelectedAsTextHaveThatKind(t *testing.T) {
	var kinds string
	p := New([]byte{change.Binary, change.Text, change.Text}, func(t *change.Tuple) error {
		kinds += string(t.Kinds) + " "
		return nil
	})
	stream := appendTrailer(appendRow(appendRow(bytes.Clone(header), []byte{1}, []byte("a"), nil), nil, []byte{}, []byte("b")))
	if _, err := p.Write(stream); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil || kinds != "btn ntt " {
		t.Errorf("kinds %q, %v", kinds, err)
	}
}

func TestBrokenStreamsAreRefused(t *testing.T) {
	row := appendRow(bytes.Clone(header), []byte("a"), []byte("b"))
	huge := append(binary.BigEndian.AppendUint16(bytes.Clone(header), 2), 0x7f, 0xff, 0xff, 0xff)
	negative := append(binary.BigEndian.AppendUint16(bytes.Clone(header), 2), 0xff, 0xff, 0xff, 0xfe)
	oids := bytes.Clone(header)
	oids[len(signature)+1] = 1
	extension := bytes.Clone(header)
	extension[len(extension)-4] = 0x7f
	for name, stream := range map[string][]byte{
		"empty":                    nil,
		"a part of the signature":  header[:5],
		"another signature":        []byte("PGCOPX\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		"text, as old clients get": []byte("PGCOPY\n\xff\n\x00"),
		"OIDs included":            appendTrailer(oids),
		"endless extension":        extension,
		"no trailer":               row,
		"a part of a row":          row[:len(row)-1],
		"bytes after the trailer":  append(appendTrailer(bytes.Clone(row)), 0),
		"a column too few":         appendTrailer(appendRow(bytes.Clone(header), []byte("a"))),
		"a huge value":             huge,
		"a negative length":        negative,
	} {
		if _, err := parse(2, stream); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		var single [][]byte
		for i := range stream {
			single = append(single, stream[i:i+1])
		}
		if _, err := parse(2, single...); !errors.Is(err, ErrFormat) {
			t.Errorf("%s, byte by byte: %v", name, err)
		}
	}
}

func TestErrorOfYieldEndsParsing(t *testing.T) {
	stop := errors.New("enough")
	p := New([]byte{change.Binary}, func(*change.Tuple) error { return stop })
	stream := appendTrailer(appendRow(bytes.Clone(header), []byte("a")))
	if _, err := p.Write(stream); !errors.Is(err, stop) {
		t.Errorf("write: %v", err)
	}
	if _, err := p.Write(stream); !errors.Is(err, stop) {
		t.Errorf("write again: %v", err)
	}
	if err := p.Close(); !errors.Is(err, stop) {
		t.Errorf("close: %v", err)
	}
}

func TestAnnouncedLengthTakesNoMemory(t *testing.T) {
	p := New([]byte{change.Binary}, func(*change.Tuple) error { return nil })
	stream := append(binary.BigEndian.AppendUint16(bytes.Clone(header), 1), 0x3f, 0xff, 0xff, 0xff)
	if _, err := p.Write(stream); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if cap(p.rest) > 4096 {
		t.Errorf("%d bytes were taken for 100", cap(p.rest))
	}
}

func TestRowsAreParsedWithoutAllocation(t *testing.T) {
	p := New([]byte{change.Binary, change.Binary}, func(*change.Tuple) error { return nil })
	if _, err := p.Write(header); err != nil {
		t.Fatal(err)
	}
	row := appendRow(nil, []byte("12345678"), nil)
	if n := testing.AllocsPerRun(100, func() { _, _ = p.Write(row) }); n > 0 {
		t.Errorf("whole rows take %v allocations", n)
	}
	a, b := row[:7], row[7:]
	if n := testing.AllocsPerRun(100, func() { _, _ = p.Write(a); _, _ = p.Write(b) }); n > 0 {
		t.Errorf("divided rows take %v allocations", n)
	}
}

// FuzzParser checks that no bytes make the parser panic, and that how they are
// divided changes nothing.
func FuzzParser(f *testing.F) {
	f.Add(uint8(2), uint64(1), appendTrailer(appendRow(bytes.Clone(header), []byte("a"), nil)))
	f.Add(uint8(0), uint64(2), appendTrailer(appendRow(bytes.Clone(header))))
	f.Add(uint8(1), uint64(3), appendRow(bytes.Clone(header), bytes.Repeat([]byte("x"), 300)))
	f.Fuzz(func(t *testing.T, columns uint8, seed uint64, stream []byte) {
		whole, wholeErr := parse(int(columns), stream)
		random := rand.New(rand.NewPCG(seed, 0))
		var pieces [][]byte
		for rest := stream; len(rest) > 0; {
			n := 1 + random.IntN(min(len(rest), 64))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		divided, dividedErr := parse(int(columns), pieces...)
		if (wholeErr == nil) != (dividedErr == nil) || fmt.Sprint(whole) != fmt.Sprint(divided) {
			t.Fatalf("whole: %d rows, %v; divided: %d rows, %v", len(whole), wholeErr, len(divided), dividedErr)
		}
		if wholeErr != nil && !errors.Is(wholeErr, ErrFormat) {
			t.Fatalf("an error of another class: %v", wholeErr)
		}
	})
}

func BenchmarkParser(b *testing.B) {
	values := make([][]byte, 10)
	for i := range values {
		values[i] = []byte("sixteen bytes ok")
	}
	row := appendRow(nil, values...)
	p := New(bytes.Repeat([]byte{change.Binary}, 10), func(*change.Tuple) error { return nil })
	if _, err := p.Write(header); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(row)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Write(row); err != nil {
			b.Fatal(err)
		}
	}
}
