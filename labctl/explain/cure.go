package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
)

// mend is a change of the lab that may be a cure: what to type, and what it
// does to the tables.
type mend struct {
	command string
	apply   func(*World)
	// add is the route that it adds, where it does.
	add *api.Route
}

// command is what is typed to run something in a place.
func command(at Place, format string, args ...any) string {
	return "labctl exec " + at.Name() + " -- " + fmt.Sprintf(format, args...)
}

// mends are what would do away with the end of a leg, the best first.
func mends(w *World, p *Path, to netip.Addr) []mend {
	e := p.End
	at := e.Place
	switch e.Cause {
	case NoRoute, DefaultRoute:
		return addRoute(w, at, to)
	case WrongRoute, Blackhole, Unreachable, Prohibit:
		return removeRoute(w, p, at)
	case SilentNeighbour:
		return findNeighbour(w, p, to)
	case WrongNeighbour:
		return []mend{{command(at, "ip neigh del %s dev %s", e.address, e.Device), func(w *World) {
			w.edit(at, func(s *api.Space) {
				s.Neighbours = slices.DeleteFunc(s.Neighbours, func(n api.Neighbour) bool { return n.Address == e.address && n.Device == e.Device })
			})
		}, nil}}
	case LinkDown:
		if s := w.space(at); s != nil && link(s, e.Device) != nil && link(s, e.Device).Up {
			return nil // it is its other end that is down
		}
		return []mend{{command(at, "ip link set %s up", e.Device), func(w *World) { w.edit(at, func(s *api.Space) { setUp(s, e.Device) }) }, nil}}
	case NoAddress:
		address, _ := netip.ParsePrefix(e.detail)
		return []mend{{command(at, "ip addr add %s dev %s", address, e.Device), func(w *World) {
			w.edit(at, func(s *api.Space) { addAddress(s, e.Device, address) })
		}, nil}}
	case ForwardingOff:
		return turnForwardingOn(w, at, e.Device)
	case ReversePath:
		return []mend{{command(at, "sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.%s.rp_filter=0", e.Device), func(w *World) {
			w.edit(at, func(s *api.Space) {
				for i := range s.Links {
					s.Links[i].RPFilter = 0
				}
			})
		}, nil}}
	case Martian, ForeignAddress:
		return dropAddress(w, at, e.address)
	case TooBig:
		return widen(w, at, e)
	case Firewall:
		return unfilter(at, e)
	case EchoIgnored:
		return []mend{{command(at, "sysctl -w net.ipv4.icmp_echo_ignore_all=0"), func(w *World) {
			w.edit(at, func(s *api.Space) { delete(s.Sysctls, api.SysctlIgnoreEcho) })
		}, nil}}
	case Loop:
		return straighten(w, p, to)
	case StaleFlow:
		return forget(at, e)
	}
	return nil
}

// addRoute gives a place the route that it lacks: the one that the stage has
// for it, or one towards whoever holds the address.
func addRoute(w *World, at Place, to netip.Addr) []mend {
	if at.Pod != "" {
		return nil // labctl up puts a pod's routes back
	}
	if r, ok := plannedRoute(w, at, to); ok {
		return []mend{routeMend(at, r, "add")}
	}
	hop, ok := w.hopTo(at, to)
	if !ok {
		return nil
	}
	return []mend{routeMend(at, api.Route{
		Table: api.TableMain, To: w.prefixOf(to), Type: path.Unicast, NextHops: []api.NextHop{{Via: hop.Via, Device: hop.Device}},
	}, "add")}
}

// plannedRoute is the route that the present stage has for an address, other
// than the default, and which is missing.
func plannedRoute(w *World, at Place, to netip.Addr) (api.Route, bool) {
	n, ok := w.Planned.Node(at.Node)
	if !ok {
		return api.Route{}, false
	}
	d := n.Lookup(to)
	if d.Type != path.Unicast || d.Route.To.Bits() == 0 {
		return api.Route{}, false
	}
	return fromPlan(d.Route), true
}

func fromPlan(r path.Route) api.Route {
	route := api.Route{Table: api.TableMain, To: r.To, Type: r.Type, ProtocolName: r.Protocol, Scope: r.Scope, Source: r.Source, Metric: r.Metric, MTU: r.MTU}
	for _, h := range r.NextHops {
		route.NextHops = append(route.NextHops, api.NextHop{Via: h.Via, Device: h.Device})
	}
	return route
}

// routeMend adds a route, or replaces one.
func routeMend(at Place, r api.Route, verb string) mend {
	typed := r
	if len(r.NextHops) == 1 && r.NextHops[0].Via.IsValid() {
		typed.NextHops = []api.NextHop{{Via: r.NextHops[0].Via}}
	}
	text := strings.TrimSuffix(routeText(typed), " dev ")
	return mend{command(at, "ip route %s %s", verb, text), func(w *World) {
		w.edit(at, func(s *api.Space) {
			if verb == "replace" {
				s.Routes = slices.DeleteFunc(s.Routes, func(o api.Route) bool { return o.Table == r.Table && o.To == r.To && o.Metric == r.Metric })
			}
			s.Routes = append(s.Routes, r)
		})
	}, &r}
}

// removeRoute removes the route that the end names, or the rule.
func removeRoute(w *World, p *Path, at Place) []mend {
	e := p.End
	if e.route == nil {
		for _, h := range p.Hops {
			if h.Place == at && h.Rule != "" {
				priority, _, _ := strings.Cut(h.Rule, ":")
				return []mend{{command(at, "ip rule del pref %s", priority), func(w *World) {
					w.edit(at, func(s *api.Space) {
						s.Rules = slices.DeleteFunc(s.Rules, func(r api.Rule) bool { return ruleText(r) == h.Rule })
					})
				}, nil}}
			}
		}
		return nil
	}
	return []mend{{command(at, "%s", routeDelete(*e.route)), func(w *World) { w.edit(at, func(s *api.Space) { dropRoute(s, *e.route) }) }, nil}}
}

func dropRoute(s *api.Space, r api.Route) {
	text := routeText(r)
	s.Routes = slices.DeleteFunc(s.Routes, func(o api.Route) bool { return o.Table == r.Table && routeText(o) == text })
}

// findNeighbour gives an address back to who should have it, or a route a next
// hop that there is.
func findNeighbour(w *World, p *Path, to netip.Addr) []mend {
	e := p.End
	if port, ok := w.Planned.Holder(e.address); ok {
		owner := Place{Node: port.Node}
		n, _ := w.Planned.Node(port.Node)
		l, _ := n.Link(port.Interface)
		s := w.space(owner)
		if s != nil && bearer(s, e.address) == nil && len(l.Addresses) > 0 {
			return []mend{{command(owner, "ip addr add %s dev %s", l.Addresses[0], port.Interface), func(w *World) {
				w.edit(owner, func(s *api.Space) { addAddress(s, port.Interface, l.Addresses[0]) })
			}, nil}}
		}
	}
	if p.here().Via.IsValid() {
		return redirect(w, p, p.here(), to)
	}
	return nil
}

// redirect points the route of a hop at the next hop that leads to the address.
func redirect(w *World, p *Path, hop *Hop, to netip.Addr) []mend {
	won := hop.winner()
	if won == nil || hop.Pod != "" {
		return nil
	}
	holder, ok := w.holder(to)
	if !ok || holder.Node == hop.Node {
		return nil
	}
	next, ok := w.Planned.Towards(hop.Node, holder.Node)
	if !ok || (len(won.NextHops) == 1 && won.NextHops[0].Via == next.Via) {
		return nil
	}
	r := *won
	r.NextHops = []api.NextHop{{Via: next.Via, Device: next.Device}}
	return []mend{routeMend(hop.Place, r, "replace")}
}

// straighten redirects the first hop of a loop that does not lead where it should.
func straighten(w *World, p *Path, to netip.Addr) []mend {
	for i := range p.Hops {
		if m := redirect(w, p, &p.Hops[i], to); m != nil && p.Hops[i].winner().To.Bits() > 0 {
			return m
		}
	}
	return addRoute(w, p.End.Place, to)
}

// setUp sets a link up, and brings back what the kernel then makes by itself:
// the addresses' own routes. Static routes do not come back.
func setUp(s *api.Space, name string) {
	l := link(s, name)
	if l == nil {
		return
	}
	l.Up, l.Carrier = true, true
	for i := range s.Routes {
		for j := range s.Routes[i].NextHops {
			if h := &s.Routes[i].NextHops[j]; h.Device == name {
				s.Routes[i].NextHops = slices.Clone(s.Routes[i].NextHops)
				s.Routes[i].NextHops[j].Dead, s.Routes[i].NextHops[j].LinkDown = false, false
			}
		}
	}
	for _, p := range slices.Clone(l.Addresses) {
		addOwnRoutes(s, name, p)
	}
}

func addAddress(s *api.Space, name string, p netip.Prefix) {
	if l := link(s, name); l != nil {
		l.Addresses = append(slices.Clone(l.Addresses), p)
		addOwnRoutes(s, name, p)
	}
}

// addOwnRoutes adds what the kernel has for each address of a link that is up.
func addOwnRoutes(s *api.Space, name string, p netip.Prefix) {
	add := func(r api.Route) {
		r.NextHops, r.Source = []api.NextHop{{Device: name}}, p.Addr()
		if !slices.ContainsFunc(s.Routes, func(o api.Route) bool {
			return o.Table == r.Table && o.To == r.To && o.Type == r.Type && o.Metric == r.Metric
		}) {
			s.Routes = append(s.Routes, r)
		}
	}
	add(api.Route{Table: api.TableLocal, To: netip.PrefixFrom(p.Addr(), 32), Type: path.Local, Scope: "host", ProtocolName: "kernel"})
	if !p.IsSingleIP() {
		add(api.Route{Table: api.TableMain, To: p.Masked(), Type: path.Unicast, Scope: "link", ProtocolName: "kernel"})
	}
}

// dropAddress takes an address from a place that should not have it.
func dropAddress(w *World, at Place, a netip.Addr) []mend {
	s := w.space(at)
	n, _ := w.Planned.Node(at.Node)
	if s == nil || n.Owns(a) || at.Pod != "" {
		return nil
	}
	l := bearer(s, a)
	if l == nil {
		return nil
	}
	device := l.Name
	p := l.Addresses[slices.IndexFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })]
	return []mend{{command(at, "ip addr del %s dev %s", p, device), func(w *World) {
		w.edit(at, func(s *api.Space) {
			l := link(s, device)
			l.Addresses = slices.DeleteFunc(slices.Clone(l.Addresses), func(o netip.Prefix) bool { return o == p })
			s.Routes = slices.DeleteFunc(s.Routes, func(r api.Route) bool { return r.Source == a })
		})
	}, nil}}
}

func turnForwardingOn(w *World, at Place, device string) []mend {
	what := "net.ipv4.conf." + device + ".forwarding"
	if s := w.space(at); s == nil || s.Sysctls[api.SysctlForward] != "1" {
		what = "net.ipv4.ip_forward"
	}
	return []mend{{command(at, "sysctl -w %s=1", what), func(w *World) {
		w.edit(at, func(s *api.Space) {
			for i := range s.Links {
				s.Links[i].Forwarding = true
			}
		})
	}, nil}}
}

// widen gives a link the MTU that it should have, if that is more.
func widen(w *World, at Place, e End) []mend {
	n, _ := w.Planned.Node(at.Node)
	planned, ok := n.Link(e.Device)
	s := w.space(at)
	if s == nil {
		return nil
	}
	l := link(s, e.Device)
	if !ok || at.Pod != "" || l == nil || planned.MTU <= l.MTU {
		return nil
	}
	return []mend{{command(at, "ip link set %s mtu %d", e.Device, planned.MTU), func(w *World) {
		w.edit(at, func(s *api.Space) { link(s, e.Device).MTU = planned.MTU })
	}, nil}}
}

// unfilter deletes the rule that dropped the packet, or opens the chain.
func unfilter(at Place, e End) []mend {
	c := e.chain
	typed := ""
	switch {
	case e.rule == nil && c.Tool == "nft":
		typed = fmt.Sprintf("nft chain %s %s %s '{ policy accept; }'", c.Family, c.Table, c.Name)
	case e.rule == nil:
		typed = fmt.Sprintf("%s%s -P %s ACCEPT", c.Tool, ofTable(c), c.Name)
	case c.Tool == "nft":
		typed = fmt.Sprintf("nft delete rule %s %s %s handle %d", c.Family, c.Table, c.Name, e.rule.Handle)
	default:
		typed = fmt.Sprintf("%s%s -D %s %s", c.Tool, ofTable(c), c.Name, e.rule.Text)
	}
	return []mend{{command(at, "%s", typed), func(w *World) {
		w.edit(at, func(s *api.Space) {
			for i := range s.Chains {
				o := &s.Chains[i]
				if o.Tool != c.Tool || o.Family != c.Family || o.Table != c.Table || o.Name != c.Name {
					continue
				}
				if e.rule == nil {
					o.Policy = "accept"
				} else if j := slices.IndexFunc(o.Rules, func(r api.FilterRule) bool { return r.Handle == e.rule.Handle && r.Text == e.rule.Text }); j >= 0 {
					o.Rules = slices.Delete(slices.Clone(o.Rules), j, j+1)
				}
			}
		})
	}, nil}}
}

func ofTable(c *api.Chain) string {
	if c.Table == "filter" {
		return ""
	}
	return " -t " + c.Table
}

// ruleName is how a sentence names a rule: its table and chain, and its text.
func ruleName(c *api.Chain, r *api.FilterRule) string {
	name := fmt.Sprintf("%s %s %s %s", c.Tool, c.Family, c.Table, c.Name)
	if c.Tool != "nft" {
		name = fmt.Sprintf("%s %s %s", c.Tool, c.Table, c.Name)
	}
	if r == nil {
		return name + ": policy " + c.Policy
	}
	return name + ": " + r.Text
}

// forget deletes what connection tracking holds on to.
func forget(at Place, e End) []mend {
	if !e.kernel {
		return nil // it ends with the connection
	}
	return []mend{{command(at, "conntrack -D -r %s", addressOf(e.detail)), func(w *World) {
		w.edit(at, func(s *api.Space) { s.Tracked = nil })
	}, nil}}
}

// addressOf is an address without its port.
func addressOf(text string) string {
	if to, err := netip.ParseAddrPort(text); err == nil {
		return to.Addr().String()
	}
	return text
}
