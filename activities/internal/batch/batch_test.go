package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/lake/pgtype"
	"github.com/millrace-io/millrace/deltalog/datafile"
	"github.com/millrace-io/millrace/deltalog/schema"
)

// ordersTable is keyed by (id, region) and has a value that Delta may refuse.
func ordersTable(identity change.Identity, key ...int) *change.Table {
	t := &change.Table{OID: 17001, Schema: "public", Name: "orders", Identity: identity, Key: key, Columns: []change.Column{
		{Name: "id", TypeOID: 20, Type: change.Type{OID: 20, Name: "int8", Kind: "b", Mod: -1}},
		{Name: "region", TypeOID: 25, Type: change.Type{OID: 25, Name: "text", Kind: "b", Mod: -1}},
		{Name: "due", TypeOID: 1184, Type: change.Type{OID: 1184, Name: "timestamptz", Kind: "b", Mod: -1}},
		{Name: "tags", TypeOID: 1009, Type: change.Type{OID: 25, Name: "text", Kind: "b", Array: true, Mod: -1}},
		{Name: "doc", TypeOID: 25, Type: change.Type{OID: 25, Name: "text", Kind: "b", Mod: -1}},
	}}
	for i := range t.Columns {
		t.Columns[i].Identity = identity == change.IdentityFull || i < 2
	}
	t.Fingerprint = t.ComputeFingerprint()
	return t
}

func layoutOf(t testing.TB, table *change.Table) *Layout {
	t.Helper()
	l, err := NewLayout(table, nil, nil, 4)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// text makes a tuple of text values; "∅" is NULL and "…" was not sent.
func text(values ...string) (t change.Tuple) {
	for _, v := range values {
		switch v {
		case "∅":
			t.Append(change.Null, nil)
		case "…":
			t.Append(change.Unchanged, nil)
		default:
			t.Append(change.Text, []byte(v))
		}
	}
	return t
}

func event(table *change.Table, op change.Op, ordinal uint64, old, now change.Tuple) *change.Event {
	return &change.Event{
		Table: table, Op: op, Old: old, New: now, XID: 4000000000, CommitMicros: 1700000000000000,
		Position: change.Position{Epoch: 2, CommitLSN: 0x16B3748, Ordinal: ordinal},
	}
}

// lines prints history-shaped rows, one a line.
func lines(b *datafile.Batch) string {
	var out strings.Builder
	for row := range b.Rows() {
		for i, c := range b.Cols {
			if i > 0 {
				out.WriteByte(' ')
			}
			out.WriteString(value(c, row))
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func value(c *datafile.Column, row int) string {
	switch {
	case !c.Valid[row]:
		return "∅"
	case c.Type.Kind == schema.String:
		return string(c.At(row))
	case c.Type.Kind == schema.Array:
		var elems []string
		for i := int(c.Off[row]); i < int(c.Off[row+1]); i++ {
			elems = append(elems, value(c.Elem, i))
		}
		return "[" + strings.Join(elems, ",") + "]"
	}
	return fmt.Sprint(c.I64[row])
}

func appendAll(t testing.TB, b *Batch, events ...*change.Event) {
	t.Helper()
	for _, ev := range events {
		if err := b.Append(ev); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEventsBecomeHistoryRows(t *testing.T) {
	table := ordersTable(change.IdentityKey, 0, 1)
	l := layoutOf(t, table)
	b := New(l)
	none := change.Tuple{}
	appendAll(t, b,
		event(table, change.Read, 0, none, text("1", "eu", "1970-01-01 00:00:01+00", "{a,NULL}", "d")),
		event(table, change.Read, 0, none, text("2", "eu", "∅", "∅", "∅")),
		event(table, change.Create, 1, none, text("3", "us", "∅", "{}", "")),
		event(table, change.Update, 2, none, text("3", "us", "∅", "…", "…")),
		event(table, change.Update, 3, text("3", "us", "∅", "∅", "∅"), text("3", "eu", "∅", "∅", "…")),
		event(table, change.Update, 4, text("3", "eu", "∅", "∅", "∅"), text("3", "…", "∅", "∅", "e")),
		event(table, change.Delete, 5, text("3", "eu", "∅", "∅", "∅"), none),
		event(table, change.Truncate, 6, none, none),
	)
	tail := " 1700000000000000 4000000000 " + table.Fingerprint.String()
	want := "" +
		"1 eu 1000000 [a,∅] d r 2 23803720 0" + tail + " ∅ 4\n" +
		"2 eu ∅ ∅ ∅ r 2 23803720 0" + tail + " ∅ 4\n" +
		"3 us ∅ []  c 2 23803720 1" + tail + " ∅ 4\n" +
		"3 us ∅ ∅ ∅ u 2 23803720 2" + tail + " [tags,doc] 4\n" +
		"3 us ∅ ∅ ∅ d 2 23803720 3" + tail + " ∅ 4\n" +
		"3 eu ∅ ∅ ∅ u 2 23803720 3" + tail + " [doc] 4\n" +
		"3 eu ∅ ∅ e u 2 23803720 4" + tail + " ∅ 4\n" +
		"3 eu ∅ ∅ ∅ d 2 23803720 5" + tail + " ∅ 4\n" +
		"∅ ∅ ∅ ∅ ∅ t 2 23803720 6" + tail + " ∅ 4\n"
	if got := lines(b.Columns()); got != want {
		t.Errorf("rows are\n%swant\n%s", got, want)
	}
	if b.Rows() != 9 || b.First().Ordinal != 0 || b.Last().Ordinal != 6 || b.Size() < 200 {
		t.Errorf("%d rows from %s to %s of %d bytes", b.Rows(), b.First(), b.Last(), b.Size())
	}
	for i, f := range l.HistoryFields() {
		if c := b.Columns().Cols[i]; b.Columns().Names[i] != f.Name || !c.Type.Equal(f.Type) || !f.Nullable {
			t.Errorf("column %d is %s of %s, the layout says %s of %s", i, b.Columns().Names[i], c.Type, f.Name, f.Type)
		}
	}
	b.Reset()
	if b.Rows() != 0 || b.Columns().Rows() != 0 || b.Size() != 0 || !b.First().IsZero() || !b.Last().IsZero() {
		t.Error("a batch that was reset is not empty")
	}
}

func TestFullIdentityFillsWhatWasNotSent(t *testing.T) {
	table := ordersTable(change.IdentityFull, 0)
	b := New(layoutOf(t, table))
	appendAll(t, b,
		event(table, change.Update, 1, text("1", "eu", "∅", "{a}", "long"), text("1", "us", "∅", "…", "…")),
		event(table, change.Update, 2, text("1", "us", "∅", "{a}", "long"), text("2", "us", "∅", "∅", "…")),
	)
	tail := " 1700000000000000 4000000000 " + table.Fingerprint.String() + " ∅ 4\n"
	want := "" +
		"1 us ∅ [a] long u 2 23803720 1" + tail +
		"1 us ∅ [a] long d 2 23803720 2" + tail +
		"2 us ∅ ∅ long u 2 23803720 2" + tail
	if got := lines(b.Columns()); got != want {
		t.Errorf("rows are\n%swant\n%s", got, want)
	}
}

func TestUpdatesOfRowsWithoutKeyAreDeleteAndInsert(t *testing.T) {
	table := ordersTable(change.IdentityFull)
	b := New(layoutOf(t, table))
	appendAll(t, b, event(table, change.Update, 1, text("1", "eu", "∅", "∅", "x"), text("1", "eu", "∅", "∅", "…")))
	tail := " 1700000000000000 4000000000 " + table.Fingerprint.String() + " ∅ 4\n"
	want := "1 eu ∅ ∅ x d 2 23803720 1" + tail + "1 eu ∅ ∅ x u 2 23803720 1" + tail
	if got := lines(b.Columns()); got != want {
		t.Errorf("rows are\n%swant\n%s", got, want)
	}
}

func TestRefusedEventsLeaveTheBatchAlone(t *testing.T) {
	table, none := ordersTable(change.IdentityKey, 0, 1), change.Tuple{}
	multiset := ordersTable(change.IdentityFull)
	good := func(table *change.Table) *change.Event {
		return event(table, change.Create, 5, none, text("1", "eu", "∅", "{a}", "d"))
	}
	binaryDue := text("2", "eu", "∅", "∅", "x")
	binaryDue.Kinds[3], binaryDue.Values[3] = change.Binary, []byte{1}
	unknownKind := text("2", "eu", "∅", "∅", "x")
	unknownKind.Kinds[4] = 'z'
	for name, c := range map[string]struct {
		ev   *change.Event
		want error
	}{
		"value that Delta cannot hold":   {event(table, change.Create, 6, none, text("2", "eu", "infinity", "{a}", "d")), pgtype.ErrUnrepresentable},
		"array of two dimensions":        {event(table, change.Create, 6, none, text("2", "eu", "∅", "{a,{b}}", "d")), pgtype.ErrUnrepresentable},
		"bytes that are no value":        {event(table, change.Create, 6, none, text("x", "eu", "∅", "{a}", "d")), pgtype.ErrMalformed},
		"second row of a pair":           {event(table, change.Update, 6, text("1", "eu", "∅", "∅", "∅"), text("2", "eu", "infinity", "{a}", "…")), pgtype.ErrUnrepresentable},
		"unchanged, then a bad value":    {event(table, change.Update, 6, none, text("1", "eu", "∅", "…", "\xff")), pgtype.ErrUnrepresentable},
		"another shape":                  {event(ordersTable(change.IdentityNone), change.Create, 6, none, text("2", "eu", "∅", "{a}", "d")), ErrShape},
		"no table":                       {event(nil, change.Create, 6, none, text("2", "eu", "∅", "{a}", "d")), ErrShape},
		"columns missing":                {event(table, change.Create, 6, none, text("2", "eu")), ErrShape},
		"columns of the old row missing": {event(table, change.Update, 6, text("2"), text("2", "eu", "∅", "{a}", "d")), ErrShape},
		"delete without old row":         {event(table, change.Delete, 6, none, none), ErrShape},
		"insert of unchanged":            {event(table, change.Create, 6, none, text("2", "eu", "∅", "…", "d")), ErrShape},
		"key not sent":                   {event(table, change.Update, 6, none, text("2", "…", "∅", "∅", "d")), ErrShape},
		"no such operation":              {event(table, 'x', 6, none, none), ErrShape},
		"binary that is no array":        {event(table, change.Create, 6, none, binaryDue), pgtype.ErrMalformed},
		"no such kind":                   {event(table, change.Create, 6, none, unknownKind), ErrShape},
		"position before the last":       {event(table, change.Create, 4, none, text("2", "eu", "∅", "∅", "d")), ErrOrder},
		"position of the last":           {event(table, change.Create, 5, none, text("2", "eu", "∅", "∅", "d")), ErrOrder},
		"update without old row":         {event(multiset, change.Update, 6, none, text("2", "eu", "∅", "∅", "d")), ErrShape},
		"row not sent whole":             {event(multiset, change.Delete, 6, text("2", "eu", "∅", "∅", "…"), none), ErrShape},
	} {
		t.Run(name, func(t *testing.T) {
			shape := table
			if c.ev.Table == multiset {
				shape = multiset
			}
			b := New(layoutOf(t, shape))
			appendAll(t, b, good(shape))
			before, size := lines(b.Columns()), b.Size()
			err := b.Append(c.ev)
			if !errors.Is(err, c.want) {
				t.Fatalf("error is %v, want %v", err, c.want)
			}
			if got := lines(b.Columns()); got != before || b.Rows() != 1 || b.Size() != size || b.Last().Ordinal != 5 {
				t.Errorf("%d rows to %s:\n%swant\n%s", b.Rows(), b.Last(), got, before)
			}
			appendAll(t, b, event(shape, change.Create, 7, none, text("9", "eu", "∅", "{z}", "d")))
			last := strings.Split(strings.TrimSpace(lines(b.Columns())), "\n")[1]
			if !strings.HasPrefix(last, "9 eu ∅ [z] d c") || !strings.HasSuffix(last, " ∅ 4") {
				t.Errorf("the row after is %s", last)
			}
		})
	}
}

func TestRefusalNamesColumnAndKeyButNoValues(t *testing.T) {
	table := ordersTable(change.IdentityKey, 0, 1)
	b := New(layoutOf(t, table))
	err := b.Append(event(table, change.Create, 6, change.Tuple{}, text("77123", "secretland", "infinity", "∅", "hush")))
	var refused *ConvertError
	if !errors.As(err, &refused) {
		t.Fatalf("error is %v", err)
	}
	if refused.Table != "public.orders" || refused.Column != "due" || refused.Type != "timestamptz" || fmt.Sprint(refused.Key) != "[id region]" || refused.Position.Ordinal != 6 {
		t.Errorf("error says %+v", refused)
	}
	const want = `convert public.orders column "due" of type timestamptz, row at e2 0/16B3748 #6, key (id, region): not representable: infinite date or time`
	if err.Error() != want {
		t.Errorf("error is %q, want %q", err, want)
	}
	at := refused.Position
	refused.Position = change.Position{} // a row that is no change
	if whole, place := refused.Error(), fmt.Sprintf(", row at %s", at); whole != strings.Replace(want, place, "", 1) {
		t.Errorf("without a position the error is %q", whole)
	}
}

func TestResetLetsGoOfLongValues(t *testing.T) {
	table := ordersTable(change.IdentityKey, 0, 1)
	b := New(layoutOf(t, table))
	long := strings.Repeat("x", keptBytes+1)
	appendAll(t, b, event(table, change.Create, 1, change.Tuple{}, text("1", "eu", "∅", "{"+long+"}", long)))
	b.Reset()
	for i, c := range b.Columns().Cols {
		if cap(c.Bytes) > keptBytes || c.Elem != nil && cap(c.Elem.Bytes) > keptBytes {
			t.Errorf("column %s keeps its memory", b.Columns().Names[i])
		}
	}
	appendAll(t, b, event(table, change.Create, 1, change.Tuple{}, text("1", "eu", "∅", "{a}", "d")))
	if got := lines(b.Columns()); !strings.HasPrefix(got, "1 eu ∅ [a] d c 2 ") {
		t.Error(got)
	}
}

func TestCastsAndNamesOfALayout(t *testing.T) {
	table := ordersTable(change.IdentityKey, 0, 1)
	l, err := NewLayout(table, []string{"id", "region", "due_1", "tags", "doc"}, map[string]string{"due": "string"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(l.Names(), l.KeyNames(), l.TextColumns(), l.Fields[2].Type); got != "[id region due_1 tags doc] [id region] [false false true false false] string" {
		t.Error(got)
	}
	b := New(l)
	appendAll(t, b, event(table, change.Create, 1, change.Tuple{}, text("1", "eu", "infinity", "∅", "∅")))
	if got := lines(b.Columns()); !strings.HasPrefix(got, "1 eu infinity ∅ ∅ c") {
		t.Error(got)
	}
	inBinary := text("2", "eu", "∅", "∅", "∅")
	inBinary.Kinds[2], inBinary.Values[2] = change.Binary, make([]byte, 8)
	if err := b.Append(event(table, change.Create, 2, change.Tuple{}, inBinary)); !errors.Is(err, ErrShape) {
		t.Errorf("binary for a column that has no converter: %v", err)
	}
	if _, err := NewLayout(table, []string{"id"}, nil, 1); err == nil {
		t.Error("too few names are accepted")
	}
	if _, err := NewLayout(table, nil, map[string]string{"due": "float"}, 1); !errors.Is(err, pgtype.ErrCast) {
		t.Errorf("unknown cast: %v", err)
	}
}

func TestFoldRefusesWhatIsNoHistory(t *testing.T) {
	table, none := ordersTable(change.IdentityKey, 0, 1), change.Tuple{}
	l := layoutOf(t, table)
	one := func(events ...*change.Event) *datafile.Batch {
		out := &datafile.Batch{}
		for i, ev := range events {
			b := New(l)
			appendAll(t, b, ev)
			if i == 0 {
				out = b.Columns()
				continue
			}
			for row := range b.Rows() {
				out.AppendRow(b.Columns(), row)
			}
		}
		return out
	}
	full := text("1", "eu", "∅", "∅", "d")
	insert := event(table, change.Create, 2, none, full)
	unchanged := event(table, change.Update, 3, none, text("1", "eu", "∅", "∅", "…"))
	for name, c := range map[string]struct {
		rows *datafile.Batch
		want error
	}{
		"order":                 {one(insert, event(table, change.Create, 1, none, full)), ErrOrder},
		"one position twice":    {one(insert, insert), ErrOrder},
		"update after delete":   {one(insert, event(table, change.Delete, 1, full, none)), ErrOrder},
		"unchanged of nothing":  {one(event(table, change.Delete, 2, full, none), unchanged), ErrNoOldRow},
		"unchanged of the void": {one(event(table, change.Truncate, 2, none, none), unchanged), ErrNoOldRow},
		"no columns":            {&datafile.Batch{}, ErrShape},
	} {
		if _, err := Fold(c.rows, l.KeyNames(), false, l.Names(), change.Position{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := Fold(one(insert), nil, false, l.Names(), change.Position{}); !errors.Is(err, ErrShape) {
		t.Errorf("no key: %v", err)
	}
	if _, err := Fold(one(insert), []string{"gone"}, false, l.Names(), change.Position{}); !errors.Is(err, ErrShape) {
		t.Errorf("unknown key: %v", err)
	}
}

// mixedTable has ten mixed columns, whose rows take about 200 bytes.
func mixedTable(identity change.Identity, key ...int) *change.Table {
	t := &change.Table{OID: 17002, Schema: "public", Name: "mixed", Identity: identity, Key: key}
	for i, c := range []struct {
		oid  uint32
		name string
		mod  int32
	}{
		{20, "int8", -1},
		{1700, "numeric", (18<<16 | 2) + 4},
		{1184, "timestamptz", -1},
		{2950, "uuid", -1},
		{3802, "jsonb", -1},
		{25, "text", -1},
		{16, "bool", -1},
		{1082, "date", -1},
		{701, "float8", -1},
		{23, "int4", -1},
	} {
		t.Columns = append(t.Columns, change.Column{
			Name: fmt.Sprintf("c%d", i), TypeOID: c.oid, TypeMod: c.mod, Identity: identity == change.IdentityFull || i == 0,
			Type: change.Type{OID: c.oid, Name: c.name, Kind: "b", Mod: c.mod},
		})
	}
	t.Fingerprint = t.ComputeFingerprint()
	return t
}

func mixedText(id int) change.Tuple {
	return text(fmt.Sprint(id), fmt.Sprintf("%d.%02d", 100000+id, id%100), "2024-05-06 07:08:09.123456+00", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
		`{"kind": "click", "page": "/a/b/c"}`, strings.Repeat("lorem ipsum ", 5), "t", "2024-05-06", "3.141592653589793", fmt.Sprint(id%1000))
}

func mixedBinary(id int) change.Tuple {
	be := binary.BigEndian
	var t change.Tuple
	t.Append(change.Binary, be.AppendUint64(nil, uint64(id)))
	t.Append(change.Binary, []byte{0, 3, 0, 1, 0, 0, 0, 2, 0, 10, byte(id % 39), 0, 0, 100})
	t.Append(change.Binary, be.AppendUint64(nil, 768294489123456))
	t.Append(change.Binary, []byte("0123456789abcdef"))
	t.Append(change.Binary, []byte("\x01"+`{"kind": "click", "page": "/a/b/c"}`))
	t.Append(change.Binary, []byte(strings.Repeat("lorem ipsum ", 5)))
	t.Append(change.Binary, []byte{1})
	t.Append(change.Binary, be.AppendUint32(nil, 8892))
	t.Append(change.Binary, be.AppendUint64(nil, math.Float64bits(math.Pi)))
	t.Append(change.Binary, be.AppendUint32(nil, uint32(id%1000)))
	return t
}

func BenchmarkAppend(b *testing.B) {
	table := mixedTable(change.IdentityKey, 0)
	for name, tuple := range map[string]func(int) change.Tuple{"text": mixedText, "binary": mixedBinary} {
		b.Run(name, func(b *testing.B) {
			batch := New(layoutOf(b, table))
			ev := event(table, change.Create, 0, change.Tuple{}, tuple(12345))
			b.ReportAllocs()
			for b.Loop() {
				ev.Ordinal++
				if batch.Rows() == 50000 {
					batch.Reset()
				}
				if err := batch.Append(ev); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func BenchmarkFold(b *testing.B) {
	const rows = 20000
	for name, table := range map[string]*change.Table{
		"keyed": mixedTable(change.IdentityKey, 0), "multiset": mixedTable(change.IdentityFull),
	} {
		b.Run(name, func(b *testing.B) {
			l := layoutOf(b, table)
			batch := New(l)
			for i := range rows {
				appendAll(b, batch, event(table, change.Create, uint64(i+1), change.Tuple{}, mixedText(i*7%rows)))
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Fold(batch.Columns(), l.KeyNames(), table.Multiset(), l.Names(), change.Position{}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
