package change

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
)

// Ground is what the stream of a table's changes rests on, as of one snapshot.
// While it holds, rows come, change and go by changes in the stream alone. Where
// it does not, they may have done so in silence, and a copy is no longer what
// the stream continues.
type Ground struct {
	// Member is the OID of the table's entry in its publication, 0 where it has
	// none. A table that left and came back has another.
	Member uint32 `json:"member,omitempty"`
	// Altered is the transaction that last made or altered the publication,
	// which for a while may have published something else.
	Altered uint32 `json:"altered,omitempty"`
	// Shape is the table's fingerprint.
	Shape Fingerprint `json:"shape,omitempty"`
	// Hidden are the attribute numbers of columns that are not published, in
	// order: generated ones.
	Hidden []int16 `json:"hidden,omitempty"`
	// Files are the files of the table's rows, by Table: one, or those of the
	// partitions of a Partitioned table.
	Files       []File `json:"files,omitempty"`
	Partitioned bool   `json:"partitioned,omitempty"`
}

// File is the file of a table or partition.
type File struct {
	// Table is the OID of the table or partition, Node the file's number.
	Table uint32 `json:"table"`
	Node  uint32 `json:"node"`
	// Attached tells that the partition was made before it became one, and so
	// may have brought rows.
	Attached bool `json:"attached,omitempty"`
}

// Fingerprint is the same for equal grounds, on every worker.
func (g *Ground) Fingerprint() Fingerprint {
	h := fnv.New64a()
	num := func(v uint64) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], v)
		_, _ = h.Write(n[:])
	}
	num(uint64(g.Member))
	num(uint64(g.Altered))
	num(uint64(g.Shape))
	num(uint64(len(g.Hidden)))
	for _, a := range g.Hidden {
		num(uint64(uint16(a)))
	}
	for _, f := range g.Files {
		num(uint64(f.Table))
		num(uint64(f.Node))
	}
	return Fingerprint(h.Sum64())
}

// Streamed tells whether rows can have come or gone since g without a change in
// the stream, by what the ground is now; how says by what they may have, and is
// empty where they cannot.
func (g *Ground) Streamed(now *Ground) (how string) {
	switch {
	case now.Member == 0:
		return "it is in no publication"
	case g.Member != now.Member:
		return "it was not in the publication for a while"
	case g.Altered != now.Altered:
		return "its publication was altered"
	case !now.Partitioned:
		return ""
	}
	for _, f := range g.Files {
		i := slices.IndexFunc(now.Files, func(n File) bool { return n.Table == f.Table })
		if i < 0 {
			return fmt.Sprintf("its partition %d is gone", f.Table)
		}
		if now.Files[i].Node != f.Node {
			return fmt.Sprintf("its partition %d was rewritten or truncated", f.Table)
		}
	}
	for _, f := range now.Files {
		if f.Attached && !slices.ContainsFunc(g.Files, func(b File) bool { return b.Table == f.Table }) {
			return fmt.Sprintf("the table %d was attached as a partition", f.Table)
		}
	}
	return ""
}

// Filled tells whether rows older than a change of the table's shape may hold
// values which no change in the stream brought; t is the table as it is now. how
// is empty where they do not.
func (g *Ground) Filled(now *Ground, t *Table) (how string) {
	for i := range t.Columns {
		if c := &t.Columns[i]; slices.Contains(g.Hidden, c.Attr) {
			return fmt.Sprintf("its column %q was generated, and is not any more", c.Name)
		}
	}
	// A rewrite alone (VACUUM FULL, CLUSTER) keeps every row, and a truncation
	// is in the stream.
	if !now.Partitioned && g.Shape != now.Shape && !slices.Equal(g.Files, now.Files) {
		return "it was rewritten in another shape"
	}
	return ""
}
