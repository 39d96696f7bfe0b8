//go:build linux

package lb

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

// Readiness is what is known of a pod.
type Readiness uint8

// What a pod can be.
const (
	Unknown     Readiness = iota // nothing was heard of it: as it was before, or not in its services
	Ready                        // takes connections
	NotReady                     // keeps those it has
	Terminating                  // ends, and keeps those it has
	Gone                         // its node does not have it, or not any more
)

// State is how a backend stands in the maps; but for Unready it has the
// datapath's numbers.
type State uint8

// The states of a backend.
const (
	Active      = State(bpf.DatapathBackendStateBACKEND_ACTIVE)
	Ending      = State(bpf.DatapathBackendStateBACKEND_TERMINATING)
	Quarantined = State(bpf.DatapathBackendStateBACKEND_QUARANTINED)
	Maintenance = State(bpf.DatapathBackendStateBACKEND_MAINTENANCE)
	// Unready is in no slot, like Maintenance; the datapath is told that it is
	// quarantined, so that a flow goes on and none begins.
	Unready = State(4)
)

// states is how many there are.
const states = 5

// String is Cilium's word.
func (s State) String() string {
	return [...]string{"active", "terminating", "quarantined", "maintenance", "not ready"}[s]
}

func (s State) wire() uint8 {
	if s == Unready {
		return uint8(Quarantined)
	}
	return uint8(s)
}

// slotted is whether a backend of that state has slots.
func (s State) slotted() bool { return s <= Quarantined }

// Backend is a backend in one state.
type Backend struct {
	Address Address
	State   State
}

// Departed is a backend of a service's port whose pod left the cluster and may
// still be ending.
type Departed struct {
	Service  string // namespace/name
	Protocol string
	Port     uint16
	Address  netip.AddrPort
	// Node is where it was, and Pod its key, empty if that is not known or is
	// another pod's now.
	Node, Pod string
	// Until is when it is over at the latest. Compile does not look at it.
	Until time.Time
}

// Input is all that the maps of one node depend on.
type Input struct {
	Node    string
	Cluster *api.Cluster // nil for a node without pods
	// Readiness of each pod by its key; one that is absent is Unknown.
	Readiness map[string]Readiness
	Departed  []Departed
	// Before is what backends were when the agent began, for pods of which
	// nothing was heard since.
	Before map[Address]State
}

// Contents are what the maps of one node shall hold, but for the numbers that
// frontends and backends have there.
type Contents struct {
	Frontends []Frontend // in the order of services; of one service as they are numbered
	// Backends are all that have an entry, sorted by address.
	Backends []Backend
	// Conflicts are frontends that two services want; the first by name has them.
	Conflicts []Conflict
}

// Frontend is one address that is balanced.
type Frontend struct {
	Key      Key
	Service  string
	Flags    uint16 // bpf.DatapathFrontendFlag
	Maglev   bool   // there is a Maglev table for it, if Count is not 0
	Affinity time.Duration
	// Backends in the order of their slots: active, terminating, quarantined;
	// each sorted by address.
	Backends []Backend
	// Count are the first Backends, which take new connections: the active
	// ones, and if there is none, the terminating. Active are those of the first kind.
	Count, Active int
}

// Conflict is a frontend that a service cannot have.
type Conflict struct {
	Key            Key
	Service, Owner string
}

// Compile says what the maps of a node shall hold.
func Compile(in Input) Contents {
	var out Contents
	if in.Cluster == nil {
		return out
	}
	v := newView(in.Node, in.Cluster)
	v.overrides = overrides(in.Cluster.Pods)
	v.readiness, v.before = in.Readiness, in.Before
	owners := make(map[Address]serviceName)
	compiled := make([]compiled, len(in.Cluster.Services))
	for i := range in.Cluster.Services {
		s := &in.Cluster.Services[i]
		compiled[i] = v.compile(s, departedOf(s, in.Departed, in.Node))
		name := serviceName{s.Namespace, s.Name}
		for _, f := range compiled[i].frontends {
			if owner, taken := owners[f.key.Address()]; !taken || name.compare(owner) < 0 {
				owners[f.key.Address()] = name
			}
		}
	}
	backends := make(map[Address]State)
	for i, c := range compiled {
		s := &in.Cluster.Services[i]
		for _, f := range c.frontends {
			if owner := owners[f.key.Address()]; owner != (serviceName{s.Namespace, s.Name}) {
				out.Conflicts = append(out.Conflicts, Conflict{f.key, s.Key(), owner.String()})
				continue
			}
			out.Frontends = append(out.Frontends, f.export(s.Key(), c.sets[f.set]))
		}
		for _, set := range c.sets {
			for _, b := range set {
				if state, seen := backends[b.Address]; !seen || b.State < state {
					backends[b.Address] = b.State
				}
			}
		}
	}
	for address, state := range backends {
		out.Backends = append(out.Backends, Backend{address, state})
	}
	slices.SortFunc(out.Backends, func(a, b Backend) int { return cmp.Compare(a.Address, b.Address) })
	return out
}

func departedOf(s *api.Service, all []Departed, node string) []departed {
	var found []departed
	for _, d := range all {
		for port, p := range s.Ports {
			if s.Key() == d.Service && p.Port == d.Port && protocolNumber(p.Protocol) == protocolNumber(d.Protocol) {
				found = append(found, departed{
					port: port, address: NewAddress(d.Address, protocolNumber(d.Protocol)),
					local: d.Node == node, pod: d.Pod, until: d.Until,
				})
			}
		}
	}
	return found
}

// arrange puts candidates into the order of slots, and leaves out those that
// have none.
func arrange[T any](candidates []T, stateOf func(T) State) (slots []T, count, active int) {
	slots = make([]T, 0, len(candidates))
	for state := Active; state.slotted(); state++ {
		for _, c := range candidates {
			if stateOf(c) == state {
				slots = append(slots, c)
			}
		}
		switch {
		case state == Active:
			count, active = len(slots), len(slots)
		case state == Ending && active == 0:
			count = len(slots)
		}
	}
	return slots, count, active
}

func (f shape) export(service string, candidates []Backend) Frontend {
	out := Frontend{Key: f.key, Service: service, Flags: f.flags, Maglev: f.maglev, Affinity: f.affinity}
	out.Backends, out.Count, out.Active = arrange(candidates, func(b Backend) State { return b.State })
	return out
}
