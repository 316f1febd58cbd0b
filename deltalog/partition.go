package deltalog

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// partitionColumns returns, for the wanted columns that are partition columns,
// one row with the file's value.
func partitionColumns(want *schema.Schema, names []string, f *File) (map[string]*datafile.Column, error) {
	cols := map[string]*datafile.Column{}
	for _, name := range names {
		i := want.Field(name)
		if i < 0 {
			continue
		}
		v, ok := f.Partition[name]
		if !ok {
			return nil, fmt.Errorf("%w: it has no value of partition column %s", ErrCorrupt, name)
		}
		c := datafile.NewColumn(want.Fields[i].Type)
		if v == nil || *v == "" {
			c.AppendNull()
		} else if err := appendPartition(c, *v); err != nil {
			return nil, fmt.Errorf("%w: value of partition column %s: %w", ErrCorrupt, name, err)
		}
		cols[name] = c
	}
	return cols, nil
}

// appendPartition appends a value that is written as the protocol's Partition
// Value Serialization says. Errors do not show the value.
func appendPartition(c *datafile.Column, v string) error {
	switch t := c.Type; t.Kind {
	case schema.Boolean:
		b, err := strconv.ParseBool(v)
		if err != nil {
			return errValue(t)
		}
		c.AppendBool(b)
	case schema.Byte, schema.Short, schema.Integer, schema.Long:
		n, err := strconv.ParseInt(v, 10, intBits[t.Kind])
		if err != nil {
			return errValue(t)
		}
		c.AppendInt(n)
	case schema.Float, schema.Double:
		bits := 64
		if t.Kind == schema.Float {
			bits = 32
		}
		x, err := strconv.ParseFloat(v, bits)
		if err != nil {
			return errValue(t)
		}
		c.AppendFloat(x)
	case schema.Decimal:
		return appendDecimal(c, v)
	case schema.String, schema.Binary:
		c.AppendString(v)
	case schema.Date:
		d, err := time.Parse(time.DateOnly, v)
		if err != nil {
			return errValue(t)
		}
		c.AppendInt(floorDiv(d.Unix(), 86400))
	case schema.Timestamp, schema.TimestampNTZ:
		us, err := parsePartitionTime(v)
		if err != nil {
			return errValue(t)
		}
		c.AppendInt(us)
	default:
		return fmt.Errorf("%w: type %s", ErrUnsupported, t)
	}
	return nil
}

var intBits = map[schema.Kind]int{schema.Byte: 8, schema.Short: 16, schema.Integer: 32, schema.Long: 64}

func errValue(t schema.Type) error { return fmt.Errorf("it is no %s", t) }

// partitionTimes are the forms of timestamps: in UTC, as the protocol asks, or
// without a zone. Old writers meant their own zone by that, which the log does
// not tell; it is read as UTC.
var partitionTimes = []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999", time.DateOnly}

func parsePartitionTime(v string) (int64, error) {
	var first error
	for _, layout := range partitionTimes {
		t, err := time.Parse(layout, v)
		if err == nil {
			return t.UnixMicro(), nil
		}
		if first == nil {
			first = err
		}
	}
	return 0, first
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// appendDecimal appends a decimal literal of any scale that its type holds.
func appendDecimal(c *datafile.Column, v string) error {
	whole, frac, _ := strings.Cut(v, ".")
	for len(frac) > c.Type.Scale && strings.HasSuffix(frac, "0") {
		frac = frac[:len(frac)-1]
	}
	if len(frac) > c.Type.Scale || len(whole)+len(frac) > 64 {
		return errValue(c.Type)
	}
	n, ok := new(big.Int).SetString(whole+frac+strings.Repeat("0", c.Type.Scale-len(frac)), 10)
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(c.Type.Precision)), nil)
	if !ok || n.CmpAbs(limit) >= 0 {
		return errValue(c.Type)
	}
	if n.IsInt64() {
		c.AppendInt(n.Int64())
		return nil
	}
	var b [16]byte
	if n.Sign() < 0 {
		n.Add(n, new(big.Int).Lsh(big.NewInt(1), 128))
	}
	n.FillBytes(b[:])
	c.AppendDecimal128(int64(binary.BigEndian.Uint64(b[:8])), binary.BigEndian.Uint64(b[8:]))
	return nil
}
