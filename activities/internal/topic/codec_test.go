package topic

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/activities/change"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files")

// samples are one record of each kind.
func samples() map[string][]byte {
	var o openRecord
	o.begin(2, 16384, 0x0123456789abcdef, change.Position{Epoch: 2, CommitLSN: 0x10, Ordinal: 7})
	o.change(0x10, 1000, 77, 8, change.Create, nil, row("1", "a"))
	o.change(0x10, 1000, 77, 9, change.Update, row("1", "a"), row("2", "b"))
	o.change(0x20, 2000, 78, 1, change.Delete, row("2", "b"), nil)
	o.change(0x20, 2000, 78, 2, change.Truncate, nil, nil)
	stream := StreamID{1, 2, 3}
	return map[string][]byte{
		"data": bytes.Clone(o.seal()),
		"watermark": appendWatermark(nil, stream, &Watermark{
			Epoch: 2, LSN: 0x20, EndLSN: 0x28, Micros: 2000, Full: true,
			Tables: []TableMark{{16384, change.Position{Epoch: 2, CommitLSN: 0x20, Ordinal: 2}}},
		}),
		"marker": appendMarker(nil, &Marker{Token: "token", Position: change.Position{Epoch: 2, CommitLSN: 0x20}}),
		"stream": appendStream(nil, stream),
	}
}

// The bytes of records are kept in topics for days: a change to the format
// needs another version.
func TestFormatIsStable(t *testing.T) {
	for kind, b := range samples() {
		name := filepath.Join("testdata", kind+".hex")
		got := hex.Dump(b)
		if *update {
			must(t, os.WriteFile(name, []byte(got), 0o644))
		}
		want, err := os.ReadFile(name)
		must(t, err)
		if got != string(want) {
			t.Errorf("%s is\n%swant\n%s", kind, got, want)
		}
	}
}

func describe(t testing.TB, r *Record, table *change.Table, after change.Position) []string {
	t.Helper()
	var c Cursor
	var ev change.Event
	var all []string
	c.Reset(&r.Data, table, after)
	for c.Next(&ev) {
		all = append(all, fmt.Sprintf("%s %c %d %d %q %q", ev.Position, ev.Op, ev.XID, ev.CommitMicros, ev.Old.Values, ev.New.Values))
	}
	must(t, c.Err())
	return all
}

func TestDataRecordReadsBack(t *testing.T) {
	var r Record
	must(t, r.parse(samples()["data"]))
	table := tableOf(16384)
	table.Fingerprint = 0x0123456789abcdef
	want := []string{
		`e2 0/10 #8 c 77 1000 [] ["1" "a"]`,
		`e2 0/10 #9 u 77 1000 ["1" "a"] ["2" "b"]`,
		`e2 0/20 #1 d 78 2000 ["2" "b"] []`,
		`e2 0/20 #2 t 78 2000 [] []`,
	}
	pos := []change.Position{{}, {Epoch: 2, CommitLSN: 0x10, Ordinal: 8}, {Epoch: 2, CommitLSN: 0x10, Ordinal: 9}, {Epoch: 2, CommitLSN: 0x20, Ordinal: 1}, {Epoch: 2, CommitLSN: 0x20, Ordinal: 2}}
	for n, after := range pos {
		if got := describe(t, &r, table, after); fmt.Sprint(got) != fmt.Sprint(want[n:]) {
			t.Errorf("after %s:\n%s\nwant\n%s", after, strings.Join(got, "\n"), strings.Join(want[n:], "\n"))
		}
	}
	d := &r.Data
	if d.First != (change.Position{Epoch: 2, CommitLSN: 0x10, Ordinal: 8}) || d.Last != (change.Position{Epoch: 2, CommitLSN: 0x20, Ordinal: 2}) || d.Pred != (change.Position{Epoch: 2, CommitLSN: 0x10, Ordinal: 7}) {
		t.Errorf("positions are %s, %s and %s", d.Pred, d.First, d.Last)
	}
}

func TestCursorRefusesAnotherShape(t *testing.T) {
	var r Record
	must(t, r.parse(samples()["data"]))
	var c Cursor
	var ev change.Event
	c.Reset(&r.Data, tableOf(16384), change.Position{})
	if c.Next(&ev) || !errors.Is(c.Err(), ErrRecord) {
		t.Errorf("read with another fingerprint: %v", c.Err())
	}
}

func TestOtherRecordsReadBack(t *testing.T) {
	var r Record
	must(t, r.parse(samples()["watermark"]))
	w := r.Watermark
	if w.Epoch != 2 || w.LSN != 0x20 || w.EndLSN != 0x28 || w.Micros != 2000 || !w.Full || len(w.Tables) != 1 || w.Tables[0].Last.Ordinal != 2 || r.Stream[2] != 3 {
		t.Errorf("the watermark is %+v of %s", w, r.Stream)
	}
	must(t, r.parse(samples()["marker"]))
	if r.Marker.Token != "token" || r.Marker.Position.CommitLSN != 0x20 {
		t.Errorf("the marker is %+v", r.Marker)
	}
	must(t, r.parse(samples()["stream"]))
	if r.Stream != (StreamID{1, 2, 3}) {
		t.Errorf("the stream is %s", r.Stream)
	}
}

func TestParseRefusesWhatItDoesNotKnow(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"empty":         func([]byte) []byte { return nil },
		"magic":         func(b []byte) []byte { b[0]++; return b },
		"later version": func(b []byte) []byte { b[1]++; return b },
		"kind":          func(b []byte) []byte { b[2] = '?'; return b },
		"cut":           func(b []byte) []byte { return b[:len(b)-1] },
		"last":          func(b []byte) []byte { b[dataLastAt+15]++; return b },
		"predecessor":   func(b []byte) []byte { b[20] = 0xff; return b },
		"count":         func(b []byte) []byte { b[dataSize+28] = 0xff; return b },
	} {
		var r Record
		if err := r.parse(change(samples()["data"])); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, b := range samples() {
		f.Add(b)
	}
	table := tableOf(16384)
	table.Fingerprint = 0x0123456789abcdef
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if err := r.parse(b); err != nil {
			if !errors.Is(err, ErrRecord) {
				t.Fatalf("not an ErrRecord: %v", err)
			}
			return
		}
		if r.Kind != KindData {
			return
		}
		at := r.Data.Pred
		shape := *table
		shape.OID, shape.Fingerprint = r.Data.OID, r.Data.Fingerprint
		var c Cursor
		var ev change.Event
		c.Reset(&r.Data, &shape, change.Position{})
		for c.Next(&ev) {
			if !at.Before(ev.Position) {
				t.Fatalf("%s follows %s", ev.Position, at)
			}
			at = ev.Position
		}
		if c.Err() == nil && at != r.Data.Last {
			t.Fatalf("ends at %s, claims %s", at, r.Data.Last)
		}
	})
}

func TestReadingAChangeDoesNotAllocate(t *testing.T) {
	var o openRecord
	o.begin(1, 1, tableOf(1).Fingerprint, change.Position{Epoch: 1})
	for i := range uint64(100) {
		o.change(0x10, 0, 1, i+1, change.Create, nil, row("1", "a"))
	}
	b := o.seal()
	var r Record
	var c Cursor
	var ev change.Event
	table := tableOf(1)
	n := testing.AllocsPerRun(100, func() {
		must(t, r.parse(b))
		c.Reset(&r.Data, table, change.Position{})
		for c.Next(&ev) {
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a record", n)
	}
}

func TestAddingAChangeDoesNotAllocate(t *testing.T) {
	a := newAssembler(1, 1, 1<<10, 1<<20)
	table := tableOf(1)
	a.schema(1, table.Fingerprint, 0)
	r := row("1", "a")
	spare := newRound(1)
	lsn := change.LSN(0)
	n := testing.AllocsPerRun(100, func() {
		for range 100 {
			lsn += 10
			must(t, a.begin(lsn, 0, 1))
			must(t, a.change(1, table.Fingerprint, change.Create, nil, r))
			must(t, a.commit(lsn+5))
		}
		taken := a.take(spare)
		taken.reset()
		spare = taken
	})
	if n > 1 {
		t.Errorf("%v allocations for 100 transactions", n)
	}
}

func TestMarkerComesAfterTheChangesBeforeIt(t *testing.T) {
	a := newAssembler(1, 3, 1<<10, 1<<20)
	for oid := uint32(1); oid <= 9; oid++ {
		a.schema(oid, tableOf(oid).Fingerprint, assign(oid, 3))
	}
	for tx := range change.LSN(3) {
		must(t, a.begin(tx+1, 0, 1))
		if tx == 1 {
			must(t, a.marker("token"))
		}
		for oid := uint32(1); oid <= 9; oid++ {
			must(t, a.change(oid, tableOf(oid).Fingerprint, change.Create, nil, row("1", "a")))
		}
		must(t, a.commit(tx+1))
	}
	r := a.take(newRound(3))
	for p := range r.parts {
		marked := false
		for i := range r.parts[p].ends {
			var rec Record
			must(t, rec.parse(r.parts[p].record(i)))
			if rec.Kind == KindMarker {
				marked = true
			} else if marked != (rec.Data.First.CommitLSN > 2) {
				t.Errorf("partition %d: changes from %s, marker before it: %t", p, rec.Data.First, marked)
			}
		}
		if !marked {
			t.Errorf("partition %d has no marker", p)
		}
	}
}

// Batches are held against kafka-go's own reader in the tests with a broker;
// this one checks what it does not look at.
func TestBatchSizeIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w batchWriter
		w.reset()
		for _, v := range rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 1, 300).Draw(t, "values") {
			before := w.size()
			w.add(nil, v)
			if grown := w.size() - before; grown > len(v)+recordFraming {
				t.Fatalf("a record of %d bytes took %d", len(v), grown)
			}
		}
	})
}
