package check

import (
	"net/netip"
	"slices"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
)

// targets are the addresses that the FIB of a node is asked about: those of the
// flows by which it reaches other nodes and their pods.
func (v *verification) targets(node string) []end {
	var ends []end
	for _, f := range v.flows {
		if f.from.node == node && !f.from.pods && f.from.pod == "" && f.to.node != node {
			ends = append(ends, f.to)
		}
	}
	return ends
}

func (v *verification) queries(node string) []api.Lookup {
	var queries []api.Lookup
	for _, e := range v.targets(node) {
		queries = append(queries, api.Lookup{To: e.address})
	}
	return queries
}

// fib checks the kernel's own decision on every target against the predicted one.
func (v *verification) fib(want path.Node) []Result {
	var results []Result
	for i, to := range v.targets(want.Name) {
		d := want.Lookup(to.address)
		r := Result{Group: FIB, Node: want.Name, Name: want.Name + " → " + to.String(), Expected: decisionText(d.Type, d.NextHops, sourceOf(want, d))}
		decisions, known := v.decisions[want.Name]
		if !known {
			results = append(results, v.unknown(r, want.Name))
			continue
		}
		got := decisions[i]
		r.Seen, r.Outcome = seenDecision(got), OK
		if !agrees(want, d, got) {
			r.Outcome = Failed
			r.Causes = v.misdecided(want, d, to.address)
		}
		results = append(results, r)
	}
	return results
}

// sourceOf is the source that all next hops share, or none.
func sourceOf(n path.Node, d path.Decision) (source netip.Addr) {
	if len(d.NextHops) == 1 {
		return n.SourceFor(d, d.NextHops[0])
	}
	return source
}

func seenDecision(d api.Decision) string {
	if d.Error != "" {
		return d.Error
	}
	return decisionText(d.Type, []path.NextHop{{Via: d.Via, Device: d.Device}}, d.Source)
}

// agrees compares a decision of the kernel with the predicted one; of several
// next hops any will do.
func agrees(n path.Node, want path.Decision, got api.Decision) bool {
	switch {
	case want.Type == path.Local:
		return got.Type == path.Local
	case want.Type != path.Unicast: // no route, or one that forbids
		return got.Error != ""
	case got.Type != path.Unicast:
		return false
	}
	hop := path.NextHop{Via: got.Via, Device: got.Device}
	return slices.Contains(want.NextHops, hop) && n.SourceFor(want, hop) == got.Source
}

// misdecided says why a FIB decides otherwise than it should.
func (v *verification) misdecided(want path.Node, d path.Decision, to netip.Addr) []Cause {
	if causes := v.misrouted(path.Hop{Node: want.Name}, to); len(causes) > 0 {
		return causes
	}
	if causes := v.overruled(path.Path{To: to, Hops: []path.Hop{{Node: want.Name}}}); len(causes) > 0 {
		return causes
	}
	node, _ := v.observed.Node(want.Name)
	for _, h := range d.NextHops {
		wantLink, _ := want.Link(h.Device)
		link, exists := node.Link(h.Device)
		if causes := linkCauses(v.say, node.Name, wantLink, link, exists); len(causes) > 0 {
			return causes // the right route, with another source address
		}
	}
	return []Cause{{Node: node.Name, Reason: v.say.Sprintf("decides otherwise than its tables say"), Cure: on(node.Name, "ip route get %s", to)}}
}

// decision is what the node's kernel answered for the address; false where it was not asked.
func (v *verification) decision(node string, to netip.Addr) (api.Decision, bool) {
	for i, e := range v.targets(node) {
		if decisions := v.decisions[node]; e.address == to && i < len(decisions) {
			return decisions[i], true
		}
	}
	return api.Decision{}, false
}
