package topo

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// MaxASN is the last number that an autonomous system can have.
const MaxASN = asLast32 - 1

// Reserved numbers of autonomous systems (RFC 7607, RFC 7300, RFC 6793).
const (
	asNone    = 0
	asTrans   = 23456
	asLast16  = 65535
	asLast32  = 4294967295
	asExample = "65001"
)

// speaker is a node's part in BGP, and where the file says so.
type speaker struct {
	*BGP
	path fieldPath
}

// speakers: in every stage, those who speak BGP find each other.
func (c *checker) speakers() {
	own := map[string]speaker{}
	for name, n := range c.t.Nodes.All() {
		if n.BGP != nil {
			own[name] = speaker{n.BGP, at("nodes", name, "bgp")}
		}
	}
	asIs := len(c.t.Stages) == 0 // some stage has the file's own speakers alone
	for stage, s := range c.t.Stages.All() {
		all, changed := maps.Clone(own), false
		for name, n := range s.Nodes.All() {
			if n.BGP != nil {
				all[name] = speaker{n.BGP, at("stages", stage, "nodes", name, "bgp")}
				changed = true
			}
		}
		if changed {
			c.speakersOf(all)
		} else {
			asIs = true
		}
	}
	if asIs {
		c.speakersOf(own)
	}
}

// speakersOf checks the speakers of one stage.
func (c *checker) speakersOf(all map[string]speaker) {
	called := map[string]bool{} // by another's neighbors
	for name := range c.t.Nodes.All() {
		b, ok := all[name]
		if !ok {
			continue
		}
		c.asn(b.path.key("asn"), b.ASN)
		seen := map[netip.Addr]bool{}
		for i, neighbor := range b.Neighbors {
			p := b.path.key("neighbors").index(i)
			if seen[neighbor] && neighbor.IsValid() {
				c.wrong(p, fmt.Sprintf("%s stands here already", neighbor), "name each neighbour once")
				continue
			}
			seen[neighbor] = true
			called[c.neighbor(p, name, neighbor, all)] = true
		}
	}
	for name := range c.t.Nodes.All() {
		b, ok := all[name]
		if ok && len(b.Neighbors) == 0 && !called[name] && !c.holdsNoted["nodes"] && !c.holdsNoted["stages"] {
			c.wrongKey(b.path, "no node speaks BGP with "+show(name), "add neighbors: [ADDRESS, ...], or name one of its addresses at another node's neighbors")
		}
	}
}

func (c *checker) asn(p fieldPath, asn uint32) {
	if !c.has(p) || c.noted[p] {
		return
	}
	switch asn {
	case asNone, asTrans, asLast16, asLast32:
		c.wrong(p, fmt.Sprintf("AS %d is reserved", asn), "use a private one, such as "+asExample)
	}
}

// neighbor: the address of another node that speaks BGP, near enough, which
// takes the call. It returns that node's name.
func (c *checker) neighbor(p fieldPath, node string, address netip.Addr, all map[string]speaker) string {
	owner, owned := c.owners[address]
	other, speaks := all[owner.node]
	switch {
	case !address.IsValid(), c.full, c.noted[p], !owned && c.unsure:
	case !owned:
		c.wrong(p, fmt.Sprintf("no node has %s on a network", address), c.reachable(node))
	case owner.node == node:
		c.wrong(p, fmt.Sprintf("%s is the node's own address (%s)", address, show(owner.iface)), "name another node's")
	case !speaks:
		c.wrong(p, fmt.Sprintf("%s belongs to %s, which speaks no BGP", address, show(owner.node)), fmt.Sprintf("add bgp: {asn: %s} to %s", asExample, show(owner.node)))
	case other.ASN != all[node].ASN && c.wired[node][owner.network] == "":
		// A session between two systems has a TTL of one (RFC 4271, RFC 5082).
		c.wrong(p, fmt.Sprintf("%s of %s is not on a network of %s, and they are of different systems", address, show(owner.node), show(node)), c.reachable(node))
	case len(other.Neighbors) > 0 && !c.names(other, node):
		c.wrong(p, fmt.Sprintf("%s does not name %s among its own neighbors, and so refuses it", show(owner.node), show(node)), fmt.Sprintf("add an address of %s there, or leave its neighbors out", show(node)))
	}
	return owner.node
}

// names says whether a speaker names an address of the node.
func (c *checker) names(b speaker, node string) bool {
	return slices.ContainsFunc(b.Neighbors, func(a netip.Addr) bool { return c.owners[a].node == node })
}
