package filter

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"
)

// hardware is an Ethernet address.
func (p *parser) hardware(q qualifiers, t token) (node, *Error) {
	var octets []string
	if t.kind == tokenMAC {
		octets = strings.FieldsFunc(t.text, func(r rune) bool { return r == ':' || r == '-' })
	}
	var address net.HardwareAddr
	for _, o := range octets {
		octet, _ := strconv.ParseUint(o, 16, 8) // two hexadecimal digits at most
		address = append(address, byte(octet))
	}
	if len(address) != 6 {
		return nil, p.wrong(t, "%q is no Ethernet address (ether host 08:00:27:00:00:01)", t.text)
	}
	return onEthernet{directed(q.direction, mac(6, address), mac(0, address))}, nil
}

func mac(offset uint32, address net.HardwareAddr) node {
	return and{
		field{offset: offset + 2, size: 4, cond: bpf.JumpEqual, value: binary.BigEndian.Uint32(address[2:])},
		field{offset: offset, size: 2, cond: bpf.JumpEqual, value: uint32(binary.BigEndian.Uint16(address))},
	}
}

// directed joins what must hold of the source and of the destination.
func directed(direction string, source, destination node) node {
	switch direction {
	case fromSource:
		return source
	case toDestination:
		return destination
	case bothDirections:
		return and{source, destination}
	}
	return or{source, destination}
}

// host is an address, or a name with all that it has.
func (p *parser) host(q qualifiers, t token) (node, *Error) {
	addresses := []netip.Prefix{}
	if prefix, ok := octets(t.text); ok {
		addresses = append(addresses, prefix)
	} else if a, err := netip.ParseAddr(t.text); err == nil {
		addresses = append(addresses, netip.PrefixFrom(a, a.BitLen()))
	} else {
		for _, a := range p.names(t.text) {
			addresses = append(addresses, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	if len(addresses) == 0 {
		return nil, p.wrong(t, "host %q: no address, and no node or pod of the lab", t.text)
	}
	var nodes []node
	for _, a := range addresses {
		n, wrong := p.prefix(q, t, a)
		if wrong != nil {
			return nil, wrong
		}
		nodes = append(nodes, n)
	}
	return anyOf(nodes[0], nodes[1:]...), nil
}

// octets reads an IPv4 address of which the last octets may be missing: what is
// there is a prefix.
func octets(text string) (netip.Prefix, bool) {
	var address [4]byte
	parts := strings.Split(text, ".")
	if len(parts) > len(address) {
		return netip.Prefix{}, false
	}
	for i, part := range parts {
		octet, err := strconv.ParseUint(part, 10, 8)
		if err != nil {
			return netip.Prefix{}, false
		}
		address[i] = byte(octet)
	}
	return netip.PrefixFrom(netip.AddrFrom4(address), 8*len(parts)), true
}

// net is a prefix: 10.0.0.0/8, 10, 10.0.0.0 mask 255.0.0.0.
func (p *parser) net(q qualifiers, t token) (node, *Error) {
	prefix, ok := octets(t.text)
	if !ok {
		a, err := netip.ParseAddr(t.text)
		if err != nil {
			return nil, p.wrong(t, "net %q: no network (net 10.0.0.0/8, net 10.0.0.0 mask 255.0.0.0)", t.text)
		}
		prefix = netip.PrefixFrom(a, a.BitLen())
	}
	bits, wrong := p.bits(prefix)
	if wrong != nil {
		return nil, wrong
	}
	whole := netip.PrefixFrom(prefix.Addr(), bits)
	if whole.Masked() != whole {
		return nil, p.wrong(t, "%s has bits set behind the prefix (net %s)", whole, whole.Masked())
	}
	return p.prefix(q, t, whole)
}

// bits reads the length of a network, where it is told.
func (p *parser) bits(prefix netip.Prefix) (int, *Error) {
	switch {
	case p.accept("/"):
		t := p.take()
		bits, err := strconv.Atoi(t.text)
		if err != nil || bits < 0 || bits > prefix.Addr().BitLen() {
			return 0, p.wrong(t, "a prefix of %s is 0 to %d bits long", prefix.Addr(), prefix.Addr().BitLen())
		}
		return bits, nil
	case prefix.Addr().Is4() && p.accept("mask"):
		t := p.take()
		mask, err := netip.ParseAddr(t.text)
		if err != nil || !mask.Is4() {
			return 0, p.wrong(t, "%q is no mask (255.255.255.0)", t.text)
		}
		bits, size := net.IPMask(mask.AsSlice()).Size()
		if size == 0 {
			return 0, p.wrong(t, "%q is no mask: its ones must stand in front", t.text)
		}
		return bits, nil
	}
	return prefix.Bits(), nil
}

// prefix holds for packets from or to addresses of a prefix: of IP, ARP and
// RARP where no protocol is told.
func (p *parser) prefix(q qualifiers, t token, prefix netip.Prefix) (node, *Error) {
	modifier := q.name()
	if !slices.Contains([]string{"", "ip", "ip6", "arp", "rarp"}, modifier) {
		return nil, p.wrong(q.protocol, "%s does not go with an address (%s and %shost %s)", modifier, modifier, spaced(q.direction), t.text)
	}
	if prefix.Addr().Is6() {
		if modifier != "" && modifier != "ip6" {
			return nil, p.wrong(t, "%s does not go with an IPv6 address", modifier)
		}
		return and{typeIPv6, directed(q.direction, six(8, prefix), six(24, prefix))}, nil
	}
	if modifier == "ip6" {
		return nil, p.wrong(t, "ip6 does not go with an IPv4 address")
	}
	var nodes []node
	if modifier == "" || modifier == "ip" {
		nodes = append(nodes, and{typeIP, directed(q.direction, four(ipv4Source, prefix), four(ipv4Source+4, prefix))})
	}
	arp := directed(q.direction, four(arpSourceOffset, prefix), four(arpSourceOffset+10, prefix))
	if modifier == "" || modifier == "arp" {
		nodes = append(nodes, and{typeARP, arp})
	}
	if modifier == "" || modifier == "rarp" {
		nodes = append(nodes, and{typeRARP, arp})
	}
	return anyOf(nodes[0], nodes[1:]...), nil
}

func spaced(word string) string {
	if word == "" {
		return ""
	}
	return word + " "
}

func four(offset uint32, prefix netip.Prefix) node {
	address := prefix.Masked().Addr().As4()
	return masked(offset, prefix.Bits(), binary.BigEndian.Uint32(address[:]))
}

func six(offset uint32, prefix netip.Prefix) node {
	address := prefix.Masked().Addr().As16()
	n := node(constant(true))
	for word := range 4 {
		bits := min(prefix.Bits()-32*word, 32)
		if bits <= 0 {
			break
		}
		test := masked(offset+uint32(4*word), bits, binary.BigEndian.Uint32(address[4*word:]))
		if word == 0 {
			n = test
			continue
		}
		n = and{n, test}
	}
	return n
}

// masked compares the first bits of four bytes.
func masked(offset uint32, bits int, value uint32) node {
	f := field{base: fromNetwork, offset: offset, size: 4, cond: bpf.JumpEqual, value: value}
	switch bits {
	case 0:
		return constant(true)
	case 32:
		return f
	}
	f.mask = ^uint32(0) << (32 - bits)
	return f
}
