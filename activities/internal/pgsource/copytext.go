package pgsource

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/activities/change"
)

// errText is the class of every error about the bytes of a COPY in text format.
var errText = errors.New("malformed COPY TEXT stream")

// textParser parses the text format of COPY TO, in which each value is what its
// type's output function prints: tabs between columns, \N for NULL, a newline
// after each row. The stream may be cut anywhere.
type textParser struct {
	columns int
	yield   func(*change.Tuple) error

	row  change.Tuple
	rest []byte // of a row that an earlier call began
	buf  []byte // values without their escapes
	rows int64
}

// write parses the next bytes. Tuples that it yields are valid until yield
// returns.
func (p *textParser) write(b []byte) error {
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			p.rest = append(p.rest, b...)
			return nil
		}
		line := b[:end]
		if len(p.rest) > 0 {
			p.rest = append(p.rest, line...)
			line = p.rest
		}
		if err := p.line(line); err != nil {
			return err
		}
		p.rest = p.rest[:0]
		b = b[end+1:]
	}
	return nil
}

// close checks that no row was left incomplete.
func (p *textParser) close() error {
	if len(p.rest) > 0 {
		return fmt.Errorf("%w: ends within row %d", errText, p.rows+1)
	}
	return nil
}

func (p *textParser) line(line []byte) error {
	p.rows++
	p.row.Reset()
	p.buf = p.buf[:0]
	if cap(p.buf) < len(line) {
		// Values alias buf, so it must not grow between them.
		p.buf = make([]byte, 0, 2*len(line))
	}
	for more := true; more; {
		field := line
		if i := bytes.IndexByte(line, '\t'); i >= 0 {
			field, line = line[:i], line[i+1:]
		} else {
			more = false
		}
		if p.row.Len() == p.columns {
			return fmt.Errorf("%w: row %d has more than %d columns", errText, p.rows, p.columns)
		}
		if len(field) == 2 && field[0] == '\\' && field[1] == 'N' {
			p.row.Append(change.Null, nil)
			continue
		}
		value, err := p.unescape(field)
		if err != nil {
			return err
		}
		p.row.Append(change.Text, value)
	}
	if p.row.Len() != p.columns {
		return fmt.Errorf("%w: row %d has %d columns instead of %d", errText, p.rows, p.row.Len(), p.columns)
	}
	return p.yield(&p.row)
}

// unescape returns field itself where nothing is escaped.
func (p *textParser) unescape(field []byte) ([]byte, error) {
	i := bytes.IndexByte(field, '\\')
	if i < 0 {
		return field[:len(field):len(field)], nil
	}
	from := len(p.buf)
	for i >= 0 {
		p.buf = append(p.buf, field[:i]...)
		if i+1 == len(field) {
			return nil, fmt.Errorf("%w: row %d ends a value with a backslash", errText, p.rows)
		}
		c := field[i+1]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'v':
			c = '\v'
		case '\\':
		default:
			return nil, fmt.Errorf("%w: row %d has the escape \\%c", errText, p.rows, c)
		}
		p.buf = append(p.buf, c)
		field = field[i+2:]
		i = bytes.IndexByte(field, '\\')
	}
	p.buf = append(p.buf, field...)
	return p.buf[from:len(p.buf):len(p.buf)], nil
}
