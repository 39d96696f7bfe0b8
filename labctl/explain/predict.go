package explain

import (
	"net/netip"
	"slices"
)

// Question is what is to be explained.
type Question struct {
	From   Place  `json:"from"`
	Packet Packet `json:"packet"`
}

// maxWays bounds how many backends of a service are looked at.
const maxWays = 64

// Predict follows the packet and its reply: one way for each backend that it
// may get. Where answers are lacking it returns what is to be asked; then the
// ways are as far as they were followed.
func Predict(w *World, q Question) ([]Way, []Ask) {
	var ways []Way
	var open []Ask
	for choice, choices := 0, 1; choice < min(choices, maxWays); choice++ {
		way, t := follow(w, q, choice)
		choices = max(choices, t.choices)
		ways = append(ways, way)
		open = append(open, t.open...)
	}
	for _, place := range involved(w, q, ways) {
		if n := w.node(place.Node); w.Answers != nil && !w.Places[place] && n != nil && n.Silent == "" {
			open = append(open, Ask{Place: place})
		}
	}
	return ways, distinct(open)
}

// follow takes one way, out and back.
func follow(w *World, q Question, choice int) (Way, *walk) {
	t := &walk{w: w, choice: choice}
	t.called = netip.AddrPortFrom(q.Packet.To, q.Packet.Port)
	way := Way{Packet: q.Packet}
	way.Request = *t.begin(Request, q.From, q.Packet)
	way.Backend = t.backend
	if way.Packet.From = q.Packet.From; !way.Packet.From.IsValid() && len(way.Request.Hops) > 0 {
		way.Packet.From = t.firstSource()
	}
	way.stale = t.stale
	if !way.Request.End.Arrived {
		return way, t
	}
	back := Packet{
		From: t.packet.To, To: t.packet.From, Protocol: t.packet.Protocol, SourcePort: t.packet.Port, Port: t.packet.SourcePort,
		Size: q.Packet.Size, DontFragment: q.Packet.DontFragment && q.Packet.Protocol == TCP,
	}
	way.Reply = t.begin(Reply, way.Request.End.Place, back)
	return way, t
}

// firstSource is the source that the packet left its sender with: before any
// translation of it.
func (t *walk) firstSource() netip.Addr {
	for _, c := range t.changes {
		if c.What == "source" {
			return c.Was.Addr()
		}
	}
	return t.packet.From
}

// involved are the pods whose own tables matter, whether the packet gets there
// or not: the sender, and whoever it is for.
func involved(w *World, q Question, ways []Way) []Place {
	var places []Place
	add := func(p Place, ok bool) {
		if ok && p.Pod != "" && !slices.Contains(places, p) {
			places = append(places, p)
		}
	}
	add(q.From, true)
	add(w.holder(q.Packet.To))
	for _, way := range ways {
		if way.Backend.IsValid() {
			add(w.holder(way.Backend.Addr()))
		}
	}
	return places
}

func distinct(asks []Ask) []Ask {
	seen := make(map[Ask]bool, len(asks))
	return slices.DeleteFunc(asks, func(a Ask) bool {
		known := seen[a]
		seen[a] = true
		return known
	})
}
