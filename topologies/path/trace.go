package path

import (
	"net/netip"
	"slices"
)

// Fate is how a packet's way ends.
type Fate string

// The fates of a packet.
const (
	Delivered     Fate = "delivered"
	LeftLab       Fate = "left the lab"      // out of an interface that is on no network of the lab, without an answer
	NoRoute       Fate = "no route"          // the node answers with net unreachable
	Blackholed    Fate = "blackhole route"   // without an answer
	Rejected      Fate = "unreachable route" // an unreachable or prohibit route: the node answers
	NotForwarded  Fate = "not forwarded"     // forwarding is off where it arrived, without an answer
	Filtered      Fate = "reverse path filter"
	SilentNextHop Fate = "silent next hop" // no node of the network answers to the next hop's address, or can be heard
	Looped        Fate = "routing loop"
	Misdelivered  Fate = "delivered to another node" // two nodes own the address
	Uncarried     Fate = "no tunnel entry"           // the tunnel does not know behind which node the next hop is; no answer
	NotUnpacked   Fate = "no tunnel end"             // the node that the packet was carried to has no end of the tunnel; no answer
)

// Path is one way that a packet can take.
type Path struct {
	Source netip.Addr
	To     netip.Addr
	// Hops are the nodes that handle the packet, the sender first.
	Hops []Hop
	Fate Fate
	// MTU in bytes is the smallest on the way, as far as it goes; 0 where it never left the sender.
	MTU int
}

// Hop is one node on the way.
type Hop struct {
	Node string
	// In is the interface of arrival, empty at the sender; Out that of leaving,
	// empty where the way ends here.
	In, Out string
	// Route is what the node went by; meaningless where the packet is its own.
	Route   Route
	NextHop NextHop
	// Carrier is the way of the packet that carries this one from here to the next
	// hop, through a tunnel; nil where the packet goes by itself.
	Carrier *Path
}

// Last is the hop at which the way ends.
func (p Path) Last() Hop { return p.Hops[len(p.Hops)-1] }

// End is the way at whose last hop the packet is in truth when its own ends: that
// of the packet which carries it, where nobody took it out of there.
func (p Path) End() Path {
	if carrier := p.Last().Carrier; carrier != nil {
		return carrier.End()
	}
	return p
}

// Nodes are all that handle the packet or one that carries it, in their order.
func (p Path) Nodes() []string {
	var nodes []string
	add := func(name string) {
		if !slices.Contains(nodes, name) {
			nodes = append(nodes, name)
		}
	}
	for _, h := range p.Hops {
		add(h.Node)
		if h.Carrier != nil {
			for _, name := range h.Carrier.Nodes() {
				add(name)
			}
		}
	}
	return nodes
}

// maxPaths bounds the ways that equal-cost routes multiply into.
const maxPaths = 64

// Trace follows a packet of a node, and returns every way it can take: more
// than one where routes have several next hops. A zero source is chosen as the
// kernel would.
func (l Lab) Trace(from string, source, to netip.Addr) []Path {
	w := walk{lab: l}
	if n, ok := l.Node(from); ok {
		w.visit(n, "", Path{Source: source, To: to})
	}
	return w.done
}

// Reply follows the answer to a packet that arrived: from the node that the
// path ends at, with the addresses turned round.
func (l Lab) Reply(p Path) []Path {
	back := l.Trace(p.Last().Node, p.To, p.Source)
	for i := range back {
		if back[i].Fate == Delivered && back[i].Last().Node != p.Hops[0].Node {
			back[i].Fate = Misdelivered
		}
	}
	return back
}

type walk struct {
	lab    Lab
	done   []Path
	within int // how many packets carry this one's, one in the other
}

// maxWithin ends a tunnel that leads through itself.
const maxWithin = 3

// visit handles the packet at one node, and goes on to each that may follow.
func (w *walk) visit(n Node, in string, p Path) {
	p.Hops = append(slices.Clone(p.Hops), Hop{Node: n.Name, In: in})
	d := n.Lookup(p.To)
	if link, ok := n.Link(in); ok && link.RPFilter != 0 && !n.acceptsFrom(p.Source, link) {
		w.end(p, Filtered)
		return
	}
	if d.Type == Local {
		if !p.Source.IsValid() {
			p.Source = p.To
		}
		w.end(p, Delivered)
		return
	}
	if in != "" {
		if fate, stopped := w.refused(n, in, p); stopped {
			w.end(p, fate)
			return
		}
	}
	p.Hops[len(p.Hops)-1].Route = d.Route
	switch d.Type {
	case "":
		w.end(p, NoRoute)
	case Blackhole:
		w.end(p, Blackholed)
	case Unreachable, Prohibit:
		w.end(p, Rejected)
	case Unicast:
		for _, hop := range d.NextHops {
			if len(w.done) < maxPaths {
				w.send(n, d, hop, p)
			}
		}
	default: // throw, and what else ends a lookup without a way
		w.end(p, NoRoute)
	}
}

// refused applies what a kernel asks of a packet that it is to pass on.
func (w *walk) refused(n Node, in string, p Path) (Fate, bool) {
	for _, h := range p.Hops[:len(p.Hops)-1] {
		if h.Node == n.Name {
			return Looped, true
		}
	}
	if link, _ := n.Link(in); !link.Forwarding {
		return NotForwarded, true
	}
	return "", false
}

// acceptsFrom is the reverse path filter: strict (1) wants the way back to be
// the interface of arrival, loose (2) any way at all (RFC 3704).
func (n Node) acceptsFrom(source netip.Addr, link Link) bool {
	d := n.Lookup(source)
	if d.Type != Unicast {
		return false
	}
	return link.RPFilter == 2 || slices.ContainsFunc(d.NextHops, func(h NextHop) bool { return h.Device == link.Name })
}

// send puts the packet on the wire of one next hop.
func (w *walk) send(n Node, d Decision, hop NextHop, p Path) {
	p.Hops = slices.Clone(p.Hops)
	here := &p.Hops[len(p.Hops)-1]
	here.Out, here.NextHop = hop.Device, hop
	if !p.Source.IsValid() {
		p.Source = n.SourceFor(d, hop)
	}
	link, _ := n.Link(hop.Device)
	mtu := link.MTU
	if d.Route.MTU != 0 {
		mtu = min(mtu, d.Route.MTU)
	}
	if p.MTU == 0 || mtu < p.MTU {
		p.MTU = mtu
	}
	if link.Tunnel != nil {
		w.carry(n, *link.Tunnel, hop, p)
		return
	}
	network, wired := w.lab.Wires[Port{n.Name, hop.Device}]
	if !wired {
		w.end(p, LeftLab)
		return
	}
	target := hop.Via
	if !target.IsValid() {
		target = p.To
	}
	next, in, found := w.lab.neighbour(network, n.Name, target)
	if !found || !link.Carrier {
		w.end(p, SilentNextHop)
		return
	}
	w.visit(next, in, p)
}

// carry follows the packet that carries this one to the tunnel's other end, and
// goes on from there. Its loss is the loss of both.
func (w *walk) carry(n Node, t Tunnel, hop NextHop, p Path) {
	via := hop.Via
	if !via.IsValid() {
		via = p.To
	}
	remote, known := t.Remote(via)
	switch {
	case !known:
		w.end(p, Uncarried)
		return
	case w.within == maxWithin:
		w.end(p, Looped)
		return
	}
	outer := walk{lab: w.lab, within: w.within + 1}
	outer.visit(n, "", Path{Source: t.Local, To: remote})
	for _, carrier := range outer.done {
		q := p
		q.Hops = slices.Clone(p.Hops)
		q.Hops[len(q.Hops)-1].Carrier = &carrier
		if carrier.Fate != Delivered {
			w.end(q, carrier.Fate)
			continue
		}
		there, _ := w.lab.Node(carrier.Last().Node)
		in := there.end(t)
		if in == "" {
			w.end(q, NotUnpacked)
			continue
		}
		w.visit(there, in, q)
	}
}

// neighbour finds who on the network answers ARP for the address: any node with
// a working interface there, on whichever interface it holds the address
// (arp_ignore is 0).
func (l Lab) neighbour(network, asking string, a netip.Addr) (Node, string, bool) {
	for _, n := range l.Nodes {
		if n.Name == asking || !n.Owns(a) {
			continue
		}
		for _, link := range n.Links {
			if link.Up && link.Carrier && l.Wires[Port{n.Name, link.Name}] == network {
				return n, link.Name, true
			}
		}
	}
	return Node{}, "", false
}

func (w *walk) end(p Path, fate Fate) {
	p.Fate = fate
	w.done = append(w.done, p)
}
