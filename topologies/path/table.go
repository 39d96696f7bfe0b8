// Package path predicts what a packet does in a lab. It is pure: the tables of
// all nodes go in, and the ways that a packet can take come out. The tables are
// those that a topology asks for ([Predict]) or those that kernels hold; what
// follows from them is worked out by the same code.
package path

import "net/netip"

// Lab is the tables of every node and how their interfaces are wired.
type Lab struct {
	Nodes []Node
	// Wires says on which network an interface is. An interface that is on none
	// leads out of the lab, or nowhere.
	Wires map[Port]string
}

// Port is one interface of one node.
type Port struct{ Node, Interface string }

// Node is what one node's kernel holds.
type Node struct {
	Name  string
	Links []Link
	// Routes of the main table.
	Routes []Route
	// Forwarding is net.ipv4.ip_forward.
	Forwarding bool
}

// Link is an interface.
type Link struct {
	Name      string
	Kind      string
	MTU       int
	Up        bool
	Carrier   bool
	Addresses []netip.Prefix
	// Forwarding and RPFilter are what the kernel applies to packets that arrive here.
	Forwarding bool
	RPFilter   int
	// Tunnel is nil but where the interface is one's end.
	Tunnel *Tunnel
}

// Tunnel is how an interface carries packets to other nodes, in packets between
// addresses of nodes (VXLAN, RFC 7348).
type Tunnel struct {
	VNI   uint32
	Port  uint16
	Local netip.Addr
	// Remotes say behind which node each next hop is: a neighbour entry and a
	// forwarding entry together.
	Remotes []Remote
}

// Remote is a next hop by a tunnel, and the address of the node that it is behind.
type Remote struct{ Via, Node netip.Addr }

// Remote returns the address of the node that a next hop is behind; false where
// the tunnel has no entry for it.
func (t Tunnel) Remote(via netip.Addr) (netip.Addr, bool) {
	for _, r := range t.Remotes {
		if r.Via == via {
			return r.Node, true
		}
	}
	return netip.Addr{}, false
}

// end is the node's interface that takes what this tunnel carries; empty where
// there is none, or it is down.
func (n Node) end(t Tunnel) string {
	for _, l := range n.Links {
		if l.Up && l.Tunnel != nil && l.Tunnel.VNI == t.VNI && l.Tunnel.Port == t.Port {
			return l.Name
		}
	}
	return ""
}

// The types of a route, in ip-route(8)'s words.
const (
	Unicast     = "unicast"
	Local       = "local"
	Blackhole   = "blackhole"
	Unreachable = "unreachable"
	Prohibit    = "prohibit"
)

// Route is one entry of a routing table.
type Route struct {
	To       netip.Prefix
	Type     string
	NextHops []NextHop
	// Protocol and Scope are the names that ip prints.
	Protocol string
	Scope    string
	Source   netip.Addr
	Metric   int
	MTU      int
}

// NextHop is where a route sends a packet; Via is the zero address on a connected route.
type NextHop struct {
	Via    netip.Addr
	Device string
}

// Node returns the node of that name.
func (l Lab) Node(name string) (Node, bool) {
	for _, n := range l.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}

// Link returns the node's interface of that name.
func (n Node) Link(name string) (Link, bool) {
	for _, l := range n.Links {
		if l.Name == name {
			return l, true
		}
	}
	return Link{}, false
}

// Owns says whether the node answers to the address. An interface that is down
// takes its addresses out of the local table.
func (n Node) Owns(a netip.Addr) bool {
	for _, l := range n.Links {
		if !l.Up {
			continue
		}
		for _, p := range l.Addresses {
			if p.Addr() == a {
				return true
			}
		}
	}
	return false
}
