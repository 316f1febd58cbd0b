package datafile

import (
	"encoding/binary"
	"fmt"
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

// leaf is how one field becomes one column of a Parquet file.
type leaf struct {
	name string
	path []string
	// typ is the type of the values: of an array, that of its elements.
	typ      schema.Type
	storage  storage // of typ
	physical int32
	width    int // bytes of a value in PLAIN; zero for byte strings and Booleans
	// min and max are what values in I64 may be.
	min, max int64
	// wideMin and wideMax are what wide decimals may be.
	wideMin, wideMax [16]byte

	list       bool
	optional   bool // the field may be NULL
	elemNull   bool
	definition byte // the level of a value
}

func newLeaf(f schema.Field) (*leaf, error) {
	if err := Supported(f.Type); err != nil {
		return nil, fmt.Errorf("column %q: %w", f.Name, err)
	}
	l := &leaf{name: f.Name, path: []string{f.Name}, typ: f.Type, optional: f.Nullable}
	if l.optional {
		l.definition = 1
	}
	if f.Type.Kind == schema.Array {
		l.list, l.typ, l.elemNull = true, *f.Type.Elem, f.Type.ElemNull
		l.path = []string{f.Name, "list", "element"}
		l.definition++
		if l.elemNull {
			l.definition++
		}
	}
	l.storage = storageOf(l.typ)
	l.physical, l.width = physicalOf(l.typ)
	l.min, l.max = rangeOf(l.typ)
	if l.storage == wide {
		n := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(l.typ.Precision)), nil)
		n.Sub(n, big.NewInt(1)).FillBytes(l.wideMax[:])
		lo, borrow := bits.Sub64(0, binary.BigEndian.Uint64(l.wideMax[8:]), 0)
		hi, _ := bits.Sub64(0, binary.BigEndian.Uint64(l.wideMax[:8]), borrow)
		putDecimal128(&l.wideMin, int64(hi), lo)
	}
	return l, nil
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
