package lake

import "github.com/cockroachdb/pebble/v2/vfs"

// scratchFS is the local disk for files that need not survive anything: it
// never waits for them to be durable.
type scratchFS struct{ vfs.FS }

func unsynced(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return scratchFile{f}, nil
}

// Create implements [vfs.FS].
func (s scratchFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return unsynced(s.FS.Create(name, c))
}

// OpenReadWrite implements [vfs.FS].
func (s scratchFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return unsynced(s.FS.OpenReadWrite(name, c, o...))
}

// OpenDir implements [vfs.FS].
func (s scratchFS) OpenDir(name string) (vfs.File, error) { return unsynced(s.FS.OpenDir(name)) }

// ReuseForWrite implements [vfs.FS].
func (s scratchFS) ReuseForWrite(oldName, newName string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return unsynced(s.FS.ReuseForWrite(oldName, newName, c))
}

// Unwrap implements [vfs.FS].
func (s scratchFS) Unwrap() vfs.FS { return s.FS }

type scratchFile struct{ vfs.File }

// Sync implements [vfs.File].
func (scratchFile) Sync() error { return nil }

// SyncData implements [vfs.File].
func (scratchFile) SyncData() error { return nil }

// SyncTo implements [vfs.File].
func (scratchFile) SyncTo(int64) (bool, error) { return false, nil }
