package path

import (
	"net/netip"
	"slices"

	"github.com/native-routing/labctl/topologies/topo"
)

// BGPMetric is the metric of the routes that agents learn, by which they know
// them from another speaker's.
const BGPMetric = 108

// announcement is a prefix as it reaches a node.
type announcement struct {
	prefix  netip.Prefix
	hop     netip.Addr
	systems []uint32
}

// addLearned adds what BGP teaches every node: each speaker's pod CIDR, by the
// shortest path of systems, the first in the file's order where several are.
func (l *Lab) addLearned(t *topo.Topology) {
	known := map[string][]announcement{}
	for name, n := range t.Nodes.All() {
		if n.BGP != nil && n.PodCIDR.IsValid() {
			known[name] = []announcement{{prefix: n.PodCIDR}}
		}
	}
	for changed := true; changed; {
		changed = false
		for name := range t.Nodes.All() {
			for _, s := range t.BGPSessions(name) {
				changed = hear(t, known, name, s) || changed
			}
		}
	}
	for i := range l.Nodes {
		n := &l.Nodes[i]
		for _, a := range known[n.Name] {
			if a.hop.IsValid() {
				n.Routes = append(n.Routes, Route{
					To: a.prefix, Type: Unicast, Protocol: "bgp", Scope: "global", Metric: BGPMetric,
					NextHops: []NextHop{{Via: a.hop, Device: n.deviceTo(a.hop)}},
				})
			}
		}
	}
}

// hear takes what a peer knows, and says whether any of it was new or better. A
// system that finds itself on the path drops it (RFC 4271, section 9.1.2).
func hear(t *topo.Topology, known map[string][]announcement, name string, s topo.BGPSession) (changed bool) {
	node, _ := t.Nodes.Get(name)
	for _, told := range known[s.Peer] {
		path := append([]uint32{s.ASN}, told.systems...)
		if slices.Contains(path, node.BGP.ASN) {
			continue
		}
		i := slices.IndexFunc(known[name], func(a announcement) bool { return a.prefix == told.prefix })
		switch {
		case i < 0:
			known[name] = append(known[name], announcement{told.prefix, s.Address, path})
		case known[name][i].hop.IsValid() && len(path) < len(known[name][i].systems):
			known[name][i] = announcement{told.prefix, s.Address, path}
		default:
			continue
		}
		changed = true
	}
	return changed
}
