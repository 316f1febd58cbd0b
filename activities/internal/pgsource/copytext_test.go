package pgsource

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/activities/change"
)

// parseText feeds a stream in pieces and returns what was yielded.
func parseText(columns int, pieces ...[]byte) (rows []string, err error) {
	p := &textParser{columns: columns, yield: func(t *change.Tuple) error {
		rows = append(rows, string(change.AppendTuple(nil, t)))
		return nil
	}}
	for _, piece := range pieces {
		own := bytes.Clone(piece)
		err := p.write(own)
		for i := range own {
			own[i] = 0xEE
		}
		if err != nil {
			return rows, err
		}
	}
	return rows, p.close()
}

func tuple(values ...any) string {
	var t change.Tuple
	for _, v := range values {
		if v == nil {
			t.Append(change.Null, nil)
		} else {
			t.Append(change.Text, []byte(v.(string)))
		}
	}
	return string(change.AppendTuple(nil, &t))
}

func TestTextRows(t *testing.T) {
	stream := "1\tplain\t\\N\n" + `2	a\tb\nc\\d	\\N` + "\n" + "3\t\t\\b\\f\\r\\v\n"
	want := []string{
		tuple("1", "plain", nil),
		tuple("2", "a\tb\nc\\d", `\N`),
		tuple("3", "", "\b\f\r\v"),
	}
	for size := 1; size <= len(stream); size++ {
		var pieces [][]byte
		for rest := []byte(stream); len(rest) > 0; {
			n := min(size, len(rest))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		got, err := parseText(3, pieces...)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("in pieces of %d: %q, %v", size, got, err)
		}
	}
}

func TestBrokenTextIsRefused(t *testing.T) {
	for name, stream := range map[string]string{
		"a column too few":    "1\n",
		"a column too many":   "1\t2\t3\n",
		"no end":              "1\t2",
		"an unknown escape":   "1\t\\x\n",
		"a lonely backslash":  "1\t\\\n",
		"NULL inside a value": "1\ta\\N\n",
	} {
		if _, err := parseText(2, []byte(stream)); !errors.Is(err, errText) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzText checks that no bytes make the parser panic, and that how they are
// divided changes nothing.
func FuzzText(f *testing.F) {
	f.Add(uint8(3), 2, []byte("1\tplain\t\\N\n2\ta\\tb\\nc\\\\d\t\\\\N\n"))
	f.Add(uint8(1), 1, []byte("\n\n"))
	f.Fuzz(func(t *testing.T, columns uint8, size int, stream []byte) {
		size = max(1, size)
		whole, wholeErr := parseText(int(columns), stream)
		var pieces [][]byte
		for rest := stream; len(rest) > 0; {
			n := min(size, len(rest))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		divided, dividedErr := parseText(int(columns), pieces...)
		if (wholeErr == nil) != (dividedErr == nil) || strings.Join(whole, "") != strings.Join(divided, "") {
			t.Fatalf("whole: %d rows, %v; divided: %d rows, %v", len(whole), wholeErr, len(divided), dividedErr)
		}
	})
}
