package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// probeTime is how long the clean-up of a probe may take.
const probeTime = 30 * time.Second

// Probe finds out whether a store keeps the promise of PutIfAbsent, on which
// every commit rests: it creates an object whose name begins with _probe-
// twice, and deletes it. A store that lets the second in gives
// ErrUnconditional. Readers have no need of it.
func Probe(ctx context.Context, st Store) error {
	name := "_probe-" + rand.Text()
	err := probe(ctx, st, name)
	// Also where it is not known whether anything was written.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTime)
	defer cancel()
	if cleaned := st.Delete(clean, name); err == nil {
		err = cleaned
	}
	if err != nil {
		return fmt.Errorf("probe store %s: %w", st.URI(), err)
	}
	return nil
}

func probe(ctx context.Context, st Store, name string) error {
	if err := st.PutIfAbsent(ctx, name, []byte("first")); err != nil {
		return err
	}
	switch err := st.PutIfAbsent(ctx, name, []byte("second")); {
	case err == nil:
		return fmt.Errorf("%w: two writers would destroy each other's commits: use a store that honours If-None-Match", ErrUnconditional)
	case errors.Is(err, ErrExist):
		return nil
	default:
		return err
	}
}
