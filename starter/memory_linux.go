package main

import (
	"runtime/debug"
	"syscall"
)

// limitMemory ends this process when it takes more than so many bytes, which
// the garbage collector does its best to prevent.
func limitMemory(bytes uint64) {
	debug.SetMemoryLimit(int64(bytes / 4 * 3))
	limit := syscall.Rlimit{Cur: bytes, Max: bytes}
	_ = syscall.Setrlimit(syscall.RLIMIT_DATA, &limit) // as good as it gets without
}
