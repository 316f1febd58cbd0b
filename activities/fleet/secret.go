package fleet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Secret is a reference to a secret, never the secret itself: env:NAME or
// file:PATH. It may be printed. The empty Secret refers to nothing.
type Secret string

// ErrSecret is the class of every error of [Secret.Resolve].
var ErrSecret = errors.New("secret not available")

// errLiteral is returned for what looks like a secret and not like a reference.
// Its text does not repeat the value.
var errLiteral = errors.New("literal secrets are not accepted; write env:NAME or file:/PATH and set the secret where the worker runs")

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// maxSecret is the largest secret file that is read, in bytes.
const maxSecret = 64 << 10

// ParseSecret checks that s is a reference. Its errors never repeat s.
func ParseSecret(s string) (Secret, error) {
	kind, rest, ok := strings.Cut(s, ":")
	switch {
	case ok && kind == "env":
		if !envName.MatchString(rest) {
			return "", errors.New("env: needs the name of an environment variable: letters, digits and _, such as env:SHOP_PASSWORD")
		}
	case ok && kind == "file":
		if !filepath.IsAbs(rest) {
			return "", errors.New("file: needs an absolute path, such as file:/run/secrets/shop")
		}
	case ok && kind == "aws-sm":
		return "", errors.New("aws-sm: references cannot be resolved yet; use env:NAME or file:/PATH")
	default:
		return "", errLiteral
	}
	return Secret(s), nil
}

// Resolve reads the secret. Only the worker calls it, when it connects. The
// empty Secret resolves to the empty string. A file's trailing line end is not
// part of the secret. Every error is an [ErrSecret] and holds the reference
// alone.
func (s Secret) Resolve() (string, error) {
	if s == "" {
		return "", nil
	}
	kind, rest, _ := strings.Cut(string(s), ":")
	switch kind {
	case "env":
		v, ok := os.LookupEnv(rest)
		if !ok || v == "" {
			return "", fmt.Errorf("%w: %s: the variable is not set in the worker's environment", ErrSecret, s)
		}
		return v, nil
	case "file":
		return readSecret(rest)
	}
	return "", fmt.Errorf("%w: it is neither env:NAME nor file:PATH", ErrSecret)
}

func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrSecret, err)
	}
	if info.Size() > maxSecret {
		return "", fmt.Errorf("%w: file:%s has %d bytes, more than %d", ErrSecret, path, info.Size(), maxSecret)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrSecret, err)
	}
	v := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if v == "" {
		return "", fmt.Errorf("%w: file:%s is empty", ErrSecret, path)
	}
	return v, nil
}
