package explain

import (
	"net/netip"
	"slices"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/lang"
	"github.com/native-routing/labctl/topologies/path"
)

// Finding is one reason why a packet is lost, or what is remarkable about one
// that arrives.
type Finding struct {
	Cause Cause `json:"cause"`
	Leg   Leg   `json:"leg"`
	Place
	Device string `json:"interface,omitempty"`
	// Reason is the whole of it in a clause.
	Reason string `json:"reason"`
	// Cures are commands, each of which mends it; none where none is known.
	Cures []string `json:"cures,omitempty"`
	// Answered says that the sender is told.
	Answered bool `json:"answered,omitempty"`

	mends []mend
	// unplanned says that a route is missing which the present stage does not have.
	unplanned bool
}

// Verdict is what becomes of the packet, and what would mend it.
type Verdict struct {
	Arrives bool `json:"arrives"`
	// Lost of Ways: a service with three backends has three ways.
	Lost int `json:"lost"`
	Ways int `json:"ways"`
	// Sentence is the verdict in one, its first cause with it.
	Sentence string `json:"sentence"`
	// Findings are the causes; each shows when those before it are mended.
	Findings []Finding `json:"findings,omitempty"`
	// Stages of the lab in which the packet would arrive.
	Stages []string `json:"stages,omitempty"`
	// Also is what the first cure does not mend, a sentence each.
	Also []string `json:"also,omitempty"`
	// Remarks are about a packet that arrives.
	Remarks []Finding `json:"remarks,omitempty"`
}

// maxMends bounds how many causes are looked for behind one another.
const maxMends = 8

// Judge says why the ways end as they do. The ways are those of a prediction
// without open questions.
func Judge(p lang.Printer, w *World, q Question, ways []Way) Verdict {
	v := Verdict{Ways: len(ways)}
	lost := -1
	for i := range ways {
		if !ways[i].Arrives() {
			v.Lost++
			if lost < 0 {
				lost = i
			}
			continue
		}
		v.remark(p, w, q, &ways[i])
	}
	if lost < 0 {
		v.Arrives = true
		v.Sentence = arrives(p, &ways[0])
		return v
	}
	v.Findings = causes(p, w, q, lost, &ways[lost])
	v.others(p, w, q, lost, ways)
	for _, s := range w.Stages {
		if v.Findings[0].unplanned && all(w.in(s), q, v.Ways) {
			v.Stages = append(v.Stages, s.Name)
		}
	}
	v.Sentence = v.lostSentence(p)
	return v
}

// others says what the first cure leaves: of the way that it is about, and of
// other ways that are lost for reasons of their own.
func (v *Verdict) others(p lang.Printer, w *World, q Question, lost int, ways []Way) {
	for _, f := range v.Findings[1:] {
		v.Also = append(v.Also, also(p, v.Findings[0], f))
	}
	for i := range ways {
		if i == lost || ways[i].Arrives() {
			continue
		}
		f := find(p, w, q, i, &ways[i])
		if f.same(v.Findings[0]) || slices.ContainsFunc(v.Findings, f.same) {
			continue
		}
		v.Findings = append(v.Findings, f)
		v.Also = append(v.Also, p.Sprintf("backend %s is lost for another reason: %s. Mend it: %s", ways[i].Backend, f.Reason, joined(f.Cures)))
	}
}

// causes finds what loses a way, mends that in thought, and looks again.
func causes(p lang.Printer, w *World, q Question, choice int, way *Way) []Finding {
	var found []Finding
	for len(found) < maxMends && !way.Arrives() {
		f := find(p, w, q, choice, way)
		if n := len(found); n > 0 && found[n-1].same(f) {
			break // the cure did not help
		}
		found = append(found, f)
		if len(f.mends) == 0 {
			break
		}
		w = w.clone()
		f.mends[0].apply(w)
		next, _ := follow(w, q, choice)
		way = &next
	}
	return found
}

func (f Finding) same(o Finding) bool {
	return f.Cause == o.Cause && f.Leg == o.Leg && f.Place == o.Place && f.Device == o.Device && f.Reason == o.Reason
}

// find says why one way is lost.
func find(p lang.Printer, w *World, q Question, choice int, way *Way) Finding {
	leg := way.lostLeg()
	refine(w, q, choice, way, leg)
	e := leg.End
	to := leg.here().To
	f := Finding{Cause: e.Cause, Leg: leg.Leg, Place: e.Place, Device: e.Device, Answered: e.Answered}
	f.Reason = reason(p, w, leg, to)
	f.mends = mends(w, leg, to)
	if _, planned := plannedRoute(w, e.Place, to); !planned && e.Pod == "" {
		f.unplanned = e.Cause == NoRoute || e.Cause == DefaultRoute
	}
	for _, m := range f.mends {
		f.Cures = append(f.Cures, m.command)
	}
	if len(f.Cures) == 0 && upMends(w, e) {
		f.Cures = []string{"labctl up"}
	}
	return f
}

// upMends says whether labctl up does away with a cause that nothing shorter does.
func upMends(w *World, e End) bool {
	switch e.Cause {
	case NoPod:
		_, known := w.pod(e.address)
		return known
	case NoRoute, DefaultRoute:
		return e.Pod != ""
	case LinkDown:
		return true
	case Unknown:
		n := w.node(e.Node)
		return n != nil && n.Silent != ""
	}
	return false
}

func (w *Way) lostLeg() *Path {
	if w.Reply != nil {
		return w.Reply
	}
	return &w.Request
}

// refine finds the cause behind how a leg ends: a route that should not be
// there, a default route that takes what has no other.
func refine(w *World, q Question, choice int, way *Way, leg *Path) {
	e := &leg.End
	last := leg.here()
	switch {
	case way.stale != nil:
		stale := *way.stale
		stale.receiver = e.Place
		*e = stale
		return
	case isService(w, last.To) && (e.Cause == LeftLab || e.Cause == NoRoute || e.Cause == EndsHere):
		e.Cause, e.address = NotForIt, last.To
		return
	}
	switch e.Cause {
	case LeftLab, EndsHere, SilentNeighbour, Loop, NoRoute, WrongNeighbour, ForwardingOff, NoPod, Unknown, Martian, TooBig:
		if wrongRoute(w, q, choice, leg) {
			return
		}
	}
	if e.Cause == NoRoute || e.Cause == LeftLab {
		if lostDevice(w, e, last.To) {
			return
		}
	}
	won := last.winner()
	if (e.Cause == LeftLab || e.Cause == EndsHere) && won != nil && won.To.Bits() == 0 {
		if _, ok := w.holder(last.To); ok {
			e.Cause, e.route = DefaultRoute, won
		}
	}
	if e.route == nil {
		e.route = won
	}
}

// lostDevice finds out whether a route is missing because the interface that it
// leads out of is down, or has lost its address: the kernel takes its routes then.
func lostDevice(w *World, e *End, to netip.Addr) bool {
	s, at := w.space(e.Place), e.Place
	hop, ok := w.hopTo(at, to)
	if s == nil || !ok || at.Pod != "" {
		return false
	}
	n, _ := w.Planned.Node(at.Node)
	planned, _ := n.Link(hop.Device)
	l := link(s, hop.Device)
	switch {
	case l == nil || planned.Name == "":
		return false
	case !l.Up:
		*e = End{Cause: LinkDown, Place: at, Device: l.Name, Answered: e.Answered}
		return true
	case len(planned.Addresses) > 0 && !slices.Contains(l.Addresses, planned.Addresses[0]):
		*e = End{Cause: NoAddress, Place: at, Device: l.Name, Answered: e.Answered, address: planned.Addresses[0].Addr(), detail: planned.Addresses[0].String()}
		return true
	}
	return false
}

// hopTo is the next hop that a place should send to an address by: that of the
// present stage's route, or the one that leads to whoever holds the address.
func (w *World) hopTo(at Place, to netip.Addr) (path.NextHop, bool) {
	if r, ok := plannedRoute(w, at, to); ok && len(r.NextHops) > 0 {
		return path.NextHop{Via: r.NextHops[0].Via, Device: r.NextHops[0].Device}, true
	}
	holder, ok := w.holder(to)
	if !ok {
		return path.NextHop{}, false
	}
	return w.Planned.Towards(at.Node, holder.Node)
}

func isService(w *World, a netip.Addr) bool {
	return w.Cluster.ServiceCIDR.IsValid() && w.Cluster.ServiceCIDR.Contains(a)
}

// wrongRoute finds the route without which the leg would arrive: the next
// longest match is the right one, and this one takes its packets.
func wrongRoute(w *World, q Question, choice int, leg *Path) bool {
	for i := range leg.Hops {
		h := &leg.Hops[i]
		won := h.winner()
		if won == nil || won.Table == api.TableLocal || won.To.Bits() == 0 || h.Pod != "" {
			continue
		}
		without := w.clone()
		without.edit(h.Place, func(s *api.Space) { dropRoute(s, *won) })
		way, _ := follow(without, q, choice)
		if (leg.Leg == Request && way.Request.End.Arrived) || way.Arrives() {
			leg.End = End{Cause: WrongRoute, Place: h.Place, Device: h.Out, route: won, address: h.To}
			return true
		}
	}
	return false
}

// in is the world with the routes that a stage has in place of the present one's.
func (w *World) in(s Stage) *World {
	c := w.clone()
	for _, n := range s.Lab.Nodes {
		now, _ := w.Planned.Node(n.Name)
		c.edit(Place{Node: n.Name}, func(space *api.Space) {
			for _, l := range n.Links { // the devices that its agent makes
				if link(space, l.Name) == nil {
					space.Links = append(space.Links, api.Link{Name: l.Name, Kind: l.Kind, MTU: l.MTU, Up: true, Carrier: true, Forwarding: true, Addresses: l.Addresses})
				}
			}
			for _, r := range now.Routes {
				if !hasRoute(n.Routes, r) {
					dropRoute(space, fromPlan(r))
				}
			}
			for _, r := range n.Routes {
				if !hasRoute(now.Routes, r) {
					space.Routes = append(space.Routes, fromPlan(r))
				}
			}
		})
	}
	c.Planned, c.Cluster.Masquerade = s.Lab, s.Masquerade
	return c
}

func hasRoute(routes []path.Route, r path.Route) bool {
	return slices.ContainsFunc(routes, func(o path.Route) bool { return o.String() == r.String() && o.Metric == r.Metric })
}

// all says whether every way arrives in a world that no kernel is asked about.
func all(w *World, q Question, ways int) bool {
	for choice := range ways {
		if way, _ := follow(w, q, choice); !way.Arrives() {
			return false
		}
	}
	return true
}

// remark notes what is odd about a way that arrives.
func (v *Verdict) remark(p lang.Printer, w *World, q Question, way *Way) {
	add := func(f Finding) {
		if !slices.ContainsFunc(v.Remarks, f.same) {
			v.Remarks = append(v.Remarks, f)
		}
	}
	for _, h := range way.Request.Hops {
		for _, t := range h.Translations {
			_, fromPod := w.pod(t.Was.Addr())
			_, toPod := w.pod(h.To)
			if t.What == "source" && (t.By == "nat" || fromPod && toPod && t.By == "masquerade") {
				add(Finding{Cause: Masqueraded, Leg: Request, Place: h.Place, Device: h.Out, Reason: masqueraded(p, w, h, t)})
			}
		}
	}
	if f, ok := foreign(p, w, way); ok {
		add(f)
	}
	if there, back := nodesOf(way.Request.Hops), nodesOf(way.Reply.Hops); !slices.Equal(there, reversed(back)) {
		at := firstOther(there, way.Reply)
		add(Finding{Cause: Asymmetric, Leg: Reply, Place: at.Place, Device: at.In, Reason: p.Sprintf("the reply takes another way than the request: %s there, %s back", joined(there), joined(back))})
	}
}

// foreign notes a node that answers for an address of another's.
func foreign(p lang.Printer, w *World, way *Way) (Finding, bool) {
	end, to := way.Request.End, way.Request.here().To
	holder, ok := w.holder(to)
	if !ok || holder.Node == end.Node || isUplink(w, to) {
		return Finding{}, false
	}
	f := Finding{Cause: ForeignAddress, Leg: Request, Place: end.Place, Device: end.Device,
		Reason: p.Sprintf("%s bears %s too, and takes what is for %s", end.Place.Name(), to, holder.Name())}
	f.mends = dropAddress(w, end.Place, to)
	for _, m := range f.mends {
		f.Cures = append(f.Cures, m.command)
	}
	return f, true
}

// isUplink says whether several nodes bear the address by the plan.
func isUplink(w *World, a netip.Addr) bool {
	bearers := 0
	for _, n := range w.Planned.Nodes {
		if n.Owns(a) {
			bearers++
		}
	}
	return bearers > 1
}

// nodesOf are the nodes of a leg, each once in a row.
func nodesOf(hops []Hop) []string {
	var names []string
	for _, h := range hops {
		names = append(names, h.Node)
	}
	return slices.Compact(names)
}

func reversed(names []string) []string {
	r := slices.Clone(names)
	slices.Reverse(r)
	return r
}

// firstOther is the hop of the reply that the request did not take, or its first.
func firstOther(there []string, reply *Path) Hop {
	for _, h := range reply.Hops {
		if !slices.Contains(there, h.Node) {
			return h
		}
	}
	return reply.Hops[0]
}
