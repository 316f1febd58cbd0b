package datafile

import "encoding/binary"

// Types of fields and elements in Thrift's compact protocol:
// https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
const (
	thriftTrue   = 1
	thriftFalse  = 2
	thriftByte   = 3
	thriftI16    = 4
	thriftI32    = 5
	thriftI64    = 6
	thriftBinary = 8
	thriftList   = 9
	thriftStruct = 12
)

// thriftWriter appends structs in the compact protocol to b. Fields of a struct
// are written in ascending order of their ids; absent ones are left out.
type thriftWriter struct {
	b    []byte
	last []int16 // the field before, in every struct that is open
}

func (t *thriftWriter) reset() { t.b, t.last = t.b[:0], append(t.last[:0], 0) }

func (t *thriftWriter) field(id int16, kind byte) {
	at := &t.last[len(t.last)-1]
	if d := id - *at; d > 0 && d <= 15 {
		t.b = append(t.b, byte(d)<<4|kind)
	} else {
		t.b = binary.AppendVarint(append(t.b, kind), int64(id))
	}
	*at = id
}

func (t *thriftWriter) i32(id int16, v int32) {
	t.field(id, thriftI32)
	t.b = binary.AppendVarint(t.b, int64(v))
}

func (t *thriftWriter) i64(id int16, v int64) {
	t.field(id, thriftI64)
	t.b = binary.AppendVarint(t.b, v)
}

func (t *thriftWriter) i16(id int16, v int16) {
	t.field(id, thriftI16)
	t.b = binary.AppendVarint(t.b, int64(v))
}

func (t *thriftWriter) i8(id int16, v int8) {
	t.field(id, thriftByte)
	t.b = append(t.b, byte(v))
}

func (t *thriftWriter) bool(id int16, v bool) {
	if v {
		t.field(id, thriftTrue)
	} else {
		t.field(id, thriftFalse)
	}
}

func (t *thriftWriter) string(id int16, s string) {
	t.field(id, thriftBinary)
	t.rawString(s)
}

func (t *thriftWriter) bytes(id int16, b []byte) {
	t.field(id, thriftBinary)
	t.b = binary.AppendUvarint(t.b, uint64(len(b)))
	t.b = append(t.b, b...)
}

// list begins a list of n elements, which the caller appends.
func (t *thriftWriter) list(id int16, kind byte, n int) {
	t.field(id, thriftList)
	if n < 15 {
		t.b = append(t.b, byte(n)<<4|kind)
		return
	}
	t.b = binary.AppendUvarint(append(t.b, 0xf0|kind), uint64(n))
}

func (t *thriftWriter) rawI32(v int32) { t.b = binary.AppendVarint(t.b, int64(v)) }

func (t *thriftWriter) rawString(s string) {
	t.b = binary.AppendUvarint(t.b, uint64(len(s)))
	t.b = append(t.b, s...)
}

// open begins a struct as a field, element one as an element of a list; close
// ends either.
func (t *thriftWriter) open(id int16) {
	t.field(id, thriftStruct)
	t.element()
}

func (t *thriftWriter) element() { t.last = append(t.last, 0) }

func (t *thriftWriter) close() {
	t.b = append(t.b, 0)
	t.last = t.last[:len(t.last)-1]
}

// empty writes a struct without fields as a field.
func (t *thriftWriter) empty(id int16) {
	t.open(id)
	t.close()
}
