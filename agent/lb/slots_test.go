//go:build linux

package lb

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestRangeSize(t *testing.T) {
	want := map[int]uint32{0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 6, 7: 8, 8: 8, 9: 12, 12: 12, 13: 16, 17: 24, 25: 32, 33: 48, 65535: 65536}
	for n, size := range want {
		if got := rangeSize(n); got != size {
			t.Errorf("rangeSize(%d) = %d, want %d", n, got, size)
		}
	}
}

func TestSlotSpace(t *testing.T) {
	s := newSlotSpace(10)
	take := func(size, want uint32) {
		t.Helper()
		if got, ok := s.take(size); !ok || got != want {
			t.Fatalf("take(%d) = %d, %v, want %d", size, got, ok, want)
		}
	}
	take(3, 0)
	take(4, 3)
	take(3, 7)
	if _, ok := s.take(1); ok {
		t.Fatal("took what is not there")
	}
	if _, ok := s.take(0); !ok {
		t.Fatal("nothing is always there")
	}
	s.give(0, 3)
	s.give(7, 3)
	if want := []span{{0, 3}, {7, 3}}; !slices.Equal(s.free, want) {
		t.Fatalf("free %v", s.free)
	}
	take(2, 0) // the first that fits
	s.give(3, 4)
	if want := []span{{2, 8}}; !slices.Equal(s.free, want) {
		t.Fatalf("not joined: %v", s.free)
	}
	if s.claim(1, 2) || s.claim(9, 2) || s.claim(12, 1) || !s.claim(4, 2) || s.claim(5, 1) {
		t.Fatalf("claims: %v", s.free)
	}
	if want := []span{{2, 2}, {6, 4}}; !slices.Equal(s.free, want) {
		t.Fatalf("free %v", s.free)
	}
}

func TestNumberSet(t *testing.T) {
	n := newNumberSet(130)
	for want := uint32(1); want <= 130; want++ {
		if got, ok := n.take(); !ok || got != want {
			t.Fatalf("took %d, %v, want %d", got, ok, want)
		}
	}
	if got, ok := n.take(); ok {
		t.Fatalf("took %d of none", got)
	}
	n.give(70)
	n.give(3)
	if n.claim(4) || n.claim(0) || n.claim(131) || !n.claim(70) {
		t.Fatal("claims")
	}
	if got, ok := n.take(); !ok || got != 3 {
		t.Fatalf("took %d, %v, want the lowest", got, ok)
	}
}

// FuzzSlotSpace compares with a map of single slots.
func FuzzSlotSpace(f *testing.F) {
	f.Add(uint64(1), uint8(100))
	f.Add(uint64(2), uint8(7))
	f.Fuzz(func(t *testing.T, seed uint64, size uint8) {
		dice := rand.New(rand.NewPCG(seed, 2))
		s := newSlotSpace(uint32(size))
		used := make([]bool, size)
		var ranges []span
		fits := func(first, size uint32) bool {
			return int(first+size) <= len(used) && !slices.Contains(used[first:first+size], true)
		}
		mark := func(r span, to bool) {
			for i := range r.size {
				used[r.first+i] = to
			}
		}
		for range 200 {
			switch n := uint32(dice.IntN(9) + 1); {
			case dice.IntN(2) == 0 && len(ranges) > 0:
				i := dice.IntN(len(ranges))
				s.give(ranges[i].first, ranges[i].size)
				mark(ranges[i], false)
				ranges = slices.Delete(ranges, i, i+1)
			case dice.IntN(4) == 0:
				r := span{uint32(dice.IntN(int(size) + 1)), n}
				want := fits(r.first, r.size)
				if got := s.claim(r.first, r.size); got != want {
					t.Fatalf("claim(%v) = %v of %v", r, got, s.free)
				}
				if want {
					mark(r, true)
					ranges = append(ranges, r)
				}
			default:
				first, ok := s.take(n)
				want := slices.IndexFunc(used, func(bool) bool { return false })
				for at := range len(used) {
					if fits(uint32(at), n) {
						want = at
						break
					}
				}
				if ok != (want >= 0) || ok && int(first) != want {
					t.Fatalf("take(%d) = %d, %v, want %d of %v", n, first, ok, want, s.free)
				}
				if ok {
					mark(span{first, n}, true)
					ranges = append(ranges, span{first, n})
				}
			}
			for i := 1; i < len(s.free); i++ {
				if s.free[i-1].first+s.free[i-1].size >= s.free[i].first {
					t.Fatalf("not joined: %v", s.free)
				}
			}
		}
	})
}
