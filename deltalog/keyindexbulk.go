package deltalog

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
)

const (
	// heldRuns is how many runs stay in memory, besides those at work.
	heldRuns = 4
	// bulkTableBytes ends a file of the index, in bytes of names and values.
	bulkTableBytes = 96 << 20
	// bulkSerial is up to how many entries are merged by one.
	bulkSerial = 100_000
)

// bulk writes the entries of all rows of a table into an empty index: files are
// read and their entries sorted in parallel, and merged into files of the index.
type bulk struct {
	b   *builder
	dir string

	mu     sync.Mutex
	runs   []*entryRun
	hidden map[uint32]*roaring64.Bitmap
}

// load enters the rows of the files that were added, and returns
// ErrDuplicateKey where two have one key.
func (k *bulk) load(ctx context.Context) (err error) {
	x := k.b.x
	k.dir = x.fs.PathJoin(x.dir, "build")
	if err := x.fs.RemoveAll(k.dir); err != nil {
		return err
	}
	defer func() {
		for _, r := range k.runs {
			_ = r.close()
		}
		_ = x.fs.RemoveAll(k.dir)
	}()
	if err := x.fs.MkdirAll(k.dir, 0o755); err != nil {
		return err
	}
	if err := k.sortAll(ctx); err != nil {
		return err
	}
	tables, err := k.merge(ctx)
	if err != nil || len(tables) == 0 {
		return err
	}
	// What was there makes room: tables that are laid above what was deleted would
	// all be written once more, soon and in the background.
	all := pebble.KeyRange{Start: []byte{nameKey}, End: []byte{nameHash + 1}}
	_, err = x.db.IngestAndExcise(ctx, tables, nil, nil, all)
	return err
}

// sortAll reads all files and leaves sorted runs of their entries.
func (k *bulk) sortAll(ctx context.Context) error {
	workers := runtime.GOMAXPROCS(0)
	g, ctx := errgroup.WithContext(ctx)
	ids, filled := make(chan uint32), make(chan *entryRun)
	g.Go(func() error {
		defer close(ids)
		for _, id := range k.b.added {
			select {
			case ids <- id:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	var readers sync.WaitGroup
	for range min(workers, len(k.b.added)) {
		readers.Add(1)
		g.Go(func() error {
			defer readers.Done()
			return k.readFiles(ctx, ids, filled)
		})
	}
	g.Go(func() error {
		readers.Wait()
		close(filled)
		return nil
	})
	for range workers {
		g.Go(func() error {
			for r := range filled {
				if err := k.sorted(r); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// readFiles turns the rows of files into runs.
func (k *bulk) readFiles(ctx context.Context, ids <-chan uint32, filled chan<- *entryRun) error {
	f := *k.b.finder // its buffers are one goroutine's
	f.buf, f.value = nil, nil
	run := &entryRun{}
	send := func() error {
		if len(run.list) == 0 {
			return nil
		}
		size, count := len(run.bytes)+len(run.bytes)/16, len(run.list)+len(run.list)/16
		if !run.full() {
			size, count = 0, 0 // it is the last
		}
		select {
		case filled <- run:
			// The next is likely to become as large.
			run = &entryRun{bytes: make([]byte, 0, size), list: make([]runEntry, 0, count)}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for id := range ids {
		file := k.b.snap.File(k.b.files[id].Path)
		for live, err := range k.b.snap.ReadFile(ctx, file, ReadOptions{Columns: f.columns}) {
			if err != nil {
				return fmt.Errorf("index keys of %s: %w", file.Path, err)
			}
			for row, at := range live.Index {
				l := location{id, uint32(at)}
				name := f.name(live.Cols, row, l)
				f.value = f.value[:0]
				if !f.multiset {
					f.value = appendLocation(f.value, l)
				}
				run.add(name, f.value)
			}
			if run.full() {
				if err := send(); err != nil {
					return err
				}
			}
		}
		if file.Vector == nil {
			continue
		}
		hidden, err := k.b.snap.ReadVector(ctx, file)
		if err != nil {
			return err
		}
		k.mu.Lock()
		k.hidden[id] = hidden
		k.mu.Unlock()
	}
	return send()
}

// sorted sorts a run and keeps it, on the disk if there are many.
func (k *bulk) sorted(r *entryRun) error {
	r.sort()
	k.mu.Lock()
	n := len(k.runs)
	k.runs = append(k.runs, r)
	k.mu.Unlock()
	if n < heldRuns {
		return nil
	}
	if err := r.spill(k.b.x.fs, k.b.x.fs.PathJoin(k.dir, fmt.Sprintf("%d.run", n))); err != nil {
		return fmt.Errorf("write sorted keys: %w", err)
	}
	return nil
}

// merge writes the entries into tables that can become part of the index.
func (k *bulk) merge(ctx context.Context) ([]string, error) {
	total := 0
	for _, r := range k.runs {
		total += r.count
	}
	bounds := [][]byte{nil}
	if total > bulkSerial {
		bounds = append(bounds, k.cuts(runtime.GOMAXPROCS(0))...)
	}
	tables := make([][]string, len(bounds))
	g, ctx := errgroup.WithContext(ctx)
	for i, from := range bounds {
		var to []byte
		if i+1 < len(bounds) {
			to = bounds[i+1]
		}
		g.Go(func() (err error) {
			w := &tableWriter{k: k, part: i}
			defer func() { err = w.end(err); tables[i] = w.tables }()
			n := 0
			return mergeRuns(k.runs, from, to, func(name, value []byte) error {
				if n++; n%4096 == 0 && ctx.Err() != nil {
					return ctx.Err()
				}
				return w.add(name, value)
			})
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(tables...), nil
}

// cuts returns names that cut the entries into n parts of about one size.
func (k *bulk) cuts(n int) [][]byte {
	var all [][]byte
	for _, r := range k.runs {
		all = append(all, r.samples(8*n)...)
	}
	slices.SortFunc(all, bytes.Compare)
	var cuts [][]byte
	for i := 1; i < n && len(all) > 0; i++ {
		cut := all[i*len(all)/n]
		if len(cuts) == 0 || !bytes.Equal(cuts[len(cuts)-1], cut) {
			cuts = append(cuts, cut)
		}
	}
	return cuts
}

// tableWriter writes entries, which come in order, into tables.
type tableWriter struct {
	k      *bulk
	part   int
	tables []string
	w      *sstable.Writer // nil between tables
	bytes  int
	last   []byte
}

func (t *tableWriter) add(name, value []byte) error {
	if t.last != nil && bytes.Equal(t.last, name) {
		return ErrDuplicateKey
	}
	t.last = append(t.last[:0], name...)
	if t.w == nil {
		x := t.k.b.x
		path := x.fs.PathJoin(t.k.dir, fmt.Sprintf("%d-%d.sst", t.part, len(t.tables)))
		f, err := x.fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return fmt.Errorf("write key index: %w", err)
		}
		o := &pebble.Options{}
		setBlocks(o)
		o.EnsureDefaults()
		t.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), o.MakeWriterOptions(0, x.db.TableFormat()))
		t.bytes = 0
		t.tables = append(t.tables, path)
	}
	if err := t.w.Set(name, value); err != nil {
		return fmt.Errorf("write key index: %w", err)
	}
	if t.bytes += len(name) + len(value); t.bytes >= bulkTableBytes {
		return t.end(nil)
	}
	return nil
}

// end finishes the table that is being written. It returns err, if there is
// one.
func (t *tableWriter) end(err error) error {
	if t.w == nil {
		return err
	}
	closed := t.w.Close()
	t.w = nil
	if err == nil && closed != nil {
		return fmt.Errorf("write key index: %w", closed)
	}
	return err
}
