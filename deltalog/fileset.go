package deltalog

import (
	"cmp"
	"iter"
	"slices"
)

// chunkFiles is how many files a chunk of a fileSet holds at most: a change
// copies one chunk, and one pointer for every chunk.
const chunkFiles = 256

// fileSet is an immutable set of files in the order of [File.compare]. A set
// made from another shares all chunks in which nothing changed. The zero
// fileSet is empty.
type fileSet struct {
	chunks [][]*File // none empty
	len    int
}

// fileEdit puts a file into a set, or takes the equal one out.
type fileEdit struct {
	file   *File
	remove bool
	turn   int32 // its place among the edits
}

// chunk returns the index of the chunk that f belongs to.
func (s fileSet) chunk(f *File) int {
	i, found := slices.BinarySearchFunc(s.chunks, f, func(c []*File, f *File) int { return c[0].compare(f) })
	if !found && i > 0 {
		i--
	}
	return i
}

// get returns the file of the set that is identical with f, or nil.
func (s fileSet) get(f *File) *File {
	if s.len == 0 {
		return nil
	}
	c := s.chunks[s.chunk(f)]
	if i, found := slices.BinarySearchFunc(c, f, (*File).compare); found {
		return c[i]
	}
	return nil
}

// at returns the files of a path: one, unless the log is odd.
func (s fileSet) at(path string) []*File {
	if s.len == 0 {
		return nil
	}
	probe := &File{Path: path} // sorts before all of its path
	var found []*File
	for i := s.chunk(probe); i < len(s.chunks); i++ {
		j, _ := slices.BinarySearchFunc(s.chunks[i], probe, (*File).compare)
		for ; j < len(s.chunks[i]); j++ {
			if s.chunks[i][j].Path != path {
				return found
			}
			found = append(found, s.chunks[i][j])
		}
	}
	return found
}

// all yields the files in order.
func (s fileSet) all() iter.Seq[*File] {
	return func(yield func(*File) bool) {
		for _, c := range s.chunks {
			for _, f := range c {
				if !yield(f) {
					return
				}
			}
		}
	}
}

// edit returns the set with the edits done in their order; the later of two
// for one file wins. It sorts edits in place.
func (s fileSet) edit(edits []fileEdit) fileSet {
	if len(edits) == 0 {
		return s
	}
	for i := range edits {
		edits[i].turn = int32(i)
	}
	slices.SortFunc(edits, func(a, b fileEdit) int {
		if c := a.file.compare(b.file); c != 0 {
			return c
		}
		return cmp.Compare(a.turn, b.turn)
	})
	b := fileSetBuilder{chunks: make([][]*File, 0, len(s.chunks)+len(edits)/chunkFiles+1)}
	for i, c := range s.chunks {
		mine := edits
		if i+1 < len(s.chunks) {
			next := s.chunks[i+1][0]
			n, _ := slices.BinarySearchFunc(edits, next, func(e fileEdit, f *File) int { return e.file.compare(f) })
			mine = edits[:n]
		}
		edits = edits[len(mine):]
		if len(mine) == 0 {
			b.share(c)
			continue
		}
		b.add(merge(c, mine))
	}
	if len(s.chunks) == 0 {
		b.add(merge(nil, edits))
	}
	return fileSet(b)
}

// merge returns the files of a chunk with edits, all in order.
func merge(c []*File, edits []fileEdit) []*File {
	out := make([]*File, 0, len(c)+len(edits))
	for i, e := range edits {
		if i+1 < len(edits) && edits[i+1].file.compare(e.file) == 0 {
			continue // the later one counts
		}
		n, found := slices.BinarySearchFunc(c, e.file, (*File).compare)
		out = append(out, c[:n]...)
		if found {
			n++
		}
		c = c[n:]
		if !e.remove {
			out = append(out, e.file)
		}
	}
	return append(out, c...)
}

// fileSetBuilder collects the chunks of a set.
type fileSetBuilder struct {
	chunks [][]*File
	len    int
}

func (b *fileSetBuilder) share(c []*File) {
	b.chunks = append(b.chunks, c)
	b.len += len(c)
}

// add appends files in chunks, joining small ones.
func (b *fileSetBuilder) add(files []*File) {
	b.len += len(files)
	if n := len(b.chunks); n > 0 && len(files) > 0 && len(b.chunks[n-1])+len(files) <= chunkFiles/2 {
		b.chunks[n-1] = slices.Concat(b.chunks[n-1], files)
		return
	}
	for len(files) > chunkFiles {
		n := min(chunkFiles, (len(files)+1)/2)
		b.chunks = append(b.chunks, slices.Clip(files[:n]))
		files = files[n:]
	}
	if len(files) > 0 {
		b.chunks = append(b.chunks, slices.Clip(files))
	}
}
