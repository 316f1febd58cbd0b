// Package storetest has what tests of stores and of tables need: the contract
// of [store.Store] as a suite, a store in memory, and one that fails on
// request. It is not for production.
package storetest

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

	"github.com/millrace-io/millrace/deltalog/store"
)

// Memory is a [store.Store] in memory. It is made by [NewMemory].
type Memory struct {
	prefix string // of names, "" or ending in a slash
	shared *objects
}

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

// Clone returns a store that holds what m holds now.
func (m *Memory) Clone() *Memory {
	m.shared.mu.RLock()
	defer m.shared.mu.RUnlock()
	return &Memory{prefix: m.prefix, shared: &objects{byName: maps.Clone(m.shared.byName)}}
}

// URI implements [store.Store].
func (m *Memory) URI() string { return strings.TrimSuffix("memory:///"+m.prefix, "/") }

// Sub implements [store.Store].
func (m *Memory) Sub(dir string) (store.Store, error) {
	if err := store.CheckName(dir); err != nil {
		return nil, err
	}
	return &Memory{prefix: m.prefix + dir + "/", shared: m.shared}, nil
}

// Get implements [store.Store].
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
		return nil, fmt.Errorf("read %s: %w", name, store.ErrNotExist)
	}
	return o.bytes, nil
}

// OpenRange implements [store.Store].
func (m *Memory) OpenRange(ctx context.Context, name string) (store.Reader, int64, error) {
	b, err := m.get(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	return reader{bytes.NewReader(b)}, int64(len(b)), nil
}

// PutIfAbsent implements [store.Store].
func (m *Memory) PutIfAbsent(ctx context.Context, name string, b []byte) error {
	return m.put(ctx, name, bytes.Clone(b), false)
}

// Put implements [store.Store].
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
		return fmt.Errorf("create %s: %w", name, store.ErrExist)
	}
	m.shared.byName[m.prefix+name] = object{bytes: b, mod: time.Now()}
	return nil
}

// Create implements [store.Store].
func (m *Memory) Create(ctx context.Context, name string) (store.Writer, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	return &writer{ctx: ctx, m: m, name: name}, nil
}

// List implements [store.Store].
func (m *Memory) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(store.Info{}, err)
			return
		}
		if dir, _, found := cutLast(prefix); found && !fs.ValidPath(dir) {
			yield(store.Info{}, fmt.Errorf("list %q: %w", prefix, store.ErrName))
			return
		}
		for _, info := range m.list(prefix, after) {
			if !yield(info, nil) {
				return
			}
		}
	}
}

func (m *Memory) list(prefix, after string) []store.Info {
	m.shared.mu.RLock()
	defer m.shared.mu.RUnlock()
	var infos []store.Info
	for name, o := range m.shared.byName {
		name, ours := strings.CutPrefix(name, m.prefix)
		if ours && strings.HasPrefix(name, prefix) && name > after {
			infos = append(infos, store.Info{Name: name, Size: int64(len(o.bytes)), ModTime: o.mod})
		}
	}
	slices.SortFunc(infos, func(a, b store.Info) int { return strings.Compare(a.Name, b.Name) })
	return infos
}

// Delete implements [store.Store].
func (m *Memory) Delete(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	m.shared.mu.Lock()
	defer m.shared.mu.Unlock()
	delete(m.shared.byName, m.prefix+name)
	return nil
}

func check(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return store.CheckName(name)
}

func cutLast(name string) (dir, base string, found bool) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "", name, false
	}
	return name[:i], name[i+1:], true
}

type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

type writer struct {
	ctx   context.Context
	m     *Memory
	name  string
	buf   bytes.Buffer
	spent bool
}

func (w *writer) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.buf.Write(b)
}

func (w *writer) Commit() error {
	if w.spent {
		return fmt.Errorf("commit %s: %w", w.name, fs.ErrClosed)
	}
	w.spent = true
	return w.m.put(w.ctx, w.name, w.buf.Bytes(), false)
}

func (w *writer) Abort() { w.spent = true }

var _ store.Store = (*Memory)(nil)
