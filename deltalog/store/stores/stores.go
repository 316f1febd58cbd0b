// Package stores opens the store that a URI names, whichever kind it is of.
//
// Of the packages of deltalog it alone imports every kind of store, so that a
// program that has its tables on a disk, and opens them with [store.OpenURI] or
// [store.NewLocal], is built without the client of S3.
package stores

import (
	"context"
	"strings"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/s3"
)

// OpenURI returns the store at a URI: s3://bucket/prefix, as [s3.ParseURI]
// reads it, and what [store.OpenURI] takes. Nothing is created or looked at
// before the first use. Other schemes give [store.ErrUnsupported].
func OpenURI(ctx context.Context, uri string) (store.Store, error) {
	if !strings.HasPrefix(uri, "s3://") {
		return store.OpenURI(uri)
	}
	o, err := s3.ParseURI(uri)
	if err != nil {
		return nil, err
	}
	s, err := s3.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return s, nil
}
