package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// oracle is a second reader of the WAL, made before the slot of Millrace: it
// has a slot and a plugin of its own, and shares no code with the product.
type oracle struct {
	t      testing.TB
	src    *source
	slot   string
	tables map[string][]change // by name, in commit order
	open   *transaction
	// alias names the table that a partition's changes are published as.
	alias map[string]string
	last  lsn // end of the last transaction
}

// change is one change of one table.
type change struct {
	op      byte // c u d t
	xid     uint32
	after   lsn // end of the transaction before
	end     lsn // end of its transaction
	ordinal int64
	old     []field // what identifies the old row; nil where it was not sent
	row     []field
}

// field is one column of a row as test_decoding prints it.
type field struct {
	name      string
	text      string
	null      bool
	unchanged bool // a TOASTed value that was not sent
}

type transaction struct {
	xid     uint32
	changes []change
	tables  []string
}

// newOracle makes the slot. Transactions from now on are seen.
func newOracle(src *source) *oracle {
	src.t.Helper()
	o := &oracle{t: src.t, src: src, slot: "oracle_" + src.name, tables: map[string][]change{}}
	src.exec(`SELECT pg_create_logical_replication_slot($1, 'test_decoding')`, o.slot)
	return o
}

// drain reads up to what is committed now.
func (o *oracle) drain() {
	o.t.Helper()
	ctx := o.t.Context()
	c := pinned(o.t, o.src.url)
	defer c.Close(ctx)
	var end string
	if err := c.QueryRow(ctx, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&end); err != nil {
		o.t.Fatal(err)
	}
	for {
		// The limit is looked at between transactions.
		rows, err := c.Query(ctx, `SELECT lsn::text, xid::text::bigint, data FROM pg_logical_slot_get_changes($1, $2::pg_lsn, 20000)`, o.slot, end)
		if err != nil {
			o.t.Fatalf("read the oracle's slot: %v", err)
		}
		n := 0
		for rows.Next() {
			var at, data string
			var xid int64
			if err := rows.Scan(&at, &xid, &data); err != nil {
				o.t.Fatal(err)
			}
			n++
			if err := o.line(at, uint32(xid), data); err != nil {
				o.t.Fatalf("the oracle does not understand %s: %v", shorten([]byte(data), 300), err)
			}
		}
		if err := rows.Err(); err != nil {
			o.t.Fatalf("read the oracle's slot: %v", err)
		}
		if n == 0 {
			return
		}
	}
}

// pinned opens a connection where values print as the product pins them, which
// is a part of its contract. The caller closes it.
func pinned(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connect to PostgreSQL: %v", err)
	}
	for name, value := range map[string]string{
		"DateStyle": "ISO", "IntervalStyle": "postgres", "TimeZone": "UTC", "extra_float_digits": "1",
		"bytea_output": "hex", "lc_monetary": "C",
	} {
		execute(t, c, `SELECT set_config($1, $2, false)`, name, value)
	}
	return c
}

// line takes one line of test_decoding.
func (o *oracle) line(at string, xid uint32, data string) error {
	switch {
	case strings.HasPrefix(data, "BEGIN "):
		if o.open != nil {
			return errors.New("a transaction within a transaction")
		}
		o.open = &transaction{xid: xid}
		return nil
	case strings.HasPrefix(data, "COMMIT "):
		end, err := parseLSN(at)
		if err != nil || o.open == nil {
			return errors.Join(err, errors.New("a commit of nothing"))
		}
		count := map[string]int64{}
		for i, c := range o.open.changes {
			table := o.open.tables[i]
			count[table]++
			c.ordinal, c.after, c.end = count[table], o.last, end
			o.tables[table] = append(o.tables[table], c)
		}
		o.open, o.last = nil, end
		return nil
	case strings.HasPrefix(data, "table "):
		return o.change(xid, strings.TrimPrefix(data, "table "))
	case strings.HasPrefix(data, "message: "):
		return nil
	}
	return errors.New("a new kind of line")
}

// change takes the rest of a line that begins with "table ".
func (o *oracle) change(xid uint32, rest string) error {
	if o.open == nil {
		return errors.New("a change outside of a transaction")
	}
	tables, rest, err := qualifiedNames(rest)
	if err != nil {
		return err
	}
	op, rest, _ := strings.Cut(rest, ":")
	c := change{xid: xid}
	switch op {
	case "INSERT":
		c.op = 'c'
		c.row, rest, err = fields(rest)
	case "UPDATE":
		c.op = 'u'
		if old, ok := strings.CutPrefix(rest, " old-key:"); ok {
			if c.old, rest, err = fields(old); err != nil {
				return err
			}
			var found bool
			if rest, found = strings.CutPrefix(rest, " new-tuple:"); !found {
				return errors.New("an old key without a new row")
			}
		}
		c.row, rest, err = fields(rest)
	case "DELETE":
		c.op = 'd'
		c.old, rest, err = fields(rest)
	case "TRUNCATE":
		c.op, rest = 't', ""
	default:
		return fmt.Errorf("operation %q", op)
	}
	if err != nil {
		return err
	}
	if rest != "" {
		return fmt.Errorf("%q is left over", rest)
	}
	for _, t := range tables {
		if whole := o.alias[t]; whole != "" {
			t = whole
		}
		o.open.changes = append(o.open.changes, c)
		o.open.tables = append(o.open.tables, t)
	}
	return nil
}

// qualifiedNames reads "schema.name, schema.name: ".
func qualifiedNames(s string) (names []string, rest string, err error) {
	for {
		var schema, name string
		if schema, s, err = identifier(s); err != nil {
			return nil, "", err
		}
		if !strings.HasPrefix(s, ".") {
			return nil, "", errors.New("no schema")
		}
		if name, s, err = identifier(s[1:]); err != nil {
			return nil, "", err
		}
		names = append(names, schema+"."+name)
		if next, ok := strings.CutPrefix(s, ", "); ok {
			s = next
			continue
		}
		if rest, ok := strings.CutPrefix(s, ": "); ok {
			return names, rest, nil
		}
		return nil, "", errors.New("no colon after the table")
	}
}

// identifier reads one name, quoted where PostgreSQL thinks it must be.
func identifier(s string) (name, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexAny(s, ".[:, ")
		if i <= 0 {
			return "", "", errors.New("no name")
		}
		return s[:i], s[i:], nil
	}
	name, rest, err = quoted(s, '"')
	return name, rest, err
}

// quoted reads up to the closing quote; a doubled one stands for itself.
func quoted(s string, quote byte) (text, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != quote {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == quote {
			b.WriteByte(quote)
			i++
			continue
		}
		return b.String(), s[i+1:], nil
	}
	return "", "", errors.New("no closing quote")
}

// fields reads " name[type]:value name[type]:value", up to what is none.
func fields(s string) (row []field, rest string, err error) {
	if s == " (no-tuple-data)" {
		return nil, "", nil
	}
	for strings.HasPrefix(s, " ") && !strings.HasPrefix(s, " new-tuple:") {
		var f field
		if f.name, s, err = identifier(s[1:]); err != nil {
			return nil, "", err
		}
		// The type may hold brackets itself: text[].
		depth, i := 0, 0
		for ; i < len(s); i++ {
			if s[i] == '[' {
				depth++
			} else if s[i] == ']' {
				if depth--; depth == 0 {
					break
				}
			}
		}
		if i+1 >= len(s) || s[i+1] != ':' {
			return nil, "", fmt.Errorf("no type of %s", f.name)
		}
		s = s[i+2:]
		switch {
		case strings.HasPrefix(s, "'"):
			f.text, s, err = quoted(s, '\'')
		case strings.HasPrefix(s, "B'"):
			f.text, s, err = quoted(s[1:], '\'')
		default:
			end := strings.IndexByte(s, ' ')
			if end < 0 {
				end = len(s)
			}
			f.text, s = s[:end], s[end:]
			f.null = f.text == "null"
			f.unchanged = f.text == "unchanged-toast-datum"
		}
		if err != nil {
			return nil, "", err
		}
		row = append(row, f)
	}
	return row, s, nil
}

// identity is how PostgreSQL identifies the rows of a table, by the oracle's
// own look at the catalog.
type identity struct {
	full bool
	key  []string // columns; none under full means that whole rows do
	none bool     // updates and deletes are not published
}

func (o *oracle) identity(table string) identity {
	o.t.Helper()
	var how string
	var id identity
	err := o.src.conn.QueryRow(o.t.Context(), `
		SELECT relreplident::text, coalesce((
			SELECT array_agg(a.attname::text ORDER BY a.attnum)
			FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
			WHERE i.indrelid = c.oid AND i.indimmediate AND i.indisvalid
			  AND (CASE WHEN c.relreplident = 'i' THEN i.indisreplident ELSE i.indisprimary END)), '{}')
		FROM pg_class c WHERE c.oid = $1::regclass`, regclass(table)).Scan(&how, &id.key)
	if err != nil {
		o.t.Fatalf("look at the identity of %s: %v", table, err)
	}
	id.full = how == "f"
	id.none = how == "n" || !id.full && len(id.key) == 0
	return id
}

// regclass quotes schema.name.
func regclass(table string) string {
	schema, name, _ := strings.Cut(table, ".")
	return pgx.Identifier{schema, name}.Sanitize()
}
