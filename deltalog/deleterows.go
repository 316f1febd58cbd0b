package deltalog

import (
	"context"
	"fmt"
	"strconv"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

// Delete takes away the rows of the newest version for which match is true, and
// returns how many those were. match sees batches of the named columns, nil
// meaning all, and the index of a row in its batch; it may be called more than once
// for a row. Files whose rows all go are removed. The others get a deletion vector
// where the table's properties allow that; else they are written anew without those
// rows. Where the table has a change data feed, the rows are written to it.
//
// Where others commit meanwhile, Delete looks at what they made of the table and
// tries again. It returns ErrConflict where they change protocol or metadata.
func (t *Table) Delete(ctx context.Context, columns []string, match func(b *datafile.Batch, row int) bool) (*Snapshot, int64, error) {
	d := &deletion{t: t, columns: columns, match: match, read: t.Snapshot(), hits: map[*File]*roaring64.Bitmap{}}
	snap, rows, err := d.run(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("delete: %w", err)
	}
	return snap, rows, nil
}

// deletion is a Delete under way.
type deletion struct {
	t       *Table
	columns []string
	match   func(b *datafile.Batch, row int) bool
	read    *Snapshot
	// hits are the rows that go, by file of read; nil means none.
	hits map[*File]*roaring64.Bitmap
}

func (d *deletion) run(ctx context.Context) (*Snapshot, int64, error) {
	for {
		c, rows, err := d.plan(ctx)
		if err != nil {
			return nil, 0, err
		}
		if rows > 0 {
			snap, won, err := d.t.Commit(ctx, c)
			if won || err != nil && !neverTook(err) {
				return snap, rows, err
			}
			d.drop(c)
			if err != nil {
				return nil, 0, err
			}
		}
		now, err := d.t.Refresh(ctx) // rows that others have put there are to go, too
		if err != nil {
			return nil, 0, err
		}
		if rows == 0 && now.version == d.read.version {
			return now, 0, nil
		}
		if err := (&Commit{Read: d.read}).Conflict(now); err != nil {
			return nil, 0, err
		}
		known := map[*File]*roaring64.Bitmap{}
		for f, hit := range d.hits {
			if same := now.files.get(f); same != nil {
				known[same] = hit
			}
		}
		d.read, d.hits = now, known
	}
}

// find finds the rows that go.
func (d *deletion) find(ctx context.Context) error {
	for f := range d.read.Files() {
		if _, known := d.hits[f]; known {
			continue
		}
		var hit *roaring64.Bitmap
		for live, err := range d.read.ReadFile(ctx, f, ReadOptions{Columns: d.columns}) {
			if err != nil {
				return err
			}
			for row, at := range live.Index {
				if d.match(live.Batch, row) {
					if hit == nil {
						hit = roaring64.New()
					}
					hit.Add(uint64(at))
				}
			}
		}
		d.hits[f] = hit
	}
	return nil
}

// drop deletes what was written for a commit that did not take place.
func (d *deletion) drop(c *Commit) {
	d.t.deleteFiles(c.ChangeData)
	d.t.deleteVectors(c.Add)
	for _, f := range c.Add {
		if f.Vector == nil { // the others are in the table
			d.t.deleteFiles([]*File{f})
		}
	}
}

// plan returns the commit that takes the rows away, and their number.
func (d *deletion) plan(ctx context.Context) (*Commit, int64, error) {
	c := &Commit{Read: d.read, Operation: "DELETE"}
	rows, err := d.planInto(ctx, c)
	if err != nil {
		d.drop(c)
	}
	return c, rows, err
}

func (d *deletion) planInto(ctx context.Context, c *Commit) (int64, error) {
	if err := d.find(ctx); err != nil {
		return 0, err
	}
	m := d.read.metadata
	if m.enabled(PropertyAppendOnly) {
		return 0, fmt.Errorf("%w: rows of an append-only table stay", ErrInvalid)
	}
	vectors := m.enabled(PropertyDeletionVectors) && d.read.protocol.has(FeatureDeletionVectors)
	var rows int64
	var holed []*File
	var hidden []*roaring64.Bitmap
	for f := range d.read.Files() {
		hit := d.hits[f]
		if hit == nil {
			continue
		}
		rows += int64(hit.GetCardinality())
		c.Remove = append(c.Remove, f)
		if m.enabled(PropertyChangeDataFeed) {
			if err := d.tell(ctx, c, f, hit); err != nil {
				return 0, err
			}
		}
		all, err := d.read.ReadVector(ctx, f)
		if err != nil {
			return 0, err
		}
		all.Or(hit)
		total, err := d.rowsOf(ctx, f)
		switch {
		case err != nil:
			return 0, err
		case int64(all.GetCardinality()) == total:
		case vectors && f.Rows >= 0:
			holed, hidden = append(holed, f), append(hidden, all)
		default:
			if err := d.rewrite(ctx, c, f, hit); err != nil {
				return 0, err
			}
		}
	}
	if rows == 0 {
		return 0, nil
	}
	written, err := d.t.WriteVectors(ctx, hidden)
	if err != nil {
		return 0, err
	}
	for i, f := range holed {
		c.Add = append(c.Add, f.WithVector(written[i]))
	}
	c.Metrics = map[string]string{"numDeletedRows": strconv.FormatInt(rows, 10)}
	return rows, nil
}

// rowsOf counts the rows of a file, those that are hidden too.
func (d *deletion) rowsOf(ctx context.Context, f *File) (int64, error) {
	if f.Rows >= 0 {
		return f.Rows, nil
	}
	r, closer, err := d.read.OpenFile(ctx, f)
	if err != nil {
		return 0, err
	}
	return r.Rows(), closer.Close()
}

// rewrite writes the rows of a file that stay into another.
func (d *deletion) rewrite(ctx context.Context, c *Commit, f *File, hit *roaring64.Bitmap) error {
	run, err := d.t.rewriteFiles(ctx, d.read, []*File{f}, rewriteOptions{hide: map[string]*roaring64.Bitmap{f.Path: hit}})
	if err == nil {
		c.Add = append(c.Add, run.outputs...)
	}
	return err
}

// tell writes the rows that go to the change data feed.
func (d *deletion) tell(ctx context.Context, c *Commit, f *File, hit *roaring64.Bitmap) error {
	values, err := d.read.partitionOf(f)
	if err != nil {
		return err
	}
	out, err := d.t.NewChangeFile(ctx, FileOptions{Schema: d.read.metadata.Schema, Partition: values})
	if err != nil {
		return err
	}
	defer out.Abort()
	for b, err := range d.read.pickRows(ctx, f, hit) {
		if err != nil {
			return err
		}
		if err := out.Write(withConstant(b, ColumnChangeType, ChangeDelete)); err != nil {
			return err
		}
	}
	file, err := out.Close()
	if err == nil {
		c.ChangeData = append(c.ChangeData, file)
	}
	return err
}
