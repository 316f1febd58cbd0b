package s3

import (
	"fmt"
	"sync/atomic"
	"testing"

	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"
	"go.uber.org/goleak"

	"github.com/millrace-io/millrace/deploy/local"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(local.Tests{M: m})
}

var buckets atomic.Int64

// onServer returns options for a bucket of its own on a real server.
func onServer(t testing.TB) Options {
	t.Helper()
	server := local.SharedS3(t)
	name := fmt.Sprintf("bucket-%d", buckets.Add(1))
	if err := server.MakeBucket(name); err != nil {
		t.Fatal(err)
	}
	return Options{
		Bucket: name, HTTPClient: newWire(t), Endpoint: server.Endpoint, Region: server.Region,
		Credentials: awscredentials.NewStaticCredentialsProvider(server.AccessKey, server.SecretKey, ""),
	}
}

func mustOpen(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
