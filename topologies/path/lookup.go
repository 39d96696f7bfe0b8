package path

import (
	"net/netip"
	"strings"
)

// Decision is what a node does with a packet that is not for itself: the route
// that wins, and its usable next hops, of which the kernel picks one by a hash.
type Decision struct {
	// Type is Local, Unicast, Blackhole, Unreachable or Prohibit; empty where no route matches.
	Type     string
	Route    Route
	NextHops []NextHop
}

// Lookup decides as the kernel does: the local table first, then the longest
// prefix of the main table, then the lowest metric.
func (n Node) Lookup(to netip.Addr) Decision {
	if n.Owns(to) {
		return Decision{Type: Local}
	}
	var best *Route
	for i := range n.Routes {
		r := &n.Routes[i]
		if !r.To.Contains(to) || (r.Type == Unicast && len(n.usable(*r)) == 0) {
			continue
		}
		if best == nil || r.To.Bits() > best.To.Bits() ||
			(r.To.Bits() == best.To.Bits() && r.Metric < best.Metric) {
			best = r
		}
	}
	if best == nil {
		return Decision{}
	}
	return Decision{Type: best.Type, Route: *best, NextHops: n.usable(*best)}
}

// usable leaves out next hops whose interface is gone or down: the kernel takes
// those as dead. A missing carrier alone does not make a next hop dead.
func (n Node) usable(r Route) []NextHop {
	var hops []NextHop
	for _, h := range r.NextHops {
		if l, ok := n.Link(h.Device); ok && l.Up {
			hops = append(hops, h)
		}
	}
	return hops
}

// SourceFor is the source address that the kernel gives to a packet that
// chooses none itself: the route's own, else the first address of the interface
// that shares a prefix with the next hop, else its first.
func (n Node) SourceFor(d Decision, hop NextHop) netip.Addr {
	if d.Route.Source.IsValid() {
		return d.Route.Source
	}
	link, _ := n.Link(hop.Device)
	for _, p := range link.Addresses {
		if hop.Via.IsValid() && p.Contains(hop.Via) {
			return p.Addr()
		}
	}
	if len(link.Addresses) > 0 {
		return link.Addresses[0].Addr()
	}
	return netip.Addr{}
}

// String is the route as ip-route(8) prints it.
func (r Route) String() string {
	var b strings.Builder
	if r.Type != Unicast && r.Type != "" {
		b.WriteString(r.Type + " ")
	}
	if r.To.Bits() == 0 {
		b.WriteString("default")
	} else if r.To.IsSingleIP() {
		b.WriteString(r.To.Addr().String())
	} else {
		b.WriteString(r.To.String())
	}
	for _, h := range r.NextHops {
		if len(r.NextHops) > 1 {
			b.WriteString(" nexthop")
		}
		b.WriteString(" " + h.String())
	}
	return b.String()
}

func (h NextHop) String() string {
	if h.Via.IsValid() {
		return "via " + h.Via.String() + " dev " + h.Device
	}
	return "dev " + h.Device
}
