package deltalog

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

const (
	// compactDead is the share of dead rows beyond which a file is rewritten.
	compactDead = 0.2
	// compactSmall is the share of the target size below which a file is
	// small.
	compactSmall = 0.5
)

// CompactOptions say what a compaction does. The zero value will do.
type CompactOptions struct {
	// TargetBytes is the size that files are to have. Zero means 256 MiB.
	TargetBytes int64
	// MaxBytes bounds how many bytes of files are read in one call. The rest is
	// left to the next. Zero means no bound.
	MaxBytes int64
	// ClusterBy are columns that the rows of each file that is written are
	// sorted by, so that statistics tell more. The rows of one file are then
	// held in memory. Nil keeps the order of the rows.
	ClusterBy []string
}

// Compaction says what a compaction did. All zero, there was nothing to do.
type Compaction struct {
	// Commits counts the versions that it made.
	Commits int
	// Removed and Added count files, RemovedBytes and AddedBytes their bytes.
	Removed, Added           int
	RemovedBytes, AddedBytes int64
}

// Compact rewrites small files, and those of which more than a fifth of the
// rows are dead, as files of the target size, within their partitions and in
// the order of their rows. The rows of the table stay the same, and so do their ids
// where it has row tracking. Rows that others take away meanwhile are gone in the new
// files too, by deletion vectors: what was rewritten is not lost to them, nor do they
// have to wait for it. Where the table does not allow such vectors, it ends with
// ErrConflict instead.
//
// Where others changed protocol or metadata, or where rows came back that were
// taken away, it ends with an error wrapping ErrConflict. What was committed
// before an error is told besides it. One compaction of a table at a time does
// what two would.
func (t *Table) Compact(ctx context.Context, o CompactOptions) (Compaction, error) {
	if o.TargetBytes <= 0 {
		o.TargetBytes = defaultFileBytes
	}
	var done Compaction
	s := t.Snapshot()
	if err := checkCompact(s, o); err != nil {
		return done, fmt.Errorf("compact: %w", err)
	}
	c := &compactor{t: t, o: o, s: s, done: &done}
	defer c.drop()
	for _, group := range pickGroups(s, o) {
		err := c.rewrite(ctx, group)
		if err == nil && c.written >= o.TargetBytes {
			err = c.commit(ctx)
		}
		if err != nil {
			return done, fmt.Errorf("compact: %w", err)
		}
	}
	if err := c.commit(ctx); err != nil {
		return done, fmt.Errorf("compact: %w", err)
	}
	return done, nil
}

func checkCompact(s *Snapshot, o CompactOptions) error {
	if err := checkWrite(s.protocol, s.metadata); err != nil {
		return err
	}
	clustered, err := s.metadata.Schema.Select(o.ClusterBy...)
	if err != nil {
		return err
	}
	for _, f := range clustered.Fields {
		if !f.Type.Kind.Primitive() {
			return fmt.Errorf("%w: to cluster by column %s of type %s", ErrUnsupported, f.Name, f.Type.String())
		}
	}
	for _, name := range o.ClusterBy {
		if slices.Contains(s.metadata.PartitionColumns, name) {
			return fmt.Errorf("%w: column %s is the same in all rows of a file", ErrInvalid, name)
		}
	}
	return nil
}

// pickGroups returns the files to be rewritten, in groups that become one file
// each, more or less. The oldest files of a partition come first.
func pickGroups(s *Snapshot, o CompactOptions) [][]*File {
	parts := map[string][]*File{}
	for f := range s.Files() {
		if f.Rows >= 0 && (isSmall(f, o.TargetBytes) || isSparse(f)) {
			key := partitionKey(f)
			parts[key] = append(parts[key], f)
		}
	}
	var groups [][]*File
	var total int64
	for _, key := range slices.Sorted(maps.Keys(parts)) {
		files := parts[key]
		slices.SortFunc(files, func(a, b *File) int {
			return cmp.Or(cmp.Compare(a.ModTime, b.ModTime), strings.Compare(a.Path, b.Path))
		})
		for _, group := range packFiles(files, o.TargetBytes) {
			var size int64
			for _, f := range group {
				size += f.Size
			}
			if o.MaxBytes > 0 && len(groups) > 0 && total+size > o.MaxBytes {
				return groups
			}
			total += size
			groups = append(groups, group)
		}
	}
	return groups
}

// packFiles cuts a list into groups of the target size. A group of one file is
// left out unless the file is sparse.
func packFiles(files []*File, target int64) [][]*File {
	var groups [][]*File
	var group []*File
	var size int64
	end := func() {
		if len(group) > 1 || len(group) == 1 && isSparse(group[0]) {
			groups = append(groups, group)
		}
		group, size = nil, 0
	}
	for _, f := range files {
		group = append(group, f)
		if size += liveBytes(f); size >= target {
			end()
		}
	}
	end()
	return groups
}

func isSmall(f *File, target int64) bool { return float64(liveBytes(f)) < compactSmall*float64(target) }

func isSparse(f *File) bool {
	return f.Vector != nil && f.Rows > 0 && float64(f.Vector.Cardinality) > compactDead*float64(f.Rows)
}

// liveBytes estimates what a file would have without its hidden rows.
func liveBytes(f *File) int64 {
	if f.Vector == nil || f.Rows <= 0 {
		return f.Size
	}
	return int64(float64(f.Size) * float64(f.LiveRows()) / float64(f.Rows))
}

// partitionKey is the same for files of one partition, and for no others: not the
// folder, which long values do not have, and which some value shares with NULL.
func partitionKey(f *File) string {
	var key []byte
	for _, column := range slices.Sorted(maps.Keys(f.Partition)) {
		key = strconv.AppendQuote(key, column)
		if v := f.Partition[column]; v != nil && *v != "" {
			key = strconv.AppendQuote(append(key, '='), *v)
		}
	}
	return string(key)
}

// compactor writes files in place of others, and commits them some at a time.
type compactor struct {
	t       *Table
	o       CompactOptions
	s       *Snapshot // what is being compacted
	runs    []*rewriteRun
	written int64 // bytes in runs
	done    *Compaction
}

// drop deletes the files that were written and not committed.
func (c *compactor) drop() {
	for _, r := range c.runs {
		r.drop(c.t)
	}
	c.runs, c.written = nil, 0
}

func (c *compactor) rewrite(ctx context.Context, group []*File) error {
	r, err := c.t.rewriteFiles(ctx, c.s, group, rewriteOptions{cut: c.o.TargetBytes + c.o.TargetBytes/2, clusterBy: c.o.ClusterBy})
	if err != nil {
		return err
	}
	c.runs = append(c.runs, r)
	for _, f := range r.outputs {
		c.written += f.Size
	}
	return nil
}

// commit puts the files that were written in the place of those that were read,
// however many others commit meanwhile.
func (c *compactor) commit(ctx context.Context) error {
	if len(c.runs) == 0 {
		return nil
	}
	now := c.t.Snapshot()
	for {
		plan := &Commit{Read: c.s}
		if err := plan.Conflict(now); err != nil {
			return err
		}
		plan, garbage, err := c.plan(ctx, now)
		if err != nil {
			return err
		}
		if len(plan.Remove) == 0 { // others have dealt with all of them
			c.drop()
			return nil
		}
		_, won, err := c.t.Commit(ctx, plan)
		if err != nil {
			if neverTook(err) {
				c.t.deleteVectors(plan.Add)
			} else {
				c.runs = nil // its files may be in the table
			}
			return err
		}
		if won {
			c.settle(plan)
			c.t.deleteFiles(garbage)
			return nil
		}
		c.t.deleteVectors(plan.Add)
		if now, err = c.t.Refresh(ctx); err != nil {
			return err
		}
	}
}

func (c *compactor) settle(p *Commit) {
	c.done.Commits++
	c.done.Removed += len(p.Remove)
	c.done.Added += len(p.Add)
	for _, f := range p.Remove {
		c.done.RemovedBytes += f.Size
	}
	for _, f := range p.Add {
		c.done.AddedBytes += f.Size
	}
	c.runs, c.written = nil, 0
}

// plan plans the commit on a version. Files that were written for nothing are
// told besides.
func (c *compactor) plan(ctx context.Context, now *Snapshot) (p *Commit, garbage []*File, err error) {
	p = &Commit{
		Read: now, Operation: "OPTIMIZE", Rearrange: true,
		Params: map[string]string{"predicate": "[]", "auto": "false"},
	}
	var records []rewrite
	var holed []*File
	var vectors []*roaring64.Bitmap
	for _, r := range c.runs {
		removed, dead, err := r.carry(ctx, now)
		if err != nil {
			return nil, nil, err
		}
		p.Remove = append(p.Remove, removed...)
		for i, f := range r.outputs {
			switch n := int64(dead[i].GetCardinality()); {
			case n == 0:
				p.Add = append(p.Add, f)
			case n == f.Rows:
				garbage = append(garbage, f)
			default:
				holed, vectors = append(holed, f), append(vectors, dead[i])
			}
		}
		if rec := r.record(); rec != nil {
			records = append(records, *rec)
		}
	}
	if len(holed) > 0 && !now.metadata.enabled(PropertyDeletionVectors) {
		return nil, nil, fmt.Errorf("%w: rows were taken away, and the table does not allow deletion vectors", ErrConflict)
	}
	written, err := c.t.WriteVectors(ctx, vectors)
	if err != nil {
		return nil, nil, err
	}
	for i, f := range holed {
		p.Add = append(p.Add, f.WithVector(written[i]))
	}
	if records != nil {
		if p.Params[rewriteParam], err = encodeRewrites(records); err != nil {
			return nil, nil, err
		}
	}
	return p, garbage, nil
}

// deleteFiles deletes data files that are in no version. Those that cannot be
// deleted are nobody's, and go when the table is cleaned.
func (t *Table) deleteFiles(files []*File) {
	for _, f := range files {
		if name, err := f.Name(); err == nil {
			_ = t.st.Delete(context.Background(), name)
		}
	}
}

// deleteVectors deletes the files of the vectors of files that were not
// committed.
func (t *Table) deleteVectors(files []*File) {
	gone := map[string]bool{}
	for _, f := range files {
		if f.Vector == nil {
			continue
		}
		if name, err := f.Vector.name(); err == nil && !gone[name] {
			gone[name] = true
			_ = t.st.Delete(context.Background(), name)
		}
	}
}
