package deltalog

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestFileSetEqualsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SampledFrom([]int{3, 40, 3000}).Draw(t, "names")
		path := rapid.Map(rapid.IntRange(0, names), func(i int) string { return fmt.Sprintf("f%04d", i) })
		vector := rapid.Map(rapid.IntRange(0, 2), func(i int) *Vector {
			if i == 0 {
				return nil
			}
			return fakeVector(fmt.Sprint("v", i), 1)
		})
		want := map[string]*File{}
		var s fileSet
		for range rapid.IntRange(1, 6).Draw(t, "rounds") {
			before := slices.Collect(s.all())
			old := s
			var edits []fileEdit
			for range rapid.IntRange(0, names).Draw(t, "edits") {
				f := &File{Path: path.Draw(t, "path"), Vector: vector.Draw(t, "vector")}
				e := fileEdit{file: f, remove: rapid.Bool().Draw(t, "remove")}
				edits = append(edits, e)
				if e.remove {
					delete(want, f.Path+"\x00"+f.Vector.uniqueID())
				} else {
					want[f.Path+"\x00"+f.Vector.uniqueID()] = f
				}
			}
			s = s.edit(edits)
			if !slices.Equal(slices.Collect(old.all()), before) {
				t.Fatal("an edit changed the set that it began with")
			}
		}
		got := slices.Collect(s.all())
		if len(got) != len(want) || s.len != len(want) {
			t.Fatalf("%d files, len %d, want %d", len(got), s.len, len(want))
		}
		if !slices.IsSortedFunc(got, (*File).compare) {
			t.Fatal("not in order")
		}
		for _, key := range slices.Sorted(maps.Keys(want)) {
			f := want[key]
			if s.get(f) != f {
				t.Fatalf("%q is not found", key)
			}
			if !slices.Contains(s.at(f.Path), f) {
				t.Fatalf("%q is not found by its path", key)
			}
		}
		for _, c := range s.chunks {
			if len(c) == 0 || len(c) > chunkFiles {
				t.Fatalf("a chunk of %d files", len(c))
			}
		}
		if s.get(&File{Path: "none"}) != nil || s.at("none") != nil {
			t.Fatal("found what is not there")
		}
	})
}

func TestFileSetSharesWhatDidNotChange(t *testing.T) {
	var edits []fileEdit
	for i := range 10000 {
		edits = append(edits, fileEdit{file: &File{Path: fmt.Sprintf("f%05d", i)}})
	}
	s := fileSet{}.edit(edits)
	n := s.edit([]fileEdit{{file: &File{Path: "f05000x"}}, {file: &File{Path: "f00000"}, remove: true}})
	shared := 0
	for _, c := range n.chunks {
		for _, d := range s.chunks {
			if &c[0] == &d[0] && len(c) == len(d) {
				shared++
			}
		}
	}
	if shared < len(s.chunks)-2 {
		t.Fatalf("%d of %d chunks are shared", shared, len(s.chunks))
	}
}

func BenchmarkCommitTo10kFiles(b *testing.B) {
	var edits []fileEdit
	for i := range 10000 {
		edits = append(edits, fileEdit{file: &File{Path: fmt.Sprintf("part-%05d-0f0e-4c1d-9b8a-000000000000.parquet", i*7919%10000)}})
	}
	s := fileSet{}.edit(edits)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		old := s.chunks[i%len(s.chunks)][0]
		s = s.edit([]fileEdit{{file: old, remove: true}})
		s = s.edit([]fileEdit{{file: old.WithVector(fakeVector(fmt.Sprint(i), 1))}})
	}
}
