//go:build linux

package rtnl

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Route is an IPv4 route as it is written. What is zero is left to the kernel,
// except that the table is main and the type unicast.
type Route struct {
	To       netip.Prefix
	NextHops []NextHop
	Source   netip.Addr
	Protocol int
	Scope    int // unix.RT_SCOPE_UNIVERSE (0), unix.RT_SCOPE_LINK, …
	Metric   int
	MTU      int
	Type     int // unix.RTN_UNICAST where it is 0
}

// NextHop is where a route sends a packet; Index is the interface's, or 0 for
// the kernel to find it by Via.
type NextHop struct {
	Via    netip.Addr
	Index  int
	Weight int  // 1 where it is 0
	OnLink bool // Via is a neighbour, whatever the addresses of the interface say
}

func (h NextHop) flags() byte {
	if h.OnLink {
		return unix.RTNH_F_ONLINK
	}
	return 0
}

// Verb is what a [Change] does.
type Verb int

// The verbs of a change.
const (
	Add     Verb = iota // EEXIST where the prefix has a route of the same metric
	Replace             // takes the place of the first route of that prefix and metric, whosever it is
	Delete              // ESRCH where there is no route that matches all that is set
)

// Change is one route to write or to remove.
type Change struct {
	Verb  Verb
	Route Route
}

// Change applies all changes, in order, and returns the error of each (an
// [*Error] where the kernel refused it), nil where it was done. The error beside
// them is one of the socket; each change whose fate is not known bears it then.
func (c *Conn) Change(changes []Change) ([]error, error) {
	errs := make([]error, len(changes))
	done, err := c.exchange(len(changes), answerCost, func(b []byte, i int) []byte {
		return appendChange(b, changes[i])
	}, func(i int, err error, _ []byte) { errs[i] = err })
	for i := done; i < len(errs); i++ {
		errs[i] = err
	}
	return errs, err
}

// Query asks the FIB for its decision; only To must be set.
type Query struct {
	To, From netip.Addr
	// In is the index of the interface that a packet came in by, which makes it
	// one to route on; Out that of one which it must leave by.
	In, Out int
	Mark    uint32
	// Protocol is the IP protocol's number, without which no port counts.
	Protocol                    int
	SourcePort, DestinationPort uint16
	// Match asks for the route that matched, with its prefix and table, in place
	// of what the kernel makes of it for this packet (RTM_F_FIB_MATCH).
	Match bool
}

// Decision is the FIB's answer. With Err set, nothing else is.
type Decision struct {
	// To and Table are the route's that matched, in an answer to a Query with Match.
	To     netip.Prefix
	Table  int
	Type   int // unix.RTN_UNICAST, unix.RTN_LOCAL, …
	Via    netip.Addr
	Index  int
	Source netip.Addr
	MTU    int
	Err    error // the kernel's, such as ENETUNREACH
}

// Lookup asks the FIB all queries, and returns its decisions in the same order.
func (c *Conn) Lookup(queries []Query) ([]Decision, error) {
	decisions := make([]Decision, len(queries))
	for i := range decisions {
		decisions[i].Err = ErrNoAnswer
	}
	_, err := c.exchange(len(queries), routeCost, func(b []byte, i int) []byte {
		return appendQuery(b, queries[i])
	}, func(i int, err error, body []byte) {
		if err != nil {
			decisions[i] = Decision{Err: err}
			return
		}
		decisions[i] = parseDecision(body)
		if queries[i].From.IsValid() {
			decisions[i].Source = queries[i].From
		}
	})
	return decisions, err
}

func appendChange(b []byte, change Change) []byte {
	kind, flags := uint16(unix.RTM_NEWROUTE), uint16(unix.NLM_F_REQUEST)
	switch change.Verb {
	case Add:
		flags |= unix.NLM_F_CREATE | unix.NLM_F_EXCL
	case Replace:
		flags |= unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	case Delete:
		kind = unix.RTM_DELROUTE
	}
	r := change.Route
	routeType := r.Type
	if routeType == 0 {
		routeType = unix.RTN_UNICAST
	}
	scope := r.Scope
	if change.Verb == Delete && scope == 0 {
		scope = unix.RT_SCOPE_NOWHERE // matches any
	}
	b = appendHeader(b, kind, flags)
	flagged := byte(0)
	if len(r.NextHops) == 1 && change.Verb != Delete {
		flagged = r.NextHops[0].flags()
	}
	b = append(b, unix.AF_INET, byte(r.To.Bits()), 0, 0,
		unix.RT_TABLE_MAIN, byte(r.Protocol), byte(scope), byte(routeType))
	b = binary.NativeEndian.AppendUint32(b, uint32(flagged))
	b = appendAddr(b, unix.RTA_DST, r.To.Addr())
	b = appendNextHops(b, r.NextHops)
	b = appendAddr(b, unix.RTA_PREFSRC, r.Source)
	if r.Metric != 0 {
		b = appendUint32(b, unix.RTA_PRIORITY, uint32(r.Metric))
	}
	if r.MTU != 0 {
		start := len(b)
		b = appendAttribute(b, unix.RTA_METRICS, nil)
		b = appendUint32(b, unix.RTAX_MTU, uint32(r.MTU))
		binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
	}
	return b
}

func appendNextHops(b []byte, hops []NextHop) []byte {
	if len(hops) == 1 {
		b = appendAddr(b, unix.RTA_GATEWAY, hops[0].Via)
		if hops[0].Index != 0 {
			b = appendUint32(b, unix.RTA_OIF, uint32(hops[0].Index))
		}
		return b
	}
	if len(hops) == 0 {
		return b
	}
	start := len(b)
	b = appendAttribute(b, unix.RTA_MULTIPATH, nil)
	for _, hop := range hops {
		at := len(b)
		b = append(b, 0, 0, hop.flags(), byte(max(0, hop.Weight-1)))
		b = binary.NativeEndian.AppendUint32(b, uint32(hop.Index))
		b = appendAddr(b, unix.RTA_GATEWAY, hop.Via)
		binary.NativeEndian.PutUint16(b[at:], uint16(len(b)-at))
	}
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
	return b
}

func appendQuery(b []byte, q Query) []byte {
	b = appendHeader(b, unix.RTM_GETROUTE, unix.NLM_F_REQUEST)
	srcLen := byte(0)
	if q.From.IsValid() {
		srcLen = 32
	}
	b = append(b, unix.AF_INET, 32, srcLen, 0, 0, 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, queryFlags(q))
	b = appendAddr(b, unix.RTA_DST, q.To)
	b = appendAddr(b, unix.RTA_SRC, q.From)
	if q.In != 0 {
		b = appendUint32(b, unix.RTA_IIF, uint32(q.In))
	}
	if q.Out != 0 {
		b = appendUint32(b, unix.RTA_OIF, uint32(q.Out))
	}
	if q.Mark != 0 {
		b = appendUint32(b, unix.RTA_MARK, q.Mark)
	}
	if q.Protocol == 0 {
		return b
	}
	b = appendPadded(b, unix.RTA_IP_PROTO, []byte{byte(q.Protocol)})
	if q.SourcePort != 0 {
		b = appendPadded(b, unix.RTA_SPORT, binary.BigEndian.AppendUint16(nil, q.SourcePort))
	}
	if q.DestinationPort != 0 {
		b = appendPadded(b, unix.RTA_DPORT, binary.BigEndian.AppendUint16(nil, q.DestinationPort))
	}
	return b
}

func queryFlags(q Query) uint32 {
	if q.Match {
		return unix.RTM_F_FIB_MATCH | unix.RTM_F_LOOKUP_TABLE
	}
	return 0
}

// appendPadded appends an attribute whose value is shorter than its place.
func appendPadded(b []byte, kind uint16, value []byte) []byte {
	b = appendAttribute(b, kind, value)
	return append(b, make([]byte, align(len(value))-len(value))...)
}

// appendHeader leaves length, sequence number and port to be filled in.
func appendHeader(b []byte, kind, flags uint16) []byte {
	b = append(b, 0, 0, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(b, value...)
}

func appendAddr(b []byte, kind uint16, addr netip.Addr) []byte {
	if !addr.Is4() {
		return b
	}
	raw := addr.As4()
	return appendAttribute(b, kind, raw[:])
}

func appendUint32(b []byte, kind uint16, value uint32) []byte {
	b = binary.NativeEndian.AppendUint16(b, unix.SizeofRtAttr+4)
	b = binary.NativeEndian.AppendUint16(b, kind)
	return binary.NativeEndian.AppendUint32(b, value)
}

var errNotRoute = errors.New("the answer is not a route")

// parseDecision reads struct rtmsg and its attributes (linux/rtnetlink.h).
func parseDecision(body []byte) Decision {
	if len(body) < unix.SizeofRtMsg {
		return Decision{Err: errNotRoute}
	}
	d := Decision{Type: int(body[7]), Table: int(body[4]), To: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
	eachAttribute(body[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		switch {
		case kind == unix.RTA_DST && len(value) == 4 && body[1] <= 32:
			d.To = netip.PrefixFrom(netip.AddrFrom4([4]byte(value)), int(body[1]))
		case kind == unix.RTA_TABLE && len(value) == 4:
			d.Table = int(binary.NativeEndian.Uint32(value))
		case kind == unix.RTA_OIF && len(value) == 4:
			d.Index = int(binary.NativeEndian.Uint32(value))
		case kind == unix.RTA_GATEWAY && len(value) == 4:
			d.Via = netip.AddrFrom4([4]byte(value))
		case kind == unix.RTA_PREFSRC && len(value) == 4:
			d.Source = netip.AddrFrom4([4]byte(value))
		case kind == unix.RTA_METRICS:
			eachAttribute(value, func(metric uint16, value []byte) {
				if metric == unix.RTAX_MTU && len(value) == 4 {
					d.MTU = int(binary.NativeEndian.Uint32(value))
				}
			})
		}
	})
	return d
}
