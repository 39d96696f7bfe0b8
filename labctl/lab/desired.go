package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/workload"
	"github.com/native-routing/labctl/topologies/topo"
)

// desired turns a topology into what one node's agent is to hold. It is pure:
// the same topology gives the same generation.
func desired(t *topo.Topology, uplinks topo.Uplinks, cluster api.Cluster, node string) (api.State, error) {
	n, _ := t.Nodes.Get(node)
	state := api.State{
		Lab: t.Metadata.Name, Node: node,
		Pods:     podNetwork(t, node, n),
		Underlay: underlay(n, uplinks.Of(node)),
	}
	state.Sysctls = sysctls(state.Underlay)
	if state.Pods != nil && len(cluster.Nodes) > 0 {
		own := workload.ForNode(cluster, node)
		state.Cluster = &own
	}
	if n.BGP != nil {
		state.BGP = speaker(t, node, n)
	}
	if n.WebServer {
		state.Page = "<h1>Web Server : " + node + "</h1>"
	}
	data, err := json.Marshal(state)
	if err != nil {
		return state, fmt.Errorf("compile the state of %s: %w", node, err)
	}
	sum := sha256.Sum256(data)
	state.Generation = hex.EncodeToString(sum[:6])
	return state, nil
}

// speaker is a node's part in BGP: it advertises its pods.
func speaker(t *topo.Topology, name string, n topo.Node) *api.BGP {
	_, primary, _ := n.Primary()
	b := &api.BGP{ASN: n.BGP.ASN, RouterID: primary.Address.Addr(), Neighbors: []api.BGPNeighbor{}}
	if n.PodCIDR.IsValid() {
		b.Advertise = []netip.Prefix{n.PodCIDR}
	}
	for _, s := range t.BGPSessions(name) {
		b.Neighbors = append(b.Neighbors, api.BGPNeighbor{Name: s.Peer, Address: s.Address, ASN: s.ASN, Local: s.Local, Passive: s.Passive})
	}
	return b
}

// podNetwork is nil on a node that carries no pods.
func podNetwork(t *topo.Topology, name string, n topo.Node) *api.PodNetwork {
	gateway, ok := n.PodGateway()
	_, primary, wired := n.Primary()
	if !ok || !wired {
		return nil
	}
	pods := &api.PodNetwork{CIDR: n.PodCIDR, Gateway: gateway, MTU: primary.MTU}
	if t.Cluster.RoutingMode == topo.RoutingVXLAN {
		pods.Overlay = &api.Overlay{
			VNI: topo.TunnelVNI, Port: topo.TunnelPort,
			Local: primary.Address.Addr(), MTU: primary.MTU - topo.TunnelOverhead,
		}
	} else {
		pods.DirectRoutes = t.Cluster.AutoDirectNodeRoutes
		pods.SkipUnreachable = t.Cluster.DirectRoutingSkipUnreachable
	}
	for peer, other := range t.Nodes.All() {
		_, iface, wired := other.Primary()
		theirs, carries := other.PodGateway()
		if wired && carries && peer != name {
			pods.Peers = append(pods.Peers, api.Peer{Name: peer, Address: iface.Address.Addr(), CIDR: other.PodCIDR, Gateway: theirs})
		}
	}
	return pods
}

// underlay is what the provider gave the node, for the agent to watch.
func underlay(n topo.Node, uplink topo.Uplink) api.Underlay {
	u := api.Underlay{
		Uplink: uplink.Interface,
		Links:  []api.UnderlayLink{{Name: uplink.Interface, MTU: 1500, Addresses: []netip.Prefix{uplink.Address}}},
	}
	if uplink.Gateway.IsValid() {
		u.Routes = append(u.Routes, api.UnderlayRoute{
			To:  netip.PrefixFrom(netip.IPv4Unspecified(), 0),
			Via: []netip.Addr{uplink.Gateway}, Device: uplink.Interface, Metric: uplink.Metric,
		})
	}
	for name, iface := range n.Interfaces.All() {
		u.Links = append(u.Links, api.UnderlayLink{Name: name, MTU: iface.MTU, Addresses: []netip.Prefix{iface.Address}})
	}
	for _, r := range n.Routes {
		u.Routes = append(u.Routes, api.UnderlayRoute{To: r.To, Via: r.Via, Static: true})
	}
	return u
}

// sysctls are what every node needs to pass other nodes' packets on: forwarding,
// no reverse path filter (the lab has asymmetric paths on purpose, and a
// distribution may switch it on), no redirects that would change a route behind
// the tables' back, and no type of ICMP error under a rate limit, so that a
// trace gets an answer from every hop (icmp_ratelimit alone would leave the
// kernel's limit for all targets together).
func sysctls(u api.Underlay) []api.Sysctl {
	list := []api.Sysctl{
		{Name: "net/ipv4/ip_forward", Value: "1"},
		{Name: "net/ipv4/conf/all/rp_filter", Value: "0"},
		{Name: "net/ipv4/conf/default/rp_filter", Value: "0"},
		{Name: "net/ipv4/conf/all/accept_redirects", Value: "0"},
		{Name: "net/ipv4/icmp_ratemask", Value: "0"},
		{Name: "net/ipv4/icmp_echo_ignore_all", Value: "0"},
	}
	for _, l := range u.Links {
		list = append(list,
			api.Sysctl{Name: "net/ipv4/conf/" + l.Name + "/forwarding", Value: "1"},
			api.Sysctl{Name: "net/ipv4/conf/" + l.Name + "/rp_filter", Value: "0"})
	}
	return list
}
