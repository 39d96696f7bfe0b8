package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// meant are the reasons of drops that checks bring about on purpose: a call to a
// service that has no backend there.
var meant = []string{
	"LB, sock cgroup: No backend slot entry found",
	"LB, sock cgroup: No backend entry found",
	"Service backend not found",
}

// judgeDrops checks that the datapath refused nothing while the checks ran: what
// is lost in a lab is lost by its network.
func (s *services) judgeDrops() []Result {
	var results []Result
	for _, node := range s.cluster.Nodes {
		r := Result{Group: Drops, Node: node.Name, Name: node.Name, Expected: s.say.Sprintf("no drops"), Outcome: OK, Seen: s.say.Sprintf("no drops")}
		first, before := s.dropsFirst[node.Name]
		last, after := s.dropsLast[node.Name]
		if !before || !after {
			results = append(results, s.unseen(r, node.Name))
			continue
		}
		var seen []string
		for _, reason := range slices.Sorted(maps.Keys(last)) {
			grown := last[reason] - first[reason]
			if last[reason] <= first[reason] || slices.Contains(meant, reason) && s.refusals() {
				continue
			}
			seen = append(seen, fmt.Sprintf("%d × %s", grown, reason))
			r.Causes = append(r.Causes, Cause{Node: node.Name, Reason: s.say.Sprintf("its datapath drops packets: %s", reason), Cure: "labctl dbg " + node.Name + " monitor"})
		}
		if len(seen) > 0 {
			r.Outcome, r.Seen = Failed, strings.Join(seen, ", ")
		}
		results = append(results, r)
	}
	return results
}

// refusals says whether any check called a service that has no backend there.
func (s *services) refusals() bool {
	return slices.ContainsFunc(s.balanced, func(c balancedCheck) bool { return len(c.backends) == 0 }) ||
		slices.ContainsFunc(s.ports, func(c portCheck) bool { return len(c.backends) == 0 })
}
