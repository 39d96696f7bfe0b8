package ladder

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/native-routing/labctl/labctl/capture"
)

// Seen is a packet, and the place where it was captured.
type Seen struct {
	Place  Place
	Packet capture.Packet
}

// Sent is what is known of a probe where it was sent.
type Sent struct {
	Probe Probe
	// Session is in the tag of an echo and a datagram.
	Session uint32
	// Local is the socket's own end, of TCP and UDP.
	Local netip.AddrPort
}

// Join finds the packets of a probe among what was captured, and puts each leg in
// order: by the TTL, which every router lowers, so that the nodes' clocks need
// not agree; of the same TTL what a node sends before what the next receives;
// on one node by its clock. Clocks that the packet itself refutes are corrected by
// it. A packet that was seen twice at one place in the same
// form, because it was sent again, is there once.
func Join(sent Sent, all []Seen) (there, back, errors []Rung) {
	packets := make([]packet, len(all))
	for i, s := range all {
		packets[i], _ = open(s.Packet.Device.Link, s.Packet.Data)
	}
	m := mark{session: sent.Session, local: sent.Local, to: netip.AddrPortFrom(sent.Probe.To, sent.Probe.Port)}
	m.learn(packets)
	for i, s := range all {
		if s.Packet.Flags.Reception == pcapgo.NgEpbFlagReceptionTypePromiscuous {
			continue // a bridge flooded it to a node that it is not for
		}
		switch p := packets[i]; m.of(p) {
		case request:
			there = append(there, rung(s, p))
		case answer:
			back = append(back, rung(s, p))
		case icmpError:
			errors = append(errors, m.errorRung(s, p))
		}
	}
	there = ordered(there, sent.Probe.Node)
	target := ""
	if last, ok := Last(there); ok {
		target = last.Node
	}
	back, errors = ordered(back, target), ordered(errors, "")
	agree(there, back, errors)
	return there, back, errors
}

func rung(s Seen, p packet) Rung {
	r := Rung{
		Place: s.Place, Device: s.Packet.Device.Name, Outgoing: s.Packet.Outgoing(), Time: s.Packet.Time,
		From: p.from, To: p.to, TTL: p.ttl, Length: p.length, Tunnel: p.tunnel, Packet: s.Packet,
	}
	if t, ok := p.tcp(); ok {
		r.Flags = flags(&t)
	}
	return r
}

// flags are those of the opening of a connection, as tcpdump writes them.
func flags(t *layers.TCP) string {
	text := ""
	for _, f := range []struct {
		set  bool
		sign string
	}{{t.FIN, "F"}, {t.SYN, "S"}, {t.RST, "R"}, {t.PSH, "P"}, {t.ACK, "."}} {
		if f.set {
			text += f.sign
		}
	}
	return text
}

func (m *mark) errorRung(s Seen, p packet) Rung {
	r := rung(s, p)
	q, _ := p.quoted()
	r.Error = &ICMPError{
		Type: int(p.payload[0]), Code: int(p.payload[1]), Reply: m.ofQuoted(q) == answer,
		QuotedFrom: q.from.Addr(), QuotedTo: q.to.Addr(),
	}
	if r.Error.Type == layers.ICMPv4TypeDestinationUnreachable && r.Error.Code == layers.ICMPv4CodeFragmentationNeeded {
		r.Error.MTU = int(binary.BigEndian.Uint16(p.payload[6:]))
	}
	return r
}

// ordered puts a leg in order, which begins at a node where that is known.
func ordered(leg []Rung, begins string) []Rung {
	slices.SortStableFunc(leg, func(a, b Rung) int {
		return cmp.Or(cmp.Compare(b.TTL, a.TTL), cmp.Compare(a.Node, b.Node), a.Time.Compare(b.Time))
	})
	leg = once(leg)
	var done []Rung
	for len(leg) > 0 {
		n := 1
		for n < len(leg) && leg[n].TTL == leg[0].TTL {
			n++
		}
		done = append(done, chained(leg[:n], begins)...)
		begins = done[len(done)-1].Node
		leg = leg[n:]
	}
	return done
}

// once keeps the first of those that are alike but for their time.
func once(leg []Rung) []Rung {
	type alike struct {
		place    Place
		device   string
		outgoing bool
		from, to netip.AddrPort
		ttl      int
		outer    int
		kind     string
	}
	seen := map[alike]bool{}
	var kept []Rung
	for _, r := range leg {
		key := alike{r.Place, r.Device, r.Outgoing, r.From, r.To, r.TTL, outer(r), r.Flags}
		if !seen[key] {
			seen[key] = true
			kept = append(kept, r)
		}
	}
	return kept
}

// outer is the TTL of the packet around one; 0 where there is none.
func outer(r Rung) int {
	if r.Tunnel == nil {
		return 0
	}
	return r.Tunnel.TTL
}

// chained orders rungs of one TTL, which are in order for each node: first the
// node where the packet was before, then by the TTL of the packet around them,
// then who sends before who receives.
func chained(group []Rung, before string) []Rung {
	var nodes [][]Rung
	for i, r := range group {
		if i == 0 || r.Node != group[i-1].Node {
			nodes = append(nodes, nil)
		}
		nodes[len(nodes)-1] = append(nodes[len(nodes)-1], r)
	}
	slices.SortStableFunc(nodes, func(a, b []Rung) int {
		return cmp.Or(
			-compareBool(a[0].Node == before, b[0].Node == before),
			-cmp.Compare(outermost(a), outermost(b)),
			-compareBool(a[0].Outgoing, b[0].Outgoing),
			a[0].Time.Compare(b[0].Time))
	})
	return slices.Concat(nodes...)
}

func outermost(leg []Rung) int {
	most := 0
	for _, r := range leg {
		most = max(most, outer(r))
	}
	return most
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
