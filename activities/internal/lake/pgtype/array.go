package pgtype

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

var (
	errDimensions = fmt.Errorf("%w: array of more than one dimension", ErrUnrepresentable)
	errLowerBound = fmt.Errorf("%w: array that does not begin at index 1", ErrUnrepresentable)
)

const (
	errArrayText   = "array literal"
	errArrayBinary = "binary array"
)

// textArray reads what array_out prints: {a,"b c",NULL}.
func textArray(elem Convert, delim byte) Convert {
	return func(dst *datafile.Column, src []byte) error {
		body, err := arrayBody(src)
		if err != nil {
			return err
		}
		before := dst.Elem.Len()
		if err := textElements(dst.Elem, body, elem, delim); err != nil {
			dst.Elem.Truncate(before)
			return err
		}
		dst.EndArray()
		return nil
	}
}

// arrayBody returns what is between the braces of an array of one dimension.
func arrayBody(src []byte) ([]byte, error) {
	if len(src) > 0 && src[0] == '[' {
		// Bounds are printed where one of them is not 1: [0:2]={a,b,c}.
		bounds, _, found := bytes.Cut(src, []byte("="))
		switch {
		case !found || bounds[len(bounds)-1] != ']':
			return nil, malformed(errArrayText)
		case bytes.Count(bounds, []byte("[")) > 1:
			return nil, errDimensions
		}
		return nil, errLowerBound
	}
	if len(src) < 2 || src[0] != '{' || src[len(src)-1] != '}' {
		return nil, malformed(errArrayText)
	}
	return src[1 : len(src)-1], nil
}

// textElements appends the elements of an array's body.
func textElements(dst *datafile.Column, b []byte, elem Convert, delim byte) error {
	if len(b) == 0 {
		return nil
	}
	for {
		n, err := textElement(dst, b, elem, delim)
		if err != nil {
			return err
		}
		if n == len(b) {
			return nil
		}
		if b[n] != delim || n+1 == len(b) {
			return malformed(errArrayText)
		}
		b = b[n+1:]
	}
}

// textElement appends the element at the front of b, which is not empty, and
// returns its length.
func textElement(dst *datafile.Column, b []byte, elem Convert, delim byte) (int, error) {
	switch b[0] {
	case '{':
		return 0, errDimensions
	case '"':
		return quotedElement(dst, b, elem)
	}
	n := 0
	for n < len(b) && b[n] != delim {
		switch b[n] {
		case '"', '\\', '{', '}':
			return 0, malformed(errArrayText)
		}
		n++
	}
	if n == 0 {
		return 0, malformed(errArrayText)
	}
	if string(b[:n]) == "NULL" {
		dst.AppendNull()
		return n, nil
	}
	return n, elem(dst, b[:n:n])
}

// unescaped holds buffers for elements with backslashes in them.
var unescaped = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled is the largest buffer, in bytes, that is kept for later elements.
const maxPooled = 1 << 20

// quotedElement appends the element in quotes at the front of b, in which a
// backslash precedes quotes and backslashes, and returns its length.
func quotedElement(dst *datafile.Column, b []byte, elem Convert) (int, error) {
	end := 1 + bytes.IndexByte(b[1:], '"')
	if end == 0 {
		return 0, malformed(errArrayText)
	}
	if bytes.IndexByte(b[1:end], '\\') < 0 {
		return end + 1, elem(dst, b[1:end:end])
	}
	buf := unescaped.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= maxPooled {
			unescaped.Put(buf)
		}
	}()
	*buf = (*buf)[:0]
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i + 1, elem(dst, *buf)
		case '\\':
			if i++; i == len(b) {
				return 0, malformed(errArrayText)
			}
		}
		*buf = append(*buf, b[i])
	}
	return 0, malformed(errArrayText)
}

// binaryArray reads what array_send writes: dimensions, a flag for NULLs, the
// element's type, the size and lower bound of each dimension, and then the
// elements, each with its length in front, -1 for NULL.
func binaryArray(elem Convert) Convert {
	return func(dst *datafile.Column, src []byte) error {
		if len(src) < 12 {
			return malformed(errArrayBinary)
		}
		switch dimensions := int32(binary.BigEndian.Uint32(src)); {
		case dimensions == 0 && len(src) == 12:
			dst.EndArray()
			return nil
		case dimensions <= 0 || len(src) < 20:
			return malformed(errArrayBinary)
		case dimensions > 1:
			return errDimensions
		}
		count, lower := binary.BigEndian.Uint32(src[12:]), binary.BigEndian.Uint32(src[16:])
		if lower != 1 {
			return errLowerBound
		}
		body := src[20:]
		if uint64(count)*4 > uint64(len(body)) {
			return malformed(errArrayBinary)
		}
		before := dst.Elem.Len()
		if err := binaryElements(dst.Elem, body, int(count), elem); err != nil {
			dst.Elem.Truncate(before)
			return err
		}
		dst.EndArray()
		return nil
	}
}

func binaryElements(dst *datafile.Column, b []byte, count int, elem Convert) error {
	for range count {
		if len(b) < 4 {
			return malformed(errArrayBinary)
		}
		size := binary.BigEndian.Uint32(b)
		b = b[4:]
		if int32(size) == -1 {
			dst.AppendNull()
			continue
		}
		if uint64(size) > uint64(len(b)) {
			return malformed(errArrayBinary)
		}
		if err := elem(dst, b[:size:size]); err != nil {
			return err
		}
		b = b[size:]
	}
	if len(b) > 0 {
		return malformed(errArrayBinary)
	}
	return nil
}
