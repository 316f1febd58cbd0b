package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// S3Options says how an S3 server is started. The zero value is good for
// tests.
type S3Options struct {
	// Dir holds buckets and log, which are kept. Empty means a temporary
	// folder. Its file system must have extended attributes.
	Dir string
	// Port on 127.0.0.1. Zero means a free one.
	Port int
	// Domain is the host below which buckets have hosts of their own, as in
	// bucket.domain. Empty means that they are in the path alone.
	Domain string
}

// S3 is a server that speaks S3's protocol over HTTP and keeps objects as
// files: versitygw.
type S3 struct {
	*Process
	Endpoint  string // http://host:port
	Region    string
	AccessKey string
	SecretKey string

	buckets string // the folder of buckets
}

// StartS3 starts an S3 server and waits until it serves.
func StartS3(ctx context.Context, o S3Options) (*S3, error) {
	s, err := newS3(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("prepare S3: %w", err)
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func newS3(ctx context.Context, o S3Options) (*S3, error) {
	place, err := findPlace()
	if err != nil {
		return nil, err
	}
	versitygw, err := place.s3Program(ctx)
	if err != nil {
		return nil, err
	}
	p, port, err := place.process(ctx, "S3", o.Dir, o.Port)
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s := &S3{
		Process: p, Endpoint: "http://" + address, Region: "us-east-1",
		AccessKey: "millrace", SecretKey: "millrace-secret", buckets: filepath.Join(p.cwd, "buckets"),
	}
	if err := os.MkdirAll(s.buckets, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of buckets: %w", err)
	}
	p.args = []string{
		"run", "--", versitygw, "--port", address, "--access", s.AccessKey, "--secret", s.SecretKey,
		"--region", s.Region, "--keep-alive", "--quiet",
	}
	if o.Domain != "" {
		p.args = append(p.args, "--virtual-domain", o.Domain)
	}
	p.args = append(p.args, "posix", s.buckets)
	p.probe = func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return c.Close()
	}
	return s, nil
}

// MakeBucket makes a bucket, as its operator would: a folder.
func (s *S3) MakeBucket(name string) error {
	if err := os.Mkdir(filepath.Join(s.buckets, name), 0o755); err != nil {
		return fmt.Errorf("make bucket %s: %w", name, err)
	}
	return nil
}
