package check

import (
	"fmt"
	"slices"
	"strings"

	"gonum.org/v1/gonum/mathext"

	"github.com/native-routing/labctl/labctl/lang"
)

// unlikely is the probability below which a spread is no accident.
const unlikely = 1e-6

// leastShare is how many requests for each backend the chi-square test needs.
const leastShare = 5

// judgeSpread checks how the requests to each service with several backends
// are spread: evenly, or all to one backend where the client keeps its own.
func (s *services) judgeSpread() []Result {
	var results []Result
	for _, c := range s.balanced {
		if len(c.backends) < 2 || s.rows[c.row].target.Protocol != "http" {
			continue
		}
		r := Result{Group: Spread, Node: c.asker.node, Name: fmt.Sprintf("%s → %s", c.asker, shortKey(c.service.Key())), Expected: s.say.Sprintf("even within chance")}
		b := s.balancedOf(c)
		t, known := s.count(&b)
		if c.service.Affinity == 0 && s.rows[c.row].target.Count < leastShare*len(c.backends) {
			continue // too few to tell chance from choice
		}
		switch {
		case !known:
			r = s.unseen(r, c.asker.node)
		case c.service.Affinity > 0:
			r = s.judgeAffinity(r, b, t)
		default:
			r = s.judgeEven(r, b, t)
		}
		results = append(results, r)
	}
	return results
}

// judgeEven compares what each backend got with an equal share of all requests
// by Pearson's chi-square test. Requests that fail are the shares of the
// backends that cannot be reached.
func (s *services) judgeEven(r Result, b balanced, t tally) Result {
	if _, broken := b.anomalies(s.say, t); broken {
		b, t = b.answering()
	}
	statistic, cells, lost := 0.0, 0, 0
	share := float64(t.total) / float64(len(b.shares))
	cell := func(seen int, expected float64) {
		statistic += (float64(seen) - expected) * (float64(seen) - expected) / expected
		cells++
	}
	var counts []string
	for _, p := range b.shares {
		if p.lost() {
			lost++
			continue
		}
		cell(p.answered, share)
		counts = append(counts, fmt.Sprintf("%s %d", p.address.Addr(), p.answered))
	}
	if lost > 0 {
		cell(t.failed, share*float64(lost))
		counts = append(counts, s.say.Sprintf("lost %d", t.failed))
	}
	p := chance(statistic, cells-1)
	r.Outcome, r.Seen = OK, fmt.Sprintf("%s: p = %.2g", orNobody(s.say, counts), p)
	if p < unlikely {
		r.Outcome = Failed
		r.Causes = s.balanceCauses(b, t, []string{s.say.Sprintf("its share of requests is no accident")})
	}
	return r
}

// answering are the backends that did answer, with the requests that they got.
// Where the maps are wrong, that is another check's matter.
func (b balanced) answering() (balanced, tally) {
	t := tally{}
	b.shares = slices.DeleteFunc(slices.Clone(b.shares), func(p part) bool { return p.answered == 0 })
	for i := range b.shares {
		b.shares[i].way.outcome = OK
		t.total += b.shares[i].answered
	}
	return b, t
}

// chance is the probability of a chi-square statistic at least as large.
func chance(statistic float64, freedom int) float64 {
	if freedom < 1 {
		return 1
	}
	return mathext.GammaIncRegComp(float64(freedom)/2, statistic/2)
}

func orNobody(say lang.Printer, counts []string) string {
	if len(counts) == 0 {
		return say.Sprintf("nobody answers")
	}
	return strings.Join(counts, ", ")
}

// judgeAffinity checks that a client keeps its backend.
func (s *services) judgeAffinity(r Result, b balanced, t tally) Result {
	r.Expected = s.say.Sprintf("all requests to one backend")
	var used []string
	for _, p := range b.shares {
		if p.answered > 0 {
			used = append(used, p.address.Addr().String())
		}
	}
	used = append(used, slices.Sorted(slices.Values(t.strangers))...)
	if t.failed > 0 {
		used = append(used, s.say.Sprintf("one that does not answer"))
	}
	r.Seen, r.Outcome = s.say.Sprintf("all to %s", strings.Join(used, ", ")), OK
	if len(used) != 1 {
		r.Seen, r.Outcome = s.say.Sprintf("to %s", strings.Join(used, ", ")), Failed
		r.Causes = s.balanceCauses(b, t, []string{s.say.Sprintf("session affinity does not hold")})
	}
	return r
}
