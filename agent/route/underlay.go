package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
)

// sysctls reports those that differ. They are written by the [Reconciler], once
// for each state: see [api.State].
func (p *planner) sysctls() {
	for i, want := range p.state.Sysctls {
		key := Key{kindSysctl, want.Name}
		if i >= len(p.seen.Sysctls) {
			p.object(api.OwnerLab, key, api.Pending, "")
			continue
		}
		condition, reason := judgeSysctl(want, p.seen.Sysctls[i])
		p.object(api.OwnerLab, key, condition, reason)
	}
}

func judgeSysctl(want api.Sysctl, seen SysctlValue) (api.Condition, string) {
	switch {
	case seen.Err != "":
		return api.Drifted, seen.Err
	case !sameValue(seen.Value, want.Value):
		return api.Drifted, fmt.Sprintf("%s, not %s", seen.Value, want.Value)
	default:
		return api.InPlace, ""
	}
}

// sameValue takes no notice of the blanks between numbers, which the kernel
// writes as tabs.
func sameValue(a, b string) bool {
	return slices.Equal(strings.Fields(a), strings.Fields(b))
}

// underlay reports the links and routes that the lab made, and that are not as
// it made them.
func (p *planner) underlay() {
	for _, want := range p.state.Underlay.Links {
		condition, reason := api.InPlace, p.judgeLink(want)
		if reason != "" {
			condition = api.Drifted
		}
		p.object(api.OwnerLab, Key{kindLink, want.Name}, condition, reason)
	}
	for _, want := range p.state.Underlay.Routes {
		condition, reason := api.InPlace, p.judgeRoute(want)
		if reason != "" {
			condition = api.Drifted
		}
		p.object(api.OwnerLab, Key{kindRoute, describeUnderlay(want)}, condition, reason)
	}
}

// judgeLink says how the link differs; empty means not at all. An address more
// than it should have is an object of its own.
func (p *planner) judgeLink(want api.UnderlayLink) string {
	link := p.links[want.Name]
	if link == nil {
		if name := p.renamed(want.Name); name != "" {
			return "renamed to " + name
		}
		return "gone"
	}
	var reasons []string
	switch {
	case !link.Up:
		reasons = append(reasons, "down")
	case !link.Carrier:
		reasons = append(reasons, "no carrier")
	}
	if want.MTU != 0 && link.MTU != want.MTU {
		reasons = append(reasons, fmt.Sprintf("mtu %d, not %d", link.MTU, want.MTU))
	}
	for _, a := range want.Addresses {
		switch {
		case !slices.Contains(link.Addresses, a):
			reasons = append(reasons, fmt.Sprintf("address %s is gone", a))
		case link.Up && !a.IsSingleIP() && !p.connected(a.Masked(), want.Name):
			reasons = append(reasons, fmt.Sprintf("its route to %s is gone", a.Masked()))
		}
	}
	return strings.Join(reasons, "; ")
}

// connected says whether the link's network is routed to it. A link whose state
// names no address of it has none.
func (p *planner) connected(to netip.Prefix, device string) bool {
	for _, i := range p.routes[to] {
		if r := p.seen.Tables.Routes[i]; r.Type == "unicast" && len(r.NextHops) == 1 && r.NextHops[0].Device == device && !r.NextHops[0].Via.IsValid() {
			return true
		}
	}
	return false
}

// renamed is what a link of the lab is called now; empty where it is gone. The
// lab's mark on it bears its name.
func (p *planner) renamed(name string) string {
	mark := fmt.Sprintf("%s%s node=%s interface=%s", labMark, p.state.Lab, p.state.Node, name)
	for _, link := range p.seen.Tables.Links {
		if link.Alias == mark {
			return link.Name
		}
	}
	return ""
}

// judgeRoute says how the route differs; empty means not at all. Of several
// routes to the same prefix the first is the one that the kernel takes.
func (p *planner) judgeRoute(want api.UnderlayRoute) string {
	first := -1
	for n, i := range p.routes[want.To] {
		if first < 0 {
			first = i
		}
		if !sameUnderlay(p.seen.Tables.Routes[i], want) {
			continue
		}
		p.lab[i] = true
		if n > 0 {
			p.lab[first] = true // it is told of here
			return "another route comes before it: " + p.seen.Tables.Routes[first].String()
		}
		return carrierReason(p.seen.Tables.Routes[i])
	}
	if first < 0 {
		return "gone"
	}
	p.lab[first] = true
	return p.seen.Tables.Routes[first].String() + " instead"
}

// sameUnderlay compares a route with one that the lab wants.
func sameUnderlay(r api.Route, want api.UnderlayRoute) bool {
	if r.Type != "unicast" || r.Metric != want.Metric || !sameNextHops(r, want) {
		return false
	}
	return !want.Static || r.ProtocolName == "static" && r.MTU == 0 && !r.Source.IsValid()
}

func sameNextHops(r api.Route, want api.UnderlayRoute) bool {
	if len(want.Via) == 0 { // connected
		return len(r.NextHops) == 1 && !r.NextHops[0].Via.IsValid() && (want.Device == "" || r.NextHops[0].Device == want.Device)
	}
	if len(r.NextHops) != len(want.Via) {
		return false
	}
	for _, hop := range r.NextHops {
		if !slices.Contains(want.Via, hop.Via) || hop.Weight > 1 || want.Device != "" && hop.Device != want.Device {
			return false
		}
	}
	return true
}

func describeUnderlay(r api.UnderlayRoute) string {
	name := r.To.String()
	switch {
	case r.To.Bits() == 0:
		name = "default"
	case r.To.IsSingleIP():
		name = r.To.Addr().String()
	}
	for _, via := range r.Via {
		name += " via " + via.String()
	}
	if len(r.Via) == 0 && r.Device != "" {
		name += " dev " + r.Device
	}
	return name
}
