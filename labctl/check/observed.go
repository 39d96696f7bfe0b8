package check

import (
	"net/netip"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
)

// tablesOf puts a kernel's tables into the form in which paths are worked out.
// Loopback and the far end of the pod gateway's pair carry no traffic of the
// lab's own and are left out.
func tablesOf(name string, t api.Tables) path.Node {
	n := path.Node{Name: name, Forwarding: t.Forwarding}
	for _, l := range t.Links {
		if l.Name == "lo" || l.Name == path.GatewayPeer {
			continue
		}
		n.Links = append(n.Links, path.Link{
			Name: l.Name, Kind: l.Kind, MTU: l.MTU, Up: l.Up, Carrier: l.Carrier, Addresses: l.Addresses,
			Forwarding: l.Forwarding, RPFilter: l.RPFilter, Tunnel: tunnelOf(l, t),
		})
	}
	for _, r := range t.Routes {
		route := path.Route{
			To: r.To, Type: r.Type, Protocol: r.ProtocolName, Scope: r.Scope,
			Source: r.Source, Metric: r.Metric, MTU: r.MTU,
		}
		for _, h := range r.NextHops {
			route.NextHops = append(route.NextHops, path.NextHop{Via: h.Via, Device: h.Device})
		}
		n.Routes = append(n.Routes, route)
	}
	return n
}

// tunnelOf is how a tunnel's device carries packets: a neighbour entry gives a
// next hop a MAC address, and a forwarding entry gives that a node.
func tunnelOf(l api.Link, t api.Tables) *path.Tunnel {
	if l.VXLAN == nil {
		return nil
	}
	tunnel := &path.Tunnel{VNI: l.VXLAN.VNI, Port: l.VXLAN.Port, Local: l.VXLAN.Local}
	for _, n := range t.Neighbours {
		for _, f := range t.Forwards {
			if n.Device == l.Name && f.Device == l.Name && n.MAC == f.MAC && n.MAC != "" {
				tunnel.Remotes = append(tunnel.Remotes, path.Remote{Via: n.Address, Node: f.Remote})
			}
		}
	}
	return tunnel
}

// observedLab is the lab as its kernels hold it. A node of which nothing could
// be told is taken as healthy, so that paths through it can still be worked out.
func observedLab(healthy path.Lab, tables map[string]api.Tables) path.Lab {
	lab := path.Lab{Wires: healthy.Wires}
	for _, n := range healthy.Nodes {
		if t, ok := tables[n.Name]; ok {
			n = tablesOf(n.Name, t)
		}
		lab.Nodes = append(lab.Nodes, n)
	}
	return lab
}

// prefixOf is the pod CIDR or the network that the address belongs to, or the address itself.
func (v *verification) prefixOf(a netip.Addr) netip.Prefix {
	for _, n := range v.topology.Nodes.All() {
		if n.PodCIDR.IsValid() && n.PodCIDR.Contains(a) {
			return n.PodCIDR
		}
	}
	for _, n := range v.topology.Networks.All() {
		if n.CIDR.Contains(a) {
			return n.CIDR
		}
	}
	return netip.PrefixFrom(a, a.BitLen())
}
