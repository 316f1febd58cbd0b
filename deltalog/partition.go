package deltalog

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// partitionColumns returns, for the wanted columns that are partition columns of
// m, one row with the file's value.
func partitionColumns(want *schema.Schema, m *Metadata, mapping schema.Mapping, f *File) (map[string]*datafile.Column, error) {
	cols := map[string]*datafile.Column{}
	for _, name := range m.PartitionColumns {
		i := want.Field(name)
		if i < 0 {
			continue
		}
		stored, err := storedName(want, mapping, name)
		if err != nil {
			return nil, err
		}
		v, ok := f.Partition[stored]
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

// partitionOf returns the partition values of a file by the names of their
// columns, as FileOptions has them.
func (s *Snapshot) partitionOf(f *File) (map[string]*string, error) {
	mapping, err := s.mapping()
	if err != nil {
		return nil, err
	}
	values := make(map[string]*string, len(s.metadata.PartitionColumns))
	for _, column := range s.metadata.PartitionColumns {
		name, err := storedName(s.metadata.Schema, mapping, column)
		if err != nil {
			return nil, err
		}
		v, ok := f.Partition[name]
		if !ok {
			return nil, fmt.Errorf("file %s: %w: it has no value of partition column %s", f.Path, ErrCorrupt, column)
		}
		values[column] = v
	}
	return values, nil
}

// storedPartition checks partition values that are given by the names of their
// columns. It returns them by the names in files, and the folder for the file.
func storedPartition(m *Metadata, mapping schema.Mapping, values map[string]*string) (stored map[string]*string, dir string, err error) {
	stored = make(map[string]*string, len(values))
	var names []string
	for _, column := range m.PartitionColumns {
		name, err := storedName(m.Schema, mapping, column)
		if err != nil {
			return nil, "", err
		}
		names = append(names, name)
		v, ok := values[column]
		if !ok {
			return nil, "", fmt.Errorf("%w: no value of partition column %s", ErrInvalid, column)
		}
		if v == nil || *v == "" {
			stored[name] = nil // which all readers know
			continue
		}
		stored[name] = v
		t := m.Schema.Fields[m.Schema.Field(column)].Type
		if err := appendPartition(datafile.NewColumn(t), *v); err != nil {
			return nil, "", fmt.Errorf("%w: value of partition column %s: %w", ErrInvalid, column, err)
		}
	}
	if len(values) != len(stored) {
		return nil, "", fmt.Errorf("%w: values of columns that are no partition columns", ErrInvalid)
	}
	return stored, partitionDir(names, stored), nil
}

// appendPartition appends a value that is written as the protocol's Partition
// Value Serialization says. Errors do not show the value.
func appendPartition(c *datafile.Column, v string) error {
	switch t := c.Type; t.Kind {
	case schema.Boolean:
		if !strings.EqualFold(v, "true") && !strings.EqualFold(v, "false") {
			return errValue(t)
		}
		c.AppendBool(strings.EqualFold(v, "true"))
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
		if !utf8.ValidString(v) {
			return errValue(t) // JSON cannot hold it
		}
		c.AppendString(v)
	case schema.Date:
		days, rest, ok := cutDate(v)
		if !ok || rest != "" {
			return errValue(t)
		}
		c.AppendInt(days)
	case schema.Timestamp, schema.TimestampNTZ:
		us, _, ok := parseTimestamp(v, t.Kind)
		if !ok {
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

// cutDate reads the date that v begins with, as days since 1970. Years have four
// digits, or more after a sign.
func cutDate(v string) (days int64, rest string, ok bool) {
	year, rest, ok := strings.Cut(strings.TrimLeft(v, "+-"), "-")
	if signed := len(v) > 0 && (v[0] == '+' || v[0] == '-'); !ok || len(year) < 4 || len(year) > 7 || len(year) > 4 && !signed ||
		len(rest) < 5 || rest[2] != '-' || len(v)-len(year)-len(rest)-1 > 1 {
		return 0, "", false
	}
	y, err1 := strconv.ParseUint(year, 10, 32)
	month, err2 := strconv.ParseUint(rest[:2], 10, 8)
	day, err3 := strconv.ParseUint(rest[3:5], 10, 8)
	if err1 != nil || err2 != nil || err3 != nil {
		return 0, "", false
	}
	at := int(y)
	if v[0] == '-' {
		at = -at
	}
	t := time.Date(at, time.Month(month), int(day), 0, 0, 0, 0, time.UTC)
	if t.Month() != time.Month(month) || t.Day() != int(day) {
		return 0, "", false // there is no such day
	}
	return floorDiv(t.Unix(), 86400), rest[5:], true
}

// clockForms are the forms of what follows the date of a timestamp.
var clockForms = []string{"15:04:05.999999999Z07:00", "15:04:05.999999999Z0700", "15:04:05.999999999"}

// parseTimestamp reads a date, and a time of day after a T or a space, in
// microseconds since 1970. Timestamps in UTC say so, as the protocol asks; those
// without a zone, of old writers, meant a zone that the log does not tell, and
// are read as UTC; zoned tells them apart. Values of timestamp_ntz may have no
// zone but UTC. What is not of whole microseconds is refused.
func parseTimestamp(v string, kind schema.Kind) (micros int64, zoned, ok bool) {
	days, clock, ok := cutDate(v)
	const day = 86_400_000_000
	if !ok || days > math.MaxInt64/day-2 || days < math.MinInt64/day+2 {
		return 0, false, false
	}
	if clock == "" {
		return days * day, false, true
	}
	if clock[0] != 'T' && clock[0] != ' ' {
		return 0, false, false
	}
	for i, form := range clockForms {
		t, err := time.Parse(form, clock[1:])
		if err != nil {
			continue
		}
		midnight := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
		_, offset := t.Zone()
		if t.Nanosecond()%1000 != 0 || kind == schema.TimestampNTZ && offset != 0 {
			return 0, false, false
		}
		return days*day + t.Sub(midnight).Microseconds(), i < 2, true
	}
	return 0, false, false
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
	n, ok := unscaled(v, c.Type.Scale)
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(c.Type.Precision)), nil)
	if !ok || n.CmpAbs(limit) >= 0 {
		return errValue(c.Type)
	}
	appendUnscaled(c, n)
	return nil
}

// unscaled reads a decimal literal, perhaps with an exponent, as a whole number
// of units of 10^-scale; ok is false where it is none.
func unscaled(v string, scale int) (n *big.Int, ok bool) {
	digits, exponent := v, int64(0)
	if i := strings.IndexAny(v, "eE"); i >= 0 {
		var err error
		if exponent, err = strconv.ParseInt(v[i+1:], 10, 32); err != nil || exponent > 100 || exponent < -100 {
			return nil, false
		}
		digits = v[:i]
	}
	whole, frac, _ := strings.Cut(digits, ".")
	if len(whole)+len(frac) > 100 || strings.ContainsAny(frac, "+-_") || strings.Contains(whole, "_") {
		return nil, false
	}
	n, ok = new(big.Int).SetString(whole+frac, 10)
	if !ok {
		return nil, false
	}
	shift := int64(scale-len(frac)) + exponent
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(max(shift, -shift)), nil)
	if shift >= 0 {
		return n.Mul(n, power), true
	}
	n, rest := n.QuoRem(n, power, new(big.Int))
	return n, rest.Sign() == 0
}

// appendUnscaled appends a decimal that its type holds.
func appendUnscaled(c *datafile.Column, n *big.Int) {
	if n.IsInt64() {
		c.AppendInt(n.Int64())
		return
	}
	var b [16]byte
	if n.Sign() < 0 {
		n = new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), 128))
	}
	n.FillBytes(b[:])
	c.AppendDecimal128(int64(binary.BigEndian.Uint64(b[:8])), binary.BigEndian.Uint64(b[8:]))
}
