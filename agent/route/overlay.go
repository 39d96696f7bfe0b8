package route

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/rtnl"
)

// TunnelDevice is the VXLAN device by which a node reaches all peers' pods.
const TunnelDevice = "labctl_vxlan"

// statePermanent is what an entry bears that only its owner changes.
const statePermanent = "permanent"

// tunnelMAC is the address of a node's end of the tunnel: locally administered,
// and made of its pods' gateway, so that all nodes know it without being told.
func tunnelMAC(gateway netip.Addr) string {
	ip := gateway.As4()
	return net.HardwareAddr{0x0a, 0x6c, ip[0], ip[1], ip[2], ip[3]}.String()
}

func (a Action) tunnelString() string {
	v := a.Link.VXLAN
	s := fmt.Sprintf("%s link %s", a.Verb, a.Link.Name)
	if a.Verb == Add {
		s += fmt.Sprintf(" type vxlan id %d dstport %d local %s nolearning", v.VNI, v.Port, v.Local)
	}
	if a.Verb == Set && !a.Link.Closed {
		s += " up"
	}
	return s + fmt.Sprintf(" address %s mtu %d alias %q", a.Link.MAC, a.Link.MTU, a.Link.Alias)
}

// overlay plans the tunnel: its device, and for each peer the three entries by
// which a packet finds its way through it. The route names the peer's gateway as
// the next hop, the neighbour entry gives that a MAC address, and the forwarding
// entry says behind which node the MAC address is. All three are the kernel's
// own tables, and nothing is ever asked of the network.
func (p *planner) overlay(pods api.PodNetwork) {
	if pods.Overlay == nil || !p.tunnelLink(pods) {
		return
	}
	open := p.tunnelOpen()
	for _, peer := range pods.Peers {
		mac := tunnelMAC(peer.Gateway)
		p.forward(api.Forward{Device: TunnelDevice, MAC: mac, Remote: peer.Address, State: statePermanent})
		key := Key{kindRoute, fmt.Sprintf("%s via %s dev %s", peer.CIDR, peer.Gateway, TunnelDevice)}
		if !open { // nor would the kernel take the others
			p.object(api.OwnerAgent, Key{kindNeighbour, fmt.Sprintf("%s dev %s", peer.Gateway, TunnelDevice)}, api.Pending, "")
			p.object(api.OwnerAgent, key, api.Pending, "")
			p.keep(peer.CIDR)
			continue
		}
		p.neighbour(api.Neighbour{Address: peer.Gateway, Device: TunnelDevice, MAC: mac, State: statePermanent})
		p.route(key, api.Route{
			To:       peer.CIDR,
			NextHops: []api.NextHop{{Via: peer.Gateway, Device: TunnelDevice, OnLink: true}},
			Scope:    "global",
			Source:   pods.Gateway,
			MTU:      pods.Overlay.MTU,
		})
	}
	p.staleEntries(pods)
}

// tunnelOpen says whether packets may come out of the tunnel: programs are on its
// device, or there shall be none. One that is open stays so.
func (p *planner) tunnelOpen() bool {
	link := p.links[TunnelDevice]
	return p.state.Cluster == nil || link != nil && (link.Up || p.seen.Guarded == link.Index)
}

// keep leaves the agent's routes to a prefix as they are: they are the way there
// until the tunnel is open.
func (p *planner) keep(to netip.Prefix) {
	for _, i := range p.routes[to] {
		if p.seen.Tables.Routes[i].Protocol == rtnl.RouteProtocol {
			p.kept[i] = true
		}
	}
}

// tunnelLink says whether the device can carry the rest. What is wrong of it and
// can only be set when it is made, has it made anew.
func (p *planner) tunnelLink(pods api.PodNetwork) bool {
	key := Key{kindLink, TunnelDevice}
	want := p.link(TunnelDevice, pods)
	want.MTU, want.MAC = pods.Overlay.MTU, tunnelMAC(pods.Gateway)
	want.VXLAN = &api.VXLAN{VNI: pods.Overlay.VNI, Port: pods.Overlay.Port, Local: pods.Overlay.Local}
	have := p.links[TunnelDevice]
	switch {
	case have != nil && !ownTunnel(have):
		p.object(api.OwnerAgent, key, api.Refused, fmt.Sprintf(
			"the agent did not make %s (%s): remove it (ip link delete %[1]s)", TunnelDevice, cmp.Or(have.Kind, "no vxlan")))
		return false
	case have != nil && have.VXLAN != nil && *have.VXLAN == *want.VXLAN:
		want.Closed = !p.tunnelOpen()
		same := have.MTU == want.MTU && have.Alias == want.Alias && have.MAC == want.MAC
		switch {
		case same && have.Up:
			p.want(key)
		case same && want.Closed:
			p.object(api.OwnerAgent, key, api.Pending, "it is down until the datapath's programs are on it")
		default:
			p.want(key, Action{Verb: Set, Link: want})
		}
		return true
	case have != nil:
		p.first = append(p.first, Action{Verb: Delete, Object: key, Link: &LinkChange{Name: TunnelDevice}})
		p.links[TunnelDevice] = nil // what follows is about another one
	}
	want.Closed = !p.tunnelOpen()
	p.want(key, Action{Verb: Add, Link: want}, Action{Verb: Set, Link: want})
	return true
}

// ownTunnel says whether a device of that name is the agent's. Without any mark
// the agent was killed between making and marking it.
func ownTunnel(link *api.Link) bool {
	return link.Kind == "vxlan" && (link.Alias == "" || strings.HasPrefix(link.Alias, "labctl-agent "))
}

// dropTunnel removes the device, and its entries with it, when the routes by it
// lead elsewhere.
func (p *planner) dropTunnel() {
	if link := p.links[TunnelDevice]; link != nil && ownTunnel(link) {
		p.last = append(p.last, Action{Verb: Delete, Object: Key{kindLink, TunnelDevice}, Link: &LinkChange{Name: TunnelDevice}})
	}
}

func (p *planner) neighbour(want api.Neighbour) {
	key := Key{kindNeighbour, fmt.Sprintf("%s dev %s", want.Address, want.Device)}
	if slices.Contains(p.seen.Tables.Neighbours, want) {
		p.want(key)
		return
	}
	p.want(key, Action{Verb: Replace, Neighbour: &want})
}

func (p *planner) forward(want api.Forward) {
	key := Key{kindForward, fmt.Sprintf("%s dev %s dst %s", want.MAC, want.Device, want.Remote)}
	if slices.Contains(p.seen.Tables.Forwards, want) {
		p.want(key)
		return
	}
	p.want(key, Action{Verb: Replace, Forward: &want})
}

// staleEntries removes those of peers that are gone: on the agent's own device
// all that stays until it is deleted is its own.
func (p *planner) staleEntries(pods api.PodNetwork) {
	gateways, macs := make(map[netip.Addr]bool), make(map[string]bool)
	for _, peer := range pods.Peers {
		gateways[peer.Gateway], macs[tunnelMAC(peer.Gateway)] = true, true
	}
	for _, n := range p.seen.neighbours(TunnelDevice) {
		if !gateways[n.Address] {
			p.first = append(p.first, Action{Verb: Delete, Object: Key{kindNeighbour, fmt.Sprintf("%s dev %s", n.Address, n.Device)}, Neighbour: &n})
		}
	}
	for _, f := range p.seen.Tables.Forwards {
		if f.Device == TunnelDevice && !macs[f.MAC] {
			p.first = append(p.first, Action{Verb: Delete, Object: Key{kindForward, fmt.Sprintf("%s dev %s dst %s", f.MAC, f.Device, f.Remote)}, Forward: &f})
		}
	}
}
