// Package rowsum computes a checksum of rows that does not depend on their
// order or on how they are stored, so that what two readers make of a table, in
// whatever language, can be compared by sixteen digits.
//
// A row is written as one compact JSON object, UTF-8, without escapes that JSON
// does not demand; its keys are the columns' names in byte order:
//
//	null                     null, inside of values too
//	boolean, integers        true, false, numbers
//	float, double            "f:" and the bits of the double, 16 hex digits; "f:nan"
//	decimal                  "d:" and the number without exponent or trailing zeros
//	string                   a JSON string
//	binary                   "x:" and hex digits
//	date                     "D:" and days since 1970-01-01
//	timestamps               "t:" and microseconds since 1970-01-01, UTC
//	array                    an array
//	struct                   an object, keys in byte order
//	map                      {"m":[[key,value],…]}, in the order of the keys' JSON
//	variant                  "v": only its presence counts
//
// A struct of the fields metadata and value, and perhaps typed_value, is how
// Parquet stores a variant, and is taken for one. The checksum is the sum, modulo 2⁶⁴,
// of the first eight bytes, big-endian, of the SHA-256 of each row.
package rowsum

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// Sum is the checksum of some rows. The zero Sum is that of none. Sums of parts
// of a table are added up by [Sum.Add].
type Sum struct {
	// Rows counts the rows.
	Rows int64
	// Bits is the checksum.
	Bits uint64
}

// String returns the checksum as 16 hex digits.
func (s Sum) String() string { return fmt.Sprintf("%016x", s.Bits) }

// Add adds the rows of another sum.
func (s *Sum) Add(o Sum) {
	s.Rows += o.Rows
	s.Bits += o.Bits
}

// Of returns the checksum of all rows of an iterator, such as
// deltalog.Snapshot.Read, whose batches have the columns of sch in its order. It
// ends with the first error, also of a value that has no JSON.
func Of(ctx context.Context, sch *schema.Schema, rows iter.Seq2[*datafile.Batch, error]) (Sum, error) {
	var sum Sum
	e := NewEncoder(sch)
	for b, err := range rows {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = sum.AddBatch(e, b)
		}
		if err != nil {
			return Sum{}, err
		}
	}
	return sum, nil
}

// AddBatch adds the rows of a batch, whose columns are those of the encoder's
// schema in its order.
func (s *Sum) AddBatch(e *Encoder, b *datafile.Batch) error {
	for row := range b.Rows() {
		line, err := e.Row(b, row)
		if err != nil {
			return err
		}
		s.AddRow(line)
	}
	return nil
}

// AddRow adds a row that is written as the package comment says.
func (s *Sum) AddRow(row []byte) {
	h := sha256.Sum256(row)
	s.Rows++
	s.Bits += binary.BigEndian.Uint64(h[:8])
}
