package topic

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deploy/local"
)

// brokers returns the shared broker, or those that TOPIC_TEST_BROKERS names:
// any cluster on loopback will do.
func brokers(t testing.TB) []string {
	t.Helper()
	if b := os.Getenv("TOPIC_TEST_BROKERS"); b != "" {
		return strings.Split(b, ",")
	}
	return local.SharedKafka(t).Brokers
}

// openClient connects to the shared broker.
func openClient(t testing.TB) *Client {
	t.Helper()
	c, err := Open(Config{Brokers: brokers(t), AllowInsecure: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func ensure(t testing.TB, c *Client, partitions int) string {
	t.Helper()
	name := "millrace." + strings.ToLower(strings.NewReplacer("/", "-", "=", "-").Replace(t.Name())) + fmt.Sprint(time.Now().UnixNano())
	err := c.Ensure(t.Context(), Topic{Name: name, Partitions: partitions, Replication: 1, MinISR: 1, Retention: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// tableOf is a table of two text columns.
func tableOf(oid uint32) *change.Table {
	col := func(name string, identity bool) change.Column {
		return change.Column{Name: name, TypeOID: 25, TypeMod: -1, Identity: identity, Type: change.Type{OID: 25, Name: "text", Kind: "b", Mod: -1}}
	}
	t := &change.Table{OID: oid, Schema: "public", Name: fmt.Sprintf("t%d", oid), Identity: change.IdentityKey, Columns: []change.Column{col("id", true), col("v", false)}, Key: []int{0}}
	t.Fingerprint = t.ComputeFingerprint()
	return t
}

func row(values ...string) []byte {
	var t change.Tuple
	for _, v := range values {
		t.Append(change.Text, []byte(v))
	}
	return change.AppendTuple(nil, &t)
}

func openPublisher(t testing.TB, c *Client, cfg PublisherConfig) *Publisher {
	t.Helper()
	p, err := c.Publisher(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func closePublisher(t testing.TB, p *Publisher) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// follower reads a topic as a commit lane does, and keeps what it applies.
type follower struct {
	t        testing.TB
	r        *Reader
	schemas  *Schemas
	trackers map[int]*Tracker
	rows     map[uint32][]string
	taken    map[uint32]change.Position
	reached  map[string]int
}

func follow(t testing.TB, c *Client, topic string) *follower {
	t.Helper()
	f := &follower{t: t, trackers: map[int]*Tracker{}, rows: map[uint32][]string{}, taken: map[uint32]change.Position{}, reached: map[string]int{}}
	var err error
	if f.schemas, err = c.LoadSchemas(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	if f.r, err = c.Reader(t.Context(), ReaderConfig{Topic: topic}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.r.Close() })
	for i := range f.r.Partitions() {
		f.trackers[i] = NewTracker(i, Resume{})
	}
	return f
}

// until reads until done.
func (f *follower) until(done func() bool) {
	f.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			f.t.Fatalf("it did not come: %+v %+v", f.r.Ends(), f.r.Stats())
		}
		recs, err := f.r.Next(f.t.Context(), 100*time.Millisecond)
		if err != nil {
			f.t.Fatal(err)
		}
		for i := range recs {
			f.add(&recs[i])
		}
	}
}

func (f *follower) add(r *Record) {
	f.t.Helper()
	tr := f.trackers[r.Partition]
	switch r.Kind {
	case KindStream:
		if err := tr.OnStream(r); err != nil {
			f.t.Fatal(err)
		}
	case KindMarker:
		tr.OnMarker(r)
	case KindData:
		v, after := tr.Admit(r)
		if v == Ask {
			tr.Track(r.Data.OID, f.taken[r.Data.OID])
			v, after = tr.Admit(r)
		}
		if v != Take {
			return
		}
		table, err := f.schemas.Table(f.t.Context(), r.Data.OID, r.Data.Fingerprint)
		if err != nil {
			f.t.Fatal(err)
		}
		var c Cursor
		var ev change.Event
		c.Reset(&r.Data, table, after)
		for c.Next(&ev) {
			s := string(ev.Op)
			if ev.New.Len() > 1 {
				s += string(ev.New.Values[1])
			}
			f.rows[r.Data.OID] = append(f.rows[r.Data.OID], s)
			f.taken[r.Data.OID] = ev.Position
		}
		if err := c.Err(); err != nil {
			f.t.Fatal(err)
		}
	case KindWatermark:
		out, err := tr.OnWatermark(r)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, oid := range out.Ask {
			tr.Track(oid, f.taken[oid])
		}
		if len(out.Ask) > 0 {
			if out, err = tr.OnWatermark(r); err != nil {
				f.t.Fatal(err)
			}
		}
		if len(out.Gaps) > 0 {
			f.t.Fatal(out.Gaps[0])
		}
		for oid := range f.taken {
			if p, known := f.schemas.Partition(oid); known && p == r.Partition {
				if upTo, _ := tr.Complete(oid); !upTo.IsZero() {
					tr.Applied(oid, upTo)
				}
			}
		}
	}
	for _, m := range tr.Reached() {
		f.reached[m.Token]++
	}
}

func TestWhatIsPublishedIsRead(t *testing.T) {
	for _, compression := range []string{"none", "lz4"} {
		t.Run(compression, func(t *testing.T) {
			c := openClient(t)
			name := ensure(t, c, 3)
			p := openPublisher(t, c, PublisherConfig{Topic: name, Epoch: 1, Compression: compression})
			const tables = 5
			for oid := uint32(1); oid <= tables; oid++ {
				if _, err := p.Schema(t.Context(), tableOf(oid)); err != nil {
					t.Fatal(err)
				}
			}
			want := map[uint32][]string{}
			lsn := change.LSN(100)
			for tx := range 300 {
				lsn += 10
				must(t, p.Begin(lsn, int64(tx), uint32(tx)))
				for oid := uint32(1); oid <= tables; oid++ {
					v := fmt.Sprintf("%d-%d", tx, oid)
					must(t, p.Change(oid, tableOf(oid).Fingerprint, change.Create, nil, row("k", v)))
					want[oid] = append(want[oid], "c"+v)
				}
				if tx%100 == 50 {
					must(t, p.Truncate(1, 2))
					want[1] = append(want[1], "t")
					want[2] = append(want[2], "t")
				}
				if tx == 299 {
					must(t, p.Marker("end"))
				}
				must(t, p.Commit(lsn+5))
			}
			must(t, p.Flush(t.Context()))
			if p.Durable() != lsn+5 {
				t.Fatalf("durable is %s, want %s", p.Durable(), lsn+5)
			}
			must(t, p.Advance(lsn+100))
			must(t, p.Flush(t.Context()))
			if p.Durable() != lsn+100 {
				t.Fatalf("durable is %s, want %s", p.Durable(), lsn+100)
			}
			closePublisher(t, p)
			f := follow(t, c, name)
			f.until(func() bool { return f.reached["end"] == 3 })
			for oid, w := range want {
				if fmt.Sprint(f.rows[oid]) != fmt.Sprint(w) {
					t.Errorf("table %d: read %d changes, published %d", oid, len(f.rows[oid]), len(w))
				}
			}
			t.Logf("%+v", p.Stats())
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRestartedPublisherRepeatsNothing(t *testing.T) {
	c := openClient(t)
	name := ensure(t, c, 2)
	fp := tableOf(1).Fingerprint
	publish := func(p *Publisher, from, to int, commitLast bool) {
		if _, err := p.Schema(t.Context(), tableOf(1)); err != nil {
			t.Fatal(err)
		}
		for tx := from; tx <= to; tx++ {
			lsn := change.LSN(tx * 100)
			must(t, p.Begin(lsn, 0, uint32(tx)))
			for i := range 10 {
				must(t, p.Change(1, fp, change.Create, nil, row("k", fmt.Sprintf("%d.%d", tx, i))))
			}
			if tx < to || commitLast {
				must(t, p.Commit(lsn+50))
			}
		}
	}
	p := openPublisher(t, c, PublisherConfig{Topic: name, Epoch: 1})
	if p.Durable() != 0 {
		t.Fatalf("durable is %s in a topic without data", p.Durable())
	}
	publish(p, 1, 5, false)
	closePublisher(t, p)
	p = openPublisher(t, c, PublisherConfig{Topic: name, Epoch: 1})
	if p.Durable() != 450 {
		t.Fatalf("durable is %s, want %s", p.Durable(), change.LSN(450))
	}
	publish(p, 3, 9, true)
	closePublisher(t, p)
	if s := p.Stats(); s.Skipped < 20 {
		t.Fatalf("skipped %d", s.Skipped)
	}
	var want []string
	for tx := 1; tx <= 9; tx++ {
		for i := range 10 {
			want = append(want, fmt.Sprintf("c%d.%d", tx, i))
		}
	}
	f := follow(t, c, name)
	f.until(func() bool { return len(f.rows[1]) >= len(want) })
	if fmt.Sprint(f.rows[1]) != fmt.Sprint(want) {
		t.Fatalf("read %v", f.rows[1])
	}

	closePublisher(t, openPublisher(t, c, PublisherConfig{Topic: name, Epoch: 2}))
	if _, err := c.Publisher(t.Context(), PublisherConfig{Topic: name, Epoch: 1}); !errors.Is(err, ErrFenced) {
		t.Fatalf("a publisher of an ended epoch: %v", err)
	}
}
