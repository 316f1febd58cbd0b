package datafile

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"

	"github.com/millrace-io/millrace/deltalog/schema"
)

// Parquet's physical types.
const (
	parquetBoolean = 0
	parquetInt32   = 1
	parquetInt64   = 2
	parquetFloat   = 4
	parquetDouble  = 5
	parquetBytes   = 6
	parquetFixed   = 7
)

// leaf is a column of a Parquet file: a field, or a part of one, whose values
// have no parts.
type leaf struct {
	name   string   // of the field that it is of, for errors
	column int      // the index of that
	path   []string // in the file
	// typ is the type of the values.
	typ      schema.Type
	storage  storage // of typ
	physical int32
	width    int // bytes of a value in PLAIN; zero for byte strings and Booleans
	// min and max are what values in I64 may be.
	min, max int64
	// wideMin and wideMax are what wide decimals may be.
	wideMin, wideMax [16]byte

	// steps lead from the field to the values.
	steps      []step
	definition byte // the level of a value
	repetition byte // the most that there is

	// stats is the path of the field that statistics are of, by the names in
	// the file, and logical by those of the schema; nil where another leaf of
	// the field gathers them. It ends at the first array or map.
	stats, logical []string
}

// step is one part of the way to a leaf.
type step struct {
	kind     storage // record, list, mapping; anything else is the end
	optional bool    // it may be NULL
	child    int     // which part of a record or a mapping comes next
	counted  bool    // statistics count where it is NULL
}

// flat tells whether the leaf is a field of its own, list whether it is the
// elements of one.
func (l *leaf) flat() bool { return len(l.steps) == 1 }
func (l *leaf) list() bool { return len(l.steps) == 2 && l.steps[0].kind == list }

// optional tells whether the field may be NULL.
func (l *leaf) optional() bool { return l.steps[0].optional }

// newLeaf returns a leaf of values of a primitive type.
func newLeaf(t schema.Type) *leaf {
	l := &leaf{typ: t, storage: storageOf(t)}
	l.physical, l.width = physicalOf(t)
	l.min, l.max = rangeOf(t)
	if l.storage == wide {
		n := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.Precision)), nil)
		n.Sub(n, big.NewInt(1)).FillBytes(l.wideMax[:])
		lo, borrow := bits.Sub64(0, binary.BigEndian.Uint64(l.wideMax[8:]), 0)
		hi, _ := bits.Sub64(0, binary.BigEndian.Uint64(l.wideMax[:8]), borrow)
		putDecimal128(&l.wideMin, int64(hi), lo)
	}
	return l
}

// physicalOf returns the physical type and the bytes of a value.
func physicalOf(t schema.Type) (physical int32, width int) {
	switch t.Kind {
	case schema.Boolean:
		return parquetBoolean, 0
	case schema.Byte, schema.Short, schema.Integer, schema.Date:
		return parquetInt32, 4
	case schema.Long, schema.Timestamp, schema.TimestampNTZ:
		return parquetInt64, 8
	case schema.Float:
		return parquetFloat, 4
	case schema.Double:
		return parquetDouble, 8
	case schema.Decimal:
		switch {
		case t.Precision <= 9:
			return parquetInt32, 4
		case t.Precision <= 18:
			return parquetInt64, 8
		}
		return parquetFixed, decimalWidth(t.Precision)
	}
	return parquetBytes, 0
}

// decimalWidth returns how many bytes hold every decimal of so many digits.
func decimalWidth(precision int) int {
	return int(math.Floor(float64(precision)*math.Log2(10)/8+1.0/8)) + 1
}

func rangeOf(t schema.Type) (least, greatest int64) {
	switch t.Kind {
	case schema.Boolean:
		return 0, 1
	case schema.Byte:
		return math.MinInt8, math.MaxInt8
	case schema.Short:
		return math.MinInt16, math.MaxInt16
	case schema.Integer, schema.Date:
		return math.MinInt32, math.MaxInt32
	case schema.Decimal:
		if t.Precision <= 18 {
			n := int64(1)
			for range t.Precision {
				n *= 10
			}
			return 1 - n, n - 1
		}
	}
	return math.MinInt64, math.MaxInt64
}
