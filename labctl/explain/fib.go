package explain

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
)

// The kernel's numbers of what a FIB refuses with (asm-generic/errno.h), the same on
// every architecture that labctl has an agent for.
const (
	errnoAccess      = 13  // EACCES: prohibit
	errnoInvalid     = 22  // EINVAL: blackhole; also what an input filter refused
	errnoUnreachable = 101 // ENETUNREACH: no route
	errnoHost        = 113 // EHOSTUNREACH: unreachable; also forwarding that is off
	errnoCrossDevice = 18  // EXDEV: the reverse path filter of older kernels
)

// matched is a FIB's walk through rules and tables.
type matched struct {
	// routes are all that match in the tables that were looked at: those of one
	// table longest first, then by metric.
	routes []api.Route
	// won is the index in routes of the one that decides, -1 for none.
	won int
	// hop is the next hop of a unicast route.
	hop api.NextHop
	// rule is the rule that led to the decision, where it is none of the kernel's own.
	rule *api.Rule
	// typ is the route's type, or the rule's action; empty where nothing matched.
	typ string
}

func (m matched) route() *api.Route {
	if m.won < 0 {
		return nil
	}
	return &m.routes[m.won]
}

// lookup does as the kernel does (fib_rules_lookup, fib_table_lookup): rules by
// their priority, in each table the longest prefix, then the lowest metric.
func lookup(s *api.Space, q api.PathQuery) matched {
	m := matched{won: -1}
	for i := 0; i < len(s.Rules); i++ {
		rule := &s.Rules[i]
		if !ruleMatches(rule, q) {
			continue
		}
		switch rule.Action {
		case "lookup":
			if m.inTable(s, rule, q) {
				return m
			}
		case "goto":
			for i+1 < len(s.Rules) && s.Rules[i+1].Priority < rule.Goto {
				i++
			}
		case path.Blackhole, path.Unreachable, path.Prohibit:
			m.typ, m.rule = rule.Action, rule
			return m
		}
	}
	return m
}

// inTable looks into a rule's table, and says whether that decided.
func (m *matched) inTable(s *api.Space, rule *api.Rule, q api.PathQuery) bool {
	start := len(m.routes)
	for _, r := range s.Routes {
		if r.Table == rule.Table && r.To.Contains(q.To) {
			m.routes = append(m.routes, r)
		}
	}
	slices.SortStableFunc(m.routes[start:], func(a, b api.Route) int {
		return cmp.Or(cmp.Compare(b.To.Bits(), a.To.Bits()), cmp.Compare(a.Metric, b.Metric))
	})
	for i := start; i < len(m.routes); i++ {
		r := m.routes[i]
		hop, usable := usableHop(s, r, q)
		switch {
		case len(r.NextHops) > 0 && !usable:
			continue
		case r.Type == "throw", r.To.Bits() <= rule.SuppressLength:
			return false
		}
		m.won, m.hop, m.typ = i, hop, r.Type
		if !ownRule(rule) {
			m.rule = rule
		}
		return true
	}
	return false
}

// usableHop is the first next hop that is not dead.
func usableHop(s *api.Space, r api.Route, q api.PathQuery) (api.NextHop, bool) {
	skip := s.Sysctls[api.SysctlSkipLinkDown] == "1"
	for _, h := range r.NextHops {
		l := link(s, h.Device)
		switch {
		case h.Dead || l == nil || !l.Up, skip && h.LinkDown, q.Out != "" && q.Out != h.Device:
			continue
		}
		return h, true
	}
	return api.NextHop{}, false
}

// ownRule says whether a rule is one of the three that every kernel begins with.
func ownRule(r *api.Rule) bool {
	return r.Action == "lookup" && (r.Table == api.TableLocal || r.Table == api.TableMain || r.Table == api.TableDefault) && !r.From.IsValid() && !r.To.IsValid() &&
		r.In == "" && r.Out == "" && r.Mark == 0 && r.Mask == 0 && r.Protocol == 0 && !r.Not
}

func ruleMatches(r *api.Rule, q api.PathQuery) bool {
	within := func(p netip.Prefix, a netip.Addr) bool {
		return !p.IsValid() || p.Bits() == 0 || (a.IsValid() && p.Contains(a))
	}
	ports := func(r [2]uint16, port uint16) bool { return r == [2]uint16{} || (port >= r[0] && port <= r[1]) }
	in := q.In
	if in == "" {
		in = "lo" // the kernel takes a packet of its own as one from loopback
	}
	mask := r.Mask
	if mask == 0 && r.Mark != 0 {
		mask = ^uint32(0)
	}
	match := within(r.From, q.From) && within(r.To, q.To) && (r.In == "" || r.In == in) && (r.Out == "" || r.Out == q.Out) &&
		(r.Mark^q.Mark)&mask == 0 && (r.Protocol == 0 || r.Protocol == q.Protocol) &&
		ports(r.SourcePorts, q.SourcePort) && ports(r.DestinationPorts, q.DestinationPort)
	return match != r.Not
}

// decide answers a question from the tables alone, as the kernel would.
func decide(s *api.Space, q api.PathQuery) api.PathDecision {
	m := lookup(s, q)
	d := api.PathDecision{}
	switch m.typ {
	case "":
		d.Error, d.Errno = "network is unreachable", errnoUnreachable
	case path.Blackhole:
		d.Error, d.Errno = "invalid argument", errnoInvalid
	case path.Unreachable:
		d.Error, d.Errno = "no route to host", errnoHost
	case path.Prohibit:
		d.Error, d.Errno = "permission denied", errnoAccess
	default:
		r := m.route()
		d.Type, d.Via, d.Device, d.MTU, d.To, d.Table = m.typ, m.hop.Via, m.hop.Device, r.MTU, r.To, r.Table
		d.Source = q.From
		if !q.From.IsValid() {
			d.Source = sourceFor(s, *r, m.hop, q.To)
		}
	}
	return d
}

// sourceFor is the source address that the kernel gives to a packet that has
// none (fib_result_prefsrc, inet_select_addr).
func sourceFor(s *api.Space, r api.Route, hop api.NextHop, to netip.Addr) netip.Addr {
	if r.Source.IsValid() {
		return r.Source
	}
	if r.Type == path.Local {
		return to
	}
	beside := hop.Via
	if l := link(s, hop.Device); l != nil {
		for _, p := range l.Addresses {
			if beside.IsValid() && p.Contains(beside) {
				return p.Addr()
			}
		}
		if len(l.Addresses) > 0 {
			return l.Addresses[0].Addr()
		}
	}
	for _, l := range s.Links {
		if len(l.Addresses) > 0 && l.Name != "lo" && l.Up {
			return l.Addresses[0].Addr()
		}
	}
	return netip.Addr{}
}

// refusesSource says whether a namespace takes no packet with that source on
// that link, and whether the reverse path filter is why: otherwise the source is
// an address of its own (fib_validate_source).
func refusesSource(s *api.Space, in *api.Link, source, to netip.Addr) (refused, filter bool) {
	if owns(s, source) {
		return true, false
	}
	if in.RPFilter == 0 {
		return false, false
	}
	m := lookup(s, api.PathQuery{To: source, From: to})
	switch {
	case m.typ != path.Unicast:
		return true, true
	case slices.ContainsFunc(m.route().NextHops, func(h api.NextHop) bool { return h.Device == in.Name }):
		return false, false
	}
	return in.RPFilter == 1 || len(in.Addresses) == 0, true
}
