package filter

import (
	"net"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"
)

// qualifiers are what stands before the value of a primitive.
type qualifiers struct {
	protocol  token // empty for any
	direction string
	kind      string // host, net, port, portrange or proto
}

// The directions of a primitive; empty for either.
const (
	fromSource     = "src"
	toDestination  = "dst"
	bothDirections = "src and dst"
)

// linkName is the link layer as a protocol; it has two names.
const linkName = "ether"

func isLink(word string) bool { return word == linkName || word == "link" }

// name is that of the protocol; empty for any.
func (q qualifiers) name() string {
	if isLink(q.protocol.text) {
		return linkName
	}
	return q.protocol.text
}

// Where things are in headers, in bytes (RFC 791, RFC 8200, RFC 826).
const (
	ipv4Protocol    = 9
	ipv4Fragment    = 6 // flags and fragment offset
	ipv4Source      = 12
	ipv6NextHeader  = 6
	ipv6HeaderSize  = 40
	arpSourceOffset = 14

	fragmentOffset = 0x1fff // its bits beside the flags
	maxPort        = 65535
)

// primitive reads one condition of the language.
func (p *parser) primitive() (node, *Error) {
	t := p.peek()
	if n, ok, wrong := p.special(t); ok || wrong != nil {
		return n, wrong
	}
	q, any, wrong := p.qualifiers()
	if wrong != nil {
		return nil, wrong
	}
	switch {
	case !any && p.last == nil, !any && t.kind == tokenOperator, t.kind == tokenEnd:
		return nil, p.unknown(t)
	case !any:
		q = *p.last // a value alone: as the one before
	case q.kind == "" && q.direction == "" && q.name() != "":
		return p.bare(q)
	}
	p.last = &q
	return p.values(q)
}

// unknown is a word that no condition begins with.
func (p *parser) unknown(t token) *Error {
	switch {
	case t.kind == tokenEnd:
		return p.wrong(t, "a condition is missing at the end")
	case t.text == "(":
		return p.wrong(t, "this parenthesis is not closed")
	case t.kind == tokenWord && nearest(t.text) != "":
		return p.wrong(t, "%q is no word of the filter language (%s?)", t.text, nearest(t.text))
	case t.kind == tokenWord, t.kind == tokenIPv6, t.kind == tokenMAC:
		return p.wrong(t, "%q is no word of the filter language (host %s, port %s?)", t.text, t.text, t.text)
	}
	return p.wrong(t, "a condition is missing before %q", t.text)
}

// special reads the conditions that have a form of their own.
func (p *parser) special(t token) (n node, ok bool, wrong *Error) {
	switch {
	case p.accept("inbound"):
		return not{leaving{}}, true, nil
	case p.accept("outbound"):
		return leaving{}, true, nil
	case p.accept("broadcast"), p.accept("multicast"):
		return cast(t.text), true, nil
	case p.accept("less", "greater"):
		value := p.take()
		size, err := strconv.ParseUint(value.text, 0, 32)
		if err != nil {
			return nil, true, p.wrong(value, "a length in bytes belongs behind %s", t.text)
		}
		if t.text == "less" {
			return relation{bpf.JumpLessOrEqual, length{}, number(size)}, true, nil
		}
		return relation{bpf.JumpGreaterOrEqual, length{}, number(size)}, true, nil
	}
	// What begins with a value is a comparison, and one that is wrong.
	began := p.at
	if _, err := strconv.ParseUint(t.text, 0, 32); err == nil && p.last != nil {
		return nil, false, nil
	}
	_, _, wrong = p.value(0)
	if moved := p.at - began; wrong == nil || moved > 1 && p.tokens[began+1].text == "[" {
		p.at = began
		_, wrong = p.comparison()
		return nil, true, wrong
	}
	p.at = began
	return nil, false, nil
}

func cast(word string) node {
	if word == "multicast" {
		return onEthernet{field{size: 1, cond: bpf.JumpBitsSet, value: 1}}
	}
	return onEthernet{mac(0, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})}
}

// qualifiers reads those of a primitive, and says whether there were any.
func (p *parser) qualifiers() (q qualifiers, any bool, wrong *Error) {
	began := p.at
	if t := p.peek(); t.kind == tokenWord {
		if _, ok := protocolNamed(t.text); ok || isLink(t.text) {
			q.protocol = p.take()
		}
	}
	q.direction = p.direction()
	if t := p.peek(); p.accept("host", "net", "port", "portrange", "proto") {
		q.kind = t.text
	}
	return q, p.at > began, nil
}

func (p *parser) direction() string {
	first := p.peek()
	if !p.accept(fromSource, toDestination) {
		return ""
	}
	if other := p.at; p.accept("or", "||", "and", "&&") {
		how := p.tokens[other].text
		if second := p.peek(); p.accept(fromSource, toDestination) && second.text != first.text {
			if how == "and" || how == "&&" {
				return bothDirections
			}
			return ""
		}
		p.at = other
	}
	return first.text
}

// bare reads what a protocol alone means: ip, tcp; and ether broadcast.
func (p *parser) bare(q qualifiers) (node, *Error) {
	if t := p.peek(); p.accept("broadcast", "multicast") {
		switch {
		case q.name() == linkName:
			return cast(t.text), nil
		case q.name() == "ip" && t.text == "multicast":
			return and{typeIP, field{base: fromNetwork, offset: 16, size: 1, cond: bpf.JumpGreaterOrEqual, value: 224}}, nil
		case q.name() == "ip6" && t.text == "multicast":
			return and{typeIPv6, field{base: fromNetwork, offset: 24, size: 1, cond: bpf.JumpEqual, value: 255}}, nil
		}
		return nil, p.wrong(t, "%s %s cannot be told on any device (ether %s, ip multicast)", q.name(), t.text, t.text)
	}
	if q.name() == linkName {
		if p.isValue() {
			p.last = &q
			return p.values(q)
		}
		return nil, p.wrong(q.protocol, "behind ether belongs host, src, dst, proto, broadcast or multicast")
	}
	if p.isValue() {
		if q.name() == "ip" || q.name() == "ip6" || q.name() == "arp" || q.name() == "rarp" {
			p.last = &q
			return p.values(q)
		}
		return nil, p.wrong(p.peek(), "%s", p.misplaced(p.peek()))
	}
	p.last = nil
	known, _ := protocolNamed(q.name())
	return known.node(), nil
}

// isValue says whether the next token can only be the value of a primitive.
func (p *parser) isValue() bool {
	t := p.peek()
	return t.kind > tokenWord && t.kind != tokenOperator || t.kind == tokenWord && t.text != "and" && t.text != "or"
}

// node holds for the packets of a protocol.
func (known protocol) node() node {
	if known.ether != 0 {
		return known.ether
	}
	return carried(known.number, known.ip, known.ip6)
}

// carried holds for what IP, or IPv6, carries by a number.
func carried(protocol uint32, ip, ip6 bool) node {
	four := and{typeIP, field{base: fromNetwork, offset: ipv4Protocol, size: 1, cond: bpf.JumpEqual, value: protocol}}
	next := field{base: fromNetwork, offset: ipv6NextHeader, size: 1, cond: bpf.JumpEqual, value: protocol}
	fragment, inside := next, next
	fragment.value = protocolFragment
	inside.offset = ipv6HeaderSize
	six := and{typeIPv6, or{next, and{fragment, inside}}}
	switch {
	case ip && ip6:
		return or{six, four}
	case ip6:
		return six
	}
	return four
}

// values reads the value of a primitive, or several in parentheses.
func (p *parser) values(q qualifiers) (node, *Error) {
	open := p.peek()
	if !p.accept("(") {
		return p.one(q)
	}
	n, wrong := p.one(q)
	for wrong == nil && !p.accept(")") {
		t := p.peek()
		var right node
		switch {
		case p.accept("or", "||"):
			right, wrong = p.one(q)
			n = or{n, right}
		case p.accept("and", "&&"):
			right, wrong = p.one(q)
			n = and{n, right}
		case t.kind == tokenEnd:
			return nil, p.wrong(open, "this parenthesis is not closed")
		default:
			return nil, p.wrong(t, "%s", p.misplaced(t))
		}
	}
	return n, wrong
}

// one reads one value.
func (p *parser) one(q qualifiers) (node, *Error) {
	negated := p.accept("not", "!")
	t := p.take()
	if t.kind == tokenEnd || t.kind == tokenOperator {
		what := q.kind
		if what == "" {
			what = "host"
		}
		return nil, p.wrong(t, "a value is missing behind %s", strings.TrimSpace(q.name()+" "+q.direction+" "+what))
	}
	n, wrong := p.valueOf(q, t)
	if wrong == nil && negated {
		n = not{n}
	}
	return n, wrong
}

func (p *parser) valueOf(q qualifiers, t token) (node, *Error) {
	switch q.kind {
	case "port", "portrange":
		return p.port(q, t)
	case "proto":
		return p.protocolNumber(q, t)
	case "net":
		return p.net(q, t)
	}
	if q.name() == linkName {
		return p.hardware(q, t)
	}
	return p.host(q, t)
}

// protocolNumber is what IP or Ethernet carries, by its number or name.
func (p *parser) protocolNumber(q qualifiers, t token) (node, *Error) {
	known, named := protocolNamed(t.text)
	number, err := strconv.ParseUint(t.text, 0, 16)
	if err != nil && !named {
		return nil, p.wrong(t, `proto %q: neither a number nor a protocol (proto 6, proto \tcp)`, t.text)
	}
	if q.name() == linkName {
		switch {
		case named && known.ether != 0:
			return known.ether, nil
		case named:
			return nil, p.wrong(t, "Ethernet does not carry %s itself (ip proto %s)", known.name, known.name)
		}
		return etherType(number), nil
	}
	if named {
		if known.ether != 0 {
			return nil, p.wrong(t, "IP does not carry %s (ether proto %s)", known.name, known.name)
		}
		number = uint64(known.number)
	}
	switch q.name() {
	case "":
		return carried(uint32(number), true, true), nil
	case "ip":
		return carried(uint32(number), true, false), nil
	case "ip6":
		return carried(uint32(number), false, true), nil
	}
	return nil, p.wrong(q.protocol, "%s carries no protocols by number (ip, ip6 and ether do)", q.name())
}

// header is what the bytes of a protocol count from, and what a packet must be
// to have them.
func (p *parser) header(of token) (access, []node, *Error) {
	if isLink(of.text) {
		return access{base: fromLink}, nil, nil
	}
	known, ok := protocolNamed(of.text)
	switch {
	case !ok || !known.header:
		return access{}, nil, p.wrong(of, "%q has no bytes to look at (ether, ip, ip6, arp, icmp, tcp, udp have)", of.text)
	case known.ether != 0:
		return access{base: fromNetwork}, []node{known.ether}, nil
	case !known.ip:
		next := field{base: fromNetwork, offset: ipv6NextHeader, size: 1, cond: bpf.JumpEqual, value: known.number}
		return access{base: fromNetwork, add: ipv6HeaderSize}, []node{and{typeIPv6, next}}, nil
	}
	return access{base: fromTransport}, []node{all(typeIP, known.node(), firstFragment())}, nil
}
