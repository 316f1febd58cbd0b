package activities

import (
	"context"
	"sync"
)

// Budget is the memory that one worker may hold in rows, shared by all its
// lanes. Whoever wants more than is free waits: that is the back-pressure.
type Budget struct {
	mu    sync.Mutex
	free  int64
	total int64
	freed chan struct{}
}

// NewBudget returns a budget of total bytes.
func NewBudget(total int64) *Budget {
	return &Budget{free: total, total: total, freed: make(chan struct{})}
}

// Total returns the bytes that the budget began with.
func (b *Budget) Total() int64 { return b.total }

// Take takes n bytes, waiting until they are free or ctx ends. A request larger
// than the whole budget is granted when everything is free, so that it can be
// served at all.
func (b *Budget) Take(ctx context.Context, n int64) error {
	for {
		b.mu.Lock()
		if b.free >= n || b.free == b.total {
			b.free -= n
			b.mu.Unlock()
			return nil
		}
		freed := b.freed
		b.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TryTake takes n bytes if they are free now.
func (b *Budget) TryTake(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.free < n && b.free != b.total {
		return false
	}
	b.free -= n
	return true
}

// Give returns n bytes.
func (b *Budget) Give(n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	b.free += n
	close(b.freed)
	b.freed = make(chan struct{})
	b.mu.Unlock()
}

// Used returns the bytes that are taken.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total - b.free
}

// Force takes n bytes whether they are free or not: the rows are here already.
func (b *Budget) Force(n int64) {
	b.mu.Lock()
	b.free -= n
	b.mu.Unlock()
}

// Spent tells that nothing is free.
func (b *Budget) Spent() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.free <= 0
}
