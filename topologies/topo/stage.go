package topo

import (
	"fmt"
	"net/netip"
	"slices"
)

// Stage returns a copy of the topology as it is in the named stage: with all
// that the stage adds and sets otherwise, and with no other stage left in it, so
// that the copy's own Stage changes nothing any more. The empty name is the
// file's first stage; a topology without stages is copied as it is. A name that
// there is not is an error that matches [ErrInvalid].
func (t *Topology) Stage(name string) (*Topology, error) {
	entry, ok := t.stage(name)
	switch {
	case !ok && name != "" && len(t.Stages) == 0:
		return nil, invalid(fmt.Sprintf("lab %s has no stages", t.Metadata.Name))
	case !ok && name != "":
		return nil, invalid(fmt.Sprintf("lab %s has no stage %s; its stages are %s", t.Metadata.Name, show(name), list(t.Stages.Names())))
	}
	staged := t.clone()
	if !ok {
		return staged, nil
	}
	for i := range staged.Nodes {
		node := &staged.Nodes[i]
		changed, _ := entry.Value.Nodes.Get(node.Name)
		node.Value.Routes = append(node.Value.Routes, cloneRoutes(changed.Routes)...)
		if changed.BGP != nil {
			node.Value.BGP = changed.BGP.clone()
		}
	}
	staged.Cluster = t.Cluster.in(entry.Value.Cluster)
	stage := Stage{Description: entry.Value.Description, Teaches: entry.Value.Teaches, Expect: cloneExceptions(entry.Value.Expect)}
	staged.Stages = Map[Stage]{{Name: entry.Name, Value: stage}}
	return staged, nil
}

// in is the cluster as a stage sets it; nil sets nothing.
func (c Cluster) in(s *StageCluster) Cluster {
	if s == nil {
		return c
	}
	if s.RoutingMode != "" {
		c.RoutingMode = s.RoutingMode
	}
	if s.Masquerade != nil {
		c.Masquerade = *s.Masquerade
	}
	return c
}

// Exceptions returns what the named stage expects to fail; the empty name is the
// file's first stage. None where there is no such stage.
func (t *Topology) Exceptions(stage string) []Exception {
	entry, _ := t.stage(stage)
	return cloneExceptions(entry.Value.Expect)
}

func (t *Topology) stage(name string) (Entry[Stage], bool) {
	for _, entry := range t.Stages {
		if name == "" || entry.Name == name {
			return entry, true
		}
	}
	return Entry[Stage]{}, false
}

// clone copies all that a stage may change, and the lists that a caller might
// sort or extend.
func (t *Topology) clone() *Topology {
	c := *t
	c.Networks = slices.Clone(t.Networks)
	c.Workloads = slices.Clone(t.Workloads)
	c.Stages = slices.Clone(t.Stages)
	c.Nodes = slices.Clone(t.Nodes)
	for i := range c.Nodes {
		n := &c.Nodes[i].Value
		n.Interfaces = slices.Clone(n.Interfaces)
		n.Routes = cloneRoutes(n.Routes)
		n.BGP = n.BGP.clone()
	}
	if v := t.Providers.Vagrant; v != nil {
		vagrant := *v
		c.Providers.Vagrant = &vagrant
	}
	return &c
}

func (b *BGP) clone() *BGP {
	if b == nil {
		return nil
	}
	return &BGP{ASN: b.ASN, Neighbors: slices.Clone(b.Neighbors)}
}

func cloneRoutes(routes []Route) []Route {
	c := slices.Clone(routes)
	for i := range c {
		c[i].Via = slices.Clone(c[i].Via)
	}
	return c
}

func cloneExceptions(exceptions []Exception) []Exception {
	c := slices.Clone(exceptions)
	for i := range c {
		c[i].From = Selector{PodsOn: slices.Clone(c[i].From.PodsOn), Nodes: slices.Clone(c[i].From.Nodes)}
		c[i].To = Selector{PodsOn: slices.Clone(c[i].To.PodsOn), Nodes: slices.Clone(c[i].To.Nodes)}
	}
	return c
}

// Host is one line of a hosts file.
type Host struct {
	Address netip.Addr
	Name    string
}

// Hosts returns every node on a network by its primary address, in the file's order.
func (t *Topology) Hosts() []Host {
	var hosts []Host
	for name, n := range t.Nodes.All() {
		if _, iface, ok := n.Primary(); ok {
			hosts = append(hosts, Host{iface.Address.Addr(), name})
		}
	}
	return hosts
}
