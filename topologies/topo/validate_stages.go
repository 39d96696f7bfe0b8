package topo

import "fmt"

// stageReferences: a stage adds to nodes that there are.
func (c *checker) stageReferences() {
	for stage, s := range c.t.Stages.All() {
		for name := range s.Nodes.All() {
			if p := at("stages", stage, "nodes", name); c.nodes[name] == nil {
				c.wrongKey(p, "there is no node "+show(name), c.oneOf(name, "nodes", c.t.Nodes.Names))
			}
		}
	}
}

// exceptions: each is about traffic that there can be, and names where it is lost.
func (c *checker) exceptions() {
	for stage, s := range c.t.Stages.All() {
		for i, x := range s.Expect {
			p := at("stages", stage, "expect").index(i)
			c.selector(p.key("from"), x.From)
			c.selector(p.key("to"), x.To)
			if c.nodeNamed(p.key("at"), x.At) {
				c.leaving(p.key("leaving"), x.At, x.Leaving)
			}
		}
	}
}

// selector: it picks something, and nothing that is not there.
func (c *checker) selector(p fieldPath, s Selector) {
	if len(s.PodsOn) == 0 && len(s.Nodes) == 0 {
		if c.has(p) && !c.noted[p] && !c.holdsNoted[p] {
			c.wrong(p, "it picks nothing", "write podsOn: [NODE, ...], nodes: [NODE, ...] or both")
		}
		return
	}
	for i, name := range s.PodsOn {
		if p := p.key("podsOn").index(i); c.nodeNamed(p, name) && !c.has(at("nodes", name, "podCIDR")) {
			c.wrong(p, fmt.Sprintf("%s carries no pods", show(name)), c.oneOf("", "nodes with pods", c.t.PodNodes))
		}
	}
	for i, name := range s.Nodes {
		c.nodeNamed(p.key("nodes").index(i), name)
	}
	c.noneTwice(p.key("podsOn"), s.PodsOn)
	c.noneTwice(p.key("nodes"), s.Nodes)
}

func (c *checker) noneTwice(p fieldPath, names []string) {
	seen := map[string]bool{}
	for i, name := range names {
		if name != "" && seen[name] {
			c.wrong(p.index(i), show(name)+" stands here already", "name it once")
		}
		seen[name] = true
	}
}

// leaving: an interface of the node at which packets are lost, the uplink included.
func (c *checker) leaving(p fieldPath, node, name string) {
	if name == "" || name == c.uplink.Interface || c.noted[at("nodes", node, "interfaces")] {
		return
	}
	if c.has(at("nodes", node, "interfaces", name)) {
		return
	}
	names := func() []string { return append([]string{c.uplink.Interface}, c.nodes[node].Interfaces.Names()...) }
	c.wrong(p, fmt.Sprintf("%s has no interface %s", show(node), show(name)), c.oneOf(name, "interfaces of "+show(node), names))
}
