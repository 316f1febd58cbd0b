package batch

import (
	"testing"

	"github.com/millrace-io/millrace/activities/change"
)

// FuzzAppend feeds any two tuples to a batch: whatever comes, all columns stay
// equally long, and a refusal changes nothing.
func FuzzAppend(f *testing.F) {
	tables := []*change.Table{
		ordersTable(change.IdentityKey, 0, 1), ordersTable(change.IdentityFull, 0), ordersTable(change.IdentityFull), ordersTable(change.IdentityNone),
	}
	var layouts []*Layout
	for _, t := range tables {
		layouts = append(layouts, layoutOf(f, t))
	}
	row := text("1", "eu", "2024-01-01 00:00:00+00", "{a,\"b\"}", "…")
	encoded := change.AppendTuple(nil, &row)
	for which := range tables {
		for _, op := range []change.Op{change.Create, change.Update, change.Delete, change.Read, change.Truncate} {
			f.Add(uint8(which), byte(op), encoded, encoded)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, op byte, old, now []byte) {
		l := layouts[int(which)%len(layouts)]
		b := New(l)
		appendAll(t, b, event(l.Table, change.Truncate, 1, change.Tuple{}, change.Tuple{}))
		before := lines(b.Columns())
		ev := event(l.Table, change.Op(op), 2, change.Tuple{}, change.Tuple{})
		if _, err := ev.Old.Parse(old); err != nil {
			ev.Old.Reset()
		}
		if _, err := ev.New.Parse(now); err != nil {
			ev.New.Reset()
		}
		if err := b.Append(ev); err != nil && lines(b.Columns()) != before {
			t.Fatalf("after %v the rows are\n%s", err, lines(b.Columns()))
		}
		for i, c := range b.Columns().Cols {
			if c.Len() != b.Rows() {
				t.Fatalf("column %s has %d rows, the batch %d", b.Columns().Names[i], c.Len(), b.Rows())
			}
		}
	})
}
