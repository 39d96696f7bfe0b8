package topo

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// The bounds of an MTU in bytes: what every IPv4 host must take (RFC 791), and
// the longest that a packet can be.
const (
	MinMTU = 576
	MaxMTU = 65535
)

// networkRanges: a network is one, and has room for hosts.
func (c *checker) networkRanges() {
	for name, n := range c.t.Networks.All() {
		c.isRange(at("networks", name, "cidr"), n.CIDR, 31)
	}
}

// isRange: a prefix of unicast addresses without host bits, no longer than longest.
func (c *checker) isRange(p fieldPath, prefix netip.Prefix, longest int) {
	switch {
	case !prefix.IsValid():
	case prefix != prefix.Masked():
		c.wrong(p, prefix.String()+" has host bits set", "write "+prefix.Masked().String())
	case prefix.Bits() > longest:
		c.wrong(p, fmt.Sprintf("%s is too small", prefix), fmt.Sprintf("take a /%d or shorter", longest))
	default:
		c.isUnicast(p, prefix)
	}
}

// isUnicast: no address of the prefix has a meaning of its own (RFC 6890, RFC 5771).
func (c *checker) isUnicast(p fieldPath, prefix netip.Prefix) {
	for _, special := range []struct {
		prefix netip.Prefix
		use    string
	}{
		{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
		{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
		{netip.MustParsePrefix("224.0.0.0/3"), "multicast and reserved"},
	} {
		if special.prefix.Overlaps(prefix) {
			c.wrong(p, fmt.Sprintf("%s overlaps %s (%s)", prefix, special.prefix, special.use), "use private addresses, such as those of 192.168.0.0/16")
			return
		}
	}
}

func (c *checker) networkMTUs() {
	for name, n := range c.t.Networks.All() {
		c.within(at("networks", name, "mtu"), n.MTU, MinMTU, MaxMTU)
	}
}

// claim is a range of addresses that something of the lab takes for itself.
type claim struct {
	prefix netip.Prefix
	path   fieldPath // empty for the uplink
	what   string
}

// overlaps: no two of the lab's ranges share an address.
func (c *checker) overlaps() {
	claims := []claim{{c.uplink.Address.Masked(), "", "the uplink " + c.uplink.Interface}}
	add := func(prefix netip.Prefix, p fieldPath, what string) {
		if prefix.IsValid() {
			claims = append(claims, claim{prefix.Masked(), p, what})
		}
	}
	for name, n := range c.t.Networks.All() {
		add(n.CIDR, at("networks", name, "cidr"), "network "+show(name))
	}
	for name, n := range c.t.Nodes.All() {
		for ifname, iface := range n.Interfaces.All() {
			if p := at("nodes", name, "interfaces", ifname, "address"); iface.Type == Dummy && !c.noted[p] {
				add(iface.Address, p, show(ifname)+" of "+show(name))
			}
		}
		if !c.inCluster(n.PodCIDR) {
			add(n.PodCIDR, at("nodes", name, "podCIDR"), "the pods of "+show(name))
		}
	}
	add(c.t.Cluster.PodCIDR, at("cluster", "podCIDR"), "the cluster's pod CIDR")
	add(c.t.Cluster.ServiceCIDR, at("cluster", "serviceCIDR"), "the service CIDR")
	c.disjoint(claims)
}

// inCluster says whether a node's pod CIDR is a part of the cluster's.
func (c *checker) inCluster(pods netip.Prefix) bool { return covers(c.t.Cluster.PodCIDR, pods) }

// covers says whether all of inner lies in outer.
func covers(outer, inner netip.Prefix) bool {
	return outer.IsValid() && inner.IsValid() && outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// podOverlaps: no two nodes share a pod address.
func (c *checker) podOverlaps() {
	var claims []claim
	for name, n := range c.t.Nodes.All() {
		if c.inCluster(n.PodCIDR) {
			claims = append(claims, claim{n.PodCIDR.Masked(), at("nodes", name, "podCIDR"), "the pods of " + show(name)})
		}
	}
	c.disjoint(claims)
}

// disjoint notes each claim that overlaps another, at the one that stands later
// in the file. Prefixes either nest or are apart: sorted, each can only lie in
// one of those that are still open before it.
func (c *checker) disjoint(claims []claim) {
	slices.SortStableFunc(claims, func(a, b claim) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), a.prefix.Bits()-b.prefix.Bits())
	})
	var open []claim
	said := map[fieldPath]bool{}
	for _, later := range claims {
		for len(open) > 0 && !open[len(open)-1].prefix.Contains(later.prefix.Addr()) {
			open = open[:len(open)-1]
		}
		if len(open) > 0 {
			c.overlap(open[len(open)-1], later, said)
		}
		open = append(open, later)
	}
}

// overlap notes that two claims overlap, once for each of them.
func (c *checker) overlap(a, b claim, said map[fieldPath]bool) {
	if b.path == "" || a.path != "" && c.after(a.path, b.path) {
		a, b = b, a
	}
	if said[b.path] {
		return
	}
	said[b.path] = true
	c.wrong(b.path, fmt.Sprintf("%s overlaps %s of %s", b.prefix, a.prefix, a.what), "choose a range of its own")
}

// after says whether a stands behind b in the file.
func (c *checker) after(a, b fieldPath) bool {
	x, y := c.marks[a].value, c.marks[b].value
	return x.line > y.line || x.line == y.line && x.column > y.column
}
