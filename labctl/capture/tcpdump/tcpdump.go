// Package tcpdump writes packets as tcpdump -nn does (version 4.99, without -v):
// Ethernet, ARP, IPv4 and IPv6, ICMP, TCP with the first line of HTTP, UDP with
// DNS and VXLAN. Other protocols are called by their number. It differs in one
// thing on purpose: UDP port 8472, which Linux and Cilium use for VXLAN, is
// VXLAN here, where tcpdump takes it for OTV.
package tcpdump

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Printer writes packets. It remembers where connections began, so that it
// counts their bytes from there. It is not safe for use by several at once; the
// zero value is ready.
type Printer struct {
	conversations map[conversation]begin
}

// maxDepth bounds packets inside of packets.
const maxDepth = 8

// ethernetHeader is its length in bytes.
const ethernetHeader = 14

// Packet is a packet that was captured from its link layer's header on, of
// which length bytes passed, in one line, or in one for each packet inside.
func (p *Printer) Packet(link layers.LinkType, data []byte, length int) string {
	var b strings.Builder
	if link == layers.LinkTypeEthernet {
		p.frame(&b, data, length, maxDepth)
	} else {
		p.datagram(&b, data, maxDepth)
	}
	return b.String()
}

// frame writes what Ethernet carries.
func (p *Printer) frame(b *strings.Builder, data []byte, length, depth int) {
	if len(data) < ethernetHeader || depth == 0 {
		b.WriteString(" [|ether]")
		return
	}
	kind, payload := binary.BigEndian.Uint16(data[12:]), data[ethernetHeader:]
	switch layers.EthernetType(kind) {
	case layers.EthernetTypeIPv4, layers.EthernetTypeIPv6:
		p.datagram(b, payload, depth)
	case layers.EthernetTypeARP, reverseARP:
		arp(b, payload, length-ethernetHeader)
	case layers.EthernetTypeLinkLayerDiscovery:
		fmt.Fprintf(b, "LLDP, length %d", length-ethernetHeader)
	default:
		fmt.Fprintf(b, "ethertype Unknown (0x%04x), length %d", kind, length-ethernetHeader)
	}
}

// reverseARP is RARP's number.
const reverseARP = 0x8035

func arp(b *strings.Builder, data []byte, length int) {
	const whole = 28 // of an ARP packet for IPv4 on Ethernet
	b.WriteString("ARP, ")
	if len(data) < whole {
		b.WriteString("[|arp]")
		return
	}
	from, to := netip.AddrFrom4([4]byte(data[14:18])), netip.AddrFrom4([4]byte(data[24:28]))
	switch operation := binary.BigEndian.Uint16(data[6:]); operation {
	case layers.ARPRequest:
		asked := ""
		if unicast := data[18:24]; !allZero(unicast) {
			asked = fmt.Sprintf(" (%s)", net.HardwareAddr(unicast))
		}
		fmt.Fprintf(b, "Request who-has %s%s tell %s", to, asked, from)
	case layers.ARPReply:
		fmt.Fprintf(b, "Reply %s is-at %s", from, net.HardwareAddr(data[8:14]))
	default:
		fmt.Fprintf(b, "Unknown (%d)", operation)
	}
	fmt.Fprintf(b, ", length %d", length)
}

func allZero(b []byte) bool {
	for _, one := range b {
		if one != 0 {
			return false
		}
	}
	return true
}

// datagram writes an IP packet.
func (p *Printer) datagram(b *strings.Builder, data []byte, depth int) {
	if len(data) == 0 {
		b.WriteString("[|ip]")
		return
	}
	if data[0]>>4 == 6 {
		p.ipv6(b, data, depth)
		return
	}
	var ip layers.IPv4
	if err := ip.DecodeFromBytes(data, gopacket.NilDecodeFeedback); err != nil {
		b.WriteString("IP [|ip]")
		return
	}
	from, _ := netip.AddrFromSlice(ip.SrcIP)
	to, _ := netip.AddrFromSlice(ip.DstIP)
	s := segment{from: from, to: to, protocol: ip.Protocol, data: ip.Payload, length: int(ip.Length) - int(ip.IHL)*4, depth: depth}
	b.WriteString("IP ")
	if ip.FragOffset > 0 {
		fmt.Fprintf(b, "%s > %s: ip-proto-%d", from, to, ip.Protocol)
		return
	}
	p.segment(b, s)
}

// segment is what an IP packet carries.
type segment struct {
	from, to netip.Addr
	protocol layers.IPProtocol
	data     []byte // as far as it was captured
	length   int    // as long as it was
	depth    int
}

func (p *Printer) segment(b *strings.Builder, s segment) {
	switch s.protocol {
	case layers.IPProtocolTCP:
		p.tcp(b, s)
		return
	case layers.IPProtocolUDP:
		p.udp(b, s)
		return
	}
	fmt.Fprintf(b, "%s > %s: ", s.from, s.to)
	switch s.protocol {
	case layers.IPProtocolICMPv4:
		icmp(b, s)
	case layers.IPProtocolIPv4, layers.IPProtocolIPv6:
		p.datagram(b, s.data, s.depth-1)
	default:
		fmt.Fprintf(b, " ip-proto-%d %d", uint8(s.protocol), s.length)
	}
}

// ends are both addresses with their ports.
func ends(s segment, from, to uint16) string {
	return fmt.Sprintf("%s.%d > %s.%d: ", s.from, from, s.to, to)
}
