package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/deltalog/store"
)

// The part of the contract that is about many bytes and many names.

// largeSize is more than one part, window or page of any store.
const largeSize = 17<<20 + 12345

func random(n int) []byte {
	b := make([]byte, n)
	rnd := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = rnd.Read(b)
	return b
}

func large(t *testing.T, st store.Store) {
	want := random(largeSize)
	w, err := st.Create(t.Context(), "d/large")
	must(t, err)
	defer w.Abort()
	for at, step := 0, 1; at < len(want); step = step*3 + 1 {
		piece := bytes.Clone(want[at:min(at+step%(5<<20), len(want))])
		n, err := w.Write(piece)
		must(t, err)
		if n != len(piece) {
			t.Fatalf("wrote %d bytes of %d", n, len(piece))
		}
		clear(piece) // the writer has its own
		at += n
	}
	wantAbsent(t, st, "d/large")
	wantList(t, st, "", "")
	must(t, w.Commit())
	got, err := st.Get(t.Context(), "d/large")
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatalf("%d bytes came back, and not those written", len(got))
	}

	r, size, err := st.OpenRange(t.Context(), "d/large")
	must(t, err)
	defer func() { must(t, r.Close()) }()
	if size != largeSize {
		t.Fatalf("size %d, want %d", size, largeSize)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(g)))
			at := int64(0)
			for range 50 {
				if rnd.IntN(3) == 0 { // go on, or go elsewhere
					at = rnd.Int64N(largeSize)
				}
				n := min(rnd.Int64N(1<<rnd.IntN(22))+1, largeSize-at)
				b := make([]byte, n)
				if read, err := r.ReadAt(b, at); int64(read) != n || err != nil && !errors.Is(err, io.EOF) {
					t.Errorf("read %d bytes at %d: got %d, %v", n, at, read, err)
					return
				}
				if !bytes.Equal(b, want[at:at+n]) {
					t.Errorf("read %d bytes at %d: other bytes", n, at)
					return
				}
				if at += n; at == largeSize {
					at = 0
				}
			}
		})
	}
	wg.Wait()
}

func abortLarge(t *testing.T, st store.Store) {
	w, err := st.Create(t.Context(), "large")
	must(t, err)
	_, err = w.Write(random(largeSize))
	must(t, err)
	w.Abort()
	wantAbsent(t, st, "large")
	wantList(t, st, "", "")
	if _, err := w.Write([]byte("more")); err == nil {
		t.Fatal("an aborted writer takes bytes")
	}
}

func createTakenLarge(t *testing.T, st store.Store) {
	w, err := st.Create(t.Context(), "x")
	must(t, err)
	defer w.Abort()
	_, err = w.Write(random(largeSize))
	must(t, err)
	must(t, st.PutIfAbsent(t.Context(), "x", []byte("quick")))
	wantErr(t, w.Commit(), store.ErrExist)
	wantObject(t, st, "x", "quick")
	wantList(t, st, "", "", "x")
}

func raceCreate(t *testing.T, st store.Store) {
	const writers, rounds = 6, 10
	for round := range rounds {
		name := fmt.Sprintf("race/%d", round)
		errs := make([]error, writers)
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				b := []byte(fmt.Sprint("writer ", i))
				if i%2 == 0 {
					errs[i] = st.PutIfAbsent(t.Context(), name, b)
					return
				}
				w, err := st.Create(t.Context(), name)
				if err != nil {
					errs[i] = err
					return
				}
				defer w.Abort()
				_, err = w.Write(b)
				errs[i] = errors.Join(err, w.Commit())
			})
		}
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Fatalf("round %d: writers %d and %d both won", round, winner, i)
			default:
				wantErr(t, err, store.ErrExist)
			}
		}
		wantObject(t, st, name, fmt.Sprint("writer ", winner))
	}
}

// unmixed: readers of an object that is replaced see one of its contents, or
// an error when it was open.
func unmixed(t *testing.T, st store.Store) {
	const size, rounds = 300 << 10, 12
	content := func(round int) []byte { return bytes.Repeat([]byte{byte('a' + round)}, size) }
	whole := func(b []byte) bool {
		return len(b) == size && len(bytes.TrimLeft(b, string(b[0]))) == 0
	}
	must(t, st.Put(t.Context(), "x", content(0)))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if b, err := st.Get(t.Context(), "x"); err != nil || !whole(b) {
					t.Errorf("read %d bytes, some of them others', or none: %v", len(b), err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		defer close(done)
		for round := range rounds {
			if err := st.Put(t.Context(), "x", content(round)); err != nil {
				t.Errorf("put: %v", err)
				return
			}
		}
	})
	wg.Wait()

	r, n, err := st.OpenRange(t.Context(), "x")
	must(t, err)
	defer func() { must(t, r.Close()) }()
	must(t, st.Put(t.Context(), "x", content(rounds)))
	b := make([]byte, n)
	for at := int64(0); at < n; at += 100 << 10 {
		if _, err := r.ReadAt(b[at:min(at+100<<10, n)], at); err != nil && !errors.Is(err, io.EOF) {
			return
		}
	}
	if !whole(b) {
		t.Fatal("an open object mixes the old bytes with those that replaced them")
	}
}

func edges(t *testing.T, st store.Store) {
	must(t, st.PutIfAbsent(t.Context(), "x", []byte("0123456789")))
	must(t, st.PutIfAbsent(t.Context(), "empty", nil))
	r, _, err := st.OpenRange(t.Context(), "x")
	must(t, err)
	b := make([]byte, 10)
	if n, err := r.ReadAt(b, 0); n != 10 || err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("read all: %d bytes, %v", n, err)
	}
	for _, at := range []int64{10, 11, 1 << 40} {
		if n, err := r.ReadAt(b, at); n != 0 || !errors.Is(err, io.EOF) {
			t.Fatalf("read at %d: %d bytes, %v", at, n, err)
		}
	}
	if n, err := r.ReadAt(b, -1); n != 0 || err == nil {
		t.Fatalf("read before the start: %d bytes, %v", n, err)
	}
	must(t, r.Close())
	r, size, err := st.OpenRange(t.Context(), "empty")
	must(t, err)
	if n, err := r.ReadAt(b, 0); size != 0 || n != 0 || !errors.Is(err, io.EOF) {
		t.Fatalf("the empty object has size %d, and %d bytes were read, %v", size, n, err)
	}
	must(t, r.Close())
}

func endedRead(t *testing.T, st store.Store) {
	must(t, st.PutIfAbsent(t.Context(), "x", random(300<<10)))
	ctx, cancel := context.WithCancel(t.Context())
	r, _, err := st.OpenRange(ctx, "x")
	must(t, err)
	defer func() { must(t, r.Close()) }()
	w, err := st.Create(ctx, "y")
	must(t, err)
	defer w.Abort()
	cancel()
	_, err = r.ReadAt(make([]byte, 1), 0)
	wantErr(t, err, context.Canceled)
	_, err = w.Write([]byte("late"))
	wantErr(t, err, context.Canceled)
	w.Abort()
	wantList(t, st, "", "", "x")
}

// listMany lists more names than a page of any store has.
func listMany(t *testing.T, st store.Store) {
	const n, workers = 1010, 8
	name := func(i int) string { return fmt.Sprintf("log/%020d.json", i) }
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				if err := st.PutIfAbsent(t.Context(), name(i), nil); err != nil {
					t.Errorf("put %s: %v", name(i), err)
					return
				}
			}
		})
	}
	wg.Wait()
	names := make([]string, n)
	for i := range names {
		names[i] = name(i)
	}
	wantList(t, st, "", "", names...)
	wantList(t, st, "log/", name(3), names[4:]...)
	wantList(t, st, "log/", name(n-2), name(n-1))
	sub, err := st.Sub("log")
	must(t, err)
	if got := listNames(t, sub, "", ""); len(got) != n || got[0] != strings.TrimPrefix(name(0), "log/") {
		t.Fatalf("the sub-store lists %d names", len(got))
	}
}

func probe(t *testing.T, st store.Store) {
	must(t, st.PutIfAbsent(t.Context(), "x", nil))
	must(t, store.Probe(t.Context(), st))
	wantList(t, st, "", "", "x")
}
