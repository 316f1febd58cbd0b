package pgsource

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/fleet"
)

// Tables lists the tables that patterns choose: ordinary ones, and partitioned
// ones as a whole (their partitions are never listed). A table whose identity
// is IdentityNone has history of inserts and truncates alone. Problems say what
// is in the way of single tables, and which matching relations cannot be
// mirrored at all; a table that was listed may have a problem.
func (d *DB) Tables(ctx context.Context, patterns []string) ([]*change.Table, []Problem, error) {
	all, err := d.relations(ctx)
	if err != nil {
		return nil, nil, err
	}
	var chosen []*relation
	var problems []Problem
	for _, r := range all {
		if !fleet.Matches(patterns, r.schema, r.name) {
			continue
		}
		if p, refused := r.refuse(); refused {
			problems = append(problems, p)
			continue
		}
		chosen = append(chosen, r)
	}
	tables, found, err := d.describe(ctx, chosen)
	return tables, d.fill(append(problems, found...)), err
}

// Describe describes one table as Tables does. It returns an [ErrTableGone]
// where there is none.
func (d *DB) Describe(ctx context.Context, oid uint32) (*change.Table, error) {
	all, err := d.relations(ctx, oid)
	if err != nil {
		return nil, err
	}
	tables, _, err := d.describe(ctx, all)
	if err != nil {
		return nil, err
	}
	if len(tables) == 0 {
		return nil, tableGone(oid)
	}
	return tables[0], nil
}

func tableGone(oid uint32) error {
	return fmt.Errorf("describe table %d: %w", oid, ErrTableGone)
}

// relation is what the catalog says about a table or something like one.
type relation struct {
	oid          uint32
	schema, name string
	kind         string // relkind
	persistence  string // relpersistence
	identity     string // relreplident
	// options that concern reading
	rowSecurity bool // policies apply to our role
	readable    bool // SELECT on every column, USAGE on the schema
	owner       string
	written     bool // the statistics count an update or delete

	columns []column
	indexes []index
	// identityIndex is what pg_get_replica_identity_index() says; 0 is none.
	identityIndex uint32
	leaves        []*relation // of a partitioned table
}

// column is one row of pg_attribute.
type column struct {
	attr      int16
	name      string
	oid       uint32
	mod       int32
	generated bool
	fills     bool // see change.Column
}

// index is a unique index that could identify rows.
type index struct {
	oid uint32
	// primary and chosen are indisprimary and indisreplident. sound tells that
	// it is valid, not deferrable and not partial.
	primary, chosen, sound bool
	attrs                  []int16
}

func (r *relation) String() string { return r.schema + "." + r.name }
func (r *relation) sql() string    { return ident(r.schema, r.name) }

// refuse says why a relation cannot be mirrored whatever its columns are.
func (r *relation) refuse() (Problem, bool) {
	p := Problem{Code: "TABLE_KIND", Blocking: true, Table: r.String(), OID: r.oid}
	switch {
	case r.kind == "v" || r.kind == "m":
		p.Sentence = fmt.Sprintf("%s is a view, which has no changes to read", r)
		p.Remedy = "exclude it: !" + r.String()
	case r.kind == "f":
		p.Sentence = fmt.Sprintf("%s is a foreign table: its changes are in another server's log", r)
		p.Remedy = "mirror it from that server, and exclude it here: !" + r.String()
	case r.persistence == "u":
		p.Sentence = fmt.Sprintf("%s is unlogged: its changes are in no log", r)
		p.Remedy = fmt.Sprintf("ALTER TABLE %s SET LOGGED;", r.sql())
	case r.persistence == "t":
		p.Sentence = fmt.Sprintf("%s is a temporary table", r)
		p.Remedy = "exclude it: !" + r.String()
	default:
		return Problem{}, false
	}
	return p, true
}

// relations reads the catalog for what could be chosen by a pattern, or for the
// tables with the OIDs given. The types in the result are not resolved.
func (d *DB) relations(ctx context.Context, oids ...uint32) ([]*relation, error) {
	byOID := map[uint32]*relation{}
	var all []*relation
	err := d.query(ctx, "read the catalog", func(ctx context.Context, c *pgx.Conn) error {
		clear(byOID)
		all = nil
		return readOnly(ctx, c, func(tx pgx.Tx) error {
			rows, _ := tx.Query(ctx, `
				SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, c.relreplident::text,
				       row_security_active(c.oid),
				       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
				       pg_get_userbyid(c.relowner)::text,
				       coalesce(pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid) > 0, false)
				FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
				WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
				  AND (CASE WHEN cardinality($1::oid[]) > 0 THEN c.oid = ANY ($1::oid[]) ELSE NOT c.relispartition END)
				ORDER BY 2, 3`, oids)
			for rows.Next() {
				r := &relation{}
				err := rows.Scan(&r.oid, &r.schema, &r.name, &r.kind, &r.persistence, &r.identity,
					&r.rowSecurity, &r.readable, &r.owner, &r.written)
				if err != nil {
					return err
				}
				all = append(all, r)
				byOID[r.oid] = r
			}
			return rows.Err()
		})
	})
	return all, err
}

// readOnly runs f in a transaction that sees one state of the catalog.
func readOnly(ctx context.Context, c *pgx.Conn, f func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, c, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, f)
}

// describe reads columns, indexes and partitions of relations and makes tables
// of them. Relations that are gone meanwhile are left out.
func (d *DB) describe(ctx context.Context, chosen []*relation) (tables []*change.Table, problems []Problem, err error) {
	if len(chosen) == 0 {
		return nil, nil, nil
	}
	if err := d.details(ctx, chosen); err != nil {
		return nil, nil, err
	}
	if err := d.identities(ctx, chosen); err != nil {
		return nil, nil, err
	}
	for _, r := range chosen {
		t, p := r.table()
		problems = append(problems, p...)
		if t == nil {
			continue
		}
		if err := d.resolveTypes(ctx, t); err != nil {
			return nil, nil, err
		}
		tables = append(tables, t)
	}
	return tables, problems, nil
}

// details fills columns, indexes and leaves.
func (d *DB) details(ctx context.Context, chosen []*relation) error {
	byOID := map[uint32]*relation{}
	var oids, roots []uint32
	for _, r := range chosen {
		byOID[r.oid] = r
		oids = append(oids, r.oid)
		if r.kind == "p" {
			roots = append(roots, r.oid)
		}
	}
	return d.query(ctx, "read the catalog", func(ctx context.Context, c *pgx.Conn) error {
		return readOnly(ctx, c, func(tx pgx.Tx) error {
			for _, r := range chosen {
				r.columns, r.indexes, r.leaves = nil, nil, nil
			}
			rows, _ := tx.Query(ctx, `
				SELECT attrelid, attnum, attname::text, atttypid, atttypmod, attgenerated <> '',
				       atthasmissing OR atthasdef OR attnotnull OR attidentity <> ''
				FROM pg_attribute WHERE attrelid = ANY ($1::oid[]) AND attnum > 0 AND NOT attisdropped
				ORDER BY attrelid, attnum`, oids)
			for rows.Next() {
				var oid uint32
				var a column
				if err := rows.Scan(&oid, &a.attr, &a.name, &a.oid, &a.mod, &a.generated, &a.fills); err != nil {
					return err
				}
				byOID[oid].columns = append(byOID[oid].columns, a)
			}
			if err := rows.Err(); err != nil {
				return err
			}
			if len(roots) > 0 {
				leaves, err := leavesOf(ctx, tx, roots)
				if err != nil {
					return err
				}
				for root, some := range leaves {
					byOID[root].leaves = some
					for _, leaf := range some {
						byOID[leaf.oid] = leaf
						byOID[root].written = byOID[root].written || leaf.written
						oids = append(oids, leaf.oid)
					}
				}
			}
			rows, _ = tx.Query(ctx, `
				SELECT indrelid, indexrelid, indisprimary, indisreplident,
				       indisunique AND indisvalid AND indimmediate AND indislive AND indpred IS NULL AND indexprs IS NULL,
				       (indkey::int2[])[0:indnkeyatts - 1]
				FROM pg_index WHERE indrelid = ANY ($1::oid[]) AND indisunique`, oids)
			for rows.Next() {
				var oid uint32
				var i index
				if err := rows.Scan(&oid, &i.oid, &i.primary, &i.chosen, &i.sound, &i.attrs); err != nil {
					return err
				}
				byOID[oid].indexes = append(byOID[oid].indexes, i)
			}
			return rows.Err()
		})
	})
}

// leavesOf finds the partitions that hold the rows of partitioned tables.
func leavesOf(ctx context.Context, tx pgx.Tx, roots []uint32) (map[uint32][]*relation, error) {
	leaves := map[uint32][]*relation{}
	rows, _ := tx.Query(ctx, `
		WITH RECURSIVE tree AS (
			SELECT r AS root, r AS oid FROM unnest($1::oid[]) r
			UNION ALL
			SELECT tree.root, i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
		)
		SELECT t.root, c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, c.relreplident::text,
		       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
		       coalesce(pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid) > 0, false)
		FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind <> 'p' ORDER BY 1, 2`, roots)
	for rows.Next() {
		var root uint32
		r := &relation{}
		if err := rows.Scan(&root, &r.oid, &r.schema, &r.name, &r.kind, &r.persistence, &r.identity, &r.readable, &r.written); err != nil {
			return nil, err
		}
		leaves[root] = append(leaves[root], r)
	}
	return leaves, rows.Err()
}

// identities asks PostgreSQL which index identifies the rows of each table and
// partition. A table that is locked is judged by its indexes instead.
func (d *DB) identities(ctx context.Context, chosen []*relation) error {
	var all []*relation
	for _, r := range chosen {
		all = append(append(all, r), r.leaves...)
	}
	ask := func(some []*relation) error {
		byOID := map[uint32]*relation{}
		oids := make([]uint32, len(some))
		for i, r := range some {
			byOID[r.oid], oids[i] = r, r.oid
		}
		return d.query(ctx, "ask for replica identities", func(ctx context.Context, c *pgx.Conn) error {
			rows, _ := c.Query(ctx, `
				SELECT c.oid, coalesce(pg_get_replica_identity_index(c.oid), 0)::oid
				FROM pg_class c WHERE c.oid = ANY ($1::oid[]) AND c.relkind IN ('r', 'p')`, oids)
			for rows.Next() {
				var oid, identity uint32
				if err := rows.Scan(&oid, &identity); err != nil {
					return err
				}
				byOID[oid].identityIndex = identity
			}
			return rows.Err()
		})
	}
	err := ask(all)
	if err == nil {
		return nil
	}
	if sqlstate(err) == "" && !errors.Is(err, ErrLocked) {
		return err
	}
	// One table is locked, or was dropped: the others must not wait for it.
	for _, r := range all {
		if err := ask([]*relation{r}); err != nil {
			if sqlstate(err) == "" {
				return err
			}
			r.identityIndex = r.derivedIdentity()
		}
	}
	return nil
}

// derivedIdentity is what pg_get_replica_identity_index() would say.
func (r *relation) derivedIdentity() uint32 {
	for _, i := range r.indexes {
		if i.sound && (r.identity == "d" && i.primary || r.identity == "i" && i.chosen) {
			return i.oid
		}
	}
	return 0
}

// primaryKey is the valid and not deferrable primary key, or nil.
func (r *relation) primaryKey() *index {
	for i := range r.indexes {
		if r.indexes[i].primary && r.indexes[i].sound {
			return &r.indexes[i]
		}
	}
	return nil
}

// identifying is the index that identifies rows, or nil.
func (r *relation) identifying() *index {
	for i := range r.indexes {
		if r.identityIndex != 0 && r.indexes[i].oid == r.identityIndex {
			return &r.indexes[i]
		}
	}
	return nil
}

// table makes a table of r, without resolved types, and says what is wrong with
// it. Its fingerprint is that of the Relation message that pgoutput would send.
func (r *relation) table() (*change.Table, []Problem) {
	t := &change.Table{OID: r.oid, Schema: r.schema, Name: r.name}
	identity := r.identifying()
	flagged := map[int16]bool{}
	if identity != nil {
		for _, a := range identity.attrs {
			flagged[a] = true
		}
	}
	hidden := false // an identity column is not published
	for _, a := range r.columns {
		if a.generated {
			hidden = hidden || flagged[a.attr]
			continue
		}
		t.Columns = append(t.Columns, change.Column{
			Name: a.name, TypeOID: a.oid, TypeMod: a.mod, Attr: a.attr, Fills: a.fills,
			Identity: r.identity == "f" || flagged[a.attr],
			Type:     change.Type{OID: a.oid, Mod: a.mod},
		})
	}
	switch {
	case r.identity == "f":
		t.Identity = change.IdentityFull
	case identity != nil:
		t.Identity = change.IdentityKey
	}
	t.Fingerprint = t.ComputeFingerprint()
	problems := r.readProblems()
	if len(t.Columns) == 0 {
		return nil, append(problems, r.problem("TABLE_EMPTY", true, "has no columns to mirror", "exclude it: !"+r.String()))
	}
	var p []Problem
	t.Identity, t.Key, p = r.judge(t, hidden)
	return t, append(problems, p...)
}

func (r *relation) problem(code string, blocking bool, what, remedy string) Problem {
	return Problem{Code: code, Sentence: r.String() + " " + what, Remedy: remedy, Blocking: blocking, Table: r.String(), OID: r.oid}
}

// readProblems says what keeps us from reading all rows.
func (r *relation) readProblems() (problems []Problem) {
	if !r.readable {
		problems = append(problems, r.problem("TABLE_PRIVILEGE", true, "cannot be read by this role",
			fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO {role}; GRANT SELECT ON %s TO {role};", ident(r.schema), r.sql())))
	} else if r.rowSecurity {
		problems = append(problems, r.problem("ROW_SECURITY", true, "has row security, which would hide rows from this role",
			"ALTER ROLE {role} BYPASSRLS;"))
	}
	for _, leaf := range r.leaves {
		if leaf.kind == "f" || leaf.persistence == "u" {
			problems = append(problems, r.problem("PARTITION_KIND", true,
				fmt.Sprintf("has the partition %s, which is foreign or unlogged: its changes are in no log here", leaf),
				fmt.Sprintf("ALTER TABLE %s DETACH PARTITION %s;", r.sql(), leaf.sql())))
		} else if !leaf.readable {
			problems = append(problems, r.problem("TABLE_PRIVILEGE", true, fmt.Sprintf("has the partition %s, which this role cannot read", leaf),
				fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO {role}; GRANT SELECT ON %s TO {role};", ident(leaf.schema), leaf.sql())))
		}
	}
	return problems
}

// judge decides how the rows of t may be identified so that publishing their
// updates can never make PostgreSQL refuse one.
func (r *relation) judge(t *change.Table, hidden bool) (change.Identity, []int, []Problem) {
	missing := func(why, remedy string) (change.Identity, []int, []Problem) {
		return change.IdentityNone, nil, []Problem{r.problem("IDENTITY_MISSING", r.written,
			why+", so updates and deletes cannot be published: it gets a history of inserts and truncates", remedy)}
	}
	give := fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (…); -- or: ALTER TABLE %s REPLICA IDENTITY FULL;", r.sql(), r.sql())
	if hidden {
		return missing("is identified by a generated column, which is not published", fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL;", r.sql()))
	}
	if r.kind == "p" {
		return r.judgePartitioned(t, missing)
	}
	switch t.Identity {
	case change.IdentityKey:
		return t.Identity, keyOf(t, r.identifying()), nil
	case change.IdentityFull:
		return t.Identity, keyOf(t, r.primaryKey()), nil
	}
	switch {
	case r.identity == "n":
		return missing("has REPLICA IDENTITY NOTHING", fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY DEFAULT; -- or FULL", r.sql()))
	case r.identity == "i":
		return missing("lost its replica identity index", fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY DEFAULT; -- or FULL", r.sql()))
	case slices.ContainsFunc(r.indexes, func(i index) bool { return i.primary }):
		return missing("has a primary key that is deferrable or not valid, which identifies no rows",
			fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL;", r.sql()))
	}
	return missing("has no replica identity", give)
}

// judgePartitioned asks for a primary key of the whole: partitions take it over
// when they are made, which a replica identity is not.
func (r *relation) judgePartitioned(t *change.Table, missing func(why, remedy string) (change.Identity, []int, []Problem)) (change.Identity, []int, []Problem) {
	primary := r.primaryKey()
	if primary == nil || r.identity == "n" || r.identity == "i" && r.identityIndex != primary.oid {
		return missing("is partitioned and has no primary key that could identify rows of partitions yet to be made",
			fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (…); ALTER TABLE %s REPLICA IDENTITY DEFAULT;", r.sql(), r.sql()))
	}
	for _, leaf := range r.leaves {
		if leaf.identity == "f" {
			continue
		}
		if i := leaf.identifying(); i == nil || !i.primary {
			return missing(fmt.Sprintf("has the partition %s, which identifies its rows otherwise", leaf),
				fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY DEFAULT;", leaf.sql()))
		}
	}
	// Old rows come as their partition sends them, whole or not: only the key
	// can be relied upon.
	return change.IdentityKey, keyOf(t, primary), nil
}

// keyOf are the indices of an index's columns, in column order. It is nil where
// there is no index, or one of them is not published.
func keyOf(t *change.Table, i *index) []int {
	if i == nil {
		return nil
	}
	var key []int
	for n := range t.Columns {
		if slices.Contains(i.attrs, t.Columns[n].Attr) {
			key = append(key, n)
		}
	}
	if len(key) != len(i.attrs) {
		return nil
	}
	return key
}

// Resolve completes a table that a Relation message described: types, attribute
// numbers, what fills old rows, and the key under REPLICA IDENTITY FULL. The fingerprint stays. What
// the catalog no longer knows (it is as of now, the message as of its place in
// the log) stays zero, except that a type that is gone counts as a base type
// without a name.
func (d *DB) Resolve(ctx context.Context, rel *change.Table) (*change.Table, error) {
	t := *rel
	t.Columns = slices.Clone(rel.Columns)
	t.Key = slices.Clone(rel.Key)
	if err := d.resolveTypes(ctx, &t); err != nil {
		return nil, err
	}
	all, err := d.relations(ctx, rel.OID)
	if err != nil || len(all) == 0 {
		return &t, err
	}
	if err := d.details(ctx, all); err != nil {
		return nil, err
	}
	r := all[0]
	for i := range t.Columns {
		c := &t.Columns[i]
		for _, a := range r.columns {
			if a.name == c.Name && a.oid == c.TypeOID {
				c.Attr, c.Fills = a.attr, a.fills
			}
		}
	}
	// A primary key identifies rows under FULL as well, and is all that can be
	// relied upon where partitions have identities of their own.
	if primary := r.primaryKey(); primary != nil && t.Identity != change.IdentityNone && (t.Identity == change.IdentityFull || r.kind == "p") {
		if key := keyOf(&t, primary); key != nil {
			t.Key = key
			if r.kind == "p" {
				t.Identity = change.IdentityKey
			}
		}
	}
	return &t, nil
}

// fill puts the role into the remedies.
func (d *DB) fill(problems []Problem) []Problem {
	for i := range problems {
		problems[i].Remedy = strings.ReplaceAll(problems[i].Remedy, "{role}", ident(d.user()))
	}
	return problems
}
