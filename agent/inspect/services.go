//go:build linux

package inspect

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/bpf"
)

// Frontend is an address that is balanced, with what only Cilium's lists of its
// maps show.
type Frontend struct {
	api.Frontend
	// FlagBits are Cilium's flags in the low byte and its flags2 in the high one.
	FlagBits uint16        `json:"flagBits"`
	Affinity time.Duration `json:"affinity,omitempty"`
}

// Internal says whether this is the half of a frontend for callers in the cluster.
func (f Frontend) Internal() bool { return f.Scope == ScopeInternal }

// Surrogate says whether this is the address 0.0.0.0 that stands for every
// address of every node.
func (f Frontend) Surrogate() bool { return f.Address.Addr().IsUnspecified() }

// The scopes of a frontend.
const (
	ScopeExternal = "external"
	ScopeInternal = "internal"
)

// Backend is a place that frontends lead to.
type Backend struct {
	ID       uint32         `json:"id"`
	Address  netip.AddrPort `json:"address"`
	Protocol string         `json:"protocol"`
	State    string         `json:"state"`
}

// RevNAT is where replies of a frontend come from: its id and its address.
type RevNAT struct {
	ID      uint16         `json:"id"`
	Address netip.AddrPort `json:"address"`
}

// FrontendList is sorted by id. A frontend with two scopes is there twice.
func (d *Dump) FrontendList() []Frontend {
	found := make([]Frontend, 0, len(d.Frontends))
	for _, entry := range d.Frontends {
		found = append(found, d.frontend(entry.Key, entry.Value))
	}
	slices.SortFunc(found, func(a, b Frontend) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), a.Address.Compare(b.Address),
			cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Scope, b.Scope))
	})
	return found
}

func (d *Dump) frontend(key bpf.DatapathFrontendKey, value bpf.DatapathFrontend) Frontend {
	f := Frontend{
		Frontend: api.Frontend{
			ID: value.Id, Address: addrPort(key.Addr, key.Port), Protocol: protocol(key.Proto),
			Scope: ScopeExternal, Algorithm: "random", Usable: int(value.Count),
			Backends: make([]api.FrontendBackend, 0, int(value.Count)+int(value.Qcount)),
		},
		FlagBits: value.Flags,
		Affinity: (time.Duration(value.Affinity) * d.Time.Clock.Tick()).Truncate(time.Second),
	}
	if bpf.DatapathScope(key.Scope) == bpf.DatapathScopeSCOPE_INTERNAL {
		f.Scope = ScopeInternal
	}
	if bpf.DatapathAlgorithm(value.Algorithm) == bpf.DatapathAlgorithmALGORITHM_MAGLEV {
		f.Algorithm = "maglev"
	}
	f.Type, f.Flags = flagWords(value.Flags)
	for i := range uint32(value.Count) + uint32(value.Qcount) {
		slot := d.Slots[value.First+i]
		backend, ok := d.Backends[slot.Backend]
		f.Backends = append(f.Backends, api.FrontendBackend{
			ID: slot.Backend, Address: addrPort(backend.Addr, backend.Port),
			State: stateText(backend.State), Missing: !ok,
		})
	}
	return f
}

// flagWords are the type and the flags of a frontend in the words and in the
// order of Cilium's list of load-balancing entries.
func flagWords(bits uint16) (kind string, words []string) {
	is := func(flag bpf.DatapathFrontendFlag) bool { return bits&uint16(flag) != 0 }
	switch {
	case is(bpf.DatapathFrontendFlagFRONTEND_EXTERNAL_IP):
		kind = "ExternalIPs"
	case is(bpf.DatapathFrontendFlagFRONTEND_NODEPORT):
		kind = "NodePort"
	case is(bpf.DatapathFrontendFlagFRONTEND_LOADBALANCER):
		kind = "LoadBalancer"
	case is(bpf.DatapathFrontendFlagFRONTEND_HOSTPORT):
		kind = "HostPort"
	default:
		kind = "ClusterIP"
	}
	for _, w := range []struct {
		set  bool
		word string
	}{
		{is(bpf.DatapathFrontendFlagFRONTEND_EXT_LOCAL), "Local"},
		{is(bpf.DatapathFrontendFlagFRONTEND_INT_LOCAL), "InternalLocal"},
		{is(bpf.DatapathFrontendFlagFRONTEND_TWO_SCOPES), "two-scopes"},
		{is(bpf.DatapathFrontendFlagFRONTEND_AFFINITY), "sessionAffinity"},
		{!is(bpf.DatapathFrontendFlagFRONTEND_ROUTABLE), "non-routable"},
		{is(bpf.DatapathFrontendFlagFRONTEND_SOURCE_RANGE), "check source-range"},
	} {
		if w.set {
			words = append(words, w.word)
		}
	}
	return kind, words
}

// FlagText is a frontend's type and flags as Cilium writes them: ClusterIP, non-routable.
func (f Frontend) FlagText() string {
	return strings.Join(append([]string{f.Type}, f.Flags...), ", ")
}

func stateText(state uint8) string {
	switch bpf.DatapathBackendState(state) {
	case bpf.DatapathBackendStateBACKEND_ACTIVE:
		return "active"
	case bpf.DatapathBackendStateBACKEND_TERMINATING:
		return "terminating"
	case bpf.DatapathBackendStateBACKEND_QUARANTINED:
		return "quarantined"
	case bpf.DatapathBackendStateBACKEND_MAINTENANCE:
		return "maintenance"
	default:
		return "invalid"
	}
}

// BackendList is sorted by id.
func (d *Dump) BackendList() []Backend {
	found := make([]Backend, 0, len(d.Backends))
	for id, b := range d.Backends {
		found = append(found, Backend{
			ID: id, Address: addrPort(b.Addr, b.Port), Protocol: protocol(b.Proto), State: stateText(b.State),
		})
	}
	slices.SortFunc(found, func(a, b Backend) int { return cmp.Compare(a.ID, b.ID) })
	return found
}

// RevNATs are sorted by id. The datapath has no map for them: a flow holds the
// address that its client called.
func (d *Dump) RevNATs() []RevNAT {
	found := make([]RevNAT, 0, len(d.Frontends))
	for _, entry := range d.Frontends {
		found = append(found, RevNAT{ID: entry.Value.Id, Address: addrPort(entry.Key.Addr, entry.Key.Port)})
	}
	slices.SortFunc(found, func(a, b RevNAT) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), a.Address.Compare(b.Address))
	})
	return slices.Compact(found)
}

// ServiceTable is the frontends for the agent's API. Names are services' keys by
// frontend id; they may be nil.
func (d *Dump) ServiceTable(names map[uint16]string) api.ServiceTable {
	table := api.ServiceTable{Frontends: make([]api.Frontend, 0, len(d.Frontends))}
	for _, f := range d.FrontendList() {
		f.Service = names[f.ID]
		table.Frontends = append(table.Frontends, f.Frontend)
	}
	return table
}
