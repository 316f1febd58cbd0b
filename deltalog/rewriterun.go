package deltalog

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

// rewriteRun is some files whose rows were written anew.
type rewriteRun struct {
	inputs  []*File             // as they were read
	hidden  []*roaring64.Bitmap // of each, the rows that were not
	outputs []*File
	// order has, by the number of a row among those that were read, its place
	// among those that were written; nil when they are the same.
	order []uint32
}

type rewriteOptions struct {
	// cut ends a file, in bytes.
	cut int64
	// clusterBy sorts rows.
	clusterBy []string
	// uncommitted says that the files are not in the table.
	uncommitted bool
	// hide has rows to leave out besides those of the files' vectors, by path.
	hide map[string]*roaring64.Bitmap
}

// rewriteFiles writes the rows of files of one partition anew. It holds one
// batch and what its writer holds, unless rows are sorted.
func (t *Table) rewriteFiles(ctx context.Context, s *Snapshot, files []*File, o rewriteOptions) (*rewriteRun, error) {
	r := &rewriteRun{inputs: files}
	partition, err := s.partitionOf(files[0])
	if err != nil {
		return nil, err
	}
	w := &rewriter{t: t, ctx: ctx, r: r, o: o, partition: partition}
	if w.s, w.keepIDs, err = s.withRowIDs(); err != nil {
		return nil, err
	}
	err = w.run(files)
	if w.out != nil {
		w.out.Abort()
	}
	if err != nil {
		r.drop(t)
		return nil, err
	}
	return r, nil
}

// drop deletes what was written.
func (r *rewriteRun) drop(t *Table) { t.deleteFiles(r.outputs) }

// rewriter writes the outputs of a run.
type rewriter struct {
	t         *Table
	ctx       context.Context
	s         *Snapshot // with the hidden columns of ids if keepIDs
	keepIDs   bool
	r         *rewriteRun
	o         rewriteOptions
	partition map[string]*string
	out       *FileWriter // nil between files
	held      *datafile.Batch
}

func (w *rewriter) run(files []*File) error {
	for _, f := range files {
		hidden, err := w.s.ReadVector(w.ctx, f)
		if err != nil {
			return err
		}
		if more := w.o.hide[f.Path]; more != nil {
			hidden.Or(more)
		}
		w.r.hidden = append(w.r.hidden, hidden)
		if err := w.copyFile(f, hidden); err != nil {
			return err
		}
	}
	if w.held != nil {
		if err := w.writeSorted(); err != nil {
			return err
		}
	}
	return w.endFile()
}

// copyFile writes the rows of a file that are not hidden.
func (w *rewriter) copyFile(f *File, hidden *roaring64.Bitmap) error {
	r, err := w.s.newReader(ReadOptions{BatchRows: rewriteRows(f)})
	if err != nil {
		return err
	}
	constants, err := partitionColumns(r.read, w.s.metadata, r.mapping, f)
	if err != nil {
		return fmt.Errorf("read %s: %w", f.Path, err)
	}
	in := &fileReader{reader: r, f: f, hidden: hidden, constants: constants}
	in.run(w.ctx, func(live Live, e error) bool {
		if err = e; err == nil && w.keepIDs {
			live.Batch, err = keepRowIDs(live, f, w.o.uncommitted)
		}
		if err == nil {
			err = w.take(live.Batch)
		}
		return err == nil
	})
	return err
}

const (
	// rewriteBytes is about how much memory the rows take that are read at once,
	// where they compress to an eighth.
	rewriteBytes = 32 << 20
	// fewestRows and mostRows of a file are read at once.
	fewestRows, mostRows = 16, 8192
)

// rewriteRows is how many rows of a file are read at once.
func rewriteRows(f *File) int {
	if f.Rows <= 0 {
		return fewestRows
	}
	width := max(8*f.Size/f.Rows, 1)
	return int(min(max(rewriteBytes/width, fewestRows), mostRows))
}

func (w *rewriter) take(b *datafile.Batch) error {
	if w.o.clusterBy == nil {
		return w.write(b)
	}
	if w.held == nil {
		w.held = datafile.NewBatch(w.s.metadata.Schema)
	}
	if w.held.SizeBytes()+b.SizeBytes() > math.MaxInt32 {
		return fmt.Errorf("%w: more than 2 GiB of rows to be sorted for one file", ErrUnsupported)
	}
	for row := range b.Rows() {
		w.held.AppendRow(b, row)
	}
	return nil
}

func (w *rewriter) write(b *datafile.Batch) error {
	if w.out == nil {
		var err error
		o := FileOptions{Schema: w.s.metadata.Schema, Partition: w.partition}
		if w.keepIDs {
			o.hidden, o.keepsIDs = 2, true
		}
		if w.out, err = w.t.NewFile(w.ctx, o); err != nil {
			return err
		}
	}
	if err := w.out.Write(b); err != nil {
		return err
	}
	if w.o.cut > 0 && w.out.Bytes() >= w.o.cut {
		return w.endFile()
	}
	return nil
}

func (w *rewriter) endFile() error {
	if w.out == nil {
		return nil
	}
	f, err := w.out.Close()
	w.out = nil
	if err != nil {
		return err
	}
	w.r.outputs = append(w.r.outputs, f)
	return nil
}

// sortBatchRows is how many sorted rows are written at once.
const sortBatchRows = 8192

// writeSorted writes the rows that are held in the order of the columns that
// they are clustered by. Rows that are equal there keep their order.
func (w *rewriter) writeSorted() error {
	cols, err := w.held.Columns(w.o.clusterBy)
	if err != nil {
		return err
	}
	rows := make([]int32, w.held.Rows())
	for i := range rows {
		rows[i] = int32(i)
	}
	slices.SortStableFunc(rows, func(a, b int32) int {
		for _, c := range cols {
			if n := compareRows(c, int(a), int(b)); n != 0 {
				return n
			}
		}
		return 0
	})
	w.r.order = make([]uint32, len(rows))
	for place, row := range rows {
		w.r.order[row] = uint32(place)
	}
	for part := range slices.Chunk(rows, sortBatchRows) {
		if err := w.write(w.held.Gather(part)); err != nil {
			return err
		}
	}
	w.held = nil
	return nil
}

// compareRows compares two rows of a column. NULL comes first.
func compareRows(c *datafile.Column, a, b int) int {
	if !c.Valid[a] || !c.Valid[b] {
		return cmp.Compare(oneIf(c.Valid[a]), oneIf(c.Valid[b]))
	}
	return compareValues(c, a, c, b)
}

func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}

// carry returns the inputs as they stand in a later version, and the rows of
// each output that are no longer in the table. It returns ErrConflict when rows
// have come back.
func (r *rewriteRun) carry(ctx context.Context, now *Snapshot) (removed []*File, dead []*roaring64.Bitmap, err error) {
	dead = make([]*roaring64.Bitmap, len(r.outputs))
	for i := range dead {
		dead[i] = roaring64.New()
	}
	base := uint64(0) // the number, among the rows that were read, of the input's first
	for i, in := range r.inputs {
		live := uint64(in.Rows) - r.hidden[i].GetCardinality()
		f := now.File(in.Path)
		switch {
		case f == nil: // its rows went with it, or are in other files
			for nth := range live {
				r.bury(dead, base+nth)
			}
		case f.Vector.uniqueID() == in.Vector.uniqueID():
			removed = append(removed, f)
		default:
			removed = append(removed, f)
			if err := r.carryVector(ctx, now, f, i, base, dead); err != nil {
				return nil, nil, err
			}
		}
		base += live
	}
	return removed, dead, nil
}

// carryVector buries the rows of one input that were hidden since it was read.
func (r *rewriteRun) carryVector(ctx context.Context, now *Snapshot, f *File, i int, base uint64, dead []*roaring64.Bitmap) error {
	hidden, err := now.ReadVector(ctx, f)
	if err != nil {
		return err
	}
	before := r.hidden[i]
	if before.AndCardinality(hidden) != before.GetCardinality() {
		return fmt.Errorf("%w: rows of %s came back", ErrConflict, f.Path)
	}
	hidden.AndNot(before)
	gone, passed := before.Iterator(), uint64(0)
	for it := hidden.Iterator(); it.HasNext(); {
		row := it.Next()
		for gone.HasNext() && gone.PeekNext() < row {
			gone.Next()
			passed++
		}
		r.bury(dead, base+row-passed)
	}
	return nil
}

// bury marks the nth of the rows that were read as dead.
func (r *rewriteRun) bury(dead []*roaring64.Bitmap, nth uint64) {
	if r.order != nil {
		nth = uint64(r.order[nth])
	}
	for i, f := range r.outputs {
		if nth < uint64(f.Rows) {
			dead[i].Add(nth)
			return
		}
		nth -= uint64(f.Rows)
	}
}

// record returns what others need to know to find the rows again; nil where
// they have to read them.
func (r *rewriteRun) record() *rewrite {
	if r.order != nil || len(r.outputs) == 0 {
		return nil
	}
	rec := &rewrite{}
	for i, f := range r.inputs {
		rec.Inputs = append(rec.Inputs, rewriteInput{
			Path: f.Path, Rows: f.Rows - int64(r.hidden[i].GetCardinality()), Hidden: f.Vector,
		})
	}
	for _, f := range r.outputs {
		rec.Outputs = append(rec.Outputs, rewriteOutput{f.Path, f.Rows})
	}
	return rec
}
