package pgtype

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"unsafe"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

func malformed(what string) error { return fmt.Errorf("%w: not a %s", ErrMalformed, what) }

// parseInt reads a decimal integer of at most the given bits.
func parseInt(b []byte, bits uint) (int64, error) {
	digits := b
	negative := false
	if len(b) > 0 && b[0] == '-' {
		negative, digits = true, b[1:]
	}
	if len(digits) == 0 || len(digits) > 19 {
		return 0, malformed("decimal integer")
	}
	var v uint64
	for _, c := range digits {
		c -= '0'
		if c > 9 {
			return 0, malformed("decimal integer")
		}
		v = v*10 + uint64(c) // 19 digits cannot overflow 64 bits
	}
	limit := uint64(1) << (bits - 1)
	if negative {
		if v > limit {
			return 0, fmt.Errorf("%w: integer exceeds %d bits", ErrMalformed, bits)
		}
		return -int64(v), nil
	}
	if v >= limit {
		return 0, fmt.Errorf("%w: integer exceeds %d bits", ErrMalformed, bits)
	}
	return int64(v), nil
}

func textInt(bits uint) Convert {
	return func(dst *datafile.Column, src []byte) error {
		v, err := parseInt(src, bits)
		if err != nil {
			return err
		}
		dst.AppendInt(v)
		return nil
	}
}

func binaryInt16(dst *datafile.Column, src []byte) error {
	if len(src) != 2 {
		return malformed("2-byte integer")
	}
	dst.AppendInt(int64(int16(binary.BigEndian.Uint16(src))))
	return nil
}

func binaryInt32(dst *datafile.Column, src []byte) error {
	if len(src) != 4 {
		return malformed("4-byte integer")
	}
	dst.AppendInt(int64(int32(binary.BigEndian.Uint32(src))))
	return nil
}

func binaryInt64(dst *datafile.Column, src []byte) error {
	if len(src) != 8 {
		return malformed("8-byte integer")
	}
	dst.AppendInt(int64(binary.BigEndian.Uint64(src)))
	return nil
}

func textBool(dst *datafile.Column, src []byte) error {
	if len(src) != 1 || src[0] != 't' && src[0] != 'f' {
		return malformed("boolean")
	}
	var v int64
	if src[0] == 't' {
		v = 1
	}
	dst.AppendInt(v)
	return nil
}

func binaryBool(dst *datafile.Column, src []byte) error {
	if len(src) != 1 || src[0] > 1 {
		return malformed("boolean")
	}
	dst.AppendInt(int64(src[0]))
	return nil
}

// parseFloat reads what float4out and float8out print. strconv accepts more
// spellings than PostgreSQL writes; those are refused.
func parseFloat(b []byte, bits int) (float64, error) {
	switch string(b) {
	case "NaN":
		return math.NaN(), nil
	case "Infinity":
		return math.Inf(1), nil
	case "-Infinity":
		return math.Inf(-1), nil
	}
	for _, c := range b {
		if c-'0' > 9 && c != '.' && c != '-' && c != '+' && c != 'e' {
			return 0, malformed("floating-point number")
		}
	}
	// The string does not outlive the call, except in its error.
	v, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(b), len(b)), bits)
	if err != nil {
		return 0, malformed("floating-point number")
	}
	return v, nil
}

func textFloat(bits int) Convert {
	return func(dst *datafile.Column, src []byte) error {
		v, err := parseFloat(src, bits)
		if err != nil {
			return err
		}
		dst.AppendFloat(v)
		return nil
	}
}

func binaryFloat4(dst *datafile.Column, src []byte) error {
	if len(src) != 4 {
		return malformed("4-byte floating-point number")
	}
	dst.AppendFloat(float64(math.Float32frombits(binary.BigEndian.Uint32(src))))
	return nil
}

func binaryFloat8(dst *datafile.Column, src []byte) error {
	if len(src) != 8 {
		return malformed("8-byte floating-point number")
	}
	dst.AppendFloat(math.Float64frombits(binary.BigEndian.Uint64(src)))
	return nil
}
