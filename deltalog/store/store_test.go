package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

func openLocal(t *testing.T) store.Store {
	st, err := store.NewLocal(filepath.Join(t.TempDir(), "not", "yet"))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestContractOfLocal(t *testing.T) { storetest.Run(t, openLocal) }

// Memory file systems differ from disks in folders, links and flushes.
func TestContractOfLocalInMemory(t *testing.T) {
	const tmpfs = "/dev/shm"
	if info, err := os.Stat(tmpfs); err != nil || !info.IsDir() {
		t.Skip("there is no " + tmpfs)
	}
	storetest.Run(t, func(t *testing.T) store.Store {
		dir, err := os.MkdirTemp(tmpfs, "store-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		st, err := store.NewLocal(filepath.Join(dir, "not", "yet"))
		if err != nil {
			t.Fatal(err)
		}
		return st
	})
}

func TestContractOfMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.NewMemory() })
}

func TestContractOfFaultyWithoutFaults(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return &storetest.Faulty{Store: store.NewMemory()} })
}

func TestFaultAfterTheEffectLeavesTheObject(t *testing.T) {
	lost := errors.New("lost reply")
	st := &storetest.Faulty{Store: store.NewMemory(), After: func(op storetest.Op, _ string) error {
		if op == storetest.PutIfAbsent {
			return lost
		}
		return nil
	}}
	if err := st.PutIfAbsent(t.Context(), "x", []byte("1")); !errors.Is(err, lost) {
		t.Fatalf("got %v, want the injected fault", err)
	}
	if b, err := st.Get(t.Context(), "x"); err != nil || string(b) != "1" {
		t.Fatalf("got %q, %v", b, err)
	}
}

func TestOperationsAreCutInTheMiddle(t *testing.T) {
	cut := errors.New("cut")
	memory := store.NewMemory()
	for _, name := range []string{"a", "b", "c", "d"} {
		if err := memory.PutIfAbsent(t.Context(), name, []byte("12345678")); err != nil {
			t.Fatal(err)
		}
	}
	var seen []storetest.Op
	st := &storetest.Faulty{Store: memory, Cut: func(op storetest.Op, _ string) error {
		seen = append(seen, op)
		return cut
	}}
	if b, err := st.Get(t.Context(), "a"); b != nil || !errors.Is(err, cut) {
		t.Errorf("get: %q, %v", b, err)
	}
	names, end := "", error(nil)
	for info, err := range st.List(t.Context(), "", "") {
		names, end = names+info.Name, err
	}
	if names != "ab" || !errors.Is(end, cut) {
		t.Errorf("listed %q, %v", names, end)
	}
	r, _, err := st.OpenRange(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	b := make([]byte, 8)
	if n, err := r.ReadAt(b, 0); n != 4 || string(b[:4]) != "1234" || !errors.Is(err, cut) {
		t.Errorf("read %d bytes %q, %v", n, b, err)
	}
	w, err := st.Create(t.Context(), "e")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if n, err := w.Write(b); n != 4 || !errors.Is(err, cut) {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
	if want := []storetest.Op{storetest.Get, storetest.List, storetest.Read, storetest.Write}; !slices.Equal(seen, want) {
		t.Errorf("cut %v, want %v", seen, want)
	}
}

func TestContractOfFaultyThatIsNeverCut(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store {
		return &storetest.Faulty{Store: store.NewMemory(), Cut: func(storetest.Op, string) error { return nil }}
	})
}

func TestChaosFollowsItsSeed(t *testing.T) {
	run := func(seed uint64) (outcomes string) {
		chaos := &storetest.Chaos{Seed: seed, Fail: 0.2, Lose: 0.2, Cut: 0.2, Delay: time.Microsecond}
		memory := store.NewMemory()
		st := chaos.Over(memory)
		for i := range 200 {
			name := fmt.Sprint("x", i)
			err := st.PutIfAbsent(t.Context(), name, nil)
			_, there := memory.Get(t.Context(), name)
			_, got := st.Get(t.Context(), name)
			outcomes += fmt.Sprintln(err, there == nil, got)
		}
		before, after, amid := chaos.Faults()
		if before == 0 || after == 0 || amid == 0 || chaos.Ambiguous() != before+after {
			t.Fatalf("%d faults before, %d after, %d amid", before, after, amid)
		}
		return outcomes
	}
	if a, b := run(1), run(1); a != b {
		t.Error("one seed gave two sequences of faults")
	}
	if run(1) == run(2) {
		t.Error("two seeds gave one sequence of faults")
	}
}

func TestAStoreThatBreaksItsPromiseIsFoundOut(t *testing.T) {
	memory := store.NewMemory()
	if err := store.Probe(t.Context(), overwriting{memory}); !errors.Is(err, store.ErrUnconditional) {
		t.Errorf("got error %v", err)
	}
	lost := errors.New("lost")
	st := &storetest.Faulty{Store: memory, After: func(op storetest.Op, _ string) error {
		if op == storetest.PutIfAbsent {
			return lost
		}
		return nil
	}}
	if err := store.Probe(t.Context(), st); !errors.Is(err, lost) || errors.Is(err, store.ErrUnconditional) {
		t.Errorf("got error %v", err)
	}
	for info := range memory.List(t.Context(), "", "") {
		t.Errorf("the probe left %s", info.Name)
	}
}

// overwriting is a store whose conditional write is not.
type overwriting struct{ store.Store }

func (o overwriting) PutIfAbsent(ctx context.Context, name string, b []byte) error {
	return o.Put(ctx, name, b)
}

func TestLocalHidesWhatACrashLeftBehind(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".ABC.tmp"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	st, err := store.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	for info := range st.List(t.Context(), "", "") {
		t.Errorf("listed %s", info.Name)
	}
}

func TestLocalLeavesNoTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	st, err := store.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	_ = st.PutIfAbsent(t.Context(), "x", nil)
	_ = st.PutIfAbsent(t.Context(), "x", nil)
	_ = st.Put(t.Context(), "x", nil)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d entries in the folder, want 1 (%v)", len(entries), err)
	}
}

func TestOpenURI(t *testing.T) {
	for _, c := range []struct {
		uri, want string
		err       error
	}{
		{uri: "/var/lib/lake", want: "file:///var/lib/lake"},
		{uri: "file:///var/lib/lake/", want: "file:///var/lib/lake"},
		{uri: "file:///var/with%20space", want: "file:///var/with%20space"},
		{uri: "file://localhost/var", want: "file:///var"},
		{uri: "file://host/var", err: store.ErrUnsupported},
		{uri: "s3://bucket/prefix", err: store.ErrUnsupported},
		{uri: "", err: store.ErrUnsupported},
	} {
		st, err := store.OpenURI(c.uri)
		if !errors.Is(err, c.err) {
			t.Errorf("%q: got error %v, want %v", c.uri, err, c.err)
		}
		if err == nil && st.URI() != c.want {
			t.Errorf("%q: opened %s, want %s", c.uri, st.URI(), c.want)
		}
	}
}
