// Package store is the small part of an object store that a Delta table
// needs: whole objects, created once, found by name.
//
// [Local] keeps them as files, [Memory] in memory, and package store/s3 in a
// bucket. Package store/stores opens any of them by URI. Another kind is a type
// with the methods of [Store] that passes store/storetest.Run. The package
// knows nothing of Delta.
//
// Names are slash-separated, relative, and in the form that [io/fs.ValidPath]
// accepts, so they cannot leave the root of their store. Objects are never
// changed once they are there, except through [Store.Put].
//
// A commit of a table is one call of PutIfAbsent, and two writers at the same
// time are told apart by its promise alone. Not every server keeps it: [Probe]
// finds out.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
	"time"
)

// Errors that a caller tells apart with [errors.Is].
var (
	// ErrNotExist says that there is no object of that name.
	ErrNotExist = fs.ErrNotExist
	// ErrExist says that the name is taken.
	ErrExist = fs.ErrExist
	// ErrName says that a name is not one a store can hold.
	ErrName = errors.New("not a valid object name")
	// ErrPermission says that the object may not be read or written.
	ErrPermission = fs.ErrPermission
	// ErrNotWritten says that a write failed before it had any effect: whatever is
	// there under that name is another's.
	ErrNotWritten = errors.New("nothing was written")
	// ErrUnconditional says that a store breaks the promise of PutIfAbsent.
	ErrUnconditional = errors.New("the store replaces objects that are there already")
	// ErrUnsupported says that no implementation serves a URI.
	ErrUnsupported = errors.New("store not supported")
)

// Store holds objects under names. Its methods may be called concurrently.
//
// A write that returns an error wrapping a sentinel has had no effect. Any other
// error leaves its outcome open: the object may or may not be there.
type Store interface {
	// Get returns all bytes of an object, which the caller owns, or
	// ErrNotExist.
	Get(ctx context.Context, name string) ([]byte, error)
	// OpenRange opens an object for reads at any offset and returns its size
	// in bytes, or ErrNotExist. The context covers the reads too.
	OpenRange(ctx context.Context, name string) (Reader, int64, error)
	// PutIfAbsent writes all of b or nothing; ErrExist when name is taken. Of
	// many concurrent calls for one name one alone succeeds. The object is
	// durable when the call returns.
	PutIfAbsent(ctx context.Context, name string, b []byte) error
	// Put writes b under name, whether it is taken or not. Readers see the old
	// bytes or the new ones, never a mixture.
	Put(ctx context.Context, name string, b []byte) error
	// Create begins an object whose bytes come piece by piece. It is there
	// only once its writer is committed.
	Create(ctx context.Context, name string) (Writer, error)
	// List yields the objects whose names begin with prefix and sort after
	// the name after, in byte order of their names. An empty prefix means all,
	// an empty after means from the start. What has a name that no object has,
	// as others can leave it there, is passed over. It ends with the first error.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]
	// Delete removes an object. One that is not there is no error.
	Delete(ctx context.Context, name string) error
	// Sub returns the store of the objects whose names begin with dir and a
	// slash; its names are what follows.
	Sub(dir string) (Store, error)
	// URI says where the store is, without a slash at the end.
	URI() string
}

// Reader reads an opened object. Close releases it.
type Reader interface {
	io.ReaderAt
	io.Closer
}

// Writer receives the bytes of an object that is being created. It is used by
// one goroutine, and ends with one call of Commit or any number of Abort.
type Writer interface {
	io.Writer
	// Commit makes the object durable and visible, or returns ErrExist when
	// the name has been taken meanwhile. The writer is spent either way.
	Commit() error
	// Abort drops what was written. After Commit it does nothing.
	Abort()
}

// Info describes an object in a listing.
type Info struct {
	// Name is relative to the store that was listed.
	Name string
	// Size is in bytes.
	Size int64
	// ModTime is when the object was written.
	ModTime time.Time
}

// CheckName returns an error wrapping ErrName unless name can be the name of
// an object.
func CheckName(name string) error {
	if name == "." || !fs.ValidPath(name) || strings.ContainsAny(name, "\x00\\") {
		return fmt.Errorf("object %q: %w", name, ErrName)
	}
	return nil
}

// CheckPrefix returns an error wrapping ErrName unless prefix can begin the name
// of an object. Empty, it begins all of them.
func CheckPrefix(prefix string) error {
	if dir, _, found := cutLast(prefix); found && !fs.ValidPath(dir) {
		return fmt.Errorf("list %q: %w", prefix, ErrName)
	}
	return nil
}

// OpenURI returns the store at a URI: file:///path, or a path on this machine.
// Nothing is created or looked at before the first use. Other schemes give
// ErrUnsupported; package store/stores knows s3:// as well.
func OpenURI(uri string) (Store, error) {
	scheme, rest, found := strings.Cut(uri, "://")
	switch {
	case uri == "":
		return nil, fmt.Errorf("open store: %w: the URI is empty", ErrUnsupported)
	case !found:
		return NewLocal(uri)
	case scheme == "file":
		path, err := localPath(rest)
		if err != nil {
			return nil, fmt.Errorf("open store %q: %w", uri, err)
		}
		return NewLocal(path)
	}
	return nil, fmt.Errorf("open store %q: %w: %s:// is none of file:///path, a path, or, where package store/stores opens it, s3://bucket/prefix", uri, ErrUnsupported, scheme)
}

// Link places the object srcName of src under dstName in dst, or returns
// ErrExist when that is taken, or ErrNotExist. Between local stores of one
// file system no bytes are copied.
func Link(ctx context.Context, dst Store, dstName string, src Store, srcName string) error {
	if d, ok := dst.(linker); ok {
		done, err := d.linkFrom(src, srcName, dstName)
		if done || err != nil {
			return err
		}
	}
	r, size, err := src.OpenRange(ctx, srcName)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	w, err := dst.Create(ctx, dstName)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := io.Copy(w, io.NewSectionReader(r, 0, size)); err != nil {
		return fmt.Errorf("copy %s to %s: %w", srcName, dstName, err)
	}
	return w.Commit()
}

// linker is a store that can sometimes share an object's bytes with another.
type linker interface {
	// linkFrom tells whether it placed the object; if not, without an error,
	// the bytes are to be copied.
	linkFrom(src Store, srcName, dstName string) (bool, error)
}
