package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/topologies/topo"
)

// balanced is a row of requests to one address that stands for several backends.
type balanced struct {
	// from is where the requests meet the maps: the asker's node, or the node
	// whose port is called.
	from     asker
	service  api.Service
	shares   []part
	protocol string
	// full means that every backend was drawn.
	full bool
	// outside means that packets come to the node that balances. Where there is no
	// backend it answers them with an ICMP error, which may be lost on its way;
	// within the cluster the caller's socket is refused at once.
	outside bool
	row     int
}

// part is what one backend got of a row of requests.
type part struct {
	backend
	way      verdict
	answered int
	took     time.Duration // the request to its own address
}

// lost says whether requests to the backend cannot be answered.
func (p part) lost() bool { return p.way.lost() }

// tally is what came of a row of requests.
type tally struct {
	total, failed int
	strangers     []string // who answered and is no backend
	failure       string   // the last failure's text
	errors        []string // the classes of the failures, each once
}

func (s *services) balancedOf(c balancedCheck) balanced {
	b := balanced{from: asker{node: c.asker.node}, service: c.service, protocol: s.rows[c.row].target.Protocol, full: c.full && c.service.Affinity == 0 && !s.short[c.row], row: c.row}
	for _, one := range c.backends {
		b.shares = append(b.shares, part{backend: one, way: s.way(c.asker, one), took: s.took(c.asker, one)})
	}
	return b
}

// took is how long a backend kept the one waiting who asked it at its own address.
func (s *services) took(a asker, b backend) time.Duration {
	if c, ok := s.directOf(a, b); ok {
		for _, attempt := range s.answers[c.row].Attempts {
			return attempt.Took
		}
	}
	return s.patient(fetchTimeout)
}

// count tells the attempts of a row apart.
func (s *services) count(b *balanced) (tally, bool) {
	got, known := s.answers[b.row]
	if !known || len(got.Attempts) == 0 {
		return tally{}, false
	}
	t := tally{total: len(got.Attempts)}
	for _, a := range got.Attempts {
		if a.Error != "" {
			t.failed++
			t.failure = a.Message
			t.errors = include(t.errors, a.Error)
			continue
		}
		if b.protocol != "http" {
			continue
		}
		if at := slices.IndexFunc(b.shares, func(p part) bool { return p.hostname() == a.Hostname }); at >= 0 {
			b.shares[at].answered++
		} else {
			t.strangers = include(t.strangers, a.Hostname)
		}
	}
	return t, true
}

// judgeServices judges the requests to services' own addresses.
func (s *services) judgeServices() []Result {
	var results []Result
	for _, c := range s.balanced {
		port := c.service.Ports[c.port]
		r := Result{Group: Service, Node: c.asker.node,
			Name: fmt.Sprintf("%s → %s %s:%d/%s", c.asker, shortKey(c.service.Key()), c.service.ClusterIP, port.Port, cmp.Or(port.Protocol, "TCP"))}
		results = append(results, s.judgeBalanced(r, s.balancedOf(c)))
	}
	return results
}

// judgeBalanced judges one row of requests: who answers must be exactly the
// backends that can be reached, and what fails exactly the rest.
func (s *services) judgeBalanced(r Result, b balanced) Result {
	r.Expected = b.expected(s.say)
	t, known := s.count(&b)
	if !known {
		return s.unseen(r, r.Node)
	}
	if len(b.shares) == 0 {
		return s.judgeRefused(r, b, t)
	}
	r.Seen = b.seen(s.say, t)
	wrong, broken := b.anomalies(s.say, t)
	if broken {
		r.Outcome, r.Seen = Failed, strings.Join(append([]string{r.Seen}, wrong...), "; ")
		r.Causes = s.balanceCauses(b, t, wrong)
		return r
	}
	r.Outcome = b.outcome(t)
	if slices.ContainsFunc(b.shares, part.lost) && r.Outcome != OK {
		r.Seen = s.explain(b, t)
	}
	for _, p := range b.shares {
		if r.Outcome.bad() && p.way.outcome == r.Outcome {
			r.Causes = unique(append(r.Causes, p.way.reasons...))
		}
	}
	if r.Outcome == Unknown && len(r.Causes) == 0 {
		return s.unseen(r, r.Node)
	}
	return r
}

// outcome follows from the ways to the backends, where nothing else is amiss. A
// client that keeps its backend meets only that one's way.
func (b balanced) outcome(t tally) Outcome {
	if b.service.Affinity > 0 && t.failed == 0 {
		return OK
	}
	outcome := OK
	for _, worse := range []Outcome{ExpectedFailure, UnexpectedSuccess, Unknown, Failed} {
		if slices.ContainsFunc(b.shares, func(p part) bool { return p.way.outcome == worse }) {
			outcome = worse
		}
	}
	return outcome
}

// expected is what should come of the requests, in a few words.
func (b balanced) expected(say lang.Printer) string {
	var answer, lose []string
	for _, p := range b.shares {
		if p.way.declared {
			lose = append(lose, p.address.String())
		} else {
			answer = append(answer, p.address.String())
		}
	}
	var texts []string
	switch {
	case len(b.shares) == 0:
		return say.Sprintf("refused: no backend")
	case b.service.Affinity > 0:
		texts = append(texts, say.Sprintf("one of %s for all requests", strings.Join(append(answer, lose...), " ")))
		return texts[0]
	case len(answer) > 0:
		texts = append(texts, say.Sprintf("answers of %s", strings.Join(answer, " ")))
	}
	if len(lose) > 0 {
		texts = append(texts, say.Sprintf("requests to %s lost", strings.Join(lose, " ")))
	}
	return strings.Join(texts, ", ")
}

// seen is who answered how often.
func (b balanced) seen(say lang.Printer, t tally) string {
	text := plural(say, t.total-t.failed, "1 answer", "%d answers")
	if b.protocol == "http" {
		var counts []string
		for _, p := range b.shares {
			counts = append(counts, fmt.Sprintf("%s %d", p.address.Addr(), p.answered))
		}
		text += " (" + strings.Join(counts, ", ") + ")"
	}
	if t.failed > 0 {
		text += say.Sprintf(", %d of %d failed", t.failed, t.total)
	}
	return text
}

// anomalies are what the ways to the backends do not account for.
func (b balanced) anomalies(say lang.Printer, t tally) (texts []string, some bool) {
	lost := slices.ContainsFunc(b.shares, part.lost)
	for _, name := range t.strangers {
		texts = append(texts, say.Sprintf("%s answers, which is none of its backends", name))
	}
	for _, p := range b.shares {
		switch {
		case b.protocol != "http":
		case p.lost() && p.answered > 0 && p.way.outcome != Unknown:
			texts = append(texts, say.Sprintf("%s answers, although it cannot be reached directly", p))
		case b.full && !p.lost() && !p.doubtful && p.answered == 0:
			texts = append(texts, say.Sprintf("%s never answers", p))
		}
	}
	if t.failed > 0 && !lost {
		texts = append(texts, say.Sprintf("%d of %d requests fail: %s", t.failed, t.total, t.failure))
	}
	if t.failed == 0 && lost && b.full && !slices.ContainsFunc(b.shares, func(p part) bool { return p.lost() && (p.doubtful || p.way.outcome == Unknown) }) {
		texts = append(texts, say.Sprintf("no request fails"))
	}
	return texts, len(texts) > 0
}

// balanceCauses say why requests do not end as they should: the maps by which
// they go, the ways to backends, or neither.
func (s *services) balanceCauses(b balanced, t tally, wrong []string) []Cause {
	if causes := s.differences[b.from.node][b.service.Key()]; len(causes) > 0 {
		return withoutEffect(causes)
	}
	var causes []Cause
	for _, p := range b.shares {
		if p.way.outcome.bad() {
			causes = append(causes, p.way.reasons...)
		}
	}
	if len(causes) == 0 {
		causes = s.callerCauses(b)
	}
	if len(causes) == 0 && t.failed == t.total {
		causes = s.deafCauses(b, t)
	}
	if len(causes) == 0 && slices.Equal(t.errors, []string{errorTimeout}) && len(t.strangers) == 0 && len(s.suspects) > 0 {
		causes = []Cause{s.filtered()}
	}
	if len(causes) == 0 {
		causes = []Cause{{Node: b.from.node, Cure: "labctl dbg " + b.from.node + " monitor", Effect: strings.Join(wrong, "; "),
			Reason: s.say.Sprintf("does not balance service %s as its maps say", shortKey(b.service.Key()))}}
	}
	return unique(causes)
}

// callerCauses are what agents know to be wrong with the pod that calls, and with
// the datapath of the node that balances.
func (s *services) callerCauses(b balanced) []Cause {
	if causes := s.podObject(s.rows[b.row].asker.pod); len(causes) > 0 {
		return causes
	}
	return s.datapathObjects(b.from.node, s.rows[b.row].asker.pod)
}

// deafCauses say why nothing answers at all: a name server is no pod, and an
// outside caller must come to the node that balances.
func (s *services) deafCauses(b balanced, t tally) []Cause {
	if b.service.ClusterIP == s.cluster.DNS {
		return s.deafNameServer(b.from.node, t.failure)
	}
	for _, c := range s.ports {
		if c.row != b.row || c.flow < 0 {
			continue
		}
		if v := s.followed(c.flow); v.outcome.bad() && v.outcome != Unknown {
			return v.reasons
		}
		return []Cause{{Node: c.entry, Effect: t.failure, Cure: "labctl dbg " + c.entry + " monitor",
			Reason: s.say.Sprintf("NodePort %d of service %s does not answer to callers from outside", c.service.Ports[c.port].NodePort, shortKey(c.service.Key()))}}
	}
	return nil
}

func withoutEffect(causes []Cause) []Cause {
	causes = slices.Clone(causes)
	for i := range causes {
		causes[i] = causes[i].fault()
	}
	return unique(causes)
}

// judgeRefused judges requests to a service that has no backend there.
func (s *services) judgeRefused(r Result, b balanced, t tally) Result {
	r.Seen, r.Outcome = t.failure, OK
	if ending := s.ending(b); len(ending) > 0 {
		r.Expected = s.say.Sprintf("answers of terminating backends, until they are gone: %s", strings.Join(ending, " "))
		r.Seen = cmp.Or(t.failure, plural(s.say, t.total, "1 answer", "%d answers"))
		return r
	}
	switch {
	case t.failed < t.total:
		r.Seen, r.Outcome = plural(s.say, t.total-t.failed, "1 answer", "%d answers"), Failed
		r.Causes = s.balanceCauses(b, t, t.strangers)
	case !b.outside && slices.Contains(t.errors, errorTimeout):
		r.Outcome = Failed
		r.Causes = s.balanceCauses(b, t, []string{s.say.Sprintf("calls are lost instead of refused")})
	}
	return r
}

// ending are the backends of a service that are about to end, and that the maps
// of the node that balances turn to where there is no other.
func (s *services) ending(b balanced) (addresses []string) {
	for _, f := range s.tablesOf[b.from.node].Frontends {
		for _, u := range usable(f) {
			if f.Service == b.service.Key() && u.State == stateTerminating {
				addresses = include(addresses, u.Address.String())
			}
		}
	}
	return addresses
}

// explain joins the maps with what can be reached: which backend of the map
// takes requests that are lost, which part of all requests that is, and why.
func (s *services) explain(b balanced, t tally) string {
	var texts []string
	lost := 0
	for _, p := range b.shares {
		if p.lost() {
			lost++
			texts = append(texts, s.say.Sprintf("backend %s (%s, %s)", s.backendID(b, p.backend), p.address.Addr(), p.node))
		}
	}
	service, backends, part := shortKey(b.service.Key()), strings.Join(texts, s.say.Sprintf(" and ")), fraction(s.say, lost, len(b.shares), b.service)
	text := s.say.Sprintf("%s: %s is active in the map and unreachable from %s: %s", service, backends, b.from.node, part)
	if lost > 1 {
		text = s.say.Sprintf("%s: %s are active in the map and unreachable from %s: %s", service, backends, b.from.node, part)
	}
	if reasons := s.reasons(b); reasons != "" {
		text += "; " + reasons
	}
	return s.say.Sprintf("%s (%d of %d failed)", text, t.failed, t.total)
}

// backendID is the number of a backend in the maps of the node that balances.
func (s *services) backendID(b balanced, of backend) string {
	for _, f := range s.tablesOf[b.from.node].Frontends {
		for _, have := range f.Backends {
			if have.Address == of.address {
				return fmt.Sprint(have.ID)
			}
		}
	}
	return "?"
}

// reasons are why backends cannot be reached, each once.
func (s *services) reasons(b balanced) string {
	var causes []Cause
	for _, p := range b.shares {
		if p.lost() {
			causes = append(causes, p.way.reasons...)
		}
	}
	return s.sentences(causes)
}

// sentences are causes as parts of one sentence, each once.
func (s *services) sentences(causes []Cause) string {
	var texts []string
	for _, c := range causes {
		texts = include(texts, s.sentence(c.fault()))
	}
	return strings.Join(texts, "; ")
}

// sentence is a cause as part of a sentence: the router has no route for …
func (s *services) sentence(c Cause) string {
	n, ok := s.topology.Nodes.Get(c.Node)
	name := c.Node
	if ok && n.Role == topo.RoleRouter && name == string(topo.RoleRouter) {
		name = "the router"
	}
	for _, verb := range []string{"has ", "does ", "drops ", "translates "} {
		if strings.HasPrefix(c.Reason, verb) {
			return name + " " + c.Reason
		}
	}
	return c.String()
}

// fraction says which part of the requests fails.
func fraction(say lang.Printer, lost, all int, service api.Service) string {
	switch {
	case service.Affinity > 0:
		return say.Sprintf("all requests of a client that keeps to it fail")
	case lost == all:
		return say.Sprintf("every request fails")
	case lost == 1:
		return say.Sprintf("one request in %s fails", number(say, all))
	}
	return say.Sprintf("%s requests in %s fail", number(say, lost), number(say, all))
}

// number is a small number as one writes it in a sentence.
func number(say lang.Printer, n int) string {
	words := []string{"no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"}
	if n < len(words) && say.Language() == lang.English {
		return words[n]
	}
	return fmt.Sprint(n)
}
