package check

import (
	"fmt"
	"net/netip"
	"slices"
)

// judgeNodePorts judges the requests to NodePorts: from outside the node that is
// called balances and, for backends elsewhere, stands as their client; from
// within the caller's own node does.
func (s *services) judgeNodePorts() []Result {
	var results []Result
	for _, c := range s.ports {
		r := Result{Group: NodePort, Node: c.asker.node,
			Name: fmt.Sprintf("%s → %s %s:%d (%s)", c.asker, shortKey(c.service.Key()), c.to, c.service.Ports[c.port].NodePort, c.entry)}
		r = s.judgeBalanced(r, s.balancedPort(c))
		if r.Outcome == OK || r.Outcome == ExpectedFailure {
			r = s.judgePortSource(r, c)
		}
		results = append(results, r)
	}
	return results
}

func (s *services) balancedPort(c portCheck) balanced {
	b := balanced{from: asker{node: c.asker.node}, service: c.service, protocol: s.rows[c.row].target.Protocol,
		full: c.full && c.service.Affinity == 0 && !s.short[c.row], outside: c.outside, row: c.row}
	caller := c.asker
	if c.outside {
		b.from.node = c.entry
		caller = asker{node: c.entry}
	}
	for _, one := range c.backends {
		p := part{backend: one, way: verdict{outcome: OK}, took: s.took(caller, one)}
		if !c.outside || one.node != c.entry {
			p.way = s.way(caller, one)
		}
		b.shares = append(b.shares, p)
	}
	return b
}

// judgePortSource checks as whom an outside caller is seen: as itself by a
// backend of the node that it calls, as that node by any other.
func (s *services) judgePortSource(r Result, c portCheck) Result {
	if !c.outside {
		return r
	}
	for _, a := range s.answers[c.row].Attempts {
		at := slices.IndexFunc(c.backends, func(b backend) bool { return b.hostname() == a.Hostname })
		if a.Error != "" || a.Hostname == "" || at < 0 || !a.RemoteAddr.IsValid() {
			continue
		}
		b, want := c.backends[at], []netip.Addr{a.Local.Addr()}
		reason := s.say.Sprintf("does not keep the client's address for its own backends (NodePort of service %s)", shortKey(c.service.Key()))
		if b.node != c.entry {
			want = s.egresses(c.entry, b.address.Addr())
			reason = s.say.Sprintf("does not stand in for the client of backends elsewhere (NodePort of service %s)", shortKey(c.service.Key()))
		}
		if got := a.RemoteAddr.Addr(); !slices.Contains(want, got) {
			r.Outcome, r.Expected, r.Seen = Failed, s.say.Sprintf("%s sees the client as %s", b, join(want, " or ")), s.say.Sprintf("it sees %s", got)
			r.Causes = []Cause{{Node: c.entry, Reason: reason, Cure: "labctl dbg " + c.entry + " bpf nat list"}}
			return r
		}
	}
	return r
}
