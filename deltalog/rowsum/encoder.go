package rowsum

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// ErrNotUTF8 says that a string is not UTF-8, so that it has no JSON.
var ErrNotUTF8 = errors.New("string is not UTF-8")

// Encoder writes rows as the package comment says. It is used by one goroutine.
type Encoder struct {
	row object
	buf []byte
}

// object is how the members of a struct, or the columns of a row, are written.
type object struct {
	heads [][]byte // what comes before each member: a bracket or comma, its name
	from  []int    // the column of each member
	parts []*part
}

// part is how values of one type are written.
type part struct {
	kind    schema.Kind
	scale   int
	variant bool
	elem    *part // of an array
	key     *part // of a map
	value   *part
	fields  object // of a struct
	pairs   []pair // of the map under way
	sorted  []byte // its pairs in order
}

// pair is where the JSON of a key begins and ends, and where that of the pair.
type pair struct{ key, keyEnd, from, to int }

// NewEncoder returns an encoder of rows of the schema.
func NewEncoder(s *schema.Schema) *Encoder { return &Encoder{row: newObject(s.Fields)} }

func newObject(fields []schema.Field) object {
	var o object
	for i := range fields {
		o.from = append(o.from, i)
	}
	slices.SortFunc(o.from, func(a, b int) int {
		return bytes.Compare([]byte(fields[a].Name), []byte(fields[b].Name))
	})
	for i, from := range o.from {
		head := []byte{','}
		if i == 0 {
			head[0] = '{'
		}
		o.heads = append(o.heads, append(appendString(head, []byte(fields[from].Name)), ':'))
		o.parts = append(o.parts, newPart(&fields[from].Type))
	}
	return o
}

func newPart(t *schema.Type) *part {
	p := &part{kind: t.Kind, scale: t.Scale}
	switch t.Kind {
	case schema.Array:
		p.elem = newPart(t.Elem)
	case schema.Map:
		p.key, p.value = newPart(t.Key), newPart(t.Value)
	case schema.Struct:
		p.variant = storesVariant(t.Fields)
		p.fields = newObject(t.Fields)
	}
	return p
}

// storesVariant tells whether a struct looks like a variant.
func storesVariant(fields []schema.Field) bool {
	metadata, value := false, false
	for i := range fields {
		switch fields[i].Name {
		case "metadata":
			metadata = true
		case "value":
			value = true
		case "typed_value":
		default:
			return false
		}
	}
	return metadata && value
}

// Row returns a row of a batch, whose columns are those of the schema in its
// order. The bytes are valid until the next call.
func (e *Encoder) Row(b *datafile.Batch, row int) ([]byte, error) {
	buf, err := e.row.append(e.buf[:0], b.Cols, row)
	e.buf = buf
	if err != nil {
		return nil, err
	}
	return buf, nil
}

func (o *object) append(dst []byte, cols []*datafile.Column, row int) ([]byte, error) {
	if len(o.from) == 0 {
		return append(dst, '{', '}'), nil
	}
	var err error
	for i, from := range o.from {
		dst = append(dst, o.heads[i]...)
		if dst, err = o.parts[i].append(dst, cols[from], row); err != nil {
			return dst, fmt.Errorf("%s %w", bytes.Trim(o.heads[i], "{,:"), err)
		}
	}
	return append(dst, '}'), nil
}

func (p *part) append(dst []byte, c *datafile.Column, row int) ([]byte, error) {
	if !c.Valid[row] {
		return append(dst, "null"...), nil
	}
	switch p.kind {
	case schema.Boolean:
		return strconv.AppendBool(dst, c.I64[row] != 0), nil
	case schema.Byte, schema.Short, schema.Integer, schema.Long:
		return strconv.AppendInt(dst, c.I64[row], 10), nil
	case schema.Float, schema.Double:
		return appendFloat(dst, c.F64[row]), nil
	case schema.Decimal:
		return appendDecimal(dst, c, row, p.scale), nil
	case schema.String:
		if s := c.At(row); utf8.Valid(s) {
			return appendString(dst, s), nil
		}
		return dst, ErrNotUTF8
	case schema.Binary:
		dst = append(dst, `"x:`...)
		dst = hex.AppendEncode(dst, c.At(row))
		return append(dst, '"'), nil
	case schema.Date:
		return append(strconv.AppendInt(append(dst, `"D:`...), c.I64[row], 10), '"'), nil
	case schema.Timestamp, schema.TimestampNTZ:
		return append(strconv.AppendInt(append(dst, `"t:`...), c.I64[row], 10), '"'), nil
	case schema.Array:
		return p.appendArray(dst, c, row)
	case schema.Map:
		return p.appendMap(dst, c, row)
	case schema.Struct:
		if p.variant {
			return append(dst, `"v"`...), nil
		}
		return p.fields.append(dst, c.Fields, row)
	}
	return dst, fmt.Errorf("%w: type %s", datafile.ErrUnsupported, c.Type)
}

func (p *part) appendArray(dst []byte, c *datafile.Column, row int) ([]byte, error) {
	var err error
	dst = append(dst, '[')
	for i := c.Off[row]; i < c.Off[row+1]; i++ {
		if i > c.Off[row] {
			dst = append(dst, ',')
		}
		if dst, err = p.elem.append(dst, c.Elem, int(i)); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func (p *part) appendMap(dst []byte, c *datafile.Column, row int) ([]byte, error) {
	var err error
	dst = append(dst, `{"m":[`...)
	begin := len(dst)
	p.pairs = p.pairs[:0]
	for i := c.Off[row]; i < c.Off[row+1]; i++ {
		at := pair{from: len(dst), key: len(dst) + 1}
		if dst, err = p.key.append(append(dst, '['), c.Key, int(i)); err != nil {
			return dst, err
		}
		at.keyEnd = len(dst)
		if dst, err = p.value.append(append(dst, ','), c.Value, int(i)); err != nil {
			return dst, err
		}
		dst = append(dst, ']')
		at.to = len(dst)
		p.pairs = append(p.pairs, at)
	}
	slices.SortStableFunc(p.pairs, func(a, b pair) int {
		return bytes.Compare(dst[a.key:a.keyEnd], dst[b.key:b.keyEnd])
	})
	p.sorted = p.sorted[:0]
	for i, at := range p.pairs {
		if i > 0 {
			p.sorted = append(p.sorted, ',')
		}
		p.sorted = append(p.sorted, dst[at.from:at.to]...)
	}
	return append(append(dst[:begin], p.sorted...), ']', '}'), nil
}

func appendFloat(dst []byte, v float64) []byte {
	if v != v {
		return append(dst, `"f:nan"`...)
	}
	var b [8]byte
	bits := math.Float64bits(v)
	for i := range b {
		b[i] = byte(bits >> (56 - 8*i))
	}
	dst = hex.AppendEncode(append(dst, `"f:`...), b[:])
	return append(dst, '"')
}

// appendDecimal writes the unscaled value with its point, without zeros at the
// end of its fraction.
func appendDecimal(dst []byte, c *datafile.Column, row, scale int) []byte {
	hi, lo := c.Decimal128(row)
	dst = datafile.AppendDecimal(append(dst, `"d:`...), hi, lo, scale)
	if scale > 0 {
		dst = bytes.TrimSuffix(bytes.TrimRight(dst, "0"), []byte("."))
	}
	return append(dst, '"')
}

const hexDigits = "0123456789abcdef"

// appendString writes a JSON string, escaping what JSON has to have escaped and
// nothing else.
func appendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	from := 0
	for i, c := range s {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(append(dst, s[from:]...), '"')
}
