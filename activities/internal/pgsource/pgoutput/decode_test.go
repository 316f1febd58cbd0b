package pgoutput

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/activities/change"
)

// samples has at least one message of each kind.
func samples() map[string][]byte {
	be := binary.BigEndian
	u16 := func(b []byte, v int) []byte { return be.AppendUint16(b, uint16(v)) }
	u32 := func(b []byte, v uint32) []byte { return be.AppendUint32(b, v) }
	u64 := func(b []byte, v uint64) []byte { return be.AppendUint64(b, v) }
	str := func(b []byte, s string) []byte { return append(append(b, s...), 0) }

	tuple := func(kinds string, values ...string) []byte {
		var t change.Tuple
		n := 0
		for _, k := range []byte(kinds) {
			var v []byte
			if k == change.Text || k == change.Binary {
				v = []byte(values[n])
				n++
			}
			t.Append(k, v)
		}
		return change.AppendTuple(nil, &t)
	}
	begin := u32(u64(u64([]byte{'B'}, 0x16B3748), 7_000_000), 731)
	commit := u64(u64(u64([]byte{'C', 0}, 0x16B3748), 0x16B3778), 7_000_000)
	relation := u16(append(str(str(u32([]byte{'R'}, 16384), "public"), "orders"), 'd'), 2)
	relation = u32(u32(str(append(relation, 1), "id"), 20), 0xffffffff)
	relation = u32(u32(str(append(relation, 0), "note"), 1043), 14)
	full := u16(append(str(str(u32([]byte{'R'}, 16390), ""), `we"ird`), 'f'), 1)
	full = u32(u32(str(append(full, 1), "x"), 25), 0xffffffff)
	insert := append(append(u32([]byte{'I'}, 16384), 'N'), tuple("tnb", "1", "\x00\x01")...)
	update := append(append(u32([]byte{'U'}, 16384), 'N'), tuple("tu", "1")...)
	moved := append(append(u32([]byte{'U'}, 16384), 'K'), tuple("tn", "1")...)
	moved = append(append(moved, 'N'), tuple("tt", "2", "x")...)
	whole := append(append(u32([]byte{'U'}, 16384), 'O'), tuple("tt", "1", "w")...)
	whole = append(append(whole, 'N'), tuple("tu", "1")...)
	deleted := append(append(u32([]byte{'D'}, 16384), 'K'), tuple("tn", "1")...)
	truncate := u32(u32(append(u32([]byte{'T'}, 2), 3), 16384), 16390)
	logical := append(u32(str(u64([]byte{'M', 1}, 0x16B3700), "millrace.marker"), 5), "token"...)
	typ := str(str(u32([]byte{'Y'}, 16399), "public"), "mood")
	origin := str(u64([]byte{'O'}, 0x16B3700), "elsewhere")
	return map[string][]byte{
		"begin": begin, "commit": commit, "relation": relation, "relation full": full, "insert": insert, "update": update,
		"update of a key": moved, "update under full": whole, "delete": deleted, "truncate": truncate, "logical": logical,
		"type": typ, "origin": origin,
	}
}

func TestMessagesAsPglogreplReadsThem(t *testing.T) {
	for name, b := range samples() {
		t.Run(name, func(t *testing.T) {
			var m Message
			if err := m.Decode(b); err != nil {
				t.Fatal(err)
			}
			compare(t, b, &m)
		})
	}
}

// compare holds m against what pglogrepl makes of the same bytes.
func compare(t testing.TB, b []byte, m *Message) {
	t.Helper()
	want, err := pglogrepl.Parse(bytes.Clone(b))
	if err != nil {
		// It wants a column in every tuple and a table in every Truncate.
		t.Skipf("pglogrepl does not read it: %v", err)
	}
	equal := func(what string, got, want any) {
		t.Helper()
		if got != want {
			t.Errorf("%s is %v, pglogrepl reads %v", what, got, want)
		}
	}
	equalTime := func(got int64, want time.Time) {
		t.Helper()
		// pglogrepl counts in nanoseconds, which end 292 years from 2000.
		if since := got - change.PostgresEpochMicros; since > -9e15 && since < 9e15 {
			equal("time", got, want.UnixMicro())
		}
	}
	switch w := want.(type) {
	case *pglogrepl.BeginMessage:
		equal("kind", m.Kind, Begin)
		equal("final LSN", m.FinalLSN, change.LSN(w.FinalLSN))
		equal("xid", m.XID, w.Xid)
		equalTime(m.CommitMicros, w.CommitTime)
	case *pglogrepl.CommitMessage:
		equal("kind", m.Kind, Commit)
		equal("final LSN", m.FinalLSN, change.LSN(w.CommitLSN))
		equal("end LSN", m.EndLSN, change.LSN(w.TransactionEndLSN))
		equalTime(m.CommitMicros, w.CommitTime)
	case *pglogrepl.RelationMessage:
		equal("kind", m.Kind, Relation)
		r := m.Relation
		equal("table", r.OID, w.RelationID)
		equal("name", r.Name, w.RelationName)
		if w.Namespace != "" {
			equal("schema", r.Schema, w.Namespace)
		}
		equal("columns", len(r.Columns), len(w.Columns))
		for i := range r.Columns {
			equal("column", r.Columns[i].Name, w.Columns[i].Name)
			equal("type", r.Columns[i].TypeOID, w.Columns[i].DataType)
			equal("modifier", r.Columns[i].TypeMod, w.Columns[i].TypeModifier)
			equal("identity", r.Columns[i].Identity, w.Columns[i].Flags == 1)
		}
	case *pglogrepl.InsertMessage:
		equal("kind", m.Kind, Insert)
		equal("table", m.OID, w.RelationID)
		compareTuple(t, m.New, w.Tuple)
	case *pglogrepl.UpdateMessage:
		equal("kind", m.Kind, Update)
		equal("table", m.OID, w.RelationID)
		if m.OldKind != 0 {
			equal("old kind", m.OldKind, w.OldTupleType)
			compareTuple(t, m.Old, w.OldTuple)
		}
		compareTuple(t, m.New, w.NewTuple)
	case *pglogrepl.DeleteMessage:
		equal("kind", m.Kind, Delete)
		equal("table", m.OID, w.RelationID)
		equal("old kind", m.OldKind, w.OldTupleType)
		compareTuple(t, m.Old, w.OldTuple)
	case *pglogrepl.TruncateMessage:
		equal("kind", m.Kind, Truncate)
		equal("tables", len(m.OIDs), len(w.RelationIDs))
		for i := range m.OIDs {
			equal("table", m.OIDs[i], w.RelationIDs[i])
		}
		equal("cascade", m.Cascade, w.Option&1 != 0)
		equal("restart identity", m.RestartIdentity, w.Option&2 != 0)
	case *pglogrepl.LogicalDecodingMessage:
		equal("kind", m.Kind, Logical)
		equal("transactional", m.Transactional, w.Transactional)
		equal("LSN", m.LSN, change.LSN(w.LSN))
		equal("prefix", m.Prefix, w.Prefix)
		equal("content", string(m.Content), string(w.Content))
	case *pglogrepl.TypeMessage:
		equal("kind", m.Kind, Type)
		equal("type", m.OID, w.DataType)
	case *pglogrepl.OriginMessage:
		equal("kind", m.Kind, Origin)
	default:
		t.Fatalf("pglogrepl reads a %T", want)
	}
}

func compareTuple(t testing.TB, got []byte, want *pglogrepl.TupleData) {
	t.Helper()
	var tuple change.Tuple
	rest, err := tuple.Parse(got)
	if err != nil || len(rest) > 0 {
		t.Fatalf("the tuple that was taken is unreadable: %v, %d bytes left", err, len(rest))
	}
	if tuple.Len() != len(want.Columns) {
		t.Fatalf("%d columns, pglogrepl reads %d", tuple.Len(), len(want.Columns))
	}
	for i, c := range want.Columns {
		if tuple.Kinds[i] != c.DataType || !bytes.Equal(tuple.Values[i], c.Data) {
			t.Errorf("column %d is %c %q, pglogrepl reads %c %q", i, tuple.Kinds[i], tuple.Values[i], c.DataType, c.Data)
		}
	}
}

func TestEveryShortenedMessageIsRefused(t *testing.T) {
	for name, b := range samples() {
		for n := range len(b) {
			var m Message
			if err := m.Decode(b[:n:n]); !errors.Is(err, ErrMessage) {
				t.Errorf("%s cut to %d of %d bytes: %v", name, n, len(b), err)
			}
		}
		var m Message
		if err := m.Decode(append(bytes.Clone(b), 0)); !errors.Is(err, ErrMessage) {
			t.Errorf("%s with a byte more: %v", name, err)
		}
	}
}

func TestReusedMessageKeepsNothing(t *testing.T) {
	all := samples()
	for first, a := range all {
		for second, b := range all {
			var reused, fresh Message
			if err := errors.Join(reused.Decode(a), reused.Decode(b), fresh.Decode(b)); err != nil {
				t.Fatal(err)
			}
			compare(t, b, &reused)
			if reused.Kind != fresh.Kind || reused.OldKind != fresh.OldKind || len(reused.OIDs) != len(fresh.OIDs) ||
				(reused.Relation == nil) != (fresh.Relation == nil) || reused.Prefix != fresh.Prefix ||
				(reused.New == nil) != (fresh.New == nil) || (reused.Old == nil) != (fresh.Old == nil) {
				t.Errorf("%s after %s: %+v instead of %+v", second, first, reused, fresh)
			}
		}
	}
}

func TestHugeCountsAllocateNothing(t *testing.T) {
	be := binary.BigEndian
	relation := be.AppendUint16(append([]byte("R\x00\x00\x40\x00public\x00t\x00"), 'd'), 65535)
	truncate := append(be.AppendUint32([]byte{'T'}, 1<<31), 0)
	insert := be.AppendUint16(append(be.AppendUint32([]byte{'I'}, 1), 'N'), 65535)
	value := append(be.AppendUint16(append(be.AppendUint32([]byte{'I'}, 1), 'N'), 1), 't', 0xff, 0xff, 0xff, 0xff)
	for _, b := range [][]byte{relation, truncate, insert, value} {
		var m Message
		if err := m.Decode(b); !errors.Is(err, ErrMessage) {
			t.Errorf("%q: %v", b, err)
		}
		if cap(m.OIDs) > 16 || m.Relation != nil {
			t.Errorf("%q made room for what it announced", b)
		}
	}
}

func TestIdentityOfARelation(t *testing.T) {
	relation := func(identity byte, flags ...byte) *change.Table {
		b := binary.BigEndian.AppendUint16(append([]byte("R\x00\x00\x40\x00public\x00t\x00"), identity), uint16(len(flags)))
		for i, f := range flags {
			b = append(b, f, 'a'+byte(i), 0, 0, 0, 0, 23, 0xff, 0xff, 0xff, 0xff)
		}
		var m Message
		if err := m.Decode(b); err != nil {
			t.Fatal(err)
		}
		return m.Relation
	}
	for _, c := range []struct {
		name  string
		table *change.Table
		want  change.Identity
		key   int
	}{
		{"default with a key", relation('d', 1, 0), change.IdentityKey, 1},
		{"default without", relation('d', 0, 0), change.IdentityNone, 0},
		{"index", relation('i', 1, 1), change.IdentityKey, 2},
		{"full", relation('f', 1, 1), change.IdentityFull, 0},
		{"nothing", relation('n', 0), change.IdentityNone, 0},
	} {
		if c.table.Identity != c.want || len(c.table.Key) != c.key {
			t.Errorf("%s: identity %q with %d key columns", c.name, c.table.Identity, len(c.table.Key))
		}
		if c.table.Fingerprint != c.table.ComputeFingerprint() {
			t.Errorf("%s: another fingerprint than of its fields", c.name)
		}
	}
}

func TestChangesAreDecodedWithoutAllocation(t *testing.T) {
	all := samples()
	var m Message
	for _, name := range []string{"begin", "commit", "insert", "update of a key", "delete", "truncate", "logical", "type", "origin"} {
		b := all[name]
		if err := m.Decode(b); err != nil {
			t.Fatal(err)
		}
		n := testing.AllocsPerRun(100, func() {
			if err := m.Decode(b); err != nil {
				t.Fatal(err)
			}
		})
		if n > 0 {
			t.Errorf("%s takes %v allocations", name, n)
		}
	}
}

func TestRandomTuplesAsPglogreplReadsThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tuple change.Tuple
		for range rapid.IntRange(1, 40).Draw(t, "columns") {
			kind := rapid.SampledFrom([]byte("ntub")).Draw(t, "kind")
			var v []byte
			if kind == change.Text || kind == change.Binary {
				v = rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "value")
			}
			tuple.Append(kind, v)
		}
		b := change.AppendTuple(append(binary.BigEndian.AppendUint32([]byte{'I'}, rapid.Uint32().Draw(t, "table")), 'N'), &tuple)
		var m Message
		if err := m.Decode(b); err != nil {
			t.Fatal(err)
		}
		want, err := pglogrepl.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if w := want.(*pglogrepl.InsertMessage); int(w.Tuple.ColumnNum) != tuple.Len() || w.RelationID != m.OID {
			t.Fatalf("%d columns of table %d, pglogrepl reads %d of %d", tuple.Len(), m.OID, w.Tuple.ColumnNum, w.RelationID)
		}
		var again change.Tuple
		if rest, err := again.Parse(m.New); err != nil || len(rest) > 0 || !bytes.Equal(change.AppendTuple(nil, &again), m.New) {
			t.Fatalf("the tuple does not survive: %v", err)
		}
	})
}

// FuzzDecode checks that no bytes make the decoder panic or read past them, and
// that what it takes reads the same to pglogrepl.
func FuzzDecode(f *testing.F) {
	for _, b := range samples() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Message
		if err := m.Decode(b); err != nil {
			if !errors.Is(err, ErrMessage) {
				t.Fatalf("an error of another class: %v", err)
			}
			return
		}
		compare(t, b, &m)
	})
}

func BenchmarkDecode(b *testing.B) {
	// A row of ten columns, some 200 bytes.
	var tuple change.Tuple
	for range 10 {
		tuple.Append(change.Text, []byte("sixteen bytes ok"))
	}
	row := change.AppendTuple(append(binary.BigEndian.AppendUint32([]byte{'I'}, 16384), 'N'), &tuple)
	var m Message
	b.SetBytes(int64(len(row)))
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Decode(row); err != nil {
			b.Fatal(err)
		}
	}
}
