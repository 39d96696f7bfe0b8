//go:build linux

package lb

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/native-routing/labctl/bpf"
)

var errInjected = errors.New("injected")

// memory is a Table in memory.
type memory[K comparable, V any] struct {
	name     string
	capacity int
	array    bool
	entries  map[K]V
	writes   *int
	// after is called when an entry was written or deleted.
	after func()
	// dice makes one call in ten fail, before its effect or after a part of it.
	dice *rand.Rand
}

func (m *memory[K, V]) Name() string  { return m.name }
func (m *memory[K, V]) Capacity() int { return m.capacity }

// fault says how many of n entries are written before the call fails.
func (m *memory[K, V]) fault(n int) (part int, fails bool) {
	if m.dice == nil || m.dice.IntN(10) > 0 {
		return n, false
	}
	return m.dice.IntN(n + 1), true
}

func (m *memory[K, V]) Lookup(key K) (value V, err error) {
	if _, fails := m.fault(0); fails {
		return value, errInjected
	}
	value, ok := m.entries[key]
	if !ok && !m.array {
		err = ErrAbsent
	}
	return value, err
}

func (m *memory[K, V]) Update(keys []K, values []V) (int, error) {
	part, fails := m.fault(len(keys))
	for i := range part {
		if _, there := m.entries[keys[i]]; !there && !m.array && len(m.entries) >= m.capacity {
			return i, ErrFull
		}
		if index, ok := any(keys[i]).(uint32); ok && m.array && int(index) >= m.capacity {
			return i, fmt.Errorf("%s has no entry %d", m.name, index)
		}
		m.entries[keys[i]] = values[i]
		m.wrote()
	}
	if fails {
		return m.dice.IntN(part + 1), errInjected // it may know less than it did
	}
	return part, nil
}

func (m *memory[K, V]) Delete(keys []K) (int, error) {
	part, fails := m.fault(len(keys))
	for i := range part {
		delete(m.entries, keys[i])
		m.wrote()
	}
	if fails {
		return m.dice.IntN(part + 1), errInjected // it may know less than it did
	}
	return part, nil
}

func (m *memory[K, V]) wrote() {
	if *m.writes++; m.after != nil {
		m.after()
	}
}

func (m *memory[K, V]) Dump(yield func(K, V) bool) error {
	if _, fails := m.fault(0); fails {
		return errInjected
	}
	keys := slices.Collect(maps.Keys(m.entries))
	slices.SortFunc(keys, func(a, b K) int { return strings.Compare(order(a), order(b)) })
	next := uint32(0)
	for _, key := range keys {
		for ; m.array && next < any(key).(uint32); next++ {
			var none V
			if !yield(any(next).(K), none) {
				return nil
			}
		}
		next++
		if !yield(key, m.entries[key]) {
			return nil
		}
	}
	return nil
}

func order(key any) string {
	if n, ok := key.(uint32); ok {
		return fmt.Sprintf("%010d", n)
	}
	return fmt.Sprint(key)
}

// kernel is a set of maps in memory, and what a program would find in them.
type kernel struct {
	frontends memory[bpf.DatapathFrontendKey, bpf.DatapathFrontend]
	slots     memory[uint32, bpf.DatapathSlot]
	backends  memory[uint32, bpf.DatapathBackend]
	maglev    memory[uint32, []uint32]
	match     memory[bpf.DatapathAffinityMatchKey, uint8]
	writes    int
	size      uint32 // of a Maglev table
}

const testMaglev = 31

func newKernel(frontends, slots, backends int) *kernel {
	k := &kernel{size: testMaglev}
	k.frontends = memory[bpf.DatapathFrontendKey, bpf.DatapathFrontend]{name: bpf.Frontends, capacity: frontends, entries: map[bpf.DatapathFrontendKey]bpf.DatapathFrontend{}, writes: &k.writes}
	k.slots = memory[uint32, bpf.DatapathSlot]{name: bpf.Slots, capacity: slots, array: true, entries: map[uint32]bpf.DatapathSlot{}, writes: &k.writes}
	k.backends = memory[uint32, bpf.DatapathBackend]{name: bpf.Backends, capacity: backends + 1, array: true, entries: map[uint32]bpf.DatapathBackend{}, writes: &k.writes}
	k.maglev = memory[uint32, []uint32]{name: bpf.Maglev, capacity: frontends, entries: map[uint32][]uint32{}, writes: &k.writes}
	k.match = memory[bpf.DatapathAffinityMatchKey, uint8]{name: bpf.AffinityMatch, capacity: backends, entries: map[bpf.DatapathAffinityMatchKey]uint8{}, writes: &k.writes}
	return k
}

func (k *kernel) maps() Maps {
	clock := bpf.Features{}.Clock()
	return Maps{Frontends: &k.frontends, Slots: &k.slots, Backends: &k.backends, Maglev: &k.maglev, AffinityMatch: &k.match, Clock: clock, MaglevSize: k.size}
}

func (k *kernel) faults(dice *rand.Rand) {
	k.frontends.dice, k.slots.dice, k.backends.dice, k.maglev.dice, k.match.dice = dice, dice, dice, dice, dice
}

func (k *kernel) watch(after func()) {
	k.frontends.after, k.slots.after, k.backends.after, k.maglev.after, k.match.after = after, after, after, after, after
}

// backend is the address of an id, 0 for none.
func (k *kernel) backend(id uint32) Address {
	if b := k.backends.entries[id]; b.Addr != 0 {
		return addressOf(b)
	}
	return 0
}

// find is frontend_lookup of service.h.
func (k *kernel) find(address Address, inCluster bool) (bpf.DatapathFrontend, bool) {
	f, ok := k.frontends.entries[address.scoped(scopeExternal).wire()]
	if ok && inCluster && f.Flags&flagTwoScopes != 0 {
		f, ok = k.frontends.entries[address.scoped(scopeInternal).wire()]
	}
	return f, ok
}

// reachable are all backends that backend_select of service.h may choose; 0
// among them is a choice that leads nowhere.
func (k *kernel) reachable(f bpf.DatapathFrontend) []Address {
	var found []Address
	if f.Count == 0 {
		return nil
	}
	for i := range uint32(f.Count) {
		slot := k.slots.entries[f.First+i]
		if slot.Service != f.Id {
			found = append(found, 0)
			continue
		}
		found = append(found, k.backend(slot.Backend))
	}
	if f.Algorithm == uint8(bpf.DatapathAlgorithmALGORITHM_MAGLEV) {
		for _, id := range k.maglev.entries[uint32(f.Id)] {
			found = append(found, k.backend(id))
		}
	}
	if f.Flags&flagAffinity != 0 {
		for key := range k.match.entries {
			// One whose backend is gone is passed over.
			if address := k.backend(key.Backend); key.Service == f.Id && address != 0 {
				found = append(found, address)
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// dump is everything that programs can reach, frontends by id.
func (k *kernel) dump() string {
	var out strings.Builder
	keys := slices.Collect(maps.Keys(k.frontends.entries))
	slices.SortFunc(keys, func(a, b bpf.DatapathFrontendKey) int {
		return int(k.frontends.entries[a].Id) - int(k.frontends.entries[b].Id)
	})
	for _, key := range keys {
		f := k.frontends.entries[key]
		fmt.Fprintf(&out, "%d %v flags=%#x alg=%d affinity=%d count=%d qcount=%d\n", f.Id, keyOf(key), f.Flags, f.Algorithm, f.Affinity, f.Count, f.Qcount)
		for i := range uint32(f.Count) + uint32(f.Qcount) {
			slot := k.slots.entries[f.First+i]
			owner := ""
			if slot.Service != f.Id {
				owner = fmt.Sprintf(" of %d", slot.Service)
			}
			fmt.Fprintf(&out, "  slot %d: %d => %v (%v)%s\n", f.First+i, slot.Backend, k.backend(slot.Backend), State(k.backends.entries[slot.Backend].State), owner)
		}
		if table := k.maglev.entries[uint32(f.Id)]; table != nil {
			fmt.Fprintf(&out, "  maglev %v\n", table)
		}
		for _, match := range slices.SortedFunc(maps.Keys(k.match.entries), func(a, b bpf.DatapathAffinityMatchKey) int { return int(a.Backend) - int(b.Backend) }) {
			if match.Service == f.Id {
				fmt.Fprintf(&out, "  match %d\n", match.Backend)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(k.backends.entries)) {
		if address := k.backend(id); address != 0 {
			fmt.Fprintf(&out, "backend %d: %v %v\n", id, address, State(k.backends.entries[id].State))
		}
	}
	fmt.Fprintf(&out, "%d frontends, %d maglev, %d matches\n", len(k.frontends.entries), len(k.maglev.entries), len(k.match.entries))
	return out.String()
}
