package pgsource

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/activities/change"
)

// Estimate is how large a table is, as the catalog knows without counting.
type Estimate struct {
	// Rows is -1 where the table, or a partition of it, was never analysed.
	Rows int64
	// Bytes is the size of its main files.
	Bytes int64
}

// Estimates returns how large tables are, with their partitions, by OID. Those
// that are gone are left out.
func (d *DB) Estimates(ctx context.Context, tables []*change.Table) (map[uint32]Estimate, error) {
	oids := make([]uint32, len(tables))
	for i, t := range tables {
		oids[i] = t.OID
	}
	found := make(map[uint32]Estimate, len(tables))
	err := d.query(ctx, "estimate sizes", func(ctx context.Context, c *pgx.Conn) error {
		clear(found)
		rows, _ := c.Query(ctx, `
			SELECT oid, CASE WHEN bool_or(reltuples < 0 AND bytes > 0) THEN -1 ELSE sum(greatest(reltuples, 0)) END::bigint, sum(bytes)::bigint
			FROM (
				SELECT t.oid, c.reltuples, coalesce(pg_relation_size(c.oid), 0) AS bytes
				FROM unnest($1::oid[]) AS t(oid)
				LEFT JOIN LATERAL (SELECT relid FROM pg_partition_tree(t.oid) WHERE isleaf) l ON true
				JOIN pg_class c ON c.oid = coalesce(l.relid, t.oid)
			) leaves GROUP BY oid`, oids)
		var oid uint32
		var e Estimate
		_, err := pgx.ForEachRow(rows, []any{&oid, &e.Rows, &e.Bytes}, func() error {
			found[oid] = e
			return nil
		})
		return err
	})
	return found, err
}
