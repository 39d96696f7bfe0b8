package check

import (
	"net/netip"
	"slices"

	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/topologies/path"
)

// verdict is what became of one way between two ends: an outcome, and what to
// say of it to whoever sends by that way.
type verdict struct {
	outcome Outcome
	seen    string
	// reasons are why packets are lost, also where the stage declares it.
	reasons []Cause
	// declared says that the stage expects a loss.
	declared bool
}

// judgeReach judges the echoes that are results of their own.
func (s *services) judgeReach() []Result {
	var results []Result
	for _, i := range s.reach {
		f := s.flows[i]
		r := Result{Group: Reach, Node: f.from.node, Name: flowName(f), Expected: s.say.Sprintf("reply")}
		switch {
		case f.exception != nil:
			r.Expected = describe(s.say, f.exception)
		case f.from.pod != "":
			r.Expected = s.say.Sprintf("%s arrives, reply", f.from.address)
		}
		v := s.followed(i)
		results = append(results, v.result(r, s, f.from.node))
	}
	return results
}

// lost says whether what is sent by the way does not come back, or may not.
func (v verdict) lost() bool { return v.outcome != OK && v.outcome != UnexpectedSuccess }

// result puts a verdict into a result. An expected failure needs no cause.
func (v verdict) result(r Result, s *services, node string) Result {
	r.Outcome, r.Seen = v.outcome, v.seen
	switch {
	case v.outcome == Unknown && len(v.reasons) == 0:
		return s.unseen(r, node)
	case v.outcome.bad():
		r.Causes = v.reasons
	}
	return r
}

func flowName(f flow) string {
	from := f.from.node
	if f.from.pod != "" {
		from = asker{node: f.from.node, pod: f.from.pod}.String()
	}
	return from + " → " + f.to.String()
}

// followed says what became of the echo of a flow: what came back, and what the
// witnesses saw on the way.
func (s *services) followed(i int) verdict {
	f := s.flows[i]
	got, known := s.echoes[i]
	if !known {
		return verdict{outcome: Unknown}
	}
	there, back := legs(s.sightings[uint32(i)])
	if causes := s.wrongSource(f, there); len(causes) > 0 {
		return verdict{outcome: Failed, seen: s.say.Sprintf("%s arrives", there.source()), reasons: causes}
	}
	switch {
	case got.Received > 0 && f.exception != nil:
		return verdict{outcome: UnexpectedSuccess, seen: s.say.Sprintf("reply"), reasons: s.unexpected(f)}
	case got.Received > 0:
		return verdict{outcome: OK, seen: s.say.Sprintf("reply in %.2f ms", float64(got.RTTs[0].Microseconds())/1000)}
	}
	l := s.locate(f, there, back)
	if blind := s.blindFor(f, l); blind != "" {
		r := s.unwitnessed(Result{}, blind)
		return verdict{outcome: Unknown, seen: r.Seen, reasons: r.Causes}
	}
	v := verdict{outcome: Failed, seen: l.text(s.say), reasons: s.lossCauses(f, l)}
	if got.Failure != nil {
		v.seen += ": " + failureText(s.say, got.Failure)
	}
	if l.matches(f.exception) {
		v.outcome = ExpectedFailure
	}
	return v
}

// blindFor is a node that did not look out for packets and might have seen this
// one go on: where it was lost cannot be told then. Empty where it can.
func (s *services) blindFor(f flow, l loss) string {
	if l.device == "" {
		if f.from.node != f.to.node && !s.witnessing[l.node] {
			return l.node
		}
		return ""
	}
	if _, wired := s.healthy.Wires[path.Port{Node: l.node, Interface: l.device}]; !l.leaving || !wired {
		return ""
	}
	ways := f.there
	if l.reply {
		ways = nil
		for _, way := range f.ways() {
			ways = append(ways, s.healthy.Reply(way)...)
		}
	}
	for _, way := range ways {
		for _, node := range way.Nodes() {
			if !s.witnessing[node] {
				return node
			}
		}
	}
	return ""
}

// wrongSource says who gives the packets of a flow another source address than
// they should bear, or fails to.
func (s *services) wrongSource(f flow, there leg) []Cause {
	if f.from.pod == "" {
		return nil
	}
	right := []netip.Addr{f.from.address}
	if !f.from.pods {
		// The address of any device will do: one that leaves by another than it
		// should has another fault.
		right = s.addresses(f.from.node)
	}
	at, wrong := there.translator(right)
	switch {
	case !wrong:
		return nil
	case !f.from.pods && at == f.from.node:
		return []Cause{s.unmasked(at)}
	}
	return []Cause{translates(s.say, at)}
}

// addresses are the first of each of a node's own devices.
func (s *services) addresses(node string) []netip.Addr {
	n, _ := s.healthy.Node(node)
	var all []netip.Addr
	for _, link := range n.Links {
		if len(link.Addresses) > 0 {
			all = append(all, link.Addresses[0].Addr())
		}
	}
	return all
}

// translates is a node that changes source addresses which should stay.
func translates(say lang.Printer, node string) Cause {
	return Cause{Node: node, Reason: say.Sprintf("translates source addresses"), Cure: on(node, "nft list ruleset")}
}

// unmasked is a node that lets its pods' addresses out of the native CIDR.
func (s *services) unmasked(node string) Cause {
	return Cause{Node: node, Reason: s.say.Sprintf("does not masquerade what its pods send beyond %s", s.cluster.NativeCIDR), Cure: "labctl up"}
}

// lossCauses say why a packet was lost: the pod at its end is not there, the
// node's own way to its pods is broken, or whatever stops it between nodes.
func (s *services) lossCauses(f flow, l loss) []Cause {
	for _, key := range []string{f.to.pod, f.from.pod} {
		if p, ok := s.pod(key); ok && !s.alive(p) {
			return s.podCauses(p)
		}
	}
	if causes := s.endCauses(f); len(causes) > 0 {
		return causes
	}
	if f.from.node == f.to.node {
		return s.withinNode(f)
	}
	return s.diagnose(l)
}

// withinNode says why a packet does not come to a pod of the same node.
func (s *services) withinNode(f flow) []Cause {
	if causes := s.gatewayCauses(f.from.node); len(causes) > 0 {
		return causes
	}
	if f.to.pod == "" {
		return []Cause{{Node: f.from.node, Reason: s.say.Sprintf("does not answer its own pod %s", shortKey(f.from.pod)), Cure: "labctl dbg " + f.from.node + " monitor"}}
	}
	return []Cause{{Node: f.from.node, Reason: s.say.Sprintf("does not deliver to its own pod %s", shortKey(f.to.pod)), Cure: "labctl dbg " + f.from.node + " monitor"}}
}

// gatewayCauses are what is wrong with a node's pod gateway, by which it reaches
// its own pods and they reach it.
func (s *services) gatewayCauses(node string) []Cause {
	want, _ := s.healthy.Node(node)
	have, known := s.seen(node)
	link, ok := want.Link(path.GatewayDevice)
	if !ok || !known {
		return nil
	}
	seen, exists := have.Link(path.GatewayDevice)
	causes := linkCauses(s.say, node, link, seen, exists)
	for _, r := range want.Routes {
		if slices.ContainsFunc(r.NextHops, func(h path.NextHop) bool { return h.Device == path.GatewayDevice }) && sameKey(have.Routes, r) == nil {
			causes = append(causes, missingRoute(s.say, want, have, r)...)
		}
	}
	return unique(causes)
}
