// Package route holds a node's part in routing between pods: the pod gateway, the
// local pod CIDR's route and a way to each peer's pod CIDR, which is a direct
// route or leads through a tunnel. It watches the underlay that carries them, and
// reports what of it differs.
package route

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/rtnl"
)

// The pod gateway's devices, a veth pair whose first end bears the address.
const (
	GatewayDevice = "labctl_host"
	gatewayPeer   = "labctl_net"
)

// Observation is what one look at the kernel found.
type Observation struct {
	Tables api.Tables
	// NoARP names the links with IFF_NOARP.
	NoARP map[string]bool
	// Peers are the FIB's decisions for the peers' addresses, in the state's order.
	Peers []api.Decision
	// Sysctls are the values found, in the state's order.
	Sysctls []SysctlValue
	// Learned is what BGP taught.
	Learned Learned
	// Guarded is the index of the tunnel's device when it bears its programs, else 0.
	Guarded int
}

// neighbours are the entries of a device that somebody wrote.
func (o Observation) neighbours(device string) []api.Neighbour {
	return slices.DeleteFunc(slices.Clone(o.Tables.Neighbours), func(n api.Neighbour) bool {
		return n.Device != device || n.State != statePermanent
	})
}

// SysctlValue is the value of a sysctl, or the error of reading it.
type SysctlValue struct {
	Value string
	Err   string
}

// Verb is what an [Action] does.
type Verb string

// The verbs of an action.
const (
	Add     Verb = "add"
	Replace Verb = "replace"
	Delete  Verb = "delete"
	Set     Verb = "set"
)

// Action is one change to the kernel, for one object. Exactly one of Link,
// Address, Route, Neighbour and Forward is set.
type Action struct {
	Verb Verb
	// Object is the one that the change is for. A delete of what is stale has
	// an object of its own, which the plan does not list.
	Object  Key
	Link    *LinkChange
	Address *AddressChange
	Route   *api.Route
	// Neighbour and Forward are entries that stay until they are deleted.
	Neighbour *api.Neighbour
	Forward   *api.Forward
}

// Key names an object of [api.Status].
type Key struct{ Kind, Name string }

// The kinds of an object.
const (
	kindLink    = "link"
	kindAddress = "address"
	kindRoute   = "route"
	kindSysctl  = "sysctl"
	// Entries of a tunnel's device.
	kindNeighbour = "neighbour"
	kindForward   = "fdb"
)

// LinkChange makes the pod gateway's pair or the tunnel's device (Add), removes
// it (Delete), or brings one device to these values (Set).
type LinkChange struct {
	Name string
	MTU  int
	// Alias is the lab's mark.
	Alias string
	// VXLAN and MAC are those of a tunnel's device; nil and empty for the gateway.
	VXLAN *api.VXLAN
	MAC   string
	// Closed leaves a tunnel's device down.
	Closed bool
}

// AddressChange is an address of a device.
type AddressChange struct {
	Address netip.Prefix
	Device  string
}

func (a Action) String() string {
	switch {
	case a.Link != nil && a.Link.VXLAN != nil && a.Verb != Delete:
		return a.tunnelString()
	case a.Neighbour != nil:
		return fmt.Sprintf("%s neighbour %s lladdr %s dev %s nud permanent", a.Verb, a.Neighbour.Address, a.Neighbour.MAC, a.Neighbour.Device)
	case a.Forward != nil:
		return fmt.Sprintf("%s fdb %s dev %s dst %s self permanent", a.Verb, a.Forward.MAC, a.Forward.Device, a.Forward.Remote)
	case a.Link != nil && a.Verb == Set:
		return fmt.Sprintf("set link %s up noarp mtu %d alias %q", a.Link.Name, a.Link.MTU, a.Link.Alias)
	case a.Link != nil && a.Verb == Add:
		return fmt.Sprintf("add link %s peer %s mtu %d alias %q", a.Link.Name, gatewayPeer, a.Link.MTU, a.Link.Alias)
	case a.Link != nil:
		return fmt.Sprintf("%s link %s", a.Verb, a.Link.Name)
	case a.Address != nil:
		return fmt.Sprintf("%s address %s dev %s", a.Verb, a.Address.Address, a.Address.Device)
	default:
		return fmt.Sprintf("%s route %s", a.Verb, a.Route)
	}
}

// Plan compares the state with what was seen, and returns the changes that lead
// from one to the other, in the order in which they must be made, and how each
// object stands. An object that a change is for is [api.Pending].
func Plan(state api.State, seen Observation) ([]Action, []api.Object) {
	p := planner{state: state, seen: seen, routes: make(map[netip.Prefix][]int), links: make(map[string]*api.Link)}
	for i := range seen.Tables.Links {
		p.links[seen.Tables.Links[i].Name] = &seen.Tables.Links[i]
	}
	for i, r := range seen.Tables.Routes {
		p.routes[r.To] = append(p.routes[r.To], i)
	}
	p.kept = make([]bool, len(seen.Tables.Routes))
	p.lab = make([]bool, len(seen.Tables.Routes))
	if state.Pods != nil {
		p.gateway(*state.Pods)
		p.directRoutes(*state.Pods)
		p.overlay(*state.Pods)
	} else if link := p.links[GatewayDevice]; link != nil && foreignGateway(link, p.links[gatewayPeer]) == nil {
		p.first = append(p.first, Action{Verb: Delete, Object: Key{kindLink, GatewayDevice}, Link: &LinkChange{Name: GatewayDevice}})
	}
	if state.Pods == nil || state.Pods.Overlay == nil {
		p.dropTunnel()
	}
	p.learnedRoutes()
	p.staleRoutes()
	p.sysctls()
	p.underlay()
	p.foreign()
	return slices.Concat(p.first, p.then, p.last), p.objects
}

type planner struct {
	state   api.State
	seen    Observation
	links   map[string]*api.Link
	routes  map[netip.Prefix][]int // indexes into the table, in its order
	kept    []bool                 // of the routes in the table: ours and wanted, or spoken for
	lab     []bool                 // of the routes in the table: the lab's, or told of beside one of its
	first   []Action               // removals
	then    []Action
	last    []Action // removals of what carries packets until the rest is there
	objects []api.Object
}

func (p *planner) object(owner string, key Key, condition api.Condition, reason string) {
	p.objects = append(p.objects, api.Object{Kind: key.Kind, Name: key.Name, Owner: owner, Condition: condition, Reason: reason})
}

// want lists an object of the agent's own, and the changes that it needs.
func (p *planner) want(key Key, actions ...Action) {
	condition := api.InPlace
	for _, a := range actions {
		a.Object = key
		p.then = append(p.then, a)
		condition = api.Pending
	}
	p.object(api.OwnerAgent, key, condition, "")
}

// gateway plans the pod gateway's devices, its address, and the two routes that
// make the node's pods reachable through it.
func (p *planner) gateway(pods api.PodNetwork) {
	if !p.gatewayLinks(pods) {
		return
	}
	gateway := netip.PrefixFrom(pods.Gateway, 32)
	p.gatewayAddress(gateway)
	p.route(Key{kindRoute, fmt.Sprintf("%s dev %s", pods.Gateway, GatewayDevice)}, api.Route{
		To:       gateway,
		NextHops: []api.NextHop{{Device: GatewayDevice}},
		Scope:    "link",
	})
	p.route(Key{kindRoute, fmt.Sprintf("%s via %s dev %s", pods.CIDR, pods.Gateway, GatewayDevice)}, api.Route{
		To:       pods.CIDR,
		NextHops: []api.NextHop{{Via: pods.Gateway, Device: GatewayDevice}},
		Scope:    "global",
		Source:   pods.Gateway,
	})
}

// gatewayLinks says whether the device can carry the rest.
func (p *planner) gatewayLinks(pods api.PodNetwork) bool {
	host, peer := p.links[GatewayDevice], p.links[gatewayPeer]
	if link := foreignGateway(host, peer); link != nil {
		p.object(api.OwnerAgent, Key{kindLink, GatewayDevice}, api.Refused, fmt.Sprintf(
			"the agent did not make %s (%s): remove it (ip link delete %[1]s)", link.Name, cmp.Or(link.Kind, "no veth")))
		return false
	}
	if host == nil || peer == nil {
		if remains := cmp.Or(host, peer); remains != nil {
			// One end without the other is in another namespace, out of reach.
			p.first = append(p.first, Action{Verb: Delete, Object: Key{kindLink, GatewayDevice}, Link: &LinkChange{Name: remains.Name}})
		}
		p.want(Key{kindLink, GatewayDevice}, Action{Verb: Add, Link: p.link(GatewayDevice, pods)}, Action{Verb: Set, Link: p.link(GatewayDevice, pods)})
		p.want(Key{kindLink, gatewayPeer}, Action{Verb: Set, Link: p.link(gatewayPeer, pods)})
		return true
	}
	for _, link := range []*api.Link{host, peer} {
		want := p.link(link.Name, pods)
		if link.Up && link.MTU == want.MTU && link.Alias == want.Alias && p.seen.NoARP[link.Name] {
			p.want(Key{kindLink, link.Name})
		} else {
			p.want(Key{kindLink, link.Name}, Action{Verb: Set, Link: want})
		}
	}
	return true
}

func (p *planner) link(name string, pods api.PodNetwork) *LinkChange {
	return &LinkChange{Name: name, MTU: pods.MTU, Alias: fmt.Sprintf("labctl-agent lab=%s node=%s interface=%s", p.state.Lab, p.state.Node, name)}
}

// foreignGateway returns the link that has one of the gateway's names and is
// not the agent's; nil where there is none. The agent's own are a veth pair with
// its mark on at least one end; without any, the agent was killed between making
// and marking it.
func foreignGateway(host, peer *api.Link) *api.Link {
	var foreign *api.Link
	marked := false
	for _, link := range []*api.Link{host, peer} {
		switch {
		case link == nil:
		case link.Kind != "veth":
			return link
		case link.Alias == "" || strings.HasPrefix(link.Alias, "labctl-agent "):
			marked = true
		default:
			foreign = link
		}
	}
	if marked {
		return nil
	}
	return foreign
}

// gatewayAddress wants address alone on the device: what else there is bears
// the name of an older state.
func (p *planner) gatewayAddress(address netip.Prefix) {
	key := Key{kindAddress, fmt.Sprintf("%s dev %s", address, GatewayDevice)}
	found := false
	if link := p.links[GatewayDevice]; link != nil && p.links[gatewayPeer] != nil {
		for _, a := range link.Addresses {
			if a == address {
				found = true
				continue
			}
			p.first = append(p.first, Action{Verb: Delete, Object: Key{kindAddress, fmt.Sprintf("%s dev %s", a, GatewayDevice)},
				Address: &AddressChange{a, GatewayDevice}})
		}
	}
	if found {
		p.want(key)
		return
	}
	p.want(key, Action{Verb: Add, Address: &AddressChange{address, GatewayDevice}})
}

// directRoutes plans a route to each peer's pod CIDR, where the peer is on a
// link of this node's.
func (p *planner) directRoutes(pods api.PodNetwork) {
	if !pods.DirectRoutes || pods.Overlay != nil {
		return
	}
	for i, peer := range pods.Peers {
		var decision api.Decision
		if i < len(p.seen.Peers) {
			decision = p.seen.Peers[i]
		}
		key := Key{kindRoute, fmt.Sprintf("%s via %s", peer.CIDR, peer.Address)}
		if condition, reason := unreachable(peer, pods, decision); reason != "" {
			p.object(api.OwnerAgent, key, condition, reason)
			continue
		}
		p.route(key, api.Route{
			To:       peer.CIDR,
			NextHops: []api.NextHop{{Via: peer.Address, Device: decision.Device}},
			Scope:    "global",
		})
	}
}

// unreachable says why there is no direct route to peer; the reason is empty
// where there is one.
func unreachable(peer api.Peer, pods api.PodNetwork, decision api.Decision) (api.Condition, string) {
	switch {
	case decision.Error != "":
		return api.Refused, fmt.Sprintf("%s (%s) is not reachable, so there is no route to its pods in %s: %s",
			peer.Name, peer.Address, peer.CIDR, decision.Error)
	case decision.Type != "unicast":
		return api.Refused, fmt.Sprintf("%s, the address of %s, is %s to this node, so there is no route to its pods in %s",
			peer.Address, peer.Name, cmp.Or(decision.Type, "unknown"), peer.CIDR)
	case !decision.Via.IsValid() || decision.Via.IsUnspecified() || decision.Via == peer.Address:
		return "", ""
	}
	reason := fmt.Sprintf("the route to %s (%s) contains gateway %s (%s), so its pods in %s are not directly reachable",
		peer.Name, peer.Address, decision.Via, decision.Device, peer.CIDR)
	if pods.SkipUnreachable {
		return api.Skipped, reason
	}
	return api.Refused, reason + fmt.Sprintf(": route %s on the gateway, or set cluster.directRoutingSkipUnreachable to pass over such nodes", peer.CIDR)
}

// route plans one route of the agent's own. The kernel keeps several of one
// prefix and takes the first: what precedes the agent's is told, not removed.
func (p *planner) route(key Key, want api.Route) {
	want.Type, want.Protocol, want.ProtocolName = "unicast", rtnl.RouteProtocol, rtnl.ProtocolName(rtnl.RouteProtocol)
	var foreign *api.Route // the first of another's that the kernel prefers to ours, or puts in its place
	own, match := -1, -1
	for _, i := range p.routes[want.To] {
		r := &p.seen.Tables.Routes[i]
		switch {
		case r.Protocol != rtnl.RouteProtocol:
			if r.Metric == 0 && match < 0 && foreign == nil {
				foreign = r
			}
		case match < 0 && sameRoute(*r, want):
			match = i
		case own < 0 && r.Metric == 0:
			own = i
		}
	}
	switch {
	case match >= 0:
		p.kept[match] = true
		if foreign != nil {
			p.object(api.OwnerAgent, key, api.Drifted, fmt.Sprintf("another's route comes before it: %s. Remove that (ip route delete %[1]s)", foreign))
			return
		}
		p.object(api.OwnerAgent, key, api.InPlace, carrierReason(p.seen.Tables.Routes[match]))
	case foreign != nil:
		p.object(api.OwnerAgent, key, api.Drifted, fmt.Sprintf("another's route has its place: %s. Remove that (ip route delete %[1]s)", foreign))
	case own >= 0:
		p.kept[own] = true
		p.want(key, Action{Verb: Replace, Route: &want})
	default:
		p.want(key, Action{Verb: Add, Route: &want})
	}
}

func carrierReason(r api.Route) string {
	for _, hop := range r.NextHops {
		if hop.Dead || hop.LinkDown {
			return hop.Device + " has no carrier"
		}
	}
	return ""
}

// sameRoute ignores the flags, which are the kernel's to set.
func sameRoute(seen, want api.Route) bool {
	if len(seen.NextHops) != len(want.NextHops) {
		return false
	}
	for i, hop := range want.NextHops {
		if seen.NextHops[i].Via != hop.Via || seen.NextHops[i].Device != hop.Device {
			return false
		}
	}
	return seen.Type == want.Type && seen.Protocol == want.Protocol && seen.Scope == want.Scope &&
		seen.Source == want.Source && seen.Metric == want.Metric && seen.MTU == want.MTU
}

// staleRoutes removes routes that bear the agent's protocol and have no place
// in the state: of an old peer, of one that moved, of one that is behind a
// gateway now.
func (p *planner) staleRoutes() {
	for i, r := range p.seen.Tables.Routes {
		if own(r) && !p.kept[i] {
			p.first = append(p.first, Action{Verb: Delete, Object: Key{kindRoute, r.String()}, Route: &p.seen.Tables.Routes[i]})
		}
	}
}
