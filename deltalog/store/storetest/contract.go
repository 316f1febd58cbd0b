// Package storetest has what tests of stores and of tables need: the contract
// of [store.Store] as a suite, and a store that fails on request. It is not for
// production.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/millrace-io/millrace/deltalog/store"
)

// Run checks that the stores that open returns keep the promises of
// [store.Store]. Each call of open returns an empty store.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, st store.Store)
	}{
		{"what was put is read back", roundTrip},
		{"a name that is taken is refused", taken},
		{"of racing puts one wins", race},
		{"put replaces", replace},
		{"a created object appears at commit", create},
		{"an aborted object never appears", abort},
		{"a spent writer cannot commit", spent},
		{"created objects do not replace", createTaken},
		{"reads at any offset", ranges},
		{"listing is in byte order", list},
		{"listing begins after a name", listAfter},
		{"listing shows sizes", listSizes},
		{"deleting is final and repeatable", remove},
		{"names stay inside the root", names},
		{"a sub-store is a view", sub},
		{"links share objects", link},
		{"an ended context ends operations", ended},
		{"an ended context ends reads and writes that have begun", endedRead},
		{"callers keep their bytes", ownership},
		{"a large object comes back whole and in parts", large},
		{"a large object that is aborted never appears", abortLarge},
		{"a large object does not replace", createTakenLarge},
		{"of racing writers of both kinds one wins", raceCreate},
		{"what is replaced is never mixed with what was", unmixed},
		{"reads at the edges", edges},
		{"listings are whole however long", listMany},
		{"a probe finds conditions honoured", probe},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func wantObject(t *testing.T, st store.Store, name, want string) {
	t.Helper()
	b, err := st.Get(t.Context(), name)
	must(t, err)
	if string(b) != want {
		t.Fatalf("%s holds %q, want %q", name, b, want)
	}
}

func wantAbsent(t *testing.T, st store.Store, name string) {
	t.Helper()
	_, err := st.Get(t.Context(), name)
	wantErr(t, err, store.ErrNotExist)
	_, _, err = st.OpenRange(t.Context(), name)
	wantErr(t, err, store.ErrNotExist)
}

func listNames(t *testing.T, st store.Store, prefix, after string) []string {
	t.Helper()
	var names []string
	for info, err := range st.List(t.Context(), prefix, after) {
		must(t, err)
		names = append(names, info.Name)
	}
	return names
}

func wantList(t *testing.T, st store.Store, prefix, after string, want ...string) {
	t.Helper()
	if got := listNames(t, st, prefix, after); !slices.Equal(got, want) {
		t.Fatalf("list %q after %q: got %q, want %q", prefix, after, got, want)
	}
}

func roundTrip(t *testing.T, st store.Store) {
	wantAbsent(t, st, "a/b/c")
	must(t, st.PutIfAbsent(t.Context(), "a/b/c", []byte("hello")))
	wantObject(t, st, "a/b/c", "hello")
	must(t, st.PutIfAbsent(t.Context(), "empty", nil))
	wantObject(t, st, "empty", "")
	wantAbsent(t, st, "a/b")
	wantAbsent(t, st, "a/b/c/d")
	must(t, st.PutIfAbsent(t.Context(), "a/sp ace=é%41", []byte("odd")))
	wantObject(t, st, "a/sp ace=é%41", "odd")
	wantAbsent(t, st, "a/sp ace=éA")
}

func taken(t *testing.T, st store.Store) {
	must(t, st.PutIfAbsent(t.Context(), "x", []byte("first")))
	wantErr(t, st.PutIfAbsent(t.Context(), "x", []byte("second")), store.ErrExist)
	wantObject(t, st, "x", "first")
}

func race(t *testing.T, st store.Store) {
	const writers, rounds = 8, 25
	for round := range rounds {
		name := fmt.Sprintf("race/%d", round)
		errs := make([]error, writers)
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				errs[w] = st.PutIfAbsent(t.Context(), name, bytes.Repeat([]byte{byte('a' + w)}, 1000))
			})
		}
		wg.Wait()
		winner := -1
		for w, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = w
			case err == nil:
				t.Fatalf("round %d: writers %d and %d both won", round, winner, w)
			default:
				wantErr(t, err, store.ErrExist)
			}
		}
		if winner < 0 {
			t.Fatalf("round %d: nobody won", round)
		}
		wantObject(t, st, name, string(bytes.Repeat([]byte{byte('a' + winner)}, 1000)))
	}
}

func replace(t *testing.T, st store.Store) {
	must(t, st.Put(t.Context(), "d/x", []byte("first")))
	wantObject(t, st, "d/x", "first")
	must(t, st.Put(t.Context(), "d/x", []byte("2")))
	wantObject(t, st, "d/x", "2")
}

func create(t *testing.T, st store.Store) {
	w, err := st.Create(t.Context(), "d/e/file")
	must(t, err)
	defer w.Abort()
	for range 3 {
		_, err := w.Write([]byte("abc"))
		must(t, err)
	}
	wantAbsent(t, st, "d/e/file")
	wantList(t, st, "", "")
	must(t, w.Commit())
	wantObject(t, st, "d/e/file", "abcabcabc")
	w.Abort()
	wantObject(t, st, "d/e/file", "abcabcabc")
}

func abort(t *testing.T, st store.Store) {
	w, err := st.Create(t.Context(), "file")
	must(t, err)
	_, err = w.Write([]byte("abc"))
	must(t, err)
	w.Abort()
	w.Abort()
	wantAbsent(t, st, "file")
	wantList(t, st, "", "")
}

func spent(t *testing.T, st store.Store) {
	w, err := st.Create(t.Context(), "file")
	must(t, err)
	must(t, w.Commit())
	if w.Commit() == nil {
		t.Fatal("a second commit succeeded")
	}
	w, err = st.Create(t.Context(), "other")
	must(t, err)
	w.Abort()
	if w.Commit() == nil {
		t.Fatal("a commit after abort succeeded")
	}
	wantAbsent(t, st, "other")
}

func createTaken(t *testing.T, st store.Store) {
	w, err := st.Create(t.Context(), "x")
	must(t, err)
	defer w.Abort()
	_, err = w.Write([]byte("slow"))
	must(t, err)
	must(t, st.PutIfAbsent(t.Context(), "x", []byte("quick")))
	wantErr(t, w.Commit(), store.ErrExist)
	wantObject(t, st, "x", "quick")
	wantList(t, st, "", "", "x")
}

func ranges(t *testing.T, st store.Store) {
	must(t, st.PutIfAbsent(t.Context(), "x", []byte("0123456789")))
	r, size, err := st.OpenRange(t.Context(), "x")
	must(t, err)
	defer func() { must(t, r.Close()) }()
	if size != 10 {
		t.Fatalf("size %d, want 10", size)
	}
	b := make([]byte, 4)
	_, err = r.ReadAt(b, 3)
	must(t, err)
	if string(b) != "3456" {
		t.Fatalf("read %q, want 3456", b)
	}
	if n, err := r.ReadAt(b, 8); n != 2 || err == nil {
		t.Fatalf("read past the end: %d bytes, error %v", n, err)
	}
}

func putSome(t *testing.T, st store.Store) {
	for _, name := range []string{"a0", "b/é", "a/b-c", "b/a", "a-b", "a/b/c", "a/c"} {
		must(t, st.PutIfAbsent(t.Context(), name, []byte(name)))
	}
}

func list(t *testing.T, st store.Store) {
	wantList(t, st, "", "")
	putSome(t, st)
	wantList(t, st, "", "", "a-b", "a/b-c", "a/b/c", "a/c", "a0", "b/a", "b/é")
	wantList(t, st, "a/", "", "a/b-c", "a/b/c", "a/c")
	wantList(t, st, "a", "", "a-b", "a/b-c", "a/b/c", "a/c", "a0")
	wantList(t, st, "a/b", "", "a/b-c", "a/b/c")
	wantList(t, st, "a/b/", "", "a/b/c")
	wantList(t, st, "c", "")
	wantList(t, st, "a/b/c/", "")
	for range st.List(t.Context(), "", "") {
		break // ending early is fine
	}
}

func listAfter(t *testing.T, st store.Store) {
	putSome(t, st)
	all := listNames(t, st, "", "")
	for _, after := range []string{
		"0", "a", "a-b", "a/b", "a/b-c", "a/b/", "a/b/b", "a/b/c", "a/b/d", "a/c", "a0", "b/", "b/a", "b/é", "zzz",
	} {
		var want []string
		for _, name := range all {
			if name > after {
				want = append(want, name)
			}
		}
		wantList(t, st, "", after, want...)
	}
	wantList(t, st, "a/", "a/b-c", "a/b/c", "a/c")
	wantList(t, st, "a/", "b")
}

func listSizes(t *testing.T, st store.Store) {
	must(t, st.PutIfAbsent(t.Context(), "x", []byte("12345")))
	for info, err := range st.List(t.Context(), "", "") {
		must(t, err)
		if info.Size != 5 || info.ModTime.IsZero() {
			t.Fatalf("listed as %+v", info)
		}
	}
}

func remove(t *testing.T, st store.Store) {
	must(t, st.PutIfAbsent(t.Context(), "d/x", []byte("1")))
	must(t, st.Delete(t.Context(), "d/x"))
	must(t, st.Delete(t.Context(), "d/x"))
	must(t, st.Delete(t.Context(), "never/was"))
	wantAbsent(t, st, "d/x")
	must(t, st.PutIfAbsent(t.Context(), "d/x", []byte("2")))
	wantObject(t, st, "d/x", "2")
}

func names(t *testing.T, st store.Store) {
	for _, name := range []string{"", ".", "..", "/x", "../x", "a/../../x", "a//b", "a/", "a/./b", "a\x00b", `a\b`} {
		_, err := st.Get(t.Context(), name)
		wantErr(t, err, store.ErrName)
		_, _, err = st.OpenRange(t.Context(), name)
		wantErr(t, err, store.ErrName)
		wantErr(t, st.PutIfAbsent(t.Context(), name, nil), store.ErrName)
		wantErr(t, st.Put(t.Context(), name, nil), store.ErrName)
		wantErr(t, st.Delete(t.Context(), name), store.ErrName)
		_, err = st.Create(t.Context(), name)
		wantErr(t, err, store.ErrName)
		_, err = st.Sub(name)
		wantErr(t, err, store.ErrName)
	}
	for _, err := range st.List(t.Context(), "../", "") {
		wantErr(t, err, store.ErrName)
	}
}

func sub(t *testing.T, st store.Store) {
	inner, err := st.Sub("d/e")
	must(t, err)
	must(t, inner.PutIfAbsent(t.Context(), "f/x", []byte("1")))
	must(t, st.PutIfAbsent(t.Context(), "d/ea", []byte("2")))
	wantObject(t, st, "d/e/f/x", "1")
	wantList(t, inner, "", "", "f/x")
	wantList(t, inner, "f/", "", "f/x")
	wantList(t, st, "", "", "d/e/f/x", "d/ea")
	if inner.URI() != st.URI()+"/d/e" {
		t.Fatalf("URI is %s in %s", inner.URI(), st.URI())
	}
}

func link(t *testing.T, st store.Store) {
	a, err := st.Sub("a")
	must(t, err)
	b, err := st.Sub("b")
	must(t, err)
	must(t, a.PutIfAbsent(t.Context(), "x", []byte("data")))
	must(t, store.Link(t.Context(), b, "deep/y", a, "x"))
	wantObject(t, b, "deep/y", "data")
	wantErr(t, store.Link(t.Context(), b, "deep/y", a, "x"), store.ErrExist)
	wantErr(t, store.Link(t.Context(), b, "z", a, "none"), store.ErrNotExist)
	must(t, a.Delete(t.Context(), "x"))
	wantObject(t, b, "deep/y", "data")
}

func ended(t *testing.T, st store.Store) {
	must(t, st.PutIfAbsent(t.Context(), "x", []byte("1")))
	w, err := st.Create(t.Context(), "late")
	must(t, err)
	w.Abort()
	ctx, cancel := context.WithCancel(t.Context())
	late, err := st.Create(ctx, "late")
	must(t, err)
	defer late.Abort()
	cancel()
	wantErr(t, late.Commit(), context.Canceled)
	_, err = st.Get(ctx, "x")
	wantErr(t, err, context.Canceled)
	_, _, err = st.OpenRange(ctx, "x")
	wantErr(t, err, context.Canceled)
	wantErr(t, st.PutIfAbsent(ctx, "y", nil), context.Canceled)
	wantErr(t, st.Put(ctx, "y", nil), context.Canceled)
	wantErr(t, st.Delete(ctx, "x"), context.Canceled)
	for _, err := range st.List(ctx, "", "") {
		wantErr(t, err, context.Canceled)
	}
	wantList(t, st, "", "", "x")
}

func ownership(t *testing.T, st store.Store) {
	b := []byte("mine")
	must(t, st.PutIfAbsent(t.Context(), "x", b))
	b[0] = 'X'
	got, err := st.Get(t.Context(), "x")
	must(t, err)
	got[1] = 'X'
	wantObject(t, st, "x", "mine")
}
