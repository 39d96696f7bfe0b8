package check

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/native-routing/labctl/agent/api"
)

// judgeSources checks as whom each asker is seen: as itself by backends, and by
// what is outside the native CIDR as its node.
func (s *services) judgeSources() []Result {
	var results []Result
	for _, a := range s.askers {
		if r, asked := s.judgeSource(a); asked {
			results = append(results, r)
		}
	}
	for _, c := range s.pages {
		results = append(results, s.judgePage(c))
	}
	return results
}

// rowsOf are the asker's rows of requests for backends, directly or by a service.
func (s *services) rowsOf(a asker) (rows []int) {
	for _, c := range s.directs {
		if c.asker == a {
			rows = append(rows, c.row)
		}
	}
	for _, c := range s.balanced {
		if c.asker == a {
			rows = append(rows, c.row)
		}
	}
	return rows
}

// judgeSource looks at all answers that an asker got from backends.
func (s *services) judgeSource(a asker) (Result, bool) {
	r := Result{Group: Source, Node: a.node, Name: fmt.Sprintf("%s → backends", a), Expected: s.say.Sprintf("its own address arrives")}
	if a.pod != "" {
		r.Expected = s.say.Sprintf("%s arrives", a.address)
	}
	answers, known, rows := 0, false, s.rowsOf(a)
	var seen []netip.Addr
	for _, row := range rows {
		got, ok := s.answers[row]
		known = known || ok
		for _, attempt := range got.Attempts {
			if attempt.Error != "" || !attempt.RemoteAddr.IsValid() {
				continue
			}
			answers++
			from := attempt.RemoteAddr.Addr()
			if from != attempt.Local.Addr() || a.pod != "" && from != a.address {
				r.Outcome = Failed
				r.Causes = []Cause{translates(s.say, a.node)}
			}
			seen = include(seen, from)
		}
	}
	switch {
	case len(rows) == 0 || known && answers == 0:
		return r, false // nobody answered who says whom they saw
	case !known:
		return s.unseen(r, a.node), true
	}
	r.Seen = s.say.Sprintf("%s in %s", join(seen, " "), plural(s.say, answers, "1 answer", "%d answers"))
	if r.Outcome == "" {
		r.Outcome = OK
	}
	return r, true
}

// judgePage judges the request of a pod to a page outside the cluster.
func (s *services) judgePage(c pageCheck) Result {
	f := s.flows[c.flow]
	r := Result{Group: Source, Node: c.asker.node, Name: fmt.Sprintf("%s → page of %s", c.asker, f.to)}
	masked := !f.from.pods
	switch {
	case masked:
		r.Expected = s.say.Sprintf("%s arrives (masqueraded)", f.from.address)
	case f.exception != nil:
		r.Expected = describe(s.say, f.exception)
	default:
		r.Expected = s.say.Sprintf("%s arrives", f.from.address)
	}
	got, known := s.answers[c.row]
	if !known || len(got.Attempts) == 0 {
		return s.unseen(r, c.asker.node)
	}
	return s.judgeAnswer(r, c, f, got.Attempts[0])
}

func (s *services) judgeAnswer(r Result, c pageCheck, f flow, a api.FetchAttempt) Result {
	if a.Error != "" {
		echo := s.followed(c.flow)
		if echo.outcome == OK || echo.outcome == UnexpectedSuccess || a.Error != errorTimeout && a.Error != errorUnreachable {
			echo = verdict{outcome: Failed, seen: a.Message, reasons: s.unservedPage(c, f, a)}
		}
		return echo.result(r, s, c.asker.node)
	}
	r.Outcome, r.Seen = OK, s.say.Sprintf("%s arrives", a.RemoteAddr.Addr())
	switch from := a.RemoteAddr.Addr(); {
	case !a.RemoteAddr.IsValid():
		r.Outcome, r.Seen = Failed, s.say.Sprintf("a page that does not say who asked")
		r.Causes = []Cause{{Node: c.node, Reason: s.say.Sprintf("another server than the lab's answers on port %d", webPort), Cure: on(c.node, "ss -tlnp")}}
	case f.exception != nil:
		r.Outcome, r.Causes = UnexpectedSuccess, s.unexpected(f)
	case f.from.pods && from == f.from.address, !f.from.pods && slices.Contains(s.egresses(c.asker.node, f.to.address), from):
	case from == c.asker.address:
		r.Outcome, r.Causes = Failed, []Cause{s.unmasked(c.asker.node)}
	default:
		r.Outcome = Failed
		r.Causes = []Cause{{Node: c.asker.node, Reason: s.say.Sprintf("gives its pods the address %s instead of %s", from, f.from.address), Cure: "labctl dbg " + c.asker.node + " bpf nat list"}}
	}
	return r
}

// unservedPage is why a node that can be reached does not serve its page.
func (s *services) unservedPage(c pageCheck, f flow, a api.FetchAttempt) []Cause {
	if causes := s.endCauses(f); len(causes) > 0 {
		return causes
	}
	if swallowed(a) && len(s.suspects) > 0 {
		return []Cause{s.filtered()}
	}
	return []Cause{{Node: c.node, Cure: "labctl status " + c.node, Effect: a.Message, Reason: s.say.Sprintf("does not serve its page on port %d", webPort)}}
}

// judgeReverse checks that sockets name the address that was called.
func (s *services) judgeReverse() []Result {
	var results []Result
	for _, a := range s.askers {
		r := Result{Group: Reverse, Node: a.node, Name: fmt.Sprintf("%s → services", a), Expected: s.say.Sprintf("sockets name the address that was called"), Outcome: OK}
		answers, known, rows := 0, false, s.calledRows(a)
		for _, row := range rows {
			got, ok := s.answers[row]
			known = known || ok
			called := netip.AddrPortFrom(s.rows[row].target.To, s.rows[row].target.Port)
			for _, attempt := range got.Attempts {
				if attempt.Error != "" {
					continue
				}
				answers++
				if attempt.Peer != called && r.Outcome == OK {
					r.Outcome, r.Seen = Failed, s.say.Sprintf("%s for %s", attempt.Peer, called)
					r.Causes = []Cause{{Node: a.node, Reason: s.say.Sprintf("sockets name the backend, not the service: the reverse translation does not work"), Cure: "labctl status " + a.node}}
				}
			}
		}
		switch {
		case len(rows) == 0 || known && answers == 0:
			continue
		case !known:
			r = s.unseen(r, a.node)
		case r.Outcome == OK:
			r.Seen = s.say.Sprintf("so do all %d", answers)
		}
		results = append(results, r)
	}
	return results
}

// calledRows are the asker's rows of requests to services.
func (s *services) calledRows(a asker) (rows []int) {
	for _, c := range s.balanced {
		if c.asker == a {
			rows = append(rows, c.row)
		}
	}
	for _, c := range s.ports {
		if c.asker == a {
			rows = append(rows, c.row)
		}
	}
	return rows
}
