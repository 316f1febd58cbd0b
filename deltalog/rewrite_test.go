package deltalog

import (
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"pgregory.net/rapid"
)

// drawRewrite moves the rows of some files into others, and returns besides the
// moves what each row of an output was.
func drawRewrite(t *rapid.T, inputs map[uint32]int, next uint32) (moves map[uint32]*move, outputs map[uint32]int, from map[location]location) {
	r := rewrite{}
	var ids []uint32
	var hidden []*roaring64.Bitmap
	var stream []location
	for id := uint32(0); id < next; id++ {
		rows, ok := inputs[id]
		if !ok || !rapid.Bool().Draw(t, "moves") {
			continue
		}
		var h *roaring64.Bitmap
		for row := range rows {
			if rapid.IntRange(0, 3).Draw(t, "hide") == 0 {
				if h == nil {
					h = roaring64.New()
				}
				h.Add(uint64(row))
				continue
			}
			stream = append(stream, location{id, uint32(row)})
		}
		in := rewriteInput{Rows: int64(rows)}
		if h != nil {
			in.Rows -= int64(h.GetCardinality())
		}
		r.Inputs = append(r.Inputs, in)
		ids, hidden = append(ids, id), append(hidden, h)
	}
	outputs, from, moves = map[uint32]int{}, map[location]location{}, map[uint32]*move{}
	var files []uint32
	for left := len(stream); left > 0 || len(files) == 0; {
		n := rapid.IntRange(0, left).Draw(t, "rows")
		r.Outputs = append(r.Outputs, rewriteOutput{Rows: int64(n)})
		for row := range n {
			from[location{next, uint32(row)}] = stream[len(stream)-left+row]
		}
		outputs[next] = n
		files = append(files, next)
		next, left = next+1, left-n
	}
	if !r.balanced() {
		t.Fatal("rows were lost")
	}
	for i, m := range r.moves(hidden, files) {
		moves[ids[i]] = m
	}
	return moves, outputs, from
}

func TestMovesTellWhereRowsAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inputs := map[uint32]int{}
		next := uint32(rapid.IntRange(1, 4).Draw(t, "files"))
		for id := range next {
			inputs[id] = rapid.IntRange(0, 40).Draw(t, "rows")
		}
		first, outputs, from := drawRewrite(t, inputs, next)
		next += uint32(len(outputs))
		second, _, from2 := drawRewrite(t, outputs, next)
		check := func(moves map[uint32]*move, want map[location]location) {
			t.Helper()
			found := 0
			for id, m := range moves {
				for row := range inputs[id] {
					at, ok := m.to(uint64(row))
					if !ok {
						continue
					}
					found++
					if want[at] != (location{id, uint32(row)}) {
						t.Fatalf("row %d of %d is said to be at %v, where %v is", row, id, at, want[at])
					}
				}
			}
			if found != len(want) {
				t.Fatalf("%d rows found, want %d", found, len(want))
			}
		}
		check(first, from)
		for file, m := range second {
			for id, was := range first {
				first[id] = was.then(file, m)
			}
		}
		both := map[location]location{}
		for at, was := range from {
			if second[at.file] == nil {
				both[at] = was
			}
		}
		for at, was := range from2 {
			both[at] = from[was]
		}
		check(first, both)
	})
}

func TestRewritingHoldsFewWideRows(t *testing.T) {
	for _, c := range []struct {
		rows, size int64
		want       int
	}{
		{1_000_000, 20 << 20, mostRows},
		{10_000, 100 << 20, 400},
		{100, 200 << 20, fewestRows},
		{1, 0, mostRows},
		{-1, 100 << 20, fewestRows},
	} {
		if got := rewriteRows(&File{Rows: c.rows, Size: c.size}); got != c.want {
			t.Errorf("%d rows of %d bytes: %d at once, want %d", c.rows, c.size, got, c.want)
		}
	}
}
