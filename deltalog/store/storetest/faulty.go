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
	// Cut is called in the middle of a Get, List, Read or Write, when half the
	// bytes or names have passed; its error ends the operation there. Nil means
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
		if f.Cut == nil {
			return nil
		}
		return f.Cut(Get, name)
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
		for info, err := range f.list(ctx, prefix, after) {
			if !yield(info, err) || err != nil {
				return
			}
		}
		if err := f.after(List, prefix); err != nil {
			yield(store.Info{}, err)
		}
	}
}

// list lists, and may be cut in the middle.
func (f *Faulty) list(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	if f.Cut == nil {
		return f.Store.List(ctx, prefix, after)
	}
	return func(yield func(store.Info, error) bool) {
		var infos []store.Info
		var end error
		for info, err := range f.Store.List(ctx, prefix, after) {
			if end = err; err == nil {
				infos = append(infos, info)
			}
		}
		for i, info := range infos {
			if i == len(infos)/2 {
				if err := f.Cut(List, prefix); err != nil {
					yield(store.Info{}, err)
					return
				}
			}
			if !yield(info, nil) {
				return
			}
		}
		if end != nil {
			yield(store.Info{}, end)
		}
	}
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
	if r.f.Cut == nil {
		return r.Reader.ReadAt(b, off)
	}
	n, err := r.Reader.ReadAt(b[:len(b)/2], off)
	if err != nil {
		return n, err
	}
	if err := r.f.Cut(Read, r.name); err != nil {
		return n, err
	}
	m, err := r.Reader.ReadAt(b[n:], off+int64(n))
	return n + m, err
}

type faultyWriter struct {
	store.Writer
	f    *Faulty
	name string
}

func (w *faultyWriter) Write(b []byte) (int, error) {
	if w.f.Cut == nil {
		return w.Writer.Write(b)
	}
	n, err := w.Writer.Write(b[:len(b)/2])
	if err != nil {
		return n, err
	}
	if err := w.f.Cut(Write, w.name); err != nil {
		return n, err
	}
	m, err := w.Writer.Write(b[n:])
	return n + m, err
}

func (w *faultyWriter) Commit() error {
	return w.f.do(Commit, w.name, w.Writer.Commit)
}

var _ store.Store = (*Faulty)(nil)
