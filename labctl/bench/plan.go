//go:build linux

package main

import (
	"net/netip"

	"github.com/native-routing/labctl/topologies/topo"
)

// Interface indexes of the floor are chosen beforehand, so that nothing has to be asked.
const (
	firstBridge = 100
	firstPort   = 1000
	firstLink   = 10
	loopback    = 1
)

// floorPlan is what a topology asks of the kernel, worked out before the clock runs.
type floorPlan struct {
	bridges []string
	nodes   []floorNode
}

type floorNode struct {
	name       string
	links      []floorLink
	neighbours []floorNeighbour
	routes     []floorRoute
}

type floorLink struct {
	name    string
	index   int
	kind    string // veth, or what stands for dummy
	mtu     int
	mac     [6]byte
	address netip.Prefix
	metric  int
	// port is the other end's index in the fabric, bridge that of its bridge; 0 for none.
	port, portMTU, bridge int
	portName              string
}

type floorNeighbour struct {
	index int
	ip    netip.Addr
	mac   [6]byte
}

type floorRoute struct {
	to       netip.Prefix
	via      []netip.Addr
	index    []int
	source   netip.Addr
	protocol int
	scope    int
	metric   int
}

// Route protocols (linux/rtnetlink.h).
const (
	protoStatic = 4
	protoDHCP   = 16
)

const defaultMTU = 1500

// planFloor works out the same links, addresses, neighbours and routes that the
// provider makes. alone is the kind that stands for dummy on this machine.
func planFloor(t *topo.Topology, alone string) floorPlan {
	var p floorPlan
	bridges := map[string]int{}
	for name := range t.Networks.All() {
		bridges[name] = firstBridge + len(p.bridges)
		p.bridges = append(p.bridges, "br-"+name)
	}
	ports := firstPort
	for name, node := range t.Nodes.All() {
		n := floorNode{name: name}
		add := func(l floorLink) {
			l.index = firstLink + len(n.links)
			l.mac = [6]byte{0x02, 0xb0, byte(len(p.nodes) >> 8), byte(len(p.nodes)), 0, byte(l.index)}
			if l.kind == "veth" {
				l.port = ports
				l.portName = name + "." + l.name
				ports++
			}
			n.links = append(n.links, l)
		}
		uplink := topo.NATUplink()
		add(floorLink{name: uplink.Interface, kind: "veth", mtu: defaultMTU, portMTU: defaultMTU, address: uplink.Address, metric: uplink.Metric})
		n.addUplink(uplink)
		for ifname, iface := range node.Interfaces.All() {
			l := floorLink{name: ifname, kind: alone, mtu: iface.MTU, address: iface.Address}
			if iface.Type != topo.Dummy {
				network, _ := t.Networks.Get(iface.Network)
				l.kind, l.portMTU, l.bridge = "veth", network.MTU, bridges[iface.Network]
			}
			add(l)
		}
		for _, r := range node.Routes {
			n.addStatic(r)
		}
		p.nodes = append(p.nodes, n)
	}
	return p
}

func (n *floorNode) addUplink(u topo.Uplink) {
	const index = firstLink
	n.neighbours = []floorNeighbour{
		{index, u.Gateway, [6]byte{0x52, 0x54, 0, 0x12, 0x35, 0x02}},
		{index, u.DNS, [6]byte{0x52, 0x54, 0, 0x12, 0x35, 0x03}},
	}
	dhcp := floorRoute{index: []int{index}, source: u.Address.Addr(), protocol: protoDHCP, metric: u.Metric}
	for _, host := range []netip.Addr{u.Gateway, u.DNS} {
		r := dhcp
		r.to, r.scope = netip.PrefixFrom(host, 32), scopeLink
		n.routes = append(n.routes, r)
	}
	dhcp.to, dhcp.via = netip.PrefixFrom(netip.IPv4Unspecified(), 0), []netip.Addr{u.Gateway}
	n.routes = append(n.routes, dhcp)
}

func (n *floorNode) addStatic(r topo.Route) {
	planned := floorRoute{to: r.To, protocol: protoStatic, via: r.Via}
	for _, via := range r.Via {
		for _, l := range n.links {
			if l.address.Contains(via) {
				planned.index = append(planned.index, l.index)
				break
			}
		}
	}
	n.routes = append(n.routes, planned)
}
