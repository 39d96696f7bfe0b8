package filter

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"
)

// port is a port of TCP, UDP or SCTP, or a range of them.
func (p *parser) port(q qualifiers, t token) (node, *Error) {
	carriers := []string{"sctp", "tcp", "udp"}
	if q.name() != "" {
		if known, _ := protocolNamed(q.name()); !known.ports {
			return nil, p.wrong(q.protocol, "%s has no ports (tcp, udp and sctp have)", q.name())
		}
		carriers = []string{q.name()}
	}
	low, high, carriers, wrong := p.ports(q.kind, carriers, t)
	if wrong != nil {
		return nil, wrong
	}
	carrier := func(offset uint32) node {
		var nodes []node
		for _, name := range carriers {
			known, _ := protocolNamed(name)
			nodes = append(nodes, field{base: fromNetwork, offset: offset, size: 1, cond: bpf.JumpEqual, value: known.number})
		}
		return anyOf(nodes[0], nodes[1:]...)
	}
	in := func(base base, offset uint32) node {
		f := field{base: base, offset: offset, size: 2, cond: bpf.JumpEqual, value: low}
		if low == high {
			return f
		}
		from, to := f, f
		from.cond = bpf.JumpGreaterOrEqual
		to.cond, to.value = bpf.JumpLessOrEqual, high
		return and{from, to}
	}
	return or{
		all(typeIPv6, carrier(ipv6NextHeader),
			directed(q.direction, in(fromNetwork, ipv6HeaderSize), in(fromNetwork, ipv6HeaderSize+2))),
		all(typeIP, carrier(ipv4Protocol), firstFragment(),
			directed(q.direction, in(fromTransport, 0), in(fromTransport, 2))),
	}, nil
}

// firstFragment holds for IPv4 packets with a transport header.
func firstFragment() node {
	return field{base: fromNetwork, offset: ipv4Fragment, size: 2, cond: bpf.JumpBitsNotSet, value: fragmentOffset}
}

// ports are the first and the last of a range, or one. A service that has its
// name with some of the carriers only leaves no others.
func (p *parser) ports(kind string, carriers []string, t token) (low, high uint32, left []string, wrong *Error) {
	first, last, ranged := strings.Cut(t.text, "-")
	if kind != "portrange" || !ranged {
		first, last = t.text, t.text
	}
	var bounds []uint32
	for _, text := range []string{first, last} {
		n, err := strconv.ParseUint(text, 0, 32)
		if err != nil {
			if n, carriers = service(text, carriers); len(carriers) == 0 {
				return 0, 0, nil, p.wrong(t, "%s %q: neither a number nor the name of a service", kind, text)
			}
		}
		if n > maxPort {
			return 0, 0, nil, p.wrong(t, "%s %d: the largest is %d", kind, n, maxPort)
		}
		bounds = append(bounds, uint32(n))
	}
	return slices.Min(bounds), slices.Max(bounds), carriers, nil
}

// service is the port of a name, and which carriers know it; none where none
// does. SCTP goes with the others: no list of services has names for it alone.
func service(name string, carriers []string) (port uint64, known []string) {
	for _, network := range []string{"udp", "tcp"} {
		if n, err := net.LookupPort(network, name); err == nil && slices.Contains(carriers, network) {
			port, known = uint64(n), append(known, network)
		}
	}
	if len(known) == 2 {
		return port, carriers
	}
	return port, known
}
