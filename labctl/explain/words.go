package explain

import (
	"net/netip"
	"strings"

	"github.com/native-routing/labctl/labctl/lang"
)

// lostSentence is the verdict of ways of which at least one is lost.
func (v *Verdict) lostSentence(p lang.Printer) string {
	f := v.Findings[0]
	var cures []string
	for _, s := range v.Stages {
		cures = append(cures, "labctl stage "+s)
	}
	cures = append(cures, f.Cures...)
	said := ""
	switch {
	case v.Lost < v.Ways && v.Lost == 1 && f.Leg == Reply:
		said = p.Sprintf("the reply to one request in %s is lost: %s", number(p, v.Ways), f.Reason)
	case v.Lost < v.Ways && v.Lost == 1:
		said = p.Sprintf("one request in %s is lost: %s", number(p, v.Ways), f.Reason)
	case v.Lost < v.Ways:
		said = p.Sprintf("%d requests of %d are lost: %s", v.Lost, v.Ways, f.Reason)
	case f.Leg == Reply:
		said = p.Sprintf("the request arrives, but its reply is lost: %s", f.Reason)
	default:
		said = p.Sprintf("lost: %s", f.Reason)
	}
	if len(cures) == 0 {
		return said
	}
	or := p.Sprintf(", or: ")
	return p.Sprintf("%s. Mend it: %s", said, strings.Join(cures, or))
}

// number is a small number in a word.
func number(p lang.Printer, n int) string {
	switch n {
	case 2:
		return p.Sprintf("two")
	case 3:
		return p.Sprintf("three")
	case 4:
		return p.Sprintf("four")
	case 5:
		return p.Sprintf("five")
	}
	return p.Sprintf("%d", n)
}

// also says what is needed beside the cure of the first finding.
func also(p lang.Printer, first, f Finding) string {
	if len(f.mends) > 0 && f.mends[0].add != nil && len(f.mends[0].add.NextHops) == 1 {
		r := f.mends[0].add
		via := r.NextHops[0].Via
		switch {
		case !via.IsValid():
		case f.Leg == Reply && f.Place == first.Place:
			return p.Sprintf("the reply needs %s via %s too: %s", routeKey(*r), via, f.Cures[0])
		case f.Leg == Reply:
			return p.Sprintf("the reply needs %s via %s on %s too: %s", routeKey(*r), via, f.Place.Name(), f.Cures[0])
		default:
			return p.Sprintf("the request needs %s via %s on %s too: %s", routeKey(*r), via, f.Place.Name(), f.Cures[0])
		}
	}
	if len(f.Cures) > 0 {
		return p.Sprintf("after that, %s. Mend it: %s", f.Reason, strings.Join(f.Cures, p.Sprintf(", or: ")))
	}
	return p.Sprintf("after that, %s", f.Reason)
}

// reason is why a leg ends where it does, in a clause that names the node.
func reason(p lang.Printer, w *World, leg *Path, to netip.Addr) string {
	e, h := leg.End, leg.here()
	at := e.Place.Name()
	switch e.Cause {
	case NoRoute:
		return p.Sprintf("%s has no route for %s", at, w.prefixOf(to))
	case DefaultRoute:
		return p.Sprintf("%s sends it out of %s (%s): it has no route for %s", at, e.Device, shortRoute(h), w.prefixOf(to))
	case WrongRoute:
		return p.Sprintf("%s sends it out of %s (%s): a longer match than the right one for %s", at, e.Device, routeText(*e.route), to)
	case LeftLab:
		return p.Sprintf("%s sends it out of %s (%s), where the lab ends: what becomes of it there cannot be told", at, e.Device, shortRoute(h))
	case EndsHere:
		return p.Sprintf("%s sends it out of %s, behind which there is nobody", at, e.Device)
	case Blackhole, Unreachable, Prohibit:
		return refusal(p, h, e, at)
	case Loop:
		return p.Sprintf("it goes round between %s until its TTL ends", joined(nodesOf(leg.loop())))
	}
	return deviceReason(p, w, leg, to)
}

// refusal is a route or a rule that refuses.
func refusal(p lang.Printer, h *Hop, e End, at string) string {
	what := h.Rule
	if e.route != nil {
		what = routeText(*e.route)
	}
	switch e.Cause {
	case Blackhole:
		return p.Sprintf("%s throws it away without a word (%s)", at, what)
	case Unreachable:
		return p.Sprintf("%s refuses it as unreachable (%s)", at, what)
	}
	return p.Sprintf("%s refuses it as prohibited (%s)", at, what)
}

// deviceReason are the reasons that lie in links, neighbours and settings.
func deviceReason(p lang.Printer, w *World, leg *Path, to netip.Addr) string {
	e, h := leg.End, leg.here()
	at := e.Place.Name()
	switch e.Cause {
	case SilentNeighbour:
		if e.address == to {
			return p.Sprintf("nobody on the network of %s's %s answers for %s", at, e.Device, e.address)
		}
		return p.Sprintf("nobody on the network of %s's %s answers for its next hop %s (%s)", at, e.Device, e.address, shortRoute(h))
	case WrongNeighbour:
		return p.Sprintf("%s takes %s for the MAC address of %s, which is not so", at, e.detail, e.address)
	case LinkDown:
		if s := w.space(e.Place); s != nil {
			if l := link(s, e.Device); l != nil && l.Up {
				return p.Sprintf("%s of %s has no carrier: the link's other end is down", e.Device, at)
			}
		}
		return p.Sprintf("%s of %s is down", e.Device, at)
	case NoAddress:
		return p.Sprintf("%s of %s has lost its address %s, and its routes with that", e.Device, at, e.detail)
	case ForwardingOff:
		return p.Sprintf("%s does not pass on what comes in by %s: forwarding is off there", at, e.Device)
	case ReversePath:
		return p.Sprintf("the reverse path filter of %s drops it: it comes in by %s, and its source %s is reached elsewhere (%s)", at, e.Device, e.address, orNone(p, e.detail))
	case Martian:
		return p.Sprintf("%s drops it as a martian: its source %s is an address of %s itself", at, e.address, at)
	case ForeignAddress:
		return p.Sprintf("%s bears %s too, and takes it for its own", at, e.address)
	case TooBig:
		return p.Sprintf("it has %d bytes and must not be fragmented, and %s of %s passes %d at most", e.size, e.Device, at, e.mtu)
	case Firewall:
		return p.Sprintf("a firewall rule of %s drops it (%s)", at, ruleName(e.chain, e.rule))
	case EchoIgnored:
		return p.Sprintf("%s answers no echo (net.ipv4.icmp_echo_ignore_all is 1)", at)
	}
	return serviceReason(p, w, leg, to)
}

// serviceReason are the reasons that lie in services, pods and translations.
func serviceReason(p lang.Printer, w *World, leg *Path, to netip.Addr) string {
	e := leg.End
	at := e.Place.Name()
	switch e.Cause {
	case NoBackend:
		return noBackend(p, w, e.detail)
	case StaleFlow:
		return p.Sprintf("%s still sends this connection to %s, which is no backend any more", at, e.detail)
	case NoPod:
		if pod, ok := w.pod(e.address); ok {
			return p.Sprintf("pod %s does not run on %s", shortPod(pod.Key()), at)
		}
		return p.Sprintf("%s has no pod with the address %s", at, e.address)
	case NotReady:
		return p.Sprintf("pod %s is not ready", e.detail)
	case NotForIt:
		return p.Sprintf("%s is the address of a service, which answers on its own ports alone and on nodes that carry pods", e.address)
	case SourceRefused:
		return p.Sprintf("%s drops it: a pod may send with its own address only, and not with %s", at, e.address)
	case WrongSource:
		return p.Sprintf("it comes from %s, which %s did not call: the translation on the way there was not undone", e.address, at)
	}
	switch n := w.node(e.Node); {
	case n != nil && n.Silent != "":
		return p.Sprintf("what %s does with it cannot be told: %s", at, n.Silent)
	case e.detail != "":
		return p.Sprintf("the kernel of %s refuses it (%s), which its tables do not explain", at, e.detail)
	}
	return p.Sprintf("what %s does with it cannot be told", at)
}

// noBackend says why a service has none.
func noBackend(p lang.Printer, w *World, service string) string {
	for _, s := range w.Cluster.Services {
		if s.Key() != service || len(s.Backends) == 0 {
			continue
		}
		var pods []string
		for _, b := range s.Backends {
			pods = append(pods, shortPod(b.Pod))
		}
		return p.Sprintf("service %s has no backend that is ready: of its pods (%s) none is", service, joined(pods))
	}
	return p.Sprintf("service %s has no backend: no pod bears the labels that it selects", service)
}

func orNone(p lang.Printer, text string) string {
	if text == "" {
		return p.Sprintf("no route")
	}
	return text
}

// shortRoute is the winner without its device, which the sentence names: default via 10.0.2.2.
func shortRoute(h *Hop) string {
	won := h.winner()
	if won == nil {
		return ""
	}
	text, _, _ := strings.Cut(routeText(*won), " metric ")
	for _, n := range won.NextHops {
		if n.Via.IsValid() {
			text = strings.Replace(text, " dev "+n.Device, "", 1)
		}
	}
	return text
}

// loop are the hops that repeat.
func (p *Path) loop() []Hop {
	last := p.here()
	for i, h := range p.Hops[:len(p.Hops)-1] {
		if h.Place == last.Place && h.In == last.In && h.In != "" {
			return p.Hops[i : len(p.Hops)-1]
		}
	}
	return p.Hops
}

func joined(names []string) string { return strings.Join(names, ", ") }

// arrives is the verdict of a packet that does.
func arrives(p lang.Printer, way *Way) string {
	end := way.Request.End.Place
	if way.Backend.IsValid() {
		return p.Sprintf("arrives: every backend is reached, and its reply comes back")
	}
	return p.Sprintf("arrives at %s, and the reply comes back", end.Name())
}

// masqueraded says who takes the source's place, and why.
func masqueraded(p lang.Printer, w *World, h Hop, t Translation) string {
	if t.By == "nat" {
		return p.Sprintf("%s is seen as %s by whom it calls: a firewall rule of %s translates it (%s)", t.Was.Addr(), t.Is.Addr(), h.Place.Name(), t.Rule)
	}
	return p.Sprintf("%s is seen as %s by whom it calls: %s masquerades it, because %s is not within the native-routing CIDR %s",
		t.Was.Addr(), t.Is.Addr(), h.Place.Name(), h.To, w.Cluster.NativeCIDR)
}
