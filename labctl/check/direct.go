package check

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
)

// The classes of a failed [api.FetchAttempt] that mean something of their own here.
const (
	errorTimeout     = "timeout"
	errorRefused     = "refused"
	errorUnreachable = "unreachable"
	errorResolve     = "resolve"
)

// judgeDirect judges the requests to backends' own addresses.
func (s *services) judgeDirect() []Result {
	var results []Result
	for _, c := range s.directs {
		f := s.flows[c.flow]
		r := Result{Group: Direct, Node: c.asker.node, Name: fmt.Sprintf("%s → %s", c.asker, c.backend), Expected: s.say.Sprintf("answers")}
		if f.exception != nil {
			r.Expected = describe(s.say, f.exception)
		}
		v := s.directly(c)
		r = v.result(r, s, c.asker.node)
		if v.outcome == ExpectedFailure {
			r.Seen += "; " + s.sentences(v.reasons) // the lesson, told where the student looks for it
		}
		results = append(results, r)
	}
	return results
}

// directly says what became of the request to a backend, with the echo on the
// same way to tell where it was lost.
func (s *services) directly(c directCheck) verdict {
	got, known := s.answers[c.row]
	if !known || len(got.Attempts) == 0 {
		return verdict{outcome: Unknown}
	}
	a := got.Attempts[0]
	f := s.flows[c.flow]
	if a.Error == "" {
		return s.answeredDirectly(c, f, a)
	}
	echo := s.followed(c.flow)
	if echo.outcome == OK || echo.outcome == UnexpectedSuccess || a.Error != errorTimeout && a.Error != errorUnreachable {
		return verdict{outcome: Failed, seen: a.Message, reasons: s.unserved(c, a)}
	}
	return echo
}

func (s *services) answeredDirectly(c directCheck, f flow, a api.FetchAttempt) verdict {
	switch {
	case a.Hostname != "" && a.Hostname != c.backend.hostname():
		return verdict{outcome: Failed, seen: s.say.Sprintf("%s answers", a.Hostname), reasons: []Cause{{Node: c.backend.node, Cure: "labctl get pods -o wide",
			Reason: s.say.Sprintf("%s answers for %s, which is %s", a.Hostname, c.backend.address, c.backend.hostname())}}}
	case f.exception != nil:
		return verdict{outcome: UnexpectedSuccess, seen: s.say.Sprintf("answers"), reasons: s.unexpected(f)}
	}
	return verdict{outcome: OK, seen: s.say.Sprintf("answers in %.2f ms", float64(a.Took.Microseconds())/1000)}
}

// unserved is why a backend that can be reached does not answer a request. What
// no listener does, to swallow a connection, is not its own doing.
func (s *services) unserved(c directCheck, a api.FetchAttempt) []Cause {
	if causes := s.endCauses(s.flows[c.flow]); len(causes) > 0 {
		return causes
	}
	if !swallowed(a) || len(s.suspects) == 0 {
		return []Cause{s.closed(c.backend, a)}
	}
	at, known := s.directOf(asker{node: c.backend.node}, c.backend)
	if len(s.swallowers) == 1 && s.swallowers[0] == c.backend.address && !(known && s.answered(at)) {
		return []Cause{s.closed(c.backend, a)} // nobody reaches this one, and all others are reached
	}
	return []Cause{s.filtered()}
}

// swallowed says whether a connection was not even refused.
func swallowed(a api.FetchAttempt) bool { return a.Error == errorTimeout && !a.Peer.IsValid() }

// filtered is the cause of connections that are lost where echoes pass.
func (s *services) filtered() Cause {
	cause := Cause{Node: s.suspects[0], Reason: s.say.Sprintf("drops TCP that its tables would pass on, and lets echoes pass: a firewall rule or a program does it"), Cure: on(s.suspects[0], "nft list ruleset")}
	if len(s.suspects) > 1 {
		cause.Node, cause.Reason = "", s.say.Sprintf("one of %s drops TCP that its tables would pass on, and lets echoes pass: a firewall rule or a program does it", strings.Join(s.suspects, ", "))
	}
	return cause
}

func (s *services) answered(c directCheck) bool {
	got := s.answers[c.row]
	return len(got.Attempts) > 0 && got.Attempts[0].Error == ""
}

// filters finds the nodes that may be dropping TCP where echoes pass: those that
// all such requests meet and, if that leaves any, no request that is answered.
func (s *services) filters() []string {
	var common, clean []string
	first := true
	look := func(flow, row int) (lost bool) {
		f, got := s.flows[flow], s.answers[row]
		if len(got.Attempts) == 0 {
			return false
		}
		met := s.met(f)
		switch {
		case got.Attempts[0].Error == "":
			clean = append(clean, met...)
			return false
		case !swallowed(got.Attempts[0]) || s.followed(flow).outcome != OK || len(s.endCauses(f)) > 0:
			return false
		case first:
			common, first = met, false
		default:
			common = slices.DeleteFunc(common, func(n string) bool { return !slices.Contains(met, n) })
		}
		return true
	}
	for _, c := range s.directs {
		if look(c.flow, c.row) {
			s.swallowers = include(s.swallowers, c.backend.address)
		}
	}
	for _, c := range s.pages {
		if look(c.flow, c.row) {
			s.swallowers = include(s.swallowers, netip.AddrPortFrom(s.flows[c.flow].to.address, webPort))
		}
	}
	if left := slices.DeleteFunc(slices.Clone(common), func(n string) bool { return slices.Contains(clean, n) }); len(left) > 0 {
		return left
	}
	return common
}

// met are the nodes that the packets of a flow meet, there and back.
func (s *services) met(f flow) []string {
	nodes := []string{f.from.node}
	for _, way := range f.ways() {
		for _, p := range append([]path.Path{way}, s.healthy.Reply(way)...) {
			for _, node := range p.Nodes() {
				nodes = include(nodes, node)
			}
		}
	}
	return nodes
}

// closed is a backend that can be reached and does not serve.
func (s *services) closed(b backend, a api.FetchAttempt) Cause {
	c := Cause{Node: b.node, Cure: "labctl get pods -o wide"}
	who := s.say.Sprintf("the address %s", b.address.Addr())
	if b.pod != nil {
		who = s.say.Sprintf("pod %s", shortKey(b.pod.Key()))
	}
	switch a.Error {
	case errorRefused:
		c.Reason = s.say.Sprintf("%s refuses port %d: nothing listens there", who, b.address.Port())
	case errorTimeout:
		c.Reason = s.say.Sprintf("%s answers echoes, and nothing on port %d", who, b.address.Port())
		if !swallowed(a) {
			c.Reason = s.say.Sprintf("%s takes connections to port %d and does not answer them: its program has stopped or is busy", who, b.address.Port())
		}
	default:
		c.Reason = s.say.Sprintf("%s does not serve on port %d: %s", who, b.address.Port(), a.Message)
	}
	return c
}

// way is the verdict on the way from an asker to a backend. An address that is
// no pod's is the asker's own node's.
func (s *services) way(a asker, b backend) verdict {
	if b.pod == nil {
		return verdict{outcome: OK}
	}
	if b.pod.Key() == a.pod {
		return s.toItself(a, b)
	}
	if c, ok := s.directOf(a, b); ok {
		v := s.directly(c)
		if !s.selection.node(a.node) {
			v = s.foreseen(s.flows[c.flow])
		}
		v.declared = s.flows[c.flow].exception != nil
		return v
	}
	return verdict{outcome: OK}
}

func (s *services) directOf(a asker, b backend) (directCheck, bool) {
	if at, ok := s.directAt[directKey{a.node, a.pod, b.address}]; ok {
		return s.directs[at], true
	}
	for _, lead := range s.askers { // a sample: what a neighbour of its kind finds
		if lead.lead && lead.node == a.node && (lead.pod == "") == (a.pod == "") {
			if at, ok := s.directAt[directKey{lead.node, lead.pod, b.address}]; ok {
				return s.directs[at], true
			}
		}
	}
	return directCheck{}, false
}

// toItself is the verdict on a pod's way to itself, which no route can spoil: it
// serves or it does not, and its node knows.
func (s *services) toItself(a asker, b backend) verdict {
	if c, ok := s.directOf(asker{node: a.node}, b); ok && s.followed(c.flow).outcome == OK {
		return s.directly(c)
	}
	return verdict{outcome: OK}
}

// foreseen is the verdict on a way that nobody was to send by: what the observed
// tables make of it.
func (s *services) foreseen(f flow) verdict {
	for _, way := range s.observed.Trace(f.from.node, f.from.address, f.to.address) {
		if way.Fate != path.Delivered {
			return s.foreseenLoss(f, way, false)
		}
		for _, back := range s.observed.Reply(way) {
			if back.Fate != path.Delivered {
				return s.foreseenLoss(f, back, true)
			}
		}
	}
	if f.exception != nil {
		return verdict{outcome: UnexpectedSuccess, seen: s.say.Sprintf("its tables let it pass"), reasons: s.unexpected(f)}
	}
	return verdict{outcome: OK}
}

func (s *services) foreseenLoss(f flow, way path.Path, reply bool) verdict {
	last := way.End().Last()
	l := loss{packet: packet{way.Hops[0].Node, way.Source, way.To}, node: last.Node, device: cmp.Or(last.Out, last.In), leaving: last.Out != "", reply: reply}
	v := verdict{outcome: Failed, seen: l.text(s.say), reasons: s.why(way)}
	if l.matches(f.exception) {
		v.outcome = ExpectedFailure
	}
	return v
}
