package s3

import (
	"context"
	"fmt"
	"iter"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/millrace-io/millrace/deltalog/store"
)

// List implements [store.Store]. Keys that are no names, such as those of
// folders that consoles make, are passed over. A page of 1,000 is asked for
// when the one before has been yielded.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		if err := store.CheckPrefix(prefix); err != nil {
			yield(store.Info{}, err)
			return
		}
		in := &sdk.ListObjectsV2Input{Bucket: &s.name, Prefix: aws.String(s.prefix + prefix), EncodingType: types.EncodingTypeUrl}
		if after != "" {
			in.StartAfter = aws.String(s.prefix + after)
		}
		last := ""
		for {
			page, err := s.page(ctx, in)
			if err != nil {
				yield(store.Info{}, s.fail(actList, prefix, err))
				return
			}
			for i := range page.Contents {
				key, err := listedKey(page, i)
				if err == nil && key <= last {
					err = fmt.Errorf("the store listed %q after %q: it keeps no order, as directory buckets do not", key, last)
				}
				last = key
				if err != nil {
					yield(store.Info{}, s.fail(actList, prefix, err))
					return
				}
				name, ours := strings.CutPrefix(key, s.prefix)
				if !ours || store.CheckName(name) != nil {
					continue
				}
				info := store.Info{
					Name: name, Size: aws.ToInt64(page.Contents[i].Size), ModTime: aws.ToTime(page.Contents[i].LastModified),
				}
				if !yield(info, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				return
			}
			if in.ContinuationToken = page.NextContinuationToken; aws.ToString(in.ContinuationToken) == "" {
				yield(store.Info{}, s.fail(actList, prefix, fmt.Errorf("the store cut the listing short and gave no token to go on")))
				return
			}
		}
	}
}

// listedKey returns a key of a listing. They are encoded, since a key may hold what
// XML cannot, unless the store does not know how.
func listedKey(page *sdk.ListObjectsV2Output, i int) (string, error) {
	key := aws.ToString(page.Contents[i].Key)
	if page.EncodingType != types.EncodingTypeUrl {
		return key, nil
	}
	decoded, err := url.QueryUnescape(key)
	if err != nil {
		return "", fmt.Errorf("the store listed the key %q: %w", key, err)
	}
	return decoded, nil
}

func (s *Store) page(ctx context.Context, in *sdk.ListObjectsV2Input) (page *sdk.ListObjectsV2Output, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.try(ctx, 0, func(ctx context.Context) (err error) {
		page, err = s.client.ListObjectsV2(ctx, in)
		return err
	})
	return page, err
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, name string) error {
	key, err := s.key(ctx, name)
	if err != nil {
		return err
	}
	err = s.try(ctx, 0, func(ctx context.Context) error {
		_, err := s.client.DeleteObject(ctx, &sdk.DeleteObjectInput{Bucket: &s.name, Key: key})
		return err
	})
	if _, code := answer(err); err != nil && code != "NoSuchKey" {
		return s.fail(actDelete, name, err)
	}
	return nil
}
