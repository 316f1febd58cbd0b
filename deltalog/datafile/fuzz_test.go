package datafile

import (
	"bytes"
	"context"
	"testing"
)

// FuzzOpen reads whatever bytes: there may be errors, never a panic nor memory
// out of proportion.
func FuzzOpen(f *testing.F) {
	s, b := everything(40)
	for _, codec := range []Codec{Uncompressed, Zstd} {
		data, _ := write(f, WriterOptions{Schema: s, RowGroupRows: 25, Codec: codec}, b)
		f.Add(data)
	}
	f.Add([]byte("PAR1\x00\x00\x00\x00PAR1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		for got, err := range file.Read(context.Background(), file.Schema(), ReadOptions{BatchRows: 16}) {
			if err != nil {
				break
			}
			if err := got.check(); err != nil {
				t.Fatal(err)
			}
			if got.First > 1000 {
				break
			}
		}
		_, _ = file.ReadRows(context.Background(), file.Schema(), []int64{0})
	})
}

// FuzzRLE decodes whatever bytes, and what was encoded.
func FuzzRLE(f *testing.F) {
	f.Add([]byte{0x10, 0x03, 0x03, 0x88, 0xc6, 0xfa}, uint8(3), uint16(16))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3}, uint8(8), uint16(11))
	f.Fuzz(func(t *testing.T, b []byte, width uint8, n uint16) {
		w := int(width % 33)
		if got, _, err := decodeRLE[uint32](nil, b, w, int(n)); err == nil && len(got) != int(n) {
			t.Fatalf("%d values, not %d", len(got), n)
		}
		values := make([]uint8, len(b))
		w = max(1, w%9)
		for i := range b {
			values[i] = b[i] & (1<<w - 1)
		}
		got, rest, err := decodeRLE[uint8](nil, appendRLE(nil, values, w), w, len(values))
		if err != nil || len(rest) > 0 || !bytes.Equal(got, values) {
			t.Fatalf("width %d: %v came back as %v, %v", w, values, got, err)
		}
	})
}
