// Package storetest has what tests of stores and of tables need: the contract
// of [store.Store] as a suite, and a store that fails on request. It is not for
// production.
package storetest

import "github.com/millrace-io/millrace/deltalog/store"

// Memory is [store.Memory].
type Memory = store.Memory

// NewMemory is [store.NewMemory].
func NewMemory() *Memory { return store.NewMemory() }
