package pgsource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// wireBuffer is how much is read from a connection at once, in bytes.
	wireBuffer = 256 << 10
	// frameMax is the longest message that a server sends, in bytes.
	frameMax = 1<<30 + 1<<16
)

// errFrame means that the server's bytes are not the messages they should be.
var errFrame = errors.New("malformed message of the server")

// wire reads the server's messages from one connection. pgx reads through it
// until a stream or a COPY begins, and never gets a byte past the message at
// hand; then next hands out messages where they lie in the buffer, without a
// copy. What a read left incomplete is kept, so a deadline loses nothing.
type wire struct {
	src  io.Reader
	buf  []byte
	r, w int // buf[r:w] was read and not handed out
	left int // of the message that pgx is reading
}

// buildWire lets pgx read through a wire, which it stores in *at.
func buildWire(at **wire) func(io.Reader, io.Writer) *pgproto3.Frontend {
	return func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		*at = &wire{src: r}
		return pgproto3.NewFrontend(*at, w)
	}
}

// Read serves pgx.
func (x *wire) Read(p []byte) (int, error) {
	if x.left == 0 {
		size, err := x.need(5)
		if err != nil {
			return 0, err
		}
		x.left = size
	}
	if x.r == x.w {
		if err := x.fill(x.left); err != nil {
			return 0, err
		}
	}
	n := copy(p, x.buf[x.r:min(x.w, x.r+x.left)])
	x.r += n
	x.left -= n
	return n, nil
}

// need has the first n ≥ 5 bytes of the next message in the buffer and returns
// the size of the whole message.
func (x *wire) need(n int) (size int, err error) {
	for x.w-x.r < n {
		if err := x.fill(n - (x.w - x.r)); err != nil {
			return 0, err
		}
	}
	length := binary.BigEndian.Uint32(x.buf[x.r+1:])
	if length < 4 || length > frameMax {
		return 0, fmt.Errorf("%w: kind %q, length %d", errFrame, x.buf[x.r], length)
	}
	return 1 + int(length), nil
}

// buffered tells that next will not read.
func (x *wire) buffered() bool {
	if x.w-x.r < 5 {
		return false
	}
	return uint64(x.w-x.r) > uint64(binary.BigEndian.Uint32(x.buf[x.r+1:]))
}

// next returns the next message. Its body is valid until the next call.
func (x *wire) next() (kind byte, body []byte, err error) {
	size, err := x.need(5)
	if err != nil {
		return 0, nil, err
	}
	if _, err := x.need(size); err != nil {
		return 0, nil, err
	}
	m := x.buf[x.r : x.r+size : x.r+size]
	x.r += size
	return m[0], m[5:], nil
}

// fill reads once, making room for at least one more byte and at best for want
// more. The buffer grows with what has come, not with what was announced.
func (x *wire) fill(want int) error {
	if x.r == x.w {
		x.r, x.w = 0, 0
		if len(x.buf) != wireBuffer {
			x.buf = make([]byte, wireBuffer)
		}
	}
	if room := len(x.buf) - x.w; room < want && x.r > 0 {
		x.w = copy(x.buf, x.buf[x.r:x.w])
		x.r = 0
	}
	if x.w == len(x.buf) {
		grown := make([]byte, 2*len(x.buf))
		copy(grown, x.buf[:x.w])
		x.buf = grown
	}
	n, err := x.src.Read(x.buf[x.w:])
	x.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// isTimeout tells that a read ended at its deadline.
func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func isEOF(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// past is a deadline that ends reads and writes at once.
var past = time.Unix(1, 0)
