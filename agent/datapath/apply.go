//go:build linux

package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/native-routing/labctl/bpf"
)

// apply brings the maps in line with want, and returns what was refused by the
// names of the maps. Pods that want lacks go, but for those whose address keep
// says may only not have been told of yet: these are added to want.
func (m Maps) apply(want contents, keep func(address uint32) bool) map[string]error {
	failed := make(map[string]error)
	note := func(name string, err error) {
		if err != nil && failed[name] == nil {
			failed[name] = m.Refusal(name, err)
		}
	}
	note(bpf.Addresses, m.applyEndpoints(want, keep))
	note(bpf.IPCache, replace(m.Map(bpf.IPCache), want.ipcache))
	note(bpf.Devices, replace(m.Map(bpf.Devices), want.devices))
	note(bpf.Nonmasquerade, replace(m.Map(bpf.Nonmasquerade), map[bpf.DatapathPrefix]uint8{}))
	return failed
}

// applyEndpoints keeps to an order by which an address never leads to an
// endpoint that is another's or nobody's: away with the addresses of endpoints
// that change, then endpoints, then addresses, then the endpoints that are free.
func (m Maps) applyEndpoints(want contents, keep func(address uint32) bool) error {
	array, table := m.Map(bpf.Endpoints), m.Map(bpf.Addresses)
	endpoints, err := usedEndpoints(array)
	if err != nil {
		return err
	}
	addresses, err := entries[uint32, uint32](table)
	if err != nil {
		return err
	}
	want.keep(endpoints, addresses, keep)
	if err := m.giveUp(want, endpoints, addresses); err != nil {
		return err
	}
	for id, e := range want.endpoints {
		if is, ok := endpoints[id]; ok && is == e {
			continue
		}
		if err := array.Put(id, e); err != nil {
			return fmt.Errorf("endpoint %d: %w", id, err)
		}
	}
	for addr, id := range want.addresses {
		if addresses[addr] == id {
			continue
		}
		if err := table.Put(addr, id); err != nil {
			return fmt.Errorf("address %s: %w", bpf.Addr(addr), err)
		}
	}
	for id := range endpoints {
		if _, ok := want.endpoints[id]; ok {
			continue
		}
		if err := array.Put(id, bpf.DatapathEndpoint{}); err != nil {
			return fmt.Errorf("endpoint %d: %w", id, err)
		}
	}
	return nil
}

// keep adds pods that the maps have to what is wanted.
func (c contents) keep(endpoints map[uint32]bpf.DatapathEndpoint, addresses map[uint32]uint32, keep func(uint32) bool) {
	for addr, id := range addresses {
		e := endpoints[id]
		_, wanted := c.addresses[addr]
		_, taken := c.endpoints[id]
		if e.Addr == addr && !isHost(e) && !wanted && !taken && keep(addr) {
			c.endpoints[id], c.addresses[addr] = e, id
		}
	}
}

// giveUp removes from addresses, in the map and in the argument, those that no
// longer belong to whom they did, and all that is known of the connections of
// those that were a pod's.
func (m Maps) giveUp(want contents, endpoints map[uint32]bpf.DatapathEndpoint, addresses map[uint32]uint32) error {
	stays := func(e bpf.DatapathEndpoint) bool {
		is, ok := want.endpoints[want.addresses[e.Addr]]
		return ok && is.Mac == e.Mac && is.Flags == e.Flags
	}
	gone := make(map[uint32]bool)
	for id, e := range endpoints {
		// An address that leads elsewhere has its new owner since the last time.
		if leads, ok := addresses[e.Addr]; !isHost(e) && !stays(e) && (!ok || leads == id) {
			gone[e.Addr] = true
		}
	}
	for addr, id := range addresses {
		next, changes := want.endpoints[id]
		moves := want.addresses[addr] != id
		e, ok := endpoints[id]
		if ok && e.Addr == addr && stays(e) && (!moves || !changes || next == e) {
			continue
		}
		if err := remove(m.Map(bpf.Addresses), addr); err != nil {
			return err
		}
		delete(addresses, addr)
	}
	return m.forget(gone)
}

func isHost(e bpf.DatapathEndpoint) bool {
	return e.Flags&uint32(bpf.DatapathEndpointFlagENDPOINT_HOST) != 0
}

// usedEndpoints are those that stand for an address.
func usedEndpoints(array *ebpf.Map) (map[uint32]bpf.DatapathEndpoint, error) {
	used := make(map[uint32]bpf.DatapathEndpoint)
	err := walk(array, func(id *uint32, e *bpf.DatapathEndpoint) error {
		if e.Addr != 0 {
			used[*id] = *e
		}
		return nil
	})
	return used, err
}

// replace makes a hash or a trie hold want and nothing else: first what is new
// or different, then away with what is not wanted.
func replace[K, V comparable](m *ebpf.Map, want map[K]V) error {
	have, err := entries[K, V](m)
	if err != nil {
		return err
	}
	var refused error
	for key, value := range want {
		if is, ok := have[key]; ok && is == value {
			continue
		}
		if err := m.Put(key, value); err != nil {
			refused = errors.Join(refused, err)
			break
		}
	}
	for key := range have {
		if _, ok := want[key]; !ok {
			if err := remove(m, key); err != nil {
				return err
			}
		}
	}
	return refused
}
