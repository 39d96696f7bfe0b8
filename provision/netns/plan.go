package netns

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/topologies/topo"
)

const defaultMTU = 1500

// kind is the type of a link in rtnetlink's words (IFLA_INFO_KIND).
type kind string

const (
	kindVeth   kind = "veth"
	kindDummy  kind = "dummy"
	kindBridge kind = "bridge"
	// kindIFB stands in for dummy where the kernel has no such driver.
	kindIFB kind = "ifb"
	// kindVXLAN is the agent's to make; whether the kernel can is asked before.
	kindVXLAN kind = "vxlan"
)

// Route protocols (linux/rtnetlink.h) of the routes that are the file's.
const (
	protoKernel = 2
	protoBoot   = 3
	protoStatic = 4
	protoDHCP   = 16
)

// Scopes of a route.
const (
	scopeGlobal = 0
	scopeLink   = 253
)

const typeUnicast = 1

// plan is all that the lab's namespaces hold when they are as the file says.
type plan struct {
	Lab     string
	Bridges []bridgePlan
	Nodes   []nodePlan
}

type bridgePlan struct {
	Name, Alias, Network string
}

type nodePlan struct {
	Name       string
	Links      []linkPlan
	Neighbours []neighbour
	Routes     []route
	// Connected are the routes that the kernel makes for the addresses.
	Connected []route
}

// linkPlan is one interface of a node; for a veth also its port in the fabric.
type linkPlan struct {
	Name    string
	Kind    kind
	MTU     int
	MAC     net.HardwareAddr
	Alias   string
	Address netip.Prefix
	// Metric of the connected route.
	Metric int
	// Network is the network's name in the file; empty for a dummy and the uplink.
	Network string
	Port    string
	// PortMTU is the network's: a frame that is larger gets lost there, as in a switch.
	PortMTU int
	// Bridge is empty for the uplink's port, which leads nowhere.
	Bridge string
}

// neighbour is a permanent entry.
type neighbour struct {
	Device string
	IP     netip.Addr
	MAC    string
}

type nextHop struct {
	Via    netip.Addr
	Device string
	Weight int
}

// route is one of the main table.
type route struct {
	To       netip.Prefix
	Type     int
	Hops     []nextHop
	Protocol int
	Scope    int
	Source   netip.Addr
	Metric   int
	// Extra is any other attribute, which no route of a file has.
	Extra string
}

// key is the same for routes that are the same to the kernel and to us.
func (r route) key() string {
	text := fmt.Sprintf("%s %s %s proto %d scope %d", r.To, typeName(r.Type), r.hops(), r.Protocol, r.Scope)
	if r.Source.IsValid() {
		text += " src " + r.Source.String()
	}
	if r.Metric != 0 {
		text += fmt.Sprintf(" metric %d", r.Metric)
	}
	if r.Extra != "" {
		text += " " + r.Extra
	}
	return text
}

// hops is in ip-route(8)'s form.
func (r route) hops() string {
	texts := make([]string, len(r.Hops))
	for i, h := range r.Hops {
		if h.Via.IsValid() {
			texts[i] = "via " + h.Via.String() + " "
		}
		texts[i] += "dev " + h.Device
		if len(r.Hops) > 1 && h.Weight > 1 {
			texts[i] += fmt.Sprintf(" weight %d", h.Weight)
		}
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}

// typeName is as ip-route(8) has it (RTN_… in linux/rtnetlink.h).
func typeName(number int) string {
	names := []string{"unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit", "throw", "nat"}
	if number < len(names) {
		return names[number]
	}
	return fmt.Sprintf("type %d", number)
}

// describe is short: devices only where there is no next hop's address.
func (r route) describe() string {
	if r.Type != typeUnicast {
		return typeName(r.Type)
	}
	texts := make([]string, len(r.Hops))
	for i, h := range r.Hops {
		texts[i] = "dev " + h.Device
		if h.Via.IsValid() {
			texts[i] = "via " + h.Via.String()
		}
	}
	text := strings.Join(texts, " ")
	if r.Metric != 0 {
		text += fmt.Sprintf(" metric %d", r.Metric)
	}
	if r.Extra != "" {
		text += " " + r.Extra
	}
	return text
}

// object is the route as a change names it.
func (r route) object() string { return "route " + r.prefix() }

func (r route) prefix() string {
	if r.To.Bits() == 0 {
		return "default"
	}
	if r.To.IsSingleIP() {
		return r.To.Addr().String()
	}
	return r.To.String()
}

// The Ethernet addresses of VirtualBox's NAT gateway and DNS proxy.
const (
	uplinkGatewayMAC = "52:54:00:12:35:02"
	uplinkDNSMAC     = "52:54:00:12:35:03"
)

// newPlan works out what t asks for. It fails where a route's next hop is on
// none of the node's networks, which topo's loader refuses too.
func newPlan(t *topo.Topology) (plan, error) {
	p := plan{Lab: t.Metadata.Name}
	for name := range t.Networks.All() {
		p.Bridges = append(p.Bridges, bridgePlan{Name: bridgeName(name), Alias: bridgeAlias(p.Lab, name), Network: name})
	}
	for name, node := range t.Nodes.All() {
		n := nodePlan{Name: name}
		n.addUplink(p.Lab, topo.NATUplink())
		for ifname, iface := range node.Interfaces.All() {
			link, err := planLink(t, name, ifname, iface)
			if err != nil {
				return plan{}, err
			}
			n.addLink(link)
		}
		for _, r := range node.Routes {
			if err := n.addStatic(r); err != nil {
				return plan{}, err
			}
		}
		p.Nodes = append(p.Nodes, n)
	}
	return p, nil
}

func planLink(t *topo.Topology, node, name string, iface topo.Interface) (linkPlan, error) {
	link := linkPlan{
		Name: name, Kind: kindDummy, MTU: cmp.Or(iface.MTU, defaultMTU), Address: iface.Address,
		MAC: linkAddress(t.Metadata.Name, node, name), Alias: linkAlias(t.Metadata.Name, node, name),
	}
	if iface.Type == topo.Dummy {
		return link, nil
	}
	network, ok := t.Networks.Get(iface.Network)
	if !ok {
		return linkPlan{}, fmt.Errorf("interface %s of %s: no network %q", name, node, iface.Network)
	}
	link.Kind = kindVeth
	link.MTU = cmp.Or(iface.MTU, network.MTU, defaultMTU)
	link.PortMTU = cmp.Or(network.MTU, defaultMTU)
	link.Network = iface.Network
	link.Bridge = bridgeName(iface.Network)
	link.Port = portName(node, name)
	return link, nil
}

// addUplink adds eth0 as a DHCP client leaves it, and permanent neighbours, so
// that what is sent there leaves and is never heard of again.
func (n *nodePlan) addUplink(lab string, u topo.Uplink) {
	n.addLink(linkPlan{
		Name: u.Interface, Kind: kindVeth, MTU: defaultMTU, PortMTU: defaultMTU, Address: u.Address, Metric: u.Metric,
		MAC: linkAddress(lab, n.Name, u.Interface), Alias: linkAlias(lab, n.Name, u.Interface),
		Port: portName(n.Name, u.Interface),
	})
	n.Neighbours = append(n.Neighbours,
		neighbour{Device: u.Interface, IP: u.Gateway, MAC: uplinkGatewayMAC},
		neighbour{Device: u.Interface, IP: u.DNS, MAC: uplinkDNSMAC})
	dhcp := route{Type: typeUnicast, Protocol: protoDHCP, Source: u.Address.Addr(), Metric: u.Metric}
	for _, host := range []netip.Addr{u.Gateway, u.DNS} {
		r := dhcp
		r.To, r.Scope = netip.PrefixFrom(host, host.BitLen()), scopeLink
		r.Hops = []nextHop{{Device: u.Interface}}
		n.Routes = append(n.Routes, r)
	}
	dhcp.To = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	dhcp.Hops = []nextHop{{Via: u.Gateway, Device: u.Interface}}
	n.Routes = append(n.Routes, dhcp)
}

func (n *nodePlan) addLink(l linkPlan) {
	n.Links = append(n.Links, l)
	if l.Address.IsSingleIP() {
		return
	}
	n.Connected = append(n.Connected, route{
		To: l.Address.Masked(), Type: typeUnicast, Protocol: protoKernel, Scope: scopeLink,
		Source: l.Address.Addr(), Metric: l.Metric, Hops: []nextHop{{Device: l.Name}},
	})
}

func (n *nodePlan) addStatic(r topo.Route) error {
	planned := route{To: r.To.Masked(), Type: typeUnicast, Protocol: protoStatic}
	for _, via := range r.Via {
		device, ok := n.deviceTo(via)
		if !ok {
			return fmt.Errorf("route %s of %s: no interface reaches %s", r.To, n.Name, via)
		}
		planned.Hops = append(planned.Hops, nextHop{Via: via, Device: device})
	}
	n.Routes = append(n.Routes, planned)
	return nil
}

func (n *nodePlan) deviceTo(a netip.Addr) (string, bool) {
	for _, l := range n.Links {
		if l.Address.Contains(a) {
			return l.Name, true
		}
	}
	return "", false
}
