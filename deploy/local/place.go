package local

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

const modulePath = "github.com/millrace-io/millrace"

// place is where this repository and the user's cache are.
type place struct {
	repo  string // the folder of the main module
	cache string // the user's cache folder for this project
}

// findPlace looks for the repository from the working directory upwards, and
// makes the cache folder.
func findPlace() (*place, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the repository: %w", err)
	}
	p := &place{}
	for p.repo == "" {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(b, []byte("module "+modulePath+"\n")) {
			p.repo = dir
			break
		}
		up := filepath.Dir(dir)
		if up == dir {
			return nil, fmt.Errorf("find the repository: no go.mod of %s in or above the working directory", modulePath)
		}
		dir = up
	}
	cache, err := os.UserCacheDir()
	if err != nil { // no home
		cache = filepath.Join(os.TempDir(), fmt.Sprintf("cache-%d", os.Getuid()))
	}
	p.cache = filepath.Join(cache, "millrace")
	if err := os.MkdirAll(p.cache, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	return p, nil
}

// serverUser is who PostgreSQL runs as when this process is root: nobody.
const serverUser = 65534

// reach is a folder that PostgreSQL's user can reach, and that user.
type reach struct {
	dir  string
	user *syscall.Credential // nil: this process's own
}

// reachable returns the cache folder for an ordinary user, and for root a
// folder below a temporary one, named after the repository and recorded in
// its .local.
func (p *place) reachable() (*reach, error) {
	if os.Geteuid() != 0 {
		return &reach{dir: p.cache}, nil
	}
	parent, err := openParent()
	if err != nil {
		return nil, err
	}
	r := &reach{
		dir:  filepath.Join(parent, p.outsideName()),
		user: &syscall.Credential{Uid: serverUser, Gid: serverUser},
	}
	if err := os.Mkdir(r.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make a folder for PostgreSQL: %w", err)
	}
	info, err := os.Lstat(r.dir)
	if err != nil {
		return nil, fmt.Errorf("look at the folder for PostgreSQL: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || owner.Uid != 0 || info.Mode()&0o022 != 0 {
		return nil, fmt.Errorf("%s is there and was not made by root for this: remove it, or set TMPDIR to another folder", r.dir)
	}
	if err := os.Chmod(r.dir, 0o755); err != nil { // whatever the umask
		return nil, fmt.Errorf("open the folder for PostgreSQL: %w", err)
	}
	for _, sub := range []string{"postgres", "run"} {
		if err := r.mkdir(filepath.Join(r.dir, sub)); err != nil {
			return nil, err
		}
	}
	return r, p.record(r.dir)
}

// outsideName is the name of the folder that root's PostgreSQL uses.
func (p *place) outsideName() string {
	sum := sha256.Sum256([]byte(p.repo))
	return "millrace-" + hex.EncodeToString(sum[:4])
}

// dataName is the name, in that folder, of what belongs to dir.
func dataName(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "data-" + hex.EncodeToString(sum[:4])
}

// openParent returns a temporary folder that any user can reach.
func openParent() (string, error) {
	for _, dir := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if dir, err := filepath.Abs(dir); err == nil && traversable(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("PostgreSQL does not run as root, and uid %d cannot reach %s: set TMPDIR to a folder that it can", serverUser, os.TempDir())
}

// traversable reports whether everybody may pass through dir and all above it.
func traversable(dir string) bool {
	for {
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() || info.Mode()&0o001 == 0 {
			return false
		}
		up := filepath.Dir(dir)
		if up == dir {
			return true
		}
		dir = up
	}
}

// recordName is the file in .local that names the folder outside of it.
const recordName = "outside"

// record notes in the repository's .local that dir is ours.
func (p *place) record(dir string) error {
	local := filepath.Join(p.repo, DefaultDir)
	if err := os.MkdirAll(local, 0o755); err != nil {
		return fmt.Errorf("record the folder for PostgreSQL: %w", err)
	}
	path := filepath.Join(local, recordName)
	if b, err := os.ReadFile(path); err == nil && string(b) == dir+"\n" {
		return nil
	}
	if err := os.WriteFile(path, []byte(dir+"\n"), 0o644); err != nil {
		return fmt.Errorf("record the folder for PostgreSQL: %w", err)
	}
	return nil
}

// mkdir makes a folder, and those above it, that belongs to the server's user.
func (r *reach) mkdir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make a folder for PostgreSQL: %w", err)
	}
	if r.user == nil {
		return nil
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Lchown(dir, int(r.user.Uid), int(r.user.Gid))); err != nil {
		return fmt.Errorf("hand a folder to PostgreSQL's user: %w", err)
	}
	return nil
}

// tempDir makes a fresh folder that belongs to the server's user.
func (r *reach) tempDir(prefix string) (string, error) {
	parent := os.TempDir()
	if r.user != nil {
		parent = filepath.Join(r.dir, "run")
	} else {
		prefix = "millrace-" + prefix
	}
	dir, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return "", fmt.Errorf("make a temporary folder: %w", err)
	}
	return dir, r.mkdir(dir)
}

// dirFor returns the folder where the server's user keeps what belongs to
// dir: dir itself, unless this process is root.
func (r *reach) dirFor(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("resolve a folder: %w", err)
	}
	if r.user != nil {
		dir = filepath.Join(r.dir, dataName(dir))
	}
	return dir, r.mkdir(dir)
}

// program returns a copy of a program that the server's user can run.
func (r *reach) program(path string) (string, error) {
	if r.user == nil {
		return path, nil
	}
	bin := filepath.Join(r.dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", fmt.Errorf("make a folder for programs: %w", err)
	}
	to := filepath.Join(bin, filepath.Base(path))
	if err := copyFile(path, to, 0o755); err != nil {
		return "", fmt.Errorf("copy a program for PostgreSQL's user: %w", err)
	}
	return to, os.Chmod(bin, 0o755)
}

// removeOutside removes the folder below a temporary one that root's
// PostgreSQL used for dir or for the tests of this repository. When dir is
// not the repository's .local, only what belongs to dir goes.
func (p *place) removeOutside(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	record := filepath.Join(p.repo, DefaultDir, recordName)
	b, err := os.ReadFile(record)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read which folder PostgreSQL used: %w", err)
	}
	outside := string(bytes.TrimSpace(b))
	if base := filepath.Base(outside); !filepath.IsAbs(outside) || base != p.outsideName() {
		return fmt.Errorf("%s names %q, which is none of ours: remove the file", record, outside)
	}
	if dir != filepath.Join(p.repo, DefaultDir) {
		outside = filepath.Join(outside, dataName(filepath.Join(dir, "postgres")))
	}
	if err := os.RemoveAll(outside); err != nil {
		return fmt.Errorf("remove the folder that PostgreSQL used: %w", err)
	}
	return nil
}
