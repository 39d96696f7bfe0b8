//go:build linux

package lb

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/native-routing/labctl/bpf"
)

// emptyRun is how many backends in a row must be missing to take it that no more
// follow: ids are given from the lowest.
const emptyRun = 4096

// A reading is a set of maps that is read. What refers to backends is read
// before them, so that it is known how many there must be.
type reading struct {
	*engine
	slots   []bpf.DatapathSlot
	owners  []*frontend // that have some of these
	matches []bpf.DatapathAffinityMatchKey
	highest uint32 // backend that something refers to
}

// restore reads what the maps hold. Nobody owns the frontends that it finds;
// those that no service claims are removed. room is a guess of how many backends
// there are.
func restore(maps Maps, room int) (*engine, error) {
	r := reading{engine: newEngine(maps, room)}
	steps := []struct {
		name string
		read func() error
	}{
		{maps.Frontends.Name(), r.readFrontends},
		{maps.Slots.Name(), r.readSlots},
		{maps.AffinityMatch.Name(), r.readMatches},
		{maps.Backends.Name(), r.readBackends},
		{maps.Maglev.Name(), r.readTables},
	}
	for _, step := range steps {
		if err := step.read(); err != nil {
			return nil, fmt.Errorf("read map %s: %w", step.name, err)
		}
	}
	r.adopt()
	e := r.engine
	for _, f := range e.frontends {
		e.queue(f)
	}
	slices.SortFunc(e.work, func(a, b *frontend) int { return cmp.Compare(a.key, b.key) })
	return e, nil
}

func (r *reading) readFrontends() error {
	return r.maps.Frontends.Dump(func(wire bpf.DatapathFrontendKey, value bpf.DatapathFrontend) bool {
		f := &frontend{key: keyOf(wire), current: &placement{value: value}}
		if r.numbers.claim(uint32(value.Id)) {
			f.id = value.Id
		} else {
			f.current.value.Id = 0 // of another too: it gets a new one
		}
		r.frontends[f.key] = f
		r.entries++
		return true
	})
}

// readSlots reads as many as frontends have. One whose slots are another's too,
// or not there, has none, and will be written anew.
func (r *reading) readSlots() error {
	var end uint64
	for _, f := range r.frontends {
		v := &f.current.value
		n := int(v.Count) + int(v.Qcount)
		if !r.engine.slots.claim(v.First, rangeSize(n)) {
			v.Count, v.Qcount, v.Id = 0, 0, 0
			continue
		}
		if n > 0 {
			f.current.backends = make([]uint32, n)
			r.owners = append(r.owners, f)
			end = max(end, uint64(v.First)+uint64(n))
		}
	}
	if end == 0 {
		return nil
	}
	r.slots = make([]bpf.DatapathSlot, 0, end)
	return r.maps.Slots.Dump(func(_ uint32, slot bpf.DatapathSlot) bool {
		r.slots = append(r.slots, slot)
		r.highest = max(r.highest, slot.Backend)
		return uint64(len(r.slots)) < end
	})
}

func (r *reading) readMatches() error {
	return r.maps.AffinityMatch.Dump(func(key bpf.DatapathAffinityMatchKey, _ uint8) bool {
		// For what is beyond the array no program can ask.
		if key.Service != 0 && key.Backend <= r.ids.limit {
			r.matches = append(r.matches, key)
			r.highest = max(r.highest, key.Backend)
		}
		return true
	})
}

func (r *reading) readBackends() error {
	last := uint32(0)
	return r.maps.Backends.Dump(func(id uint32, wire bpf.DatapathBackend) bool {
		if id == 0 || wire.Addr == 0 || !r.ids.claim(id) {
			return id < max(r.highest, last+emptyRun)
		}
		last = id
		b := r.at(id)
		*b = backend{address: addressOf(wire), state: wire.State, live: true, sure: true}
		if _, twice := r.byAddress[b.address]; !twice {
			r.byAddress[b.address] = id
		}
		r.used++
		r.idle = append(r.idle, id)
		return true
	})
}

func (r *reading) readTables() error {
	found := r.byNumber()
	return r.maps.Maglev.Dump(func(id uint32, table []uint32) bool {
		if id == 0 || id > r.numbers.limit {
			return true // no program can ask for it
		}
		f := r.orphan(found, uint16(id))
		f.hasTable = true
		ids := slices.Clone(table)
		slices.Sort(ids)
		for _, id := range slices.Compact(ids) {
			if r.known(id) {
				f.table = append(f.table, id)
			}
		}
		r.hold(f.table)
		return true
	})
}

// adopt gives frontends the backends that their slots and matches name.
func (r *reading) adopt() {
	for _, f := range r.owners {
		p := f.current
		for i := range p.backends {
			at := int(p.value.First) + i
			if at >= len(r.slots) || r.slots[at].Service != f.id || !r.known(r.slots[at].Backend) {
				f.current.value.Id = 0 // never as wanted
				continue               // entry 0 is nobody's; the range keeps its length
			}
			p.backends[i] = r.slots[at].Backend
		}
		r.hold(p.backends)
	}
	found := r.byNumber()
	for _, key := range r.matches {
		f := r.orphan(found, key.Service)
		r.at(key.Backend)
		r.hold([]uint32{key.Backend})
		f.match, f.matchSure = append(f.match, key.Backend), true
	}
}

// byNumber finds frontends by id.
func (e *engine) byNumber() map[uint16]*frontend {
	found := make(map[uint16]*frontend, len(e.frontends))
	for _, f := range e.frontends {
		if f.id != 0 {
			found[f.id] = f
		}
	}
	return found
}

// orphan stands for an id that no frontend has and other maps still know. It is
// removed like a frontend; no true one has its key, for port and address are 0.
func (e *engine) orphan(found map[uint16]*frontend, id uint16) *frontend {
	f := found[id]
	if f == nil {
		e.numbers.claim(uint32(id))
		f = &frontend{key: Key(id), id: id}
		found[id], e.frontends[f.key] = f, f
	}
	return f
}

// taking are the backends that take connections or end.
func (e *engine) taking() map[Address]State {
	found := make(map[Address]State, e.used)
	for id := range e.backends {
		b := &e.backends[id]
		if state := State(b.state); b.address != 0 && (state == Active || state == Ending) {
			found[b.address] = state
		}
	}
	return found
}

// known is whether an id is that of a backend that was read.
func (e *engine) known(id uint32) bool {
	return id != 0 && int(id) < len(e.backends) && e.backends[id].address != 0
}
