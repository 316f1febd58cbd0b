package e2e

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
	"github.com/millrace-io/millrace/deltalog/store"
)

// historyRow is one row of a history table.
type historyRow struct {
	op        string
	epoch     int64
	commit    lsn // of the oracle: the earliest that is possible
	end       lsn // of the oracle: beyond the latest that is possible
	ordinal   int64
	xid       uint32
	unchanged []string
	values    []string // one for each source column
}

// historyTable is the contents of a history table.
type historyTable struct {
	columns []schema.Field // source columns
	names   []string       // of those columns in PostgreSQL
	rows    []historyRow   // by position
}

// openTable opens a Delta table by its URI.
func openTable(t testing.TB, uri string) *deltalog.Table {
	t.Helper()
	st, err := store.OpenURI(uri)
	if err != nil {
		t.Fatal(err)
	}
	table, err := deltalog.Open(t.Context(), st)
	if err != nil {
		t.Fatalf("open %s: %v", uri, err)
	}
	return table
}

// readHistory reads a history table whole.
func readHistory(t testing.TB, uri string) *historyTable {
	t.Helper()
	snap := openTable(t, uri).Snapshot()
	h := &historyTable{}
	for _, f := range snap.Metadata().Schema.Fields {
		var origin struct {
			Column string `json:"millrace.column"`
		}
		if len(f.Metadata) > 0 {
			if err := json.Unmarshal(f.Metadata, &origin); err != nil {
				t.Fatalf("%s: metadata of %s: %v", uri, f.Name, err)
			}
		}
		if origin.Column != "" {
			h.columns, h.names = append(h.columns, f), append(h.names, origin.Column)
		}
	}
	for b, err := range snap.Read(t.Context(), deltalog.ReadOptions{}) {
		if err != nil {
			t.Fatalf("read %s: %v", uri, err)
		}
		for i := range b.Rows() {
			r := historyRow{
				op:      string(b.Column("__op").At(i)),
				epoch:   b.Column("__epoch").I64[i],
				commit:  lsn(b.Column("__commit_lsn").I64[i]),
				ordinal: b.Column("__ordinal").I64[i],
				xid:     uint32(b.Column("__xid").I64[i]),
			}
			if c := b.Column("__unchanged"); c.Valid[i] {
				for k := c.Off[i]; k < c.Off[i+1]; k++ {
					r.unchanged = append(r.unchanged, string(c.Elem.At(int(k))))
				}
			}
			for _, f := range h.columns {
				r.values = append(r.values, cell(b.Column(f.Name), i))
			}
			h.rows = append(h.rows, r)
		}
	}
	slices.SortStableFunc(h.rows, func(a, b historyRow) int {
		return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.commit, b.commit), cmp.Compare(a.ordinal, b.ordinal), cmp.Compare(a.op, b.op))
	})
	return h
}

// null is how both sides write NULL: no value begins like this.
const null = "\x00NULL"

// cell writes a value of Delta in one way for each type.
func cell(c *datafile.Column, i int) string {
	if !c.Valid[i] {
		return null
	}
	switch c.Type.Kind {
	case schema.Boolean:
		return strconv.FormatBool(c.I64[i] != 0)
	case schema.Float, schema.Double:
		return strconv.FormatFloat(c.F64[i], 'g', -1, 64)
	case schema.Decimal:
		hi, lo := c.Decimal128(i)
		n := new(big.Int).Lsh(big.NewInt(hi), 64)
		n.Add(n, new(big.Int).SetUint64(lo))
		return new(big.Rat).SetFrac(n, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(c.Type.Scale)), nil)).FloatString(c.Type.Scale)
	case schema.Binary:
		return hex.EncodeToString(c.At(i))
	case schema.String:
		return string(c.At(i))
	case schema.Array:
		var b strings.Builder
		for k := c.Off[i]; k < c.Off[i+1]; k++ {
			fmt.Fprintf(&b, "%q;", cell(c.Elem, int(k)))
		}
		return "[" + b.String() + "]"
	}
	return strconv.FormatInt(c.I64[i], 10)
}

// printed writes a value that PostgreSQL printed as cell does.
func printed(t schema.Type, text string) (string, error) {
	switch t.Kind {
	case schema.Boolean: // in arrays it is t and f
		v, err := strconv.ParseBool(text)
		return strconv.FormatBool(v), err
	case schema.Float, schema.Double:
		bits := 64
		if t.Kind == schema.Float {
			bits = 32
		}
		v, err := strconv.ParseFloat(text, bits)
		return strconv.FormatFloat(v, 'g', -1, 64), err
	case schema.Binary:
		return strings.TrimPrefix(text, `\x`), nil
	case schema.Date:
		d, err := time.Parse("2006-01-02", text)
		return strconv.FormatInt(d.Unix()/86400, 10), err
	case schema.Timestamp:
		d, err := time.Parse("2006-01-02 15:04:05.999999-07", text)
		return strconv.FormatInt(d.UnixMicro(), 10), err
	case schema.TimestampNTZ:
		d, err := time.Parse("2006-01-02 15:04:05.999999", text)
		return strconv.FormatInt(d.UnixMicro(), 10), err
	case schema.Array:
		elements, err := arrayLiteral(text)
		if err != nil {
			return "", err
		}
		var b strings.Builder
		for _, e := range elements {
			v := null
			if e != nil {
				if v, err = printed(*t.Elem, *e); err != nil {
					return "", err
				}
			}
			fmt.Fprintf(&b, "%q;", v)
		}
		return "[" + b.String() + "]", nil
	}
	return text, nil
}

// arrayLiteral reads {a,"b c",NULL}, of one dimension.
func arrayLiteral(s string) (elements []*string, err error) {
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' {
		return nil, fmt.Errorf("no array of one dimension: %s", s)
	}
	s = s[1 : len(s)-1]
	delim := byte(',')
	if strings.HasPrefix(s, "(") { // boxes: any other type would have quoted this
		delim = ';'
	}
	for len(s) > 0 {
		var b strings.Builder
		isQuoted := s[0] == '"'
		i := 0
		if isQuoted {
			for i = 1; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
				b.WriteByte(s[i])
			}
			i++
		} else {
			for ; i < len(s) && s[i] != delim; i++ {
				b.WriteByte(s[i])
			}
		}
		if text := b.String(); isQuoted || text != "NULL" {
			elements = append(elements, &text)
		} else {
			elements = append(elements, nil)
		}
		if i < len(s) && s[i] != delim {
			return nil, errors.New("no delimiter after an element")
		}
		s = s[min(i+1, len(s)):]
	}
	return elements, nil
}

// checkHistory holds a history table against what the oracle saw: exactly the
// same changes, none lost, none twice, in the same order.
func (o *oracle) checkHistory(table, uri string) {
	o.t.Helper()
	h := readHistory(o.t, uri)
	want := o.wanted(table, h)
	have := h.changes()
	for i := range max(len(want), len(have)) {
		switch {
		case i >= len(have):
			o.t.Errorf("%s: history ends after %d of %d rows; the first that is lost is %s", table, len(have), len(want), &want[i])
		case i >= len(want):
			o.t.Errorf("%s: history has %d rows that never happened; the first is %s", table, len(have)-i, &have[i])
		default:
			if problem := differ(&want[i], &have[i], h); problem != "" {
				o.t.Errorf("%s: row %d of history: %s", table, i, problem)
				return
			}
			continue
		}
		return
	}
}

// changes are the rows that were not copied.
func (h *historyTable) changes() []historyRow {
	rows := make([]historyRow, 0, len(h.rows))
	for i := range h.rows {
		if h.rows[i].op != "r" {
			rows = append(rows, h.rows[i])
		}
	}
	return rows
}

// wanted are the changes that a history table ought to have, by the oracle.
//
// Millrace reads from its slot's creation on, which lies after the oracle's. So
// history may lack the oracle's first transactions, but none from the cut of
// the first copy on.
func (o *oracle) wanted(table string, h *historyTable) []historyRow {
	o.t.Helper()
	id := o.identity(table)
	cut := lsn(0)
	for _, r := range h.rows {
		if r.op == "r" && (cut == 0 || r.commit < cut) {
			cut = r.commit
		}
	}
	var seen []change
	count := map[uint32]int64{}
	for _, c := range o.tables[table] {
		if id.none && (c.op == 'u' || c.op == 'd') {
			continue // not published, so that ordinals do not count it
		}
		if id.none {
			count[c.xid]++
			c.ordinal = count[c.xid]
		}
		seen = append(seen, c)
	}
	first := len(seen)
	if have := h.changes(); len(have) > 0 {
		first = slices.IndexFunc(seen, func(c change) bool { return c.xid == have[0].xid })
		if first < 0 {
			o.t.Errorf("%s: history begins with %s, which the oracle never saw", table, &have[0])
			return nil
		}
	}
	for first > 0 && (cut == 0 || seen[first-1].end > cut) {
		first--
	}
	var want []historyRow
	for _, c := range seen[first:] {
		rows, err := c.expected(h, id)
		if err != nil {
			o.t.Fatalf("%s: %v", table, err)
		}
		want = append(want, rows...)
	}
	return want
}

// String names the row without its values.
func (r *historyRow) String() string {
	return fmt.Sprintf("%s of transaction %d, ordinal %d, at %s", r.op, r.xid, r.ordinal, r.commit)
}

// differ says how a row differs from what it should be.
func differ(want, have *historyRow, h *historyTable) string {
	if want.op != have.op || want.xid != have.xid || want.ordinal != have.ordinal {
		return fmt.Sprintf("want %s, have %s", want, have)
	}
	if have.commit < want.commit || have.commit >= want.end {
		return fmt.Sprintf("want a position from %s to before %s, have %s", want.commit, want.end, have)
	}
	if !slices.Equal(want.unchanged, have.unchanged) {
		return fmt.Sprintf("%s: want %q unchanged, have %q", have, want.unchanged, have.unchanged)
	}
	for k := range h.columns {
		if want.values[k] != have.values[k] {
			return fmt.Sprintf("%s, column %s: want %q, have %q", have, h.names[k],
				shorten([]byte(want.values[k]), 200), shorten([]byte(have.values[k]), 200))
		}
	}
	return ""
}

// expected are the history rows of one change: two where the identity of the
// row changes, or where rows have no key to be updated by.
func (c *change) expected(h *historyTable, id identity) ([]historyRow, error) {
	row := func(op string, from, fallback []field) (historyRow, error) {
		r := historyRow{op: op, xid: c.xid, ordinal: c.ordinal, commit: c.after, end: c.end}
		for i, col := range h.columns {
			v, unchanged, err := value(col.Type, h.names[i], from, fallback)
			if err != nil {
				return r, fmt.Errorf("transaction %d, column %s: %w", c.xid, col.Name, err)
			}
			if unchanged {
				r.unchanged = append(r.unchanged, col.Name)
			}
			r.values = append(r.values, v)
		}
		return r, nil
	}
	var rows []historyRow
	var errs []error
	add := func(r historyRow, err error) { rows, errs = append(rows, r), append(errs, err) }
	switch c.op {
	case 'c':
		add(row("c", c.row, nil))
	case 'd':
		add(row("d", c.old, nil))
	case 't':
		add(row("t", nil, nil))
	case 'u':
		whole := id.full && len(id.key) == 0
		if whole || c.old != nil && !sameFields(c.old, c.row, id.key) {
			add(row("d", c.old, nil))
		}
		add(row("u", c.row, c.old))
	}
	return rows, errors.Join(errs...)
}

// sameFields tells whether two rows agree in some columns.
func sameFields(a, b []field, names []string) bool {
	for _, n := range names {
		x, y := find(a, n), find(b, n)
		if x == nil || y == nil || *x != *y && !y.unchanged {
			return false
		}
	}
	return true
}

func find(row []field, name string) *field {
	for i := range row {
		if row[i].name == name {
			return &row[i]
		}
	}
	return nil
}

// value is a column of a row as cell writes it. What was not sent is taken from
// the fallback, which may not have it either.
func value(t schema.Type, name string, row, fallback []field) (text string, unchanged bool, err error) {
	f := find(row, name)
	if f != nil && f.unchanged {
		if f = find(fallback, name); f == nil {
			return null, true, nil
		}
	}
	if f == nil || f.null {
		return null, false, nil
	}
	text, err = printed(t, f.text)
	return text, false, err
}

// commits counts the versions of all Delta tables of a database.
func (s *site) commits(name string) int {
	s.t.Helper()
	logs, err := filepath.Glob(filepath.Join(strings.TrimPrefix(s.lake, "file://"), name, "*", "*", "*", "_delta_log", "*.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(logs)
}

// proven holds everything about a database against its source: `verify`, and
// the oracle for each table of it that is mirrored.
func (s *site) proven(o *oracle) {
	s.t.Helper()
	s.verified(o.src.name)
	o.drain()
	for _, t := range s.status(o.src.name).Tables {
		if t.Phase != "live" {
			s.t.Errorf("%s is %s: %v", t.Name, t.Phase, t.Reason)
			continue
		}
		o.checkHistory(t.Name, t.History)
	}
}

// damage changes one value in a data file of a table in place of it, as a bug
// or a stranger could: it commits a copy of a file with one row altered.
func damage(t testing.TB, uri, column string) {
	t.Helper()
	table := openTable(t, uri)
	snap := table.Snapshot()
	for f := range snap.Files() {
		w, err := table.NewFile(t.Context(), deltalog.FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		altered := false
		for live, err := range snap.ReadFile(t.Context(), f, deltalog.ReadOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			b := live.Batch
			if c := b.Column(column); !altered && c != nil && b.Rows() > 0 && c.Valid[0] {
				c.I64[0]++
				altered = true
			}
			if err := w.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		if !altered {
			w.Abort()
			continue
		}
		added, err := w.Close()
		if err != nil {
			t.Fatal(err)
		}
		_, won, err := table.Commit(t.Context(), &deltalog.Commit{
			Read: snap, Operation: "DAMAGE", Remove: []*deltalog.File{f}, Add: []*deltalog.File{added},
		})
		if err != nil || !won {
			t.Fatalf("commit the damage: %v", err)
		}
		return
	}
	t.Fatalf("nothing in %s can be damaged", uri)
}
