// Package copybinary parses the binary format of PostgreSQL's COPY TO:
// https://www.postgresql.org/docs/current/sql-copy.html
//
// The stream may be cut into writes anywhere. Signature, lengths, column counts
// and the trailer are checked; critical flags, which would say that OIDs are
// included, are refused. Values are not interpreted.
package copybinary

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/activities/change"
)

// ErrFormat is the class of every error about the bytes of the stream.
var ErrFormat = errors.New("malformed COPY BINARY stream")

const (
	signature  = "PGCOPY\n\xff\r\n\x00"
	headerSize = len(signature) + 4 + 4
	// extensionMax bounds the header extension, in bytes. PostgreSQL writes none.
	extensionMax = 1 << 16
	// valueMax is the most bytes that a value can have: what PostgreSQL
	// allocates at most.
	valueMax = 1<<30 - 1
)

// Parser reads one stream. The zero value is not usable.
type Parser struct {
	kinds []byte // of columns that are not NULL
	yield func(*change.Tuple) error

	row  change.Tuple
	rest []byte // of a row that earlier writes began
	want int    // the bytes that rest must have before another try; 0 is none
	rows int64

	begun, ended bool
	err          error
}

// New returns a parser of rows with one column for each of kinds, which is
// change.Binary, or change.Text for a column that was selected as text. Each
// row goes to yield, which must not keep the tuple or its values; an error of
// yield ends the parsing.
func New(kinds []byte, yield func(*change.Tuple) error) *Parser {
	return &Parser{
		kinds: kinds,
		yield: yield,
		row:   change.Tuple{Kinds: make([]byte, 0, len(kinds)), Values: make([][]byte, 0, len(kinds))},
	}
}

// Rows returns how many rows were yielded.
func (p *Parser) Rows() int64 { return p.rows }

// Write parses the next bytes of the stream. It keeps none of b.
func (p *Parser) Write(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	given := len(b)
	for len(p.rest) > 0 && len(b) > 0 {
		// What is needed at least is added to what is there, no more: it is
		// known only then how much the row takes.
		n := min(len(b), max(p.want-len(p.rest), 1))
		p.rest = append(p.rest, b[:n]...)
		b = b[n:]
		if len(p.rest) < p.want {
			break
		}
		taken, err := p.parse(p.rest)
		if err != nil {
			return 0, p.fail(err)
		}
		if taken == len(p.rest) {
			p.rest = p.rest[:0]
		} else {
			p.rest = p.rest[:copy(p.rest, p.rest[taken:])]
		}
	}
	if len(b) > 0 {
		taken, err := p.parse(b)
		if err != nil {
			return 0, p.fail(err)
		}
		p.rest = append(p.rest, b[taken:]...)
	}
	return given, nil
}

// Close checks that the stream ended with its trailer.
func (p *Parser) Close() error {
	if p.err != nil {
		return p.err
	}
	if !p.ended || len(p.rest) > 0 {
		return p.fail(fmt.Errorf("%w: ends after %d rows without its trailer", ErrFormat, p.rows))
	}
	return nil
}

func (p *Parser) fail(err error) error {
	p.err = err
	return err
}

// parse takes whole items from the front of b: the header, rows, the trailer.
// It sets want to what the next item takes at least.
func (p *Parser) parse(b []byte) (taken int, err error) {
	p.want = 0
	if !p.begun {
		n, err := p.header(b)
		if n == 0 || err != nil {
			return 0, err
		}
		p.begun = true
		taken = n
	}
	for taken < len(b) {
		n, err := p.item(b[taken:])
		if err != nil {
			return taken, err
		}
		if n == 0 {
			break
		}
		taken += n
	}
	return taken, nil
}

// header returns the header's size, or 0 when more is wanted.
func (p *Parser) header(b []byte) (int, error) {
	for i := range min(len(b), len(signature)) {
		if b[i] != signature[i] {
			return 0, fmt.Errorf("%w: byte %d of the signature is %#x", ErrFormat, i, b[i])
		}
	}
	if len(b) < headerSize {
		p.want = headerSize
		return 0, nil
	}
	if flags := binary.BigEndian.Uint32(b[len(signature):]); flags>>16 != 0 {
		return 0, fmt.Errorf("%w: critical flags %#x are not known", ErrFormat, flags)
	}
	extension := binary.BigEndian.Uint32(b[len(signature)+4:])
	if extension > extensionMax {
		return 0, fmt.Errorf("%w: header extension of %d bytes", ErrFormat, extension)
	}
	size := headerSize + int(extension)
	if len(b) < size {
		p.want = size
		return 0, nil
	}
	return size, nil
}

// item takes one row, or the trailer, and returns its size, or 0 when more is
// wanted.
func (p *Parser) item(b []byte) (int, error) {
	if p.ended {
		return 0, fmt.Errorf("%w: %d bytes follow the trailer", ErrFormat, len(b))
	}
	if len(b) < 2 {
		p.want = 2
		return 0, nil
	}
	count := int(int16(binary.BigEndian.Uint16(b)))
	if count == -1 {
		p.ended = true
		return 2, nil
	}
	if count != len(p.kinds) {
		return 0, fmt.Errorf("%w: row %d has %d columns instead of %d", ErrFormat, p.rows+1, count, len(p.kinds))
	}
	row := &p.row
	row.Reset()
	at := 2
	for i, kind := range p.kinds {
		if len(b)-at < 4 {
			p.want = at + 4*(count-i)
			return 0, nil
		}
		size := int32(binary.BigEndian.Uint32(b[at:]))
		at += 4
		if size == -1 {
			row.Append(change.Null, nil)
			continue
		}
		if size < 0 || size > valueMax {
			return 0, fmt.Errorf("%w: column %d of row %d has %d bytes", ErrFormat, i+1, p.rows+1, size)
		}
		end := at + int(size)
		if end > len(b) {
			p.want = end + 4*(count-i-1)
			return 0, nil
		}
		row.Append(kind, b[at:end:end])
		at = end
	}
	p.rows++
	return at, p.yield(row)
}
