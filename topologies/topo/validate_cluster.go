package topo

import (
	"fmt"
)

// maxPodBits is the longest pod CIDR: a /30 has room for the gateway and a pod.
const maxPodBits = 30

// maxServiceBits is the longest service CIDR: the tenth address is the name server's.
const maxServiceBits = 27

// MaxMapSize bounds the entries of an eBPF map, so that a typing error does not
// take the machine's memory.
const MaxMapSize = 1 << 24

func (c *checker) someNode() {
	if len(c.t.Nodes) == 0 && c.has("nodes") && !c.noted["nodes"] {
		c.wrong("nodes", "the lab has no node", "add one, like router: {role: router, interfaces: {}}")
	}
}

func (r Role) carriesPods() bool { return r == RoleControlPlane || r == RoleWorker }

// roles: exactly the nodes of the cluster carry pods.
func (c *checker) roles() {
	for name, n := range c.t.Nodes.All() {
		p := at("nodes", name, "podCIDR")
		switch {
		case n.Role == "":
		case !n.Role.carriesPods() && c.has(p):
			c.wrong(p, fmt.Sprintf("a %s carries no pods", n.Role), "take podCIDR out, or make it a worker")
		case n.Role.carriesPods() && c.absent(p) && c.t.Cluster.PodCIDR.IsValid():
			c.wrongKey(at("nodes", name), fmt.Sprintf("a %s needs a podCIDR", n.Role), fmt.Sprintf("add one within the cluster's %s", c.t.Cluster.PodCIDR))
		}
	}
}

// podCIDRs: each is a part of the cluster's.
func (c *checker) podCIDRs() {
	cluster := c.t.Cluster.PodCIDR
	for name, n := range c.t.Nodes.All() {
		p := at("nodes", name, "podCIDR")
		c.isRange(p, n.PodCIDR, maxPodBits)
		switch {
		case !n.PodCIDR.IsValid(), c.noted[p]:
		case !c.has(at("cluster", "podCIDR")):
			if !c.noted["cluster"] && c.absent("cluster.podCIDR") && !c.misspelt["cluster"] {
				c.wrong(p, "the cluster has no pod CIDR to take it from", "add cluster.podCIDR")
			}
		case cluster.IsValid() && !c.inCluster(n.PodCIDR):
			c.wrong(p, fmt.Sprintf("%s is outside the cluster's pod CIDR %s", n.PodCIDR, cluster), "choose a part of that")
		}
	}
}

// podNodesWired: pods reach others through a network of their node.
func (c *checker) podNodesWired() {
	for name, n := range c.t.Nodes.All() {
		p := at("nodes", name)
		if n.PodCIDR.IsValid() && len(c.wired[name]) == 0 && c.has(p.key("interfaces")) && !c.holdsNoted[p.key("interfaces")] {
			c.wrongKey(p, "a node with pods is on no network", "add an interface with a network")
		}
	}
}

// clusterRanges: the cluster's ranges are ranges.
func (c *checker) clusterRanges() {
	p := at("cluster")
	c.isRange(p.key("podCIDR"), c.t.Cluster.PodCIDR, maxPodBits)
	c.isRange(p.key("serviceCIDR"), c.t.Cluster.ServiceCIDR, maxServiceBits)
	c.isRange(p.key("nativeRoutingCIDR"), c.t.Cluster.NativeRoutingCIDR, 32)
}

// nativeRouting: between pods, no source address is masqueraded; that is what
// nativeRoutingCIDR says, and so all pods have to be in it.
func (c *checker) nativeRouting() {
	cluster, p := c.t.Cluster, at("cluster", "nativeRoutingCIDR")
	if !cluster.PodCIDR.IsValid() || !c.everIn(RoutingNative) {
		return
	}
	switch {
	case !c.has(p):
		if c.absent(p) {
			c.wrongKey("cluster", "native routing needs nativeRoutingCIDR, within which addresses are not masqueraded", fmt.Sprintf("add nativeRoutingCIDR: %s", cluster.PodCIDR.Masked()))
		}
	case cluster.NativeRoutingCIDR.IsValid() && !covers(cluster.NativeRoutingCIDR, cluster.PodCIDR):
		c.wrong(p, fmt.Sprintf("%s does not cover the pod CIDR %s", cluster.NativeRoutingCIDR, cluster.PodCIDR), fmt.Sprintf("write %s or a wider one", cluster.PodCIDR.Masked()))
	}
}

// skipUnreachable only says how direct routes are made; Cilium refuses it without them too.
func (c *checker) skipUnreachable() {
	if c.t.Cluster.DirectRoutingSkipUnreachable && !c.t.Cluster.AutoDirectNodeRoutes && !c.noted["cluster.autoDirectNodeRoutes"] && !c.misspelt["cluster.autoDirectNodeRoutes"] {
		c.wrong(at("cluster", "directRoutingSkipUnreachable"), "it means nothing without autoDirectNodeRoutes", "add autoDirectNodeRoutes: true, or take it out")
	}
}

// mapSizes: each is one that a kernel can carry.
func (c *checker) mapSizes() {
	p, m := at("cluster", "mapSizes"), c.t.Cluster.MapSizes
	for _, size := range []struct {
		key   string
		value int
	}{
		{"services", m.Services}, {"backends", m.Backends}, {"flows", m.Flows},
		{"nat", m.NAT}, {"ipcache", m.IPCache}, {"affinity", m.Affinity},
	} {
		c.within(p.key(size.key), size.value, 1, MaxMapSize)
	}
}
