package topic

import (
	"errors"
	"testing"

	"github.com/millrace-io/millrace/activities/change"
)

func TestLaterPublisherReadsFromTheOpenTransaction(t *testing.T) {
	o := newOrigin(&seeds{from: []int64{-1, 3}, until: 50}, []int64{5, 6})
	check := func(what string, partition int, lsn change.LSN, ahead bool, want int64) {
		t.Helper()
		if at := o.from(partition, 100, lsn, ahead); at != want {
			t.Errorf("%s: partition %d is read from offset %d, want %d", what, partition, at, want)
		}
	}
	check("an older publisher may be ahead", 0, 60, false, 5)
	check("an older publisher may be ahead, and left changes", 1, 60, false, 3)
	check("what was left is not covered yet", 0, 49, true, 5)
	check("nothing is open", 0, 60, true, 100)
	o.delivered(true, []int64{10, 12})
	o.delivered(true, []int64{20, 22})
	check("a transaction is open", 0, 60, true, 10)
	check("a transaction is open", 1, 60, true, 12)
	o.delivered(false, []int64{30, 32})
	check("the transaction ended", 1, 60, true, 100)
}

func TestRoundIsTornByAnOpenTransaction(t *testing.T) {
	a := newAssembler(1, 1, 1<<10, 1<<20)
	table := tableOf(1)
	a.schema(1, table.Fingerprint, 0)
	add := func() {
		t.Helper()
		must(t, a.change(1, table.Fingerprint, change.Create, nil, row("1", "a")))
	}
	must(t, a.begin(10, 0, 1))
	add()
	must(t, a.commit(15))
	if r := a.take(newRound(1)); r.torn {
		t.Error("torn between transactions")
	}
	w := a.watermark(false)
	if w == nil || w.LSN != 10 {
		t.Fatalf("the watermark is %+v", w)
	}
	must(t, a.begin(20, 0, 2))
	add()
	if r := a.take(newRound(1)); !r.torn {
		t.Error("not torn within a transaction")
	}
	if w := a.watermark(false); w != nil {
		t.Errorf("the watermark is %+v within a transaction", w)
	}
}

func TestWALThatDiffersIsNoticed(t *testing.T) {
	a := newAssembler(1, 1, 1<<10, 1<<20)
	table := tableOf(1)
	a.seed(&seeds{lsn: 10, end: 15, tables: map[uint32]seedTable{
		1: {last: change.Position{Epoch: 1, CommitLSN: 20, Ordinal: 3}},
	}})
	a.schema(1, table.Fingerprint, 0)
	must(t, a.begin(20, 0, 2))
	must(t, a.change(1, table.Fingerprint, change.Create, nil, row("1", "a")))
	if err := a.commit(25); !errors.Is(err, ErrDiverged) {
		t.Errorf("one change where the topic has three: %v", err)
	}
}

func TestChangesOfUnknownTablesAreRefused(t *testing.T) {
	a := newAssembler(1, 1, 1<<10, 1<<20)
	if err := a.change(1, 0, change.Create, nil, row("1", "a")); err == nil {
		t.Error("a change outside of a transaction")
	}
	must(t, a.begin(10, 0, 1))
	if err := a.change(1, 0, change.Create, nil, row("1", "a")); err == nil {
		t.Error("a change of a table that is not registered")
	}
	a.schema(1, 5, 0)
	if err := a.change(1, 6, change.Create, nil, row("1", "a")); err == nil {
		t.Error("a change of a shape that is not registered")
	}
	if err := a.truncate([]uint32{2}); err == nil {
		t.Error("a truncate of a table that is not registered")
	}
}
