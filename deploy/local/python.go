package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ErrNoPython means that this machine has no Python that the tests can use.
var ErrNoPython = errors.New("tests need Python 3.11 or later with its modules venv and pip: install it (on Debian: apt-get install python3 python3-venv), or name it in PYTHON")

// Python returns the path of a Python interpreter with the packages of
// python/requirements.txt, in a virtual environment in the user's cache
// folder that is made on first use. It returns ErrNoPython where there is no
// Python to begin with.
func Python(ctx context.Context) (string, error) {
	return pythonWith(ctx, "requirements.txt", "installing Python packages for the tests, once: some 150 MB")
}

// pythonWith returns the path of an interpreter with the packages that a file
// in the folder python names; message is printed before they are installed.
func pythonWith(ctx context.Context, file, message string) (string, error) {
	place, err := findPlace()
	if err != nil {
		return "", err
	}
	base, version, err := findPython(ctx)
	if err != nil {
		return "", err
	}
	requirements := filepath.Join(place.repo, "deploy", "local", "python", file)
	b, err := os.ReadFile(requirements)
	if err != nil {
		return "", fmt.Errorf("read which Python packages to install: %w", err)
	}
	sum := sha256.Sum256(append([]byte(version+"\n"), b...))
	dir := filepath.Join(place.cache, "python-"+hex.EncodeToString(sum[:6]))
	python, complete := filepath.Join(dir, "bin", "python"), filepath.Join(dir, "complete")
	if usable(ctx, python, complete) {
		return python, nil
	}
	unlock, err := lockFile(ctx, dir+".lock", "waiting for another process that installs Python packages")
	if err != nil {
		return "", fmt.Errorf("install Python packages: %w", err)
	}
	defer unlock()
	if usable(ctx, python, complete) {
		return python, nil
	}

	progress("%s", message)
	started := time.Now()
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("remove a half made Python environment: %w", err)
	}
	for _, args := range [][]string{
		{base, "-m", "venv", dir},
		{python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--requirement", requirements},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("install Python packages: %s: %w\n%s", strings.Join(args, " "), err, tail(out, 4000))
		}
	}
	if err := os.WriteFile(complete, nil, 0o644); err != nil {
		return "", fmt.Errorf("install Python packages: %w", err)
	}
	progress("installed Python packages in %s", time.Since(started).Round(time.Second))
	return python, nil
}

// usable reports whether an environment was made whole and its interpreter
// still exists.
func usable(ctx context.Context, python, complete string) bool {
	if _, err := os.Stat(complete); err != nil {
		return false
	}
	return exec.CommandContext(ctx, python, "-c", "pass").Run() == nil
}

// findPython returns an interpreter and its version.
func findPython(ctx context.Context) (path, version string, err error) {
	const program = "import sys, venv, ensurepip\nassert sys.version_info >= (3, 11)\nprint(sys.executable, sys.version_info[:3])"
	for _, name := range []string{os.Getenv("PYTHON"), "python3", "python3.14", "python3.13", "python3.12", "python3.11"} {
		if name == "" {
			continue
		}
		out, err := exec.CommandContext(ctx, name, "-c", program).Output()
		if err == nil {
			path, version, _ := strings.Cut(strings.TrimSpace(string(out)), " (")
			return path, version, nil
		}
	}
	return "", "", ErrNoPython
}
