package pgsource

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/activities/change"
)

// typeRow is one row of pg_type.
type typeRow struct {
	name, kind string
	base       uint32 // of a domain
	mod        int32  // of a domain
	elem       uint32 // of a true array
}

// typeCache keeps rows of pg_type. What is kept of a type does not change while
// it exists, but for its name.
type typeCache struct {
	mu   sync.Mutex
	rows map[uint32]typeRow
}

// resolveTypes resolves the types of t's columns from their TypeOID and TypeMod.
func (d *DB) resolveTypes(ctx context.Context, t *change.Table) error {
	c := &d.types
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rows == nil {
		c.rows = map[uint32]typeRow{}
	}
	want := map[uint32]bool{}
	for i := range t.Columns {
		want[t.Columns[i].TypeOID] = true
	}
	// Each round learns about the types that the last one referred to.
	for len(want) > 0 {
		maps.DeleteFunc(want, func(oid uint32, _ bool) bool { _, known := c.rows[oid]; return known })
		if len(want) == 0 {
			break
		}
		found, err := d.typeRows(ctx, slices.Sorted(maps.Keys(want)))
		if err != nil {
			return err
		}
		next := map[uint32]bool{}
		for oid := range want {
			row, exists := found[oid]
			if !exists {
				row = typeRow{kind: "b"}
			}
			c.rows[oid] = row
			for _, ref := range []uint32{row.base, row.elem} {
				if ref != 0 {
					next[ref] = true
				}
			}
		}
		want = next
	}
	for i := range t.Columns {
		col := &t.Columns[i]
		col.Type = c.resolve(col.TypeOID, col.TypeMod)
	}
	return nil
}

// resolve follows domains and one array level.
func (c *typeCache) resolve(oid uint32, mod int32) change.Type {
	oid, mod = c.undomain(oid, mod)
	row := c.rows[oid]
	if row.elem == 0 {
		return change.Type{OID: oid, Name: row.name, Kind: row.kind, Mod: mod}
	}
	elem, elemMod := c.undomain(row.elem, mod)
	if c.rows[elem].elem != 0 {
		// Arrays of a domain over arrays have no type of their own here: such a
		// value is what it prints as.
		return change.Type{OID: oid, Name: row.name, Kind: row.kind, Mod: -1}
	}
	return change.Type{OID: elem, Name: c.rows[elem].name, Kind: c.rows[elem].kind, Array: true, Mod: elemMod}
}

// undomain follows a domain to its base type. A domain's own modifier is the
// one that applies.
func (c *typeCache) undomain(oid uint32, mod int32) (uint32, int32) {
	for range 64 {
		row := c.rows[oid]
		if row.kind != "d" {
			break
		}
		oid, mod = row.base, row.mod
	}
	return oid, mod
}

func (d *DB) typeRows(ctx context.Context, oids []uint32) (map[uint32]typeRow, error) {
	found := map[uint32]typeRow{}
	err := d.query(ctx, "look up types", func(ctx context.Context, c *pgx.Conn) error {
		rows, _ := c.Query(ctx, `
			SELECT t.oid, t.typname::text, t.typtype::text, t.typbasetype, t.typtypmod,
			       CASE WHEN e.typarray = t.oid THEN e.oid ELSE 0 END
			FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem
			WHERE t.oid = ANY ($1::oid[])`, oids)
		for rows.Next() {
			var oid uint32
			var r typeRow
			if err := rows.Scan(&oid, &r.name, &r.kind, &r.base, &r.mod, &r.elem); err != nil {
				return err
			}
			found[oid] = r
		}
		return rows.Err()
	})
	return found, err
}
