package storetest

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-io/millrace/deltalog/store"
)

// ErrFault is what [Chaos] has operations fail with.
var ErrFault = errors.New("injected fault")

// Chaos has operations go wrong at random. Shares are of operations, from 0 to
// 1. The faults follow from the seed and from the order of the operations.
type Chaos struct {
	// Seed begins the sequence of faults.
	Seed uint64
	// Fail is the share that fails before it has any effect.
	Fail float64
	// Lose is the share that has its effect and fails.
	Lose float64
	// Cut is the share of Get, List, Read and Write that fails half-way.
	Cut float64
	// Delay is the longest pause before and after an operation; each draws its
	// own. Zero lets other goroutines run.
	Delay time.Duration
	// Ops are the operations that fail, with their parts. Nil means all.
	Ops []Op

	failed, lost, cuts atomic.Int64

	mu  sync.Mutex
	rnd *rand.Rand
}

// Over returns a store that does as st, but for the faults. Several stores may
// share a sequence.
func (c *Chaos) Over(st store.Store) *Faulty {
	return &Faulty{
		Store: st,
		Before: func(op Op, _ string) error {
			c.wait()
			return c.fault(op, c.Fail, &c.failed)
		},
		After: func(op Op, _ string) error {
			c.wait()
			return c.fault(op, c.Lose, &c.lost)
		},
		Cut: func(op Op, _ string) error { return c.fault(op, c.Cut, &c.cuts) },
	}
}

// Ambiguous returns how many operations have failed before or after their
// effect, which who called them could not tell.
func (c *Chaos) Ambiguous() int64 { return c.failed.Load() + c.lost.Load() }

// Faults returns how many operations have failed before, after and amid their
// effect.
func (c *Chaos) Faults() (before, after, amid int64) {
	return c.failed.Load(), c.lost.Load(), c.cuts.Load()
}

func (c *Chaos) fault(op Op, share float64, count *atomic.Int64) error {
	if share == 0 || c.Ops != nil && !slices.Contains(c.Ops, op) || c.draw() >= share {
		return nil
	}
	count.Add(1)
	return ErrFault
}

func (c *Chaos) wait() {
	if c.Delay == 0 {
		runtime.Gosched()
		return
	}
	time.Sleep(time.Duration(c.draw() * float64(c.Delay)))
}

// draw returns a number from 0 up to 1.
func (c *Chaos) draw() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rnd == nil {
		c.rnd = rand.New(rand.NewPCG(c.Seed, 1))
	}
	return c.rnd.Float64()
}
