package datafile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// tailReader reads a file whose end is in memory.
type tailReader struct {
	io.ReaderAt
	at   int64 // where tail begins
	tail []byte
}

// ReadAt implements io.ReaderAt.
func (t *tailReader) ReadAt(p []byte, off int64) (int, error) {
	if off >= t.at && off-t.at+int64(len(p)) <= int64(len(t.tail)) {
		return copy(p, t.tail[off-t.at:]), nil
	}
	return t.ReaderAt.ReadAt(p, off)
}

const (
	minFile  = 12       // the magic twice, and the footer's length
	tailRead = 64 << 10 // what is read at once, to find the footer in it
)

// readTail reads the end of a file, up to its footer, and checks the footer
// before anything is made of it: no list claims more elements than there are
// bytes.
func readTail(r io.ReaderAt, size int64) (*tailReader, error) {
	if size < minFile {
		return nil, fmt.Errorf("%w: %d bytes", ErrCorrupt, size)
	}
	t := &tailReader{ReaderAt: r}
	if err := t.load(size, min(size, tailRead)); err != nil {
		return nil, err
	}
	end := t.tail[len(t.tail)-8:]
	if string(end[4:]) != magic {
		return nil, fmt.Errorf("%w: it does not end as Parquet does", ErrCorrupt)
	}
	n := int64(binary.LittleEndian.Uint32(end))
	if n > size-minFile {
		return nil, fmt.Errorf("%w: footer of %d bytes in a file of %d", ErrCorrupt, n, size)
	}
	if n+8 > int64(len(t.tail)) {
		if err := t.load(size, n+8); err != nil {
			return nil, err
		}
	}
	var footer thriftReader
	footer.reset(t.tail[int64(len(t.tail))-8-n : len(t.tail)-8])
	if footer.skip(thriftStruct); footer.err != nil {
		return nil, fmt.Errorf("%w: footer: %w", ErrCorrupt, footer.err)
	}
	return t, nil
}

// load reads the last n bytes of a file.
func (t *tailReader) load(size, n int64) error {
	t.tail, t.at = make([]byte, n), size-n
	if read, err := t.ReaderAt.ReadAt(t.tail, t.at); int64(read) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read footer: %w", err)
	}
	return nil
}
