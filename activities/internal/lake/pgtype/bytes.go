package pgtype

import (
	"encoding/hex"
	"fmt"
	"unicode/utf8"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

var errUTF8 = fmt.Errorf("%w: text that is not valid UTF-8", ErrUnrepresentable)

// utf8Text keeps text as it is.
func utf8Text(dst *datafile.Column, src []byte) error {
	if !utf8.Valid(src) {
		return errUTF8
	}
	dst.AppendBytes(src)
	return nil
}

// rawBytes keeps bytes as they are.
func rawBytes(dst *datafile.Column, src []byte) error {
	dst.AppendBytes(src)
	return nil
}

// versioned reads jsonb's binary format: a version, which is 1, then text.
func versioned(text Convert) Convert {
	return func(dst *datafile.Column, src []byte) error {
		if len(src) == 0 || src[0] != 1 {
			return malformed("binary jsonb of version 1")
		}
		return text(dst, src[1:])
	}
}

// textBytea reads bytea_output hex: \x and two digits a byte.
func textBytea(dst *datafile.Column, src []byte) error {
	if len(src) < 2 || src[0] != '\\' || src[1] != 'x' {
		return malformed(`bytea in hexadecimal`)
	}
	b, err := hex.AppendDecode(dst.Bytes, src[2:])
	if err != nil {
		return malformed(`bytea in hexadecimal`)
	}
	dst.Bytes = b
	dst.AppendBytes(nil) // ends the value
	return nil
}

const hexDigits = "0123456789abcdef"

// binaryUUID prints 16 bytes as 8-4-4-4-12 digits.
func binaryUUID(dst *datafile.Column, src []byte) error {
	if len(src) != 16 {
		return malformed("16-byte uuid")
	}
	var text [36]byte
	n := 0
	for i, c := range src {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			text[n] = '-'
			n++
		}
		text[n], text[n+1] = hexDigits[c>>4], hexDigits[c&15]
		n += 2
	}
	dst.AppendBytes(text[:])
	return nil
}
