package check

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/native-routing/labctl/agent/api"
)

// sighting is one tagged packet passing an interface of a node.
type sighting struct {
	node string
	api.Sighting
}

// leg is what was seen of one packet on its way, from its sender onwards.
type leg []sighting

// legs splits what was seen of one probe into the request's way and the
// reply's. The order of each comes from the TTL, which every node lowers, so
// that the nodes' clocks need not agree. In a tunnel it is the carrier's that the
// nodes lower.
func legs(seen []sighting) (there, back leg) {
	seen = slices.Clone(seen)
	slices.SortStableFunc(seen, func(a, b sighting) int {
		if a.TTL != b.TTL {
			return b.TTL - a.TTL
		}
		return cmp.Or(cmp.Compare(stretch(a), stretch(b)), b.CarrierTTL-a.CarrierTTL, cmp.Compare(order(a), order(b)))
	})
	for _, s := range seen {
		if s.Reply {
			back = append(back, s)
		} else {
			there = append(there, s)
		}
	}
	return there, back
}

// stretch puts into a tunnel before through it before out of it.
func stretch(s sighting) int {
	switch {
	case s.CarrierTTL > 0:
		return 1
	case s.Outgoing:
		return 0
	}
	return 2
}

// order puts leaving a node before arriving at the next with the same TTL.
func order(s sighting) int {
	if s.Outgoing {
		return 0
	}
	return 1
}

// arrived says whether the packet came in at the node that holds its destination.
func (l leg) arrived(node string) bool {
	return len(l) > 0 && !l.last().Outgoing && l.last().CarrierTTL == 0 && l.last().node == node
}

func (l leg) last() sighting { return l[len(l)-1] }

// source is the source address that the packet bore at the end.
func (l leg) source() netip.Addr { return l.last().From }

// translator is the node that sends the packet on with another source address
// than those it may have; false where none does.
func (l leg) translator(sources []netip.Addr) (string, bool) {
	for _, s := range l {
		if !slices.Contains(sources, s.From) {
			return s.node, true
		}
	}
	return "", false
}
