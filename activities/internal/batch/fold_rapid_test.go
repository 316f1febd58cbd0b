package batch

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// The model's table: id, code, ratio and two texts that PostgreSQL may TOAST.
const (
	colID = iota
	colCode
	colRatio
	colDoc
	colNote
	modelColumns
)

// row is a row as PostgreSQL prints it; nil is NULL.
type row [modelColumns]*string

func (r row) String() string {
	var b strings.Builder
	for _, v := range r {
		if v == nil {
			b.WriteString("|null")
		} else {
			b.WriteString("|" + strconv.Quote(*v))
		}
	}
	return b.String()
}

func modelTable(identity change.Identity, flagged []int, key []int) *change.Table {
	t := &change.Table{OID: 16999, Schema: "public", Name: "t", Identity: identity, Key: key, Columns: []change.Column{
		colID:    {Name: "id", TypeOID: 23, Type: change.Type{OID: 23, Name: "int4", Kind: "b", Mod: -1}},
		colCode:  {Name: "code", TypeOID: 25, Type: change.Type{OID: 25, Name: "text", Kind: "b", Mod: -1}},
		colRatio: {Name: "ratio", TypeOID: 701, Type: change.Type{OID: 701, Name: "float8", Kind: "b", Mod: -1}},
		colDoc:   {Name: "doc", TypeOID: 25, Type: change.Type{OID: 25, Name: "text", Kind: "b", Mod: -1}},
		colNote:  {Name: "note", TypeOID: 25, Type: change.Type{OID: 25, Name: "text", Kind: "b", Mod: -1}},
	}}
	for _, i := range flagged {
		t.Columns[i].Identity = true
	}
	t.Fingerprint = t.ComputeFingerprint()
	return t
}

var allColumns = []int{colID, colCode, colRatio, colDoc, colNote}

// models are the kinds of identity that fold differently.
var models = map[string]*change.Table{
	"primary key":               modelTable(change.IdentityKey, []int{colID}, []int{colID}),
	"composite key":             modelTable(change.IdentityKey, []int{colID, colCode}, []int{colID, colCode}),
	"key within the identity":   modelTable(change.IdentityKey, []int{colID, colCode}, []int{colID}),
	"long key":                  modelTable(change.IdentityKey, []int{colDoc}, []int{colDoc}),
	"full identity with key":    modelTable(change.IdentityFull, allColumns, []int{colID}),
	"full identity without key": modelTable(change.IdentityFull, allColumns, nil),
}

// source plays PostgreSQL: it holds rows and sends what pgoutput would send.
type source struct {
	table *change.Table
	rows  []row
	at    change.Position
}

func (s *source) keyOf(r row) string {
	var k []string
	for _, i := range s.table.Key {
		k = append(k, *r[i])
	}
	return strings.Join(k, "\x00")
}

func (s *source) taken(r row) bool {
	if s.table.Multiset() {
		return false
	}
	return slices.ContainsFunc(s.rows, func(o row) bool { return s.keyOf(o) == s.keyOf(r) })
}

func ptr(s string) *string { return &s }

// drawRow draws few distinct values, so that keys meet and rows are equal.
func drawRow(t *rapid.T) row {
	long := func(name string) *string {
		n := rapid.IntRange(0, 3).Draw(t, name)
		if n == 0 {
			return nil
		}
		return ptr(strings.Repeat(string(rune('a'+n)), n*3))
	}
	r := row{
		colID:    ptr(strconv.Itoa(rapid.IntRange(0, 4).Draw(t, "id"))),
		colCode:  ptr(rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "code")),
		colRatio: ptr(rapid.SampledFrom([]string{"0", "-0", "NaN", "1.5"}).Draw(t, "ratio")),
		colDoc:   ptr(strings.Repeat("k", rapid.IntRange(1, 3).Draw(t, "doc")*3)),
		colNote:  long("note"),
	}
	if rapid.IntRange(0, 5).Draw(t, "no ratio") == 0 {
		r[colRatio] = nil
	}
	return r
}

// tuple sends a row's columns, in text or binary as drawn.
func tuple(t *rapid.T, r row, columns []int) change.Tuple {
	tup := change.Tuple{Kinds: slices.Repeat([]byte{change.Null}, modelColumns), Values: make([][]byte, modelColumns)}
	inBinary := rapid.Bool().Draw(t, "binary")
	for _, i := range columns {
		if r[i] == nil {
			continue
		}
		tup.Kinds[i], tup.Values[i] = change.Text, []byte(*r[i])
		if inBinary {
			tup.Kinds[i] = change.Binary
			switch i {
			case colID:
				n, _ := strconv.Atoi(*r[i])
				tup.Values[i] = binary.BigEndian.AppendUint32(nil, uint32(n))
			case colRatio:
				v, _ := strconv.ParseFloat(*r[i], 64)
				tup.Values[i] = binary.BigEndian.AppendUint64(nil, math.Float64bits(v))
			}
		}
	}
	return tup
}

// step draws one change, makes it, and returns what PostgreSQL sends of it.
func (s *source) step(t *rapid.T) *change.Event {
	ops := []change.Op{change.Create, change.Create, change.Create}
	if len(s.rows) > 0 {
		ops = append(ops, change.Update, change.Update, change.Update, change.Update, change.Delete)
	}
	op := rapid.SampledFrom(ops).Draw(t, "op")
	if rapid.IntRange(0, 30).Draw(t, "truncate") == 0 {
		op = change.Truncate
	}
	if rapid.Bool().Draw(t, "transaction") {
		s.at.CommitLSN += change.LSN(rapid.IntRange(1, 100).Draw(t, "wal"))
		s.at.Ordinal = 0
		if rapid.IntRange(0, 20).Draw(t, "epoch") == 0 {
			s.at.Epoch, s.at.CommitLSN = s.at.Epoch+1, 1
		}
	}
	s.at.Ordinal++
	ev := &change.Event{Table: s.table, Position: s.at, Op: op, CommitMicros: 7, XID: 9}

	switch op {
	case change.Create:
		r := drawRow(t)
		for s.taken(r) {
			r[colID] = ptr(strconv.Itoa(5 + len(s.rows) + rapid.IntRange(0, 1000).Draw(t, "free id")))
			r[colDoc] = ptr("doc" + *r[colID])
		}
		s.rows = append(s.rows, r)
		ev.New = tuple(t, r, allColumns)
	case change.Delete:
		i := rapid.IntRange(0, len(s.rows)-1).Draw(t, "row")
		ev.Old = tuple(t, s.rows[i], s.identityColumns())
		s.rows = slices.Delete(s.rows, i, i+1)
	case change.Truncate:
		s.rows = nil
	case change.Update:
		s.update(t, ev)
	}
	return ev
}

func (s *source) update(t *rapid.T, ev *change.Event) {
	i := rapid.IntRange(0, len(s.rows)-1).Draw(t, "row")
	old := s.rows[i]
	r := drawRow(t)
	for c := range r {
		if rapid.IntRange(0, 2).Draw(t, "keep") > 0 {
			r[c] = old[c]
		}
	}
	s.rows = slices.Delete(s.rows, i, i+1)
	if s.taken(r) {
		for _, c := range s.table.Key {
			r[c] = old[c]
		}
	}
	s.rows = append(s.rows, r)

	ev.New = tuple(t, r, allColumns)
	changed := false
	for _, c := range s.identityColumns() {
		changed = changed || !same(old[c], r[c])
	}
	sent := s.table.Identity == change.IdentityFull || changed || rapid.IntRange(0, 5).Draw(t, "old all the same") == 0
	if sent {
		ev.Old = tuple(t, old, s.identityColumns())
	}
	for _, c := range []int{colDoc, colNote} {
		toasted := r[c] != nil && same(old[c], r[c]) && rapid.Bool().Draw(t, "toasted")
		// PostgreSQL sends the old identity when part of it is stored out of
		// line, and under FULL always.
		if toasted && (sent || !slices.Contains(s.identityColumns(), c)) {
			ev.New.Kinds[c], ev.New.Values[c] = change.Unchanged, nil
		}
	}
}

func same(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

func (s *source) identityColumns() []int {
	var columns []int
	for i := range s.table.Columns {
		if s.table.Columns[i].Identity {
			columns = append(columns, i)
		}
	}
	return columns
}

func (s *source) want() map[string]int {
	m := map[string]int{}
	for _, r := range s.rows {
		m[r.String()]++
	}
	return m
}

// latest plays the latest table: rows by key, or counted.
type latest struct {
	layout *Layout
	keyed  map[string]row
	counts map[string]int
}

func (l *latest) have() map[string]int {
	if l.layout.Table.Multiset() {
		return maps.Clone(l.counts)
	}
	m := map[string]int{}
	for _, r := range l.keyed {
		m[r.String()]++
	}
	return m
}

// readRow prints a folded row as the source does.
func readRow(b *datafile.Batch, n int) (r row) {
	for i := range r {
		c := b.Cols[i]
		if !c.Valid[n] {
			continue
		}
		switch c.Type.Kind {
		case schema.Integer:
			r[i] = ptr(strconv.FormatInt(c.I64[n], 10))
		case schema.Double:
			r[i] = ptr(strconv.FormatFloat(c.F64[n], 'g', -1, 64))
		default:
			r[i] = ptr(string(c.At(n)))
		}
	}
	return r
}

// apply does what Net's comment says.
func (l *latest) apply(t rapid.TB, b *datafile.Batch, n *Net) {
	before := maps.Clone(l.keyed)
	if n.Truncated {
		clear(l.keyed)
		clear(l.counts)
	}
	for _, r := range n.Removed {
		text := readRow(b, int(r)).String()
		if l.counts[text] == 0 {
			t.Fatalf("the net effect removes %s, which is not there", text)
		}
		if l.counts[text]--; l.counts[text] == 0 {
			delete(l.counts, text)
		}
	}
	for _, r := range n.Inserted {
		l.counts[readRow(b, int(r)).String()]++
	}
	for _, k := range n.Deletes {
		delete(l.keyed, string(k))
	}
	seen := map[string]bool{}
	for _, k := range n.Deletes {
		if seen[string(k)] {
			t.Fatalf("key %x twice", k)
		}
		seen[string(k)] = true
	}
	for i, u := range n.Upserts {
		if seen[string(u.Key)] {
			t.Fatalf("key %x twice", u.Key)
		}
		seen[string(u.Key)] = true
		if i > 0 && u.Row <= n.Upserts[i-1].Row {
			t.Fatalf("upserts are not in order of their rows")
		}
		r := readRow(b, int(u.Row))
		for _, f := range u.Fill {
			switch {
			case r[f.Column] != nil:
				t.Fatalf("column %d is filled and has a value", f.Column)
			case f.FromRow >= 0:
				r[f.Column] = readRow(b, int(f.FromRow))[f.Column]
			default:
				old, ok := before[string(f.FromKey)]
				if !ok {
					t.Fatalf("column %d is filled from key %x, which is not there", f.Column, f.FromKey)
				}
				r[f.Column] = old[f.Column]
			}
			if r[f.Column] == nil {
				t.Fatalf("column %d is filled with nothing", f.Column)
			}
		}
		l.keyed[string(u.Key)] = r
	}
}

func newLatest(l *Layout) *latest {
	return &latest{layout: l, keyed: map[string]row{}, counts: map[string]int{}}
}

func fold(t rapid.TB, l *Layout, rows *datafile.Batch, after change.Position) *Net {
	n, err := Fold(rows, l.KeyNames(), l.Table.Multiset(), l.Names(), after)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func check(t rapid.TB, what string, got, want map[string]int) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Fatalf("%s: rows are %v, want %v", what, got, want)
	}
}

func TestFoldingAndApplyingEqualsTheSource(t *testing.T) {
	for name, table := range models {
		t.Run(name, func(t *testing.T) {
			layout, err := NewLayout(table, nil, nil, 1)
			if err != nil {
				t.Fatal(err)
			}
			rapid.Check(t, func(t *rapid.T) { foldAndApply(t, layout) })
		})
	}
}

// foldAndApply plays a history, applies it piece by piece, and then again: from
// every earlier state of the table, over the whole history at once.
func foldAndApply(t *rapid.T, layout *Layout) {
	src := &source{table: layout.Table, at: change.Position{Epoch: 1, CommitLSN: 1}}
	piece, whole := New(layout), New(layout)
	lat := newLatest(layout)
	type saved struct {
		at    change.Position
		state *latest
	}
	states := []saved{{state: newLatest(layout)}}

	apply := func() {
		n := fold(t, layout, piece.Columns(), change.Position{})
		lat.apply(t, piece.Columns(), n)
		check(t, fmt.Sprintf("after %s", src.at), lat.have(), src.want())
		if n.First != piece.First() || n.Last != piece.Last() {
			t.Fatalf("folded %s to %s, the batch holds %s to %s", n.First, n.Last, piece.First(), piece.Last())
		}
		states = append(states, saved{src.at, &latest{layout, maps.Clone(lat.keyed), maps.Clone(lat.counts)}})
		piece.Reset()
	}
	for range rapid.IntRange(1, 40).Draw(t, "changes") {
		ev := src.step(t)
		for _, b := range []*Batch{piece, whole} {
			if err := b.Append(ev); err != nil {
				t.Fatal(err)
			}
		}
		if rapid.IntRange(0, 4).Draw(t, "commit") == 0 {
			apply()
		}
	}
	if piece.Rows() > 0 {
		apply()
	}
	for _, s := range states {
		n := fold(t, layout, whole.Columns(), s.at)
		s.state.apply(t, whole.Columns(), n)
		check(t, fmt.Sprintf("from %s to the end", s.at), s.state.have(), src.want())
		if s.at == src.at && !n.Empty() {
			t.Fatalf("there is nothing after %s, the net effect is %+v", s.at, n)
		}
	}
}
