package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/deltalog"
)

// Request asks for the checksum of a table.
type Request struct {
	// Name is given back in the answer.
	Name string `json:"name"`
	// Path is a path or a URI.
	Path string `json:"path"`
	// Version is a version of the table; nil means the newest.
	Version *int64 `json:"version"`
}

// Answer is what there is to say to a Request: a Sum, or an error.
type Answer struct {
	Name  string `json:"name"`
	*Sum         // nil with an error
	Error string `json:"error,omitempty"`
}

// Refusal answers with an error.
func Refusal(name string, err error) Answer {
	return Answer{Name: name, Error: strings.ToValidUTF8(err.Error(), "\uFFFD")}
}

// ParseRequest reads a line of JSON. Of one that is wrong it keeps the name, if
// there is one.
func ParseRequest(line []byte) (Request, error) {
	var r Request
	if err := json.Unmarshal(line, &r); err != nil {
		return r, fmt.Errorf("request is not {\"name\":…,\"path\":…}: %w", err)
	}
	switch {
	case r.Path == "":
		return r, errors.New("request has no path")
	case r.Version != nil && *r.Version < 0:
		return r, fmt.Errorf("version %d: versions begin with 0", *r.Version)
	}
	return r, nil
}

// Do answers the request. A panic while the table is read is an error.
func (r Request) Do(ctx context.Context) Answer {
	sum, err := r.sum(ctx)
	if err != nil {
		return Refusal(r.Name, err)
	}
	return Answer{Name: r.Name, Sum: &sum}
}

func (r Request) sum(ctx context.Context) (sum Sum, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("checksum %s: it cannot be read: %v", r.Path, p)
		}
	}()
	v, err := Open(ctx, r.Path, At{Version: (*deltalog.Version)(r.Version)})
	if err != nil {
		return Sum{}, err
	}
	return v.Checksum(ctx)
}
