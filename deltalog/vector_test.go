package deltalog

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"pgregory.net/rapid"
)

// drawBitmap draws bitmaps with containers of every kind.
func drawBitmap(t *rapid.T) *roaring64.Bitmap {
	bm := roaring64.New()
	for range rapid.IntRange(1, 5).Draw(t, "parts") {
		base := rapid.SampledFrom([]uint64{0, 1 << 16, 5 << 16, 1 << 32, 7 << 32}).Draw(t, "base")
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			for _, v := range rapid.SliceOfN(rapid.Uint64Range(0, 1<<17), 1, 50).Draw(t, "values") {
				bm.Add(base + v)
			}
		case 1:
			n := rapid.Uint64Range(1, 1<<17).Draw(t, "run")
			bm.AddRange(base, base+n)
		case 2:
			step := rapid.Uint64Range(2, 9).Draw(t, "step")
			for v := uint64(0); v < 1<<16; v += step {
				bm.Add(base + v)
			}
		}
	}
	return bm
}

func TestEveryBitmapOfTheLibraryPassesTheCheck(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bm := drawBitmap(t)
		if rapid.Bool().Draw(t, "optimized") {
			bm.RunOptimize()
		}
		var buf bytes.Buffer
		_ = binary.Write(&buf, binary.LittleEndian, uint32(vectorMagic))
		if _, err := bm.WriteTo(&buf); err != nil {
			t.Fatal(err)
		}
		got, err := decodeVector(buf.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if !got.Equals(bm) {
			t.Fatal("it came back otherwise")
		}
	})
}

func FuzzDecodeVector(f *testing.F) {
	for _, build := range []func(*roaring64.Bitmap){
		func(*roaring64.Bitmap) {},
		func(bm *roaring64.Bitmap) { bm.AddMany([]uint64{3, 4, 7, 11, 18, 29}) },
		func(bm *roaring64.Bitmap) { bm.AddRange(0, 100_000) },
		func(bm *roaring64.Bitmap) { bm.AddMany([]uint64{1, 1 << 20, 1 << 33, 1 << 40}) },
		func(bm *roaring64.Bitmap) {
			for v := uint64(0); v < 10_000; v += 2 {
				bm.Add(v)
			}
		},
	} {
		for _, optimize := range []bool{false, true} {
			bm := roaring64.New()
			build(bm)
			if optimize {
				bm.RunOptimize()
			}
			var buf bytes.Buffer
			_ = binary.Write(&buf, binary.LittleEndian, uint32(vectorMagic))
			if _, err := bm.WriteTo(&buf); err != nil {
				f.Fatal(err)
			}
			f.Add(buf.Bytes())
			f.Add(buf.Bytes()[:buf.Len()-1])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		bm, err := decodeVector(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		n := bm.GetCardinality()
		if n > 1<<17 {
			return
		}
		values := bm.ToArray()
		if uint64(len(values)) != n || !slices.IsSorted(values) {
			t.Fatalf("%d values of %d", len(values), n)
		}
		if again := roaring64.BitmapOf(values...); !again.Equals(bm) {
			t.Fatal("its values make another bitmap")
		}
	})
}

func TestZ85(t *testing.T) {
	// The example of the specification.
	b := []byte{0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B}
	if got := encodeZ85(b); got != "HelloWorld" {
		t.Fatal(got)
	}
	if got, err := decodeZ85("HelloWorld"); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("%x, %v", got, err)
	}
	for range 100 {
		var id [16]byte
		_, _ = rand.Read(id[:]) // it never fails
		got, err := decodeZ85(encodeZ85(id[:]))
		if err != nil || !bytes.Equal(got, id[:]) {
			t.Fatalf("%x became %x, %v", id, got, err)
		}
	}
	for _, bad := range []string{"a", "abcd", "\"\"\"\"\"", "#####", "abc é"} {
		if got, err := decodeZ85(bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q decodes to %x, %v", bad, got, err)
		}
	}
}

func TestVectorNames(t *testing.T) {
	// The examples of the protocol.
	for _, c := range []struct{ path, want string }{
		{"vBn[lx{q8@P<9BNH/isA", "deletion_vector_61d16c75-6994-46b7-a15b-8b538852e50e.bin"},
		{"ab^-aqEH.-t@S}K{vb[*k^", "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin"},
	} {
		v := &Vector{StorageType: "u", PathOrInline: c.path, Offset: 4, SizeInBytes: 40, Cardinality: 6}
		got, err := v.name()
		if err != nil || got != c.want {
			t.Errorf("%s: %s, %v", c.path, got, err)
		}
		if id := v.uniqueID(); id != "u"+c.path+"@4" {
			t.Error(id)
		}
	}
	if _, err := (&Vector{StorageType: "u", PathOrInline: "short"}).name(); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
}
