package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// searchAttributes are registered with every Temporal server started here.
var searchAttributes = []string{
	"MillraceDatabase=Keyword",
	"MillraceRegion=Keyword",
	"MillracePhase=Keyword",
	"MillraceReason=KeywordList",
}

// TemporalOptions says how Temporal is started. The zero value is good for
// tests.
type TemporalOptions struct {
	// Dir holds workflows and log, which are kept. Empty means a temporary
	// folder.
	Dir string
	// Ports on 127.0.0.1. Zero means a free one.
	Port, UIPort int
	// UI serves the Web UI.
	UI bool
}

// Temporal is a development server with the namespace "default" and
// Millrace's search attributes.
type Temporal struct {
	*Process
	Address string // host:port
	UI      string // address of the Web UI, http://host:port; empty without

	program string
}

// StartTemporal starts Temporal and waits until it serves.
func StartTemporal(ctx context.Context, o TemporalOptions) (*Temporal, error) {
	t, err := newTemporal(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("prepare Temporal: %w", err)
	}
	if err := t.Start(ctx); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func newTemporal(ctx context.Context, o TemporalOptions) (*Temporal, error) {
	place, err := findPlace()
	if err != nil {
		return nil, err
	}
	temporal, err := place.temporalProgram(ctx)
	if err != nil {
		return nil, err
	}
	p, port, err := place.process(ctx, "Temporal", o.Dir, o.Port)
	if err != nil {
		return nil, err
	}
	t := &Temporal{Process: p, Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), program: temporal}
	p.args = []string{
		"run", "--", temporal,
		"server", "start-dev",
		"--ip", "127.0.0.1",
		"--port", strconv.Itoa(port),
		"--db-filename", filepath.Join(p.cwd, "temporal.db"),
		"--log-level", "warn",
	}
	if o.UI {
		uiPort, err := choosePort(o.UIPort)
		if err != nil {
			return nil, err
		}
		p.args = append(p.args, "--ui-port", strconv.Itoa(uiPort), "--ui-ip", "127.0.0.1")
		t.UI = "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(uiPort))
	} else {
		p.args = append(p.args, "--headless")
	}
	for _, a := range searchAttributes {
		p.args = append(p.args, "--search-attribute", a)
	}
	p.probe = t.probe
	return t, nil
}

// probe is nil once the namespace and the search attributes can be used.
func (t *Temporal) probe(ctx context.Context) error {
	c, err := net.Dial("tcp", t.Address) // cheaper than a program that waits
	if err != nil {
		return err
	}
	_ = c.Close()
	cmd := exec.CommandContext(ctx, t.program, "operator", "search-attribute", "list",
		"--address", t.Address, "--namespace", "default", "--command-timeout", "5s")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("list search attributes: %w: %s", err, bytes.TrimSpace(out))
	}
	for _, a := range searchAttributes {
		name, _, _ := strings.Cut(a, "=")
		if !strings.Contains(string(out), name) {
			return fmt.Errorf("search attribute %s is not registered", name)
		}
	}
	return nil
}
