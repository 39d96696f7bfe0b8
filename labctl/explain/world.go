// Package explain says what becomes of a packet in a lab, and why. It is pure:
// what the nodes' kernels hold and answer goes in, and the way of the packet
// comes out, out and back, with a verdict and what would mend it.
//
// [Predict] walks from hop to hop and asks the kernels as it goes: where it
// lacks an answer it returns the question. Whoever calls it fetches the answers
// and calls again, until none is open.
package explain

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
)

// World is a lab as its kernels hold it.
type World struct {
	// Nodes are in the topology's order.
	Nodes []Node
	// Wires say on which network an interface is, as in [path.Lab].
	Wires map[path.Port]string
	// Cluster is what the agents share; the zero value where there are no pods.
	Cluster api.Cluster
	// Planned is what the present stage makes of healthy kernels. Stages are the
	// lab's others, each with what it would.
	Planned path.Lab
	Stages  []Stage
	// Answers are the kernels', to the questions that were asked so far. Nil: the
	// tables themselves are the only witness.
	Answers map[Ask]api.PathDecision
	// Pods says that pods' own tables were asked for, those of Places.
	Places map[Place]bool
}

// Stage is another stage of the lab.
type Stage struct {
	Name string
	Lab  path.Lab
	// Masquerade is whether pods take their node's address beyond the native CIDR.
	Masquerade bool
}

// Node is one node's part of a world.
type Node struct {
	Name string
	api.Snapshot
	// Silent is why nothing is known of the node; empty where all is.
	Silent string
}

// Place is a network namespace: a node's own, or that of a pod on it.
type Place struct {
	Node string `json:"node"`
	Pod  string `json:"pod,omitempty"` // its key
}

// Name is how a place is spoken of: by the pod's name, or by the node's.
func (p Place) Name() string {
	if p.Pod == "" {
		return p.Node
	}
	return shortPod(p.Pod)
}

// shortPod is a pod's key without the namespace default.
func shortPod(key string) string {
	const usual = "default/"
	if len(key) > len(usual) && key[:len(usual)] == usual {
		return key[len(usual):]
	}
	return key
}

// Ask is one open question. With Query zero it asks for the place's own tables.
type Ask struct {
	Place
	Query api.PathQuery
}

// node returns nil where there is no such node.
func (w *World) node(name string) *Node {
	for i := range w.Nodes {
		if w.Nodes[i].Name == name {
			return &w.Nodes[i]
		}
	}
	return nil
}

// space returns the tables of a place, nil where they are not known.
func (w *World) space(p Place) *api.Space {
	n := w.node(p.Node)
	if n == nil || n.Silent != "" {
		return nil
	}
	if p.Pod == "" {
		return &n.Space
	}
	if s, ok := n.Spaces[p.Pod]; ok {
		return &s
	}
	return nil
}

// clone copies what a change of the tables may touch. The copy has no answers:
// no kernel was asked about it.
func (w *World) clone() *World {
	c := *w
	c.Answers = nil
	c.Nodes = slices.Clone(w.Nodes)
	for i := range c.Nodes {
		n := &c.Nodes[i]
		n.Space = cloneSpace(n.Space)
		n.Spaces = maps.Clone(n.Spaces)
		for key, s := range n.Spaces {
			n.Spaces[key] = cloneSpace(s)
		}
		n.Services = slices.Clone(n.Services)
	}
	return &c
}

func cloneSpace(s api.Space) api.Space {
	s.Links, s.Neighbours, s.Routes, s.Rules = slices.Clone(s.Links), slices.Clone(s.Neighbours), slices.Clone(s.Routes), slices.Clone(s.Rules)
	s.Tracked, s.Sysctls = slices.Clone(s.Tracked), maps.Clone(s.Sysctls)
	s.Chains = slices.Clone(s.Chains)
	for i := range s.Chains {
		s.Chains[i].Rules = slices.Clone(s.Chains[i].Rules)
	}
	return s
}

// edit changes the tables of one place of a world that is the caller's own.
func (w *World) edit(p Place, change func(*api.Space)) {
	n := w.node(p.Node)
	if n == nil {
		return
	}
	if p.Pod == "" {
		change(&n.Space)
		return
	}
	if s, ok := n.Spaces[p.Pod]; ok {
		change(&s)
		n.Spaces[p.Pod] = s
	}
}

// link returns nil where the space has no such link.
func link(s *api.Space, name string) *api.Link {
	for i := range s.Links {
		if s.Links[i].Name == name {
			return &s.Links[i]
		}
	}
	return nil
}

// owns says whether the space answers to the address: by its local table.
func owns(s *api.Space, a netip.Addr) bool {
	return slices.ContainsFunc(s.Routes, func(r api.Route) bool {
		return r.Table == api.TableLocal && r.Type == path.Local && r.To.Contains(a)
	})
}

// bearer is the link that bears the address, up or not; nil for none.
func bearer(s *api.Space, a netip.Addr) *api.Link {
	for i := range s.Links {
		if slices.ContainsFunc(s.Links[i].Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return &s.Links[i]
		}
	}
	return nil
}

// pod finds a pod of the cluster by its address.
func (w *World) pod(a netip.Addr) (api.Pod, bool) {
	for _, p := range w.Cluster.Pods {
		if p.Address == a {
			return p, true
		}
	}
	return api.Pod{}, false
}

// carrier is the node whose pod CIDR holds the address, the zero Node for none.
func (w *World) carrier(a netip.Addr) (api.Node, bool) {
	for _, n := range w.Cluster.Nodes {
		if n.PodCIDR.Contains(a) {
			return n, true
		}
	}
	return api.Node{}, false
}

// holder is the place that should have an address: a pod's, a node's by the
// topology, or whoever bears it.
func (w *World) holder(a netip.Addr) (Place, bool) {
	if p, ok := w.pod(a); ok {
		return Place{p.Node, p.Key()}, true
	}
	if n, ok := w.carrier(a); ok {
		return Place{Node: n.Name}, true
	}
	if port, ok := w.Planned.Holder(a); ok {
		return Place{Node: port.Node}, true
	}
	for i := range w.Nodes {
		if bearer(&w.Nodes[i].Space, a) != nil {
			return Place{Node: w.Nodes[i].Name}, true
		}
	}
	return Place{}, false
}

// prefixOf is the pod CIDR or the network that an address belongs to, or the
// address itself.
func (w *World) prefixOf(a netip.Addr) netip.Prefix {
	if n, ok := w.carrier(a); ok {
		return n.PodCIDR
	}
	for _, n := range w.Planned.Nodes {
		for _, l := range n.Links {
			for _, p := range l.Addresses {
				if p.Contains(a) && !p.IsSingleIP() && w.Wires[path.Port{Node: n.Name, Interface: l.Name}] != "" {
					return p.Masked()
				}
			}
		}
	}
	return netip.PrefixFrom(a, a.BitLen())
}
