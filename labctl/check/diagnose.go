package check

import (
	"net/netip"
	"slices"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/topologies/path"
)

// packet is one leg of a flow: a request, or the reply to it.
type packet struct {
	from       string
	source, to netip.Addr
}

// diagnose says why a packet was lost where it was. The observed tables say
// where it should end; where they say otherwise, something that is in no table
// is the cause.
func (v *verification) diagnose(l loss) []Cause {
	ways := v.observed.Trace(l.from, l.source, l.to)
	for _, way := range ways {
		if causes := v.overruled(way); len(causes) > 0 {
			return causes
		}
	}
	for _, way := range ways {
		if way.Fate != path.Delivered && (l.agrees(way) || v.remembered(l, way)) {
			return v.why(way)
		}
	}
	for _, way := range ways {
		if causes := v.wrongNeighbour(l, way); len(causes) > 0 {
			return causes
		}
	}
	if causes := append(v.secondHolders(l.to), v.secondHolders(l.source)...); len(causes) > 0 {
		return causes
	}
	return []Cause{v.unexplained(l)}
}

// secondHolders finds nodes that hold an address which is another's.
func (v *verification) secondHolders(a netip.Addr) []Cause {
	holder, known := v.healthy.Holder(a)
	var causes []Cause
	for _, n := range v.observed.Nodes {
		if want, _ := v.healthy.Node(n.Name); known && n.Name != holder.Node && !want.Owns(a) && n.Owns(a) {
			causes = append(causes, v.foreignAddress(want, n, a)...)
		}
	}
	return causes
}

// overruled finds a node on the way whose kernel decides otherwise than its
// main table does: a rule or another table is in force there.
func (v *verification) overruled(way path.Path) []Cause {
	for _, hop := range way.Hops {
		if hop.Carrier != nil {
			if causes := v.overruled(*hop.Carrier); len(causes) > 0 {
				return causes
			}
		}
		node, _ := v.observed.Node(hop.Node)
		got, asked := v.decision(hop.Node, way.To)
		if d := node.Lookup(way.To); asked && !agrees(node, d, got) {
			return []Cause{{Node: hop.Node, Reason: v.say.Sprintf("the main table does not decide: a rule or another table does"), Cure: on(hop.Node, "ip rule"),
				Effect: v.say.Sprintf("to %s it goes %s", way.To, seenDecision(got))}}
		}
	}
	return nil
}

// wrongNeighbour finds a node whose neighbour table takes another for the next
// hop, where the packet was last seen.
func (v *verification) wrongNeighbour(l loss, way path.Path) []Cause {
	for _, hop := range way.Hops {
		if hop.Carrier != nil {
			if causes := v.wrongNeighbour(l, *hop.Carrier); len(causes) > 0 {
				return causes
			}
		}
		next := hop.NextHop.Via
		if !next.IsValid() {
			next = way.To
		}
		holder, known := v.healthy.Holder(next)
		if hop.Node != l.node && holder.Node != l.node || !known {
			continue
		}
		for _, n := range v.tables[hop.Node].Neighbours {
			if n.Address != next || n.Device != hop.Out {
				continue
			}
			if n.State == "incomplete" || n.State == "failed" {
				return []Cause{v.deafNetwork(hop, v.say.Sprintf("%s gets no answer to its ARP requests for %s", hop.Node, next))}
			}
			if n.MAC == "" || v.holdsMAC(holder.Node, n.MAC) {
				continue
			}
			return []Cause{{Node: hop.Node, Reason: v.say.Sprintf("neighbour %s on %s is %s (%s), which is not %s", next, n.Device, n.MAC, n.State, holder.Node),
				Cure: on(hop.Node, "ip neigh del %s dev %s", next, n.Device)}}
		}
	}
	return nil
}

// deafNetwork is a network that does not carry what a node sends on it.
func (v *verification) deafNetwork(from path.Hop, effect string) Cause {
	network := v.healthy.Wires[path.Port{Node: from.Node, Interface: from.Out}]
	return Cause{Reason: v.say.Sprintf("network %s loses packets: nobody hears what is sent on it", network), Cure: "labctl up", Effect: effect}
}

// holdsMAC says whether an interface of the node has the address; also where
// that node's interfaces are not known.
func (v *verification) holdsMAC(node, mac string) bool {
	tables, known := v.tables[node]
	return !known || slices.ContainsFunc(tables.Links, func(l api.Link) bool { return l.MAC == mac })
}

// agrees says whether the way that the tables give ends where the packet was
// last seen. A packet that goes round ends wherever its TTL does, and one whose
// next hop is silent is sent if the sender still remembers who that was.
func (l loss) agrees(way path.Path) bool {
	last := way.End().Last()
	switch {
	case way.Fate == path.Looped:
		return true
	case last.Node != l.node:
		return false
	case l.leaving:
		return last.Out == l.device && (way.Fate == path.LeftLab || way.Fate == path.SilentNextHop || way.Fate == path.Uncarried)
	}
	return way.Fate != path.LeftLab
}

// remembered says whether a packet came to a node that held the address before:
// the sender's neighbour table still leads there.
func (v *verification) remembered(l loss, way path.Path) bool {
	holder, ok := v.healthy.Holder(way.To)
	return ok && way.Fate == path.SilentNextHop && l.node == holder.Node
}

// unexplained is a loss that the tables do not account for: what left a node on
// a network was lost by the network, and anything else by the node.
func (v *verification) unexplained(l loss) Cause {
	if _, wired := v.healthy.Wires[path.Port{Node: l.node, Interface: l.device}]; wired && l.leaving {
		return v.deafNetwork(path.Hop{Node: l.node, Out: l.device}, v.say.Sprintf("this one left %s by %s", l.node, l.device))
	}
	return Cause{Node: l.node, Cure: on(l.node, "nft list ruleset"),
		Reason: v.say.Sprintf("drops a packet that its tables would pass on: a firewall rule or a program does it")}
}

// why explains a way that does not arrive: by the first node on it that routes
// otherwise than it should, and else by the node where it ends.
func (v *verification) why(way path.Path) []Cause {
	effect := effectOf(v.say, way.End())
	for _, hop := range way.Hops {
		if causes := v.misrouted(hop, way.To); len(causes) > 0 {
			return with(causes, effect)
		}
		if causes := v.miscarried(hop); len(causes) > 0 {
			return with(causes, effect)
		}
	}
	last := way.Last()
	switch {
	case way.Fate == path.NotUnpacked:
		return v.tunnelEnd(last)
	case last.Carrier != nil: // it shares that one's fate
		return v.why(*last.Carrier)
	}
	node, _ := v.observed.Node(last.Node)
	switch way.Fate {
	case path.NotForwarded, path.Filtered:
		return forwardingCauses(v.say, node)
	case path.SilentNextHop:
		if out, ok := node.Link(last.Out); ok && !out.Carrier {
			healthy, _ := v.healthy.Node(last.Node)
			want, _ := healthy.Link(last.Out)
			return linkCauses(v.say, last.Node, want, out, true)
		}
		return v.silent(last, way.To)
	}
	return []Cause{v.neverRouted(node, way)}
}

// miscarried says what is wrong with the tunnel that a hop leads into.
func (v *verification) miscarried(hop path.Hop) []Cause {
	seen, _ := v.observed.Node(hop.Node)
	want, _ := v.healthy.Node(hop.Node)
	have, exists := seen.Link(hop.Out)
	healthy, known := want.Link(hop.Out)
	if !exists || !known {
		return nil
	}
	return tunnelCauses(v.say, hop.Node, healthy, have)
}

// tunnelEnd explains a packet that nobody unpacks where it was carried to.
func (v *verification) tunnelEnd(from path.Hop) []Cause {
	node := from.Carrier.Last().Node
	want, _ := v.healthy.Node(node)
	have, _ := v.observed.Node(node)
	for _, link := range want.Links {
		if link.Tunnel != nil {
			seen, exists := have.Link(link.Name)
			return linkCauses(v.say, node, link, seen, exists)
		}
	}
	return []Cause{{Node: from.Node, Reason: v.say.Sprintf("carries to %s what has no tunnel to be unpacked from", node), Cure: "labctl status " + from.Node}}
}

func with(causes []Cause, effect string) []Cause {
	for i := range causes {
		causes[i].Effect = effect
	}
	return causes
}

// effectOf is what becomes of a packet, in a few words.
func effectOf(say lang.Printer, way path.Path) string {
	last := way.Last()
	switch way.Fate {
	case path.LeftLab:
		return say.Sprintf("on %s, %s takes the packet, out of %s", last.Node, last.Route, last.Out)
	case path.Looped:
		return say.Sprintf("the packet goes round until its TTL ends")
	case path.Delivered:
		return ""
	}
	return say.Sprintf("the packet ends at %s: %s", last.Node, say.Text(string(way.Fate)))
}

// misrouted compares one node's decision with the healthy one: the causes where
// they differ, none where they are the same.
func (v *verification) misrouted(hop path.Hop, to netip.Addr) []Cause {
	seen, _ := v.observed.Node(hop.Node)
	want, _ := v.healthy.Node(hop.Node)
	got, expected := seen.Lookup(to), want.Lookup(to)
	if expected.Type == path.Local && got.Type != path.Local {
		return v.lostAddress(want, seen, to)
	}
	if got.Type == path.Local && expected.Type != path.Local {
		return v.foreignAddress(want, seen, to)
	}
	if got.Type != "" && got.Type != path.Local && sameKey(want.Routes, got.Route) == nil {
		return foreignRoute(v.say, want, seen, got.Route)
	}
	if expected.Type != path.Unicast {
		return nil
	}
	if got.Type == "" || got.Route.To != expected.Route.To {
		return missingRoute(v.say, want, seen, expected.Route)
	}
	if !sameRoute(expected.Route, got.Route) {
		return wrongRoute(v.say, want, seen, expected.Route, got.Route)
	}
	return nil
}

// lostAddress explains a node that does not answer to its own address any more.
func (v *verification) lostAddress(want, seen path.Node, a netip.Addr) []Cause {
	holder, _ := v.healthy.Holder(a)
	link, _ := want.Link(holder.Interface)
	have, exists := seen.Link(holder.Interface)
	return linkCauses(v.say, want.Name, link, have, exists)
}

// foreignAddress explains a node that takes for its own what is another's.
func (v *verification) foreignAddress(want, seen path.Node, a netip.Addr) []Cause {
	for _, have := range seen.Links {
		if slices.ContainsFunc(have.Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
			link, known := want.Link(have.Name)
			if !known {
				return []Cause{{Node: want.Name, Reason: v.say.Sprintf("foreign interface %s holds %s", have.Name, a), Cure: on(want.Name, "ip link del %s", have.Name)}}
			}
			return linkCauses(v.say, want.Name, link, have, true)
		}
	}
	return nil
}

// neverRouted explains a destination that even the healthy tables do not reach:
// the topology itself gives the node no route for it.
func (v *verification) neverRouted(node path.Node, way path.Path) Cause {
	prefix := v.prefixOf(way.To)
	c := Cause{Node: node.Name, Reason: v.say.Sprintf("has no route for %s", prefix)}
	if d := node.Lookup(way.To); d.Type == path.Unicast {
		c.Effect = v.say.Sprintf("%s is the longest match and sends it out of %s", d.Route, d.NextHops[0].Device)
	}
	holder, ok := v.healthy.Holder(way.To)
	if !ok {
		return c
	}
	if hop, ok := v.healthy.Towards(node.Name, holder.Node); ok {
		c.Cure = on(node.Name, "ip route add %s via %s", prefix, hop.Via)
	}
	return c
}

// silent explains a next hop that nobody answers for: the node that should hold
// the address has lost it, or cannot hear.
func (v *verification) silent(last path.Hop, to netip.Addr) []Cause {
	address := last.NextHop.Via
	if !address.IsValid() {
		address = to
	}
	holder, ok := v.healthy.Holder(address)
	if !ok {
		return []Cause{{Node: last.Node, Reason: v.say.Sprintf("its next hop %s is no node of the lab (%s)", address, last.Route), Cure: "labctl up"}}
	}
	want, _ := v.healthy.Node(holder.Node)
	have, _ := v.observed.Node(holder.Node)
	network := v.healthy.Wires[path.Port{Node: last.Node, Interface: last.Out}]
	var causes []Cause
	for _, link := range want.Links {
		if link.Name == holder.Interface || v.healthy.Wires[path.Port{Node: holder.Node, Interface: link.Name}] == network {
			seen, exists := have.Link(link.Name)
			causes = append(causes, linkCauses(v.say, holder.Node, link, seen, exists)...)
		}
	}
	if len(causes) == 0 {
		causes = []Cause{{Node: holder.Node, Reason: v.say.Sprintf("does not answer for %s on the network of %s's %s", address, last.Node, last.Out), Cure: "labctl up"}}
	}
	return causes
}

// shrunk names the interfaces of a way whose MTU is not what it should be.
func (v *verification) shrunk(way path.Path) []Cause {
	var causes []Cause
	for _, hop := range slices.DeleteFunc(slices.Clone(way.Hops), func(h path.Hop) bool { return h.Out == "" }) {
		node, _ := v.observed.Node(hop.Node)
		healthy, _ := v.healthy.Node(hop.Node)
		want, _ := healthy.Link(hop.Out)
		have, exists := node.Link(hop.Out)
		causes = append(causes, linkCauses(v.say, hop.Node, want, have, exists)...)
	}
	return causes
}

// detours names all that differs on a way that arrives: routes, then interfaces.
func (v *verification) detours(way path.Path) []Cause {
	var causes []Cause
	for _, hop := range way.Hops {
		causes = append(causes, v.misrouted(hop, way.To)...)
		causes = append(causes, v.miscarried(hop)...)
		if hop.Carrier != nil {
			causes = append(causes, v.detours(*hop.Carrier)...)
		}
	}
	return append(causes, v.shrunk(way)...)
}
