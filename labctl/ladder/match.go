package ladder

import (
	"encoding/binary"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/native-routing/labctl/agent/api"
)

// part says which part of the story a packet is.
type part int

const (
	unrelated part = iota
	request
	answer
	icmpError
)

// packet is what is looked at of a captured packet, or of one that an ICMP error quotes.
type packet struct {
	from, to netip.AddrPort
	protocol layers.IPProtocol
	ttl      int
	length   int
	payload  []byte // of IP
	tunnel   *Tunnel
}

// The UDP ports of VXLAN: IANA's, and Linux's and Cilium's.
const (
	portVXLAN      = 4789
	portLinuxVXLAN = 8472
)

// open takes a captured packet apart, down to the packet inside of a VXLAN.
func open(link layers.LinkType, data []byte) (packet, bool) {
	if link == layers.LinkTypeEthernet {
		const header = 14
		if len(data) < header || binary.BigEndian.Uint16(data[12:]) != uint16(layers.EthernetTypeIPv4) {
			return packet{}, false
		}
		data = data[header:]
	}
	p, ok := datagram(data)
	if !ok || p.protocol != layers.IPProtocolUDP || p.to.Port() != portVXLAN && p.to.Port() != portLinuxVXLAN {
		return p, ok
	}
	const headers = 16 // of UDP and VXLAN
	if len(p.payload) < headers {
		return p, ok
	}
	inner, ok := open(layers.LinkTypeEthernet, p.payload[headers:])
	if !ok {
		return p, true
	}
	inner.tunnel = &Tunnel{
		From: p.from.Addr(), To: p.to.Addr(), Port: p.to.Port(), VNI: binary.BigEndian.Uint32(p.payload[12:]) >> 8, TTL: p.ttl,
	}
	return inner, true
}

// datagram reads an IPv4 packet, of which the end may be missing.
func datagram(data []byte) (packet, bool) {
	var ip layers.IPv4
	if ip.DecodeFromBytes(data, gopacket.NilDecodeFeedback) != nil || ip.FragOffset != 0 {
		return packet{}, false
	}
	from, _ := netip.AddrFromSlice(ip.SrcIP)
	to, _ := netip.AddrFromSlice(ip.DstIP)
	p := packet{protocol: ip.Protocol, ttl: int(ip.TTL), length: int(ip.Length), payload: ip.Payload}
	var source, destination uint16
	if (ip.Protocol == layers.IPProtocolTCP || ip.Protocol == layers.IPProtocolUDP) && len(ip.Payload) >= 4 {
		source, destination = binary.BigEndian.Uint16(ip.Payload), binary.BigEndian.Uint16(ip.Payload[2:])
	}
	p.from, p.to = netip.AddrPortFrom(from, source), netip.AddrPortFrom(to, destination)
	return p, true
}

// quoted is the packet that an ICMP error is about.
func (p packet) quoted() (packet, bool) {
	if p.protocol != layers.IPProtocolICMPv4 || len(p.payload) < 8 {
		return packet{}, false
	}
	switch p.payload[0] {
	case layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4TypeTimeExceeded, layers.ICMPv4TypeRedirect, layers.ICMPv4TypeParameterProblem:
		return datagram(p.payload[8:])
	}
	return packet{}, false
}

// mark knows the packets of one probe, wherever they are and whatever was
// translated in them.
type mark struct {
	session uint32
	// local is the socket's own end, of TCP and UDP.
	local netip.AddrPort
	to    netip.AddrPort
	// echo is the identifier and the sequence of the echo, as it was sent.
	echo [4]byte
	// sequence is the first of a TCP connection, which nobody translates.
	sequence  uint32
	sequenced bool
	// asked are the ends of the datagram that were seen.
	asked map[[2]netip.AddrPort]bool
}

// learn looks at all packets for what tells the probe's from others.
func (m *mark) learn(all []packet) {
	m.asked = map[[2]netip.AddrPort]bool{}
	for _, p := range all {
		switch {
		case p.protocol == layers.IPProtocolUDP && len(p.payload) >= 8 && m.tagged(p.payload[8:]):
			m.asked[[2]netip.AddrPort{p.from, p.to}] = true
		case p.isEcho() && m.tagged(p.payload[8:]):
			m.echo = [4]byte(p.payload[4:8])
		}
	}
	// A SYN that bears the socket's own end is the surest; one that was given
	// another address before it was seen is known by where it goes.
	for _, fits := range []func(packet) bool{
		func(p packet) bool { return p.from == m.local },
		func(p packet) bool { return p.from.Port() == m.local.Port() },
		func(p packet) bool { return p.to == m.to },
	} {
		for _, p := range all {
			if t, ok := p.tcp(); ok && !m.sequenced && t.SYN && !t.ACK && fits(p) {
				m.sequence, m.sequenced = t.Seq, true
			}
		}
	}
}

func (p packet) isEcho() bool {
	return p.protocol == layers.IPProtocolICMPv4 && len(p.payload) >= 8 &&
		(p.payload[0] == layers.ICMPv4TypeEchoRequest || p.payload[0] == layers.ICMPv4TypeEchoReply)
}

func (p packet) tcp() (layers.TCP, bool) {
	var t layers.TCP
	ok := p.protocol == layers.IPProtocolTCP && t.DecodeFromBytes(p.payload, gopacket.NilDecodeFeedback) == nil
	return t, ok
}

// tagged says whether a payload begins with the tag of the probe's session.
func (m *mark) tagged(payload []byte) bool {
	return len(payload) >= 8 && binary.BigEndian.Uint32(payload) == api.TagMagic && binary.BigEndian.Uint32(payload[4:]) == m.session
}

// of says which part a packet is.
func (m *mark) of(p packet) part {
	if q, ok := p.quoted(); ok {
		if m.ofQuoted(q) != unrelated {
			return icmpError
		}
		return unrelated
	}
	switch p.protocol {
	case layers.IPProtocolICMPv4:
		return m.ofEcho(p)
	case layers.IPProtocolTCP:
		return m.ofTCP(p)
	case layers.IPProtocolUDP:
		return m.ofUDP(p)
	}
	return unrelated
}

func (m *mark) ofEcho(p packet) part {
	switch {
	case !p.isEcho() || !m.tagged(p.payload[8:]):
		return unrelated
	case p.payload[0] == layers.ICMPv4TypeEchoReply:
		return answer
	}
	return request
}

func (m *mark) ofTCP(p packet) part {
	t, ok := p.tcp()
	switch {
	case !ok || !m.sequenced:
	case t.SYN && !t.ACK && t.Seq == m.sequence:
		return request
	case (t.SYN || t.RST) && t.ACK && t.Ack == m.sequence+1:
		return answer
	}
	return unrelated
}

func (m *mark) ofUDP(p packet) part {
	switch {
	case len(p.payload) >= 8 && m.tagged(p.payload[8:]) && !m.asked[[2]netip.AddrPort{p.to, p.from}]:
		return request
	case m.asked[[2]netip.AddrPort{p.to, p.from}]:
		return answer
	}
	return unrelated
}

// ofQuoted is which part a quoted packet was, of which there may be 8 bytes
// behind its IP header.
func (m *mark) ofQuoted(q packet) part {
	switch {
	case q.isEcho() && ([4]byte(q.payload[4:8]) == m.echo && m.echo != [4]byte{} || len(q.payload) > 8 && m.tagged(q.payload[8:])):
		if q.payload[0] == layers.ICMPv4TypeEchoReply {
			return answer
		}
		return request
	case q.protocol == layers.IPProtocolTCP && len(q.payload) >= 8 && m.sequenced:
		if binary.BigEndian.Uint32(q.payload[4:]) == m.sequence {
			return request
		}
	case q.protocol == layers.IPProtocolUDP && m.asked[[2]netip.AddrPort{q.from, q.to}]:
		return request
	case q.protocol == layers.IPProtocolUDP && m.asked[[2]netip.AddrPort{q.to, q.from}]:
		return answer
	}
	return unrelated
}
