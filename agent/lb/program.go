//go:build linux

package lb

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/native-routing/labctl/bpf"
)

// program brings the maps to what is wanted, as far as it can. What it cannot
// do stays in e.work with the reason.
func (e *engine) program(now time.Time) {
	work := e.work
	e.work, e.failure = nil, nil
	for _, f := range work {
		f.queued, f.stop, f.waiting, f.err = false, false, false, nil
		if f.want != nil && f.want.uncut != nil {
			f.want.choice, f.want.uncut = f.want.uncut, nil
		}
	}
	e.resolve(now, work)
	e.writeBackends()
	e.removeEntries(now, work, false)
	e.writeSlots(work)
	e.writeTables(now, work)
	e.writeMatches(work)
	e.writeEntries(now, work, true)
	e.writeEntries(now, work, false)
	e.removeEntries(now, work, true)
	e.cleanMatches(now, work)
	e.cleanTables(now, work)
	for _, f := range work {
		e.finish(now, f)
	}
	e.zero()
}

// fail ends the work on a frontend for this pass.
func (f *frontend) fail(step string, err error) {
	f.err, f.stop = err, true
	if !errors.Is(err, ErrFull) {
		f.err = fmt.Errorf("%s of %v: %w", step, f.key, err)
	}
}

// resolve finds out what entries are whose last write failed.
func (e *engine) resolve(now time.Time, work []*frontend) {
	for _, f := range work {
		if !f.unsure {
			continue
		}
		value, err := e.maps.Frontends.Lookup(f.key.wire())
		absent := errors.Is(err, ErrAbsent)
		if err != nil && !absent {
			e.ops.add(bpf.Frontends, "lookup", 0, err)
			f.fail("look up the frontend", err)
			continue
		}
		e.ops.add(bpf.Frontends, "lookup", 1, nil)
		current, pending := f.current, f.pending
		f.current, f.pending, f.unsure = nil, nil, false
		switch {
		case absent:
			e.entries--
		case pending != nil && pending.value == value:
			f.current = pending
			if current == nil {
				e.added = append(e.added, f.key.Address())
			}
		case current != nil && current.value == value:
			f.current = current
		default: // somebody else's, to be replaced: no id is 0
			f.current = &placement{value: value}
			f.current.value.Id = 0
		}
		if pending != nil && pending != f.current {
			e.drop(pending, current)
		}
		if current != nil && current != f.current {
			e.retirePlacement(now, current, f.current)
		}
	}
}

// writeBackends writes new backends and new states.
func (e *engine) writeBackends() {
	var ids []uint32
	for _, id := range e.unwritten {
		b := &e.backends[id]
		b.queued = false
		if b.refs > 0 && (!b.sure || b.state != b.wanted()) {
			b.state, b.sure = b.wanted(), true // until it fails
			ids = append(ids, id)
		}
	}
	e.unwritten = nil
	if len(ids) == 0 {
		return
	}
	slices.Sort(ids)
	values := make([]bpf.DatapathBackend, len(ids))
	for i, id := range ids {
		values[i] = e.backends[id].address.backend(e.backends[id].state)
	}
	update(e.ops, e.maps.Backends, ids, values, func(i int, err error) {
		e.backends[ids[i]].sure = false
		e.failure = fmt.Errorf("write backend %v: %w", e.backends[ids[i]].address, err)
	})
	for _, id := range ids {
		b := &e.backends[id]
		b.live = b.live || b.sure
		e.touch(id)
	}
}

// writeSlots gives frontends that change new ranges of slots.
func (e *engine) writeSlots(work []*frontend) {
	room := 0
	for _, f := range work {
		if f.want != nil {
			room += len(f.want.choice.backends)
		}
	}
	owners, keys, values := make([]*frontend, 0, room), make([]uint32, 0, room), make([]bpf.DatapathSlot, 0, room)
	for _, f := range work {
		if f.owner == nil || f.stop || f.want == nil || f.placed(f.want) || !e.place(f) {
			continue
		}
		for i, id := range f.next.backends {
			owners = append(owners, f)
			keys = append(keys, f.next.value.First+uint32(i))
			values = append(values, bpf.DatapathSlot{Backend: id, Service: f.id})
		}
	}
	update(e.ops, e.maps.Slots, keys, values, func(i int, err error) {
		if f := owners[i]; f.next != nil {
			f.fail("write slots", err)
			e.forgetNext(f)
		}
	})
}

// place finds an id and room for what a frontend shall be, and says whether
// there is.
func (e *engine) place(f *frontend) bool {
	choice := f.want.choice
	for _, id := range choice.backends {
		if b := &e.backends[id]; !b.live {
			f.fail("write backend "+b.address.String(), errUnwritten)
			return false
		}
	}
	if f.current == nil && e.entries >= e.maps.Frontends.Capacity() {
		f.fail("", full(bpf.Frontends, e.maps.Frontends.Capacity()))
		return false
	}
	if f.id == 0 {
		number, ok := e.numbers.take()
		if !ok {
			e.lackRoom(f, full("of frontends' ids", int(e.numbers.limit)))
			return false
		}
		f.id = uint16(number)
	}
	first, ok := e.slots.take(rangeSize(len(choice.backends)))
	if !ok {
		if !e.inPlace(f) {
			return false
		}
		first = f.current.value.First
	}
	f.next = &placement{value: f.want.value(first, f.id), backends: f.want.choice.backends}
	e.hold(f.next.backends)
	return true
}

// inPlace has a frontend written over its own slots where there are no others,
// with as many backends as these have room for: each slot leads to a backend of
// before or of now all the while. It says whether there is anything to write.
func (e *engine) inPlace(f *frontend) bool {
	err := full(bpf.Slots, e.maps.Slots.Capacity())
	if len(e.limbo) > 0 || f.current == nil || f.current.value.Id != f.id {
		e.lackRoom(f, err)
		return false
	}
	if whole := f.want.choice; rangeSize(len(whole.backends)) > f.current.size() {
		room := int(f.current.size())
		f.err = err
		f.want.uncut = whole
		f.want.choice = &choice{backends: whole.backends[:room], count: min(whole.count, room), active: min(whole.active, room)}
		if f.placed(f.want) {
			return false
		}
	}
	all, added := union(f.mixed, f.want.choice.backends)
	e.hold(added)
	f.mixed = all
	return true
}

var errUnwritten = errors.New("the map does not take it")

// lackRoom waits if something is to be free soon.
func (e *engine) lackRoom(f *frontend, err error) {
	if len(e.limbo) > 0 {
		f.stop, f.waiting = true, true
		return
	}
	f.fail("", err)
}

// forgetNext gives up what was to be written.
func (e *engine) forgetNext(f *frontend) {
	e.drop(f.next, f.current)
	f.next = nil
}

// drop gives up a placement that no program can have seen. It may have been over
// the slots of the current one.
func (e *engine) drop(p, current *placement) {
	if current == nil || current.size() == 0 || p.value.First != current.value.First {
		e.slots.give(p.value.First, p.size())
	}
	e.release(p.backends)
}

// writeTables makes Maglev tables. A frontend goes on without one, by its
// slots, if it never had one.
func (e *engine) writeTables(now time.Time, work []*frontend) {
	for _, f := range work {
		if f.owner == nil || f.stop || f.want == nil || f.id == 0 {
			continue
		}
		ids := f.want.tableFor()
		if len(ids) == 0 || f.tableSure && slices.Equal(f.table, ids) {
			continue
		}
		if err := e.writeTable(now, f, ids); err != nil {
			f.err = err
			if !errors.Is(err, ErrFull) {
				f.err = fmt.Errorf("write the Maglev table of %v: %w", f.key, err)
			}
		}
	}
}

func (e *engine) writeTable(now time.Time, f *frontend, ids []uint32) error {
	table := e.maglev(f.want.choice)
	had := f.hasTable
	if had && !f.tableSure { // as after a restart: perhaps it is right
		found, err := e.maps.Maglev.Lookup(uint32(f.id))
		if err == nil && slices.Equal(found, table) {
			e.setTable(now, f, ids)
			return nil
		}
	}
	all, added := union(slices.Clone(f.table), ids)
	e.hold(added)
	f.table, f.hasTable, f.tableSure = all, true, false
	var failure error
	update(e.ops, e.maps.Maglev, []uint32{uint32(f.id)}, [][]uint32{table}, func(_ int, err error) { failure = err })
	if failure != nil {
		f.stop = had // the old table may lead elsewhere than the new slots
		if had && f.next != nil {
			e.forgetNext(f)
		}
		return failure
	}
	e.setTable(now, f, ids)
	return nil
}

// setTable notes that the table holds just ids.
func (e *engine) setTable(now time.Time, f *frontend, ids []uint32) {
	_, added := union(slices.Clone(f.table), ids)
	e.hold(added)
	e.retire(now, retired{backends: without(f.table, ids)})
	f.table, f.hasTable, f.tableSure = ids, true, true
}

// maglev is the table of a choice, made once for all frontends that share it.
func (e *engine) maglev(c *choice) []uint32 {
	if c.table == nil {
		addresses := make([]Address, c.count)
		for i, id := range c.backends[:c.count] {
			addresses[i] = e.backends[id].address
		}
		c.table = make([]uint32, 0, e.maps.MaglevSize)
		for _, index := range Maglev(addresses, e.maps.MaglevSize) {
			c.table = append(c.table, c.backends[index])
		}
	}
	return c.table
}

// writeMatches lets affinities lead to active backends.
func (e *engine) writeMatches(work []*frontend) {
	var owners []*frontend
	var keys []bpf.DatapathAffinityMatchKey
	for _, f := range work {
		if f.owner == nil || f.stop || f.want == nil || f.id == 0 {
			continue
		}
		match := f.want.matchFor()
		all, added := union(slices.Clone(f.match), match)
		todo := added
		if !f.matchSure {
			todo = match
		}
		e.hold(added)
		f.match, f.matchSure = all, true // until one fails
		for _, id := range todo {
			owners = append(owners, f)
			keys = append(keys, bpf.DatapathAffinityMatchKey{Backend: id, Service: f.id})
		}
	}
	values := make([]uint8, len(keys))
	for i := range values {
		values[i] = 1
	}
	update(e.ops, e.maps.AffinityMatch, keys, values, func(i int, err error) {
		f := owners[i]
		f.matchSure = false
		if errors.Is(err, ErrFull) {
			f.err = err // it is served, but clients do not keep their backend
			return
		}
		if f.fail("write affinity_match", err); f.next != nil {
			e.forgetNext(f)
		}
	})
}

// writeEntries moves frontends of one scope from their old slots to the new.
func (e *engine) writeEntries(now time.Time, work []*frontend, internal bool) {
	var todo []*frontend
	var keys []bpf.DatapathFrontendKey
	var values []bpf.DatapathFrontend
	for _, f := range work {
		if f.next == nil || f.key.Internal() != internal {
			continue
		}
		if !internal && f.next.value.Flags&flagTwoScopes != 0 && e.lacksHalf(f) {
			e.forgetNext(f)
			continue
		}
		if f.current == nil {
			e.entries++
		}
		f.pending, f.next, f.unsure = f.next, nil, true
		todo = append(todo, f)
		keys = append(keys, f.key.wire())
		values = append(values, f.pending.value)
	}
	update(e.ops, e.maps.Frontends, keys, values, func(i int, err error) { todo[i].fail("write", err) })
	for _, f := range todo {
		if f.stop {
			continue
		}
		if f.current == nil {
			e.added = append(e.added, f.key.Address())
		}
		from := f.current
		f.current, f.pending, f.unsure = f.pending, nil, false
		e.moved(now, f, from)
	}
}

// lacksHalf ends the work on an external frontend whose internal half is not in
// the map, for a program would be sent there.
func (e *engine) lacksHalf(f *frontend) bool {
	half := e.frontends[f.key.Address().scoped(scopeInternal)]
	if half != nil && half.current != nil && !half.unsure {
		return false
	}
	if half != nil && errors.Is(half.err, ErrFull) {
		f.fail("", half.err)
	} else {
		f.fail("write", errHalf)
	}
	return true
}

var errHalf = errors.New("its internal half is not there yet")
