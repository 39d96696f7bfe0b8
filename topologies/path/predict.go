package path

import (
	"net/netip"

	"github.com/native-routing/labctl/topologies/topo"
)

// The pod gateway's pair of devices, the tunnel's device, and the protocol name
// of the routes that the agent makes, on every node that carries pods.
const (
	GatewayDevice = "labctl_host"
	GatewayPeer   = "labctl_net"
	TunnelDevice  = "labctl_vxlan"
	AgentProtocol = "labctl"
)

// Predict returns the tables that the nodes of a healthy lab hold: what the
// file asks for, what the kernel adds by itself, and what the agents make of it.
func Predict(t *topo.Topology, uplinks topo.Uplinks) Lab {
	lab := Lab{Wires: map[Port]string{}}
	for name, node := range t.Nodes.All() {
		n := Node{Name: name, Forwarding: true}
		n.addUplink(uplinks.Of(name))
		for ifname, iface := range node.Interfaces.All() {
			n.connect(Link{Name: ifname, Kind: kind(iface), MTU: iface.MTU, Addresses: []netip.Prefix{iface.Address}})
			if iface.Network != "" {
				lab.Wires[Port{name, ifname}] = iface.Network
			}
		}
		for _, r := range node.Routes {
			n.addStatic(r)
		}
		lab.Nodes = append(lab.Nodes, n)
	}
	for i := range lab.Nodes {
		lab.Nodes[i].addPods(t)
	}
	lab.addLearned(t)
	return lab
}

func kind(i topo.Interface) string {
	if i.Type == topo.Dummy {
		return "dummy"
	}
	return "veth"
}

// connect adds an interface that is up, and the route that the kernel makes for its address.
func (n *Node) connect(l Link) {
	l.Up, l.Carrier, l.Forwarding = true, true, true
	n.Links = append(n.Links, l)
	for _, a := range l.Addresses {
		if a.IsSingleIP() {
			continue
		}
		n.Routes = append(n.Routes, Route{
			To: a.Masked(), Type: Unicast, Protocol: "kernel", Scope: "link", Source: a.Addr(),
			NextHops: []NextHop{{Device: l.Name}},
		})
	}
}

// addUplink adds eth0 as a DHCP client leaves it.
func (n *Node) addUplink(u topo.Uplink) {
	n.connect(Link{Name: u.Interface, Kind: "veth", MTU: 1500, Addresses: []netip.Prefix{u.Address}})
	dhcp := Route{Type: Unicast, Protocol: "dhcp", Source: u.Address.Addr(), Metric: u.Metric}
	def := dhcp
	def.To, def.Scope = netip.PrefixFrom(netip.IPv4Unspecified(), 0), "global"
	def.NextHops = []NextHop{{Via: u.Gateway, Device: u.Interface}}
	n.Routes = append(n.Routes, def)
	hosts := []netip.Addr{u.Gateway}
	if u.DNS.IsValid() && u.DNS != u.Gateway {
		hosts = append(hosts, u.DNS)
	}
	for _, a := range hosts {
		host := dhcp
		host.To, host.Scope = netip.PrefixFrom(a, a.BitLen()), "link"
		host.NextHops = []NextHop{{Device: u.Interface}}
		n.Routes = append(n.Routes, host)
	}
}

// addStatic adds a route of the file; each next hop lies on one of the node's networks.
func (n *Node) addStatic(r topo.Route) {
	route := Route{To: r.To, Type: Unicast, Protocol: "static", Scope: "global"}
	for _, via := range r.Via {
		route.NextHops = append(route.NextHops, NextHop{Via: via, Device: n.deviceTo(via)})
	}
	n.Routes = append(n.Routes, route)
}

// deviceTo is the interface whose network holds the address.
func (n *Node) deviceTo(a netip.Addr) string {
	for _, l := range n.Links {
		for _, p := range l.Addresses {
			if p.Contains(a) {
				return l.Name
			}
		}
	}
	return ""
}

// addPods adds what the node's agent makes: the pod gateway, the local pod CIDR,
// and a way to each peer's: through a tunnel, or a direct route where the peer is
// on the same link.
func (n *Node) addPods(t *topo.Topology) {
	self, _ := t.Nodes.Get(n.Name)
	gateway, ok := self.PodGateway()
	if !ok {
		return
	}
	_, primary, ok := self.Primary()
	if !ok {
		return
	}
	n.connect(Link{Name: GatewayDevice, Kind: "veth", MTU: primary.MTU, Addresses: []netip.Prefix{netip.PrefixFrom(gateway, gateway.BitLen())}})
	n.Routes = append(n.Routes,
		Route{To: netip.PrefixFrom(gateway, gateway.BitLen()), Type: Unicast, Protocol: AgentProtocol, Scope: "link",
			NextHops: []NextHop{{Device: GatewayDevice}}},
		Route{To: self.PodCIDR, Type: Unicast, Protocol: AgentProtocol, Scope: "global", Source: gateway,
			NextHops: []NextHop{{Via: gateway, Device: GatewayDevice}}})
	if t.Cluster.RoutingMode == topo.RoutingVXLAN {
		n.addTunnel(t, gateway, primary)
		return
	}
	if !t.Cluster.AutoDirectNodeRoutes {
		return
	}
	for peer, node := range t.Nodes.All() {
		_, iface, ok := node.Primary()
		if peer == n.Name || !ok || !node.PodCIDR.IsValid() {
			continue
		}
		n.addDirect(iface.Address.Addr(), node.PodCIDR)
	}
}

// addTunnel adds the tunnel's device and a route by it to each peer's pods.
func (n *Node) addTunnel(t *topo.Topology, gateway netip.Addr, primary topo.Interface) {
	tunnel := &Tunnel{VNI: topo.TunnelVNI, Port: topo.TunnelPort, Local: primary.Address.Addr()}
	mtu := primary.MTU - topo.TunnelOverhead
	n.connect(Link{Name: TunnelDevice, Kind: "vxlan", MTU: mtu, Tunnel: tunnel})
	for peer, node := range t.Nodes.All() {
		_, iface, wired := node.Primary()
		via, carries := node.PodGateway()
		if peer == n.Name || !wired || !carries {
			continue
		}
		tunnel.Remotes = append(tunnel.Remotes, Remote{Via: via, Node: iface.Address.Addr()})
		n.Routes = append(n.Routes, Route{To: node.PodCIDR, Type: Unicast, Protocol: AgentProtocol, Scope: "global", Source: gateway, MTU: mtu,
			NextHops: []NextHop{{Via: via, Device: TunnelDevice}}})
	}
}

// addDirect adds a direct node route, unless the way to the peer has a gateway.
func (n *Node) addDirect(peer netip.Addr, pods netip.Prefix) {
	d := n.Lookup(peer)
	if len(d.NextHops) != 1 || d.NextHops[0].Via.IsValid() {
		return
	}
	n.Routes = append(n.Routes, Route{To: pods, Type: Unicast, Protocol: AgentProtocol, Scope: "global",
		NextHops: []NextHop{{Via: peer, Device: d.NextHops[0].Device}}})
}
