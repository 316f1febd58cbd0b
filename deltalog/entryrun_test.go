package deltalog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

func TestMergedRunsAreInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewMem()
		key := rapid.SliceOfN(rapid.Byte(), 0, 12)
		var all, got []string
		var runs []*entryRun
		for i := range rapid.IntRange(0, 4).Draw(t, "runs") {
			r := &entryRun{}
			for _, name := range rapid.SliceOfN(key, 0, 50).Draw(t, "names") {
				r.add(name, []byte{byte(i)})
				all = append(all, string(name))
			}
			r.sort()
			if rapid.Bool().Draw(t, "spill") {
				if err := r.spill(fs, fmt.Sprint(i)); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = r.close() }()
			}
			runs = append(runs, r)
		}
		slices.Sort(all)
		cut := key.Draw(t, "cut")
		for _, part := range [][2][]byte{{nil, cut}, {cut, nil}} {
			if part[1] != nil && len(part[1]) == 0 {
				continue
			}
			err := mergeRuns(runs, part[0], part[1], func(name, value []byte) error {
				if len(value) != 1 || int(value[0]) >= len(runs) {
					return fmt.Errorf("value %v", value)
				}
				got = append(got, string(name))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(got, all) {
			t.Fatalf("merged %q, want %q", got, all)
		}
	})
}

func TestLongRunsAreFoundInByTheirPlaces(t *testing.T) {
	fs := vfs.NewMem()
	r := &entryRun{}
	for i := range 3 * runStride {
		r.add(fmt.Appendf(nil, "%08d", i), nil)
	}
	r.sort()
	if err := r.spill(fs, "run"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.close() }()
	stop := errors.New("enough")
	for _, i := range []int{0, 1, runStride - 1, runStride, runStride + 1, 3*runStride - 1} {
		from := fmt.Appendf(nil, "%08d", i)
		err := mergeRuns([]*entryRun{r}, from, nil, func(name, _ []byte) error {
			if !bytes.Equal(name, from) {
				t.Fatalf("read %s, want %s", name, from)
			}
			return stop
		})
		if !errors.Is(err, stop) {
			t.Fatal(err)
		}
	}
}
