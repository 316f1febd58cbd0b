package deltalog

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

// The environment of a process that is to be killed: its folder, and the step
// at which it kills itself.
const (
	victimDir  = "DELTALOG_VICTIM_DIR"
	victimStep = "DELTALOG_VICTIM_STEP"
)

// victimIDs are the ids in each version that a victim commits.
var victimIDs = [][]int64{{}, {0, 1, 2}, {0, 1, 2, 3, 4}, {0, 2, 3, 4}, {0, 2, 3, 4, 5}, {0, 2, 3, 4, 5, 6}}

// victim creates a table, appends, deletes by vector, checkpoints and appends
// again, through a store that kills this process at a step: before or after an
// operation, or in the middle of a write. It notes what was acknowledged.
func victim(t *testing.T, dir string) {
	last, err := strconv.Atoi(os.Getenv(victimStep))
	if err != nil {
		t.Fatal(err)
	}
	local, err := store.NewLocal(filepath.Join(dir, "table"))
	if err != nil {
		t.Fatal(err)
	}
	steps := 0
	step := func(storetest.Op, string) error {
		if steps++; steps == last {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it arrives
		}
		return nil
	}
	half := func(op storetest.Op, name string) error {
		if op == storetest.Write {
			return step(op, name)
		}
		return nil
	}
	st := &storetest.Faulty{Store: local, Before: step, After: step, Cut: half}
	note := func(v Version) {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("acknowledged-", v)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	table := newTestTable(t, st)
	note(0)
	first := writeFile(t, table, FileOptions{}, idNames(0, 3))
	note(mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{first}}).Version())
	f := writeFile(t, table, FileOptions{}, idNames(3, 2))
	note(mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}}).Version())
	note(hide(t, table, map[*File]*roaring64.Bitmap{first: roaring64.BitmapOf(1)}).Version())
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	f = writeFile(t, table, FileOptions{}, idNames(5, 1))
	note(mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}}).Version())
	table = mustOpen(t, st)
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	f = writeFile(t, table, FileOptions{}, idNames(6, 1))
	note(mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}}).Version())
}

func TestProcessesKilledAtAnyStepLeaveATableThatOpens(t *testing.T) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(t, dir)
		return
	}
	stride := 1
	if testing.Short() {
		stride = 9
	}
	killed := 0
	for step := 1; ; step += stride {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		cmd.Env = append(os.Environ(), victimDir+"="+dir, victimStep+"="+strconv.Itoa(step))
		out, err := cmd.CombinedOutput()
		dead, _ := errors.AsType[*exec.ExitError](err)
		switch {
		case err == nil:
			afterwards(t, dir, len(victimIDs)-1)
			if killed*stride < 40 {
				t.Errorf("only %d steps", killed)
			}
			t.Logf("killed at %d steps", killed)
			return
		case dead == nil || !dead.Sys().(syscall.WaitStatus).Signaled():
			t.Fatalf("step %d: %v\n%s", step, err, out)
		}
		killed++
		acknowledged := -1
		for v := range victimIDs {
			if _, err := os.Stat(filepath.Join(dir, fmt.Sprint("acknowledged-", v))); err == nil {
				acknowledged = v
			}
		}
		if afterwards(t, dir, acknowledged); t.Failed() {
			t.Fatalf("the process was killed at step %d", step)
		}
	}
}

// afterwards checks what a process left that acknowledged versions up to one,
// and that another can go on from there.
func afterwards(t *testing.T, dir string, acknowledged int) {
	t.Helper()
	st, err := store.NewLocal(filepath.Join(dir, "table"))
	if err != nil {
		t.Fatal(err)
	}
	for info, err := range st.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if base := filepath.Base(info.Name); strings.HasPrefix(base, ".") || info.Size == 0 {
			t.Errorf("listed %s of %d bytes", info.Name, info.Size)
		}
	}
	table, err := Open(t.Context(), st)
	if errors.Is(err, ErrNotTable) && acknowledged < 0 {
		table = newTestTable(t, st)
	} else if err != nil {
		t.Fatalf("%d versions were acknowledged: %v", acknowledged+1, err)
	}
	v := int(table.Snapshot().Version())
	if v != acknowledged && v != acknowledged+1 || v >= len(victimIDs) {
		t.Fatalf("version %d after %d was acknowledged", v, acknowledged)
	}
	for at := range v + 1 {
		s, err := OpenAt(t.Context(), st, Version(at))
		if err != nil {
			t.Fatalf("version %d: %v", at, err)
		}
		if ids := readIDs(t, s, ReadOptions{}); !slices.Equal(ids, victimIDs[at]) {
			t.Fatalf("version %d has ids %v, want %v", at, ids, victimIDs[at])
		}
	}
	mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{writeFile(t, table, FileOptions{}, idNames(100, 1))}})
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ids := readIDs(t, mustOpen(t, st).Snapshot(), ReadOptions{}); !slices.Equal(ids, append(slices.Clone(victimIDs[v]), 100)) {
		t.Fatalf("after another commit it has ids %v", ids)
	}
}
