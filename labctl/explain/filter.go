package explain

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/native-routing/labctl/agent/api"
)

// maybe is what becomes of a condition of a rule: one that is not understood is
// neither true nor false.
type maybe int

const (
	no maybe = iota
	unknown
	yes
)

// filtered takes the packet through the firewall's chains at one hook, in the
// order of their priority, and says whether that ended the way. What NAT rules
// there do is done.
func (t *walk) filtered(at Place, s *api.Space, hook, in, out string) bool {
	if hook == "prerouting" || hook == "output" {
		t.undo(at, true, "destination")
	} else if hook == "postrouting" || hook == "input" {
		t.undo(at, true, "source")
	}
	var chains []*api.Chain
	for i := range s.Chains {
		if s.Chains[i].Hook == hook {
			chains = append(chains, &s.Chains[i])
		}
	}
	slices.SortStableFunc(chains, func(a, b *api.Chain) int { return cmp.Compare(a.Priority, b.Priority) })
	f := filter{t: t, at: at, space: s, in: in, out: out}
	for _, c := range chains {
		if c.Type == "nat" && (t.reply() || t.alreadyTracked(at, s)) {
			continue // only the first packet of a connection meets them
		}
		if f.chain(c, 0) == "drop" {
			t.end(Firewall, func(e *End) {
				e.chain, e.rule, e.Answered = f.by, f.rule, f.rejected
				e.Device = cmp.Or(in, out, e.Device)
			})
			return true
		}
	}
	return false
}

// filter is one packet at one hook.
type filter struct {
	t       *walk
	at      Place
	space   *api.Space
	in, out string

	by       *api.Chain
	rule     *api.FilterRule
	rejected bool
}

// maxJumps bounds what the kernel bounds too (NFT_JUMP_STACK_SIZE).
const maxJumps = 16

// chain returns drop, accept, or empty for a chain that ends without a verdict.
func (f *filter) chain(c *api.Chain, depth int) string {
	for i := range c.Rules {
		r := &c.Rules[i]
		switch f.matches(r) {
		case no:
			continue
		case unknown:
			if r.Verdict == "drop" || r.Verdict == "reject" || r.Verdict == "jump" || r.Verdict == "goto" {
				hop := f.t.path.here()
				hop.Notes = append(hop.Notes, r.Text)
			}
			continue
		}
		if verdict, final := f.carryOut(c, r, depth); final {
			return verdict
		}
		if r.Verdict == "return" || r.Verdict == "goto" {
			break
		}
	}
	if c.Hook != "" && c.Policy == "drop" {
		f.by, f.rule = c, nil
		return "drop"
	}
	return ""
}

// carryOut does what a rule that matches says. Final is false where the next
// rule is to be looked at.
func (f *filter) carryOut(c *api.Chain, r *api.FilterRule, depth int) (verdict string, final bool) {
	switch r.Verdict {
	case "drop", "reject":
		f.by, f.rule, f.rejected = c, r, r.Verdict == "reject"
		return "drop", true
	case "accept":
		return "accept", true
	case "jump", "goto":
		to := f.find(c, r.Target)
		if to == nil || depth >= maxJumps {
			return "", false
		}
		if verdict := f.chain(to, depth+1); verdict != "" {
			return verdict, true
		}
	case "masquerade", "snat", "dnat":
		f.t.rule = ruleName(c, r)
		f.nat(r)
		f.t.rule = ""
		return "accept", true
	}
	return "", false
}

func (f *filter) find(of *api.Chain, name string) *api.Chain {
	for i := range f.space.Chains {
		c := &f.space.Chains[i]
		if c.Family == of.Family && c.Table == of.Table && c.Tool == of.Tool && c.Name == name {
			return c
		}
	}
	return nil
}

// nat translates as a rule of the kernel's NAT says.
func (f *filter) nat(r *api.FilterRule) {
	t := f.t
	switch r.Verdict {
	case "masquerade":
		if l := link(f.space, f.out); l != nil && len(l.Addresses) > 0 && l.Addresses[0].Addr() != t.packet.From {
			t.translate(f.at, "nat", "source", netip.AddrPortFrom(l.Addresses[0].Addr(), t.packet.SourcePort), true)
		}
	case "snat":
		if to, ok := endpoint(r.Target, t.packet.SourcePort); ok && to.Addr() != t.packet.From {
			t.translate(f.at, "nat", "source", to, true)
		}
	case "dnat":
		to, ok := endpoint(r.Target, t.packet.Port)
		if !ok {
			return
		}
		if len(t.tracked) == 1 && f.in == "" {
			t.called = netip.AddrPortFrom(t.packet.To, t.packet.Port)
		}
		t.translate(f.at, "nat", "destination", to, true)
	}
}

// endpoint reads what a NAT rule translates to: an address, or one with a port.
func endpoint(text string, port uint16) (netip.AddrPort, bool) {
	if to, err := netip.ParseAddrPort(text); err == nil {
		return to, true
	}
	a, err := netip.ParseAddr(text)
	return netip.AddrPortFrom(a, port), err == nil
}

// alreadyTracked says whether the kernel knows the connection since before, and
// translates the packet as it did then.
func (t *walk) alreadyTracked(at Place, s *api.Space) bool {
	p := t.packet
	if p.SourcePort == 0 {
		return false
	}
	for _, e := range s.Tracked {
		if e.Protocol != p.Protocol || e.Source != netip.AddrPortFrom(p.From, p.SourcePort) || e.Destination != netip.AddrPortFrom(p.To, p.Port) {
			continue
		}
		if e.ReplySource != e.Destination {
			t.backend = e.ReplySource
			if !ruleStands(s, e.ReplySource) {
				t.stale = &End{Cause: StaleFlow, Place: at, detail: e.ReplySource.String(), kernel: true}
			}
			t.translate(at, "nat", "destination", e.ReplySource, true)
		}
		return true
	}
	return false
}

// ruleStands says whether a rule of the firewall still translates to an address.
func ruleStands(s *api.Space, to netip.AddrPort) bool {
	for _, c := range s.Chains {
		for _, r := range c.Rules {
			if target, ok := endpoint(r.Target, to.Port()); ok && r.Verdict == "dnat" && target == to {
				return true
			}
		}
	}
	return false
}

// matches says whether all of a rule's conditions hold.
func (f *filter) matches(r *api.FilterRule) maybe {
	all := yes
	for _, m := range r.Matches {
		all = min(all, f.match(m))
	}
	return all
}

func (f *filter) match(m api.Match) maybe {
	if m.Key == "protocol" && len(m.Values) == 0 {
		return yes
	}
	result := no
	for _, v := range m.Values {
		result = max(result, f.matchOne(m.Key, v))
	}
	if m.Not && result != unknown {
		return yes - result
	}
	return result
}

func (f *filter) matchOne(key, value string) maybe {
	p := f.t.packet
	switch key {
	case "source":
		return addressMatches(p.From, value)
	case "destination":
		return addressMatches(p.To, value)
	case "in":
		return deviceMatches(f.in, value)
	case "out":
		return deviceMatches(f.out, value)
	case "protocol":
		return truth(value == p.Protocol || value == strconv.Itoa(protocolNumbers[p.Protocol]))
	case "sport":
		return portMatches(p.SourcePort, value)
	case "dport":
		return portMatches(p.Port, value)
	case "icmp-type":
		return f.icmpType(value)
	case "state":
		return truth(value == f.state())
	}
	return unknown
}

func (f *filter) icmpType(value string) maybe {
	is := "echo-request"
	if f.t.reply() {
		is = "echo-reply"
	}
	return truth(f.t.packet.Protocol == ICMP && (value == is || value == "any"))
}

// state is what connection tracking makes of the packet: a reply is established
// where the request went through, and invalid where it did not (new with UDP).
func (f *filter) state() string {
	switch {
	case !f.t.reply():
		return "new"
	case slices.Contains(f.t.tracked, f.at):
		return "established"
	case f.t.packet.Protocol == UDP:
		return "new"
	}
	return "invalid"
}

func truth(b bool) maybe {
	if b {
		return yes
	}
	return no
}

func addressMatches(a netip.Addr, value string) maybe {
	if prefix, err := netip.ParsePrefix(value); err == nil {
		return truth(prefix.Contains(a))
	}
	if one, err := netip.ParseAddr(value); err == nil {
		return truth(one == a)
	}
	low, high, ok := strings.Cut(value, "-")
	first, err1 := netip.ParseAddr(low)
	last, err2 := netip.ParseAddr(high)
	if !ok || err1 != nil || err2 != nil {
		return unknown
	}
	return truth(first.Compare(a) <= 0 && a.Compare(last) <= 0)
}

func deviceMatches(device, value string) maybe {
	if prefix, any := strings.CutSuffix(value, "*"); any {
		return truth(device != "" && strings.HasPrefix(device, prefix))
	}
	return truth(device == value)
}

// portMatches compares with a port or a range; a port that is not known may match.
func portMatches(port uint16, value string) maybe {
	low, high, ranged := strings.Cut(value, "-")
	if !ranged {
		high = low
	}
	first, err1 := strconv.ParseUint(low, 10, 16)
	last, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || port == 0 {
		return unknown
	}
	return truth(first <= uint64(port) && uint64(port) <= last)
}
