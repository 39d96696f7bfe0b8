package tcpdump

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/gopacket/gopacket/layers"
)

// icmp writes ICMP for IPv4 (RFC 792).
func icmp(b *strings.Builder, s segment) {
	b.WriteString("ICMP ")
	if len(s.data) < 8 {
		b.WriteString(" [|icmp]")
		return
	}
	kind, code := s.data[0], s.data[1]
	switch kind {
	case layers.ICMPv4TypeEchoRequest, layers.ICMPv4TypeEchoReply:
		what := "request"
		if kind == layers.ICMPv4TypeEchoReply {
			what = "reply"
		}
		fmt.Fprintf(b, "echo %s, id %d, seq %d", what, binary.BigEndian.Uint16(s.data[4:]), binary.BigEndian.Uint16(s.data[6:]))
	case layers.ICMPv4TypeDestinationUnreachable:
		b.WriteString(unreachable(s.data, code))
	case layers.ICMPv4TypeRedirect:
		b.WriteString(redirect(s.data, code))
	case layers.ICMPv4TypeTimeExceeded:
		switch code {
		case 0:
			b.WriteString("time exceeded in-transit")
		case 1:
			b.WriteString("ip reassembly time exceeded")
		default:
			fmt.Fprintf(b, "time exceeded-#%d", code)
		}
	default:
		b.WriteString(typeName(kind))
	}
	fmt.Fprintf(b, ", length %d", s.length)
}

func typeName(kind byte) string {
	names := map[byte]string{
		4: "source quench", 9: "router advertisement", 10: "router solicitation", 12: "parameter problem",
		13: "time stamp request", 14: "time stamp reply", 15: "information request", 16: "information reply",
		17: "address mask request", 18: "address mask reply",
	}
	if name, ok := names[kind]; ok {
		return name
	}
	return fmt.Sprintf("type-#%d", kind)
}

// quoted is what an error tells of the packet that it is about.
type quoted struct {
	to       netip.Addr
	protocol byte
	port     uint16
}

func quote(data []byte) (quoted, bool) {
	ip := data[8:]
	if len(ip) < 20 {
		return quoted{}, false
	}
	q := quoted{to: netip.AddrFrom4([4]byte(ip[16:20])), protocol: ip[9]}
	if header := int(ip[0]&0xf) * 4; len(ip) >= header+4 {
		q.port = binary.BigEndian.Uint16(ip[header+2:])
	}
	return q, true
}

func unreachable(data []byte, code byte) string {
	q, ok := quote(data)
	if !ok {
		return " [|icmp]"
	}
	switch code {
	case layers.ICMPv4CodeProtocol:
		return fmt.Sprintf("%s protocol %d unreachable", q.to, q.protocol)
	case layers.ICMPv4CodePort:
		switch layers.IPProtocol(q.protocol) {
		case layers.IPProtocolTCP:
			return fmt.Sprintf("%s tcp port %d unreachable", q.to, q.port)
		case layers.IPProtocolUDP:
			return fmt.Sprintf("%s udp port %d unreachable", q.to, q.port)
		}
		return fmt.Sprintf("%s protocol %d port %d unreachable", q.to, q.protocol, q.port)
	case layers.ICMPv4CodeFragmentationNeeded:
		if mtu := binary.BigEndian.Uint16(data[6:]); mtu > 0 {
			return fmt.Sprintf("%s unreachable - need to frag (mtu %d)", q.to, mtu)
		}
		return fmt.Sprintf("%s unreachable - need to frag", q.to)
	}
	formats := []string{
		"net %s unreachable", "host %s unreachable", "", "", "", "%s unreachable - source route failed",
		"net %s unreachable - unknown", "host %s unreachable - unknown", "%s unreachable - source host isolated",
		"net %s unreachable - admin prohibited", "host %s unreachable - admin prohibited",
		"net %s unreachable - tos prohibited", "host %s unreachable - tos prohibited",
		"host %s unreachable - admin prohibited filter", "host %s unreachable - host precedence violation",
		"host %s unreachable - precedence cutoff",
	}
	if int(code) >= len(formats) {
		return fmt.Sprintf("%s unreachable - #%d", q.to, code)
	}
	return fmt.Sprintf(formats[code], q.to)
}

func redirect(data []byte, code byte) string {
	q, ok := quote(data)
	if !ok {
		return " [|icmp]"
	}
	formats := []string{"redirect %s to net %s", "redirect %s to host %s", "redirect-tos %s to net %s", "redirect-tos %s to host %s"}
	if int(code) >= len(formats) {
		return fmt.Sprintf("redirect-#%d %s to net %s", code, q.to, netip.AddrFrom4([4]byte(data[4:8])))
	}
	return fmt.Sprintf(formats[code], q.to, netip.AddrFrom4([4]byte(data[4:8])))
}
