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

// A view is what every service of a node is compiled with.
type view struct {
	node      string
	addresses []netip.Addr // of the node, for NodePorts
	balance   bool
	maglev    bool // the cluster's algorithm
	overrides map[string]State
	readiness map[string]Readiness
	before    map[Address]State
}

func newView(node string, cluster *api.Cluster) view {
	v := view{node: node, balance: cluster.KubeProxyReplacement, maglev: cluster.Algorithm == "maglev"}
	for _, n := range cluster.Nodes {
		if n.Name == node {
			v.addresses = slices.DeleteFunc(slices.Clone(n.Addresses), func(a netip.Addr) bool { return !a.Is4() })
		}
	}
	return v
}

// overrides are the states that the topology gives to pods, whatever they say.
func overrides(pods []api.Pod) map[string]State {
	var found map[string]State
	for i := range pods {
		if pods[i].BackendState == "" {
			continue
		}
		for state := Active; state <= Maintenance; state++ {
			if state.String() == pods[i].BackendState {
				if found == nil {
					found = make(map[string]State)
				}
				found[pods[i].Key()] = state
			}
		}
	}
	return found
}

// affects is whether services compiled with v must be compiled anew with o;
// readiness does not count.
func (v view) affects(o view) bool {
	return v.node != o.node || v.balance != o.balance || v.maglev != o.maglev || !slices.Equal(v.addresses, o.addresses)
}

// stateOf is the state of a backend at an address. What a pod that ends was told
// to be does not count any more.
func (v *view) stateOf(b *api.Backend, address Address) State {
	if b.Pod == "" {
		return Active
	}
	readiness := v.readiness[b.Pod]
	switch readiness {
	case Terminating:
		return Ending
	case Gone:
		return Unready
	}
	if state, set := v.overrides[b.Pod]; set {
		return state
	}
	if readiness == Ready {
		return Active
	}
	if state, known := v.before[address]; known && readiness == Unknown {
		return state
	}
	return Unready
}

// departed is a [Departed] of a known service.
type departed struct {
	port    int // index in the service's
	address Address
	local   bool
	pod     string
	until   time.Time
}

// compiled is one service as it shall be in the maps.
type compiled struct {
	frontends []shape
	// sets are the backends to choose from, sorted by address, of any state.
	// Frontends share them.
	sets [][]Backend
}

// shape is a frontend without its backends.
type shape struct {
	key      Key
	flags    uint16
	maglev   bool
	affinity time.Duration
	port     int  // of the service
	local    bool // of the traffic policy
	set      int
}

const (
	flagExternalIP = uint16(bpf.DatapathFrontendFlagFRONTEND_EXTERNAL_IP)
	flagNodePort   = uint16(bpf.DatapathFrontendFlagFRONTEND_NODEPORT)
	flagExtLocal   = uint16(bpf.DatapathFrontendFlagFRONTEND_EXT_LOCAL)
	flagIntLocal   = uint16(bpf.DatapathFrontendFlagFRONTEND_INT_LOCAL)
	flagAffinity   = uint16(bpf.DatapathFrontendFlagFRONTEND_AFFINITY)
	flagRoutable   = uint16(bpf.DatapathFrontendFlagFRONTEND_ROUTABLE)
	flagTwoScopes  = uint16(bpf.DatapathFrontendFlagFRONTEND_TWO_SCOPES)

	scopeExternal = bpf.DatapathScopeSCOPE_EXTERNAL
	scopeInternal = bpf.DatapathScopeSCOPE_INTERNAL
)

// compile is all of one service. A headless one has no frontend.
func (v *view) compile(s *api.Service, left []departed) compiled {
	var c compiled
	if !v.balance || !s.ClusterIP.Is4() {
		return c
	}
	c.frontends = make([]shape, 0, len(s.Ports))
	c.sets = make([][]Backend, 0, len(s.Ports))
	for i := range s.Ports {
		if protocolNumber(s.Ports[i].Protocol) == 0 {
			continue
		}
		p := port{view: v, service: s, index: i, left: left, into: &c, sets: [2]int{-1, -1}}
		p.compile()
	}
	return c
}

// port compiles one port of a service.
type port struct {
	*view
	service *api.Service
	index   int
	left    []departed
	into    *compiled
	sets    [2]int // of all backends, and of this node's; -1 if not made yet
}

func (p *port) compile() {
	s, spec := p.service, &p.service.Ports[p.index]
	var base uint16
	if s.Affinity > 0 {
		base |= flagAffinity
	}
	if s.ExternalLocal {
		base |= flagExtLocal
	}
	if s.InternalLocal {
		base |= flagIntLocal
	}
	p.add(s.ClusterIP, spec.Port, scopeExternal, base, s.InternalLocal)
	for _, addr := range s.ExternalIPs {
		if addr.Is4() {
			p.addOutside(addr, spec.Port, base|flagExternalIP|flagRoutable)
		}
	}
	if s.Type != api.NodePort || spec.NodePort == 0 {
		return
	}
	p.addOutside(netip.IPv4Unspecified(), spec.NodePort, base|flagNodePort)
	for _, addr := range p.addresses {
		p.addOutside(addr, spec.NodePort, base|flagNodePort|flagRoutable)
	}
}

// addOutside adds an address that callers in the cluster and outside may reach.
func (p *port) addOutside(addr netip.Addr, number, flags uint16) {
	s := p.service
	if s.ExternalLocal == s.InternalLocal {
		p.add(addr, number, scopeExternal, flags, s.ExternalLocal)
		return
	}
	p.add(addr, number, scopeExternal, flags|flagTwoScopes, s.ExternalLocal)
	p.add(addr, number, scopeInternal, flags|flagTwoScopes, s.InternalLocal)
}

func (p *port) add(addr netip.Addr, number uint16, scope bpf.DatapathScope, flags uint16, local bool) {
	proto := protocolNumber(p.service.Ports[p.index].Protocol)
	p.into.frontends = append(p.into.frontends, shape{
		key:      pack(addr, number, proto).scoped(scope),
		flags:    flags,
		maglev:   flags&flagRoutable != 0 && scope == scopeExternal && p.usesMaglev(),
		affinity: p.service.Affinity,
		port:     p.index,
		local:    local,
		set:      p.set(local),
	})
}

func (p *port) usesMaglev() bool {
	if p.service.Algorithm == "" {
		return p.maglev
	}
	return p.service.Algorithm == "maglev"
}

// set is the index of the backends of a traffic policy.
func (p *port) set(local bool) int {
	which := 0
	if local {
		which = 1
	}
	if p.sets[which] < 0 {
		p.sets[which] = len(p.into.sets)
		p.into.sets = append(p.into.sets, p.candidates(local))
	}
	return p.sets[which]
}

func (p *port) candidates(local bool) []Backend {
	proto := protocolNumber(p.service.Ports[p.index].Protocol)
	found := make([]Backend, 0, len(p.service.Backends))
	for i := range p.service.Backends {
		b := &p.service.Backends[i]
		if local && b.Node != p.node || !b.Address.Is4() || p.index >= len(b.Ports) || b.Ports[p.index] == 0 {
			continue
		}
		address := pack(b.Address, b.Ports[p.index], proto)
		found = append(found, Backend{address, p.stateOf(b, address)})
	}
	for _, d := range p.left {
		if d.port == p.index && (d.local || !local) && !slices.ContainsFunc(found, func(b Backend) bool { return b.Address == d.address }) {
			found = append(found, Backend{d.address, Ending})
		}
	}
	slices.SortFunc(found, func(a, b Backend) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.State, b.State))
	})
	return slices.CompactFunc(found, func(a, b Backend) bool { return a.Address == b.Address })
}
