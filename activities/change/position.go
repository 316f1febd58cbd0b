package change

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a byte position in a PostgreSQL write-ahead log. Zero means none.
type LSN uint64

// ParseLSN reads the form that PostgreSQL prints, such as 16/B374D848.
func ParseLSN(s string) (LSN, error) {
	hi, lo, found := strings.Cut(s, "/")
	h, errHi := strconv.ParseUint(hi, 16, 32)
	l, errLo := strconv.ParseUint(lo, 16, 32)
	if !found || errHi != nil || errLo != nil {
		return 0, fmt.Errorf("parse LSN %q: want two hexadecimal numbers around a slash", s)
	}
	return LSN(h<<32 | l), nil
}

// String returns the form that PostgreSQL prints.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// MarshalText writes the form that PostgreSQL prints.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what [ParseLSN] reads.
func (l *LSN) UnmarshalText(b []byte) error {
	v, err := ParseLSN(string(b))
	*l = v
	return err
}

// Position orders the changes of one table: first by the slot's generation,
// then by the commit of their transaction, then by their count within it.
//
// A copied row stands at ordinal 0 of its cut. The zero Position is before
// every change.
type Position struct {
	// Epoch is the generation of the slot, from 1. It grows when a slot had to
	// be made anew.
	Epoch uint32 `json:"epoch"`
	// CommitLSN is where the transaction's commit record begins: the final
	// LSN of pgoutput's Begin message.
	CommitLSN LSN `json:"lsn"`
	// Ordinal counts this table's changes within the transaction, from 1.
	Ordinal uint64 `json:"ordinal"`
}

// Compare returns -1, 0 or +1 as p is before, at or after q.
func (p Position) Compare(q Position) int {
	if c := cmp.Compare(p.Epoch, q.Epoch); c != 0 {
		return c
	}
	if c := cmp.Compare(p.CommitLSN, q.CommitLSN); c != 0 {
		return c
	}
	return cmp.Compare(p.Ordinal, q.Ordinal)
}

// Before tells whether p is strictly before q.
func (p Position) Before(q Position) bool { return p.Compare(q) < 0 }

// IsZero tells whether p is before every change.
func (p Position) IsZero() bool { return p == Position{} }

// String returns epoch, commit LSN and ordinal, such as e1 0/16B3748 #2.
func (p Position) String() string {
	return fmt.Sprintf("e%d %s #%d", p.Epoch, p.CommitLSN, p.Ordinal)
}
