package pgsource

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/pgsource/copybinary"
)

// Chunk is a range of blocks of one table or partition.
type Chunk struct {
	// Leaf is the OID of the table, or of the partition that holds the rows.
	Leaf uint32
	// From is the first block. To is the first after the range; 0 is no bound.
	From, To uint32
	// FileNode names the leaf's file as of the cut.
	FileNode uint32
}

// leaf is a table or partition as of a snapshot.
type leaf struct {
	oid, fileNode, nowNode uint32
	kind                   string
	bytes, total           int64 // of the main file, and with TOAST
}

// Plan divides a table, as of the snapshot of a cut, into chunks of about
// chunkBytes by the real size of its files, TOAST included. Only partitions
// that hold something have chunks; a table that holds nothing has one chunk,
// and a partitioned one without partitions none. A table that was rewritten
// since the cut is an [ErrRewritten].
func (d *DB) Plan(ctx context.Context, snapshot string, t *change.Table, chunkBytes int64) ([]Chunk, error) {
	conn, err := d.session(ctx, sessionOptions{})
	if err != nil {
		return nil, err
	}
	defer closeConn(conn.PgConn())
	if err := importSnapshot(ctx, conn.PgConn(), snapshot); err != nil {
		return nil, err
	}
	leaves, err := leavesAt(ctx, conn, t)
	if err != nil {
		return nil, err
	}
	var blockSize int64
	if err := conn.QueryRow(ctx, `SELECT current_setting('block_size')::int8`).Scan(&blockSize); err != nil {
		return nil, fault("plan the copy of "+t.String(), err)
	}
	var chunks []Chunk
	for _, l := range leaves {
		if l.bytes == 0 {
			continue
		}
		blocks := l.bytes / blockSize
		perBlock := max(blockSize, l.total/max(blocks, 1))
		step := max(1, chunkBytes/perBlock)
		for from := int64(0); from < blocks; from += step {
			chunks = append(chunks, Chunk{Leaf: l.oid, From: uint32(from), To: uint32(from + step), FileNode: l.fileNode})
		}
		chunks[len(chunks)-1].To = 0
	}
	if len(chunks) == 0 && len(leaves) > 0 {
		chunks = []Chunk{{Leaf: leaves[0].oid, FileNode: leaves[0].fileNode}}
	}
	return chunks, nil
}

// leavesAt lists what holds the rows of t as of the snapshot that conn has
// imported, with the files that it had then, and returns an [ErrRewritten] where
// one has another file now.
func leavesAt(ctx context.Context, conn *pgx.Conn, t *change.Table) ([]leaf, error) {
	act := "look at the files of " + t.String()
	// pg_class and pg_inherits are read as of the snapshot; the functions look
	// at what is now.
	rows, _ := conn.Query(ctx, `
		WITH RECURSIVE tree AS (
			SELECT c.oid, c.relkind FROM pg_class c WHERE c.oid = $1
			UNION ALL
			SELECT c.oid, c.relkind FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid JOIN pg_class c ON c.oid = i.inhrelid
			WHERE tree.relkind = 'p'
		)
		SELECT c.oid, c.relfilenode, coalesce(pg_relation_filenode(c.oid), 0)::oid, c.relkind::text,
		       coalesce(pg_relation_size(c.oid), 0), coalesce(pg_table_size(c.oid), 0)
		FROM tree JOIN pg_class c ON c.oid = tree.oid WHERE c.relkind <> 'p' ORDER BY c.oid`, t.OID)
	leaves, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l leaf, err error) {
		err = row.Scan(&l.oid, &l.fileNode, &l.nowNode, &l.kind, &l.bytes, &l.total)
		return l, err
	})
	if err != nil {
		return nil, fault(act, err)
	}
	for _, l := range leaves {
		if l.kind != "r" {
			return nil, &Error{Class: ErrConfig, Problem: Problem{
				Code: "PARTITION_KIND", Blocking: true, Table: t.String(), OID: t.OID,
				Sentence: fmt.Sprintf("%s has a partition that is no ordinary table (OID %d), whose rows and changes are elsewhere", t, l.oid),
				Remedy:   fmt.Sprintf("ALTER TABLE %s DETACH PARTITION …;", ident(t.Schema, t.Name)),
			}}
		}
		if l.nowNode != l.fileNode {
			return nil, fmt.Errorf("%s: %w: its file was %d and is %d", act, ErrRewritten, l.fileNode, l.nowNode)
		}
	}
	return leaves, nil
}

// CopyChunk yields the rows of one chunk as the snapshot sees them, in binary,
// and the columns that textCols marks (nil marks none) as what their type
// prints. The tuple and its values are valid until yield returns. It returns an
// [ErrRewritten] where the table was rewritten, truncated, altered or dropped
// since the cut: then all its chunks are void, those already copied too.
func (d *DB) CopyChunk(ctx context.Context, snapshot string, t *change.Table, c Chunk, textCols []bool, yield func(*change.Tuple) error) (rows int64, err error) {
	r, err := d.reading(ctx, snapshot, t)
	if err != nil {
		return 0, err
	}
	defer r.close()
	name, err := r.lock(ctx, d, c.Leaf, c.FileNode)
	if err != nil {
		return 0, err
	}
	kinds := make([]byte, len(t.Columns))
	list := make([]string, len(t.Columns))
	for i := range t.Columns {
		kinds[i], list[i] = change.Binary, ident(t.Columns[i].Name)
		if i < len(textCols) && textCols[i] {
			kinds[i], list[i] = change.Text, printed(list[i])
		}
	}
	var where []string
	if c.From > 0 {
		where = append(where, fmt.Sprintf("ctid >= '(%d,0)'::tid", c.From))
	}
	if c.To > 0 {
		where = append(where, fmt.Sprintf("ctid < '(%d,0)'::tid", c.To))
	}
	sql := fmt.Sprintf("COPY (SELECT %s FROM ONLY %s", strings.Join(list, ", "), name)
	if len(where) > 0 {
		sql += " WHERE " + strings.Join(where, " AND ")
	}
	sql += ") TO STDOUT (FORMAT binary)"
	p := copybinary.New(kinds, yield)
	err = r.copy(ctx, sql, func(b []byte) error {
		_, err := p.Write(b)
		return err
	})
	if err == nil {
		err = p.Close()
	}
	if err != nil {
		return p.Rows(), fmt.Errorf("copy blocks %d to %d of %s: %w", c.From, c.To, name, err)
	}
	return p.Rows(), nil
}

// printed is an expression for what a column's output function prints. A cast
// to text would not be that for every type: inet and char(n) differ.
func printed(column string) string {
	return fmt.Sprintf("CASE WHEN %s IS NOT DISTINCT FROM NULL THEN NULL ELSE format('%%s', %s) END", column, column)
}

// ReadTable yields all rows of a table as the snapshot sees them, every value
// as its type prints it. The tuple and its values are valid until yield
// returns. A table that was rewritten or altered since the cut is an
// [ErrRewritten].
func (d *DB) ReadTable(ctx context.Context, snapshot string, t *change.Table, yield func(*change.Tuple) error) error {
	r, err := d.reading(ctx, snapshot, t)
	if err != nil {
		return err
	}
	defer r.close()
	leaves, err := leavesAt(ctx, r.conn, t)
	if err != nil {
		return err
	}
	names := make([]string, len(leaves))
	for i, l := range leaves {
		if names[i], err = r.lock(ctx, d, l.oid, l.fileNode); err != nil {
			return err
		}
	}
	list := make([]string, len(t.Columns))
	for i := range t.Columns {
		list[i] = ident(t.Columns[i].Name)
	}
	for _, name := range names {
		p := &textParser{columns: len(list), yield: yield}
		err := r.copy(ctx, fmt.Sprintf("COPY %s (%s) TO STDOUT", name, strings.Join(list, ", ")), p.write)
		if err == nil {
			err = p.close()
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	return nil
}

// reading is a session that reads one table under a snapshot.
type reading struct {
	table *change.Table
	conn  *pgx.Conn
	wire  *wire
}

func (d *DB) reading(ctx context.Context, snapshot string, t *change.Table) (*reading, error) {
	r := &reading{table: t}
	var err error
	if r.conn, err = d.session(ctx, sessionOptions{long: true, lock: 5 * time.Second, wire: &r.wire}); err != nil {
		return nil, err
	}
	if err := importSnapshot(ctx, r.conn.PgConn(), snapshot); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *reading) close() { closeConn(r.conn.PgConn()) }

// lock keeps a table or partition as it is, checks that it is as it was at the
// cut, and returns its name for SQL.
func (r *reading) lock(ctx context.Context, d *DB, oid, fileNode uint32) (name string, err error) {
	act := fmt.Sprintf("lock %s", r.table)
	changed := func(how string) error { return fmt.Errorf("%s: %w: %s", act, ErrRewritten, how) }
	// The name is as of now, not of the snapshot.
	if err := r.conn.QueryRow(ctx, `SELECT $1::oid::regclass::text`, oid).Scan(&name); err != nil {
		return "", fault(act, err)
	}
	if strings.Trim(name, "0123456789") == "" {
		return "", changed(fmt.Sprintf("OID %d was dropped", oid))
	}
	if err := r.conn.PgConn().Exec(ctx, fmt.Sprintf("LOCK TABLE ONLY %s IN ACCESS SHARE MODE", name)).Close(); err != nil {
		if sqlstate(err) == "42P01" || sqlstate(err) == "3F000" {
			return "", changed("it was dropped or renamed")
		}
		return "", r.privilege(act, name, fault(act, err))
	}
	var same bool
	var now uint32
	err = r.conn.QueryRow(ctx, `SELECT to_regclass($2) = $1::oid::regclass, coalesce(pg_relation_filenode($1), 0)::oid`, oid, name).Scan(&same, &now)
	if err != nil {
		return "", fault(act, err)
	}
	if !same {
		return "", changed("it was renamed")
	}
	if now != fileNode {
		return "", changed(fmt.Sprintf("its file was %d and is %d", fileNode, now))
	}
	return name, d.unaltered(ctx, r.table, oid, changed)
}

func (r *reading) privilege(act, name string, err error) error {
	if !errors.Is(err, ErrPrivilege) {
		return err
	}
	return &Error{Class: ErrPrivilege, Err: err, Problem: Problem{
		Code: "TABLE_PRIVILEGE", Blocking: true, Table: r.table.String(), OID: r.table.OID,
		Sentence: act + ": " + innermostMessage(err),
		Remedy:   fmt.Sprintf("GRANT SELECT ON %s TO %s;", name, ident(r.conn.Config().User)),
	}}
}

// unaltered checks that the columns are those of t, on a connection that does
// not look through the snapshot. The table is locked, so they stay.
func (d *DB) unaltered(ctx context.Context, t *change.Table, oid uint32, changed func(string) error) error {
	var now []column
	err := d.query(ctx, "look at the columns of "+t.String(), func(ctx context.Context, c *pgx.Conn) error {
		rows, _ := c.Query(ctx, `
			SELECT attnum, attname::text, atttypid, atttypmod FROM pg_attribute
			WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = ''`, oid)
		var err error
		now, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (a column, err error) {
			err = row.Scan(&a.attr, &a.name, &a.oid, &a.mod)
			return a, err
		})
		return err
	})
	if err != nil {
		return err
	}
	// Columns that were added since are no matter: a copy does not read them.
	for i := range t.Columns {
		c := &t.Columns[i]
		same := slices.ContainsFunc(now, func(a column) bool {
			// Partitions number their columns as they like.
			numbered := oid != t.OID || c.Attr == 0 || a.attr == c.Attr
			return a.name == c.Name && a.oid == c.TypeOID && a.mod == c.TypeMod && numbered
		})
		if !same {
			return changed(fmt.Sprintf("its column %s was altered", c.Name))
		}
	}
	return nil
}

// copy runs a COPY TO STDOUT and gives all its bytes to write, as they came.
func (r *reading) copy(ctx context.Context, sql string, write func([]byte) error) error {
	conn := r.conn.PgConn()
	if err := ctx.Err(); err != nil {
		return err
	}
	_ = conn.Conn().SetDeadline(time.Time{})
	patient(conn.Conn())
	stop := context.AfterFunc(ctx, func() { _ = conn.Conn().SetDeadline(past) })
	defer stop()
	conn.Frontend().SendQuery(&pgproto3.Query{String: sql})
	err := conn.Frontend().Flush()
	var failed error
	for err == nil {
		var kind byte
		var body []byte
		if kind, body, err = r.wire.next(); err != nil {
			break
		}
		switch kind {
		case 'd':
			if err := write(body); err != nil {
				return err
			}
		case 'E':
			failed = serverError(body)
		case 'Z':
			return copyFault(failed)
		case 'H', 'c', 'C', 'N', 'S', 'A':
		default:
			return fmt.Errorf("%w: kind %q", errFrame, kind)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if failed != nil { // a fatal error, after which the server says no more
		return copyFault(failed)
	}
	return fault("read the COPY", err)
}

// copyFault gives an error of a COPY its class.
func copyFault(err error) error {
	if err == nil {
		return nil
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "42703", "42P01", "42804":
			return fmt.Errorf("%w: %w", ErrRewritten, err)
		}
	}
	return fault("read the COPY", err)
}
