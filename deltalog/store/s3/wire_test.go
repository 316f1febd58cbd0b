package s3

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// wire stands between a store and its server, and can lose, answer or change
// what passes.
type wire struct {
	client *http.Client
	// before answers a request in the server's place; nil, nil lets it pass.
	before func(*http.Request) (*http.Response, error)
	// after replaces the server's answer.
	after func(*http.Request, *http.Response) (*http.Response, error)

	mu  sync.Mutex
	log []string // "METHOD key", with the upload's step where there is one
}

func newWire(t testing.TB) *wire {
	w := &wire{client: &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(w.client.CloseIdleConnections)
	return w
}

func (w *wire) Do(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.log = append(w.log, step(r))
	w.mu.Unlock()
	if w.before != nil {
		if resp, err := w.before(r); resp != nil || err != nil {
			return resp, err
		}
	}
	resp, err := w.client.Do(r)
	if err != nil || w.after == nil {
		return resp, err
	}
	return w.after(r, resp)
}

// step says what a request does: with the parts of an upload as begin, part,
// complete and abort.
func step(r *http.Request) string {
	q := r.URL.Query()
	verb := r.Method
	switch {
	case strings.HasSuffix(r.URL.Path, "/") || q.Has("list-type"):
		verb = "LIST"
	case q.Has("uploads"):
		verb = "begin"
	case q.Has("partNumber"):
		verb = "part"
	case q.Has("uploadId") && r.Method == http.MethodPost:
		verb = "complete"
	case q.Has("uploadId") && r.Method == http.MethodDelete:
		verb = "abort"
	}
	return verb
}

// take returns the steps that were sent, and forgets them.
func (w *wire) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	log := strings.Join(w.log, " ")
	w.log = nil
	return log
}

var errCut = errors.New("connection reset by peer")

// once lets f see the first request of a step alone.
func once[T any](want string, f func() (T, error)) func(*http.Request) (T, error) {
	var mu sync.Mutex
	var done bool
	return func(r *http.Request) (v T, err error) {
		mu.Lock()
		defer mu.Unlock()
		if done || step(r) != want {
			return v, nil
		}
		done = true
		return f()
	}
}

// always has f answer every request of a step.
func always(want string, f func() (*http.Response, error)) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		if step(r) != want {
			return nil, nil
		}
		return f()
	}
}

// second has f answer the second request of a step alone.
func second(want string, f func() (*http.Response, error)) func(*http.Request) (*http.Response, error) {
	first := once(want, func() (bool, error) { return true, nil })
	then := once(want, f)
	return func(r *http.Request) (*http.Response, error) {
		if is, _ := first(r); is {
			return nil, nil
		}
		return then(r)
	}
}

func loseRequest() (*http.Response, error) { return nil, errCut }

// loseReply has the reply to the first request of a step lost.
func loseReply(want string) func(*http.Request, *http.Response) (*http.Response, error) {
	lost := once(want, func() (struct{}, error) { return struct{}{}, errCut })
	return func(r *http.Request, resp *http.Response) (*http.Response, error) {
		if _, err := lost(r); err != nil {
			_ = resp.Body.Close()
			return nil, err
		}
		return resp, nil
	}
}

// refuse answers as S3 does when it reports an error.
func refuse(status int, code string) func() (*http.Response, error) {
	return func() (*http.Response, error) {
		body := `<?xml version="1.0" encoding="UTF-8"?><Error><Code>` + code + `</Code><Message>no</Message></Error>`
		return &http.Response{
			StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{"Content-Type": {"application/xml"}, "X-Amz-Bucket-Region": {"eu-north-1"}},
			Body:   io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}, nil
	}
}

// says answers with a status and with what is no error of S3, as proxies do.
func says(status int, body string) func() (*http.Response, error) {
	return func() (*http.Response, error) {
		resp, err := refuse(status, "")()
		resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		return resp, err
	}
}

// cutBody breaks off every answer to a GET after n bytes.
func cutBody(n int64) func(*http.Request, *http.Response) (*http.Response, error) {
	return func(r *http.Request, resp *http.Response) (*http.Response, error) {
		if r.Method == http.MethodGet && resp.ContentLength > n {
			head, err := io.ReadAll(io.LimitReader(resp.Body, n))
			_ = resp.Body.Close()
			resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(head), failing{errors.Join(err, errCut)}))
		}
		return resp, nil
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// through returns a store on the server behind a wire, which was probed.
func through(t testing.TB) (*Store, *wire) {
	o, w := onServer(t), newWire(t)
	o.HTTPClient, o.NoProbe, o.PartBytes = w, true, minPartBytes
	s := mustOpen(t, o)
	s.pause = 1
	return s, w
}
