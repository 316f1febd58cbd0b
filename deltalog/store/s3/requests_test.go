package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/millrace-io/millrace/deltalog/store"
)

// outcome is what becomes of a write of the object x while its requests or their
// answers go astray.
type outcome struct {
	name   string
	before func(*http.Request) (*http.Response, error)
	after  func(*http.Request, *http.Response) (*http.Response, error)
	theirs bool // another writer has the name
	want   error
	log    string // what is sent; after "... " its end alone
	// holds tells whose the object is then; neither's where it is not there.
	holds string
}

// The owners of objects.
const (
	ours    = "ours"
	theirs  = "theirs"
	neither = ""
)

// run writes through faults, and looks at the outcome.
func (c *outcome) run(t *testing.T, write func(*Store) error) {
	s, w := through(t)
	if c.theirs {
		if err := s.PutIfAbsent(t.Context(), "x", []byte(theirs)); err != nil {
			t.Fatal(err)
		}
		w.take()
	}
	w.before, w.after = c.before, c.after
	err := write(s)
	if !errors.Is(err, c.want) {
		t.Fatalf("got error %v, want %v", err, c.want)
	}
	for _, known := range []error{store.ErrExist, store.ErrPermission} {
		if errors.Is(err, known) && !errors.Is(c.want, known) {
			t.Fatalf("the doubt is lost: %v", err)
		}
	}
	log, end := w.take(), ""
	if want, isEnd := strings.CutPrefix(c.log, "... "); isEnd {
		end = want
	}
	if log != c.log && (end == "" || !strings.HasSuffix(log, " "+end)) {
		t.Errorf("sent %s, want %s", log, c.log)
	}
	w.before, w.after = nil, nil
	if n := uploads(t, s); n != 0 {
		t.Errorf("%d uploads are left unfinished", n)
	}
	holds := ours
	switch b, err := s.Get(t.Context(), "x"); {
	case errors.Is(err, store.ErrNotExist):
		holds = neither
	case err != nil:
		t.Fatal(err)
	case string(b) == theirs:
		holds = theirs
	}
	if holds != c.holds {
		t.Errorf("the object is of %q, want %q", holds, c.holds)
	}
}

// created writes an object piece by piece.
func created(t *testing.T, b []byte) func(*Store) error {
	return func(s *Store) error {
		up, err := s.Create(t.Context(), "x")
		if err != nil {
			return err
		}
		defer up.Abort()
		if _, err := up.Write(b); err != nil {
			return err
		}
		return up.Commit()
	}
}

func TestOutcomesOfAConditionalPut(t *testing.T) {
	for _, c := range []outcome{
		{name: "won", log: "PUT", holds: ours},
		{name: "taken", theirs: true, want: store.ErrExist, log: "PUT", holds: theirs},
		{name: "request lost", before: once("PUT", loseRequest), log: "PUT PUT", holds: ours},
		{name: "request lost, taken", before: once("PUT", loseRequest), theirs: true, want: ErrDoubt, log: "PUT PUT", holds: theirs},
		{name: "reply lost", after: loseReply("PUT"), want: ErrDoubt, log: "PUT PUT", holds: ours},
		{name: "conflict", before: once("PUT", refuse(409, "ConditionalRequestConflict")), log: "PUT PUT", holds: ours},
		{
			name: "conflict, taken", before: once("PUT", refuse(409, "ConditionalRequestConflict")), theirs: true,
			want: store.ErrExist, log: "PUT PUT", holds: theirs,
		},
		{name: "busy", before: once("PUT", refuse(503, "SlowDown")), log: "PUT PUT", holds: ours},
		{name: "busy, taken", before: once("PUT", refuse(503, "SlowDown")), theirs: true, want: ErrDoubt, log: "PUT PUT", holds: theirs},
		{name: "bytes lost on their way", before: once("PUT", refuse(400, "IncompleteBody")), log: "PUT PUT", holds: ours},
		{name: "bytes changed on their way", before: once("PUT", refuse(400, "BadDigest")), log: "PUT PUT", holds: ours},
		{name: "internal error", before: once("PUT", refuse(500, "InternalError")), log: "PUT PUT", holds: ours},
		{name: "denied", before: once("PUT", refuse(403, "AccessDenied")), want: store.ErrPermission, log: "PUT", holds: neither},
		{
			name: "reply lost, then denied", after: loseReply("PUT"), before: second("PUT", refuse(403, "AccessDenied")),
			want: errCut, log: "PUT PUT", holds: ours,
		},
		{name: "taken, without a reason", before: once("PUT", says(412, "")), theirs: true, want: store.ErrExist, log: "PUT", holds: theirs},
		{
			name: "taken, in words of its own", before: once("PUT", says(412, "<html>no</html>")), theirs: true,
			want: store.ErrExist, log: "PUT", holds: theirs,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, func(s *Store) error { return s.PutIfAbsent(t.Context(), "x", []byte(ours)) })
		})
	}
}

func TestRequestsAreRepeatedAndNotForEver(t *testing.T) {
	for name, act := range map[string]func(t *testing.T, s *Store) error{
		"GET": func(t *testing.T, s *Store) error { _, err := s.Get(t.Context(), "x"); return err },
		"GET a range": func(t *testing.T, s *Store) error {
			r, _, err := s.OpenRange(t.Context(), "x")
			if err == nil {
				err = r.Close()
			}
			return err
		},
		"PUT":    func(t *testing.T, s *Store) error { return s.Put(t.Context(), "x", []byte("2")) },
		"DELETE": func(t *testing.T, s *Store) error { return s.Delete(t.Context(), "x") },
		"LIST": func(t *testing.T, s *Store) error {
			for _, err := range s.List(t.Context(), "", "") {
				if err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, w := through(t)
			if err := s.Put(t.Context(), "x", []byte("1")); err != nil {
				t.Fatal(err)
			}
			step, _, _ := strings.Cut(name, " ")
			w.take()
			w.before = once(step, refuse(503, "SlowDown"))
			if err := act(t, s); err != nil {
				t.Fatalf("one refusal ended it: %v", err)
			}
			if log := w.take(); log != step+" "+step {
				t.Fatalf("sent %s", log)
			}
			w.before = func(*http.Request) (*http.Response, error) { return nil, errCut }
			if err := act(t, s); !errors.Is(err, errCut) || !strings.Contains(err.Error(), "s3://"+s.name+"/") {
				t.Fatalf("got error %v", err)
			}
			if n := len(strings.Fields(w.take())); n != attempts {
				t.Fatalf("sent %d times, want %d", n, attempts)
			}
		})
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestAnswersThatBreakOffAreContinued(t *testing.T) {
	s, w := through(t)
	want := random(3 << 20)
	if err := s.Put(t.Context(), "x", want); err != nil {
		t.Fatal(err)
	}
	r, _, err := s.OpenRange(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	w.take()
	w.after = cutBody(1 << 20)
	got := make([]byte, 5<<19)
	if _, err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, want[:len(got)]) {
		t.Fatalf("read other bytes, or none: %v", err)
	}
	if log := w.take(); log != "GET GET GET" {
		t.Fatalf("sent %s", log)
	}
	w.after = cutBody(100) // which never reaches the end of a whole one
	if _, err := s.Get(t.Context(), "x"); !errors.Is(err, errCut) {
		t.Fatalf("got error %v", err)
	}
}

// Readers of Parquet ask for eight bytes at the end, the footer before them,
// and then for pages.
func TestSmallReadsShareRequests(t *testing.T) {
	s, w := through(t)
	const size = 4 << 20
	want := random(size)
	if err := s.Put(t.Context(), "x", want); err != nil {
		t.Fatal(err)
	}
	w.take()
	r, _, err := s.OpenRange(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	read := func(at, n int64) {
		t.Helper()
		b := make([]byte, n)
		if _, err := r.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(b, want[at:at+n]) {
			t.Fatalf("read %d bytes at %d: %v", n, at, err)
		}
	}
	read(size-8, 8)
	read(size-5000, 5000)
	if log := w.take(); log != "GET" {
		t.Fatalf("size and footer took %s", log)
	}
	for at := int64(0); at < 1<<20; at += 8 {
		read(at, 8)
	}
	if n := len(strings.Fields(w.take())); n > 5 {
		t.Fatalf("a MiB read by eight bytes took %d requests", n)
	}
	read(1<<20, 3<<20)
	if n := len(strings.Fields(w.take())); n > 2 {
		t.Fatalf("3 MiB read at once took %d requests", n)
	}
}

func TestReadersHoldBoundedMemory(t *testing.T) {
	s, _ := through(t)
	size := int64(48 << 20)
	up, err := s.Create(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := up.Commit(); err != nil {
		t.Fatal(err)
	}
	opened, _, err := s.OpenRange(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = opened.Close() }()
	b := make([]byte, 300<<10)
	for at := int64(0); at < size; at += int64(len(b)) {
		if _, err := opened.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		r := opened.(*reader)
		held := int64(0)
		for _, w := range r.windows {
			held += int64(len(w.bytes))
		}
		if held > maxKept || held != r.kept {
			t.Fatalf("holds %d bytes, counts %d", held, r.kept)
		}
	}
}

func TestAnswersThatMakeNoSenseAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, contentRange string
		size               int
		words              string
	}{
		{name: "the whole object", size: tailBytes + 1, words: "ignores Range"},
		{name: "no length", contentRange: "bytes 0-9/*", size: 10, words: "bytes 0-9/*"},
		{name: "smaller than its end", contentRange: "bytes 0-9/5", size: 10, words: "bytes 0-9/5"},
		{name: "no range", contentRange: "all", size: 10, words: "all"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := 0
			s := answering(t, func() (*http.Response, error) {
				n++
				resp, err := refuse(206, "")()
				resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(make([]byte, c.size))), int64(c.size)
				resp.Header.Set("Content-Length", fmt.Sprint(c.size))
				if c.contentRange != "" {
					resp.Header.Set("Content-Range", c.contentRange)
				}
				return resp, err
			})
			_, _, err := s.OpenRange(t.Context(), "x")
			oneSentence(t, err, "s3://lake/shop/x", c.words)
			if n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

func TestAnObjectThatIsReplacedWhileOpenGivesAnError(t *testing.T) {
	s, _ := through(t)
	if err := s.Put(t.Context(), "x", make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	r, _, err := s.OpenRange(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if err := s.Put(t.Context(), "x", bytes.Repeat([]byte{1}, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(make([]byte, 10), 0); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Fatalf("got error %v", err)
	}
}

// uploads returns how many uploads the server keeps unfinished.
func uploads(t *testing.T, s *Store) int {
	t.Helper()
	out, err := s.client.ListMultipartUploads(t.Context(), &sdk.ListMultipartUploadsInput{Bucket: &s.name})
	if err != nil {
		t.Fatal(err)
	}
	return len(out.Uploads)
}

func TestLargeObjectsAreSentInPartsOfBoundedMemory(t *testing.T) {
	s, w := through(t)
	want := random(6*minPartBytes + 1)
	up, err := s.Create(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer up.Abort()
	for at := 0; at < len(want); at += 1 << 20 {
		if _, err := up.Write(want[at:min(at+1<<20, len(want))]); err != nil {
			t.Fatal(err)
		}
	}
	if made := up.(*writer).made; made > defaultUploads+1 {
		t.Errorf("made %d buffers, want %d at most", made, defaultUploads+1)
	}
	if err := up.Commit(); err != nil {
		t.Fatal(err)
	}
	log := w.take()
	if strings.Count(log, "part") != 7 || !strings.HasPrefix(log, "begin ") || !strings.HasSuffix(log, " complete") {
		t.Errorf("sent %s", log)
	}
	if b, err := s.Get(t.Context(), "x"); err != nil || !bytes.Equal(b, want) {
		t.Fatalf("other bytes came back: %v", err)
	}

	up, err = s.Create(t.Context(), "small")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.Write(want[:minPartBytes]); err != nil {
		t.Fatal(err)
	}
	w.take()
	if err := up.Commit(); err != nil {
		t.Fatal(err)
	}
	if log := w.take(); log != "PUT" {
		t.Errorf("an object of one part took %s", log)
	}
}

func TestOutcomesOfALargeObject(t *testing.T) {
	for _, c := range []outcome{
		{name: "won", log: "... complete", holds: ours},
		{name: "taken", theirs: true, want: store.ErrExist, log: "... complete abort", holds: theirs},
		{name: "a part is repeated", before: once("part", loseRequest), log: "... complete", holds: ours},
		{name: "completion lost", before: once("complete", loseRequest), log: "... complete complete", holds: ours},
		{name: "completion's reply lost", after: loseReply("complete"), log: "... complete complete", holds: ours},
		{
			name: "completion's reply lost, upload gone", after: loseReply("complete"), before: second("complete", refuse(404, "NoSuchUpload")),
			log: "... complete complete HEAD", holds: ours,
		},
		{
			name: "completion's reply lost, name taken", after: loseReply("complete"), before: second("complete", refuse(412, "PreconditionFailed")),
			log: "... complete complete HEAD", holds: ours,
		},
		{
			name: "completion lost, taken", before: once("complete", loseRequest), theirs: true,
			want: store.ErrExist, log: "... complete complete HEAD abort", holds: theirs,
		},
		{name: "conflict", before: once("complete", refuse(409, "ConditionalRequestConflict")), log: "... complete complete", holds: ours},
		{name: "parts fail", want: errCut, log: "... abort", holds: neither, before: always("part", loseRequest)},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, created(t, random(2*minPartBytes+1))) })
	}
}

func TestOutcomesOfAnObjectOfOnePart(t *testing.T) {
	for _, c := range []outcome{
		{name: "won", log: "PUT", holds: ours},
		{name: "taken", theirs: true, want: store.ErrExist, log: "PUT", holds: theirs},
		{name: "reply lost", after: loseReply("PUT"), log: "PUT PUT HEAD", holds: ours},
		{name: "request lost, taken", before: once("PUT", loseRequest), theirs: true, want: store.ErrExist, log: "PUT PUT HEAD", holds: theirs},
		{
			name: "never known", after: loseReply("PUT"), want: ErrDoubt, log: "PUT PUT" + strings.Repeat(" HEAD", attempts), holds: ours,
			before: always("HEAD", loseRequest),
		},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, created(t, []byte(ours))) })
	}
}

func TestObjectsAreEncryptedWithAKeyOfKMS(t *testing.T) {
	s, w := through(t)
	s.kmsKey = "alias/lake"
	seen := map[string]string{}
	w.before = func(r *http.Request) (*http.Response, error) {
		if h := r.Header; h.Get("X-Amz-Server-Side-Encryption") != "" {
			seen[step(r)] = fmt.Sprint(h.Get("X-Amz-Server-Side-Encryption"), " ", h.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"))
		}
		return refuse(501, "NotImplemented")()
	}
	if err := s.PutIfAbsent(t.Context(), "x", nil); err == nil {
		t.Fatal("the refusal is lost")
	}
	up, err := s.Create(t.Context(), "y")
	if err != nil {
		t.Fatal(err)
	}
	defer up.Abort()
	if _, err := up.Write(random(minPartBytes + 1)); err == nil {
		t.Fatal("the refusal is lost")
	}
	if want := "aws:kms alias/lake"; seen["PUT"] != want || seen["begin"] != want {
		t.Fatalf("asked for %v", seen)
	}
}
