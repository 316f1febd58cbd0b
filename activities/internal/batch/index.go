package batch

import "hash/maphash"

// index finds entries by key. It is a hash table with linear probing whose keys
// lie end to end in one slice, so that a key costs no allocation of its own.
type index struct {
	slots   []int32 // numbers of entries plus one; zero is free
	entries []entry
	keys    []byte
}

type entry struct {
	state
	key  span
	hash uint64
}

var seed = maphash.MakeSeed()

// newIndex makes room for n keys, which is all that it can hold.
func newIndex(n int) index {
	size := 64
	for size < 2*n {
		size *= 2
	}
	return index{slots: make([]int32, size)}
}

// find returns the entry of key, adding an untouched one if there is none. It
// is valid until the next find.
func (x *index) find(key []byte) *entry {
	hash := maphash.Bytes(seed, key)
	mask := uint64(len(x.slots) - 1)
	i := hash & mask
	for ; x.slots[i] != 0; i = (i + 1) & mask {
		e := &x.entries[x.slots[i]-1]
		if e.hash == hash && string(x.keys[e.key.from:e.key.to]) == string(key) {
			return e
		}
	}
	from := len(x.keys)
	x.keys = append(x.keys, key...)
	x.entries = append(x.entries, entry{key: span{from, len(x.keys)}, hash: hash})
	x.slots[i] = int32(len(x.entries))
	return &x.entries[len(x.entries)-1]
}

// clear removes every entry. Spans of keys stay valid.
func (x *index) clear() {
	x.entries = x.entries[:0]
	clear(x.slots)
}

func (x *index) bytes(s span) []byte { return x.keys[s.from:s.to:s.to] }
