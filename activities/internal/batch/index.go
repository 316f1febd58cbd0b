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

// grow makes room for n more keys, at most.
func (x *index) grow(n int) {
	size := 64
	for size < 2*(len(x.entries)+n) {
		size *= 2
	}
	x.slots = make([]int32, size)
	for i := range x.entries {
		x.insert(x.entries[i].hash, int32(i+1))
	}
}

func (x *index) insert(hash uint64, number int32) {
	mask := uint64(len(x.slots) - 1)
	i := hash & mask
	for x.slots[i] != 0 {
		i = (i + 1) & mask
	}
	x.slots[i] = number
}

// find returns the entry of key, adding an untouched one if there is none. It
// is valid until the next find.
func (x *index) find(key []byte) *entry {
	hash := maphash.Bytes(seed, key)
	mask := uint64(len(x.slots) - 1)
	for i := hash & mask; x.slots[i] != 0; i = (i + 1) & mask {
		e := &x.entries[x.slots[i]-1]
		if e.hash == hash && string(x.keys[e.key.from:e.key.to]) == string(key) {
			return e
		}
	}
	from := len(x.keys)
	x.keys = append(x.keys, key...)
	x.entries = append(x.entries, entry{key: span{from, len(x.keys)}, hash: hash})
	if 2*len(x.entries) > len(x.slots) {
		x.grow(len(x.entries))
	} else {
		x.insert(hash, int32(len(x.entries)))
	}
	return &x.entries[len(x.entries)-1]
}

// clear removes every entry. Spans of keys stay valid.
func (x *index) clear() {
	x.entries = x.entries[:0]
	clear(x.slots)
}

func (x *index) bytes(s span) []byte { return x.keys[s.from:s.to:s.to] }
