package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/rtnl"
)

// The marks of links: the lab's own, and what all links begin with that labctl
// or its agents made.
const (
	labMark = "labctl lab="
	anyMark = "labctl"
)

// notTheLabs is why something that a hand added has drifted.
const notTheLabs = "it is not the lab's"

// added reports what neither the lab nor the agent made.
func added(kind, name, cure string) api.Object {
	return api.Object{Kind: kind, Name: name, Owner: api.OwnerLab, Condition: api.Drifted, Reason: notTheLabs, Cure: cure}
}

// foreign reports links, addresses and routes that a hand added.
func (p *planner) foreign() {
	for _, link := range p.seen.Tables.Links {
		p.foreignLink(link)
	}
	for i, r := range p.seen.Tables.Routes {
		if !p.lab[i] && !p.kept[i] && !p.tolerated(r) {
			p.objects = append(p.objects, added(kindRoute, r.String(), "ip route del "+r.String()))
		}
	}
}

// foreignLink: a link that does nothing is passed over, such as those that the
// kernel's modules bring; and hardware, which no command makes.
func (p *planner) foreignLink(link api.Link) {
	i := slices.IndexFunc(p.state.Underlay.Links, func(l api.UnderlayLink) bool { return l.Name == link.Name })
	switch {
	case link.Name == "lo":
		if !link.Up {
			p.object(api.OwnerLab, Key{kindLink, link.Name}, api.Drifted, "down")
		}
		p.foreignAddresses(link, loopback)
	case i >= 0:
		wanted := p.state.Underlay.Links[i].Addresses
		p.foreignAddresses(link, func(a netip.Prefix) bool { return slices.Contains(wanted, a) })
	case link.Kind != "" && !strings.HasPrefix(link.Alias, anyMark) && !ownLink(link.Name) && (link.Up || len(link.Addresses) > 0):
		o := added(kindLink, link.Name, "ip link del "+link.Name)
		if len(link.Addresses) > 0 {
			o.Reason += fmt.Sprintf(", and has the address %s", link.Addresses[0])
		}
		p.objects = append(p.objects, o)
	}
}

func (p *planner) foreignAddresses(link api.Link, own func(netip.Prefix) bool) {
	for _, a := range link.Addresses {
		if !own(a) {
			p.objects = append(p.objects, added(kindAddress, fmt.Sprintf("%s dev %s", a, link.Name), fmt.Sprintf("ip addr del %s dev %s", a, link.Name)))
		}
	}
}

func loopback(a netip.Prefix) bool { return a.Addr().IsLoopback() }

// ownLink says whether the name is one of the agent's, which may not have marked it yet.
func ownLink(name string) bool {
	return strings.HasPrefix(name, "labctl_") || strings.HasPrefix(name, "lxc")
}

// tolerated routes are nobody's hand's: the agent's, the kernel's own for an
// address, a routing daemon's, and what a DHCP client put on the uplink.
func (p *planner) tolerated(r api.Route) bool {
	switch {
	case r.Protocol == rtnl.RouteProtocol, slices.Contains(daemons, r.ProtocolName):
		return true
	case r.ProtocolName == "kernel":
		return r.Scope == "link"
	case r.ProtocolName == "dhcp" || r.ProtocolName == "ra":
		return len(r.NextHops) == 1 && r.NextHops[0].Device == p.state.Underlay.Uplink
	}
	return false
}

// daemons are the protocols of routing daemons (linux/rtnetlink.h).
var daemons = []string{"redirect", "gated", "mrt", "zebra", "bird", "dnrouted", "xorp", "ntk", "keepalived", "babel", "openr", "bgp", "isis", "ospf", "rip", "eigrp"}
