package topo

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// routes: those of the nodes themselves.
func (c *checker) routes() {
	modes := slices.CompactFunc(c.modes(), func(a, b mode) bool { return a.routing == b.routing })
	for name, n := range c.t.Nodes.All() {
		c.routeList(at("nodes", name, "routes"), name, n.Routes, map[netip.Prefix]fieldPath{}, modes)
	}
}

// stageRoutes: those that a stage adds, together with the node's own.
func (c *checker) stageRoutes() {
	own := map[string]map[netip.Prefix]fieldPath{}
	modes := c.modes() // one for each stage
	for i := range c.t.Stages {
		stage, s := c.t.Stages[i].Name, c.t.Stages[i].Value
		for name, added := range s.Nodes.All() {
			n, ok := c.nodes[name]
			if !ok {
				continue
			}
			if own[name] == nil {
				own[name] = destinations(at("nodes", name, "routes"), n.Routes)
			}
			c.routeList(at("stages", stage, "nodes", name, "routes"), name, added.Routes, own[name], modes[i:i+1])
		}
	}
}

// destinations are the routes of a list by where they lead.
func destinations(p fieldPath, routes []Route) map[netip.Prefix]fieldPath {
	found := make(map[netip.Prefix]fieldPath, len(routes))
	for i, r := range routes {
		found[r.To] = p.index(i)
	}
	return found
}

// routeList: routes to ranges, each at most once beside those of before, by
// next hops that the node can reach.
func (c *checker) routeList(p fieldPath, node string, routes []Route, before map[netip.Prefix]fieldPath, modes []mode) {
	seen := map[netip.Prefix]fieldPath{}
	taken := c.takenBy(node)
	for i, r := range routes {
		p := p.index(i)
		to := p.key("to")
		if r.To.IsValid() {
			c.routeTo(to, r.To)
			if other, twice := firstOf(r.To, before, seen); twice {
				c.wrong(to, fmt.Sprintf("%s has a route to %s already (%s)", show(node), r.To, other), "keep one of the two; several next hops go into one via: [a, b]")
			} else if owner, ok := taken[r.To]; ok {
				c.wrong(to, fmt.Sprintf("%s has %s itself, by %s", show(node), r.To, owner), "take this route out")
			}
			c.agentRoute(to, node, r.To, modes)
			seen[r.To] = p
		}
		c.nextHops(p.key("via"), node, r.Via)
	}
}

func firstOf(to netip.Prefix, maps ...map[netip.Prefix]fieldPath) (fieldPath, bool) {
	for _, m := range maps {
		if p, ok := m[to]; ok {
			return p, true
		}
	}
	return "", false
}

func (c *checker) routeTo(p fieldPath, to netip.Prefix) {
	if to != to.Masked() {
		c.wrong(p, to.String()+" has host bits set", "write "+to.Masked().String())
		return
	}
	if to.Bits() > 0 {
		c.isUnicast(p, to)
	}
}

// takenBy are the prefixes that the kernel or the agent routes on the node already.
func (c *checker) takenBy(node string) map[netip.Prefix]string {
	if taken := c.taken[node]; taken != nil {
		return taken
	}
	n := c.nodes[node]
	taken := map[netip.Prefix]string{c.uplink.Address.Masked(): c.uplink.Interface}
	for name, iface := range n.Interfaces.All() {
		if iface.Address.IsValid() {
			taken[iface.Address.Masked()] = show(name)
		}
	}
	if n.PodCIDR.IsValid() {
		taken[n.PodCIDR.Masked()] = "its pod gateway"
	}
	c.taken[node] = taken
	return taken
}

// agentRoute: no static route stands where the agent will put one of its own, in
// a routing mode that the lab is in while it has the static one.
func (c *checker) agentRoute(p fieldPath, node string, to netip.Prefix, modes []mode) {
	other, ok := c.podOwners[to]
	if !ok || other == node || !c.nodes[node].PodCIDR.IsValid() {
		return
	}
	for _, m := range modes {
		if m.routing != RoutingVXLAN {
			c.directRoute(p, node, other)
			continue
		}
		where := ""
		if m.stage != "" {
			where = " in stage " + show(m.stage)
		}
		c.wrong(p, fmt.Sprintf("the agent of %s makes this route itself (routingMode %s%s)", show(node), m.routing, where), "take it out")
		return
	}
}

// directRoute: the agent's direct route to another node's pods.
func (c *checker) directRoute(p fieldPath, node, other string) {
	if !c.t.Cluster.AutoDirectNodeRoutes {
		return
	}
	if _, iface, ok := c.nodes[other].Primary(); ok && c.wired[node][iface.Network] != "" {
		c.wrong(p, fmt.Sprintf("the agent of %s makes this route itself (autoDirectNodeRoutes)", show(node)), "take it out, or turn autoDirectNodeRoutes off")
	}
}

// nextHops: there is one, none stands twice, and the node reaches each.
func (c *checker) nextHops(p fieldPath, node string, via NextHops) {
	if len(via) == 0 && c.has(p) && !c.noted[p] {
		c.wrong(p, "there is no next hop", "write an address of a node on one of this node's networks")
	}
	seen := map[netip.Addr]bool{}
	for i, hop := range via {
		p := p
		if c.has(p.index(i)) {
			p = p.index(i)
		}
		if !hop.IsValid() {
			continue
		}
		if seen[hop] {
			c.wrong(p, fmt.Sprintf("%s stands here already", hop), "name each next hop once")
			continue
		}
		seen[hop] = true
		c.nextHop(p, node, hop)
	}
}

// nextHop: the address of another node's interface, on one of this node's networks.
func (c *checker) nextHop(p fieldPath, node string, hop netip.Addr) {
	owner, owned := c.owners[hop]
	switch {
	case c.full:
	case owned && owner.node == node:
		c.wrong(p, fmt.Sprintf("%s is the node's own address (%s)", hop, show(owner.iface)), "name the next node's")
	case owned && c.wired[node][owner.network] != "":
	case c.unsure:
	case owned:
		c.wrong(p, fmt.Sprintf("%s cannot reach %s: it belongs to %s on network %s", show(node), hop, show(owner.node), show(owner.network)), c.reachable(node))
	case c.connected(node, hop) != "":
		c.wrong(p, fmt.Sprintf("no node has %s on network %s", hop, c.connected(node, hop)), c.reachable(node))
	default:
		c.wrong(p, fmt.Sprintf("%s lies in no network of %s", hop, show(node)), c.reachable(node))
	}
}

// connected is the network of the node in which the address lies; empty where none is.
func (c *checker) connected(node string, address netip.Addr) string {
	for _, iface := range c.nodes[node].Interfaces.All() {
		if n, ok := c.networks[iface.Network]; ok && n.CIDR.Contains(address) {
			return show(iface.Network)
		}
	}
	return ""
}

// reachable is the cure for a next hop that the node cannot reach.
func (c *checker) reachable(node string) string {
	var hops []string
	for _, iface := range c.nodes[node].Interfaces.All() {
		for _, o := range c.members[iface.Network] {
			if o.node == node {
				continue
			}
			if len(hops) == maxListed {
				return "it can reach " + strings.Join(hops, ", ") + ", …"
			}
			hops = append(hops, fmt.Sprintf("%s (%s)", o.address, show(o.node)))
		}
	}
	if len(hops) == 0 {
		return "it shares no network with another node"
	}
	return "it can reach " + strings.Join(hops, ", ")
}
