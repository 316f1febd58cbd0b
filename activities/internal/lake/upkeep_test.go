package lake

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

func (b *bench) maintain() Upkeep {
	b.t.Helper()
	done, err := b.mirror.Maintain(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	return done
}

// provenEqual compares latest with history.
func (b *bench) provenEqual() {
	b.t.Helper()
	latest, at, err := b.mirror.LatestRows(b.ctx, b.t.TempDir())
	if err != nil {
		b.t.Fatal(err)
	}
	defer latest.Close()
	rebuilt, err := b.lake.Rebuild(b.ctx, b.mirror, After(at), b.t.TempDir())
	if err != nil {
		b.t.Fatal(err)
	}
	defer rebuilt.Close()
	if d, err := Compare(b.ctx, rebuilt, latest, 10); err != nil || !d.Equal {
		b.t.Fatalf("latest differs from history at %s: %+v %v", at, d, err)
	}
}

// text is different for each seed, and hardly compresses.
func text(seed int) string {
	b := make([]byte, 1500)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return base64.RawStdEncoding.EncodeToString(b)
}

func TestSteadyLoadKeepsFilesFewAndEachRowIsRewrittenSomeTimesOnly(t *testing.T) {
	b := newBench(t, keyed())
	const target = 512 << 10
	b.open(Config{CompactBytes: target})
	b.copy("one", 10, "1|1|a|x")
	b.catchUp()
	written, rewritten := int64(0), int64(0)
	for i := range 600 {
		var changes []string
		for k := range 10 {
			changes = append(changes, fmt.Sprintf("c %d|1|%s|x", 100+10*i+k, text(10*i+k)))
		}
		if i%3 == 0 {
			changes = append(changes, fmt.Sprintf("u %d|1|%s|^", 100+5*i, text(i)))
		}
		written += b.commit(change.LSN(20+i), changes...).Bytes
		if !b.mirror.UpkeepDue() {
			continue
		}
		before := b.mirror.history.Snapshot()
		b.maintain()
		for f := range b.mirror.history.Snapshot().Files() {
			if !before.Has(f) {
				rewritten += f.Size
			}
		}
		for name, s := range map[string]*side{"history": &b.mirror.history, "latest": b.mirror.latest.Load()} {
			bytes := int64(0)
			for f := range s.Snapshot().Files() {
				bytes += f.Size
			}
			ideal := max(float64(bytes)/target, 1)
			if n := float64(s.Snapshot().NumFiles()); n > 2*ideal+looseFiles {
				t.Fatalf("after %d commits %s has %v files, %.1f are ideal", i, name, n, ideal)
			}
		}
	}
	for name, s := range map[string]*side{"history": &b.mirror.history, "latest": b.mirror.latest.Load()} {
		bytes := int64(0)
		for f := range s.Snapshot().Files() {
			bytes += f.Size
		}
		ideal := float64(bytes) / target
		t.Logf("%s: %d files of %d KiB after 600 commits, %.1f are ideal", name, s.Snapshot().NumFiles(), bytes>>10, ideal)
		if n := float64(s.Snapshot().NumFiles()); n > 2*ideal {
			t.Errorf("%s has %v files, %.1f are ideal", name, n, ideal)
		}
	}
	t.Logf("history: %d KiB written, %d KiB rewritten", written>>10, rewritten>>10)
	if rewritten > 6*written {
		t.Errorf("%d bytes were written, %d rewritten", written, rewritten)
	}
	b.provenEqual()
	b.reopen()
	b.provenEqual()
	for _, name := range []string{"history", "latest"} {
		b.sound(name)
	}
}

// sound has deltalog read a table back whole.
func (b *bench) sound(name string) {
	b.t.Helper()
	st, err := store.OpenURI(filepath.Join(b.root, "lake", "shop", "public", "orders", name))
	if err != nil {
		b.t.Fatal(err)
	}
	found, err := deltalog.Fsck(b.ctx, st, deltalog.FsckOptions{})
	if err != nil || len(found) != 0 {
		b.t.Errorf("%s: %v %v", name, found, err)
	}
}

func TestTheKeyIndexFollowsACompactionWithoutReadingRows(t *testing.T) {
	for _, k := range kinds[:4] {
		t.Run(k.name, func(t *testing.T) {
			var opened atomic.Int64
			st := &storetest.Faulty{Store: store.NewMemory(), Before: func(op storetest.Op, name string) error {
				if op == storetest.OpenRange && strings.HasSuffix(name, ".parquet") && !strings.Contains(name, "_delta_log") {
					opened.Add(1)
				}
				return nil
			}}
			l, err := open(Config{IndexDir: t.TempDir(), Database: "shop"}, st)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			b := &bench{t: t, ctx: t.Context(), table: k.table(16384), lake: l}
			b.mirror = b.handle(b.table)
			defer b.mirror.Close()
			b.copy("one", 10, "1|1|a|x")
			b.catchUp()
			for i := range 40 {
				b.commit(change.LSN(20+i), fmt.Sprintf("c %d|1|n|x", 100+i))
			}
			old := "100|1|n|x"
			if k.identity == change.IdentityKey {
				old = map[int]string{1: "100|~|~|~", 2: "100|1|~|~"}[len(k.key)]
			}
			done := b.maintain()
			if done.Compactions < 2 || done.Removed <= done.Added {
				t.Fatalf("both tables were to be compacted: %+v", done)
			}
			opened.Store(0)
			b.commit(100, "d "+old, "c 500|1|n|x")
			want := int64(0)
			if k.key == nil {
				want = 1 // for the row that may be the one to go
			}
			if n := opened.Load(); n != want {
				t.Errorf("%d data files were read", n)
			}
			b.provenEqual()
		})
	}
}

func TestWhatHistoryIsMadeOfIsFoundByTagsAfterCompactions(t *testing.T) {
	b := newBench(t, keyed())
	b.commit(5, "c 1|1|before the copy|x")
	b.copy("one", 10, "1|1|a|x", "2|1|b|x")
	b.catchUp()
	for i := range 30 {
		b.commit(change.LSN(20+i), fmt.Sprintf("u 1|1|%d|^", i))
	}
	b.beginCopy("two", 60)
	b.commit(61, "u 2|1|later|^")
	b.maintain() // beside a copy
	b.endCopy("two", "1|1|29|x", "2|1|b|x")
	b.maintain() // before its rows are in latest
	b.catchUp()
	b.wantLatest("1|1|29|x", "2|1|later|x")
	b.maintain()
	tagged := 0
	for f := range b.snapshot("history").Files() {
		if _, copied := f.Tags[chunkTag]; copied || f.Tags[firstTag] != "" && f.Tags[lastTag] != "" {
			tagged++
		}
	}
	if n := b.snapshot("history").NumFiles(); tagged != n || n > 20 {
		t.Errorf("%d of %d files have tags", tagged, n)
	}
	b.provenEqual()
	rebuilt, err := b.lake.Rebuild(b.ctx, b.mirror, change.Position{Epoch: 1, CommitLSN: 40}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer rebuilt.Close()
	if rebuilt.Count() != 2 {
		t.Errorf("%d rows as of the first copy", rebuilt.Count())
	}
}

func TestTheStreamIsNotHeldUpByMaintenance(t *testing.T) {
	held, release := make(chan struct{}), make(chan struct{})
	var armed, once atomic.Bool
	st := &storetest.Faulty{Store: store.NewMemory(), Before: func(op storetest.Op, name string) error {
		if op == storetest.Commit && armed.Load() && once.CompareAndSwap(false, true) {
			close(held)
			<-release
		}
		return nil
	}}
	l, err := open(Config{IndexDir: t.TempDir(), Database: "shop"}, st)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := &bench{t: t, ctx: t.Context(), table: keyed(), lake: l}
	b.mirror = b.handle(b.table)
	defer b.mirror.Close()
	b.copy("one", 10, "1|1|a|x")
	b.catchUp()
	for i := range 40 {
		b.commit(change.LSN(20+i), fmt.Sprintf("c %d|1|n|x", 100+i))
	}
	armed.Store(true)
	ended := make(chan error, 1)
	go func() {
		_, err := b.mirror.Maintain(t.Context())
		ended <- err
	}()
	<-held
	// While the merged file is on its way, changes go on.
	for i := range 20 {
		b.commit(change.LSN(100+i), fmt.Sprintf("d %d|~|~|~", 100+i), fmt.Sprintf("u %d|1|later|^", 120+i))
	}
	close(release)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	b.commit(200, "u 125|1|last|^")
	b.provenEqual()
}

func TestFilesThatNothingNeedsAreDeletedInTime(t *testing.T) {
	b := newBench(t, keyed())
	b.copy("one", 10, "1|1|a|x")
	b.catchUp()
	for i := range 40 {
		b.commit(change.LSN(20+i), fmt.Sprintf("u 1|1|%d|^", i))
	}
	b.lake.spread = 1
	dir := filepath.Join(b.root, "lake", "shop", "public", "orders")
	stray := func(side, name string, age time.Duration) string {
		path := filepath.Join(dir, side, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old := []string{stray("history", "part-old.parquet", 8*24*time.Hour), stray("latest", "part-old.parquet", 8*24*time.Hour)}
	young := []string{stray("history", "part-young.parquet", 6*24*time.Hour), stray("latest", "part-young.parquet", time.Hour)}
	gone := func(path string) bool {
		_, err := os.Stat(path)
		return errors.Is(err, fs.ErrNotExist)
	}
	done := b.maintain()
	if done.Vacuumed != 2 || !gone(old[0]) || !gone(old[1]) || gone(young[0]) || gone(young[1]) {
		t.Fatalf("deleted more or less than what was never committed and is old: %+v", done)
	}
	if b.mirror.UpkeepDue() {
		t.Error("due again at once")
	}
	// The tables' own retention rules what was removed, not what is on its way.
	for _, s := range []*side{&b.mirror.history, b.mirror.latest.Load()} {
		if _, err := s.SetProperties(b.ctx, map[string]string{deltalog.PropertyDeletedFileRetention: "interval 1 millisecond"}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(10 * time.Millisecond) // longer than that
	clear(b.lake.sweeps)
	done = b.maintain()
	if done.Vacuumed < 40 || gone(young[0]) || gone(young[1]) {
		t.Fatalf("deleted %+v", done)
	}
	b.provenEqual()
	for _, path := range young {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	b.sound("history")
	b.sound("latest")
	// While a copy is under way nothing is deleted: latest takes files that were
	// written before.
	clear(b.lake.sweeps)
	b.beginCopy("two", 100)
	if b.mirror.UpkeepDue() {
		t.Error("due beside a copy")
	}
	b.endCopy("two", "1|1|39|x")
	b.catchUp()
	if !b.mirror.UpkeepDue() {
		t.Error("not due after the copy")
	}
	b.maintain()
	b.wantLatest("1|1|39|x")
}

func TestSweepsOfAWorkersTablesDoNotBeginAtOnce(t *testing.T) {
	l, err := open(Config{IndexDir: t.TempDir(), Database: "shop"}, store.NewMemory())
	if err != nil {
		t.Fatal(err)
	}
	early := 0
	for i := range 1000 {
		at := l.nextSweep(fmt.Sprintf("public/t%d", i))
		if at.Before(l.opened) || at.After(l.opened.Add(sweepSpread)) {
			t.Fatalf("table %d is swept at %s, opened %s", i, at, l.opened)
		}
		if at.Before(l.opened.Add(sweepSpread / 2)) {
			early++
		}
	}
	if early < 400 || early > 600 {
		t.Errorf("%d of 1000 in the first half", early)
	}
}
