package topo

import (
	"net/netip"
	"strings"
)

// checker holds what the rules look up again and again. A rule passes over
// values that could not be decoded: their mistake is noted already.
type checker struct {
	*source
	t        *Topology
	uplink   Uplink
	nodes    map[string]*Node
	networks map[string]Network
	// owners are the interfaces on networks, by address.
	owners map[netip.Addr]owner
	// wired are the nodes' interfaces by the network on which they stand.
	wired map[string]map[string]string
	// members are the owners on each network.
	members map[string][]owner
	// podOwners are the nodes by their pod CIDR.
	podOwners map[netip.Prefix]string
	// taken are the prefixes that a node routes without any static route.
	taken map[string]map[netip.Prefix]string
	// unsure means that mistakes hide who has which address on which network.
	unsure bool
}

// owner is who has an address.
type owner struct {
	node, iface, network string
	address              netip.Addr
}

// validate notes every mistake of meaning in a decoded file.
func validate(s *source, t *Topology) {
	c := newChecker(s, t)
	for _, rule := range []func(){
		c.header, c.labName, c.nodeNames, c.networkNames, c.stageNames, c.interfaceNames,
		c.constraints,
		c.networkRanges, c.networkMTUs,
		c.interfaceNetworks, c.interfaceAddresses, c.uniqueAddresses, c.interfaceMTUs,
		c.someNode, c.roles, c.podCIDRs, c.podNodesWired,
		c.clusterRanges, c.stageClusters, c.nativeRouting, c.skipUnreachable, c.directWithTunnel, c.mapSizes,
		c.overlaps, c.podOverlaps,
		c.routes, c.stageReferences, c.stageRoutes, c.speakers, c.exceptions,
		c.resources, c.sshPorts, c.workloads, c.vagrant, c.inventory,
	} {
		rule()
	}
}

func newChecker(s *source, t *Topology) *checker {
	c := &checker{
		source: s, t: t, uplink: NATUplink(),
		nodes:     make(map[string]*Node, len(t.Nodes)),
		networks:  make(map[string]Network, len(t.Networks)),
		owners:    map[netip.Addr]owner{},
		wired:     make(map[string]map[string]string, len(t.Nodes)),
		members:   map[string][]owner{},
		podOwners: map[netip.Prefix]string{},
		taken:     map[string]map[netip.Prefix]string{},
		unsure:    s.noted["networks"] || s.noted["nodes"],
	}
	for name, network := range t.Networks.All() {
		c.networks[name] = network
		c.unsure = c.unsure || !network.CIDR.IsValid()
	}
	for i := range t.Nodes {
		name, node := t.Nodes[i].Name, &t.Nodes[i].Value
		c.nodes[name] = node
		c.wired[name] = map[string]string{}
		if node.PodCIDR.IsValid() {
			c.podOwners[node.PodCIDR] = name
		}
		c.unsure = c.unsure || s.noted[at("nodes", name)] || s.noted[at("nodes", name, "interfaces")]
		for ifname, iface := range node.Interfaces.All() {
			if iface.Type != Dummy {
				c.wire(name, ifname, iface)
			}
		}
	}
	return c
}

// wire remembers an interface on a network.
func (c *checker) wire(node, ifname string, iface Interface) {
	if _, ok := c.networks[iface.Network]; !ok || !iface.Address.IsValid() {
		c.unsure = true
	}
	if iface.Network == "" {
		return
	}
	c.wired[node][iface.Network] = ifname
	o := owner{node, ifname, iface.Network, iface.Address.Addr()}
	if _, taken := c.owners[o.address]; o.address.IsValid() && !taken {
		c.owners[o.address] = o
		c.members[o.network] = append(c.members[o.network], o)
	}
}

// header: the file is of the kind and version that this labctl knows.
func (c *checker) header() {
	if v := c.t.APIVersion; v != "" && v != APIVersion {
		c.wrong(at("apiVersion"), show(v)+" is not known to this labctl", "write "+APIVersion)
	}
	if v := c.t.Kind; v != "" && v != Kind {
		c.wrong(at("kind"), show(v)+" is not the kind of a lab's file", "write "+Kind)
	}
}

// constraints: each version constraint can be understood.
func (c *checker) constraints() {
	for _, r := range c.t.Requires.each() {
		if r.constraint == "" {
			continue
		}
		if err := checkConstraint(r.constraint); err != nil {
			c.wrong(at("requires", r.program), show(r.constraint)+" is not a version constraint", `write it like ">= 1.2" or ">= 1.2, < 2"`)
		}
	}
}

// nodeNamed: a reference to a node names one that there is.
func (c *checker) nodeNamed(p fieldPath, name string) bool {
	if name == "" {
		return false
	}
	if _, ok := c.nodes[name]; !ok {
		if c.noted["nodes"] || !c.has("nodes") {
			return false
		}
		c.wrong(p, "there is no node "+show(name), c.oneOf(name, "nodes", c.t.Nodes.Names))
		return false
	}
	return true
}

// oneOf is the cure for a name that does not exist.
func (c *checker) oneOf(name, kind string, all func() []string) string {
	if c.full {
		return ""
	}
	names := all()
	if len(names) == 0 {
		return "there are no " + kind
	}
	if near := nearest(name, names); near != "" {
		return "did you mean " + near + "?"
	}
	return "the " + kind + " are " + list(names)
}

// maxListed bounds how many names a message lists.
const maxListed = 12

// list is names as a message shows them.
func list(names []string) string {
	short := names[:min(len(names), maxListed)]
	shown := make([]string, len(short), len(short)+1)
	for i, name := range short {
		shown[i] = show(name)
	}
	if len(short) < len(names) {
		shown = append(shown, "…")
	}
	return strings.Join(shown, ", ")
}
