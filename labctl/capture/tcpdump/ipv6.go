package tcpdump

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/gopacket/gopacket/layers"
)

const (
	ipv6Header     = 40
	neighborTarget = 8 // its offset in a solicitation and an advertisement
)

// ipv6 writes an IPv6 packet (RFC 8200).
func (p *Printer) ipv6(b *strings.Builder, data []byte, depth int) {
	b.WriteString("IP6 ")
	if len(data) < ipv6Header || depth == 0 {
		b.WriteString("[|ip6]")
		return
	}
	s := segment{
		from: netip.AddrFrom16([16]byte(data[8:24])), to: netip.AddrFrom16([16]byte(data[24:40])), depth: depth,
		protocol: layers.IPProtocol(data[6]), data: data[ipv6Header:], length: int(binary.BigEndian.Uint16(data[4:])),
	}
	s.data = s.data[:min(len(s.data), s.length)]
	options := ""
	for s.protocol == layers.IPProtocolIPv6HopByHop && len(s.data) >= 8 {
		header := (int(s.data[1]) + 1) * 8
		s.protocol = layers.IPProtocol(s.data[0])
		s.data, s.length = s.data[min(header, len(s.data)):], max(s.length-header, 0)
		options += "HBH "
	}
	if s.protocol != layers.IPProtocolICMPv6 {
		p.segment(b, s)
		return
	}
	fmt.Fprintf(b, "%s > %s: %sICMP6, ", s.from, s.to, options)
	icmp6(b, s)
}

// icmp6 writes ICMP for IPv6 (RFC 4443, RFC 4861, RFC 3810).
func icmp6(b *strings.Builder, s segment) {
	if len(s.data) < 8 {
		b.WriteString("[|icmp6]")
		return
	}
	target := func() string {
		if len(s.data) < neighborTarget+16 {
			return " [|icmp6]"
		}
		return netip.AddrFrom16([16]byte(s.data[neighborTarget : neighborTarget+16])).String()
	}
	switch kind := s.data[0]; kind {
	case layers.ICMPv6TypeEchoRequest, layers.ICMPv6TypeEchoReply:
		what := "request"
		if kind == layers.ICMPv6TypeEchoReply {
			what = "reply"
		}
		fmt.Fprintf(b, "echo %s, id %d, seq %d", what, binary.BigEndian.Uint16(s.data[4:]), binary.BigEndian.Uint16(s.data[6:]))
	case layers.ICMPv6TypeRouterSolicitation:
		b.WriteString("router solicitation")
	case layers.ICMPv6TypeRouterAdvertisement:
		b.WriteString("router advertisement")
	case layers.ICMPv6TypeNeighborSolicitation:
		b.WriteString("neighbor solicitation, who has " + target())
	case layers.ICMPv6TypeNeighborAdvertisement:
		b.WriteString("neighbor advertisement, tgt is " + target())
	case layers.ICMPv6TypeMLDv2MulticastListenerReportMessageV2:
		fmt.Fprintf(b, "multicast listener report v2, %d group record(s)", binary.BigEndian.Uint16(s.data[6:]))
	case layers.ICMPv6TypeTimeExceeded:
		b.WriteString("time exceeded in-transit")
	default:
		fmt.Fprintf(b, "type-#%d", kind)
	}
	fmt.Fprintf(b, ", length %d", s.length)
}
