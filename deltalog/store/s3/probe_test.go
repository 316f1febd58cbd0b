package s3

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/millrace-io/millrace/deltalog/store"
)

// careless returns a wire to the server that takes the condition out of every
// request and signs it anew, as a store that ignores it would behave.
func careless(t *testing.T, o *Options) *wire {
	w := newWire(t)
	w.before = func(r *http.Request) (*http.Response, error) {
		r = r.Clone(context.Background())
		r.Header.Del("If-None-Match")
		r.Header.Del("Authorization")
		c, err := o.Credentials.Retrieve(t.Context())
		if err != nil {
			return nil, err
		}
		signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
		if err := signer.SignHTTP(t.Context(), c, r, r.Header.Get("X-Amz-Content-Sha256"), "s3", o.Region, time.Now()); err != nil {
			return nil, err
		}
		return w.client.Do(r)
	}
	return w
}

func TestAStoreThatIgnoresTheConditionIsRefused(t *testing.T) {
	o := onServer(t)
	o.Prefix = "lake"
	if err := mustOpen(t, o).Put(t.Context(), "x", []byte("there")); err != nil {
		t.Fatal(err)
	}
	w := careless(t, &o)
	o.HTTPClient = w
	s := mustOpen(t, o)
	for range 2 {
		err := s.PutIfAbsent(t.Context(), "y", nil)
		if !errors.Is(err, store.ErrUnconditional) {
			t.Fatalf("got error %v", err)
		}
		oneSentence(t, err, "s3://"+o.Bucket+"/lake", "If-None-Match")
	}
	sub, err := s.Sub("orders")
	if err != nil {
		t.Fatal(err)
	}
	up, err := sub.Create(t.Context(), "y")
	if err != nil {
		t.Fatal(err)
	}
	defer up.Abort()
	if err := up.Commit(); !errors.Is(err, store.ErrUnconditional) {
		t.Fatalf("got error %v", err)
	}
	w.take()
	if b, err := s.Get(t.Context(), "x"); err != nil || string(b) != "there" {
		t.Fatalf("readers are refused, too: %q, %v", b, err)
	}
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil || info.Name != "x" {
			t.Errorf("the probe left %s, %v", info.Name, err)
		}
	}
	if log := w.take(); log != "GET LIST" {
		t.Errorf("reading took %s", log)
	}
}

func TestAStoreIsProbedOnceAndForWritersAlone(t *testing.T) {
	o := onServer(t)
	w := newWire(t)
	o.HTTPClient = w
	s := mustOpen(t, o)
	if _, err := s.Get(t.Context(), "x"); !errors.Is(err, store.ErrNotExist) {
		t.Fatal(err)
	}
	w.before = once("PUT", refuse(403, "AccessDenied"))
	if err := s.PutIfAbsent(t.Context(), "a", nil); !errors.Is(err, store.ErrPermission) {
		t.Fatalf("got error %v", err)
	}
	w.take()
	for _, name := range []string{"a", "b"} {
		sub, err := s.Sub("d")
		if err != nil {
			t.Fatal(err)
		}
		if err := sub.PutIfAbsent(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	if log := w.take(); log != "PUT PUT DELETE PUT PUT" {
		t.Fatalf("sent %s", log)
	}
}
