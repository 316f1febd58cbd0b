package s3

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/deltalog/store"
	"github.com/millrace-io/millrace/deltalog/store/storetest"
)

func TestContract(t *testing.T) {
	t.Run("a whole bucket, named in the path", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store { return mustOpen(t, onServer(t)) })
	})
	t.Run("below a prefix, bucket named in the host", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store {
			o := onServer(t)
			server, err := url.Parse(o.Endpoint)
			if err != nil {
				t.Fatal(err)
			}
			o.Prefix, o.Addressing = "lake/é +%", InHost
			o.Endpoint = "http://s3.test:" + server.Port()
			o.HTTPClient = &http.Client{Transport: &http.Transport{
				DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
					if !strings.HasPrefix(address, o.Bucket+".s3.test:") {
						t.Errorf("the bucket is not in the host %s", address)
					}
					return (&net.Dialer{}).DialContext(ctx, network, server.Host)
				},
			}}
			t.Cleanup(o.HTTPClient.(*http.Client).CloseIdleConnections)
			return mustOpen(t, o)
		})
	})
}
