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
		b, err = f.Store.Get(ctx, name)
		return err
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
	return r, size, nil
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
	return &Faulty{Store: sub, Before: f.Before, After: f.After}, nil
}

// URI implements [store.Store].
func (f *Faulty) URI() string { return f.Store.URI() }

type faultyWriter struct {
	store.Writer
	f    *Faulty
	name string
}

func (w *faultyWriter) Commit() error {
	return w.f.do(Commit, w.name, w.Writer.Commit)
}

var _ store.Store = (*Faulty)(nil)
