package s3

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/millrace-io/millrace/deltalog/store"
)

// answering returns a store whose server gives one answer to everything.
func answering(t *testing.T, answer func() (*http.Response, error)) *Store {
	t.Helper()
	w := newWire(t)
	w.before = func(*http.Request) (*http.Response, error) { return answer() }
	s := mustOpen(t, Options{
		Bucket: "lake", Prefix: "shop", Region: "us-east-1", Credentials: awscredentials.NewStaticCredentialsProvider("A", "B", ""),
		HTTPClient: w, NoProbe: true,
	})
	s.pause = 1
	return s
}

// oneSentence checks that an error is one line that holds the words.
func oneSentence(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in the error: %v", w, err)
		}
	}
	if strings.Contains(err.Error(), "\n") || len(err.Error()) > 400 {
		t.Errorf("it is not one sentence: %v", err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   error
		words  []string
	}{
		{404, "NoSuchKey", store.ErrNotExist, nil},
		{404, "NoSuchBucket", ErrNoBucket, []string{"create bucket lake"}},
		{403, "AccessDenied", store.ErrPermission, []string{"s3:GetObject"}},
		{403, "AccessDenied", ErrDenied, nil},
		{503, "SlowDown", ErrUnavailable, nil},
		{500, "InternalError", ErrUnavailable, nil},
		{403, "InvalidAccessKeyId", ErrCredentials, []string{"AWS_ACCESS_KEY_ID"}},
		{403, "SignatureDoesNotMatch", ErrCredentials, []string{"AWS_SECRET_ACCESS_KEY"}},
		{400, "ExpiredToken", ErrCredentials, nil},
		{301, "PermanentRedirect", ErrRegion, []string{"eu-north-1", "us-east-1"}},
		{400, "AuthorizationHeaderMalformed", ErrRegion, []string{"eu-north-1"}},
	} {
		t.Run(c.code, func(t *testing.T) {
			s := answering(t, refuse(c.status, c.code))
			_, err := s.Get(t.Context(), "orders/x")
			if !errors.Is(err, c.want) {
				t.Errorf("got error %v, want %v", err, c.want)
			}
			if errors.Is(err, store.ErrNotExist) != (c.code == "NoSuchKey") {
				t.Errorf("whether there is such an object: %v", err)
			}
			oneSentence(t, err, append(c.words, "read s3://lake/shop/orders/x")...)
		})
	}
	s := answering(t, refuse(403, "AccessDenied"))
	oneSentence(t, s.PutIfAbsent(t.Context(), "x", nil), "create s3://lake/shop/x", "s3:PutObject")
	oneSentence(t, s.Delete(t.Context(), "x"), "delete s3://lake/shop/x", "s3:DeleteObject")
	for _, err := range s.List(t.Context(), "d/", "") {
		oneSentence(t, err, "list s3://lake/shop/d/", "s3:ListBucket")
	}
}

func TestErrorsOfARealServerSayWhatToDo(t *testing.T) {
	o := onServer(t)
	o.Bucket = "never-made"
	_, err := mustOpen(t, o).Get(t.Context(), "x")
	if !errors.Is(err, ErrNoBucket) || errors.Is(err, store.ErrNotExist) {
		t.Errorf("no bucket: %v", err)
	}
	oneSentence(t, err, "never-made")
	if err := mustOpen(t, o).PutIfAbsent(t.Context(), "x", nil); !errors.Is(err, ErrNoBucket) {
		t.Errorf("no bucket, writing: %v", err)
	}

	o = onServer(t)
	for _, c := range []aws.CredentialsProvider{
		awscredentials.NewStaticCredentialsProvider("nobody", "secret", ""),
		awscredentials.NewStaticCredentialsProvider("millrace", "wrong", ""),
	} {
		o.Credentials = c
		if _, err := mustOpen(t, o).Get(t.Context(), "x"); !errors.Is(err, ErrCredentials) {
			t.Errorf("wrong credentials: %v", err)
		}
	}
}

func TestAMissingCredentialIsSaidAtOnce(t *testing.T) {
	asked := 0
	s := mustOpen(t, Options{
		Bucket: "lake", Region: "us-east-1", HTTPClient: newWire(t),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			asked++
			return aws.Credentials{}, errors.New("the profile is empty")
		}),
	})
	_, err := s.Get(t.Context(), "x")
	if !errors.Is(err, ErrCredentials) {
		t.Errorf("got error %v", err)
	}
	oneSentence(t, err, "s3://lake/x", "the profile is empty", "AWS_PROFILE")
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

func TestAStoreThatDoesNotAnswerIsUnavailable(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	endpoint := "http://" + silent.Addr().String()
	if err := silent.Close(); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, Options{Bucket: "lake", Region: "us-east-1", Endpoint: endpoint, Credentials: StaticKeys("A", "B"), HTTPClient: newWire(t)})
	s.pause = 1
	_, err = s.Get(t.Context(), "x")
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("got error %v", err)
	}
	oneSentence(t, err, "s3://lake/x", endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(ctx, "x"); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCertificatesAreVerified(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	noConfiguration(t)
	o := Options{Bucket: "lake", Region: "us-east-1", Endpoint: server.URL, Credentials: awscredentials.NewStaticCredentialsProvider("A", "B", "")}
	_, err := mustOpen(t, o).Get(t.Context(), "x")
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("got error %v", err)
	}
	oneSentence(t, err, "certificate", "AWS_CA_BUNDLE")
}

// noConfiguration hides this machine's configuration of AWS.
func noConfiguration(t *testing.T) {
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
			_ = os.Unsetenv(name)
		}
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

func TestParseURI(t *testing.T) {
	for _, c := range []struct {
		uri   string
		want  Options
		is    error
		words []string
	}{
		{uri: "s3://lake", want: Options{Bucket: "lake"}},
		{uri: "s3://lake/", want: Options{Bucket: "lake"}},
		{uri: "s3://lake/shop/public/", want: Options{Bucket: "lake", Prefix: "shop/public"}},
		{uri: "s3://lake/a%20b%3Fc", want: Options{Bucket: "lake", Prefix: "a b?c"}},
		{
			uri:  "s3://lake/x?endpoint=https://127.0.0.1:9000&region=eu-1&addressing=virtual&kms-key=alias/k&probe=false",
			want: Options{Bucket: "lake", Prefix: "x", Endpoint: "https://127.0.0.1:9000", Region: "eu-1", Addressing: InHost, KMSKey: "alias/k", NoProbe: true},
		},
		{uri: "s3:///x", words: []string{"name of a bucket"}},
		{uri: "s3://lake/a/../b", is: store.ErrName},
		{uri: "s3://lake/a//b", is: store.ErrName},
		{uri: "s3://user@lake/a", is: store.ErrUnsupported},
		{uri: "s3://lake/a#b", is: store.ErrUnsupported},
		{uri: "s3://lake:80/a", is: store.ErrUnsupported},
		{uri: "gs://lake/a", is: store.ErrUnsupported},
		{uri: "s3://lake?regoin=x", words: []string{"regoin", "region"}},
		{uri: "s3://lake?endpoint=minio:9000", words: []string{"minio:9000", "https://host:port"}},
		{uri: "s3://lake?addressing=dns", words: []string{"dns"}},
		{uri: "s3://lake?probe=maybe", words: []string{"maybe"}},
	} {
		got, err := ParseURI(c.uri)
		switch {
		case c.is == nil && c.words == nil:
			if err != nil || got != c.want {
				t.Errorf("%s: got %+v, %v", c.uri, got, err)
			}
		case c.is != nil && !errors.Is(err, c.is):
			t.Errorf("%s: got error %v, want %v", c.uri, err, c.is)
		default:
			oneSentence(t, err, append(c.words, "s3")...)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	for _, uri := range []string{
		"s3://lake", "s3://lake/a%20b?endpoint=https://h:1&region=r", "s3://lake/../x", "s3://lake?probe=0&addressing=path", "s3://%2f/%00",
	} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		o, err := ParseURI(uri)
		if err != nil {
			return
		}
		if o.Bucket == "" || o.Prefix != "" && store.CheckName(o.Prefix) != nil {
			t.Fatalf("%q gave bucket %q, prefix %q", uri, o.Bucket, o.Prefix)
		}
	})
}

func TestARegionIsNeededOnAWSAlone(t *testing.T) {
	noConfiguration(t)
	_, err := Open(t.Context(), Options{Bucket: "lake"})
	oneSentence(t, err, "s3://lake", "AWS_REGION")
	mustOpen(t, Options{Bucket: "lake", Endpoint: "https://minio.example:9000"})
}
