//go:build linux

package dbg

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// packets takes packets apart. It is not safe for use by several at once.
type packets struct {
	ethernet layers.Ethernet
	ipv4     layers.IPv4
	ipv6     layers.IPv6
	icmp     layers.ICMPv4
	tcp      layers.TCP
	udp      layers.UDP
	found    []gopacket.LayerType
	parser   *gopacket.DecodingLayerParser
}

func newPackets() *packets {
	p := new(packets)
	p.parser = gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet,
		&p.ethernet, &p.ipv4, &p.ipv6, &p.icmp, &p.tcp, &p.udp)
	return p
}

// decode finds the layers of a packet as far as they are there: it may be cut.
func (p *packets) decode(packet []byte) {
	p.found = p.found[:0]
	_ = p.parser.DecodeLayers(packet, &p.found) // what it could decode is in found
}

// summary is a packet in one line, in the words of cilium monitor.
func (p *packets) summary(packet []byte) string {
	p.decode(packet)
	var from, to net.IP
	text := "[unknown]"
	for _, layer := range p.found {
		switch layer {
		case layers.LayerTypeEthernet:
			text = fmt.Sprintf("%s -> %s %s", p.ethernet.SrcMAC, p.ethernet.DstMAC, p.ethernet.EthernetType)
		case layers.LayerTypeIPv4:
			from, to = p.ipv4.SrcIP, p.ipv4.DstIP
			text = fmt.Sprintf("%s -> %s", from, to)
		case layers.LayerTypeIPv6:
			from, to = p.ipv6.SrcIP, p.ipv6.DstIP
			text = fmt.Sprintf("%s -> %s", from, to)
		case layers.LayerTypeICMPv4:
			text += " " + p.icmp.TypeCode.String()
		case layers.LayerTypeTCP:
			text = ports(from, to, uint16(p.tcp.SrcPort), uint16(p.tcp.DstPort)) + " tcp " + tcpFlags(&p.tcp)
		case layers.LayerTypeUDP:
			text = ports(from, to, uint16(p.udp.SrcPort), uint16(p.udp.DstPort)) + " udp"
		}
	}
	return text
}

func ports(from, to net.IP, source, destination uint16) string {
	return net.JoinHostPort(from.String(), strconv.Itoa(int(source))) + " -> " +
		net.JoinHostPort(to.String(), strconv.Itoa(int(destination)))
}

func tcpFlags(tcp *layers.TCP) string {
	var words []string
	for _, flag := range []struct {
		set  bool
		word string
	}{{tcp.SYN, "SYN"}, {tcp.ACK, "ACK"}, {tcp.RST, "RST"}, {tcp.FIN, "FIN"}} {
		if flag.set {
			words = append(words, flag.word)
		}
	}
	return strings.Join(words, ", ")
}

// addresses are those of the packet; invalid where it has none.
func (p *packets) addresses(packet []byte) (from, to netip.Addr) {
	p.decode(packet)
	for _, layer := range p.found {
		if layer == layers.LayerTypeIPv4 {
			from, _ = netip.AddrFromSlice(p.ipv4.SrcIP)
			to, _ = netip.AddrFromSlice(p.ipv4.DstIP)
		}
	}
	return from, to
}

// dissection is a packet layer by layer, or in hexadecimal.
func (p *packets) dissection(packet []byte, inHex bool) string {
	if inHex {
		return hex.Dump(packet)
	}
	p.decode(packet)
	var b strings.Builder
	for _, layer := range p.found {
		switch layer {
		case layers.LayerTypeEthernet:
			fmt.Fprintln(&b, gopacket.LayerString(&p.ethernet))
		case layers.LayerTypeIPv4:
			fmt.Fprintln(&b, gopacket.LayerString(&p.ipv4))
		case layers.LayerTypeIPv6:
			fmt.Fprintln(&b, gopacket.LayerString(&p.ipv6))
		case layers.LayerTypeICMPv4:
			fmt.Fprintln(&b, gopacket.LayerString(&p.icmp))
		case layers.LayerTypeTCP:
			fmt.Fprintln(&b, gopacket.LayerString(&p.tcp))
		case layers.LayerTypeUDP:
			fmt.Fprintln(&b, gopacket.LayerString(&p.udp))
		}
	}
	if p.parser.Truncated {
		fmt.Fprintln(&b, "  Packet has been truncated")
	}
	return b.String()
}
