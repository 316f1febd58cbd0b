package deltalog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

// refusedAtOnce checks the error of a commit that was not written: one sentence
// that names the commit's file and what to do, without a pause.
func refusedAtOnce(t *testing.T, since time.Time, err error, version Version) {
	t.Helper()
	if took := time.Since(since); took > time.Second {
		t.Errorf("it took %v", took)
	}
	if !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, store.ErrNotWritten) || errors.Is(err, ErrUncertain) {
		t.Fatalf("error is %v", err)
	}
	for _, words := range []string{commitName(version), "free space"} {
		if !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), ".tmp") {
			t.Errorf("%q is not in one sentence: %v", words, err)
		}
	}
}

func TestACommitOnAFullDiskIsRefusedAtOnce(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("needs to mount a small file system, which root may: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	st, err := store.NewLocal(filepath.Join(dir, "table"))
	if err != nil {
		t.Fatal(err)
	}
	table := newTestTable(t, st)
	if _, err := table.Append(t.Context(), idNames(0, 3)); err != nil {
		t.Fatal(err)
	}
	had := objects(t, st)
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	progress := &Commit{Operation: "WRITE", Txns: []Txn{{AppID: "app", Version: 1}}}
	start := time.Now()
	_, _, err = table.Commit(t.Context(), progress)
	refusedAtOnce(t, start, err, 2)
	if got := objects(t, st); len(got) != len(had) {
		t.Errorf("objects %v, want %v", got, had)
	}
	leftovers, err := filepath.Glob(filepath.Join(dir, "table", "_delta_log", ".*"))
	if err != nil || len(leftovers) > 0 {
		t.Errorf("left are %v, %v", leftovers, err)
	}
	if err := os.Remove(junk); err != nil {
		t.Fatal(err)
	}
	if s := mustCommit(t, table, progress); s.Version() != 2 {
		t.Errorf("version %d", s.Version())
	}
	if ids := readIDs(t, mustOpen(t, st).Snapshot(), ReadOptions{}); len(ids) != 3 {
		t.Errorf("ids %v", ids)
	}
}

// TestWhatWasWrittenForACommitThatWasNotIsDeleted has the disk be full for
// commits alone.
func TestWhatWasWrittenForACommitThatWasNotIsDeleted(t *testing.T) {
	memory := store.NewMemory()
	full := false
	st := &storetest.Faulty{Store: memory, Before: func(op storetest.Op, name string) error {
		if at, ok := parseLogName(name); full && ok && at.commit && op == storetest.PutIfAbsent {
			return errors.Join(syscall.ENOSPC, store.ErrNotWritten)
		}
		return nil
	}}
	table := newTestTable(t, st)
	u, err := OpenUpserter(t.Context(), table, "index", UpserterOptions{Keys: []string{"id"}, fs: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	for i := range 3 {
		mustUpsert(t, u, []person{someone(i), someone(i + 10)})
	}
	had := objects(t, memory)
	full = true
	for name, try := range map[string]func() error{
		"upsert": func() error {
			up := u.Begin()
			if err := up.Put(t.Context(), batchOf(person{1, "other"}), keysOf(1)); err != nil {
				return err
			}
			_, err := up.Commit(t.Context(), CommitExtras{})
			return err
		},
		"append": func() error {
			_, err := table.Append(t.Context(), idNames(100, 3))
			return err
		},
		"overwrite": func() error {
			_, err := table.Overwrite(t.Context(), idNames(100, 3))
			return err
		},
		"delete": func() error {
			_, _, err := table.Delete(t.Context(), nil, odd)
			return err
		},
		"compact": func() error {
			_, err := table.Compact(t.Context(), CompactOptions{})
			return err
		},
	} {
		start := time.Now()
		err := try()
		if took := time.Since(start); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrUncertain) || took > time.Second {
			t.Errorf("%s: error is %v after %v", name, err, took)
		}
		if got := objects(t, memory); len(got) != len(had) {
			t.Errorf("%s: objects %v, want %v", name, got, had)
		}
	}
	full = false
	mustUpsert(t, u, []person{{1, "other"}})
	want := people{}
	for i := range 3 {
		want.put(someone(i), false)
		want.put(someone(i+10), false)
	}
	want.put(person{1, "other"}, false)
	checkPeople(t, memory, want)
}
