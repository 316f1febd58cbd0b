package pgsource

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/activities/change"
)

// Grounds tells what the streams of tables rest on now, by OID. Tables that are
// gone are left out.
func (d *DB) Grounds(ctx context.Context, db string, tables []*change.Table) (grounds map[uint32]*change.Ground, err error) {
	err = d.query(ctx, "look at what is published", func(ctx context.Context, c *pgx.Conn) error {
		return readOnly(ctx, c, func(tx pgx.Tx) error {
			grounds, err = groundsOf(ctx, tx, db, tables)
			return err
		})
	})
	return grounds, err
}

// GroundAt tells what the stream of a table rested on as of the snapshot of a
// cut, but for its shape, which is that of t. A table that was in no publication
// then is an [ErrRewritten]: changes after the cut may be missing.
func (d *DB) GroundAt(ctx context.Context, snapshot, db string, t *change.Table) (*change.Ground, error) {
	conn, err := d.session(ctx, sessionOptions{})
	if err != nil {
		return nil, err
	}
	defer closeConn(conn.PgConn())
	if err := importSnapshot(ctx, conn.PgConn(), snapshot); err != nil {
		return nil, err
	}
	act := "look at how " + t.String() + " is published"
	grounds, err := groundsOf(ctx, conn, db, []*change.Table{t})
	if err != nil {
		return nil, fault(act, err)
	}
	g := grounds[t.OID]
	if g == nil || g.Member == 0 {
		return nil, fmt.Errorf("%s: %w: it was in no publication at the cut", act, ErrRewritten)
	}
	return g, nil
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func groundsOf(ctx context.Context, q querier, db string, tables []*change.Table) (map[uint32]*change.Ground, error) {
	grounds := make(map[uint32]*change.Ground, len(tables))
	names := PublicationNames(db)
	oids, pubs := make([]uint32, len(tables)), make([]string, len(tables))
	shapes := make(map[uint32]change.Fingerprint, len(tables))
	for i, t := range tables {
		oids[i], pubs[i], shapes[t.OID] = t.OID, names[0], t.Fingerprint
		if t.Identity == change.IdentityNone {
			pubs[i] = names[1]
		}
	}
	rows, err := q.Query(ctx, `
		SELECT c.oid, c.relkind = 'p', coalesce(r.oid, 0)::oid, coalesce(p.xmin, '0')::text::oid,
		       ARRAY (SELECT attnum FROM pg_attribute
		              WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated <> '' ORDER BY attnum)
		FROM unnest($1::oid[], $2::text[]) w (oid, pub) JOIN pg_class c ON c.oid = w.oid
		LEFT JOIN (pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid) ON r.prrelid = c.oid AND p.pubname = w.pub::name`, oids, pubs)
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		var oid uint32
		g := &change.Ground{}
		if err := rows.Scan(&oid, &g.Partitioned, &g.Member, &g.Altered, &g.Hidden); err != nil {
			return nil, err
		}
		g.Shape = shapes[oid]
		grounds[oid] = g
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	// The transaction that made a table made the rows of its system columns,
	// which nothing ever changes.
	rows, err = q.Query(ctx, `
		WITH RECURSIVE tree AS (
			SELECT o AS root, o AS oid, false AS attached FROM unnest($1::oid[]) o
			UNION ALL
			SELECT tree.root, i.inhrelid, tree.attached OR i.xmin <> a.xmin
			FROM tree JOIN pg_class p ON p.oid = tree.oid AND p.relkind = 'p' JOIN pg_inherits i ON i.inhparent = tree.oid
			JOIN pg_attribute a ON a.attrelid = i.inhrelid AND a.attnum = -1
		)
		SELECT tree.root, c.oid, c.relfilenode, tree.attached
		FROM tree JOIN pg_class c ON c.oid = tree.oid WHERE c.relkind <> 'p' ORDER BY 1, 2`, oids)
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		var root uint32
		var f change.File
		if err := rows.Scan(&root, &f.Table, &f.Node, &f.Attached); err != nil {
			return nil, err
		}
		if g := grounds[root]; g != nil {
			g.Files = append(g.Files, f)
		}
	}
	return grounds, rows.Err()
}
