package s3

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/deltalog/store"
)

// ParseURI reads s3://bucket/prefix into options. What follows a question mark
// sets others of them: endpoint, region, addressing (path or virtual),
// kms-key, and probe=false for NoProbe, as in
//
//	s3://bucket/lake?endpoint=https://minio.example:9000&region=eu-1
//
// Percent signs escape, as in other URIs. Other schemes give
// [store.ErrUnsupported].
func ParseURI(uri string) (Options, error) {
	o, err := parseURI(uri)
	if err != nil {
		return Options{}, fmt.Errorf("open store %q: %w", uri, err)
	}
	return o, nil
}

func parseURI(uri string) (o Options, err error) {
	u, err := url.Parse(uri)
	if err != nil {
		return o, fmt.Errorf("it is not a URI: %w", err)
	}
	if u.Scheme != "s3" {
		return o, fmt.Errorf("%w: want s3://bucket/prefix", store.ErrUnsupported)
	}
	if u.User != nil || u.Port() != "" || u.Fragment != "" || u.Opaque != "" {
		return o, fmt.Errorf("%w: want s3://bucket/prefix, without user, port or fragment", store.ErrUnsupported)
	}
	o.Bucket, o.Prefix = u.Host, strings.Trim(u.Path, "/")
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return o, err
	}
	for name, values := range query {
		value := values[len(values)-1]
		switch name {
		case "endpoint":
			o.Endpoint = value
		case "region":
			o.Region = value
		case "addressing":
			o.Addressing = Addressing(value)
		case "kms-key":
			o.KMSKey = value
		case "probe":
			probe, err := strconv.ParseBool(value)
			if err != nil {
				return o, fmt.Errorf("probe=%s is neither true nor false", value)
			}
			o.NoProbe = !probe
		default:
			return o, fmt.Errorf("there is no parameter %q; there are %s", name, strings.Join(parameters, ", "))
		}
	}
	return o, o.validate()
}

var parameters = slices.Sorted(slices.Values([]string{"endpoint", "region", "addressing", "kms-key", "probe"}))
