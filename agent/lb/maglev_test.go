//go:build linux

package lb

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/native-routing/labctl/bpf"
)

func addresses(n int) []Address {
	var all []Address
	for i := range n {
		all = append(all, NewAddress(netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 20, byte(i / 250), byte(i%250 + 1)}), 80), 6))
	}
	return all
}

// TestMaglevIsTheSame pins the table: another agent version on another node must
// agree.
func TestMaglevIsTheSame(t *testing.T) {
	got := fmt.Sprint(Maglev(addresses(3), 31))
	if want := "[2 2 0 1 1 0 2 2 0 0 2 1 0 2 1 1 0 2 1 0 2 0 1 1 2 0 1 2 0 0 1]"; got != want {
		t.Errorf("table %s, want %s", got, want)
	}
}

func TestMaglevSpreads(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 100, 1000} {
		counts := make([]int, n)
		for _, i := range Maglev(addresses(n), bpf.DefaultMaglevSize) {
			counts[i]++
		}
		if least, most := slices.Min(counts), slices.Max(counts); most-least > 1 {
			t.Errorf("%d backends have from %d to %d entries", n, least, most)
		}
	}
}

// TestMaglevDisturbsLittle removes one of ten backends: of the entries of the
// others nearly all stay (the paper's Figure 12 has about 1 % for 1 %).
func TestMaglevDisturbsLittle(t *testing.T) {
	all := addresses(10)
	before := Maglev(all, bpf.DefaultMaglevSize)
	left := slices.Delete(slices.Clone(all), 4, 5)
	moved := 0
	for i, index := range Maglev(left, bpf.DefaultMaglevSize) {
		if was := all[before[i]]; was != all[4] && was != left[index] {
			moved++
		}
	}
	if share := float64(moved) / bpf.DefaultMaglevSize; share > 0.10 {
		t.Errorf("%.1f %% of the others' entries moved", 100*share)
	}
}

func TestMaglevOfNone(t *testing.T) {
	if table := Maglev(nil, 7); len(table) != 7 {
		t.Error(table)
	}
}

func BenchmarkMaglev(b *testing.B) {
	for _, n := range []int{3, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			all := addresses(n)
			for b.Loop() {
				Maglev(all, bpf.DefaultMaglevSize)
			}
		})
	}
}
