package storetest

import (
	"context"
	"iter"

	"github.com/millrace-io/millrace/deltalog/store"
)

// Op names a method of a store.
type Op string

// The operations that [Faulty] reports. A Create is reported when it begins
// and its Commit when that is called.
const (
	Get         Op = "get"
	OpenRange   Op = "open"
	PutIfAbsent Op = "put-if-absent"
	Put         Op = "put"
	Create      Op = "create"
	Commit      Op = "commit"
	List        Op = "list"
	Delete      Op = "delete"
)

// Parts of operations, which a [Faulty] reports to its Cut alone.
const (
	Read  Op = "read"  // of an opened object
	Write Op = "write" // to an object that is being created
)

// Faulty passes calls on to a store and fails where its functions say so. It
// serves to count operations too.
type Faulty struct {
	// Store does the work.
	Store store.Store
	// Before is called before an operation; its error is returned instead, and
	// nothing happens. Nil means never. It may be called concurrently.
	Before func(op Op, name string) error
	// After is called after an operation that succeeded; its error is returned
	// although the effect is there, like a lost reply. Nil means never. It may
	// be called concurrently.
	After func(op Op, name string) error
	// Cut is called in the middle of a Get, List, Read or Write; its error is
	// returned when half the bytes or names have been passed on. Nil means
	// never. It may be called concurrently.
	Cut func(op Op, name string) error
}

func (f *Faulty) before(op Op, name string) error {
	if f.Before == nil {
		return nil
	}
	return f.Before(op, name)
}

func (f *Faulty) after(op Op, name string) error {
	if f.After == nil {
		return nil
	}
	return f.After(op, name)
}

func (f *Faulty) cut(op Op, name string) error {
	if f.Cut == nil {
		return nil
	}
	return f.Cut(op, name)
}

// do runs one operation between its two faults.
func (f *Faulty) do(op Op, name string, run func() error) error {
	if err := f.before(op, name); err != nil {
		return err
	}
	if err := run(); err != nil {
		return err
	}
	return f.after(op, name)
}

// Get implements [store.Store].
func (f *Faulty) Get(ctx context.Context, name string) (b []byte, err error) {
	err = f.do(Get, name, func() (err error) {
		if b, err = f.Store.Get(ctx, name); err != nil {
			return err
		}
		return f.cut(Get, name)
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// OpenRange implements [store.Store].
func (f *Faulty) OpenRange(ctx context.Context, name string) (store.Reader, int64, error) {
	if err := f.before(OpenRange, name); err != nil {
		return nil, 0, err
	}
	r, size, err := f.Store.OpenRange(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	if err := f.after(OpenRange, name); err != nil {
		_ = r.Close()
		return nil, 0, err
	}
	return &faultyReader{Reader: r, f: f, name: name}, size, nil
}

// PutIfAbsent implements [store.Store].
func (f *Faulty) PutIfAbsent(ctx context.Context, name string, b []byte) error {
	return f.do(PutIfAbsent, name, func() error { return f.Store.PutIfAbsent(ctx, name, b) })
}

// Put implements [store.Store].
func (f *Faulty) Put(ctx context.Context, name string, b []byte) error {
	return f.do(Put, name, func() error { return f.Store.Put(ctx, name, b) })
}

// Create implements [store.Store].
func (f *Faulty) Create(ctx context.Context, name string) (store.Writer, error) {
	if err := f.before(Create, name); err != nil {
		return nil, err
	}
	w, err := f.Store.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	return &faultyWriter{Writer: w, f: f, name: name}, nil
}

// List implements [store.Store].
func (f *Faulty) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		if err := f.before(List, prefix); err != nil {
			yield(store.Info{}, err)
			return
		}
		if err := f.cut(List, prefix); err != nil {
			f.listHalf(ctx, prefix, after, err, yield)
			return
		}
		for info, err := range f.Store.List(ctx, prefix, after) {
			if !yield(info, err) || err != nil {
				return
			}
		}
		if err := f.after(List, prefix); err != nil {
			yield(store.Info{}, err)
		}
	}
}

// listHalf yields the first half of a listing, and then an error.
func (f *Faulty) listHalf(ctx context.Context, prefix, after string, cut error, yield func(store.Info, error) bool) {
	var infos []store.Info
	for info, err := range f.Store.List(ctx, prefix, after) {
		if err != nil {
			cut = err
			break
		}
		infos = append(infos, info)
	}
	for _, info := range infos[:len(infos)/2] {
		if !yield(info, nil) {
			return
		}
	}
	yield(store.Info{}, cut)
}

// Delete implements [store.Store].
func (f *Faulty) Delete(ctx context.Context, name string) error {
	return f.do(Delete, name, func() error { return f.Store.Delete(ctx, name) })
}

// Sub implements [store.Store]. The faults apply there too, with the names of
// the store returned.
func (f *Faulty) Sub(dir string) (store.Store, error) {
	sub, err := f.Store.Sub(dir)
	if err != nil {
		return nil, err
	}
	return &Faulty{Store: sub, Before: f.Before, After: f.After, Cut: f.Cut}, nil
}

// URI implements [store.Store].
func (f *Faulty) URI() string { return f.Store.URI() }

type faultyReader struct {
	store.Reader
	f    *Faulty
	name string
}

func (r *faultyReader) ReadAt(b []byte, off int64) (int, error) {
	if err := r.f.cut(Read, r.name); err != nil {
		n, _ := r.Reader.ReadAt(b[:len(b)/2], off)
		return n, err
	}
	return r.Reader.ReadAt(b, off)
}

type faultyWriter struct {
	store.Writer
	f    *Faulty
	name string
}

func (w *faultyWriter) Write(b []byte) (int, error) {
	if err := w.f.cut(Write, w.name); err != nil {
		n, _ := w.Writer.Write(b[:len(b)/2])
		return n, err
	}
	return w.Writer.Write(b)
}

func (w *faultyWriter) Commit() error {
	return w.f.do(Commit, w.name, w.Writer.Commit)
}

var _ store.Store = (*Faulty)(nil)
