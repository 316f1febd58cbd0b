package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

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
