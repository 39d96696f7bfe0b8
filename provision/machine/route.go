package machine

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/topologies/topo"
)

// route is one of the main table, in the words of ip-route(8).
type route struct {
	To       netip.Prefix
	Type     string // unicast where nothing else is said
	Hops     []hop
	Protocol string
	Scope    string // global where nothing else is said
	Source   netip.Addr
	Metric   int
}

type hop struct {
	Via    netip.Addr // not valid where the destination is on the link
	Device string
	Weight int
}

// foundRoute is a route as ip -j -d route shows it.
type foundRoute struct {
	Type     string     `json:"type"`
	To       string     `json:"dst"`
	Gateway  netip.Addr `json:"gateway"`
	Device   string     `json:"dev"`
	Protocol string     `json:"protocol"`
	Scope    string     `json:"scope"`
	Source   netip.Addr `json:"prefsrc"`
	Metric   int        `json:"metric"`
	Nexthops []struct {
		Gateway netip.Addr `json:"gateway"`
		Device  string     `json:"dev"`
		Weight  int        `json:"weight"`
	} `json:"nexthops"`
}

func (f foundRoute) route() (route, error) {
	to, err := prefixOf(f.To)
	if err != nil {
		return route{}, err
	}
	r := route{To: to, Type: f.Type, Protocol: f.Protocol, Scope: f.Scope, Source: f.Source, Metric: f.Metric}
	if f.Device != "" || f.Gateway.IsValid() {
		r.Hops = []hop{{Via: f.Gateway, Device: f.Device}}
	}
	for _, h := range f.Nexthops {
		r.Hops = append(r.Hops, hop{h.Gateway, h.Device, h.Weight})
	}
	return r, nil
}

// prefixOf reads ip's form: "default", an address, or a prefix.
func prefixOf(text string) (netip.Prefix, error) {
	if text == "default" {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), nil
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

// key is the same for routes that are the same to the kernel and to us.
func (r route) key() string {
	return fmt.Sprintf("%s %s %s %s %s %s %d", r.To, cmp.Or(r.Type, "unicast"), r.hops(), r.Protocol, cmp.Or(r.Scope, "global"), r.Source, r.Metric)
}

// hops is in ip-route(8)'s form.
func (r route) hops() string {
	texts := make([]string, len(r.Hops))
	for i, h := range r.Hops {
		if h.Via.IsValid() {
			texts[i] = "via " + h.Via.String() + " "
		}
		texts[i] += "dev " + h.Device
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}

// describe is short: devices only where there is no next hop's address.
func (r route) describe() string {
	if len(r.Hops) == 0 {
		return r.Type
	}
	texts := make([]string, len(r.Hops))
	for i, h := range r.Hops {
		texts[i] = "dev " + h.Device
		if h.Via.IsValid() {
			texts[i] = "via " + h.Via.String()
		}
	}
	return strings.Join(texts, " ")
}

func (r route) prefix() string {
	switch {
	case r.To.Bits() == 0:
		return "default"
	case r.To.IsSingleIP():
		return r.To.Addr().String()
	}
	return r.To.String()
}

func (r route) object() string { return "route " + r.prefix() }

// line is the route as a line of ip -batch, after "route replace".
func (r route) line() string {
	text := r.prefix()
	if r.Type != "" && r.Type != "unicast" {
		text = r.Type + " " + text
	}
	text += " proto " + r.Protocol
	if r.Scope != "" && r.Scope != "global" {
		text += " scope " + r.Scope
	}
	if r.Source.IsValid() {
		text += " src " + r.Source.String()
	}
	if r.Metric != 0 {
		text += fmt.Sprintf(" metric %d", r.Metric)
	}
	// Next hops come last: ip takes nothing else after them.
	for _, h := range r.Hops {
		if len(r.Hops) > 1 {
			text += " nexthop"
		}
		if h.Via.IsValid() {
			text += " via " + h.Via.String()
		}
		text += " dev " + h.Device
		if h.Weight > 1 {
			text += fmt.Sprintf(" weight %d", h.Weight)
		}
	}
	return text
}

// statics are the node's routes of the file.
func statics(n topo.Node) ([]route, error) {
	var all []route
	for _, r := range n.Routes {
		planned := route{To: r.To.Masked(), Protocol: "static"}
		for _, via := range r.Via {
			device, ok := deviceTo(n, via)
			if !ok {
				return nil, fmt.Errorf("route %s: no interface reaches %s", r.To, via)
			}
			planned.Hops = append(planned.Hops, hop{Via: via, Device: device})
		}
		all = append(all, planned)
	}
	return all, nil
}

func deviceTo(n topo.Node, a netip.Addr) (string, bool) {
	for name, iface := range n.Interfaces.All() {
		if iface.Address.Contains(a) {
			return name, true
		}
	}
	return "", false
}

// connected is the route that the kernel makes for an interface's address.
func connected(name string, iface topo.Interface) route {
	return route{To: iface.Address.Masked(), Protocol: "kernel", Scope: "link", Source: iface.Address.Addr(), Hops: []hop{{Device: name}}}
}

// prefixes are all that the lab calls its own, without those that lie in another.
func prefixes(t *topo.Topology) []netip.Prefix {
	all := []netip.Prefix{t.Cluster.PodCIDR, t.Cluster.ServiceCIDR}
	for _, network := range t.Networks.All() {
		all = append(all, network.CIDR)
	}
	for _, node := range t.Nodes.All() {
		all = append(all, node.PodCIDR)
		for _, iface := range node.Interfaces.All() {
			all = append(all, iface.Address)
		}
		for _, r := range node.Routes {
			all = append(all, r.To)
		}
	}
	for _, stage := range t.Stages.All() {
		for _, node := range stage.Nodes.All() {
			for _, r := range node.Routes {
				all = append(all, r.To)
			}
		}
	}
	return widest(all)
}

func widest(all []netip.Prefix) []netip.Prefix {
	var masked, kept []netip.Prefix
	for _, p := range all {
		if p.IsValid() && p.Bits() > 0 {
			masked = append(masked, p.Masked())
		}
	}
	slices.SortFunc(masked, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	for _, p := range masked {
		if len(kept) == 0 || !kept[len(kept)-1].Overlaps(p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// within says whether one of the prefixes contains all of p.
func within(all []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(all, func(own netip.Prefix) bool { return own.Bits() <= p.Bits() && own.Contains(p.Addr()) })
}
