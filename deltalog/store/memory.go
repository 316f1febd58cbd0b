package store

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Memory keeps objects in memory, for tests and for tables that need not
// outlive the process. It is made by [NewMemory].
type Memory struct {
	prefix string // of names, "" or ending in a slash
	shared *objects
}

// objects are what a store shares with those below it.
type objects struct {
	mu     sync.RWMutex
	byName map[string]object
}

type object struct {
	bytes []byte // never changed
	mod   time.Time
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{shared: &objects{byName: map[string]object{}}}
}

// Clone returns a store that holds what m holds now, and from then on is
// another.
func (m *Memory) Clone() *Memory {
	m.shared.mu.RLock()
	defer m.shared.mu.RUnlock()
	return &Memory{prefix: m.prefix, shared: &objects{byName: maps.Clone(m.shared.byName)}}
}

// URI implements [Store].
func (m *Memory) URI() string { return strings.TrimSuffix("memory:///"+m.prefix, "/") }

// Sub implements [Store].
func (m *Memory) Sub(dir string) (Store, error) {
	if err := CheckName(dir); err != nil {
		return nil, err
	}
	return &Memory{prefix: m.prefix + dir + "/", shared: m.shared}, nil
}

// Get implements [Store].
func (m *Memory) Get(ctx context.Context, name string) ([]byte, error) {
	b, err := m.get(ctx, name)
	return bytes.Clone(b), err
}

func (m *Memory) get(ctx context.Context, name string) ([]byte, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	m.shared.mu.RLock()
	defer m.shared.mu.RUnlock()
	o, ok := m.shared.byName[m.prefix+name]
	if !ok {
		return nil, fmt.Errorf("read %s: %w", name, ErrNotExist)
	}
	return o.bytes, nil
}

// OpenRange implements [Store].
func (m *Memory) OpenRange(ctx context.Context, name string) (Reader, int64, error) {
	b, err := m.get(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	return &memoryReader{Reader: bytes.NewReader(b), ctx: ctx}, int64(len(b)), nil
}

// PutIfAbsent implements [Store].
func (m *Memory) PutIfAbsent(ctx context.Context, name string, b []byte) error {
	return m.put(ctx, name, bytes.Clone(b), false)
}

// Put implements [Store].
func (m *Memory) Put(ctx context.Context, name string, b []byte) error {
	return m.put(ctx, name, bytes.Clone(b), true)
}

func (m *Memory) put(ctx context.Context, name string, b []byte, replace bool) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	m.shared.mu.Lock()
	defer m.shared.mu.Unlock()
	if _, taken := m.shared.byName[m.prefix+name]; taken && !replace {
		return fmt.Errorf("create %s: %w", name, ErrExist)
	}
	m.shared.byName[m.prefix+name] = object{bytes: b, mod: time.Now()}
	return nil
}

// Create implements [Store].
func (m *Memory) Create(ctx context.Context, name string) (Writer, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	return &memoryWriter{ctx: ctx, m: m, name: name}, nil
}

// List implements [Store].
func (m *Memory) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(Info{}, err)
			return
		}
		if err := CheckPrefix(prefix); err != nil {
			yield(Info{}, err)
			return
		}
		for _, info := range m.list(prefix, after) {
			if !yield(info, nil) {
				return
			}
		}
	}
}

func (m *Memory) list(prefix, after string) []Info {
	m.shared.mu.RLock()
	defer m.shared.mu.RUnlock()
	var infos []Info
	for name, o := range m.shared.byName {
		name, ours := strings.CutPrefix(name, m.prefix)
		if ours && strings.HasPrefix(name, prefix) && name > after {
			infos = append(infos, Info{Name: name, Size: int64(len(o.bytes)), ModTime: o.mod})
		}
	}
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return infos
}

// Delete implements [Store].
func (m *Memory) Delete(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	m.shared.mu.Lock()
	defer m.shared.mu.Unlock()
	delete(m.shared.byName, m.prefix+name)
	return nil
}

// check returns an error where the context has ended or the name is none.
func check(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return CheckName(name)
}

// memoryReader reads an object while its context lasts.
type memoryReader struct {
	*bytes.Reader
	ctx context.Context
}

func (r *memoryReader) ReadAt(b []byte, off int64) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.ReadAt(b, off)
}

func (r *memoryReader) Close() error { return nil }

type memoryWriter struct {
	ctx   context.Context
	m     *Memory
	name  string
	buf   bytes.Buffer
	spent bool
}

func (w *memoryWriter) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	if w.spent {
		return 0, fmt.Errorf("write %s: %w", w.name, fs.ErrClosed)
	}
	return w.buf.Write(b)
}

func (w *memoryWriter) Commit() error {
	if w.spent {
		return fmt.Errorf("commit %s: %w", w.name, fs.ErrClosed)
	}
	w.spent = true
	return w.m.put(w.ctx, w.name, w.buf.Bytes(), false)
}

func (w *memoryWriter) Abort() { w.spent = true }

var _ Store = (*Memory)(nil)
