package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/millrace-io/millrace/deltalog/store"
)

// Servers other than AWS know bodies as they are, with their checksum before
// them, and no trailers.
func TestBodiesAreSentAsTheyAreOverTLSToo(t *testing.T) {
	noConfiguration(t)
	var mu sync.Mutex
	sums := map[string]string{} // by step
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		what := step(r)
		if strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING") || r.Header.Get("X-Amz-Trailer") != "" {
			t.Errorf("%s: the body is in chunks, with a trailer", what)
		}
		if (what == "PUT" || what == "part") && len(bytes.Trim(b, "\x00")) > 0 {
			t.Errorf("%s: the body is %q", what, b)
		}
		sums[what] = r.Header.Get("X-Amz-Checksum-Crc32")
		w.Header().Set("Etag", `"x"`)
		if what == "begin" {
			_, _ = io.WriteString(w, `<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>`)
		}
	}))
	defer server.Close()
	o := Options{
		Bucket: "lake", Endpoint: server.URL, HTTPClient: server.Client(), NoProbe: true, PartBytes: minPartBytes,
		Credentials: awscredentials.NewStaticCredentialsProvider("A", "B", ""),
	}
	write := func(s *Store) {
		t.Helper()
		if err := s.PutIfAbsent(t.Context(), "x", make([]byte, 9)); err != nil {
			t.Fatal(err)
		}
		up, err := s.Create(t.Context(), "y")
		if err != nil {
			t.Fatal(err)
		}
		defer up.Abort()
		if _, err := up.Write(make([]byte, 2*minPartBytes)); err != nil {
			t.Fatal(err)
		}
		if err := up.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	write(mustOpen(t, o))
	// The CRC-32 of nine, and of 5 MiB of zeros.
	if sums["PUT"] != "5gkUrg==" || sums["part"] != "yTuzdQ==" {
		t.Errorf("checksums %v", sums)
	}
	t.Setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
	write(mustOpen(t, o))
	if sums["PUT"] != "" || sums["part"] != "" {
		t.Errorf("checksums %v where none are wanted", sums)
	}
}

func TestABucketOfThePublicIsReadWithoutCredentials(t *testing.T) {
	o, w := onServer(t), newWire(t)
	o.Credentials, o.HTTPClient = aws.AnonymousCredentials{}, w
	w.before = func(r *http.Request) (*http.Response, error) {
		if h := r.Header.Get("Authorization"); h != "" {
			t.Errorf("it was signed: %s", h)
		}
		return refuse(404, "NoSuchKey")()
	}
	if _, err := mustOpen(t, o).Get(t.Context(), "x"); !errors.Is(err, store.ErrNotExist) {
		t.Fatal(err)
	}
}

// Sessions can end before the time that their provider told, or while a request
// is on its way.
func TestCredentialsThatAreNoLongerTakenAreAskedForAgain(t *testing.T) {
	for _, code := range []string{"ExpiredToken", "InvalidAccessKeyId"} {
		o := onServer(t)
		good, w := o.Credentials, newWire(t)
		asked := 0
		o.Credentials = aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
			asked++
			c, err := good.Retrieve(ctx)
			c.CanExpire, c.Expires = true, time.Now().Add(time.Hour)
			return c, err
		})
		o.HTTPClient, o.NoProbe = w, true
		s := mustOpen(t, o)
		s.pause = 1
		for n := 1; n <= 3; n++ {
			w.before = once("PUT", refuse(400, code))
			if err := s.Put(t.Context(), "x", nil); err != nil {
				t.Fatalf("%s: %v", code, err)
			}
			if log := w.take(); log != "PUT PUT" || asked != n+1 {
				t.Errorf("%s: sent %s, asked %d times", code, log, asked)
			}
		}
		w.before = func(*http.Request) (*http.Response, error) { return refuse(400, code)() }
		if err := s.Put(t.Context(), "x", nil); !errors.Is(err, ErrCredentials) {
			t.Errorf("%s: %v", code, err)
		}
		if log := w.take(); log != "PUT PUT" {
			t.Errorf("%s for good: sent %s", code, log)
		}
	}
}

// The keys of others in a bucket can hold what XML cannot.
func TestListingsHoldAnyKey(t *testing.T) {
	s := answering(t, says(200, `<ListBucketResult><IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>
<Contents><Key>shop/a%01b</Key></Contents><Contents><Key>shop/a+b%2Bc%25%C3%A9</Key></Contents></ListBucketResult>`))
	var names []string
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.Name)
	}
	if strings.Join(names, "|") != "a\x01b|a b+c%é" {
		t.Errorf("listed %q", names)
	}
	// A server that does not know of it sends keys as they are.
	s = answering(t, says(200, `<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>shop/a+b%20c</Key></Contents></ListBucketResult>`))
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil || info.Name != "a+b%20c" {
			t.Errorf("listed %q, %v", info.Name, err)
		}
	}
	s = answering(t, says(200, `<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>shop/%zz</Key></Contents></ListBucketResult>`))
	for info, err := range s.List(t.Context(), "", "") {
		if err == nil {
			t.Errorf("listed %q", info.Name)
		}
	}
	real, _ := through(t)
	want := []string{"d/a b+c%20é&<>\"'\n", "d/~#?"}
	for _, name := range want {
		if err := real.Put(t.Context(), name, nil); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	}
	names = nil
	for info, err := range real.List(t.Context(), "d/", "d/\x01") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, info.Name)
	}
	if !slices.Equal(names, want) {
		t.Errorf("listed %q", names)
	}
}

// Where a listing is in no order, what is missing from it cannot be told.
func TestListingsInNoOrderAreRefused(t *testing.T) {
	s := answering(t, says(200, `<ListBucketResult><Contents><Key>shop/b</Key></Contents><Contents><Key>shop/a</Key></Contents></ListBucketResult>`))
	var end error
	for _, err := range s.List(t.Context(), "", "") {
		end = err
	}
	oneSentence(t, end, "list s3://lake/shop/", "order")
}
