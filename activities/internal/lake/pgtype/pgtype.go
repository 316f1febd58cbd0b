// Package pgtype says which Delta type holds which PostgreSQL type, and
// converts values from PostgreSQL's text and binary formats into columns:
// https://www.postgresql.org/docs/current/datatype.html
//
// Text is what the type's output function prints under DateStyle ISO, TimeZone
// UTC, IntervalStyle postgres, bytea_output hex, extra_float_digits 1 and
// lc_monetary C; binary is what its send function writes. Both come to the
// same value, exactly. What the Delta type cannot hold is refused with
// [ErrUnrepresentable]: nothing is rounded, cut or replaced by NULL.
package pgtype

import (
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

var (
	// ErrUnrepresentable is the class of every error about a value that
	// PostgreSQL can hold and the column's Delta type cannot. The error says
	// why and never shows the value.
	ErrUnrepresentable = errors.New("not representable")
	// ErrMalformed is the class of every error about bytes that are not a value
	// of the type at all: the session's settings or the column's type are not
	// what they were taken for.
	ErrMalformed = errors.New("malformed value")
	// ErrCast is the class of errors about a cast that a column cannot have.
	ErrCast = errors.New("unknown cast")
)

// Convert appends one value, which is not NULL, to dst. It keeps no reference
// to src. After an error dst holds what it held before. It may be called from
// many goroutines at once, on columns of their own.
type Convert func(dst *datafile.Column, src []byte) error

// Mapping is how the values of one column become Delta values.
type Mapping struct {
	// Type is the column's Delta type.
	Type schema.Type
	// Text converts the output function's text. It is never nil.
	Text Convert
	// Binary converts the send function's bytes. Where it is nil, the column is
	// to be read as text, through the type's output function.
	Binary Convert
}

// The casts that a fleet file can name.
const (
	// CastString keeps the text that PostgreSQL prints, of any type.
	CastString = "string"
	// CastBinary keeps the bytes of the text that PostgreSQL prints, in whatever
	// encoding: for textual types in a database without one (SQL_ASCII).
	CastBinary = "binary"
)

// For returns the mapping of c, whose Type must be resolved. An empty cast
// means the type's own mapping; a cast that c cannot have is [ErrCast].
func For(c change.Column, cast string) (Mapping, error) {
	switch cast {
	case "":
		return natural(c.Type), nil
	case CastString:
		m := Mapping{Type: schema.Type{Kind: schema.String}, Text: utf8Text}
		if !c.Type.Array && isTextual(c.Type) {
			m.Binary = natural(c.Type).Binary
		}
		return m, nil
	case CastBinary:
		if c.Type.Array || !isTextual(c.Type) {
			return Mapping{}, fmt.Errorf("cast column %q of type %s: %w: %s is for textual types alone; string works for every type",
				c.Name, typeName(c.Type), ErrCast, cast)
		}
		m := Mapping{Type: schema.Type{Kind: schema.Binary}, Text: rawBytes}
		switch {
		case c.Type.OID == oidJSONB:
			m.Binary = versioned(rawBytes)
		case natural(c.Type).Binary != nil:
			m.Binary = rawBytes
		}
		return m, nil
	}
	return Mapping{}, fmt.Errorf("cast column %q to %q: %w: the casts are string, and binary for textual types", c.Name, cast, ErrCast)
}

// Text tells that values of a type are text, which a string holds as it is.
func Text(t change.Type) bool { return !t.Array && isTextual(t) }

// Name is how messages call a type.
func Name(t change.Type) string { return typeName(t) }

func typeName(t change.Type) string {
	if t.Array {
		return t.Name + "[]"
	}
	return t.Name
}
