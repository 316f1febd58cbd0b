package lake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/batch"
	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

// kind is a way in which a source table can identify its rows.
type kind struct {
	name     string
	identity change.Identity
	key      []int
}

var kinds = []kind{
	{"key", change.IdentityKey, []int{0}},
	{"composite key", change.IdentityKey, []int{0, 1}},
	{"full with key", change.IdentityFull, []int{0}},
	{"multiset", change.IdentityFull, nil},
	{"no identity", change.IdentityNone, nil},
}

// table returns the shape of a source table with columns id, part, note and
// big, the last of which PostgreSQL may leave out of an update.
func (k kind) table(oid uint32, extra ...string) *change.Table {
	t := &change.Table{OID: oid, Schema: "public", Name: "orders", Identity: k.identity, Key: k.key}
	add := func(name string, typeOID uint32, typ string) {
		i := len(t.Columns)
		t.Columns = append(t.Columns, change.Column{
			Name: name, TypeOID: typeOID, TypeMod: -1, Attr: int16(i + 1),
			Identity: k.identity == change.IdentityFull || slices.Contains(k.key, i),
			Type:     change.Type{OID: typeOID, Name: typ, Kind: "b", Mod: -1},
		})
	}
	add("id", 20, "int8")
	add("part", 23, "int4")
	add("note", 25, "text")
	add("big", 25, "text")
	for _, name := range extra {
		add(name, 25, "text")
	}
	t.Fingerprint = t.ComputeFingerprint()
	return t
}

const null = "\x00null"

// row is a row of the source; all rows have equally many columns.
type row []string

func (r row) String() string { return strings.Join(r, "|") }

// source is a PostgreSQL in miniature: it commits transactions of one table and
// knows the rows at every LSN.
type source struct {
	kind   kind
	table  *change.Table
	lsn    change.LSN
	rows   []row
	txns   []txn
	states map[change.LSN][]row // rows after the transaction that committed there
}

// txn is one committed transaction.
type txn struct {
	lsn    change.LSN
	events []*change.Event
}

func newSource(k kind) *source {
	return &source{kind: k, table: k.table(16384), lsn: 100, states: map[change.LSN][]row{}}
}

// before returns the rows of all transactions that committed below an LSN.
func (s *source) before(lsn change.LSN) []row {
	var rows []row
	for _, t := range s.txns {
		if t.lsn < lsn {
			rows = s.states[t.lsn]
		}
	}
	return rows
}

// upTo returns the rows after the changes up to and including a position.
func (s *source) upTo(p change.Position) []row {
	if p.Ordinal == 0 {
		return s.before(p.CommitLSN)
	}
	return s.before(p.CommitLSN + 1)
}

func (s *source) key(r row) string {
	var parts []string
	for _, k := range s.kind.key {
		parts = append(parts, r[k])
	}
	return strings.Join(parts, "|")
}

func tuple(r row, unchanged ...int) change.Tuple {
	var t change.Tuple
	for i, v := range r {
		switch {
		case slices.Contains(unchanged, i):
			t.Append(change.Unchanged, nil)
		case v == null:
			t.Append(change.Null, nil)
		default:
			t.Append(change.Text, []byte(v))
		}
	}
	return t
}

// old returns the old row as the identity has PostgreSQL send it.
func (s *source) old(r row) change.Tuple {
	if s.kind.identity == change.IdentityFull {
		return tuple(r)
	}
	out := make(row, len(r))
	for i := range out {
		out[i] = null
		if slices.Contains(s.kind.key, i) {
			out[i] = r[i]
		}
	}
	return tuple(out)
}

// alter adds a column, whose value is NULL in the rows that are there.
func (s *source) alter() {
	var extra []string
	for i := 4; i <= len(s.table.Columns); i++ {
		extra = append(extra, fmt.Sprint("extra", i))
	}
	s.table = s.kind.table(s.table.OID, extra...)
	s.rows = s.pad(s.rows)
}

// pad gives rows the columns that were added since.
func (s *source) pad(rows []row) []row {
	out := make([]row, len(rows))
	for i, r := range rows {
		for out[i] = slices.Clone(r); len(out[i]) < len(s.table.Columns); {
			out[i] = append(out[i], null)
		}
	}
	return out
}

// commit makes one random transaction.
func (s *source) commit(t *rapid.T) {
	s.lsn += change.LSN(rapid.IntRange(1, 3).Draw(t, "wal"))
	if len(s.table.Columns) < 6 && rapid.IntRange(0, 9).Draw(t, "alter") == 0 {
		s.alter()
	}
	tx := txn{lsn: s.lsn}
	rows := slices.Clone(s.rows)
	for range rapid.IntRange(1, 4).Draw(t, "changes") {
		ev := &change.Event{
			Table: s.table, XID: uint32(len(s.txns) + 1), CommitMicros: 1_700_000_000_000_000 + int64(s.lsn),
			Position: change.Position{Epoch: 1, CommitLSN: s.lsn, Ordinal: uint64(len(tx.events) + 1)},
		}
		rows = s.change(t, ev, rows)
		if ev.Op != 0 {
			tx.events = append(tx.events, ev)
		}
	}
	if len(tx.events) == 0 {
		return
	}
	s.rows = rows
	s.states[s.lsn] = slices.Clone(rows)
	s.txns = append(s.txns, tx)
}

func (s *source) change(t *rapid.T, ev *change.Event, rows []row) []row {
	ops := []change.Op{change.Create, change.Create, change.Update, change.Update, change.Update, change.Delete, change.Delete, change.Truncate}
	if s.kind.identity == change.IdentityNone {
		ops = []change.Op{change.Create, change.Create, change.Create, change.Create, change.Truncate}
	}
	op := rapid.SampledFrom(ops).Draw(t, "op")
	if op == change.Truncate && rapid.IntRange(0, 3).Draw(t, "really") > 0 {
		op = change.Create
	}
	switch {
	case op == change.Truncate:
		ev.Op = op
		return nil
	case op == change.Create:
		r := s.fresh(t)
		if s.taken(rows, r, -1) {
			return rows
		}
		ev.Op, ev.New = op, tuple(r)
		return append(slices.Clone(rows), r)
	case len(rows) == 0:
		return rows
	}
	at := rapid.IntRange(0, len(rows)-1).Draw(t, "row")
	was := rows[at]
	if op == change.Delete {
		ev.Op, ev.Old = op, s.old(was)
		return slices.Delete(slices.Clone(rows), at, at+1)
	}
	now := s.fresh(t)
	if len(s.kind.key) > 0 && rapid.IntRange(0, 2).Draw(t, "key change") > 0 {
		for _, k := range s.kind.key {
			now[k] = was[k]
		}
	}
	if s.taken(rows, now, at) {
		return rows
	}
	var unchanged []int
	if rapid.Bool().Draw(t, "unchanged") {
		now[3] = was[3]
		if was[3] != null {
			unchanged = []int{3}
		}
	}
	ev.Op, ev.New = op, tuple(now, unchanged...)
	if s.kind.identity == change.IdentityFull || s.key(was) != s.key(now) {
		ev.Old = s.old(was)
	}
	out := slices.Clone(rows)
	out[at] = now
	return out
}

func (s *source) fresh(t *rapid.T) row {
	r := row{
		strconv.Itoa(rapid.IntRange(1, 6).Draw(t, "id")),
		strconv.Itoa(rapid.IntRange(1, 2).Draw(t, "part")),
		rapid.SampledFrom([]string{"a", "b", "", null}).Draw(t, "note"),
		rapid.SampledFrom([]string{"x", "y", null}).Draw(t, "big"),
	}
	for len(r) < len(s.table.Columns) {
		r = append(r, rapid.SampledFrom([]string{"p", "q", null}).Draw(t, "extra"))
	}
	return r
}

// taken tells whether another row has the key of r.
func (s *source) taken(rows []row, r row, self int) bool {
	if len(s.kind.key) == 0 {
		return false
	}
	for i := range rows {
		if i != self && s.key(rows[i]) == s.key(r) {
			return true
		}
	}
	return false
}

// historyLines is what history must hold of the transactions, one line a row.
func (s *source) historyLines(txns []txn) []string {
	var lines []string
	for _, t := range txns {
		for _, ev := range t.events {
			if ev.Op == change.Update && s.paired(ev) {
				lines = append(lines, fmt.Sprintf("%s d", ev.Position))
			}
			lines = append(lines, fmt.Sprintf("%s %c", ev.Position, ev.Op))
		}
	}
	return lines
}

// paired tells whether an update becomes two rows of history.
func (s *source) paired(ev *change.Event) bool {
	if len(s.kind.key) == 0 {
		return true
	}
	if ev.Old.Len() == 0 {
		return false
	}
	for _, k := range s.kind.key {
		if string(ev.Old.Values[k]) != string(ev.New.Values[k]) {
			return true
		}
	}
	return false
}

// worker is one process: a lake on the shared store with indexes of its own.
type worker struct {
	name   string
	memory *store.Memory
	dir    string
	faults *faults
	lake   *Lake
	mirror *Mirror
}

var (
	// errCrash ends a process at once.
	errCrash = errors.New("crash")
	// errFault is what one operation of the store comes to.
	errFault = errors.New("fault")
)

// faults crash the process at one operation of the store: nothing that it does
// afterwards has an effect.
type faults struct {
	mu     sync.Mutex
	after  int // operations until the crash; 0 means none
	late   bool
	passes bool // it is a fault that passes, and no crash
	dead   bool

	// meanwhile happens once, after so many writes.
	meanwhile func()
	writes    int
}

func (f *faults) set(after int, late, passes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after, f.late, f.passes, f.dead, f.meanwhile = after, late, passes, false, nil
}

// between returns what is to happen at this write, if anything.
func (f *faults) between() func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.meanwhile == nil || f.dead {
		return nil
	}
	if f.writes--; f.writes > 0 {
		return nil
	}
	m := f.meanwhile
	f.meanwhile = nil
	return m
}

func (f *faults) isDead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// hit panics in writes, which the process's own goroutine does, and fails in
// reads, which others may do.
func (f *faults) hit(op storetest.Op, late bool) error {
	reads := op == storetest.Get || op == storetest.OpenRange || op == storetest.List
	if !reads && !late {
		if m := f.between(); m != nil {
			m()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.dead && f.after > 0 && f.late == late {
		if f.after--; f.after == 0 && f.passes {
			return errFault
		}
		f.dead = f.after == 0
	}
	switch {
	case !f.dead:
		return nil
	case reads:
		return store.ErrNotExist // which nobody waits for to pass
	case op == storetest.Delete:
		return errCrash
	}
	panic(errCrash)
}

func (w *worker) start(ctx context.Context, table *change.Table) error {
	st := &storetest.Faulty{
		Store:  w.memory,
		Before: func(op storetest.Op, _ string) error { return w.faults.hit(op, false) },
		After:  func(op storetest.Op, _ string) error { return w.faults.hit(op, true) },
	}
	l, err := open(Config{Root: "memory", IndexDir: w.dir, Database: "shop", FileBytes: 1, CompactBytes: 20 << 10}, st)
	if err != nil {
		return err
	}
	l.readRows, l.loose = 2, 3
	w.lake = l
	w.mirror, err = l.Mirror(ctx, table, MirrorOptions{})
	return err
}

func (w *worker) stop() {
	if w.lake != nil {
		_ = w.lake.Close()
	}
	w.lake, w.mirror = nil, nil
}

// run does a step in the process, which may crash in it.
func (w *worker) run(step func() error) (crashed bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			if r != any(errCrash) && !w.faults.isDead() {
				panic(r)
			}
			crashed, err = true, nil
		}
	}()
	err = step()
	if w.faults.isDead() {
		return true, nil
	}
	return false, err
}

// world is a source, its lake and the workers between them.
type world struct {
	t           *rapid.T
	ctx         context.Context
	source      *source
	memory      *store.Memory
	workers     []*worker
	copyID      int
	copies      map[string]Copy
	scratch     string
	compactions int
	current     string // id of the copy that is under way or done
}

const chunks = 3

func newWorld(t *rapid.T, k kind, dir func() string) *world {
	w := &world{t: t, ctx: context.Background(), source: newSource(k), memory: store.NewMemory(), copies: map[string]Copy{}, scratch: dir()}
	for i := range 2 {
		w.workers = append(w.workers, &worker{
			name: fmt.Sprint("worker ", i), memory: w.memory, dir: dir(), faults: &faults{},
		})
	}
	return w
}

func (w *world) close() {
	for _, k := range w.workers {
		k.stop()
		_ = os.RemoveAll(k.dir)
	}
}

// do runs a step in a worker, starting it where it is down, with a crash
// somewhere in it or not.
func (w *world) do(k *worker, mayCrash bool, step func() error) {
	k.faults.set(0, false, false)
	if mayCrash && rapid.IntRange(0, 3).Draw(w.t, "crash") == 0 {
		k.faults.set(rapid.IntRange(1, 12).Draw(w.t, "at operation"), rapid.Bool().Draw(w.t, "after it"), rapid.IntRange(0, 2).Draw(w.t, "passes") == 0)
	}
	if mayCrash && rapid.IntRange(0, 3).Draw(w.t, "interleave") == 0 {
		other := w.workers[0]
		if other == k {
			other = w.workers[1]
		}
		k.faults.writes = rapid.IntRange(1, 5).Draw(w.t, "at write")
		k.faults.meanwhile = func() { w.act(other, false) }
	}
	crashed, err := k.run(func() error {
		if k.mirror == nil {
			if err := k.start(w.ctx, w.source.table); err != nil {
				return err
			}
		}
		return step()
	})
	if !crashed {
		k.faults.set(0, false, false)
	}
	if err != nil && k.mirror != nil && rapid.Bool().Draw(w.t, "go on") {
		if err := k.mirror.Refresh(w.ctx); err != nil {
			w.t.Fatalf("%s: refresh: %v", k.name, err)
		}
	} else if crashed || err != nil {
		k.stop()
		if crashed && rapid.IntRange(0, 3).Draw(w.t, "lose index") == 0 {
			_ = os.RemoveAll(k.dir)
		}
	}
	k.faults.set(0, false, false)
	if err != nil && !errors.Is(err, errFault) && !errors.Is(err, ErrFenced) && !errors.Is(err, ErrCopyGone) && !errors.Is(err, ErrCopyIncomplete) && !errors.Is(err, ErrNotCopied) {
		w.t.Fatalf("%s: %v", k.name, err)
	}
}

// stream commits some of the transactions after what history has.
func (w *world) stream(k *worker, most int) func() error {
	return func() error {
		m := k.mirror
		var b *batch.Batch
		// A restarted lane reads again what was applied.
		from, _ := slices.BinarySearchFunc(w.source.txns, m.Applied().CommitLSN, func(t txn, lsn change.LSN) int { return cmp.Compare(t.lsn, lsn) })
		from = max(from-rapid.IntRange(0, 2).Draw(w.t, "again"), 0)
		txns := w.source.txns[from:]
		txns = txns[:min(len(txns), most)]
		spills := rapid.IntRange(0, 2).Draw(w.t, "spills") == 0
		var upTo change.Position
		for _, t := range txns {
			for _, ev := range t.events {
				if b == nil || b.Layout().Table != ev.Table {
					var err error
					if b, err = w.reshape(m, b, ev); err != nil {
						return err
					}
				}
				if err := b.Append(ev); err != nil {
					return err
				}
				if spills && rapid.IntRange(0, 3).Draw(w.t, "spill") == 0 {
					if err := m.Stage(w.ctx, b); err != nil {
						return err
					}
					b.Reset()
				}
			}
			upTo = change.Position{Epoch: 1, CommitLSN: t.lsn, Ordinal: uint64(len(t.events))}
		}
		before := m.Applied()
		_, err := m.Commit(w.ctx, b, upTo)
		if err == nil && m.Applied().Before(before) {
			w.t.Fatalf("history went back from %s to %s", before, m.Applied())
		}
		if err == nil && before.Before(m.Applied()) && !k.faults.isDead() {
			w.checkInStep()
		}
		return err
	}
}

// reshape returns a batch for the shape of an event, with the rows of the shape
// before staged.
func (w *world) reshape(m *Mirror, b *batch.Batch, ev *change.Event) (*batch.Batch, error) {
	if b != nil {
		if err := m.Stage(w.ctx, b); err != nil {
			return nil, err
		}
	}
	if m.Applied().Before(ev.Position) {
		if err := m.Evolve(w.ctx, ev.Table); err != nil {
			return nil, err
		}
	}
	layout, err := m.Layout(ev.Table)
	if err != nil {
		return nil, err
	}
	return batch.New(layout), nil
}

func (w *world) beginCopy(k *worker) func() error {
	return func() error {
		w.copyID++
		c := Copy{ID: fmt.Sprint("copy", w.copyID), Table: w.source.table, Cut: w.source.lsn + 1, Epoch: 1, Chunks: chunks}
		w.source.lsn++
		w.copies[c.ID], w.current = c, c.ID
		_, err := k.mirror.BeginCopy(w.ctx, c)
		return err
	}
}

func (w *world) writeChunk(k *worker, id string, chunk int) func() error {
	return func() error {
		c := w.copies[id]
		n := int64(0)
		m, err := k.lake.Mirror(w.ctx, w.source.table, MirrorOptions{})
		if err != nil {
			return err
		}
		defer m.Close()
		got, _, err := m.WriteChunk(w.ctx, id, chunk, func(yield func(*change.Tuple) error) error {
			for i, r := range w.source.pad(w.source.before(c.Cut)) {
				if i%chunks == chunk {
					n++
					t := tuple(r)
					if err := yield(&t); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err == nil && n > 0 && got != n {
			w.t.Fatalf("chunk %d wrote %d rows of %d", chunk, got, n)
		}
		return err
	}
}

// step does something at random.
func (w *world) step() {
	k := rapid.SampledFrom(w.workers).Draw(w.t, "worker")
	switch rapid.IntRange(0, 7).Draw(w.t, "step") {
	case 0, 1:
		w.source.commit(w.t)
	case 2:
		k.stop()
	case 3:
		if len(w.copies) < 4 {
			w.wholeCopy(k)
		}
	case 4:
		// Changes are written as they come.
		for range rapid.IntRange(1, 3).Draw(w.t, "commits") {
			w.source.commit(w.t)
			w.do(k, true, w.stream(k, 2))
		}
		w.do(k, true, w.maintain(k))
	default:
		w.act(k, true)
	}
	w.checkLatest()
}

// act does one call of the lake.
func (w *world) act(k *worker, mayCrash bool) {
	ids := slices.Sorted(maps.Keys(w.copies))
	switch rapid.IntRange(0, 8).Draw(w.t, "act") {
	case 7, 8:
		w.do(k, mayCrash, w.maintain(k))
	case 0, 1:
		w.do(k, mayCrash, w.stream(k, rapid.IntRange(1, 4).Draw(w.t, "transactions")))
	case 2:
		if len(ids) < 3 {
			w.do(k, mayCrash, w.beginCopy(k))
		}
	case 3:
		if len(ids) > 0 {
			w.do(k, mayCrash, w.writeChunk(k, rapid.SampledFrom(ids).Draw(w.t, "copy"), rapid.IntRange(0, chunks-1).Draw(w.t, "chunk")))
		}
	case 4:
		if len(ids) > 0 {
			id := rapid.SampledFrom(ids).Draw(w.t, "copy")
			w.do(k, mayCrash, func() error { return k.mirror.FinishCopy(w.ctx, id) })
		}
	default:
		w.do(k, mayCrash, w.catchUp(k))
	}
}

// maintain compacts both tables, whether it is worth that or not.
func (w *world) maintain(k *worker) func() error {
	return func() error {
		done, err := k.mirror.Maintain(w.ctx)
		if latest := k.mirror.latest.Load(); err == nil && latest != nil {
			err = k.mirror.compactLatest(w.ctx, latest, &done)
		}
		w.compactions += done.Compactions
		return err
	}
}

func (w *world) catchUp(k *worker) func() error {
	return func() error {
		done, err := k.mirror.CatchUp(w.ctx, rapid.IntRange(1, 8).Draw(w.t, "rows"))
		if err == nil && done && !k.faults.isDead() {
			w.checkInStep()
		}
		return err
	}
}

// checkInStep makes sure that a live latest has all that history has.
func (w *world) checkInStep() {
	if w.source.kind.identity == change.IdentityNone {
		return
	}
	hv, err := newView(w.open("history"))
	if err != nil {
		w.t.Fatal(err)
	}
	lv, err := newView(w.open("latest"))
	if err != nil {
		w.t.Fatal(err)
	}
	if lv.follows(hv) && lv.position.Before(hv.position) {
		w.t.Fatalf("latest is live at %s, history at %s", lv.position, hv.position)
	}
}

// wholeCopy copies the table with whatever else happens between the steps left
// out, and crashes left in.
func (w *world) wholeCopy(k *worker) {
	w.do(k, true, w.beginCopy(k))
	id := w.current
	for i := range chunks {
		w.do(k, true, w.writeChunk(k, id, i))
	}
	w.do(k, true, func() error { return k.mirror.FinishCopy(w.ctx, id) })
	w.do(k, true, w.stream(k, 10))
	w.do(k, true, w.catchUp(k))
}

// open returns a snapshot of one of the lake's tables, or nil.
func (w *world) open(name string) *deltalog.Snapshot {
	st, err := w.memory.Sub("shop/public/orders/" + name)
	if err != nil {
		w.t.Fatal(err)
	}
	t, err := deltalog.Open(w.ctx, st)
	if errors.Is(err, deltalog.ErrNotTable) {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return t.Snapshot()
}

// checkLatest reads latest as a stranger would: whatever it says to hold, it
// holds.
func (w *world) checkLatest() {
	snap := w.open("latest")
	if snap == nil {
		return
	}
	v, err := newView(snap)
	if err != nil {
		w.t.Fatal(err)
	}
	if v.state.Incarnation == 0 {
		return
	}
	var columns []string
	for _, c := range w.source.table.Columns {
		if snap.Metadata().Schema.Field(c.Name) >= 0 {
			columns = append(columns, c.Name)
		}
	}
	missing := strings.Repeat("|"+null, len(w.source.table.Columns)-len(columns))
	var got []string
	for b, err := range snap.Read(w.ctx, deltalog.ReadOptions{Columns: columns}) {
		if err != nil {
			w.t.Fatal(err)
		}
		for i := range b.Rows() {
			got = append(got, readRow(b, i)+missing)
		}
	}
	var want []string
	for _, r := range w.source.pad(w.source.upTo(v.position)) {
		want = append(want, r.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Fatalf("latest at %s holds\n%q\nwant\n%q", v.position, got, want)
	}
}

// finish lets everything arrive and proves it.
func (w *world) finish() {
	k := w.workers[0]
	m := func() *Mirror { return k.mirror }
	if w.current == "" {
		w.do(k, false, w.beginCopy(k))
	}
	state := State{}
	w.do(k, false, func() error { state = m().State(); return m().Refresh(w.ctx) })
	w.do(k, false, func() error { state = m().State(); return nil })
	if state.Copy != "" {
		w.current = state.Copy
	} else { // the begin was lost in a crash
		w.do(k, false, w.beginCopy(k))
	}
	for i := range chunks {
		w.do(k, false, w.writeChunk(k, w.current, i))
	}
	w.do(k, false, func() error { return m().FinishCopy(w.ctx, w.current) })
	for range 3 {
		w.do(k, false, w.stream(k, len(w.source.txns)))
	}
	w.do(k, false, func() error {
		for {
			done, err := m().CatchUp(w.ctx, 7)
			if done || err != nil {
				return err
			}
		}
	})
	// Once live, every commit reaches latest.
	w.source.commit(w.t)
	w.do(k, false, w.stream(k, len(w.source.txns)))
	w.checkLatest()
	w.do(k, false, func() error {
		if err := m().Evolve(w.ctx, w.source.table); err != nil {
			return err
		}
		w.prove(m())
		return nil
	})
}

func (w *world) prove(m *Mirror) {
	t := w.t
	if got := m.State().Phase; got != Live {
		t.Fatalf("phase is %s", got)
	}
	if n := len(w.source.txns); n > 0 {
		if got, want := m.Applied().CommitLSN, w.source.txns[n-1].lsn; got != want {
			t.Fatalf("applied %s, want %s", got, want)
		}
	}
	want := w.source.historyLines(w.source.txns)
	if got := readHistory(t, w.ctx, w.open("history")); !slices.Equal(got, want) {
		t.Fatalf("history holds\n%q\nwant\n%q", got, want)
	}
	cut := w.copies[w.current].Cut
	lsn := change.LSN(rapid.Uint64Range(uint64(cut), uint64(w.source.lsn+1)).Draw(t, "as of"))
	w.compare(m, "history as of", change.Position{Epoch: 1, CommitLSN: lsn}, w.source.before(lsn))
	end := change.Position{Epoch: 1, CommitLSN: w.source.lsn + 10}
	w.compare(m, "history at the end", end, w.source.rows)
	if w.source.kind.identity == change.IdentityNone {
		return
	}
	latest, at, err := m.LatestRows(w.ctx, w.scratch)
	if err != nil {
		t.Fatal(err)
	}
	defer latest.Close()
	rebuilt, err := m.lake.Rebuild(w.ctx, m, After(at), w.scratch)
	if err != nil {
		t.Fatal(err)
	}
	defer rebuilt.Close()
	if d, err := Compare(w.ctx, rebuilt, latest, 10); err != nil || !d.Equal {
		t.Fatalf("latest differs from history at %s: %+v %v", at, d, err)
	}
}

// compare proves history as of a position equal to rows.
func (w *world) compare(m *Mirror, what string, asOf change.Position, rows []row) {
	t := w.t
	rebuilt, err := m.lake.Rebuild(w.ctx, m, asOf, w.scratch)
	if err != nil {
		t.Fatalf("%s %s: %v", what, asOf, err)
	}
	defer rebuilt.Close()
	source, err := m.lake.SourceRows(w.ctx, m, w.scratch, func(yield func(*change.Tuple) error) error {
		for _, r := range w.source.pad(rows) {
			tu := tuple(r)
			if err := yield(&tu); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if d, err := Compare(w.ctx, source, rebuilt, 10); err != nil || !d.Equal || source.Count() != int64(len(rows)) || source.Hash() != rebuilt.Hash() {
		t.Fatalf("%s %s differs: %+v %v", what, asOf, d, err)
	}
}

func TestEveryCrashAndInterleavingEndsEqual(t *testing.T) {
	root := memoryDir(t)
	n, compactions := 0, 0
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := newWorld(t, k, func() string { n++; return fmt.Sprintf("%s/%d", root, n) })
				defer w.close()
				for range rapid.IntRange(5, 30).Draw(t, "steps") {
					w.step()
				}
				w.finish()
				compactions += w.compactions
			})
		})
	}
	if compactions == 0 && !t.Failed() {
		t.Error("nothing was ever compacted")
	}
}

// memoryDir returns a folder in memory where there is one, so that nothing
// waits for the disk.
func memoryDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "millrace-lake-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestACommitDuringTheLastStepOfCatchingUpIsNotLeftBehind(t *testing.T) {
	for _, at := range []string{"file", "commit"} {
		t.Run(at, func(t *testing.T) {
			ctx, memory := context.Background(), store.NewMemory()
			b := &bench{t: t, ctx: ctx, table: keyed()}
			var meanwhile func()
			lakes := map[string]*Lake{}
			for _, name := range []string{"commit lane", "copy lane"} {
				l, err := open(Config{IndexDir: t.TempDir(), Database: "shop"}, &storetest.Faulty{
					Store: memory,
					Before: func(op storetest.Op, object string) error {
						file := strings.HasPrefix(object, "part-") && op == storetest.Create
						commit := strings.HasPrefix(object, "_delta_log/") && op == storetest.PutIfAbsent
						if do := meanwhile; do != nil && (at == "file" && file || at == "commit" && commit) {
							meanwhile = nil
							do()
						}
						return nil
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				lakes[name] = l
			}
			b.lake = lakes["commit lane"]
			lane := b.handle(b.table)
			b.mirror = lane
			b.beginCopy("one", 10)
			b.commit(20, "c 3|1|b|x")
			b.lake = lakes["copy lane"]
			b.mirror = b.handle(b.table)
			b.endCopy("one", "1|1|a|x")
			// The last commit before the table is live is the second of latest.
			if _, err := b.mirror.swapped(ctx); err != nil {
				t.Fatal(err)
			}
			meanwhile = func() {
				copying := b.mirror
				b.mirror = lane
				b.commit(30, "c 4|1|c|x")
				b.mirror = copying
			}
			b.catchUp()
			if meanwhile != nil {
				t.Fatal("nothing came between")
			}
			if got, want := b.mirror.LatestApplied(), (change.Position{Epoch: 1, CommitLSN: 30, Ordinal: 1}); got != want {
				t.Fatalf("latest is at %s, want %s", got, want)
			}
		})
	}
}

// swapped has latest hold the rows of the newest copy and nothing later.
func (m *Mirror) swapped(ctx context.Context) (*view, error) {
	m.applying.Lock()
	defer m.applying.Unlock()
	hv, err := m.history.refresh(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.openLatest(ctx, hv); err != nil {
		return nil, err
	}
	lv, err := m.latest.Load().refresh(ctx)
	if err != nil {
		return nil, err
	}
	return m.swap(ctx, m.latest.Load(), hv, lv)
}
