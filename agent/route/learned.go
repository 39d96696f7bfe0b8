package route

import (
	"fmt"
	"net/netip"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/rtnl"
)

// Learned is what a routing protocol taught the node.
type Learned struct {
	// Routes have the best path of each prefix.
	Routes []LearnedRoute
	// Complete means that every neighbour has told all it had, or has had the time
	// to: what was learned before and is not here is gone. Until then it stays.
	Complete bool
}

// LearnedRoute is the best path to a prefix.
type LearnedRoute struct {
	Prefix  netip.Prefix
	NextHop netip.Addr
	// Peer is the name of the neighbour that told it.
	Peer string
}

// own says whether the agent made a route: its protocol number says so, or for
// what it learned by BGP the protocol with a metric that nobody else gives. Other
// speakers on the node, such as FRR, use the same protocol.
func own(r api.Route) bool { return r.Protocol == rtnl.RouteProtocol || learned(r) }

func learned(r api.Route) bool {
	return r.Protocol == rtnl.BGPProtocol && r.Metric == rtnl.BGPMetric
}

// learnedRoutes plans a route for each prefix that was learned. A next hop must
// lie on one of the node's networks.
func (p *planner) learnedRoutes() {
	for _, l := range p.seen.Learned.Routes {
		key := Key{kindRoute, fmt.Sprintf("%s via %s", l.Prefix, l.NextHop)}
		device, ok := p.deviceTo(l.NextHop)
		if !ok {
			p.object(api.OwnerAgent, key, api.Refused, fmt.Sprintf("%s taught a next hop that is on none of this node's networks", l.Peer))
			continue
		}
		want := api.Route{
			To: l.Prefix, Type: "unicast", Scope: "global", NextHops: []api.NextHop{{Via: l.NextHop, Device: device}},
			Protocol: rtnl.BGPProtocol, ProtocolName: rtnl.ProtocolName(rtnl.BGPProtocol), Metric: rtnl.BGPMetric,
		}
		p.learnedRoute(key, want)
	}
	if p.seen.Learned.Complete || p.state.BGP == nil {
		return
	}
	for i, r := range p.seen.Tables.Routes {
		if learned(r) {
			p.kept[i] = true // of the agent before this one: neighbours may teach it again
		}
	}
}

func (p *planner) learnedRoute(key Key, want api.Route) {
	verb := Add
	for _, i := range p.routes[want.To] {
		r := p.seen.Tables.Routes[i]
		if !learned(r) {
			continue
		}
		p.kept[i] = true
		if sameRoute(r, want) {
			p.object(api.OwnerAgent, key, api.InPlace, carrierReason(r))
			return
		}
		verb = Replace
	}
	p.want(key, Action{Verb: verb, Route: &want})
}

// deviceTo is the interface on whose network the address is.
func (p *planner) deviceTo(a netip.Addr) (string, bool) {
	for _, l := range p.seen.Tables.Links {
		for _, prefix := range l.Addresses {
			if l.Up && !prefix.IsSingleIP() && prefix.Contains(a) && prefix.Addr() != a {
				return l.Name, true
			}
		}
	}
	return "", false
}
