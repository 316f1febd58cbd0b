package lake

import (
	"slices"
	"sync"
)

// indexes bounds how many key indexes are open: the one that was not used for
// longest is closed for another.
type indexes struct {
	limit int

	mu   sync.Mutex
	open []*table // the one used last is last
}

// used notes that t's index is open and wanted, and closes another where there
// are too many. The caller holds t.applying.
func (x *indexes) used(t *table) {
	x.mu.Lock()
	x.open = append(slices.DeleteFunc(x.open, func(o *table) bool { return o == t }), t)
	idle := slices.Clone(x.open[:max(len(x.open)-x.limit, 0)])
	x.mu.Unlock()
	for _, o := range idle {
		// One that is busy stays open for now.
		if o.applying.TryLock() {
			o.closeIndex()
			o.applying.Unlock()
		}
	}
}

// closed notes that t's index is closed.
func (x *indexes) closed(t *table) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.open = slices.DeleteFunc(x.open, func(o *table) bool { return o == t })
}

// closeAll closes all indexes once they are idle.
func (x *indexes) closeAll() {
	x.mu.Lock()
	all := slices.Clone(x.open)
	x.mu.Unlock()
	for _, t := range all {
		t.applying.Lock()
		t.closeIndex()
		t.applying.Unlock()
	}
}
