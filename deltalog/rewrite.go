package deltalog

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// rewriteParam is the parameter of a commit that says how rows moved from files
// to files, as a list of [rewrite] in JSON. Those who know where rows were can
// tell from it where they are.
const rewriteParam = "rewritten"

// rewrite tells how rows moved: those of the inputs that Hidden leaves, input
// after input and in the order of their rows, are those of the outputs, output
// after output.
type rewrite struct {
	Inputs  []rewriteInput  `json:"in"`
	Outputs []rewriteOutput `json:"out"`
}

// rewriteInput is a file whose rows moved.
type rewriteInput struct {
	Path string `json:"path"`
	// Rows counts the rows that moved.
	Rows int64 `json:"rows"`
	// Hidden has the rows that did not; nil means none.
	Hidden *Vector `json:"dv,omitempty"`
}

// rewriteOutput is a file that rows moved to.
type rewriteOutput struct {
	Path string `json:"path"`
	Rows int64  `json:"rows"`
}

// encodeRewrites returns the value of the parameter.
func encodeRewrites(list []rewrite) (string, error) {
	b, err := json.Marshal(list)
	if err != nil {
		return "", fmt.Errorf("describe rewritten files: %w", err)
	}
	return string(b), nil
}

// parseRewrites reads the parameter. What makes no sense is passed over: who
// does not know how rows moved reads them again.
func parseRewrites(text string) []rewrite {
	var list []rewrite
	if json.Unmarshal([]byte(text), &list) != nil {
		return nil
	}
	return slices.DeleteFunc(list, func(r rewrite) bool { return !r.balanced() })
}

// balanced tells whether as many rows went out as came in.
func (r *rewrite) balanced() bool {
	var in, out int64
	for _, f := range r.Inputs {
		if f.Rows < 0 {
			return false
		}
		in += f.Rows
	}
	for _, f := range r.Outputs {
		if f.Rows < 0 || f.Rows > 1<<32-1 {
			return false
		}
		out += f.Rows
	}
	return in == out && len(r.Outputs) > 0
}

// move says where the rows of a file went: of those that are not hidden, the
// nth, from 0, is in the span that it falls into.
type move struct {
	hidden *roaring64.Bitmap // nil means none
	live   uint64            // how many rows are not hidden
	spans  []moveSpan
}

// moveSpan is rows that follow each other in the file they left and in the one
// they are in.
type moveSpan struct {
	first uint64 // of the rows that are not hidden, from 0
	file  uint32
	base  uint64 // the place of the first in file
}

// to returns where a row is. Without ok it did not move.
func (m *move) to(row uint64) (l location, ok bool) {
	nth := row
	if m.hidden != nil {
		if m.hidden.Contains(row) {
			return l, false
		}
		nth -= m.hidden.Rank(row)
	}
	if nth >= m.live {
		return l, false
	}
	s := &m.spans[sort.Search(len(m.spans), func(i int) bool { return m.spans[i].first > nth })-1]
	return location{s.file, uint32(s.base + nth - s.first)}, true
}

// moves returns where the rows of each input went. hidden has the inputs'
// hidden rows, files the outputs' numbers.
func (r *rewrite) moves(hidden []*roaring64.Bitmap, files []uint32) []*move {
	list := make([]*move, len(r.Inputs))
	out, used := 0, uint64(0) // the output that is being filled, and how far
	for i, in := range r.Inputs {
		m := &move{hidden: hidden[i], live: uint64(in.Rows)}
		for at := uint64(0); at < m.live; {
			room := uint64(r.Outputs[out].Rows) - used
			if room == 0 {
				out, used = out+1, 0
				continue
			}
			n := min(room, m.live-at)
			m.spans = append(m.spans, moveSpan{at, files[out], used})
			at, used = at+n, used+n
		}
		list[i] = m
	}
	return list
}

// then returns where rows are when those of one of the files that they went to
// moved on.
func (m *move) then(file uint32, next *move) *move {
	c := &move{live: m.live}
	gone := roaring64.New() // by their number among the rows that are not hidden
	for i, s := range m.spans {
		end := m.live
		if i+1 < len(m.spans) {
			end = m.spans[i+1].first
		}
		lost := gone.GetCardinality()
		if s.file != file {
			c.spans = append(c.spans, moveSpan{s.first - lost, s.file, s.base})
			continue
		}
		n := end - s.first
		before := uint64(0) // hidden rows of next before the span
		if next.hidden != nil {
			if s.base > 0 {
				before = next.hidden.Rank(s.base - 1)
			}
			it := next.hidden.Iterator()
			for it.AdvanceIfNeeded(s.base); it.HasNext() && it.PeekNext() < s.base+n; {
				gone.Add(s.first + it.Next() - s.base)
			}
		}
		n -= gone.GetCardinality() - lost
		c.spans = append(c.spans, next.part(s.base-before, n, s.first-lost)...)
	}
	c.live -= gone.GetCardinality()
	c.hidden = m.alsoHidden(gone)
	return c
}

// onto returns where rows are when those of files that they went to moved on;
// m itself if none did.
func (m *move) onto(next map[uint32]*move) *move {
	passed := m
	for _, s := range m.spans {
		if on := next[s.file]; on != nil {
			passed = passed.then(s.file, on)
		}
	}
	return passed
}

// part returns the spans of n rows from the one numbered from, as spans whose
// numbers begin with first.
func (m *move) part(from, n, first uint64) []moveSpan {
	var list []moveSpan
	for i, s := range m.spans {
		end := m.live
		if i+1 < len(m.spans) {
			end = m.spans[i+1].first
		}
		lo, hi := max(from, s.first), min(from+n, end)
		if lo < hi {
			list = append(list, moveSpan{first + lo - from, s.file, s.base + lo - s.first})
		}
	}
	return list
}

// alsoHidden returns the hidden rows and, of the others, those of these
// numbers.
func (m *move) alsoHidden(numbers *roaring64.Bitmap) *roaring64.Bitmap {
	if numbers.IsEmpty() {
		return m.hidden
	}
	if m.hidden == nil {
		return numbers
	}
	all := m.hidden.Clone()
	hidden, before := m.hidden.Iterator(), uint64(0)
	for it := numbers.Iterator(); it.HasNext(); {
		nth := it.Next()
		for hidden.HasNext() && hidden.PeekNext() <= nth+before {
			hidden.Next()
			before++
		}
		all.Add(nth + before)
	}
	return all
}
