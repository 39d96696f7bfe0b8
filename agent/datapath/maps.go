//go:build linux

package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/bpf"
)

// Maps are the maps of a loaded datapath. The handles stay good for as long as
// anybody holds them, also when others have taken their place.
type Maps struct {
	// ByName has every map of package bpf, by its name there.
	ByName map[string]*ebpf.Map
	// Clock is how the programs stamp entries.
	Clock bpf.Clock
	// Options are what the programs were loaded with, sizes filled in.
	Options bpf.Options
}

// Map is the handle of a map by its name; nil in the zero Maps.
func (m Maps) Map(name string) *ebpf.Map { return m.ByName[name] }

// Loaded says whether there are maps at all.
func (m Maps) Loaded() bool { return len(m.ByName) > 0 }

// settingOf is where the topology sets the size of a map; none for those that
// the agent sizes alone.
var settingOf = map[string]string{
	bpf.Frontends:     "cluster.mapSizes.services",
	bpf.Maglev:        "cluster.mapSizes.services",
	bpf.Slots:         "cluster.mapSizes.backends",
	bpf.Backends:      "cluster.mapSizes.backends",
	bpf.AffinityMatch: "cluster.mapSizes.backends",
	bpf.Affinities:    "cluster.mapSizes.affinity",
	bpf.Flows:         "cluster.mapSizes.flows",
	bpf.MoreFlows:     "cluster.mapSizes.flows",
	bpf.Sockets:       "cluster.mapSizes.flows",
	bpf.NATs:          "cluster.mapSizes.nat",
	bpf.IPCache:       "cluster.mapSizes.ipcache",
}

// ErrFull is a map that takes no more entries.
var ErrFull = errors.New("map is full")

// Refusal turns the kernel's error about an update of a map into one that says
// what to do; it matches ErrFull where the map is full. nil stays nil.
func (m Maps) Refusal(name string, err error) error {
	if err == nil || !errors.Is(err, unix.E2BIG) && !errors.Is(err, unix.ENOSPC) {
		return err
	}
	size := uint32(0)
	if handle := m.Map(name); handle != nil {
		size = handle.MaxEntries()
	}
	return full(name, size)
}

func full(name string, size uint32) error {
	if setting := settingOf[name]; setting != "" {
		return fmt.Errorf("%s: %w at %d entries (raise %s in the topology)", name, ErrFull, size, setting)
	}
	return fmt.Errorf("%s: %w at %d entries", name, ErrFull, size)
}

// flowEntry is a flow, and where it stands.
type flowEntry struct {
	in     *ebpf.Map
	key    any
	client *bpf.DatapathFlowKey
	flow   *bpf.DatapathFlow
}

// walkFlows visits the flows that are found by their client, then those that
// need their server's address too.
func (m Maps) walkFlows(visit func(flowEntry) error) error {
	flows, more := m.Map(bpf.Flows), m.Map(bpf.MoreFlows)
	return errors.Join(
		walk(flows, func(key *bpf.DatapathFlowKey, flow *bpf.DatapathFlow) error {
			return visit(flowEntry{flows, key, key, flow})
		}),
		walk(more, func(key *bpf.DatapathFlowFullKey, flow *bpf.DatapathFlow) error {
			return visit(flowEntry{more, key, &key.Client, flow})
		}))
}

// FlowMatch says whether a flow is meant.
type FlowMatch func(*bpf.DatapathFlowKey, *bpf.DatapathFlow) bool

// ToFrontend matches the flows of a protocol (6, 17) whose client called that
// address and port; an unspecified address means any.
func ToFrontend(protocol uint8, frontend netip.AddrPort) FlowMatch {
	port := bpf.Port(frontend.Port())
	address, err := bpf.Address(frontend.Addr())
	if err != nil {
		return func(*bpf.DatapathFlowKey, *bpf.DatapathFlow) bool { return false }
	}
	return func(key *bpf.DatapathFlowKey, flow *bpf.DatapathFlow) bool {
		return key.Proto == protocol && flow.FrontendPort == port &&
			(address == 0 || flow.Frontend == address)
	}
}

// DeleteFlows removes the flows that match, with their translations, and says
// how many there were. Who adds a frontend calls it for UDP to that address:
// such flows would go on unbalanced for as long as they do not pause.
func (m Maps) DeleteFlows(match FlowMatch) (int, error) {
	if !m.Loaded() {
		return 0, nil
	}
	deleted := 0
	err := m.walkFlows(func(e flowEntry) error {
		if !match(e.client, e.flow) {
			return nil
		}
		if nat, ok := natOf(e.client, e.flow); ok {
			if err := remove(m.Map(bpf.NATs), nat); err != nil {
				return err
			}
		}
		deleted++
		return remove(e.in, e.key)
	})
	if err != nil {
		return deleted, fmt.Errorf("delete flows: %w", err)
	}
	return deleted, nil
}

// natOf is the key of a flow's translation, as its replies come in.
func natOf(key *bpf.DatapathFlowKey, flow *bpf.DatapathFlow) (*bpf.DatapathNatKey, bool) {
	if flow.NatAddr == 0 {
		return nil, false
	}
	nat := &bpf.DatapathNatKey{
		Remote: flow.Backend, Local: flow.NatAddr,
		RemotePort: flow.BackendPort, LocalPort: flow.NatPort, Proto: key.Proto,
	}
	return nat, true
}

// forget removes all that is known of connections with these addresses, which
// are nobody's now or another pod's.
func (m Maps) forget(addresses map[uint32]bool) error {
	if len(addresses) == 0 {
		return nil
	}
	_, err := m.DeleteFlows(func(key *bpf.DatapathFlowKey, flow *bpf.DatapathFlow) bool {
		return addresses[key.Client] || addresses[flow.Frontend] || addresses[flow.Backend]
	})
	nats, fragments := m.Map(bpf.NATs), m.Map(bpf.Fragments)
	err = errors.Join(err, walk(nats, func(key *bpf.DatapathNatKey, nat *bpf.DatapathNat) error {
		if addresses[nat.Addr] || addresses[key.Remote] {
			return remove(nats, key)
		}
		return nil
	}), walk(fragments, func(key *bpf.DatapathFragmentKey, _ *bpf.DatapathFragment) error {
		if addresses[key.Saddr] || addresses[key.Daddr] {
			return remove(fragments, key)
		}
		return nil
	}))
	if err != nil {
		return fmt.Errorf("forget the connections of addresses that are given up: %w", err)
	}
	return nil
}

// remove deletes an entry that may be gone already.
func remove(m *ebpf.Map, key any) error {
	if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// chunk is how many entries are read in one system call; it must hold the
// fullest bucket of a hash.
const chunk = 1024

// walk visits every entry of a hash, many in one system call. What the programs
// enter or remove meanwhile may be visited or not. visit may remove the entry.
func walk[K, V any](m *ebpf.Map, visit func(*K, *V) error) error {
	size := min(chunk, int(m.MaxEntries()))
	keys, values := make([]K, size), make([]V, size)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if errors.Is(err, unix.ENOSPC) { // a bucket that is fuller than the chunk
			keys, values = make([]K, 2*len(keys)), make([]V, 2*len(values))
			if len(keys) > 1<<20 {
				return fmt.Errorf("read %s: %w", m, err)
			}
			continue
		}
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return fmt.Errorf("read %s: %w", m, err)
		}
		for i := range n {
			if err := visit(&keys[i], &values[i]); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// entries reads a whole map, of any type that has keys and one value each.
func entries[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	all := make(map[K]V)
	var key K
	var value V
	each := m.Iterate()
	for each.Next(&key, &value) {
		all[key] = value
	}
	if err := each.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", m, err)
	}
	return all, nil
}
