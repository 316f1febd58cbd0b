package deltalog

import (
	"cmp"
	"context"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"github.com/millrace-io/millrace/deltalog/datafile"
)

// Changed rows of an upsert are those that it takes from files of the table, as
// they were there, and those that it puts. A row that was put under the key of one
// that was taken is that row updated. Which they are is known once all has been
// fed: the files that were written are read again, and of the others the rows that
// go.

// tellsChanges tells whether a commit with these changes has to list its changed
// rows: where all that it does is add rows, or take all away before, readers see
// them in its files.
func (b *Upsert) tellsChanges(p *upsertPlan) bool {
	return !b.truncated && b.reading().metadata.enabled(PropertyChangeDataFeed) &&
		(len(p.commit.Remove) > 0 || len(b.dead) > 0)
}

// changeWriter writes changed rows into files of their partitions.
type changeWriter struct {
	b     *Upsert
	ctx   context.Context
	key   string      // of the partition of out
	out   *FileWriter // nil between files
	files []*File
}

// writeChanges writes the changed rows. Files that it returns with an error were
// written for nothing.
func (b *Upsert) writeChanges(ctx context.Context) ([]*File, error) {
	w := &changeWriter{b: b, ctx: ctx}
	updated, err := w.before()
	if err == nil {
		err = w.after(updated)
	}
	if err == nil {
		err = w.end()
	}
	if w.out != nil {
		w.out.Abort()
	}
	return w.files, err
}

// before writes the rows that go, and returns the places of those that they became,
// by file.
func (w *changeWriter) before() (map[uint32]*roaring64.Bitmap, error) {
	type source struct {
		id   uint32
		file *File
		key  string
	}
	var list []source
	for id := range w.b.dead {
		if w.b.own(id) {
			continue
		}
		f, err := w.b.closed(id)
		if err != nil {
			return nil, err
		}
		list = append(list, source{id, f, partitionKey(f)})
	}
	slices.SortFunc(list, func(a, b source) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.id, b.id)) })
	updated := map[uint32]*roaring64.Bitmap{}
	s := w.b.reading()
	for _, of := range list {
		values, err := s.partitionOf(of.file)
		if err != nil {
			return nil, err
		}
		for rows, err := range s.pickRows(w.ctx, of.file, w.b.dead[of.id]) {
			if err != nil {
				return nil, err
			}
			became, err := w.became(rows, updated)
			if err != nil {
				return nil, err
			}
			if err := w.write(of.key, values, rows, became); err != nil {
				return nil, err
			}
		}
	}
	return updated, nil
}

// became tells what became of rows that go, and notes where those are that were
// updated.
func (w *changeWriter) became(rows *datafile.Batch, updated map[uint32]*roaring64.Bitmap) (*datafile.Column, error) {
	kinds := make([]string, rows.Rows())
	for i := range kinds {
		kinds[i] = ChangeDelete
	}
	if f := w.b.u.finder; !f.multiset {
		cols, err := rows.Columns(f.columns)
		if err != nil {
			return nil, err
		}
		var names rowNames
		list := names.collect(f, &datafile.Batch{Names: f.columns, Cols: cols})
		err = findSorted(w.b.batch, len(list), func(i int) []byte { return list[i].name }, func(i int, at location, ok bool) error {
			if ok && w.b.own(at.file) {
				kinds[list[i].row] = ChangeUpdateFrom
				if updated[at.file] == nil {
					updated[at.file] = roaring64.New()
				}
				updated[at.file].Add(uint64(at.row))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return textColumn(kinds), nil
}

// after writes the rows that were put and are still there.
func (w *changeWriter) after(updated map[uint32]*roaring64.Bitmap) error {
	s := w.b.reading()
	files := slices.Clone(w.b.files)
	keys := map[*newFile]string{}
	for _, f := range files {
		keys[f] = partitionKey(f.file)
	}
	slices.SortFunc(files, func(a, b *newFile) int { return cmp.Or(cmp.Compare(keys[a], keys[b]), cmp.Compare(a.id, b.id)) })
	for _, f := range files {
		dead, from := w.b.dead[f.id], updated[f.id]
		if dead != nil && int64(dead.GetCardinality()) == f.file.Rows {
			continue
		}
		for live, err := range s.ReadFile(w.ctx, f.file, ReadOptions{}) {
			if err != nil {
				return err
			}
			var keep []int32
			var kinds []string
			for row, at := range live.Index {
				switch {
				case dead != nil && dead.Contains(uint64(at)):
					continue
				case from != nil && from.Contains(uint64(at)):
					kinds = append(kinds, ChangeUpdateTo)
				default:
					kinds = append(kinds, ChangeInsert)
				}
				keep = append(keep, int32(row))
			}
			rows := live.Batch
			if len(keep) < len(live.Index) {
				rows = rows.Gather(keep)
			}
			if err := w.write(keys[f], f.part.values, rows, textColumn(kinds)); err != nil {
				return err
			}
		}
	}
	return nil
}

// write writes rows of one partition.
func (w *changeWriter) write(key string, values map[string]*string, rows *datafile.Batch, kinds *datafile.Column) error {
	if rows.Rows() == 0 {
		return nil
	}
	if w.out != nil && (key != w.key || w.out.Bytes() >= w.b.u.o.FileBytes) {
		if err := w.end(); err != nil {
			return err
		}
	}
	if w.out == nil {
		var err error
		if w.out, err = w.b.u.t.NewChangeFile(w.ctx, FileOptions{Schema: w.b.schema, Partition: values}); err != nil {
			return err
		}
		w.key = key
	}
	return w.out.Write(withColumn(rows, ColumnChangeType, kinds))
}

func (w *changeWriter) end() error {
	if w.out == nil {
		return nil
	}
	f, err := w.out.Close()
	w.out = nil
	if err == nil {
		w.files = append(w.files, f)
	}
	return err
}
