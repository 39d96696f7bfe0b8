package path

import "net/netip"

// Towards returns the next hop by which a node could send packets to another
// on the fewest networks, whatever the routing tables say: what a missing route
// ought to name. False where no chain of networks joins them.
func (l Lab) Towards(from, to string) (NextHop, bool) {
	type step struct {
		node  string
		first NextHop
	}
	seen := map[string]bool{from: true}
	for queue := []step{{node: from}}; len(queue) > 0; queue = queue[1:] {
		here := queue[0]
		for _, n := range l.adjacent(here.node) {
			if seen[n.node] {
				continue
			}
			seen[n.node] = true
			next := step{n.node, here.first}
			if here.node == from {
				next.first = NextHop{Via: n.hop.Via, Device: n.hop.Device}
			}
			if n.node == to {
				return next.first, true
			}
			queue = append(queue, next)
		}
	}
	return NextHop{}, false
}

type adjacency struct {
	node string
	hop  NextHop
}

// adjacent lists the nodes that share a network with this one.
func (l Lab) adjacent(name string) []adjacency {
	here, _ := l.Node(name)
	var found []adjacency
	for _, out := range here.Links {
		network, wired := l.Wires[Port{name, out.Name}]
		if !wired {
			continue
		}
		for _, n := range l.Nodes {
			for _, in := range n.Links {
				if n.Name != name && l.Wires[Port{n.Name, in.Name}] == network && len(in.Addresses) > 0 {
					found = append(found, adjacency{n.Name, NextHop{Via: in.Addresses[0].Addr(), Device: out.Name}})
				}
			}
		}
	}
	return found
}

// Holder returns the port that holds the address; the first in the lab's order.
func (l Lab) Holder(a netip.Addr) (Port, bool) {
	for _, n := range l.Nodes {
		for _, link := range n.Links {
			for _, p := range link.Addresses {
				if p.Addr() == a {
					return Port{n.Name, link.Name}, true
				}
			}
		}
	}
	return Port{}, false
}
