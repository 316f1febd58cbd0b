package lake

import (
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/millrace-io/millrace/activities/change"
)

// The domains in which the tables say what they hold.
const (
	positionDomain = "millrace.position"
	stateDomain    = "millrace.state"
	copyDomain     = "millrace.copy"
	groundDomain   = "millrace.ground"
)

// maxComplete bounds how many complete incarnations a table remembers.
const maxComplete = 32

// tableState is domain millrace.state. Each table speaks for itself: history is
// live once its copy is complete, latest once it has caught up.
type tableState struct {
	Phase       Phase `json:"phase"`
	Incarnation int64 `json:"incarnation"`
	// OID is the source table of the incarnation.
	OID uint32 `json:"oid,omitempty"`
	// Complete lists the complete incarnations, oldest first; history alone has
	// them.
	Complete []incarnation `json:"complete,omitempty"`
}

// incarnation is one complete copy.
type incarnation struct {
	Number int64      `json:"number"`
	Epoch  uint32     `json:"epoch"`
	Cut    change.LSN `json:"cut"`
	OID    uint32     `json:"oid"`
}

// start is the position of the incarnation's copied rows: the changes after it
// are those that the copy does not hold.
func (i incarnation) start() change.Position {
	return change.Position{Epoch: i.Epoch, CommitLSN: i.Cut}
}

// complete returns the complete incarnation of that number.
func (s *tableState) complete(number int64) (incarnation, bool) {
	for _, i := range s.Complete {
		if i.Number == number {
			return i, true
		}
	}
	return incarnation{}, false
}

// newest returns the newest complete incarnation that had begun at asOf.
func (s *tableState) newest(asOf change.Position) (incarnation, bool) {
	for i := len(s.Complete) - 1; i >= 0; i-- {
		if c := s.Complete[i]; !asOf.Before(c.start()) {
			return c, true
		}
	}
	return incarnation{}, false
}

// copyState is domain millrace.copy of history.
type copyState struct {
	ID          string     `json:"id"`
	Incarnation int64      `json:"incarnation"`
	Epoch       uint32     `json:"epoch"`
	Cut         change.LSN `json:"cut"`
	CutMicros   int64      `json:"cut_micros"`
	OID         uint32     `json:"oid"`
	Chunks      int        `json:"chunks"`
	// Rows and Bytes are those of the chunks that are done.
	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes"`
	// Done has a bit for each chunk that is done.
	Done bitmap `json:"done,omitempty"`
	// Finished tells that the copy is complete.
	Finished bool `json:"finished,omitempty"`
}

// is tells whether this is the copy called id. No copy has no name.
func (c *copyState) is(id string) bool { return id != "" && c.ID == id }

// start is the position of the copied rows.
func (c *copyState) start() change.Position {
	return change.Position{Epoch: c.Epoch, CommitLSN: c.Cut}
}

// done counts the chunks that are done.
func (c *copyState) done() int {
	if c.Finished {
		return c.Chunks
	}
	n := 0
	for i := range c.Chunks {
		if c.Done.has(i) {
			n++
		}
	}
	return n
}

// bitmap is a set of small numbers, written in base64.
type bitmap []byte

func (b bitmap) has(i int) bool { return i/8 < len(b) && b[i/8]&(1<<(i%8)) != 0 }

// with returns a copy of b that has i.
func (b bitmap) with(i int) bitmap {
	c := make(bitmap, max(len(b), i/8+1))
	copy(c, b)
	c[i/8] |= 1 << (i % 8)
	return c
}

// MarshalText writes base64.
func (b bitmap) MarshalText() ([]byte, error) {
	return base64.RawStdEncoding.AppendEncode(nil, b), nil
}

// UnmarshalText reads base64.
func (b *bitmap) UnmarshalText(text []byte) error {
	c, err := base64.RawStdEncoding.AppendDecode(nil, text)
	*b = c
	return err
}

// encodeDomain returns the configuration of a domain.
func encodeDomain(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // the structs above cannot fail
	}
	return string(b)
}

// decodeDomain reads a domain's configuration. One that is absent leaves v.
func decodeDomain(get func(name string) (string, bool), name string, v any) error {
	s, ok := get(name)
	if !ok {
		return nil
	}
	if err := json.Unmarshal([]byte(s), v); err != nil {
		return fmt.Errorf("read domain %s: %w", name, err)
	}
	return nil
}
