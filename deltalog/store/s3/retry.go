package s3

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// Attempts at a request, and the pauses between them: each up to twice as long
// as the one before, and drawn so that many clients do not come back at once.
const (
	attempts   = 6
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
)

// An attempt may take as long as its bytes take at the lowest speed that is
// borne, and this beside.
const (
	attemptTime  = 30 * time.Second
	bytesASecond = 128 << 10
)

// doubtful is the error of a request after attempts whose outcome is open.
type doubtful struct {
	first error // what hid the outcome of the first of them
	last  error // the error of the last attempt
}

func (d *doubtful) Error() string { return d.last.Error() }
func (d *doubtful) Unwrap() error { return d.last }

// try sends a request of size bytes until it succeeds, is refused, or has been
// sent often enough. When an attempt before the last may have had its effect,
// the error is a *doubtful.
func (b *bucket) try(ctx context.Context, size int64, send func(context.Context) error) error {
	limit := attemptTime + time.Duration(size/bytesASecond)*time.Second
	pause := b.pause
	var doubt error
	renewed := b.cache == nil
	for n := 1; ; n++ {
		once, cancel := context.WithTimeout(ctx, limit)
		err := send(once)
		timedOut := once.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil {
			return nil
		}
		if timedOut {
			err = fmt.Errorf("no answer within %s: %w", limit, err)
		}
		what := judge(err)
		if !renewed && isOutdated(err) {
			b.cache.Invalidate()
			renewed, what = true, again
		}
		if what == final || n == attempts || ctx.Err() != nil {
			return ended(ctx, doubt, err)
		}
		if what == maybe && doubt == nil {
			doubt = err
		}
		select {
		case <-ctx.Done():
			return ended(ctx, doubt, err)
		case <-time.After(pause/2 + rand.N(pause/2+1)):
			pause = min(2*pause, maxPause)
		}
	}
}

// ended returns the error of a request that is not sent again. Doubt is nil unless
// an attempt before may have had its effect.
func ended(ctx context.Context, doubt, err error) error {
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	if doubt != nil {
		return &doubtful{first: doubt, last: err}
	}
	return err
}
