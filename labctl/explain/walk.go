package explain

import (
	"net/netip"
	"slices"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/topologies/path"
)

// walk follows one packet along one way.
type walk struct {
	w *World
	// open are the questions that lack an answer; with one, the way ends.
	open []Ask
	// choice picks among the backends of a service; choices is how many there were.
	choice, choices int

	packet Packet
	ttl    int
	path   *Path
	seen   []visit
	// called is whom the client believes to talk to: the source that it takes a
	// reply from.
	called  netip.AddrPort
	backend netip.AddrPort
	// changes are the translations of the request, which the reply undoes.
	changes []change
	// tracked are the places that the request went through.
	tracked []Place
	made    string // what the datapath did with a frontend
	stale   *End   // where connection tracking leads to a backend that is gone
	rule    string // the firewall rule that translates now
	outer   *Outer // the tunnel's packet that is followed, and not the one that was asked for
}

// visit is a packet that came in somewhere, to know it again.
type visit struct {
	Place
	in       string
	from, to netip.Addr
}

// change is a translation that a place made of the request.
type change struct {
	Place
	Translation
	kernel bool // by the kernel's NAT, not by the datapath
	socket bool // before there was a packet: no packet of the reply is changed for it
}

const usualTTL = 64

// protocolNumbers are the IP protocols' (IANA).
var protocolNumbers = map[string]int{ICMP: 1, TCP: 6, UDP: 17}

// begin starts a leg in a place.
func (t *walk) begin(leg Leg, at Place, p Packet) *Path {
	t.packet, t.ttl, t.seen = p, usualTTL, nil
	t.path = &Path{Leg: leg}
	t.originate(at)
	t.path.Passes, t.path.Loops = t.path.sightings(), t.path.End.Cause == Loop
	return t.path
}

func (t *walk) reply() bool { return t.path.Leg == Reply }

// end ends the leg here.
func (t *walk) end(cause Cause, fill func(*End)) {
	hop := t.path.here()
	e := End{Cause: cause, Place: hop.Place, Device: hop.In}
	if hop.Out != "" {
		e.Device = hop.Out
	}
	if fill != nil {
		fill(&e)
	}
	t.path.End = e
}

// ask returns the answer to a question, and false where it is open: then the
// walk is over.
func (t *walk) ask(at Place, q api.PathQuery) (api.PathDecision, bool) {
	q.Pod = at.Pod
	if t.w.Answers == nil {
		return decide(t.w.space(at), q), true
	}
	key := Ask{at, q}
	d, ok := t.w.Answers[key]
	if !ok {
		t.open = append(t.open, key)
	}
	return d, ok
}

// tables returns those of a place, and false where the walk cannot go on
// without: they are asked for, or nothing can be known of it.
func (t *walk) tables(at Place) (*api.Space, bool) {
	s := t.w.space(at)
	if s != nil {
		return s, true
	}
	if n := t.w.node(at.Node); n != nil && n.Silent == "" && at.Pod != "" && !t.w.Places[at] && t.w.Answers != nil {
		t.open = append(t.open, Ask{Place: at})
		return nil, false
	}
	t.end(Unknown, func(e *End) {
		e.Place, e.Device = at, ""
		if n := t.w.node(at.Node); n != nil {
			e.detail = n.Silent
		}
	})
	return nil, false
}

func (t *walk) query(in string) api.PathQuery {
	p := t.packet
	return api.PathQuery{To: p.To, From: p.From, In: in, Protocol: protocolNumbers[p.Protocol], SourcePort: p.SourcePort, DestinationPort: p.Port}
}

// enterHop adds a hop to the path.
func (t *walk) enterHop(at Place, in string) {
	t.path.Hops = append(t.path.Hops, Hop{Place: at, In: in, Outer: t.outer})
	t.stamp()
	if !t.reply() {
		t.tracked = append(t.tracked, at)
	}
}

// stamp notes the packet as it is.
func (t *walk) stamp() {
	hop := t.path.here()
	hop.From, hop.To, hop.TTL = t.packet.From, t.packet.To, t.ttl
}

// originate sends the packet from a namespace.
func (t *walk) originate(at Place) {
	t.enterHop(at, "")
	s, ok := t.tables(at)
	if !ok || t.endedAtService(at) {
		return
	}
	q := t.query("")
	d, ok := t.ask(at, q)
	if !ok {
		return
	}
	t.explainRoute(s, q, d)
	if d.Error != "" {
		t.refused(at, s, q, d)
		return
	}
	if !t.packet.From.IsValid() {
		t.packet.From = d.Source
	}
	if mtu := t.mtu(s, d); d.Type == path.Unicast && t.packet.DontFragment && t.packet.Size > mtu {
		t.path.here().Out = d.Device
		t.end(TooBig, func(e *End) { e.mtu, e.size, e.Answered = mtu, t.packet.Size, true })
		return
	}
	if t.filtered(at, s, "output", "", d.Device) {
		return
	}
	if d.Type == path.Local {
		t.toItself(at, s)
		return
	}
	t.leave(at, s, d)
}

// toItself is a packet to an address of the namespace that sends it, by loopback.
func (t *walk) toItself(at Place, s *api.Space) {
	hop := t.path.here()
	hop.Out = "lo"
	if l := link(s, "lo"); l == nil || !l.Up {
		t.end(LinkDown, nil)
		return
	}
	if t.filtered(at, s, "postrouting", "", "lo") || t.filtered(at, s, "prerouting", "lo", "") {
		return
	}
	hop.Out = ""
	t.deliver(at, s, "lo")
}

// arrive handles a packet that comes in by a device of a namespace.
func (t *walk) arrive(at Place, in string) {
	t.enterHop(at, in)
	s, ok := t.tables(at)
	if !ok {
		return
	}
	l := link(s, in)
	v := visit{at, in, t.packet.From, t.packet.To}
	switch {
	case l == nil || !l.Up:
		t.end(LinkDown, nil)
		return
	case !t.fits(l):
		t.end(TooBig, func(e *End) { e.mtu, e.size = l.MTU, t.packet.Size })
		return
	case slices.Contains(t.seen, v):
		t.end(Loop, nil)
		return
	}
	t.seen = append(t.seen, v)
	if at.Pod == "" && t.datapathTakes(at, in) {
		return
	}
	if t.filtered(at, s, "prerouting", in, "") {
		return
	}
	t.stamp()
	t.route(at, s, l)
}

// fits says whether a link takes the packet in: a veth pair hands over no frame
// that is longer than its other end's MTU and a VLAN's tag (is_skb_forwardable).
func (t *walk) fits(l *api.Link) bool {
	const tag = 4
	return l.Kind != "veth" || t.packet.Size <= l.MTU+tag
}

// route decides about a packet that came in.
func (t *walk) route(at Place, s *api.Space, in *api.Link) {
	q := t.query(in.Name)
	d, ok := t.ask(at, q)
	if !ok {
		return
	}
	t.explainRoute(s, q, d)
	if refused, filter := refusesSource(s, in, t.packet.From, t.packet.To); refused && (d.Error != "" || t.w.Answers == nil) && t.routable(s, q, in) {
		cause := Martian
		if filter {
			cause = ReversePath
		}
		t.end(cause, func(e *End) { e.address, e.detail = t.packet.From, t.wayBack(s) })
		return
	}
	switch {
	case d.Error == "" && d.Type != path.Local && !in.Forwarding, d.Errno == errnoHost && !in.Forwarding:
		t.end(ForwardingOff, func(e *End) { e.passing = true })
	case d.Error != "":
		t.path.here().Out = ""
		t.refused(at, s, q, d)
		t.path.End.passing = true
	case d.Type == path.Local:
		t.deliver(at, s, in.Name)
	case d.Type != path.Unicast:
		t.end(Unknown, func(e *End) { e.detail = d.Type })
	default:
		t.forward(at, s, in.Name, d)
	}
}

// routable says whether the destination would pass, so that the source is to blame.
func (t *walk) routable(s *api.Space, q api.PathQuery, in *api.Link) bool {
	m := lookup(s, q)
	return m.typ == path.Local || (m.typ == path.Unicast && in.Forwarding)
}

// wayBack is how the namespace would reach the packet's source.
func (t *walk) wayBack(s *api.Space) string {
	m := lookup(s, api.PathQuery{To: t.packet.From, From: t.packet.To})
	if r := m.route(); r != nil {
		return routeText(*r)
	}
	return ""
}

// forward passes the packet on.
func (t *walk) forward(at Place, s *api.Space, in string, d api.PathDecision) {
	hop := t.path.here()
	hop.Out = d.Device
	if t.ttl <= 1 {
		t.end(Loop, func(e *End) { e.Answered = true })
		return
	}
	t.ttl--
	if mtu := t.mtu(s, d); t.packet.DontFragment && t.packet.Size > mtu {
		t.end(TooBig, func(e *End) { e.mtu, e.size, e.Answered, e.passing = mtu, t.packet.Size, true, true })
		return
	}
	if t.filtered(at, s, "forward", in, d.Device) {
		return
	}
	t.leave(at, s, d)
}

// mtu is what a packet may leave with: by the route's own limit and the link's.
// What the kernel has learnt of the path beyond is noted: the packet is to find
// out anew whether that holds.
func (t *walk) mtu(s *api.Space, d api.PathDecision) int {
	mtu, hop := 0, t.path.here()
	if won := hop.winner(); won != nil {
		mtu = won.MTU
	}
	if l := link(s, d.Device); l != nil && (mtu == 0 || l.MTU < mtu) {
		mtu = l.MTU
	}
	if d.MTU != 0 && d.MTU < mtu {
		hop.Learnt = d.MTU
	}
	return mtu
}

// leave takes the packet out of the namespace.
func (t *walk) leave(at Place, s *api.Space, d api.PathDecision) {
	hop := t.path.here()
	hop.Out, hop.Via, hop.MTU = d.Device, d.Via, t.mtu(s, d)
	if t.filtered(at, s, "postrouting", "", d.Device) {
		return
	}
	if t.packet.Size > hop.MTU && hop.MTU > 0 {
		t.packet.Size = hop.MTU // in fragments, of which the first is the largest
	}
	l := link(s, d.Device)
	if l == nil || !l.Up {
		t.end(LinkDown, nil)
		return
	}
	if at.Pod == "" {
		t.datapathSends(at, s, l)
	}
	t.stamp()
	target := d.Via
	if !target.IsValid() {
		target = t.packet.To
	}
	t.transmit(at, s, l, target)
}

// deliver hands the packet to whoever it is for.
func (t *walk) deliver(at Place, s *api.Space, in string) {
	if t.filtered(at, s, "input", in, "") {
		return
	}
	switch {
	case t.outer != nil:
		t.path.End = End{Arrived: true, Place: at, Device: in}
	case t.packet.Protocol == ICMP && !t.reply() && s.Sysctls[api.SysctlIgnoreEcho] == "1":
		t.end(EchoIgnored, nil)
	case t.reply() && t.packet.From != t.called.Addr():
		t.end(WrongSource, func(e *End) { e.address = t.packet.From })
	case !t.mine(at):
		t.end(ForeignAddress, func(e *End) { e.address = t.packet.To })
	default:
		t.path.End = End{Arrived: true, Place: at, Device: in}
	}
	t.stamp()
}

// mine says whether the place is the one that is to have the address: another
// may bear it too, as all nodes do that of their uplink.
func (t *walk) mine(at Place) bool {
	if !t.reply() {
		return true
	}
	return t.tracked[0] == at
}

// refused is a FIB that has no way for the packet.
func (t *walk) refused(at Place, s *api.Space, q api.PathQuery, d api.PathDecision) {
	m := lookup(s, q)
	cause := NoRoute
	switch m.typ {
	case path.Blackhole, path.Unreachable, path.Prohibit:
		cause = Cause(m.typ)
	case path.Unicast, path.Local:
		cause = Unknown // the kernel refuses what its tables would pass
	}
	t.end(cause, func(e *End) {
		e.route, e.detail, e.Answered = m.route(), d.Error, cause != Blackhole
		if q.In == "" {
			e.Answered = true
		}
	})
}

// explainRoute notes which routes match, and which one won.
func (t *walk) explainRoute(s *api.Space, q api.PathQuery, d api.PathDecision) {
	hop := t.path.here()
	m := lookup(s, q)
	hop.looked, hop.Rule = true, ""
	if m.rule != nil {
		hop.Rule = ruleText(*m.rule)
	}
	won := m.won
	// Where nobody added a rule the kernel keeps the local table within the main
	// one, and says so: the number of the table alone tells nothing.
	if d.To.IsValid() && (won < 0 || m.routes[won].To != d.To) {
		won = slices.IndexFunc(m.routes, func(r api.Route) bool { return r.To == d.To })
	}
	hop.Routes = nil
	for i, r := range m.routes {
		if r.Table == api.TableLocal && r.Type != path.Local {
			continue // broadcasts
		}
		hop.Routes = append(hop.Routes, Candidate{Text: routeText(r), Table: r.Table, Wins: i == won, route: r})
	}
}

// winner is the route that a hop went by; nil where none did.
func (h *Hop) winner() *api.Route {
	for i := range h.Routes {
		if h.Routes[i].Wins {
			return &h.Routes[i].route
		}
	}
	return nil
}
