package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/millrace-io/millrace/deltalog/store"
)

// Create implements [store.Store]. An object of one part is sent by Commit with
// one request. A larger one is sent part by part while it is written, and
// Commit puts the parts together under the same condition. The object carries
// an id of its writer as metadata, by which Commit tells its own object from
// another's when an answer was lost. The probe does not show whether a store
// honours the condition on objects of several parts.
func (s *Store) Create(ctx context.Context, name string) (store.Writer, error) {
	key, err := s.key(ctx, name)
	if err != nil {
		return nil, err
	}
	w := &writer{s: s, mark: map[string]string{writerKey: rand.Text()}, outer: ctx, name: name, key: key, free: make(chan []byte, s.uploads+1)}
	w.ctx, w.cancel = context.WithCancel(ctx)
	return w, nil
}

// writerKey is the metadata that holds a writer's id.
const writerKey = "deltalog-writer"

// writer gathers parts. At most uploads+1 buffers are made: one is filled while
// the others are sent, and then they change places.
type writer struct {
	s      *Store
	outer  context.Context // the caller's
	ctx    context.Context // of the parts; cancel ends it
	cancel context.CancelFunc
	name   string
	key    *string
	mark   map[string]string // the object's metadata
	spent  bool

	buf   []byte
	made  int         // buffers
	free  chan []byte // buffers whose part has been sent
	id    *string     // of the upload; nil while there is none
	parts int32       // begun

	sending sync.WaitGroup
	mu      sync.Mutex
	sent    []types.CompletedPart
	err     error // the first of a part
}

// Write implements [io.Writer].
func (w *writer) Write(b []byte) (int, error) {
	if w.spent {
		return 0, fmt.Errorf("write %s: %w", w.name, fs.ErrClosed)
	}
	n := 0
	for n < len(b) {
		if len(w.buf) == w.s.partBytes {
			if err := w.sendPart(); err != nil {
				return n, err
			}
		}
		if err := w.room(len(b) - n); err != nil {
			return n, err
		}
		took := copy(w.buf[len(w.buf):cap(w.buf)], b[n:])
		w.buf = w.buf[:len(w.buf)+took]
		n += took
	}
	return n, w.failure()
}

// room makes place for some of the n bytes to come. The first buffer grows, as
// most objects are small.
func (w *writer) room(n int) error {
	switch {
	case len(w.buf) < cap(w.buf):
		return nil
	case w.parts == 0:
		size := min(max(2*cap(w.buf), len(w.buf)+n, 64<<10), w.s.partBytes)
		grown := make([]byte, len(w.buf), size)
		copy(grown, w.buf)
		w.buf, w.made = grown, 1
		return nil
	case w.made <= w.s.uploads:
		select {
		case w.buf = <-w.free:
		default:
			w.buf = make([]byte, 0, w.s.partBytes)
			w.made++
		}
		return nil
	}
	select {
	case w.buf = <-w.free:
		return w.failure()
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// failure returns why a part could not be sent.
func (w *writer) failure() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// sendPart hands the buffer to a goroutine that sends it.
func (w *writer) sendPart() error {
	if err := w.failure(); err != nil {
		return err
	}
	if err := w.begin(); err != nil {
		return err
	}
	if w.parts == maxParts {
		return fmt.Errorf("write %s: more than %d parts of %d bytes: choose larger parts", w.name, maxParts, w.s.partBytes)
	}
	w.parts++
	number, part := w.parts, w.buf
	w.buf = nil
	w.sending.Go(func() {
		done, err := w.upload(number, part)
		w.mu.Lock()
		defer w.mu.Unlock()
		if err == nil {
			w.sent = append(w.sent, done)
		} else if w.err == nil {
			w.err = w.s.fail(actCreate, w.name, err)
		}
		w.free <- part[:0]
	})
	return nil
}

// begin begins the upload, with the first part.
func (w *writer) begin() error {
	if w.id != nil {
		return nil
	}
	in := &sdk.CreateMultipartUploadInput{Bucket: &w.s.name, Key: w.key, Metadata: w.mark}
	in.ServerSideEncryption, in.SSEKMSKeyId = w.s.encryption()
	if w.s.checksum(nil) != nil { // the upload must know of those of its parts
		in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc32
	}
	err := w.s.try(w.ctx, 0, func(ctx context.Context) error {
		out, err := w.s.client.CreateMultipartUpload(ctx, in)
		if err == nil {
			w.id = out.UploadId
		}
		return err
	})
	if err != nil {
		return w.s.fail(actCreate, w.name, err)
	}
	return nil
}

func (w *writer) upload(number int32, part []byte) (types.CompletedPart, error) {
	in := &sdk.UploadPartInput{
		Bucket: &w.s.name, Key: w.key, UploadId: w.id, PartNumber: &number, ContentLength: aws.Int64(int64(len(part))),
		ChecksumCRC32: w.s.checksum(part),
	}
	done := types.CompletedPart{PartNumber: &number}
	err := w.s.try(w.ctx, int64(len(part)), func(ctx context.Context) error {
		in.Body = bytes.NewReader(part)
		out, err := w.s.client.UploadPart(ctx, in)
		if err != nil {
			return err
		}
		done.ETag, done.ChecksumCRC32 = out.ETag, out.ChecksumCRC32
		return nil
	})
	return done, err
}

// Commit implements [store.Writer].
func (w *writer) Commit() error {
	if w.spent {
		return fmt.Errorf("commit %s: %w", w.name, fs.ErrClosed)
	}
	defer w.Abort()
	if err := w.failure(); err != nil {
		return err
	}
	if err := w.s.probe(w.ctx); err != nil {
		return err
	}
	if w.id == nil {
		return w.settle(w.s.put(w.ctx, w.name, w.key, w.buf, aws.String("*"), w.mark))
	}
	if len(w.buf) > 0 {
		if err := w.sendPart(); err != nil {
			return err
		}
	}
	w.sending.Wait()
	if err := w.failure(); err != nil {
		return err
	}
	if err := w.settle(w.complete()); err != nil {
		return err
	}
	w.id = nil // there is nothing to abort
	return nil
}

// complete makes an object of the parts.
func (w *writer) complete() error {
	slices.SortFunc(w.sent, func(a, b types.CompletedPart) int { return int(*a.PartNumber - *b.PartNumber) })
	err := w.s.try(w.ctx, 0, func(ctx context.Context) error {
		_, err := w.s.client.CompleteMultipartUpload(ctx, &sdk.CompleteMultipartUploadInput{
			Bucket: &w.s.name, Key: w.key, UploadId: w.id, IfNoneMatch: aws.String("*"),
			MultipartUpload: &types.CompletedMultipartUpload{Parts: w.sent},
		})
		return err
	})
	// An upload is gone once it has become an object, also by an attempt that
	// got no answer.
	if _, code := answer(err); code == "NoSuchUpload" {
		if d, ok := errors.AsType[*doubtful](err); ok {
			return fmt.Errorf("create s3://%s/%s: %w: %w", w.s.name, *w.key, ErrDoubt, d.first)
		}
	}
	return w.s.placed(w.name, err, true)
}

// settle finds out whether an object that is perhaps ours is.
func (w *writer) settle(err error) error {
	if !errors.Is(err, ErrDoubt) {
		return err
	}
	var out *sdk.HeadObjectOutput
	if w.s.try(w.ctx, 0, func(ctx context.Context) (err error) {
		out, err = w.s.client.HeadObject(ctx, &sdk.HeadObjectInput{Bucket: &w.s.name, Key: w.key})
		return err
	}) != nil {
		return err
	}
	if out.Metadata[writerKey] == w.mark[writerKey] {
		return nil
	}
	return fmt.Errorf("create s3://%s/%s: %w", w.s.name, *w.key, store.ErrExist)
}

// Abort implements [store.Writer]. It breaks off the parts that are being sent,
// and has the store drop what it has.
func (w *writer) Abort() {
	if w.spent {
		return
	}
	w.spent = true
	w.cancel()
	w.sending.Wait()
	w.buf = nil
	if w.id == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.outer), attemptTime)
	defer cancel()
	_ = w.s.try(ctx, 0, func(ctx context.Context) error {
		_, err := w.s.client.AbortMultipartUpload(ctx, &sdk.AbortMultipartUploadInput{Bucket: &w.s.name, Key: w.key, UploadId: w.id})
		if status, _ := answer(err); status == http.StatusNotFound {
			return nil
		}
		return err
	})
}

var _ store.Writer = (*writer)(nil)
