package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace-io/millrace/deltalog/store"
)

// oneSentence checks that an error is one line that holds the words.
func oneSentence(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range append(words, ": ") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in the error: %v", w, err)
		}
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), ".tmp") {
		t.Errorf("it is not one sentence about the object: %v", err)
	}
}

// isEmpty checks that a folder has no files, hidden ones included.
func isEmpty(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("%s is there", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// asNobody runs f as a user whom modes hold back.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	runtime.LockOSThread() // this thread becomes another user's
	defer runtime.UnlockOSThread()
	if err := syscall.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	f()
	if err := syscall.Setfsuid(0); err != nil {
		t.Fatal(err)
	}
}

func TestAFullDiskLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("needs to mount a small file system, which root may: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	st, err := store.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 2<<20)
	for name, put := range map[string]func() error{
		"put if absent": func() error { return st.PutIfAbsent(t.Context(), "d/x", big) },
		"put":           func() error { return st.Put(t.Context(), "d/x", big) },
		"create": func() error {
			w, err := st.Create(t.Context(), "d/x")
			if err != nil {
				return err
			}
			defer w.Abort()
			for range 20 {
				if _, err := w.Write(big[:100<<10]); err != nil {
					return err
				}
			}
			return w.Commit()
		},
	} {
		err := put()
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: got error %v", name, err)
		}
		oneSentence(t, err, dir+"/d/x", "free space")
		isEmpty(t, dir)
	}
	if err := st.PutIfAbsent(t.Context(), "d/x", big[:1000]); err != nil {
		t.Errorf("what fits is refused: %v", err)
	}
}

func TestFilesThatMayNotBeTouchedAreNamed(t *testing.T) {
	dir := t.TempDir()
	st, err := store.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.PutIfAbsent(t.Context(), "d/x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o755, dir + "/d/x": 0, dir + "/d": 0o555} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Chmod(dir+"/d", 0o755) })
	denied := func(err error, path string) {
		t.Helper()
		if !errors.Is(err, store.ErrPermission) || errors.Is(err, store.ErrNotExist) {
			t.Errorf("got error %v", err)
		}
		oneSentence(t, err, path, "let this user")
	}
	asNobody(t, func() {
		_, err := st.Get(t.Context(), "d/x")
		denied(err, dir+"/d/x")
		_, _, err = st.OpenRange(t.Context(), "d/x")
		denied(err, dir+"/d/x")
		denied(st.PutIfAbsent(t.Context(), "d/y", nil), dir+"/d/y")
		denied(st.Put(t.Context(), "d/y", nil), dir+"/d/y")
		denied(st.Delete(t.Context(), "d/x"), dir+"/d/x")
		_, err = st.Create(t.Context(), "d/e/y")
		denied(err, dir+"/d/e/y")
	})
	if err := os.Chmod(dir+"/d", 0); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		listed := errors.New("the listing is empty")
		for _, listed = range st.List(t.Context(), "", "") {
		}
		denied(listed, dir+"/d")
	})
}

// A folder in which this user may make files but which it may not read cannot be
// made durable: that is found out before the object is there, not after.
func TestARefusalOfLocalHasNoEffect(t *testing.T) {
	dir := t.TempDir()
	st, err := store.NewLocal(filepath.Join(dir, "d"))
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "d"), 0o333); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "d"), 0o755) })
	for name, put := range map[string]func() error{
		"put if absent": func() error { return st.PutIfAbsent(t.Context(), "x", []byte("1")) },
		"put":           func() error { return st.Put(t.Context(), "x", []byte("1")) },
		"create": func() error {
			w, err := st.Create(t.Context(), "x")
			if err != nil {
				return err
			}
			defer w.Abort()
			return w.Commit()
		},
	} {
		var err error
		asNobody(t, func() { err = put() })
		if _, there := st.Get(t.Context(), "x"); !errors.Is(err, store.ErrPermission) || !errors.Is(there, store.ErrNotExist) {
			t.Errorf("%s: got error %v; the object is there: %v", name, err, there == nil)
		}
		isEmpty(t, filepath.Join(dir, "d"))
	}
}

// Files of others below a store's folder can have names that no object has.
func TestLocalPassesOverNamesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a\\b", "c\xff", "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, "in-"+name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "in-"+name, "y"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	st, err := store.NewLocal(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for info, err := range st.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.Name)
	}
	if strings.Join(names, " ") != "in-x/y x" {
		t.Errorf("listed %q", names)
	}
}
