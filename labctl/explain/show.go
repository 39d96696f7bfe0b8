package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/ladder"
	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/topologies/path"
)

// Text is the report as a student reads it in a terminal.
func (r *Report) Text(p lang.Printer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.title(p))
	if r.Headline != "" {
		fmt.Fprintf(&b, "\n%s\n", p.Sprintf("Seen is not what was predicted: %s", r.Headline))
	}
	for i := range r.Ways {
		r.Ways[i].text(&b, p)
	}
	for i, seen := range r.Observed {
		r.observedText(&b, p, i, seen)
	}
	fmt.Fprintf(&b, "\n%s\n", r.Verdict.Sentence)
	for _, also := range r.Verdict.Also {
		fmt.Fprintf(&b, "%s\n", also)
	}
	for _, f := range r.Verdict.Remarks {
		fmt.Fprintf(&b, "%s\n", p.Sprintf("note: %s", f.Reason))
		if len(f.Cures) > 0 {
			fmt.Fprintf(&b, "%s\n", p.Sprintf("Mend it: %s", joined(f.Cures)))
		}
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "%s\n", p.Sprintf("warning: %s", w))
	}
	return b.String()
}

// title is the question in a line.
func (r *Report) title(p lang.Printer) string {
	q := r.Question.Packet
	what := q.Protocol
	if q.Port != 0 {
		what += fmt.Sprintf(" %d", q.Port)
	}
	if q.DontFragment {
		what = p.Sprintf("%s, %d bytes that must not be fragmented", what, q.Size)
	}
	from := q.From
	if len(r.Ways) > 0 {
		from = r.Ways[0].Packet.From
	}
	return p.Sprintf("%s to %s, %s", withAddress(r.From, from), withAddress(r.To, q.To), what)
}

// withAddress is a name with its address, where it does not say that itself.
func withAddress(name string, a netip.Addr) string {
	if !a.IsValid() || strings.HasPrefix(name, a.String()) {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, a)
}

func (w *Way) text(b *strings.Builder, p lang.Printer) {
	if w.Backend.IsValid() {
		fmt.Fprintf(b, "\n%s\n", p.Sprintf("backend %s", w.Backend))
	}
	w.Request.text(b, p)
	if w.Reply != nil {
		w.Reply.text(b, p)
	}
}

// heading is the name of a leg.
func (p *Path) heading(l lang.Printer) string {
	if p.Leg == Reply {
		return l.Sprintf("reply")
	}
	return l.Sprintf("request")
}

func (p *Path) text(b *strings.Builder, l lang.Printer) {
	fmt.Fprintf(b, "\n%s\n", p.heading(l))
	place, in := 4, 2
	for _, h := range p.Hops {
		place, in = max(place, len(h.Place.Name())), max(in, len(inText(h)))
	}
	for i := range p.Hops {
		h := &p.Hops[i]
		lines := h.lines(l)
		b.WriteString(strings.TrimRight(fmt.Sprintf("  %-*s  %-*s  %s", place, h.Place.Name(), in, inText(*h), lines[0]), " ") + "\n")
		for _, line := range lines[1:] {
			fmt.Fprintf(b, "  %-*s  %-*s  %s\n", place, "", in, "", line)
		}
	}
	fmt.Fprintf(b, "  %s\n", p.outcome(l))
}

// inText is where a packet comes in, as tcpdump says it.
func inText(h Hop) string {
	if h.In == "" {
		return ""
	}
	return h.In + " In"
}

// outcome is the end of a leg in a few words.
func (p *Path) outcome(l lang.Printer) string {
	e := p.End
	if e.Arrived {
		return l.Sprintf("arrives at %s", e.Place.Name())
	}
	if e.Answered {
		return l.Sprintf("ends at %s (%s), which tells the sender", e.Place.Name(), e.Cause)
	}
	return l.Sprintf("ends at %s (%s), without a word", e.Place.Name(), e.Cause)
}

// lines are what a hop does: where the packet leaves and by which route, what
// else matched, and what was translated.
func (h *Hop) lines(l lang.Printer) []string {
	first := ""
	won := h.winner()
	switch {
	case h.Out != "" && h.Direct:
		first = l.Sprintf("%s Out, handed over by the datapath", h.Out)
	case h.Out != "" && won != nil && won.Type == path.Unicast:
		first = l.Sprintf("%s Out by %s", h.Out, routeText(*won))
	case h.Out != "":
		first = l.Sprintf("%s Out", h.Out)
	case won != nil && won.Type == path.Local:
		first = l.Sprintf("its own address")
	case won != nil:
		first = routeText(*won)
	case h.looked:
		first = l.Sprintf("no route")
	}
	lines := []string{first}
	if h.Rule != "" {
		lines = append(lines, l.Sprintf("by the rule %s", h.Rule))
	}
	if others := h.losers(); won != nil && won.Type == path.Unicast && len(others) > 0 && !h.Direct {
		lines = append(lines, l.Sprintf("longer than %s", strings.Join(others, ", ")))
	}
	for _, t := range h.Translations {
		lines = append(lines, t.text(l))
	}
	if h.Outer != nil {
		lines = append(lines, l.Sprintf("inside of a packet %s > %s", h.Outer.From, h.Outer.To))
	}
	if h.Learnt != 0 {
		lines = append(lines, l.Sprintf("it has learnt that the path passes %d bytes at most (ip route flush cache forgets that)", h.Learnt))
	}
	for _, n := range h.Notes {
		lines = append(lines, l.Sprintf("a rule that could not be judged: %s", n))
	}
	return lines
}

// losers are the routes of the winner's table that match too.
func (h *Hop) losers() []string {
	var texts []string
	won := h.winner()
	for _, c := range h.Routes {
		if !c.Wins && won != nil && c.Table == won.Table && c.Table != api.TableLocal {
			texts = append(texts, c.Text)
		}
	}
	return texts
}

func (t Translation) text(l lang.Printer) string {
	what := l.Sprintf("destination")
	if t.What == "source" {
		what = l.Sprintf("source")
	}
	was, is := t.Was.String(), t.Is.String()
	if t.Was.Port() == 0 || t.Is.Port() == 0 {
		was, is = t.Was.Addr().String(), t.Is.Addr().String()
	}
	switch t.By {
	case "service":
		return l.Sprintf("service: %s %s becomes %s", what, was, is)
	case "masquerade":
		return l.Sprintf("masquerade: %s %s becomes %s", what, was, is)
	case "reverse":
		return l.Sprintf("translated back: %s %s becomes %s", what, was, is)
	}
	return l.Sprintf("firewall: %s %s becomes %s", what, was, is)
}

// observedText is a ladder: each sighting a rung.
func (r *Report) observedText(b *strings.Builder, p lang.Printer, i int, seen ladder.Ladder) {
	title := p.Sprintf("seen")
	if len(r.Observed) > 1 {
		title = p.Sprintf("seen, backend %s", r.Ways[i].Backend)
	}
	fmt.Fprintf(b, "\n%s\n", title)
	rungs := slices.Concat(seen.There, seen.Errors, seen.Back)
	place, device := 0, 0
	for _, rung := range rungs {
		place, device = max(place, len(Place(rung.Place).Name())), max(device, len(rung.Device))
	}
	for _, rung := range rungs {
		at := fmt.Sprintf("%8.3f ms  %-*s  %-*s", float64(rung.Time.Sub(rungs[0].Time).Microseconds())/1000,
			place, Place(rung.Place).Name(), device, rung.Device)
		fmt.Fprintf(b, "  %s %s\n", at, rungText(rung))
	}
	if seen.Answered {
		fmt.Fprintf(b, "  %s\n", p.Sprintf("answered"))
	} else {
		fmt.Fprintf(b, "  %s\n", p.Sprintf("not answered"))
	}
}

// rungText is what of a sighting comes after its place, in tcpdump's manner.
func rungText(r ladder.Rung) string {
	way := "In "
	if r.Outgoing {
		way = "Out"
	}
	from, to := r.From.String(), r.To.String()
	if r.From.Port() == 0 {
		from, to = r.From.Addr().String(), r.To.Addr().String()
	}
	text := fmt.Sprintf("%s  %s > %s  ttl %d", way, from, to, r.TTL)
	if r.Tunnel != nil {
		text += fmt.Sprintf("  in %s > %s", r.Tunnel.From, r.Tunnel.To)
	}
	if r.Error != nil {
		text += fmt.Sprintf("  ICMP type %d code %d", r.Error.Type, r.Error.Code)
	}
	return text
}
