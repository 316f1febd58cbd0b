package deltalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

// Append adds rows. Columns are found by name; those that a batch lacks are NULL.
// It writes a data file, or several for tables with partitions or where they
// would be larger than 256 MiB, and commits them however many others commit
// meanwhile. It returns ErrConflict where one of them changes protocol or
// metadata. It keeps nothing of the batches.
func (t *Table) Append(ctx context.Context, batches ...*datafile.Batch) (*Snapshot, error) {
	w := &rowWriter{t: t, ctx: ctx, snap: t.Snapshot()}
	if err := w.all(batches); err != nil {
		w.t.deleteFiles(w.done)
		return nil, fmt.Errorf("append: %w", err)
	}
	if len(w.done) == 0 {
		return t.Snapshot(), nil
	}
	snap, err := t.CommitAppend(ctx, &Commit{
		Read: w.snap, Operation: "WRITE", Params: map[string]string{"mode": "Append"},
		Metrics: w.metrics(), Add: w.done,
	}, nil)
	if err != nil {
		w.drop(err)
		return nil, fmt.Errorf("append: %w", err)
	}
	return snap, nil
}

// Overwrite puts rows into the place of all that the table holds at the moment of
// its commit; without rows the table is empty then. Batches are taken as Append
// takes them. It returns ErrConflict where others change protocol or metadata
// meanwhile.
func (t *Table) Overwrite(ctx context.Context, batches ...*datafile.Batch) (*Snapshot, error) {
	w := &rowWriter{t: t, ctx: ctx, snap: t.Snapshot()}
	if err := w.all(batches); err != nil {
		w.t.deleteFiles(w.done)
		return nil, fmt.Errorf("overwrite: %w", err)
	}
	read := w.snap
	for {
		c := &Commit{
			Read: read, Operation: "WRITE", Params: map[string]string{"mode": "Overwrite"},
			Metrics: w.metrics(), Add: w.done, Remove: slices.Collect(read.Files()),
		}
		snap, won, err := t.Commit(ctx, c)
		if err == nil && !won {
			read, err = t.Refresh(ctx)
		}
		switch {
		case err != nil:
			w.drop(err)
			return nil, fmt.Errorf("overwrite: %w", err)
		case won:
			return snap, nil
		}
		if err := (&Commit{Read: c.Read}).Conflict(read); err != nil {
			w.drop(err)
			return nil, fmt.Errorf("overwrite: %w", err)
		}
	}
}

// rowWriter writes rows into as many data files as they need.
type rowWriter struct {
	t    *Table
	ctx  context.Context
	snap *Snapshot
	done []*File
}

func (w *rowWriter) metrics() map[string]string {
	var rows, bytes int64
	for _, f := range w.done {
		rows, bytes = rows+f.Rows, bytes+f.Size
	}
	return map[string]string{
		"numFiles":       strconv.Itoa(len(w.done)),
		"numOutputRows":  strconv.FormatInt(rows, 10),
		"numOutputBytes": strconv.FormatInt(bytes, 10),
	}
}

// drop deletes what was written for a commit that ended in err, unless it may be
// in the table.
func (w *rowWriter) drop(err error) {
	if neverTook(err) {
		w.t.deleteFiles(w.done)
	}
}

// neverTook tells whether the error of a commit says that it did not take place:
// it was refused before it was tried, or lost, or could not be written.
func neverTook(err error) bool {
	return !errors.Is(err, ErrUncertain) && (errors.Is(err, ErrInvalid) || errors.Is(err, ErrUnsupported) ||
		errors.Is(err, ErrConflict) || refusedByStore(err))
}

// all writes all rows, one partition after the other.
func (w *rowWriter) all(batches []*datafile.Batch) error {
	parts, err := partition(w.snap.metadata.PartitionColumns, batches)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := w.part(p); err != nil {
			return err
		}
	}
	return nil
}

func (w *rowWriter) part(p *partitionRows) error {
	var out *FileWriter
	end := func() error {
		if out == nil {
			return nil
		}
		f, err := out.Close()
		if err == nil {
			w.done = append(w.done, f)
		}
		out = nil
		return err
	}
	defer func() {
		if out != nil {
			out.Abort()
		}
	}()
	for _, b := range p.batches {
		if b.Rows() == 0 {
			continue
		}
		if out == nil {
			var err error
			if out, err = w.t.NewFile(w.ctx, FileOptions{Schema: w.snap.metadata.Schema, Partition: p.values, keepsIDs: true}); err != nil {
				return err
			}
		}
		if err := out.Write(b); err != nil {
			return err
		}
		if out.Bytes() >= defaultFileBytes {
			if err := end(); err != nil {
				return err
			}
		}
	}
	return end()
}

// partitionRows are the rows of one partition.
type partitionRows struct {
	values  map[string]*string // nil for tables without partitions
	batches []*datafile.Batch
}

// partition sorts rows by the partition they belong to, in the order in which
// partitions come first.
func partition(columns []string, batches []*datafile.Batch) ([]*partitionRows, error) {
	if len(columns) == 0 {
		return []*partitionRows{{batches: batches}}, nil
	}
	var parts []*partitionRows
	found := map[*part]*partitionRows{}
	s := newSplitter(columns)
	for _, b := range batches {
		list, err := s.split(b)
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			rows := found[p]
			if rows == nil {
				rows = &partitionRows{values: p.values}
				found[p], parts = rows, append(parts, rows)
			}
			if len(p.rows) < b.Rows() {
				rows.batches = append(rows.batches, b.Gather(p.rows))
			} else {
				rows.batches = append(rows.batches, b)
			}
		}
	}
	return parts, nil
}
