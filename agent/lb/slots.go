//go:build linux

package lb

import (
	"math/bits"
	"slices"
	"sort"
)

// A slotSpace hands out ranges of the array of slots: the first that fits.
type slotSpace struct {
	free []span // by first, none touching the next
}

// A span is a range of slots that nobody uses.
type span struct{ first, size uint32 }

func newSlotSpace(size uint32) *slotSpace {
	s := &slotSpace{}
	if size > 0 {
		s.free = append(s.free, span{0, size})
	}
	return s
}

// rangeSize is how many slots are taken for n backends: the next of 1, 2, 3, 4,
// 6, 8, 12, 16, 24 and so on, so that what is freed fits others.
func rangeSize(n int) uint32 {
	if n <= 2 {
		return uint32(n)
	}
	power := uint32(1) << bits.Len32(uint32(n-1))
	if three := power / 4 * 3; uint32(n) <= three {
		return three
	}
	return power
}

// take finds room for a range.
func (s *slotSpace) take(size uint32) (first uint32, ok bool) {
	if size == 0 {
		return 0, true
	}
	for i := range s.free {
		f := &s.free[i]
		if f.size < size {
			continue
		}
		first = f.first
		f.first, f.size = f.first+size, f.size-size
		if f.size == 0 {
			s.free = slices.Delete(s.free, i, i+1)
		}
		return first, true
	}
	return 0, false
}

// claim takes one certain range, and says whether all of it was free.
func (s *slotSpace) claim(first, size uint32) bool {
	if size == 0 {
		return true
	}
	i := sort.Search(len(s.free), func(i int) bool { return s.free[i].first > first }) - 1
	if i < 0 || uint64(first)+uint64(size) > uint64(s.free[i].first)+uint64(s.free[i].size) {
		return false
	}
	f := s.free[i]
	before := span{f.first, first - f.first}
	after := span{first + size, f.first + f.size - first - size}
	var rest []span
	for _, part := range []span{before, after} {
		if part.size > 0 {
			rest = append(rest, part)
		}
	}
	s.free = slices.Replace(s.free, i, i+1, rest...)
	return true
}

// give returns a range that was taken.
func (s *slotSpace) give(first, size uint32) {
	if size == 0 {
		return
	}
	i := sort.Search(len(s.free), func(i int) bool { return s.free[i].first > first })
	s.free = slices.Insert(s.free, i, span{first, size})
	if i+1 < len(s.free) && first+size == s.free[i+1].first {
		s.free[i].size += s.free[i+1].size
		s.free = slices.Delete(s.free, i+1, i+2)
	}
	if i > 0 && s.free[i-1].first+s.free[i-1].size == first {
		s.free[i-1].size += s.free[i].size
		s.free = slices.Delete(s.free, i, i+1)
	}
}

// A numberSet hands out the lowest number that is free, from 1.
type numberSet struct {
	words []uint64
	hint  int // no word before it has a free number
	limit uint32
}

// newNumberSet has the numbers 1 to limit.
func newNumberSet(limit uint32) *numberSet {
	n := &numberSet{words: make([]uint64, limit/64+1), limit: limit}
	n.words[0] = 1
	return n
}

func (n *numberSet) take() (uint32, bool) {
	for ; n.hint < len(n.words); n.hint++ {
		if w := n.words[n.hint]; w != ^uint64(0) {
			number := uint32(n.hint*64 + bits.TrailingZeros64(^w))
			return number, number <= n.limit && n.claim(number)
		}
	}
	return 0, false
}

// claim takes one certain number, and says whether it was free.
func (n *numberSet) claim(number uint32) bool {
	if number == 0 || number > n.limit || n.words[number/64]&(1<<(number%64)) != 0 {
		return false
	}
	n.words[number/64] |= 1 << (number % 64)
	return true
}

func (n *numberSet) give(number uint32) {
	n.words[number/64] &^= 1 << (number % 64)
	n.hint = min(n.hint, int(number/64))
}
