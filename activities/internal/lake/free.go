//go:build unix

package lake

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"syscall"
)

// Free is how much space the lake's disk has left for the worker, in bytes. Known
// is false for a bucket.
func (l *Lake) Free() (bytes int64, known bool, err error) {
	u, err := url.Parse(l.root.URI())
	if err != nil || u.Scheme != "file" {
		return 0, false, nil
	}
	// What is not there yet will lie on the disk of the folder above it.
	for dir := u.Path; ; dir = filepath.Dir(dir) {
		var st syscall.Statfs_t
		err := syscall.Statfs(dir, &st)
		if errors.Is(err, fs.ErrNotExist) && dir != "/" {
			continue
		}
		if err != nil {
			return 0, false, fmt.Errorf("ask for the space below %s: %w", dir, err)
		}
		return int64(st.Bavail) * int64(st.Bsize), true, nil
	}
}
