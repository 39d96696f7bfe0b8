//go:build linux

package inspect

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/native-routing/labctl/bpf"
)

type frontendEntry = Entry[bpf.DatapathFrontendKey, bpf.DatapathFrontend]

// readServices reads the frontends before and after what they lead to. Those
// that are the same are whole, for a change writes them last; the others are
// read again one by one.
func (m *Maps) readServices(d *Dump) error {
	var before []frontendEntry
	if err := into(m, bpf.Frontends, &before); err != nil {
		return err
	}
	var err error
	if d.Slots, err = m.readSlots(before); err != nil {
		return err
	}
	if d.Backends, err = m.readBackends(); err != nil {
		return err
	}
	var after []frontendEntry
	if err := into(m, bpf.Frontends, &after); err != nil {
		return err
	}
	known := make(map[bpf.DatapathFrontendKey]bpf.DatapathFrontend, len(before))
	for _, entry := range before {
		known[entry.Key] = entry.Value
	}
	d.Frontends = make([]frontendEntry, 0, len(after))
	var changed []bpf.DatapathFrontendKey
	for _, entry := range after {
		if value, ok := known[entry.Key]; ok && value == entry.Value {
			d.Frontends = append(d.Frontends, entry)
		} else {
			changed = append(changed, entry.Key)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	return m.readChanged(d, changed)
}

// readChanged reads frontends that were changed while the others were read.
func (m *Maps) readChanged(d *Dump, keys []bpf.DatapathFrontendKey) error {
	opened := make(map[string]*ebpf.Map)
	for _, name := range []string{bpf.Frontends, bpf.Slots, bpf.Backends} {
		one, err := m.open(name)
		if err != nil {
			return err
		}
		defer one.Close()
		opened[name] = one
	}
	for _, key := range keys {
		if err := readFrontend(d, opened, key); err != nil {
			return fmt.Errorf("read a frontend: %w", err)
		}
	}
	return nil
}

// readFrontend reads one frontend with what it leads to, unless it is gone.
func readFrontend(d *Dump, opened map[string]*ebpf.Map, key bpf.DatapathFrontendKey) error {
	var value bpf.DatapathFrontend
	for range tries {
		err := opened[bpf.Frontends].Lookup(key, &value)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		slots := make(map[uint32]bpf.DatapathSlot)
		backends := make(map[uint32]bpf.DatapathBackend)
		for index := range ranged(value) {
			var slot bpf.DatapathSlot
			if err := opened[bpf.Slots].Lookup(index, &slot); err != nil {
				return err
			}
			var backend bpf.DatapathBackend
			err := opened[bpf.Backends].Lookup(slot.Backend, &backend)
			if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return err
			}
			slots[index], backends[slot.Backend] = slot, backend
		}
		var again bpf.DatapathFrontend
		if err := opened[bpf.Frontends].Lookup(key, &again); err != nil || again != value {
			continue
		}
		d.Frontends = append(d.Frontends, frontendEntry{Key: key, Value: value})
		for index, slot := range slots {
			d.Slots[index] = slot
		}
		for id, backend := range backends {
			if id != 0 && backend.Addr != 0 {
				d.Backends[id] = backend
			}
		}
		return nil
	}
	return fmt.Errorf("it changed while it was read, %d times in a row (try again)", tries)
}

// ranged are the indices of a frontend's slots.
func ranged(f bpf.DatapathFrontend) func(yield func(uint32) bool) {
	return func(yield func(uint32) bool) {
		for index := f.First; index < f.First+uint32(f.Count)+uint32(f.Qcount); index++ {
			if !yield(index) {
				return
			}
		}
	}
}

// readSlots reads the array as far as a frontend has slots there.
func (m *Maps) readSlots(frontends []frontendEntry) (map[uint32]bpf.DatapathSlot, error) {
	owners := make(map[uint32]struct{})
	var end uint32
	for _, f := range frontends {
		for index := range ranged(f.Value) {
			end = max(end, index+1)
			owners[index] = struct{}{}
		}
	}
	slots := make(map[uint32]bpf.DatapathSlot, len(owners))
	if len(owners) == 0 {
		return slots, nil
	}
	err := array(m, bpf.Slots, end, func(index uint32, slot bpf.DatapathSlot) {
		if _, used := owners[index]; used {
			slots[index] = slot
		}
	})
	return slots, err
}
