package s3

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/millrace-io/millrace/deltalog/store"
)

// Get implements [store.Store].
func (s *Store) Get(ctx context.Context, name string) ([]byte, error) {
	key, err := s.key(ctx, name)
	if err != nil {
		return nil, err
	}
	r := &reader{ctx: ctx, s: s, name: name, key: key}
	var b []byte
	err = s.try(ctx, maxWhole, func(ctx context.Context) error {
		out, err := s.client.GetObject(ctx, &sdk.GetObjectInput{Bucket: &s.name, Key: key})
		if err != nil {
			return err
		}
		defer func() { _ = out.Body.Close() }()
		r.etag, r.size = out.ETag, aws.ToInt64(out.ContentLength)
		if r.size > maxWhole {
			return nil
		}
		b, err = readAll(out.Body, r.size)
		return err
	})
	if err != nil {
		return nil, s.fail(actRead, name, err)
	}
	for int64(len(b)) < r.size { // a large one, piece by piece
		n := min(r.size-int64(len(b)), maxWhole)
		b = slices.Grow(b, int(n))
		if _, err := r.fetch(b[len(b):len(b)+int(n)], int64(len(b))); err != nil {
			return nil, s.fail(actRead, name, err)
		}
		b = b[:len(b)+int(n)]
	}
	return b, nil
}

// maxWhole is the most that is read of one answer, in bytes: what one attempt
// has the time for.
const maxWhole = 8 << 20

// readAll reads a body of size bytes, which are maxWhole at most.
func readAll(body io.Reader, size int64) ([]byte, error) {
	if size < 0 {
		return nil, &refusal{"the store did not say how long its answer is"}
	}
	b := make([]byte, size)
	n, err := io.ReadFull(body, b)
	if err != nil {
		return nil, fmt.Errorf("%d bytes of %d: %w", n, size, err)
	}
	return b, nil
}

// What a reader fetches at a time. It begins with the tail. A read where no read
// ended before fetches minWindow at least, which takes a store little longer
// than its first byte; one that goes on from there twice as much as the last
// one, up to maxWindow. Larger reads are not kept.
const (
	tailBytes = 64 << 10
	minWindow = 256 << 10
	maxWindow = 1 << 20
	maxKept   = 16 << 20 // of all windows of a reader
)

// OpenRange implements [store.Store]. One request brings the size of the object
// and its last 64 KiB, where Parquet has its footer. Small reads are served
// from windows of up to 1 MiB that the reader keeps, 16 MiB in all; reads that
// follow each other are read ahead. An object that is replaced while it is
// open gives errors, never a mixture.
func (s *Store) OpenRange(ctx context.Context, name string) (store.Reader, int64, error) {
	key, err := s.key(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	r := &reader{ctx: ctx, s: s, name: name, key: key}
	if err := s.try(ctx, tailBytes, r.open); err != nil {
		return nil, 0, s.fail(actRead, name, err)
	}
	return r, r.size, nil
}

// reader reads ranges of one object.
type reader struct {
	ctx  context.Context
	s    *Store
	name string
	key  *string
	etag *string
	size int64

	mu      sync.Mutex
	windows []*window // the one used last first
	kept    int64     // bytes of all windows
	closed  bool
}

// window is a part of an object that is fetched, or being fetched.
type window struct {
	at, n int64
	done  chan struct{} // closed once bytes and err are valid
	bytes []byte
	err   error
}

func (w *window) holds(at int64) bool { return w.at <= at && at < w.at+w.n }

// open asks for the end of the object.
func (r *reader) open(ctx context.Context) error {
	in := &sdk.GetObjectInput{Bucket: &r.s.name, Key: r.key, Range: aws.String("bytes=-" + strconv.Itoa(tailBytes))}
	out, err := r.s.client.GetObject(ctx, in)
	if status, _ := answer(err); status == http.StatusRequestedRangeNotSatisfiable {
		in.Range = nil // it is empty
		out, err = r.s.client.GetObject(ctx, in)
	}
	if err != nil {
		return err
	}
	defer func() { _ = out.Body.Close() }()
	tail := aws.ToInt64(out.ContentLength)
	if r.size, err = wholeSize(out, tail); err != nil {
		return err
	}
	b, err := readAll(out.Body, tail)
	if err != nil {
		return err
	}
	r.etag = out.ETag
	w := &window{at: r.size - tail, n: tail, bytes: b, done: make(chan struct{})}
	close(w.done)
	r.windows, r.kept = []*window{w}, tail
	return nil
}

// wholeSize returns the size of the object of which a range was asked.
func wholeSize(out *sdk.GetObjectOutput, tail int64) (int64, error) {
	if tail < 0 || tail > tailBytes {
		return 0, &refusal{fmt.Sprintf("the store sent %d bytes where %d were asked for: it ignores Range", tail, tailBytes)}
	}
	if out.ContentRange == nil {
		return tail, nil
	}
	_, total, found := strings.Cut(*out.ContentRange, "/")
	size, err := strconv.ParseInt(total, 10, 64)
	if !found || err != nil || size < tail {
		return 0, &refusal{fmt.Sprintf("the store answered with the range %q", *out.ContentRange)}
	}
	return size, nil
}

// refusal is an answer that makes no sense and would be given again.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

// HTTPStatusCode has the answer count as final.
func (*refusal) HTTPStatusCode() int { return http.StatusExpectationFailed }

// ReadAt implements [io.ReaderAt].
func (r *reader) ReadAt(b []byte, off int64) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("read %s at %d: %w", r.name, off, fs.ErrInvalid)
	}
	if off >= r.size {
		return 0, io.EOF
	}
	want := b[:min(int64(len(b)), r.size-off)]
	for n := 0; n < len(want); {
		got, err := r.readSome(want[n:], off+int64(n))
		if n += got; err != nil {
			return n, r.s.fail(actRead, r.name, err)
		}
	}
	if len(want) < len(b) {
		return len(want), io.EOF
	}
	return len(want), nil
}

// readSome reads the first bytes of b from a window, or all of them at once.
func (r *reader) readSome(b []byte, at int64) (int, error) {
	w, err := r.window(at, int64(len(b)))
	if err != nil {
		return 0, err
	}
	if w == nil {
		return r.fetch(b, at)
	}
	select {
	case <-w.done:
	case <-r.ctx.Done():
		return 0, r.ctx.Err()
	}
	if w.err != nil {
		return 0, w.err
	}
	return copy(b, w.bytes[at-w.at:]), nil
}

// window returns the window that holds an offset. One that is not there yet is
// fetched by the caller's goroutine, the others wait. Nil means that n bytes
// are too many for one.
func (r *reader) window(at, n int64) (*window, error) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil, fs.ErrClosed
	}
	size := max(n, minWindow)
	for i, w := range r.windows {
		if w.holds(at) {
			copy(r.windows[1:i+1], r.windows[:i])
			r.windows[0] = w
			r.mu.Unlock()
			return w, nil
		}
		if w.at+w.n == at {
			size = max(n, min(2*w.n, maxWindow))
		}
	}
	if n >= maxWindow {
		r.mu.Unlock()
		return nil, nil
	}
	w := &window{at: at, n: min(size, r.size-at), done: make(chan struct{})}
	r.windows = append([]*window{w}, r.windows...)
	for r.kept += w.n; r.kept > maxKept; {
		last := len(r.windows) - 1
		r.kept -= r.windows[last].n
		r.windows = r.windows[:last]
	}
	r.mu.Unlock()

	w.bytes = make([]byte, w.n)
	if _, w.err = r.fetch(w.bytes, at); w.err != nil {
		r.forget(w)
	}
	close(w.done)
	return w, nil
}

// forget has the bytes of a window asked for anew.
func (r *reader) forget(w *window) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.windows {
		if r.windows[i] == w {
			r.windows = append(r.windows[:i], r.windows[i+1:]...)
			r.kept -= w.n
			return
		}
	}
}

// fetch fills b from an offset. An answer that breaks off is continued where
// it ended.
func (r *reader) fetch(b []byte, at int64) (int, error) {
	n := 0
	err := r.s.try(r.ctx, int64(len(b)), func(ctx context.Context) error {
		from, to := at+int64(n), at+int64(len(b))-1
		out, err := r.s.client.GetObject(ctx, &sdk.GetObjectInput{
			Bucket: &r.s.name, Key: r.key, IfMatch: r.etag, Range: aws.String(fmt.Sprintf("bytes=%d-%d", from, to)),
		})
		if status, _ := answer(err); status == http.StatusPreconditionFailed {
			return &refusal{"it was replaced while it was read"}
		}
		if err != nil {
			return err
		}
		defer func() { _ = out.Body.Close() }()
		if have := aws.ToString(out.ContentRange); !strings.HasPrefix(have, fmt.Sprintf("bytes %d-%d/", from, to)) {
			return &refusal{fmt.Sprintf("the store answered with the range %q where %d-%d was asked for", have, from, to)}
		}
		got, err := io.ReadFull(out.Body, b[n:])
		n += got
		return err
	})
	return n, err
}

// Close implements [io.Closer].
func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed, r.windows = true, nil
	return nil
}
