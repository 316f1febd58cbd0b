package pgsource

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// pieces reads b in pieces of random sizes.
type pieces struct {
	b      []byte
	random *rand.Rand
}

func (p *pieces) Read(to []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := min(len(to), len(p.b), 1+p.random.IntN(4096))
	copy(to, p.b[:n])
	p.b = p.b[n:]
	return n, nil
}

func appendFrame(b []byte, kind byte, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(append(b, kind), uint32(4+len(body))), body...)
}

func TestMessagesSurviveAnyDivisionIntoReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		var bodies [][]byte
		for range rapid.IntRange(1, 12).Draw(t, "messages") {
			size := rapid.SampledFrom([]int{0, 1, 100, 5000, wireBuffer - 5, wireBuffer, 3 * wireBuffer}).Draw(t, "size")
			body := bytes.Repeat([]byte{byte(len(bodies))}, size)
			bodies = append(bodies, body)
			stream = appendFrame(stream, 'd', body)
		}
		x := &wire{src: &pieces{stream, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))}}
		// The first messages go to pgx, which asks for header and body.
		first := rapid.IntRange(0, len(bodies)).Draw(t, "messages that pgx reads")
		for i, want := range bodies {
			if i < first {
				got := make([]byte, 5+len(want))
				if _, err := io.ReadFull(x, got[:5]); err != nil {
					t.Fatal(err)
				}
				if n, err := io.ReadAtLeast(x, append(got[5:], make([]byte, 8192)...), len(want)); err != nil || n != len(want) {
					t.Fatalf("pgx gets %d bytes of a message of %d: %v", n, len(want), err)
				}
				continue
			}
			kind, body, err := x.next()
			if err != nil || kind != 'd' || !bytes.Equal(body, want) {
				t.Fatalf("message %d: %c, %d bytes of %d, %v", i, kind, len(body), len(want), err)
			}
		}
		if _, _, err := x.next(); !errors.Is(err, io.EOF) {
			t.Fatalf("at the end: %v", err)
		}
	})
}

// FuzzWire checks that no bytes make the reader panic, loop or hand out more
// than came.
func FuzzWire(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, 'd', []byte("body")), 'Z', []byte("I")))
	f.Add([]byte{'d', 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{'d', 0, 0, 0, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		x := &wire{src: &pieces{b, rand.New(rand.NewPCG(1, 2))}}
		total := 0
		for {
			_, body, err := x.next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, errFrame) {
					t.Fatal(err)
				}
				return
			}
			if total += 5 + len(body); total > len(b) {
				t.Fatalf("%d bytes of %d", total, len(b))
			}
		}
	})
}
