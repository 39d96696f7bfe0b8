package explain

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
)

// What the eBPF datapath does with packets is in bpf/doc.go; here it is for one
// packet that begins a flow, and for its reply.

// attached says whether the datapath sees what passes a node's device.
func attached(n *Node, device string) bool {
	return n.Datapath != nil && slices.Contains(n.Datapath.Devices, device)
}

// isTunnel says whether a device is the overlay's, which the datapath sees too.
func isTunnel(n *Node, device string) bool {
	l := link(&n.Space, device)
	return n.Datapath != nil && l != nil && l.Kind == "vxlan"
}

// frontend finds the service that an address and a port belong to. From outside
// of the cluster only what is routable counts.
func (n *Node) frontend(a netip.Addr, p Packet, inCluster bool) *api.Frontend {
	var found *api.Frontend
	for i := range n.Services {
		f := &n.Services[i]
		if f.Address.Addr() != a || f.Address.Port() != p.Port || !strings.EqualFold(f.Protocol, p.Protocol) {
			continue
		}
		if found == nil || (f.Scope == "internal") == inCluster {
			found = f
		}
	}
	return found
}

// endedAtService puts a backend in place of a service that a socket of the
// place connects to. It says whether the way ended with that.
func (t *walk) endedAtService(at Place) bool {
	n := t.w.node(at.Node)
	if n.Datapath == nil || t.reply() || t.packet.Protocol == ICMP {
		return false
	}
	f := n.frontend(t.packet.To, t.packet, true)
	if f == nil && t.isNode(t.packet.To) {
		f = n.frontend(netip.IPv4Unspecified(), t.packet, true)
	}
	if f == nil {
		return false
	}
	backend, ok := t.pick(n, f)
	if ok {
		t.called = backend
		t.changes[len(t.changes)-1].socket = true
	}
	return !ok
}

// isNode says whether a NodePort can be called by the address.
func (t *walk) isNode(a netip.Addr) bool {
	return slices.ContainsFunc(t.w.Cluster.Nodes, func(n api.Node) bool {
		return n.Address == a || slices.Contains(n.Addresses, a)
	})
}

// pick takes a backend of the frontend as this way's, and ends the way where
// there is none.
func (t *walk) pick(n *Node, f *api.Frontend) (netip.AddrPort, bool) {
	was := netip.AddrPortFrom(t.packet.To, t.packet.Port)
	usable := f.Backends[:min(f.Usable, len(f.Backends))]
	var backend netip.AddrPort
	switch known, stale := n.flowTo(t.packet, was); {
	case stale:
		backend = known
		if !slices.ContainsFunc(usable, func(b api.FrontendBackend) bool { return b.Address == known }) {
			t.stale = &End{Cause: StaleFlow, Place: Place{Node: n.Name}, detail: known.String()}
		}
	case len(usable) == 0:
		t.end(NoBackend, func(e *End) { e.address, e.detail, e.Answered = was.Addr(), f.Service, true })
		return backend, false
	default:
		t.choices = len(usable)
		backend = usable[t.choice%len(usable)].Address
	}
	t.backend = backend
	t.translate(Place{Node: n.Name}, "service", "destination", backend, false)
	return backend, true
}

// flowTo is the backend that a connection of that very client has already,
// where the client's port is known.
func (n *Node) flowTo(p Packet, frontend netip.AddrPort) (netip.AddrPort, bool) {
	for _, f := range n.Flows {
		if p.SourcePort != 0 && f.Client.Port() == p.SourcePort && f.Client.Addr() == p.From && f.Frontend == frontend && strings.EqualFold(f.Protocol, p.Protocol) {
			return f.Backend, true
		}
	}
	return netip.AddrPort{}, false
}

// translate changes the packet, and notes it at the hop and for the way back.
func (t *walk) translate(at Place, by, what string, is netip.AddrPort, kernel bool) {
	c := change{Place: at, Translation: Translation{By: by, What: what, Is: is}, kernel: kernel}
	if what == "source" {
		c.Was = netip.AddrPortFrom(t.packet.From, t.packet.SourcePort)
		t.packet.From, t.packet.SourcePort = is.Addr(), is.Port()
	} else {
		c.Was = netip.AddrPortFrom(t.packet.To, t.packet.Port)
		t.packet.To, t.packet.Port = is.Addr(), is.Port()
	}
	c.Rule = t.rule
	hop := t.path.here()
	hop.Translations = append(hop.Translations, c.Translation)
	if !t.reply() {
		t.changes = append(t.changes, c)
	}
}

// undo reverses what the place did with the request: of the reply's destination
// where the request's source was changed, and the other way round. It says
// whether there was something.
func (t *walk) undo(at Place, kernel bool, what string) bool {
	done := false
	for _, c := range slices.Backward(t.changes) {
		switch {
		case !t.reply() || c.Place != at || c.kernel != kernel || c.socket:
		case what == "destination" && c.What == "source" && t.packet.To == c.Is.Addr():
			t.translate(at, "reverse", "destination", c.Was, kernel)
			done = true
		case what == "source" && c.What == "destination" && t.packet.From == c.Is.Addr():
			t.translate(at, "reverse", "source", c.Was, kernel)
			done = true
		}
	}
	return done
}

// datapathTakes is what the datapath does with a packet that comes in. It says
// whether the packet goes no further into the node's stack.
func (t *walk) datapathTakes(at Place, in string) bool {
	n := t.w.node(at.Node)
	if sender := t.podBehind(at, &api.Link{Name: in}); sender != nil && n.Datapath != nil {
		if sender.Address != t.packet.From {
			t.end(SourceRefused, func(e *End) { e.address = t.packet.From })
			return true
		}
		return t.toLocalPod(at, n)
	}
	if !attached(n, in) && !isTunnel(n, in) || t.outer != nil {
		return false
	}
	if t.reply() {
		t.undo(at, false, "destination")
		return t.toLocalPod(at, n)
	}
	if t.isLocalPod(n, t.packet.To) {
		return t.toLocalPod(at, n)
	}
	return t.fromOutside(at, n)
}

// fromOutside is a packet for a service, from who has not balanced it himself.
func (t *walk) fromOutside(at Place, n *Node) bool {
	if t.packet.Protocol == ICMP {
		return false
	}
	f := n.frontend(t.packet.To, t.packet, false)
	if f == nil && owns(&n.Space, t.packet.To) {
		f = n.frontend(netip.IPv4Unspecified(), t.packet, false)
	}
	if f == nil {
		return false
	}
	if slices.Contains(f.Flags, "non-routable") {
		t.end(NotForIt, func(e *End) { e.address = t.packet.To })
		return true
	}
	if _, ok := t.pick(n, f); !ok {
		return true
	}
	t.made = "external"
	return t.toLocalPod(at, n)
}

// isLocalPod says whether the address is one of the node's pods', there or not.
func (t *walk) isLocalPod(n *Node, a netip.Addr) bool {
	for _, c := range t.w.Cluster.Nodes {
		if c.Name == n.Name {
			return c.PodCIDR.Contains(a) && c.Gateway != a
		}
	}
	return false
}

// toLocalPod hands the packet to a pod of the node, where it is for one.
func (t *walk) toLocalPod(at Place, n *Node) bool {
	if !t.isLocalPod(n, t.packet.To) || t.ttl <= 1 {
		return false
	}
	t.toPod(at, true)
	return true
}

// toPod hands over to the pod that has the packet's destination.
func (t *walk) toPod(at Place, direct bool) {
	n := t.w.node(at.Node)
	for i := range n.Pods {
		if p := &n.Pods[i]; p.Address == t.packet.To && p.PID != 0 {
			t.intoPod(at, p, direct)
			return
		}
	}
	t.end(NoPod, func(e *End) { e.address = t.packet.To })
}

// toOwnPod is what leaves by the pod gateway's device.
func (t *walk) toOwnPod(at Place) {
	n := t.w.node(at.Node)
	if n.Datapath == nil || !t.isLocalPod(n, t.packet.To) {
		t.end(EndsHere, nil)
		return
	}
	t.toPod(at, false)
}

// podBehind is the pod at the other end of a node's device; nil where there is none.
func (t *walk) podBehind(at Place, out *api.Link) *api.PodStatus {
	n := t.w.node(at.Node)
	for i := range n.Pods {
		if n.Pods[i].Device == out.Name && at.Pod == "" {
			return &n.Pods[i]
		}
	}
	return nil
}

// intoPod puts the packet into a pod's namespace.
func (t *walk) intoPod(at Place, pod *api.PodStatus, direct bool) {
	hop := t.path.here()
	if direct {
		t.ttl--
		t.undo(at, false, "source")
	}
	if hop.Out != pod.Device {
		hop.Out = pod.Device
	}
	hop.Direct = direct
	t.stamp()
	t.arrive(Place{at.Node, pod.Key()}, podDevice)
}

// podDevice is the pod's own end of its link.
const podDevice = "eth0"

// fromPod is what leaves a pod: it comes in by the other end of its link.
func (t *walk) fromPod(at Place, out *api.Link, target netip.Addr) {
	n := t.w.node(at.Node)
	i := slices.IndexFunc(n.Pods, func(p api.PodStatus) bool { return p.Key() == at.Pod })
	switch {
	case out.Name != podDevice || i < 0:
		t.end(EndsHere, nil)
	case !out.Carrier:
		t.end(LinkDown, func(e *End) { e.Place, e.Device = Place{Node: at.Node}, n.Pods[i].Device })
	default:
		t.arrive(Place{Node: at.Node}, n.Pods[i].Device)
	}
}

// datapathSends is what the datapath does with a packet that leaves by a device
// of a node: it may take the device's address.
func (t *walk) datapathSends(at Place, s *api.Space, out *api.Link) {
	n := t.w.node(at.Node)
	if !attached(n, out.Name) || t.outer != nil {
		return
	}
	if t.reply() {
		t.undo(at, false, "source")
		return
	}
	if len(out.Addresses) == 0 || t.packet.From == out.Addresses[0].Addr() {
		return
	}
	if t.made == "external" || t.masquerades(n) {
		t.translate(at, "masquerade", "source", netip.AddrPortFrom(out.Addresses[0].Addr(), 0), false)
		t.made = ""
	}
}

// masquerades decides as nat_decide in bpf/include/nat.h does.
func (t *walk) masquerades(n *Node) bool {
	c := t.w.Cluster
	here := slices.ContainsFunc(n.Pods, func(p api.PodStatus) bool { return p.Address == t.packet.From })
	remote := slices.ContainsFunc(c.Nodes, func(o api.Node) bool {
		return o.Name != n.Name && (o.Address == t.packet.To || slices.Contains(o.Addresses, t.packet.To))
	})
	return c.Masquerade && here && !remote && !c.NativeCIDR.Contains(t.packet.To)
}
