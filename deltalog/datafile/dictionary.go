package datafile

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// dictionary numbers distinct values in the order of their first appearance.
// Values are held as PLAIN encodes them. It serves either add of fixed-width
// values or addBytes, never both.
type dictionary struct {
	slots  []uint32 // numbers plus one; zero is free
	hashes []uint32 // of the values, by number
	nums   []uint64 // fixed-width values, by number
	starts []uint32 // where byte strings begin in plain, past their length
	plain  []byte
	count  int

	lastNum   uint64
	lastIndex uint32
	hasLast   bool
}

var dictionarySeed = maphash.MakeSeed()

func (d *dictionary) reset() {
	clear(d.slots)
	d.hashes, d.nums, d.starts, d.plain = d.hashes[:0], d.nums[:0], d.starts[:0], d.plain[:0]
	d.count, d.hasLast = 0, false
}

// add returns the number of a fixed-width value, and whether it is a new one,
// which the caller then appends to plain.
func (d *dictionary) add(v uint64) (index uint32, added bool) {
	if d.hasLast && d.lastNum == v {
		return d.lastIndex, false
	}
	d.lastNum, d.hasLast = v, true
	hi, lo := bits.Mul64(v^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	hash := uint32(hi ^ lo)
	i := d.first(hash)
	for ; d.slots[i] != 0; i = (i + 1) & uint32(len(d.slots)-1) {
		if n := d.slots[i] - 1; d.nums[n] == v {
			d.lastIndex = n
			return n, false
		}
	}
	d.nums = append(d.nums, v)
	d.lastIndex = d.insert(i, hash)
	return d.lastIndex, true
}

// addBytes returns the number of a byte string, and whether it is a new one. It
// appends new ones to plain.
func (d *dictionary) addBytes(b []byte) (index uint32, added bool) {
	if d.hasLast && string(d.at(d.lastIndex)) == string(b) {
		return d.lastIndex, false
	}
	d.hasLast = true
	hash := uint32(maphash.Bytes(dictionarySeed, b))
	i := d.first(hash)
	for ; d.slots[i] != 0; i = (i + 1) & uint32(len(d.slots)-1) {
		if n := d.slots[i] - 1; d.hashes[n] == hash && string(d.at(n)) == string(b) {
			d.lastIndex = n
			return n, false
		}
	}
	d.plain = binary.LittleEndian.AppendUint32(d.plain, uint32(len(b)))
	d.starts = append(d.starts, uint32(len(d.plain)))
	d.plain = append(d.plain, b...)
	d.lastIndex = d.insert(i, hash)
	return d.lastIndex, true
}

func (d *dictionary) at(n uint32) []byte {
	from := d.starts[n]
	size := binary.LittleEndian.Uint32(d.plain[from-4:])
	return d.plain[from : from+size]
}

// first returns the slot that a hash begins at, making room before.
func (d *dictionary) first(hash uint32) uint32 {
	if 2*(d.count+1) > len(d.slots) {
		d.slots = make([]uint32, max(256, 4*len(d.slots)))
		for n, h := range d.hashes {
			i := h & uint32(len(d.slots)-1)
			for d.slots[i] != 0 {
				i = (i + 1) & uint32(len(d.slots)-1)
			}
			d.slots[i] = uint32(n + 1)
		}
	}
	return hash & uint32(len(d.slots)-1)
}

func (d *dictionary) insert(slot, hash uint32) uint32 {
	d.hashes = append(d.hashes, hash)
	d.count++
	d.slots[slot] = uint32(d.count)
	return uint32(d.count - 1)
}

// appendPlain appends the values of those numbers, as PLAIN encodes them, width
// bytes each or, where width is zero, byte strings.
func (d *dictionary) appendPlain(dst []byte, indexes []uint32, width int) []byte {
	for _, n := range indexes {
		if width > 0 {
			dst = append(dst, d.plain[int(n)*width:(int(n)+1)*width]...)
			continue
		}
		from := d.starts[n] - 4
		dst = append(dst, d.plain[from:from+4+uint32(len(d.at(n)))]...)
	}
	return dst
}
