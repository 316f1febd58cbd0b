package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/millrace-io/millrace/deltalog/store"
)

// Errors that a caller tells apart with [errors.Is], beside those of package
// store.
var (
	// ErrNoBucket says that there is no such bucket.
	ErrNoBucket = errors.New("no such bucket")
	// ErrCredentials says that there are no credentials, or that the store does
	// not take them.
	ErrCredentials = errors.New("no valid credentials")
	// ErrRegion says that the bucket is in another region.
	ErrRegion = errors.New("wrong region")
	// ErrDenied says that the credentials lack a permission; it wraps
	// [store.ErrPermission].
	ErrDenied = fmt.Errorf("%w", store.ErrPermission)
	// ErrUnavailable says that the store gave no answer, or told to come again
	// later, as often as it was asked.
	ErrUnavailable = errors.New("the store is not available")
	// ErrDoubt says that a name is taken, perhaps by this very write: an
	// earlier attempt at it got no answer.
	ErrDoubt = errors.New("the name is taken, perhaps by an attempt of ours that got no answer")
)

// credentials marks the errors of a provider.
type credentials struct{ aws.CredentialsProvider }

func (c credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	v, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return v, fmt.Errorf("%w: %w", ErrCredentials, err)
	}
	return v, nil
}

// IsCredentialsProvider tells what kind of provider this is: requests of
// [aws.AnonymousCredentials] are not signed.
func (c credentials) IsCredentialsProvider(kind aws.CredentialsProvider) bool {
	return aws.IsCredentialsProvider(c.CredentialsProvider, kind)
}

// isOutdated tells whether other credentials may do where these did not.
func isOutdated(err error) bool {
	switch _, code := answer(err); code {
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId":
		return true
	}
	return false
}

// answer returns the status and the error code of a store's answer; status is
// zero where there was none.
func answer(err error) (status int, code string) {
	if r, ok := errors.AsType[interface {
		error
		HTTPStatusCode() int
	}](err); ok {
		status = r.HTTPStatusCode()
	}
	if a, ok := errors.AsType[smithy.APIError](err); ok {
		code = a.ErrorCode()
	}
	return status, code
}

// verdict is what an error says of the request.
type verdict int

const (
	final verdict = iota // the answer will be the same
	again                // nothing was done
	maybe                // it may have been done
)

// judge tells whether a request is worth sending again.
func judge(err error) verdict {
	status, code := answer(err)
	switch code {
	case "ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "RequestTimeTooSkewed",
		"IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch":
		return again
	case "InternalError", "SlowDown", "ServiceUnavailable", "RequestLimitExceeded", "Throttling", "ThrottlingException":
		return maybe
	}
	switch {
	case status == http.StatusTooManyRequests:
		return again
	case status >= 500 && status != http.StatusNotImplemented:
		return maybe
	case status >= 300:
		return final
	}
	if errors.Is(err, ErrCredentials) || isCertificate(err) {
		return final
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return again
	}
	return maybe
}

func isCertificate(err error) bool {
	_, bad := errors.AsType[*tls.CertificateVerificationError](err)
	return bad
}

// fail names the act and the object of an error, and says what to do where
// that is known.
func (s *Store) fail(act, name string, err error) error {
	return fmt.Errorf("%s s3://%s/%s%s: %w", act, s.name, s.prefix, name, s.explain(act, err))
}

func (s *Store) explain(act string, err error) error {
	status, code := answer(err)
	switch code {
	case "NoSuchKey":
		return store.ErrNotExist
	case "NoSuchBucket":
		return fmt.Errorf("%w: create bucket %s, or correct its name or the endpoint", ErrNoBucket, s.name)
	case "PreconditionFailed":
		return store.ErrExist
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "NotSignedUp",
		"XAdminUserNotFound": // versitygw's
		return fmt.Errorf("%w: the store does not take them (%s): check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile", ErrCredentials, code)
	case "AccessDenied", "AllAccessDisabled", "Forbidden":
		return fmt.Errorf("%w: the credentials need %s here, and s3:ListBucket on bucket %s", ErrDenied, permissions[act], s.name)
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException":
		return s.elsewhere(err)
	case "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch":
		return fmt.Errorf("the bytes changed on their way: %w", err)
	}
	switch {
	case errors.Is(err, ErrCredentials):
		return fmt.Errorf("set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: %w", innermost(err))
	case status == http.StatusForbidden:
		return fmt.Errorf("%w: the credentials need %s here: %w", ErrDenied, permissions[act], innermost(err))
	case status == http.StatusMovedPermanently:
		return s.elsewhere(err)
	case isCertificate(err):
		return fmt.Errorf("%w: the endpoint's certificate is not trusted: name its authority in AWS_CA_BUNDLE: %w", ErrUnavailable, innermost(err))
	case errors.Is(err, context.Canceled) || judge(err) == final:
		return err
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("%w: no answer: check the endpoint and the network: %w", ErrUnavailable, e)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// elsewhere says in which region the bucket is.
func (s *Store) elsewhere(err error) error {
	have := s.client.Options().Region
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok && r.Response != nil {
		if want := r.Response.Header.Get("X-Amz-Bucket-Region"); want != "" {
			return fmt.Errorf("%w: bucket %s is in %s, not in %s: set AWS_REGION, or region= in the URI", ErrRegion, s.name, want, have)
		}
	}
	return fmt.Errorf("%w: bucket %s is not in %s: set AWS_REGION, or region= in the URI", ErrRegion, s.name, have)
}

// innermost returns the cause of an error without the SDK's words around it. An
// error that wraps several is one.
func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// The acts that errors name, and the permissions that they take.
const (
	actRead   = "read"
	actWrite  = "write"
	actCreate = "create"
	actList   = "list"
	actDelete = "delete"
)

var permissions = map[string]string{
	actRead: "s3:GetObject", actWrite: "s3:PutObject", actCreate: "s3:PutObject", actList: "s3:ListBucket",
	actDelete: "s3:DeleteObject",
}
