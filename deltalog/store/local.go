package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Local keeps objects as files below a folder. An object appears by link(2)
// from a hidden temporary file, so that it is whole, and never replaces
// another. A crash can leave such a file behind; its name begins with a dot
// and ends in .tmp, and no listing shows it.
type Local struct {
	root string
}

// NewLocal returns the store below the folder root, which is created with the
// first object.
func NewLocal(root string) (*Local, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w", root, err)
	}
	return &Local{root: abs}, nil
}

// localPath returns the path of a file URI without its scheme.
func localPath(rest string) (string, error) {
	path, err := url.PathUnescape(rest)
	if err != nil {
		return "", err
	}
	path = strings.TrimPrefix(path, "localhost")
	if !strings.HasPrefix(path, "/") {
		return "", fmt.Errorf("%w: a file URI has three slashes, as in file:///path", ErrUnsupported)
	}
	return path, nil
}

// URI returns the folder as a file URI.
func (l *Local) URI() string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(l.root)}).String()
}

// path returns where an object of this name is, or would be, kept.
func (l *Local) path(name string) (string, error) {
	if err := CheckName(name); err != nil {
		return "", err
	}
	return filepath.Join(l.root, filepath.FromSlash(name)), nil
}

// Sub implements [Store].
func (l *Local) Sub(dir string) (Store, error) {
	path, err := l.path(dir)
	if err != nil {
		return nil, err
	}
	return &Local{root: path}, nil
}

// Get implements [Store].
func (l *Local) Get(ctx context.Context, name string) ([]byte, error) {
	path, err := l.begin(ctx, name)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	return b, l.read(err, name)
}

// OpenRange implements [Store].
func (l *Local) OpenRange(ctx context.Context, name string) (Reader, int64, error) {
	path, err := l.begin(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, l.read(err, name)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = &fs.PathError{Op: "open", Path: path, Err: syscall.EISDIR}
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, l.read(err, name)
	}
	return &localReader{File: f, ctx: ctx}, info.Size(), nil
}

// localReader reads a file while its context lasts.
type localReader struct {
	*os.File
	ctx context.Context
}

func (r *localReader) ReadAt(b []byte, off int64) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.File.ReadAt(b, off)
}

// read names the object in an error of reading it. A folder is no object, and
// nothing is below an object.
func (l *Local) read(err error, name string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read %s in %s: %w", name, l.root, ErrNotExist)
	}
	return fail("read", filepath.Join(l.root, filepath.FromSlash(name)), err)
}

// fail names the act and the file of an error, rather than the temporary file
// that it happened to, and says what to do where that is known.
func fail(act, path string, err error) error {
	cause := err
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		cause = e.Err
	} else if e, ok := errors.AsType[*os.LinkError](err); ok {
		cause = e.Err
	}
	for _, r := range remedies {
		if errors.Is(cause, r.errno) {
			return fmt.Errorf("%s %s: %w: %s", act, path, cause, r.what)
		}
	}
	return fmt.Errorf("%s %s: %w", act, path, cause)
}

// remedies say what to do about the errors of a disk.
var remedies = []struct {
	errno syscall.Errno
	what  string
}{
	{syscall.ENOSPC, "free space on that disk"},
	{syscall.EDQUOT, "raise the quota of this user, or free some of it"},
	{syscall.EFBIG, "raise the limit on the size of files (ulimit -f)"},
	{syscall.EROFS, "mount the file system for writing"},
	{syscall.EACCES, "let this user read and write the file and pass through its folders"},
	{syscall.EPERM, "let this user write there"},
	{syscall.EMFILE, "raise the limit on open files (ulimit -n)"},
}

// PutIfAbsent implements [Store]. What fails before the link is ErrNotWritten.
func (l *Local) PutIfAbsent(ctx context.Context, name string, b []byte) error {
	w, err := l.create(ctx, name)
	if err != nil {
		return notWritten{err}
	}
	defer w.Abort()
	if _, err := w.Write(b); err != nil {
		return notWritten{err}
	}
	return w.Commit()
}

// notWritten is an error that is ErrNotWritten too, and says no more for it.
type notWritten struct{ error }

func (e notWritten) Unwrap() []error { return []error{e.error, ErrNotWritten} }

// Put implements [Store].
func (l *Local) Put(ctx context.Context, name string, b []byte) error {
	w, err := l.create(ctx, name)
	if err != nil {
		return err
	}
	defer w.Abort()
	w.replace = true
	if _, err := w.Write(b); err != nil {
		return err
	}
	return w.Commit()
}

// Create implements [Store].
func (l *Local) Create(ctx context.Context, name string) (Writer, error) {
	w, err := l.create(ctx, name)
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Delete implements [Store].
func (l *Local) Delete(ctx context.Context, name string) error {
	path, err := l.begin(ctx, name)
	if err != nil {
		return err
	}
	switch err := os.Remove(path); {
	case err == nil:
		if err := syncDir(filepath.Dir(path)); err != nil {
			return fail("delete", path, err)
		}
		return nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil
	default:
		return fail("delete", path, err)
	}
}

// begin returns the path of an object unless its name or the context is bad.
func (l *Local) begin(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return l.path(name)
}

// create opens a temporary file beside where the object will be.
func (l *Local) create(ctx context.Context, name string) (*localWriter, error) {
	path, err := l.begin(ctx, name)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	tmp := filepath.Join(dir, "."+rand.Text()+".tmp")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeDir(dir); err == nil {
			f, err = os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		}
	}
	if err != nil {
		return nil, fail("create", path, err)
	}
	return &localWriter{ctx: ctx, name: name, path: path, f: f}, nil
}

// makeDir makes a folder and those above it, durably.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o777)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o777)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// localWriter fills a temporary file.
type localWriter struct {
	ctx     context.Context
	name    string
	path    string
	f       *os.File // nil once committed or aborted
	replace bool
}

func (w *localWriter) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	if w.f == nil {
		return 0, fmt.Errorf("write %s: %w", w.name, fs.ErrClosed)
	}
	n, err := w.f.Write(b)
	if err != nil {
		return n, fail("write", w.path, err)
	}
	return n, nil
}

func (w *localWriter) Commit() error {
	if w.f == nil {
		return fmt.Errorf("commit %s: %w", w.name, fs.ErrClosed)
	}
	defer w.Abort()
	if err := w.ctx.Err(); err != nil {
		return notWritten{err}
	}
	if err := w.f.Sync(); err != nil {
		return notWritten{fail("write", w.path, err)}
	}
	// Opened before there is something to make durable, so that what this user
	// may not do is not half done.
	dir, err := os.Open(filepath.Dir(w.path))
	if err != nil {
		return notWritten{fail("create", w.path, err)}
	}
	defer func() { _ = dir.Close() }()
	if w.replace {
		err = os.Rename(w.f.Name(), w.path)
	} else {
		err = os.Link(w.f.Name(), w.path)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("create %s: %w", w.name, ErrExist)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT): // for the name
		return notWritten{fail("create", w.path, err)}
	case err != nil:
		return fail("create", w.path, err)
	}
	// It is there from here on, if not for good.
	if err := dir.Sync(); err != nil {
		return fail("create", w.path, err)
	}
	return nil
}

func (w *localWriter) Abort() {
	if w.f == nil {
		return
	}
	_ = w.f.Close()
	_ = os.Remove(w.f.Name())
	w.f = nil
}

// linkFrom links an object of another local store into this one.
func (l *Local) linkFrom(src Store, srcName, dstName string) (bool, error) {
	from, ok := src.(*Local)
	if !ok {
		return false, nil
	}
	oldPath, err := from.path(srcName)
	if err != nil {
		return false, err
	}
	newPath, err := l.path(dstName)
	if err != nil {
		return false, err
	}
	dir := filepath.Dir(newPath)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := makeDir(dir); err != nil {
			return false, fmt.Errorf("create %s: %w", dstName, err)
		}
	}
	switch err := os.Link(oldPath, newPath); {
	case err == nil:
		// Whoever deletes what has been nobody's for long goes by when an object
		// was written: this one is, now.
		now := time.Now()
		if err := os.Chtimes(newPath, now, now); err != nil {
			return true, fmt.Errorf("create %s: %w", dstName, err)
		}
		return true, syncDir(dir)
	case errors.Is(err, fs.ErrExist):
		return false, fmt.Errorf("create %s: %w", dstName, ErrExist)
	case errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("link %s: %w", srcName, ErrNotExist)
	}
	// Another file system, or one without links: the bytes are copied.
	return false, nil
}

// List implements [Store].
func (l *Local) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := CheckPrefix(prefix); err != nil {
			yield(Info{}, err)
			return
		}
		dir, _, _ := cutLast(prefix)
		l.walk(ctx, dir, prefix, after, yield)
	}
}

// walk lists one folder and those in it, and tells whether to go on.
func (l *Local) walk(ctx context.Context, dir, prefix, after string, yield func(Info, error) bool) bool {
	stop := func(err error) bool {
		yield(Info{}, err)
		return false
	}
	if err := ctx.Err(); err != nil {
		return stop(fmt.Errorf("list %q: %w", prefix, err))
	}
	folder := filepath.Join(l.root, filepath.FromSlash(dir))
	entries, err := os.ReadDir(folder)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return true
		}
		return stop(fail("list", folder, err))
	}
	// Objects sort by their whole names: a folder's as if it ended in a slash.
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(sortName(a), sortName(b)) })
	for _, e := range entries {
		name := e.Name()
		if dir != "" {
			name = dir + "/" + name
		}
		if CheckName(name) != nil {
			continue // not of a store
		}
		if e.IsDir() {
			below := name + "/"
			wanted := strings.HasPrefix(below, prefix) || strings.HasPrefix(prefix, below)
			past := below < after && !strings.HasPrefix(after, below)
			if wanted && !past && !l.walk(ctx, name, prefix, after, yield) {
				return false
			}
			continue
		}
		if !strings.HasPrefix(name, prefix) || name <= after || isTemporary(e.Name()) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since the folder was read
		}
		if err != nil {
			return stop(fail("list", folder, err))
		}
		if !yield(Info{Name: name, Size: info.Size(), ModTime: info.ModTime()}, nil) {
			return false
		}
	}
	return true
}

func sortName(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}

func isTemporary(base string) bool {
	return strings.HasPrefix(base, ".") && strings.HasSuffix(base, ".tmp")
}

// cutLast splits a name at its last slash.
func cutLast(name string) (dir, base string, found bool) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "", name, false
	}
	return name[:i], name[i+1:], true
}

var (
	_ Store  = (*Local)(nil)
	_ Writer = (*localWriter)(nil)
)
