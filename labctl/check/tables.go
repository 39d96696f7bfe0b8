package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/topologies/path"
)

// interfaces checks every interface of a node: there, up, its addresses, its MTU.
func (v *verification) interfaces(want path.Node) []Result {
	var results []Result
	seen, known := v.seen(want.Name)
	for _, link := range want.Links {
		r := Result{Group: Interfaces, Node: want.Name, Name: want.Name + " " + link.Name, Expected: linkText(link)}
		if !known {
			results = append(results, v.unknown(r, want.Name))
			continue
		}
		have, ok := seen.Link(link.Name)
		r.Seen, r.Outcome = v.say.Sprintf("missing"), OK
		if ok {
			r.Seen = linkText(have)
		}
		if r.Causes = linkCauses(v.say, want.Name, link, have, ok); len(r.Causes) > 0 {
			r.Outcome = Failed
		}
		results = append(results, r)
	}
	return results
}

func linkText(l path.Link) string {
	state := "up"
	switch {
	case !l.Up:
		state = "down"
	case !l.Carrier:
		state = "up, no carrier"
	}
	addresses := make([]string, len(l.Addresses))
	for i, a := range l.Addresses {
		addresses[i] = a.String()
	}
	if len(addresses) == 0 {
		addresses = []string{"no address"}
	}
	return fmt.Sprintf("%s, mtu %d, %s", strings.Join(addresses, " "), l.MTU, state)
}

// linkCauses names each way in which an interface differs from what it should be.
func linkCauses(say lang.Printer, node string, want, have path.Link, exists bool) []Cause {
	if !exists {
		return []Cause{{Node: node, Reason: say.Sprintf("%s is missing", want.Name), Cure: "labctl up"}}
	}
	var causes []Cause
	add := func(cure, reason string) {
		causes = append(causes, Cause{Node: node, Reason: reason, Cure: cure})
	}
	if !have.Up {
		add("labctl up", say.Sprintf("%s is down", want.Name)) // the routes by it went with it: only up puts those back too
	} else if !have.Carrier {
		add("labctl up", say.Sprintf("%s has no carrier: the other end of its link is down", want.Name))
	}
	if have.MTU != want.MTU {
		add(on(node, "ip link set %s mtu %d", want.Name, want.MTU), say.Sprintf("%s has mtu %d, not %d", want.Name, have.MTU, want.MTU))
	}
	causes = append(causes, tunnelCauses(say, node, want, have)...)
	lost, gained := without(want.Addresses, have.Addresses), without(have.Addresses, want.Addresses)
	switch {
	case len(lost) > 0 && len(gained) > 0:
		add("labctl up", say.Sprintf("%s has the address %s, not %s", want.Name, join(gained, " "), join(lost, " ")))
	case len(lost) > 0:
		add("labctl up", say.Sprintf("%s has lost its address %s", want.Name, join(lost, " ")))
	case len(gained) > 0:
		add(on(node, "ip addr del %s dev %s", gained[0], want.Name), say.Sprintf("%s has an address that the topology does not give it: %s", want.Name, join(gained, " ")))
	}
	return causes
}

// tunnelCauses name what a tunnel lacks or has wrong. The agent mends all of it
// within a second: where it is seen, the agent cannot.
func tunnelCauses(say lang.Printer, node string, want, have path.Link) []Cause {
	if want.Tunnel == nil || have.Tunnel == nil {
		return nil
	}
	w, h := want.Tunnel, have.Tunnel
	var causes []Cause
	add := func(reason string) {
		causes = append(causes, Cause{Node: node, Reason: reason, Cure: "labctl status " + node})
	}
	if w.VNI != h.VNI || w.Port != h.Port || w.Local != h.Local {
		add(say.Sprintf("%s is VNI %d on port %d of %s, not VNI %d on port %d of %s", want.Name, h.VNI, h.Port, h.Local, w.VNI, w.Port, w.Local))
	}
	for _, r := range w.Remotes {
		switch at, ok := h.Remote(r.Via); {
		case !ok:
			add(say.Sprintf("%s does not know behind which node %s is", want.Name, r.Via))
		case at != r.Node:
			add(say.Sprintf("%s sends to %s what is for %s, which is behind %s", want.Name, at, r.Via, r.Node))
		}
	}
	return causes
}

// without returns what is in a and not in b.
func without(a, b []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(a), func(p netip.Prefix) bool { return slices.Contains(b, p) })
}

// on is a command line that runs a command on a node.
func on(node, format string, args ...any) string {
	return "labctl exec " + node + " -- " + fmt.Sprintf(format, args...)
}

// forwarding checks that a node passes packets on, and takes them from every side.
func (v *verification) forwarding(want path.Node) Result {
	r := Result{Group: Forwarding, Node: want.Name, Name: want.Name, Expected: v.say.Sprintf("on, no reverse path filter")}
	seen, known := v.seen(want.Name)
	if !known {
		return v.unknown(r, want.Name)
	}
	r.Causes = forwardingCauses(v.say, seen)
	if r.Outcome, r.Seen = OK, r.Expected; len(r.Causes) > 0 {
		r.Outcome, r.Seen = Failed, r.Causes[0].Reason
	}
	return r
}

func forwardingCauses(say lang.Printer, seen path.Node) []Cause {
	if !seen.Forwarding {
		return []Cause{{Node: seen.Name, Reason: say.Sprintf("forwarding is off (net.ipv4.ip_forward = 0)"), Cure: on(seen.Name, "sysctl -w net.ipv4.ip_forward=1")}}
	}
	var causes []Cause
	for _, l := range seen.Links {
		if !l.Forwarding {
			causes = append(causes, Cause{Node: seen.Name, Reason: say.Sprintf("forwarding is off on %s", l.Name), Cure: on(seen.Name, "sysctl -w net.ipv4.conf.%s.forwarding=1", l.Name)})
		}
		if l.RPFilter != 0 {
			causes = append(causes, Cause{Node: seen.Name, Cure: "labctl up",
				Reason: say.Sprintf("the reverse path filter of %s is on (rp_filter = %d)", l.Name, l.RPFilter)})
		}
	}
	return causes
}

// routes checks a node's main table: all that should be there, as it should be, and nothing else.
func (v *verification) routes(want path.Node) Result {
	r := Result{Group: Routes, Node: want.Name, Name: want.Name, Expected: plural(v.say, len(want.Routes), "1 route", "%d routes")}
	seen, known := v.seen(want.Name)
	if !known {
		return v.unknown(r, want.Name)
	}
	r.Causes = routeCauses(v.say, want, seen)
	r.Outcome, r.Seen = OK, plural(v.say, len(seen.Routes), "1 route", "%d routes")
	if len(r.Causes) > 0 {
		r.Outcome = Failed
	}
	return r
}

// routeCauses compares two tables, prefix by prefix.
func routeCauses(say lang.Printer, want, seen path.Node) []Cause {
	var causes []Cause
	for _, w := range want.Routes {
		have := sameKey(seen.Routes, w)
		switch {
		case have == nil:
			causes = append(causes, missingRoute(say, want, seen, w)...)
		case !sameRoute(w, *have):
			causes = append(causes, wrongRoute(say, want, seen, w, *have)...)
		}
	}
	for _, have := range seen.Routes {
		if sameKey(want.Routes, have) == nil {
			causes = append(causes, foreignRoute(say, want, seen, have)...)
		}
	}
	return unique(causes)
}

// missingRoute says why a route is not there: an interface that lost it, or
// somebody who deleted it.
func missingRoute(say lang.Printer, want, seen path.Node, r path.Route) []Cause {
	if causes := deviceCauses(say, want, seen, r); len(causes) > 0 {
		return causes
	}
	c := Cause{Node: want.Name, Reason: say.Sprintf("missing route: %s", full(r)), Cure: on(want.Name, "ip route add %s", command(r))}
	if r.Protocol == path.AgentProtocol {
		c.Reason = say.Sprintf("missing route: %s, which the node's agent should hold", full(r))
		c.Cure = "labctl status " + want.Name
	}
	return []Cause{c}
}

func wrongRoute(say lang.Printer, want, seen path.Node, r, have path.Route) []Cause {
	if causes := deviceCauses(say, want, seen, r); len(causes) > 0 {
		return causes
	}
	return []Cause{{Node: want.Name, Reason: say.Sprintf("wrong route: %s, not %s", command(have), command(r)), Cure: on(want.Name, "ip route replace %s", command(r))}}
}

func foreignRoute(say lang.Printer, want, seen path.Node, have path.Route) []Cause {
	if have.Protocol == "kernel" || have.Protocol == path.AgentProtocol { // it came with an address
		if causes := deviceCauses(say, want, seen, have); len(causes) > 0 {
			return causes
		}
	}
	return []Cause{{Node: want.Name, Reason: say.Sprintf("foreign route: %s", full(have)), Cure: on(want.Name, "ip route del %s", command(have))}}
}

// deviceCauses are what is wrong with the interfaces of a route, where that
// alone would take the route away or change it.
func deviceCauses(say lang.Printer, want, seen path.Node, r path.Route) []Cause {
	var causes []Cause
	for _, h := range r.NextHops {
		wantLink, known := want.Link(h.Device)
		link, exists := seen.Link(h.Device)
		if known && (!exists || !link.Up || restsOn(r, h, wantLink.Addresses) && !slices.Equal(wantLink.Addresses, link.Addresses)) {
			causes = append(causes, linkCauses(say, want.Name, wantLink, link, exists)...)
		}
	}
	return causes
}

// restsOn says whether a route goes when an address does: a connected one, and
// one whose next hop is reached by the address's network.
func restsOn(r path.Route, h path.NextHop, addresses []netip.Prefix) bool {
	return r.Protocol == "kernel" || r.Protocol == path.AgentProtocol || slices.ContainsFunc(addresses, func(a netip.Prefix) bool { return h.Via.IsValid() && a.Contains(h.Via) })
}

// sameKey finds the route of the same prefix and metric. The kernel's own
// connected routes bear whatever metric the interface was configured with.
func sameKey(routes []path.Route, want path.Route) *path.Route {
	for i, r := range routes {
		if r.To == want.To && (r.Metric == want.Metric || r.Protocol == "kernel" && want.Protocol == "kernel") {
			return &routes[i]
		}
	}
	return nil
}

func sameRoute(a, b path.Route) bool {
	return a.Type == b.Type && a.Protocol == b.Protocol && a.MTU == b.MTU && (a.Source == b.Source || !a.Source.IsValid()) &&
		slices.Equal(sortedHops(a), sortedHops(b))
}

func sortedHops(r path.Route) []path.NextHop {
	hops := slices.Clone(r.NextHops)
	slices.SortFunc(hops, func(a, b path.NextHop) int { return strings.Compare(a.String(), b.String()) })
	return hops
}

// full is a route with what ip-route(8) prints after the next hop.
func full(r path.Route) string {
	s := r.String() + " proto " + r.Protocol
	if r.Metric != 0 {
		s += fmt.Sprintf(" metric %d", r.Metric)
	}
	return s
}

// command is a route as ip-route(8) takes it.
func command(r path.Route) string {
	s := full(r)
	if r.Scope == "link" && r.Protocol != "kernel" {
		s += " scope link"
	}
	if r.Source.IsValid() {
		s += " src " + r.Source.String()
	}
	if r.MTU != 0 {
		s += fmt.Sprintf(" mtu %d", r.MTU)
	}
	return s
}

// plural is a count with its noun.
func plural(say lang.Printer, n int, one, many string) string {
	if n == 1 {
		return say.Text(one)
	}
	return say.Sprintf(many, n)
}

// decisionText is what a FIB decides, in ip-route(8)'s words.
func decisionText(kind string, hops []path.NextHop, source netip.Addr) string {
	if kind != path.Unicast {
		if kind == "" {
			return "no route"
		}
		return kind
	}
	texts := make([]string, len(hops))
	for i, h := range hops {
		texts[i] = h.String()
	}
	s := strings.Join(texts, " or ")
	if source.IsValid() {
		s += " src " + source.String()
	}
	return s
}
