package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/lang"
)

// judgeNames checks that services' names lead to them: the full name as the name
// server answers it, and the short one as a program resolves it.
func (s *services) judgeNames() []Result {
	var results []Result
	for _, c := range s.names {
		want, sure := s.addressesOf(c.service)
		r := Result{Group: DNS, Node: c.asker.node, Name: fmt.Sprintf("%s → %s", c.asker, strings.TrimSuffix(s.fullName(c.service), ".")), Expected: addressesText(s.say, want)}
		query, known := s.answers[c.query]
		if !known || len(query.Attempts) == 0 {
			results = append(results, s.unseen(r, c.asker.node))
			continue
		}
		r.Outcome, r.Seen = OK, addressesText(s.say, query.Attempts[0].Addresses)
		if a := query.Attempts[0]; a.Error != "" && (a.Error != errorResolve || len(want) > 0) {
			r.Outcome, r.Seen = Failed, a.Message
			r.Causes = s.nameCauses(c, a)
		} else if sure && !slices.Equal(a.Addresses, want) {
			r.Outcome = Failed
			r.Causes = []Cause{{Node: c.asker.node, Reason: s.say.Sprintf("its name server has %s for service %s", r.Seen, shortKey(c.service.Key())), Cure: "labctl up"}}
		}
		if r.Outcome == OK && c.call >= 0 {
			r = s.judgeCall(r, c)
		}
		results = append(results, r)
	}
	return results
}

// judgeCall judges the short name, whatever becomes of the request itself.
func (s *services) judgeCall(r Result, c nameCheck) Result {
	got, known := s.answers[c.call]
	if !known || len(got.Attempts) == 0 || got.Resolved == c.service.ClusterIP {
		return r
	}
	r.Outcome, r.Seen = Failed, s.say.Sprintf("%s is %s", callName(c.service), got.Resolved)
	if !got.Resolved.IsValid() {
		r.Seen = got.Attempts[0].Message
	}
	if r.Causes = s.podObject(c.asker.pod); len(r.Causes) > 0 {
		return r
	}
	r.Causes = []Cause{{Node: c.asker.node, Reason: s.say.Sprintf("the short name %s does not lead to its service", callName(c.service)), Cure: on(c.asker.node, "cat /etc/resolv.conf")}}
	return r
}

// nameCauses say why a name server does not answer as it should.
func (s *services) nameCauses(c nameCheck, a api.FetchAttempt) []Cause {
	for _, service := range s.cluster.Services {
		if service.ClusterIP == s.cluster.DNS {
			if causes := s.differences[c.asker.node][service.Key()]; len(causes) > 0 {
				return withoutEffect(causes)
			}
		}
	}
	if a.Error == errorResolve {
		return []Cause{{Node: c.asker.node, Reason: s.say.Sprintf("its name server does not know service %s: %s", shortKey(c.service.Key()), a.Message), Cure: "labctl up"}}
	}
	if causes := s.podObject(c.asker.pod); len(causes) > 0 {
		return causes
	}
	return s.deafNameServer(c.asker.node, a.Message)
}

// deafNameServer says why a node's name server, which listens on the pod
// gateway, does not answer.
func (s *services) deafNameServer(node, message string) []Cause {
	if causes := append(s.gatewayCauses(node), s.datapathObjects(node)...); len(causes) > 0 {
		return causes
	}
	return []Cause{{Node: node, Reason: s.say.Sprintf("its name server does not answer on %s", s.cluster.DNS), Cure: "labctl status " + node, Effect: message}}
}

// addressesOf are the A records of a service: its ClusterIP, or for a headless
// one its ready pods; false where it is not known which those are.
func (s *services) addressesOf(service api.Service) ([]netip.Addr, bool) {
	if service.ClusterIP.IsValid() {
		return []netip.Addr{service.ClusterIP}, true
	}
	var addresses []netip.Addr
	sure := true
	for _, b := range service.Backends {
		pod, ok := s.pod(b.Pod)
		if !ok {
			continue
		}
		switch s.readiness(pod) {
		case ready:
			addresses = include(addresses, b.Address)
		case unheard:
			sure = false
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return addresses, sure
}

func addressesText(say lang.Printer, addresses []netip.Addr) string {
	if len(addresses) == 0 {
		return say.Sprintf("no address")
	}
	return join(addresses, " ")
}
