package stores_test

import (
	"errors"
	"os"
	"testing"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/stores"
	"github.com/millrace-io/millrace/deploy/local"
)

func TestMain(m *testing.M) { os.Exit(local.RunTests(m)) }

func TestOpenURI(t *testing.T) {
	t.Setenv("AWS_REGION", "eu-1")
	for uri, want := range map[string]string{
		"/var/lake":                      "file:///var/lake",
		"file:///var/lake":               "file:///var/lake",
		"s3://lake":                      "s3://lake",
		"s3://lake/a%20b/c?region=eu-2":  "s3://lake/a%20b/c",
		"s3://lake/x/?addressing=path":   "s3://lake/x",
		"s3://lake/%C3%A9?probe=false&x": "",
		"gs://lake/x":                    "",
	} {
		st, err := stores.OpenURI(t.Context(), uri)
		switch {
		case want == "" && err == nil:
			t.Errorf("%s was opened", uri)
		case want != "" && (err != nil || st.URI() != want):
			t.Errorf("%s: opened %v, %v", uri, st, err)
		}
	}
	if _, err := stores.OpenURI(t.Context(), "gs://lake"); !errors.Is(err, store.ErrUnsupported) {
		t.Errorf("got error %v", err)
	}
}

// What a command line is given is a URI and the environment.
func TestTheEnvironmentSaysWhereS3Is(t *testing.T) {
	server := local.SharedS3(t)
	if err := server.MakeBucket("lake"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ENDPOINT_URL_S3", server.Endpoint)
	t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
	t.Setenv("AWS_REGION", server.Region)
	st, err := stores.OpenURI(t.Context(), "s3://lake/shop")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.PutIfAbsent(t.Context(), "x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if b, err := st.Get(t.Context(), "x"); err != nil || string(b) != "1" {
		t.Fatalf("got %q, %v", b, err)
	}
}
