//go:build !linux

package main

import "runtime/debug"

// limitMemory has the garbage collector try to stay below so many bytes.
func limitMemory(bytes uint64) { debug.SetMemoryLimit(int64(bytes / 4 * 3)) }
