package topo

import "net/netip"

// Primary returns the node's first interface on a network, and its name. Its
// address is what Kubernetes calls the node's InternalIP. False where the node
// is on no network.
func (n Node) Primary() (name string, iface Interface, ok bool) {
	for name, iface := range n.Interfaces.All() {
		if iface.Network != "" {
			return name, iface, true
		}
	}
	return "", Interface{}, false
}

// PodGateway returns the first address of the node's pod CIDR, which the node
// itself holds as the gateway of its pods. False where the node carries no pods.
func (n Node) PodGateway() (netip.Addr, bool) {
	if !n.PodCIDR.IsValid() {
		return netip.Addr{}, false
	}
	return n.PodCIDR.Masked().Addr().Next(), true
}

// PodNodes returns the nodes that carry pods, in the file's order.
func (t *Topology) PodNodes() []string {
	var names []string
	for name, n := range t.Nodes.All() {
		if n.PodCIDR.IsValid() {
			names = append(names, name)
		}
	}
	return names
}
