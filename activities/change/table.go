package change

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"strconv"
)

// Identity says how PostgreSQL identifies the old row of an update or delete.
type Identity byte

const (
	// IdentityNone means that updates and deletes cannot be published: the
	// table has history alone, of inserts and truncates.
	IdentityNone Identity = 0
	// IdentityKey means a replica identity index: old rows arrive as its
	// columns.
	IdentityKey Identity = 'i'
	// IdentityFull means REPLICA IDENTITY FULL: old rows arrive whole.
	IdentityFull Identity = 'f'
)

// Type is a column's PostgreSQL type with domains resolved to their base.
type Type struct {
	// OID is the base type's object id; of the element type for an array.
	OID uint32 `json:"oid"`
	// Name is the type's name in pg_type (int4, numeric, timestamptz, my_enum);
	// of the element type for an array.
	Name string `json:"name"`
	// Kind is pg_type.typtype of the base or element type: b base, c composite,
	// e enum, r range, m multirange, p pseudo.
	Kind string `json:"kind"`
	// Array tells that the column holds arrays of this type.
	Array bool `json:"array,omitempty"`
	// Mod is the type modifier that applies to the base type (a domain's own
	// where it has one), or -1.
	Mod int32 `json:"mod"`
}

// Column is one published column, in the order of the Relation message.
type Column struct {
	// Name is the column's name as PostgreSQL spells it.
	Name string `json:"name"`
	// TypeOID and TypeMod are what the Relation message says.
	TypeOID uint32 `json:"type_oid"`
	TypeMod int32  `json:"type_mod"`
	// Identity tells that the Relation message flags it as part of the
	// identity. Under REPLICA IDENTITY FULL every column is.
	Identity bool `json:"identity,omitempty"`
	// Attr is the attribute number from the catalog, or 0 where unknown.
	Attr int16 `json:"attr,omitempty"`
	// Fills tells that rows older than the column may hold a value in it which
	// no change in the WAL brought: it has a default, is an identity, or may not
	// be NULL.
	Fills bool `json:"fills,omitempty"`
	// Type is resolved from the catalog.
	Type Type `json:"type"`
}

// Fingerprint names one shape of one table: what its Relation message said.
type Fingerprint uint64

// String returns 16 hexadecimal digits.
func (f Fingerprint) String() string { return fmt.Sprintf("%016x", uint64(f)) }

// MarshalText writes 16 hexadecimal digits.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads hexadecimal digits.
func (f *Fingerprint) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 16, 64)
	if err != nil {
		return fmt.Errorf("parse fingerprint: %w", err)
	}
	*f = Fingerprint(v)
	return nil
}

// Table is one shape of one source table. It is immutable: another shape is
// another Table with another Fingerprint.
type Table struct {
	OID      uint32   `json:"oid"`
	Schema   string   `json:"schema"`
	Name     string   `json:"name"`
	Identity Identity `json:"identity"`
	Columns  []Column `json:"columns"`
	// Key lists the indices into Columns that key the latest table, in column
	// order. It is empty for IdentityNone, and under IdentityFull where no key
	// exists: then rows are a multiset.
	Key []int `json:"key,omitempty"`
	// Fingerprint is RelationFingerprint of this shape.
	Fingerprint Fingerprint `json:"fingerprint"`
}

// String returns schema.name, unquoted, for people and file names of theirs.
func (t *Table) String() string { return t.Schema + "." + t.Name }

// Multiset tells that rows have no key and equal rows are counted.
func (t *Table) Multiset() bool { return t.Identity == IdentityFull && len(t.Key) == 0 }

// Column returns the index of the column called name, or -1.
func (t *Table) Column(name string) int {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return i
		}
	}
	return -1
}

// ComputeFingerprint hashes all that a Relation message says: OID, names,
// replica identity, and each column's name, type, modifier and identity flag.
// Two equal Relation messages have equal fingerprints on every worker.
func (t *Table) ComputeFingerprint() Fingerprint {
	h := fnv.New64a()
	var n [8]byte
	num := func(v uint64) {
		binary.BigEndian.PutUint64(n[:], v)
		_, _ = h.Write(n[:])
	}
	str := func(s string) {
		num(uint64(len(s)))
		_, _ = h.Write([]byte(s))
	}
	num(uint64(t.OID))
	str(t.Schema)
	str(t.Name)
	num(uint64(t.Identity))
	for i := range t.Columns {
		c := &t.Columns[i]
		str(c.Name)
		num(uint64(c.TypeOID))
		num(uint64(uint32(c.TypeMod)))
		flag := uint64(0)
		if c.Identity {
			flag = 1
		}
		num(flag)
	}
	return Fingerprint(h.Sum64())
}
