package lake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/activities/change"
	"github.com/millrace-io/millrace/activities/internal/batch"
	"github.com/millrace-io/millrace/deltalog"
	"github.com/millrace-io/millrace/deltalog/datafile"
)

// looseFiles is how many small files of history that follow each other are left
// alone.
const looseFiles = 16

// History is compacted here and not by deltalog, for its files have an order and
// tags. Small files that follow each other in it become one that spans them, and
// small files of one copy become one of that copy, so that changes are still
// found by the tags alone. A file of changes is merged with those after it only
// once they are as much as it is: each row is written some times over, however
// large the table is.

// small tells whether a file is worth merging with others. One that another
// writer made is left alone, as are those of which rows were hidden.
func (t *table) small(f *deltalog.File) bool {
	_, copied := f.Tags[chunkTag]
	return f.Size < t.lake.cfg.CompactBytes/2 && f.Vector == nil && (copied || f.Tags[firstTag] != "" && f.Tags[lastTag] != "")
}

// loose tells whether history has so many small files that merging them may be
// due.
func (t *table) loose(v *view) bool {
	if t.compacted.Load() == int64(v.snap.Version()) {
		return false
	}
	n := 0
	for f := range v.snap.Files() {
		if t.small(f) {
			n++
		}
	}
	return n >= t.lake.loose
}

// compactHistory merges small files of history, each group in a commit of its
// own, and leaves the rest to the next call when that is much.
func (t *table) compactHistory(ctx context.Context, done *Upkeep) error {
	v, err := t.history.view()
	if err != nil || !t.loose(v) {
		return err
	}
	groups, err := t.historyGroups(ctx, v)
	if err != nil {
		return err
	}
	read := int64(0)
	for i, group := range groups {
		if read += sizeOf(group); i > 0 && read > compactStep*t.lake.cfg.CompactBytes {
			return nil
		}
		merged, err := t.merge(ctx, v, group)
		if err != nil {
			return fmt.Errorf("compact history: %w", err)
		}
		if merged {
			done.Compactions++
			done.Removed += len(group)
			done.Added++
		}
	}
	if len(groups) == 0 {
		t.compacted.Store(int64(v.snap.Version()))
	}
	return nil
}

// historyGroups returns the files that are to become one each.
func (t *table) historyGroups(ctx context.Context, v *view) ([][]*deltalog.File, error) {
	pieces, err := t.pieces(ctx, v, change.Position{})
	if err != nil {
		return nil, err
	}
	var groups [][]*deltalog.File
	var run []*deltalog.File
	for _, p := range pieces {
		if t.small(p.file) {
			run = append(run, p.file)
			continue
		}
		// Nothing comes to it any more.
		groups, run = t.pack(groups, run), nil
	}
	groups = t.pack(groups, t.tail(run))
	if !t.settled(v) || v.copy.ID != "" && !v.copy.Finished {
		return groups, nil // latest may yet take the copied files
	}
	copies := map[string][]*deltalog.File{}
	for f := range v.snap.Files() {
		if _, copied := f.Tags[chunkTag]; copied && t.small(f) {
			copies[f.Tags[incarnationTag]] = append(copies[f.Tags[incarnationTag]], f)
		}
	}
	for _, files := range copies {
		slices.SortFunc(files, func(a, b *deltalog.File) int {
			return cmp.Or(cmp.Compare(chunkOf(a), chunkOf(b)), strings.Compare(a.Path, b.Path))
		})
		groups = t.pack(groups, t.tail(files))
	}
	return groups, nil
}

// chunkOf is the number of the chunk that a file is of.
func chunkOf(f *deltalog.File) int {
	n, _ := strconv.Atoi(f.Tags[chunkTag])
	return n
}

// tail returns the files at the end of a run that are to be merged now: none
// while they are few.
func (t *table) tail(run []*deltalog.File) []*deltalog.File {
	from := len(run) - t.lake.loose
	if from < 0 {
		return nil
	}
	for size := sizeOf(run[from:]); from > 0 && run[from-1].Size <= size; from-- {
		size += run[from-1].Size
	}
	return run[from:]
}

// pack appends a run to the groups, cut where they have the target size. A file
// alone stays as it is.
func (t *table) pack(groups [][]*deltalog.File, run []*deltalog.File) [][]*deltalog.File {
	for len(run) > 1 {
		n := 1
		for size := run[0].Size; n < len(run) && size < t.lake.cfg.CompactBytes; n++ {
			size += run[n].Size
		}
		if n > 1 {
			groups = append(groups, run[:n:n])
		}
		run = run[n:]
	}
	return groups
}

func sizeOf(files []*deltalog.File) (n int64) {
	for _, f := range files {
		n += f.Size
	}
	return n
}

// merge writes the rows of some files as one, and puts that in their place. It
// tells whether it did: others may have taken them away.
func (t *table) merge(ctx context.Context, v *view, group []*deltalog.File) (merged bool, err error) {
	f, err := t.rewrite(ctx, v, group)
	if err != nil {
		return false, err
	}
	for {
		won, gone, err := t.replace(ctx, group, f)
		if won {
			return true, nil
		}
		if gone || errors.Is(err, deltalog.ErrInvalid) || errors.Is(err, deltalog.ErrUnsupported) {
			t.discard(ctx, f)
		}
		if gone || err != nil {
			return false, err
		}
		if _, err := t.history.refresh(ctx); err != nil {
			t.discard(ctx, f)
			return false, err
		}
	}
}

// replace tries to put a file in the place of others, which may be gone. The
// stream waits for it, and so does not lose its own commit to it.
func (t *table) replace(ctx context.Context, group []*deltalog.File, f *deltalog.File) (won, gone bool, err error) {
	t.streaming.Lock()
	defer t.streaming.Unlock()
	now := t.history.Snapshot()
	for _, in := range group {
		if !now.Has(in) {
			return false, true, nil
		}
	}
	_, won, err = t.history.Commit(ctx, &deltalog.Commit{
		Read: now, Operation: "OPTIMIZE", Rearrange: true,
		Params: map[string]string{"predicate": "[]", "auto": "true"},
		Remove: group, Add: []*deltalog.File{f},
	})
	return won, false, err
}

// discard deletes a file that is in no version. What cannot be deleted is left
// for vacuum.
func (t *table) discard(ctx context.Context, f *deltalog.File) {
	if name, err := f.Name(); err == nil {
		_ = t.history.Store().Delete(context.WithoutCancel(ctx), name)
	}
}

// rewrite writes the rows of some files as one file that stands for them.
func (t *table) rewrite(ctx context.Context, v *view, group []*deltalog.File) (*deltalog.File, error) {
	first, last := group[0], group[len(group)-1]
	_, copied := first.Tags[chunkTag]
	stats, err := v.statsNames(copied)
	if err != nil {
		return nil, err
	}
	w, err := t.history.NewFile(ctx, deltalog.FileOptions{Schema: v.snap.Metadata().Schema, StatsNames: stats})
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	want := int64(0)
	for _, in := range group {
		want += in.Rows
		for live, err := range v.snap.ReadFile(ctx, in, deltalog.ReadOptions{BatchRows: t.lake.batchRows(in)}) {
			if err == nil {
				err = w.Write(live.Batch)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	f, err := w.Close()
	if err != nil {
		return nil, err
	}
	if f.Rows != want {
		t.discard(ctx, f)
		return nil, fmt.Errorf("%w: %d files of history have %d rows, the log says %d", datafile.ErrCorrupt, len(group), f.Rows, want)
	}
	if copied {
		f.Tags = map[string]string{incarnationTag: first.Tags[incarnationTag], chunkTag: first.Tags[chunkTag]}
	} else {
		f.Tags = map[string]string{firstTag: first.Tags[firstTag], lastTag: last.Tags[lastTag]}
	}
	return f, nil
}

// statsNames names the columns of history that have statistics; those of copied
// rows are in latest, too.
func (v *view) statsNames(copied bool) ([]string, error) {
	names, _, err := parseKey(v.key)
	if err != nil {
		return nil, err
	}
	for i, f := range current(v.fields()) {
		if i < statsColumns && !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	}
	names = append(names, batch.EpochColumn, batch.CommitLSNColumn, batch.CommitTSColumn)
	if !copied {
		names = append(names, batch.OrdinalColumn)
	}
	return names, nil
}
