package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// progress prints one line about something that takes its time.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "local: "+format+"\n", args...)
}

// serversProgram returns the path of the program servers, built on first use.
func (p *place) serversProgram(ctx context.Context) (string, error) {
	return p.build(ctx, tool{
		name:    "servers",
		dir:     filepath.Join(p.repo, "deploy", "local", "servers"),
		pkg:     ".",
		message: "building the program that runs the servers, once: up to a minute on two cores",
	})
}

// temporalProgram returns the path of Temporal's command: the one on PATH,
// else one that is built on first use.
func (p *place) temporalProgram(ctx context.Context) (string, error) {
	if path, err := exec.LookPath("temporal"); err == nil {
		return path, nil
	}
	return p.build(ctx, tool{
		name:    "temporal",
		dir:     filepath.Join(p.repo, "deploy", "local", "temporal"),
		pkg:     "github.com/temporalio/cli/cmd/temporal",
		message: "no temporal on PATH: building it from the Go proxy, once: some 5 minutes on two cores",
	})
}

// s3Program returns the path of the S3 server, built on first use.
func (p *place) s3Program(ctx context.Context) (string, error) {
	return p.build(ctx, tool{
		name:    "versitygw",
		dir:     filepath.Join(p.repo, "deploy", "local", "s3"),
		pkg:     "github.com/versity/versitygw/cmd/versitygw",
		message: "building an S3 server from the Go proxy, once: some 3 minutes on two cores",
	})
}

// tool is a program that is built from a module in this repository.
type tool struct {
	name    string
	dir     string // of the module
	pkg     string
	message string // printed before a build
}

// build returns the path of the built program, which is kept in the cache
// under a name that changes with its sources. Of several processes one
// builds, the others wait.
func (p *place) build(ctx context.Context, t tool) (string, error) {
	key, err := sourceKey(t.dir)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", t.name, err)
	}
	bin := filepath.Join(p.cache, "bin")
	path := filepath.Join(bin, t.name+"-"+key)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", fmt.Errorf("build %s: %w", t.name, err)
	}
	unlock, err := lockFile(ctx, filepath.Join(bin, t.name+".lock"), "waiting for another process that builds "+t.name)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", t.name, err)
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}

	progress("%s", t.message)
	started := time.Now()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		tick := time.NewTicker(20 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				progress("still building %s, %s so far", t.name, time.Since(started).Round(time.Second))
			}
		}
	}()
	temp := path + ".new"
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", temp, t.pkg)
	cmd.Dir = t.dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOOS=", "GOARCH=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s in %s: %w\n%s", t.name, t.dir, err, tail(out, 4000))
	}
	if err := os.Rename(temp, path); err != nil {
		return "", fmt.Errorf("build %s: %w", t.name, err)
	}
	progress("built %s in %s", t.name, time.Since(started).Round(time.Second))
	return path, nil
}

// sourceKey returns a short hash of the Go sources of a module in one folder.
func sourceKey(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("read the sources: %w", err)
	}
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	for _, e := range entries {
		name := e.Name()
		source := strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
		if !source && name != "go.mod" && name != "go.sum" {
			continue
		}
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return "", fmt.Errorf("read the sources: %w", err)
		}
		fmt.Fprintln(h, name)
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return "", fmt.Errorf("read the sources: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:6]), nil
}

// lockFile takes a lock between processes, and says so when it has to wait.
func lockFile(ctx context.Context, path, waiting string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open a lock: %w", err)
	}
	for said := false; ; said = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		if !said {
			progress("%s", waiting)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}
