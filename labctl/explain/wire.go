package explain

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
)

// transmit puts the packet on a link, towards the neighbour that is its target.
func (t *walk) transmit(at Place, s *api.Space, out *api.Link, target netip.Addr) {
	switch {
	case out.Name == "lo":
		t.deliver(at, s, "lo")
	case at.Pod != "":
		t.fromPod(at, out, target)
	case out.Name == path.GatewayDevice:
		t.toOwnPod(at)
	case t.podBehind(at, out) != nil:
		t.intoPod(at, t.podBehind(at, out), false)
	case out.Kind == "vxlan" || out.Kind == "geneve":
		t.throughTunnel(at, s, out, target)
	case t.w.Wires[path.Port{Node: at.Node, Interface: out.Name}] != "":
		t.onNetwork(at, s, out, target)
	case out.Kind == "dummy" || out.Kind == "ifb":
		t.end(EndsHere, nil)
	default:
		t.end(LeftLab, nil)
	}
}

// onNetwork sends on a network of the lab.
func (t *walk) onNetwork(at Place, s *api.Space, out *api.Link, target netip.Addr) {
	network := t.w.Wires[path.Port{Node: at.Node, Interface: out.Name}]
	if !out.Carrier {
		t.end(LinkDown, func(e *End) { e.Place, e.Device = t.otherEnd(at, out, network) })
		return
	}
	if known, mac := neighbour(s, out.Name, target); known {
		port, found := t.portOf(network, mac, at)
		if !found {
			port, found = t.taker(network, at)
		}
		if !found {
			t.end(WrongNeighbour, func(e *End) { e.address, e.detail = target, mac })
			return
		}
		t.receive(port, target)
		return
	}
	t.resolve(at, s, out, network, target)
}

// receive is the packet at the port that its frame is addressed to.
func (t *walk) receive(port path.Port, target netip.Addr) {
	there := Place{Node: port.Node}
	s, ok := t.tables(there)
	if !ok {
		return
	}
	if l := link(s, port.Interface); l == nil || !l.Up {
		t.end(LinkDown, func(e *End) { e.Place, e.Device, e.address, e.sent = there, port.Interface, target, true })
		return
	}
	t.arrive(there, port.Interface)
}

// neighbour is the MAC address that a namespace would use without asking.
func neighbour(s *api.Space, device string, target netip.Addr) (known bool, mac string) {
	for _, n := range s.Neighbours {
		if n.Address == target && n.Device == device && n.MAC != "" && n.State != "failed" && n.State != "incomplete" && !strings.Contains(n.State, "noarp") {
			return true, n.MAC
		}
	}
	return false, ""
}

// portOf finds whose MAC address it is on a network.
func (t *walk) portOf(network, mac string, asking Place) (path.Port, bool) {
	for i := range t.w.Nodes {
		n := &t.w.Nodes[i]
		for _, l := range n.Space.Links {
			port := path.Port{Node: n.Name, Interface: l.Name}
			if n.Name != asking.Node && strings.EqualFold(l.MAC, mac) && t.w.Wires[port] == network {
				return port, true
			}
		}
	}
	return path.Port{}, false
}

// taker is who takes a frame for nobody, which a network hands to all: a datapath
// looks at a packet's addresses alone, and finds its pod.
func (t *walk) taker(network string, asking Place) (path.Port, bool) {
	for i := range t.w.Nodes {
		n := &t.w.Nodes[i]
		for _, l := range n.Space.Links {
			port := path.Port{Node: n.Name, Interface: l.Name}
			if n.Name != asking.Node && l.Up && t.w.Wires[port] == network && attached(n, l.Name) && t.isLocalPod(n, t.packet.To) {
				return port, true
			}
		}
	}
	return path.Port{}, false
}

// resolve asks the network who has the target, as ARP does: whoever has the
// address answers, whichever of its interfaces bears it (arp_ignore is 0), if it
// takes the asking node's address for what it is.
func (t *walk) resolve(at Place, s *api.Space, out *api.Link, network string, target netip.Addr) {
	source := arpSource(s, out, t.packet.From, target)
	var mute *End
	for i := range t.w.Nodes {
		n := &t.w.Nodes[i]
		if n.Name == at.Node || n.Silent != "" {
			continue
		}
		for j := range n.Space.Links {
			in := &n.Space.Links[j]
			if !in.Up || !in.Carrier || t.w.Wires[path.Port{Node: n.Name, Interface: in.Name}] != network || !owns(&n.Space, target) {
				continue
			}
			there := Place{Node: n.Name}
			if refused, filter := refusesSource(&n.Space, in, source, target); refused {
				cause := Martian
				if filter {
					cause = ReversePath
				}
				mute = &End{Cause: cause, Place: there, Device: in.Name, address: source, detail: "arp"}
				continue
			}
			t.arrive(there, in.Name)
			return
		}
	}
	if mute != nil {
		t.path.End = *mute
		return
	}
	if port, ok := t.w.Planned.Holder(target); ok {
		if n := t.w.node(port.Node); n != nil && n.Silent != "" {
			t.end(Unknown, func(e *End) { e.Place, e.Device, e.detail = Place{Node: n.Name}, port.Interface, n.Silent })
			return
		}
	}
	t.silent(at, network, target)
}

// arpSource is the address that an ARP request asks with (arp_announce 0).
func arpSource(s *api.Space, out *api.Link, from, target netip.Addr) netip.Addr {
	if owns(s, from) {
		return from
	}
	for _, p := range out.Addresses {
		if p.Contains(target) {
			return p.Addr()
		}
	}
	if len(out.Addresses) > 0 {
		return out.Addresses[0].Addr()
	}
	return netip.Addr{}
}

// silent is a target that nobody answers for: whoever bears it has its link
// down, or nobody does.
func (t *walk) silent(at Place, network string, target netip.Addr) {
	for i := range t.w.Nodes {
		n := &t.w.Nodes[i]
		b := bearer(&n.Space, target)
		if n.Name == at.Node || n.Silent != "" || b == nil {
			continue
		}
		for _, l := range n.Space.Links {
			on := t.w.Wires[path.Port{Node: n.Name, Interface: l.Name}] == network
			if on && (!l.Up || !l.Carrier) {
				t.end(LinkDown, func(e *End) { e.Place, e.Device, e.address = Place{Node: n.Name}, l.Name, target })
				return
			}
		}
	}
	t.end(SilentNeighbour, func(e *End) {
		e.address, e.Answered = target, true
		if p, ok := t.w.holder(target); ok {
			e.receiver = p
		}
	})
}

// otherEnd is whose fault a missing carrier is: on a network of two the other
// end's, if that is down.
func (t *walk) otherEnd(at Place, out *api.Link, network string) (Place, string) {
	var others []path.Port
	for port, name := range t.w.Wires {
		if name == network && port.Node != at.Node {
			others = append(others, port)
		}
	}
	if len(others) == 1 {
		if s := t.w.space(Place{Node: others[0].Node}); s != nil {
			if l := link(s, others[0].Interface); l != nil && !l.Up {
				return Place{Node: others[0].Node}, others[0].Interface
			}
		}
	}
	return at, out.Name
}

// throughTunnel sends inside of a packet of the node's own, which goes the way
// of any other, and comes out of the tunnel's other end.
func (t *walk) throughTunnel(at Place, s *api.Space, out *api.Link, target netip.Addr) {
	peer, ok := t.tunnelEnd(target)
	if !ok {
		t.end(SilentNeighbour, func(e *End) { e.address = target })
		return
	}
	const overhead = 50 // an IPv4 header, UDP, VXLAN, and the frame's own header
	inner, innerTTL := t.packet, t.ttl
	t.packet = Packet{To: peer.Address, Protocol: UDP, Port: vxlanPort, Size: inner.Size + overhead}
	t.ttl, t.outer = usualTTL, &Outer{To: peer.Address}
	t.carry(at, s)
	t.outer = nil
	if !t.path.End.Arrived {
		return
	}
	end := t.path.End.Place
	t.path.End = End{}
	t.packet, t.ttl = inner, innerTTL
	t.comesOut(end, out.Name)
}

// carry sends the outer packet, which is the node's own.
func (t *walk) carry(at Place, s *api.Space) {
	t.enterHop(at, "")
	q := t.query("")
	d, answered := t.ask(at, q)
	if !answered {
		return
	}
	t.explainRoute(s, q, d)
	if d.Error != "" {
		t.refused(at, s, q, d)
		return
	}
	t.packet.From, t.outer.From = d.Source, d.Source
	if !t.filtered(at, s, "output", "", d.Device) {
		t.leave(at, s, d)
	}
}

const vxlanPort = 8472

// tunnelEnd is the node whose pods the target is among.
func (t *walk) tunnelEnd(target netip.Addr) (api.Node, bool) {
	i := slices.IndexFunc(t.w.Cluster.Nodes, func(n api.Node) bool { return n.PodCIDR.Contains(target) || n.Address == target })
	if i < 0 {
		return api.Node{}, false
	}
	return t.w.Cluster.Nodes[i], true
}

// comesOut is the inner packet at the tunnel's other end.
func (t *walk) comesOut(at Place, like string) {
	s, ok := t.tables(at)
	if !ok {
		return
	}
	in := like
	for _, l := range s.Links {
		if l.Kind == "vxlan" {
			in = l.Name
		}
	}
	if link(s, in) == nil {
		t.end(LinkDown, func(e *End) { e.Place, e.Device = at, in })
		return
	}
	t.arrive(at, in)
}
