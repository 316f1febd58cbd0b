package deltalog

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// runBytes is how much of names and values a run holds.
	runBytes = 8 << 20
	// runStride is after how many entries the place of one is kept, of runs
	// that are on the disk.
	runStride = 4096
	// runBuffer is how much of a run is read or written at once.
	runBuffer = 128 << 10
)

// entryRun is entries of an index to be, sorted once it is full.
type entryRun struct {
	bytes  []byte // name and value of each
	list   []runEntry
	common []byte // what all names begin with

	// Once it is on the disk:
	file   vfs.File
	count  int
	places []runPlace
}

// runEntry is an entry of a run: where its name and its value are. Head is what
// the name goes on with after what all have in common.
type runEntry struct {
	head  uint64
	off   uint32
	name  uint32
	value uint32
}

// runPlace is where an entry is on the disk.
type runPlace struct {
	name []byte
	off  int64
}

func (r *entryRun) add(name, value []byte) {
	if len(r.list) == 0 {
		r.common = append(r.common[:0], name...)
	} else if n := commonPrefix(r.common, name); n < len(r.common) {
		r.common = r.common[:n]
	}
	r.list = append(r.list, runEntry{off: uint32(len(r.bytes)), name: uint32(len(name)), value: uint32(len(value))})
	r.bytes = append(append(r.bytes, name...), value...)
}

func (r *entryRun) full() bool { return len(r.bytes) >= runBytes }

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func (r *entryRun) name(e *runEntry) []byte { return r.bytes[e.off : e.off+e.name] }

func (r *entryRun) value(e *runEntry) []byte {
	return r.bytes[e.off+e.name : e.off+e.name+e.value]
}

// sort orders the entries by their names.
func (r *entryRun) sort() {
	skip := len(r.common)
	for i := range r.list {
		e := &r.list[i]
		var head [8]byte
		copy(head[:], r.name(e)[skip:])
		e.head = binary.BigEndian.Uint64(head[:])
	}
	slices.SortFunc(r.list, func(a, b runEntry) int {
		switch {
		case a.head < b.head:
			return -1
		case a.head > b.head:
			return 1
		}
		return bytes.Compare(r.name(&a), r.name(&b))
	})
	r.count = len(r.list)
}

// spill moves a sorted run to a file.
func (r *entryRun) spill(fs vfs.FS, name string) (err error) {
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	w, off := bufio.NewWriterSize(f, runBuffer), int64(0)
	var head [2 * binary.MaxVarintLen32]byte
	for i := range r.list {
		e := &r.list[i]
		if i%runStride == 0 {
			r.places = append(r.places, runPlace{bytes.Clone(r.name(e)), off})
		}
		n := binary.PutUvarint(head[:], uint64(e.name))
		n += binary.PutUvarint(head[n:], uint64(e.value))
		body := r.bytes[e.off : e.off+e.name+e.value]
		_, err1 := w.Write(head[:n])
		_, err2 := w.Write(body)
		if err := errors.Join(err1, err2); err != nil {
			return errors.Join(err, f.Close())
		}
		off += int64(n + len(body))
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return err
	}
	r.file, err = fs.Open(name)
	r.bytes, r.list = nil, nil
	return err
}

func (r *entryRun) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// samples returns names that cut the run into n parts of one size.
func (r *entryRun) samples(n int) [][]byte {
	var list [][]byte
	for i := 1; i < n; i++ {
		switch {
		case r.file == nil && len(r.list) > 0:
			list = append(list, r.name(&r.list[i*len(r.list)/n]))
		case r.file != nil && len(r.places) > 0:
			list = append(list, r.places[i*len(r.places)/n].name)
		}
	}
	return list
}

// runReader reads the entries of a run in order.
type runReader struct {
	run   *entryRun
	next  int
	in    *bufio.Reader // of runs on the disk
	buf   []byte
	name  []byte // valid until the next call of advance
	value []byte
}

// read returns a reader that stands at the first entry from a name on; nil
// when there is none.
func (r *entryRun) read(from []byte) (*runReader, error) {
	c := &runReader{run: r}
	if r.file == nil {
		c.next = sort.Search(len(r.list), func(i int) bool { return bytes.Compare(r.name(&r.list[i]), from) >= 0 })
	} else {
		i := sort.Search(len(r.places), func(i int) bool { return bytes.Compare(r.places[i].name, from) > 0 }) - 1
		off := int64(0)
		if i > 0 {
			off, c.next = r.places[i].off, i*runStride
		}
		c.in = bufio.NewReaderSize(&offsetReader{r.file, off}, runBuffer)
	}
	for {
		ok, err := c.advance()
		if err != nil || !ok {
			return nil, err
		}
		if bytes.Compare(c.name, from) >= 0 {
			return c, nil
		}
	}
}

// offsetReader reads a file from an offset on.
type offsetReader struct {
	at  io.ReaderAt
	off int64
}

func (o *offsetReader) Read(p []byte) (int, error) {
	n, err := o.at.ReadAt(p, o.off)
	o.off += int64(n)
	if n > 0 {
		return n, nil
	}
	return n, err
}

// advance goes to the next entry and tells whether there is one.
func (c *runReader) advance() (bool, error) {
	if c.next == c.run.count {
		return false, nil
	}
	c.next++
	if c.in == nil {
		e := &c.run.list[c.next-1]
		c.name, c.value = c.run.name(e), c.run.value(e)
		return true, nil
	}
	name, err := binary.ReadUvarint(c.in)
	var value uint64
	if err == nil {
		value, err = binary.ReadUvarint(c.in)
	}
	if err == nil && name+value > runBytes<<8 {
		err = ErrCorrupt
	}
	if err == nil {
		c.buf = slices.Grow(c.buf[:0], int(name+value))[:name+value]
		_, err = io.ReadFull(c.in, c.buf)
	}
	if err != nil {
		return false, fmt.Errorf("read sorted keys: %w", err)
	}
	c.name, c.value = c.buf[:name], c.buf[name:]
	return true, nil
}

// mergeRuns calls yield for the entries of all runs from a name on, before
// another, in order. An empty end means none.
func mergeRuns(runs []*entryRun, from, to []byte, yield func(name, value []byte) error) error {
	var heap []*runReader
	for _, r := range runs {
		c, err := r.read(from)
		if err != nil {
			return err
		}
		if c != nil {
			heap = append(heap, c)
		}
	}
	for i := len(heap)/2 - 1; i >= 0; i-- {
		siftDown(heap, i)
	}
	for len(heap) > 0 {
		c := heap[0]
		if len(to) > 0 && bytes.Compare(c.name, to) >= 0 {
			return nil
		}
		if err := yield(c.name, c.value); err != nil {
			return err
		}
		ok, err := c.advance()
		if err != nil {
			return err
		}
		if !ok {
			heap[0] = heap[len(heap)-1]
			heap = heap[:len(heap)-1]
		}
		siftDown(heap, 0)
	}
	return nil
}

// siftDown restores the order of a heap below i.
func siftDown(heap []*runReader, i int) {
	for {
		least := i
		for _, child := range []int{2*i + 1, 2*i + 2} {
			if child < len(heap) && bytes.Compare(heap[child].name, heap[least].name) < 0 {
				least = child
			}
		}
		if least == i {
			return
		}
		heap[i], heap[least] = heap[least], heap[i]
		i = least
	}
}
