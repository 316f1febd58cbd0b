package pgsource

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/activities/change"
)

// publication is what the catalog says about one publication.
type publication struct {
	name       string
	publish    string // what it should publish
	identified bool   // whether it is for tables with an identity

	exists, ours, owned bool
	owner               string
	all, viaRoot        bool
	generated           bool // generated columns
	actual              string
	schemas             bool // FOR TABLES IN SCHEMA
	tables              map[uint32]member
}

// member is a table of a publication.
type member struct {
	schema, name string
	filtered     bool // it has a row filter or a column list
}

// mark is the comment that tells a publication of ours.
func mark(db string) string { return "made by Millrace for " + db }

// wanted are the two publications of a database of the fleet.
func wanted(db string) []*publication {
	names := PublicationNames(db)
	return []*publication{
		{name: names[0], publish: "insert, update, delete, truncate", identified: true},
		{name: names[1], publish: "insert, truncate"},
	}
}

// EnsurePublications checks the two publications of a database of the fleet,
// and gives them exactly the tables: those with an identity the first, those
// without the second. Tables that are not given leave publications that Millrace
// made; one that an operator made keeps them. A publication that does not exist
// is made where create says so, and an [ErrPublicationMissing] otherwise: what
// it would have published is in no stream.
//
// Published are the OIDs of the tables that are in the right publication now;
// problems say why the others are not, with the SQL for who may change it. A
// table's identity is checked again under the lock that adding it takes, so that
// no update of an application is ever refused.
func (d *DB) EnsurePublications(ctx context.Context, db string, tables []*change.Table, create bool) (published []uint32, problems []Problem, err error) {
	pubs := wanted(db)
	for _, p := range pubs {
		found, err := d.ensurePublication(ctx, db, p, create)
		if err != nil {
			return nil, nil, err
		}
		problems = append(problems, found...)
	}
	if len(problems) > 0 {
		return nil, problems, nil
	}
	want := map[uint32]*publication{}
	for _, t := range tables {
		p := pubs[0]
		if t.Identity == change.IdentityNone {
			p = pubs[1]
		}
		want[t.OID] = p
	}
	// First what must not be published as it is: until then an update may be
	// refused.
	for _, p := range pubs {
		var drop []string
		for oid, m := range p.tables {
			if want[oid] != p {
				drop = append(drop, ident(m.schema, m.name))
				delete(p.tables, oid)
			}
		}
		if len(drop) == 0 {
			continue
		}
		slices.Sort(drop)
		sql := fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE ONLY %s", ident(p.name), strings.Join(drop, ", ONLY "))
		if !p.ours || !p.owned {
			problems = append(problems, Problem{
				Code:     "PUBLICATION_EXTRA",
				Sentence: fmt.Sprintf("the publication %s, which %s owns and Millrace did not make, holds %d tables that the fleet file leaves out of it, or that belong into the other", p.name, p.owner, len(drop)),
				Remedy:   sql + ";",
			})
			continue
		}
		if err := d.alter(ctx, sql); err != nil && !errors.Is(err, ErrTableGone) {
			return nil, nil, err
		}
	}
	for _, p := range pubs {
		var add []*change.Table
		for _, t := range tables {
			if want[t.OID] != p {
				continue
			}
			m, in := p.tables[t.OID]
			switch {
			case !in:
				add = append(add, t)
			case m.filtered:
				problems = append(problems, p.filters(t))
			default:
				published = append(published, t.OID)
			}
		}
		added, found, err := d.addTables(ctx, p, add)
		if err != nil {
			return nil, nil, err
		}
		published = append(published, added...)
		problems = append(problems, found...)
	}
	slices.Sort(published)
	return published, d.fill(problems), nil
}

// filters says that p publishes a table in part.
func (p *publication) filters(t *change.Table) Problem {
	return Problem{
		Code: "PUBLICATION_FILTERED", Blocking: true, Table: t.String(), OID: t.OID,
		Sentence: fmt.Sprintf("%s is published by %s with a row filter or a column list, so that a copy would hold what the stream does not", t, p.name),
		Remedy: fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE ONLY %s; ALTER PUBLICATION %s ADD TABLE ONLY %s;",
			ident(p.name), ident(t.Schema, t.Name), ident(p.name), ident(t.Schema, t.Name)),
	}
}

// notOwned says that only others may have p publish a table.
func (p *publication) notOwned(t *change.Table, owner string) Problem {
	return Problem{
		Code: "TABLE_NOT_OWNED", Blocking: true, Table: t.String(), OID: t.OID,
		Sentence: fmt.Sprintf("%s belongs to %s, and only a role that owns both it and the publication %s may publish it", t, owner, p.name),
		Remedy:   fmt.Sprintf("GRANT %s TO {role}; -- or, as a superuser: ALTER PUBLICATION %s ADD TABLE ONLY %s;", ident(owner), ident(p.name), ident(t.Schema, t.Name)),
	}
}

// options are what p is made with.
func (p *publication) options() string {
	options := fmt.Sprintf("publish = '%s', publish_via_partition_root = true", p.publish)
	if p.generated {
		options += ", publish_generated_columns = none"
	}
	return options
}

// unfit says why a publication that exists cannot be used as it is; nil where it
// can, or where it is ours to change.
func (p *publication) unfit() []Problem {
	problem := func(sentence, remedy string) []Problem {
		return []Problem{{Code: "PUBLICATION", Sentence: sentence, Remedy: remedy, Blocking: true}}
	}
	anew := fmt.Sprintf("DROP PUBLICATION %s; CREATE PUBLICATION %s WITH (%s);", ident(p.name), ident(p.name), p.options())
	switch {
	case p.all:
		return problem(fmt.Sprintf("the publication %s is FOR ALL TABLES: every table without a replica identity refuses its updates", p.name), anew)
	case p.schemas:
		return problem(fmt.Sprintf("the publication %s is FOR TABLES IN SCHEMA: a table without a replica identity made there would refuse its updates", p.name), anew)
	case p.fit() || p.ours && p.owned:
		return nil
	}
	return problem(fmt.Sprintf("the publication %s does not publish %q, by the partitions' root and without generated columns", p.name, p.publish),
		fmt.Sprintf("ALTER PUBLICATION %s SET (%s);", ident(p.name), p.options()))
}

// fit tells that p has the options that it needs.
func (p *publication) fit() bool { return p.actual == p.publish && p.viaRoot && !p.generated }

// ensurePublication has p exist with the right options, and reads what is in
// it.
func (d *DB) ensurePublication(ctx context.Context, db string, p *publication, create bool) ([]Problem, error) {
	if err := d.readPublication(ctx, db, p); err != nil {
		return nil, err
	}
	statement := fmt.Sprintf("CREATE PUBLICATION %s WITH (%s)", ident(p.name), p.options())
	comment := fmt.Sprintf("COMMENT ON PUBLICATION %s IS %s", ident(p.name), literal(mark(db)))
	switch {
	case !p.exists && !create:
		return nil, publicationMissing(p.name)
	case !p.exists:
		err := d.query(ctx, "make publication "+p.name, func(ctx context.Context, c *pgx.Conn) error {
			return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, statement); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, comment)
				return err
			})
		})
		switch {
		case errors.Is(err, ErrPrivilege):
			return []Problem{{
				Code: "PUBLICATION", Blocking: true,
				Sentence: fmt.Sprintf("the role %s may not make the publication %s in the database %s", d.user(), p.name, d.database()),
				Remedy:   fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s; -- or, as owner of the tables: %s;", ident(d.database()), ident(d.user()), statement),
			}}, nil
		case err != nil && sqlstate(err) != "42710": // another worker made it
			return nil, err
		}
		return nil, d.readPublication(ctx, db, p)
	}
	if problems := p.unfit(); problems != nil || p.fit() {
		return problems, nil
	}
	return nil, d.alter(ctx, fmt.Sprintf("ALTER PUBLICATION %s SET (%s)", ident(p.name), p.options()))
}

// readPublication fills in what exists.
func (d *DB) readPublication(ctx context.Context, db string, p *publication) error {
	return d.query(ctx, "read publication "+p.name, func(ctx context.Context, c *pgx.Conn) error {
		return readOnly(ctx, c, func(tx pgx.Tx) error {
			var oid uint32
			err := tx.QueryRow(ctx, `
				SELECT oid, coalesce(obj_description(oid, 'pg_publication') = $2, false), pg_has_role(pubowner, 'USAGE'), pg_get_userbyid(pubowner)::text,
				       puballtables, pubviaroot, coalesce(to_jsonb(p) ->> 'pubgencols', 'n') <> 'n',
				       concat_ws(', ', CASE WHEN pubinsert THEN 'insert' END, CASE WHEN pubupdate THEN 'update' END,
				                       CASE WHEN pubdelete THEN 'delete' END, CASE WHEN pubtruncate THEN 'truncate' END)
				FROM pg_publication p WHERE pubname = $1::text::name`, p.name, mark(db)).
				Scan(&oid, &p.ours, &p.owned, &p.owner, &p.all, &p.viaRoot, &p.generated, &p.actual)
			p.tables = map[uint32]member{}
			if p.exists = !errors.Is(err, pgx.ErrNoRows); !p.exists {
				return nil
			}
			if err != nil {
				return err
			}
			// Filters, column lists and schemas came with PostgreSQL 15.
			filtered := "false"
			var modern bool
			if err := tx.QueryRow(ctx, `SELECT to_regclass('pg_catalog.pg_publication_namespace') IS NOT NULL`).Scan(&modern); err != nil {
				return err
			}
			if modern {
				filtered = "prqual IS NOT NULL OR prattrs IS NOT NULL"
				err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_publication_namespace WHERE pnpubid = $1)`, oid).Scan(&p.schemas)
				if err != nil {
					return err
				}
			}
			rows, _ := tx.Query(ctx, `
				SELECT c.oid, n.nspname::text, c.relname::text, `+filtered+`
				FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
				WHERE r.prpubid = $1`, oid)
			for rows.Next() {
				var table uint32
				var m member
				if err := rows.Scan(&table, &m.schema, &m.name, &m.filtered); err != nil {
					return err
				}
				p.tables[table] = m
			}
			return rows.Err()
		})
	})
}

// alter runs a statement that changes a publication.
func (d *DB) alter(ctx context.Context, sql string) error {
	return d.query(ctx, "change a publication", func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, sql)
		return err
	})
}

// errUnfit means that a table's identity is not what it was when its
// publication was chosen.
var errUnfit = errors.New("replica identity changed")

// addTables adds tables to a publication: all at once, or where that does not
// work each for itself.
func (d *DB) addTables(ctx context.Context, p *publication, add []*change.Table) (added []uint32, problems []Problem, err error) {
	if len(add) == 0 {
		return nil, nil, nil
	}
	if err := d.add(ctx, p, add); err == nil {
		for _, t := range add {
			added = append(added, t.OID)
		}
		return added, nil, nil
	} else if ctx.Err() != nil || errors.Is(err, ErrUnreachable) {
		return nil, nil, err
	}
	for _, t := range add {
		err := d.add(ctx, p, []*change.Table{t})
		sql := fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE ONLY %s;", ident(p.name), ident(t.Schema, t.Name))
		problem := Problem{Blocking: true, Table: t.String(), OID: t.OID}
		switch {
		case err == nil:
			added = append(added, t.OID)
			continue
		case errors.Is(err, ErrPrivilege):
			owner, ownerErr := d.owner(ctx, t.OID)
			if ownerErr != nil {
				return nil, nil, ownerErr
			}
			problem = p.notOwned(t, owner)
		case errors.Is(err, errUnfit):
			problem.Code = "TABLE_CHANGED"
			problem.Sentence = fmt.Sprintf("the replica identity of %s changed while it was being published", t)
			problem.Remedy = "none is needed: the next scan tries again"
		case errors.Is(err, ErrLocked):
			problem.Code = "TABLE_LOCKED"
			problem.Sentence = fmt.Sprintf("%s is locked by others, so it could not be published within %s", t, lockTimeout)
			problem.Remedy = "none is needed: the next scan tries again; or when it is free: " + sql
		case errors.Is(err, ErrTableGone):
			continue
		case sqlstate(err) != "":
			problem.Code = "TABLE_NOT_PUBLISHED"
			problem.Sentence = fmt.Sprintf("%s cannot be published: %s", t, innermostMessage(err))
			problem.Remedy = sql
		default:
			return nil, nil, err
		}
		problems = append(problems, problem)
	}
	return added, problems, nil
}

// add adds tables in one transaction, which it rolls back unless each still has
// the identity that it was chosen by.
func (d *DB) add(ctx context.Context, p *publication, add []*change.Table) error {
	names := make([]string, len(add))
	oids := make([]uint32, len(add))
	for i, t := range add {
		names[i], oids[i] = ident(t.Schema, t.Name), t.OID
	}
	return d.query(ctx, "publish tables in "+p.name, func(ctx context.Context, c *pgx.Conn) error {
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE ONLY %s", ident(p.name), strings.Join(names, ", ONLY ")))
			if err != nil {
				return err
			}
			// The lock that this took keeps identities and names as they are.
			var all, unfit int
			err = tx.QueryRow(ctx, `
				WITH RECURSIVE tree AS (
					SELECT c.oid, c.oid AS root FROM pg_class c JOIN pg_publication_rel r ON r.prrelid = c.oid
					JOIN pg_publication p ON p.oid = r.prpubid AND p.pubname = $2::text::name
					WHERE c.oid = ANY ($1::oid[])
					UNION ALL
					SELECT i.inhrelid, tree.root FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
					JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
				)
				SELECT count(DISTINCT root) FILTER (WHERE root = tree.oid),
				       count(*) FILTER (WHERE $3 AND c.relreplident <> 'f' AND pg_get_replica_identity_index(c.oid) IS NULL)
				FROM tree JOIN pg_class c ON c.oid = tree.oid`, oids, p.name, p.identified).Scan(&all, &unfit)
			if err != nil {
				return err
			}
			if all != len(add) || unfit > 0 {
				return errUnfit
			}
			return nil
		})
	})
}

func (d *DB) owner(ctx context.Context, oid uint32) (name string, err error) {
	err = d.query(ctx, "look up an owner", func(ctx context.Context, c *pgx.Conn) error {
		err := c.QueryRow(ctx, `SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE oid = $1`, oid).Scan(&name)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	return name, err
}

// DropPublications drops the publications of a database of the fleet that
// Millrace made. Those that somebody else made, or owns, are left.
func (d *DB) DropPublications(ctx context.Context, db string) (dropped, left []string, err error) {
	for _, p := range wanted(db) {
		if err := d.readPublication(ctx, db, p); err != nil {
			return dropped, left, err
		}
		switch {
		case !p.exists:
		case !p.ours || !p.owned:
			left = append(left, p.name)
		default:
			if err := d.alter(ctx, "DROP PUBLICATION IF EXISTS "+ident(p.name)); err != nil {
				return dropped, left, err
			}
			dropped = append(dropped, p.name)
		}
	}
	return dropped, left, nil
}
