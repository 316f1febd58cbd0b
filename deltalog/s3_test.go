package deltalog

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/millrace-io/millrace/deltalog/store/s3"
	"github.com/millrace-io/millrace/deploy/local"
)

// onS3 returns a bucket of its own on a real server.
func onS3(t testing.TB) *s3.Store {
	st, _ := onS3Counted(t)
	return st
}

var buckets atomic.Int64

// onS3Counted counts the requests, too.
func onS3Counted(t testing.TB) (*s3.Store, *requests) {
	t.Helper()
	server := local.SharedS3(t)
	bucket := fmt.Sprintf("bucket-%d", buckets.Add(1))
	if err := server.MakeBucket(bucket); err != nil {
		t.Fatal(err)
	}
	sent := &requests{Transport: http.Transport{MaxIdleConnsPerHost: 16}}
	t.Cleanup(sent.CloseIdleConnections)
	st, err := s3.Open(t.Context(), s3.Options{
		Bucket: bucket, Prefix: "lake/orders", Endpoint: server.Endpoint, Region: server.Region,
		HTTPClient:  &http.Client{Transport: sent},
		Credentials: credentials.NewStaticCredentialsProvider(server.AccessKey, server.SecretKey, ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	return st, sent
}

// requests notes the methods of what it sends.
type requests struct {
	http.Transport
	lose    atomic.Int32 // how many replies to a PUT are lost from now on
	mu      sync.Mutex
	methods []string
}

var errReset = errors.New("connection reset by peer")

func (r *requests) RoundTrip(req *http.Request) (*http.Response, error) {
	method := req.Method
	if req.URL.Query().Has("list-type") {
		method = "LIST"
	}
	r.mu.Lock()
	r.methods = append(r.methods, method)
	r.mu.Unlock()
	resp, err := r.Transport.RoundTrip(req)
	if err == nil && method == http.MethodPut && r.lose.Add(-1) >= 0 {
		return nil, errors.Join(errReset, resp.Body.Close())
	}
	return resp, err
}

// take returns the methods sent since the last call.
func (r *requests) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	sent := strings.Join(r.methods, " ")
	r.methods = nil
	return sent
}

func TestATableOnS3CostsFewRequests(t *testing.T) {
	st, sent := onS3Counted(t)
	table := newTestTable(t, st)
	const rows = 200_000
	f := writeFile(t, table, FileOptions{}, idNames(0, rows))
	sent.take()
	mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{f}})
	if got := sent.take(); got != "PUT" {
		t.Errorf("a commit took %s", got)
	}
	more := writeFile(t, table, FileOptions{}, idNames(rows, 1))
	if got := sent.take(); got != "PUT" {
		t.Errorf("a small file took %s", got)
	}
	mustCommit(t, table, &Commit{Operation: "WRITE", Add: []*File{more}})
	hide(t, table, map[*File]*roaring64.Bitmap{f: roaring64.BitmapOf(5)})
	sent.take()
	if _, err := table.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sent.take(); got != "GET" {
		t.Errorf("looking for news took %s", got)
	}
	if err := table.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	sent.take()
	s := mustOpen(t, st).Snapshot()
	opening := sent.take()
	ids := readIDs(t, s, ReadOptions{})
	reading := sent.take()
	t.Logf("opened by %s; a file of %d bytes, another and a vector read by %s", opening, f.Size, reading)
	if n := len(strings.Fields(opening)); n > 5 {
		t.Errorf("opening took %d requests", n)
	}
	if n := len(strings.Fields(reading)); n > 3+int(f.Size>>18) {
		t.Errorf("reading took %d requests", n)
	}
	want := make([]int64, 0, rows)
	for id := range int64(rows + 1) {
		if id != 5 {
			want = append(want, id)
		}
	}
	if !slices.Equal(ids, want) {
		t.Fatalf("%d ids came back, want %d", len(ids), len(want))
	}
}

func TestCommitsOnS3SettleLostReplies(t *testing.T) {
	st, sent := onS3Counted(t)
	table := newTestTable(t, st)
	other := mustOpen(t, st)
	sent.take()
	for i := range 3 {
		sent.lose.Store(1)
		s, won, err := table.Commit(t.Context(), &Commit{Operation: "WRITE", Add: []*File{fakeFile(fmt.Sprint("ours", i), 1)}})
		if !won || err != nil {
			t.Fatalf("commit %d: won %v, error %v", i, won, err)
		}
		if s.NumFiles() != i+1 {
			t.Fatalf("%d files after %d commits", s.NumFiles(), i+1)
		}
		if got := sent.take(); got != "PUT PUT GET" {
			t.Errorf("it took %s", got)
		}
	}
	if _, err := other.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, other, &Commit{Operation: "WRITE", Add: []*File{fakeFile("theirs", 1)}})
	sent.lose.Store(1)
	if _, won, err := table.Commit(t.Context(), &Commit{Operation: "WRITE", Add: []*File{fakeFile("late", 1)}}); won || err != nil {
		t.Fatalf("won %v, error %v", won, err)
	}
	s := mustOpen(t, st).Snapshot()
	if s.Version() != 4 || s.NumFiles() != 4 || s.File("late") != nil {
		t.Fatalf("version %d has %d files", s.Version(), s.NumFiles())
	}
}
