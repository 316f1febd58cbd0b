// Package s3 keeps objects in a bucket of Amazon S3, or of a store that speaks
// its protocol and honours If-None-Match on PUT: MinIO, Ceph, R2, versitygw.
//
// Credentials, region, endpoint, certificate authorities and proxies come from
// the AWS SDK's default chain (https://docs.aws.amazon.com/sdkref/latest/guide):
// AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL_S3,
// AWS_CA_BUNDLE, the shared configuration, web identities, and the roles of
// containers and machines. [Options] come before them. Certificates are always
// verified.
//
// Every request is sent by this package alone, never again by the SDK. What
// can be repeated is repeated with growing pauses, up to six times. A
// conditional write is repeated too: its bytes are the same, whichever attempt
// lands. When the store says that the name is taken after an attempt whose
// outcome was not seen, the object may be our own; the error of PutIfAbsent then
// wraps [ErrDoubt] and none of the sentinels of package store, and who can tell
// its own bytes apart reads the object back. Objects made by Create carry a mark
// by which the store does that itself.
//
// Credentials that the store no longer takes are asked for again, once for each
// request. Bodies are sent with a CRC-32 before them, which stores check that know
// of it, unless AWS_REQUEST_CHECKSUM_CALCULATION is when_required.
//
// Before its first conditional write a store writes an object twice, to find
// out whether the condition holds: see [store.Probe].
//
// A process that dies while it writes a large object leaves an unfinished
// upload, which is stored at a cost. A lifecycle rule of the bucket
// (AbortIncompleteMultipartUpload) removes those.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"github.com/millrace-io/millrace/deltalog/store"
)

// Addressing says where requests name the bucket.
type Addressing string

const (
	// Auto is in the host on AWS, and in the path at an endpoint of one's own.
	Auto Addressing = ""
	// InPath is https://host/bucket/key.
	InPath Addressing = "path"
	// InHost is https://bucket.host/key.
	InHost Addressing = "virtual"
)

// Options say where a store is and how it is written.
type Options struct {
	// Bucket is the bucket's name, which must be there already.
	Bucket string
	// Prefix is what the keys of all objects begin with, followed by a slash.
	// Empty means the whole bucket.
	Prefix string
	// Endpoint is the address of the service, as in https://host:port. Empty
	// means that of the SDK's chain, else AWS.
	Endpoint string
	// Region is the bucket's. Empty means that of the SDK's chain, and
	// us-east-1 where there is none and the endpoint is not AWS.
	Region string
	// Addressing is where the bucket is named. The zero value is Auto.
	Addressing Addressing
	// KMSKey encrypts new objects with this key of AWS KMS: an id, an ARN, or
	// an alias such as alias/aws/s3. Empty means as the bucket does it.
	KMSKey string
	// Credentials sign the requests. Nil means the SDK's default chain.
	Credentials aws.CredentialsProvider
	// HTTPClient sends the requests to the store. Nil means one of the SDK's
	// that verifies certificates and honours AWS_CA_BUNDLE and HTTPS_PROXY.
	HTTPClient aws.HTTPClient
	// PartBytes is the size of the parts of large objects, in bytes; an object
	// has 10,000 at most. Zero means 8 MiB; less than 5 MiB is refused, since
	// stores do.
	PartBytes int
	// Uploads is how many parts of one object are sent at a time. A writer
	// holds one part more than that in memory. Zero means 3.
	Uploads int
	// NoProbe trusts the store to honour conditions. It is for writers who may
	// not delete, on a store that was probed before.
	NoProbe bool
}

// StaticKeys returns credentials that are one access key and its secret.
func StaticKeys(access, secret string) aws.CredentialsProvider {
	return awscredentials.NewStaticCredentialsProvider(access, secret, "")
}

// The smallest part that S3 takes, and its most parts of an object.
const (
	minPartBytes     = 5 << 20
	defaultPartBytes = 8 << 20
	maxPartBytes     = 5 << 30
	maxParts         = 10_000
	defaultUploads   = 3
)

func (o *Options) validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Bucket == "" || strings.ContainsAny(o.Bucket, "/?#%\\ \t\n") {
		fault("%q is not the name of a bucket", o.Bucket)
	}
	if o.Prefix != "" {
		if err := store.CheckName(o.Prefix); err != nil {
			fault("prefix: %w", err)
		}
	}
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			fault("endpoint %q is not like https://host:port", o.Endpoint)
		}
	}
	switch o.Addressing {
	case Auto, InPath, InHost:
	default:
		fault("addressing %q is neither %q nor %q", o.Addressing, InPath, InHost)
	}
	if o.PartBytes != 0 && (o.PartBytes < minPartBytes || o.PartBytes > maxPartBytes) {
		fault("parts of %d bytes: want 5 MiB to 5 GiB", o.PartBytes)
	}
	if o.Uploads < 0 {
		fault("%d uploads at a time", o.Uploads)
	}
	return errors.Join(errs...)
}

// Store keeps objects in a bucket. It is made by [Open].
type Store struct {
	*bucket
	prefix string // of keys, "" or ending in a slash
}

// bucket is what a store shares with those below it.
type bucket struct {
	client    *sdk.Client
	name      string
	kmsKey    string
	partBytes int
	uploads   int
	pause     time.Duration // before the second attempt
	// cache forgets the credentials that it has; nil where they are of no use.
	cache interface{ Invalidate() }

	mu     sync.Mutex // held while probing
	proven bool       // conditions hold, or are trusted
}

// Open returns the store in a bucket. It reads the SDK's configuration, and
// sends nothing before the first use.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open store s3://%s: %w", strings.TrimSuffix(o.Bucket+"/"+o.Prefix, "/"), err)
	}
	return s, nil
}

func open(ctx context.Context, o Options) (*Store, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	cfg, err := config.LoadDefaultConfig(ctx, o.configure)
	if err != nil {
		return nil, fmt.Errorf("read the AWS configuration: %w", err)
	}
	var cache interface{ Invalidate() }
	if cfg.Credentials != nil {
		cache, _ = cfg.Credentials.(interface{ Invalidate() })
		cfg.Credentials = credentials{cfg.Credentials}
	}
	client := sdk.NewFromConfig(cfg, o.client)
	if client.Options().Region == "" {
		return nil, errors.New("the bucket's region is not known: set AWS_REGION, or region= in the URI")
	}
	s := &Store{bucket: &bucket{
		client: client, name: o.Bucket, kmsKey: o.KMSKey, partBytes: o.PartBytes, uploads: o.Uploads,
		pause: firstPause, proven: o.NoProbe, cache: cache,
	}}
	if o.Prefix != "" {
		s.prefix = o.Prefix + "/"
	}
	if s.partBytes == 0 {
		s.partBytes = defaultPartBytes
	}
	if s.uploads == 0 {
		s.uploads = defaultUploads
	}
	return s, nil
}

// configure puts what the options say before the SDK's chain.
func (o *Options) configure(l *config.LoadOptions) error {
	l.Region = o.Region
	l.Credentials = o.Credentials
	l.Logger = logging.Nop{}
	l.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	return nil
}

// client finishes the client's options, to which the chain has contributed.
func (o *Options) client(c *sdk.Options) {
	if o.Endpoint != "" {
		c.BaseEndpoint = aws.String(o.Endpoint)
	}
	if o.HTTPClient != nil {
		c.HTTPClient = o.HTTPClient
	}
	own := c.BaseEndpoint != nil
	if own && c.Region == "" {
		c.Region = "us-east-1"
	}
	c.UsePathStyle = o.Addressing == InPath || o.Addressing == Auto && own
	c.DisableLogOutputChecksumValidationSkipped = true
	c.Retryer = aws.NopRetryer{}
}

// key returns the key of an object unless its name or the context is bad.
func (s *Store) key(ctx context.Context, name string) (*string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := store.CheckName(name); err != nil {
		return nil, err
	}
	return aws.String(s.prefix + name), nil
}

// URI implements [store.Store]. The URI names bucket and prefix alone.
func (s *Store) URI() string {
	u := url.URL{Scheme: "s3", Host: s.name, Path: "/" + strings.TrimSuffix(s.prefix, "/")}
	return strings.TrimSuffix(u.String(), "/")
}

// Sub implements [store.Store].
func (s *Store) Sub(dir string) (store.Store, error) {
	if err := store.CheckName(dir); err != nil {
		return nil, err
	}
	return &Store{bucket: s.bucket, prefix: s.prefix + dir + "/"}, nil
}

var _ store.Store = (*Store)(nil)
