package s3

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/millrace-io/millrace/deltalog/store"
)

// PutIfAbsent implements [store.Store]. See [ErrDoubt] for the outcome that is
// neither.
func (s *Store) PutIfAbsent(ctx context.Context, name string, b []byte) error {
	key, err := s.key(ctx, name)
	if err != nil {
		return err
	}
	if err := s.probe(ctx); err != nil {
		return err
	}
	return s.put(ctx, name, key, b, aws.String("*"), nil)
}

// Put implements [store.Store].
func (s *Store) Put(ctx context.Context, name string, b []byte) error {
	key, err := s.key(ctx, name)
	if err != nil {
		return err
	}
	return s.put(ctx, name, key, b, nil, nil)
}

// put writes an object with one request. Absent is the condition, or nil.
func (s *Store) put(ctx context.Context, name string, key *string, b []byte, absent *string, metadata map[string]string) error {
	in := &sdk.PutObjectInput{
		Bucket: &s.name, Key: key, IfNoneMatch: absent, ContentLength: aws.Int64(int64(len(b))), Metadata: metadata,
	}
	in.ServerSideEncryption, in.SSEKMSKeyId = s.encryption()
	in.ChecksumCRC32 = s.checksum(b)
	err := s.try(ctx, int64(len(b)), func(ctx context.Context) error {
		in.Body = bytes.NewReader(b)
		_, err := s.client.PutObject(ctx, in)
		return err
	})
	return s.placed(name, err, absent != nil)
}

// checksum returns the CRC-32 of a body as a header has it, or nil where none is
// wanted. The SDK would send it behind the body over TLS, which few servers but
// AWS understand.
func (b *bucket) checksum(body []byte) *string {
	if b.client.Options().RequestChecksumCalculation == aws.RequestChecksumCalculationWhenRequired {
		return nil
	}
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(body))
	return aws.String(base64.StdEncoding.EncodeToString(sum))
}

// encryption returns what new objects are encrypted with; both are empty where
// the bucket decides.
func (s *Store) encryption() (types.ServerSideEncryption, *string) {
	if s.kmsKey == "" {
		return "", nil
	}
	return types.ServerSideEncryptionAwsKms, &s.kmsKey
}

// placed says what became of an object that was written.
func (s *Store) placed(name string, err error, conditional bool) error {
	if err == nil {
		return nil
	}
	act := actWrite
	if conditional {
		act = actCreate
	}
	failed := s.fail(act, name, err)
	d, doubt := errors.AsType[*doubtful](err)
	switch status, _ := answer(err); {
	case doubt && status == http.StatusPreconditionFailed:
		return fmt.Errorf("%s s3://%s/%s%s: %w: %w", act, s.name, s.prefix, name, ErrDoubt, d.first)
	case doubt && errors.Is(failed, store.ErrPermission):
		// This attempt had no effect. An earlier one may have had.
		return fmt.Errorf("%v; an attempt before got no answer: %w", failed, d.first)
	}
	return failed
}

// probe finds out, once, whether the store honours conditions.
func (s *Store) probe(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proven {
		return nil
	}
	// A bucket of its own, which trusts the store: the probe must not be probed.
	b := &bucket{client: s.client, name: s.name, kmsKey: s.kmsKey, pause: s.pause, cache: s.cache, proven: true}
	if err := store.Probe(ctx, &Store{bucket: b, prefix: s.prefix}); err != nil {
		return err
	}
	s.proven = true
	return nil
}
