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

// judgeLink says how the link differs; empty means not at all.
func (p *planner) judgeLink(want api.UnderlayLink) string {
	link := p.links[want.Name]
	if link == nil {
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
		if !slices.Contains(link.Addresses, a) {
			reasons = append(reasons, fmt.Sprintf("address %s is gone", a))
		}
	}
	for _, a := range link.Addresses {
		if !slices.Contains(want.Addresses, a) {
			reasons = append(reasons, fmt.Sprintf("address %s is not the lab's", a))
		}
	}
	return strings.Join(reasons, "; ")
}

// judgeRoute says how the route differs; empty means not at all. Of several
// routes to the same prefix the first is the one that the kernel takes.
func (p *planner) judgeRoute(want api.UnderlayRoute) string {
	var first *api.Route
	for n, i := range p.routes[want.To] {
		r := &p.seen.Tables.Routes[i]
		if first == nil {
			first = r
		}
		if !sameNextHops(*r, want.Via) {
			continue
		}
		if n > 0 {
			return "another route comes before it: " + describe(*first)
		}
		return carrierReason(*r)
	}
	if first == nil {
		return "gone"
	}
	return describe(*first) + " instead"
}

func sameNextHops(r api.Route, via []netip.Addr) bool {
	if len(via) == 0 { // connected
		return r.Type == "unicast" && len(r.NextHops) == 1 && !r.NextHops[0].Via.IsValid()
	}
	if r.Type != "unicast" || len(r.NextHops) != len(via) {
		return false
	}
	for _, hop := range r.NextHops {
		if !slices.Contains(via, hop.Via) {
			return false
		}
	}
	return true
}

func describeUnderlay(r api.UnderlayRoute) string {
	name := r.To.String()
	if r.To.Bits() == 0 {
		name = "default"
	}
	for _, via := range r.Via {
		name += " via " + via.String()
	}
	return name
}
