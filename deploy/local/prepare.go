package local

import "context"

// Prepare fetches and builds whatever the tests need that is not here yet: the
// programs that run servers, the S3 server, PostgreSQL, and Python with its
// packages. It prints progress; with all of it in the cache it takes some two
// seconds.
func Prepare(ctx context.Context) error {
	if _, err := Python(ctx); err != nil { // the one that can be missing for good
		return err
	}
	place, err := findPlace()
	if err != nil {
		return err
	}
	if _, err := place.s3Program(ctx); err != nil {
		return err
	}
	s, err := Start(ctx, Options{})
	if err != nil {
		return err
	}
	return s.Stop()
}
