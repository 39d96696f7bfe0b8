package explain

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
)

// edit changes one table: "PLACE: WHAT WORDS", much as one would type it there.
//
//	route add|del [blackhole|…] PREFIX [via ADDRESS] [dev DEVICE] [metric N]
//	link DEVICE down|nocarrier|noforward|mtu N|rp_filter N
//	addr del DEVICE
//	own ADDRESS DEVICE
//	neigh ADDRESS MAC DEVICE
//	rule PREF PREFIX ACTION
//	drop|reject|masquerade|dnat=TO HOOK [KEY=VALUE...]     policy HOOK
//	tracked SOURCE:PORT DESTINATION:PORT BACKEND:PORT
//	flow SOURCE:PORT SERVICE:PORT BACKEND:PORT
//	sysctl NAME VALUE      gone POD      nobackends     native PREFIX
func edit(t *testing.T, w *World, line string) {
	t.Helper()
	if line == "" {
		return
	}
	name, words, _ := strings.Cut(line, ": ")
	f := strings.Fields(words)
	target, ok := w.resolve(name)
	if !ok {
		t.Fatalf("%q: no such place", line)
	}
	n := w.node(target.Place.Node)
	switch f[0] {
	case "gone":
		n.Pods = slices.DeleteFunc(n.Pods, func(p api.PodStatus) bool { return p.Name == f[1] })
	case "nobackends":
		n.Services = slices.Clone(n.Services)
		for i := range n.Services {
			n.Services[i].Usable, n.Services[i].Backends = 0, nil
		}
	case "native":
		w.Cluster.NativeCIDR = netip.MustParsePrefix(f[1])
	case "flow":
		n.Flows = append(n.Flows, api.Flow{Protocol: "TCP", Client: netip.MustParseAddrPort(f[1]), Frontend: netip.MustParseAddrPort(f[2]), Backend: netip.MustParseAddrPort(f[3]), Service: 1})
	case "silent":
		n.Silent = "the agent of " + name + " does not answer"
	default:
		w.edit(target.Place, func(s *api.Space) { editSpace(t, s, f) })
	}
}

func editSpace(t *testing.T, s *api.Space, f []string) {
	t.Helper()
	switch f[0] {
	case "route":
		editRoute(s, f[1], f[2:])
	case "link":
		editLink(s, link(s, f[1]), f[2:])
	case "addr":
		l := link(s, f[2])
		gone := l.Addresses[0]
		l.Addresses = nil
		s.Routes = slices.DeleteFunc(s.Routes, func(r api.Route) bool {
			return r.Source == gone.Addr() || slices.ContainsFunc(r.NextHops, func(h api.NextHop) bool { return gone.Contains(h.Via) })
		})
	case "own":
		addAddress(s, f[2], netip.PrefixFrom(netip.MustParseAddr(f[1]), 32))
	case "neigh":
		s.Neighbours = append(s.Neighbours, api.Neighbour{Address: netip.MustParseAddr(f[1]), MAC: f[2], Device: f[3], State: "permanent"})
	case "rule":
		pref, _ := strconv.Atoi(f[1])
		s.Rules = slices.Insert(s.Rules, 1, api.Rule{Priority: pref, To: netip.MustParsePrefix(f[2]), Action: f[3], SuppressLength: -1})
	case "sysctl":
		s.Sysctls[f[1]] = f[2]
	case "tracked":
		backend := netip.MustParseAddrPort(f[3])
		s.Tracked = append(s.Tracked, api.Tracked{Protocol: UDP, Source: netip.MustParseAddrPort(f[1]), Destination: netip.MustParseAddrPort(f[2]),
			ReplySource: backend, ReplyDestination: netip.MustParseAddrPort(f[1])})
	case "policy":
		s.Chains = append(s.Chains, api.Chain{Family: "ip", Tool: "nft", Table: "guard", Name: f[1], Hook: f[1], Type: "filter", Policy: "drop",
			Rules: []api.FilterRule{{Handle: 3, Text: "ct state new accept", Verdict: "accept", Matches: []api.Match{{Key: "state", Values: []string{"new"}}}}}})
	default:
		editFilter(s, f)
	}
}

func editRoute(s *api.Space, verb string, f []string) {
	r := api.Route{Table: api.TableMain, Type: path.Unicast}
	if slices.Contains([]string{path.Blackhole, path.Unreachable, path.Prohibit}, f[0]) {
		r.Type, f = f[0], f[1:]
	}
	if f[0] == "default" {
		f[0] = "0.0.0.0/0"
	}
	r.To = netip.MustParsePrefix(f[0])
	if verb == "del" {
		s.Routes = slices.DeleteFunc(s.Routes, func(o api.Route) bool { return o.Table == r.Table && o.To == r.To })
		return
	}
	for i := 1; i+1 < len(f); i += 2 {
		switch f[i] {
		case "via":
			r.NextHops = []api.NextHop{{Via: netip.MustParseAddr(f[i+1])}}
		case "dev":
			r.NextHops[0].Device = f[i+1]
		case "metric":
			r.Metric, _ = strconv.Atoi(f[i+1])
		}
	}
	s.Routes = append(s.Routes, r)
}

func editLink(s *api.Space, l *api.Link, f []string) {
	number := 0
	if len(f) > 1 {
		number, _ = strconv.Atoi(f[1])
	}
	switch f[0] {
	case "down":
		l.Up, l.Carrier = false, false
		s.Routes = slices.DeleteFunc(s.Routes, func(r api.Route) bool { return len(r.NextHops) > 0 && r.NextHops[0].Device == l.Name })
	case "nocarrier":
		l.Carrier = false
	case "noforward":
		l.Forwarding = false
	case "mtu":
		l.MTU = number
	case "rp_filter":
		l.RPFilter = number
	}
}

func editFilter(s *api.Space, f []string) {
	verdict, target, _ := strings.Cut(f[0], "=")
	c := api.Chain{Family: "ip", Tool: "nft", Table: "guard", Name: f[1], Hook: f[1], Type: "filter", Policy: "accept"}
	if verdict == "masquerade" || verdict == "dnat" {
		c.Type = "nat"
	}
	r := api.FilterRule{Handle: 7, Verdict: verdict, Target: target, Text: strings.Join(append(slices.Clone(f[2:]), f[0]), " ")}
	for _, m := range f[2:] {
		key, value, _ := strings.Cut(m, "=")
		r.Matches = append(r.Matches, api.Match{Key: key, Values: []string{value}})
	}
	c.Rules = []api.FilterRule{r}
	s.Chains = append(s.Chains, c)
}
